//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11 of both standards).

use simcast::mqtt::{Packet, ReasonCode, SubscribeOptions, Version};

use crate::common::{Dial, Rig, TO_SM_SR};
use crate::{ONE, QOS, TWO, VERSIONS, ZERO, answer, ends, field, frame, listener, options};

fn request(version: Version, first: u8, packet_id: u8, filters: &[(&[u8], Option<u8>)]) -> Vec<u8> {
    let mut body = vec![0, packet_id];
    if version == Version::V5 {
        body.push(0);
    }
    for (filter, options) in filters {
        body.extend(field(filter));
        body.extend(options);
    }
    frame(first, &body)
}

/// 5: [MQTT-3.8.3-2] [MQTT-3.10.3-2]
/// 3.1.1: [MQTT-3.8.3-3] [MQTT-3.10.3-2]
#[tokio::test]
async fn a_request_has_at_least_one_filter() {
    // case P19
    let rig = Rig::start().await;
    for version in VERSIONS {
        for first in [0x82, 0xA2] {
            let bytes = request(version, first, 1, &[]);
            ends(&rig, version, &bytes, ReasonCode::ProtocolError).await;
        }
    }
}

/// 5: [MQTT-3.8.3-5]
/// 3.1.1: [MQTT-3-8.3-4]
#[tokio::test]
async fn reserved_bits_of_the_options_are_zero_and_qos_3_is_none() {
    // case P7
    let rig = Rig::start().await;
    for options in 0..=255u8 {
        let qos_3 = options & 0b11 == 3;
        let bytes = |version| request(version, 0x82, 1, &[(b"t", Some(options))]);
        if options & 0b1111_1100 != 0 || qos_3 {
            let bytes = bytes(Version::V311);
            ends(&rig, Version::V311, &bytes, ReasonCode::MalformedPacket).await;
        }
        if options & 0b1100_0000 != 0 || qos_3 {
            let mut client = rig.client(Dial::v5("rude")).await;
            client.send_raw(&bytes(Version::V5)).await;
            let told = client.expect_goodbye().await;
            // Retain Handling 3 is the lesser error of a packet that may have both.
            let lesser = options & 0x30 == 0x30 && told == ReasonCode::ProtocolError;
            assert!(told == ReasonCode::MalformedPacket || lesser, "{options:#010b}: {told:?}");
        }
    }
}

/// 5: [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-2.2.1-6]
/// 3.1.1: [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-2.3.1-7]
#[tokio::test]
async fn every_request_is_answered_with_its_packet_id() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let mut client = rig.client(Dial::new(version, "c")).await;
        let subscribe = |number| request(version, 0x82, number, &[(b"t", Some(1))]);
        let unsubscribe = |number| request(version, 0xA2, number, &[(b"t", None)]);
        let requests = [subscribe(9), unsubscribe(200), unsubscribe(3), subscribe(9)];
        client.send_raw(&requests.concat()).await;
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(match answer(&mut client).await {
                Packet::SubAck(ack) => ("suback", ack.packet_id.get()),
                Packet::UnsubAck(ack) => ("unsuback", ack.packet_id.get()),
                other => panic!("{other:?}"),
            });
        }
        // The second UNSUBSCRIBE deletes nothing, and is answered.
        assert_eq!(ids, [("suback", 9), ("unsuback", 200), ("unsuback", 3), ("suback", 9)]);
    }
}

/// 5: [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
/// 3.1.1: [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
#[tokio::test]
async fn many_filters_are_many_subscriptions_with_one_answer() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let mut client = rig.client(Dial::new(version, "c")).await;
        let filters = [
            ("a", options(TWO)),
            (TO_SM_SR, options(TWO)), // not for ordinary clients
            ("b", options(ZERO)),
            ("+", options(ONE)),
            ("a", options(ONE)), // the last one counts
        ];
        let codes = client.subscribe_with(&filters, None).await.reasons;
        let refused = match version {
            Version::V5 => ReasonCode::NotAuthorized,
            Version::V31 | Version::V311 => ReasonCode::UnspecifiedError, // 0x80
        };
        let [zero, one, two] =
            [ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2];
        assert_eq!(codes[..], [two, refused, zero, one, one], "{version:?}");
        client.publish("a", "x", TWO).await;
        assert_eq!(client.expect_publish().await.qos, ONE);
        client.publish("b", "x", TWO).await;
        assert_eq!(client.expect_publish().await.qos, ONE);
        client.expect_nothing().await;
    }
}

/// 5: [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2]
/// 3.1.1: [MQTT-3.10.4-6]
#[tokio::test]
async fn many_filters_are_given_up_with_one_answer() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let mut client = rig.client(Dial::new(version, "c")).await;
        for filter in ["a", "b"] {
            client.subscribe(filter, ONE).await;
        }
        let filters = [(&b"b"[..], None), (b"none", None), (b"a", None), (b"a", None)];
        client.send_raw(&request(version, 0xA2, 7, &filters)).await;
        let Packet::UnsubAck(ack) = answer(&mut client).await else { panic!() };
        let [gone, none] = [ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
        let expected: &[ReasonCode] =
            if version == Version::V5 { &[gone, none, gone, none] } else { &[] };
        assert_eq!(ack.reasons[..], *expected);
        for topic in ["a", "b"] {
            client.publish(topic, "x", ONE).await;
        }
        client.expect_nothing().await;
    }
}

/// 5: [MQTT-3.10.4-1] [MQTT-3.10.4-2]
/// 3.1.1: [MQTT-3.10.4-1] [MQTT-3.10.4-2]
#[tokio::test]
async fn a_subscription_is_given_up_by_its_very_filter() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let mut client = listener(&rig, Dial::new(version, "c"), "a/+/b", ONE).await;
        for filter in ["a/#", "a/x/b", "#", "A/+/b", "a/+/b/", "/a/+/b", "a/+/b/#", "+/+/b"] {
            client.unsubscribe(filter).await;
        }
        client.publish("a/x/b", "still", ONE).await;
        assert_eq!(client.expect_payload().await, "still");
        client.unsubscribe("a/+/b").await;
        client.publish("a/x/b", "x", ONE).await;
        client.expect_nothing().await;
    }
}

/// 5: [MQTT-3.10.4-3]
/// 3.1.1: [MQTT-3.10.4-3]
#[tokio::test]
async fn what_was_begun_is_completed_after_the_unsubscribe() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let dial = Dial::new(version, "c").persistent();
        let mut client = listener(&rig, dial.clone(), "t", TWO).await;
        client.auto_ack = false;
        for (payload, qos) in [("1", ONE), ("2", TWO)] {
            client.publish("t", payload, qos).await;
        }
        let one = client.expect_publish().await;
        let two = client.expect_publish().await;
        client.unsubscribe("t").await;
        client.vanish().await;
        let mut client = rig.client(dial.clone()).await;
        client.auto_ack = false;
        for was in [one, two] {
            let again = client.expect_publish().await;
            assert_eq!((again.packet_id, &again.payload), (was.packet_id, &was.payload));
            client.acknowledge(&again).await;
        }
        assert!(matches!(answer(&mut client).await, Packet::PubRel(_)), "[MQTT-4.3.3-4]");
        client.expect_nothing().await;
        rig.client(dial.clean()).await.disconnect().await;
    }
}

/// 5: [MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT-3.3.1-9]
/// 3.1.1: [MQTT-3.8.4-3] [MQTT-3.3.1-6] [MQTT-3.3.1-8]
#[tokio::test]
async fn replacing_a_subscription_sends_retained_messages_again_and_loses_nothing() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let mut client = listener(&rig, Dial::new(version, "c"), "t/#", ONE).await;
        let mut publisher = rig.client(Dial::new(version, "p")).await;
        publisher.retain("t/kept", "kept").await;
        assert_eq!(client.expect_payload().await, "kept");
        // Messages flow while the subscription is replaced, over and over.
        let publishing = async {
            for number in 0..100 {
                publisher.publish("t", number.to_string(), ONE).await;
            }
        };
        let replacing = async {
            for _ in 0..20 {
                client.subscribe("t/#", ONE).await;
            }
        };
        tokio::join!(publishing, replacing);
        let mut arrived = Vec::new();
        for _ in 0..120 {
            arrived.push(client.expect_publish().await);
        }
        client.expect_nothing().await;
        let (kept, live): (Vec<_>, Vec<_>) = arrived.into_iter().partition(|p| p.retain);
        assert_eq!(kept.len(), 20, "once for each subscription");
        let live: Vec<_> = live.iter().map(|p| String::from_utf8_lossy(&p.payload)).collect();
        let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(live, expected);
        publisher.retain("t/kept", "").await;
    }
}

/// 5: [MQTT-3.8.3-3]
#[tokio::test]
async fn no_local_is_about_the_client_id() {
    let rig = Rig::start().await;
    let dial = Dial::v5("c").persistent();
    let mut client = rig.client(dial.clone()).await;
    let no_local = SubscribeOptions { no_local: true, ..options(ONE) };
    client.subscribe_with(&[("t", no_local)], None).await;
    client.publish("t", "mine", ONE).await;
    client.expect_nothing().await;
    client.disconnect().await;
    // Still the same client, on another connection, with its Will too.
    let mut client = rig.client(dial.clone().will("t", "mine as well")).await;
    client.publish("t", "mine", ONE).await;
    client.expect_nothing().await;
    client.vanish().await;
    let mut client = rig.client(dial).await;
    client.expect_nothing().await;
    let mut other = rig.client(Dial::v5("other")).await;
    other.publish("t", "theirs", ONE).await;
    assert_eq!(client.expect_payload().await, "theirs");
}

/// 5: [MQTT-3.8.4-8]
/// 3.1.1: [MQTT-3.8.4-6]
#[tokio::test]
async fn the_lower_qos_counts() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        for granted in QOS {
            let dial = Dial::new(version, "s");
            let mut client = listener(&rig, dial, "t", granted).await;
            for published in QOS {
                client.publish("t", "x", published).await;
                assert_eq!(client.expect_publish().await.qos, published.min(granted));
            }
            client.disconnect().await;
        }
    }
}

/// 5: [MQTT-3.3.4-2]
/// 3.1.1: [MQTT-3.3.5-1]
#[tokio::test]
async fn overlapping_subscriptions_are_one_message_of_the_highest_qos() {
    // case Q15
    let rig = Rig::start().await;
    for version in VERSIONS {
        let mut client = rig.client(Dial::new(version, "c")).await;
        for (filter, qos) in [("a/b", ZERO), ("a/+", TWO), ("#", ONE)] {
            client.subscribe(filter, qos).await;
        }
        for published in QOS {
            client.publish("a/b", "x", published).await;
            assert_eq!(client.expect_publish().await.qos, published);
            client.expect_nothing().await;
        }
        client.unsubscribe("a/+").await;
        client.publish("a/b", "x", TWO).await;
        assert_eq!(client.expect_publish().await.qos, ONE);
        client.expect_nothing().await;
    }
}
