//! The limits of a server that peers have run into: how often, and a line in the log now and then.
//!
//! Whoever tries something ten thousand times gets one line a minute for each address and limit, and all of it is counted.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// Connections at a time.
    Connections,
    /// Connections of one address at a time.
    ConnectionsOfAddress,
    /// How long a peer may take to say what it wants.
    Handshake,
    /// Wrong tokens of one address within a minute.
    WrongTokens,
    /// Sessions that use nothing while others need room.
    IdleSession,
    /// What the scans for all clients may hold in memory.
    OfferMemory,
    /// Files that are summed as a whole at a time.
    Sums,
}

impl Bound {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Connections,
        Self::ConnectionsOfAddress,
        Self::Handshake,
        Self::WrongTokens,
        Self::IdleSession,
        Self::OfferMemory,
        Self::Sums,
    ];

    /// What is counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections_refused",
            Self::ConnectionsOfAddress => "connections_of_address_refused",
            Self::Handshake => "handshakes_timed_out",
            Self::WrongTokens => "tokens_refused",
            Self::IdleSession => "idle_sessions_ended",
            Self::OfferMemory => "listings_read_again",
            Self::Sums => "sums_waited",
        }
    }

    fn line(self) -> &'static str {
        match self {
            Self::Connections => "connections refused: --max-connections is reached",
            Self::ConnectionsOfAddress => "connections refused: --max-connections-per-address is reached",
            Self::Handshake => "connections ended: nothing was asked for within --handshake-timeout",
            Self::WrongTokens => "tokens refused: --max-wrong-tokens is reached; wait a minute",
            Self::IdleSession => "idle sessions ended: others need room",
            Self::OfferMemory => {
                "listings are read again: clients do not read their offers, and --offer-memory is used up"
            }
            Self::Sums => "checksums of whole files wait: --max-sums are being taken",
        }
    }

    /// Whether it is an ordinary thing to run into.
    fn is_ordinary(self) -> bool {
        matches!(self, Self::IdleSession | Self::Sums)
    }
}

/// A line each.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Lines about what one address does within that time.
const WARNINGS_MAX: u32 = 100;
/// Addresses that are remembered for that.
const TOLD_MAX: usize = 1024;

/// How often each limit was run into.
#[derive(Debug, Default)]
pub struct Bounds {
    counts: [AtomicU64; Bound::ALL.len()],
    told: Mutex<HashMap<(Bound, Option<IpAddr>), Instant>>,
    /// Warnings of late, by address.
    warned: Mutex<HashMap<Option<IpAddr>, (Instant, u32)>>,
}

impl Bounds {
    /// Whether one more line may be logged about what this peer does. Of those who do it again and again there are enough.
    pub fn may_warn(&self, peer: Option<IpAddr>) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() >= TOLD_MAX {
            warned.retain(|_, (since, _)| since.elapsed() < TOLD_EVERY);
        }
        if warned.len() >= TOLD_MAX {
            return false;
        }
        let (since, count) = warned.entry(peer.map(network_of)).or_insert((Instant::now(), 0));
        if since.elapsed() >= TOLD_EVERY {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        *count <= WARNINGS_MAX
    }

    /// This peer, or nobody in particular, has run into a limit.
    pub fn hit(&self, bound: Bound, peer: Option<IpAddr>) {
        let count = self.counts[bound as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let peer = peer.map(network_of);
        if !self.is_to_be_told(bound, peer) {
            return;
        }
        let address = peer.map_or_else(|| "any".to_owned(), |peer| peer.to_string());
        if bound.is_ordinary() {
            tracing::info!(address, count, "{}", bound.line());
        } else {
            tracing::warn!(address, count, "{}", bound.line());
        }
    }

    fn is_to_be_told(&self, bound: Bound, peer: Option<IpAddr>) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&(bound, peer)).is_some_and(|at| at.elapsed() < TOLD_EVERY) {
            return false;
        }
        if told.len() >= TOLD_MAX {
            told.retain(|_, at| at.elapsed() < TOLD_EVERY);
        }
        // From so many addresses, all that is told is how often.
        let is_told = told.len() < TOLD_MAX;
        if is_told {
            told.insert((bound, peer), Instant::now());
        }
        is_told
    }

    /// How often a limit was run into.
    pub fn count(&self, bound: Bound) -> u64 {
        self.counts[bound as usize].load(Ordering::Relaxed)
    }
}

/// Those that are not 0, by name.
impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hit = Bound::ALL.into_iter().filter(|bound| self.count(*bound) > 0);
        let words: Vec<_> = hit.map(|bound| format!("{}={}", bound.name(), self.count(bound))).collect();
        f.write_str(if words.is_empty() { "none" } else { "" })?;
        f.write_str(&words.join(" "))
    }
}

/// Whoever has one address of an IPv6 network of 64 bits has all of them.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => address.into(),
            None => Ipv6Addr::from(u128::from(address) & (u128::MAX << 64)).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::{Bound, Bounds, TOLD_MAX, WARNINGS_MAX, network_of};

    fn address(nth: u32) -> Option<IpAddr> {
        Some(Ipv4Addr::from(nth).into())
    }

    #[test]
    fn all_of_it_is_counted_and_little_of_it_is_told() {
        let bounds = Bounds::default();
        assert_eq!(bounds.to_string(), "none");
        assert!(bounds.is_to_be_told(Bound::Handshake, address(1)));
        for _ in 0..10 {
            bounds.hit(Bound::Handshake, address(1));
            assert!(!bounds.is_to_be_told(Bound::Handshake, address(1)));
        }
        assert!(bounds.is_to_be_told(Bound::WrongTokens, address(1)));
        (0..2 * TOLD_MAX as u32).for_each(|nth| bounds.hit(Bound::Connections, address(nth)));
        assert_eq!(bounds.told.lock().expect("sound").len(), TOLD_MAX);
        let counts = format!("connections_refused={} handshakes_timed_out=10", 2 * TOLD_MAX);
        assert_eq!(bounds.to_string(), counts);
        for (nth, bound) in Bound::ALL.into_iter().enumerate() {
            assert_eq!(bound as usize, nth);
        }
    }

    #[test]
    fn who_does_it_again_and_again_fills_no_log() {
        let bounds = Bounds::default();
        assert_eq!((0..1000).filter(|_| bounds.may_warn(address(1))).count(), WARNINGS_MAX as usize);
        assert!(bounds.may_warn(address(2)));
        (3..2 * TOLD_MAX as u32).for_each(|nth| _ = bounds.may_warn(address(nth)));
        assert_eq!(bounds.warned.lock().expect("sound").len(), TOLD_MAX);
    }

    #[test]
    fn a_network_of_64_bits_counts_as_one_address() {
        let at = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(network_of(at("2001:db8::1:2")), network_of(at("2001:db8::ffff:0:0:1")));
        assert_ne!(network_of(at("2001:db8::1")), network_of(at("2001:db8:0:1::1")));
        assert_eq!(network_of(at("::ffff:192.0.2.1")), at("192.0.2.1"));
    }
}
