//! What a client did against the protocol: each case with its rule and what the client is told.

use crate::mqtt::{CheckError, ReasonCode};

/// A protocol error of the client. It ends the connection `[MQTT-4.13.1-1]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// `[MQTT-3.1.0-1]`
    #[error("the first packet is not a CONNECT")]
    NotConnected,
    /// `[MQTT-3.1.0-2]`
    #[error("a second CONNECT")]
    SecondConnect,
    /// A bound of this broker: `limits.max_client_id_bytes`.
    #[error("the client id is too long")]
    ClientIdTooLong,
    /// A choice of this broker: `mqtt.empty_client_id`.
    #[error("a client id is needed here")]
    ClientIdMissing,
    /// A choice of this broker: `mqtt.keepalive_exceeded`.
    #[error("the keep alive is longer than is taken here")]
    KeepAliveTooLong,
    /// `[MQTT-3.2.2-13]`, `[MQTT-3.2.2-14]`: `mqtt.retain` is off.
    #[error("messages are not retained here")]
    RetainNotSupported,
    /// `[MQTT-3.1.2-24]`: the Maximum Packet Size of the client has no room for a CONNACK.
    #[error("the client takes no packets large enough to answer it")]
    PacketSizeTooSmall,
    /// A packet that is well-formed and says what a client may not say.
    #[error(transparent)]
    Content(#[from] CheckError),
    /// `[MQTT-4.12.0-1]`: this listener knows no method of that name.
    #[error("authentication method not supported")]
    UnknownAuthenticationMethod,
    /// `[MQTT-4.12.0-7]`
    #[error("AUTH without an authentication method in the CONNECT")]
    UnexpectedAuth,
    /// `[MQTT-4.12.1-1]`: the method of the CONNECT is the method of the connection.
    #[error("AUTH with another authentication method than the CONNECT")]
    AuthenticationMethodChanged,
    /// `[MQTT-4.12.0-3]`: a client answers with 0x18, and begins anew with 0x19.
    #[error("AUTH out of turn")]
    AuthOutOfTurn,
    /// A session belongs to one identity: re-authentication shows that it is still there.
    #[error("re-authentication as another user")]
    AnotherUser,
    /// `[MQTT-3.1.2-30]`: nothing but AUTH and DISCONNECT between CONNECT and CONNACK.
    #[error("a packet that is not AUTH before the CONNACK")]
    NotAuthenticated,
    /// `[MQTT-3.3.4-9]`: more unreleased QoS 2 messages than the server's Receive Maximum.
    #[error("more messages in flight than the server's Receive Maximum")]
    ReceiveMaximumExceeded,
    /// `[MQTT-3.2.2-11]`, `[MQTT-3.2.2-12]`: above the Maximum QoS of the CONNACK, or of the one
    /// that would have been sent.
    #[error("a QoS above the highest one that is served here")]
    QosExceeded,
    /// An acknowledgement of another kind than the message asks for `[MQTT-4.3.2-2]`,
    /// `[MQTT-4.3.3-3]`: the two sides no longer agree on what has arrived.
    #[error("an acknowledgement of the wrong kind")]
    WrongAcknowledgement,
    /// `[MQTT-3.3.2-9]`: an alias above the server's Topic Alias Maximum.
    #[error("topic alias above the maximum")]
    TopicAliasInvalid,
    /// An alias without a topic name that none has been given (3.3.2.3.4).
    #[error("unknown topic alias")]
    TopicAliasUnknown,
    /// `[MQTT-3.14.2-2]`: from zero to non-zero.
    #[error("session expiry raised at DISCONNECT")]
    SessionExpiryRaised,
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
            | Self::AuthenticationMethodChanged
            | Self::AuthOutOfTurn
            | Self::AnotherUser
            | Self::NotAuthenticated
            | Self::SessionExpiryRaised
            | Self::WrongAcknowledgement
            | Self::TopicAliasUnknown
            | Self::ServerPacket => ReasonCode::ProtocolError,
            // "Identifier rejected" is what mosquitto says to a keep alive that is too long.
            Self::ClientIdTooLong | Self::ClientIdMissing | Self::KeepAliveTooLong => {
                ReasonCode::ClientIdentifierNotValid
            }
            Self::RetainNotSupported => ReasonCode::RetainNotSupported,
            Self::PacketSizeTooSmall => ReasonCode::PacketTooLarge,
            Self::Content(error) => error.reason(),
            Self::UnknownAuthenticationMethod => ReasonCode::BadAuthenticationMethod,
            Self::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
            Self::QosExceeded => ReasonCode::QoSNotSupported,
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
            Self::ClientIdTooLong => "client_id_too_long",
            Self::ClientIdMissing => "client_id_missing",
            Self::KeepAliveTooLong => "keep_alive_too_long",
            Self::RetainNotSupported => "retain_not_supported",
            Self::PacketSizeTooSmall => "packet_size_too_small",
            Self::Content(error) => error.name(),
            Self::UnknownAuthenticationMethod => "unknown_authentication_method",
            Self::UnexpectedAuth => "unexpected_auth",
            Self::AuthenticationMethodChanged => "authentication_method_changed",
            Self::AuthOutOfTurn => "auth_out_of_turn",
            Self::AnotherUser => "another_user",
            Self::NotAuthenticated => "not_authenticated",
            Self::ReceiveMaximumExceeded => "receive_maximum_exceeded",
            Self::QosExceeded => "qos_exceeded",
            Self::WrongAcknowledgement => "wrong_acknowledgement",
            Self::TopicAliasInvalid => "topic_alias_invalid",
            Self::TopicAliasUnknown => "topic_alias_unknown",
            Self::SessionExpiryRaised => "session_expiry_raised",
            Self::ServerPacket => "server_packet",
            Self::KeepAliveTimeout => "keep_alive_timeout",
        }
    }
}
