/**
 * A channel as an application sees it: typed events, publishing, where one stands.
 * In: handlers, and data to publish. Out: calls of the handlers; unsubscribe functions. Made by
 * `Connection.channel`; the subscription under it is channel-line.ts.
 */
import type { ChannelEvent, ChannelLine, ChannelState } from './channel-line.js';
import type { Readable } from './cell.js';
import type { Position } from './wire.js';

export interface ChannelOptions {
  /** Only these event types are asked of the server; `message` are publications without one. */
  readonly events?: readonly string[];
  /** Begin after this position, if nobody listens to the channel yet. */
  readonly since?: Position;
}

export type Handler<T = unknown> = (data: T, event: ChannelEvent<T>) => void;

/** What was published: where it stands, in channels that keep a history. */
export type Publish = (channel: string, data: unknown, event: string | undefined) => Promise<Partial<Position>>;

export class Channel {
  readonly name: string;
  readonly state: Readable<ChannelState>;
  readonly #line: ChannelLine;
  readonly #options: ChannelOptions;
  readonly #publish: Publish;

  constructor(line: ChannelLine, options: ChannelOptions, publish: Publish) {
    this.name = line.name;
    this.state = line.state;
    this.#line = line;
    this.#options = options;
    this.#publish = publish;
  }

  /** The position of the newest entry that was handled; keep it, and give it as `since` to go on from there. */
  get lastPosition(): Position | undefined {
    return this.#line.position;
  }

  /** Calls the handler for each event of this type, or of these types. Returns how to stop. */
  on<T = unknown>(type: string | readonly string[], handler: Handler<T>): () => void {
    const types = (typeof type === 'string' ? [type] : type).filter((one) => this.#options.events?.includes(one) ?? true);
    // The type of the data is the caller's promise: it stands in no message.
    return this.#listen(types, (event) => handler(event.data as T, event as ChannelEvent<T>));
  }

  /** A handler for each of several types. Returns how to stop all of them. */
  onEach(handlers: Readonly<Record<string, Handler<never>>>): () => void {
    return this.#listen(Object.keys(handlers), (event) => (handlers[event.type] as Handler | undefined)?.(event.data, event));
  }

  /** Every event that this channel lets through. */
  onAny(take: (event: ChannelEvent) => void): () => void {
    return this.#listen(this.#options.events, take);
  }

  /** Entries were lost: read your state anew. */
  onGap(handler: (position: Position | undefined) => void): () => void {
    return this.#line.add({ types: this.#options.events, take: () => undefined, gap: handler }, this.#options.since);
  }

  /** Publishes, as an event of a type if one is given. */
  publish(data: unknown, event?: string): Promise<Partial<Position>> {
    return this.#publish(this.name, data, event);
  }

  #listen(types: readonly string[] | undefined, take: (event: ChannelEvent) => void): () => void {
    // What is asked of the server is the channel's filter, not this listener's: or each new handler would resubscribe.
    const wanted = this.#options.events;
    const picked = (event: ChannelEvent): void => {
      if (types === undefined || types.includes(event.type)) take(event);
    };
    return this.#line.add({ types: wanted, take: picked, gap: () => undefined }, this.#options.since);
  }
}
