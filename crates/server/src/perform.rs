//! Carrying out what a session wants done: its closed outputs in, answers to the session and frames to the outbox out.
//!
//! What needs nobody else is done on the spot; what waits for the store, the broker or a use case runs as a task of the
//! same thread and comes back with its answer. One command per connection is under way at a time.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use talewire_auth::display_name;
use talewire_broker::{Key, PageLimit, Tell};
use talewire_hub::{ConnectionKey, Interest, Missed, Recovered, Shard};
use talewire_proto::command::{History, Rpc, Token};
use talewire_proto::grant::TokenVerdict;
use talewire_proto::namespace::{Action, Subscribed, Verdict};
use talewire_proto::reply::{Push, Reply};
use talewire_proto::session::{Done, Join, Output, Refused, RoleNeeded, Task};
use talewire_proto::wire::websocket_close;
use talewire_proto::{
    Channel, ClientInfo, CloseCode, ErrorCode, Grant, Kind, Namespace, Payload, Position, Publication, Since, UserId,
    Version,
};
use talewire_story::Caller;

use crate::node::{Node, unix_ms};
use crate::plain;
use crate::reactor::{Peer, Reactor};
use crate::transport::events;

/// From where a subscription goes live once its reply is in the outbox.
#[derive(Clone)]
pub(crate) struct LiveFrom {
    pub(crate) channel: Channel,
    pub(crate) next: u64,
    /// Whether there is something to be read from history first.
    pub(crate) more: bool,
}

impl LiveFrom {
    pub(crate) fn begin(&self, shard: &mut Shard, key: ConnectionKey) {
        shard.go_live(key, &self.channel, self.next, self.more);
    }
}

/// Carries out the session's outputs until it has none. The caller writes the outboxes afterwards ([`Reactor::flush`]).
pub(crate) fn drive(reactor: &Rc<Reactor>, peer: &Rc<Peer>) {
    loop {
        let output = peer.session.borrow_mut().poll_output();
        let Some(output) = output else { break };
        match output {
            Output::Send(reply) => send(reactor, peer, reply),
            Output::Verify(token) => verify(reactor, peer, token),
            Output::VerifySubscription(token) => {
                let now = reactor.node.now();
                let verdict = reactor.node.auth.tokens.verify_subscription(&token.0, now.unix_ms);
                peer.session.borrow_mut().handle_subscription_verified(verdict, now);
            }
            Output::AskRole { channel, role } => ask_role(reactor, peer, channel, role),
            Output::Subscribe(join) => subscribe(reactor, peer, join),
            Output::SetFilter { channel, filter } => {
                reactor.shard.borrow_mut().set_filter(peer.key, &channel, filter);
            }
            Output::Unsubscribe { channel, rules } => unsubscribe(reactor, peer, channel, &rules),
            Output::Perform(task) => perform(reactor, peer, task),
            Output::Close(code) => close(reactor, peer, code),
        }
    }
    reactor.arm(peer);
    peer.wake.call();
}

fn send(reactor: &Rc<Reactor>, peer: &Rc<Peer>, reply: Reply) {
    if matches!(reply, Reply::Connect { .. })
        && let Err(code) = reactor.connected(peer)
    {
        // Nothing was told yet; the close is all that this connection hears.
        peer.session.borrow_mut().handle_close(code);
        return;
    }
    count(reactor, &reply);
    if peer.wire.is_plain() {
        return plain::send(reactor, peer, reply);
    }
    let mut shard = reactor.shard.borrow_mut();
    shard.send(peer.key, peer.wire.pack(&peer.codec.encode(&reply), reactor.node.hub.compression()));
    if let Reply::Connect { .. } = reply {
        // It holds the session's secret name, and has gone by itself; others' words come from here on.
        shard.open_window(peer.key);
    }
    if let Reply::Push { channel, push: Push::Subscribe(result) } = &reply {
        // The push has no room for what was missed: it comes behind, before everything that is new.
        let compression = reactor.node.hub.compression();
        for entry in &result.entries {
            shard.send(peer.key, peer.wire.publication(channel, entry.offset, None, &entry.publication, compression));
        }
    }
    // Nothing may come between the reply and the publications that were held for it.
    if let Reply::Subscribe { .. } | Reply::Connect { .. } | Reply::Push { push: Push::Subscribe(_), .. } = reply {
        peer.live_from.take().iter().for_each(|live| live.begin(&mut shard, peer.key));
    }
}

fn count(reactor: &Reactor, reply: &Reply) {
    match reply {
        Reply::Connect { .. } => {
            reactor.node.metrics.connects.inc();
        }
        Reply::Error { code, .. } => reactor.node.metrics.error(*code),
        Reply::Push { push: Push::Unsubscribe(code), .. } => reactor.node.metrics.unsubscribed(*code),
        _ => {}
    }
}

fn close(reactor: &Rc<Reactor>, peer: &Rc<Peer>, code: CloseCode) {
    tracing::debug!(client = %peer.session.borrow().client(), code = code.code(), reason = code.text(), "closing");
    reactor.node.metrics.closed(code);
    peer.closing.set(true);
    if let Some(gathered) = &peer.gathered {
        gathered.borrow_mut().closed = Some(code);
        return peer.wake.call();
    }
    let last = if peer.wire.is_websocket() {
        let number = u16::try_from(code.code()).expect("close codes are below 5000");
        websocket_close(number, code.text())
    } else {
        peer.wire.frame(&peer.codec.encode(&Reply::Disconnect(code)))
    };
    let mut shard = reactor.shard.borrow_mut();
    shard.send(peer.key, last);
    if peer.wire.is_plain() && code.reconnect() {
        shard.send(peer.key, events::retry_later().into());
    }
    shard.finish(peer.key);
}

/// Gets an answer for the session: at once where nobody has to be waited for, so that the commands of one frame are
/// carried out before anything is written; else by a task of this thread, if the connection is still there by then.
fn answer<T: 'static>(
    reactor: &Rc<Reactor>,
    peer: &Rc<Peer>,
    work: impl Future<Output = T> + 'static,
    give: impl FnOnce(&Rc<Peer>, T, &Rc<Reactor>) + 'static,
) {
    let mut work = Box::pin(work);
    if let Poll::Ready(answer) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return give(peer, answer, reactor);
    }
    let (reactor, peer) = (reactor.clone(), peer.clone());
    let unfinished = reactor.unfinished();
    tokio::task::spawn_local(async move {
        let answer = work.await;
        drop(unfinished);
        if !peer.gone.get() {
            give(&peer, answer, &reactor);
            drive(&reactor, &peer);
            reactor.flush();
        }
    });
}

/// Verifies a token or a login: on the spot, unless the database has to be asked.
fn verify(reactor: &Rc<Reactor>, peer: &Rc<Peer>, token: Token) {
    let node = reactor.node.clone();
    let work = async move { node.verify_connect(&token.0, unix_ms()).await };
    answer(reactor, peer, work, |peer, verdict, reactor| {
        if let TokenVerdict::Bad = verdict {
            reactor.node.metrics.refused_tokens.inc();
        }
        peer.session.borrow_mut().handle_verified(verdict, reactor.node.now());
    });
}

fn ask_role(reactor: &Rc<Reactor>, peer: &Rc<Peer>, channel: Channel, needed: RoleNeeded) {
    let user = peer.session.borrow().grant().map(|grant| grant.user.clone()).unwrap_or_default();
    let node = reactor.node.clone();
    let work = async move { has_role(&node, &user, &channel, needed).await };
    answer(reactor, peer, work, |peer, answer, reactor| {
        peer.session.borrow_mut().handle_role(answer, reactor.node.now());
    });
}

/// Whether a user has a role in the story of a channel. Looked up each time.
async fn has_role(node: &Node, user: &UserId, channel: &Channel, needed: RoleNeeded) -> Result<bool, Refused> {
    let story = channel.story_id().ok_or(ErrorCode::UnknownChannel)?;
    let role = node.stories.role(user, &story).await.map_err(refused)?;
    Ok(role.is_some_and(|role| needed == RoleNeeded::Member || role.may_write()))
}

/// The rules of a channel, if they let the holder of a grant do something in it without a connection. What is for subscribers is
/// for whoever may subscribe now, without a token for the channel.
pub(crate) async fn allowed(
    node: &Node,
    grant: &Grant,
    channel: &Channel,
    action: Action,
) -> Result<Arc<Namespace>, Refused> {
    let rules = node.rules_of(channel)?;
    let verdict = |action, subscribed| rules.verdict(action, channel, grant, subscribed);
    let verdict = match (verdict(action, Subscribed::No), verdict(action, Subscribed::Yes)) {
        (Verdict::Refused(_), Verdict::Allowed) => verdict(Action::Subscribe, Subscribed::No),
        (verdict, _) => verdict,
    };
    let has = match verdict {
        Verdict::Allowed => true,
        Verdict::AskMember => has_role(node, &grant.user, channel, RoleNeeded::Member).await?,
        Verdict::AskWriter => has_role(node, &grant.user, channel, RoleNeeded::Writer).await?,
        Verdict::Refused(code) => return Err(code.into()),
        Verdict::NeedsToken => false,
    };
    if has { Ok(rules) } else { Err(ErrorCode::PermissionDenied.into()) }
}

fn subscribe(reactor: &Rc<Reactor>, peer: &Rc<Peer>, join: Join) {
    let Join { channel, rules, recover, info, join_leave, filter, echo } = join;
    let deaf_to = (!echo).then(|| peer.session.borrow().client().clone());
    let interest = Interest { join_leave, filter, deaf_to };
    reactor.shard.borrow_mut().subscribe(peer.key, &channel, &rules, interest.clone());
    let limits = reactor.node.limits();
    let limit = if peer.wire.is_plain() {
        page_for_outbox(&reactor.node)
    } else {
        // A native client gets everything in one answer, or nothing.
        PageLimit { entries: limits.history_entries_max, bytes: limits.history_bytes_max }
    };
    let node = reactor.node.clone();
    let client = peer.session.borrow().client().clone();
    let (reactor, peer) = (reactor.clone(), peer.clone());
    tokio::task::spawn_local(async move {
        let recovered = node.hub.recover(&channel, &rules, recover.as_ref(), limit).await;
        if recovered.is_ok() && rules.presence {
            // A full presence list costs the listing, not the subscription.
            let _ = node.broker.enter(&channel, &client, &info, tell(&rules)).await;
        }
        if !peer.session.borrow().is_joining(&channel) {
            // The connection ended meanwhile; nobody else undoes what was begun here.
            if !peer.gone.get() {
                reactor.shard.borrow_mut().unsubscribe(peer.key, &channel);
            }
            if rules.presence {
                node.broker.leave(&channel, &client, tell(&rules)).await;
            }
            return;
        }
        let answer = match recovered {
            Ok(Recovered { mut result, next, more }) => {
                node.metrics.recovered(&result);
                if !peer.wire.is_plain() {
                    // What goes by ids is filtered where they are written.
                    result.entries.retain(|entry| interest.hears(&entry.publication));
                }
                peer.live_from.borrow_mut().push(LiveFrom { channel, next, more });
                Ok(result)
            }
            Err(error) => {
                tracing::warn!(%channel, %client, %error, "a subscription failed");
                reactor.shard.borrow_mut().unsubscribe(peer.key, &channel);
                Err(error.code().into())
            }
        };
        peer.session.borrow_mut().handle_subscribed(answer, node.now());
        drive(&reactor, &peer);
        reactor.flush();
    });
}

fn unsubscribe(reactor: &Rc<Reactor>, peer: &Rc<Peer>, channel: Channel, rules: &Namespace) {
    reactor.shard.borrow_mut().unsubscribe(peer.key, &channel);
    peer.live_from.borrow_mut().retain(|live| live.channel != channel);
    if rules.presence {
        let broker = reactor.node.broker.clone();
        let client = peer.session.borrow().client().clone();
        let tell = tell(rules);
        let unfinished = reactor.unfinished();
        tokio::task::spawn_local(async move {
            broker.leave(&channel, &client, tell).await;
            drop(unfinished);
        });
    }
}

fn tell(rules: &Namespace) -> Tell {
    if rules.join_leave { Tell::Subscribers } else { Tell::Nobody }
}

fn perform(reactor: &Rc<Reactor>, peer: &Rc<Peer>, task: Task) {
    let node = reactor.node.clone();
    let work = {
        let session = peer.session.borrow();
        let caller = session.grant().map(caller);
        async move {
            match task {
                Task::Publish { channel, rules, data, info, key } => {
                    let publication = Publication { data: Some(data), ..Publication::default() };
                    publish_as(&node, &info, &channel, &rules, publication, key).await.map(|_| Done::Published)
                }
                Task::History { rules, request } => history(&node, &rules, request).await,
                Task::Presence(channel) => presence(&node, &channel).await,
                Task::PresenceStats(channel) => presence_stats(&node, &channel).await,
                Task::Rpc(rpc) => call(&node, caller, rpc).await,
            }
        }
    };
    answer(reactor, peer, work, |peer, answer, reactor| {
        if let Ok(Done::Published) = answer {
            // The publisher's own publication is on its way through the hub: it comes first.
            while reactor.take_deliveries() {}
        }
        peer.session.borrow_mut().handle_done(answer, reactor.node.now());
    });
}

/// Who calls, with the display name that the login or token gives.
pub(crate) fn caller(grant: &talewire_proto::Grant) -> Caller {
    #[derive(serde::Deserialize)]
    struct Info {
        name: String,
    }
    let name = grant.info.as_ref().and_then(|info| info.read::<Info>().ok()).map(|info| info.name);
    // Logins have checked theirs; a token of another system may say anything.
    let name = name.and_then(|name| display_name(&name).ok());
    let name = name.or_else(|| display_name(&grant.user.as_str().chars().take(40).collect::<String>()).ok());
    Caller { user: grant.user.clone(), name: name.unwrap_or_else(|| "somebody".to_owned()) }
}

async fn call(node: &Node, caller: Option<Caller>, rpc: Rpc) -> Result<Done, Refused> {
    // The use cases are for people with an id; to the anonymous this server offers no methods.
    let Some(caller) = caller.filter(|caller| !caller.user.is_anonymous()) else {
        return Err(ErrorCode::NotAvailable.into());
    };
    node.stories.call(&caller, &rpc.method, &rpc.data).await.map(Done::Rpc).map_err(refused)
}

pub(crate) fn refused(refusal: talewire_story::Refusal) -> Refused {
    Refused { code: refusal.code, message: Some(refusal.message) }
}

/// A publication on its way in, allowed by the rules.
pub(crate) struct Publishing<'a> {
    pub(crate) channel: &'a Channel,
    pub(crate) rules: &'a Namespace,
    /// Its time is set here.
    pub(crate) publication: Publication,
    pub(crate) key: Option<Key>,
    pub(crate) version: Option<Version>,
}

/// What publishing came to.
pub(crate) struct Kept {
    pub(crate) position: Position,
    /// Nothing was added: the same key had been published before.
    pub(crate) repeated: bool,
    /// Nothing was added: the channel already had this version or a newer one.
    pub(crate) skipped: bool,
}

/// Publishes what somebody says who is allowed to, at the rate that the namespace gives them.
pub(crate) async fn publish_as(
    node: &Node,
    info: &ClientInfo,
    channel: &Channel,
    rules: &Namespace,
    publication: Publication,
    key: Option<String>,
) -> Result<Kept, Refused> {
    if !node.rates.take(channel.namespace(), rules, info, node.now().mono_ms) {
        node.metrics.publication_refused("rate");
        return Err(ErrorCode::TooManyRequests.into());
    }
    let key = key.map(|key| Key { user: whose_key(info), key });
    let publication = Publication { info: Some(info.clone()), ..publication };
    publish(node, Publishing { channel, rules, publication, key, version: None }).await
}

/// Whose an idempotency key is: the user's. The anonymous share theirs, since one who comes back is not known; the empty user is the
/// server API, whose keys are nobody else's.
fn whose_key(info: &ClientInfo) -> UserId {
    if info.user.is_anonymous() { "anonymous".parse().expect("a user id") } else { info.user.clone() }
}

/// Publishes as the channel's kind promises, and acknowledges only then. What sessions, `/app` and `/api` share.
pub(crate) async fn publish(node: &Node, mut publishing: Publishing<'_>) -> Result<Kept, Refused> {
    let followed = node.traces.as_ref().and_then(|traces| Some((traces, traces.publish()?)));
    publishing.publication.trace = followed.as_ref().map(|(_, begun)| begun.trace);
    let channel = publishing.channel;
    let kept = keep(node, publishing).await;
    if let Some((traces, begun)) = &followed {
        traces.end(begun, channel, kept.is_ok());
    }
    kept
}

async fn keep(node: &Node, publishing: Publishing<'_>) -> Result<Kept, Refused> {
    let Publishing { channel, rules, mut publication, key, version } = publishing;
    publication.time_ms = unix_ms();
    if let (Some(_), Some(data)) = (&rules.schema, &publication.data) {
        node.rules().check(channel, data).inspect_err(|_| node.metrics.publication_refused("schema"))?;
    }
    node.metrics.publications.inc();
    match rules.kind {
        // Nothing is kept that a version could be compared with.
        Kind::Signal if version.is_some() => Err(ErrorCode::NotAvailable.into()),
        Kind::Signal => {
            node.broker.signal(channel, publication).await.map_err(|_| ErrorCode::Unavailable)?;
            Ok(Kept { position: Position::default(), repeated: false, skipped: false })
        }
        Kind::History => {
            let publish = talewire_broker::Publish { publication, key, version };
            let published = node.broker.publish(channel, rules, publish).await;
            let published = published.map_err(|error| talewire_hub::HubError::from(error).code())?;
            Ok(Kept { position: published.position, repeated: published.repeated, skipped: published.skipped })
        }
        Kind::Durable => {
            let key = key.map(|Key { user, key }| talewire_store::Key { user, key });
            let append = talewire_store::Append { channel: channel.clone(), publication, key, version };
            let appended = node.store.append(append).await.map_err(|error| {
                tracing::warn!(%channel, %error, "a publication was not kept");
                ErrorCode::Unavailable
            })?;
            let skipped = appended.entry.is_none();
            if let Some(entry) = appended.entry.filter(|_| !appended.repeated) {
                node.broker.announce(channel, &appended.position.epoch, entry).await;
            }
            Ok(Kept { position: appended.position, repeated: appended.repeated, skipped })
        }
        Kind::Generation => Err(ErrorCode::PermissionDenied.into()),
    }
}

/// Who is subscribed.
pub(crate) async fn presence(node: &Node, channel: &Channel) -> Result<Done, Refused> {
    node.broker.presence(channel).await.map(Done::Presence).map_err(|_| ErrorCode::Unavailable.into())
}

/// How many are subscribed.
pub(crate) async fn presence_stats(node: &Node, channel: &Channel) -> Result<Done, Refused> {
    let stats = node.broker.presence_stats(channel).await.map_err(|_| ErrorCode::Unavailable)?;
    Ok(Done::PresenceStats { clients: stats.clients, users: stats.users })
}

/// Reads history, from either end or from a position on. `limit` is cut to what the server gives by whoever asks.
pub(crate) async fn history(node: &Node, rules: &Namespace, request: History) -> Result<Done, Refused> {
    let History { channel, limit, since, reverse } = request;
    let entries_max = usize::try_from(limit).unwrap_or(0);
    let bytes_max = node.limits().history_bytes_max;
    let from = match (&since, reverse) {
        (Some(position), _) => Since::After(position.offset),
        (None, false) => Since::Oldest,
        (None, true) => Since::Newest,
    };
    let (entries, top) = if rules.kind == Kind::Durable {
        use talewire_store::Direction::{Backward, Forward};
        let direction = if reverse { Backward } else { Forward };
        let page = node.store.history(&channel, from, entries_max, bytes_max, direction).await;
        let page = page.map_err(|_| ErrorCode::Unavailable)?;
        (page.entries, page.top)
    } else {
        use talewire_broker::Direction::{Backward, Forward};
        let direction = if reverse { Backward } else { Forward };
        let limit = PageLimit { entries: entries_max, bytes: bytes_max };
        let page = node.broker.history(&channel, rules, from, direction, limit).await;
        let page = page.map_err(|_| ErrorCode::Unavailable)?;
        (page.entries, page.top)
    };
    if since.is_some_and(|position| !position.epoch.is_empty() && position.epoch != top.epoch) {
        return Err(ErrorCode::UnrecoverablePosition.into());
    }
    Ok(Done::History { entries, top })
}

/// The text of a generation so far, as a subscriber gets it.
pub(crate) async fn snapshot(node: &Node, channel: &Channel) -> Option<Payload> {
    let rules = node.rules_of(channel).ok()?;
    let limit = PageLimit { entries: 0, bytes: 0 };
    node.hub.recover(channel, &rules, None, limit).await.ok()?.result.data
}

/// A page that an outbox has room for: there will be another when it is written.
fn page_for_outbox(node: &Node) -> PageLimit {
    let limits = node.limits();
    let bytes = limits.history_bytes_max.min(node.hub.settings().outbox_bytes_max);
    PageLimit { entries: limits.history_entries_max, bytes }
}

/// Reads what a slow connection missed and gives it to the shard.
pub(crate) fn catch_up(reactor: &Rc<Reactor>, peer: &Rc<Peer>, missed: Missed) {
    let limit = page_for_outbox(&reactor.node);
    let (reactor, peer) = (reactor.clone(), peer.clone());
    tokio::task::spawn_local(async move {
        let answer = reactor.node.hub.catch_up(&missed, limit).await;
        if peer.gone.get() {
            return;
        }
        let answer = answer.map_err(|error| {
            tracing::warn!(channel = %missed.channel, %error, "a slow reader could not catch up yet");
        });
        reactor.shard.borrow_mut().caught_up(peer.key, &missed.channel, answer);
        reactor.flush();
    });
}
