//! A server that a run starts, ends and starts again: for the scenarios in which servers end.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::LoadError;

/// The key of the server API, for a server that lives as long as the run.
pub(crate) const API_KEY: &str = "the-key-of-a-load-run";

/// How long the server may take to listen.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(60);

/// How often to look whether it does, and whether all readers have everything.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a server is started with.
pub(crate) struct Setup<'a> {
    /// Its program.
    pub(crate) binary: &'a Path,
    /// Its folder, which must not be there yet; one of its own if absent.
    pub(crate) folder: Option<&'a Path>,
    /// What that is called.
    pub(crate) name: &'a str,
    /// The namespace of the channels.
    pub(crate) namespace: &'a str,
    /// Their kind.
    pub(crate) kind: &'a str,
    /// Further settings, as variables.
    pub(crate) variables: &'a [(String, String)],
}

/// The server under our command.
pub(crate) struct Server {
    binary: PathBuf,
    folder: PathBuf,
    /// Whether the folder is of this run alone.
    is_ours: bool,
    pub(crate) address: SocketAddr,
    variables: Vec<(String, String)>,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn prepare(setup: &Setup<'_>) -> Result<Self, LoadError> {
        let Setup { binary, folder, name, namespace, kind, variables } = *setup;
        let is_ours = folder.is_none();
        let ours = || std::env::temp_dir().join(format!("talewire-{name}-{}", std::process::id()));
        let folder = folder.map_or_else(ours, Path::to_owned);
        if folder.exists() {
            return Err(LoadError::Options(format!("{} is there already", folder.display())));
        }
        std::fs::create_dir_all(&folder).map_err(LoadError::io("making the data folder"))?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.map_err(LoadError::io("finding a free port"))?;
        let config = format!(
            "[http]\nlisten = \"{address}\"\nadmin_listen = \"127.0.0.1:0\"\napi_key = \"{API_KEY}\"\n\
             [namespaces.{namespace}]\nkind = \"{kind}\"\nhistory_size = 100000\n"
        );
        std::fs::write(folder.join("server.toml"), config).map_err(LoadError::io("writing the server's settings"))?;
        let variables = variables.to_vec();
        Ok(Self { binary: binary.to_owned(), folder, is_ours, address, variables, child: None })
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(&mut self) -> Result<(), LoadError> {
        self.spawn()?;
        let deadline = Instant::now() + START_DEADLINE;
        while !self.listens() {
            if Instant::now() > deadline || self.has_ended() {
                let said = std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default();
                return Err(LoadError::Refused(format!("it does not start: {said}")));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    pub(crate) fn spawn(&mut self) -> Result<(), LoadError> {
        let spawn = |folder: &Path| {
            let log = File::options().create(true).append(true).open(folder.join("server.log"))?;
            let mut command = Command::new(&self.binary);
            for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TALEWIRE_")) {
                command.env_remove(name);
            }
            command.args(["serve", "--insecure", "--config"]).arg(folder.join("server.toml"));
            command.arg("--data").arg(folder.join("data"));
            command.envs(self.variables.iter().map(|(name, value)| (name, value)));
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
        };
        self.child = Some(spawn(&self.folder).map_err(LoadError::io("starting the server"))?);
        Ok(())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    pub(crate) fn listens(&self) -> bool {
        std::net::TcpStream::connect_timeout(&self.address, LOOK_AGAIN).is_ok()
    }

    /// By SIGTERM: it may take leave.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// By SIGKILL, and does not wait for the end.
    pub(crate) fn strike(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            // It may have ended by itself.
            let _ = kill_process(id, signal);
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// By SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) -> Result<(), LoadError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().and_then(|()| child.wait()).map(|_| ()).map_err(LoadError::io("killing the server"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.kill();
        if self.is_ours && ended.is_ok() && !std::thread::panicking() {
            // What is left in the folder of temporary files harms nobody.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
