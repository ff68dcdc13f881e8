/**
 * Which transport to try next. Pure: time is an argument.
 * In: what became of each attempt. Out: the rung for the next one, and whether to pause before it.
 * Called by negotiation; the memory outlives the page in a Shelf.
 *
 * An attempt belongs to a round. A round begins with what worked here lately, else with the best, and
 * goes down at once from rung to rung; when all have failed there is a pause and a new round. What worked is
 * tried twice alone first, so that a server's restart neither quadruples its visitors nor leaves them on
 * worse transports than before.
 */
import type { Shelf } from '../login.js';
import { allRungs, type Rung } from './rungs.js';

/** What worked, and what stayed mute, is remembered this long: networks change. */
export const MEMORY_MS = 300_000;
/** Rounds in which only the remembered rung is tried. */
const LOYAL_ROUNDS = 2;
const MEMORY_KEY = 'talewire.transport';

interface Memory { readonly rung: Rung; readonly until_ms: number }

export class Ladder {
  readonly #rungs: readonly Rung[];
  readonly #shelf: Shelf | undefined;
  #known: Memory | undefined;
  /** Opened and then stayed silent: tried last for a while, since finding out again costs seconds. */
  readonly #mute = new Map<Rung, number>();
  readonly #tried = new Set<Rung>();
  #rounds = 0;
  #current: Rung;

  constructor(rungs: readonly Rung[], now_ms: number, shelf?: Shelf) {
    const best = rungs[0];
    if (best === undefined) throw new Error('A connection needs at least one transport.');
    this.#rungs = rungs;
    this.#shelf = shelf;
    this.#known = this.#remembered(now_ms);
    this.#current = best;
    this.begin(now_ms);
  }

  get current(): Rung {
    return this.#current;
  }

  /** What would be better than the current rung, best first. */
  get better(): readonly Rung[] {
    return this.#rungs.slice(0, this.#rungs.indexOf(this.#current));
  }

  /** A new round. */
  begin(now_ms: number): void {
    this.#tried.clear();
    this.#current = this.#order(now_ms)[0] ?? this.#current;
  }

  /** The current rung brought an answer to connect. */
  worked(now_ms: number): void {
    this.#rounds = 0;
    this.#mute.delete(this.#current);
    this.prefer(this.#current, now_ms);
  }

  /** Nothing could be opened, or what opened was closed again: the next rung at once, or a pause and a new round. */
  failed(now_ms: number): 'at once' | 'pause' {
    this.#tried.add(this.#current);
    const loyal = this.#knownAt(now_ms) !== undefined && this.#rounds < LOYAL_ROUNDS;
    const next = loyal ? undefined : this.#order(now_ms).find((rung) => !this.#tried.has(rung));
    if (next !== undefined) {
      this.#current = next;
      return 'at once';
    }
    this.#rounds += 1;
    if (this.#rounds > LOYAL_ROUNDS) this.#forget();
    this.begin(now_ms);
    return 'pause';
  }

  /** The current rung opens, but nothing arrives through it. */
  stayedMute(now_ms: number): void {
    this.#mute.set(this.#current, now_ms + MEMORY_MS);
    if (this.#known?.rung === this.#current) this.#forget();
  }

  prefer(rung: Rung, now_ms: number): void {
    this.#known = { rung, until_ms: now_ms + MEMORY_MS };
    this.#current = rung;
    try {
      this.#shelf?.setItem(MEMORY_KEY, `${rung} ${this.#known.until_ms}`);
    } catch {
      // Storage is full or forbidden: remembered in this page alone.
    }
  }

  /** Another network: what was learnt is worth nothing. */
  forgetAll(now_ms: number): void {
    this.#mute.clear();
    this.#rounds = 0;
    this.#forget();
    this.begin(now_ms);
  }

  #order(now_ms: number): readonly Rung[] {
    const known = this.#knownAt(now_ms);
    const isMute = (rung: Rung): boolean => (this.#mute.get(rung) ?? 0) > now_ms;
    const place = (rung: Rung): number => (rung === known ? -1 : this.#rungs.indexOf(rung) + (isMute(rung) ? this.#rungs.length : 0));
    return [...this.#rungs].sort((a, b) => place(a) - place(b));
  }

  #knownAt(now_ms: number): Rung | undefined {
    return this.#known !== undefined && this.#known.until_ms > now_ms ? this.#known.rung : undefined;
  }

  #forget(): void {
    this.#known = undefined;
    try {
      this.#shelf?.removeItem(MEMORY_KEY);
    } catch {
      // As above.
    }
  }

  #remembered(now_ms: number): Memory | undefined {
    try {
      const [name, until] = (this.#shelf?.getItem(MEMORY_KEY) ?? '').split(' ');
      const rung = allRungs.find((one) => one === name);
      const until_ms = Number(until);
      // A clock that was set back must not make a memory eternal.
      const sane = until_ms > now_ms && until_ms <= now_ms + MEMORY_MS;
      return rung !== undefined && this.#rungs.includes(rung) && sane ? { rung, until_ms } : undefined;
    } catch {
      return undefined;
    }
  }
}
