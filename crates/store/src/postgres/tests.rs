//! What only a session of PostgreSQL can get wrong: its settings, its plans, and columns that a copy would forget.

#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use talewire_stand::postgres::Postgres as Server;
use talewire_stand::redis_tls::Certificates;

use super::Postgres;
use super::connection::Connection;
use super::pool::Address;
use super::schema::STEPS;
use crate::copy::TABLES;
use crate::{Epochs, StoreError, StoreSettings, StoreUrl, backup, restore};

/// A session as the store has it, in a database whose own defaults are none of ours.
async fn session(server: &Server) -> Connection {
    let settings = StoreSettings { url: StoreUrl::new(server.url()), ..StoreSettings::default() };
    let first = Address::new(&settings).unwrap().connect().await.unwrap();
    for default in
        ["synchronous_commit = off", "default_transaction_isolation = 'serializable'", "search_path = public"]
    {
        first.plain(&format!("ALTER DATABASE postgres SET {default}")).await.unwrap();
    }
    Postgres::open(&settings, "").await.unwrap().close().await;
    Address::new(&settings).unwrap().connect().await.unwrap()
}

async fn said(conn: &Connection, sql: &str) -> String {
    let rows = conn.once(sql).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_ours_whatever_the_server_says() {
    let server = Server::start();
    let conn = session(&server).await;
    for (setting, value) in [
        ("synchronous_commit", "on"),
        ("search_path", "talewire"),
        ("transaction_isolation", "read committed"),
        ("statement_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "10s"),
    ] {
        assert_eq!(said(&conn, &format!("SHOW {setting}")).await, value, "{setting}");
    }
    every_column_is_copied(&conn).await;
    hot_queries_use_their_indexes(&conn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_no_newer_program_has_opened_is_saved_as_it_is() {
    let server = Server::start();
    let settings = StoreSettings { url: StoreUrl::new(server.url()), ..StoreSettings::default() };
    let conn = Address::new(&settings).unwrap().connect().await.unwrap();
    for known in 1..STEPS.len() {
        conn.plain("DROP SCHEMA IF EXISTS talewire CASCADE; CREATE SCHEMA talewire").await.unwrap();
        conn.plain("CREATE TABLE steps (number INTEGER PRIMARY KEY, since INTEGER NOT NULL)").await.unwrap();
        for (step, number) in STEPS[..known].iter().zip(1..) {
            conn.plain(step.sql).await.unwrap();
            conn.plain(&format!("INSERT INTO steps (number, since) VALUES ({number}, 1)")).await.unwrap();
        }
        conn.plain("INSERT INTO secrets (name, value) VALUES ('kept', '\\x00')").await.unwrap();

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("backup");
        let copied = backup(&settings, &file, &mut |_| {}).await.unwrap();
        assert!(copied.contains(&("secrets", 1)), "{copied:?}");
        assert_eq!(said(&conn, "SELECT MAX(number)::text FROM steps").await, known.to_string(), "nothing is changed");
        conn.plain("DROP SCHEMA talewire CASCADE").await.unwrap();
        restore(&file, &settings, Epochs::Fresh, &mut |_| {}).await.unwrap();
        assert_eq!(said(&conn, "SELECT name FROM secrets").await, "kept");
    }
}

#[tokio::test]
async fn addresses_that_cannot_be_used_are_told_without_their_password() {
    for wrong in [
        "mysql://ana:hunter2@db/tales",
        "host=db password=hunter2",
        "postgres://ana:hunter2@db/tales?sslmode=maybe",
        "postgres://ana:hunter2@db:99999/tales",
        "postgres://ana:hunter2@db:0/tales",
        "postgres://ana:hunter2@/tales",
        "postgres:///tales",
        "postgres://",
    ] {
        let settings = StoreSettings { url: StoreUrl::new(wrong), ..StoreSettings::default() };
        let error = Address::new(&settings).err().unwrap().to_string();
        assert!(error.contains("store.url") && !error.contains("hunter2"), "{error}");
        assert!(settings.url_problem().is_some(), "{wrong}");
    }
    for good in ["", "postgres://db", "postgres://ana:hun@ter2@a:5432,b:5433/tales", "postgresql:///tales?host=/run/pg"]
    {
        let settings = StoreSettings { url: StoreUrl::new(good), ..StoreSettings::default() };
        assert_eq!(settings.url_problem(), None, "{good}");
    }
}

/// A server that lets everybody in and says of itself only which version it is.
fn that_says(version: &str) -> StoreSettings {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://talewire@{}/postgres", listener.local_addr().unwrap());
    let mut answer = b"R\0\0\0\x08\0\0\0\0S".to_vec();
    let parameter = format!("server_version\0{version}\0");
    answer.extend((parameter.len() as u32 + 4).to_be_bytes());
    answer.extend(parameter.as_bytes());
    answer.extend(b"Z\0\0\0\x05I");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize - 4]).unwrap();
        stream.write_all(&answer).unwrap();
        // Whoever is content goes on to ask, and is sent away.
        stream.read_exact(&mut length)
    });
    StoreSettings { url: StoreUrl::new(url), ..StoreSettings::default() }
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_by_its_number() {
    for old in ["14.13 (Debian 14.13-1)", "9.6.24", "14beta2", "13"] {
        let settings = that_says(old);
        let sentence = format!("PostgreSQL is version {old}, and talewire needs 15 or later");
        let refused = Some(StoreError::Refused(sentence.clone()));
        assert_eq!(Postgres::open(&settings, "").await.err(), refused, "{old}");
        assert_eq!(crate::Store::ask_server(&that_says(old)).await.err(), refused, "the doctor hears the same");
    }
    for new in ["15.0", "15.8 (Debian 15.8-0+deb12u1)", "18.6", "18beta1", "100.1", ""] {
        let error = Postgres::open(&that_says(new), "").await.err();
        assert!(matches!(error, Some(StoreError::Unavailable(_))), "{new} is spoken to: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_with_whom_the_authority_vouches_for_alone() {
    let (ours, theirs) = (Certificates::make(), Certificates::make());
    let server = Server::with_tls(&ours);
    let at = |host: &str, authority: String| {
        let url = format!("postgres://talewire@{host}:{}/postgres?sslmode=require", server.port);
        StoreSettings { url: StoreUrl::new(url), tls_ca: authority.into(), ..StoreSettings::default() }
    };
    let settings = at("127.0.0.1", ours.authority());
    Postgres::open(&settings, "").await.unwrap().close().await;
    let conn = Address::new(&settings).unwrap().connect().await.unwrap();
    let version = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl";
    assert_eq!(said(&conn, version).await, "TLSv1.3");
    for (host, authority, why) in [
        ("127.0.0.1", theirs.authority(), "another authority"),
        ("127.0.0.1", String::new(), "the system's authorities"),
        ("localhost", ours.authority(), "another name"),
    ] {
        let error = Postgres::open(&at(host, authority), "").await.err();
        let is_told =
            |error: &StoreError| matches!(error, StoreError::Unavailable(sentence) if sentence.contains("certificate"));
        assert!(error.as_ref().is_some_and(is_told), "{why}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_load_opens_more_sessions_than_are_allowed() {
    let server = Server::start();
    let url = StoreUrl::new(server.url());
    let watching = StoreSettings {
        url: StoreUrl::new(format!("{}?application_name=watcher", server.url())),
        ..StoreSettings::default()
    };
    let watcher = Address::new(&watching).unwrap().connect().await.unwrap();
    let settings = StoreSettings { url, connections_max: 3, ..StoreSettings::default() };
    let store = std::sync::Arc::new(Postgres::open(&settings, "").await.unwrap());
    let count = async || -> i64 {
        let sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name LIKE 'talewire%'";
        watcher.once(sql).await.unwrap()[0].get(0)
    };
    // The one that looked at the schema goes first.
    while count().await > 0 {}
    let load: Vec<_> = (0..100)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    store
                        .look((), |work, ()| {
                            Box::pin(async { work.conn.once("SELECT pg_sleep(0.002)").await.map(drop) })
                        })
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    let mut most = 0;
    while !load.iter().all(tokio::task::JoinHandle::is_finished) {
        most = most.max(count().await);
    }
    assert_eq!(most, 3, "as many as are allowed are used, and no more");
    for task in load {
        task.await.unwrap();
    }
}

/// What takes turns in the database holds one connection each, however many wait for theirs, and nothing else waits with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_turn_holds_no_connection() {
    let server = Server::start();
    let settings = StoreSettings { url: StoreUrl::new(server.url()), connections_max: 3, ..StoreSettings::default() };
    let store = std::sync::Arc::new(Postgres::open(&settings, "").await.unwrap());
    let other = Address::new(&settings).unwrap().connect().await.unwrap();
    other.row("SELECT 1 FROM pg_advisory_lock($1)", &[&super::accounts::LOGOUT_TURN_LOCK]).await.unwrap();
    other.row("SELECT 1 FROM pg_advisory_lock($1)", &[&super::orders::TURN_LOCK]).await.unwrap();
    let waiting: Vec<_> = (0..20)
        .flat_map(|number| {
            let (logs_out, orders) = (store.clone(), store.clone());
            [
                tokio::spawn(async move { logs_out.log_out("ana".parse().unwrap(), number, i64::MAX).await }),
                tokio::spawn(async move { orders.keep_order(vec![b'x'].into()).await.map(drop) }),
            ]
        })
        .collect();
    let blocked = async || -> i64 {
        let sql = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        other.once(sql).await.unwrap()[0].get(0)
    };
    while blocked().await < 2 {}
    for _ in 0..20 {
        store.newest_order().await.unwrap();
        assert_eq!(blocked().await, 2, "one of each kind");
    }
    other.once("SELECT pg_advisory_unlock_all()::text").await.unwrap();
    for one in waiting {
        one.await.unwrap().unwrap();
    }
    assert_eq!(store.newest_order().await.unwrap(), 20);
}

async fn every_column_is_copied(conn: &Connection) {
    let tables =
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'talewire' AND tablename <> 'steps' ORDER BY 1";
    let mut ours: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
    ours.sort_unstable();
    assert_eq!(said(conn, tables).await, ours.join(" "));
    for table in TABLES {
        // The transaction of an entry means nothing to another server.
        let columns = format!(
            "SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'talewire'
             AND table_name = '{}' AND column_name <> 'tx' ORDER BY ordinal_position",
            table.name
        );
        let ours: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
        assert_eq!(said(conn, &columns).await, ours.join(" "), "{}", table.name);
    }
}

/// Claims must cost by open jobs and looks for growth by what is new, never by everything that ever was.
async fn hot_queries_use_their_indexes(conn: &Connection) {
    // The tables are empty here: what counts is which way there is, not which is cheaper for nothing.
    conn.plain("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off").await.unwrap();
    for (sql, index) in [
        (
            "SELECT seq FROM jobs WHERE status IN ('queued', 'running') AND (status = 'queued' OR deadline <= 5) ORDER BY seq LIMIT 1",
            "jobs_open",
        ),
        ("SELECT COUNT(*) FROM jobs WHERE story = 'x' AND status IN ('queued', 'running')", "jobs_story_open"),
        ("SELECT FROM logouts WHERE \"user\" = 'u' AND issued_at = 5", "logouts_user_issued_at_key"),
        ("SELECT tx FROM log WHERE tx > 5 ORDER BY tx OFFSET 9 LIMIT 1", "log_tx"),
        ("SELECT channel FROM log WHERE tx = ANY(ARRAY[5, 6])", "log_tx"),
        (
            "SELECT \"offset\" FROM log WHERE channel = 1 AND key_user = 'u' AND key = 'k' AND key IS NOT NULL LIMIT 1",
            "log_key",
        ),
        ("SELECT * FROM log WHERE channel = 1 AND \"offset\" > 5 ORDER BY \"offset\" DESC LIMIT 3", "log_pkey"),
        (
            "SELECT id FROM turns WHERE branch = 'b' AND number < 9 ORDER BY number DESC LIMIT 3",
            "turns_branch_number_key",
        ),
        ("SELECT id FROM turns WHERE generation = 'g'", "turns_generation"),
        ("SELECT id FROM answers WHERE created_at < 5 ORDER BY created_at LIMIT 3", "answers_age"),
        ("SELECT id FROM channels WHERE name = ANY(ARRAY['a', 'b'])", "channels_name_key"),
    ] {
        let plan = said(conn, &format!("EXPLAIN {sql}")).await;
        assert!(plan.contains(index) && !plan.contains("Seq Scan") && !plan.contains("Sort"), "{sql}: {plan}");
    }
}
