//! Occupied channels as callers of the broker see them: who wants to hear of them comes in, and what hubs hold goes on to [`Occupancy`],
//! or to the table of the process.

use std::sync::Arc;

use talewire_proto::notice::NoticeSink;
use talewire_proto::{Channel, NoticeKind};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::{Ledger, Occupancy, OccupancyCounts};
use crate::{Backend, Broker, BrokerSettings};

/// The work on which channels are occupied.
pub(crate) struct Keeping {
    occupancy: Arc<Occupancy>,
    work: Mutex<Option<JoinHandle<()>>>,
}

impl Keeping {
    /// Gives up everything, at the end of this node.
    async fn depart(&self) {
        if let Some(work) = self.work.lock().await.take() {
            work.abort();
            // It ends as one that was broken off.
            let _ = work.await;
            self.occupancy.depart().await;
        }
    }
}

impl Broker {
    /// Says who tells other systems what happens on this node, and of what they want to hear. Called once, on a runtime, before anybody listens.
    /// Only where somebody wants to hear of occupied channels is anything done about them; nodes that do not are not counted.
    pub fn notices_to(&self, sink: NoticeSink, wanted: &[NoticeKind], settings: &BrokerSettings) {
        self.notices.told_to(sink, wanted);
        if !self.watches_occupancy() {
            return;
        }
        let (ledger, doubts, tasks) = match &self.backend {
            Backend::Memory(_) => return,
            Backend::Redis(redis) => (Ledger::Redis(redis.ledger()), redis.doubts(), &redis.tasks),
            Backend::Nats(nats) => (Ledger::Nats(nats.ledger()), nats.doubts(), &nats.tasks),
        };
        let occupancy = Occupancy::new(ledger, self.notices.clone(), &self.node, settings);
        let work = tokio::spawn(occupancy.clone().run(doubts));
        tasks.lock().push(work.abort_handle());
        let keeping = Keeping { occupancy, work: Mutex::new(Some(work)) };
        assert!(self.occupancy.set(keeping).is_ok(), "the sink of notices is set once");
    }

    fn watches_occupancy(&self) -> bool {
        self.notices.wants(NoticeKind::ChannelOccupied) || self.notices.wants(NoticeKind::ChannelVacated)
    }

    /// What was done about occupied channels; nothing where the broker is in the process, or nobody wants to hear of them.
    #[must_use]
    pub fn occupancy_counts(&self) -> Option<&OccupancyCounts> {
        self.occupancy.get().map(|keeping| &*keeping.occupancy.counts)
    }

    /// Whether the broker has been told of everything that [`Broker::listen`] and [`Broker::unlisten`] have said: for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn occupancy_is_settled(&self) -> bool {
        self.occupancy.get().is_none_or(|keeping| keeping.occupancy.is_settled())
    }

    /// Somebody on this node is subscribed to a channel, or nobody any more.
    pub(crate) fn hold(&self, channel: &Channel, holds: bool) {
        if !self.watches_occupancy() {
            return;
        }
        if let Backend::Memory(memory) = &self.backend {
            memory.hold(channel, holds).into_iter().for_each(|told| self.notices.tell(|| told.into_notice()));
        } else if let Some(keeping) = self.occupancy.get() {
            keeping.occupancy.note(channel, holds);
        }
    }

    /// Nobody on this node is subscribed to anything any more.
    pub(crate) async fn hold_nothing(&self) {
        if let Some(keeping) = self.occupancy.get() {
            keeping.depart().await;
        }
        if let Backend::Memory(memory) = &self.backend {
            memory.hold_nothing().into_iter().for_each(|told| self.notices.tell(|| told.into_notice()));
        }
    }
}
