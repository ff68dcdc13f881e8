//! The subscriptions of one session, by channel.

use std::sync::Arc;

use super::clock::Now;
use crate::by_channel::ByChannel;
use crate::channel::Channel;
use crate::filter::Filter;
use crate::namespace::Namespace;
use crate::publication::ClientInfo;

pub(super) struct Subscription {
    pub(super) rules: Arc<Namespace>,
    /// How the subscriber appears in this channel.
    info: Arc<ClientInfo>,
    /// As the token has it, on the wall clock.
    pub(super) expires_at_ms: Option<i64>,
    /// On the monotonic clock, grace included.
    pub(super) expires_ms: Option<u64>,
    /// What it hears of the channel; kept for when the server has to join again.
    pub(super) filter: Option<Arc<Filter>>,
    by: By,
}

/// Who has made a subscription.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Client,
    Server,
}

impl Subscription {
    pub(super) fn new(rules: Arc<Namespace>, info: Arc<ClientInfo>, expires_at_ms: Option<i64>) -> Self {
        Self { rules, info, expires_at_ms, expires_ms: None, filter: None, by: By::Client }
    }

    /// One that the client has not asked for by a command of its own.
    pub(super) fn of_server(rules: Arc<Namespace>, info: Arc<ClientInfo>, filter: Option<Arc<Filter>>) -> Self {
        Self { filter, by: By::Server, ..Self::new(rules, info, None) }
    }

    pub(super) fn by_server(&self) -> bool {
        self.by == By::Server
    }
}

#[derive(Default)]
pub(super) struct Subscriptions {
    by_channel: ByChannel<Subscription>,
    /// The earliest expiry, kept so that asking for a deadline costs nothing.
    next_expiry_ms: Option<u64>,
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.by_channel.len()
    }

    pub(super) fn contains(&self, channel: &Channel) -> bool {
        self.by_channel.contains(channel)
    }

    /// The rules by which a channel was subscribed to.
    pub(super) fn rules_of(&self, channel: &Channel) -> Option<&Arc<Namespace>> {
        self.by_channel.get(channel).map(|subscription| &subscription.rules)
    }

    pub(super) fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.by_channel.channels()
    }

    pub(super) fn info(&self, channel: &Channel) -> Option<Arc<ClientInfo>> {
        self.by_channel.get(channel).map(|subscription| subscription.info.clone())
    }

    pub(super) fn next_expiry_ms(&self) -> Option<u64> {
        self.next_expiry_ms
    }

    pub(super) fn insert(&mut self, channel: Channel, subscription: Subscription) {
        self.by_channel.insert(channel, subscription);
        self.find_next_expiry();
    }

    pub(super) fn remove(&mut self, channel: &Channel) -> Option<Subscription> {
        let removed = self.by_channel.remove(channel)?;
        self.find_next_expiry();
        Some(removed)
    }

    /// Says whether there is such a subscription.
    pub(super) fn set_filter(&mut self, channel: &Channel, filter: Option<&Arc<Filter>>) -> bool {
        let Some(subscription) = self.by_channel.get_mut(channel) else { return false };
        // What the client subscribes to again, it sends again with its filter.
        if subscription.by_server() {
            subscription.filter = filter.cloned();
        }
        true
    }

    pub(super) fn set_expiry(&mut self, channel: &Channel, expires_ms: Option<u64>) {
        if let Some(subscription) = self.by_channel.get_mut(channel) {
            subscription.expires_ms = expires_ms;
        }
        self.find_next_expiry();
    }

    /// The channels whose token has run out.
    pub(super) fn expired(&self, now: Now) -> Vec<Channel> {
        if self.next_expiry_ms.is_none_or(|at| at > now.mono_ms) {
            return Vec::new();
        }
        let due = |subscription: &Subscription| subscription.expires_ms.is_some_and(|at| at <= now.mono_ms);
        self.by_channel
            .iter()
            .filter(|(_, subscription)| due(subscription))
            .map(|(channel, _)| channel.clone())
            .collect()
    }

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = (Channel, Subscription)> {
        self.next_expiry_ms = None;
        std::mem::take(&mut self.by_channel).into_iter()
    }

    fn find_next_expiry(&mut self) {
        self.next_expiry_ms = self.by_channel.iter().filter_map(|(_, subscription)| subscription.expires_ms).min();
    }
}
