/**
 * The open generations of one story, each with its own subscription and its own watched text, so that
 * a delta redraws one paragraph and not the page.
 * In: which generations are open (from the story's log), frames from their channels. Out: a cell per
 * generation. Called by live-story; the rule itself is in generation.ts.
 */
import type { Subscription } from 'centrifuge';
import { Cell, type Readable } from './cell.js';
import type { Connection } from './connection.js';
import { needsSnapshot, startStream, stepStream, type StreamText } from './generation.js';
import { asStreamFrame, type Generation } from './wire.js';

/** Between two questions for a snapshot that did not yet close the gap. */
const ASK_AGAIN_MS = 400;

interface Stream { readonly cell: Cell<StreamText>; subscription: Subscription | undefined; asking: boolean }

export class LiveStreams {
  readonly #connection: Connection;
  readonly #story: string;
  readonly #streams = new Map<string, Stream>();

  constructor(connection: Connection, story: string) {
    this.#connection = connection;
    this.#story = story;
  }

  text(generation: string): Readable<StreamText> {
    return this.#stream(generation).cell;
  }

  /** Subscribes to what has opened, lets go of what has ended. */
  follow(open: readonly Generation[]): void {
    const wanted = new Set(open.map((generation) => generation.id));
    for (const id of [...this.#streams.keys()]) if (!wanted.has(id)) this.#leave(id);
    for (const id of wanted) this.#enter(id);
  }

  #stream(id: string): Stream {
    const known = this.#streams.get(id);
    if (known !== undefined) return known;
    const stream: Stream = { cell: new Cell(startStream(id)), subscription: undefined, asking: false };
    this.#streams.set(id, stream);
    return stream;
  }

  #enter(id: string): void {
    const stream = this.#stream(id);
    if (stream.subscription !== undefined) return;
    const task = `generation:${id}`;
    const subscription = this.#connection.socket.newSubscription(`generation:${this.#story}.${id}`);
    stream.subscription = subscription;
    subscription.on('subscribing', () => this.#connection.busy(task, true));
    // Every subscribe brings the whole text so far, so that nothing has to be recovered.
    subscription.on('subscribed', (context) => {
      const { data } = context as { data?: unknown };
      this.#feed(stream, id, data);
      this.#connection.busy(task, false);
    });
    subscription.on('publication', (context) => {
      const { data } = context as { data: unknown };
      this.#feed(stream, id, data);
    });
    // Refused, or ended meanwhile: the story's log tells how it ended.
    subscription.on('unsubscribed', () => this.#connection.busy(task, false));
    subscription.subscribe();
  }

  #leave(id: string): void {
    const stream = this.#streams.get(id);
    if (stream === undefined) return;
    // Deleted first: an answer still under way then finds that nobody waits for it.
    this.#streams.delete(id);
    if (stream.subscription !== undefined) this.#connection.socket.removeSubscription(stream.subscription);
    this.#connection.busy(`generation:${id}`, false);
    this.#connection.busy(`snapshot:${id}`, false);
  }

  #feed(stream: Stream, id: string, data: unknown): void {
    const frame = asStreamFrame(data);
    if (frame === undefined) return;
    stream.cell.set(stepStream(stream.cell.snapshot(), frame));
    if (needsSnapshot(stream.cell.snapshot()) && !stream.asking) void this.#askForSnapshot(stream, id);
  }

  /** Until the gap is closed, the generation has ended, or nobody looks any more. */
  async #askForSnapshot(stream: Stream, id: string): Promise<void> {
    stream.asking = true;
    this.#connection.busy(`snapshot:${id}`, true);
    while (this.#streams.get(id) === stream && needsSnapshot(stream.cell.snapshot())) {
      try {
        const snapshot = await this.#connection.call('generation.snapshot', { story: this.#story, generation: id });
        if (this.#streams.get(id) !== stream) return;
        const frame = asStreamFrame(snapshot);
        if (frame !== undefined) stream.cell.set(stepStream(stream.cell.snapshot(), frame));
      } catch {
        // Not answered or not any more: asked again below while it matters; a resubscribe heals it too.
      }
      if (needsSnapshot(stream.cell.snapshot())) await this.#connection.patience(0).pause(ASK_AGAIN_MS);
    }
    stream.asking = false;
    if (this.#streams.get(id) === stream) this.#connection.busy(`snapshot:${id}`, false);
  }
}
