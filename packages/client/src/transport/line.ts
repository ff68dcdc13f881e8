/**
 * What a Connection needs of whatever carries it: a negotiated transport of its own, or another tab's.
 * In: start, stop, "hurry". Out: a Centrifuge, and word of how things stand. Implemented by negotiation and tab-line.
 */
import type { Centrifuge } from 'centrifuge';
import type { Rung } from './rungs.js';

export interface Line {
  /** The transport of the present or next attempt. */
  readonly rung: Rung;
  /** Called once. */
  client: () => Centrifuge;
  start: () => void;
  stop: () => void;
  /** Somebody wants it now. True if a pause was cut short, so that nothing more is to be done. */
  hurry: () => boolean;
  /** The next connect is a new beginning, not one more try. */
  fresh: () => void;
}

export interface LineEvents {
  /** Every transport has failed: there is a pause before the next round. */
  readonly onPause: () => void;
  readonly onGivenUp: () => void;
  /** A better transport answered a trial: connect again, and it will be taken. */
  readonly onBetter: () => void;
}
