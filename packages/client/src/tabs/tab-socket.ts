/**
 * Another tab's connection that looks like a WebSocket to the official client.
 * In: frames of commands; what the leader says. Out: messages to the leader; frames of replies. One per attempt, made by
 * tab-line, which also carries the messages.
 */

export interface TabSocketOptions {
  readonly send: (message: Record<string, unknown>) => void;
  readonly frameMax: number;
}

export class TabSocket {
  readyState = 0;
  onopen: (() => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  readonly #options: TabSocketOptions;

  constructor(options: TabSocketOptions) {
    this.#options = options;
  }

  /** The leader has let this tab in. */
  open(): void {
    if (this.readyState !== 0) return;
    this.readyState = 1;
    this.onopen?.();
  }

  hear(frame: string): void {
    if (this.readyState === 1) this.onmessage?.({ data: frame });
  }

  send(frame: string): void {
    if (frame.length > this.#options.frameMax) this.drop(1009, 'message size limit');
    else this.#options.send({ kind: 'frame', text: frame });
  }

  close(): void {
    if (this.readyState === 3) return;
    this.#options.send({ kind: 'bye' });
    this.drop(1000, '');
  }

  /** Closed from the other side. */
  drop(code: number, reason: string): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    queueMicrotask(() => this.onclose?.({ code, reason }));
  }
}
