//! Topic names and filters (section 4.7 of both standards).

use simcast::mqtt::{ReasonCode, Version};

use crate::common::{Dial, Rig};
use crate::{ONE, VERSIONS, ends, field, frame, listener};

fn publish(version: Version, topic: &[u8]) -> Vec<u8> {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    frame(0x30, &[&field(topic), properties].concat())
}

fn subscribe(version: Version, filter: &[u8]) -> Vec<u8> {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    frame(0x82, &[&[0, 1], properties, &field(filter), &[0]].concat())
}

fn unsubscribe(version: Version, filter: &[u8]) -> Vec<u8> {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    frame(0xA2, &[&[0, 1], properties, &field(filter)].concat())
}

/// 5: [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT-4.7.3-2]
/// 3.1.1: [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.3-2]
#[tokio::test]
async fn a_topic_name_has_no_wildcard() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        for name in [&b"#"[..], b"+", b"a/#", b"a/+/b", b"a#", b"a+b", b"a\0b"] {
            let bytes = publish(version, name);
            ends(&rig, version, &bytes, ReasonCode::MalformedPacket).await;
        }
    }
}

/// 5: [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-2]
/// 3.1.1: [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-2]
#[tokio::test]
async fn a_wildcard_is_a_level_and_the_hash_the_last_one() {
    // case P17
    let rig = Rig::start().await;
    for version in VERSIONS {
        for filter in [&b"a#"[..], b"a/#/b", b"#/", b"##", b"+a", b"a/+b", b"a+/b", b"++", b"\0"] {
            for bytes in [subscribe(version, filter), unsubscribe(version, filter)] {
                ends(&rig, version, &bytes, ReasonCode::MalformedPacket).await;
            }
        }
        let mut client = rig.client(Dial::new(version, "c")).await;
        for filter in ["#", "+", "+/+", "a/#", "/+", "+/", "/", "//", "a/+/#", "+/#"] {
            assert_eq!(client.subscribe(filter, ONE).await, ReasonCode::GrantedQoS1, "{filter}");
        }
    }
}

/// 5: [MQTT-4.7.3-1]
/// 3.1.1: [MQTT-4.7.3-1]
#[tokio::test]
async fn a_topic_has_at_least_one_character() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        for bytes in [subscribe(version, b""), unsubscribe(version, b"")] {
            ends(&rig, version, &bytes, ReasonCode::MalformedPacket).await;
        }
        // In version 5 an alias might stand for it, and is missing.
        ends(&rig, version, &publish(version, b""), ReasonCode::ProtocolError).await;
    }
}

/// 5: [MQTT-4.7.3-3] [MQTT-4.7.3-4]
/// 3.1.1: [MQTT-4.7.3-3] [MQTT-4.7.3-4]
#[tokio::test]
async fn a_topic_may_take_65535_bytes_and_is_never_changed() {
    let rig = Rig::start().await;
    // Composed and decomposed, cases, blanks, empty levels, a byte order mark, no character.
    let long = "x".repeat(65_535);
    let names = [
        "é",
        "e\u{301}",
        "É",
        "a",
        "A",
        "a ",
        " a",
        "a/",
        "/a",
        "a//b",
        "a/b",
        "a/../a",
        "\u{FEFF}a",
        "\u{FFFF}",
        "a%2Fb",
        "a\\b",
        &long,
    ];
    for version in VERSIONS {
        let mut client = rig.client(Dial::new(version, "c")).await;
        for name in names {
            assert_eq!(client.subscribe(name, ONE).await, ReasonCode::GrantedQoS1);
            for other in names {
                assert!(client.publish(other, "x", ONE).await.is_ok());
            }
            let arrived = client.arrived().await;
            let topics: Vec<&str> = arrived.iter().map(|publish| &*publish.topic).collect();
            assert_eq!(topics, [name], "{version:?}");
            client.unsubscribe(name).await;
        }
    }
}

/// 5: [MQTT-3.3.2-3] [MQTT-4.7.2-1]
/// 3.1.1: [MQTT-3.3.2-3] [MQTT-4.7.2-1]
#[tokio::test]
async fn a_message_reaches_the_filters_that_match_its_topic() {
    // case P15
    let rig = Rig::start().await;
    let topics = ["a", "a/b", "a/b/c", "/", "/a", "a/", "b/b", "a//c"];
    let table: [(&str, &[&str]); 12] = [
        ("#", &["a", "a/b", "a/b/c", "/", "/a", "a/", "b/b", "a//c"]),
        ("+", &["a"]),
        ("a/#", &["a", "a/b", "a/b/c", "a/", "a//c"]),
        ("a/+", &["a/b", "a/"]),
        ("+/+", &["a/b", "/", "/a", "a/", "b/b"]),
        ("/+", &["/", "/a"]),
        ("+/", &["/", "a/"]),
        ("a/+/c", &["a/b/c", "a//c"]),
        ("+/b/#", &["a/b", "a/b/c", "b/b"]),
        ("a/b", &["a/b"]),
        ("/#", &["/", "/a"]),
        ("$foo/#", &[]),
    ];
    let mut publisher = rig.client(Dial::v5("p")).await;
    for version in VERSIONS {
        for (filter, expected) in table {
            let mut client = listener(&rig, Dial::new(version, "c"), filter, ONE).await;
            for topic in topics {
                publisher.publish(topic, "x", ONE).await;
            }
            // A client may not publish there; a wildcard would not see it if it could.
            for dollar in ["$foo", "$SYS/x", "$share/x", "$CONTROL/x", "$"] {
                assert!(!publisher.retain(dollar, "x").await.is_ok());
            }
            let arrived = client.arrived().await;
            let found: Vec<&str> = arrived.iter().map(|publish| &*publish.topic).collect();
            assert_eq!(found, expected, "{filter}");
            client.disconnect().await;
        }
    }
    // The broker itself publishes there, and only who asks for it by name gets it.
    let mut client = listener(&rig, Dial::v5("c"), "$SYS/broker/version", ONE).await;
    assert_eq!(client.expect_publish().await.topic, "$SYS/broker/version");
    for filter in ["#", "+/broker/version", "+/+/+", "+/#"] {
        let mut client = listener(&rig, Dial::v5("c"), filter, ONE).await;
        client.expect_nothing().await;
    }
}

/// 3.1.1: [MQTT-3.3.5-2]
#[tokio::test]
async fn a_3_1_1_client_that_may_not_publish_is_acknowledged_and_not_heard() {
    let rig = Rig::start().await;
    let mut watcher = listener(&rig, Dial::v5("w"), "$x/#", ONE).await;
    watcher.subscribe("#", ONE).await;
    let mut client = rig.client(Dial::v311("c")).await;
    for qos in crate::QOS {
        assert!(client.publish("$x/y", "x", qos).await.is_ok());
    }
    client.ping().await;
    watcher.expect_nothing().await;
}

#[tokio::test]
async fn a_topic_of_slashes_alone_is_refused_and_hurts_nobody() {
    // case P16
    let rig = Rig::start().await;
    let deep = "/".repeat(65_535);
    for version in VERSIONS {
        let mut client = rig.client(Dial::new(version, "c")).await;
        assert!(client.subscribe(&deep, ONE).await.is_error());
        let answer = client.publish(&deep, "x", ONE).await;
        let told = (version == Version::V5).then_some(ReasonCode::TopicNameInvalid);
        assert_eq!(answer.reason, told.unwrap_or(ReasonCode::Success));
        // So many separators are allowed, and one more is not.
        for (slashes, allowed) in [(200, true), (201, false)] {
            let topic = "/".repeat(slashes);
            assert_eq!(!client.subscribe(&topic, ONE).await.is_error(), allowed, "{slashes}");
        }
    }
}
