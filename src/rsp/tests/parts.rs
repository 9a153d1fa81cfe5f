//! One group message with a part for each of several members.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::wire::{self, WIRES, Wire};
use super::*;
use crate::rsp::envelope::read;
use crate::rsp::parts::{Parts, PartsError};

fn number(nid: u128) -> Nid {
    Nid::new(nid, NidScheme::Decimal).unwrap()
}

/// A C1 with this body; the member of an unknown name stands beside and between.
fn campaign(wire: Wire, body: Vec<u8>) -> Bytes {
    wire.envelope(&[
        ("nid", wire.value(&json!(0))),
        ("xx", wire.value(&json!({"parts": 1}))),
        ("parts", wire.value(&json!(true))),
        ("gid", wire.value(&json!(42))),
        ("chunks", wire.value(&json!(true))),
        ("body", body),
        ("type", wire.value(&json!("msg"))),
        ("tid", wire.value(&json!("t-1"))),
    ])
}

fn decimal(payload: &Bytes) -> Result<Parts, PartsError> {
    Parts::read(payload, NidScheme::Decimal)
}

#[test]
fn each_member_gets_the_common_part_and_its_own() {
    for wire in WIRES {
        let body = json!({"parts": {"7": {"p": "seven"}, "5": "five"}, "common": ["all"]});
        let payload = campaign(wire, wire.value(&body));
        let parts = decimal(&payload).unwrap();
        assert_eq!(parts.nids(), [number(5), number(7)]);
        assert_eq!(parts.part_of(number(5)).unwrap(), wire.value(&json!("five")));
        assert_eq!(parts.part_of(number(6)), None);
        assert_eq!(parts.common().unwrap(), wire.value(&json!(["all"])));
        for (nid, expected) in [
            (Some(7), json!({"common": ["all"], "part": {"p": "seven"}})),
            (Some(5), json!({"common": ["all"], "part": "five"})),
            (Some(6), json!({"common": ["all"]})),
            (None, json!({"common": ["all"]})),
        ] {
            let letter = parts.letter(nid.map(number)).unwrap();
            let (members, integers) = wire::envelope(&letter);
            assert_eq!(integers, !matches!(wire, Wire::Json | Wire::CborTexts));
            let names: Vec<&str> = members.keys().map(String::as_str).collect();
            let unknown = if integers { "#1002" } else { "xx" };
            let mut all = [unknown, "body", "chunks", "gid", "nid", "tid", "type"];
            all.sort_unstable();
            assert_eq!(names, all, "all but `parts`");
            assert_eq!(wire::members(&members["body"]), wire::members(&wire.value(&expected)));
            let mut head = read(&payload, NidScheme::Decimal).unwrap();
            head.options.parts = false;
            assert_eq!(read(&letter, NidScheme::Decimal), Ok(head));
        }
    }
}

#[test]
fn who_has_neither_a_part_nor_anything_common_gets_nothing() {
    for wire in WIRES {
        let parts = decimal(&campaign(wire, wire.value(&json!({"parts": {"7": null}})))).unwrap();
        assert_eq!(parts.common(), None);
        assert_eq!(parts.letter(None), None);
        assert_eq!(parts.letter(Some(number(8))), None);
        let letter = parts.letter(Some(number(7))).unwrap();
        let body = wire::envelope(&letter).0["body"].clone();
        assert_eq!(wire::members(&body), wire::members(&wire.value(&json!({"part": null}))));
    }
}

#[test]
fn a_body_that_is_not_exactly_parts_is_refused_by_name() {
    for wire in WIRES {
        let of = |body: &Value| decimal(&campaign(wire, wire.value(body))).map(|_| ());
        for body in [
            json!(null),
            json!("parts"),
            json!([{"parts": {"1": 0}}]),
            json!({}),
            json!({"common": 1}),
            json!({"parts": null}),
            json!({"parts": [1]}),
            json!({"parts": {"1": 0}, "other": 0}),
            json!({"parts": {"1": 0}, "part": 0}),
        ] {
            assert_eq!(of(&body), Err(PartsError::Unreadable), "{wire:?} {body}");
        }
        assert_eq!(of(&json!({"parts": {}})), Err(PartsError::Empty));
        assert_eq!(of(&json!({"parts": {}, "common": 0})), Err(PartsError::Empty));
        for nid in ["0", "", "x", "-1", "1.0", " 1", "340282366920938463463374607431768211456"] {
            assert_eq!(of(&json!({"parts": {"1": 0, nid: 0}})), Err(PartsError::BadNid), "{nid:?}");
        }
        let twice = of(&json!({"parts": {"7": 1, "8": 1, "07": 2}}));
        assert_eq!(twice, Err(PartsError::NamedTwice), "in two spellings");
        let eids = json!({"parts": {eid(1).to_string(): 0, "7": 0}});
        let read = Parts::read(&campaign(wire, wire.value(&eids)), NidScheme::Eid);
        assert_eq!(read.map(|_| ()), Err(PartsError::BadNid));
    }
    for body in [
        r#"{"parts":{"1":0},"parts":{"2":0}}"#,
        r#"{"parts":{"1":0},"common":0,"common":0}"#,
        r#"{"parts":{"1":0},"p\u0061rts":{"1":0}}"#,
    ] {
        let read = decimal(&campaign(Wire::Json, body.into())).map(|_| ());
        assert_eq!(read, Err(PartsError::Unreadable), "{body}");
    }
    let read = decimal(&campaign(Wire::Json, r#"{"parts":{"1":0,"1":1}}"#.into()));
    assert_eq!(read.map(|_| ()), Err(PartsError::NamedTwice));
    for none in ["", "{}", "\u{A1}", "{\"body\":{\"parts\":{\"1\":0}}"] {
        assert_eq!(decimal(&none.into()).map(|_| ()), Err(PartsError::Unreadable), "{none:?}");
    }
}

#[test]
fn cbor_names_devices_in_every_spelling_of_a_nid() {
    let nid = eid(1);
    let digits = nid.to_string();
    let bcd = digits.as_bytes().chunks(2).map(|pair| (pair[0] - b'0') << 4 | (pair[1] - b'0'));
    let bignum = nid.get().to_be_bytes();
    for name in [
        wire::cbor(&json!(digits)),
        [&[0xC2, 0x50], &bignum[..]].concat(),
        [0x50].into_iter().chain(bcd).collect(),
    ] {
        let body = [&[0xA1, 0x65][..], b"parts", &[0xBF], &name, &[0x0A, 0xFF]].concat();
        let payload = campaign(Wire::CborIntegers, body);
        let parts = Parts::read(&payload, NidScheme::Eid).unwrap();
        assert_eq!(parts.nids(), [nid]);
        assert_eq!(parts.part_of(nid).unwrap(), [0x0A][..]);
    }
    let both = [&[0xA1, 0x65][..], b"parts", &[0xA2, 7, 0, 0x61, b'7', 0]].concat();
    let read = decimal(&campaign(Wire::CborTexts, both)).map(|_| ());
    assert_eq!(read, Err(PartsError::NamedTwice));
}

#[test]
fn names_of_errors_are_names_and_each_says_what_to_do() {
    for error in
        [PartsError::Unreadable, PartsError::BadNid, PartsError::NamedTwice, PartsError::Empty]
    {
        assert!(error.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        assert!(error.to_string().ends_with('.'), "{error}");
    }
}

#[test]
fn a_part_costs_24_bytes_and_its_letter_no_more_than_it_has() {
    let body: Value = (1..=10_000).map(|n: u32| (n.to_string(), json!("x"))).collect();
    let payload = campaign(Wire::Json, json!({"parts": body}).to_string().into());
    let parts = decimal(&payload).unwrap();
    assert_eq!(parts.nids().len(), 10_000);
    assert_eq!(size_of_val(&parts.nids()[0]) + size_of::<(u32, u32)>(), 24);
    assert!(parts.letter(Some(number(9_999))).unwrap().len() < 200);
}

/// Parts of which none is found in another, in the common part or in the envelope.
fn marked(at: usize, more: &Value) -> Value {
    json!({"mark": format!("<part {at} of its own>"), "more": more})
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn nobody_sees_anothers_part(
        more in proptest::collection::btree_map(1..=u128::MAX, any_value(), 1..8),
        common in proptest::option::of(any_value()),
        wire in proptest::sample::select(WIRES.to_vec()),
        pretty in any::<bool>(),
    ) {
        let own: BTreeMap<u128, Value> =
            more.iter().enumerate().map(|(at, (nid, value))| (*nid, marked(at, value))).collect();
        let parts: Value = own.iter().map(|(nid, part)| (nid.to_string(), part.clone())).collect();
        let mut body = json!({"parts": parts});
        if let Some(common) = &common {
            body["common"] = common.clone();
        }
        let body = if pretty && wire == Wire::Json {
            serde_json::to_vec_pretty(&body).unwrap()
        } else {
            wire.value(&body)
        };
        let payload = campaign(wire, body);
        let parts = decimal(&payload).unwrap();
        prop_assert!(parts.nids().iter().map(|nid| nid.get()).eq(own.keys().copied()));
        for (nid, part) in &own {
            let letter = parts.letter(Some(number(*nid))).unwrap();
            let mut expected = json!({"part": part});
            if let Some(common) = &common {
                expected["common"] = common.clone();
            }
            let body = wire::members(&wire::envelope(&letter).0["body"]);
            let values = wire::members(&wire.value(&expected));
            if wire == Wire::Json {
                let meant = |map: &BTreeMap<String, Vec<u8>>| -> Vec<Value> {
                    map.values().map(|raw| serde_json::from_slice(raw).unwrap()).collect()
                };
                prop_assert_eq!(meant(&body), meant(&values));
            } else {
                prop_assert_eq!(body, values);
            }
            for (at, other) in own.keys().enumerate() {
                let mark = format!("<part {at} of its own>");
                let there = letter.windows(mark.len()).any(|bytes| bytes == mark.as_bytes());
                prop_assert_eq!(there, other == nid);
            }
            prop_assert!(read(&letter, NidScheme::Decimal).is_ok());
        }
    }
}

#[test]
fn cut_or_bent_at_any_byte_nothing_panics_and_letters_stay_readable() {
    for wire in WIRES {
        let body = json!({"parts": {"7": ["a"], "5": {"b": "c"}}, "common": 1});
        let whole = campaign(wire, wire.value(&body));
        for at in 0..whole.len() {
            assert_eq!(decimal(&whole.slice(..at)).map(|_| ()), Err(PartsError::Unreadable));
            for bit in 0..8 {
                let mut bent = whole.to_vec();
                bent[at] ^= 1 << bit;
                let bent = Bytes::from(bent);
                let Ok(parts) = decimal(&bent) else { continue };
                let readable = read(&bent, NidScheme::Decimal).is_ok();
                let all = parts.nids().iter().map(|nid| Some(*nid)).chain([None]);
                for letter in all.filter_map(|nid| parts.letter(nid)) {
                    let again = read(&letter, NidScheme::Decimal).is_ok();
                    assert!(again || !readable, "{wire:?} byte {at} bit {bit}");
                }
            }
        }
    }
}
