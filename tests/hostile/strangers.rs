//! Strangers: another protocol, half a handshake, half a CONNECT, silence.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Bystanders;
use crate::common::{Dial, Rig, in_time, nid};

const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
const TLS_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

async fn rest(mut socket: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ended_or_reset = in_time("the end", socket.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn people_with_the_wrong_port() {
    let rig = Rig::start().await;
    let mut bystanders = Bystanders::join(&rig).await;
    let not_mqtt = "simcast_protocol_errors_total{kind=\"not_mqtt\"}";
    let http = [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"POST /x HTTP/1.1\r\n\r\n"];
    for (count, bytes) in (1..).zip([http[0], http[1], TLS_HELLO]) {
        let mut socket = rig.tcp(rig.plain).await;
        socket.write_all(bytes).await.unwrap();
        assert!(rest(socket).await.is_empty());
        assert_eq!(rig.counter(not_mqtt).await, count);
        bystanders.work().await;
    }
    let mut socket = rig.tcp(rig.tls).await;
    socket.write_all(CONNECT).await.unwrap();
    rest(socket).await;
    rig.until_counter("simcast_tls_rejected_total{reason=\"not_tls\"}", 1).await;
    bystanders.work().await;
    bystanders.rest().await;
}

#[tokio::test]
async fn whoever_takes_too_long_is_closed() {
    let timeout = Duration::from_secs(1);
    let rig = Rig::with(|config| config.limits.connect_timeout = timeout).await;
    let mut bystanders = Bystanders::join(&rig).await;
    let mut sockets: Vec<TcpStream> = Vec::new();
    // Silence, and a CONNECT up to every byte but the last.
    for len in 0..CONNECT.len() {
        let mut socket = rig.tcp(rig.plain).await;
        socket.write_all(&CONNECT[..len]).await.unwrap();
        sockets.push(socket);
    }
    let plain = sockets.len() as u64;
    // A handshake up to some of its bytes.
    for len in [0, 1, 5, TLS_HELLO.len()] {
        let mut socket = rig.tcp(rig.tls).await;
        socket.write_all(&TLS_HELLO[..len]).await.unwrap();
        sockets.push(socket);
    }
    // A handshake, and silence behind it.
    let issued = rig.authority.issue_device(nid(1)).unwrap();
    let silent = rig.handshake(Some(&issued)).await.unwrap();
    bystanders.work().await;
    for socket in sockets {
        assert!(rest(socket).await.is_empty());
    }
    rest(silent).await;
    let timeouts = rig.counter("simcast_connects_total{result=\"timeout\"}").await;
    assert_eq!(timeouts, plain + 1);
    let timeouts = rig.counter("simcast_tls_rejected_total{reason=\"timeout\"}").await;
    assert_eq!(timeouts, 4);
    // Clients that were connected in time have all the time in the world.
    bystanders.work().await;
    bystanders.rest().await;
}

#[tokio::test]
async fn a_trickle_of_bytes_buys_no_time() {
    let timeout = Duration::from_millis(300);
    let rig = Rig::with(|config| config.limits.connect_timeout = timeout).await;
    let mut socket = rig.tcp(rig.plain).await;
    // A client id of 1000 bytes, one byte every 20 ms: it would take 20 s.
    let mut head = b"\x10\xf4\x07\x00\x04MQTT\x04\x02\x00\x00\x03\xe8".to_vec();
    head.push(b'a');
    socket.write_all(&head).await.unwrap();
    let (mut from, mut to) = socket.into_split();
    let trickle = async {
        while to.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = async {
        let mut byte = [0];
        let _ended_or_reset = from.read(&mut byte).await;
    };
    in_time("the end", async {
        tokio::select! { () = trickle => {}, () = ended => {} }
    })
    .await;
    assert_eq!(rig.counter("simcast_connects_total{result=\"timeout\"}").await, 1);
}

#[tokio::test]
async fn a_crowd_that_says_nothing_keeps_nobody_out() {
    let timeout = Duration::from_secs(1);
    let rig = Rig::with(|config| config.limits.connect_timeout = timeout).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(rig.tcp(rig.plain).await);
        crowd.push(rig.tcp(rig.tls).await);
    }
    let mut bystanders = Bystanders::join(&rig).await;
    bystanders.work().await;
    rig.device(1, Dial::v5("device")).await.disconnect().await;
    for socket in crowd {
        rest(socket).await;
    }
    bystanders.work().await;
    assert_eq!(rig.counter("simcast_connects_total{result=\"timeout\"}").await, 200);
    bystanders.rest().await;
}
