//! The end of a connection: PINGREQ, DISCONNECT, errors (sections 3.12, 3.14, 4.13; 4.8 of 3.1.1).

use simcast::mqtt::{Packet, ReasonCode, Version};

use crate::common::{Dial, Rig};
use crate::{ONE, VERSIONS, answer, ends, frame, listener};

/// 5: [MQTT-3.12.4-1]
/// 3.1.1: [MQTT-3.12.4-1]
#[tokio::test]
async fn every_pingreq_has_its_pingresp() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let mut client = rig.client(Dial::new(version, "c")).await;
        client.send_raw(&[0xC0, 0, 0xC0, 0, 0xC0, 0]).await;
        for _ in 0..3 {
            assert!(matches!(answer(&mut client).await, Packet::PingResp));
        }
    }
}

/// Every packet of a client with its flags as they have to be, and a body that is in order.
fn whole_packets(version: Version) -> Vec<(u8, &'static [u8])> {
    let v5 = version == Version::V5;
    let subscribe: &[u8] = if v5 { b"\0\x07\0\0\x01t\0" } else { b"\0\x07\0\x01t\0" };
    let unsubscribe: &[u8] = if v5 { b"\0\x07\0\0\x01t" } else { b"\0\x07\0\x01t" };
    let mut packets: Vec<(u8, &[u8])> = vec![(0x82, subscribe), (0xA2, unsubscribe)];
    packets.extend([0x40, 0x50, 0x62, 0x70].map(|first| (first, &b"\0\x07"[..])));
    packets.extend([0xC0, 0xE0].map(|first| (first, &b""[..])));
    packets
}

/// 5: [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
/// 5: [MQTT-4.13.1-1]
/// 3.1.1: [MQTT-2.2.2-1] [MQTT-2.2.2-2] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
/// 3.1.1: [MQTT-3.14.1-1] [MQTT-4.8.0-1]
#[tokio::test]
async fn reserved_flags_end_the_connection() {
    // case P6
    let rig = Rig::start().await;
    for version in VERSIONS {
        for (right, body) in whole_packets(version) {
            for flags in (0..16).filter(|flags| right & 0x0F != *flags) {
                let bytes = frame(right & 0xF0 | flags, body);
                ends(&rig, version, &bytes, ReasonCode::MalformedPacket).await;
            }
        }
    }
    for flags in 1..16 {
        let auth = frame(0xF0 | flags, b"");
        ends(&rig, Version::V5, &auth, ReasonCode::MalformedPacket).await;
    }
}

/// 5: [MQTT-4.13.1-1]
/// 3.1.1: [MQTT-4.8.0-1]
#[tokio::test]
async fn packets_that_only_a_server_sends_end_the_connection() {
    // case P8
    let rig = Rig::start().await;
    for bytes in [&b"\x20\x02\0\0"[..], b"\x90\x03\0\x01\0", b"\xb0\x02\0\x01", b"\xd0\0"] {
        for version in VERSIONS {
            ends(&rig, version, bytes, ReasonCode::ProtocolError).await;
        }
    }
    for version in VERSIONS {
        ends(&rig, version, b"\x00\x00", ReasonCode::MalformedPacket).await;
    }
    ends(&rig, Version::V311, b"\xf0\x00", ReasonCode::MalformedPacket).await;
}

/// 5: [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-3.14.2-1] [MQTT-3.14.2-2]
#[tokio::test]
async fn the_disconnect_of_the_broker_is_its_last_word() {
    let rig = Rig::start().await;
    let mut client = listener(&rig, Dial::v5("c"), "t", ONE).await;
    // An error in the midst of requests: those before it are answered, those behind it not.
    client.send_raw(&[0xC0, 0, 0x00, 0, 0xC0, 0, 0xC0, 0]).await;
    assert!(matches!(answer(&mut client).await, Packet::PingResp));
    let Packet::Disconnect(goodbye) = answer(&mut client).await else { panic!() };
    assert_eq!(goodbye.reason, ReasonCode::MalformedPacket);
    assert_eq!(goodbye.properties.unwrap().session_expiry_secs, None);
    assert!(client.read().await.is_none(), "nothing follows");
    // A take-over, with a message on its way to both.
    let mut old = listener(&rig, Dial::v5("s").persistent(), "t", ONE).await;
    let mut new = rig.client(Dial::v5("s").persistent()).await;
    new.publish("t", "x", ONE).await;
    assert_eq!(new.expect_payload().await, "x");
    let Packet::Disconnect(goodbye) = answer(&mut old).await else { panic!() };
    assert_eq!(goodbye.reason, ReasonCode::SessionTakenOver);
    assert_eq!(goodbye.properties.and_then(|p| p.session_expiry_secs), None);
    assert!(old.read().await.is_none(), "nothing follows");
}

/// 5: [MQTT-3.14.4-3] [MQTT-3.1.2-10]
/// 3.1.1: [MQTT-3.14.4-3] [MQTT-3.1.2-10] [MQTT-3.1.2-12] [MQTT-3.14.4-1] [MQTT-3.14.4-2]
#[tokio::test]
async fn what_stands_behind_a_goodbye_is_not_heard() {
    let rig = Rig::start().await;
    let mut watcher = listener(&rig, Dial::v5("watcher"), "#", ONE).await;
    for version in VERSIONS {
        let mut client = rig.client(Dial::new(version, "c").will("will", "gone")).await;
        let publish = if version == Version::V5 { &b"\0\x01t\0x"[..] } else { b"\0\x01tx" };
        client.send_raw(&[frame(0xE0, b""), frame(0x30, publish)].concat()).await;
        assert!(client.read().await.is_none(), "the broker closes");
    }
    watcher.expect_nothing().await;
}

/// 5: [MQTT-3.14.2-1]
#[tokio::test]
async fn reason_codes_of_a_clients_disconnect() {
    let rig = Rig::start().await;
    let known =
        [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
    for code in 0..=255u8 {
        let mut client = rig.client(Dial::v5("c")).await;
        client.send_raw(&[0xE0, 1, code]).await;
        let goodbye = client.expect_closed().await.map(|goodbye| goodbye.reason);
        // 0x8C is not in the table of DISCONNECT, but section 4.12 sends it.
        if !known.contains(&code) && code != 0x8C {
            assert_eq!(goodbye, Some(ReasonCode::ProtocolError), "{code:02x}");
        } else {
            assert_eq!(goodbye, None, "{code:02x}");
        }
    }
}

/// 5: [MQTT-4.1.0-2]
/// 3.1.1: [MQTT-3.1.2-6] [MQTT-3.1.2.7]
#[tokio::test]
async fn a_session_ends_and_what_it_retained_stays() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let topic = format!("kept/{version:?}");
        let mut client = listener(&rig, Dial::new(version, "c"), "t", ONE).await;
        client.retain(&topic, "kept").await;
        client.disconnect().await;
        rig.client(Dial::v5("p")).await.publish("t", "lost", ONE).await;
        let mut back = rig.client(Dial::new(version, "c").persistent()).await;
        assert!(!back.session_present());
        back.expect_nothing().await;
        back.subscribe(&topic, ONE).await;
        assert_eq!(back.expect_payload().await, "kept");
        rig.client(Dial::new(version, "c")).await.disconnect().await;
    }
}

/// 5: [MQTT-3.3.4-6] [MQTT-3.3.2-8] [MQTT-4.13.1-1]
#[tokio::test]
async fn what_a_publish_of_version_5_may_not_say() {
    let rig = Rig::start().await;
    for (properties, reason) in [
        (&b"\x02\x0b\x01"[..], ReasonCode::ProtocolError), // a subscription identifier
        (b"\x03\x23\0\0", ReasonCode::TopicAliasInvalid),  // alias 0
        (b"\x03\x23\xff\xff", ReasonCode::TopicAliasInvalid), // alias above the maximum
        (b"\x04\x01\0\x01\0", ReasonCode::ProtocolError),  // twice the same
        (b"\x02\x01\x02", ReasonCode::ProtocolError),      // neither 0 nor 1
        (b"\x04\x08\0\x01#", ReasonCode::ProtocolError),   // a response topic with a wildcard
        (b"\x03\x08\0\0", ReasonCode::ProtocolError),      // none at all
        (b"\x02\x04\0", ReasonCode::MalformedPacket),      // unknown
        (b"\x05\x11\0\0\0\0", ReasonCode::MalformedPacket), // not of a PUBLISH
        (b"\x09\x01\0", ReasonCode::MalformedPacket),      // longer than the packet
    ] {
        let bytes = frame(0x30, &[&b"\0\x01t"[..], properties].concat());
        ends(&rig, Version::V5, &bytes, reason).await;
    }
    ends(&rig, Version::V5, &frame(0x30, b"\0\0\0x"), ReasonCode::ProtocolError).await;
}
