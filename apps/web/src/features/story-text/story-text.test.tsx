/**
 * The story in a simulated page: who wrote what, the ways on, what failed; and that text stays text.
 */
import { step, type LiveStory, type PendingTurn, type StoryState } from '@talewire/client';
import { path } from '@talewire/client';
import { cleanup, fireEvent, render, screen } from '@testing-library/react';
import { afterEach, beforeEach, describe, expect, it, vi, type Mock } from 'vitest';
import { aBranch, aChoice, aGeneration, anOpened, aTurn, ben } from '../../../../../packages/client/src/testing/objects';
import { StoryText, type StoryTextProps } from './story-text';

const LABEL = 'demo storyteller, no AI model';
const narrator = { kind: 'agent', id: 'narrator', name: 'Narrator' } as const;

function opened(more: Parameters<typeof anOpened>[1] = {}): StoryState {
  const state = step(undefined, { type: 'opened', branch: 'main', fresh: true, result: anOpened(2, more) });
  if (state === undefined) throw new Error('no state');
  return state;
}

function show(state: StoryState, more: Partial<StoryTextProps> = {}): StoryTextProps & { stop: Mock } {
  const streams = { snapshot: () => ({ generation: 'g', attempt: 1, text: 'The keeper', status: 'running' as const, known: 10 }), subscribe: () => () => undefined };
  const stream = streams.snapshot();
  const stop = vi.fn(() => Promise.resolve());
  const live = { generation: () => ({ ...streams, snapshot: () => stream }), stop } as unknown as LiveStory;
  const props: StoryTextProps = {
    live, state, path: path(state, 'main'), branch: 'main', pending: [], narratorLabel: LABEL, loadingOlder: false, offline: false, sent: 0,
    onOlder: vi.fn(), onPick: vi.fn(() => Promise.resolve()), onRead: vi.fn(), onAsk: vi.fn(), onTakeBack: vi.fn(), onRename: undefined, ...more,
  };
  render(<StoryText {...props} />);
  return { ...props, stop };
}

beforeEach(() => {
  // happy-dom lays nothing out.
  vi.stubGlobal('ResizeObserver', class { observe(): void { /* nothing grows here */ } disconnect(): void { /* nor here */ } });
});
afterEach(cleanup);

describe('the text of a story', () => {
  it('tells agents from people in words, with the model’s label', () => {
    const turns = [aTurn('main', 1), aTurn('main', 2, { author: narrator, generation: { id: 'g', attempt: 1, status: 'cancelled', label: LABEL } })];
    show(opened({ turns }));
    const [person, agent] = screen.getAllByTestId('turn');
    expect(person?.dataset).toMatchObject({ turnId: 'main-1', authorKind: 'person' });
    expect(agent?.dataset).toMatchObject({ turnId: 'main-2', authorKind: 'agent' });
    expect(agent?.textContent).toContain('Narrator · agent');
    expect(screen.getByTestId('agent-label').textContent).toBe(LABEL);
    expect(screen.getByTestId('turn-stopped')).toBeDefined();
  });
  it('names an author once for turns that flow on', () => {
    show(opened({ turns: [aTurn('main', 1), aTurn('main', 2), aTurn('main', 3, { author: { kind: 'person', id: 'ben', name: 'Ben' } })] }));
    expect(screen.getAllByText('Ana')).toHaveLength(1);
    expect(screen.getAllByText('Ben')).toHaveLength(1);
  });
  it('shows what somebody wrote as text, never as markup', () => {
    show(opened({ turns: [aTurn('main', 1, { text: '<img src=x onerror=alert(1)> *so*' })] }));
    const turn = screen.getByTestId('turn');
    expect(turn.querySelector('img')).toBeNull();
    expect(turn.textContent).toContain('<img src=x onerror=alert(1)>');
    expect(turn.querySelector('em')?.textContent).toBe('so');
  });
  it('streams what is being written, and lets one stop it', () => {
    const props = show(opened({ generations: [aGeneration('g', { status: 'running', attempt: 1 })] }));
    const stream = screen.getByTestId('streaming');
    expect(stream.dataset['generation']).toBe('g');
    expect(stream.textContent).toContain('The keeper');
    fireEvent.click(screen.getByTestId('stop'));
    expect(props.stop).toHaveBeenCalledWith('g');
  });
  it('says offline that a turn waits, and why nothing can be stopped', () => {
    const waiting: PendingTurn = { key: 'k1', branch: 'main', text: 'on its way', status: 'sending' };
    show(opened({ generations: [aGeneration('g', { status: 'running', attempt: 1 })] }), { pending: [waiting], offline: true });
    expect(screen.getByTestId('pending').textContent).toContain('waiting for the connection');
    const stop = screen.getByTestId<HTMLButtonElement>('stop');
    expect(stop.disabled).toBe(true);
    expect(stop.title).toContain('no connection');
  });
  it('offers the ways on: one to pick, one that has a branch already', () => {
    const choices = [aChoice('down', 'main-2', 1), aChoice('up', 'main-2', 2, { branch: 'attic' })];
    const props = show(opened({ choices, branches: [aBranch('main'), aBranch('attic', { parent: 'main', from: 'main-2' })] }));
    const [down, up] = screen.getAllByTestId<HTMLButtonElement>('choice');
    expect(up?.textContent).toContain('taken');
    if (down !== undefined) fireEvent.click(down);
    expect(props.onPick).toHaveBeenCalledWith('down');
  });
  it('leads to the branch that a taken choice began', () => {
    const props = show(opened({ choices: [aChoice('up', 'main-2', 1, { branch: 'attic' })], branches: [aBranch('main'), aBranch('attic', { parent: 'main', from: 'main-2' })] }));
    fireEvent.click(screen.getByTestId('choice'));
    expect(props.onRead).toHaveBeenCalledWith('attic');
    expect(props.onPick).not.toHaveBeenCalled();
  });
  it('says why a generation failed and tries again, until something else was written', () => {
    const failed = aGeneration('g', { status: 'failed', after: 'main-2', reason: { code: 503, message: 'the model did not answer' } });
    const props = show(opened({ generations: [failed] }));
    expect(screen.getByTestId('generation-ended').textContent).toContain('the model did not answer');
    fireEvent.click(screen.getByTestId('try-again'));
    expect(props.onAsk).toHaveBeenCalledOnce();
    cleanup();
    show(opened({ generations: [{ ...failed, after: 'main-1' }] }));
    expect(screen.queryByTestId('generation-ended')).toBeNull();
  });
  it('lets a reader read, and nothing else', () => {
    show(opened({ me: { ...ben, role: 'reader' }, choices: [aChoice('down', 'main-2', 1)], generations: [] }));
    expect(screen.getByTestId<HTMLButtonElement>('choice').disabled).toBe(true);
  });
  it('shows a turn on its way, and what one can do when it is stuck', () => {
    const waiting: PendingTurn = { key: 'k1', branch: 'main', text: 'on its way', status: 'sending' };
    const stuck: PendingTurn = { key: 'k2', branch: 'main', text: 'stuck', status: 'unanswered' };
    const elsewhere: PendingTurn = { key: 'k3', branch: 'attic', text: 'not here', status: 'sending' };
    const props = show(opened(), { pending: [waiting, stuck, elsewhere] });
    expect(screen.getAllByTestId('pending').map((one) => one.dataset['status'])).toEqual(['sending', 'unanswered']);
    fireEvent.click(screen.getByText('Back into the box'));
    expect(props.onTakeBack).toHaveBeenCalledWith(stuck);
  });
  it('fetches earlier turns by a button', () => {
    const state = opened({ turns: [aTurn('main', 8), aTurn('main', 9)] });
    const props = show(state);
    fireEvent.click(screen.getByTestId('older'));
    expect(props.onOlder).toHaveBeenCalled();
  });
});
