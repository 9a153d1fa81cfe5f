//! Spent: which delete notifications have let a profile go. One deletion is good for one exchange.
//!
//! An eUICC numbers its notifications in ascending order. Of each the latest numbers are
//! remembered; what is older than those counts as spent. They outlive the device's registration:
//! whoever is registered again has deleted nothing anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::quality::RandomState;
use minicbor::{Decode, Encode};

use super::rows::{Book, Changed, NidRow, part};
use crate::ids::Nid;

#[derive(Debug, Default)]
pub(super) struct Spent {
    by_device: HashMap<Nid, Numbers, RandomState>,
    /// Devices with spent numbers that are registered no more, in the order in which they went.
    gone: BTreeMap<u64, Nid>,
    last_gone: u64,
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
    #[n(3)]
    gone: Option<u64>,
}

#[derive(Debug, Default)]
struct Numbers {
    latest: BTreeSet<u64>,
    /// All up to this one count as spent, if any do.
    forgotten: Option<u64>,
    /// Its place among the devices that are gone, if it is.
    gone: Option<u64>,
}

/// Numbers that are remembered of each device.
const NUMBERS_MAX: usize = 16;

/// Devices that are remembered though they are registered no more; beyond them the one is forgotten
/// that has been gone for longest.
const GONE_MAX: usize = 1 << 16;

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

    /// The device is not registered any more.
    pub(super) fn leave(&mut self, nid: Nid) {
        let Some(numbers) = self.by_device.get_mut(&nid).filter(|n| n.gone.is_none()) else {
            return;
        };
        self.last_gone += 1;
        numbers.gone = Some(self.last_gone);
        self.gone.insert(self.last_gone, nid);
        self.changed.note(nid);
        if self.gone.len() > GONE_MAX
            && let Some((_, longest)) = self.gone.pop_first()
        {
            self.by_device.remove(&longest);
            self.changed.note(longest);
        }
    }

    /// The device is registered again.
    pub(super) fn come_back(&mut self, nid: Nid) {
        let gone = self.by_device.get_mut(&nid).and_then(|numbers| numbers.gone.take());
        if let Some(place) = gone {
            self.gone.remove(&place);
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
                gone: numbers.gone,
            });
            book.devices.write(nid, part::SPENT, row.as_ref(), book.sheet);
        }
    }

    /// As they were, of devices that are there and of those that are gone.
    pub(super) fn restore(&mut self, rows: Vec<SpentRow>, is_there: impl Fn(Nid) -> bool) {
        let mut gone = Vec::new();
        for row in rows {
            let Some(nid) = row.device.nid() else { continue };
            let latest = row.latest.into_iter().collect();
            let mut numbers = Numbers { latest, forgotten: row.forgotten, gone: None };
            match (is_there(nid), row.gone) {
                (true, None) => {}
                // It was registered again while nobody was there.
                (true, Some(_)) => self.changed.note(nid),
                (false, None) => gone.push(nid),
                (false, Some(place)) => {
                    numbers.gone = Some(place);
                    self.gone.insert(place, nid);
                    self.last_gone = self.last_gone.max(place);
                }
            }
            self.by_device.insert(nid, numbers);
        }
        gone.into_iter().for_each(|nid| self.leave(nid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NidScheme;

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
        spent.leave(nid);
        assert!(spent.contains(nid, 7));
    }

    #[test]
    fn of_those_that_are_gone_the_latest_are_remembered_and_of_those_that_are_there_all() {
        let nid = |number: usize| Nid::new(number as u128 + 1, NidScheme::Decimal).unwrap();
        let mut spent = Spent::default();
        (0..GONE_MAX + 3).for_each(|number| spent.insert(nid(number), 7));
        (0..GONE_MAX).for_each(|number| spent.leave(nid(number)));
        spent.leave(nid(0));
        spent.come_back(nid(1));
        spent.come_back(nid(1));
        assert!((0..GONE_MAX + 3).all(|number| spent.contains(nid(number), 7)));
        spent.leave(nid(GONE_MAX));
        assert!(spent.contains(nid(0), 7));
        spent.leave(nid(GONE_MAX + 1));
        assert!(!spent.contains(nid(0), 7), "is gone for longest");
        assert!((1..GONE_MAX + 3).all(|number| spent.contains(nid(number), 7)));
    }
}
