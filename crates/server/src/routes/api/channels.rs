//! What server programs ask about channels and nodes, and the removal of what a channel keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use talewire_proto::command::History;
use talewire_proto::{Channel, ErrorCode, Kind, json};

use super::connections::Since;
use super::{Answer, Unheard, done, refused, written};
use crate::agreement;
use crate::letters::Question;
use crate::listing::{self, ChannelsAsked, ChannelsFound};
use crate::node::{Node, unix_ms};
use crate::perform;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfChannel {
    channel: Channel,
}

pub(super) async fn presence(node: &Arc<Node>, request: OfChannel) -> Answer {
    has_presence(node, &request.channel)?;
    Ok(json::result(&perform::presence(node, &request.channel).await?))
}

pub(super) async fn presence_stats(node: &Arc<Node>, request: OfChannel) -> Answer {
    has_presence(node, &request.channel)?;
    Ok(json::result(&perform::presence_stats(node, &request.channel).await?))
}

fn has_presence(node: &Node, channel: &Channel) -> Result<(), ErrorCode> {
    if node.rules_of(channel)?.presence { Ok(()) } else { Err(ErrorCode::NotAvailable) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    channel: Channel,
    /// 0 for the position alone, negative for as many as are given.
    #[serde(default)]
    limit: i32,
    since: Option<Since>,
    #[serde(default)]
    reverse: bool,
}

pub(super) async fn history(node: &Arc<Node>, request: Page) -> Answer {
    let rules = node.rules_of(&request.channel)?;
    if !rules.is_recoverable() {
        return Err(ErrorCode::NotAvailable.into());
    }
    let limit = node.limits().history_entries(request.limit);
    let since = request.since.map(Into::into);
    let request = History { channel: request.channel, limit, since, reverse: request.reverse };
    Ok(json::result(&perform::history(node, &rules, request).await?))
}

pub(super) async fn history_remove(node: &Arc<Node>, request: OfChannel) -> Answer {
    let channel = request.channel;
    let rules = node.rules_of(&channel)?;
    match rules.kind {
        _ if rules.platform => return Err(ErrorCode::PermissionDenied.into()),
        Kind::History => node.broker.remove_history(&channel).await.map_err(|_| ErrorCode::Unavailable)?,
        Kind::Durable if rules.erasable => {
            let erased = node.store.erase(&channel).await.map_err(|error| {
                tracing::warn!(%channel, %error, "a channel was not erased, or not all of it");
                ErrorCode::Unavailable
            })?;
            tracing::info!(%channel, erased, "a durable channel was erased");
        }
        Kind::Durable => {
            let message = "a durable channel keeps everything, unless its namespace is erasable";
            return Err(refused(ErrorCode::NotAvailable, message));
        }
        Kind::Signal | Kind::Generation => return Err(ErrorCode::NotAvailable.into()),
    }
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pattern {
    #[serde(default)]
    pattern: String,
}

#[derive(Serialize)]
struct Channels {
    channels: BTreeMap<Channel, Clients>,
    /// There are more than one answer holds.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
    #[serde(skip_serializing_if = "Unheard::is_empty")]
    unheard: Unheard,
}

#[derive(Serialize)]
struct Clients {
    num_clients: u64,
}

/// Channels that somebody is subscribed to, on all nodes.
pub(super) async fn list(node: &Arc<Node>, request: Pattern) -> Answer {
    let pattern = request.pattern;
    if pattern.len() > Channel::BYTES_MAX || pattern.contains(['[', ']', '{', '}', '!', '\\']) {
        return Err(refused(ErrorCode::BadRequest, "a pattern is a name with * for any text and ? for any character"));
    }
    let most = node.settings.api_items_max;
    let asked = ChannelsAsked { pattern, most };
    let (nodes, all) = node.nodes().await;
    let others = nodes.into_iter().map(|report| report.id).filter(|id| id != node.id());
    let asking = others.map(|other| {
        let (node, question) = (node.clone(), Question::Channels(asked.clone()));
        tokio::spawn(async move { (node.ask::<ChannelsFound>(&other, question, Bytes::new()).await, other) })
    });
    let asking: Vec<_> = asking.collect();
    let mut found = listing::channels(node, &asked).await?;
    let mut unheard = Unheard::new(all);
    for answer in asking {
        match answer.await.map_err(|_| ErrorCode::Internal)? {
            (Ok(theirs), _) => found.add(theirs, most),
            (Err(silence), other) => unheard.add(&other, silence),
        }
    }
    let channels =
        found.channels.into_iter().map(|(channel, num_clients)| (channel, Clients { num_clients })).collect();
    Ok(written(&Channels { channels, cut: found.cut, unheard }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Serialize)]
struct Info {
    nodes: Vec<OneNode>,
    #[serde(skip_serializing_if = "Unheard::is_empty")]
    unheard: Unheard,
}

#[derive(Serialize)]
struct OneNode {
    uid: String,
    name: String,
    version: String,
    num_clients: u64,
    num_users: u64,
    num_subs: u64,
    num_channels: u64,
    /// In seconds.
    uptime: i64,
    /// The settings in which it differs from the node that answers, by part; absent where they agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    differs: Option<String>,
}

/// What the nodes have to do: this one now, others as of their last sign of life.
pub(super) async fn info(node: &Arc<Node>, _: Nothing) -> Answer {
    let (nodes, all) = node.nodes().await;
    let (now_ms, me) = (unix_ms(), node.report());
    let nodes = nodes.into_iter().map(|report| OneNode {
        differs: agreement::parts(&me, &report),
        uid: report.id.to_string(),
        name: report.name,
        version: report.version,
        num_clients: report.connections,
        num_users: report.users,
        num_subs: report.subscriptions,
        num_channels: report.channels,
        uptime: (now_ms - report.started_ms).max(0) / 1_000,
    });
    Ok(written(&Info { nodes: nodes.collect(), unheard: Unheard::new(all) }))
}
