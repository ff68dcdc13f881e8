/**
 * `curl` as the whole client: it reads a stream, and it polls with cursors while the server is killed and nothing is lost
 * or doubled.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import { forget, remember } from './src/processes.ts';
import type { Server } from './src/server.ts';
import { API_CONFIG, tell, Teller } from './src/teller.ts';
import { SECRET, signed } from './src/tokens.ts';
import { until, within } from './src/until.ts';
import { withServer } from './src/with-server.ts';

const CONFIG = `${API_CONFIG}
[auth]
hs256_secret = "${SECRET}"

[namespaces.durable]
kind = "durable"

[namespaces.history]
kind = "history"
`;
const KILLS = 3;
/** Told before and after each kill. */
const TOLD = 200;
/** Longer than a poll waits, in seconds. */
const POLL_S_MAX = 15;

let server: Server;
withServer(() => ({ config: CONFIG, variables: { TALEWIRE_HTTP_COMPRESS_STREAMS: 'true' } }), (started) => (server = started));

const bearer = ['-H', `Authorization: Bearer ${signed({ sub: 'ana' })}`];
const run = promisify(execFile);
const streams = new Set<ChildProcess>();
afterEach(() => {
  for (const stream of streams) stream.kill('SIGKILL');
});

/** `curl -N`, and what it has written so far. */
function stream(...parameters: string[]): { text: () => string; ended: Promise<number | null> } {
  const child = spawn('curl', ['-sSN', ...bearer, ...parameters], { stdio: ['ignore', 'pipe', 'inherit'] });
  const { pid } = child;
  let text = '';
  streams.add(child);
  if (pid !== undefined) remember(pid, 'curl');
  child.stdout.setEncoding('utf8').on('data', (more: string) => (text += more));
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      streams.delete(child);
      if (pid !== undefined) forget(pid);
      resolve(code);
    });
  });
  return { text: () => text, ended };
}

interface Answer { cursor: string; channels: Record<string, { offset: number; recovered?: boolean }>; events: { channel: string; offset: number; data: { n: number } }[]; gaps: { channel: string }[]; refused: unknown[] }

/** One poll by one process of curl; undefined if nobody answered, as while the server is down. */
async function poll(query: Record<string, string>): Promise<Answer | undefined> {
  const fields = Object.entries(query).flatMap(([name, value]) => ['--data-urlencode', `${name}=${value}`]);
  const parameters = ['-sS', '--fail', '--max-time', `${POLL_S_MAX}`, ...bearer, '--get', ...fields, `${server.url}/poll`];
  try {
    return JSON.parse((await run('curl', parameters)).stdout) as Answer;
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    // No connection, cut in the middle, an empty answer, reset: the process was killed. Everything else is a fault.
    if ([7, 18, 52, 56].includes(Number(code))) return undefined;
    throw error;
  }
}

describe('curl', () => {
  it('reads a stream as it comes, to the end that a stopping server tells', async () => {
    const channel = 'durable:stream';
    const { text, ended } = stream('-D', '-', `${server.url}/events?channel=${channel}`);
    await until('the stream begins', () => text().includes('event: connected'), undefined, text);
    const [head = '', first = ''] = text().split('\r\n\r\n');
    expect(head.split('\r\n')[0]).toMatch(/^HTTP\/1\.1 200/);
    expect(head.toLowerCase()).toContain('content-type: text/event-stream');
    expect(head.toLowerCase()).toContain('no-transform');
    expect(first).toMatch(/^retry: 3000\n\n/);
    await tell(server, { channel, event: 'turn', data: { n: 1 } });
    await until('the event is here', () => /\nid: 1-[0-9a-f]{16}\nevent: turn\ndata: \{"n":1\}\n\n/.test(text()), undefined, text);
    await server.halt();
    expect(await within('curl ends', ended)).toBe(0);
    expect(text()).toMatch(/\nevent: disconnect\ndata: \{"code":3001,"reason":"shutdown","reconnect":true\}\n\nretry: \d+\n\n$/);
    await server.restart();
  });

  it('reads a compressed stream event by event', async () => {
    const channel = 'durable:compressed';
    const head = join(server.folder, 'head');
    const { text } = stream('--compressed', '-D', head, `${server.url}/events?channel=${channel}`);
    await until('the stream begins', () => text().includes('event: connected'), undefined, text);
    expect(readFileSync(head, 'utf8').toLowerCase()).toMatch(/\ncontent-encoding: gzip\r\n/);
    for (const n of [1, 2, 3]) {
      const words = `${n} `.repeat(2_000);
      await tell(server, { channel, data: words });
      // Each is read before the next is told: none waits for more to compress.
      await until(`event ${n} is here`, () => text().endsWith(`data: "${words}"\n\n`), undefined, () => text().slice(-100));
    }
  });

  it('begins behind an id that it kept in a file, as a script would', async () => {
    const channel = 'durable:script';
    for (const n of [1, 2, 3]) await tell(server, { channel, data: { n } });
    const all = stream(`${server.url}/events?channel=${channel}&last_event_id=earliest`);
    await until('all are here', () => all.text().includes('{"n":3}'), undefined, all.text);
    const id = /\nid: (2-[0-9a-f]{16})\n/.exec(all.text())?.[1] ?? '';
    const rest = stream('-H', `Last-Event-ID: ${id}`, `${server.url}/events?channel=${channel}`);
    await until('the third is here', () => rest.text().includes('{"n":3}'), undefined, rest.text);
    expect(rest.text()).not.toContain('{"n":2}');
  });

  it('polls with cursors over kill -9 under fire: every number once and in order', async () => {
    const channel = 'durable:poll';
    const begin = await poll({ channel, wait: '0' });
    expect(begin).toMatchObject({ channels: { [channel]: { offset: 0 } }, events: [], gaps: [], refused: [] });
    let cursor = begin?.cursor ?? '';
    let last = Infinity;
    let [polls, unanswered] = [0, 0];
    const heard: number[] = [];
    const teller = new Teller(server, channel, 'turn');
    const polling = (async () => {
      while (heard.length < last) {
        const answer = await poll({ cursor, wait: '2' });
        polls += 1;
        if (answer === undefined) {
          unanswered += 1;
          continue;
        }
        expect([answer.gaps, answer.refused]).toEqual([[], []]);
        heard.push(...answer.events.map(({ data }) => data.n));
        expect(answer.events.every((event) => event.offset === event.data.n && event.channel === channel)).toBe(true);
        cursor = answer.cursor;
      }
    })();
    for (let kill = 1; kill <= KILLS; kill += 1) {
      await teller.goesOn(TOLD);
      const before = unanswered;
      await server.kill9();
      await until('curl finds nobody', () => unanswered > before);
      await server.restart();
      await teller.goesOn(TOLD);
    }
    last = await teller.stop();
    await within('all are heard', polling);
    expect(heard).toEqual(Array.from({ length: last }, (_, at) => at + 1));
    console.info(`curl: ${last} publications in ${polls} polls, ${unanswered} of them unanswered, ${KILLS} kills`);
  });

  it('is told by a poll that a history channel has forgotten', async () => {
    const channel = 'history:poll';
    await tell(server, { channel, data: { n: 1 } });
    const begin = await poll({ channel, wait: '0' });
    await server.kill9();
    await server.restart();
    await tell(server, { channel, data: { n: 2 } });
    const after = await poll({ cursor: begin?.cursor ?? '', wait: '0' });
    expect(after?.gaps).toMatchObject([{ channel, offset: 1 }]);
    expect(after?.events).toEqual([]);
    await tell(server, { channel, data: { n: 3 } });
    expect((await poll({ cursor: after?.cursor ?? '', wait: '10' }))?.events).toMatchObject([{ channel, offset: 2, data: { n: 3 } }]);
  });
});
