//! What a well-formed packet must not say: rules about the content of one packet that need no
//! session to judge. The decoder accepts these packets, so that they can be answered.

use super::decode::Sender;
use super::packet::{Auth, Connect, Disconnect, Publish, Version, Will};
use super::reason::{self, ReasonCode};
use super::topic::{self, TopicError};

/// The packet is well-formed and yet says what its sender may not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// CONNECT: an empty client id without a clean session `[MQTT-3.1.3-8]` of 3.1.1, or at all
    /// in 3.1.
    #[error("empty client id")]
    ClientIdEmpty,
    /// CONNECT: the Will Topic is no topic name `[MQTT-4.7.0-1]`, `[MQTT-4.7.3-1]`.
    #[error("will topic: {0}")]
    WillTopic(TopicError),
    /// CONNECT: the Will's Response Topic is no topic name `[MQTT-3.3.2-14]`.
    #[error("response topic of the will: {0}")]
    WillResponseTopic(TopicError),
    /// The payload is said to be UTF-8 and is not.
    #[error("payload is not the UTF-8 it is said to be")]
    PayloadFormat,
    /// DISCONNECT, AUTH: a reason code only the other side may send.
    #[error("reason code is for the other side to send")]
    ReasonOfOtherSide,
    /// DISCONNECT: a Server Reference from a client.
    #[error("server reference from a client")]
    ServerReferenceFromClient,
    /// DISCONNECT: a Session Expiry Interval from a server `[MQTT-3.14.2-2]`.
    #[error("session expiry from a server")]
    SessionExpiryFromServer,
}

impl CheckError {
    /// What version 5 tells the peer about it.
    #[must_use]
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::ClientIdEmpty => ReasonCode::ClientIdentifierNotValid,
            Self::WillTopic(_) => ReasonCode::TopicNameInvalid,
            Self::PayloadFormat => ReasonCode::PayloadFormatInvalid,
            Self::WillResponseTopic(_)
            | Self::ReasonOfOtherSide
            | Self::ServerReferenceFromClient
            | Self::SessionExpiryFromServer => ReasonCode::ProtocolError,
        }
    }

    /// A short name for logs and counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ClientIdEmpty => "client_id_empty",
            Self::WillTopic(_) => "will_topic",
            Self::WillResponseTopic(_) => "will_response_topic",
            Self::PayloadFormat => "payload_format",
            Self::ReasonOfOtherSide => "reason_of_other_side",
            Self::ServerReferenceFromClient => "server_reference_from_client",
            Self::SessionExpiryFromServer => "session_expiry_from_server",
        }
    }
}

impl Connect {
    /// Client id and Will.
    ///
    /// # Errors
    /// [`CheckError`] says what is wrong.
    pub fn check(&self) -> Result<(), CheckError> {
        let may_be_empty = match self.version {
            Version::V31 => false,
            Version::V311 => self.clean_start,
            Version::V5 => true,
        };
        if self.client_id.is_empty() && !may_be_empty {
            return Err(CheckError::ClientIdEmpty);
        }
        self.will.as_ref().map_or(Ok(()), Will::check)
    }
}

impl Will {
    fn check(&self) -> Result<(), CheckError> {
        topic::validate_name(&self.topic).map_err(CheckError::WillTopic)?;
        let response_topic = self.properties.as_ref().and_then(|p| p.response_topic.as_ref());
        let Some(response_topic) = response_topic else { return Ok(()) };
        topic::validate_name(response_topic).map_err(CheckError::WillResponseTopic)
    }

    /// Whether the payload is the UTF-8 it is said to be. Receivers MAY check this (section
    /// 3.1.3.2.3), so it costs only those who ask.
    ///
    /// # Errors
    /// [`CheckError::PayloadFormat`].
    pub fn check_payload_format(&self) -> Result<(), CheckError> {
        let is_utf8 = self.properties.as_ref().is_some_and(|p| p.payload_is_utf8 == Some(true));
        check_payload_format(is_utf8, &self.payload)
    }
}

impl Publish {
    /// Whether the payload is the UTF-8 it is said to be. Receivers MAY check this (section
    /// 3.3.2.3.2), so it costs only those who ask.
    ///
    /// # Errors
    /// [`CheckError::PayloadFormat`].
    pub fn check_payload_format(&self) -> Result<(), CheckError> {
        let is_utf8 = self.properties.as_ref().is_some_and(|p| p.payload_is_utf8 == Some(true));
        check_payload_format(is_utf8, &self.payload)
    }
}

impl Disconnect {
    /// Reason and properties against the direction (section 3.14.2).
    ///
    /// # Errors
    /// [`CheckError`] says what is wrong.
    pub fn check(&self, from: Sender) -> Result<(), CheckError> {
        let properties = self.properties.as_deref();
        let (forbidden, error) = match from {
            Sender::Client => (
                properties.is_some_and(|p| p.server_reference.is_some()),
                CheckError::ServerReferenceFromClient,
            ),
            Sender::Server => (
                properties.is_some_and(|p| p.session_expiry_secs.is_some()),
                CheckError::SessionExpiryFromServer,
            ),
        };
        let reason_fits = match from {
            Sender::Client => reason::DISCONNECT_CLIENT.contains(&self.reason),
            Sender::Server => self.reason != ReasonCode::DisconnectWithWill,
        };
        if !reason_fits {
            return Err(CheckError::ReasonOfOtherSide);
        }
        if forbidden { Err(error) } else { Ok(()) }
    }
}

impl Auth {
    /// Only servers succeed, only clients ask again (section 3.15.2.1).
    ///
    /// # Errors
    /// [`CheckError::ReasonOfOtherSide`].
    pub fn check(&self, from: Sender) -> Result<(), CheckError> {
        let others = match from {
            Sender::Client => ReasonCode::Success,
            Sender::Server => ReasonCode::ReAuthenticate,
        };
        if self.reason == others { Err(CheckError::ReasonOfOtherSide) } else { Ok(()) }
    }
}

fn check_payload_format(is_utf8: bool, payload: &[u8]) -> Result<(), CheckError> {
    if is_utf8 && std::str::from_utf8(payload).is_err() {
        return Err(CheckError::PayloadFormat);
    }
    Ok(())
}
