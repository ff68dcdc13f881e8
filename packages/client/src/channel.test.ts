/**
 * Channels as an application uses them, over the official client and a server in memory: who hears what, what a
 * throwing handler harms, what is asked of the server.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Connection } from './connection.js';
import type { ChannelEvent } from './channel-line.js';
import { Http } from './http.js';
import { Login } from './login.js';
import { FakeServer } from './testing/fake-server.js';

let server: FakeServer;
let connection: Connection;

beforeEach(() => {
  server = new FakeServer();
  server.logs.set('chat:1', []);
  connection = new Connection({ login: new Login(new Http('', server.fetch)), user: { id: 'ana', name: 'Ana', guest: true }, url: 'ws://fake', websocket: server.socketClass });
  connection.connect();
});
afterEach(() => {
  connection.close();
  vi.restoreAllMocks();
});

const subscribed = (name = 'chat:1'): Promise<void> => vi.waitFor(() => expect(connection.channel(name).state.snapshot().phase).toBe('subscribed'));
/** Publishes them all, and waits until the last was heard. */
async function publish(...events: [unknown, string?][]): Promise<void> {
  const last = new Promise<void>((resolve) => {
    const stop = connection.channel('chat:1').onAny((event) => {
      if (event.offset === server.logs.get('chat:1')?.length) { stop(); resolve(); }
    });
  });
  for (const [data, event] of events) server.append('chat:1', data, event);
  await last;
}

describe('handlers', () => {
  it('hear the types they asked for: one, several, those without a type, or all', async () => {
    const channel = connection.channel('chat:1');
    const heard: Record<string, unknown[]> = { turn: [], some: [], plain: [], all: [], note: [] };
    channel.on<{ n: number }>('turn', (data) => heard['turn']?.push(data.n));
    channel.on(['turn', 'note'], (_, event) => heard['some']?.push(event.type));
    channel.on('message', (data) => heard['plain']?.push(data));
    channel.onEach({ note: (data) => heard['note']?.push(data), other: () => expect.unreachable() });
    channel.onAny((event) => heard['all']?.push(event.type));
    await subscribed();
    await publish([{ n: 1 }, 'turn'], ['plain text'], ['{"a":1}', 'note'], [{ n: 2 }, 'turn']);
    // JSON comes parsed; a text that looks like JSON stays the text that it is.
    expect(heard).toEqual({ turn: [1, 2], some: ['turn', 'note', 'turn'], plain: ['plain text'], note: ['{"a":1}'], all: ['turn', 'message', 'note', 'turn'] });
  });

  it('stop when told to, each for itself', async () => {
    const heard: string[] = [];
    const channel = connection.channel('chat:1');
    const stop = channel.on('turn', () => heard.push('a'));
    channel.on('turn', () => heard.push('b'));
    await subscribed();
    await publish([1, 'turn']);
    stop();
    stop();
    await publish([2, 'turn']);
    expect(heard).toEqual(['a', 'b', 'b']);
  });

  it('that throw hurt nobody else, and are reported', async () => {
    const reported = vi.spyOn(console, 'error').mockImplementation(() => undefined);
    const heard: unknown[] = [];
    const channel = connection.channel('chat:1');
    channel.on('turn', () => { throw new Error('my own fault'); });
    channel.on('turn', (data) => heard.push(data));
    await subscribed();
    await publish([1, 'turn'], [2, 'turn']);
    expect(heard).toEqual([1, 2]);
    expect(reported).toHaveBeenCalledTimes(2);
    expect(connection.status.snapshot()).toBe('connected');
  });

  it('learn the whole of an event', async () => {
    const heard: ChannelEvent[] = [];
    connection.channel('chat:1').onAny((event) => heard.push(event));
    await subscribed();
    await publish([{ x: 1 }, 'turn']);
    expect(heard).toEqual([{ channel: 'chat:1', type: 'turn', data: { x: 1 }, offset: 1, tags: { event: 'turn' } }]);
  });
});

describe('a subscription', () => {
  it('lives while somebody listens, and is one for all', async () => {
    const stops = [connection.channel('chat:1').on('a', () => undefined), connection.channel('chat:1').on('b', () => undefined)];
    await subscribed();
    expect(server.subscribes).toHaveLength(1);
    stops[0]?.();
    expect([...server.sockets][0]?.channels.has('chat:1')).toBe(true);
    stops[1]?.();
    await vi.waitFor(() => expect([...server.sockets][0]?.channels.has('chat:1')).toBe(false));
    expect(connection.channel('chat:1').state.snapshot().phase).toBe('idle');
  });

  it('survives a redraw without a word to the server', async () => {
    connection.channel('chat:1').on('a', () => undefined)();
    const stop = connection.channel('chat:1').on('a', () => undefined);
    await subscribed();
    stop();
    connection.channel('chat:1').on('a', () => undefined);
    await publish([1, 'a']);
    expect(server.subscribes).toHaveLength(1);
  });

  it('asks the server for the types that are wanted, and for more when more are', async () => {
    const heard: string[] = [];
    connection.channel('chat:1', { events: ['turn', 'message'] }).onAny((event) => heard.push(`narrow ${event.type}`));
    await subscribed();
    expect(server.subscribes[0]?.['tf']).toEqual({ op: 'or', nodes: [{ key: 'event', cmp: 'in', vals: ['turn'] }, { key: 'event', cmp: 'nex' }] });
    await publish([1, 'turn']);
    await vi.waitFor(() => expect(server.subscribes).toHaveLength(2));
    expect(server.subscribes[1]).toMatchObject({ channel: 'chat:1', recover: true });
    expect(server.subscribes[1]).not.toHaveProperty('tf');
    // The narrow one hears no more than before.
    await subscribed();
    await publish([2, 'note'], [3, 'turn']);
    expect(heard).toEqual(['narrow turn', 'narrow turn']);
  });

  it('asks once for all who come in one breath', async () => {
    connection.channel('chat:1', { events: ['turn'] }).onAny(() => undefined);
    connection.channel('chat:1', { events: ['note'] }).onAny(() => undefined);
    await subscribed();
    expect(server.subscribes).toHaveLength(1);
    expect(server.subscribes[0]?.['tf']).toEqual({ key: 'event', cmp: 'in', vals: ['turn', 'note'] });
  });

  it('goes on after a break from where it stood, and tells a gap', async () => {
    const heard: unknown[] = [];
    const gaps: unknown[] = [];
    const channel = connection.channel('chat:1');
    channel.onAny((event) => heard.push(event.data));
    channel.onGap((position) => gaps.push(position));
    await subscribed();
    await publish(['one']);
    expect(channel.lastPosition).toEqual({ offset: 1, epoch: 'e1' });
    server.cut({ down: false });
    server.append('chat:1', 'two');
    await vi.waitFor(() => expect(heard).toEqual(['one', 'two']), { timeout: 5000 });
    expect(gaps).toEqual([]);
    server.cut({ down: false });
    server.epoch = 'e2';
    await vi.waitFor(() => expect(gaps).toEqual([{ offset: 2, epoch: 'e2' }]), { timeout: 5000 });
  });

  it('begins after a position that was kept', async () => {
    for (const text of ['one', 'two', 'three']) server.append('chat:1', text);
    const heard: unknown[] = [];
    connection.channel('chat:1', { since: { offset: 1, epoch: 'e1' } }).onAny((event) => heard.push(event.data));
    await vi.waitFor(() => expect(heard).toEqual(['two', 'three']));
  });

  it('of a channel that a story holds is refused, and the story stays', async () => {
    server.logs.set('story:s', []);
    const held = connection.socket.newSubscription('story:s');
    held.subscribe();
    connection.channel('story:s').onAny(() => undefined);
    await vi.waitFor(() => expect(connection.channel('story:s').state.snapshot()).toMatchObject({ phase: 'refused', error: { code: 105 } }));
    await vi.waitFor(() => expect(held.state).toBe('subscribed'));
  });
});

describe('publishing', () => {
  it('takes the socket, and HTTP when there is a type or no socket', async () => {
    const channel = connection.channel('chat:1');
    await vi.waitFor(() => expect(connection.status.snapshot()).toBe('connected'));
    await channel.publish('plain');
    await channel.publish({ x: 1 }, 'turn');
    connection.close();
    await channel.publish('late');
    expect(server.published).toEqual([{ channel: 'chat:1', data: 'plain' }, { channel: 'chat:1', data: { x: 1 }, event: 'turn' }, { channel: 'chat:1', data: 'late' }]);
  });
});
