//! Bytes on their way to the socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::ids::Timestamp;
use crate::metrics::Waiting;
use crate::mqtt::encode::{PublishHead, encode};
use crate::mqtt::{Packet, PublishProperties, QoS, Version};
use crate::session::{Alias, Delivery, Outgoing};

/// Encoded packets waiting to be written. Packets and small payloads are written into one growing
/// buffer; large payloads stand between as shared slices, and many leave in one vectored write.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Closed pieces, oldest first.
    pieces: VecDeque<Bytes>,
    /// The piece that packets are being appended to.
    open: BytesMut,
    bytes: usize,
    /// Packets appended since everything was written.
    packets: u32,
    /// Bytes handed to a TLS stream may still stand in its buffers.
    needs_flush: bool,
}

/// A payload from this size on is sent from where it is; below, copying is cheaper than another
/// slice in the write.
const SHARE_FROM_BYTES: usize = 1024;

/// Slices in one write.
const SLICES_MAX: usize = 64;

/// What an idle connection may keep of its open piece.
const IDLE_CAPACITY: usize = 256;

impl Output {
    /// Bytes not yet written.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// What a socket that takes no more leaves here.
    #[must_use]
    pub(super) fn waiting(&self) -> Waiting {
        Waiting { packets: self.packets.into(), bytes: self.bytes as u64 }
    }

    /// Nothing waits, not even in the stream's own buffers.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0 && !self.needs_flush
    }

    /// Appends a packet.
    pub(super) fn packet(&mut self, packet: &Packet, version: Version) {
        let before = self.open.len();
        encode(packet, version, &mut self.open);
        self.packets += 1;
        self.bytes += self.open.len() - before;
    }

    /// Appends a message. Its head was encoded once for all receivers, unless this receiver's has
    /// another name for the topic or properties of its own.
    pub(super) fn publish(
        &mut self,
        outgoing: &Outgoing,
        name: Name<'_>,
        version: Version,
        now: Timestamp,
    ) {
        let own_head = own_head(&outgoing.delivery, name, version, now);
        let shared_head = || outgoing.delivery.message.head(version, outgoing.packet_id.is_some());
        let head = own_head.as_ref().unwrap_or_else(shared_head);
        let before = self.open.len();
        let Outgoing { delivery, packet_id, dup } = outgoing;
        head.write(*dup, delivery.qos, delivery.retain, *packet_id, &mut self.open);
        let payload = &delivery.message.payload;
        self.packets += 1;
        if payload.len() < SHARE_FROM_BYTES {
            self.open.extend_from_slice(payload);
            self.bytes += self.open.len() - before;
            return;
        }
        self.bytes += self.open.len() - before + payload.len();
        self.pieces.push_back(self.open.split().freeze());
        self.pieces.push_back(payload.clone());
    }

    /// Writes as much as the stream takes. Ready when everything has left.
    ///
    /// # Errors
    /// The stream's own.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.bytes > 0 {
            if self.pieces.is_empty() || self.pieces.len() < SLICES_MAX && !self.open.is_empty() {
                self.pieces.push_back(self.open.split().freeze());
            }
            let written = ready!(self.poll_write_pieces(stream, context))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
            self.needs_flush = true;
        }
        self.packets = 0;
        if self.needs_flush {
            ready!(Pin::new(stream).poll_flush(context))?;
            self.needs_flush = false;
        }
        self.shrink();
        Poll::Ready(Ok(()))
    }

    fn poll_write_pieces<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let [only] = self.pieces.as_slices().0 {
            return Pin::new(stream).poll_write(context, only);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = self.pieces.len().min(SLICES_MAX);
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
        }
        Pin::new(stream).poll_write_vectored(context, &slices[..count])
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(front) = self.pieces.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.pieces.pop_front();
        }
    }

    fn shrink(&mut self) {
        if self.pieces.capacity() > 0 {
            self.pieces = VecDeque::new();
        }
        if self.open.capacity() > IDLE_CAPACITY {
            self.open = BytesMut::new();
        }
    }
}

/// How a receiver knows the topic of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    /// Without the mount point of the receiver's listener.
    pub(super) topic: &'a str,
    /// A number that stands for it.
    pub(super) alias: Option<Alias>,
}

/// A head for this receiver alone: with its subscription identifiers, its name for the topic, or
/// with the time that the message has waited taken off its expiry `[MQTT-3.3.2-6]`.
fn own_head(
    delivery: &Delivery,
    Name { topic, alias }: Name<'_>,
    version: Version,
    now: Timestamp,
) -> Option<PublishHead> {
    let message = &delivery.message;
    let ids = &delivery.subscription_ids;
    let (with_id, len) = (has_packet_id(delivery), message.payload.len());
    let expires = message.expires != Timestamp::NEVER;
    let mounted = topic.len() < message.topic.len();
    if version != Version::V5 {
        return mounted.then(|| PublishHead::new(version, with_id, topic, None, len));
    }
    if ids.is_empty() && !expires && !mounted && alias.is_none() {
        return None;
    }
    let mut properties: PublishProperties =
        message.properties.as_deref().cloned().unwrap_or_default();
    properties.subscription_ids.clone_from(ids);
    properties.topic_alias = alias.map(|alias| alias.number);
    if expires {
        let left = message.expires.since(now).as_millis().div_ceil(1000);
        properties.message_expiry_secs = Some(u32::try_from(left).unwrap_or(u32::MAX));
    }
    let known = alias.is_some_and(|alias| alias.known);
    let topic = if known { "" } else { topic };
    Some(PublishHead::new(version, with_id, topic, Some(&properties), len))
}

/// Bytes of the packet for this receiver, with its topic name and without an alias.
#[must_use]
pub(super) fn frame_len(delivery: &Delivery, topic: &str, version: Version) -> usize {
    // What is left of the expiry takes four bytes, however much it is.
    let name = Name { topic, alias: None };
    let own_head = own_head(delivery, name, version, Timestamp::default());
    let shared_head = || delivery.message.head(version, has_packet_id(delivery));
    own_head.as_ref().unwrap_or_else(shared_head).frame_len()
}

/// What an alias may add to a packet that still carries the topic name: the property, and a longer
/// length before all properties and before the packet.
pub(super) const ALIAS_BYTES: usize = 5;

fn has_packet_id(delivery: &Delivery) -> bool {
    delivery.qos != QoS::AtMostOnce
}
