//! Guests, logouts and secrets outlive the process.

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

pub(crate) async fn logouts_stay_until_their_logins_would_have_ended(home: &Home) {
    let store = home.open().await;
    let now_ms = store.insert_guest(&user("guest-ana"), "Ana").await.unwrap().created_at;
    let hour_ms = 3_600_000;
    for (number, expires_at) in [(1, now_ms + hour_ms), (2, now_ms + 3 * hour_ms), (3, now_ms + 3 * hour_ms)] {
        store.log_out(&user("guest-ana"), number, expires_at).await.unwrap();
        store.log_out(&user("guest-ana"), number, expires_at).await.unwrap();
    }
    store.close().await;

    let store = home.open().await;
    let all = store.logouts(0, 10).await.unwrap();
    assert_eq!(
        all.iter().map(|logout| (logout.user.as_str(), logout.issued_at)).collect::<Vec<_>>(),
        [("guest-ana", 1), ("guest-ana", 2), ("guest-ana", 3)]
    );
    for (name, issued_at, is_out) in [("guest-ana", 2, true), ("guest-ana", 4, false), ("guest-ben", 2, false)] {
        assert_eq!(store.is_logged_out(&user(name), issued_at).await.unwrap(), is_out, "{name} {issued_at}");
    }
    assert_eq!(store.logouts(0, 2).await.unwrap(), all[..2]);
    assert_eq!(store.logouts(all[1].seq, 10).await.unwrap(), all[2..]);
    assert_eq!(store.logouts(all[2].seq, 10).await.unwrap(), []);
    store.shift_clock(2 * hour_ms);
    store.prune().await.unwrap();
    assert_eq!(store.logouts(0, 10).await.unwrap(), all[1..], "its login has ended");
    // Places are never given again, or nobody who has read so far would find the next one.
    store.shift_clock(2 * hour_ms);
    store.prune().await.unwrap();
    store.log_out(&user("guest-ben"), 9, now_ms + 9 * hour_ms).await.unwrap();
    assert!(!store.is_logged_out(&user("guest-ana"), 1).await.unwrap(), "pruned");
    let next = store.logouts(all[2].seq, 10).await.unwrap();
    assert_eq!(next.iter().map(|logout| logout.issued_at).collect::<Vec<_>>(), [9]);
    // Logouts themselves put away what has ended.
    store.shift_clock(20 * hour_ms);
    store.log_out(&user("guest-cem"), 10, now_ms + 99 * hour_ms).await.unwrap();
    let rest = store.logouts(0, 10).await.unwrap();
    assert_eq!(rest.iter().map(|logout| logout.issued_at).collect::<Vec<_>>(), [10]);
    store.close().await;
}
