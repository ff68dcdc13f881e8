/**
 * `fetch` as a browser has it behind a TLS proxy: every request a stream of one HTTP/2 socket, checked against one
 * certificate. In: an origin, the certificate. Out: `fetch`, for the official client and for `EventSource`; which HTTP was
 * spoken. Called by proxies.test.ts.
 */
import { connect, constants, type ClientHttp2Session, type ClientHttp2Stream, type IncomingHttpHeaders, type IncomingHttpStatusHeader } from 'node:http2';

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

function asResponse(answer: IncomingHttpHeaders & IncomingHttpStatusHeader, stream: ClientHttp2Stream): Response {
  const status = answer[':status'] ?? 0;
  const headers = new Headers();
  for (const [name, value] of Object.entries(answer)) {
    if (!name.startsWith(':')) for (const one of [value].flat()) if (one !== undefined) headers.append(name, one);
  }
  return new Response(BODILESS.includes(status) ? null : bodyOf(stream, Number(headers.get('content-length') ?? Infinity)), { status, headers });
}

/**
 * A server may take a stream back as soon as it has said everything, while our side of it is not closed yet (RFC 9113, section 8.1);
 * Node's own bridge takes a whole body for a broken one then.
 */
function bodyOf(stream: ClientHttp2Stream, length: number): ReadableStream<Uint8Array> {
  let [received, over] = [0, false];
  return new ReadableStream<Uint8Array>({
    start: (body) => {
      const end = (how: () => void): void => {
        if (!over) how();
        over = true;
      };
      stream.on('data', (piece: Buffer) => {
        received += piece.length;
        if (!over) body.enqueue(new Uint8Array(piece));
      });
      stream.once('end', () => end(() => body.close()));
      const broken = (): void => end(() => {
        if (received === length) body.close();
        else body.error(new Error(`the stream was closed with ${stream.rstCode} after ${received} of ${length} bytes`));
      });
      stream.once('error', broken).once('close', broken);
    },
    cancel: () => {
      over = true;
      stream.close(constants.NGHTTP2_CANCEL);
    },
  });
}
