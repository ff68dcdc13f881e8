"""The official Python client, unmodified, in one scenario: connect, refresh, subscribe, publish, presence, history, rpc,
recovery over an outage, unsubscribe. In: the arguments as JSON (url, secret, channel, gate, protobuf), and a line on
standard input when the outage is over. Out: one JSON object a line, each with a "step"; exit code 0 at the end.
Called by python-client.test.ts, which judges what is told here.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time

from centrifuge import Client, ClientEventHandler, ReplyError, StreamPosition, SubscriptionEventHandler

DEADLINE_S = 15
TOKEN_S = 2


def tell(step, **what):
    print(json.dumps({"step": step, **what}), flush=True)


class Notes:
    """What happened, and a wait for that something has."""

    def __init__(self):
        self._changed = asyncio.Condition()

    async def change(self, work):
        async with self._changed:
            work()
            self._changed.notify_all()

    async def until(self, name, check):
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(check), DEADLINE_S)
            except asyncio.TimeoutError:
                raise SystemExit(f"not within {DEADLINE_S} s: {name}") from None


class Session(ClientEventHandler):
    def __init__(self, notes):
        self.notes = notes
        self.clients = []
        self.away = []
        self.ended = []

    async def on_connected(self, ctx):
        await self.notes.change(lambda: self.clients.append(ctx.client))

    async def on_connecting(self, ctx):
        await self.notes.change(lambda: self.away.append(ctx.code))

    async def on_disconnected(self, ctx):
        await self.notes.change(lambda: self.ended.append(ctx.code))


class Ear(SubscriptionEventHandler):
    def __init__(self, notes, read):
        self.notes = notes
        self.read = read
        self.heard = []
        self.began = []
        self.joined = []
        self.ended = []

    async def on_subscribed(self, ctx):
        began = {"recoverable": ctx.recoverable, "was_recovering": ctx.was_recovering, "recovered": ctx.recovered}
        await self.notes.change(lambda: self.began.append(began))

    async def on_publication(self, ctx):
        heard = [ctx.pub.offset, self.read(ctx.pub.data)]
        await self.notes.change(lambda: self.heard.append(heard))

    async def on_join(self, ctx):
        await self.notes.change(lambda: self.joined.append(ctx.info.client))

    async def on_unsubscribed(self, ctx):
        await self.notes.change(lambda: self.ended.append(ctx.code))


class Tokens:
    """Signs like anybody's program would, and counts how often it is asked."""

    def __init__(self, notes, secret):
        self.notes = notes
        self.secret = secret.encode()
        self.asked = 0
        self.asked_for = []

    def sign(self, claims):
        part = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()
        content = part(b'{"alg":"HS256","typ":"JWT"}') + "." + part(json.dumps(claims).encode())
        return content + "." + part(hmac.new(self.secret, content.encode(), hashlib.sha256).digest())

    async def connection(self):
        def ask():
            self.asked += 1

        await self.notes.change(ask)
        return self.sign({"sub": "pia", "exp": int(time.time()) + TOKEN_S, "info": {"name": "Pia"}})

    async def subscription(self, channel):
        await self.notes.change(lambda: self.asked_for.append(channel))
        return self.sign({"sub": "pia", "channel": channel, "exp": int(time.time()) + TOKEN_S})


async def refusal(call):
    try:
        await call
    except ReplyError as error:
        return error.code
    return None


async def main(url, secret, channel, gate, protobuf):
    # In Protobuf a payload is bytes, which here hold JSON.
    write = (lambda data: json.dumps(data).encode()) if protobuf else (lambda data: data)
    read = json.loads if protobuf else (lambda data: data)
    notes = Notes()
    tokens, session, ear = Tokens(notes, secret), Session(notes), Ear(notes, read)
    client = Client(url, events=session, get_token=tokens.connection, use_protobuf=protobuf, max_reconnect_delay=0.3, proxy=None)
    await client.connect()
    await client.ready(DEADLINE_S)

    subscription = client.new_subscription(channel, events=ear, recoverable=True, join_leave=True)
    await subscription.subscribe()
    await subscription.ready(DEADLINE_S)
    for n in (1, 2, 3):
        await subscription.publish(write({"n": n}))
    await notes.until("three publications are heard", lambda: len(ear.heard) >= 3)
    await notes.until("the own join is heard", lambda: ear.joined)
    tell("heard", heard=ear.heard, began=ear.began, joined=ear.joined == session.clients)

    company = (await subscription.presence()).clients
    stats = await subscription.presence_stats()
    named = [[info.user, read(info.conn_info)] for info in company.values()]
    tell("presence", named=named, clients=stats.num_clients, users=stats.num_users)

    top = await subscription.history(limit=0)
    first = await subscription.history(limit=2)
    rest = await subscription.history(limit=10, since=StreamPosition(offset=2, epoch=top.epoch))
    back = await subscription.history(limit=2, reverse=True)
    offsets = lambda page: [publication.offset for publication in page.publications]
    tell("history", top=top.offset, first=offsets(first), rest=offsets(rest), back=offsets(back))

    stories = read((await client.rpc("story.list", write({}))).data)
    unknown = await refusal(client.rpc("no.such", write({})))
    tell("rpc", stories=stories, unknown=unknown, forbidden=await refusal(client.publish("nowhere:1", write({}))))

    gated = Ear(notes, read)
    gate_subscription = client.new_subscription(gate, events=gated, get_token=tokens.subscription)
    await gate_subscription.subscribe()
    await gate_subscription.ready(DEADLINE_S)
    await notes.until("both tokens are refreshed", lambda: tokens.asked >= 2 and len(tokens.asked_for) >= 2)
    await gate_subscription.publish(write("in"))
    await notes.until("the gate is still open", lambda: gated.heard)
    tell("refreshed", clients=len(session.clients), away=session.away[1:], began=len(gated.began), ended=gated.ended)

    tell("ready for the outage")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await notes.until("subscribed again", lambda: len(ear.began) >= 2)
    await notes.until("what was missed is heard", lambda: len(ear.heard) >= 5)
    tell("recovered", heard=ear.heard, began=ear.began[1:])

    await subscription.unsubscribe()
    await notes.until("the end is told", lambda: ear.ended)
    await client.disconnect()
    await notes.until("the connection has ended", lambda: session.ended)
    tell("left", ended=ear.ended, disconnected=session.ended)


asyncio.run(main(**json.loads(sys.argv[1])))
