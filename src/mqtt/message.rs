//! The application message: what was published, shared by everyone who receives it.

use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use bytestring::ByteString;

use super::encode::PublishHead;
use super::packet::{PublishProperties, QoS, Version};
use crate::ids::Timestamp;

/// An application message. Shared as `Arc<Message>`: its payload is never copied per receiver, and
/// the bytes in front of the payload are encoded once per layout.
pub struct Message {
    /// Topic name.
    pub topic: ByteString,
    /// The bytes of the publisher.
    pub payload: Bytes,
    /// Quality of service it was published with.
    pub qos: QoS,
    /// It was published with the retain flag.
    pub retain: bool,
    /// Properties that travel with it; neither topic alias nor subscription ids.
    pub properties: Option<Box<PublishProperties>>,
    /// When it is no longer to be delivered; [`Timestamp::NEVER`] without expiry.
    pub expires: Timestamp,
    heads: [OnceLock<PublishHead>; 4],
}

impl Message {
    /// A message as it was published. Its fields are not to be changed once it has been sent to
    /// anyone: [`Self::head`] remembers them.
    #[must_use]
    pub fn new(
        topic: ByteString,
        payload: Bytes,
        qos: QoS,
        retain: bool,
        properties: Option<Box<PublishProperties>>,
        expires: Timestamp,
    ) -> Self {
        Self { topic, payload, qos, retain, properties, expires, heads: Default::default() }
    }

    /// The head of the PUBLISH for receivers of `version`, with the message's own properties;
    /// `with_packet_id` where QoS is not 0. Who needs other properties (subscription ids, an
    /// alias, what is left of the expiry) builds a [`PublishHead`] of their own.
    pub fn head(&self, version: Version, with_packet_id: bool) -> &PublishHead {
        // 3.1 and 3.1.1 share their layouts.
        let index = usize::from(version == Version::V5) * 2 + usize::from(with_packet_id);
        self.heads[index].get_or_init(|| {
            let properties = self.properties.as_deref();
            PublishHead::new(version, with_packet_id, &self.topic, properties, self.payload.len())
        })
    }
}

impl fmt::Debug for Message {
    /// Without the payload: it is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("payload_len", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
