/**
 * Small objects of the wire for tests: a story with one branch, turns, generations.
 * In: what a test cares about. Out: whole objects. Called by unit tests alone.
 */
import type { Branch, Choice, Generation, Member, Story, StoryOpened, Turn } from '../wire.js';

export const ana: Member = { user: 'ana', name: 'Ana', role: 'owner', joined_at: 1 };
export const ben: Member = { user: 'ben', name: 'Ben', role: 'writer', joined_at: 2 };

export function aStory(more: Partial<Story> = {}): Story {
  return { id: 's', title: 'The lighthouse', owner: 'ana', branch: 'main', created_at: 1, active_at: 1, turns: 0, members: 1, ...more };
}

export function aBranch(id: string, more: Partial<Branch> = {}): Branch {
  return { id, label: id, created_at: 1, ...more };
}

export function aTurn(branch: string, number: number, more: Partial<Turn> = {}): Turn {
  return { id: `${branch}-${number}`, branch, number, author: { kind: 'person', id: 'ana', name: 'Ana' }, kind: 'prose', text: `${branch} ${number}`, created_at: number, ...more };
}

export function aGeneration(id: string, more: Partial<Generation> = {}): Generation {
  return { id, branch: 'main', agent: { id: 'narrator', name: 'Narrator' }, status: 'queued', attempt: 0, by: 'ana', requested_at: 5, ...more };
}

export function aChoice(id: string, turn: string, number: number, more: Partial<Choice> = {}): Choice {
  return { id, turn, number, label: id, ...more };
}

/** A story of `count` turns on its main branch, of which the last `page` are told. */
export function anOpened(count: number, more: Partial<StoryOpened> = {}, page = count): StoryOpened {
  const turns = Array.from({ length: count }, (_, index) => aTurn('main', index + 1)).slice(count - page);
  return {
    story: aStory({ turns: count }), me: ana, members: [ana], branches: [aBranch('main')], choices: [], turns, more: page < count,
    generations: [], position: { offset: count + 1, epoch: 'e1' }, ...more,
  };
}
