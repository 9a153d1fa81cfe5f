//! How connections begin and how the broker ends them.

use simcast::mqtt::{Packet, ReasonCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Client, Denied, Dial, Rig, in_time};
use crate::{ONE, VERSIONS};

#[tokio::test]
async fn a_client_without_an_id_gets_one_or_none() {
    let rig = Rig::start().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let client = rig.client(Dial::v5("")).await;
        ids.push(client.connack.properties.as_ref().unwrap().assigned_client_id.clone().unwrap());
    }
    assert_ne!(ids[0], ids[1], "[MQTT-3.1.3-6]");
    // The id names the session from then on.
    let mut first = rig.client(Dial::v5("").expiry_secs(100)).await;
    let id = first.connack.properties.as_ref().unwrap().assigned_client_id.clone().unwrap();
    let again = rig.client(Dial::v5(&id).persistent()).await;
    assert!(again.session_present());
    assert_eq!(first.expect_goodbye().await, ReasonCode::SessionTakenOver);
    rig.client(Dial::v311("")).await.ping().await;
    let refused = Some(Denied::ConnAck(ReasonCode::ClientIdentifierNotValid));
    assert_eq!(rig.try_client(Dial::v311("").persistent()).await.err(), refused);
}

#[tokio::test]
async fn unknown_versions_are_told_so() {
    let rig = Rig::start().await;
    let connect = |level: u8| {
        let mut bytes = b"\x10\x0d\x00\x04MQTT\x00\x02\x00\x3c\x00\x01a".to_vec();
        bytes[8] = level;
        bytes
    };
    // [MQTT-3.1.2-2]: a later version is answered in the form of version 5.
    for (level, answer) in [(3, &[0x20, 2, 0, 1][..]), (6, &[0x20]), (255, &[0x20])] {
        let mut socket = rig.tcp(rig.plain).await;
        socket.write_all(&connect(level)).await.unwrap();
        let mut bytes = Vec::new();
        in_time("the end", socket.read_to_end(&mut bytes)).await.unwrap();
        assert!(bytes.starts_with(answer), "{level}: {bytes:?}");
        if level > 5 {
            assert_eq!(bytes[3], ReasonCode::UnsupportedProtocolVersion as u8);
        }
    }
    let counter = "simcast_connects_total{result=\"unsupported_version\"}";
    assert_eq!(rig.counter(counter).await, 3);
}

#[tokio::test]
async fn version_3_1_is_served() {
    let rig = Rig::start().await;
    let mut client = rig.client(Dial::new(Version::V31, "ancient")).await;
    client.subscribe("a", ONE).await;
    client.publish("a", "x", ONE).await;
    assert_eq!(client.expect_payload().await, "x");
}

#[tokio::test]
async fn a_second_connect_is_a_protocol_error() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let dial = Dial::new(version, "c");
        let mut client = rig.client(dial.clone()).await;
        client.send(&Packet::Connect(Box::new(dial.0))).await;
        let told = (version == Version::V5).then_some(ReasonCode::ProtocolError);
        assert_eq!(client.expect_closed().await.map(|goodbye| goodbye.reason), told);
    }
}

#[tokio::test]
async fn packets_may_come_in_one_piece_or_byte_by_byte() {
    let rig = Rig::start().await;
    let bytes = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a\x82\x06\x00\x01\x00\x01a\x01\
                  \x32\x06\x00\x01a\x00\x02x\xc0\x00\xe0\x00";
    let answer = b"\x20\x02\x00\x00\x90\x03\x00\x01\x01";
    for step in [1, 2, 7, bytes.len()] {
        let mut socket = rig.tcp(rig.plain).await;
        for piece in bytes.chunks(step) {
            socket.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut received = Vec::new();
        in_time("the end", socket.read_to_end(&mut received)).await.unwrap();
        assert!(received.starts_with(answer), "{step}: {received:02x?}");
        // PUBACK, the message and PINGRESP follow; which of them first is nobody's business.
        let rest = &received[answer.len()..];
        let has = |part: &[u8]| rest.windows(part.len()).any(|window| window == part);
        assert!(has(b"\x40\x02\x00\x02") && has(b"\xd0\x00"), "{step}: {received:02x?}");
    }
}

#[tokio::test]
async fn a_broker_that_stops_says_goodbye_and_closes_its_ports() {
    let rig = Rig::start().await;
    let mut new = rig.device(1, Dial::v5("new").will("w", "x")).await;
    let mut old = rig.client(Dial::v311("old")).await;
    let mut silent = rig.tcp(rig.plain).await;
    let ports = [rig.plain, rig.tls];
    let stopping = rig.service.stop();
    let goodbyes = async {
        assert_eq!(new.expect_goodbye().await, ReasonCode::ServerShuttingDown);
        assert_eq!(old.expect_closed().await, None);
        // It may still stand in the queue of the listening socket, which resets it.
        let mut rest = Vec::new();
        let _ended_or_reset = silent.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        drop((new, old, silent));
    };
    let (all_gone, ()) = in_time("the drain", async { tokio::join!(stopping, goodbyes) }).await;
    assert!(all_gone, "everybody went within the drain timeout");
    for port in ports {
        assert!(TcpStream::connect(port).await.is_err(), "{port} is closed");
    }
}

#[tokio::test]
async fn who_does_not_go_is_not_waited_for() {
    let rig = Rig::with(|config| {
        config.limits.drain_timeout = std::time::Duration::from_millis(100);
        config.limits.write_buffer = 1_000_000;
    })
    .await;
    let mut deaf = rig.client(Dial::v5("deaf")).await;
    deaf.subscribe("a", simcast::mqtt::QoS::AtMostOnce).await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for _ in 0..150 {
        publisher.publish("a", "x".repeat(100_000), simcast::mqtt::QoS::AtMostOnce).await;
    }
    assert!(!in_time("the drain", rig.service.stop()).await, "the deaf one is still there");
}

#[tokio::test]
async fn health_says_ready_while_clients_are_served() {
    let rig = Rig::start().await;
    for path in ["/livez", "/readyz", "/healthz", "/metrics"] {
        let mut socket = rig.tcp(rig.admin).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        in_time(path, socket.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
}

/// Metrics tell how many clients of which version are connected.
#[tokio::test]
async fn connections_are_counted_in_and_out() {
    let rig = Rig::start().await;
    let clients: Vec<Client> =
        vec![rig.client(Dial::v5("a")).await, rig.client(Dial::v311("b")).await];
    for client in clients {
        client.disconnect().await;
    }
    rig.until_counter("simcast_connections{", 0).await;
    assert_eq!(rig.counter("simcast_connects_total{result=\"accepted\"}").await, 2);
    assert_eq!(rig.counter("simcast_disconnects_total{reason=\"client\"}").await, 2);
}
