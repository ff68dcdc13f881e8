/**
 * How much of the page an on-screen keyboard leaves, for browsers whose dvh does not know (Safari on iOS).
 * In: the visual viewport. Out: `--room` on <html> while a keyboard is up, which layout.css reads.
 * Called by main, once.
 */

/** Less than this is a toolbar that slides in, not a keyboard. */
const KEYBOARD_PX = 120;

export function watchKeyboardRoom(): void {
  const viewport = window.visualViewport;
  if (viewport === null) return;
  const measure = (): void => {
    // A pinched page also has a smaller visual viewport; it is not to be squeezed for that.
    const keyboard = viewport.scale === 1 && window.innerHeight - viewport.height > KEYBOARD_PX;
    if (keyboard) document.documentElement.style.setProperty('--room', `${viewport.height}px`);
    else document.documentElement.style.removeProperty('--room');
    // Safari also pushes the page up to show the field; with the room above, it need not.
    if (keyboard) window.scrollTo(0, 0);
  };
  viewport.addEventListener('resize', measure);
}
