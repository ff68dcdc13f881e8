/**
 * One subscription of the official client, shared by every Channel of that name; it lives while somebody listens.
 * In: listeners with the event types they want, the events of a Subscription. Out: each publication to each
 * listener, gaps, a watched state. Called by channel.ts; one per name, kept by Connection.
 */
import type { Centrifuge, ClientInfo, Subscription } from 'centrifuge';
import { Cell } from './cell.js';
import { TalewireError } from './errors.js';
import { filterFor, typeOf } from './event-filter.js';
import { isRecord, type Position } from './wire.js';

/** One publication. */
export interface ChannelEvent<T = unknown> {
  readonly channel: string;
  /** The event type; `message` for a publication without one. */
  readonly type: string;
  readonly data: T;
  /** Where it stands in the channel's history; a signal stands nowhere. */
  readonly offset?: number;
  readonly tags?: Readonly<Record<string, string>>;
  /** Who published it, if it was a client. */
  readonly info?: ClientInfo;
}

export interface ChannelState {
  /** idle: nobody listens. refused: the server said no, and `error` says why. */
  readonly phase: 'idle' | 'subscribing' | 'subscribed' | 'refused';
  readonly error?: TalewireError;
}

export interface Listener {
  /** Undefined for all types. */
  readonly types: readonly string[] | undefined;
  readonly take: (event: ChannelEvent) => void;
  /** Entries were lost before this position: what was built from them must be read anew. */
  readonly gap: (position: Position | undefined) => void;
}

/** A page that redraws unsubscribes and subscribes in one breath; the server need not hear of it. */
const GRACE_MS = 250;

export class ChannelLine {
  readonly name: string;
  readonly state = new Cell<ChannelState>({ phase: 'idle' });
  position: Position | undefined;
  readonly #socket: Centrifuge;
  readonly #listeners = new Set<Listener>();
  #subscription: Subscription | undefined;
  #starting = false;
  /** What the server was asked for: the union of all wishes since the subscription began. */
  #types: readonly string[] | undefined;
  #grace: ReturnType<typeof setTimeout> | undefined;

  constructor(socket: Centrifuge, name: string) {
    this.#socket = socket;
    this.name = name;
  }

  /** Returns how to stop listening. */
  add(listener: Listener, since?: Position): () => void {
    clearTimeout(this.#grace);
    this.#listeners.add(listener);
    if (this.#subscription !== undefined) this.#widen(listener.types);
    else if (!this.#starting) {
      this.#starting = true;
      this.position = since;
      // Whoever else comes in this breath is in the first wish, instead of widening it at once.
      queueMicrotask(() => this.#start());
    }
    return () => {
      if (!this.#listeners.delete(listener) || this.#listeners.size > 0) return;
      clearTimeout(this.#grace);
      this.#grace = setTimeout(() => this.#stop(), GRACE_MS);
    };
  }

  #start(): void {
    this.#starting = false;
    if (this.#listeners.size === 0) return;
    const since = this.position;
    const wishes = [...this.#listeners].map((listener) => listener.types);
    const types = wishes.every((wish) => wish !== undefined) ? [...new Set(wishes.flat())] : undefined;
    if (this.#socket.getSubscription(this.name) !== null) {
      this.#refused(105, 'This channel belongs to a story that is open.');
      return;
    }
    this.#types = types;
    const subscription = this.#socket.newSubscription(this.name, {
      recoverable: true,
      ...(since === undefined ? {} : { since }),
      ...(types === undefined ? {} : { tagsFilter: filterFor(types) }),
    });
    this.#subscription = subscription;
    subscription.on('subscribing', () => this.state.set({ phase: 'subscribing' }));
    subscription.on('subscribed', ({ streamPosition, wasRecovering, recovered }) => {
      this.position = streamPosition;
      this.state.set({ phase: 'subscribed' });
      if (wasRecovering && !recovered) for (const listener of [...this.#listeners]) guarded(() => listener.gap(streamPosition));
    });
    subscription.on('publication', (context) => this.#publication(context));
    subscription.on('unsubscribed', ({ code, reason }) => {
      if (this.#subscription === subscription && this.#listeners.size > 0) this.#refused(code, reason);
    });
    subscription.subscribe();
  }

  /** A listener that wants more than was asked for: the subscription goes on from its position with a wider filter. */
  #widen(types: readonly string[] | undefined): void {
    const asked = this.#types;
    const subscription = this.#subscription;
    if (asked === undefined || subscription === undefined || types?.every((type) => asked.includes(type)) === true) return;
    this.#types = types === undefined ? undefined : [...new Set([...asked, ...types])];
    this.#subscription = undefined;
    subscription.setTagsFilter(this.#types === undefined ? null : filterFor(this.#types));
    subscription.unsubscribe();
    this.#subscription = subscription;
    subscription.subscribe();
  }

  #stop(): void {
    const subscription = this.#subscription;
    this.#subscription = undefined;
    if (subscription !== undefined) this.#socket.removeSubscription(subscription);
    this.state.set({ phase: 'idle' });
  }

  #refused(code: number, reason: string): void {
    this.state.set({ phase: 'refused', error: new TalewireError(code, reason, reason, { retry: false }) });
  }

  #publication(context: { data?: unknown; offset?: number; tags?: Record<string, string>; info?: ClientInfo }): void {
    const { data, offset, tags, info } = context;
    const event: ChannelEvent = {
      channel: this.name,
      type: typeOf(tags),
      data,
      ...(offset === undefined ? {} : { offset }),
      ...(tags === undefined ? {} : { tags }),
      ...(info === undefined ? {} : { info }),
    };
    for (const listener of [...this.#listeners]) {
      if (listener.types === undefined || listener.types.includes(event.type)) guarded(() => listener.take(event));
    }
    if (offset !== undefined && this.position !== undefined) this.position = { ...this.position, offset };
  }
}

/** One listener's fault is nobody else's: the official client would stop the whole connection for it. */
function guarded(run: () => void): void {
  try {
    run();
  } catch (thrown) {
    if (typeof reportError === 'function') reportError(thrown);
    else console.error(thrown);
  }
}

/** Whether a value is the position that a caller kept somewhere. */
export function isPosition(value: unknown): value is Position {
  return isRecord(value) && Number.isInteger(value['offset']) && typeof value['epoch'] === 'string';
}
