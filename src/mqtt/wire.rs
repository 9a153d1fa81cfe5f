//! The primitives of section 1.5: numbers, text, binary data and variable byte integers, read
//! from a frame without copying and written to anything that takes bytes.

use bytes::{Buf, Bytes, BytesMut};
use bytestring::ByteString;

use super::error::DecodeError;
use crate::ids::PacketId;

/// Largest value of a variable byte integer, and so of a Remaining Length.
pub const VARINT_MAX: usize = 268_435_455;

/// Most bytes a length-prefixed string or binary field can hold.
pub const FIELD_BYTES_MAX: usize = 65_535;

/// A variable byte integer at the start of `bytes`, with the number of bytes it takes; `None`
/// while its last byte is missing.
///
/// # Errors
/// More than four bytes `[MQTT-1.5.5-1]`, or more than the value needs.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(DecodeError::VarintNotMinimal);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(DecodeError::VarintTooLong) }
}

/// A position in a frame, with the end that reading must not cross.
pub(super) struct Cursor {
    frame: Bytes,
    at: usize,
    end: usize,
}

impl Cursor {
    /// Reads `frame` from byte `at` on.
    pub(super) fn new(frame: Bytes, at: usize) -> Self {
        let end = frame.len();
        Self { frame, at: at.min(end), end }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// What is left, unread.
    fn left(&self) -> &[u8] {
        &self.frame[self.at..self.end]
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = *self.left().first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.at += N;
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn varint(&mut self) -> Result<usize, DecodeError> {
        let (value, len) = varint(self.left())?.ok_or(DecodeError::Truncated)?;
        self.at += len;
        Ok(value)
    }

    /// A packet identifier; zero is none `[MQTT-2.2.1-3]`.
    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or(DecodeError::PacketIdZero)
    }

    /// Binary data behind its two-byte length.
    pub(super) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let len = usize::from(self.u16()?);
        self.slice(len)
    }

    /// A UTF-8 string: well-formed, so without surrogates `[MQTT-1.5.4-1]`, and without U+0000
    /// `[MQTT-1.5.4-2]`. A byte order mark is a character like any other `[MQTT-1.5.4-3]`.
    pub(super) fn text(&mut self) -> Result<ByteString, DecodeError> {
        let text = ByteString::try_from(self.binary()?).map_err(|_| DecodeError::Utf8)?;
        if text.as_bytes().contains(&0) {
            return Err(DecodeError::NulCharacter);
        }
        Ok(text)
    }

    /// Everything that is left, and the cursor is at its end. The frame itself becomes the slice:
    /// this is the payload of every PUBLISH, and one count of references less.
    pub(super) fn rest(&mut self) -> Bytes {
        let mut rest = std::mem::take(&mut self.frame);
        rest.truncate(self.end);
        rest.advance(self.at);
        (self.at, self.end) = (0, 0);
        rest
    }

    /// Puts the end `len` bytes from here; returns the end there was, for [`Self::reopen`].
    pub(super) fn narrow(&mut self, len: usize) -> Result<usize, DecodeError> {
        if len > self.left().len() {
            return Err(DecodeError::Truncated);
        }
        Ok(std::mem::replace(&mut self.end, self.at + len))
    }

    /// Undoes [`Self::narrow`].
    pub(super) fn reopen(&mut self, end: usize) {
        self.end = end;
    }

    /// The packet ends here.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }

    fn slice(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.left().len() {
            return Err(DecodeError::Truncated);
        }
        let slice = self.frame.slice(self.at..self.at + len);
        self.at += len;
        Ok(slice)
    }
}

/// Takes what is encoded: a buffer, or [`Length`], which only counts. Everything is encoded by
/// the same code into both, so that lengths cannot disagree with contents.
pub(super) trait Sink {
    fn bytes(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Values beyond [`VARINT_MAX`] have no encoding; callers rule them out.
    fn varint(&mut self, value: usize) {
        let mut left = value.min(VARINT_MAX);
        while left > 0x7F {
            self.u8((left & 0x7F) as u8 | 0x80);
            left >>= 7;
        }
        self.u8(left as u8);
    }

    /// Binary data with its length in front; what exceeds 65,535 bytes is cut off.
    fn binary(&mut self, bytes: &[u8]) {
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.u16(len);
        self.bytes(&bytes[..usize::from(len)]);
    }

    /// Text with its length in front; what exceeds 65,535 bytes is cut off between characters.
    fn text(&mut self, text: &str) {
        let mut end = text.len().min(FIELD_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.binary(&text.as_bytes()[..end]);
    }
}

impl Sink for BytesMut {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts the bytes it is given.
#[derive(Default)]
pub(super) struct Length(pub(super) usize);

impl Sink for Length {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_is_minimal_and_has_at_most_four_bytes() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, VARINT_MAX] {
            let mut out = BytesMut::new();
            out.varint(value);
            assert_eq!(varint(&out), Ok(Some((value, out.len()))), "{value}");
            for cut in 0..out.len() {
                assert_eq!(varint(&out[..cut]), Ok(None), "{value} cut at {cut}");
            }
        }
        assert_eq!(varint(&[0xFF, 0xFF, 0xFF, 0xFF]), Err(DecodeError::VarintTooLong));
        assert_eq!(varint(&[0x80, 0x80, 0x80, 0x80, 0x01]), Err(DecodeError::VarintTooLong));
        for long in [&[0x80, 0x00][..], &[0xFF, 0x80, 0x00], &[0x80, 0x80, 0x80, 0x00]] {
            assert_eq!(varint(long), Err(DecodeError::VarintNotMinimal), "{long:?}");
        }
    }

    #[test]
    fn text_too_long_for_the_wire_is_cut_between_characters() {
        let mut out = BytesMut::new();
        out.text(&"é".repeat(40_000));
        assert_eq!(out.len(), 2 + 65_534);
        let out = out.freeze();
        assert_eq!(Cursor::new(out, 0).text().unwrap().len(), 65_534);
    }
}
