/**
 * Remembers by which link this browser came into a story, so that a second guest of the same browser
 * can come in by it too. In: a story and a code. Out: the code. Called by the story and join routes.
 */
const keyOf = (story: string): string => `talewire.code.${story}`;

export function rememberCode(story: string, code: string): void {
  try {
    localStorage.setItem(keyOf(story), code);
  } catch {
    // Without storage the second guest needs the link once more.
  }
}

export function rememberedCode(story: string): string | undefined {
  try {
    return localStorage.getItem(keyOf(story)) ?? undefined;
  } catch {
    return undefined;
  }
}
