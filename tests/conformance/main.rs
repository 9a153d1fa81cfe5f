//! The normative statements of MQTT 5.0 and 3.1.1 as data (`mqtt5.tsv`, `mqtt311.tsv`), and the
//! tests over real sockets that prove those which no other test proves.
//!
//! A test names what it proves in its comment: `/// 5:` and `/// 3.1.1:`, then statements.
//! `table.rs` holds tables and comments against each other.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod auth;
mod connack;
mod connect;
mod disconnect;
mod flow;
mod hardening;
mod publish;
mod qos;
mod races;
mod session;
mod shared;
mod subscribe;
mod table;
mod timing;
mod topics;
mod utf8;

use common::{Client, Dial, Rig, in_time};
use simcast::ids::PacketId;
use simcast::mqtt::{
    Packet, Publish, PublishProperties, QoS, ReasonCode, SubscribeOptions, Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The two standards.
const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
const ZERO: QoS = QoS::AtMostOnce;
const ONE: QoS = QoS::AtLeastOnce;
const TWO: QoS = QoS::ExactlyOnce;

/// Options with nothing but a QoS.
fn options(qos: QoS) -> SubscribeOptions {
    SubscribeOptions { qos, ..SubscribeOptions::default() }
}

/// A client that listens to one filter.
async fn listener(rig: &Rig, dial: Dial, filter: &str, qos: QoS) -> Client {
    let mut client = rig.client(dial).await;
    assert_eq!(client.subscribe(filter, qos).await as u8, qos as u8, "{filter}");
    client
}

/// A PUBLISH to be changed by the test. QoS 0 has no packet id, others this one.
fn message(topic: &str, payload: &'static str, qos: QoS, packet_id: u16) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id: if qos == ZERO { None } else { PacketId::new(packet_id) },
        properties: None,
        payload: payload.into(),
    }
}

/// Properties that are all absent.
fn no_properties() -> PublishProperties {
    PublishProperties::default()
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

/// A packet from its first byte and what follows the fixed header.
fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 16_384, "two bytes of length are enough here");
    let len = body.len() as u8;
    let mut bytes = vec![first];
    match body.len() {
        0..128 => bytes.push(len),
        more => bytes.extend([(more % 128) as u8 | 0x80, (more / 128) as u8]),
    }
    bytes.extend(body);
    bytes
}

/// A string or binary field with its length.
fn field(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// Variable header of a CONNECT without keep alive and properties.
fn connect_head(version: Version, flags: u8) -> Vec<u8> {
    match version {
        Version::V31 => [&field(b"MQIsdp")[..], &[3, flags, 0, 0]].concat(),
        Version::V311 => [&field(b"MQTT")[..], &[4, flags, 0, 0]].concat(),
        Version::V5 => [&field(b"MQTT")[..], &[5, flags, 0, 0, 0]].concat(),
    }
}

/// A whole CONNECT of these flags and this payload.
fn connect(version: Version, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(0x10, &[&connect_head(version, flags), payload].concat())
}

/// Everything the broker says to these bytes of a stranger until it closes the connection.
async fn last_words(rig: &Rig, bytes: &[u8]) -> Vec<u8> {
    let mut socket = rig.tcp(rig.plain).await;
    // A broker that is closing need not take everything.
    let _taken_or_not = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ended_or_reset = in_time("the end", socket.read_to_end(&mut answer)).await;
    answer
}

/// What is said to a malformed CONNECT: nothing in 3.1.1, where no return code fits; a CONNACK with
/// an error and nothing else in version 5.
fn is_refusal(version: Version, said: &[u8]) -> bool {
    match version {
        Version::V31 | Version::V311 => said.is_empty(),
        Version::V5 => {
            let alone = simcast::mqtt::frame_len(said) == Ok(Some(said.len()));
            alone && said[0] == 0x20 && said[2] == 0 && matches!(said[3], 0x81 | 0x82)
        }
    }
}

/// These bytes end a client's connection: version 5 is told why, older ones are not.
async fn ends(rig: &Rig, version: Version, bytes: &[u8], reason: ReasonCode) {
    let mut client = rig.client(Dial::new(version, "rude")).await;
    client.send_raw(bytes).await;
    let told = client.expect_closed().await.map(|goodbye| goodbye.reason);
    let expected = (version == Version::V5).then_some(reason);
    assert_eq!(told, expected, "{version:?} {bytes:02x?}");
}

/// The next packet that is no message.
async fn answer(client: &mut Client) -> Packet {
    client.read().await.expect("an answer")
}
