/**
 * The stream rule: one case per sentence of PROTOCOL.md section 4, then a thousand bad networks.
 */
import { describe, expect, it } from 'vitest';
import { needsSnapshot, startStream, stepStream, type StreamText } from './generation.js';
import { randomFrom } from './testing/random.js';
import type { GenerationStatus, StreamFrame } from './wire.js';

const delta = (attempt: number, at: number, text: string): StreamFrame => ({ type: 'delta', generation: 'g', attempt, at, text });
const snapshot = (attempt: number, text: string, status: GenerationStatus = 'running'): StreamFrame => ({ type: 'snapshot', generation: 'g', attempt, at: 0, text, status });
const after = (...frames: StreamFrame[]): StreamText => frames.reduce(stepStream, startStream('g'));

describe('a generation stream', () => {
  it('appends what goes on exactly where it stands', () => {
    expect(after(delta(1, 0, 'Once '), delta(1, 5, 'upon'))).toMatchObject({ text: 'Once upon', attempt: 1, status: 'running' });
  });
  it('ignores what it has already', () => {
    const state = after(delta(1, 0, 'Once '), delta(1, 5, 'upon'));
    expect(stepStream(state, delta(1, 0, 'Once '))).toBe(state);
  });
  it('sees a gap, shows nothing from beyond it, and asks for a snapshot', () => {
    const state = after(delta(1, 0, 'Once '), delta(1, 9, ' a time'));
    expect(state.text).toBe('Once ');
    expect(needsSnapshot(state)).toBe(true);
    const healed = stepStream(state, snapshot(1, 'Once upon a time'));
    expect(healed.text).toBe('Once upon a time');
    expect(needsSnapshot(healed)).toBe(false);
  });
  it('still asks when a snapshot is older than the gap', () => {
    expect(needsSnapshot(after(delta(1, 0, 'ab'), delta(1, 9, 'j'), snapshot(1, 'abcdef')))).toBe(true);
  });
  it('heals by itself when the missing piece was only late', () => {
    const state = after(delta(1, 0, 'ab'), delta(1, 4, 'ef'), delta(1, 2, 'cd'), delta(1, 4, 'ef'));
    expect(state.text).toBe('abcdef');
    expect(needsSnapshot(state)).toBe(false);
  });
  it('drops everything for a newer attempt and ignores an older one', () => {
    const state = after(delta(1, 0, 'old words'), delta(2, 0, 'new'));
    expect(state).toMatchObject({ text: 'new', attempt: 2 });
    expect(stepStream(state, delta(1, 9, ' more'))).toBe(state);
    expect(stepStream(state, snapshot(1, 'old words and more'))).toBe(state);
  });
  it('notices that it missed the beginning of a newer attempt', () => {
    const state = after(delta(1, 0, 'old'), delta(2, 7, 'late'));
    expect(state.text).toBe('');
    expect(needsSnapshot(state)).toBe(true);
  });
  it('starts over at a reset, once', () => {
    const state = after(delta(1, 0, 'old'), { type: 'reset', generation: 'g', attempt: 2 }, delta(2, 0, 'x'));
    expect(state.text).toBe('x');
    expect(stepStream(state, { type: 'reset', generation: 'g', attempt: 2 })).toBe(state);
  });
  it('takes a snapshot that is at least as long, and no shorter one of the same attempt', () => {
    const state = after(snapshot(1, 'abc'), delta(1, 3, 'def'));
    expect(stepStream(state, snapshot(1, 'abc')).text).toBe('abcdef');
    expect(stepStream(state, snapshot(1, 'abcdefgh')).text).toBe('abcdefgh');
    expect(stepStream(state, snapshot(2, '')).text).toBe('');
  });
  it('stays ended, whatever comes late', () => {
    const state = after(delta(1, 0, 'abc'), { type: 'end', generation: 'g', attempt: 1, status: 'cancelled' });
    expect(stepStream(state, snapshot(1, 'abcd', 'running')).status).toBe('cancelled');
  });
  it('asks for what is missing when the end names more than there is, once', () => {
    const end: StreamFrame = { type: 'end', generation: 'g', attempt: 1, at: 6, status: 'done' };
    expect(needsSnapshot(after(delta(1, 0, 'abcdef'), end))).toBe(false);
    const cut = after(delta(1, 0, 'abc'), end);
    expect(cut).toMatchObject({ text: 'abc', status: 'done', known: 6 });
    expect(needsSnapshot(cut)).toBe(true);
    // A snapshot from before the end may still grow; the one of the end is all that comes here.
    expect(needsSnapshot(stepStream(cut, snapshot(1, 'abcd')))).toBe(true);
    expect(stepStream(cut, snapshot(1, 'abcdef', 'done'))).toMatchObject({ text: 'abcdef', known: 6 });
    expect(needsSnapshot(stepStream(cut, snapshot(1, 'abcd', 'done')))).toBe(false);
    expect(needsSnapshot(after(delta(1, 0, 'abc'), { type: 'end', generation: 'g', attempt: 1, status: 'done' }))).toBe(false);
    expect(needsSnapshot(after(delta(1, 0, 'abc'), { ...end, attempt: 2 }))).toBe(true);
  });
  it('counts UTF-16 code units, as JavaScript does', () => {
    expect(after(delta(1, 0, '🪶 a'), delta(1, 4, 'b')).text).toBe('🪶 ab');
  });
  it('has nothing to do with other generations', () => {
    const state = startStream('g');
    expect(stepStream(state, { ...delta(1, 0, 'x'), generation: 'other' })).toBe(state);
  });
});

describe('on a network that loses, doubles and reorders', () => {
  /** Two or three attempts, each a text cut into deltas, with resets between and snapshots from any moment. */
  function aRun(random: () => number): { frames: StreamFrame[]; texts: Map<number, string>; last: number } {
    const frames: StreamFrame[] = [];
    const texts = new Map<number, string>();
    const last = 1 + Math.floor(random() * 3);
    for (let attempt = 1; attempt <= last; attempt += 1) {
      if (attempt > 1) frames.push({ type: 'reset', generation: 'g', attempt });
      let text = '';
      const pieces = Math.floor(random() * 30);
      for (let piece = 0; piece < pieces; piece += 1) {
        const words = Array.from({ length: 1 + Math.floor(random() * 6) }, () => String.fromCharCode(97 + Math.floor(random() * 26))).join('') + (random() < 0.1 ? '🜁' : ' ');
        frames.push(delta(attempt, text.length, words));
        text += words;
        if (random() < 0.1) frames.push(snapshot(attempt, text));
      }
      texts.set(attempt, text);
    }
    return { frames, texts, last };
  }

  function damaged(frames: StreamFrame[], random: () => number): StreamFrame[] {
    const kept = frames.flatMap((frame) => (random() < 0.15 ? [] : random() < 0.15 ? [frame, frame] : [frame]));
    for (let index = kept.length - 1; index > 0; index -= 1) {
      const other = Math.max(0, index - Math.floor(random() * 8));
      const [a, b] = [kept[index], kept[other]];
      if (random() < 0.3 && a !== undefined && b !== undefined) [kept[index], kept[other]] = [b, a];
    }
    return kept;
  }

  it('never shows a wrong text, knows when something is missing, and is whole after a snapshot', { timeout: 60_000 }, () => {
    for (let seed = 1; seed <= 1000; seed += 1) {
      const random = randomFrom(seed);
      const { frames, texts, last } = aRun(random);
      let state = startStream('g');
      for (const frame of damaged(frames, random)) {
        const before = state;
        state = stepStream(state, frame);
        const truth = texts.get(state.attempt) ?? '';
        expect(truth.startsWith(state.text), `seed ${seed}: "${state.text}" is no beginning of attempt ${state.attempt}`).toBe(true);
        expect(state.attempt, `seed ${seed}`).toBeGreaterThanOrEqual(before.attempt);
        if (state.attempt === before.attempt) expect(state.text.length, `seed ${seed}: text shrank`).toBeGreaterThanOrEqual(before.text.length);
        if (frame.type === 'delta' && frame.attempt === state.attempt && state.text.length < frame.at + frame.text.length) {
          expect(needsSnapshot(state), `seed ${seed}: a gap went unnoticed`).toBe(true);
        }
        expect(stepStream(state, frame), `seed ${seed}: the same frame twice changed something`).toEqual(state);
      }
      const whole = stepStream(state, snapshot(last, texts.get(last) ?? ''));
      expect(whole.text, `seed ${seed}`).toBe(texts.get(last));
      expect(needsSnapshot(whole), `seed ${seed}`).toBe(false);
    }
  });
});
