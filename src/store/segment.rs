//! One file of the log: its name, its header, and how its records are found, damaged or not.

use std::io;

use super::disk::DiskFile;
use super::record::{ALIGN, Batch, HEAD_BYTES, Head, Kind, Salt, u32_at, u64_at};

/// The format that this release writes. It reads this one alone, since there is no older one yet.
pub const FORMAT_VERSION: u32 = 1;

/// The header stands twice, in two sectors.
const COPY_BYTES: usize = 512;
/// Where the records begin.
pub(super) const HEADER_BYTES: u32 = 2 * COPY_BYTES as u32;

/// Magic, version and checksum stand where they stand in all formats.
const MAGIC: [u8; 8] = *b"SIMCLOG\n";
/// Where the checksum of a copy of the header stands.
const HEADER_CRC: usize = COPY_BYTES - 4;

/// Read from a segment at once.
const CHUNK_BYTES: usize = 1 << 20;

const SUFFIX: &str = ".log";
/// A file on its way to be a segment.
pub(super) const UNFINISHED_SUFFIX: &str = ".new";
/// Digits of a segment's number in its name, at least.
const DIGITS: usize = 8;

/// What a segment is called.
pub(super) fn name(number: u32) -> String {
    format!("{number:0DIGITS$}{SUFFIX}")
}

/// The number of the segment that has this name, if one may have it.
pub(super) fn number(file: &str) -> Option<u32> {
    let number = file.strip_suffix(SUFFIX)?.parse().ok()?;
    (number > 0 && name(number) == file).then_some(number)
}

/// What a segment says about itself and the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) salt: Salt,
    /// Where the segment before this one ends, whatever follows there: that was never
    /// acknowledged.
    pub(super) previous_end: u32,
    /// Where this one ends; 0 while that is open.
    pub(super) end: u32,
    /// The first segment that belonged to the log when this one was begun.
    pub(super) oldest: u32,
}

/// Why a file has no [`Header`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// It is nothing that this store writes, or both copies are damaged.
    Unreadable,
    /// It is of a later release.
    Newer(u32),
}

impl Header {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut copy = [0; COPY_BYTES];
        copy[..8].copy_from_slice(&MAGIC);
        copy[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        copy[12..16].copy_from_slice(&self.salt.number.to_le_bytes());
        copy[16..24].copy_from_slice(&self.salt.secret.to_le_bytes());
        copy[24..28].copy_from_slice(&self.previous_end.to_le_bytes());
        copy[28..32].copy_from_slice(&self.end.to_le_bytes());
        copy[32..36].copy_from_slice(&self.oldest.to_le_bytes());
        let crc = crc32c::crc32c(&copy[..HEADER_CRC]);
        copy[HEADER_CRC..].copy_from_slice(&crc.to_le_bytes());
        copy.repeat(2)
    }

    /// The header of a segment with this number, and whether both copies are in order.
    pub(super) fn read(
        file: &dyn DiskFile,
        number: u32,
    ) -> io::Result<Result<(Self, bool), HeaderFault>> {
        let mut bytes = [0; 2 * COPY_BYTES];
        let read = file.read_at(&mut bytes, 0)?;
        let copies =
            bytes[..read].chunks_exact(COPY_BYTES).map(|copy| Self::read_copy(copy, number));
        let mut copies = copies.chain([Err(HeaderFault::Unreadable); 2]).take(2);
        let (first, second) = (copies.next(), copies.next());
        Ok(match (first, second) {
            (Some(Ok(header)), second) => Ok((header, second == Some(Ok(header)))),
            (_, Some(Ok(header))) => Ok((header, false)),
            (Some(Err(HeaderFault::Newer(version))), _)
            | (_, Some(Err(HeaderFault::Newer(version)))) => Err(HeaderFault::Newer(version)),
            _ => Err(HeaderFault::Unreadable),
        })
    }

    fn read_copy(copy: &[u8], number: u32) -> Result<Self, HeaderFault> {
        if copy[..8] != MAGIC || crc32c::crc32c(&copy[..HEADER_CRC]) != u32_at(copy, HEADER_CRC) {
            return Err(HeaderFault::Unreadable);
        }
        // An older version would be translated here.
        match u32_at(copy, 8) {
            FORMAT_VERSION => {}
            version => return Err(HeaderFault::Newer(version)),
        }
        if u32_at(copy, 12) != number {
            return Err(HeaderFault::Unreadable);
        }
        Ok(Self {
            salt: Salt { secret: u64_at(copy, 16), number },
            previous_end: u32_at(copy, 24),
            end: u32_at(copy, 28),
            oldest: u32_at(copy, 32),
        })
    }
}

/// What stands at an offset of a segment.
#[derive(Debug)]
pub(super) enum Item<'a> {
    /// A record, all of it.
    Record {
        at: u32,
        head: Head,
        /// With head and padding.
        bytes: &'a [u8],
    },
    /// Nothing that could be read, up to `until`. The head may be known nevertheless.
    Bad { at: u32, until: u32, head: Option<Head> },
}

/// Walks over a segment.
pub(super) struct Scanner {
    file: Box<dyn DiskFile>,
    salt: Salt,
    at: u32,
    end: u32,
    /// Its first `filled` bytes are what the file holds from `buffer_at` on.
    buffer: Vec<u8>,
    filled: usize,
    buffer_at: u32,
}

impl Scanner {
    /// Over what the file holds from one offset to another.
    pub(super) fn new(file: Box<dyn DiskFile>, salt: Salt, from: u32, end: u32) -> Self {
        Self { file, salt, at: from, end, buffer: Vec::new(), filled: 0, buffer_at: from }
    }

    /// Where the next item begins.
    pub(super) fn at(&self) -> u32 {
        self.at
    }

    /// Goes on somewhere else.
    pub(super) fn seek(&mut self, at: u32) {
        self.at = at;
    }

    /// What is next; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Item<'_>>> {
        let at = self.at;
        if at >= self.end {
            return Ok(None);
        }
        let Some(head) = self.head(at)? else {
            let until = self.next_head(at)?;
            self.at = until;
            return Ok(Some(Item::Bad { at, until, head: None }));
        };
        let length = head.record_bytes();
        let until = at.saturating_add(u32::try_from(length).unwrap_or(u32::MAX)).min(self.end);
        self.window(at, length)?;
        self.at = until; // not before it could be read: a failure may pass
        let salt = self.salt;
        let bytes = self.window(at, length)?;
        if bytes.len() < length || !salt.has_value(bytes, at) {
            return Ok(Some(Item::Bad { at, until, head: Some(head) }));
        }
        Ok(Some(Item::Record { at, head, bytes }))
    }

    /// The next batch whose head can be read, and where that stands.
    fn next_batch(&mut self) -> io::Result<Option<(u32, Batch)>> {
        while let Some(item) = self.next()? {
            let Item::Record { at, head, bytes } = item else { continue };
            if let Some(batch) = Batch::read(&head, &bytes[HEAD_BYTES..]) {
                return Ok(Some((at, batch)));
            }
        }
        Ok(None)
    }

    /// Walks over the batch that begins here; `None` when it is not whole.
    fn whole_batch(&mut self) -> io::Result<Option<Batch>> {
        let Some(Item::Record { head, bytes, .. }) = self.next()? else { return Ok(None) };
        let Some(batch) = Batch::read(&head, &bytes[HEAD_BYTES..]) else { return Ok(None) };
        let Some(end) = self.at.checked_add(batch.body).filter(|end| *end <= self.end) else {
            return Ok(None);
        };
        while self.at < end {
            match self.next()? {
                Some(Item::Record { head, .. }) if head.kind != Kind::Batch => {}
                _ => return Ok(None),
            }
        }
        Ok((self.at == end).then_some(batch))
    }

    fn head(&mut self, at: u32) -> io::Result<Option<Head>> {
        let salt = self.salt;
        let bytes = self.window(at, HEAD_BYTES)?;
        Ok(if bytes.len() < HEAD_BYTES { None } else { salt.head(bytes, at) })
    }

    /// The first offset behind this one at which there is a head; else the end.
    fn next_head(&mut self, at: u32) -> io::Result<u32> {
        let mut at = at.next_multiple_of(ALIGN as u32);
        loop {
            at = at.saturating_add(ALIGN as u32).min(self.end);
            if at >= self.end || self.head(at)?.is_some() {
                return Ok(at);
            }
        }
    }

    /// So many bytes from there on; fewer where the scan or the file ends.
    fn window(&mut self, at: u32, bytes: usize) -> io::Result<&[u8]> {
        let bytes = bytes.min((self.end - at) as usize);
        let known = at.checked_sub(self.buffer_at).map(|skip| skip as usize);
        let skip = match known {
            Some(skip) if skip + bytes <= self.filled => skip,
            _ => {
                self.fill(at, bytes)?;
                0
            }
        };
        Ok(&self.buffer[skip..(skip + bytes).min(self.filled)])
    }

    fn fill(&mut self, at: u32, bytes: usize) -> io::Result<()> {
        let bytes = bytes.max(CHUNK_BYTES).min((self.end - at) as usize);
        if self.buffer.len() < bytes {
            self.buffer = vec![0; bytes];
        }
        (self.filled, self.buffer_at) = (0, at);
        self.filled = self.file.read_at(&mut self.buffer[..bytes], u64::from(at))?;
        Ok(())
    }
}

/// How far a segment that may have been written to when the power went is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// Up to here everything was on the disk: what is bad before it is damage.
    pub(super) synced: u32,
    /// Here the last batch ends that is whole, as are all before it from `synced` on. What follows
    /// was never acknowledged.
    pub(super) end: u32,
    /// As that batch says; 0 if there is none.
    pub(super) oldest: u32,
}

impl Tail {
    /// Two walks: what the batches say about what was synced; and from there on, strictly, batch
    /// by batch.
    pub(super) fn find(file: Box<dyn DiskFile>, header: &Header, bytes: u32) -> io::Result<Self> {
        let mut scanner = Scanner::new(file, header.salt, HEADER_BYTES, bytes);
        let (mut synced, mut oldest) = (HEADER_BYTES, 0);
        while let Some((_, batch)) = scanner.next_batch()? {
            synced = synced.max(batch.synced);
        }
        // Only what is kept may say what belongs to the log.
        scanner.seek(HEADER_BYTES);
        while let Some((at, batch)) = scanner.next_batch()?
            && at < synced
        {
            oldest = oldest.max(batch.oldest);
        }
        let mut end = synced;
        scanner.seek(synced);
        while let Some(batch) = scanner.whole_batch()? {
            end = scanner.at();
            oldest = oldest.max(batch.oldest);
        }
        Ok(Self { synced, end, oldest })
    }
}
