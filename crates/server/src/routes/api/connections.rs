//! What server programs do with connections: orders that the broker carries to every node, and a list that every node is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use talewire_broker::{NodeId, Order, Whom};
use talewire_proto::command::{Recover, Token, Wanted};
use talewire_proto::session::Refused;
use talewire_proto::{Channel, ClientId, CloseCode, ErrorCode, Payload, Position, UserId};

use super::{Answer, Unheard, done, most, refused, written};
use crate::letters::Question;
use crate::listing::{self, ConnectionsAsked, Seen};
use crate::node::Node;

async fn order(node: &Node, whom: Whom, order: Order) -> Answer {
    node.order(whom, order).await?;
    done()
}

/// Whom a request means. Empty texts name nobody, as libraries send them for what is not set.
fn whom(user: UserId, client: &str, session: String) -> Result<Whom, Refused> {
    let user = Some(user).filter(|user| !user.is_anonymous());
    let client = id(client)?;
    let session = Some(session).filter(|session| !session.is_empty()).map(Token);
    if user.is_none() && client.is_none() && session.is_none() {
        return Err(refused(ErrorCode::BadRequest, "name a user, a client or a session"));
    }
    Ok(Whom::Of { user, client, session })
}

fn id(text: &str) -> Result<Option<ClientId>, Refused> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|bad: talewire_proto::ids::BadId| refused(ErrorCode::BadRequest, bad.to_string()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Disconnect {
    #[serde(default)]
    user: UserId,
    #[serde(default)]
    client: String,
    #[serde(default)]
    session: String,
    #[serde(default)]
    whitelist: Vec<ClientId>,
    #[serde(default)]
    disconnect: Option<Close>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Close {
    #[serde(default)]
    code: u32,
    /// What a client is told stands in the table with the code.
    #[serde(default, rename = "reason")]
    _reason: String,
    #[serde(default, rename = "reconnect")]
    _reconnect: bool,
}

pub(super) async fn disconnect(node: &Arc<Node>, request: Disconnect) -> Answer {
    let Disconnect { user, client, session, whitelist, disconnect } = request;
    most(node, whitelist.len())?;
    let code = match disconnect.map_or(0, |close| close.code) {
        0 => CloseCode::ForceDisconnect,
        code => *CloseCode::ALL
            .iter()
            .find(|known| known.code() == code)
            .ok_or_else(|| refused(ErrorCode::BadRequest, "the code is none of those that clients know"))?,
    };
    order(node, whom(user, &client, session)?, Order::Disconnect { code, keep: whitelist }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscribe<'a> {
    #[serde(default)]
    user: UserId,
    channel: Channel,
    #[serde(default)]
    client: String,
    #[serde(default)]
    session: String,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    recover_since: Option<Since>,
    #[serde(default)]
    join_leave: bool,
    b64info: Option<IgnoredAny>,
    b64data: Option<IgnoredAny>,
    #[serde(rename = "override")]
    options: Option<IgnoredAny>,
}

/// A position, as libraries send it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Since {
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    epoch: talewire_proto::Epoch,
}

impl From<Since> for Position {
    fn from(Since { offset, epoch }: Since) -> Self {
        Self { offset, epoch }
    }
}

pub(super) async fn subscribe(node: &Arc<Node>, request: Subscribe<'_>) -> Answer {
    let rules = node.rules_of(&request.channel)?;
    if rules.platform {
        // Who reads a story is for its members to say.
        return Err(ErrorCode::PermissionDenied.into());
    }
    if request.options.is_some() || request.b64info.is_some() || request.b64data.is_some() {
        let message = "rules stand in the namespace and cannot be overridden; info and data are JSON";
        return Err(refused(ErrorCode::NotAvailable, message));
    }
    let whom = whom(request.user, &request.client, request.session)?;
    let wanted = Wanted {
        recover: request.recover_since.map(|since| Recover::After(since.into())),
        join_leave: request.join_leave,
        info: request.info.map(Payload::from_raw),
        data: request.data.map(Payload::from_raw),
        ..Wanted::new(request.channel)
    };
    order(node, whom, Order::Subscribe(Box::new(wanted))).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unsubscribe {
    #[serde(default)]
    user: UserId,
    channel: Channel,
    #[serde(default)]
    client: String,
    #[serde(default)]
    session: String,
}

pub(super) async fn unsubscribe(node: &Arc<Node>, request: Unsubscribe) -> Answer {
    node.rules_of(&request.channel)?;
    let whom = whom(request.user, &request.client, request.session)?;
    order(node, whom, Order::Unsubscribe(request.channel)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refresh {
    #[serde(default)]
    user: UserId,
    #[serde(default)]
    client: String,
    #[serde(default)]
    session: String,
    #[serde(default)]
    expired: bool,
    /// In Unix seconds; 0 for never.
    #[serde(default)]
    expire_at: i64,
}

pub(super) async fn refresh(node: &Arc<Node>, request: Refresh) -> Answer {
    let whom = whom(request.user, &request.client, request.session)?;
    let expires_at_ms = (request.expire_at != 0).then(|| request.expire_at.saturating_mul(1_000));
    let what = if request.expired {
        Order::Disconnect { code: CloseCode::Expired, keep: Vec::new() }
    } else {
        Order::Lasting(expires_at_ms)
    };
    order(node, whom, what).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    #[serde(default)]
    user: UserId,
    /// The `next` of the page before.
    #[serde(default)]
    after: String,
    limit: Option<usize>,
    /// Libraries send one; an empty one fits everybody.
    #[serde(default)]
    expression: String,
}

#[derive(Serialize)]
struct Listed {
    connections: BTreeMap<ClientId, Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip_serializing_if = "Unheard::is_empty")]
    unheard: Unheard,
}

#[derive(Serialize)]
struct Row {
    /// The uid of the node that it is on.
    node: String,
    user: UserId,
    transport: String,
    protocol: String,
    channels: usize,
    connected_at: i64,
}

/// A page of the connections of all nodes, in no order that means anything. Who comes while one reads on may be missed.
pub(super) async fn list(node: &Arc<Node>, request: List) -> Answer {
    if !request.expression.is_empty() {
        return Err(refused(ErrorCode::NotAvailable, "connections are found by user alone"));
    }
    let user = Some(request.user).filter(|user| !user.is_anonymous());
    let limit = request.limit.unwrap_or(usize::MAX).clamp(1, node.settings.api_items_max.max(1));
    let (first, thread, place) = cursor(&request.after)?;
    let (nodes, all) = node.nodes().await;
    let mut ids: Vec<NodeId> = nodes.into_iter().map(|report| report.id).filter(|id| id.as_str() >= first).collect();
    ids.sort();
    let mut listed = Listed { connections: BTreeMap::new(), next: None, unheard: Unheard::new(all) };
    for id in ids {
        let (thread, place) = if id.as_str() == first { (thread, place) } else { (0, 0) };
        // One more than there is room for tells whether there is a next page.
        let most = limit - listed.connections.len() + 1;
        let asked = ConnectionsAsked { user: user.clone(), thread, place, most };
        let page = if id == *node.id() {
            listing::connections(node, &asked).await?
        } else {
            match node.ask(&id, Question::Connections(asked), Bytes::new()).await {
                Ok(page) => page,
                Err(silence) => {
                    listed.unheard.add(&id, silence);
                    continue;
                }
            }
        };
        for Seen { thread, place, client, user, transport, protocol, channels, connected_at } in page {
            if listed.connections.len() == limit {
                listed.next = Some(format!("{id}-{thread}-{place}"));
                return Ok(written(&listed));
            }
            let row = Row { node: id.to_string(), user, transport, protocol, channels, connected_at };
            listed.connections.insert(client, row);
        }
    }
    Ok(written(&listed))
}

/// Where a page begins: a node, a thread of it, and a place there.
fn cursor(after: &str) -> Result<(&str, usize, u64), Refused> {
    if after.is_empty() {
        return Ok(("", 0, 0));
    }
    let mut parts = after.split('-');
    let mut next = || parts.next();
    let place = match (next(), next(), next(), next()) {
        (Some(node), Some(thread), Some(place), None) => {
            thread.parse().ok().zip(place.parse().ok()).map(|of| (node, of))
        }
        _ => None,
    };
    let (node, (thread, place)) =
        place.ok_or_else(|| refused(ErrorCode::BadRequest, "after is the next of another page"))?;
    Ok((node, thread, place))
}
