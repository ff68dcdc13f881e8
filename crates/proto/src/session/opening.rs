//! Channels that come with a connection, and those that the server wants a connection subscribed to: joined one after another,
//! by the same rules as those that a client asks for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::subscriptions::Subscription;
use super::{Join, Mode, Now, Output, Phase, Refused, Session, Step};
use crate::channel::Channel;
use crate::codes::{CloseCode, ErrorCode};
use crate::command::Wanted;
use crate::grant::Grant;
use crate::namespace::{Action, Namespace, Recovery, Subscribed, Verdict};
use crate::payload::Payload;
use crate::publication::ClientInfo;
use crate::reply::{ConnectResult, Push, Reply, SubscribeResult};

/// A connection whose channels are being joined.
pub(super) struct Opening {
    result: ConnectResult,
    waiting: VecDeque<Wanted>,
    current: Turn,
}

/// What is awaited for the channel whose turn it is.
enum Turn {
    Nothing,
    Role(Wanted, Arc<Namespace>),
    Joining(Box<Making>),
}

/// A subscription of the server's making, on its way.
pub(super) struct Making {
    pub(super) channel: Channel,
    subscription: Subscription,
    /// What the client is told with it.
    data: Option<Payload>,
}

impl Opening {
    pub(super) fn new(result: ConnectResult, wanted: Vec<Wanted>) -> Self {
        Self { result, waiting: wanted.into(), current: Turn::Nothing }
    }

    pub(super) fn joining(&self) -> Option<&Channel> {
        if let Turn::Joining(making) = &self.current { Some(&making.channel) } else { None }
    }
}

/// How a connection ends for which a refusal cannot be a reply.
pub(super) fn close_code(code: ErrorCode) -> CloseCode {
    match code {
        ErrorCode::PermissionDenied | ErrorCode::Unauthorized => CloseCode::PermissionDenied,
        ErrorCode::UnknownChannel | ErrorCode::BadRequest | ErrorCode::NotAvailable => CloseCode::BadRequest,
        ErrorCode::LimitExceeded => CloseCode::ChannelLimit,
        // What comes again by itself comes again with the same token.
        ErrorCode::TokenExpired | ErrorCode::Expired => CloseCode::InvalidToken,
        ErrorCode::TooManyRequests => CloseCode::TooManyRequests,
        ErrorCode::Unavailable => CloseCode::Unavailable,
        _ => CloseCode::Internal,
    }
}

impl Session {
    /// The channels that a connection begins with: those of its token, and, where it cannot ask later, those it wants now.
    pub(super) fn all_wanted(&self, grant: &Grant, wanted: Vec<Wanted>) -> Vec<Wanted> {
        let granted = grant.channels.iter().map(|channel| (channel.clone(), Wanted::new(channel.clone())));
        let mut all: BTreeMap<Channel, Wanted> = granted.collect();
        for wanted in wanted {
            if self.mode != Mode::Duplex || all.contains_key(&wanted.channel) {
                all.insert(wanted.channel.clone(), wanted);
            }
        }
        all.into_values().collect()
    }

    /// Goes on with the next channel, or says that the connection stands.
    pub(super) fn open_next(&mut self, id: u32, mut opening: Box<Opening>, now: Now) {
        opening.current = Turn::Nothing;
        while let Some(wanted) = opening.waiting.pop_front() {
            match self.judge_wanted(&wanted.channel) {
                Ok((rules, Verdict::Allowed)) => {
                    opening.current = Turn::Joining(Box::new(self.make(wanted, rules)));
                    self.wait_for(id, Step::Opening(opening));
                    return;
                }
                Ok((rules, verdict @ (Verdict::AskMember | Verdict::AskWriter))) => {
                    self.ask_role(&wanted.channel, verdict);
                    opening.current = Turn::Role(wanted, rules);
                    self.wait_for(id, Step::Opening(opening));
                    return;
                }
                Ok((_, Verdict::Refused(code))) | Err(code) => {
                    if !self.refuse_wanted(id, &mut opening, wanted.channel, code.into()) {
                        return;
                    }
                }
                Ok((_, Verdict::NeedsToken)) => {
                    if !self.refuse_wanted(id, &mut opening, wanted.channel, ErrorCode::PermissionDenied.into()) {
                        return;
                    }
                }
            }
        }
        self.opened(id, opening.result, now);
    }

    /// What the rules say about a channel that the connection's token may name.
    fn judge_wanted(&self, channel: &Channel) -> Result<(Arc<Namespace>, Verdict), ErrorCode> {
        let Phase::Open(open) = &self.phase else { return Err(ErrorCode::Internal) };
        let rules = self.namespaces.of(channel)?.clone();
        let verdict = if open.grant.channels.contains(channel) && !rules.platform {
            Verdict::Allowed
        } else {
            rules.verdict(Action::Subscribe, channel, &open.grant, Subscribed::No)
        };
        Ok((rules, verdict))
    }

    fn make(&mut self, wanted: Wanted, rules: Arc<Namespace>) -> Making {
        let Phase::Open(open) = &self.phase else { unreachable!("channels are joined on open connections alone") };
        let Wanted { channel, recover, filter, join_leave, info: chan_info, data } = wanted;
        let info = match chan_info {
            Some(_) => Arc::new(ClientInfo { chan_info, ..(*open.info).clone() }),
            None => open.info.clone(),
        };
        let subscription = Subscription::of_server(rules.clone(), info.clone(), filter.clone());
        self.outputs.push_back(Output::Subscribe(Join {
            channel: channel.clone(),
            recover: recover.filter(|_| rules.is_recoverable()),
            join_leave: join_leave && rules.join_leave,
            filter,
            echo: rules.echo,
            rules,
            info,
        }));
        Making { channel, subscription, data }
    }

    /// Says whether the connection goes on without this channel.
    fn refuse_wanted(&mut self, id: u32, opening: &mut Opening, channel: Channel, refused: Refused) -> bool {
        match self.mode {
            Mode::Poll => {
                opening.result.refused.push((channel, refused));
                return true;
            }
            Mode::Duplex => {
                // As the answer to any command that cannot be carried out; a temporary fault is worth another try.
                let code = if refused.code.temporary() { CloseCode::Normal } else { CloseCode::BadRequest };
                self.refuse(id, refused);
                self.close(code);
            }
            Mode::Down => self.close(close_code(refused.code)),
            Mode::Events => {
                // A stream of many channels ends for one of them: the reader is told which, and why.
                let code = refused.code;
                let why = refused.message.as_deref().unwrap_or(code.text());
                let message = Some(format!("{channel}: {why}"));
                self.refuse(id, Refused { code, message });
                self.close(close_code(code));
            }
        }
        false
    }

    pub(super) fn opening_role(&mut self, id: u32, mut opening: Box<Opening>, answer: Result<(), Refused>, now: Now) {
        match (std::mem::replace(&mut opening.current, Turn::Nothing), answer) {
            (Turn::Role(wanted, rules), Ok(())) => {
                opening.current = Turn::Joining(Box::new(self.make(wanted, rules)));
                self.wait_for(id, Step::Opening(opening));
            }
            (Turn::Role(wanted, _), Err(refused)) => {
                if self.refuse_wanted(id, &mut opening, wanted.channel, refused) {
                    self.open_next(id, opening, now);
                }
            }
            (step, _) => {
                opening.current = step;
                self.wait_for(id, Step::Opening(opening));
            }
        }
    }

    pub(super) fn opening_joined(
        &mut self,
        id: u32,
        mut opening: Box<Opening>,
        answer: Result<SubscribeResult, Refused>,
        now: Now,
    ) {
        let Turn::Joining(making) = std::mem::replace(&mut opening.current, Turn::Nothing) else {
            self.wait_for(id, Step::Opening(opening));
            return;
        };
        let Making { channel, subscription, .. } = *making;
        match answer {
            Ok(result) => {
                self.subscriptions.insert(channel.clone(), subscription);
                opening.result.subs.insert(channel, result);
            }
            Err(refused) => {
                if !self.refuse_wanted(id, &mut opening, channel, refused) {
                    return;
                }
            }
        }
        self.open_next(id, opening, now);
    }

    /// Joins a channel that the server wants this connection in.
    pub(super) fn join_for_server(&mut self, wanted: Wanted) {
        if self.subscriptions.contains(&wanted.channel) || self.subscriptions.len() >= self.limits.subscriptions_max {
            return;
        }
        // The server has judged; only the rules are looked up.
        let Ok(rules) = self.namespaces.of(&wanted.channel).cloned() else { return };
        let making = self.make(wanted, rules);
        self.wait_for(0, Step::ServerJoining(Box::new(making)));
    }

    pub(super) fn server_joined(&mut self, making: Making, answer: Result<SubscribeResult, Refused>) {
        let Making { channel, subscription, data } = making;
        let result = match answer {
            Ok(result) => SubscribeResult { data: data.or(result.data), ..result },
            // A reader of events has been promised this channel: it comes back as a whole.
            Err(_) if matches!(self.mode, Mode::Events | Mode::Poll) => {
                return self.close(CloseCode::InsufficientState);
            }
            Err(_) => return,
        };
        // A reader of the newest alone has missed nothing else; to it, what stands between is a gap.
        let goes_on = result.recovered && subscription.rules.recovery != Recovery::Latest;
        self.subscriptions.insert(channel.clone(), subscription);
        let push = match (self.mode, &result.position) {
            (Mode::Events | Mode::Poll, Some(_)) if goes_on => Push::Subscribe(result),
            (Mode::Events | Mode::Poll, Some(position)) => Push::Gap(position.clone()),
            _ => Push::Subscribe(result),
        };
        self.outputs.push_back(Output::Send(Reply::Push { channel: channel.clone(), push }));
        self.look_at_rules(&channel);
    }
}
