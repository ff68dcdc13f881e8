/**
 * Who one is in this tab, and how to be someone else. In: the user, and what the page can do about it.
 * Out: calls of those. Called by every top bar.
 */
import type { Http, User } from '@talewire/client';
import { useState, type ReactNode } from 'react';
import { Avatar } from '../../ui/avatar';
import { Dialog } from '../../ui/dialog';
import { useAction } from '../../ui/notices';
import { NameForm } from './name-form';
import './account.css';

export interface Account {
  user: User;
  /** A second guest, in this tab alone. */
  tab: boolean;
  http: Http;
  onSomeoneElse: (name: string) => Promise<void>;
  onBack: () => Promise<void>;
  onLogout: () => Promise<void>;
}

export function AccountMenu({ account }: { account: Account }): ReactNode {
  const [open, setOpen] = useState<'no' | 'menu' | 'someone-else'>('no');
  const close = (): void => setOpen('no');
  const { user, tab } = account;
  return (
    <>
      <button type="button" className="icon-button account-button" onClick={() => setOpen('menu')} aria-haspopup="dialog" aria-label={`Account: ${user.name}`} data-testid="account">
        <Avatar kind="person" id={user.id} name={user.name} size={32} />
      </button>
      {open === 'menu' && (
        <Dialog title={user.name} onClose={close} place="corner">
          <Menu account={account} onSomeoneElse={() => setOpen('someone-else')} onDone={close} />
        </Dialog>
      )}
      {open === 'someone-else' && <SomeoneElseDialog account={account} onClose={close} />}
      {tab && <span className="sr-only">This tab writes as a second guest.</span>}
    </>
  );
}

function Menu({ account, onSomeoneElse, onDone }: { account: Account; onSomeoneElse: () => void; onDone: () => void }): ReactNode {
  const back = useAction(async () => {
    await account.onBack();
    onDone();
  });
  const logout = useAction(account.onLogout);
  return (
    <div className="menu">
      <p className="soft">{account.tab ? 'A second guest, in this tab alone.' : 'Guest of this browser.'}</p>
      <button type="button" className="button" onClick={onSomeoneElse} data-testid="join-as-someone-else">
        Join as someone else
      </button>
      {account.tab && (
        <button type="button" className="button" onClick={() => back.run()} disabled={back.busy} data-testid="back-to-browser-guest">
          Back to this browser’s guest
        </button>
      )}
      {!account.tab && (
        <button type="button" className="button button-quiet" onClick={() => logout.run()} disabled={logout.busy} data-testid="logout">
          Leave (forget this guest)
        </button>
      )}
    </div>
  );
}

/** Opens this tab as a second guest; every other tab stays who it is. */
export function SomeoneElseDialog({ account, onClose }: { account: Account; onClose: () => void }): ReactNode {
  const join = async (name: string): Promise<void> => {
    await account.onSomeoneElse(name);
    onClose();
  };
  return (
    <Dialog title="Join as someone else" onClose={onClose}>
      <p className="soft">This tab becomes a second guest, with a name of its own. Your other tabs stay {account.user.name}.</p>
      <NameForm submit="Continue" onName={join} />
    </Dialog>
  );
}
