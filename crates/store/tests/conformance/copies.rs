//! Everything copied from one store into another, into a file and back, for every pair of backends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use talewire_proto::{Channel, Publication, Since, Version};
use talewire_store::{
    Append, Direction, Epochs, Key, Store, StoreError, StoreSettings, StoreUrl, backup, move_all, restore,
};

use crate::Home;
use crate::server::{Server, ask};
use crate::world::{
    WHOLE, add_turn, append, begin, channel, decide, done, main_branch, request, story_id, texts, user,
};

const SAID: &str = "a word, a \u{1f98a} and\na line";

fn keyed(number: usize) -> Append {
    let key = Some(Key { user: user("ana"), key: format!("k{number}") });
    Append { key, ..append(&channel("copied:keys"), SAID) }
}

fn versioned(number: u64) -> Append {
    let version = Some(Version { number, epoch: "v".into() });
    Append { version, ..append(&channel("copied:versions"), "x") }
}

/// Something in every table.
async fn fill(store: &Store) {
    let long = (0..1_200).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.append(append(&channel("copied:long"), &number.to_string())).await.unwrap() })
    });
    for one in long.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    store.append(keyed(1)).await.unwrap();
    store.append(versioned(u64::MAX - 3)).await.unwrap();
    let gone = channel("copied:gone");
    let tags = BTreeMap::from([("kind".to_owned(), "x".to_owned())]);
    let publication = Publication { tags, time_ms: 5, ..Publication::default() };
    store.append(Append { channel: gone.clone(), publication, key: None, version: None }).await.unwrap();
    store.append(append(&gone, "secret")).await.unwrap();
    store.erase(&gone).await.unwrap();
    let story = begin(store, "copied").await;
    add_turn(store, &story, &main_branch("copied"), "copied-t1", Some("kept")).await;
    let job = request(store, "copied", "copied-g").await.unwrap();
    store.claim(&"w".parse().unwrap(), 60_000).await.unwrap().unwrap();
    assert!(matches!(store.finish(done(&job, 1, SAID)).await.unwrap(), talewire_store::Finished::Committed { .. }));
    request(store, "copied", "copied-open").await.unwrap();
    store.insert_guest(&user("guest"), "Guest").await.unwrap();
    store.log_out(&user("guest"), 5, i64::MAX).await.unwrap();
    store.keep_order("end".into()).await.unwrap();
    invite(store).await;
}

async fn invite(store: &Store) {
    let rule: talewire_store::Rule = Box::new(|facts| {
        let invite = talewire_store::Invite {
            code: talewire_store::InviteCode::new("code"),
            role: talewire_store::Role::Reader,
            created_at: facts.now_ms,
            expires_at: facts.now_ms + 3_600_000,
            uses: 3,
        };
        let effects = vec![talewire_store::Effect::Invite(invite)];
        Ok(talewire_store::Decision { story: story_id("copied"), effects, answer: talewire_proto::Payload::of(&()) })
    });
    decide(store, "ana", talewire_store::About::Story(story_id("copied")), None, rule).await;
}

/// All that can be asked about what [`fill`] has written, as text; `epochs` if they are to be the same too.
async fn all(store: &Store, epochs: bool) -> String {
    let mut said = Vec::new();
    for name in ["copied:long", "copied:keys", "copied:versions", "copied:gone", "story:copied"] {
        let name: Channel = channel(name);
        let page = store.history(&name, Since::Oldest, 10_000, 10_000_000, Direction::Forward).await.unwrap();
        assert!(page.complete);
        said.push(format!("{name} {:?}", page.entries));
        said.push(page.top.offset.to_string());
        if epochs {
            said.push(page.top.epoch.as_str().to_owned());
        }
    }
    let story = story_id("copied");
    let view = store.story_view(&story, None, WHOLE).await.unwrap().unwrap();
    let (_, turn) = store.generation(&story, &"copied-g".parse().unwrap()).await.unwrap().unwrap();
    said.push(format!("{:?} {:?} {:?} {:?}", view.story, view.members, view.branches, view.page));
    // The words themselves: `Debug` shows their length alone.
    said.extend(view.page.turns.iter().map(|turn| turn.text.as_str().to_owned()));
    said.push(format!("{:?} {turn:?} {:?}", view.generations, store.invites(&story).await.unwrap()));
    said.push(format!("{:?} {}", store.user(&user("guest")).await.unwrap(), store.open_jobs().await.unwrap()));
    said.push(format!("{:?}", store.logouts(0, 10).await.unwrap()));
    said.push(format!("{:?} {:?}", store.secret("logins").await.unwrap(), store.secret("cursors").await.unwrap()));
    said.join("\n")
}

/// What was there is known, and what comes goes on from it.
async fn goes_on(store: &Store) {
    let again = store.append(keyed(1)).await.unwrap();
    assert_eq!((again.position.offset, again.repeated), (1, true), "the key is known");
    assert_eq!(store.append(keyed(2)).await.unwrap().position.offset, 2);
    assert!(store.append(versioned(u64::MAX - 4)).await.unwrap().entry.is_none(), "the version is known");
    assert_eq!(store.append(append(&channel("copied:long"), "more")).await.unwrap().position.offset, 1_201);
    assert_eq!(store.append(append(&channel("copied:new"), "x")).await.unwrap().position.offset, 1);
    let story = story_id("copied");
    let main = main_branch("copied");
    assert!(add_turn(store, &story, &main, "copied-t9", Some("kept")).await.repeated, "the call is known");
    add_turn(store, &story, &main, "copied-t10", None).await;
    store.insert_guest(&user("another"), "Another").await.unwrap();
    let job = store.claim(&"w".parse().unwrap(), 60_000).await.unwrap().unwrap();
    assert_eq!(job.generation.id.as_str(), "copied-open");
    let mark = store.log_mark().await.unwrap();
    store.append(append(&channel("copied:long"), "told")).await.unwrap();
    assert_eq!(store.grown(mark).await.unwrap().1, [(channel("copied:long"), 1_202)]);
}

async fn moved(from: &Home, to: &Home) {
    let store = from.open().await;
    fill(&store).await;
    let before = all(&store, true).await;
    let in_use = move_all(&from.settings, &to.settings, &mut |_| {}).await.err().unwrap();
    assert!(in_use.to_string().contains("in use"), "{in_use}");
    left(from, store).await;

    let mut steps = Vec::new();
    let copied = move_all(&from.settings, &to.settings, &mut |step| steps.push(step)).await.unwrap();
    assert!(steps.len() > 12 && steps.iter().all(|step| step.rows <= step.of && step.of > 0), "{steps:?}");
    let log = copied.iter().find(|(table, _)| *table == "log").unwrap().1;
    assert!(log > 1_200 && copied.iter().all(|(_, rows)| *rows > 0), "{copied:?}");

    let refused = Store::open(&from.settings).await.err().unwrap();
    assert!(refused.to_string().contains("the data was moved to"), "{refused}");
    let store = to.open().await;
    assert_eq!(all(&store, true).await, before);
    goes_on(&store).await;
    left(to, store).await;
    // Nothing is ever written over something.
    let other = Home::folder();
    other.open().await.close().await;
    let refused = move_all(&other.settings, &to.settings, &mut |_| {}).await.err().unwrap();
    assert!(refused.to_string().contains("holds data already"), "{refused}");
    other.open().await.close().await;
}

async fn saved(from: &Home, to: &Home, folder: &Path) -> PathBuf {
    let file = folder.join(format!("{}-{}.talewire", from.is_alone, to.is_alone));
    let store = from.open().await;
    fill(&store).await;
    let before = all(&store, false).await;
    let epoch = store.top(&channel("copied:long")).await.unwrap().epoch;
    // Beside a store in use that is written to all the time.
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0.. {
                if store.append(append(&channel("beside:1"), &number.to_string())).await.is_err() {
                    return;
                }
            }
        })
    };
    let copied = backup(&from.settings, &file, &mut |_| {}).await.unwrap();
    assert!(copied.iter().all(|(_, rows)| *rows > 0), "{copied:?}");
    let refused = backup(&from.settings, &file, &mut |_| {}).await.err().unwrap();
    assert!(refused.to_string().contains("is there already"), "{refused}");
    assert_eq!(all(&store, false).await, before, "it goes on");
    store.close().await;
    writer.await.unwrap();
    // And of one that nobody uses.
    settled(&from.settings).await;
    backup(&from.settings, &folder.join(format!("{}-{}-later", from.is_alone, to.is_alone)), &mut |_| {})
        .await
        .unwrap();

    restore(&file, &to.settings, Epochs::Fresh, &mut |_| {}).await.unwrap();
    let refused = restore(&file, &to.settings, Epochs::Fresh, &mut |_| {}).await.err().unwrap();
    assert!(refused.to_string().contains("holds data already"), "{refused}");
    let store = to.open().await;
    assert_eq!(all(&store, false).await, before);
    assert_ne!(store.top(&channel("copied:long")).await.unwrap().epoch, epoch, "entries may be missing: this is told");
    let beside = texts(&store, &channel("beside:1")).await;
    assert_eq!(beside, (0..beside.len()).map(|number| number.to_string()).collect::<Vec<_>>(), "one moment");
    goes_on(&store).await;
    store.close().await;

    let kept = Home::folder();
    restore(&file, &kept.settings, Epochs::Kept, &mut |_| {}).await.unwrap();
    assert_eq!(kept.open().await.top(&channel("copied:long")).await.unwrap().epoch, epoch);
    file
}

/// A file that is not whole or not true is refused, and leaves nothing behind.
async fn damaged(file: &Path, folder: &Path, target: &Home) {
    let whole = std::fs::read(file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x10;
    for bytes in [&whole[..whole.len() - 9], &whole[..whole.len() / 2], &whole[..3], &flipped] {
        let path = folder.join("damaged");
        std::fs::write(&path, bytes).unwrap();
        let error = restore(&path, &target.settings, Epochs::Fresh, &mut |_| {}).await.err().unwrap();
        let is_of_the_file = |why: &str| why.contains("is damaged") || why.contains("is no backup");
        assert!(matches!(&error, StoreError::Refused(why) if is_of_the_file(why)), "{error}");
    }
    let refused = Store::open(&target.settings).await.err().unwrap().to_string();
    assert!(refused.contains("did not come to its end"), "nobody begins empty by mistake: {refused}");
    // What was broken off is no obstacle.
    restore(file, &target.settings, Epochs::Fresh, &mut |_| {}).await.unwrap();
    settled(&target.settings).await;
    target.open().await.close().await;
    if !target.is_alone {
        // An older program, which does not know the mark, may begin where it stands: what it keeps is nobody's to remove.
        let url = target.settings.url.to_string();
        ask(&url, "COMMENT ON SCHEMA talewire IS 'incomplete'").await;
        target.open().await.close().await;
    }
}

/// Closes a store, so that nobody uses its home any more.
async fn left(home: &Home, store: Store) {
    store.close().await;
    drop(store);
    settled(&home.settings).await;
}

/// Sessions end a moment after their connections.
async fn settled(settings: &StoreSettings) {
    if settings.url.is_empty() {
        return;
    }
    let sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let url = settings.url.to_string();
    while crate::server::ask(&url, sql).await.as_deref() != Some("0") {
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn stores_move(server: &Server) {
    moved(&Home::folder(), &Home::database(server).await).await;
    moved(&Home::database(server).await, &Home::folder()).await;
}

pub(crate) async fn stores_are_saved_and_restored(server: &Server) {
    let folder = tempfile::tempdir().unwrap();
    let file = saved(&Home::folder(), &Home::database(server).await, folder.path()).await;
    damaged(&file, folder.path(), &Home::folder()).await;
    let file = saved(&Home::database(server).await, &Home::folder(), folder.path()).await;
    damaged(&file, folder.path(), &Home::database(server).await).await;
}

/// A move that cannot reach its target leaves the source as it is; nor does one that is to go where the data is.
pub(crate) async fn a_failed_move_harms_nothing() {
    let from = Home::folder();
    from.open().await.close().await;
    let error = move_all(&from.settings, &from.settings, &mut |_| {}).await.err().unwrap();
    assert!(error.to_string().contains("name another place"), "{error}");
    let to = StoreSettings { url: StoreUrl::new("postgres://nobody@127.0.0.1:1/none"), ..StoreSettings::default() };
    let error = move_all(&from.settings, &to, &mut |_| {}).await.err().unwrap();
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("nobody@127.0.0.1:1/none")), "{error}");
    from.open().await.close().await;
}

/// Broken off in the middle, as by a kill: nothing is left behind, and it is simply begun again.
pub(crate) async fn a_move_that_was_broken_off_is_begun_again(server: &Server) {
    for (from, to) in [(Home::folder(), Home::database(server).await), (Home::database(server).await, Home::folder())] {
        let store = from.open().await;
        fill(&store).await;
        let before = all(&store, true).await;
        left(&from, store).await;
        let middle = tokio::sync::Notify::new();
        let mut steps = |step: talewire_store::CopyProgress| {
            if step.table == "log" {
                middle.notify_one();
            }
        };
        tokio::select! {
            biased;
            () = middle.notified() => {}
            moved = move_all(&from.settings, &to.settings, &mut steps) => panic!("not broken off: {moved:?}"),
        }
        settled(&from.settings).await;
        settled(&to.settings).await;
        // The source is as it was: it may go on, or the move be made again.
        let store = from.open().await;
        assert_eq!(all(&store, true).await, before);
        left(&from, store).await;
        move_all(&from.settings, &to.settings, &mut |_| {}).await.unwrap();
        let store = to.open().await;
        assert_eq!(all(&store, true).await, before);
        store.close().await;
    }
}

/// Says of a store what a move says of its source while the target comes to be.
async fn leaving(from: &Home, to: &Home) {
    if from.is_alone {
        let _ = std::fs::remove_file(from.settings.path.join("moved"));
        std::fs::write(from.settings.path.join("moving"), format!("{}\n", to.settings.place())).unwrap();
    } else {
        let comment = format!("COMMENT ON SCHEMA talewire IS 'moving to {}'", to.settings.place());
        ask(&from.settings.url.to_string(), &comment).await;
    }
}

/// Killed before or after the moment at which the target is there: nobody goes on at the source, and the same move finishes it.
pub(crate) async fn a_move_that_was_broken_off_at_its_end_is_finished(server: &Server) {
    for (from, to) in [(Home::folder(), Home::database(server).await), (Home::database(server).await, Home::folder())] {
        let store = from.open().await;
        fill(&store).await;
        let before = all(&store, true).await;
        left(&from, store).await;

        leaving(&from, &to).await;
        let refused = Store::open(&from.settings).await.err().unwrap().to_string();
        assert!(refused.contains("was broken off at its end") && refused.contains(&to.settings.place()), "{refused}");
        let elsewhere = Home::folder();
        let refused = move_all(&from.settings, &elsewhere.settings, &mut |_| {}).await.err().unwrap().to_string();
        assert!(refused.contains("was broken off at its end"), "{refused}");
        settled(&from.settings).await;
        let first = move_all(&from.settings, &to.settings, &mut |_| {}).await.unwrap();

        settled(&from.settings).await;
        settled(&to.settings).await;
        leaving(&from, &to).await;
        let again = move_all(&from.settings, &to.settings, &mut |_| panic!("nothing is copied again")).await.unwrap();
        assert_eq!(again, first);
        let refused = Store::open(&from.settings).await.err().unwrap().to_string();
        assert!(refused.contains("the data was moved to"), "{refused}");
        let store = to.open().await;
        assert_eq!(all(&store, true).await, before);
        store.close().await;
    }
}
