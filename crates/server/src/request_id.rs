//! The name of one request: taken from who asks, if it can be written into a log, or made here; answered, and in every line of the log
//! that belongs to the request.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::node::Node;

/// The header, as heads that are written by hand spell it.
pub(crate) const NAME: &str = "X-Request-Id";

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest name that is taken over, in bytes.
const BYTES_MAX: usize = 64;

/// Requests of this process that came without a name.
static MADE: AtomicU64 = AtomicU64::new(0);

/// A request's name: letters, digits and `_.-`.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// The name of a request with these headers.
    pub(crate) fn of(node: &Node, headers: &HeaderMap) -> Self {
        let given = headers.get(HEADER).filter(|id| is_sane(id.as_bytes()));
        Self(given.cloned().unwrap_or_else(|| {
            let made = format!("{}-{}", &node.id.as_str()[..8], MADE.fetch_add(1, Ordering::Relaxed));
            HeaderValue::from_str(&made).expect("letters, digits and a dash")
        }))
    }

    /// Says it in an answer.
    pub(crate) fn put(&self, response: &mut Response<Body>) {
        response.headers_mut().insert(HEADER, self.0.clone());
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or(""))
    }
}

fn is_sane(id: &[u8]) -> bool {
    (1..=BYTES_MAX).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_do_no_harm_in_a_log_are_taken_over() {
        assert!(is_sane(b"a-1.B_2") && is_sane(&[b'x'; 64]));
        for bad in [&b""[..], b"a b", b"a\nb", b"{}", "é".as_bytes(), &[b'x'; 65]] {
            assert!(!is_sane(bad), "{bad:?}");
        }
    }
}
