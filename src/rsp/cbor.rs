//! The envelope as a CBOR map (RFC 8949), for narrow-band networks.
//!
//! Member names are the texts of the JSON form or the integers 1 nid, 2 gid, 3 type, 4 body,
//! 5 tid, 6 rc. A nid is an unsigned integer, a bignum (tag 2), a text of digits, or 16 bytes of
//! BCD: the digits of an EID in reading order, high nibble first, as in tag '5A' of the GSMA
//! wire. Names and values that matter here must be of definite length; everything else may be
//! anything well-formed.

use std::borrow::Cow;

use super::envelope::{MAX_DEPTH, Members, Number, TID_BYTES_MAX, Tid};

/// The members of one CBOR map that fills the whole payload; `None` when it is no such thing.
pub(super) fn members(payload: &[u8]) -> Option<Members<'_>> {
    let mut reader = Reader { rest: payload };
    let map = reader.map()?;
    reader.rest.is_empty().then_some(())?;
    map.body?;
    Some(Members { nid: map.nid?, gid: map.gid?, kind: map.kind?, tid: map.tid, rc: map.rc })
}

/// The body, as it stands there.
pub(super) fn body(payload: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader { rest: payload };
    let map = reader.start().filter(|start| start.major == MAP)?;
    let (mut left, mut body) = (map.argument, None);
    while reader.more(&mut left) {
        let is_body = matches!(reader.name()?, Name::Body);
        let from = reader.rest;
        reader.skip(2)?;
        if is_body {
            once(&mut body, &from[..from.len() - reader.rest.len()])?;
        }
    }
    body.filter(|_| reader.rest.is_empty())
}

/// The bytes that an item is, or that a map has under this name, once.
pub(super) fn bytes_in<'a>(item: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut reader = Reader { rest: item };
    if reader.peek()?.major != MAP {
        return reader.bytes().filter(|_| reader.rest.is_empty());
    }
    let (mut left, mut bytes) = (reader.start()?.argument, None);
    while reader.more(&mut left) {
        let is_text = reader.peek()?.major == TEXT;
        if is_text && reader.text()? == name {
            once(&mut bytes, reader.bytes()?)?;
            continue;
        }
        if !is_text {
            reader.skip(2)?;
        }
        reader.skip(2)?;
    }
    bytes.filter(|_| reader.rest.is_empty())
}

#[derive(Default)]
struct Map<'a> {
    nid: Option<Number>,
    gid: Option<Number>,
    kind: Option<Cow<'a, str>>,
    body: Option<()>,
    tid: Option<Tid>,
    rc: Option<i64>,
}

#[derive(Clone, Copy)]
enum Name {
    Nid,
    Gid,
    Kind,
    Body,
    Tid,
    Rc,
    Other,
}

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const TAG_BIGNUM: u64 = 2;
const BREAK: u8 = 0xFF;

/// The first bytes of an item: its major type and its argument, `None` for indefinite length.
#[derive(Clone, Copy)]
struct Start {
    major: u8,
    argument: Option<u64>,
}

struct Reader<'a> {
    rest: &'a [u8],
}

/// Sets a member that must not be there yet.
fn once<T>(member: &mut Option<T>, value: T) -> Option<()> {
    member.replace(value).is_none().then_some(())
}

impl<'a> Reader<'a> {
    fn map(&mut self) -> Option<Map<'a>> {
        let start = self.start()?;
        if start.major != MAP {
            return None;
        }
        let mut map = Map::default();
        let mut left = start.argument;
        while self.more(&mut left) {
            match self.name()? {
                Name::Nid => once(&mut map.nid, self.nid()?)?,
                Name::Gid => once(&mut map.gid, self.gid()?)?,
                Name::Kind => once(&mut map.kind, Cow::Borrowed(self.text()?))?,
                Name::Body => once(&mut map.body, self.skip(2)?)?,
                Name::Tid => once(&mut map.tid, self.tid()?)?,
                Name::Rc => once(&mut map.rc, i64::try_from(self.integer()?).ok()?)?,
                Name::Other => self.skip(2)?,
            }
        }
        Some(map)
    }

    /// Whether a container has another element: counts down, or looks for the break.
    fn more(&mut self, left: &mut Option<u64>) -> bool {
        match left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None if self.rest.first() == Some(&BREAK) => {
                self.rest = &self.rest[1..];
                false
            }
            None => true,
        }
    }

    /// A member's name. A text in pieces could spell a known name behind our back: refused.
    fn name(&mut self) -> Option<Name> {
        let start = self.peek()?;
        match start {
            Start { major: TEXT, .. } => Some(match self.text()? {
                "nid" => Name::Nid,
                "gid" => Name::Gid,
                "type" => Name::Kind,
                "body" => Name::Body,
                "tid" => Name::Tid,
                "rc" => Name::Rc,
                _ => Name::Other,
            }),
            Start { major: UNSIGNED, argument } => {
                self.start()?;
                Some(match argument? {
                    1 => Name::Nid,
                    2 => Name::Gid,
                    3 => Name::Kind,
                    4 => Name::Body,
                    5 => Name::Tid,
                    6 => Name::Rc,
                    _ => Name::Other,
                })
            }
            _ => self.skip(2).map(|()| Name::Other),
        }
    }

    fn nid(&mut self) -> Option<Number> {
        let start = self.start()?;
        match (start.major, start.argument?) {
            (UNSIGNED, number) => Some(Number::Value(number.into())),
            (TEXT, length) => Some(Number::from_digits(self.take_text(length)?)),
            (BYTES, length) => Some(bcd(self.take(length)?)),
            (TAG, TAG_BIGNUM) => {
                let start = self.start()?;
                let bytes = self.take(start.argument.filter(|_| start.major == BYTES)?)?;
                Some(big_endian(bytes))
            }
            _ => None,
        }
    }

    fn gid(&mut self) -> Option<Number> {
        let start = self.start()?;
        match (start.major, start.argument?) {
            (UNSIGNED, number) => Some(Number::Value(number.into())),
            (TEXT, length) => Some(Number::from_digits(self.take_text(length)?)),
            _ => None,
        }
    }

    fn tid(&mut self) -> Option<Tid> {
        if self.peek()?.major != TEXT {
            return self.integer().map(Tid::Number);
        }
        let text = self.text()?;
        (text.len() <= TID_BYTES_MAX).then(|| Tid::Text(text.into()))
    }

    fn integer(&mut self) -> Option<i128> {
        let start = self.start()?;
        match (start.major, start.argument?) {
            (UNSIGNED, number) => Some(number.into()),
            (NEGATIVE, number) => Some(-1 - i128::from(number)),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<&'a str> {
        let start = self.start()?;
        self.take_text(start.argument.filter(|_| start.major == TEXT)?)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let start = self.start()?;
        self.take(start.argument.filter(|_| start.major == BYTES)?)
    }

    /// Passes one well-formed item; `level` counts the containers around it, itself included.
    fn skip(&mut self, level: usize) -> Option<()> {
        let start = self.start()?;
        match start.major {
            UNSIGNED | NEGATIVE | SIMPLE => start.argument.map(|_| ()),
            BYTES | TEXT => self.skip_string(start),
            ARRAY | MAP | TAG if level > MAX_DEPTH => None,
            TAG => self.skip(level + 1),
            ARRAY | MAP => {
                let mut left = start.argument;
                while self.more(&mut left) {
                    self.skip(level + 1)?;
                    if start.major == MAP {
                        self.skip(level + 1)?;
                    }
                }
                Some(())
            }
            _ => None,
        }
    }

    /// A string, or an indefinite one: pieces of the same kind, each of definite length.
    fn skip_string(&mut self, string: Start) -> Option<()> {
        if let Some(length) = string.argument {
            return self.take_string(string.major, length);
        }
        while self.more(&mut None) {
            let piece = self.start()?;
            self.take_string(piece.major, piece.argument.filter(|_| piece.major == string.major)?)?;
        }
        Some(())
    }

    fn take_string(&mut self, major: u8, length: u64) -> Option<()> {
        if major == TEXT {
            self.take_text(length).map(|_| ())
        } else {
            self.take(length).map(|_| ())
        }
    }

    fn take_text(&mut self, length: u64) -> Option<&'a str> {
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn peek(&self) -> Option<Start> {
        Reader { rest: self.rest }.start()
    }

    /// The start of an item, by RFC 8949 appendix C: reserved arguments, and a break where an item
    /// must stand, are refused.
    fn start(&mut self) -> Option<Start> {
        let first = *self.take(1)?.first()?;
        let (major, low) = (first >> 5, first & 0x1F);
        let argument = match low {
            0..=23 => Some(u64::from(low)),
            24..=27 => {
                let bytes = self.take(1 << (low - 24))?;
                Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
            }
            31 if (BYTES..=MAP).contains(&major) => None,
            _ => return None,
        };
        // A simple value below 32 has one form only, within the first byte.
        if major == SIMPLE && low == 24 && argument.is_some_and(|value| value < 32) {
            return None;
        }
        Some(Start { major, argument })
    }
}

fn bcd(bytes: &[u8]) -> Number {
    if bytes.len() != 16 {
        return Number::NoDigits;
    }
    let mut number = 0_u128;
    for byte in bytes {
        let (high, low) = (byte >> 4, byte & 0x0F);
        if high > 9 || low > 9 {
            return Number::NoDigits;
        }
        number = number * 100 + u128::from(high * 10 + low);
    }
    Number::Value(number)
}

fn big_endian(bytes: &[u8]) -> Number {
    let leading = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = &bytes[leading..];
    if digits.len() > 16 {
        return Number::TooLarge;
    }
    Number::Value(digits.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
}
