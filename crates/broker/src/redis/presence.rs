//! Who is subscribed, in Redis: a hash for each channel, in which every member says on which node it is.
//!
//! A member is present while its node lives, so that one sign of life keeps all of a node's members. The node remembers its own: when Redis has lost
//! something, or a command's fate is not known, it says again what is true ([`Presence::settle`]). A dead node's members are
//! taken out by whoever finds it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::cmd;
use talewire_proto::{Channel, ClientId, ClientInfo};
use tokio::sync::RwLock;

use super::answers::{bytes, integer, list, text, unknown};
use super::names::slot;
use super::packing;
use super::roll::{Roll, STAMP_BYTES};
use super::scripts::Script;
use super::servers::{Lost, Servers};
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
        self.servers.ask(slot(&list), &command, Lost::Repeat).await?;
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
        let answer = self.servers.ask(slot(&key), cmd("HGETALL").arg(&key), Lost::Repeat).await?;
        let mut parts = list(answer.value)?.into_iter();
        let mut all = Vec::with_capacity(parts.len() / 2);
        let mut live = self.roll.live(&self.servers).await?;
        let mut looked_again = false;
        while let (Some(client), Some(who)) = (parts.next(), parts.next()) {
            let (client, mut who) = (text(client)?, bytes(who)?);
            if who.len() <= STAMP_BYTES {
                return Err(unknown());
            }
            let node = who.split_to(STAMP_BYTES);
            let _ = who.split_to(1);
            let lives = |live: &HashSet<String>| std::str::from_utf8(&node).is_ok_and(|node| live.contains(node));
            if !lives(&live) && !looked_again {
                // It may have come a moment ago.
                looked_again = true;
                live = self.roll.look(&self.servers).await?;
            }
            if lives(&live) {
                let info = packing::read_info(who).map_err(|_| unknown())?;
                all.push((client.parse().map_err(|_| unknown())?, Arc::new(info)));
            }
        }
        Ok(all)
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
    /// on this node any more.
    pub(crate) async fn settle(&self) -> Result<(), BrokerError> {
        let unsettled: Vec<Channel> = self.own.lock().unsettled.iter().cloned().collect();
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
            settled.into_iter().collect::<Result<Vec<()>, _>>()?;
        }
        let is_empty = |(channel, members): (&Channel, &Members)| members.clients.is_empty().then(|| channel.clone());
        let _changing = self.changing.write().await;
        let empty: Vec<Channel> = self.own.lock().channels.iter().filter_map(is_empty).collect();
        for channels in empty.chunks(1_000) {
            self.unlist(self.roll.stamp(), channels).await?;
            let mut own = self.own.lock();
            channels.iter().for_each(|channel| drop(own.channels.remove(channel)));
        }
        Ok(())
    }

    async fn unlist(&self, node: &str, channels: &[Channel]) -> Result<(), BrokerError> {
        let list = self.servers.names.channels_of(node);
        let mut command = cmd("SREM");
        command.arg(&list).arg(channels.iter().map(Channel::as_str).collect::<Vec<_>>());
        self.servers.ask(slot(&list), &command, Lost::Repeat).await.map(drop)
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
        self.servers.call(Script::Settle, &[names.presence(channel)], &arguments, Lost::Repeat).await.map(drop)
    }

    /// Takes out everybody who was present on a node. Subscribers hear of it.
    pub(crate) async fn clear(&self, node: &str) -> Result<(), BrokerError> {
        let list_name = self.servers.names.channels_of(node);
        loop {
            let mut question = cmd("SRANDMEMBER");
            question.arg(&list_name).arg(AT_ONCE);
            let answer = self.servers.ask(slot(&list_name), &question, Lost::Repeat).await?;
            let mut channels = Vec::new();
            for name in list(answer.value)? {
                channels.push(text(name)?.parse::<Channel>().map_err(|_| unknown())?);
            }
            if channels.is_empty() {
                return Ok(());
            }
            let nobody = HashMap::new();
            let clearing = channels.iter().map(|channel| self.write_members(channel, node, &nobody));
            let cleared: Vec<Result<(), BrokerError>> = futures_util::future::join_all(clearing).await;
            cleared.into_iter().collect::<Result<Vec<()>, _>>()?;
            self.unlist(node, &channels).await?;
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
