/**
 * Chance that can be repeated: a name goes in, the seed is printed, numbers come out. `E2E_SEED` repeats a run.
 * Called by tests that kill servers at random moments.
 */
import { randomInt } from 'node:crypto';

export interface Seeded {
  /** A whole number from 0 up to but not including `bound`. */
  below: (bound: number) => number;
}

export function seeded(name: string): Seeded {
  const seed = Number(process.env['E2E_SEED'] ?? randomInt(1, 2 ** 31));
  console.info(`${name}: E2E_SEED=${seed}`);
  let state = seed >>> 0;
  // mulberry32: small, and good enough to choose moments.
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { below: (bound) => Math.floor(next() * bound) };
}
