//! Readers who want a part of a channel, and readers without a protocol: what is kept from them, and where they stand then.

use std::sync::Arc;

use talewire_broker::PageLimit;
use talewire_proto::command::Recover;
use talewire_proto::events::Form;
use talewire_proto::filter::Filter;
use talewire_proto::publication::EVENT_TAG;
use talewire_proto::wire::Wire;
use talewire_proto::{Channel, ClientInfo, Namespace, Publication};

use super::stage::{Disk, PAGE, Stage, history, wait};
use super::{ALL, channel, says};
use crate::{ConnectionKey, HubSettings, Interest, Shard, ShardEvent, ShardMessage};

const EVENTS: Wire = Wire::Events(Form::Payload);
const OF_MANY: Wire = Wire::EventsOfMany(Form::Payload);

struct Readers {
    stage: Stage,
    rules: Arc<Namespace>,
}

impl Readers {
    fn new(disk: &Disk, settings: HubSettings) -> Self {
        let mut stage = Stage::new(settings, &disk.store, 1);
        stage.shards[0].write_ids_with(Box::new(|positions| {
            positions.iter().map(|(channel, position)| format!("{channel}.{}-", position.offset)).collect()
        }));
        Self { stage, rules: history() }
    }

    fn shard(&mut self) -> &mut Shard {
        &mut self.stage.shards[0]
    }

    /// Joins as the server does. Says what was recovered.
    fn join(&mut self, wire: Wire, name: &str, interest: Interest, recover: Option<Recover>) -> (ConnectionKey, u64) {
        let key = self.shard().add(wire);
        (key, self.join_also(key, name, interest, recover, PAGE))
    }

    fn join_also(
        &mut self,
        key: ConnectionKey,
        name: &str,
        interest: Interest,
        recover: Option<Recover>,
        limit: PageLimit,
    ) -> u64 {
        let (name, rules) = (channel(name), self.rules.clone());
        self.shard().subscribe(key, &name, &rules, interest);
        let recovered = wait(self.stage.hub.recover(&name, &rules, recover.as_ref(), limit)).unwrap();
        let position = recovered.result.position.clone().unwrap();
        let first = position.offset + 1;
        self.shard().mark(key, &name, position);
        self.shard().replay(key, &name, first, recovered.result.entries);
        self.shard().go_live(key, &name, recovered.next, recovered.more);
        recovered.next
    }

    fn say(&mut self, name: &str, event: &str, words: &str) {
        let tags = [(EVENT_TAG.to_owned(), event.to_owned())].into();
        self.publish(name, Publication { tags, ..says(words) });
    }

    fn publish(&mut self, name: &str, publication: Publication) {
        wait(self.stage.broker.publish(&channel(name), &self.rules, publication.into())).unwrap();
        self.stage.hand_over_all();
        let mut messages: Vec<ShardMessage> = Vec::new();
        self.stage.hub.shards()[0].take(&mut messages, 1_000);
        messages.iter().for_each(|message| self.shard().handle(message));
    }

    /// What was put into the outbox, with the ids of one channel cut to their offsets.
    fn heard(&mut self, key: ConnectionKey) -> String {
        let frames = self.shard().outbox(key).unwrap().take_all();
        self.shard().written(key);
        let text = String::from_utf8(frames.concat()).unwrap();
        text.lines()
            .map(|line| match line.strip_prefix("id: ").and_then(|id| id.split_once('-')) {
                Some((offset, digest)) if digest.len() == 16 => format!("{offset};"),
                _ if line.is_empty() => String::new(),
                _ => format!("{line};"),
            })
            .collect()
    }
}

fn only(event: &str) -> Interest {
    Interest { filter: Some(Arc::new(Filter::events([event]).unwrap())), ..Interest::default() }
}

#[test]
fn what_a_filter_holds_back_moves_the_reader_on_all_the_same() {
    let disk = Disk::new();
    let mut readers = Readers::new(&disk, HubSettings::default());
    let (all, _) = readers.join(EVENTS, "a", Interest::default(), None);
    let (turns, _) = readers.join(EVENTS, "a", only("turn"), None);
    for (event, words) in [("turn", "1"), ("vote", "2"), ("turn", "3"), ("vote", "4")] {
        readers.say("a", event, words);
    }
    assert_eq!(
        readers.heard(all),
        "1;event: turn;data: \"1\";2;event: vote;data: \"2\";3;event: turn;data: \"3\";4;event: vote;data: \"4\";"
    );
    assert_eq!(readers.heard(turns), "1;event: turn;data: \"1\";3;event: turn;data: \"3\";");
    assert!(readers.shard().has_moved(turns) && !readers.shard().has_moved(all));
    assert!(readers.shard().id_line(turns).starts_with(b"id: 4-"));
    assert!(!readers.shard().has_moved(turns));

    // Changed on the open connection: what comes is judged anew, and nothing is lost between.
    readers.shard().set_filter(turns, &channel("a"), only("vote").filter);
    readers.say("a", "turn", "5");
    readers.say("a", "vote", "6");
    readers.shard().set_filter(turns, &channel("a"), None);
    readers.say("a", "turn", "7");
    assert_eq!(readers.heard(turns), "6;event: vote;data: \"6\";7;event: turn;data: \"7\";");
}

#[test]
fn a_filter_holds_on_replay_too() {
    let disk = Disk::new();
    let mut readers = Readers::new(&disk, HubSettings::default());
    for n in 1..=7 {
        readers.say("a", if n % 3 == 0 { "turn" } else { "vote" }, &n.to_string());
    }
    let reader = readers.shard().add(EVENTS);
    let next = readers.join_also(reader, "a", only("turn"), Some(Recover::PagesFromOldest), ALL);
    assert_eq!(next, 8);
    assert_eq!(readers.heard(reader), "3;event: turn;data: \"3\";6;event: turn;data: \"6\";");
    assert!(readers.shard().id_line(reader).starts_with(b"id: 7-"));
}

#[test]
fn a_reader_far_behind_gets_everything_page_by_page() {
    let disk = Disk::new();
    let mut readers = Readers::new(&disk, HubSettings::default());
    for n in 1..=7 {
        readers.say("a", "turn", &n.to_string());
    }
    let key = readers.shard().add(EVENTS);
    let page = PageLimit { entries: 3, bytes: 1_000 };
    let next = readers.join_also(key, "a", Interest::default(), Some(Recover::PagesFromOldest), page);
    assert_eq!(next, 4);
    readers.say("a", "turn", "8");
    let mut heard = readers.heard(key);
    while let Some(event) = readers.shard().poll_event() {
        let ShardEvent::CatchUp(_, missed) = event else { panic!("{event:?}") };
        let found = wait(readers.stage.hub.catch_up(&missed, page)).unwrap();
        readers.shard().caught_up(key, &missed.channel, Ok(found));
        heard += &readers.heard(key);
    }
    readers.say("a", "turn", "9");
    heard += &readers.heard(key);
    let expected: String = (1..=9).map(|n| format!("{n};event: turn;data: \"{n}\";")).collect();
    assert_eq!(heard, expected);
}

#[test]
fn readers_of_many_channels_have_ids_of_their_own_before_the_shared_bytes() {
    let disk = Disk::new();
    let mut readers = Readers::new(&disk, HubSettings::default());
    let (key, _) = readers.join(OF_MANY, "b", Interest::default(), None);
    readers.join_also(key, "a", only("turn"), None, PAGE);
    readers.say("b", "turn", "1");
    readers.say("a", "vote", "2");
    readers.say("a", "turn", "3");
    assert_eq!(readers.heard(key), "id: a.0-b.1-;event: turn;data: \"1\";id: a.2-b.1-;event: turn;data: \"3\";");
    readers.say("a", "vote", "4");
    let marks: Vec<(Channel, u64)> =
        readers.shard().marks(key).unwrap().positions().iter().map(|(c, p)| (c.clone(), p.offset)).collect();
    assert_eq!(marks, [(channel("a"), 3), (channel("b"), 1)]);
}

#[test]
fn who_is_deaf_to_itself_hears_others() {
    let disk = Disk::new();
    let mut readers = Readers::new(&disk, HubSettings::default());
    let deaf = Interest { deaf_to: Some("me".parse().unwrap()), ..Interest::default() };
    let (key, _) = readers.join(EVENTS, "a", deaf, None);
    for client in ["me", "you"] {
        let info = Some(ClientInfo { client: Some(client.parse().unwrap()), ..ClientInfo::default() });
        readers.publish("a", Publication { info, ..says(client) });
    }
    assert_eq!(readers.heard(key), "2;data: \"you\";");
}
