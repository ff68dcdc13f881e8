//! The WebSocket protocol suite against our reader and writer: the suite's program and its cases in, counts by behaviour
//! out. What is tested is the echo of `crates/proto/examples`, since the server itself says more than it hears.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

/// All that is not about large messages (9), of which ours are capped, or compression (12, 13), which takes long.
const CASES: [&str; 8] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];

/// What a case may end with; the rest is a failure.
const GOOD: [&str; 3] = ["OK", "NON-STRICT", "INFORMATIONAL"];

/// Stops the echo that this run started, whatever happens to the run.
struct Echo(Child);

impl Drop for Echo {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds and starts the echo, runs the suite, prints what came of it.
///
/// # Errors
/// If a case fails or the suite cannot be run.
pub(crate) fn run(root: &Path, suite: &Path, cases: &[&str]) -> anyhow::Result<()> {
    let build = ["build", "--package", "talewire-proto", "--example", "websocket_echo"];
    let built = Command::new("cargo").args(build).current_dir(root).status()?;
    if !built.success() {
        bail!("the echo does not build");
    }
    let echo = Command::new(crate::target(root).join("debug/examples/websocket_echo"))
        .stdout(Stdio::piped())
        .spawn()
        .context("the echo does not start")?;
    let mut echo = Echo(echo);
    let mut address = String::new();
    BufReader::new(echo.0.stdout.take().context("the echo's output")?).read_line(&mut address)?;

    let folder = crate::target(root).join("autobahn");
    std::fs::create_dir_all(&folder)?;
    let cases = if cases.is_empty() { &CASES } else { cases };
    let spec = json!({
        "outdir": folder,
        "servers": [{"agent": "talewire", "url": format!("ws://{}/", address.trim())}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let spec_file = folder.join("spec.json");
    std::fs::write(&spec_file, spec.to_string())?;
    let index = folder.join("index.json");
    // Of an earlier run.
    let _ = std::fs::remove_file(&index);
    let status = Command::new(suite)
        .args(["-m", "fuzzingclient", "-s"])
        .arg(&spec_file)
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("{} does not start", suite.display()))?;
    if !status.success() {
        bail!("{}: {status}", suite.display());
    }
    let index = std::fs::read_to_string(&index).context("the suite wrote no report")?;
    judge(&serde_json::from_str(&index)?)
}

fn judge(index: &Value) -> anyhow::Result<()> {
    let cases = index["talewire"].as_object().context("the report names no cases of ours")?;
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut bad = Vec::new();
    for (case, result) in cases {
        for kind in ["behavior", "behaviorClose"] {
            let behaviour = result[kind].as_str().unwrap_or("missing");
            *counts.entry((kind, behaviour)).or_default() += 1;
            if !GOOD.contains(&behaviour) {
                bad.push(format!("{case} ({kind} {behaviour})"));
            }
        }
    }
    for ((kind, behaviour), count) in &counts {
        println!("{kind} {behaviour}: {count}");
    }
    if bad.is_empty() { Ok(()) } else { bail!("cases that failed: {}", bad.join(", ")) }
}
