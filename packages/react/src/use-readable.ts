/**
 * Subscribe and snapshot: what every hook here is made of.
 * In: a Readable. Out: its value, redrawn when it changes. Called by the other hooks, and by a page
 * for readables of its own (a login).
 */
import type { Readable } from '@talewire/client';
import { useSyncExternalStore } from 'react';

export function useReadable<T>(readable: Readable<T>): T {
  return useSyncExternalStore(readable.subscribe, readable.snapshot, readable.snapshot);
}
