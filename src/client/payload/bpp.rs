//! The Bound Profile Package of SGP.22, section 2.5: what B1 and C1 carry.
//!
//! ```text
//! BF36 boundProfilePackage
//!   BF23 initialiseSecureChannel
//!   A0   firstSequenceOf87   87 …          ConfigureISDP
//!   A1   sequenceOf88        88 …          StoreMetadata
//!   A2   secondSequenceOf87  87 …          ReplaceSessionKeys (optional)
//!   A3   sequenceOf86        86 … 86 …     the profile, up to 1020 bytes each
//! ```

use std::ops::Range;

use super::Noise;

/// The size of a usual operational profile, bound: 12.5 kB.
pub const BPP_BYTES: usize = 12_500;
/// The first bytes of every package.
pub const BPP_TAG: [u8; 2] = BOUND_PROFILE_PACKAGE.to_be_bytes();
/// Smaller ones have no room for the parts before the profile.
const BPP_BYTES_MIN: usize = 1_000;
/// Larger ones fit no eUICC.
const BPP_BYTES_MAX: usize = 1024 * 1024;
/// One 86 TLV: 1007 bytes of profile, padding, MAC, tag and length.
const SEGMENT_BYTES_MAX: usize = 1020;

const BOUND_PROFILE_PACKAGE: u16 = 0xbf36;
const INITIALISE_SECURE_CHANNEL: u16 = 0xbf23;
const FIRST_SEQUENCE_OF_87: u16 = 0xa0;
const SEQUENCE_OF_88: u16 = 0xa1;
const SECOND_SEQUENCE_OF_87: u16 = 0xa2;
const SEQUENCE_OF_86: u16 = 0xa3;

/// No package of this size can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a bound profile package has {BPP_BYTES_MIN} to {BPP_BYTES_MAX} bytes, not {0}")]
pub struct PayloadError(pub usize);

/// Why some bytes are no Bound Profile Package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BppError {
    /// A tag or length is cut off, longer than need be, or points beyond its parent.
    #[error("malformed TLV at byte {0}")]
    Malformed(usize),
    /// Another tag than the structure has here.
    #[error("expected tag {expected:x} at byte {at}")]
    WrongTag {
        /// Where.
        at: usize,
        /// The tag that should stand there.
        expected: u16,
    },
    /// An 86 TLV of more than 1020 bytes.
    #[error("segment of {0} bytes")]
    LongSegment(usize),
    /// A sequence that must hold something is empty.
    #[error("empty sequence {0:x}")]
    EmptySequence(u16),
    /// Bytes after the end.
    #[error("{0} bytes too many")]
    TrailingBytes(usize),
}

/// What a verified package consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The whole package.
    pub total_bytes: usize,
    /// Number of 88 TLVs (metadata).
    pub metadata_segments: usize,
    /// Whether session keys are replaced (A2).
    pub replaces_keys: bool,
    /// Number of 86 TLVs (profile).
    pub profile_segments: usize,
    /// Bytes in all 86 TLVs, with their tags and lengths.
    pub profile_bytes: usize,
}

/// A package of exactly `total_bytes`, the same for the same seed.
///
/// # Errors
/// [`PayloadError`] for sizes out of range.
pub fn bound_profile_package(seed: u64, total_bytes: usize) -> Result<Vec<u8>, PayloadError> {
    if !(BPP_BYTES_MIN..=BPP_BYTES_MAX).contains(&total_bytes) {
        return Err(PayloadError(total_bytes));
    }
    // Lengths of DER jump by two where they need another byte, so some sizes cannot be
    // reached by the profile alone; some bytes more of metadata step over them.
    let exact = (0..40).find_map(|extra| {
        let mut noise = Noise(seed);
        let head = head(&mut noise, 120 + extra);
        let room = total_bytes.checked_sub(head.len())?;
        (room.saturating_sub(16)..room).rev().find_map(|profile_bytes| {
            let sizes = segment_sizes(profile_bytes)?;
            let a3 = tlv_bytes(1, profile_bytes);
            let total = tlv_bytes(2, head.len() + a3);
            (total == total_bytes).then(|| assemble(&mut noise, &head, &sizes))
        })
    });
    exact.ok_or(PayloadError(total_bytes))
}

/// The segments in which a package goes to the eUICC (SGP.22, 2.5.5): headers travel with
/// what follows them, every 88 and 86 TLV goes alone. Together they are the package.
///
/// # Errors
/// [`BppError`] for what is no package.
pub fn split(bpp: &[u8]) -> Result<Vec<&[u8]>, BppError> {
    Ok(walk(bpp)?.segments.into_iter().map(|range| &bpp[range]).collect())
}

/// Checks the structure to the last byte.
///
/// # Errors
/// [`BppError`] names the first fault.
pub fn verify(bpp: &[u8]) -> Result<Outline, BppError> {
    Ok(walk(bpp)?.outline)
}

struct Walk {
    outline: Outline,
    segments: Vec<Range<usize>>,
}

fn walk(bpp: &[u8]) -> Result<Walk, BppError> {
    let whole = tlv(bpp, 0, bpp.len(), BOUND_PROFILE_PACKAGE)?;
    if whole.end < bpp.len() {
        return Err(BppError::TrailingBytes(bpp.len() - whole.end));
    }
    let end = whole.end;
    let channel = tlv(bpp, whole.start, end, INITIALISE_SECURE_CHANNEL)?;
    let mut segments = Vec::new();
    segments.push(0..channel.end);

    let first = tlv(bpp, channel.end, end, FIRST_SEQUENCE_OF_87)?;
    members(bpp, &first, FIRST_SEQUENCE_OF_87, 0x87)?;
    segments.push(channel.end..first.end);

    let metadata = tlv(bpp, first.end, end, SEQUENCE_OF_88)?;
    let metadata_tlvs = members(bpp, &metadata, SEQUENCE_OF_88, 0x88)?;
    segments.push(first.end..metadata.start);
    segments.extend(metadata_tlvs.iter().cloned());

    let mut at = metadata.end;
    let replaces_keys = bpp.get(at).copied() == Some(SECOND_SEQUENCE_OF_87 as u8);
    if replaces_keys {
        let keys = tlv(bpp, at, end, SECOND_SEQUENCE_OF_87)?;
        members(bpp, &keys, SECOND_SEQUENCE_OF_87, 0x87)?;
        segments.push(at..keys.end);
        at = keys.end;
    }

    let profile = tlv(bpp, at, end, SEQUENCE_OF_86)?;
    let profile_tlvs = members(bpp, &profile, SEQUENCE_OF_86, 0x86)?;
    if let Some(long) = profile_tlvs.iter().find(|tlv| tlv.len() > SEGMENT_BYTES_MAX) {
        return Err(BppError::LongSegment(long.len()));
    }
    segments.push(at..profile.start);
    segments.extend(profile_tlvs.iter().cloned());
    if profile.end < end {
        return Err(BppError::TrailingBytes(end - profile.end));
    }
    let outline = Outline {
        total_bytes: bpp.len(),
        metadata_segments: metadata_tlvs.len(),
        replaces_keys,
        profile_segments: profile_tlvs.len(),
        profile_bytes: profile.len(),
    };
    Ok(Walk { outline, segments })
}

/// The TLVs of one tag that fill a sequence, each with its tag and length.
fn members(
    bytes: &[u8],
    sequence: &Range<usize>,
    name: u16,
    tag: u16,
) -> Result<Vec<Range<usize>>, BppError> {
    let mut found = Vec::new();
    let mut at = sequence.start;
    while at < sequence.end {
        let end = tlv(bytes, at, sequence.end, tag)?.end;
        found.push(at..end);
        at = end;
    }
    if found.is_empty() { Err(BppError::EmptySequence(name)) } else { Ok(found) }
}

/// The value of the TLV at `at`, which must have this tag and end by `limit`.
fn tlv(bytes: &[u8], at: usize, limit: usize, tag: u16) -> Result<Range<usize>, BppError> {
    let rest = &bytes[at..limit];
    let tag_bytes = tag_bytes(tag);
    if rest.len() <= tag_bytes.len() {
        return Err(BppError::Malformed(at));
    }
    let Some(rest) = rest.strip_prefix(tag_bytes.as_slice()) else {
        return Err(BppError::WrongTag { at, expected: tag });
    };
    let (length, length_bytes) = read_length(rest).ok_or(BppError::Malformed(at))?;
    let start = at + tag_bytes.len() + length_bytes;
    match start.checked_add(length) {
        Some(end) if end <= limit => Ok(start..end),
        Some(_) | None => Err(BppError::Malformed(at)),
    }
}

/// A length in its shortest form, and how many bytes it takes.
fn read_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = *bytes.first()?;
    if first < 0x80 {
        return Some((first.into(), 1));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=3).contains(&count) {
        return None;
    }
    let digits = bytes.get(1..=count)?;
    let length = digits.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    (length_bytes(length) == 1 + count).then_some((length, 1 + count))
}

fn length_bytes(length: usize) -> usize {
    match length {
        0..=0x7f => 1,
        0x80..=0xff => 2,
        0x100..=0xffff => 3,
        _ => 4,
    }
}

fn tlv_bytes(tag_bytes: usize, length: usize) -> usize {
    tag_bytes + length_bytes(length) + length
}

fn tag_bytes(tag: u16) -> Vec<u8> {
    let [high, low] = tag.to_be_bytes();
    if high == 0 { vec![low] } else { vec![high, low] }
}

/// Appends an element in BER-TLV, with the shortest length.
pub(super) fn put(out: &mut Vec<u8>, tag: u16, value: &[u8]) {
    put_header(out, tag, value.len());
    out.extend_from_slice(value);
}

fn put_header(out: &mut Vec<u8>, tag: u16, length: usize) {
    out.extend(tag_bytes(tag));
    let count = length_bytes(length) - 1;
    if count > 0 {
        out.push(0x80 | count as u8);
    }
    let digits = length.to_be_bytes();
    out.extend_from_slice(&digits[digits.len() - count.max(1)..]);
}

/// Everything before the profile.
fn head(noise: &mut Noise, metadata_bytes: usize) -> Vec<u8> {
    let mut key_reference = Vec::new();
    put(&mut key_reference, 0x80, &[0x88]); // AES
    put(&mut key_reference, 0x81, &[0x10]); // 16 bytes
    put(&mut key_reference, 0x84, &noise.bytes(8)); // host id
    let mut channel = Vec::new();
    put(&mut channel, 0x82, &[0x01]); // installBoundProfilePackage
    put(&mut channel, 0x80, &noise.bytes(16)); // transaction id
    put(&mut channel, 0xa6, &key_reference);
    put(&mut channel, 0x5f49, &[&[4], noise.bytes(64).as_slice()].concat()); // public key
    put(&mut channel, 0x5f37, &noise.bytes(64)); // signature

    let mut head = Vec::new();
    put(&mut head, INITIALISE_SECURE_CHANNEL, &channel);
    put_sequence(&mut head, FIRST_SEQUENCE_OF_87, 0x87, &noise.bytes(24));
    put_sequence(&mut head, SEQUENCE_OF_88, 0x88, &noise.bytes(metadata_bytes));
    put_sequence(&mut head, SECOND_SEQUENCE_OF_87, 0x87, &noise.bytes(56));
    head
}

fn put_sequence(out: &mut Vec<u8>, tag: u16, member: u16, value: &[u8]) {
    let mut sequence = Vec::new();
    put(&mut sequence, member, value);
    put(out, tag, &sequence);
}

/// Value sizes of 86 TLVs that take `profile_bytes` together.
fn segment_sizes(profile_bytes: usize) -> Option<Vec<usize>> {
    let full = SEGMENT_BYTES_MAX - 4;
    let mut sizes = vec![full; profile_bytes / SEGMENT_BYTES_MAX];
    let rest = profile_bytes % SEGMENT_BYTES_MAX;
    if rest > 0 {
        // 16 bytes and more: a block of the cipher and its MAC.
        let header = (2..=4).find(|header| tlv_bytes(1, rest.saturating_sub(*header)) == rest)?;
        sizes.push(rest.checked_sub(header).filter(|size| *size >= 24)?);
    }
    (!sizes.is_empty()).then_some(sizes)
}

fn assemble(noise: &mut Noise, head: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut profile = Vec::new();
    for size in sizes {
        put(&mut profile, 0x86, &noise.bytes(*size));
    }
    let mut inner = head.to_vec();
    put(&mut inner, SEQUENCE_OF_86, &profile);
    let mut whole = Vec::new();
    put(&mut whole, BOUND_PROFILE_PACKAGE, &inner);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_exactly_the_size_that_was_asked_for() {
        for total in (1_000..4_000).chain([BPP_BYTES, 65_535, 65_536, 65_800, 66_000, 1 << 20]) {
            let bpp = bound_profile_package(1, total).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(bpp.len(), total);
            assert_eq!(verify(&bpp).unwrap_or_else(|e| panic!("{total}: {e}")).total_bytes, total);
        }
        assert_eq!(bound_profile_package(1, 999), Err(PayloadError(999)));
        assert!(bound_profile_package(1, (1 << 20) + 1).is_err());
    }

    #[test]
    fn a_seed_makes_a_package_and_another_seed_another() {
        let make = |seed| bound_profile_package(seed, BPP_BYTES).unwrap();
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }

    #[test]
    fn the_segments_are_the_package() {
        let bpp = bound_profile_package(3, BPP_BYTES).unwrap();
        let outline = verify(&bpp).unwrap();
        let segments = split(&bpp).unwrap();
        assert_eq!(segments.concat(), bpp);
        // Channel, first 87, header of the 88s, header of the 86s, second 87.
        assert_eq!(segments.len(), 5 + outline.metadata_segments + outline.profile_segments);
        assert!(segments.iter().all(|segment| segment.len() <= SEGMENT_BYTES_MAX));
        assert_eq!(segments[0][..2], [0xbf, 0x36]);
        assert_eq!(segments[1][0], 0xa0);
        assert_eq!(segments.last().unwrap()[0], 0x86);
        assert_eq!(outline.profile_segments, 12);
    }

    #[test]
    fn damage_to_the_structure_is_found() {
        let bpp = bound_profile_package(4, BPP_BYTES).unwrap();
        let at = bpp.len() - verify(&bpp).unwrap().profile_bytes;
        for (position, byte) in [(0, 0xbe), (4, 0x31), (5, 0xbe), (at, 0x87), (at + 2, 0xff)] {
            let mut damaged = bpp.clone();
            damaged[position] = byte;
            assert!(verify(&damaged).is_err(), "byte {position} = {byte:x}");
        }
        for length in 0..bpp.len() {
            assert!(verify(&bpp[..length]).is_err(), "cut to {length} bytes");
        }
        let longer = [bpp.as_slice(), &[0]].concat();
        assert_eq!(verify(&longer), Err(BppError::TrailingBytes(1)));
    }

    #[test]
    fn a_segment_of_more_than_1020_bytes_is_refused() {
        let mut noise = Noise(5);
        let head = head(&mut noise, 120);
        let long = assemble(&mut noise, &head, &[1017]);
        assert_eq!(verify(&long), Err(BppError::LongSegment(1021)));
        assert!(verify(&assemble(&mut noise, &head, &[1016])).is_ok());
        assert_eq!(verify(&assemble(&mut noise, &head, &[])), Err(BppError::EmptySequence(0xa3)));
    }
}
