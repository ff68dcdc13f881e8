//! Moves, backups and restores by the binary, with people who publish and readers who come back.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use talewire_load::client::Client;
use talewire_stand::postgres::Postgres;

use super::traces::serve;
use super::workers::ask;
use super::{Running, check, talewire};

const SOON: Duration = Duration::from_secs(60);
const CHANNEL: &str = "chat:a";

/// A server whose channel is durable, over SQLite in the folder or over PostgreSQL.
fn durable(folder: &Path, url: &str) -> (Running, String) {
    // Patient: these tests are not about a disk that others keep busy.
    let patience = [("TALEWIRE_STORE_ACQUIRE_MS_MAX", "30000"), ("TALEWIRE_STORE_OPERATION_MS_MAX", "30000")];
    let kept = [("TALEWIRE_NAMESPACES_CHAT_KIND", "durable"), ("TALEWIRE_STORE_URL", url)];
    serve(folder, &[kept, patience].concat())
}

/// A command about the store of such a server.
fn about(folder: &Path, url: &str, arguments: &[&str]) -> Command {
    let mut command = talewire(arguments);
    command.env("TALEWIRE_STORE_URL", url).env("TALEWIRE_STORE_PATH", folder.join("data"));
    command
}

fn stop(mut running: Running) {
    let told = Command::new("kill").arg(running.0.id().to_string()).status().expect("kill runs");
    assert!(told.success());
    assert_eq!(running.0.wait().expect("it ends").code(), Some(0));
}

fn client(address: &str) -> Client {
    let address: SocketAddr = address.parse().expect("an address");
    let mut client = Client::open(address, SOON).expect("a server");
    client.connect(None).expect("a connection");
    client
}

/// Publishes the offset that each publication will have, one after the other, until it is told to stop or the server goes.
struct Publisher {
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Publisher {
    fn start(address: &str) -> Self {
        let top = position(address).0;
        let (acknowledged, stop) = (Arc::new(AtomicU64::new(top)), Arc::new(AtomicBool::new(false)));
        let mut client = client(address);
        let (count, end) = (acknowledged.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for number in top + 1.. {
                if end.load(Ordering::Acquire) {
                    return;
                }
                if let Err(error) = client.publish(CHANNEL, &json!(number)) {
                    eprintln!("publishing ends at {number}: {error}");
                    return;
                }
                count.store(number, Ordering::Release);
            }
        });
        Self { acknowledged, stop, thread }
    }

    /// Waits until some more are acknowledged.
    fn go_on(&self, more: u64) {
        let began = Instant::now();
        let from = self.acknowledged.load(Ordering::Acquire);
        while self.acknowledged.load(Ordering::Acquire) < from + more {
            assert!(began.elapsed() < SOON, "publishing does not go on");
            std::thread::yield_now();
        }
    }

    /// The last that was acknowledged.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("it publishes");
        self.acknowledged.load(Ordering::Acquire)
    }
}

/// What a reader gets who saw a position; whether it was recovered, the numbers, and the position of the channel.
fn resume(address: &str, offset: u64, epoch: &str) -> (bool, Vec<u64>, u64, String) {
    let mut client = client(address);
    let subscribed = client.resume(CHANNEL, offset, epoch).expect("a subscription");
    let recovered = subscribed["recovered"].as_bool().unwrap_or_default();
    let numbers = subscribed["publications"].as_array().into_iter().flatten();
    let numbers: Vec<u64> = numbers.map(|one| one["data"].as_u64().expect("a number")).collect();
    let top = numbers.last().copied().or_else(|| subscribed["offset"].as_u64()).unwrap_or_default();
    let epoch = subscribed["epoch"].as_str().expect("an epoch").to_owned();
    (recovered, numbers, top, epoch)
}

/// Where a channel stands.
fn position(address: &str) -> (u64, String) {
    let (_, _, offset, epoch) = resume(address, u64::MAX >> 12, "");
    (offset, epoch)
}

#[test]
fn readers_recover_when_everything_moves_to_postgresql_and_back() {
    let postgres = Postgres::start();
    let url = postgres.url();
    let folder = tempfile::tempdir().expect("a folder");
    let (running, address) = durable(folder.path(), "");
    let login = ask(&address, "/app/login", "", &json!({"name": "Ana", "tab": true}));
    let token = login["token"].as_str().expect("a token").to_owned();
    let create = json!({"title": "A lamp", "opening": "It went out.", "key": "a"});
    let story = ask(&address, "/app/rpc/story.create", &token, &create)["story"]["id"].clone();
    let publisher = Publisher::start(&address);
    publisher.go_on(30);
    let epoch = position(&address).1;
    let refused = ["is in use by another process"];
    check(&mut about(folder.path(), "", &["move", "--to", &url]), 1, &refused);
    // Killed in the middle: what was acknowledged moves too.
    publisher.go_on(30);
    drop(running);
    let acknowledged = publisher.end();
    let said = check(&mut about(folder.path(), "", &["move", "--to", &url]), 0, &["log:", "moved ", "store.url"]);
    assert!(said.contains("channels: 2 of 2 rows"), "{said}");
    let data = folder.path().join("data");
    let data = data.to_str().expect("UTF-8");
    check(&mut talewire(&["serve", "--listen", "127.0.0.1:0", "--data", data]), 1, &["the data was moved to", &url]);

    let (running, address) = durable(folder.path(), &url);
    let (recovered, numbers, offset, same) = resume(&address, 10, &epoch);
    assert_eq!((recovered, same.as_str()), (true, epoch.as_str()));
    // One more may have been kept whose answer the kill swallowed.
    assert!(offset == acknowledged || offset == acknowledged + 1, "{offset} of {acknowledged}");
    assert_eq!(numbers, (11..=offset).collect::<Vec<_>>());
    let open = ask(&address, "/app/rpc/story.open", &token, &json!({"story": story}));
    assert_eq!(open["story"]["title"], "A lamp", "the login is good, and the story there");
    client(&address).publish(CHANNEL, &json!(offset + 1)).expect("it goes on");
    let home = folder.path().join("back");
    let home = home.to_str().expect("UTF-8");
    check(&mut about(folder.path(), &url, &["move", "--to", home]), 1, &["is in use"]);
    stop(running);
    check(&mut about(folder.path(), &url, &["move", "--to", home]), 0, &["moved "]);
    check(&mut about(folder.path(), &url, &["move", "--to", home]), 1, &["the data was moved to"]);

    let other = tempfile::tempdir().expect("a folder");
    std::fs::rename(home, other.path().join("data")).expect("moved");
    let (_running, address) = durable(other.path(), "");
    let (recovered, numbers, _, same) = resume(&address, offset, &epoch);
    assert_eq!((recovered, numbers, same), (true, vec![offset + 1], epoch));
}

/// Backs a running server up while somebody publishes, and restores it elsewhere.
fn backed_up(from: (&Path, &str), to: (&Path, &str), file: &str) {
    let (running, address) = durable(from.0, from.1);
    let publisher = Publisher::start(&address);
    publisher.go_on(30);
    let before = publisher.acknowledged.load(Ordering::Acquire);
    check(&mut about(from.0, from.1, &["backup", file]), 0, &["wrote ", file]);
    let after = publisher.acknowledged.load(Ordering::Acquire) + 1;
    check(&mut about(from.0, from.1, &["backup", file]), 1, &["is there already: name a new file"]);
    publisher.go_on(10);
    let acknowledged = publisher.end();
    let epoch = position(&address).1;
    check(&mut about(from.0, from.1, &["restore", file]), 1, &["in use"]);
    stop(running);

    check(&mut about(to.0, to.1, &["restore", file]), 0, &["restored ", "load it again"]);
    check(&mut about(to.0, to.1, &["restore", file]), 1, &["holds data already"]);
    let (_running, address) = durable(to.0, to.1);
    let (offset, fresh) = position(&address);
    assert!((before..=after).contains(&offset), "{before} to {after}: {offset}");
    // Somebody who saw what is not in the backup must not be told that nothing is missing.
    let (recovered, _, _, _) = resume(&address, acknowledged, &epoch);
    assert!(!recovered && fresh != epoch);
    let (recovered, numbers, _, _) = resume(&address, 1, &fresh);
    assert_eq!((recovered, numbers), (true, (2..=offset).collect::<Vec<_>>()));
    client(&address).publish(CHANNEL, &json!(offset + 1)).expect("it goes on");
    assert_eq!(position(&address).0, offset + 1);
}

#[test]
fn running_servers_are_backed_up_and_restored() {
    let postgres = Postgres::start();
    let (sqlite, back) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let file = |name: &str| sqlite.path().join(name).to_str().expect("UTF-8").to_owned();
    backed_up((sqlite.path(), ""), (sqlite.path(), &postgres.url()), &file("one.backup"));
    backed_up((sqlite.path(), &postgres.url()), (back.path(), ""), &file("two.backup"));
}

#[test]
fn what_is_no_backup_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "hello").expect("written");
    let file = file.to_str().expect("UTF-8");
    check(&mut about(folder.path(), "", &["restore", file]), 1, &["is no backup of talewire"]);
    check(&mut about(folder.path(), "", &["restore", "/nowhere"]), 1, &["cannot read /nowhere"]);
    check(&mut about(folder.path(), "", &["backup", file]), 1, &["there is no data in"]);
}
