//! Logouts in the database against inboxes that the test reads itself: what is ended when, and what is not.

use std::sync::Arc;
use std::time::Duration;

use talewire_auth::{Auth, AuthSettings, Hosts, Logins, OriginRule, Seal, Tokens};
use talewire_broker::{Broker, BrokerSettings, Control, NodeId, Order, Whom};
use talewire_hub::{Hub, HubSettings};
use talewire_proto::session::Anonymous;
use talewire_proto::{Limits, Namespaces, Payload, UserId};
use talewire_store::{Store, StoreSettings};
use talewire_story::{Stories, StoryLimits};
use tokio::sync::mpsc;

use crate::inbox::{Inboxes, Message};
use crate::node::{About, Node, NodeParts, unix_ms};
use crate::rules::Rules;
use crate::settings::ServerSettings;

/// A node with one thread that is the test, and an inbox of one message.
struct Stage {
    node: Node,
    inboxes: Inboxes,
    inbox: mpsc::Receiver<Message>,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = StoreSettings { path: folder.path().to_owned(), free_bytes_min: 0, ..StoreSettings::default() };
        let store = Store::open(&settings).await.expect("a store");
        let id = NodeId::new();
        let broker = Broker::open(&BrokerSettings::default(), &id).await.expect("it needs nothing");
        let hub = Hub::assemble(HubSettings::default(), store.clone(), broker.clone(), 1).hub;
        let parts = NodeParts {
            id,
            name: "node-a".into(),
            store_name: "stage".into(),
            beat_ms: 1_000,
            orders_age: Duration::from_secs(3_600),
            agreed: Default::default(),
            traces: None,
            settings: ServerSettings::default(),
            rules: Rules::new(Namespaces::new([]), Limits::default()).expect("no schemas"),
            reloads: None,
            anonymous: Anonymous::Refused,
            auth: Auth {
                tokens: Tokens::new(AuthSettings::default()).expect("settings"),
                logins: Logins::new([7; 32]),
            },
            cursors: Seal::new([9; 32]),
            origins: OriginRule::new(&[], Hosts::Any).expect("no origins"),
            stories: Stories::new(store, broker, StoryLimits::default()),
            hub,
            about: About::default(),
            agents: Arc::default(),
        };
        let node = Node::new(parts);
        let (inboxes, mut threads) = Inboxes::new(1, 1);
        node.open_inboxes(&inboxes);
        let inbox = threads.pop().expect("one thread");
        Self { node, inboxes, inbox, _folder: folder }
    }

    /// A user with a connection.
    fn is_here(&self, name: &str) -> UserId {
        assert!(self.node.guard.enter(self.node.hash(name)));
        name.parse().expect("an id")
    }

    /// As another node does.
    async fn logged_out(&self, user: &UserId, issued_at: i64) {
        self.node.store.log_out(user, issued_at, i64::MAX).await.expect("a store");
    }

    /// Whose connections the thread is to end after a look.
    async fn told(&mut self) -> Vec<UserId> {
        self.node.learn_logouts().await.expect("a store");
        let mut users = Vec::new();
        while let Ok(message) = self.inbox.try_recv() {
            if let Message::Control(Control { whom: Whom::Of { user: Some(user), .. }, .. }) = message {
                users.push(user);
            }
        }
        users
    }
}

#[tokio::test]
async fn what_had_no_room_is_told_with_a_later_look() {
    let mut stage = Stage::new().await;
    let (ana, ben) = (stage.is_here("ana"), stage.is_here("ben"));
    let now_ms = unix_ms();
    stage.logged_out(&ana, now_ms).await;
    stage.logged_out(&ben, now_ms).await;
    assert!(stage.inboxes.control(&Control { whom: Whom::Everyone, order: Order::Message(Payload::of(&1)) }));
    assert_eq!(stage.told().await, [], "the inbox is full");
    let token = stage.node.auth.logins.issue(&ben, "Ben", now_ms);
    assert!(stage.node.auth.logins.verify(&token, now_ms).is_err(), "what is not ended yet is not believed any more");
    assert_eq!(stage.told().await, [ana], "there is room for one");
    assert_eq!(stage.told().await, [ben]);
    assert_eq!(stage.told().await, [], "once");
}

#[tokio::test]
async fn a_logout_that_was_broken_off_is_carried_out_by_the_look() {
    let mut stage = Stage::new().await;
    let (ana, now_ms) = (stage.is_here("ana"), unix_ms());
    // Its request went away when the login was not believed any more and nobody had been told.
    stage.logged_out(&ana, now_ms).await;
    stage.node.auth.logins.log_out(&ana, now_ms);
    assert_eq!(stage.told().await, [ana]);
}

#[tokio::test]
async fn a_logout_of_a_login_that_has_ended_does_nothing() {
    let mut stage = Stage::new().await;
    let (ana, ben) = (stage.is_here("ana"), stage.is_here("ben"));
    let now_ms = unix_ms();
    stage.logged_out(&ana, now_ms - stage.node.auth.logins.lifetime_s() * 1_000).await;
    stage.logged_out(&ben, now_ms).await;
    assert_eq!(stage.told().await, [ben]);
    for look in 0..3 {
        assert_eq!(stage.told().await, [], "{look}");
    }
}

#[tokio::test]
async fn a_logout_of_somebody_who_is_not_here_bothers_no_thread() {
    let mut stage = Stage::new().await;
    stage.logged_out(&"cem".parse().expect("an id"), unix_ms()).await;
    assert_eq!(stage.told().await, []);
}
