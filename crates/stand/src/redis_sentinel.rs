//! A Redis master with two replicas, watched by three Sentinels that agree by two.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::Process;
use crate::redis::{Redis, say};

/// What the Sentinels call the master.
pub const MASTER_NAME: &str = "mymaster";

/// Servers and those that watch them.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The servers; the first begins as the master.
    pub servers: Vec<Redis>,
    /// The Sentinels.
    pub sentinels: Vec<Process>,
    /// Where the Sentinels listen.
    pub ports: Vec<u16>,
    folder: TempDir,
}

impl RedisSentinels {
    /// Starts them all and waits until every Sentinel knows the others and both replicas. A master counts as down after half a second.
    ///
    /// # Panics
    /// When they do not come to that.
    #[must_use]
    pub fn start() -> Self {
        let mut servers = vec![Redis::start()];
        let master = servers[0].port.to_string();
        for _ in 0..2 {
            servers.push(Redis::with(&["--replicaof", "127.0.0.1", &master, "--repl-diskless-sync-delay", "0"]));
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut sentinels, mut ports) = (Vec::new(), Vec::new());
        for at in 0..3 {
            let port = crate::free_port();
            let file = settings_of(folder.path(), at);
            let config = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor {MASTER_NAME} 127.0.0.1 {master} 2\n\
                 sentinel down-after-milliseconds {MASTER_NAME} 500\nsentinel failover-timeout {MASTER_NAME} 3000\n"
            );
            std::fs::write(&file, config).expect("the temporary folder can be written to");
            sentinels.push(spawn(folder.path(), at));
            ports.push(port);
        }
        let mut all = Self { servers, sentinels, ports, folder };
        let ports = all.ports.clone();
        for (sentinel, port) in all.sentinels.iter_mut().zip(&ports) {
            sentinel.wait_until("redis-sentinel", || {
                let knows = |what: &str, count: usize| {
                    let known = crate::redis::say_all(*port, &["SENTINEL", what, MASTER_NAME]);
                    known.is_ok_and(|words| words.iter().filter(|word| *word == "runid").count() >= count)
                };
                // A replica that has not told its run yet cannot be promoted.
                knows("REPLICAS", 2) && knows("SENTINELS", 2) && both_run(*port)
            });
        }
        all
    }

    /// Kills a Sentinel with -9.
    pub fn kill_sentinel(&mut self, at: usize) {
        self.sentinels[at].kill();
    }

    /// Starts it again on the same port, with what it wrote down, and waits until it answers.
    pub fn restart_sentinel(&mut self, at: usize) {
        self.sentinels[at].kill();
        self.sentinels[at] = spawn(self.folder.path(), at);
        let port = self.ports[at];
        self.sentinels[at]
            .wait_until("redis-sentinel", || say(port, &["PING"]).is_ok_and(|answer| answer.starts_with("+PONG")));
    }

    /// How clients name the Sentinels.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("redis://127.0.0.1:{port}")).collect()
    }

    /// The place of the server that the first Sentinel takes for the master.
    #[must_use]
    pub fn master(&self) -> Option<usize> {
        let words = crate::redis::say_all(self.ports[0], &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME]).ok()?;
        let port = words.get(1)?.parse().ok()?;
        self.servers.iter().position(|server| server.port == port)
    }
}

/// The file with its settings, in which it writes down what it learns.
fn settings_of(folder: &Path, at: usize) -> PathBuf {
    folder.join(format!("sentinel-{at}.conf"))
}

fn spawn(folder: &Path, at: usize) -> Process {
    let mut command = Command::new("redis-sentinel");
    command.arg(settings_of(folder, at)).current_dir(folder);
    Process::start(&mut command, "redis-sentinel", &folder.join(format!("sentinel-{at}.log")))
}

fn both_run(port: u16) -> bool {
    let words = crate::redis::say_all(port, &["SENTINEL", "REPLICAS", MASTER_NAME]).unwrap_or_default();
    let up = |pair: &[String]| pair[0] == "master-link-status" && pair[1] == "ok";
    words.windows(2).filter(|pair| up(pair)).count() == 2 && say(port, &["PING"]).is_ok()
}
