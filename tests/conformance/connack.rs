//! CONNACK (section 3.2 of both standards).

use simcast::mqtt::{Packet, ReasonCode, Version};

use crate::common::{Client, Denied, Dial, Rig};
use crate::{ONE, VERSIONS, answer, connect, field, frame, in_time, last_words, listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Packets as they stand behind each other in what was read.
fn packets(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let len = simcast::mqtt::frame_len(bytes).unwrap().expect("a whole packet");
        let (packet, rest) = bytes.split_at(len);
        packets.push(packet);
        bytes = rest;
    }
    packets
}

/// 5: [MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.0-2] [MQTT-3.2.2-1] [MQTT-3.2.2-3]
/// 3.1.1: [MQTT-3.1.4-4] [MQTT-3.2.0-1] [MQTT-3.2.2-2]
#[tokio::test]
async fn the_connack_comes_first_and_once() {
    let rig = Rig::start().await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for version in VERSIONS {
        let dial = Dial::new(version, "c").persistent();
        listener(&rig, dial.clone(), "t", ONE).await.disconnect().await;
        publisher.publish("t", "waits", ONE).await;
        // Everything in one segment: what waits for the session and what it asks for.
        let v5 = version == Version::V5;
        let head: &[u8] = if v5 {
            b"\0\x04MQTT\x05\0\0\0\x05\x11\0\0\x0e\x10\0\x01c"
        } else {
            b"\0\x04MQTT\x04\0\0\0\0\x01c"
        };
        let mut socket = rig.tcp(rig.plain).await;
        let bytes = [&frame(0x10, head)[..], &[0xC0, 0], &[0xC0, 0]].concat();
        socket.write_all(&bytes).await.unwrap();
        let mut said = Vec::new();
        let has = |said: &[u8], part: &[u8]| said.windows(part.len()).any(|w| w == part);
        while !has(&said, b"waits") || !has(&said, &[0xD0, 0, 0xD0, 0]) {
            assert!(in_time("more", socket.read_buf(&mut said)).await.unwrap() > 0);
        }
        socket.write_all(&[0xE0, 0]).await.unwrap();
        in_time("the end", socket.read_to_end(&mut said)).await.unwrap();
        let packets = packets(&said);
        assert_eq!(packets[0][0], 0x20, "{said:02x?}");
        // Seven reserved bits and Session Present; success.
        assert_eq!(packets[0][2..4], [0x01, 0x00], "{said:02x?}");
        assert_eq!(packets.iter().filter(|packet| packet[0] == 0x20).count(), 1);
        assert_eq!(packets.iter().filter(|packet| packet[0] == 0xD0).count(), 2);
        assert!(packets.iter().any(|packet| packet[0] >> 4 == 3), "{said:02x?}");
        rig.client(dial.clean()).await.disconnect().await;
    }
}

/// 5: [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-3.2.2-8] [MQTT-4.13.2-1]
/// 3.1.1: [MQTT-3.2.2-4] [MQTT-3.2.2-5]
#[tokio::test]
async fn a_refusal_has_a_known_code_no_session_and_is_the_last_word() {
    let rig = Rig::with(|config| {
        config.limits.max_sessions = 1;
        config.limits.max_client_id_bytes = 10;
    })
    .await;
    let _present = rig.client(Dial::v5("present").persistent()).await;
    let full = |version| connect(version, 0, &field(b"other"));
    let long = |version| connect(version, 0, &field(b"12345678901"));
    let level = |level| frame(0x10, &[&field(b"MQTT")[..], &[level, 0, 0, 0, 0, 1, b'c']].concat());
    for (bytes, code) in [
        (full(Version::V311), 3),
        (full(Version::V5), 0x97),
        (long(Version::V311), 2),
        (long(Version::V5), 0x85),
        (level(3), 1),
        (level(6), 0x84),
    ] {
        let said = last_words(&rig, &bytes).await;
        let packets = packets(&said);
        assert_eq!(packets.len(), 1, "{said:02x?}");
        assert_eq!((packets[0][0], &packets[0][2..4]), (0x20, &[0, code][..]), "{said:02x?}");
    }
}

/// 3.1.1: [MQTT-3.2.2-6]
#[tokio::test]
async fn a_refusal_without_a_return_code_is_a_closed_connection() {
    let rig = Rig::start().await;
    for topic in ["a/+", ""] {
        let dial = |version| Dial::new(version, "c").will(topic, "x");
        let denied = rig.try_client(dial(Version::V311)).await.err();
        assert_eq!(denied, Some(Denied::Closed), "{topic:?}");
        // Version 5 has a code for it.
        let denied = rig.try_client(dial(Version::V5)).await.err();
        assert_eq!(denied, Some(Denied::ConnAck(ReasonCode::TopicNameInvalid)));
    }
}

/// 5: [MQTT-3.2.2-2] [MQTT-3.2.2-3]
/// 3.1.1: [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
#[tokio::test]
async fn session_present_in_every_combination() {
    // case Q6
    let rig = Rig::start().await;
    // Whether there was a session, whether it is wanted, whether its client is still connected.
    for number in 0..8 {
        let (existed, wanted, connected) = (number & 1 > 0, number & 2 > 0, number & 4 > 0);
        for version in VERSIONS {
            let client_id = format!("{version:?}{number}");
            let dial = Dial::new(version, &client_id);
            let mut before: Option<Client> = None;
            if existed {
                let client = rig.client(dial.clone().persistent()).await;
                if connected {
                    before = Some(client);
                } else {
                    client.disconnect().await;
                }
            }
            let dial = if wanted { dial.persistent() } else { dial };
            let present = rig.client(dial).await.session_present();
            assert_eq!(present, existed && wanted, "{existed} {wanted} {connected} {version:?}");
            drop(before);
        }
    }
}

/// 5: [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]
/// 3.1.1: [MQTT-3.1.3-6] [MQTT-3.1.3-7]
#[tokio::test]
async fn who_has_no_id_gets_one_that_nobody_else_has() {
    let rig = Rig::start().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let client = rig.client(Dial::v5("").expiry_secs(100)).await;
        let properties = client.connack.properties.as_ref().unwrap();
        ids.push(properties.assigned_client_id.clone().unwrap());
        client.disconnect().await;
    }
    for id in &ids {
        assert_eq!(ids.iter().filter(|other| *other == id).count(), 1, "{ids:?}");
        assert!(rig.client(Dial::v5(id).persistent()).await.session_present());
    }
    // 3.1.1 is not told, and each has a session of its own.
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(rig.client(Dial::v311("")).await);
    }
    for client in &mut clients {
        client.ping().await;
    }
    // Who brings an id gets no other.
    let own = rig.client(Dial::v5("own")).await;
    assert_eq!(own.connack.properties.as_ref().unwrap().assigned_client_id, None);
}

/// 5: [MQTT-3.1.2-28] [MQTT-4.12.0-6]
#[tokio::test]
async fn what_was_not_asked_for_is_not_in_the_connack() {
    let rig = Rig::with(|config| config.mqtt.response_information = "answers/%c".to_owned()).await;
    let client = rig.client(Dial::v5("c")).await;
    let properties = client.connack.properties.as_ref().unwrap();
    assert_eq!(properties.response_information, None);
    assert_eq!(properties.authentication_method, None);
    assert_eq!(properties.authentication_data, None);
    assert_eq!(properties.server_reference, None);
    assert_eq!(properties.reason_string, None);
}

/// 5: [MQTT-3.1.2-29]
#[tokio::test]
async fn who_wants_no_problem_information_gets_none_in_acknowledgements() {
    // case Q22
    let rig = Rig::start().await;
    for wanted in [true, false] {
        let mut dial = Dial::v5("c");
        dial.0.properties.request_problem_information = wanted;
        let mut client = rig.client(dial).await;
        for qos in [ONE, crate::TWO] {
            let refused = client.publish("$SYS/x", "x", qos).await;
            assert!(!refused.is_ok());
            assert_eq!(refused.text.is_some(), wanted, "{qos:?}");
        }
        let filters = [(crate::common::TO_SM_SR, crate::options(ONE))];
        let suback = client.subscribe_with(&filters, None).await;
        assert!(suback.reasons[0].is_error());
        assert_eq!(suback.properties.is_some(), wanted);
        client.unsubscribe("t").await;
        // In DISCONNECT it may stand whatever the client wants.
        client.send_raw(&[0x30, 0]).await;
        assert!(client.expect_closed().await.is_some());
    }
}

/// 5: [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.9.2-1] [MQTT-3.14.2-3] [MQTT-3.1.2-24]
#[tokio::test]
async fn a_reason_string_that_does_not_fit_is_left_out() {
    // case Q18
    let rig = Rig::start().await;
    for (bytes, fits) in [(1000, true), (24, false)] {
        let mut client = rig.client(Dial::v5("c").packet_bytes_max(bytes)).await;
        for qos in [ONE, crate::TWO] {
            let refused = client.publish("$SYS/x", "x", qos).await;
            assert!(!refused.is_ok());
            assert_eq!(refused.text.is_some(), fits, "{qos:?}");
        }
        let filters = [(crate::common::TO_SM_SR, crate::options(ONE))];
        let suback = client.subscribe_with(&filters, None).await;
        assert_eq!(suback.properties.is_some(), fits);
        client.send_raw(&frame(0x30, &[&field(b"t")[..], &[2, 0x23, 0]].concat())).await;
        let goodbye = client.expect_closed().await.expect("a DISCONNECT");
        assert_eq!(goodbye.properties.is_some(), fits);
    }
}

/// 5: [MQTT-3.2.2-19] [MQTT-3.2.2-20] [MQTT-3.1.2-24]
#[tokio::test]
async fn a_connack_keeps_to_the_size_that_the_client_takes() {
    let rig = Rig::with(|config| config.limits.max_client_id_bytes = 3).await;
    let limited = |bytes: u8, id: &[u8]| {
        let properties = [5, 0x27, 0, 0, 0, bytes];
        let head = [&field(b"MQTT")[..], &[5, 2, 0, 0], &properties].concat();
        frame(0x10, &[head, field(id)].concat())
    };
    // Room for a text, for the code alone, for nothing at all.
    let said = last_words(&rig, &limited(200, b"long")).await;
    assert!(said.len() > 5 && said[3] == 0x85, "{said:02x?}");
    let said = last_words(&rig, &limited(5, b"long")).await;
    assert_eq!(said, [0x20, 3, 0, 0x85, 0]);
    let said = last_words(&rig, &limited(4, b"long")).await;
    assert!(said.is_empty(), "{said:02x?}");
    // Whom a success would be too long is not connected either.
    let said = last_words(&rig, &limited(10, b"c")).await;
    assert_eq!(said, [0x20, 3, 0, 0x95, 0]);
}

/// 5: [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.11.2-1] [MQTT-3.11.2-2]
/// 5: [MQTT-3.4.2-3] [MQTT-3.5.2-3] [MQTT-3.9.2-2] [MQTT-3.14.2-4]
#[tokio::test]
async fn acknowledgements_hold_no_user_property_and_some_no_property_at_all() {
    // The broker never adds what might not fit.
    let rig = Rig::start().await;
    let mut client = rig.client(Dial::v5("c")).await;
    client.send_raw(b"\x62\x02\x00\x07").await;
    let Packet::PubComp(pubcomp) = answer(&mut client).await else { panic!() };
    assert_eq!((pubcomp.reason, pubcomp.properties), (ReasonCode::PacketIdentifierNotFound, None));
    client.send_raw(b"\x50\x02\x00\x07").await;
    let Packet::PubRel(pubrel) = answer(&mut client).await else { panic!() };
    assert_eq!((pubrel.reason, pubrel.properties), (ReasonCode::PacketIdentifierNotFound, None));
    client.send_raw(b"\xa2\x06\x00\x07\x00\x00\x01t").await;
    let Packet::UnsubAck(unsuback) = answer(&mut client).await else { panic!() };
    assert_eq!(unsuback.properties, None);
    client.send_raw(b"\x82\x0e\x00\x07\x00\x00\x08To_SM-SR\x01").await;
    let Packet::SubAck(suback) = answer(&mut client).await else { panic!() };
    assert!(suback.properties.expect("a reason string").user.is_empty());
    for first in [0x32, 0x34] {
        client.send_raw(&frame(first, b"\x00\x02$x\x00\x07\x00x")).await;
        let (Packet::PubAck(ack) | Packet::PubRec(ack)) = answer(&mut client).await else {
            panic!()
        };
        assert!(ack.properties.expect("a reason string").user.is_empty());
    }
    client.send_raw(&[0x30, 0]).await;
    let goodbye = client.expect_closed().await.expect("a DISCONNECT");
    assert!(goodbye.properties.expect("a reason string").user.is_empty());
}
