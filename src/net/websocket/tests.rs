//! The stream over a pipe that takes and gives as few bytes at a time as it likes. At the other end
//! is `tungstenite`, or bytes written by hand.

use std::future::poll_fn;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::*;

async fn pair(pipe: usize) -> (WebSocket<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (near, far) = tokio::io::duplex(pipe);
    let far = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
    (WebSocket::new(near, Bytes::new()), far)
}

fn numbers(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

#[tokio::test]
async fn bytes_go_both_ways_through_any_pipe() {
    for pipe in [1, 3, 64, 100_000] {
        let (mut near, mut far) = pair(pipe).await;
        let sent = numbers(70_000);
        let expected = sent.clone();
        let there = tokio::spawn(async move {
            for piece in [&sent[..1], &sent[1..200], &sent[200..]] {
                far.send(Message::binary(piece.to_vec())).await.unwrap();
            }
            let mut got = Vec::new();
            while got.len() < sent.len() {
                match far.next().await.unwrap().unwrap() {
                    Message::Binary(bytes) => got.extend_from_slice(&bytes),
                    other => panic!("{other:?}"),
                }
            }
            far.close(None).await.unwrap();
            let answer = far.next().await.unwrap().unwrap();
            assert!(answer.is_close(), "{answer:?}");
            got
        });
        let mut got = vec![0; expected.len()];
        let (mut reader, mut writer) = tokio::io::split(&mut near);
        reader.read_exact(&mut got).await.unwrap();
        assert!(got == expected, "pipe of {pipe}");
        writer.write_all(&got[..100]).await.unwrap();
        writer.write_all(&got[100..]).await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(reader.read(&mut [0]).await.unwrap(), 0, "the close frame is the end");
        near.flush().await.unwrap();
        assert!(there.await.unwrap() == expected, "pipe of {pipe}");
    }
}

#[tokio::test]
async fn one_write_is_one_frame() {
    let (mut near, mut far) = pair(1 << 20).await;
    let parts = [numbers(10), numbers(300), numbers(70_000)];
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut written = 0;
    let total: usize = parts.iter().map(Vec::len).sum();
    let mut left = &slices[..];
    let mut scratch = slices.clone();
    while written < total {
        let write =
            |context: &mut Context<'_>| Pin::new(&mut near).poll_write_vectored(context, left);
        written += poll_fn(write).await.unwrap();
        scratch.clone_from_slice(&slices);
        let mut rest = &mut scratch[..];
        IoSlice::advance_slices(&mut rest, written);
        left = &*rest;
    }
    let message = far.next().await.unwrap().unwrap();
    assert_eq!(message.into_data(), parts.concat());
}

#[tokio::test]
async fn pings_are_answered_between_frames_and_the_last_of_many_alone() {
    let (mut near, mut far) = pair(1 << 20).await;
    for ping in 0..1000u32 {
        far.send(Message::Ping(ping.to_be_bytes().to_vec().into())).await.unwrap();
    }
    far.send(Message::binary(&b"data"[..])).await.unwrap();
    let mut got = vec![0; 100_000];
    let len = near.read(&mut got).await.unwrap();
    assert_eq!(&got[..len], b"data");
    near.write_all(b"answer").await.unwrap();
    near.flush().await.unwrap();
    let mut pongs = Vec::new();
    loop {
        match far.next().await.unwrap().unwrap() {
            Message::Pong(bytes) => pongs.push(bytes),
            Message::Binary(bytes) => break assert_eq!(&bytes[..], b"answer"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pongs.last().unwrap()[..], 999u32.to_be_bytes());
    assert!(pongs.len() < 1000, "{} pongs for one read", pongs.len());
}

#[tokio::test]
async fn no_control_frame_is_put_into_a_data_frame() {
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    let (near, mut far) = tokio::io::duplex(4);
    let mut near = WebSocket::new(near, Bytes::copy_from_slice(&ping));
    let payload = numbers(10);
    // The pipe takes the head and two bytes; then a ping is read.
    assert_eq!(near.write(&payload).await.unwrap(), 2);
    let mut scratch = [0; 10];
    let read = poll_fn(|context| {
        Poll::Ready(Pin::new(&mut near).poll_read(context, &mut ReadBuf::new(&mut scratch)))
    });
    assert!(read.await.is_pending());
    let writing = tokio::spawn(async move {
        near.write_all(&numbers(10)[2..]).await?;
        near.shutdown().await
    });
    let mut wire = Vec::new();
    far.read_to_end(&mut wire).await.unwrap();
    writing.await.unwrap().unwrap();
    // After the frame first the close frame, which nothing may follow (RFC 6455, 5.5.1).
    assert_eq!(wire, [&[0x82, 10][..], &payload, &[0x88, 2, 0x03, 0xe8]].concat());
}

#[tokio::test]
async fn a_text_frame_is_an_error_with_its_code() {
    // case P28
    let (mut near, mut far) = pair(1000).await;
    far.send(Message::text("hello")).await.unwrap();
    let error = near.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(FrameError::of(&error), Some(FrameError::Text));
    near.shutdown().await.unwrap();
    let Message::Close(Some(CloseFrame { code, .. })) = far.next().await.unwrap().unwrap() else {
        panic!("no close frame")
    };
    assert_eq!(u16::from(code), 1003);
    assert_eq!(near.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn what_came_behind_the_handshake_is_read_first() {
    let (near, mut far) = tokio::io::duplex(100);
    let frame = |text: &[u8]| [&[0x82, 0x80 | 3, 0, 0, 0, 0], text].concat();
    let early = [frame(b"one"), frame(b"two")[..5].to_vec()].concat();
    let mut near = WebSocket::new(near, early.into());
    far.write_all(&frame(b"two")[5..]).await.unwrap();
    let mut got = [0; 6];
    near.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"onetwo");
    drop(far);
    assert_eq!(near.read(&mut got).await.unwrap(), 0);
}
