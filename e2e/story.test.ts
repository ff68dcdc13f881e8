/**
 * People and the narrator in one story, in real browsers against the real binary: what one does, all see.
 * Outages are in story-outage.test.ts.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Browsers, type Person } from './src/browser.ts';
import { Server } from './src/server.ts';
import { expectBeginnings, expectSame, WRITTEN_MS, type StoryWindow } from './src/story-window.ts';
import { until } from './src/until.ts';

let server: Server;
let browsers: Browsers;
let ana: Person;
let ben: Person;

beforeAll(async () => {
  server = await Server.start();
  browsers = await Browsers.launch(server);
  [ana, ben] = [await browsers.person('Ana'), await browsers.person('Ben')];
});
afterEach(({ task }) => browsers.after(task));
afterAll(async () => {
  try {
    await browsers.close();
  } finally {
    await server.stop();
  }
});

interface Room { a: StoryWindow; b: StoryWindow; both: readonly [StoryWindow, StoryWindow]; path: string; invitation: string }

/** Ana starts a story, Ben joins by her link. */
async function room(title: string): Promise<Room> {
  const a = await browsers.window(ana);
  const path = await a.create(title);
  const invitation = await a.invite();
  const b = await browsers.window(ben, invitation);
  await b.accept(title);
  return { a, b, both: [a, b], path, invitation };
}

const inBoth = <T>(here: Room, look: (window: StoryWindow) => Promise<T>): Promise<[T, T]> => Promise.all([look(here.a), look(here.b)]);

describe('two guests', () => {
  it('meet in a story by a link, see who is here, and that the other types', async () => {
    const here = await room('The brass compass');
    for (const window of here.both) {
      expect(await window.at('story-title').textContent()).toBe('The brass compass');
      const company = await window.seesCompany(2);
      expect(company).toContain('Ana');
      expect(company).toContain('Ben');
      expect(company).toContain('(you)');
      expect(company).toContain('Narrator, agent');
    }
    await here.b.at('composer').pressSequentially('Once upon');
    await until('Ana sees that Ben types', async () => (await here.a.at('typing').textContent())?.includes('Ben is typing'));
    expect(await here.b.at('typing').textContent()).toBe('');
    await here.b.at('send').click();
    await until('nobody types any more', async () => (await here.a.at('typing').textContent()) === '');
    await here.b.page.close();
    expect(await here.a.seesCompany(1)).not.toContain('Ben');
  });

  it('see each turn once and in the same order, however they write at once', async () => {
    const here = await room('Both at once');
    const written: string[] = [];
    for (const n of [1, 2, 3]) {
      const texts = [`Ana writes the ${n}. time.`, `Ben writes the ${n}. time.\n\nAnd a paragraph more. 🦊`];
      written.push(...texts);
      await Promise.all(here.both.map((window, at) => window.write(texts[at] ?? '')));
    }
    const seen = await inBoth(here, (window) => window.hasTurns(6));
    expectSame(seen);
    expect(seen[0].map(({ text }) => text).sort()).toEqual(written.sort());
    const own = (name: string): string[] => seen[0].map(({ text }) => text).filter((text) => text.startsWith(name));
    expect(own('Ana')).toEqual([1, 2, 3].map((n) => `Ana writes the ${n}. time.`));
    expect(await here.a.draft()).toBe('');
  });

  it('cannot make the page run what they write', async () => {
    const here = await room('Markup');
    const text = '<img src=x onerror="document.title=1"> <script>document.title=2</script> [link](javascript:alert(1))';
    await here.b.write(text);
    const [seen] = await inBoth(here, (window) => window.hasTurns(1));
    expect(seen[0]?.text).toBe(text);
    expect(await here.a.page.title()).toBe('Markup · Talewire');
  });
});

describe('the narrator', () => {
  it('writes in both windows at once, and both end with the committed turn', async () => {
    const here = await room('The lighthouse');
    await here.a.write('The old lighthouse had been dark for years, until Mira came back.');
    await here.b.hasTurns(1);
    await here.b.ask('let the storm break');
    const streams = await inBoth(here, (window) => window.streams());
    expect(streams[0].generation).toBe(streams[1].generation);
    // Asking twice is not possible while it writes.
    await until('the button is off', () => here.a.at('ask-narrator').isDisabled());
    const seen = await inBoth(here, (window) => window.hasTurns(2, WRITTEN_MS));
    expectSame(seen);
    const turn = seen[0][1];
    expect(turn).toMatchObject({ author: 'agent', kind: 'prose', stopped: false });
    for (const window of here.both) {
      const shown = await window.everShown(streams[0].generation);
      expect(shown.length).toBeGreaterThan(5);
      expectBeginnings(shown, turn?.text ?? '');
      expect(await window.at('agent-label').last().textContent()).toBe('demo storyteller, no AI model');
    }
    await here.a.page.reload();
    expect(await here.a.hasTurns(2)).toEqual(seen[1]);
  });

  it('is not lost by a reload in the middle, nor by a window that opens late', async () => {
    const here = await room('Late comers');
    await here.a.write('Mira climbed the stairs.');
    await here.a.ask('@stall 5s @long 320');
    // The storyteller falls silent after a dozen tokens: what stands there now is the whole text so far.
    const before = await here.b.streams(20);
    const silent = (await here.a.streams(before.text.length)).text;
    await here.b.page.reload();
    const after = await here.b.streams();
    expect(after.generation).toBe(before.generation);
    expect(after.text.startsWith(before.text) && after.text.startsWith(silent.slice(0, after.text.length)), `“${after.text}” goes on from “${before.text}”`).toBe(true);
    // Now while words flow.
    await here.a.streams(400);
    const c = await browsers.window(ben, here.path);
    const late = await c.streams(400);
    expect(late.generation).toBe(before.generation);
    const [seenA, seenB, seenC] = await Promise.all([...here.both, c].map((window) => window.hasTurns(2, WRITTEN_MS)));
    expectSame([seenA ?? [], seenB ?? [], seenC ?? []]);
    for (const window of [...here.both, c]) expectBeginnings(await window.everShown(before.generation), seenA?.[1]?.text ?? '');
  });

  it('stops in both windows when the other one says so, and what was written is kept once', async () => {
    const here = await room('Stop');
    await here.a.write('A door that nobody had seen before.');
    await here.a.ask('@long 600');
    const { generation } = await here.b.streams(100);
    await here.b.at('stop').click();
    const seen = await inBoth(here, (window) => window.hasTurns(2, WRITTEN_MS));
    expectSame(seen);
    expect(seen[0][1]).toMatchObject({ author: 'agent', stopped: true });
    const kept = seen[0][1]?.text ?? '';
    expect(kept.length).toBeGreaterThan(80);
    for (const window of here.both) expectBeginnings(await window.everShown(generation), kept);
    await here.a.page.reload();
    expect(await here.a.hasTurns(2)).toEqual(seen[0]);
    await here.a.ask('@long 30');
    expectSame(await inBoth(here, (window) => window.hasTurns(3, WRITTEN_MS)));
  });

  it('says in both windows that it could not finish, and can be asked again', async () => {
    const here = await room('Refusal');
    await here.a.write('Nothing wrong here.');
    await here.a.ask('@refuse');
    for (const window of here.both) {
      await window.at('generation-ended').waitFor({ timeout: WRITTEN_MS });
      expect(await window.at('generation-ended').getAttribute('data-status')).toBe('failed');
    }
    await here.b.at('try-again').click();
    expectSame(await inBoth(here, (window) => window.hasTurns(2, WRITTEN_MS)));
    expect(await here.a.at('generation-ended').count()).toBe(0);
  });
});

describe('choices', () => {
  it('are offered to both; the one that somebody picks starts the branch in both', async () => {
    const here = await room('Crossroads');
    await here.a.write('The path forked under the old oak.');
    await here.a.ask();
    const before = await inBoth(here, (window) => window.hasTurns(2, WRITTEN_MS));
    const offered = await inBoth(here, (window) => until('two choices', async () => {
      const choices = await window.choices();
      return choices.length === 2 && choices.every(({ open }) => open) ? choices : undefined;
    }));
    expect(offered[0]).toEqual(offered[1]);
    const [left, right] = offered[0];
    if (left === undefined || right === undefined) throw new Error('two choices were there');
    const main = await here.a.at('branch-switch').getAttribute('data-branch');

    // Both at once, without waiting for the page to settle: one of them starts the branch, the other is taken along.
    await Promise.all(here.both.map((window) => window.choice(left.id).dispatchEvent('click')));
    const stream = await inBoth(here, (window) => window.streams());
    expect(stream[0].generation).toBe(stream[1].generation);
    const seen = await inBoth(here, (window) => window.hasTurns(4, WRITTEN_MS));
    expectSame(seen);
    expect(seen[0].slice(0, 2)).toEqual(before[0]);
    expect(seen[0][2]).toMatchObject({ kind: 'choice', text: left.label });
    expect(seen[0][3]).toMatchObject({ author: 'agent' });
    const branches = await inBoth(here, (window) => window.at('branch-switch').getAttribute('data-branch'));
    expect(branches[0]).toBe(branches[1]);
    expect(branches[0]).not.toBe(main);
    for (const window of here.both) expect(await window.at('branch-switch').getAttribute('data-live')).toBe('true');

    // The other way on: Ben goes there; Ana stays where she reads, and the page says that it is not live any more.
    await here.b.choice(right.id).click();
    await here.b.streams();
    const other = await here.b.hasTurns(4, WRITTEN_MS);
    expect(other.slice(0, 2)).toEqual(before[0]);
    expect(other[2]).toMatchObject({ kind: 'choice', text: right.label });
    await here.a.at('branch-banner').waitFor();
    expect(await here.a.turns()).toEqual(seen[0]);
    await here.a.at('go-live').click();
    expect(await here.a.hasTurns(4)).toEqual(other);
    await here.a.at('branch-switch').click();
    expect(await here.a.at('branch-option').count()).toBe(3);
    await here.a.page.locator(`[data-testid="branch-option"][data-branch-id="${main ?? ''}"]`).click();
    expect(await here.a.hasTurns(2)).toEqual(before[0]);
  });
});

describe('one’s own things', () => {
  it('the Markdown export has every turn once, in order', async () => {
    const here = await room('Export & keep');
    const texts = ['First of all.', 'Then *something* else_where.', 'And at last 🦊.'];
    for (const [at, text] of texts.entries()) {
      await (at % 2 === 0 ? here.a : here.b).write(text);
      await inBoth(here, (window) => window.hasTurns(at + 1));
    }
    await here.b.ask('@long 30 @fast');
    const [turns] = await inBoth(here, (window) => window.hasTurns(4, WRITTEN_MS));
    for (const window of here.both) {
      const { name, text } = await window.exported();
      expect(name).toBe('export-keep.md');
      const plain = text.replaceAll(/\\([!-/:-@[-`{-~])/g, '$1');
      expect(plain).toContain('# Export & keep');
      // On the page *so* is shown as emphasis, and the marks are gone.
      const places = turns.map((turn) => (turn.text.startsWith('Then') ? texts[1] ?? '' : turn.text.split('\n\n')[0] ?? '')).map((part) => ({ first: plain.indexOf(part), last: plain.lastIndexOf(part) }));
      for (const { first, last } of places) expect(first >= 0 && first === last, text).toBe(true);
      expect(places.map(({ first }) => first)).toEqual(places.map(({ first }) => first).sort((a, b) => a - b));
    }
  });

  it('a second tab can join as someone else, and stays that alone', async () => {
    const here = await room('Two of one browser');
    const tab = await browsers.window(ana, here.path);
    await tab.isOpen('Two of one browser');
    expect(await tab.at('account').getAttribute('aria-label')).toContain('Ana');
    await tab.at('account').click();
    await tab.at('join-as-someone-else').click();
    await tab.at('name-input').fill('Cleo');
    await tab.at('name-submit').click();
    await tab.accept('Two of one browser');
    for (const window of [...here.both, tab]) expect(await window.seesCompany(3)).toContain('Cleo');
    await tab.write('I am Cleo.');
    await here.a.write('I am Ana.');
    const seen = await Promise.all([...here.both, tab].map((window) => window.hasTurns(2)));
    expectSame(seen);
    for (const window of [tab, here.a]) await window.page.reload();
    await tab.isOpen('Two of one browser');
    expect(await tab.at('account').getAttribute('aria-label')).toContain('Cleo');
    await here.a.isOpen('Two of one browser');
    expect(await here.a.at('account').getAttribute('aria-label')).toContain('Ana');
    const third = await browsers.window(ana, here.path);
    await third.isOpen('Two of one browser');
    expect(await third.at('account').getAttribute('aria-label')).toContain('Ana');
  });

  it('a draft survives a reload, and is nobody else’s', async () => {
    const here = await room('Drafts');
    await here.a.at('composer').fill('Half a sentence that');
    await here.a.page.reload();
    await here.a.isOpen('Drafts');
    expect(await here.a.draft()).toBe('Half a sentence that');
    expect(await here.b.draft()).toBe('');
    await here.a.at('send').click();
    await inBoth(here, (window) => window.hasTurns(1));
    await here.a.page.reload();
    await here.a.hasTurns(1);
    expect(await here.a.draft()).toBe('');
  });

  it('a story is closed to who was not invited, and home lists one’s own', async () => {
    const here = await room('Members only');
    const stranger = await browsers.window(await browsers.person('Dora'), here.path);
    await stranger.at('story-refused').waitFor();
    expect(await stranger.page.locator('body').innerText()).not.toContain('Members only');
    const home = await browsers.window(ben);
    const link = home.at('story-link').filter({ hasText: 'Members only' });
    await link.click();
    await home.isOpen('Members only');
  });
});

describe('on a phone', () => {
  it('nothing scrolls sideways, and one can join, write, ask and stop', async () => {
    const here = await room('A phone in the rain');
    await here.a.write(`A very long word: ${'wind'.repeat(60)}.`);
    const phone = await browsers.person('Pia', { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
    const p = await browsers.window(phone, here.invitation);
    const fits = async (where: string): Promise<void> => {
      const wide = await p.page.evaluate(() => Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - window.innerWidth);
      expect(wide, `${where} is not wider than the screen`).toBeLessThanOrEqual(0);
    };
    await fits('the invitation');
    await p.accept('A phone in the rain');
    await p.hasTurns(1);
    await fits('the story');
    const box = await p.at('composer').boundingBox();
    const button = await p.at('send').boundingBox();
    expect(box).not.toBeNull();
    expect(box?.width).toBeGreaterThan(250);
    expect((button?.y ?? 9_999) + (button?.height ?? 0)).toBeLessThanOrEqual(844);
    expect(Math.min(button?.height ?? 0, button?.width ?? 0)).toBeGreaterThanOrEqual(40);
    await p.at('composer').fill('Sent with a thumb.');
    await p.at('send').tap();
    await here.a.hasTurns(2);
    await p.ask('@long 300');
    await p.streams(60);
    await fits('the stream');
    await p.at('stop').tap();
    expectSame(await Promise.all([here.a, p].map((window) => window.hasTurns(3, WRITTEN_MS))));
    await p.page.goto('/');
    await p.at('story-link').first().waitFor();
    await fits('home');
  });
});
