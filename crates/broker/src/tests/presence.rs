//! Who is subscribed, and who hears of it.

use super::{Make, Stand, channel, client, info};
use crate::{BrokerError, BrokerSettings, Message, PresenceStats, Tell};

async fn present(stand: &Stand) -> Vec<String> {
    let mut all = stand.broker.presence(&channel("chat:a")).await.unwrap();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.iter().map(|(client, info)| format!("{}={}", client.as_str(), info.user.as_str())).collect()
}

async fn stats(stand: &Stand) -> (u32, u32) {
    let PresenceStats { clients, users } = stand.broker.presence_stats(&channel("chat:a")).await.unwrap();
    (clients, users)
}

async fn enter(stand: &Stand, user: &str, id: &str) -> Result<(), BrokerError> {
    stand.broker.enter(&channel("chat:a"), &client(id), &info(user, id), Tell::Nobody).await
}

pub(super) async fn who_enters_is_listed_until_it_leaves(make: Make) {
    let mut stand = make(BrokerSettings::default());
    assert_eq!((present(&stand).await, stats(&stand).await), (vec![], (0, 0)));
    enter(&stand, "ana", "1").await.unwrap();
    enter(&stand, "ana", "2").await.unwrap();
    enter(&stand, "ben", "3").await.unwrap();
    enter(&stand, "ben", "3").await.unwrap();
    assert_eq!(present(&stand).await, ["1=ana", "2=ana", "3=ben"]);
    assert_eq!(stats(&stand).await, (3, 2));
    assert!(stand.broker.presence(&channel("chat:b")).await.unwrap().is_empty());
    stand.broker.leave(&channel("chat:a"), &client("1"), Tell::Nobody).await;
    assert_eq!(stats(&stand).await, (2, 2));
    stand.broker.leave(&channel("chat:a"), &client("2"), Tell::Nobody).await;
    stand.broker.leave(&channel("chat:a"), &client("3"), Tell::Nobody).await;
    assert_eq!((present(&stand).await, stats(&stand).await), (vec![], (0, 0)));
    stand.nothing_more(&channel("chat:a")).await;
}

pub(super) async fn leaving_what_was_not_entered_tells_nobody(make: Make) {
    let mut stand = make(BrokerSettings::default());
    stand.broker.leave(&channel("chat:a"), &client("1"), Tell::Subscribers).await;
    stand.nothing_more(&channel("chat:a")).await;
    enter(&stand, "ana", "1").await.unwrap();
    stand.broker.leave(&channel("chat:a"), &client("2"), Tell::Subscribers).await;
    stand.broker.leave(&channel("chat:b"), &client("1"), Tell::Subscribers).await;
    stand.nothing_more(&channel("chat:a")).await;
    assert_eq!(present(&stand).await, ["1=ana"]);
}

pub(super) async fn subscribers_hear_only_if_told(make: Make) {
    let mut stand = make(BrokerSettings::default());
    let chat = channel("chat:a");
    stand.broker.enter(&chat, &client("1"), &info("ana", "1"), Tell::Subscribers).await.unwrap();
    match stand.next().await.message {
        Message::Join(told) => assert_eq!(told, info("ana", "1")),
        other => panic!("{other:?}"),
    }
    stand.broker.leave(&chat, &client("1"), Tell::Subscribers).await;
    match stand.next().await.message {
        Message::Leave(told) => assert_eq!(told, info("ana", "1")),
        other => panic!("{other:?}"),
    }
    stand.broker.leave(&chat, &client("1"), Tell::Subscribers).await;
    stand.nothing_more(&chat).await;
}

pub(super) async fn a_full_list_refuses_and_leaves_nothing_behind(make: Make) {
    let mut stand = make(BrokerSettings { presence_per_channel_max: 1, ..BrokerSettings::default() });
    let chat = channel("chat:a");
    enter(&stand, "ana", "1").await.unwrap();
    let refused = stand.broker.enter(&chat, &client("2"), &info("ben", "2"), Tell::Subscribers).await;
    assert!(matches!(refused, Err(BrokerError::Full(_))));
    enter(&stand, "ana", "1").await.unwrap();
    stand.broker.leave(&chat, &client("2"), Tell::Subscribers).await;
    stand.nothing_more(&chat).await;
    assert_eq!(present(&stand).await, ["1=ana"]);
    stand.broker.leave(&chat, &client("1"), Tell::Nobody).await;
    enter(&stand, "ben", "2").await.unwrap();
    let none = make(BrokerSettings { presence_per_channel_max: 0, ..BrokerSettings::default() });
    assert!(enter(&none, "ana", "1").await.is_err());
    assert_eq!(stats(&none).await, (0, 0));
}
