/**
 * The page's small pure functions: prose, addresses, names, times, branches, drafts.
 */
import { describe, expect, it } from 'vitest';
import { branchTree } from './features/branches/branch-switch';
import { typingSentence } from './features/company/typing-line';
import { withReturned } from './features/composer/use-draft';
import { fileName } from './features/export/export-button';
import { joinPath, routeOf, storyPath } from './router';
import { initials, lookOf } from './ui/avatar';
import { paragraphs, spans } from './ui/prose';
import { when } from './ui/when';

describe('prose', () => {
  it('parts paragraphs at blank lines and keeps single breaks', () => {
    expect(paragraphs('One\ntwo\r\n\r\n \n\nthree\n')).toEqual(['One\ntwo', 'three']);
    expect(paragraphs('  \n ')).toEqual([]);
  });
  it('marks emphasis around whole words only', () => {
    expect(spans('She was *not* late, _ever_, and **never** 2*3*4 snake_case_name')).toEqual([
      { text: 'She was ', style: 'plain' }, { text: 'not', style: 'em' }, { text: ' late, ', style: 'plain' }, { text: 'ever', style: 'em' },
      { text: ', and ', style: 'plain' }, { text: 'never', style: 'strong' }, { text: ' 2*3*4 snake_case_name', style: 'plain' },
    ]);
  });
  it('leaves what is not closed, and what looks like HTML, as text', () => {
    expect(spans('a *lonely star')).toEqual([{ text: 'a *lonely star', style: 'plain' }]);
    expect(spans('<b onclick="x">')).toEqual([{ text: '<b onclick="x">', style: 'plain' }]);
  });
  it('loses no character of a text without marks, however odd', () => {
    for (const text of ['* * *', '__init__', '***', 'a ** b ** c', '🪶*🪶']) expect(spans(text).map((span) => span.text).join('')).toBe(text);
  });
  it('does not take long over a text made of stars', () => {
    const start = performance.now();
    spans('*a '.repeat(20_000));
    expect(performance.now() - start).toBeLessThan(500);
  });
});

describe('addresses', () => {
  it('mean pages', () => {
    expect(routeOf('/', '')).toEqual({ page: 'home' });
    expect(routeOf('/s/abc', '?branch=left')).toEqual({ page: 'story', story: 'abc', branch: 'left' });
    expect(routeOf('/join/XY-1', '')).toEqual({ page: 'join', code: 'XY-1' });
    for (const odd of ['/s', '/s/a/b', '/nothing/here']) expect(routeOf(odd, '')).toEqual({ page: 'unknown' });
    expect(routeOf('/s/%E0%A4%A', '')).toMatchObject({ page: 'story' });
  });
  it('survive odd ids there and back', () => {
    const [pathname = '', search = ''] = storyPath('a/b c', 'x&y').split(/(?=\?)/);
    expect(routeOf(pathname, search)).toEqual({ page: 'story', story: 'a/b c', branch: 'x&y' });
    expect(routeOf(joinPath('ä?'), '')).toEqual({ page: 'join', code: 'ä?' });
  });
});

describe('names and times', () => {
  it('give initials of whole characters', () => {
    expect(['Ana', 'ana lindqvist', 'Jean Paul Sartre', '🪶 quill', 'élodie', '  '].map(initials)).toEqual(['A', 'AL', 'JS', '🪶Q', 'É', '']);
  });
  it('give looks that hardly any two people of a story share', () => {
    const seen = new Map<string, number>();
    for (let index = 0; index < 1600; index += 1) {
      const { hue, tone } = lookOf(`0192f0c1-7e4b-7a3d-9c1e-${index.toString(16).padStart(12, '0')}`);
      seen.set(`${hue} ${tone}`, (seen.get(`${hue} ${tone}`) ?? 0) + 1);
    }
    expect(seen.size).toBe(16);
    expect(Math.max(...seen.values())).toBeLessThan(150);
    expect(lookOf('ana')).toEqual(lookOf('ana'));
  });
  it('give file names that every system takes', () => {
    expect(fileName('The Lighthouse: at/the end…')).toBe('the-lighthouse-at-the-end.md');
    expect(fileName('???')).toBe('story.md');
  });
  it('say how long ago', () => {
    const now = Date.UTC(2026, 10, 21, 12);
    expect([1000, 60_000, 7_200_000, 86_400_000].map((ago) => when(now - ago, now))).toEqual(['just now', '1 minute ago', '2 hours ago', 'yesterday']);
    expect(when(Date.UTC(2020, 0, 2, 12), now)).toContain('2020');
  });
  it('say who is typing', () => {
    expect([[], ['Ana'], ['Ana', 'Ben'], ['Ana', 'Ben', 'Cleo'], ['A', 'B', 'C', 'D']].map(typingSentence)).toEqual(['', 'Ana is typing', 'Ana and Ben are typing', 'Ana, Ben and one more are typing', 'A, B and 2 more are typing']);
  });
});

describe('branches and drafts', () => {
  it('stand as a tree, also when a parent is missing', () => {
    const branch = (id: string, created_at: number, parent?: string): { id: string; label: string; created_at: number; parent?: string } => ({ id, label: id, created_at, ...(parent === undefined ? {} : { parent }) });
    const rows = branchTree([branch('b', 3, 'main'), branch('main', 1), branch('a', 2, 'main'), branch('a1', 4, 'a'), branch('orphan', 5, 'gone')]);
    expect(rows.map((row) => `${'-'.repeat(row.depth)}${row.branch.id}`)).toEqual(['main', '-a', '--a1', '-b', 'orphan']);
  });
  it('come back before what was typed meanwhile', () => {
    expect(withReturned('  ', 'refused')).toBe('refused');
    expect(withReturned('newer', 'refused')).toBe('refused\n\nnewer');
  });
});
