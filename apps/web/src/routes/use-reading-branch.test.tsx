/**
 * Which branch is on the page when the live one moves: taken along when words are only added, staying
 * when something would vanish from under one's eyes.
 */
import { step, type LiveStory, type StoryState } from '@talewire/client';
import { act, cleanup, renderHook } from '@testing-library/react';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { aBranch, aChoice, anOpened, aTurn } from '../../../../packages/client/src/testing/objects';
import { useReadingBranch } from './use-reading-branch';

const readBranch = vi.fn(() => Promise.resolve());
const live = { id: 's', readBranch } as unknown as LiveStory;

function opened(turns: number): StoryState {
  const state = step(undefined, { type: 'opened', branch: 'main', fresh: true, result: anOpened(turns, { choices: [aChoice('c', 'main-2', 1)] }) });
  if (state === undefined) throw new Error('no state');
  return state;
}
/** Somebody picks the choice after the second turn. */
function picked(state: StoryState): StoryState {
  const branch = aBranch('left', { parent: 'main', from: 'main-2' });
  return step(state, { type: 'entry', offset: state.position.offset + 1, entry: { type: 'choice.picked', choice: aChoice('c', 'main-2', 1), branch, turn: aTurn('left', 3) } }) ?? state;
}

beforeEach(() => window.history.replaceState(null, '', '/s/s'));
afterEach(() => {
  cleanup();
  readBranch.mockClear();
});

describe('the branch one reads', () => {
  it('follows the live one when its page only grows', () => {
    const state = opened(2);
    const { result, rerender } = renderHook((now: StoryState) => useReadingBranch(live, now, undefined), { initialProps: state });
    expect(result.current.branch).toBe('main');
    rerender(picked(state));
    expect(result.current).toMatchObject({ branch: 'left', ready: true });
    expect(window.location.search).toBe('');
  });
  it('stays when turns would vanish, never shows the other one between, and says so in the address', () => {
    const state = opened(3);
    const seen: (string | undefined)[] = [];
    const { result, rerender } = renderHook((now: StoryState) => {
      const reading = useReadingBranch(live, now, undefined);
      seen.push(reading.branch);
      return reading;
    }, { initialProps: state });
    rerender(picked(state));
    expect(result.current.branch).toBe('main');
    expect(seen.at(-1)).toBe('main');
    expect(window.location.search).toBe('?branch=main');
    act(() => result.current.read('left'));
    expect(result.current.branch).toBe('left');
    expect(window.location.search).toBe('');
  });
  it('asks for a branch that is not here yet, and is not ready until then', () => {
    const branches = [aBranch('main'), aBranch('right', { parent: 'main', from: 'main-1' })];
    const state = step(undefined, { type: 'opened', branch: 'main', fresh: true, result: anOpened(2, { branches }) });
    const { result } = renderHook(() => useReadingBranch(live, state, 'right'));
    expect(result.current).toMatchObject({ branch: 'right', ready: false });
    expect(readBranch).toHaveBeenCalledWith('right');
  });
  it('falls back to the live one for an address that names no branch', () => {
    const { result } = renderHook(() => useReadingBranch(live, opened(1), 'gone'));
    expect(result.current.branch).toBe('main');
  });
});
