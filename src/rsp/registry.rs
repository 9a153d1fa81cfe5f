//! Registry: which devices exist, and which groups they are in. Nobody else decides that: a device
//! never declares its own group.
//!
//! A device is interned once, as an index into a slab; groups, mail and open requests speak of
//! indexes. An index is given away again after its device was removed, hence [`DeviceKey`], whose
//! generation tells the old owner from the new one. A group's members are one shared array: taking
//! a snapshot of a million members copies a pointer.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use smallvec::SmallVec;

use super::nids::Nids;
use crate::ids::{Gid, Nid};
use rows::Notes;
pub(super) use rows::{PutRow, ReplacedRow};

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
    by_nid: Nids,
    groups: BTreeMap<Gid, Arc<Vec<u32>>>,
    /// Who has joined or left a group, until the group knows.
    changes: BTreeMap<Gid, Vec<(u32, bool)>>,
    /// Devices that have given their profile away.
    replaced: BTreeSet<u32>,
    /// Devices that an operator has removed, though they stand in the file.
    banished: BTreeSet<Nid>,
    notes: Notes,
}

/// 48 bytes; a million of them are to stay small.
#[derive(Debug, Default)]
struct Slot {
    nid: Option<Nid>,
    gids: Membership,
    /// Boxed twice: few devices have labels, and this way the others pay 8 bytes.
    labels: Option<Box<Box<str>>>,
    generation: u32,
    /// It stands in the registry file.
    is_filed: bool,
    /// An operator has put it: whatever the file says of it does not count.
    is_put: bool,
}

/// The groups of one device, ascending, in 16 bytes.
#[derive(Debug, Default)]
enum Membership {
    #[default]
    None,
    One(Gid),
    /// Boxed twice, as labels are.
    Many(Box<Box<[Gid]>>),
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
        self.device_at(self.index(nid)?)
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
        let index = self.index(nid)?;
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
            Some(slot) if slot.generation == key.generation => slot.gids.as_slice(),
            _ => &[],
        }
    }

    /// The groups of a registered device, by its index.
    pub(super) fn gids_at(&self, index: u32) -> &[Gid] {
        self.slots[index as usize].gids.as_slice()
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
        let is_news = self.replaced.insert(key.index);
        self.notes.replaced(nid);
        is_news.then_some(key)
    }

    /// The device takes part again; `false` where it did.
    pub(super) fn reinstate(&mut self, nid: Nid) -> bool {
        let is_news = self.key(nid).is_some_and(|key| self.replaced.remove(&key.index));
        self.notes.replaced(nid);
        is_news
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
        Some(Device { nid: slot.nid?, gids: slot.gids.as_slice(), labels, replaced })
    }

    pub(super) fn belongs(&self, key: DeviceKey, gid: Gid) -> bool {
        self.gids(key).binary_search(&gid).is_ok()
    }

    /// The members of a group as device indexes, ascending; never empty.
    pub(super) fn members(&self, gid: Gid) -> Option<&Arc<Vec<u32>>> {
        self.groups.get(&gid)
    }

    /// Adds a device, or gives a known one these groups and labels instead of its old ones. The
    /// groups do not know until [`Self::settle`].
    pub(super) fn register(&mut self, nid: Nid, mut gids: Gids, labels: &str) -> Registered {
        gids.sort_unstable();
        gids.dedup();
        let (index, is_new) = match self.index(nid) {
            Some(index) => (index, false),
            None => (self.occupy(nid), true),
        };
        let slot = &mut self.slots[index as usize];
        slot.labels = (!labels.is_empty()).then(|| Box::new(labels.into()));
        let key = DeviceKey { index, generation: slot.generation };
        let old = std::mem::replace(&mut slot.gids, Membership::new(&gids));
        let without = |all: &[Gid], known: &[Gid]| -> Gids {
            all.iter().copied().filter(|gid| known.binary_search(gid).is_err()).collect()
        };
        let (joined, left) = (without(&gids, old.as_slice()), without(old.as_slice(), &gids));
        joined.iter().for_each(|gid| self.note(index, *gid, true));
        left.iter().for_each(|gid| self.note(index, *gid, false));
        Registered { key, joined, left, is_new }
    }

    /// Removes a device. Its groups do not know until [`Self::settle`].
    pub(super) fn remove(&mut self, nid: Nid) -> Option<Removed> {
        let index = self.by_nid.remove(nid, |index| self.slots[index as usize].nid)?;
        if self.replaced.remove(&index) {
            self.notes.replaced(nid);
        }
        if self.slots[index as usize].is_put {
            self.notes.put(nid);
        }
        let slot = &mut self.slots[index as usize];
        let generation = slot.generation.wrapping_add(1);
        let gone = std::mem::replace(slot, Slot { generation, ..Slot::default() });
        let gids = Gids::from_slice(gone.gids.as_slice());
        gids.iter().for_each(|gid| self.note(index, *gid, false));
        self.vacant.push(index);
        Some(Removed { index, gids })
    }

    fn occupy(&mut self, nid: Nid) -> u32 {
        let index = self.vacant.pop().unwrap_or_else(|| {
            reserve(&mut self.slots, 1);
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("4 billion slots do not fit into memory")
        });
        self.slots[index as usize].nid = Some(nid);
        self.by_nid.insert(nid, index, |index| self.slots[index as usize].nid);
        index
    }

    fn index(&self, nid: Nid) -> Option<u32> {
        self.by_nid.get(nid, |index| self.slots[index as usize].nid)
    }

    /// Has the groups know who has joined and left since this was called last. Once for all of
    /// many devices: each group is gone through once.
    pub(super) fn settle(&mut self) {
        for (gid, mut changes) in std::mem::take(&mut self.changes) {
            let members = self.groups.entry(gid).or_default();
            if let [(index, joins)] = changes[..] {
                change(Arc::make_mut(members), index, joins);
            } else {
                // Of two changes of one member, which are in their order still, the later holds.
                changes.sort_by_key(|(index, _)| *index);
                *members = Arc::new(merged(members, &changes));
            }
            if members.is_empty() {
                self.groups.remove(&gid);
            }
        }
    }

    fn note(&mut self, index: u32, gid: Gid, joins: bool) {
        self.changes.entry(gid).or_default().push((index, joins));
    }
}

/// One member joins, or leaves.
fn change(members: &mut Vec<u32>, index: u32, joins: bool) {
    match (members.binary_search(&index), joins) {
        (Ok(at), false) => {
            members.remove(at);
        }
        (Err(at), true) => members.insert(at, index),
        (Ok(_), true) | (Err(_), false) => {}
    }
}

/// The members after these changes, which are in the order of members.
fn merged(members: &[u32], changes: &[(u32, bool)]) -> Vec<u32> {
    let mut all = Vec::with_capacity(members.len() + changes.len());
    let mut rest = members;
    for same in changes.chunk_by(|a, b| a.0 == b.0) {
        let [.., (index, joins)] = *same else { continue };
        let before = rest.partition_point(|member| *member < index);
        all.extend_from_slice(&rest[..before]);
        rest = &rest[before..];
        rest = rest.strip_prefix(&[index]).unwrap_or(rest);
        all.extend(joins.then_some(index));
    }
    all.extend_from_slice(rest);
    all.shrink_to_fit();
    all
}

impl Membership {
    /// Of groups in ascending order.
    fn new(gids: &[Gid]) -> Self {
        match gids {
            [] => Self::None,
            [gid] => Self::One(*gid),
            many => Self::Many(Box::new(many.into())),
        }
    }

    fn as_slice(&self) -> &[Gid] {
        match self {
            Self::None => &[],
            Self::One(gid) => std::slice::from_ref(gid),
            Self::Many(gids) => gids,
        }
    }
}

impl Slot {
    fn labels(&self) -> &str {
        self.labels.as_deref().map_or("", |labels| labels)
    }
}

/// Makes room for more things in a table of all devices: by an eighth more than there is, not by
/// as much again.
pub(super) fn reserve<T>(table: &mut Vec<T>, more: usize) {
    if table.capacity() - table.len() < more {
        table.reserve_exact(more.max(table.len() / 8).max(RESERVED_MIN));
    }
}

/// A small table does not count its places one by one.
const RESERVED_MIN: usize = 64;

/// The value of a label among `name=value;name=value`.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = labels.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(other, _)| *other == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NidScheme;

    fn nid(number: u128) -> Nid {
        Nid::new(number, NidScheme::Decimal).unwrap()
    }

    fn gid(number: u64) -> Gid {
        Gid::new(number).unwrap()
    }

    fn register(registry: &mut Registry, number: u128, gids: &[Gid], labels: &str) -> Registered {
        let registered = registry.register(nid(number), gids.into(), labels);
        registry.settle();
        registered
    }

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Slot>() <= 48, "{}", size_of::<Slot>());
    }

    #[test]
    fn a_table_of_devices_has_little_room_to_spare() {
        let (mut table, mut moves, mut capacity) = (Vec::new(), 0, 0);
        for number in 0..100_000 {
            reserve(&mut table, 1);
            table.push(number);
            moves += usize::from(table.capacity() != capacity);
            capacity = table.capacity();
            assert!(capacity <= table.len() + table.len() / 8 + RESERVED_MIN);
        }
        assert!(moves < 80, "{moves}");
    }

    #[test]
    fn a_snapshot_of_members_does_not_change() {
        let mut registry = Registry::default();
        register(&mut registry, 1, &[gid(7)], "");
        let snapshot = Arc::clone(registry.members(gid(7)).unwrap());
        register(&mut registry, 2, &[gid(7)], "");
        assert_eq!((snapshot.len(), registry.members(gid(7)).unwrap().len()), (1, 2));
    }

    #[test]
    fn a_key_of_a_removed_device_names_nobody_even_when_its_slot_is_taken() {
        let mut registry = Registry::default();
        let old = register(&mut registry, 1, &[gid(7), gid(8)], "").key;
        assert_eq!(registry.remove(nid(1)).unwrap().gids.len(), 2);
        registry.settle();
        assert_eq!(registry.group_count(), 0, "a group without members is no group");
        let new = register(&mut registry, 2, &[gid(9)], "").key;
        assert_eq!(old.index, new.index);
        assert_eq!((registry.nid(old), registry.nid(new)), (None, Some(nid(2))));
        assert!(registry.gids(old).is_empty());
    }

    #[test]
    fn whoever_looks_at_slots_goes_on_where_it_was() {
        let mut registry = Registry::default();
        for number in 1..=5 {
            register(&mut registry, number, &[gid(7)], "");
        }
        registry.remove(nid(2));
        registry.settle();
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
            register(&mut registry, device, &[gid(number)], "");
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
    fn many_join_and_leave_in_one_go() {
        let mut registry = Registry::default();
        for number in 1..=1_000 {
            let group = if number % 3 == 0 { 7 } else { 8 };
            registry.register(nid(number), [gid(group)][..].into(), "");
        }
        registry.settle();
        let of = |registry: &Registry, group| -> Vec<u128> {
            registry.members_of(gid(group)).map(Nid::get).collect()
        };
        let before = Arc::clone(registry.members(gid(7)).unwrap());
        // The multiples of 6 move from 7 to 8, those of 5 go, and two come.
        for number in (6..=1_000).step_by(6) {
            registry.register(nid(number), [gid(8)][..].into(), "");
        }
        for number in (5..=1_000).step_by(5) {
            registry.remove(nid(number)).unwrap();
        }
        for number in [2_000, 3_000] {
            registry.register(nid(number), [gid(7), gid(9)][..].into(), "");
        }
        registry.settle();
        let is = |n: u128, of: u128| n.is_multiple_of(of);
        let is_of_7 = |n: &u128| is(*n, 3) && !is(*n, 6) && !is(*n, 5);
        let mut sevens = of(&registry, 7);
        sevens.sort_unstable();
        let expected: Vec<u128> = (1..=1_000).filter(is_of_7).chain([2_000, 3_000]).collect();
        assert_eq!(sevens, expected);
        let is_of_8 = |n: &u128| (!is(*n, 3) || is(*n, 6)) && !is(*n, 5);
        assert_eq!(of(&registry, 8), (1..=1_000).filter(is_of_8).collect::<Vec<_>>());
        assert!(registry.members(gid(7)).unwrap().is_sorted());
        assert_eq!(before.len(), 333, "a snapshot stays as it was");
        assert_eq!(registry.group_size(gid(9)), Some(2));
        assert_eq!(
            merged(&[1, 3, 5], &[(1, false), (2, true), (3, true), (9, true)]),
            [2, 3, 5, 9]
        );
        assert_eq!(merged(&[1], &[(1, false), (1, true), (4, true), (4, false)]), [1]);
    }

    #[test]
    fn registering_again_replaces_groups_and_labels() {
        let mut registry = Registry::default();
        register(&mut registry, 1, &[gid(7), gid(8)], "model=tracker");
        let again = register(&mut registry, 1, &[gid(9), gid(8), gid(9)], "");
        assert!(!again.is_new);
        assert_eq!((&again.joined[..], &again.left[..]), (&[gid(9)][..], &[gid(7)][..]));
        let device = registry.device(nid(1)).unwrap();
        assert_eq!((device.gids, device.labels), (&[gid(8), gid(9)][..], ""));
    }
}
