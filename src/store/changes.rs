//! Changes of one step of the broker: all of them survive a crash, or none.

use super::Key;
use super::record::{self, HEAD_BYTES, Kind, VALUE_BYTES_MAX};

/// Most bytes of one [`Changes`], as they are written.
pub const CHANGES_BYTES_MAX: usize = 32 << 20;

/// Rows put and deleted together. They are kept in one buffer in the form in which they are
/// written, so that a row costs no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    records: Vec<u8>,
}

/// Why a change was not taken; the changes are as they were before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// The value alone.
    #[error("a row has at most {VALUE_BYTES_MAX} bytes: split it into parts")]
    Value,
    /// All changes together.
    #[error("changes that belong together have at most {CHANGES_BYTES_MAX} bytes")]
    Changes,
}

impl Changes {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for so many bytes of values in so many rows, so that the buffer need not grow.
    #[must_use]
    pub fn with_room(rows: usize, value_bytes: usize) -> Self {
        let bytes = rows.saturating_mul(HEAD_BYTES + record::ALIGN).saturating_add(value_bytes);
        Self { records: Vec::with_capacity(bytes.min(CHANGES_BYTES_MAX)) }
    }

    /// The row has this value, whatever it had before.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn put(&mut self, key: Key, value: &[u8]) -> Result<(), TooLarge> {
        self.put_with(key, |buffer| buffer.extend_from_slice(value))
    }

    /// As [`Changes::put`]: `write` appends the value to the buffer.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn put_with(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), TooLarge> {
        self.push(Kind::Put, key, write)
    }

    /// The row is gone, if it was there.
    ///
    /// # Errors
    /// [`TooLarge::Changes`].
    pub fn delete(&mut self, key: Key) -> Result<(), TooLarge> {
        self.push(Kind::Delete, key, |_| {})
    }

    /// All parts of the row are gone, as many as were there.
    ///
    /// # Errors
    /// [`TooLarge::Changes`].
    pub fn delete_all(&mut self, table: u8, id: u64) -> Result<(), TooLarge> {
        self.push(Kind::DeleteAll, Key { table, id, part: 0 }, |_| {})
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What they take on disk.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.records.len()
    }

    /// In the form in which they are written, without checksums.
    pub(super) fn records(&self) -> &[u8] {
        &self.records
    }

    fn push(
        &mut self,
        kind: Kind,
        key: Key,
        value: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), TooLarge> {
        let before = self.records.len();
        record::push(&mut self.records, kind, key, value).ok_or(TooLarge::Value)?;
        if self.records.len() > CHANGES_BYTES_MAX {
            self.records.truncate(before);
            return Err(TooLarge::Changes);
        }
        Ok(())
    }
}
