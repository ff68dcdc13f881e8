//! The wiring, in one function that is read from top to bottom. Nothing here decides anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use talewire_agents::Worker;
use talewire_agents::settings::ProviderKind;
use talewire_auth::{Auth, Hosts, Logins, OriginRule, Seal, Tokens};
use talewire_broker::{Broker, NodeId};
use talewire_hub::Hub;
use talewire_proto::session::Anonymous;
use talewire_server::{About, Node, NodeParts, RELOADS_WAITING_MAX, Server};
use talewire_sources::{Counts, Sources, Webhooks};
use talewire_store::Store;
use talewire_story::Stories;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::reload::Reloader;
use crate::sweep::{PRUNER, sweep};
use crate::{Source, agreement, descriptors, imports, logging, traces};

/// Which part of the whole a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Takes connections, and runs agents where the settings say so.
    Server,
    /// Runs agents, and has a listener for operators alone.
    Worker,
}

/// Runs until a signal ends it.
pub(crate) fn start(config: Config, source: Source, part: Part) -> anyhow::Result<()> {
    let log_filter = logging::start(&config.process)?;
    let reloader = Reloader { source, config: config.clone(), log_filter };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime does not start")?;
    runtime.block_on(wire(config, reloader, part))
}

async fn wire(config: Config, reloader: Reloader, part: Part) -> anyhow::Result<()> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data = %config.store.place(), "talewire starts");
    if config.process.insecure {
        tracing::warn!("insecure: everything is allowed to everybody in configured namespaces; for development only");
    }
    for setting in config.secrets_of_examples() {
        tracing::warn!(
            setting,
            "this secret is one of our examples, which everybody knows: set your own (openssl rand -hex 32)"
        );
    }
    descriptors::raise(config.http.sockets_max);
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));

    // What lasts, and what carries.
    let me = NodeId::new();
    let store = Store::open_as(&config.store, me.as_str()).await?;
    let broker = Broker::open(&config.broker, &me).await?;
    if part == Part::Worker && !(broker.is_shared() && store.is_shared()) {
        anyhow::bail!(
            "a worker shares its work with servers: set store.url to their PostgreSQL and broker.kind to their broker"
        );
    }

    // Who is told what happens here.
    let (webhooks, sink) = Webhooks::start(&config.webhooks, me.as_str())?;
    if let Some(sink) = sink {
        let wanted: Vec<_> = config.webhooks.values().flat_map(|webhook| webhook.events.iter().copied()).collect();
        broker.notices_to(sink, &wanted, &config.broker);
    }

    // Who is subscribed here: one shard for each thread that carries connections.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = if config.http.shards == 0 { cores } else { config.http.shards };
    let work = Hub::assemble(config.hub.clone(), store.clone(), broker.clone(), shards);
    let hub = work.hub.clone();
    tokio::spawn(work.run());
    let sweeping = tokio::spawn(sweep(broker.clone(), store.clone()));

    // Stories, and the agents that write in them.
    let stories = Stories::new(store.clone(), broker.clone(), config.story.clone());
    let worker = Worker::new(store.clone(), broker.clone(), stories.clone(), config.agents.clone())?;
    if !store.is_shared() {
        worker.take_over().await;
    }
    let provider = match config.agents.provider {
        ProviderKind::Demo => "demo",
        ProviderKind::OpenAi => "openai",
    };
    let about = About { provider: provider.into(), label: config.agents.label() };

    // Who may do what.
    let logins = Logins::new(store.secret("logins").await?)
        .lasting_s(config.auth.login_lifetime_s)
        .remembering(config.auth.logouts_max);
    let auth = Auth { tokens: Tokens::new(config.auth.clone())?, logins };
    let hosts = if config.http.listen.ip().is_loopback() { Hosts::Loopback } else { Hosts::Any };
    let origins = OriginRule::new(&config.auth.allowed_origins, hosts)?;
    let cursors = Seal::new(store.secret("cursors").await?);
    let anonymous = match (config.process.insecure, config.auth.anonymous_allowed) {
        (true, _) => Anonymous::Insecure,
        (false, true) => Anonymous::Allowed,
        (false, false) => Anonymous::Refused,
    };

    let looks_every = Duration::from_millis(config.store.look_ms);
    let logouts_every = Duration::from_millis(config.auth.logouts_every_ms);
    let orders_every = Duration::from_millis(config.store.orders_every_ms);

    // The doors open last, when everything behind them stands.
    let (reloads, requests) = mpsc::channel(RELOADS_WAITING_MAX);
    let parts = NodeParts {
        id: me.clone(),
        name: config.process.name(),
        store_name: name_of(&store.secret("name").await?),
        beat_ms: config.broker.node_beat_ms,
        orders_age: Duration::from_millis(config.store.orders_age_ms.max(0).unsigned_abs()),
        agreed: agreement::all(&config, &store.secret("agreement").await?),
        rules: config.rules()?,
        settings: config.http,
        reloads: Some(reloads),
        traces: traces::start(&config.traces, me.as_str())?,
        anonymous,
        auth,
        origins,
        cursors,
        hub,
        stories,
        about,
        agents: worker.counts(),
    };
    let node = Arc::new(Node::new(parts));
    node.learn_logouts().await?;
    node.join_orders().await?;
    // Others know of this node before anybody is here.
    node.beat().await;
    if let Some(other) = node.stranger() {
        broker.depart().await;
        anyhow::bail!(
            "node {} ({}) over the same broker keeps its data in another database: give all nodes one store.url, or another broker prefix",
            other.name,
            other.id
        );
    }
    let attending = tokio::spawn(node.clone().attend());
    let watching = tokio::spawn(node.clone().watch_store(looks_every));
    let learning = tokio::spawn(node.clone().follow_logouts(logouts_every));
    let obeying = tokio::spawn(node.clone().follow_orders(orders_every));
    let works = part == Part::Worker || config.agents.run_here;
    let server = match part {
        Part::Server => Server::start(node.clone())?,
        Part::Worker => Server::start_admin(node.clone())?,
    };
    // What comes from elsewhere comes in where people do.
    let wanted = if part == Part::Server { config.sources } else { Default::default() };
    let sources = Sources::start(&wanted, &imports::publisher(&node), &stop);
    let counts = Counts { sources: sources.counts(), webhooks: webhooks.counts() };
    node.metrics.with_others(move |text| counts.write(text));
    tokio::spawn(reloader.run(node.clone(), requests));
    let working = works.then(|| tokio::spawn(worker.run(stop.clone())));
    let admin = server.admin_address();
    match part {
        Part::Server => tracing::info!(page = %format!("http://{}", server.address()), %admin, "talewire is ready"),
        Part::Worker => tracing::info!(%admin, "the worker is ready"),
    }

    // The end, in the opposite order.
    stop.cancelled().await;
    let began = Instant::now();
    tracing::info!(connections = node.report().connections, "talewire stops");
    sources.ended().await;
    server.stop().await;
    if let Some(working) = working {
        working.await.context("the worker panicked")?;
    }
    attending.abort();
    learning.abort();
    obeying.abort();
    watching.abort();
    sweeping.abort();
    broker.release(PRUNER).await;
    broker.depart().await;
    webhooks.stop().await;
    store.close().await;
    tracing::info!(after_ms = %began.elapsed().as_millis(), "talewire has stopped");
    Ok(())
}

/// A name for a database that tells it from others: the start of a secret that is for nothing else.
fn name_of(secret: &[u8; 32]) -> String {
    secret[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Signals that follow so close on the first say the same: a terminal, `npm run` and `timeout` each tell the process and its group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Cancels `stop` on Ctrl-C or SIGTERM; a second signal ends the process at once.
async fn stop_on_signal(stop: CancellationToken) {
    if let Err(error) = signal().await {
        tracing::error!(%error, "signals cannot be awaited: stopping");
    }
    stop.cancel();
    tokio::time::sleep(SAME_SIGNAL).await;
    if signal().await.is_ok() {
        tracing::warn!("second signal: ending at once");
        std::process::exit(130);
    }
}

#[cfg(unix)]
async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
