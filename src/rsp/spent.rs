//! Spent: which delete notifications have let a profile go. One deletion is good for one exchange.
//!
//! An eUICC numbers its notifications in ascending order. Of each the latest numbers are
//! remembered; what is older than those counts as spent.

use std::collections::{BTreeSet, HashMap};

use foldhash::quality::RandomState;
use minicbor::{Decode, Encode};

use super::rows::{Book, Changed, NidRow, part};
use crate::ids::Nid;

#[derive(Debug, Default)]
pub(super) struct Spent {
    by_device: HashMap<Nid, Numbers, RandomState>,
    changed: Changed<Nid>,
}

/// The numbers of a device, as they are written down.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub(super) struct SpentRow {
    #[n(0)]
    device: NidRow,
    #[n(1)]
    latest: Vec<u64>,
    #[n(2)]
    forgotten: Option<u64>,
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
        self.changed.note(nid);
        let numbers = self.by_device.entry(nid).or_default();
        numbers.latest.insert(number);
        if numbers.latest.len() > NUMBERS_MAX {
            numbers.forgotten = numbers.latest.pop_first();
        }
    }

    /// The device is gone.
    pub(super) fn forget(&mut self, nid: Nid) {
        if self.by_device.remove(&nid).is_some() {
            self.changed.note(nid);
        }
    }

    pub(super) fn keep_rows(&mut self) {
        self.changed.on = true;
    }

    pub(super) fn write(&mut self, book: &mut Book<'_, '_>) {
        for nid in self.changed.take() {
            let row = self.by_device.get(&nid).map(|numbers| SpentRow {
                device: nid.into(),
                latest: numbers.latest.iter().copied().collect(),
                forgotten: numbers.forgotten,
            });
            book.devices.write(nid, part::SPENT, row.as_ref(), book.sheet);
        }
    }

    /// As it was, for a device that is there.
    pub(super) fn restore(&mut self, row: SpentRow, is_there: impl Fn(Nid) -> bool) {
        let Some(nid) = row.device.nid() else { return };
        if is_there(nid) {
            let numbers =
                Numbers { latest: row.latest.into_iter().collect(), forgotten: row.forgotten };
            self.by_device.insert(nid, numbers);
        } else {
            self.changed.note(nid);
        }
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
