//! Sessions that outlive their connections.

use simcast::mqtt::{Disconnect, DisconnectProperties, Packet, Publish, QoS, ReasonCode, Version};

use crate::common::client::success;
use crate::common::{Client, Denied, Dial, Rig};
use crate::{ONE, VERSIONS, listener};

#[tokio::test]
async fn session_present_says_whether_there_was_one() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let clean = Dial::new(version, &format!("{version:?}"));
        let persistent = clean.clone().persistent();
        // (connects how, finds a session): each goes with a goodbye.
        let history = [
            (&clean, false),
            (&persistent, false),
            (&persistent, true),
            (&persistent, true),
            (&clean, false),
            (&persistent, false),
            (&persistent, true),
        ];
        for (at, (dial, present)) in history.into_iter().enumerate() {
            let client = rig.client(dial.clone()).await;
            assert_eq!(client.session_present(), present, "{version:?} {at} [MQTT-3.2.2-2]");
            client.disconnect().await;
        }
    }
    // Version 5 keeps both apart: how to begin, and how long to last.
    for (dial, present) in [
        (Dial::v5("c").expiry_secs(100), false),
        (Dial::v5("c").persistent().expiry_secs(0), true),
        (Dial::v5("c").persistent(), false),
        (Dial::v5("c").expiry_secs(100), false),
        (Dial::v5("c").persistent(), true),
    ] {
        let client = rig.client(dial).await;
        assert_eq!(client.session_present(), present);
        client.disconnect().await;
    }
}

#[tokio::test]
async fn messages_wait_for_a_session_that_is_away() {
    let rig = Rig::start().await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for version in VERSIONS {
        let dial = Dial::new(version, "s").persistent();
        let mut subscriber = rig.client(dial.clone()).await;
        subscriber.subscribe("a", QoS::ExactlyOnce).await;
        subscriber.disconnect().await;
        for (text, qos) in [("0", QoS::AtMostOnce), ("1", ONE), ("2", QoS::ExactlyOnce)] {
            publisher.publish("a", text, qos).await;
        }
        let mut subscriber = rig.client(dial.clone()).await;
        assert!(subscriber.session_present());
        // QoS 0 is not kept; the others come in order, and the subscription holds.
        assert_eq!(subscriber.expect_payloads(2).await, ["1", "2"], "[MQTT-4.1.0-1]");
        publisher.publish("a", "live", ONE).await;
        assert_eq!(subscriber.expect_payload().await, "live");
        subscriber.expect_nothing().await;
        rig.client(dial.clean()).await.expect_nothing().await;
    }
}

#[tokio::test]
async fn what_was_under_way_is_sent_again_in_order() {
    // case Q1
    let rig = Rig::start().await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for version in VERSIONS {
        let dial = Dial::new(version, "s").persistent();
        let mut subscriber = rig.client(dial.clone()).await;
        subscriber.subscribe("a", QoS::ExactlyOnce).await;
        subscriber.auto_ack = false;
        for (text, qos) in [("1", ONE), ("2", QoS::ExactlyOnce), ("3", QoS::ExactlyOnce)] {
            publisher.publish("a", text, qos).await;
        }
        let mut before = Vec::new();
        for _ in 0..3 {
            before.push(subscriber.expect_publish().await);
        }
        // The last one gets as far as PUBREC.
        let last = before[2].packet_id.unwrap();
        subscriber.send(&Packet::PubRec(success(last))).await;
        subscriber.vanish().await;

        let mut subscriber = rig.client(dial.clone()).await;
        for old in &before[..2] {
            let again = subscriber.expect_publish().await;
            assert!(again.dup, "[MQTT-3.3.1-1]");
            assert_eq!((again.packet_id, &again.payload), (old.packet_id, &old.payload));
        }
        match subscriber.read().await {
            Some(Packet::PubRel(ack)) => assert_eq!(ack.packet_id, last, "[MQTT-4.4.0-1]"),
            other => panic!("{other:?} instead of PUBREL"),
        }
        subscriber.expect_nothing().await;
        subscriber.disconnect().await;
        rig.client(dial.clone()).await.expect_nothing().await;
        rig.client(dial.clean()).await.disconnect().await;
    }
}

#[tokio::test]
async fn a_qos_2_message_that_is_sent_twice_is_routed_once() {
    // case Q3
    let rig = Rig::start().await;
    let mut subscriber = listener(&rig, Dial::v5("s"), "a").await;
    for version in VERSIONS {
        let dial = Dial::new(version, "p").persistent();
        let mut publisher = rig.client(dial.clone()).await;
        let first = message("a", 5);
        let id = first.packet_id.unwrap();
        publisher.send(&Packet::Publish(first.clone())).await;
        assert!(matches!(publisher.read().await, Some(Packet::PubRec(_))));
        publisher.vanish().await;
        let mut publisher = rig.client(dial.clone()).await;
        publisher.send(&Packet::Publish(Publish { dup: true, ..first })).await;
        assert!(matches!(publisher.read().await, Some(Packet::PubRec(_))));
        for reason in [ReasonCode::Success, ReasonCode::PacketIdentifierNotFound] {
            publisher.send(&Packet::PubRel(success(id))).await;
            let Some(Packet::PubComp(ack)) = publisher.read().await else { panic!() };
            let told = if version == Version::V5 { reason } else { ReasonCode::Success };
            assert_eq!(ack.reason, told);
        }
        assert_eq!(subscriber.expect_payload().await, "x", "[MQTT-4.3.3-10]");
        subscriber.expect_nothing().await;
        rig.client(dial.clean()).await.disconnect().await;
    }
}

fn message(topic: &str, id: u16) -> Publish {
    Publish {
        dup: false,
        qos: QoS::ExactlyOnce,
        retain: false,
        topic: topic.into(),
        packet_id: simcast::ids::PacketId::new(id),
        properties: None,
        payload: "x".into(),
    }
}

#[tokio::test]
async fn a_session_ends_with_its_expiry() {
    let rig = Rig::start().await;
    let dial = Dial::v5("c").persistent().expiry_secs(2);
    let mut client = rig.client(dial.clone()).await;
    client.subscribe("a", ONE).await;
    client.vanish().await;
    assert_eq!(rig.counter("simcast_sessions{state=\"away\"}").await, 1);
    rig.until_counter("simcast_sessions{", 0).await;
    assert_eq!(rig.counter("simcast_subscriptions ").await, 0);
    assert!(!rig.client(dial).await.session_present());
}

#[tokio::test]
async fn the_goodbye_may_change_the_expiry() {
    let rig = Rig::start().await;
    let goodbye = |secs| {
        let properties =
            DisconnectProperties { session_expiry_secs: Some(secs), ..Default::default() };
        let reason = ReasonCode::Success;
        Packet::Disconnect(Disconnect { reason, properties: Some(Box::new(properties)) })
    };
    let mut client = rig.client(Dial::v5("c").persistent()).await;
    client.send(&goodbye(0)).await;
    client.expect_closed().await;
    assert!(!rig.client(Dial::v5("c").persistent()).await.session_present());
    // [MQTT-3.14.2-2]: from zero there is no way up.
    let mut client = rig.client(Dial::v5("d")).await;
    client.send(&goodbye(10)).await;
    assert_eq!(client.expect_goodbye().await, ReasonCode::ProtocolError);
}

#[tokio::test]
async fn a_session_may_go_on_in_another_version() {
    let rig = Rig::start().await;
    let mut client = rig.client(Dial::v311("c").persistent()).await;
    client.subscribe("a", ONE).await;
    client.disconnect().await;
    rig.client(Dial::v5("p")).await.publish("a", "x", ONE).await;
    let mut client = rig.client(Dial::v5("c").persistent()).await;
    assert!(client.session_present());
    assert_eq!(client.expect_payload().await, "x");
}

#[tokio::test]
async fn a_new_connection_takes_over() {
    let rig = Rig::start().await;
    for (first, second) in [(Version::V5, Version::V311), (Version::V311, Version::V5)] {
        let mut old = rig.client(Dial::new(first, "c").persistent()).await;
        old.subscribe("a", ONE).await;
        let mut new = rig.client(Dial::new(second, "c").persistent()).await;
        let told = (first == Version::V5).then_some(ReasonCode::SessionTakenOver);
        assert_eq!(old.expect_closed().await.map(|goodbye| goodbye.reason), told);
        assert!(new.session_present());
        new.publish("a", "x", ONE).await;
        assert_eq!(new.expect_payload().await, "x");
        new.disconnect().await;
        rig.client(Dial::new(second, "c")).await.disconnect().await;
    }
    assert_eq!(rig.counter("simcast_takeovers_total ").await, 2);
}

#[tokio::test]
async fn a_storm_of_take_overs_leaves_one_connection() {
    // case Q7
    let rig = Rig::start().await;
    let mut storm = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let port = rig.plain;
        storm.spawn(async move {
            let stream = tokio::net::TcpStream::connect(port).await.unwrap();
            Client::open(stream, &Dial::v5("c").persistent()).await
        });
    }
    let mut goodbyes = 0;
    let mut standing = Vec::new();
    for client in crate::common::in_time("the storm", storm.join_all()).await {
        let mut client = client.expect("each comes in, for a while");
        client.send(&Packet::PingReq).await;
        match client.read().await {
            Some(Packet::Disconnect(goodbye)) => {
                assert_eq!(goodbye.reason, ReasonCode::SessionTakenOver);
                goodbyes += 1;
            }
            Some(Packet::PingResp) => standing.push(client),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((goodbyes, standing.len()), (19, 1));
    assert_eq!(rig.counter("simcast_sessions{").await, 1);
}

#[tokio::test]
async fn nobody_takes_over_the_session_of_another_identity() {
    // case S13, case S14
    let rig = Rig::start().await;
    let id = crate::common::nid(1).to_string();
    let mut victim = rig.reader(1, Dial::v5(&id).persistent()).await;
    let taken = Some(Denied::ConnAck(ReasonCode::ClientIdentifierNotValid));
    for dial in [Dial::v5(&id), Dial::v5(&id).persistent(), Dial::v311(&id)] {
        assert_eq!(rig.try_device(2, dial.clone()).await.err(), taken);
        assert_eq!(rig.try_client(dial).await.err(), taken);
    }
    victim.expect_nothing().await;
    // Nor when it is away.
    victim.disconnect().await;
    assert_eq!(rig.try_client(Dial::v5(&id)).await.err(), taken);
    assert!(rig.device(1, Dial::v5(&id).persistent()).await.session_present());
    let refused = rig.counter("simcast_connects_total{result=\"client_id_taken\"}").await;
    assert_eq!(refused, 7);
}
