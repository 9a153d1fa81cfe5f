//! Stamps, and many messages as one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::wire::{self, WIRES, Wire};
use super::*;
use crate::rsp::envelope::{MAX_DEPTH, raw_body, read};
use crate::rsp::gathered::{RawBody, Request, coalesced, merged};
use crate::rsp::stamp::with_src;

fn answer(wire: Wire, more: &[(&str, Value)]) -> Bytes {
    let members: Vec<(&str, Vec<u8>)> = [("gid", json!(42)), ("type", json!("ret(msg)"))]
        .into_iter()
        .chain(more.iter().cloned())
        .chain([("nid", json!(0)), ("body", json!({"src": "in the body"}))])
        .map(|(name, value)| (name, wire.value(&value)))
        .collect();
    wire.envelope(&members)
}

#[test]
fn a_stamp_stands_in_front_and_changes_nothing_else() {
    for wire in WIRES {
        let payload = answer(wire, &[("tid", json!("t")), ("rc", json!(3)), ("zzz", json!([1]))]);
        let before = read(&payload, NidScheme::Eid).unwrap();
        assert!(!before.options.has_src);
        let stamped = with_src(&payload, eid(7));
        let mut after = read(&stamped, NidScheme::Eid).unwrap();
        assert!(after.options.has_src);
        after.options.has_src = false;
        assert_eq!(after, before);
        let (mut members, integers) = wire::envelope(&stamped);
        let src = members.remove("src").unwrap();
        assert_eq!(wire::text(&src), eid(7).to_string());
        let with_length = if wire == Wire::CborIndefinite { Wire::CborIntegers } else { wire };
        let whole =
            answer(with_length, &[("tid", json!("t")), ("rc", json!(3)), ("zzz", json!([1]))]);
        assert_eq!(members, wire::envelope(&whole).0, "the others as they were");
        assert_eq!(integers, matches!(wire, Wire::CborIntegers | Wire::CborIndefinite));
        let first = match wire {
            Wire::Json => format!(r#"{{"src":"{}","gid":42"#, eid(7)).into_bytes(),
            Wire::CborTexts => [&[0xA8, 0x63][..], b"src", &[0x78, 32]].concat(),
            Wire::CborIntegers | Wire::CborIndefinite => vec![0xA8, 12, 0x78, 32],
        };
        assert!(stamped.starts_with(&first), "{wire:?} {stamped:?}");
    }
}

#[test]
fn nobody_stamps_for_somebody_else() {
    for wire in WIRES {
        let forged = answer(wire, &[("src", json!(eid(1).to_string()))]);
        let stamped = with_src(&forged, eid(2));
        assert_eq!(stamped, with_src(&answer(wire, &[]), eid(2)), "{wire:?}");
        assert_eq!(with_src(&stamped, eid(3)), with_src(&answer(wire, &[]), eid(3)));
    }
    for none in ["", "[]", "{", "\u{BF}"] {
        assert_eq!(with_src(&none.into(), eid(1)), none);
    }
}

#[test]
fn integer_keys_are_for_those_who_use_no_others() {
    // nid 0, gid 1, "type" as a text; and a negative key, which is an integer as well.
    let mixed = [&[0xA4, 1, 0, 2, 1, 0x64][..], b"type", &[0x63], b"msg", &[4, 0]].concat();
    let negative = [&[0xA5, 0x20, 0, 1, 0, 2, 1, 3, 0x63][..], b"msg", &[4, 0]].concat();
    assert!(with_src(&mixed.into(), eid(1)).starts_with(b"\xA5\x63src\x78\x20"));
    assert!(with_src(&negative.into(), eid(1)).starts_with(b"\xA6\x0C\x78\x20"));
}

#[test]
fn a_map_of_many_members_gets_a_longer_header() {
    let mut bytes = vec![0xB7];
    for key in 1000..1019_u16 {
        bytes.push(0x19);
        bytes.extend(key.to_be_bytes());
        bytes.push(0);
    }
    bytes.extend([1, 0, 2, 1, 3, 0x63]);
    bytes.extend(b"msg\x04\x00");
    let payload = Bytes::from(bytes);
    assert!(read(&payload, NidScheme::Eid).is_ok());
    let stamped = with_src(&payload, eid(1));
    assert!(stamped.starts_with(&[0xB8, 24, 12]), "{stamped:?}");
    assert!(read(&stamped, NidScheme::Eid).is_ok());
}

fn request(number: u128, tid: Option<Tid>, payload: &Bytes) -> Request {
    Request { nid: eid(number), tid, body: RawBody::of(payload).unwrap() }
}

#[test]
fn many_triggers_reach_the_servers_as_one() {
    let json = Bytes::from_static(b"{\"nid\":1,\"body\": {\"a\" : 1.50, \"b\":\"\\u0041\"} }");
    let cbor = wire::cbor(&json!({"a": [1]}));
    let in_cbor = Wire::CborIntegers.envelope(&[("body", cbor.clone())]);
    let (whole, count) = coalesced(
        gid(42),
        "g\"1",
        [
            request(1, Some(Tid::Text("a\"b".into())), &json),
            request(2, Some(Tid::Number(i128::from(u64::MAX))), &in_cbor),
            request(3, None, &json),
        ]
        .iter(),
        usize::MAX,
    );
    assert_eq!(count, 3);
    let text = std::str::from_utf8(&whole).unwrap();
    assert!(text.contains("{\"a\" : 1.50, \"b\":\"\\u0041\"}"), "bytes as they came: {text}");
    let (one, two, three) = (eid(1).to_string(), eid(2).to_string(), eid(3).to_string());
    let body = json!({"a": 1.5, "b": "A"});
    assert_eq!(
        serde_json::from_str::<Value>(text).unwrap(),
        json!({"nid": 0, "gid": 42, "type": "trigger", "tid": "g\"1", "body": {
            "event": "coalesced-trigger",
            "requesters": [
                {"nid": one, "tid": "a\"b", "body": body},
                {"nid": two, "tid": u64::MAX, "body_cbor": STANDARD.encode(cbor)},
                {"nid": three, "body": body},
            ],
        }})
    );
    let head = read(&whole, NidScheme::Eid).unwrap();
    let tid = Some(Tid::Text("g\"1".into()));
    assert_eq!(head, Head { gid: Some(gid(42)), tid, ..Head::new(Kind::Trigger) });
    let nobody = coalesced(gid(42), "", [].iter(), usize::MAX).0;
    assert!(nobody.ends_with(br#""requesters":[]}}"#), "{nobody:?}");
}

#[test]
fn a_deep_body_makes_the_others_no_less_readable() {
    for depth in [1, MAX_DEPTH - 5, MAX_DEPTH - 4, MAX_DEPTH - 3, MAX_DEPTH - 1] {
        let body = format!("{}\"}}\"{}", "[".repeat(depth), "]".repeat(depth));
        let payload = Bytes::from(format!(r#"{{"nid":1,"gid":0,"type":"trigger","body":{body}}}"#));
        assert!(read(&payload, NidScheme::Decimal).is_ok(), "{depth} is permitted to a device");
        let whole = coalesced(gid(1), "t", [request(1, None, &payload)].iter(), usize::MAX).0;
        assert!(read(&whole, NidScheme::Eid).is_ok(), "{depth}");
        let value: Value = serde_json::from_slice(&whole).unwrap();
        let requester = &value["body"]["requesters"][0];
        if depth + 4 > MAX_DEPTH {
            assert_eq!(requester["body_json"], body);
            assert_eq!(requester.get("body"), None);
        } else {
            assert_eq!(requester["body"].to_string(), body);
        }
    }
}

#[test]
fn a_message_to_one_becomes_a_message_to_a_group() {
    for wire in WIRES {
        let members = |nid: Value, gid: Value| {
            [
                ("tid", json!(7)),
                ("nid", nid),
                ("x", json!({})),
                ("type", json!("msg")),
                ("gid", gid),
                ("chunks", json!(true)),
                ("body", json!({"nid": 1})),
            ]
            .map(|(name, value)| (name, wire.value(&value)))
        };
        let first = wire.envelope(&members(json!(eid(1).to_string()), json!(0)));
        let whole = merged(gid(u64::MAX), &first);
        let before = read(&first, NidScheme::Eid).unwrap();
        let expected = Head { nid: None, gid: Some(gid(u64::MAX)), ..before };
        assert_eq!(read(&whole, NidScheme::Eid), Ok(expected), "{wire:?}");
        assert_eq!(raw_body(&whole), raw_body(&first));
        let with_length = if wire == Wire::CborIndefinite { Wire::CborIntegers } else { wire };
        let expected = with_length.envelope(&members(json!(0), json!(u64::MAX)));
        assert_eq!(wire::envelope(&whole), wire::envelope(&expected));
    }
    assert_eq!(merged(gid(1), &"{".into()), "{");
}

#[test]
fn equal_bodies_are_equal_bytes_and_tell_their_format() {
    let of = |text: &'static str| RawBody::of(&text.into());
    assert_eq!(of(r#"{"body":[1],"nid":1}"#), of(r#"{"nid":2,"body":[1]}"#));
    assert_ne!(of(r#"{"body":[1]}"#), of(r#"{"body":[1 ]}"#));
    assert_eq!(of(r#"{"nid":1}"#), None);
    // The text 1 in JSON is the number 17 in CBOR.
    let cbor = RawBody::of(&Bytes::from_static(&[0xA1, 4, 0x11]));
    assert_eq!(cbor, Some(RawBody::Cbor(Bytes::from_static(&[0x11]))));
    assert_eq!(of(r#"{"body":1}"#), Some(RawBody::Json(Bytes::from_static(b"1"))));
}

#[test]
fn bent_at_any_byte_what_is_made_of_it_is_readable_whenever_it_was() {
    for wire in WIRES {
        let whole = answer(wire, &[("tid", json!("t")), ("src", json!(1))]);
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bent = whole.to_vec();
                bent[at] ^= 1 << bit;
                let bent = Bytes::from(bent);
                let made = [with_src(&bent, eid(1)), merged(gid(1), &bent)];
                let Ok(_) = read(&bent, NidScheme::Decimal) else { continue };
                for made in made {
                    assert!(read(&made, NidScheme::Decimal).is_ok(), "{wire:?} {at} {bit}");
                }
                let body = RawBody::of(&bent).unwrap();
                let request = Request { nid: eid(1), tid: None, body };
                let (whole, _) = coalesced(gid(1), "t", [request].iter(), usize::MAX);
                assert!(read(&whole, NidScheme::Eid).is_ok());
            }
        }
    }
}
