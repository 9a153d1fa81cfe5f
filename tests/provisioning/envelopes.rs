//! Envelopes in JSON and CBOR (section 2), bodies untouched, and the stamp on what servers get
//! (section 6).

use simcast::client::envelope::{Envelope, Kind, Wire};
use simcast::mqtt::{PublishProperties, QoS, Version};

use crate::common::{TO_EUICC, TO_SM_SR, envelope, envelope_with, gid, nid};
use crate::messages::stamps;
use crate::stage::{A, B, GROUP_7, SERVER, Stage};

#[tokio::test]
async fn json_and_cbor_reach_the_same_receivers() {
    let mut stage = Stage::start(Version::V5).await;
    for wire in [Wire::Json, Wire::Cbor] {
        let one = Envelope::new(nid(1).get(), 0, Kind::Trigger).encode(wire);
        stage.tell(SERVER, TO_EUICC, &one).await;
        stage.reaches(&[A], &one).await;
        let all = Envelope::new(0, gid(7).get(), Kind::Msg).encode(wire);
        stage.tell(SERVER, TO_EUICC, &all).await;
        stage.reaches(&GROUP_7, &all).await;
        // The answer may come in the other form.
        let answer = Envelope::new(nid(1).get(), 0, Kind::RetTrigger).encode(wire);
        stage.tell(A, TO_SM_SR, &answer).await;
        stage.reaches(&[SERVER], &answer).await;
        let request = Envelope::new(nid(1).get(), 7, Kind::Req(nid(2).get())).encode(wire);
        if wire == Wire::Cbor {
            stage.tell(B, TO_EUICC, &request).await;
            stage.reaches(&[A], &request).await;
        }
    }
}

#[tokio::test]
async fn whatever_is_no_routing_head_is_forwarded_as_it_is() {
    let mut stage = Stage::start(Version::V5).await;
    let head = format!(r#""nid":"{}","gid":0,"type":"msg""#, nid(1));
    let payloads = [
        format!("\r\n {{ \"body\" : {{\"nid\":\"0\"}} ,\t{head}\n}} "),
        format!(r#"{{"x":1,"x":2,{head},"body":[1e400,"\ud83d\ude00"]}}"#),
        format!(r#"{{{head},"body":null,"rc":-1,"tid":7}}"#).replace("nid", "\\u006eid"),
        // JSON integers are numbers as well.
        format!(r#"{{{head},"body":1}}"#).replace(&format!("\"{}\"", nid(1)), &nid(1).to_string()),
    ];
    for payload in payloads {
        stage.step(SERVER, &payload, &[A]).await;
    }
}

#[tokio::test]
async fn a_large_body_arrives_byte_for_byte() {
    for version in [Version::V311, Version::V5] {
        let mut stage = Stage::start(version).await;
        // Every byte of a download counts: 200 kB of text that is not the same anywhere.
        let body: String = (0..28_000).map(|number| format!("{number:07}")).collect();
        let download = envelope_with(1, 0, "msg", &format!(r#""body":"{body}""#));
        assert!(download.len() > 196_000);
        stage.step(SERVER, &download, &[A]).await;
        let group = envelope_with(0, 7, "msg", &format!(r#""body":"{body}""#));
        stage.step(SERVER, &group, &GROUP_7).await;
        let report = envelope_with(1, 0, "ret(msg)", &format!(r#""body":"{body}""#));
        stage.step(A, &report, &[SERVER]).await;
    }
}

#[tokio::test]
async fn a_server_sees_the_proven_sender_and_nothing_else_under_that_name() {
    let mut stage = Stage::start(Version::V5).await;
    let own = nid(1).to_string();
    // In a group's name the envelope hides who sent it.
    let payload = envelope(0, 7, "trigger");
    stage.tell(A, TO_SM_SR, &payload).await;
    let received = stage.receives(&[(SERVER, payload.as_bytes())]).await;
    assert_eq!(stamps(&received[0]), [own.as_str()]);

    let other = nid(2).to_string();
    let properties = PublishProperties {
        user: vec![
            ("nid".into(), other.as_str().into()),
            ("before".into(), "1".into()),
            ("nid".into(), "control-unit".into()),
            ("NID".into(), "2".into()),
        ],
        content_type: Some("application/json".into()),
        correlation_data: Some("c".into()),
        ..PublishProperties::default()
    };
    let qos = QoS::AtLeastOnce;
    let answer =
        stage.client(A).publish_with(TO_SM_SR, &payload, qos, false, Some(properties)).await;
    assert!(answer.is_ok());
    let received = stage.receives(&[(SERVER, payload.as_bytes())]).await;
    assert_eq!(stamps(&received[0]), [own.as_str()]);
    let properties = received[0].properties.as_ref().unwrap();
    let names: Vec<&str> = properties.user.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["before", "NID", "nid"]);
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.correlation_data.as_deref(), Some(&b"c"[..]));
}

#[tokio::test]
async fn what_a_device_receives_has_no_stamp_but_the_publishers_properties() {
    let mut stage = Stage::start(Version::V5).await;
    let payload = envelope(1, 0, "trigger");
    let properties = PublishProperties {
        user: vec![("campaign".into(), "7".into())],
        response_topic: Some("To_SM-SR".into()),
        ..PublishProperties::default()
    };
    let qos = QoS::AtLeastOnce;
    let server = stage.client(SERVER);
    let answer = server.publish_with(TO_EUICC, &payload, qos, false, Some(properties)).await;
    assert!(answer.is_ok());
    let received = stage.receives(&[(A, payload.as_bytes())]).await;
    let properties = received[0].properties.as_ref().unwrap();
    assert_eq!(properties.user, [("campaign".into(), "7".into())]);
    assert_eq!(properties.response_topic.as_deref(), Some("To_SM-SR"));
}

#[tokio::test]
async fn a_version_5_server_and_a_version_3_device_understand_each_other() {
    let mut stage = Stage::start(Version::V5).await;
    let old = stage.take(B);
    old.disconnect().await;
    let mut old = stage.rig.reader(2, crate::common::Dial::v311("old")).await;
    stage.tell(SERVER, TO_EUICC, envelope(2, 0, "trigger")).await;
    assert_eq!(old.expect_payload().await, envelope(2, 0, "trigger"));
    let answer = envelope(2, 0, "ret(trigger)");
    old.publish(TO_SM_SR, &answer, QoS::AtLeastOnce).await;
    let received = stage.receives(&[(SERVER, answer.as_bytes())]).await;
    assert_eq!(stamps(&received[0]), [nid(2).to_string()]);
}
