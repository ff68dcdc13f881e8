//! Signals for readers who are slow: which wait, which take another's place, and in which order they go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use talewire_broker::Tell;
use talewire_proto::{Channel, ClientInfo, Kind, Namespace, Payload, Publication};

use super::channel;
use super::crowd::Crowd;
use super::stage::{Disk, Stage, wait};
use crate::HubSettings;

fn conflating(tag: Option<&str>) -> Arc<Namespace> {
    let conflation_key = tag.map(str::to_owned);
    Arc::new(Namespace { kind: Kind::Signal, conflation_key, ..Namespace::default() })
}

/// One reader of `cursor:a` who is a little over its budget.
struct Slow {
    crowd: Crowd,
    reader: usize,
    chat: Channel,
    rules: Arc<Namespace>,
}

impl Slow {
    fn new(disk: &Disk, rules: Arc<Namespace>, waiting_max: usize) -> Self {
        let settings = HubSettings { outbox_bytes_max: 10, signals_waiting_max: waiting_max, ..HubSettings::default() };
        let mut crowd = Crowd::new(Stage::new(settings, &disk.store, 1));
        let reader = crowd.connect(0);
        let chat = channel("cursor:a");
        crowd.join(reader, &chat, &rules, None);
        crowd.settle();
        crowd.peers[reader].signals.clear();
        let mut slow = Self { crowd, reader, chat, rules };
        slow.signal("fills the outbox", None);
        slow
    }

    fn signal(&mut self, words: &str, who: Option<&str>) {
        let tags: BTreeMap<String, String> = who.map(|who| ("who".to_owned(), who.to_owned())).into_iter().collect();
        let publication = Publication { data: Some(Payload::of(&words)), tags, ..Publication::default() };
        wait(self.crowd.stage.broker.signal(&self.chat, publication)).unwrap();
        self.crowd.stage.hand_over_all();
        self.crowd.stage.pump(0, usize::MAX);
    }

    /// What the reader has read, when it reads again.
    fn heard(&mut self) -> Vec<String> {
        self.crowd.settle();
        let word = |push: serde_json::Value| push["pub"]["data"].as_str().unwrap_or("joined or left").to_owned();
        std::mem::take(&mut self.crowd.peers[self.reader].signals).into_iter().map(word).skip(1).collect()
    }

    /// Delivered, conflated, dropped.
    fn counted(&self) -> (u64, u64, u64) {
        let counters = &self.crowd.stage.hub.shards()[0].counters;
        (counters.deliveries.load(Relaxed), counters.conflated.load(Relaxed), counters.dropped.load(Relaxed))
    }
}

#[test]
fn a_newer_signal_takes_the_place_of_the_older_one_with_its_key() {
    let disk = Disk::new();
    let mut slow = Slow::new(&disk, conflating(Some("who")), 64);
    for (words, who) in [("ana 1", "ana"), ("ben 1", "ben"), ("ana 2", "ana"), ("ana 3", "ana"), ("cy 1", "cy")] {
        slow.signal(words, Some(who));
    }
    slow.signal("nobody's 1", None);
    slow.signal("nobody's 2", None);
    slow.signal("ben 2", Some("ben"));
    assert_eq!(slow.heard(), ["ana 3", "ben 2", "cy 1", "nobody's 1", "nobody's 2"]);
    assert_eq!(slow.counted(), (6, 3, 0));
    // Once all is read, nothing waits and nothing is conflated.
    slow.signal("fills the outbox", None);
    slow.heard();
    slow.signal("fills the outbox", None);
    slow.signal("ana 4", Some("ana"));
    assert_eq!(slow.heard(), ["ana 4"]);
    assert_eq!(slow.counted().1, 3);
}

#[test]
fn one_key_for_the_whole_channel() {
    let disk = Disk::new();
    let mut slow = Slow::new(&disk, conflating(Some("channel")), 64);
    for n in 0..100 {
        slow.signal(&format!("{n}"), Some("anybody"));
    }
    assert_eq!(slow.heard(), ["99"]);
    assert_eq!(slow.counted(), (2, 99, 0));
}

#[test]
fn a_key_for_each_publisher() {
    let disk = Disk::new();
    let mut slow = Slow::new(&disk, conflating(Some("publisher")), 64);
    let signal = |slow: &mut Slow, words: &str, user: &str, client: &str| {
        let info = ClientInfo { user: user.parse().unwrap(), client: client.parse().ok(), ..ClientInfo::default() };
        let publication = Publication { data: Some(Payload::of(&words)), info: Some(info), ..Publication::default() };
        wait(slow.crowd.stage.broker.signal(&slow.chat, publication)).unwrap();
        slow.crowd.stage.hand_over_all();
        slow.crowd.stage.pump(0, usize::MAX);
    };
    for (words, user, client) in
        [("ana 1", "ana", "c1"), ("one 1", "", "c3"), ("two 1", "", "c4"), ("ana 2", "ana", "c2"), ("one 2", "", "c3")]
    {
        signal(&mut slow, words, user, client);
    }
    slow.signal("a program's 1", None);
    slow.signal("a program's 2", None);
    assert_eq!(slow.heard(), ["ana 2", "one 2", "two 1", "a program's 1", "a program's 2"]);
}

#[test]
fn signals_without_keys_wait_in_order_and_the_oldest_go_first() {
    let disk = Disk::new();
    let mut slow = Slow::new(&disk, conflating(None), 3);
    for n in 0..5 {
        slow.signal(&format!("{n}"), Some("ana"));
    }
    let info = Arc::new(ClientInfo::default());
    let client = "c9".parse().unwrap();
    wait(slow.crowd.stage.broker.enter(&slow.chat, &client, &info, Tell::Subscribers)).unwrap();
    slow.crowd.stage.hand_over_all();
    slow.crowd.stage.pump(0, usize::MAX);
    assert_eq!(slow.heard(), ["3", "4", "joined or left"]);
    assert_eq!(slow.counted(), (4, 0, 3));
    let mut none = Slow::new(&disk, conflating(Some("channel")), 0);
    none.signal("1", None);
    assert_eq!((none.heard(), none.counted()), (vec![], (1, 0, 1)));
}

#[test]
fn what_waits_is_not_overtaken() {
    let disk = Disk::new();
    let mut slow = Slow::new(&disk, conflating(Some("who")), 64);
    slow.signal("1", None);
    slow.signal("2", None);
    // The peer takes everything, and before the shard has looked at what waits there is a new one.
    let key = slow.crowd.peers[slow.reader].key;
    let outbox = slow.crowd.stage.shards[0].outbox(key).unwrap();
    outbox.take_all();
    slow.signal("3", None);
    slow.crowd.settle();
    let heard = slow.crowd.peers[slow.reader].signals.iter().map(|push| push["pub"]["data"].clone());
    assert_eq!(heard.collect::<Vec<_>>(), ["1", "2", "3"]);
}

#[test]
fn nothing_waits_for_who_has_left() {
    let disk = Disk::new();
    let mut slow = Slow::new(&disk, conflating(Some("who")), 64);
    let other = channel("cursor:b");
    let rules = slow.rules.clone();
    slow.signal("of the channel that is left", Some("ana"));
    let reader = slow.reader;
    slow.crowd.peers[reader].standings.insert(other.clone(), super::peer::Standing::Signals);
    let key = slow.crowd.peers[reader].key;
    slow.crowd.stage.shards[0].subscribe(key, &other, &rules, crate::Interest::default());
    slow.crowd.stage.shards[0].go_live(key, &other, 0, false);
    let left = std::mem::replace(&mut slow.chat, other);
    slow.signal("of the other", Some("ana"));
    slow.crowd.stage.shards[0].unsubscribe(key, &left);
    assert_eq!(slow.heard(), ["of the other"]);
}
