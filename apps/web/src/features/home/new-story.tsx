/**
 * Starts a story: a title, and an opening if one has one. In: what was typed. Out: `onStart`, which
 * creates it and goes there. Called by the home page.
 */
import { useState, type SyntheticEvent, type ReactNode } from 'react';
import { useAction } from '../../ui/notices';

export function NewStory({ onStart }: { onStart: (title: string, opening: string) => Promise<void> }): ReactNode {
  const [title, setTitle] = useState('');
  const [opening, setOpening] = useState('');
  const start = useAction(onStart);
  const ready = title.trim() !== '' && !start.busy;
  const send = (event: SyntheticEvent): void => {
    event.preventDefault();
    if (ready) start.run(title.trim(), opening.trim());
  };
  return (
    <form className="new-story" onSubmit={send}>
      <label className="field">
        <span>Title</span>
        <input className="input new-story-title" data-testid="new-story-title" value={title} onChange={(event) => setTitle(event.target.value)} maxLength={120} placeholder="The lighthouse at the end of the road" autoComplete="off" />
      </label>
      <label className="field">
        <span>How does it begin? (optional)</span>
        <textarea className="input new-story-opening" data-testid="new-story-opening" value={opening} onChange={(event) => setOpening(event.target.value)} rows={4} placeholder="The first sentences, if you have them already." />
      </label>
      <div>
        <button className="button button-primary" data-testid="new-story-submit" disabled={!ready}>Start the story</button>
      </div>
    </form>
  );
}
