//! The whole tool against a small server that can be told to cheat: it must be green when all is right, and red for every
//! way of being wrong.

mod fake;

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::json;
use talewire_load::client::Client;

use crate::fake::{Fake, Fault};

const TRANSPORTS: [&str; 5] = ["websocket", "http-stream", "sse", "events", "poll"];

/// Ten readers, eight publications, over two publishing connections.
fn fanout(fault: Fault, more: &[&str]) -> Output {
    let fake = Fake::start(fault);
    let mut command = Command::new(env!("CARGO_BIN_EXE_talewire-load"));
    command.args(["fanout", "--server", &fake.address.to_string(), "--subscribers", "10", "--messages", "8"]);
    command.args(["--warmup", "0", "--publishers", "2", "--stall-s", "2", "--deadline-s", "20", "--json"]).args(more);
    command.output().expect("the tool runs")
}

fn is_red(fault: Fault, transport: &str, sign: &str) {
    let output = fanout(fault, &["--burst", "4", "--transport", transport]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{fault:?} over {transport}: {said}");
    assert!(said.contains(sign), "{fault:?} over {transport}: {said}");
}

#[test]
fn a_server_that_is_right_is_measured() {
    let paces = [&["--burst", "1"][..], &["--burst", "4"], &["--rate", "1000"], &["--burst", "3", "--rate", "500"]];
    let transports = TRANSPORTS.map(|name| ["--transport", name]);
    for more in paces.into_iter().chain(transports.iter().map(|pair| &pair[..])) {
        let output = fanout(Fault::None, more);
        assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(report["runs"][0]["server"]["deliveries"], 80, "{more:?}");
        assert_eq!(report["runs"][0]["server"]["latency"]["count"], 80, "{more:?}");
    }
}

#[test]
fn a_server_that_cheats_is_found_out_over_every_transport() {
    for transport in TRANSPORTS {
        is_red(Fault::Leaves, transport, "a gap: number 3 came where 2 was due");
        is_red(Fault::Doubles, transport, "came twice or late");
        is_red(Fault::Swaps, transport, "a gap: number 3 came where 2 was due");
        is_red(Fault::Changes, transport, "the payload of number 2 is not what was published");
    }
}

#[test]
fn a_server_that_leaves_out_the_last_is_waited_for_and_told() {
    is_red(Fault::LeavesLast, "websocket", "nothing came for 2 s");
}

#[test]
fn a_server_that_is_not_there_is_told_apart_from_one_that_is_wrong() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_talewire-load"));
    let output =
        command.args(["fanout", "--server", "127.0.0.1:1", "--subscribers", "1"]).output().expect("the tool runs");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_small_client_speaks_the_protocol() {
    let fake = Fake::start(Fault::None);
    let mut client = Client::open(fake.address, Duration::from_secs(10)).expect("a connection");
    assert_eq!(client.connect(None).expect("connected")["client"], "c");
    client.subscribe("load:a").expect("subscribed");
    client.publish("load:a", &json!({ "n": 1 })).expect("published");
    let push = client.next_push().expect("a publication");
    assert_eq!((&push["channel"], &push["pub"]["data"]), (&json!("load:a"), &json!({ "n": 1 })));
    let refused = client.subscribe("no").expect_err("refused");
    assert_eq!(refused.to_string(), "refused: 102 unknown channel");
}
