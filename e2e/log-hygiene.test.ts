/**
 * The log at its most talkative has no secret and no word that people write: tokens, cookies, keys, invite codes, story text,
 * payloads and typing are looked for in every line, after each was used well and badly.
 */
import { describe, expect, it } from 'vitest';
import { connected, Ear, newClient, closed } from './src/official.ts';
import type { Server } from './src/server.ts';
import { SECRET, signed } from './src/tokens.ts';
import { until } from './src/until.ts';
import { withServer } from './src/with-server.ts';

const API_KEY = 'canary-api-key-0123456789abcdef';
const CONFIG = `
[process]
log_filter = "trace"

[http]
api_key = "${API_KEY}"

[auth]
hs256_secret = "${SECRET}"

[namespaces.chat]
kind = "durable"
subscribe = "authenticated"
publish = "subscribers"
`;
/** A word that stands in everything that people write here, and nowhere else. */
const CANARY = 'xylocanary';

let server: Server;
withServer(() => ({ config: CONFIG }), (started) => (server = started));

interface Me { cookie: string; csrf: string }

async function login(name: string): Promise<Me> {
  const answer = await fetch(`${server.url}/app/login`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ name }) });
  const { csrf } = (await answer.json()) as { csrf: string };
  const cookie = answer.headers.getSetCookie()[0]?.split(';')[0] ?? '';
  expect(cookie).not.toBe('');
  return { cookie, csrf };
}

async function call<T>(me: Me, method: string, body: unknown): Promise<T> {
  const headers = { 'content-type': 'application/json', 'x-csrf-token': me.csrf, cookie: me.cookie, origin: server.url };
  const answer = await fetch(`${server.url}/app/rpc/${method}`, { method: 'POST', headers, body: JSON.stringify(body) });
  return (await answer.json()) as T;
}

/** As a server program, with a key that may be wrong. */
const api = (method: string, body: string, key = API_KEY): Promise<Response> =>
  fetch(`${server.url}/api/${method}`, { method: 'POST', headers: { 'x-api-key': key, 'content-type': 'application/json' }, body });

describe('the log at level trace', () => {
  it('tells of everything that happens and of nothing that is said', async () => {
    const secrets: string[] = [CANARY, API_KEY, SECRET];
    const me = await login('Ana');
    secrets.push(me.csrf, me.cookie.split('=')[1] ?? '');

    type Created = { story: { id: string; branch: string } };
    const { story } = await call<Created>(me, 'story.create', { title: `The ${CANARY}`, opening: `A ${CANARY} sang.`, key: 'a' });
    const { invite } = await call<{ invite: { code: string } }>(me, 'invite.create', { story: story.id, role: 'writer', key: 'b' });
    secrets.push(invite.code);
    await call(await login('Ben'), 'story.join', { code: invite.code });
    await call(me, 'turn.add', { story: story.id, branch: story.branch, text: `It sang of a ${CANARY}.`, key: 'c' });
    await call(me, 'turn.add', { story: story.id, branch: 7, text: [CANARY] });
    await call(me, 'generation.request', { story: story.id, branch: story.branch, instruction: `More ${CANARY}`, key: 'd' });
    type Opened = { turns: { author: { kind: string } }[] };
    await until('the narrator has written', async () => {
      const { turns } = await call<Opened>(me, 'story.open', { story: story.id });
      return turns.some((turn) => turn.author.kind === 'agent');
    }, 30_000);

    const token = signed({ sub: 'cleo', info: { name: CANARY } });
    const wrong = signed({ sub: 'cleo', why: CANARY }, 'another secret of the end-to-end tests');
    for (const one of [token, wrong]) secrets.push(...one.split('.').slice(1));
    const refused = newClient(server, { token: wrong });
    const close = closed(refused);
    refused.connect();
    await close;
    const ear = await Ear.on(await connected(server, { token }), 'chat:a');
    await ear.subscription.publish({ words: CANARY });
    await api('publish', JSON.stringify({ channel: 'chat:a', data: { words: CANARY } }));
    await api('publish', JSON.stringify({ channel: 'chat:a', data: { words: CANARY } }), `${API_KEY}-wrong`);
    await api('publish', `{"channel":"chat:a","data":${CANARY}`);
    await api(CANARY, '{}');
    await ear.hears(2);
    for (const query of [`token=${token}`, `token=${wrong}`, `token=${token}&last_event_id=${CANARY}`]) {
      const stream = await fetch(`${server.url}/events?channel=chat:a&${query}`);
      await stream.body?.getReader().read();
    }

    const log = server.log.join('\n');
    for (const said of ['a connection opens', '"code":3500', 'a prompt was put together', 'an attempt at a generation is over']) {
      expect(log).toContain(said);
    }
    for (const secret of secrets) {
      expect(secret.length).toBeGreaterThan(5);
      expect(server.log.filter((line) => line.includes(secret)).slice(0, 3), `nothing has ${secret}`).toEqual([]);
    }
  }, 60_000);
});
