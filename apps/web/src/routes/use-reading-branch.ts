/**
 * Which branch is on the page. In: the story, the address. Out: a branch, and `read` to go to another.
 * When the live branch moves on, one is taken along only if nothing vanishes from under one's eyes;
 * otherwise one stays, and the page says so. Called by the story's route.
 */
import { path, type LiveStory, type StoryState } from '@talewire/client';
import { useCallback, useEffect, useState } from 'react';
import { navigate, storyPath } from '../router';
import { useNotify } from '../ui/notices';

/** The page of `from` is a beginning of the page of `to`: going there only adds words. */
export function onlyAdds(state: StoryState, from: string, to: string): boolean {
  const last = path(state, from).turns.at(-1);
  return last === undefined || path(state, to).turns.some((turn) => turn.id === last.id);
}

interface Place { chosen: string | undefined; live: string | undefined; wished: string | undefined }

/** What one reads after the live branch has moved away from `place.live`. */
function afterMove(state: StoryState, place: Place): string | undefined {
  const { branch: live } = state.story;
  const { live: old, chosen } = place;
  if (chosen === live || old === undefined) return chosen === live ? undefined : chosen;
  const followed = chosen === undefined || chosen === old;
  if (!followed) return chosen;
  return onlyAdds(state, old, live) ? undefined : old;
}

export function useReadingBranch(live: LiveStory, state: StoryState | undefined, wished: string | undefined): { branch: string | undefined; ready: boolean; read: (branch: string) => void } {
  const notify = useNotify();
  const liveBranch = state?.story.branch;
  /** `chosen` is undefined while one follows the live branch; `live` and `wished` are what was last acted upon. */
  const [place, setPlace] = useState<Place>({ chosen: wished, live: liveBranch, wished });

  // In the render itself, not in an effect: otherwise the new place would flash before one stays in the old.
  let now = place;
  if (now.wished !== wished) now = { ...now, chosen: wished, wished };
  if (state !== undefined && now.live !== liveBranch) now = { ...now, chosen: afterMove(state, now), live: liveBranch };
  if (now !== place) setPlace(now);

  const known = now.chosen !== undefined && (state === undefined || state.branches.has(now.chosen)) ? now.chosen : undefined;
  const branch = known ?? liveBranch;
  const ready = branch !== undefined && state?.loaded.has(branch) === true;

  useEffect(() => {
    if (state === undefined) return;
    navigate(storyPath(live.id, branch === liveBranch ? undefined : branch), 'replace');
  }, [live.id, state, branch, liveBranch]);

  useEffect(() => {
    if (branch === undefined || ready || state === undefined) return;
    live.readBranch(branch).catch(() => notify('This branch could not be read. Try again.', 'error'));
  }, [live, state, branch, ready, notify]);

  const read = useCallback((to: string) => setPlace((old) => ({ ...old, chosen: to })), []);
  return { branch, ready, read };
}
