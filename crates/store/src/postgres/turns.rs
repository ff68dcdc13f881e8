//! Turns in this node before those in the database. Operations that lock the same row or wait for the same advisory lock are done one after
//! the other in any case: in the database each of them would hold a connection while it waits, and a locked story would stop its whole
//! node. So few of them at once may have or await a connection. Called by the operations of [`super::Postgres`], before they take one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use talewire_proto::{StoryId, UserId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::stories::About;
use crate::text::InviteCode;

/// What part of a node's connections the operations of one user, and those about one story, may have or await together. Not one alone:
/// where all connections are busy, each waits for its own behind everybody else's.
const PART: usize = 4;

/// Few of its kind are under way to the database, and the others wait.
pub(super) type Turn = Arc<Semaphore>;

pub(super) fn one_at_once() -> Turn {
    Arc::new(Semaphore::new(1))
}

/// Whose turns there are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    User(UserId),
    Story(StoryId),
    /// The story that an invite leads to, before anybody has looked which it is.
    Invite(InviteCode),
}

impl Whose {
    /// What a question locks beside its user.
    pub(super) fn of(about: &About) -> Option<Self> {
        match about {
            About::Invite(code) => Some(Self::Invite(code.clone())),
            named => named.story().cloned().map(Self::Story),
        }
    }
}

/// The turns that somebody has or waits for, and some that nobody does any more.
pub(super) struct Turns {
    all: Mutex<HashMap<Whose, Weak<Semaphore>>>,
    at_once: usize,
    /// With so many, those that nobody waits for are forgotten. Each operation has two at most, so that it is half of them at least.
    most: usize,
}

impl Turns {
    /// For so many operations, on so many connections.
    pub(super) fn new(operations_max: usize, connections_max: usize) -> Self {
        let most = operations_max.saturating_mul(4).max(16);
        Self { all: Mutex::default(), at_once: (connections_max / PART).max(1), most }
    }

    pub(super) fn of(&self, whose: Whose) -> Turn {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = all.get(&whose).and_then(Weak::upgrade) {
            return turn;
        }
        if all.len() >= self.most {
            all.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::new(Semaphore::new(self.at_once));
        all.insert(whose, Arc::downgrade(&turn));
        turn
    }
}

/// Waits for all of them, in this order.
pub(super) async fn take(turns: Vec<Turn>) -> Vec<OwnedSemaphorePermit> {
    let mut taken = Vec::with_capacity(turns.len());
    for turn in turns {
        taken.push(turn.acquire_owned().await.expect("nobody closes a turn"));
    }
    taken
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_shared_while_somebody_has_them_and_forgotten_later() {
        let turns = Turns::new(8, 12);
        let user = |number: usize| Whose::User(format!("u{number}").parse().unwrap());
        let first = turns.of(user(0));
        assert!(Arc::ptr_eq(&first, &turns.of(user(0))));
        assert_eq!(first.available_permits(), 3, "a quarter of the connections");
        assert!(!Arc::ptr_eq(&first, &turns.of(Whose::Story("u0".parse().unwrap()))));
        for number in 1..1_000 {
            turns.of(user(number));
            assert!(turns.all.lock().unwrap().len() <= 32);
        }
        assert!(Arc::ptr_eq(&first, &turns.of(user(0))), "whoever has one keeps it");
    }
}
