/**
 * Who is here. In: a live story. Out: one entry per person, however many windows they have open.
 * Called by whatever shows the company.
 */
import type { LiveStory, Present } from '@talewire/client';
import { useReadable } from './use-readable.js';

export function usePresence(live: LiveStory): readonly Present[] {
  return useReadable(live.presence).people;
}
