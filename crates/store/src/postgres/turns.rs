//! Turns in this node before those in the database. Operations that lock the same row or wait for the same advisory lock are done one after
//! the other in any case: in the database each of them would hold a connection while it waits, and a locked story would stop its whole
//! node. Called by the operations of [`super::Postgres`], before they take a connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use talewire_proto::{StoryId, UserId};
use tokio::sync::OwnedMutexGuard;

/// One of its kind is under way in the database, and the others wait.
pub(super) type Turn = Arc<tokio::sync::Mutex<()>>;

/// Whose turns there are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    User(UserId),
    Story(StoryId),
}

/// The turns that somebody has or waits for, and some that nobody does any more.
pub(super) struct Turns {
    all: Mutex<HashMap<Whose, Weak<tokio::sync::Mutex<()>>>>,
    /// With so many, those that nobody waits for are forgotten. Each operation has two at most, so that it is half of them at least.
    most: usize,
}

impl Turns {
    /// For so many operations at once.
    pub(super) fn new(operations_max: usize) -> Self {
        Self { all: Mutex::default(), most: operations_max.saturating_mul(4).max(16) }
    }

    pub(super) fn of(&self, whose: Whose) -> Turn {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = all.get(&whose).and_then(Weak::upgrade) {
            return turn;
        }
        if all.len() >= self.most {
            all.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Turn::default();
        all.insert(whose, Arc::downgrade(&turn));
        turn
    }
}

/// Waits for all of them, in this order.
pub(super) async fn take(turns: Vec<Turn>) -> Vec<OwnedMutexGuard<()>> {
    let mut taken = Vec::with_capacity(turns.len());
    for turn in turns {
        taken.push(turn.lock_owned().await);
    }
    taken
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_shared_while_somebody_has_them_and_forgotten_later() {
        let turns = Turns::new(8);
        let user = |number: usize| Whose::User(format!("u{number}").parse().unwrap());
        let first = turns.of(user(0));
        assert!(Arc::ptr_eq(&first, &turns.of(user(0))));
        assert!(!Arc::ptr_eq(&first, &turns.of(Whose::Story("u0".parse().unwrap()))));
        for number in 1..1_000 {
            turns.of(user(number));
            assert!(turns.all.lock().unwrap().len() <= 32);
        }
        assert!(Arc::ptr_eq(&first, &turns.of(user(0))), "whoever has one keeps it");
    }
}
