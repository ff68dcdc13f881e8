/**
 * The waits between attempts: their bounds over many seeds, and the server's word over them.
 */
import { describe, expect, it } from 'vitest';
import { randomFrom } from '../testing/random.js';
import { Backoff, backoffDefaults } from './backoff.js';

const { base_ms, cap_ms, toldCap_ms } = backoffDefaults;

describe('the wait before an attempt', () => {
  it('is anything from nothing to a ceiling that doubles up to the cap', () => {
    const most: number[] = [];
    for (let seed = 1; seed <= 400; seed += 1) {
      const backoff = new Backoff(randomFrom(seed));
      for (let attempt = 0; attempt < 12; attempt += 1) {
        const wait_ms = backoff.next(0);
        expect(wait_ms, `seed ${seed}, attempt ${attempt}`).toBeGreaterThanOrEqual(0);
        expect(wait_ms, `seed ${seed}, attempt ${attempt}`).toBeLessThan(Math.min(cap_ms, base_ms * 2 ** attempt));
        most[attempt] = Math.max(most[attempt] ?? 0, wait_ms);
      }
    }
    // Full jitter fills its range: of 400 the longest is near the ceiling, from the first attempt to the capped ones.
    expect(most[0]).toBeGreaterThan(base_ms * 0.9);
    expect(most[3]).toBeGreaterThan(base_ms * 8 * 0.9);
    expect(most[11]).toBeGreaterThan(cap_ms * 0.9);
  });

  it('begins anew after a success', () => {
    const backoff = new Backoff(() => 0.999);
    for (let attempt = 0; attempt < 6; attempt += 1) backoff.next(0);
    expect(backoff.next(0)).toBeGreaterThan(base_ms);
    backoff.reset();
    expect(backoff.failed).toBe(0);
    expect(backoff.next(0)).toBeLessThan(base_ms);
  });

  it('is never shorter than the server said, and little longer', () => {
    const backoff = new Backoff(() => 0.5);
    backoff.told(20_000, 1000);
    backoff.told(5000, 1000);
    expect(backoff.next(6000)).toBe(15_000 + base_ms / 2);
    expect(backoff.isTold(20_999)).toBe(true);
    expect(backoff.isTold(21_000)).toBe(false);
  });

  it.each([
    ['nothing', Number.NaN, 0],
    ['a negative number', -5, 0],
    ['for ever', Number.POSITIVE_INFINITY, 0],
    ['a day', 86_400_000, toldCap_ms],
  ])('takes a word that says %s for what it is', (_, told_ms, expected) => {
    const backoff = new Backoff(() => 0);
    backoff.told(told_ms, 0);
    expect(backoff.next(0)).toBe(expected);
  });
});
