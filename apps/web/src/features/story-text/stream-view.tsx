/**
 * A generation while it is written: the words as they come, a caret, a Stop button in every window.
 * In: an open generation and its live story. Out: the growing text. Called by story-text for each open
 * generation of the branch; screen readers hear that it began and ended (announcer), not every word.
 */
import type { Generation, LiveStory } from '@talewire/client';
import { useGeneration } from '@talewire/react';
import type { ReactNode } from 'react';
import { Icon } from '../../ui/icon';
import { useAction } from '../../ui/notices';
import { ProseView } from '../../ui/prose-view';
import { Byline } from './byline';

export function StreamView({ live, generation, label, canStop, offline }: { live: LiveStory; generation: Generation; label: string; canStop: boolean; offline: boolean }): ReactNode {
  const stream = useGeneration(live, generation.id);
  const stop = useAction(() => live.stop(generation.id));
  const waiting = stream.text === '';
  const again = stream.attempt > 1;
  return (
    <article className="turn turn-agent turn-stream" data-testid="streaming" data-generation={generation.id} data-attempt={stream.attempt} data-status={generation.status} aria-busy="true" aria-label={`${generation.agent.name}, agent, is writing`}>
      <Byline author={{ kind: 'agent', id: generation.agent.id, name: generation.agent.name }} label={label}>
        {again && <span className="byline-label">starting over</span>}
      </Byline>
      <div className="turn-text">
        {waiting ? (
          <p className="stream-waiting soft">
            {generation.status === 'queued' ? 'is about to write' : 'is finding the words'}
            <span className="caret" aria-hidden="true" />
          </p>
        ) : (
          <ProseView text={stream.text} tail={<span className="caret" aria-hidden="true" />} />
        )}
        {canStop && (
          <button type="button" className="button stream-stop" onClick={() => stop.run()} disabled={stop.busy || offline} title={offline ? 'There is no connection: the narrator can be stopped when it is back.' : undefined} data-testid="stop">
            <Icon name="stop" size={20} /> {stop.busy ? 'Stopping…' : 'Stop'}
          </button>
        )}
      </div>
    </article>
  );
}

/** A generation that ended without a turn, at the place where it would have stood. */
export function EndedView({ generation, onAgain }: { generation: Generation; onAgain: (() => void) | undefined }): ReactNode {
  const failed = generation.status === 'failed';
  return (
    <div className={`ended${failed ? ' ended-failed' : ''}`} data-testid="generation-ended" data-generation={generation.id} data-status={generation.status}>
      <p>
        {failed ? `${generation.agent.name} could not finish: ${generation.reason?.message ?? 'no reason was given'}.` : `${generation.agent.name} was stopped before the first word.`}
      </p>
      {onAgain !== undefined && (
        <button type="button" className="button" onClick={onAgain} data-testid="try-again">Try again</button>
      )}
    </div>
  );
}
