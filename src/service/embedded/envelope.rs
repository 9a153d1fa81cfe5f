//! Envelopes as an in-process server writes them `[0064]`: always JSON, always well-formed.
//!
//! Whether one may be sent is not decided here: the control unit reads and judges it like any
//! other. A server that wants CBOR on narrow links encodes it itself and publishes the bytes.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::ids::{Gid, Nid};
use crate::rsp::{Head, Tid};

/// What a server sends to a device or to a group, to be given to
/// [`SmSr::publish`](super::SmSr::publish).
///
/// ```
/// # use simcast::ids::Gid;
/// # use simcast::service::embedded::Envelope;
/// # let group = Gid::new(42).unwrap();
/// let a1 = Envelope::trigger_group(group).with_tid("t-1").with_body(serde_json::json!([1, 2]));
/// assert_eq!(
///     bytes::Bytes::from(a1),
///     r#"{"nid":"0","gid":42,"type":"trigger","tid":"t-1","body":[1,2]}"#
/// );
/// ```
#[derive(Clone, PartialEq, Serialize)]
#[must_use = "an envelope reaches nobody until it is published"]
pub struct Envelope {
    #[serde(serialize_with = "nid")]
    nid: Option<Nid>,
    #[serde(serialize_with = "gid")]
    gid: Option<Gid>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(serialize_with = "tid", skip_serializing_if = "Option::is_none")]
    tid: Option<Tid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rc: Option<i64>,
    body: Body,
}

/// The GSMA message in an envelope.
#[derive(Clone, PartialEq)]
pub enum Body {
    /// Anything that JSON can say.
    Json(Value),
    /// Binary, such as a Bound Profile Package: base64 text in the envelope, as in the JSON
    /// bindings of SGP.22.
    Bytes(Bytes),
}

impl Envelope {
    /// A1: wakes one device.
    pub fn trigger_device(nid: Nid) -> Self {
        Self::new(Some(nid), None, TRIGGER)
    }

    /// A1 in multi mode: wakes every member of a group.
    pub fn trigger_group(gid: Gid) -> Self {
        Self::new(None, Some(gid), TRIGGER)
    }

    /// B1: provisions one device.
    pub fn message_device(nid: Nid) -> Self {
        Self::new(Some(nid), None, MSG)
    }

    /// C1: provisions every member of a group `[0067]`.
    pub fn message_group(gid: Gid) -> Self {
        Self::new(None, Some(gid), MSG)
    }

    /// D2: answers a D1 in its own form and with its transaction id; result code 0, which is
    /// success.
    pub fn answer_trigger(request: &Head) -> Self {
        let mut answer = Self::new(request.nid, request.gid, RET_TRIGGER).with_rc(0);
        answer.tid.clone_from(&request.tid);
        answer
    }

    fn new(nid: Option<Nid>, gid: Option<Gid>, kind: &'static str) -> Self {
        Self { nid, gid, kind, tid: None, rc: None, body: Body::Json(Value::Null) }
    }

    /// With a transaction id: an integer, or at most 64 bytes of text. The answers echo it.
    pub fn with_tid(mut self, tid: impl Into<Tid>) -> Self {
        self.tid = Some(tid.into());
        self
    }

    /// With a result code; other than 0 refuses.
    pub fn with_rc(mut self, rc: i64) -> Self {
        self.rc = Some(rc);
        self
    }

    /// With a body; `null` without.
    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }
}

impl fmt::Debug for Envelope {
    /// Without the body: it is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nid, gid, kind, tid, rc, body: _ } = self;
        f.debug_struct("Envelope")
            .field("nid", nid)
            .field("gid", gid)
            .field("type", kind)
            .field("tid", tid)
            .field("rc", rc)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Body {
    /// Its kind alone: it is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(_) => f.write_str("Json(..)"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
        }
    }
}

impl From<Envelope> for Bytes {
    fn from(envelope: Envelope) -> Self {
        let json = serde_json::to_vec(&envelope);
        json.expect("numbers and texts, and a value that is JSON already").into()
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(value) => value.serialize(serializer),
            Self::Bytes(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
        }
    }
}

const TRIGGER: &str = "trigger";
const MSG: &str = "msg";
const RET_TRIGGER: &str = "ret(trigger)";

/// As digits: many parsers have no integers of 128 bits.
fn nid<S: Serializer>(nid: &Option<Nid>, serializer: S) -> Result<S::Ok, S::Error> {
    match nid {
        Some(nid) => serializer.collect_str(nid),
        None => serializer.serialize_str("0"),
    }
}

fn gid<S: Serializer>(gid: &Option<Gid>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(gid.map_or(0, Gid::get))
}

fn tid<S: Serializer>(tid: &Option<Tid>, serializer: S) -> Result<S::Ok, S::Error> {
    match tid {
        Some(Tid::Number(number)) => serializer.serialize_i128(*number),
        Some(Tid::Text(text)) => serializer.serialize_str(text),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::NidScheme;
    use crate::rsp::{Kind, Refusal, envelope};

    const EID: u128 = 89_049_032_123_451_234_512_345_678_901_235;

    fn device() -> Nid {
        Nid::new(EID, NidScheme::Eid).unwrap()
    }

    fn group() -> Gid {
        Gid::new(42).unwrap()
    }

    fn read(envelope: Envelope) -> Result<Head, Refusal> {
        envelope::read(&Bytes::from(envelope), NidScheme::Eid)
    }

    #[test]
    fn the_control_unit_reads_what_is_meant() {
        let (one, all) = ((Some(device()), None), (None, Some(group())));
        for (envelope, (nid, gid), kind) in [
            (Envelope::trigger_device(device()), one, Kind::Trigger),
            (Envelope::trigger_group(group()), all, Kind::Trigger),
            (Envelope::message_device(device()), one, Kind::Msg),
            (Envelope::message_group(group()), all, Kind::Msg),
        ] {
            let bare = Head { nid, gid, ..Head::new(kind) };
            assert_eq!(read(envelope.clone()), Ok(bare.clone()));
            for tid in [Tid::from("t \"1\""), Tid::from(i128::MIN), Tid::from(7)] {
                let full = envelope.clone().with_tid(tid.clone()).with_rc(-3);
                let head = Head { tid: Some(tid), rc: Some(-3), ..bare.clone() };
                assert_eq!(read(full.with_body(json!({"nid": 1}))), Ok(head));
            }
        }
    }

    #[test]
    fn an_answer_mirrors_its_request() {
        for (nid, gid) in [(Some(device()), None), (None, Some(group()))] {
            let tid = Some(Tid::from("d-1"));
            let request = Head { nid, gid, tid, ..Head::new(Kind::Trigger) };
            let answer = Head { kind: Kind::RetTrigger, rc: Some(0), ..request.clone() };
            assert_eq!(read(Envelope::answer_trigger(&request)), Ok(answer.clone()));
            let refusal = Envelope::answer_trigger(&request).with_rc(1);
            assert_eq!(read(refusal), Ok(Head { rc: Some(1), ..answer }));
        }
    }

    #[test]
    fn a_binary_body_is_base64() {
        let envelope = Envelope::message_group(group()).with_body(vec![0xBF, 0x36, 0]);
        let text = r#"{"nid":"0","gid":42,"type":"msg","body":"vzYA"}"#;
        assert_eq!(Bytes::from(envelope), text);
    }

    #[test]
    fn what_the_control_unit_does_not_take_is_refused_and_not_repaired() {
        let long = "x".repeat(envelope::TID_BYTES_MAX + 1);
        let envelope = Envelope::trigger_device(device()).with_tid(&*long);
        assert_eq!(read(envelope), Err(Refusal::UnreadableEnvelope));
    }

    #[test]
    fn no_body_is_printed() {
        let secret = Envelope::message_device(device()).with_body(json!("secret"));
        assert!(!format!("{secret:?}").contains("secret"));
        assert_eq!(format!("{:?}", Body::from(vec![1, 2])), "Bytes(2)");
    }
}
