//! Webhooks: notices come in without waiting for anybody, signed deliveries go out by one task for each webhook.
//!
//! One delivery of a webhook is under way at a time, so that its events come in their order. What the queue has no room for, and
//! what the other side did not accept in time, is dropped, counted, and told by number in the next delivery.

mod address;
mod delivery;
mod signature;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use talewire_proto::notice::NoticeSink;
use talewire_proto::{Notice, NoticeKind};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::counts::{WebhookCounts, count};
use crate::settings::WebhookSettings;

pub(crate) use address::address;
use delivery::Postman;

/// Something that happened, and when.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) notice: Arc<Notice>,
    pub(crate) at_ms: i64,
}

/// What the sink and the task of one webhook share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) counts: Arc<WebhookCounts>,
    /// Dropped events that the other side has not been told of.
    pub(crate) untold: AtomicU64,
}

impl Shared {
    pub(crate) fn drop_events(&self, events: u64) {
        self.counts.dropped.fetch_add(events, Relaxed);
        self.untold.fetch_add(events, Relaxed);
    }
}

/// Why the webhooks did not start.
#[derive(Debug, thiserror::Error)]
#[error("webhooks.{name}: {reason}")]
pub struct WebhookError {
    name: String,
    reason: String,
}

/// The running webhooks of a process.
#[derive(Debug)]
pub struct Webhooks {
    tasks: JoinSet<()>,
    counts: Vec<(String, Arc<WebhookCounts>)>,
    stop: CancellationToken,
}

struct Door {
    events: Vec<NoticeKind>,
    queue: mpsc::Sender<Told>,
    shared: Arc<Shared>,
}

impl Webhooks {
    /// Starts a task for each; deliveries name `node`. The sink is what they are told by, if there are any.
    ///
    /// # Errors
    /// [`WebhookError`] for settings that cannot be used.
    pub fn start(
        all: &BTreeMap<String, WebhookSettings>,
        node: &str,
    ) -> Result<(Self, Option<NoticeSink>), WebhookError> {
        let mut webhooks = Self { tasks: JoinSet::new(), counts: Vec::new(), stop: CancellationToken::new() };
        let mut doors = Vec::new();
        for (name, settings) in all {
            let (queue, waiting) = mpsc::channel(settings.queue_events_max.max(1));
            let shared: Arc<Shared> = Arc::default();
            webhooks.counts.push((name.clone(), shared.counts.clone()));
            let postman = Postman::new(name, node, settings.clone(), shared.clone())
                .map_err(|reason| WebhookError { name: name.clone(), reason })?;
            webhooks.tasks.spawn(postman.run(waiting, webhooks.stop.clone()));
            doors.push(Door { events: settings.events.clone(), queue, shared });
        }
        let sink: Option<NoticeSink> = (!doors.is_empty()).then(|| {
            let sink: NoticeSink = Arc::new(move |notice| tell(&doors, notice));
            sink
        });
        Ok((webhooks, sink))
    }

    /// What each has done.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, Arc<WebhookCounts>)> {
        self.counts.clone()
    }

    /// Delivers what waits, within the time set for that, and ends.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a webhook panicked");
            }
        }
    }
}

/// Puts a notice into the queues of those who want it. Never waits.
fn tell(doors: &[Door], notice: Notice) {
    let kind = notice.kind();
    let told = Told { notice: Arc::new(notice), at_ms: unix_ms() };
    for door in doors.iter().filter(|door| door.events.contains(&kind)) {
        count(&door.shared.counts.waiting);
        if door.queue.try_send(told.clone()).is_err() {
            door.shared.counts.waiting.fetch_sub(1, Relaxed);
            door.shared.drop_events(1);
        }
    }
}

/// The wall clock in Unix milliseconds.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
