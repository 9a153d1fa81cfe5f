//! What a directory has in it: which files are the log, where each ends, what is damaged.
//!
//! The rules, oldest first:
//!
//! * A file has its name only after its header was on the disk: a bad header is damage.
//! * A segment ends where its own header says, or the header of the next one; what follows there
//!   was never acknowledged.
//! * In the newest segment, every batch says how far the segment was on the disk when the batch was
//!   written. What is bad before the furthest such offset is damage; what is bad behind it was
//!   being written when the power went, so all from that batch on is dropped, though later pages
//!   may have got to the disk before earlier ones.
//! * Segments older than the newest batch says were cleaned, and are no part of the log.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use super::catalog::Catalog;
use super::disk::Disk;
use super::index::SEGMENT_BYTES_LIMIT;
use super::record::{Batch, HEAD_BYTES, Kind};
use super::segment::{
    self, HEADER_BYTES, Header, HeaderFault, Item, Scanner, Tail, UNFINISHED_SUFFIX,
};
use super::{Key, Progress, Stage, StoreError};

/// Damages that are told one by one; all are counted.
const DAMAGES_TOLD_MAX: usize = 100;
/// Missing segments that are told one by one. More of them: that is no log.
const MISSING_MAX: u32 = 10_000;

/// Something that was on the disk and is not any more, or is something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// In which file.
    pub file: String,
    /// From which offset on.
    pub at: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What it was.
    pub what: Damaged,
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// The whole file is not there.
    Missing,
    /// The header: nothing in the file can be read.
    Header,
    /// One of the two copies of the header; nothing is lost.
    HeaderCopy,
    /// The file is shorter than it was.
    CutOff,
    /// The value of this row, or an older value of it.
    Row(Key),
    /// A record of which nothing can be told.
    Record,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, at, bytes, what } = self;
        match what {
            Damaged::Missing => write!(f, "{file}: is not there"),
            Damaged::Header => write!(f, "{file}: its header cannot be read, so nothing of it can"),
            Damaged::HeaderCopy => {
                write!(f, "{file}: one of the two copies of its header is damaged; nothing is lost")
            }
            Damaged::CutOff => write!(f, "{file}: {bytes} bytes from offset {at} on are cut off"),
            Damaged::Row(Key { table, id, part }) => write!(
                f,
                "{file}: at offset {at}, {bytes} bytes: a value of table {table}, id {id}, \
                 part {part} is damaged"
            ),
            Damaged::Record => {
                write!(f, "{file}: at offset {at}, {bytes} bytes are no record any more")
            }
        }
    }
}

/// All that is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damages {
    /// The first ones.
    pub told: Vec<Damage>,
    /// How many there are.
    pub count: u64,
    /// Segments that have some.
    pub(super) segments: BTreeSet<u32>,
}

impl Damages {
    fn add(&mut self, number: u32, at: u32, bytes: u32, what: Damaged) {
        self.count += 1;
        self.segments.insert(number);
        if self.told.len() < DAMAGES_TOLD_MAX {
            let (file, at, bytes) = (segment::name(number), u64::from(at), u64::from(bytes));
            self.told.push(Damage { file, at, bytes, what });
        }
    }
}

/// A file of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surveyed {
    pub(super) number: u32,
    /// `None` where it cannot be read.
    pub(super) header: Option<Header>,
    /// Whether both copies of the header are in order.
    whole: bool,
    /// Up to here it belongs to the log.
    pub(super) end: u32,
    /// Of the file.
    bytes: u64,
}

impl Surveyed {
    /// Whether it may be written on: it is open, and nothing is behind its end.
    pub(super) fn is_open(&self) -> bool {
        let open = self.header.is_some_and(|header| header.end == 0);
        open && self.bytes == u64::from(self.end)
    }
}

/// What a directory has in it.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The first segment that belongs to the log.
    pub(super) oldest: u32,
    /// In the order of their numbers.
    pub(super) segments: Vec<Surveyed>,
    /// Files that are no part of the log any more, or not yet.
    pub(super) leftovers: Vec<String>,
    pub(super) damages: Damages,
    /// Bytes behind the end of the newest segment.
    pub(super) torn: u64,
}

impl Survey {
    /// Reads headers, and the newest segment.
    pub(super) fn of(disk: &dyn Disk) -> Result<Self, StoreError> {
        let names = disk.names().map_err(|source| StoreError::file(&disk.path(""), source))?;
        let mut survey = Self::default();
        let mut numbers: Vec<u32> = Vec::new();
        for name in names {
            match segment::number(&name) {
                Some(number) => numbers.push(number),
                None if name.ends_with(UNFINISHED_SUFFIX) => survey.leftovers.push(name),
                None => {}
            }
        }
        numbers.sort_unstable();
        for number in numbers {
            survey.add(disk, number)?;
        }
        if !survey.segments.is_empty() && survey.segments.iter().all(|seen| seen.header.is_none()) {
            return Err(StoreError::Unreadable(disk.path("")));
        }
        survey.oldest = survey.find_newest_end(disk)?;
        survey.leave_cleaned();
        survey.note_headers();
        survey.note_missing(disk)?;
        survey.find_ends(disk)?;
        Ok(survey)
    }

    /// Bytes of the log.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|seen| u64::from(seen.end)).sum()
    }

    /// Reads all records, and finds what is damaged among them. Gives the last commit.
    pub(super) fn replay(
        &mut self,
        disk: &dyn Disk,
        catalog: &mut Catalog,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<u64, StoreError> {
        let (mut done, total, mut commit) = (0, self.bytes(), 0);
        for seen in &self.segments {
            let Some(header) = seen.header else { continue };
            let failed = |source| StoreError::file(&disk.path(&segment::name(seen.number)), source);
            catalog.begin(header.salt, seen.end);
            let file = disk.open(&segment::name(seen.number)).map_err(failed)?;
            let mut scanner = Scanner::new(file, header.salt, HEADER_BYTES, seen.end);
            while let Some(item) = scanner.next().map_err(failed)? {
                match item {
                    Item::Record { at, head, bytes } => {
                        let batch = Batch::read(&head, &bytes[HEAD_BYTES..]);
                        commit = commit.max(batch.map_or(0, |batch| batch.commit));
                        catalog.apply(&head, seen.number, at);
                    }
                    Item::Bad { at, until, head } => {
                        let row = head.filter(|head| head.kind != Kind::Batch);
                        let what = row.map_or(Damaged::Record, |head| Damaged::Row(head.key));
                        self.damages.add(seen.number, at, until - at, what);
                    }
                }
            }
            done += u64::from(seen.end);
            progress(Progress { stage: Stage::Reading, done, total });
        }
        Ok(commit)
    }

    fn add(&mut self, disk: &dyn Disk, number: u32) -> Result<(), StoreError> {
        let name = segment::name(number);
        let failed = |source| StoreError::file(&disk.path(&name), source);
        let file = disk.open(&name).map_err(failed)?;
        let bytes = file.bytes().map_err(failed)?;
        let (header, whole) = match Header::read(&*file, number).map_err(failed)? {
            Ok((header, whole)) => (Some(header), whole),
            Err(HeaderFault::Unreadable) => (None, false),
            Err(HeaderFault::Newer(version)) => {
                return Err(StoreError::Newer { path: disk.path(&name), version });
            }
        };
        self.segments.push(Surveyed { number, header, whole, end: 0, bytes });
        Ok(())
    }

    /// Gives the oldest segment that belongs to the log, as the newest one says; where that cannot
    /// be read, the oldest there is.
    fn find_newest_end(&mut self, disk: &dyn Disk) -> Result<u32, StoreError> {
        let first = self.segments.first().map_or(0, |seen| seen.number);
        let Some(newest) = self.segments.last_mut() else { return Ok(first) };
        let Some(header) = newest.header else { return Ok(first) };
        let tail = tail(disk, newest.number, &header, newest.bytes)?;
        newest.end = if header.end == 0 { tail.end } else { header.end };
        self.torn = newest.bytes.saturating_sub(u64::from(newest.end));
        Ok(tail.oldest.max(header.oldest).min(newest.number))
    }

    fn leave_cleaned(&mut self) {
        let oldest = self.oldest;
        self.segments.retain(|seen| {
            let belongs = seen.number >= oldest;
            if !belongs {
                self.leftovers.push(segment::name(seen.number));
            }
            belongs
        });
    }

    fn note_headers(&mut self) {
        for seen in self.segments.iter().filter(|seen| !seen.whole) {
            let bytes = u32::try_from(seen.bytes).unwrap_or(u32::MAX);
            match seen.header {
                Some(_) => self.damages.add(seen.number, 0, HEADER_BYTES, Damaged::HeaderCopy),
                None => self.damages.add(seen.number, 0, bytes, Damaged::Header),
            }
        }
    }

    fn note_missing(&mut self, disk: &dyn Disk) -> Result<(), StoreError> {
        let mut expected = self.oldest;
        for seen in &self.segments {
            if seen.number - expected > MISSING_MAX {
                return Err(StoreError::Unreadable(disk.path("")));
            }
            for missing in expected..seen.number {
                self.damages.add(missing, 0, 0, Damaged::Missing);
            }
            expected = seen.number.saturating_add(1);
        }
        Ok(())
    }

    fn find_ends(&mut self, disk: &dyn Disk) -> Result<(), StoreError> {
        for i in 0..self.segments.len() {
            let seen = self.segments[i];
            let Some(header) = seen.header else { continue };
            let next = self.segments.get(i + 1).filter(|next| next.number == seen.number + 1);
            let sealed = next.and_then(|next| next.header).map(|header| header.previous_end);
            let end = match (header.end, sealed) {
                (0, Some(end)) => end,
                (0, None) if i + 1 == self.segments.len() => seen.end,
                (0, None) => tail(disk, seen.number, &header, seen.bytes)?.end,
                (end, _) => end,
            };
            let there = u32::try_from(seen.bytes).unwrap_or(u32::MAX).min(end);
            if there < end {
                self.damages.add(seen.number, there, end - there, Damaged::CutOff);
            }
            self.segments[i].end = there;
        }
        Ok(())
    }
}

fn tail(disk: &dyn Disk, number: u32, header: &Header, bytes: u64) -> Result<Tail, StoreError> {
    let name = segment::name(number);
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(SEGMENT_BYTES_LIMIT);
    let find = || -> io::Result<Tail> { Tail::find(disk.open(&name)?, header, bytes) };
    find().map_err(|source| StoreError::file(&disk.path(&name), source))
}
