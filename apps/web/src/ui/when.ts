/**
 * Times in words. In: Unix milliseconds and now. Out: "5 minutes ago", or a date when it is long ago.
 * Called by lists that show when something happened.
 */
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });
const date = new Intl.DateTimeFormat('en', { day: 'numeric', month: 'long', year: 'numeric' });

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

export function when(at_ms: number, now_ms: number): string {
  const past_ms = now_ms - at_ms;
  if (past_ms < MINUTE_MS) return 'just now';
  if (past_ms < HOUR_MS) return relative.format(-Math.floor(past_ms / MINUTE_MS), 'minute');
  if (past_ms < DAY_MS) return relative.format(-Math.floor(past_ms / HOUR_MS), 'hour');
  if (past_ms < 14 * DAY_MS) return relative.format(-Math.floor(past_ms / DAY_MS), 'day');
  return date.format(at_ms);
}
