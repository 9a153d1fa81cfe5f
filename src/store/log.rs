//! The log itself, without threads and clocks: batches are built, written and made known; segments
//! are begun, given up and cleaned.

use std::io;
use std::mem;
use std::sync::Arc;

use super::catalog::{Catalog, Segment};
use super::disk::{Disk, DiskFile};
use super::index::{Place, SEGMENT_BYTES_LIMIT};
use super::record::{self, Batch, HEAD_BYTES, Kind, Salt};
use super::segment::{self, HEADER_BYTES, Header, Item, Scanner, UNFINISHED_SUFFIX};
use super::survey::Survey;
use super::{CHANGES_BYTES_MAX, Durability, Options, Progress, Rows, Stage, StoreError, repair};
use crate::clock;

/// Bytes of commits that are written together, unless a single one has more.
pub(super) const BATCH_BYTES_MAX: usize = 8 << 20;
/// The log may have so many bytes for each that lives …
const BYTES_PER_LIVE_BYTE: u64 = 2;
/// … and besides, so many segments …
const SPARE_SEGMENTS: u64 = 2;
/// … of which none counts for less than this part of a full one, so that restarts and failures do
/// not leave thousands of short ones.
const SEGMENT_SHARE_MIN: u64 = 8;
/// With each batch, so many bytes of the oldest segment are cleaned at least, or a quarter of it …
const SLICE_BYTES_MIN: usize = 64 << 10;
/// … and so many for each that was committed. Half of what is cleaned lives, in the long run, and
/// is written again: with 2 the log would only just keep its length.
const SLICE_BYTES_PER_BYTE: usize = 3;
/// … and so many at most.
const SLICE_BYTES_MAX: usize = 48 << 20;
/// Segments that are open while rows are handed out.
const FILES_OPEN_MAX: usize = 64;

const _: () = assert!(
    HEADER_BYTES as usize
        + 2 * Batch::BYTES
        + CHANGES_BYTES_MAX
        + BATCH_BYTES_MAX
        + SLICE_BYTES_MAX
        + record::VALUE_BYTES_MAX
        + HEAD_BYTES
        < SEGMENT_BYTES_LIMIT as usize,
    "the longest batch fits into an empty segment"
);

/// The log.
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    segment_bytes: u32,
    /// Whether each batch is synced.
    sync: bool,
    catalog: Catalog,
    /// The newest segment, while it may be written on.
    open: Option<Open>,
    /// The last commit that is in the log.
    commit: u64,
    /// What is written next: room for its head, what is moved, what is committed.
    batch: Vec<u8>,
    /// Bytes of commits in it.
    committed: usize,
    cleaning: Option<Cleaning>,
    /// The oldest segment has nothing that lives, once the batch is written.
    cleaned: bool,
    /// Files that could not be removed.
    unremoved: Vec<String>,
    lost_rows: u64,
}

/// The segment that is written.
struct Open {
    file: Box<dyn DiskFile>,
    /// It is on the disk up to here.
    synced: u32,
}

/// The oldest segment while it is cleaned.
struct Cleaning {
    scanner: Scanner,
    /// Something in it could not be read.
    damaged: bool,
}

impl Log {
    /// Finds out what is there, and does about damage what the options say. Nothing of value is
    /// changed before all has been read.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        options: &Options,
        now: &str,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, StoreError> {
        let (survey, mut catalog, commit) = repair::read(&*disk, options.on_damage, now, progress)?;
        catalog.pack();
        let mut log = Self {
            disk,
            segment_bytes: options.segment_bytes.min(Options::SEGMENT_BYTES_MAX),
            sync: options.durability == Durability::Fsync,
            catalog,
            open: None,
            commit,
            batch: Vec::new(),
            committed: 0,
            cleaning: None,
            cleaned: false,
            unremoved: survey.leftovers.clone(),
            lost_rows: 0,
        };
        log.go_on(&survey).map_err(|source| StoreError::file(&log.disk.path(""), source))?;
        Ok(log)
    }

    /// What was read may be in the system's memory alone. It is synced before anything builds on
    /// it: also before that is removed which it says is cleaned.
    fn go_on(&mut self, survey: &Survey) -> io::Result<()> {
        let Some(newest) = survey.segments.last() else {
            self.remove_leftovers();
            return Ok(());
        };
        let file = self.disk.reopen(&segment::name(newest.number))?;
        file.sync()?;
        self.disk.sync_names()?;
        self.remove_leftovers();
        if newest.is_open() {
            self.open = Some(Open { file, synced: newest.end });
        } else if self.catalog.newest().is_some_and(Segment::is_empty) {
            self.catalog.drop_newest();
        }
        Ok(())
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(super) fn commit(&self) -> u64 {
        self.commit
    }

    pub(super) fn lost_rows(&self) -> u64 {
        self.lost_rows
    }

    /// Hands out all rows in the order of their keys.
    pub(super) fn load(
        &self,
        rows: Rows<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError> {
        let mut files: Vec<(u32, Box<dyn DiskFile>)> = Vec::new();
        let (mut done, total, mut told) = (0, self.catalog.live(), 0);
        let mut buffer = Vec::new();
        for (key, segment, place) in self.catalog.places() {
            let name = || segment::name(segment.number());
            let failed = |source| StoreError::file(&self.disk.path(&name()), source);
            let file = match files.iter().position(|(number, _)| *number == segment.number()) {
                Some(at) => &files[at].1,
                None => {
                    if files.len() == FILES_OPEN_MAX {
                        files.clear();
                    }
                    files.push((segment.number(), self.disk.open(&name()).map_err(failed)?));
                    &files[files.len() - 1].1
                }
            };
            let value = read_value(&**file, segment.salt, place, &mut buffer).map_err(failed)?;
            rows(key, value);
            done += u64::from(place.bytes());
            if done - told >= 1 << 20 || done == total {
                progress(Progress { stage: Stage::Rows, done, total });
                told = done;
            }
        }
        Ok(())
    }

    /// Begins a batch, with a slice of the oldest segment if that is to be cleaned.
    ///
    /// # Errors
    /// The oldest segment cannot be read. The batch is in order nevertheless.
    pub(super) fn begin(&mut self, clean: bool) -> io::Result<()> {
        let owed = self.committed.saturating_mul(SLICE_BYTES_PER_BYTE);
        self.batch.clear();
        self.batch.resize(Batch::BYTES, 0);
        self.committed = 0;
        if !clean || !(self.cleaning.is_some() || self.wants_cleaning()) {
            return Ok(());
        }
        let least = SLICE_BYTES_MIN.min(self.segment_bytes as usize / 4);
        self.clean(owed.clamp(least, SLICE_BYTES_MAX))
    }

    /// Adds a commit to the batch.
    pub(super) fn add(&mut self, records: &[u8]) {
        self.batch.extend_from_slice(records);
        self.committed += records.len();
    }

    /// Bytes of the batch.
    pub(super) fn batch_bytes(&self) -> usize {
        self.batch.len()
    }

    /// Whether there is nothing to write.
    pub(super) fn is_idle(&self) -> bool {
        self.batch.len() <= Batch::BYTES && !self.cleaned
    }

    /// Writes the batch; `commit` is the last commit in it. After an error it can be tried again.
    pub(super) fn write(&mut self, commit: u64) -> io::Result<()> {
        let written = self.try_write(commit);
        if written.is_err() {
            self.give_up();
        }
        written
    }

    /// Says in the log that all before was on the disk, so that it cannot be taken for the remains
    /// of a crash.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if let Some(newest) = self.catalog.newest() {
            open.file.sync()?;
            open.synced = newest.end;
        }
        self.batch.clear();
        self.batch.resize(Batch::BYTES, 0);
        self.write(self.commit)?;
        match &self.open {
            Some(open) if !self.sync => open.file.sync(),
            _ => Ok(()),
        }
    }

    /// Writes what lives into new segments, until no other is left.
    pub(super) fn rewrite(&mut self, progress: &mut dyn FnMut(Progress)) -> io::Result<()> {
        let (total, mut done) = (self.catalog.bytes(), 0);
        self.open = None;
        let last = self.catalog.newest().map_or(0, Segment::number);
        while let Some(oldest) = self.catalog.oldest().filter(|oldest| oldest.number() <= last) {
            let bytes = u64::from(oldest.end);
            while self.catalog.oldest().is_some_and(|oldest| oldest.number() <= last) {
                self.batch.clear();
                self.batch.resize(Batch::BYTES, 0);
                self.clean(BATCH_BYTES_MAX)?;
                let cleaned = self.cleaned;
                if !self.is_idle() {
                    self.write(self.commit)?;
                }
                if cleaned {
                    break;
                }
            }
            done += bytes;
            progress(Progress { stage: Stage::Rows, done, total });
        }
        Ok(())
    }

    fn try_write(&mut self, commit: u64) -> io::Result<()> {
        let bytes = u32::try_from(self.batch.len()).map_err(io::Error::other)?;
        if !self.has_room_for(bytes) {
            self.begin_segment()?;
        }
        let Some((open, newest)) = self.open.as_mut().zip(self.catalog.newest()) else {
            return Err(io::Error::other("there is no segment"));
        };
        let (at, salt) = (newest.end, newest.salt);
        let oldest = self.catalog.oldest().map_or(salt.number, Segment::number);
        let oldest = oldest + u32::from(self.cleaned);
        let body = bytes - Batch::BYTES as u32;
        Batch { commit, synced: open.synced, body, oldest }.write(&mut self.batch);
        salt.seal(&mut self.batch, at);
        open.file.write_at(&self.batch, u64::from(at))?;
        // A file is removed only when what was moved out of it is safe.
        if self.sync || self.cleaned {
            open.file.sync()?;
            open.synced = at + bytes;
        }
        self.publish(at, salt.number, bytes);
        self.commit = commit;
        Ok(())
    }

    /// The batch is in the log.
    fn publish(&mut self, at: u32, number: u32, bytes: u32) {
        self.catalog.grow(bytes);
        for (offset, head) in record::records(&self.batch) {
            self.catalog.apply(&head, number, at + u32::try_from(offset).unwrap_or(u32::MAX));
        }
        if mem::take(&mut self.cleaned) {
            self.drop_oldest();
        }
        self.batch.truncate(Batch::BYTES);
    }

    fn has_room_for(&self, bytes: u32) -> bool {
        let Some(newest) = self.catalog.newest().filter(|_| self.open.is_some()) else {
            return false;
        };
        newest.is_empty() || newest.end.saturating_add(bytes) <= self.segment_bytes
    }

    /// Begins a segment behind the newest, whose end it says. It gets its name when its header is
    /// on the disk.
    fn begin_segment(&mut self) -> io::Result<()> {
        if let Some(open) = self.open.take().filter(|_| !self.sync) {
            open.file.sync()?;
        }
        let newest = self.catalog.newest();
        let number = newest.map_or(1, |newest| newest.number() + 1);
        let salt = Salt::new(number);
        let previous_end = newest.map_or(0, |newest| newest.end);
        let oldest = self.catalog.oldest().map_or(number, Segment::number);
        let header = Header { salt, previous_end, end: 0, oldest };
        let file = put_segment(&*self.disk, &header, &[])?;
        self.catalog.begin(salt, HEADER_BYTES);
        self.open = Some(Open { file, synced: HEADER_BYTES });
        Ok(())
    }

    /// After a failure nobody knows what the file holds behind what was synced: it is not written
    /// on any more.
    fn give_up(&mut self) {
        let Some(open) = self.open.take() else { return };
        let Some(newest) = self.catalog.newest() else { return };
        // To give back what may be needed now. Where its end is, the next segment says.
        let _cut_or_not = open.file.cut(u64::from(newest.end));
        if newest.is_empty() {
            self.catalog.drop_newest();
        }
    }

    /// Whether the log is too long for what lives.
    pub(super) fn wants_cleaning(&self) -> bool {
        let catalog = &self.catalog;
        if catalog.segments() < 2 {
            return false;
        }
        let full = u64::from(self.segment_bytes);
        let counted = catalog.segments() as u64 * (full / SEGMENT_SHARE_MIN);
        let bytes = catalog.bytes().max(counted);
        bytes > BYTES_PER_LIVE_BYTE * catalog.live() + SPARE_SEGMENTS * full
    }

    /// Adds to the batch what lives of some bytes of the oldest segment.
    fn clean(&mut self, bytes: usize) -> io::Result<()> {
        let Some(oldest) = self.catalog.oldest().copied() else { return Ok(()) };
        let number = oldest.number();
        let mut cleaning = match self.cleaning.take() {
            Some(cleaning) => cleaning,
            None => self.begin_cleaning(&oldest)?,
        };
        let until = cleaning.scanner.at() as usize + bytes;
        let result = loop {
            match cleaning.scanner.next() {
                Ok(Some(Item::Record { at, head, bytes })) => {
                    let current = self.catalog.is_current(head.key, number, at, bytes.len());
                    if head.kind == Kind::Put && current {
                        self.batch.extend_from_slice(bytes);
                    }
                }
                Ok(Some(Item::Bad { .. })) => cleaning.damaged = true,
                Ok(None) => {
                    self.cleaned = true;
                    break Ok(());
                }
                Err(error) => break Err(error),
            }
            if cleaning.scanner.at() as usize >= until {
                break Ok(());
            }
        };
        self.cleaning = Some(cleaning);
        result
    }

    fn begin_cleaning(&self, oldest: &Segment) -> io::Result<Cleaning> {
        let file = self.disk.open(&segment::name(oldest.number()))?;
        let end = u32::try_from(file.bytes()?).unwrap_or(u32::MAX).min(oldest.end);
        let scanner = Scanner::new(file, oldest.salt, HEADER_BYTES, end);
        Ok(Cleaning { scanner, damaged: end < oldest.end })
    }

    /// Removes the oldest segment, out of which everything was moved.
    fn drop_oldest(&mut self) {
        let damaged = self.cleaning.take().is_some_and(|cleaning| cleaning.damaged);
        let Some(number) = self.catalog.oldest().map(Segment::number) else { return };
        let name = segment::name(number);
        let lost = self.catalog.drop_oldest();
        if damaged {
            self.lost_rows += lost as u64;
            let path = self.disk.path(&name);
            tracing::error!(
                path = %path.display(),
                lost_rows = lost,
                "the disk has damaged a segment of the store: what could be read was moved, the \
                 file is kept beside it"
            );
            let aside = repair::aside(&name, &repair::stamp(clock::wall_timestamp()));
            if self.disk.rename(&name, &aside).is_ok() {
                return;
            }
        }
        self.unremoved.push(name);
        self.remove_leftovers();
    }

    /// They are no part of the log; where that fails, it is tried again with the next ones.
    fn remove_leftovers(&mut self) {
        let disk = &self.disk;
        self.unremoved.retain(|name| match disk.remove(name) {
            Ok(()) => false,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        });
    }
}

/// Puts a segment on the disk: first all of it, then its name.
pub(super) fn put_segment(
    disk: &dyn Disk,
    header: &Header,
    records: &[u8],
) -> io::Result<Box<dyn DiskFile>> {
    let name = segment::name(header.salt.number);
    let unfinished = format!("{name}{UNFINISHED_SUFFIX}");
    let put = || {
        let file = disk.create(&unfinished)?;
        file.write_at(&header.bytes(), 0)?;
        file.write_at(records, u64::from(HEADER_BYTES))?;
        file.sync()?;
        disk.rename(&unfinished, &name)?;
        disk.sync_names()?;
        Ok(file)
    };
    put().inspect_err(|_| {
        // The error that matters is another one.
        let _gone_or_not = disk.remove(&unfinished);
    })
}

/// The value of a row, checked once more.
fn read_value<'a>(
    file: &dyn DiskFile,
    salt: Salt,
    place: Place,
    buffer: &'a mut Vec<u8>,
) -> io::Result<&'a [u8]> {
    let changed = || io::Error::new(io::ErrorKind::InvalidData, "changed while it was read");
    let bytes = place.bytes() as usize;
    if buffer.len() < bytes {
        *buffer = vec![0; bytes];
    }
    let buffer = &mut buffer[..bytes];
    let read = file.read_at(buffer, u64::from(place.at()))?;
    let head = salt.head(&buffer[..read], place.at()).ok_or_else(changed)?;
    let whole = read == buffer.len() && head.record_bytes() == read;
    if !whole || !salt.has_value(buffer, place.at()) {
        return Err(changed());
    }
    Ok(&buffer[HEAD_BYTES..HEAD_BYTES + head.value_bytes])
}
