//! Any bytes, on any port.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::common::{Client, Dial, Rig, in_time, nid};
use crate::{Bystanders, Dice};

/// Says it, ends its half, and listens to the end. Gives what came back.
async fn say(mut socket: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    // A broker that is closing need not take everything.
    let _taken_or_not = socket.write_all(bytes).await;
    let _flushed_or_not = socket.flush().await;
    let _ended_or_not = socket.shutdown().await;
    let mut answer = Vec::new();
    let _ended_or_reset = in_time("the end", socket.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn random_bytes_on_the_plain_port() {
    let rig = Rig::start().await;
    let mut bystanders = Bystanders::join(&rig).await;
    let mut dice = Dice(1);
    let rejected = || async {
        let all = rig.counter("simcast_connects_total{").await;
        all - rig.counter("simcast_connects_total{result=\"accepted\"}").await
    };
    for round in 0..200 {
        let mut bytes = dice.bytes(1 + round * 3);
        // A CONNECT more often than chance would have it.
        bytes[0] = if round % 3 == 0 { 0x10 } else { bytes[0] };
        say(rig.tcp(rig.plain).await, &bytes).await;
        if round % 20 == 0 {
            bystanders.work().await;
            assert_eq!(rejected().await, round as u64 + 1);
        }
    }
    bystanders.rest().await;
}

#[tokio::test]
async fn random_bytes_in_and_instead_of_tls() {
    let rig = Rig::start().await;
    let mut bystanders = Bystanders::join(&rig).await;
    let mut dice = Dice(2);
    let issued = rig.authority.issue_device(nid(1)).unwrap();
    for round in 0..50 {
        let bytes = dice.bytes(1 + round * 7);
        say(rig.handshake(Some(&issued)).await.unwrap(), &bytes).await;
        say(rig.tcp(rig.tls).await, &bytes).await;
        if round % 10 == 0 {
            bystanders.work().await;
        }
    }
    rig.until_counter("simcast_tls_handshakes_total{result=\"failed\"}", 50).await;
    assert_eq!(rig.counter("simcast_sessions{state=\"connected\"}").await, 2);
    bystanders.rest().await;
}

#[tokio::test]
async fn random_bytes_on_the_admin_port() {
    let rig = Rig::start().await;
    let mut bystanders = Bystanders::join(&rig).await;
    let mut dice = Dice(3);
    for round in 0..50 {
        say(rig.tcp(rig.admin).await, &dice.bytes(1 + round * 11)).await;
    }
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
    let hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00";
    let endless_header = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 2_000_000]].concat();
    for bytes in [&connect[..], hello, &endless_header, b"GET", b"\r\n\r\n\r\n"] {
        let answer = say(rig.tcp(rig.admin).await, bytes).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    }
    for (request, status) in [
        ("GET /nothing HTTP/1.1", "404"),
        ("POST /metrics HTTP/1.1", "405"),
        ("DELETE /livez HTTP/1.1", "405"),
        ("GET /../../etc/passwd HTTP/1.1", "404"),
    ] {
        let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = say(rig.tcp(rig.admin).await, request.as_bytes()).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(expected.as_bytes()), "{request}");
    }
    bystanders.work().await;
    rig.metrics().await;
    bystanders.rest().await;
}

#[tokio::test]
async fn random_bytes_of_a_connected_client() {
    let rig = Rig::start().await;
    let mut bystanders = Bystanders::join(&rig).await;
    let mut dice = Dice(4);
    for round in 0..200 {
        let dial = if round % 2 == 0 { Dial::v5("noisy") } else { Dial::v311("noisy") };
        let mut noisy = rig.client(dial).await;
        noisy.send_raw(&dice.bytes(1 + round)).await;
        end(&mut noisy).await;
        if round % 20 == 0 {
            bystanders.work().await;
        }
    }
    assert_eq!(rig.counter("simcast_disconnects_total{").await, 200);
    bystanders.rest().await;
}

/// Ends the connection from our side and reads whatever the broker has to say. By chance it may
/// have been told to do something.
async fn end(client: &mut Client) {
    client.half_close().await;
    client.expect_closed().await;
}
