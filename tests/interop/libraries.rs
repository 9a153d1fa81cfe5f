//! The same scenarios with every client library, every version and every transport: what a fleet
//! does, as its own libraries do it. The other side is the client of these tests, byte by byte.

use simcast::mqtt::{PublishProperties, QoS, Version};

use crate::common::{Client, Dial};
use crate::leash::{Extras, Kind, Leash};
use crate::programs::{Door, Message, Stage, VersionName};

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
const VERSIONS: [VersionName; 2] = ["311", "5"];

fn message(topic: &str, payload: &str, qos: u64) -> Message {
    Message { topic: topic.into(), payload: payload.into(), qos, retain: false, nid: None }
}

/// Somebody at the plain port, of the other version.
async fn other(stage: &Stage, version: VersionName, id: &str) -> Client {
    let dial = if version == "5" { Version::V311 } else { Version::V5 };
    stage.rig.client(Dial::new(dial, id)).await
}

/// Messages both ways with every quality of service and the effective one of both, and retained
/// ones.
async fn messages(kind: Kind, stage: &Stage, door: &Door, version: VersionName) {
    let mut client = Leash::start(kind, door, version, "client", &[]).await;
    let mut peer = other(stage, version, "peer").await;
    for (granted, qos) in (0..).zip(QOS) {
        let topic = format!("to/{granted}");
        assert_eq!(client.subscribe(&topic, granted).await, granted);
        assert!(!peer.subscribe(&format!("from/{granted}"), qos).await.is_error());
        for (sent, qos) in (0..).zip(QOS) {
            peer.publish(&topic, "hello", qos).await;
            assert_eq!(client.message().await, message(&topic, "hello", sent.min(granted)));
            let told = client.publish(&format!("from/{granted}"), "hello", sent).await;
            assert_eq!(told.reason, 0);
            let publish = peer.expect_publish().await;
            assert_eq!(publish.payload, "hello");
            assert_eq!(publish.qos, QOS[sent.min(granted) as usize]);
        }
    }
    client.retain("kept", "by the client", 1).await;
    peer.retain("left", "by the peer").await;
    peer.subscribe("kept", QoS::AtLeastOnce).await;
    assert!(peer.expect_publish().await.retain);
    client.subscribe("left", 1).await;
    let retained = Message { retain: true, ..message("left", "by the peer", 1) };
    assert_eq!(client.message().await, retained);
    // An empty payload takes it away.
    client.retain("kept", "", 1).await;
    assert!(peer.expect_publish().await.payload.is_empty());
    let mut late = other(stage, version, "late").await;
    late.subscribe("kept", QoS::AtLeastOnce).await;
    late.expect_nothing().await;
    client.leave().await;
    peer.retain("left", "").await;
}

/// A Will for who vanishes and none for who says goodbye.
async fn wills(kind: Kind, stage: &Stage, door: &Door, version: VersionName) {
    let mut peer = other(stage, version, "peer").await;
    peer.subscribe("gone/#", QoS::AtLeastOnce).await;
    let will = ["--will", "gone/client", "is gone"];
    Leash::start(kind, door, version, "client", &will).await.leave().await;
    Leash::start(kind, door, version, "client", &will).await.vanish().await;
    assert_eq!(peer.expect_payload().await, "is gone");
    peer.expect_nothing().await;
}

/// Messages wait for a client that is away. Of QoS 2 it is the client that says when they are here.
async fn sessions(kind: Kind, stage: &Stage, door: &Door, version: VersionName) {
    let persistent = ["--persistent"];
    let id = format!("{kind:?}-{version}");
    let mut client = Leash::start(kind, door, version, &id, &persistent).await;
    assert!(!client.session_present);
    client.subscribe("news", 2).await;
    client.leave().await;
    let mut peer = other(stage, version, "peer").await;
    for (number, qos) in (0..).zip([QOS[1], QOS[2], QOS[1]]) {
        peer.publish("news", format!("{number}"), qos).await;
    }
    let mut client = Leash::start(kind, door, version, &id, &persistent).await;
    assert!(client.session_present);
    let mut received = Vec::new();
    for _ in 0..3 {
        received.push(client.message().await);
    }
    received.sort_by(|a, b| a.payload.cmp(&b.payload));
    for (number, qos) in (0..).zip([1, 2, 1]) {
        assert_eq!(received[number], message("news", &format!("{number}"), qos));
    }
    client.leave().await;
}

/// What version 5 has beside the rest.
async fn novelties(kind: Kind, stage: &Stage, door: &Door) {
    let mut client = Leash::start(kind, door, "5", "client", &[]).await;
    let mut peer = stage.rig.client(Dial::v5("peer")).await;
    // Reason codes.
    assert_eq!(client.publish("nobody/listens", "x", 1).await.reason, 0x10);
    assert_eq!(client.publish("$SYS/broker/uptime", "x", 1).await.reason, 0x87);
    // paho goes on after a PUBREC that refuses, and tells what becomes of that.
    let refused = if kind == Kind::Paho { 0x92 } else { 0x87 };
    assert_eq!(client.publish("$SYS/broker/uptime", "x", 2).await.reason, refused);
    assert_eq!(client.subscribe("To_SM-SR", 1).await, 0x87);
    // User properties and message expiry, both ways; an alias of the client.
    peer.subscribe("from", QoS::AtLeastOnce).await;
    let extras = Extras { colour: Some("red".into()), expiry_secs: Some(60), alias: Some(1) };
    assert_eq!(client.publish_with("from", "first", &extras).await.reason, 0);
    assert_eq!(client.publish_with("", "second", &extras).await.reason, 0);
    for payload in ["first", "second"] {
        let publish = peer.expect_publish().await;
        assert_eq!((&*publish.topic, &publish.payload[..]), ("from", payload.as_bytes()));
        let properties = publish.properties.unwrap();
        assert_eq!(properties.user, [("colour".into(), "red".into())]);
        assert!((1..=60).contains(&properties.message_expiry_secs.unwrap()));
        assert_eq!(properties.topic_alias, None);
    }
    client.subscribe("to", 1).await;
    let properties = PublishProperties {
        message_expiry_secs: Some(60),
        user: vec![("colour".into(), "blue".into())],
        ..PublishProperties::default()
    };
    // The second of them comes with an alias of the broker, where the client takes any.
    for payload in ["first", "second"] {
        let properties = Some(properties.clone());
        peer.publish_with("to", payload, QoS::AtLeastOnce, false, properties).await;
        let (received, extras) = client.message_with_extras().await;
        assert_eq!(received, message("to", payload, 1));
        assert_eq!(extras.colour.as_deref(), Some("blue"));
        assert!((1..=60).contains(&extras.expiry_secs.unwrap()));
    }
    shared(&mut client, stage, &mut peer).await;
    client.leave().await;
}

/// Two members of a share group get each message once between them, and both get some.
async fn shared(client: &mut Leash, stage: &Stage, peer: &mut Client) {
    let mut member = stage.rig.client(Dial::v5("member")).await;
    member.subscribe("$share/group/work", QoS::AtLeastOnce).await;
    client.subscribe("$share/group/work", 1).await;
    for number in 0..6 {
        peer.publish("work", format!("{number}"), QoS::AtLeastOnce).await;
    }
    let mut seen: Vec<String> =
        member.arrived().await.iter().map(|p| String::from_utf8_lossy(&p.payload).into()).collect();
    assert_eq!(seen.len(), 3);
    for _ in 0..3 {
        seen.push(client.message().await.payload);
    }
    seen.sort_unstable();
    assert_eq!(seen, ["0", "1", "2", "3", "4", "5"]);
}

/// Everything over plain TCP; over the other transports what they could get wrong.
async fn everything(kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let stage = Stage::start().await;
    for version in VERSIONS {
        let door = stage.plain();
        messages(kind, &stage, &door, version).await;
        wills(kind, &stage, &door, version).await;
        sessions(kind, &stage, &door, version).await;
        let doors = [stage.encrypted(), stage.device(1)];
        let websockets = stage.websockets().into_iter().filter(|_| kind.speaks_websocket());
        for door in doors.into_iter().chain(websockets) {
            messages(kind, &stage, &door, version).await;
        }
    }
    novelties(kind, &stage, &stage.plain()).await;
}

#[tokio::test]
async fn paho_gets_along() {
    everything(Kind::Paho).await;
}

#[tokio::test]
async fn gmqtt_gets_along() {
    everything(Kind::Gmqtt).await;
}

#[tokio::test]
async fn mqtt_js_gets_along() {
    everything(Kind::MqttJs).await;
}

#[tokio::test]
async fn rumqttc_gets_along() {
    everything(Kind::Rumqttc).await;
}
