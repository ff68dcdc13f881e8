/**
 * A story as one reader knows it: `step(state, input)`, pure and idempotent.
 * In: the answer of story.open, entries of the log with their offsets, pages of older turns, answers to
 * one's own calls. Out: the next state, and `path`, the turns of one branch in reading order.
 * No timers, sockets or DOM. Called by live-story.
 */
import { isEnd, type Branch, type Choice, type Generation, type LogEntry, type Member, type Position, type Story, type StoryOpened, type Turn } from './wire.js';

export interface StoryState {
  readonly story: Story;
  readonly me: Member;
  readonly members: ReadonlyMap<string, Member>;
  readonly branches: ReadonlyMap<string, Branch>;
  readonly choices: ReadonlyMap<string, Choice>;
  readonly turns: ReadonlyMap<string, Turn>;
  readonly generations: ReadonlyMap<string, Generation>;
  /** Branches whose newest turns are known; what happens to them later comes by the log. */
  readonly loaded: ReadonlySet<string>;
  /** The last entry that was applied. */
  readonly position: Position;
  /** The offset at which `story` itself is true: it may be ahead of `position` after a second story.open. */
  readonly storyAt: number;
}

export type StoryInput =
  /** `fresh`: forget everything, since the log could not be continued. */
  | { type: 'opened'; branch: string; result: StoryOpened; fresh: boolean }
  | { type: 'entry'; offset: number; entry: LogEntry | undefined }
  | { type: 'page'; turns: readonly Turn[]; choices: readonly Choice[] }
  | { type: 'answer'; turn?: Turn | undefined; generation?: Generation | undefined; branch?: Branch | undefined; picked?: string | undefined };

function withAll<T>(map: ReadonlyMap<string, T>, items: readonly T[], key: (item: T) => string): ReadonlyMap<string, T> {
  if (items.length === 0) return map;
  const next = new Map(map);
  for (const item of items) next.set(key(item), item);
  return next;
}

const byId = (item: { id: string }): string => item.id;

const progress = (generation: Generation): number => (isEnd(generation.status) ? 2 : generation.status === 'running' ? 1 : 0);

/**
 * A generation only ever moves forward, whatever order answers and entries arrive in: an end stays an
 * end, a newer attempt beats an older one.
 */
function withGenerations(map: ReadonlyMap<string, Generation>, items: readonly Generation[]): ReadonlyMap<string, Generation> {
  const news = items.filter((item) => {
    const old = map.get(item.id);
    if (old === undefined) return true;
    if (isEnd(old.status)) return false;
    if (isEnd(item.status)) return true;
    return item.attempt > old.attempt || (item.attempt === old.attempt && progress(item) >= progress(old));
  });
  return withAll(map, news, byId);
}

/** A picked choice stays picked, even if an older picture of it arrives later. */
function withChoices(map: ReadonlyMap<string, Choice>, items: readonly Choice[]): ReadonlyMap<string, Choice> {
  return withAll(map, items.filter((item) => item.branch !== undefined || map.get(item.id)?.branch === undefined), byId);
}

function opened(before: StoryState | undefined, branch: string, result: StoryOpened, fresh: boolean): StoryState {
  const state = fresh ? undefined : before;
  const empty = new Map<string, never>();
  const newer = state === undefined || result.position.offset >= state.storyAt;
  return {
    story: newer ? result.story : state.story,
    me: newer ? result.me : state.me,
    members: withAll<Member>(state?.members ?? empty, result.members, (member) => member.user),
    branches: withAll<Branch>(state?.branches ?? empty, result.branches, byId),
    choices: withChoices(state?.choices ?? empty, result.choices),
    turns: withAll<Turn>(state?.turns ?? empty, result.turns, byId),
    generations: withGenerations(state?.generations ?? empty, result.generations),
    loaded: new Set([...(state?.loaded ?? []), branch]),
    // A second open does not move the position: it holds one branch only, and entries between the two
    // positions may belong to another branch that is already on the page.
    position: state?.position ?? result.position,
    storyAt: newer ? result.position.offset : state.storyAt,
  };
}

/** Adds a turn; counts it on the story only when it is new and the story's own count is older than it. */
function withTurn(state: StoryState, turn: Turn, offset: number): StoryState {
  const count = !state.turns.has(turn.id) && offset > state.storyAt ? 1 : 0;
  const story = offset > state.storyAt ? { ...state.story, turns: state.story.turns + count, active_at: Math.max(state.story.active_at, turn.created_at) } : state.story;
  return { ...state, story, turns: withAll(state.turns, [turn], byId) };
}

function apply(state: StoryState, entry: LogEntry, offset: number): StoryState {
  const newsOfStory = offset > state.storyAt;
  switch (entry.type) {
    case 'story.created':
      return newsOfStory ? { ...state, story: entry.story } : state;
    case 'story.renamed':
      return newsOfStory ? { ...state, story: { ...state.story, title: entry.title } } : state;
    case 'member.joined': {
      const isNew = !state.members.has(entry.member.user);
      const story = newsOfStory && isNew ? { ...state.story, members: state.story.members + 1 } : state.story;
      const me = entry.member.user === state.me.user ? entry.member : state.me;
      return { ...state, story, me, members: withAll(state.members, [entry.member], (member) => member.user) };
    }
    case 'turn.added':
      return withTurn(state, entry.turn, offset);
    case 'generation.requested':
    case 'generation.started':
      return { ...state, generations: withGenerations(state.generations, [entry.generation]) };
    case 'generation.ended': {
      const told = entry.turn === undefined ? state : withTurn(state, entry.turn, offset);
      return { ...told, generations: withGenerations(told.generations, [entry.generation]), choices: withChoices(told.choices, entry.choices ?? []) };
    }
    case 'choice.picked': {
      const told = withTurn(state, entry.turn, offset);
      return {
        ...told,
        story: newsOfStory ? { ...told.story, branch: entry.branch.id } : told.story,
        branches: withAll(told.branches, [entry.branch], byId),
        choices: withChoices(told.choices, [{ ...entry.choice, branch: entry.choice.branch ?? entry.branch.id }]),
        generations: entry.generation === undefined ? told.generations : withGenerations(told.generations, [entry.generation]),
        // Born before our eyes, so its newest turn is known.
        loaded: new Set([...told.loaded, entry.branch.id]),
      };
    }
  }
}

/** Whether the turn just before this one, on its branch's path, is here. */
function follows(state: StoryState, branches: ReadonlyMap<string, Branch>, turn: Turn): boolean {
  if (turn.number === 1) return true;
  const from = branches.get(turn.branch)?.from;
  for (const other of state.turns.values()) {
    if (other.number === turn.number - 1 && (other.branch === turn.branch || other.id === from)) return true;
  }
  return false;
}

/** The only way a story changes. Before the first story.open there is nothing that could. */
export function step(state: StoryState | undefined, input: StoryInput): StoryState | undefined {
  if (input.type === 'opened') return opened(state, input.branch, input.result, input.fresh);
  if (state === undefined) return undefined;
  switch (input.type) {
    case 'entry': {
      if (input.offset <= state.position.offset) return state;
      const position = { ...state.position, offset: input.offset };
      const next = input.entry === undefined ? state : apply(state, input.entry, input.offset);
      return { ...next, position, storyAt: Math.max(next.storyAt, input.offset) };
    }
    case 'page':
      return input.turns.length === 0 ? state : { ...state, turns: withAll(state.turns, input.turns, byId), choices: withChoices(state.choices, input.choices) };
    case 'answer': {
      const { turn, generation, branch, picked } = input;
      const choice = picked === undefined ? undefined : state.choices.get(picked);
      // An answer may overtake the log: a turn whose predecessor is not here yet would tear a hole into
      // the page, so it is left to the log.
      const fits = turn !== undefined && follows(state, branch === undefined ? state.branches : withAll(state.branches, [branch], byId), turn);
      // A branch that an answer names is not "loaded": a late pick may get one that others wrote on in.
      return {
        ...state,
        turns: fits ? withAll(state.turns, [turn], byId) : state.turns,
        generations: generation === undefined ? state.generations : withGenerations(state.generations, [generation]),
        branches: branch === undefined ? state.branches : withAll(state.branches, [branch], byId),
        choices: choice === undefined || branch === undefined ? state.choices : withChoices(state.choices, [{ ...choice, branch: branch.id }]),
      };
    }
  }
}

export interface Path {
  /** In reading order, without a hole. */
  readonly turns: readonly Turn[];
  /** There are older turns that are not here yet. */
  readonly more: boolean;
}

/**
 * The turns of a branch: its own, below them its parent's up to `from`, and so on, as far down as they
 * are here without a hole. Numbers rise by one along a path, so a hole is a missing number.
 */
export function path(state: StoryState, branchId: string): Path {
  const own = new Map<string, Map<number, Turn>>();
  for (const turn of state.turns.values()) {
    const numbers = own.get(turn.branch);
    if (numbers === undefined) own.set(turn.branch, new Map([[turn.number, turn]]));
    else numbers.set(turn.number, turn);
  }
  const backwards: Turn[] = [];
  const seen = new Set<string>();
  let next: number | undefined;
  for (let id: string | undefined = branchId; id !== undefined && !seen.has(id); ) {
    seen.add(id);
    const numbers = own.get(id) ?? new Map<number, Turn>();
    if (next === undefined && numbers.size > 0) next = Math.max(...numbers.keys());
    for (let turn = next === undefined ? undefined : numbers.get(next); turn !== undefined; turn = numbers.get(turn.number - 1)) {
      backwards.push(turn);
      next = turn.number - 1;
    }
    const branch: Branch | undefined = state.branches.get(id);
    const from: Turn | undefined = branch?.from === undefined ? undefined : state.turns.get(branch.from);
    // The parent goes on only if its part ends exactly where ours begins; else there is a hole between.
    if (from === undefined || (next !== undefined && from.number !== next)) break;
    next = from.number;
    id = branch?.parent;
  }
  const turns = backwards.reverse();
  const first = turns[0];
  return { turns, more: first === undefined ? !state.loaded.has(branchId) : first.number > 1 };
}

/** The choices offered after a turn, in their order. */
export function choicesAfter(state: StoryState, turn: string): readonly Choice[] {
  return [...state.choices.values()].filter((choice) => choice.turn === turn).sort((a, b) => a.number - b.number);
}

/** The generation that is being waited for or written on a branch. */
export function openGeneration(state: StoryState, branch: string): Generation | undefined {
  return [...state.generations.values()].find((generation) => generation.branch === branch && !isEnd(generation.status));
}
