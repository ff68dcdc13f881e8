/**
 * The thin shell around one Centrifuge instance: who connects, how it stands, and calls that take the
 * socket when there is one and HTTP when there is not.
 * In: a login and an address; centrifuge's events. Out: a watched ConnectionState, `call`, `channel`, `openStory`.
 * Called by the page, one per person and tab. Which transport carries it is negotiation's business.
 */
import { type Centrifuge, State } from 'centrifuge';
import { Cell } from './cell.js';
import { Channel, type ChannelOptions } from './channel.js';
import { ChannelLine, isPosition } from './channel-line.js';
import type { Patience } from './delivery.js';
import { codes, fromSocket, noAnswer } from './errors.js';
import { LiveStory } from './live-story.js';
import type { Login, Shelf } from './login.js';
import type { BackoffSettings } from './transport/backoff.js';
import { sharedName, TabLine, tabsOfBrowser, type Tabs } from './tabs/tab-line.js';
import type { Line, LineEvents } from './transport/line.js';
import { ANSWER_WITHIN_MS, Negotiation } from './transport/negotiation.js';
import { endpointsOf, type Rung } from './transport/rungs.js';
import { isRecord, type Method, type Params, type Position, type Result, type User } from './wire.js';

/**
 * connecting: trying, and nothing speaks against it yet. live: connected and nothing is missing.
 * catching up: connected, but something missed is still on its way. offline: the last round of tries failed,
 * another will come. stopped: nothing is tried any more, since too many rounds failed or the server said so.
 */
export type ConnectionState = 'connecting' | 'live' | 'catching up' | 'offline' | 'stopped';

/** The coarse view: `connecting` as long as something is tried or will be tried by itself. */
export type ConnectionStatus = 'connecting' | 'connected' | 'disconnected';

export interface ConnectionOptions {
  login: Login;
  user: User;
  /**
   * `https://host` (or http): the best transport that works there is used. `wss://host/connection/websocket`
   * (or ws): that WebSocket address alone.
   */
  url: string;
  /** Transports that may be used, where not all; their order is fixed, best first. */
  transports?: readonly Rung[];
  /** Never give up. Without it, 20 failed rounds in a row end in `stopped`, and `retry` begins anew. */
  endless?: boolean;
  /** After a close that is final the server is asked again this much later; without it, never. */
  lookAgain_ms?: number;
  /** One connection for all tabs of this login; where the browser cannot do that, one of one's own. */
  shared?: boolean;
  /** Where turns wait that were not answered yet; they survive a reload there. */
  shelf?: Shelf;
  /** Where the transport that worked is remembered for some minutes: a tab's sessionStorage. */
  memory?: Shelf;
  giveUpAfter_ms?: number;
  /** Classes and functions to use instead of the platform's own (tests, Node). */
  tabs?: Tabs;
  websocket?: unknown;
  eventsource?: unknown;
  fetch?: typeof fetch;
  random?: () => number;
  backoff?: BackoffSettings;
  answerWithin_ms?: number;
}

export const GIVE_UP_AFTER_MS = 120_000;
/** Failed rounds in a row before a connection that is not endless stops. */
export const ATTEMPTS_MAX = 20;
/** Closed for good because of who we are, not because of the network. */
const loginCloses: ReadonlySet<number> = new Set([1, codes.unauthorized, codes.tokenExpired, 3500, 3507]);

type Link = 'connecting' | 'connected' | 'lost' | 'stopped';

export class Connection {
  readonly state = new Cell<ConnectionState>('connecting');
  readonly status = new Cell<ConnectionStatus>('disconnected');
  readonly login: Login;
  readonly user: User;
  readonly shelf: Shelf | undefined;
  readonly giveUpAfter_ms: number;
  /** For live-*.ts and channel.ts; a view has no business with it. */
  readonly socket: Centrifuge;

  readonly #line: Line;
  readonly #lookAgain_ms: number | undefined;
  #link: Link = 'connecting';
  #closed = true;
  /** Between two sockets of our own will: nobody needs to hear of it. */
  #moving = false;
  #comeBack: ReturnType<typeof setTimeout> | undefined;
  readonly #busy = new Set<string>();
  readonly #stories = new Map<string, LiveStory>();
  readonly #lines = new Map<string, ChannelLine>();
  readonly #waiters = new Set<() => void>();

  constructor(options: ConnectionOptions) {
    this.login = options.login;
    this.user = options.user;
    this.shelf = options.shelf;
    this.giveUpAfter_ms = options.giveUpAfter_ms ?? GIVE_UP_AFTER_MS;
    this.#lookAgain_ms = options.lookAgain_ms;
    this.#line = lineOf(options, {
      // One failed round is enough to say so: "connecting" for minutes would not be honest.
      onPause: () => this.#linkIs('lost'),
      onGivenUp: () => this.#stop(),
      onBetter: () => this.#again(),
    });
    this.socket = this.#line.client();
    this.#listen();
  }

  /** The transport in use, or tried at the moment. */
  get transport(): Rung {
    return this.#line.rung;
  }

  connect(): void {
    this.#closed = false;
    this.#line.start();
    if (this.socket.state === State.Disconnected) this.#line.fresh();
    this.socket.connect();
    this.#tell();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#comeBack);
    this.#line.stop();
    this.socket.disconnect();
    this.#tell();
  }

  /** Tries at once, without waiting for the next planned attempt. */
  retry(): void {
    clearTimeout(this.#comeBack);
    if (this.#closed || this.#link === 'connected') return;
    // In a pause that is cut short; in an attempt that may hang, a new one takes its place.
    if (!this.#line.hurry()) this.#again();
    else this.#linkIs('connecting');
  }

  /** A channel by name: typed events, and publishing. Channels of stories are `openStory`'s. */
  channel(name: string, options: ChannelOptions = {}): Channel {
    const line = this.#lines.get(name) ?? new ChannelLine(this.socket, name);
    this.#lines.set(name, line);
    return new Channel(line, options, (channel, data, event) => this.#publish(channel, data, event));
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

  /** The native command has no place for an event type; HTTP has. */
  async #publish(channel: string, data: unknown, event: string | undefined): Promise<Partial<Position>> {
    if (event === undefined && this.#link === 'connected') {
      try {
        await this.socket.publish(channel, data);
        return {};
      } catch (thrown) {
        throw fromSocket(thrown);
      }
    }
    const answer = await this.login.http.post('/app/publish', { channel, data, ...(event === undefined ? {} : { event }) });
    return isPosition(answer) ? answer : {};
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

  #listen(): void {
    this.socket.on('connecting', () => this.#linkIs(isDeviceOffline() ? 'lost' : 'connecting'));
    this.socket.on('connected', () => {
      this.#linkIs('connected');
      for (const wake of [...this.#waiters]) wake();
    });
    this.socket.on('disconnected', ({ code }) => {
      if (this.#moving) return;
      this.#linkIs(this.#lookAgain_ms === undefined ? 'stopped' : 'lost');
      if (this.#closed) return;
      if (loginCloses.has(code)) void this.login.ask();
      if (this.#lookAgain_ms !== undefined) this.#comeBack = setTimeout(() => this.retry(), this.#lookAgain_ms);
    });
  }

  /** A new connection in place of the one there is; subscriptions go on from their positions. */
  #again(): void {
    this.#moving = true;
    this.socket.disconnect();
    this.#moving = false;
    this.#line.fresh();
    this.socket.connect();
  }

  #stop(): void {
    this.#moving = true;
    this.socket.disconnect();
    this.#moving = false;
    this.#linkIs('stopped');
  }

  #linkIs(link: Link): void {
    this.#link = link;
    this.#tell();
  }

  #tell(): void {
    const connected = this.#busy.size > 0 ? 'catching up' : 'live';
    const states = { connecting: 'connecting', connected, lost: 'offline', stopped: 'stopped' } as const;
    this.state.set(states[this.#link]);
    const over = this.#closed || this.#link === 'stopped';
    this.status.set(over ? 'disconnected' : this.#link === 'connected' ? 'connected' : 'connecting');
  }
}

/** A connection of one's own, or another tab's if that is wished and possible. */
function lineOf(options: ConnectionOptions, events: LineEvents): Line {
  const { login, user, url } = options;
  const own = (ownEvents: LineEvents): Line =>
    new Negotiation(
      {
        ...options,
        endpoints: endpointsOf(url, options.transports),
        http: login.http,
        token: () => login.token,
        attemptsMax: options.endless === true ? Number.POSITIVE_INFINITY : ATTEMPTS_MAX,
      },
      ownEvents,
    );
  const tabs = options.shared === true ? (options.tabs ?? tabsOfBrowser()) : undefined;
  if (tabs === undefined) return own(events);
  const name = sharedName(typeof location === 'object' ? location.origin : '', url, user.id, login.token === undefined ? 'cookie' : 'token');
  return new TabLine({ tabs, name, own, random: options.random ?? Math.random, answerWithin_ms: options.answerWithin_ms ?? ANSWER_WITHIN_MS }, events);
}

function isDeviceOffline(): boolean {
  return typeof navigator !== 'undefined' && 'onLine' in navigator && !navigator.onLine;
}
