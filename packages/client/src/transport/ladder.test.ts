/**
 * Which transport comes next: each row is a story of attempts, told as data.
 */
import { describe, expect, it } from 'vitest';
import type { Shelf } from '../login.js';
import { Ladder, MEMORY_MS } from './ladder.js';
import { allRungs, endpointsOf } from './rungs.js';

function aShelf(first?: string): Shelf & { value: string | null } {
  return {
    value: first ?? null,
    getItem() { return this.value; },
    setItem(_, value) { this.value = value; },
    removeItem() { this.value = null; },
  };
}

/** Fails until the ladder pauses; the rungs that were tried. */
function round(ladder: Ladder, now_ms: number): string[] {
  const tried: string[] = [ladder.current];
  while (ladder.failed(now_ms) === 'at once') tried.push(ladder.current);
  return tried;
}

describe('the ladder', () => {
  it('goes down from the best at once, pauses when all have failed, and begins at the best again', () => {
    const ladder = new Ladder(allRungs, 0);
    expect(round(ladder, 0)).toEqual(['websocket', 'http_stream', 'sse', 'poll']);
    expect(ladder.current).toBe('websocket');
    expect(round(ladder, 0)).toHaveLength(4);
  });

  it('tries what worked twice alone, then everything', () => {
    const ladder = new Ladder(allRungs, 0);
    ladder.failed(0);
    ladder.worked(0);
    ladder.begin(10);
    expect(round(ladder, 10)).toEqual(['http_stream']);
    expect(round(ladder, 10)).toEqual(['http_stream']);
    expect(round(ladder, 10)).toEqual(['http_stream', 'websocket', 'sse', 'poll']);
    // Whatever worked once is no better than anything else by now.
    expect(round(ladder, 10)).toEqual(['websocket', 'http_stream', 'sse', 'poll']);
  });

  it('tries last what stayed mute, and forgets that it worked', () => {
    const ladder = new Ladder(allRungs, 0);
    ladder.worked(0);
    ladder.stayedMute(10);
    ladder.begin(10);
    expect(round(ladder, 10)).toEqual(['http_stream', 'sse', 'poll', 'websocket']);
  });

  it('forgets after some minutes what worked and what stayed mute', () => {
    const ladder = new Ladder(allRungs, 0);
    ladder.stayedMute(0);
    ladder.failed(0);
    ladder.worked(0);
    ladder.begin(MEMORY_MS - 1);
    expect(ladder.current).toBe('http_stream');
    ladder.begin(MEMORY_MS);
    expect(ladder.current).toBe('websocket');
  });

  it('forgets at once on another network', () => {
    const shelf = aShelf();
    const ladder = new Ladder(allRungs, 0, shelf);
    ladder.failed(0);
    ladder.worked(0);
    ladder.forgetAll(1);
    expect(ladder.current).toBe('websocket');
    expect(shelf.value).toBeNull();
  });

  it('names what would be better than the present', () => {
    const ladder = new Ladder(allRungs, 0);
    expect(ladder.better).toEqual([]);
    ladder.failed(0);
    ladder.failed(0);
    expect(ladder.better).toEqual(['websocket', 'http_stream']);
    ladder.prefer('websocket', 0);
    expect(ladder.better).toEqual([]);
  });

  it('remembers over a reload', () => {
    const shelf = aShelf();
    const before = new Ladder(allRungs, 1000, shelf);
    before.failed(1000);
    before.worked(1000);
    expect(new Ladder(allRungs, 2000, shelf).current).toBe('http_stream');
    expect(new Ladder(allRungs, 1000 + MEMORY_MS, shelf).current).toBe('websocket');
  });

  it.each([
    ['an unknown transport', 'pigeon 100000'],
    ['no time', 'poll'],
    ['a time that lies too far ahead', `poll ${MEMORY_MS * 10}`],
    ['a time that is over', 'poll -1'],
    ['nothing', ''],
  ])('is not led astray by a memory of %s', (_, value) => {
    expect(new Ladder(allRungs, 0, aShelf(value)).current).toBe('websocket');
  });

  it('does not try what was not wanted', () => {
    const { rungs } = endpointsOf('https://host/', ['poll', 'websocket']);
    expect(round(new Ladder(rungs, 0, aShelf('sse 1000')), 0)).toEqual(['websocket', 'poll']);
  });
});

describe('the addresses', () => {
  it('of a server are one for each transport', () => {
    const { of, emulation } = endpointsOf('https://host/');
    expect(allRungs.map((rung) => of(rung).endpoint)).toEqual([
      'wss://host/connection/websocket',
      'https://host/connection/http_stream',
      'https://host/connection/sse',
      'https://host/poll',
    ]);
    expect(emulation).toBe('https://host/emulation');
  });

  it('of a WebSocket is that one alone', () => {
    const { rungs, of } = endpointsOf('ws://host:1/connection/websocket');
    expect(rungs).toEqual(['websocket']);
    expect(of('websocket').endpoint).toBe('ws://host:1/connection/websocket');
  });
});
