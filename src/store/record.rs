//! Records: what a segment consists of behind its header.
//!
//! ```text
//!  0  u32  length of the value in bytes
//!  4  u8   kind   5  u8  table   6  u16  0
//!  8  u32  part
//! 12  u64  id
//! 20  u32  checksum of value and padding
//! 24  u32  0
//! 28  u32  checksum of the 28 bytes before
//! 32       value, then zeros up to a multiple of 8
//! ```
//!
//! All numbers are little-endian. Every byte is under a checksum, and each checksum begins with the
//! segment's secret salt, its number and the offset: a record that a peer has written into its
//! payload, that was moved, or that is left of another file, is none. That the head has a checksum
//! of its own says how far to go on behind a value that is damaged, and whose it was.

use std::hash::{BuildHasher, RandomState};

use super::Key;

/// Bytes of a record before its value.
pub(super) const HEAD_BYTES: usize = 32;
/// Records begin at multiples of this.
pub(super) const ALIGN: usize = 8;
/// Longest value in bytes: a message of 4 MiB, and 256 KiB of what there is to say about it.
pub const VALUE_BYTES_MAX: usize = (4 << 20) + (256 << 10);

/// Where the checksum of the value stands.
const VALUE_CRC: usize = 20;
/// Where the checksum of the head stands.
const HEAD_CRC: usize = 28;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Records follow that were written together; see [`Batch`].
    Batch = 0xb1,
    /// The row has this value.
    Put = 0xb2,
    /// The row is gone.
    Delete = 0xb3,
    /// All parts of the row are gone.
    DeleteAll = 0xb4,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Batch, Self::Put, Self::Delete, Self::DeleteAll]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A record without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) key: Key,
    /// Of the value, without padding.
    pub(super) value_bytes: usize,
}

impl Head {
    /// Bytes of the record on disk.
    pub(super) fn record_bytes(&self) -> usize {
        HEAD_BYTES + self.value_bytes.next_multiple_of(ALIGN)
    }

    /// `None` when these bytes are no head, whatever their checksums say.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEAD_BYTES)?;
        let kind = Kind::of(bytes[4])?;
        let value_bytes = usize::try_from(u32_at(bytes, 0)).ok()?;
        if value_bytes > VALUE_BYTES_MAX {
            return None;
        }
        let key = Key { table: bytes[5], part: u32_at(bytes, 8), id: u64_at(bytes, 12) };
        Some(Self { kind, key, value_bytes })
    }
}

/// What is said at the head of records that were written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The last commit that is in the log with it.
    pub(super) commit: u64,
    /// The segment was on the disk up to this offset when it was written.
    pub(super) synced: u32,
    /// Bytes of its records.
    pub(super) body: u32,
    /// The first segment that still belongs to the log.
    pub(super) oldest: u32,
}

impl Batch {
    /// Bytes of its record.
    pub(super) const BYTES: usize = HEAD_BYTES + 8;

    /// Puts it at the beginning of a buffer that has room for it there.
    pub(super) fn write(&self, buffer: &mut [u8]) {
        let key = Key { table: 0, id: self.commit, part: self.synced };
        let head = Head { kind: Kind::Batch, key, value_bytes: 8 };
        write_head(&mut buffer[..HEAD_BYTES], &head);
        buffer[HEAD_BYTES..HEAD_BYTES + 4].copy_from_slice(&self.body.to_le_bytes());
        buffer[HEAD_BYTES + 4..Self::BYTES].copy_from_slice(&self.oldest.to_le_bytes());
    }

    pub(super) fn read(head: &Head, value: &[u8]) -> Option<Self> {
        if head.kind != Kind::Batch || value.len() != 8 {
            return None;
        }
        let Key { id: commit, part: synced, .. } = head.key;
        Some(Self { commit, synced, body: u32_at(value, 0), oldest: u32_at(value, 4) })
    }
}

/// Appends a record without checksums; `value` writes the value behind the head. `None` when that
/// is too long: then the buffer is as it was.
pub(super) fn push(
    buffer: &mut Vec<u8>,
    kind: Kind,
    key: Key,
    value: impl FnOnce(&mut Vec<u8>),
) -> Option<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEAD_BYTES]);
    value(buffer);
    let value_bytes = buffer.len().saturating_sub(start + HEAD_BYTES);
    if value_bytes > VALUE_BYTES_MAX {
        buffer.truncate(start);
        return None;
    }
    buffer.resize(start + HEAD_BYTES + value_bytes.next_multiple_of(ALIGN), 0);
    write_head(&mut buffer[start..start + HEAD_BYTES], &Head { kind, key, value_bytes });
    Some(())
}

fn write_head(buffer: &mut [u8], head: &Head) {
    let value_bytes = u32::try_from(head.value_bytes).unwrap_or(u32::MAX);
    buffer[..4].copy_from_slice(&value_bytes.to_le_bytes());
    buffer[4..8].copy_from_slice(&[head.kind as u8, head.key.table, 0, 0]);
    buffer[8..12].copy_from_slice(&head.key.part.to_le_bytes());
    buffer[12..20].copy_from_slice(&head.key.id.to_le_bytes());
    buffer[VALUE_CRC..HEAD_BYTES].fill(0);
}

/// What the checksums of a segment begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Salt {
    /// Secret, and another one in every segment.
    pub(super) secret: u64,
    /// The segment's number.
    pub(super) number: u32,
}

impl Salt {
    /// For a new segment. The keys of the standard hasher are the system's random numbers.
    pub(super) fn new(number: u32) -> Self {
        Self { secret: RandomState::new().hash_one(number), number }
    }

    fn begin(self, at: u32) -> u32 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.secret.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.number.to_le_bytes());
        bytes[12..].copy_from_slice(&at.to_le_bytes());
        crc32c::crc32c(&bytes)
    }

    /// Puts checksums into records that will stand at this offset of the segment.
    pub(super) fn seal(self, records: &mut [u8], mut at: u32) {
        let mut rest = records;
        while let Some(head) = Head::read(rest) {
            let bytes = head.record_bytes().min(rest.len());
            let (record, behind) = rest.split_at_mut(bytes);
            let value = crc32c::crc32c_append(self.begin(at), &record[HEAD_BYTES..]);
            record[VALUE_CRC..VALUE_CRC + 4].copy_from_slice(&value.to_le_bytes());
            let head = crc32c::crc32c_append(self.begin(at), &record[..HEAD_CRC]);
            record[HEAD_CRC..HEAD_BYTES].copy_from_slice(&head.to_le_bytes());
            at += u32::try_from(bytes).unwrap_or(u32::MAX);
            rest = behind;
        }
    }

    /// The head that stands at this offset, if one does.
    pub(super) fn head(self, bytes: &[u8], at: u32) -> Option<Head> {
        let head = Head::read(bytes)?;
        let crc = crc32c::crc32c_append(self.begin(at), &bytes[..HEAD_CRC]);
        (crc == u32_at(bytes, HEAD_CRC)).then_some(head)
    }

    /// Whether a record with a good head has a good value.
    pub(super) fn has_value(self, record: &[u8], at: u32) -> bool {
        let crc = crc32c::crc32c_append(self.begin(at), &record[HEAD_BYTES..]);
        crc == u32_at(record, VALUE_CRC)
    }
}

/// The records of a buffer that this process has built, with where each begins.
pub(super) fn records(buffer: &[u8]) -> impl Iterator<Item = (usize, Head)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = Head::read(buffer.get(at..)?)?;
        let found = (at, head);
        at += head.record_bytes();
        Some(found)
    })
}

/// The number there. Callers have looked that the bytes are.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// As [`u32_at`].
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
