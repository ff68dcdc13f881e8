/**
 * The official Python client of the protocol, from its registry and unmodified, in both encodings; python/client.py is what
 * it does, and here is what must come of it.
 */
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { python, Script } from './src/python.ts';
import type { Server } from './src/server.ts';
import { API_CONFIG, tell } from './src/teller.ts';
import { SECRET } from './src/tokens.ts';
import { withServer } from './src/with-server.ts';

const CONFIG = `${API_CONFIG}
[auth]
hs256_secret = "${SECRET}"

[namespaces.durable]
kind = "durable"
publish = "subscribers"
presence = true
join_leave = true

[namespaces.gated]
kind = "history"
subscribe = "token"
publish = "subscribers"
`;
/** A slow registry is not what is tested. */
const INSTALL_MS = 180_000;

let server: Server;
withServer(() => ({ config: CONFIG }), (started) => (server = started));

let interpreter: string;
beforeAll(async () => {
  interpreter = await python();
}, INSTALL_MS);

let script: Script | undefined;
afterEach(({ task }) => {
  if (task.result?.state === 'fail') console.error(script?.errors);
  script?.kill();
});

describe.each([['JSON', false], ['Protobuf', true]])('in %s', (name, protobuf) => {
  it('connects, refreshes, subscribes, publishes, asks, recovers over kill -9 and leaves', async () => {
    const channel = `durable:python-${name}`;
    script = new Script(interpreter, 'client.py', { url: server.socketUrl, secret: SECRET, channel, gate: `gated:${name}`, protobuf });
    const heard = [1, 2, 3].map((n) => [n, { n }]);
    expect(await script.step('heard')).toMatchObject({ heard, joined: true, began: [{ recoverable: true, was_recovering: false, recovered: false }] });
    expect(await script.step('presence')).toMatchObject({ named: [['pia', { name: 'Pia' }]], clients: 1, users: 1 });
    expect(await script.step('history')).toMatchObject({ top: 3, first: [1, 2], rest: [3], back: [3, 2] });
    expect(await script.step('rpc')).toMatchObject({ stories: { stories: [] }, unknown: 104, forbidden: 102 });
    expect(await script.step('refreshed')).toMatchObject({ clients: 1, away: [], began: 1, ended: [] });

    await script.step('ready for the outage');
    await server.kill9();
    await server.restart();
    for (const n of [4, 5]) await tell(server, { channel, data: { n } });
    script.goOn();
    expect(await script.step('recovered')).toMatchObject({ heard: [...heard, [4, { n: 4 }], [5, { n: 5 }]], began: [{ was_recovering: true, recovered: true }] });
    expect(await script.step('left')).toMatchObject({ ended: [0], disconnected: [0] });
    expect(await script.ended()).toBe(0);
    expect(script.errors).toBe('');
  });
});
