//! Idempotency keys: a publication that comes again is the same one.

use super::{Make, Stand, channel, rules, says};
use crate::{BrokerSettings, Key, Publish, Published};

async fn publish(stand: &Stand, name: &str, user: &str, key: &str) -> Published {
    let key = Key { user: user.parse().unwrap(), key: key.to_owned() };
    let publish = Publish { key: Some(key), ..says("x").into() };
    stand.broker.publish(&channel(name), &rules(), publish).await.unwrap()
}

pub(super) async fn a_repeated_key_adds_nothing(make: Make) {
    let mut stand = make(BrokerSettings::default());
    let first = publish(&stand, "chat:a", "ana", "k").await;
    stand.publish(&channel("chat:a"), "between").await;
    let again = publish(&stand, "chat:a", "ana", "k").await;
    assert_eq!((&again.position, again.repeated), (&first.position, true));
    assert_eq!(stand.next_entry().await.offset, 1);
    assert_eq!(stand.next_entry().await.offset, 2);
    stand.nothing_more(&channel("chat:a")).await;
    assert_eq!(stand.publish(&channel("chat:a"), "after").await, 3);
}

pub(super) async fn keys_of_different_users_never_meet(make: Make) {
    let stand = make(BrokerSettings::default());
    assert_eq!(publish(&stand, "chat:a", "ana", "k").await.position.offset, 1);
    let other = publish(&stand, "chat:a", "ben", "k").await;
    assert_eq!((other.position.offset, other.repeated), (2, false));
    // Nor do they meet when user and key run together.
    assert!(!publish(&stand, "chat:a", "an", "ak").await.repeated);
    assert!(!publish(&stand, "chat:a", "a", "nak").await.repeated);
    assert!(!publish(&stand, "chat:a", "ana", "").await.repeated);
    assert!(publish(&stand, "chat:a", "ana", "").await.repeated, "the empty key is a key");
}

pub(super) async fn keys_of_different_channels_never_meet(make: Make) {
    let stand = make(BrokerSettings::default());
    publish(&stand, "chat:a", "ana", "k").await;
    assert!(!publish(&stand, "chat:b", "ana", "k").await.repeated);
}

pub(super) async fn keys_go_by_age(make: Make) {
    let stand = make(BrokerSettings { key_age_ms: 10_000, ..BrokerSettings::default() });
    publish(&stand, "chat:a", "ana", "k").await;
    (stand.pass_ms)(8_000);
    assert!(publish(&stand, "chat:a", "ana", "k").await.repeated);
    (stand.pass_ms)(3_000);
    let new = publish(&stand, "chat:a", "ana", "k").await;
    assert_eq!((new.position.offset, new.repeated), (2, false), "asking again does not prolong a key");
    (stand.pass_ms)(8_000);
    assert!(publish(&stand, "chat:a", "ana", "k").await.repeated, "the new one has its own age");
}

pub(super) async fn keys_go_by_number(make: Make) {
    let stand = make(BrokerSettings { keys_per_channel_max: 2, ..BrokerSettings::default() });
    for key in ["1", "2", "3"] {
        assert!(!publish(&stand, "chat:a", "ana", key).await.repeated);
    }
    assert!(publish(&stand, "chat:a", "ana", "2").await.repeated);
    assert!(publish(&stand, "chat:a", "ana", "3").await.repeated);
    assert!(!publish(&stand, "chat:a", "ana", "1").await.repeated, "the oldest went first");
}
