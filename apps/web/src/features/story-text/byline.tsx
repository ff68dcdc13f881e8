/**
 * Who wrote this, in the margin: for an agent also that it is one, and which model speaks.
 * In: an author and, for agents, the model's label. Out: a quiet line. Called by turns and streams.
 */
import type { Author } from '@talewire/client';
import type { ReactNode } from 'react';
import { Avatar } from '../../ui/avatar';

export function Byline({ author, verb, label, children }: { author: Author; verb?: string | undefined; label?: string | undefined; children?: ReactNode }): ReactNode {
  return (
    <div className="byline">
      <Avatar kind={author.kind} id={author.id} name={author.name} size={26} />
      <div className="byline-words">
        <span className="byline-name">
          {author.name}
          {author.kind === 'agent' && <span className="byline-kind"> · agent</span>}
          {verb !== undefined && <span className="byline-kind"> {verb}</span>}
        </span>
        {label !== undefined && <span className="byline-label" data-testid="agent-label">{label}</span>}
        {children}
      </div>
    </div>
  );
}
