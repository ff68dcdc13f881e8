/**
 * Sending again: until answered, not after a refusal, not for ever. The clock belongs to the test.
 */
import { describe, expect, it } from 'vitest';
import { deliver, newKey, type Patience } from './delivery.js';
import { codes, fromHttp, fromSocket, noAnswer, TalewireError } from './errors.js';

function patience(giveUpAfter_ms: number): Patience & { pauses: number[] } {
  let now = 0;
  const pauses: number[] = [];
  return {
    pauses,
    giveUpAfter_ms,
    now: () => now,
    pause: (ms) => {
      now += ms;
      pauses.push(ms);
      return Promise.resolve();
    },
  };
}

describe('delivery', () => {
  it('sends again until there is an answer, with growing pauses', async () => {
    const waits = patience(120_000);
    let calls = 0;
    const answer = await deliver(() => ((calls += 1) < 4 ? Promise.reject(noAnswer()) : Promise.resolve('taken')), waits);
    expect(answer).toBe('taken');
    expect(waits.pauses).toEqual([500, 1000, 2000]);
  });
  it('stops at a refusal and passes it on', async () => {
    let calls = 0;
    const refused = new TalewireError(codes.badText, 'bad text', 'too long');
    await expect(deliver(() => { calls += 1; return Promise.reject(refused); }, patience(120_000))).rejects.toBe(refused);
    expect(calls).toBe(1);
  });
  it('waits as long as the server asks for', async () => {
    const waits = patience(120_000);
    const busy = fromHttp(429, { error: { code: 111, name: 'too many requests', message: 'slow down' } }, '7');
    let calls = 0;
    await deliver(() => ((calls += 1) === 1 ? Promise.reject(busy) : Promise.resolve(1)), waits);
    expect(waits.pauses).toEqual([7000]);
  });
  it('gives up after its time, and says that sending again is possible', async () => {
    const waits = patience(10_000);
    const error: unknown = await deliver(() => Promise.reject(noAnswer()), waits).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: codes.noAnswer, retry: true });
    expect(waits.now()).toBeLessThanOrEqual(10_000);
  });
  it('makes keys that fit the wire and differ', () => {
    const keys = new Set(Array.from({ length: 100 }, newKey));
    expect(keys.size).toBe(100);
    for (const key of keys) expect(key.length).toBeLessThanOrEqual(64);
  });
});

describe('errors', () => {
  it('of the socket below 100 mean that nobody knows what became of the call', () => {
    expect(fromSocket({ code: 1, message: 'timeout' })).toMatchObject({ code: codes.noAnswer, retry: true });
    expect(fromSocket(new Error('anything'))).toMatchObject({ code: codes.noAnswer });
  });
  it('of the server are final unless they are temporary', () => {
    expect(fromSocket({ code: 103, message: 'permission denied' })).toMatchObject({ code: 103, name: 'permission denied', retry: false });
    expect(fromSocket({ code: 503, message: 'temporarily unavailable' }).retry).toBe(true);
    expect(fromSocket({ code: 700, message: 'odd', temporary: true }).retry).toBe(true);
  });
  it('over HTTP keep code, name and message, and survive a body that is none', () => {
    expect(fromHttp(409, { error: { code: 409, name: 'generation_open', message: 'already writing' } }, null)).toMatchObject({ code: 409, name: 'generation_open', message: 'already writing', retry: false });
    expect(fromHttp(429, { error: { code: 106, name: 'limit exceeded', message: 'too many branches' } }, null).retry).toBe(false);
    expect(fromHttp(502, '<html>', null)).toMatchObject({ code: 502, retry: true });
    expect(fromHttp(401, undefined, null).code).toBe(codes.unauthorized);
  });
});
