/**
 * What is in the box, kept per person and story so that no reload or crash loses it.
 * In: keys typed, texts that come back. Out: the draft. Called by the story's page.
 */
import { useCallback, useEffect, useState } from 'react';

const WRITE_AFTER_MS = 250;

function read(key: string): string {
  try {
    return localStorage.getItem(key) ?? '';
  } catch {
    return '';
  }
}

function write(key: string, text: string): void {
  try {
    if (text === '') localStorage.removeItem(key);
    else localStorage.setItem(key, text);
  } catch {
    // Without storage the draft lives as long as the page.
  }
}

/** A text that comes back stands before what was typed meanwhile. */
export function withReturned(draft: string, returned: string): string {
  return draft.trim() === '' ? returned : `${returned}\n\n${draft}`;
}

export interface Draft {
  text: string;
  setText: (text: string) => void;
  giveBack: (text: string) => void;
}

export function useDraft(user: string, story: string): Draft {
  const key = `talewire.draft.${user}.${story}`;
  const [draft, setDraft] = useState(() => ({ key, text: read(key) }));
  // Another person or story: another draft, without a render that shows the old one.
  const current = draft.key === key ? draft : { key, text: read(key) };
  if (current !== draft) setDraft(current);

  useEffect(() => {
    const timer = setTimeout(() => write(current.key, current.text), WRITE_AFTER_MS);
    const now = (): void => write(current.key, current.text);
    // A page that is put away may never come back to its timers.
    window.addEventListener('pagehide', now);
    return () => {
      clearTimeout(timer);
      window.removeEventListener('pagehide', now);
      now();
    };
  }, [current.key, current.text]);

  const setText = useCallback((text: string) => setDraft({ key, text }), [key]);
  const giveBack = useCallback((text: string) => setDraft((old) => ({ key, text: withReturned(old.key === key ? old.text : '', text) })), [key]);
  return { text: current.text, setText, giveBack };
}
