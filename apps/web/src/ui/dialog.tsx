/**
 * A modal dialog on the platform's own <dialog>: focus stays inside, Esc closes, the page behind is inert.
 * In: a title and content while open. Out: `onClose` however it was closed. Called by features.
 */
import { useEffect, useId, useRef, type MouseEvent, type ReactNode } from 'react';
import { Icon } from './icon';
import './dialog.css';

/** steady: one that grows while it is open, without moving what stands in it already. */
type Place = 'middle' | 'corner' | 'steady';

export function Dialog(props: { title: string; onClose: () => void; children: ReactNode; place?: Place }): ReactNode {
  const ref = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  useEffect(() => {
    const dialog = ref.current;
    if (dialog === null) return;
    if (!dialog.open) dialog.showModal();
    return () => dialog.close();
  }, []);
  // A click on the backdrop is a click on the dialog element itself, outside of its padding box's children.
  const outside = (event: MouseEvent): void => {
    if (event.target === ref.current) props.onClose();
  };
  return (
    <dialog ref={ref} className={`dialog dialog-${props.place ?? 'middle'}`} aria-labelledby={titleId} onCancel={(event) => { event.preventDefault(); props.onClose(); }} onClick={outside}>
      <div className="dialog-body">
        <header className="dialog-head">
          <h2 id={titleId}>{props.title}</h2>
          <button type="button" className="icon-button" onClick={props.onClose} aria-label="Close">
            <Icon name="close" />
          </button>
        </header>
        {props.children}
      </div>
    </dialog>
  );
}
