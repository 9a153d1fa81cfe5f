//! Where the members of an envelope stand in its bytes, and new envelopes of the same format made
//! from some of them. What is kept is copied as it stands, in its order.

use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::envelope::{Name, Number};
use super::{cbor, json};

/// How an envelope is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    /// A map whose keys are integers all, or some or all texts.
    Cbor {
        integer_keys: bool,
    },
}

/// One member of a known name, or a row of others.
#[derive(Clone, Debug)]
struct Span {
    name: Name,
    members: usize,
    whole: Range<usize>,
    value: Range<usize>,
}

/// The places of all members. As each known name stands there once at most, it is small however
/// many members there are.
#[derive(Clone, Debug)]
pub(super) struct Outline {
    payload: Bytes,
    format: Format,
    spans: SmallVec<[Span; 6]>,
}

impl Outline {
    /// `None` when the payload is neither a JSON object nor a CBOR map, or names a member twice.
    pub(super) fn read(payload: &Bytes) -> Option<Self> {
        let mut spans = SmallVec::new();
        let format = if payload.first()? >> 5 == cbor::MAP {
            let mut integer_keys = true;
            cbor::spans(payload, cbor::Reader::name_and_form, |(name, integer), whole, value| {
                integer_keys &= integer;
                note(&mut spans, name, whole, value)
            })?;
            Format::Cbor { integer_keys }
        } else {
            let text = std::str::from_utf8(payload).ok()?;
            json::spans(text, |name, whole, value| {
                note(&mut spans, Name::of_text(name), whole, value)
            })?;
            Format::Json
        };
        Some(Self { payload: payload.clone(), format, spans })
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Where the value of a member stands.
    pub(super) fn value(&self, name: Name) -> Option<Range<usize>> {
        self.spans.iter().find(|span| span.name == name).map(|span| span.value.clone())
    }

    /// The payload from one of these places.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.payload[range]
    }

    /// The same, shared with the payload.
    pub(super) fn slice(&self, range: Range<usize>) -> Bytes {
        self.payload.slice(range)
    }

    /// Gives the members of the map that fills `range` to `each`: the name and the place of the
    /// value. `None` when it is no map with texts for names, or when `each` gives up.
    pub(super) fn members(
        &self,
        range: Range<usize>,
        mut each: impl FnMut(&str, Range<usize>) -> Option<()>,
    ) -> Option<()> {
        let (start, map) = (range.start, self.bytes(range));
        match self.format {
            Format::Json => json::spans(std::str::from_utf8(map).ok()?, |name, _, value| {
                each(name, moved(&value, start))
            }),
            Format::Cbor { .. } => cbor::spans(map, cbor::Reader::text, |name, _, value| {
                each(name, moved(&value, start))
            }),
        }
    }

    /// As [`Self::members`] for a map whose names are numbers of devices.
    pub(super) fn numbered_members(
        &self,
        range: Range<usize>,
        mut each: impl FnMut(Number, Range<usize>) -> Option<()>,
    ) -> Option<()> {
        let (start, map) = (range.start, self.bytes(range));
        match self.format {
            Format::Json => json::spans(std::str::from_utf8(map).ok()?, |name, _, value| {
                each(Number::from_digits(name), moved(&value, start))
            }),
            Format::Cbor { .. } => cbor::spans(map, cbor::Reader::nid, |number, _, value| {
                each(number, moved(&value, start))
            }),
        }
    }

    /// Begins an envelope that gets the members of this one but `without`, and `added` others;
    /// `room` is for the bytes of the latter.
    pub(super) fn draft(&self, without: &[Name], added: usize, room: usize) -> Draft<'_> {
        let kept: SmallVec<[&Span; 8]> =
            self.spans.iter().filter(|span| !without.contains(&span.name)).collect();
        let members = added + kept.iter().map(|span| span.members).sum::<usize>();
        let bytes: usize = kept.iter().map(|span| span.whole.len() + 1).sum();
        let mut writer = Writer::new(self.format, bytes + room + MAP_BYTES_MAX);
        writer.open_map(members);
        Draft { writer, outline: self, kept }
    }
}

fn moved(range: &Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

/// The start of a CBOR map, or two braces.
const MAP_BYTES_MAX: usize = 9;

fn note(
    spans: &mut SmallVec<[Span; 6]>,
    name: Name,
    whole: Range<usize>,
    value: Range<usize>,
) -> Option<()> {
    if name != Name::Other && spans.iter().any(|span| span.name == name) {
        return None;
    }
    match spans.last_mut() {
        Some(last) if last.name == Name::Other && name == Name::Other => {
            last.members += 1;
            last.whole.end = whole.end;
        }
        Some(_) | None => spans.push(Span { name, members: 1, whole, value }),
    }
    Some(())
}

/// An envelope in the making.
pub(super) struct Draft<'a> {
    pub(super) writer: Writer,
    outline: &'a Outline,
    kept: SmallVec<[&'a Span; 8]>,
}

impl Draft<'_> {
    /// Copies the members that are kept.
    pub(super) fn keep(&mut self) {
        for span in &self.kept {
            self.writer.separate();
            self.writer.raw(&self.outline.payload[span.whole.clone()]);
        }
    }

    /// The name of a new member; its value is to follow.
    pub(super) fn name(&mut self, name: Name) {
        self.writer.name(name);
    }

    pub(super) fn finish(mut self) -> Bytes {
        self.writer.close_map();
        self.writer.out.into()
    }
}

/// Writes values in one of the formats. The caller keeps its promises on numbers of members and
/// items, and the order of names and values.
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
    format: Format,
}

impl Writer {
    pub(super) fn new(format: Format, capacity: usize) -> Self {
        Self { out: Vec::with_capacity(capacity), format }
    }

    pub(super) fn open_map(&mut self, members: usize) {
        match self.format {
            Format::Json => self.out.push(b'{'),
            Format::Cbor { .. } => cbor::put_start(&mut self.out, cbor::MAP, members as u64),
        }
    }

    pub(super) fn close_map(&mut self) {
        if self.format == Format::Json {
            self.out.push(b'}');
        }
    }

    /// A name within the envelope: an integer, where all its names are.
    pub(super) fn name(&mut self, name: Name) {
        if self.format == (Format::Cbor { integer_keys: true }) {
            cbor::put_start(&mut self.out, cbor::UNSIGNED, name as u64);
        } else {
            self.key(name.text());
        }
    }

    /// A name in a map.
    pub(super) fn key(&mut self, text: &str) {
        self.separate();
        self.text(text);
        if self.format == Format::Json {
            self.out.push(b':');
        }
    }

    /// What stands between two members, or two items: nothing after the start of a container.
    pub(super) fn separate(&mut self) {
        if self.format == Format::Json && !matches!(self.out.last(), Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }

    pub(super) fn text(&mut self, text: &str) {
        match self.format {
            Format::Json => json::put_string(&mut self.out, text),
            Format::Cbor { .. } => {
                cbor::put_start(&mut self.out, cbor::TEXT, text.len() as u64);
                self.raw(text.as_bytes());
            }
        }
    }

    /// Bytes in CBOR; JSON has no such value.
    pub(super) fn byte_string(&mut self, bytes: &[u8]) {
        cbor::put_start(&mut self.out, cbor::BYTES, bytes.len() as u64);
        self.raw(bytes);
    }

    pub(super) fn number(&mut self, number: u64) {
        match self.format {
            Format::Json => self.raw(number.to_string().as_bytes()),
            Format::Cbor { .. } => cbor::put_start(&mut self.out, cbor::UNSIGNED, number),
        }
    }

    /// A value in this format.
    pub(super) fn raw(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
    }
}
