//! One conformance suite for every backend: what a broker promises, asked through its public methods alone.
//!
//! [`suite!`] makes one test of each case for one backend, which is given as a function from settings to a [`Stand`].

#![allow(clippy::unwrap_used)]

mod control;
mod generations;
mod history;
mod keys;
mod nodes;
mod occupancy;
mod order;
mod pages;
mod presence;
mod stands;
mod versions;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use talewire_proto::{
    Channel, ClientId, ClientInfo, Entry, GenerationId, Namespace, Payload, Publication, StoryId, UserId,
};
use tokio::sync::mpsc;

use crate::{Broker, BrokerKind, BrokerSettings, Delivery, Message, NatsSettings, NodeId, PageLimit, RedisSettings};

/// Everything that is kept.
const ALL: PageLimit = PageLimit { entries: 10_000, bytes: 100_000_000 };

/// A broker on a stand: what it delivers, and time that passes when told to.
struct Stand {
    broker: Broker,
    /// Whose broker it is.
    node: NodeId,
    delivered: mpsc::UnboundedReceiver<Delivery>,
    /// Another node over the same broker.
    another: Box<dyn Fn(&NodeId) -> Broker + Send + Sync>,
    /// Lets time pass for everything that the broker keeps.
    pass_ms: Box<dyn Fn(u64) + Send + Sync>,
}

type Make = fn(BrokerSettings) -> Stand;

impl Stand {
    fn of(
        broker: Broker,
        node: NodeId,
        another: Box<dyn Fn(&NodeId) -> Broker + Send + Sync>,
        pass_ms: Box<dyn Fn(u64) + Send + Sync>,
    ) -> Self {
        let (sender, delivered) = mpsc::unbounded_channel();
        broker.deliver_to(Arc::new(move |delivery| {
            let _ = sender.send(delivery);
        }));
        Self { broker, node, delivered, another, pass_ms }
    }

    async fn next(&mut self) -> Delivery {
        let next = tokio::time::timeout(Duration::from_secs(10), self.delivered.recv()).await;
        next.expect("a delivery within ten seconds").unwrap()
    }

    async fn next_entry(&mut self) -> Arc<Entry> {
        match self.next().await.message {
            Message::Entry { entry, .. } => entry,
            other => panic!("not an entry: {other:?}"),
        }
    }

    /// That nothing was delivered on `channel` since the last delivery that was taken.
    async fn nothing_more(&mut self, channel: &Channel) {
        self.broker.signal(channel, says("the end")).await.unwrap();
        match self.next().await.message {
            Message::Signal(publication) => assert_eq!(text(&publication), "the end"),
            other => panic!("nothing was to come, but this did: {other:?}"),
        }
    }

    async fn publish(&self, channel: &Channel, words: &str) -> u64 {
        self.broker.publish(channel, &rules(), says(words).into()).await.unwrap().position.offset
    }
}

fn in_process(settings: BrokerSettings) -> Stand {
    let node = NodeId::new();
    let broker = opened(&settings, &node);
    let clock = broker.clone();
    let first = broker.clone();
    let another = move |node: &NodeId| first.beside(node);
    Stand::of(broker, node, Box::new(another), Box::new(move |by_ms| clock.shift_clock(by_ms)))
}

/// A Redis server of the test's own.
fn redis_server(settings: BrokerSettings) -> Stand {
    let server = Arc::new(talewire_stand::redis::Redis::start());
    let urls = vec![server.url()];
    let redis = RedisSettings { urls, ..RedisSettings::default() };
    let settings = BrokerSettings { kind: BrokerKind::Redis, redis, ..settings };
    let node = NodeId::new();
    let broker = opened(&settings, &node);
    let (clock, shifted) = (broker.clone(), AtomicU64::new(0));
    let pass_ms = move |by_ms| {
        // What Redis itself forgets, and what scripts forget.
        server.pass_ms(by_ms);
        clock.shift_clock(shifted.fetch_add(by_ms, Ordering::Relaxed) + by_ms);
    };
    let another = move |node: &NodeId| opened(&settings, node);
    listening_to_all(Stand::of(broker, node, Box::new(another), Box::new(pass_ms)))
}

/// A NATS server of the test's own.
fn nats_server(settings: BrokerSettings) -> Stand {
    let server = talewire_stand::nats::Nats::start();
    let nats = NatsSettings { urls: vec![server.url()], ..NatsSettings::default() };
    let settings = BrokerSettings { kind: BrokerKind::Nats, nats, ..settings };
    let node = NodeId::new();
    let broker = opened(&settings, &node);
    let clock = broker.clone();
    let pass_ms = move |by_ms| {
        // The server goes with the stand.
        let _ = &server;
        clock.shift_clock(by_ms);
    };
    let another = move |node: &NodeId| opened(&settings, node);
    listening_to_all(Stand::of(broker, node, Box::new(another), Box::new(pass_ms)))
}

/// Hears of every channel that the suite delivers in.
fn listening_to_all(stand: Stand) -> Stand {
    let story = StoryId::from_random([7; 13]);
    let generations = (1..4).map(|n| Channel::generation(&story, &GenerationId::from_random([n; 13])));
    let names = ["chat:a", "chat:b", "chat:c", "chat:0", "chat:1", "chat:2", "chat:3", "state:a", "state:b", "story:x"];
    for channel in names.into_iter().map(channel).chain(generations) {
        stand.broker.listen(&channel);
        let listening = || tokio::runtime::Handle::current().block_on(stand.broker.listening(&channel));
        tokio::task::block_in_place(listening).unwrap();
    }
    stand
}

/// Opens a broker from within a test's runtime.
fn opened(settings: &BrokerSettings, node: &NodeId) -> Broker {
    let open = || tokio::runtime::Handle::current().block_on(Broker::open(settings, node));
    tokio::task::block_in_place(open).unwrap()
}

fn channel(name: &str) -> Channel {
    name.parse().unwrap()
}

fn rules() -> Namespace {
    Namespace { history_size: 1_000, history_age_ms: 60_000, ..Namespace::default() }
}

fn says(words: &str) -> Publication {
    Publication { data: Some(Payload::of(&words)), ..Publication::default() }
}

fn text(publication: &Publication) -> String {
    publication.data.as_ref().unwrap().read().unwrap()
}

fn client(name: &str) -> ClientId {
    name.parse().unwrap()
}

fn info(user: &str, client: &str) -> Arc<ClientInfo> {
    let user: UserId = user.parse().unwrap();
    Arc::new(ClientInfo { user, client: Some(client.parse().unwrap()), ..ClientInfo::default() })
}

macro_rules! suite {
    ($backend:ident and $other:ident, and in one test $third:ident: $($cases:tt)+) => {
        suite! { $backend: $($cases)+ }
        suite! { $other: $($cases)+ }
        suite! { in one test $third: $($cases)+ }
    };
    (in one test $backend:ident: $($subject:ident { $($case:ident)+ })+) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $backend() {
            let stand = stands::$backend();
            $($(
                println!("{}::{}", stringify!($subject), stringify!($case));
                $subject::$case(stands::case).await;
            )+)+
            drop(stand);
        }
    };
    ($backend:ident: $($subject:ident { $($case:ident)+ })+) => {
        mod $backend {
            $(mod $subject {$(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::super::$subject::$case(super::super::$backend).await;
                }
            )+})+
        }
    };
}

suite! { in_process:
    history {
        offsets_rise_by_one_and_the_epoch_stays
        an_entry_is_delivered_as_it_was_published
        old_entries_go_by_number
        old_entries_go_by_age
        ages_without_end_are_no_fault
        a_silent_channel_is_forgotten_with_its_epoch
        only_so_many_channels_are_kept
        only_so_many_bytes_are_kept
        asking_about_a_channel_keeps_nothing
        what_the_store_committed_is_announced
        what_is_removed_is_missed_by_whoever_was_behind_it
    }
    keys {
        a_repeated_key_adds_nothing
        keys_of_different_users_never_meet
        keys_of_different_channels_never_meet
        keys_go_by_age
        keys_go_by_number
    }
    versions {
        an_older_version_adds_nothing
        another_count_begins_anew
        versions_of_different_channels_never_meet
        a_repeated_key_goes_before_its_version
        one_version_by_many_at_once_is_one_entry
        a_forgotten_history_forgets_its_version
    }
    pages {
        every_page_of_a_short_history
        limits_by_entries_and_bytes
        a_trimmed_page_says_so
        an_empty_history_has_a_position
    }
    presence {
        who_enters_is_listed_until_it_leaves
        leaving_what_was_not_entered_tells_nobody
        subscribers_hear_only_if_told
        a_full_list_refuses_and_leaves_nothing_behind
    }
    generations {
        a_text_grows_and_ends
        places_are_counted_in_utf16_units
        a_text_has_no_holes
        older_attempts_are_fenced
        an_ended_generation_is_fenced
        an_end_without_a_beginning
        an_end_by_an_attempt_that_never_began
        a_text_too_long_is_refused_whole
        an_ended_text_is_forgotten_by_age
        a_text_that_nobody_ends_is_forgotten_by_age
        only_so_many_are_kept
    }
    nodes {
        a_node_is_listed_until_it_departs
        letters_reach_the_node_that_is_named
        a_lease_is_kept_and_given_back
        a_mark_counts_once
        one_mark_by_many_at_once_is_spent_once
        tops_tell_where_channels_stand
        what_is_listened_to_is_delivered
    }
    occupancy {
        the_first_and_the_last_of_all_nodes_are_told
        many_at_once_end_in_the_truth
        a_node_that_departs_gives_up_what_it_held
        who_does_not_want_to_hear_is_not_counted
    }
    control {
        orders_reach_the_node_or_the_caller_hears_of_it
    }
    order {
        deliveries_of_a_channel_come_in_its_order
        one_key_by_many_at_once_is_one_entry
        deltas_come_in_the_order_of_the_text
        wake_ups_reach_everybody_who_listens
    }
}

// How much is kept in all is for Redis to say (`maxmemory`) and for the streams' own limits, and wake-ups of many nodes come when they come:
// `redis/tests` and `nats/tests`.
suite! { redis_server and nats_server, and in one test redis_cluster:
    history {
        offsets_rise_by_one_and_the_epoch_stays
        an_entry_is_delivered_as_it_was_published
        old_entries_go_by_number
        old_entries_go_by_age
        ages_without_end_are_no_fault
        a_silent_channel_is_forgotten_with_its_epoch
        asking_about_a_channel_keeps_nothing
        what_the_store_committed_is_announced
        what_is_removed_is_missed_by_whoever_was_behind_it
    }
    keys {
        a_repeated_key_adds_nothing
        keys_of_different_users_never_meet
        keys_of_different_channels_never_meet
        keys_go_by_age
        keys_go_by_number
    }
    versions {
        an_older_version_adds_nothing
        another_count_begins_anew
        versions_of_different_channels_never_meet
        a_repeated_key_goes_before_its_version
        one_version_by_many_at_once_is_one_entry
        a_forgotten_history_forgets_its_version
    }
    pages {
        every_page_of_a_short_history
        limits_by_entries_and_bytes
        a_trimmed_page_says_so
        an_empty_history_has_a_position
    }
    presence {
        who_enters_is_listed_until_it_leaves
        leaving_what_was_not_entered_tells_nobody
        subscribers_hear_only_if_told
        a_full_list_refuses_and_leaves_nothing_behind
    }
    generations {
        a_text_grows_and_ends
        places_are_counted_in_utf16_units
        a_text_has_no_holes
        older_attempts_are_fenced
        an_ended_generation_is_fenced
        an_end_without_a_beginning
        an_end_by_an_attempt_that_never_began
        a_text_too_long_is_refused_whole
        an_ended_text_is_forgotten_by_age
        a_text_that_nobody_ends_is_forgotten_by_age
    }
    nodes {
        a_node_is_listed_until_it_departs
        letters_reach_the_node_that_is_named
        a_lease_is_kept_and_given_back
        a_mark_counts_once
        one_mark_by_many_at_once_is_spent_once
        tops_tell_where_channels_stand
        what_is_listened_to_is_delivered
    }
    occupancy {
        the_first_and_the_last_of_all_nodes_are_told
        many_at_once_end_in_the_truth
        a_node_that_departs_gives_up_what_it_held
        who_does_not_want_to_hear_is_not_counted
    }
    control {
        orders_reach_the_node_or_the_caller_hears_of_it
    }
    order {
        deliveries_of_a_channel_come_in_its_order
        one_key_by_many_at_once_is_one_entry
        deltas_come_in_the_order_of_the_text
    }
}
