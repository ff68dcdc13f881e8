/**
 * The native JSON protocol over long polls, without I/O.
 * In: commands as the official client sends them; what polls and posts were answered. Out: replies and pushes
 * for the client, requests for the shell, and the next poll. Called by poll-socket alone.
 *
 * Connect is answered when the first request was: that proves server and login. With no channel to poll yet it is
 * a question who one is. A subscribe adds its channel to
 * the poll and is answered from the poll's `channels`; events become publications; a gap becomes an unsubscribe
 * push after which the client comes back with its position, and learns what can be recovered.
 */
import { EVENT_TAG, typeOf, typesIn } from '../event-filter.js';
import { isRecord, type Position } from '../wire.js';

type Json = Record<string, unknown>;

/** The most channels that one poll can ask for (PROTOCOL.md). */
export const POLL_CHANNELS_MAX = 32;
/** How long a poll may be held open, in seconds. */
export const POLL_WAIT_S = 25;

/** What goes out of the translator. */
export type Output =
  | { readonly type: 'tell'; readonly reply: Json }
  | { readonly type: 'post'; readonly id: number; readonly kind: PostKind; readonly path: string; readonly body: unknown }
  /** The outstanding poll asks for the wrong channels by now: abort it and poll anew. */
  | { readonly type: 'poll anew' };

export type PostKind = 'rpc' | 'publish' | 'history' | 'presence' | 'presence_stats';

/** The query of one poll. */
export interface PollRequest {
  /** `NAME`, or `NAME@OFFSET-EPOCH`. None: connect waits, and there is nothing to poll; any question to the server will do. */
  readonly channels: readonly string[];
  readonly names: readonly string[];
  readonly cursor: string | undefined;
  readonly wait_s: number;
  readonly events: readonly string[] | undefined;
}

interface Asked {
  /** The subscribe command that waits for its reply; undefined once it has it. */
  command: number | undefined;
  /** Where the client stands, when it asked to recover. */
  readonly from: Position | undefined;
  /** Event types that the client wants; undefined for all. */
  readonly types: readonly string[] | undefined;
}

const notAvailable = { code: 108, message: 'not available' };

export class PollTranslator {
  readonly #client: string;
  readonly #channels = new Map<string, Asked>();
  #connect: number | undefined;
  #cursor: string | undefined;
  /** Channels that the cursor knows: the server goes on with these and does not tell where they begin. */
  #inCursor = new Set<string>();

  constructor(client: string) {
    this.#client = client;
  }

  /** One command of the client. */
  take(command: Json): readonly Output[] {
    const id = command['id'];
    // Without an id it is a pong or a `send`: nobody waits for an answer.
    if (typeof id !== 'number') return [];
    const { connect, subscribe, unsubscribe } = command;
    if (isRecord(connect)) {
      this.#connect = id;
      return [{ type: 'poll anew' }];
    }
    if (isRecord(subscribe)) return this.#subscribe(id, subscribe);
    if (isRecord(unsubscribe)) {
      const known = this.#channels.delete(String(unsubscribe['channel']));
      return [told(id, { unsubscribe: {} }), ...(known ? [{ type: 'poll anew' } as const] : [])];
    }
    return [asPost(id, command) ?? told(id, { error: notAvailable })];
  }

  /** The poll to make now; undefined while there is nothing to ask for. */
  request(): PollRequest | undefined {
    const names = [...this.#channels.keys()];
    const waiting = names.filter((name) => this.#channels.get(name)?.command !== undefined);
    // Left and entered again: the cursor would go on where it was left. It must forget the channel first.
    const stale = waiting.filter((name) => this.#inCursor.has(name));
    const rest = names.filter((name) => !stale.includes(name));
    if (stale.length > 0 && rest.length > 0) return this.#ask(rest, 0);
    if (stale.length > 0) this.#dropCursor();
    if (names.length === 0) {
      this.#dropCursor();
      return this.#connect === undefined ? undefined : this.#ask([], 0);
    }
    return this.#ask(names, waiting.length > 0 || this.#connect !== undefined ? 0 : POLL_WAIT_S);
  }

  /** The body of a poll that was answered with 200. */
  answered(request: PollRequest, body: Json): readonly Output[] {
    this.#cursor = typeof body['cursor'] === 'string' ? body['cursor'] : undefined;
    this.#inCursor = new Set(this.#cursor === undefined ? [] : request.names);
    const out: Output[] = [];
    if (this.#connect !== undefined) {
      out.push(told(this.#connect, { connect: { client: this.#client, version: 'poll' } }));
      this.#connect = undefined;
    }
    for (const refused of records(body['refused'])) out.push(...this.#refused(refused));
    const begun = isRecord(body['channels']) ? body['channels'] : {};
    for (const [name, state] of Object.entries(begun)) if (isRecord(state)) out.push(...this.#begun(name, state));
    // Before the events: those after a gap belong to nobody until the client has come back. A channel that begins here was
    // told of its gap by its reply.
    for (const gap of records(body['gaps'])) if (begun[String(gap['channel'])] === undefined) out.push(...this.#gap(gap));
    for (const event of records(body['events'])) out.push(...this.#event(event));
    for (const name of request.names) {
      const asked = this.#channels.get(name);
      if (asked?.command === undefined || request.wait_s > 0 || !request.channels.includes(spelt(name, asked))) continue;
      // A server that says nothing about a channel that was asked for: the client asks again later.
      this.#channels.delete(name);
      out.push(told(asked.command, { error: { code: 100, message: 'the poll did not answer for this channel', temporary: true } }));
    }
    return out;
  }

  #ask(names: readonly string[], wait_s: number): PollRequest {
    const asked = names.flatMap((name) => this.#channels.get(name) ?? []);
    const wishes = new Set(asked.map((one) => one.types?.toSorted().join(',')));
    // The server filters for all channels alike; wishes that differ are filtered here.
    const events = wishes.size === 1 ? asked[0]?.types : undefined;
    return { channels: names.map((name) => spelt(name, this.#channels.get(name))), names, cursor: this.#cursor, wait_s, events };
  }

  #dropCursor(): void {
    this.#cursor = undefined;
    this.#inCursor.clear();
  }

  #subscribe(id: number, subscribe: Json): readonly Output[] {
    const channel = String(subscribe['channel']);
    const types = typesIn(subscribe['tf']);
    if (this.#channels.has(channel)) return [told(id, { error: { code: 105, message: 'already subscribed' } })];
    if (this.#channels.size >= POLL_CHANNELS_MAX) return [told(id, { error: { code: 106, message: 'limit exceeded' } })];
    // A filter that cannot be kept is refused: ignoring it would let more through than was asked for.
    if (subscribe['tf'] !== undefined && types === undefined) return [told(id, { error: notAvailable })];
    const { recover, offset, epoch } = subscribe;
    const from = recover === true ? { offset: typeof offset === 'number' ? offset : 0, epoch: typeof epoch === 'string' ? epoch : '' } : undefined;
    this.#channels.set(channel, { command: id, from, types });
    return [{ type: 'poll anew' }];
  }

  #begun(channel: string, state: Json): readonly Output[] {
    const asked = this.#channels.get(channel);
    if (asked === undefined) return [];
    const { data, offset, epoch, recovered } = state;
    if (asked.command === undefined) return data === undefined ? [] : [push(channel, { pub: { data } })];
    const id = asked.command;
    asked.command = undefined;
    const place = typeof offset === 'number' && typeof epoch === 'string' ? { recoverable: true, positioned: true, offset, epoch } : {};
    const result: Json = { ...place, ...(data === undefined ? {} : { data }) };
    if (asked.from !== undefined) {
      result['was_recovering'] = true;
      // The client moves its position by each publication that follows, so it stays where it was until then.
      if (recovered === true) Object.assign(result, { recovered: true, offset: asked.from.offset });
    }
    return [told(id, { subscribe: result })];
  }

  #gap(gap: Json): readonly Output[] {
    const channel = String(gap['channel']);
    const asked = this.#channels.get(channel);
    if (asked === undefined) return [];
    if (asked.command !== undefined) return this.#begun(channel, { ...gap, recovered: false });
    this.#channels.delete(channel);
    return [push(channel, { unsubscribe: { code: 2500, reason: 'insufficient state' } })];
  }

  #refused(refused: Json): readonly Output[] {
    const channel = String(refused['channel']);
    const asked = this.#channels.get(channel);
    if (asked === undefined) return [];
    this.#channels.delete(channel);
    const { code, message } = refused;
    if (asked.command === undefined) return [push(channel, { unsubscribe: { code: 2000, reason: String(message) } })];
    return [told(asked.command, { error: { code: typeof code === 'number' ? code : 103, message: String(message) } })];
  }

  #event(event: Json): readonly Output[] {
    const channel = String(event['channel']);
    const asked = this.#channels.get(channel);
    if (asked === undefined || asked.command !== undefined) return [];
    const { data, offset, epoch, info, time, event: type } = event;
    const tags = { ...(isRecord(event['tags']) ? event['tags'] : {}), ...(typeof type === 'string' ? { [EVENT_TAG]: type } : {}) } as Record<string, string>;
    if (asked.types !== undefined && !asked.types.includes(typeOf(tags))) return [];
    const some = Object.entries({ offset, epoch, info, time }).filter(([, value]) => value !== undefined);
    return [push(channel, { pub: { data, ...Object.fromEntries(some), ...(Object.keys(tags).length === 0 ? {} : { tags }) } })];
  }
}

/** The reply to a post that was answered. */
export function postReply(post: { readonly id: number; readonly kind: PostKind }, body: unknown): Json {
  return { id: post.id, [post.kind]: post.kind === 'rpc' ? { data: body } : isRecord(body) ? body : {} };
}

function asPost(id: number, command: Json): Output | undefined {
  const { rpc, publish, history, presence, presence_stats: stats } = command;
  if (isRecord(rpc)) return { type: 'post', id, kind: 'rpc', path: `/app/rpc/${encodeURIComponent(String(rpc['method']))}`, body: rpc['data'] ?? {} };
  if (isRecord(publish)) return { type: 'post', id, kind: 'publish', path: '/app/publish', body: publish };
  if (isRecord(history)) return { type: 'post', id, kind: 'history', path: '/app/history', body: history };
  if (isRecord(presence)) return { type: 'post', id, kind: 'presence', path: '/app/presence', body: presence };
  if (isRecord(stats)) return { type: 'post', id, kind: 'presence_stats', path: '/app/presence_stats', body: stats };
  return undefined;
}

function spelt(name: string, asked: Asked | undefined): string {
  return asked?.command !== undefined && asked.from !== undefined ? `${name}@${asked.from.offset}-${asked.from.epoch}` : name;
}

function told(id: number, reply: Json): Output {
  return { type: 'tell', reply: { id, ...reply } };
}

function push(channel: string, what: Json): Output {
  return { type: 'tell', reply: { push: { channel, ...what } } };
}

function records(list: unknown): readonly Json[] {
  return Array.isArray(list) ? list.filter(isRecord) : [];
}
