/**
 * Where one reads in a text that grows at both ends: at its end one is taken along, anywhere else the
 * page stays still under the eyes and says that there is new text.
 * In: the scrolling element, what stands first and last. Out: `unseen`, and a way to the end. Called by story-text.
 */
import { useCallback, useEffect, useLayoutEffect, useRef, useState, type RefObject } from 'react';

/** Nearer than this to the end counts as being there. */
const NEAR_PX = 90;
/** Nearer than this to the top, older turns are fetched before they are needed. */
const TOP_PX = 300;

export function useReadingPlace(options: { scroller: RefObject<HTMLElement | null>; content: RefObject<HTMLElement | null>; first: string | undefined; last: string; onTop: () => void }): { unseen: boolean; toEnd: () => void } {
  const { scroller, content, first, last } = options;
  const atEnd = useRef(true);
  const fromEnd_px = useRef(0);
  const before = useRef({ first, last });
  const onTop = useRef(options.onTop);
  onTop.current = options.onTop;
  const [unseen, setUnseen] = useState(false);

  const toEnd = useCallback(() => {
    const element = scroller.current;
    if (element !== null) element.scrollTop = element.scrollHeight;
    atEnd.current = true;
    setUnseen(false);
  }, [scroller]);

  /** Also needed when the text or the window changed its size: no scroll event tells of that. */
  const measure = useCallback((element: HTMLElement) => {
    fromEnd_px.current = element.scrollHeight - element.scrollTop;
    atEnd.current = fromEnd_px.current - element.clientHeight < NEAR_PX;
    if (atEnd.current) setUnseen(false);
  }, []);

  useLayoutEffect(() => {
    const element = scroller.current;
    const old = before.current;
    before.current = { first, last };
    if (element === null) return;
    // Older turns came in above: what was under the eyes keeps its distance from the end.
    if (old.first !== first && old.first !== undefined && old.last === last && !atEnd.current) element.scrollTop = element.scrollHeight - fromEnd_px.current;
    if (atEnd.current) element.scrollTop = element.scrollHeight;
    else if (old.last !== last) {
      setUnseen(true);
      // Taken back at once if what is new is in view already.
      measure(element);
    }
  }, [scroller, first, last, measure]);

  useEffect(() => {
    const element = scroller.current;
    const inner = content.current;
    if (element === null || inner === null) return;
    const scrolled = (): void => {
      measure(element);
      if (element.scrollTop < TOP_PX) onTop.current();
    };
    // Words stream in, images of the window change: whoever is at the end stays there.
    const grown = new ResizeObserver(() => {
      if (atEnd.current) element.scrollTop = element.scrollHeight;
      else measure(element);
    });
    grown.observe(inner);
    grown.observe(element);
    element.addEventListener('scroll', scrolled, { passive: true });
    return () => {
      grown.disconnect();
      element.removeEventListener('scroll', scrolled);
    };
  }, [scroller, content, measure]);

  return { unseen, toEnd };
}
