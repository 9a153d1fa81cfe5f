//! The envelope `{"nid", "gid", "type", "body"}` as the clients write and read it `[0064]`.
//!
//! JSON is what the patent shows; CBOR (RFC 8949) is the same for narrow links, with integer
//! keys 1 to 4 and binary bodies as byte strings.

mod cbor;

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::chunk::Chunk;
use super::payload;
use crate::ids::decimal;

/// The encoding of what a client sends; it reads both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// One JSON object.
    #[default]
    Json,
    /// One CBOR map.
    Cbor,
}

/// One message on `To_eUICC` or `To_SM-SR`. Numbers are not checked here, so that a test can
/// say anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The device; 0 = no single one. Receiver on `To_eUICC`, sender on `To_SM-SR`.
    pub nid: u128,
    /// The group; 0 = none.
    pub gid: u64,
    /// What kind of message.
    pub kind: Kind,
    /// Transaction id, echoed by the answer.
    pub tid: Option<Tid>,
    /// Result code of an answer; 0 = success.
    pub rc: Option<i64>,
    /// Who sent it, as stamped by the control unit.
    pub src: Option<u128>,
    /// What the sender asks of the control unit besides (`chunks`, `parts`, `wave`, …). It is
    /// written and not read: receivers have no use for it.
    pub asks: Map<String, Value>,
    /// Which piece of a message this is, if it is one.
    pub chunk: Option<Chunk>,
    /// The GSMA message, or a piece of it.
    pub body: Body,
}

impl Envelope {
    /// An envelope with an empty body.
    #[must_use]
    pub fn new(nid: u128, gid: u64, kind: Kind) -> Self {
        let body = Body::Value(Value::Null);
        Self { nid, gid, kind, tid: None, rc: None, src: None, asks: Map::new(), chunk: None, body }
    }

    /// With this transaction id.
    #[must_use]
    pub fn with_tid(mut self, tid: Option<Tid>) -> Self {
        self.tid = tid;
        self
    }

    /// With this body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// With this result code.
    #[must_use]
    pub fn with_rc(mut self, rc: i64) -> Self {
        self.rc = Some(rc);
        self
    }

    /// With one more member that asks something of the control unit.
    #[must_use]
    pub fn asking(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.asks.insert(name.into(), value.into());
        self
    }

    /// As bytes for the wire.
    #[must_use]
    pub fn encode(&self, wire: Wire) -> Vec<u8> {
        match wire {
            Wire::Json => serde_json::to_vec(self).expect("strings and numbers are JSON"),
            Wire::Cbor => cbor::encode(self),
        }
    }

    /// From the wire; the first byte tells the encodings apart.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn decode(payload: &[u8]) -> Result<Self, EnvelopeError> {
        match payload.first() {
            None => Err(EnvelopeError::Empty),
            Some(byte) if byte >> 5 == cbor::MAP => cbor::decode(payload),
            Some(_) => decode_json(payload),
        }
    }
}

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `trigger`: A1, D1.
    Trigger,
    /// `msg`: B1, C1.
    Msg,
    /// `ret(trigger)`: A2, D2.
    RetTrigger,
    /// `ret(msg)`: B2, C2.
    RetMsg,
    /// `req(<nid>)`: E1, by that device.
    Req(u128),
    /// `profile(<nid>)`: E2, by that device.
    Profile(u128),
}

impl Kind {
    /// The word on the wire.
    #[must_use]
    pub fn text(self) -> Cow<'static, str> {
        match self {
            Self::Trigger => "trigger".into(),
            Self::Msg => "msg".into(),
            Self::RetTrigger => "ret(trigger)".into(),
            Self::RetMsg => "ret(msg)".into(),
            Self::Req(nid) => format!("req({nid})").into(),
            Self::Profile(nid) => format!("profile({nid})").into(),
        }
    }

    fn parse(text: &str) -> Result<Self, EnvelopeError> {
        let inside = |start: &str| decimal(text.strip_prefix(start)?.strip_suffix(')')?);
        match text {
            "trigger" => return Ok(Self::Trigger),
            "msg" => return Ok(Self::Msg),
            "ret(trigger)" => return Ok(Self::RetTrigger),
            "ret(msg)" => return Ok(Self::RetMsg),
            _ => {}
        }
        if let Some(nid) = inside("req(") {
            return Ok(Self::Req(nid));
        }
        inside("profile(").map(Self::Profile).ok_or(EnvelopeError::UnknownType)
    }
}

/// A transaction id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Tid {
    /// An integer.
    Number(u64),
    /// Text, at most 64 bytes.
    Text(String),
}

/// The GSMA message inside.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Binary: base64 text in JSON, a byte string in CBOR.
    Bytes(Vec<u8>),
    /// Anything that JSON can say.
    Value(Value),
}

impl Body {
    /// A Bound Profile Package in it: the body itself, if it begins like one, or its member
    /// `boundProfilePackage`; the same of its member `part`, where each device has its own.
    #[must_use]
    pub fn package(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Bytes(bytes) => {
                bytes.starts_with(&payload::BPP_TAG).then_some(Cow::Borrowed(bytes))
            }
            Self::Value(value) => package_in(value.get("part").unwrap_or(value)).map(Cow::Owned),
        }
    }

    /// A body that is alone in some bytes of CBOR.
    #[must_use]
    pub fn from_cbor(bytes: &[u8]) -> Option<Self> {
        cbor::decode_body(bytes)
    }

    /// A member of an object body.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Bytes(_) => None,
            Self::Value(value) => value.get(name),
        }
    }

    /// The body alone, as its bytes or its JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Bytes(bytes) => bytes.into(),
            Self::Value(value) => value.to_string().into_bytes().into(),
        }
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

fn package_in(value: &Value) -> Option<Vec<u8>> {
    if let Value::String(text) = value {
        return STANDARD.decode(text).ok().filter(|bytes| bytes.starts_with(&payload::BPP_TAG));
    }
    let text = value.get("boundProfilePackage")?.as_str()?;
    // Under this name, even what cannot be decoded is a package: a broken one.
    Some(STANDARD.decode(text).unwrap_or_default())
}

/// Why a payload is no envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// No bytes.
    #[error("empty payload")]
    Empty,
    /// Broken JSON, or a member of the wrong kind.
    #[error("not an envelope in JSON: {0}")]
    Json(String),
    /// Broken CBOR, or a member of the wrong kind.
    #[error("not an envelope in CBOR")]
    Cbor,
    /// nid or gid is no number in range.
    #[error("{0} is no number")]
    Number(&'static str),
    /// None of the six types.
    #[error("unknown type")]
    UnknownType,
}

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The routing head first: who routes need not read the body.
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("nid", &self.nid.to_string())?;
        map.serialize_entry("gid", &self.gid)?;
        map.serialize_entry("type", &self.kind.text())?;
        if let Some(tid) = &self.tid {
            map.serialize_entry("tid", tid)?;
        }
        if let Some(rc) = &self.rc {
            map.serialize_entry("rc", rc)?;
        }
        if let Some(src) = &self.src {
            map.serialize_entry("src", &src.to_string())?;
        }
        for (name, value) in &self.asks {
            map.serialize_entry(name, value)?;
        }
        if let Some(chunk) = &self.chunk {
            map.serialize_entry("chunk", chunk)?;
        }
        match &self.body {
            Body::Bytes(bytes) => map.serialize_entry("body", &STANDARD.encode(bytes))?,
            Body::Value(value) => map.serialize_entry("body", value)?,
        }
        map.end()
    }
}

#[derive(Deserialize)]
struct Members<'a> {
    // Raw, because serde_json makes floating-point numbers of what exceeds 64 bits.
    #[serde(borrow)]
    nid: &'a RawValue,
    #[serde(borrow)]
    gid: &'a RawValue,
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    tid: Option<Tid>,
    rc: Option<i64>,
    #[serde(borrow)]
    src: Option<&'a RawValue>,
    chunk: Option<Chunk>,
    #[serde(default)]
    body: Value,
}

fn decode_json(payload: &[u8]) -> Result<Envelope, EnvelopeError> {
    let members: Members<'_> =
        serde_json::from_slice(payload).map_err(|error| EnvelopeError::Json(error.to_string()))?;
    let gid = number(members.gid).and_then(|gid| u64::try_from(gid).ok());
    Ok(Envelope {
        nid: number(members.nid).ok_or(EnvelopeError::Number("nid"))?,
        gid: gid.ok_or(EnvelopeError::Number("gid"))?,
        kind: Kind::parse(&members.kind)?,
        tid: members.tid,
        rc: members.rc,
        src: members.src.and_then(number),
        asks: Map::new(),
        chunk: members.chunk,
        body: Body::Value(members.body),
    })
}

/// An integer, or a string of digits.
fn number(raw: &RawValue) -> Option<u128> {
    let text = raw.get();
    decimal(text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::chunk::Form;
    use serde_json::json;

    const EID: u128 = 89_049_032_123_451_234_512_345_678_901_235;

    fn samples() -> Vec<Envelope> {
        let kinds = [
            Kind::Trigger,
            Kind::Msg,
            Kind::RetTrigger,
            Kind::RetMsg,
            Kind::Req(EID),
            Kind::Profile(EID),
        ];
        let plain = kinds.map(|kind| Envelope::new(EID, 42, kind));
        let body = json!({"a": [1, -2, 1.5, true, null, "ü", {"b": u64::MAX}], "c": i64::MIN});
        let full = Envelope::new(u128::MAX, u64::MAX, Kind::RetMsg)
            .with_tid(Some(Tid::Text("t-1".into())))
            .with_rc(-7)
            .with_body(body);
        let small = Envelope::new(0, 0, Kind::Msg).with_tid(Some(Tid::Number(7)));
        let stamped = Envelope { src: Some(EID), ..Envelope::new(0, 1, Kind::RetMsg) };
        let chunk = Some(Chunk { n: 1, of: 2, offset: 0, total: 9, form: Form::Json });
        let piece = Envelope { chunk, ..small.clone() };
        plain.into_iter().chain([full, small, stamped, piece]).collect()
    }

    #[test]
    fn both_encodings_read_what_they_write() {
        for envelope in samples() {
            for wire in [Wire::Json, Wire::Cbor] {
                let bytes = envelope.encode(wire);
                assert_eq!(Envelope::decode(&bytes).as_ref(), Ok(&envelope), "{wire:?}");
            }
        }
    }

    #[test]
    fn json_looks_like_the_patent() {
        let envelope = Envelope::new(7, 0, Kind::RetMsg).with_tid(Some(Tid::Number(3)));
        let text = String::from_utf8(envelope.with_rc(0).encode(Wire::Json)).unwrap();
        assert_eq!(text, r#"{"nid":"7","gid":0,"type":"ret(msg)","tid":3,"rc":0,"body":null}"#);
    }

    #[test]
    fn what_is_asked_of_the_control_unit_is_written_and_not_read() {
        let envelope = Envelope::new(7, 0, Kind::Msg);
        let asking = envelope.clone().asking("chunks", true).asking("wave", 10);
        let text = String::from_utf8(asking.encode(Wire::Json)).unwrap();
        assert!(text.contains(r#","chunks":true,"wave":10,"body""#), "{text}");
        for wire in [Wire::Json, Wire::Cbor] {
            let read = Envelope::decode(&asking.encode(wire));
            assert_eq!(read.as_ref(), Ok(&envelope), "{wire:?}");
        }
    }

    #[test]
    fn numbers_come_as_integers_or_digits_in_any_order() {
        let text = format!(r#" {{"x":1,"body":{{}},"type":"msg","gid":"42","nid":{EID}}}"#);
        let envelope = Envelope::decode(text.as_bytes()).unwrap();
        assert_eq!((envelope.nid, envelope.gid), (EID, 42));
    }

    #[test]
    fn binary_bodies_survive_and_are_smaller_in_cbor() {
        let package = payload::bound_profile_package(1, 1000).unwrap();
        let envelope = Envelope::new(EID, 0, Kind::Msg).with_body(package.clone());
        let (json, cbor) = (envelope.encode(Wire::Json), envelope.encode(Wire::Cbor));
        assert!(cbor.len() < 1040 && json.len() > 1330, "{} {}", cbor.len(), json.len());
        for bytes in [json, cbor] {
            let body = Envelope::decode(&bytes).unwrap().body;
            assert_eq!(body.package().as_deref(), Some(package.as_slice()));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "7",
            r#"{"nid":1,"gid":0,"type":"msg"} x"#,
            r#"{"nid":1,"nid":2,"gid":0,"type":"msg"}"#,
            r#"{"nid":-1,"gid":0,"type":"msg"}"#,
            r#"{"nid":1e3,"gid":0,"type":"msg"}"#,
            r#"{"nid":"","gid":0,"type":"msg"}"#,
            r#"{"nid":1,"gid":18446744073709551616,"type":"msg"}"#,
            r#"{"nid":1,"gid":0,"type":"req()"}"#,
            r#"{"nid":1,"gid":0,"type":"req(1"}"#,
            r#"{"nid":1,"gid":0,"type":"MSG"}"#,
        ] {
            assert!(Envelope::decode(text.as_bytes()).is_err(), "{text}");
        }
    }
}
