//! CONNECT (section 3.1 of both standards).

use simcast::mqtt::{ReasonCode, Version};

use crate::common::{Dial, Rig};
use crate::{ONE, VERSIONS, connect, ends, field, frame, is_refusal, last_words, listener};

const CLEAN: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

/// Fields of a CONNECT one behind the other; version 5 has Will Properties before a Will.
fn payload(version: Version, fields: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, text) in fields.iter().enumerate() {
        if at == 1 && version == Version::V5 {
            bytes.push(0);
        }
        bytes.extend(field(text.as_bytes()));
    }
    bytes
}

/// Every packet that a client can send, in its shortest form, but no CONNECT.
fn other_packets(version: Version) -> Vec<Vec<u8>> {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    let mut packets = vec![
        frame(0x30, &[&field(b"t"), properties].concat()),
        frame(0x82, &[&[0, 1], properties, &field(b"t"), &[0]].concat()),
        frame(0xA2, &[&[0, 1], properties, &field(b"t")].concat()),
    ];
    packets.extend([0x40, 0x50, 0x62, 0x70].map(|first| frame(first, &[0, 1])));
    packets.extend([0xC0, 0xE0, 0xF0].map(|first| frame(first, &[])));
    packets
}

/// 5: [MQTT-3.1.0-1] [MQTT-3.14.0-1]
/// 3.1.1: [MQTT-3.1.0-1]
#[tokio::test]
async fn the_first_packet_is_a_connect_or_the_connection_ends_without_a_word() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        for bytes in other_packets(version) {
            let said = last_words(&rig, &bytes).await;
            assert!(said.is_empty(), "{bytes:02x?}: {said:02x?}");
        }
    }
}

/// 5: [MQTT-3.1.2-1]
/// 3.1.1: [MQTT-3.1.2-1]
#[tokio::test]
async fn another_protocol_name_is_another_protocol() {
    let rig = Rig::start().await;
    for name in ["mqtt", "MQTt", "MQTTT", "MQT", "", "MQIsdp"] {
        for level in [4, 5] {
            let body = [&field(name.as_bytes())[..], &[level, CLEAN, 0, 0, 0, 0, 1, b'c']].concat();
            let said = last_words(&rig, &frame(0x10, &body)).await;
            // MQIsdp has a level 3 and no other.
            let refused = said.is_empty() || name == "MQIsdp" && matches!(said[3], 0x01 | 0x84);
            assert!(refused, "{name} {level}: {said:02x?}");
        }
    }
}

/// 5: [MQTT-3.1.2-3] [MQTT-3.1.4-1]
/// 3.1.1: [MQTT-3.1.2-3] [MQTT-3.1.4-1]
#[tokio::test]
async fn the_reserved_connect_flag_is_zero() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let said = last_words(&rig, &connect(version, CLEAN | 1, &field(b"c"))).await;
        assert!(is_refusal(version, &said), "{version:?}: {said:02x?}");
    }
}

/// 5: [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13] [MQTT-3.1.4-1]
/// 3.1.1: [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-14] [MQTT-3.1.2-15]
/// 3.1.1: [MQTT-3.1.4-1]
#[tokio::test]
async fn will_flags_and_will_fields_belong_together() {
    // case P7, case P23
    let rig = Rig::start().await;
    for version in VERSIONS {
        let wrong: [(u8, &[&str]); 8] = [
            (WILL, &["c"]),                  // neither topic nor payload
            (WILL, &["c", "t"]),             // no payload
            (0, &["c", "t", "x"]),           // not announced
            (0x08, &["c"]),                  // QoS 1 of no Will
            (0x10, &["c"]),                  // QoS 2 of no Will
            (0x18, &["c"]),                  // QoS 3 of no Will
            (WILL_RETAIN, &["c"]),           // no Will to be retained
            (WILL | 0x18, &["c", "t", "x"]), // QoS 3
        ];
        for (flags, fields) in wrong {
            let bytes = connect(version, CLEAN | flags, &payload(version, fields));
            let said = last_words(&rig, &bytes).await;
            assert!(is_refusal(version, &said), "{version:?} {flags:02x} {fields:?}: {said:02x?}");
        }
    }
}

/// 5: [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-3]
/// 3.1.1: [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20] [MQTT-3.1.2-21] [MQTT-3.1.2-22]
/// 3.1.1: [MQTT-3.1.3-3]
#[tokio::test]
async fn user_name_and_password_are_there_when_their_flags_say_so() {
    // case P22
    let rig = Rig::start().await;
    for version in VERSIONS {
        let wrong: [(u8, &[&str]); 6] = [
            (0, &[]), // not even a client id
            (USER_NAME, &["c"]),
            (USER_NAME | PASSWORD, &["c", "u"]),
            (0, &["c", "u"]),
            (USER_NAME, &["c", "u", "p"]),
            (PASSWORD, &["c"]),
        ];
        for (flags, fields) in wrong {
            let fields: Vec<u8> = fields.iter().flat_map(|text| field(text.as_bytes())).collect();
            let said = last_words(&rig, &connect(version, CLEAN | flags, &fields)).await;
            assert!(is_refusal(version, &said), "{version:?} {flags:02x}: {said:02x?}");
        }
    }
    let alone = [field(b"c"), field(b"p")].concat();
    let said = last_words(&rig, &connect(Version::V311, CLEAN | PASSWORD, &alone)).await;
    assert!(said.is_empty(), "3.1.1 has no password without a user name: {said:02x?}");
}

/// 5: [MQTT-3.1.3-1] [MQTT-3.1.2-7] [MQTT-3.1.2-8]
/// 3.1.1: [MQTT-3.1.3-1] [MQTT-3.1.2-8]
#[tokio::test]
async fn the_fields_come_in_their_order() {
    let rig = Rig::start().await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will/topic", ONE).await;
    for version in VERSIONS {
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let fields = [
            &field(b"c")[..],
            properties,
            &field(b"will/topic"),
            &field(b"will payload"),
            &field(b"user"),
            &field(b"password"),
        ];
        let flags = CLEAN | WILL | USER_NAME | PASSWORD;
        // Followed by a packet that ends the connection without a goodbye.
        let bytes = [connect(version, flags, &fields.concat()), vec![0x00, 0x00]].concat();
        let said = last_words(&rig, &bytes).await;
        assert_eq!((said[0], said[3]), (0x20, 0), "{version:?}: {said:02x?}");
        assert_eq!(heir.expect_payload().await, "will payload", "{version:?}");
    }
}

/// 5: [MQTT-3.1.3-5]
/// 3.1.1: [MQTT-3.1.3-5]
#[tokio::test]
async fn letters_and_digits_up_to_23_bytes_make_a_client_id() {
    // case P24
    let rig = Rig::start().await;
    let ids = ["0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ", "a"];
    for version in VERSIONS {
        for id in ids {
            rig.client(Dial::new(version, id)).await.disconnect().await;
        }
        // What servers need not take: longer ones, and any character.
        let long = "x".repeat(65_535);
        for id in ["012345678901234567890123", "/ + # $", "é\u{10FFFF}", &long] {
            rig.client(Dial::new(version, id)).await.disconnect().await;
        }
    }
}

/// 5: [MQTT-3.1.3-8] [MQTT-3.2.2-7]
/// 3.1.1: [MQTT-3.1.3-8] [MQTT-3.1.3-9] [MQTT-3.2.2-5]
#[tokio::test]
async fn a_client_id_that_is_not_taken_is_refused_by_name() {
    let rig = Rig::with(|config| config.limits.max_client_id_bytes = 10).await;
    let long = field(b"12345678901");
    let said = last_words(&rig, &connect(Version::V311, CLEAN, &long)).await;
    assert_eq!(said, [0x20, 2, 0, 2]);
    let said = last_words(&rig, &connect(Version::V311, 0, &field(b""))).await;
    assert_eq!(said, [0x20, 2, 0, 2]);
    let said = last_words(&rig, &connect(Version::V5, CLEAN, &long)).await;
    assert_eq!(said[2..4], [0, 0x85], "{said:02x?}");
}

/// 5: [MQTT-3.1.4-6]
/// 3.1.1: [MQTT-3.1.4-5]
#[tokio::test]
async fn nothing_behind_a_refused_connect_is_carried_out() {
    let rig = Rig::with(|config| config.limits.max_client_id_bytes = 10).await;
    let mut watcher = listener(&rig, Dial::v5("watcher"), "#", ONE).await;
    for version in VERSIONS {
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let publish = frame(0x31, &[&field(b"t"), properties, b"x"].concat());
        let bytes = [connect(version, CLEAN, &field(b"12345678901")), publish].concat();
        let said = last_words(&rig, &bytes).await;
        assert_eq!(said[0], 0x20, "{said:02x?}");
    }
    watcher.expect_nothing().await;
    assert_eq!(rig.counter("simcast_retained_messages ").await, 0);
}

/// 5: [MQTT-3.1.0-2] [MQTT-4.13.1-1]
/// 3.1.1: [MQTT-3.1.0-2] [MQTT-4.8.0-1]
#[tokio::test]
async fn a_client_connects_once() {
    // case P21
    let rig = Rig::start().await;
    for version in VERSIONS {
        let again = connect(version, CLEAN, &field(b"rude"));
        ends(&rig, version, &again, ReasonCode::ProtocolError).await;
        let twice = [again.clone(), again].concat();
        let said = last_words(&rig, &twice).await;
        assert_eq!(said[0], 0x20, "the first one is good: {said:02x?}");
    }
}

/// 5: [MQTT-3.1.3-2] [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.4-4]
/// 3.1.1: [MQTT-3.1.3-2] [MQTT-3.1.2-4] [MQTT-3.1.2-6] [MQTT-3.1.4-3]
#[tokio::test]
async fn the_client_id_and_nothing_else_names_the_session() {
    // case Q6
    let rig = Rig::start().await;
    for version in VERSIONS {
        let dial = |id: &str| Dial::new(version, id).persistent();
        for client_id in ["one", "two"] {
            let filter = format!("of/{client_id}");
            let client = listener(&rig, dial(client_id), &filter, ONE).await;
            client.disconnect().await;
        }
        let mut publisher = rig.client(Dial::v5("p")).await;
        publisher.publish("of/one", "1", ONE).await;
        publisher.publish("of/two", "2", ONE).await;
        for (client_id, payload) in [("one", "1"), ("two", "2")] {
            let mut back = rig.client(dial(client_id)).await;
            assert!(back.session_present());
            assert_eq!(back.expect_payload().await, payload);
            back.expect_nothing().await;
            back.disconnect().await;
        }
        // A clean start: subscription, queue and what was under way are gone, then and later.
        publisher.publish("of/one", "late", ONE).await;
        for dial in [dial("one").clean(), dial("one").clean()] {
            let mut fresh = rig.client(dial).await;
            assert!(!fresh.session_present());
            publisher.publish("of/one", "later", ONE).await;
            fresh.expect_nothing().await;
            fresh.disconnect().await;
        }
        rig.client(dial("two").clean()).await.disconnect().await;
        for client_id in ["one", "two"] {
            rig.client(Dial::new(version, client_id)).await.disconnect().await;
        }
    }
}
