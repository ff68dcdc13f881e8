/**
 * The newest publications of a channel as a watched list, for a view that shows them.
 * In: a Channel. Out: the last few events, in order, as long as somebody watches. Called by useChannel.
 */
import { Cell, type Readable } from './cell.js';
import type { Channel } from './channel.js';
import type { ChannelEvent } from './channel-line.js';

/** How many are kept where nobody says; older ones fall out. */
export const KEEP_DEFAULT = 100;

export class ChannelLog<T = unknown> implements Readable<readonly ChannelEvent<T>[]> {
  readonly #cell: Cell<readonly ChannelEvent<T>[]>;

  constructor(channel: Channel, keep = KEEP_DEFAULT) {
    this.#cell = new Cell<readonly ChannelEvent<T>[]>([], () => {
      const stops = [
        channel.onAny((event) => this.#cell.set([...this.#cell.snapshot(), event as ChannelEvent<T>].slice(-keep))),
        // What is shown is never a list with a hole in it.
        channel.onGap(() => this.#cell.set([])),
      ];
      return () => {
        for (const stop of stops) stop();
      };
    });
  }

  readonly snapshot = (): readonly ChannelEvent<T>[] => this.#cell.snapshot();
  readonly subscribe = (listener: () => void): (() => void) => this.#cell.subscribe(listener);
}
