//! What lies under MQTT: WebSocket, Unix sockets, the header of a proxy; and the rules of single
//! listeners. Real sockets, byte by byte where it matters.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod entry;
mod frames;
mod greed;
mod handshake;
mod mount;
mod proxy;
mod unix;
mod websocket;
mod ws;

use simcast::mqtt::QoS;
use tokio::io::{AsyncRead, AsyncReadExt};

use common::in_time;

const ZERO: QoS = QoS::AtMostOnce;
const ONE: QoS = QoS::AtLeastOnce;
const TWO: QoS = QoS::ExactlyOnce;

/// A CONNECT of 3.1.1 by client `a`, and what accepts it.
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
const CONNACK: &[u8] = b"\x20\x02\x00\x00";

/// Everything up to the end of a connection.
async fn rest(mut socket: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ended_or_reset = in_time("the end", socket.read_to_end(&mut answer)).await;
    answer
}

/// As many bytes as asked for.
async fn take(socket: &mut (impl AsyncRead + Unpin), len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    in_time("bytes", socket.read_exact(&mut bytes)).await.unwrap();
    bytes
}
