/**
 * The HTTP transports in front of a FakeServer, and a WebSocket that can be refused or struck dumb.
 * In: requests of a real client. Out: streams, polls and posts as PROTOCOL.md has them, or what `modes` says of a
 * transport. `fetch`, `websocket` and `eventsource` go into a Connection; `listen` serves real sockets.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { isRecord } from '../wire.js';
import type { Rung } from '../transport/rungs.js';
import { Refusal, type FakeServer, type Session } from './fake-server.js';

type Reply = Record<string, unknown>;
/** mute: it opens, and nothing ever arrives. busy: 503 with a Retry-After. */
export type Mode = 'ok' | 'refuse' | 'mute' | 'busy';

interface Entry { data: unknown; offset?: number; tags?: Record<string, string> }
type Ends = (from: Session) => void;

export class FakeHttp {
  readonly modes: Record<Rung, Mode> = { websocket: 'ok', http_stream: 'ok', sse: 'ok', poll: 'ok' };
  /** Every attempt in order, by its transport. */
  readonly attempts: Rung[] = [];
  readonly requests: { path: string; query: URLSearchParams; body: Reply }[] = [];
  retryAfter_s = 20;
  /** Channels that a poll is refused. */
  readonly forbidden = new Set<string>();
  /** Entries before this offset are gone from the history of a channel. */
  readonly trimmed = new Map<string, number>();
  readonly websocket: unknown;
  readonly eventsource: unknown;
  readonly #server: FakeServer;
  readonly #sessions = new Map<string, Session>();

  constructor(server: FakeServer) {
    this.#server = server;
    // eslint-disable-next-line @typescript-eslint/no-this-alias -- a constructor function has a `this` of its own.
    const http = this;
    this.websocket = function Socket() {
      return http.#socket();
    };
    this.eventsource = function Source(url: string) {
      return http.#source(url);
    };
  }

  readonly fetch: typeof fetch = async (input, init) => {
    if (!this.#server.up) throw new TypeError('failed to fetch');
    const url = new URL(typeof input === 'string' ? input : input instanceof URL ? input : input.url, 'http://fake');
    const text = typeof init?.body === 'string' ? init.body : '';
    const parsed: unknown = text.startsWith('{') && !text.includes('\n') ? JSON.parse(text) : {};
    const body = isRecord(parsed) ? parsed : {};
    this.requests.push({ path: url.pathname, query: url.searchParams, body });
    switch (url.pathname) {
      case '/connection/http_stream':
        return this.#moded('http_stream') ?? this.#stream('http_stream', (reply) => `${JSON.stringify(reply)}\n`, text, init?.signal);
      case '/connection/sse':
        return this.#moded('sse') ?? this.#stream('sse', (reply) => `data: ${JSON.stringify(reply)}\n\n`, url.searchParams.get('cf_connect') ?? '', init?.signal);
      case '/emulation':
        return this.#emulation(body);
      case '/poll':
        return this.#moded('poll') ?? (await this.#poll(url.searchParams, init?.signal));
      case '/app/me':
        // The first question of a poll, as far as these tests make one.
        return this.modes.poll === 'refuse' ? new Response('not here', { status: 404 }) : this.#app(url.pathname, body);
      default:
        return this.#app(url.pathname, body);
    }
  };

  /** The same on a real port of this machine. */
  async listen(): Promise<{ url: string; close: () => Promise<void> }> {
    const server = createServer((request, response) => {
      const gone = new AbortController();
      response.on('close', () => gone.abort());
      void (async () => {
        const chunks: Buffer[] = [];
        for await (const chunk of request) chunks.push(chunk as Buffer);
        const init = { method: request.method ?? 'GET', signal: gone.signal, ...(chunks.length === 0 ? {} : { body: Buffer.concat(chunks).toString() }) };
        const answer = await this.fetch(request.url ?? '/', init);
        response.writeHead(answer.status, Object.fromEntries(answer.headers));
        const reader = answer.body?.getReader();
        for (let part = await reader?.read(); part?.done === false; part = await reader?.read()) response.write(part.value);
        response.end();
      })().catch(() => response.destroy());
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const close = (): Promise<void> => new Promise((resolve) => { server.close(() => resolve()); server.closeAllConnections(); });
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close };
  }

  /** A refusal or a silence that a mode wants; undefined to go on. */
  #moded(rung: Rung): Response | undefined {
    this.attempts.push(rung);
    switch (this.modes[rung]) {
      case 'ok':
        return undefined;
      case 'refuse':
        return new Response('not here', { status: 404 });
      case 'busy':
        return Response.json({ error: { code: 503, name: 'unavailable', message: 'busy' } }, { status: 503, headers: { 'Retry-After': String(this.retryAfter_s) } });
      case 'mute':
        return new Response(new ReadableStream({ start: () => undefined }), { status: 200 });
    }
  }

  #session(tell: (reply: Reply) => void, drop: Ends): Session {
    const session: Session = { channels: new Set(), tell, drop: () => { this.#server.sockets.delete(session); drop(session); } };
    this.#server.sockets.add(session);
    return session;
  }

  #stream(rung: Rung, line: (reply: Reply) => string, first: string, signal: AbortSignal | null | undefined): Response {
    const name = `${rung} ${this.#sessions.size}`;
    const encoder = new TextEncoder();
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        const session = this.#session(
          (reply) => {
            const whole = isRecord(reply['connect']) ? { ...reply, connect: { ...reply['connect'], session: name, node: 'n' } } : reply;
            controller.enqueue(encoder.encode(line(whole)));
          },
          () => controller.close(),
        );
        this.#sessions.set(name, session);
        signal?.addEventListener('abort', () => this.#server.sockets.delete(session));
        for (const command of first.split('\n')) this.#server.take(session, command);
      },
    });
    return new Response(body, { status: 200 });
  }

  #emulation(body: Reply): Response {
    const session = this.#sessions.get(String(body['session']));
    if (session === undefined) return new Response(null, { status: 404 });
    for (const line of String(body['data']).split('\n')) this.#server.take(session, line);
    return new Response(null, { status: 204 });
  }

  #app(path: string, body: Reply): Response {
    try {
      return Response.json(this.#server.post(path, body));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return Response.json({ error: { code: error.code, name: error.message, message: error.message } }, { status: error.code >= 400 ? error.code : 400 });
    }
  }

  // --- the poll ---------------------------------------------------------------------------------------

  async #poll(query: URLSearchParams, signal: AbortSignal | null | undefined): Promise<Response> {
    const cursor = query.get('cursor');
    const known: unknown = cursor === null ? {} : JSON.parse(atob(cursor));
    const positions: Record<string, number> = {};
    const answer = { channels: {} as Reply, events: [] as Reply[], gaps: [] as Reply[], refused: [] as Reply[] };
    for (const asked of query.getAll('channel')) {
      const [name = '', from] = asked.split('@');
      if (this.forbidden.has(name)) answer.refused.push({ channel: name, code: 103, message: 'permission denied' });
      else this.#begin(name, from, isRecord(known) ? known[name] : undefined, positions, answer);
    }
    const wanted = query.get('events')?.split(',');
    const signals: Reply[] = [];
    const collect = (): boolean => {
      for (const [name, at] of Object.entries(positions)) {
        const trimmed = this.trimmed.get(name) ?? 0;
        if (at < trimmed) answer.gaps.push({ channel: name, offset: trimmed, epoch: this.#server.epoch });
        positions[name] = Math.max(at, trimmed);
      }
      for (const name of Object.keys(positions)) positions[name] = this.#entries(name, positions[name] ?? 0, wanted, answer.events);
      answer.events.push(...signals.splice(0));
      return answer.events.length + answer.gaps.length + answer.refused.length + Object.keys(answer.channels).length > 0;
    };
    const wait_s = Number(query.get('wait'));
    if (!collect() && wait_s > 0) {
      await this.#change(Object.keys(positions), wait_s, signals, signal);
      collect();
    }
    return Response.json({ ...answer, cursor: btoa(JSON.stringify(positions)), time: 1 });
  }

  #begin(name: string, from: string | undefined, known: unknown, positions: Record<string, number>, answer: { channels: Reply }): void {
    const top = this.#server.logs.get(name)?.length;
    const snapshot = this.#server.snapshots.get(name)?.();
    const trimmed = this.trimmed.get(name) ?? 0;
    if (typeof known === 'number') {
      positions[name] = known;
      return;
    }
    const [offset, epoch] = from?.split('-') ?? [];
    const recovered = from !== undefined && epoch === this.#server.epoch && Number(offset) >= trimmed;
    positions[name] = recovered ? Number(offset) : (top ?? 0);
    answer.channels[name] = {
      ...(top === undefined ? {} : { offset: positions[name], epoch: this.#server.epoch }),
      ...(from === undefined ? {} : { recovered }),
      ...(snapshot === undefined ? {} : { data: snapshot }),
    };
  }

  #entries(name: string, from: number, wanted: readonly string[] | undefined, events: Reply[]): number {
    const log = this.#server.logs.get(name) ?? [];
    for (const [index, data] of log.entries()) {
      const tags = this.#server.tags.get(name)?.[index];
      if (index >= from && (wanted?.includes(tags?.['event'] ?? 'message') ?? true)) {
        events.push({ channel: name, offset: index + 1, data, ...(tags === undefined ? {} : { event: tags['event'], tags }) });
      }
    }
    return Math.max(from, log.length);
  }

  #change(names: readonly string[], wait_s: number, signals: Reply[], signal: AbortSignal | null | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer);
        this.#server.sockets.delete(session);
        resolve();
      };
      const timer = setTimeout(end, wait_s * 1000);
      const session = this.#session(
        (reply) => {
          const push = isRecord(reply['push']) ? reply['push'] : {};
          const pub = push['pub'] as Entry | undefined;
          if (pub !== undefined && pub.offset === undefined) signals.push({ channel: push['channel'], ...pub });
          end();
        },
        () => { clearTimeout(timer); reject(new TypeError('connection reset')); },
      );
      for (const name of names) session.channels.add(name);
      signal?.addEventListener('abort', () => { clearTimeout(timer); this.#server.sockets.delete(session); reject(new DOMException('aborted', 'AbortError')); });
    });
  }

  // --- classes for the client ---------------------------------------------------------------------------

  #socket(): unknown {
    this.attempts.push('websocket');
    const mode = this.#server.up ? this.modes.websocket : 'refuse';
    const server = this.#server;
    const socket = {
      readyState: 0,
      onopen: null as (() => void) | null,
      onclose: null as ((event: { code: number; reason: string }) => void) | null,
      onerror: null,
      onmessage: null as ((event: { data: string }) => void) | null,
      send: (frame: string): void => {
        if (mode === 'ok') for (const line of frame.split('\n')) queueMicrotask(() => server.take(session, line));
      },
      close: (): void => session.drop(1000),
    };
    const session = this.#session(
      (reply) => queueMicrotask(() => socket.readyState === 1 && socket.onmessage?.({ data: JSON.stringify(reply) })),
      () => undefined,
    );
    session.drop = (code) => {
      if (socket.readyState === 3) return;
      socket.readyState = 3;
      server.sockets.delete(session);
      socket.onclose?.({ code, reason: code < 3000 ? '' : 'the server said so' });
    };
    queueMicrotask(() => {
      if (mode === 'refuse' || mode === 'busy') return void session.drop(1006);
      socket.readyState = 1;
      socket.onopen?.();
    });
    return socket;
  }

  #source(url: string): unknown {
    const abort = new AbortController();
    const source = { onopen: null as (() => void) | null, onerror: null as ((event: unknown) => void) | null, onmessage: null as ((event: { data: string }) => void) | null, close: () => abort.abort() };
    void (async () => {
      const response = await this.fetch(url, { signal: abort.signal });
      if (response.status !== 200) throw new Error('refused');
      source.onopen?.();
      const decoder = new TextDecoder();
      const reader = response.body?.getReader();
      for (let part = await reader?.read(); part?.done === false; part = await reader?.read()) {
        for (const line of decoder.decode(part.value).split('\n')) if (line.startsWith('data: ')) source.onmessage?.({ data: line.slice(6) });
      }
      throw new Error('ended');
    })().catch((error: unknown) => !abort.signal.aborted && source.onerror?.(error));
    return source;
  }
}
