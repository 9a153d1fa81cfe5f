//! Text, topics, filters, flags and identifiers: what may stand in each field.

use bytes::Bytes;
use simcast::mqtt::topic::TopicError;
use simcast::mqtt::{
    CheckError, Connect, DecodeError, Packet, ReasonCode, Sender, Version, decode,
};

use crate::build::{field, frame};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

type Builder = fn(&[u8]) -> Vec<u8>;

/// Every field of text that a client can send in version 5, with a packet around it.
const TEXTS: [(&str, u8, Builder); 17] = [
    ("client id", 0x10, |t| [b"\0\x04MQTT\x05\x02\0\x3C\0", &field(t)[..]].concat()),
    ("user name", 0x10, |t| [b"\0\x04MQTT\x05\x82\0\x3C\0\0\x01c", &field(t)[..]].concat()),
    ("will topic", 0x10, |t| {
        [b"\0\x04MQTT\x05\x06\0\x3C\0\0\x01c\0", &field(t)[..], b"\0\0"].concat()
    }),
    ("auth method", 0x10, |t| connect_property(&[b"\x15", &field(t)[..]].concat())),
    ("user property name", 0x10, |t| {
        connect_property(&[b"\x26", &field(t)[..], b"\0\x01v"].concat())
    }),
    ("user property value", 0x10, |t| connect_property(&[b"\x26\0\x01k", &field(t)[..]].concat())),
    ("topic", 0x30, |t| [&field(t)[..], b"\0x"].concat()),
    ("content type", 0x30, |t| publish_property(&[b"\x03", &field(t)[..]].concat())),
    ("response topic", 0x30, |t| publish_property(&[b"\x08", &field(t)[..]].concat())),
    ("puback reason", 0x40, |t| reason_string(b"\0\x07\0", t)),
    ("pubrec reason", 0x50, |t| reason_string(b"\0\x07\0", t)),
    ("pubrel reason", 0x62, |t| reason_string(b"\0\x07\0", t)),
    ("pubcomp reason", 0x70, |t| reason_string(b"\0\x07\0", t)),
    ("filter", 0x82, |t| [b"\0\x07\0", &field(t)[..], b"\0"].concat()),
    ("unsubscribe filter", 0xA2, |t| [b"\0\x07\0", &field(t)[..]].concat()),
    ("disconnect reason", 0xE0, |t| reason_string(b"\0", t)),
    ("auth method of auth", 0xF0, |t| {
        let property = [b"\x15", &field(t)[..]].concat();
        [&[0x18, property.len() as u8], &property[..]].concat()
    }),
];

fn connect_property(property: &[u8]) -> Vec<u8> {
    let len = property.len() as u8;
    [b"\0\x04MQTT\x05\x02\0\x3C", &[len][..], property, b"\0\x01c"].concat()
}

fn publish_property(property: &[u8]) -> Vec<u8> {
    [b"\0\x01t", &[property.len() as u8][..], property, b"x"].concat()
}

fn reason_string(before: &[u8], text: &[u8]) -> Vec<u8> {
    let property = [b"\x1F", &field(text)[..]].concat();
    [before, &[property.len() as u8], &property].concat()
}

// case P13
#[test]
fn text_is_utf8_without_nul() {
    let bad: [(&[u8], DecodeError); 10] = [
        (b"a\0b", DecodeError::NulCharacter),
        (b"\xED\xA0\x80", DecodeError::Utf8), // a surrogate
        (b"\xED\xA0\x80\xED\xB0\x80", DecodeError::Utf8), // a pair of them
        (b"\xC0\x80", DecodeError::Utf8),     // overlong U+0000
        (b"\xC1\xBF", DecodeError::Utf8),     // overlong
        (b"\xE0\x80\xAF", DecodeError::Utf8), // overlong
        (b"\xF4\x90\x80\x80", DecodeError::Utf8), // beyond U+10FFFF
        (b"\xF8\x88\x80\x80\x80", DecodeError::Utf8), // five bytes
        (b"\xC3", DecodeError::Utf8),         // cut
        (b"\xFF", DecodeError::Utf8),
    ];
    // U+FFFF, U+FDD0, control characters and a byte order mark: SHOULD NOT, not MUST NOT.
    let good = ["\u{FFFF}", "\u{FDD0}", "\u{1}\u{9F}", "\u{FEFF}a", "\u{10FFFF}", "é"];
    for (name, first, build) in TEXTS {
        for (text, error) in bad {
            let decoded = decode(frame(first, &build(text)), Version::V5, Sender::Client);
            assert_eq!(decoded, Err(error), "{name} {text:?}");
        }
        for text in good {
            let decoded =
                decode(frame(first, &build(text.as_bytes())), Version::V5, Sender::Client);
            assert!(decoded.is_ok(), "{name} {text:?} {decoded:?}");
        }
    }
}

#[test]
fn a_byte_order_mark_is_kept() {
    let packet = subscribe(Version::V5, "\u{FEFF}a").unwrap();
    let Packet::Subscribe(packet) = packet else { panic!("{packet:?}") };
    assert_eq!(&packet.filters[0].filter[..], "\u{FEFF}a");
}

fn subscribe(version: Version, filter: &str) -> Result<Packet, DecodeError> {
    let properties: &[u8] = if version == Version::V5 { b"\0" } else { b"" };
    let body = [b"\0\x07", properties, &field(filter.as_bytes()), b"\x01"].concat();
    decode(frame(0x82, &body), version, Sender::Client)
}

fn unsubscribe(version: Version, filter: &str) -> Result<Packet, DecodeError> {
    let properties: &[u8] = if version == Version::V5 { b"\0" } else { b"" };
    let body = [b"\0\x07", properties, &field(filter.as_bytes())].concat();
    decode(frame(0xA2, &body), version, Sender::Client)
}

// case P17
#[test]
fn malformed_filters_are_refused_everywhere() {
    for version in VERSIONS {
        for filter in ["a#", "a/#/b", "+a", "a/+b", "", "#/"] {
            for decoded in [subscribe(version, filter), unsubscribe(version, filter)] {
                let refused = matches!(decoded, Err(DecodeError::TopicFilter(_)));
                assert!(refused, "{version:?} {filter:?} {decoded:?}");
            }
        }
        // case P16
        for filter in ["/".repeat(65_535), "x".repeat(65_535)] {
            assert!(subscribe(version, &filter).is_ok());
            assert!(unsubscribe(version, &filter).is_ok());
        }
    }
}

// case P18
#[test]
fn shared_filters_are_judged_in_version_5_only() {
    let bad = [
        ("$share/", TopicError::ShareName),
        ("$share//t", TopicError::ShareName),
        ("$share/g", TopicError::ShareFilter),
        ("$share/g/", TopicError::ShareFilter),
    ];
    for (filter, error) in bad {
        assert_eq!(subscribe(Version::V5, filter), Err(DecodeError::TopicFilter(error)));
        assert_eq!(unsubscribe(Version::V5, filter), Err(DecodeError::TopicFilter(error)));
        assert!(subscribe(Version::V311, filter).is_ok(), "{filter}");
    }
    for version in VERSIONS {
        assert!(subscribe(version, "$share/a+b/t").is_err());
    }
    let no_local = b"\0\x07\0\0\x0A$share/g/#\x04";
    let decoded = decode(frame(0x82, no_local), Version::V5, Sender::Client);
    assert_eq!(decoded, Err(DecodeError::NoLocalShared));
    assert_eq!(DecodeError::NoLocalShared.reason(), ReasonCode::ProtocolError);
}

// case P20
#[test]
fn ten_thousand_filters_in_one_packet() {
    let mut body = b"\0\x07\0".to_vec();
    for _ in 0..10_000 {
        body.extend_from_slice(b"\0\x01t\0");
    }
    let decoded = decode(frame(0x82, &body), Version::V5, Sender::Client).unwrap();
    let Packet::Subscribe(packet) = decoded else { panic!("not a SUBSCRIBE") };
    assert_eq!(packet.filters.len(), 10_000);
    body.pop();
    let decoded = decode(frame(0x82, &body), Version::V5, Sender::Client);
    assert_eq!(decoded, Err(DecodeError::Truncated));
}

fn connect(name: &str, level: u8, flags: u8, payload: &[u8]) -> Result<Connect, DecodeError> {
    let properties: &[u8] = if level == 5 { b"\0" } else { b"" };
    let body = [&field(name.as_bytes())[..], &[level, flags, 0, 60], properties, payload].concat();
    // The version of the call does not matter to a CONNECT.
    let packet = decode(frame(0x10, &body), Version::V5, Sender::Client)?;
    let Packet::Connect(packet) = packet else { panic!("{packet:?}") };
    Ok(*packet)
}

// case P22
#[test]
fn name_and_level_belong_together() {
    for (name, level) in [("MQTT", 3), ("MQTT", 6), ("MQIsdp", 4), ("MQTT", 0x84), ("MQIsdp", 0x83)]
    {
        let error = connect(name, level, 2, b"\0\x01c").unwrap_err();
        assert_eq!(error, DecodeError::ProtocolLevel(level));
        assert_eq!(error.reason(), ReasonCode::UnsupportedProtocolVersion);
    }
    for name in ["", "MQT", "MQTTT", "mqtt", "HTTP"] {
        assert_eq!(connect(name, 4, 2, b"\0\x01c"), Err(DecodeError::ProtocolName), "{name}");
    }
    for (name, level, version) in
        [("MQIsdp", 3, Version::V31), ("MQTT", 4, Version::V311), ("MQTT", 5, Version::V5)]
    {
        assert_eq!(connect(name, level, 2, b"\0\x01c").unwrap().version, version);
    }
}

// case P22
#[test]
fn connect_flags_by_version() {
    let reserved = |name, level| connect(name, level, 0x03, b"\0\x01c");
    assert!(reserved("MQIsdp", 3).is_ok());
    assert_eq!(reserved("MQTT", 4), Err(DecodeError::ConnectFlags));
    assert_eq!(reserved("MQTT", 5), Err(DecodeError::ConnectFlags));

    let password_only = |name, level| connect(name, level, 0x42, b"\0\x01c\0\x01p");
    assert_eq!(password_only("MQIsdp", 3), Err(DecodeError::PasswordWithoutUsername));
    assert_eq!(password_only("MQTT", 4), Err(DecodeError::PasswordWithoutUsername));
    assert_eq!(&password_only("MQTT", 5).unwrap().password.unwrap()[..], b"p");

    // 3.1 disregards Will QoS and Retain where there is no Will, and uses none of them.
    let stray = |name, level| connect(name, level, 0x3A, b"\0\x01c");
    assert_eq!(stray("MQIsdp", 3).unwrap().will, None);
    assert_eq!(stray("MQTT", 4), Err(DecodeError::WillFlags));
    assert_eq!(stray("MQTT", 5), Err(DecodeError::WillFlags));

    // case P7
    for (name, level) in [("MQIsdp", 3), ("MQTT", 4), ("MQTT", 5)] {
        assert_eq!(connect(name, level, 0x1E, b"\0\x01c\0\0\x01w\0\0"), Err(DecodeError::QoS));
    }
}

// case P24
#[test]
fn client_ids_of_any_kind() {
    for id in ["c".repeat(24), "c".repeat(65_535), "/ + # $ x".into(), "é/\u{1F600}".into()] {
        for (name, level) in [("MQIsdp", 3), ("MQTT", 4), ("MQTT", 5)] {
            let packet = connect(name, level, 0, &field(id.as_bytes())).unwrap();
            assert_eq!(&packet.client_id[..], id);
            assert_eq!(packet.check(), Ok(()));
        }
    }
}

// case P24
#[test]
fn an_empty_client_id_depends_on_version_and_session() {
    let check = |name, level, flags| connect(name, level, flags, b"\0\0").unwrap().check();
    let refused = Err(CheckError::ClientIdEmpty);
    assert_eq!((check("MQIsdp", 3, 0), check("MQIsdp", 3, 2)), (refused, refused));
    assert_eq!((check("MQTT", 4, 0), check("MQTT", 4, 2)), (refused, Ok(())));
    assert_eq!((check("MQTT", 5, 0), check("MQTT", 5, 2)), (Ok(()), Ok(())));
    assert_eq!(CheckError::ClientIdEmpty.reason(), ReasonCode::ClientIdentifierNotValid);
}

// case P7
#[test]
fn qos_3_is_refused() {
    for version in VERSIONS {
        let properties: &[u8] = if version == Version::V5 { b"\0" } else { b"" };
        let publish = [b"\0\x01t\0\x07", properties, b"x"].concat();
        for first in [0x36, 0x37, 0x3E, 0x3F] {
            let decoded = decode(frame(first, &publish), version, Sender::Client);
            assert_eq!(decoded, Err(DecodeError::QoS), "{version:?}");
        }
        let subscribe = [b"\0\x07", properties, b"\0\x01t\x03"].concat();
        let decoded = decode(frame(0x82, &subscribe), version, Sender::Client);
        assert_eq!(decoded, Err(DecodeError::QoS), "{version:?}");
    }
}

// case P19
#[test]
fn requests_have_entries_and_an_identifier() {
    for version in VERSIONS {
        let properties: &[u8] = if version == Version::V5 { b"\0" } else { b"" };
        for (first, entry) in [(0x82, &b"\0\x01t\0"[..]), (0xA2, b"\0\x01t")] {
            let none = frame(first, &[b"\0\x07", properties].concat());
            assert_eq!(decode(none, version, Sender::Client), Err(DecodeError::NoEntries));
            let zero = frame(first, &[b"\0\0", properties, entry].concat());
            assert_eq!(decode(zero, version, Sender::Client), Err(DecodeError::PacketIdZero));
        }
        for first in [0x32, 0x34] {
            let zero = frame(first, &[b"\0\x01t\0\0", properties, b"x"].concat());
            assert_eq!(decode(zero, version, Sender::Client), Err(DecodeError::PacketIdZero));
        }
    }
}

// case P14
#[test]
fn an_empty_topic_needs_an_alias() {
    let publish = |version, body: &[u8]| decode(frame(0x30, body), version, Sender::Client);
    assert!(publish(Version::V5, b"\0\0\x03\x23\0\x01x").is_ok());
    assert_eq!(publish(Version::V5, b"\0\0\0x"), Err(DecodeError::TopicMissing));
    assert_eq!(publish(Version::V5, b"\0\0\x02\x01\x01x"), Err(DecodeError::TopicMissing));
    let empty = Err(DecodeError::TopicName(TopicError::Empty));
    assert_eq!(publish(Version::V311, b"\0\0x"), empty);
    assert_eq!(publish(Version::V31, b"\0\0x"), empty);
}

#[test]
fn text_and_payload_are_slices_of_the_frame() {
    let frame: Bytes = frame(0x30, b"\0\x05topic\0payload");
    let range = frame.as_ptr_range();
    let Packet::Publish(packet) = decode(frame, Version::V5, Sender::Client).unwrap() else {
        panic!("not a PUBLISH")
    };
    assert!(range.contains(&packet.topic.as_ptr()));
    assert!(range.contains(&packet.payload.as_ptr()));
}
