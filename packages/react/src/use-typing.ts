/**
 * Who else is typing. In: a live story. Out: the typers, and a function to say that oneself is typing.
 * Called by the composer and by the line that shows typers.
 */
import type { LiveStory, Typer } from '@talewire/client';
import { useCallback } from 'react';
import { useReadable } from './use-readable.js';

export function useTyping(live: LiveStory): { typers: readonly Typer[]; setTyping: (typing: boolean) => void } {
  const typers = useReadable(live.typing);
  const setTyping = useCallback((typing: boolean) => live.setTyping(typing), [live]);
  return { typers, setTyping };
}
