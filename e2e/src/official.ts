/**
 * The official client of the protocol, unmodified, over Node's `ws`, and a notebook of what it hears.
 * In: a server. Out: clients that are disconnected after each test, the frames on their wire, the events
 * of their subscriptions in order. Called by the official-*.test.ts files.
 */
import { Centrifuge, type ClientInfo, type Options, type StreamPosition, type Subscription, type SubscriptionOptions } from 'centrifuge';
import WebSocket from 'ws';
import type { Server } from './server.ts';
import { until, within } from './until.ts';

const open = new Set<{ disconnect: () => void }>();

export function disconnectAll(): void {
  for (const one of open) one.disconnect();
  open.clear();
}

/** Has `disconnectAll` take care of it. */
export function track<T extends { disconnect: () => void }>(client: T): T {
  open.add(client);
  return client;
}

/** Quick to come back, as a restart takes well under a second; everything else as published. */
export const quick = { websocket: WebSocket, minReconnectDelay: 50, maxReconnectDelay: 250 };

export function newClient(server: Server, options: Partial<Options> = {}): Centrifuge {
  return track(new Centrifuge(server.socketUrl, { ...quick, ...options }));
}

export async function connected(server: Server, options: Partial<Options> = {}): Promise<Centrifuge> {
  const client = newClient(server, options);
  client.connect();
  await within('the client is connected', client.ready());
  return client;
}

/** One reply or push, as it came over the wire. */
export type Line = Record<string, unknown>;

/** A WebSocket class that writes down every line that the server sends, and can be cut like a cable. */
export function tappedSocket(): { websocket: unknown; lines: Line[]; cut: () => void } {
  const lines: Line[] = [];
  const sockets: WebSocket[] = [];
  class Tapped extends WebSocket {
    constructor(...parameters: ConstructorParameters<typeof WebSocket>) {
      super(...parameters);
      sockets.push(this);
      this.on('message', (data: Buffer) => {
        for (const line of data.toString('utf8').split('\n')) if (line.trim() !== '') lines.push(JSON.parse(line) as Line);
      });
    }
  }
  return { websocket: Tapped, lines, cut: () => sockets.at(-1)?.terminate() };
}

export interface Heard { data: unknown; offset: number | undefined; info: ClientInfo | undefined }
export interface Began { recoverable: boolean; wasRecovering: boolean; recovered: boolean; position: StreamPosition | undefined }

/** One subscription and all that it was told. */
export class Ear {
  readonly heard: Heard[] = [];
  readonly began: Began[] = [];
  readonly ended: { code: number; reason: string }[] = [];
  readonly errors: { code: number; message: string }[] = [];
  readonly company: { event: 'join' | 'leave'; client: string }[] = [];
  readonly subscription: Subscription;

  constructor(client: Centrifuge, channel: string, options: SubscriptionOptions = {}) {
    this.subscription = client.newSubscription(channel, options);
    this.subscription.on('publication', ({ data, offset, info }: { data: unknown; offset?: number; info?: ClientInfo }) => this.heard.push({ data, offset, info }));
    this.subscription.on('subscribed', ({ recoverable, wasRecovering, recovered, streamPosition }) => this.began.push({ recoverable, wasRecovering, recovered, position: streamPosition }));
    this.subscription.on('unsubscribed', ({ code, reason }) => this.ended.push({ code, reason }));
    this.subscription.on('error', ({ error }) => this.errors.push({ code: error.code, message: error.message }));
    this.subscription.on('join', ({ info }) => this.company.push({ event: 'join', client: info.client }));
    this.subscription.on('leave', ({ info }) => this.company.push({ event: 'leave', client: info.client }));
  }

  static async on(client: Centrifuge, channel: string, options: SubscriptionOptions = {}): Promise<Ear> {
    const ear = new Ear(client, channel, options);
    ear.subscription.subscribe();
    await within(`subscribed to ${channel}`, ear.subscription.ready());
    return ear;
  }

  get data(): unknown[] {
    return this.heard.map(({ data }) => data);
  }

  /** Waits until so many publications were heard. */
  async hears(count: number, deadline_ms?: number): Promise<Heard[]> {
    await until(`${count} publications in ${this.subscription.channel}`, () => this.heard.length >= count, deadline_ms, () => this.data.slice(-5));
    return this.heard;
  }

  /** Waits for the nth time that the subscription begins. */
  async begins(times: number, deadline_ms?: number): Promise<Began> {
    return until(`${this.subscription.channel} is subscribed for the ${times}. time`, () => this.began[times - 1], deadline_ms);
  }
}

/** What a call of the client is refused with. */
export async function refusal(call: Promise<unknown>): Promise<{ code: number; message: string }> {
  const error: unknown = await within('the call is refused', call.then(() => undefined, (thrown: unknown) => thrown));
  if (typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'number') {
    return { code: error.code, message: 'message' in error ? String(error.message) : '' };
  }
  throw new Error(`the call was not refused with a code, but gave ${String(error)}`);
}

/** How the connection is closed for good. */
export function closed(client: Centrifuge): Promise<{ code: number; reason: string }> {
  return within('the connection is closed for good', new Promise((resolve) => client.once('disconnected', ({ code, reason }) => resolve({ code, reason }))));
}
