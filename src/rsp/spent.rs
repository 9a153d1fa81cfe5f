//! Spent: which delete notifications have let a profile go. One deletion is good for one exchange.
//!
//! An eUICC numbers its notifications in ascending order. Of each the latest numbers are
//! remembered; what is older than those counts as spent.

use std::collections::{BTreeSet, HashMap};

use foldhash::quality::RandomState;

use crate::ids::Nid;

#[derive(Debug, Default)]
pub(super) struct Spent {
    by_device: HashMap<Nid, Numbers, RandomState>,
}

#[derive(Debug, Default)]
struct Numbers {
    latest: BTreeSet<u64>,
    /// All up to this one count as spent, if any do.
    forgotten: Option<u64>,
}

/// Numbers that are remembered of each device.
const NUMBERS_MAX: usize = 16;

impl Spent {
    /// Whether a device's notification of this number was used before, or may have been.
    pub(super) fn contains(&self, nid: Nid, number: u64) -> bool {
        self.by_device.get(&nid).is_some_and(|numbers| {
            numbers.latest.contains(&number)
                || numbers.forgotten.is_some_and(|up_to| number <= up_to)
        })
    }

    /// A device's notification of this number has been used.
    pub(super) fn insert(&mut self, nid: Nid, number: u64) {
        let numbers = self.by_device.entry(nid).or_default();
        numbers.latest.insert(number);
        if numbers.latest.len() > NUMBERS_MAX {
            numbers.forgotten = numbers.latest.pop_first();
        }
    }

    /// The device is gone.
    pub(super) fn forget(&mut self, nid: Nid) {
        self.by_device.remove(&nid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_spent_once_and_old_ones_count_as_spent() {
        let mut spent = Spent::default();
        let nid = Nid::FIRST;
        assert!(!spent.contains(nid, 7));
        spent.insert(nid, 7);
        assert!(spent.contains(nid, 7) && !spent.contains(nid, 6) && !spent.contains(nid, 8));
        (8..30).for_each(|number| spent.insert(nid, number));
        assert!(spent.contains(nid, 7) && spent.contains(nid, 6) && spent.contains(nid, 29));
        assert!(!spent.contains(nid, 30));
        spent.forget(nid);
        assert!(!spent.contains(nid, 7));
    }
}
