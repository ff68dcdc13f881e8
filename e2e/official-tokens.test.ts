/**
 * Who one is and what one may, by token, with the official client: connecting, refreshing, subscribing.
 * The server here is not insecure; its namespaces' rules hold.
 */
import { execFileSync } from 'node:child_process';
import { State } from 'centrifuge';
import { describe, expect, it } from 'vitest';
import { closed, connected, Ear, newClient, refusal, tappedSocket, type Line } from './src/official.ts';
import { binary, type Server, withoutSettings } from './src/server.ts';
import { inSeconds, SECRET, signed } from './src/tokens.ts';
import { until, within } from './src/until.ts';
import { withServer } from './src/with-server.ts';

const CONFIG = `
[auth]
hs256_secret = "${SECRET}"

[namespaces.open]
kind = "durable"
subscribe = "authenticated"
publish = "subscribers"
presence = true

[namespaces.read]
kind = "history"
subscribe = "authenticated"
publish = "nobody"

[namespaces.gated]
kind = "history"
subscribe = "token"
publish = "subscribers"
`;

let server: Server;
withServer(() => ({ config: CONFIG }), (started) => (server = started));

const tokenOf = (user: string, ttl_s = 60, more: Record<string, unknown> = {}): string => signed({ sub: user, exp: inSeconds(ttl_s), ...more });

/** Connects with something that is refused for good; gives the code. */
async function refusedWith(token: string | undefined): Promise<number> {
  const client = newClient(server, token === undefined ? {} : { token });
  const close = closed(client);
  client.connect();
  return (await close).code;
}

/** How often the server was asked to take a new token, from the lines on the wire. */
const refreshes = (lines: readonly Line[], name: 'refresh' | 'sub_refresh'): number => lines.filter((line) => name in line).length;

describe('a connection token', () => {
  it('by `talewire token` says who one is', async () => {
    const environment = withoutSettings({ TALEWIRE_AUTH_HS256_SECRET: SECRET });
    const token = execFileSync(binary(), ['token', '--user', 'ana', '--name', 'Ana', '--ttl', '1h'], { env: environment, encoding: 'utf8' }).trim();
    const client = await connected(server, { token });
    await Ear.on(client, 'open:who');
    expect(Object.values((await client.presence('open:who')).clients)).toMatchObject([{ user: 'ana', connInfo: { name: 'Ana' } }]);
  });

  it('made by hand is as good, and others see whom a publication is from', async () => {
    const [ana, ben] = [await connected(server, { token: tokenOf('ana', 60, { info: { name: 'Ana' } }) }), await connected(server, { token: tokenOf('ben') })];
    const ears = [await Ear.on(ana, 'open:from'), await Ear.on(ben, 'open:from')];
    await ana.publish('open:from', 'hello');
    for (const ear of ears) expect((await ear.hears(1))[0]?.info).toMatchObject({ user: 'ana', connInfo: { name: 'Ana' } });
  });

  it('that is missing, forged, for others, unsigned or malformed is refused for good', async () => {
    expect(await refusedWith(signed({ sub: 'ana', exp: inSeconds(60) }, 'another secret that is long enough too'))).toBe(3500);
    expect(await refusedWith(signed({ sub: 'ana', exp: inSeconds(60) }, SECRET, { alg: 'none', typ: 'JWT' }))).toBe(3500);
    expect(await refusedWith(signed({ sub: 'ana', exp: inSeconds(60), aud: 'others' }))).toBe(3500);
    expect(await refusedWith(signed({ sub: 'ana', exp: inSeconds(60) * 1000 }))).toBe(3500);
    expect(await refusedWith(signed({ sub: 'ana', nbf: inSeconds(60) }))).toBe(3500);
    expect(await refusedWith('no token at all')).toBe(3500);
    expect(await refusedWith(undefined)).toBe(101);
  });

  it('that has expired is refused, and a fresh one from getToken taken', async () => {
    const tap = tappedSocket();
    let asked = 0;
    const getToken = (): Promise<string> => {
      asked += 1;
      return Promise.resolve(tokenOf('ana'));
    };
    const client = newClient(server, { token: tokenOf('ana', -5), getToken, websocket: tap.websocket });
    client.connect();
    await within('connected with the fresh token', client.ready());
    expect(asked).toBe(1);
    expect(tap.lines[0]).toMatchObject({ error: { code: 109 } });
  });

  it('of two seconds is refreshed again and again without losing the connection or a word', async () => {
    const tap = tappedSocket();
    const client = await connected(server, { getToken: () => Promise.resolve(tokenOf('ana', 2)), websocket: tap.websocket });
    const away: number[] = [];
    client.on('connecting', ({ code }) => away.push(code));
    const ear = await Ear.on(client, 'open:refresh');
    await client.publish('open:refresh', 1);
    await until('refreshed twice', () => refreshes(tap.lines, 'refresh') >= 2);
    await client.publish('open:refresh', 2);
    await ear.hears(2);
    expect(away).toEqual([]);
    expect(tap.lines.find((line) => 'refresh' in line)).toMatchObject({ refresh: { expires: true, ttl: expect.any(Number) as number } });
  });

  it('of somebody else is refused at a refresh', async () => {
    let user = 'ana';
    const getToken = (): Promise<string> => Promise.resolve(tokenOf(user, 2));
    const client = await connected(server, { getToken });
    user = 'ben';
    expect((await closed(client)).code).toBe(3500);
  });

  it('gives an unknown method its code', async () => {
    const client = await connected(server, { token: tokenOf('ana') });
    expect(await refusal(client.rpc('no.such', {}))).toMatchObject({ code: 104 });
    expect(await refusal(client.rpc('story.open', { story: 'none' }))).toMatchObject({ code: 404 });
  });

  it('does not open what the namespace forbids', async () => {
    const client = await connected(server, { token: tokenOf('ana') });
    await Ear.on(client, 'read:1');
    expect(await refusal(client.publish('read:1', {}))).toMatchObject({ code: 103 });
    // Publishing is for subscribers here, and this is none.
    expect(await refusal(client.publish('open:elsewhere', {}))).toMatchObject({ code: 103 });
    expect(await refusal(client.history('open:elsewhere', { limit: 1 }))).toMatchObject({ code: 103 });
  });
});

describe('a subscription token', () => {
  const pass = (user: string, channel: string, ttl_s = 60): string => signed({ sub: user, channel, exp: inSeconds(ttl_s) });

  /** Subscribes with something that is refused; gives the code. */
  const refusedAt = async (token: string | undefined): Promise<{ code: number; connected: boolean }> => {
    const client = await connected(server, { token: tokenOf('ana') });
    const ear = new Ear(client, 'gated:1', token === undefined ? {} : { token });
    const close = new Promise<number>((resolve) => client.once('disconnected', ({ code }) => resolve(code)));
    const end = new Promise<number>((resolve) => ear.subscription.once('unsubscribed', ({ code }) => resolve(code)));
    ear.subscription.subscribe();
    const code = await within('refused', Promise.race([close, end]));
    return { code, connected: client.state === State.Connected };
  };

  it('opens its channel to its user', async () => {
    const client = await connected(server, { token: tokenOf('ana') });
    const ear = await Ear.on(client, 'gated:1', { token: pass('ana', 'gated:1') });
    await client.publish('gated:1', 'in');
    await ear.hears(1);
    expect(ear.data).toEqual(['in']);
  });

  it('is needed, and must be for this user and this channel', async () => {
    expect(await refusedAt(undefined)).toEqual({ code: 103, connected: true });
    expect(await refusedAt(signed({ sub: 'ana', channel: 'gated:1' }, 'another secret that is long enough too'))).toEqual({ code: 103, connected: true });
    // As the protocol's own server does, a good token that was meant for somewhere else closes the connection.
    expect(await refusedAt(pass('ben', 'gated:1'))).toEqual({ code: 3500, connected: false });
    expect(await refusedAt(pass('ana', 'gated:2'))).toEqual({ code: 3500, connected: false });
  });

  it('that has expired is replaced by a fresh one from getToken', async () => {
    const client = await connected(server, { token: tokenOf('ana') });
    const asked: string[] = [];
    const getToken = ({ channel }: { channel: string }): Promise<string> => {
      asked.push(channel);
      return Promise.resolve(pass('ana', channel));
    };
    await Ear.on(client, 'gated:1', { token: pass('ana', 'gated:1', -5), getToken, minResubscribeDelay: 50 });
    expect(asked).toEqual(['gated:1']);
  });

  it('of two seconds is refreshed without ending the subscription', async () => {
    const tap = tappedSocket();
    const client = await connected(server, { token: tokenOf('ana'), websocket: tap.websocket });
    const ear = await Ear.on(client, 'gated:1', { getToken: ({ channel }) => Promise.resolve(pass('ana', channel, 2)) });
    await until('refreshed twice', () => refreshes(tap.lines, 'sub_refresh') >= 2);
    expect(ear.began).toHaveLength(1);
    expect(ear.ended).toEqual([]);
  });

  it('of somebody else is refused at a refresh', async () => {
    const client = await connected(server, { token: tokenOf('ana') });
    let user = 'ana';
    await Ear.on(client, 'gated:1', { getToken: ({ channel }) => Promise.resolve(pass(user, channel, 2)) });
    user = 'ben';
    expect((await closed(client)).code).toBe(3500);
  });
});
