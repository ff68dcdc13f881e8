/**
 * The thin shell around one Centrifuge instance: who connects, how it stands, and calls that take the
 * socket when there is one and HTTP when there is not.
 * In: a login and an address; centrifuge's events. Out: a watched ConnectionState, `call`, `openStory`.
 * Called by the page, one per person and tab. The clock and the socket live here and in live-*.ts.
 */
import { Centrifuge, State } from 'centrifuge';
import { Cell } from './cell.js';
import type { Patience } from './delivery.js';
import { codes, fromSocket, noAnswer } from './errors.js';
import { LiveStory } from './live-story.js';
import type { Login, Shelf } from './login.js';
import { isRecord, type Method, type Params, type Result, type User } from './wire.js';

/**
 * connecting: trying, and nothing speaks against it yet. live: connected and nothing is missing.
 * catching up: connected, but something missed is still on its way. offline: the last try failed.
 */
export type ConnectionState = 'connecting' | 'live' | 'catching up' | 'offline';

export interface ConnectionOptions {
  login: Login;
  user: User;
  /** ws:// or wss:// address of /connection/websocket. */
  url: string;
  /** A WebSocket class, where the platform's own is not the one to use (tests). */
  websocket?: unknown;
  /** Where turns wait that were not answered yet; they survive a reload there. */
  shelf?: Shelf;
  giveUpAfter_ms?: number;
}

export const GIVE_UP_AFTER_MS = 120_000;
/** After a final close the server said "do not come back": we look again, slowly, in case it changed its mind. */
const AFTER_FINAL_CLOSE_MS = 15_000;
/** Closed for good because of who we are, not because of the network. */
const loginCloses: ReadonlySet<number> = new Set([1, codes.unauthorized, codes.tokenExpired, 3500, 3507]);

export class Connection {
  readonly state = new Cell<ConnectionState>('connecting');
  readonly login: Login;
  readonly user: User;
  readonly shelf: Shelf | undefined;
  readonly giveUpAfter_ms: number;
  /** For live-*.ts; a view has no business with it. */
  readonly socket: Centrifuge;

  #link: 'connecting' | 'connected' | 'lost' = 'connecting';
  #closed = false;
  #comeBack: ReturnType<typeof setTimeout> | undefined;
  readonly #busy = new Set<string>();
  readonly #stories = new Map<string, LiveStory>();
  readonly #waiters = new Set<() => void>();

  constructor(options: ConnectionOptions) {
    this.login = options.login;
    this.user = options.user;
    this.shelf = options.shelf;
    this.giveUpAfter_ms = options.giveUpAfter_ms ?? GIVE_UP_AFTER_MS;
    const token = options.login.token;
    this.socket = new Centrifuge(options.url, {
      name: 'talewire',
      maxReconnectDelay: 8000,
      ...(token === undefined ? {} : { token }),
      ...(options.websocket === undefined ? {} : { websocket: options.websocket }),
    });
    this.socket.on('connecting', () => this.#linkIs(isDeviceOffline() ? 'lost' : 'connecting'));
    this.socket.on('connected', () => {
      this.#linkIs('connected');
      for (const wake of [...this.#waiters]) wake();
    });
    // One failed attempt is enough to say so: "connecting" for minutes would not be honest.
    this.socket.on('error', () => {
      if (this.#link !== 'connected') this.#linkIs('lost');
    });
    this.socket.on('disconnected', ({ code }) => {
      this.#linkIs('lost');
      if (this.#closed) return;
      if (loginCloses.has(code)) void this.login.ask();
      this.#comeBack = setTimeout(() => this.retry(), AFTER_FINAL_CLOSE_MS);
    });
  }

  connect(): void {
    this.#closed = false;
    this.socket.connect();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#comeBack);
    this.socket.disconnect();
  }

  /** Tries at once, without waiting for the next planned attempt. */
  retry(): void {
    clearTimeout(this.#comeBack);
    if (this.#closed || this.#link === 'connected') return;
    if (this.socket.state === State.Connecting) this.socket.disconnect();
    clearTimeout(this.#comeBack);
    this.socket.connect();
  }

  /** One try of one method. What is sent again, and how long, is delivery's business. */
  async call<M extends Method>(method: M, params: Params<M>): Promise<Result<M>> {
    let data: unknown;
    if (this.#link === 'connected') {
      try {
        const answer: { data: unknown } = await this.socket.rpc(method, params);
        data = answer.data;
      } catch (thrown) {
        throw fromSocket(thrown);
      }
    } else {
      data = await this.login.http.post(`/app/rpc/${method}`, params);
    }
    if (!isRecord(data)) throw noAnswer('The answer made no sense.');
    return data as Result<M>;
  }

  /** The live object of a story; it works while somebody watches it. */
  openStory(id: string): LiveStory {
    const known = this.#stories.get(id);
    if (known !== undefined) return known;
    const story = new LiveStory(this, id);
    this.#stories.set(id, story);
    return story;
  }

  /** Marks something that must arrive before "live" is true. */
  busy(task: string, on: boolean): void {
    if (on) this.#busy.add(task);
    else this.#busy.delete(task);
    this.#tell();
  }

  /** How long to keep trying: a pause ends early when the connection is back. */
  patience(giveUpAfter_ms: number): Patience {
    return { now: () => Date.now(), pause: (ms) => this.#pause(ms), giveUpAfter_ms };
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      this.#waiters.add(wake);
    });
  }

  #linkIs(link: 'connecting' | 'connected' | 'lost'): void {
    this.#link = link;
    this.#tell();
  }

  #tell(): void {
    const connected = this.#busy.size > 0 ? 'catching up' : 'live';
    this.state.set(this.#link === 'connected' ? connected : this.#link === 'lost' ? 'offline' : 'connecting');
  }
}

function isDeviceOffline(): boolean {
  return typeof navigator !== 'undefined' && 'onLine' in navigator && !navigator.onLine;
}
