//! Ordinary work over WebSocket: both protocol versions, TLS, a device with its certificate.

use simcast::config::{Listener, Protocol};
use simcast::mqtt::{ReasonCode, Version};
use tokio::io::AsyncReadExt;

use crate::common::{Client, Dial, Rig, TO_EUICC, TO_SM_SR, envelope, in_time, nid};
use crate::{ONE, TWO, ZERO, ws};

#[tokio::test]
async fn messages_cross_between_websocket_and_tcp() {
    let rig = ws::rig().await;
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut page = ws::client(&rig, Dial::new(version, "page")).await;
        let mut meter = rig.client(Dial::new(version, "meter")).await;
        page.subscribe("up/#", TWO).await;
        meter.subscribe("down/#", TWO).await;
        for qos in [ZERO, ONE, TWO] {
            for len in [0, 1, 1000, 20_000, 300_000] {
                let payload = "x".repeat(len);
                assert!(meter.publish("up/a", &payload, qos).await.is_ok());
                assert_eq!(page.expect_payload().await, payload, "{len} bytes up");
                assert!(page.publish("down/a", &payload, qos).await.is_ok());
                assert_eq!(meter.expect_payload().await, payload, "{len} bytes down");
            }
        }
        page.disconnect().await;
        meter.disconnect().await;
    }
}

#[tokio::test]
async fn many_messages_keep_their_order() {
    let rig = ws::rig().await;
    let mut reader = ws::client(&rig, Dial::v5("reader").receive_maximum(1000)).await;
    reader.subscribe("a", ONE).await;
    let mut writer = ws::client(&rig, Dial::v311("writer")).await;
    for number in 0..500 {
        writer.publish("a", number.to_string(), ONE).await;
    }
    let expected: Vec<String> = (0..500).map(|number: u32| number.to_string()).collect();
    assert_eq!(reader.expect_payloads(500).await, expected);
}

#[tokio::test]
async fn a_session_and_a_will_are_what_they_are_elsewhere() {
    let rig = ws::rig().await;
    let mut witness = rig.client(Dial::v5("witness")).await;
    witness.subscribe("gone", ONE).await;
    let dial = Dial::v5("page").persistent().will("gone", "page");
    let mut page = ws::client(&rig, dial).await;
    page.subscribe("a", ONE).await;
    page.vanish().await;
    assert_eq!(witness.expect_payload().await, "page");
    witness.publish("a", "meanwhile", ONE).await;
    // The same session over TCP.
    let mut page = rig.client(Dial::v5("page").persistent()).await;
    assert!(page.session_present());
    assert_eq!(page.expect_payload().await, "meanwhile");
}

#[tokio::test]
async fn a_device_with_its_certificate_over_websocket() {
    let change = |listener: &mut Listener| listener.protocol = Protocol::Websocket;
    let rig = Rig::with_secure_listener(change).await;
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    server.subscribe(TO_SM_SR, ONE).await;
    let issued = rig.authority.issue_device(nid(1)).unwrap();
    let stream = rig.handshake_at(rig.extra(), Some(&issued)).await.unwrap();
    let mut device = ws::open(stream, &Dial::v5("device")).await.unwrap();
    assert_eq!(device.subscribe(TO_EUICC, ONE).await, ReasonCode::GrantedQoS1);
    server.publish(TO_EUICC, envelope(1, 0, "trigger"), ONE).await;
    assert_eq!(device.expect_payload().await, envelope(1, 0, "trigger"));
    device.publish(TO_SM_SR, envelope(1, 0, "ret(trigger)"), ONE).await;
    assert_eq!(server.expect_payload().await, envelope(1, 0, "ret(trigger)"));
    // Without a certificate there is no handshake, and so no WebSocket.
    let stranger = rig.handshake_at(rig.extra(), None).await;
    if let Ok(mut stream) = stranger {
        // In TLS 1.3 the client learns of it at its first read.
        let read = in_time("the end", stream.read(&mut [0])).await;
        assert!(!matches!(read, Ok(1..)));
    }
    rig.until_counter("simcast_tls_rejected_total{reason=\"no_certificate\"}", 1).await;
}

#[tokio::test]
async fn whoever_is_refused_is_told_over_websocket() {
    let rig = ws::rig_with(|listener| listener.versions = vec![Version::V5]).await;
    let refused = ws::open(rig.tcp(rig.extra()).await, &Dial::v311("old")).await;
    let reason = ReasonCode::UnsupportedProtocolVersion;
    assert_eq!(refused.err(), Some(crate::common::Denied::ConnAck(reason)));
}

#[tokio::test]
async fn a_take_over_and_a_stop_say_goodbye_over_websocket() {
    let rig = ws::rig().await;
    let mut first = ws::client(&rig, Dial::v5("page")).await;
    let mut second: Client = ws::client(&rig, Dial::v5("page")).await;
    assert_eq!(first.expect_goodbye().await, ReasonCode::SessionTakenOver);
    let stopping = tokio::spawn(rig.service.stop());
    assert_eq!(second.expect_goodbye().await, ReasonCode::ServerShuttingDown);
    drop(second);
    assert!(in_time("the stop", stopping).await.unwrap(), "everybody has gone");
}
