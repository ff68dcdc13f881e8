/**
 * Which of several tabs holds the connection: the one that has a Web Lock.
 * In: a lock manager, and somebody's word that the leader is silent. Out: `onOffice` and `onLost`.
 * Called by tab-line. A tab that closes gives its lock back by itself; a frozen one has it stolen.
 */

/** What is used of navigator.locks. */
export interface Locks {
  request: (name: string, options: { steal?: boolean; signal?: AbortSignal }, held: () => Promise<void>) => Promise<unknown>;
}

export class Election {
  readonly #locks: Locks;
  readonly #name: string;
  readonly #onOffice: () => void;
  readonly #onLost: () => void;
  #resign: (() => void) | undefined;
  #waiting: AbortController | undefined;
  #closed = true;

  constructor(locks: Locks, name: string, events: { onOffice: () => void; onLost: () => void }) {
    this.#locks = locks;
    this.#name = name;
    this.#onOffice = events.onOffice;
    this.#onLost = events.onLost;
  }

  get inOffice(): boolean {
    return this.#resign !== undefined;
  }

  /** Stands in line for the office. */
  stand(): void {
    this.#closed = false;
    if (this.#waiting !== undefined || this.inOffice) return;
    this.#waiting = new AbortController();
    void this.#request({ signal: this.#waiting.signal });
  }

  /** Takes the office from a leader that does not answer. */
  take(): void {
    if (this.#closed || this.inOffice) return;
    this.#waiting?.abort();
    this.#waiting = undefined;
    void this.#request({ steal: true });
  }

  leave(): void {
    this.#closed = true;
    this.#waiting?.abort();
    this.#waiting = undefined;
    this.#end();
  }

  async #request(options: { steal?: boolean; signal?: AbortSignal }): Promise<void> {
    let mine: (() => void) | undefined;
    try {
      await this.#locks.request(this.#name, options, () => {
        const held = this.#hold();
        mine = this.#resign;
        return held;
      });
    } catch {
      // Aborted by ourselves while it waited; or stolen while in office, which is then waited for again.
      if (mine === undefined || mine !== this.#resign) return;
      this.#end();
      if (!this.#closed) this.stand();
    }
  }

  #hold(): Promise<void> {
    this.#waiting = undefined;
    if (this.#closed || this.inOffice) return Promise.resolve();
    return new Promise((resolve) => {
      this.#resign = resolve;
      this.#onOffice();
    });
  }

  #end(): void {
    const resign = this.#resign;
    this.#resign = undefined;
    if (resign === undefined) return;
    resign();
    this.#onLost();
  }
}
