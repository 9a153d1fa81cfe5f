//! The envelope as a JSON object (RFC 8259).

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::envelope::{MAX_DEPTH, Members, Number, TID_BYTES_MAX, Tid};

/// The members of one JSON object that fills the whole payload; `None` when it is no such thing.
pub(super) fn members(payload: &[u8]) -> Option<Members<'_>> {
    let object = object(payload)?;
    object.body?;
    Some(Members {
        nid: number(object.nid?)?,
        gid: number(object.gid?)?,
        kind: string(object.kind?)?,
        tid: object.tid.map_or(Some(None), |value| tid(value).map(Some))?,
        rc: object.rc.map_or(Some(None), |value| value.get().parse().ok().map(Some))?,
    })
}

/// The body, as it stands there.
pub(super) fn body(payload: &[u8]) -> Option<&str> {
    object(payload)?.body.map(RawValue::get)
}

fn object(payload: &[u8]) -> Option<Object<'_>> {
    let text = std::str::from_utf8(payload).ok()?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let object = reader.deserialize_map(ObjectVisitor).ok()?;
    reader.end().ok()?;
    Some(object)
}

/// The raw text of each member; a view of the payload.
#[derive(Default)]
struct Object<'a> {
    nid: Option<&'a RawValue>,
    gid: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    body: Option<&'a RawValue>,
    tid: Option<&'a RawValue>,
    rc: Option<&'a RawValue>,
}

impl<'a> Object<'a> {
    fn member(&mut self, name: &str) -> Option<&mut Option<&'a RawValue>> {
        match name {
            "nid" => Some(&mut self.nid),
            "gid" => Some(&mut self.gid),
            "type" => Some(&mut self.kind),
            "body" => Some(&mut self.body),
            "tid" => Some(&mut self.tid),
            "rc" => Some(&mut self.rc),
            _ => None,
        }
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object::default();
        while let Some(name) = map.next_key::<Name<'de>>()? {
            let value: &RawValue = map.next_value()?;
            if depth(value.get()) >= MAX_DEPTH {
                return Err(A::Error::custom("nested too deeply"));
            }
            let Some(member) = object.member(&name.0) else { continue };
            if member.replace(value).is_some() {
                return Err(A::Error::custom("a member twice"));
            }
        }
        Ok(object)
    }
}

/// A member's name; borrowed unless it has escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// How deep containers are nested in a well-formed value; 0 for a scalar, which is not scanned.
fn depth(value: &str) -> usize {
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

fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Name<'_>>(value.get()).ok().map(|name| name.0)
}

fn tid(value: &RawValue) -> Option<Tid> {
    if !value.get().starts_with('"') {
        return value.get().parse().ok().map(Tid::Number);
    }
    let text = string(value)?;
    (text.len() <= TID_BYTES_MAX).then(|| Tid::Text(text.as_ref().into()))
}
