//! WebSocket as a byte stream: what the client sends in binary frames is read, what is written
//! leaves in binary frames, one for each write. MQTT packets need not fit the frames
//! `[MQTT-6.0.0-2]`, so no frame is ever put together: nothing is buffered here but one head, one
//! pong and one close frame, whatever lengths a peer announces (cases P3, D13).
//!
//! That is why the framing is ours: libraries collect whole messages, and reserve the room that a
//! frame announces. `tokio-tungstenite` is the second opinion in the tests.

mod frame;
mod handshake;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) use frame::FrameError;
pub(super) use handshake::{HandshakeError, HandshakeRules, shake_hands};

use frame::{Control, Decoder, NORMAL_CLOSURE, data_head};

/// A stream of bytes in binary frames.
#[derive(Debug)]
pub(super) struct WebSocket<S> {
    stream: S,
    /// What came right behind the handshake.
    early: Bytes,
    decoder: Decoder,
    /// The data frame that is being written.
    frame: Frame,
    /// A control frame that is being written; none is begun within a data frame.
    control: Bytes,
    closing: Closing,
    needs_flush: bool,
}

/// How much of a frame has still to leave.
#[derive(Debug, Default)]
struct Frame {
    head: Bytes,
    payload_left: usize,
}

/// Our part of the closing handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// A close frame with this code is due.
    Due(u16),
    Sent,
}

/// Slices of one write, the frame's head among them.
const SLICES_MAX: usize = 65;

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// After the handshake; `early` is what the client sent right behind it.
    pub(super) fn new(stream: S, early: Bytes) -> Self {
        Self {
            stream,
            early,
            decoder: Decoder::default(),
            frame: Frame::default(),
            control: Bytes::new(),
            closing: Closing::No,
            needs_flush: false,
        }
    }

    /// Reads bytes of frames.
    fn poll_raw(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let len = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early.split_to(len));
        if self.early.is_empty() {
            // Even empty it would keep the whole request.
            self.early = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }

    /// The client has closed: it gets its close frame if the socket takes one now, and then there
    /// is nothing more to read.
    fn end(&mut self, code: u16, context: &mut Context<'_>) {
        if self.closing == Closing::No {
            self.closing = Closing::Due(code);
        }
        let _taken_or_not = self.poll_control(context);
    }

    /// Writes control frames that are due, and flushes them.
    fn poll_control(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.frame.is_done() && self.next_control() {
            let written = Pin::new(&mut self.stream).poll_write(context, &self.control);
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.control.advance(written);
            self.needs_flush = true;
        }
        if self.needs_flush {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether there is a control frame to write. Of many pings the last one alone is answered
    /// (RFC 6455, 5.5.3), so a flood of them leaves one pong behind (case P28).
    fn next_control(&mut self) -> bool {
        if self.control.is_empty() && self.closing != Closing::Sent {
            if let Closing::Due(code) = self.closing {
                self.control = Control::close(code).frame();
                self.closing = Closing::Sent;
            } else if let Some(pong) = self.decoder.take_pong() {
                self.control = pong.frame();
            }
        }
        !self.control.is_empty()
    }
}

impl Frame {
    fn is_done(&self) -> bool {
        self.head.is_empty() && self.payload_left == 0
    }

    /// Takes note of what has left; gives how much of it was payload.
    fn advance(&mut self, written: usize) -> usize {
        let of_head = written.min(self.head.len());
        self.head.advance(of_head);
        self.payload_left -= written - of_head;
        written - of_head
    }

    /// What is left of the frame: its head, and as much of the payload as is at hand.
    fn rest<'a>(&'a self, payload: &'a [IoSlice<'a>]) -> ([IoSlice<'a>; SLICES_MAX], usize) {
        let mut rest = [IoSlice::new(&[]); SLICES_MAX];
        rest[0] = IoSlice::new(&self.head);
        let (mut count, mut left) = (1, self.payload_left);
        for slice in payload.iter().take(SLICES_MAX - 1) {
            let len = slice.len().min(left);
            rest[count] = IoSlice::new(&slice[..len]);
            left -= len;
            count += 1;
        }
        (rest, count)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(code) = this.decoder.closed() {
                this.end(code, context);
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = this.decoder.error() {
                if this.closing == Closing::Sent {
                    // Whoever lingers only wants to see the end.
                    return this.poll_raw(context, buffer);
                }
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
            // Whether the socket takes a pong now or later is no concern of the reader's; an
            // error will be met again when it reads.
            let _sent_or_not = this.poll_control(context)?;
            let before = buffer.filled().len();
            ready!(this.poll_raw(context, buffer))?;
            if buffer.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            let kept = this.decoder.decode(&mut buffer.filled_mut()[before..]);
            buffer.set_filled(before + kept);
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    /// Begins a frame as long as all slices together. A caller whose write was not taken whole
    /// comes again with what is left, as every caller of [`AsyncWrite`] does.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        if this.frame.is_done() {
            ready!(this.poll_control(context))?;
            if this.closing != Closing::No {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            this.frame = Frame { head: data_head(total), payload_left: total };
        }
        loop {
            let (rest, count) = this.frame.rest(slices);
            let stream = Pin::new(&mut this.stream);
            let written = ready!(stream.poll_write_vectored(context, &rest[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let payload = this.frame.advance(written);
            if payload > 0 {
                return Poll::Ready(Ok(payload));
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.needs_flush = true;
        this.poll_control(context)
    }

    /// Says goodbye with the code that fits, then ends our half of the connection.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing == Closing::No {
            let code = this.decoder.error().map_or(NORMAL_CLOSURE, FrameError::close_code);
            this.closing = Closing::Due(code);
        }
        ready!(this.poll_control(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
