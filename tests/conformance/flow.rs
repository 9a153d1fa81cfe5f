//! Flow control and packet sizes (sections 3.3.4 and 4.9 of version 5, Maximum Packet Size).

use simcast::mqtt::{Packet, PublishProperties};

use crate::common::client::success;
use crate::common::{Dial, Rig};
use crate::{ONE, QOS, TWO, VERSIONS, ZERO, answer, id, listener, message, options};

/// 5: [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2]
#[tokio::test]
async fn no_more_is_under_way_than_the_client_takes() {
    // case Q17
    let rig = Rig::start().await;
    for window in [1, 2, 7] {
        let dial = Dial::v5("s").receive_maximum(window);
        let mut slow = listener(&rig, dial, "t", TWO).await;
        slow.auto_ack = false;
        let mut publisher = rig.client(Dial::v5("p")).await;
        for number in 0..20usize {
            publisher.publish("t", number.to_string(), QOS[1 + number % 2]).await;
        }
        let mut under_way = slow.arrived().await;
        let mut received = 0;
        while let Some(first) = under_way.first() {
            assert!(under_way.len() <= usize::from(window), "{window}: {under_way:?}");
            assert!(first.payload == received.to_string(), "in order");
            // The acknowledgement of one message makes room for one.
            let first = under_way.remove(0);
            slow.acknowledge(&first).await;
            if first.qos == TWO {
                // The barrier reads the PUBREL and answers it.
                slow.barrier().await;
            }
            received += 1;
            under_way.extend(slow.arrived().await);
        }
        assert_eq!(received, 20, "{window}");
    }
}

/// 5: [MQTT-3.3.4-10] [MQTT-4.9.0-3]
#[tokio::test]
async fn a_used_up_window_delays_nothing_but_messages() {
    let rig = Rig::start().await;
    let mut client = listener(&rig, Dial::v5("c").receive_maximum(1), "t", TWO).await;
    client.auto_ack = false;
    client.publish("t", "1", ONE).await;
    client.publish("t", "2", ONE).await;
    assert_eq!(client.arrived().await.len(), 1);
    // Everything a client can ask for is answered: a ping, a subscription, its end, messages.
    client.ping().await;
    client.subscribe("other", TWO).await;
    client.unsubscribe("other").await;
    for qos in QOS {
        assert!(client.publish("elsewhere", "x", qos).await.is_ok());
    }
    client.send(&Packet::PubRel(success(id(99)))).await;
    assert!(matches!(answer(&mut client).await, Packet::PubComp(_)));
    client.send(&Packet::PubRec(success(id(99)))).await;
    assert!(matches!(answer(&mut client).await, Packet::PubRel(_)));
    client.expect_nothing().await;
}

/// 5: [MQTT-3.3.4-7] [MQTT-3.3.4-8]
#[tokio::test]
async fn as_many_messages_as_the_broker_takes_may_be_unreleased() {
    let rig = Rig::with(|config| config.limits.receive_maximum = 3).await;
    let mut client = rig.client(Dial::v5("c")).await;
    let told = client.connack.properties.as_ref().unwrap().receive_maximum;
    assert_eq!(told, Some(3));
    for round in 0..3 {
        for number in 1..=3 {
            client.send(&Packet::Publish(message("t", "x", TWO, number + round))).await;
            assert!(matches!(answer(&mut client).await, Packet::PubRec(_)));
        }
        // QoS 1 is over as soon as it is answered and needs no room; nothing else does.
        client.ping().await;
        client.subscribe("u", ONE).await;
        for number in 1..=3 {
            client.send(&Packet::PubRel(success(id(number + round)))).await;
            assert!(matches!(answer(&mut client).await, Packet::PubComp(_)));
        }
    }
}

/// 5: [MQTT-3.3.4-9]
#[tokio::test]
async fn stray_acknowledgements_make_no_room() {
    // case P26
    let rig = Rig::start().await;
    for version in VERSIONS {
        let mut client = listener(&rig, Dial::new(version, "c").receive_maximum(1), "t", TWO).await;
        client.auto_ack = false;
        let mut publisher = rig.client(Dial::v5("p")).await;
        for payload in ["1", "2", "3"] {
            publisher.publish("t", payload, TWO).await;
        }
        let before = client.arrived().await.len();
        if version == simcast::mqtt::Version::V5 {
            assert_eq!(before, 1);
        }
        let unknown = success(id(4711));
        for packet in [
            Packet::PubAck(unknown.clone()),
            Packet::PubComp(unknown.clone()),
            Packet::PubRec(unknown.clone()),
            Packet::PubRel(unknown),
        ] {
            client.send(&packet).await;
        }
        client.expect_nothing().await;
        // One of the wrong kind for a message under way.
        client.send(&Packet::PubAck(success(id(1)))).await;
        let told = client.expect_closed().await.map(|goodbye| goodbye.reason);
        let v5 = version == simcast::mqtt::Version::V5;
        assert_eq!(told, v5.then_some(simcast::mqtt::ReasonCode::ProtocolError));
    }
}

/// 5: [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[tokio::test]
async fn a_message_is_sent_up_to_the_size_that_the_client_takes() {
    // case Q18
    let rig = Rig::start().await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for qos in QOS {
        let head = if qos == ZERO { 6 } else { 8 };
        let mut small = rig.client(Dial::v5("small").packet_bytes_max(100)).await;
        let named = [("t", options(qos))];
        small.subscribe_with(&named, None).await;
        for (bytes, arrives) in [(99, true), (100, true), (101, false)] {
            publisher.publish("t", "x".repeat(bytes - head), qos).await;
            let arrived = small.arrived().await.len();
            assert_eq!(arrived, usize::from(arrives), "{qos:?} {bytes}");
        }
        // User properties and a subscription identifier count.
        small.subscribe_with(&named, Some(1)).await;
        let user = vec![("k".into(), "v".into())];
        let properties = PublishProperties { user, ..PublishProperties::default() };
        for (bytes, arrives) in [(80, true), (101, false)] {
            let payload = "x".repeat(bytes - head - 2 - 7);
            publisher.publish_with("t", payload, qos, false, Some(properties.clone())).await;
            assert_eq!(small.arrived().await.len(), usize::from(arrives), "{qos:?} {bytes}");
        }
        // None of those that were too long holds up the next.
        publisher.publish("t", "short", qos).await;
        assert_eq!(small.expect_payload().await, "short");
        small.disconnect().await;
    }
}

/// 5: [MQTT-3.2.2-15]
#[tokio::test]
async fn a_packet_is_taken_up_to_the_size_that_the_broker_takes() {
    // case Q18
    let rig = Rig::with(|config| {
        config.limits.max_packet_size = 1000;
        config.rsp.body_bytes_max = 1000;
    })
    .await;
    for (bytes, taken) in [(999, true), (1000, true), (1001, false)] {
        let mut client = rig.client(Dial::v5("c")).await;
        let told = client.connack.properties.as_ref().unwrap().maximum_packet_size;
        assert_eq!(told, Some(1000));
        client.send(&Packet::Publish(message("t", "x", ZERO, 0))).await;
        // Fixed header 3, topic 3, no properties 1; the rest is payload.
        let body = [&b"\0\x01t\0"[..], &vec![b'x'; bytes - 7]].concat();
        client.send_raw(&crate::frame(0x30, &body)).await;
        if taken {
            client.ping().await;
        } else {
            let reason = simcast::mqtt::ReasonCode::PacketTooLarge;
            assert_eq!(client.expect_goodbye().await, reason);
        }
    }
}
