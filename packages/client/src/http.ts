/**
 * HTTP under /app with the right credentials: the cookie and its CSRF token, or a tab's own token.
 * In: a path and a body. Out: parsed JSON, or a TalewireError. Called by login, connection and
 * poll-socket, and by the page for the export, which is not JSON.
 */
import { codes, fromHttp, noAnswer } from './errors.js';

export const REQUEST_TIMEOUT_MS = 10_000;

export class Http {
  /** A tab's own token; when it is set, cookies stay out of it. */
  token: string | undefined;
  /** Kept in memory only: a script that can read storage must not find it. */
  csrf: string | undefined;
  /**
   * Asks the server anew who this is, and for a new CSRF token. False when it is somebody else by now:
   * another tab may have changed the cookie, and nothing of one person may be sent again as another.
   */
  refresh: (() => Promise<boolean>) | undefined;
  /** Called when a request shows that the login is not good any more. */
  onUnauthorized: (() => void) | undefined;

  readonly #base: string;
  readonly #fetch: typeof fetch;

  constructor(base = '', fetcher: typeof fetch = (...args) => globalThis.fetch(...args)) {
    this.#base = base;
    this.#fetch = fetcher;
  }

  async get(path: string): Promise<unknown> {
    return this.#json(await this.raw('GET', path));
  }

  /** A CSRF token goes stale when the server forgets or changes it: it is asked for anew, once. */
  async post(path: string, body: unknown): Promise<unknown> {
    const first = await this.raw('POST', path, body);
    if (first.status !== 403 || this.token !== undefined || this.refresh === undefined) return this.#json(first);
    const stale = this.csrf;
    const same = await this.refresh();
    if (!same || this.csrf === stale) return this.#json(first);
    return this.#json(await this.raw('POST', path, body));
  }

  /** With a signal, the caller says when to stop waiting; else a request ends after ten seconds. */
  async raw(method: 'GET' | 'POST', path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = {};
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    if (this.token !== undefined) headers['Authorization'] = `Bearer ${this.token}`;
    else if (this.csrf !== undefined && method === 'POST') headers['X-CSRF-Token'] = this.csrf;
    try {
      return await this.#fetch(this.#base + path, {
        method,
        headers,
        credentials: this.token === undefined ? 'same-origin' : 'omit',
        signal: signal ?? AbortSignal.timeout(REQUEST_TIMEOUT_MS),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    } catch {
      throw noAnswer();
    }
  }

  async #json(response: Response): Promise<unknown> {
    const body: unknown = await response.json().catch(() => undefined);
    if (response.ok) {
      if (body === undefined) throw noAnswer('The answer was cut off.');
      return body;
    }
    const error = fromHttp(response.status, body, response.headers.get('Retry-After'));
    if (response.status === 401 || error.code === codes.unauthorized) this.onUnauthorized?.();
    throw error;
  }
}
