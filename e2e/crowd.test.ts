/**
 * A restart under ten thousand connections: everybody comes back by themselves, and every number reaches everybody once and in
 * order.
 */
import { execSync } from 'node:child_process';
import { afterEach, expect, it } from 'vitest';
import { Crowd } from './src/crowd.ts';
import type { Server } from './src/server.ts';
import { API_CONFIG, tell } from './src/teller.ts';
import { SECRET, signed } from './src/tokens.ts';
import { until } from './src/until.ts';
import { withServer } from './src/with-server.ts';

const CONFIG = `${API_CONFIG}
[auth]
hs256_secret = "${SECRET}"

[namespaces.durable]
kind = "durable"
`;
/** What the system lets one process open, less what the processes need beside it. */
const FILES = Number(execSync('ulimit -Hn', { shell: '/bin/bash' }).toString().replace('unlimited', '1000000'));
const SIZE = Math.min(10_000, FILES - 1_000);
/** Told while everybody is here, while nobody is, and at the end. */
const TOLD = 5;
/** Ten thousand streams on a small machine. */
const ALL_MS = 50_000;

let server: Server;
withServer(() => ({ config: CONFIG, variables: { TALEWIRE_HTTP_CONNECTIONS_PER_USER_MAX: String(SIZE) } }), (started) => (server = started));

let crowd: Crowd | undefined;
afterEach(() => crowd?.leave());

it(`loses nothing and doubles nothing for ${SIZE} readers over kill -9`, async () => {
  const channel = 'durable:crowd';
  const here = (crowd = new Crowd(server, channel, signed({ sub: 'ana' }), SIZE));
  const seen = (): unknown => [here.began, here.faults.slice(0, 3)];
  const all = (n: number): Promise<true> => until(`everybody has heard ${n}`, () => {
    expect(here.faults).toEqual([]);
    return here.at(n) === SIZE;
  }, ALL_MS, seen);
  let told = 0;
  const tellMore = async (): Promise<void> => {
    for (let n = 0; n < TOLD; n += 1) await tell(server, { channel, event: 'turn', data: { n: (told += 1) } });
  };

  await until('everybody is here', () => here.began === SIZE, ALL_MS, seen);
  await tellMore();
  await all(told);
  // In the middle of giving them out.
  await tellMore();
  await server.kill9();
  await server.restart();
  await tellMore();
  await until('everybody is back', () => here.began === 2 * SIZE, ALL_MS, seen);
  await tellMore();
  await all(told);
  expect(here.faults).toEqual([]);
  expect(here.recovered).toBe(SIZE);
  expect(await server.metric('talewire_connections')).toBe(SIZE);
}, 3 * ALL_MS);
