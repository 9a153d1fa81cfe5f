//! The application message: what was published, shared by everyone who receives it.

use std::fmt;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use smallvec::SmallVec;

use super::encode::PublishHead;
use super::packet::{Publish, PublishProperties, QoS, Version};
use crate::ids::{Kept, Timestamp};

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
    /// When the broker took it.
    pub published: Timestamp,
    kept_bytes: usize,
    /// One for each layout. Boxed: most of the messages that wait for their only receiver have
    /// none yet.
    heads: OnceLock<Box<[OnceLock<PublishHead>; 4]>>,
    kept: OnceLock<Kept>,
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
        let (published, heads) = (Timestamp::default(), OnceLock::new());
        let kept_bytes = payload.len() + properties.as_ref().map_or(0, |p| p.kept_bytes());
        let kept = OnceLock::new();
        Self {
            topic,
            payload,
            qos,
            retain,
            properties,
            expires,
            published,
            kept_bytes,
            heads,
            kept,
        }
    }

    /// Its row in the store, if it has one; `keep` makes it one. A row that is there before
    /// anybody else can see it: others wait meanwhile.
    pub fn kept(&self, keep: impl FnOnce() -> Kept) -> &Kept {
        self.kept.get_or_init(keep)
    }

    /// The same message with other bytes, such as a receiver's own part of it.
    #[must_use]
    pub fn with_payload(&self, payload: Bytes) -> Self {
        let Self { topic, qos, retain, properties, expires, published, .. } = self;
        let (topic, properties) = (topic.clone(), properties.clone());
        let message = Self::new(topic, payload, *qos, *retain, properties, *expires);
        Self { published: *published, ..message }
    }

    /// The same message, taken by the broker at this moment.
    #[must_use]
    pub fn taken_at(self, published: Timestamp) -> Self {
        Self { published, ..self }
    }

    /// The same message with an earlier end.
    #[must_use]
    pub fn with_expiry(&self, expires: Timestamp) -> Self {
        Self { expires, ..self.with_payload(self.payload.clone()) }
    }

    /// What the message counts where the room for messages is bounded: payload and properties as
    /// they came, in bytes.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Most bytes that stand before the payload in the PUBLISH to anyone.
    #[must_use]
    pub fn head_bytes_max(&self) -> usize {
        PublishProperties::head_bytes_max(&self.topic, self.properties.as_deref())
    }

    /// Whether every client takes the PUBLISH whose Maximum Packet Size is this.
    #[must_use]
    pub fn fits(&self, packet_bytes_max: u32) -> bool {
        let room = usize::try_from(packet_bytes_max).unwrap_or(usize::MAX);
        packet_bytes_max == u32::MAX || self.head_bytes_max() + self.payload.len() <= room
    }

    /// The message of a PUBLISH, to be kept for longer than the buffer the packet was read into:
    /// what is small is copied out of it, a large payload is worth keeping where it is.
    #[must_use]
    pub fn from_publish(publish: Publish, expires: Timestamp, published: Timestamp) -> Self {
        let Publish { topic, payload, qos, retain, properties, .. } = publish;
        let (topic, payload) = if payload.len() < SHARE_FROM_BYTES {
            copied_together(&topic, &payload)
        } else {
            (topic, payload)
        };
        let properties = properties.map(|properties| Box::new(forwarded(&properties)));
        let properties = properties.filter(|p| **p != PublishProperties::default());
        let message = Self::new(topic, payload, qos, retain, properties, expires);
        Self { published, ..message }
    }

    /// The head of the PUBLISH for receivers of `version`, with the message's own properties;
    /// `with_packet_id` where QoS is not 0. Who needs other properties (subscription ids, an
    /// alias, what is left of the expiry) builds a [`PublishHead`] of their own.
    pub fn head(&self, version: Version, with_packet_id: bool) -> &PublishHead {
        // 3.1 and 3.1.1 share their layouts.
        let index = usize::from(version == Version::V5) * 2 + usize::from(with_packet_id);
        self.heads.get_or_init(Box::default)[index].get_or_init(|| {
            let properties = self.properties.as_deref();
            PublishHead::new(version, with_packet_id, &self.topic, properties, self.payload.len())
        })
    }
}

/// A payload from this size on stays in the buffer it was read into.
const SHARE_FROM_BYTES: usize = 2048;

/// Topic and payload in one allocation of their own.
fn copied_together(topic: &str, payload: &[u8]) -> (ByteString, Bytes) {
    let mut both = BytesMut::with_capacity(topic.len() + payload.len());
    both.extend_from_slice(topic.as_bytes());
    both.extend_from_slice(payload);
    let mut both = both.freeze();
    let name = both.split_to(topic.len());
    // Text that was text before.
    (ByteString::try_from(name).unwrap_or_default(), both)
}

/// The same text with bytes of its own: what is kept must not keep the packet that it came in.
#[must_use]
pub fn detached(text: &ByteString) -> ByteString {
    ByteString::from(&**text)
}

/// The properties that travel with a message `[MQTT-3.3.2-4]`, each with bytes of its own. The
/// topic alias was between the publisher and us.
fn forwarded(properties: &PublishProperties) -> PublishProperties {
    PublishProperties {
        payload_is_utf8: properties.payload_is_utf8,
        message_expiry_secs: properties.message_expiry_secs,
        topic_alias: None,
        response_topic: properties.response_topic.as_ref().map(detached),
        correlation_data: properties.correlation_data.as_deref().map(Bytes::copy_from_slice),
        subscription_ids: SmallVec::new(),
        content_type: properties.content_type.as_ref().map(detached),
        user: properties
            .user
            .iter()
            .map(|(name, value)| (detached(name), detached(value)))
            .collect(),
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
