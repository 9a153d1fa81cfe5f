//! Text, numbers and property lengths (sections 1.5 and 2.2 of version 5, 1.5.3 of 3.1.1).

use simcast::mqtt::{ReasonCode, Version};

use crate::common::{Dial, Rig};
use crate::{
    ONE, VERSIONS, connect, connect_head, ends, field, frame, is_refusal, last_words, listener,
};

/// What no string may hold: no UTF-8, surrogates, overlong forms, U+0000.
const BAD: [&[u8]; 6] =
    [b"\xff", b"a\xed\xa0\x80", b"\xc0\x80", b"\xe0\x80\xaf", b"\xf4\x90\x80\x80", b"a\0b"];

/// A CONNECT with this text in one of its fields.
fn connects(version: Version, text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let text = field(text);
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    let will = [&field(b"c")[..], properties, &text, &field(b"x")].concat();
    vec![
        ("client id", connect(version, 0x02, &text)),
        ("will topic", connect(version, 0x06, &will)),
        ("user name", connect(version, 0x82, &[field(b"c"), text].concat())),
    ]
}

/// Other packets with this text in one of their fields.
fn packets(version: Version, text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let text = field(text);
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    vec![
        ("topic", frame(0x30, &[&text, properties].concat())),
        ("filter", frame(0x82, &[&[0, 1], properties, &text, &[0]].concat())),
        ("filter", frame(0xA2, &[&[0, 1], properties, &text].concat())),
    ]
}

/// Properties of version 5 with this text.
fn of_version_5(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let text = field(text);
    let publish = |property: Vec<u8>| {
        frame(0x30, &[&b"\0\x01t"[..], &[property.len() as u8], &property].concat())
    };
    vec![
        ("response topic", publish([&[0x08], &text[..]].concat())),
        ("content type", publish([&[0x03], &text[..]].concat())),
        ("user property", publish([&[0x26], &text[..], b"\0\x01v"].concat())),
        ("user property", publish([&b"\x26\0\x01k"[..], &text].concat())),
    ]
}

/// 5: [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12]
/// 5: [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1]
/// 3.1.1: [MQTT-1.5.3-1] [MQTT-1.5.3-2] [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11]
/// 3.1.1: [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1]
#[tokio::test]
async fn ill_formed_text_ends_the_connection() {
    // case P13
    let rig = Rig::start().await;
    for version in VERSIONS {
        for text in BAD {
            for (name, bytes) in connects(version, text) {
                let said = last_words(&rig, &bytes).await;
                assert!(is_refusal(version, &said), "{version:?} {name} {text:02x?}: {said:02x?}");
            }
            for (_, bytes) in packets(version, text) {
                ends(&rig, version, &bytes, ReasonCode::MalformedPacket).await;
            }
        }
    }
}

/// 5: [MQTT-1.5.7-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19]
#[tokio::test]
async fn ill_formed_text_in_properties_ends_the_connection() {
    let rig = Rig::start().await;
    for text in BAD {
        for (_, bytes) in of_version_5(text) {
            ends(&rig, Version::V5, &bytes, ReasonCode::MalformedPacket).await;
        }
    }
}

/// 5: [MQTT-3.3.2-14]
#[tokio::test]
async fn a_response_topic_has_no_wildcard() {
    let rig = Rig::start().await;
    for text in [&b"#"[..], b"a/+", b"a#"] {
        let (_, bytes) = of_version_5(text).remove(0);
        ends(&rig, Version::V5, &bytes, ReasonCode::ProtocolError).await;
    }
}

/// 5: [MQTT-1.5.4-3]
/// 3.1.1: [MQTT-1.5.3-3]
#[tokio::test]
async fn a_byte_order_mark_is_a_character() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let mut client = listener(&rig, Dial::new(version, "\u{FEFF}c"), "\u{FEFF}t/#", ONE).await;
        // Another client, without the mark, disturbs neither it nor its subscription.
        let mut other = listener(&rig, Dial::new(version, "c"), "t/#", ONE).await;
        other.publish("\u{FEFF}t/\u{FEFF}", "marked", ONE).await;
        other.expect_nothing().await;
        let publish = client.expect_publish().await;
        assert_eq!(publish.topic, "\u{FEFF}t/\u{FEFF}");
    }
}

/// 5: [MQTT-1.5.5-1] [MQTT-2.2.2-1]
#[tokio::test]
async fn numbers_of_variable_length_are_as_short_as_can_be() {
    // case P2
    let rig = Rig::start().await;
    for version in VERSIONS {
        for bytes in [&b"\xc0\x80\0"[..], b"\xc0\x80\x80\0", b"\xc0\x80\x80\x80\0"] {
            ends(&rig, version, bytes, ReasonCode::MalformedPacket).await;
        }
        for bytes in [&b"\x30\xff\xff\xff\xff"[..], b"\x30\x80\x80\x80\x80\x01"] {
            ends(&rig, version, bytes, ReasonCode::MalformedPacket).await;
        }
    }
    // A property length, and a property of that type, with a needless byte.
    for bytes in [&b"\x30\x05\0\x01t\x80\0"[..], b"\x82\x0b\0\x01\x03\x0b\x81\0\0\x01t\x01\0"] {
        ends(&rig, Version::V5, bytes, ReasonCode::MalformedPacket).await;
    }
    // Not even the length of no properties may be left out.
    for bytes in [&b"\x30\x03\0\x01t"[..], b"\x82\x02\0\x01", b"\xa2\x02\0\x01"] {
        ends(&rig, Version::V5, bytes, ReasonCode::MalformedPacket).await;
    }
    let without = [&connect_head(Version::V5, 2)[..10], &field(b"")].concat();
    let said = last_words(&rig, &frame(0x10, &without[..10])).await;
    assert!(is_refusal(Version::V5, &said), "{said:02x?}");
}
