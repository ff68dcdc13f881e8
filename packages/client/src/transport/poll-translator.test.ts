/**
 * The translator from commands to polls: tables of what the client says, what the server answers, and what must
 * come out. Nothing here waits or touches a network.
 */
import { describe, expect, it } from 'vitest';
import { filterFor, typesIn } from '../event-filter.js';
import { isRecord } from '../wire.js';
import { POLL_CHANNELS_MAX, POLL_WAIT_S, PollTranslator, postReply, type Output, type PollRequest } from './poll-translator.js';

type Json = Record<string, unknown>;

const tells = (outputs: readonly Output[]): Json[] => outputs.flatMap((output) => (output.type === 'tell' ? [output.reply] : []));
const subscribe = (id: number, channel: string, more: Json = {}): Json => ({ id, subscribe: { channel, ...more } });
const recovering = (id: number, channel: string, offset: number): Json => subscribe(id, channel, { recover: true, offset, epoch: 'e' });

function asked(translator: PollTranslator): PollRequest {
  const request = translator.request();
  if (request === undefined) throw new Error('There is nothing to poll.');
  return request;
}

/** Connected, and subscribed to these channels at offset 5. */
function subscribed(...channels: string[]): PollTranslator {
  const translator = new PollTranslator('c1');
  translator.take({ id: 1, connect: {} });
  for (const [index, channel] of channels.entries()) translator.take(subscribe(10 + index, channel));
  const begun = Object.fromEntries(channels.map((channel) => [channel, { offset: 5, epoch: 'e' }]));
  translator.answered(asked(translator), { cursor: 'k1', channels: begun });
  return translator;
}

describe('connect', () => {
  it('is answered when the first poll was, and not before', () => {
    const translator = new PollTranslator('c1');
    expect(translator.take({ id: 1, connect: { name: 'talewire' } })).toEqual([{ type: 'poll anew' }]);
    const request = asked(translator);
    expect(request).toMatchObject({ channels: [], wait_s: 0, cursor: undefined });
    const out = translator.answered(request, { cursor: 'k', channels: {}, events: [] });
    expect(tells(out)).toEqual([{ id: 1, connect: { client: 'c1', version: 'poll' } }]);
    expect(translator.request()).toBeUndefined();
  });

  it('shares its poll with the subscribes of the same frame, and is answered first', () => {
    const translator = new PollTranslator('c1');
    translator.take({ id: 1, connect: {} });
    translator.take(subscribe(2, 'chat:1'));
    const out = translator.answered(asked(translator), { cursor: 'k', channels: { 'chat:1': { offset: 5, epoch: 'e' } } });
    expect(tells(out).map((reply) => reply['id'])).toEqual([1, 2]);
  });
});

describe('subscribe', () => {
  it.each<[string, Json, string, Json, Json]>([
    ['to a history channel', subscribe(2, 'a'), 'a', { offset: 5, epoch: 'e' }, { recoverable: true, positioned: true, offset: 5, epoch: 'e' }],
    ['to a signal channel', subscribe(2, 'a'), 'a', {}, {}],
    ['to a generation stream', subscribe(2, 'a'), 'a', { data: { text: 'Once' } }, { data: { text: 'Once' } }],
    ['with a position that can be continued', recovering(2, 'a', 3), 'a@3-e', { offset: 3, epoch: 'e', recovered: true },
      { recoverable: true, positioned: true, offset: 3, epoch: 'e', was_recovering: true, recovered: true }],
    ['with a position, told where the top is', recovering(2, 'a', 3), 'a@3-e', { offset: 9, epoch: 'e', recovered: true },
      { recoverable: true, positioned: true, offset: 3, epoch: 'e', was_recovering: true, recovered: true }],
    ['with a position that cannot', recovering(2, 'a', 3), 'a@3-e', { offset: 40, epoch: 'e2', recovered: false },
      { recoverable: true, positioned: true, offset: 40, epoch: 'e2', was_recovering: true }],
  ])('%s', (_, command, spelt, begun, result) => {
    const translator = subscribed();
    translator.take(command);
    const request = asked(translator);
    expect(request).toMatchObject({ channels: [spelt], wait_s: 0 });
    expect(tells(translator.answered(request, { cursor: 'k', channels: { a: begun } }))).toEqual([{ id: 2, subscribe: result }]);
    // From now on the cursor knows where it stands, and the poll is held open.
    expect(asked(translator)).toMatchObject({ channels: ['a'], wait_s: POLL_WAIT_S, cursor: 'k' });
  });

  it('that is refused gets its error, and is not polled any more', () => {
    const translator = subscribed();
    translator.take(subscribe(2, 'secret'));
    const out = translator.answered(asked(translator), { cursor: 'k', refused: [{ channel: 'secret', code: 103, message: 'permission denied' }] });
    expect(tells(out)).toEqual([{ id: 2, error: { code: 103, message: 'permission denied' } }]);
    expect(translator.request()).toBeUndefined();
  });

  it('that the server forgot to answer is to be tried again', () => {
    const translator = subscribed();
    translator.take(subscribe(2, 'a'));
    expect(tells(translator.answered(asked(translator), { cursor: 'k' }))).toMatchObject([{ id: 2, error: { code: 100, temporary: true } }]);
  });

  it('that came while a poll was out is not answered by that poll', () => {
    const translator = subscribed('a');
    const old = asked(translator);
    translator.take(subscribe(2, 'b'));
    expect(tells(translator.answered(old, { cursor: 'k2' }))).toEqual([]);
    expect(asked(translator)).toMatchObject({ channels: ['a', 'b'], wait_s: 0, cursor: 'k2' });
  });

  it.each<[string, Json, number]>([
    ['twice to one channel', subscribe(2, 'a'), 105],
    ['with a filter that polls cannot keep', subscribe(2, 'b', { tf: { key: 'price', cmp: 'gt', val: '5' } }), 108],
  ])('%s is refused', (_, command, code) => {
    expect(tells(subscribed('a').take(command))).toMatchObject([{ id: 2, error: { code } }]);
  });

  it('to more channels than a poll can carry is refused', () => {
    const many = Array.from({ length: POLL_CHANNELS_MAX }, (_, index) => `c${index}`);
    expect(tells(subscribed(...many).take(subscribe(2, 'one more')))).toMatchObject([{ error: { code: 106 } }]);
  });

  it('after an unsubscribe makes the cursor forget first, so that it does not go on in the past', () => {
    const translator = subscribed('a', 'b');
    expect(tells(translator.take({ id: 3, unsubscribe: { channel: 'a' } }))).toEqual([{ id: 3, unsubscribe: {} }]);
    translator.take(subscribe(4, 'a'));
    const first = asked(translator);
    expect(first).toMatchObject({ channels: ['b'], wait_s: 0, cursor: 'k1' });
    translator.answered(first, { cursor: 'k2' });
    expect(asked(translator)).toMatchObject({ channels: ['b', 'a'], wait_s: 0, cursor: 'k2' });
  });

  it('after an unsubscribe from the only channel begins without a cursor', () => {
    const translator = subscribed('a');
    translator.take({ id: 3, unsubscribe: { channel: 'a' } });
    translator.take(subscribe(4, 'a'));
    expect(asked(translator)).toMatchObject({ channels: ['a'], cursor: undefined });
  });
});

describe('what a poll brings', () => {
  const pub = (channel: string, what: Json): Json => ({ push: { channel, pub: what } });
  it.each<[string, Json, Json[]]>([
    ['an entry', { events: [{ channel: 'a', offset: 6, data: { x: 1 }, time: 9 }] }, [pub('a', { data: { x: 1 }, offset: 6, time: 9 })]],
    ['a signal', { events: [{ channel: 'a', data: 'text' }] }, [pub('a', { data: 'text' })]],
    ['a typed entry', { events: [{ channel: 'a', offset: 6, data: 1, event: 'turn', tags: { by: 'ana' } }] }, [pub('a', { data: 1, offset: 6, tags: { by: 'ana', event: 'turn' } })]],
    ['who said it', { events: [{ channel: 'a', data: 1, info: { user: 'u', client: 'c' } }] }, [pub('a', { data: 1, info: { user: 'u', client: 'c' } })]],
    ['news of a channel that was left', { events: [{ channel: 'gone', data: 1 }] }, []],
    ['a changed snapshot', { channels: { a: { data: { text: 'Once upon' } } } }, [pub('a', { data: { text: 'Once upon' } })]],
    ['a gap, and what lies beyond it', { gaps: [{ channel: 'a', offset: 40, epoch: 'e' }], events: [{ channel: 'a', offset: 41, data: 1 }] },
      [{ push: { channel: 'a', unsubscribe: { code: 2500, reason: 'insufficient state' } } }]],
    ['a right that was taken away', { refused: [{ channel: 'a', code: 103, message: 'permission denied' }] },
      [{ push: { channel: 'a', unsubscribe: { code: 2000, reason: 'permission denied' } } }]],
    ['nonsense', { events: 'no', gaps: [null, 3], channels: { a: 7 } }, []],
  ])('%s', (_, body, expected) => {
    const translator = subscribed('a', 'b');
    expect(tells(translator.answered(asked(translator), { cursor: 'k2', ...body }))).toEqual(expected);
  });

  it('of recovered entries comes after the reply that announced them', () => {
    const translator = subscribed();
    translator.take(recovering(2, 'a', 3));
    const out = tells(translator.answered(asked(translator), {
      cursor: 'k', channels: { a: { offset: 3, epoch: 'e', recovered: true } }, events: [{ channel: 'a', offset: 4, data: 1 }, { channel: 'a', offset: 5, data: 2 }],
    }));
    expect(out[0]).toMatchObject({ id: 2, subscribe: { recovered: true, offset: 3 } });
    expect(out.slice(1)).toEqual([pub('a', { data: 1, offset: 4 }), pub('a', { data: 2, offset: 5 })]);
  });

  it('of a gap at the beginning of a channel is told once, by the reply', () => {
    const translator = subscribed();
    translator.take(recovering(2, 'a', 3));
    const out = tells(translator.answered(asked(translator), {
      cursor: 'k', channels: { a: { offset: 40, epoch: 'e', recovered: false } }, gaps: [{ channel: 'a', offset: 40, epoch: 'e' }], events: [{ channel: 'a', offset: 41, data: 1 }],
    }));
    expect(out).toMatchObject([{ id: 2, subscribe: { offset: 40, was_recovering: true } }, pub('a', { data: 1, offset: 41 })]);
  });

  it('after a gap is a subscribe with the old position, which the cursor must not answer', () => {
    const translator = subscribed('a');
    translator.answered(asked(translator), { cursor: 'k2', gaps: [{ channel: 'a', offset: 40, epoch: 'e' }] });
    translator.take(recovering(3, 'a', 5));
    const request = asked(translator);
    expect(request).toMatchObject({ channels: ['a@5-e'], cursor: undefined, wait_s: 0 });
    const out = tells(translator.answered(request, { cursor: 'k3', channels: { a: { offset: 40, epoch: 'e', recovered: false } } }));
    expect(out).toEqual([{ id: 3, subscribe: { recoverable: true, positioned: true, offset: 40, epoch: 'e', was_recovering: true } }]);
  });
});

describe('event types', () => {
  it.each([[['turn']], [['turn', 'note']], [['message']], [['message', 'turn']]])('%j survive as a filter', (types) => {
    expect([...(typesIn(filterFor(types)) ?? [])].sort()).toEqual([...types].sort());
  });

  it.each([[{ key: 'price', cmp: 'in', vals: [] }], [{ op: 'and', nodes: [] }], [{ key: 'event', cmp: 'eq', val: 'x' }], ['text'], [{ op: 'or', nodes: [{ key: 'price', cmp: 'ex' }] }]])(
    'are not read into %j', (filter) => expect(typesIn(filter)).toBeUndefined(),
  );

  it('are asked of the server when all channels want the same, and kept here in any case', () => {
    const translator = subscribed();
    translator.take(subscribe(2, 'a', { tf: filterFor(['turn']) }));
    const request = asked(translator);
    expect(request.events).toEqual(['turn']);
    translator.answered(request, { cursor: 'k', channels: { a: {} } });
    translator.take(subscribe(3, 'b'));
    const both = asked(translator);
    expect(both.events).toBeUndefined();
    const out = tells(translator.answered(both, {
      cursor: 'k', channels: { b: {} },
      events: [{ channel: 'a', data: 1, event: 'note' }, { channel: 'a', data: 2, event: 'turn' }, { channel: 'a', data: 3 }, { channel: 'b', data: 4 }],
    }));
    expect(out.flatMap((reply) => (isRecord(reply['push']) && isRecord(reply['push']['pub']) ? [reply['push']['pub']['data']] : []))).toEqual([2, 4]);
  });
});

describe('calls', () => {
  it.each<[string, Json, string, unknown, unknown, Json]>([
    ['rpc', { id: 7, rpc: { method: 'turn.add', data: { x: 1 } } }, '/app/rpc/turn.add', { x: 1 }, { turn: 1 }, { id: 7, rpc: { data: { turn: 1 } } }],
    ['publish', { id: 7, publish: { channel: 'a', data: 1 } }, '/app/publish', { channel: 'a', data: 1 }, { offset: 3 }, { id: 7, publish: { offset: 3 } }],
    ['history', { id: 7, history: { channel: 'a', limit: 5 } }, '/app/history', { channel: 'a', limit: 5 }, { publications: [], offset: 1, epoch: 'e' }, { id: 7, history: { publications: [], offset: 1, epoch: 'e' } }],
    ['presence', { id: 7, presence: { channel: 'a' } }, '/app/presence', { channel: 'a' }, { presence: {} }, { id: 7, presence: { presence: {} } }],
    ['presence_stats', { id: 7, presence_stats: { channel: 'a' } }, '/app/presence_stats', { channel: 'a' }, { num_clients: 2, num_users: 1 }, { id: 7, presence_stats: { num_clients: 2, num_users: 1 } }],
  ])('%s becomes a post, and its answer a reply', (kind, command, path, body, answer, reply) => {
    const [post] = subscribed().take(command);
    expect(post).toEqual({ type: 'post', id: 7, kind, path, body });
    if (post?.type === 'post') expect(postReply(post, answer)).toEqual(reply);
  });

  it.each([['refresh'], ['sub_refresh'], ['ping']])('%s is not available', (name) => {
    expect(tells(subscribed().take({ id: 7, [name]: {} }))).toMatchObject([{ id: 7, error: { code: 108 } }]);
  });

  it('without an id get no answer', () => {
    expect(subscribed().take({})).toEqual([]);
    expect(subscribed().take({ send: { data: 1 } })).toEqual([]);
  });
});
