//! Where each row is.
//!
//! A row has 21 bytes in its node of the tree, key and place packed. With the nodes' own costs that
//! is 25 bytes a row after a start, and up to 45 where rows have come in the order of their keys,
//! which leaves half of each node empty. It is a tree, because all parts of a row have to be found,
//! and rows are handed out in the order of their keys.

use std::collections::BTreeMap;

use super::Key;
use super::record::ALIGN;

/// A key in the order of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packed([u8; 13]);

impl Packed {
    fn new(key: Key) -> Self {
        let mut bytes = [0; 13];
        bytes[0] = key.table;
        bytes[1..9].copy_from_slice(&key.id.to_be_bytes());
        bytes[9..].copy_from_slice(&key.part.to_be_bytes());
        Self(bytes)
    }

    fn key(self) -> Key {
        let (mut id, mut part) = ([0; 8], [0; 4]);
        id.copy_from_slice(&self.0[1..9]);
        part.copy_from_slice(&self.0[9..]);
        Key { table: self.0[0], id: u64::from_be_bytes(id), part: u32::from_be_bytes(part) }
    }
}

/// Bits of a segment's number that are kept: as many segments may exist at a time.
const SEGMENT_BITS: u32 = 20;
/// Bits of an offset in units of [`ALIGN`].
const OFFSET_BITS: u32 = 24;
/// Bits of a record's length in units of [`ALIGN`].
const LENGTH_BITS: u32 = 20;
const _: () = assert!(SEGMENT_BITS + OFFSET_BITS + LENGTH_BITS == u64::BITS);
const _: () = assert!(
    super::record::HEAD_BYTES + super::record::VALUE_BYTES_MAX < ALIGN << LENGTH_BITS,
    "the longest record has a place"
);

/// No segment is longer.
pub(super) const SEGMENT_BYTES_LIMIT: u32 = 1 << (OFFSET_BITS + ALIGN.trailing_zeros());

/// Where a record is: segment, offset, length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    /// Offset and length in bytes.
    pub(super) fn new(segment: u32, at: u32, bytes: usize) -> Self {
        let segment = u64::from(segment) & ((1 << SEGMENT_BITS) - 1);
        let (at, bytes) = (u64::from(at) / ALIGN as u64, (bytes / ALIGN) as u64);
        Self(segment << (OFFSET_BITS + LENGTH_BITS) | at << LENGTH_BITS | bytes)
    }

    /// The segment's number, given the oldest there is.
    pub(super) fn segment(self, oldest: u32) -> u32 {
        let mask = (1 << SEGMENT_BITS) - 1;
        let kept = u32::try_from(self.0 >> (OFFSET_BITS + LENGTH_BITS)).unwrap_or(0);
        oldest.wrapping_add(kept.wrapping_sub(oldest) & mask)
    }

    pub(super) fn at(self) -> u32 {
        let units = self.0 >> LENGTH_BITS & ((1 << OFFSET_BITS) - 1);
        u32::try_from(units).unwrap_or(0) * ALIGN as u32
    }

    pub(super) fn bytes(self) -> u32 {
        let units = self.0 & ((1 << LENGTH_BITS) - 1);
        u32::try_from(units).unwrap_or(0) * ALIGN as u32
    }
}

/// All rows.
#[derive(Debug, Default)]
pub(super) struct Index {
    rows: BTreeMap<Packed, Place>,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Fills the nodes: after all rows have come one by one, about half of each is empty.
    pub(super) fn pack(&mut self) {
        self.rows = std::mem::take(&mut self.rows).into_iter().collect();
    }

    pub(super) fn get(&self, key: Key) -> Option<Place> {
        self.rows.get(&Packed::new(key)).copied()
    }

    /// Gives where the row was before.
    pub(super) fn put(&mut self, key: Key, place: Place) -> Option<Place> {
        self.rows.insert(Packed::new(key), place)
    }

    /// Gives where the row was.
    pub(super) fn delete(&mut self, key: Key) -> Option<Place> {
        self.rows.remove(&Packed::new(key))
    }

    /// A part of this row, the first there is.
    pub(super) fn first_part(&self, table: u8, id: u64) -> Option<Key> {
        let first = Packed::new(Key { table, id, part: 0 });
        let last = Packed::new(Key { table, id, part: u32::MAX });
        self.rows.range(first..=last).next().map(|(key, _)| key.key())
    }

    /// All rows in the order of their keys.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Key, Place)> + '_ {
        self.rows.iter().map(|(key, place)| (key.key(), *place))
    }

    /// Forgets rows and gives how many.
    pub(super) fn forget(&mut self, mut gone: impl FnMut(Place) -> bool) -> usize {
        let before = self.rows.len();
        self.rows.retain(|_, place| !gone(*place));
        before - self.rows.len()
    }
}
