//! What carries publications under a stage, Redis in each of the forms that Talewire knows or NATS: which server is the master now, how
//! it is taken away, and how nodes are told of all this.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use talewire_stand::nats::Nats;
use talewire_stand::process::Process;
use talewire_stand::redis::Redis;
use talewire_stand::redis_cluster::RedisCluster;
use talewire_stand::redis_sentinel::{MASTER_NAME, RedisSentinels};

use super::Ground;
use super::disk::SmallDisk;
use crate::schedule::Whom;

/// How long others may take to put another master in the place of one that is gone.
pub const PROMOTION_MAX: Duration = Duration::from_secs(30);

/// How long one ordered failover of the Sentinels may take, until they are asked for another.
const FAIL_OVER_TRY: Duration = Duration::from_secs(6);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Redis, or NATS.
#[derive(Debug)]
pub enum Broker {
    /// One server that syncs every write.
    Single(Redis),
    /// A master and two replicas.
    Sentinels(RedisSentinels),
    /// Three masters and a replica of each.
    Cluster(RedisCluster),
    /// One server that keeps its streams in its folder.
    Nats(Nats),
}

/// One side of a partition of servers.
#[derive(Debug)]
pub struct Island {
    /// Which server is on it.
    pub master: usize,
    /// Where that listens, for nodes first.
    pub ports: Vec<u16>,
    /// From where it speaks to other servers, if it does that at all.
    pub source: Option<Ipv4Addr>,
    /// Where all listen that are not on it.
    pub others: Vec<u16>,
}

impl Broker {
    /// What a ground has; a server that is alone may keep its files on a small disk.
    #[must_use]
    pub fn start(ground: Ground, disk: Option<&SmallDisk>) -> Option<Self> {
        match ground {
            Ground::Alone | Ground::Postgres => None,
            Ground::Redis => Some(Self::Single(
                disk.map_or_else(Redis::lasting, |disk| Redis::lasting_on(disk.words(), disk.inside())),
            )),
            Ground::Sentinel => Some(Self::Sentinels(RedisSentinels::start())),
            Ground::Cluster => Some(Self::Cluster(RedisCluster::start(3, 1))),
            Ground::Nats => Some(Self::Nats(Nats::start())),
        }
    }

    /// Where the one server listens, if there is but one.
    #[must_use]
    pub fn single_port(&self) -> Option<u16> {
        match self {
            Self::Single(redis) => Some(redis.port),
            Self::Nats(nats) => Some(nats.port),
            Self::Sentinels(_) | Self::Cluster(_) => None,
        }
    }

    /// How a node is told where it is, in the section `broker`; `way` leads to the one server.
    #[must_use]
    pub fn settings(&self, way: Option<SocketAddr>) -> String {
        let (mode, urls) = match self {
            Self::Single(redis) => ("single", vec![way.map_or_else(|| redis.url(), |way| format!("redis://{way}"))]),
            Self::Sentinels(all) => ("sentinel", all.urls()),
            Self::Cluster(all) => ("cluster", all.urls()),
            Self::Nats(nats) => {
                let url = way.map_or_else(|| nats.url(), |way| format!("nats://{way}"));
                return format!("kind = \"nats\"\n[broker.nats]\nurls = [\"{url}\"]\n");
            }
        };
        format!(
            "kind = \"redis\"\n[broker.redis]\nmode = \"{mode}\"\nurls = {urls:?}\nmaster_name = \"{MASTER_NAME}\"\n"
        )
    }

    /// All servers of Redis that hold data.
    #[must_use]
    pub fn servers(&self) -> &[Redis] {
        match self {
            Self::Single(redis) => std::slice::from_ref(redis),
            Self::Sentinels(all) => &all.servers,
            Self::Cluster(all) => &all.servers,
            Self::Nats(_) => &[],
        }
    }

    /// All processes that hold data.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        let nats = match self {
            Self::Nats(nats) => Some(&nats.process),
            _ => None,
        };
        self.servers().iter().map(|server| &server.process).chain(nats)
    }

    /// Where these servers listen.
    ///
    /// # Errors
    /// If the ground has none of them.
    pub fn ports(&self, whom: Whom) -> anyhow::Result<Vec<u16>> {
        let all = |servers: &[Redis]| servers.iter().map(|server| server.port).collect();
        match (whom, self) {
            (Whom::Sentinels, Self::Sentinels(all)) => Ok(all.ports.clone()),
            (Whom::Sentinels, _) => bail!("there are no Sentinels"),
            (Whom::Master(slot), _) => {
                let master = self.master(slot)?;
                Ok(self.servers().get(master).map(|server| server.port).into_iter().collect())
            }
            (Whom::Servers, _) => Ok(all(self.servers())),
        }
    }

    /// What a partition has on its smaller side: the master, of a cluster the one that has this slot.
    ///
    /// # Errors
    /// If there is only one server.
    pub fn island(&self, slot: u16) -> anyhow::Result<Island> {
        let master = self.master(slot)?;
        let ports = self.servers().iter().map(|server| server.port).enumerate();
        let mut others: Vec<u16> = ports.filter(|(at, _)| *at != master).map(|(_, port)| port).collect();
        let own = self.servers().get(master).map(|server| server.port).into_iter();
        match self {
            Self::Single(_) | Self::Nats(_) => bail!("one server cannot be cut in two"),
            Self::Sentinels(all) => {
                others.extend(&all.ports);
                Ok(Island { master, ports: own.collect(), source: None, others })
            }
            Self::Cluster(all) => {
                let ports = own.chain([all.bus(master)]).collect();
                Ok(Island { master, ports, source: Some(all.source(master)), others })
            }
        }
    }

    /// Kills a server that holds data.
    pub fn kill(&mut self, at: usize) {
        match self {
            Self::Single(redis) => redis.kill(),
            Self::Sentinels(all) => all.servers[at].kill(),
            Self::Cluster(all) => all.servers[at].kill(),
            Self::Nats(nats) => nats.kill(),
        }
    }

    /// Starts it on the same port, with the files that it had.
    pub fn restart(&mut self, at: usize) {
        match self {
            Self::Single(redis) => redis.restart(),
            Self::Sentinels(all) => all.servers[at].restart(),
            Self::Cluster(all) => all.servers[at].restart(),
            Self::Nats(nats) => nats.restart(),
        }
    }

    /// The server that takes writes now; of a cluster, the one with this slot.
    ///
    /// # Errors
    /// If nobody says so.
    pub fn master(&self, slot: u16) -> anyhow::Result<usize> {
        let found = match self {
            Self::Single(_) | Self::Nats(_) => Some(0),
            Self::Sentinels(all) => all.master(),
            Self::Cluster(all) => all.owner(slot),
        };
        found.context("there is no master")
    }

    /// How many keys all masters have, if each of them says so.
    #[must_use]
    pub fn keys(&self) -> Option<u64> {
        let masters: Vec<usize> = match self {
            Self::Nats(_) => return None,
            Self::Single(_) | Self::Sentinels(_) => vec![self.master(0).ok()?],
            Self::Cluster(all) => {
                let has_slots = |at: &usize| all.owner(own_slot(all, *at)) == Some(*at);
                (0..all.servers.len()).filter(has_slots).collect()
            }
        };
        let count = |at: usize| {
            let said = self.servers().get(at)?.say(&["DBSIZE"]).ok()?;
            said.trim_start_matches(':').parse::<u64>().ok()
        };
        masters.into_iter().map(count).sum()
    }

    /// A replica of that one.
    ///
    /// # Errors
    /// If there is none.
    pub fn replica(&self, slot: u16) -> anyhow::Result<usize> {
        let master = self.master(slot)?;
        match self {
            Self::Single(_) | Self::Nats(_) => bail!("there are no replicas"),
            Self::Sentinels(all) => Ok((master + 1 + usize::from(slot % 2)) % all.servers.len()),
            Self::Cluster(all) => Ok((master + all.servers.len() / 2) % all.servers.len()),
        }
    }

    /// Kills the master, and starts it again: at once if it is the only one, else when another has taken its place.
    ///
    /// # Errors
    /// If nobody does.
    pub fn kill_master(&mut self, slot: u16, down: Duration) -> anyhow::Result<()> {
        let master = self.master(slot)?;
        self.kill(master);
        std::thread::sleep(down);
        if self.single_port().is_none() {
            self.wait_for_another(master, slot, PROMOTION_MAX)?;
        }
        self.restart(master);
        Ok(())
    }

    /// Waits until the servers agree that somebody else is the master. A master that came back empty before that would be followed.
    ///
    /// # Errors
    /// If nobody else becomes it in time.
    pub fn wait_for_another(&self, master: usize, slot: u16, most: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + most;
        while self.master(slot).map_or(true, |now| now == master) {
            if Instant::now() > deadline {
                bail!("no replica takes the place of the master within {} s", most.as_secs());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Lets all servers have so many bytes; beyond them they refuse to write. `0` is no limit.
    ///
    /// # Errors
    /// If one does not answer.
    pub fn limit_memory(&self, bytes: &str) -> anyhow::Result<()> {
        for server in self.servers() {
            let said = server.say(&["CONFIG", "SET", "maxmemory", bytes]).context("CONFIG SET maxmemory")?;
            if said != "+OK" {
                bail!("CONFIG SET maxmemory: {said}");
            }
        }
        Ok(())
    }

    /// Asks the Sentinels, or the master's replica, to take over in order.
    ///
    /// # Errors
    /// If they do not.
    pub fn fail_over(&self, slot: u16) -> anyhow::Result<()> {
        let master = self.master(slot)?;
        match self {
            Self::Single(_) | Self::Nats(_) => bail!("there is nobody to take over"),
            Self::Sentinels(all) => {
                // They refuse for a while after the last time.
                let deadline = Instant::now() + PROMOTION_MAX;
                let ask = || talewire_stand::redis::say(all.ports[0], &["SENTINEL", "FAILOVER", MASTER_NAME]);
                // And they give it up again if they find no replica that is good enough just now.
                loop {
                    while !ask().is_ok_and(|said| said == "+OK") {
                        if Instant::now() > deadline {
                            bail!("the Sentinels refuse to change the master");
                        }
                        std::thread::sleep(LOOK_AGAIN);
                    }
                    if self.wait_for_another(master, slot, FAIL_OVER_TRY).is_ok() {
                        return Ok(());
                    }
                }
            }
            Self::Cluster(all) => {
                let replica = self.replica(slot)?;
                all.servers[replica].say(&["CLUSTER", "FAILOVER"]).context("CLUSTER FAILOVER")?;
            }
        }
        self.wait_for_another(master, slot, PROMOTION_MAX)
    }

    /// Cuts the replicas off for a while, and then has one of them take over: what was acknowledged meanwhile is gone.
    ///
    /// # Errors
    /// If there are no Sentinels, or nobody takes over.
    pub fn fail_over_to_old(&mut self, lag: Duration) -> anyhow::Result<()> {
        let master = self.master(0)?;
        let Self::Sentinels(all) = &*self else { bail!("only Sentinels can be led so far astray") };
        for (_, replica) in all.servers.iter().enumerate().filter(|(at, _)| *at != master) {
            // Nobody listens there. The Sentinels notice after some seconds.
            replica.say(&["REPLICAOF", "127.0.0.1", "1"]).context("REPLICAOF")?;
        }
        std::thread::sleep(lag);
        self.kill_master(0, Duration::ZERO)
    }

    /// Moves the slots of so many keys from the master that has them to another; how many were moved.
    ///
    /// # Errors
    /// If this is no cluster.
    pub fn move_slots(&self, count: usize) -> anyhow::Result<usize> {
        let Self::Cluster(all) = self else { bail!("only clusters have slots") };
        let mut moved = 0;
        for at in 0..all.servers.len() {
            for _ in 0..count {
                let Ok(key) = all.servers[at].say(&["RANDOMKEY"]) else { continue };
                if key.starts_with('$') {
                    continue;
                }
                let slot = all.slot(&key);
                let Some(from) = all.owner(slot).filter(|from| *from == at) else { continue };
                let to = (0..all.servers.len()).find(|to| *to != from && all.owner(own_slot(all, *to)) == Some(*to));
                if let Some(to) = to {
                    all.move_slot(slot, from, to, || {});
                    moved += 1;
                }
            }
        }
        Ok(moved)
    }
}

/// A slot that a server has, if it is a master.
fn own_slot(all: &RedisCluster, at: usize) -> u16 {
    let slots = 0..16_384;
    slots.step_by(1_024).find(|slot| all.owner(*slot) == Some(at)).unwrap_or(u16::MAX)
}
