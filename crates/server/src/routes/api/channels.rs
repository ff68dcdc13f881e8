//! What server programs ask about channels and nodes, and the removal of what a channel keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use talewire_proto::command::History;
use talewire_proto::{Channel, ErrorCode, Kind, json};

use super::connections::Since;
use super::{Answer, done, refused, written};
use crate::node::Node;
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
}

#[derive(Serialize)]
struct Clients {
    num_clients: u32,
}

/// Channels that somebody on this node is subscribed to.
pub(super) async fn list(node: &Arc<Node>, request: Pattern) -> Answer {
    let pattern = request.pattern;
    if pattern.len() > Channel::BYTES_MAX || pattern.contains(['[', ']', '{', '}', '!', '\\']) {
        return Err(refused(ErrorCode::BadRequest, "a pattern is a name with * for any text and ? for any character"));
    }
    let (hub, most) = (node.hub.clone(), node.settings.api_items_max);
    let fits = move |channel: &Channel| pattern.is_empty() || fits(pattern.as_bytes(), channel.as_str().as_bytes());
    // It may be long, and this thread has connections to serve.
    let found = tokio::task::spawn_blocking(move || hub.list_channels(most, fits)).await;
    let (channels, all) = found.map_err(|_| ErrorCode::Internal)?;
    let channels = channels.into_iter().map(|(channel, num_clients)| (channel, Clients { num_clients })).collect();
    Ok(written(&Channels { channels, cut: !all }))
}

/// Whether a name is what a pattern describes, without trying again more often than there are stars.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Behind the last star, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, n));
            }
            Some(expected) if *expected == b'?' || *expected == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((behind, taken)) = star else { return false };
                star = Some((behind, taken + 1));
                (p, n) = (behind, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Serialize)]
struct Info {
    nodes: [OneNode; 1],
}

#[derive(Serialize)]
struct OneNode {
    uid: String,
    name: String,
    version: &'static str,
    num_clients: u64,
    num_users: usize,
    num_subs: u64,
    num_channels: usize,
    /// In seconds.
    uptime: u64,
}

/// What this node has to do.
pub(super) async fn info(node: &Arc<Node>, _: Nothing) -> Answer {
    let mut users = BTreeSet::new();
    let Some(inboxes) = node.inboxes() else { return Err(ErrorCode::Unavailable.into()) };
    for thread in 0..inboxes.threads() {
        users.extend(inboxes.ask(thread, |reactor| reactor.users()).await?);
    }
    let one = OneNode {
        uid: node.id.to_string(),
        name: node.id.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        num_clients: node.metrics.open(),
        num_users: users.len(),
        num_subs: node.hub.subscriptions(),
        num_channels: node.hub.channels(),
        uptime: node.up_s(),
    };
    Ok(written(&Info { nodes: [one] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_describes_names() {
        for (pattern, name, expected) in [
            ("chat:*", "chat:1", true),
            ("chat:*", "chat:", true),
            ("chat:*", "chats:1", false),
            ("*", "anything:1", true),
            ("*:1", "a:1:1", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
            ("c?at:1", "chat:1", true),
            ("c?at:1", "cat:1", false),
            ("chat:1", "chat:1", true),
            ("chat:1", "chat:12", false),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
