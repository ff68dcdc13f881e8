/**
 * Runs inside each page before its scripts: writes down every text that a streaming generation ever showed, so that a
 * test can say of each single one that it was a beginning of the final text. In: the page's changes. Out:
 * `window.talewireStreams`. Handed to the browser by browser.ts; uses nothing from outside itself.
 */
export interface Streamed {
  /** The attempt that each text belonged to, with the text; only changes are kept. */
  texts: { attempt: number; text: string }[];
}

declare global {
  interface Window {
    talewireStreams?: Record<string, Streamed>;
  }
}

export function watchStreams(): void {
  const seen: Record<string, Streamed> = {};
  window.talewireStreams = seen;
  const look = (): void => {
    for (const element of document.querySelectorAll<HTMLElement>('[data-testid="streaming"]')) {
      const text = Array.from(element.querySelectorAll('.prose p'), (paragraph) => paragraph.textContent).join('\n\n');
      const attempt = Number(element.dataset['attempt'] ?? '0');
      const streamed = (seen[element.dataset['generation'] ?? ''] ??= { texts: [] });
      const last = streamed.texts.at(-1);
      if (text !== '' && (last?.text !== text || last.attempt !== attempt)) streamed.texts.push({ attempt, text });
    }
  };
  new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
}
