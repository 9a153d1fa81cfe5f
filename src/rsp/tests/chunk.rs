//! Bodies cut into pieces, and put together again.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::wire::{self, WIRES, Wire};
use super::*;
use crate::rsp::chunk::{ChunkError, PIECES_MAX, Piece, content_bytes, piece};
use crate::rsp::envelope::read;

fn message(wire: Wire, body: Vec<u8>) -> Bytes {
    wire.envelope(&[
        ("chunks", wire.value(&json!(true))),
        ("nid", wire.value(&json!(7))),
        ("xx", wire.value(&json!([1, 2]))),
        ("gid", wire.value(&json!(0))),
        ("type", wire.value(&json!("msg"))),
        ("body", body),
        ("tid", wire.value(&json!("t-1"))),
    ])
}

fn bytes_body(wire: Wire, bytes: &[u8]) -> Vec<u8> {
    match wire {
        Wire::Json => wire.value(&json!(STANDARD.encode(bytes))),
        Wire::CborTexts | Wire::CborIntegers | Wire::CborIndefinite => wire::cbor_bytes(bytes),
    }
}

/// What a piece says, and its part of the content.
#[derive(Debug)]
struct Said {
    n: u64,
    of: u64,
    offset: usize,
    total: usize,
    form: String,
    content: Vec<u8>,
}

fn said(payload: &Bytes) -> Said {
    let members = wire::envelope(payload).0;
    let label = wire::members(&members["chunk"]);
    let body = &members["body"];
    let form = wire::text(&label["as"]);
    let content = match form.as_str() {
        "base64" => STANDARD.decode(wire::text(body)).unwrap(),
        "json" => wire::text(body).into_bytes(),
        "bytes" | "cbor" => minicbor::Decoder::new(body).bytes().unwrap().to_vec(),
        other => panic!("{other}"),
    };
    assert_eq!(label.len(), 5);
    Said {
        n: wire::number(&label["n"]),
        of: wire::number(&label["of"]),
        offset: wire::number(&label["offset"]) as usize,
        total: wire::number(&label["total"]) as usize,
        form,
        content,
    }
}

/// All pieces by the limits that `limit` gives, one after the other.
fn cut(payload: &Bytes, mut limit: impl FnMut(u32) -> usize) -> Result<Vec<Piece>, ChunkError> {
    let (mut offset, mut pieces) = (0, Vec::new());
    loop {
        let number = u32::try_from(pieces.len()).unwrap() + 1;
        let max = limit(number);
        let piece = piece(payload, offset, number, max)?;
        assert!(piece.payload.len() <= max, "{} > {max}", piece.payload.len());
        assert_eq!(piece.number, number);
        let next = piece.next;
        pieces.push(piece);
        let Some(next) = next else { return Ok(pieces) };
        assert!(next > offset, "each takes some of it");
        offset = next;
    }
}

/// The content; every piece says where it belongs, and is an envelope as the original.
fn joined(payload: &Bytes, pieces: &[Piece]) -> (String, Vec<u8>) {
    let mut head = read(payload, NidScheme::Decimal).unwrap();
    head.options.chunks = false;
    let (mut rest, integers) = wire::envelope(&wire::definite(payload));
    rest.remove("chunks");
    rest.remove("body");
    let (mut whole, mut form) = (Vec::new(), String::new());
    for (at, piece) in pieces.iter().enumerate() {
        assert_eq!(read(&piece.payload, NidScheme::Decimal).as_ref(), Ok(&head));
        let (mut members, integers_too) = wire::envelope(&piece.payload);
        assert_eq!(integers_too, integers);
        members.remove("chunk");
        members.remove("body");
        assert_eq!(members, rest, "nothing else is gone or new");
        let said = said(&piece.payload);
        assert_eq!((said.n, said.of), (at as u64 + 1, piece.of.into()));
        assert_eq!(said.n == said.of, at + 1 == pieces.len(), "only the last is the last");
        assert_eq!((said.offset, Some(said.total)), (whole.len(), content_bytes(payload)));
        whole.extend(said.content);
        assert_eq!(piece.next, (whole.len() < said.total).then_some(whole.len()));
        form = said.form;
    }
    (form, whole)
}

#[test]
fn the_content_is_what_the_body_means_or_how_it_is_written() {
    let binary: Vec<u8> = (0..=255).collect();
    let encoded = STANDARD.encode(&binary);
    let object = r#"{ "é\n" : [1.50, "a\"b"],	"x":null}"#;
    let pieces_in_cbor = [&[0x5F, 0x42, 1, 2, 0x41, 3, 0xFF][..]].concat();
    let not_padded = encoded.trim_end_matches('=').to_owned();
    for (wire, body, form, content) in [
        (Wire::Json, format!("\"{encoded}\"").into_bytes(), "base64", binary.clone()),
        (Wire::Json, encoded_with_escapes(&encoded), "base64", binary.clone()),
        (Wire::Json, b"\"\"".to_vec(), "base64", Vec::new()),
        (Wire::Json, b"\"test\"".to_vec(), "base64", vec![0xB5, 0xEB, 0x2D]),
        (Wire::Json, b"\"tesu\"".to_vec(), "base64", vec![0xB5, 0xEB, 0x2E]),
        // Bits behind the end: the bytes would not give this text again.
        (Wire::Json, b"\"AB==\"".to_vec(), "json", b"\"AB==\"".to_vec()),
        (
            Wire::Json,
            format!("\"{not_padded}\"").into(),
            "json",
            format!("\"{not_padded}\"").into(),
        ),
        (Wire::Json, b"\"tes\xC3\xA9\"".to_vec(), "json", b"\"tes\xC3\xA9\"".to_vec()),
        (Wire::Json, object.into(), "json", object.into()),
        (Wire::Json, b"null".to_vec(), "json", b"null".to_vec()),
        (Wire::CborTexts, wire::cbor_bytes(&binary), "bytes", binary.clone()),
        (Wire::CborIntegers, wire::cbor_bytes(&[]), "bytes", Vec::new()),
        (Wire::CborIndefinite, wire::cbor(&json!([1])), "cbor", vec![0x81, 1]),
        (Wire::CborTexts, wire::cbor(&json!("AAAA")), "cbor", b"\x64AAAA".to_vec()),
        (Wire::CborTexts, pieces_in_cbor.clone(), "cbor", pieces_in_cbor),
    ] {
        let payload = message(wire, body);
        assert_eq!(content_bytes(&payload), Some(content.len()));
        for limit in [200, 260, 100_000] {
            let pieces = cut(&payload, |_| limit).unwrap();
            assert_eq!(joined(&payload, &pieces), (form.to_owned(), content.clone()));
            assert!(limit < 100_000 || pieces.len() == 1, "no more pieces than need be");
        }
    }
}

fn encoded_with_escapes(text: &str) -> Vec<u8> {
    format!("\"{}\"", text.replace('/', "\\/").replace('A', "\\u0041")).into_bytes()
}

/// A package as SGP.22 2.5.2 has it, and where its segments end.
fn package(keys: bool, metadata: &[usize], profile: &[usize]) -> (Vec<u8>, Vec<usize>) {
    fn tlv(tag: &[u8], value: &[u8]) -> Vec<u8> {
        let length = value.len();
        let length = match length {
            0..=0x7F => vec![length as u8],
            0x80..=0xFF => vec![0x81, length as u8],
            _ => vec![0x82, (length >> 8) as u8, length as u8],
        };
        [tag, &length, value].concat()
    }
    let noise = |length: usize| -> Vec<u8> { (0..length).map(|at| (at * 7) as u8).collect() };
    let members = |tag: u8, sizes: &[usize]| -> Vec<Vec<u8>> {
        sizes.iter().map(|size| tlv(&[tag], &noise(*size))).collect()
    };
    // Tag and length alone, then each member.
    let sequence = |tag: u8, members: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
        let mut header = tlv(&[tag], &members.concat());
        header.truncate(header.len() - members.concat().len());
        [header].into_iter().chain(members).collect()
    };
    let mut segments = vec![tlv(&[0xBF, 0x23], &noise(180))];
    segments.push(tlv(&[0xA0], &members(0x87, &[24]).concat()));
    segments.extend(sequence(0xA1, members(0x88, metadata)));
    if keys {
        segments.push(tlv(&[0xA2], &members(0x87, &[30, 26]).concat()));
    }
    segments.extend(sequence(0xA3, members(0x86, profile)));
    let inner = segments.concat();
    let whole = tlv(&[0xBF, 0x36], &inner);
    segments[0].splice(..0, whole[..whole.len() - inner.len()].iter().copied());
    let ends = segments.iter().scan(0, |end, segment| {
        *end += segment.len();
        Some(*end)
    });
    let ends = ends.collect();
    (whole, ends)
}

#[test]
fn a_package_is_cut_between_its_segments() {
    for (keys, profile) in [(true, &[1016; 11][..]), (false, &[1016, 1016, 300, 24])] {
        let (bytes, ends) = package(keys, &[120, 40], profile);
        for wire in WIRES {
            let payload = message(wire, bytes_body(wire, &bytes));
            for limit in [1_600, 2_000, 3_500, 8_000] {
                let pieces = cut(&payload, |_| limit).unwrap();
                assert_eq!(joined(&payload, &pieces).1, bytes);
                let cuts: Vec<usize> =
                    pieces.iter().map(|p| p.next.unwrap_or(bytes.len())).collect();
                assert!(cuts.iter().all(|cut| ends.contains(cut)), "{wire:?} {limit} {cuts:?}");
                // One segment more would not have fitted: the next piece would have to be empty.
                for (piece, cut) in pieces.iter().zip(&cuts) {
                    let Some(next) = ends.iter().find(|end| *end > cut) else { continue };
                    let more = next - cut;
                    let encoded = if wire == Wire::Json { more / 3 * 4 } else { more };
                    assert!(piece.payload.len() + encoded + 16 > limit, "{wire:?} {limit}");
                }
            }
        }
    }
}

#[test]
fn a_segment_that_alone_does_not_fit_is_cut_and_the_next_begins_a_piece_or_joins_its_end() {
    let (bytes, ends) = package(true, &[120], &[1016; 3]);
    let payload = message(Wire::CborIntegers, wire::cbor_bytes(&bytes));
    let pieces = cut(&payload, |_| 700).unwrap();
    assert_eq!(joined(&payload, &pieces).1, bytes);
    let cuts: Vec<usize> = pieces.iter().filter_map(|piece| piece.next).collect();
    let first_large = ends[ends.len() - 4];
    let (small, large): (Vec<usize>, Vec<usize>) = cuts.iter().partition(|at| **at <= first_large);
    assert!(small.iter().all(|at| ends.contains(at)), "{small:?} of {ends:?}");
    assert!(small.contains(&first_large), "a cut segment begins a piece of its own");
    let within = large.iter().filter(|at| !ends.contains(at)).count();
    assert_eq!(within, 3, "each of the three is cut once: {large:?} of {ends:?}");
    for (end, at) in ends[ends.len() - 3..ends.len() - 1].iter().zip(large.chunks(2)) {
        assert_eq!(at[1], *end, "its second half ends with it");
    }
}

#[test]
fn what_is_no_whole_package_is_cut_by_size() {
    let (good, ends) = package(true, &[120], &[1016; 3]);
    let cuts = |bytes: &[u8]| -> Vec<usize> {
        let payload = message(Wire::CborTexts, wire::cbor_bytes(bytes));
        let pieces = cut(&payload, |_| 1_300).unwrap();
        assert_eq!(joined(&payload, &pieces).1, bytes);
        pieces.iter().filter_map(|piece| piece.next).collect()
    };
    assert!(cuts(&good).iter().all(|at| ends.contains(at)));
    let by_size = |bytes: &[u8]| {
        let cuts = cuts(bytes);
        assert!(cuts.windows(2).all(|pair| pair[1] - pair[0] == cuts[0]), "{cuts:?}");
    };
    by_size(&[&good[..], &[0]].concat());
    by_size(&good[..good.len() - 1]);
    let at = |tag: u8| ends.iter().copied().find(|at| good[*at] == tag).unwrap();
    let headers = [(0, 0xBE), (1, 0x35), (2, 0x83), (4, 0xBE)];
    let inner = [(at(0xA0), 0xA5), (at(0xA0) + 2, 0x86), (at(0xA1), 0xA2), (at(0xA1) + 1, 0x00)];
    let last = [(at(0x86), 0x87), (at(0x86) + 1, 0x80), (at(0x86) + 2, 0xFF), (at(0xA3), 0x86)];
    for (place, byte) in headers.into_iter().chain(inner).chain(last) {
        let mut bad = good.clone();
        assert_ne!(bad[place], byte);
        bad[place] = byte;
        by_size(&bad);
    }
    by_size(&package(true, &[], &[1016; 3]).0);
    // A length in more bytes than it needs is no DER.
    let mut long = good.clone();
    long.splice(2..3, [0x83, 0]);
    by_size(&long);
}

#[test]
fn a_limit_that_changes_cuts_the_rest_anew() {
    let (bytes, ends) = package(true, &[120], &[1016; 8]);
    let payload = message(Wire::Json, bytes_body(Wire::Json, &bytes));
    let limits = [3_000, 3_000, 1_000, 1_600, 300, 5_000, 5_000, 5_000];
    let pieces = cut(&payload, |number| limits[number as usize - 1]).unwrap();
    let (mut whole, mut before) = (Vec::new(), 0);
    for (piece, limit) in pieces.iter().zip(limits) {
        let said = said(&piece.payload);
        assert_eq!((said.offset, said.n), (whole.len(), u64::from(before) + 1));
        before = piece.number;
        whole.extend(said.content);
        // By the same limit all the way, so many are left.
        let mut left = 0;
        let mut at = piece.next;
        while let Some(offset) = at {
            left += 1;
            at = super::super::chunk::piece(&payload, offset, piece.number + left, limit)
                .unwrap()
                .next;
        }
        assert_eq!(piece.of, piece.number + left);
    }
    assert_eq!(whole, bytes);
    // Where there is room again, pieces end with segments again.
    assert!(pieces[5..].iter().all(|p| p.next.is_none_or(|next| ends.contains(&next))));
}

#[test]
fn the_least_limit_is_named_and_is_enough() {
    let text = json!({"a": "é€😀", "b": "\"\\"});
    for wire in WIRES {
        for body in [bytes_body(wire, &[7; 40]), wire.value(&text)] {
            let payload = message(wire, body);
            let Err(ChunkError::LimitTooSmall { needs }) = piece(&payload, 0, 1, 0) else {
                panic!("nothing fits into nothing");
            };
            let pieces = cut(&payload, |_| needs).unwrap();
            joined(&payload, &pieces);
            assert!(pieces.len() > 10, "hardly more than a byte each");
            for limit in [1, needs / 2, needs - 1] {
                assert_eq!(piece(&payload, 0, 1, limit), Err(ChunkError::LimitTooSmall { needs }));
            }
        }
    }
}

#[test]
fn the_number_of_pieces_is_bounded() {
    let payload = message(Wire::CborTexts, wire::cbor_bytes(&[0; PIECES_MAX as usize * 10]));
    let Err(ChunkError::LimitTooSmall { needs }) = piece(&payload, 0, 1, 0) else { panic!() };
    let ten_each = needs + 9;
    assert_eq!(piece(&payload, 0, 1, ten_each).map(|piece| piece.of), Ok(PIECES_MAX));
    let too_many = Err(ChunkError::TooManyPieces);
    assert_eq!(piece(&payload, 0, 1, ten_each - 1), too_many);
    assert_eq!(piece(&payload, 10, 3, ten_each), too_many, "those before count as well");
    assert_eq!(piece(&payload, 10, 2, ten_each).map(|piece| piece.of), Ok(PIECES_MAX));
    let last = PIECES_MAX * 10 - 1;
    assert_eq!(piece(&payload, last as usize, PIECES_MAX + 1, ten_each), too_many);
}

#[test]
fn a_caller_that_is_lost_is_told_so() {
    let payload = message(Wire::Json, wire::Wire::Json.value(&json!("né")));
    assert_eq!(content_bytes(&payload), Some(5));
    let of = |offset, number| piece(&payload, offset, number, 1000).map(|piece| piece.of);
    assert_eq!(of(0, 1), Ok(1));
    assert_eq!(of(2, 3), Ok(3));
    assert_eq!(of(3, 2), Err(ChunkError::BadOffset(3)), "within a character");
    assert_eq!(of(5, 2), Err(ChunkError::BadOffset(5)), "nothing is left");
    assert_eq!(of(usize::MAX, 2), Err(ChunkError::BadOffset(usize::MAX)));
    assert_eq!(of(0, 0), Err(ChunkError::BadNumber(0)));
    assert_eq!(of(0, 2), Err(ChunkError::BadNumber(2)));
    assert_eq!(of(2, 4), Err(ChunkError::BadNumber(4)));
    assert_eq!(of(2, u32::MAX), Err(ChunkError::BadNumber(u32::MAX)));
    for none in ["", "{", "[]", r#"{"nid":1}"#, "\u{A0}"] {
        assert_eq!(piece(&none.into(), 0, 1, 1000), Err(ChunkError::Unreadable), "{none:?}");
        assert_eq!(content_bytes(&none.into()), None, "{none:?}");
    }
    let first = cut(&payload, |_| 180).unwrap().remove(0).payload;
    assert_eq!(piece(&first, 0, 1, 1000), Err(ChunkError::AlreadyAPiece));
}

fn bodies() -> impl Strategy<Value = (Wire, Vec<u8>)> {
    let text = prop_oneof![
        ".{0,60}",
        proptest::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter),
        "[\"\\\\\n\t\u{0}]{0,40}",
    ];
    let value = prop_oneof![
        text.clone().prop_map(Value::from),
        proptest::collection::vec(text, 0..5).prop_map(Value::from),
    ];
    let bytes = proptest::collection::vec(any::<u8>(), 0..300);
    (proptest::sample::select(WIRES.to_vec()), value, bytes, 0..3).prop_map(
        |(wire, value, bytes, which)| match which {
            0 => (wire, bytes_body(wire, &bytes)),
            1 if wire == Wire::Json => (wire, serde_json::to_vec_pretty(&value).unwrap()),
            _ => (wire, wire.value(&value)),
        },
    )
}

proptest! {
    #[test]
    fn pieces_by_any_limits_give_the_whole_again(
        (wire, body) in bodies(),
        room in proptest::collection::vec(0..80_usize, 1..6),
    ) {
        let payload = message(wire, body.clone());
        let needs = match piece(&payload, 0, 1, 0) {
            Err(ChunkError::LimitTooSmall { needs }) => needs,
            other => panic!("{other:?}"),
        };
        let same = cut(&payload, |_| needs + room[0]).unwrap();
        let (form, content) = joined(&payload, &same);
        prop_assert!(same.iter().all(|piece| piece.of as usize == same.len()));
        let changing = cut(&payload, |n| needs + room[n as usize % room.len()]).unwrap();
        let rejoined = changing.iter().flat_map(|piece| said(&piece.payload).content);
        prop_assert!(rejoined.eq(content.iter().copied()));
        let again = match form.as_str() {
            "base64" => {
                let text: String = serde_json::from_slice(&body).unwrap();
                prop_assert_eq!(text, STANDARD.encode(&content));
                body.clone()
            }
            "bytes" => wire::cbor_bytes(&content),
            _ => content,
        };
        prop_assert_eq!(again, body);
    }

    #[test]
    fn packages_by_any_limit_give_the_whole_again(
        keys in any::<bool>(),
        metadata in proptest::collection::vec(1..300_usize, 1..3),
        profile in proptest::collection::vec(1..1100_usize, 1..6),
        limit in 220..2000_usize,
        wire in proptest::sample::select(WIRES.to_vec()),
    ) {
        let (bytes, ends) = package(keys, &metadata, &profile);
        let payload = message(wire, bytes_body(wire, &bytes));
        let pieces = cut(&payload, |_| limit).unwrap();
        let (_, content) = joined(&payload, &pieces);
        prop_assert_eq!(content, bytes);
        // A piece that ends within a segment holds nothing but of that segment, unless it began
        // within the one before.
        let mut start = 0;
        for piece in &pieces {
            let Some(end) = piece.next else { break };
            let whole = ends.iter().any(|at| start < *at && *at <= end);
            prop_assert!(!whole || ends.contains(&end));
            start = end;
        }
    }
}

#[test]
fn cut_or_bent_at_any_byte_nothing_panics_and_pieces_stay_readable() {
    let (package, _) = package(true, &[20], &[60, 50]);
    let (package, text) = (&package[..], json!({"a": ["é", "\"", {}]}));
    for wire in WIRES {
        for body in [bytes_body(wire, package), wire.value(&text)] {
            let whole = message(wire, body);
            for at in 0..whole.len() {
                assert_eq!(piece(&whole.slice(..at), 0, 1, 300), Err(ChunkError::Unreadable));
                for bit in [0, 3, 5, 7] {
                    let mut bent = whole.to_vec();
                    bent[at] ^= 1 << bit;
                    let bent = Bytes::from(bent);
                    let readable = read(&bent, NidScheme::Decimal).is_ok();
                    let Ok(pieces) = cut(&bent, |_| 240) else { continue };
                    for piece in pieces {
                        let again = read(&piece.payload, NidScheme::Decimal).is_ok();
                        assert!(again || !readable, "{wire:?} byte {at} bit {bit}");
                    }
                }
            }
        }
    }
}
