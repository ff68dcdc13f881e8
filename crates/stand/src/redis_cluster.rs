//! A Redis cluster: masters that share the slots, and a replica for each if wanted.

use std::net::Ipv4Addr;

use crate::redis::{Redis, say, say_all};

/// Slots of a cluster.
const SLOTS: usize = 16_384;

/// A cluster on the loopback address.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters, then their replicas in the same order.
    pub servers: Vec<Redis>,
    masters: usize,
}

impl RedisCluster {
    /// Starts masters, each with so many replicas, and waits until all of them agree. Slots without a server do not stop the others.
    ///
    /// # Panics
    /// When they do not come to that.
    #[must_use]
    pub fn start(masters: usize, replicas: usize) -> Self {
        let mut servers = Vec::new();
        for at in 0..masters * (1 + replicas) {
            let bus = crate::free_port().to_string();
            let source = source_of(at).to_string();
            servers.push(Redis::with(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--bind-source-addr",
                &source,
                "--cluster-announce-ip",
                "127.0.0.1",
                "--cluster-node-timeout",
                "1000",
                "--cluster-require-full-coverage",
                "no",
                "--repl-diskless-sync-delay",
                "0",
            ]));
            let port = servers.last().expect("one was just started").port;
            let first = servers[0].port.to_string();
            // Masters that begin with one epoch would have to find out first which of them is which.
            is_ok(port, &["CLUSTER", "SET-CONFIG-EPOCH", &servers.len().to_string()]);
            if port != servers[0].port {
                let first_bus = bus_of(&servers[0]);
                is_ok(port, &["CLUSTER", "MEET", "127.0.0.1", &first, &first_bus]);
            }
        }
        let mut cluster = Self { servers, masters };
        for at in 0..masters {
            let (from, to) = (at * SLOTS / masters, (at + 1) * SLOTS / masters - 1);
            let port = cluster.servers[at].port;
            is_ok(port, &["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]);
        }
        let count = cluster.servers.len();
        cluster.wait_for_all(&format!("cluster_known_nodes:{count}"));
        for at in masters..count {
            let master = cluster.id(at % masters);
            let port = cluster.servers[at].port;
            let process = &mut cluster.servers[at].process;
            process.wait_until("redis-server", || {
                say(port, &["CLUSTER", "REPLICATE", &master]).is_ok_and(|answer| answer == "+OK")
            });
        }
        cluster.wait_for_all("cluster_state:ok");
        for at in masters..count {
            let port = cluster.servers[at].port;
            let follows = || {
                say_all(port, &["INFO", "replication"])
                    .is_ok_and(|lines| lines.iter().any(|line| line.contains("master_link_status:up")))
            };
            cluster.servers[at].process.wait_until("redis-server", follows);
        }
        cluster
    }

    fn wait_for_all(&mut self, words: &str) {
        for server in &mut self.servers {
            let port = server.port;
            server.process.wait_until("redis-server", || {
                say_all(port, &["CLUSTER", "INFO"]).is_ok_and(|lines| lines.iter().any(|line| line.contains(words)))
            });
        }
    }

    /// How clients name its masters.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.servers[..self.masters].iter().map(Redis::url).collect()
    }

    /// The name of the server at a place.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn id(&self, at: usize) -> String {
        self.servers[at].say(&["CLUSTER", "MYID"]).expect("the server answers")
    }

    /// Where the server at a place listens for the others of its cluster.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn bus(&self, at: usize) -> u16 {
        bus_of(&self.servers[at]).parse().expect("a port is a number")
    }

    /// From where the server at a place speaks to the others: each has an address of its own, so that a test can tell them apart on the way.
    #[must_use]
    pub fn source(&self, at: usize) -> Ipv4Addr {
        source_of(at)
    }

    /// The slot of a key.
    ///
    /// # Panics
    /// When the first server does not answer.
    #[must_use]
    pub fn slot(&self, key: &str) -> u16 {
        let answer = self.servers[0].say(&["CLUSTER", "KEYSLOT", key]).expect("the server answers");
        answer.trim_start_matches(':').parse().expect("a slot is a number")
    }

    /// The place of the master that has a slot, as the first server that answers sees it.
    #[must_use]
    pub fn owner(&self, slot: u16) -> Option<usize> {
        let nodes = self.servers.iter().find_map(|server| say_all(server.port, &["CLUSTER", "NODES"]).ok())?;
        let has = |line: &&str| {
            line.split(' ').skip(8).filter(|range| !range.starts_with('[')).any(|range| {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                from.parse().is_ok_and(|from: u16| from <= slot) && to.parse().is_ok_and(|to: u16| slot <= to)
            })
        };
        let text = nodes.join("\n");
        let id = text.lines().filter(|line| line.contains("master")).find(has)?.split(' ').next()?.to_owned();
        (0..self.servers.len()).find(|at| self.servers[*at].say(&["CLUSTER", "MYID"]).is_ok_and(|own| own == id))
    }

    /// Moves a slot with its keys from one master to another, `between` being done when the keys have moved and the slot has not.
    ///
    /// # Panics
    /// When a server refuses.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize, between: impl FnOnce()) {
        let (slot, from_id, to_id) = (slot.to_string(), self.id(from), self.id(to));
        let (from_port, to_port) = (self.servers[from].port, self.servers[to].port);
        is_ok(to_port, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        is_ok(from_port, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        let port = to_port.to_string();
        loop {
            let keys = say_all(from_port, &["CLUSTER", "GETKEYSINSLOT", &slot, "10"]).expect("the server answers");
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            let answer = say(from_port, &words).expect("the server answers");
            assert!(answer == "+OK" || answer == "+NOKEY", "{answer}");
        }
        between();
        for at in [to, from].into_iter().chain((0..self.servers.len()).filter(|at| *at != to && *at != from)) {
            // Replicas learn it from their masters.
            let _ = say(self.servers[at].port, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
    }
}

fn is_ok(port: u16, words: &[&str]) {
    let answer = say(port, words).expect("the server answers");
    assert_eq!(answer, "+OK", "{words:?}");
}

fn source_of(at: usize) -> Ipv4Addr {
    let last = u8::try_from(at + 11).expect("clusters of tests are small");
    Ipv4Addr::new(127, 0, 0, last)
}

fn bus_of(server: &Redis) -> String {
    let port = say_all(server.port, &["CONFIG", "GET", "cluster-port"]).expect("the server answers");
    port.get(1).expect("a setting has a value").clone()
}
