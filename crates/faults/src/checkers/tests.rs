//! Small logs in, what each checker finds in them out: green for what is right, red for the one thing that is wrong.

use super::*;
use crate::log::{Content, JobEnd, Kind, Lasts, Log, Name, Outcome, Position, Told, What};

const CHANNEL: &str = "talk:a";

/// A log that is written event by event, each a millisecond after the last.
struct Script {
    events: Vec<Event>,
    at_us: u64,
}

fn at(offset: u64) -> Position {
    in_epoch("e", offset)
}

fn in_epoch(epoch: &str, offset: u64) -> Position {
    Position { epoch: epoch.into(), offset }
}

fn content(key: &str) -> Content {
    Content { key: key.into(), tag: CHANNEL.into(), sum: crate::log::sum(key.as_bytes()) }
}

fn in_memory(size: u64) -> Kind {
    Kind::History { size, lasts: Lasts::InMemory }
}

impl Script {
    fn new(kind: Kind) -> Self {
        let mut script = Self { events: Vec::new(), at_us: 0 };
        script.say(What::Channel { channel: CHANNEL.into(), kind });
        script
    }

    fn durable() -> Self {
        Self::new(Kind::Durable)
    }

    fn say(&mut self, what: What) -> &mut Self {
        self.at_us += 1_000;
        self.events.push(Event { at_us: self.at_us, what });
        self
    }

    fn wait(&mut self, ms: u64) -> &mut Self {
        self.at_us += ms * 1_000;
        self
    }

    fn published(&mut self, key: &str, outcome: Outcome) -> &mut Self {
        let op = self.events.len() as u64;
        self.say(What::Asked { op, channel: CHANNEL.into(), key: key.into(), node: "n1".into() });
        self.say(What::Answered { op, outcome })
    }

    fn kept(&mut self, key: &str, offset: u64) -> &mut Self {
        self.published(key, Outcome::Kept(at(offset)))
    }

    fn subscribed(&mut self, from: Option<Position>, told: Told, top: Position) -> &mut Self {
        self.say(What::Subscribed { reader: 1, channel: CHANNEL.into(), node: "n1".into(), from, told, top })
    }

    fn got(&mut self, key: &str, offset: u64) -> &mut Self {
        self.say(What::Delivered { reader: 1, channel: CHANNEL.into(), position: at(offset), content: content(key) })
    }

    /// The full read: keys from offset 1 on.
    fn read(&mut self, keys: &[&str]) -> &mut Self {
        let entries: Vec<_> = (1..).zip(keys).map(|(offset, key)| (offset, content(key))).collect();
        let top = at(entries.len() as u64);
        self.say(What::Read { node: "n1".into(), channel: CHANNEL.into(), top, entries })
    }

    /// The end that every run has.
    fn judged(&mut self) -> Verdict {
        let has_end = self.events.iter().any(|event| event.what == What::Over);
        if !has_end {
            self.say(What::Quiet).say(What::Over);
        }
        check(&self.events, &Promises::default())
    }

    #[track_caller]
    fn is_green(&mut self) -> Counts {
        let verdict = self.judged();
        assert!(verdict.is_green(), "{verdict}");
        verdict.counts
    }

    #[track_caller]
    fn is_red(&mut self, invariants: &[Invariant]) -> Counts {
        let verdict = self.judged();
        assert_eq!(verdict.wrong.keys().copied().collect::<Vec<_>>(), invariants, "{verdict}");
        verdict.counts
    }
}

#[test]
fn what_was_acknowledged_has_to_be_there() {
    let counts = Script::durable().kept("a", 1).kept("b", 2).read(&["a", "b"]).is_green();
    assert_eq!((counts.published, counts.acknowledged, counts.lost), (2, 2, 0));
    let counts = Script::durable().kept("a", 1).kept("b", 2).read(&["a"]).is_red(&[Invariant::Kept, Invariant::Epochs]);
    assert_eq!(counts.lost, 1);
    Script::durable().published("a", Outcome::Said).read(&["a"]).is_green();
    let counts = Script::durable().published("a", Outcome::Said).read(&[]).is_red(&[Invariant::Kept]);
    assert_eq!(counts.lost, 1);
    Script::durable().kept("a", 1).is_red(&[Invariant::Valid]);
}

#[test]
fn history_may_forget_what_is_old_and_what_went_with_its_epoch() {
    let two = in_memory(2);
    let read = |script: &mut Script| {
        let entries = vec![(3, content("c")), (4, content("d"))];
        script.say(What::Read { node: "n1".into(), channel: CHANNEL.into(), top: at(4), entries });
    };
    let mut script = Script::new(two);
    script.published("z", Outcome::Kept(in_epoch("before", 9)));
    script.kept("a", 1).kept("b", 2).kept("c", 3).kept("d", 4);
    read(&mut script);
    assert_eq!(script.is_green().gone_with_epoch, 1);
    let mut script = Script::new(in_memory(3));
    script.kept("a", 1).kept("b", 2).kept("c", 3).kept("d", 4);
    read(&mut script);
    assert_eq!(script.is_red(&[Invariant::Kept]).lost, 1, "b is one of the newest three");
}

#[test]
fn doubts_may_be_kept_once() {
    let unknown = || Outcome::Unknown("no answer".to_owned());
    let counts = Script::durable().published("a", unknown()).read(&["a"]).is_green();
    assert_eq!((counts.unknown, counts.unknown_kept), (1, 1));
    assert_eq!(Script::durable().published("a", unknown()).read(&[]).is_green().unknown_kept, 0);
    let counts = Script::durable()
        .published("a", unknown())
        .read(&["a", "a"])
        .is_red(&[Invariant::Keys, Invariant::Unacknowledged]);
    assert_eq!(counts.doubled, 1);
    let refused = Outcome::Refused("103".to_owned());
    assert_eq!(Script::durable().published("a", refused.clone()).read(&[]).is_green().refused, 1);
    Script::durable().published("a", refused).read(&["a"]).is_red(&[Invariant::Unacknowledged]);
}

#[test]
fn one_key_is_one_entry_with_one_acknowledgement() {
    assert_eq!(Script::durable().kept("a", 1).kept("a", 1).read(&["a"]).is_green().repeated, 1);
    Script::durable().kept("a", 1).kept("a", 2).read(&["a", "a"]).is_red(&[Invariant::Keys]);
    Script::durable().kept("a", 1).read(&["a", "b"]).is_red(&[Invariant::Order]);
}

#[test]
fn a_reader_gets_each_once_in_order_and_without_a_gap() {
    let script = || {
        let mut script = Script::durable();
        script.kept("a", 1).kept("b", 2).kept("c", 3).read(&["a", "b", "c"]);
        script.subscribed(None, Told::Fresh, at(0));
        script
    };
    assert_eq!(script().got("a", 1).got("b", 2).got("c", 3).is_green().delivered, 3);
    assert_eq!(script().got("a", 1).got("b", 2).got("b", 2).is_red(&[Invariant::Once]).doubled, 1);
    assert_eq!(script().got("a", 1).got("c", 3).got("b", 2).is_red(&[Invariant::Order]).out_of_order, 1);
    assert_eq!(script().got("a", 1).got("c", 3).is_red(&[Invariant::Kept]).lost, 1);
    assert_eq!(script().got("a", 1).got("c", 2).is_red(&[Invariant::Order]).out_of_order, 1);
}

#[test]
fn a_recovery_is_whole_and_a_loss_is_one() {
    let script = |told, top| {
        let mut script = Script::durable();
        script.kept("a", 1).kept("b", 2).kept("c", 3).read(&["a", "b", "c"]);
        script.subscribed(None, Told::Fresh, at(0)).got("a", 1);
        script.subscribed(Some(at(1)), told, top);
        script
    };
    let counts = script(Told::Recovered, at(3)).got("b", 2).got("c", 3).is_green();
    assert_eq!((counts.resumes, counts.lies), (1, 0));
    assert_eq!(script(Told::Recovered, at(3)).got("c", 3).is_red(&[Invariant::Flags]).lies, 1);
    assert_eq!(script(Told::Recovered, at(0)).is_red(&[Invariant::Flags]).lies, 1);
    assert_eq!(script(Told::Lost, at(3)).is_red(&[Invariant::Flags]).needless, 1);
    let counts = script(Told::Recovered, at(1)).got("c", 3).is_red(&[Invariant::Kept]);
    assert_eq!((counts.lies, counts.lost), (0, 1), "what comes later is nobody's recovery");
}

#[test]
fn a_recovery_over_a_change_of_the_epoch_keeps_what_the_reader_had() {
    let script = |key: &str| {
        let mut script = Script::new(in_memory(10));
        script.published("b", Outcome::Kept(in_epoch("f", 2)));
        script.published("a", Outcome::Kept(at(1))).published("x", Outcome::Kept(in_epoch("f", 1)));
        script.subscribed(None, Told::Fresh, at(0)).got("a", 1);
        script.subscribed(Some(at(1)), Told::Recovered, in_epoch("f", 1));
        let entries = vec![(1, content(key)), (2, content("b"))];
        script.say(What::Read { node: "n1".into(), channel: CHANNEL.into(), top: in_epoch("f", 2), entries });
        script
    };
    assert_eq!(script("x").is_red(&[Invariant::Flags]).lies, 1);
}

#[test]
fn a_gap_that_is_told_is_no_loss() {
    let mut script = Script::new(in_memory(1));
    script.kept("a", 1).kept("b", 2).kept("c", 3).subscribed(None, Told::Fresh, at(0)).got("a", 1);
    script.say(What::Gap { reader: 1, channel: CHANNEL.into(), position: at(2) }).got("c", 3);
    let entries = vec![(3, content("c"))];
    script.say(What::Read { node: "n1".into(), channel: CHANNEL.into(), top: at(3), entries });
    let counts = script.is_green();
    assert_eq!((counts.gaps, counts.lost, counts.needless), (1, 0, 0));
}

#[test]
fn lost_data_has_to_change_the_epoch() {
    Script::durable()
        .published("a", Outcome::Unknown("?".to_owned()))
        .got("a", 1)
        .read(&[])
        .is_red(&[Invariant::Epochs]);
    let mut script = Script::durable();
    script.published("a", Outcome::Kept(in_epoch("other", 1))).kept("b", 1).kept("a", 2).read(&["b", "a"]);
    script.is_red(&[Invariant::Epochs, Invariant::Keys]);
}

#[test]
fn a_broker_may_forget_only_what_it_said_it_may() {
    let script = |lasts, before: &str, keys: &[&str]| {
        let mut script = Script::new(Kind::History { size: 10, lasts });
        script.published("a", Outcome::Kept(in_epoch("e.1", 1))).published("b", Outcome::Kept(in_epoch(before, 2)));
        let entries: Vec<_> = (1..).zip(keys).map(|(offset, key)| (offset, content(key))).collect();
        let top = in_epoch("e.2", entries.len() as u64);
        script.say(What::Read { node: "n1".into(), channel: CHANNEL.into(), top, entries });
        script
    };
    for lasts in [Lasts::Synced, Lasts::Replicated] {
        assert_eq!(script(lasts, "e.1", &["a", "b"]).is_green().gone_with_epoch, 0);
        assert_eq!(script(lasts, "e.2", &["a"]).is_red(&[Invariant::Kept, Invariant::Epochs]).lost, 1);
    }
    assert_eq!(script(Lasts::Replicated, "e.1", &["a"]).is_green().gone_with_epoch, 1, "the replica did not have it");
    assert_eq!(script(Lasts::Synced, "e.1", &["a"]).is_red(&[Invariant::Kept, Invariant::Epochs]).lost, 1);
    assert_eq!(script(Lasts::Replicated, "f.1", &["a"]).is_red(&[Invariant::Kept, Invariant::Epochs]).lost, 1);
}

#[test]
fn only_promotions_in_a_row_may_lose_a_whole_history() {
    let script = |apart_ms: u64, masters: &[&str]| {
        let mut script = Script::new(Kind::History { size: 100, lasts: Lasts::Replicated });
        script.published("a", Outcome::Kept(in_epoch("e.1", 1)));
        for (offset, master) in (2..).zip(masters) {
            script.wait(apart_ms).published("x", Outcome::Kept(in_epoch(&format!("e.{master}"), offset)));
        }
        script.wait(apart_ms).published("b", Outcome::Kept(in_epoch("f.9", 1)));
        let (top, entries) = (in_epoch("f.9", 1), vec![(1, content("b"))]);
        script.say(What::Read { node: "n1".into(), channel: CHANNEL.into(), top, entries });
        script
    };
    let verdict = script(3_000, &["2", "3"]).is_green();
    assert_eq!((verdict.begun_anew, verdict.lost), (1, 0));
    assert_eq!(script(3_000, &[]).is_red(&[Invariant::Kept, Invariant::Epochs]).begun_anew, 0);
    assert!(script(60_000, &["2", "3"]).is_red(&[Invariant::Kept, Invariant::Epochs]).lost > 0);
}

#[test]
fn a_stream_of_events_does_not_say_under_which_master_an_entry_was_written() {
    let script = |wire: &str, key: &str| {
        let mut script = Script::new(Kind::History { size: 100, lasts: Lasts::Replicated });
        script.say(What::Reader { reader: 1, wire: wire.to_owned(), channels: vec![CHANNEL.into()] });
        script.subscribed(None, Told::Fresh, in_epoch("e.1", 0));
        // Two masters that do not know of each other.
        script.published("a", Outcome::Kept(in_epoch("e.1", 1))).published("b", Outcome::Kept(in_epoch("e.2", 1)));
        let position = in_epoch("e.1", 1);
        script.say(What::Delivered { reader: 1, channel: CHANNEL.into(), position, content: content(key) });
        let top = in_epoch("e.2", 1);
        script.say(What::Read { node: "n1".into(), channel: CHANNEL.into(), top, entries: vec![(1, content("b"))] });
        script.say(What::Retired { reader: 1 });
        script
    };
    script("events", "a").is_green();
    script("events", "b").is_green();
    script("events", "c").is_red(&[Invariant::Order]);
    script("websocket", "b").is_red(&[Invariant::Order]);
}

#[test]
fn a_poll_at_a_master_that_was_replaced_is_rightly_told_of_a_loss() {
    let script = |wire: &str| {
        let mut script = Script::new(Kind::History { size: 100, lasts: Lasts::Replicated });
        script.say(What::Reader { reader: 1, wire: wire.to_owned(), channels: vec![CHANNEL.into()] });
        script.subscribed(None, Told::Fresh, in_epoch("e.1", 0));
        script.published("b", Outcome::Kept(in_epoch("e.2", 1))).published("c", Outcome::Kept(in_epoch("e.2", 2)));
        // What it has is the new master's; then it asks the old one, where other words stand at this place.
        let position = in_epoch("e.1", 1);
        script.say(What::Delivered { reader: 1, channel: CHANNEL.into(), position, content: content("b") });
        script.say(What::Gap { reader: 1, channel: CHANNEL.into(), position: in_epoch("e.1", 2) });
        let entries = vec![(1, content("b")), (2, content("c"))];
        script.say(What::Read { node: "n1".into(), channel: CHANNEL.into(), top: in_epoch("e.2", 2), entries });
        script.say(What::Retired { reader: 1 });
        script
    };
    assert_eq!(script("polls").is_green().needless, 0);
    script("websocket").is_red(&[Invariant::Flags]);
}

#[test]
fn a_deaf_node_and_its_readers_find_out_in_time() {
    let script = |red_ms: u64, late_ms: u64| {
        let mut script = Script::durable();
        script.subscribed(None, Told::Fresh, at(0)).say(What::Deaf { node: "n1".into() });
        // One is there before its publisher hears of it, and one is late.
        script.got("a", 1).kept("a", 1).kept("b", 2).wait(red_ms);
        script.say(What::Ready { node: "n1".into(), is_ready: false }).say(What::Healed { number: 1 });
        script.wait(late_ms).got("b", 2).read(&["a", "b"]).say(What::Retired { reader: 1 });
        script
    };
    script(9_000, 500).is_green();
    script(11_000, 0).is_red(&[Invariant::Deaf]);
    let wrong = script(5_000, 5_100).judged().wrong[&Invariant::Deaf].first.clone();
    assert!(wrong.len() == 1 && wrong[0].starts_with("reader 1 on n1"), "{wrong:?}");
    let mut told = script(5_000, 0);
    told.events.retain(|event| !matches!(event.what, What::Healed { .. }));
    told.events.insert(7, Event { at_us: told.events[6].at_us, what: What::Broke { reader: 1, why: "?".to_owned() } });
    told.is_green();
}

#[test]
fn presence_becomes_true_in_time() {
    let script = || {
        let mut script = Script::durable();
        script.read(&[]).say(What::Quiet);
        let clients: Vec<Name> = vec!["c1".into()];
        script.say(What::Truth { channel: CHANNEL.into(), clients });
        script
    };
    let seen = |clients: &[&str]| What::Presence {
        node: "n1".into(),
        channel: CHANNEL.into(),
        clients: clients.iter().map(|&client| client.into()).collect(),
    };
    let counts = script().say(seen(&["c1", "old"])).say(seen(&["c1"])).say(What::Over).is_green();
    assert_eq!(counts.presence_reads, 2);
    script().say(seen(&["c1", "old"])).say(What::Over).is_red(&[Invariant::Presence]);
    script().say(seen(&[])).wait(41_000).say(seen(&["c1"])).say(What::Over).is_red(&[Invariant::Presence]);
    let came = |is_here| What::Came { reader: 1, channel: CHANNEL.into(), client: "c1".into(), is_here };
    script().say(came(true)).say(came(false)).say(What::Over).is_green();
    script().say(came(true)).say(came(true)).say(What::Over).is_red(&[Invariant::Presence]);
}

#[test]
fn a_generation_ends_once_with_the_text_that_was_read() {
    let on = |kind, at| {
        let mut script = Script::new(kind);
        script.read(&[]).say(What::JobAccepted { job: "j".into() });
        script.say(What::JobText {
            job: "j".into(),
            attempt: 1,
            text: "Once".to_owned(),
            ended: true,
            at,
            trail: String::new(),
        });
        script
    };
    let script = || on(in_memory(1), Some(4));
    let ended = |text: &str| {
        let end = JobEnd { status: "done".to_owned(), turn: Some(text.to_owned()) };
        What::JobEnded { job: "j".into(), end }
    };
    let counts = script().say(ended("Once")).is_green();
    assert_eq!((counts.jobs, counts.job_texts), (1, 1));
    script().is_red(&[Invariant::Jobs]);
    script().say(ended("Once")).say(ended("Once")).is_red(&[Invariant::Jobs]);
    script().say(ended("Twice")).is_red(&[Invariant::Jobs]);
    script().say(ended("Once upon")).is_red(&[Invariant::Jobs]);
    let shared = |at| on(Kind::History { size: 1, lasts: Lasts::Synced }, at);
    shared(None).say(ended("Twice")).is_red(&[Invariant::Jobs]);
    assert_eq!(shared(None).say(ended("Once upon")).is_green().job_texts_cut, 1, "the broker may have been away");
    shared(Some(9)).say(ended("Once upon")).is_green();
    shared(Some(4)).say(ended("Once upon")).is_red(&[Invariant::Jobs]);
    script().say(ended("Once")).say(What::JobLate { job: "j".into(), attempt: 1 }).is_red(&[Invariant::Jobs]);
    let failed = JobEnd { status: "failed".to_owned(), turn: None };
    script().say(What::JobEnded { job: "j".into(), end: failed }).is_green();
}

#[test]
fn what_was_taken_away_and_what_is_foreign_is_found() {
    let script = || {
        let mut script = Script::durable();
        script.kept("a", 1).read(&["a"]).subscribed(None, Told::Fresh, at(0));
        script.say(What::Revoked { reader: 1, channel: CHANNEL.into() });
        script
    };
    script().wait(4_000).got("a", 1).is_green();
    script().wait(6_000).got("a", 1).is_red(&[Invariant::Revoked]);
    let mut script = Script::durable();
    let foreign = Content { tag: "talk:b".into(), ..content("a") };
    script.kept("a", 1).read(&["a"]).subscribed(None, Told::Fresh, at(0));
    script.say(What::Delivered { reader: 1, channel: CHANNEL.into(), position: at(1), content: foreign });
    script.is_red(&[Invariant::Channels]);
}

#[test]
fn an_order_that_was_acknowledged_during_a_fault_holds_soon_after_it() {
    let script = |channel: Option<&str>| {
        let mut script = Script::durable();
        script.read(&[]).say(What::Fault { number: 1, fault: "Deafen".to_owned() });
        let channel = channel.map(Name::from);
        script.say(What::Ordered { subject: 9, channel, on: "n1".into(), by: "n2".into() });
        script.wait(60_000).say(What::Healed { number: 1 });
        script
    };
    let heard = |channel: &str| What::Heard { subject: 9, channel: channel.into() };
    script(Some(CHANNEL)).wait(4_000).say(heard(CHANNEL)).is_green();
    script(Some(CHANNEL)).wait(6_000).say(heard("talk:other")).is_green();
    let counts =
        script(Some(CHANNEL)).wait(6_000).say(heard(CHANNEL)).say(heard(CHANNEL)).is_red(&[Invariant::Revoked]);
    assert_eq!((counts.orders, counts.orders_seen), (1, 0));
    script(None).wait(6_000).say(heard("talk:other")).is_red(&[Invariant::Revoked]);
    let dismissed = What::Dismissed { subject: 9, is_ordered: true, how: "told".to_owned() };
    assert_eq!(script(None).say(dismissed).is_green().orders_seen, 1);
    let mut calm = Script::durable();
    calm.read(&[]).say(What::Ordered { subject: 9, channel: None, on: "n1".into(), by: "n2".into() });
    calm.wait(6_000).say(heard(CHANNEL)).is_red(&[Invariant::Revoked]);
}

#[test]
fn processes_come_back_to_what_they_used_and_never_panic() {
    let script = || {
        let mut script = Script::durable();
        script.read(&[]);
        script
    };
    let vitals =
        |rss_mb: u64, descriptors| What::Vitals { node: "n1".into(), number: 1, rss_bytes: rss_mb << 20, descriptors };
    let faulty = |samples: &[(u64, u64)]| {
        let mut script = script();
        script.say(vitals(100, 40)).say(What::Fault { number: 1, fault: "x".to_owned() });
        script.say(vitals(900, 400)).say(What::Healed { number: 1 });
        for (rss_mb, descriptors) in samples {
            script.say(vitals(*rss_mb, *descriptors));
        }
        script
    };
    faulty(&[(900, 400), (120, 45)]).is_green();
    faulty(&[(900, 45)]).is_red(&[Invariant::Bounds]);
    faulty(&[(120, 400)]).is_red(&[Invariant::Bounds]);
    script().say(What::Keys { keys: 20 }).say(What::Keys { keys: 90 }).is_green();
    script().say(What::Keys { keys: 20 }).say(What::Keys { keys: 900 }).is_red(&[Invariant::Bounds]);
    script().say(What::Panic { node: "n1".into(), line: "x".to_owned() }).is_red(&[Invariant::Panics]);
    script().say(What::Died { node: "n1".into(), how: "signal 11".to_owned() }).is_red(&[Invariant::Panics]);
    script().say(What::Void { why: "no disk".to_owned() }).is_red(&[Invariant::Valid]);
}

#[test]
fn memory_that_grows_for_as_long_as_a_process_lives_is_found() {
    let script = |mb_at: fn(u64) -> u64, descriptors_at: fn(u64) -> u64, seconds: u64| {
        let mut script = Script::durable();
        script.read(&[]);
        for second in 0..seconds {
            let (rss_bytes, descriptors) = (mb_at(second) << 20, descriptors_at(second));
            script.wait(1_000).say(What::Vitals { node: "n1".into(), number: 1, rss_bytes, descriptors });
        }
        script
    };
    let young = |second: u64| 50 + second.min(10);
    assert_eq!(script(young, |_| 40, 120).is_green().lives, 1);
    script(|second| 50 + second, |_| 40, 120).is_red(&[Invariant::Bounds]);
    script(young, |second| 40 + second, 120).is_red(&[Invariant::Bounds]);
    assert_eq!(script(|second| 50 + second, |_| 40, 40).is_green().lives, 0, "it is too young to be judged");
}

#[test]
fn at_the_end_everything_arrives_and_servers_end_when_asked() {
    let begin = |got_ms: u64| {
        let mut script = Script::durable();
        script.say(What::Reader { reader: 1, wire: "w".to_owned(), channels: vec![CHANNEL.into()] });
        script.subscribed(None, Told::Fresh, at(0)).say(What::Quiet).kept("probe", 1);
        script.wait(got_ms).got("probe", 1).read(&["probe"]).wait(20_000).say(What::Over);
        script
    };
    begin(100).is_green();
    begin(11_000).is_red(&[Invariant::Alive]);
    let mut never = Script::durable();
    never.say(What::Reader { reader: 1, wire: "w".to_owned(), channels: vec![CHANNEL.into()] });
    never.say(What::Quiet).kept("probe", 1).read(&["probe"]).wait(20_000).say(What::Over);
    never.is_red(&[Invariant::Alive]);
    let drained = |took_ms, clean| What::Drained { node: "n1".into(), took_ms, clean };
    Script::durable().read(&[]).say(drained(5_000, true)).is_green();
    Script::durable().read(&[]).say(drained(31_000, true)).is_red(&[Invariant::Drain]);
    Script::durable().read(&[]).say(drained(5_000, false)).is_red(&[Invariant::Drain]);
}

#[test]
fn an_empty_log_is_no_good_run() {
    let verdict = check(&Log::default().take(), &Promises::default());
    assert!(verdict.is_red(Invariant::Valid));
}
