/**
 * Who else is typing, in one quiet line that keeps its place when it is empty. In: a live story.
 * Out: a sentence. Called by the story's page, above the composer.
 */
import type { LiveStory } from '@talewire/client';
import { useTyping } from '@talewire/react';
import type { ReactNode } from 'react';
import './company.css';

export function typingSentence(names: readonly string[]): string {
  const [first, second, ...rest] = names;
  if (first === undefined) return '';
  if (second === undefined) return `${first} is typing`;
  if (rest.length === 0) return `${first} and ${second} are typing`;
  return `${first}, ${second} and ${rest.length === 1 ? 'one more' : `${rest.length} more`} are typing`;
}

export function TypingLine({ live }: { live: LiveStory }): ReactNode {
  const { typers } = useTyping(live);
  const sentence = typingSentence(typers.map((typer) => typer.name));
  return (
    <p className="typing" data-testid="typing" data-count={typers.length}>
      {sentence !== '' && (
        <>
          {sentence}
          <span className="typing-dots" aria-hidden="true"><i /><i /><i /></span>
        </>
      )}
    </p>
  );
}
