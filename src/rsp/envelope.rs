//! Envelopes: `{"nid": …, "gid": …, "type": "…", "body": …}` `[0064]`, in JSON or CBOR.
//!
//! Only the routing head is read. The body is the GSMA message of that step, opaque here: it is
//! neither copied nor kept, but the whole document must be well-formed, so that no device is sent
//! something that breaks its parser. A document that names a member twice is refused: two readers
//! could take two different addressees from it.
//!
//! Optional members: `tid`, the transaction an answer belongs to, `rc`, the result of a `ret(…)`,
//! and the [`Options`]. Members of other names are ignored, whatever they hold; one that is named
//! here and does not hold what stands here makes the envelope unreadable, so that no wish is
//! silently left undone. An envelope that uses such a name for something of its own is refused.

use std::borrow::Cow;

use bytes::Bytes;

use super::outline::Outline;
use super::refusal::Refusal;
use super::{cbor, json};
use crate::ids::{Gid, Nid, NidScheme, decimal};

/// Containers within containers, the envelope itself included.
pub const MAX_DEPTH: usize = 64;

/// Longest `tid` in bytes.
pub const TID_BYTES_MAX: usize = 64;

/// Longest `campaign` in bytes.
pub const CAMPAIGN_BYTES_MAX: usize = 64;

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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// What it asks for besides.
    pub options: Options,
}

impl Head {
    /// The head of a message to nobody, with nothing optional: to be filled in.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { nid: None, gid: None, kind, tid: None, rc: None, options: Options::default() }
    }
}

/// What an envelope may ask for besides its route, or say; all of it optional.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `parts`: the body holds a part for each of several members of the group (see
    /// [`super::parts`]).
    pub parts: bool,
    /// `chunks`: the body may be cut for receivers that take small packets alone (see
    /// [`super::chunk`]).
    pub chunks: bool,
    /// `reinstate`: a device that gave its profile away takes part again.
    pub reinstate: bool,
    /// `wave`: some members of the group first, the others when that went well.
    pub wave: Option<Wave>,
    /// A member `src` is there; what it says is nothing that anyone may rely on.
    pub has_src: bool,
    /// `campaign`: a name that gathers several messages; 1 to [`CAMPAIGN_BYTES_MAX`] bytes.
    pub campaign: Option<Box<str>>,
}

/// The canaries of a group message: `"wave": n` or `"wave": {"first": n, "failures_max": 0.05}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wave {
    /// How many members get it at first; at least 1.
    pub first: u32,
    /// The others get it as long as at most so many of the first failed, in permille.
    pub failures_max: Option<u16>,
}

/// Reads the head of an envelope. The first byte tells JSON from CBOR.
///
/// # Errors
/// [`Refusal::UnreadableEnvelope`], [`Refusal::UnknownType`], [`Refusal::BadEid`] or
/// [`Refusal::UnknownGid`] (a number too large for any group).
pub fn read(payload: &[u8], scheme: NidScheme) -> Result<Head, Refusal> {
    let mut members = Members::default();
    let readable = match payload.first() {
        Some(b'{' | b' ' | b'\t' | b'\r' | b'\n') => json::read(payload, &mut members),
        Some(0xA0..=0xBF) => cbor::read(payload, &mut members),
        _ => None,
    };
    readable.ok_or(Refusal::UnreadableEnvelope)?;
    members.head(scheme)
}

/// The bytes of the body as they stand in a checked envelope: JSON text, or a CBOR item. A slice of
/// the payload; `None` when that is no envelope.
#[must_use]
pub fn raw_body(payload: &Bytes) -> Option<Bytes> {
    let outline = Outline::read(payload)?;
    outline.value(Name::Body).map(|body| payload.slice(body))
}

/// The names of members that mean something; their numbers are the integer keys of the CBOR form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Any other.
    Other = 0,
    Nid = 1,
    Gid = 2,
    Kind = 3,
    Body = 4,
    Tid = 5,
    Rc = 6,
    Parts = 7,
    Chunks = 8,
    Wave = 9,
    Reinstate = 10,
    Campaign = 11,
    Src = 12,
    /// Says which piece of a body this is; only ever written here (see [`super::chunk`]).
    Chunk = 13,
}

impl Name {
    /// How many there are.
    pub(super) const COUNT: usize = Self::ALL.len();

    /// Each with its text, at the place of its number.
    const ALL: [(Self, &'static str); 14] = [
        (Self::Other, ""),
        (Self::Nid, "nid"),
        (Self::Gid, "gid"),
        (Self::Kind, "type"),
        (Self::Body, "body"),
        (Self::Tid, "tid"),
        (Self::Rc, "rc"),
        (Self::Parts, "parts"),
        (Self::Chunks, "chunks"),
        (Self::Wave, "wave"),
        (Self::Reinstate, "reinstate"),
        (Self::Campaign, "campaign"),
        (Self::Src, "src"),
        (Self::Chunk, "chunk"),
    ];

    pub(super) fn of_text(text: &str) -> Self {
        Self::ALL.iter().find(|(_, known)| *known == text).map_or(Self::Other, |(name, _)| *name)
    }

    pub(super) fn of_number(number: u64) -> Self {
        let at = usize::try_from(number).unwrap_or_default();
        Self::ALL.get(at).map_or(Self::Other, |(name, _)| *name)
    }

    pub(super) fn text(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// The members of an envelope that matter here, as either format delivers them.
#[derive(Default)]
pub(super) struct Members<'a> {
    pub(super) nid: Option<Number>,
    pub(super) gid: Option<Number>,
    pub(super) kind: Option<Cow<'a, str>>,
    pub(super) body: Option<()>,
    pub(super) tid: Option<Tid>,
    pub(super) rc: Option<i64>,
    pub(super) options: Options,
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

    /// The device with this number; `None` for 0, which is no device.
    pub(super) fn nid(self, scheme: NidScheme) -> Result<Option<Nid>, Refusal> {
        match self {
            Self::Value(0) => Ok(None),
            Self::Value(number) => {
                Nid::new(number, scheme).map(Some).map_err(|_error| Refusal::BadEid)
            }
            Self::TooLarge | Self::NoDigits => Err(Refusal::BadEid),
        }
    }
}

impl Members<'_> {
    fn head(self, scheme: NidScheme) -> Result<Head, Refusal> {
        let (Some(nid), Some(gid), Some(kind), Some(())) =
            (self.nid, self.gid, self.kind, self.body)
        else {
            return Err(Refusal::UnreadableEnvelope);
        };
        let nid = nid.nid(scheme)?;
        let gid = match gid {
            Number::Value(number) => {
                Gid::new(u64::try_from(number).map_err(|_error| Refusal::UnknownGid)?)
            }
            Number::TooLarge => return Err(Refusal::UnknownGid),
            Number::NoDigits => return Err(Refusal::UnreadableEnvelope),
        };
        let kind = self::kind(&kind, scheme)?;
        Ok(Head { nid, gid, kind, tid: self.tid, rc: self.rc, options: self.options })
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

/// Sets a member that must not be there yet.
pub(super) fn once<T>(member: &mut Option<T>, value: T) -> Option<()> {
    member.replace(value).is_none().then_some(())
}

/// A text of at most so many bytes, kept.
pub(super) fn short(text: &str, bytes_max: usize) -> Option<Box<str>> {
    (text.len() <= bytes_max).then(|| text.into())
}

pub(super) fn campaign(text: &str) -> Option<Box<str>> {
    short(text, CAMPAIGN_BYTES_MAX).filter(|name| !name.is_empty())
}

impl Wave {
    pub(super) fn new(first: u64, failures_max: Option<u16>) -> Option<Self> {
        let first = u32::try_from(first).ok().filter(|first| *first > 0)?;
        Some(Self { first, failures_max })
    }
}

/// A ratio from 0 to 1 in permille, rounded.
pub(super) fn permille(ratio: f64) -> Option<u16> {
    (0.0..=1.0).contains(&ratio).then(|| (ratio * 1000.0).round() as u16)
}

/// `5%` or `2.5%` in permille: digits, at most one of them after a point, up to 100.
pub(super) fn percent(text: &str) -> Option<u16> {
    let number = text.strip_suffix('%')?;
    let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
    let tenth = decimal(tenth).filter(|_| tenth.len() == 1)?;
    let permille = decimal(whole).filter(|_| whole.len() <= 3)? * 10 + tenth;
    u16::try_from(permille).ok().filter(|permille| *permille <= 1000)
}
