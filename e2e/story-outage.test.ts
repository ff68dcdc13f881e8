/**
 * Two windows on one story while the server is killed with -9 and comes back on the same data: what was acknowledged
 * stays, what was on its way arrives once, and nothing is left streaming for ever.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Browsers } from './src/browser.ts';
import { seeded } from './src/seed.ts';
import { Server } from './src/server.ts';
import { BACK_MS, expectBeginnings, expectSame, type StoryWindow, type TurnSeen } from './src/story-window.ts';
import { until } from './src/until.ts';

/** Back after an outage, taken over, and written to the end. */
const SURVIVED_MS = 60_000;
const TITLE = 'The storm';

let server: Server;
let browsers: Browsers;
let a: StoryWindow;
let b: StoryWindow;

beforeEach(async () => {
  server = await Server.start();
  browsers = await Browsers.launch(server);
  a = await browsers.window(await browsers.person('Ana'));
  await a.create(TITLE);
  b = await browsers.window(await browsers.person('Ben'), await a.invite());
  await b.accept(TITLE);
  await Promise.all([a.seesCompany(2), b.seesCompany(2)]);
});
afterEach(async ({ task }) => {
  try {
    await browsers.after(task);
  } finally {
    await browsers.close();
    await server.stop();
  }
});

const both = (): readonly [StoryWindow, StoryWindow] => [a, b];

async function bothHave(count: number): Promise<TurnSeen[]> {
  const seen = await Promise.all(both().map((window) => window.hasTurns(count, SURVIVED_MS)));
  expectSame(seen);
  return seen[0] ?? [];
}

/** Writes down every state that a window shows, in order. */
async function watchState(window: StoryWindow): Promise<() => Promise<string[]>> {
  await window.page.evaluate(() => {
    const states: string[] = [];
    Object.assign(window, { talewireStates: states });
    const look = (): void => {
      const state = document.querySelector<HTMLElement>('[data-testid="connection"]')?.dataset['state'];
      if (state !== undefined && states.at(-1) !== state) states.push(state);
    };
    look();
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
  });
  return () => window.page.evaluate(() => (window as unknown as { talewireStates: string[] }).talewireStates);
}

describe('while the server is down', () => {
  it('the page says so, keeps the draft, and sends once what was written meanwhile', async () => {
    await a.write('Before the storm.');
    await bothHave(1);
    const states = await watchState(a);
    await b.at('composer').fill('Half a sentence');

    await server.kill9();
    for (const window of both()) await until('the outage is shown', async () => ['offline', 'connecting'].includes(await window.state()));
    await until('it is called offline', async () => (await a.state()) === 'offline');
    await a.write('Written in the dark.');
    await until('it waits on the page', async () => (await a.drawn()).pending.length === 1);
    expect((await a.drawn()).pending).toEqual(['Written in the dark.']);
    expect((await a.turns()).map(({ text }) => text)).toEqual(['Before the storm.']);
    expect(await b.draft()).toBe('Half a sentence');

    await server.restart();
    const turns = await bothHave(2);
    expect(turns.map(({ text }) => text)).toEqual(['Before the storm.', 'Written in the dark.']);
    for (const window of both()) await window.isLive();
    const shown = await states();
    expect([shown[0], shown.at(-1)]).toEqual(['live', 'live']);
    expect(shown).toContain('offline');

    expect(await b.draft()).toBe('Half a sentence');
    await b.at('send').click();
    await bothHave(3);
    for (const window of both()) expect(await window.seesCompany(2)).toContain('Ben');
  });

  it('a turn survives even the reload of its page', async () => {
    await a.write('Before.');
    await bothHave(1);
    await server.kill9();
    await until('the outage is shown', async () => (await a.state()) !== 'live');
    await a.write('Then my laptop crashed.');
    await until('it waits on the page', async () => (await a.drawn()).pending.length === 1);
    const { page } = a;
    await page.close();
    await server.restart();
    await b.isLive();
    const again = await browsers.window({ name: 'Ana', context: page.context() }, new URL(b.page.url()).pathname);
    a = again;
    expect((await bothHave(2)).map(({ text }) => text)).toEqual(['Before.', 'Then my laptop crashed.']);
  });
});

describe('kill -9', () => {
  it('between turns, at random moments while both write: every turn once, in one order', async () => {
    const seed = seeded('story-outage');
    const KILLS = 3;
    const EACH = 12;
    let accepted = 0;
    const written: string[] = [];
    /** One person: writes, waits until it stands there, writes on. */
    const write = async (window: StoryWindow, name: string): Promise<void> => {
      for (let n = 1; n <= EACH; n += 1) {
        const text = `${name}, line ${n}.`;
        written.push(text);
        await window.write(text);
        await until(`"${text}" has become a turn`, async () => (await window.turns()).some((turn) => turn.text === text), SURVIVED_MS, () => window.drawn());
        accepted += 1;
      }
    };
    const kill = async (): Promise<void> => {
      for (let kills = 1; kills <= KILLS; kills += 1) {
        const moment = Math.min(accepted + 2 + seed.below(3), 2 * EACH - 1);
        await until(`${moment} turns are accepted`, () => accepted >= moment, SURVIVED_MS);
        // Not a wait for anything: somewhere inside of a request, a commit, an announcement.
        await new Promise((resolve) => setTimeout(resolve, seed.below(60)));
        await server.kill9();
        await server.restart();
      }
    };
    await Promise.all([write(a, 'Ana'), write(b, 'Ben'), kill()]);
    const turns = await bothHave(2 * EACH);
    expect(turns.map(({ text }) => text).sort()).toEqual(written.sort());
    for (const name of ['Ana', 'Ben']) {
      const own = turns.map(({ text }) => text).filter((text) => text.startsWith(name));
      expect(own).toEqual(Array.from({ length: EACH }, (_, at) => `${name}, line ${at + 1}.`));
    }
    const { text } = await a.exported();
    const lines = text.match(/(?:Ana|Ben), line \d+/g) ?? [];
    expect(lines.map((line) => `${line}.`)).toEqual(turns.map((turn) => turn.text));
  }, 150_000);

  it('in the middle of a generation: it is taken over, ends, and makes one turn', async () => {
    await a.write('Mira lit the lamp.');
    await bothHave(1);
    await b.ask('@long 260');
    const begun = await Promise.all(both().map((window) => window.streams(60)));
    await server.kill9();
    await until('the outage is shown', async () => (await a.state()) !== 'live');
    // What was written so far stays in sight meanwhile.
    expect((await a.drawn()).streams[0]?.text.length).toBeGreaterThanOrEqual(60);
    await server.restart();
    const again = await Promise.all(both().map((window) => until('a second attempt is shown', async () => (await window.drawn()).streams.find(({ attempt, text }) => attempt === 2 && text !== ''), SURVIVED_MS, () => window.drawn())));
    for (const stream of again) expect(stream.generation).toBe(begun[0]?.generation);
    const turns = await bothHave(2);
    expect(turns[1]).toMatchObject({ author: 'agent', stopped: false });
    for (const window of both()) expectBeginnings(await window.everShown(again[0]?.generation ?? ''), turns[1]?.text ?? '');
    // And the story goes on as ever.
    await a.write('The lamp burned.');
    await bothHave(3);
    await a.ask('@long 30 @fast');
    await bothHave(4);
  }, 120_000);

  it('again and again in the same generation: it fails in sight of both, and is not lost', async () => {
    await a.write('A curse lay on this page.');
    await bothHave(1);
    await a.ask('@stall 40s');
    // agents.attempts_max is 3: who dies three times is given up.
    for (let attempt = 1; attempt <= 3; attempt += 1) {
      await until(`attempt ${attempt} is shown`, async () => (await b.drawn()).streams.find((stream) => stream.attempt === attempt && stream.text !== ''), SURVIVED_MS, () => b.drawn());
      await server.kill9();
      await server.restart();
    }
    for (const window of both()) {
      await window.at('generation-ended').waitFor({ timeout: SURVIVED_MS });
      expect(await window.at('generation-ended').getAttribute('data-status')).toBe('failed');
      expect((await window.drawn()).streams).toEqual([]);
    }
    await bothHave(1);
    await b.ask('@long 30 @fast');
    await bothHave(2);
    await Promise.all(both().map((window) => window.isLive()));
  }, 150_000);

  it('after Stop was pressed or a choice picked: what was answered holds', async () => {
    await a.write('Two roads.');
    await bothHave(1);
    await a.ask('@fast');
    const before = await bothHave(2);
    const choices = await until('two choices', async () => {
      const offered = await b.choices();
      return offered.length === 2 ? offered : undefined;
    }, BACK_MS);
    const [pick] = choices;
    if (pick === undefined) throw new Error('two choices were there');
    await b.choice(pick.id).click();
    await until('the choice is a turn', async () => (await b.turns()).some(({ kind }) => kind === 'choice'));
    await server.kill9();
    await server.restart();
    const turns = await bothHave(4);
    expect(turns.slice(0, 2)).toEqual(before);
    expect(turns[2]).toMatchObject({ kind: 'choice', text: pick.label });
    expect(turns[3]).toMatchObject({ author: 'agent' });
  }, 120_000);
});
