//! Agreeing on compressed messages (permessage-deflate, RFC 7692): the client's offers in, the answer out.
//!
//! Neither side keeps anything from message to message: our messages are compressed once for many readers, and theirs
//! are inflated in memory that all connections share.

use crate::compression::Window;

/// Offers that are looked at; clients make one to three.
const OFFERS_MAX: usize = 16;

/// What was agreed.
#[derive(Debug, PartialEq, Eq)]
pub struct Deflate {
    /// How far back our messages refer.
    pub window: Window,
    /// Whether the client asked for a small window, and is to be told which.
    says_window: bool,
}

impl Deflate {
    /// The value of `Sec-WebSocket-Extensions` in the answer.
    #[must_use]
    pub fn answer(&self) -> String {
        let window = if self.says_window {
            format!("; server_max_window_bits={}", self.window.bits())
        } else {
            // A client that did not mention it need not know it, and reads any window.
            String::new()
        };
        format!("permessage-deflate; server_no_context_takeover; client_no_context_takeover{window}")
    }
}

/// The first offer that we can honour. Who offers nothing of that kind is spoken to without compression.
/// In go the values of `Sec-WebSocket-Extensions`.
#[must_use]
pub fn agree<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Deflate> {
    // No parameter of this extension may hold a comma, so that one within quotes spoils only its own offer.
    let offers = values.into_iter().flat_map(|value| value.split(','));
    offers.take(OFFERS_MAX).find_map(honoured)
}

/// An offer in which everything is known, well formed and said once (RFC 7692, section 7.1).
fn honoured(offer: &str) -> Option<Deflate> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let mut seen: Vec<&str> = Vec::with_capacity(4);
    let mut deflate = Deflate { window: Window::Wide, says_window: false };
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start()))),
            None => (part, None),
        };
        if seen.contains(&name) {
            return None;
        }
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
            // Ours to use, and any window is read.
            ("client_max_window_bits", Some(bits)) => drop(window_bits(bits)?),
            ("server_max_window_bits", Some(bits)) => {
                deflate = Deflate { window: Window::within(window_bits(bits)?)?, says_window: true };
            }
            _ => return None,
        }
        seen.push(name);
    }
    Some(deflate)
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// 8 to 15, without a leading zero.
fn window_bits(value: &str) -> Option<u8> {
    (8..=15).find(|bits| value == bits.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(offers: &[&str]) -> Option<String> {
        Some(agree(offers.iter().copied())?.answer())
    }

    const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn good_offers_are_honoured() {
        for (offer, window) in [
            ("permessage-deflate", ""),
            ("permessage-deflate; client_max_window_bits", ""),
            ("permessage-deflate;client_max_window_bits=10 ; server_no_context_takeover", ""),
            (
                "permessage-deflate; client_no_context_takeover; server_max_window_bits=15",
                "; server_max_window_bits=12",
            ),
            ("permessage-deflate; server_max_window_bits = \"12\"", "; server_max_window_bits=12"),
            ("permessage-deflate; server_max_window_bits=11", "; server_max_window_bits=9"),
            ("permessage-deflate; server_max_window_bits=9", "; server_max_window_bits=9"),
        ] {
            assert_eq!(answer(&[offer]), Some(format!("{PLAIN}{window}")), "{offer}");
        }
    }

    #[test]
    fn what_we_cannot_honour_is_declined() {
        for offer in [
            "",
            "deflate-frame",
            "permessage-bzip2",
            "permessage-deflate; unknown",
            "permessage-deflate;",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=\"10",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=12",
        ] {
            assert_eq!(answer(&[offer]), None, "{offer}");
        }
    }

    #[test]
    fn the_first_good_offer_counts() {
        let many = ["x, permessage-deflate; server_max_window_bits=8", "permessage-deflate; server_max_window_bits=10"];
        assert_eq!(answer(&many), Some(format!("{PLAIN}; server_max_window_bits=9")));
        let fallback = ["permessage-deflate; mode=9; server_max_window_bits=10, permessage-deflate"];
        assert_eq!(answer(&fallback), Some(PLAIN.to_owned()));
        assert_eq!(answer(&[&["x"; OFFERS_MAX].join(","), "permessage-deflate"]), None);
    }
}
