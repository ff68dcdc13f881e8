/**
 * One connection for all tabs of a login: each tab's Centrifuge speaks to the tab in office, which has the
 * real one. In: the channel between tabs, Web Locks, a recipe for a connection of one's own. Out: a Line, as negotiation is
 * one. Called by connection when `shared` is asked for and the browser can.
 *
 * A follower pings the leader. A leader that is closed gives its lock back at once; one that is frozen does not
 * answer, and after SILENT_MS the office is taken from it. Either way every tab's client connects anew, to the next
 * leader, and resumes its subscriptions from their positions.
 */
import { Centrifuge, State } from 'centrifuge';
import { newKey } from '../delivery.js';
import { isRecord } from '../wire.js';
import { allRungs, type Rung } from '../transport/rungs.js';
import type { Line, LineEvents } from '../transport/line.js';
import { Election, type Locks } from './election.js';
import { Switchboard } from './switchboard.js';
import { TabSocket } from './tab-socket.js';

/** What is used of a BroadcastChannel. */
export interface Broadcast {
  onmessage: ((event: { data: unknown }) => void) | null;
  postMessage: (data: unknown) => void;
  close: () => void;
}

export interface Tabs {
  readonly locks: Locks;
  readonly broadcast: (name: string) => Broadcast;
}

export interface TabLineOptions {
  readonly tabs: Tabs;
  /** The same for all tabs of one login, and for no other. */
  readonly name: string;
  /** A connection of one's own, for the time in office. */
  readonly own: (events: LineEvents) => Line;
  readonly random: () => number;
  readonly answerWithin_ms: number;
}

/** How often a follower asks whether the leader is alive. */
export const PING_EVERY_MS = 5000;
/** A leader that was silent this long has lost its office; up to SPREAD_MS more, so that not all take it at once. */
export const SILENT_MS = 12_000;
const SPREAD_MS = 2000;
/** A follower that did not ping for so long is frozen or gone: nothing more is queued for it. Hidden tabs ping once a minute. */
export const FOLLOWER_SILENT_MS = 90_000;
/** The longest frame between tabs, in characters; a longer one closes the tab's connection, as a server would. */
export const FRAME_MAX = 4_194_304;

type Message = Record<string, unknown>;

export class TabLine implements Line {
  readonly #options: TabLineOptions;
  readonly #events: LineEvents;
  readonly #id = newKey();
  readonly #election: Election;
  #broadcast: Broadcast | undefined;
  #socket: TabSocket | undefined;
  #leader: string | undefined;
  #heard_ms = 0;
  #ticked_ms = 0;
  #tick: ReturnType<typeof setInterval> | undefined;
  #office: { readonly line: Line; readonly upstream: Centrifuge; readonly board: Switchboard; readonly seen: Map<string, number> } | undefined;
  #rung: Rung = 'websocket';

  constructor(options: TabLineOptions, events: LineEvents) {
    this.#options = options;
    this.#events = events;
    this.#election = new Election(options.tabs.locks, options.name, { onOffice: () => this.#takeOffice(), onLost: () => this.#leaveOffice() });
  }

  get rung(): Rung {
    return this.#office?.line.rung ?? this.#rung;
  }

  /** Whether this tab has the real connection. */
  get leads(): boolean {
    return this.#office !== undefined;
  }

  client(): Centrifuge {
    const make = (): TabSocket => {
      this.#socket = new TabSocket({ send: (message) => this.#toLeader(message), frameMax: FRAME_MAX });
      // Whoever answers first leads; until then nobody's word counts.
      this.#leader = undefined;
      this.#toLeader({ kind: 'hello' });
      return this.#socket;
    };
    const Socket = function Socket(): unknown {
      return make();
    };
    // The next leader is in the same browser: no reason to wait long for it.
    return new Centrifuge('ws://another.tab', { name: 'talewire', websocket: Socket, minReconnectDelay: 50, maxReconnectDelay: 1000, timeout: this.#options.answerWithin_ms });
  }

  start(): void {
    if (this.#broadcast !== undefined) return;
    this.#broadcast = this.#options.tabs.broadcast(this.#options.name);
    this.#broadcast.onmessage = ({ data }) => isRecord(data) && this.#hear(data);
    this.#heard_ms = this.#ticked_ms = Date.now();
    this.#tick = setInterval(() => this.#watch(), PING_EVERY_MS);
    this.#election.stand();
    this.hurry();
  }

  stop(): void {
    clearInterval(this.#tick);
    this.#toLeader({ kind: 'bye' });
    this.#election.leave();
    this.#leader = undefined;
    this.#socket = undefined;
    this.#broadcast?.close();
    this.#broadcast = undefined;
  }

  hurry(): boolean {
    this.#toLeader({ kind: 'hurry' });
    return false;
  }

  fresh(): void {
    // Every connect of a tab's client is local: there is nothing to begin anew.
  }

  // --- between tabs -----------------------------------------------------------------------------------

  #post(message: Message): void {
    this.#broadcast?.postMessage({ ...message, from: this.#id });
  }

  /** A tab in office speaks to itself by the same words; they only take the short way. */
  #toLeader(message: Message): void {
    if (this.#office === undefined) this.#post({ ...message, to: 'leader' });
    else queueMicrotask(() => this.#lead({ ...message, from: this.#id }));
  }

  #toTab(tab: string, message: Message): void {
    if (tab === this.#id) queueMicrotask(() => this.#follow({ ...message, from: this.#id }));
    else this.#post({ ...message, to: tab });
  }

  #hear(message: Message): void {
    if (message['to'] === 'leader') this.#lead(message);
    else if (message['to'] === this.#id || message['to'] === 'all') this.#follow(message);
  }

  #lead(message: Message): void {
    const { from, kind, text } = message;
    const office = this.#office;
    if (office === undefined || typeof from !== 'string') return;
    office.seen.set(from, Date.now());
    switch (kind) {
      case 'hello':
        return void this.#admit(from);
      case 'frame':
        return typeof text === 'string' && office.board.has(from) ? void office.board.take(from, text) : void this.#toTab(from, { kind: 'close', code: 1006 });
      case 'ping':
        // A tab that was thought gone learns it now.
        return void this.#toTab(from, { kind: 'pong', rung: this.rung, known: office.board.has(from) });
      case 'bye':
        office.seen.delete(from);
        return void office.board.leave(from);
      case 'hurry':
        if (office.upstream.state === State.Disconnected) this.#connect();
        else if (office.upstream.state === State.Connecting) office.line.hurry();
    }
  }

  #admit(tab: string): void {
    const admitted = this.#office?.board.enter(tab, {
      frame: (text) => (text.length > FRAME_MAX ? this.#toTab(tab, { kind: 'close', code: 1009 }) : this.#toTab(tab, { kind: 'frame', text })),
      close: (code, reason) => this.#toTab(tab, { kind: 'close', code, reason }),
    });
    this.#toTab(tab, admitted === true ? { kind: 'welcome', rung: this.rung } : { kind: 'close', code: 3504, reason: 'too many tabs' });
  }

  #follow(message: Message): void {
    const { from, kind, text, code, reason, rung } = message;
    // The last words of an old leader must not be taken for the new one's.
    const introduces = kind === 'office' || (kind === 'welcome' && this.#leader === undefined);
    if (!introduces && from !== this.#leader) return;
    this.#heard_ms = Date.now();
    this.#rung = allRungs.find((one) => one === rung) ?? this.#rung;
    switch (kind) {
      case 'office':
        if (this.#leader !== undefined && this.#leader !== from) this.#socket?.drop(1006, 'another tab leads');
        this.#leader = String(from);
        // Whoever said hello before there was anybody to hear it says it again.
        if (this.#socket?.readyState === 0) this.#toLeader({ kind: 'hello' });
        return;
      case 'welcome':
        this.#leader = String(from);
        return this.#socket?.open();
      case 'frame':
        return this.#socket?.hear(String(text));
      case 'close':
        return this.#socket?.drop(typeof code === 'number' ? code : 1006, typeof reason === 'string' ? reason : '');
      case 'pong':
        if (message['known'] === false && this.#socket?.readyState === 1) this.#socket.drop(1006, 'forgotten');
        return;
      case 'pause':
        return void this.#events.onPause();
      case 'given up':
        return void this.#events.onGivenUp();
    }
  }

  // --- who leads --------------------------------------------------------------------------------------

  #watch(): void {
    const now_ms = Date.now();
    const slept = now_ms - this.#ticked_ms > 3 * PING_EVERY_MS;
    this.#ticked_ms = now_ms;
    if (this.#office !== undefined) return void this.#forgetSilent(now_ms);
    // It was this tab that slept: the leader gets its chance to answer first.
    if (slept) this.#heard_ms = now_ms;
    if (now_ms - this.#heard_ms > SILENT_MS) {
      this.#heard_ms = now_ms;
      setTimeout(() => this.#takeOver(now_ms), this.#options.random() * SPREAD_MS);
    } else this.#toLeader({ kind: 'ping' });
  }

  #takeOver(silentAt_ms: number): void {
    if (this.#broadcast !== undefined && this.#heard_ms === silentAt_ms) this.#election.take();
  }

  #forgetSilent(now_ms: number): void {
    const office = this.#office;
    for (const [tab, seen_ms] of office?.seen ?? []) {
      if (tab === this.#id || now_ms - seen_ms <= FOLLOWER_SILENT_MS) continue;
      office?.seen.delete(tab);
      office?.board.leave(tab);
    }
  }

  #takeOffice(): void {
    const tellAll = (kind: string): void => {
      this.#post({ to: 'all', kind });
      this.#follow({ from: this.#id, kind });
    };
    const line = this.#options.own({
      onPause: () => tellAll('pause'),
      onGivenUp: () => {
        office.upstream.disconnect();
        tellAll('given up');
      },
      onBetter: () => this.#connect(),
    });
    const upstream = line.client();
    const office = { line, upstream, board: new Switchboard(upstream), seen: new Map<string, number>() };
    this.#office = office;
    line.start();
    this.#connect();
    tellAll('office');
  }

  /** Connects the real connection, or connects it anew. */
  #connect(): void {
    this.#office?.upstream.disconnect();
    this.#office?.line.fresh();
    this.#office?.upstream.connect();
  }

  #leaveOffice(): void {
    const office = this.#office;
    if (office === undefined) return;
    // While still in office, so that the farewell is told to the tabs, this one among them.
    office.board.end();
    this.#office = undefined;
    office.line.stop();
    office.upstream.disconnect();
    this.#heard_ms = Date.now();
  }
}

/** Web Locks and BroadcastChannel, where the browser has both. */
export function tabsOfBrowser(): Tabs | undefined {
  const locks: unknown = typeof navigator === 'object' && 'locks' in navigator ? navigator.locks : undefined;
  if (!isRecord(locks) && typeof locks !== 'object') return undefined;
  if (locks === null || typeof BroadcastChannel !== 'function') return undefined;
  return { locks: locks as Locks, broadcast: (name) => new BroadcastChannel(name) as Broadcast };
}

/** A name that two logins, or two servers, do not share; it tells neither. */
export function sharedName(...parts: readonly string[]): string {
  const text = parts.join('\n');
  return `talewire-${[0x811c9dc5, 0x01234567, 0x7a1e0001].map((seed) => fnv(text, seed).toString(16).padStart(8, '0')).join('')}`;
}

function fnv(text: string, seed: number): number {
  let hash = seed;
  for (let index = 0; index < text.length; index += 1) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return hash >>> 0;
}
