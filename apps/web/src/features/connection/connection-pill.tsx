/**
 * How the connection stands, in a word, a shape and a colour. In: the state from the hook above.
 * Out: a pill; without a connection it is a button that tries at once. Called by top bars.
 */
import { useConnection, useConnectionState } from '@talewire/react';
import type { ConnectionState } from '@talewire/client';
import type { ReactNode } from 'react';
import './connection.css';

const explained: Record<ConnectionState, string> = {
  connecting: 'Connecting to the story server.',
  live: 'Connected: you see what others write as they write it.',
  'catching up': 'Connected; what you missed is on its way.',
  offline: 'No connection. What you write is kept and sent when it is back.',
  stopped: 'No connection, and none is tried. What you write is kept.',
};

export function ConnectionPill(): ReactNode {
  const connection = useConnection();
  const state = useConnectionState();
  const inside = (
    <>
      <span className="pill-shape" aria-hidden="true" />
      <span>{state}</span>
    </>
  );
  return (
    <span role="status" className="pill-slot">
      {state === 'offline' || state === 'stopped' ? (
        <button type="button" className="pill" data-testid="connection" data-state={state} title={`${explained[state]} Press to try now.`} onClick={() => connection.retry()}>
          {inside}
        </button>
      ) : (
        <span className="pill" data-testid="connection" data-state={state} title={explained[state]}>
          {inside}
        </span>
      )}
    </span>
  );
}
