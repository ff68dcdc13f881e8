//! What the server counts, for Prometheus. Names begin with `talewire_` and end with their unit; those of the process are the usual ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use talewire_agents::counts::AgentCounts;
use talewire_broker::{BrokerHealth, NodeReport, OccupancyCounts};
use talewire_hub::{Hub, ShardCounters};
use talewire_proto::reply::SubscribeResult;
use talewire_proto::wire::Wire;
use talewire_proto::{CloseCode, ErrorCode, UnsubscribeCode};

use crate::inbox::Inboxes;
use crate::transport::guard::{Guard, Turned};

/// Every transport's name ([`Wire::transport`]).
const TRANSPORTS: [&str; 4] = ["websocket", "http-stream", "sse", "poll"];

/// Bounds of the buckets for delays, in seconds.
const DELAYS_S: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Counters and gauges of one node.
pub struct Metrics {
    registry: Registry,
    /// What has the names that every process gives it.
    process: Registry,
    /// By transport, in the order of [`TRANSPORTS`].
    connections: [Gauge; TRANSPORTS.len()],
    pub(crate) connects: Counter,
    pub(crate) publications: Counter,
    pub(crate) messages: Counter,
    pub(crate) accepts_failed: Counter,
    pub(crate) accept_pauses: Counter,
    pub(crate) refused_tokens: Counter,
    pub(crate) refused_origins: Counter,
    pub(crate) violations: Counter,
    pub(crate) http2_floods: Counter,
    pub(crate) beats_failed: Counter,
    pub(crate) letters_dropped: Counter,
    pub(crate) orders_kept: Counter,
    pub(crate) orders_carried_out: Counter,
    pub(crate) nodes_differing: Gauge,
    pub(crate) nodes_unheard: Gauge,
    pub(crate) store_writable: Gauge,
    errors: Codes,
    closes: Codes,
    unsubscribes: Codes,
    recoveries: Family<OutcomeLabel, Counter>,
    turned_away: Family<ReasonLabel, Counter>,
    publications_refused: Family<ReasonLabel, Counter>,
    reloads: Family<OutcomeLabel, Counter>,
    delivery: Histogram,
    shards: Vec<Arc<ShardIo>>,
    others: OnceLock<Others>,
}

/// Writes figures that others count, in the same format and without its end.
type Others = Box<dyn Fn(&mut String) + Send + Sync>;

type Codes = Family<CodeLabel, Counter>;

/// Bytes of one shard, apart from those of others so that counting is cheap.
#[derive(Debug, Default)]
struct ShardIo {
    sent: AtomicU64,
    received: AtomicU64,
    waiting: AtomicU64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransportLabel {
    transport: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl Metrics {
    pub(crate) fn new(
        hub: &Hub,
        guard: &Arc<Guard>,
        agents: Arc<AgentCounts>,
        inboxes: Arc<OnceLock<Inboxes>>,
        known: Arc<Mutex<Vec<NodeReport>>>,
    ) -> Self {
        let mut registry = Registry::with_prefix("talewire");
        let by_transport: Family<TransportLabel, Gauge> = Family::default();
        registry.register("connections", "Open connections, by transport", by_transport.clone());
        let connections =
            TRANSPORTS.map(|transport| (*by_transport.get_or_create(&TransportLabel { transport })).clone());
        let delivery = Histogram::new(DELAYS_S);
        let help = "From when this node got a publication until it was written to its readers, once for each thread";
        registry.register_with_unit("delivery", help, Unit::Seconds, delivery.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let connects = counter("connects", "Connections on which somebody has said who they are");
        let publications = counter("publications", "Publications taken from clients and the server API");
        let messages = counter("messages", "Words of server programs to a user, a connection or everybody");
        let accepts_failed =
            counter("accepts_failed", "Sockets that could not be accepted, for want of descriptors as a rule");
        let accept_pauses = counter("accept_pauses", "Pauses before the next socket, to keep a pace");
        let refused_tokens = counter("refused_tokens", "Tokens and logins that were not good");
        let refused_origins = counter("refused_origins", "WebSocket handshakes refused for the page they came from");
        let violations = counter("websocket_violations", "Connections closed for breaking the rules of WebSocket");
        let http2_floods = counter("http2_floods", "HTTP/2 sockets closed for floods of resets or of empty frames");
        let beats_failed = counter("beats_failed", "Signs of life that the broker did not take");
        let letters_dropped = counter("letters_dropped", "Letters of other nodes for which there was no room");
        let orders_kept = counter("orders_kept", "Orders to connections of every node that were given here and kept");
        let orders_carried_out =
            counter("orders_carried_out", "Kept orders that were carried out here, wherever they were given");
        let nodes_differing = Gauge::default();
        let help = "Other nodes that are set otherwise than this one, as of its last sign of life";
        registry.register("nodes_differing", help, nodes_differing.clone());
        let nodes_unheard = Gauge::default();
        let help = "Other nodes that use the same database and are not heard over this node's broker";
        registry.register("nodes_unheard", help, nodes_unheard.clone());
        let store_writable = Gauge::default();
        store_writable.set(1);
        let help = "Whether the store could write when it was last looked at: 1 or 0";
        registry.register("store_writable", help, store_writable.clone());
        let (errors, closes, unsubscribes): (Codes, Codes, Codes) = Default::default();
        registry.register("errors", "Commands refused, by code", errors.clone());
        registry.register("closes", "Connections closed by the server, by code", closes.clone());
        registry.register("unsubscribes", "Subscriptions ended by the server, by code", unsubscribes.clone());
        let recoveries: Family<OutcomeLabel, Counter> = Family::default();
        registry.register(
            "recoveries",
            "Subscriptions that asked for what they missed, by outcome",
            recoveries.clone(),
        );
        let turned_away: Family<ReasonLabel, Counter> = Family::default();
        registry.register("turned_away", "Sockets closed at once, by the limit that was reached", turned_away.clone());
        let publications_refused: Family<ReasonLabel, Counter> = Family::default();
        let help = "Publications refused by the rules of their namespace, by reason";
        registry.register("publications_refused", help, publications_refused.clone());
        let reloads: Family<OutcomeLabel, Counter> = Family::default();
        registry.register("reloads", "Times that the configuration was read again, by outcome", reloads.clone());
        // Every code from the start, at 0: an alert must be able to see the first one.
        let with_codes = |family: &Codes, codes: &mut dyn Iterator<Item = u32>| {
            codes.for_each(|code| drop(family.get_or_create(&CodeLabel { code })));
        };
        with_codes(&errors, &mut ErrorCode::ALL.iter().map(|code| code.code()));
        with_codes(&closes, &mut CloseCode::ALL.iter().map(|code| code.code()));
        with_codes(&unsubscribes, &mut UnsubscribeCode::ALL.iter().map(|code| code.code()));
        for outcome in ["recovered", "lost"] {
            drop(recoveries.get_or_create(&OutcomeLabel { outcome }));
        }
        for reason in ["rate", "schema"] {
            drop(publications_refused.get_or_create(&ReasonLabel { reason }));
        }
        for outcome in ["done", "refused"] {
            drop(reloads.get_or_create(&OutcomeLabel { outcome }));
        }
        for turned in Turned::ALL {
            drop(turned_away.get_or_create(&ReasonLabel { reason: turned.as_str() }));
        }
        let shards: Vec<Arc<ShardIo>> = hub.shards().iter().map(|_| Arc::default()).collect();
        let scrape = Scrape { hub: hub.clone(), guard: guard.clone(), agents, inboxes, shards: shards.clone(), known };
        registry.register_collector(Box::new(scrape));
        let mut process = Registry::default();
        #[cfg(unix)]
        process.register_collector(Box::new(crate::process::Process));
        Self {
            registry,
            process,
            connections,
            connects,
            publications,
            messages,
            accepts_failed,
            accept_pauses,
            refused_tokens,
            refused_origins,
            violations,
            http2_floods,
            beats_failed,
            letters_dropped,
            orders_kept,
            orders_carried_out,
            nodes_differing,
            nodes_unheard,
            store_writable,
            errors,
            closes,
            unsubscribes,
            recoveries,
            turned_away,
            publications_refused,
            reloads,
            delivery,
            shards,
            others: OnceLock::new(),
        }
    }

    /// Says who writes the figures of what the server does not know.
    ///
    /// # Panics
    /// When somebody does already.
    pub fn with_others(&self, write: impl Fn(&mut String) + Send + Sync + 'static) {
        assert!(self.others.set(Box::new(write)).is_ok(), "a process has one place for figures of others");
    }

    fn connections(&self, wire: Wire) -> &Gauge {
        let place = TRANSPORTS.iter().position(|transport| *transport == wire.transport());
        &self.connections[place.expect("every transport is in the table, which a test shows")]
    }

    pub(crate) fn opened(&self, wire: Wire) {
        self.connections(wire).inc();
    }

    pub(crate) fn ended(&self, wire: Wire) {
        self.connections(wire).dec();
    }

    /// Open connections, of all transports.
    pub(crate) fn open(&self) -> u64 {
        self.connections.iter().map(|gauge| u64::try_from(gauge.get()).unwrap_or(0)).sum()
    }

    pub(crate) fn delivered(&self, delays: impl Iterator<Item = Duration>) {
        delays.for_each(|delay| self.delivery.observe(delay.as_secs_f64()));
    }

    pub(crate) fn error(&self, code: ErrorCode) {
        self.errors.get_or_create(&CodeLabel { code: code.code() }).inc();
    }

    pub(crate) fn closed(&self, code: CloseCode) {
        self.closes.get_or_create(&CodeLabel { code: code.code() }).inc();
    }

    pub(crate) fn unsubscribed(&self, code: UnsubscribeCode) {
        self.unsubscribes.get_or_create(&CodeLabel { code: code.code() }).inc();
    }

    pub(crate) fn recovered(&self, result: &SubscribeResult) {
        if result.was_recovering {
            let outcome = if result.recovered { "recovered" } else { "lost" };
            self.recoveries.get_or_create(&OutcomeLabel { outcome }).inc();
        }
    }

    pub(crate) fn turned_away(&self, turned: Turned) {
        self.turned_away.get_or_create(&ReasonLabel { reason: turned.as_str() }).inc();
    }

    pub(crate) fn publication_refused(&self, reason: &'static str) {
        self.publications_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn reloaded(&self, outcome: &'static str) {
        self.reloads.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(crate) fn sent(&self, shard: usize, bytes: usize) {
        self.shards[shard].sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, shard: usize, bytes: usize) {
        self.shards[shard].received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn waiting(&self, shard: usize, bytes: usize) {
        self.shards[shard].waiting.store(bytes as u64, Ordering::Relaxed);
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let whole = "a String takes every byte";
        encode_registry(&mut text, &self.registry).expect(whole);
        encode_registry(&mut text, &self.process).expect(whole);
        if let Some(write) = self.others.get() {
            write(&mut text);
        }
        encode_eof(&mut text).expect(whole);
        text
    }
}

/// What others count by themselves, read when somebody asks.
#[derive(Debug)]
struct Scrape {
    hub: Hub,
    guard: Arc<Guard>,
    agents: Arc<AgentCounts>,
    inboxes: Arc<OnceLock<Inboxes>>,
    shards: Vec<Arc<ShardIo>>,
    known: Arc<Mutex<Vec<NodeReport>>>,
}

impl Scrape {
    fn inbox_waiting(&self) -> u64 {
        self.inboxes.get().map_or(0, |inboxes| inboxes.depth() as u64)
    }

    fn fanout_waiting(&self) -> u64 {
        self.hub.shards().iter().map(|shard| shard.depth() as u64).sum()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let io = |of: fn(&ShardIo) -> &AtomicU64| {
            self.shards.iter().map(|shard| of(shard).load(Ordering::Relaxed)).sum::<u64>()
        };
        let hub = |of: fn(&ShardCounters) -> &AtomicU64| {
            self.hub.shards().iter().map(|shard| of(&shard.counters).load(Ordering::Relaxed)).sum::<u64>()
        };
        let store = self.hub.store().figures();
        let occupancy = |of: fn(&OccupancyCounts) -> &AtomicU64| {
            self.hub.broker().occupancy_counts().map_or(0, |counts| of(counts).load(Ordering::Relaxed))
        };
        let (deflate, gzip) = (self.hub.compression().tally(), self.hub.gzip());
        let counters = [
            ("websocket_compressed", "Messages compressed, each once for all its readers", None, deflate.pieces()),
            ("websocket_compressed_before", "Their size before", Some(Unit::Bytes), deflate.bytes_before()),
            ("websocket_compressed_after", "Their size after", Some(Unit::Bytes), deflate.bytes_after()),
            ("stream_compressed", "Batches compressed for single streams", None, gzip.pieces()),
            ("stream_compressed_before", "Their size before", Some(Unit::Bytes), gzip.bytes_before()),
            ("stream_compressed_after", "Their size after", Some(Unit::Bytes), gzip.bytes_after()),
            ("deliveries", "Publications put into outboxes", None, hub(|c| &c.deliveries)),
            ("dropped", "Signals and deltas dropped for slow readers", None, hub(|c| &c.dropped)),
            ("conflated", "Signals whose place a newer one with the same key took", None, hub(|c| &c.conflated)),
            ("batches", "Batches of gathered publications", None, hub(|c| &c.batches)),
            ("behind", "Subscriptions that fell behind", None, hub(|c| &c.behind)),
            ("caught_up", "Subscriptions that caught up from history", None, hub(|c| &c.caught_up)),
            ("reset", "Subscriptions whose channel's history was broken off", None, hub(|c| &c.reset)),
            (
                "doubts",
                "Channels of which the broker could not say whether everything came here",
                None,
                self.hub.doubts(),
            ),
            ("signals_missed", "Subscriptions that may have missed signals for good", None, hub(|c| &c.signals_missed)),
            (
                "history_reads",
                "Reads of history for those who come back or fell behind",
                None,
                self.hub.history_reads().0,
            ),
            ("history_reads_shared", "Readers answered by another one's read", None, self.hub.history_reads().1),
            ("sent", "Written to connections", Some(Unit::Bytes), io(|io| &io.sent)),
            ("received", "Read from connections", Some(Unit::Bytes), io(|io| &io.received)),
            (
                "broker_mended",
                "Keys and members in the broker that no node had written and that this one put out of the way",
                None,
                self.hub.broker().mended(),
            ),
            (
                "occupancy_steps",
                "Channels that this node said it holds, or holds no more, for webhooks",
                None,
                occupancy(|counts| &counts.steps),
            ),
            ("occupancy_failed", "Such steps that the broker did not take", None, occupancy(|counts| &counts.failed)),
            (
                "occupancy_told",
                "Occupied and vacated channels told by this node",
                None,
                occupancy(|counts| &counts.told),
            ),
            (
                "occupancy_crowded_out",
                "Channels for which there was no room to wait for such a step",
                None,
                occupancy(|counts| &counts.crowded_out),
            ),
            ("store_operations", "Writes that the store carried out", None, store.operations),
            ("store_commits", "Commits that carried them", None, store.groups),
            ("store_commits_failed", "Commits that failed", None, store.groups_failed),
            ("store_refused", "Operations refused because a queue of the store was full", None, store.refused_full),
        ];
        for (name, help, unit, value) in counters {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?)?;
        }
        for (name, value) in self.agents.all() {
            let name = format!("agents_{name}");
            if name == "agents_running" {
                let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                metric.encode(encoder.encode_descriptor(
                    &name,
                    "Generations that run now",
                    None,
                    MetricType::Gauge,
                )?)?;
            } else {
                let help = "What agents have done since the start";
                ConstCounter::new(value).encode(encoder.encode_descriptor(
                    &name,
                    help,
                    None,
                    MetricType::Counter,
                )?)?;
            }
        }
        let (sockets, strangers) = self.guard.sockets();
        let gauges = [
            ("sockets", "Open sockets", None, sockets as u64),
            ("strangers", "Open sockets on which nobody has said who they are", None, strangers as u64),
            ("outbox", "Waits in outboxes, as of the last second", Some(Unit::Bytes), io(|io| &io.waiting)),
            ("subscriptions", "Subscriptions of connections on this node", None, hub(|c| &c.subscriptions)),
            ("fanout_waiting", "Messages of fan-out that wait for a thread", None, self.fanout_waiting()),
            ("inbox_waiting", "Frames, orders and questions that wait for a thread", None, self.inbox_waiting()),
            ("channels", "Channels with subscribers on this node", None, self.hub.channels() as u64),
            (
                "broker_history",
                "What history channels keep in memory",
                Some(Unit::Bytes),
                self.hub.broker().history_bytes() as u64,
            ),
            (
                "broker_up",
                "Whether the broker, or most of it, is there: 1 or 0",
                None,
                u64::from(!matches!(self.hub.broker().health(), BrokerHealth::Down { .. })),
            ),
            ("broker_slots_away", "Slots of Redis whose server is away", None, self.hub.broker().slots_away().into()),
            ("occupancy_waiting", "Channels that wait for such a step", None, occupancy(|counts| &counts.waiting)),
            ("nodes", "Nodes that lived as of this one's last sign of life", None, self.known.lock().len() as u64),
            ("store_writes_waiting", "Writes that wait for the store", None, store.writes_waiting),
            ("store_reads_waiting", "Reads that wait for the store", None, store.reads_waiting),
        ];
        let free =
            store.free_bytes.map(|free| ("store_free", "Left on the data folder's disk", Some(Unit::Bytes), free));
        for (name, help, unit, value) in gauges.into_iter().chain(free) {
            let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            metric.encode(encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transport_is_counted_under_its_name() {
        for wire in Wire::ALL {
            assert!(TRANSPORTS.contains(&wire.transport()), "{wire:?}");
        }
        assert!(TRANSPORTS.iter().all(|name| Wire::ALL.iter().any(|wire| wire.transport() == *name)));
        assert!(DELAYS_S.is_sorted());
    }
}
