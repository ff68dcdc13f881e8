/**
 * What is promised over `kill -9`, heard by the official client: durable channels lose nothing that was acknowledged
 * and repeat nothing; history channels say honestly that they have begun anew.
 */
import type { Centrifuge } from 'centrifuge';
import { describe, expect, it } from 'vitest';
import { connected, Ear } from './src/official.ts';
import { seeded } from './src/seed.ts';
import type { Server } from './src/server.ts';
import { until } from './src/until.ts';
import { withServerEach } from './src/with-server.ts';

const CONFIG = `
[limits]
# The publisher below is faster than a person, and may be back before its reader.
commands_per_second = 1_000_000
command_burst = 1_000_000
history_entries_max = 100_000

[namespaces.history]
kind = "history"

[namespaces.durable]
kind = "durable"
`;
const KILLS = 5;
/** Publications on their way at once. */
const AHEAD = 16;

let server: Server;
withServerEach(() => ({ insecure: true, config: CONFIG }), (started) => (server = started));

/** Publishes 1, 2, 3 and so on until stopped; a number whose fate is unknown is never sent again. */
class Publisher {
  readonly acknowledged: number[] = [];
  readonly #client: Centrifuge;
  readonly #channel: string;
  #last = 0;
  #stopped = false;
  readonly #lanes: Promise<void>[];

  constructor(client: Centrifuge, channel: string) {
    this.#client = client;
    this.#channel = channel;
    this.#lanes = Array.from({ length: AHEAD }, () => this.#lane());
  }

  get sent(): number {
    return this.#last;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#lanes);
  }

  async #lane(): Promise<void> {
    while (!this.#stopped) {
      try {
        await this.#client.ready();
        const n = (this.#last += 1);
        await this.#client.publish(this.#channel, n);
        this.acknowledged.push(n);
      } catch {
        // The server was killed meanwhile: what became of this one is what the test asks.
      }
    }
  }
}

describe('after kill -9', () => {
  it('a durable channel has every acknowledged publication once, in order, also under fire', async () => {
    const seed = seeded('official-recovery');
    const [writer, reader, idler] = [await connected(server), await connected(server), await connected(server)];
    const ear = await Ear.on(reader, 'durable:fire');
    const quiet = await Ear.on(idler, 'durable:fire');
    idler.disconnect();
    const publisher = new Publisher(writer, 'durable:fire');
    for (let kill = 1; kill <= KILLS; kill += 1) {
      const moment = publisher.acknowledged.length + 50 + seed.below(500);
      await until(`publication ${moment} is acknowledged`, () => publisher.acknowledged.length >= moment);
      // Not a wait for anything: somewhere inside of a group commit, of an announcement, of a write.
      await new Promise((resolve) => setTimeout(resolve, seed.below(8)));
      await server.kill9();
      await server.restart();
      expect(await ear.begins(kill + 1)).toMatchObject({ wasRecovering: true, recovered: true });
    }
    const end = publisher.acknowledged.length + 20;
    await until('it goes on', () => publisher.acknowledged.length >= end);
    await publisher.stop();

    const { offset: top } = await reader.history('durable:fire', { limit: 0 });
    await until('all is heard', () => ear.heard.at(-1)?.offset === top, undefined, () => [ear.heard.at(-1), top]);
    const heard = ear.data.map(Number);
    expect(ear.heard.map(({ offset }) => offset)).toEqual(heard.map((_, at) => at + 1));
    expect(heard).toEqual([...new Set(heard)].sort((a, b) => a - b));
    const there = new Set(heard);
    expect(publisher.acknowledged.filter((n) => !there.has(n))).toEqual([]);
    // Each kill can leave at most what was on its way without an answer.
    expect(heard.length - publisher.acknowledged.length).toBeLessThanOrEqual(KILLS * AHEAD);
    console.info(`${publisher.acknowledged.length} acknowledged, ${heard.length} kept, ${publisher.sent} sent, ${KILLS} kills`);

    // Who was away all the time, and who reads the history, find the same.
    idler.connect();
    expect(await quiet.begins(2)).toMatchObject({ wasRecovering: true, recovered: true });
    await quiet.hears(heard.length);
    expect(quiet.data).toEqual(heard);
    const page = await reader.history('durable:fire', { limit: 100_000 });
    expect(page.publications.map(({ data }) => data as unknown)).toEqual(heard);
  });

  it('a durable channel keeps its positions and goes on counting', async () => {
    const client = await connected(server);
    const ear = await Ear.on(client, 'durable:calm');
    for (const n of [1, 2, 3]) await client.publish('durable:calm', n);
    await ear.hears(3);
    await server.kill9();
    await server.restart();
    const again = await ear.begins(2);
    expect(again).toMatchObject({ wasRecovering: true, recovered: true });
    expect(again.position?.epoch).toBe(ear.began[0]?.position?.epoch);
    await client.publish('durable:calm', 4);
    await ear.hears(4);
    expect(ear.heard.map(({ data, offset }) => [data, offset])).toEqual([[1, 1], [2, 2], [3, 3], [4, 4]]);
  });

  it('a history channel is told to be new: not recovered, another epoch', async () => {
    const client = await connected(server);
    const ear = await Ear.on(client, 'history:calm');
    for (const n of [1, 2, 3]) await client.publish('history:calm', n);
    await ear.hears(3);
    await server.kill9();
    await server.restart();
    const again = await ear.begins(2);
    expect(again).toMatchObject({ wasRecovering: true, recovered: false, position: { offset: 0 } });
    expect(again.position?.epoch).not.toBe(ear.began[0]?.position?.epoch);
    await client.publish('history:calm', 4);
    await ear.hears(4);
    expect(ear.heard.at(-1)).toMatchObject({ data: 4, offset: 1 });
  });
});

it('a stopping server sends its clients away in a way that they come back', async () => {
  const client = await connected(server);
  const codes: number[] = [];
  client.on('connecting', ({ code }) => codes.push(code));
  await Ear.on(client, 'durable:stop');
  await client.publish('durable:stop', 1);
  await server.halt();
  await until('the client is told to come back', () => codes.length > 0);
  expect(codes[0]).toBe(3001);
  await server.restart();
  await client.ready(15_000);
  expect((await client.history('durable:stop', { limit: 5 })).publications).toHaveLength(1);
});
