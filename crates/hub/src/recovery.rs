//! Reading what was missed: history from the broker or the store, snapshots of generations, and the honest flag.

use std::sync::Arc;

use talewire_broker::{GenerationSnapshot, PageLimit};
use talewire_proto::command::Recover;
use talewire_proto::generation::{GenerationFrame, GenerationStatus};
use talewire_proto::namespace::Recovery;
use talewire_proto::reply::SubscribeResult;
use talewire_proto::{Channel, Entry, Kind, Namespace, Payload, Position, Since};

use crate::error::HubError;
use crate::node::{Hub, Observed};
use crate::queue::Ticket;

/// What joining a channel came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// What the client is told.
    pub result: SubscribeResult,
    /// The offset of the first entry that is not in the answer.
    pub next: u64,
    /// Whether there is more to read before what comes live.
    pub more: bool,
}

/// What a reader who fell behind gets.
#[derive(Debug, Clone)]
pub struct CatchUp {
    /// Whose question it answers.
    pub(crate) ticket: Ticket,
    /// What was found.
    pub found: Found,
}

/// What was found of what a reader missed.
#[derive(Debug, Clone)]
pub enum Found {
    /// The entries from where it stopped.
    Entries {
        /// In order, without a gap from the first offset asked for.
        entries: Vec<Arc<Entry>>,
        /// Whether they reach the top; else there is more to read when these are written.
        complete: bool,
    },
    /// The whole text of the generation so far.
    Snapshot(Arc<GenerationFrame>),
    /// What it missed is gone, or the epoch changed: it must subscribe again.
    Gone,
}

/// What a reader missed, as the shard asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// Of which channel.
    pub channel: Channel,
    /// The channel's rules.
    pub rules: Arc<Namespace>,
    /// The first offset it does not have.
    pub next: u64,
    /// Which subscription asks: the answer is for no other one, and of no history that began later.
    pub(crate) ticket: Ticket,
}

#[derive(Clone)]
pub(crate) struct Read {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) top: Position,
    pub(crate) complete: bool,
    /// As [`talewire_broker::Page::older`].
    pub(crate) older: Vec<Position>,
}

impl Hub {
    /// What a client gets that joins `channel` and was last at `recover`. The subscriber must be registered on its shard
    /// before this is called, so that what is published meanwhile is held for it.
    ///
    /// # Errors
    /// Those of the store and the broker.
    pub async fn recover(
        &self,
        channel: &Channel,
        rules: &Arc<Namespace>,
        recover: Option<&Recover>,
        limit: PageLimit,
    ) -> Result<Recovered, HubError> {
        // What is read from here on and what is delivered leave no gap between them. Durable channels go on without a broker, late.
        match self.broker().listening(channel).await {
            Err(error) if rules.kind != Kind::Durable => return Err(error.into()),
            _ => {}
        }
        match rules.kind {
            Kind::Signal => Ok(Recovered { result: SubscribeResult::default(), next: 0, more: false }),
            Kind::Generation => {
                let data = self.snapshot(channel).await?.map(|frame| Payload::of(&frame));
                Ok(Recovered { result: SubscribeResult { data, ..SubscribeResult::default() }, next: 0, more: false })
            }
            Kind::History | Kind::Durable => self.recover_entries(channel, rules, recover, limit).await,
        }
    }

    async fn recover_entries(
        &self,
        channel: &Channel,
        rules: &Arc<Namespace>,
        recover: Option<&Recover>,
        limit: PageLimit,
    ) -> Result<Recovered, HubError> {
        loop {
            let look = self.look(channel);
            // This node already follows the channel: whoever is at its position, or wants no more than that, needs no read.
            if let Some(top) = look.position {
                match recover {
                    None => return Ok(joined(top, None)),
                    Some(Recover::After(asked) | Recover::PagesAfter(asked))
                        if asked.offset == top.offset && asked.epoch.means(&top.epoch) =>
                    {
                        return Ok(joined(top, Some(Vec::new())));
                    }
                    Some(_) => {}
                }
            }
            let (since, limit) = match recover {
                None => (Since::After(0), PageLimit { entries: 0, bytes: 0 }),
                Some(_) if rules.recovery == Recovery::Latest => (Since::Newest, PageLimit { entries: 1, ..limit }),
                Some(Recover::After(asked) | Recover::PagesAfter(asked)) => (Since::After(asked.offset), limit),
                Some(Recover::PagesFromOldest) => (Since::Oldest, limit),
            };
            let read = self.read_together(channel, rules, since, limit).await?;
            if self.observe(channel, look.since, &read.top) == Observed::Stale {
                // The channel began anew on this node while it was read: what came in between was told to nobody.
                continue;
            }
            return Ok(match (recover, rules.recovery) {
                (Some(Recover::After(asked) | Recover::PagesAfter(asked)), Recovery::Latest) => {
                    answer_latest(asked, read)
                }
                (Some(Recover::PagesFromOldest), Recovery::Latest) => answer_latest(&Position::default(), read),
                (recover, _) => answer(recover, read),
            });
        }
    }

    /// What a subscriber that fell behind gets, from the first offset that it does not have.
    ///
    /// # Errors
    /// Those of the store and the broker.
    pub async fn catch_up(&self, missed: &Missed, limit: PageLimit) -> Result<CatchUp, HubError> {
        let found = self.find(missed, limit).await?;
        Ok(CatchUp { ticket: missed.ticket, found })
    }

    async fn find(&self, missed: &Missed, limit: PageLimit) -> Result<Found, HubError> {
        let Missed { channel, rules, next, ticket } = missed;
        if rules.kind == Kind::Generation {
            return Ok(self.snapshot(channel).await?.map_or(Found::Gone, |frame| Found::Snapshot(Arc::new(frame))));
        }
        if !rules.is_recoverable() {
            return Ok(Found::Entries { entries: Vec::new(), complete: true });
        }
        let look = self.look(channel);
        if look.since > *ticket {
            return Ok(Found::Gone);
        }
        let read = self.read_together(channel, rules, Since::After(next.saturating_sub(1)), limit).await?;
        if self.observe(channel, look.since, &read.top) != Observed::Steady {
            return Ok(Found::Gone);
        }
        let begins = read.entries.first().map_or(read.top.offset < *next, |entry| entry.offset == *next);
        if !begins {
            return Ok(Found::Gone);
        }
        Ok(Found::Entries { entries: read.entries, complete: read.complete })
    }

    /// The text of a generation so far, as a reader gets it; nothing for a channel that names no generation.
    async fn snapshot(&self, channel: &Channel) -> Result<Option<GenerationFrame>, HubError> {
        let (Some(story), Some(generation)) = (channel.story_id(), channel.generation_id()) else { return Ok(None) };
        let found = self.broker().generation_snapshot(&story, &generation).await?;
        let GenerationSnapshot { attempt, text, status } =
            found.unwrap_or(GenerationSnapshot { attempt: 0, text: String::new(), status: GenerationStatus::Queued });
        Ok(Some(GenerationFrame::Snapshot { generation, attempt, at: 0, text, status }))
    }

    pub(crate) async fn read(
        &self,
        channel: &Channel,
        rules: &Namespace,
        since: Since,
        limit: PageLimit,
    ) -> Result<Read, HubError> {
        // `Newest` reads backwards, whatever is asked for.
        if rules.kind == Kind::Durable {
            use talewire_store::Direction::Forward;
            let page = self.store().history(channel, since, limit.entries, limit.bytes, Forward).await?;
            return Ok(Read { entries: page.entries, top: page.top, complete: page.complete, older: Vec::new() });
        }
        let page = self.broker().history(channel, rules, since, talewire_broker::Direction::Forward, limit).await?;
        Ok(Read { entries: page.entries, top: page.top, complete: page.complete, older: page.older })
    }
}

/// The newest entry, unless the client has it. What lies between is stale to it: that it is not told is no gap. If even the
/// newest is gone, only who is at its position has lost nothing.
fn answer_latest(asked: &Position, read: Read) -> Recovered {
    let is_there = asked.offset == read.top.offset && is_true(asked, &read);
    if is_there && !asked.epoch.is_empty() {
        return joined(read.top, Some(Vec::new()));
    }
    // Whoever claims to have seen more than there is has seen another history, whatever its name.
    let is_beyond = asked.offset > read.top.offset && is_true(asked, &read);
    let newest = read.entries.into_iter().find(|entry| entry.offset == read.top.offset && !is_beyond);
    match newest {
        Some(newest) => {
            let before = Position { offset: newest.offset - 1, epoch: read.top.epoch.clone() };
            let mut found = joined(read.top, Some(vec![newest]));
            // As if the client had seen all before it, so that offsets rise by one from here on.
            found.result.position = Some(before);
            found
        }
        None if is_there => joined(read.top, Some(Vec::new())),
        None => lost(read.top),
    }
}

fn lost(top: Position) -> Recovered {
    let mut lost = joined(top, None);
    lost.result.was_recovering = true;
    lost
}

pub(crate) fn answer(recover: Option<&Recover>, read: Read) -> Recovered {
    let (asked, found) = match recover {
        None => return joined(read.top, None),
        Some(Recover::After(asked)) => (asked.offset, is_true(asked, &read) && reaches(&read, asked.offset)),
        Some(Recover::PagesAfter(asked)) => (asked.offset, is_true(asked, &read) && begins(&read, asked.offset)),
        // Whatever is kept is what was asked for: where it begins is no gap.
        Some(Recover::PagesFromOldest) => {
            (read.entries.first().map_or(read.top.offset, |entry| entry.offset - 1), true)
        }
    };
    if !found {
        return lost(read.top);
    }
    let next = read.entries.last().map_or(asked, |entry| entry.offset) + 1;
    let more = next <= read.top.offset;
    let mut found = joined(read.top.clone(), Some(read.entries));
    // The client moves its position on with each entry that it is given.
    found.result.position = Some(Position { offset: asked, epoch: read.top.epoch });
    Recovered { next, more, ..found }
}

fn joined(top: Position, recovered: Option<Vec<Arc<Entry>>>) -> Recovered {
    let next = top.offset + 1;
    let was_recovering = recovered.is_some();
    let entries = recovered.unwrap_or_default();
    let result = SubscribeResult {
        position: Some(top),
        was_recovering,
        recovered: was_recovering,
        entries,
        ..SubscribeResult::default()
    };
    Recovered { result, next, more: false }
}

/// Whether a position is one of the history that was read. A client that never saw the channel's epoch has an empty one and asks from
/// the beginning; one that saw an earlier name of this history may have seen no more than what the two share.
fn is_true(asked: &Position, read: &Read) -> bool {
    let shared = |older: &Position| asked.epoch.means(&older.epoch) && asked.offset <= older.offset;
    asked.epoch.is_empty() || asked.epoch.means(&read.top.epoch) || read.older.iter().any(shared)
}

/// Whether the read holds everything from after `offset` to the top, by the offsets themselves.
fn reaches(read: &Read, offset: u64) -> bool {
    match (read.entries.first(), read.entries.last()) {
        (Some(first), Some(last)) => first.offset == offset + 1 && last.offset == read.top.offset,
        _ => read.top.offset == offset,
    }
}

/// Whether the read begins right after `offset`, however far it reaches.
fn begins(read: &Read, offset: u64) -> bool {
    read.entries.first().map_or(read.top.offset == offset, |first| first.offset == offset + 1)
}
