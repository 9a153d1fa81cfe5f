//! Connections that end at a bad moment.

use simcast::mqtt::{Disconnect, Packet, QoS, ReasonCode};

use crate::ONE;
use crate::common::{Dial, Rig, TO_EUICC, envelope, envelope_with, nid, rig::registry_line};

/// Larger than what the sockets between broker and client hold.
const LETTERS: usize = 60;

fn large_body() -> String {
    format!("\"body\":\"{}\"", "x".repeat(200_000))
}

#[tokio::test]
async fn mail_that_was_never_written_is_read_after_the_resume() {
    let rig = Rig::with(|config| config.rsp.mail_bytes_max = 64 << 20).await;
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    let mut device = rig.device(1, Dial::v5("device").persistent()).await;
    device.subscribe(TO_EUICC, QoS::AtMostOnce).await;
    let letter = envelope_with(1, 0, "trigger", &large_body());
    for _ in 0..LETTERS {
        assert!(server.publish(TO_EUICC, &letter, ONE).await.is_ok());
    }
    // The device has not read a byte of it, and its connection breaks.
    drop(device);
    let mut back = rig.device(1, Dial::v5("device").persistent()).await;
    assert!(back.session_present());
    let last = envelope(1, 0, "msg");
    server.publish(TO_EUICC, &last, ONE).await;
    while back.expect_payload().await != last {}
    rig.until_counter("simcast_rsp_mail_messages ", 0).await;
}

#[tokio::test]
async fn a_goodbye_is_heard_from_a_client_that_no_longer_reads() {
    let rig = Rig::start().await;
    let mut watcher = rig.client(Dial::v5("watcher")).await;
    watcher.subscribe("will/#", ONE).await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for round in 0..20 {
        let dial = Dial::v5("leaver").will(&format!("will/{round}"), "not said");
        let mut leaver = rig.client(dial).await;
        leaver.subscribe("flood", QoS::AtMostOnce).await;
        for _ in 0..40 {
            publisher.publish("flood", "x".repeat(100_000), QoS::AtMostOnce).await;
        }
        // What it leaves unread makes its system reset the connection right behind the goodbye.
        let goodbye = Disconnect { reason: ReasonCode::Success, properties: None };
        leaver.send(&Packet::Disconnect(goodbye)).await;
        drop(leaver);
    }
    rig.until_counter("simcast_disconnects_total{reason=\"client\"}", 20).await;
    watcher.expect_nothing().await;
}

#[tokio::test]
async fn a_session_without_its_device_does_not_come_back() {
    let rig = Rig::start().await;
    let path = rig.dir.path().join("registry.csv");
    let all = std::fs::read_to_string(&path).unwrap();
    let dial = || Dial::v5("device").persistent();
    let mut device = rig.reader(1, dial()).await;
    device.disconnect().await;
    std::fs::write(&path, format!("nid,gids,labels\n{}", registry_line(nid(2), "7"))).unwrap();
    rig.service.reload_registry().unwrap();
    std::fs::write(&path, all).unwrap();
    rig.service.reload_registry().unwrap();
    device = rig.device(1, dial()).await;
    assert!(!device.session_present(), "its subscription would be of no use");
    device.subscribe(TO_EUICC, ONE).await;
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    server.publish(TO_EUICC, envelope(1, 0, "trigger"), ONE).await;
    assert_eq!(device.expect_payload().await, envelope(1, 0, "trigger"));
}
