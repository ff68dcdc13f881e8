/**
 * A bare `EventSource` in two real browsers, on our own page and on one of another origin: it hears everything once and in
 * order while the server is killed, is told of what is lost, and stays away when it is told to.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { servePages, type PageServer } from './src/page-server.ts';
import { CLOSED, Reader, type Told } from './src/reader.ts';
import type { Server } from './src/server.ts';
import { chromium, firefox, type Browser } from './src/tabs.ts';
import { API_CONFIG, tell, Teller } from './src/teller.ts';
import { SECRET, signed } from './src/tokens.ts';
import { withServer } from './src/with-server.ts';

const config = (origin: string): string => `${API_CONFIG}
[auth]
hs256_secret = "${SECRET}"
allowed_origins = ["${origin}"]

[namespaces.durable]
kind = "durable"

[namespaces.history]
kind = "history"
`;
const KILLS = 2;
/** Told before and after each kill: far more than a page of history while the reader waits for its turn. */
const TOLD = 300;

let server: Server;
let friend: PageServer;
let stranger: PageServer;
beforeAll(async () => {
  [friend, stranger] = await Promise.all([servePages(), servePages()]);
});
withServer(() => ({ config: config(friend.origin) }), (started) => (server = started));
afterAll(() => {
  friend.close();
  stranger.close();
});

const token = signed({ sub: 'ana' });
const events = (query: string): string => `${server.url}/events?token=${token}&${query}`;
const numbers = (told: readonly Told[]): unknown[] => told.map(({ data }) => (JSON.parse(data) as { n: unknown }).n);
const upTo = (last: number): number[] => Array.from({ length: last }, (_, at) => at + 1);

describe.each([['Chromium', chromium], ['Firefox', firefox]])('%s', (name, launch) => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await launch();
  });
  afterAll(() => browser.close());

  /** A stream on a page of that origin, which has begun. */
  async function reading(origin: string, query: string, names: readonly string[] = []): Promise<Reader> {
    const tab = await browser.tab();
    await tab.go(origin);
    const reader = await Reader.open(tab, events(query), names);
    await reader.hears('connected');
    return reader;
  }

  it('hears everything once and in order over kill -9, on our own page and on another', async () => {
    const channel = `durable:${name}-fire`;
    const readers = [await reading(server.url, `channel=${channel}`, ['turn']), await reading(friend.origin, `channel=${channel}`, ['turn'])];
    const teller = new Teller(server, channel, 'turn');
    for (let kill = 1; kill <= KILLS; kill += 1) {
      await teller.goesOn(TOLD);
      await server.kill9();
      await server.restart();
      await teller.goesOn(TOLD);
      for (const reader of readers) {
        expect(await reader.hears('connected', kill + 1)).toMatchObject({ channels: { [channel]: { recovered: true } } });
      }
    }
    const last = await teller.stop();
    for (const reader of readers) {
      await reader.reaches(`number ${last} is heard`, ({ last: one }) => one?.data === JSON.stringify({ n: last }));
      const turns = await reader.told('turn');
      expect(numbers(turns)).toEqual(upTo(last));
      // The id is the offset and what tells the channel's life, which a durable channel has one of.
      expect(turns.map(({ id }) => Number(id.split('-')[0]))).toEqual(upTo(last));
      expect(new Set(turns.map(({ id }) => id.split('-')[1])).size).toBe(1);
      expect(await reader.told('gap')).toEqual([]);
      expect((await reader.look()).opened).toBe(KILLS + 1);
    }
    console.info(`${name}: ${last} publications, ${KILLS} kills, 2 readers`);
  });

  it('hears several channels in one stream, and of a gap in the one that has forgotten', async () => {
    const [kept, forgetful] = [`durable:${name}-many`, `history:${name}-many`];
    const reader = await reading(friend.origin, `channel=${kept}&channel=${forgetful}&envelope=1`, ['turn', 'vote']);
    await tell(server, { channel: kept, event: 'turn', data: { n: 1 } });
    await tell(server, { channel: forgetful, event: 'vote', data: { n: 2 } });
    await tell(server, { channel: kept, data: { n: 3 } });
    await reader.hears('message');
    expect(await reader.hears('turn')).toMatchObject({ channel: kept, offset: 1, data: { n: 1 } });
    expect(await reader.hears('vote')).toMatchObject({ channel: forgetful, offset: 1, data: { n: 2 } });
    expect(await reader.hears('message')).toMatchObject({ channel: kept, offset: 2, data: { n: 3 } });
    const ids = (await reader.told()).map(({ id }) => id);
    expect(new Set(ids).size).toBe(4);
    expect(ids.every((id) => /^[\w.~-]{1,128}$/.test(id)), ids.join(' ')).toBe(true);

    await server.kill9();
    await server.restart();
    await tell(server, { channel: kept, event: 'turn', data: { n: 4 } });
    await tell(server, { channel: forgetful, event: 'vote', data: { n: 5 } });
    expect(await reader.hears('connected', 2)).toMatchObject({ channels: { [kept]: { recovered: true }, [forgetful]: { recovered: false } } });
    // What was told meanwhile is behind the gap: the page reads its state anew.
    expect(await reader.hears('gap')).toMatchObject({ channel: forgetful, offset: 1 });
    await tell(server, { channel: forgetful, event: 'vote', data: { n: 6 } });
    expect(await reader.hears('turn', 2)).toMatchObject({ channel: kept, offset: 3, data: { n: 4 } });
    expect(await reader.hears('vote', 2)).toMatchObject({ channel: forgetful, offset: 2, data: { n: 6 } });
    expect((await reader.told('gap')).length).toBe(1);
  });

  it('stays away for good when its token is not good, and hears why', async () => {
    const tab = await browser.tab();
    await tab.go(friend.origin);
    const reader = await Reader.open(tab, `${server.url}/events?channel=durable:1&token=nonsense`);
    expect(await reader.hears('disconnect')).toMatchObject({ code: 3500, reconnect: false });
    await reader.reaches('the stream is closed for good', ({ state }) => state === CLOSED);
    const { opened, failed } = await reader.look();
    // The end of the first stream, then the 204.
    expect([opened, failed]).toEqual([1, 2]);
    expect((await reader.told()).map(({ event }) => event)).toEqual(['disconnect']);
  });

  it('reads with the login of a guest on our own page and on a friend, and not on a page of strangers', async () => {
    const channel = `durable:${name}-guest`;
    const address = `${server.url}/events?channel=${channel}`;
    const tab = await browser.tab();
    await tab.go(server.url);
    const status = await tab.run(async () => {
      const headers = { 'Content-Type': 'application/json' };
      return (await fetch('/app/login', { method: 'POST', headers, body: JSON.stringify({ name: 'Ana' }) })).status;
    }, undefined);
    expect(status).toBe(200);
    const own = await Reader.open(tab, address);
    await own.hears('connected');
    await tell(server, { channel, data: { n: 1 } });
    expect(await own.hears('message')).toEqual({ n: 1 });

    // The other pages are of the same site, so that the browser sends the cookie there too.
    await tab.go(friend.origin);
    const befriended = await Reader.open(tab, address, [], true);
    await befriended.hears('connected');
    await tab.go(stranger.origin);
    const strange = await Reader.open(tab, address, [], true);
    await strange.reaches('the stream is refused', ({ state }) => state === CLOSED);
    expect(await strange.look()).toMatchObject({ opened: 0, told: 0 });
  });
});
