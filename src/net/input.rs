//! Bytes from the socket, cut into frames.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use crate::mqtt::decode::{DecodeError, frame_len};

/// What has been read and not yet taken. Reads go through a buffer of the thread, so a connection
/// that is idle holds nothing here; the frame that a read ended in the middle of waits in `rest`.
#[derive(Debug, Default)]
pub(super) struct Input {
    rest: BytesMut,
    /// Whole frames of the last read, not yet taken.
    ready: Bytes,
    /// Bytes that the frame in `rest` still lacks, once its length is known.
    missing: usize,
}

const READ_BYTES: usize = 16 * 1024;

/// Room made for one read of a long frame; it is cleared each time, however little comes.
const LARGE_READ_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

impl Input {
    /// Reads once. Ready with the number of bytes; 0 is the end of the stream. Call it when
    /// [`Input::next_frame`] has nothing more.
    ///
    /// # Errors
    /// The stream's own.
    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.ready.is_empty(), "frames are taken before more is read");
        if self.missing > 0 && self.rest.len() + self.missing > READ_BYTES {
            return self.poll_read_large(stream, context);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
            let read = buffer.filled();
            if self.rest.is_empty() {
                self.ready = Bytes::copy_from_slice(read);
            } else {
                self.rest.extend_from_slice(read);
                self.missing = 0;
                self.ready = std::mem::take(&mut self.rest).freeze();
            }
            Poll::Ready(Ok(read.len()))
        })
    }

    /// The next whole frame, at most `frame_bytes_max` long, as a slice of what was read.
    ///
    /// # Errors
    /// The length field is malformed, or the frame is too long.
    pub(super) fn next_frame(
        &mut self,
        frame_bytes_max: usize,
    ) -> Result<Option<Bytes>, FrameError> {
        if self.ready.is_empty() {
            return Ok(None);
        }
        let len = frame_len(&self.ready).map_err(FrameError::Malformed)?;
        if let Some(len) = len {
            if len > frame_bytes_max {
                return Err(FrameError::TooLong);
            }
            if len <= self.ready.len() {
                return Ok(Some(self.ready.split_to(len)));
            }
        }
        self.missing = len.map_or(0, |len| len - self.ready.len());
        self.keep_rest();
        Ok(None)
    }

    /// What the last read left to be taken.
    #[must_use]
    pub(super) fn peek(&self) -> &[u8] {
        &self.ready
    }

    /// Reads the rest of a long frame straight into its place: however small the pieces it comes
    /// in, none is moved twice. The buffer grows with what has really come, never with what was
    /// only announced (case P3).
    fn poll_read_large<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = self.rest.len();
        let step = self.missing.min(LARGE_READ_BYTES);
        self.rest.resize(before + step, 0);
        let mut buffer = ReadBuf::new(&mut self.rest[before..]);
        let polled = Pin::new(stream).poll_read(context, &mut buffer);
        let read = buffer.filled().len();
        self.rest.truncate(before + read);
        ready!(polled)?;
        self.missing -= read;
        if self.missing == 0 {
            self.ready = std::mem::take(&mut self.rest).freeze();
        }
        Poll::Ready(Ok(read))
    }

    fn keep_rest(&mut self) {
        let mut rest = std::mem::take(&mut self.ready);
        self.rest = BytesMut::with_capacity(rest.len() + self.missing.min(READ_BYTES));
        self.rest.extend_from_slice(&rest);
        rest.advance(rest.len());
    }
}

/// The stream cannot be cut into frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// No frame can begin like this.
    #[error(transparent)]
    Malformed(DecodeError),
    /// Longer than `limits.max_packet_size`.
    #[error("the packet is larger than the limit")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// A PUBLISH of this many bytes behind its length field.
    fn frame(len: usize) -> Vec<u8> {
        let mut frame = vec![0x30];
        let mut left = len;
        while left > 0 {
            let more = if left > 127 { 0x80 } else { 0 };
            frame.push(u8::try_from(left % 128).unwrap() | more);
            left /= 128;
        }
        frame.extend((0..len).map(|at| u8::try_from(at % 251).unwrap()));
        frame
    }

    // case P3
    #[tokio::test]
    async fn frames_are_whole_in_whatever_pieces_they_come() {
        let lens = [3, READ_BYTES - 4, READ_BYTES, 3 * READ_BYTES, 200, LARGE_READ_BYTES * 2, 1];
        let frames: Vec<Vec<u8>> = lens.iter().map(|len| frame(*len)).collect();
        for piece in [1, 1000, READ_BYTES, 1 << 20] {
            let (mut near, mut far) = tokio::io::duplex(piece);
            let bytes = frames.concat();
            let writing = tokio::spawn(async move { far.write_all(&bytes).await });
            let mut input = Input::default();
            for frame in &frames {
                let whole = loop {
                    if let Some(whole) = input.next_frame(1 << 20).unwrap() {
                        break whole;
                    }
                    std::future::poll_fn(|context| input.poll_read(&mut near, context))
                        .await
                        .unwrap();
                    assert!(input.rest.capacity() < 4 * LARGE_READ_BYTES, "no more than has come");
                };
                assert!(whole == *frame, "{} bytes in pieces of {piece}", frame.len());
            }
            writing.await.unwrap().unwrap();
        }
    }
}
