//! Who is subscribed, in Redis: a hash for each channel, in which every member says on which node it is.
//!
//! A member is present while its node lives, so that one sign of life keeps all of a node's members. The node remembers its own: when Redis has lost
//! something, or a command's fate is not known, it says again what is true ([`Presence::settle`]). A dead node's members are
//! taken out by whoever finds it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::cmd;
use talewire_proto::{Channel, ClientId, ClientInfo};
use tokio::sync::RwLock;

use super::answers::{bytes, integer, list, unknown};
use super::mending::Kind;
use super::roll::{Roll, STAMP_BYTES};
use super::scripts::Script;
use super::servers::{Lost, Servers};
use crate::between::packing;
use crate::{BrokerError, PresenceStats, Tell};

/// Channels that are settled at once.
const AT_ONCE: usize = 64;

pub(crate) struct Presence {
    per_channel_max: usize,
    servers: Arc<Servers>,
    roll: Arc<Roll>,
    own: Mutex<Own>,
    /// Whoever changes a channel's members reads; whoever says what all of them are writes, so that nobody comes or goes between.
    changing: RwLock<()>,
}

/// Who is present on this node.
#[derive(Default)]
struct Own {
    channels: HashMap<Channel, Members>,
    /// Channels of which Redis may know something else.
    unsettled: HashSet<Channel>,
}

#[derive(Default)]
struct Members {
    /// As they are written in Redis.
    clients: HashMap<ClientId, Bytes>,
    /// Whether the node's list of channels has this one.
    listed: bool,
}

impl Presence {
    pub(crate) fn new(per_channel_max: usize, servers: Arc<Servers>, roll: Arc<Roll>) -> Self {
        Self { per_channel_max, servers, roll, own: Mutex::default(), changing: RwLock::default() }
    }

    pub(crate) async fn enter(
        &self,
        channel: &Channel,
        client: &ClientId,
        info: &ClientInfo,
        tell: Tell,
    ) -> Result<(), BrokerError> {
        let _changing = self.changing.read().await;
        if self.roll.departed.load(Ordering::Relaxed) {
            // Whoever still comes goes down with the node.
            return Ok(());
        }
        let who = self.written(info, tell);
        let (listed, before) = {
            let mut own = self.own.lock();
            let members = own.channels.entry(channel.clone()).or_default();
            (members.listed, members.clients.insert(client.clone(), who.clone()))
        };
        let entered = self.write_enter(channel, client, &who, tell, listed).await;
        if !matches!(entered, Ok(true)) {
            let mut own = self.own.lock();
            if let Some(members) = own.channels.get_mut(channel) {
                match before {
                    Some(before) => drop(members.clients.insert(client.clone(), before)),
                    None => drop(members.clients.remove(client)),
                }
            }
            if entered.is_err() {
                // Nobody knows whether it was done.
                own.unsettled.insert(channel.clone());
            }
        }
        match entered {
            Ok(true) => Ok(()),
            Ok(false) => Err(BrokerError::Full("presence_per_channel_max")),
            Err(error) => Err(error),
        }
    }

    async fn write_enter(
        &self,
        channel: &Channel,
        client: &ClientId,
        who: &Bytes,
        tell: Tell,
        listed: bool,
    ) -> Result<bool, BrokerError> {
        let names = &self.servers.names;
        if !listed {
            // First, so that whoever finds this node dead finds the channel.
            self.list(std::slice::from_ref(channel)).await?;
        }
        let (told, most) = (names.channel(channel), self.per_channel_max.to_string());
        let arguments = [told.as_bytes(), client.as_str().as_bytes(), &who[..], most.as_bytes(), flag(tell)];
        let answer = self.servers.call(Script::Enter, &[names.presence(channel)], &arguments, Lost::Repeat).await?;
        Ok(integer(&answer.value)? == 1)
    }

    /// Notes channels in the list of this node.
    async fn list(&self, channels: &[Channel]) -> Result<(), BrokerError> {
        let list = self.servers.names.channels_of(self.roll.stamp());
        let mut command = cmd("SADD");
        command.arg(&list).arg(channels.iter().map(Channel::as_str).collect::<Vec<_>>());
        self.servers.ask_of(&list, Kind::Set, &command, Lost::Repeat).await?;
        let mut own = self.own.lock();
        for channel in channels {
            own.channels.entry(channel.clone()).or_default().listed = true;
        }
        Ok(())
    }

    pub(crate) async fn leave(&self, channel: &Channel, client: &ClientId, tell: Tell) {
        let _changing = self.changing.read().await;
        let was_there =
            self.own.lock().channels.get_mut(channel).is_some_and(|members| members.clients.remove(client).is_some());
        if !was_there {
            return;
        }
        let names = &self.servers.names;
        let told = names.channel(channel);
        let arguments = [told.as_bytes(), client.as_str().as_bytes(), flag(tell)];
        let left = self.servers.call(Script::Leave, &[names.presence(channel)], &arguments, Lost::Repeat).await;
        if left.is_err() {
            self.own.lock().unsettled.insert(channel.clone());
        }
    }

    pub(crate) async fn all(&self, channel: &Channel) -> Result<Vec<(ClientId, Arc<ClientInfo>)>, BrokerError> {
        let key = self.servers.names.presence(channel);
        let answer = self.servers.ask_of(&key, Kind::Hash, cmd("HGETALL").arg(&key), Lost::Repeat).await?;
        let mut parts = list(answer.value)?.into_iter();
        let mut all = Vec::with_capacity(parts.len() / 2);
        let mut garbage = Vec::new();
        let mut live = self.roll.live(&self.servers).await?;
        let mut looked_again = false;
        while let (Some(client), Some(who)) = (parts.next(), parts.next()) {
            let (client, who) = (bytes(client)?, bytes(who)?);
            let Some(member) = read_member(&client, &who) else {
                garbage.push((client, who));
                continue;
            };
            if !live.contains(&member.node) && !looked_again {
                // It may have come a moment ago.
                looked_again = true;
                live = self.roll.look(&self.servers).await?;
            }
            if live.contains(&member.node) {
                all.push((member.client, member.info));
            }
        }
        self.weed(key, garbage).await;
        Ok(all)
    }

    /// Takes out what nobody can read.
    async fn weed(&self, key: String, garbage: Vec<(Bytes, Bytes)>) {
        if garbage.is_empty() {
            return;
        }
        let arguments: Vec<&[u8]> = garbage.iter().flat_map(|(client, who)| [&client[..], &who[..]]).collect();
        // What stays is found again by the next to read.
        let keys = [key];
        if let Ok(answer) = self.servers.call(Script::Weed, &keys, &arguments, Lost::Repeat).await {
            self.note_weeded(&keys[0], &answer.value);
        }
    }

    fn note_weeded(&self, key: &str, answer: &redis::Value) {
        let weeded = integer(answer).ok().and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        self.servers.mended.note(key, "members that nobody can read", weeded);
    }

    pub(crate) async fn stats(&self, channel: &Channel) -> Result<PresenceStats, BrokerError> {
        let live = self.roll.live(&self.servers).await?;
        let nodes: Vec<&[u8]> = live.iter().map(String::as_bytes).collect();
        let key = self.servers.names.presence(channel);
        let answer = self.servers.call(Script::Count, &[key], &nodes, Lost::Repeat).await?;
        let counts = list(answer.value)?;
        let [clients, users] = &counts[..] else { return Err(unknown()) };
        let count = |value| integer(value).map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        Ok(PresenceStats { clients: count(clients)?, users: count(users)? })
    }

    /// Redis may have lost something: everything is said again.
    pub(crate) fn unsettle(&self) {
        let mut own = self.own.lock();
        let Own { channels, unsettled } = &mut *own;
        for (channel, members) in channels {
            members.listed = false;
            unsettled.insert(channel.clone());
        }
    }

    /// Says again what is true of channels of which Redis may know something else, and takes channels off the list in which nobody is present
    /// on this node any more. A channel that fails does not keep the others from their turn, for as long as an answer may take.
    pub(crate) async fn settle(&self) -> Result<(), BrokerError> {
        let mut unsettled: Vec<Channel> = self.own.lock().unsettled.iter().cloned().collect();
        // Those that fail are not always the first.
        fastrand::shuffle(&mut unsettled);
        let give_up_at = Instant::now() + self.servers.timeout();
        let mut failed = None;
        for channels in unsettled.chunks(AT_ONCE) {
            let _changing = self.changing.write().await;
            self.list(channels).await?;
            let settling = channels.iter().map(|channel| {
                let members = self.own.lock().channels.get(channel).map(|members| members.clients.clone());
                async move {
                    self.write_members(channel, self.roll.stamp(), &members.unwrap_or_default()).await?;
                    self.own.lock().unsettled.remove(channel);
                    Ok(())
                }
            });
            let settled: Vec<Result<(), BrokerError>> = futures_util::future::join_all(settling).await;
            failed = settled.into_iter().find_map(Result::err).or(failed);
            if failed.is_some() && Instant::now() >= give_up_at {
                break;
            }
        }
        self.unlist_empty().await?;
        failed.map_or(Ok(()), Err)
    }

    async fn unlist_empty(&self) -> Result<(), BrokerError> {
        let _changing = self.changing.write().await;
        let empty: Vec<Channel> = {
            let own = self.own.lock();
            let is_empty = |(channel, members): (&Channel, &Members)| {
                (members.clients.is_empty() && !own.unsettled.contains(channel)).then(|| channel.clone())
            };
            own.channels.iter().filter_map(is_empty).collect()
        };
        for channels in empty.chunks(1_000) {
            self.unlist(self.roll.stamp(), channels.iter().map(Channel::as_str)).await?;
            let mut own = self.own.lock();
            channels.iter().for_each(|channel| drop(own.channels.remove(channel)));
        }
        Ok(())
    }

    async fn unlist(&self, node: &str, channels: impl Iterator<Item = impl AsRef<[u8]>>) -> Result<(), BrokerError> {
        let list = self.servers.names.channels_of(node);
        let mut command = cmd("SREM");
        command.arg(&list);
        for channel in channels {
            command.arg(channel.as_ref());
        }
        self.servers.ask_of(&list, Kind::Set, &command, Lost::Repeat).await.map(drop)
    }

    /// Says who of a node is present in a channel, all of them.
    async fn write_members(
        &self,
        channel: &Channel,
        node: &str,
        members: &HashMap<ClientId, Bytes>,
    ) -> Result<(), BrokerError> {
        let names = &self.servers.names;
        let (told, most) = (names.channel(channel), self.per_channel_max.to_string());
        let mut arguments: Vec<&[u8]> = vec![told.as_bytes(), node.as_bytes(), most.as_bytes()];
        for (client, who) in members {
            arguments.extend([client.as_str().as_bytes(), &who[..]]);
        }
        let keys = [names.presence(channel)];
        let answer = self.servers.call(Script::Settle, &keys, &arguments, Lost::Repeat).await?;
        self.note_weeded(&keys[0], &answer.value);
        Ok(())
    }

    /// Takes out everybody who was present on a node. Subscribers hear of it. A channel that fails does not keep the others, for as long as
    /// an answer may take; what is left is for the next time.
    pub(crate) async fn clear(&self, node: &str) -> Result<(), BrokerError> {
        let list_name = self.servers.names.channels_of(node);
        let give_up_at = Instant::now() + self.servers.timeout();
        loop {
            let mut question = cmd("SRANDMEMBER");
            question.arg(&list_name).arg(AT_ONCE);
            let answer = self.servers.ask_of(&list_name, Kind::Set, &question, Lost::Repeat).await?;
            let listed = list(answer.value)?.into_iter().map(bytes).collect::<Result<Vec<Bytes>, BrokerError>>()?;
            if listed.is_empty() {
                return Ok(());
            }
            let nobody = HashMap::new();
            let clearing = listed.iter().map(|name| async {
                match std::str::from_utf8(name).ok().and_then(|name| name.parse::<Channel>().ok()) {
                    Some(channel) => self.write_members(&channel, node, &nobody).await,
                    None => {
                        self.servers.mended.note(&list_name, "names that are none", 1);
                        Ok(())
                    }
                }
            });
            let cleared: Vec<Result<(), BrokerError>> = futures_util::future::join_all(clearing).await;
            let done: Vec<&Bytes> =
                listed.iter().zip(&cleared).filter_map(|(name, done)| done.is_ok().then_some(name)).collect();
            if !done.is_empty() {
                self.unlist(node, done.iter()).await?;
            }
            if let Some(error) = cleared.into_iter().find_map(Result::err)
                && (done.is_empty() || Instant::now() >= give_up_at)
            {
                return Err(error);
            }
        }
    }

    /// Takes out everybody who is present on this node, at its end.
    pub(crate) async fn depart(&self) -> Result<(), BrokerError> {
        let _changing = self.changing.write().await;
        self.own.lock().channels.clear();
        self.clear(self.roll.stamp()).await
    }

    fn written(&self, info: &ClientInfo, tell: Tell) -> Bytes {
        [self.roll.stamp().as_bytes(), flag(tell), &packing::info(info)].concat().into()
    }
}

fn flag(tell: Tell) -> &'static [u8] {
    if tell == Tell::Subscribers { b"1" } else { b"0" }
}

/// One who is present, as it is written.
struct Member {
    node: String,
    client: ClientId,
    info: Arc<ClientInfo>,
}

/// Nothing if it was not written by us.
fn read_member(client: &Bytes, who: &Bytes) -> Option<Member> {
    let node = who.get(..STAMP_BYTES).filter(|node| node.iter().all(u8::is_ascii_alphanumeric))?;
    let node = String::from_utf8(node.to_vec()).ok()?;
    let info = packing::read_info(who.slice_ref(who.get(STAMP_BYTES + 1..)?)).ok()?;
    Some(Member { node, client: std::str::from_utf8(client).ok()?.parse().ok()?, info: Arc::new(info) })
}
