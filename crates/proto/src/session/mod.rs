//! The session: one connection's protocol state, as a machine that a test can hold.
//!
//! The world comes in by `handle_*` methods, each with the time as an argument; what is to be done comes out by
//! [`Session::poll_output`] as values of one closed enum, and when to call again by [`Session::poll_deadline`]. The
//! session does nothing itself: a token to verify, a role to look up or a channel to join leaves as an [`Output`] and
//! comes back as an answer. One command is carried out at a time, in the order they came; replies carry its id.

mod clock;
mod exchange;
mod opening;
mod outputs;
mod rate;
mod subscriptions;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::channel::Channel;
use crate::codec::Codec;
use crate::codes::{CloseCode, ErrorCode, UnsubscribeCode};
use crate::command::{Body, Command, Connect, History, Publish, Recover, Rpc, Subscribe, Token, Wanted};
use crate::filter::Filter;
use crate::grant::{Grant, SubscriptionGrant, TokenVerdict};
use crate::ids::ClientId;
use crate::limits::Limits;
use crate::namespace::{Action, Namespace, Namespaces, Recovery, Subscribed, Verdict};
use crate::payload::Payload;
use crate::publication::{ClientInfo, Position};
use crate::reply::{ConnectResult, Push, Reply, SubscribeResult};

pub use crate::reply::Refused;
pub use clock::Now;
use opening::{Making, Opening};
pub use outputs::{Anonymous, Done, Join, Mode, Output, RoleNeeded, SessionStart, Task};
use rate::Rate;
use subscriptions::{Subscription, Subscriptions};

/// One connection's protocol state.
pub struct Session {
    client: ClientId,
    anonymous: Anonymous,
    limits: Arc<Limits>,
    namespaces: Namespaces,
    phase: Phase,
    /// Boxed, because a silent connection has none.
    current: Option<Box<Current>>,
    /// What the command under way makes is to end as soon as it is made.
    leaving: Option<Box<(Channel, UnsubscribeCode)>>,
    waiting: VecDeque<Command>,
    subscriptions: Subscriptions,
    outputs: VecDeque<Output>,
    rate: Rate,
    keepalive: clock::KeepAlive,
    mode: Mode,
    /// Channels that the server, not the client, wants it subscribed to; made before the next command.
    wanted: VecDeque<Wanted>,
}

/// What counts until somebody has said who they are.
struct Newcomer {
    deadline_ms: u64,
    login: Option<Grant>,
    /// Told once, in the answer to `connect`.
    emulation: Option<(String, String)>,
}

enum Phase {
    /// Nobody has said who they are.
    New(Box<Newcomer>),
    /// Connected.
    Open(Box<Open>),
    /// Closing; nothing is taken or said any more.
    Closed,
}

struct Open {
    grant: Grant,
    info: Arc<ClientInfo>,
    /// When the token runs out, on the monotonic clock, grace included.
    expires_ms: Option<u64>,
}

/// The command that is being carried out, and what is awaited.
struct Current {
    id: u32,
    step: Step,
}

enum Step {
    /// The token of `connect` is being verified; these channels come with it.
    Connecting(Vec<Wanted>),
    /// The token of `refresh` is being verified.
    Refreshing,
    /// A subscription token is being verified.
    SubscriptionToken(Box<Subscribe>, Arc<Namespace>),
    /// A subscription token is being verified for a subscription that stands.
    SubRefreshing(Channel),
    /// A role is being looked up for a subscription.
    RoleToSubscribe(Box<Subscribe>, Arc<Namespace>),
    /// A role is being looked up for a task.
    RoleToPerform(Task),
    /// A channel is being joined.
    Joining(Channel, Subscription, MustRecover),
    /// A task is being carried out.
    Performing,
    /// The channels that come with the connection are being joined, one after another.
    Opening(Box<Opening>),
    /// The server makes a subscription.
    ServerJoining(Box<Making>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MustRecover {
    Yes,
    No,
}

/// The method that changes the filter of a subscription: `{channel, events?, tf?}`; with neither, everything goes through.
pub const SET_FILTER: &str = "channel.filter";

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SetFilter {
    channel: Channel,
    #[serde(default)]
    events: Option<Vec<String>>,
    #[serde(default)]
    tf: Option<crate::filter::Node>,
}

impl SetFilter {
    fn read(params: &Payload) -> Option<(Channel, Option<Arc<Filter>>)> {
        let Self { channel, events, tf } = params.read().ok()?;
        let events = events.map(|events| Filter::events(events.iter().map(String::as_str))).transpose().ok()?;
        let tags = tf.map(Filter::of).transpose().ok()?;
        let filter = match (events, tags) {
            (Some(events), Some(tags)) => Some(Filter::All(vec![events, tags])),
            (events, tags) => events.or(tags),
        };
        Some((channel, filter.map(Arc::new)))
    }
}

impl Session {
    /// A session whose transport has just opened.
    #[must_use]
    pub fn new(start: SessionStart, now: Now) -> Self {
        let deadline_ms = now.mono_ms + start.limits.connect_deadline_ms;
        let newcomer = Newcomer { deadline_ms, login: start.login, emulation: start.emulation };
        Self {
            rate: Rate::new(start.limits.command_burst, start.limits.commands_per_second, now),
            keepalive: clock::KeepAlive::new(start.mode, &start.limits, start.seed),
            client: start.client,
            anonymous: start.anonymous,
            limits: start.limits,
            namespaces: start.namespaces,
            phase: Phase::New(Box::new(newcomer)),
            current: None,
            leaving: None,
            waiting: VecDeque::new(),
            subscriptions: Subscriptions::default(),
            outputs: VecDeque::new(),
            mode: start.mode,
            wanted: VecDeque::new(),
        }
    }

    /// The connection's id.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        &self.client
    }

    /// The grant, once connected.
    #[must_use]
    pub fn grant(&self) -> Option<&Grant> {
        if let Phase::Open(open) = &self.phase { Some(&open.grant) } else { None }
    }

    /// Whether the socket may be read: false while enough commands wait, and after closing.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !matches!(self.phase, Phase::Closed) && self.waiting.len() < self.limits.commands_waiting_max
    }

    /// Whether a command is being carried out, or waits for its turn.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.current.is_some() || !self.waiting.is_empty()
    }

    /// What to do next; call until it gives nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() {
            // A silent connection keeps no queues.
            self.outputs = VecDeque::new();
        }
        output
    }

    /// When to call [`Session::handle_deadline`], on the monotonic clock in milliseconds.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<u64> {
        match &self.phase {
            Phase::New(newcomer) => Some(newcomer.deadline_ms),
            Phase::Open(open) => {
                let token = open.expires_ms;
                [self.keepalive.deadline_ms(), token, self.subscriptions.next_expiry_ms()].into_iter().flatten().min()
            }
            Phase::Closed => None,
        }
    }

    /// A whole frame of JSON came in.
    pub fn handle_frame(&mut self, frame: &[u8], now: Now) {
        self.handle_bytes(Codec::Json, frame, now);
    }

    /// A whole frame came in, by this codec.
    pub fn handle_bytes(&mut self, codec: Codec, frame: &[u8], now: Now) {
        match codec.decode_frame(frame, &self.limits) {
            Ok(commands) => self.handle_commands(commands, now),
            Err(code) => self.close(code),
        }
    }

    /// Commands came in, by whatever codec.
    pub fn handle_commands(&mut self, commands: Vec<Command>, now: Now) {
        for command in commands {
            if matches!(self.phase, Phase::Closed) {
                return;
            }
            // Answers to pings overtake what waits, or a slow command would look like a dead peer.
            if command.id == 0 && command.body == Ok(Body::Pong) {
                self.handle_pong();
            } else if self.take_rate(&command, now) {
                self.waiting.push_back(command);
            }
        }
        self.go_on(now);
    }

    /// What the command under way waits for next.
    fn wait_for(&mut self, id: u32, step: Step) {
        self.current = Some(Box::new(Current { id, step }));
    }

    fn take_current(&mut self) -> Option<Current> {
        self.current.take().map(|current| *current)
    }

    fn handle_pong(&mut self) {
        if !matches!(self.phase, Phase::Open(_)) || !self.keepalive.pong() {
            self.close(CloseCode::BadRequest);
        }
    }

    /// Whether the command is within the rate; if not, it has been answered.
    fn take_rate(&mut self, command: &Command, now: Now) -> bool {
        if self.rate.take(now) {
            return true;
        }
        if self.rate.refusals() > self.limits.refusals_max {
            self.close(CloseCode::TooManyRequests);
        } else if command.id > 0 && matches!(self.phase, Phase::Open(_)) {
            self.error(command.id, ErrorCode::TooManyRequests);
        } else {
            self.close(CloseCode::TooManyRequests);
        }
        false
    }

    /// Starts the next command if none is being carried out.
    fn go_on(&mut self, now: Now) {
        if self.current.is_none()
            && let Some(leaving) = self.leaving.take()
        {
            self.drop_subscription(&leaving.0, leaving.1, None);
        }
        while self.current.is_none() && !matches!(self.phase, Phase::Closed) {
            if let Some(wanted) = self.wanted.pop_front() {
                self.join_for_server(wanted);
                continue;
            }
            let Some(Command { id, body }) = self.waiting.pop_front() else {
                self.waiting = VecDeque::new();
                return;
            };
            let body = match body {
                Ok(body) => body,
                Err(code) if id > 0 && matches!(self.phase, Phase::Open(_)) => {
                    self.error(id, code);
                    continue;
                }
                Err(_) => return self.close(CloseCode::BadRequest),
            };
            if let Body::Send = body {
                return self.close(CloseCode::NotAvailable);
            }
            if self.mode != Mode::Duplex
                && matches!(body, Body::Subscribe(_) | Body::Unsubscribe { .. } | Body::SubRefresh { .. })
            {
                // Its channels stand in its address, and so do the positions that it comes back with.
                self.error(id, ErrorCode::NotAvailable);
                continue;
            }
            if id == 0 {
                return self.close(CloseCode::BadRequest);
            }
            match (&self.phase, body) {
                (Phase::New(_), Body::Connect(connect)) => self.connect(id, connect, now),
                (Phase::New(_), _) | (_, Body::Connect(_) | Body::Pong | Body::Send) => {
                    return self.close(CloseCode::BadRequest);
                }
                (_, Body::Subscribe(request)) => self.subscribe(id, request),
                (_, Body::Unsubscribe { channel }) => self.unsubscribe(id, &channel),
                (_, Body::Publish(request)) => self.publish(id, request),
                (_, Body::Presence { channel }) => {
                    self.ask(id, Action::Presence, channel, |channel, _| Task::Presence(channel));
                }
                (_, Body::PresenceStats { channel }) => {
                    self.ask(id, Action::Presence, channel, |channel, _| Task::PresenceStats(channel));
                }
                (_, Body::History(request)) => self.history(id, request),
                (_, Body::Rpc(rpc)) => self.rpc(id, rpc),
                (_, Body::Refresh { token }) => self.refresh(id, token),
                (_, Body::SubRefresh { channel, token }) => self.sub_refresh(id, channel, token),
            }
        }
    }

    fn connect(&mut self, id: u32, connect: Connect, now: Now) {
        let Connect { token, subs, .. } = connect;
        self.wait_for(id, Step::Connecting(subs));
        if !token.0.is_empty() {
            return self.outputs.push_back(Output::Verify(token));
        }
        let login = if let Phase::New(newcomer) = &mut self.phase { newcomer.login.take() } else { None };
        let grant = match (login, self.anonymous) {
            (Some(login), _) => login,
            (None, Anonymous::Allowed | Anonymous::Insecure) => Grant::default(),
            (None, Anonymous::Refused) => {
                self.error(id, ErrorCode::Unauthorized);
                return self.close(CloseCode::PermissionDenied);
            }
        };
        self.handle_verified(TokenVerdict::Good(grant), now);
    }

    /// The answer to [`Output::Verify`].
    pub fn handle_verified(&mut self, verdict: TokenVerdict<Grant>, now: Now) {
        let Some(current) = self.take_current() else { return };
        match (current.step, verdict) {
            (Step::Connecting(wanted), TokenVerdict::Good(grant)) => self.open(current.id, grant, wanted, now),
            (Step::Connecting(_), TokenVerdict::Expired) => {
                // A reply and then a close that lets the client come again, with a new token.
                self.error(current.id, ErrorCode::TokenExpired);
                self.close(CloseCode::Normal);
            }
            (Step::Connecting(_), TokenVerdict::Unknown) => {
                self.error(current.id, ErrorCode::Unavailable);
                self.close(CloseCode::Unavailable);
            }
            (Step::Refreshing, TokenVerdict::Unknown) => self.error(current.id, ErrorCode::Unavailable),
            (Step::Connecting(_) | Step::Refreshing, TokenVerdict::Bad) => self.close(CloseCode::InvalidToken),
            (Step::Refreshing, TokenVerdict::Expired) => self.close(CloseCode::Expired),
            (Step::Refreshing, TokenVerdict::Good(grant)) => self.refreshed(current.id, grant, now),
            (step, _) => self.wait_for(current.id, step),
        }
        self.go_on(now);
    }

    fn open(&mut self, id: u32, mut grant: Grant, wanted: Vec<Wanted>, now: Now) {
        grant.insecure |= self.anonymous == Anonymous::Insecure;
        let Some(expiry) = clock::expiry(grant.expires_at_ms, self.limits.expiry_grace_ms, now) else {
            self.error(id, ErrorCode::TokenExpired);
            return self.close(CloseCode::Normal);
        };
        let info = ClientInfo {
            user: grant.user.clone(),
            client: Some(self.client.clone()),
            conn_info: grant.info.clone(),
            chan_info: None,
        };
        let wanted = self.all_wanted(&grant, wanted);
        if wanted.len() > self.limits.subscriptions_max {
            return self.close(CloseCode::ChannelLimit);
        }
        let emulation = if let Phase::New(newcomer) = &mut self.phase { newcomer.emulation.take() } else { None };
        self.phase = Phase::Open(Box::new(Open { grant, info: Arc::new(info), expires_ms: expiry.deadline_ms }));
        let (session, node) = emulation.map(|(session, node)| (Token(session), node)).unzip();
        let pings = matches!(self.mode, Mode::Duplex | Mode::Down);
        let ping_s = u32::try_from(self.limits.ping_interval_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
        let result = ConnectResult {
            client: self.client.clone(),
            ttl_s: expiry.ttl_s,
            ping_s: if pings { ping_s } else { 0 },
            pong: self.mode == Mode::Duplex,
            time_ms: now.unix_ms,
            subs: BTreeMap::new(),
            refused: Vec::new(),
            session,
            node,
        };
        if wanted.is_empty() {
            // The usual case keeps no list.
            return self.opened(id, result, now);
        }
        self.open_next(id, Box::new(Opening::new(result, wanted)), now);
    }

    fn opened(&mut self, id: u32, result: ConnectResult, now: Now) {
        self.keepalive.start(now);
        self.outputs.push_back(Output::Send(Reply::Connect { id, result }));
        self.look_at_all_rules();
    }

    fn refresh(&mut self, id: u32, token: Token) {
        if token.0.is_empty() {
            return self.error(id, ErrorCode::BadRequest);
        }
        self.wait_for(id, Step::Refreshing);
        self.outputs.push_back(Output::Verify(token));
    }

    fn refreshed(&mut self, id: u32, mut grant: Grant, now: Now) {
        let Phase::Open(open) = &mut self.phase else { return };
        if grant.user != open.grant.user {
            return self.close(CloseCode::InvalidToken);
        }
        let Some(expiry) = clock::expiry(grant.expires_at_ms, self.limits.expiry_grace_ms, now) else {
            return self.error(id, ErrorCode::Expired);
        };
        grant.insecure = open.grant.insecure;
        open.grant = grant;
        open.expires_ms = expiry.deadline_ms;
        self.outputs.push_back(Output::Send(Reply::Refresh { id, client: self.client.clone(), ttl_s: expiry.ttl_s }));
    }

    /// The rules of a channel and what they say; answers by itself what needs nobody else.
    fn judge(&mut self, id: u32, action: Action, channel: &Channel) -> Option<(Arc<Namespace>, Verdict)> {
        let Phase::Open(open) = &self.phase else { return None };
        let subscribed = if self.subscriptions.contains(channel) { Subscribed::Yes } else { Subscribed::No };
        let judged = self
            .namespaces
            .of(channel)
            .map(|rules| (rules.clone(), rules.verdict(action, channel, &open.grant, subscribed)));
        match judged {
            Ok((_, Verdict::Refused(code))) | Err(code) => {
                self.error(id, code);
                None
            }
            Ok(judged) => Some(judged),
        }
    }

    fn subscribe(&mut self, id: u32, request: Subscribe) {
        if self.subscriptions.contains(&request.channel) {
            return self.error(id, ErrorCode::AlreadySubscribed);
        }
        if self.subscriptions.len() >= self.limits.subscriptions_max {
            return self.error(id, ErrorCode::LimitExceeded);
        }
        let Some((rules, verdict)) = self.judge(id, Action::Subscribe, &request.channel) else { return };
        let request = Box::new(request);
        match verdict {
            Verdict::Allowed if request.token.0.is_empty() => self.join(id, *request, rules, None),
            // A token that is shown is verified even where none is needed: it may carry info and an expiry.
            Verdict::Allowed | Verdict::NeedsToken if !request.token.0.is_empty() => {
                self.outputs.push_back(Output::VerifySubscription(request.token.clone()));
                self.wait_for(id, Step::SubscriptionToken(request, rules));
            }
            Verdict::Allowed | Verdict::NeedsToken | Verdict::Refused(_) => self.error(id, ErrorCode::PermissionDenied),
            Verdict::AskMember | Verdict::AskWriter => {
                self.ask_role(&request.channel, verdict);
                self.wait_for(id, Step::RoleToSubscribe(request, rules));
            }
        }
    }

    fn ask_role(&mut self, channel: &Channel, verdict: Verdict) {
        let role = if verdict == Verdict::AskWriter { RoleNeeded::Writer } else { RoleNeeded::Member };
        self.outputs.push_back(Output::AskRole { channel: channel.clone(), role });
    }

    fn join(&mut self, id: u32, request: Subscribe, rules: Arc<Namespace>, grant: Option<SubscriptionGrant>) {
        let Phase::Open(open) = &self.phase else { return };
        let chan_info = grant.as_ref().and_then(|grant| grant.info.clone());
        let info = if chan_info.is_some() {
            Arc::new(ClientInfo { chan_info, ..(*open.info).clone() })
        } else {
            open.info.clone()
        };
        let subscription = Subscription::new(rules.clone(), info.clone(), grant.and_then(|grant| grant.expires_at_ms));
        let must = if request.must_recover { MustRecover::Yes } else { MustRecover::No };
        self.outputs.push_back(Output::Subscribe(Join {
            channel: request.channel.clone(),
            recover: request.recover.filter(|_| rules.is_recoverable()).map(Recover::After),
            join_leave: request.join_leave && rules.join_leave,
            filter: request.filter,
            echo: rules.echo,
            rules,
            info,
        }));
        self.wait_for(id, Step::Joining(request.channel, subscription, must));
    }

    /// The answer to [`Output::VerifySubscription`].
    pub fn handle_subscription_verified(&mut self, verdict: TokenVerdict<SubscriptionGrant>, now: Now) {
        let Some(Current { id, step }) = self.take_current() else { return };
        let Phase::Open(open) = &self.phase else { return };
        let user = open.grant.user.clone();
        match step {
            Step::SubscriptionToken(request, rules) => match verdict {
                TokenVerdict::Good(grant) if grant.user != user || grant.channel != request.channel => {
                    self.close(CloseCode::InvalidToken);
                }
                TokenVerdict::Good(grant) => self.join(id, *request, rules, Some(grant)),
                TokenVerdict::Expired => self.error(id, ErrorCode::TokenExpired),
                TokenVerdict::Bad => self.error(id, ErrorCode::PermissionDenied),
                TokenVerdict::Unknown => self.error(id, ErrorCode::Unavailable),
            },
            Step::SubRefreshing(channel) => match verdict {
                TokenVerdict::Good(grant) if grant.user == user && grant.channel == channel => {
                    self.sub_refreshed(id, &channel, &grant, now);
                }
                TokenVerdict::Good(_) | TokenVerdict::Bad => self.close(CloseCode::InvalidToken),
                TokenVerdict::Unknown => self.error(id, ErrorCode::Unavailable),
                TokenVerdict::Expired => {
                    self.error(id, ErrorCode::TokenExpired);
                    self.handle_dropped(&channel, UnsubscribeCode::Expired);
                }
            },
            step => self.wait_for(id, step),
        }
        self.go_on(now);
    }

    /// The answer to [`Output::AskRole`]: whether the user has the role, or why that is not known.
    pub fn handle_role(&mut self, answer: Result<bool, Refused>, now: Now) {
        let Some(Current { id, step }) = self.take_current() else { return };
        let answer = answer.and_then(|has| if has { Ok(()) } else { Err(ErrorCode::PermissionDenied.into()) });
        match (answer, step) {
            (Err(refused), Step::RoleToSubscribe(..) | Step::RoleToPerform(_)) => self.refuse(id, refused),
            (Ok(()), Step::RoleToSubscribe(request, rules)) => self.join(id, *request, rules, None),
            (Ok(()), Step::RoleToPerform(task)) => self.perform(id, task),
            (answer, Step::Opening(opening)) => self.opening_role(id, opening, answer, now),
            (_, step) => self.wait_for(id, step),
        }
        self.go_on(now);
    }

    /// Whether the session still waits for [`Output::Subscribe`] of this channel: not after it has closed.
    #[must_use]
    pub fn is_joining(&self, channel: &Channel) -> bool {
        let joining = match self.current.as_ref().map(|current| &current.step) {
            Some(Step::Joining(joining, ..)) => Some(joining),
            Some(Step::Opening(opening)) => opening.joining(),
            Some(Step::ServerJoining(making)) => Some(&making.channel),
            _ => None,
        };
        joining == Some(channel)
    }

    /// The answer to [`Output::Subscribe`]. When it is `Ok`, the reply is among the outputs before this returns, so that
    /// whoever drives the session can let publications flow right after it.
    pub fn handle_subscribed(&mut self, answer: Result<SubscribeResult, Refused>, now: Now) {
        let Some(Current { id, step }) = self.take_current() else { return };
        match step {
            Step::Joining(channel, subscription, must) => self.joined(id, channel, subscription, must, answer, now),
            Step::Opening(opening) => self.opening_joined(id, opening, answer, now),
            Step::ServerJoining(making) => self.server_joined(*making, answer),
            step => self.wait_for(id, step),
        }
        self.go_on(now);
    }

    fn joined(
        &mut self,
        id: u32,
        channel: Channel,
        mut subscription: Subscription,
        must: MustRecover,
        answer: Result<SubscribeResult, Refused>,
        now: Now,
    ) {
        match answer {
            Err(refused) => self.refuse(id, refused),
            Ok(result) if must == MustRecover::Yes && result.was_recovering && !result.recovered => {
                self.outputs.push_back(Output::Unsubscribe { channel, rules: subscription.rules });
                self.error(id, ErrorCode::UnrecoverablePosition);
            }
            Ok(mut result) => match clock::expiry(subscription.expires_at_ms, self.limits.expiry_grace_ms, now) {
                None => {
                    self.outputs.push_back(Output::Unsubscribe { channel, rules: subscription.rules });
                    self.error(id, ErrorCode::TokenExpired);
                }
                Some(expiry) => {
                    subscription.expires_ms = expiry.deadline_ms;
                    result.ttl_s = expiry.ttl_s;
                    self.subscriptions.insert(channel.clone(), subscription);
                    self.outputs.push_back(Output::Send(Reply::Subscribe { id, result }));
                    self.look_at_rules(&channel);
                }
            },
        }
    }

    /// The hub can no longer serve a subscription: its history was broken off. `at` is where a reader without a protocol stands in it,
    /// if that is known: it goes on from there, where nothing is lost.
    pub fn handle_broken(&mut self, channel: &Channel, at: Option<Position>) {
        self.drop_subscription(channel, UnsubscribeCode::InsufficientState, at);
    }

    /// A right was taken away, or somebody asked for a subscription's end.
    /// One that is just being made ends when it is made.
    pub fn handle_dropped(&mut self, channel: &Channel, code: UnsubscribeCode) {
        self.wanted.retain(|wanted| wanted.channel != *channel);
        if self.is_subscribing(channel) {
            self.leaving = Some(Box::new((channel.clone(), code)));
        }
        self.drop_subscription(channel, code, None);
    }

    /// Whether the command under way may end in a subscription to this channel. (What comes with the connection is not known to anybody yet.)
    fn is_subscribing(&self, channel: &Channel) -> bool {
        match self.current.as_ref().map(|current| &current.step) {
            Some(Step::SubscriptionToken(request, _) | Step::RoleToSubscribe(request, _)) => {
                request.channel == *channel
            }
            Some(Step::Joining(joining, ..)) => joining == channel,
            Some(Step::ServerJoining(making)) => making.channel == *channel,
            _ => false,
        }
    }

    fn drop_subscription(&mut self, channel: &Channel, code: UnsubscribeCode, at: Option<Position>) {
        let Some(subscription) = self.subscriptions.remove(channel) else { return };
        let by_server = subscription.by_server();
        let judged_elsewhere = subscription.rules.platform;
        // Where the newest entry alone counts, it is what the reader goes on with.
        let is_latest = subscription.rules.recovery == Recovery::Latest;
        self.outputs.push_back(Output::Unsubscribe { channel: channel.clone(), rules: subscription.rules });
        match (self.mode, code) {
            // A reader without subscriptions cannot subscribe again: it is told of the gap and goes on.
            (Mode::Events | Mode::Poll, UnsubscribeCode::InsufficientState) if !judged_elsewhere => {
                let filter = subscription.filter;
                let at = if is_latest { Some(Position::default()) } else { at };
                let recover = at.map(Recover::After);
                self.wanted.push_back(Wanted { filter, recover, ..Wanted::new(channel.clone()) });
            }
            // Nor can a client subscribe again by itself to what the server has subscribed it to: it comes back as a whole.
            (_, UnsubscribeCode::InsufficientState) if by_server => self.close(CloseCode::InsufficientState),
            (_, UnsubscribeCode::Expired) if by_server => self.close(CloseCode::SubscriptionExpired),
            _ => {
                let push = Push::Unsubscribe(code);
                self.outputs.push_back(Output::Send(Reply::Push { channel: channel.clone(), push }));
            }
        }
    }

    fn unsubscribe(&mut self, id: u32, channel: &Channel) {
        if let Some(subscription) = self.subscriptions.remove(channel) {
            self.outputs.push_back(Output::Unsubscribe { channel: channel.clone(), rules: subscription.rules });
        }
        self.outputs.push_back(Output::Send(Reply::Unsubscribe { id }));
    }

    fn publish(&mut self, id: u32, request: Publish) {
        let Publish { channel, data, key } = request;
        if !self.limits.takes_key(&key) {
            return self.error(id, ErrorCode::BadRequest);
        }
        let Some((rules, verdict)) = self.judge(id, Action::Publish, &channel) else { return };
        if data.len() > rules.publication_bytes_max {
            return self.error(id, ErrorCode::LimitExceeded);
        }
        let info = match (self.subscriptions.info(&channel), &self.phase) {
            (Some(info), _) => info,
            (None, Phase::Open(open)) => open.info.clone(),
            (None, _) => return,
        };
        let key = (!key.is_empty()).then_some(key);
        self.judged(id, verdict, &channel.clone(), Task::Publish { channel, rules, data, info, key });
    }

    fn history(&mut self, id: u32, mut request: History) {
        request.limit = self.limits.history_entries(request.limit);
        self.ask(id, Action::History, request.channel.clone(), |_, rules| Task::History { rules, request });
    }

    fn rpc(&mut self, id: u32, rpc: Rpc) {
        if rpc.data.len() > self.limits.rpc_bytes_max {
            return self.error(id, ErrorCode::LimitExceeded);
        }
        if rpc.method == SET_FILTER {
            return self.set_filter(id, &rpc.data);
        }
        self.perform(id, Task::Rpc(rpc));
    }

    /// Changes which publications of a channel a subscriber hears of, without leaving it.
    fn set_filter(&mut self, id: u32, params: &Payload) {
        let Some((channel, filter)) = SetFilter::read(params) else { return self.error(id, ErrorCode::BadRequest) };
        if !self.subscriptions.set_filter(&channel, filter.as_ref()) {
            return self.error(id, ErrorCode::PermissionDenied);
        }
        self.outputs.push_back(Output::SetFilter { channel, filter });
        self.outputs.push_back(Output::Send(Reply::Rpc { id, data: Payload::of(&serde_json::Map::new()) }));
    }

    fn ask(&mut self, id: u32, action: Action, channel: Channel, task: impl FnOnce(Channel, Arc<Namespace>) -> Task) {
        let Some((rules, verdict)) = self.judge(id, action, &channel) else { return };
        self.judged(id, verdict, &channel.clone(), task(channel, rules));
    }

    fn judged(&mut self, id: u32, verdict: Verdict, channel: &Channel, task: Task) {
        match verdict {
            Verdict::Allowed => self.perform(id, task),
            Verdict::AskMember | Verdict::AskWriter => {
                self.ask_role(channel, verdict);
                self.wait_for(id, Step::RoleToPerform(task));
            }
            Verdict::Refused(_) | Verdict::NeedsToken => self.error(id, ErrorCode::PermissionDenied),
        }
    }

    fn perform(&mut self, id: u32, task: Task) {
        self.wait_for(id, Step::Performing);
        self.outputs.push_back(Output::Perform(task));
    }

    /// The answer to [`Output::Perform`].
    pub fn handle_done(&mut self, answer: Result<Done, Refused>, now: Now) {
        let Some(Current { id, step }) = self.take_current() else { return };
        if !matches!(step, Step::Performing) {
            return self.wait_for(id, step);
        }
        match answer {
            Err(refused) => self.refuse(id, refused),
            Ok(done) => self.outputs.push_back(Output::Send(match done {
                Done::Published => Reply::Publish { id },
                Done::History { entries, top } => Reply::History { id, entries, top },
                Done::Presence(clients) => Reply::Presence { id, clients },
                Done::PresenceStats { clients, users } => Reply::PresenceStats { id, clients, users },
                Done::Rpc(data) => Reply::Rpc { id, data },
            })),
        }
        self.go_on(now);
    }

    fn sub_refresh(&mut self, id: u32, channel: Channel, token: Token) {
        if !self.subscriptions.contains(&channel) {
            return self.error(id, ErrorCode::PermissionDenied);
        }
        self.outputs.push_back(Output::VerifySubscription(token));
        self.wait_for(id, Step::SubRefreshing(channel));
    }

    fn sub_refreshed(&mut self, id: u32, channel: &Channel, grant: &SubscriptionGrant, now: Now) {
        match clock::expiry(grant.expires_at_ms, self.limits.expiry_grace_ms, now) {
            None => self.error(id, ErrorCode::Expired),
            Some(expiry) => {
                self.subscriptions.set_expiry(channel, expiry.deadline_ms);
                self.outputs.push_back(Output::Send(Reply::SubRefresh { id, ttl_s: expiry.ttl_s }));
            }
        }
    }

    /// A deadline of [`Session::poll_deadline`] has come.
    pub fn handle_deadline(&mut self, now: Now) {
        match &self.phase {
            Phase::New(newcomer) if newcomer.deadline_ms <= now.mono_ms => self.close(CloseCode::Stale),
            Phase::Open(open) if open.expires_ms.is_some_and(|at| at <= now.mono_ms) => self.close(CloseCode::Expired),
            Phase::Open(_) => {
                for channel in self.subscriptions.expired(now) {
                    self.handle_dropped(&channel, UnsubscribeCode::Expired);
                }
                match self.keepalive.tick(now) {
                    clock::Tick::Nothing => {}
                    clock::Tick::Ping => self.outputs.push_back(Output::Send(Reply::Ping)),
                    clock::Tick::Dead => self.close(CloseCode::NoPong),
                }
                // What has expired may be wanted again from the server's side.
                self.go_on(now);
            }
            Phase::New(_) | Phase::Closed => {}
        }
    }

    /// Instead of a ping that was due, something else was sent lately: the next may come later.
    pub fn handle_busy(&mut self, now: Now) {
        self.keepalive.busy(now);
    }

    /// The server wants the connection subscribed to a channel; refused silently if it is already, or cannot be.
    pub fn handle_wanted(&mut self, wanted: Wanted, now: Now) {
        if matches!(self.phase, Phase::Open(_)) && self.wanted.len() < self.limits.subscriptions_max {
            self.wanted.push_back(wanted);
            self.go_on(now);
        }
    }

    /// Carries on with what [`Session::handle_dropped`] or [`Session::handle_broken`] has put aside.
    pub fn handle_ready(&mut self, now: Now) {
        self.go_on(now);
    }

    /// Sends something to this connection alone.
    pub fn handle_message(&mut self, data: Payload) {
        if matches!(self.phase, Phase::Open(_)) {
            self.outputs.push_back(Output::Send(Reply::Message(data)));
        }
    }

    /// The server says how long the connection may last: until `expires_at_ms` in Unix milliseconds, or for as long as it likes. A
    /// client is not told; one that refreshes its token later sets it anew.
    pub fn handle_lasting(&mut self, expires_at_ms: Option<i64>, now: Now) {
        let Phase::Open(open) = &mut self.phase else { return };
        match clock::expiry(expires_at_ms, self.limits.expiry_grace_ms, now) {
            Some(expiry) => open.expires_ms = expiry.deadline_ms,
            None => self.close(CloseCode::Expired),
        }
    }

    /// Closes from outside: shutdown, a slow reader, an operator.
    pub fn handle_close(&mut self, code: CloseCode) {
        self.close(code);
    }

    /// The transport is gone or going: everything that was joined is to be left.
    pub fn handle_gone(&mut self) {
        self.phase = Phase::Closed;
        self.current = None;
        self.waiting.clear();
        self.outputs.retain(|output| matches!(output, Output::Unsubscribe { .. }));
        self.leave_all();
    }

    fn close(&mut self, code: CloseCode) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        self.phase = Phase::Closed;
        self.current = None;
        self.waiting.clear();
        self.leave_all();
        self.outputs.push_back(Output::Close(code));
    }

    fn leave_all(&mut self) {
        for (channel, subscription) in self.subscriptions.take_all() {
            self.outputs.push_back(Output::Unsubscribe { channel, rules: subscription.rules });
        }
    }

    fn error(&mut self, id: u32, code: ErrorCode) {
        self.refuse(id, code.into());
    }

    fn refuse(&mut self, id: u32, refused: Refused) {
        let code = refused.code;
        if self.mode != Mode::Down {
            let message = refused.message;
            self.outputs.push_back(Output::Send(Reply::Error { id, code, message }));
        }
        // Where there are no replies, or nothing stands yet that could go on, what would be one ends the connection.
        let connecting = matches!(self.phase, Phase::New(_));
        if self.mode == Mode::Down || self.mode == Mode::Events && connecting {
            self.close(opening::close_code(code));
        }
    }
}

#[cfg(test)]
mod tests;
