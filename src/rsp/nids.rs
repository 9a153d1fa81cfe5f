//! Nids: in which slot each device lies, by its number.
//!
//! A table of slots alone: the number itself is in the slot, and a million devices do not keep it
//! twice. It is in parts, so that when it grows only a part of it is moved at once: the control
//! unit serves nobody meanwhile.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use crate::ids::Nid;

/// Parts of the table. With a million devices one of them moves some 15,000 when it grows.
const PARTS: usize = 64;

#[derive(Debug)]
pub(super) struct Nids {
    parts: Box<[HashTable<u32>]>,
    len: usize,
    hasher: RandomState,
}

impl Default for Nids {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| HashTable::new()).collect();
        Self { parts, len: 0, hasher: RandomState::default() }
    }
}

impl Nids {
    /// Devices in all parts.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The slot of a device; `nid_at` says who lies in a slot.
    pub(super) fn get(&self, nid: Nid, nid_at: impl Fn(u32) -> Option<Nid>) -> Option<u32> {
        let hash = self.hasher.hash_one(nid);
        self.parts[part(hash)].find(hash, |slot| nid_at(*slot) == Some(nid)).copied()
    }

    /// Notes the slot of a device, which has none yet and lies there already.
    pub(super) fn insert(&mut self, nid: Nid, slot: u32, nid_at: impl Fn(u32) -> Option<Nid>) {
        let (hash, hasher) = (self.hasher.hash_one(nid), &self.hasher);
        let hash_of = |slot: &u32| nid_at(*slot).map_or(0, |nid| hasher.hash_one(nid));
        self.parts[part(hash)].insert_unique(hash, slot, hash_of);
        self.len += 1;
    }

    /// Forgets the slot of a device, which lies there still.
    pub(super) fn remove(&mut self, nid: Nid, nid_at: impl Fn(u32) -> Option<Nid>) -> Option<u32> {
        let hash = self.hasher.hash_one(nid);
        let found = self.parts[part(hash)].find_entry(hash, |slot| nid_at(*slot) == Some(nid));
        let (slot, _) = found.ok()?.remove();
        self.len -= 1;
        Some(slot)
    }
}

/// Neither of the bits by which a table places and compares its entries, which are at both ends.
fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NidScheme;

    fn nid(number: u32) -> Nid {
        Nid::new(u128::from(number) + 1, NidScheme::Decimal).unwrap()
    }

    #[test]
    fn each_device_is_found_in_its_slot_until_it_is_removed() {
        const COUNT: u32 = 10_000;
        let nid_at = |slot| Some(nid(slot));
        let mut nids = Nids::default();
        (0..COUNT).for_each(|slot| nids.insert(nid(slot), slot, nid_at));
        for slot in (0..COUNT).step_by(2) {
            assert_eq!(nids.remove(nid(slot), nid_at), Some(slot));
            assert_eq!(nids.remove(nid(slot), nid_at), None);
        }
        for slot in 0..COUNT + 1 {
            let there = slot % 2 == 1 && slot < COUNT;
            assert_eq!(nids.get(nid(slot), nid_at), there.then_some(slot));
        }
        assert_eq!(nids.len(), COUNT as usize / 2);
        let used = nids.parts.iter().filter(|part| !part.is_empty()).count();
        assert_eq!(used, PARTS, "all of them share the load");
    }
}
