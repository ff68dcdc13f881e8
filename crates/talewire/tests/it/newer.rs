//! Data that a newer version has written: the program says so in one sentence, ends, and leaves it alone.

use std::path::Path;

use talewire_stand::postgres::Postgres;

use super::traces::serve;
use super::{check, talewire};

const SENTENCE: &str = "the data was written by a newer version of talewire (schema 99, this version knows";
const ADVICE: &str = "use that version or newer";

fn is_refused(data: &Path, settings: &[(&str, &str)]) {
    let data = data.to_str().expect("UTF-8");
    let mut command = talewire(&["serve", "--insecure", "--listen", "127.0.0.1:0", "--data", data]);
    command.env("TALEWIRE_HTTP_ADMIN_LISTEN", "127.0.0.1:0").envs(settings.iter().copied());
    let said = check(&mut command, 1, &[SENTENCE, ADVICE]);
    assert!(!said.contains("panicked") && !said.contains("talewire is ready"), "{said}");
}

#[test]
fn a_newer_data_folder_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(serve(folder.path(), &[]));
    let data = folder.path().join("data");
    let file = std::fs::read_dir(&data).expect("a data folder").flatten().map(|entry| entry.path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|end| end == "db")).expect("a database");
    let open = || rusqlite::Connection::open(&file).expect("it is SQLite's");
    open().pragma_update(None, "user_version", 99).expect("written");
    is_refused(&data, &[]);
    let left: u32 = open().query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number");
    assert_eq!(left, 99);
}

#[test]
fn a_newer_database_is_refused() {
    let (folder, postgres) = (tempfile::tempdir().expect("a folder"), Postgres::start());
    let url = postgres.url();
    drop(serve(folder.path(), &[("TALEWIRE_STORE_URL", &url)]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (client, driver) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("a session");
        let driver = tokio::spawn(driver);
        let newer = "INSERT INTO talewire.steps (number, since) VALUES (99, 99)";
        client.batch_execute(newer).await.expect("written");
        drop(client);
        driver.await.expect("no panic").expect("an end in order");
    });
    let none = tempfile::tempdir().expect("a folder");
    is_refused(&none.path().join("data"), &[("TALEWIRE_STORE_URL", &url)]);
}
