//! What a connection is made of, from the socket up: TLS or not, WebSocket or not. One type for
//! all of them, so that there is one loop for all connections.

use tokio_rustls::server::TlsStream;

use super::socket::Socket;
use super::websocket::WebSocket;

/// A socket, with or without TLS.
#[derive(Debug)]
pub(super) enum Channel {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// A byte stream of MQTT packets.
#[derive(Debug)]
pub(super) enum Stream {
    Mqtt(Channel),
    WebSocket(Box<WebSocket<Channel>>),
}

/// Reading and writing of an enum whose variants all read and write.
macro_rules! either_stream {
    ($name:ident { $($variant:ident),+ }) => {
        impl tokio::io::AsyncRead for $name {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                buffer: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => {
                        std::pin::Pin::new(stream).poll_read(context, buffer)
                    })+
                }
            }
        }

        impl tokio::io::AsyncWrite for $name {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                bytes: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => {
                        std::pin::Pin::new(stream).poll_write(context, bytes)
                    })+
                }
            }

            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                slices: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => {
                        std::pin::Pin::new(stream).poll_write_vectored(context, slices)
                    })+
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $(Self::$variant(stream) => stream.is_write_vectored(),)+
                }
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => std::pin::Pin::new(stream).poll_flush(context),)+
                }
            }

            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => {
                        std::pin::Pin::new(stream).poll_shutdown(context)
                    })+
                }
            }
        }
    };
}

pub(super) use either_stream;

either_stream!(Channel { Plain, Tls });
either_stream!(Stream { Mqtt, WebSocket });
