//! One `redis-server`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write as _};
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
    place: Place,
    folder: TempDir,
}

/// Where a server keeps its files, and what is to be said before its program so that it finds them there.
#[derive(Debug, Clone)]
struct Place {
    before: Vec<OsString>,
    folder: PathBuf,
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
        let place = Place { before: Vec::new(), folder: folder.path().to_owned() };
        Self::begin(place, folder, options)
    }

    /// A lasting one whose files are in a folder of another disk; `before` are the words that let a program see it.
    #[must_use]
    pub fn lasting_on(before: Vec<OsString>, disk: &Path) -> Self {
        let place = Place { before, folder: disk.to_owned() };
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::begin(place, folder, &["--appendonly", "yes", "--appendfsync", "always"])
    }

    fn begin(place: Place, folder: TempDir, options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let port = crate::free_port();
        let process = spawn(port, &options, &place, folder.path());
        Self { port, process, options, place, folder }
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
        self.process = spawn(self.port, &self.options, &self.place, self.folder.path());
    }

    /// Lets as much time pass for everything that it is to forget.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn pass_ms(&self, by_ms: u64) {
        let by_ms = by_ms.to_string();
        self.say(&["EVAL", PASS, "0", &by_ms]).expect("the server answers");
    }

    /// Says a command on a connection of its own and gives the first line of the answer; of a bulk string, its first line.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn say(&self, words: &[&str]) -> std::io::Result<String> {
        say(self.port, words)
    }
}

/// Brings the end of every key nearer.
const PASS: &str = "for _, key in ipairs(redis.call('KEYS', '*')) do \
    local left = redis.call('PTTL', key) \
    if left >= 0 and left <= tonumber(ARGV[1]) then redis.call('DEL', key) \
    elseif left >= 0 then redis.call('PEXPIRE', key, left - tonumber(ARGV[1])) end end return 1";

/// Names another program than `redis-server`, for example `valkey-server`.
pub const PROGRAM_VARIABLE: &str = "TALEWIRE_TEST_REDIS_SERVER";

fn spawn(port: u16, options: &[String], place: &Place, folder: &Path) -> Process {
    let program = std::env::var_os(PROGRAM_VARIABLE).unwrap_or_else(|| "redis-server".into());
    let mut words = place.before.iter().chain([&program]);
    let mut command = Command::new(words.next().expect("the program is there in any case"));
    command.args(words);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    // It listens on the loopback address alone: whoever comes from elsewhere was led there by a test.
    command.args(["--protected-mode", "no"]);
    let files = place.folder.to_str().expect("temporary folders are UTF-8");
    command.args(["--dir", files, "--maxmemory-policy", "noeviction"]);
    command.args(options).current_dir(folder);
    let mut process = Process::start(&mut command, "redis-server", &folder.join("redis.log"));
    // While it loads its file it answers with an error.
    process.wait_until("redis-server", || say(port, &["PING"]).is_ok_and(|line| line.starts_with("+PONG")));
    process
}

/// Says one command to the server on `port` and gives the first line of the answer; of a bulk string, its first line.
///
/// # Errors
/// Those of the connection.
pub fn say(port: u16, words: &[&str]) -> std::io::Result<String> {
    let mut answers = ask(port, words)?;
    let first = line(&mut answers)?;
    if first.starts_with('$') && first != "$-1" { line(&mut answers) } else { Ok(first) }
}

/// Says one command to the server on `port` and gives all texts of the answer, lists within lists too, in their order.
///
/// # Errors
/// Those of the connection, and what the server refuses.
pub fn say_all(port: u16, words: &[&str]) -> std::io::Result<Vec<String>> {
    let mut texts = Vec::new();
    read_texts(&mut ask(port, words)?, &mut texts)?;
    Ok(texts)
}

fn ask(port: u16, words: &[&str]) -> std::io::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes())?;
    Ok(BufReader::new(stream))
}

fn line(answers: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    if answers.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_texts(answers: &mut impl BufRead, texts: &mut Vec<String>) -> std::io::Result<()> {
    let head = line(answers)?;
    let (kind, rest) = head.split_at_checked(1).ok_or(std::io::ErrorKind::InvalidData)?;
    let count = || rest.parse::<i64>().map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData));
    match kind {
        "*" => (0..count()?).try_for_each(|_| read_texts(answers, texts)),
        "$" => {
            let Ok(length) = usize::try_from(count()?) else { return Ok(()) };
            let mut text = vec![0; length + 2];
            answers.read_exact(&mut text)?;
            text.truncate(length);
            texts.push(String::from_utf8_lossy(&text).into_owned());
            Ok(())
        }
        "-" => Err(std::io::Error::other(rest.to_owned())),
        _ => {
            texts.push(rest.to_owned());
            Ok(())
        }
    }
}
