/**
 * The text of one generation while it is written. In: a live story and a generation's id. Out: its
 * text so far, redrawn with each delta and nothing else. Called by the one component that shows it.
 */
import type { LiveStory, StreamText } from '@talewire/client';
import { useReadable } from './use-readable.js';

export function useGeneration(live: LiveStory, generation: string): StreamText {
  return useReadable(live.generation(generation));
}
