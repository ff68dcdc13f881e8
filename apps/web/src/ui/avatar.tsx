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

/** Rose, orange, yellow, green, teal, blue, violet, pink: as far apart as names for colours are. */
const HUES = [15, 55, 95, 145, 195, 250, 295, 340] as const;

/** The same person looks the same in every window: one of eight hues, pale or strong. */
export function lookOf(id: string): { hue: number; tone: 'pale' | 'strong' } {
  let hash = 0x811c9dc5;
  for (let index = 0; index < id.length; index += 1) hash = Math.imul(hash ^ id.charCodeAt(index), 0x01000193);
  // The low bits of this hash depend on few characters: all of its bits are stirred into them.
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  hash ^= hash >>> 16;
  return { hue: HUES[hash & 7] ?? HUES[0], tone: (hash & 8) === 0 ? 'pale' : 'strong' };
}

export function Avatar({ kind, id, name, size = 28 }: { kind: 'person' | 'agent'; id: string; name: string; size?: number }): ReactNode {
  const { hue, tone } = lookOf(id);
  const style = { '--hue': hue, '--size': `${size}px` };
  return (
    <span className={`avatar avatar-${kind} avatar-${tone}`} style={style} aria-hidden="true">
      {kind === 'agent' ? <Icon name="quill" size={Math.round(size * 0.56)} /> : <span>{initials(name)}</span>}
    </span>
  );
}
