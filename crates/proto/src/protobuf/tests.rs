//! Golden bytes of the Protobuf codec, and bytes that are none.
//!
//! The vectors are what the official JavaScript client (npm `centrifuge` 5.8.0, its Protobuf build) writes for these
//! commands, and what its own encoder makes of these replies.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::UnsubscribeCode;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("two digits")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn channel(name: &str) -> Channel {
    name.parse().expect("a channel")
}

fn json(text: &str) -> Payload {
    Payload::parse(text.as_bytes()).expect("JSON")
}

fn token(text: &str) -> Token {
    Token(text.into())
}

fn decode(hex: &str) -> Result<Vec<Command>, CloseCode> {
    decode_frame(&bytes(hex), &Limits::default())
}

/// The one command of a frame.
fn check(hex: &str, id: u32, body: Result<Body, ErrorCode>) {
    assert_eq!(decode(hex), Ok(vec![Command { id, body }]), "{hex}");
}

fn plain_subscribe() -> Subscribe {
    Subscribe {
        channel: channel("chat:9"),
        token: token(""),
        recover: None,
        must_recover: false,
        join_leave: false,
        filter: None,
    }
}

#[test]
fn the_clients_bytes_are_its_commands() {
    let position = |offset| Position { offset, epoch: Epoch::new("xyz") };
    // With data, headers and a flag, which mean nothing here.
    let connect = Connect { token: token("T1"), name: "js".into(), subs: Vec::new() };
    check("1a080122160a02543112027b7d22026a7332060a01611201623801", 1, Ok(Body::Connect(connect)));
    check("0408012200", 1, Ok(Body::Connect(Connect::default())));
    check("0e08022a0a0a06636861743a397001", 2, Ok(Body::Subscribe(plain_subscribe())));
    let recovering = Subscribe {
        token: token("S"),
        recover: Some(position(300)),
        must_recover: true,
        join_leave: true,
        ..plain_subscribe()
    };
    let hex = "2108032a1d0a06636861743a391201531801320378797a38ac024801500158017003";
    check(hex, 3, Ok(Body::Subscribe(recovering)));
    check("0c080432080a06636861743a39", 4, Ok(Body::Unsubscribe { channel: channel("chat:9") }));
    let publish = |data, key: &str| Publish { channel: channel("chat:9"), data: json(data), key: key.into() };
    let hex = "1b08053a170a06636861743a39120d7b2274657874223a226869227d";
    check(hex, 5, Ok(Body::Publish(publish(r#"{"text":"hi"}"#, ""))));
    check("1308053a0f0a06636861743a3912013122026b31", 5, Ok(Body::Publish(publish("1", "k1"))));
    check("0c080642080a06636861743a39", 6, Ok(Body::Presence { channel: channel("chat:9") }));
    check("0c08074a080a06636861743a39", 7, Ok(Body::PresenceStats { channel: channel("chat:9") }));
    let history = |limit, since, reverse| Body::History(History { channel: channel("chat:9"), limit, since, reverse });
    let hex = "220808521e0a06636861743a3938ffffffffffffffffff0142070807120378797a4801";
    check(hex, 8, Ok(history(-1, Some(position(7)), true)));
    check("0c080852080a06636861743a39", 8, Ok(history(0, None, false)));
    let hex = "14080852100a06636861743a39380a420408001200";
    check(hex, 8, Ok(history(10, Some(Position::default()), false)));
    check("0562030a0131", 0, Ok(Body::Send));
    let rpc = |data| Body::Rpc(Rpc { method: "story.get".into(), data: json(data) });
    check("18080a6a140a077b2261223a317d120973746f72792e676574", 10, Ok(rpc(r#"{"a":1}"#)));
    check("0f080a6a0b120973746f72792e676574", 10, Ok(rpc("{}")));
    check("08080b72040a025432", 11, Ok(Body::Refresh { token: token("T2") }));
    let sub_refresh = Body::SubRefresh { channel: channel("chat:9"), token: token("S2") };
    check("10080c7a0c0a06636861743a3912025332", 12, Ok(sub_refresh));
    check("00", 0, Ok(Body::Pong));
    check("020801", 1, Ok(Body::Pong));
}

#[test]
fn what_the_server_declines_is_declined_by_name() {
    let not_available = [
        "0e08032a0a0a06636861743a397801",                         // subscribe with type 1
        "1108033a0d0a06636861743a391201311801",                   // publish with type 1
        "1108033a0d0a06636861743a391201312801",                   // publish that removes a key
        "1a08037a160a06636861743a391801220a0a017312050a01611001", // sub_refresh that tracks keys
        "0408035a00",                                             // ping
    ];
    for hex in not_available {
        check(hex, 3, Err(ErrorCode::NotAvailable));
    }
    let bad = [
        "1a08032a160a06636861743a396a0c0a0012016b1a027878220176", // subscribe with a filter that compares by "xx"
        "0608032a020a00",                                         // an empty channel
        "0908032a050a03612062",                                   // the channel "a b"
        "0408032a00",                                             // no channel
        "0608032a020805",                                         // a channel that is a number
        "0708032a030a01ff",                                       // a channel that is not UTF-8
        "0608032a020a09",                                         // a channel longer than its message
        "1008033a0c0a06636861743a39120200ff",                     // publish with data that is not JSON
        "1108033a0d0a06636861743a391203312032",                   // publish with two JSON values
        "0c08033a080a06636861743a39",                             // publish without data
        "1208033a0e0a06636861743a3912046e756c6c",                 // publish of null, which is no data
        "0708036a030a017b",                                       // rpc with half an object
    ];
    for hex in bad {
        check(hex, 3, Err(ErrorCode::BadRequest));
    }
}

#[test]
fn several_messages_are_several_commands_and_several_bodies_one() {
    let batch = decode("04080122000e08022a0a0a06636861743a39700100").expect("a frame");
    let bodies = [Body::Connect(Connect::default()), Body::Subscribe(plain_subscribe()), Body::Pong];
    let expected = [1, 2, 0].into_iter().zip(bodies).map(|(id, body)| Command { id, body: Ok(body) });
    assert_eq!(batch, expected.collect::<Vec<_>>());
    // Subscribe stands before publish in the schema, in whatever order they come.
    for hex in ["0f08012a030a01623a060a0161120131", "0f3a060a01611201312a030a01620801"] {
        check(hex, 1, Ok(Body::Subscribe(Subscribe { channel: channel("b"), ..plain_subscribe() })));
    }
}

#[test]
fn frames_that_are_no_messages_close() {
    let hostile = [
        "",                               // nothing
        "05",                             // a length and no message
        "0508012200",                     // a length beyond the frame
        "0408012200ff",                   // something after the last message
        "040801220080",                   // a length without its end
        "8400080122008000",               // a length written longer than needed
        "8000",                           // zero, written longer than needed
        "ffffffff0f",                     // a length of four gigabytes
        "ffffffffffffffffff01",           // a length of 64 bits
        "8080808080808080808000",         // a length that never ends
        "0208",                           // an id without a value
        "030a0161",                       // an id that is text
        "0401010101",                     // fields of number 0
        "020b0c",                         // a group
        "0d08ffffffffffffffffffff7f2200", // a number of more than 64 bits
    ];
    for hex in hostile {
        assert_eq!(decode(hex), Err(CloseCode::BadRequest), "{hex}");
    }
    let limits = Limits { frame_commands_max: 3, ..Limits::default() };
    assert_eq!(decode_frame(&[0; 3], &limits).map(|commands| commands.len()), Ok(3));
    assert_eq!(decode_frame(&[0; 4], &limits), Err(CloseCode::BadRequest));
}

#[test]
fn data_as_deep_as_a_frame_does_no_harm() {
    let depth = 30_000;
    let data = [vec![b'['; depth], vec![b']'; depth]].concat();
    let line = [br#"{"id":1,"publish":{"channel":"a","data":"#, &data[..], b"}}"].concat();
    let publish = schema::PublishRequest { channel: "a".into(), data: data.into(), ..Default::default() };
    let publish = Some(publish.encode_to_vec().into());
    let frame = schema::Command { id: 1, publish, ..Default::default() }.encode_length_delimited_to_vec();
    let commands = decode_frame(&frame, &Limits::default());
    assert!(commands.is_ok());
    assert_eq!(commands, crate::json::decode_frame(&line, &Limits::default()));
}

/// Our bytes, with the version replaced by the one of the vectors.
fn encoded(reply: &Reply) -> String {
    let ours = encode(reply);
    let mut message = schema::Reply::decode_length_delimited(&ours[..]).expect("a reply");
    assert!(message.encode_length_delimited_to_vec() == ours);
    if let Some(connect) = &mut message.connect {
        assert_eq!(connect.version, VERSION);
        connect.version = "V".into();
    }
    if let Some(refresh) = &mut message.refresh {
        assert_eq!(refresh.version, VERSION);
        refresh.version = "V".into();
    }
    hex(&message.encode_length_delimited_to_vec())
}

#[test]
fn replies_are_the_bytes_that_the_client_knows() {
    let client = || "C1".parse::<ClientId>().expect("a client id");
    let info = Arc::new(ClientInfo {
        user: "ana".parse().expect("a user id"),
        client: Some(client()),
        conn_info: Some(json(r#"{"n":1}"#)),
        chan_info: None,
    });
    let publication = Publication {
        data: Some(json(r#"{"a":1}"#)),
        info: Some((*info).clone()),
        tags: BTreeMap::from([("k".into(), "v".into())]),
        time_ms: 1_800_000_000_000,
        trace: None,
    };
    let entries = || vec![Arc::new(Entry { offset: 7, publication: publication.clone() })];
    let position = |offset| Position { offset, epoch: Epoch::new("xyz") };
    let push = |push| Reply::Push { channel: channel("chat:9"), push };
    let connect = ConnectResult {
        client: client(),
        ttl_s: Some(300),
        ping_s: 25,
        pong: true,
        time_ms: 1_800_000_000_000,
        subs: BTreeMap::from([(channel("news"), SubscribeResult::default())]),
        refused: Vec::new(),
        session: Some(token("s1")),
        node: Some("n1".into()),
    };
    let subscribe = SubscribeResult {
        ttl_s: Some(60),
        position: Some(position(6)),
        was_recovering: true,
        recovered: true,
        entries: entries(),
        data: Some(json(r#"{"s":1}"#)),
    };
    let signal = Arc::new(Publication { data: Some(json("1")), ..Publication::default() });
    let vectors = [
        (
            Reply::Error { id: 2, code: ErrorCode::Internal, message: None },
            "1f0802121b08641215696e7465726e616c20736572766572206572726f721801",
        ),
        (
            Reply::Error { id: 2, code: ErrorCode::PermissionDenied, message: Some("no".into()) },
            "0a08021206086712026e6f",
        ),
        (
            Reply::Connect { id: 1, result: connect },
            "2d08012a290a024331120156180120ac0232080a046e6577731200381940014a02733152026e315880a0f1c2b134",
        ),
        (
            Reply::Subscribe { id: 2, result: subscribe },
            "500802324c0801103c1801320378797a3a2e22077b2261223a317d2a120a03616e61120243311a077b226e223a317d30073a060a01\
             6b1201764880a0f1c2b1344001480650015a077b2273223a317d6001",
        ),
        (Reply::Subscribe { id: 2, result: SubscribeResult::default() }, "0408023200"),
        (Reply::Unsubscribe { id: 3 }, "0408033a00"),
        (Reply::Publish { id: 4 }, "0408044200"),
        (
            Reply::Presence { id: 5, clients: vec![(client(), info.clone())] },
            "1e08054a1a0a180a02433112120a03616e61120243311a077b226e223a317d",
        ),
        (Reply::PresenceStats { id: 6, clients: 3, users: 2 }, "080806520408031002"),
        (
            Reply::History { id: 7, entries: entries(), top: position(7) },
            "3b08075a370a2e22077b2261223a317d2a120a03616e61120243311a077b226e223a317d30073a060a016b1201764880a0f1c2b134\
             120378797a1807",
        ),
        (Reply::Rpc { id: 8, data: json(r#"{"ok":true}"#) }, "1108086a0d0a0b7b226f6b223a747275657d"),
        (Reply::Refresh { id: 9, client: client(), ttl_s: Some(300) }, "100809720c0a024331120156180120ac02"),
        (Reply::SubRefresh { id: 10, ttl_s: Some(60) }, "08080a7a040801103c"),
        (Reply::Ping, "00"),
        (
            push(Push::Publication { offset: 7, publication: Arc::new(publication.clone()) }),
            "3a22381206636861743a39222e22077b2261223a317d2a120a03616e61120243311a077b226e223a317d30073a060a016b12017648\
             80a0f1c2b134",
        ),
        (push(Push::Publication { offset: 0, publication: signal }), "0f220d1206636861743a392203220131"),
        (push(Push::Join(info.clone())), "20221e1206636861743a392a140a120a03616e61120243311a077b226e223a317d"),
        (
            push(Push::Join(Arc::new(ClientInfo { chan_info: Some(json("[2]")), ..(*info).clone() }))),
            "2522231206636861743a392a190a170a03616e61120243311a077b226e223a317d22035b325d",
        ),
        (push(Push::Leave(info.clone())), "20221e1206636861743a3932140a120a03616e61120243311a077b226e223a317d"),
        (
            push(Push::Unsubscribe(UnsubscribeCode::InsufficientState)),
            "2322211206636861743a393a1710c4131a12696e73756666696369656e74207374617465",
        ),
    ];
    for (reply, vector) in vectors {
        assert_eq!(encoded(&reply), hex(&bytes(vector)), "{reply:?}");
    }
}

#[test]
fn an_erased_publication_is_an_empty_object() {
    let ours = encode_publication(&channel("a"), 3, &Publication::default());
    assert_eq!(hex(&ours), "0d220b120161220622027b7d3003");
}

#[test]
fn an_emulated_request_is_one_message_without_a_length() {
    let body = bytes("0a026e31120273311a0f0e08022a0a0a06636861743a397001");
    let request = decode_emulation(&body).expect("a request");
    assert_eq!((request.node.as_str(), request.session.as_str()), ("n1", "s1"));
    let command = Command { id: 2, body: Ok(Body::Subscribe(plain_subscribe())) };
    assert_eq!(decode_frame(&request.data, &Limits::default()), Ok(vec![command]));
    for bad in ["0a05", "0a01ff", "0801", "1aff"] {
        assert_eq!(decode_emulation(&bytes(bad)), Err(ErrorCode::BadRequest), "{bad}");
    }
}

proptest! {
    /// Fields at random with the right lengths around them get further into the codec than bytes at random.
    #[test]
    fn fields_at_random_never_panic(fields in prop::collection::vec((0u8..17, 0u8..8, prop::collection::vec(any::<u8>(), 0..24)), 0..8)) {
        let mut message = Vec::new();
        for (number, wire_type, value) in fields {
            prost::encoding::encode_varint(u64::from(number << 3 | wire_type), &mut message);
            if wire_type == 2 {
                message.push(u8::try_from(value.len()).expect("short"));
            }
            message.extend_from_slice(&value);
        }
        let mut frame = Vec::new();
        prost::encoding::encode_varint(message.len() as u64, &mut frame);
        frame.extend_from_slice(&message);
        let _ = decode_frame(&frame, &Limits::default());
        let _ = decode_emulation(&message);
        let one = schema::Command::decode(&message[..]).is_ok();
        prop_assert_eq!(decode_frame(&frame, &Limits::default()).is_ok(), one);
    }
}
