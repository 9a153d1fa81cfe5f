//! Envelopes: `{"nid": …, "gid": …, "type": "…", "body": …}` `[0064]`, in JSON or CBOR.
//!
//! Only the routing head is read. The body is the GSMA message of that step, opaque here: it is
//! neither copied nor kept, but the whole document must be well-formed, so that no device is sent
//! something that breaks its parser. A document that names a member twice is refused: two readers
//! could take two different addressees from it.
//!
//! Optional members: `tid`, the transaction an answer belongs to, and `rc`, the result of a
//! `ret(…)`. Unknown members are ignored.

use std::borrow::Cow;

use super::refusal::Refusal;
use super::{cbor, json};
use crate::ids::{Gid, Nid, NidScheme, decimal};

/// Containers within containers, the envelope itself included.
pub const MAX_DEPTH: usize = 64;

/// Longest `tid` in bytes.
pub const TID_BYTES_MAX: usize = 64;

/// What a message is for (`type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `trigger`: A1 or D1.
    Trigger,
    /// `msg`: B1 or C1.
    Msg,
    /// `ret(trigger)`: A2 or D2.
    RetTrigger,
    /// `ret(msg)`: B2 or C2.
    RetMsg,
    /// `req(<nid>)`: E1.
    Req(Nid),
    /// `profile(<nid>)`: E2.
    Profile(Nid),
}

/// A transaction id; an answer echoes the one of its request, in the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tid {
    /// An integer.
    Number(i128),
    /// At most [`TID_BYTES_MAX`] bytes.
    Text(Box<str>),
}

impl From<i128> for Tid {
    fn from(number: i128) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Tid {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

/// The routing head of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The single device; `None` for 0.
    pub nid: Option<Nid>,
    /// The group; `None` for 0.
    pub gid: Option<Gid>,
    /// The type.
    pub kind: Kind,
    /// Transaction id, if any.
    pub tid: Option<Tid>,
    /// Result code, if any; 0 is success.
    pub rc: Option<i64>,
}

/// Reads the head of an envelope. The first byte tells JSON from CBOR.
///
/// # Errors
/// [`Refusal::UnreadableEnvelope`], [`Refusal::UnknownType`], [`Refusal::BadEid`] or
/// [`Refusal::UnknownGid`] (a number too large for any group).
pub fn read(payload: &[u8], scheme: NidScheme) -> Result<Head, Refusal> {
    let members = match payload.first() {
        Some(b'{' | b' ' | b'\t' | b'\r' | b'\n') => json::members(payload),
        Some(0xA0..=0xBF) => cbor::members(payload),
        _ => None,
    };
    members.ok_or(Refusal::UnreadableEnvelope)?.head(scheme)
}

/// The members of an envelope that matter here, as either format delivers them.
pub(super) struct Members<'a> {
    pub(super) nid: Number,
    pub(super) gid: Number,
    pub(super) kind: Cow<'a, str>,
    pub(super) tid: Option<Tid>,
    pub(super) rc: Option<i64>,
}

/// The value of `nid` or `gid`.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Value(u128),
    /// A number of more than 128 bits.
    TooLarge,
    /// A text that is no digits, or bytes that are no BCD.
    NoDigits,
}

impl Number {
    pub(super) fn from_digits(text: &str) -> Self {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Self::NoDigits;
        }
        decimal(text).map_or(Self::TooLarge, Self::Value)
    }
}

impl Members<'_> {
    fn head(self, scheme: NidScheme) -> Result<Head, Refusal> {
        let nid = match self.nid {
            Number::Value(0) => None,
            Number::Value(number) => {
                Some(Nid::new(number, scheme).map_err(|_error| Refusal::BadEid)?)
            }
            Number::TooLarge | Number::NoDigits => return Err(Refusal::BadEid),
        };
        let gid = match self.gid {
            Number::Value(number) => {
                Gid::new(u64::try_from(number).map_err(|_error| Refusal::UnknownGid)?)
            }
            Number::TooLarge => return Err(Refusal::UnknownGid),
            Number::NoDigits => return Err(Refusal::UnreadableEnvelope),
        };
        let kind = kind(&self.kind, scheme)?;
        Ok(Head { nid, gid, kind, tid: self.tid, rc: self.rc })
    }
}

fn kind(text: &str, scheme: NidScheme) -> Result<Kind, Refusal> {
    match text {
        "trigger" => return Ok(Kind::Trigger),
        "msg" => return Ok(Kind::Msg),
        "ret(trigger)" => return Ok(Kind::RetTrigger),
        "ret(msg)" => return Ok(Kind::RetMsg),
        _ => {}
    }
    let (name, digits) =
        text.strip_suffix(')').and_then(|t| t.split_once('(')).ok_or(Refusal::UnknownType)?;
    let of: fn(Nid) -> Kind = match name {
        "req" => Kind::Req,
        "profile" => Kind::Profile,
        _ => return Err(Refusal::UnknownType),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refusal::UnknownType);
    }
    Nid::parse(digits, scheme).map(of).map_err(|_error| Refusal::BadEid)
}
