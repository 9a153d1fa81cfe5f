//! Frames by hand (case P28): whoever breaks the rules gets a close frame with the right code, and
//! everybody else goes on.

use simcast::mqtt::QoS;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::{Dial, Rig};
use crate::{CONNACK, CONNECT, ONE, rest, take, ws};

const PINGREQ: &[u8] = b"\xc0\x00";
const PINGRESP: &[u8] = b"\xd0\x00";

/// A connected client `a` of 3.1.1, for frames by hand.
async fn connected(rig: &Rig) -> TcpStream {
    let mut socket = ws::by_hand(rig, rig.extra()).await;
    socket.write_all(&ws::frame(ws::BINARY, CONNECT)).await.unwrap();
    assert_eq!(ws::read_frame(&mut socket).await, (ws::BINARY, CONNACK.to_vec()));
    socket
}

#[tokio::test]
async fn packets_may_be_split_and_merged_over_frames() {
    let rig = ws::rig().await;
    let mut witness = rig.client(Dial::v5("witness")).await;
    witness.subscribe("t", ONE).await;
    let publish = |text: &[u8; 1]| [b"\x30\x04\x00\x01t", &text[..]].concat();
    // One byte in each frame, and each frame a message or a fragment of one.
    let whole = [CONNECT, &publish(b"1"), PINGREQ].concat();
    let single: Vec<u8> = whole.iter().flat_map(|byte| ws::frame(ws::BINARY, &[*byte])).collect();
    let fragments: Vec<u8> = (0..whole.len())
        .flat_map(|at| {
            let fin = if at + 1 == whole.len() { 0x80 } else { 0 };
            let opcode = if at == 0 { 0x2 } else { 0x0 };
            ws::frame(fin | opcode, &whole[at..=at])
        })
        .collect();
    // All packets in one frame; a ping between two fragments of one packet.
    let merged = ws::frame(ws::BINARY, &whole);
    let interrupted =
        [ws::frame(0x02, &whole[..5]), ws::frame(ws::PING, b"hi"), ws::frame(0x80, &whole[5..])]
            .concat();
    for (bytes, pong) in [(single, false), (fragments, false), (merged, false), (interrupted, true)]
    {
        let mut socket = ws::by_hand(&rig, rig.extra()).await;
        socket.write_all(&bytes).await.unwrap();
        let (mut mqtt, mut pongs) = (Vec::new(), Vec::new());
        while mqtt.len() < 6 {
            let (first, payload) = ws::read_frame(&mut socket).await;
            if first == ws::PONG { pongs.push(payload) } else { mqtt.extend(payload) }
        }
        assert_eq!(mqtt, [CONNACK, PINGRESP].concat());
        assert_eq!(pongs, if pong { vec![b"hi".to_vec()] } else { vec![] });
        assert_eq!(witness.expect_payload().await, "1");
        socket.write_all(&ws::frame(ws::BINARY, b"\xe0\x00")).await.unwrap();
        assert_eq!(ws::close_code(socket).await, Some(1000), "a goodbye of MQTT is an orderly end");
    }
}

#[tokio::test]
async fn whoever_breaks_a_rule_of_the_frames_is_closed_with_its_code() {
    let rig = ws::rig().await;
    let mut witness = rig.client(Dial::v5("witness")).await;
    witness.subscribe("t", ONE).await;
    let long = |len: [u8; 8]| [&[ws::BINARY, 0xff][..], &len, &[0; 4], b"payload"].concat();
    let cases = [
        (ws::frame(ws::TEXT, PINGREQ), 1003),
        ([&[ws::BINARY, 2][..], PINGREQ].concat(), 1002),
        (long([0x80, 0, 0, 0, 0, 0, 0, 0]), 1002),
        (long([0x7f; 8]), 1009),
        (vec![ws::BINARY, 0xfe, 0, 2, 0, 0, 0, 0], 1002),
        (ws::frame(0xC2, PINGREQ), 1002), // as if it were compressed (case D22)
        (ws::frame(0x83, b""), 1002),
        (ws::frame(0x80, b""), 1002),
        (ws::frame(0x09, b""), 1002),
        (ws::frame(ws::PING, &[0; 126]), 1002),
        (ws::frame(ws::CLOSE, b"x"), 1002),
    ];
    let violations = "simcast_protocol_errors_total{kind=\"violation\"}";
    for (at, (bytes, code)) in (1..).zip(cases) {
        // Before the CONNECT, and behind it.
        let mut socket = ws::by_hand(&rig, rig.extra()).await;
        socket.write_all(&bytes).await.unwrap();
        assert_eq!(ws::close_code(socket).await, Some(code), "{bytes:02x?}");
        let mut socket = connected(&rig).await;
        socket.write_all(&ws::frame(ws::BINARY, b"\x30\x04\x00\x01t1")).await.unwrap();
        socket.write_all(&bytes).await.unwrap();
        assert_eq!(ws::close_code(socket).await, Some(code), "{bytes:02x?}");
        assert_eq!(witness.expect_payload().await, "1", "what came before counts");
        assert_eq!(rig.counter(violations).await, 2 * at);
    }
}

#[tokio::test]
async fn pings_are_answered_and_a_flood_of_them_harms_nobody() {
    let rig = ws::rig().await;
    let mut socket = connected(&rig).await;
    socket.write_all(&ws::frame(ws::PING, &[7; 125])).await.unwrap();
    assert_eq!(ws::read_frame(&mut socket).await, (ws::PONG, vec![7; 125]));
    socket.write_all(&ws::frame(ws::PONG, b"nobody asked")).await.unwrap();
    // A flood by somebody who does not even read the answers.
    let flood = ws::frame(ws::PING, &[7; 125]).repeat(1000);
    let mut flooding = connected(&rig).await;
    let flood = tokio::spawn(async move {
        for _ in 0..100 {
            flooding.write_all(&flood).await.unwrap();
        }
        flooding.write_all(&ws::frame(ws::BINARY, PINGREQ)).await.unwrap();
        loop {
            let (first, payload) = ws::read_frame(&mut flooding).await;
            if first == ws::BINARY {
                break payload;
            }
        }
    });
    let mut bystander = ws::client(&rig, Dial::v5("bystander")).await;
    bystander.subscribe("a", ONE).await;
    for _ in 0..20 {
        bystander.publish("a", "x", QoS::ExactlyOnce).await;
        bystander.expect_payload().await;
    }
    assert_eq!(flood.await.unwrap(), PINGRESP);
}

#[tokio::test]
async fn a_close_frame_is_answered_and_ends_the_connection() {
    let rig = ws::rig().await;
    let mut witness = rig.client(Dial::v5("witness")).await;
    witness.subscribe("gone", ONE).await;
    for (payload, answer) in [(&b""[..], 1000), (b"\x03\xe9leaving", 1001), (b"\x0f\xa0", 4000)] {
        let mut socket = connected(&rig).await;
        let close = ws::frame(ws::CLOSE, payload);
        let late = ws::frame(ws::BINARY, b"\x30\x07\x00\x04gone!");
        socket.write_all(&[close, late].concat()).await.unwrap();
        assert_eq!(ws::close_code(socket).await, Some(answer));
    }
    let closed = "simcast_disconnects_total{reason=\"closed\"}";
    rig.until_counter(closed, 3).await;
    witness.expect_nothing().await;
}

#[tokio::test]
async fn a_second_connect_and_a_packet_before_connect_are_what_they_are_elsewhere() {
    // case P21
    let rig = ws::rig().await;
    let mut socket = connected(&rig).await;
    socket.write_all(&ws::frame(ws::BINARY, CONNECT)).await.unwrap();
    assert_eq!(ws::close_code(socket).await, Some(1000));
    let mut socket = ws::by_hand(&rig, rig.extra()).await;
    socket.write_all(&ws::frame(ws::BINARY, PINGREQ)).await.unwrap();
    assert_eq!(ws::close_code(socket).await, Some(1000));
    let errors = "simcast_protocol_errors_total{kind=\"violation\"}";
    assert_eq!(rig.counter(errors).await, 2);
    // Half a frame, and gone.
    let mut socket = connected(&rig).await;
    socket.write_all(&ws::frame(ws::BINARY, PINGREQ)[..3]).await.unwrap();
    socket.shutdown().await.unwrap();
    assert!(rest(socket).await.is_empty());
    let mut again = connected(&rig).await;
    again.write_all(&ws::frame(ws::BINARY, PINGREQ)).await.unwrap();
    assert_eq!(take(&mut again, 4).await, [&[ws::BINARY, 2], PINGRESP].concat());
}
