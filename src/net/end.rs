//! Why connections end, and what is told then: to the client, the log, metrics and operators.

use std::io;

use super::input::FrameError;
use super::users::NotProven;
use super::websocket::FrameError as WebSocketError;
use crate::broker::{Broker, BrokerEvent, Handle, Parting, Peer, Who};
use crate::log::Shown;
use crate::metrics::{DisconnectReason, Label, ProtocolError};
use crate::mqtt::ReasonCode;
use crate::mqtt::decode::DecodeError;
use crate::session::Violation;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the client said goodbye")]
    Goodbye,
    #[error("connection closed by client")]
    Closed,
    #[error("{0}")]
    Io(io::Error),
    #[error("not a WebSocket any more: {0}")]
    WebSocket(WebSocketError),
    #[error("malformed packet: {0}")]
    Malformed(#[from] DecodeError),
    #[error("packet too large")]
    TooLarge,
    #[error("the client takes no packets large enough to answer it")]
    TooLargeForClient,
    #[error("protocol error: {0}")]
    Violation(#[from] Violation),
    #[error("not permitted: {0}")]
    IdentityViolation(&'static str),
    #[error("not permitted: {0}")]
    NotAuthorized(&'static str),
    #[error("re-authentication: {0}")]
    NotProven(NotProven),
    #[error("the user's password has changed, or there is no such user any more")]
    UserGone,
    #[error("no room for its message: {0}")]
    NoRoom(&'static str),
    #[error("session taken over")]
    TakenOver,
    #[error("ended by the operator")]
    Kicked,
    #[error("the broker shuts down")]
    Shutdown,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match WebSocketError::of(&error) {
            Some(error) => Self::WebSocket(error),
            None => Self::Io(error),
        }
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Malformed(error) => Self::Malformed(error),
            FrameError::TooLong => Self::TooLarge,
        }
    }
}

impl End {
    /// What a client of version 5 is told before the connection closes, if anything.
    pub(super) fn reason(&self) -> Option<ReasonCode> {
        match self {
            Self::Goodbye | Self::Closed | Self::Io(_) => None,
            // Only a second CONNECT names a protocol, and no DISCONNECT may carry that code.
            Self::Malformed(DecodeError::ProtocolName | DecodeError::ProtocolLevel(_)) => {
                Some(ReasonCode::ProtocolError)
            }
            Self::Malformed(error) => Some(error.reason()),
            Self::WebSocket(_) => Some(ReasonCode::ProtocolError),
            Self::TooLarge | Self::TooLargeForClient => Some(ReasonCode::PacketTooLarge),
            Self::Violation(violation) => Some(violation.reason()),
            Self::IdentityViolation(_)
            | Self::NotAuthorized(_)
            | Self::NotProven(_)
            | Self::UserGone => Some(ReasonCode::NotAuthorized),
            Self::NoRoom(_) => Some(ReasonCode::QuotaExceeded),
            Self::TakenOver => Some(ReasonCode::SessionTakenOver),
            Self::Kicked => Some(ReasonCode::AdministrativeAction),
            Self::Shutdown => Some(ReasonCode::ServerShuttingDown),
        }
    }

    pub(super) fn label(&self) -> DisconnectReason {
        match self {
            Self::Goodbye => DisconnectReason::Client,
            Self::Closed => DisconnectReason::Closed,
            Self::Io(_) => DisconnectReason::Io,
            Self::Malformed(_) => DisconnectReason::Malformed,
            Self::WebSocket(_) => DisconnectReason::ProtocolError,
            Self::TooLarge | Self::TooLargeForClient => DisconnectReason::PacketTooLarge,
            Self::Violation(Violation::KeepAliveTimeout) => DisconnectReason::KeepAlive,
            Self::Violation(Violation::ReceiveMaximumExceeded) => DisconnectReason::ReceiveMaximum,
            Self::Violation(_) => DisconnectReason::ProtocolError,
            Self::IdentityViolation(_) => DisconnectReason::IdentityViolation,
            Self::NotAuthorized(_) | Self::NotProven(_) | Self::UserGone => {
                DisconnectReason::NotAuthorized
            }
            Self::NoRoom(_) => DisconnectReason::QuotaExceeded,
            Self::TakenOver => DisconnectReason::TakenOver,
            Self::Kicked => DisconnectReason::Administrative,
            Self::Shutdown => DisconnectReason::ShuttingDown,
        }
    }

    /// Which mistake of the client this is, if it is one.
    pub(super) fn protocol_error(&self) -> Option<ProtocolError> {
        match self {
            Self::Malformed(_) => Some(ProtocolError::Malformed),
            Self::TooLarge => Some(ProtocolError::TooLarge),
            Self::Violation(Violation::KeepAliveTimeout) => None,
            Self::Violation(_) | Self::WebSocket(_) => Some(ProtocolError::Violation),
            Self::Goodbye
            | Self::Closed
            | Self::Io(_)
            | Self::TooLargeForClient
            | Self::IdentityViolation(_)
            | Self::NotAuthorized(_)
            | Self::NotProven(_)
            | Self::UserGone
            | Self::NoRoom(_)
            | Self::TakenOver
            | Self::Kicked
            | Self::Shutdown => None,
        }
    }

    /// One line and one event, except that two devices with one id send each other away as fast
    /// as they can (case Q8).
    pub(super) fn note(&self, broker: &Broker, handle: &Handle, peer: Peer) {
        let client = Shown(handle.client_id.as_str());
        if !matches!(self, Self::TakenOver) {
            tracing::info!(%client, %peer, "disconnected: {self}");
        } else if let Some(repeats) = broker.complain("taken_over") {
            tracing::warn!(%client, %peer, repeats = repeats.field(), "disconnected: {self}");
        } else {
            return;
        }
        broker.tell(|| BrokerEvent::Disconnected {
            client: Who { peer: Some(peer), ..handle.who() }.into(),
            reason: self.label().name(),
            detail: self.to_string(),
        });
    }

    pub(super) fn parting(&self) -> Parting {
        if matches!(self, Self::Shutdown) { Parting::Shutdown } else { Parting::Ended }
    }
}
