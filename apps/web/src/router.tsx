/**
 * Which page the address means, over the history API.
 * In: the address bar. Out: a Route, `navigate`, and links that do not reload. Called by app and by
 * whatever links somewhere.
 */
import { useSyncExternalStore, type AnchorHTMLAttributes, type MouseEvent, type ReactNode } from 'react';

export type Route =
  | { page: 'home' }
  | { page: 'story'; story: string; branch: string | undefined }
  | { page: 'join'; code: string }
  | { page: 'unknown' };

export function routeOf(pathname: string, search: string): Route {
  const [first, second, ...rest] = pathname.split('/').filter((part) => part !== '').map(decoded);
  if (first === undefined) return { page: 'home' };
  if (second === undefined || rest.length > 0) return { page: 'unknown' };
  if (first === 's') return { page: 'story', story: second, branch: new URLSearchParams(search).get('branch') ?? undefined };
  if (first === 'join') return { page: 'join', code: second };
  return { page: 'unknown' };
}

/** A broken percent sign in an address is the visitor's typo, not our crash. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const storyPath = (story: string, branch?: string): string => `/s/${encodeURIComponent(story)}${branch === undefined ? '' : `?branch=${encodeURIComponent(branch)}`}`;
export const joinPath = (code: string): string => `/join/${encodeURIComponent(code)}`;

const MOVED = 'talewire:moved';

export function navigate(path: string, how: 'push' | 'replace' = 'push'): void {
  if (path === window.location.pathname + window.location.search) return;
  if (how === 'push') window.history.pushState(null, '', path);
  else window.history.replaceState(null, '', path);
  window.dispatchEvent(new Event(MOVED));
}

function subscribe(listener: () => void): () => void {
  window.addEventListener('popstate', listener);
  window.addEventListener(MOVED, listener);
  return () => {
    window.removeEventListener('popstate', listener);
    window.removeEventListener(MOVED, listener);
  };
}

export function useRoute(): Route {
  const address = useSyncExternalStore(subscribe, () => window.location.pathname + window.location.search);
  const [pathname = '/', search = ''] = address.split(/(?=\?)/, 2);
  return routeOf(pathname, search);
}

export function Link({ to, children, ...rest }: { to: string; children: ReactNode } & Omit<AnchorHTMLAttributes<HTMLAnchorElement>, 'href'>): ReactNode {
  const follow = (event: MouseEvent): void => {
    // A new tab or window is the browser's business.
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    navigate(to);
  };
  return (
    <a {...rest} href={to} onClick={follow}>
      {children}
    </a>
  );
}
