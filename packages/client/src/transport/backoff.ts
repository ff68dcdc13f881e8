/**
 * How long to wait before the next attempt: full jitter, or what the server said if that is longer.
 * In: failures, waits that the server told, the clock, a source of randomness. Out: milliseconds, and how
 * many attempts have failed in a row. No timers. Called by negotiation.
 */

export interface BackoffSettings {
  /** Ceiling of the first wait in milliseconds; it doubles with each failure. */
  readonly base_ms: number;
  /** No own wait is longer. */
  readonly cap_ms: number;
  /** No wait told by a server is believed beyond this: a wrong header must not strand a page. */
  readonly toldCap_ms: number;
}

export const backoffDefaults: BackoffSettings = { base_ms: 1000, cap_ms: 30_000, toldCap_ms: 300_000 };

export class Backoff {
  readonly #settings: BackoffSettings;
  readonly #random: () => number;
  #failed = 0;
  #notBefore_ms = 0;

  constructor(random: () => number, settings: BackoffSettings = backoffDefaults) {
    this.#random = random;
    this.#settings = settings;
  }

  /** Waits in a row that led to nothing. */
  get failed(): number {
    return this.#failed;
  }

  /** The server said when to come back. The longest word counts. */
  told(wait_ms: number, now_ms: number): void {
    if (!Number.isFinite(wait_ms) || wait_ms <= 0) return;
    this.#notBefore_ms = Math.max(this.#notBefore_ms, now_ms + Math.min(wait_ms, this.#settings.toldCap_ms));
  }

  /** Whether a server's word is still in force. */
  isTold(now_ms: number): boolean {
    return this.#notBefore_ms > now_ms;
  }

  /** The wait before the next attempt. */
  next(now_ms: number): number {
    const ceiling_ms = Math.min(this.#settings.cap_ms, this.#settings.base_ms * 2 ** Math.min(this.#failed, 30));
    this.#failed += 1;
    const own_ms = Math.floor(this.#random() * ceiling_ms);
    const told_ms = this.#notBefore_ms - now_ms;
    // Many were told the same number: a little of one's own on top keeps them apart.
    return told_ms > 0 ? told_ms + Math.floor(this.#random() * this.#settings.base_ms) : own_ms;
  }

  reset(): void {
    this.#failed = 0;
    this.#notBefore_ms = 0;
  }
}
