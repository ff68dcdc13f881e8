/**
 * Making, copying and revoking links into a story. In: a live story of which one is the owner.
 * Out: links to hand out. Called by the story's bar.
 */
import type { Invite, LiveStory, Role } from '@talewire/client';
import { useCallback, useEffect, useRef, useState, type ReactNode } from 'react';
import { Dialog } from '../../ui/dialog';
import { Icon } from '../../ui/icon';
import { useAction, useNotify } from '../../ui/notices';
import './invites.css';

const expires = new Intl.DateTimeFormat('en', { day: 'numeric', month: 'short' });

/** Two taps closer than this were meant as one. */
const ONE_TAP_MS = 500;
/** So long a tapped Revoke waits to be tapped again. */
const ARMED_MS = 5000;

export function inviteLink(code: string): string {
  return `${window.location.origin}/join/${encodeURIComponent(code)}`;
}

export function InviteDialog({ live, onClose, onCode }: { live: LiveStory; onClose: () => void; onCode: (code: string) => void }): ReactNode {
  const [invites, setInvites] = useState<readonly Invite[] | undefined>();
  const [newest, setNewest] = useState<Invite | undefined>();
  const [role, setRole] = useState<Role>('writer');
  const notify = useNotify();
  const refresh = useCallback(async () => setInvites(await live.listInvites()), [live]);

  useEffect(() => {
    refresh().catch(() => notify('The list of links could not be read.', 'error'));
  }, [refresh, notify]);

  const create = useAction(async () => {
    const invite = await live.createInvite(role);
    setNewest(invite);
    onCode(invite.code);
    await refresh();
  });
  const created_ms = useRef(0);
  const createOnce = (): void => {
    if (Date.now() - created_ms.current < ONE_TAP_MS) return;
    created_ms.current = Date.now();
    create.run();
  };
  const revoke = useAction(async (code: string) => {
    await live.revokeInvite(code);
    if (newest?.code === code) setNewest(undefined);
    await refresh();
  });

  const others = (invites ?? []).filter((invite) => invite.code !== newest?.code);
  return (
    <Dialog title="Invite people" onClose={onClose} place="steady">
      <p className="soft">Whoever opens the link joins this story. No account is needed.</p>
      <div className="invite-make">
        <label className="sr-only" htmlFor="invite-role">They may</label>
        <select id="invite-role" className="input" value={role} onChange={(event) => setRole(event.target.value === 'reader' ? 'reader' : 'writer')} data-testid="invite-role">
          <option value="writer">Can write</option>
          <option value="reader">Can read along</option>
        </select>
        <button type="button" className="button button-primary" onClick={createOnce} disabled={create.busy} data-testid="invite-create">
          <Icon name="plus" /> Create a link
        </button>
      </div>
      {newest !== undefined && <LinkRow invite={newest} onRevoke={revoke.run} main />}
      {others.length > 0 && (
        <section>
          <h3 className="invite-heading">Links that work</h3>
          <ul className="invite-list">
            {others.map((invite) => (
              <li key={invite.code}><LinkRow invite={invite} onRevoke={revoke.run} main={false} /></li>
            ))}
          </ul>
        </section>
      )}
    </Dialog>
  );
}

function LinkRow({ invite, onRevoke, main }: { invite: Invite; onRevoke: (code: string) => void; main: boolean }): ReactNode {
  const notify = useNotify();
  const link = inviteLink(invite.code);
  const copy = useAction(async () => {
    // The clipboard is there on secure origins only; on a LAN address the link is selected instead.
    if (!('clipboard' in navigator)) throw new Error('Select the link and copy it: this page may not use the clipboard.');
    await navigator.clipboard.writeText(link);
    notify('Link copied.');
  });
  return (
    <div className="invite-row" data-invite-code={invite.code}>
      <input className="input" readOnly value={link} aria-label="Invite link" onFocus={(event) => event.target.select()} data-testid={main ? 'invite-link' : 'invite-other-link'} />
      <div className="invite-actions">
        <span className="soft invite-facts">
          {invite.role === 'reader' ? 'reads along' : 'writes'} · used {invite.uses === 1 ? 'once' : `${invite.uses} times`} · until {expires.format(invite.expires_at)}
        </span>
        <button type="button" className="button button-quiet" onClick={() => copy.run()} data-testid="invite-copy"><Icon name="copy" size={18} /> Copy</button>
        <RevokeButton onRevoke={() => onRevoke(invite.code)} />
      </div>
    </div>
  );
}

/** Asks back where it was tapped; a double tap is one tap, and a question that nobody answers is taken back. */
function RevokeButton({ onRevoke }: { onRevoke: () => void }): ReactNode {
  const [armed_ms, setArmed] = useState<number | undefined>();
  useEffect(() => {
    if (armed_ms === undefined) return;
    const timer = setTimeout(() => setArmed(undefined), ARMED_MS);
    return () => clearTimeout(timer);
  }, [armed_ms]);
  const tap = (): void => {
    if (armed_ms === undefined) {
      setArmed(Date.now());
    } else if (Date.now() - armed_ms >= ONE_TAP_MS) {
      setArmed(undefined);
      onRevoke();
    }
  };
  return (
    <button type="button" className="button button-quiet button-danger" onClick={tap} onBlur={() => setArmed(undefined)} data-testid="invite-revoke">
      {armed_ms === undefined ? 'Revoke' : 'Really revoke?'}
    </button>
  );
}
