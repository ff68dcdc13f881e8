//! Who is subscribed, inside the process: it needs no expiry, since what a crash forgets goes with the process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use talewire_proto::{Channel, ClientId, ClientInfo};

use super::Striped;
use crate::{BrokerError, PresenceStats};

pub(crate) struct Presence {
    per_channel_max: usize,
    channels: Striped<HashMap<Channel, BTreeMap<ClientId, Arc<ClientInfo>>>>,
}

impl Presence {
    pub(crate) fn new(per_channel_max: usize) -> Self {
        Self { per_channel_max, channels: Striped::new() }
    }

    pub(crate) fn enter(
        &self,
        channel: &Channel,
        client: &ClientId,
        info: &Arc<ClientInfo>,
    ) -> Result<(), BrokerError> {
        let mut channels = self.channels.of(channel).lock();
        let present = channels.get(channel);
        // Looked at before anything is put in: a refusal leaves nothing behind.
        let is_new = present.is_none_or(|present| !present.contains_key(client));
        if is_new && present.map_or(0, BTreeMap::len) >= self.per_channel_max {
            return Err(BrokerError::Full("presence_per_channel_max"));
        }
        channels.entry(channel.clone()).or_default().insert(client.clone(), info.clone());
        Ok(())
    }

    pub(crate) fn leave(&self, channel: &Channel, client: &ClientId) -> Option<Arc<ClientInfo>> {
        let mut channels = self.channels.of(channel).lock();
        let present = channels.get_mut(channel)?;
        let gone = present.remove(client);
        if present.is_empty() {
            channels.remove(channel);
        }
        gone
    }

    pub(crate) fn all(&self, channel: &Channel) -> Vec<(ClientId, Arc<ClientInfo>)> {
        let channels = self.channels.of(channel).lock();
        let present = channels.get(channel).into_iter().flatten();
        present.map(|(client, info)| (client.clone(), info.clone())).collect()
    }

    pub(crate) fn stats(&self, channel: &Channel) -> PresenceStats {
        let channels = self.channels.of(channel).lock();
        let Some(present) = channels.get(channel) else { return PresenceStats::default() };
        let users: HashSet<_> = present.values().map(|info| &info.user).collect();
        PresenceStats {
            clients: u32::try_from(present.len()).unwrap_or(u32::MAX),
            users: u32::try_from(users.len()).unwrap_or(u32::MAX),
        }
    }
}
