//! History channels in Redis: each a stream with our own offsets for ids, and a hash that says where it stands (`lua/history.lua`).
//!
//! The epoch is `{history}.{generation}`. The generation changes with the server's mastership, so that a position given out by a
//! master that is gone is true only up to where its successor has the same entries.

use std::sync::Arc;
use std::time::Instant;

use redis::Value;
use talewire_proto::{Channel, Entry, Epoch, Namespace, Position, Since};

use super::answers::{bytes, integer, list, number, text, unknown};
use super::names::slot;
use super::scripts::Script;
use super::servers::{Answer, Lost, Servers};
use crate::between::outlets::entry_message;
use crate::between::packing;
use crate::{BrokerError, BrokerSettings, Direction, Page, PageLimit, Publish, Published};

/// A hundred years: times beyond it are as good as for ever, and stay exact in scripts.
const FOREVER_MS: u64 = 3_153_600_000_000;

/// The greatest offset that scripts can count to.
const OFFSET_MAX: u64 = (1 << 53) - 2;

pub(crate) struct Histories {
    settings: Arc<BrokerSettings>,
    servers: Arc<Servers>,
}

impl Histories {
    pub(crate) fn new(settings: Arc<BrokerSettings>, servers: Arc<Servers>) -> Self {
        Self { settings, servers }
    }

    pub(crate) async fn publish(
        &self,
        channel: &Channel,
        rules: &Namespace,
        publish: Publish,
    ) -> Result<Published, BrokerError> {
        let Publish { publication, key, version } = publish;
        let names = &self.servers.names;
        let body = packing::publication(&publication);
        let age_ms = rules.history_age_ms.min(FOREVER_MS);
        // Where a channel stands is known for as long as one of its entries is.
        let idle_ms = self.settings.history_idle_ms.min(FOREVER_MS).max(age_ms);
        let number = version.as_ref().map_or(String::new(), |version| format!("{:020}", version.number));
        let count = version.as_ref().map_or("", |version| version.epoch.as_str());
        let (announced, size, age, idle) =
            (names.channel(channel), rules.history_size.to_string(), age_ms.to_string(), idle_ms.to_string());
        let mut keys = vec![names.meta(channel), names.stream(channel)];
        let mut arguments: Vec<&[u8]> = vec![
            announced.as_bytes(),
            &body,
            size.as_bytes(),
            age.as_bytes(),
            idle.as_bytes(),
            number.as_bytes(),
            count.as_bytes(),
        ];
        // The user's length goes first, so that user and key cannot run together.
        let key = key.map(|key| format!("{}:{}{}", key.user.as_str().len(), key.user.as_str(), key.key));
        let (key_age, most) =
            (self.settings.key_age_ms.min(FOREVER_MS).to_string(), self.settings.keys_per_channel_max.to_string());
        if let Some(key) = &key {
            keys.extend([names.keys(channel), names.order_of_keys(channel)]);
            arguments.extend([key.as_bytes(), key_age.as_bytes(), most.as_bytes()]);
        }
        let answer = if key.is_some() {
            self.servers.call(Script::Publish, &keys, &arguments, Lost::Repeat).await?
        } else {
            self.publish_marked(&keys, arguments).await?
        };
        let astray = answer.astray;
        let (what, position) = published(answer.value)?;
        if what == 3 {
            return Err(BrokerError::Unknown(
                "so much was published since that its entry cannot be looked for".to_owned(),
            ));
        }
        if astray && what == 0 {
            // While a slot moves, its new server keeps the entry and those who listen are still with the old one.
            let entry = Entry { offset: position.offset, publication };
            let message = entry_message(&position.epoch, &entry);
            self.servers.tell(slot(&announced), self.servers.announcement(&announced, &message)).await;
        }
        Ok(Published { position, repeated: what == 1, skipped: what == 2 })
    }

    /// Publishes without a key. When the answer is lost it is said once more, and finds by its mark what the first time came to.
    async fn publish_marked(&self, keys: &[String], mut arguments: Vec<&[u8]>) -> Result<Answer, BrokerError> {
        let mark = format!("{:016x}", fastrand::u64(..));
        let first = Instant::now();
        arguments.extend([mark.as_bytes(), b""]);
        let said = self.servers.call(Script::Publish, keys, &arguments, Lost::Fail).await;
        if !matches!(said, Err(BrokerError::Unknown(_))) || first.elapsed() >= self.servers.timeout() {
            return said;
        }
        // With the time that this try may take: what was added before is no older.
        let ago = (first.elapsed() + self.servers.timeout()).as_millis().to_string();
        arguments.pop();
        arguments.push(ago.as_bytes());
        self.servers.call(Script::Publish, keys, &arguments, Lost::Repeat).await
    }

    pub(crate) async fn read(
        &self,
        channel: &Channel,
        rules: &Namespace,
        since: &Since,
        direction: Direction,
        limit: PageLimit,
    ) -> Result<Page, BrokerError> {
        let names = &self.servers.names;
        let keys = [names.meta(channel), names.stream(channel)];
        // As in the store: `Newest` always reads backwards, and before the oldest there is nothing.
        let forward = direction == Direction::Forward && *since != Since::Newest;
        let bound = match since {
            Since::After(offset) => (*offset).min(OFFSET_MAX).to_string(),
            Since::Oldest if !forward => "0".to_owned(),
            Since::Oldest | Since::Newest => String::new(),
        };
        let (size, entries, most, told) = (
            rules.history_size.to_string(),
            limit.entries.min(1_000_000).to_string(),
            (limit.bytes as u64).min(OFFSET_MAX).to_string(),
            self.servers.settings().first_position_ms.clamp(1, FOREVER_MS).to_string(),
        );
        let way: &[u8] = if forward { b"F" } else { b"B" };
        let arguments = [size.as_bytes(), way, bound.as_bytes(), entries.as_bytes(), most.as_bytes(), told.as_bytes()];
        let answer = self.servers.call(Script::Read, &keys, &arguments, Lost::Repeat).await?;
        page(answer.value)
    }

    /// Where channels stand; those that nothing is kept of are left out.
    pub(crate) async fn tops(&self, channels: &[Channel]) -> Result<Vec<(Channel, Position)>, BrokerError> {
        let told = self.servers.settings().first_position_ms.clamp(1, FOREVER_MS).to_string();
        let mut by_slot: std::collections::BTreeMap<u16, Vec<&Channel>> = std::collections::BTreeMap::new();
        for channel in channels {
            let place = if self.servers.is_sharded() { slot(&self.servers.names.meta(channel)) } else { 0 };
            by_slot.entry(place).or_default().push(channel);
        }
        let asking = by_slot.into_values().map(|channels| {
            let told = &told;
            async move {
                let keys: Vec<String> = channels.iter().map(|channel| self.servers.names.meta(channel)).collect();
                let answer = self.servers.call(Script::Tops, &keys, &[told.as_bytes()], Lost::Repeat).await?;
                let mut tops = Vec::with_capacity(channels.len());
                let mut parts = list(answer.value)?.into_iter();
                for channel in channels {
                    let (Some(offset), Some(epoch)) = (parts.next(), parts.next()) else { return Err(unknown()) };
                    let (offset, epoch) = (text(offset)?, text(epoch)?);
                    if let Ok(offset) = offset.parse() {
                        tops.push((channel.clone(), Position { offset, epoch: Epoch::new(&epoch) }));
                    }
                }
                Ok(tops)
            }
        });
        let all: Vec<Result<_, BrokerError>> = futures_util::future::join_all(asking).await;
        all.into_iter().collect::<Result<Vec<_>, _>>().map(|tops| tops.into_iter().flatten().collect())
    }

    /// Forgets the entries of a channel; what it says about positions stays true.
    pub(crate) async fn remove(&self, channel: &Channel) -> Result<(), BrokerError> {
        let keys = [self.servers.names.meta(channel), self.servers.names.stream(channel)];
        self.servers.call(Script::Remove, &keys, &[], Lost::Repeat).await.map(drop)
    }
}

fn published(value: Value) -> Result<(i64, Position), BrokerError> {
    let mut parts = list(value)?.into_iter();
    let (Some(what), Some(offset), Some(epoch)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(unknown());
    };
    Ok((integer(&what)?, Position { offset: number(offset)?, epoch: Epoch::new(&text(epoch)?) }))
}

fn page(value: Value) -> Result<Page, BrokerError> {
    let mut parts = list(value)?.into_iter();
    let (Some(epoch), Some(offset), Some(older), Some(complete)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(unknown());
    };
    let epoch = text(epoch)?;
    let mut page = Page {
        entries: Vec::with_capacity(parts.len() / 2),
        top: Position { offset: number(offset)?, epoch: Epoch::new(&epoch) },
        complete: integer(&complete)? == 1,
        older: older_names(&epoch, &text(older)?)?,
    };
    while let (Some(id), Some(body)) = (parts.next(), parts.next()) {
        let id = text(id)?;
        let offset = id.split_once('-').and_then(|(offset, _)| offset.parse().ok()).ok_or_else(unknown)?;
        let publication = packing::read_publication(bytes(body)?).map_err(|_| unknown())?;
        page.entries.push(Arc::new(Entry { offset, publication }));
    }
    Ok(page)
}

/// The names that a history had under older masters, with the last offset that each shares with the history as it is now.
fn older_names(epoch: &str, older: &str) -> Result<Vec<Position>, BrokerError> {
    let history = epoch.split_once('.').map(|(history, _)| history).ok_or_else(unknown)?;
    let name = |text: &str| {
        let (generation, offset) = text.split_once(':')?;
        let epoch = Epoch::new(&format!("{history}.{generation}"));
        Some(Position { offset: offset.parse().ok()?, epoch })
    };
    older.split_ascii_whitespace().map(|text| name(text).ok_or_else(unknown)).collect()
}
