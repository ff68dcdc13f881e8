//! `publish` and `broadcast`: to channels, as their kinds promise; or a word to connections, at most once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use talewire_broker::{Control, Key, Order, Whom};
use talewire_proto::publication;
use talewire_proto::session::Refused;
use talewire_proto::{
    Channel, ClientId, Epoch, ErrorCode, Kind, Namespace, Payload, Position, Publication, UserId, Version,
};

use super::{Answer, done, error, most, refused, written};
use crate::node::Node;
use crate::perform::{self, Kept, Publishing};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish<'a> {
    channel: Option<Channel>,
    user: Option<UserId>,
    client: Option<ClientId>,
    #[serde(default)]
    everyone: bool,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<IgnoredAny>,
    #[serde(default)]
    idempotency_key: String,
    #[serde(default)]
    event: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    skip_history: bool,
    version: Option<u64>,
    #[serde(default)]
    version_epoch: String,
    /// A hint of other servers, about how much is sent: nothing is promised by it.
    #[serde(default, rename = "delta")]
    _delta: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Broadcast<'a> {
    channels: Vec<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<IgnoredAny>,
    #[serde(default)]
    idempotency_key: String,
    #[serde(default)]
    event: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    skip_history: bool,
    version: Option<u64>,
    #[serde(default)]
    version_epoch: String,
    #[serde(default, rename = "delta")]
    _delta: bool,
}

/// What is published, whichever channel it goes to.
pub(crate) struct Words {
    publication: Publication,
    key: Option<Key>,
    version: Option<Version>,
    skip_history: bool,
}

#[derive(Serialize)]
struct Published {
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "Epoch::is_empty")]
    epoch: Epoch,
    /// The channel already had this version or a newer one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skipped: bool,
}

impl From<Kept> for Published {
    fn from(kept: Kept) -> Self {
        let Kept { position: Position { offset, epoch }, skipped, .. } = kept;
        Self { offset, epoch, skipped }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that skip_serializing_if wants")]
fn is_zero(offset: &u64) -> bool {
    *offset == 0
}

pub(super) async fn publish(node: &Arc<Node>, request: Publish<'_>) -> Answer {
    let Publish { channel, user, client, everyone, data, b64data, idempotency_key, event, tags, skip_history, .. } =
        request;
    let data = payload(data, b64data)?;
    let targets = [channel.is_some(), user.is_some(), client.is_some(), everyone];
    if targets.into_iter().filter(|is_named| *is_named).count() != 1 {
        return Err(refused(ErrorCode::BadRequest, "name one of channel, user, client and everyone"));
    }
    let Some(channel) = channel else {
        let has_more = skip_history || request.version.is_some() || !(event.is_empty() && tags.is_empty());
        if has_more || !idempotency_key.is_empty() {
            let message = "what goes to connections has no type, tags, key or version, and is never kept";
            return Err(refused(ErrorCode::BadRequest, message));
        }
        return message(node, user, client, data).await;
    };
    let version = version(request.version, request.version_epoch)?;
    let words = Words { version, skip_history, ..said(node, data, event, tags, idempotency_key)? };
    into_channel(node, &channel, &words).await.map(|kept| written(&Published::from(kept)))
}

pub(super) async fn broadcast(node: &Arc<Node>, request: Broadcast<'_>) -> Answer {
    let Broadcast { channels, data, b64data, idempotency_key, event, tags, skip_history, .. } = request;
    most(node, channels.len())?;
    let version = version(request.version, request.version_epoch)?;
    let data = payload(data, b64data)?;
    let words = Words { version, skip_history, ..said(node, data, event, tags, idempotency_key)? };
    let mut responses = Vec::with_capacity(channels.len());
    for name in channels {
        let kept = match name.parse::<Channel>() {
            Ok(channel) => into_channel(node, &channel, &words).await,
            Err(bad) => Err(refused(ErrorCode::BadRequest, bad.to_string())),
        };
        responses.push(match kept {
            Ok(kept) => [b"{\"result\":", &written(&Published::from(kept))[..], b"}"].concat(),
            Err(refused) => [b"{\"error\":", &error(&refused)[..], b"}"].concat(),
        });
    }
    Ok([b"{\"responses\":[", &responses.join(&b","[..])[..], b"]}"].concat())
}

fn version(number: Option<u64>, epoch: String) -> Result<Option<Version>, Refused> {
    if epoch.len() > Version::EPOCH_BYTES_MAX {
        return Err(refused(ErrorCode::LimitExceeded, "the version_epoch is too long"));
    }
    Ok(number.map(|number| Version { number, epoch }))
}

fn payload(data: Option<&RawValue>, b64data: Option<IgnoredAny>) -> Result<Payload, Refused> {
    match (data, b64data) {
        (Some(data), None) => Ok(Payload::from_raw(data)),
        (_, Some(_)) => Err(refused(ErrorCode::NotAvailable, "payloads are JSON here: send data")),
        (None, None) => Err(refused(ErrorCode::BadRequest, "there is no data")),
    }
}

/// What server programs and sources say, checked.
pub(crate) fn said(
    node: &Node,
    data: Payload,
    event: String,
    tags: BTreeMap<String, String>,
    key: String,
) -> Result<Words, Refused> {
    if !node.limits().takes_key(&key) {
        return Err(refused(ErrorCode::LimitExceeded, "the idempotency key is too long, or has the character zero"));
    }
    let tags = publication::tags_with(event, tags).ok_or_else(|| refused(ErrorCode::BadRequest, BAD_TAGS))?;
    let key = Some(key).filter(|key| !key.is_empty()).map(|key| Key { user: UserId::default(), key });
    let publication = Publication { data: Some(data), tags, ..Publication::default() };
    Ok(Words { publication, key, version: None, skip_history: false })
}

pub(in super::super) const BAD_TAGS: &str = "tags are up to 16 texts of up to 256 bytes; an event type has up to 64 of A-Z a-z 0-9 _ . : - and is not reserved (PROTOCOL.md, 5)";

/// Publishes to one channel, as the server itself.
pub(crate) async fn into_channel(node: &Node, channel: &Channel, words: &Words) -> Result<Kept, Refused> {
    let rules = node.rules_of(channel)?;
    if rules.platform {
        // Stories are written by their use cases alone, or readers could not trust what they read.
        return Err(ErrorCode::PermissionDenied.into());
    }
    let Words { publication, key, version, skip_history } = words;
    if publication.data.as_ref().is_some_and(|data| data.len() > rules.publication_bytes_max) {
        return Err(ErrorCode::LimitExceeded.into());
    }
    let (publication, key, version) = (publication.clone(), key.clone(), version.clone());
    if !*skip_history {
        return perform::publish(node, Publishing { channel, rules: &rules, publication, key, version }).await;
    }
    if rules.kind == Kind::Durable {
        return Err(refused(ErrorCode::NotAvailable, "a durable channel keeps everything"));
    }
    if key.is_some() || version.is_some() {
        return Err(refused(ErrorCode::BadRequest, "what is not kept has no idempotency key and no version"));
    }
    let passing = Namespace { kind: Kind::Signal, ..(*rules).clone() };
    perform::publish(node, Publishing { channel, rules: &passing, publication, key: None, version: None }).await
}

/// A word to connections.
async fn message(node: &Node, user: Option<UserId>, client: Option<ClientId>, data: Payload) -> Answer {
    if data.len() > node.limits().frame_bytes_max {
        return Err(ErrorCode::LimitExceeded.into());
    }
    let whom = match (user, client) {
        (Some(user), _) if user.is_anonymous() => {
            return Err(refused(ErrorCode::BadRequest, "the anonymous are not one user"));
        }
        (Some(user), _) => Whom::user(user),
        (None, Some(client)) => Whom::client(client),
        (None, None) => Whom::Everyone,
    };
    let control = Control { whom, order: Order::Message(data) };
    node.broker.control(control).await.map_err(|_| ErrorCode::Unavailable)?;
    node.metrics.messages.inc();
    done()
}
