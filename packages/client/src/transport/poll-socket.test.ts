/**
 * The official client over long polls against a server on a real port: one story of a channel, and what becomes
 * of each refusal. The socket alone, with requests counted, for waits.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Connection } from '../connection.js';
import { Http } from '../http.js';
import { Login } from '../login.js';
import { FakeHttp } from '../testing/fake-http.js';
import { FakeServer } from '../testing/fake-server.js';
import { BUSY_MAX, PollSocket, type PollIo } from './poll-socket.js';

describe('over a real port', () => {
  let server: FakeServer;
  let http: FakeHttp;
  let port: { url: string; close: () => Promise<void> };
  let connection: Connection;

  beforeEach(async () => {
    server = new FakeServer();
    server.logs.set('chat:1', ['one', 'two']);
    http = new FakeHttp(server);
    port = await http.listen();
    connection = new Connection({ login: new Login(new Http(port.url)), user: { id: 'ana', name: 'Ana', guest: true }, url: port.url, transports: ['poll'] });
    connection.connect();
  });
  afterEach(async () => {
    connection.close();
    await port.close();
  });

  it('a channel that is added while a poll is held open is there at once', async () => {
    const seen: unknown[] = [];
    connection.channel('chat:1').onAny((event) => seen.push(event.data));
    await vi.waitFor(() => expect(http.requests.some((request) => request.query.get('wait') === '25')).toBe(true));
    connection.channel('chat:2').on('ping', (data) => seen.push(data));
    await vi.waitFor(() => expect(connection.channel('chat:2').state.snapshot().phase).toBe('subscribed'));
    await vi.waitFor(() => expect(http.requests.at(-1)?.query.getAll('channel')).toEqual(['chat:1', 'chat:2']));
    await vi.waitFor(() => expect(server.sockets.size).toBe(1));
    server.append('chat:1', 'three');
    server.push('chat:2', { pub: { data: 'signal', tags: { event: 'ping' } } });
    await vi.waitFor(() => expect(seen).toContain('three'));
  });

  it('comes back after a break with what was published meanwhile', async () => {
    const seen: unknown[] = [];
    connection.channel('chat:1').onAny((event) => seen.push(event.data));
    await vi.waitFor(() => expect(server.sockets.size).toBe(1));
    server.up = false;
    for (const session of [...server.sockets]) session.drop(1006);
    await vi.waitFor(() => expect(connection.state.snapshot()).not.toBe('live'));
    server.append('chat:1', 'three');
    server.append('chat:1', 'four');
    server.up = true;
    connection.retry();
    await vi.waitFor(() => expect(seen).toEqual(['three', 'four']), { timeout: 5000 });
    expect(http.requests.some((request) => request.query.getAll('channel').includes('chat:1@2-e1'))).toBe(true);
  });

  it('says so when something was lost, once, and goes on from there', async () => {
    const seen: unknown[] = [];
    let gaps = 0;
    const channel = connection.channel('chat:1');
    channel.onAny((event) => seen.push(event.data));
    channel.onGap(() => (gaps += 1));
    await vi.waitFor(() => expect(server.sockets.size).toBe(1));
    server.logs.set('chat:1', ['one', 'two', 'three', 'four', 'five']);
    http.trimmed.set('chat:1', 4);
    for (const session of [...server.sockets]) session.tell({});
    await vi.waitFor(() => expect(gaps).toBe(1));
    await vi.waitFor(() => expect(channel.lastPosition).toEqual({ offset: 5, epoch: 'e1' }));
    server.append('chat:1', 'six');
    await vi.waitFor(() => expect(seen).toEqual(['six']));
    expect(gaps).toBe(1);
  });

  it('is refused a channel by name, and keeps the others', async () => {
    http.forbidden.add('secret:1');
    const secret = connection.channel('secret:1');
    secret.onAny(() => undefined);
    connection.channel('chat:1').onAny(() => undefined);
    await vi.waitFor(() => expect(secret.state.snapshot()).toMatchObject({ phase: 'refused', error: { code: 103 } }));
    await vi.waitFor(() => expect(connection.channel('chat:1').state.snapshot().phase).toBe('subscribed'));
  });
});

describe('the socket alone, at its beginning', () => {
  it.each<[string, Response, unknown]>([
    ['lives', Response.json({ user: { id: 'ana' } }), undefined],
    ['is closed for good', Response.json({ error: { code: 101, name: 'unauthorized', message: 'no' } }, { status: 401 }), { code: 3500, reason: 'invalid token' }],
  ])('without a channel asks who one is, and %s by the answer', async (_, response, end) => {
    const paths: string[] = [];
    const heard: unknown[] = [];
    let closed: unknown;
    const io: PollIo = { raw: (__, path) => (paths.push(path), Promise.resolve(response)), post: () => Promise.resolve({}) };
    const socket = new PollSocket({ io, random: () => 0.5, newClient: () => 'c', told: () => undefined });
    socket.onmessage = ({ data }) => heard.push(JSON.parse(data));
    socket.onclose = (event) => (closed = event);
    socket.onopen = () => socket.send('{"id":1,"connect":{}}');
    await vi.waitFor(() => expect(heard.length > 0 || closed !== undefined).toBe(true));
    expect(paths).toEqual(['/app/me']);
    expect(closed).toEqual(end);
    expect(heard).toEqual(end === undefined ? [{ id: 1, connect: { client: 'c', version: 'poll' } }] : []);
    socket.close();
  });
});

describe('the socket alone', () => {
  let polls: { path: string; signal: AbortSignal; answer: (response: Response) => void }[];
  let told: number[];
  let closed: { code: number; reason: string } | undefined;
  let heard: unknown[];
  let socket: PollSocket;

  beforeEach(async () => {
    vi.useFakeTimers();
    polls = [];
    told = [];
    heard = [];
    closed = undefined;
    const io: PollIo = {
      raw: (_, path, __, signal) => new Promise((answer, reject) => {
        polls.push({ path, signal, answer });
        signal.addEventListener('abort', () => reject(new Error('aborted')));
      }),
      post: () => Promise.resolve({}),
    };
    socket = new PollSocket({ io, random: () => 0.5, newClient: () => 'c', told: (wait_ms) => told.push(wait_ms) });
    socket.onclose = (event) => (closed = event);
    socket.onmessage = ({ data }) => heard.push(...data.split('\n').map((line): unknown => JSON.parse(line)));
    await vi.advanceTimersByTimeAsync(0);
    socket.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"a"}}');
    await vi.advanceTimersByTimeAsync(0);
  });
  afterEach(() => {
    socket.close();
    vi.useRealTimers();
  });

  const answer = async (body: unknown, status = 200, headers: Record<string, string> = {}): Promise<void> => {
    polls.at(-1)?.answer(Response.json(body, { status, headers }));
    await vi.advanceTimersByTimeAsync(0);
  };
  const opened = (): Promise<void> => answer({ cursor: 'k', channels: { a: {} } });
  const error = { error: { code: 1, name: 'x', message: 'x' } };

  it('makes one poll of the commands of one frame, and answers them with its answer', async () => {
    expect(polls.map((poll) => poll.path)).toEqual(['/poll?channel=a&wait=0']);
    await opened();
    expect(heard).toEqual([{ id: 1, connect: { client: 'c', version: 'poll' } }, { id: 2, subscribe: {} }]);
    expect(polls[1]?.path).toBe('/poll?channel=a&cursor=k&wait=25');
  });

  it('aborts a poll that is held when a channel is added', async () => {
    await opened();
    socket.send('{"id":3,"subscribe":{"channel":"b"}}');
    await vi.advanceTimersByTimeAsync(0);
    expect(polls[1]?.signal.aborted).toBe(true);
    expect(polls[2]?.path).toBe('/poll?channel=a&channel=b&cursor=k&wait=0');
    expect(closed).toBeUndefined();
  });

  it('honours retry_ms, also when a channel is added meanwhile', async () => {
    await answer({ cursor: 'k', channels: { a: {} }, retry_ms: 5000 });
    socket.send('{"id":3,"subscribe":{"channel":"b"}}');
    await vi.advanceTimersByTimeAsync(4999);
    expect(polls).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(polls).toHaveLength(2);
  });

  it.each([429, 503])('waits as long as a %i says, and goes on with the same connection', async (status) => {
    await opened();
    await answer(error, status, { 'Retry-After': '7' });
    await vi.advanceTimersByTimeAsync(6999);
    expect(polls).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(1);
    expect(polls).toHaveLength(3);
    expect(closed).toBeUndefined();
  });

  it('closes when the overload does not end, and passes the wait on', async () => {
    await opened();
    for (let time = 0; time <= BUSY_MAX; time += 1) {
      await answer(error, 503, { 'Retry-After': '3' });
      await vi.advanceTimersByTimeAsync(3000);
    }
    expect(closed).toMatchObject({ code: 1006 });
    expect(told).toEqual([3000]);
  });

  it.each<[string, number, unknown, number]>([
    ['a login that is no good', 401, error, 3500],
    ['a user who may not', 403, error, 3507],
    ['a malformed first poll', 400, error, 3501],
    ['a proxy’s own page', 200, 'text', 1006],
    ['a broken proxy', 502, error, 1006],
  ])('closes for %s', async (_, status, body, code) => {
    await answer(body, status);
    expect(closed).toMatchObject({ code });
  });

  it('comes back without a cursor that the server cannot read any more', async () => {
    await opened();
    await answer(error, 400);
    expect(closed).toMatchObject({ code: 1006 });
  });

  it('closes when the answer is late', async () => {
    await opened();
    await vi.advanceTimersByTimeAsync(36_000);
    expect(closed).toMatchObject({ code: 1006 });
  });

  it('does not spin when something answers at once with nothing', async () => {
    await opened();
    for (let turn = 0; turn < 5; turn += 1) {
      await answer({ cursor: 'k' });
      await vi.advanceTimersByTimeAsync(1000);
    }
    expect(polls).toHaveLength(7);
  });
});
