//! One Talewire process, a server or a worker: started, killed, paused, asked to end, and looked at from outside.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Resource, Rlimit};
use serde_json::Value;
use talewire_stand::process::Process;

use super::apart::Network;
use super::disk::SmallDisk;
use crate::clients::{Door, PATIENCE};
use crate::http;
use crate::log::{Log, What};

/// How long a node may take until it says that it is ready.
const START_MAX: Duration = Duration::from_secs(30);

/// The library that moves a clock, in one of the folders of `/usr/lib`: Debian has one for each kind of processor.
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";

/// Panics that are written down for one node.
const PANICS_MAX: usize = 20;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It takes connections.
    Serve,
    /// It writes generations, and takes no connections.
    Work,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    part: Part,
    /// Where clients reach it.
    pub door: Arc<Door>,
    /// Its data folder, for us.
    pub data: PathBuf,
    /// Its data folder for itself, and the disk that it is on, if that is not ours.
    pub disk: Option<(PathBuf, Arc<SmallDisk>)>,
    /// The network that it is in, if that is its own.
    pub network: Option<Arc<Network>>,
    /// Where its clock is set, if it can be.
    pub clock: Option<PathBuf>,
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    process: Option<Process>,
    /// Where it says whether it is ready.
    pub admin: Option<SocketAddr>,
    /// How often it was started.
    pub starts: u32,
}

impl Node {
    /// One that does not run yet.
    #[must_use]
    pub fn new(part: Part, door: Arc<Door>, binary: &Path, config: &Path, data: &Path) -> Self {
        let (binary, config, data) = (binary.to_owned(), config.to_owned(), data.to_owned());
        let log = config.with_extension("log");
        Self {
            part,
            door,
            data,
            disk: None,
            network: None,
            clock: None,
            binary,
            config,
            log,
            process: None,
            admin: None,
            starts: 0,
        }
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// If it does not get ready, with what it said.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let before = self.said().len();
        self.spawn();
        let deadline = Instant::now() + START_MAX;
        loop {
            let said = self.said();
            if let Some((address, admin)) = said.get(before..).and_then(ready_at) {
                if let Some(address) = address {
                    self.door.opened(address);
                }
                self.admin = Some(admin);
                return Ok(());
            }
            let is_gone = self.process.as_mut().is_none_or(|process| !process.is_running());
            if is_gone || Instant::now() > deadline {
                bail!("{} does not start: {}", self.door.name, said.get(before..).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it and waits for nothing.
    pub fn spawn(&mut self) {
        let (mut command, data) = match (&self.disk, &self.network) {
            (Some((inside, disk)), _) => (disk.command(&self.binary), inside),
            (None, Some(network)) => (network.command(&self.binary), &self.data),
            (None, None) => (Command::new(&self.binary), &self.data),
        };
        without_surroundings(&mut command);
        match self.part {
            Part::Serve => command.args(["serve", "--log-format", "json"]).arg("--data").arg(data),
            // It has no such flags; its log is JSON where nobody sits before it.
            Part::Work => command.arg("worker").env("TALEWIRE_STORE_PATH", data),
        };
        command.arg("--config").arg(&self.config);
        if let Some(clock) = &self.clock {
            command.envs(under_clock(clock));
        }
        self.starts += 1;
        self.process = Some(Process::start(&mut command, "talewire", &self.log));
    }

    /// SIGKILL, without a word.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        if let Some(process) = &self.process {
            process.pause();
        }
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        if let Some(process) = &self.process {
            process.go_on();
        }
    }

    /// SIGTERM; says how it went. Whoever does not end in time is killed.
    pub fn drain(&mut self, most: Duration, log: &Log, while_waiting: impl FnOnce(&Self)) {
        let Some(process) = &self.process else { return };
        let began = Instant::now();
        process.terminate();
        while_waiting(self);
        let status = self.process.as_mut().and_then(|process| process.wait(most));
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let clean = status.is_some_and(|status| status.success());
        log.say(What::Drained { node: self.door.name.clone(), took_ms, clean });
        self.kill();
    }

    /// Whether it ended although nobody asked it to. Told once.
    pub fn look(&mut self, log: &Log) {
        if self.process.as_mut().is_some_and(|process| !process.is_running()) {
            let status = self.process.take().and_then(|mut process| process.wait(Duration::ZERO));
            let how = status.map_or_else(|| "?".to_owned(), |status| status.to_string());
            log.say(What::Died { node: self.door.name.clone(), how });
        }
    }

    /// Writes down what it uses.
    pub fn measure(&self, log: &Log) {
        if let Some(pid) = self.id() {
            measure(&self.door.name, pid, self.starts, log);
        }
    }

    /// What one of its metrics says now.
    ///
    /// # Errors
    /// If it does not say.
    pub fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let address = self.admin.context("it has never listened")?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let answer = http::exchange(address, request.as_bytes(), PATIENCE)?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.with_context(|| format!("{} has no metric {name}", self.door.name))
    }

    /// Writes down what its agents have done since it was started, if it says so.
    pub fn worked(&self, log: &Log) {
        let all = ["claimed", "done", "fenced"].map(|name| self.metric(&format!("talewire_agents_{name}_total")));
        if let [Ok(claimed), Ok(done), Ok(fenced)] = all {
            log.say(What::Worked { node: self.door.name.clone(), number: self.starts, claimed, done, fenced });
        }
    }

    /// How many descriptors it has.
    ///
    /// # Errors
    /// If it does not run.
    pub fn descriptors(&self) -> anyhow::Result<u64> {
        let pid = self.id().context("it does not run")?;
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).context("its descriptors")?;
        Ok(open.count() as u64)
    }

    /// Lets it have so many descriptors more than it has, or as many as before.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn limit_descriptors(&self, more: Option<u64>) -> anyhow::Result<()> {
        let pid = self.id().context("it does not run")?;
        let open = self.descriptors()?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let own = rustix::process::getrlimit(Resource::Nofile);
        let maximum = own.maximum;
        let current = more.map_or(maximum, |more| Some(open + more));
        rustix::process::prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).context("prlimit")?;
        Ok(())
    }

    /// Writes down every panic in its log.
    pub fn panics(&self, log: &Log) {
        let said = self.said();
        for line in said.lines().filter(|line| line.contains("panicked at")).take(PANICS_MAX) {
            log.say(What::Panic { node: self.door.name.clone(), line: line.to_owned() });
        }
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Everything that it wrote.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

/// Writes down what a process uses, if it is there.
pub(super) fn measure(name: &str, pid: u32, number: u32, log: &Log) {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
    if let (Ok(memory), Ok(descriptors)) = (talewire_load::process::memory(pid), descriptors) {
        let (rss_bytes, descriptors) = (memory.rss_bytes, descriptors as u64);
        log.say(What::Vitals { node: name.into(), number, rss_bytes, descriptors });
    }
}

/// The environment of a program whose wall clock is what this file says.
pub(super) fn under_clock(clock: &Path) -> Vec<(String, OsString)> {
    let all: [(&str, OsString); 4] = [
        ("LD_PRELOAD", faketime().into()),
        ("FAKETIME_TIMESTAMP_FILE", clock.into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("FAKETIME_CACHE_DURATION", "1".into()),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found = folders.map(|folder| folder.path().join(FAKETIME)).find(|library| library.is_file());
    found.expect("/usr/lib/*/faketime/libfaketimeMT.so.1 is there (apt-get install libfaketime)")
}

/// The addresses in the line that says that it is ready: for everybody, if it is a server, and for operators.
fn ready_at(said: &str) -> Option<(Option<SocketAddr>, SocketAddr)> {
    let is_it = |line: &&str| line.contains("talewire is ready") || line.contains("the worker is ready");
    let line: Value = serde_json::from_str(said.lines().find(is_it)?).ok()?;
    let named = |name: &str| line[name].as_str().or_else(|| line["fields"][name].as_str());
    let page = named("page").and_then(|page| page.strip_prefix("http://")?.parse().ok());
    Some((page, named("admin")?.parse().ok()?))
}

/// What the machine's own environment says is not for the program under test.
pub(super) fn without_surroundings(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TALEWIRE_")) {
        command.env_remove(name);
    }
}
