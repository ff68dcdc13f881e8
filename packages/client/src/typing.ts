/**
 * Who is typing, and when to say that oneself is: two pure functions over a time given by the caller.
 * In: typing signals and the clock. Out: the typers still to be shown, and whether a signal is due.
 * No timers or sockets. Called by live-story.
 */

/** A typer is shown until told otherwise, or until this long without news: signals may be lost. */
export const TYPER_SHOWN_MS = 6000;
/** While somebody types, they say so at most this often. */
export const TYPING_SENT_EVERY_MS = 2000;

export interface Typer { readonly user: string; readonly name: string; readonly until_ms: number }

export type TypingInput =
  | { type: 'signal'; user: string; name: string; typing: boolean }
  | { type: 'tick' };

export function stepTyping(state: readonly Typer[], input: TypingInput, now_ms: number): readonly Typer[] {
  const alive = state.filter((typer) => typer.until_ms > now_ms);
  if (input.type === 'tick') return alive.length === state.length ? state : alive;
  const others = alive.filter((typer) => typer.user !== input.user);
  if (!input.typing) return others.length === state.length ? state : others;
  return [...others, { user: input.user, name: input.name, until_ms: now_ms + TYPER_SHOWN_MS }].sort((a, b) => a.name.localeCompare(b.name));
}

/** What one said last: nothing yet, or a signal at a time. */
export interface Said { readonly typing: boolean; readonly at_ms: number }

/** Whether `typing` is worth a signal now: a stop at once and once, a start every two seconds. */
export function isDue(said: Said | undefined, typing: boolean, now_ms: number): boolean {
  if (!typing) return said?.typing === true;
  return said?.typing !== true || now_ms - said.at_ms >= TYPING_SENT_EVERY_MS;
}
