//! Reason codes of MQTT 5 (section 2.4) and their older relatives.

/// A reason code. `Success` (0x00) also stands for "Normal disconnection" and "Granted QoS 0".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum ReasonCode {
    Success = 0x00,
    GrantedQoS1 = 0x01,
    GrantedQoS2 = 0x02,
    DisconnectWithWill = 0x04,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    ContinueAuthentication = 0x18,
    ReAuthenticate = 0x19,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdentifierInUse = 0x91,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QoSNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
    SubscriptionIdentifiersNotSupported = 0xA1,
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// Every reason code there is.
    pub const ALL: [Self; 43] = [
        Self::Success,
        Self::GrantedQoS1,
        Self::GrantedQoS2,
        Self::DisconnectWithWill,
        Self::NoMatchingSubscribers,
        Self::NoSubscriptionExisted,
        Self::ContinueAuthentication,
        Self::ReAuthenticate,
        Self::UnspecifiedError,
        Self::MalformedPacket,
        Self::ProtocolError,
        Self::ImplementationSpecificError,
        Self::UnsupportedProtocolVersion,
        Self::ClientIdentifierNotValid,
        Self::BadUserNameOrPassword,
        Self::NotAuthorized,
        Self::ServerUnavailable,
        Self::ServerBusy,
        Self::Banned,
        Self::ServerShuttingDown,
        Self::BadAuthenticationMethod,
        Self::KeepAliveTimeout,
        Self::SessionTakenOver,
        Self::TopicFilterInvalid,
        Self::TopicNameInvalid,
        Self::PacketIdentifierInUse,
        Self::PacketIdentifierNotFound,
        Self::ReceiveMaximumExceeded,
        Self::TopicAliasInvalid,
        Self::PacketTooLarge,
        Self::MessageRateTooHigh,
        Self::QuotaExceeded,
        Self::AdministrativeAction,
        Self::PayloadFormatInvalid,
        Self::RetainNotSupported,
        Self::QoSNotSupported,
        Self::UseAnotherServer,
        Self::ServerMoved,
        Self::SharedSubscriptionsNotSupported,
        Self::ConnectionRateExceeded,
        Self::MaximumConnectTime,
        Self::SubscriptionIdentifiersNotSupported,
        Self::WildcardSubscriptionsNotSupported,
    ];

    /// The reason code with this value, if there is one. Not every packet can carry every code:
    /// the decoder knows which.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&reason| reason as u8 == byte)
    }

    /// Codes from 0x80 on say that something failed.
    #[must_use]
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The CONNACK return code by which 3.1 and 3.1.1 say it. `None` when they have no word for it:
    /// then a server closes without a CONNACK (`[MQTT-3.2.2-6]` of 3.1.1).
    #[must_use]
    pub fn return_code(self) -> Option<u8> {
        if !self.is_error() {
            return Some(0);
        }
        let known = RETURN_CODES.iter().find(|(reason, _)| *reason == self);
        known.map(|&(_, code)| code)
    }

    /// What a CONNACK return code of 3.1 and 3.1.1 means.
    pub(super) fn from_return_code(code: u8) -> Option<Self> {
        if code == 0 {
            return Some(Self::Success);
        }
        let known = RETURN_CODES.iter().find(|(_, known)| *known == code);
        known.map(|&(reason, _)| reason)
    }
}

use ReasonCode as R; // shorter tables

/// Return code for what has nothing to do with the client.
pub(super) const SERVER_UNAVAILABLE: u8 = 3;

/// The refusals of 3.1 and 3.1.1; the first of several is what the code is read as.
const RETURN_CODES: [(ReasonCode, u8); 14] = [
    (R::UnsupportedProtocolVersion, 1),
    (R::ClientIdentifierNotValid, 2),
    (R::ServerUnavailable, SERVER_UNAVAILABLE),
    (R::ServerBusy, SERVER_UNAVAILABLE),
    (R::QuotaExceeded, SERVER_UNAVAILABLE),
    (R::ConnectionRateExceeded, SERVER_UNAVAILABLE),
    (R::UseAnotherServer, SERVER_UNAVAILABLE),
    (R::ServerMoved, SERVER_UNAVAILABLE),
    (R::UnspecifiedError, SERVER_UNAVAILABLE),
    (R::ImplementationSpecificError, SERVER_UNAVAILABLE),
    (R::BadUserNameOrPassword, 4),
    (R::NotAuthorized, 5),
    (R::Banned, 5),
    (R::BadAuthenticationMethod, 5),
];

/// Section 3.2.2.2.
pub(super) const CONNACK: &[ReasonCode] = &[
    R::Success,
    R::UnspecifiedError,
    R::MalformedPacket,
    R::ProtocolError,
    R::ImplementationSpecificError,
    R::UnsupportedProtocolVersion,
    R::ClientIdentifierNotValid,
    R::BadUserNameOrPassword,
    R::NotAuthorized,
    R::ServerUnavailable,
    R::ServerBusy,
    R::Banned,
    R::BadAuthenticationMethod,
    R::TopicNameInvalid,
    R::PacketTooLarge,
    R::QuotaExceeded,
    R::PayloadFormatInvalid,
    R::RetainNotSupported,
    R::QoSNotSupported,
    R::UseAnotherServer,
    R::ServerMoved,
    R::ConnectionRateExceeded,
];

/// PUBACK and PUBREC: sections 3.4.2.1 and 3.5.2.1.
pub(super) const RECEIPT: &[ReasonCode] = &[
    R::Success,
    R::NoMatchingSubscribers,
    R::UnspecifiedError,
    R::ImplementationSpecificError,
    R::NotAuthorized,
    R::TopicNameInvalid,
    R::PacketIdentifierInUse,
    R::QuotaExceeded,
    R::PayloadFormatInvalid,
];

/// PUBREL and PUBCOMP: sections 3.6.2.1 and 3.7.2.1.
pub(super) const RELEASE: &[ReasonCode] = &[R::Success, R::PacketIdentifierNotFound];

/// Section 3.9.3.
pub(super) const SUBACK: &[ReasonCode] = &[
    R::Success,
    R::GrantedQoS1,
    R::GrantedQoS2,
    R::UnspecifiedError,
    R::ImplementationSpecificError,
    R::NotAuthorized,
    R::TopicFilterInvalid,
    R::PacketIdentifierInUse,
    R::QuotaExceeded,
    R::SharedSubscriptionsNotSupported,
    R::SubscriptionIdentifiersNotSupported,
    R::WildcardSubscriptionsNotSupported,
];

/// The return codes of a SUBACK before version 5; 0x80 is failure.
pub(super) const SUBACK_V3: &[ReasonCode] =
    &[R::Success, R::GrantedQoS1, R::GrantedQoS2, R::UnspecifiedError];

/// Section 3.11.3.
pub(super) const UNSUBACK: &[ReasonCode] = &[
    R::Success,
    R::NoSubscriptionExisted,
    R::UnspecifiedError,
    R::ImplementationSpecificError,
    R::NotAuthorized,
    R::TopicFilterInvalid,
    R::PacketIdentifierInUse,
];

/// What a client may say in a DISCONNECT (section 3.14.2.1).
pub(super) const DISCONNECT_CLIENT: &[ReasonCode] = &[
    R::Success,
    R::DisconnectWithWill,
    R::UnspecifiedError,
    R::MalformedPacket,
    R::ProtocolError,
    R::ImplementationSpecificError,
    R::BadAuthenticationMethod, // section 4.12 sends it in a DISCONNECT, without a direction
    R::TopicNameInvalid,
    R::ReceiveMaximumExceeded,
    R::TopicAliasInvalid,
    R::PacketTooLarge,
    R::MessageRateTooHigh,
    R::QuotaExceeded,
    R::AdministrativeAction,
    R::PayloadFormatInvalid,
];

/// What only a server may say in a DISCONNECT; it may say the rest too, but for 0x04.
pub(super) const DISCONNECT_SERVER: &[ReasonCode] = &[
    R::NotAuthorized,
    R::ServerBusy,
    R::ServerShuttingDown,
    R::KeepAliveTimeout,
    R::SessionTakenOver,
    R::TopicFilterInvalid,
    R::RetainNotSupported,
    R::QoSNotSupported,
    R::UseAnotherServer,
    R::ServerMoved,
    R::SharedSubscriptionsNotSupported,
    R::ConnectionRateExceeded,
    R::MaximumConnectTime,
    R::SubscriptionIdentifiersNotSupported,
    R::WildcardSubscriptionsNotSupported,
];

/// Section 3.15.2.1.
pub(super) const AUTH: &[ReasonCode] = &[R::Success, R::ContinueAuthentication, R::ReAuthenticate];
