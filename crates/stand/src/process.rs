//! One started program: its end, its pauses, and what it wrote.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to answer for the first time. Two cores are shared with whatever else is tested.
const START: Duration = Duration::from_secs(60);

/// A running program. It is killed with -9 when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; both of its outputs go to the end of `log`.
    ///
    /// # Panics
    /// When the program is not there; `package` is the Debian package that has it.
    #[track_caller]
    #[must_use]
    pub fn start(command: &mut Command, package: &str, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).expect("the test's folder can be written to");
        let err = out.try_clone().expect("a file can be opened twice");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap_or_else(|error| {
            panic!("{} does not start ({error}): apt-get install {package}", command.get_program().display())
        });
        Self { child, log: log.to_owned() }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Everything that it has written.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until `ready` is true.
    ///
    /// # Panics
    /// When the program ends before, or takes longer than a minute; with what it wrote.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) {
        let began = Instant::now();
        while !ready() {
            assert!(self.is_running(), "{what}: the program has ended:\n{}", self.log());
            assert!(began.elapsed() < START, "{what}: not within {START:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `SIGKILL`, and waits for its end.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// `SIGTERM`: it may take leave. Nothing is waited for.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// `SIGSTOP`: it stands still, its sockets stay open.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// `SIGCONT`.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits for its end; `None` when it takes longer.
    pub fn wait(&mut self, most: Duration) -> Option<std::process::ExitStatus> {
        let began = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if began.elapsed() >= most {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // It may have ended by itself; it is not reaped yet, so that its id is nobody else's.
        let _ = kill_process(id.expect("a child has a process id"), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
