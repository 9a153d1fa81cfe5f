//! Bounds: of the broker towards clients, and of clients towards the broker.

use simcast::ids::PacketId;
use simcast::mqtt::{Packet, Publish, QoS, ReasonCode};

use crate::common::client::success;
use crate::common::{Client, Denied, Dial, Rig};
use crate::{ONE, listener};

fn exactly_once(id: u16) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::ExactlyOnce,
        retain: false,
        topic: "a".into(),
        packet_id: PacketId::new(id),
        properties: None,
        payload: "x".into(),
    })
}

#[tokio::test]
async fn a_packet_larger_than_the_broker_takes_ends_the_connection() {
    let rig = Rig::with(|config| {
        config.limits.max_packet_size = 1000;
        config.rsp.body_bytes_max = 1000;
    })
    .await;
    let mut new = rig.client(Dial::v5("new")).await;
    let told = new.connack.properties.as_ref().unwrap().maximum_packet_size;
    assert_eq!(told, Some(1000));
    // 1 + 2 bytes of fixed header, 3 of topic, 2 of packet id, 1 of properties.
    assert!(new.publish("a", "x".repeat(1000 - 9), ONE).await.is_ok());
    new.throw("a", "x".repeat(1001 - 9)).await;
    assert_eq!(new.expect_goodbye().await, ReasonCode::PacketTooLarge);
    let mut old = rig.client(Dial::v311("old")).await;
    old.throw("a", "x".repeat(1000)).await;
    assert_eq!(old.expect_closed().await, None);
    // What was announced is enough: the packet itself need not come.
    let mut liar = rig.client(Dial::v5("liar")).await;
    liar.send_raw(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
    assert_eq!(liar.expect_goodbye().await, ReasonCode::PacketTooLarge);
    assert_eq!(rig.counter("simcast_disconnects_total{reason=\"packet_too_large\"}").await, 3);
}

#[tokio::test]
async fn a_packet_larger_than_the_client_takes_is_not_sent() {
    let rig = Rig::start().await;
    let mut small = rig.client(Dial::v5("small").packet_bytes_max(50)).await;
    small.subscribe("a", ONE).await;
    let mut large = listener(&rig, Dial::v5("large"), "a").await;
    let mut publisher = rig.client(Dial::v311("p")).await;
    for size in [41, 42, 30] {
        // 1 + 1 bytes of fixed header, 3 of topic, 2 of packet id, 1 of properties.
        publisher.publish("a", "x".repeat(size), ONE).await;
    }
    large.expect_payloads(3).await;
    let received = small.expect_payloads(3).await;
    assert_eq!(received.iter().map(String::len).collect::<Vec<_>>(), [41, 42, 30]);
    publisher.publish("a", "x".repeat(43), ONE).await;
    small.expect_nothing().await;
    assert_eq!(rig.counter("simcast_messages_dropped_total{reason=\"too_large\"}").await, 1);
}

#[tokio::test]
async fn a_client_has_no_more_under_way_than_it_wants() {
    let rig = Rig::start().await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    let mut slow = rig.client(Dial::v5("s").receive_maximum(2)).await;
    slow.subscribe("a", QoS::ExactlyOnce).await;
    slow.auto_ack = false;
    for number in 0..6 {
        let qos = if number % 2 == 0 { ONE } else { QoS::ExactlyOnce };
        publisher.publish("a", number.to_string(), qos).await;
    }
    let first = slow.arrived().await;
    assert_eq!(first.len(), 2, "[MQTT-3.3.4-9]");
    // A PUBACK makes room; a PUBREC does not, a PUBCOMP does.
    slow.acknowledge(&first[0]).await;
    assert_eq!(slow.arrived().await.len(), 1);
    slow.send(&Packet::PubRec(success(first[1].packet_id.unwrap()))).await;
    // The PUBREL is answered by a PUBCOMP while the barrier reads.
    assert_eq!(slow.arrived().await.len() + slow.arrived().await.len(), 1);
}

#[tokio::test]
async fn the_broker_has_no_more_under_way_than_it_said() {
    let rig = Rig::with(|config| config.limits.receive_maximum = 3).await;
    let mut client = rig.client(Dial::v5("c")).await;
    let told = client.connack.properties.as_ref().unwrap().receive_maximum;
    assert_eq!(told, Some(3));
    for id in 1..=3 {
        client.send(&exactly_once(id)).await;
        assert!(matches!(client.read().await, Some(Packet::PubRec(_))));
    }
    // One is released: there is room for one.
    client.send(&Packet::PubRel(success(PacketId::new(1).unwrap()))).await;
    client.send(&exactly_once(4)).await;
    client.ping().await;
    client.send(&exactly_once(5)).await;
    assert_eq!(client.expect_goodbye().await, ReasonCode::ReceiveMaximumExceeded);
}

#[tokio::test]
async fn a_full_queue_drops_what_comes_last() {
    let rig = Rig::with(|config| config.limits.max_queued_messages = 4).await;
    let dial = Dial::v5("away").persistent();
    listener(&rig, dial.clone(), "a").await.disconnect().await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for number in 0..10 {
        assert!(publisher.publish("a", number.to_string(), ONE).await.is_ok());
    }
    let mut back = rig.client(dial).await;
    assert_eq!(back.expect_payloads(4).await, ["0", "1", "2", "3"]);
    back.expect_nothing().await;
    assert_eq!(rig.counter("simcast_messages_dropped_total{reason=\"queue_full\"}").await, 6);
}

#[tokio::test]
async fn subscriptions_and_topic_levels_are_bounded() {
    let rig = Rig::with(|config| {
        config.limits.max_subscriptions = 2;
        config.limits.max_topic_levels = 2;
    })
    .await;
    let mut client = rig.client(Dial::v5("c")).await;
    assert_eq!(client.subscribe("a", ONE).await, ReasonCode::GrantedQoS1);
    assert_eq!(client.subscribe("a/b/c/d", ONE).await, ReasonCode::TopicFilterInvalid);
    assert_eq!(client.subscribe("a/b/c", ONE).await, ReasonCode::GrantedQoS1);
    assert_eq!(client.subscribe("c", ONE).await, ReasonCode::QuotaExceeded);
    assert_eq!(client.subscribe("a", ONE).await, ReasonCode::GrantedQoS1, "it is there already");
    let answer = client.publish("a/b/c/d", "x", ONE).await;
    assert_eq!(answer.reason, ReasonCode::TopicNameInvalid);
}

#[tokio::test]
async fn sessions_and_connections_are_bounded() {
    let rig = Rig::with(|config| {
        config.limits.max_sessions = 2;
        config.limits.max_connections = 3;
    })
    .await;
    let _first = rig.client(Dial::v5("1")).await;
    let second = rig.client(Dial::v5("2")).await;
    let full = Some(Denied::ConnAck(ReasonCode::QuotaExceeded));
    assert_eq!(rig.try_client(Dial::v5("3")).await.err(), full);
    // Silent connections count as well.
    let silent = rig.tcp(rig.plain).await;
    assert_eq!(rig.try_client(Dial::v5("4")).await.err(), full);
    drop(silent);
    second.disconnect().await;
    let again = async {
        loop {
            if let Ok(client) = rig.try_client(Dial::v5("5")).await {
                return client;
            }
        }
    };
    crate::common::in_time("a free place", again).await.ping().await;
}

#[tokio::test]
async fn client_ids_and_keep_alives_are_bounded() {
    let rig = Rig::with(|config| {
        config.limits.max_client_id_bytes = 10;
        config.limits.max_keepalive = std::time::Duration::from_secs(60);
    })
    .await;
    let keep_alive =
        |client: &Client| client.connack.properties.as_ref().and_then(|p| p.server_keep_alive_secs);
    let too_long = Some(Denied::ConnAck(ReasonCode::ClientIdentifierNotValid));
    assert_eq!(rig.try_client(Dial::v5("12345678901")).await.err(), too_long);
    let client = rig.client(Dial::v5("1234567890").keep_alive_secs(60)).await;
    assert_eq!(keep_alive(&client), None);
    for secs in [0, 61] {
        let client = rig.client(Dial::v5("c").keep_alive_secs(secs)).await;
        assert_eq!(keep_alive(&client), Some(60), "[MQTT-3.1.2-21]");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let rig = Rig::with(|config| config.limits.write_buffer = 10_000).await;
    let mut deaf = rig.client(Dial::v5("deaf")).await;
    deaf.subscribe("a", QoS::AtMostOnce).await;
    let mut brisk = rig.client(Dial::v5("brisk")).await;
    brisk.subscribe("a", QoS::AtMostOnce).await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for _ in 0..300 {
        publisher.publish("a", "x".repeat(50_000), QoS::AtMostOnce).await;
        brisk.expect_publish().await;
    }
    // 15 MB do not fit into socket buffers and a queue of 4 MiB.
    assert!(rig.counter("simcast_messages_dropped_total{reason=\"queue_full\"}").await > 0);
    deaf.expect_publish().await;
}

#[tokio::test]
async fn a_known_device_gets_the_room_of_a_stranger_that_is_away() {
    // case D8
    let rig = Rig::with(|config| config.limits.max_sessions = 3).await;
    rig.client(Dial::v5("stranger").expiry_secs(100).clean()).await.vanish().await;
    let _device = rig.device(1, Dial::v5("device 1").persistent()).await;
    let present = rig.client(Dial::v5("present").persistent()).await;
    let full = Some(Denied::ConnAck(ReasonCode::QuotaExceeded));
    let another = Dial::v5("another stranger").persistent();
    assert_eq!(rig.try_client(another.clone()).await.err(), full, "at nobody's cost");
    let _device = rig.device(2, Dial::v5("device 2").persistent()).await;
    let third = Dial::v5("device 3").persistent();
    assert_eq!(rig.try_device(3, third.clone()).await.err(), full, "nobody is away");
    present.vanish().await;
    let _device = rig.device(3, third).await;
    assert_eq!(rig.try_client(another).await.err(), full);
}

#[tokio::test]
async fn filters_count_with_their_levels() {
    // case D11
    let rig = Rig::with(|config| config.limits.max_subscription_bytes = 4 * 256 + 100).await;
    let mut client = rig.client(Dial::v5("c")).await;
    assert!(!client.subscribe("a/b/c", QoS::AtMostOnce).await.is_error());
    assert_eq!(client.subscribe("a/d", QoS::AtMostOnce).await, ReasonCode::QuotaExceeded);
    assert!(!client.subscribe("a", QoS::AtMostOnce).await.is_error());
    assert!(!client.subscribe("a/b/c", QoS::AtLeastOnce).await.is_error(), "known already");
    client.unsubscribe("a/b/c").await;
    assert!(!client.subscribe("a/d", QoS::AtMostOnce).await.is_error());
}

#[tokio::test]
async fn one_packet_names_only_so_many_filters() {
    // cases D11, P20
    let rig = Rig::start().await;
    let options = simcast::mqtt::SubscribeOptions::default();
    let mut client = rig.client(Dial::v5("many")).await;
    client.subscribe_with(&vec![("a", options); 1 << 14], None).await;
    let mut client = rig.client(Dial::v5("more")).await;
    let filters = [0, 1, b'a', 0].repeat((1 << 14) + 1);
    let mut packet = vec![0x82];
    let mut left = filters.len() + 3;
    while left > 0 {
        packet.push(u8::try_from(left % 128).unwrap() | if left > 127 { 0x80 } else { 0 });
        left /= 128;
    }
    packet.extend([0, 1, 0]);
    packet.extend(filters);
    client.send_raw(&packet).await;
    assert_eq!(client.expect_goodbye().await, ReasonCode::QuotaExceeded);
}
