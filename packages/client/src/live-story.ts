/**
 * One story, live: the shell that feeds the pure reducers and performs what a person does.
 * In: story.open, the story's log, calls by views. Out: a watched StoryView, presence, typing, the text
 * of open generations, and promises for actions. Made by Connection.openStory; works while watched.
 */
import { SubscriptionState, type Subscription } from 'centrifuge';
import { Cell, type Readable } from './cell.js';
import type { Connection } from './connection.js';
import { deliver, newKey } from './delivery.js';
import { fromSocket, TalewireError } from './errors.js';
import type { StreamText } from './generation.js';
import { LiveCompany } from './live-company.js';
import { LiveStreams } from './live-streams.js';
import { changed, keep, kept, shown, withoutLanded, type PendingTurn } from './pending-turns.js';
import type { PresenceState } from './presence.js';
import { path, step, type StoryInput, type StoryState } from './story.js';
import type { Typer } from './typing.js';
import { asLogEntry, isEnd, type Branch, type Generation, type Invite, type LogEntry, type Method, type Params, type Result, type Role, type Turn } from './wire.js';

export interface StoryView {
  /** refused: not a member, or no such story; `error` says which. */
  readonly phase: 'opening' | 'open' | 'refused';
  readonly state: StoryState | undefined;
  readonly pending: readonly PendingTurn[];
  readonly error: TalewireError | undefined;
}

/** Turns per page; the rest is read when somebody scrolls up. */
export const PAGE = 60;
/** A view may unmount and mount again at once (React does, on purpose): the story stays open that long. */
const GRACE_MS = 1000;
/** More entries than this while story.open is asked again: it is simply asked once more. */
const HELD_MAX = 500;

export class LiveStory implements Readable<StoryView> {
  readonly id: string;
  readonly presence: Readable<PresenceState>;
  readonly typing: Readable<readonly Typer[]>;

  readonly #connection: Connection;
  readonly #view: Cell<StoryView>;
  readonly #company: LiveCompany;
  readonly #streams: LiveStreams;
  #subscription: Subscription | undefined;
  #watchers = 0;
  #grace: ReturnType<typeof setTimeout> | undefined;
  /** Raised at each start and stop: what an older run still waits for does not matter any more. */
  #run = 0;
  #started = false;
  /** Entries that came while the story was being opened anew. */
  #held: { offset: number; data: unknown }[] | undefined;
  /** All turns on their way, and my own turns that the log brought meanwhile. */
  #pending: readonly PendingTurn[] = [];
  #arrived: readonly Turn[] = [];

  constructor(connection: Connection, id: string) {
    this.id = id;
    this.#connection = connection;
    this.#view = new Cell<StoryView>({ phase: 'opening', state: undefined, pending: [], error: undefined }, () => this.#watch());
    this.#company = new LiveCompany(connection, id);
    this.#streams = new LiveStreams(connection, id);
    this.presence = this.#company.presence;
    this.typing = this.#company.typing;
  }

  readonly snapshot = (): StoryView => this.#view.snapshot();
  readonly subscribe = (listener: () => void): (() => void) => this.#view.subscribe(listener);

  /** The text of a generation while it is written; empty once the story has its turn. */
  generation(id: string): Readable<StreamText> {
    return this.#streams.text(id);
  }

  /** Tells others that one is typing, or not any more; call it as often as keys are pressed. */
  readonly setTyping = (typing: boolean): void => {
    if (this.snapshot().state?.me.role !== 'reader') this.#company.say(typing);
  };

  /** Adds a turn. It shows as pending at once; the promise settles when its fate is known. */
  async addTurn(branch: string, text: string): Promise<Turn> {
    const key = newKey();
    this.#pendingIs([...this.#pending, { key, branch, text, status: 'sending' }]);
    return this.#sendTurn(key, branch, text);
  }

  /** Sends a turn again that was given up, under its old key, so that it cannot appear twice. */
  async sendAgain(key: string): Promise<void> {
    const pending = this.#pending.find((one) => one.key === key);
    if (pending?.status !== 'unanswered' && pending?.status !== 'refused') return;
    this.#pendingIs(changed(this.#pending, key, { status: 'sending' }));
    await this.#sendTurn(key, pending.branch, pending.text).catch(() => undefined);
  }

  /** Takes a refused or unanswered turn off the page: the caller has its text. */
  discard(key: string): void {
    this.#pendingIs(this.#pending.filter((one) => one.key !== key));
  }

  async requestGeneration(branch: string, instruction?: string): Promise<Generation> {
    const extra = instruction === undefined || instruction === '' ? {} : { instruction };
    const { generation } = await this.#change('generation.request', { story: this.id, branch, ...extra, key: newKey() });
    this.#feed({ type: 'answer', generation });
    return generation;
  }

  async stop(generationId: string): Promise<void> {
    const { generation } = await this.#change('generation.stop', { story: this.id, generation: generationId });
    // An end comes by the log together with the turn it made; taking it from here would show the page
    // without either for a moment.
    if (!isEnd(generation.status)) this.#feed({ type: 'answer', generation });
  }

  async pick(choice: string): Promise<Branch> {
    const { branch, turn, generation } = await this.#change('choice.pick', { story: this.id, choice, key: newKey() });
    this.#feed({ type: 'answer', branch, turn, generation, picked: choice });
    return branch;
  }

  async rename(title: string): Promise<void> {
    await this.#change('story.rename', { story: this.id, title, key: newKey() });
  }

  async createInvite(role: Role): Promise<Invite> {
    return (await this.#change('invite.create', { story: this.id, role, key: newKey() })).invite;
  }

  async listInvites(): Promise<readonly Invite[]> {
    return (await this.#connection.call('invite.list', { story: this.id })).invites;
  }

  async revokeInvite(code: string): Promise<void> {
    await this.#change('invite.revoke', { story: this.id, code });
  }

  /** The page of turns before the first one that is here. */
  async loadOlder(branch: string): Promise<void> {
    const { state } = this.snapshot();
    const first = state === undefined ? undefined : path(state, branch).turns[0];
    if (first === undefined) return this.readBranch(branch);
    const { turns, choices } = await this.#connection.call('story.turns', { story: this.id, branch, before: first.id, limit: PAGE });
    this.#feed({ type: 'page', turns, choices: choices ?? [] });
  }

  /** Brings the newest turns of another branch; once here, the log keeps them true. */
  async readBranch(branch: string): Promise<void> {
    if (this.snapshot().state?.loaded.has(branch) === true) return;
    const result = await this.#connection.call('story.open', { story: this.id, branch, limit: PAGE });
    this.#feed({ type: 'opened', branch, result, fresh: false });
  }

  #change<M extends Method>(method: M, params: Params<M>): Promise<Result<M>> {
    return deliver(() => this.#connection.call(method, params), this.#connection.patience(this.#connection.giveUpAfter_ms));
  }

  async #sendTurn(key: string, branch: string, text: string): Promise<Turn> {
    try {
      const { turn } = await this.#change('turn.add', { story: this.id, branch, text, key });
      this.#pendingIs(changed(this.#pending, key, { status: 'accepted', turn: turn.id }));
      this.#feed({ type: 'answer', turn });
      return turn;
    } catch (thrown) {
      const error = fromSocket(thrown);
      this.#pendingIs(changed(this.#pending, key, { status: error.retry ? 'unanswered' : 'refused', error }));
      throw error;
    }
  }

  // --- living while watched -------------------------------------------------------------------------

  #watch(): () => void {
    clearTimeout(this.#grace);
    this.#watchers += 1;
    // Refused once is not refused for ever: one may have joined meanwhile.
    if (this.#started && this.snapshot().phase === 'refused') this.#stop();
    if (!this.#started) this.#start();
    return () => {
      this.#watchers -= 1;
      this.#grace = setTimeout(() => {
        if (this.#watchers === 0) this.#stop();
      }, GRACE_MS);
    };
  }

  #start(): void {
    this.#started = true;
    this.#run += 1;
    if (this.snapshot().phase === 'refused') this.#viewIs({ phase: 'opening', error: undefined });
    // What this page still sends is in #pending; what an earlier page left is on the shelf.
    const left = kept(this.#connection.shelf, this.#connection.user.id, this.id).filter((one) => this.#pending.every((mine) => mine.key !== one.key));
    this.#pendingIs([...this.#pending, ...left]);
    for (const one of left) void this.#sendTurn(one.key, one.branch, one.text).catch(() => undefined);
    void this.#open(this.#run);
  }

  #stop(): void {
    this.#started = false;
    this.#run += 1;
    if (this.#subscription !== undefined) this.#connection.socket.removeSubscription(this.#subscription);
    this.#subscription = undefined;
    this.#held = undefined;
    this.#company.stop();
    this.#streams.follow([]);
    this.#connection.busy(`story:${this.id}`, false);
  }

  /** Reads the story as it is now, and follows its log from there. Also the way back after a lost position. */
  async #open(run: number): Promise<void> {
    const held: { offset: number; data: unknown }[] = [];
    this.#held = held;
    this.#connection.busy(`story:${this.id}`, true);
    try {
      const params = { story: this.id, limit: PAGE };
      const result = await deliver(() => this.#connection.call('story.open', params), this.#connection.patience(Number.POSITIVE_INFINITY));
      // Opened once more meanwhile: that answer is newer than this one.
      if (run !== this.#run || this.#held !== held) return;
      this.#feed({ type: 'opened', branch: result.story.branch, result, fresh: true });
      this.#held = undefined;
      for (const { offset, data } of held) this.#entry(offset, data);
      if (this.#subscription === undefined) this.#follow(run);
      else if (this.#subscription.state === SubscriptionState.Subscribed) this.#connection.busy(`story:${this.id}`, false);
    } catch (thrown) {
      if (run !== this.#run) return;
      this.#connection.busy(`story:${this.id}`, false);
      this.#viewIs({ phase: 'refused', error: fromSocket(thrown) });
    }
  }

  #follow(run: number): void {
    const position = this.snapshot().state?.position;
    if (position === undefined) return;
    const subscription = this.#connection.socket.newSubscription(`story:${this.id}`, { since: position, recoverable: true, joinLeave: true });
    this.#subscription = subscription;
    this.#company.watch(subscription);
    subscription.on('subscribing', () => this.#connection.busy(`story:${this.id}`, true));
    subscription.on('subscribed', ({ wasRecovering, recovered }) => {
      if (run !== this.#run) return;
      // Not recovered: something between our position and the top is lost to us. Read all anew.
      if (wasRecovering && !recovered) void this.#open(run);
      // Recovered entries are handed over right after this event, in the same breath.
      else queueMicrotask(() => this.#held === undefined && this.#connection.busy(`story:${this.id}`, false));
    });
    subscription.on('publication', (context) => {
      const { offset, data } = context as { offset?: number; data: unknown };
      if (run === this.#run && offset !== undefined) this.#entry(offset, data);
    });
    subscription.on('unsubscribed', ({ code, reason }) => {
      if (run !== this.#run) return;
      this.#connection.busy(`story:${this.id}`, false);
      // 112: the position cannot be continued. Everything else that ends a subscription is a refusal.
      if (code === 112) {
        this.#connection.socket.removeSubscription(subscription);
        this.#subscription = undefined;
        void this.#open(run);
      } else {
        this.#viewIs({ phase: 'refused', error: new TalewireError(code, reason, reason, { retry: false }) });
      }
    });
    this.#company.start();
    subscription.subscribe();
  }

  #entry(offset: number, data: unknown): void {
    if (this.#held !== undefined) {
      this.#held.push({ offset, data });
      if (this.#held.length > HELD_MAX) void this.#open(this.#run);
      return;
    }
    const entry = asLogEntry(data);
    if (entry !== undefined) this.#noteMine(entry);
    this.#feed({ type: 'entry', offset, entry });
  }

  /** Remembers a turn of one's own that the log brought while its answer is still out. */
  #noteMine(entry: LogEntry): void {
    if (entry.type === 'turn.added' && entry.turn.author.id === this.#connection.user.id && this.#pending.length > 0) {
      this.#arrived = [...this.#arrived, entry.turn];
    }
  }

  #feed(input: StoryInput): void {
    const before = this.snapshot().state;
    const state = step(before, input);
    if (state === before || state === undefined) return;
    this.#pending = withoutLanded(this.#pending, state.turns);
    if (this.#pending.length === 0) this.#arrived = [];
    this.#viewIs({ phase: 'open', state, error: undefined, pending: shown(this.#pending, this.#arrived) });
    keep(this.#connection.shelf, this.#connection.user.id, this.id, this.#pending);
    // After the view has the turn, so that a stream never vanishes before what it became is there.
    if (this.#started) this.#streams.follow([...state.generations.values()].filter((generation) => !isEnd(generation.status)));
  }

  #pendingIs(pending: readonly PendingTurn[]): void {
    const { state } = this.snapshot();
    this.#pending = state === undefined ? pending : withoutLanded(pending, state.turns);
    keep(this.#connection.shelf, this.#connection.user.id, this.id, this.#pending);
    this.#viewIs({ pending: shown(this.#pending, this.#arrived) });
  }

  #viewIs(change: Partial<StoryView>): void {
    this.#view.set({ ...this.snapshot(), ...change });
  }
}
