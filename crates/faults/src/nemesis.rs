//! Carries faults out, one after the other, on the stage of a run, and heals each before the next. Called by [`crate::run`].

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;
use talewire_stand::redis_sentinel::RedisSentinels;

use crate::checkers::Promises;
use crate::clients::subject::{SUBJECTS, Subjects};
use crate::clients::{PATIENCE, World};
use crate::http::{self, Who};
use crate::log::What;
use crate::run::RunOptions;
use crate::schedule::{Fault, Place, Step, Whom};
use crate::socket::Socket;
use crate::stage::apart;
use crate::stage::broker::{Broker, PROMOTION_MAX};
use crate::stage::proxy::Weather;
use crate::stage::{API_KEY, Stage, set_clock};

mod full;

/// How often processes are looked at while nothing else is to do.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long a fault of a worker waits until that begins to write something; and what says so.
const WRITING_MAX: Duration = Duration::from_secs(40);
const CLAIMED: &str = "talewire_agents_claimed_total";

/// The numbers of those from whom something is taken away begin here.
const SUBJECTS_FROM: u32 = 1_000;

/// How long they are listened to beyond the time when nothing may come any more.
const JUDGED_AFTER: Duration = Duration::from_millis(1_500);

/// Descriptors that a node keeps when the others are taken.
const DESCRIPTORS_LEFT: u64 = 3;

/// Connections that ask for those.
const VISITORS: usize = 40;

/// Readers that do not read, and what is said to them: publications of so many bytes.
const SLOW_READERS: usize = 4;
const SLOW_READERS_BEGIN_MAX: Duration = Duration::from_secs(20);
const LONG_TEXT_BYTES: usize = 24_000;
const LONG_TEXTS: usize = 150;

/// Long texts after which a full disk has to refuse: some more than fit into what SQLite has allotted.
const LONG_TEXTS_UNTIL_REFUSED: usize = 2_000;

/// The durable channel of those.
const FULL_DISK_CHANNEL: &str = "talk:long-texts";

/// Cuts off the older half of every stream, and says how many there were.
const LOSE_KEYS: &str = "local cut = 0 \
    for _, key in ipairs(redis.call('KEYS', '*')) do \
    if redis.call('TYPE', key).ok == 'stream' then \
    cut = cut + redis.call('XTRIM', key, 'MAXLEN', math.floor(redis.call('XLEN', key) / 2)) end end \
    return cut";

/// Connections that are never given back.
const LEAKED: usize = 80;

/// The channel that is never read and never forgotten, and how often something is said in it.
const HOARD: &str = "news:hoard";
const HOARD_EVERY: Duration = Duration::from_millis(10);

/// Channels that nobody reads.
const HOARDED_KEYS: usize = 150;

/// The channel of long texts: nobody's history is asked for at the end.
const LONG_TEXTS_CHANNEL: &str = "news:long-texts";

/// What is held open until the end of a run.
#[derive(Debug, Default)]
pub struct Held {
    sockets: Vec<TcpStream>,
    hoarders: Vec<JoinHandle<()>>,
}

/// Carries out all steps.
///
/// # Errors
/// If the stage cannot be made whole again: the run is void.
pub fn run(options: &RunOptions, stage: &mut Stage, world: &Arc<World>, held: &mut Held) -> anyhow::Result<()> {
    let RunOptions { steps, promises, orders, .. } = options;
    let mut subjects = Vec::new();
    let mut judged = Instant::now();
    for (number, step) in (1..).zip(steps) {
        rest(step.rest_ms, stage, world);
        stage.count_keys(&world.log);
        let Step { fault, .. } = step;
        let of_fault = if *orders { subjects_of(*fault, number, stage, world)? } else { None };
        world.log.say(What::Fault { number, fault: format!("{fault:?}") });
        if let Some((all, by)) = of_fault {
            subjects.push(all.ordered(world, by));
        }
        one(*fault, stage, world, promises, held).with_context(|| format!("{fault:?}"))?;
        world.log.say(What::Healed { number });
        if subjects.iter().any(|all: &Subjects| !all.are_over()) {
            judged = Instant::now() + Duration::from_millis(promises.revoked_ms) + JUDGED_AFTER;
        }
    }
    while Instant::now() < judged && subjects.iter().any(|all| !all.are_over()) {
        rest(100, stage, world);
    }
    Ok(())
}

/// Those from whom something is taken away while this fault goes on, connected to the node that it strikes, and who takes the orders.
fn subjects_of(
    fault: Fault,
    number: u32,
    stage: &mut Stage,
    world: &Arc<World>,
) -> anyhow::Result<Option<(Subjects, usize)>> {
    let nodes = stage.nodes.len();
    let node = match fault {
        Fault::Pause { node, .. } | Fault::CutOff { node, .. } | Fault::Split { node, .. } | Fault::Deafen { node } => {
            node
        }
        Fault::KillBroker { slot, .. } => usize::from(slot) % nodes,
        _ => return Ok(None),
    };
    if nodes < 2 {
        return Ok(None);
    }
    let first = SUBJECTS_FROM + number * SUBJECTS;
    let user = |number: u32| format!("subject-{number}");
    let named = (first..first + SUBJECTS).map(|number| Ok((user(number), stage.token(&user(number))?)));
    let tokens = named.collect::<anyhow::Result<Vec<_>>>()?;
    // The fault before may not be over for everybody yet.
    let deadline = Instant::now() + SLOW_READERS_BEGIN_MAX;
    loop {
        match Subjects::begin(world, node, first, &tokens) {
            Ok(subjects) => return Ok(Some((subjects, (node + 1) % nodes))),
            Err(trouble) if Instant::now() > deadline => bail!("somebody to take a channel away from: {trouble}"),
            Err(_) => rest(100, stage, world),
        }
    }
}

/// Waits, and keeps an eye on the processes.
pub fn rest(ms: u64, stage: &mut Stage, world: &World) {
    let until = Instant::now() + Duration::from_millis(ms);
    loop {
        stage.look(&world.log);
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(LOOK_AGAIN));
    }
}

fn one(
    fault: Fault,
    stage: &mut Stage,
    world: &Arc<World>,
    promises: &Promises,
    held: &mut Held,
) -> anyhow::Result<()> {
    let drain = Duration::from_millis(promises.drain_ms);
    match fault {
        Fault::Kill { node, down_ms } => {
            stage.nodes[node].kill();
            rest(down_ms, stage, world);
            stage.nodes[node].start()?;
        }
        Fault::KillStarting { node, after_ms } => {
            stage.nodes[node].kill();
            stage.nodes[node].spawn();
            std::thread::sleep(Duration::from_millis(after_ms));
            stage.nodes[node].kill();
            stage.nodes[node].start()?;
        }
        Fault::Pause { node, ms } => {
            stage.nodes[node].pause();
            rest(ms, stage, world);
            stage.nodes[node].go_on();
        }
        Fault::Drain { node } => {
            stage.nodes[node].drain(drain, &world.log, |_| {});
            stage.nodes[node].start()?;
        }
        Fault::Roll => {
            for node in &mut stage.nodes {
                node.drain(drain, &world.log, |_| {});
                node.start()?;
            }
        }
        Fault::FillDisk { ms, kill } => {
            stage.disk.as_ref().context("this stage's disk cannot be filled")?.fill()?;
            until_refused(stage)?;
            rest(ms / 2, stage, world);
            if kill {
                stage.nodes[0].kill();
                stage.nodes[0].spawn();
                // It may refuse to start without room: nobody looks whether it runs.
                std::thread::sleep(Duration::from_millis(ms / 2));
            } else {
                rest(ms / 2, stage, world);
            }
            stage.disk.as_ref().context("the disk")?.clear()?;
            if kill {
                stage.nodes[0].kill();
                stage.nodes[0].start()?;
            }
        }
        Fault::MoveClock { node, seconds, ms } => {
            let clock = stage.nodes[node].clock.clone().context("this stage's clock cannot be moved")?;
            set_clock(&clock, seconds)?;
            rest(ms, stage, world);
            set_clock(&clock, 0)?;
        }
        Fault::MoveStoreClock { seconds, ms } => {
            let clock = stage.store_clock.clone().context("PostgreSQL's clock cannot be moved")?;
            set_clock(&clock, seconds)?;
            rest(ms, stage, world);
            set_clock(&clock, 0)?;
        }
        Fault::TakeDescriptors { node, ms } => take_descriptors(node, ms, stage, world)?,
        Fault::KillWorker { .. } | Fault::PauseWorker { .. } => working(fault, stage, world)?,
        Fault::FillStore { .. } | Fault::FillBrokerDisk { .. } => full::run(fault, stage, world)?,
        Fault::KillStore { .. }
        | Fault::PauseStore { .. }
        | Fault::KillBroker { .. }
        | Fault::PauseBroker { .. }
        | Fault::FillBroker { .. }
        | Fault::KillReplica { .. }
        | Fault::KillSentinel { .. }
        | Fault::FailOver { .. }
        | Fault::FailOverToOld { .. }
        | Fault::MoveSlots { .. }
        | Fault::CutOff { .. }
        | Fault::Split { .. } => underneath(fault, stage, world)?,
        Fault::Storm { place, weather, ms } => {
            stage.way(place)?.set(weather);
            rest(ms, stage, world);
            stage.way(place)?.set(Weather::Clear);
        }
        Fault::Deafen { node } => deafen(node, promises.deaf_ms + 1_000, stage, world)?,
        Fault::SlowReaders { node, ms } => slow_readers(node, ms, stage, world)?,
        Fault::Hoard { node } => hoard(node, stage, world, held)?,
        Fault::HoardKeys => {
            let address = stage.nodes[0].door.direct().context("it has never listened")?;
            for n in 0..HOARDED_KEYS {
                let body = json!({ "channel": format!("news:unread-{n}"), "data": n });
                http::post(address, "/api/publish", Who::Key(API_KEY), &body, PATIENCE)?;
            }
        }
        Fault::Leak { .. } | Fault::OldBackup { .. } | Fault::LoseEntries { .. } | Fault::LoseKeys => {
            broken(fault, stage, world, held)?;
        }
        Fault::EndlessStorm { node } => stage.fronts[node].set(Weather::BlackHole),
        Fault::PauseInDrain { node } => {
            stage.nodes[node].drain(drain, &world.log, |node| node.pause());
            stage.nodes[node].start()?;
        }
    }
    Ok(())
}

/// What nodes stand on is killed or paused.
fn underneath(fault: Fault, stage: &mut Stage, world: &World) -> anyhow::Result<()> {
    match fault {
        Fault::KillStore { down_ms } => {
            stage.postgres.as_mut().context("no PostgreSQL")?.kill();
            rest(down_ms, stage, world);
            stage.postgres.as_mut().context("no PostgreSQL")?.restart();
        }
        Fault::PauseStore { ms } => {
            stage.postgres.as_ref().context("no PostgreSQL")?.pause();
            rest(ms, stage, world);
            stage.postgres.as_ref().context("no PostgreSQL")?.go_on();
        }
        Fault::KillBroker { slot, down_ms } => {
            broker(stage)?.kill_master(slot, Duration::from_millis(down_ms))?;
        }
        Fault::KillReplica { slot, down_ms } => {
            let at = broker(stage)?.replica(slot)?;
            broker(stage)?.kill(at);
            rest(down_ms, stage, world);
            broker(stage)?.restart(at);
        }
        Fault::KillSentinel { number, down_ms } => {
            sentinels(stage)?.kill_sentinel(number);
            rest(down_ms, stage, world);
            sentinels(stage)?.restart_sentinel(number);
        }
        Fault::PauseBroker { slot, ms } => {
            let at = broker(stage)?.master(slot)?;
            broker(stage)?.processes().nth(at).context("no such server")?.pause();
            rest(ms, stage, world);
            broker(stage)?.processes().nth(at).context("no such server")?.go_on();
        }
        Fault::FillBroker { ms } => {
            broker(stage)?.limit_memory("1")?;
            rest(ms, stage, world);
            broker(stage)?.limit_memory("0")?;
        }
        Fault::FailOver { slot } => broker(stage)?.fail_over(slot)?,
        Fault::FailOverToOld { lag_ms } => broker(stage)?.fail_over_to_old(Duration::from_millis(lag_ms))?,
        Fault::MoveSlots { count } => {
            if broker(stage)?.move_slots(count)? == 0 {
                bail!("no slot with a key was moved");
            }
        }
        Fault::CutOff { node, whom, loud, fail_over, ms } => {
            let ports = broker(stage)?.ports(whom)?;
            let network = stage.networks.get(node).context("the nodes have no networks of their own")?.clone();
            network.cut(&ports, loud, true)?;
            if fail_over {
                let slot = if let Whom::Master(slot) = whom { slot } else { 0 };
                broker(stage)?.fail_over(slot)?;
            }
            rest(ms, stage, world);
            network.cut(&ports, loud, false)?;
        }
        Fault::Split { node, slot, ms } => split(node, slot, ms, stage, world)?,
        other => bail!("{other:?} is above the ground"),
    }
    Ok(())
}

/// The master and one node stay together; all others, and the Sentinels, are on the other side.
fn split(node: usize, slot: u16, ms: u64, stage: &mut Stage, world: &World) -> anyhow::Result<()> {
    let island = broker(stage)?.island(slot)?;
    let cut = |stage: &Stage, is_cut: bool| -> anyhow::Result<()> {
        for (number, network) in stage.networks.iter().enumerate() {
            let across = if number == node { &island.others } else { &island.ports };
            network.cut(across, false, is_cut)?;
        }
        apart::split(&island.ports, island.source, is_cut)
    };
    if stage.networks.is_empty() {
        bail!("the nodes have no networks of their own");
    }
    cut(stage, true)?;
    let taken_over = broker(stage)?.wait_for_another(island.master, slot, PROMOTION_MAX);
    rest(ms, stage, world);
    cut(stage, false)?;
    taken_over
}

/// A worker goes while it writes, if it does soon. What it has done is read before it is forgotten with the process.
fn working(fault: Fault, stage: &mut Stage, world: &World) -> anyhow::Result<()> {
    let deadline = Instant::now() + WRITING_MAX;
    let claimed = |stage: &Stage| stage.workers.first().and_then(|worker| worker.metric(CLAIMED).ok());
    let before = claimed(stage);
    // As it begins with one: the rest of an older one might be over before anybody misses it.
    while claimed(stage) == before && Instant::now() < deadline {
        rest(20, stage, world);
    }
    stage.workers[0].worked(&world.log);
    match fault {
        Fault::KillWorker { down_ms } => {
            stage.workers[0].kill();
            rest(down_ms, stage, world);
            stage.workers[0].start()?;
        }
        Fault::PauseWorker { ms } => {
            stage.workers[0].pause();
            rest(ms, stage, world);
            stage.workers[0].go_on();
        }
        other => bail!("{other:?} is not a worker's"),
    }
    Ok(())
}

/// Until the node says that it is not ready, or should have.
fn deafen(node: usize, most_ms: u64, stage: &mut Stage, world: &World) -> anyhow::Result<()> {
    stage.way(Place::Broker(node))?.set(Weather::Deaf);
    let name = stage.nodes[node].door.name.clone();
    let address = stage.nodes[node].admin.context("it has never listened")?;
    world.log.say(What::Deaf { node: name.clone() });
    let deadline = Instant::now() + Duration::from_millis(most_ms);
    loop {
        rest(100, stage, world);
        let request = format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        // Who does not answer at all is no better than who says that it is not ready; it is another fault.
        let Ok(answer) = http::exchange(address, request.as_bytes(), PATIENCE) else { continue };
        let is_ready = answer.status == 200;
        world.log.say(What::Ready { node: name.clone(), is_ready });
        if !is_ready || Instant::now() > deadline {
            break;
        }
    }
    stage.way(Place::Broker(node))?.set(Weather::Clear);
    Ok(())
}

fn broker(stage: &mut Stage) -> anyhow::Result<&mut Broker> {
    stage.broker.as_mut().context("no broker")
}

fn sentinels(stage: &mut Stage) -> anyhow::Result<&mut RedisSentinels> {
    match broker(stage)? {
        Broker::Sentinels(all) => Ok(all),
        _ => bail!("there are no Sentinels"),
    }
}

/// Writes long texts until one is refused: what was allotted before is used up then, and a full disk is one.
fn until_refused(stage: &Stage) -> anyhow::Result<()> {
    let address = stage.nodes[0].door.direct().context("it has never listened")?;
    let body = json!({ "channel": FULL_DISK_CHANNEL, "data": { "text": "z".repeat(LONG_TEXT_BYTES) } });
    for _ in 0..LONG_TEXTS_UNTIL_REFUSED {
        if http::post(address, "/api/publish", Who::Key(API_KEY), &body, PATIENCE).is_err() {
            return Ok(());
        }
    }
    bail!("the disk is full, and {LONG_TEXTS_UNTIL_REFUSED} long texts were kept all the same")
}

fn take_descriptors(node: usize, ms: u64, stage: &mut Stage, world: &World) -> anyhow::Result<()> {
    let address = stage.nodes[node].door.direct().context("it has never listened")?;
    stage.nodes[node].limit_descriptors(Some(DESCRIPTORS_LEFT))?;
    // Whether they get in is not the question.
    let visitors: Vec<_> = (0..VISITORS).map(|_| TcpStream::connect_timeout(&address, PATIENCE)).collect();
    rest(ms, stage, world);
    drop(visitors);
    stage.nodes[node].limit_descriptors(None)
}

/// Who reads nothing must cost a bounded queue and nobody else anything.
fn slow_readers(node: usize, ms: u64, stage: &mut Stage, world: &World) -> anyhow::Result<()> {
    let address = stage.nodes[node].door.direct().context("it has never listened")?;
    let token = stage.token("slow")?;
    let mut readers = Vec::new();
    // The fault before may not be over for everybody yet.
    let deadline = Instant::now() + SLOW_READERS_BEGIN_MAX;
    while readers.len() < SLOW_READERS {
        let opened = Socket::open(address, PATIENCE).and_then(|mut socket| {
            socket.connect(&token, PATIENCE)?;
            socket.call("subscribe", json!({ "channel": LONG_TEXTS_CHANNEL }), PATIENCE)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => readers.push(socket),
            Err(trouble) if Instant::now() > deadline => bail!("a slow reader: {trouble}"),
            Err(_) => rest(100, stage, world),
        }
    }
    let text = "z".repeat(LONG_TEXT_BYTES);
    for n in 0..LONG_TEXTS {
        let body = json!({ "channel": LONG_TEXTS_CHANNEL, "data": { "n": n, "text": text } });
        while let Err(trouble) = http::post(address, "/api/publish", Who::Key(API_KEY), &body, PATIENCE) {
            if Instant::now() > deadline {
                bail!("a long text: {trouble}");
            }
            rest(100, stage, world);
        }
    }
    rest(ms, stage, world);
    drop(readers);
    let body = json!({ "channel": LONG_TEXTS_CHANNEL });
    // What is left of it is bounded by the history's size.
    let _ = http::post(address, "/api/history_remove", Who::Key(API_KEY), &body, PATIENCE);
    Ok(())
}

/// What only tests do: the server is broken for good, so that a checker has something to find.
fn broken(fault: Fault, stage: &mut Stage, world: &World, held: &mut Held) -> anyhow::Result<()> {
    match fault {
        Fault::Leak { node } => {
            let address = stage.nodes[node].door.direct().context("it has never listened")?;
            let wanted = stage.nodes[node].descriptors()? + LEAKED as u64;
            for _ in 0..LEAKED {
                held.sockets.push(TcpStream::connect_timeout(&address, PATIENCE).context("a connection to leak")?);
            }
            // Until they are accepted they are the kernel's.
            let deadline = Instant::now() + PATIENCE;
            while stage.nodes[node].descriptors()? < wanted && Instant::now() < deadline {
                rest(20, stage, world);
            }
        }
        Fault::OldBackup { node } => {
            let backup = stage.folder().join("backup");
            stage.nodes[node].kill();
            copy_folder(&stage.nodes[node].data, &backup)?;
            stage.nodes[node].start()?;
            rest(700, stage, world);
            stage.nodes[node].kill();
            std::fs::remove_dir_all(&stage.nodes[node].data)?;
            copy_folder(&backup, &stage.nodes[node].data)?;
            stage.nodes[node].start()?;
        }
        Fault::LoseEntries { node } => {
            stage.nodes[node].kill();
            lose_entries(&stage.nodes[node].data)?;
            stage.nodes[node].start()?;
        }
        Fault::LoseKeys => {
            let said = broker(stage)?.servers()[0].say(&["EVAL", LOSE_KEYS, "0"]).context("Redis")?;
            if said == ":0" {
                bail!("there was nothing to lose");
            }
        }
        other => bail!("{other:?} is no break of a test"),
    }
    Ok(())
}

/// Publishes to a history that is kept in memory, faster than anything is forgotten.
fn hoard(node: usize, stage: &mut Stage, world: &Arc<World>, held: &mut Held) -> anyhow::Result<()> {
    let address = stage.nodes[node].door.direct().context("it has never listened")?;
    let world = world.clone();
    held.hoarders.push(std::thread::spawn(move || {
        let body = json!({ "channel": HOARD, "data": { "text": "z".repeat(LONG_TEXT_BYTES) } });
        while !world.is_quiet() {
            // Whatever is refused is not kept; the test sees what was.
            let _ = http::post(address, "/api/publish", Who::Key(API_KEY), &body, PATIENCE);
            std::thread::sleep(HOARD_EVERY);
        }
    }));
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// What was committed since the last checkpoint is gone, as after a power failure on a disk that lies about syncing.
fn lose_entries(data: &Path) -> anyhow::Result<()> {
    std::fs::remove_file(data.join("talewire.db-wal")).context("the write-ahead log")
}
