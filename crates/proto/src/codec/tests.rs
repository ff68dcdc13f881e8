//! The two codecs held against each other: what both can say means the same, and bytes that mean nothing do no harm.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message as _;

use super::*;
use crate::command::Body;
use crate::protobuf::schema;
use crate::publication::{ClientInfo, Entry, Epoch, Position};
use crate::reply::{ConnectResult, Push, SubscribeResult};
use crate::{ClientId, ErrorCode, Payload, UnsubscribeCode, command::Token};

/// A body of a command in both codecs.
#[derive(Clone)]
struct Ask {
    name: &'static str,
    /// Fields and their values as JSON text.
    fields: Vec<(&'static str, String)>,
    protobuf: Vec<u8>,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.name, self.fields)
    }
}

/// Whether a client writes JSON fields that hold their zero value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zeros {
    Written,
    LeftOut,
}

/// Whether a client sends fields that the server does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Sent,
    None,
}

fn object(fields: &[(&str, String)], zeros: Zeros) -> String {
    let is_zero = |value: &str| ["0", "false", "\"\""].contains(&value);
    let kept = fields.iter().filter(|(name, value)| zeros == Zeros::Written || *name == "data" || !is_zero(value));
    let pairs: Vec<String> = kept.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", pairs.join(","))
}

fn text(value: &str) -> String {
    serde_json::to_string(value).expect("text is JSON")
}

/// A frame of one command with these bodies.
fn frame(codec: Codec, id: u32, asks: &[Ask], zeros: Zeros, unknown: Unknown) -> Vec<u8> {
    if codec == Codec::Json {
        let mut fields = vec![("id", id.to_string())];
        for ask in asks {
            let mut inner = ask.fields.clone();
            if unknown == Unknown::Sent {
                inner.push(("unheard_of", "[1]".into()));
            }
            fields.push((ask.name, object(&inner, zeros)));
        }
        return object(&fields, zeros).into_bytes();
    }
    let mut command = schema::Command { id, ..schema::Command::default() };
    for ask in asks {
        let mut body = ask.protobuf.clone();
        if unknown == Unknown::Sent {
            body.extend_from_slice(b"\xa2\x06\x01x");
        }
        let body = Some(Bytes::from(body));
        match ask.name {
            "connect" => command.connect = body,
            "subscribe" => command.subscribe = body,
            "unsubscribe" => command.unsubscribe = body,
            "publish" => command.publish = body,
            "presence" => command.presence = body,
            "presence_stats" => command.presence_stats = body,
            "history" => command.history = body,
            "ping" => command.ping = body,
            "send" => command.send = body,
            "rpc" => command.rpc = body,
            "refresh" => command.refresh = body,
            "sub_refresh" => command.sub_refresh = body,
            other => panic!("no such body: {other}"),
        }
    }
    command.encode_length_delimited_to_vec()
}

fn json_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_filter("JSON has no such number", |f| f.is_finite()).prop_map(|number| format!("{number:e}")),
        ".{0,12}".prop_map(|words| text(&words)),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(",\n"))),
            prop::collection::vec(("[a-z]{1,4}", inner), 0..4).prop_map(|pairs| {
                let pairs: Vec<String> =
                    pairs.into_iter().map(|(key, value)| format!("\"{key}\":\r\n{value}")).collect();
                format!(" {{{}}} ", pairs.join(","))
            }),
        ]
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    json_value().prop_map(|value| Payload::parse(value.as_bytes()).expect("JSON"))
}

/// Mostly names that are good, and some that are not.
fn channel_text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z]{1,6}(:[a-z0-9.]{1,8})?", 1 => ".{0,8}", 1 => Just("x".repeat(256))]
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), ".{0,24}", any::<String>()]
}

fn mostly_zero() -> impl Strategy<Value = i32> {
    prop_oneof![4 => Just(0), 1 => any::<i32>()]
}

prop_compose! {
    fn ask_connect()(token in words(), name in words()) -> Ask {
        let fields = vec![("token", text(&token)), ("name", text(&name))];
        Ask { name: "connect", fields, protobuf: schema::ConnectRequest { token, name, ..Default::default() }.encode_to_vec() }
    }
}

fn filter_node() -> impl Strategy<Value = schema::FilterNode> {
    let cmp = prop::sample::select(vec!["eq", "neq", "in", "nin", "ex", "nex", "sw", "lt", "gte", "like", ""]);
    let leaf = (cmp, "[a-z]{0,3}", "[0-9a-z]{0,3}", prop::collection::vec("[a-z]{0,3}", 0..3))
        .prop_map(|(cmp, key, val, vals)| schema::FilterNode { cmp: cmp.into(), key, val, vals, ..Default::default() });
    leaf.prop_recursive(3, 12, 3, |inner| {
        let op = prop::sample::select(vec!["and", "or", "not", "xor"]);
        (op, prop::collection::vec(inner, 0..3)).prop_map(|(op, nodes)| schema::FilterNode {
            op: op.into(),
            nodes,
            ..Default::default()
        })
    })
}

fn json_of_filter(node: &schema::FilterNode) -> String {
    let nodes: Vec<String> = node.nodes.iter().map(json_of_filter).collect();
    let vals: Vec<String> = node.vals.iter().map(|val| text(val)).collect();
    let [op, key, cmp, val] = [&node.op, &node.key, &node.cmp, &node.val].map(|value| text(value));
    let (vals, nodes) = (vals.join(","), nodes.join(","));
    format!(r#"{{"op":{op},"key":{key},"cmp":{cmp},"val":{val},"vals":[{vals}],"nodes":[{nodes}]}}"#)
}

prop_compose! {
    fn ask_subscribe()(
        channel in channel_text(), token in words(), recover: bool, epoch in words(), offset: u64, join_leave: bool,
        filter in prop::option::weighted(0.4, filter_node()), flag: i64, r#type in mostly_zero(),
    ) -> Ask {
        let mut fields = vec![
            ("channel", text(&channel)), ("token", text(&token)), ("recover", recover.to_string()),
            ("epoch", text(&epoch)), ("offset", offset.to_string()), ("join_leave", join_leave.to_string()),
            ("flag", flag.to_string()), ("type", r#type.to_string()),
        ];
        fields.extend(filter.as_ref().map(|filter| ("tf", json_of_filter(filter))));
        let request =
            schema::SubscribeRequest { channel, token, recover, epoch, offset, join_leave, tf: filter, flag, r#type };
        Ask { name: "subscribe", fields, protobuf: request.encode_to_vec() }
    }
}

prop_compose! {
    fn ask_about_a_channel()(
        name in prop::sample::select(vec!["unsubscribe", "presence", "presence_stats"]), channel in channel_text(),
    ) -> Ask {
        let fields = vec![("channel", text(&channel))];
        Ask { name, fields, protobuf: schema::ChannelRequest { channel }.encode_to_vec() }
    }
}

prop_compose! {
    fn ask_publish()(
        channel in channel_text(), data in prop::option::weighted(0.8, json_value()), key in words(),
        r#type in mostly_zero(), removed in prop::bool::weighted(0.2),
    ) -> Ask {
        let mut fields = vec![
            ("channel", text(&channel)), ("key", text(&key)), ("type", r#type.to_string()),
            ("removed", removed.to_string()),
        ];
        fields.extend(data.clone().map(|data| ("data", data)));
        let data = data.unwrap_or_default().into();
        Ask {
            name: "publish",
            fields,
            protobuf: schema::PublishRequest { channel, data, r#type, key, removed }.encode_to_vec(),
        }
    }
}

prop_compose! {
    fn ask_history()(
        channel in channel_text(), limit: i32, since in prop::option::of((prop_oneof![Just(0), any::<u64>()], words())),
        reverse: bool, zeros in zeros(),
    ) -> Ask {
        let mut fields = vec![
            ("channel", text(&channel)), ("limit", limit.to_string()), ("reverse", reverse.to_string()),
        ];
        fields.extend(since.clone().map(|(offset, epoch)| {
            ("since", object(&[("offset", offset.to_string()), ("epoch", text(&epoch))], zeros))
        }));
        let since = since.map(|(offset, epoch)| schema::StreamPosition { offset, epoch });
        Ask {
            name: "history",
            fields,
            protobuf: schema::HistoryRequest { channel, limit, since, reverse }.encode_to_vec(),
        }
    }
}

prop_compose! {
    fn ask_rpc()(data in prop::option::of(json_value()), method in words()) -> Ask {
        let mut fields = vec![("method", text(&method))];
        fields.extend(data.clone().map(|data| ("data", data)));
        let data = data.unwrap_or_default().into();
        Ask { name: "rpc", fields, protobuf: schema::RpcRequest { data, method }.encode_to_vec() }
    }
}

prop_compose! {
    fn ask_refresh()(token in words()) -> Ask {
        let fields = vec![("token", text(&token))];
        Ask { name: "refresh", fields, protobuf: schema::RefreshRequest { token }.encode_to_vec() }
    }
}

prop_compose! {
    fn ask_sub_refresh()(channel in channel_text(), token in words(), r#type in mostly_zero()) -> Ask {
        let fields = vec![("channel", text(&channel)), ("token", text(&token)), ("type", r#type.to_string())];
        Ask {
            name: "sub_refresh",
            fields,
            protobuf: schema::SubRefreshRequest { channel, token, r#type }.encode_to_vec(),
        }
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    let bare = |name| Just(Ask { name, fields: Vec::new(), protobuf: Vec::new() });
    prop_oneof![
        ask_connect(),
        ask_subscribe(),
        ask_about_a_channel(),
        ask_publish(),
        ask_history(),
        ask_rpc(),
        ask_refresh(),
        ask_sub_refresh(),
        bare("ping"),
        bare("send"),
    ]
}

/// None, one or several bodies, each of another kind.
fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let several = prop::collection::vec(ask(), 0..4);
    prop_oneof![3 => ask().prop_map(|ask| vec![ask]), 1 => several].prop_map(|mut asks| {
        let mut seen = std::collections::HashSet::new();
        asks.retain(|ask| seen.insert(ask.name));
        asks
    })
}

fn zeros() -> impl Strategy<Value = Zeros> {
    prop_oneof![Just(Zeros::Written), Just(Zeros::LeftOut)]
}

fn unknown() -> impl Strategy<Value = Unknown> {
    prop_oneof![Just(Unknown::Sent), Just(Unknown::None)]
}

fn codec() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::Json), Just(Codec::Protobuf)]
}

prop_compose! {
    fn info()(
        user in "[a-z@é]{0,8}", client in prop::option::of("[a-z]{1,8}"), conn_info in prop::option::of(payload()),
        chan_info in prop::option::of(payload()),
    ) -> ClientInfo {
        let user = user.parse().expect("a user id");
        ClientInfo { user, client: client.map(|client| client.parse().expect("a client id")), conn_info, chan_info }
    }
}

prop_compose! {
    fn publication()(
        data in prop::option::weighted(0.9, payload()), info in prop::option::of(info()),
        tags in prop::collection::btree_map(words(), words(), 0..3), time_ms in prop_oneof![Just(0), any::<i64>()],
    ) -> Publication {
        Publication { data, info, tags, time_ms, trace: None }
    }
}

fn entries() -> impl Strategy<Value = Vec<Arc<Entry>>> {
    let entry = (1..u64::MAX, publication()).prop_map(|(offset, publication)| Arc::new(Entry { offset, publication }));
    prop::collection::vec(entry, 0..4)
}

fn position() -> impl Strategy<Value = Position> {
    (prop_oneof![Just(0), any::<u64>()], words())
        .prop_map(|(offset, epoch)| Position { offset, epoch: Epoch::new(&epoch) })
}

prop_compose! {
    fn subscribe_result()(
        ttl_s: Option<u32>, position in prop::option::of(position()), was_recovering: bool, recovered: bool,
        entries in entries(), data in prop::option::of(payload()),
    ) -> SubscribeResult {
        SubscribeResult { ttl_s, position, was_recovering, recovered, entries, data }
    }
}

fn channel() -> impl Strategy<Value = Channel> {
    "[a-z]{1,6}(:[a-z0-9.]{1,8})?".prop_map(|name| name.parse().expect("a channel"))
}

fn client() -> impl Strategy<Value = ClientId> {
    "[a-zA-Z0-9_-]{1,12}".prop_map(|id| id.parse().expect("a client id"))
}

prop_compose! {
    fn connect_result()(
        client in client(), ttl_s: Option<u32>, ping_s: u32, pong: bool, time_ms: i64,
        subs in prop::collection::btree_map(channel(), subscribe_result(), 0..3),
        session in prop::option::of(words()), node in prop::option::of(words()),
    ) -> ConnectResult {
        let (session, refused) = (session.map(Token), Vec::new());
        ConnectResult { client, ttl_s, ping_s, pong, time_ms, subs, refused, session, node }
    }
}

fn push() -> impl Strategy<Value = Push> {
    prop_oneof![
        (any::<u64>(), publication())
            .prop_map(|(offset, publication)| Push::Publication { offset, publication: Arc::new(publication) }),
        info().prop_map(|info| Push::Join(Arc::new(info))),
        subscribe_result().prop_map(Push::Subscribe),
        info().prop_map(|info| Push::Leave(Arc::new(info))),
        prop::sample::select(UnsubscribeCode::ALL).prop_map(Push::Unsubscribe),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let id = || 1..u32::MAX;
    let presence = prop::collection::vec((client(), info().prop_map(Arc::new)), 0..4);
    prop_oneof![
        Just(Reply::Ping),
        (id(), prop::sample::select(ErrorCode::ALL), prop::option::of(words()))
            .prop_map(|(id, code, message)| Reply::Error { id, code, message }),
        (id(), connect_result()).prop_map(|(id, result)| Reply::Connect { id, result }),
        (id(), subscribe_result()).prop_map(|(id, result)| Reply::Subscribe { id, result }),
        id().prop_map(|id| Reply::Unsubscribe { id }),
        id().prop_map(|id| Reply::Publish { id }),
        (id(), presence).prop_map(|(id, clients)| Reply::Presence { id, clients }),
        (id(), any::<u32>(), any::<u32>()).prop_map(|(id, clients, users)| Reply::PresenceStats { id, clients, users }),
        (id(), entries(), position()).prop_map(|(id, entries, top)| Reply::History { id, entries, top }),
        (id(), payload()).prop_map(|(id, data)| Reply::Rpc { id, data }),
        (id(), client(), any::<Option<u32>>()).prop_map(|(id, client, ttl_s)| Reply::Refresh { id, client, ttl_s }),
        (id(), any::<Option<u32>>()).prop_map(|(id, ttl_s)| Reply::SubRefresh { id, ttl_s }),
        (channel(), push()).prop_map(|(channel, push)| Reply::Push { channel, push }),
    ]
}

/// How much of the client's text a command keeps.
fn kept_bytes(command: &Command) -> usize {
    let Ok(body) = &command.body else { return 0 };
    let position = |position: &Option<Position>| position.as_ref().map_or(0, |p| p.epoch.as_str().len());
    match body {
        Body::Connect(connect) => connect.token.0.len() + connect.name.len(),
        Body::Subscribe(s) => s.channel.as_str().len() + s.token.0.len() + position(&s.recover),
        Body::Unsubscribe { channel } | Body::Presence { channel } | Body::PresenceStats { channel } => {
            channel.as_str().len()
        }
        Body::Publish(publish) => publish.channel.as_str().len() + publish.data.len() + publish.key.len(),
        Body::History(history) => history.channel.as_str().len() + position(&history.since),
        Body::Rpc(rpc) => rpc.method.len() + rpc.data.len(),
        Body::Refresh { token } => token.0.len(),
        Body::SubRefresh { channel, token } => channel.as_str().len() + token.0.len(),
        Body::Send | Body::Pong => 0,
    }
}

/// Whatever comes in, it does not panic, and what is kept of it is not more than what came in.
fn survives(codec: Codec, frame: &[u8]) -> Result<(), TestCaseError> {
    let limits = Limits { frame_commands_max: 8, ..Limits::default() };
    let _ = EmulationRequest::decode(codec, frame);
    let Ok(commands) = codec.decode_frame(frame, &limits) else { return Ok(()) };
    prop_assert!(!commands.is_empty() && commands.len() <= limits.frame_commands_max.min(frame.len()));
    // An rpc without data is given `{}`, which nobody sent.
    let kept: usize = commands.iter().map(kept_bytes).sum();
    prop_assert!(kept <= frame.len() + 2 * commands.len());
    Ok(())
}

proptest! {
    #[test]
    fn a_command_means_the_same_in_both(id: u32, asks in asks(), zeros in zeros(), unknown in unknown()) {
        let limits = Limits::default();
        let read = |codec: Codec| codec.decode_frame(&frame(codec, id, &asks, zeros, unknown), &limits);
        let json = read(Codec::Json);
        prop_assert!(json.is_ok());
        prop_assert_eq!(read(Codec::Protobuf), json);
    }

    #[test]
    fn a_reply_says_the_same_in_both(reply in reply()) {
        let line = Codec::Json.encode(&reply);
        prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        let json: schema::Reply = serde_json::from_slice(&line).expect("a line with the schema's fields");
        let message = Codec::Protobuf.encode(&reply);
        let mut rest = &message[..];
        let protobuf = schema::Reply::decode_length_delimited(&mut rest).expect("a message");
        prop_assert!(rest.is_empty());
        prop_assert!(json == protobuf, "{}", String::from_utf8_lossy(&line));
    }

    #[test]
    fn a_publication_alone_is_its_push(channel in channel(), offset: u64, publication in publication()) {
        let push = Push::Publication { offset, publication: Arc::new(publication.clone()) };
        let reply = Reply::Push { channel: channel.clone(), push };
        for codec in [Codec::Json, Codec::Protobuf] {
            prop_assert_eq!(codec.encode_publication(&channel, offset, &publication), codec.encode(&reply));
        }
    }

    #[test]
    fn bytes_at_random_do_no_harm(codec in codec(), frame in prop::collection::vec(any::<u8>(), 0..512)) {
        survives(codec, &frame)?;
    }

    #[test]
    fn broken_frames_do_no_harm(
        codec in codec(),
        commands in prop::collection::vec((any::<u32>(), asks()), 1..4),
        breaks in prop::collection::vec((0u8..4, any::<Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = Vec::new();
        for (id, asks) in commands {
            bytes.extend(frame(codec, id, &asks, Zeros::Written, Unknown::None));
        }
        for (kind, at, byte) in breaks {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        survives(codec, &bytes)?;
    }
}

#[test]
fn an_emulated_request_carries_a_frame_of_its_codec() {
    let body = br#"{"session":"s1","node":"n1","data":"{\"id\":2,\"rpc\":{\"method\":\"m\"}}\n{}","later":1}"#;
    let request = EmulationRequest::decode(Codec::Json, body).expect("a request");
    assert_eq!((request.session.as_str(), request.node.as_str()), ("s1", "n1"));
    let commands = Codec::Json.decode_frame(&request.data, &Limits::default()).expect("a frame");
    assert_eq!(commands.iter().map(|command| command.id).collect::<Vec<_>>(), [2, 0]);
    assert_eq!(format!("{request:?}"), "EmulationRequest(node \"n1\", 32 bytes)");
    for bad in [&b""[..], b"[]x", b"{\"data\":{}}", b"{\"session\":1}", b"nonsense"] {
        assert_eq!(EmulationRequest::decode(Codec::Json, bad), Err(ErrorCode::BadRequest));
    }
}

#[test]
fn a_session_that_is_not_emulated_is_told_no_name() {
    let result = |session: Option<&str>, node: Option<&str>| ConnectResult {
        client: "C1".parse().expect("a client id"),
        ttl_s: None,
        ping_s: 25,
        pong: true,
        time_ms: 1,
        subs: BTreeMap::new(),
        refused: Vec::new(),
        session: session.map(|session| Token(session.into())),
        node: node.map(str::to_owned),
    };
    let line = |result| String::from_utf8(Codec::Json.encode(&Reply::Connect { id: 1, result })).expect("UTF-8");
    assert!(line(result(Some("s1"), Some("n1"))).contains(r#""pong":true,"session":"s1","node":"n1","time":1"#));
    assert!(line(result(None, None)).contains(r#""pong":true,"time":1"#));
    assert!(!format!("{:?}", result(Some("secret"), None)).contains("secret"));
}
