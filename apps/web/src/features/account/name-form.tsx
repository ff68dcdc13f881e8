/**
 * Asks for a display name and nothing else. In: a sentence of why. Out: the name, trimmed, to `onName`.
 * Called by the first visit and by "join as someone else".
 */
import { useState, type SyntheticEvent, type ReactNode } from 'react';
import { useAction } from '../../ui/notices';

export const NAME_MAX = 40;

export function NameForm({ submit, onName }: { submit: string; onName: (name: string) => Promise<void> }): ReactNode {
  const [name, setName] = useState('');
  const action = useAction(onName);
  const trimmed = name.trim();
  const send = (event: SyntheticEvent): void => {
    event.preventDefault();
    if (trimmed !== '') action.run(trimmed);
  };
  return (
    <form className="card-form" onSubmit={send}>
      <label className="field">
        <span>Your name</span>
        <input className="input" data-testid="name-input" value={name} onChange={(event) => setName(event.target.value)} maxLength={NAME_MAX} autoComplete="nickname" autoFocus placeholder="Ana" />
      </label>
      <button className="button button-primary" data-testid="name-submit" disabled={trimmed === '' || action.busy}>
        {submit}
      </button>
    </form>
  );
}
