/**
 * The story reducer: what the log does to a page, that it may come twice, and what stands on a branch.
 */
import { describe, expect, it } from 'vitest';
import { choicesAfter, openGeneration, path, step, type StoryInput, type StoryState } from './story.js';
import { aBranch, aChoice, aGeneration, anOpened, aStory, aTurn, ben } from './testing/objects.js';
import { randomFrom } from './testing/random.js';
import type { LogEntry, StoryOpened } from './wire.js';

function opened(result: StoryOpened): StoryState {
  const state = step(undefined, { type: 'opened', branch: result.story.branch, result, fresh: true });
  if (state === undefined) throw new Error('story.open gave no state');
  return state;
}
function after(state: StoryState, ...inputs: StoryInput[]): StoryState {
  return inputs.reduce((now: StoryState, input) => step(now, input) ?? now, state);
}
const entry = (offset: number, what: LogEntry | undefined): StoryInput => ({ type: 'entry', offset, entry: what });
const ids = (state: StoryState, branch: string): string[] => path(state, branch).turns.map((turn) => turn.id);

describe('the log of a story', () => {
  it('has no effect before the story was opened', () => {
    expect(step(undefined, entry(1, { type: 'story.renamed', title: 'x' }))).toBeUndefined();
  });
  it('adds turns in order and moves the position', () => {
    const state = after(opened(anOpened(2)), entry(4, { type: 'turn.added', turn: aTurn('main', 3) }));
    expect(ids(state, 'main')).toEqual(['main-1', 'main-2', 'main-3']);
    expect(state.position).toEqual({ offset: 4, epoch: 'e1' });
    expect(state.story.turns).toBe(3);
  });
  it('takes each entry once, however often it comes', () => {
    const added = entry(4, { type: 'turn.added', turn: aTurn('main', 3) });
    const once = after(opened(anOpened(2)), added);
    expect(after(once, added)).toBe(once);
    expect(after(once, entry(2, { type: 'story.renamed', title: 'an old name' })).story.title).toBe('The lighthouse');
  });
  it('passes over a type that it does not know', () => {
    const state = after(opened(anOpened(1)), entry(3, undefined));
    expect(state.position.offset).toBe(3);
    expect(ids(state, 'main')).toEqual(['main-1']);
  });
  it('counts a new member once', () => {
    const joined = after(opened(anOpened(0)), entry(2, { type: 'member.joined', member: ben }), entry(3, { type: 'member.joined', member: { ...ben, role: 'reader' } }));
    expect(joined.story.members).toBe(2);
    expect(joined.members.get('ben')?.role).toBe('reader');
  });
  it('brings the end of a generation together with its turn and choices', () => {
    const running = after(opened(anOpened(1)), entry(3, { type: 'generation.requested', generation: aGeneration('g') }), entry(4, { type: 'generation.started', generation: aGeneration('g', { status: 'running', attempt: 1 }) }));
    expect(openGeneration(running, 'main')?.status).toBe('running');
    const choices = [aChoice('right', 'main-2', 2), aChoice('left', 'main-2', 1)];
    const ended = after(running, entry(5, { type: 'generation.ended', generation: aGeneration('g', { status: 'done', attempt: 1 }), turn: aTurn('main', 2), choices }));
    expect(openGeneration(ended, 'main')).toBeUndefined();
    expect(choicesAfter(ended, 'main-2').map((choice) => choice.id)).toEqual(['left', 'right']);
    expect(ids(ended, 'main')).toEqual(['main-1', 'main-2']);
  });
  it('never lets an ended generation run again, whatever arrives late', () => {
    const ended = after(opened(anOpened(0)), entry(2, { type: 'generation.ended', generation: aGeneration('g', { status: 'failed', attempt: 2 }) }));
    const late = after(ended, { type: 'answer', generation: aGeneration('g', { status: 'queued' }) }, entry(3, { type: 'generation.started', generation: aGeneration('g', { status: 'running', attempt: 3 }) }));
    expect(late.generations.get('g')?.status).toBe('failed');
  });
  it('does not step back to an older attempt', () => {
    const state = after(opened(anOpened(0)), entry(2, { type: 'generation.started', generation: aGeneration('g', { status: 'running', attempt: 2 }) }), { type: 'answer', generation: aGeneration('g', { status: 'queued', attempt: 0 }) });
    expect(state.generations.get('g')).toMatchObject({ status: 'running', attempt: 2 });
  });
});

describe('branches', () => {
  const picked: LogEntry = { type: 'choice.picked', choice: aChoice('c', 'main-2', 1), branch: aBranch('left', { parent: 'main', from: 'main-2', choice: 'c' }), turn: aTurn('left', 3, { kind: 'choice' }), generation: aGeneration('g2', { branch: 'left' }) };

  it('share the path of their parent up to where they left it', () => {
    const state = after(opened(anOpened(3, { choices: [aChoice('c', 'main-2', 1)] })), entry(5, picked), entry(6, { type: 'turn.added', turn: aTurn('left', 4) }));
    expect(ids(state, 'left')).toEqual(['main-1', 'main-2', 'left-3', 'left-4']);
    expect(ids(state, 'main')).toEqual(['main-1', 'main-2', 'main-3']);
    expect(state.story.branch).toBe('left');
    expect(state.choices.get('c')?.branch).toBe('left');
    expect(openGeneration(state, 'left')?.id).toBe('g2');
  });
  it('never show a hole: what is not here is asked for', () => {
    const state = opened(anOpened(9, {}, 3));
    expect(path(state, 'main')).toMatchObject({ more: true });
    expect(ids(state, 'main')).toEqual(['main-7', 'main-8', 'main-9']);
    const torn = after(state, { type: 'page', choices: [], turns: [aTurn('main', 2), aTurn('main', 3)] });
    expect(ids(torn, 'main')).toEqual(['main-7', 'main-8', 'main-9']);
    const whole = after(torn, { type: 'page', choices: [aChoice('old', 'main-4', 1)], turns: [4, 5, 6].map((number) => aTurn('main', number)) }, { type: 'page', choices: [], turns: [aTurn('main', 1)] });
    expect(path(whole, 'main').turns).toHaveLength(9);
    expect(path(whole, 'main').more).toBe(false);
    expect(choicesAfter(whole, 'main-4')).toHaveLength(1);
  });
  it('are not read into their parent when the place where they left it is not here', () => {
    const branches = [aBranch('main'), aBranch('left', { parent: 'main', from: 'main-2' })];
    const state = opened({ ...anOpened(9, { branches }, 3) });
    const told = after(state, { type: 'opened', branch: 'left', fresh: false, result: { ...anOpened(0), branches, turns: [aTurn('left', 3), aTurn('left', 4)], more: true } });
    expect(ids(told, 'left')).toEqual(['left-3', 'left-4']);
    expect(path(told, 'left').more).toBe(true);
  });
  it('opened later do not lose what the log brings for the others', () => {
    const branches = [aBranch('main'), aBranch('left', { parent: 'main', from: 'main-1' })];
    const state = opened(anOpened(2, { branches }));
    // story.open for another branch is already at 7, but entries 4 to 7 are still on their way.
    const ahead: StoryOpened = { ...anOpened(0, { branches }), story: aStory({ title: 'Renamed', turns: 4 }), turns: [aTurn('main', 1), aTurn('left', 2)], position: { offset: 7, epoch: 'e1' } };
    const both = after(state, { type: 'opened', branch: 'left', result: ahead, fresh: false }, entry(4, { type: 'turn.added', turn: aTurn('main', 3) }), entry(5, { type: 'story.renamed', title: 'In between' }));
    expect(ids(both, 'main')).toEqual(['main-1', 'main-2', 'main-3']);
    expect(both.story).toMatchObject({ title: 'Renamed', turns: 4 });
    expect(both.loaded.has('left')).toBe(true);
  });
});

describe('answers to one’s own calls', () => {
  it('show a turn at once when it follows what is here', () => {
    expect(ids(after(opened(anOpened(2)), { type: 'answer', turn: aTurn('main', 3) }), 'main')).toContain('main-3');
  });
  it('leave a turn to the log when others came between that are not here yet', () => {
    const state = after(opened(anOpened(2)), { type: 'answer', turn: aTurn('main', 4) });
    expect(ids(state, 'main')).toEqual(['main-1', 'main-2']);
    expect(ids(after(state, entry(4, { type: 'turn.added', turn: aTurn('main', 3) }), entry(5, { type: 'turn.added', turn: aTurn('main', 4) })), 'main')).toHaveLength(4);
  });
  it('of a pick open the branch without calling it live', () => {
    const state = after(opened(anOpened(2, { choices: [aChoice('c', 'main-2', 1)] })), { type: 'answer', picked: 'c', branch: aBranch('left', { parent: 'main', from: 'main-2' }), turn: aTurn('left', 3) });
    expect(ids(state, 'left')).toEqual(['main-1', 'main-2', 'left-3']);
    expect(state.choices.get('c')?.branch).toBe('left');
    expect(state.story.branch).toBe('main');
  });
});

describe('any log', () => {
  it('gives the same story whether its entries come once or many times', () => {
    for (let seed = 1; seed <= 200; seed += 1) {
      const random = randomFrom(seed);
      const log: LogEntry[] = [];
      let turns = 0;
      for (let index = 0; index < 40; index += 1) {
        const kind = random();
        if (kind < 0.5) log.push({ type: 'turn.added', turn: aTurn('main', (turns += 1)) });
        else if (kind < 0.7) log.push({ type: 'generation.requested', generation: aGeneration(`g${index}`) });
        else if (kind < 0.85) log.push({ type: 'generation.ended', generation: aGeneration(`g${Math.floor(random() * 40)}`, { status: 'done', attempt: 1 }) });
        else log.push({ type: 'story.renamed', title: `title ${index}` });
      }
      const inputs = log.map((what, index) => entry(index + 2, what));
      const clean = after(opened(anOpened(0)), ...inputs);
      // Each entry again and again, and older ones in between: the order of first arrival is the log's.
      const noisy = inputs.flatMap((input, index) => [input, ...inputs.slice(Math.max(0, index - Math.floor(random() * 5)), index + 1)]);
      expect(after(opened(anOpened(0)), ...noisy), `seed ${seed}`).toEqual(clean);
    }
  });
});
