//! One `redis-server`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Process;

/// A Redis server on the loopback address.
#[derive(Debug)]
pub struct Redis {
    /// Where it listens.
    pub port: u16,
    /// The program.
    pub process: Process,
    options: Vec<String>,
    folder: TempDir,
}

impl Redis {
    /// One that keeps nothing on disk.
    #[must_use]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One that appends to its file and syncs every write.
    #[must_use]
    pub fn lasting() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// One with further arguments of `redis-server`.
    #[must_use]
    pub fn with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let port = crate::free_port();
        let process = spawn(port, &options, folder.path());
        Self { port, process, options, folder }
    }

    /// How clients name it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Kills it with -9.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after its end, on the same port and with the same files.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(self.port, &self.options, self.folder.path());
    }

    /// Says a command on a connection of its own and gives the first line of the answer; of a bulk string, its first line.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn say(&self, words: &[&str]) -> std::io::Result<String> {
        say(self.port, words)
    }
}

fn spawn(port: u16, options: &[String], folder: &Path) -> Process {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--dir", folder.to_str().expect("temporary folders are UTF-8"), "--maxmemory-policy", "noeviction"]);
    command.args(options).current_dir(folder);
    let mut process = Process::start(&mut command, "redis-server", &folder.join("redis.log"));
    // While it loads its file it answers with an error.
    process.wait_until("redis-server", || say(port, &["PING"]).is_ok_and(|line| line.starts_with("+PONG")));
    process
}

/// Says one command to the server on `port`.
///
/// # Errors
/// Those of the connection.
pub fn say(port: u16, words: &[&str]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes())?;
    let mut lines = BufReader::new(stream).lines();
    let mut next = || lines.next().unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()));
    let first = next()?;
    if first.starts_with('$') && first != "$-1" { next() } else { Ok(first) }
}
