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

/// What a client that comes back to a channel gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// Everything that it missed, or the word that it is lost.
    #[default]
    Stream,
    /// The newest entry alone: what came before it is stale.
    Latest,
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
    /// What payloads must look like: a JSON Schema, as the path of a file beside the configuration or as the text itself; what does not fit is refused with 107.
    pub schema: Option<String>,
    /// Publications of one user (one connection, of the anonymous) per second in the long run, in the whole namespace; beyond it 111. 0 for no limit.
    pub publications_per_second: u32,
    /// Publications of one user that may come at once before that rate applies; beyond it they are refused with 111.
    pub publication_burst: u32,
    /// What a client that comes back gets: `stream` everything it missed, `latest` the newest entry alone.
    pub recovery: Recovery,
    /// What a signal's key is: the value of the tag with this name, `publisher`, or `channel` for one key; while a reader is slow, a newer signal takes the place of the one with its key.
    pub conflation_key: Option<String>,
    /// How long publications of a channel are gathered to leave as one batch, in milliseconds; 0 sends each at once.
    pub batch_ms: u64,
    /// Publications in one batch; it leaves when it has so many, also before its time.
    pub batch_max: usize,
    /// Whether server programs may erase what a durable channel says (`history_remove`); history channels always let them.
    pub erasable: bool,
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
            schema: None,
            publications_per_second: 0,
            publication_burst: 20,
            recovery: Recovery::Stream,
            conflation_key: None,
            batch_ms: 0,
            batch_max: 100,
            erasable: false,
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
            // Of somebody who types, a slow reader needs to know only how it is now.
            conflation_key: Some("publisher".to_owned()),
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

    /// What the rules say about `action` in `channel` by the holder of `grant`; `subscribed` says whether this connection is
    /// subscribed to it.
    ///
    /// A channel that names users ([`Channel::users`]) is for them alone. A private one ([`Channel::is_private`]) is
    /// subscribed to with a token; everything else in it is for those who are.
    #[must_use]
    pub fn verdict(&self, action: Action, channel: &Channel, grant: &Grant, subscribed: Subscribed) -> Verdict {
        let rule = match action {
            Action::Subscribe => self.subscribe,
            Action::Publish => self.publish,
            Action::History if !self.is_recoverable() => return Verdict::Refused(ErrorCode::NotAvailable),
            Action::History => self.history,
            Action::Presence if !self.presence => return Verdict::Refused(ErrorCode::NotAvailable),
            Action::Presence => self.presence_for,
        };
        if grant.insecure && !self.platform && !matches!(rule, Rule::Member | Rule::Writer) {
            return Verdict::Allowed;
        }
        let named = channel.users().is_none_or(|mut users| users.any(|user| user == grant.user.as_str()));
        let shown = !channel.is_private() || action == Action::Subscribe || subscribed == Subscribed::Yes;
        if !named || !shown {
            return Verdict::Refused(ErrorCode::PermissionDenied);
        }
        let allowed = match rule {
            Rule::Member => return Verdict::AskMember,
            Rule::Writer => return Verdict::AskWriter,
            Rule::Nobody => false,
            Rule::Token => return Verdict::NeedsToken,
            _ if action == Action::Subscribe && channel.is_private() => return Verdict::NeedsToken,
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

    /// Whether these are the same rules, unchanged since one was cloned from the other.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// All namespaces, by name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Arc<Namespace>)> {
        self.0.iter().map(|(name, rules)| (name.as_str(), rules))
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

    fn channel(name: &str) -> Channel {
        name.parse().expect("a name")
    }

    const REFUSED: Verdict = Verdict::Refused(ErrorCode::PermissionDenied);

    #[test]
    fn rules_decide_before_any_io() {
        let ana = Grant::user("ana".parse().expect("an id"));
        let nobody = Grant::default();
        let plain = Namespace { publish: Rule::Subscribers, ..Namespace::default() };
        let says = |action, grant, subscribed| plain.verdict(action, &channel("chat:1"), grant, subscribed);
        assert_eq!(says(Action::Subscribe, &ana, Subscribed::No), Verdict::Allowed);
        assert_eq!(says(Action::Subscribe, &nobody, Subscribed::No), REFUSED);
        assert_eq!(says(Action::Publish, &ana, Subscribed::No), REFUSED);
        assert_eq!(says(Action::Publish, &ana, Subscribed::Yes), Verdict::Allowed);
        assert_eq!(says(Action::Presence, &ana, Subscribed::Yes), Verdict::Refused(ErrorCode::NotAvailable));
    }

    #[test]
    fn story_channels_are_never_written_by_clients() {
        let insecure = Grant { insecure: true, ..Grant::default() };
        let says =
            |rules: Namespace, action, subscribed| rules.verdict(action, &channel("story:s"), &insecure, subscribed);
        assert_eq!(says(Namespace::typing(), Action::Publish, Subscribed::Yes), Verdict::AskWriter);
        assert_eq!(says(Namespace::story(), Action::Subscribe, Subscribed::No), Verdict::AskMember);
        assert_eq!(says(Namespace::story(), Action::Publish, Subscribed::Yes), REFUSED);
        assert_eq!(says(Namespace::generation(), Action::Publish, Subscribed::Yes), REFUSED);
    }

    /// Who may, with the rule `anyone` for everything.
    #[track_caller]
    fn check(name: &str, user: &str, action: Action, subscribed: Subscribed, expected: Verdict) {
        let rules = Namespace {
            subscribe: Rule::Anyone,
            publish: Rule::Anyone,
            history: Rule::Anyone,
            presence: true,
            presence_for: Rule::Anyone,
            ..Namespace::default()
        };
        let grant = Grant::user(user.parse().expect("an id"));
        assert_eq!(rules.verdict(action, &channel(name), &grant, subscribed), expected, "{name} {user} {action:?}");
    }

    #[test]
    fn a_channel_that_names_users_is_for_them_alone() {
        use Verdict::Allowed;
        for action in [Action::Subscribe, Action::Publish, Action::History, Action::Presence] {
            for name in ["dm:x#ana,ben", "x#ana", "dm:a#b#ben,ana", "dm:#ana"] {
                check(name, "ana", action, Subscribed::No, Allowed);
                for other in ["", "an", "ana,ben", "b", "cy"] {
                    check(name, other, action, Subscribed::Yes, REFUSED);
                }
            }
            // Nobody is named: nobody may, the anonymous least of all.
            check("dm:x#", "ana", action, Subscribed::Yes, REFUSED);
            check("dm:x#", "", action, Subscribed::Yes, REFUSED);
            check("dm:x#,ana", "", action, Subscribed::Yes, REFUSED);
        }
        let rules = Namespace { publish: Rule::Nobody, subscribe: Rule::Token, ..Namespace::default() };
        let ana = Grant::user("ana".parse().expect("an id"));
        let says = |action| rules.verdict(action, &channel("dm:x#ana"), &ana, Subscribed::Yes);
        assert_eq!(says(Action::Publish), REFUSED, "being named adds no right");
        assert_eq!(says(Action::Subscribe), Verdict::NeedsToken);
        let insecure = Grant { insecure: true, ..Grant::default() };
        let says = |name| rules.verdict(Action::Subscribe, &channel(name), &insecure, Subscribed::No);
        assert_eq!((says("dm:x#ana"), says("dm:$x")), (Allowed, Allowed));
    }

    #[test]
    fn a_private_channel_always_wants_a_token() {
        for name in ["dm:$x", "$x", "dm:$x#ana"] {
            check(name, "ana", Action::Subscribe, Subscribed::No, Verdict::NeedsToken);
            for action in [Action::Publish, Action::History, Action::Presence] {
                check(name, "ana", action, Subscribed::No, REFUSED);
                check(name, "ana", action, Subscribed::Yes, Verdict::Allowed);
            }
        }
        check("dm:$x#ana", "ben", Action::Subscribe, Subscribed::No, REFUSED);
        check("dm:x$", "ana", Action::Subscribe, Subscribed::No, Verdict::Allowed);
        let closed = Namespace { subscribe: Rule::Nobody, ..Namespace::default() };
        let ana = Grant::user("ana".parse().expect("an id"));
        assert_eq!(closed.verdict(Action::Subscribe, &channel("dm:$x"), &ana, Subscribed::No), REFUSED);
    }

    #[test]
    fn a_channel_of_an_unknown_namespace_is_unknown() {
        let all = Namespaces::new([("chat".to_owned(), Namespace::default())]);
        assert!(all.of(&channel("chat:1")).is_ok());
        assert_eq!(all.of(&channel("news")).err(), Some(ErrorCode::UnknownChannel));
        for nobodys in ["generation:nodot", "generation:s.g.g", "story:", "typing:a.b"] {
            assert_eq!(all.of(&channel(nobodys)).err(), Some(ErrorCode::UnknownChannel), "{nobodys}");
        }
    }
}
