//! The way down of one thread: connections are closed in slices, and what they began is brought to its end.
//!
//! [`crate::server`] calls it when load balancers have had their time to notice. From then on new connections are refused
//! ([`crate::transport::opening`]); requests are answered to the last, each with the word that its socket is not kept.

use std::rc::Rc;
use std::time::Duration;

use talewire_proto::CloseCode;
use talewire_proto::wire::Wire;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::perform;
use crate::reactor::{Peer, Reactor};

/// Time between two slices.
const SLICE: Duration = Duration::from_millis(20);

/// Connections that the whole process closes in a second however long it may take: other nodes take that many without a thought.
const PER_SECOND_MIN: u64 = 1_000;

/// How much longer a command that is being carried out is waited for when its connection's turn has come.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Closes every connection of the thread within the time that there is, and waits until everything has come to its end. `accepting` are
/// the tasks that take sockets in.
pub(crate) async fn drain(reactor: &Rc<Reactor>, accepting: Vec<JoinHandle<()>>) {
    let settings = &reactor.node.settings;
    let left = Duration::from_millis(settings.drain_ms.saturating_sub(settings.drain_wait_ms));
    let until = Instant::now() + left;
    // HTTP/2 says GOAWAY.
    reactor.stop.cancel();
    // Who asks again and again loses nothing by an early answer.
    let polls = |peer: &Rc<Peer>| peer.wire == Wire::Poll;
    close(reactor, reactor.all().iter().filter(|peer| polls(peer)));
    let spread = spread(reactor).min(left / 2);
    let began = Instant::now();
    let most = began + spread + ANSWER_WAIT.min(left / 4);
    loop {
        let open: Vec<_> = reactor.all().into_iter().filter(|peer| !peer.closing.get()).collect();
        if open.is_empty() {
            break;
        }
        // So many slices to come, this one counted in.
        let slices = (began + spread).saturating_duration_since(Instant::now()).as_millis() / SLICE.as_millis() + 1;
        let share = open.len().div_ceil(usize::try_from(slices).unwrap_or(usize::MAX));
        let give_up = Instant::now() >= most;
        close(reactor, open.iter().filter(|peer| give_up || !peer.session.borrow().is_busy()).take(share));
        sleep(SLICE).await;
    }
    let drained = async {
        while reactor.has_peers() {
            sleep(SLICE).await;
        }
        // Until here whoever came was told that there is no room.
        reactor.shut.cancel();
        for task in accepting {
            let _ = task.await;
        }
        // A proxy may be about to use a socket that it has kept: silent ones are closed last of all.
        reactor.last.cancel();
        while !reactor.is_drained() {
            sleep(SLICE).await;
        }
    };
    if timeout_at(until, drained).await.is_err() {
        tracing::warn!(thread = reactor.index, "not everything came to its end in time; the rest is cut off");
    }
}

/// Over how long this thread's connections are closed.
fn spread(reactor: &Reactor) -> Duration {
    let settings = &reactor.node.settings;
    let quick_ms = reactor.node.metrics.open().saturating_mul(1_000) / PER_SECOND_MIN;
    Duration::from_millis(settings.drain_spread_ms.min(quick_ms))
}

/// Closes some connections, each behind everything that it was to be told until now.
fn close<'a>(reactor: &Rc<Reactor>, peers: impl Iterator<Item = &'a Rc<Peer>>) {
    while reactor.take_deliveries() {}
    reactor.shard.borrow_mut().release_all();
    for peer in peers {
        peer.session.borrow_mut().handle_close(CloseCode::Shutdown);
        perform::drive(reactor, peer);
    }
    reactor.flush();
}
