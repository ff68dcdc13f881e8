//! One PostgreSQL server with an empty database.

use std::ffi::OsString;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::process::Process;
use crate::redis_tls::Certificates;

/// A PostgreSQL server on the loopback address, which believes whoever says to be `talewire`.
#[derive(Debug)]
pub struct Postgres {
    /// Where it listens.
    pub port: u16,
    /// The program: the one that starts all others of this server.
    pub process: Process,
    place: Place,
    environment: Vec<(String, OsString)>,
    folder: TempDir,
}

/// Where a server keeps its files.
#[derive(Debug, Clone)]
pub struct Place {
    /// What is to be said before its programs, so that they find them.
    pub before: Vec<OsString>,
    /// The folder, for its programs; it is there.
    pub inside: PathBuf,
    /// The folder, for us.
    pub outside: PathBuf,
    /// Further settings (`name=value`).
    pub options: Vec<String>,
}

/// Settings beside the defaults: durable as in production, small, and as many connections as tests want. After a kill it syncs
/// its files by one call instead of one for each of the thousands that its databases have.
const OPTIONS: [&str; 7] = [
    "unix_socket_directories=",
    "listen_addresses=127.0.0.1",
    "max_connections=200",
    "shared_buffers=32MB",
    "fsync=on",
    "recovery_init_sync_method=syncfs",
    "logging_collector=off",
];

impl Postgres {
    /// Makes a new one and starts it.
    #[must_use]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// The same with further settings, such as `fsync=off`.
    #[must_use]
    pub fn with(further: &[&str]) -> Self {
        Self::made(None, Vec::new(), further, None)
    }

    /// The same with TLS for whoever asks for it, by these certificates.
    #[must_use]
    pub fn with_tls(certificates: &Certificates) -> Self {
        Self::made(None, Vec::new(), &["ssl=on"], Some(certificates))
    }

    /// One whose files are elsewhere, as on a small disk, or which runs with variables in its environment.
    #[must_use]
    pub fn start_with(place: Option<Place>, environment: Vec<(String, OsString)>) -> Self {
        Self::made(place, environment, &[], None)
    }

    fn made(
        place: Option<Place>,
        environment: Vec<(String, OsString)>,
        further: &[&str],
        certificates: Option<&Certificates>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let own = || Place {
            before: Vec::new(),
            inside: folder.path().to_owned(),
            outside: folder.path().to_owned(),
            options: Vec::new(),
        };
        let mut place = place.unwrap_or_else(own);
        place.options.extend(further.iter().map(|option| (*option).to_owned()));
        let account = Account::to_run_as();
        account.give(&place.outside);
        let data = place.inside.join("data");
        let mut before = place.before.clone();
        if !before.is_empty() {
            account.become_somebody(&mut before);
        }
        let mut initdb = account.command("initdb", &before);
        initdb.arg("--pgdata").arg(&data).args([
            "--username=talewire",
            "--auth=trust",
            "--no-sync",
            "--no-instructions",
        ]);
        let made = initdb.args(["--encoding=UTF8", "--locale=C"]).output().expect("initdb can be started");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        if let Some(certificates) = certificates {
            // The names that it looks for. It wants its key for itself.
            for (from, name) in [(certificates.certificate(), "server.crt"), (certificates.key(), "server.key")] {
                let to = data.join(name);
                std::fs::copy(from, &to).expect("the temporary folder can be written to");
                account.give(&to);
                std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).expect("it is root's or ours");
            }
        }
        let port = crate::free_port();
        let process = spawn(port, &account, &place, &environment, folder.path());
        Self { port, process, place, environment, folder }
    }

    /// How clients name its database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// How clients name another of its databases.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://talewire@127.0.0.1:{}/{database}", self.port)
    }

    /// Kills all of it with -9, the first process and those that serve clients, and waits until none is left: as long as one
    /// has the shared memory, the files cannot be used again.
    pub fn kill(&mut self) {
        // Stopped, it starts nobody more while they are counted.
        self.process.pause();
        let children = self.signal_children(Signal::KILL);
        self.process.kill();
        let began = Instant::now();
        while children.iter().any(|id| has_memory(*id)) && began.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(2));
        }
        // None of them is left to write; the file would only make the next start wait.
        let _ = std::fs::remove_file(self.place.outside.join("data/postmaster.pid"));
    }

    /// `SIGSTOP` to all of it: it stands still, its connections stay open.
    pub fn pause(&self) {
        self.process.pause();
        self.signal_children(Signal::STOP);
    }

    /// `SIGCONT` to all of it.
    pub fn go_on(&self) {
        self.signal_children(Signal::CONT);
        self.process.go_on();
    }

    /// Those that the first process has started; there is one for each connection.
    fn signal_children(&self, signal: Signal) -> Vec<i32> {
        let id = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let children: Vec<i32> = children.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect();
        for child in children.iter().filter_map(|id| Pid::from_raw(*id)) {
            // It may have ended meanwhile.
            let _ = kill_process(child, signal);
        }
        children
    }

    /// Starts it again after its end, on the same port and with the same files.
    pub fn restart(&mut self) {
        self.kill();
        let account = Account::to_run_as();
        self.process = spawn(self.port, &account, &self.place, &self.environment, self.folder.path());
    }
}

/// Whether a process still runs: one that has ended and waits to be counted has no memory any more.
fn has_memory(id: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    status.contains("VmSize:")
}

fn spawn(port: u16, account: &Account, place: &Place, environment: &[(String, OsString)], folder: &Path) -> Process {
    let mut before = place.before.clone();
    if !before.is_empty() {
        account.become_somebody(&mut before);
        // The words before the program run as somebody else, in an environment of their own.
        before.push("env".into());
        before.extend(environment.iter().map(|(name, value)| {
            let mut set = OsString::from(format!("{name}="));
            set.push(value);
            set
        }));
    }
    let mut command = account.command("postgres", &before);
    if before.is_empty() {
        command.envs(environment.iter().map(|(name, value)| (name, value)));
    }
    command.arg("-D").arg(place.inside.join("data")).args(["-p", &port.to_string()]);
    // The last word counts.
    for option in OPTIONS.into_iter().chain(place.options.iter().map(String::as_str)) {
        command.args(["-c", option]);
    }
    let mut process = Process::start(&mut command, "postgresql", &folder.join("postgres.log"));
    process.wait_until("postgres", || is_ready(port));
    process
}

/// Whether it lets somebody in: asked by a start-up message for a user that there is, answered by `R` (authentication).
fn is_ready(port: u16) -> bool {
    use std::io::Write as _;
    let parameters = b"user\0talewire\0database\0postgres\0\0";
    let mut message = u32::try_from(parameters.len() + 8).expect("it is short").to_be_bytes().to_vec();
    message.extend(196_608_u32.to_be_bytes());
    message.extend(parameters);
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        stream.write_all(&message)?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        std::io::Result::Ok(first[0] == b'R')
    };
    ask().unwrap_or(false)
}

/// Who runs it: this user, or, since it refuses to run as root, one without rights.
struct Account {
    ids: Option<(u32, u32)>,
}

impl Account {
    fn to_run_as() -> Self {
        if !geteuid().is_root() {
            return Self { ids: None };
        }
        let users = std::fs::read_to_string("/etc/passwd").expect("a system has a list of users");
        let ids_of = |name: &str| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2).map(str::parse::<u32>);
            Some((fields.next()?.ok()?, fields.next()?.ok()?))
        };
        Self { ids: ids_of("postgres").or_else(|| ids_of("nobody")) }
    }

    fn give(&self, folder: &Path) {
        if let Some((user, group)) = self.ids {
            std::os::unix::fs::chown(folder, Some(user), Some(group)).expect("root gives folders away");
        }
    }

    /// With words before a program it is these that change who runs it: they may need the rights that it is to lose.
    fn become_somebody(&self, before: &mut Vec<OsString>) {
        if let Some((user, group)) = self.ids {
            let words = ["setpriv".to_owned(), "--clear-groups".to_owned()];
            before.extend(words.map(OsString::from));
            before.extend([format!("--reuid={user}"), format!("--regid={group}")].map(OsString::from));
        }
    }

    fn command(&self, program: &str, before: &[OsString]) -> Command {
        let program = newest(program).into_os_string();
        let mut words = before.iter().chain([&program]);
        let mut command = Command::new(words.next().expect("the program is there in any case"));
        command.args(words);
        if let Some((user, group)) = self.ids.filter(|_| before.is_empty()) {
            command.uid(user).gid(group);
        }
        command.current_dir("/");
        command
    }
}

/// Names the folder of other programs than those that are installed, for example of a later version.
pub const PROGRAMS_VARIABLE: &str = "TALEWIRE_TEST_POSTGRES_PROGRAMS";

/// Debian keeps the server's programs beside the path, one folder for each version.
fn newest(program: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os(PROGRAMS_VARIABLE) {
        return Path::new(&folder).join(program);
    }
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = folders.map(|entry| entry.path()).filter(|path| version(path).is_some()).max_by_key(version);
    let path = newest.map(|folder| folder.join("bin").join(program)).filter(|path| path.exists());
    // Elsewhere they are on the path.
    path.unwrap_or_else(|| program.into())
}
