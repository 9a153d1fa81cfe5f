//! The durable log under the broker.
//!
//! The broker keeps all its state in memory. It hands over the *changes* of each step, and goes on;
//! one thread writes what has gathered as one batch, syncs it, and says how far the log is on the
//! disk. At start all rows are read back.
//!
//! ```text
//!  commit(changes) ──► queue ──► one batch ──► write, fdatasync ──► durable(n) ──► notice
//!                                   ▲
//!                    what still lives of the oldest segment
//! ```
//!
//! # Why an own log
//!
//! * Nothing is read while the broker runs, so the levels, filters and caches of an LSM tree (or
//!   the pages of a B-tree) would be paid for and buy nothing.
//! * What a disk does wrong (errors, no space, torn, reordered and forgotten writes, flipped bits)
//!   has to be put in below the log, thousands of times a second: [`Disk`] is a dozen calls.
//! * Damage has to be confined to a record, be told by file, offset and row, and be got over
//!   ([`OnDamage`]).
//!
//! # The log
//!
//! Segments `00000001.log`, `00000002.log`, … of about [`Options::segment_bytes`], each with a
//! header and batches of records (see `segment.rs` and `record.rs`). A batch is written and synced
//! as a whole, and at recovery it counts as a whole or not at all: so do the transactions in it.
//! Nothing is ever overwritten: after any failure to write or sync, the segment is given up, and
//! the next one says where it ended. What was not synced is still in memory and is written again.
//!
//! Segments are cleaned oldest first: what lives of the oldest one is written again at the end of
//! the log, a slice with each batch, and then the file goes. Deletions in it are simply dropped,
//! because nothing older is left that they could concern.
//!
//! Files are not preallocated: on ext4, here, a synced append costs what a synced overwrite of
//! zeros costs.
//!
//! # Durability
//!
//! [`Durability::Fsync`]: what [`Store::durable`] covers survives a power cut.
//! [`Durability::Flush`]: it survives a crash of the process. [`Durability::Memory`]: nothing is
//! kept, see [`memory()`].

mod backup;
mod catalog;
mod changes;
mod check;
mod commit;
mod disk;
mod index;
mod log;
mod memory;
mod record;
mod repair;
mod segment;
mod survey;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use backup::{backup, compact, restore};
pub use changes::{CHANGES_BYTES_MAX, Changes, TooLarge};
pub use check::{Check, check};
pub use commit::{DiskStore, Hooks, LAZY_DELAY, RETRY_DELAY};
pub use disk::{Disk, DiskFile, RealDisk};
pub use memory::{MemoryStore, memory};
pub use record::VALUE_BYTES_MAX;
pub use segment::FORMAT_VERSION;
pub use survey::{Damage, Damaged, Damages};

/// Names a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Kind of row; the broker's business.
    pub table: u8,
    /// Which one.
    pub id: u64,
    /// Which part of it.
    pub part: u32,
}

/// Numbers the commits in their order; it goes on after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commit(pub u64);

/// Whether somebody waits for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Written at once.
    Now,
    /// Goes with the next that is urgent, or after [`LAZY_DELAY`].
    Lazy,
}

/// What [`Store::durable`] promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Survives a power cut.
    #[default]
    Fsync,
    /// Survives a crash of the process, not one of the machine.
    Flush,
    /// Survives nothing.
    Memory,
}

/// What is done at start with a store that is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// Do not start.
    #[default]
    Refuse,
    /// Put damaged files aside as `<name>.corrupt-<UTC time>`, and go on with what can be read.
    Salvage,
    /// Put all files aside, and begin anew.
    SetAside,
}

/// Why the disk cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Trouble {
    /// No space, no quota, or no inodes left.
    Full = 1,
    /// The file system is read-only.
    ReadOnly,
    /// Anything else, as a rule the hardware.
    Io,
}

impl Trouble {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Full, Self::ReadOnly, Self::Io];

    /// As it is called in metrics and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::Io => "io",
        }
    }

    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Io,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether what is committed now will be durable soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It will.
    Good,
    /// The disk is too slow: more than [`Options::queue_bytes_max`] wait for it.
    Behind,
    /// The last attempt to write failed; the next is made within [`RETRY_DELAY`].
    Failing(Trouble),
}

/// What there is to hear from the thread that writes. It is called from that thread, and must not
/// keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A batch is on the disk.
    Durable {
        /// Everything up to here.
        commit: Commit,
        /// How many commits were in the batch.
        commits: usize,
        /// Its bytes, with what was moved.
        bytes: usize,
        /// How long it took to write and sync it.
        took: Duration,
    },
    /// From now on the disk cannot be written, or for another reason than before.
    Failing(Trouble),
    /// It can again.
    Recovered,
}

/// Takes notices.
pub type Listener = Box<dyn FnMut(Notice) + Send>;

/// Takes the rows of a store that is opened, in the order of their keys: by table, then id, then
/// part. A consumer that numbers its tables accordingly meets sessions before what belongs to them.
pub type Rows<'a> = &'a mut dyn FnMut(Key, &[u8]);

/// How far a long work has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// With what.
    pub stage: Stage,
    /// Bytes that are done.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

/// What a long work is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// All files are read and checked.
    Reading,
    /// What lives is handed out, or written.
    Rows,
}

/// How a store is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What is promised. [`Durability::Memory`] is for [`memory()`]; here it means the same as
    /// [`Durability::Flush`].
    pub durability: Durability,
    /// What is done when something is damaged.
    pub on_damage: OnDamage,
    /// Bytes of a segment, about; at most [`Options::SEGMENT_BYTES_MAX`].
    pub segment_bytes: u32,
    /// Bytes of changes that wait for the disk before [`Health::Behind`] is said. They are not
    /// refused: who commits asks first.
    pub queue_bytes_max: usize,
}

impl Options {
    /// Longest segment that may be asked for, in bytes.
    pub const SEGMENT_BYTES_MAX: u32 = 64 << 20;
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            on_damage: OnDamage::default(),
            segment_bytes: Self::SEGMENT_BYTES_MAX,
            queue_bytes_max: 64 << 20,
        }
    }
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Rows there are.
    pub rows: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Bytes of them that rows refer to.
    pub live_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of changes that are not yet durable.
    pub queued_bytes: u64,
    /// Batches written since the store was opened.
    pub batches: u64,
    /// Failures to write, and to read what is to be cleaned, since then, by [`Trouble::ALL`].
    pub errors: [u64; Trouble::ALL.len()],
    /// Rows of which the disk has lost the value since then; found when a segment was cleaned.
    pub lost_rows: u64,
}

/// Where changes go.
pub trait Store: Send + Sync {
    /// Takes changes. Never waits for the disk and never fails: what cannot be written yet stays in
    /// memory, so ask [`Store::health`] before taking more upon you. No changes give the number of
    /// the last ones, and with [`Urgency::Now`] hurry those.
    ///
    /// After [`Store::close`] the number never becomes durable.
    fn commit(&self, changes: Changes, urgency: Urgency) -> Commit;

    /// Everything up to here survives, as far as [`Durability`] promises.
    fn durable(&self) -> Commit;

    /// Whether what is committed now will be durable soon.
    fn health(&self) -> Health;

    /// Numbers for metrics.
    fn figures(&self) -> Figures;

    /// Writes what waits, and lets go of the disk. `false`: not all is durable, after this time;
    /// then it is lost.
    fn close(&self, timeout: Duration) -> bool;
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refuses something.
    #[error("store {}: {source}", path.display())]
    File {
        /// What it is about.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process has it.
    #[error("store {}: another simcast has it open; each needs its own directory", .0.display())]
    Locked(PathBuf),
    /// There are other things in the directory.
    #[error("store {}: is no store, and not empty; nothing was changed there", .0.display())]
    NotAStore(PathBuf),
    /// It is to be written where something is already.
    #[error("{}: is not empty; give a directory that is, or is not there yet", .0.display())]
    NotEmpty(PathBuf),
    /// A later release has written it.
    #[error(
        "store {}: has format {version}, and this release reads {FORMAT_VERSION}: a later simcast \
         has written it. Use that one, or bring back a backup from before the upgrade with \
         `simcast store restore`. Nothing was changed",
        path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// No header in it can be read.
    #[error(
        "store {}: cannot be read: no segment has a header that simcast has written. Bring back a \
         backup with `simcast store restore`, or begin anew with on_damage = \"set-aside\": the \
         files are kept. Nothing was changed",
        .0.display()
    )]
    Unreadable(PathBuf),
    /// Some of it is not what was written.
    #[error(
        "store {folder}: damaged in {count} {places}; the first is {first}\n\
         `simcast store check` tells all of them. Bring back a backup with `simcast store \
         restore`, or go on without what is damaged with on_damage = \"salvage\": the files are \
         kept. Nothing was changed",
        folder = folder.display(),
        count = damages.count,
        places = if damages.count == 1 { "place" } else { "places" },
        first = damages.told.first().map_or_else(String::new, ToString::to_string)
    )]
    Damaged {
        /// The directory.
        folder: PathBuf,
        /// What is damaged.
        damages: Damages,
    },
    /// The system gives no thread to write with.
    #[error("store: the system gives no thread: {0}")]
    Thread(io::Error),
}

impl StoreError {
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

#[cfg(test)]
pub(crate) mod tests;
