//! The envelope as a JSON object (RFC 8259).

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::envelope::{
    self, MAX_DEPTH, Members, Name, Number, Options, TID_BYTES_MAX, Tid, Wave, once, percent,
    permille,
};

/// Reads the members of one JSON object that fills the whole payload; `None` when it is no such
/// thing.
pub(super) fn read<'a>(payload: &'a [u8], members: &mut Members<'a>) -> Option<()> {
    let text = std::str::from_utf8(payload).ok()?;
    let mut raw: [Option<&RawValue>; Name::COUNT] = [None; Name::COUNT];
    walk(text, |name, value| {
        if depth(value.get()) >= MAX_DEPTH {
            return None;
        }
        match Name::of_text(name) {
            Name::Other => Some(()),
            name => once(&mut raw[name as usize], value),
        }
    })?;
    let [_, nid, gid, kind, body, tid, rc, parts, chunks, wave, reinstate, campaign, src, _] = raw;
    members.nid = optional(nid, number)?;
    members.gid = optional(gid, number)?;
    members.kind = optional(kind, string)?;
    members.body = body.map(|_| ());
    members.tid = optional(tid, tid_of)?;
    members.rc = optional(rc, |value| value.get().parse().ok())?;
    members.options = Options {
        parts: optional(parts, boolean)?.unwrap_or_default(),
        chunks: optional(chunks, boolean)?.unwrap_or_default(),
        reinstate: optional(reinstate, boolean)?.unwrap_or_default(),
        wave: optional(wave, wave_of)?,
        has_src: src.is_some(),
        campaign: optional(campaign, |value| envelope::campaign(&string(value)?))?,
    };
    Some(())
}

/// The body, as it stands there.
pub(super) fn body(payload: &[u8]) -> Option<&str> {
    let mut body = None;
    walk(std::str::from_utf8(payload).ok()?, |name, value| match Name::of_text(name) {
        Name::Body => once(&mut body, value),
        _ => Some(()),
    })?;
    body.map(RawValue::get)
}

/// What is there must be readable.
fn optional<'a, T>(
    value: Option<&'a RawValue>,
    read: impl FnOnce(&'a RawValue) -> Option<T>,
) -> Option<Option<T>> {
    value.map_or(Some(None), |value| read(value).map(Some))
}

/// Gives the members of the JSON object that fills `text` to `each`, in their order; `None` when
/// it is no such thing, or when `each` gives up.
fn walk<'a>(text: &'a str, each: impl FnMut(&str, &'a RawValue) -> Option<()>) -> Option<()> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.deserialize_map(Walk(each)).ok()?;
    reader.end().ok()
}

struct Walk<F>(F);

impl<'de, F: FnMut(&str, &'de RawValue) -> Option<()>> Visitor<'de> for Walk<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Text<'de>>()? {
            self.0(&name.0, map.next_value()?).ok_or_else(|| A::Error::custom("refused"))?;
        }
        Ok(())
    }
}

/// A text; borrowed unless it has escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// As [`walk`], with the places of each member and of its value in `text`.
pub(super) fn spans(
    text: &str,
    mut each: impl FnMut(&str, Range<usize>, Range<usize>) -> Option<()>,
) -> Option<()> {
    let mut end = text.find('{')? + 1;
    walk(text, |name, raw| {
        let value = raw.get();
        let value_start = value.as_ptr().addr() - text.as_ptr().addr();
        // Between two members stand a comma and blanks alone.
        let start = end + text[end..].find('"')?;
        end = value_start + value.len();
        each(name, start..end, value_start..end)
    })
}

/// How deep containers are nested in a well-formed value; 0 for a scalar, which is not scanned.
pub(super) fn depth(value: &str) -> usize {
    if !value.starts_with(['{', '[']) {
        return 0;
    }
    let (mut level, mut deepest) = (0_usize, 0);
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                level += 1;
                deepest = deepest.max(level);
            }
            b'}' | b']' => level = level.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

/// Digits as text or as a JSON integer of any size; no sign, fraction or exponent.
fn number(value: &RawValue) -> Option<Number> {
    let text = value.get();
    if text.starts_with('"') {
        return Some(Number::from_digits(&string(value)?));
    }
    text.bytes().all(|b| b.is_ascii_digit()).then(|| Number::from_digits(text))
}

/// The text that a JSON string means.
fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    unquoted(value.get())
}

/// As [`string`]; `None` for what is no JSON string.
pub(super) fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value).ok().map(|text| text.0)
}

/// Writes a text as a JSON string.
pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes everything, and any text is JSON");
}

fn tid_of(value: &RawValue) -> Option<Tid> {
    if !value.get().starts_with('"') {
        return value.get().parse().ok().map(Tid::Number);
    }
    envelope::short(&string(value)?, TID_BYTES_MAX).map(Tid::Text)
}

fn boolean(value: &RawValue) -> Option<bool> {
    value.get().parse().ok()
}

fn wave_of(value: &RawValue) -> Option<Wave> {
    let text = value.get();
    if !text.starts_with('{') {
        return Wave::new(text.parse().ok()?, None);
    }
    let (mut first, mut failures_max) = (None, None);
    walk(text, |name, value| match name {
        "first" => once(&mut first, value.get().parse().ok()?),
        "failures_max" => once(&mut failures_max, ratio(value)?),
        _ => None,
    })?;
    Wave::new(first?, failures_max)
}

/// A ratio as a number or in percent.
fn ratio(value: &RawValue) -> Option<u16> {
    if value.get().starts_with('"') {
        return percent(&string(value)?);
    }
    permille(value.get().parse().ok()?)
}
