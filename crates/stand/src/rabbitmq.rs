//! One `rabbitmq-server`, with a name server of its own.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Process;

/// The script that Debian's wrapper runs, which may be run by anybody.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// A RabbitMQ server on the loopback address. It takes some seconds to start: share it among the cases of a test.
#[derive(Debug)]
pub struct RabbitMq {
    /// Where it listens.
    pub port: u16,
    /// The program.
    pub process: Process,
    names: u16,
    distribution: u16,
    // Behind the server in the order of ends.
    _name_server: Process,
    folder: TempDir,
}

impl RabbitMq {
    /// One that keeps what is durable in its folder.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [port, names, distribution] = std::array::from_fn(|_| crate::free_port());
        let written = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("the test's folder can be written to");
        };
        written("rabbitmq.conf", &format!("listeners.tcp.1 = 127.0.0.1:{port}\nlog.console.level = warning\n"));
        written("enabled_plugins", "[].\n");
        // Else the server would start one that outlives it.
        let mut command = Command::new("epmd");
        command.args(["-address", "127.0.0.1", "-port", &names.to_string()]);
        let mut name_server = Process::start(&mut command, "erlang-base", &folder.path().join("epmd.log"));
        name_server.wait_until("epmd", || TcpStream::connect(("127.0.0.1", names)).is_ok());
        let process = spawn(folder.path(), port, names, distribution);
        Self { port, process, names, distribution, _name_server: name_server, folder }
    }

    /// How clients name it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Kills it with -9.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after its end, on the same port and with the same files.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(self.folder.path(), self.port, self.names, self.distribution);
    }
}

fn spawn(folder: &Path, port: u16, names: u16, distribution: u16) -> Process {
    let inside = |name: &str| folder.join(name);
    let mut command = Command::new(SERVER);
    command
        .env("HOME", folder)
        .env("RABBITMQ_NODENAME", format!("stand-{port}@localhost"))
        .env("RABBITMQ_MNESIA_BASE", inside("mnesia"))
        .env("RABBITMQ_LOG_BASE", inside("log"))
        .env("RABBITMQ_CONFIG_FILE", inside("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", inside("enabled_plugins"))
        .env("RABBITMQ_CONF_ENV_FILE", inside("none.conf"))
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("ERL_EPMD_PORT", names.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        // It then becomes the server instead of starting it, and can be killed.
        .env("RUNNING_UNDER_SYSTEMD", "true")
        .current_dir(folder);
    let mut process = Process::start(&mut command, "rabbitmq-server", &inside("rabbitmq.log"));
    process.wait_until("rabbitmq-server", || answers(port));
    process
}

/// Whether it greets whoever speaks its protocol.
fn answers(port: u16) -> bool {
    let greet = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        // The first frame is of a method; a version that it does not speak would be answered by a greeting.
        std::io::Result::Ok(first[0] == 1)
    };
    greet().unwrap_or(false)
}
