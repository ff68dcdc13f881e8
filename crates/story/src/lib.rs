//! Stories: what people may do with them, by rules that are pure functions and use cases over store and broker.
//!
//! Calls flow in from the socket's `rpc` and from `/app/rpc` ([`Stories::call`]), answers or refusals flow out; what happened
//! is in the store before the answer is given, and is announced by the broker after it. `rules` decides (facts in,
//! effects or a refusal out; no clock, no I/O), `mutations` and `reads` carry out, `export` and `context` read
//! whole paths for people and for agents. Nothing here knows a socket, a hub or a model.

mod announce;
mod answers;
mod context;
mod export;
mod limits;
mod method;
mod mutations;
mod params;
mod random;
mod reads;
mod refusal;
mod rules;

use talewire_broker::Broker;
use talewire_proto::{ErrorCode, Payload, StoryId, UserId};
use talewire_store::Store;
pub use talewire_store::{Refusal, Role};

use self::announce::Announcer;
pub use self::context::StoryContext;
pub use self::export::Export;
pub use self::limits::StoryLimits;
pub use self::method::Method;
pub use self::rules::narrator;

/// Who calls: a login that has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub user: UserId,
    /// The display name, normalised and checked by the login.
    pub name: String,
}

/// The use cases of stories. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stories {
    store: Store,
    broker: Announcer,
    limits: std::sync::Arc<StoryLimits>,
}

impl Stories {
    /// Stories over a store and a broker.
    #[must_use]
    pub fn new(store: Store, broker: Broker, limits: StoryLimits) -> Self {
        Self { store, broker: Announcer::new(broker), limits: std::sync::Arc::new(limits) }
    }

    /// Carries out one method of PROTOCOL.md, section 3, by its name.
    ///
    /// # Errors
    /// A [`Refusal`] whose code and sentence are for the caller.
    pub async fn call(&self, who: &Caller, method: &str, data: &Payload) -> Result<Payload, Refusal> {
        let method = Method::from_name(method).ok_or(ErrorCode::MethodNotFound)?;
        if who.user.is_anonymous() {
            return Err(ErrorCode::Unauthorized.into());
        }
        match method {
            Method::StoryCreate => self.create(who, params::read(data)?).await,
            Method::StoryList => self.list(who, params::read(data)?).await,
            Method::StoryOpen => self.open(who, params::read(data)?).await,
            Method::StoryTurns => self.turns(who, params::read(data)?).await,
            Method::StoryRename => self.rename(who, params::read(data)?).await,
            Method::StoryJoin => self.join(who, params::read(data)?).await,
            Method::InviteCreate => self.invite_create(who, params::read(data)?).await,
            Method::InviteList => self.invite_list(who, params::read(data)?).await,
            Method::InviteRevoke => self.invite_revoke(who, params::read(data)?).await,
            Method::InviteShow => self.invite_show(params::read(data)?).await,
            Method::TurnAdd => self.turn_add(who, params::read(data)?).await,
            Method::GenerationRequest => self.generation_request(who, params::read(data)?).await,
            Method::GenerationStop => self.generation_stop(who, params::read(data)?).await,
            Method::GenerationSnapshot => self.generation_snapshot(who, params::read(data)?).await,
            Method::ChoicePick => self.choice_pick(who, params::read(data)?).await,
        }
    }

    /// What `user` may do in `story`, for the rights on its channels; nothing for strangers and for stories that are not there.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn role(&self, user: &UserId, story: &StoryId) -> Result<Option<Role>, Refusal> {
        self.store.role(user, story).await.map_err(refusal::of_store)
    }
}
