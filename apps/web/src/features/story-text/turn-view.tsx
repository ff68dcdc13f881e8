/**
 * One turn. In: the turn, and whether the one before has the same author (then the text just goes on).
 * Out: an article with its byline in the margin. Called by story-text; memoised, since turns never change.
 */
import type { Turn } from '@talewire/client';
import { memo, type ReactNode } from 'react';
import { ProseView } from '../../ui/prose-view';
import { Byline } from './byline';

/** Whether a reader would want to be told again who writes. */
export function goesOn(before: Turn | undefined, turn: Turn): boolean {
  return before !== undefined && before.author.id === turn.author.id && before.author.kind === turn.author.kind && before.kind === 'prose' && turn.kind === 'prose' && before.generation?.label === turn.generation?.label;
}

export const TurnView = memo(function TurnView({ turn, continues }: { turn: Turn; continues: boolean }): ReactNode {
  const agent = turn.author.kind === 'agent';
  return (
    <article
      className={`turn turn-${turn.author.kind} turn-${turn.kind}${continues ? ' turn-continues' : ''}`}
      data-testid="turn"
      data-turn-id={turn.id}
      data-turn-number={turn.number}
      data-author-kind={turn.author.kind}
      data-turn-kind={turn.kind}
      aria-label={`${turn.kind === 'choice' ? 'Choice' : 'Turn'} ${turn.number} by ${turn.author.name}${agent ? ', agent' : ''}`}
    >
      {!continues && <Byline author={turn.author} verb={turn.kind === 'choice' ? 'chose' : undefined} label={turn.generation?.label} />}
      <div className="turn-text">
        <ProseView text={turn.text} />
        {turn.generation?.status === 'cancelled' && <p className="turn-end" data-testid="turn-stopped">stopped here</p>}
      </div>
    </article>
  );
});
