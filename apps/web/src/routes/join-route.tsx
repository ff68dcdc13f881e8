/**
 * The page behind an invite link. In: the code in the address, the connection and account of app.
 * Out: membership, and the story's page.
 */
import { useConnection } from '@talewire/react';
import { useState, type ReactNode } from 'react';
import { AccountMenu, SomeoneElseDialog, type Account } from '../features/account/account-menu';
import { ConnectionPill } from '../features/connection/connection-pill';
import { Invitation } from '../features/joining/invitation';
import { navigate, storyPath } from '../router';
import { ThemeButton } from '../ui/theme-button';
import { rememberCode } from './join-codes';
import { Wordmark } from './wordmark';

export function JoinRoute({ code, account }: { code: string; account: Account }): ReactNode {
  const connection = useConnection();
  const [someoneElse, setSomeoneElse] = useState(false);
  const join = async (): Promise<void> => {
    const { story } = await connection.call('story.join', { code });
    rememberCode(story.id, code);
    navigate(storyPath(story.id), 'replace');
  };
  return (
    <div className="page">
      <header className="top-bar">
        <Wordmark />
        <span className="grow" />
        <ConnectionPill />
        <ThemeButton />
        <AccountMenu account={account} />
      </header>
      <main className="page-middle">
        <div className="card">
          <Invitation key={code} code={code} user={account.user} onJoin={join} onSomeoneElse={() => setSomeoneElse(true)} />
        </div>
      </main>
      {someoneElse && <SomeoneElseDialog account={account} onClose={() => setSomeoneElse(false)} />}
    </div>
  );
}
