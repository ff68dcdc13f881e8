/**
 * Tells screen readers what happened, in whole sentences: a new turn, a generation that began or ended.
 * Never the words of a stream one by one. In: the last turn and the open generation. Out: a polite region.
 * Called by story-text.
 */
import type { Generation, Turn } from '@talewire/client';
import { useEffect, useRef, useState, type ReactNode } from 'react';

export function Announcer({ last, open, me }: { last: Turn | undefined; open: Generation | undefined; me: string }): ReactNode {
  const [sentence, setSentence] = useState('');
  const told = useRef({ turn: last?.id, generation: open?.id });
  useEffect(() => {
    const before = told.current;
    told.current = { turn: last?.id, generation: open?.id };
    if (last !== undefined && last.id !== before.turn && last.author.id !== me) {
      setSentence(last.author.kind === 'agent' ? `${last.author.name} has finished writing.` : `${last.author.name} wrote a new turn.`);
    } else if (open !== undefined && open.id !== before.generation) {
      setSentence(`${open.agent.name} is writing.`);
    } else if (open === undefined && before.generation !== undefined) {
      setSentence('The narrator has stopped.');
    }
  }, [last, open, me]);
  return <div className="sr-only" role="status" aria-live="polite" data-testid="announcer">{sentence}</div>;
}
