//! Scripts of whole sessions, all run by one `check`.
//!
//! Lines: `>` the client sends, `<` it must get, `?` what the session must ask of others, `!` what is answered, `x` the
//! close code it must end with, `+` moves the clock. Every output must be named in its order; nothing may be left over.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::json;
use crate::namespace::Rule;
use crate::publication::{Entry, Epoch, Publication};
use crate::{Kind, UserId};

const START: Now = Now { mono_ms: 1_000, unix_ms: 1_800_000_000_000 };

fn namespaces() -> Namespaces {
    let chat = Namespace {
        kind: Kind::History,
        presence: true,
        join_leave: true,
        publish: Rule::Subscribers,
        publication_bytes_max: 40,
        ..Namespace::default()
    };
    let cursor = Namespace { kind: Kind::Signal, publish: Rule::Authenticated, ..Namespace::default() };
    let secret = Namespace { subscribe: Rule::Token, ..Namespace::default() };
    Namespaces::new([("chat".into(), chat), ("cursor".into(), cursor), ("secret".into(), secret)])
}

fn limits() -> Limits {
    Limits { subscriptions_max: 2, command_burst: 20, commands_per_second: 1, refusals_max: 3, ..Limits::default() }
}

struct Stage {
    session: Session,
    now: Now,
}

impl Stage {
    fn new(login: Option<&str>, anonymous: Anonymous) -> Self {
        Self::of(Mode::Duplex, login, anonymous)
    }

    fn of(mode: Mode, login: Option<&str>, anonymous: Anonymous) -> Self {
        let login = login.map(|name| Grant::named(name.parse().expect("a user id"), name));
        let start = SessionStart {
            client: "C1".parse().expect("a client id"),
            login,
            anonymous,
            limits: Arc::new(limits()),
            namespaces: namespaces(),
            seed: 0,
            emulation: None,
            mode,
        };
        Self { session: Session::new(start, START), now: START }
    }

    /// What comes out next, in the words of the scripts.
    fn next(&mut self) -> String {
        let Some(output) = self.session.poll_output() else { return "nothing".into() };
        match output {
            Output::Send(reply) => format!("< {}", String::from_utf8(json::encode(&reply)).expect("JSON is UTF-8")),
            Output::Verify(token) => format!("? verify {}", token.0),
            Output::VerifySubscription(token) => format!("? verify subscription {}", token.0),
            Output::AskRole { channel, role } => format!("? role {role:?} {channel}").to_lowercase(),
            Output::Subscribe(join) => {
                let at = |p: Position| format!("{} {}", p.offset, p.epoch.as_str());
                let from = match join.recover {
                    None => String::new(),
                    Some(Recover::After(position)) => format!(" from {}", at(position)),
                    Some(Recover::PagesAfter(position)) => format!(" in pages from {}", at(position)),
                    Some(Recover::PagesFromOldest) => " in pages".into(),
                };
                let told = if join.join_leave { " join_leave" } else { "" };
                let filtered = if join.filter.is_some() { " filtered" } else { "" };
                format!("? join {}{from}{told}{filtered}", join.channel)
            }
            Output::Unsubscribe { channel, .. } => format!("? leave {channel}"),
            Output::SetFilter { channel, filter } => {
                format!("? filter {channel} {}", if filter.is_some() { "some" } else { "all" })
            }
            Output::Perform(Task::Publish { channel, data, info, key, .. }) => {
                let data = String::from_utf8_lossy(data.as_bytes()).into_owned();
                let key = key.map(|key| format!(" key {key}")).unwrap_or_default();
                format!("? publish {channel} {data} by {}{key}", info.user)
            }
            Output::Perform(Task::History { request, .. }) => {
                format!("? history {} limit {}", request.channel, request.limit)
            }
            Output::Perform(Task::Presence(channel)) => format!("? presence {channel}"),
            Output::Perform(Task::PresenceStats(channel)) => format!("? presence stats {channel}"),
            Output::Perform(Task::Rpc(rpc)) => {
                format!("? call {} {}", rpc.method, String::from_utf8_lossy(rpc.data.as_bytes()))
            }
            Output::Close(code) => format!("x {}", code.code()),
        }
    }

    fn answer(&mut self, words: &[&str]) {
        let now = self.now;
        let expires = |words: &[&str]| {
            let in_s =
                words.iter().find_map(|word| word.strip_prefix("exp=")).map(|s| s.parse::<i64>().expect("seconds"));
            in_s.map(|s| now.unix_ms + s * 1_000)
        };
        match words {
            ["user", user, rest @ ..] => {
                let user: UserId = user.parse().expect("a user id");
                let named = rest.iter().filter_map(|word| word.strip_prefix("channel="));
                let channels = named.map(|name| name.parse().expect("a channel")).collect();
                let named = Grant::named(user.clone(), user.as_str());
                let grant = Grant { expires_at_ms: expires(rest), channels, ..named };
                self.session.handle_verified(TokenVerdict::Good(grant), now);
            }
            ["bad"] => self.session.handle_verified(TokenVerdict::Bad, now),
            ["expired"] => self.session.handle_verified(TokenVerdict::Expired, now),
            ["unknown"] => self.session.handle_verified(TokenVerdict::Unknown, now),
            ["may", user, channel, rest @ ..] => {
                let grant = SubscriptionGrant {
                    user: user.parse().expect("a user id"),
                    channel: channel.parse().expect("a channel"),
                    info: None,
                    expires_at_ms: expires(rest),
                };
                self.session.handle_subscription_verified(TokenVerdict::Good(grant), now);
            }
            ["may-not"] => self.session.handle_subscription_verified(TokenVerdict::Bad, now),
            ["may-no-longer"] => self.session.handle_subscription_verified(TokenVerdict::Expired, now),
            ["role", has] => self.session.handle_role(Ok(*has == "yes"), now),
            ["joined"] => self.session.handle_subscribed(Ok(SubscribeResult::default()), now),
            ["joined", offset, rest @ ..] => {
                let position = Position { offset: offset.parse().expect("an offset"), epoch: Epoch::new("E") };
                let missed = rest.iter().filter(|word| word.starts_with('"')).enumerate().map(|(i, data)| {
                    let data = Payload::parse(data.as_bytes()).expect("JSON");
                    let publication = Publication { data: Some(data), ..Publication::default() };
                    Arc::new(Entry { offset: position.offset + 1 + i as u64, publication })
                });
                let result = SubscribeResult {
                    entries: missed.collect(),
                    was_recovering: !rest.is_empty(),
                    recovered: rest.first() == Some(&"recovered"),
                    position: Some(position.clone()),
                    ..SubscribeResult::default()
                };
                self.session.handle_subscribed(Ok(result), now);
            }
            ["wanted", channel] => {
                let wanted = Wanted::new(channel.parse().expect("a channel"));
                self.session.handle_wanted(wanted, now);
            }
            ["subscribed-by-server", channel, info, data] => {
                let json = |text: &str| Some(Payload::parse(text.as_bytes()).expect("JSON"));
                let wanted = Wanted::new(channel.parse().expect("a channel"));
                self.session.handle_wanted(Wanted { info: json(info), data: json(data), ..wanted }, now);
            }
            ["lasting", seconds] => {
                let lasting = seconds.parse().ok().map(|seconds: i64| now.unix_ms + seconds * 1_000);
                self.session.handle_lasting(lasting, now);
            }
            ["message", json] => {
                self.session.handle_message(Payload::parse(json.as_bytes()).expect("JSON"));
            }
            ["busy"] => self.session.handle_busy(now),
            ["unavailable"] => self.session.handle_subscribed(Err(ErrorCode::Unavailable.into()), now),
            ["published"] => self.session.handle_done(Ok(Done::Published), now),
            ["result", json] => {
                let data = Payload::parse(json.as_bytes()).expect("JSON");
                self.session.handle_done(Ok(Done::Rpc(data)), now);
            }
            ["refused", sentence] => {
                let message = Some((*sentence).to_owned());
                self.session.handle_done(Err(Refused { code: ErrorCode::NotFound, message }), now);
            }
            ["dropped", channel] => {
                let channel = channel.parse().expect("a channel");
                self.session.handle_dropped(&channel, UnsubscribeCode::InsufficientState);
                self.session.handle_ready(now);
            }
            ["unsubscribed", channel] => {
                self.session.handle_dropped(&channel.parse().expect("a channel"), UnsubscribeCode::Server);
                self.session.handle_ready(now);
            }
            ["gone"] => self.session.handle_gone(),
            ["close"] => self.session.handle_close(CloseCode::Shutdown),
            other => panic!("no such answer: {other:?}"),
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += i64::try_from(ms).expect("a short wait");
        if self.session.poll_deadline().is_some_and(|at| at <= self.now.mono_ms) {
            self.session.handle_deadline(self.now);
        }
    }

    fn run(&mut self, script: &str) {
        for (number, line) in script.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
            let (kind, rest) = line.split_at(1);
            let rest = rest.trim();
            match kind {
                ">" => self.session.handle_frame(rest.replace('|', "\n").as_bytes(), self.now),
                "!" => self.answer(&rest.split_whitespace().collect::<Vec<_>>()),
                "+" => self.wait(rest.trim_end_matches("ms").parse().expect("milliseconds")),
                "<" | "?" | "x" => assert_eq!(self.next(), line, "line {number} of the script"),
                _ => panic!("no such line: {line}"),
            }
        }
        assert_eq!(self.next(), "nothing", "after the script");
    }
}

const CONNECTED: &str = r#"
    > {"id":1,"connect":{"token":"T"}}
    ? verify T
    ! user ana
    < {"id":1,"connect":{"client":"C1","version":"talewire 0.1.0","ping":25,"pong":true,"time":1800000000000}}
"#;

/// A session with a token for `ana`, then the script.
fn check(script: &str) {
    let mut stage = Stage::new(None, Anonymous::Refused);
    stage.run(CONNECTED);
    stage.run(script);
}

/// A session on which nothing was said yet.
fn check_new(login: Option<&str>, anonymous: Anonymous, script: &str) {
    Stage::new(login, anonymous).run(script);
}

#[test]
fn who_one_is_must_be_shown() {
    check_new(
        None,
        Anonymous::Refused,
        "
        > {\"id\":1,\"connect\":{}}
        < {\"id\":1,\"error\":{\"code\":101,\"message\":\"unauthorized\"}}
        x 3507",
    );
    check_new(None, Anonymous::Refused, "> {\"id\":1,\"connect\":{\"token\":\"T\"}}\n? verify T\n! bad\nx 3500");
    check_new(
        None,
        Anonymous::Refused,
        "
        > {\"id\":1,\"connect\":{\"token\":\"T\"}}|{\"id\":2,\"rpc\":{\"method\":\"m\"}}
        ? verify T
        ! expired
        < {\"id\":1,\"error\":{\"code\":109,\"message\":\"token expired\"}}
        x 3000",
    );
    let later =
        "< {\"id\":1,\"error\":{\"code\":503,\"message\":\"temporarily unavailable\",\"temporary\":true}}\nx 4000";
    let asked = "> {\"id\":1,\"connect\":{\"token\":\"T\"}}\n? verify T\n! unknown\n";
    check_new(None, Anonymous::Refused, &format!("{asked}{later}"));
    check_new(None, Anonymous::Refused, "+ 9999ms\n+ 1ms\nx 3502");
}

#[test]
fn a_login_cookie_or_the_development_flag_needs_no_token() {
    let connected =
        r#"{"id":1,"connect":{"client":"C1","version":"talewire 0.1.0","ping":25,"pong":true,"time":1800000000000}}"#;
    check_new(Some("ana"), Anonymous::Refused, &format!("> {{\"id\":1,\"connect\":{{}}}}\n< {connected}"));
    check_new(None, Anonymous::Insecure, &format!("> {{\"id\":1,\"connect\":{{}}}}\n< {connected}"));
    let refused = r#"> {"id":2,"subscribe":{"channel":"chat:1"}}
        < {"id":2,"error":{"code":103,"message":"permission denied"}}"#;
    check_new(None, Anonymous::Allowed, &format!("> {{\"id\":1,\"connect\":{{}}}}\n< {connected}\n{refused}"));
}

#[test]
fn an_emulated_session_is_told_its_name_and_may_speak_protobuf() {
    let start = SessionStart {
        client: "C1".parse().expect("a client id"),
        login: Some(Grant::named("ana".parse().expect("a user id"), "ana")),
        anonymous: Anonymous::Refused,
        limits: Arc::new(limits()),
        namespaces: namespaces(),
        seed: 0,
        emulation: Some(("S1".into(), "N1".into())),
        mode: Mode::Duplex,
    };
    let mut session = Session::new(start, START);
    session.handle_bytes(Codec::Protobuf, &[4, 8, 1, 0x22, 0], START);
    let Some(Output::Send(Reply::Connect { id: 1, result })) = session.poll_output() else { panic!("no answer") };
    assert_eq!((result.session, result.node), (Some(Token("S1".into())), Some("N1".into())));
    session.handle_bytes(Codec::Protobuf, b"{}", START);
    assert_eq!(session.poll_output(), Some(Output::Close(CloseCode::BadRequest)));
}

#[test]
fn the_first_command_is_connect_and_comes_once() {
    for frame in [
        r#"{"id":1,"subscribe":{"channel":"chat:1"}}"#,
        r#"{"id":0,"connect":{}}"#,
        r#"{"connect":{}}"#,
        "{}",
        "",
        "[]",
        "nonsense",
        r#"{"id":1}"#,
        r#"{"id":-1,"connect":{}}"#,
        r#"{"id":"x","connect":{}}"#,
    ] {
        check_new(Some("ana"), Anonymous::Refused, &format!("> {frame}\nx 3501"));
    }
    check("> {\"id\":2,\"connect\":{}}\nx 3501");
    check("> {\"send\":{\"data\":1}}\nx 3508");
}

#[test]
fn commands_behind_connect_wait_for_it() {
    check_new(
        None,
        Anonymous::Refused,
        r#"
        > {"id":1,"connect":{"token":"T"}}|{"id":2,"subscribe":{"channel":"chat:1"}}|{"id":3,"rpc":{"method":"m","data":{"a":1}}}
        ? verify T
        ! user ana
        < {"id":1,"connect":{"client":"C1","version":"talewire 0.1.0","ping":25,"pong":true,"time":1800000000000}}
        ? join chat:1
        ! joined 7
        < {"id":2,"subscribe":{"recoverable":true,"epoch":"E","offset":7,"positioned":true}}
        ? call m {"a":1}
        ! result {"b":2}
        < {"id":3,"rpc":{"data":{"b":2}}}"#,
    );
}

#[test]
fn a_reader_cannot_publish() {
    check(
        r#"
        > {"id":2,"publish":{"channel":"chat:9","data":{"text":"hi"}}}
        < {"id":2,"error":{"code":103,"message":"permission denied"}}
        > {"id":3,"subscribe":{"channel":"chat:9"}}
        ? join chat:9
        ! joined
        < {"id":3,"subscribe":{}}
        > {"id":4,"publish":{"channel":"chat:9","data":{"text":"hi"},"key":"k1"}}
        ? publish chat:9 {"text":"hi"} by ana key k1
        ! published
        < {"id":4,"publish":{}}"#,
    );
}

#[test]
fn a_storys_channels_ask_for_the_role_and_are_never_written_by_clients() {
    check(
        r#"
        > {"id":2,"publish":{"channel":"story:s1","data":1}}
        < {"id":2,"error":{"code":103,"message":"permission denied"}}
        > {"id":3,"subscribe":{"channel":"story:s1"}}
        ? role member story:s1
        ! role no
        < {"id":3,"error":{"code":103,"message":"permission denied"}}
        > {"id":4,"subscribe":{"channel":"story:s1","recover":true,"offset":4,"epoch":"E","join_leave":true}}
        ? role member story:s1
        ! role yes
        ? join story:s1 from 4 E join_leave
        ! joined 4 recovered "five" "six"
        < {"id":4,"subscribe":{"recoverable":true,"epoch":"E","publications":[{"data":"five","offset":5},{"data":"six","offset":6}],"recovered":true,"offset":4,"positioned":true,"was_recovering":true}}
        > {"id":5,"publish":{"channel":"typing:s1","data":{"typing":true}}}
        ? role writer typing:s1
        ! role yes
        ? publish typing:s1 {"typing":true} by ana
        ! published
        < {"id":5,"publish":{}}
        > {"id":6,"publish":{"channel":"generation:s1.g1","data":1}}
        < {"id":6,"error":{"code":103,"message":"permission denied"}}
        > {"id":7,"history":{"channel":"typing:s1"}}
        < {"id":7,"error":{"code":108,"message":"not available"}}"#,
    );
}

#[test]
fn wrong_fields_cost_an_error_and_nothing_else() {
    check(
        r#"
        > {"id":2,"subscribe":{"channel":7}}|{"id":3,"subscribe":{"channel":"a b"}}|{"id":4,"subscribe":{"channel":"chat:1","type":1}}
        < {"id":2,"error":{"code":107,"message":"bad request"}}
        < {"id":3,"error":{"code":107,"message":"bad request"}}
        < {"id":4,"error":{"code":108,"message":"not available"}}
        > {"id":5,"subscribe":{"channel":"chat:1","tf":{"key":"a"}}}|{"id":6,"publish":{"channel":"chat:1"}}|{"id":7,"ping":{}}
        < {"id":5,"error":{"code":107,"message":"bad request"}}
        < {"id":6,"error":{"code":107,"message":"bad request"}}
        < {"id":7,"error":{"code":108,"message":"not available"}}
        > {"id":8,"subscribe":{"channel":"nowhere:1"}}|{"id":9,"unsubscribe":{"channel":"chat:1"}}
        < {"id":8,"error":{"code":102,"message":"unknown channel"}}
        < {"id":9,"unsubscribe":{}}"#,
    );
}

#[test]
fn limits_are_told() {
    check(
        r#"
        > {"id":2,"subscribe":{"channel":"chat:1"}}
        ? join chat:1
        ! joined
        < {"id":2,"subscribe":{}}
        > {"id":3,"subscribe":{"channel":"chat:1"}}|{"id":4,"subscribe":{"channel":"chat:2"}}
        < {"id":3,"error":{"code":105,"message":"already subscribed"}}
        ? join chat:2
        ! unavailable
        < {"id":4,"error":{"code":503,"message":"temporarily unavailable","temporary":true}}
        > {"id":5,"subscribe":{"channel":"chat:2"}}
        ? join chat:2
        ! joined
        < {"id":5,"subscribe":{}}
        > {"id":6,"subscribe":{"channel":"chat:3"}}
        < {"id":6,"error":{"code":106,"message":"limit exceeded"}}
        > {"id":7,"publish":{"channel":"chat:1","data":"0123456789012345678901234567890123456789"}}
        < {"id":7,"error":{"code":106,"message":"limit exceeded"}}"#,
    );
}

#[test]
fn a_flood_is_refused_and_then_closed() {
    let calls: String =
        (2..=25).map(|id| format!("|{{\"id\":{id},\"unsubscribe\":{{\"channel\":\"chat:1\"}}}}")).collect();
    let mut stage = Stage::new(None, Anonymous::Refused);
    stage.run(CONNECTED);
    stage.session.handle_frame(calls.replace('|', "\n").as_bytes(), stage.now);
    let all: Vec<String> = std::iter::from_fn(|| Some(stage.next()).filter(|next| next != "nothing")).collect();
    let refused =
        all.iter().filter(|line| line.contains("\"code\":111,\"message\":\"too many requests\",\"temporary\":true"));
    assert_eq!(refused.count(), 3);
    assert_eq!(all.last().map(String::as_str), Some("x 3013"));
}

#[test]
fn a_subscription_token_is_for_one_user_and_one_channel() {
    check(
        r#"
        > {"id":2,"subscribe":{"channel":"secret:1"}}
        < {"id":2,"error":{"code":103,"message":"permission denied"}}
        > {"id":3,"subscribe":{"channel":"secret:1","token":"S"}}
        ? verify subscription S
        ! may-not
        < {"id":3,"error":{"code":103,"message":"permission denied"}}
        > {"id":4,"subscribe":{"channel":"secret:1","token":"S"}}
        ? verify subscription S
        ! may-no-longer
        < {"id":4,"error":{"code":109,"message":"token expired"}}
        > {"id":5,"subscribe":{"channel":"secret:1","token":"S"}}
        ? verify subscription S
        ! may ana secret:2
        x 3500"#,
    );
    check(
        r#"
        > {"id":2,"subscribe":{"channel":"secret:1","token":"S"}}
        ? verify subscription S
        ! may ben secret:1
        x 3500"#,
    );
}

#[test]
fn a_subscription_ends_with_its_token_unless_refreshed() {
    check(
        r#"
        > {"id":2,"subscribe":{"channel":"secret:1","token":"S"}}
        ? verify subscription S
        ! may ana secret:1 exp=10
        ? join secret:1
        ! joined 0
        < {"id":2,"subscribe":{"expires":true,"ttl":10,"recoverable":true,"epoch":"E","positioned":true}}
        + 9000ms
        > {"id":3,"sub_refresh":{"channel":"secret:1","token":"S2"}}
        ? verify subscription S2
        ! may ana secret:1 exp=1
        < {"id":3,"sub_refresh":{"expires":true,"ttl":1}}
        + 16000ms
        < {}
        > {}
        + 9999ms
        + 1ms
        ? leave secret:1
        < {"push":{"channel":"secret:1","unsubscribe":{"code":2501,"reason":"expired"}}}
        > {"id":4,"sub_refresh":{"channel":"secret:1","token":"S3"}}
        < {"id":4,"error":{"code":103,"message":"permission denied"}}"#,
    );
}

#[test]
fn a_connection_ends_with_its_token_unless_refreshed() {
    let connected = r#"< {"id":1,"connect":{"client":"C1","version":"talewire 0.1.0","expires":true,"ttl":10,"ping":25,"pong":true,"time":1800000000000}}"#;
    let begin = format!("> {{\"id\":1,\"connect\":{{\"token\":\"T\"}}}}\n? verify T\n! user ana exp=10\n{connected}\n");
    let new = |script: &str| check_new(None, Anonymous::Refused, &(begin.clone() + script));
    new("+ 25000ms\n< {}\n> {}\n+ 9999ms\n+ 1ms\nx 3005");
    new(r#"
        > {"id":2,"refresh":{"token":"T2"}}
        ? verify T2
        ! user ana exp=60
        < {"id":2,"refresh":{"client":"C1","version":"talewire 0.1.0","expires":true,"ttl":60}}
        + 25000ms
        < {}
        > {}
        + 10000ms"#);
    new("> {\"id\":2,\"refresh\":{\"token\":\"T2\"}}\n? verify T2\n! user ben exp=60\nx 3500");
    new("> {\"id\":2,\"refresh\":{\"token\":\"T2\"}}\n? verify T2\n! expired\nx 3005");
    new("> {\"id\":2,\"refresh\":{\"token\":\"T2\"}}\n? verify T2\n! bad\nx 3500");
    new(r#"
        > {"id":2,"refresh":{"token":"T2"}}
        ? verify T2
        ! unknown
        < {"id":2,"error":{"code":503,"message":"temporarily unavailable","temporary":true}}"#);
}

#[test]
fn pings_find_the_dead() {
    check("+ 24999ms\n+ 1ms\n< {}\n+ 7999ms\n> {}\n+ 17000ms\n+ 1ms\n< {}\n+ 8000ms\nx 3012");
    check("> {}\nx 3501");
    check("+ 25000ms\n< {}\n> {}|{}\nx 3501");
}

#[test]
fn a_slow_command_does_not_look_like_a_dead_peer() {
    check(
        r#"
        > {"id":2,"rpc":{"method":"slow"}}
        ? call slow {}
        + 25000ms
        < {}
        > {}
        + 8000ms
        ! result 1
        < {"id":2,"rpc":{"data":1}}"#,
    );
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    check(
        r#"
        > {"id":2,"subscribe":{"channel":"chat:1"}}
        ? join chat:1
        ! published
        ! joined 9
        < {"id":2,"subscribe":{"recoverable":true,"epoch":"E","offset":9,"positioned":true}}"#,
    );
}

#[test]
fn what_is_taken_away_while_it_is_made_ends_when_it_is_made() {
    check(
        r#"
        > {"id":2,"subscribe":{"channel":"chat:1"}}|{"id":3,"subscribe":{"channel":"chat:2"}}
        ? join chat:1
        ! unsubscribed chat:1
        ! unsubscribed chat:3
        ! joined 9
        < {"id":2,"subscribe":{"recoverable":true,"epoch":"E","offset":9,"positioned":true}}
        ? leave chat:1
        < {"push":{"channel":"chat:1","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}
        ? join chat:2
        ! unsubscribed chat:2
        ! unavailable
        < {"id":3,"error":{"code":503,"message":"temporarily unavailable","temporary":true}}
        ! wanted chat:2
        ? join chat:2
        ! wanted chat:1
        ! unsubscribed chat:1
        ! joined 4
        < {"push":{"channel":"chat:2","subscribe":{"recoverable":true,"epoch":"E","offset":4,"positioned":true}}}"#,
    );
}

#[test]
fn what_cannot_be_recovered_is_told_or_refused_as_asked() {
    check(
        r#"
        > {"id":2,"subscribe":{"channel":"chat:1","recover":true,"offset":3,"epoch":"OLD"}}
        ? join chat:1 from 3 OLD
        ! joined 9 lost
        < {"id":2,"subscribe":{"recoverable":true,"epoch":"E","offset":9,"positioned":true,"was_recovering":true}}
        > {"id":3,"subscribe":{"channel":"chat:2","recover":true,"offset":3,"epoch":"OLD","flag":2}}
        ? join chat:2 from 3 OLD
        ! joined 9 lost
        ? leave chat:2
        < {"id":3,"error":{"code":112,"message":"unrecoverable position"}}
        ! dropped chat:1
        ? leave chat:1
        < {"push":{"channel":"chat:1","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#,
    );
}

#[test]
fn a_use_cases_refusal_reaches_the_client_with_its_sentence() {
    check(
        r#"
        > {"id":2,"rpc":{"method":"story.open","data":{"story":"x"}}}
        ? call story.open {"story":"x"}
        ! refused no-such-story
        < {"id":2,"error":{"code":404,"message":"no-such-story"}}"#,
    );
}

#[test]
fn history_is_cut_to_what_the_server_gives() {
    check(
        r#"
        > {"id":2,"subscribe":{"channel":"chat:1"}}
        ? join chat:1
        ! joined
        < {"id":2,"subscribe":{}}
        > {"id":3,"history":{"channel":"chat:1","limit":-1}}
        ? history chat:1 limit 300
        ! published
        < {"id":3,"publish":{}}
        > {"id":4,"history":{"channel":"chat:1","limit":100000}}
        ? history chat:1 limit 300
        ! gone
        ? leave chat:1"#,
    );
}

#[test]
fn whoever_leaves_leaves_every_channel() {
    let joined = r#"
        > {"id":2,"subscribe":{"channel":"chat:1"}}
        ? join chat:1
        ! joined
        < {"id":2,"subscribe":{}}"#;
    check(&format!("{joined}\n! gone\n? leave chat:1"));
    check(&format!("{joined}\n! close\n? leave chat:1\nx 3001"));
    check(&format!("{joined}\n> nonsense\n? leave chat:1\nx 3501"));
}

#[test]
fn presence_is_only_for_channels_that_have_it() {
    check(
        r#"
        > {"id":2,"presence":{"channel":"chat:1"}}
        < {"id":2,"error":{"code":103,"message":"permission denied"}}
        > {"id":3,"presence":{"channel":"cursor:1"}}
        < {"id":3,"error":{"code":108,"message":"not available"}}"#,
    );
}

#[test]
fn info_of_others_is_written_as_the_protocol_has_it() {
    let info = ClientInfo {
        user: "ana".parse().expect("a user id"),
        client: Some("C2".parse().expect("a client id")),
        conn_info: Some(Payload::of(&BTreeMap::from([("name", "Ana")]))),
        chan_info: None,
    };
    let publication = Publication { data: Some(Payload::of(&1)), info: Some(info), ..Publication::default() };
    let channel: Channel = "chat:1".parse().expect("a channel");
    let line = json::encode_publication(&channel, 5, &publication);
    assert_eq!(
        String::from_utf8(line).expect("UTF-8"),
        r#"{"push":{"channel":"chat:1","pub":{"data":1,"offset":5,"info":{"user":"ana","client":"C2","conn_info":{"name":"Ana"}}}}}"#
    );
}

mod hostile {
    use proptest::prelude::*;

    use super::*;

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(r#"{"id":1,"connect":{"token":"T"}}"#.to_owned()),
            Just("{}".to_owned()),
            (1u32..9, 0..4)
                .prop_map(|(id, n)| format!(r#"{{"id":{id},"subscribe":{{"channel":"chat:{n}","recover":true}}}}"#)),
            (1u32..9, 0..4).prop_map(|(id, n)| format!(r#"{{"id":{id},"unsubscribe":{{"channel":"chat:{n}"}}}}"#)),
            (1u32..9, 0..4)
                .prop_map(|(id, n)| format!(r#"{{"id":{id},"publish":{{"channel":"chat:{n}","data":{n}}}}}"#)),
            (1u32..9).prop_map(|id| format!(r#"{{"id":{id},"rpc":{{"method":"m"}}}}"#)),
            (1u32..9).prop_map(|id| format!(r#"{{"id":{id},"refresh":{{"token":"T"}}}}"#)),
            (1u32..9).prop_map(|id| format!(r#"{{"id":{id},"sub_refresh":{{"channel":"chat:1","token":"T"}}}}"#)),
            ".{0,40}",
        ]
    }

    #[derive(Debug, Clone)]
    enum Step {
        Frame(String),
        Answer(u8),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop::collection::vec(piece(), 1..4).prop_map(|pieces| Step::Frame(pieces.join("\n"))),
            4 => (0u8..13).prop_map(Step::Answer),
            1 => (0u64..40_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Whatever comes in whatever order: no panic, every joined channel is left once, nothing after a close.
        #[test]
        fn any_order_of_anything_is_survived(steps in prop::collection::vec(step(), 1..60)) {
            let mut stage = Stage::new(None, Anonymous::Refused);
            let (mut joins, mut leaves, mut failed, mut closed) = (0i32, 0i32, 0i32, false);
            for step in steps {
                match step {
                    Step::Frame(frame) => stage.session.handle_frame(frame.as_bytes(), stage.now),
                    Step::Wait(ms) => stage.wait(ms),
                    Step::Answer(which) => {
                        let joining = matches!(stage.session.current.as_deref(), Some(Current { step: super::super::Step::Joining(..), .. }));
                        let answer: &[&str] = match which {
                            0 => &["user", "ana"], 1 => &["user", "ana", "exp=5"], 2 => &["bad"], 3 => &["expired"],
                            4 => &["may", "ana", "chat:1"], 5 => &["role", "yes"], 6 => &["joined", "4"],
                            7 => &["unavailable"], 8 => &["published"], 9 => &["dropped", "chat:1"],
                            10 => &["result", "1"], 11 => &["unknown"], _ => &["may-not"],
                        };
                        failed += i32::from(joining && which == 7);
                        stage.answer(answer);
                    }
                }
                while let Some(output) = stage.session.poll_output() {
                    prop_assert!(!closed, "{output:?} after the close");
                    match output {
                        Output::Subscribe(_) => joins += 1,
                        Output::Unsubscribe { .. } => leaves += 1,
                        Output::Close(_) => closed = true,
                        _ => {}
                    }
                }
            }
            let unanswered = i32::from(matches!(stage.session.current.as_deref(), Some(Current { step: super::super::Step::Joining(..), .. })));
            stage.session.handle_gone();
            while let Some(output) = stage.session.poll_output() {
                leaves += i32::from(matches!(output, Output::Unsubscribe { .. }));
            }
            // A join that was under way when the session closed is the driver's to undo.
            prop_assert!(joins - failed - leaves == unanswered || (closed && joins - failed - leaves <= 1));
        }
    }
}

/// A reader whose connection flows one way, known by its login.
fn check_down(mode: Mode, script: &str) {
    Stage::of(mode, Some("ana"), Anonymous::Refused).run(script);
}

#[test]
fn a_token_names_channels_that_the_connection_begins_with() {
    check_new(
        None,
        Anonymous::Refused,
        r#"
        > {"id":1,"connect":{"token":"T","subs":{"chat:2":{"recover":true,"offset":7,"epoch":"E"},"cursor:9":{}}}}|{"id":2,"rpc":{"method":"m"}}
        ? verify T
        ! user ana channel=chat:1 channel=chat:2
        ? join chat:1
        ! joined 3
        ? join chat:2 from 7 E
        ! joined 7 recovered "8"
        < {"id":1,"connect":{"client":"C1","version":"talewire 0.1.0","subs":{"chat:1":{"recoverable":true,"epoch":"E","offset":3,"positioned":true},"chat:2":{"recoverable":true,"epoch":"E","publications":[{"data":"8","offset":8}],"recovered":true,"offset":7,"positioned":true,"was_recovering":true}},"ping":25,"pong":true,"time":1800000000000}}
        ? call m {}
        ! result 1
        < {"id":2,"rpc":{"data":1}}
        > {"id":3,"subscribe":{"channel":"chat:1"}}
        < {"id":3,"error":{"code":105,"message":"already subscribed"}}
        ! dropped chat:1
        ? leave chat:1
        ? leave chat:2
        x 3010"#,
    );
}

#[test]
fn a_token_with_a_channel_that_is_not_there_connects_nobody() {
    check_new(
        None,
        Anonymous::Refused,
        r#"
        > {"id":1,"connect":{"token":"T"}}
        ? verify T
        ! user ana channel=nowhere:1
        < {"id":1,"error":{"code":102,"message":"unknown channel"}}
        x 3501"#,
    );
    check_new(
        None,
        Anonymous::Refused,
        r#"
        > {"id":1,"connect":{"token":"T"}}
        ? verify T
        ! user ana channel=chat:1 channel=chat:2 channel=chat:3
        x 3505"#,
    );
}

#[test]
fn who_cannot_ask_later_asks_with_the_connection() {
    check_down(
        Mode::Down,
        r#"
        > {"id":1,"connect":{"subs":{"chat:1":{"join_leave":true,"tf":{"key":"a","cmp":"ex"}},"nowhere:1":{}}}}
        ? join chat:1 join_leave filtered
        ! joined 3
        ? leave chat:1
        x 3501"#,
    );
    check_down(Mode::Down, "> {\"id\":1,\"connect\":{\"subs\":{\"secret:1\":{}}}}\nx 3507");
    check_down(
        Mode::Down,
        r#"
        > {"id":1,"connect":{"subs":{"story:018f9n5exzfch6m6w1hkwsc13j":{}}}}
        ? role member story:018f9n5exzfch6m6w1hkwsc13j
        ! role no
        x 3507"#,
    );
    check_down(
        Mode::Poll,
        r#"
        > {"id":1,"connect":{"subs":{"cursor:1":{},"secret:1":{}}}}
        ? join cursor:1
        ! joined
        < {"id":1,"connect":{"client":"C1","version":"talewire 0.1.0","subs":{"cursor:1":{}},"ping":0,"pong":false,"time":1800000000000}}
        + 99999999ms"#,
    );
}

#[test]
fn a_reader_of_events_is_told_of_a_gap_and_goes_on() {
    check_down(
        Mode::Events,
        r#"
        > {"id":1,"connect":{"subs":{"chat:1":{"recover":true,"offset":2,"epoch":"E","tf":{"key":"a","cmp":"ex"}}}}}|{"id":2,"subscribe":{"channel":"chat:2"}}
        ? join chat:1 from 2 E filtered
        ! joined 2 recovered
        < {"id":1,"connect":{"client":"C1","version":"talewire 0.1.0","subs":{"chat:1":{"recoverable":true,"epoch":"E","recovered":true,"offset":2,"positioned":true,"was_recovering":true}},"ping":0,"pong":false,"time":1800000000000}}
        < {"id":2,"error":{"code":108,"message":"not available"}}
        ! dropped chat:1
        ? leave chat:1
        ? join chat:1 filtered
        ! joined 9
        < {"push":{"channel":"chat:1","gap":{"offset":9,"epoch":"E"}}}
        ! dropped chat:1
        ? leave chat:1
        ? join chat:1 filtered
        ! unavailable
        x 3010"#,
    );
}

#[test]
fn comments_come_later_while_events_flow() {
    let connect = "> {\"id\":1,\"connect\":{}}\n< {\"id\":1,\"connect\":{\"client\":\"C1\",\"version\":\"talewire 0.1.0\",\"ping\":0,\"pong\":false,\"time\":1800000000000}}\n";
    let script = "+ 15000ms\n< {}\n+ 14999ms\n+ 1ms\n< {}\n! busy\n+ 29999ms\n+ 1ms\n< {}\n! busy\n+ 30000ms\n< {}";
    check_down(Mode::Events, &format!("{connect}{script}"));
}

#[test]
fn a_filter_is_changed_on_the_open_connection() {
    check(
        r#"
        > {"id":2,"subscribe":{"channel":"chat:1","tf":{"key":"a","cmp":"eq","val":"b"}}}
        ? join chat:1 filtered
        ! joined 3
        < {"id":2,"subscribe":{"recoverable":true,"epoch":"E","offset":3,"positioned":true}}
        > {"id":3,"rpc":{"method":"channel.filter","data":{"channel":"chat:1","events":["turn"]}}}
        ? filter chat:1 some
        < {"id":3,"rpc":{"data":{}}}
        > {"id":4,"rpc":{"method":"channel.filter","data":{"channel":"chat:1"}}}
        ? filter chat:1 all
        < {"id":4,"rpc":{"data":{}}}
        > {"id":5,"rpc":{"method":"channel.filter","data":{"channel":"chat:2"}}}
        < {"id":5,"error":{"code":103,"message":"permission denied"}}
        > {"id":6,"rpc":{"method":"channel.filter","data":{"channel":"chat:1","events":[]}}}
        < {"id":6,"error":{"code":107,"message":"bad request"}}
        > {"id":7,"subscribe":{"channel":"chat:2","tf":{"key":"a","cmp":"like"}}}
        < {"id":7,"error":{"code":107,"message":"bad request"}}"#,
    );
}

#[test]
fn the_server_subscribes_and_speaks_to_a_connection() {
    check(
        r#"
        ! wanted chat:1
        ? join chat:1
        > {"id":2,"rpc":{"method":"m"}}
        ! joined 3
        < {"push":{"channel":"chat:1","subscribe":{"recoverable":true,"epoch":"E","offset":3,"positioned":true}}}
        ? call m {}
        ! result 1
        < {"id":2,"rpc":{"data":1}}
        ! wanted chat:1
        ! wanted nowhere:1
        ! message {"a":1}
        < {"push":{"message":{"data":{"a":1}}}}
        > {"id":3,"unsubscribe":{"channel":"chat:1"}}
        ? leave chat:1
        < {"id":3,"unsubscribe":{}}"#,
    );
}

#[test]
fn the_server_says_with_what_it_subscribes() {
    check(
        r#"
        ! subscribed-by-server chat:1 {"seat":7} {"topic":"t"}
        ? join chat:1
        ! joined 3
        < {"push":{"channel":"chat:1","subscribe":{"recoverable":true,"epoch":"E","offset":3,"positioned":true,"data":{"topic":"t"}}}}"#,
    );
}

#[test]
fn the_server_says_how_long_a_connection_may_last() {
    // The grace of 25 s is the client's, to come with a new token.
    check("! lasting 10\n+ 25000ms\n< {}\n> {}\n+ 9999ms\n+ 1ms\nx 3005");
    check("! lasting 10\n! lasting never\n+ 25000ms\n< {}\n> {}\n+ 10001ms");
    check("! lasting -1\nx 3005");
}

#[test]
fn a_reader_of_events_is_told_why_it_may_not_read() {
    check_down(
        Mode::Events,
        r#"
        > {"id":1,"connect":{"subs":{"secret:1":{}}}}
        < {"id":1,"error":{"code":103,"message":"secret:1: permission denied"}}
        x 3507"#,
    );
    Stage::of(Mode::Events, None, Anonymous::Refused).run(
        r#"
        > {"id":1,"connect":{}}
        < {"id":1,"error":{"code":101,"message":"unauthorized"}}
        x 3507"#,
    );
    Stage::of(Mode::Events, None, Anonymous::Refused).run(
        r#"
        > {"id":1,"connect":{"token":"T"}}
        ? verify T
        ! expired
        < {"id":1,"error":{"code":109,"message":"token expired"}}
        x 3500"#,
    );
}
