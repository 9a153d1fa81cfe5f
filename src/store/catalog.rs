//! What lives where: the index of rows, and how much of each segment is still needed.

use std::collections::VecDeque;

use super::Key;
use super::index::{Index, Place};
use super::record::{Head, Kind, Salt};
use super::segment::HEADER_BYTES;

/// A file of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) salt: Salt,
    /// Where it ends.
    pub(super) end: u32,
    /// Bytes of its records that rows refer to.
    pub(super) live: u64,
}

impl Segment {
    pub(super) fn number(&self) -> u32 {
        self.salt.number
    }

    pub(super) fn is_empty(&self) -> bool {
        self.end <= HEADER_BYTES
    }
}

/// Rows and segments. The numbers of the segments follow each other.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    index: Index,
    segments: VecDeque<Segment>,
    /// Of all segments.
    bytes: u64,
    /// Of all segments.
    live: u64,
}

impl Catalog {
    pub(super) fn rows(&self) -> usize {
        self.index.len()
    }

    /// Gives back memory, once all rows are there.
    pub(super) fn pack(&mut self) {
        self.index.pack();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn live(&self) -> u64 {
        self.live
    }

    pub(super) fn segments(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn oldest(&self) -> Option<&Segment> {
        self.segments.front()
    }

    pub(super) fn newest(&self) -> Option<&Segment> {
        self.segments.back()
    }

    /// All rows in the order of their keys, with their segments.
    pub(super) fn places(&self) -> impl Iterator<Item = (Key, &Segment, Place)> {
        let oldest = self.first_number();
        self.index.rows().filter_map(move |(key, place)| {
            let at = place.segment(oldest).wrapping_sub(oldest) as usize;
            Some((key, self.segments.get(at)?, place))
        })
    }

    /// Whether this record is what the row has.
    pub(super) fn is_current(&self, key: Key, number: u32, at: u32, bytes: usize) -> bool {
        self.index.get(key) == Some(Place::new(number, at, bytes))
    }

    /// A segment behind the others; empty ones stand for those that are missing between.
    pub(super) fn begin(&mut self, salt: Salt, end: u32) {
        let next = self.newest().map_or(salt.number, |newest| newest.number() + 1);
        for number in next..salt.number {
            self.segments.push_back(Segment { salt: Salt { number, secret: 0 }, end: 0, live: 0 });
        }
        self.segments.push_back(Segment { salt, end, live: 0 });
        self.bytes += u64::from(end);
    }

    /// The newest segment has grown.
    pub(super) fn grow(&mut self, bytes: u32) {
        if let Some(newest) = self.segments.back_mut() {
            newest.end += bytes;
            self.bytes += u64::from(bytes);
        }
    }

    /// A record of the log, in the log's order.
    pub(super) fn apply(&mut self, head: &Head, number: u32, at: u32) {
        match head.kind {
            Kind::Batch => {}
            Kind::Put => {
                let place = Place::new(number, at, head.record_bytes());
                let before = self.index.put(head.key, place);
                self.release(before);
                self.account(place, |live, bytes| live + bytes);
            }
            Kind::Delete => {
                let before = self.index.delete(head.key);
                self.release(before);
            }
            Kind::DeleteAll => {
                while let Some(part) = self.index.first_part(head.key.table, head.key.id) {
                    let before = self.index.delete(part);
                    self.release(before);
                }
            }
        }
    }

    /// Forgets the newest segment, in which there is nothing.
    pub(super) fn drop_newest(&mut self) {
        if let Some(newest) = self.segments.pop_back() {
            self.bytes -= u64::from(newest.end);
        }
    }

    /// Forgets the oldest segment, and gives how many rows still were in it.
    pub(super) fn drop_oldest(&mut self) -> usize {
        let oldest = self.first_number();
        let Some(dropped) = self.segments.front().copied() else { return 0 };
        let mut lost = 0;
        if dropped.live > 0 {
            lost = self.index.forget(|place| place.segment(oldest) == oldest);
        }
        self.segments.pop_front();
        self.bytes -= u64::from(dropped.end);
        self.live -= dropped.live;
        lost
    }

    fn first_number(&self) -> u32 {
        self.segments.front().map_or(0, Segment::number)
    }

    fn release(&mut self, place: Option<Place>) {
        if let Some(place) = place {
            self.account(place, u64::saturating_sub);
        }
    }

    fn account(&mut self, place: Place, change: impl Fn(u64, u64) -> u64) {
        let oldest = self.first_number();
        let at = place.segment(oldest).wrapping_sub(oldest) as usize;
        let bytes = u64::from(place.bytes());
        if let Some(segment) = self.segments.get_mut(at) {
            segment.live = change(segment.live, bytes);
            self.live = change(self.live, bytes);
        }
    }
}
