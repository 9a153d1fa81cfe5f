//! Envelopes as a second pair of eyes writes and reads them: serde_json and minicbor.

use std::collections::BTreeMap;

use bytes::Bytes;
use minicbor::{Decoder, Encoder};
use serde_json::Value;
use serde_json::value::RawValue;

/// How an envelope is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Json,
    CborTexts,
    CborIntegers,
    /// Integers, without the number of members in front.
    CborIndefinite,
}

pub(super) const WIRES: [Wire; 4] =
    [Wire::Json, Wire::CborTexts, Wire::CborIntegers, Wire::CborIndefinite];

const NAMES: [&str; 14] = [
    "",
    "nid",
    "gid",
    "type",
    "body",
    "tid",
    "rc",
    "parts",
    "chunks",
    "wave",
    "reinstate",
    "campaign",
    "src",
    "chunk",
];

impl Wire {
    /// A value as it stands in an envelope of this kind.
    pub(super) fn value(self, value: &Value) -> Vec<u8> {
        if self == Self::Json { value.to_string().into_bytes() } else { cbor(value) }
    }

    /// An envelope with these members, in this order; their values are encoded already.
    pub(super) fn envelope(self, members: &[(&str, Vec<u8>)]) -> Bytes {
        if self == Self::Json {
            let text = |(name, value): &(&str, Vec<u8>)| {
                format!("{}:{}", Value::from(*name), String::from_utf8(value.clone()).unwrap())
            };
            let all: Vec<String> = members.iter().map(text).collect();
            return format!("{{{}}}", all.join(",")).into();
        }
        let mut e = Encoder::new(Vec::new());
        if self == Self::CborIndefinite {
            e.begin_map().unwrap();
        } else {
            e.map(members.len() as u64).unwrap();
        }
        for (name, value) in members {
            match NAMES.iter().position(|known| known == name) {
                Some(number) if self != Self::CborTexts => drop(e.u8(number as u8).unwrap()),
                None if self != Self::CborTexts => drop(e.u16(1000 + name.len() as u16).unwrap()),
                Some(_) | None => drop(e.str(name).unwrap()),
            }
            e.writer_mut().extend(value);
        }
        if self == Self::CborIndefinite {
            e.end().unwrap();
        }
        e.into_writer().into()
    }
}

pub(super) fn cbor(value: &Value) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    put(&mut e, value);
    e.into_writer()
}

pub(super) fn cbor_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.bytes(bytes).unwrap();
    e.into_writer()
}

fn put(e: &mut Encoder<Vec<u8>>, value: &Value) {
    match value {
        Value::Null => drop(e.null().unwrap()),
        Value::Bool(it) => drop(e.bool(*it).unwrap()),
        Value::Number(it) => match it.as_u64() {
            Some(it) => drop(e.u64(it).unwrap()),
            None => drop(e.f64(it.as_f64().unwrap()).unwrap()),
        },
        Value::String(it) => drop(e.str(it).unwrap()),
        Value::Array(items) => {
            e.array(items.len() as u64).unwrap();
            items.iter().for_each(|item| put(e, item));
        }
        Value::Object(members) => {
            e.map(members.len() as u64).unwrap();
            for (name, value) in members {
                e.str(name).unwrap();
                put(e, value);
            }
        }
    }
}

/// The members of a map, each value as its bytes. An integer for a name is written `#7`.
pub(super) fn members(map: &[u8]) -> BTreeMap<String, Vec<u8>> {
    if map[0] == b'{' {
        let raw: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(map).unwrap();
        return raw.into_iter().map(|(name, value)| (name, value.get().into())).collect();
    }
    let mut d = Decoder::new(map);
    let count = d.map().unwrap().expect("what we write is definite");
    let mut members = BTreeMap::new();
    for _ in 0..count {
        let name = match d.datatype().unwrap() {
            minicbor::data::Type::String => d.str().unwrap().to_owned(),
            _ => format!("#{}", d.u64().unwrap()),
        };
        let start = d.position();
        d.skip().unwrap();
        assert!(members.insert(name, map[start..d.position()].to_vec()).is_none(), "once");
    }
    assert_eq!(d.position(), map.len(), "to the last byte");
    members
}

/// The members of an envelope by their texts, whatever its keys are; says whether all of them are
/// integers.
pub(super) fn envelope(payload: &[u8]) -> (BTreeMap<String, Vec<u8>>, bool) {
    let all = members(payload);
    let integers = all.keys().all(|name| name.starts_with('#'));
    let text = |name: String| match name.strip_prefix('#').map(|n| n.parse::<usize>().unwrap()) {
        Some(number) => NAMES.get(number).map_or(name.clone(), |text| (*text).to_owned()),
        None => name,
    };
    (all.into_iter().map(|(name, value)| (text(name), value)).collect(), integers)
}

pub(super) fn number(value: &[u8]) -> u64 {
    match std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()) {
        Some(number) if value[0] >= b'0' && value[0] <= b'9' => number,
        _ => Decoder::new(value).u64().unwrap(),
    }
}

pub(super) fn text(value: &[u8]) -> String {
    if value[0] == b'"' {
        serde_json::from_slice(value).unwrap()
    } else {
        Decoder::new(value).str().unwrap().to_owned()
    }
}

/// The same envelope with the number of its members in front.
pub(super) fn definite(payload: &Bytes) -> Bytes {
    if payload[0] != 0xBF {
        return payload.clone();
    }
    let mut d = Decoder::new(&payload[1..]);
    let mut count = 0;
    while d.position() + 2 < payload.len() {
        d.skip().unwrap();
        d.skip().unwrap();
        count += 1;
    }
    [&[0xA0 + count], &payload[1..payload.len() - 1]].concat().into()
}
