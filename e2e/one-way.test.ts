/**
 * The transports that flow one way, with what a browser brings along and no client at all: `EventSource` and `WebSocket` in
 * Chromium.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { servePages, type PageServer } from './src/page-server.ts';
import type { Server } from './src/server.ts';
import { chromium, type Browser, type Tab } from './src/tabs.ts';
import { API_CONFIG, tell } from './src/teller.ts';
import { SECRET, signed } from './src/tokens.ts';
import { until } from './src/until.ts';
import { withServer } from './src/with-server.ts';

const config = (origin: string): string => `${API_CONFIG}
[auth]
hs256_secret = "${SECRET}"
allowed_origins = ["${origin}"]

[namespaces.durable]
kind = "durable"
`;

let server: Server;
let page: PageServer;
let browser: Browser;
beforeAll(async () => {
  [page, browser] = [await servePages(), await chromium()];
});
withServer(() => ({ config: config(page.origin) }), (started) => (server = started));
afterAll(async () => {
  page.close();
  await browser.close();
});

type Push = Record<string, unknown>;
declare global {
  interface Window {
    pushes?: Push[];
    ends?: number[];
  }
}

// --- what runs in the page ------------------------------------------------------------------------

function bySse(url: string): void {
  const pushes: Push[] = (window.pushes = []);
  const ends: number[] = (window.ends = []);
  const source = new EventSource(url);
  source.onmessage = ({ data }: MessageEvent<string>) => void pushes.push(JSON.parse(data) as Push);
  source.onerror = () => {
    ends.push(source.readyState);
    source.close();
  };
}

function byWebSocket({ url, first }: { url: string; first: string }): void {
  const pushes: Push[] = (window.pushes = []);
  const ends: number[] = (window.ends = []);
  const socket = new WebSocket(url);
  socket.onopen = () => {
    if (first !== '') socket.send(first);
  };
  socket.onmessage = ({ data }: MessageEvent<string>) => {
    for (const line of data.split('\n')) if (line !== '') pushes.push(JSON.parse(line) as Push);
  };
  socket.onclose = ({ code }) => void ends.push(code);
}

// --- the tests ------------------------------------------------------------------------------------

async function elsewhere(): Promise<Tab> {
  const tab = await browser.tab();
  await tab.go(page.origin);
  return tab;
}

const seen = (tab: Tab): Promise<{ pushes: Push[]; ends: number[] }> => tab.run(() => ({ pushes: window.pushes ?? [], ends: window.ends ?? [] }), undefined);

/** Waits until so many pushes that are no pings have come. */
const pushed = (tab: Tab, count: number): Promise<Push[]> =>
  until(`${count} pushes`, async () => {
    const real = (await seen(tab)).pushes.filter((push) => Object.keys(push).length > 0);
    return real.length >= count && real;
  }, undefined, () => seen(tab));

const request = (more: object): string => JSON.stringify({ token: signed({ sub: 'ana' }), ...more });
const inQuery = (path: string, connect: string): string => `${path}?cf_connect=${encodeURIComponent(connect)}`;

const WAYS: [string, (tab: Tab, connect: string) => Promise<void>][] = [
  ['EventSource at /connection/uni_sse', (tab, connect) => tab.run(bySse, inQuery(`${server.url}/connection/uni_sse`, connect))],
  ['WebSocket at /connection/uni_websocket', (tab, connect) => tab.run(byWebSocket, { url: `ws://127.0.0.1:${server.port}/connection/uni_websocket`, first: connect })],
  ['WebSocket with the request in the address', (tab, connect) => tab.run(byWebSocket, { url: inQuery(`ws://127.0.0.1:${server.port}/connection/uni_websocket`, connect), first: '' })],
];

describe.each(WAYS)('%s', (name, open) => {
  const channel = `durable:${name.replaceAll(/\W/g, '')}`;

  it('gets pushes, and after kill -9 what it missed', async () => {
    const tab = await elsewhere();
    await open(tab, request({ subs: { [channel]: {} } }));
    const [connected] = await pushed(tab, 1);
    expect(connected).toMatchObject({ connect: { client: expect.any(String) as string, subs: { [channel]: { recoverable: true } } } });
    const epoch = (connected?.['connect'] as { subs: Record<string, { epoch: string }> }).subs[channel]?.epoch ?? '';
    await tell(server, { channel, data: { n: 1 } });
    expect((await pushed(tab, 2))[1]).toMatchObject({ channel, pub: { data: { n: 1 }, offset: 1 } });

    await server.kill9();
    await until('the end is seen', async () => (await seen(tab)).ends.length > 0);
    await server.restart();
    await tell(server, { channel, data: { n: 2 } });
    await open(tab, request({ subs: { [channel]: { recover: true, offset: 1, epoch } } }));
    const [again] = await pushed(tab, 1);
    expect(again).toMatchObject({ connect: { subs: { [channel]: { recovered: true, publications: [{ data: { n: 2 }, offset: 2 }] } } } });
    await tell(server, { channel, data: { n: 3 } });
    expect((await pushed(tab, 2))[1]).toMatchObject({ channel, pub: { data: { n: 3 }, offset: 3 } });
  });

  it('is told when it may not be here', async () => {
    const tab = await elsewhere();
    await open(tab, request({ token: 'nonsense' }));
    const told = await until('the end is told', async () => {
      const { pushes, ends } = await seen(tab);
      return ends.length > 0 && { pushes, ends };
    });
    // A WebSocket has close codes, a stream of events has words.
    if (name.startsWith('WebSocket')) expect(told.ends).toEqual([3500]);
    else expect(told.pushes.at(-1)).toMatchObject({ disconnect: { code: 3500 } });
  });
});
