/**
 * One subscription of the leader's connection, handed to every tab that wants the channel.
 * In: subscribes of tabs, with or without a position; events of the official client's Subscription. Out: replies
 * and pushes for each tab, as a server would give them. Called by switchboard; one per channel.
 *
 * What was pushed lately is kept, so that a tab that comes in later, or comes back, is answered without a word
 * to the server. Where that does not reach back far enough, the subscription is begun anew from the older position, and
 * tabs that are further on skip what they have by its offset.
 */
import type { Centrifuge, SubscribedContext, Subscription } from 'centrifuge';
import { filterFor, typeOf, typesIn } from '../event-filter.js';
import { isRecord, type Position } from '../wire.js';
import { rawInfo, type Info } from './raw.js';

type Json = Record<string, unknown>;

/** A tab, as far as a channel knows it. */
export interface Port {
  readonly tell: (reply: Json) => void;
}

/** The most pushes kept for tabs that come later, and the most characters of them. */
export const KEPT_MAX = 512;
export const KEPT_CHARS_MAX = 262_144;

interface Seat {
  /** The subscribe command that waits for its answer. */
  command: number | undefined;
  readonly from: Position | undefined;
  readonly types: readonly string[] | undefined;
  /** The offset of the last entry that this tab has. */
  at: number;
}

interface Kept { readonly pub: Json; readonly offset: number | undefined; readonly chars: number }

export class SharedChannel {
  readonly #upstream: Centrifuge;
  readonly #name: string;
  readonly #onEmpty: () => void;
  readonly #seats = new Map<Port, Seat>();
  #subscription: Subscription | undefined;
  /** The subscribe that began it: its token and data go with every later one. */
  #command: Json = {};
  #types: readonly string[] | undefined;
  /** What the server said of the channel; undefined until it did. */
  #base: SubscribedContext | undefined;
  /** The position that the present subscription was begun from. */
  #since: Position | undefined;
  #kept: Kept[] = [];
  #keptChars = 0;
  /** Entries after this offset are kept. */
  #keptFrom = 0;
  #overflown = false;

  constructor(upstream: Centrifuge, name: string, onEmpty: () => void) {
    this.#upstream = upstream;
    this.#name = name;
    this.#onEmpty = onEmpty;
  }

  subscribe(port: Port, id: number, command: Json): void {
    const types = typesIn(command['tf']);
    if (this.#seats.has(port)) return void port.tell({ id, error: { code: 105, message: 'already subscribed' } });
    if (command['tf'] !== undefined && types === undefined) return void port.tell({ id, error: { code: 108, message: 'not available' } });
    const { recover, offset, epoch } = command;
    const from = recover === true ? { offset: typeof offset === 'number' ? offset : 0, epoch: typeof epoch === 'string' ? epoch : '' } : undefined;
    const seat: Seat = { command: id, from, types, at: from?.offset ?? 0 };
    this.#seats.set(port, seat);
    if (this.#subscription === undefined) this.#begin(command, from, types);
    else if (!this.#covers(types)) this.#begin(this.#command, this.#top() ?? from, this.#wider(types));
    else if (this.#base !== undefined) this.#seat(port, seat, this.#base);
  }

  /** The tab has left the channel, or is gone. */
  unsubscribe(port: Port): void {
    if (this.#seats.delete(port) && this.#seats.size === 0) this.end();
  }

  end(): void {
    const subscription = this.#subscription;
    this.#subscription = undefined;
    if (subscription !== undefined) this.#upstream.removeSubscription(subscription);
    this.#onEmpty();
  }

  #covers(types: readonly string[] | undefined): boolean {
    const asked = this.#types;
    return asked === undefined || types?.every((type) => asked.includes(type)) === true;
  }

  #wider(types: readonly string[] | undefined): readonly string[] | undefined {
    return types === undefined || this.#types === undefined ? undefined : [...new Set([...this.#types, ...types])];
  }

  /** The newest position that the server told or an entry had. */
  #top(): Position | undefined {
    const position = this.#base?.streamPosition;
    return position && { epoch: position.epoch, offset: this.#kept.at(-1)?.offset ?? Math.max(position.offset, this.#keptFrom) };
  }

  #begin(command: Json, since: Position | undefined, types: readonly string[] | undefined): void {
    const before = this.#subscription;
    // Cleared first: its end is our will, not a refusal.
    this.#subscription = undefined;
    if (before !== undefined) this.#upstream.removeSubscription(before);
    this.#command = command;
    this.#base = undefined;
    this.#since = since;
    this.#types = types;
    const subscription = this.#upstream.newSubscription(this.#name, {
      recoverable: true,
      positioned: true,
      joinLeave: true,
      ...(since === undefined ? {} : { since }),
      ...(types === undefined ? {} : { tagsFilter: filterFor(types) }),
      ...(typeof command['token'] === 'string' ? { token: command['token'] } : {}),
      ...(command['data'] === undefined ? {} : { data: command['data'] }),
    });
    this.#subscription = subscription;
    subscription.on('subscribed', (context) => this.#subscribed(context));
    subscription.on('publication', (context) => this.#publication(context));
    subscription.on('join', ({ info }) => this.#push({ join: { info: rawInfo(info) } }));
    subscription.on('leave', ({ info }) => this.#push({ leave: { info: rawInfo(info) } }));
    subscription.on('unsubscribed', ({ code, reason }) => {
      if (this.#subscription === subscription) this.#refused(code, reason);
    });
    subscription.subscribe();
  }

  #subscribed(context: SubscribedContext): void {
    const again = this.#base !== undefined;
    this.#base = context;
    const lost = context.wasRecovering && !context.recovered;
    if (!again || lost || context.data !== undefined) this.#forget(context.streamPosition?.offset ?? 0);
    for (const [port, seat] of [...this.#seats]) {
      // One of them needed an older beginning: all that wait are answered by that.
      if (this.#base !== context) return;
      if (seat.command !== undefined) this.#seat(port, seat, context);
      // Whoever sat here before cannot know what lies between: they ask anew, with their own position.
      else if (lost || context.data !== undefined) {
        this.#seats.delete(port);
        port.tell({ push: { channel: this.#name, unsubscribe: { code: 2500, reason: 'insufficient state' } } });
      }
    }
  }

  /** Answers a subscribe from what is known and kept. */
  #seat(port: Port, seat: Seat, base: SubscribedContext): void {
    const id = seat.command;
    const { from } = seat;
    const top = this.#top();
    const data = base.data === undefined ? {} : { data: base.data as unknown };
    if (base.data !== undefined && this.#overflown) return void this.#begin(this.#command, undefined, this.#types);
    const same = from !== undefined && top !== undefined && (from.epoch === top.epoch || from.epoch === '');
    // Older than what is kept: the server may still have it. Asked once; a second time it has said no.
    const asked = from?.offset === this.#since?.offset && from?.epoch === this.#since?.epoch;
    if (same && from.offset < this.#keptFrom && !asked) return void this.#begin(this.#command, from, this.#types);
    seat.command = undefined;
    const recovered = same && from.offset >= this.#keptFrom && from.offset <= top.offset;
    const publications = recovered ? this.#kept.filter((kept) => (kept.offset ?? 0) > from.offset && wants(seat, kept.pub)).map((kept) => kept.pub) : [];
    seat.at = top?.offset ?? 0;
    const place = top === undefined ? {} : { recoverable: base.recoverable, positioned: base.positioned, epoch: top.epoch, offset: recovered ? from.offset : top.offset };
    const recovery = from === undefined || top === undefined ? {} : { was_recovering: true, recovered };
    port.tell({ id, subscribe: { ...place, ...recovery, ...data, ...(publications.length === 0 ? {} : { publications }) } });
    // A snapshot is as old as the subscription: what came since makes it the present.
    if (base.data !== undefined) for (const kept of this.#kept) if (wants(seat, kept.pub)) port.tell({ push: { channel: this.#name, pub: kept.pub } });
  }

  #publication(context: { data?: unknown; offset?: number; tags?: Record<string, string>; info?: Info }): void {
    const { data, offset, tags, info } = context;
    const pub: Json = { data, ...(offset === undefined ? {} : { offset }), ...(tags === undefined ? {} : { tags }), ...(info === undefined ? {} : { info: rawInfo(info) }) };
    if (offset !== undefined || this.#base?.data !== undefined) this.#keep({ pub, offset, chars: JSON.stringify(pub).length });
    for (const [port, seat] of [...this.#seats]) {
      if (seat.command !== undefined || (offset !== undefined && offset <= seat.at)) continue;
      if (offset !== undefined) seat.at = offset;
      if (wants(seat, pub)) port.tell({ push: { channel: this.#name, pub } });
    }
  }

  #keep(kept: Kept): void {
    this.#kept.push(kept);
    this.#keptChars += kept.chars;
    while (this.#kept.length > KEPT_MAX || this.#keptChars > KEPT_CHARS_MAX) {
      const gone = this.#kept.shift();
      if (gone === undefined) break;
      this.#keptChars -= gone.chars;
      this.#keptFrom = gone.offset ?? this.#keptFrom;
      this.#overflown = true;
    }
  }

  #forget(from: number): void {
    this.#kept = [];
    this.#keptChars = 0;
    this.#keptFrom = from;
    this.#overflown = false;
  }

  #push(what: Json): void {
    for (const [port, seat] of this.#seats) if (seat.command === undefined) port.tell({ push: { channel: this.#name, ...what } });
  }

  #refused(code: number, reason: string): void {
    const seats = [...this.#seats];
    this.#seats.clear();
    for (const [port, seat] of seats) {
      if (seat.command !== undefined) port.tell({ id: seat.command, error: { code, message: reason } });
      else port.tell({ push: { channel: this.#name, unsubscribe: { code, reason } } });
    }
    this.end();
  }
}

function wants(seat: Seat, pub: Json): boolean {
  const tags = isRecord(pub['tags']) ? (pub['tags'] as Record<string, string>) : undefined;
  return seat.types?.includes(typeOf(tags)) ?? true;
}
