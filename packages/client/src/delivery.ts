/**
 * Sends one call again, with the same key, until it is answered or definitely refused.
 * In: the call, a clock, and a promise of better times (the connection is back). Out: its result, the
 * refusal, or "gave up" after a bounded time. Called by live-story for everything that changes a story;
 * the key makes the repetition harmless (PROTOCOL.md, section 3).
 */
import { fromSocket, noAnswer, TalewireError } from './errors.js';

export interface Patience {
  /** Milliseconds; injected so that tests own the time. */
  now: () => number;
  /** Resolves after the pause, or earlier when trying again makes sense. */
  pause: (ms: number) => Promise<void>;
  giveUpAfter_ms: number;
}

export const FIRST_PAUSE_MS = 500;
export const LONGEST_PAUSE_MS = 8000;

export async function deliver<T>(call: () => Promise<T>, patience: Patience): Promise<T> {
  const start = patience.now();
  for (let pause_ms = FIRST_PAUSE_MS; ; pause_ms = Math.min(pause_ms * 2, LONGEST_PAUSE_MS)) {
    try {
      return await call();
    } catch (thrown) {
      const error = thrown instanceof TalewireError ? thrown : fromSocket(thrown);
      if (!error.retry) throw error;
      const wait_ms = Math.max(pause_ms, error.retryAfter_ms ?? 0);
      if (patience.now() + wait_ms - start > patience.giveUpAfter_ms) {
        throw noAnswer('The server did not answer in time. It may or may not have happened; sending again is safe.');
      }
      await patience.pause(wait_ms);
    }
  }
}

/** A key for one change. `randomUUID` exists on secure origins only; a story on a LAN address has none. */
export function newKey(): string {
  if (typeof crypto.randomUUID === 'function') return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
