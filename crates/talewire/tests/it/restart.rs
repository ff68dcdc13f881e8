//! The server is killed and started again under readers, by the load generator's own scenario: its arguments in, its report out.

use clap::Parser as _;
use talewire_load::options::{Cli, Scenario};
use talewire_load::run::restart;

/// 200 readers, two kills, 50 publications a second. The long run is in docs/performance.md.
#[track_caller]
fn nothing_is_lost(transport: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("run");
    let data = data.to_str().expect("UTF-8");
    let arguments = ["talewire-load", "restart", "--binary", env!("CARGO_BIN_EXE_talewire"), "--data", data];
    let size = ["--readers", "200", "--kills", "2", "--between-ms", "500", "--rate", "50", "--backoff-ms", "500"];
    let cli = Cli::try_parse_from(arguments.into_iter().chain(size).chain(["--transport", transport]));
    let Scenario::Restart(options) = cli.expect("good arguments").scenario else { panic!("another scenario") };
    let report = restart::run(&options).expect("the run is made");
    report.verdict().expect("everything came once and in order");
    let figures = serde_json::to_value(&report).expect("a report");
    let acknowledged = figures["acknowledged"].as_u64().expect("a number");
    assert!(acknowledged > 20, "{figures}");
    assert_eq!(figures["deliveries"], acknowledged * 200, "{figures}");
    assert_eq!(figures["kills"].as_array().map(Vec::len), Some(2), "{figures}");
    assert!(figures["tally"]["breaks"].as_u64() >= Some(400), "every reader broke twice: {figures}");
}

#[test]
fn readers_over_websocket_lose_nothing_when_the_server_is_killed() {
    nothing_is_lost("websocket");
}

#[test]
fn readers_of_plain_events_lose_nothing_when_the_server_is_killed() {
    nothing_is_lost("events");
}
