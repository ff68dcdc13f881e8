//! The Protobuf codec of the native protocol: frames to commands, replies to messages with their lengths.
//!
//! A frame holds one or more messages, each preceded by its length as an unsigned varint. What a command means is the same
//! as in [`crate::json`]; only the bytes differ. The fields of type `bytes` (`data` and the infos) carry JSON in this
//! server, in both directions: what one client publishes by Protobuf, another gets by JSON. A `publish` or `rpc` whose `data`
//! is not one valid JSON value is therefore refused with error 107 (bad request), for now. Empty `data` and the value
//! `null` are both no data: an `rpc` without data gets `{}`, and a `publish` without data is refused.

pub(crate) mod schema;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use prost::Message as _;

use crate::channel::Channel;
use crate::codec::EmulationRequest;
use crate::codes::{CloseCode, ErrorCode};
use crate::command::{Body, Command, Connect, History, Publish, Recover, Rpc, Subscribe, Token, Wanted};
use crate::filter::{self, Filter};
use crate::ids::ClientId;
use crate::json::VERSION;
use crate::limits::Limits;
use crate::payload::Payload;
use crate::publication::{ClientInfo, Entry, Epoch, Position, Publication};
use crate::reply::{ConnectResult, Push, Reply, SubscribeResult};

/// The longest length in bytes: five hold 35 bits, more than any frame.
const LENGTH_BYTES_MAX: usize = 5;

/// Reads the commands of one frame. A message of length 0 is the answer to a ping.
///
/// # Errors
/// [`CloseCode::BadRequest`] when the frame is empty, is not whole messages, or holds more commands than allowed.
pub fn decode_frame(frame: &[u8], limits: &Limits) -> Result<Vec<Command>, CloseCode> {
    let mut commands = Vec::new();
    let mut frame = Bytes::copy_from_slice(frame);
    while !frame.is_empty() {
        if commands.len() == limits.frame_commands_max {
            return Err(CloseCode::BadRequest);
        }
        let message = next_message(&mut frame).ok_or(CloseCode::BadRequest)?;
        let command = schema::Command::decode(message).map_err(|_| CloseCode::BadRequest)?;
        commands.push(Command { id: command.id, body: body(command) });
    }
    if commands.is_empty() { Err(CloseCode::BadRequest) } else { Ok(commands) }
}

/// Takes the next message off the frame, as a share of its bytes. Its length must be written as shortly as it can be, and
/// the whole message must be there: nothing is ever reserved for a length that is only claimed.
fn next_message(frame: &mut Bytes) -> Option<Bytes> {
    let mut length = 0u64;
    for at in 0..LENGTH_BYTES_MAX {
        let byte = *frame.get(at)?;
        length |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            let is_padded = byte == 0 && at > 0;
            frame.advance(at + 1);
            let length = usize::try_from(length).ok()?;
            return (!is_padded && length <= frame.len()).then(|| frame.split_to(length));
        }
    }
    None
}

/// The first body in the order of the schema, as the protocol has it when a command carries several.
fn body(command: schema::Command) -> Result<Body, ErrorCode> {
    if let Some(bytes) = command.connect {
        return Ok(Body::Connect(connect(read(bytes)?)?));
    }
    if let Some(bytes) = command.subscribe {
        return subscribe(read(bytes)?);
    }
    if let Some(bytes) = command.unsubscribe {
        return Ok(Body::Unsubscribe { channel: read_channel(bytes)? });
    }
    if let Some(bytes) = command.publish {
        let schema::PublishRequest { channel, data, r#type, key, removed } = read(bytes)?;
        let channel = parse_channel(&channel)?;
        if r#type != 0 || removed {
            return Err(ErrorCode::NotAvailable);
        }
        let data = payload(&data)?.ok_or(ErrorCode::BadRequest)?;
        return Ok(Body::Publish(Publish { channel, data, key }));
    }
    if let Some(bytes) = command.presence {
        return Ok(Body::Presence { channel: read_channel(bytes)? });
    }
    if let Some(bytes) = command.presence_stats {
        return Ok(Body::PresenceStats { channel: read_channel(bytes)? });
    }
    if let Some(bytes) = command.history {
        let schema::HistoryRequest { channel, limit, since, reverse } = read(bytes)?;
        let since = since.map(|since| Position { offset: since.offset, epoch: Epoch::new(&since.epoch) });
        return Ok(Body::History(History { channel: parse_channel(&channel)?, limit, since, reverse }));
    }
    if command.ping.is_some() {
        return Err(ErrorCode::NotAvailable);
    }
    if command.send.is_some() {
        return Ok(Body::Send);
    }
    if let Some(bytes) = command.rpc {
        let schema::RpcRequest { data, method } = read(bytes)?;
        let data = payload(&data)?.unwrap_or_else(|| Payload::of(&serde_json::Map::new()));
        return Ok(Body::Rpc(Rpc { method, data }));
    }
    if let Some(bytes) = command.refresh {
        return Ok(Body::Refresh { token: Token(read::<schema::RefreshRequest>(bytes)?.token) });
    }
    if let Some(bytes) = command.sub_refresh {
        let schema::SubRefreshRequest { channel, token, r#type } = read(bytes)?;
        let channel = parse_channel(&channel)?;
        if r#type != 0 {
            return Err(ErrorCode::NotAvailable);
        }
        return Ok(Body::SubRefresh { channel, token: Token(token) });
    }
    Ok(Body::Pong)
}

/// Reads the frame of a client whose connection flows one way: the request to connect, without a command or length around it.
pub(crate) fn decode_connect(frame: &[u8]) -> Result<Vec<Command>, CloseCode> {
    let request = read(Bytes::copy_from_slice(frame)).map_err(|_| CloseCode::BadRequest)?;
    let connect = connect(request).map_err(|_| CloseCode::BadRequest)?;
    Ok(vec![Command { id: 1, body: Ok(Body::Connect(connect)) }])
}

fn connect(request: schema::ConnectRequest) -> Result<Connect, ErrorCode> {
    let wanted = |(name, sub): (String, schema::SubscribeRequest)| {
        let position = sub.recover.then(|| Position { offset: sub.offset, epoch: Epoch::new(&sub.epoch) });
        let (recover, filter) = (position.map(Recover::After), filter_of(sub.tf)?);
        Ok(Wanted { recover, filter, join_leave: sub.join_leave, ..Wanted::new(parse_channel(&name)?) })
    };
    let subs = request.subs.into_iter().map(wanted).collect::<Result<_, ErrorCode>>()?;
    Ok(Connect::new(request.token, &request.name, subs))
}

/// The nesting of what prost reads is bounded by itself (100 levels), that of a filter far below.
fn filter_of(node: Option<schema::FilterNode>) -> Result<Option<Arc<Filter>>, ErrorCode> {
    // Ignoring a filter would send the client more than it asked for.
    let filter = node.map(|node| Filter::of(node.into())).transpose();
    filter.map(|filter| filter.map(Arc::new)).map_err(|_| ErrorCode::BadRequest)
}

impl From<schema::FilterNode> for filter::Node {
    fn from(node: schema::FilterNode) -> Self {
        let schema::FilterNode { op, key, cmp, val, vals, nodes } = node;
        Self { op, key, cmp, val, vals, nodes: nodes.into_iter().map(Self::from).collect() }
    }
}

fn subscribe(request: schema::SubscribeRequest) -> Result<Body, ErrorCode> {
    let channel = parse_channel(&request.channel)?;
    if request.r#type != 0 {
        return Err(ErrorCode::NotAvailable);
    }
    let filter = filter_of(request.tf)?;
    let position = || Position { offset: request.offset, epoch: Epoch::new(&request.epoch) };
    Ok(Body::Subscribe(Subscribe {
        channel,
        recover: request.recover.then(position),
        token: Token(request.token),
        must_recover: request.flag & 2 != 0,
        join_leave: request.join_leave,
        filter,
    }))
}

fn read<T: prost::Message + Default>(bytes: Bytes) -> Result<T, ErrorCode> {
    T::decode(bytes).map_err(|_| ErrorCode::BadRequest)
}

fn read_channel(bytes: Bytes) -> Result<Channel, ErrorCode> {
    parse_channel(&read::<schema::ChannelRequest>(bytes)?.channel)
}

fn parse_channel(name: &str) -> Result<Channel, ErrorCode> {
    name.parse().map_err(|_| ErrorCode::BadRequest)
}

/// A client's data, `None` if there is none. In JSON, `null` is no data: it is the same here.
fn payload(data: &[u8]) -> Result<Option<Payload>, ErrorCode> {
    if data.is_empty() {
        return Ok(None);
    }
    let payload = Payload::parse(data).map_err(|_| ErrorCode::BadRequest)?;
    Ok((payload.as_bytes() != b"null").then_some(payload))
}

/// Reads the body of a request to an emulated session: one message, without a length before it.
pub(crate) fn decode_emulation(body: &[u8]) -> Result<EmulationRequest, ErrorCode> {
    let schema::EmulationRequest { node, session, data } =
        schema::EmulationRequest::decode(body).map_err(|_| ErrorCode::BadRequest)?;
    Ok(EmulationRequest { session, node, data })
}

/// Writes a reply as one message with its length before it. A ping is a message of length 0.
#[must_use]
pub fn encode(reply: &Reply) -> Vec<u8> {
    let empty = schema::Reply::default;
    let message = match reply {
        Reply::Ping => empty(),
        Reply::Error { id, code, message } => {
            let message = message.as_deref().unwrap_or(code.text()).to_owned();
            let error = schema::Error { code: code.code(), message, temporary: code.temporary() };
            schema::Reply { id: *id, error: Some(error), ..empty() }
        }
        Reply::Connect { id, result } => schema::Reply { id: *id, connect: Some(result.into()), ..empty() },
        Reply::Subscribe { id, result } => schema::Reply { id: *id, subscribe: Some(result.into()), ..empty() },
        Reply::Unsubscribe { id } => schema::Reply { id: *id, unsubscribe: Some(schema::Empty {}), ..empty() },
        Reply::Publish { id } => schema::Reply { id: *id, publish: Some(schema::Empty {}), ..empty() },
        Reply::Presence { id, clients } => {
            // Sorted, and each connection once, as in JSON.
            let presence: BTreeMap<String, schema::ClientInfo> =
                clients.iter().map(|(client, info)| (client.to_string(), (&**info).into())).collect();
            let presence = presence.into_iter().map(Into::into).collect();
            schema::Reply { id: *id, presence: Some(schema::PresenceResult { presence }), ..empty() }
        }
        Reply::PresenceStats { id, clients, users } => {
            let stats = schema::PresenceStatsResult { num_clients: *clients, num_users: *users };
            schema::Reply { id: *id, presence_stats: Some(stats), ..empty() }
        }
        Reply::History { id, entries, top } => {
            let publications = entries.iter().map(|entry| (&**entry).into()).collect();
            let epoch = top.epoch.as_str().to_owned();
            let history = schema::HistoryResult { publications, epoch, offset: top.offset };
            schema::Reply { id: *id, history: Some(history), ..empty() }
        }
        Reply::Rpc { id, data } => {
            schema::Reply { id: *id, rpc: Some(schema::RpcResult { data: data.bytes() }), ..empty() }
        }
        Reply::Refresh { id, client, ttl_s } => {
            let (expires, ttl) = expiry(*ttl_s);
            let refresh =
                schema::RefreshResult { client: client.to_string(), version: VERSION.to_owned(), expires, ttl };
            schema::Reply { id: *id, refresh: Some(refresh), ..empty() }
        }
        Reply::SubRefresh { id, ttl_s } => {
            let (expires, ttl) = expiry(*ttl_s);
            schema::Reply { id: *id, sub_refresh: Some(schema::SubRefreshResult { expires, ttl }), ..empty() }
        }
        Reply::Disconnect(code) => {
            let reason = code.text().to_owned();
            let disconnect = schema::Disconnect { code: code.code(), reason, reconnect: code.reconnect() };
            return finish(schema::Push { disconnect: Some(disconnect), ..schema::Push::default() });
        }
        Reply::Message(data) => {
            let message = schema::Message { data: data.bytes() };
            return finish(schema::Push { message: Some(message), ..schema::Push::default() });
        }
        Reply::Push { channel, push } => return encode_push(channel, push),
    };
    message.encode_length_delimited_to_vec()
}

/// Writes the push of a publication as one message. What fan-out calls once per publication; the payload is copied once.
#[must_use]
pub fn encode_publication(channel: &Channel, offset: u64, publication: &Publication) -> Vec<u8> {
    let publication = schema::Publication::new(offset, publication);
    finish(schema::Push { channel: channel.to_string(), r#pub: Some(publication), ..schema::Push::default() })
}

fn encode_push(channel: &Channel, push: &Push) -> Vec<u8> {
    let mut message = schema::Push { channel: channel.to_string(), ..schema::Push::default() };
    match push {
        Push::Publication { offset, publication } => return encode_publication(channel, *offset, publication),
        Push::Join(info) => message.join = Some(schema::JoinOrLeave { info: Some((&**info).into()) }),
        Push::Leave(info) => message.leave = Some(schema::JoinOrLeave { info: Some((&**info).into()) }),
        Push::Unsubscribe(code) => {
            message.unsubscribe = Some(schema::Unsubscribe { code: code.code(), reason: code.text().to_owned() });
        }
        Push::Subscribe(result) => {
            let is_positioned = result.position.is_some();
            let Position { offset, epoch } = result.position.clone().unwrap_or_default();
            message.subscribe = Some(schema::SubscribePush {
                recoverable: is_positioned,
                epoch: epoch.as_str().to_owned(),
                offset,
                positioned: is_positioned,
                data: bytes_of(result.data.as_ref()),
            });
        }
        // For readers that are no native clients ([`crate::events`]): nothing here.
        Push::Gap(_) => {}
    }
    finish(message)
}

/// Writes a reply for a client whose connection flows one way: pushes alone, without the reply around them.
#[must_use]
pub fn encode_down(reply: &Reply) -> Vec<u8> {
    let push = match reply {
        Reply::Connect { result, .. } => {
            let schema::ConnectResult { client, version, expires, ttl, subs, ping, pong, session, node, time } =
                result.into();
            let connect = schema::ConnectPush { client, version, subs, expires, ttl, ping, pong, session, node, time };
            schema::Push { connect: Some(connect), ..schema::Push::default() }
        }
        reply => {
            let message = encode(reply);
            let reply = schema::Reply::decode_length_delimited(&*message).expect("it was just written");
            reply.push.unwrap_or_default()
        }
    };
    push.encode_to_vec()
}

/// As [`encode_publication`], for a client whose connection flows one way.
#[must_use]
pub fn encode_publication_down(channel: &Channel, offset: u64, publication: &Publication) -> Vec<u8> {
    let publication = schema::Publication::new(offset, publication);
    let push = schema::Push { channel: channel.to_string(), r#pub: Some(publication), ..schema::Push::default() };
    push.encode_to_vec()
}

fn finish(push: schema::Push) -> Vec<u8> {
    schema::Reply { push: Some(push), ..schema::Reply::default() }.encode_length_delimited_to_vec()
}

/// `expires` and `ttl`: absent and 0 are the same on this wire.
fn expiry(ttl_s: Option<u32>) -> (bool, u32) {
    (ttl_s.is_some(), ttl_s.unwrap_or_default())
}

impl From<&ConnectResult> for schema::ConnectResult {
    fn from(result: &ConnectResult) -> Self {
        let (expires, ttl) = expiry(result.ttl_s);
        Self {
            client: result.client.to_string(),
            version: VERSION.to_owned(),
            expires,
            ttl,
            subs: result.subs.iter().map(|(channel, sub)| (channel.to_string(), sub.into()).into()).collect(),
            ping: result.ping_s,
            pong: result.pong,
            session: result.session.as_ref().map(|session| session.0.clone()).unwrap_or_default(),
            node: result.node.clone().unwrap_or_default(),
            time: result.time_ms,
        }
    }
}

impl From<&SubscribeResult> for schema::SubscribeResult {
    fn from(result: &SubscribeResult) -> Self {
        let (expires, ttl) = expiry(result.ttl_s);
        let is_positioned = result.position.is_some();
        let Position { offset, epoch } = result.position.clone().unwrap_or_default();
        Self {
            expires,
            ttl,
            recoverable: is_positioned,
            epoch: epoch.as_str().to_owned(),
            publications: result.entries.iter().map(|entry| (&**entry).into()).collect(),
            recovered: result.recovered,
            offset,
            positioned: is_positioned,
            data: bytes_of(result.data.as_ref()),
            was_recovering: result.was_recovering,
        }
    }
}

impl From<&Entry> for schema::Publication {
    fn from(entry: &Entry) -> Self {
        Self::new(entry.offset, &entry.publication)
    }
}

impl schema::Publication {
    fn new(offset: u64, publication: &Publication) -> Self {
        // An erased publication is an empty object, as in JSON.
        let data = publication.data.as_ref().map_or_else(|| Bytes::from_static(b"{}"), Payload::bytes);
        let info = publication.info.as_ref().map(schema::ClientInfo::from);
        Self { data, info, offset, tags: publication.tags.clone(), time: publication.time_ms }
    }
}

impl From<&ClientInfo> for schema::ClientInfo {
    fn from(info: &ClientInfo) -> Self {
        Self {
            user: info.user.as_str().to_owned(),
            client: info.client.as_ref().map(ClientId::to_string).unwrap_or_default(),
            conn_info: bytes_of(info.conn_info.as_ref()),
            chan_info: bytes_of(info.chan_info.as_ref()),
        }
    }
}

fn bytes_of(payload: Option<&Payload>) -> Bytes {
    payload.map(Payload::bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests;
