//! Bodies of requests on their way in: whether somebody waits for one, so that a server that goes down need not wait for it.
//!
//! [`crate::accept`] watches the body of every request that has one, and answers the request itself when the rest stays away.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

/// Whether a body is waited for: who has all of it, has no need of it or has not asked for it yet does not wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrival(Arc<AtomicBool>);

impl Arrival {
    /// Watches a body; one that is empty is never waited for.
    pub(crate) fn watch(body: Body) -> (Self, Body) {
        let arrival = Self::default();
        let is_empty = body.is_end_stream();
        let body = if is_empty { body } else { Body::new(Watched { body, arrival: arrival.clone() }) };
        (arrival, body)
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Watched {
    body: Body,
    arrival: Arrival,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.arrival.0.store(frame.is_pending(), Ordering::Relaxed);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.arrival.0.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn a_body_is_awaited_while_somebody_asks_for_what_is_not_there() {
        let context = &mut Context::from_waker(std::task::Waker::noop());
        let (sender, frames) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, axum::Error>>(1);
        let frames = futures_util::stream::unfold(frames, async |mut frames| Some((frames.recv().await?, frames)));
        let (arrival, body) = Arrival::watch(Body::new(http_body_util::StreamBody::new(Box::pin(frames))));
        assert!(!arrival.is_awaited(), "nobody has asked");
        let mut whole = Box::pin(body.collect());
        assert!(whole.as_mut().poll(context).is_pending() && arrival.is_awaited());
        sender.try_send(Ok(Frame::data(Bytes::from_static(b"part")))).expect("room");
        assert!(whole.as_mut().poll(context).is_pending() && arrival.is_awaited(), "for the rest");
        drop(sender);
        assert!(whole.as_mut().poll(context).is_ready() && !arrival.is_awaited(), "it is whole");

        let never = futures_util::stream::pending::<Result<Frame<Bytes>, axum::Error>>();
        let (arrival, body) = Arrival::watch(Body::new(http_body_util::StreamBody::new(never)));
        let mut whole = Box::pin(body.collect());
        assert!(whole.as_mut().poll(context).is_pending() && arrival.is_awaited());
        drop(whole);
        assert!(!arrival.is_awaited(), "nobody wants it any more");
    }
}
