//! Channel names: checked once where they enter, then a type that nothing checks again.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{GenerationId, StoryId};

/// What a client subscribes to: `namespace:name`, or a bare name in the namespace without a name.
///
/// At most [`Channel::BYTES_MAX`] bytes of `A-Z a-z 0-9 _ . : # $ , -`: nothing that any store, key, log line or URL
/// would have to escape. A clone is a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Channel(Arc<str>);

/// A channel name that does not fit the rules of [`Channel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadChannel;

impl fmt::Display for BadChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a channel name has 1 to {} letters, digits or any of _.:#$,-", Channel::BYTES_MAX)
    }
}

impl std::error::Error for BadChannel {}

impl Channel {
    /// The longest channel name in bytes.
    pub const BYTES_MAX: usize = 255;

    /// The durable channel that holds a story's log.
    #[must_use]
    pub fn story(story: &StoryId) -> Self {
        Self(format!("story:{story}").into())
    }

    /// The signal channel on which writers of a story show that they type.
    #[must_use]
    pub fn typing(story: &StoryId) -> Self {
        Self(format!("typing:{story}").into())
    }

    /// The stream of one generation of a story. Both ids are in the name, so that who may read it is known without a look-up.
    #[must_use]
    pub fn generation(story: &StoryId, generation: &GenerationId) -> Self {
        Self(format!("generation:{story}.{generation}").into())
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `:`, empty if there is none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or("", |(namespace, _)| namespace)
    }

    /// The part after the first `:`, or the whole name if there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once(':').map_or(&*self.0, |(_, name)| name)
    }

    /// The users that the channel is for, where its name ends with `#` and their ids between commas (`dm:talk#ana,ben`).
    /// The anonymous are never among them. A `#` in front of the last one is a part of the name.
    pub fn users(&self) -> Option<impl Iterator<Item = &str>> {
        let (_, users) = self.name().rsplit_once('#')?;
        Some(users.split(',').filter(|user| !user.is_empty()))
    }

    /// Whether a token is needed to subscribe, whatever the namespace allows: the name begins with `$` (`dm:$talk`).
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.name().starts_with('$')
    }

    /// The story whose room this channel belongs to, by the naming of [`Channel::story`], [`Channel::typing`] and [`Channel::generation`].
    #[must_use]
    pub fn story_id(&self) -> Option<StoryId> {
        match self.namespace() {
            "story" | "typing" => self.name().parse().ok(),
            "generation" => self.name().split_once('.')?.0.parse().ok(),
            _ => None,
        }
    }

    /// The generation whose stream this channel is.
    #[must_use]
    pub fn generation_id(&self) -> Option<GenerationId> {
        (self.namespace() == "generation").then(|| self.name().split_once('.')?.1.parse().ok())?
    }
}

impl FromStr for Channel {
    type Err = BadChannel;
    fn from_str(text: &str) -> Result<Self, BadChannel> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:#$,-".contains(&b);
        if text.is_empty() || text.len() > Self::BYTES_MAX || !text.bytes().all(allowed) {
            return Err(BadChannel);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Channel {
    type Error = BadChannel;
    fn try_from(text: String) -> Result<Self, BadChannel> {
        text.parse()
    }
}

impl From<Channel> for String {
    fn from(channel: Channel) -> String {
        channel.0.to_string()
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_split_at_its_first_colon() {
        let channel: Channel = "chat:room:7".parse().expect("a plain name");
        assert_eq!((channel.namespace(), channel.name()), ("chat", "room:7"));
        let bare: Channel = "news".parse().expect("a plain name");
        assert_eq!((bare.namespace(), bare.name()), ("", "news"));
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in ["", "a b", "a\r\nb", "a/../b", "a\0", "{a}", "a*", "é", &"x".repeat(256)] {
            assert_eq!(name.parse::<Channel>(), Err(BadChannel), "{name:?}");
        }
    }

    #[test]
    fn a_channel_of_a_story_knows_its_story() {
        let story = StoryId::from_random([1; 13]);
        let generation = GenerationId::from_random([2; 13]);
        let channel = Channel::generation(&story, &generation);
        assert_eq!(channel.story_id(), Some(story.clone()));
        assert_eq!(channel.generation_id(), Some(generation));
        assert_eq!(Channel::typing(&story).story_id(), Some(story.clone()));
        assert_eq!(Channel::story(&story).generation_id(), None);
        assert_eq!("generation:x".parse::<Channel>().expect("a plain name").story_id(), None);
    }
}
