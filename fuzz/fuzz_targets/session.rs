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
use talewire_proto::session::{Anonymous, Done, Mode, Now, Output, Session, SessionStart};
use talewire_proto::command::Wanted;
use talewire_proto::{CloseCode, ErrorCode, Grant, Kind, Limits, Namespace, Namespaces, UnsubscribeCode};

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Frame { codec: u8, bytes: &'a [u8] },
    Wanted(u8),
    Dropped(u8),
    Busy,
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

fn session(mode: u8) -> Session {
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
        mode: [Mode::Duplex, Mode::Down, Mode::Events, Mode::Poll][usize::from(mode) % 4],
    };
    Session::new(start, Now { mono_ms: 0, unix_ms: 0 })
}

fuzz_target!(|input: (u8, Vec<Input<'_>>)| {
    let (mode, inputs) = input;
    let mut session = session(mode);
    let (mut now, mut closes) = (Now { mono_ms: 0, unix_ms: 0 }, 0);
    for (id, input) in inputs.into_iter().enumerate() {
        let channel = |n: u8| ["chat:a", "log:a", "cursor:a", "nothing:a"][usize::from(n) % 4];
        let mut say = |text: String| session.handle_bytes(Codec::Json, text.as_bytes(), now);
        let id = id + 1;
        match input {
            Input::Frame { codec, bytes } => {
                let codecs = [Codec::Json, Codec::Protobuf, Codec::JsonDown, Codec::ProtobufDown];
                session.handle_bytes(codecs[usize::from(codec) % 4], bytes, now);
            }
            Input::Wanted(n) => session.handle_wanted(Wanted::new(channel(n).parse().expect("a channel")), now),
            Input::Dropped(n) => {
                let channel = channel(n).parse().expect("a channel");
                session.handle_dropped(&channel, UnsubscribeCode::InsufficientState);
                session.handle_ready(now);
            }
            Input::Busy => session.handle_busy(now),
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
