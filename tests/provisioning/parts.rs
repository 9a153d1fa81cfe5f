//! Parts (section 6): one publish that carries something else for each member. Each gets what is
//! common and what is its own, and nobody sees another's.

use minicbor::Encoder;
use serde_json::json;
use simcast::client::envelope::{Envelope, Kind, Tid, Wire};
use simcast::mqtt::{QoS, Version};
use simcast::rsp::DeviceState::{Delivered, Ok as Done, Queued};
use simcast::rsp::{Flow, GroupSettings};

use crate::common::{Dial, TO_EUICC, TO_SM_SR, envelope, envelope_with, gid, nid};
use crate::stage::{A, B, C, D, E, GROUP_7, SERVER, Stage, VERSIONS};

const ONE: QoS = QoS::AtLeastOnce;

/// A C1 in parts to group 7: what is common, if anything is, and who gets which part.
fn in_parts(common: Option<&str>, parts: &[(u128, &str)]) -> String {
    let each = parts.iter().map(|(device, part)| format!(r#""{}":{part}"#, nid(*device)));
    let each: Vec<String> = each.collect();
    let common = common.map(|common| format!(r#","common":{common}"#)).unwrap_or_default();
    let body = format!(r#"{{"parts":{{{}}}{common}}}"#, each.join(","));
    envelope_with(0, 7, "msg", &format!(r#""parts":true,"body":{body}"#))
}

/// What one member gets of it.
fn letter(body: &str) -> String {
    envelope_with(0, 7, "msg", &format!(r#""body":{body}"#))
}

#[tokio::test]
async fn each_member_gets_what_is_common_and_its_own() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        let parts = [(1, r#""for a""#), (2, r#"{"for":["b"]}"#), (5, "17")];
        stage.tell(SERVER, TO_EUICC, in_parts(Some(r#"{"all":1}"#), &parts)).await;
        let expected = [
            (A, letter(r#"{"common":{"all":1},"part":"for a"}"#)),
            (B, letter(r#"{"common":{"all":1},"part":{"for":["b"]}}"#)),
            // Who has no part has what is common.
            (C, letter(r#"{"common":{"all":1}}"#)),
            (E, letter(r#"{"common":{"all":1},"part":17}"#)),
        ];
        stage.each_receives(&expected).await;
        for member in [A, B, C, E] {
            stage.step(member, &envelope(0, 7, "ret(msg)"), &[SERVER]).await;
        }
        assert_eq!(stage.states(stage.newest()), [Done; 4]);
    }
}

#[tokio::test]
async fn where_nothing_is_common_those_without_a_part_get_nothing() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.tell(SERVER, TO_EUICC, in_parts(None, &[(3, "3"), (1, "1")])).await;
        let expected = [(A, letter(r#"{"part":1}"#)), (C, letter(r#"{"part":3}"#))];
        stage.each_receives(&expected).await;
        assert_eq!(stage.states(stage.newest()), [Delivered; 2]);
        // Who was not addressed has nothing to answer.
        stage.refused(B, TO_SM_SR, envelope(0, 7, "ret(msg)"), "unsolicited_answer").await;
        stage.step(C, &envelope(0, 7, "ret(msg)"), &[SERVER]).await;
    }
}

#[tokio::test]
async fn what_is_for_nobody_there_is_refused_as_a_whole() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        for stranger in [4, 6, 50, 99] {
            let payload = in_parts(Some("1"), &[(1, "1"), (stranger, "2")]);
            stage.refused(SERVER, TO_EUICC, payload, "foreign_part").await;
        }
        // Membership is that of the moment.
        let broker = stage.rig.service.broker();
        broker.with_control(|control| control.put_device(nid(4), &[gid(7)], "")).unwrap();
        stage.tell(SERVER, TO_EUICC, in_parts(None, &[(4, "4")])).await;
        stage.each_receives(&[(D, letter(r#"{"part":4}"#))]).await;
    }
}

#[tokio::test]
async fn cbor_is_cut_like_json() {
    let mut stage = Stage::start(Version::V5).await;
    // The names of the parts in three spellings: BCD, a large number, digits.
    let mut out = Encoder::new(Vec::new());
    out.map(6).unwrap().u8(1).unwrap().u8(0).unwrap().u8(2).unwrap().u8(7).unwrap();
    out.u8(3).unwrap().str("msg").unwrap().u8(7).unwrap().bool(true).unwrap();
    out.u8(5).unwrap().str("t").unwrap();
    out.u8(4).unwrap().map(2).unwrap().str("parts").unwrap().map(2).unwrap();
    let digits = nid(1).to_string();
    let bcd: Vec<u8> =
        digits.as_bytes().chunks(2).map(|p| (p[0] - 48) << 4 | (p[1] - 48)).collect();
    out.bytes(&bcd).unwrap().str("for a").unwrap();
    out.str(&nid(2).to_string()).unwrap().array(2).unwrap().u8(1).unwrap().u8(2).unwrap();
    out.str("common").unwrap().map(1).unwrap().str("all").unwrap().u8(1).unwrap();
    let payload = out.into_writer();
    stage.tell(SERVER, TO_EUICC, &payload).await;
    let expected = [
        (A, json!({"common": {"all": 1}, "part": "for a"})),
        (B, json!({"common": {"all": 1}, "part": [1, 2]})),
        (C, json!({"common": {"all": 1}})),
        (E, json!({"common": {"all": 1}})),
    ];
    for (member, body) in expected {
        let publish = stage.client(member).expect_publish().await;
        assert_eq!(publish.payload[0] >> 5, 5, "a map of CBOR");
        let text = String::from_utf8_lossy(&publish.payload).into_owned();
        assert_eq!(text.contains("for a"), member == A, "nobody gets a byte of another's");
        let envelope = Envelope::decode(&publish.payload).unwrap();
        assert_eq!((envelope.nid, envelope.gid, envelope.kind), (0, 7, Kind::Msg));
        assert_eq!(envelope.body, body.into());
    }
    for member in GROUP_7 {
        let tid = Some(Tid::Text("t".to_owned()));
        let answer = Envelope::new(0, 7, Kind::RetMsg).with_tid(tid).encode(Wire::Cbor);
        stage.tell(member, TO_SM_SR, &answer).await;
        stage.reaches(&[SERVER], &answer).await;
    }
}

#[tokio::test]
async fn a_part_waits_for_its_device_and_for_its_agreement() {
    let mut stage = Stage::start(Version::V5).await;
    stage.set_group(7, GroupSettings { flow: Some(Flow::Strict), ..GroupSettings::default() });
    stage.step(SERVER, &envelope(0, 7, "trigger"), &[A, B, C, E]).await;
    stage.step(A, &envelope(0, 7, "ret(trigger)"), &[SERVER]).await;
    stage.take(A).disconnect().await;
    let both = in_parts(None, &[(1, r#""for a""#), (2, r#""for b""#)]);
    stage.step(SERVER, &both, &[]).await;
    assert_eq!(stage.states(stage.newest()), [Queued; 2]);
    let mut back = stage.rig.reader(1, Dial::v311("back")).await;
    assert_eq!(back.expect_payload().await, letter(r#"{"part":"for a"}"#));
    back.expect_nothing().await;
    stage.tell(B, TO_SM_SR, envelope(0, 7, "ret(trigger)")).await;
    let answer = envelope(0, 7, "ret(trigger)");
    stage.each_receives(&[(B, letter(r#"{"part":"for b"}"#)), (SERVER, answer)]).await;
}

#[tokio::test]
async fn who_leaves_the_group_keeps_its_part_and_gets_no_other() {
    let mut stage = Stage::start(Version::V5).await;
    stage.take(A).disconnect().await;
    let both = in_parts(Some("0"), &[(1, r#""for a""#), (2, r#""for b""#)]);
    stage.tell(SERVER, TO_EUICC, both).await;
    stage.drain().await;
    let broker = stage.rig.service.broker();
    broker.with_control(|control| control.put_device(nid(1), &[], "")).unwrap();
    let mut back = stage.rig.reader(1, Dial::v5("back")).await;
    assert_eq!(back.expect_payload().await, letter(r#"{"common":0,"part":"for a"}"#));
    back.expect_nothing().await;
}

#[tokio::test]
async fn a_retry_brings_each_its_own_again() {
    let mut stage = Stage::start(Version::V5).await;
    let parts = [(1, r#""for a""#), (2, r#""for b""#)];
    stage.tell(SERVER, TO_EUICC, in_parts(None, &parts)).await;
    let expected = [(A, letter(r#"{"part":"for a"}"#)), (B, letter(r#"{"part":"for b"}"#))];
    stage.each_receives(&expected).await;
    let id = stage.newest();
    stage.step(A, &envelope(0, 7, "ret(msg)"), &[SERVER]).await;
    let broker = stage.rig.service.broker();
    let retried = broker.with_control(|control| control.retry(id, false, broker.now()));
    assert_eq!(retried.unwrap().0, 1);
    let trigger = envelope(2, 0, "trigger");
    stage.tell(SERVER, TO_EUICC, &trigger).await;
    stage.each_receives(&[(B, letter(r#"{"part":"for b"}"#)), (B, trigger)]).await;
    stage.step(B, &envelope(0, 7, "ret(msg)"), &[SERVER]).await;
}

#[tokio::test]
async fn many_parts_make_a_message_larger_than_any_of_its_letters() {
    let mut stage = Stage::with(Version::V5, |config| config.rsp.body_bytes_max = 2000).await;
    let own = |letter: &str| format!(r#""{}""#, letter.repeat(900));
    let (a, b, c) = (own("a"), own("b"), own("c"));
    let payload = in_parts(None, &[(1, &a), (2, &b), (3, &c)]);
    assert!(payload.len() > 2000);
    stage.tell(SERVER, TO_EUICC, &payload).await;
    let each = |part: &str| letter(&format!(r#"{{"part":{part}}}"#));
    stage.each_receives(&[(A, each(&a)), (B, each(&b)), (C, each(&c))]).await;
    // The same as one body is refused.
    let whole = payload.replace(r#""parts":true,"#, "");
    let answer = stage.client(SERVER).publish(TO_EUICC, &whole, ONE).await;
    assert_eq!(answer.text.as_deref(), Some("too_large"));
    stage.nobody_else().await;
}
