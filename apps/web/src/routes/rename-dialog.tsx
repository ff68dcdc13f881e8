/** Gives the story another title. In: the old one. Out: `onRename`. Called by the story's route, for owners. */
import { useState, type SyntheticEvent, type ReactNode } from 'react';
import { Dialog } from '../ui/dialog';
import { useAction } from '../ui/notices';

export function RenameDialog({ title, onRename, onClose }: { title: string; onRename: (title: string) => Promise<void>; onClose: () => void }): ReactNode {
  const [text, setText] = useState(title);
  const rename = useAction(async () => {
    await onRename(text.trim());
    onClose();
  });
  const send = (event: SyntheticEvent): void => {
    event.preventDefault();
    if (text.trim() !== '') rename.run();
  };
  return (
    <Dialog title="Rename the story" onClose={onClose}>
      <form className="card-form" onSubmit={send}>
        <label className="field">
          <span>Title</span>
          <input className="input" value={text} onChange={(event) => setText(event.target.value)} maxLength={120} autoFocus data-testid="rename-title" />
        </label>
        <button className="button button-primary" disabled={text.trim() === '' || rename.busy} data-testid="rename-submit">Rename</button>
      </form>
    </Dialog>
  );
}
