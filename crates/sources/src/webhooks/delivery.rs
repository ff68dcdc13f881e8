//! One webhook's task: gathers events, signs them, posts them, and posts them again until they are accepted or their time is over.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use serde::Serialize;
use talewire_proto::Notice;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::address::{Lookup, address};
use super::signature;
use super::{Shared, Told, unix_ms};
use crate::backoff::Backoff;
use crate::counts::{add, count};
use crate::settings::WebhookSettings;

/// What is posted.
#[derive(Serialize)]
struct Delivery<'a> {
    /// The same in every try.
    delivery: String,
    node: &'a str,
    /// Events dropped since the last delivery that was accepted.
    dropped: u64,
    events: Vec<Event<'a>>,
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(flatten)]
    notice: &'a Notice,
    /// Unix milliseconds.
    at: i64,
}

/// Why a try failed, and how long to wait at least if the other side said so.
struct Failed {
    reason: String,
    wait: Option<Duration>,
}

/// Carries the deliveries of one webhook.
pub(super) struct Postman {
    name: String,
    node: String,
    settings: WebhookSettings,
    shared: Arc<Shared>,
    client: Client,
    url: Url,
}

impl Postman {
    pub(super) fn new(name: &str, node: &str, settings: WebhookSettings, shared: Arc<Shared>) -> Result<Self, String> {
        let url = address(&settings)?;
        let client = Client::builder()
            // A proxy of the environment would look the name up by itself.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .dns_resolver(Arc::new(Lookup { private_allowed: settings.private_allowed }))
            .https_only(!settings.http_allowed)
            .timeout(Duration::from_millis(settings.timeout_ms))
            .pool_max_idle_per_host(1)
            .user_agent(concat!("talewire/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { name: name.to_owned(), node: node.to_owned(), settings, shared, client, url })
    }

    /// Delivers until `stop`, and then what waits, within the time set for that.
    pub(super) async fn run(self, mut waiting: mpsc::Receiver<Told>, stop: CancellationToken) {
        let deliver_all = async {
            while let Some(batch) = self.gather(&mut waiting, &stop).await {
                self.deliver(&batch).await;
                add_back(&self.shared, batch.len());
            }
        };
        let drain = Duration::from_millis(self.settings.drain_ms);
        tokio::select! {
            () = deliver_all => {}
            () = async { stop.cancelled().await; tokio::time::sleep(drain).await } => {}
        }
        let left = self.shared.counts.waiting.load(Relaxed);
        if left > 0 {
            tracing::warn!(webhook = %self.name, events = left, "events were not delivered before the end");
        }
    }

    /// The next events; none when there will be no more.
    async fn gather(&self, waiting: &mut mpsc::Receiver<Told>, stop: &CancellationToken) -> Option<Vec<Told>> {
        let mut batch = Vec::new();
        let most = self.settings.batch_events_max.max(1);
        tokio::select! {
            biased;
            taken = waiting.recv_many(&mut batch, most) => if taken == 0 { return None },
            () = stop.cancelled() => return None,
        }
        let until = Instant::now() + Duration::from_millis(self.settings.batch_ms);
        while batch.len() < most {
            let room = most - batch.len();
            tokio::select! {
                taken = waiting.recv_many(&mut batch, room) => if taken == 0 { break },
                () = tokio::time::sleep_until(until) => break,
                () = stop.cancelled() => break,
            }
        }
        Some(batch)
    }

    /// Posts one delivery until it is accepted or its time is over.
    async fn deliver(&self, batch: &[Told]) {
        let dropped = self.shared.untold.load(Relaxed);
        let events = batch.iter().map(|told| Event { notice: &told.notice, at: told.at_ms }).collect();
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let delivery = Delivery { delivery: id, node: &self.node, dropped, events };
        let body = serde_json::to_vec(&delivery).expect("our own types are written as JSON");
        let give_up_at = Instant::now() + Duration::from_millis(self.settings.give_up_ms);
        let mut backoff = Backoff::new(self.settings.retry_ms, self.settings.retry_ms_max);
        loop {
            let Failed { reason, wait } = match self.post(body.clone()).await {
                Ok(()) => {
                    add(&self.shared.counts.delivered, batch.len());
                    self.shared.untold.fetch_sub(dropped, Relaxed);
                    return;
                }
                Err(failed) => failed,
            };
            count(&self.shared.counts.failures);
            let most = Duration::from_millis(self.settings.retry_ms_max);
            let pause = backoff.next().max(wait.unwrap_or_default().min(most));
            if Instant::now() + pause >= give_up_at {
                let events = batch.len();
                tracing::warn!(webhook = %self.name, events, reason, "a delivery is given up");
                self.shared.drop_events(events as u64);
                return;
            }
            tracing::debug!(webhook = %self.name, reason, "a delivery is tried again");
            tokio::time::sleep(pause).await;
        }
    }

    /// One try.
    async fn post(&self, body: Vec<u8>) -> Result<(), Failed> {
        // Signed anew each time, or the last try would be too old for the other side.
        let signature = signature::sign(self.settings.secret.reveal(), unix_ms() / 1_000, &body);
        let request = self.client.post(self.url.clone()).header(signature::HEADER, signature);
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        let answer = request.send().await.map_err(|error| Failed { reason: told(error), wait: None })?;
        let status = answer.status();
        let wait = retry_after(&answer);
        if !status.is_success() {
            let reason = match status {
                status if status.is_redirection() => format!("{status}: redirects are not followed"),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => format!("{status}: is the secret the same?"),
                status => status.to_string(),
            };
            return Err(Failed { reason, wait });
        }
        self.read_out(answer).await;
        Ok(())
    }

    /// Reads an answer to its end, so that the connection can be used again; one without an end is broken off.
    async fn read_out(&self, mut answer: Response) {
        let mut left = self.settings.answer_bytes_max;
        while let Ok(Some(chunk)) = answer.chunk().await {
            if chunk.len() > left {
                return;
            }
            left -= chunk.len();
        }
    }
}

fn add_back(shared: &Shared, events: usize) {
    shared.counts.waiting.fetch_sub(events as u64, Relaxed);
}

fn retry_after(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// An error with what caused it, and without the address, which may hold a key.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
