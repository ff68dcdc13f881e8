/**
 * The ways on after a turn. In: its choices, and which branch one reads. Out: `onPick` for one that
 * nobody took, `onRead` for one that has a branch already. Called by story-text.
 */
import type { Branch, Choice } from '@talewire/client';
import { useState, type ReactNode } from 'react';
import { Icon } from '../../ui/icon';
import './choices.css';

export function ChoicesView(props: {
  choices: readonly Choice[];
  branches: ReadonlyMap<string, Branch>;
  /** The branches that the page's path runs through. */
  onPage: ReadonlySet<string>;
  /** The text ends here, so that choosing is what one would do next. */
  last: boolean;
  canPick: boolean;
  onPick: (choice: string) => Promise<void>;
  onRead: (branch: string) => void;
}): ReactNode {
  const [picking, setPicking] = useState<string | undefined>();
  const pick = (choice: string): void => {
    setPicking(choice);
    void props.onPick(choice).finally(() => setPicking(undefined));
  };
  return (
    <div className={`choices${props.last ? '' : ' choices-past'}`} role="group" aria-label="Ways on from here">
      {props.choices.map((choice) => {
        const branch = choice.branch;
        const here = branch !== undefined && props.onPage.has(branch);
        const taken = branch !== undefined;
        const label = branch === undefined ? undefined : props.branches.get(branch)?.label;
        return (
          <button
            key={choice.id}
            type="button"
            className={`choice${taken ? ' choice-taken' : ''}${here ? ' choice-here' : ''}`}
            data-testid="choice"
            data-choice-id={choice.id}
            data-branch={branch}
            disabled={picking !== undefined || (!taken && !props.canPick) || here}
            onClick={() => (branch === undefined ? pick(choice.id) : props.onRead(branch))}
          >
            <span className="choice-sign" aria-hidden="true">{taken ? <Icon name={here ? 'check' : 'branch'} size={16} /> : choice.number}</span>
            <span className="choice-words">
              {choice.label}
              {here && <span className="choice-state">this page follows it</span>}
              {taken && !here && <span className="choice-state">taken: read the branch{label === undefined || label === choice.label ? '' : ` “${label}”`}</span>}
              {picking === choice.id && <span className="choice-state">choosing…</span>}
            </span>
          </button>
        );
      })}
    </div>
  );
}
