//! Sessions: how long they last, who takes them over, what becomes of Wills (sections 3.1.2, 4.1).

use std::time::Duration;

use simcast::mqtt::{Disconnect, DisconnectProperties, Packet, QoS, ReasonCode};

use crate::common::{Client, Dial, Rig};
use crate::{ONE, TWO, VERSIONS, ends, listener};

fn goodbye(reason: ReasonCode, session_expiry_secs: Option<u32>) -> Packet {
    let properties = session_expiry_secs.map(|secs| {
        Box::new(DisconnectProperties {
            session_expiry_secs: Some(secs),
            ..DisconnectProperties::default()
        })
    });
    Packet::Disconnect(Disconnect { reason, properties })
}

/// 5: [MQTT-4.1.0-1]
/// 3.1.1: [MQTT-4.1.0-1] [MQTT-4.1.0-2]
#[tokio::test]
async fn a_session_lasts_at_least_as_long_as_its_connection() {
    let rig = Rig::start().await;
    let mut clients = Vec::new();
    for dial in [
        Dial::v311("clean"),
        Dial::v311("kept").persistent(),
        Dial::v5("none"),
        Dial::v5("short").persistent().expiry_secs(1),
    ] {
        clients.push(listener(&rig, dial, "t", ONE).await);
    }
    // Longer than the shortest expiry and a sweep.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    publisher.publish("t", "x", ONE).await;
    for client in &mut clients {
        assert_eq!(client.expect_payload().await, "x");
    }
    let short = clients.pop().unwrap();
    short.vanish().await;
    let back = rig.client(Dial::v5("short").persistent().expiry_secs(1)).await;
    assert!(back.session_present(), "the time runs from the end of the connection");
}

/// 5: [MQTT-4.1.0-2] [MQTT-3.1.2-23]
#[tokio::test]
async fn a_session_lasts_as_long_as_was_agreed_and_no_longer() {
    // case Q5
    let rig = Rig::start().await;
    // What the CONNECT says, what the DISCONNECT says, whether the session outlives two seconds.
    let cases = [
        ("0", 0, None, false),
        ("1", 1, None, false),
        ("long", 60, None, true),
        ("never", u32::MAX, None, true),
        ("shortened", 60, Some(1), false),
        ("ended", 60, Some(0), false),
        ("prolonged", 1, Some(60), true),
        ("for ever", 1, Some(u32::MAX), true),
    ];
    for (name, connect, disconnect, _) in cases {
        let mut client = listener(&rig, Dial::v5(name).expiry_secs(connect), "t", ONE).await;
        client.send(&goodbye(ReasonCode::Success, disconnect)).await;
        assert_eq!(client.expect_closed().await, None);
    }
    let mut publisher = rig.client(Dial::v5("p")).await;
    publisher.publish("t", "kept", ONE).await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    for (name, _, _, lasts) in cases {
        let mut back = rig.client(Dial::v5(name).persistent()).await;
        assert_eq!(back.session_present(), lasts, "{name}");
        assert_eq!(back.arrived().await.len(), usize::from(lasts), "{name}");
    }
    // The bound of the broker is told; "never" is above it.
    let told = |client: &Client| client.connack.properties.as_ref().unwrap().session_expiry_secs;
    let week = 7 * 86_400;
    assert_eq!(told(&rig.client(Dial::v5("b").expiry_secs(u32::MAX)).await), Some(week));
    assert_eq!(told(&rig.client(Dial::v5("b").expiry_secs(week + 1)).await), Some(week));
    assert_eq!(told(&rig.client(Dial::v5("b").expiry_secs(week)).await), None);
    // From zero there is no way up.
    let raised = b"\xe0\x07\0\x05\x11\0\0\0\x01";
    let version = simcast::mqtt::Version::V5;
    ends(&rig, version, raised, ReasonCode::ProtocolError).await;
}

/// 5: [MQTT-3.1.4-3] [MQTT-3.14.4-2]
/// 3.1.1: [MQTT-3.1.4-2]
#[tokio::test]
async fn the_newer_connection_of_a_client_closes_the_older() {
    let rig = Rig::start().await;
    for first in VERSIONS {
        for second in VERSIONS {
            for clean in [true, false] {
                let dial = |version| {
                    let dial = Dial::new(version, "c").persistent();
                    if clean { dial.clean() } else { dial }
                };
                let mut old = rig.client(dial(first)).await;
                let mut new = rig.client(dial(second)).await;
                let told = old.expect_closed().await.map(|goodbye| goodbye.reason);
                let v5 = first == simcast::mqtt::Version::V5;
                assert_eq!(told, v5.then_some(ReasonCode::SessionTakenOver));
                new.ping().await;
                new.disconnect().await;
            }
        }
    }
}

/// 5: [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10]
/// 3.1.1: [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.2-12]
#[tokio::test]
async fn a_will_is_published_once_for_every_end_but_a_goodbye() {
    // case Q9
    let rig = Rig::start().await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will", TWO).await;
    for version in VERSIONS {
        let v5 = version == simcast::mqtt::Version::V5;
        let dial = Dial::new(version, "w").will("will", "gone");
        // End of the stream.
        rig.client(dial.clone()).await.vanish().await;
        assert_eq!(heir.expect_payload().await, "gone", "FIN");
        // A reset: closing a socket with unread bytes makes one.
        let mut reset = rig.client(dial.clone()).await;
        reset.send_raw(&[0xC0, 0]).await;
        rig.until_counter("simcast_sessions{state=\"connected\"}", 2).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(reset);
        assert_eq!(heir.expect_payload().await, "gone", "RST");
        // A malformed packet, and one that is well-formed and wrong.
        for bytes in [&[0x00, 0x00][..], b"\xd0\0"] {
            let mut rude = rig.client(dial.clone()).await;
            rude.send_raw(bytes).await;
            rude.expect_closed().await;
            assert_eq!(heir.expect_payload().await, "gone", "{bytes:02x?}");
        }
        // A take-over, of the session or with a clean start.
        for clean in [true, false] {
            let dial = dial.clone().persistent();
            let next = Dial::new(version, "w").persistent();
            let next = if clean { next.clean() } else { next };
            let mut old = rig.client(dial).await;
            let new = rig.client(next).await;
            old.expect_closed().await;
            assert_eq!(heir.expect_payload().await, "gone", "taken over, clean: {clean}");
            new.disconnect().await;
            rig.client(Dial::new(version, "w")).await.disconnect().await;
        }
        if v5 {
            let mut asked = rig.client(dial.clone()).await;
            asked.send(&goodbye(ReasonCode::DisconnectWithWill, None)).await;
            asked.expect_closed().await;
            assert_eq!(heir.expect_payload().await, "gone", "0x04");
        }
        rig.client(dial).await.disconnect().await;
        heir.expect_nothing().await;
    }
}

/// 5: [MQTT-3.1.3-9] [MQTT-3.1.2-8]
#[tokio::test]
async fn a_delayed_will_and_take_overs() {
    // case Q7, case Q12, case Q13
    let rig = Rig::start().await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will", QoS::AtMostOnce).await;
    let dial = Dial::v5("w").persistent().will("will", "gone").will_delay_secs(3600);
    // The session goes on: no Will, however often.
    let mut client = rig.client(dial.clone()).await;
    for _ in 0..20 {
        let next = rig.client(dial.clone()).await;
        assert_eq!(client.expect_goodbye().await, ReasonCode::SessionTakenOver);
        client = next;
    }
    heir.expect_nothing().await;
    // A clean start ends the old session, and its Will fires once.
    let clean = rig.client(Dial::v5("w").clean()).await;
    assert_eq!(client.expect_goodbye().await, ReasonCode::SessionTakenOver);
    assert_eq!(heir.expect_payload().await, "gone");
    clean.disconnect().await;
    heir.expect_nothing().await;
}
