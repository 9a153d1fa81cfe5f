//! PUBLISH: flags, properties, retained messages (section 3.3 of both standards).

use std::time::Duration;

use simcast::mqtt::{Packet, Publish, PublishProperties, ReasonCode, Version};

use crate::common::{Dial, Rig};
use crate::{
    ONE, QOS, TWO, VERSIONS, ZERO, answer, ends, field, frame, listener, message, no_properties,
};

/// 5: [MQTT-3.3.1-4] [MQTT-3.3.1-2] [MQTT-4.13.1-1]
/// 3.1.1: [MQTT-3.3.1-4] [MQTT-3.3.1-2] [MQTT-4.8.0-1]
#[tokio::test]
async fn qos_3_and_a_repeated_qos_0_are_malformed() {
    // case P7
    let rig = Rig::start().await;
    for version in VERSIONS {
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let body = [&field(b"t")[..], &[0, 1], properties].concat();
        for first in [0x36, 0x3E, 0x37, 0x3F] {
            ends(&rig, version, &frame(first, &body), ReasonCode::MalformedPacket).await;
        }
        let body = [&field(b"t")[..], properties].concat();
        ends(&rig, version, &frame(0x38, &body), ReasonCode::MalformedPacket).await;
    }
}

/// 5: [MQTT-3.3.1-1] [MQTT-3.3.1-2] [MQTT-3.3.1-3] [MQTT-4.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2]
/// 3.1.1: [MQTT-3.3.1-1] [MQTT-3.3.1-2] [MQTT-3.3.1-3] [MQTT-4.3.1-1]
#[tokio::test]
async fn dup_says_that_this_packet_was_sent_before_and_is_not_passed_on() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let dial = Dial::new(version, "s").persistent();
        let mut subscriber = listener(&rig, dial.clone(), "t", TWO).await;
        subscriber.auto_ack = false;
        let mut publisher = rig.client(Dial::new(version, "p")).await;
        publisher.publish("t", "0", ZERO).await;
        // The publisher says that it repeats itself; the broker does not.
        for (qos, number) in [(ONE, 1), (TWO, 2)] {
            let repeated = Publish { dup: true, ..message("t", "x", qos, number) };
            publisher.send(&Packet::Publish(repeated)).await;
            answer(&mut publisher).await;
        }
        for qos in QOS {
            let publish = subscriber.expect_publish().await;
            assert_eq!((publish.qos, publish.dup), (qos, false), "{version:?}");
        }
        subscriber.vanish().await;
        let mut subscriber = rig.client(dial.clone()).await;
        for qos in [ONE, TWO] {
            let publish = subscriber.expect_publish().await;
            assert_eq!((publish.qos, publish.dup), (qos, true), "{version:?}");
        }
        subscriber.expect_nothing().await;
        subscriber.disconnect().await;
        rig.client(dial.clean()).await.disconnect().await;
    }
}

/// 5: [MQTT-3.3.4-1] [MQTT-2.2.1-2] [MQTT-2.2.1-5] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11]
/// 3.1.1: [MQTT-3.3.4-1] [MQTT-2.3.1-5] [MQTT-2.3.1-6] [MQTT-4.3.2-2] [MQTT-4.3.3-2]
#[tokio::test]
async fn each_qos_has_its_answer_with_the_same_packet_id() {
    let rig = Rig::start().await;
    let _taker = listener(&rig, Dial::v5("taker"), "t", ZERO).await;
    for version in VERSIONS {
        let mut client = rig.client(Dial::new(version, "c")).await;
        for number in [1, 77, u16::MAX] {
            client.send(&Packet::Publish(message("t", "x", ZERO, 0))).await;
            client.send(&Packet::Publish(message("t", "x", ONE, number))).await;
            let Packet::PubAck(ack) = answer(&mut client).await else { panic!() };
            assert_eq!((ack.packet_id.get(), ack.reason), (number, ReasonCode::Success));
            client.send(&Packet::Publish(message("t", "x", TWO, number))).await;
            let Packet::PubRec(ack) = answer(&mut client).await else { panic!() };
            assert_eq!((ack.packet_id.get(), ack.reason), (number, ReasonCode::Success));
            client.send(&Packet::PubRel(ack)).await;
            let Packet::PubComp(ack) = answer(&mut client).await else { panic!() };
            assert_eq!((ack.packet_id.get(), ack.reason), (number, ReasonCode::Success));
        }
        client.ping().await;
    }
}

/// 5: [MQTT-2.2.1-3]
/// 3.1.1: [MQTT-2.3.1-1]
#[tokio::test]
async fn packet_ids_are_not_zero() {
    // case P19
    let rig = Rig::start().await;
    for version in VERSIONS {
        let v5 = version == Version::V5;
        let properties: &[u8] = if v5 { &[0] } else { &[] };
        let topic = field(b"t");
        let packets = [
            frame(0x32, &[&topic[..], &[0, 0], properties].concat()),
            frame(0x34, &[&topic[..], &[0, 0], properties].concat()),
            frame(0x82, &[&[0, 0], properties, &topic, &[0]].concat()),
            frame(0xA2, &[&[0, 0], properties, &topic].concat()),
        ];
        for bytes in packets {
            ends(&rig, version, &bytes, ReasonCode::MalformedPacket).await;
        }
    }
}

/// 5: [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8]
/// 3.1.1: [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
/// 3.1.1: [MQTT-3.3.1-12]
#[tokio::test]
async fn the_last_retained_message_counts_whatever_its_qos() {
    let rig = Rig::start().await;
    let steps = [
        ("1", ONE, true, Some("1")),
        ("2", ZERO, true, Some("2")), // QoS 0 replaces QoS 1
        ("3", TWO, true, Some("3")),
        ("4", TWO, false, Some("3")), // without the flag it changes nothing
        ("", ZERO, false, Some("3")), // nor does an empty one
        ("", ZERO, true, None),
        ("", ONE, true, None),
        ("5", ZERO, true, Some("5")),
        ("", TWO, true, None),
    ];
    for version in VERSIONS {
        let mut publisher = rig.client(Dial::new(version, "p")).await;
        let mut watcher = listener(&rig, Dial::new(version, "w"), "t", TWO).await;
        for (payload, qos, retain, kept) in steps {
            publisher.publish_with("t", payload, qos, retain, None).await;
            let live = watcher.expect_publish().await;
            assert_eq!((&live.payload[..], live.retain), (payload.as_bytes(), false));
            let mut late = listener(&rig, Dial::new(version, "late"), "t", TWO).await;
            let found = late.arrived().await;
            let found: Vec<_> = found.iter().map(|p| (&p.payload[..], p.retain)).collect();
            let kept: Vec<_> = kept.iter().map(|kept| (kept.as_bytes(), true)).collect();
            assert_eq!(found, kept, "{version:?} after {payload:?}");
            late.disconnect().await;
        }
    }
}

/// 3.1.1: [MQTT-4.8.0-2]
#[tokio::test]
async fn a_retained_message_without_room_is_not_acknowledged_as_if_it_had_some() {
    let rig = Rig::with(|config| config.limits.max_retained_messages = 1).await;
    for qos in QOS {
        for version in VERSIONS {
            let mut client = rig.client(Dial::new(version, "c")).await;
            assert!(client.retain("first", "x").await.is_ok());
            let second = Publish { retain: true, ..message("second", "x", qos, 9) };
            client.send(&Packet::Publish(second)).await;
            client.send(&Packet::PingReq).await;
            let said = client.read().await;
            match (version, qos) {
                // It is told and may try again later.
                (Version::V5, ONE | TWO) => {
                    let Some(Packet::PubAck(ack) | Packet::PubRec(ack)) = said else { panic!() };
                    assert_eq!(ack.reason, ReasonCode::QuotaExceeded);
                }
                (Version::V5, _) => assert!(matches!(said, Some(Packet::PingResp))),
                // It cannot be told, and learns from the end of the connection.
                _ => assert!(said.is_none(), "{qos:?}: {said:?}"),
            }
        }
    }
    assert_eq!(rig.counter("simcast_retained_messages ").await, 1);
}

/// 5: [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18]
/// 5: [MQTT-3.3.2-20]
#[tokio::test]
async fn properties_arrive_as_they_were_sent() {
    // case Q24
    let rig = Rig::start().await;
    let user = [("k", "1"), ("a", "2"), ("k", "1"), ("", ""), ("é", "\u{FEFF}")];
    let all = PublishProperties {
        payload_is_utf8: Some(true),
        response_topic: Some("r/é".into()),
        correlation_data: Some((&b"\0\xff"[..]).into()),
        content_type: Some("".into()),
        user: user.map(|(name, value)| (name.into(), value.into())).to_vec(),
        ..no_properties()
    };
    let mut live = listener(&rig, Dial::v5("live"), "t", TWO).await;
    let mut shared = listener(&rig, Dial::v5("shared"), "$share/g/t", TWO).await;
    let away = Dial::v5("away").persistent();
    listener(&rig, away.clone(), "t", TWO).await.disconnect().await;
    let mut old = listener(&rig, Dial::v311("old"), "t", TWO).await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for qos in QOS {
        publisher.publish_with("t", "x", qos, true, Some(all.clone())).await;
        for client in [&mut live, &mut shared] {
            let received = client.expect_publish().await.properties.expect("properties");
            assert_eq!(*received, all, "{qos:?}");
        }
        assert_eq!(old.expect_publish().await.properties, None, "3.1.1 has no room for them");
        let mut late = listener(&rig, Dial::v5("late"), "t", TWO).await;
        assert_eq!(*late.expect_publish().await.properties.expect("properties"), all);
    }
    let mut back = rig.client(away).await;
    for _ in [ONE, TWO] {
        assert_eq!(*back.expect_publish().await.properties.expect("properties"), all);
    }
    // "Any bytes" and nothing said are the same, and yet neither becomes the other.
    for payload_is_utf8 in [Some(false), None] {
        let properties = PublishProperties {
            payload_is_utf8,
            content_type: Some("x".into()),
            ..no_properties()
        };
        publisher.publish_with("t", "x", ONE, false, Some(properties.clone())).await;
        assert_eq!(live.expect_publish().await.properties, Some(Box::new(properties)));
    }
    // From the other side nothing is added.
    let mut old = rig.client(Dial::v311("old publisher")).await;
    old.publish("t", "x", ONE).await;
    assert_eq!(live.expect_publish().await.properties, None);
}

/// 5: [MQTT-3.1.3-10] [MQTT-3.1.2-14] [MQTT-3.1.2-15]
/// 3.1.1: [MQTT-3.1.2-16] [MQTT-3.1.2-17]
#[tokio::test]
async fn a_will_is_a_message_like_any_other() {
    let rig = Rig::start().await;
    let user = [("b", "1"), ("a", "2"), ("b", "3")];
    let properties = PublishProperties {
        content_type: Some("text".into()),
        user: user.map(|(name, value)| (name.into(), value.into())).to_vec(),
        ..no_properties()
    };
    for version in VERSIONS {
        for (retained, qos) in [(true, ONE), (false, ONE), (false, ZERO), (true, TWO)] {
            let topic = format!("will/{version:?}/{retained}/{qos:?}");
            let mut watcher = listener(&rig, Dial::v5("watcher"), &topic, TWO).await;
            let mut dial = Dial::new(version, "w").will(&topic, "gone");
            let will = dial.0.will.as_mut().unwrap();
            will.retain = retained;
            will.qos = qos;
            will.properties = (version == Version::V5).then(|| Box::new(properties.clone()));
            rig.client(dial).await.vanish().await;
            let live = watcher.expect_publish().await;
            assert_eq!((live.qos, live.retain), (qos, false));
            let expected = (version == Version::V5).then(|| Box::new(properties.clone()));
            assert_eq!(live.properties, expected);
            let mut late = listener(&rig, Dial::v5("late"), &topic, TWO).await;
            let kept = late.arrived().await;
            assert_eq!(kept.len(), usize::from(retained), "{topic}");
            assert!(kept.iter().all(|publish| publish.retain));
        }
    }
}

/// 5: [MQTT-3.3.2-5] [MQTT-3.3.2-6] [MQTT-4.3.3-7] [MQTT-4.3.3-13]
#[tokio::test]
async fn the_time_that_a_message_waited_is_taken_off_its_expiry() {
    // case Q4
    let rig = Rig::start().await;
    let lasting = |secs| PublishProperties { message_expiry_secs: Some(secs), ..no_properties() };
    let dial = Dial::v5("s").persistent();
    let mut subscriber = listener(&rig, dial.clone(), "t", TWO).await;
    // One is under way already, as far as PUBLISH, another as far as PUBREC.
    subscriber.auto_ack = false;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for payload in ["published", "received"] {
        publisher.publish_with("t", payload, TWO, false, Some(lasting(1))).await;
    }
    subscriber.expect_publish().await;
    let received = subscriber.expect_publish().await;
    subscriber.acknowledge(&received).await;
    // Its PUBREL is read, and must not be answered.
    subscriber.vanish().await;
    for (payload, secs) in [("short", 1), ("long", 60)] {
        let taken = publisher.publish_with("t", payload, TWO, true, Some(lasting(secs))).await;
        assert!(taken.is_ok(), "{payload}");
    }
    // The broker's clock is the system's.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let mut back = rig.client(dial).await;
    // What was sent is sent to its end; what was not is deleted; the rest has less time left.
    let again = back.expect_publish().await;
    assert_eq!((again.dup, &again.payload[..]), (true, &b"published"[..]));
    let mut late = listener(&rig, Dial::v5("late"), "t", TWO).await;
    for client in [&mut back, &mut late] {
        let long = client.expect_publish().await;
        assert_eq!(long.payload, "long");
        let left = long.properties.unwrap().message_expiry_secs.unwrap();
        assert!((30..60).contains(&left), "{left}");
        client.expect_nothing().await;
    }
}

/// 5: [MQTT-3.3.2-7] [MQTT-3.3.2-12] [MQTT-3.3.2-9] [MQTT-3.2.2-17]
#[tokio::test]
async fn topic_aliases_last_as_long_as_their_connection() {
    // case P14, case Q19
    let rig = Rig::start().await;
    let mut subscriber = listener(&rig, Dial::v5("s"), "#", ONE).await;
    let dial = Dial::v5("p").persistent();
    let mut publisher = rig.client(dial.clone()).await;
    let highest = publisher.connack.properties.as_ref().unwrap().topic_alias_maximum.unwrap();
    let alias = |number| Some(PublishProperties { topic_alias: Some(number), ..no_properties() });
    for number in 1..=highest {
        let topic = format!("topic/{number}");
        publisher.publish_with(&topic, "x", ONE, false, alias(number)).await;
        publisher.publish_with("", "x", ONE, false, alias(number)).await;
        for _ in 0..2 {
            assert_eq!(subscriber.expect_publish().await.topic, topic);
        }
    }
    publisher.disconnect().await;
    let mut publisher = rig.client(dial).await;
    assert!(publisher.session_present());
    let unknown = message("", "x", ZERO, 0);
    let unknown = Publish { properties: alias(1).map(Box::new), ..unknown };
    publisher.send(&Packet::Publish(unknown)).await;
    assert_eq!(publisher.expect_goodbye().await, ReasonCode::ProtocolError);
    subscriber.expect_nothing().await;
}

/// 5: [MQTT-3.1.2-27] [MQTT-3.3.2-11]
#[tokio::test]
async fn who_takes_no_topic_alias_gets_none() {
    let rig = Rig::start().await;
    let mut subscriber = listener(&rig, Dial::v5("s"), "t", ONE).await;
    for _ in 0..5 {
        subscriber.publish("t", "x", ONE).await;
        let publish = subscriber.expect_publish().await;
        assert_eq!((&*publish.topic, publish.properties), ("t", None));
    }
}

/// 5: [MQTT-3.2.2-18]
#[tokio::test]
async fn where_no_topic_alias_is_taken_every_one_is_invalid() {
    let rig = Rig::with(|config| config.limits.topic_alias_maximum = 0).await;
    let mut client = rig.client(Dial::v5("c")).await;
    let told = client.connack.properties.as_ref().unwrap().topic_alias_maximum;
    assert_eq!(told.unwrap_or(0), 0);
    let properties = Some(Box::new(PublishProperties { topic_alias: Some(1), ..no_properties() }));
    let publish = Publish { properties, ..message("t", "x", ZERO, 0) };
    client.send(&Packet::Publish(publish)).await;
    assert_eq!(client.expect_goodbye().await, ReasonCode::TopicAliasInvalid);
}

/// 5: [MQTT-3.1.2-26] [MQTT-3.3.2-8] [MQTT-3.3.2-11] [MQTT-3.3.2-7]
#[tokio::test]
async fn aliases_of_the_broker_keep_to_the_maximum_of_the_client() {
    let rig = Rig::start().await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for maximum in [1, 3, u16::MAX] {
        let mut dial = Dial::v5("s").persistent();
        dial.0.properties.topic_alias_maximum = maximum;
        let mut subscriber = listener(&rig, dial, "#", ONE).await;
        let mut names = std::collections::HashMap::new();
        for round in 0..60 {
            let topic = format!("topic/of/some/length/{}", round % 20);
            publisher.publish(&topic, "x", ONE).await;
            let publish = subscriber.expect_publish().await;
            let alias = publish.properties.as_ref().and_then(|p| p.topic_alias);
            assert!(alias.is_none_or(|alias| (1..=maximum).contains(&alias)), "{alias:?}");
            if publish.topic.is_empty() {
                assert_eq!(names[&alias.expect("an alias")], topic);
            } else {
                assert_eq!(publish.topic, topic);
                names.extend(alias.map(|alias| (alias, topic)));
            }
        }
        assert!(!names.is_empty(), "{maximum}: no alias was used");
        subscriber.disconnect().await;
    }
}
