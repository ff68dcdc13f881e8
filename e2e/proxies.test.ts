/**
 * Readers behind nginx, HAProxy and Caddy, each with the file that is shipped in deploy/: every transport, over TLS and
 * HTTP/2, event by event; addresses that a visitor makes up; a node that dies and one that leaves.
 */
import { execFile } from 'node:child_process';
import { get } from 'node:https';
import { promisify } from 'node:util';
import { Centrifuge, type Options, type TransportEndpoint } from 'centrifuge';
import { EventSource as NodeEventSource } from 'eventsource';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket as NodeWebSocket } from 'ws';
import { launchChromium } from './src/browser.ts';
import { Http2 } from './src/http2.ts';
import { disconnectAll, Ear, quick, track } from './src/official.ts';
import { KINDS, Proxy, twoAddresses, type Nodes } from './src/proxy.ts';
import { startServices, type Services } from './src/services.ts';
import { binary, Server, withoutSettings, type Address } from './src/server.ts';
import { API_CONFIG, API_KEY, tell, Teller } from './src/teller.ts';
import { SECRET, signed } from './src/tokens.ts';
import { until, within } from './src/until.ts';

const LOGINS = 3;
/** As deploy/systemd/talewire.toml says. */
const NOTICE_MS = 3_000;
const CONFIG = `${API_CONFIG}
login_burst = ${LOGINS}
drain_wait_ms = ${NOTICE_MS}
trusted_proxies = ["127.0.0.1"]

[auth]
hs256_secret = "${SECRET}"

[namespaces.durable]
kind = "durable"
publish = "subscribers"
presence = true
`;
/** An event that takes longer than this was held by somebody. */
const EVENT_MS_MAX = 50;
const run = promisify(execFile);
/** In every address that a reader asks for, and nobody's to write down. */
const token = signed({ sub: 'ana' });

/** As docs/deployment.md has it: nodes that share a Redis and a PostgreSQL. */
let services: Services;
beforeAll(async () => {
  services = await startServices();
});
afterAll(() => services.stop());

describe.each(Object.entries(KINDS))('behind %s', (name, kind) => {
  let nodes: Nodes;
  let proxy: Proxy;
  let http: Http2;
  let a: Server;
  let b: Server;
  const sources = new Set<{ close: () => void }>();
  beforeAll(async () => {
    nodes = await twoAddresses();
    const config = CONFIG + services.config(name.toLowerCase());
    const start = (at: Address): Promise<Server> => Server.start({ at, config });
    [a, b] = await Promise.all([start(nodes.a), start(nodes.b)]);
    // Afterwards: it would think that they are down, and look again a second later.
    proxy = await Proxy.start(kind, nodes);
    http = new Http2(proxy.url, proxy.ca);
  });
  afterEach(({ task }) => {
    disconnectAll();
    for (const source of sources) source.close();
    sources.clear();
    if (task.result?.state === 'fail') console.error(`${a.tail(10)}\n${b.tail(10)}\n${proxy.logs().slice(-1500)}`);
  });
  afterAll(async () => {
    http.close();
    await Promise.all([proxy.stop(), a.stop(), b.stop()]);
  });

  /** A number of both nodes together. */
  const both = async (metric: string): Promise<number> => (await a.metric(metric)) + (await b.metric(metric));
  const channel = (of: string): string => `durable:${of}`;

  function client(transport: 'websocket' | 'http_stream' | 'sse'): Centrifuge {
    const endpoint: TransportEndpoint = { transport, endpoint: transport === 'websocket' ? proxy.socketUrl : `${proxy.url}/connection/${transport}` };
    const options: Partial<Options> = {
      ...quick,
      token,
      websocket: trusting(proxy.ca),
      fetch: http.fetch,
      readableStream: ReadableStream,
      eventsource: over(http),
      emulationEndpoint: `${proxy.url}/emulation`,
    };
    return track(new Centrifuge([endpoint], options));
  }

  interface Told { event: string; data: string; at_ms: number }

  /** A bare `EventSource`, over HTTP/2. */
  function source(of: string): { told: Told[]; source: NodeEventSource; opened: () => number } {
    const told: Told[] = [];
    let opened = 0;
    const source = new (over(http))(`${proxy.url}/events?channel=${of}&token=${token}`);
    sources.add(source);
    source.onopen = (): void => void (opened += 1);
    for (const event of ['connected', 'message', 'turn', 'gap', 'disconnect']) {
      source.addEventListener(event, ({ data }) => told.push({ event, data: String(data), at_ms: performance.now() }));
    }
    return { told, source, opened: () => opened };
  }

  /** The same over HTTP/1.1, where it is all that its socket carries. */
  function source1(of: string): { told: Told[] } {
    const told: Told[] = [];
    const request = get(`${proxy.url}/events?channel=${of}&token=${token}`, { ca: proxy.ca, agent: false }, (answer) => {
      answer.setEncoding('utf8').on('data', (text: string) => {
        for (const [, data = ''] of text.matchAll(/^data: (.*)$/gm)) told.push({ event: '', data, at_ms: performance.now() });
      });
    });
    sources.add({ close: () => request.destroy() });
    request.on('error', () => undefined);
    return { told };
  }

  const nodeOf = (connected: Told | undefined): string => (JSON.parse(connected?.data ?? '{}') as { node: string }).node;

  describe.each(['websocket', 'http_stream', 'sse'] as const)('%s', (transport) => {
    it('carries the official client both ways, word for word', async () => {
      const of = channel(transport);
      const one = client(transport);
      const opened = new Promise<{ transport: string }>((resolve) => one.once('connected', resolve));
      one.connect();
      expect(await within('connected', opened)).toMatchObject({ transport });
      const ear = await Ear.on(one, of);
      let n = 0;
      /** Said and heard: nothing waits for company. Commands of the one-way transports are requests of their own. */
      const say = async (): Promise<number> => {
        const began = performance.now();
        await one.publish(of, { n: (n += 1) });
        await ear.hears(n);
        return performance.now() - began;
      };
      await atOnce('a word', 2 * EVENT_MS_MAX, say, 5);
      expect(ear.data).toEqual(Array.from({ length: n }, (_, at) => ({ n: at + 1 })));
      if (transport !== 'websocket') expect(http.protocol).toBe('h2');
    });
  });

  it.each([['2', source], ['1.1', source1]] as const)('events come one by one over HTTP/%s, the first at once', async (version, open) => {
    const of = channel(`events${version}`);
    const began = async (): Promise<number> => {
      const asked_ms = performance.now();
      const { told } = open(of);
      await until('the stream begins', () => told.length > 0);
      return (told[0]?.at_ms ?? Infinity) - asked_ms;
    };
    const first_ms = await atOnce('a first event', EVENT_MS_MAX, began, 3);
    const { told } = open(of);
    await until('the stream begins', () => told.length > 0);
    let n = 0;
    const came = async (): Promise<number> => {
      n += 1;
      const told_ms = performance.now();
      await tell(a, { channel: of, data: { n } });
      await until(`event ${n} is here`, () => told.length > n);
      return (told[n]?.at_ms ?? Infinity) - told_ms;
    };
    const event_ms = await atOnce('an event', EVENT_MS_MAX, came, 6);
    expect(told.slice(1).map(({ data }) => JSON.parse(data) as unknown)).toEqual(Array.from({ length: n }, (_, at) => ({ n: at + 1 })));
    console.info(`${name}, HTTP/${version}: first event after ${first_ms.toFixed(1)} ms, others after ${event_ms.toFixed(1)} ms at best`);
  });

  it('nobody compresses or renames a stream on the way', async () => {
    const answer = await http.fetch(`${proxy.url}/events?channel=${channel('head')}&token=${token}`, { headers: { 'Accept-Encoding': 'gzip, br, zstd' } });
    expect(answer.status).toBe(200);
    expect(answer.headers.get('content-type')).toBe('text/event-stream');
    expect(answer.headers.get('content-encoding')).toBeNull();
    expect(answer.headers.get('cache-control')).toContain('no-transform');
    await answer.body?.cancel();
  });

  it('a reader that leaves is gone', async () => {
    const { told, source: reader } = source(channel('leaving'));
    await until('the stream begins', () => told.length > 0);
    await until('the node has it', async () => (await both('talewire_subscriptions')) > 0);
    reader.close();
    await until('the node has let go', async () => (await both('talewire_connections')) === 0);
  });

  it('a poll waits as long as it asked to, and is answered by the first event', async () => {
    const of = channel('poll');
    const poll = async (query: string): Promise<{ cursor: string; events: { data: unknown }[] }> => {
      const answer = await http.fetch(`${proxy.url}/poll?token=${token}&${query}`);
      expect(answer.status).toBe(200);
      return (await answer.json()) as { cursor: string; events: { data: unknown }[] };
    };
    const { cursor } = await poll(`channel=${of}&wait=0`);
    const waiting = poll(`cursor=${cursor}&wait=50`);
    await until('the poll waits', async () => (await both('talewire_connections')) > 0);
    await tell(a, { channel: of, data: 'hello' });
    expect((await within('the poll is answered', waiting)).events).toMatchObject([{ data: 'hello' }]);
  });

  it('Chromium reads events by HTTP/2 and opens a WebSocket, on one page', async () => {
    const of = channel('browser');
    const browser = await launchChromium();
    try {
      const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
      await page.goto(`${proxy.url}/openapi.json`);
      const heard = page.evaluate(async ({ url, connect }) => {
        const source = new EventSource(url);
        const event = await new Promise<string>((resolve) => (source.onmessage = ({ data }) => resolve(String(data))));
        const [entry] = performance.getEntriesByType('resource') as PerformanceResourceTiming[];
        const socket = new WebSocket(`${location.origin.replace('https', 'wss')}/connection/websocket`);
        const reply = await new Promise<string>((resolve) => {
          socket.onopen = (): void => socket.send(connect);
          socket.onmessage = ({ data }) => resolve(String(data));
        });
        const navigation = performance.getEntriesByType('navigation')[0] as PerformanceNavigationTiming;
        return { event, protocol: entry?.nextHopProtocol ?? navigation.nextHopProtocol, page: navigation.nextHopProtocol, reply };
      }, { url: `/events?channel=${of}&token=${token}&last_event_id=earliest`, connect: JSON.stringify({ id: 1, connect: { token } }) });
      await tell(a, { channel: of, data: { n: 1 } });
      expect(await within('the page has heard', heard)).toMatchObject({ event: '{"n":1}', page: 'h2', reply: expect.stringContaining('"connect"') as string });
    } finally {
      await browser.close();
    }
  });

  it('is what the doctor calls good', async () => {
    const asked = ['doctor', '--through', proxy.url, '--token', token, '--channel', channel('doctor')];
    // It may find more wrong with this machine than is our matter here.
    const environment = withoutSettings({ SSL_CERT_FILE: proxy.certificate });
    // It also finds what is wrong with this machine, and something to better when it is too busy for a quick answer.
    await until('all is good', async () => {
      const { stdout } = await run(binary(), asked, { env: environment }).catch((error: unknown) => error as { stdout: string });
      expect(stdout).not.toMatch(/WRONG.*localhost/);
      return /good +the first event of a stream through \S+ came after/.test(stdout) && /good +a WebSocket through \S+ opens/.test(stdout);
    });
  });

  it('an address that a visitor makes up is not believed', async () => {
    /** A login from one of this machine's own addresses, by a visitor who says to be somebody else each time. */
    const login = (from: string, n: number): ReturnType<typeof curl> => {
      const made_up = ['X-Forwarded-For: 203.0.113.', 'Forwarded: for=203.0.113.', 'X-Real-IP: 203.0.113.'].flatMap((header) => ['-H', `${header}${n}`]);
      return curl('--interface', from, ...made_up, '-H', `Origin: ${proxy.url}`, '-H', 'Content-Type: application/json', '-d', '{"name":"Ana"}', `${proxy.url}/app/login`);
    };
    const first = await login('127.0.0.7', 0);
    expect(first.status).toBe(200);
    expect(first.text).toMatch(/set-cookie: .*; Secure/i);
    // Each node counts for itself.
    const statuses = [];
    for (let n = 1; n <= 2 * LOGINS; n += 1) statuses.push((await login('127.0.0.7', n)).status);
    expect(statuses).toContain(429);
    // Whoever has another address has limits of their own.
    expect((await login('127.0.0.8', 1)).status).toBe(200);
  });

  it('refuses what nodes would refuse, and what is not for readers', async () => {
    const post = (path: string, body: string): Promise<Response> =>
      http.fetch(`${proxy.url}${path}`, { method: 'POST', headers: { 'Content-Type': 'application/json', 'X-API-Key': API_KEY }, body });
    expect((await post('/app/login', 'x'.repeat(262_145))).status).toBe(413);
    expect((await post('/api/info', '{}')).status).toBe(404);
    const long = await curl('-H', `X-Long: ${'x'.repeat(17_000)}`, proxy.url);
    expect([0, 400, 431]).toContain(long.status);
    const upgrade = await curl('--http1.1', '-H', 'Connection: Upgrade', '-H', 'Upgrade: h2c', `${proxy.url}/connection/websocket`);
    expect([400, 426]).toContain(upgrade.status);
    expect(await curl(`${proxy.plainUrl}/x?y`)).toMatchObject({ status: 308, redirect: expect.stringMatching(/^https:\/\/localhost.*\/x\?y$/) as string });
  });

  /** Readers and clients of a channel on both nodes, of whom each is to hear every number that is told by a server program, once and in order. */
  async function crowd(of: string): Promise<{ heard: () => unknown[][]; gaps: () => number }> {
    // A proxy that looks at nodes once a second may not have seen yet that one is back.
    const known = new Set<string>();
    await until('the proxy knows both nodes', async () => {
      const probe = source(of);
      await until('the stream begins', () => probe.told.length > 0);
      probe.source.close();
      return known.add(nodeOf(probe.told[0])).size === 2;
    });
    const readers: ReturnType<typeof source>[] = [];
    while (readers.length < 4) {
      const reader = source(of);
      readers.push(reader);
      // One after the other, so that the proxy knows who has how many.
      await until('the stream begins', () => reader.told.length > 0);
    }
    const clients = (['websocket', 'websocket', 'http_stream', 'sse'] as const).map(client);
    for (const one of clients) one.connect();
    const ears = await Promise.all(clients.map((one) => Ear.on(one, of)));
    expect(new Set(readers.map(({ told }) => nodeOf(told[0]))).size).toBe(2);
    return {
      heard: () => [
        ...readers.map(({ told }) => told.filter(({ event }) => event === 'turn').map(({ data }) => (JSON.parse(data) as { n: number }).n)),
        ...ears.map(({ data }) => data.map((one) => (one as { n: number }).n)),
      ],
      gaps: () => readers.flatMap(({ told }) => told.filter(({ event }) => event === 'gap')).length + ears.flatMap(({ began }) => began.slice(1).filter(({ recovered }) => !recovered)).length,
    };
  }

  /** All of them have heard everything, once and in order. */
  async function allHear({ heard, gaps }: Awaited<ReturnType<typeof crowd>>, last: number): Promise<void> {
    await until('all have come back', () => heard().every((numbers) => numbers.length >= last), 30_000, () => heard().map((numbers) => numbers.length));
    for (const numbers of heard()) expect(numbers).toEqual(Array.from({ length: last }, (_, at) => at + 1));
    expect(gaps()).toBe(0);
  }

  it('a node that is killed leaves its readers to the other, who miss nothing', async () => {
    const of = channel('killed');
    const all = await crowd(of);
    const teller = new Teller(b, of, 'turn');
    await teller.goesOn(50);
    await a.kill9();
    await teller.goesOn(200);
    await allHear(all, await teller.stop());
    await a.restart();
  });

  it('readers come back when no node was there for a while', async () => {
    const of = channel('nobody');
    const reader = source(of);
    await until('the stream begins', () => reader.told.length > 0);
    await Promise.all([a.kill9(), b.kill9()]);
    // Answered as a stream, since nothing else would bring a browser back.
    const answer = await until('the proxy has noticed', async () => {
      const answer = await http.fetch(`${proxy.url}/events?channel=${of}&token=${token}`, { headers: { Origin: 'https://other.example' } }).catch(() => undefined);
      return answer?.status === 200 && answer;
    });
    expect(await answer.text()).toMatch(/^retry: \d{4}\n\n$/);
    expect(answer.headers.get('content-type')).toMatch(/^text\/event-stream/);
    expect(answer.headers.get('access-control-allow-origin')).toBe('https://other.example');
    expect((await http.fetch(`${proxy.url}/app/config`)).status).toBeGreaterThanOrEqual(500);
    await Promise.all([a.restart(), b.restart()]);
    await tell(a, { channel: of, data: 'while it was away' });
    await until('the reader is back', () => reader.told.some(({ data }) => data === '"while it was away"'), 30_000, () => reader.told);
    expect(reader.told.map(({ event }) => event)).not.toContain('gap');
  });

  it('nobody who asks or reads notices that a node leaves', async () => {
    const of = channel('leaving');
    const all = await crowd(of);
    const teller = new Teller(b, of, 'turn');
    let [asked, stopped] = [0, false];
    const ask = async (path: string, init?: RequestInit): Promise<void> => {
      const answer = await http.fetch(`${proxy.url}${path}`, init);
      const text = await answer.text().catch((error: unknown) => `cut off: ${String(error)}`);
      expect([path, answer.status, text]).toEqual([path, 200, expect.stringMatching(/^\{.*\}$/s)]);
    };
    const asking = (async () => {
      while (!stopped) {
        await ask('/app/config');
        await ask('/app/presence_stats', { method: 'POST', headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` }, body: JSON.stringify({ channel: of }) });
        await ask(`/poll?channel=${of}&wait=0&token=${token}`);
        asked += 1;
      }
    })();
    asking.catch(() => undefined);
    const more = async (): Promise<void> => {
      const goal = asked + 20;
      await Promise.race([asking, until('more was asked', () => asked >= goal)]);
    };
    await more();
    await a.halt();
    await more();
    stopped = true;
    await within('the last answer', asking);
    await allHear(all, await teller.stop());
  });

  it('has written no token into any log', async () => {
    const logs = await until('the log has come', () => proxy.logs().includes('/events') && proxy.logs());
    expect(logs).toContain('/poll');
    expect(logs).not.toContain(token);
    expect(logs).not.toContain(token.split('.')[2]);
  });
});

/** Measures until one of them was quick enough, several times at least: the machine has other work too, but who holds things back holds all. */
async function atOnce(name: string, most_ms: number, measure: () => Promise<number>, times: number): Promise<number> {
  const took_ms: number[] = [];
  await until(`${name} within ${most_ms} ms`, async () => {
    took_ms.push(await measure());
    return took_ms.length >= times && Math.min(...took_ms) < most_ms;
  }, undefined, () => took_ms);
  return Math.min(...took_ms);
}

/** The official client's WebSocket, for one certificate more. */
function trusting(ca: string): typeof NodeWebSocket {
  return class extends NodeWebSocket {
    constructor(url: string, protocols?: string | string[]) {
      super(url, protocols ?? [], { ca });
    }
  } as typeof NodeWebSocket;
}

/** An `EventSource` over HTTP/2. */
function over(http: Http2): typeof NodeEventSource {
  return class extends NodeEventSource {
    constructor(url: string | URL) {
      super(url, { fetch: (to, init) => http.fetch(to, init) });
    }
  };
}

/** What `curl` makes of an address; a status of 0 when it gets no answer. */
async function curl(...parameters: string[]): Promise<{ status: number; text: string; redirect: string }> {
  const all = ['-ski', '-w', '\n%{http_code} %{redirect_url}', ...parameters];
  const { stdout } = await run('curl', all).catch((error: unknown) => error as { stdout: string });
  const end = stdout.lastIndexOf('\n');
  const [status, redirect = ''] = stdout.slice(end + 1).split(' ');
  return { status: Number(status), redirect, text: stdout.slice(0, end) };
}
