//! What this node listens to: every name with the connection that hears it, and whether it stands.
//!
//! `listen` and `unlisten` come in from the hub; [`super::ear::Ear`] takes from here what to ask its server for and tells here what the
//! server said. Nothing that may have been missed stays untold: a name whose subscription broke is in doubt, and its doubt is
//! delivered as soon as it stands again, before anything else that comes by it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::ear::EarId;
use crate::between::outlets::{Outlets, Target};

/// The names that this node listens to.
pub(crate) struct Hearing {
    names: Mutex<HashMap<Arc<str>, Heard>>,
    outlets: Arc<Outlets>,
    /// Whoever waited longer than this for a name to stand may have gone on without it.
    patience: Duration,
}

struct Heard {
    target: Target,
    wanted: bool,
    ear: EarId,
    /// Whether the last thing said to the server about it was to subscribe.
    asked: bool,
    /// Subscribes and unsubscribes that were sent and not confirmed.
    subscribes: u32,
    unsubscribes: u32,
    stands: bool,
    /// Whether something may have been missed since it last stood.
    doubt: bool,
    /// When it was first wanted, until it stands for the first time.
    wanted_since: Option<Instant>,
    waiting: Vec<oneshot::Sender<()>>,
}

/// What an ear is to say to its server.
#[derive(Default)]
pub(crate) struct Asking {
    pub(crate) subscribe: Vec<Arc<str>>,
    pub(crate) unsubscribe: Vec<Arc<str>>,
}

/// A name that is wanted no more, and whose it was.
pub(crate) enum Unwanted {
    /// Its server has to be told.
    Known(EarId),
    /// Its server was never told of it.
    Unknown(EarId),
}

impl Heard {
    fn break_off(&mut self) {
        self.doubt |= self.stands;
        self.stands = false;
        self.asked = false;
        self.subscribes = 0;
        self.unsubscribes = 0;
    }
}

impl Hearing {
    pub(crate) fn new(outlets: Arc<Outlets>, patience: Duration) -> Self {
        Self { names: Mutex::default(), outlets, patience }
    }

    /// A name is wanted, by way of this ear if it is new. Says which ear is to be woken.
    pub(crate) fn want(&self, name: &Arc<str>, target: impl FnOnce() -> Target, ear: EarId) -> EarId {
        let mut names = self.names.lock();
        let heard = names.entry(name.clone()).or_insert_with(|| Heard {
            target: target(),
            wanted: true,
            ear,
            asked: false,
            subscribes: 0,
            unsubscribes: 0,
            stands: false,
            doubt: false,
            wanted_since: Some(Instant::now()),
            waiting: Vec::new(),
        });
        if !heard.wanted {
            heard.wanted = true;
            heard.wanted_since = Some(Instant::now());
        }
        heard.ear
    }

    /// A name is wanted no more. Says which ear is to be woken, or, if its server knows nothing of the name, is to pass it over.
    pub(crate) fn unwant(&self, name: &str) -> Option<Unwanted> {
        let mut names = self.names.lock();
        let heard = names.get_mut(name)?;
        if !heard.asked && heard.subscribes + heard.unsubscribes == 0 {
            return names.remove(name).map(|heard| Unwanted::Unknown(heard.ear));
        }
        heard.wanted = false;
        heard.waiting.clear();
        // Whoever wants it next reads from there on.
        heard.doubt = false;
        Some(Unwanted::Known(heard.ear))
    }

    /// Something that tells when a name stands; nothing when it does, or nobody wants it.
    pub(crate) fn standing(&self, name: &str) -> Option<oneshot::Receiver<()>> {
        let mut names = self.names.lock();
        let heard = names.get_mut(name).filter(|heard| heard.wanted && !heard.stands)?;
        // Those who gave up waiting are no burden.
        heard.waiting.retain(|waiting| !waiting.is_closed());
        let (sender, receiver) = oneshot::channel();
        heard.waiting.push(sender);
        Some(receiver)
    }

    /// What an ear has to say about these names.
    pub(crate) fn asking(&self, ear: EarId, work: impl Iterator<Item = Arc<str>>) -> Asking {
        let mut names = self.names.lock();
        let mut asking = Asking::default();
        for name in work {
            let Some(heard) = names.get_mut(&name).filter(|heard| heard.ear == ear) else { continue };
            if heard.wanted && !heard.asked {
                heard.asked = true;
                heard.subscribes += 1;
                asking.subscribe.push(name);
            } else if !heard.wanted && heard.asked {
                heard.asked = false;
                heard.stands = false;
                heard.unsubscribes += 1;
                asking.unsubscribe.push(name);
            } else if !heard.wanted && heard.subscribes + heard.unsubscribes == 0 {
                names.remove(&name);
            }
        }
        asking
    }

    /// The server has confirmed a subscribe.
    pub(crate) fn subscribed(&self, ear: EarId, name: &str) {
        let doubted = {
            let mut names = self.names.lock();
            let Some(heard) = names.get_mut(name).filter(|heard| heard.ear == ear) else { return };
            heard.subscribes = heard.subscribes.saturating_sub(1);
            heard.stands = heard.asked && heard.subscribes + heard.unsubscribes == 0;
            if !heard.stands {
                return;
            }
            for waiting in heard.waiting.drain(..) {
                let _ = waiting.send(());
            }
            let waited = heard.wanted_since.take().is_some_and(|since| since.elapsed() > self.patience);
            let doubt = std::mem::take(&mut heard.doubt) || waited;
            doubt.then(|| heard.target.clone())
        };
        if let Some(target) = doubted {
            self.outlets.doubt(&target);
        }
    }

    /// The server has ended a subscription. Says whether nobody had asked it to.
    pub(crate) fn unsubscribed(&self, ear: EarId, name: &str) -> bool {
        let mut names = self.names.lock();
        let Some(heard) = names.get_mut(name).filter(|heard| heard.ear == ear) else { return false };
        if heard.unsubscribes == 0 {
            heard.break_off();
            return heard.wanted;
        }
        heard.unsubscribes -= 1;
        if !heard.wanted && !heard.asked && heard.subscribes + heard.unsubscribes == 0 {
            names.remove(name);
        }
        false
    }

    /// The server refused to subscribe to these; whoever asks again does not wait for it.
    pub(crate) fn refused(&self, ear: EarId, refused: &[Arc<str>]) {
        let mut names = self.names.lock();
        for name in refused {
            if let Some(heard) = names.get_mut(name).filter(|heard| heard.ear == ear && !heard.stands) {
                heard.break_off();
            }
        }
    }

    /// An ear's connection is gone. Says what it is to ask for on the next one.
    pub(crate) fn broke_off(&self, ear: EarId) -> Vec<Arc<str>> {
        let mut names = self.names.lock();
        names.retain(|_, heard| heard.ear != ear || heard.wanted);
        let broken = names.iter_mut().filter(|(_, heard)| heard.ear == ear);
        broken
            .map(|(name, heard)| {
                heard.break_off();
                name.clone()
            })
            .collect()
    }

    /// The servers have divided the names anew. Says which ears have something to ask for.
    pub(crate) fn divide(&self, ear_of: impl Fn(&str) -> EarId) -> Vec<(EarId, Arc<str>)> {
        let mut names = self.names.lock();
        let mut moved = Vec::new();
        for (name, heard) in names.iter_mut() {
            let ear = ear_of(name);
            if heard.ear != ear {
                heard.break_off();
                heard.ear = ear;
            }
            if heard.wanted && !heard.asked {
                moved.push((ear, name.clone()));
            }
        }
        moved
    }

    /// Something was announced by a name.
    pub(crate) fn arrived(&self, name: &str, bytes: Vec<u8>) {
        let target = {
            let names = self.names.lock();
            names.get(name).filter(|heard| heard.wanted).map(|heard| heard.target.clone())
        };
        if let Some(target) = target {
            self.outlets.take(&target, bytes.into());
        }
    }
}
