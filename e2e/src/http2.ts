/**
 * `fetch` as a browser has it behind a TLS proxy: every request a stream of one HTTP/2 socket, checked against one
 * certificate. In: an origin, the certificate. Out: `fetch`, for the official client and for `EventSource`; which HTTP was
 * spoken. Called by proxies.test.ts.
 */
import { connect, constants, type ClientHttp2Session, type IncomingHttpHeaders, type IncomingHttpStatusHeader } from 'node:http2';
import { Readable } from 'node:stream';

/** Answers that have no body by definition; `Response` refuses one there. */
const BODILESS = [101, 204, 205, 304];

export class Http2 {
  readonly #origin: string;
  readonly #ca: string;
  #session: ClientHttp2Session | undefined;

  constructor(origin: string, ca: string) {
    this.#origin = origin;
    this.#ca = ca;
  }

  /** What the handshake agreed to: `h2`. */
  get protocol(): string | undefined {
    return this.#session?.alpnProtocol;
  }

  readonly fetch = async (input: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const request = new Request(input, init);
    const url = new URL(request.url);
    const body = Buffer.from(await request.arrayBuffer());
    // Whoever has lost interest meanwhile would not be heard below.
    request.signal.throwIfAborted();
    const headers = { ...Object.fromEntries(request.headers), ':method': request.method, ':path': `${url.pathname}${url.search}` };
    const stream = this.#open().request(headers, { endStream: body.length === 0 });
    request.signal.addEventListener('abort', () => stream.close(constants.NGHTTP2_CANCEL));
    if (body.length > 0) stream.end(body);
    return new Promise((resolve, reject) => {
      stream.once('error', reject);
      stream.once('close', () => reject(new Error(`the stream was closed with ${stream.rstCode}`)));
      stream.once('response', (answer) => resolve(asResponse(answer, stream)));
    });
  };

  close(): void {
    this.#session?.destroy();
  }

  #open(): ClientHttp2Session {
    if (this.#session === undefined || this.#session.closed || this.#session.destroyed) {
      this.#session = connect(this.#origin, { ca: this.#ca });
      // Told to every stream of it.
      this.#session.on('error', () => undefined);
    }
    return this.#session;
  }
}

function asResponse(answer: IncomingHttpHeaders & IncomingHttpStatusHeader, stream: Readable): Response {
  const status = answer[':status'] ?? 0;
  const headers = new Headers();
  for (const [name, value] of Object.entries(answer)) {
    if (!name.startsWith(':')) for (const one of [value].flat()) if (one !== undefined) headers.append(name, one);
  }
  const body = BODILESS.includes(status) ? null : (Readable.toWeb(stream) as ReadableStream<Uint8Array>);
  return new Response(body, { status, headers });
}
