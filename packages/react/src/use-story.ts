/**
 * A story, live for as long as the component is mounted.
 * In: a story's id. Out: the LiveStory (actions) and its view (state). Called by a story's page.
 */
import type { LiveStory, StoryView } from '@talewire/client';
import { useConnection } from './use-connection.js';
import { useReadable } from './use-readable.js';

export function useStory(id: string): { live: LiveStory; view: StoryView } {
  const live = useConnection().openStory(id);
  return { live, view: useReadable(live) };
}
