//! The brake on guessing: who failed to log in too often is not listened to for a while.
//!
//! Counted by user name first, because whole fleets come from one address; by address with ten
//! times the patience. An address from which a user has logged in has a count of its own for this
//! user: no stranger elsewhere can shut the user out by guessing. Names and addresses are kept as
//! keyed hashes, and their number is bounded.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use crate::ids::Timestamp;

/// Failures are counted for so long, and then forgotten.
const WINDOW: Duration = Duration::from_secs(60);

/// How many times the failures of a user name an address may have.
const ADDRESS_FACTOR: u32 = 10;

/// Names and addresses that are counted at once.
const COUNTED_MAX: usize = 65_536;

/// Users at their addresses that are remembered from one generation; there are two.
const KNOWN_MAX: usize = 65_536;

/// Where a login comes from, and under which name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// The name it claims; empty where it has claimed none, which counts for no name.
    pub(super) user: &'a str,
    /// Where it is connected from; nowhere for a program on this machine.
    pub(super) address: Option<IpAddr>,
}

/// Failed logins of the last minute.
#[derive(Debug)]
pub(super) struct Failures {
    max: u32,
    hasher: RandomState,
    counts: HashMap<u64, Count, RandomState>,
    /// Users at the addresses from which they have logged in last, and those before them.
    known: [HashSet<u64, RandomState>; 2],
}

#[derive(Clone, Copy, Debug)]
struct Count {
    since: Timestamp,
    failures: u32,
    max: u32,
}

impl Count {
    fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.since) >= WINDOW
    }
}

impl Failures {
    /// None yet; `max` of one user name in a minute are too many. The hasher must be secret.
    pub(super) fn new(max: u32, hasher: RandomState) -> Self {
        let known = [(); 2].map(|()| HashSet::with_hasher(hasher.clone()));
        Self { max, counts: HashMap::with_hasher(hasher.clone()), known, hasher }
    }

    /// A login was right.
    pub(super) fn welcome(&mut self, source: Source<'_>) {
        let [last, before] = &mut self.known;
        if last.len() >= KNOWN_MAX {
            *before = std::mem::replace(last, HashSet::with_hasher(self.hasher.clone()));
        }
        let pair = pair(&self.hasher, source);
        self.known[0].insert(pair);
    }

    /// Whether such a login is refused without a look at its password (case S19).
    pub(super) fn is_banned(&self, source: Source<'_>, now: Timestamp) -> bool {
        let too_many = |(key, _)| {
            let count = self.counts.get(&key);
            count.is_some_and(|count| !count.is_over(now) && count.failures >= count.max)
        };
        self.keys(source).into_iter().flatten().any(too_many)
    }

    /// A login has failed.
    pub(super) fn note(&mut self, source: Source<'_>, now: Timestamp) {
        for (key, max) in self.keys(source).into_iter().flatten() {
            if !self.counts.contains_key(&key) {
                self.make_room(now);
            }
            let fresh = Count { since: now, failures: 0, max };
            let count = self.counts.entry(key).or_insert(fresh);
            if count.is_over(now) {
                *count = fresh;
            }
            count.failures = count.failures.saturating_add(1);
        }
    }

    /// The places of the name and of the address, and how much each may have.
    fn keys(&self, source: Source<'_>) -> [Option<(u64, u32)>; 2] {
        let pair = pair(&self.hasher, source);
        let is_known = self.known.iter().any(|generation| generation.contains(&pair));
        let user = if is_known { pair } else { self.hasher.hash_one(("user", source.user)) };
        let user = (!source.user.is_empty()).then_some((user, self.max));
        let address = source.address.map(|address| self.hasher.hash_one(("from", host(address))));
        let address_max = self.max.saturating_mul(ADDRESS_FACTOR);
        [user, address.map(|key| (key, address_max))]
    }

    /// Peers choose the names: those with the fewest failures go first, so that nobody can hide a
    /// guessed name behind a crowd of others.
    fn make_room(&mut self, now: Timestamp) {
        if self.counts.len() < COUNTED_MAX {
            return;
        }
        self.counts.retain(|_, count| !count.is_over(now));
        if self.counts.len() < COUNTED_MAX {
            return;
        }
        let fewest = self.counts.values().map(|count| count.failures).min().unwrap_or(0);
        self.counts.retain(|_, count| count.failures > fewest);
    }
}

/// The place of a user at its address.
fn pair(hasher: &RandomState, source: Source<'_>) -> u64 {
    hasher.hash_one(("pair", source.user, source.address.map(host)))
}

/// What one customer of a network has: an address of IPv4, 64 bits of IPv6 (RFC 6177).
fn host(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn source(user: &str, last: u32) -> Source<'_> {
        Source { user, address: Some(Ipv4Addr::from_bits(0x0A00_0000 + last).into()) }
    }

    const START: Timestamp = Timestamp(1_000_000);

    #[test]
    fn a_name_is_banned_until_the_minute_is_over() {
        // case S19
        let mut failures = Failures::new(10, RandomState::new());
        for i in 0..10 {
            assert!(!failures.is_banned(source("ann", i), START));
            failures.note(source("ann", i), START.after(Duration::from_secs(1)));
        }
        assert!(failures.is_banned(source("ann", 77), START), "from wherever");
        assert!(!failures.is_banned(source("bob", 1), START), "another one of the same address");
        let later = START.after(Duration::from_secs(60));
        assert!(failures.is_banned(source("ann", 0), later));
        let later = START.after(Duration::from_secs(61));
        assert!(!failures.is_banned(source("ann", 0), later));
        failures.note(source("ann", 0), later);
        assert!(!failures.is_banned(source("ann", 0), later), "a new minute begins");
    }

    #[test]
    fn nobody_is_shut_out_by_strangers_elsewhere() {
        // case S19
        let mut failures = Failures::new(3, RandomState::new());
        failures.welcome(source("ann", 1));
        (0..30).for_each(|i| failures.note(source("ann", 2 + i), START));
        assert!(failures.is_banned(source("ann", 40), START));
        assert!(failures.is_banned(Source { user: "ann", address: None }, START));
        assert!(!failures.is_banned(source("ann", 1), START));
        // From there one may guess no more than from elsewhere.
        (0..3).for_each(|_| failures.note(source("ann", 1), START));
        assert!(failures.is_banned(source("ann", 1), START));
        assert!(!failures.is_banned(source("bob", 1), START));
    }

    #[test]
    fn those_who_are_known_take_no_more_memory_than_they_may() {
        let mut failures = Failures::new(1, RandomState::new());
        let ann = source("ann", 1);
        failures.note(Source { user: "ann", address: None }, START);
        failures.welcome(ann);
        (0..KNOWN_MAX).for_each(|i| failures.welcome(source(&i.to_string(), 1)));
        assert!(!failures.is_banned(ann, START), "still known");
        (0..KNOWN_MAX).for_each(|i| failures.welcome(source(&i.to_string(), 2)));
        assert!(failures.is_banned(ann, START));
        let remembered: usize = failures.known.iter().map(HashSet::len).sum();
        assert!(remembered <= 2 * KNOWN_MAX);
    }

    #[test]
    fn who_claims_no_name_counts_for_none() {
        let mut failures = Failures::new(1, RandomState::new());
        failures.note(source("", 1), START);
        assert!(!failures.is_banned(source("", 2), START));
        (0..9).for_each(|_| failures.note(source("", 1), START));
        assert!(failures.is_banned(source("", 1), START), "but for its address");
    }

    #[test]
    fn an_address_has_ten_times_the_patience() {
        // case S19
        let mut failures = Failures::new(3, RandomState::new());
        for i in 0..30 {
            assert!(!failures.is_banned(source("ann", 1), START));
            failures.note(source(&format!("user {i}"), 1), START);
        }
        assert!(failures.is_banned(source("ann", 1), START));
        assert!(!failures.is_banned(source("ann", 2), START));
        assert!(!failures.is_banned(Source { user: "ann", address: None }, START));
    }

    #[test]
    fn one_customer_of_ipv6_is_one_address() {
        let address = |text: &str| Some(text.parse().unwrap());
        let mut failures = Failures::new(1, RandomState::new());
        for i in 0..10 {
            let address = address(&format!("2001:db8::{i}"));
            failures.note(Source { user: &format!("user {i}"), address }, START);
        }
        let banned = |text| failures.is_banned(Source { user: "x", address: address(text) }, START);
        assert!(banned("2001:db8::ffff"));
        assert!(!banned("2001:db8:0:1::1"));
        assert!(!banned("10.0.0.1"));
    }

    #[test]
    fn a_crowd_of_names_hides_nobody_and_takes_no_memory() {
        let mut failures = Failures::new(5, RandomState::new());
        let ann = Source { user: "ann", address: None };
        (0..5).for_each(|_| failures.note(ann, START));
        for i in 0..COUNTED_MAX * 2 {
            failures.note(Source { user: &i.to_string(), address: None }, START);
            assert!(failures.counts.len() <= COUNTED_MAX);
        }
        assert!(failures.is_banned(ann, START));
    }
}
