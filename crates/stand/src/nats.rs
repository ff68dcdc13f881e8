//! One `nats-server` with JetStream.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Process;

/// A NATS server on the loopback address.
#[derive(Debug)]
pub struct Nats {
    /// Where it listens.
    pub port: u16,
    /// The program.
    pub process: Process,
    folder: TempDir,
}

impl Nats {
    /// One that keeps its streams in its folder.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = crate::free_port();
        let process = spawn(port, folder.path());
        Self { port, process, folder }
    }

    /// How clients name it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it with -9.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after its end, on the same port and with the same files.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(self.port, self.folder.path());
    }

    /// Starts it again after its end without what it had kept.
    pub fn restart_empty(&mut self) {
        self.process.kill();
        // It may not have kept anything yet.
        let _ = std::fs::remove_dir_all(self.folder.path().join("jetstream"));
        self.process = spawn(self.port, self.folder.path());
    }
}

fn spawn(port: u16, folder: &Path) -> Process {
    let mut command = Command::new("nats-server");
    command.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream", "--store_dir"]);
    command.arg(folder).current_dir(folder);
    let mut process = Process::start(&mut command, "nats-server", &folder.join("nats.log"));
    process.wait_until("nats-server", || answers(port));
    process
}

/// Whether it says that it has JetStream, and answers.
fn answers(port: u16) -> bool {
    let greet = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n")?;
        let mut lines = BufReader::new(stream).lines();
        let info = lines.next().unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()))?;
        let pong = lines.next().unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()))?;
        std::io::Result::Ok(info.contains("\"jetstream\":true") && pong == "PONG")
    };
    greet().unwrap_or(false)
}
