//! Envelopes, whole and broken, in JSON and CBOR.

use minicbor::Encoder;
use minicbor::data::{Int, Tag};
use proptest::prelude::*;

use super::*;
use crate::rsp::envelope::{MAX_DEPTH, read};

const EID: &str = "89049032123451234512345678901235";

fn eid_read(payload: &[u8]) -> Result<Head, Refusal> {
    read(payload, NidScheme::Eid)
}

fn decimal_read(payload: impl AsRef<[u8]>) -> Result<Head, Refusal> {
    read(payload.as_ref(), NidScheme::Decimal)
}

fn head(nid: u128, gid: u64, kind: Kind) -> Head {
    let nid = Nid::new(nid, NidScheme::Decimal).ok();
    Head { nid, gid: Gid::new(gid), ..Head::new(kind) }
}

#[test]
fn json_in_every_allowed_spelling() {
    let nid: u128 = EID.parse().unwrap();
    let expected = head(nid, 0, Kind::Trigger);
    for text in [
        format!(r#"{{"nid":"{EID}","gid":0,"type":"trigger","body":null}}"#),
        format!(r#"{{"nid":{EID},"gid":"0","type":"trigger","body":{{"a":[1,"}}"]}}}}"#),
        format!("\r\n {{\"body\" : \"x\" ,\t\"type\":\"trigger\",\"gid\":0 , \"nid\": {EID} }} \n"),
        format!(r#"{{"nid":"{EID}","gid":0,"type":"trigg\u0065r","body":1.5e3,"by":7}}"#),
        format!(r#"{{"n\u0069d":"{EID}","gid":0,"type":"trigger","body":false,"x":1,"x":2}}"#),
    ] {
        assert_eq!(eid_read(text.as_bytes()), Ok(expected.clone()), "{text}");
    }
}

#[test]
fn every_type_and_no_other() {
    let x = Nid::new(7, NidScheme::Decimal).unwrap();
    let of = |kind: &str| decimal_read(format!(r#"{{"nid":1,"gid":0,"type":"{kind}","body":0}}"#));
    for (text, kind) in [
        ("trigger", Kind::Trigger),
        ("msg", Kind::Msg),
        ("ret(trigger)", Kind::RetTrigger),
        ("ret(msg)", Kind::RetMsg),
        ("req(7)", Kind::Req(x)),
        ("profile(7)", Kind::Profile(x)),
    ] {
        assert_eq!(of(text), Ok(head(1, 0, kind)), "{text}");
    }
    for text in [
        "",
        "Trigger",
        "trigger ",
        "ret()",
        "ret(req)",
        "req",
        "req()",
        "req(x)",
        "req(7",
        "req 7)",
        "req(-7)",
        "req(+7)",
        "req( 7)",
        "req(7))",
        "profile((7)",
        "profile",
        "foo(7)",
        "ret(msg",
    ] {
        assert_eq!(of(text), Err(Refusal::UnknownType), "{text:?}");
    }
    assert_eq!(of("req(0)"), Err(Refusal::BadEid));
    let text = format!(r#"{{"nid":"{EID}","gid":1,"type":"req(7)","body":0}}"#);
    assert_eq!(eid_read(text.as_bytes()), Err(Refusal::BadEid));
}

#[test]
fn bad_numbers_have_their_own_names() {
    let of = |nid: &str, gid: &str| {
        let text = format!(r#"{{"nid":{nid},"gid":{gid},"type":"msg","body":0}}"#);
        (read(text.as_bytes(), NidScheme::Eid), decimal_read(text))
    };
    for nid in ["\"89049032123451234512345678901236\"", "5"] {
        let (eid, decimal) = of(nid, "0");
        assert_eq!(eid, Err(Refusal::BadEid), "{nid}");
        assert!(decimal.is_ok(), "{nid}");
    }
    for nid in ["340282366920938463463374607431768211456", "\"x\"", "\"\"", "\"-1\"", "\" 1\""] {
        assert_eq!(of(nid, "0").1, Err(Refusal::BadEid), "{nid}");
    }
    assert_eq!(
        of("340282366920938463463374607431768211455", "0").1.unwrap().nid.unwrap().get(),
        u128::MAX
    );
    for nid in ["-1", "1.0", "1e3", "01", "null", "true", "[1]", "{}", "\"\\ud800\""] {
        assert_eq!(of(nid, "0").1, Err(Refusal::UnreadableEnvelope), "{nid}");
    }
    for gid in ["-1", "1.0", "1e3", "01", "null", "\"\"", "\"x\"", "[]"] {
        assert_eq!(of("1", gid).1, Err(Refusal::UnreadableEnvelope), "{gid}");
    }
    assert_eq!(of("1", "18446744073709551616").1, Err(Refusal::UnknownGid));
    assert_eq!(of("0", "18446744073709551615").1.unwrap().gid.unwrap().get(), u64::MAX);
}

#[test]
fn tid_and_rc() {
    let of = |more: &str| {
        let text = format!(r#"{{"nid":1,"gid":0,"type":"ret(msg)","body":0,{more}}}"#);
        decimal_read(text).map(|head| (head.tid, head.rc))
    };
    let text_tid = |text: &str| Some(Tid::Text(text.into()));
    assert_eq!(of(r#""tid":7,"rc":-3"#), Ok((Some(Tid::Number(7)), Some(-3))));
    assert_eq!(of(r#""tid":"a\nb""#), Ok((text_tid("a\nb"), None)));
    let long = "x".repeat(64);
    assert_eq!(of(&format!(r#""tid":"{long}""#)), Ok((text_tid(&long), None)));
    for more in [
        format!(r#""tid":"{long}x""#),
        r#""tid":1.5"#.into(),
        r#""tid":null"#.into(),
        r#""tid":{}"#.into(),
        r#""rc":"0""#.into(),
        r#""rc":1e2"#.into(),
        r#""rc":9223372036854775808"#.into(),
        r#""tid":1,"tid":1"#.into(),
        r#""rc":1,"rc":1"#.into(),
    ] {
        assert_eq!(of(&more), Err(Refusal::UnreadableEnvelope), "{more}");
    }
}

#[test]
fn what_is_no_envelope() {
    let whole = r#"{"nid":1,"gid":0,"type":"msg","body":0}"#;
    assert!(decimal_read(whole).is_ok());
    for text in [
        "",
        " ",
        "{}",
        "[]",
        "null",
        "1",
        "\"x\"",
        "\u{FEFF}{}",
        r#"{"gid":0,"type":"msg","body":0}"#,
        r#"{"nid":1,"type":"msg","body":0}"#,
        r#"{"nid":1,"gid":0,"body":0}"#,
        r#"{"nid":1,"gid":0,"type":"msg"}"#,
        r#"{"nid":1,"gid":0,"type":null,"body":0}"#,
        r#"{"nid":1,"gid":0,"type":7,"body":0}"#,
        r#"{"nid":1,"gid":0,"type":"msg","body":0,}"#,
        r#"{"nid":1,"gid":0,"type":"msg","body":}"#,
        r#"{"nid":1,"gid":0,"type":"msg","body":[1,]}"#,
        r#"{"nid":1,"gid":0,"type":"msg","body":tru}"#,
        r#"{"nid":1,"gid":0,"type":"msg","body":"\x"}"#,
        "{\"nid\":1,\"gid\":0,\"type\":\"msg\",\"body\":\"\n\"}",
    ] {
        assert_eq!(decimal_read(text), Err(Refusal::UnreadableEnvelope), "{text}");
    }
    for tail in ["x", "{}", ",", "\0"] {
        assert_eq!(decimal_read(format!("{whole}{tail}")), Err(Refusal::UnreadableEnvelope));
    }
    let mut broken = whole.as_bytes().to_vec();
    broken.splice(whole.len() - 2..whole.len() - 1, *b"\"\xFF\"");
    assert_eq!(decimal_read(&broken), Err(Refusal::UnreadableEnvelope), "no UTF-8");
}

#[test]
fn nobody_is_named_twice() {
    for member in [r#""nid":2"#, r#""n\u0069d":2"#, r#""gid":0"#, r#""type":"msg""#, r#""body":0"#]
    {
        let text = format!(r#"{{"nid":1,"gid":0,"type":"msg","body":0,{member}}}"#);
        assert_eq!(decimal_read(&text), Err(Refusal::UnreadableEnvelope), "{text}");
    }
}

#[test]
fn depth_is_bounded_alike_in_both_formats() {
    for (levels, fits) in [(MAX_DEPTH - 1, true), (MAX_DEPTH, false), (100_000, false)] {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let body = format!("{}1{}", open.repeat(levels), close.repeat(levels));
            for name in ["body", "other"] {
                let text = format!(r#"{{"{name}":{body},"nid":1,"gid":0,"type":"msg""#)
                    + if name == "body" { "}" } else { r#","body":0}"# };
                assert_eq!(decimal_read(&text).is_ok(), fits, "{levels} of {open} in {name}");
            }
        }
        for container in [&[0x81][..], &[0x9F], &[0xA1, 0x00], &[0xC1]] {
            let mut bytes = cbor(&Sample { body: false, ..Sample::default() }, false);
            bytes[0] += 1;
            bytes.push(0x04);
            (0..levels).for_each(|_| bytes.extend(container));
            bytes.push(0x01);
            if container == [0x9F] {
                bytes.extend(std::iter::repeat_n(0xFF, levels));
            }
            assert_eq!(decimal_read(&bytes).is_ok(), fits, "{levels} of {container:?}");
        }
    }
}

/// Content for both formats.
#[derive(Clone, Debug)]
struct Sample {
    nid: u128,
    gid: u64,
    kind: String,
    tid: Option<Tid>,
    rc: Option<i64>,
    body: bool,
}

impl Default for Sample {
    fn default() -> Self {
        Self { nid: 1, gid: 0, kind: "msg".into(), tid: None, rc: None, body: true }
    }
}

fn json(sample: &Sample) -> Vec<u8> {
    let mut text =
        format!(r#"{{"nid":{},"gid":{},"type":{:?}"#, sample.nid, sample.gid, sample.kind);
    match &sample.tid {
        Some(Tid::Number(number)) => text += &format!(r#","tid":{number}"#),
        Some(Tid::Text(tid)) => text += &format!(r#","tid":{}"#, serde_json::json!(tid)),
        None => {}
    }
    if let Some(rc) = sample.rc {
        text += &format!(r#","rc":{rc}"#);
    }
    if sample.body {
        text += r#","body":"00""#;
    }
    (text + "}").into_bytes()
}

fn cbor(sample: &Sample, text_keys: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut e = Encoder::new(&mut bytes);
    let key = |e: &mut Encoder<&mut Vec<u8>>, at: usize| {
        if text_keys {
            e.str(["", "nid", "gid", "type", "body", "tid", "rc"][at]).unwrap();
        } else {
            e.u8(u8::try_from(at).unwrap()).unwrap();
        }
    };
    let optional = [sample.body, sample.tid.is_some(), sample.rc.is_some()];
    e.map(3 + optional.iter().filter(|there| **there).count() as u64).unwrap();
    key(&mut e, 1);
    match u64::try_from(sample.nid) {
        Ok(small) => e.u64(small).unwrap(),
        Err(_) => e.tag(Tag::new(2)).unwrap().bytes(&sample.nid.to_be_bytes()).unwrap(),
    };
    key(&mut e, 2);
    e.u64(sample.gid).unwrap();
    key(&mut e, 3);
    e.str(&sample.kind).unwrap();
    if let Some(tid) = &sample.tid {
        key(&mut e, 5);
        match tid {
            Tid::Number(number) => e.int(Int::try_from(*number).unwrap()).unwrap(),
            Tid::Text(text) => e.str(text).unwrap(),
        };
    }
    if let Some(rc) = sample.rc {
        key(&mut e, 6);
        e.i64(rc).unwrap();
    }
    if sample.body {
        key(&mut e, 4);
        e.bytes(&[0]).unwrap();
    }
    bytes
}

fn samples() -> impl Strategy<Value = Sample> {
    let kind = prop_oneof![
        Just("trigger".to_owned()),
        Just("ret(msg)".to_owned()),
        any::<u128>().prop_map(|x| format!("req({x})")),
        "[a-z()0-9]{0,12}",
    ];
    let tid = prop_oneof![
        any::<i64>().prop_map(|n| Tid::Number(n.into())),
        ".{0,40}".prop_map(|text| Tid::Text(text.into())),
    ];
    let nid = prop_oneof![any::<u128>(), 0..3_u128, any::<u64>().prop_map(u128::from)];
    (nid, any::<u64>(), kind, proptest::option::of(tid), any::<Option<i64>>())
        .prop_map(|(nid, gid, kind, tid, rc)| Sample { nid, gid, kind, tid, rc, body: true })
}

proptest! {
    #[test]
    fn json_and_cbor_agree(sample in samples()) {
        let expected = decimal_read(json(&sample));
        prop_assert_eq!(&decimal_read(cbor(&sample, true)), &expected);
        prop_assert_eq!(&decimal_read(cbor(&sample, false)), &expected);
    }

    #[test]
    fn noise_never_panics(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..80),
        first in 0..4_usize,
    ) {
        if let Some(byte) = bytes.first_mut() {
            *byte = [b'{', 0xA4, 0xBF, *byte][first];
        }
        let _ = decimal_read(&bytes);
    }
}

#[test]
fn broken_at_every_offset() {
    let sample = Sample {
        nid: EID.parse().unwrap(),
        gid: 42,
        kind: format!("req({EID})"),
        tid: Some(Tid::Text("täg".into())),
        rc: Some(-1000),
        body: true,
    };
    for whole in [json(&sample), cbor(&sample, true), cbor(&sample, false)] {
        assert!(eid_read(&whole).is_ok());
        for at in 0..whole.len() {
            assert_eq!(eid_read(&whole[..at]), Err(Refusal::UnreadableEnvelope), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                let _ = eid_read(&flipped);
            }
        }
    }
}

#[test]
fn cbor_in_every_allowed_spelling() {
    let nid: u128 = EID.parse().unwrap();
    let mut bcd = vec![0x50];
    bcd.extend(EID.as_bytes().chunks(2).map(|pair| (pair[0] - b'0') << 4 | (pair[1] - b'0')));
    let mut text = vec![0x78, 32];
    text.extend(EID.bytes());
    let mut bignum = vec![0xC2, 0x50];
    bignum.extend(nid.to_be_bytes());
    let mut padded = vec![0xC2, 0x58, 20, 0, 0, 0, 0];
    padded.extend(nid.to_be_bytes());
    for number in [bcd, text, bignum, padded] {
        for (start, end) in [(&[0xA4][..], &[][..]), (&[0xBF], &[0xFF]), (&[0xB8, 4], &[])] {
            let mut bytes = start.to_vec();
            bytes.extend([0x04, 0x9F, 0x5F, 0x41, 0x00, 0xFF, 0xF9, 0x3C, 0x00, 0xFF]);
            bytes.extend([0x63, b'n', b'i', b'd']);
            bytes.extend(&number);
            bytes.extend([0x18, 0x02, 0x1B, 0, 0, 0, 0, 0, 0, 0, 0]);
            bytes.extend([0x03, 0x63, b'm', b's', b'g']);
            bytes.extend(end);
            assert_eq!(eid_read(&bytes), Ok(head(nid, 0, Kind::Msg)), "{bytes:02x?}");
        }
    }
}

#[test]
fn cbor_that_is_none() {
    // nid 1, gid 0, type "m…", body: each with something wrong in it.
    let with = |nid: &[u8], body: &[u8], more: &[u8]| {
        let count = 0xA4 + u8::from(!more.is_empty());
        let bytes = [&[count, 1][..], nid, &[2, 0, 3, 0x63], b"msg", &[4], body, more].concat();
        decimal_read(bytes)
    };
    assert!(with(&[1], &[0], &[]).is_ok());
    assert!(with(&[1], &[0], &[0x20, 0]).is_ok(), "a negative key is unknown");
    let unreadable = Err(Refusal::UnreadableEnvelope);
    for body in [
        &[0x1C][..],
        &[0x1D],
        &[0x1E],
        &[0x1F],
        &[0x3F],
        &[0xDF, 0],
        &[0xFF],
        &[0xF8, 0x18],
        &[0xFC],
        &[0x61, 0xFF],
        &[0x62, 0xC3],
        &[0x5F, 0x61, b'a', 0xFF],
        &[0x5F, 0x5F, 0xFF, 0xFF],
        &[0x7F, 0x41, 0, 0xFF],
        &[0x7F, 0x61, 0xC3, 0x61, 0xA9, 0xFF],
        &[0x9F],
        &[0xBF, 0, 0xFF],
        &[0x5B, 255, 255, 255, 255, 255, 255, 255, 255],
        &[0x9B, 255, 255, 255, 255, 255, 255, 255, 255],
        &[0xBB, 255, 255, 255, 255, 255, 255, 255, 255],
        &[0, 0],
    ] {
        assert_eq!(with(&[1], body, &[]), unreadable, "{body:02x?}");
    }
    for more in [
        &[1, 1][..],
        &[0x63, b'n', b'i', b'd', 1],
        &[0x18, 1, 1],
        &[0x7F, 0x63, b'n', b'i', b'd', 0xFF, 1],
        &[5, 0xF6],
        &[5, 0xF9, 0, 0],
        &[6, 0x61, b'0'],
        &[6, 0x3B, 255, 255, 255, 255, 255, 255, 255, 255],
    ] {
        assert_eq!(with(&[1], &[0], more), unreadable, "{more:02x?}");
    }
    for nid in
        [&[0x20][..], &[0xF6], &[0xC3, 0x41, 1], &[0xC2, 1], &[0x7F, 0x61, b'1', 0xFF], &[0x80]]
    {
        assert_eq!(with(nid, &[0], &[]), unreadable, "{nid:02x?}");
    }
    let mut hex = vec![0x50];
    hex.extend([0x1A; 16]);
    for nid in [&hex[..], &[0x41, 1], &[0x61, b'x'], &[0x60]] {
        assert_eq!(with(nid, &[0], &[]), Err(Refusal::BadEid), "{nid:02x?}");
    }
    assert_eq!(decimal_read([0xA0]), unreadable);
    assert_eq!(decimal_read([0xD9, 0xD9, 0xF7, 0xA0]), unreadable);
}
