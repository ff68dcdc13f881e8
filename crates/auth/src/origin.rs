//! From which pages a browser may reach us: `Origin` and `Host` headers in, yes or a reason out.
//!
//! A WebSocket is not bound by the same-origin policy, and a cookie goes along with every request: without this, any
//! page could speak as the person who looks at it. Asked by the server's guard before anything is upgraded or read.

use crate::error::{BadSettings, OriginRefusal};

/// What the request shows who it is by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// A cookie, which a browser sends by itself: the origin must be there and allowed.
    Cookie,
    /// A token or key that the page had to know, or nothing at all: programs without an `Origin` are let in.
    Explicit,
}

/// Under which names the server may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// Any: the server listens to the network, where names are the operator's matter.
    Any,
    /// Loopback names and those of the allowed origins only. A page whose own name was made to point to 127.0.0.1 (DNS
    /// rebinding) would otherwise be of the "same origin".
    Loopback,
}

/// The pages that may come: our own, and those that are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginRule {
    allowed: Vec<Origin>,
    hosts: Hosts,
}

/// One origin, in lower case, without its scheme's own port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: Scheme,
    authority: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl OriginRule {
    /// Takes origins that are allowed beside our own.
    ///
    /// # Errors
    /// [`BadSettings::Origin`] for one that no browser could send.
    pub fn new(allowed: &[String], hosts: Hosts) -> Result<Self, BadSettings> {
        Ok(Self { allowed: parse_all(allowed)?, hosts })
    }

    /// Checks the values of all `Origin` headers and that of `Host` (or HTTP/2's `:authority`).
    ///
    /// # Errors
    /// [`OriginRefusal`]; the answer is 403, before anything is upgraded or read.
    pub fn check<'a>(
        &self,
        origins: impl IntoIterator<Item = &'a [u8]>,
        host: Option<&str>,
        credentials: Credentials,
    ) -> Result<(), OriginRefusal> {
        if self.hosts == Hosts::Loopback && !host.is_some_and(|host| self.is_known_host(host)) {
            return Err(OriginRefusal::Host);
        }
        let mut origins = origins.into_iter();
        let (first, second) = (origins.next(), origins.next());
        let origin = match (first, second) {
            (Some(_), Some(_)) => return Err(OriginRefusal::Several),
            (None, _) if credentials == Credentials::Cookie => return Err(OriginRefusal::Missing),
            (None, _) => return Ok(()),
            (Some(origin), None) => std::str::from_utf8(origin).ok().and_then(Origin::parse),
        };
        let origin = origin.ok_or(OriginRefusal::Malformed)?;
        if self.allowed.contains(&origin) || host.is_some_and(|host| origin.is_at(host)) {
            return Ok(());
        }
        Err(OriginRefusal::Foreign)
    }

    fn is_known_host(&self, host: &str) -> bool {
        let Some((name, _)) = split_authority(host) else { return false };
        let name = name.to_ascii_lowercase();
        let loopback_address =
            name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let loopback_name = name == "localhost" || name.ends_with(".localhost");
        loopback_address || loopback_name || self.allowed.iter().any(|origin| origin.is_at(host))
    }
}

impl Origin {
    /// Exactly `scheme://host[:port]` with http or https: no path, no user, no wildcard, no white space.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        Some(Self { scheme, authority: canonical(authority, scheme)? })
    }

    /// Whether a page of this origin talks to the host that it came from. The server may stand behind a proxy that ends
    /// TLS, so that a `Host` without a port means the port of the origin's scheme.
    fn is_at(&self, host: &str) -> bool {
        canonical(host, self.scheme).is_some_and(|host| host == self.authority)
    }
}

pub(crate) fn parse_all(origins: &[String]) -> Result<Vec<Origin>, BadSettings> {
    let parse = |text: &String| Origin::parse(text).ok_or_else(|| BadSettings::Origin(text.clone()));
    origins.iter().map(parse).collect()
}

fn canonical(authority: &str, scheme: Scheme) -> Option<String> {
    let (name, port) = split_authority(authority)?;
    let name = name.to_ascii_lowercase();
    let own_port = match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    };
    Some(match port.filter(|port| *port != own_port) {
        Some(port) => format!("{name}:{port}"),
        None => name,
    })
}

/// Splits `host[:port]` with a plain host: a DNS name, an IPv4 address, or an IPv6 address in brackets.
fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (authority, None),
    };
    let port = match port {
        None => None,
        // "+80" and "" are numbers for some parsers and not for others.
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
    };
    let plain = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            (1..=253).contains(&name.len()) && name.bytes().all(allowed) && !name.split('.').any(str::is_empty)
        }
    };
    plain.then_some((name, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    use OriginRefusal::{Foreign, Host, Malformed, Missing, Several};

    fn rule(hosts: Hosts) -> OriginRule {
        let allowed = ["https://app.example".to_owned(), "http://dev.example:5173".to_owned()];
        OriginRule::new(&allowed, hosts).expect("plain origins")
    }

    #[track_caller]
    fn check(origins: &[&str], host: &str, expected: Result<(), OriginRefusal>) {
        let values = origins.iter().map(|o| o.as_bytes());
        assert_eq!(rule(Hosts::Any).check(values, Some(host), Credentials::Cookie), expected, "{origins:?} at {host}");
    }

    #[test]
    fn our_own_pages_and_listed_ones_come_in() {
        check(&["http://localhost:8000"], "localhost:8000", Ok(()));
        check(&["http://LocalHost:8000"], "localhost:8000", Ok(()));
        check(&["https://tales.example"], "tales.example", Ok(()));
        check(&["https://tales.example"], "tales.example:443", Ok(()));
        check(&["http://tales.example"], "tales.example:80", Ok(()));
        check(&["http://[::1]:8000"], "[::1]:8000", Ok(()));
        check(&["https://app.example"], "api.example", Ok(()));
        check(&["http://dev.example:5173"], "localhost:8000", Ok(()));
    }

    #[test]
    fn everybody_else_stays_out() {
        check(&[], "tales.example", Err(Missing));
        check(&["https://tales.example", "https://tales.example"], "tales.example", Err(Several));
        check(&["https://evil.example"], "tales.example", Err(Foreign));
        check(&["https://app.example.evil"], "api.example", Err(Foreign));
        check(&["https://evilapp.example"], "api.example", Err(Foreign));
        check(&["https://x.app.example"], "api.example", Err(Foreign));
        check(&["http://app.example"], "api.example", Err(Foreign));
        check(&["https://app.example:8443"], "api.example", Err(Foreign));
        check(&["http://localhost:8001"], "localhost:8000", Err(Foreign));
        check(&["http://tales.example:443"], "tales.example", Err(Foreign));
    }

    #[test]
    fn what_is_no_plain_origin_is_no_origin() {
        for origin in [
            "null",
            "",
            "*",
            "https://",
            "https://*",
            "tales.example",
            "//tales.example",
            "https://tales.example/",
            "https://tales.example/x",
            "https://tales.example?x",
            "https://tales.example#x",
            "https://me@tales.example",
            "https://tales.example https://evil.example",
            "https://tales.example,https://evil.example",
            " https://tales.example",
            "https://tales.example\\@evil.example",
            "https://tales.example.",
            "https://.example",
            "https://tales.example:",
            "https://tales.example:+443",
            "https://tales.example:99999",
            "file://tales.example",
            "chrome-extension://abc",
            "ws://tales.example",
            "javascript://tales.example",
            "https://[::1",
            "https://[evil]",
            "https://tales\u{202e}.example",
        ] {
            check(&[origin], "tales.example", Err(Malformed));
        }
        let bytes: [&[u8]; 1] = [b"https://tales.example\xff"];
        assert_eq!(rule(Hosts::Any).check(bytes, Some("tales.example"), Credentials::Cookie), Err(Malformed));
    }

    #[test]
    fn programs_need_no_origin_but_may_not_lie_with_one() {
        let check = |origins: &[&str], host: Option<&str>| {
            rule(Hosts::Any).check(origins.iter().map(|o| o.as_bytes()), host, Credentials::Explicit)
        };
        assert_eq!(check(&[], Some("tales.example")), Ok(()));
        assert_eq!(check(&[], None), Ok(()));
        assert_eq!(check(&["https://evil.example"], Some("tales.example")), Err(Foreign));
        assert_eq!(check(&["https://tales.example"], None), Err(Foreign));
    }

    #[test]
    fn a_name_that_was_made_to_point_to_loopback_is_refused() {
        let check = |host: Option<&str>| {
            let origin = format!("http://{}", host.unwrap_or("localhost"));
            rule(Hosts::Loopback).check([origin.as_bytes()], host, Credentials::Cookie)
        };
        for host in ["localhost:8000", "LOCALHOST", "127.0.0.1:8000", "127.8.8.8", "[::1]:8000", "tw.localhost:8000"] {
            assert_eq!(check(Some(host)), Ok(()), "{host}");
        }
        for host in [
            "evil.example:8000",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "",
            "a b",
        ] {
            assert_eq!(check(Some(host)), Err(Host), "{host}");
        }
        assert_eq!(check(None), Err(Host));
        assert_eq!(check(Some("dev.example:5173")), Ok(()));
    }

    #[test]
    fn a_listed_origin_must_be_plain() {
        for bad in ["*", "https://*.example", "app.example", "https://app.example/", "null"] {
            assert_eq!(OriginRule::new(&[bad.to_owned()], Hosts::Any), Err(BadSettings::Origin(bad.into())));
        }
    }
}
