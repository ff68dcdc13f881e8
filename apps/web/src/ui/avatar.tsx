/**
 * A small sign for a person (round, initials) or an agent (a diamond with a quill): told apart by shape,
 * not only by colour. In: an id and a name. Out: a picture; the name stands beside it or in its title.
 */
import type { ReactNode } from 'react';
import { Icon } from './icon';
import './avatar.css';

const characters = new Intl.Segmenter();

/** Two letters at most, whole characters, so that no emoji or accent is cut in half. */
export function initials(name: string): string {
  const words = name.trim().split(/\s+/u).filter((word) => word !== '');
  const picked = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  return picked.map((word) => [...characters.segment(word ?? '')][0]?.segment ?? '').join('').toLocaleUpperCase();
}

/** The same person has the same hue in every window: one of twelve, so that two that differ differ visibly. */
export function hueOf(id: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < id.length; index += 1) hash = Math.imul(hash ^ id.charCodeAt(index), 0x01000193);
  return ((hash >>> 8) % 12) * 30;
}

export function Avatar({ kind, id, name, size = 28 }: { kind: 'person' | 'agent'; id: string; name: string; size?: number }): ReactNode {
  const style = { '--hue': hueOf(id), '--size': `${size}px` };
  return (
    <span className={`avatar avatar-${kind}`} style={style} aria-hidden="true">
      {kind === 'agent' ? <Icon name="quill" size={Math.round(size * 0.56)} /> : <span>{initials(name)}</span>}
    </span>
  );
}
