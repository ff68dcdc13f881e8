//! What happens here that other systems may want to hear of: notices come in from hub, server and broker, and go out to one
//! sink that the binary gives, if anybody wants them.
//!
//! A notice says nothing that was written, and telling one never waits: the sink has room or counts what it drops.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::generation::GenerationStatus;
use crate::{Channel, ClientId, GenerationId, StoryId, UserId};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Notice {
    /// A channel has its first subscriber, on whichever node.
    ChannelOccupied {
        /// Which.
        channel: Channel,
        /// Rises with every change of this channel, whichever node tells it; the same again when a change is told again.
        serial: u64,
    },
    /// A channel has lost its last subscriber, on whichever node.
    ChannelVacated {
        /// Which.
        channel: Channel,
        /// As above.
        serial: u64,
    },
    /// Somebody was told that they are connected.
    ClientConnected {
        /// The connection.
        client: ClientId,
        /// Who it is; empty for the anonymous.
        user: UserId,
        /// What carries it.
        transport: &'static str,
    },
    /// Their connection has ended.
    ClientDisconnected {
        /// The connection.
        client: ClientId,
        /// Who it was; empty for the anonymous.
        user: UserId,
        /// What carried it.
        transport: &'static str,
    },
    /// A generation has ended, whichever way; its end is kept.
    GenerationEnded {
        /// Its story.
        story: StoryId,
        /// Which.
        generation: GenerationId,
        /// The attempt that ended it.
        attempt: u32,
        /// How it ended.
        status: GenerationStatus,
    },
}

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A first subscriber.
    ChannelOccupied,
    /// The last subscriber is gone.
    ChannelVacated,
    /// A connection stands.
    ClientConnected,
    /// A connection has ended.
    ClientDisconnected,
    /// A generation has ended.
    GenerationEnded,
}

impl NoticeKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::ClientConnected,
        Self::ClientDisconnected,
        Self::GenerationEnded,
    ];
}

impl Notice {
    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> NoticeKind {
        match self {
            Self::ChannelOccupied { .. } => NoticeKind::ChannelOccupied,
            Self::ChannelVacated { .. } => NoticeKind::ChannelVacated,
            Self::ClientConnected { .. } => NoticeKind::ClientConnected,
            Self::ClientDisconnected { .. } => NoticeKind::ClientDisconnected,
            Self::GenerationEnded { .. } => NoticeKind::GenerationEnded,
        }
    }
}

/// Takes notices: from any thread, also under locks. It must not block.
pub type NoticeSink = Arc<dyn Fn(Notice) + Send + Sync>;

/// The way to the sink. A clone is a reference count.
#[derive(Clone, Default)]
pub struct Notices(Arc<OnceLock<Told>>);

struct Told {
    wanted: Vec<NoticeKind>,
    sink: NoticeSink,
}

impl Notices {
    /// Tells what happened; it is not even put together where nobody wants to know.
    pub fn tell(&self, notice: impl FnOnce() -> Notice) {
        if let Some(told) = self.0.get() {
            (told.sink)(notice());
        }
    }

    /// Whether somebody wants to know of such things.
    #[must_use]
    pub fn wants(&self, kind: NoticeKind) -> bool {
        self.0.get().is_some_and(|told| told.wanted.contains(&kind))
    }

    /// Says who wants to know, and of what, from now on. The sink may be told of other things too.
    ///
    /// # Panics
    /// When somebody does already.
    pub fn told_to(&self, sink: NoticeSink, wanted: &[NoticeKind]) {
        let told = Told { wanted: wanted.to_vec(), sink };
        assert!(self.0.set(told).is_ok(), "a process has one sink of notices");
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notices(wanted: {})", self.0.get().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_written_with_the_word_of_its_kind() {
        let channel: Channel = "chat:1".parse().expect("a channel");
        let notice = Notice::ChannelOccupied { channel, serial: 7 };
        let text = serde_json::to_string(&notice).expect("JSON");
        assert_eq!(text, r#"{"event":"channel_occupied","channel":"chat:1","serial":7}"#);
        assert_eq!(serde_json::to_string(&notice.kind()).expect("JSON"), r#""channel_occupied""#);
        for kind in NoticeKind::ALL {
            let word = serde_json::to_string(&kind).expect("JSON");
            assert_eq!(serde_json::from_str::<NoticeKind>(&word).expect("a word"), kind);
        }
    }

    #[test]
    fn what_nobody_wants_is_not_put_together() {
        let notices = Notices::default();
        notices.tell(|| unreachable!("nobody wants it"));
        let heard: Arc<OnceLock<Notice>> = Arc::default();
        let into = heard.clone();
        assert!(!notices.wants(NoticeKind::ChannelVacated));
        notices.told_to(Arc::new(move |notice| into.set(notice).expect("one notice")), &[NoticeKind::ChannelVacated]);
        assert!(notices.wants(NoticeKind::ChannelVacated) && !notices.wants(NoticeKind::ChannelOccupied));
        let channel: Channel = "chat:1".parse().expect("a channel");
        notices.clone().tell(|| Notice::ChannelVacated { channel, serial: 1 });
        assert_eq!(heard.get().map(Notice::kind), Some(NoticeKind::ChannelVacated));
    }
}
