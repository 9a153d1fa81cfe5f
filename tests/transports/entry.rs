//! Who may come in: versions, QoS, how many and how fast.

use std::time::Duration;

use simcast::config::{DropOrDisconnect, Listener, Protocol};
use simcast::mqtt::{QoS, ReasonCode, Version};
use tokio::io::AsyncWriteExt;

use crate::common::{Client, Denied, Dial, Rig, in_time, nid};
use crate::{CONNECT, ONE, TWO, ZERO, rest, take, ws};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

async fn extra(rig: &Rig, dial: Dial) -> Result<Client, Denied> {
    Client::open(rig.tcp(rig.extra()).await, &dial).await
}

#[tokio::test]
async fn a_listener_speaks_the_versions_it_names() {
    for spoken in VERSIONS {
        let rig = Rig::with_listener(|listener| listener.versions = vec![spoken]).await;
        for version in VERSIONS {
            let result = extra(&rig, Dial::new(version, "c")).await.map(|_client| ());
            let refused = Err(Denied::ConnAck(ReasonCode::UnsupportedProtocolVersion));
            assert_eq!(result, if version == spoken { Ok(()) } else { refused }, "{version:?}");
        }
        let unsupported = "simcast_connects_total{result=\"unsupported_version\"}";
        assert_eq!(rig.counter(unsupported).await, 2);
        // The other listeners speak what they spoke.
        rig.client(Dial::v311("other")).await.disconnect().await;
    }
    let rig = Rig::with_listener(|listener| listener.versions = vec![Version::V5]).await;
    let mut socket = rig.tcp(rig.extra()).await;
    socket.write_all(CONNECT).await.unwrap();
    assert_eq!(rest(socket).await, b"\x20\x02\x00\x01", "unacceptable protocol version");
}

async fn limited(qos: QoS) -> Rig {
    Rig::with_listener(|listener| listener.max_qos = qos).await
}

#[tokio::test]
async fn version_5_is_told_the_highest_qos_and_held_to_it() {
    for (max, above) in [(ZERO, ONE), (ONE, TWO)] {
        let rig = limited(max).await;
        let mut witness = rig.client(Dial::v5("witness")).await;
        witness.subscribe("#", TWO).await;
        let mut client = extra(&rig, Dial::v5("c")).await.unwrap();
        let told = client.connack.properties.as_ref().and_then(|p| p.maximum_qos);
        assert_eq!(told, Some(max)); // [MQTT-3.2.2-9]
        assert!(client.publish("t", "in order", max).await.is_ok());
        assert_eq!(witness.expect_payload().await, "in order");
        // [MQTT-3.2.2-11]
        let packet = simcast::mqtt::Packet::Publish(simcast::mqtt::Publish {
            dup: false,
            qos: above,
            retain: false,
            topic: "t".into(),
            packet_id: simcast::ids::PacketId::new(9),
            properties: None,
            payload: "too high".into(),
        });
        client.send(&packet).await;
        assert_eq!(client.expect_goodbye().await, ReasonCode::QoSNotSupported);
        witness.expect_nothing().await;
        // [MQTT-3.2.2-12]
        let dial = Dial::v5("w").will("gone", "x").will_qos(above);
        let refused = Some(Denied::ConnAck(ReasonCode::QoSNotSupported));
        assert_eq!(extra(&rig, dial).await.err(), refused);
        let dial = Dial::v311("w").will("gone", "x").will_qos(above);
        assert_eq!(extra(&rig, dial).await.err(), Some(Denied::Closed), "3.1.1 has no code");
        assert!(extra(&rig, Dial::v5("w").will("gone", "x").will_qos(max)).await.is_ok());
    }
    let client = limited(TWO).await.client(Dial::v5("c")).await;
    let told = client.connack.properties.as_ref().and_then(|p| p.maximum_qos);
    assert_eq!(told, None, "2 may not stand on the wire");
}

#[tokio::test]
async fn any_qos_may_be_asked_for_and_a_lower_one_is_granted() {
    // [MQTT-3.2.2-10]
    let rig = limited(ONE).await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for dial in [Dial::v311("old"), Dial::v5("new")] {
        let mut client = extra(&rig, dial).await.unwrap();
        assert_eq!(client.subscribe("a", TWO).await, ReasonCode::GrantedQoS1);
        assert_eq!(client.subscribe("b", ZERO).await, ReasonCode::Success);
        for (topic, qos) in [("a", ONE), ("b", ZERO)] {
            publisher.publish(topic, "x", TWO).await;
            assert_eq!(client.expect_publish().await.qos, qos);
        }
    }
    // A session that was subscribed on another listener.
    let mut moved = rig.client(Dial::v5("moved").persistent()).await;
    moved.subscribe("c", TWO).await;
    moved.disconnect().await;
    publisher.publish("c", "x", TWO).await;
    let mut moved = extra(&rig, Dial::v5("moved").persistent()).await.unwrap();
    assert!(moved.session_present());
    assert_eq!(moved.expect_publish().await.qos, ONE);
}

#[tokio::test]
async fn version_3_is_dropped_or_disconnected_as_the_setting_says() {
    for (setting, drops) in [(DropOrDisconnect::Drop, true), (DropOrDisconnect::Disconnect, false)]
    {
        let rig = Rig::with(|config| {
            config.mqtt.qos_exceeded = setting;
            let listener = Listener { max_qos: ONE, ..config.listeners[0].clone() };
            config.listeners.push(listener);
        })
        .await;
        let mut witness = rig.client(Dial::v5("witness")).await;
        witness.subscribe("t", TWO).await;
        let mut client = extra(&rig, Dial::v311("c")).await.unwrap();
        if drops {
            assert!(client.publish("t", "too high", TWO).await.is_ok(), "PUBREC, PUBCOMP");
            let dropped = "simcast_messages_dropped_total{reason=\"qos_exceeded\"}";
            assert_eq!(rig.counter(dropped).await, 1);
            assert!(client.publish("t", "in order", ONE).await.is_ok());
            assert_eq!(witness.expect_payload().await, "in order");
        } else {
            let packet_id = b"\x34\x05\x00\x01t\x00\x09";
            client.send_raw(packet_id).await;
            assert_eq!(client.expect_closed().await, None);
        }
        witness.expect_nothing().await;
    }
}

#[tokio::test]
async fn who_finds_no_room_is_told_so_by_each_version_on_each_transport() {
    let rig = Rig::with(|config| {
        for at in [0, 1] {
            let mut listener = config.listeners[at].clone();
            listener.max_connections = 1;
            listener.protocol = Protocol::Websocket;
            config.listeners.push(listener);
        }
        config.listeners[0].max_connections = 1;
        config.listeners[1].max_connections = 1;
    })
    .await;
    let full = Some(Denied::ConnAck(ReasonCode::QuotaExceeded));
    let _first = rig.client(Dial::v5("1")).await;
    assert_eq!(rig.try_client(Dial::v5("2")).await.err(), full);
    let mut socket = rig.tcp(rig.plain).await;
    socket.write_all(CONNECT).await.unwrap();
    assert_eq!(rest(socket).await, b"\x20\x02\x00\x03", "server unavailable");
    let _device = rig.device(1, Dial::v5("d1")).await;
    assert_eq!(rig.try_device(2, Dial::v5("d2")).await.err(), full);
    let _page = ws::client(&rig, Dial::v5("p1")).await;
    let refused = ws::open(rig.tcp(rig.extra()).await, &Dial::v5("p2")).await;
    assert_eq!(refused.err(), full);
    let secure = rig.service.addresses()[3].tcp().unwrap();
    let handshake = async |number| {
        let issued = rig.authority.issue_device(nid(number)).unwrap();
        rig.handshake_at(secure, Some(&issued)).await.unwrap()
    };
    let _secure = ws::open(handshake(3).await, &Dial::v5("s1")).await.unwrap();
    assert_eq!(ws::open(handshake(4).await, &Dial::v5("s2")).await.err(), full);
    assert_eq!(rig.counter("simcast_connects_total{result=\"quota_exceeded\"}").await, 5);
}

#[tokio::test]
async fn only_some_of_those_without_room_are_listened_to_and_not_for_long() {
    let rig = Rig::with(|config| config.limits.max_connections = 1).await;
    let mut first = rig.client(Dial::v5("1")).await;
    // As many as are told, and more.
    let mut silent = Vec::new();
    for _ in 0..128 {
        silent.push(rig.tcp(rig.plain).await);
    }
    let quota = "simcast_connects_total{result=\"quota_exceeded\"}";
    rig.until_counter(quota, 128).await;
    for _ in 0..50 {
        silent.push(rig.tcp(rig.plain).await);
    }
    rig.until_counter(quota, 178).await;
    first.ping().await;
    for socket in silent {
        assert!(rest(socket).await.is_empty(), "closed after a while, though it said nothing");
    }
    // There is time again to tell somebody.
    let told = async {
        while rig.try_client(Dial::v5("2")).await.err()
            != Some(Denied::ConnAck(ReasonCode::QuotaExceeded))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time("a word", told).await;
    first.ping().await;
}

#[tokio::test]
async fn connects_beyond_the_rate_are_told_to_come_later() {
    let rig = Rig::with(|config| config.limits.connect_rate = 3).await;
    let mut refused = 0;
    let mut accepted = 0;
    while refused == 0 {
        match rig.try_client(Dial::v5("c")).await {
            Ok(_client) => accepted += 1,
            Err(denied) => {
                assert_eq!(denied, Denied::ConnAck(ReasonCode::ConnectionRateExceeded));
                refused += 1;
            }
        }
    }
    assert!(accepted >= 3, "{accepted} in the first second");
    assert_eq!(rig.counter("simcast_connects_total{result=\"rate_exceeded\"}").await, refused);
    let mut socket = rig.tcp(rig.plain).await;
    socket.write_all(CONNECT).await.unwrap();
    let answer = take(&mut socket, 4).await;
    assert!(matches!(answer[..], [0x20, 2, 0, 0 | 3]), "{answer:?}");
    // Later there is room again.
    let later = async {
        while rig.try_client(Dial::v5("c")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    in_time("a quiet moment", later).await;
}
