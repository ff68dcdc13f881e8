//! A whole run: servers and clients begin, faults come, everything becomes quiet, and what is there is read in full. Out comes the
//! log, which the checkers judge.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::checkers::{self, Promises};
use crate::clients::events::{Plain, PlainReader};
use crate::clients::publisher::{By, Manner, Publisher};
use crate::clients::reader::Reader;
use crate::clients::teller::{self, Teller};
use crate::clients::{PATIENCE, Way, World};
use crate::http::{self, Who};
use crate::log::{self, Event, Kind, Lasts, Name, Outcome, Position, What};
use crate::nemesis::{self, Held};
use crate::report::Report;
use crate::schedule::Step;
use crate::stage::{API_KEY, HISTORY_SIZE, Stage, StageOptions};
use crate::{history, payload};

/// How long all clients may take until they are there for the first time.
const BEGIN_MAX: Duration = Duration::from_secs(30);

/// How often something is looked for that is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The reader from whom a channel is taken away.
const REVOKED: u32 = 90;

/// Time between two rounds of publications at the end, in milliseconds.
const PROBE_EVERY_MS: u64 = 400;

/// The user who polls: present while a poll waits, and between two polls not.
const POLLING: &str = "reader-7";

/// Everything that a run needs to know.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The servers.
    pub stage: StageOptions,
    /// The faults.
    pub steps: Vec<Step>,
    /// For everything that is random.
    pub seed: u64,
    /// What must hold.
    pub promises: Promises,
    /// How long everything runs before the first fault, in milliseconds.
    pub calm_ms: u64,
    /// Whether channels and connections are taken away during faults, at other nodes than their readers'.
    pub orders: bool,
    /// Whether somebody has stories written.
    pub stories: bool,
    /// Where the log goes, if it is wanted.
    pub log: Option<PathBuf>,
}

/// The channels of a run, and what they promise.
fn channels(lasts: Lasts) -> Vec<(Name, Kind)> {
    let history = Kind::History { size: HISTORY_SIZE, lasts };
    let all = [("talk:a", Kind::Durable), ("talk:b", Kind::Durable), ("news:a", history), ("news:b", history)];
    all.into_iter().map(|(name, kind)| (name.into(), kind)).collect()
}

/// Their names.
fn names() -> Vec<Name> {
    channels(Lasts::InMemory).into_iter().map(|(channel, _)| channel).collect()
}

/// Makes a run and judges it.
///
/// # Errors
/// If it could not even begin. Whatever happens later stands in the report.
pub fn run(options: &RunOptions) -> anyhow::Result<Report> {
    let began = Instant::now();
    let mut stage = Stage::start(&options.stage)?;
    let world = Arc::new(World::new(stage.doors(), API_KEY));
    for (channel, kind) in channels(options.stage.ground.history()) {
        world.log.say(What::Channel { channel, kind });
    }
    let crowd = Crowd::begin(options, &stage, &world)?;
    let mut held = Held::default();
    if let Err(error) = whole(options, &mut stage, &world, crowd, &mut held) {
        world.log.say(What::Void { why: format!("{error:#}") });
        world.stop();
    }
    for node in stage.nodes.iter_mut().chain(&mut stage.workers) {
        node.look(&world.log);
        node.panics(&world.log);
    }
    drop(held);
    let events = world.log.take();
    if let Some(path) = &options.log {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        log::write(&events, BufWriter::new(file)).context("writing the log")?;
    }
    let verdict = checkers::check(&events, &options.promises);
    Ok(Report::new(options, &events, verdict, began.elapsed()))
}

fn whole(
    options: &RunOptions,
    stage: &mut Stage,
    world: &Arc<World>,
    mut crowd: Crowd,
    held: &mut Held,
) -> anyhow::Result<()> {
    nemesis::rest(options.calm_ms, stage, world);
    revoke(world)?;
    nemesis::run(options, stage, world, held)?;
    nemesis::rest(300, stage, world);
    world.log.say(What::Quiet);
    world.stop_publishing();
    probe(options, stage, world);
    let story = crowd.quiet();
    presence(options, stage, world);
    nemesis::rest(100, stage, world);
    stage.count_keys(&world.log);
    stage.worked(&world.log);
    read_all(world)?;
    if let Some(story) = story {
        read_story(world, &story)?;
    }
    world.log.say(What::Over);
    world.stop();
    for reader in crowd.readers {
        reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
    }
    Ok(())
}

/// All clients.
struct Crowd {
    publishers: Vec<JoinHandle<()>>,
    teller: Option<JoinHandle<Option<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Starts everybody, and waits until all readers are there.
    fn begin(options: &RunOptions, stage: &Stage, world: &Arc<World>) -> anyhow::Result<Self> {
        let seed = options.seed.wrapping_mul(1_000);
        let is_lied_to = options.stage.lie.is_some();
        let mut crowd = Self { publishers: Vec::new(), teller: None, readers: Vec::new() };
        crowd.readers(stage, world, seed, is_lied_to)?;
        let deadline = Instant::now() + BEGIN_MAX;
        let wanted = crowd.readers.len();
        while world.log.look(subscribed) < wanted {
            if Instant::now() > deadline {
                bail!("the readers are not there after {} s", BEGIN_MAX.as_secs());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        crowd.publishers(stage, world, seed + 500, is_lied_to)?;
        if options.stories {
            let token = stage.token("teller")?;
            let way = if is_lied_to { Way::Proxied } else { Way::Direct };
            let teller = Teller { token, name: "teller".to_owned(), way, seed: seed + 700 };
            let world = world.clone();
            crowd.teller = Some(std::thread::spawn(move || teller.run(&world)));
        }
        Ok(crowd)
    }

    fn readers(&mut self, stage: &Stage, world: &Arc<World>, seed: u64, is_lied_to: bool) -> anyhow::Result<()> {
        let all = names();
        let talk = all[..2].to_vec();
        let way = |way| if is_lied_to { Way::Proxied } else { way };
        let native = [
            (1, Way::Direct, all.clone(), Vec::new()),
            (2, Way::Proxied, all.clone(), Vec::new()),
            (3, Way::Proxied, talk.clone(), Vec::new()),
            (REVOKED, Way::Direct, talk, vec![all[1].clone()]),
        ];
        for (number, by, channels, given_up) in native {
            let token = stage.token(&format!("reader-{number}"))?;
            let seed = seed + u64::from(number);
            let reader = Reader { number, channels, token, way: way(by), seed, given_up };
            let world = world.clone();
            self.readers.push(std::thread::spawn(move || reader.run(&world)));
        }
        let plain = [
            (4, Way::Direct, Plain::Events, vec![all[0].clone(), all[2].clone()]),
            (5, Way::Proxied, Plain::Events, all.clone()),
            (6, Way::Proxied, Plain::Events, vec![all[1].clone()]),
            (7, Way::Direct, Plain::Polls, all.clone()),
        ];
        for (number, by, plain, channels) in plain {
            let token = stage.token(&format!("reader-{number}"))?;
            let seed = seed + u64::from(number);
            let reader = PlainReader { number, plain, channels, token, way: way(by), seed };
            let world = world.clone();
            self.readers.push(std::thread::spawn(move || reader.run(&world)));
        }
        Ok(())
    }

    fn publishers(&mut self, stage: &Stage, world: &Arc<World>, seed: u64, is_lied_to: bool) -> anyhow::Result<()> {
        let all = names();
        let talk = all[..2].to_vec();
        let token = stage.token("writer")?;
        let kinds = [
            ("sure", all.clone(), Manner::Surely, By::Api, 20),
            ("once", all, Manner::Once, By::Api, 25),
            ("socket", talk, Manner::Surely, By::Socket { token }, 30),
        ];
        for (number, (name, channels, manner, by, every_ms)) in (0..).zip(kinds) {
            let way = if is_lied_to { Way::Proxied } else { Way::Direct };
            let every = Duration::from_millis(every_ms);
            let repeats = if manner == Manner::Surely { 20 } else { 0 };
            let seed = seed + number;
            let publisher = Publisher { name: name.to_owned(), channels, manner, by, way, every, repeats, seed };
            let world = world.clone();
            self.publishers.push(std::thread::spawn(move || publisher.run(&world)));
        }
        Ok(())
    }

    /// Waits until nobody writes any more; gives the story that was written.
    fn quiet(&mut self) -> Option<String> {
        for publisher in self.publishers.drain(..) {
            // A panic of a client is in the output of the run; the checkers see what is missing.
            let _ = publisher.join();
        }
        self.teller.take().and_then(|teller| teller.join().ok().flatten())
    }
}

/// How many readers have been subscribed at all.
fn subscribed(events: &[Event]) -> usize {
    let reader = |event: &Event| match event.what {
        What::Subscribed { reader, .. } => Some(reader),
        _ => None,
    };
    events.iter().filter_map(reader).collect::<std::collections::BTreeSet<_>>().len()
}

/// Takes a channel away from a reader.
fn revoke(world: &World) -> anyhow::Result<()> {
    let channel = names().swap_remove(1);
    let (_, address) = world.front(0).context("the first node has never listened")?;
    let body = json!({ "channel": *channel, "user": format!("reader-{REVOKED}") });
    http::post(address, "/api/unsubscribe", Who::Key(API_KEY), &body, PATIENCE)
        .map_err(|trouble| anyhow::anyhow!("taking a channel away: {trouble}"))?;
    world.log.say(What::Revoked { reader: REVOKED, channel });
    Ok(())
}

/// Publishes something in each channel by each node, again and again until everybody has got something of each, or should have.
fn probe(options: &RunOptions, stage: &mut Stage, world: &World) {
    let since_us = world.log.now_us();
    let deadline = Instant::now() + Duration::from_millis(options.promises.alive_ms);
    for round in 0.. {
        for number in 0..world.doors.len() {
            for channel in names() {
                if Instant::now() > deadline {
                    return;
                }
                publish(world, number, &channel, &format!("probe-{number}-{round}").into());
            }
        }
        nemesis::rest(PROBE_EVERY_MS, stage, world);
        let is_done = world.log.look(|events| checkers::everybody_is_reached(events, since_us));
        if is_done || Instant::now() > deadline {
            return;
        }
    }
}

fn publish(world: &World, number: usize, channel: &Name, key: &Name) -> bool {
    let Some((node, address)) = world.front(number) else { return false };
    let op = world.log.operation();
    world.log.say(What::Asked { op, channel: channel.clone(), key: key.clone(), node });
    let data = payload::payload(channel, key, 0);
    let body = json!({ "channel": **channel, "data": data, "idempotency_key": **key });
    let answer = http::post(address, "/api/publish", Who::Key(API_KEY), &body, PATIENCE);
    let outcome = match answer {
        Ok(answer) => {
            let epoch = answer["result"]["epoch"].as_str().unwrap_or_default().into();
            Outcome::Kept(Position { epoch, offset: answer["result"]["offset"].as_u64().unwrap_or(0) })
        }
        Err(http::Trouble::Unknown(why)) => Outcome::Unknown(why),
        Err(refused) => Outcome::Refused(refused.to_string()),
    };
    let is_kept = matches!(outcome, Outcome::Kept(_));
    world.log.say(What::Answered { op, outcome });
    is_kept
}

/// Compares what each node says about who is there with what the clients know, until it is the same or the time is over.
fn presence(options: &RunOptions, stage: &mut Stage, world: &World) {
    let deadline = Instant::now() + Duration::from_millis(options.promises.presence_ms);
    loop {
        let mut is_true = true;
        for channel in names().into_iter().filter(|channel| channel.starts_with("talk:")) {
            let truth = here(world, &channel);
            world.log.say(What::Truth { channel: channel.clone(), clients: truth.clone() });
            for number in 0..world.doors.len() {
                let Some((node, address)) = world.front(number).filter(|_| Instant::now() <= deadline) else {
                    continue;
                };
                let body = json!({ "channel": *channel });
                let answer = http::post(address, "/api/presence", Who::Key(API_KEY), &body, PATIENCE);
                let named = answer.ok().and_then(|answer| answer["result"]["presence"].as_object().cloned());
                let all = named.iter().flatten().filter(|(_, about)| about["user"] != POLLING);
                let mut clients: Vec<Name> = all.map(|(client, _)| client.as_str().into()).collect();
                clients.sort();
                is_true &= named.is_some() && clients == truth;
                if here(world, &channel) == truth {
                    world.log.say(What::Presence { node, channel: channel.clone(), clients });
                }
            }
        }
        if is_true || Instant::now() > deadline {
            return;
        }
        nemesis::rest(200, stage, world);
    }
}

fn here(world: &World, channel: &Name) -> Vec<Name> {
    let roster = world.roster.lock();
    let mut clients: Vec<Name> =
        roster.iter().filter(|((_, of), _)| of == channel).map(|(_, client)| client.clone()).collect();
    clients.sort();
    clients
}

/// Every channel, as every node gives it.
fn read_all(world: &World) -> anyhow::Result<()> {
    for door in &world.doors {
        let address = door.direct().context("a node has never listened")?;
        for channel in names() {
            let read = history::page_all(address, API_KEY, &channel)
                .map_err(|trouble| anyhow::anyhow!("reading {channel} on {}: {trouble}", door.name))?;
            let entries = read.entries.iter().map(|(offset, data)| (*offset, payload::content(data))).collect();
            world.log.say(What::Read { node: door.name.clone(), channel, top: read.top, entries });
        }
    }
    Ok(())
}

fn read_story(world: &World, story: &str) -> anyhow::Result<()> {
    let door = world.doors.first().context("no node")?;
    let address = door.direct().context("the node has never listened")?;
    let ends = teller::ends(address, API_KEY, story)
        .map_err(|trouble| anyhow::anyhow!("reading the log of the story: {trouble}"))?;
    for (job, end) in ends {
        world.log.say(What::JobEnded { job, end });
    }
    Ok(())
}
