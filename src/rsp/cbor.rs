//! The envelope as a CBOR map (RFC 8949), for narrow-band networks.
//!
//! Member names are the texts of the JSON form or the integers 1 nid, 2 gid, 3 type, 4 body,
//! 5 tid, 6 rc, 7 parts, 8 chunks, 9 wave, 10 reinstate, 11 campaign, 12 src, 13 chunk.
//! A nid is an unsigned integer, a bignum (tag 2), a text of digits, or 16 bytes of
//! BCD: the digits of an EID in reading order, high nibble first, as in tag '5A' of the GSMA
//! wire. Names and values that matter here must be of definite length; everything else may be
//! anything well-formed.

use std::borrow::Cow;
use std::ops::Range;

use super::envelope::{
    self, MAX_DEPTH, Members, Name, Number, Options, TID_BYTES_MAX, Tid, Wave, once, percent,
    permille,
};

/// Reads the members of one CBOR map that fills the whole payload; `None` when it is no such thing.
pub(super) fn read<'a>(payload: &'a [u8], members: &mut Members<'a>) -> Option<()> {
    let mut reader = Reader { rest: payload };
    reader.members(members)?;
    reader.rest.is_empty().then_some(())
}

/// Gives the members of the CBOR map that fills `item` to `each`, in their order: the name as
/// `name` reads it, and the places of the member and of its value. `None` when it is no such
/// thing, or when `each` gives up.
pub(super) fn spans<'a, N>(
    item: &'a [u8],
    mut name: impl FnMut(&mut Reader<'a>) -> Option<N>,
    mut each: impl FnMut(N, Range<usize>, Range<usize>) -> Option<()>,
) -> Option<()> {
    let mut reader = Reader { rest: item };
    let at = |reader: &Reader<'_>| item.len() - reader.rest.len();
    let start = reader.start()?;
    let mut left = start.argument;
    (start.major == MAP).then_some(())?;
    while reader.more(&mut left) {
        let start = at(&reader);
        let name = name(&mut reader)?;
        let value = at(&reader);
        reader.skip(2)?;
        each(name, start..at(&reader), value..at(&reader))?;
    }
    reader.rest.is_empty().then_some(())
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

/// What the byte string that fills `item` holds; `None` for anything else, and for a string in
/// pieces.
pub(super) fn byte_string(item: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader { rest: item };
    let start = reader.start()?;
    let bytes = reader.take(start.argument.filter(|_| start.major == BYTES)?)?;
    reader.rest.is_empty().then_some(bytes)
}

/// Writes the first bytes of an item in their shortest form.
pub(super) fn put_start(out: &mut Vec<u8>, major: u8, argument: u64) {
    let digits = argument.to_be_bytes();
    let (low, count) = match argument {
        0..=23 => (digits[7], 0),
        24..=0xFF => (24, 1),
        0x100..=0xFFFF => (25, 2),
        0x1_0000..=0xFFFF_FFFF => (26, 4),
        _ => (27, 8),
    };
    out.push(major << 5 | low);
    out.extend_from_slice(&digits[8 - count..]);
}

pub(super) const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
pub(super) const BYTES: u8 = 2;
pub(super) const TEXT: u8 = 3;
pub(super) const ARRAY: u8 = 4;
pub(super) const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const TAG_BIGNUM: u64 = 2;
const BREAK: u8 = 0xFF;

const FALSE: u64 = 20;
const TRUE: u64 = 21;
/// First bytes of floating-point numbers of 16, 32 and 64 bits.
const HALF: u8 = 0xF9;
const SINGLE: u8 = 0xFA;
const DOUBLE: u8 = 0xFB;

/// The first bytes of an item: its major type and its argument, `None` for indefinite length.
#[derive(Clone, Copy)]
struct Start {
    major: u8,
    argument: Option<u64>,
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn members(&mut self, members: &mut Members<'a>) -> Option<()> {
        let start = self.start()?;
        if start.major != MAP {
            return None;
        }
        let mut left = start.argument;
        let mut seen = 0;
        while self.more(&mut left) {
            match self.name()? {
                Name::Nid => once(&mut members.nid, self.nid()?)?,
                Name::Gid => once(&mut members.gid, self.gid()?)?,
                Name::Kind => once(&mut members.kind, Cow::Borrowed(self.text()?))?,
                Name::Body => once(&mut members.body, self.skip(2)?)?,
                Name::Tid => once(&mut members.tid, self.tid()?)?,
                Name::Rc => once(&mut members.rc, i64::try_from(self.integer()?).ok()?)?,
                Name::Other => self.skip(2)?,
                name => self.option(name, &mut seen, &mut members.options)?,
            }
        }
        Some(())
    }

    /// A member that says what the envelope asks for besides: a rare one. `seen` has a bit for each
    /// that was there before.
    #[inline(never)]
    fn option(&mut self, name: Name, seen: &mut u16, options: &mut Options) -> Option<()> {
        let bit = 1 << name as u16;
        (*seen & bit == 0).then_some(())?;
        *seen |= bit;
        match name {
            Name::Parts => options.parts = self.boolean()?,
            Name::Chunks => options.chunks = self.boolean()?,
            Name::Reinstate => options.reinstate = self.boolean()?,
            Name::Wave => options.wave = Some(self.wave()?),
            Name::Campaign => options.campaign = Some(envelope::campaign(self.text()?)?),
            Name::Src => {
                self.skip(2)?;
                options.has_src = true;
            }
            _ => self.skip(2)?,
        }
        Some(())
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
    pub(super) fn name(&mut self) -> Option<Name> {
        let start = self.start()?;
        match start.major {
            UNSIGNED => start.argument.map(Name::of_number),
            TEXT => self.take_text(start.argument?).map(Name::of_text),
            _ => self.skip_from(start, 2).map(|()| Name::Other),
        }
    }

    /// A member's name, and whether it is an integer.
    pub(super) fn name_and_form(&mut self) -> Option<(Name, bool)> {
        let major = self.peek()?.major;
        self.name().map(|name| (name, matches!(major, UNSIGNED | NEGATIVE)))
    }

    pub(super) fn nid(&mut self) -> Option<Number> {
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
        envelope::short(self.text()?, TID_BYTES_MAX).map(Tid::Text)
    }

    fn boolean(&mut self) -> Option<bool> {
        let start = self.start()?;
        match (start.major, start.argument?) {
            (SIMPLE, FALSE) => Some(false),
            (SIMPLE, TRUE) => Some(true),
            _ => None,
        }
    }

    fn wave(&mut self) -> Option<Wave> {
        let start = self.start()?;
        if start.major == UNSIGNED {
            return Wave::new(start.argument?, None);
        }
        let (mut first, mut failures_max) = (None, None);
        let mut left = start.argument;
        (start.major == MAP).then_some(())?;
        while self.more(&mut left) {
            match self.text()? {
                "first" => once(&mut first, u64::try_from(self.integer()?).ok()?)?,
                "failures_max" => once(&mut failures_max, self.ratio()?)?,
                _ => return None,
            }
        }
        Wave::new(first?, failures_max)
    }

    /// A ratio as a number or in percent.
    fn ratio(&mut self) -> Option<u16> {
        let first = *self.rest.first()?;
        let start = self.start()?;
        let argument = start.argument?;
        match (first, start.major) {
            (_, TEXT) => percent(self.take_text(argument)?),
            (_, UNSIGNED) => permille(argument as f64),
            (HALF, _) => permille(half(u16::try_from(argument).ok()?)),
            (SINGLE, _) => permille(f32::from_bits(u32::try_from(argument).ok()?).into()),
            (DOUBLE, _) => permille(f64::from_bits(argument)),
            _ => None,
        }
    }

    fn integer(&mut self) -> Option<i128> {
        let start = self.start()?;
        match (start.major, start.argument?) {
            (UNSIGNED, number) => Some(number.into()),
            (NEGATIVE, number) => Some(-1 - i128::from(number)),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let start = self.start()?;
        self.take(start.argument.filter(|_| start.major == BYTES)?)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let start = self.start()?;
        self.take_text(start.argument.filter(|_| start.major == TEXT)?)
    }

    /// Passes one well-formed item; `level` counts the containers around it, itself included.
    fn skip(&mut self, level: usize) -> Option<()> {
        let start = self.start()?;
        self.skip_from(start, level)
    }

    fn skip_from(&mut self, start: Start, level: usize) -> Option<()> {
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
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
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
    let mut number = [0; 16];
    let Some(place) = number.len().checked_sub(digits.len()) else { return Number::TooLarge };
    number[place..].copy_from_slice(digits);
    Number::Value(u128::from_be_bytes(number))
}

/// A number of 16 bits, by RFC 8949 appendix D.
fn half(bits: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1F), f64::from(bits & 0x3FF));
    let magnitude = match exponent {
        0 => mantissa * 2_f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1024.0) * 2_f64.powi(exponent - 25),
    };
    if bits >> 15 == 0 { magnitude } else { -magnitude }
}
