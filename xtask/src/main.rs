//! The project's own commands: `cargo xtask tidy`, `ci`, `valkey`, `postgres`, `conformance` and `autobahn`. Called by people, `make test` and CI alike.

mod autobahn;
mod ci;
mod conformance;
mod tidy;
mod wheels;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

const USAGE: &str = "\
cargo xtask tidy                         check the rules of the house that a machine can check
cargo xtask ci                           run everything that CI runs, stop at the first failure
cargo xtask valkey                       run the broker's tests for Redis against the Valkey of a pinned Python wheel
cargo xtask postgres                     run the store's tests against the PostgreSQL 18 of a pinned Python wheel
cargo xtask conformance --suite FOLDER   run the official JavaScript client's own tests against our server;
                                         FOLDER is a checkout of github.com/centrifugal/centrifuge-js
cargo xtask autobahn --suite WSTEST [CASE …] run the WebSocket protocol suite of PyPI's autobahntestsuite against our reader;
                                         WSTEST is its program (Python 2.7); without cases: 1 to 7 and 10";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["tidy"] => root().and_then(|root| tidy::run(&root)),
        ["ci"] => root().and_then(|root| ci::run(&root)),
        ["valkey"] => root().and_then(|root| wheels::valkey(&root)),
        ["postgres"] => root().and_then(|root| wheels::postgres(&root)),
        ["conformance", "--suite", suite] => root().and_then(|root| conformance::run(&root, Path::new(suite))),
        ["autobahn", "--suite", suite, cases @ ..] => {
            root().and_then(|root| autobahn::run(&root, Path::new(suite), cases))
        }
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(anyhow::anyhow!("not a command\n{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder: the one above this crate's.
fn root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    if !root.join("Cargo.toml").is_file() {
        bail!("{} is no longer the workspace; build xtask again", root.display());
    }
    Ok(root.to_owned())
}

/// Where cargo puts what it builds.
fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}
