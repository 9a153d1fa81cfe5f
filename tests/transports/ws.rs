//! Both ends of a WebSocket for tests: one by `tungstenite`, one by hand.

use std::net::SocketAddr;

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use simcast::config::{Listener, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::common::{Client, Denied, Dial, Rig};
use crate::rest;

pub(crate) const BINARY: u8 = 0x82;
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8A;

/// A broker whose first extra listener speaks WebSocket.
pub(crate) async fn rig() -> Rig {
    rig_with(|_listener| {}).await
}

/// The same with changes to that listener.
pub(crate) async fn rig_with(change: impl FnOnce(&mut Listener)) -> Rig {
    Rig::with_listener(|listener| {
        listener.protocol = Protocol::Websocket;
        change(listener);
    })
    .await
}

/// An anonymous client over WebSocket.
pub(crate) async fn client(rig: &Rig, dial: Dial) -> Client {
    open(rig.tcp(rig.extra()).await, &dial).await.expect("a connection")
}

/// A client over WebSocket over any stream.
pub(crate) async fn open<S>(stream: S, dial: &Dial) -> Result<Client, Denied>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = "ws://localhost/any/path?at=all".into_client_request().unwrap();
    let subprotocol = "mqtt".parse().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol);
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
    Client::open(as_bytes(socket), dial).await
}

/// The bytes in binary frames, as a stream.
fn as_bytes<S>(mut socket: WebSocketStream<S>) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        loop {
            tokio::select! {
                read = far.read_buf(&mut buffer) => {
                    if read.unwrap() == 0 {
                        // Our half is done; the broker's last words are still of interest.
                        let _closed_already = socket.close(None).await;
                        break;
                    }
                    let _gone = socket.send(Message::Binary(buffer.split().freeze())).await;
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(bytes))) => far.write_all(&bytes).await.unwrap(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    _end => return,
                },
            }
        }
        while let Some(Ok(Message::Binary(bytes))) = socket.next().await {
            let _nobody_listens = far.write_all(&bytes).await;
        }
    });
    near
}

/// The request that opens a WebSocket, with one header line more or other ones.
pub(crate) fn request(change: &[(&str, Option<&str>)]) -> String {
    let mut headers = vec![
        ("Host", "localhost"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Protocol", "mqtt"),
    ];
    for (name, value) in change {
        headers.retain(|(known, _)| known != name);
        headers.extend(value.map(|value| (*name, value)));
    }
    let lines: Vec<String> = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    format!("GET /mqtt HTTP/1.1\r\n{}\r\n", lines.concat())
}

/// A socket behind its handshake, for frames by hand.
pub(crate) async fn by_hand(rig: &Rig, address: SocketAddr) -> TcpStream {
    let mut socket = rig.tcp(address).await;
    socket.write_all(request(&[]).as_bytes()).await.unwrap();
    let head = head(&mut socket).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    socket
}

/// The head of a response.
pub(crate) async fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(crate::take(socket, 1).await);
    }
    String::from_utf8(head).unwrap()
}

/// A frame as a client writes it; the length as short as possible.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | u8::try_from(len).unwrap()),
        len @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    let mask = [0xa1, 0x05, 0x7e, 0xc3];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// First byte and payload of the next frame of a server; short ones only.
pub(crate) async fn read_frame(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let head = crate::take(socket, 2).await;
    let len = match head[1] {
        len @ 0..126 => usize::from(len),
        126 => usize::from(u16::from_be_bytes(crate::take(socket, 2).await.try_into().unwrap())),
        _ => panic!("a mask or a long frame: {head:02x?}"),
    };
    (head[0], crate::take(socket, len).await)
}

/// What is left of a connection that the server closes: the code of its close frame, which stands
/// last.
pub(crate) async fn close_code(socket: TcpStream) -> Option<u16> {
    let rest = rest(socket).await;
    let [.., CLOSE, 2, high, low] = rest[..] else { return None };
    Some(u16::from_be_bytes([high, low]))
}
