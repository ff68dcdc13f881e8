//! Any frames, times and answers to a session, in any order: it never panics, always closes once at most, and its
//! outputs come to an end.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use talewire_proto::codec::Codec;
use talewire_proto::grant::TokenVerdict;
use talewire_proto::namespace::Rule;
use talewire_proto::reply::SubscribeResult;
use talewire_proto::session::{Anonymous, Done, Now, Output, Session, SessionStart};
use talewire_proto::{CloseCode, ErrorCode, Grant, Kind, Limits, Namespace, Namespaces};

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Frame { protobuf: bool, bytes: &'a [u8] },
    Connect,
    Subscribe(u8),
    Publish(u8),
    Deadline,
    Verified(bool),
    Subscribed(bool),
    Role(bool),
    Done(bool),
    Close,
    Gone,
    Later(u16),
}

fn session() -> Session {
    let open = |kind| Namespace {
        kind,
        presence: true,
        join_leave: true,
        subscribe: Rule::Anyone,
        publish: Rule::Anyone,
        ..Namespace::default()
    };
    let kinds = [("chat", Kind::History), ("log", Kind::Durable), ("cursor", Kind::Signal)];
    let start = SessionStart {
        client: "C1".parse().expect("a client id"),
        login: None,
        anonymous: Anonymous::Insecure,
        limits: Arc::new(Limits::default()),
        namespaces: Namespaces::new(kinds.map(|(name, kind)| (name.to_owned(), open(kind)))),
        seed: 7,
        emulation: None,
    };
    Session::new(start, Now { mono_ms: 0, unix_ms: 0 })
}

fuzz_target!(|inputs: Vec<Input<'_>>| {
    let mut session = session();
    let (mut now, mut closes) = (Now { mono_ms: 0, unix_ms: 0 }, 0);
    for (id, input) in inputs.into_iter().enumerate() {
        let channel = |n: u8| ["chat:a", "log:a", "cursor:a", "nothing:a"][usize::from(n) % 4];
        let mut say = |text: String| session.handle_bytes(Codec::Json, text.as_bytes(), now);
        let id = id + 1;
        match input {
            Input::Frame { protobuf, bytes } => {
                session.handle_bytes(if protobuf { Codec::Protobuf } else { Codec::Json }, bytes, now);
            }
            Input::Connect => say(format!(r#"{{"id":{id},"connect":{{}}}}"#)),
            Input::Subscribe(n) => say(format!(r#"{{"id":{id},"subscribe":{{"channel":"{}"}}}}"#, channel(n))),
            Input::Publish(n) => {
                say(format!(r#"{{"id":{id},"publish":{{"channel":"{}","data":1}}}}"#, channel(n)));
            }
            Input::Deadline => session.handle_deadline(now),
            Input::Verified(true) => {
                let grant = Grant::named("ana".parse().expect("a user id"), "ana");
                session.handle_verified(TokenVerdict::Good(grant), now);
            }
            Input::Verified(false) => session.handle_verified(TokenVerdict::Bad, now),
            Input::Subscribed(true) => session.handle_subscribed(Ok(SubscribeResult::default()), now),
            Input::Subscribed(false) => session.handle_subscribed(Err(ErrorCode::Unavailable.into()), now),
            Input::Role(role) => session.handle_role(Ok(role), now),
            Input::Done(true) => session.handle_done(Ok(Done::Published), now),
            Input::Done(false) => session.handle_done(Err(ErrorCode::Unavailable.into()), now),
            Input::Close => session.handle_close(CloseCode::Slow),
            Input::Gone => session.handle_gone(),
            Input::Later(ms) => {
                now.mono_ms += u64::from(ms);
                now.unix_ms += i64::from(ms);
            }
        }
        let mut outputs = 0;
        while let Some(output) = session.poll_output() {
            closes += usize::from(matches!(output, Output::Close(_)));
            outputs += 1;
            assert!(outputs < 10_000, "outputs without end");
        }
    }
    assert!(closes <= 1, "closed {closes} times");
});
