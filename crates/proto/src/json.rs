//! The JSON codec of the native protocol: frames to commands, replies to lines.
//!
//! A frame holds one or more JSON objects separated by white space. A message is read in two steps, the envelope and then the
//! one body in it, so that a wrong field is answered with an error and costs nobody else anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::channel::Channel;
use crate::codec::EmulationRequest;
use crate::codes::{CloseCode, ErrorCode};
use crate::command::{Body, Command, Connect, History, Publish, Recover, Rpc, Subscribe, Token, Wanted};
use crate::filter::{self, Filter};
use crate::ids::ClientId;
use crate::limits::Limits;
use crate::payload::Payload;
use crate::publication::{ClientInfo, Entry, Epoch, Position, Publication};
use crate::reply::{ConnectResult, Push, Reply, SubscribeResult};
use crate::session::Done;

/// Reads the commands of one frame.
///
/// # Errors
/// [`CloseCode::BadRequest`] when the frame is empty, is not JSON objects, or holds more commands than allowed.
pub fn decode_frame(frame: &[u8], limits: &Limits) -> Result<Vec<Command>, CloseCode> {
    let mut commands = Vec::new();
    let mut envelopes = serde_json::Deserializer::from_slice(frame).into_iter::<Envelope<'_>>();
    for envelope in &mut envelopes {
        if commands.len() == limits.frame_commands_max {
            return Err(CloseCode::BadRequest);
        }
        let envelope = envelope.map_err(|_| CloseCode::BadRequest)?;
        commands.push(Command { id: envelope.id, body: envelope.body() });
    }
    if commands.is_empty() { Err(CloseCode::BadRequest) } else { Ok(commands) }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    id: u32,
    #[serde(borrow)]
    connect: Option<&'a RawValue>,
    #[serde(borrow)]
    subscribe: Option<&'a RawValue>,
    #[serde(borrow)]
    unsubscribe: Option<&'a RawValue>,
    #[serde(borrow)]
    publish: Option<&'a RawValue>,
    #[serde(borrow)]
    presence: Option<&'a RawValue>,
    #[serde(borrow)]
    presence_stats: Option<&'a RawValue>,
    #[serde(borrow)]
    history: Option<&'a RawValue>,
    ping: Option<IgnoredAny>,
    send: Option<IgnoredAny>,
    #[serde(borrow)]
    rpc: Option<&'a RawValue>,
    #[serde(borrow)]
    refresh: Option<&'a RawValue>,
    #[serde(borrow)]
    sub_refresh: Option<&'a RawValue>,
}

impl Envelope<'_> {
    /// The first body in the order of the schema, as the protocol has it when a command carries several.
    fn body(&self) -> Result<Body, ErrorCode> {
        if let Some(raw) = self.connect {
            return Ok(Body::Connect(connect(read(raw)?)?));
        }
        if let Some(raw) = self.subscribe {
            return subscribe(read(raw)?);
        }
        if let Some(raw) = self.unsubscribe {
            return Ok(Body::Unsubscribe { channel: read::<ChannelRequest>(raw)?.channel });
        }
        if let Some(raw) = self.publish {
            let publish: PublishRequest<'_> = read(raw)?;
            if publish.r#type != 0 || publish.removed {
                return Err(ErrorCode::NotAvailable);
            }
            let data = Payload::from_raw(publish.data.ok_or(ErrorCode::BadRequest)?);
            return Ok(Body::Publish(Publish { channel: publish.channel, data, key: publish.key }));
        }
        if let Some(raw) = self.presence {
            return Ok(Body::Presence { channel: read::<ChannelRequest>(raw)?.channel });
        }
        if let Some(raw) = self.presence_stats {
            return Ok(Body::PresenceStats { channel: read::<ChannelRequest>(raw)?.channel });
        }
        if let Some(raw) = self.history {
            let HistoryRequest { channel, limit, since, reverse } = read(raw)?;
            let since = since.map(|StreamPosition { offset, epoch }| Position { offset, epoch });
            return Ok(Body::History(History { channel, limit, since, reverse }));
        }
        if self.ping.is_some() {
            return Err(ErrorCode::NotAvailable);
        }
        if self.send.is_some() {
            return Ok(Body::Send);
        }
        if let Some(raw) = self.rpc {
            let RpcRequest { data, method } = read(raw)?;
            let data = data.map_or_else(|| Payload::of(&serde_json::Map::new()), Payload::from_raw);
            return Ok(Body::Rpc(Rpc { method, data }));
        }
        if let Some(raw) = self.refresh {
            return Ok(Body::Refresh { token: Token(read::<RefreshRequest>(raw)?.token) });
        }
        if let Some(raw) = self.sub_refresh {
            let SubRefreshRequest { channel, token, r#type } = read(raw)?;
            if r#type != 0 {
                return Err(ErrorCode::NotAvailable);
            }
            return Ok(Body::SubRefresh { channel, token: Token(token) });
        }
        Ok(Body::Pong)
    }
}

fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, ErrorCode> {
    serde_json::from_str(raw.get()).map_err(|_| ErrorCode::BadRequest)
}

/// Reads the frame of a client whose connection flows one way: the request to connect, without a command around it.
pub(crate) fn decode_connect(frame: &[u8]) -> Result<Vec<Command>, CloseCode> {
    let request: ConnectRequest = serde_json::from_slice(frame).map_err(|_| CloseCode::BadRequest)?;
    let connect = connect(request).map_err(|_| CloseCode::BadRequest)?;
    Ok(vec![Command { id: 1, body: Ok(Body::Connect(connect)) }])
}

fn connect(request: ConnectRequest) -> Result<Connect, ErrorCode> {
    let wanted = |(channel, sub): (Channel, WantedRequest)| {
        let position = sub.recover.then_some(Position { offset: sub.offset, epoch: sub.epoch });
        let (recover, filter) = (position.map(Recover::After), filter_of(sub.tf)?);
        Ok(Wanted { recover, filter, join_leave: sub.join_leave, ..Wanted::new(channel) })
    };
    let subs = request.subs.into_iter().map(wanted).collect::<Result<_, ErrorCode>>()?;
    Ok(Connect::new(request.token, &request.name, subs))
}

fn filter_of(node: Option<filter::Node>) -> Result<Option<Arc<Filter>>, ErrorCode> {
    // Ignoring a filter would send the client more than it asked for.
    node.map(Filter::of).transpose().map(|filter| filter.map(Arc::new)).map_err(|_| ErrorCode::BadRequest)
}

fn subscribe(request: SubscribeRequest) -> Result<Body, ErrorCode> {
    if request.r#type != 0 {
        return Err(ErrorCode::NotAvailable);
    }
    let filter = filter_of(request.tf)?;
    let recover = request.recover.then_some(Position { offset: request.offset, epoch: request.epoch });
    Ok(Body::Subscribe(Subscribe {
        channel: request.channel,
        token: Token(request.token),
        recover,
        must_recover: request.flag & 2 != 0,
        join_leave: request.join_leave,
        filter,
    }))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConnectRequest {
    token: String,
    name: String,
    subs: BTreeMap<Channel, WantedRequest>,
}

/// What of a `SubscribeRequest` counts for a channel that comes with the connection.
#[derive(Deserialize, Default)]
#[serde(default)]
struct WantedRequest {
    recover: bool,
    epoch: Epoch,
    offset: u64,
    join_leave: bool,
    tf: Option<filter::Node>,
}

#[derive(Deserialize)]
struct SubscribeRequest {
    channel: Channel,
    #[serde(default)]
    token: String,
    #[serde(default)]
    recover: bool,
    #[serde(default)]
    epoch: Epoch,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    join_leave: bool,
    #[serde(default)]
    flag: i64,
    #[serde(default)]
    r#type: i32,
    #[serde(default)]
    tf: Option<filter::Node>,
}

#[derive(Deserialize)]
struct ChannelRequest {
    channel: Channel,
}

#[derive(Deserialize)]
struct PublishRequest<'a> {
    channel: Channel,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    key: String,
    #[serde(default)]
    r#type: i32,
    #[serde(default)]
    removed: bool,
}

#[derive(Deserialize)]
struct HistoryRequest {
    channel: Channel,
    #[serde(default)]
    limit: i32,
    #[serde(default)]
    since: Option<StreamPosition>,
    #[serde(default)]
    reverse: bool,
}

/// A position as clients write it: zero values may be left out.
#[derive(Deserialize, Default)]
#[serde(default)]
struct StreamPosition {
    offset: u64,
    epoch: Epoch,
}

#[derive(Deserialize)]
struct RpcRequest<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    method: String,
}

#[derive(Deserialize)]
struct RefreshRequest {
    #[serde(default)]
    token: String,
}

#[derive(Deserialize)]
struct SubRefreshRequest {
    channel: Channel,
    #[serde(default)]
    token: String,
    #[serde(default)]
    r#type: i32,
}

/// Reads the body of a request to an emulated session. Its `data` is a string that holds a whole frame.
pub(crate) fn decode_emulation(body: &[u8]) -> Result<EmulationRequest, ErrorCode> {
    let EmulationBody { session, node, data } = serde_json::from_slice(body).map_err(|_| ErrorCode::BadRequest)?;
    Ok(EmulationRequest { session, node, data: data.into() })
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct EmulationBody {
    session: String,
    node: String,
    data: String,
}

/// Writes what a command came to as it stands inside a reply, for who answers without the protocol around it.
#[must_use]
pub fn result(done: &Done) -> Vec<u8> {
    let written = match done {
        Done::Published => serde_json::to_vec(&Empty {}),
        Done::History { entries, top } => serde_json::to_vec(&HistoryLine::of(entries, top)),
        Done::Presence(clients) => serde_json::to_vec(&PresenceLine::of(clients)),
        Done::PresenceStats { clients, users } => {
            serde_json::to_vec(&StatsLine { num_clients: *clients, num_users: *users })
        }
        Done::Rpc(data) => return data.as_bytes().to_vec(),
    };
    written.expect("our own types are written as JSON")
}

/// Writes a reply as one line, without the line feed.
#[must_use]
pub fn encode(reply: &Reply) -> Vec<u8> {
    let line = match reply {
        Reply::Ping => return b"{}".to_vec(),
        Reply::Error { id, code, message } => {
            let message = message.as_deref().unwrap_or(code.text());
            Line::id(*id, "error", &ErrorLine { code: code.code(), message, temporary: code.temporary() })
        }
        Reply::Connect { id, result } => Line::id(*id, "connect", &ConnectLine::from(result)),
        Reply::Subscribe { id, result } => Line::id(*id, "subscribe", &SubscribeLine::from(result)),
        Reply::Unsubscribe { id } => Line::id(*id, "unsubscribe", &Empty {}),
        Reply::Publish { id } => Line::id(*id, "publish", &Empty {}),
        Reply::Presence { id, clients } => Line::id(*id, "presence", &PresenceLine::of(clients)),
        Reply::PresenceStats { id, clients, users } => {
            Line::id(*id, "presence_stats", &StatsLine { num_clients: *clients, num_users: *users })
        }
        Reply::History { id, entries, top } => Line::id(*id, "history", &HistoryLine::of(entries, top)),
        Reply::Rpc { id, data } => Line::id(*id, "rpc", &RpcLine { data }),
        Reply::Refresh { id, client, ttl_s } => {
            let line = RefreshLine { client: Some(client), version: VERSION, expires: ttl_s.is_some(), ttl: *ttl_s };
            Line::id(*id, "refresh", &line)
        }
        Reply::SubRefresh { id, ttl_s } => {
            let line = RefreshLine { client: None, version: "", expires: ttl_s.is_some(), ttl: *ttl_s };
            Line::id(*id, "sub_refresh", &line)
        }
        Reply::Disconnect(code) => {
            let mut line = Line(Vec::with_capacity(96));
            let body = DisconnectLine { code: code.code(), reason: code.text(), reconnect: code.reconnect() };
            line.raw(b"{\"push\":{\"disconnect\":").json(&body).raw(b"}}");
            line
        }
        Reply::Message(data) => {
            let mut line = Line(Vec::with_capacity(data.len() + 40));
            line.raw(b"{\"push\":{\"message\":{\"data\":").raw(data.as_bytes()).raw(b"}}}");
            line
        }
        Reply::Push { channel, push } => Line::push(channel, push),
    };
    line.0
}

/// Writes a reply for a client whose connection flows one way: pushes alone, without the reply around them.
#[must_use]
pub fn encode_down(reply: &Reply) -> Vec<u8> {
    let mut line = match reply {
        Reply::Connect { result, .. } => {
            let mut line = Line(Vec::with_capacity(256));
            line.raw(b"{\"push\":{\"connect\":").json(&ConnectLine::from(result)).raw(b"}}");
            line.0
        }
        reply => encode(reply),
    };
    strip_push(&mut line);
    line
}

/// As [`encode_publication`], for a client whose connection flows one way.
#[must_use]
pub fn encode_publication_down(channel: &Channel, offset: u64, publication: &Publication) -> Vec<u8> {
    let mut line = encode_publication(channel, offset, publication);
    strip_push(&mut line);
    line
}

/// `{"push":X}` to `X`. What is no push stays.
fn strip_push(line: &mut Vec<u8>) {
    const AROUND: &[u8] = b"{\"push\":";
    if line.starts_with(AROUND) {
        line.pop();
        line.drain(..AROUND.len());
    }
}

/// Writes the push of a publication as one line, without the line feed. What fan-out calls once per publication.
#[must_use]
pub fn encode_publication(channel: &Channel, offset: u64, publication: &Publication) -> Vec<u8> {
    let data = publication.data.as_ref().map_or(&b"{}"[..], Payload::as_bytes);
    let mut line = Line(Vec::with_capacity(data.len() + 192));
    line.raw(b"{\"push\":{\"channel\":").json(channel).raw(b",\"pub\":{\"data\":").raw(data);
    if offset > 0 {
        line.raw(b",\"offset\":").json(&offset);
    }
    if let Some(info) = &publication.info {
        line.raw(b",\"info\":").json(&InfoLine::from(info));
    }
    if !publication.tags.is_empty() {
        line.raw(b",\"tags\":").json(&publication.tags);
    }
    if publication.time_ms != 0 {
        line.raw(b",\"time\":").json(&publication.time_ms);
    }
    line.raw(b"}}}");
    line.0
}

/// What the server calls itself in `connect`.
pub(crate) const VERSION: &str = concat!("talewire ", env!("CARGO_PKG_VERSION"));

struct Line(Vec<u8>);

impl Line {
    fn id(id: u32, name: &str, body: &impl Serialize) -> Self {
        let mut line = Self(Vec::with_capacity(64));
        line.raw(b"{\"id\":").json(&id).raw(b",").json(&name).raw(b":").json(body).raw(b"}");
        line
    }

    fn push(channel: &Channel, push: &Push) -> Self {
        let (name, body) = match push {
            Push::Publication { offset, publication } => {
                return Self(encode_publication(channel, *offset, publication));
            }
            Push::Join(info) => ("join", JoinLine { info: InfoLine::from(&**info) }),
            Push::Leave(info) => ("leave", JoinLine { info: InfoLine::from(&**info) }),
            Push::Unsubscribe(code) => {
                let mut line = Self(Vec::with_capacity(96));
                let body = UnsubscribeLine { code: code.code(), reason: code.text() };
                line.raw(b"{\"push\":{\"channel\":").json(channel).raw(b",\"unsubscribe\":").json(&body).raw(b"}}");
                return line;
            }
            Push::Subscribe(result) => {
                let mut line = Self(Vec::with_capacity(160));
                let body = SubscribePushLine::from(result);
                line.raw(b"{\"push\":{\"channel\":").json(channel).raw(b",\"subscribe\":").json(&body).raw(b"}}");
                return line;
            }
            // Native clients are told to subscribe again; this is for readers that cannot ([`crate::events`]).
            Push::Gap(position) => {
                let mut line = Self(Vec::with_capacity(160));
                line.raw(b"{\"push\":{\"channel\":").json(channel).raw(b",\"gap\":").json(position).raw(b"}}");
                return line;
            }
        };
        let mut line = Self(Vec::with_capacity(160));
        line.raw(b"{\"push\":{\"channel\":").json(channel).raw(b",").json(&name).raw(b":").json(&body).raw(b"}}");
        line
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn json(&mut self, value: &impl Serialize) -> &mut Self {
        serde_json::to_writer(&mut self.0, value)
            .expect("our own types are written as JSON, and a Vec takes every byte");
        self
    }
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct ErrorLine<'a> {
    code: u32,
    message: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    temporary: bool,
}

#[derive(Serialize)]
struct ConnectLine<'a> {
    client: &'a ClientId,
    version: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    expires: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    subs: BTreeMap<&'a Channel, SubscribeLine<'a>>,
    ping: u32,
    pong: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    time: i64,
}

impl<'a> From<&'a ConnectResult> for ConnectLine<'a> {
    fn from(result: &'a ConnectResult) -> Self {
        Self {
            client: &result.client,
            version: VERSION,
            expires: result.ttl_s.is_some(),
            ttl: result.ttl_s,
            subs: result.subs.iter().map(|(channel, sub)| (channel, SubscribeLine::from(sub))).collect(),
            ping: result.ping_s,
            pong: result.pong,
            session: result.session.as_ref().map(|session| session.0.as_str()),
            node: result.node.as_deref(),
            time: result.time_ms,
        }
    }
}

#[derive(Serialize)]
struct SubscribeLine<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    expires: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    recoverable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a Epoch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    publications: Vec<PublicationLine<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    recovered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    positioned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Payload>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    was_recovering: bool,
}

impl<'a> From<&'a SubscribeResult> for SubscribeLine<'a> {
    fn from(result: &'a SubscribeResult) -> Self {
        let position = result.position.as_ref();
        Self {
            expires: result.ttl_s.is_some(),
            ttl: result.ttl_s,
            recoverable: position.is_some(),
            epoch: position.map(|p| &p.epoch),
            publications: result.entries.iter().map(|entry| PublicationLine::from(&**entry)).collect(),
            recovered: result.recovered,
            offset: position.map(|p| p.offset).filter(|offset| *offset > 0),
            positioned: position.is_some(),
            data: result.data.as_ref(),
            was_recovering: result.was_recovering,
        }
    }
}

/// A subscription that the server made: what it missed is pushed behind it.
#[derive(Serialize)]
struct SubscribePushLine<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    recoverable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    positioned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Payload>,
}

impl<'a> From<&'a SubscribeResult> for SubscribePushLine<'a> {
    fn from(result: &'a SubscribeResult) -> Self {
        let SubscribeLine { recoverable, epoch, offset, positioned, data, .. } = result.into();
        Self { recoverable, epoch, offset, positioned, data }
    }
}

#[derive(Serialize)]
struct PublicationLine<'a> {
    data: DataLine<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<InfoLine<'a>>,
    offset: u64,
    #[serde(skip_serializing_if = "no_tags")]
    tags: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero_time")]
    time: i64,
}

impl<'a> From<&'a Entry> for PublicationLine<'a> {
    fn from(entry: &'a Entry) -> Self {
        let publication = &entry.publication;
        Self {
            data: DataLine(publication.data.as_ref()),
            info: publication.info.as_ref().map(InfoLine::from),
            offset: entry.offset,
            tags: &publication.tags,
            time: publication.time_ms,
        }
    }
}

/// The payload, or the tombstone of an erased one.
pub(crate) struct DataLine<'a>(pub(crate) Option<&'a Payload>);

impl Serialize for DataLine<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(payload) => payload.serialize(serializer),
            None => Empty {}.serialize(serializer),
        }
    }
}

#[derive(Serialize)]
struct InfoLine<'a> {
    user: &'a str,
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<&'a Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chan_info: Option<&'a Payload>,
}

impl<'a> From<&'a ClientInfo> for InfoLine<'a> {
    fn from(info: &'a ClientInfo) -> Self {
        Self {
            user: info.user.as_str(),
            client: info.client.as_ref().map_or("", ClientId::as_str),
            conn_info: info.conn_info.as_ref(),
            chan_info: info.chan_info.as_ref(),
        }
    }
}

#[derive(Serialize)]
struct JoinLine<'a> {
    info: InfoLine<'a>,
}

#[derive(Serialize)]
struct UnsubscribeLine<'a> {
    code: u32,
    reason: &'a str,
}

#[derive(Serialize)]
struct DisconnectLine<'a> {
    code: u32,
    reason: &'a str,
    reconnect: bool,
}

#[derive(Serialize)]
struct PresenceLine<'a> {
    presence: BTreeMap<ClientId, InfoLine<'a>>,
}

impl<'a> PresenceLine<'a> {
    fn of(clients: &'a [(ClientId, Arc<ClientInfo>)]) -> Self {
        Self { presence: clients.iter().map(|(client, info)| (client.clone(), InfoLine::from(&**info))).collect() }
    }
}

#[derive(Serialize)]
struct StatsLine {
    num_clients: u32,
    num_users: u32,
}

#[derive(Serialize)]
struct HistoryLine<'a> {
    publications: Vec<PublicationLine<'a>>,
    epoch: &'a Epoch,
    offset: u64,
}

impl<'a> HistoryLine<'a> {
    fn of(entries: &'a [Arc<Entry>], top: &'a Position) -> Self {
        let publications = entries.iter().map(|entry| PublicationLine::from(&**entry)).collect();
        Self { publications, epoch: &top.epoch, offset: top.offset }
    }
}

#[derive(Serialize)]
struct RpcLine<'a> {
    data: &'a Payload,
}

#[derive(Serialize)]
struct RefreshLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a ClientId>,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    expires: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that skip_serializing_if wants")]
fn is_zero_time(time: &i64) -> bool {
    *time == 0
}

fn no_tags(tags: &&BTreeMap<String, String>) -> bool {
    tags.is_empty()
}
