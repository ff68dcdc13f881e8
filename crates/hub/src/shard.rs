//! One shard: the subscribers and outboxes of the connections that live on one thread.
//!
//! A plain machine: the thread's loop feeds it messages and connections, takes the list of outboxes that have something
//! to write, and carries out its events. It has no socket, no lock and no task.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use slab::Slab;
use talewire_proto::filter::Filter;
use talewire_proto::wire::Wire;
use talewire_proto::{Channel, Entry, Kind, Namespace, Namespaces, Position};

use crate::batches::{Batch, Batches};
use crate::fanout::{Came, Fanout, What};
use crate::marks::{IdWriter, Marks};
use crate::node::Hub;
use crate::outbox::Outbox;
use crate::queue::{ShardCounters, ShardMessage, ShardQueue, Ticket};
use crate::recovery::{CatchUp, Found, Missed};
use crate::subscriber::{Connection, Held, Interest, Local, Mode, Subscriber, Told};
use crate::waiting::Keys;

/// Names a connection on its shard. Used again after the connection is removed.
pub type ConnectionKey = usize;

/// What the shard wants done for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardEvent {
    /// The connection has room again: read what it missed ([`Hub::catch_up`]) and give it to [`Shard::caught_up`].
    CatchUp(ConnectionKey, Missed),
    /// The subscription cannot go on without a gap: the client is to subscribe again.
    Broken(ConnectionKey, Channel),
    /// The connection's outbox is over its hard limit: close it.
    Overfull(ConnectionKey),
    /// A reader without a protocol may have missed signals of this channel, which nobody can give it any more: tell it so.
    SignalsMissed(ConnectionKey, Channel),
}

/// Fan-outs between two writes whose time is remembered; of more, the rest is not measured.
const CAME_MAX: usize = 1_024;

/// One thread's part of the hub.
pub struct Shard {
    hub: Hub,
    index: usize,
    queue: Arc<ShardQueue>,
    channels: HashMap<Channel, Local>,
    connections: Slab<Connection>,
    dirty: Vec<ConnectionKey>,
    /// Each with the subscription that it is for, which may be gone by the time it is polled.
    events: VecDeque<(Ticket, ShardEvent)>,
    now_ms: u64,
    /// When this node got what was put into outboxes since they were last written.
    came: Vec<Came>,
    /// Writes the ids of readers of several channels.
    ids: IdWriter,
    batches: Batches,
    keys: Keys,
}

impl Shard {
    /// The shard with this index.
    ///
    /// # Panics
    /// If the hub has no such shard.
    #[must_use]
    pub fn new(hub: Hub, index: usize) -> Self {
        let queue = hub.shards()[index].clone();
        Self {
            hub,
            index,
            queue,
            channels: HashMap::new(),
            connections: Slab::new(),
            dirty: Vec::new(),
            events: VecDeque::new(),
            now_ms: 0,
            came: Vec::new(),
            ids: Box::new(|_| String::new()),
            batches: Batches::default(),
            keys: Keys::default(),
        }
    }

    /// Says how the ids of readers of several channels are written. Without it they have none.
    pub fn write_ids_with(&mut self, ids: IdWriter) {
        self.ids = ids;
    }

    /// Moves the shard's clock (monotonic, in milliseconds), from which the age of what waits is told.
    pub fn set_now(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// The shard's clock, as it was last moved.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// A new connection.
    pub fn add(&mut self, wire: Wire) -> ConnectionKey {
        self.connections.insert(Connection::new(wire))
    }

    /// The connection is gone, and with it all of its subscriptions.
    pub fn remove(&mut self, key: ConnectionKey) {
        let channels: Vec<Channel> = self.connections[key].places.channels().cloned().collect();
        for channel in channels {
            self.unsubscribe(key, &channel);
        }
        self.connections.remove(key);
        self.dirty.retain(|dirty| *dirty != key);
    }

    /// Serves channels by other rules from now on, as [`Hub::set_rules`].
    pub fn set_rules(&mut self, namespaces: &Namespaces) {
        for (channel, local) in &mut self.channels {
            if let Ok(rules) = namespaces.of(channel) {
                local.rules = rules.clone();
            }
        }
    }

    /// Registers a subscriber. Until [`Shard::go_live`] what comes for it is held.
    pub fn subscribe(&mut self, key: ConnectionKey, channel: &Channel, rules: &Arc<Namespace>, interest: Interest) {
        self.unsubscribe(key, channel);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let ticket = self.hub.join(channel, rules, self.index);
        let local = self.channels.entry(channel.clone()).or_insert_with(|| Local {
            rules: rules.clone(),
            subscribers: Vec::new(),
            batch: Batch::default(),
        });
        connection.places.insert(channel.clone(), local.subscribers.len());
        let mode = Mode::Joining(Box::default());
        let join_leave = interest.join_leave;
        let picky = interest.picky();
        ShardCounters::add(&self.queue.counters.subscriptions, 1);
        local.subscribers.push(Subscriber { connection: key, ticket, next: 0, mode, join_leave, picky });
    }

    /// Ends a subscription; one that is not there changes nothing.
    pub fn unsubscribe(&mut self, key: ConnectionKey, channel: &Channel) {
        let Some(place) = self.connections.get_mut(key).and_then(|connection| connection.places.remove(channel)) else {
            return;
        };
        if let Some(local) = self.channels.get_mut(channel) {
            self.queue.counters.subscriptions.fetch_sub(1, Ordering::Relaxed);
            local.subscribers.swap_remove(place);
            if let Some(moved) = local.subscribers.get(place) {
                self.connections[moved.connection].places.insert(channel.clone(), place);
            }
            if local.subscribers.is_empty() {
                self.batches.close(channel, &mut local.batch);
                self.channels.remove(channel);
            }
        }
        if let Some(connection) = self.connections.get_mut(key)
            && let Some(waiting) = &mut connection.waiting
        {
            waiting.leave(channel);
            if waiting.is_empty() {
                connection.waiting = None;
            }
        }
        self.hub.part(channel, self.index);
    }

    /// From now on the subscriber hears of what this lets through; nothing for everything. No entry between is lost: each is
    /// judged when its turn comes.
    pub fn set_filter(&mut self, key: ConnectionKey, channel: &Channel, filter: Option<Arc<Filter>>) {
        let Some(subscriber) = self.subscriber(key, channel) else { return };
        match &mut subscriber.picky {
            Some(picky) => picky.filter = filter,
            none => *none = Interest { filter, ..Interest::default() }.picky(),
        }
    }

    /// Where a reader without a protocol begins in a channel: at nothing for one that has no positions.
    pub fn mark(&mut self, key: ConnectionKey, channel: &Channel, position: Position) {
        if let Some(marks) = self.connections.get_mut(key).and_then(|connection| connection.marks.as_mut()) {
            marks.begin(channel, position);
        }
    }

    /// Where a reader without a protocol stands in each of its channels, by what was put into its outbox or kept from it.
    #[must_use]
    pub fn marks(&self, key: ConnectionKey) -> Option<&Marks> {
        self.connections.get(key)?.marks.as_deref()
    }

    /// Where a reader without a protocol stands in one of its channels, if that is a place in a history.
    #[must_use]
    pub fn stands(&self, key: ConnectionKey, channel: &Channel) -> Option<Position> {
        self.marks(key)?.position(channel).filter(|position| !position.epoch.is_empty()).cloned()
    }

    /// The line that names where a reader of events stands. Empty if there is nothing to come back to.
    pub fn id_line(&mut self, key: ConnectionKey) -> Bytes {
        let Some(connection) = self.connections.get_mut(key) else { return Bytes::new() };
        let wire = connection.outbox.wire();
        connection.marks.as_mut().map(|marks| marks.id_line(wire, &self.ids)).unwrap_or_default()
    }

    /// Whether entries were kept from a reader of events since it was last told where it stands.
    #[must_use]
    pub fn has_moved(&self, key: ConnectionKey) -> bool {
        self.marks(key).is_some_and(Marks::has_moved)
    }

    /// Gives a subscriber that is joining what it missed, from the first offset that it does not have.
    pub fn replay(&mut self, key: ConnectionKey, channel: &Channel, next: u64, entries: Vec<Arc<Entry>>) {
        self.send_entries(key, channel, next, entries);
    }

    /// The subscribe reply is in the outbox: what was held flows now, from offset `next` on. With `more`, there is something to be
    /// read from history before that.
    pub fn go_live(&mut self, key: ConnectionKey, channel: &Channel, next: u64, more: bool) {
        let since = self.hub.look(channel).since;
        if let Some(subscriber) = self.subscriber(key, channel)
            && let Mode::Joining(held) = &mut subscriber.mode
        {
            let mut held = std::mem::take(&mut **held);
            // The reply may be of the new history while what is held is of the old one.
            held.broken |= since > subscriber.ticket;
            if more && !held.broken {
                // What was held is at or after what is to be read.
                return self.set_behind(key, channel, next);
            }
            self.resume(key, channel, next, held);
        }
    }

    /// Makes a subscriber live and gives it what was held for it.
    fn resume(&mut self, key: ConnectionKey, channel: &Channel, next: u64, held: Held) {
        let Some(local) = self.channels.get(channel) else { return };
        let followed = Hub::is_followed(local.rules.kind) || local.rules.kind == Kind::Generation;
        let Some(subscriber) = self.subscriber(key, channel) else { return };
        subscriber.next = next;
        subscriber.mode = Mode::Live;
        if held.broken {
            return self.break_off(key, channel);
        }
        for fanout in held.fanouts {
            self.deliver_to(key, &fanout);
        }
        if held.overflowed && followed {
            self.fall_behind(key, channel);
        }
    }

    /// What a subscriber that was behind had missed. `Err` tries again when there is room and time.
    pub fn caught_up(&mut self, key: ConnectionKey, channel: &Channel, answer: Result<CatchUp, ()>) {
        let Some(subscriber) = self.subscriber(key, channel) else { return };
        let Mode::CatchingUp(held) = &mut subscriber.mode else { return };
        let Ok(CatchUp { ticket, found }) = answer else {
            subscriber.mode = Mode::Behind;
            self.connections[key].behind = true;
            return;
        };
        if ticket != subscriber.ticket {
            // The answer to a subscription that is gone; this one has a question of its own under way.
            return;
        }
        let held = std::mem::take(&mut **held);
        let next = subscriber.next;
        match found {
            Found::Gone => self.break_off(key, channel),
            Found::Snapshot(frame) => {
                let fanout = Fanout::new(channel.clone(), What::Generation(frame));
                let bytes = fanout.bytes(self.connections[key].outbox.wire(), self.hub.compression());
                self.send(key, bytes);
                ShardCounters::add(&self.queue.counters.caught_up, 1);
                self.resume(key, channel, next, held);
            }
            Found::Entries { entries, complete } => {
                let next = self.send_entries(key, channel, next, entries);
                if !complete {
                    // There is more: it is read when what was given is written.
                    self.set_behind(key, channel, next);
                    return;
                }
                ShardCounters::add(&self.queue.counters.caught_up, 1);
                self.resume(key, channel, next, held);
            }
        }
    }

    /// The subscription cannot go on: it gets nothing more, and is told so once.
    fn break_off(&mut self, key: ConnectionKey, channel: &Channel) {
        let Some(subscriber) = self.subscriber(key, channel) else { return };
        let ticket = subscriber.ticket;
        match &mut subscriber.mode {
            Mode::Broken => return,
            Mode::Joining(held) => {
                held.broken = true;
                return;
            }
            mode => *mode = Mode::Broken,
        }
        ShardCounters::add(&self.queue.counters.reset, 1);
        self.events.push_back((ticket, ShardEvent::Broken(key, channel.clone())));
        // Looked at soon, so that the event is.
        self.mark_dirty(key);
    }

    fn subscriber(&mut self, key: ConnectionKey, channel: &Channel) -> Option<&mut Subscriber> {
        let place = self.place(key, channel)?;
        self.channels.get_mut(channel)?.subscribers.get_mut(place)
    }

    fn send_entries(&mut self, key: ConnectionKey, channel: &Channel, next: u64, entries: Vec<Arc<Entry>>) -> u64 {
        let Some(place) = self.place(key, channel) else { return next };
        // Told by ids alone, and the same for as long as the subscription stands.
        let epoch = self.connections[key].marks.as_ref().and_then(|marks| marks.epoch(channel)).unwrap_or_default();
        let mut next = next;
        for entry in entries {
            if entry.offset != next {
                continue;
            }
            next += 1;
            let Some(local) = self.channels.get(channel) else { return next };
            let connection = &mut self.connections[key];
            if local.subscribers[place].picky.as_ref().is_some_and(|picky| !picky.hears(&entry.publication)) {
                connection.hide(channel, entry.offset);
                continue;
            }
            if !connection.overfull {
                connection.put(
                    &Fanout::new(channel.clone(), What::Entry(entry, epoch.clone())),
                    &self.hub,
                    &self.ids,
                    self.now_ms,
                );
                self.pushed(key);
            }
        }
        next
    }

    fn place(&self, key: ConnectionKey, channel: &Channel) -> Option<usize> {
        self.connections.get(key)?.places.get(channel).copied()
    }

    fn set_behind(&mut self, key: ConnectionKey, channel: &Channel, next: u64) {
        let Some(place) = self.place(key, channel) else { return };
        if let Some(local) = self.channels.get_mut(channel) {
            local.subscribers[place].next = next;
            local.subscribers[place].mode = Mode::Behind;
            self.connections[key].behind = true;
            self.mark_dirty(key);
        }
    }

    fn fall_behind(&mut self, key: ConnectionKey, channel: &Channel) {
        let Some(place) = self.place(key, channel) else { return };
        let Some(local) = self.channels.get(channel) else { return };
        let next = local.subscribers[place].next;
        ShardCounters::add(&self.queue.counters.behind, 1);
        self.set_behind(key, channel, next);
    }

    /// Puts a frame for one connection into its outbox: replies, and what it alone gets.
    pub fn send(&mut self, key: ConnectionKey, frame: Bytes) {
        let connection = &mut self.connections[key];
        if connection.overfull || frame.is_empty() {
            return;
        }
        connection.outbox.push(frame, self.now_ms);
        self.pushed(key);
    }

    /// Something was put into the outbox of a connection for it alone.
    fn pushed(&mut self, key: ConnectionKey) {
        let connection = &mut self.connections[key];
        if connection.outbox.bytes() > self.hub.settings().outbox_bytes_hard_max {
            connection.overfull = true;
            self.events.push_back((0, ShardEvent::Overfull(key)));
        }
        self.mark_dirty(key);
    }

    /// Everything that is sent from here on is one body in gzip ([`Outbox::gzip`]).
    pub fn gzip(&mut self, key: ConnectionKey) {
        let (bytes_min, tally) = (self.hub.settings().gzip_bytes_min, self.hub.gzip().clone());
        self.connections[key].outbox.gzip(bytes_min, tally);
    }

    /// What is sent from here on may be compressed together with what other people say ([`Outbox::open_window`]).
    pub fn open_window(&mut self, key: ConnectionKey) {
        self.connections[key].outbox.open_window();
    }

    /// Nothing more is sent: a body in gzip gets its end.
    pub fn finish(&mut self, key: ConnectionKey) {
        self.connections[key].outbox.finish();
        self.mark_dirty(key);
    }

    fn mark_dirty(&mut self, key: ConnectionKey) {
        let connection = &mut self.connections[key];
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Carries out one message of the shard's queue.
    pub fn handle(&mut self, message: &ShardMessage) {
        match message {
            ShardMessage::Deliver(fanout) => self.gather(fanout),
            ShardMessage::Reset { channel, at } => {
                self.release(channel);
                let local = self.channels.get(channel);
                let older = local.into_iter().flat_map(|local| &local.subscribers).filter(|s| s.ticket < *at);
                let keys: Vec<_> = older.map(|subscriber| subscriber.connection).collect();
                keys.into_iter().for_each(|key| self.break_off(key, channel));
            }
            ShardMessage::Missed(channel) => {
                self.release(channel);
                for key in self.subscribers_of(channel) {
                    self.miss(key, channel);
                }
            }
        }
    }

    fn subscribers_of(&self, channel: &Channel) -> Vec<ConnectionKey> {
        let local = self.channels.get(channel);
        local.map(|local| local.subscribers.iter().map(|s| s.connection).collect()).unwrap_or_default()
    }

    /// Deliveries of the channel were dropped before they came here.
    fn miss(&mut self, key: ConnectionKey, channel: &Channel) {
        let Some(place) = self.place(key, channel) else { return };
        let Some(local) = self.channels.get_mut(channel) else { return };
        if local.rules.kind == Kind::Signal {
            let ticket = local.subscribers[place].ticket;
            ShardCounters::add(&self.queue.counters.signals_missed, 1);
            if self.connections[key].marks.is_some() {
                self.events.push_back((ticket, ShardEvent::SignalsMissed(key, channel.clone())));
                self.mark_dirty(key);
            }
            return;
        }
        match &mut local.subscribers[place].mode {
            Mode::Live => self.fall_behind(key, channel),
            Mode::Joining(held) | Mode::CatchingUp(held) => held.overflowed = true,
            Mode::Behind | Mode::Broken => {}
        }
    }

    /// Tells a fan-out now, or with others of its channel in a moment.
    fn gather(&mut self, fanout: &Arc<Fanout>) {
        let channel = &fanout.channel;
        let Some(local) = self.channels.get_mut(channel) else { return };
        let window_ms = local.rules.batch_ms;
        if window_ms == 0 && local.batch.fanouts.is_empty() {
            return self.deliver(channel, std::slice::from_ref(fanout));
        }
        if local.batch.fanouts.is_empty() {
            if self.batches.len() >= self.hub.settings().batches_max {
                return self.deliver(channel, std::slice::from_ref(fanout));
            }
            self.batches.open(channel, &mut local.batch, self.now_ms + window_ms);
        }
        local.batch.fanouts.push(fanout.clone());
        if window_ms == 0 || local.batch.fanouts.len() >= local.rules.batch_max {
            self.release(channel);
        }
    }

    /// Tells what was gathered of a channel.
    fn release(&mut self, channel: &Channel) {
        let Some(local) = self.channels.get_mut(channel) else { return };
        let fanouts = self.batches.close(channel, &mut local.batch);
        if !fanouts.is_empty() {
            ShardCounters::add(&self.queue.counters.batches, 1);
            self.deliver(channel, &fanouts);
        }
    }

    /// Tells what was gathered for as long as it may be, by the shard's clock.
    pub fn release_due(&mut self) {
        while let Some(channel) = self.batches.due(self.now_ms) {
            self.release(&channel);
        }
    }

    /// Tells everything that was gathered now.
    pub fn release_all(&mut self) {
        while let Some(channel) = self.batches.due(u64::MAX) {
            self.release(&channel);
        }
    }

    /// When [`Shard::release_due`] has something to do next, by the shard's clock.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.batches.next_ms()
    }

    /// Puts things that are told together into the outbox of every subscriber on this shard. The hot path.
    fn deliver(&mut self, channel: &Channel, fanouts: &[Arc<Fanout>]) {
        let Some(local) = self.channels.get_mut(channel) else { return };
        let mut told = Told::new(&self.hub, &self.ids, self.now_ms);
        told.conflate(&self.keys, &local.rules);
        for subscriber in &mut local.subscribers {
            let connection = &mut self.connections[subscriber.connection];
            for fanout in fanouts {
                if told.tell(subscriber, connection, fanout) && !connection.dirty {
                    connection.dirty = true;
                    self.dirty.push(subscriber.connection);
                }
            }
        }
        if told.any() {
            let room = CAME_MAX.saturating_sub(self.came.len());
            self.came.extend(fanouts.iter().filter_map(|fanout| fanout.came()).take(room));
        }
        told.count(&self.queue.counters);
    }

    /// When this node got each fan-out that went into outboxes since the last call: to be asked when these are written.
    pub fn take_came(&mut self) -> impl Iterator<Item = Came> {
        self.came.drain(..)
    }

    /// Channels of a connection.
    #[must_use]
    pub fn subscriptions(&self, key: ConnectionKey) -> usize {
        self.connections.get(key).map_or(0, |connection| connection.places.len())
    }

    /// The same for one subscriber.
    fn deliver_to(&mut self, key: ConnectionKey, fanout: &Arc<Fanout>) {
        let Some(place) = self.place(key, &fanout.channel) else { return };
        let Some(local) = self.channels.get_mut(&fanout.channel) else { return };
        let mut told = Told::new(&self.hub, &self.ids, self.now_ms);
        told.conflate(&self.keys, &local.rules);
        let connection = &mut self.connections[key];
        let is_new = told.tell(&mut local.subscribers[place], connection, fanout);
        told.count(&self.queue.counters);
        if is_new {
            self.mark_dirty(key);
        }
    }

    /// The connections that have something to write since the last call. Each is to be written with
    /// [`Shard::outbox`] and then given to [`Shard::written`].
    pub fn take_dirty(&mut self, into: &mut Vec<ConnectionKey>) {
        for key in &self.dirty {
            self.connections[*key].dirty = false;
        }
        into.append(&mut self.dirty);
    }

    /// Whether some connection has something to write.
    #[must_use]
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// A connection's outbox, if the connection is still there.
    pub fn outbox(&mut self, key: ConnectionKey) -> Option<&mut Outbox> {
        self.connections.get_mut(key).map(|connection| &mut connection.outbox)
    }

    /// A connection's outbox was written: subscriptions that wait for room may go on.
    pub fn written(&mut self, key: ConnectionKey) {
        let low = self.hub.settings().outbox_bytes_max / 4;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.overfull || connection.outbox.bytes() > low {
            return;
        }
        if connection.waiting.is_some() {
            let mut told = Told::new(&self.hub, &self.ids, self.now_ms);
            let flowed = told.flow(connection);
            told.count(&self.queue.counters);
            if flowed {
                self.mark_dirty(key);
            }
        }
        let connection = &mut self.connections[key];
        if !connection.behind || connection.outbox.bytes() > low {
            return;
        }
        connection.behind = false;
        for (channel, place) in connection.places.iter() {
            let Some(local) = self.channels.get_mut(channel) else { continue };
            let subscriber = &mut local.subscribers[*place];
            if matches!(subscriber.mode, Mode::Behind) {
                subscriber.mode = Mode::CatchingUp(Box::default());
                let Subscriber { next, ticket, .. } = *subscriber;
                let missed = Missed { channel: channel.clone(), rules: local.rules.clone(), next, ticket };
                self.events.push_back((ticket, ShardEvent::CatchUp(key, missed)));
            }
        }
    }

    /// What is to be done next for some connection.
    pub fn poll_event(&mut self) -> Option<ShardEvent> {
        while let Some((ticket, event)) = self.events.pop_front() {
            // Its subscription or connection may be gone, and its key may name another connection by now.
            let stands = match &event {
                ShardEvent::Overfull(key) => self.connections.get(*key).is_some_and(|connection| connection.overfull),
                ShardEvent::Broken(key, channel)
                | ShardEvent::CatchUp(key, Missed { channel, .. })
                | ShardEvent::SignalsMissed(key, channel) => {
                    self.subscriber(*key, channel).is_some_and(|subscriber| subscriber.ticket == ticket)
                }
            };
            if stands {
                return Some(event);
            }
        }
        None
    }

    /// Looks again after subscriptions that could not catch up, for example because the store did not answer.
    pub fn retry_behind(&mut self) {
        let behind: Vec<_> = self.connections.iter().filter(|(_, c)| c.behind).map(|(key, _)| key).collect();
        behind.into_iter().for_each(|key| self.written(key));
    }

    /// Connections whose peer has taken nothing for longer than allowed.
    #[must_use]
    pub fn stuck(&self) -> Vec<ConnectionKey> {
        let max = self.hub.settings().outbox_age_max_ms;
        let stuck =
            |(key, connection): (usize, &Connection)| (connection.outbox.stuck_ms(self.now_ms) > max).then_some(key);
        self.connections.iter().filter_map(stuck).collect()
    }

    /// Connections on this shard.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there is no connection on this shard.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Bytes that wait in all outboxes.
    #[must_use]
    pub fn bytes_waiting(&self) -> usize {
        self.connections.iter().map(|(_, connection)| connection.outbox.bytes()).sum()
    }
}
