//! Bodies of requests on their way in: whether one has come whole, so that a server that goes down need not wait for it.
//!
//! [`crate::accept`] watches the body of every request that has one, and answers the request itself when the rest stays away.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

/// Whether a body has come whole.
#[derive(Debug, Clone)]
pub(crate) struct Arrival(Arc<AtomicBool>);

impl Arrival {
    /// Watches a body; one that is empty has come.
    pub(crate) fn watch(body: Body) -> (Self, Body) {
        let arrival = Self(Arc::new(AtomicBool::new(body.is_end_stream())));
        let body = if arrival.is_whole() { body } else { Body::new(Watched { body, arrival: arrival.clone() }) };
        (arrival, body)
    }

    pub(crate) fn is_whole(&self) -> bool {
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
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.arrival.0.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_has_come_when_its_end_has() {
        assert!(Arrival::watch(Body::empty()).0.is_whole());
        let (arrival, body) = Arrival::watch(Body::from("all of it"));
        assert!(!arrival.is_whole(), "nobody has read it");
        assert_eq!(body.collect().await.expect("it is there").to_bytes(), "all of it");
        assert!(arrival.is_whole());
    }
}
