//! Rates: how often devices may start something, as token buckets.
//!
//! A bucket is one moment: when it will be full again (the generic cell rate algorithm). A device
//! that has done nothing for a while costs nothing.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use foldhash::quality::RandomState;

use super::settings::Rate;
use crate::ids::Timestamp;

/// The buckets of all who may start something: devices, or groups.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    full_at: HashMap<K, Timestamp, RandomState>,
    /// When each will be full, to be forgotten then.
    calendar: BTreeSet<(Timestamp, K)>,
    jitter: RandomState,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self {
            full_at: HashMap::default(),
            calendar: BTreeSet::new(),
            jitter: RandomState::default(),
        }
    }
}

impl<K: Copy + Eq + Hash + Ord> Buckets<K> {
    /// How long until there is a token; zero when there is one.
    pub(super) fn wait(&self, key: K, rate: Rate, now: Timestamp) -> Duration {
        let Some(bucket) = rate.bucket() else { return Duration::ZERO };
        let one = bucket.per / bucket.count;
        let full_at = self.full_at.get(&key).copied().unwrap_or(now);
        // All tokens but one may be gone.
        full_at.since(now.after(bucket.per - one))
    }

    /// Takes a token.
    pub(super) fn take(&mut self, key: K, rate: Rate, now: Timestamp) {
        let Some(bucket) = rate.bucket() else { return };
        let former = self.full_at.get(&key).copied();
        if let Some(former) = former {
            self.calendar.remove(&(former, key));
        }
        // The clock counts milliseconds: a token takes one at least.
        let one = (bucket.per / bucket.count).max(Duration::from_millis(1));
        let full_at = former.unwrap_or(now).max(now).after(one);
        self.full_at.insert(key, full_at);
        self.calendar.insert((full_at, key));
    }

    /// It is gone; who takes its place has done nothing yet.
    pub(super) fn forget(&mut self, key: K) {
        if let Some(full_at) = self.full_at.remove(&key) {
            self.calendar.remove(&(full_at, key));
        }
    }

    /// How long to tell somebody to wait: at least `wait`, and up to half as long again, so that
    /// those who are refused together do not come back together.
    pub(super) fn jittered(&self, key: K, wait: Duration, now: Timestamp) -> Duration {
        let random = self.jitter.hash_one((key, now.0)) % 1000;
        let extra = wait.as_millis() as u64 * random / 2000;
        wait + Duration::from_millis(extra)
    }

    /// Forgets buckets that are full, at most `budget` of them.
    pub(super) fn sweep(&mut self, now: Timestamp, budget: &mut usize) {
        while let Some((at, key)) = super::exchange::due(&self.calendar, now, budget) {
            self.calendar.remove(&(at, key));
            self.full_at.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_one_after_the_other() {
        let rate = Rate::new(3, Duration::from_secs(30));
        let mut buckets = Buckets::default();
        let now = Timestamp(1_000_000);
        for _ in 0..3 {
            assert_eq!(buckets.wait(7, rate, now), Duration::ZERO);
            buckets.take(7, rate, now);
        }
        assert_eq!(buckets.wait(7, rate, now), Duration::from_secs(10));
        assert_eq!(buckets.wait(8, rate, now), Duration::ZERO, "another device");
        let later = now.after(Duration::from_secs(10));
        assert_eq!(buckets.wait(7, rate, later), Duration::ZERO);
        buckets.take(7, rate, later);
        assert_eq!(buckets.wait(7, rate, later), Duration::from_secs(10));
        assert_eq!(buckets.wait(7, Rate::OFF, later), Duration::ZERO);
    }

    #[test]
    fn who_is_refused_is_told_different_times() {
        let buckets = Buckets::default();
        let wait = Duration::from_secs(100);
        let told: BTreeSet<Duration> =
            (0..50).map(|key| buckets.jittered(key, wait, Timestamp(1))).collect();
        assert!(told.len() > 10);
        assert!(told.iter().all(|told| (wait..=wait * 3 / 2).contains(told)), "{told:?}");
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let rate = Rate::new(2, Duration::from_secs(2));
        let mut buckets = Buckets::default();
        (0..100).for_each(|key| buckets.take(key, rate, Timestamp(0)));
        buckets.sweep(Timestamp(999), &mut usize::MAX.clone());
        assert_eq!(buckets.full_at.len(), 100);
        buckets.sweep(Timestamp(1000), &mut 60);
        assert_eq!(buckets.full_at.len(), 40);
        buckets.sweep(Timestamp(1000), &mut 60);
        assert!(buckets.full_at.is_empty() && buckets.calendar.is_empty());
    }
}
