/**
 * Short sentences that come and go: what failed, what was copied.
 * In: `notify` from anywhere below the provider. Out: a polite region at the foot of the page.
 * Errors stay long enough to be read twice; each can be closed before.
 */
import { createContext, use, useCallback, useEffect, useMemo, useRef, useState, type ReactNode } from 'react';
import { Icon } from './icon';
import './notices.css';

type Kind = 'info' | 'error';
interface Notice { id: number; kind: Kind; text: string }
type Notify = (text: string, kind?: Kind) => void;

const SHOWN_MS: Record<Kind, number> = { info: 5000, error: 20_000 };
const AT_ONCE_MAX = 3;
const NotifyContext = createContext<Notify>(() => undefined);

export function useNotify(): Notify {
  return use(NotifyContext);
}

/** Runs something a person asked for; while it runs, the button can say so; if it fails, it is told. */
export function useAction<A extends unknown[]>(action: (...args: A) => Promise<void>): { run: (...args: A) => void; busy: boolean } {
  const notify = useNotify();
  const [busy, setBusy] = useState(false);
  const latest = useRef(action);
  latest.current = action;
  const run = useCallback((...args: A) => {
    setBusy(true);
    latest.current(...args).catch((error: unknown) => notify(error instanceof Error ? error.message : 'That did not work.', 'error')).finally(() => setBusy(false));
  }, [notify]);
  return { run, busy };
}

export function Notices({ children }: { children: ReactNode }): ReactNode {
  const [notices, setNotices] = useState<readonly Notice[]>([]);
  const last = useRef(0);
  const drop = useCallback((id: number) => setNotices((all) => all.filter((one) => one.id !== id)), []);
  const notify = useCallback<Notify>((text, kind = 'info') => {
    const id = (last.current += 1);
    setNotices((all) => [...all.filter((one) => one.text !== text), { id, kind, text }].slice(-AT_ONCE_MAX));
    setTimeout(() => drop(id), SHOWN_MS[kind]);
  }, [drop]);
  const list = useMemo(() => notices.map((notice) => (
    <p key={notice.id} className={`notice notice-${notice.kind}`} data-testid="notice" data-kind={notice.kind}>
      <span>{notice.text}</span>
      <button type="button" className="icon-button" onClick={() => drop(notice.id)} aria-label="Dismiss">
        <Icon name="close" size={16} />
      </button>
    </p>
  )), [notices, drop]);
  const region = useRef<HTMLDivElement>(null);
  // A popover, shown anew with each notice, so that it stands above a dialog that is open meanwhile.
  useEffect(() => {
    const element = region.current;
    if (element === null || typeof element.showPopover !== 'function') return;
    if (element.matches(':popover-open')) element.hidePopover();
    if (notices.length > 0) element.showPopover();
  }, [notices]);
  return (
    <NotifyContext value={notify}>
      {children}
      <div ref={region} className="notices" role="status" aria-live="polite" popover="manual">{list}</div>
    </NotifyContext>
  );
}
