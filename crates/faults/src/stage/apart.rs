//! Networks: a run that cuts nodes off from single servers has one of its own, and in it each node has another, with one way out. What
//! goes that way is dropped by the kernel, port by port: no proxy stands between, so that Sentinels and clusters may name their servers as
//! they are.
//!
//! Servers and clients of a run listen on the loopback address of the run's network. Nodes reach them by the same addresses: the kernel
//! translates. Nothing of this is seen outside, and it ends with the processes.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, bail};
use talewire_stand::process::Process;

/// A network of its own. Who is not root gets it with a namespace of users, in which they stay who they are and may do this.
fn alone() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    command.arg("--net").arg("--");
    command
}

/// Runs this program again in a network of its own, with the same arguments and one more.
///
/// # Errors
/// If the system does not let us.
pub fn again(argument: &str) -> anyhow::Result<ExitStatus> {
    said(alone().arg("true")).context(
        "cutting nodes off from single servers needs networks: from root, or from a system that lets users have \
         namespaces; --together leaves it out",
    )?;
    let mut command = alone();
    command.arg(std::env::current_exe().context("where this program is")?);
    command.args(std::env::args_os().skip(1)).arg(argument);
    command.status().context("unshare --net (apt-get install util-linux)")
}

/// Makes the run's own network ready.
///
/// # Errors
/// If this process is in the machine's network, where nothing may be touched.
pub fn prepare() -> anyhow::Result<()> {
    let devices = std::fs::read_to_string("/proc/net/dev").context("the network's devices")?;
    let names = devices.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    if let Some(other) = names.into_iter().find(|name| *name != "lo") {
        bail!("this is no network of its own: it has {other}. Leave --apart out");
    }
    said(Command::new("ip").args(["link", "set", "lo", "up"]))
}

/// The network of one node.
#[derive(Debug)]
pub struct Network {
    holder: Process,
    /// The run's end of the way.
    device: String,
    /// Where the node listens.
    pub address: Ipv4Addr,
}

impl Network {
    /// Makes one, with a way to the loopback address of the run's network.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn make(number: usize, folder: &Path) -> anyhow::Result<Self> {
        let number = u8::try_from(number).context("too many nodes")?;
        let (near, address) = (Ipv4Addr::new(10, 99, number, 1), Ipv4Addr::new(10, 99, number, 2));
        let log = folder.join(format!("network-{number}.log"));
        let mut holder = Process::start(Command::new("unshare").args(["--net", "sleep", "10800"]), "util-linux", &log);
        let own = std::fs::read_link("/proc/self/ns/net").context("our network")?;
        let other = format!("/proc/{}/ns/net", holder.id());
        holder.wait_until("a network of its own", || std::fs::read_link(&other).is_ok_and(|other| other != own));
        let network = Self { device: format!("node-{number}"), address, holder };
        let (device, id) = (&network.device, network.holder.id().to_string());
        run(&["ip", "link", "add", device, "type", "veth", "peer", "name", "out", "netns", &id])?;
        run(&["ip", "addr", "add", &format!("{near}/24"), "dev", device])?;
        run(&["ip", "link", "set", device, "up"])?;
        // Without it the kernel takes nothing for the loopback address that comes from elsewhere.
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{device}/route_localnet"), "1").context("route_localnet")?;
        let (near, all) = (near.to_string(), "127.0.0.1");
        let here = ["PREROUTING", "-i", device, "-d", &near, "-p", "tcp", "-j", "DNAT", "--to-destination", all];
        run(&[&["iptables", "-t", "nat", "-A"], &here[..]].concat())?;
        network.inside(&["ip", "addr", "add", &format!("{address}/24"), "dev", "out"])?;
        network.inside(&["ip", "link", "set", "out", "up"])?;
        network.inside(&["ip", "link", "set", "lo", "up"])?;
        network.inside(&["ip", "route", "add", "default", "via", &near])?;
        network.inside(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"])?;
        let there = ["OUTPUT", "-d", all, "-p", "tcp", "-j", "DNAT", "--to-destination", &near];
        network.inside(&[&["iptables", "-t", "nat", "-A"], &there[..]].concat())?;
        network.inside(&["iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "out", "-j", "MASQUERADE"])?;
        Ok(network)
    }

    /// A program in this network.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.holder.id().to_string(), "--"]).arg(program);
        command
    }

    fn inside(&self, words: &[&str]) -> anyhow::Result<()> {
        said(self.command(Path::new(words[0])).args(&words[1..]))
    }

    /// Nothing goes between the node and these ports any more, or everything again. With `loud` the node is told so with RST.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn cut(&self, ports: &[u16], loud: bool, is_cut: bool) -> anyhow::Result<()> {
        let way = if is_cut { "-I" } else { "-D" };
        let refused: &[&str] = if loud { &["REJECT", "--reject-with", "tcp-reset"] } else { &["DROP"] };
        for port in ports {
            let (port, device) = (port.to_string(), &self.device);
            let there = ["iptables", way, "INPUT", "-i", device, "-p", "tcp", "--dport", &port, "-j"];
            run(&[&there[..], refused].concat())?;
            run(&["iptables", way, "OUTPUT", "-o", device, "-p", "tcp", "--sport", &port, "-j", "DROP"])?;
        }
        Ok(())
    }
}

/// Nothing goes any more between one server and the others of the run's own network, or everything again: it listens on these ports,
/// and speaks from this address. Nodes, who have networks of their own, still reach it. Whoever begins a connection to it is refused, all
/// others wait.
///
/// # Errors
/// If the system does not let us.
pub fn split(ports: &[u16], source: Option<Ipv4Addr>, is_cut: bool) -> anyhow::Result<()> {
    let way = if is_cut { "-I" } else { "-D" };
    let rule = |words: &[&str]| run(&[&["iptables", way, "INPUT", "-i", "lo"], words].concat());
    for port in ports {
        let port = port.to_string();
        rule(&["-p", "tcp", "--dport", &port, "-j", "DROP"])?;
        // The newest rule is asked first; and the refusal itself has to come through.
        rule(&["-p", "tcp", "--dport", &port, "--syn", "-j", "REJECT", "--reject-with", "tcp-reset"])?;
        rule(&["-p", "tcp", "--sport", &port, "--tcp-flags", "RST", "NONE", "-j", "DROP"])?;
    }
    if let Some(source) = source {
        rule(&["-s", &source.to_string(), "-j", "DROP"])?;
        rule(&["-d", &source.to_string(), "-j", "DROP"])?;
    }
    Ok(())
}

fn run(words: &[&str]) -> anyhow::Result<()> {
    said(Command::new(words[0]).args(&words[1..]))
}

fn said(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let missing = || format!("{name} (apt-get install iproute2 iptables util-linux)");
    let done = command.stdin(Stdio::null()).output().with_context(missing)?;
    if !done.status.success() {
        bail!("{name} {:?}: {}", command.get_args(), String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}
