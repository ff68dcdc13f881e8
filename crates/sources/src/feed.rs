//! From a batch of messages to acknowledged publications: each channel's in their order, different channels' at once.
//!
//! What is refused for good is named, so that it can be put aside; what is refused for now is tried again, without end,
//! while the source keeps the rest.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::join_all;
use talewire_proto::Channel;

use crate::backoff::Backoff;
use crate::counts::{SourceCounts, count};
use crate::message::{Reader, Taken, Words};
use crate::settings::SourceSettings;

/// What a publication came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is kept as its channel promises.
    Published,
    /// It had been published before.
    Repeated,
}

/// Why something was not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whether the same may succeed later.
    pub again: bool,
    /// Why, without its content.
    pub reason: String,
}

/// Publishes words as the server's rules say, and answers once they are kept. Given by the binary.
pub type Publisher = Arc<dyn Fn(Words) -> Pin<Box<dyn Future<Output = Result<Outcome, Refusal>> + Send>> + Send + Sync>;

/// Carries batches of one source.
pub(crate) struct Feed {
    pub(crate) name: String,
    pub(crate) settings: SourceSettings,
    pub(crate) publisher: Publisher,
    pub(crate) counts: Arc<SourceCounts>,
    reader: Reader,
}

/// A message that can never be published: its place in the batch, and why.
pub(crate) type Aside = (usize, String);

impl Feed {
    pub(crate) fn new(name: &str, settings: SourceSettings, publisher: Publisher, counts: Arc<SourceCounts>) -> Self {
        let channel = settings.channel.parse().ok();
        let reader = Reader { source: name.to_owned(), channel, message_bytes_max: settings.message_bytes_max };
        Self { name: name.to_owned(), settings, publisher, counts, reader }
    }

    /// Publishes what can be published, and names what cannot, in the order of the batch.
    pub(crate) async fn carry(&self, batch: &[Taken]) -> Vec<Aside> {
        let mut lanes: BTreeMap<Channel, Vec<(usize, Words)>> = BTreeMap::new();
        let mut asides = Vec::new();
        for (at, taken) in batch.iter().enumerate() {
            count(&self.counts.consumed);
            match self.reader.read(taken) {
                Ok(words) => lanes.entry(words.channel.clone()).or_default().push((at, words)),
                Err(reason) => asides.push((at, reason)),
            }
        }
        let refused = join_all(lanes.into_values().map(|lane| self.carry_lane(lane))).await;
        asides.extend(refused.into_iter().flatten());
        asides.sort_by_key(|(at, _)| *at);
        for (at, reason) in &asides {
            count(&self.counts.put_aside);
            tracing::warn!(source = %self.name, place = %batch[*at].place, reason, "a message was put aside");
        }
        asides
    }

    /// Publishes what is for one channel, one after the other.
    async fn carry_lane(&self, lane: Vec<(usize, Words)>) -> Vec<Aside> {
        let mut asides = Vec::new();
        for (at, words) in lane {
            if let Err(reason) = self.publish(words).await {
                asides.push((at, reason));
            }
        }
        asides
    }

    async fn publish(&self, words: Words) -> Result<(), String> {
        let mut backoff = Backoff::new(self.settings.retry_ms, self.settings.retry_ms_max);
        let mut warned = false;
        loop {
            match (self.publisher)(words.clone()).await {
                Ok(Outcome::Published) => count(&self.counts.published),
                Ok(Outcome::Repeated) => count(&self.counts.repeated),
                Err(Refusal { again: false, reason }) => return Err(reason),
                Err(Refusal { again: true, reason }) => {
                    count(&self.counts.retries);
                    if !std::mem::replace(&mut warned, true) {
                        let channel = &words.channel;
                        tracing::warn!(source = %self.name, %channel, reason, "a message waits to be published");
                    }
                    tokio::time::sleep(backoff.next()).await;
                    continue;
                }
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parking_lot::Mutex;

    use super::*;
    use crate::message::Identity;

    fn batch(bodies: &[&str]) -> Vec<Taken> {
        let taken = |(at, body): (usize, &&str)| Taken {
            body: Ok(Bytes::copy_from_slice(body.as_bytes())),
            place: at.to_string(),
            identity: Identity::Place,
        };
        bodies.iter().enumerate().map(taken).collect()
    }

    /// A feed whose publications are `answer`ed, with what was published in the end.
    fn feed(answer: fn(&Words, usize) -> Result<Outcome, Refusal>) -> (Feed, Arc<Mutex<Vec<String>>>) {
        let done: Arc<Mutex<Vec<String>>> = Arc::default();
        let tries = Arc::new(Mutex::new(0));
        let into = done.clone();
        let publisher: Publisher = Arc::new(move |words| {
            let (into, tries) = (into.clone(), tries.clone());
            Box::pin(async move {
                // Others have their turn in between, so that only our own care keeps the order.
                tokio::task::yield_now().await;
                let tried = { std::mem::replace(&mut *tries.lock(), 0) + 1 };
                *tries.lock() = tried;
                let answer = answer(&words, tried);
                if answer.is_ok() {
                    let data = String::from_utf8(words.data.as_bytes().to_vec()).expect("JSON");
                    into.lock().push(format!("{} {data}", words.channel));
                }
                answer
            })
        });
        let settings = SourceSettings { retry_ms: 1, retry_ms_max: 2, ..SourceSettings::default() };
        (Feed::new("a", settings, publisher, Arc::default()), done)
    }

    fn of(channel: &str, all: &[String]) -> Vec<String> {
        all.iter().filter_map(|line| line.strip_prefix(&format!("{channel} "))).map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn every_channel_has_its_order_whatever_is_tried_again() {
        let answer: fn(&Words, usize) -> Result<Outcome, Refusal> = |_, tried| match tried % 3 {
            0 => Ok(Outcome::Published),
            _ => Err(Refusal { again: true, reason: "not now".into() }),
        };
        let (feed, done) = feed(answer);
        let bodies: Vec<String> = (0..20).map(|n| format!(r#"{{"channel":"c{}","data":{n}}}"#, n % 2)).collect();
        let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
        assert_eq!(feed.carry(&batch(&bodies)).await, []);
        for lane in 0..2 {
            let expected: Vec<String> = (0..20).filter(|n| n % 2 == lane).map(|n| n.to_string()).collect();
            assert_eq!(of(&format!("c{lane}"), &done.lock()), expected);
        }
        assert_eq!(feed.counts.published.load(std::sync::atomic::Ordering::Relaxed), 20);
        assert!(feed.counts.retries.load(std::sync::atomic::Ordering::Relaxed) >= 20);
    }

    #[tokio::test]
    async fn what_can_never_be_published_is_named_and_the_rest_goes_on() {
        let answer: fn(&Words, usize) -> Result<Outcome, Refusal> = |words, _| match words.channel.as_str() {
            "shut" => Err(Refusal { again: false, reason: "102 unknown channel".into() }),
            _ => Ok(Outcome::Repeated),
        };
        let (feed, done) = feed(answer);
        let bodies =
            [r#"{"channel":"a","data":1}"#, "{", r#"{"channel":"shut","data":2}"#, r#"{"channel":"a","data":3}"#];
        let asides = feed.carry(&batch(&bodies)).await;
        assert_eq!(asides, [(1, "the body is not JSON".to_owned()), (2, "102 unknown channel".to_owned())]);
        assert_eq!(of("a", &done.lock()), ["1", "3"]);
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        let counts = &feed.counts;
        assert_eq!([&counts.consumed, &counts.repeated, &counts.put_aside, &counts.published].map(read), [4, 2, 2, 0]);
    }
}
