//! Packets of version 5 put together by hand, byte for byte, independently of the encoder.

use bytes::Bytes;
use simcast::mqtt::{DecodeError, Packet, Sender, Version, decode};

/// A place where properties stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Connect,
    Will,
    ConnAck,
    /// PUBLISH from a client.
    PublishIn,
    /// PUBLISH from a server.
    PublishOut,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    Disconnect,
    Auth,
}

impl Place {
    pub(crate) const ALL: [Self; 15] = [
        Self::Connect,
        Self::Will,
        Self::ConnAck,
        Self::PublishIn,
        Self::PublishOut,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::Subscribe,
        Self::SubAck,
        Self::Unsubscribe,
        Self::UnsubAck,
        Self::Disconnect,
        Self::Auth,
    ];

    pub(crate) fn sender(self) -> Sender {
        match self {
            Self::ConnAck | Self::PublishOut | Self::SubAck | Self::UnsubAck => Sender::Server,
            Self::Connect
            | Self::Will
            | Self::PublishIn
            | Self::PubAck
            | Self::PubRec
            | Self::PubRel
            | Self::PubComp
            | Self::Subscribe
            | Self::Unsubscribe
            | Self::Disconnect
            | Self::Auth => Sender::Client,
        }
    }

    /// A packet whose property block, length included, is `block`; all else is well-formed.
    pub(crate) fn packet(self, block: &[u8]) -> Bytes {
        let (first, before, after): (u8, &[u8], &[u8]) = match self {
            Self::Connect => (0x10, b"\0\x04MQTT\x05\x02\0\x3C", b"\0\x01c"),
            Self::Will => (0x10, b"\0\x04MQTT\x05\x06\0\x3C\0\0\x01c", b"\0\x01w\0\x01m"),
            Self::ConnAck => (0x20, b"\0\0", b""),
            Self::PublishIn | Self::PublishOut => (0x30, b"\0\x01t", b"x"),
            Self::PubAck => (0x40, b"\0\x07\0", b""),
            Self::PubRec => (0x50, b"\0\x07\0", b""),
            Self::PubRel => (0x62, b"\0\x07\0", b""),
            Self::PubComp => (0x70, b"\0\x07\0", b""),
            Self::Subscribe => (0x82, b"\0\x07", b"\0\x01t\0"),
            Self::SubAck => (0x90, b"\0\x07", b"\0"),
            Self::Unsubscribe => (0xA2, b"\0\x07", b"\0\x01t"),
            Self::UnsubAck => (0xB0, b"\0\x07", b"\0"),
            Self::Disconnect => (0xE0, b"\0", b""),
            Self::Auth => (0xF0, b"\x18", b""),
        };
        frame(first, &[before, block, after].concat())
    }

    /// Decodes [`Self::packet`] with these properties and the right length in front of them.
    pub(crate) fn decode(self, properties: &[u8]) -> Result<Packet, DecodeError> {
        self.decode_block(&[&varint(properties.len())[..], properties].concat())
    }

    /// Decodes [`Self::packet`] with a block that may lie about its length.
    pub(crate) fn decode_block(self, block: &[u8]) -> Result<Packet, DecodeError> {
        decode(self.packet(block), Version::V5, self.sender())
    }
}

/// A packet with its Remaining Length.
pub(crate) fn frame(first: u8, body: &[u8]) -> Bytes {
    Bytes::from([&[first][..], &varint(body.len()), body].concat())
}

/// A variable byte integer.
pub(crate) fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push((value % 128) as u8 | 128);
        value /= 128;
    }
    bytes.push(value as u8);
    bytes
}

/// Text or binary data behind its length.
pub(crate) fn field(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("fields of tests are short");
    [&len.to_be_bytes()[..], bytes].concat()
}
