//! Where a Bound Profile Package may be cut: between the segments that the eUICC is fed one by
//! one (SGP.22, 2.5.5).
//!
//! ```text
//! BF36 { BF23 {…}  A0 { 87… }  A1 { 88… }  [A2 { 87… }]  A3 { 86… } }
//! └──────────────┘ └─────────┘ └──┘ └────┘ └──────────┘  └──┘ └──┘
//! ```

/// The tag of a package, its first two bytes.
const PACKAGE: &[u8] = &[0xBF, 0x36];
const SECURE_CHANNEL: &[u8] = &[0xBF, 0x23];
const FIRST_87: &[u8] = &[0xA0];
const ALL_88: &[u8] = &[0xA1];
const SECOND_87: &[u8] = &[0xA2];
const ALL_86: &[u8] = &[0xA3];

/// Where each segment ends, in ascending order; `None` for what is no well-formed package to its
/// last byte.
pub(super) fn segment_ends(bytes: &[u8]) -> Option<Vec<usize>> {
    let mut walk = Walk { bytes, at: 0, ends: Vec::new() };
    let end = walk.header(PACKAGE, bytes.len())?;
    (end == bytes.len()).then_some(())?;
    walk.at = walk.header(SECURE_CHANNEL, end)?;
    walk.ends.push(walk.at);
    walk.whole(FIRST_87, 0x87, end)?;
    walk.members(ALL_88, 0x88, end)?;
    if bytes[walk.at..end].starts_with(SECOND_87) {
        walk.whole(SECOND_87, 0x87, end)?;
    }
    walk.members(ALL_86, 0x86, end)?;
    (walk.at == end).then_some(walk.ends)
}

struct Walk<'a> {
    bytes: &'a [u8],
    /// All before is read.
    at: usize,
    ends: Vec<usize>,
}

impl Walk<'_> {
    /// Passes tag and length of a TLV that ends by `limit`, and says where it ends.
    fn header(&mut self, tag: &[u8], limit: usize) -> Option<usize> {
        let rest = self.bytes.get(self.at..limit)?.strip_prefix(tag)?;
        let (length, length_bytes) = length(rest)?;
        let start = self.at + tag.len() + length_bytes;
        let end = start.checked_add(length).filter(|end| *end <= limit)?;
        self.at = start;
        Some(end)
    }

    /// Passes a sequence whose members are TLVs of one tag; at least one.
    fn sequence(&mut self, tag: &[u8], member: u8, limit: usize, each: bool) -> Option<()> {
        let end = self.header(tag, limit)?;
        if each {
            self.ends.push(self.at);
        }
        (self.at < end).then_some(())?;
        while self.at < end {
            self.at = self.header(&[member], end)?;
            if each || self.at == end {
                self.ends.push(self.at);
            }
        }
        Some(())
    }

    /// A sequence that is one segment.
    fn whole(&mut self, tag: &[u8], member: u8, limit: usize) -> Option<()> {
        self.sequence(tag, member, limit, false)
    }

    /// A sequence whose header is a segment, and each of its members.
    fn members(&mut self, tag: &[u8], member: u8, limit: usize) -> Option<()> {
        self.sequence(tag, member, limit, true)
    }
}

/// A length in the shortest form of DER, and how many bytes it takes.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let (first, rest) = bytes.split_first()?;
    let count = match first {
        0..=0x7F => return Some((usize::from(*first), 1)),
        0x81..=0x84 => usize::from(first & 0x7F),
        _ => return None,
    };
    let digits = rest.get(..count)?;
    let length = digits.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let shortest = digits[0] != 0 && length > 0x7F;
    shortest.then_some((length, 1 + count))
}
