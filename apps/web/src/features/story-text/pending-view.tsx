/**
 * A turn of one's own that is on its way. In: the pending turn, whether the connection is away. Out: `onAgain`, or `onTakeBack` into the
 * box, once sending was given up. Called by story-text below the turns.
 */
import type { PendingTurn } from '@talewire/client';
import type { ReactNode } from 'react';
import { ProseView } from '../../ui/prose-view';

export function PendingView({ pending, offline, onAgain, onTakeBack }: { pending: PendingTurn; offline: boolean; onAgain: () => void; onTakeBack: () => void }): ReactNode {
  const stuck = pending.status === 'unanswered' || pending.status === 'refused';
  return (
    <article className="turn turn-pending turn-continues" data-testid="pending" data-status={pending.status}>
      <div className="turn-text">
        <ProseView text={pending.text} />
        {pending.status === 'sending' && <p className="turn-end" role="status">{offline ? 'waiting for the connection' : 'sending…'}</p>}
        {stuck && (
          <div className="pending-stuck">
            <p className="error-text" role="alert">Not sent: {pending.error?.message ?? 'nobody answered'}</p>
            <button type="button" className="button" onClick={onAgain} data-testid="send-again">Send again</button>
            <button type="button" className="button button-quiet" onClick={onTakeBack}>Back into the box</button>
          </div>
        )}
      </div>
    </article>
  );
}
