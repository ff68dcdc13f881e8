//! Full disks under PostgreSQL and Redis. Whatever ends for want of room is started again when there is some, as whoever operates it
//! would.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{API_KEY, PATIENCE, broker, rest};
use crate::clients::World;
use crate::http::{self, Who};
use crate::schedule::Fault;
use crate::stage::Stage;
use crate::stage::broker::Broker;

/// How long a disk may be full until a write is refused, and free until one is taken.
const TURN_MAX: Duration = Duration::from_secs(20);

/// Bytes of the texts that fill what is left. They do not compress: PostgreSQL would.
const TEXT_BYTES: usize = 16_000;

/// Where they are published. Nobody's history is asked for at the end.
const DURABLE: &str = "talk:long-texts";
const HISTORY: &str = "news:long-texts";

/// Carries out one of them.
pub(super) fn run(fault: Fault, stage: &mut Stage, world: &World) -> anyhow::Result<()> {
    match fault {
        Fault::FillStore { ms } => store(ms, stage, world),
        Fault::FillBrokerDisk { ms, every_second } => redis(ms, every_second, stage, world),
        other => bail!("{other:?} fills no disk"),
    }
}

fn store(ms: u64, stage: &mut Stage, world: &World) -> anyhow::Result<()> {
    fill(stage, true)?;
    until(stage, world, DURABLE, false)?;
    rest(ms, stage, world);
    fill(stage, false)?;
    let postgres = stage.postgres.as_mut().context("no PostgreSQL")?;
    if !postgres.process.is_running() {
        postgres.restart();
    }
    until(stage, world, DURABLE, true)
}

fn redis(ms: u64, every_second: bool, stage: &mut Stage, world: &World) -> anyhow::Result<()> {
    if every_second {
        sync(stage, "everysec")?;
    }
    fill(stage, true)?;
    until(stage, world, HISTORY, false)?;
    rest(ms, stage, world);
    fill(stage, false)?;
    let Broker::Single(redis) = broker(stage)? else { bail!("there is more than one Redis") };
    if !redis.process.is_running() {
        redis.restart();
    }
    until(stage, world, HISTORY, true)?;
    sync(stage, "always")
}

fn sync(stage: &mut Stage, how: &str) -> anyhow::Result<()> {
    let said = broker(stage)?.servers()[0].say(&["CONFIG", "SET", "appendfsync", how]).context("CONFIG SET")?;
    if said == "+OK" { Ok(()) } else { bail!("CONFIG SET appendfsync: {said}") }
}

fn fill(stage: &Stage, is_full: bool) -> anyhow::Result<()> {
    let disk = stage.disk.as_ref().context("this stage's disk cannot be filled")?;
    if is_full { disk.fill() } else { disk.clear() }
}

/// Writes long texts until one is taken, or refused.
fn until(stage: &mut Stage, world: &World, channel: &str, is_taken: bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + TURN_MAX;
    while Instant::now() < deadline {
        let address = stage.nodes[0].door.direct().context("it has never listened")?;
        let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(TEXT_BYTES).collect();
        let body = json!({ "channel": channel, "data": { "text": text } });
        if http::post(address, "/api/publish", Who::Key(API_KEY), &body, PATIENCE).is_ok() == is_taken {
            return Ok(());
        }
        if is_taken {
            rest(100, stage, world);
        }
    }
    let is = if is_taken { "free, and nothing is kept" } else { "full, and everything is kept" };
    bail!("the disk has been {is} for {} s", TURN_MAX.as_secs())
}
