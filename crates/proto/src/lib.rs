//! The wire: what clients and servers say to each other, and the machine that decides what may be said when.
//!
//! Everything here is sans-IO. Bytes and times come in as arguments, answers go out as values of closed enums; there is
//! no clock, socket, thread or global random in this crate (`clippy.toml` bans them). Reading order: the words
//! ([`ids`], [`channel`], [`payload`], [`publication`]), the rules ([`namespace`], [`grant`], [`limits`], [`codes`]), the
//! wire ([`command`], [`reply`], and how they stand as bytes: [`codec`], [`json`], [`protobuf`], [`events`], [`wire`],
//! [`compression`], [`websocket`]) and the machine
//! ([`session`]). Beside them: what is told to other systems ([`notice`]).

pub mod by_channel;
pub mod channel;
pub mod codec;
pub mod codes;
pub mod command;
pub mod compression;
pub mod cursor;
pub mod events;
pub mod filter;
pub mod generation;
pub mod grant;
pub mod ids;
pub mod json;
pub mod limits;
pub mod namespace;
pub mod notice;
pub mod payload;
pub mod protobuf;
pub mod publication;
pub mod reply;
pub mod session;
pub mod trace;
pub mod version;
pub mod websocket;
pub mod wire;

pub use by_channel::ByChannel;
pub use channel::Channel;
pub use codes::{CloseCode, ErrorCode, UnsubscribeCode};
pub use grant::Grant;
pub use ids::{BranchId, ChoiceId, ClientId, GenerationId, JobOwner, StoryId, TurnId, UserId};
pub use limits::Limits;
pub use namespace::{Kind, Namespace, Namespaces};
pub use notice::{Notice, NoticeKind, Notices};
pub use payload::Payload;
pub use publication::{ClientInfo, Entry, Epoch, Position, Publication, Since};
pub use version::Version;
