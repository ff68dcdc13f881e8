/**
 * Turns a turn's plain text into paragraphs and light emphasis, as data. Nothing here is HTML, so nothing
 * that somebody writes can become HTML. In: text. Out: paragraphs of spans. Called by prose-view.
 */
export interface Span { text: string; style: 'plain' | 'em' | 'strong' }

/** Blank lines part paragraphs; a single line break inside one stays a line break (verse, letters). */
export function paragraphs(text: string): string[] {
  return text.replace(/\r\n?/g, '\n').split(/\n[ \t]*\n+/).map((part) => part.replace(/^\n+|\s+$/g, '')).filter((part) => part.trim() !== '');
}

/** `*so*` or `_so_` and `**so**`: only around whole words, so that 2*3*4 and snake_case stay themselves. */
const marked = /(?<![\p{L}\p{N}*_])(\*\*|\*|_)(?=\S)([^*_\n]*[^*_\s])\1(?![\p{L}\p{N}*_])/gu;

export function spans(paragraph: string): Span[] {
  const found: Span[] = [];
  let at = 0;
  for (const match of paragraph.matchAll(marked)) {
    const [whole, mark, inner] = match;
    if (inner === undefined) continue;
    if (match.index > at) found.push({ text: paragraph.slice(at, match.index), style: 'plain' });
    found.push({ text: inner, style: mark === '**' ? 'strong' : 'em' });
    at = match.index + whole.length;
  }
  if (at < paragraph.length) found.push({ text: paragraph.slice(at), style: 'plain' });
  return found;
}
