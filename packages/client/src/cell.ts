/**
 * A value that can be watched: the one way in which state leaves this package.
 * In: `set` from whoever owns the state. Out: `snapshot` and `subscribe`, in the shape that React's
 * useSyncExternalStore asks for. Called by login, connection and live-story; read by any view.
 */

/** What a reader of a cell may do. */
export interface Readable<T> {
  snapshot: () => T;
  subscribe: (listener: () => void) => () => void;
}

/** A watched value. `onWatched` runs when the first listener comes, its result when the last one goes. */
export class Cell<T> implements Readable<T> {
  #value: T;
  readonly #listeners = new Set<() => void>();
  readonly #onWatched: (() => () => void) | undefined;
  #release: (() => void) | undefined;

  constructor(value: T, onWatched?: () => () => void) {
    this.#value = value;
    this.#onWatched = onWatched;
  }

  /** An arrow, since React calls it without its object. */
  readonly snapshot = (): T => this.#value;

  readonly subscribe = (listener: () => void): (() => void) => {
    // A wrapper of its own, so that one function subscribed twice is also told, and removed, twice.
    const entry = (): void => listener();
    this.#listeners.add(entry);
    if (this.#listeners.size === 1) this.#release = this.#onWatched?.();
    return () => {
      if (!this.#listeners.delete(entry) || this.#listeners.size > 0) return;
      this.#release?.();
      this.#release = undefined;
    };
  };

  set(value: T): void {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    // A copy: a listener may unsubscribe itself, or another, while it is told.
    for (const listener of [...this.#listeners]) listener();
  }
}
