//! Addresses of proxies as an operator writes them: `10.0.0.9`, or a whole network as `10.0.0.0/8`. Text in, whether an address
//! is inside out. Used by the settings, and by the guard for every socket.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One address, or a network of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// In its canonical form: never IPv4 written as IPv6.
    address: IpAddr,
    /// How many of the first bits count.
    bits: u8,
}

impl Network {
    /// Whether this address is inside.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => {
                (ours.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(ours), IpAddr::V6(other)) => {
                (ours.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

/// A text that names no address and no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an address such as 10.0.0.9 nor a network such as 10.0.0.0/8")]
pub struct NoNetwork(String);

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let no = || NoNetwork(text.to_owned());
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let written: IpAddr = address.parse().map_err(|_| no())?;
        let address = written.to_canonical();
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(whole), |bits| bits.parse().map_err(|_| no()))?;
        // A network of IPv4 is written as one: what bits of the other form mean is anybody's guess.
        if bits > whole || (bits < whole && written != address) {
            return Err(no());
        }
        Ok(Self { address, bits })
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, bits } = self;
        if *self == Self::from(*address) { write!(f, "{address}") } else { write!(f, "{address}/{bits}") }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(network: &str, inside: &[&str], outside: &[&str]) {
        let parsed: Network = network.parse().expect("a network");
        assert_eq!(parsed.to_string(), network);
        let contains = |text: &&str| parsed.contains(text.parse().expect("an address"));
        assert!(inside.iter().all(contains), "{network}");
        assert!(!outside.iter().any(contains), "{network}");
    }

    #[test]
    fn an_address_is_inside_or_not() {
        check("10.0.0.9", &["10.0.0.9", "::ffff:10.0.0.9"], &["10.0.0.8", "::a00:9"]);
        check("10.0.0.0/8", &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], &["11.0.0.0", "9.255.255.255"]);
        check("192.168.4.0/22", &["192.168.4.1", "192.168.7.255"], &["192.168.8.0", "192.168.3.255"]);
        check("0.0.0.0/0", &["1.2.3.4", "255.255.255.255"], &["::1"]);
        check("2001:db8::/32", &["2001:db8:ffff::1"], &["2001:db9::1", "10.0.0.1"]);
        check("::1", &["::1"], &["::2", "0.0.0.1"]);
        check("fd00::/8", &["fdff::1"], &["fe00::1"]);
    }

    #[test]
    fn everything_else_is_a_mistake() {
        for text in [
            "",
            "proxy",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "10.0.0/8",
            "::/129",
            "::ffff:10.0.0.0/104",
            " 10.0.0.1",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NoNetwork(text.to_owned())));
        }
        assert_eq!("::ffff:10.0.0.9".parse::<Network>().map(|one| one.to_string()), Ok("10.0.0.9".to_owned()));
    }
}
