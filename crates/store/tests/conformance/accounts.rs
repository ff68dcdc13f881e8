//! Guests and secrets outlive the process.

use crate::Home;
use crate::world::user;

pub(crate) async fn guests_and_secrets_stay(home: &Home) {
    let store = home.open().await;
    let ana = store.insert_guest(&user("guest-ana"), "Ana").await.unwrap();
    assert!(ana.guest);
    let secret = store.secret("logins").await.unwrap();
    assert_ne!(secret, store.secret("cursors").await.unwrap());
    store.close().await;

    let store = home.open().await;
    assert_eq!(store.user(&ana.id).await.unwrap(), Some(ana.clone()));
    assert_eq!(store.insert_guest(&ana.id, "Somebody else").await.unwrap(), ana);
    assert_eq!(store.secret("logins").await.unwrap(), secret);
    assert_eq!(store.user(&user("nobody")).await.unwrap(), None);
    store.shift_clock(60_000);
    store.seen(&ana.id).await.unwrap();
    assert!(store.user(&ana.id).await.unwrap().unwrap().seen_at >= ana.seen_at + 60_000);
    store.close().await;
}
