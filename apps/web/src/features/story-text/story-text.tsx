/**
 * The story on the page: title, turns, what is being written, what is on its way, the ways on.
 * In: the state of a story and the branch one reads. Out: calls to pick, stop, ask again, load older
 * turns. Called by the story's page; the scrolling itself is use-reading-place.
 */
import { choicesAfter, isEnd, openGeneration, type Generation, type LiveStory, type Path, type PendingTurn, type StoryState } from '@talewire/client';
import { Fragment, useEffect, useMemo, useRef, type ReactNode } from 'react';
import { Icon } from '../../ui/icon';
import { Announcer } from './announcer';
import { ChoicesView } from './choices-view';
import { PendingView } from './pending-view';
import { EndedView, StreamView } from './stream-view';
import { goesOn, TurnView } from './turn-view';
import { useReadingPlace } from './use-reading-place';
import './story-text.css';

export interface StoryTextProps {
  live: LiveStory;
  state: StoryState;
  path: Path;
  branch: string;
  pending: readonly PendingTurn[];
  narratorLabel: string;
  loadingOlder: boolean;
  /** What one does now does not arrive before the connection is back. */
  offline: boolean;
  /** Raised each time one sends something oneself: then the end is where one wants to be. */
  sent: number;
  onOlder: () => void;
  onPick: (choice: string) => Promise<void>;
  onRead: (branch: string) => void;
  onAsk: () => void;
  onTakeBack: (pending: PendingTurn) => void;
  onRename: (() => void) | undefined;
}

/** The last generation of this branch that ended without a turn, if nothing was written since. */
function endedHere(state: StoryState, branch: string, lastTurn: string | undefined): Generation | undefined {
  const made = new Set([...state.turns.values()].map((turn) => turn.generation?.id));
  return [...state.generations.values()]
    .filter((one) => one.branch === branch && (one.status === 'failed' || one.status === 'cancelled') && one.after === lastTurn && !made.has(one.id))
    .sort((a, b) => b.requested_at - a.requested_at)[0];
}

export function StoryText(props: StoryTextProps): ReactNode {
  const { live, state, branch, path: { turns, more } } = props;
  const scroller = useRef<HTMLElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const canWrite = state.me.role !== 'reader';
  const last = turns.at(-1);
  const open = openGeneration(state, branch);
  const ended = open === undefined ? endedHere(state, branch, last?.id) : undefined;
  const pending = props.pending.filter((one) => one.branch === branch);
  const onPage = useMemo(() => new Set(turns.map((turn) => turn.branch)), [turns]);

  const { unseen, toEnd } = useReadingPlace({
    scroller,
    content,
    first: turns[0]?.id,
    last: [branch, last?.id, open?.id, pending.length].join(' '),
    onTop: () => {
      if (more && !props.loadingOlder) props.onOlder();
    },
  });
  useEffect(() => {
    if (props.sent > 0) toEnd();
  }, [props.sent, toEnd]);

  return (
    <div className="text-frame">
      <main id="story" className="text-scroll" ref={scroller} tabIndex={-1}>
        <div className="text-sheet" ref={content}>
          <header className="text-title">
            <h1 data-testid="story-title">{state.story.title}</h1>
            {props.onRename !== undefined && (
              <button type="button" className="icon-button" onClick={props.onRename} aria-label="Rename the story" title="Rename" data-testid="rename"><Icon name="pencil" size={18} /></button>
            )}
          </header>
          {more && (
            <p className="text-older">
              <button type="button" className="button" onClick={props.onOlder} disabled={props.loadingOlder} data-testid="older">{props.loadingOlder ? 'Fetching earlier turns…' : 'Earlier turns'}</button>
            </p>
          )}
          {turns.length === 0 && !more && open === undefined && pending.length === 0 && (
            <p className="text-empty">The page is empty. {canWrite ? 'Write the first sentence, or ask the narrator to begin.' : 'Nobody has written the first sentence yet.'}</p>
          )}
          {turns.map((turn, index) => {
            const choices = choicesAfter(state, turn.id);
            const before = turns[index - 1];
            const parted = before !== undefined && choicesAfter(state, before.id).length > 0;
            return (
              <Fragment key={turn.id}>
                <TurnView turn={turn} continues={goesOn(before, turn) && !parted} />
                {choices.length > 0 && (
                  <div className="turn">
                    <div className="turn-text">
                      <ChoicesView choices={choices} branches={state.branches} onPage={onPage} last={turn === last && open === undefined} canPick={canWrite} onPick={props.onPick} onRead={props.onRead} />
                    </div>
                  </div>
                )}
              </Fragment>
            );
          })}
          {open !== undefined && !isEnd(open.status) && <StreamView key={open.id} live={live} generation={open} label={props.narratorLabel} canStop={canWrite} offline={props.offline} />}
          {ended !== undefined && <EndedView generation={ended} onAgain={canWrite ? props.onAsk : undefined} />}
          {pending.map((one) => (
            <PendingView key={one.key} pending={one} offline={props.offline} onAgain={() => void live.sendAgain(one.key)} onTakeBack={() => props.onTakeBack(one)} />
          ))}
        </div>
      </main>
      {unseen && (
        <button type="button" className="button text-new" onClick={toEnd} data-testid="new-text">New text <Icon name="down" size={18} /></button>
      )}
      <Announcer last={last} open={open} me={state.me.user} />
    </div>
  );
}
