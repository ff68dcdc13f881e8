/**
 * The page of a story: composes the text, the box, the company and the tools around one live story.
 * In: a story's id and wished branch from the address, the account of app. Out: a page.
 */
import { openGeneration, path, type Config, type PendingTurn } from '@talewire/client';
import { useConnectionState, useStory } from '@talewire/react';
import { useEffect, useMemo, useState, type ReactNode } from 'react';
import { AccountMenu, type Account } from '../features/account/account-menu';
import { BranchBanner, BranchSwitch } from '../features/branches/branch-switch';
import { Company } from '../features/company/company';
import { TypingLine } from '../features/company/typing-line';
import { Composer } from '../features/composer/composer';
import { useDraft } from '../features/composer/use-draft';
import { ConnectionPill } from '../features/connection/connection-pill';
import { ExportButton } from '../features/export/export-button';
import { InviteDialog } from '../features/invites/invite-dialog';
import { StoryText } from '../features/story-text/story-text';
import { Link } from '../router';
import { Icon } from '../ui/icon';
import { useAction, useNotify } from '../ui/notices';
import { ThemeButton } from '../ui/theme-button';
import { rememberCode } from './join-codes';
import { RenameDialog } from './rename-dialog';
import { useReadingBranch } from './use-reading-branch';
import { Wordmark } from './wordmark';

const AGENT = 'Narrator';

export function StoryRoute({ story, wished, account, narrator }: { story: string; wished: string | undefined; account: Account; narrator: Config['narrator'] }): ReactNode {
  const { live, view } = useStory(story);
  const offline = ['offline', 'stopped'].includes(useConnectionState());
  const notify = useNotify();
  const { state } = view;
  const { branch, ready, read } = useReadingBranch(live, state, wished);
  const draft = useDraft(account.user.id, story);
  const [dialog, setDialog] = useState<'none' | 'invite' | 'rename'>('none');
  const [sent, setSent] = useState(0);
  const pathHere = useMemo(() => (state === undefined || branch === undefined ? undefined : path(state, branch)), [state, branch]);

  useEffect(() => {
    document.title = state === undefined ? 'Talewire' : `${state.story.title} · Talewire`;
  }, [state]);

  // A refused text goes back to where it was written, with the reason.
  const { giveBack } = draft;
  const refused = view.pending.find((one) => one.status === 'refused');
  useEffect(() => {
    if (refused === undefined) return;
    giveBack(refused.text);
    live.discard(refused.key);
    notify(`Not added: ${refused.error?.message ?? 'refused'}. Your text is back in the box.`, 'error');
  }, [refused, giveBack, live, notify]);

  const ask = useAction(async (instruction: string) => {
    if (branch === undefined) return;
    setSent((count) => count + 1);
    await live.requestGeneration(branch, instruction);
  });
  const older = useAction(async () => {
    if (branch !== undefined) await live.loadOlder(branch);
  });

  if (view.phase === 'refused') return <Refused account={account} />;

  const pick = async (choice: string): Promise<void> => {
    try {
      read((await live.pick(choice)).id);
      setSent((count) => count + 1);
    } catch (error) {
      notify(error instanceof Error ? error.message : 'The choice could not be taken.', 'error');
    }
  };
  const takeBack = (pending: PendingTurn): void => {
    giveBack(pending.text);
    live.discard(pending.key);
  };
  const send = (text: string): void => {
    if (branch === undefined) return;
    setSent((count) => count + 1);
    // Its fate shows on the page: as a pending turn, or back in the box.
    live.addTurn(branch, text).catch(() => undefined);
  };

  const open = state === undefined || branch === undefined ? undefined : openGeneration(state, branch);
  const owner = state?.me.role === 'owner';
  const labelOf = (id: string | undefined): string => state?.branches.get(id ?? '')?.label ?? 'another branch';
  return (
    <div className="story-page">
      <a className="skip-link" href="#composer">Skip to the box</a>
      <header className="top-bar story-bar">
        <span className="home-slot"><Wordmark /></span>
        <span className="title" aria-hidden="true">{state?.story.title ?? ''}</span>
        <span className="grow" />
        <div className="state-slot">
          <ConnectionPill />
          <span className="company-slot"><Company live={live} me={account.user.id} agent={{ name: AGENT, label: narrator.label }} writing={open !== undefined} /></span>
          <div className="story-tools">
            {state !== undefined && branch !== undefined && <BranchSwitch branches={[...state.branches.values()]} reading={branch} live={state.story.branch} onRead={read} />}
            {owner && (
              <button type="button" className="icon-button" onClick={() => setDialog('invite')} aria-haspopup="dialog" aria-label="Invite people" title="Invite people" data-testid="invite-open"><Icon name="invite" /></button>
            )}
            {state !== undefined && branch !== undefined && <ExportButton http={account.http} story={story} branch={branch} title={state.story.title} />}
            <ThemeButton />
          </div>
        </div>
        <span className="account-slot"><AccountMenu account={account} /></span>
      </header>

      {state !== undefined && branch !== undefined && pathHere !== undefined && ready ? (
        <StoryText
          live={live}
          state={state}
          path={pathHere}
          branch={branch}
          pending={view.pending}
          narratorLabel={narrator.label}
          loadingOlder={older.busy}
          offline={offline}
          sent={sent}
          onOlder={older.run}
          onPick={pick}
          onRead={read}
          onAsk={() => ask.run('')}
          onTakeBack={takeBack}
          onRename={owner ? () => setDialog('rename') : undefined}
        />
      ) : (
        <main className="page-middle"><p className="soft">{state === undefined ? 'Opening the story…' : 'Reading this branch…'}</p></main>
      )}

      <footer className="below">
        <div className="below-inside">
          {state !== undefined && branch !== undefined && branch !== state.story.branch && (
            <BranchBanner liveLabel={labelOf(state.story.branch)} onLive={() => read(state.story.branch)} />
          )}
          <TypingLine live={live} />
          {state?.me.role === 'reader' ? (
            <p className="soft below-reader" data-testid="reading-along">You are reading along. The owner can give you a link to write.</p>
          ) : (
            <Composer draft={draft} agent={AGENT} writing={open !== undefined} asking={ask.busy} onSend={send} onAsk={ask.run} onTyping={live.setTyping} />
          )}
        </div>
      </footer>
      {dialog === 'invite' && <InviteDialog live={live} onClose={() => setDialog('none')} onCode={(code) => rememberCode(story, code)} />}
      {dialog === 'rename' && state !== undefined && <RenameDialog title={state.story.title} onRename={(title) => live.rename(title)} onClose={() => setDialog('none')} />}
    </div>
  );
}

function Refused({ account }: { account: Account }): ReactNode {
  return (
    <div className="page">
      <header className="top-bar">
        <Wordmark />
        <span className="grow" />
        <ConnectionPill />
        <AccountMenu account={account} />
      </header>
      <main className="page-middle">
        <div className="card" data-testid="story-refused">
          <h1>This story is not open to you</h1>
          <p className="soft">It does not exist, or {account.user.name} is not part of it. Ask somebody in it for a link.</p>
          <p><Link to="/" className="button">Your stories</Link></p>
        </div>
      </main>
    </div>
  );
}
