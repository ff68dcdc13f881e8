/**
 * What is shipped for operators, as text and as YAML, and what the binary says that it may refer to: settings with their
 * variables and defaults, metrics with their labels. In: files, a started server. Out: values to compare. Called by
 * the deploy-*.test.ts files.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { binary, withoutSettings } from './server.ts';

export const ROOT = resolve(import.meta.dirname, '../..');

/** By their paths in the repository. */
export function shippedFiles(): string[] {
  const inside = readdirSync(join(ROOT, 'deploy'), { recursive: true, withFileTypes: true });
  const files = inside.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name).slice(ROOT.length + 1));
  return [...files.sort(), 'Dockerfile', '.dockerignore'];
}

export const text = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

/** Every document of a file; a mistake in it is an error. */
export function documents(path: string): unknown[] {
  return parseAllDocuments(text(path), { merge: true }).map((document) => {
    if (document.errors.length > 0 || document.warnings.length > 0) throw new Error(`${path}: ${[...document.errors, ...document.warnings].join('\n')}`);
    return document.toJS() as unknown;
  });
}

interface Setting { path: string; variable: string; value: string }

/** What `talewire settings` lists. */
export const settings: readonly Setting[] = listed();

function listed(): Setting[] {
  const list = execFileSync(binary(), ['settings'], { encoding: 'utf8', env: withoutSettings({}) });
  return list.trim().split('\n').slice(1).map((line) => {
    const [path = '', variable = '', , value = ''] = line.split(/\s{2,}/);
    return { path, variable, value };
  });
}

/** A setting's default. */
export function setting(path: string): string {
  const found = settings.find((one) => one.path === path);
  if (found === undefined) throw new Error(`there is no setting ${path}`);
  return found.value;
}

export const number = (path: string): number => Number(setting(path));
/** Of one in milliseconds. */
export const seconds = (path: string): number => number(path) / 1000;

/** How long a node may take to stop. */
export const drain_s = settings.filter(({ path }) => path.includes('drain')).reduce((sum, { value }) => sum + Number(value) / 1000, 0);
/** The longest time in which a node says nothing on a stream or a WebSocket. */
export const silence_s = Math.max(seconds('limits.comment_interval_max_ms'), seconds('limits.ping_interval_ms'));
/** How long a poll may wait: PROTOCOL.md, section 5. */
export const POLL_S = Number(/`wait` \| how long to wait for news, in seconds: \d+ if absent, (\d+) at most/.exec(text('PROTOCOL.md'))?.[1]);

/** The number behind some words of a file. */
export function says(path: string, words: RegExp): number {
  const found = words.exec(text(path))?.[1];
  if (found === undefined) throw new Error(`${path} does not say ${String(words)}`);
  return Number(found);
}

/** One line of /metrics. */
export interface Sample { name: string; labels: Record<string, string> }

export function samples(metrics: string): Sample[] {
  return metrics.split('\n').filter((line) => line !== '' && !line.startsWith('#')).map((line) => {
    const [, name = '', labels = ''] = /^([a-z0-9_]+)(?:\{(.*?)\})? /.exec(line) ?? [];
    return { name, labels: Object.fromEntries(Array.from(labels.matchAll(/(\w+)="([^"]*)"/g), ([, key = '', value = '']) => [key, value])) };
  });
}

/** Labels that Prometheus and what finds its targets put on every sample. */
const FROM_OUTSIDE = ['instance', 'job', 'namespace', 'pod'];

/** What an expression asks for that no sample has. */
export function unknown(expression: string, known: readonly Sample[]): string[] {
  const found: string[] = [];
  for (const [selector, name = '', matchers = ''] of expression.matchAll(/\b((?:talewire|process)_\w+)(?:\{(.*?)\})?/g)) {
    const asked = Array.from(matchers.matchAll(/(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"/g), ([, label = '', how = '', value = '']) => ({ label, how, value }));
    const ours = asked.filter(({ label, value }) => !FROM_OUTSIDE.includes(label) && !value.startsWith('$'));
    const fits = ({ name: of, labels }: Sample): boolean =>
      of === name && ours.every(({ label, how, value }) => (how === '=' ? labels[label] === value : label in labels));
    if (!known.some(fits)) found.push(selector);
  }
  const grouped = Array.from(expression.matchAll(/\b(?:by|on|ignoring|without)\s*\(([^)]*)\)/g), ([, labels = '']) => labels.split(','));
  for (const label of grouped.flat().map((label) => label.trim())) {
    const told = FROM_OUTSIDE.includes(label) || label.startsWith('<<') || known.some(({ labels }) => label in labels);
    if (label !== '' && !told) found.push(`label ${label}`);
  }
  return found;
}
