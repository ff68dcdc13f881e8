//! The machine: descriptors, queues of the kernel, memory, the disk.

use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::config::Config;

/// What a connection takes of memory in the server and in the kernel, in bytes, for the advice alone (docs/performance.md).
const CONNECTION_BYTES: u64 = 16_384;

/// A disk with less room than this is soon full, in bytes.
const DISK_FREE_MIN: u64 = 1 << 30;

pub(super) fn look(config: &Config) -> Vec<Finding> {
    let sockets = config.http.sockets_max as u64;
    let memory = read("/proc/meminfo").and_then(|text| total_bytes(&text));
    let findings = [
        Some(descriptors(getrlimit(Resource::Nofile).maximum, sockets)),
        number("/proc/sys/net/core/somaxconn").map(|max| backlog(max, config.http.backlog.into())),
        number("/proc/sys/net/ipv4/tcp_max_syn_backlog").map(|max| half_open(max, config.http.backlog.into())),
        number("/proc/sys/net/netfilter/nf_conntrack_max").map(|max| tracked(max, sockets)),
        read("/proc/sys/net/ipv4/ip_local_port_range").and_then(|range| ports(&range, sockets)),
        memory.map(|bytes| room(bytes, sockets)),
        config.store.path.exists().then(|| disk(&config.store.path)).flatten(),
    ];
    findings.into_iter().flatten().collect()
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn number(path: &str) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

fn descriptors(limit: Option<u64>, sockets: u64) -> Finding {
    match limit {
        Some(limit) if limit < sockets + 64 => Finding::wrong(
            format!("the system allows {limit} open files, and http.sockets_max is {sockets}"),
            format!(
                "LimitNOFILE={} in the unit, ulimits in a container, or a smaller http.sockets_max",
                sockets + 1_024
            ),
        ),
        Some(limit) => Finding::good(format!("{limit} open files are enough for {sockets} sockets")),
        None => Finding::good("there is no limit of open files"),
    }
}

fn backlog(somaxconn: u64, backlog: u64) -> Finding {
    if somaxconn < backlog {
        return Finding::better(
            format!("net.core.somaxconn is {somaxconn}, and http.backlog is {backlog}: the kernel takes the smaller"),
            format!("sysctl -w net.core.somaxconn={backlog}; else many who connect at once wait a second"),
        );
    }
    Finding::good(format!("net.core.somaxconn is {somaxconn}"))
}

fn half_open(max: u64, backlog: u64) -> Finding {
    if max < backlog.min(4_096) {
        return Finding::better(
            format!("net.ipv4.tcp_max_syn_backlog is {max}"),
            format!("sysctl -w net.ipv4.tcp_max_syn_backlog={}", backlog.max(4_096)),
        );
    }
    Finding::good(format!("net.ipv4.tcp_max_syn_backlog is {max}"))
}

fn tracked(max: u64, sockets: u64) -> Finding {
    if max < sockets.saturating_mul(2) {
        return Finding::better(
            format!("the firewall tracks {max} connections, and http.sockets_max is {sockets}"),
            format!("sysctl -w net.netfilter.nf_conntrack_max={}; a full table drops new connections", sockets * 2),
        );
    }
    Finding::good(format!("the firewall tracks up to {max} connections"))
}

/// A proxy on this machine has one port for each connection to one address of ours.
fn ports(range: &str, sockets: u64) -> Option<Finding> {
    let mut bounds = range.split_ascii_whitespace().map(str::parse::<u64>);
    let (Some(Ok(first)), Some(Ok(last))) = (bounds.next(), bounds.next()) else { return None };
    let ports = (last + 1).saturating_sub(first);
    Some(if ports < sockets.min(64_000) {
        Finding::better(
            format!("a proxy on this machine has {ports} ports to connect from, and http.sockets_max is {sockets}"),
            "sysctl -w net.ipv4.ip_local_port_range='1024 65535', and several listening addresses behind a local proxy",
        )
    } else {
        Finding::good(format!("{ports} ports for connections from this machine"))
    })
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}

fn room(bytes: u64, sockets: u64) -> Finding {
    let needed = sockets.saturating_mul(CONNECTION_BYTES);
    let (have, need) = (bytes >> 20, needed >> 20);
    if needed > bytes / 2 {
        return Finding::better(
            format!(
                "{sockets} connections take about {need} MiB with the kernel's share, and the machine has {have} MiB"
            ),
            "a smaller http.sockets_max, more memory, or more nodes",
        );
    }
    Finding::good(format!("{have} MiB of memory; {sockets} connections take about {need} MiB"))
}

fn disk(folder: &Path) -> Option<Finding> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let place = folder.display();
    Some(if free < DISK_FREE_MIN {
        Finding::wrong(
            format!("{} MiB are free in {place}", free >> 20),
            "make room: on a full disk nothing durable is accepted",
        )
    } else {
        Finding::good(format!("{} MiB are free in {place}", free >> 20))
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn limits_are_compared_with_settings() {
        let of = |finding: Finding| finding.verdict;
        assert_eq!(of(descriptors(Some(1_024), 1_000)), Verdict::Wrong);
        assert_eq!(of(descriptors(Some(1_064), 1_000)), Verdict::Good);
        assert_eq!(of(descriptors(None, u64::MAX)), Verdict::Good);
        assert_eq!(of(backlog(128, 4_096)), Verdict::Better);
        assert_eq!(of(backlog(4_096, 4_096)), Verdict::Good);
        assert_eq!(of(half_open(128, 4_096)), Verdict::Better);
        assert_eq!(of(tracked(1_999, 1_000)), Verdict::Better);
        assert_eq!(of(tracked(2_000, 1_000)), Verdict::Good);
        assert_eq!(of(room(1 << 30, 100_000)), Verdict::Better);
        assert_eq!(of(room(1 << 34, 100_000)), Verdict::Good);
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(total_bytes("MemTotal:       24731900 kB\nMemFree: 1 kB\n"), Some(25_325_465_600));
        assert_eq!(ports("32768\t60999\n", 100_000).map(|finding| finding.verdict), Some(Verdict::Better));
        assert_eq!(ports("32768\t60999\n", 1_000).map(|finding| finding.verdict), Some(Verdict::Good));
        assert_eq!(ports("?", 1), None);
    }

    #[test]
    fn a_folder_has_room_or_not() {
        let finding = disk(Path::new("/")).expect("there is a disk");
        assert!(finding.what.contains("are free in /"), "{finding}");
    }
}
