//! What only SQLite's threads and files can get wrong: groups, savepoints, queues, locks, schemas, plans.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tempfile::TempDir;

use super::Sqlite;
use crate::{Append, Epochs, StoreError, StoreSettings, backup, restore};

fn settings(folder: &TempDir) -> StoreSettings {
    StoreSettings { path: folder.path().join("data"), group_ms_max: 60_000, ..StoreSettings::default() }
}

fn insert(db: &Arc<Sqlite>, name: &'static str) -> tokio::task::JoinHandle<Result<(), StoreError>> {
    let db = db.clone();
    tokio::spawn(async move {
        db.write(move |work| {
            work.conn.execute("INSERT INTO secrets (name, value) VALUES (?1, x'00')", [name])?;
            Ok(())
        })
        .await
    })
}

async fn names(db: &Sqlite) -> String {
    db.read(|conn, _| {
        let names: Option<String> =
            conn.query_row("SELECT group_concat(name, ' ' ORDER BY name) FROM secrets", [], |row| row.get(0))?;
        Ok(names.unwrap_or_default())
    })
    .await
    .unwrap()
}

/// Holds the writer inside a transaction until the sender is used or dropped, so that what comes next is one group with it.
async fn held(db: &Arc<Sqlite>) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<(), StoreError>>) {
    let (release, hold) = mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let holder = db.clone();
    let task = tokio::spawn(async move {
        holder
            .write(move |_| {
                let _ = begun.send(());
                let _ = hold.recv();
                Ok(())
            })
            .await
    });
    has_begun.await.unwrap();
    (release, task)
}

async fn waiting(db: &Sqlite, writes: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while db.figures().writes_waiting < writes {
        assert!(Instant::now() < deadline, "the writes never came into the queue");
        tokio::task::yield_now().await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_kept_is_its_owners_alone_in_a_folder_that_others_may_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder);
    std::fs::create_dir(&settings.path).unwrap();
    std::fs::set_permissions(&settings.path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("backup");
    let rights = |path: &std::path::Path| {
        let files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
        let data = files.filter(|entry| entry.file_name() != "lock");
        data.map(|entry| (entry.file_name(), entry.metadata().unwrap().permissions().mode() & 0o777))
            .collect::<Vec<_>>()
    };
    let db = Arc::new(Sqlite::open(&settings).unwrap());
    insert(&db, "kept").await.unwrap().unwrap();
    let open = rights(&settings.path);
    assert!(open.len() > 2 && open.iter().all(|(_, rights)| *rights == 0o600), "{open:?}");
    backup(&settings, &file, &mut |_| {}).await.unwrap();
    drop(db);
    let restored = StoreSettings { path: folder.path().to_owned(), ..settings };
    restore(&file, &restored, Epochs::Kept, &mut |_| {}).await.unwrap();
    let database = folder.path().join("talewire.db");
    assert_eq!(database.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_failing_write_is_undone_alone() {
    let folder = TempDir::new().unwrap();
    let db = Arc::new(Sqlite::open(&settings(&folder)).unwrap());
    let (release, first) = held(&db).await;
    let good = insert(&db, "a");
    waiting(&db, 1).await;
    let half = {
        let db = db.clone();
        tokio::spawn(async move {
            db.write(|work| -> Result<(), StoreError> {
                work.conn.execute("INSERT INTO secrets (name, value) VALUES ('half', x'00')", [])?;
                Err(StoreError::Broken("on purpose".into()))
            })
            .await
        })
    };
    waiting(&db, 2).await;
    let panics = {
        let db = db.clone();
        tokio::spawn(async move {
            db.write(|work| -> Result<(), StoreError> {
                work.conn.execute("INSERT INTO secrets (name, value) VALUES ('panics', x'00')", [])?;
                panic!("on purpose")
            })
            .await
        })
    };
    waiting(&db, 3).await;
    let after = insert(&db, "b");
    waiting(&db, 4).await;
    drop(release);
    assert_eq!(first.await.unwrap(), Ok(()));
    assert_eq!(good.await.unwrap(), Ok(()));
    assert_eq!(half.await.unwrap(), Err(StoreError::Broken("on purpose".into())));
    assert!(matches!(panics.await.unwrap(), Err(StoreError::Broken(_))));
    assert_eq!(after.await.unwrap(), Ok(()));
    assert_eq!(names(&db).await, "a b");
    assert_eq!((db.figures().groups, db.figures().operations), (1, 5));
}

#[tokio::test]
async fn a_failed_commit_fails_its_whole_group_and_no_other() {
    let folder = TempDir::new().unwrap();
    let db = Arc::new(Sqlite::open(&settings(&folder)).unwrap());
    db.write(|work| {
        work.conn.execute_batch(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY);
             CREATE TABLE child (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
        )?;
        Ok(())
    })
    .await
    .unwrap();
    let (release, first) = held(&db).await;
    let good = insert(&db, "a");
    waiting(&db, 1).await;
    let orphan = {
        let db = db.clone();
        // A deferred foreign key is judged by COMMIT alone.
        tokio::spawn(async move { db.write(|work| Ok(work.conn.execute("INSERT INTO child VALUES (7)", [])?)).await })
    };
    waiting(&db, 2).await;
    drop(release);
    assert!(first.await.unwrap().is_err());
    assert!(good.await.unwrap().is_err());
    assert!(orphan.await.unwrap().is_err());
    assert_eq!(names(&db).await, "");
    insert(&db, "b").await.unwrap().unwrap();
    assert_eq!(names(&db).await, "b");
    assert_eq!(db.figures().groups_failed, 1);
}

#[tokio::test]
async fn a_transaction_that_sqlite_rolls_back_by_itself_takes_nothing_with_it_unseen() {
    let folder = TempDir::new().unwrap();
    let db = Arc::new(Sqlite::open(&settings(&folder)).unwrap());
    let (release, first) = held(&db).await;
    let before = insert(&db, "a");
    waiting(&db, 1).await;
    let full = {
        let db = db.clone();
        tokio::spawn(async move {
            db.write(|work| -> Result<(), StoreError> {
                work.conn.execute_batch("ROLLBACK")?;
                Err(StoreError::Full("as a full disk does"))
            })
            .await
        })
    };
    waiting(&db, 2).await;
    let after = insert(&db, "b");
    waiting(&db, 3).await;
    drop(release);
    assert!(first.await.unwrap().is_err());
    assert!(before.await.unwrap().is_err());
    assert_eq!(full.await.unwrap(), Err(StoreError::Full("as a full disk does")));
    assert_eq!(after.await.unwrap(), Ok(()), "it comes into the next group");
    assert_eq!(names(&db).await, "b");
}

#[tokio::test]
async fn a_full_queue_is_told_at_once_and_harms_nothing() {
    let folder = TempDir::new().unwrap();
    let db = Arc::new(Sqlite::open(&StoreSettings { write_queue_operations_max: 2, ..settings(&folder) }).unwrap());
    let (release, first) = held(&db).await;
    let a = insert(&db, "a");
    waiting(&db, 1).await;
    let b = insert(&db, "b");
    waiting(&db, 2).await;
    assert!(matches!(insert(&db, "c").await.unwrap(), Err(StoreError::Full(_))));
    drop(release);
    for task in [first, a, b] {
        task.await.unwrap().unwrap();
    }
    assert_eq!(names(&db).await, "a b");
    assert_eq!(db.figures().refused_full, 1);
}

#[tokio::test]
async fn a_write_that_nobody_waits_for_any_more_is_whole() {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder);
    let db = Arc::new(Sqlite::open(&settings).unwrap());
    let (release, first) = held(&db).await;
    let gone = insert(&db, "gone");
    waiting(&db, 1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    drop(release);
    first.await.unwrap().unwrap();
    db.close().await;
    assert_eq!(names(&Sqlite::open(&settings).unwrap()).await, "gone");
}

#[tokio::test]
async fn closing_writes_what_waits_and_gives_the_folder_back() {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder);
    let db = Arc::new(Sqlite::open(&settings).unwrap());
    let (release, first) = held(&db).await;
    let last = insert(&db, "last");
    waiting(&db, 1).await;
    let closing = {
        let db = db.clone();
        tokio::spawn(async move { db.close().await })
    };
    while !db.writes.is_closed() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(insert(&db, "late").await.unwrap(), Err(StoreError::Unavailable(_))));
    drop(release);
    closing.await.unwrap();
    db.close().await;
    first.await.unwrap().unwrap();
    last.await.unwrap().unwrap();
    let again = Sqlite::open(&settings).unwrap();
    assert_eq!(names(&again).await, "last");
}

#[tokio::test]
async fn a_folder_is_for_one_process() {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder);
    let db = Sqlite::open(&settings).unwrap();
    let error = Sqlite::open(&settings).err().unwrap();
    assert_eq!(error, StoreError::Locked { folder: settings.path.clone() });
    assert!(error.to_string().contains(&settings.path.display().to_string()));
    db.close().await;
    Sqlite::open(&settings).unwrap().close().await;
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder);
    Sqlite::open(&settings).unwrap().close().await;
    let conn = Connection::open(settings.path.join("talewire.db")).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let error = Sqlite::open(&settings).err().unwrap();
    assert_eq!(error, StoreError::NewerSchema { found: 99, known: super::schema::STEPS.len() as u32 });
}

#[tokio::test]
async fn a_database_of_the_first_schema_keeps_what_it_has() {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder);
    std::fs::create_dir_all(&settings.path).unwrap();
    let conn = Connection::open(settings.path.join("talewire.db")).unwrap();
    conn.execute_batch(super::schema::STEPS[0]).unwrap();
    conn.execute_batch(
        "INSERT INTO channels (id, name, epoch, top) VALUES (1, 'news:1', 'old', 1);
         INSERT INTO log (channel, offset, time_ms, data) VALUES (1, 1, 5, '\"kept\"');
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(conn);
    let db = Sqlite::open(&settings).unwrap();
    let channel: talewire_proto::Channel = "news:1".parse().unwrap();
    let version = |number| Some(talewire_proto::Version { number, epoch: String::new() });
    let append = |number| Append {
        channel: channel.clone(),
        publication: talewire_proto::Publication::default(),
        key: None,
        version: version(number),
    };
    let added = db.append(append(1)).await.unwrap();
    assert_eq!((added.position.offset, added.position.epoch.as_str()), (2, "old"));
    assert!(db.append(append(1)).await.unwrap().entry.is_none());
    db.close().await;
}

#[tokio::test]
async fn a_database_that_no_newer_program_has_opened_is_saved_as_it_is() {
    for known in 1..super::schema::STEPS.len() {
        let folder = TempDir::new().unwrap();
        let from = settings(&folder);
        std::fs::create_dir_all(&from.path).unwrap();
        let conn = Connection::open(from.path.join("talewire.db")).unwrap();
        super::schema::STEPS[..known].iter().for_each(|step| conn.execute_batch(step).unwrap());
        conn.execute_batch("PRAGMA journal_mode = WAL; INSERT INTO secrets (name, value) VALUES ('kept', x'00')")
            .unwrap();
        conn.pragma_update(None, "user_version", known as u32).unwrap();

        let file = folder.path().join("backup");
        let copied = backup(&from, &file, &mut |_| {}).await.unwrap();
        assert!(copied.contains(&("secrets", 1)), "{copied:?}");
        let found: u32 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(found as usize, known, "a backup changes nothing");
        let to = StoreSettings { path: folder.path().join("restored"), ..StoreSettings::default() };
        restore(&file, &to, Epochs::Fresh, &mut |_| {}).await.unwrap();
        let db = Sqlite::open(&to).unwrap();
        assert_eq!(names(&db).await, "kept");
        db.close().await;
    }
}

#[tokio::test]
async fn a_read_that_panics_harms_no_other() {
    let folder = TempDir::new().unwrap();
    let db = Sqlite::open(&StoreSettings { reader_threads: 1, ..settings(&folder) }).unwrap();
    let lost: Result<(), StoreError> = db.read(|_, _| panic!("on purpose")).await;
    assert!(matches!(lost, Err(StoreError::Unavailable(_))));
    assert_eq!(names(&db).await, "");
}

/// Claims must cost by open jobs and looks for growth by what is new, never by everything that ever was.
#[tokio::test]
async fn hot_queries_use_their_indexes() {
    let folder = TempDir::new().unwrap();
    let db = Sqlite::open(&settings(&folder)).unwrap();
    for (sql, index) in [
        (
            "SELECT seq FROM jobs WHERE status IN ('queued', 'running') AND (status = 'queued' OR deadline <= 5) ORDER BY seq LIMIT 1",
            "INDEX jobs_open",
        ),
        ("SELECT COUNT(*) FROM jobs WHERE story = 'x' AND status IN ('queued', 'running')", "INDEX jobs_story_open"),
        ("SELECT 1 FROM logouts WHERE user = 'u' AND issued_at = 5", "INDEX sqlite_autoindex_logouts_1"),
        ("SELECT id FROM log WHERE id > 5 ORDER BY id LIMIT 10", "INTEGER PRIMARY KEY"),
        (
            "SELECT offset FROM log WHERE channel = 1 AND key_user = 'u' AND key = 'k' AND key IS NOT NULL",
            "INDEX log_key",
        ),
        (
            "SELECT id FROM turns WHERE branch = 'b' AND number < 9 ORDER BY number DESC LIMIT 3",
            "(branch=? AND number<?)",
        ),
        ("SELECT id FROM turns WHERE generation = 'g'", "INDEX turns_generation"),
        ("SELECT id FROM answers WHERE created_at < 5 ORDER BY created_at LIMIT 3", "INDEX answers_age"),
    ] {
        let plan: String = db
            .read(move |conn, _| {
                let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let rows: Result<Vec<String>, _> = statement.query_map([], |row| row.get(3))?.collect();
                Ok(rows?.join("; "))
            })
            .await
            .unwrap();
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
    }
}

#[tokio::test]
async fn a_disk_is_full_before_somebody_writes() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        |free_bytes_min| StoreSettings { path: folder.path().join("data"), free_bytes_min, ..StoreSettings::default() };
    let db = Sqlite::open(&settings(u64::MAX)).unwrap();
    assert_eq!(db.look().await, Err(StoreError::Full("the disk is full")));
    assert!(db.figures().free_bytes.is_some_and(|free| free > 0));
    db.close().await;
    drop(db);
    let db = Sqlite::open(&settings(1)).unwrap();
    assert_eq!(db.look().await, Ok(()));
    std::fs::rename(folder.path().join("data"), folder.path().join("elsewhere")).unwrap();
    assert!(matches!(db.look().await, Err(StoreError::Unavailable(_))), "it is gone");
}
