//! What the broker makes of an envelope, read by the reference clients, which share nothing with
//! it: pieces put together, parts, stamps, and many messages as one.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use simcast::client::chunk::{Assembler, Taken};
use simcast::client::envelope::{Body, Envelope, Kind, Tid, Wire};
use simcast::client::payload::{BPP_BYTES, bound_profile_package, sample_eid, split};
use simcast::ids::{Gid, NidScheme};
use simcast::rsp::chunk::piece;
use simcast::rsp::gathered::merged;
use simcast::rsp::parts::Parts;
use simcast::rsp::stamp::with_src;

const WIRES: [Wire; 2] = [Wire::Json, Wire::Cbor];

fn message(wire: Wire, body: Body) -> Bytes {
    let tid = Some(Tid::Text("t".into()));
    let envelope = Envelope::new(sample_eid(1).get(), 0, Kind::Msg).with_tid(tid);
    envelope.with_body(body).asking("chunks", true).encode(wire).into()
}

/// The pieces by these limits in turn.
fn cut(payload: &Bytes, limits: &[usize]) -> Vec<Bytes> {
    let (mut next, mut pieces) = (Some(0), Vec::new());
    while let Some(offset) = next {
        let limit = limits[pieces.len() % limits.len()];
        let number = u32::try_from(pieces.len()).unwrap() + 1;
        let piece = piece(payload, offset, number, limit).unwrap();
        assert!(piece.payload.len() <= limit);
        pieces.push(piece.payload);
        next = piece.next;
    }
    pieces
}

/// What a device makes of them; every piece comes twice, as after a lost acknowledgement.
fn join(pieces: &[Bytes]) -> Envelope {
    let mut assembler = Assembler::default();
    for (at, piece) in pieces.iter().enumerate() {
        let piece = Envelope::decode(piece).unwrap();
        let taken = assembler.take(piece.clone());
        if at + 1 < pieces.len() {
            assert_eq!(taken, Taken::Part);
            assert_eq!(assembler.take(piece), Taken::Repeated);
            continue;
        }
        let Taken::Whole(envelope, count) = taken else { panic!("{taken:?}") };
        assert_eq!(count as usize, pieces.len());
        return *envelope;
    }
    panic!("no pieces");
}

#[test]
fn a_package_arrives_in_the_segments_of_the_euicc() {
    let package = bound_profile_package(1, BPP_BYTES).unwrap();
    let ends: Vec<usize> = split(&package)
        .unwrap()
        .iter()
        .scan(0, |end, segment| {
            *end += segment.len();
            Some(*end)
        })
        .collect();
    for wire in WIRES {
        let payload = message(wire, package.clone().into());
        let pieces = cut(&payload, &[2048]);
        for piece in &pieces {
            let envelope = Envelope::decode(piece).unwrap();
            let chunk = envelope.chunk.unwrap();
            assert!(chunk.offset == 0 || ends.contains(&chunk.offset), "{chunk:?}");
            assert_eq!((chunk.total, chunk.of as usize), (BPP_BYTES, pieces.len()));
        }
        assert_eq!(join(&pieces), Envelope::decode(&payload).unwrap());
    }
}

fn bodies() -> impl Strategy<Value = Body> {
    let package = (any::<u64>(), 1_000..6_000_usize)
        .prop_map(|(seed, size)| bound_profile_package(seed, size).unwrap().into());
    let bytes = proptest::collection::vec(any::<u8>(), 0..2_000).prop_map(Body::from);
    let text = ".{0,500}".prop_map(|text| Body::from(Value::from(text)));
    let list = proptest::collection::vec((".{0,20}", any::<i64>()), 0..40)
        .prop_map(|pairs| Body::from(json!(pairs)));
    prop_oneof![package, bytes, text, list]
}

proptest! {
    #[test]
    fn what_the_broker_cuts_the_device_joins(
        body in bodies(),
        limits in proptest::collection::vec(240..2_500_usize, 1..4),
        wire in proptest::sample::select(WIRES.to_vec()),
    ) {
        let payload = message(wire, body);
        prop_assert_eq!(join(&cut(&payload, &limits)), Envelope::decode(&payload).unwrap());
    }
}

#[test]
fn a_part_that_is_too_large_is_cut_in_its_turn() {
    let package = |seed| {
        let bytes = bound_profile_package(seed, 3_000).unwrap();
        Envelope::new(0, 0, Kind::Msg).with_body(bytes).encode(Wire::Json)
    };
    // As a server without byte strings says it.
    let text = |seed| serde_json::from_slice::<Value>(&package(seed)).unwrap()["body"].clone();
    let (one, two) = (sample_eid(1), sample_eid(2));
    let parts = json!({"parts": {one.to_string(): text(1), two.to_string(): text(2)}});
    for wire in WIRES {
        let campaign = Envelope::new(0, 42, Kind::Msg).with_body(parts.clone());
        let campaign = campaign.asking("parts", true).asking("chunks", true).encode(wire).into();
        let read = Parts::read(&campaign, NidScheme::Eid).unwrap();
        assert_eq!(read.nids(), [one, two]);
        for (nid, seed) in [(one, 1), (two, 2)] {
            let letter = read.letter(Some(nid)).unwrap();
            let joined = join(&cut(&letter, &[700]));
            assert_eq!((joined.nid, joined.gid), (0, 42));
            assert_eq!(joined.body, Body::Value(json!({"part": text(seed)})));
        }
    }
}

#[test]
fn stamps_and_merged_messages_are_read_by_the_clients() {
    for wire in WIRES {
        let payload = message(wire, json!({"a": 1}).into());
        let before = Envelope::decode(&payload).unwrap();
        let stamped = Envelope::decode(&with_src(&payload, sample_eid(7))).unwrap();
        let src = Some(sample_eid(7).get());
        assert_eq!(stamped, Envelope { src, ..before.clone() });
        let merged = Envelope::decode(&merged(Gid::new(42).unwrap(), &payload)).unwrap();
        assert_eq!(merged, Envelope { nid: 0, gid: 42, ..before });
    }
    let integers = Bytes::from_static(b"\xA4\x01\x07\x02\x00\x03\x63msg\x04\x00");
    let stamped = Envelope::decode(&with_src(&integers, sample_eid(7))).unwrap();
    assert_eq!(stamped.src, Some(sample_eid(7).get()), "by the integer key");
}
