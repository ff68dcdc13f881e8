//! What carries publications between those who publish and the hubs that fan out.
//!
//! Publications come in from sessions, the HTTP API and use cases; [`Delivery`] values go out to the hub of every node, this
//! one too, by the sink given to [`Broker::deliver_to`]. Beside them the broker keeps what is shared and need not outlive
//! it: history of history channels, presence, generation streams, wake-ups. There are three backends: inside
//! the process (`memory`), and Redis (`redis`) or NATS (`nats`) for many nodes; callers name [`Broker`] and never a backend.

mod between;
mod control;
mod error;
mod memory;
mod nats;
mod nodes;
mod occupancy;
mod redis;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use talewire_proto::generation::{GenerationFrame, GenerationStatus};
use talewire_proto::{
    Channel, ClientId, ClientInfo, Entry, Epoch, GenerationId, Namespace, Notice, Notices, Position, Publication,
    Since, StoryId, UserId, Version,
};
use tokio::sync::broadcast;

pub use crate::nats::NatsSettings;
pub use crate::redis::{Password, RedisFacts, RedisMode, RedisSettings, redis_facts};
pub use control::{Control, ControlSink, Order, Whom};
pub use error::{BrokerError, StreamError};
pub use nodes::{BrokerHealth, LetterSink, NodeId, NodeReport};
pub use occupancy::OccupancyCounts;
pub use settings::{BrokerKind, BrokerSettings};

/// Something for the subscribers of a channel.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Whose subscribers.
    pub channel: Channel,
    /// What they get.
    pub message: Message,
}

/// What a delivery carries.
#[derive(Debug, Clone)]
pub enum Message {
    /// A kept publication at its position. May come late, doubled, swapped or not at all; the offset tells.
    Entry {
        /// The history that the offset belongs to.
        epoch: Epoch,
        /// The entry.
        entry: Arc<Entry>,
    },
    /// A publication that is not kept.
    Signal(Arc<Publication>),
    /// Somebody subscribed.
    Join(Arc<ClientInfo>),
    /// Somebody is gone.
    Leave(Arc<ClientInfo>),
    /// A frame of a generation stream; a reader who misses one needs a snapshot.
    Generation(Arc<GenerationFrame>),
    /// Deliveries of this channel may have been lost on their way here: look at its history, and take a snapshot of its generation.
    Doubt,
}

/// Takes deliveries. Called in the order of each channel, from any thread; it must not block.
pub type Sink = Arc<dyn Fn(Delivery) + Send + Sync>;

/// A page of a channel's history.
#[derive(Debug, Clone)]
pub struct Page {
    /// The entries, in the direction asked for.
    pub entries: Vec<Arc<Entry>>,
    /// Where the channel stands now.
    pub top: Position,
    /// Whether the entries are all that was asked for: false when a limit cut them or older ones are gone.
    pub complete: bool,
    /// Earlier names of the same history, each with the last offset that it shares with this one: a position of such an epoch is
    /// true at or below that offset, and of another history above it.
    pub older: Vec<Position>,
}

/// Which way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    Forward,
    /// Newest first.
    Backward,
}

/// An entry for a history channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publish {
    /// What it says.
    pub publication: Publication,
    /// What makes it the same entry when it comes again.
    pub key: Option<Key>,
    /// How new its state is: one that is not newer than the newest so far adds nothing.
    pub version: Option<Version>,
}

impl From<Publication> for Publish {
    fn from(publication: Publication) -> Self {
        Self { publication, ..Self::default() }
    }
}

/// What a publish came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where the entry stands; where the channel stands if it was skipped.
    pub position: Position,
    /// Whether the same key had been published before; then nothing was added.
    pub repeated: bool,
    /// Whether the channel already had this version or a newer one; then nothing was added.
    pub skipped: bool,
}

/// An idempotency key and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Keys of different users never meet.
    pub user: UserId,
    /// The key as the publisher chose it.
    pub key: String,
}

/// The text of a generation so far.
#[derive(Clone, PartialEq, Eq)]
pub struct GenerationSnapshot {
    /// The attempt that writes, or wrote, it.
    pub attempt: u32,
    /// The text so far.
    pub text: String,
    /// How far it has come.
    pub status: GenerationStatus,
}

/// Shows the length, never the text.
impl std::fmt::Debug for GenerationSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "GenerationSnapshot {{ attempt: {}, {} bytes, {} }}",
            self.attempt,
            self.text.len(),
            self.status.as_str()
        )
    }
}

/// "Look again": carries no facts and may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WakeUp {
    /// There may be jobs to claim.
    Jobs,
    /// Somebody asked to stop this generation.
    Cancel(GenerationId),
    /// An order was kept ([`Control::packed`]): nodes find it where it is. It is told whole for those of versions that keep none.
    Order(Bytes),
}

/// The broker. A clone is a reference count.
#[derive(Clone)]
pub struct Broker {
    backend: Backend,
    /// What other systems are told of what happens on this node.
    notices: Notices,
    occupancy: Arc<OnceLock<occupancy::Keeping>>,
    node: NodeId,
}

#[derive(Clone)]
enum Backend {
    Memory(Arc<memory::Memory>),
    Redis(Arc<crate::redis::Redis>),
    Nats(Arc<crate::nats::Nats>),
}

impl Broker {
    /// The broker that the settings name, for the node `node`.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when it cannot be reached.
    pub async fn open(settings: &BrokerSettings, node: &NodeId) -> Result<Self, BrokerError> {
        match settings.kind {
            BrokerKind::InProcess => {
                let memory = memory::Memory::new(settings.clone(), node.clone());
                Ok(Self::of(Backend::Memory(Arc::new(memory)), node.clone()))
            }
            BrokerKind::Redis => {
                let redis = crate::redis::Redis::open(settings, node).await?;
                Ok(Self::of(Backend::Redis(Arc::new(redis)), node.clone()))
            }
            BrokerKind::Nats => {
                Ok(Self::of(Backend::Nats(crate::nats::Nats::open(settings, node).await?), node.clone()))
            }
        }
    }

    /// A broker inside this process; what it keeps ends with the process.
    #[must_use]
    pub fn in_process(settings: &BrokerSettings) -> Self {
        let node = NodeId::new();
        Self::of(Backend::Memory(Arc::new(memory::Memory::new(settings.clone(), node.clone()))), node)
    }

    fn of(backend: Backend, node: NodeId) -> Self {
        Self { backend, notices: Notices::default(), occupancy: Arc::default(), node }
    }

    /// Another node over the same in-process broker: for tests of many nodes in one process. To be made before anything is published.
    #[doc(hidden)]
    #[must_use]
    pub fn beside(&self, node: &NodeId) -> Self {
        let Backend::Memory(memory) = &self.backend else { panic!("only an in-process broker stands in one process") };
        Self::of(Backend::Memory(Arc::new(memory.beside(node.clone()))), node.clone())
    }

    /// Says who takes the deliveries of this node. Called once, before anything is published.
    pub fn deliver_to(&self, sink: Sink) {
        match &self.backend {
            Backend::Memory(memory) => memory.deliver_to(sink),
            Backend::Redis(redis) => redis.outlets.deliver_to(sink),
            Backend::Nats(nats) => nats.outlets.deliver_to(sink),
        }
    }

    /// The way to whoever tells other systems what happens on this node.
    #[must_use]
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// Whether other nodes publish over the same broker.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match &self.backend {
            Backend::Memory(memory) => memory.is_shared(),
            Backend::Redis(_) => true,
            Backend::Nats(_) => true,
        }
    }

    /// How the broker is, as far as this node knows. Cheap: it only looks.
    #[must_use]
    pub fn health(&self) -> BrokerHealth {
        match &self.backend {
            Backend::Memory(_) => BrokerHealth::Up,
            Backend::Redis(redis) => redis.health(),
            Backend::Nats(nats) => nats.health(),
        }
    }

    /// Slots of a Redis Cluster whose server is away; all 16,384 of them for one Redis that is away, and 0 for other brokers.
    #[must_use]
    pub fn slots_away(&self) -> u16 {
        match &self.backend {
            Backend::Redis(redis) => redis.slots_away(),
            Backend::Memory(_) | Backend::Nats(_) => 0,
        }
    }

    /// Keys and members under our names in the broker that were no work of ours, and were put out of the way by this node.
    #[must_use]
    pub fn mended(&self) -> u64 {
        match &self.backend {
            Backend::Redis(redis) => redis.mended(),
            Backend::Memory(_) | Backend::Nats(_) => 0,
        }
    }

    /// Somebody on this node is subscribed to a channel from now on: what is published there is to be delivered here. It takes a
    /// moment; [`Broker::listening`] tells when it is so. Does not block.
    pub fn listen(&self, channel: &Channel) {
        self.hold(channel, true);
        match &self.backend {
            // Inside the process everything is delivered anyway.
            Backend::Memory(_) => {}
            Backend::Redis(redis) => redis.listen(channel),
            Backend::Nats(nats) => nats.listen(channel),
        }
    }

    /// Nobody on this node is subscribed to a channel any more. Does not block.
    pub fn unlisten(&self, channel: &Channel) {
        self.hold(channel, false);
        match &self.backend {
            Backend::Memory(_) => {}
            Backend::Redis(redis) => redis.unlisten(channel),
            Backend::Nats(nats) => nats.unlisten(channel),
        }
    }

    /// Waits until what is published in a channel that is listened to comes here: a history that is read from then on, and what is
    /// delivered, leave no gap between them.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when that does not come to pass in time; at once while the broker is known to be down.
    pub async fn listening(&self, channel: &Channel) -> Result<(), BrokerError> {
        match &self.backend {
            Backend::Memory(_) => Ok(()),
            Backend::Redis(redis) => redis.listening(channel).await,
            Backend::Nats(nats) => nats.listening(channel).await,
        }
    }

    /// Where history channels stand now: at most [`TOPS_MAX`] of them. Channels that nothing is kept of are left out.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the broker does not answer.
    pub async fn tops(&self, channels: &[Channel]) -> Result<Vec<(Channel, Position)>, BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => Ok(channels
                .iter()
                .filter_map(|channel| Some((channel.clone(), memory.history.top(channel)?)))
                .collect()),
            Backend::Redis(redis) => redis.history.tops(channels).await,
            Backend::Nats(nats) => nats.history.tops(channels).await,
        }
    }

    /// Says who takes letters of other nodes to this one. Called once.
    pub fn letters_to(&self, sink: LetterSink) {
        match &self.backend {
            Backend::Memory(memory) => memory.letters_to(sink),
            Backend::Redis(redis) => redis.outlets.letters_to(sink),
            Backend::Nats(nats) => nats.outlets.letters_to(sink),
        }
    }

    /// Sends a letter to one node. At most once; says whether somebody of that name hears.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the broker does not answer.
    pub async fn post(&self, node: &NodeId, letter: Bytes) -> Result<bool, BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.post(node, letter)),
            Backend::Redis(redis) => redis.post(node, &letter).await,
            Backend::Nats(nats) => nats.post(node, letter).await,
        }
    }

    /// Tells the others that this node lives, and keeps what it has put into the broker (presence, for one) alive with it. To be called
    /// every [`BrokerSettings::node_beat_ms`].
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the broker does not answer.
    pub async fn beat(&self, report: NodeReport) -> Result<(), BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.beat(report);
                Ok(())
            }
            Backend::Redis(redis) => redis.beat(&report).await,
            Backend::Nats(nats) => nats.presence.report(report).await,
        }
    }

    /// Takes leave of the others: this node's presence ends now and not when its lease does.
    pub async fn depart(&self) {
        self.hold_nothing().await;
        match &self.backend {
            Backend::Memory(memory) => memory.depart(),
            Backend::Redis(redis) => redis.depart().await,
            Backend::Nats(nats) => nats.depart().await,
        }
    }

    /// The nodes that live, each with its latest report, oldest first.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the broker does not answer.
    pub async fn nodes(&self) -> Result<Vec<NodeReport>, BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.nodes()),
            Backend::Redis(redis) => redis.nodes().await,
            Backend::Nats(nats) => nats.presence.reports().await,
        }
    }

    /// Takes a lease, or keeps it, for so long: at most one node has it at a time, as far as clocks run alike. It spares work that one
    /// node is enough for; it guards nothing that must not happen twice.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the broker does not answer: then it is not held.
    pub async fn lease(&self, name: &'static str, ttl_ms: u64) -> Result<bool, BrokerError> {
        match &self.backend {
            // There is nobody else.
            Backend::Memory(_) => Ok(true),
            Backend::Redis(redis) => redis.lease(name, ttl_ms).await,
            Backend::Nats(nats) => nats.lease(name, ttl_ms).await,
        }
    }

    /// Gives a lease back.
    pub async fn release(&self, name: &'static str) {
        match &self.backend {
            Backend::Memory(_) => {}
            Backend::Redis(redis) => redis.release(name).await,
            Backend::Nats(nats) => nats.release(name).await,
        }
    }

    /// Spends a mark that counts once, for as long as it is remembered. Says whether this was the first time.
    ///
    /// # Errors
    /// [`BrokerError::Full`] when too many are remembered; [`BrokerError::Unavailable`] when the broker does not answer.
    pub async fn spend(&self, mark: &str, ttl_ms: u64) -> Result<bool, BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => memory.marks.spend(mark, ttl_ms),
            Backend::Redis(redis) => redis.spend(mark, ttl_ms).await,
            Backend::Nats(nats) => nats.spend(mark, ttl_ms).await,
        }
    }

    /// Says who takes orders for the connections of this node. Called once, when its threads stand.
    pub fn control_with(&self, sink: ControlSink) {
        match &self.backend {
            Backend::Memory(memory) => memory.control_with(sink),
            Backend::Redis(redis) => redis.outlets.control_with(sink),
            Backend::Nats(nats) => nats.outlets.control_with(sink),
        }
    }

    /// Gives an order to the connections of every node. At most once; nothing says how many it found.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when it was not taken: then nothing is done.
    pub async fn control(&self, control: Control) -> Result<(), BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => memory.control(control),
            Backend::Redis(redis) => redis.control(control).await,
            Backend::Nats(nats) => nats.control(control).await,
        }
    }

    /// Removes what a history channel keeps. Its epoch and its newest offset stay, and so do idempotency keys: a reader who
    /// had everything goes on, and one who missed some of it finds it gone.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the broker does not answer.
    pub async fn remove_history(&self, channel: &Channel) -> Result<(), BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.history.remove(channel);
                Ok(())
            }
            Backend::Redis(redis) => redis.history.remove(channel).await,
            Backend::Nats(nats) => nats.history.remove(channel).await,
        }
    }

    /// Publishes an entry to a history channel: looking at key and version, offset, keeping, trimming and announcing are one step.
    ///
    /// # Errors
    /// [`BrokerError::Full`] when the node keeps as many channels as it may; [`BrokerError::Unavailable`] when the broker does not answer,
    /// and [`BrokerError::Unknown`] when it may have added the entry all the same: only a key makes it safe to publish again.
    pub async fn publish(
        &self,
        channel: &Channel,
        rules: &Namespace,
        publish: Publish,
    ) -> Result<Published, BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => memory.history.publish(channel, rules, publish),
            Backend::Redis(redis) => redis.history.publish(channel, rules, publish).await,
            Backend::Nats(nats) => nats.history.publish(channel, rules, publish).await,
        }
    }

    /// Sends a publication that is not kept.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the broker does not answer.
    pub async fn signal(&self, channel: &Channel, publication: Publication) -> Result<(), BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.deliver(channel, Message::Signal(Arc::new(publication)));
                Ok(())
            }
            Backend::Redis(redis) => redis.signal(channel, &publication).await,
            Backend::Nats(nats) => nats.signal(channel, &publication).await,
        }
    }

    /// Tells every node that the store has committed an entry. It may be lost: hubs find out by themselves within a second.
    pub async fn announce(&self, channel: &Channel, epoch: &Epoch, entry: Arc<Entry>) {
        match &self.backend {
            Backend::Memory(memory) => memory.deliver(channel, Message::Entry { epoch: epoch.clone(), entry }),
            Backend::Redis(redis) => redis.announce(channel, epoch, &entry).await,
            Backend::Nats(nats) => nats.announce(channel, epoch, &entry).await,
        }
    }

    /// Reads a history channel.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the broker does not answer.
    pub async fn history(
        &self,
        channel: &Channel,
        rules: &Namespace,
        since: Since,
        direction: Direction,
        limit: PageLimit,
    ) -> Result<Page, BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => memory.history.read(channel, rules, &since, direction, limit),
            Backend::Redis(redis) => redis.history.read(channel, rules, &since, direction, limit).await,
            Backend::Nats(nats) => nats.history.read(channel, rules, &since, direction, limit).await,
        }
    }

    /// What this node keeps in memory of history channels, in bytes: nothing where a shared broker keeps them.
    #[must_use]
    pub fn history_bytes(&self) -> usize {
        match &self.backend {
            Backend::Memory(memory) => memory.history.bytes(),
            Backend::Redis(_) => 0,
            Backend::Nats(_) => 0,
        }
    }

    /// Notes that a connection is subscribed; with `tell`, the subscribers of the channel hear of it.
    ///
    /// # Errors
    /// [`BrokerError::Full`] when the channel has as many present as are kept.
    pub async fn enter(
        &self,
        channel: &Channel,
        client: &ClientId,
        info: &Arc<ClientInfo>,
        tell: Tell,
    ) -> Result<(), BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.presence.enter(channel, client, info)?;
                if tell == Tell::Subscribers {
                    memory.deliver(channel, Message::Join(info.clone()));
                }
                Ok(())
            }
            Backend::Redis(redis) => redis.presence.enter(channel, client, info, tell).await,
            Backend::Nats(nats) => nats.presence.enter(channel, client, info, tell).await,
        }
    }

    /// Notes that a connection is no longer subscribed. Leaving what one has not entered changes nothing and tells nobody.
    pub async fn leave(&self, channel: &Channel, client: &ClientId, tell: Tell) {
        match &self.backend {
            Backend::Memory(memory) => {
                if let Some(info) = memory.presence.leave(channel, client)
                    && tell == Tell::Subscribers
                {
                    memory.deliver(channel, Message::Leave(info));
                }
            }
            Backend::Redis(redis) => redis.presence.leave(channel, client, tell).await,
            Backend::Nats(nats) => nats.presence.leave(channel, client, tell).await,
        }
    }

    /// Who is subscribed to a channel, at most as many as are kept.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the broker does not answer.
    pub async fn presence(&self, channel: &Channel) -> Result<Vec<(ClientId, Arc<ClientInfo>)>, BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.presence.all(channel)),
            Backend::Redis(redis) => redis.presence.all(channel).await,
            Backend::Nats(nats) => nats.presence.all(channel).await,
        }
    }

    /// How many connections and how many users are subscribed to a channel.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the broker does not answer.
    pub async fn presence_stats(&self, channel: &Channel) -> Result<PresenceStats, BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.presence.stats(channel)),
            Backend::Redis(redis) => redis.presence.stats(channel).await,
            Backend::Nats(nats) => nats.presence.stats(channel).await,
        }
    }

    /// Begins an attempt at a generation: its text starts from nothing, and readers are told.
    ///
    /// # Errors
    /// [`StreamError::Fenced`] when this or a newer attempt has begun already.
    pub async fn generation_begin(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
    ) -> Result<(), StreamError> {
        match &self.backend {
            Backend::Memory(memory) => memory.generations.begin(story, generation, attempt),
            Backend::Redis(redis) => redis.generations.begin(story, generation, attempt).await,
            Backend::Nats(nats) => nats.generations.begin(story, generation, attempt).await,
        }
    }

    /// Appends to the text of the current attempt at a place, in UTF-16 code units, where it has to end so far, and sends the delta: what
    /// readers get is always a true beginning, also where a shared broker has lost a piece.
    ///
    /// # Errors
    /// [`StreamError::Fenced`] when a newer attempt has begun or this one has ended; [`StreamError::Elsewhere`] when the text ends at
    /// another place; [`StreamError::TooLong`] past the limit.
    pub async fn generation_append(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
        at: u64,
        text: &str,
    ) -> Result<(), StreamError> {
        match &self.backend {
            Backend::Memory(memory) => memory.generations.append(story, generation, attempt, at, text),
            Backend::Redis(redis) => redis.generations.append(story, generation, attempt, at, text).await,
            Backend::Nats(nats) => nats.generations.append(story, generation, attempt, at, text).await,
        }
    }

    /// Ends the stream; its text stays readable for a while. `at` is how long the whole text is, if that is known; else the end names what
    /// there is of it. Ending one that is not there, or by an attempt that never
    /// began, leaves an ended stream without text, so that no older attempt can begin any more. The same end may be told again.
    ///
    /// # Errors
    /// [`StreamError::Fenced`] when a newer attempt has begun or it has ended otherwise.
    pub async fn generation_end(
        &self,
        story: &StoryId,
        generation: &GenerationId,
        attempt: u32,
        status: GenerationStatus,
        at: Option<u64>,
    ) -> Result<(), StreamError> {
        // Whoever ends a stream has committed the end before, whatever becomes of the stream.
        self.notices.tell(|| {
            let (story, generation) = (story.clone(), generation.clone());
            Notice::GenerationEnded { story, generation, attempt, status }
        });
        match &self.backend {
            Backend::Memory(memory) => memory.generations.end(story, generation, attempt, status, at),
            Backend::Redis(redis) => redis.generations.end(story, generation, attempt, status, at).await,
            Backend::Nats(nats) => nats.generations.end(story, generation, attempt, status, at).await,
        }
    }

    /// The text of a generation so far, or nothing when no attempt has begun or it ended long ago.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the broker does not answer.
    pub async fn generation_snapshot(
        &self,
        story: &StoryId,
        generation: &GenerationId,
    ) -> Result<Option<GenerationSnapshot>, BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.generations.snapshot(story, generation)),
            Backend::Redis(redis) => redis.generations.snapshot(story, generation).await,
            Backend::Nats(nats) => nats.generations.snapshot(story, generation).await,
        }
    }

    /// Keeps where a reader of many channels stands, for a while. Says under which name: letters and digits. It does not wait for the
    /// broker: what could not be kept is found to be gone.
    #[must_use]
    pub fn keep_cursor(&self, positions: Vec<u8>) -> String {
        match &self.backend {
            Backend::Memory(memory) => memory.cursors.keep(positions),
            Backend::Redis(redis) => redis.keep_cursor(&positions),
            Backend::Nats(nats) => nats.keep_cursor(positions),
        }
    }

    /// What was kept under a name, if it is still there.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the broker does not answer.
    pub async fn kept_cursor(&self, name: &str) -> Result<Option<Vec<u8>>, BrokerError> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.cursors.find(name)),
            Backend::Redis(redis) => redis.kept_cursor(name).await,
            Backend::Nats(nats) => nats.kept_cursor(name).await,
        }
    }

    /// Tells every node to look again. May be lost.
    pub fn wake(&self, wake: WakeUp) {
        match &self.backend {
            // Nobody listening is no fault: the sweep finds the work.
            Backend::Memory(memory) => drop(memory.wakeups.send(wake)),
            Backend::Redis(redis) => redis.wake(&wake),
            Backend::Nats(nats) => nats.wake(&wake),
        }
    }

    /// Wake-ups from now on. A receiver that lags has to look at everything.
    #[must_use]
    pub fn wakeups(&self) -> broadcast::Receiver<WakeUp> {
        match &self.backend {
            Backend::Memory(memory) => memory.wakeups.subscribe(),
            Backend::Redis(redis) => redis.outlets.wakeups.subscribe(),
            Backend::Nats(nats) => nats.outlets.wakeups.subscribe(),
        }
    }

    /// Forgets what has outlived its time. Called every few seconds by the process; `publish` and `history` also trim what they touch.
    pub fn sweep(&self) {
        match &self.backend {
            Backend::Memory(memory) => memory.sweep(),
            // Redis forgets by itself.
            Backend::Redis(_) => {}
            Backend::Nats(_) => {}
        }
    }

    /// Moves the clock by which this broker forgets: for tests of expiry only.
    #[doc(hidden)]
    pub fn shift_clock(&self, by_ms: u64) {
        match &self.backend {
            Backend::Memory(memory) => memory.shift_clock(by_ms),
            Backend::Redis(redis) => redis.shift_clock(by_ms),
            Backend::Nats(nats) => nats.shift_clock(by_ms),
        }
    }
}

/// Channels that [`Broker::tops`] is asked about at once.
pub const TOPS_MAX: usize = 512;

/// How much one page of history may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// Entries.
    pub entries: usize,
    /// Bytes of payload; the first entry always fits.
    pub bytes: usize,
}

/// Whether subscribers hear of who comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// They do.
    Subscribers,
    /// They do not.
    Nobody,
}

/// How many are subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PresenceStats {
    /// Connections.
    pub clients: u32,
    /// Different users among them.
    pub users: u32,
}
