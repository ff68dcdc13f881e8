/**
 * Turns that were sent and are not on the page yet: kept on a shelf so that a reload loses none.
 * In: a new turn, what became of it, the story's state. Out: the list to show, and to send again.
 * Pure apart from the shelf. Called by live-story.
 */
import type { TalewireError } from './errors.js';
import type { Shelf } from './login.js';
import { isRecord, type Turn } from './wire.js';

export interface PendingTurn {
  /** Made once, sent with every repetition: however often it arrives, it is one turn. */
  readonly key: string;
  readonly branch: string;
  readonly text: string;
  /**
   * sending: on its way, again and again. accepted: answered, but the log has not brought it yet.
   * refused: definitely not taken. unanswered: given up; sending again with the same key is safe.
   */
  readonly status: 'sending' | 'accepted' | 'refused' | 'unanswered';
  readonly turn?: string;
  readonly error?: TalewireError;
}

export function changed(pending: readonly PendingTurn[], key: string, change: Partial<PendingTurn>): readonly PendingTurn[] {
  return pending.map((one) => (one.key === key ? { ...one, ...change } : one));
}

/** Without those that the page already shows: the log may bring a turn before or after its answer. */
export function withoutLanded(pending: readonly PendingTurn[], turns: ReadonlyMap<string, Turn>): readonly PendingTurn[] {
  const left = pending.filter((one) => one.turn === undefined || !turns.has(one.turn));
  return left.length === pending.length ? pending : left;
}

/**
 * A turn of mine with the same text that the log brought before the answer: shown once, not twice.
 * Only a guess, so it only hides; the answer settles it.
 */
export function shown(pending: readonly PendingTurn[], fresh: readonly Turn[]): readonly PendingTurn[] {
  const arrived = fresh.map((turn) => `${turn.branch}\n${turn.text}`);
  return pending.filter((one) => {
    const at = one.status === 'sending' ? arrived.indexOf(`${one.branch}\n${one.text.trim()}`) : -1;
    if (at >= 0) arrived.splice(at, 1);
    return at < 0;
  });
}

function shelfKey(user: string, story: string): string {
  return `talewire.pending.${user}.${story}`;
}

export function keep(shelf: Shelf | undefined, user: string, story: string, pending: readonly PendingTurn[]): void {
  const waiting = pending.filter((one) => one.status !== 'accepted').map(({ key, branch, text }) => ({ key, branch, text }));
  try {
    if (waiting.length === 0) shelf?.removeItem(shelfKey(user, story));
    else shelf?.setItem(shelfKey(user, story), JSON.stringify(waiting));
  } catch {
    // Storage is full or forbidden: the turn still lives in this page.
  }
}

/** What an earlier page left behind; all of it is sent again, under its old keys. */
export function kept(shelf: Shelf | undefined, user: string, story: string): readonly PendingTurn[] {
  try {
    const parsed: unknown = JSON.parse(shelf?.getItem(shelfKey(user, story)) ?? '[]');
    if (!Array.isArray(parsed)) return [];
    return parsed.flatMap((one: unknown): PendingTurn[] =>
      isRecord(one) && typeof one['key'] === 'string' && typeof one['branch'] === 'string' && typeof one['text'] === 'string'
        ? [{ key: one['key'], branch: one['branch'], text: one['text'], status: 'sending' }]
        : [],
    );
  } catch {
    return [];
  }
}
