//! The control packets as plain data, one set of types for MQTT 3.1, 3.1.1 and 5.
//!
//! Text and payloads are slices of the buffer the packet was read from. What a version does not
//! have is absent: `properties` is `None` in 3.1 and 3.1.1, and also in a packet of version 5 that
//! carries none.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

use super::reason::ReasonCode;
use crate::ids::PacketId;

/// The protocol a connection speaks, fixed by its CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1 (`MQIsdp`, level 3).
    V31,
    /// MQTT 3.1.1 (level 4).
    V311,
    /// MQTT 5 (level 5).
    V5,
}

impl Version {
    /// The protocol level of the CONNECT.
    #[must_use]
    pub fn level(self) -> u8 {
        match self {
            Self::V31 => 3,
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }

    /// The protocol of a level.
    #[must_use]
    pub fn of_level(level: u8) -> Option<Self> {
        [Self::V31, Self::V311, Self::V5].into_iter().find(|version| version.level() == level)
    }

    /// As people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        }
    }
}

/// Quality of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// Fire and forget.
    #[default]
    AtMostOnce = 0,
    /// Acknowledged by PUBACK.
    AtLeastOnce = 1,
    /// Acknowledged by PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

impl QoS {
    /// `None` for anything but 0, 1 and 2.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Name and value of a user property; order and repetition are kept `[MQTT-3.3.2-17]`.
pub type UserProperty = (ByteString, ByteString);

/// Any control packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Client to server, first packet.
    Connect(Box<Connect>),
    /// Answer to CONNECT.
    ConnAck(Box<ConnAck>),
    /// A message, either way.
    Publish(Publish),
    /// QoS 1 acknowledgement.
    PubAck(Ack),
    /// QoS 2, first answer.
    PubRec(Ack),
    /// QoS 2, release.
    PubRel(Ack),
    /// QoS 2, last answer.
    PubComp(Ack),
    /// Client to server.
    Subscribe(Subscribe),
    /// Answer to SUBSCRIBE.
    SubAck(SubAck),
    /// Client to server.
    Unsubscribe(Unsubscribe),
    /// Answer to UNSUBSCRIBE.
    UnsubAck(SubAck),
    /// Keep alive.
    PingReq,
    /// Answer to PINGREQ.
    PingResp,
    /// Last packet.
    Disconnect(Disconnect),
    /// Enhanced authentication, version 5.
    Auth(Auth),
}

impl Packet {
    /// Takes out what is there for people alone: reason string and user properties.
    pub(super) fn strip_explanations(&mut self) {
        match self {
            Self::PubAck(ack) | Self::PubRec(ack) | Self::PubRel(ack) | Self::PubComp(ack) => {
                ack.properties = None;
            }
            Self::SubAck(ack) | Self::UnsubAck(ack) => ack.properties = None,
            Self::ConnAck(connack) => {
                if let Some(properties) = &mut connack.properties {
                    properties.reason_string = None;
                    properties.user.clear();
                }
            }
            Self::Disconnect(Disconnect { properties: Some(properties), .. }) => {
                properties.reason_string = None;
                properties.user.clear();
            }
            Self::Auth(Auth { properties: Some(properties), .. }) => {
                properties.reason_string = None;
                properties.user.clear();
            }
            Self::Connect(_)
            | Self::Publish(_)
            | Self::Subscribe(_)
            | Self::Unsubscribe(_)
            | Self::PingReq
            | Self::PingResp
            | Self::Disconnect(_)
            | Self::Auth(_) => {}
        }
    }
}

/// CONNECT. Its `Debug` shows neither the password nor authentication data.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    /// Which protocol the client speaks from here on.
    pub version: Version,
    /// A bridge of another broker: it keeps the retain flag of what it passes on, and gets
    /// nothing back that it has sent. 3.1 and 3.1.1 only, where a decoder tolerates it.
    pub bridge: bool,
    /// Clean Start (5) or Clean Session (3.1, 3.1.1).
    pub clean_start: bool,
    /// Seconds; 0 switches the mechanism off.
    pub keep_alive_secs: u16,
    /// As sent; may be empty.
    pub client_id: ByteString,
    /// The Will, if the Will flag is set.
    pub will: Option<Will>,
    /// User name, if its flag is set.
    pub username: Option<ByteString>,
    /// Password, if its flag is set; any bytes.
    pub password: Option<Bytes>,
    /// Properties of version 5, defaults applied.
    pub properties: ConnectProperties,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("bridge", &self.bridge)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_secs", &self.keep_alive_secs)
            .field("client_id", &self.client_id)
            .field("will_topic", &self.will.as_ref().map(|will| &will.topic))
            .field("username", &self.username)
            .field("has_password", &self.password.is_some())
            .field("authentication_method", &self.properties.authentication_method)
            .finish_non_exhaustive()
    }
}

/// Properties of a CONNECT with the standard's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectProperties {
    /// Seconds the session outlives its connection; default 0, `u32::MAX` never ends.
    pub session_expiry_secs: u32,
    /// How many QoS 1 and 2 messages the client takes at once; default 65,535, never 0.
    pub receive_maximum: u16,
    /// Largest packet the client takes, in bytes; `None` is no limit.
    pub maximum_packet_size: Option<u32>,
    /// Highest topic alias the client takes; default 0.
    pub topic_alias_maximum: u16,
    /// The client asks for Response Information; default false.
    pub request_response_information: bool,
    /// The client takes reason strings and user properties anywhere; default true.
    pub request_problem_information: bool,
    /// Name of an extended authentication method.
    pub authentication_method: Option<ByteString>,
    /// Data for that method; only together with it.
    pub authentication_data: Option<Bytes>,
    /// User properties.
    pub user: Vec<UserProperty>,
}

impl Default for ConnectProperties {
    fn default() -> Self {
        Self {
            session_expiry_secs: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            authentication_method: None,
            authentication_data: None,
            user: Vec::new(),
        }
    }
}

/// The Will of a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Will QoS.
    pub qos: QoS,
    /// Will retain.
    pub retain: bool,
    /// Seconds between the end of the connection and the Will; version 5, default 0.
    pub delay_secs: u32,
    /// Will topic; syntax of names is judged by the session, not by the codec.
    pub topic: ByteString,
    /// Will payload.
    pub payload: Bytes,
    /// Properties that go out with the Will message.
    pub properties: Option<Box<PublishProperties>>,
}

/// CONNACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAck {
    /// The server had a session for this client `[MQTT-3.2.2-2]`.
    pub session_present: bool,
    /// `Success`, or why the connection is refused. Encoded as return code for 3.1 and 3.1.1.
    pub reason: ReasonCode,
    /// Properties of version 5.
    pub properties: Option<Box<ConnAckProperties>>,
}

/// Properties of a CONNACK; `None` leaves the standard's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnAckProperties {
    /// Session expiry in use, where it differs from the client's wish.
    pub session_expiry_secs: Option<u32>,
    /// QoS 1 and 2 messages the server takes at once; default 65,535, never 0.
    pub receive_maximum: Option<u16>,
    /// Highest QoS the server takes; absent means 2. Only 0 and 1 may stand on the wire.
    pub maximum_qos: Option<QoS>,
    /// Whether retained messages are served; default true.
    pub retain_available: Option<bool>,
    /// Largest packet the server takes, in bytes, never 0.
    pub maximum_packet_size: Option<u32>,
    /// Client id the server chose.
    pub assigned_client_id: Option<ByteString>,
    /// Highest topic alias the server takes; default 0.
    pub topic_alias_maximum: Option<u16>,
    /// Text for people.
    pub reason_string: Option<ByteString>,
    /// User properties.
    pub user: Vec<UserProperty>,
    /// Default true.
    pub wildcard_subscription_available: Option<bool>,
    /// Default true.
    pub subscription_ids_available: Option<bool>,
    /// Default true.
    pub shared_subscription_available: Option<bool>,
    /// Keep alive the client must use instead of its own, in seconds.
    pub server_keep_alive_secs: Option<u16>,
    /// Basis for response topics.
    pub response_information: Option<ByteString>,
    /// Another server to use.
    pub server_reference: Option<ByteString>,
    /// Name of the authentication method.
    pub authentication_method: Option<ByteString>,
    /// Data of that method.
    pub authentication_data: Option<Bytes>,
}

/// PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Sent again; never with QoS 0 `[MQTT-3.3.1-2]`.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Retain flag.
    pub retain: bool,
    /// Topic name; empty only in version 5 together with an alias.
    pub topic: ByteString,
    /// Present iff QoS > 0 `[MQTT-2.2.1-2]`.
    pub packet_id: Option<PacketId>,
    /// Properties of version 5; `None` when there are none.
    pub properties: Option<Box<PublishProperties>>,
    /// The application message.
    pub payload: Bytes,
}

impl Publish {
    /// Payload and properties as they will be kept, in bytes.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.payload.len() + self.properties.as_ref().map_or(0, |p| p.kept_bytes())
    }
}

/// Properties of a PUBLISH or a Will.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties {
    /// Payload Format Indicator: the payload is UTF-8 text, or it is any bytes. Absent means any
    /// bytes, too, and goes on as absent `[MQTT-3.3.2-4]`.
    pub payload_is_utf8: Option<bool>,
    /// Seconds the message may wait.
    pub message_expiry_secs: Option<u32>,
    /// Topic alias; never 0; not in Wills.
    pub topic_alias: Option<u16>,
    /// Where answers go; no wildcards.
    pub response_topic: Option<ByteString>,
    /// Opaque to the broker.
    pub correlation_data: Option<Bytes>,
    /// Server to client only, 1 to 268,435,455 each; not in Wills.
    pub subscription_ids: SmallVec<[u32; 2]>,
    /// MIME type or whatever the application agrees on.
    pub content_type: Option<ByteString>,
    /// User properties.
    pub user: Vec<UserProperty>,
}

impl PublishProperties {
    /// The memory behind what has no fixed size, in bytes. A user property of five bytes on the
    /// wire takes many times as much here.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        let pair =
            |(name, value): &UserProperty| size_of::<UserProperty>() + name.len() + value.len();
        let texts = [&self.response_topic, &self.content_type];
        texts.into_iter().flatten().map(|text| text.len()).sum::<usize>()
            + self.correlation_data.as_ref().map_or(0, Bytes::len)
            + self.user.iter().map(pair).sum::<usize>()
    }

    /// What travels of them with a message, on the wire, in bytes.
    #[must_use]
    fn forwarded_bytes(&self) -> usize {
        let texts = [&self.response_topic, &self.content_type];
        let pair = |(name, value): &UserProperty| 5 + name.len() + value.len();
        texts.into_iter().flatten().map(|text| 3 + text.len()).sum::<usize>()
            + self.correlation_data.as_ref().map_or(0, |data| 3 + data.len())
            + self.payload_is_utf8.map_or(0, |_| 2)
            + self.user.iter().map(pair).sum::<usize>()
    }

    /// Most bytes that stand before the payload in a PUBLISH to anyone: fixed header, topic, packet
    /// id, and properties, of which expiry and a subscription id may be added per receiver.
    #[must_use]
    pub fn head_bytes_max(topic: &str, properties: Option<&Self>) -> usize {
        let properties = properties.map_or(0, Self::forwarded_bytes);
        5 + 2 + topic.len() + 2 + 4 + properties + 5 + 5
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Which message.
    pub packet_id: PacketId,
    /// `Success` in 3.1 and 3.1.1, and where version 5 leaves it out.
    pub reason: ReasonCode,
    /// Properties of version 5.
    pub properties: Option<Box<ReasonProperties>>,
}

/// Reason String and user properties, as in acknowledgements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReasonProperties {
    /// Text for people.
    pub reason_string: Option<ByteString>,
    /// User properties.
    pub user: Vec<UserProperty>,
}

/// SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Echoed by the SUBACK.
    pub packet_id: PacketId,
    /// Subscription Identifier of version 5, 1 to 268,435,455.
    pub subscription_id: Option<u32>,
    /// User properties.
    pub user: Vec<UserProperty>,
    /// At least one `[MQTT-3.8.3-2]`; each filter is well-formed.
    pub filters: SmallVec<[SubscribeFilter; 1]>,
}

/// One topic filter of a SUBSCRIBE with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeFilter {
    /// As sent, `$share/` included.
    pub filter: ByteString,
    /// Options byte.
    pub options: SubscribeOptions,
}

/// Subscription options; all but `qos` are version 5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Highest QoS wanted.
    pub qos: QoS,
    /// Not to be sent what this client published.
    pub no_local: bool,
    /// Keep the retain flag as it was published.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// Retain Handling option of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// At every SUBSCRIBE.
    #[default]
    Always = 0,
    /// Only when the subscription is new.
    IfNew = 1,
    /// Never.
    Never = 2,
}

/// SUBACK or UNSUBACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAck {
    /// Of the request.
    pub packet_id: PacketId,
    /// Properties of version 5.
    pub properties: Option<Box<ReasonProperties>>,
    /// One for each filter, in order. Encoded for 3.1 and 3.1.1 as 0, 1, 2 or 0x80; an UNSUBACK of
    /// those versions has none on the wire.
    pub reasons: SmallVec<[ReasonCode; 1]>,
}

/// UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Echoed by the UNSUBACK.
    pub packet_id: PacketId,
    /// User properties.
    pub user: Vec<UserProperty>,
    /// At least one `[MQTT-3.10.3-2]`; each is well-formed.
    pub filters: SmallVec<[ByteString; 1]>,
}

/// DISCONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// `NormalDisconnection` in 3.1 and 3.1.1, and where version 5 leaves it out.
    pub reason: ReasonCode,
    /// Properties of version 5.
    pub properties: Option<Box<DisconnectProperties>>,
}

/// Properties of a DISCONNECT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisconnectProperties {
    /// New session expiry, client to server only.
    pub session_expiry_secs: Option<u32>,
    /// Text for people.
    pub reason_string: Option<ByteString>,
    /// User properties.
    pub user: Vec<UserProperty>,
    /// Another server to use, server to client only.
    pub server_reference: Option<ByteString>,
}

/// AUTH, version 5 only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// `Success`, `ContinueAuthentication` or `ReAuthenticate`.
    pub reason: ReasonCode,
    /// Method and data; the method may be absent only where the whole property block is
    /// (reason `Success` in the two-byte form).
    pub properties: Option<Box<AuthProperties>>,
}

/// Properties of an AUTH.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthProperties {
    /// Name of the method.
    pub authentication_method: Option<ByteString>,
    /// Its data.
    pub authentication_data: Option<Bytes>,
    /// Text for people.
    pub reason_string: Option<ByteString>,
    /// User properties.
    pub user: Vec<UserProperty>,
}
