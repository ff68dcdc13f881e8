/**
 * Event types as a filter over the tag `event`, and back.
 * In: a list of types (`message` for publications without one). Out: the filter that the official client sends
 * with a subscribe, and, from such a filter, the list again. Called by channel (to ask) and poll-translator (to read).
 */
import type { FilterNode } from 'centrifuge';
import { isRecord } from './wire.js';

/** The type of a publication that has none. */
export const NO_TYPE = 'message';
export const EVENT_TAG = 'event';

/** The type of a publication by its tags. */
export function typeOf(tags: Readonly<Record<string, string>> | undefined): string {
  return tags?.[EVENT_TAG] ?? NO_TYPE;
}

export function filterFor(events: readonly string[]): FilterNode {
  const named: FilterNode = { key: EVENT_TAG, cmp: 'in', vals: events.filter((event) => event !== NO_TYPE) };
  if (!events.includes(NO_TYPE)) return named;
  const none: FilterNode = { key: EVENT_TAG, cmp: 'nex' };
  return named.vals?.length === 0 ? none : { op: 'or', nodes: [named, none] };
}

/** The types that a filter lets pass; undefined for any filter that `filterFor` did not make. */
export function typesIn(filter: unknown): readonly string[] | undefined {
  if (!isRecord(filter)) return undefined;
  if (filter['op'] === 'or' && Array.isArray(filter['nodes'])) {
    const lists = filter['nodes'].map(typesIn);
    return lists.every((list) => list !== undefined) ? lists.flat() : undefined;
  }
  if (filter['key'] !== EVENT_TAG || (filter['op'] ?? '') !== '') return undefined;
  if (filter['cmp'] === 'nex') return [NO_TYPE];
  const values = filter['vals'];
  return filter['cmp'] === 'in' && Array.isArray(values) && values.every((value) => typeof value === 'string') ? values : undefined;
}
