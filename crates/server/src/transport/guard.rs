//! Before anything is parsed: how many sockets there may be, and how fast one address may ask.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderMap;
use parking_lot::Mutex;

use crate::network::Network;
use crate::settings::ServerSettings;

/// Caps and rates of the whole process.
#[derive(Debug)]
pub(crate) struct Guard {
    shared: Arc<Shared>,
    /// Connections by the hash of their user. Two users may share one by chance, and then a limit.
    users: Mutex<HashMap<u32, u32>>,
    per_user_max: u32,
    logins: Rates,
    requests: Rates,
}

#[derive(Debug)]
struct Shared {
    sockets: AtomicUsize,
    strangers: AtomicUsize,
    by_ip: Mutex<HashMap<IpAddr, Count>>,
    sockets_max: usize,
    per_ip_max: usize,
    strangers_max: usize,
    strangers_per_ip_max: usize,
    trusted: Vec<Network>,
}

/// Sockets of one address.
#[derive(Debug, Default)]
struct Count {
    sockets: usize,
    strangers: usize,
}

/// Why a socket was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// Too many sockets in all.
    Sockets,
    /// Too many from this address.
    SocketsPerIp,
    /// Too many on which nobody has said who they are.
    Strangers,
    /// Too many such from this address.
    StrangersPerIp,
}

impl Turned {
    pub(crate) const ALL: [Self; 4] = [Self::Sockets, Self::SocketsPerIp, Self::Strangers, Self::StrangersPerIp];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::SocketsPerIp => "sockets_per_ip",
            Self::Strangers => "strangers",
            Self::StrangersPerIp => "strangers_per_ip",
        }
    }
}

/// A socket's place; dropping it gives the place back.
pub(crate) struct Permit {
    shared: Arc<Shared>,
    ip: IpAddr,
    known: bool,
}

impl Permit {
    /// Somebody has said who they are on this socket.
    pub(crate) fn known(&mut self) {
        if !self.known {
            self.known = true;
            self.shared.strangers.fetch_sub(1, Ordering::Relaxed);
            if let Some(count) = self.shared.by_ip.lock().get_mut(&self.ip) {
                count.strangers -= 1;
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.known();
        self.shared.sockets.fetch_sub(1, Ordering::Relaxed);
        let mut by_ip = self.shared.by_ip.lock();
        if let Some(count) = by_ip.get_mut(&self.ip) {
            count.sockets -= 1;
            if count.sockets == 0 {
                by_ip.remove(&self.ip);
            }
        }
    }
}

impl Guard {
    pub(crate) fn new(settings: &ServerSettings) -> Self {
        let minute = Duration::from_secs(60);
        let login_interval = minute / settings.logins_per_minute.max(1);
        let request_interval = Duration::from_secs(1) / settings.requests_per_second.max(1);
        Self {
            shared: Arc::new(Shared {
                sockets: AtomicUsize::new(0),
                strangers: AtomicUsize::new(0),
                by_ip: Mutex::default(),
                sockets_max: settings.sockets_max,
                per_ip_max: settings.sockets_per_ip_max,
                strangers_max: settings.strangers_max,
                strangers_per_ip_max: settings.strangers_per_ip_max,
                trusted: settings.trusted_proxies.clone(),
            }),
            users: Mutex::default(),
            per_user_max: settings.connections_per_user_max,
            logins: Rates::new(settings.login_burst, login_interval, settings.rates_kept_max),
            requests: Rates::new(settings.request_burst, request_interval, settings.rates_kept_max),
        }
    }

    /// A place for a new socket.
    pub(crate) fn admit(&self, ip: IpAddr) -> Result<Permit, Turned> {
        let shared = &self.shared;
        let counted = !is_in(&shared.trusted, ip);
        let ip = household(ip);
        if !count_up(&shared.sockets, shared.sockets_max) {
            return Err(Turned::Sockets);
        }
        if !count_up(&shared.strangers, shared.strangers_max) {
            shared.sockets.fetch_sub(1, Ordering::Relaxed);
            return Err(Turned::Strangers);
        }
        let mut by_ip = shared.by_ip.lock();
        let count = by_ip.entry(ip).or_default();
        // Behind a proxy everybody has the proxy's address.
        let over = match () {
            () if counted && count.sockets >= shared.per_ip_max => Some(Turned::SocketsPerIp),
            () if counted && count.strangers >= shared.strangers_per_ip_max => Some(Turned::StrangersPerIp),
            () => None,
        };
        if let Some(turned) = over {
            shared.sockets.fetch_sub(1, Ordering::Relaxed);
            shared.strangers.fetch_sub(1, Ordering::Relaxed);
            return Err(turned);
        }
        count.sockets += 1;
        count.strangers += 1;
        Ok(Permit { shared: shared.clone(), ip, known: false })
    }

    /// Whether a user, named by a hash, may have one more connection; it is given back by [`Guard::leave`].
    pub(crate) fn enter(&self, user: u32) -> bool {
        let mut users = self.users.lock();
        let count = users.entry(user).or_default();
        let is_room = *count < self.per_user_max;
        *count += u32::from(is_room);
        is_room
    }

    /// Whether a user may have connections here. Two users may share a hash.
    pub(crate) fn is_here(&self, user: u32) -> bool {
        self.users.lock().contains_key(&user)
    }

    /// One connection of a user is over.
    pub(crate) fn leave(&self, user: u32) {
        let mut users = self.users.lock();
        if let Some(count) = users.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&user);
            }
        }
    }

    /// Users with connections, told apart by their hashes.
    pub(crate) fn users(&self) -> u64 {
        self.users.lock().len() as u64
    }

    /// Open sockets, and those on which nobody has said who they are.
    pub(crate) fn sockets(&self) -> (usize, usize) {
        (self.shared.sockets.load(Ordering::Relaxed), self.shared.strangers.load(Ordering::Relaxed))
    }

    /// Whose request it is: the peer's, or, where the peer is a proxy that is trusted, whom that proxy names last.
    pub(crate) fn visitor(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !is_in(&self.shared.trusted, peer) {
            return peer;
        }
        // The last entry alone is the proxy's own; those before it are whatever the client sent.
        let last = headers.get_all("x-forwarded-for").into_iter().next_back().and_then(|value| value.to_str().ok());
        let named = last.and_then(|value| value.rsplit(',').next()).and_then(|ip| ip.trim().parse().ok());
        named.unwrap_or(peer)
    }

    /// Whether this address may log in once more now; if not, when it may.
    pub(crate) fn login(&self, ip: IpAddr) -> Result<(), Duration> {
        self.logins.take(ip)
    }

    /// Whether this address may ask once more now; if not, when it may.
    pub(crate) fn request(&self, ip: IpAddr) -> Result<(), Duration> {
        self.requests.take(ip)
    }
}

fn is_in(networks: &[Network], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(ip))
}

/// Whose address it is, as far as an address says: of IPv6 everybody has as many as they like, and a network of 64 bits at least.
fn household(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (!0 << 64)).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

fn count_up(counter: &AtomicUsize, max: usize) -> bool {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1)).is_ok()
}

/// A rate for each address: the generic cell rate algorithm, one time per address.
#[derive(Debug)]
struct Rates {
    interval: Duration,
    burst: u32,
    kept_max: usize,
    full_at: Mutex<Buckets>,
}

/// Two generations of at most half the size each: when the young one is full it becomes the old one, and the old one is forgotten. Who
/// keeps asking moves back to the young one, so that a flood of new addresses gives nobody a fresh bucket who is asking now.
#[derive(Debug, Default)]
struct Buckets {
    young: HashMap<IpAddr, Instant>,
    old: HashMap<IpAddr, Instant>,
}

impl Rates {
    fn new(burst: u32, interval: Duration, kept_max: usize) -> Self {
        Self { interval, burst: burst.max(1), kept_max, full_at: Mutex::default() }
    }

    fn take(&self, ip: IpAddr) -> Result<(), Duration> {
        let now = Instant::now();
        let ip = household(ip);
        let Buckets { young, old } = &mut *self.full_at.lock();
        let full_at = young.get(&ip).copied().or_else(|| old.remove(&ip)).unwrap_or(now);
        let next = full_at.max(now) + self.interval;
        let most = now + self.interval * self.burst;
        let taken = if next > most { Err(next - most) } else { Ok(()) };
        if young.len() >= self.kept_max.div_ceil(2) && !young.contains_key(&ip) {
            *old = std::mem::take(young);
        }
        young.insert(ip, if taken.is_ok() { next } else { full_at });
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn places_are_given_back() {
        let settings =
            ServerSettings { sockets_max: 3, sockets_per_ip_max: 2, strangers_max: 2, ..ServerSettings::default() };
        let guard = Guard::new(&settings);
        let mut first = guard.admit(HERE).expect("room");
        let second = guard.admit(HERE).expect("room");
        assert_eq!(guard.admit([10, 0, 0, 1].into()).err(), Some(Turned::Strangers));
        first.known();
        assert_eq!(guard.admit(HERE).err(), Some(Turned::SocketsPerIp));
        drop(second);
        assert!(guard.admit(HERE).is_ok());
        drop(first);
        assert_eq!(guard.sockets(), (0, 0));
        assert!(guard.shared.by_ip.lock().is_empty());
    }

    #[test]
    fn a_user_has_so_many_connections() {
        let guard = Guard::new(&ServerSettings { connections_per_user_max: 2, ..ServerSettings::default() });
        assert!(guard.enter(7) && guard.enter(7) && guard.enter(8));
        assert!(!guard.enter(7));
        guard.leave(7);
        assert!(guard.enter(7));
        [7, 7, 8].into_iter().for_each(|user| guard.leave(user));
        assert!(guard.users.lock().is_empty());
    }

    #[test]
    fn silent_sockets_of_one_address_leave_room_for_others() {
        let proxy = IpAddr::from([10, 0, 0, 9]);
        let settings = ServerSettings {
            strangers_per_ip_max: 1,
            trusted_proxies: vec![proxy.into()],
            ..ServerSettings::default()
        };
        let guard = Guard::new(&settings);
        let mut first = guard.admit(HERE).expect("room");
        assert_eq!(guard.admit(HERE).err(), Some(Turned::StrangersPerIp));
        assert!(guard.admit([10, 0, 0, 1].into()).is_ok());
        first.known();
        let second = guard.admit(HERE).expect("the first is no stranger any more");
        drop((first, second));
        let many: Vec<Permit> = (0..5).filter_map(|_| guard.admit(proxy).ok()).collect();
        assert_eq!(many.len(), 5, "behind a proxy everybody has its address");
        drop(many);
        assert_eq!(guard.sockets(), (0, 0));
        assert!(guard.shared.by_ip.lock().is_empty());
    }

    #[test]
    fn only_a_trusted_proxys_own_word_is_believed() {
        let proxy = IpAddr::from([10, 0, 0, 9]);
        let network = "10.0.0.0/24".parse().expect("a network");
        let guard = Guard::new(&ServerSettings { trusted_proxies: vec![network], ..ServerSettings::default() });
        let headers = |value: &str| {
            HeaderMap::from_iter([(http::HeaderName::from_static("x-forwarded-for"), value.parse().expect("a value"))])
        };
        assert_eq!(guard.visitor(proxy, &headers("6.6.6.6, 1.2.3.4")), IpAddr::from([1, 2, 3, 4]));
        assert_eq!(guard.visitor(HERE, &headers("1.2.3.4")), HERE);
        assert_eq!(guard.visitor([10, 0, 1, 9].into(), &headers("1.2.3.4")), IpAddr::from([10, 0, 1, 9]));
        assert_eq!(guard.visitor(proxy, &headers("1.2.3.4, nonsense")), proxy);
        assert_eq!(guard.visitor(proxy, &HeaderMap::new()), proxy);
    }

    #[test]
    fn a_rate_is_kept_for_each_address_and_says_when_to_come_back() {
        let rates = Rates::new(2, Duration::from_secs(60), 10);
        assert!(rates.take(HERE).is_ok() && rates.take(HERE).is_ok());
        let wait = rates.take(HERE).expect_err("the burst is used up");
        assert!(wait > Duration::from_secs(50) && wait <= Duration::from_secs(60));
        assert!(rates.take([10, 0, 0, 1].into()).is_ok());
    }

    #[test]
    fn a_flood_of_addresses_frees_nobody_who_is_asking() {
        let rates = Rates::new(1, Duration::from_secs(60), 10);
        assert!(rates.take(HERE).is_ok());
        for n in 0..200u8 {
            assert!(rates.take([10, 0, 0, n].into()).is_ok());
            assert!(rates.take(HERE).is_err(), "after {n}");
            let Buckets { young, old } = &*rates.full_at.lock();
            assert!(young.len() + old.len() <= 10);
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let rates = Rates::new(1, Duration::from_secs(60), 10);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(rates.take(ip("2001:db8:1:2::1")).is_ok());
        assert!(rates.take(ip("2001:db8:1:2:ffff::9")).is_err());
        assert!(rates.take(ip("2001:db8:1:3::1")).is_ok());
        assert!(rates.take(ip("::ffff:10.0.0.1")).is_ok());
        assert!(rates.take(ip("10.0.0.1")).is_err(), "the same, written in two ways");
        let settings = ServerSettings { sockets_per_ip_max: 1, ..ServerSettings::default() };
        let guard = Guard::new(&settings);
        let first = guard.admit(ip("2001:db8:1:2::1")).expect("room");
        assert_eq!(guard.admit(ip("2001:db8:1:2::2")).err(), Some(Turned::SocketsPerIp));
        drop(first);
        assert!(guard.admit(ip("2001:db8:1:2::2")).is_ok());
    }
}
