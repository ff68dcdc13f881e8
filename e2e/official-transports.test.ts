/**
 * The official client over every transport and encoding that it knows: the same scenario over each, and each as the
 * fallback of one that does not open.
 */
import { Centrifuge, type Options, type TransportEndpoint } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { EventSource } from 'eventsource';
import { describe, expect, it } from 'vitest';
import { Ear, quick, refusal, track } from './src/official.ts';
import type { Server } from './src/server.ts';
import { within } from './src/until.ts';
import { withServer } from './src/with-server.ts';

const CONFIG = `
[namespaces.durable]
kind = "durable"
presence = true
join_leave = true
`;

let server: Server;
withServer(() => ({ insecure: true, config: CONFIG }), (started) => (server = started));

type Name = 'websocket' | 'http_stream' | 'sse';

function endpoint(transport: Name): TransportEndpoint {
  const base = transport === 'websocket' ? server.socketUrl : `${server.url}/connection/${transport}`;
  return { transport, endpoint: base };
}

function client(kind: typeof Centrifuge, endpoints: TransportEndpoint[], options: Partial<Options> = {}): Centrifuge {
  const all: Partial<Options> = { ...quick, eventsource: EventSource, fetch, readableStream: ReadableStream, emulationEndpoint: `${server.url}/emulation`, ...options };
  return track(new kind(endpoints, all));
}

/** The Protobuf build is the same class with another codec; the two differ only in private fields. */
const Protobuf = ProtobufCentrifuge as unknown as typeof Centrifuge;

const CASES: [string, typeof Centrifuge, Name][] = [
  ['WebSocket, JSON', Centrifuge, 'websocket'],
  ['WebSocket, Protobuf', Protobuf, 'websocket'],
  ['HTTP streaming, JSON', Centrifuge, 'http_stream'],
  ['HTTP streaming, Protobuf', Protobuf, 'http_stream'],
  ['Server-Sent Events, JSON', Centrifuge, 'sse'],
];

describe.each(CASES)('%s', (name, kind, transport) => {
  /** In Protobuf a payload is bytes, which here hold JSON. */
  const written = (data: unknown): unknown => (kind === Protobuf ? new TextEncoder().encode(JSON.stringify(data)) : data);
  const read = (data: unknown): unknown => (data instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(data)) : data);
  const channel = `durable:${name.replaceAll(/[^A-Za-z]/g, '')}`;

  it('connects, subscribes, publishes, recovers and leaves', async () => {
    const one = client(kind, [endpoint(transport)]);
    const opened = new Promise<{ transport: string }>((resolve) => one.once('connected', resolve));
    one.connect();
    expect(await within('connected', opened)).toMatchObject({ transport });
    const ear = await Ear.on(one, channel, { joinLeave: true });
    await one.publish(channel, written({ text: 'naïve 🦊' }));
    await ear.hears(1);
    expect(ear.heard.map(({ data, offset }) => [read(data), offset])).toEqual([[{ text: 'naïve 🦊' }, 1]]);
    expect(Object.keys((await one.presence(channel)).clients)).toHaveLength(1);
    expect(await refusal(one.rpc('no.such', written({})))).toMatchObject({ code: 108 });

    one.disconnect();
    const other = client(Centrifuge, [endpoint('websocket')]);
    other.connect();
    await within('the other is connected', other.ready());
    for (const n of [2, 3, 4]) await other.publish(channel, { n });
    one.connect();
    expect(await ear.begins(2)).toMatchObject({ wasRecovering: true, recovered: true });
    await ear.hears(4);
    expect(ear.heard.map(({ offset }) => offset)).toEqual([1, 2, 3, 4]);

    const left = await Ear.on(other, channel, { joinLeave: true });
    one.disconnect();
    await within('the leave is told', new Promise<void>((resolve) => {
      left.subscription.on('leave', () => { resolve(); });
      if (left.company.some(({ event }) => event === 'leave')) resolve();
    }));
  });

  it('is what a client falls back to', async () => {
    const nowhere: TransportEndpoint = { transport: 'websocket', endpoint: `${server.socketUrl}/nothing-here` };
    const one = client(kind, [nowhere, endpoint(transport)]);
    const opened = new Promise<{ transport: string }>((resolve) => one.once('connected', resolve));
    one.connect();
    expect(await within('connected', opened)).toMatchObject({ transport });
  });
});

describe('/emulation', () => {
  const post = (body: unknown, kind = 'application/json'): Promise<Response> =>
    fetch(`${server.url}/emulation`, { method: 'POST', headers: { 'Content-Type': kind }, body: JSON.stringify(body) });

  it('takes nothing for a session that is not there, and nothing that is no request', async () => {
    expect((await post({ session: 'guessed', node: 'n', data: '{}' })).status).toBe(404);
    expect((await post({ session: '', node: '', data: '{}' })).status).toBe(404);
    expect((await post([1])).status).toBe(400);
    expect((await post({}, 'text/plain')).status).toBe(415);
    expect((await post({ session: 's', node: 'n', data: 'x'.repeat(70_000) })).status).toBe(413);
  });
});
