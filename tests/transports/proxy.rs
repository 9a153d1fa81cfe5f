//! The header of a proxy (case P29) before MQTT, TLS and WebSocket, and who a client is behind a
//! proxy that has ended TLS.

use std::time::Duration;

use simcast::config::{Listener, Protocol, ProxyProtocol};
use simcast::mqtt::ReasonCode;
use simcast::rsp::ServerRule;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::{Client, Denied, Dial, Rig, TO_EUICC, envelope, nid};
use crate::{CONNACK, CONNECT, ONE, rest, take, ws};

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 8883\r\n";

/// A header of version 2 over TCP with IPv4 addresses and these extensions.
fn v2(extensions: &[u8]) -> Vec<u8> {
    let rest = [&[192, 0, 2, 1, 192, 0, 2, 2, 4, 210, 34, 179], extensions].concat();
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &len[..], &rest].concat()
}

fn record(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &len[..], value].concat()
}

/// The record of a proxy that has ended TLS: what the client has shown, whether it was verified.
fn tls(client: u8, verify: u32, name: &str) -> Vec<u8> {
    let name = record(0x22, name.as_bytes());
    record(0x20, &[&[client][..], &verify.to_be_bytes(), &name].concat())
}

async fn rig(version: ProxyProtocol) -> Rig {
    Rig::with_listener(|listener| listener.proxy_protocol = version).await
}

/// A listener behind a proxy that ends TLS; without a name nobody comes in.
async fn rig_behind_tls(change: impl FnOnce(&mut Listener)) -> Rig {
    Rig::with_listener(|listener| {
        listener.proxy_protocol = ProxyProtocol::V2;
        listener.allow_anonymous = false;
        change(listener);
    })
    .await
}

async fn behind(rig: &Rig, header: &[u8], dial: Dial) -> Result<Client, Denied> {
    let mut socket = rig.tcp(rig.extra()).await;
    socket.write_all(header).await.unwrap();
    Client::open(socket, &dial).await
}

#[tokio::test]
async fn mqtt_begins_behind_the_header_in_whatever_pieces_it_comes() {
    for (version, header) in [(ProxyProtocol::V1, V1.to_vec()), (ProxyProtocol::V2, v2(&[]))] {
        let rig = rig(version).await;
        let bytes = [&header[..], CONNECT].concat();
        for cut in [1, 5, 15, 16, header.len() - 1, header.len(), bytes.len()] {
            let mut socket = rig.tcp(rig.extra()).await;
            socket.write_all(&bytes[..cut]).await.unwrap();
            // The halves arrive apart: the broker answers another client in between.
            rig.client(Dial::v5("between")).await.ping().await;
            socket.write_all(&bytes[cut..]).await.unwrap();
            assert_eq!(take(&mut socket, 4).await, CONNACK, "cut at {cut}");
        }
        let mut socket = rig.tcp(rig.extra()).await;
        for byte in &bytes {
            socket.write_all(&[*byte]).await.unwrap();
        }
        assert_eq!(take(&mut socket, 4).await, CONNACK);
    }
}

#[tokio::test]
async fn a_proxy_that_speaks_for_itself_is_served() {
    for (version, header) in [
        (ProxyProtocol::V1, &b"PROXY UNKNOWN\r\n"[..]),
        (ProxyProtocol::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"),
        (ProxyProtocol::V2, b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x00"),
        (ProxyProtocol::V2, &[b"\r\n\r\n\0\r\nQUIT\n\x21\x31\x00\xd8", &[0; 216][..]].concat()),
    ] {
        let rig = rig(version).await;
        behind(&rig, header, Dial::v5("c")).await.expect("a connection").ping().await;
    }
}

#[tokio::test]
async fn whatever_is_no_header_is_closed_at_once() {
    let large = v2(&record(0xE0, &[0; 65_000]));
    let other_version = [&b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c"[..], &[0; 12]].concat();
    let cases: [(ProxyProtocol, &[u8]); 9] = [
        (ProxyProtocol::V1, CONNECT),
        (ProxyProtocol::V1, b"PROXY TCP4 nonsense\r\n"),
        (ProxyProtocol::V1, &v2(&[])),
        (ProxyProtocol::V1, &[b"PROXY ", &[b'x'; 200][..]].concat()),
        (ProxyProtocol::V2, CONNECT),
        (ProxyProtocol::V2, V1),
        (ProxyProtocol::V2, &large),
        (ProxyProtocol::V2, &other_version),
        (ProxyProtocol::V2, &v2(&[0x20, 0xff, 0xff, 1])),
    ];
    for (version, bytes) in cases {
        let rig = rig(version).await;
        let mut socket = rig.tcp(rig.extra()).await;
        let _closed_meanwhile = socket.write_all(&[bytes, CONNECT].concat()).await;
        let end = tokio::time::timeout(Duration::from_secs(5), rest(socket)).await;
        assert!(end.expect("closed at once").is_empty());
        let refused = "simcast_connects_total{result=\"proxy_header\"}";
        rig.until_counter(refused, 1).await;
        let header = if version == ProxyProtocol::V1 { V1.to_vec() } else { v2(&[]) };
        behind(&rig, &header, Dial::v5("c")).await.expect("a connection").ping().await;
    }
}

#[tokio::test]
async fn a_header_that_does_not_come_counts_into_the_connect_timeout() {
    let rig = Rig::with(|config| {
        config.limits.connect_timeout = Duration::from_millis(300);
        for proxy_protocol in [ProxyProtocol::V1, ProxyProtocol::V2] {
            let listener = Listener { proxy_protocol, ..config.listeners[0].clone() };
            config.listeners.push(listener);
        }
    })
    .await;
    for (at, header) in [(2, V1.to_vec()), (3, v2(&tls(1, 1, "x")))] {
        let address = rig.service.addresses()[at].tcp().unwrap();
        for len in [0, 3, header.len() - 1] {
            let mut socket = rig.tcp(address).await;
            socket.write_all(&header[..len]).await.unwrap();
            assert!(rest(socket).await.is_empty());
        }
    }
    assert_eq!(rig.counter("simcast_connects_total{result=\"timeout\"}").await, 6);
}

#[tokio::test]
async fn a_header_stands_before_tls_and_before_websocket() {
    let rig = Rig::with(|config| {
        let mut listener = config.listeners[1].clone();
        listener.proxy_protocol = ProxyProtocol::V1;
        listener.protocol = Protocol::Websocket;
        config.listeners.push(listener);
    })
    .await;
    let issued = rig.authority.issue_device(nid(1)).unwrap();
    let mut socket: TcpStream = rig.tcp(rig.extra()).await;
    socket.write_all(V1).await.unwrap();
    let stream = rig.handshake_over(socket, Some(&issued)).await.unwrap();
    let mut device = ws::open(stream, &Dial::v5("device")).await.unwrap();
    assert_eq!(device.subscribe(TO_EUICC, ONE).await, ReasonCode::GrantedQoS1);
    // Without the header the TLS hello is none.
    assert!(rig.handshake_at(rig.extra(), Some(&issued)).await.is_err());
}

#[tokio::test]
async fn the_name_that_the_proxy_has_verified_is_who_the_client_is() {
    let rig = rig_behind_tls(|_listener| {}).await;
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    let eid = nid(1).to_string();
    let header = v2(&tls(0x07, 0, &eid));
    let mut device = behind(&rig, &header, Dial::v5("device")).await.expect("a connection");
    assert_eq!(device.subscribe(TO_EUICC, ONE).await, ReasonCode::GrantedQoS1);
    server.publish(TO_EUICC, envelope(1, 0, "trigger"), ONE).await;
    assert_eq!(device.expect_payload().await, envelope(1, 0, "trigger"));
    // A name that is no EID is an ordinary client's.
    let header = v2(&tls(0x03, 0, "console"));
    let mut console = behind(&rig, &header, Dial::v5("console")).await.expect("a connection");
    assert!(console.subscribe(TO_EUICC, ONE).await.is_error());
    assert!(console.publish("ordinary", "x", ONE).await.is_ok());
    let refused = Some(Denied::ConnAck(ReasonCode::NotAuthorized));
    for header in [
        v2(&tls(0x07, 1, &eid)),      // shown and not verified
        v2(&tls(0x01, 0, &eid)),      // TLS without a certificate
        v2(&tls(0x06, 0, &eid)),      // no TLS at all
        v2(&tls(0x07, 0, "")),        // no name
        v2(&tls(0x07, 0, "a\u{0}b")), // a name that looks like another
        v2(&[]),
        b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".to_vec(),
    ] {
        assert_eq!(behind(&rig, &header, Dial::v5("x")).await.err(), refused, "{header:02x?}");
    }
    // Nobody is a server by what a proxy says of the name alone.
    let rule = ServerRule::CommonName("sm-sr.test".to_owned());
    let header = v2(&tls(0x07, 0, "sm-sr.test"));
    let mut pretender = behind(&rig, &header, Dial::v5("y")).await.expect("a connection");
    let answer = pretender.publish(TO_EUICC, envelope(1, 0, "trigger"), ONE).await;
    assert_eq!(answer.reason, ReasonCode::NotAuthorized, "{rule} is a rule of the TLS listener");
}

#[tokio::test]
async fn clients_that_came_to_the_proxy_without_tls_can_be_refused() {
    let rig = rig_behind_tls(|listener| {
        listener.allow_anonymous = true;
        listener.proxy_require_tls = true;
    })
    .await;
    let client = behind(&rig, &v2(&tls(0x01, 1, "")), Dial::v5("secure")).await;
    client.expect("a connection").ping().await;
    for header in [v2(&[]), v2(&tls(0x06, 0, "x")), v2(&tls(0x00, 0, ""))] {
        assert_eq!(behind(&rig, &header, Dial::v5("open")).await.err(), Some(Denied::Closed));
    }
    rig.until_counter("simcast_connects_total{result=\"proxy_header\"}", 3).await;
}
