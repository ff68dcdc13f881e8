/**
 * The leader's half of a shared connection: a small server for the tabs, on top of one Centrifuge.
 * In: frames of native commands from each tab; what the one connection brings. Out: frames of replies and pushes
 * for each tab, and closes. Called by tab-line while its tab is in office.
 */
import { type Centrifuge, State } from 'centrifuge';
import { codes, fromSocket } from '../errors.js';
import { isRecord } from '../wire.js';
import { rawHistory, rawPresence } from './raw.js';
import { SharedChannel, type Port } from './shared-channel.js';

type Json = Record<string, unknown>;

/** How the switchboard reaches one tab. */
export interface Tab {
  readonly frame: (text: string) => void;
  readonly close: (code: number, reason: string) => void;
}

/** More tabs than anybody opens; the next is turned away. */
export const TABS_MAX = 64;

interface Seat extends Port {
  readonly tab: Tab;
  /** The connect command that waits for the connection. */
  connect: number | undefined;
}

export class Switchboard {
  readonly #upstream: Centrifuge;
  readonly #seats = new Map<string, Seat>();
  readonly #channels = new Map<string, SharedChannel>();
  #client = '';

  constructor(upstream: Centrifuge) {
    this.#upstream = upstream;
    upstream.on('connected', ({ client }) => {
      this.#client = client;
      for (const seat of this.#seats.values()) this.#welcome(seat);
    });
    upstream.on('connecting', () => this.#closeConnected(1006, 'transport closed'));
    upstream.on('disconnected', ({ code, reason }) => this.#closeAll(closeCode(code), reason));
  }

  has(id: string): boolean {
    return this.#seats.has(id);
  }

  /** A tab comes in. False if there is no place for it. */
  enter(id: string, tab: Tab): boolean {
    this.leave(id);
    if (this.#seats.size >= TABS_MAX) return false;
    this.#seats.set(id, { tab, connect: undefined, tell: (reply) => tab.frame(JSON.stringify(reply)) });
    return true;
  }

  leave(id: string): void {
    const seat = this.#seats.get(id);
    if (seat === undefined) return;
    this.#seats.delete(id);
    for (const channel of [...this.#channels.values()]) channel.unsubscribe(seat);
  }

  take(id: string, frame: string): void {
    const seat = this.#seats.get(id);
    if (seat === undefined) return;
    for (const line of frame.split('\n')) {
      const command: unknown = line === '' ? undefined : JSON.parse(line);
      if (isRecord(command)) this.#command(seat, command);
    }
  }

  /** The office is over: the tabs look for the next leader. */
  end(): void {
    this.#closeAll(1006, 'another tab leads');
  }

  #command(seat: Seat, command: Json): void {
    const { id, connect, subscribe, unsubscribe } = command;
    if (typeof id !== 'number') return;
    if (isRecord(connect)) {
      seat.connect = id;
      if (this.#upstream.state === State.Connected) this.#welcome(seat);
    } else if (isRecord(subscribe)) this.#channel(String(subscribe['channel'])).subscribe(seat, id, subscribe);
    else if (isRecord(unsubscribe)) {
      this.#channels.get(String(unsubscribe['channel']))?.unsubscribe(seat);
      seat.tell({ id, unsubscribe: {} });
    } else void this.#call(seat, id, command);
  }

  #welcome(seat: Seat): void {
    if (seat.connect === undefined) return;
    const id = seat.connect;
    seat.connect = undefined;
    seat.tell({ id, connect: { client: this.#client, version: 'tabs' } });
  }

  #channel(name: string): SharedChannel {
    const known = this.#channels.get(name);
    if (known !== undefined) return known;
    const channel = new SharedChannel(this.#upstream, name, () => {
      if (this.#channels.get(name) === channel) this.#channels.delete(name);
    });
    this.#channels.set(name, channel);
    return channel;
  }

  async #call(seat: Seat, id: number, command: Json): Promise<void> {
    try {
      seat.tell({ id, ...(await this.#answer(command)) });
    } catch (thrown) {
      const { code, message, retry } = fromSocket(thrown);
      seat.tell({ id, error: { code: code === 0 ? 100 : code, message, temporary: retry } });
    }
  }

  async #answer(command: Json): Promise<Json> {
    const { rpc, publish, history, presence, presence_stats: stats } = command;
    const upstream = this.#upstream;
    if (isRecord(rpc)) {
      const answer: { data: unknown } = await upstream.rpc(String(rpc['method']), rpc['data']);
      return { rpc: { data: answer.data } };
    }
    if (isRecord(publish)) {
      await upstream.publish(String(publish['channel']), publish['data']);
      return { publish: {} };
    }
    if (isRecord(history)) return { history: rawHistory(await upstream.history(String(history['channel']), history)) };
    if (isRecord(presence)) return { presence: rawPresence(await upstream.presence(String(presence['channel']))) };
    if (isRecord(stats)) {
      const { numClients, numUsers } = await upstream.presenceStats(String(stats['channel']));
      return { presence_stats: { num_clients: numClients, num_users: numUsers } };
    }
    return { error: { code: 108, message: 'not available' } };
  }

  /** Tabs that still wait for the connection go on waiting. */
  #closeConnected(code: number, reason: string): void {
    for (const [id, seat] of [...this.#seats]) if (seat.connect === undefined) this.#close(id, seat, code, reason);
  }

  #closeAll(code: number, reason: string): void {
    for (const [id, seat] of [...this.#seats]) this.#close(id, seat, code, reason);
  }

  #close(id: string, seat: Seat, code: number, reason: string): void {
    this.leave(id);
    seat.tab.close(code, reason);
  }
}

/** The official client's own codes, and refused connects, as closes that mean the same to the tabs' clients. */
function closeCode(code: number): number {
  if (code >= 3000) return code;
  if (code === 0) return 1006;
  return code === 1 || code === codes.unauthorized || code === codes.tokenExpired ? 3500 : 3501;
}
