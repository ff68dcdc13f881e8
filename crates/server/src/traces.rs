//! Which publications are followed through the nodes, and the spans that this node adds: one for a publish, from the request to its
//! acknowledgement, and one on every node for the delivery to its sockets.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use talewire_proto::Channel;
use talewire_proto::trace::{Span, SpanSink, Trace};

/// What is followed, and where its spans go.
pub struct Traces {
    /// Takes the spans.
    pub sink: SpanSink,
    /// The share of publications of clients that is followed, from 0 to 1. Those of server programs are followed where their request
    /// says so.
    pub ratio: f64,
}

/// A span that has begun.
pub(crate) struct Begun {
    /// Where what happens meanwhile belongs.
    pub(crate) trace: Trace,
    parent: u64,
    name: &'static str,
    began_ns: u64,
}

tokio::task_local! {
    /// What the request under way belongs to.
    static ASKED: Option<Trace>;
}

/// Does what a request asks for; what is published meanwhile belongs to the trace that the request names.
pub(crate) async fn within<T>(header: Option<&str>, work: impl Future<Output = T>) -> T {
    ASKED.scope(header.and_then(Trace::of_header), work).await
}

impl Traces {
    /// The span of a publish, if it is followed.
    pub(crate) fn publish(&self) -> Option<Begun> {
        let asked = ASKED.try_with(|asked| *asked).ok().flatten();
        let trace = match asked {
            Some(parent) => parent,
            None if fastrand::f64() < self.ratio => {
                Trace { id: u128::from(random()) << 64 | u128::from(random()), span: 0 }
            }
            None => return None,
        };
        Some(Begun { trace: trace.child(random()), parent: trace.span, name: "publish", began_ns: now_ns() })
    }

    pub(crate) fn end(&self, begun: &Begun, channel: &Channel, done: bool) {
        let Begun { trace, parent, name, began_ns } = *begun;
        let channel = channel.clone();
        (self.sink)(Span { trace, parent, name, began_ns, ended_ns: now_ns(), channel, done });
    }

    /// A followed publication was written to this node's sockets, so long after it came here.
    pub(crate) fn delivered(&self, parent: Trace, channel: Channel, after: Duration) {
        let ended_ns = now_ns();
        let began_ns = ended_ns.saturating_sub(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
        let trace = parent.child(random());
        (self.sink)(Span { trace, parent: parent.span, name: "deliver", began_ns, ended_ns, channel, done: true });
    }
}

/// A number other than 0; nobody has to be unable to guess it.
fn random() -> u64 {
    fastrand::u64(1..)
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
