//! Why bytes are no packet: one named variant for each rule a peer can break.

use super::property::Property;
use super::reason::ReasonCode;
use super::topic::TopicError;

/// The peer sent something the standards call malformed. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Packet type 0, or 15 (AUTH) before version 5.
    #[error("reserved packet type")]
    PacketType,
    /// A packet only the other side may send.
    #[error("packet type is not for this side to send")]
    WrongDirection,
    /// Reserved bits of the fixed header `[MQTT-2.1.3-1]`.
    #[error("reserved flags in the fixed header")]
    HeaderFlags,
    /// A variable byte integer of more than four bytes.
    #[error("variable byte integer of more than four bytes")]
    VarintTooLong,
    /// A variable byte integer with needless bytes `[MQTT-1.5.5-1]`.
    #[error("variable byte integer is not minimal")]
    VarintNotMinimal,
    /// A field crosses the end of its packet or property block.
    #[error("packet ends inside a field")]
    Truncated,
    /// Bytes behind the last field.
    #[error("bytes behind the last field")]
    TrailingBytes,
    /// Not UTF-8 `[MQTT-1.5.4-1]`.
    #[error("text is not UTF-8")]
    Utf8,
    /// U+0000 in a string `[MQTT-1.5.4-2]`.
    #[error("U+0000 in text")]
    NulCharacter,
    /// A packet identifier of zero `[MQTT-2.2.1-3]`.
    #[error("packet identifier is zero")]
    PacketIdZero,
    /// QoS 3 `[MQTT-3.3.1-4]`, `[MQTT-3.1.2-12]`.
    #[error("QoS 3")]
    QoS,
    /// DUP on a QoS 0 PUBLISH `[MQTT-3.3.1-2]`.
    #[error("DUP with QoS 0")]
    DupWithQoS0,

    /// CONNECT: a protocol name other than `MQTT` and `MQIsdp` `[MQTT-3.1.2-1]`.
    #[error("unknown protocol name")]
    ProtocolName,
    /// CONNECT: a level that does not exist under its protocol name `[MQTT-3.1.2-2]`. To be
    /// answered with CONNACK return code 1, in the form of version 5 (0x84) for levels above 4.
    #[error("unsupported protocol level {0}")]
    ProtocolLevel(u8),
    /// CONNECT: the reserved flag `[MQTT-3.1.2-3]`.
    #[error("reserved CONNECT flag")]
    ConnectFlags,
    /// CONNECT: Will QoS or Will Retain without a Will `[MQTT-3.1.2-11]`, `[MQTT-3.1.2-13]`.
    #[error("Will QoS or Will Retain without Will")]
    WillFlags,
    /// CONNECT before version 5: a password but no user name `[MQTT-3.1.2-22]` of 3.1.1.
    #[error("password without user name")]
    PasswordWithoutUsername,

    /// CONNACK: reserved acknowledge flags `[MQTT-3.2.2-1]`.
    #[error("reserved CONNACK flags")]
    ConnAckFlags,
    /// CONNACK: Session Present on a refusal `[MQTT-3.2.2-6]`.
    #[error("session present on a refused connection")]
    SessionPresentOnRefusal,
    /// A reason code, or return code, that this packet cannot carry.
    #[error("reason code {0:#04x} is not for this packet")]
    ReasonCode(u8),

    /// PUBLISH: a topic name with wildcards `[MQTT-3.3.2-2]`, or an empty one before version 5.
    #[error("topic name: {0}")]
    TopicName(TopicError),
    /// PUBLISH: neither topic name nor topic alias.
    #[error("neither topic name nor topic alias")]
    TopicMissing,
    /// PUBLISH: topic alias 0 `[MQTT-3.3.2-8]`.
    #[error("topic alias is zero")]
    TopicAliasZero,
    /// PUBLISH: a response topic with wildcards `[MQTT-3.3.2-14]`, or an empty one.
    #[error("response topic: {0}")]
    ResponseTopic(TopicError),
    /// PUBLISH: a subscription identifier from a client `[MQTT-3.3.4-6]`.
    #[error("subscription identifier in a client's PUBLISH")]
    SubscriptionIdFromClient,

    /// SUBSCRIBE, UNSUBSCRIBE: a malformed topic filter (sections 4.7 and 4.8.2).
    #[error("topic filter: {0}")]
    TopicFilter(TopicError),
    /// SUBSCRIBE, UNSUBSCRIBE: no topic filter; SUBACK, UNSUBACK: no reason code.
    #[error("no entries")]
    NoEntries,
    /// More filters in one SUBSCRIBE or UNSUBSCRIBE than any client needs; each takes many times
    /// the room in memory that it takes on the wire.
    #[error("too many topic filters in one packet")]
    TooManyFilters,
    /// SUBSCRIBE: reserved bits in the options `[MQTT-3.8.3-5]`.
    #[error("reserved subscription options")]
    SubscribeOptions,
    /// SUBSCRIBE: Retain Handling 3.
    #[error("retain handling 3")]
    RetainHandling,
    /// SUBSCRIBE: No Local on a shared subscription `[MQTT-3.8.3-4]`.
    #[error("no local on a shared subscription")]
    NoLocalShared,

    /// A property identifier that does not exist.
    #[error("unknown property {0:#04x}")]
    PropertyUnknown(usize),
    /// A property that this packet does not have (section 2.2.2.2).
    #[error("property {0:?} is not for this packet")]
    PropertyNotAllowed(Property),
    /// A property that may stand once, twice.
    #[error("property {0:?} is repeated")]
    PropertyRepeated(Property),
    /// A value the property cannot have: zero where that is an error, or neither 0 nor 1.
    #[error("property {0:?} has an impossible value")]
    PropertyValue(Property),
    /// Authentication Data without Authentication Method.
    #[error("authentication data without method")]
    AuthDataWithoutMethod,
    /// AUTH without Authentication Method.
    #[error("no authentication method")]
    AuthMethodMissing,
}

impl DecodeError {
    /// What version 5 tells the peer about it (sections 2.4 and 4.13).
    #[must_use]
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::PacketType
            | Self::HeaderFlags
            | Self::VarintTooLong
            | Self::VarintNotMinimal
            | Self::Truncated
            | Self::TrailingBytes
            | Self::Utf8
            | Self::NulCharacter
            | Self::PacketIdZero
            | Self::QoS
            | Self::DupWithQoS0
            | Self::ConnectFlags
            | Self::WillFlags
            | Self::PasswordWithoutUsername
            | Self::ConnAckFlags
            | Self::TopicName(_)
            | Self::TopicFilter(_)
            | Self::SubscribeOptions
            | Self::PropertyUnknown(_)
            | Self::PropertyNotAllowed(_) => ReasonCode::MalformedPacket,
            Self::WrongDirection
            | Self::SessionPresentOnRefusal
            | Self::ReasonCode(_)
            | Self::TopicMissing
            | Self::ResponseTopic(_)
            | Self::SubscriptionIdFromClient
            | Self::NoEntries
            | Self::RetainHandling
            | Self::NoLocalShared
            | Self::PropertyRepeated(_)
            | Self::PropertyValue(_)
            | Self::AuthDataWithoutMethod
            | Self::AuthMethodMissing => ReasonCode::ProtocolError,
            Self::ProtocolName | Self::ProtocolLevel(_) => ReasonCode::UnsupportedProtocolVersion,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            Self::TooManyFilters => ReasonCode::QuotaExceeded,
        }
    }

    /// A short name for logs and counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PacketType => "packet_type",
            Self::WrongDirection => "wrong_direction",
            Self::HeaderFlags => "header_flags",
            Self::VarintTooLong => "varint_too_long",
            Self::VarintNotMinimal => "varint_not_minimal",
            Self::Truncated => "truncated",
            Self::TrailingBytes => "trailing_bytes",
            Self::Utf8 => "utf8",
            Self::NulCharacter => "nul_character",
            Self::PacketIdZero => "packet_id_zero",
            Self::QoS => "qos",
            Self::DupWithQoS0 => "dup_with_qos0",
            Self::ProtocolName => "protocol_name",
            Self::ProtocolLevel(_) => "protocol_level",
            Self::ConnectFlags => "connect_flags",
            Self::WillFlags => "will_flags",
            Self::PasswordWithoutUsername => "password_without_username",
            Self::ConnAckFlags => "connack_flags",
            Self::SessionPresentOnRefusal => "session_present_on_refusal",
            Self::ReasonCode(_) => "reason_code",
            Self::TopicName(_) => "topic_name",
            Self::TopicMissing => "topic_missing",
            Self::TopicAliasZero => "topic_alias_zero",
            Self::ResponseTopic(_) => "response_topic",
            Self::SubscriptionIdFromClient => "subscription_id_from_client",
            Self::TopicFilter(_) => "topic_filter",
            Self::NoEntries => "no_entries",
            Self::TooManyFilters => "too_many_filters",
            Self::SubscribeOptions => "subscribe_options",
            Self::RetainHandling => "retain_handling",
            Self::NoLocalShared => "no_local_shared",
            Self::PropertyUnknown(_) => "property_unknown",
            Self::PropertyNotAllowed(_) => "property_not_allowed",
            Self::PropertyRepeated(_) => "property_repeated",
            Self::PropertyValue(_) => "property_value",
            Self::AuthDataWithoutMethod => "auth_data_without_method",
            Self::AuthMethodMissing => "auth_method_missing",
        }
    }
}
