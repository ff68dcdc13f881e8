//! A small disk that can be filled: a tmpfs in a mount namespace of its own, held by a process that sleeps. Nothing is mounted for
//! anybody else, and no right is needed where the system lets users have namespaces.

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use talewire_stand::postgres::Place;
use talewire_stand::process::Process;

/// Its size when it is not full.
const BYTES: u64 = 512 * 1024 * 1024;

/// How often it is tried to make it small while somebody writes, and how much larger it is each time.
const FILL_ATTEMPTS: u64 = 20;
const SPARE_BYTES: u64 = 64 * 1024;

/// The disk; gone with the value.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Process,
    inside: PathBuf,
    path: PathBuf,
}

impl SmallDisk {
    /// Makes one.
    ///
    /// # Panics
    /// If the system does not let us.
    #[must_use]
    pub fn mount(folder: &Path) -> Self {
        let inside = folder.join("disk");
        std::fs::create_dir_all(&inside).expect("a temporary folder can be written to");
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-current-user", "--keep-caps"]);
        }
        let script =
            format!("mount -t tmpfs -o size={BYTES},mode=711 talewire \"$0\" && echo mounted && exec sleep 10800");
        command.args(["sh", "-c", &script]).arg(&inside);
        let log = folder.join("disk.log");
        let mut holder = Process::start(&mut command, "util-linux", &log);
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        holder.wait_until("a tmpfs in a namespace (unshare --mount)", || said().contains("mounted"));
        let path = PathBuf::from(format!("/proc/{}/root{}", holder.id(), inside.display()));
        Self { holder, inside, path }
    }

    /// Where it is for a program that was started by [`SmallDisk::command`].
    #[must_use]
    pub fn inside(&self) -> &Path {
        &self.inside
    }

    /// Where it is for everybody else. A program that resolves links finds another folder here.
    #[must_use]
    pub fn outside(&self) -> &Path {
        &self.path
    }

    /// A program that sees the disk.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let words = self.words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program);
        command
    }

    /// What is said before a program so that it sees the disk.
    #[must_use]
    pub fn words(&self) -> Vec<OsString> {
        let id = self.holder.id().to_string();
        let mut words = vec!["nsenter", "--mount", "--target", &id];
        if !rustix::process::geteuid().is_root() {
            words.extend(["--user", "--preserve-credentials"]);
        }
        words.push("--");
        words.into_iter().map(OsString::from).collect()
    }

    /// A folder on it for a PostgreSQL server.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn for_postgres(&self, above: &Path) -> anyhow::Result<Place> {
        // It runs as somebody else, who has to get there.
        std::fs::set_permissions(above, Permissions::from_mode(0o711)).context("the stage's folder")?;
        let (inside, outside) = (self.inside.join("postgres"), self.path.join("postgres"));
        std::fs::create_dir(&outside).context("a folder on the small disk")?;
        // Small files of its log of writes, few of them kept for later: what is allotted is no room on a full disk.
        let options = ["max_wal_size=96MB", "min_wal_size=32MB"].map(str::to_owned).to_vec();
        Ok(Place { before: self.words(), inside, outside, options })
    }

    /// Makes it as small as what is on it, so that there is no room for much more.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut last = None;
        for attempt in 0..FILL_ATTEMPTS {
            let disk = rustix::fs::statvfs(&self.path).context("looking at the disk")?;
            let used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
            // It is refused when more was written meanwhile than there is room for.
            match self.resize(used + attempt * SPARE_BYTES) {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        last.map_or(Ok(()), Err)
    }

    /// Makes room again.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn clear(&self) -> anyhow::Result<()> {
        self.resize(BYTES)
    }

    fn resize(&self, bytes: u64) -> anyhow::Result<()> {
        let mut command = self.command(Path::new("mount"));
        command.args(["-o", &format!("remount,size={bytes}")]).arg(&self.inside);
        let done = command.output().context("mount")?;
        if !done.status.success() {
            bail!("mount: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.holder.kill();
    }
}
