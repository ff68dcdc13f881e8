/**
 * The official client against a real server: everything of the protocol that we serve, and the codes of what we
 * decline. Recovery over crashes is in official-recovery.test.ts, tokens in official-tokens.test.ts.
 */
import { State, SubscriptionState, type Centrifuge, type Subscription } from 'centrifuge';
import { Centrifuge as OlderCentrifuge } from 'centrifuge-older';
import { describe, expect, it } from 'vitest';
import { closed, connected, Ear, newClient, quick, refusal, tappedSocket, track } from './src/official.ts';
import type { Server } from './src/server.ts';
import { until, within } from './src/until.ts';
import { withServer } from './src/with-server.ts';

const CONFIG = `
[namespaces.signal]
kind = "signal"
presence = true
join_leave = true

[namespaces.history]
kind = "history"
history_size = 100

[namespaces.short]
kind = "history"
history_size = 3

[namespaces.durable]
kind = "durable"
presence = true
join_leave = true
publication_bytes_max = 1_000
`;
const KEPT = ['history', 'durable'] as const;

let server: Server;
withServer(() => ({ insecure: true, config: CONFIG }), (started) => (server = started));

const numbers = (from: number, to: number): { n: number }[] => Array.from({ length: to - from + 1 }, (_, at) => ({ n: from + at }));

async function publish(client: Centrifuge, channel: string, from: number, to: number): Promise<void> {
  for (const data of numbers(from, to)) await client.publish(channel, data);
}

describe('a connection', () => {
  it('opens and closes', async () => {
    const client = newClient(server);
    const opened = new Promise<{ client: string; transport: string }>((resolve) => client.once('connected', resolve));
    client.connect();
    expect(await within('connected', opened)).toMatchObject({ client: expect.stringMatching(/.+/) as string, transport: 'websocket' });
    const gone = closed(client);
    client.disconnect();
    expect(await gone).toMatchObject({ code: 0 });
    expect(client.state).toBe(State.Disconnected);
  });

  it('comes back by itself after a cut', async () => {
    const tap = tappedSocket();
    const client = await connected(server, { websocket: tap.websocket });
    const again = new Promise((resolve) => client.once('connected', resolve));
    tap.cut();
    await within('connected again', again);
  });

  it('gets what was asked for in one frame, in order', async () => {
    const client = await connected(server);
    client.startBatching();
    const answers = Promise.all([client.publish('history:batch', 1), client.publish('history:batch', 2), client.history('history:batch', { limit: 10 })]);
    client.stopBatching();
    const [, , history] = await within('all answered', answers);
    expect(history.publications.map(({ data }) => data as unknown)).toEqual([1, 2]);
  });
});

describe('a subscription', () => {
  it.each(['signal', ...KEPT])('to a %s channel hears others and itself', async (kind) => {
    const channel = `${kind}:talk`;
    const [ana, ben] = [await connected(server), await connected(server)];
    const ears = [await Ear.on(ana, channel), await Ear.on(ben, channel)];
    await ana.publish(channel, { text: 'Es war einmal 🦊' });
    await ben.publish(channel, { text: 'dark' });
    for (const ear of ears) {
      await ear.hears(2);
      expect(ear.data).toEqual([{ text: 'Es war einmal 🦊' }, { text: 'dark' }]);
      expect(ear.heard.map(({ offset }) => offset)).toEqual(kind === 'signal' ? [undefined, undefined] : [1, 2]);
      expect(ear.heard[0]?.info?.client).not.toBe(ear.heard[1]?.info?.client);
    }
  });

  // As the protocol's own server does (facts, "publish"): who publishes can rely on having heard it.
  it.each(['signal', ...KEPT])('to a %s channel hears its own words before the reply to them', async (kind) => {
    const tap = tappedSocket();
    const ana = await connected(server, { websocket: tap.websocket });
    const ear = await Ear.on(ana, `${kind}:own`);
    await ana.publish(`${kind}:own`, 'mine');
    await ear.hears(1);
    const kinds = tap.lines.flatMap((line) => ['push', 'publish'].filter((name) => name in line));
    expect(kinds).toEqual(['push', 'publish']);
  });

  it('hears nothing after it has ended', async () => {
    const [ana, ben] = [await connected(server), await connected(server)];
    const [ear, other] = [await Ear.on(ana, 'history:end'), await Ear.on(ben, 'history:end')];
    await ben.publish('history:end', 1);
    await ear.hears(1);
    ear.subscription.unsubscribe();
    // Answered after the unsubscribe, on the same connection.
    await ana.history('history:end', { limit: 0 });
    await ben.publish('history:end', 2);
    await other.hears(2);
    await ana.history('history:end', { limit: 0 });
    expect(ear.data).toEqual([1]);
    expect(ear.ended).toEqual([{ code: 0, reason: 'unsubscribe called' }]);
    expect(ear.subscription.state).toBe(SubscriptionState.Unsubscribed);
  });

  it('hears each of many publications of several writers once, all in one order', async () => {
    const writers = await Promise.all([connected(server), connected(server), connected(server)]);
    const ears = await Promise.all(writers.map((writer) => Ear.on(writer, 'durable:many')));
    await Promise.all(writers.map(async (writer, at) => {
      for (let n = 0; n < 40; n += 1) await writer.publish('durable:many', { by: at, n });
    }));
    await Promise.all(ears.map((ear) => ear.hears(120)));
    for (const ear of ears) {
      expect(ear.heard.map(({ offset }) => offset)).toEqual(Array.from({ length: 120 }, (_, at) => at + 1));
      expect(ear.data).toEqual(ears[0]?.data);
    }
  });
});

describe('presence', () => {
  it('lists who is there, counts them, and tells who comes and goes', async () => {
    const [ana, ben] = [await connected(server), await connected(server)];
    const ear = await Ear.on(ana, 'signal:company', { joinLeave: true });
    const [own] = Object.keys((await ana.presence('signal:company')).clients);
    const other = await Ear.on(ben, 'signal:company');
    const both = Object.keys((await ana.presence('signal:company')).clients);
    const [bens] = both.filter((client) => client !== own);
    expect(both).toHaveLength(2);
    expect(await ana.presenceStats('signal:company')).toMatchObject({ numClients: 2 });
    // One's own join may or may not be told.
    const ofBen = (): string[] => ear.company.filter(({ client }) => client === bens).map(({ event }) => event);
    await until('the join is told', () => ofBen().length === 1);
    other.subscription.unsubscribe();
    await until('the leave is told', () => ofBen().length === 2);
    expect(ofBen()).toEqual(['join', 'leave']);
    expect(await ana.presenceStats('signal:company')).toMatchObject({ numClients: 1 });
  });

  it('forgets who was cut off', async () => {
    const tap = tappedSocket();
    const ana = await connected(server);
    const ear = await Ear.on(ana, 'signal:cut', { joinLeave: true });
    const ben = await connected(server, { websocket: tap.websocket, minReconnectDelay: 60_000, maxReconnectDelay: 60_000 });
    await Ear.on(ben, 'signal:cut');
    await until('the join is told', () => ear.company.some(({ event }) => event === 'join'));
    tap.cut();
    await until('the leave is told', () => ear.company.some(({ event }) => event === 'leave'));
    expect(await ana.presenceStats('signal:cut')).toMatchObject({ numClients: 1 });
  });
});

describe('history', () => {
  it.each(KEPT)('of a %s channel is paged forward and in reverse', async (kind) => {
    const channel = `${kind}:pages`;
    const client = await connected(server);
    await Ear.on(client, channel);
    await publish(client, channel, 1, 25);

    const top = await client.history(channel, { limit: 0 });
    expect(top.publications).toEqual([]);
    expect(top.offset).toBe(25);

    const forward: unknown[] = [];
    let since = { offset: 0, epoch: top.epoch };
    for (;;) {
      const page = await client.history(channel, { limit: 10, since });
      forward.push(...page.publications.map(({ data }) => data as unknown));
      const last = page.publications.at(-1);
      if (last?.offset === undefined) break;
      since = { offset: last.offset, epoch: page.epoch };
    }
    expect(forward).toEqual(numbers(1, 25));

    const newest = await client.history(channel, { limit: 10, reverse: true });
    expect(newest.publications.map(({ data }) => data as unknown)).toEqual(numbers(16, 25).reverse());
    const older = await client.history(channel, { limit: 10, reverse: true, since: { offset: 16, epoch: top.epoch } });
    expect(older.publications.map(({ data }) => data as unknown)).toEqual(numbers(6, 15).reverse());
    const first = await client.history(channel, { limit: 10, since: { offset: 25, epoch: top.epoch } });
    expect(first.publications).toEqual([]);
    expect(await refusal(client.history(channel, { limit: 10, since: { offset: 1, epoch: 'other' } }))).toMatchObject({ code: 112 });
  });

  it('keeps only so many, and says where its top is', async () => {
    const client = await connected(server);
    await publish(client, 'short:pages', 1, 10);
    const page = await client.history('short:pages', { limit: 10 });
    expect(page.publications.map(({ data }) => data as unknown)).toEqual(numbers(8, 10));
    expect(page.offset).toBe(10);
  });
});

describe('recovery', () => {
  it.each(KEPT)('on a %s channel brings all that was missed, in order', async (kind) => {
    const channel = `${kind}:missed`;
    const [ana, ben] = [await connected(server), await connected(server)];
    const ear = await Ear.on(ana, channel);
    expect(ear.began[0]).toMatchObject({ recoverable: true, wasRecovering: false });
    await publish(ben, channel, 1, 5);
    await ear.hears(5);
    ana.disconnect();
    await publish(ben, channel, 6, 60);
    ana.connect();
    expect(await ear.begins(2)).toMatchObject({ wasRecovering: true, recovered: true });
    await publish(ben, channel, 61, 61);
    await ear.hears(61);
    expect(ear.data).toEqual(numbers(1, 61));
    expect(ear.heard.map(({ offset }) => offset)).toEqual(numbers(1, 61).map(({ n }) => n));
  });

  it('follows a log from a position that one knows', async () => {
    const client = await connected(server);
    await publish(client, 'durable:known', 1, 4);
    const { epoch } = await client.history('durable:known', { limit: 0 });
    const ear = await Ear.on(client, 'durable:known', { since: { offset: 2, epoch } });
    expect(ear.began[0]).toMatchObject({ wasRecovering: true, recovered: true });
    await ear.hears(2);
    expect(ear.data).toEqual(numbers(3, 4));
  });

  it('says so when history no longer has what was missed', async () => {
    const [ana, ben] = [await connected(server), await connected(server)];
    const ear = await Ear.on(ana, 'short:missed');
    await publish(ben, 'short:missed', 1, 1);
    await ear.hears(1);
    ana.disconnect();
    await publish(ben, 'short:missed', 2, 20);
    ana.connect();
    expect(await ear.begins(2)).toMatchObject({ wasRecovering: true, recovered: false, position: { offset: 20 } });
    await publish(ben, 'short:missed', 21, 21);
    await until('the live one is heard', () => ear.heard.at(-1)?.offset === 21);
    expect(ear.data).toEqual([{ n: 1 }, { n: 21 }]);
  });

  it('of more than one answer holds is refused, and paging from the own position loses nothing', async () => {
    const [ana, ben] = [await connected(server), await connected(server)];
    const ear = await Ear.on(ana, 'durable:far');
    await publish(ben, 'durable:far', 1, 1);
    await ear.hears(1);
    ana.disconnect();
    // Beyond limits.history_entries_max; within the burst of commands.
    const others = await Promise.all([connected(server), connected(server)]);
    for (const other of others) await Promise.all(numbers(1, 170).map((data) => other.publish('durable:far', data)));
    ana.connect();
    const began = await ear.begins(2);
    expect(began).toMatchObject({ wasRecovering: true, recovered: false, position: { offset: 341 } });
    let since = { offset: 1, epoch: began.position?.epoch ?? '' };
    const offsets: number[] = [];
    while (since.offset < 341) {
      const page = await ana.history('durable:far', { limit: 200, since });
      offsets.push(...page.publications.map(({ offset }) => offset ?? 0));
      since = { offset: offsets.at(-1) ?? 341, epoch: page.epoch };
    }
    expect(offsets).toEqual(numbers(2, 341).map(({ n }) => n));
  });
});

describe('what we decline', () => {
  it('has its codes in answers', async () => {
    const client = await connected(server);
    expect(await refusal(client.publish('nowhere:1', {}))).toMatchObject({ code: 102 });
    expect(await refusal(client.history('signal:none', { limit: 1 }))).toMatchObject({ code: 108 });
    expect(await refusal(client.presence('history:none'))).toMatchObject({ code: 108 });
    expect(await refusal(client.publish('durable:large', { text: 'x'.repeat(1_000) }))).toMatchObject({ code: 106 });
    // The channels of stories are written by use cases alone, insecure or not.
    expect(await refusal(client.publish('story:1', {}))).toMatchObject({ code: 103 });
    expect(await refusal(client.publish('generation:1.2', {}))).toMatchObject({ code: 103 });
    // To the anonymous there are no methods; to others an unknown one is 104 (official-tokens.test.ts).
    expect(await refusal(client.rpc('no.such', {}))).toMatchObject({ code: 108 });
  });

  it.each([
    ['a channel of no namespace', 102, (client: Centrifuge) => client.newSubscription('nowhere:1')],
    ['a map', 108, (client: Centrifuge) => client.newMapSubscription('history:map')],
    ['a shared poll', 108, (client: Centrifuge) => client.newSharedPollSubscription('history:poll')],
    ['a filter of a comparison that there is not', 107, (client: Centrifuge) => client.newSubscription('history:tags', { tagsFilter: { key: 'a', cmp: 'like' as 'eq', val: 'b' } })],
    ['a story of others', 103, (client: Centrifuge) => client.newSubscription('story:1')],
  ] as const)('ends a subscription to %s with %i', async (_, code, subscribe) => {
    const client = await connected(server);
    const subscription = subscribe(client);
    const ended = new Promise<number>((resolve) => (subscription as Subscription).once('unsubscribed', (context) => resolve(context.code)));
    subscription.subscribe();
    expect(await within('refused', ended)).toBe(code);
    expect(client.state).toBe(State.Connected);
  });

  it('closes for a message that nobody takes', async () => {
    const client = await connected(server);
    const close = closed(client);
    await client.send({ hello: true });
    expect(await close).toMatchObject({ code: 3508 });
  });

  it('never grants delta compression, and serves the subscription without', async () => {
    const [ana, ben] = [await connected(server), await connected(server)];
    const ear = await Ear.on(ana, 'history:delta', { delta: 'fossil' });
    await publish(ben, 'history:delta', 1, 3);
    await ear.hears(3);
    expect(ear.data).toEqual(numbers(1, 3));
  });
});

describe('an older client of the same protocol', () => {
  it('connects, hears, and recovers', async () => {
    const older = track(new OlderCentrifuge(server.socketUrl, quick));
    const subscription = older.newSubscription('durable:older');
    const heard: unknown[] = [];
    const recovered: boolean[] = [];
    subscription.on('publication', ({ data }: { data: unknown }) => heard.push(data));
    subscription.on('subscribed', (context) => recovered.push(context.recovered));
    subscription.subscribe();
    older.connect();
    await within('subscribed', subscription.ready());
    const newer = await connected(server);
    await publish(newer, 'durable:older', 1, 2);
    await until('both are heard', () => heard.length === 2);
    older.disconnect();
    await publish(newer, 'durable:older', 3, 4);
    older.connect();
    await until('the missed are heard', () => heard.length === 4);
    await older.publish('durable:older', { n: 5 });
    await until('its own is heard', () => heard.length === 5);
    expect(heard).toEqual(numbers(1, 5));
    expect(recovered).toEqual([false, true]);
  });
});
