//! Versions: state that is not newer than what the channel has adds nothing.

use std::sync::Arc;

use talewire_proto::Version;

use super::{Make, Stand, channel, rules, says};
use crate::{BrokerSettings, Key, Publish, Published};

async fn publish(stand: &Stand, name: &str, number: u64, epoch: &str) -> Published {
    let version = Some(Version { number, epoch: epoch.to_owned() });
    let publish = Publish { version, ..says("x").into() };
    stand.broker.publish(&channel(name), &rules(), publish).await.unwrap()
}

pub(super) async fn an_older_version_adds_nothing(make: Make) {
    let mut stand = make(BrokerSettings::default());
    assert!(!publish(&stand, "state:a", 5, "").await.skipped);
    assert_eq!(stand.publish(&channel("state:a"), "without a version").await, 2);
    for old in [0, 4, 5] {
        let skipped = publish(&stand, "state:a", old, "").await;
        assert_eq!((skipped.skipped, skipped.repeated, skipped.position.offset), (true, false, 2), "{old}");
    }
    let newer = publish(&stand, "state:a", u64::MAX, "").await;
    assert_eq!((newer.skipped, newer.position.offset), (false, 3));
    assert!(publish(&stand, "state:a", u64::MAX, "").await.skipped);
    for offset in 1..=3 {
        assert_eq!(stand.next_entry().await.offset, offset);
    }
    stand.nothing_more(&channel("state:a")).await;
}

pub(super) async fn another_count_begins_anew(make: Make) {
    let stand = make(BrokerSettings::default());
    publish(&stand, "state:a", 9, "one").await;
    assert!(publish(&stand, "state:a", 9, "one").await.skipped);
    assert!(!publish(&stand, "state:a", 1, "two").await.skipped);
    assert!(publish(&stand, "state:a", 1, "two").await.skipped);
    assert!(publish(&stand, "state:a", 1, "").await.skipped, "no count is named: the number decides");
}

pub(super) async fn versions_of_different_channels_never_meet(make: Make) {
    let stand = make(BrokerSettings::default());
    publish(&stand, "state:a", 9, "").await;
    assert!(!publish(&stand, "state:b", 1, "").await.skipped);
}

pub(super) async fn a_repeated_key_goes_before_its_version(make: Make) {
    let stand = make(BrokerSettings::default());
    let again = Publish {
        key: Some(Key { user: "ana".parse().unwrap(), key: "k".into() }),
        version: Some(Version { number: 1, epoch: String::new() }),
        ..says("x").into()
    };
    let first = stand.broker.publish(&channel("state:a"), &rules(), again.clone()).await.unwrap();
    publish(&stand, "state:a", 2, "").await;
    let second = stand.broker.publish(&channel("state:a"), &rules(), again).await.unwrap();
    assert_eq!((second.position, second.repeated, second.skipped), (first.position, true, false));
}

pub(super) async fn one_version_by_many_at_once_is_one_entry(make: Make) {
    let stand = Arc::new(make(BrokerSettings::default()));
    let publish_one = || {
        let stand = stand.clone();
        tokio::spawn(async move { publish(&stand, "state:a", 7, "").await })
    };
    let tasks: Vec<_> = (0..20).map(|_| publish_one()).collect();
    let mut added = 0;
    for task in tasks {
        added += usize::from(!task.await.unwrap().skipped);
    }
    assert_eq!(added, 1);
    assert_eq!(stand.publish(&channel("state:a"), "after").await, 2);
}

pub(super) async fn a_forgotten_history_forgets_its_version(make: Make) {
    let stand = make(BrokerSettings { history_idle_ms: 70_000, ..BrokerSettings::default() });
    publish(&stand, "state:a", 9, "").await;
    (stand.pass_ms)(200_000);
    stand.broker.sweep();
    assert!(!publish(&stand, "state:a", 1, "").await.skipped, "its epoch is another one too");
}
