/**
 * A long poll that looks like a WebSocket to the official client.
 * In: frames of native commands, answers of `GET /poll` and of posts under /app. Out: frames of replies and
 * pushes; a close when the poll cannot go on. One per attempt, made by negotiation; the rules are in poll-translator.
 */
import { fromHttp, TalewireError } from '../errors.js';
import { isRecord } from '../wire.js';
import { POLL_WAIT_S, PollTranslator, postReply, type Output, type PollRequest } from './poll-translator.js';

/** What a poll needs of the world; `Http` has it. */
export interface PollIo {
  raw: (method: 'GET', path: string, body: undefined, signal: AbortSignal) => Promise<Response>;
  post: (path: string, body: unknown) => Promise<unknown>;
}

export interface PollSocketOptions {
  readonly io: PollIo;
  readonly random: () => number;
  readonly newClient: () => string;
  /** The server named a wait that this socket does not live to see. */
  readonly told: (wait_ms: number) => void;
}

/** A poll is given up when its answer is this late. */
export const POLL_LATE_MS = 10_000;
/** After so many refusals for overload in a row the socket closes, and other transports get a turn. */
export const BUSY_MAX = 5;
/** Ceiling of the jittered wait after an overloaded answer that named none, and the least pause after an empty one. */
const BUSY_WAIT_MS = 4000;
const EMPTY_TURN_MS = 1000;
/** No wait that an answer names is believed beyond this. */
const RETRY_MAX_MS = 300_000;
/** Waits up to this are sat out while connect is unanswered; longer ones close the socket at once. */
const OPENING_WAIT_MS = 1000;

export class PollSocket {
  readyState = 0;
  onopen: (() => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;

  readonly #options: PollSocketOptions;
  readonly #translator: PollTranslator;
  #abort: AbortController | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Which poll is the one that counts: the answer of an aborted one is thrown away. */
  #turn = 0;
  #planned = false;
  #busy = 0;
  #notBefore_ms = 0;
  #opened = false;

  constructor(options: PollSocketOptions) {
    this.#options = options;
    this.#translator = new PollTranslator(options.newClient());
    queueMicrotask(() => {
      if (this.readyState !== 0) return;
      this.readyState = 1;
      this.onopen?.();
    });
  }

  send(frame: string): void {
    for (const line of frame.split('\n')) {
      const command: unknown = line === '' ? undefined : JSON.parse(line);
      if (isRecord(command)) this.#perform(this.#translator.take(command));
    }
  }

  close(): void {
    this.#end(1000, '');
  }

  #perform(outputs: readonly Output[]): void {
    const replies: string[] = [];
    for (const output of outputs) {
      if (output.type === 'tell') replies.push(JSON.stringify(output.reply));
      else if (output.type === 'post') void this.#post(output);
      else this.#pollAnew();
    }
    if (replies.length > 0) queueMicrotask(() => this.readyState === 1 && this.onmessage?.({ data: replies.join('\n') }));
  }

  async #post(post: Output & { type: 'post' }): Promise<void> {
    let reply: Record<string, unknown>;
    try {
      reply = postReply(post, await this.#options.io.post(post.path, post.body));
    } catch (thrown) {
      const { code, message, retry } = thrown instanceof TalewireError ? thrown : { code: 0, message: 'no answer', retry: true };
      // 0 is our own code for silence; on this wire the temporary internal error says the same.
      reply = { id: post.id, error: { code: code === 0 ? 100 : code, message, temporary: retry } };
    }
    this.#perform([{ type: 'tell', reply }]);
  }

  /** Commands of one frame come together: one poll for all of them. */
  #pollAnew(): void {
    if (this.#planned) return;
    this.#planned = true;
    queueMicrotask(() => {
      this.#planned = false;
      this.#turn += 1;
      this.#abort?.abort();
      this.#pollAfter(0);
    });
  }

  #pollAfter(wait_ms: number): void {
    clearTimeout(this.#timer);
    const due_ms = Math.max(wait_ms, this.#notBefore_ms - Date.now());
    if (due_ms <= 0) void this.#poll();
    else this.#timer = setTimeout(() => void this.#poll(), due_ms);
  }

  async #poll(): Promise<void> {
    const request = this.readyState === 1 ? this.#translator.request() : undefined;
    if (request === undefined) return;
    const turn = ++this.#turn;
    const abort = new AbortController();
    this.#abort = abort;
    const began_ms = Date.now();
    const late = setTimeout(() => abort.abort(), request.wait_s * 1000 + POLL_LATE_MS);
    try {
      const response = await this.#options.io.raw('GET', pathOf(request), undefined, abort.signal);
      const body: unknown = await response.json().catch(() => undefined);
      if (turn !== this.#turn || this.readyState !== 1) return;
      if (response.status === 200 && isRecord(body)) this.#answered(request, body, Date.now() - began_ms);
      else this.#refused(request, response, body);
    } catch {
      if (turn === this.#turn) this.#end(1006, 'poll failed');
    } finally {
      clearTimeout(late);
    }
  }

  #answered(request: PollRequest, body: Record<string, unknown>, took_ms: number): void {
    this.#busy = 0;
    this.#opened = true;
    const outputs = this.#translator.answered(request, body);
    this.#perform(outputs);
    const retry_ms = body['retry_ms'];
    if (typeof retry_ms === 'number') this.#notBefore_ms = Date.now() + Math.min(Math.max(0, retry_ms), RETRY_MAX_MS);
    // Something in between answers for the server and does not hold the poll: not in a tight loop.
    const empty = outputs.length === 0 && request.wait_s === POLL_WAIT_S && took_ms < EMPTY_TURN_MS;
    this.#pollAfter(empty ? EMPTY_TURN_MS : 0);
  }

  #refused(request: PollRequest, response: Response, body: unknown): void {
    const error = fromHttp(response.status, body, response.headers.get('Retry-After'));
    switch (response.status) {
      case 401:
        return void this.#end(3500, 'invalid token');
      case 403:
        return void this.#end(3507, 'permission denied');
      case 429:
      case 503: {
        this.#busy += 1;
        const wait_ms = Math.min(error.retryAfter_ms ?? this.#options.random() * BUSY_WAIT_MS, RETRY_MAX_MS);
        // Before connect was answered nobody should wait here: the one who made this socket knows how.
        if (this.#busy > BUSY_MAX || (!this.#opened && wait_ms > OPENING_WAIT_MS)) {
          this.#options.told(wait_ms);
          return void this.#end(1006, 'overloaded');
        }
        this.#notBefore_ms = Date.now() + wait_ms;
        return void this.#pollAfter(wait_ms);
      }
      case 400:
      case 413:
        // A cursor may have become unreadable: the client comes back with its positions and without it.
        return request.cursor === undefined ? void this.#end(3501, error.message) : void this.#end(1006, 'bad cursor');
      default:
        return void this.#end(1006, `status ${response.status}`);
    }
  }

  #end(code: number, reason: string): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.#turn += 1;
    this.#abort?.abort();
    clearTimeout(this.#timer);
    queueMicrotask(() => this.onclose?.({ code, reason }));
  }
}

/** A poll of no channel is malformed; who one is can always be asked. */
const WHO_PATH = '/app/me';

function pathOf(request: PollRequest): string {
  if (request.channels.length === 0) return WHO_PATH;
  const query = new URLSearchParams(request.channels.map((channel) => ['channel', channel]));
  if (request.cursor !== undefined) query.set('cursor', request.cursor);
  query.set('wait', String(request.wait_s));
  if (request.events !== undefined) query.set('events', request.events.join(','));
  return `/poll?${query.toString()}`;
}
