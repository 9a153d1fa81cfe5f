//! Chunks: a body that is larger than its receiver can take, cut into pieces.
//!
//! Each piece is an envelope with the members of the original but `chunks`, in its format, and
//! `"chunk":{"n":3,"of":7,"offset":8190,"total":12500,"as":"base64"}`. What is cut is the *content*
//! of the body, and `as` tells what that is and how a piece of it stands in the piece's body:
//!
//! | body | content | `as` | body of a piece |
//! |---|---|---|---|
//! | JSON: a string of base64 | the bytes it means | `base64` | a string of base64 |
//! | JSON: anything else | its text | `json` | a string: a part of that text |
//! | CBOR: a byte string | its bytes | `bytes` | a byte string |
//! | CBOR: anything else | its encoding | `cbor` | a byte string |
//!
//! The pieces in their order, from `offset` 0 to `total`, give the content again. `n` counts them
//! from 1; `n` equals `of` in the last and in no other. A Bound Profile Package is cut between its
//! segments (`package`), as many of them together as fit, and within a segment only when that
//! alone does not fit; all else is cut by size.
//!
//! Nothing is kept between two pieces: the next is cut from the same payload, from where the last
//! one ended, by whatever limit its receiver has by then. Each costs one pass over the payload.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::envelope::Name;
use super::outline::{Draft, Format, Outline};
use super::{cbor, json, package};

/// The most pieces that one body is cut into: each costs a pass over all of it.
pub const PIECES_MAX: u32 = 8192;

/// One piece, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its envelope; not larger than the limit.
    pub payload: Bytes,
    /// Where the piece after it begins; `None` in the last one.
    pub next: Option<usize>,
    /// Which piece this is, from 1.
    pub number: u32,
    /// How many there are by the same limit.
    pub of: u32,
}

/// Why no piece can be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The payload is to be checked before.
    #[error("the payload is no envelope")]
    Unreadable,
    /// The publisher has put the member `chunk` in.
    #[error("the envelope is a piece already; cut the whole message instead")]
    AlreadyAPiece,
    /// The receiver takes packets that are too small, or the envelope has long members besides its
    /// body.
    #[error("a piece of the message takes at least {needs} bytes; raise the limit to that")]
    LimitTooSmall {
        /// Bytes of a piece's envelope with as little content as there can be.
        needs: usize,
    },
    /// More pieces than [`PIECES_MAX`].
    #[error("the message would be cut into more than {PIECES_MAX} pieces; raise the limit")]
    TooManyPieces,
    /// The caller's mistake.
    #[error("no piece begins at byte {0} of the content")]
    BadOffset(usize),
    /// The caller's mistake: pieces are numbered from 1, and each has taken some of the content.
    #[error("no piece can have the number {0} here")]
    BadNumber(u32),
}

/// How many bytes of content the body of a checked envelope has; `None` when it is none.
#[must_use]
pub fn content_bytes(payload: &Bytes) -> Option<usize> {
    let outline = Outline::read(payload)?;
    Some(Content::of(&outline)?.bytes.len())
}

/// The piece of this number that begins at `offset` of the content, with as much in it as an
/// envelope of at most `envelope_bytes_max` bytes can carry.
///
/// # Errors
/// [`ChunkError`].
pub fn piece(
    payload: &Bytes,
    offset: usize,
    number: u32,
    envelope_bytes_max: usize,
) -> Result<Piece, ChunkError> {
    let outline = Outline::read(payload).ok_or(ChunkError::Unreadable)?;
    if outline.value(Name::Chunk).is_some() {
        return Err(ChunkError::AlreadyAPiece);
    }
    let content = Content::of(&outline).ok_or(ChunkError::Unreadable)?;
    content.check(offset, number)?;
    let total = content.bytes.len();
    let frame = frame_bytes(&outline, &content);
    let room = envelope_bytes_max.saturating_sub(frame);
    if room < content.form.unit() {
        return Err(ChunkError::LimitTooSmall { needs: frame + content.form.unit() });
    }
    let end = content.end_of_piece(offset, room);
    let most = PIECES_MAX.checked_sub(number).ok_or(ChunkError::TooManyPieces)?;
    let rest = content.pieces_from(end, room, most)?;
    let label = Label { number, of: number + rest, offset, total };
    let mut draft = label.draft(&outline, content.form, content.encoded_bytes(offset, end));
    content.put(&mut draft, offset, end);
    let next = (end < total).then_some(end);
    Ok(Piece { payload: draft.finish(), next, number, of: label.of })
}

/// What the content is and how its pieces are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Base64,
    Json,
    Bytes,
    Cbor,
}

impl Form {
    fn text(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Json => "json",
            Self::Bytes => "bytes",
            Self::Cbor => "cbor",
        }
    }

    /// Encoded bytes that hold the least there can be in a piece: four digits of base64, one
    /// character however long, or one byte.
    fn unit(self) -> usize {
        match self {
            Self::Base64 | Self::Json => 4,
            Self::Bytes | Self::Cbor => 1,
        }
    }
}

struct Content<'a> {
    form: Form,
    bytes: Cow<'a, [u8]>,
    /// Where it is best cut, if anywhere.
    segment_ends: Vec<usize>,
}

impl<'a> Content<'a> {
    fn of(outline: &'a Outline) -> Option<Self> {
        let body = outline.bytes(outline.value(Name::Body)?);
        let (form, bytes) = match outline.format() {
            Format::Json => match base64(body) {
                Some(bytes) => (Form::Base64, Cow::Owned(bytes)),
                None => (Form::Json, Cow::Borrowed(body)),
            },
            Format::Cbor { .. } => match cbor::byte_string(body) {
                Some(bytes) => (Form::Bytes, Cow::Borrowed(bytes)),
                None => (Form::Cbor, Cow::Borrowed(body)),
            },
        };
        let binary = matches!(form, Form::Base64 | Form::Bytes);
        let segment_ends = if binary { package::segment_ends(&bytes) } else { None };
        Some(Self { form, bytes, segment_ends: segment_ends.unwrap_or_default() })
    }

    fn check(&self, offset: usize, number: u32) -> Result<(), ChunkError> {
        let total = self.bytes.len();
        let within_character =
            self.form == Form::Json && self.bytes.get(offset).is_some_and(|byte| byte >> 6 == 0b10);
        // What is empty has one piece, and it begins at its end.
        if within_character || offset > total || (offset == total && offset > 0) {
            return Err(ChunkError::BadOffset(offset));
        }
        if number == 0 || number as usize > offset + 1 {
            return Err(ChunkError::BadNumber(number));
        }
        Ok(())
    }

    /// Where a piece ends that begins at `offset` and has `room` for its encoded content.
    fn end_of_piece(&self, offset: usize, room: usize) -> usize {
        let rest = &self.bytes[offset..];
        let most = match self.form {
            Form::Base64 => room / 4 * 3,
            Form::Bytes | Form::Cbor => room,
            Form::Json => escaped_prefix(rest, room),
        };
        if most >= rest.len() {
            return self.bytes.len();
        }
        let end = offset + most;
        let fitting = self.segment_ends.partition_point(|segment| *segment <= end);
        let last = fitting.checked_sub(1).map(|at| self.segment_ends[at]);
        last.filter(|last| *last > offset).unwrap_or(end)
    }

    /// How many pieces there are from `offset` to the end.
    fn pieces_from(&self, offset: usize, room: usize, most: u32) -> Result<u32, ChunkError> {
        let (mut at, mut pieces) = (offset, 0);
        while at < self.bytes.len() {
            if pieces == most {
                return Err(ChunkError::TooManyPieces);
            }
            at = self.end_of_piece(at, room);
            pieces += 1;
        }
        Ok(pieces)
    }

    /// What the content between these places takes in a piece, without quotes or length.
    fn encoded_bytes(&self, offset: usize, end: usize) -> usize {
        let piece = &self.bytes[offset..end];
        match self.form {
            Form::Base64 => piece.len().div_ceil(3) * 4,
            Form::Json => piece.iter().map(|byte| escaped_bytes(*byte)).sum(),
            Form::Bytes | Form::Cbor => piece.len(),
        }
    }

    fn put(&self, draft: &mut Draft<'_>, offset: usize, end: usize) {
        let piece = &self.bytes[offset..end];
        match self.form {
            Form::Base64 => draft.writer.text(&STANDARD.encode(piece)),
            Form::Json => draft.writer.text(&String::from_utf8_lossy(piece)),
            Form::Bytes | Form::Cbor => draft.writer.byte_string(piece),
        }
    }
}

/// The bytes that a JSON string of base64 means. Such a string has one spelling, so that the bytes
/// give it again.
fn base64(body: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok().filter(|text| text.starts_with('"'))?;
    STANDARD.decode(json::unquoted(text)?.as_bytes()).ok()
}

/// What a byte of JSON text takes within a JSON string: there are no control characters in it but
/// three, which are escaped by a letter.
fn escaped_bytes(byte: u8) -> usize {
    1 + usize::from(matches!(byte, b'"' | b'\\' | b'\t' | b'\n' | b'\r'))
}

/// How many bytes of a JSON text, in whole characters, take at most `room` within a JSON string.
fn escaped_prefix(text: &[u8], room: usize) -> usize {
    let (mut taken, mut whole) = (0, 0);
    for (at, byte) in text.iter().enumerate() {
        if byte >> 6 != 0b10 {
            whole = at;
        }
        taken += escaped_bytes(*byte);
        if taken > room {
            return whole;
        }
    }
    text.len()
}

/// `,"chunk":{"n":,"of":,"offset":,"total":,"as":"base64"},"body":""` with its numbers.
const LABEL_BYTES: usize = 100;

/// What a piece says about itself.
struct Label {
    number: u32,
    of: u32,
    offset: usize,
    total: usize,
}

impl Label {
    /// The envelope of the piece up to the value of its body, which takes `room`.
    fn draft<'a>(&self, outline: &'a Outline, form: Form, room: usize) -> Draft<'a> {
        let mut draft = outline.draft(&[Name::Chunks, Name::Body], 2, LABEL_BYTES + room);
        draft.keep();
        draft.name(Name::Chunk);
        draft.writer.open_map(5);
        let numbers = [
            ("n", u64::from(self.number)),
            ("of", self.of.into()),
            ("offset", self.offset as u64),
            ("total", self.total as u64),
        ];
        for (name, number) in numbers {
            draft.writer.key(name);
            draft.writer.number(number);
        }
        draft.writer.key("as");
        draft.writer.text(form.text());
        draft.writer.close_map();
        draft.name(Name::Body);
        draft
    }
}

/// The bytes of a piece's envelope without its content, at most. No number in it exceeds the total,
/// so that this is the same for all pieces, and so are their ends whatever piece is asked for.
fn frame_bytes(outline: &Outline, content: &Content<'_>) -> usize {
    let total = content.bytes.len();
    let widest = u32::try_from(total.max(1)).unwrap_or(u32::MAX);
    let label = Label { number: widest, of: widest, offset: total, total };
    let mut draft = label.draft(outline, content.form, 0);
    match content.form {
        Form::Base64 | Form::Json => draft.writer.text(""),
        Form::Bytes | Form::Cbor => {
            cbor::put_start(&mut draft.writer.out, cbor::BYTES, total as u64);
        }
    }
    draft.finish().len()
}
