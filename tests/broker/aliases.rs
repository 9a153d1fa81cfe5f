//! Topic aliases towards clients, and packets no larger than a client takes.

use simcast::mqtt::{Publish, QoS, ReasonCode};

use crate::common::{Client, Denied, Dial, Rig};

async fn receiver(rig: &Rig, aliases: u16) -> Client {
    let mut dial = Dial::v5("receiver").persistent();
    dial.0.properties.topic_alias_maximum = aliases;
    let mut receiver = rig.client(dial).await;
    receiver.subscribe("long/#", QoS::AtLeastOnce).await;
    receiver
}

fn names(message: &Publish) -> (&str, Option<u16>) {
    (&*message.topic, message.properties.as_ref().and_then(|properties| properties.topic_alias))
}

#[tokio::test]
async fn a_client_that_takes_aliases_gets_each_name_once() {
    // case Q19
    let rig = Rig::start().await;
    let mut receiver_of_two = receiver(&rig, 2).await;
    let mut publisher = rig.client(Dial::v5("publisher")).await;
    for topic in ["long/a", "long/b", "long/a", "long/c", "long/a", "long/b"] {
        publisher.publish(topic, topic, QoS::AtLeastOnce).await;
    }
    let expected = [
        ("long/a", Some(1)),
        ("long/b", Some(2)),
        ("", Some(1)),
        ("long/c", Some(2)),
        ("", Some(1)),
        ("long/b", Some(2)),
    ];
    for names_expected in expected {
        assert_eq!(names(&receiver_of_two.expect_publish().await), names_expected);
    }
    receiver_of_two.disconnect().await;
    // Another connection knows no alias [MQTT-3.3.2-7], and this one takes none.
    let mut receiver_of_none = receiver(&rig, 0).await;
    publisher.publish("long/a", "x", QoS::AtLeastOnce).await;
    assert_eq!(names(&receiver_of_none.expect_publish().await), ("long/a", None));
}

#[tokio::test]
async fn an_unacknowledged_message_comes_again_under_a_name_the_new_connection_knows() {
    let rig = Rig::start().await;
    let mut first = receiver(&rig, 5).await;
    first.auto_ack = false;
    let mut publisher = rig.client(Dial::v5("publisher")).await;
    for _ in 0..2 {
        publisher.publish("long/a", "x", QoS::AtLeastOnce).await;
    }
    first.expect_payloads(2).await;
    first.vanish().await;
    let mut second = receiver(&rig, 5).await;
    assert_eq!(names(&second.expect_publish().await), ("long/a", Some(1)));
    assert_eq!(names(&second.expect_publish().await), ("", Some(1)));
}

#[tokio::test]
async fn no_packet_is_larger_than_the_client_takes() {
    // case Q18, [MQTT-3.1.2-24]
    let rig = Rig::start().await;
    let mut publisher = rig.client(Dial::v5("publisher")).await;
    for aliases in [0, 5] {
        // First byte, length, topic length, "long/a", packet id, property length, 40 bytes.
        let (exact, payload) = (1 + 1 + 2 + 6 + 2 + 1 + 40, "x".repeat(40));
        let mut dial = Dial::v5("receiver").packet_bytes_max(exact);
        dial.0.properties.topic_alias_maximum = aliases;
        let mut receiver = rig.client(dial).await;
        receiver.subscribe("long/#", QoS::AtLeastOnce).await;
        publisher.publish("long/a", payload.clone() + "x", QoS::AtLeastOnce).await;
        publisher.publish("long/a", &payload, QoS::AtLeastOnce).await;
        assert_eq!(receiver.expect_payload().await, payload, "one more byte is one too many");
        receiver.expect_nothing().await;
        receiver.disconnect().await;
    }
}

#[tokio::test]
async fn explanations_are_left_out_where_they_do_not_fit() {
    // case Q18, [MQTT-3.4.2-2]
    let rig = Rig::start().await;
    let mut small = rig.client(Dial::v5("small").packet_bytes_max(60)).await;
    let answer = small.publish("$SYS/x", "", QoS::AtLeastOnce).await;
    assert_eq!(answer.text.as_deref(), Some("clients may not publish to $-topics"));
    let mut tiny = rig.client(Dial::v5("tiny").packet_bytes_max(30)).await;
    let answer = tiny.publish("$SYS/x", "", QoS::AtLeastOnce).await;
    assert!(!answer.is_ok() && answer.text.is_none());
    // Without room for a CONNACK with its properties there is no session.
    let refused = Denied::ConnAck(ReasonCode::PacketTooLarge);
    for (bytes, expected) in [(10, refused), (4, Denied::Closed)] {
        let nobody = rig.try_client(Dial::v5("nobody").packet_bytes_max(bytes)).await;
        assert_eq!(nobody.err(), Some(expected));
    }
}
