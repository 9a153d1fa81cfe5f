//! The application message: what was published, shared by everyone who receives it.

use bytes::Bytes;
use bytestring::ByteString;

use super::packet::{PublishProperties, QoS};
use crate::ids::Timestamp;

/// An application message. Shared as `Arc<Message>`: its payload is never copied per receiver.
#[derive(Debug)]
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
}
