//! Where in an envelope the notification stands, and where it does not.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use minicbor::Encoder;
use serde_json::{Value, json};
use simcast::client::envelope::{Body as Sent, Envelope, Kind, Wire};
use simcast::client::payload::{EuiccCa, sample_eid};
use simcast::rsp::proof::{
    Body, PROOF_BYTES_MAX, ProofError, TrustedIssuers, body, check, extract,
};

use super::{Genuine, ICCID, NOW};

const NOTIFICATION: &[u8] = &[0x30, 0x03, 0xfb, 0xff, 0xbf];
/// Its base64, with both of the letters that differ between alphabets.
const BASE64: &str = "MAP7/78=";

fn e2(body: impl Into<Sent>, wire: Wire) -> Vec<u8> {
    let kind = Kind::Profile(sample_eid(7).get());
    Envelope::new(sample_eid(8).get(), 42, kind).with_body(body).encode(wire)
}

fn found(payload: &[u8]) -> Result<Vec<u8>, ProofError> {
    extract(body(payload).unwrap()).map(std::borrow::Cow::into_owned)
}

fn in_json(text: &str) -> Result<Vec<u8>, ProofError> {
    extract(Body::Json(text)).map(std::borrow::Cow::into_owned)
}

fn in_cbor(write: impl FnOnce(&mut Encoder<Vec<u8>>)) -> Result<Vec<u8>, ProofError> {
    let mut out = Encoder::new(Vec::new());
    write(&mut out);
    extract(Body::Cbor(&out.into_writer())).map(std::borrow::Cow::into_owned)
}

#[test]
fn an_envelope_proves_a_deletion_in_each_of_its_forms() {
    let Genuine { eid, notification, issuers } = Genuine::new();
    let text = STANDARD.encode(&notification);
    let object = json!({"activationCode": "LPA:1$smdp.example$X", "pendingNotification": text});
    let mut map = Encoder::new(Vec::new());
    map.map(2).unwrap().str("activationCode").unwrap().str("LPA:1$smdp.example$X").unwrap();
    map.str("pendingNotification").unwrap().bytes(&notification).unwrap();
    for payload in [
        e2(Value::from(text), Wire::Json),
        e2(object, Wire::Json),
        e2(Sent::Bytes(notification.clone()), Wire::Cbor),
        cbor_e2(&map.into_writer()),
    ] {
        assert_eq!(found(&payload).as_ref(), Ok(&notification));
        let deletion = check(&payload, eid, &issuers, NOW).unwrap();
        assert_eq!((deletion.seq_number, deletion.iccid.unwrap().0), (300, ICCID));
        let nobody = TrustedIssuers::default();
        assert_eq!(check(&payload, eid, &nobody, NOW), Err(ProofError::UnknownCi));
        assert_eq!(check(&payload, sample_eid(8), &issuers, NOW), Err(ProofError::WrongEid));
    }
}

/// An envelope with integer keys, 4 being the body, which is not the last.
fn cbor_e2(body: &[u8]) -> Vec<u8> {
    let mut payload = vec![0xa4, 0x04];
    payload.extend_from_slice(body);
    payload.extend([0x01, 0x18, 0x2a, 0x02, 0x18, 0x2a, 0x03, 0x63, b'm', b's', b'g']);
    payload
}

#[test]
fn the_body_is_what_the_envelope_has_under_that_name() {
    let text = r#" {"x":{"body":1},"body" : [ "a\"}" ,{}], "nid":1,"gid":0,"type":"msg"} "#;
    assert_eq!(body(text.as_bytes()), Some(Body::Json(r#"[ "a\"}" ,{}]"#)));
    for item in [&[0xf6][..], &[0x9f, 0x01, 0xff], &[0x5f, 0x41, 0x00, 0xff], &[0xc2, 0x41, 7]] {
        assert_eq!(body(&cbor_e2(item)), Some(Body::Cbor(item)), "{item:x?}");
    }
    let streamed = [&[0xbf, 0x64][..], b"body", &[0x42, 1, 2, 0x61, b'x', 0, 0xff]].concat();
    assert_eq!(body(&streamed), Some(Body::Cbor(&[0x42, 1, 2])));
    for without in
        [&b""[..], b"{}", b"{", b"[]", b"{\"body\":1}x", &[0xa0], &[0xa1, 4], &[0xa1, 4, 0, 0]]
    {
        assert_eq!(body(without), None, "{without:x?}");
    }
    assert_eq!(body(b"{\"body\":1,\"body\":2}"), None, "twice");
    assert_eq!(body(&[0xa2, 4, 0, 4, 0]), None, "twice");
    assert_eq!(
        check(b"{}", sample_eid(7), &TrustedIssuers::default(), NOW),
        Err(ProofError::Missing)
    );
}

#[test]
fn json_has_it_as_a_text_or_once_as_a_member() {
    let found = Ok(NOTIFICATION.to_vec());
    for text in [
        r#""MAP7/78=""#,
        r#""MAP7\/78\u003d""#,
        r#"{"pendingNotification":"MAP7/78="}"#,
        r#"{"a":{"pendingNotification":"AAAA"},"pendingNotificatio\u006e" : "MAP7/78=", "a":[]}"#,
    ] {
        assert_eq!(in_json(text), found, "{text}");
    }
    for text in [
        "null",
        "1",
        r#"["MAP7/78="]"#,
        "{}",
        r#"{"pendingNotification":null}"#,
        r#"{"pendingNotification":[77]}"#,
        r#"{"PendingNotification":"MAP7/78="}"#,
        r#"{"body":{"pendingNotification":"MAP7/78="}}"#,
        r#"{"pendingNotification":"MAP7/78=","pendingNotification":"MAP7/78="}"#,
    ] {
        assert_eq!(in_json(text), Err(ProofError::Missing), "{text}");
    }
}

#[test]
fn base64_has_one_form() {
    assert_eq!(STANDARD.encode(NOTIFICATION), BASE64);
    for text in [
        STANDARD_NO_PAD.encode(NOTIFICATION),
        URL_SAFE.encode(NOTIFICATION),
        format!("{BASE64}="),
        format!(" {BASE64}"),
        format!("{BASE64}\\n"),
        format!("{}\\r\\n{}", &BASE64[..4], &BASE64[4..]),
        "MAP7/79=".to_owned(), // bits that count for nothing
        "MAP7/7".to_owned(),
        "é".to_owned(),
        "300300fb".to_owned() + "-", // hexadecimal is not meant, and cannot be told apart
    ] {
        assert_eq!(in_json(&format!("\"{text}\"")), Err(ProofError::NotBase64), "{text:?}");
    }
}

/// minicbor gives itself back.
fn ignore(_out: &mut Encoder<Vec<u8>>) {}

#[test]
fn cbor_has_it_as_bytes_or_once_as_a_member() {
    let found = Ok(NOTIFICATION.to_vec());
    assert_eq!(in_cbor(|out| ignore(out.bytes(NOTIFICATION).unwrap())), found);
    assert_eq!(
        in_cbor(|out| {
            out.begin_map().unwrap().u8(1).unwrap().array(1).unwrap().null().unwrap();
            out.str("a").unwrap().bytes(&[1]).unwrap();
            out.str("pendingNotification").unwrap().bytes(NOTIFICATION).unwrap();
            out.bytes(b"pendingNotification").unwrap().u8(0).unwrap().end().unwrap();
        }),
        found
    );
    let missing = Err(ProofError::Missing);
    assert_eq!(in_cbor(|out| ignore(out.null().unwrap())), missing);
    assert_eq!(in_cbor(|out| ignore(out.str(BASE64).unwrap())), missing);
    assert_eq!(in_cbor(|out| ignore(out.array(1).unwrap().bytes(NOTIFICATION).unwrap())), missing);
    assert_eq!(in_cbor(|out| ignore(out.map(0).unwrap())), missing);
    let member = |times: u64| {
        in_cbor(|out| {
            out.map(times).unwrap();
            for _ in 0..times {
                out.str("pendingNotification").unwrap().bytes(NOTIFICATION).unwrap();
            }
        })
    };
    assert_eq!((member(1), member(2)), (found, missing.clone()));
    let followed = |out: &mut Encoder<Vec<u8>>| {
        out.map(1).unwrap().str("pendingNotification").unwrap().bytes(NOTIFICATION).unwrap();
        out.null().unwrap();
    };
    assert_eq!(in_cbor(followed), missing);
    let text = |out: &mut Encoder<Vec<u8>>| {
        out.map(1).unwrap().str("pendingNotification").unwrap().str(BASE64).unwrap();
    };
    assert_eq!(in_cbor(text), missing);
    for broken in [
        &[][..],
        &[0x42, 0x30],                      // cut
        &[0x41, 0x30, 0x00],                // something behind it
        &[0x5f, 0x41, 0x30, 0xff],          // bytes in pieces
        &[0xa1],                            // a member that is not there
        &[0xa1, 0x7f, 0x61, b'p', 0xff, 0], // a name in pieces
    ] {
        let judged = extract(Body::Cbor(broken));
        assert_eq!(judged, Err(ProofError::Missing), "{broken:x?}");
    }
}

#[test]
fn size_is_bounded_before_anything_is_decoded() {
    let text = |bytes: usize| format!("\"{}\"", STANDARD.encode(vec![0; bytes]));
    assert_eq!(in_json(&text(PROOF_BYTES_MAX)).unwrap().len(), PROOF_BYTES_MAX);
    assert_eq!(in_json(&text(PROOF_BYTES_MAX + 3)), Err(ProofError::TooLarge));
    let genuine = Genuine::new();
    for bytes in [PROOF_BYTES_MAX + 1, PROOF_BYTES_MAX + 3] {
        for payload in [
            e2(Value::from(STANDARD.encode(vec![0; bytes])), Wire::Json),
            e2(Sent::Bytes(vec![0; bytes]), Wire::Cbor),
        ] {
            let judged = check(&payload, genuine.eid, &genuine.issuers, NOW);
            assert_eq!(judged, Err(ProofError::TooLarge));
        }
    }
}

#[test]
fn a_notification_of_usual_size_is_small() {
    let ca = EuiccCa::new(NOW).unwrap();
    let bytes = ca.euicc(sample_eid(1)).unwrap().delete_notification(u64::MAX, Some(ICCID));
    let bytes = bytes.unwrap().len();
    assert!((1_000..1_500).contains(&bytes), "{bytes}");
}
