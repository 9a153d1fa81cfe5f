//! Shared subscriptions (section 4.8 of version 5).

use simcast::mqtt::{Ack, Packet, Publish, ReasonCode, Version};

use crate::common::{Client, Dial, Rig};
use crate::{ONE, QOS, TWO, ends, field, frame, listener};

/// 5: [MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT-3.8.3-4] [MQTT-4.7.1-1] [MQTT-4.7.1-2]
#[tokio::test]
async fn a_shared_filter_has_a_name_and_a_filter() {
    // case P18
    let rig = Rig::start().await;
    let subscribe = |filter: &[u8], options| {
        frame(0x82, &[&[0, 1, 0][..], &field(filter), &[options]].concat())
    };
    for filter in [
        &b"$share/"[..],
        b"$share//t",
        b"$share/g",
        b"$share/g/",
        b"$share/a+b/t",
        b"$share/a#/t",
        b"$share/+/t",
        b"$share/#/t",
        b"$share/g/a#",
        b"$share/g/#/b",
    ] {
        ends(&rig, Version::V5, &subscribe(filter, 1), ReasonCode::MalformedPacket).await;
    }
    // No Local.
    let bytes = subscribe(b"$share/g/t", 0b101);
    ends(&rig, Version::V5, &bytes, ReasonCode::ProtocolError).await;
    let mut client = rig.client(Dial::v5("c")).await;
    for filter in ["$share/g/t", "$share/é /#", "$share/g//", "$share/g/+/t"] {
        assert_eq!(client.subscribe(filter, ONE).await, ReasonCode::GrantedQoS1, "{filter}");
    }
}

/// 5: [MQTT-4.8.2-3]
#[tokio::test]
async fn each_member_gets_the_qos_it_was_granted() {
    let rig = Rig::start().await;
    let mut members = Vec::new();
    for (name, qos) in ["zero", "one", "two"].into_iter().zip(QOS) {
        members.push((listener(&rig, Dial::v5(name), "$share/g/t", qos).await, qos));
    }
    let mut publisher = rig.client(Dial::v5("p")).await;
    for _ in 0..2 {
        for qos in QOS {
            for _ in 0..3 {
                publisher.publish("t", [qos as u8], qos).await;
            }
        }
    }
    for (member, granted) in &mut members {
        let arrived = member.arrived().await;
        assert_eq!(arrived.len(), 6);
        for publish in arrived {
            assert_eq!(publish.qos as u8, publish.payload[0].min(*granted as u8));
        }
    }
}

/// Two members; the one that was sent the message first, unacknowledged.
async fn one_of_two(rig: &Rig, first: &Dial, second: &Dial) -> (Client, Publish, Client) {
    let mut a = listener(rig, first.clone(), "$share/g/t", TWO).await;
    let mut b = listener(rig, second.clone(), "$share/g/t", TWO).await;
    a.auto_ack = false;
    b.auto_ack = false;
    rig.client(Dial::v5("p")).await.publish("t", "x", TWO).await;
    let (of_a, of_b) = (a.arrived().await, b.arrived().await);
    match (&of_a[..], &of_b[..]) {
        ([publish], []) => (a, publish.clone(), b),
        ([], [publish]) => (b, publish.clone(), a),
        both => panic!("{both:?}"),
    }
}

/// 5: [MQTT-4.8.2-4]
#[tokio::test]
async fn a_qos_2_delivery_that_was_begun_is_completed_with_the_same_member() {
    // case Q14
    let rig = Rig::start().await;
    let dials = [Dial::v5("a").persistent(), Dial::v5("b").persistent()];
    let (chosen, publish, mut other) = one_of_two(&rig, &dials[0], &dials[1]).await;
    chosen.vanish().await;
    other.expect_nothing().await;
    // Whichever of them it was: only one session is away.
    let mut back = None;
    for dial in &dials {
        if rig.counter("simcast_sessions{state=\"away\"}").await == 1 {
            let mut client = rig.client(dial.clone()).await;
            client.auto_ack = false;
            let again = client.arrived().await;
            if again.is_empty() {
                // It was the other one, and has been taken over: nothing is lost by it.
                drop(client);
                continue;
            }
            back = Some((client, again));
        }
    }
    let (mut client, again) = back.expect("the chosen member");
    assert_eq!(again, [Publish { dup: true, ..publish }]);
    client.auto_ack = true;
    client.acknowledge(&again[0]).await;
    client.expect_nothing().await;
}

/// 5: [MQTT-4.8.2-5]
#[tokio::test]
async fn a_qos_2_delivery_that_was_begun_goes_to_nobody_else_when_its_session_ends() {
    // case Q14
    let rig = Rig::start().await;
    let (chosen, _publish, mut other) = one_of_two(&rig, &Dial::v5("a"), &Dial::v5("b")).await;
    chosen.vanish().await;
    rig.until_counter("simcast_sessions{", 1).await;
    other.expect_nothing().await;
}

/// 5: [MQTT-4.8.2-6]
#[tokio::test]
async fn a_message_that_a_member_refuses_goes_to_nobody_else() {
    let rig = Rig::start().await;
    for qos in [ONE, TWO] {
        let mut a = listener(&rig, Dial::v5("a"), "$share/g/t", qos).await;
        let mut b = listener(&rig, Dial::v5("b"), "$share/g/t", qos).await;
        a.auto_ack = false;
        b.auto_ack = false;
        rig.client(Dial::v5("p")).await.publish("t", "x", qos).await;
        let (mut of_a, mut of_b) = (a.arrived().await, b.arrived().await);
        let (chosen, other) = if of_a.is_empty() { (&mut b, &mut a) } else { (&mut a, &mut b) };
        let publish = of_a.pop().or_else(|| of_b.pop()).expect("one of them has it");
        let refused = Ack {
            packet_id: publish.packet_id.unwrap(),
            reason: ReasonCode::QuotaExceeded,
            properties: None,
        };
        let packet = if qos == ONE { Packet::PubAck(refused) } else { Packet::PubRec(refused) };
        chosen.send(&packet).await;
        chosen.expect_nothing().await;
        other.expect_nothing().await;
    }
}
