//! DER (X.690, section 10) as rows of tag, length and value. Only the one form that DER gives a
//! value passes: what BER allows besides would let two readers see two documents.

use super::ProofError;

/// `SEQUENCE`.
pub(super) const SEQUENCE: u16 = 0x30;
/// `BIT STRING`.
pub(super) const BIT_STRING: u16 = 0x03;
/// `UTF8String`.
pub(super) const UTF8_STRING: u16 = 0x0c;
/// `PrintableString`.
pub(super) const PRINTABLE_STRING: u16 = 0x13;

const SET: u16 = 0x31;
const CONSTRUCTED: u8 = 0x20;
const CLASS: u8 = 0xc0;
/// The low bits of a first byte that say that the number of the tag comes behind it.
const LONG_NUMBER: u8 = 0x1f;

/// Containers within containers; a certificate has nine.
const DEPTH_MAX: usize = 16;

/// One element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tlv<'a> {
    /// The bytes of the tag, as a number.
    pub(super) tag: u16,
    /// What is in it.
    pub(super) value: &'a [u8],
    /// All of it, from the tag on.
    pub(super) raw: &'a [u8],
}

/// Elements one behind the other.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// The one element that the bytes are, after everything in it has been found well-formed: whoever
/// reads on in it need not ask any more.
pub(super) fn document(bytes: &[u8]) -> Result<Tlv<'_>, ProofError> {
    let (tlv, rest) = split(bytes).ok_or(ProofError::NotDer)?;
    well_formed(tlv, 1).ok_or(ProofError::NotDer)?;
    if rest.is_empty() { Ok(tlv) } else { Err(ProofError::TrailingBytes) }
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next element, if it has this tag.
    pub(super) fn take(&mut self, tag: u16) -> Option<Tlv<'a>> {
        let (tlv, rest) = split(self.rest).filter(|(tlv, _)| tlv.tag == tag)?;
        self.rest = rest;
        Some(tlv)
    }

    /// The tag of the next element.
    pub(super) fn peek(&self) -> Option<u16> {
        split(self.rest).map(|(tlv, _)| tlv.tag)
    }

    /// Nothing comes any more.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

fn well_formed(tlv: Tlv<'_>, depth: usize) -> Option<()> {
    if !is_constructed(tlv)? {
        return Some(());
    }
    if depth == DEPTH_MAX {
        return None;
    }
    let mut rest = tlv.value;
    while !rest.is_empty() {
        let (inner, behind) = split(rest)?;
        well_formed(inner, depth + 1)?;
        rest = behind;
    }
    Some(())
}

/// Whether elements are in it. Strings in pieces are BER.
fn is_constructed(tlv: Tlv<'_>) -> Option<bool> {
    let first = *tlv.raw.first()?;
    let constructed = first & CONSTRUCTED != 0;
    let universal = first & CLASS == 0;
    let may_be = !universal || matches!(tlv.tag, SEQUENCE | SET);
    (may_be || !constructed).then_some(constructed)
}

/// The first element and what is behind it.
fn split(bytes: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let (tag, behind_tag) = tag(bytes)?;
    let (length, behind_length) = length(behind_tag)?;
    let (value, rest) = behind_length.split_at_checked(length)?;
    let raw = &bytes[..bytes.len() - rest.len()];
    Some((Tlv { tag, value, raw }, rest))
}

/// A tag of one or two bytes: numbers up to 127, as SGP.22 has them.
fn tag(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first & LONG_NUMBER != LONG_NUMBER {
        return Some((u16::from(first), rest));
    }
    let (&number, rest) = rest.split_first()?;
    let shortest = (LONG_NUMBER..=0x7f).contains(&number);
    shortest.then(|| (u16::from_be_bytes([first, number]), rest))
}

/// A length of up to 65,535 bytes.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [short @ ..=0x7f, rest @ ..] => Some((usize::from(*short), rest)),
        [0x81, low @ 0x80..=0xff, rest @ ..] => Some((usize::from(*low), rest)),
        [0x82, high @ 0x01..=0xff, low, rest @ ..] => {
            Some((usize::from(u16::from_be_bytes([*high, *low])), rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(bytes: &[u8]) -> Option<ProofError> {
        document(bytes).err()
    }

    #[test]
    fn an_element_is_read_with_everything_in_it() {
        let bytes = [0x30, 0x08, 0xbf, 0x2f, 0x02, 0x80, 0x00, 0x5f, 0x37, 0x00];
        let sequence = document(&bytes).unwrap();
        assert_eq!((sequence.tag, sequence.raw), (SEQUENCE, &bytes[..]));
        let mut reader = Reader::new(sequence.value);
        assert!(reader.take(SEQUENCE).is_none(), "another tag");
        assert_eq!(reader.take(0xbf2f).unwrap().value, [0x80, 0x00]);
        assert_eq!((reader.peek(), reader.is_empty()), (Some(0x5f37), false));
        assert_eq!(reader.take(0x5f37).unwrap().raw, [0x5f, 0x37, 0x00]);
        assert!(reader.is_empty() && reader.peek().is_none());
    }

    #[test]
    fn lengths_have_their_shortest_form() {
        let long = |head: &[u8], length: usize| [head, &vec![0; length]].concat();
        for (head, length) in [
            (&[0x04, 0x7f][..], 0x7f),
            (&[0x04, 0x81, 0x80], 0x80),
            (&[0x04, 0x82, 0x01, 0x00], 0x100),
        ] {
            assert_eq!(document(&long(head, length)).unwrap().value.len(), length);
        }
        for (head, length) in [
            (&[0x04, 0x81, 0x7f][..], 0x7f),
            (&[0x04, 0x82, 0x00, 0x80], 0x80),
            (&[0x04, 0x83, 0x00, 0x01, 0x00], 0x100),
            (&[0x04, 0x84, 0xff, 0xff, 0xff, 0xff], 0x100),
            (&[0x04, 0xff], 0x100),
        ] {
            assert_eq!(fault(&long(head, length)), Some(ProofError::NotDer), "{head:x?}");
        }
    }

    #[test]
    fn what_only_ber_allows_is_refused() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 0x01],
            &[0x30, 0x80, 0x00, 0x00],             // indefinite length
            &[0x30, 0x04, 0x30, 0x80, 0x00, 0x00], // … further in
            &[0x24, 0x03, 0x04, 0x01, 0x00],       // a string in pieces
            &[0xbf, 0x1e, 0x00],                   // a number that fits the first byte
            &[0xbf, 0x80, 0x2f, 0x00],             // … with a zero before it
            &[0x30, 0x02, 0x04, 0x01],             // longer than what it is in
        ] {
            assert_eq!(fault(bytes), Some(ProofError::NotDer), "{bytes:x?}");
        }
        assert_eq!(fault(&[0x04, 0x00, 0x00]), Some(ProofError::TrailingBytes));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| {
            (0..depth).fold(vec![], |inner, _| {
                [&[0x30, u8::try_from(inner.len()).unwrap()], &inner[..]].concat()
            })
        };
        assert!(document(&nested(DEPTH_MAX - 1)).is_ok());
        assert_eq!(fault(&nested(DEPTH_MAX)), Some(ProofError::NotDer));
    }
}
