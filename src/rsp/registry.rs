//! Registry: which devices exist, and which groups they are in. Nobody else decides that: a device
//! never declares its own group.
//!
//! A device is interned once, as an index into a slab; groups, mail and open requests speak of
//! indexes. An index is given away again after its device was removed, hence [`DeviceKey`], whose
//! generation tells the old owner from the new one. A group's members are one shared array: taking
//! a snapshot of a million members copies a pointer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use foldhash::quality::RandomState;
use smallvec::SmallVec;

use crate::ids::{Gid, Nid};

/// Groups of one device, ascending.
pub(super) type Gids = SmallVec<[Gid; 1]>;

/// Names a registered device in memory. A key whose device was removed resolves to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceKey {
    pub(super) index: u32,
    generation: u32,
}

/// What the registry knows of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device<'a> {
    /// Its number.
    pub nid: Nid,
    /// Its groups, ascending.
    pub gids: &'a [Gid],
    /// `name=value` pairs separated by `;`, as imported; may be empty.
    pub labels: &'a str,
    /// It has given its profile to another device, and takes no part until it is reinstated.
    pub replaced: bool,
}

/// All devices and groups.
#[derive(Debug, Default)]
pub struct Registry {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    by_nid: HashMap<Nid, u32, RandomState>,
    groups: BTreeMap<Gid, Arc<Vec<u32>>>,
    /// Devices that have given their profile away.
    replaced: BTreeSet<u32>,
}

/// 64 bytes; a million of them are to stay small.
#[derive(Debug, Default)]
struct Slot {
    nid: Option<Nid>,
    gids: Gids,
    /// Boxed twice: few devices have labels, and this way the others pay 8 bytes.
    labels: Option<Box<Box<str>>>,
    generation: u32,
}

/// What registering a device changed.
pub(super) struct Registered {
    pub(super) key: DeviceKey,
    pub(super) joined: Gids,
    pub(super) left: Gids,
    pub(super) is_new: bool,
}

/// A device that is no longer registered.
pub(super) struct Removed {
    pub(super) index: u32,
    pub(super) gids: Gids,
}

impl Registry {
    /// Number of devices.
    #[must_use]
    pub fn device_count(&self) -> usize {
        self.by_nid.len()
    }

    /// Number of groups that have members.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// What is known of a device.
    #[must_use]
    pub fn device(&self, nid: Nid) -> Option<Device<'_>> {
        self.device_at(*self.by_nid.get(&nid)?)
    }

    /// All devices, in the order of their slots.
    pub fn devices(&self) -> impl Iterator<Item = Device<'_>> {
        (0..self.slots.len()).filter_map(|at| self.device_at(u32::try_from(at).ok()?))
    }

    /// The slots from this one on, with the devices in them: for whoever looks at a page at a
    /// time, and wants to know where it was. A vacant slot costs a look, too.
    pub fn slots_from(&self, slot: u32) -> impl Iterator<Item = (u32, Option<Device<'_>>)> {
        let end = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        (slot..end).map(|slot| (slot, self.device_at(slot)))
    }

    /// The same for the members of a group.
    pub fn members_from(
        &self,
        gid: Gid,
        slot: u32,
    ) -> impl Iterator<Item = (u32, Option<Device<'_>>)> {
        let members = self.groups.get(&gid).map_or(&[][..], |members| members);
        let members = &members[members.partition_point(|index| *index < slot)..];
        members.iter().map(|index| (*index, self.device_at(*index)))
    }

    /// All groups with their sizes, ascending.
    pub fn groups(&self) -> impl Iterator<Item = (Gid, usize)> {
        self.groups_after(None)
    }

    /// The groups with a higher number, or all, with their sizes, ascending.
    pub fn groups_after(&self, gid: Option<Gid>) -> impl Iterator<Item = (Gid, usize)> {
        let after = gid.map_or(Bound::Unbounded, Bound::Excluded);
        let groups = self.groups.range((after, Bound::Unbounded));
        groups.map(|(gid, members)| (*gid, members.len()))
    }

    /// Number of devices in a group; `None` where nobody is in it.
    #[must_use]
    pub fn group_size(&self, gid: Gid) -> Option<usize> {
        self.groups.get(&gid).map(|members| members.len())
    }

    /// The devices of a group, in the order of their slots; none for an unknown group.
    pub fn members_of(&self, gid: Gid) -> impl Iterator<Item = Nid> {
        let members = self.groups.get(&gid).map_or(&[][..], |members| members);
        members.iter().filter_map(|index| self.slots[*index as usize].nid)
    }

    /// The key of a registered device.
    #[must_use]
    pub fn key(&self, nid: Nid) -> Option<DeviceKey> {
        let index = *self.by_nid.get(&nid)?;
        Some(DeviceKey { index, generation: self.slots[index as usize].generation })
    }

    /// The device of a key, unless it was removed.
    #[must_use]
    pub fn nid(&self, key: DeviceKey) -> Option<Nid> {
        let slot = self.slots.get(key.index as usize)?;
        slot.nid.filter(|_| slot.generation == key.generation)
    }

    /// Its groups, ascending; none when it was removed.
    pub(super) fn gids(&self, key: DeviceKey) -> &[Gid] {
        match self.slots.get(key.index as usize) {
            Some(slot) if slot.generation == key.generation => &slot.gids,
            _ => &[],
        }
    }

    /// The groups of a registered device, by its index.
    pub(super) fn gids_at(&self, index: u32) -> &Gids {
        &self.slots[index as usize].gids
    }

    /// The number of a registered device, by its index.
    pub(super) fn nid_at(&self, index: u32) -> Option<Nid> {
        self.slots.get(index as usize)?.nid
    }

    /// Devices that have given their profile away.
    pub(super) fn replaced_count(&self) -> usize {
        self.replaced.len()
    }

    pub(super) fn is_replaced(&self, key: DeviceKey) -> bool {
        self.nid(key).is_some() && self.is_replaced_at(key.index)
    }

    /// The same of a registered device, by its index.
    pub(super) fn is_replaced_at(&self, index: u32) -> bool {
        self.replaced.contains(&index)
    }

    /// Those of some devices, in ascending order, that have given their profile away.
    pub(super) fn replaced_in(&self, members: &[u32]) -> Vec<u32> {
        let is_member = |index: &u32| members.binary_search(index).is_ok();
        self.replaced.iter().copied().filter(is_member).collect()
    }

    /// The device has given its profile away; gives its key where that is news.
    pub(super) fn replace(&mut self, nid: Nid) -> Option<DeviceKey> {
        let key = self.key(nid)?;
        self.replaced.insert(key.index).then_some(key)
    }

    /// The device takes part again; `false` where it did.
    pub(super) fn reinstate(&mut self, nid: Nid) -> bool {
        self.key(nid).is_some_and(|key| self.replaced.remove(&key.index))
    }

    /// Whether two devices have the same values of all these labels `[0071]`. Who lacks one agrees
    /// with nobody on it.
    pub(super) fn agree_on(&self, a: DeviceKey, b: DeviceKey, names: &[String]) -> bool {
        let labels = |key: DeviceKey| self.slots[key.index as usize].labels();
        let (a, b) = (labels(a), labels(b));
        names.iter().all(|name| {
            let value = label(a, name);
            value.is_some() && value == label(b, name)
        })
    }

    fn device_at(&self, index: u32) -> Option<Device<'_>> {
        let slot = self.slots.get(index as usize)?;
        let (labels, replaced) = (slot.labels(), self.replaced.contains(&index));
        Some(Device { nid: slot.nid?, gids: &slot.gids, labels, replaced })
    }

    pub(super) fn belongs(&self, key: DeviceKey, gid: Gid) -> bool {
        self.gids(key).binary_search(&gid).is_ok()
    }

    /// The members of a group as device indexes, ascending; never empty.
    pub(super) fn members(&self, gid: Gid) -> Option<&Arc<Vec<u32>>> {
        self.groups.get(&gid)
    }

    /// Adds a device, or gives a known one these groups and labels instead of its old ones.
    pub(super) fn register(&mut self, nid: Nid, mut gids: Gids, labels: &str) -> Registered {
        gids.sort_unstable();
        gids.dedup();
        let (index, is_new) = match self.by_nid.get(&nid) {
            Some(index) => (*index, false),
            None => (self.occupy(nid), true),
        };
        let slot = &mut self.slots[index as usize];
        slot.labels = (!labels.is_empty()).then(|| Box::new(labels.into()));
        let key = DeviceKey { index, generation: slot.generation };
        let old = std::mem::replace(&mut slot.gids, gids.clone());
        let without = |all: &Gids, known: &Gids| -> Gids {
            all.iter().copied().filter(|gid| known.binary_search(gid).is_err()).collect()
        };
        let (joined, left) = (without(&gids, &old), without(&old, &gids));
        joined.iter().for_each(|gid| self.join(index, *gid));
        left.iter().for_each(|gid| self.leave(index, *gid));
        Registered { key, joined, left, is_new }
    }

    pub(super) fn remove(&mut self, nid: Nid) -> Option<Removed> {
        let index = self.by_nid.remove(&nid)?;
        self.replaced.remove(&index);
        let slot = &mut self.slots[index as usize];
        let generation = slot.generation.wrapping_add(1);
        let gone = std::mem::replace(slot, Slot { generation, ..Slot::default() });
        gone.gids.iter().for_each(|gid| self.leave(index, *gid));
        self.vacant.push(index);
        Some(Removed { index, gids: gone.gids })
    }

    fn occupy(&mut self, nid: Nid) -> u32 {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("4 billion slots do not fit into memory")
        });
        self.slots[index as usize].nid = Some(nid);
        self.by_nid.insert(nid, index);
        index
    }

    fn join(&mut self, index: u32, gid: Gid) {
        let members = Arc::make_mut(self.groups.entry(gid).or_default());
        if let Err(at) = members.binary_search(&index) {
            members.insert(at, index);
        }
    }

    fn leave(&mut self, index: u32, gid: Gid) {
        let Some(members) = self.groups.get_mut(&gid) else { return };
        let members_now = Arc::make_mut(members);
        if let Ok(at) = members_now.binary_search(&index) {
            members_now.remove(at);
        }
        if members_now.is_empty() {
            self.groups.remove(&gid);
        }
    }
}

impl Slot {
    fn labels(&self) -> &str {
        self.labels.as_deref().map_or("", |labels| labels)
    }
}

/// The value of a label among `name=value;name=value`.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = labels.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(other, _)| *other == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NidScheme;
    use smallvec::smallvec;

    fn nid(number: u128) -> Nid {
        Nid::new(number, NidScheme::Decimal).unwrap()
    }

    fn gid(number: u64) -> Gid {
        Gid::new(number).unwrap()
    }

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Slot>() <= 64, "{}", size_of::<Slot>());
    }

    #[test]
    fn a_snapshot_of_members_does_not_change() {
        let mut registry = Registry::default();
        registry.register(nid(1), smallvec![gid(7)], "");
        let snapshot = Arc::clone(registry.members(gid(7)).unwrap());
        registry.register(nid(2), smallvec![gid(7)], "");
        assert_eq!((snapshot.len(), registry.members(gid(7)).unwrap().len()), (1, 2));
    }

    #[test]
    fn a_key_of_a_removed_device_names_nobody_even_when_its_slot_is_taken() {
        let mut registry = Registry::default();
        let old = registry.register(nid(1), smallvec![gid(7), gid(8)], "").key;
        assert_eq!(registry.remove(nid(1)).unwrap().gids.len(), 2);
        assert_eq!(registry.group_count(), 0, "a group without members is no group");
        let new = registry.register(nid(2), smallvec![gid(9)], "").key;
        assert_eq!(old.index, new.index);
        assert_eq!((registry.nid(old), registry.nid(new)), (None, Some(nid(2))));
        assert!(registry.gids(old).is_empty());
    }

    #[test]
    fn whoever_looks_at_slots_goes_on_where_it_was() {
        let mut registry = Registry::default();
        for number in 1..=5 {
            registry.register(nid(number), smallvec![gid(7)], "");
        }
        registry.remove(nid(2));
        let seen = |slots: Vec<(u32, Option<Device<'_>>)>| -> Vec<(u32, u128)> {
            slots.into_iter().map(|(slot, d)| (slot, d.map_or(0, |d| d.nid.get()))).collect()
        };
        let all = [(0, 1), (1, 0), (2, 3), (3, 4), (4, 5)];
        for from in 0..7 {
            let rest = &all[all.len().min(from)..];
            let from = u32::try_from(from).unwrap();
            assert_eq!(seen(registry.slots_from(from).collect()), rest);
            let members: Vec<_> = rest.iter().copied().filter(|(_, nid)| *nid > 0).collect();
            assert_eq!(seen(registry.members_from(gid(7), from).collect()), members);
        }
        assert_eq!(registry.members_from(gid(8), 0).count(), 0);
        assert_eq!(registry.slots_from(u32::MAX).count(), 0);
    }

    #[test]
    fn groups_come_in_order_behind_any_number() {
        let mut registry = Registry::default();
        for (device, number) in (1..).zip([9, 7, 8, 7]) {
            registry.register(nid(device), smallvec![gid(number)], "");
        }
        let behind = |after| -> Vec<_> {
            registry.groups_after(after).map(|(gid, size)| (gid.get(), size)).collect()
        };
        assert_eq!(behind(None), [(7, 2), (8, 1), (9, 1)]);
        assert_eq!(behind(Some(gid(7))), [(8, 1), (9, 1)]);
        assert_eq!(behind(Some(gid(100))), []);
        assert_eq!((registry.group_size(gid(7)), registry.group_size(gid(6))), (Some(2), None));
    }

    #[test]
    fn registering_again_replaces_groups_and_labels() {
        let mut registry = Registry::default();
        registry.register(nid(1), smallvec![gid(7), gid(8)], "model=tracker");
        let again = registry.register(nid(1), smallvec![gid(9), gid(8), gid(9)], "");
        assert!(!again.is_new);
        assert_eq!((&again.joined[..], &again.left[..]), (&[gid(9)][..], &[gid(7)][..]));
        let device = registry.device(nid(1)).unwrap();
        assert_eq!((device.gids, device.labels), (&[gid(8), gid(9)][..], ""));
    }
}
