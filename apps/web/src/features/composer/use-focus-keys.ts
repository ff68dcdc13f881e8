/**
 * `/` or `n` puts the cursor into the box, as long as nobody is writing elsewhere.
 * In: keys pressed on the page. Out: focus. Called by the composer.
 */
import { useEffect, type RefObject } from 'react';

function isWriting(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

export function useFocusKeys(box: RefObject<HTMLTextAreaElement | null>): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      if ((event.key !== '/' && event.key !== 'n') || event.ctrlKey || event.metaKey || event.altKey) return;
      // Inside a dialog the page behind is not to be reached.
      if (isWriting(event.target) || document.querySelector('dialog[open]') !== null) return;
      event.preventDefault();
      box.current?.focus();
    };
    window.addEventListener('keydown', press);
    return () => window.removeEventListener('keydown', press);
  }, [box]);
}
