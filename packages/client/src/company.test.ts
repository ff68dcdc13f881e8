/**
 * Who is here and who is typing: the two small reducers, with a clock of the test's own.
 */
import { describe, expect, it } from 'vitest';
import { nobodyHere, stepPresence } from './presence.js';
import { isDue, stepTyping, TYPER_SHOWN_MS, type Typer } from './typing.js';

const client = (id: string, user: string, name: string): { client: string; user: string; connInfo: unknown } => ({ client: id, user, connInfo: { name } });

describe('presence', () => {
  it('shows a person once, however many windows they have, until the last one closes', () => {
    let state = stepPresence(nobodyHere, { type: 'all', clients: [client('c1', 'ana', 'Ana'), client('c2', 'ana', 'Ana')] });
    state = stepPresence(state, { type: 'join', client: client('c3', 'ben', 'Ben') });
    expect(state.people.map((one) => one.name)).toEqual(['Ana', 'Ben']);
    state = stepPresence(state, { type: 'leave', client: client('c1', 'ana', 'Ana') });
    expect(state.people).toHaveLength(2);
    state = stepPresence(state, { type: 'leave', client: client('c2', 'ana', 'Ana') });
    expect(state.people.map((one) => one.name)).toEqual(['Ben']);
  });
  it('is replaced by a whole answer, so that lost leaves do not stay', () => {
    const ghost = stepPresence(nobodyHere, { type: 'join', client: client('c9', 'ghost', 'Ghost') });
    expect(stepPresence(ghost, { type: 'all', clients: [client('c1', 'ana', 'Ana')] }).people.map((one) => one.user)).toEqual(['ana']);
  });
  it('does not fall over a client without a name', () => {
    expect(stepPresence(nobodyHere, { type: 'join', client: { client: 'c', user: 'u' } }).people[0]?.name).toBe('someone');
  });
});

describe('typing', () => {
  const signal = (typing: boolean): { type: 'signal'; user: string; name: string; typing: boolean } => ({ type: 'signal', user: 'ben', name: 'Ben', typing });
  it('shows a typer until told that they stopped', () => {
    const typers = stepTyping([], signal(true), 0);
    expect(typers.map((typer) => typer.name)).toEqual(['Ben']);
    expect(stepTyping(typers, signal(false), 10)).toEqual([]);
  });
  it('forgets a typer after six silent seconds, and not before', () => {
    const typers: readonly Typer[] = stepTyping([], signal(true), 1000);
    expect(stepTyping(typers, { type: 'tick' }, 1000 + TYPER_SHOWN_MS - 1)).toBe(typers);
    expect(stepTyping(typers, { type: 'tick' }, 1000 + TYPER_SHOWN_MS)).toEqual([]);
  });
  it('goes on showing who says so again', () => {
    const again = stepTyping(stepTyping([], signal(true), 0), signal(true), 4000);
    expect(stepTyping(again, { type: 'tick' }, 9000)).toHaveLength(1);
  });
  it('is said at most every two seconds, and a stop at once but only after a start', () => {
    expect(isDue(undefined, true, 0)).toBe(true);
    expect(isDue({ typing: true, at_ms: 0 }, true, 1999)).toBe(false);
    expect(isDue({ typing: true, at_ms: 0 }, true, 2000)).toBe(true);
    expect(isDue({ typing: true, at_ms: 0 }, false, 1)).toBe(true);
    expect(isDue({ typing: false, at_ms: 0 }, false, 9999)).toBe(false);
    expect(isDue(undefined, false, 0)).toBe(false);
  });
});
