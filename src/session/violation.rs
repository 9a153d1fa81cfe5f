//! What a client did against the protocol: each case with its rule and what the client is told.

use crate::mqtt::ReasonCode;

/// A protocol error of the client. It ends the connection `[MQTT-4.13.1-1]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// `[MQTT-3.1.0-1]`
    #[error("the first packet is not a CONNECT")]
    NotConnected,
    /// `[MQTT-3.1.0-2]`
    #[error("a second CONNECT")]
    SecondConnect,
    /// `[MQTT-3.1.3-8]` of 3.1.1: an empty client id needs a clean session; 3.1 has no empty ids.
    #[error("an empty client id without a clean session")]
    EmptyClientId,
    /// A bound of this broker: `limits.max_client_id_bytes`.
    #[error("the client id is too long")]
    ClientIdTooLong,
    /// `[MQTT-4.7.1-1]`, `[MQTT-4.7.3-1]`
    #[error("the Will topic is no topic name")]
    WillTopicInvalid,
    /// `[MQTT-3.3.2-14]`
    #[error("the response topic is no topic name")]
    ResponseTopicInvalid,
    /// `[MQTT-4.12.0-1]`: this listener knows no method of that name.
    #[error("authentication method not supported")]
    UnknownAuthenticationMethod,
    /// `[MQTT-4.12.0-6]`
    #[error("AUTH without an authentication method in the CONNECT")]
    UnexpectedAuth,
    /// `[MQTT-3.3.4-9]`: more unreleased QoS 2 messages than the server's Receive Maximum.
    #[error("more messages in flight than the server's Receive Maximum")]
    ReceiveMaximumExceeded,
    /// `[MQTT-3.3.2-9]`: an alias above the server's Topic Alias Maximum, or never set.
    #[error("unknown topic alias")]
    TopicAliasInvalid,
    /// `[MQTT-3.14.2-2]`: from zero to non-zero.
    #[error("session expiry raised at DISCONNECT")]
    SessionExpiryRaised,
    /// `[MQTT-3.14.2.2.5]`, 3.14.2.1: what only a server may say.
    #[error("a DISCONNECT that only a server may send")]
    ServerDisconnect,
    /// A packet that only a server may send.
    #[error("a packet that only a server may send")]
    ServerPacket,
    /// `[MQTT-3.1.2-22]`: nothing for one and a half times the keep alive.
    #[error("keep alive timeout")]
    KeepAliveTimeout,
}

impl Violation {
    /// What a client of version 5 is told in CONNACK or DISCONNECT.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::NotConnected
            | Self::SecondConnect
            | Self::UnexpectedAuth
            | Self::SessionExpiryRaised
            | Self::ServerDisconnect
            | Self::ServerPacket => ReasonCode::ProtocolError,
            Self::EmptyClientId | Self::ClientIdTooLong => ReasonCode::ClientIdentifierNotValid,
            Self::WillTopicInvalid | Self::ResponseTopicInvalid => ReasonCode::TopicNameInvalid,
            Self::UnknownAuthenticationMethod => ReasonCode::BadAuthenticationMethod,
            Self::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
            Self::TopicAliasInvalid => ReasonCode::TopicAliasInvalid,
            Self::KeepAliveTimeout => ReasonCode::KeepAliveTimeout,
        }
    }

    /// A short name for counters and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::SecondConnect => "second_connect",
            Self::EmptyClientId => "empty_client_id",
            Self::ClientIdTooLong => "client_id_too_long",
            Self::WillTopicInvalid => "will_topic_invalid",
            Self::ResponseTopicInvalid => "response_topic_invalid",
            Self::UnknownAuthenticationMethod => "unknown_authentication_method",
            Self::UnexpectedAuth => "unexpected_auth",
            Self::ReceiveMaximumExceeded => "receive_maximum_exceeded",
            Self::TopicAliasInvalid => "topic_alias_invalid",
            Self::SessionExpiryRaised => "session_expiry_raised",
            Self::ServerDisconnect => "server_disconnect",
            Self::ServerPacket => "server_packet",
            Self::KeepAliveTimeout => "keep_alive_timeout",
        }
    }
}
