//! The messages of the public `client.proto` that this server reads or writes, with the fields that it reads or writes.
//!
//! Numbers are the schema's, names too. A field that is not here is skipped when a client sends it, whatever it holds. No
//! message has a `Debug`: they carry tokens and people's words. In tests the replies can be read from JSON as well, which
//! is how the two codecs are held against each other.
//!
//! Maps of messages are written as the entries that they are on the wire, each with its value: prost's maps leave out a value
//! in which nothing is set, and the JavaScript client then finds `null` where it expects a message.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A command with its body still unread, so that a wrong body is answered with an error and costs nobody else anything.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct Command {
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub(crate) connect: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub(crate) subscribe: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub(crate) unsubscribe: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "7")]
    pub(crate) publish: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "8")]
    pub(crate) presence: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub(crate) presence_stats: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "10")]
    pub(crate) history: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "11")]
    pub(crate) ping: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "12")]
    pub(crate) send: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "13")]
    pub(crate) rpc: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "14")]
    pub(crate) refresh: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "15")]
    pub(crate) sub_refresh: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct EmulationRequest {
    #[prost(string, tag = "1")]
    pub(crate) node: String,
    #[prost(string, tag = "2")]
    pub(crate) session: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct ConnectRequest {
    #[prost(string, tag = "1")]
    pub(crate) token: String,
    #[prost(btree_map = "string, message", tag = "3")]
    pub(crate) subs: BTreeMap<String, SubscribeRequest>,
    #[prost(string, tag = "4")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FilterNode {
    #[prost(string, tag = "1")]
    pub(crate) op: String,
    #[prost(string, tag = "2")]
    pub(crate) key: String,
    #[prost(string, tag = "3")]
    pub(crate) cmp: String,
    #[prost(string, tag = "4")]
    pub(crate) val: String,
    #[prost(string, repeated, tag = "5")]
    pub(crate) vals: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) nodes: Vec<Self>,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct SubscribeRequest {
    #[prost(string, tag = "1")]
    pub(crate) channel: String,
    #[prost(string, tag = "2")]
    pub(crate) token: String,
    #[prost(bool, tag = "3")]
    pub(crate) recover: bool,
    #[prost(string, tag = "6")]
    pub(crate) epoch: String,
    #[prost(uint64, tag = "7")]
    pub(crate) offset: u64,
    #[prost(bool, tag = "11")]
    pub(crate) join_leave: bool,
    #[prost(message, optional, tag = "13")]
    pub(crate) tf: Option<FilterNode>,
    #[prost(int64, tag = "14")]
    pub(crate) flag: i64,
    #[prost(int32, tag = "15")]
    pub(crate) r#type: i32,
}

/// `UnsubscribeRequest`, `PresenceRequest` and `PresenceStatsRequest`.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct ChannelRequest {
    #[prost(string, tag = "1")]
    pub(crate) channel: String,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct PublishRequest {
    #[prost(string, tag = "1")]
    pub(crate) channel: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) data: Bytes,
    #[prost(int32, tag = "3")]
    pub(crate) r#type: i32,
    #[prost(string, tag = "4")]
    pub(crate) key: String,
    #[prost(bool, tag = "5")]
    pub(crate) removed: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct HistoryRequest {
    #[prost(string, tag = "1")]
    pub(crate) channel: String,
    #[prost(int32, tag = "7")]
    pub(crate) limit: i32,
    #[prost(message, optional, tag = "8")]
    pub(crate) since: Option<StreamPosition>,
    #[prost(bool, tag = "9")]
    pub(crate) reverse: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct StreamPosition {
    #[prost(uint64, tag = "1")]
    pub(crate) offset: u64,
    #[prost(string, tag = "2")]
    pub(crate) epoch: String,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct RpcRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) data: Bytes,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct RefreshRequest {
    #[prost(string, tag = "1")]
    pub(crate) token: String,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct SubRefreshRequest {
    #[prost(string, tag = "1")]
    pub(crate) channel: String,
    #[prost(string, tag = "2")]
    pub(crate) token: String,
    #[prost(int32, tag = "3")]
    pub(crate) r#type: i32,
}

// What the server writes. Tests read it from JSON too.
macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* })+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, prost::Message)]
        #[prost(skip_debug)]
        #[cfg_attr(test, derive(serde::Deserialize), serde(default, deny_unknown_fields))]
        pub(crate) struct $name {
            $($(#[$attribute])* pub(crate) $field: $type,)*
        }
    )+};
}

replies! {
    Reply {
        #[prost(uint32, tag = "1")]
        id: u32,
        #[prost(message, optional, tag = "2")]
        error: Option<Error>,
        #[prost(message, optional, tag = "4")]
        push: Option<Push>,
        #[prost(message, optional, tag = "5")]
        connect: Option<ConnectResult>,
        #[prost(message, optional, tag = "6")]
        subscribe: Option<SubscribeResult>,
        #[prost(message, optional, tag = "7")]
        unsubscribe: Option<Empty>,
        #[prost(message, optional, tag = "8")]
        publish: Option<Empty>,
        #[prost(message, optional, tag = "9")]
        presence: Option<PresenceResult>,
        #[prost(message, optional, tag = "10")]
        presence_stats: Option<PresenceStatsResult>,
        #[prost(message, optional, tag = "11")]
        history: Option<HistoryResult>,
        #[prost(message, optional, tag = "13")]
        rpc: Option<RpcResult>,
        #[prost(message, optional, tag = "14")]
        refresh: Option<RefreshResult>,
        #[prost(message, optional, tag = "15")]
        sub_refresh: Option<SubRefreshResult>,
    }
    Error {
        #[prost(uint32, tag = "1")]
        code: u32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(bool, tag = "3")]
        temporary: bool,
    }
    /// `UnsubscribeResult` and `PublishResult`.
    Empty {}
    Push {
        #[prost(string, tag = "2")]
        channel: String,
        #[prost(message, optional, tag = "4")]
        r#pub: Option<Publication>,
        #[prost(message, optional, tag = "5")]
        join: Option<JoinOrLeave>,
        #[prost(message, optional, tag = "6")]
        leave: Option<JoinOrLeave>,
        #[prost(message, optional, tag = "7")]
        unsubscribe: Option<Unsubscribe>,
        #[prost(message, optional, tag = "8")]
        message: Option<Message>,
        #[prost(message, optional, tag = "9")]
        subscribe: Option<SubscribePush>,
        #[prost(message, optional, tag = "10")]
        connect: Option<ConnectPush>,
        #[prost(message, optional, tag = "11")]
        disconnect: Option<Disconnect>,
    }
    /// `Subscribe` of a push; its numbers are its own.
    SubscribePush {
        #[prost(bool, tag = "1")]
        recoverable: bool,
        #[prost(string, tag = "4")]
        epoch: String,
        #[prost(uint64, tag = "5")]
        offset: u64,
        #[prost(bool, tag = "6")]
        positioned: bool,
        #[prost(bytes = "bytes", tag = "7")]
        #[cfg_attr(test, serde(deserialize_with = "json_text"))]
        data: Bytes,
    }
    /// `Connect` of a push; its numbers are its own.
    ConnectPush {
        #[prost(string, tag = "1")]
        client: String,
        #[prost(string, tag = "2")]
        version: String,
        #[prost(message, repeated, tag = "4")]
        #[cfg_attr(test, serde(deserialize_with = "json_map::<_, SubscribeResult, _>"))]
        subs: Vec<SubsEntry>,
        #[prost(bool, tag = "5")]
        expires: bool,
        #[prost(uint32, tag = "6")]
        ttl: u32,
        #[prost(uint32, tag = "7")]
        ping: u32,
        #[prost(bool, tag = "8")]
        pong: bool,
        #[prost(string, tag = "9")]
        session: String,
        #[prost(string, tag = "10")]
        node: String,
        #[prost(int64, tag = "11")]
        time: i64,
    }
    Message {
        #[prost(bytes = "bytes", tag = "1")]
        #[cfg_attr(test, serde(deserialize_with = "json_text"))]
        data: Bytes,
    }
    Publication {
        #[prost(bytes = "bytes", tag = "4")]
        #[cfg_attr(test, serde(deserialize_with = "json_text"))]
        data: Bytes,
        #[prost(message, optional, tag = "5")]
        info: Option<ClientInfo>,
        #[prost(uint64, tag = "6")]
        offset: u64,
        #[prost(btree_map = "string, string", tag = "7")]
        tags: BTreeMap<String, String>,
        #[prost(int64, tag = "9")]
        time: i64,
    }
    ClientInfo {
        #[prost(string, tag = "1")]
        user: String,
        #[prost(string, tag = "2")]
        client: String,
        #[prost(bytes = "bytes", tag = "3")]
        #[cfg_attr(test, serde(deserialize_with = "json_text"))]
        conn_info: Bytes,
        #[prost(bytes = "bytes", tag = "4")]
        #[cfg_attr(test, serde(deserialize_with = "json_text"))]
        chan_info: Bytes,
    }
    /// `Join` and `Leave`.
    JoinOrLeave {
        #[prost(message, optional, tag = "1")]
        info: Option<ClientInfo>,
    }
    Unsubscribe {
        #[prost(uint32, tag = "2")]
        code: u32,
        #[prost(string, tag = "3")]
        reason: String,
    }
    Disconnect {
        #[prost(uint32, tag = "1")]
        code: u32,
        #[prost(string, tag = "2")]
        reason: String,
        #[prost(bool, tag = "3")]
        reconnect: bool,
    }
    ConnectResult {
        #[prost(string, tag = "1")]
        client: String,
        #[prost(string, tag = "2")]
        version: String,
        #[prost(bool, tag = "3")]
        expires: bool,
        #[prost(uint32, tag = "4")]
        ttl: u32,
        #[prost(message, repeated, tag = "6")]
        #[cfg_attr(test, serde(deserialize_with = "json_map::<_, SubscribeResult, _>"))]
        subs: Vec<SubsEntry>,
        #[prost(uint32, tag = "7")]
        ping: u32,
        #[prost(bool, tag = "8")]
        pong: bool,
        #[prost(string, tag = "9")]
        session: String,
        #[prost(string, tag = "10")]
        node: String,
        #[prost(int64, tag = "11")]
        time: i64,
    }
    SubsEntry {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(message, optional, tag = "2")]
        value: Option<SubscribeResult>,
    }
    SubscribeResult {
        #[prost(bool, tag = "1")]
        expires: bool,
        #[prost(uint32, tag = "2")]
        ttl: u32,
        #[prost(bool, tag = "3")]
        recoverable: bool,
        #[prost(string, tag = "6")]
        epoch: String,
        #[prost(message, repeated, tag = "7")]
        publications: Vec<Publication>,
        #[prost(bool, tag = "8")]
        recovered: bool,
        #[prost(uint64, tag = "9")]
        offset: u64,
        #[prost(bool, tag = "10")]
        positioned: bool,
        #[prost(bytes = "bytes", tag = "11")]
        #[cfg_attr(test, serde(deserialize_with = "json_text"))]
        data: Bytes,
        #[prost(bool, tag = "12")]
        was_recovering: bool,
    }
    PresenceResult {
        #[prost(message, repeated, tag = "1")]
        #[cfg_attr(test, serde(deserialize_with = "json_map::<_, ClientInfo, _>"))]
        presence: Vec<PresenceEntry>,
    }
    PresenceEntry {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(message, optional, tag = "2")]
        value: Option<ClientInfo>,
    }
    PresenceStatsResult {
        #[prost(uint32, tag = "1")]
        num_clients: u32,
        #[prost(uint32, tag = "2")]
        num_users: u32,
    }
    HistoryResult {
        #[prost(message, repeated, tag = "1")]
        publications: Vec<Publication>,
        #[prost(string, tag = "2")]
        epoch: String,
        #[prost(uint64, tag = "3")]
        offset: u64,
    }
    RpcResult {
        #[prost(bytes = "bytes", tag = "1")]
        #[cfg_attr(test, serde(deserialize_with = "json_text"))]
        data: Bytes,
    }
    RefreshResult {
        #[prost(string, tag = "1")]
        client: String,
        #[prost(string, tag = "2")]
        version: String,
        #[prost(bool, tag = "3")]
        expires: bool,
        #[prost(uint32, tag = "4")]
        ttl: u32,
    }
    SubRefreshResult {
        #[prost(bool, tag = "1")]
        expires: bool,
        #[prost(uint32, tag = "2")]
        ttl: u32,
    }
}

impl From<(String, SubscribeResult)> for SubsEntry {
    fn from((key, value): (String, SubscribeResult)) -> Self {
        Self { key, value: Some(value) }
    }
}

impl From<(String, ClientInfo)> for PresenceEntry {
    fn from((key, value): (String, ClientInfo)) -> Self {
        Self { key, value: Some(value) }
    }
}

/// In JSON, `bytes` stand as the JSON text itself.
#[cfg(test)]
fn json_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let raw: Box<serde_json::value::RawValue> = serde::Deserialize::deserialize(deserializer)?;
    Ok(Bytes::copy_from_slice(raw.get().as_bytes()))
}

/// In JSON, a map is an object.
#[cfg(test)]
fn json_map<'de, D, V, E>(deserializer: D) -> Result<Vec<E>, D::Error>
where
    D: serde::Deserializer<'de>,
    V: serde::Deserialize<'de>,
    E: From<(String, V)>,
{
    let map: BTreeMap<String, V> = serde::Deserialize::deserialize(deserializer)?;
    Ok(map.into_iter().map(E::from).collect())
}
