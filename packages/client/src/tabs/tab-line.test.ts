/**
 * Several tabs of one browser on one connection: what each of them sees when they come, go, freeze and differ.
 * Time is the test's own.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Connection, type ConnectionOptions } from '../connection.js';
import { Http } from '../http.js';
import { Login } from '../login.js';
import { FakeServer } from '../testing/fake-server.js';
import { FakeBrowser, type FakeTab } from '../testing/fake-tabs.js';
import { KEPT_MAX } from './shared-channel.js';
import { FOLLOWER_SILENT_MS, FRAME_MAX, sharedName, SILENT_MS } from './tab-line.js';

let server: FakeServer;
let browser: FakeBrowser;
let opened: Connection[];

function open(more: Partial<ConnectionOptions> = {}, tab: FakeTab = browser.tab()): Connection {
  const connection = new Connection({
    login: new Login(new Http('', server.fetch)), user: { id: 'ana', name: 'Ana', guest: true }, url: 'ws://fake', websocket: server.socketClass,
    shared: true, tabs: tab, endless: true, random: () => 0.5, ...more,
  });
  connection.connect();
  opened.push(connection);
  return connection;
}
async function until(check: () => boolean, within_ms = 60_000): Promise<number> {
  for (let passed_ms = 0; passed_ms <= within_ms; passed_ms += 20) {
    if (check()) return passed_ms;
    await vi.advanceTimersByTimeAsync(20);
  }
  throw new Error(`Not within ${within_ms} ms; states: ${opened.map((one) => one.state.snapshot()).join(', ')}`);
}
const live = (...connections: Connection[]): Promise<number> => until(() => connections.every((one) => one.state.snapshot() === 'live'));
/** Everything that a tab hears on a channel. */
async function listen(connection: Connection, name = 'chat:1'): Promise<unknown[]> {
  const heard: unknown[] = [];
  connection.channel(name).onAny((event) => heard.push(event.data));
  await until(() => connection.channel(name).state.snapshot().phase === 'subscribed');
  return heard;
}

beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  server.logs.set('chat:1', []);
  browser = new FakeBrowser();
  opened = [];
});
afterEach(() => {
  for (const connection of opened) connection.close();
  vi.useRealTimers();
});

describe('tabs of one login', () => {
  it('have one connection and one subscription, and all hear, publish and call', async () => {
    server.methods['story.list'] = () => ({ stories: [] });
    server.present = { c1: { client: 'c1', user: 'ana', conn_info: { name: 'Ana' } } };
    const tabs = [open(), open(), open()];
    await live(...tabs);
    const heard: unknown[][] = [];
    for (const tab of tabs) heard.push(await listen(tab));
    server.append('chat:1', 'one', 'turn');
    await until(() => heard.every((list) => list.length === 1));
    expect(server.sockets.size).toBe(1);
    expect(server.subscribes).toHaveLength(1);
    for (const [index, tab] of tabs.entries()) {
      await tab.channel('chat:1').publish({ tab: index });
      expect(await tab.call('story.list', {})).toEqual({ stories: [] });
      expect((await tab.socket.presence('chat:1')).clients['c1']).toMatchObject({ user: 'ana', connInfo: { name: 'Ana' } });
    }
    expect(server.published.map((one) => one.data)).toEqual([{ tab: 0 }, { tab: 1 }, { tab: 2 }]);
    await expect(tabs[2]?.call('story.open', { story: 's' })).rejects.toMatchObject({ code: 104 });
  });

  it('leave the channel when the last of them does', async () => {
    const [a, b] = [open(), open()];
    await live(a, b);
    const stops = [a, b].map((tab) => tab.channel('chat:1').onAny(() => undefined));
    await until(() => [a, b].every((tab) => tab.channel('chat:1').state.snapshot().phase === 'subscribed'));
    const subscribed = (): boolean => [...server.sockets].some((socket) => socket.channels.has('chat:1'));
    stops[0]?.();
    await vi.advanceTimersByTimeAsync(1000);
    expect(subscribed()).toBe(true);
    stops[1]?.();
    await until(() => !subscribed());
  });

  it('that say too much at once are closed as by a server, each for itself', async () => {
    const [a, b] = [open(), open()];
    await live(a, b);
    await expect(b.channel('chat:1').publish('x'.repeat(FRAME_MAX))).rejects.toBeDefined();
    await until(() => b.state.snapshot() === 'stopped');
    expect(a.state.snapshot()).toBe('live');
    expect(server.published).toEqual([]);
  });

  it('want different event types, and each hears its own', async () => {
    const [a, b] = [open(), open()];
    const heard: string[] = [];
    a.channel('chat:1', { events: ['turn'] }).onAny((event) => heard.push(`a ${event.type}`));
    await until(() => a.channel('chat:1').state.snapshot().phase === 'subscribed');
    b.channel('chat:1', { events: ['note'] }).onAny((event) => heard.push(`b ${event.type}`));
    await until(() => b.channel('chat:1').state.snapshot().phase === 'subscribed');
    for (const type of ['turn', 'note', 'other']) server.append('chat:1', type, type);
    await until(() => heard.length === 2);
    await vi.advanceTimersByTimeAsync(1000);
    expect(heard.sort()).toEqual(['a turn', 'b note']);
  });

  it('of which one comes later get the snapshot and all that followed it', async () => {
    server.snapshots.set('generation:1', () => ({ at: 0, text: 'Once' }));
    const [a, b] = [open(), open()];
    await live(a, b);
    const begin = async (tab: Connection): Promise<unknown[]> => {
      const heard: unknown[] = [];
      const subscription = tab.socket.newSubscription('generation:1');
      subscription.on('subscribed', (context) => heard.push(context.data));
      subscription.on('publication', (context) => heard.push(context.data));
      subscription.subscribe();
      await until(() => heard.length > 0);
      return heard;
    };
    const first = await begin(a);
    server.push('generation:1', { pub: { data: ' upon' } });
    await until(() => first.length === 2);
    const second = await begin(b);
    server.push('generation:1', { pub: { data: ' a time' } });
    await until(() => first.length === 3 && second.length === 3);
    expect(second).toEqual([{ at: 0, text: 'Once' }, ' upon', ' a time']);
    expect(server.subscribes).toHaveLength(1);
  });
});

describe('a position', () => {
  it('that others have passed is continued from what was kept', async () => {
    const [a, b] = [open(), open()];
    const heard = await listen(a);
    for (const text of ['one', 'two', 'three']) server.append('chat:1', text);
    await until(() => heard.length === 3);
    const late: unknown[] = [];
    b.channel('chat:1', { since: { offset: 1, epoch: 'e1' } }).onAny((event) => late.push(event.data));
    await until(() => late.length === 2);
    server.append('chat:1', 'four');
    await until(() => late.length === 3 && heard.length === 4);
    expect(late).toEqual(['two', 'three', 'four']);
    expect(server.subscribes).toHaveLength(1);
  });

  it('older than what was kept is asked of the server, and nobody hears anything twice', async () => {
    for (const text of ['one', 'two']) server.append('chat:1', text);
    const [a, b] = [open(), open()];
    const heard = await listen(a);
    for (let index = 0; index < KEPT_MAX + 10; index += 1) server.append('chat:1', index);
    await until(() => heard.length === KEPT_MAX + 10);
    const late: unknown[] = [];
    b.channel('chat:1', { since: { offset: 1, epoch: 'e1' } }).onAny((event) => late.push(event.data));
    await until(() => late.length === KEPT_MAX + 11);
    expect(late[0]).toBe('two');
    server.append('chat:1', 'last');
    await until(() => late.at(-1) === 'last' && heard.at(-1) === 'last');
    expect(heard).toHaveLength(KEPT_MAX + 11);
    expect(new Set(late).size).toBe(late.length);
  });

  it('that cannot be continued is a gap for the tab that asked, and for no other', async () => {
    const [a, b] = [open(), open()];
    const gaps: string[] = [];
    a.channel('chat:1').onGap(() => gaps.push('a'));
    await listen(a);
    b.channel('chat:1', { since: { offset: 1, epoch: 'old' } }).onGap(() => gaps.push('b'));
    await until(() => gaps.length > 0);
    await vi.advanceTimersByTimeAsync(2000);
    expect(gaps).toEqual(['b']);
  });
});

describe('the office', () => {
  it('passes on when the leader closes, and nothing is missed', async () => {
    const [a, b, c] = [open(), open(), open()];
    await live(a, b, c);
    const [, heardB, heardC] = [await listen(a), await listen(b), await listen(c)];
    server.append('chat:1', 'one');
    await until(() => heardC.length === 1);
    a.close();
    server.append('chat:1', 'two');
    await until(() => heardB.length === 2 && heardC.length === 2);
    server.append('chat:1', 'three');
    await until(() => heardB.length === 3 && heardC.length === 3);
    expect([heardB, heardC]).toEqual([['one', 'two', 'three'], ['one', 'two', 'three']]);
    expect(server.sockets.size).toBe(1);
  });

  it('is taken from a leader that is frozen, which follows when it thaws', async () => {
    const frozen = browser.tab();
    const a = open({}, frozen);
    await live(a);
    const heardA = await listen(a);
    const [b, c] = [open(), open()];
    await live(b, c);
    const [heardB, heardC] = [await listen(b), await listen(c)];
    frozen.freeze();
    server.append('chat:1', 'one');
    const took_ms = await until(() => server.sockets.size === 2 && heardB.length === 1 && heardC.length === 1);
    expect(took_ms).toBeLessThan(SILENT_MS * 2);
    frozen.thaw();
    await until(() => server.sockets.size === 1);
    await live(a, b, c);
    server.append('chat:1', 'two');
    await until(() => [heardA, heardB, heardC].every((list) => list.at(-1) === 'two'));
    expect([heardA, heardB, heardC]).toEqual([['one', 'two'], ['one', 'two'], ['one', 'two']]);
  });

  it('queues nothing for a follower that froze, which comes back without a gap', async () => {
    const frozen = browser.tab();
    const a = open();
    await live(a);
    const heardA = await listen(a);
    const b = open({}, frozen);
    await live(b);
    const heardB = await listen(b);
    frozen.freeze();
    await vi.advanceTimersByTimeAsync(FOLLOWER_SILENT_MS * 1.2);
    browser.messages.length = 0;
    server.append('chat:1', 'one');
    server.append('chat:1', 'two');
    await until(() => heardA.length === 2);
    expect(browser.messages).toEqual([]);
    expect(heardB).toEqual([]);
    frozen.thaw();
    await until(() => heardB.length === 2);
    expect(heardB).toEqual(['one', 'two']);
    await live(b);
  });
});

describe('the connection below', () => {
  it('breaks and comes back for all', async () => {
    const [a, b] = [open(), open()];
    await live(a, b);
    const heard = [await listen(a), await listen(b)];
    server.cut({ down: true });
    await until(() => [a, b].every((tab) => tab.state.snapshot() === 'offline'));
    server.append('chat:1', 'meanwhile');
    server.up = true;
    await live(a, b);
    await until(() => heard.every((list) => list.length === 1));
  });

  it('ended for good ends it for all, and one who asks again brings it back', async () => {
    const [a, b] = [open(), open()];
    await live(a, b);
    for (const socket of [...server.sockets]) socket.drop(3503, 'forced');
    await until(() => [a, b].every((tab) => tab.state.snapshot() === 'stopped'));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(server.sockets.size).toBe(0);
    b.retry();
    await live(b);
  });
});

describe('what is not shared', () => {
  it('is a connection of another person, another server, or a tab’s own guest', async () => {
    const tabs = [open(), open({ user: { id: 'ben', name: 'Ben', guest: true } })];
    await live(...tabs);
    expect(server.sockets.size).toBe(2);
    const names = [sharedName('o', 'u', 'ana', 'cookie'), sharedName('o', 'u', 'ben', 'cookie'), sharedName('o', 'u2', 'ana', 'cookie'), sharedName('o2', 'u', 'ana', 'cookie'), sharedName('o', 'u', 'ana', 'token')];
    expect(new Set(names).size).toBe(names.length);
    expect(names.every((name) => !name.includes('ana') && /^talewire-[0-9a-f]{24}$/.test(name))).toBe(true);
  });

  it('is anything where the browser cannot share', async () => {
    vi.stubGlobal('navigator', {});
    const make = (): Connection => {
      const connection = new Connection({ login: new Login(new Http('', server.fetch)), user: { id: 'ana', name: 'Ana', guest: true }, url: 'ws://fake', websocket: server.socketClass, shared: true });
      connection.connect();
      opened.push(connection);
      return connection;
    };
    const tabs = [make(), make()];
    await live(...tabs);
    expect(server.sockets.size).toBe(2);
    vi.unstubAllGlobals();
  });
});
