//! Clients that take or send more than their share over the transports that are new here.

use std::time::Duration;

use simcast::config::Protocol;
use simcast::mqtt::{Packet, Subscribe, SubscribeFilter, SubscribeOptions, Version, encode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::common::{Client, Dial, Rig};
use crate::{CONNACK, CONNECT, ONE, ZERO, take, ws};

/// Memory of this process that is in use, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// A SUBSCRIBE of 3.1.1 to `a`, QoS 0.
fn subscribe() -> Vec<u8> {
    let filter = SubscribeFilter { filter: "a".into(), options: SubscribeOptions::default() };
    let packet = Packet::Subscribe(Subscribe {
        packet_id: simcast::ids::PacketId::new(1).unwrap(),
        subscription_id: None,
        user: Vec::new(),
        filters: [filter].into_iter().collect(),
    });
    let mut bytes = bytes::BytesMut::new();
    encode(&packet, Version::V311, &mut bytes);
    bytes.to_vec()
}

#[tokio::test]
async fn who_does_not_read_costs_a_megabyte_at_most() {
    // case D6
    const READERS: usize = 20;
    let rig = Rig::with(|config| {
        let mut listener = config.listeners[0].clone();
        listener.protocol = Protocol::Websocket;
        config.listeners.push(listener);
        config.limits.max_queued_bytes = 512 << 10;
    })
    .await;
    let mut slow = Vec::new();
    for number in 0..READERS {
        let websocket = number % 2 == 0;
        let socket = TcpSocket::new_v4().unwrap();
        // What the system buffers is not ours.
        socket.set_recv_buffer_size(4096).unwrap();
        let address = if websocket { rig.extra() } else { rig.plain };
        let mut socket = socket.connect(address).await.unwrap();
        let mut connect = CONNECT.to_vec();
        *connect.last_mut().unwrap() = b'A' + u8::try_from(number).unwrap();
        let packets = [connect, subscribe()].concat();
        if websocket {
            socket.write_all(ws::request(&[]).as_bytes()).await.unwrap();
            ws::head(&mut socket).await;
            socket.write_all(&ws::frame(ws::BINARY, &packets)).await.unwrap();
            let (_first, payload) = ws::read_frame(&mut socket).await;
            assert_eq!(payload[..4], *CONNACK);
        } else {
            socket.write_all(&packets).await.unwrap();
            assert_eq!(take(&mut socket, 4).await, CONNACK);
        }
        slow.push(socket);
    }
    let mut reader = ws::client(&rig, Dial::v5("reader")).await;
    reader.subscribe("a", ZERO).await;
    let mut publisher = rig.client(Dial::v5("publisher")).await;
    let before = resident();
    // 40 MB for each of them; those who read get everything.
    for number in 0..400u32 {
        let mut payload = vec![b'x'; 100_000];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        publisher.publish("a", payload, ONE).await;
        let publish = reader.expect_publish().await;
        assert_eq!(publish.payload[..4], number.to_be_bytes());
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < READERS << 20, "{grown} bytes for {READERS} readers");
    let dropped = "simcast_messages_dropped_total{reason=\"queue_full\"}";
    assert!(rig.counter(dropped).await > 0);
    drop(slow);
}

#[tokio::test]
async fn what_is_announced_and_does_not_come_takes_no_room() {
    // cases D13, P3
    let rig = ws::rig().await;
    let before = resident();
    let mut announced = Vec::new();
    for number in 0..100u8 {
        let mut socket = ws::by_hand(&rig, rig.extra()).await;
        let mut connect = CONNECT.to_vec();
        *connect.last_mut().unwrap() = number;
        // A client id may be any text.
        *connect.last_mut().unwrap() = b'!' + number % 90;
        socket.write_all(&ws::frame(ws::BINARY, &connect)).await.unwrap();
        assert_eq!(ws::read_frame(&mut socket).await.1, CONNACK);
        // The longest frame there may be with the largest packet that is taken, and a byte of it.
        let head = [ws::BINARY, 0xff, 0, 0, 0, 0, 0x10, 0, 0, 4, 0, 0, 0, 0];
        socket.write_all(&head).await.unwrap();
        socket.write_all(b"\x30\x80\x89\x7a\x00").await.unwrap();
        announced.push(socket);
    }
    let mut client: Client = ws::client(&rig, Dial::v5("client")).await;
    client.ping().await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 50 << 20, "{grown} bytes for 100 announcements of 2 MB");
    drop(announced);
    client.ping().await;
}

#[tokio::test]
async fn packets_of_the_largest_size_pass_and_larger_ones_do_not() {
    let rig = ws::rig().await;
    let mut reader = ws::client(&rig, Dial::v5("reader")).await;
    reader.subscribe("t", ONE).await;
    let mut writer = ws::client(&rig, Dial::v5("writer")).await;
    // Head 4, topic 3, id 2, no properties 1.
    let largest = vec![b'x'; 2_000_000 - 10];
    assert!(writer.publish("t", &largest, ONE).await.is_ok());
    assert!(reader.expect_publish().await.payload == largest);
    writer.throw("t", [&largest[..], b"x"].concat()).await;
    let reason = writer.expect_goodbye().await;
    assert_eq!(reason, simcast::mqtt::ReasonCode::PacketTooLarge);
    tokio::time::timeout(Duration::from_secs(20), reader.ping()).await.unwrap();
}
