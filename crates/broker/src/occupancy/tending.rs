//! What is done for all channels together, part by part: what the broker says that we hold is compared with what we do hold, what was vacated
//! is forgotten, and what the dead held is given up. The loop of [`Occupancy::run`] calls it, and the end of the node.
//!
//! A part lies on one server, and a server that is away keeps none of the others' parts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use talewire_proto::Channel;
use tokio::time::Instant;

use super::{Holdings, Occupancy, Standing, name_of, stamp};
use crate::BrokerError;

/// Parts that are worked on at once.
const PARTS_AT_ONCE: usize = 8;

impl Occupancy {
    /// Works on parts. One that fails keeps none of the others, for as long as a beat; what is left is for the next time. Its error comes at
    /// the end.
    async fn each<T, W>(&self, parts: impl IntoIterator<Item = T>, work: impl Fn(T) -> W) -> Result<(), BrokerError>
    where
        W: Future<Output = Result<(), BrokerError>>,
    {
        let give_up_at = Instant::now() + self.beat;
        let mut parts: Vec<T> = parts.into_iter().collect();
        // Those that fail are not always the first, and of several nodes each begins elsewhere.
        fastrand::shuffle(&mut parts);
        let (mut works, mut so_far) = (FuturesUnordered::new(), Ok(()));
        loop {
            while works.len() < PARTS_AT_ONCE
                && (so_far.is_ok() || Instant::now() < give_up_at)
                && let Some(part) = parts.pop()
            {
                works.push(work(part));
            }
            match works.next().await {
                Some(worked) => so_far = so_far.and(worked),
                None => return so_far,
            }
        }
    }

    /// Compares what the broker says that we hold with what we do hold, where that is not sure.
    pub(super) async fn compare(&self, name: &str) -> Result<(), BrokerError> {
        let mut parts: BTreeMap<usize, Vec<Channel>>;
        {
            let state = self.state.lock();
            parts = state.unsure.iter().map(|part| (*part, Vec::new())).collect();
            for channel in state.channels.keys() {
                if let Some(ours) = parts.get_mut(&self.ledger.part_of(channel)) {
                    ours.push(channel.clone());
                }
            }
        }
        let compare = async |(part, ours): (usize, Vec<Channel>)| {
            // First, because what finds no room meanwhile is to be compared again.
            self.state.lock().unsure.remove(&part);
            let holdings = self.ledger.holdings(name, part).await;
            let holdings = holdings.inspect_err(|_| self.doubt(part))?;
            self.compare_part(&ours, holdings);
            Ok(())
        };
        self.each(parts, compare).await
    }

    fn doubt(&self, part: usize) {
        self.state.lock().unsure.insert(part);
    }

    /// No step is under way.
    fn compare_part(&self, ours: &[Channel], Holdings { held, made }: Holdings) {
        let mut state = self.state.lock();
        for told in made {
            // Told by a step whose answer was lost, unless we know of it.
            if state.fading.insert(told.channel.clone(), told.serial) != Some(told.serial) {
                self.tell(told);
            }
        }
        let held: HashSet<Channel> = held.into_iter().collect();
        for channel in ours {
            // What is to be given up and was lost is given up all the same: what is told of it last must be true.
            if let Some(standing) = state.channels.get_mut(channel)
                && standing.is_wanted
                && !standing.is_unsure
            {
                standing.is_known = Some(held.contains(channel));
                standing.is_to_move &= !held.contains(channel);
            }
        }
        for channel in &held {
            state.channels.entry(channel.clone()).or_default().is_known = Some(true);
        }
        for channel in ours.iter().chain(&held) {
            if state.channels.get(channel).is_some_and(|standing| !standing.is_busy) {
                self.put(&mut state, channel);
            }
        }
    }

    /// What is done with every beat: what was vacated is forgotten, and some of what the dead held is given up. Says whether there is more
    /// of that.
    pub(super) async fn tend(&self, name: String, is_trusted: bool) -> bool {
        if let Err(error) = self.forget(&name).await {
            tracing::debug!(%error, "not all that was vacated could be forgotten");
        }
        if !is_trusted {
            return false;
        }
        let is_rest = AtomicBool::new(false);
        if let Err(error) = self.clear_the_dead(&name, &is_rest).await {
            tracing::debug!(%error, "what is left of dead nodes could not all be given up");
        }
        is_rest.into_inner()
    }

    /// Forgets what this node has told to be vacated.
    async fn forget(&self, name: &str) -> Result<(), BrokerError> {
        let mut parts: HashMap<usize, Vec<(Channel, u64)>> = HashMap::new();
        for (channel, serial) in &self.state.lock().fading {
            parts.entry(self.ledger.part_of(channel)).or_default().push((channel.clone(), *serial));
        }
        let forget = async |(part, gone): (usize, Vec<(Channel, u64)>)| {
            self.ledger.forget(name, part, &gone).await?;
            let mut state = self.state.lock();
            for (channel, serial) in &gone {
                if state.fading.get(channel) == Some(serial) {
                    state.fading.remove(channel);
                }
            }
            // Others may have waited for the room.
            self.again(&mut state, gone.len());
            Ok(())
        };
        self.each(parts, forget).await
    }

    /// Gives up some of what the dead held in each part, and notes whether there is more.
    async fn clear_the_dead(&self, name: &str, is_rest: &AtomicBool) -> Result<(), BrokerError> {
        let (unsure, moving) = {
            let state = self.state.lock();
            let is_moving =
                |(channel, standing): (&Channel, &Standing)| standing.is_to_move.then(|| self.ledger.part_of(channel));
            (state.unsure.clone(), state.channels.iter().filter_map(is_moving).collect::<BTreeSet<usize>>())
        };
        let sure = (0..self.ledger.parts()).filter(|part| !unsure.contains(part));
        let names = Mutex::new(BTreeSet::new());
        let list = async |part: usize| {
            let listed = self.ledger.names(part).await?;
            names.lock().extend(listed.into_iter().map(|name| (part, name)));
            Ok(())
        };
        let listed = self.each(sure, list).await;
        // Read after the names: whoever is among them had said before that it lives.
        let live = self.ledger.living().await?;
        // If this node goes by another name meanwhile, that is among them, too.
        let is_latest = self.name() == name;
        let is_gone = |(part, other): &(usize, String)| match stamp(other) {
            // One that we went by before, when nothing of the part is left that is wanted and not held by this one.
            ours if ours == stamp(name) => is_latest && other != name && !moving.contains(part),
            node => !live.contains(node),
        };
        let gone: Vec<(usize, String)> = names.into_inner().into_iter().filter(is_gone).collect();
        for node in gone.iter().map(|(_, dead)| dead).collect::<BTreeSet<_>>() {
            tracing::info!(node, "a node is gone: the channels that it held are given up");
        }
        let clear = async |(part, dead): (usize, String)| {
            let is_all = self.clear_some(&dead, name, part).await?;
            is_rest.fetch_or(!is_all, Relaxed);
            Ok(())
        };
        let cleared = self.each(gone, clear).await;
        listed.and(cleared)
    }

    /// Gives up some of what a name held of a part, and tells what became of that. Says whether that was all.
    async fn clear_some(&self, dead: &str, finder: &str, part: usize) -> Result<bool, BrokerError> {
        let cleared = self.ledger.clear(dead, finder, part).await;
        // What was cleared by a step whose answer was lost is found again in our own name.
        let (told, is_all) = cleared.inspect_err(|_| self.doubt(part))?;
        let mut state = self.state.lock();
        for told in told {
            if state.fading.insert(told.channel.clone(), told.serial) != Some(told.serial) {
                self.tell(told);
            }
        }
        Ok(is_all)
    }

    /// Gives up everything, at the end of this node. The work has ended before.
    pub(super) async fn depart(&self) {
        let (name, last) = {
            let mut state = self.state.lock();
            state.has_departed = true;
            let name = name_of(&self.stamp, state.life);
            state.life += 1;
            (name, name_of(&self.stamp, state.life))
        };
        let departed = async {
            self.ledger.enlist(&last).await?;
            let give_up = async |part: usize| {
                // Of steps that were broken off.
                let made = self.ledger.holdings(&name, part).await?.made;
                self.compare_part(&[], Holdings { held: Vec::new(), made });
                while !self.clear_some(&name, &last, part).await? {}
                Ok(())
            };
            let given_up = self.each(0..self.ledger.parts(), give_up).await;
            self.forget(&last).await?;
            given_up?;
            self.ledger.strike(&last).await
        };
        if let Err(error) = departed.await {
            tracing::warn!(%error, "not all channels of this node could be given up: another node does it when its lease ends");
        }
    }
}
