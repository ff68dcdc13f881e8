//! The official JavaScript client's own tests against our server: a checkout of centrifuge-js in, jest's verdict out.
//!
//! The suite expects a server at localhost:8000 with the key and secret below. Left out are the parts of its server that
//! we decline: maps, shared polls and delta.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

const ADDRESS: &str = "127.0.0.1:8000";
const READY_DEADLINE: Duration = Duration::from_secs(20);

/// Every transport in JSON and Protobuf, and recovery of streams; by the names of the suite's cases. Without a name, a
/// case of the Protobuf file is a transport's too.
const CASES: &str = "^(websocket|http_stream|sse|stream)";
const FILES: [&str; 3] = ["src/centrifuge.test.ts", "src/recovery.test.ts", "src/centrifuge.protobuf.test.ts"];

const CONFIG: &str = r#"
[http]
listen = "127.0.0.1:8000"
api_key = "test-api-key"
admin_listen = "127.0.0.1:0"

[auth]
hs256_secret = "secret"
short_secret_allowed = true

[namespaces.default]
kind = "history"
presence = true
history_size = 100
history_age_ms = 300_000

[namespaces.recovery]
kind = "history"
history_size = 100
history_age_ms = 300_000

[namespaces.smallhistory]
kind = "history"
history_size = 2
history_age_ms = 300_000
"#;

/// Stops the server that this run started, whatever happens to the run.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds and starts the server, runs the suite, stops the server.
///
/// # Errors
/// If the suite fails or cannot be run.
pub(crate) fn run(root: &Path, suite: &Path) -> anyhow::Result<()> {
    let suite = suite.canonicalize().with_context(|| format!("{} is no folder", suite.display()))?;
    if let Some(missing) = FILES.iter().find(|file| !suite.join(file).is_file()) {
        bail!("{} has no {missing}: it must be a checkout of centrifuge-js", suite.display());
    }
    if TcpStream::connect(ADDRESS).is_ok() {
        bail!("something listens at {ADDRESS} already, and the suite knows no other address");
    }
    must(Command::new("cargo").args(["build", "--package", "talewire"]).current_dir(root))?;
    if !suite.join("node_modules").is_dir() {
        let install =
            ["install", "--ignore-scripts", "--legacy-peer-deps", "--no-package-lock", "--no-audit", "--no-fund"];
        must(Command::new("npm").args(install).current_dir(&suite))?;
    }
    let folder = crate::target(root).join("conformance");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("talewire.toml"), CONFIG)?;
    let mut command = Command::new(crate::target(root).join("debug/talewire"));
    command
        .args(["serve", "--insecure", "--config"])
        .arg(folder.join("talewire.toml"))
        .arg("--data")
        .arg(folder.join("data"));
    let mut server = Server(command.stdin(Stdio::null()).spawn().context("the server does not start")?);
    wait_until_ready(&mut server)?;
    // Its clients leave timers behind, for which jest would wait for ever.
    let jest = ["jest", "--runInBand", "--verbose", "--forceExit", "-t", CASES];
    must(Command::new("npx").args(jest).args(FILES).current_dir(&suite))
}

fn wait_until_ready(server: &mut Server) -> anyhow::Result<()> {
    let began = Instant::now();
    while TcpStream::connect(ADDRESS).is_err() {
        if let Some(status) = server.0.try_wait()? {
            bail!("the server ended before it listened: {status}");
        }
        if began.elapsed() > READY_DEADLINE {
            bail!("the server does not listen at {ADDRESS} after {} s", READY_DEADLINE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn must(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
