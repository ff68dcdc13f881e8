//! History channels in JetStream: a subject for each, whose newest message says where the channel stands.
//!
//! An entry is kept if nobody has written to the subject since it was looked at, and announced by the server in the order of the
//! stream. What is small is said in its headers. The record of an idempotency key is written by whoever publishes next, before that:
//! whoever looks for a key finds it in the newest message or among the records.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use talewire_proto::{Channel, Entry, Epoch, Namespace, Position, Since, Version};
use tokio::sync::Mutex;

use super::bank::{AT_ONCE, Bank, Put, Shelf, number, unavailable};
use super::names::{self, Record, digest};
use crate::between::outlets::{entry_message, read_message};
use crate::{BrokerError, BrokerSettings, Direction, Key, Message, Page, PageLimit, Publish, Published};

/// Tries to write where others write at the same time.
const TRIES_MAX: u32 = 64;

/// Locks over channels, so that what one node publishes to a channel waits its turn here and not in tries.
const STRIPES: usize = 64;

/// Channels per stripe whose state is remembered; beyond it all are forgotten and asked for again.
const REMEMBERED_MAX: usize = 256;

/// Entries that are physically kept beyond those asked for, so that not every publication trims.
const SLACK: u64 = 64;

mod said {
    pub(super) const TIME: &str = "Tw-Time";
    pub(super) const EXPIRES: &str = "Tw-Expires";
    pub(super) const EPOCH: &str = "Tw-Epoch";
    pub(super) const OFFSET: &str = "Tw-Offset";
    pub(super) const VERSION: &str = "Tw-Version";
    pub(super) const VERSION_EPOCH: &str = "Tw-Version-Epoch";
    pub(super) const KEY: &str = "Tw-Key";
    pub(super) const KEY_OFFSET: &str = "Tw-Key-Offset";
    pub(super) const KEY_TIME: &str = "Tw-Key-Time";
    pub(super) const KEYED: &str = "Tw-Keyed";
    /// There is no entry: it only says where the channel stands.
    pub(super) const MARK: &str = "Tw-Mark";
}

/// Whether a message only says where its channel stands.
pub(super) fn is_mark(headers: Option<&HeaderMap>) -> bool {
    headers.is_some_and(|headers| headers.get(said::MARK).is_some())
}

/// Where a channel stands.
#[derive(Debug, Clone)]
struct State {
    /// The newest message of the subject; 0 for none.
    sequence: u64,
    epoch: Epoch,
    top: u64,
    version: Option<Version>,
    /// Publications with keys, in all.
    keyed: u64,
    /// The newest of them.
    key: Option<LastKey>,
    /// Its record was written.
    key_is_kept: bool,
    /// Until when it is remembered if nothing comes.
    until_ms: u64,
}

#[derive(Debug, Clone)]
struct LastKey {
    digest: String,
    offset: u64,
    time_ms: u64,
}

pub(crate) struct Histories {
    settings: Arc<BrokerSettings>,
    bank: Arc<Bank>,
    stripes: Vec<Mutex<HashMap<Channel, State>>>,
}

impl Histories {
    pub(super) fn new(settings: Arc<BrokerSettings>, bank: Arc<Bank>) -> Self {
        Self { settings, bank, stripes: (0..STRIPES).map(|_| Mutex::default()).collect() }
    }

    /// Forgets what is remembered of channels: it may be another stream by now.
    pub(crate) async fn forget(&self) {
        for stripe in &self.stripes {
            stripe.lock().await.clear();
        }
    }

    fn stripe(&self, channel: &Channel) -> &Mutex<HashMap<Channel, State>> {
        let at = digest(&[channel.as_str().as_bytes()]) % STRIPES as u64;
        &self.stripes[usize::try_from(at).unwrap_or(0)]
    }

    pub(crate) async fn publish(
        &self,
        channel: &Channel,
        rules: &Namespace,
        publish: Publish,
    ) -> Result<Published, BrokerError> {
        let mut stripe = self.stripe(channel).lock().await;
        for tried in 0..TRIES_MAX {
            // What others have published since is found out by writing, but for versions, which may not be written.
            let remembered = stripe.remove(channel).filter(|state| self.bank.now_ms() < state.until_ms);
            let state = match remembered.filter(|_| publish.version.is_none()) {
                Some(state) => state,
                None => self.state(channel).await?,
            };
            let Some((published, state)) = self.try_publish(channel, rules, &publish, state).await? else {
                // Another node was faster.
                tokio::time::sleep(Duration::from_micros(fastrand::u64(..=(200 << tried.min(6))))).await;
                continue;
            };
            if stripe.len() >= REMEMBERED_MAX {
                stripe.clear();
            }
            stripe.insert(channel.clone(), state);
            return Ok(published);
        }
        Err(unavailable("too many nodes publish to this channel at once"))
    }

    /// One try; nothing when somebody else has written meanwhile.
    async fn try_publish(
        &self,
        channel: &Channel,
        rules: &Namespace,
        publish: &Publish,
        mut state: State,
    ) -> Result<Option<(Published, State)>, BrokerError> {
        let now_ms = self.bank.now_ms();
        let key = publish.key.as_ref().map(key_digest);
        if let Some(offset) = self.offset_of(channel, &state, key.as_deref(), now_ms).await? {
            let position = Position { offset, epoch: state.epoch.clone() };
            return Ok(Some((Published { position, repeated: true, skipped: false }, state)));
        }
        if publish.version.as_ref().is_some_and(|version| !version.supersedes(state.version.as_ref())) {
            let position = Position { offset: state.top, epoch: state.epoch.clone() };
            return Ok(Some((Published { position, repeated: false, skipped: true }, state)));
        }
        self.keep_key(channel, &mut state).await?;
        let mut next = State { top: state.top + 1, key_is_kept: false, ..state.clone() };
        if let Some(version) = &publish.version {
            next.version = Some(version.clone());
        }
        if let Some(digest) = key {
            next.keyed += 1;
            next.key = Some(LastKey { digest, offset: next.top, time_ms: now_ms });
        } else {
            next.key_is_kept = true;
        }
        let entry = Entry { offset: next.top, publication: publish.publication.clone() };
        let body: Bytes = entry_message(&next.epoch, &entry).into();
        let expires_ms = now_ms.saturating_add(rules.history_age_ms);
        next.until_ms = expires_ms.max(now_ms.saturating_add(self.settings.history_idle_ms));
        let headers = next.headers(now_ms, expires_ms);
        let subject = self.bank.names.history(&names::of(channel));
        let Put::Done(sequence) = self.bank.put(subject.clone(), headers, body, Some(state.sequence)).await? else {
            return Ok(None);
        };
        next.sequence = sequence;
        let keep = u64::from(rules.history_size).max(1);
        if next.top > keep && next.top.is_multiple_of(keep / 4 + SLACK) {
            let bank = self.bank.clone();
            // What stays too long is not given out either.
            tokio::spawn(async move { drop(bank.purge(Shelf::History, subject, keep).await) });
        }
        let position = Position { offset: next.top, epoch: next.epoch.clone() };
        Ok(Some((Published { position, repeated: false, skipped: false }, next)))
    }

    /// Where the channel stands, as the server has it now.
    async fn state(&self, channel: &Channel) -> Result<State, BrokerError> {
        let subject = self.bank.names.history(&names::of(channel));
        let Some(last) = self.bank.last(Shelf::History, &subject).await? else {
            return Ok(State::first(self.first_epoch(channel, 0).await?, 0));
        };
        let said = |name: &str| number(&last.headers, name).unwrap_or(0);
        let now_ms = self.bank.now_ms();
        let until_ms = said(said::TIME).saturating_add(self.settings.history_idle_ms).max(said(said::EXPIRES));
        if now_ms >= until_ms {
            // Forgotten, but for its place in the stream: that makes another epoch.
            return Ok(State::first(self.first_epoch(channel, last.sequence).await?, last.sequence));
        }
        let state = State::read(&last.headers, last.sequence);
        Ok(State { until_ms, ..state.ok_or_else(|| unavailable("a message that cannot be read"))? })
    }

    /// The epoch with which a channel begins whose newest message so far is `after`.
    async fn first_epoch(&self, channel: &Channel, after: u64) -> Result<Epoch, BrokerError> {
        let identity = self.bank.identity().await?;
        // Messages go after `keep_ms` at the latest. A channel without any may have had some before, in another of these times.
        let time = if after == 0 { self.bank.now_ms() / self.bank.keep_ms() } else { 0 };
        let parts = [identity.as_bytes(), channel.as_str().as_bytes(), &after.to_le_bytes(), &time.to_le_bytes()];
        Ok(Epoch::new(&format!("{:016x}", digest(&parts))))
    }

    /// The offset of what was published with this key, if that is remembered.
    async fn offset_of(
        &self,
        channel: &Channel,
        state: &State,
        key: Option<&str>,
        now_ms: u64,
    ) -> Result<Option<u64>, BrokerError> {
        let Some(key) = key else { return Ok(None) };
        let holds = |ordinal: u64, time_ms: u64| {
            let newer = state.keyed.saturating_sub(ordinal);
            newer < self.settings.keys_per_channel_max as u64
                && now_ms < time_ms.saturating_add(self.settings.key_age_ms)
        };
        if let Some(last) = state.key.as_ref().filter(|last| last.digest == key) {
            return Ok(holds(state.keyed, last.time_ms).then_some(last.offset));
        }
        let subject = self.record_of(channel, key);
        let Some(record) = self.bank.last(Shelf::Records, &subject).await? else { return Ok(None) };
        let said = |name: &str| number(&record.headers, name).unwrap_or(0);
        let is_of = record.headers.get(said::EPOCH).is_some_and(|epoch| epoch.as_str() == state.epoch.as_str());
        Ok((is_of && holds(said(said::KEYED), said(said::TIME))).then(|| said(said::OFFSET)))
    }

    fn record_of(&self, channel: &Channel, key: &str) -> String {
        self.bank.names.record(Record::Key, &format!("{}.{key}", names::of(channel)))
    }

    /// Writes the record of the newest key, if that may not be done.
    async fn keep_key(&self, channel: &Channel, state: &mut State) -> Result<(), BrokerError> {
        let Some(last) = state.key.clone().filter(|_| !state.key_is_kept) else { return Ok(()) };
        let subject = self.record_of(channel, &last.digest);
        let found = self.bank.last(Shelf::Records, &subject).await?;
        let is_newer = |headers: &HeaderMap| number(headers, said::TIME).unwrap_or(0) >= last.time_ms;
        if !found.as_ref().is_some_and(|found| is_newer(&found.headers)) {
            let mut headers = HeaderMap::new();
            headers.insert(said::EPOCH, state.epoch.as_str());
            headers.insert(said::OFFSET, last.offset.to_string().as_str());
            headers.insert(said::KEYED, state.keyed.to_string().as_str());
            headers.insert(said::TIME, last.time_ms.to_string().as_str());
            let expected = found.map_or(0, |found| found.sequence);
            // Whoever was faster has written the same.
            self.bank.put(subject, headers, Bytes::new(), Some(expected)).await?;
        }
        state.key_is_kept = true;
        Ok(())
    }

    pub(crate) async fn remove(&self, channel: &Channel) -> Result<(), BrokerError> {
        let mut stripe = self.stripe(channel).lock().await;
        stripe.remove(channel);
        let subject = self.bank.names.history(&names::of(channel));
        for _ in 0..TRIES_MAX {
            let mut state = self.state(channel).await?;
            if state.top == 0 {
                return Ok(());
            }
            self.keep_key(channel, &mut state).await?;
            let now_ms = self.bank.now_ms();
            let mut headers = state.headers(now_ms, now_ms);
            headers.insert(said::MARK, "1");
            let put = self.bank.put(subject.clone(), headers, Bytes::new(), Some(state.sequence)).await?;
            if put != Put::Conflict {
                return self.bank.purge(Shelf::History, subject, 1).await;
            }
        }
        Err(unavailable("too many nodes publish to this channel at once"))
    }

    pub(crate) async fn tops(&self, channels: &[Channel]) -> Result<Vec<(Channel, Position)>, BrokerError> {
        let asked = futures_util::stream::iter(channels.iter().cloned()).map(|channel| async move {
            let subject = self.bank.names.history(&names::of(&channel));
            let last = self.bank.last(Shelf::History, &subject).await?;
            let state = last.and_then(|last| State::read(&last.headers, last.sequence));
            Ok(state.map(|state| (channel, Position { offset: state.top, epoch: state.epoch })))
        });
        let tops: Vec<Option<_>> = asked.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(tops.into_iter().flatten().collect())
    }

    pub(crate) async fn read(
        &self,
        channel: &Channel,
        rules: &Namespace,
        since: &Since,
        direction: Direction,
        limit: PageLimit,
    ) -> Result<Page, BrokerError> {
        let state = self.state(channel).await?;
        let asks_for_none = |after: u64| after >= state.top || limit.entries == 0;
        let is_short = direction == Direction::Forward && matches!(since, Since::After(after) if asks_for_none(*after));
        let kept = if state.top == 0 || is_short { Vec::new() } else { self.kept(channel, rules, &state).await? };
        let top = Position { offset: state.top, epoch: state.epoch };
        Ok(page(&kept, top, since, direction, limit))
    }

    /// What is kept of a channel up to where it stands, oldest first and without a gap.
    async fn kept(&self, channel: &Channel, rules: &Namespace, state: &State) -> Result<Vec<Arc<Entry>>, BrokerError> {
        let row = self.bank.row(&self.bank.names.history(&names::of(channel))).await?;
        let now_ms = self.bank.now_ms();
        let oldest = (state.top + 1).saturating_sub(u64::from(rules.history_size));
        let mut kept: Vec<Arc<Entry>> = Vec::new();
        for message in row {
            let Some(headers) = message.headers.as_ref() else { continue };
            let expires_ms = number(headers, said::EXPIRES).unwrap_or(0);
            let is_kept = !is_mark(Some(headers)) && now_ms < expires_ms;
            let Ok(Message::Entry { epoch, entry }) = read_message(channel, message.payload.clone()) else { continue };
            if !is_kept || epoch != state.epoch || entry.offset < oldest || entry.offset > state.top {
                continue;
            }
            if kept.last().is_some_and(|last| last.offset + 1 != entry.offset) {
                // What lies before a gap is not a part of what can be gone on from.
                kept.clear();
            }
            kept.push(entry);
        }
        if kept.last().is_some_and(|last| last.offset != state.top) {
            kept.clear();
        }
        Ok(kept)
    }
}

impl State {
    fn first(epoch: Epoch, sequence: u64) -> Self {
        Self { sequence, epoch, top: 0, version: None, keyed: 0, key: None, key_is_kept: true, until_ms: u64::MAX }
    }

    fn headers(&self, now_ms: u64, expires_ms: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut say = |name: &str, value: &str| headers.insert(name, value);
        say(said::TIME, &now_ms.to_string());
        say(said::EXPIRES, &expires_ms.to_string());
        say(said::EPOCH, self.epoch.as_str());
        say(said::OFFSET, &self.top.to_string());
        if let Some(version) = &self.version {
            say(said::VERSION, &version.number.to_string());
            // Any text may name a count.
            say(said::VERSION_EPOCH, &names::token(&version.epoch));
        }
        if let Some(key) = &self.key {
            say(said::KEY, &key.digest);
            say(said::KEY_OFFSET, &key.offset.to_string());
            say(said::KEY_TIME, &key.time_ms.to_string());
            say(said::KEYED, &self.keyed.to_string());
        }
        headers
    }

    fn read(headers: &HeaderMap, sequence: u64) -> Option<Self> {
        let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        let version = number(headers, said::VERSION).map(|number| {
            let epoch = text(said::VERSION_EPOCH).and_then(|token| names::text(&token)).unwrap_or_default();
            Version { number, epoch }
        });
        let key = text(said::KEY).map(|digest| LastKey {
            digest,
            offset: number(headers, said::KEY_OFFSET).unwrap_or(0),
            time_ms: number(headers, said::KEY_TIME).unwrap_or(0),
        });
        Some(Self {
            sequence,
            epoch: Epoch::new(&text(said::EPOCH)?),
            top: number(headers, said::OFFSET)?,
            version,
            keyed: number(headers, said::KEYED).unwrap_or(0),
            key_is_kept: key.is_none(),
            key,
            until_ms: 0,
        })
    }
}

/// An idempotency key and whose it is, as a token.
fn key_digest(key: &Key) -> String {
    let parts = [key.user.as_str().as_bytes(), key.key.as_bytes()];
    let twice = [parts[1], parts[0], b"twice".as_slice()];
    format!("{:016x}{:016x}", digest(&parts), digest(&twice))
}

/// A page of what is kept, which ends at `top`.
fn page(kept: &[Arc<Entry>], top: Position, since: &Since, direction: Direction, limit: PageLimit) -> Page {
    let newest = top.offset;
    let oldest = newest + 1 - kept.len() as u64;
    let mut page = Page { entries: Vec::new(), top, complete: true, older: Vec::new() };
    let mut bytes = 0;
    let mut take = |entry: &Arc<Entry>| {
        bytes += entry.publication.data.as_ref().map_or(0, |data| data.len());
        let fits = page.entries.len() < limit.entries && (bytes <= limit.bytes || page.entries.is_empty());
        if fits {
            page.entries.push(entry.clone());
        }
        fits
    };
    let places = |offsets: u64| usize::try_from(offsets).unwrap_or(usize::MAX);
    if direction == Direction::Forward && *since != Since::Newest {
        let from = match since {
            Since::After(offset) => offset.saturating_add(1),
            Since::Oldest | Since::Newest => oldest,
        };
        let all = kept.iter().skip(places(from.saturating_sub(oldest))).all(&mut take);
        page.complete = all && from >= oldest;
    } else {
        let below = match since {
            Since::Newest => newest.saturating_add(1),
            Since::After(offset) => *offset,
            Since::Oldest => 0,
        };
        let skip = places((newest + 1).saturating_sub(below));
        page.complete = kept.iter().rev().skip(skip).all(&mut take) && (oldest == 1 || below <= 1);
    }
    page
}
