/**
 * The shell against a server in memory, with the official Centrifuge between them: what a person sees
 * when lines break, answers get lost and positions cannot be continued. Time is the test's own.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Connection } from './connection.js';
import { Http } from './http.js';
import type { LiveStory } from './live-story.js';
import { Login, type Shelf } from './login.js';
import { path } from './story.js';
import { FakeServer, Refusal } from './testing/fake-server.js';
import { aGeneration, anOpened, aTurn } from './testing/objects.js';
import type { Turn } from './wire.js';

const LOG = 'story:s';
let server: FakeServer;
let connection: Connection;
let shelf: Shelf & { values: Map<string, string> };
let leave: () => void;

/** The story as the server has it: three turns of log before anybody came. */
function serveStory(): void {
  const turns = [aTurn('main', 1), aTurn('main', 2)];
  server.logs.set(LOG, [{}, ...turns.map((turn) => ({ type: 'turn.added', turn }))]);
  server.methods['story.open'] = () => {
    const log = server.logs.get(LOG) ?? [];
    const known = log.flatMap((entry) => (typeof entry === 'object' && entry !== null && 'turn' in entry ? [entry.turn as Turn] : []));
    return { ...anOpened(0), turns: known, position: { offset: log.length, epoch: server.epoch } };
  };
  const answers = new Map<unknown, Turn>();
  server.methods['turn.add'] = ({ key, text }) => {
    const known = answers.get(key);
    if (known !== undefined) return { turn: known };
    const number = (server.logs.get(LOG) ?? []).length;
    const turn = aTurn('main', number, { text: String(text) });
    answers.set(key, turn);
    server.append(LOG, { type: 'turn.added', turn });
    return { turn };
  };
}

function connect(): LiveStory {
  connection = new Connection({ login: new Login(new Http('', server.fetch)), user: { id: 'ana', name: 'Ana', guest: true }, url: 'ws://fake/connection/websocket', websocket: server.socketClass, shelf });
  connection.connect();
  const story = connection.openStory('s');
  leave = story.subscribe(() => undefined);
  return story;
}

const texts = (story: LiveStory): string[] => {
  const { state } = story.snapshot();
  return state === undefined ? [] : path(state, 'main').turns.map((turn) => turn.text);
};
/** Lets the test's own time pass, step by step, until the check holds. */
async function until(check: () => void, within_ms = 200_000): Promise<void> {
  for (let passed_ms = 0; ; passed_ms += 25) {
    try {
      check();
      return;
    } catch (error) {
      if (passed_ms >= within_ms) throw error;
      await vi.advanceTimersByTimeAsync(25);
    }
  }
}
/** Lets time pass until the promise has its fate. */
async function settled<T>(promise: Promise<T>): Promise<T> {
  let done = false;
  const mark = (): void => void (done = true);
  promise.then(mark, mark);
  await until(() => expect(done).toBe(true));
  return promise;
}
const live = (): Promise<void> => until(() => expect(connection.state.snapshot()).toBe('live'));

beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  const values = new Map<string, string>();
  shelf = { values, getItem: (key) => values.get(key) ?? null, setItem: (key, value) => values.set(key, value), removeItem: (key) => values.delete(key) };
  serveStory();
});
afterEach(() => {
  leave();
  connection.close();
  vi.useRealTimers();
});

describe('a story that is watched', () => {
  it('opens, goes live, and follows the log from the position it was opened at', async () => {
    const story = connect();
    expect(connection.state.snapshot()).toBe('connecting');
    await live();
    expect(texts(story)).toEqual(['main 1', 'main 2']);
    server.append(LOG, { type: 'turn.added', turn: aTurn('main', 3) });
    await until(() => expect(texts(story)).toHaveLength(3));
    expect(server.calls.filter((call) => call.method === 'story.open')).toHaveLength(1);
  });

  it('says offline while the line is down, and has missed nothing when it is back', async () => {
    const story = connect();
    await live();
    const seen: string[] = [];
    const stop = connection.state.subscribe(() => seen.push(connection.state.snapshot()));
    server.cut({ down: true });
    await until(() => expect(connection.state.snapshot()).toBe('offline'));
    server.append(LOG, { type: 'turn.added', turn: aTurn('main', 3) });
    server.append(LOG, { type: 'turn.added', turn: aTurn('main', 4) });
    server.up = true;
    await until(() => expect(texts(story)).toHaveLength(4));
    await live();
    stop();
    expect(seen).toContain('catching up');
    expect(seen.at(-1)).toBe('live');
    expect(server.calls.filter((call) => call.method === 'story.open')).toHaveLength(1);
  });

  it('reads the story anew when its position cannot be continued', async () => {
    const story = connect();
    await live();
    server.cut({ down: true });
    server.epoch = 'e2';
    server.logs.set(LOG, [{}, { type: 'turn.added', turn: aTurn('main', 1, { text: 'after a restore' }) }]);
    server.up = true;
    await until(() => expect(texts(story)).toEqual(['after a restore']));
    expect(story.snapshot().state?.position).toEqual({ offset: 2, epoch: 'e2' });
    await live();
    server.append(LOG, { type: 'turn.added', turn: aTurn('main', 2, { text: 'and on' }) });
    await until(() => expect(texts(story)).toEqual(['after a restore', 'and on']));
  });

  it('is refused to who is not in it, with the reason', async () => {
    server.methods['story.open'] = () => {
      throw new Refusal(103, 'permission denied');
    };
    const story = connect();
    await until(() => expect(story.snapshot().phase).toBe('refused'));
    expect(story.snapshot().error).toMatchObject({ code: 103 });
  });
});

describe('a turn that is sent', () => {
  it('is one turn, however often its answer gets lost', async () => {
    const story = connect();
    await live();
    server.dumb = true;
    const sent = story.addTurn('main', 'said once');
    await until(() => expect(server.calls.filter((call) => call.method === 'turn.add').length).toBeGreaterThanOrEqual(2));
    server.dumb = false;
    expect((await settled(sent)).text).toBe('said once');
    const keys = new Set(server.calls.filter((call) => call.method === 'turn.add').map((call) => call.params['key']));
    expect(keys.size).toBe(1);
    expect(texts(story).filter((text) => text === 'said once')).toHaveLength(1);
    expect(story.snapshot().pending).toEqual([]);
  });

  it('while offline shows as sending, is kept on the shelf, and goes out when the line is back', async () => {
    const story = connect();
    await live();
    server.cut({ down: true });
    const sent = story.addTurn('main', 'from the tunnel');
    expect(story.snapshot().pending).toMatchObject([{ text: 'from the tunnel', status: 'sending' }]);
    expect([...shelf.values.values()].join('')).toContain('from the tunnel');
    await until(() => expect(connection.state.snapshot()).toBe('offline'));
    server.up = true;
    await settled(sent);
    await until(() => expect(texts(story)).toContain('from the tunnel'));
    expect(story.snapshot().pending).toEqual([]);
    expect(shelf.values.size).toBe(0);
  });

  it('that an earlier page left behind is sent again under its old key', async () => {
    shelf.setItem('talewire.pending.ana.s', JSON.stringify([{ key: 'old-key', branch: 'main', text: 'left behind' }]));
    const story = connect();
    await until(() => expect(texts(story)).toContain('left behind'));
    expect(server.calls.find((call) => call.method === 'turn.add')?.params['key']).toBe('old-key');
    await until(() => expect(shelf.values.size).toBe(0));
  });

  it('comes back with the reason when it is refused', async () => {
    const story = connect();
    await live();
    server.methods['turn.add'] = () => {
      throw new Refusal(422, 'the text cannot be taken');
    };
    await expect(settled(story.addTurn('main', 'no good'))).rejects.toMatchObject({ code: 422 });
    expect(story.snapshot().pending).toMatchObject([{ text: 'no good', status: 'refused', error: { code: 422 } }]);
    const key = story.snapshot().pending[0]?.key ?? '';
    story.discard(key);
    expect(story.snapshot().pending).toEqual([]);
  });

  it('is given up after two minutes, told so, and can be sent again without becoming two', async () => {
    const story = connect();
    await live();
    server.cut({ down: true });
    const fate = story.addTurn('main', 'patience').catch((error: unknown) => error);
    await until(() => expect(story.snapshot().pending[0]?.status).toBe('unanswered'));
    expect(await fate).toMatchObject({ retry: true });
    server.up = true;
    await live();
    await settled(story.sendAgain(story.snapshot().pending[0]?.key ?? ''));
    await until(() => expect(texts(story).filter((text) => text === 'patience')).toHaveLength(1));
  });
});

describe('a generation', () => {
  const CHANNEL = 'generation:s.g';
  const frame = (at: number, text: string): Record<string, unknown> => ({ pub: { data: { type: 'delta', generation: 'g', attempt: 1, at, text } } });
  async function streaming(soFar: string): Promise<LiveStory> {
    server.snapshots.set(CHANNEL, () => ({ type: 'snapshot', generation: 'g', attempt: 1, at: 0, text: soFar, status: 'running' }));
    const story = connect();
    await live();
    server.append(LOG, { type: 'generation.requested', generation: aGeneration('g') });
    await until(() => expect(story.generation('g').snapshot().text).toBe(soFar));
    return story;
  }

  it('streams from wherever one comes in', async () => {
    const story = await streaming('Once upon');
    server.push(CHANNEL, frame(9, ' a time'));
    await until(() => expect(story.generation('g').snapshot().text).toBe('Once upon a time'));
  });

  it('asks for a snapshot when a delta was lost, and says "catching up" meanwhile', async () => {
    const story = await streaming('Once');
    server.methods['generation.snapshot'] = () => ({ type: 'snapshot', generation: 'g', attempt: 1, at: 0, text: 'Once upon a time', status: 'running' });
    const seen: string[] = [];
    const stop = connection.state.subscribe(() => seen.push(connection.state.snapshot()));
    server.push(CHANNEL, frame(9, ' a time'));
    await until(() => expect(story.generation('g').snapshot().text).toBe('Once upon a time'));
    await live();
    stop();
    expect(seen).toEqual(['catching up', 'live']);
  });

  it('is replaced by its turn in one step, so that the text is never gone or double', async () => {
    const story = await streaming('Once upon a time');
    const states: boolean[][] = [];
    const stop = story.subscribe(() => {
      const { state } = story.snapshot();
      states.push([texts(story).includes('Once upon a time.'), state?.generations.get('g')?.status === 'done']);
    });
    server.append(LOG, { type: 'generation.ended', generation: aGeneration('g', { status: 'done', attempt: 1 }), turn: aTurn('main', 3, { text: 'Once upon a time.' }) });
    await until(() => expect(texts(story)).toHaveLength(3));
    stop();
    expect(states).toEqual([[true, true]]);
  });
});

describe('the company', () => {
  it('is read at each subscribe and kept by joins and leaves', async () => {
    server.present = { c1: { client: 'c1', user: 'ana', conn_info: { name: 'Ana' } } };
    const story = connect();
    await until(() => expect(story.presence.snapshot().people.map((one) => one.name)).toEqual(['Ana']));
    server.push(LOG, { join: { info: { client: 'c2', user: 'ben', conn_info: { name: 'Ben' } } } });
    await until(() => expect(story.presence.snapshot().people).toHaveLength(2));
    // The leave is lost with the line; the next subscribe heals it.
    server.cut({ down: false });
    await until(() => expect(story.presence.snapshot().people.map((one) => one.name)).toEqual(['Ana']));
  });

  it('types, is seen, and is forgotten', async () => {
    const story = connect();
    await live();
    await until(() => {
      server.push('typing:s', { pub: { data: { typing: true }, info: { client: 'c2', user: 'ben', conn_info: { name: 'Ben' } } } });
      expect(story.typing.snapshot().map((typer) => typer.name)).toEqual(['Ben']);
    });
    await until(() => expect(story.typing.snapshot()).toEqual([]));
    story.setTyping(true);
    story.setTyping(true);
    story.setTyping(false);
    await until(() => expect(server.published.map((one) => one.data)).toEqual([{ typing: true }, { typing: false }]));
  });
});
