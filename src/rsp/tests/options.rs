//! What an envelope may ask for besides its route.

use minicbor::Encoder;
use serde_json::{Value, json};

use super::wire::{WIRES, Wire};
use super::*;
use crate::rsp::envelope::{CAMPAIGN_BYTES_MAX, Options, Wave, raw_body, read};

fn with(wire: Wire, more: &[(&str, Vec<u8>)]) -> Bytes {
    let mut members: Vec<_> =
        [("nid", json!(1)), ("gid", json!(0)), ("type", json!("msg")), ("body", json!([]))]
            .map(|(name, value)| (name, wire.value(&value)))
            .into();
    // Before the body and behind it.
    members.splice(3..3, more.iter().cloned());
    wire.envelope(&members)
}

fn options(wire: Wire, name: &str, value: &Value) -> Result<Options, Refusal> {
    let payload = with(wire, &[(name, wire.value(value))]);
    read(&payload, NidScheme::Decimal).map(|head| head.options)
}

#[test]
fn each_wish_is_read_from_every_format() {
    let wave = |first, failures_max| Some(Wave { first, failures_max });
    let none = Options::default;
    for wire in WIRES {
        for (name, value, expected) in [
            ("parts", json!(true), Options { parts: true, ..none() }),
            ("parts", json!(false), none()),
            ("chunks", json!(true), Options { chunks: true, ..none() }),
            ("reinstate", json!(true), Options { reinstate: true, ..none() }),
            ("reinstate", json!(false), none()),
            ("src", json!({"a": [1]}), Options { has_src: true, ..none() }),
            ("src", Value::Null, Options { has_src: true, ..none() }),
            ("campaign", json!("é"), Options { campaign: Some("é".into()), ..none() }),
            ("wave", json!(1), Options { wave: wave(1, None), ..none() }),
            ("wave", json!(u32::MAX), Options { wave: wave(u32::MAX, None), ..none() }),
            ("wave", json!({"first": 9}), Options { wave: wave(9, None), ..none() }),
            ("elsewhere", json!({"parts": true, "wave": 0}), none()),
            ("chunk", json!(0), none()),
        ] {
            assert_eq!(options(wire, name, &value), Ok(expected), "{wire:?} {name} {value}");
        }
        for (ratio, permille) in [
            (json!(0), 0),
            (json!(1), 1000),
            (json!(0.05), 50),
            (json!(0.0004), 0),
            (json!(0.9995), 1000),
            (json!("0%"), 0),
            (json!("5%"), 50),
            (json!("2.5%"), 25),
            (json!("100%"), 1000),
            (json!("100.0%"), 1000),
            (json!("007%"), 70),
        ] {
            let value = json!({"first": 2, "failures_max": ratio});
            let expected = Options { wave: wave(2, Some(permille)), ..none() };
            assert_eq!(options(wire, "wave", &value), Ok(expected), "{wire:?} {value}");
        }
    }
}

#[test]
fn a_wish_that_cannot_be_read_is_no_wish_left_undone() {
    let long = "x".repeat(CAMPAIGN_BYTES_MAX + 1);
    let booleans = ["parts", "chunks", "reinstate"].iter().flat_map(|name| {
        [json!(null), json!(0), json!(1), json!("true"), json!([true]), json!({})]
            .map(|value| (*name, value))
    });
    let campaigns = [json!(""), json!(7), json!(null), json!(true), json!(["a"]), json!(long)];
    let waves = [
        json!(0),
        json!(-1),
        json!(1.5),
        json!(4_294_967_296_u64),
        json!("1"),
        json!(null),
        json!(true),
        json!([1]),
        json!({}),
        json!({"first": 0}),
        json!({"first": "1"}),
        json!({"first": null}),
        json!({"failures_max": 0.1}),
        json!({"first": 1, "last": 2}),
        json!({"first": 1, "failures_max": null}),
        json!({"first": 1, "failures_max": -0.1}),
        json!({"first": 1, "failures_max": 1.1}),
        json!({"first": 1, "failures_max": 5}),
        json!({"first": 1, "failures_max": true}),
        json!({"first": 1, "failures_max": "5"}),
        json!({"first": 1, "failures_max": "%"}),
        json!({"first": 1, "failures_max": ".5%"}),
        json!({"first": 1, "failures_max": "5.%"}),
        json!({"first": 1, "failures_max": "5.25%"}),
        json!({"first": 1, "failures_max": "101%"}),
        json!({"first": 1, "failures_max": "100.1%"}),
        json!({"first": 1, "failures_max": "-1%"}),
        json!({"first": 1, "failures_max": "5 %"}),
        json!({"first": 1, "failures_max": "0005%"}),
        json!({"first": 1, "failures_max": "99999999999999999999999999999999999999999%"}),
        json!({"first": 1, "failures_max": {}}),
    ];
    let wishes = booleans
        .chain(campaigns.map(|value| ("campaign", value)))
        .chain(waves.map(|value| ("wave", value)));
    for (name, value) in wishes {
        for wire in WIRES {
            let read = options(wire, name, &value);
            assert_eq!(read, Err(Refusal::UnreadableEnvelope), "{wire:?} {name} {value}");
        }
    }
    let longest = json!("x".repeat(CAMPAIGN_BYTES_MAX));
    assert!(WIRES.iter().all(|wire| options(*wire, "campaign", &longest).is_ok()));
}

#[test]
fn no_wish_is_named_twice() {
    for wire in WIRES {
        for (name, value) in [
            ("parts", json!(true)),
            ("chunks", json!(true)),
            ("reinstate", json!(true)),
            ("wave", json!(1)),
            ("campaign", json!("a")),
            ("src", json!("1")),
            ("chunk", json!(0)),
        ] {
            let member = (name, wire.value(&value));
            assert!(
                read(&with(wire, std::slice::from_ref(&member)), NidScheme::Decimal).is_ok(),
                "{name}"
            );
            let twice = with(wire, &[member.clone(), member]);
            let refused = Err(Refusal::UnreadableEnvelope);
            assert_eq!(read(&twice, NidScheme::Decimal), refused, "{wire:?} {name}");
        }
    }
    let text = r#"{"nid":1,"gid":0,"type":"msg","body":0,"wave":{"first":1,"first":2}}"#;
    assert!(read(text.as_bytes(), NidScheme::Decimal).is_err());
    let mut e = Encoder::new(Vec::new());
    e.map(2).unwrap().str("first").unwrap().u8(1).unwrap().str("first").unwrap().u8(2).unwrap();
    let twice = with(Wire::CborTexts, &[("wave", e.into_writer())]);
    assert!(read(&twice, NidScheme::Decimal).is_err());
    // The same name as a text and as an integer.
    let mut e = Encoder::new(Vec::new());
    e.str("parts").unwrap().bool(true).unwrap().u8(7).unwrap().bool(true).unwrap();
    let mut both = with(Wire::CborTexts, &[]).to_vec();
    both[0] += 2;
    both.extend(e.into_writer());
    assert!(read(&both, NidScheme::Decimal).is_err());
}

#[test]
fn cbor_says_ratios_in_every_width_and_waves_without_length() {
    let of = |ratio: &[u8]| {
        let wave = [&[0xBF, 0x65][..], b"first", &[0x18, 3, 0x6C], b"failures_max", ratio, &[0xFF]];
        let payload = with(Wire::CborIntegers, &[("wave", wave.concat())]);
        read(&payload, NidScheme::Decimal).map(|head| head.options.wave.unwrap())
    };
    let quarter = Ok(Wave { first: 3, failures_max: Some(250) });
    assert_eq!(of(&[0xF9, 0x34, 0x00]), quarter);
    assert_eq!(of(&[0xFA, 0x3E, 0x80, 0, 0]), quarter);
    assert_eq!(of(&[0xFB, 0x3F, 0xD0, 0, 0, 0, 0, 0, 0]), quarter);
    let zero = Ok(Wave { first: 3, failures_max: Some(0) });
    for ratio in [&[0xF9, 0x00, 0x01][..], &[0xF9, 0x80, 0x00], &[0x00], &[0x18, 0x00]] {
        assert_eq!(of(ratio), zero, "{ratio:02x?}");
    }
    for ratio in [
        &[0xF9, 0x7C, 0x00][..], // infinity
        &[0xF9, 0x7E, 0x00],     // no number
        &[0xF9, 0xBC, 0x00],     // -1
        &[0xF9, 0x3C, 0x01],     // a little more than 1
        &[0xFA, 0x7F, 0xC0, 0, 0],
        &[0xFB, 0x7F, 0xF0, 0, 0, 0, 0, 0, 0],
        &[0x02],
        &[0x20],
        &[0xF5],
        &[0xF6],
        &[0x41, 0],
        &[0x7F, 0x62, b'5', b'%', 0xFF],
    ] {
        assert_eq!(of(ratio), Err(Refusal::UnreadableEnvelope), "{ratio:02x?}");
    }
}

#[test]
fn a_raw_body_is_a_slice_of_the_payload() {
    let body = json!({"a": ["}", 1.5], "body": null});
    for wire in WIRES {
        let value = wire.value(&body);
        let payload = wire.envelope(&[
            ("x", wire.value(&json!({"body": 1}))),
            ("body", value.clone()),
            ("nid", wire.value(&json!(1))),
        ]);
        let raw = raw_body(&payload).unwrap();
        assert_eq!(raw, value, "{wire:?}");
        assert!(payload.as_ptr_range().contains(&raw.as_ptr()), "not copied");
    }
    let spaced = Bytes::from_static(b" {\n\"b\\u006fdy\" :\t[ 1 , 2 ] } ");
    assert_eq!(raw_body(&spaced).unwrap(), "[ 1 , 2 ]");
    for none in ["", "{}", "[]", r#"{"body":1,"body":2}"#, r#"{"body":1}x"#, "\u{A0}", "{"] {
        assert_eq!(raw_body(&Bytes::from_static(none.as_bytes())), None, "{none:?}");
    }
}
