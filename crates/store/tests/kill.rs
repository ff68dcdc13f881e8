//! `kill -9` at any moment loses nothing that was acknowledged: a child process appends and says what was acknowledged, the
//! parent kills it, opens the same folder and compares.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use talewire_proto::{Channel, Payload, Publication, Since};
use talewire_store::{Append, Direction, Key, Store, StoreSettings};

const FOLDER: &str = "TALEWIRE_TEST_KILL_FOLDER";
const CHANNELS: usize = 3;

async fn open(folder: &Path) -> Store {
    Store::open(&StoreSettings { path: folder.to_owned(), checkpoint_operations: 50, ..StoreSettings::default() })
        .await
        .unwrap()
}

fn channel(number: usize) -> Channel {
    format!("kill:{number}").parse().unwrap()
}

/// Not a test by itself: what the child process runs, until it is killed.
#[test]
fn child_that_appends() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&folder)).await;
        let run = std::process::id();
        let mut tasks = Vec::new();
        for task in 0..8 {
            let store = store.clone();
            tasks.push(tokio::spawn(async move {
                for number in 0.. {
                    let text = format!("{run}-{task}-{number}");
                    let to = (task + number) % CHANNELS;
                    let publication = Publication { data: Some(Payload::of(&text)), ..Publication::default() };
                    let key = Some(Key { user: "ana".parse().unwrap(), key: text.clone() });
                    let done =
                        store.append(Append { channel: channel(to), publication, key, version: None }).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "ACK {to} {} {text}", done.position.offset).unwrap();
                    out.flush().unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_the_process_is_killed() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("data");
    let mut acknowledged: HashMap<(usize, u64), String> = HashMap::new();
    for round in 0..3 {
        // Where the kill falls is up to the clock; what was acknowledged by then is told by the failure itself.
        let moment = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
        let acks = 50 + (moment / 1_000 % 400) as usize;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_appends", "--nocapture"])
            .env(FOLDER, &folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut seen = 0;
        let mut killed = false;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            // The first line of the child's test runner has no line feed before our own.
            let Some((_, ack)) = line.split_once("ACK ") else { continue };
            let parts: Vec<&str> = ack.split(' ').collect();
            let [to, offset, text] = parts[..] else { continue };
            acknowledged.insert((to.parse().unwrap(), offset.parse().unwrap()), text.to_owned());
            seen += 1;
            if seen >= acks && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself after {seen} acknowledgements in round {round}");
        check(&folder, &acknowledged, round);
    }
}

fn check(folder: &Path, acknowledged: &HashMap<(usize, u64), String>, round: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = open(folder).await;
        let mut kept = HashMap::new();
        let mut texts = std::collections::HashSet::new();
        for number in 0..CHANNELS {
            let page = store
                .history(&channel(number), Since::Oldest, usize::MAX, usize::MAX, Direction::Forward)
                .await
                .unwrap();
            for (place, entry) in page.entries.iter().enumerate() {
                assert_eq!(entry.offset, place as u64 + 1, "round {round}: a gap in channel {number}");
                let text: String = entry.publication.data.as_ref().unwrap().read().unwrap();
                assert!(texts.insert(text.clone()), "round {round}: {text} twice");
                kept.insert((number, entry.offset), text);
            }
        }
        for (place, text) in acknowledged {
            assert_eq!(kept.get(place), Some(text), "round {round}: acknowledged and lost, {place:?}");
        }
        store.close().await;
    });
}
