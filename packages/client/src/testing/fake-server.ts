/**
 * A server in memory: speaks the few commands of the native protocol that this package uses, over a fake
 * WebSocket, and can be cut off, struck dumb or made to forget. In: commands of a real Centrifuge. Out:
 * replies and pushes that a test scripts. To teach it a method, put a function into `methods`.
 */
import { isRecord } from '../wire.js';

type Reply = Record<string, unknown>;
type Method = (params: Record<string, unknown>) => unknown;

/** Thrown by a method to refuse. */
export class Refusal extends Error {
  constructor(readonly code: number, message: string, readonly temporary = false) {
    super(message);
  }
}

/** One client of the server, by whatever transport it came. */
export interface Session {
  readonly channels: Set<string>;
  tell: (reply: Reply) => void;
  drop: (code: number, reason?: string) => void;
}

/** What a Centrifuge expects of a WebSocket class; one instance per attempt. */
class FakeSocket implements Session {
  readyState = 0;
  onopen: (() => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  readonly channels = new Set<string>();

  constructor(readonly server: FakeServer) {
    queueMicrotask(() => {
      if (!server.up) {
        this.drop(1006);
        return;
      }
      this.readyState = 1;
      server.sockets.add(this);
      this.onopen?.();
    });
  }

  send(frame: string): void {
    for (const line of frame.split('\n')) queueMicrotask(() => this.server.take(this, line));
  }

  close(): void {
    this.drop(1000);
  }

  tell(reply: Reply): void {
    queueMicrotask(() => this.readyState === 1 && this.onmessage?.({ data: JSON.stringify(reply) }));
  }

  drop(code: number, reason = ''): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.server.sockets.delete(this);
    this.onclose?.({ code, reason });
  }
}

export class FakeServer {
  up = true;
  /** Takes calls and does nothing: the network has eaten the answer. */
  dumb = false;
  epoch = 'e1';
  /** What a connect is answered besides the client's id. */
  connectResult: Reply = {};
  readonly sockets = new Set<Session>();
  /** Everything that was called, over the socket or over HTTP. */
  readonly calls: { method: string; params: Record<string, unknown> }[] = [];
  readonly published: { channel: string; data: unknown; event?: string }[] = [];
  /** Every subscribe command that came in. */
  readonly subscribes: Record<string, unknown>[] = [];
  readonly methods: Record<string, Method> = {};
  /** The log of each story channel; an entry's offset is its index plus one. */
  readonly logs = new Map<string, unknown[]>();
  /** The tags of each entry, by its index. */
  readonly tags = new Map<string, (Record<string, string> | undefined)[]>();
  /** What a subscribe to a channel answers as `data`. */
  readonly snapshots = new Map<string, () => unknown>();
  present: Record<string, { client: string; user: string; conn_info: { name: string } }> = {};

  /** The class to give to a Connection as its websocket. */
  readonly socketClass: unknown;

  constructor() {
    const make = (): FakeSocket => new FakeSocket(this);
    this.socketClass = function Socket() {
      return make();
    };
  }

  /** The same methods over HTTP, for calls made while there is no socket. */
  readonly fetch: typeof fetch = (input, init) => {
    if (!this.up) return Promise.reject(new TypeError('failed to fetch'));
    const path = typeof input === 'string' ? input : input instanceof URL ? input.pathname : input.url;
    const body: unknown = typeof init?.body === 'string' ? JSON.parse(init.body) : {};
    try {
      return Promise.resolve(Response.json(this.post(path, isRecord(body) ? body : {})));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return Promise.resolve(Response.json({ error: { code: error.code, name: error.message, message: error.message } }, { status: error.code >= 400 ? error.code : 400 }));
    }
  };

  /** What a post under /app is answered with. */
  post(path: string, body: Record<string, unknown>): unknown {
    switch (path) {
      case '/app/publish':
        this.published.push({ channel: String(body['channel']), data: body['data'], ...(typeof body['event'] === 'string' ? { event: body['event'] } : {}) });
        return {};
      case '/app/me':
        return { user: { id: 'ana', name: 'Ana', guest: true }, csrf: 'x' };
      case '/app/presence':
        return { presence: this.present };
      default:
        return this.#call(path.replace('/app/rpc/', ''), body);
    }
  }

  append(channel: string, entry: unknown, event?: string): void {
    const log = this.logs.get(channel) ?? [];
    log.push(entry);
    this.logs.set(channel, log);
    const tags = event === undefined ? undefined : { event };
    const known = this.tags.get(channel) ?? [];
    known[log.length - 1] = tags;
    this.tags.set(channel, known);
    this.push(channel, { pub: { data: entry, offset: log.length, ...(tags === undefined ? {} : { tags }) } });
  }

  push(channel: string, push: Record<string, unknown>): void {
    for (const socket of this.sockets) if (socket.channels.has(channel)) socket.tell({ push: { channel, ...push } });
  }

  /** Cuts every connection; with `down`, new ones fail too until `up` is set. */
  cut(how: { down: boolean }): void {
    this.up = !how.down;
    for (const socket of [...this.sockets]) socket.drop(1006);
  }

  take(socket: Session, line: string): void {
    const command: unknown = JSON.parse(line);
    if (!isRecord(command) || typeof command['id'] !== 'number') return;
    const { id, connect, subscribe, unsubscribe, publish, presence, rpc } = command;
    const answer = (reply: Reply): void => socket.tell({ id, ...reply });
    if (isRecord(connect)) answer({ connect: { client: 'c', version: 'fake', ...this.connectResult } });
    else if (isRecord(subscribe)) answer(this.#subscribe(socket, subscribe));
    else if (isRecord(unsubscribe)) {
      socket.channels.delete(String(unsubscribe['channel']));
      answer({ unsubscribe: {} });
    } else if (isRecord(publish)) {
      this.published.push({ channel: String(publish['channel']), data: publish['data'] });
      answer({ publish: {} });
    } else if (isRecord(presence)) answer({ presence: { presence: this.present } });
    else if (isRecord(rpc)) this.#rpc(rpc, answer);
  }

  #rpc(rpc: Record<string, unknown>, answer: (reply: Reply) => void): void {
    const params = isRecord(rpc['data']) ? rpc['data'] : {};
    try {
      const data = this.#call(String(rpc['method']), params);
      if (!this.dumb) answer({ rpc: { data } });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      answer({ error: { code: error.code, message: error.message, temporary: error.temporary } });
    }
  }

  #call(method: string, params: Record<string, unknown>): unknown {
    this.calls.push({ method, params });
    const run = this.methods[method];
    if (run === undefined) throw new Refusal(104, 'method not found');
    return run(params);
  }

  #subscribe(socket: Session, ask: Record<string, unknown>): Reply {
    const channel = String(ask['channel']);
    this.subscribes.push(ask);
    socket.channels.add(channel);
    const log = this.logs.get(channel);
    const data = this.snapshots.get(channel)?.();
    if (log === undefined) return { subscribe: data === undefined ? {} : { data } };
    const base = { recoverable: true, epoch: this.epoch, offset: log.length };
    if (ask['recover'] !== true) return { subscribe: base };
    if (ask['epoch'] !== this.epoch) return { subscribe: { ...base, was_recovering: true } };
    const from = typeof ask['offset'] === 'number' ? ask['offset'] : 0;
    const tags = this.tags.get(channel) ?? [];
    const publications = log.slice(from).map((entry, index) => {
      const own = tags[from + index];
      return { data: entry, offset: from + index + 1, ...(own === undefined ? {} : { tags: own }) };
    });
    return { subscribe: { ...base, was_recovering: true, recovered: true, publications, offset: from } };
  }
}
