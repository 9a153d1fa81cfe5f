//! Quality of service, delivery retry, order (sections 4.3 to 4.6 of both standards).

use simcast::mqtt::{Ack, Packet, Publish, ReasonCode};

use crate::common::client::success;
use crate::common::{Dial, Rig};
use crate::{ONE, QOS, TWO, VERSIONS, answer, id, listener, message};

/// 5: [MQTT-4.3.2-5] [MQTT-4.3.3-12]
/// 3.1.1: [MQTT-4.3.2-2] [MQTT-4.3.3-2]
#[tokio::test]
async fn after_the_last_acknowledgement_the_packet_id_stands_for_a_new_message() {
    let rig = Rig::start().await;
    let mut subscriber = listener(&rig, Dial::v5("s"), "t", TWO).await;
    for version in VERSIONS {
        let mut publisher = rig.client(Dial::new(version, "p")).await;
        for (payload, dup) in [("1", false), ("2", false), ("3", true)] {
            for qos in [ONE, TWO] {
                let publish = Publish { dup, ..message("t", payload, qos, 9) };
                publisher.send(&Packet::Publish(publish)).await;
                answer(&mut publisher).await;
                if qos == TWO {
                    publisher.send(&Packet::PubRel(success(id(9)))).await;
                    assert!(matches!(answer(&mut publisher).await, Packet::PubComp(_)));
                }
                assert_eq!(subscriber.expect_payload().await, payload, "{version:?} {qos:?}");
            }
        }
        subscriber.expect_nothing().await;
    }
}

/// 5: [MQTT-4.3.3-10]
/// 3.1.1: [MQTT-4.3.3-2]
#[tokio::test]
async fn before_the_pubrel_a_repeated_message_is_received_again_and_delivered_once() {
    // case Q3
    let rig = Rig::start().await;
    let mut subscriber = listener(&rig, Dial::v5("s"), "t", TWO).await;
    for version in VERSIONS {
        let mut publisher = rig.client(Dial::new(version, "p")).await;
        for dup in [false, true, true] {
            let publish = Publish { dup, ..message("t", "once", TWO, 9) };
            publisher.send(&Packet::Publish(publish)).await;
            let Packet::PubRec(ack) = answer(&mut publisher).await else { panic!() };
            assert_eq!(ack.packet_id, id(9));
            assert!(!ack.reason.is_error());
        }
        assert_eq!(subscriber.expect_payload().await, "once");
        subscriber.expect_nothing().await;
    }
}

/// 5: [MQTT-4.3.3-9]
#[tokio::test]
async fn after_a_pubrec_with_an_error_the_packet_id_stands_for_a_new_message() {
    let rig = Rig::start().await;
    let mut subscriber = listener(&rig, Dial::v5("s"), "t", TWO).await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for (topic, reason) in [("$x", ReasonCode::NotAuthorized), ("t", ReasonCode::Success)] {
        publisher.send(&Packet::Publish(message(topic, "x", TWO, 9))).await;
        let Packet::PubRec(ack) = answer(&mut publisher).await else { panic!() };
        assert_eq!(ack.reason, reason);
    }
    assert_eq!(subscriber.expect_payload().await, "x");
    publisher.send(&Packet::PubRel(success(id(9)))).await;
    let Packet::PubComp(ack) = answer(&mut publisher).await else { panic!() };
    assert_eq!(ack.reason, ReasonCode::Success, "only the second exchange was open");
}

/// 5: [MQTT-4.3.2-1] [MQTT-4.3.2-3] [MQTT-4.3.3-1] [MQTT-4.3.3-3] [MQTT-4.3.3-4] [MQTT-4.3.3-5]
/// 5: [MQTT-4.3.3-6] [MQTT-4.4.0-1] [MQTT-2.2.1-5]
/// 3.1.1: [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.4.0-1] [MQTT-2.3.1-4] [MQTT-2.3.1-6]
#[tokio::test]
async fn a_delivery_is_cut_at_every_step_and_taken_up_there() {
    // case Q1
    let rig = Rig::start().await;
    for version in VERSIONS {
        let dial = Dial::new(version, "s").persistent();
        let mut subscriber = listener(&rig, dial.clone(), "t", TWO).await;
        subscriber.auto_ack = false;
        let mut publisher = rig.client(Dial::v5("p")).await;
        publisher.publish("t", "1", ONE).await;
        publisher.publish("t", "2", TWO).await;
        let first = subscriber.expect_publish().await;
        let second = subscriber.expect_publish().await;
        assert_ne!(first.packet_id, second.packet_id, "each has an id of its own");
        // Unacknowledged: both again, in order, with their ids, however often.
        for _ in 0..2 {
            subscriber.vanish().await;
            subscriber = rig.client(dial.clone()).await;
            subscriber.auto_ack = false;
            for was in [&first, &second] {
                let again = subscriber.expect_publish().await;
                assert_eq!(again, Publish { dup: true, ..was.clone() });
            }
        }
        // PUBACK and PUBREC: the first is over, of the second the PUBREL is owed.
        let pubrel = second.packet_id.unwrap();
        subscriber.acknowledge(&first).await;
        subscriber.send(&Packet::PubRec(success(pubrel))).await;
        assert!(matches!(rest(&mut subscriber).await[..], [Step::Release(owed)] if owed == pubrel));
        for _ in 0..2 {
            drop(subscriber);
            subscriber = quiet(&rig, &dial).await;
            let steps = rest(&mut subscriber).await;
            assert_eq!(steps, [Step::Release(pubrel)], "{version:?}: never the PUBLISH again");
        }
        // PUBCOMP: nothing is owed any more.
        subscriber.send(&Packet::PubComp(success(pubrel))).await;
        drop(subscriber);
        subscriber = quiet(&rig, &dial).await;
        assert_eq!(rest(&mut subscriber).await, []);
        drop(subscriber);
        rig.client(dial.clean()).await.disconnect().await;
    }
}

/// What the broker sends of a delivery.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Publish(String),
    Release(simcast::ids::PacketId),
}

/// A client that acknowledges nothing at all, not even a PUBREL.
async fn quiet(rig: &Rig, dial: &Dial) -> crate::common::Client {
    let mut client = rig.client(dial.clone()).await;
    client.auto_ack = false;
    client.auto_complete = false;
    client
}

/// Everything that is on its way, unanswered.
async fn rest(client: &mut crate::common::Client) -> Vec<Step> {
    client.auto_complete = false;
    let mut steps = Vec::new();
    for _ in 0..2 {
        client.send(&Packet::PingReq).await;
        loop {
            match answer(client).await {
                Packet::PingResp => break,
                Packet::PubRel(ack) => steps.push(Step::Release(ack.packet_id)),
                Packet::Publish(publish) => {
                    steps.push(Step::Publish(String::from_utf8_lossy(&publish.payload).into()));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    steps
}

/// 5: [MQTT-4.4.0-1]
#[tokio::test]
async fn nothing_is_sent_again_on_the_same_connection() {
    let rig = Rig::start().await;
    let mut subscriber = listener(&rig, Dial::v5("s"), "t", TWO).await;
    subscriber.auto_ack = false;
    subscriber.publish("t", "1", ONE).await;
    subscriber.publish("t", "2", TWO).await;
    assert_eq!(subscriber.arrived().await.len(), 2);
    // Longer than any clock of the broker that might be tempted.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    subscriber.subscribe("other", ONE).await;
    subscriber.expect_nothing().await;
}

/// 5: [MQTT-4.4.0-2]
#[tokio::test]
async fn an_acknowledgement_with_an_error_is_an_acknowledgement() {
    let rig = Rig::start().await;
    let dial = Dial::v5("s").persistent();
    let mut subscriber = listener(&rig, dial.clone(), "t", TWO).await;
    subscriber.auto_ack = false;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for (qos, payload) in [(ONE, "1"), (TWO, "2")] {
        publisher.publish("t", payload, qos).await;
        let publish = subscriber.expect_publish().await;
        let refused = Ack {
            packet_id: publish.packet_id.unwrap(),
            reason: ReasonCode::UnspecifiedError,
            properties: None,
        };
        let packet = if qos == ONE { Packet::PubAck(refused) } else { Packet::PubRec(refused) };
        subscriber.send(&packet).await;
        assert_eq!(rest(&mut subscriber).await, [], "no PUBREL follows");
    }
    subscriber.vanish().await;
    let mut back = quiet(&rig, &dial).await;
    assert_eq!(rest(&mut back).await, []);
}

/// 5: [MQTT-4.5.0-1] [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-3.1.2-23]
/// 3.1.1: [MQTT-4.5.0-1] [MQTT-4.6.0-1] [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-3.1.2-5]
#[tokio::test]
async fn messages_of_a_publisher_keep_their_order_across_connections() {
    // case Q1, case Q17
    let rig = Rig::start().await;
    for version in VERSIONS {
        let dial = Dial::new(version, "s").persistent().receive_maximum(5);
        let mut subscriber = listener(&rig, dial.clone(), "#", TWO).await;
        subscriber.auto_ack = false;
        let mut publisher = rig.client(Dial::v5("p")).await;
        let mut received: Vec<String> = Vec::new();
        for number in 0..120usize {
            let qos = QOS[1 + number % 2];
            publisher.publish(&format!("t/{}", number % 3), number.to_string(), qos).await;
            if number % 20 == 10 {
                // It goes with one received, some under way, some waiting.
                subscriber.auto_ack = true;
                received.push(subscriber.expect_payload().await);
                subscriber.vanish().await;
                subscriber = rig.client(dial.clone()).await;
                subscriber.auto_ack = false;
            }
        }
        subscriber.vanish().await;
        let mut subscriber = rig.client(dial.clone()).await;
        while received.len() < 120 {
            received.push(subscriber.expect_payload().await);
        }
        let expected: Vec<String> = (0..120).map(|number| number.to_string()).collect();
        assert_eq!(received, expected, "{version:?}");
        subscriber.expect_nothing().await;
        rig.client(dial.clean()).await.disconnect().await;
    }
}

/// 5: [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-4]
/// 3.1.1: [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-4]
#[tokio::test]
async fn acknowledgements_come_in_the_order_of_what_they_acknowledge() {
    // The statements bind clients; here it is the broker that receives, and keeps to them.
    let rig = Rig::start().await;
    for version in VERSIONS {
        let mut client = rig.client(Dial::new(version, "c")).await;
        for number in 1..=10 {
            client
                .send(&Packet::Publish(message("t", "x", QOS[1 + usize::from(number) % 2], number)))
                .await;
        }
        for number in 1..=10 {
            let (Packet::PubAck(ack) | Packet::PubRec(ack)) = answer(&mut client).await else {
                panic!()
            };
            assert_eq!(ack.packet_id, id(number));
        }
        for number in (1..=10).step_by(2) {
            client.send(&Packet::PubRel(success(id(number)))).await;
        }
        for number in (1..=10).step_by(2) {
            let Packet::PubComp(ack) = answer(&mut client).await else { panic!() };
            assert_eq!(ack.packet_id, id(number));
        }
    }
}

/// 5: [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]
/// 3.1.1: [MQTT-2.3.1-4]
#[tokio::test]
async fn an_id_in_use_is_passed_over_when_the_numbers_begin_again() {
    // case Q2
    let rig = Rig::start().await;
    let mut subscriber = listener(&rig, Dial::v5("s"), "t", ONE).await;
    subscriber.auto_ack = false;
    subscriber.publish("t", "stays", ONE).await;
    let stays = subscriber.expect_publish().await.packet_id.unwrap();
    let mut publisher = rig.client(Dial::v5("p")).await;
    let mut ids = std::collections::HashSet::new();
    // Once around, in pieces that a queue has room for.
    for _ in 0..=(65_535 / 500) {
        for _ in 0..500 {
            publisher.send(&Packet::Publish(message("t", "x", ONE, 1))).await;
        }
        publisher.ping().await;
        for _ in 0..500 {
            let publish = subscriber.expect_publish().await;
            assert_ne!(publish.packet_id, Some(stays));
            ids.insert(publish.packet_id.unwrap());
            subscriber.acknowledge(&publish).await;
        }
    }
    assert_eq!(ids.len(), 65_534, "every other id but zero");
}
