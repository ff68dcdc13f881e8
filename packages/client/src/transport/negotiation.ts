/**
 * Makes the official client walk the ladder: before each of its attempts it asks here for data, which is where
 * the attempt waits its turn and gets its transport.
 * In: events of a Centrifuge, waits that servers told, changes of the network. Out: the options for that
 * Centrifuge; "paused", "given up" and "something better works" to the connection. Called by connection.
 *
 * The client's own list of transports is not enough: it never leaves one that opened and stayed silent, and
 * never goes back to a better one. So it is given a list of one, and that one is changed between attempts.
 */
import type { Options, TransportEndpoint } from 'centrifuge';
import { Centrifuge } from 'centrifuge';
import { newKey } from '../delivery.js';
import type { Http } from '../http.js';
import type { Shelf } from '../login.js';
import { Backoff, backoffDefaults, type BackoffSettings } from './backoff.js';
import { Ladder } from './ladder.js';
import type { Line, LineEvents } from './line.js';
import { PollSocket } from './poll-socket.js';
import type { Endpoints, Rung } from './rungs.js';

export interface NegotiationOptions {
  readonly endpoints: Endpoints;
  readonly http: Http;
  readonly token: () => string | undefined;
  /** Classes and functions of the platform, where its own are not the ones to use (tests). */
  readonly websocket?: unknown;
  readonly eventsource?: unknown;
  readonly fetch?: typeof fetch | undefined;
  /** Where the transport that worked is remembered for a while; a tab's own storage. */
  readonly memory?: Shelf | undefined;
  readonly random?: (() => number) | undefined;
  readonly backoff?: BackoffSettings | undefined;
  readonly answerWithin_ms?: number | undefined;
  /** Pauses in a row before it is given up; Infinity for never. */
  readonly attemptsMax: number;
}

/** A transport that opened has this long to bring the answer to connect, and any command its reply. */
export const ANSWER_WITHIN_MS = 8000;
/** A connection that falls silent this early was never good: a buffering proxy, not a sleeping laptop. */
export const EARLY_SILENCE_MS = 60_000;
/** A connection that lived this long was a success, and the next pause is short again. */
export const SETTLED_MS = 5000;
/** How often a better transport is tried while on a worse one; up to half as long again. */
export const CLIMB_EVERY_MS = 300_000;
/** After a change of network the trial comes within this time. */
const CLIMB_AFTER_CHANGE_MS = 5000;
/** The local code of the official client for "no ping". */
const NO_PING = 2;
/** And its error code for an answer that did not come in time. */
const TIMED_OUT = 1;

type Outcome = 'open' | 'failed' | 'mute' | 'busy' | 'lost';

export class Negotiation implements Line {
  readonly #options: NegotiationOptions;
  readonly #events: LineEvents;
  readonly #random: () => number;
  readonly #ladder: Ladder;
  readonly #backoff: Backoff;
  /** The list of one that the official client reads before each attempt. */
  readonly #transports: TransportEndpoint[];
  /** What became of the attempt under way; undefined before the first. */
  #outcome: Outcome | undefined;
  #connectedAt_ms: number | undefined;
  #endPause: (() => void) | undefined;
  #climb: ReturnType<typeof setTimeout> | undefined;
  #trial: Centrifuge | undefined;
  #stopListening: (() => void) | undefined;

  constructor(options: NegotiationOptions, events: LineEvents) {
    this.#options = options;
    this.#events = events;
    this.#random = options.random ?? Math.random;
    this.#backoff = new Backoff(this.#random, options.backoff ?? backoffDefaults);
    this.#ladder = new Ladder(options.endpoints.rungs, Date.now(), options.memory);
    this.#transports = [options.endpoints.of(this.#ladder.current)];
  }

  /** The transport of the present or next attempt. */
  get rung(): Rung {
    return this.#ladder.current;
  }

  /** The Centrifuge that everything above talks to. */
  client(): Centrifuge {
    const client = new Centrifuge(this.#transports, {
      ...this.#platform(),
      // The pause is ours, in getData; the client's own shall not add to it.
      minReconnectDelay: 1,
      maxReconnectDelay: 1,
      getData: () => this.#turn(),
    });
    client.on('connected', () => this.#connected());
    client.on('connecting', ({ code }) => this.#lost(code));
    client.on('error', ({ type, error }) => {
      if (type === 'transport') this.#became(error.message === 'connect timeout' ? 'mute' : 'failed');
      else if (type === 'connect') this.#became(error.code === TIMED_OUT ? 'mute' : error.code >= 100 ? 'busy' : 'failed');
    });
    return client;
  }

  /** Begins to listen to the network; `stop` ends it. */
  start(): void {
    this.#stopListening ??= onNetworkChange(() => this.#networkChanged());
  }

  stop(): void {
    this.#stopListening?.();
    this.#stopListening = undefined;
    this.#stopClimbing();
    this.#endPause?.();
  }

  /** Somebody wants it now: no pause, and the count of failures begins anew. True if a pause was cut short. */
  hurry(): boolean {
    this.#backoff.reset();
    const paused = this.#endPause !== undefined;
    this.#endPause?.();
    return paused;
  }

  /** The next attempt is a new beginning: connect was called, not the client's own reconnect. */
  fresh(): void {
    this.#endPause?.();
    this.#outcome = undefined;
    this.#connectedAt_ms = undefined;
    this.#stopClimbing();
  }

  #platform(): Partial<Options> {
    const { endpoints, websocket, eventsource, fetch: fetcher } = this.#options;
    const token = this.#options.token();
    return {
      name: 'talewire',
      timeout: this.#options.answerWithin_ms ?? ANSWER_WITHIN_MS,
      emulationEndpoint: endpoints.emulation,
      websocket: this.#socketClass(websocket ?? globalThis.WebSocket),
      fetch: this.#listeningFetch(fetcher ?? ((...args) => globalThis.fetch(...args))),
      ...(token === undefined ? {} : { token }),
      ...(eventsource === undefined ? {} : { eventsource }),
    };
  }

  /** Called by the client before each attempt. */
  async #turn(): Promise<null> {
    const wait_ms = this.#wait(Date.now());
    if (wait_ms !== undefined) {
      // A line that just broke has not failed to come back yet.
      if (this.#outcome !== 'lost') this.#events.onPause();
      if (this.#backoff.failed > this.#options.attemptsMax) {
        this.#events.onGivenUp();
        return null;
      }
      await this.#pause(wait_ms);
    }
    this.#outcome = 'open';
    this.#transports[0] = this.#options.endpoints.of(this.#ladder.current);
    return null;
  }

  /** Steps on by what became of the last attempt. A number is a pause; undefined means at once. */
  #wait(now_ms: number): number | undefined {
    switch (this.#outcome) {
      case undefined:
        this.#ladder.begin(now_ms);
        return undefined;
      case 'lost':
      case 'busy':
        // The server was reached: the transport is not to blame.
        this.#ladder.begin(now_ms);
        return this.#backoff.next(now_ms);
      case 'mute':
        this.#ladder.stayedMute(now_ms);
        break;
      case 'open':
      case 'failed':
    }
    return this.#ladder.failed(now_ms) === 'at once' ? undefined : this.#backoff.next(now_ms);
  }

  #pause(wait_ms: number): Promise<void> {
    this.#endPause?.();
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        if (this.#endPause === end) this.#endPause = undefined;
        resolve();
      };
      const timer = setTimeout(end, wait_ms);
      this.#endPause = end;
    });
  }

  #became(outcome: Outcome): void {
    // The first word about an attempt is the true one: what follows are echoes of its teardown.
    if (this.#outcome === 'open') this.#outcome = outcome;
  }

  #connected(): void {
    this.#connectedAt_ms = Date.now();
    this.#ladder.worked(this.#connectedAt_ms);
    this.#planClimb(CLIMB_EVERY_MS * (1 + this.#random() / 2));
  }

  #lost(code: number): void {
    const since_ms = this.#connectedAt_ms;
    if (since_ms === undefined) return;
    this.#connectedAt_ms = undefined;
    this.#stopClimbing();
    const now_ms = Date.now();
    // A success is one that lasts: a server that takes everybody in and drops them again must not be stormed.
    if (now_ms - since_ms >= SETTLED_MS) this.#backoff.reset();
    const early = code === NO_PING && now_ms - since_ms < EARLY_SILENCE_MS;
    if (early) this.#ladder.stayedMute(now_ms);
    else this.#ladder.worked(now_ms);
    this.#outcome = 'lost';
  }

  // --- the way back up -------------------------------------------------------------------------------

  #planClimb(wait_ms: number): void {
    this.#stopClimbing();
    if (this.#ladder.better.length === 0) return;
    this.#climb = setTimeout(() => void this.#tryBetter(), wait_ms);
  }

  #stopClimbing(): void {
    clearTimeout(this.#climb);
    this.#trial?.disconnect();
    this.#trial = undefined;
  }

  /** A second connection over each better transport: only an answer to connect proves one. */
  async #tryBetter(): Promise<void> {
    const begun = this.#connectedAt_ms;
    for (const rung of this.#ladder.better) {
      const works = await this.#answers(rung);
      if (this.#connectedAt_ms !== begun || begun === undefined) return;
      if (works) {
        this.#ladder.prefer(rung, Date.now());
        this.#events.onBetter();
        return;
      }
    }
    this.#planClimb(CLIMB_EVERY_MS * (1 + this.#random() / 2));
  }

  #answers(rung: Rung): Promise<boolean> {
    const trial = new Centrifuge([this.#options.endpoints.of(rung)], this.#platform());
    this.#trial = trial;
    return new Promise((resolve) => {
      const end = (works: boolean): void => {
        resolve(works);
        trial.disconnect();
      };
      trial.on('connected', () => end(true));
      trial.on('error', () => end(false));
      trial.on('disconnected', () => resolve(false));
      trial.connect();
    });
  }

  #networkChanged(): void {
    if (this.#connectedAt_ms === undefined) {
      this.#ladder.forgetAll(Date.now());
      if (this.#outcome !== undefined) this.#outcome = 'lost';
      // What a server told holds on any network.
      if (!this.#backoff.isTold(Date.now())) this.hurry();
    } else this.#planClimb(this.#random() * CLIMB_AFTER_CHANGE_MS);
  }

  // --- what the platform is wrapped in ---------------------------------------------------------------

  #socketClass(platform: unknown): unknown {
    const { endpoints, http } = this.#options;
    const poll = (): PollSocket =>
      new PollSocket({ io: http, random: this.#random, newClient: newKey, told: (wait_ms) => this.#told(wait_ms) });
    if (typeof platform !== 'function' && !endpoints.rungs.includes('poll')) return platform;
    const Platform = platform as new (endpoint: string, protocols?: string) => unknown;
    return function Socket(endpoint: string): unknown {
      return endpoint === endpoints.poll ? poll() : new Platform(endpoint);
    };
  }

  /** HTTP streams and posts can be told when to come back; a WebSocket cannot. */
  #listeningFetch(fetcher: typeof fetch): typeof fetch {
    return async (...args) => {
      const response = await fetcher(...args);
      if (response.status === 429 || response.status === 503) {
        this.#told(Number(response.headers.get('Retry-After') ?? Number.NaN) * 1000);
      }
      return response;
    };
  }

  #told(wait_ms: number): void {
    this.#backoff.told(wait_ms, Date.now());
    this.#became('busy');
  }
}

/** Online again, or on another network. Returns how to stop listening. */
function onNetworkChange(listener: () => void): () => void {
  const targets: [EventTarget, string, () => void][] = [];
  if (typeof globalThis.addEventListener === 'function') targets.push([globalThis, 'online', listener]);
  const connection: unknown = typeof navigator === 'object' && 'connection' in navigator ? navigator.connection : undefined;
  if (connection instanceof EventTarget) {
    const typeNow = (): unknown => ('type' in connection ? connection.type : undefined);
    let type = typeNow();
    // It also tells each new guess about speed, which is no other network.
    const onChange = (): void => {
      if (typeNow() === type) return;
      type = typeNow();
      listener();
    };
    targets.push([connection, 'change', onChange]);
  }
  for (const [target, name, run] of targets) target.addEventListener(name, run);
  return () => {
    for (const [target, name, run] of targets) target.removeEventListener(name, run);
  };
}
