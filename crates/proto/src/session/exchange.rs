//! Other rules of channels for a session that stands: what is no longer as it was subscribed to ends, the rest stays.

use super::{Current, Mode, Session, Step};
use crate::channel::Channel;
use crate::codes::{CloseCode, UnsubscribeCode};
use crate::namespace::{Namespace, Namespaces};

impl Session {
    /// The rules of channels have been exchanged. A subscription whose namespace is gone ends for good; one whose kind of
    /// channel has changed ends so that the client subscribes again. Rights are asked again with the next command.
    pub fn handle_namespaces(&mut self, namespaces: &Namespaces) {
        if self.namespaces.is_same(namespaces) {
            return;
        }
        self.namespaces = namespaces.clone();
        // What a connection begins with is looked at when it has been told.
        if !matches!(self.current.as_deref(), Some(Current { step: Step::Opening(_), .. })) {
            self.look_at_all_rules();
        }
    }

    /// Ends every subscription that the rules have no room for.
    pub(super) fn look_at_all_rules(&mut self) {
        let channels: Vec<Channel> = self.subscriptions.channels().cloned().collect();
        channels.iter().for_each(|channel| self.look_at_rules(channel));
        if self.mode == Mode::Events && !channels.is_empty() && self.subscriptions.len() == 0 && self.wanted.is_empty()
        {
            // A stream that nothing will ever come on. Who comes again is told why, as everybody who asks for such channels.
            self.close(CloseCode::ForceReconnect);
        }
    }

    /// Ends a subscription that was made by rules which were exchanged meanwhile, if they have no room for it.
    pub(super) fn look_at_rules(&mut self, channel: &Channel) {
        let Some(rules) = self.subscriptions.rules_of(channel) else { return };
        if let Some(code) = self.why_ended(channel, rules) {
            self.handle_dropped(channel, code);
        }
    }

    fn why_ended(&self, channel: &Channel, joined_by: &Namespace) -> Option<UnsubscribeCode> {
        match self.namespaces.of(channel) {
            Err(_) => Some(UnsubscribeCode::Server),
            Ok(rules) if rules.kind != joined_by.kind => Some(UnsubscribeCode::InsufficientState),
            Ok(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Anonymous, Now, Output, SessionStart};
    use super::*;
    use crate::grant::Grant;
    use crate::namespace::Rule;
    use crate::reply::SubscribeResult;
    use crate::{Kind, Limits, json};

    const NOW: Now = Now { mono_ms: 1_000, unix_ms: 1_800_000_000_000 };

    fn open(kind: Kind) -> Namespace {
        Namespace { kind, subscribe: Rule::Authenticated, ..Namespace::default() }
    }

    fn namespaces(kinds: &[(&str, Kind)]) -> Namespaces {
        Namespaces::new(kinds.iter().map(|(name, kind)| ((*name).to_owned(), open(*kind))))
    }

    fn session(namespaces: &Namespaces) -> Session {
        session_of(namespaces, Grant::user("ana".parse().expect("an id")))
    }

    fn session_of(namespaces: &Namespaces, login: Grant) -> Session {
        let start = SessionStart {
            client: "C1".parse().expect("an id"),
            login: Some(login),
            anonymous: Anonymous::Refused,
            limits: Arc::new(Limits::default()),
            namespaces: namespaces.clone(),
            seed: 0,
            emulation: None,
            mode: Mode::Duplex,
        };
        let mut session = Session::new(start, NOW);
        session.handle_frame(br#"{"id":1,"connect":{}}"#, NOW);
        session
    }

    fn subscribe(session: &mut Session, id: u32, channel: &str) {
        session.handle_frame(format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"}}}}"#).as_bytes(), NOW);
    }

    /// What comes out: replies as they stand on the wire, and what is left.
    fn outputs(session: &mut Session) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(output) = session.poll_output() {
            told.push(match output {
                Output::Send(reply) => String::from_utf8(json::encode(&reply)).expect("JSON is UTF-8"),
                Output::Unsubscribe { channel, .. } => format!("leave {channel}"),
                Output::Subscribe(join) => format!("join {}", join.channel),
                other => panic!("{other:?}"),
            });
        }
        told
    }

    #[test]
    fn what_is_no_longer_as_it_was_ends_and_the_rest_stays() {
        let before = namespaces(&[("gone", Kind::History), ("turned", Kind::History), ("stays", Kind::History)]);
        let mut session = session(&before);
        for (id, name) in [(2, "gone:a"), (3, "turned:a"), (4, "stays:a")] {
            subscribe(&mut session, id, name);
            session.handle_subscribed(Ok(SubscribeResult::default()), NOW);
        }
        outputs(&mut session);
        session.handle_namespaces(&before);
        assert_eq!(outputs(&mut session), [""; 0], "the same rules");
        let after = namespaces(&[("turned", Kind::Durable), ("stays", Kind::History), ("new", Kind::Signal)]);
        session.handle_namespaces(&after);
        let mut told = outputs(&mut session);
        told.sort();
        let ended = |channel: &str, code: u32, reason: &str| {
            let unsubscribe = serde_json::json!({"code": code, "reason": reason});
            serde_json::json!({"push": {"channel": channel, "unsubscribe": unsubscribe}})
        };
        assert_eq!(told[..2], ["leave gone:a", "leave turned:a"]);
        let told: Vec<serde_json::Value> =
            told[2..].iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let expected = [
            ended("gone:a", 2_000, UnsubscribeCode::Server.text()),
            ended("turned:a", 2_500, UnsubscribeCode::InsufficientState.text()),
        ];
        assert_eq!(told, expected);
        // Commands are judged by the new rules.
        subscribe(&mut session, 5, "new:a");
        assert_eq!(outputs(&mut session), ["join new:a"]);
        session.handle_subscribed(Ok(SubscribeResult::default()), NOW);
        subscribe(&mut session, 6, "gone:a");
        assert!(outputs(&mut session)[1].contains(r#""code":102"#));
        assert!(session.grant().is_some(), "the connection stands");
    }

    #[test]
    fn what_a_connection_begins_with_is_looked_at_when_it_has_been_told() {
        let before = namespaces(&[("gone", Kind::History), ("stays", Kind::History)]);
        let mut grant = Grant::user("ana".parse().expect("an id"));
        grant.channels = ["gone:a", "stays:a"].map(|name| name.parse().expect("a channel")).into();
        let mut session = session_of(&before, grant);
        assert_eq!(outputs(&mut session), ["join gone:a"]);
        session.handle_subscribed(Ok(SubscribeResult::default()), NOW);
        assert_eq!(outputs(&mut session), ["join stays:a"]);
        session.handle_namespaces(&namespaces(&[("stays", Kind::History)]));
        assert_eq!(outputs(&mut session), [""; 0], "nothing has been told yet");
        session.handle_subscribed(Ok(SubscribeResult::default()), NOW);
        let told = outputs(&mut session);
        assert!(told[0].contains(r#""connect""#) && told[1] == "leave gone:a", "{told:?}");
        assert!(told[2].contains(r#""code":2000"#) && told.len() == 3, "{told:?}");
    }

    #[test]
    fn what_the_server_joins_is_looked_at_too() {
        let mut session = session(&namespaces(&[("gone", Kind::History)]));
        outputs(&mut session);
        session.handle_wanted(crate::command::Wanted::new("gone:a".parse().expect("a channel")), NOW);
        assert_eq!(outputs(&mut session), ["join gone:a"]);
        session.handle_namespaces(&namespaces(&[]));
        session.handle_subscribed(Ok(SubscribeResult::default()), NOW);
        let told = outputs(&mut session);
        assert!(told[0].contains(r#""subscribe""#) && told[1] == "leave gone:a", "{told:?}");
        assert!(told[2].contains(r#""code":2000"#), "{told:?}");
    }

    #[test]
    fn a_subscription_under_way_is_looked_at_when_it_stands() {
        let mut session = session(&namespaces(&[("gone", Kind::History)]));
        outputs(&mut session);
        subscribe(&mut session, 2, "gone:a");
        assert_eq!(outputs(&mut session), ["join gone:a"]);
        session.handle_namespaces(&namespaces(&[]));
        assert_eq!(outputs(&mut session), [""; 0], "nothing stands yet");
        session.handle_subscribed(Ok(SubscribeResult::default()), NOW);
        let told = outputs(&mut session);
        assert!(told[0].contains(r#""subscribe""#) && told[1] == "leave gone:a", "{told:?}");
        assert!(told[2].contains(r#""code":2000"#), "{told:?}");
    }

    #[test]
    fn a_stream_of_events_without_a_channel_left_ends() {
        use crate::command::{Body, Command, Connect, Token, Wanted};

        let before = namespaces(&[("gone", Kind::History), ("stays", Kind::History)]);
        for (names, ends) in [(&["gone:a"][..], true), (&["gone:a", "stays:a"], false)] {
            let start = SessionStart {
                client: "C1".parse().expect("an id"),
                login: Some(Grant::user("ana".parse().expect("an id"))),
                anonymous: Anonymous::Refused,
                limits: Arc::new(Limits::default()),
                namespaces: before.clone(),
                seed: 0,
                emulation: None,
                mode: Mode::Events,
            };
            let mut session = Session::new(start, NOW);
            let subs = names.iter().map(|name| Wanted::new(name.parse().expect("a channel"))).collect();
            let connect = Connect { token: Token::default(), name: "events".into(), subs };
            session.handle_commands(vec![Command { id: 1, body: Ok(Body::Connect(connect)) }], NOW);
            names.iter().for_each(|_| session.handle_subscribed(Ok(SubscribeResult::default()), NOW));
            while session.poll_output().is_some() {}
            session.handle_namespaces(&namespaces(&[("stays", Kind::History)]));
            let told: Vec<Output> = std::iter::from_fn(|| session.poll_output()).collect();
            let closed = matches!(told.last(), Some(Output::Close(CloseCode::ForceReconnect)));
            assert_eq!(closed, ends, "{names:?}: {told:?}");
        }
    }
}
