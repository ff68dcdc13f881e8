/**
 * Who else is in a story right now, and who is typing.
 * In: presence, joins and leaves of the story's channel; signals of its typing channel; the clock.
 * Out: two cells, and `say` to tell that oneself is typing. Called by live-story; the rules are in
 * presence.ts and typing.ts.
 */
import { State, SubscriptionState, type Subscription } from 'centrifuge';
import { Cell } from './cell.js';
import type { Connection } from './connection.js';
import { nameOf, nobodyHere, stepPresence, type Client, type PresenceState } from './presence.js';
import { isDue, stepTyping, type Said, type Typer } from './typing.js';
import { isRecord } from './wire.js';

export class LiveCompany {
  readonly presence = new Cell<PresenceState>(nobodyHere);
  readonly typing = new Cell<readonly Typer[]>([]);
  readonly #connection: Connection;
  readonly #channel: string;
  #typing: Subscription | undefined;
  #said: Said | undefined;
  #sweep: ReturnType<typeof setTimeout> | undefined;
  #asking = false;
  #askAgain = false;

  constructor(connection: Connection, story: string) {
    this.#connection = connection;
    this.#channel = `typing:${story}`;
  }

  /** Listens on the story's own subscription, which live-story owns. */
  watch(story: Subscription): void {
    story.on('subscribed', () => void this.#ask(story));
    story.on('join', ({ info }) => this.#presenceChanged('join', info));
    story.on('leave', ({ info }) => this.#presenceChanged('leave', info));
  }

  start(): void {
    if (this.#typing !== undefined) return;
    const subscription = this.#connection.socket.newSubscription(this.#channel);
    subscription.on('publication', (context) => {
      const { data, info } = context as { data: unknown; info?: Client };
      // One's own signals come back too, also those of one's other windows.
      if (info === undefined || info.user === this.#connection.user.id || !isRecord(data)) return;
      this.typing.set(stepTyping(this.typing.snapshot(), { type: 'signal', user: info.user, name: nameOf(info), typing: data['typing'] === true }, Date.now()));
      this.#planSweep();
    });
    subscription.subscribe();
    this.#typing = subscription;
  }

  stop(): void {
    clearTimeout(this.#sweep);
    if (this.#typing !== undefined) this.#connection.socket.removeSubscription(this.#typing);
    this.#typing = undefined;
    this.#said = undefined;
    this.typing.set([]);
    this.presence.set(nobodyHere);
  }

  /** May be called at every key: only what is due is sent. A lost signal is nobody's harm. */
  say(typing: boolean): void {
    const now = Date.now();
    if (this.#typing === undefined || this.#connection.socket.state !== State.Connected || !isDue(this.#said, typing, now)) return;
    this.#said = { typing, at_ms: now };
    this.#typing.publish({ typing }).catch(() => undefined);
  }

  /** Asked at each subscribe, so that every lost join or leave is healed at the latest then. */
  async #ask(story: Subscription): Promise<void> {
    this.#asking = true;
    this.#askAgain = false;
    try {
      const { clients } = await story.presence();
      this.presence.set(stepPresence(this.presence.snapshot(), { type: 'all', clients: Object.values(clients) }));
    } catch {
      // Not connected any more: the next subscribe asks again.
    } finally {
      this.#asking = false;
    }
    // A join or leave that crossed the answer may have been undone by it.
    if (this.#crossed() && story.state === SubscriptionState.Subscribed) void this.#ask(story);
  }

  #crossed(): boolean {
    return this.#askAgain;
  }

  #presenceChanged(type: 'join' | 'leave', client: Client): void {
    if (this.#asking) this.#askAgain = true;
    this.presence.set(stepPresence(this.presence.snapshot(), { type, client }));
    // Who left will not type on; their "false" may never come.
    const stillHere = this.presence.snapshot().people.some((present) => present.user === client.user);
    if (type === 'leave' && !stillHere) {
      this.typing.set(stepTyping(this.typing.snapshot(), { type: 'signal', user: client.user, name: '', typing: false }, Date.now()));
    }
  }

  #planSweep(): void {
    clearTimeout(this.#sweep);
    const next = Math.min(...this.typing.snapshot().map((typer) => typer.until_ms));
    if (!Number.isFinite(next)) return;
    this.#sweep = setTimeout(() => {
      this.typing.set(stepTyping(this.typing.snapshot(), { type: 'tick' }, Date.now()));
      this.#planSweep();
    }, Math.max(0, next - Date.now()) + 10);
  }
}
