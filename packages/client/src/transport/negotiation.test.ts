/**
 * A whole connection against a server of which each transport can be refused, struck dumb or overloaded: which
 * one is used, when it pauses, when it gives up and how it comes back. Time is the test's own.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Connection, type ConnectionOptions } from '../connection.js';
import { Http } from '../http.js';
import { Login } from '../login.js';
import { FakeHttp, type Mode } from '../testing/fake-http.js';
import { FakeServer } from '../testing/fake-server.js';
import { ANSWER_WITHIN_MS, CLIMB_EVERY_MS, SETTLED_MS } from './negotiation.js';
import type { Rung } from './rungs.js';

let server: FakeServer;
let http: FakeHttp;
let connection: Connection;
let memory: Map<string, string>;

function connect(more: Partial<ConnectionOptions> = {}): Connection {
  const shelf = { getItem: (key: string) => memory.get(key) ?? null, setItem: (key: string, value: string) => void memory.set(key, value), removeItem: (key: string) => void memory.delete(key) };
  connection = new Connection({
    login: new Login(new Http('', http.fetch)), user: { id: 'ana', name: 'Ana', guest: true }, url: 'http://fake', memory: shelf,
    websocket: http.websocket, eventsource: http.eventsource, fetch: http.fetch, random: () => 0.5, ...more,
  });
  connection.connect();
  return connection;
}
const modes = (more: Partial<Record<Rung, Mode>>): void => void Object.assign(http.modes, more);
/** Passes time in small steps until the check holds; how long that took. */
async function until(check: () => boolean, within_ms = 60_000): Promise<number> {
  for (let passed_ms = 0; passed_ms <= within_ms; passed_ms += 20) {
    if (check()) return passed_ms;
    await vi.advanceTimersByTimeAsync(20);
  }
  throw new Error(`Not within ${within_ms} ms; attempts: ${http.attempts.join(', ')}; state: ${connection.state.snapshot()}`);
}
const live = (within_ms?: number): Promise<number> => until(() => connection.state.snapshot() === 'live', within_ms);

beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  http = new FakeHttp(server);
  memory = new Map();
  server.logs.set('chat:1', ['one', 'two']);
});
afterEach(() => {
  connection.close();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

describe('the transport', () => {
  it.each<[Rung, Rung[]]>([
    ['websocket', []],
    ['http_stream', ['websocket']],
    ['sse', ['websocket', 'http_stream']],
    ['poll', ['websocket', 'http_stream', 'sse']],
  ])('is %s when %j are refused, and carries entries, calls and presence', async (rung, refused) => {
    for (const one of refused) http.modes[one] = 'refuse';
    server.methods['story.list'] = () => ({ stories: [] });
    server.present = { c1: { client: 'c1', user: 'ana', conn_info: { name: 'Ana' } } };
    connect();
    const states: string[] = [];
    connection.state.subscribe(() => states.push(connection.state.snapshot()));
    const seen: unknown[] = [];
    connection.channel('chat:1').onAny((event) => seen.push(event.data));
    // No pause on the way down, and no word of trouble: it works.
    expect(await live()).toBeLessThan(1000);
    expect(states).toEqual(['live']);
    expect(connection.transport).toBe(rung);
    await until(() => connection.channel('chat:1').state.snapshot().phase === 'subscribed');
    server.append('chat:1', 'three');
    await until(() => seen.length === 1);
    expect(seen).toEqual(['three']);
    expect(await connection.call('story.list', {})).toEqual({ stories: [] });
    expect((await connection.socket.presence('chat:1')).clients['c1']?.user).toBe('ana');
    await connection.channel('chat:1').publish({ text: 'hi' });
    expect(server.published).toEqual([{ channel: 'chat:1', data: { text: 'hi' } }]);
  });

  it('that opens and stays silent is left after a while, and tried last next time', async () => {
    modes({ websocket: 'mute', http_stream: 'mute' });
    connect();
    const took_ms = await live();
    expect(connection.transport).toBe('sse');
    expect(took_ms).toBeGreaterThanOrEqual(2 * ANSWER_WITHIN_MS);
    expect(took_ms).toBeLessThan(2 * ANSWER_WITHIN_MS + 1000);
    http.attempts.length = 0;
    server.cut({ down: false });
    await until(() => connection.state.snapshot() !== 'live');
    await live();
    expect(http.attempts).toEqual(['sse']);
  });

  it('that worked is tried first after a reload, for some minutes', async () => {
    modes({ websocket: 'mute' });
    connect();
    await live();
    connection.close();
    http.attempts.length = 0;
    connect();
    expect(await live()).toBeLessThan(1000);
    expect(http.attempts).toEqual(['http_stream']);
    connection.close();
    await vi.advanceTimersByTimeAsync(CLIMB_EVERY_MS);
    http.attempts.length = 0;
    connect();
    await live();
    expect(http.attempts).toEqual(['websocket', 'http_stream']);
  });

  it('is changed for a better one when that works again, and nothing is missed', async () => {
    modes({ websocket: 'refuse', http_stream: 'refuse', sse: 'refuse' });
    connect();
    const seen: unknown[] = [];
    connection.channel('chat:1').onAny((event) => seen.push(event.data));
    await live();
    expect(connection.transport).toBe('poll');
    await vi.advanceTimersByTimeAsync(CLIMB_EVERY_MS * 1.6);
    expect(connection.transport).toBe('poll');
    modes({ websocket: 'ok' });
    const states: string[] = [];
    connection.state.subscribe(() => states.push(connection.state.snapshot()));
    server.append('chat:1', 'three');
    await until(() => connection.transport === 'websocket', CLIMB_EVERY_MS * 1.6);
    server.append('chat:1', 'four');
    await live();
    await until(() => seen.length === 2);
    expect(seen).toEqual(['three', 'four']);
    expect(states).not.toContain('offline');
    // The trial itself is gone.
    await until(() => server.sockets.size === 1);
  });

  it('that stops to ping soon after it opened is taken for a buffering proxy', async () => {
    server.connectResult = { ping: 5, pong: true };
    connect({ transports: ['websocket', 'poll'] });
    await live();
    await until(() => connection.state.snapshot() !== 'live');
    await live();
    expect(connection.transport).toBe('poll');
    expect(http.attempts).toEqual(['websocket']);
  });
});

describe('an outage', () => {
  it('is told, and ended on the transport that worked before, without multiplying the visitors', async () => {
    connect({ endless: true });
    await live();
    http.attempts.length = 0;
    server.cut({ down: true });
    await until(() => connection.state.snapshot() === 'offline');
    expect(connection.status.snapshot()).toBe('connecting');
    expect(http.attempts).toEqual(['websocket']);
    server.up = true;
    await live();
    expect(connection.transport).toBe('websocket');
    expect(connection.status.snapshot()).toBe('connected');
  });

  it('ends the tries after 20 rounds, says so, and goes on when asked', async () => {
    server.up = false;
    connect();
    expect(connection.status.snapshot()).toBe('connecting');
    await until(() => connection.state.snapshot() === 'stopped', 1_200_000);
    expect(http.attempts.filter((rung) => rung === 'websocket')).toHaveLength(21);
    expect(connection.status.snapshot()).toBe('disconnected');
    http.attempts.length = 0;
    await vi.advanceTimersByTimeAsync(600_000);
    expect(http.attempts).toEqual([]);
    server.up = true;
    connection.retry();
    await live();
  });

  it('never ends the tries of an endless connection', async () => {
    server.up = false;
    connect({ endless: true });
    await vi.advanceTimersByTimeAsync(1_200_000);
    expect(http.attempts.filter((rung) => rung === 'websocket').length).toBeGreaterThan(40);
    server.up = true;
    await live();
  });

  it('that lets everybody in and drops them again is met with ever longer pauses', async () => {
    connect({ endless: true, transports: ['websocket'], random: () => 0.99 });
    const pauses: number[] = [];
    for (let times = 0; times < 5; times += 1) {
      pauses.push(await live());
      for (const session of [...server.sockets]) session.drop(1006);
      await until(() => connection.state.snapshot() !== 'live');
    }
    expect(pauses.slice(1).map((ms) => Math.round(ms / 1000))).toEqual([1, 2, 4, 8]);
    await live();
    await vi.advanceTimersByTimeAsync(SETTLED_MS);
    for (const session of [...server.sockets]) session.drop(1006);
    await until(() => connection.state.snapshot() !== 'live');
    expect(await live()).toBeLessThan(1100);
  });

  it('ends on another network without waiting, and with the best transport first', async () => {
    const target = new EventTarget();
    vi.stubGlobal('addEventListener', target.addEventListener.bind(target));
    vi.stubGlobal('removeEventListener', target.removeEventListener.bind(target));
    modes({ websocket: 'refuse' });
    connect({ endless: true, random: () => 0.99 });
    await live();
    server.cut({ down: true });
    await vi.advanceTimersByTimeAsync(120_000);
    modes({ websocket: 'ok' });
    server.up = true;
    http.attempts.length = 0;
    target.dispatchEvent(new Event('online'));
    expect(await live()).toBeLessThan(200);
    expect(http.attempts).toEqual(['websocket']);
  });

  it('is left at once when somebody asks to try again', async () => {
    server.up = false;
    connect({ endless: true, random: () => 0.99 });
    await vi.advanceTimersByTimeAsync(120_000);
    expect(connection.state.snapshot()).toBe('offline');
    server.up = true;
    connection.retry();
    expect(await live()).toBeLessThan(200);
  });
});

describe('the server’s word', () => {
  it('on when to come back is kept', async () => {
    modes({ websocket: 'refuse', http_stream: 'busy' });
    connect();
    await until(() => connection.state.snapshot() === 'offline');
    expect(http.attempts).toEqual(['websocket', 'http_stream']);
    await vi.advanceTimersByTimeAsync(19_000);
    // Overload is no reason to try other doors of the same house.
    expect(http.attempts).toHaveLength(2);
    modes({ http_stream: 'ok' });
    expect(await live()).toBeLessThan(3000);
  });

  it.each([3000, 3001, 3499, 4000, 4499])('%i means: come again', async (code) => {
    connect({ transports: ['websocket'] });
    await live();
    for (const session of [...server.sockets]) session.drop(code);
    expect(connection.state.snapshot()).not.toBe('live');
    await live();
    expect(http.attempts).toHaveLength(2);
  });

  it.each([3500, 3503, 3999, 4500, 4999])('%i means: do not come again', async (code) => {
    connect();
    await live();
    for (const session of [...server.sockets]) session.drop(code);
    await until(() => connection.state.snapshot() === 'stopped');
    await vi.advanceTimersByTimeAsync(600_000);
    expect(http.attempts).toEqual(['websocket']);
    expect(connection.status.snapshot()).toBe('disconnected');
  });

  it('that is final may be asked for again slowly, where the application wants that', async () => {
    connect({ lookAgain_ms: 15_000 });
    await live();
    for (const session of [...server.sockets]) session.drop(3503);
    await vi.advanceTimersByTimeAsync(14_000);
    expect(http.attempts).toHaveLength(1);
    await live(2000);
  });
});
