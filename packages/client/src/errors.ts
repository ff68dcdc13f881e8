/**
 * Why something could not be done, in one shape for socket and HTTP.
 * In: whatever was thrown or answered. Out: a TalewireError that says whether sending again can help.
 * Called by http, connection and delivery; shown by views.
 */

/** Codes of PROTOCOL.md section 5 that this package acts upon; 0 is our own: nobody answered. */
export const codes = {
  noAnswer: 0,
  internal: 100,
  unauthorized: 101,
  permissionDenied: 103,
  tokenExpired: 109,
  tooManyRequests: 111,
  concurrentPagination: 113,
  notFound: 404,
  generationOpen: 409,
  badInvite: 410,
  badText: 422,
  unavailable: 503,
} as const;

const temporary: ReadonlySet<number> = new Set([
  codes.internal,
  codes.tooManyRequests,
  codes.concurrentPagination,
  codes.unavailable,
]);

/** A refusal by the server, or the absence of an answer. */
export class TalewireError extends Error {
  readonly code: number;
  override readonly name: string;
  /** The same call, sent again unchanged, may succeed. */
  readonly retry: boolean;
  /** The server's wish for the pause before that, if it named one. */
  readonly retryAfter_ms: number | undefined;

  constructor(code: number, name: string, message: string, options: { retry?: boolean; retryAfter_ms?: number } = {}) {
    super(message);
    this.code = code;
    this.name = name;
    this.retry = options.retry ?? (code === codes.noAnswer || temporary.has(code));
    this.retryAfter_ms = options.retryAfter_ms;
  }
}

/** Nobody answered: the network, the server or the tab went away. */
export function noAnswer(message = 'The server could not be reached.'): TalewireError {
  return new TalewireError(codes.noAnswer, 'no answer', message);
}

/**
 * What centrifuge rejects with is a plain `{code, message, temporary?}`. Its own codes below 100
 * (timeout, transport closed, disconnected) all mean that the fate of the call is unknown.
 */
export function fromSocket(thrown: unknown): TalewireError {
  if (thrown instanceof TalewireError) return thrown;
  if (typeof thrown === 'object' && thrown !== null && 'code' in thrown && typeof thrown.code === 'number') {
    const message = 'message' in thrown && typeof thrown.message === 'string' ? thrown.message : 'refused';
    if (thrown.code < 100) return noAnswer();
    const retry = ('temporary' in thrown && thrown.temporary === true) || temporary.has(thrown.code);
    return new TalewireError(thrown.code, message, message, { retry });
  }
  return noAnswer();
}

/** An HTTP error: its JSON body when it has one, else what its status says. */
export function fromHttp(status: number, body: unknown, retryAfter: string | null): TalewireError {
  const seconds = Number(retryAfter ?? Number.NaN);
  const wait = retryAfter !== null && Number.isFinite(seconds) ? { retryAfter_ms: seconds * 1000 } : {};
  if (typeof body === 'object' && body !== null && 'error' in body) {
    const error: unknown = body.error;
    if (typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'number') {
      const name = 'name' in error && typeof error.name === 'string' ? error.name : `error ${error.code}`;
      const message = 'message' in error && typeof error.message === 'string' ? error.message : name;
      // The code decides, not the status: 429 is also said of limits that no waiting will lift.
      return new TalewireError(error.code, name, message, wait);
    }
  }
  // Not our server's words: a proxy in between, which may let the next try through.
  const retry = status === 429 || status >= 500;
  const code = status === 401 ? codes.unauthorized : status === 403 ? codes.permissionDenied : status;
  return new TalewireError(code, `HTTP ${status}`, `The server answered with status ${status}.`, { retry, ...wait });
}
