//! Many messages as one: D1s of one group for the servers, B1s of the same body for a group.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::envelope::{MAX_DEPTH, Name, Tid};
use super::json;
use super::outline::{Format, Outline, Writer};
use crate::ids::{Gid, Nid};

/// A body as it stands in its envelope; a slice of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawBody {
    /// The text of a JSON value.
    Json(Bytes),
    /// One CBOR item.
    Cbor(Bytes),
}

impl RawBody {
    /// The body of a checked envelope; `None` when the payload is none.
    #[must_use]
    pub fn of(payload: &Bytes) -> Option<Self> {
        let outline = Outline::read(payload)?;
        let body = outline.slice(outline.value(Name::Body)?);
        Some(match outline.format() {
            Format::Json => Self::Json(body),
            Format::Cbor { .. } => Self::Cbor(body),
        })
    }
}

/// A D1 that waits to be told to the servers together with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The device that asks.
    pub nid: Nid,
    /// The transaction id of its request.
    pub tid: Option<Tid>,
    /// What it said.
    pub body: RawBody,
}

/// Containers around a requester's body: envelope, body, list, requester.
const DEPTH_OF_BODY: usize = 4;

/// What the servers get for many D1s of one group, in JSON, in the order of `requests`:
/// `{"nid":0,"gid":g,"type":"trigger","tid":"…","body":{"event":"coalesced-trigger",
/// "requesters":[{"nid":"…","tid":…,"body":…}, …]}}`. A requester without transaction id has no
/// `tid`. A CBOR body stands in base64 as `body_cbor`. One that would be nested too deeply here
/// ([`MAX_DEPTH`]) stands as a text, `body_json`: nobody makes the others' requests unreadable.
///
/// Gives beside it how many of them it has: as many as `bytes_max` permits.
#[must_use]
pub fn coalesced<'a>(
    gid: Gid,
    tid: &str,
    requests: impl Iterator<Item = &'a Request> + Clone,
    bytes_max: usize,
) -> (Bytes, usize) {
    let bytes: usize = requests.clone().map(Request::bytes).sum();
    let capacity = (bytes + FRAME_BYTES + tid.len()).min(bytes_max);
    let mut writer = Writer::new(Format::Json, capacity);
    writer.open_map(5);
    writer.name(Name::Nid);
    writer.number(0);
    writer.name(Name::Gid);
    writer.number(gid.get());
    writer.name(Name::Kind);
    writer.text("trigger");
    writer.name(Name::Tid);
    writer.text(tid);
    writer.name(Name::Body);
    writer.open_map(2);
    writer.key("event");
    writer.text("coalesced-trigger");
    writer.key("requesters");
    writer.raw(b"[");
    let mut count = 0;
    for request in requests {
        let written = writer.out.len();
        writer.separate();
        request.write(&mut writer);
        if writer.out.len() + END.len() > bytes_max {
            writer.out.truncate(written);
            break;
        }
        count += 1;
    }
    writer.raw(END);
    (writer.out.into(), count)
}

/// Ends the list, the body and the envelope.
const END: &[u8] = b"]}}";

/// All but the requesters.
const FRAME_BYTES: usize = 160;
/// A requester without its body and text id.
const REQUESTER_BYTES: usize = 128;

impl Request {
    /// About what it takes among others.
    fn bytes(&self) -> usize {
        let tid = match &self.tid {
            Some(Tid::Text(text)) => text.len(),
            Some(Tid::Number(_)) | None => 0,
        };
        let body = match &self.body {
            RawBody::Json(text) => text.len(),
            RawBody::Cbor(item) => item.len().div_ceil(3) * 4,
        };
        REQUESTER_BYTES + tid + body
    }

    fn write(&self, writer: &mut Writer) {
        writer.open_map(2);
        writer.name(Name::Nid);
        writer.text(&self.nid.to_string());
        match &self.tid {
            Some(Tid::Number(number)) => {
                writer.name(Name::Tid);
                writer.raw(number.to_string().as_bytes());
            }
            Some(Tid::Text(text)) => {
                writer.name(Name::Tid);
                writer.text(text);
            }
            None => {}
        }
        self.write_body(writer);
        writer.close_map();
    }

    fn write_body(&self, writer: &mut Writer) {
        match &self.body {
            RawBody::Cbor(item) => {
                writer.key("body_cbor");
                writer.text(&STANDARD.encode(item));
            }
            RawBody::Json(body) => {
                let text = String::from_utf8_lossy(body);
                if json::depth(&text) + DEPTH_OF_BODY > MAX_DEPTH {
                    writer.key("body_json");
                    writer.text(&text);
                } else {
                    writer.name(Name::Body);
                    writer.raw(text.as_bytes());
                }
            }
        }
    }
}

/// The envelope of a B1 as one for a group: nid 0 and this gid in front, all other members as they
/// are, in the same format. What is no envelope comes back as it is.
#[must_use]
pub fn merged(gid: Gid, first: &Bytes) -> Bytes {
    let Some(outline) = Outline::read(first) else { return first.clone() };
    let mut draft = outline.draft(&[Name::Nid, Name::Gid], 2, MERGED_BYTES);
    draft.name(Name::Nid);
    draft.writer.number(0);
    draft.name(Name::Gid);
    draft.writer.number(gid.get());
    draft.keep();
    draft.finish()
}

/// `"nid":0,"gid":18446744073709551615,`.
const MERGED_BYTES: usize = 40;
