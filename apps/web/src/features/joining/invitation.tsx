/**
 * What one would join by a link, before one does. In: an invite's code. Out: `onJoin` when accepted.
 * Called by the join page.
 */
import { TalewireError, type User } from '@talewire/client';
import { useConnection } from '@talewire/react';
import { useCallback, useEffect, useState, type ReactNode } from 'react';
import { useAction } from '../../ui/notices';

type Shown = { phase: 'asking' } | { phase: 'shown'; title: string; role: string; members: number } | { phase: 'refused'; message: string; again: boolean };

export function Invitation(props: { code: string; user: User; onJoin: () => Promise<void>; onSomeoneElse: () => void }): ReactNode {
  const connection = useConnection();
  const [shown, setShown] = useState<Shown>({ phase: 'asking' });
  const join = useAction(props.onJoin);
  const { code } = props;

  const ask = useCallback(() => {
    let gone = false;
    connection.call('invite.show', { code }).then(
      (invite) => !gone && setShown({ phase: 'shown', ...invite }),
      (error: unknown) => {
        if (gone) return;
        const again = !(error instanceof TalewireError) || error.retry;
        setShown({ phase: 'refused', message: again ? 'The server could not be reached.' : 'This invitation is no longer good. Ask for a new link.', again });
      },
    );
    return () => {
      gone = true;
    };
  }, [connection, code]);
  useEffect(() => ask(), [ask]);

  switch (shown.phase) {
    case 'asking':
      return <p className="soft">Reading the invitation…</p>;
    case 'refused':
      return (
        <>
          <h1>No way in here</h1>
          <p className="error-text" data-testid="invite-refused">{shown.message}</p>
          {shown.again && <button type="button" className="button" onClick={ask}>Try again</button>}
        </>
      );
    case 'shown':
      return (
        <>
          <p className="soft">You are invited to {shown.role === 'reader' ? 'read along in' : 'write'}</p>
          <h1 data-testid="invite-title">{shown.title}</h1>
          <p className="soft">
            {shown.members === 1 ? 'One person is' : `${shown.members} people are`} in it so far. You come as a {shown.role}.
          </p>
          <div className="card-form">
            <button type="button" className="button button-primary" onClick={() => join.run()} disabled={join.busy} data-testid="join-accept" autoFocus>
              Join as {props.user.name}
            </button>
            <button type="button" className="button button-quiet" onClick={props.onSomeoneElse} data-testid="join-with-another-name">
              Not {props.user.name}? Join as someone else
            </button>
          </div>
        </>
      );
  }
}
