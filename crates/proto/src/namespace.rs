//! The rules of channels: what kind they are, what is kept, and who may do what.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::channel::Channel;
use crate::codes::ErrorCode;
use crate::grant::Grant;

/// What a channel keeps and promises (DESIGN.md, "Promises by kind of channel").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Publications are never kept: typing, cursors.
    #[default]
    Signal,
    /// The broker keeps the newest entries for a while.
    History,
    /// The store keeps every entry before anyone is told that it exists.
    Durable,
    /// The text of one generation while it is written, kept whole by the broker.
    Generation,
}

/// Who may do something in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// No client; only the server's own use cases and API.
    #[default]
    Nobody,
    /// Everybody who is connected, the anonymous too.
    Anyone,
    /// Everybody who has shown who they are.
    Authenticated,
    /// Who is subscribed to the channel on this connection.
    Subscribers,
    /// Who holds a token that names the channel (subscribing only).
    Token,
    /// Members of the story that the channel belongs to.
    Member,
    /// Members of the story who may write.
    Writer,
}

/// What somebody wants to do in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Get its publications.
    Subscribe,
    /// Put one in.
    Publish,
    /// Read what it kept.
    History,
    /// See who is subscribed.
    Presence,
}

/// What the rules say before any I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allowed,
    /// Refuse, with this code.
    Refused(ErrorCode),
    /// The role in the story decides: ask the store.
    AskMember,
    /// The role in the story decides, and it must be one that writes.
    AskWriter,
    /// A subscription token must be shown and verified.
    NeedsToken,
}

/// The rules of one group of channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Namespace {
    /// What its channels keep and promise: `signal` nothing, `history` the newest entries in memory, `durable` everything on disk.
    pub kind: Kind,
    /// Entries that a history channel keeps; the oldest go first.
    pub history_size: u32,
    /// How long a history channel keeps an entry, in milliseconds.
    pub history_age_ms: u64,
    /// Whether it is known who is subscribed.
    pub presence: bool,
    /// Whether subscribers are told who comes and goes.
    pub join_leave: bool,
    /// Who may subscribe: `nobody`, `anyone`, `authenticated`, or `token` (whoever shows a token for the channel).
    pub subscribe: Rule,
    /// Who may publish: `nobody` (but the server's own programs), `anyone`, `authenticated` or `subscribers`.
    pub publish: Rule,
    /// Who may read history: `nobody`, `anyone`, `authenticated` or `subscribers`.
    pub history: Rule,
    /// Who may ask for presence: `nobody`, `anyone`, `authenticated` or `subscribers`.
    pub presence_for: Rule,
    /// Whether a connection hears what it has published itself.
    pub echo: bool,
    /// The largest payload that a client may publish, in bytes.
    pub publication_bytes_max: usize,
    /// Belongs to the story platform: written by use cases alone, whatever a token or a flag says.
    #[serde(skip)]
    pub platform: bool,
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            kind: Kind::History,
            history_size: 1_000,
            history_age_ms: 300_000,
            presence: false,
            join_leave: false,
            subscribe: Rule::Authenticated,
            publish: Rule::Nobody,
            history: Rule::Subscribers,
            presence_for: Rule::Subscribers,
            echo: true,
            publication_bytes_max: 32_768,
            platform: false,
        }
    }
}

impl Namespace {
    /// The log of a story.
    #[must_use]
    pub fn story() -> Self {
        Self {
            kind: Kind::Durable,
            presence: true,
            join_leave: true,
            subscribe: Rule::Member,
            publish: Rule::Nobody,
            history: Rule::Member,
            presence_for: Rule::Member,
            platform: true,
            ..Self::default()
        }
    }

    /// Who types in a story.
    #[must_use]
    pub fn typing() -> Self {
        Self {
            kind: Kind::Signal,
            subscribe: Rule::Member,
            publish: Rule::Writer,
            history: Rule::Nobody,
            presence_for: Rule::Nobody,
            publication_bytes_max: 256,
            platform: true,
            ..Self::default()
        }
    }

    /// The stream of one generation.
    #[must_use]
    pub fn generation() -> Self {
        Self {
            kind: Kind::Generation,
            subscribe: Rule::Member,
            publish: Rule::Nobody,
            history: Rule::Nobody,
            presence_for: Rule::Nobody,
            platform: true,
            ..Self::default()
        }
    }

    /// Whether the channel has positions that a client can recover from.
    #[must_use]
    pub fn is_recoverable(&self) -> bool {
        matches!(self.kind, Kind::History | Kind::Durable)
    }

    /// What the rules say about `action` by the holder of `grant`; `subscribed` says whether this connection is subscribed to the channel.
    #[must_use]
    pub fn verdict(&self, action: Action, grant: &Grant, subscribed: Subscribed) -> Verdict {
        let rule = match action {
            Action::Subscribe => self.subscribe,
            Action::Publish => self.publish,
            Action::History if !self.is_recoverable() => return Verdict::Refused(ErrorCode::NotAvailable),
            Action::History => self.history,
            Action::Presence if !self.presence => return Verdict::Refused(ErrorCode::NotAvailable),
            Action::Presence => self.presence_for,
        };
        let allowed = match rule {
            Rule::Member => return Verdict::AskMember,
            Rule::Writer => return Verdict::AskWriter,
            _ if grant.insecure && !self.platform => true,
            Rule::Token => return Verdict::NeedsToken,
            Rule::Nobody => false,
            Rule::Anyone => true,
            Rule::Authenticated => !grant.user.is_anonymous(),
            Rule::Subscribers => subscribed == Subscribed::Yes,
        };
        if allowed { Verdict::Allowed } else { Verdict::Refused(ErrorCode::PermissionDenied) }
    }
}

/// Whether a connection is subscribed to the channel in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribed {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// All namespaces of a server, by name. Cheap to clone; replaced whole when configuration changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespaces(Arc<HashMap<String, Arc<Namespace>>>);

/// Names that belong to the story platform and cannot be configured.
pub const RESERVED: [&str; 3] = ["story", "typing", "generation"];

impl Namespaces {
    /// The configured namespaces, by name (the empty name is for channels without one), and the platform's own beside them.
    #[must_use]
    pub fn new(configured: impl IntoIterator<Item = (String, Namespace)>) -> Self {
        let mut all: HashMap<_, _> = configured.into_iter().map(|(name, rules)| (name, Arc::new(rules))).collect();
        all.insert("story".into(), Arc::new(Namespace::story()));
        all.insert("typing".into(), Arc::new(Namespace::typing()));
        all.insert("generation".into(), Arc::new(Namespace::generation()));
        Self(Arc::new(all))
    }

    /// The rules of a channel.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownChannel`] when its namespace is not configured, or a platform channel names no story.
    pub fn of(&self, channel: &Channel) -> Result<&Arc<Namespace>, ErrorCode> {
        let rules = self.0.get(channel.namespace()).ok_or(ErrorCode::UnknownChannel)?;
        let nameless =
            channel.story_id().is_none() || (rules.kind == Kind::Generation && channel.generation_id().is_none());
        if RESERVED.contains(&channel.namespace()) && nameless {
            return Err(ErrorCode::UnknownChannel);
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_decide_before_any_io() {
        let ana = Grant::user("ana".parse().expect("an id"));
        let nobody = Grant::default();
        let plain = Namespace { publish: Rule::Subscribers, ..Namespace::default() };
        let refused = Verdict::Refused(ErrorCode::PermissionDenied);
        assert_eq!(plain.verdict(Action::Subscribe, &ana, Subscribed::No), Verdict::Allowed);
        assert_eq!(plain.verdict(Action::Subscribe, &nobody, Subscribed::No), refused);
        assert_eq!(plain.verdict(Action::Publish, &ana, Subscribed::No), refused);
        assert_eq!(plain.verdict(Action::Publish, &ana, Subscribed::Yes), Verdict::Allowed);
        assert_eq!(plain.verdict(Action::Presence, &ana, Subscribed::Yes), Verdict::Refused(ErrorCode::NotAvailable));
    }

    #[test]
    fn story_channels_are_never_written_by_clients() {
        let insecure = Grant { insecure: true, ..Grant::default() };
        let refused = Verdict::Refused(ErrorCode::PermissionDenied);
        assert_eq!(Namespace::typing().verdict(Action::Publish, &insecure, Subscribed::Yes), Verdict::AskWriter);
        assert_eq!(Namespace::story().verdict(Action::Subscribe, &insecure, Subscribed::No), Verdict::AskMember);
        assert_eq!(Namespace::story().verdict(Action::Publish, &insecure, Subscribed::Yes), refused);
        assert_eq!(Namespace::generation().verdict(Action::Publish, &insecure, Subscribed::Yes), refused);
    }

    #[test]
    fn a_channel_of_an_unknown_namespace_is_unknown() {
        let all = Namespaces::new([("chat".to_owned(), Namespace::default())]);
        let channel = |name: &str| name.parse::<Channel>().expect("a name");
        assert!(all.of(&channel("chat:1")).is_ok());
        assert_eq!(all.of(&channel("news")).err(), Some(ErrorCode::UnknownChannel));
        for nobodys in ["generation:nodot", "generation:s.g.g", "story:", "typing:a.b"] {
            assert_eq!(all.of(&channel(nobodys)).err(), Some(ErrorCode::UnknownChannel), "{nobodys}");
        }
    }
}
