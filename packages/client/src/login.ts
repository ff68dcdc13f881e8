/**
 * Who this tab is: the guest of the browser's cookie, or a second guest of this tab alone.
 * In: a name typed by a person, and what the server says of the login. Out: a watched LoginState, and
 * the credentials that http and connection use. Called by the page; one per tab.
 */
import { Cell } from './cell.js';
import { codes, noAnswer, TalewireError } from './errors.js';
import type { Http } from './http.js';
import { isRecord, type User } from './wire.js';

export type LoginState =
  /** The server has not been asked yet, or did not answer so far. */
  | { phase: 'asking'; failed: boolean }
  /** Nobody is logged in here; `tab` if a second guest of this tab was, and is not any more. */
  | { phase: 'nobody'; tab: boolean }
  | { phase: 'somebody'; user: User; tab: boolean };

/** What is used of sessionStorage; it throws in some private modes. */
export interface Shelf {
  getItem: (key: string) => string | null;
  setItem: (key: string, value: string) => void;
  removeItem: (key: string) => void;
}

const TOKEN_KEY = 'talewire.tab-token';

export class Login {
  readonly state = new Cell<LoginState>({ phase: 'asking', failed: false });
  readonly http: Http;
  readonly #shelf: Shelf | undefined;
  #asked: Promise<void> | undefined;

  constructor(http: Http, shelf?: Shelf) {
    this.http = http;
    this.#shelf = shelf;
    http.token = this.#remembered();
    http.onUnauthorized = () => this.#lost();
    http.refresh = async () => {
      const before = this.#userId();
      await this.ask();
      return before !== undefined && this.#userId() === before;
    };
  }

  /** The token to connect with, if this tab has one of its own. */
  get token(): string | undefined {
    return this.http.token;
  }

  /** Asks the server who this is. Safe to call again after a failure, or when a token was refused. */
  async ask(): Promise<void> {
    this.#asked ??= this.#ask().finally(() => (this.#asked = undefined));
    return this.#asked;
  }

  /** A guest for the whole browser; or, if this tab had its own guest and lost it, for this tab again. */
  async asGuest(name: string): Promise<User> {
    const state = this.state.snapshot();
    if (state.phase === 'nobody' && state.tab) return this.asSomeoneElse(name);
    const body = await this.http.post('/app/login', { name });
    const user = userIn(body);
    this.http.csrf = isRecord(body) && typeof body['csrf'] === 'string' ? body['csrf'] : undefined;
    this.state.set({ phase: 'somebody', user, tab: false });
    return user;
  }

  /** A second guest, for this tab alone: the cookie's guest goes on in every other tab. */
  async asSomeoneElse(name: string): Promise<User> {
    const body = await this.http.post('/app/login', { name, tab: true });
    const user = userIn(body);
    if (!isRecord(body) || typeof body['token'] !== 'string') throw noAnswer('The server gave no token.');
    this.http.token = body['token'];
    this.http.csrf = undefined;
    this.#remember(body['token']);
    this.state.set({ phase: 'somebody', user, tab: true });
    return user;
  }

  /** Forgets this tab's own guest and is the browser's guest again. */
  async backToBrowserGuest(): Promise<void> {
    this.http.token = undefined;
    this.#remember(undefined);
    await this.#ask();
  }

  async logout(): Promise<void> {
    if (this.http.token !== undefined) return this.backToBrowserGuest();
    await this.http.post('/app/logout', {});
    this.http.csrf = undefined;
    this.state.set({ phase: 'nobody', tab: false });
  }

  async #ask(): Promise<void> {
    try {
      const body = await this.http.get('/app/me');
      // Nobody is not an error: a browser without a login gets an answer without a user.
      if (isRecord(body) && body['user'] === undefined) {
        this.#lost();
        return;
      }
      if (isRecord(body) && typeof body['csrf'] === 'string') this.http.csrf = body['csrf'];
      const user = userIn(body);
      const old = this.state.snapshot();
      const tab = this.http.token !== undefined;
      // The same person again keeps the same object, so that nothing is torn down for a mere question.
      if (old.phase === 'somebody' && old.user.id === user.id && old.user.name === user.name && old.tab === tab) return;
      this.state.set({ phase: 'somebody', user, tab });
    } catch (error) {
      if (error instanceof TalewireError && error.code === codes.unauthorized) this.#lost();
      else if (this.state.snapshot().phase === 'asking') this.state.set({ phase: 'asking', failed: true });
    }
  }

  #lost(): void {
    const tab = this.http.token !== undefined;
    this.http.token = undefined;
    this.http.csrf = undefined;
    this.#remember(undefined);
    const state = this.state.snapshot();
    if (state.phase !== 'nobody') this.state.set({ phase: 'nobody', tab });
  }

  #userId(): string | undefined {
    const state = this.state.snapshot();
    return state.phase === 'somebody' ? state.user.id : undefined;
  }

  #remembered(): string | undefined {
    try {
      return this.#shelf?.getItem(TOKEN_KEY) ?? undefined;
    } catch {
      return undefined;
    }
  }

  #remember(token: string | undefined): void {
    try {
      if (token === undefined) this.#shelf?.removeItem(TOKEN_KEY);
      else this.#shelf?.setItem(TOKEN_KEY, token);
    } catch {
      // A private window without storage: the guest lives until the tab is reloaded.
    }
  }
}

function userIn(body: unknown): User {
  if (isRecord(body) && isRecord(body['user']) && typeof body['user']['id'] === 'string' && typeof body['user']['name'] === 'string') {
    return { id: body['user']['id'], name: body['user']['name'], guest: body['user']['guest'] === true };
  }
  throw noAnswer('The server did not say who this is.');
}
