/**
 * Which branch one reads, and the others. In: the story's branches, the one on the page, the live one.
 * Out: `onRead` with a branch. Called by the story's bar.
 */
import type { Branch } from '@talewire/client';
import { useState, type ReactNode } from 'react';
import { Dialog } from '../../ui/dialog';
import { Icon } from '../../ui/icon';
import './branches.css';

interface Row { branch: Branch; depth: number }

/** Children stand below their parent, in the order in which they began. */
export function branchTree(branches: readonly Branch[]): Row[] {
  const ids = new Set(branches.map((branch) => branch.id));
  const children = new Map<string, Branch[]>();
  for (const branch of [...branches].sort((a, b) => a.created_at - b.created_at)) {
    const above = branch.parent !== undefined && ids.has(branch.parent) ? branch.parent : '';
    children.set(above, [...(children.get(above) ?? []), branch]);
  }
  const rows: Row[] = [];
  const add = (above: string, depth: number): void => {
    for (const branch of children.get(above) ?? []) {
      rows.push({ branch, depth });
      add(branch.id, depth + 1);
    }
  };
  add('', 0);
  return rows;
}

export function BranchSwitch(props: { branches: readonly Branch[]; reading: string; live: string; onRead: (branch: string) => void }): ReactNode {
  const [open, setOpen] = useState(false);
  const current = props.branches.find((branch) => branch.id === props.reading);
  const elsewhere = props.reading !== props.live;
  const label = current?.label ?? 'Branch';
  const read = (branch: string): void => {
    props.onRead(branch);
    setOpen(false);
  };
  return (
    <>
      <button type="button" className="icon-button branch-button" onClick={() => setOpen(true)} aria-haspopup="dialog" data-testid="branch-switch" data-branch={props.reading} data-live={!elsewhere} aria-label={`Branches. You read ${label}${elsewhere ? ', not the live one' : ', the live one'}.`} title={`You read: ${label}`}>
        <Icon name="branch" />
        {props.branches.length > 1 && <span className="branch-count" aria-hidden="true">{props.branches.length}</span>}
      </button>
      {open && (
        <Dialog title="Branches" onClose={() => setOpen(false)}>
          <p className="soft">A story forks where somebody picks a choice. The live branch is where it goes on now.</p>
          <ul className="branch-list">
            {branchTree(props.branches).map(({ branch, depth }) => (
              <li key={branch.id} style={{ '--depth': Math.min(depth, 6) }}>
                <button type="button" className="branch-row" aria-current={branch.id === props.reading} onClick={() => read(branch.id)} data-testid="branch-option" data-branch-id={branch.id}>
                  <span className="branch-label">{branch.label}</span>
                  {branch.id === props.live && <span className="badge branch-live">live</span>}
                  {branch.id === props.reading && <span className="badge">you read this</span>}
                </button>
              </li>
            ))}
          </ul>
        </Dialog>
      )}
    </>
  );
}

/** Says honestly that this page is not where the story goes on. */
export function BranchBanner(props: { liveLabel: string; onLive: () => void }): ReactNode {
  return (
    <p className="branch-banner" data-testid="branch-banner">
      <Icon name="branch" size={18} />
      <span>This is not the live branch. The story goes on in <strong>{props.liveLabel}</strong>.</span>
      <button type="button" className="button button-quiet" onClick={props.onLive} data-testid="go-live">Go there</button>
    </p>
  );
}
