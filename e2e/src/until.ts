/**
 * Waiting for a named condition with a deadline; nothing in these tests waits for time to pass.
 * In: a name, a check. Out: what the check found, or an error with the name and what was last seen.
 */
const EVERY_MS = 25;
export const DEADLINE_MS = 15_000;

/** Repeats `check` until it gives something other than `undefined` or `false`. */
export async function until<T>(name: string, check: () => T | Promise<T>, deadline_ms = DEADLINE_MS, seen?: () => unknown): Promise<Exclude<T, undefined | false>> {
  const end = performance.now() + deadline_ms;
  for (;;) {
    const found = await check();
    if (found !== undefined && found !== false) return found as Exclude<T, undefined | false>;
    if (performance.now() > end) {
      const last = seen === undefined ? '' : `; last seen: ${JSON.stringify(await seen())}`;
      throw new Error(`not within ${deadline_ms} ms: ${name}${last}`);
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

/** `promise`, or an error with the name when it takes too long. */
export async function within<T>(name: string, promise: Promise<T>, deadline_ms = DEADLINE_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${deadline_ms} ms: ${name}`)), deadline_ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
