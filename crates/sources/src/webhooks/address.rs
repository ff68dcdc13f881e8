//! Where a webhook may go: whatever its name resolves to at that moment, but never into our own network unless an operator
//! says so. The connection is made to the address that was looked at, so that a second look-up cannot change it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::settings::WebhookSettings;

/// The address of a webhook, if it may be used.
pub(crate) fn address(settings: &WebhookSettings) -> Result<Url, String> {
    // Reading it turns every way to write an address of four bytes into four numbers.
    let url = Url::parse(&settings.url).map_err(|error| format!("is not an address: {error}"))?;
    match url.scheme() {
        "https" => {}
        "http" if settings.http_allowed => {}
        "http" => return Err("must begin with https:// (or set http_allowed)".into()),
        other => return Err(format!("must begin with https://, not {other}://")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or a password: deliveries are signed".into());
    }
    let host = url.host_str().unwrap_or_default();
    let literal: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    match literal {
        Some(ip) if !settings.private_allowed && !is_public(ip) => {
            Err(format!("{ip} is not a public address (private_allowed would allow it)"))
        }
        _ => Ok(url),
    }
}

/// Looks names up and gives only addresses that may be used.
pub(super) struct Lookup {
    pub(super) private_allowed: bool,
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let private_allowed = self.private_allowed;
        Box::pin(async move {
            // The port is put in by whoever connects.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(allowed(found, private_allowed)?.into_iter()) as Addrs)
        })
    }
}

fn allowed(
    found: impl Iterator<Item = SocketAddr>,
    private_allowed: bool,
) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
    let found: Vec<SocketAddr> = found.collect();
    // One that is not public among them is no mistake of ours: all are refused.
    match found.iter().find(|address| !private_allowed && !is_public(address.ip())) {
        Some(address) => Err(format!("the name stands for {}, which is not a public address", address.ip()).into()),
        None => Ok(found),
    }
}

/// Whether an address is one of the public internet: not ours, not a neighbour's, and not a wrapping of one.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocols = (a, b, c) == (192, 0, 0) || (a, b, c) == (192, 88, 99);
    let measuring = a == 198 && (b == 18 || b == 19);
    !(a == 0
        || a >= 224
        || shared
        || protocols
        || measuring
        || ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_documentation())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let parts = ip.segments();
    let wrapped = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        // Addresses of four bytes behind a gateway, or in a tunnel.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => wrapped(high, low),
        // Teredo and other protocols' own, and examples.
        [0x2001, second, ..] => second >= 0x200 && second != 0xdb8,
        [0x3fff, second, ..] => second >= 0x1000,
        // What is handed out to the public begins with the bits 001; mapped addresses, loopback and local ones do not.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, http_allowed: bool, private_allowed: bool) -> Result<Url, String> {
        address(&WebhookSettings { url: url.into(), http_allowed, private_allowed, ..WebhookSettings::default() })
    }

    #[test]
    fn only_public_addresses_may_be_named() {
        let inside = [
            "127.0.0.1",
            "2130706433",
            "0x7f.1",
            "017700000001",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::7f00:1]",
            "[fe80::1]",
            "[fc00::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::1]",
            "[2002:7f00:1::]",
            "[2001::1]",
            "[2001:db8::1]",
            "[3fff::1]",
        ];
        for host in inside {
            let refused = check(&format!("https://{host}/x"), false, false).expect_err(host);
            assert!(refused.contains("not a public address"), "{host}: {refused}");
            assert!(check(&format!("https://{host}/x"), false, true).is_ok(), "{host}");
        }
        let outside = ["1.1.1.1", "172.32.0.1", "100.128.0.1", "[2606:4700::1]", "[64:ff9b::101:101]", "example.org"];
        for host in outside {
            assert!(check(&format!("https://{host}/x"), false, false).is_ok(), "{host}");
        }
    }

    #[test]
    fn the_way_is_encrypted_unless_an_operator_says_otherwise() {
        for bad in [
            "http://example.org",
            "ftp://example.org",
            "example.org",
            "",
            "https://u:p@example.org",
            "https://",
            "https://:99999",
            "https://a:99999",
            "https://a b",
        ] {
            assert!(check(bad, false, false).is_err(), "{bad}");
        }
        assert!(check("http://example.org", true, false).is_ok());
    }

    #[test]
    fn a_name_that_stands_for_an_inner_address_too_is_refused() {
        let found = |hosts: &[&str]| {
            let found: Vec<SocketAddr> =
                hosts.iter().map(|host| SocketAddr::new(host.parse().expect("an address"), 0)).collect();
            found.into_iter()
        };
        assert_eq!(allowed(found(&["1.1.1.1"]), false).expect("public").len(), 1);
        let refused = allowed(found(&["1.1.1.1", "169.254.169.254"]), false).expect_err("one is not public");
        assert!(refused.to_string().contains("169.254.169.254"), "{refused}");
        assert_eq!(allowed(found(&["1.1.1.1", "::1"]), true).expect("allowed").len(), 2);
    }
}
