//! From an open socket to a session: who is there, may it come in, and what it is told if not.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use bytestring::ByteString;
use tokio::io::{AsyncRead, AsyncWrite};

use super::conn::{Conn, ConnLimits, Link};
use super::gate::NoEntry;
use super::input::{FrameError, Input};
use super::login::Login;
use super::output::Output;
use super::proxy::{self, ProxyError};
use super::rules::Rules;
use super::users::{Hashers, NotProven, Proven, Users};
use super::websocket::{FrameError as WebSocketError, HandshakeError};
use crate::broker::{AclSlot, Attached, Broker, BrokerEvent, Calls, Handle, Peer, Rejected, Who};
use crate::config::{Listener, Mqtt, UserNameFrom};
use crate::ids::NidScheme;
use crate::log::{Repeats, Shown};
use crate::metrics::{ConnectResult, OpenConnection, ProtocolError};
use crate::mqtt::decode::{
    DecodeError, Sender, Tolerance, decode, decode_connect, version_of_connect,
};
use crate::mqtt::{Connect, Packet, ReasonCode, Version, fitted};
use crate::rsp::{IdentityError, ServerRule};
use crate::session::{Opening, Violation, refused};

/// Largest CONNECT, in bytes: strangers get less room than clients. A client id, a user name, a
/// password and a Will of ordinary size fit many times over.
const CONNECT_BYTES_MAX: usize = 128 * 1024;

/// Type of the first packet, in its first byte.
const CONNECT: u8 = 1;

/// How clients of one listener prove who they are.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) allow_anonymous: bool,
    /// A rig's switch: client id → identity, without any proof.
    pub(super) trust_client_id: bool,
    pub(super) servers_by_client_id: Vec<String>,
    pub(super) server_rules: Vec<ServerRule>,
    pub(super) scheme: NidScheme,
    pub(super) access: Access,
    pub(super) tolerance: Tolerance,
    pub(super) hashers: Arc<Hashers>,
    pub(super) user_name_from: UserNameFrom,
    pub(super) empty_user_name_is_anonymous: bool,
    pub(super) client_id_is_user_name: bool,
    pub(super) client_id_prefixes: Vec<String>,
    /// For operators.
    transport: &'static str,
}

/// What the files of an `[auth]` section say.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Whose passwords are checked.
    pub users: Option<Arc<Users>>,
    /// What clients may do; everything without one.
    pub acl: Option<Arc<AclSlot>>,
}

/// A client that has come in.
pub(super) struct Admitted {
    pub(super) attached: Attached,
    pub(super) version: Version,
    /// The user that it has shown to be.
    pub(super) proven: Option<Proven>,
}

/// Why a client does not come in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwelcome {
    #[error("no CONNECT within the connect timeout")]
    Timeout,
    #[error("connection closed before CONNECT")]
    Closed,
    #[error("{0}")]
    Io(io::Error),
    #[error("{0}")]
    WrongPort(WrongPort),
    #[error("{0}")]
    Proxy(ProxyError),
    #[error("{0}")]
    Handshake(HandshakeError),
    #[error("not a WebSocket any more: {0}")]
    WebSocket(WebSocketError),
    #[error("{1}")]
    NoEntry(Version, NoEntry),
    #[error("this version of MQTT is not spoken on this listener")]
    Version(Version),
    #[error("malformed packet: {0}")]
    Malformed(#[from] DecodeError),
    #[error("malformed CONNECT: {1}")]
    BadConnect(Version, DecodeError),
    #[error("the first packet is too large")]
    TooLarge,
    #[error("protocol error: {1}")]
    Violation(Version, Violation),
    #[error("{1}")]
    Identity(Version, IdentityError),
    #[error("this listener needs a user name, a certificate or another proof of identity")]
    Anonymous(Version),
    /// The user name is for the log alone.
    #[error("{1}")]
    NotProven(Version, NotProven, ByteString),
    #[error("client ids begin otherwise here")]
    ClientIdPrefix(Version),
    #[error("{1}")]
    Rejected(Version, Rejected),
    #[error("the broker shuts down")]
    Shutdown,
}

/// People who have the wrong port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WrongPort {
    #[error("TLS on a port without TLS; connect without TLS, or to the TLS port")]
    Tls,
    #[error("HTTP or a WebSocket on an MQTT port; connect with MQTT, or to the WebSocket port")]
    Http,
    #[error("a PROXY header on a listener without `proxy_protocol`")]
    Proxy,
}

impl From<io::Error> for Unwelcome {
    fn from(error: io::Error) -> Self {
        match WebSocketError::of(&error) {
            Some(error) => Self::WebSocket(error),
            None => Self::Io(error),
        }
    }
}

impl From<FrameError> for Unwelcome {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Malformed(error) => Self::Malformed(error),
            FrameError::TooLong => Self::TooLarge,
        }
    }
}

impl Entry {
    pub(super) fn new(
        listener: &Listener,
        mqtt: &Mqtt,
        scheme: NidScheme,
        access: Access,
        hashers: Arc<Hashers>,
    ) -> Self {
        let server_rules = listener.tls.as_ref().map(|tls| tls.servers.clone());
        Self {
            allow_anonymous: listener.allow_anonymous,
            trust_client_id: listener.insecure_identity_from_client_id,
            servers_by_client_id: listener.servers_by_client_id.clone(),
            server_rules: server_rules.unwrap_or_default(),
            scheme,
            access,
            tolerance: Tolerance {
                bridge_bit: mqtt.bridge_protocol_bit,
                password_without_user_name: mqtt.password_without_user_name,
                missing_user_name: mqtt.missing_user_name,
            },
            hashers,
            user_name_from: listener.user_name_from,
            empty_user_name_is_anonymous: mqtt.empty_user_name_is_anonymous,
            client_id_is_user_name: listener.client_id_is_user_name,
            client_id_prefixes: listener.client_id_prefixes.clone(),
            transport: listener.transport(),
        }
    }
}

impl Unwelcome {
    pub(super) fn result(&self) -> ConnectResult {
        match self {
            Self::Timeout => ConnectResult::Timeout,
            Self::Closed
            | Self::Io(_)
            | Self::Proxy(ProxyError::Closed | ProxyError::Io(_))
            | Self::Handshake(HandshakeError::Closed | HandshakeError::Io(_)) => {
                ConnectResult::Closed
            }
            Self::Malformed(DecodeError::ProtocolLevel(_)) | Self::Version(_) => {
                ConnectResult::UnsupportedVersion
            }
            Self::WrongPort(_)
            | Self::Handshake(HandshakeError::WrongPort(_) | HandshakeError::Mqtt)
            | Self::Malformed(_)
            | Self::BadConnect(..)
            | Self::TooLarge => ConnectResult::Malformed,
            Self::Proxy(_) => ConnectResult::ProxyHeader,
            Self::Handshake(HandshakeError::Refused(_)) | Self::WebSocket(_) => {
                ConnectResult::WebSocket
            }
            Self::NoEntry(_, no_entry) => no_entry.result(),
            Self::Violation(_, violation) => match violation.reason() {
                ReasonCode::ClientIdentifierNotValid => ConnectResult::BadClientId,
                _other => ConnectResult::ProtocolError,
            },
            Self::Identity(..) | Self::Anonymous(_) => ConnectResult::NotAuthorized,
            Self::NotProven(_, NotProven::Failed(_), _) => ConnectResult::BadCredentials,
            Self::NotProven(_, NotProven::Banned, _) => ConnectResult::Banned,
            Self::NotProven(_, NotProven::Busy, _) => ConnectResult::Busy,
            Self::ClientIdPrefix(_) => ConnectResult::BadClientId,
            Self::Rejected(_, rejected) => match rejected {
                Rejected::OtherIdentity => ConnectResult::ClientIdTaken,
                Rejected::TooManySessions | Rejected::StillBusy => ConnectResult::QuotaExceeded,
                Rejected::NotKept => ConnectResult::Busy,
                Rejected::Will(_)
                | Rejected::WillTopic
                | Rejected::WillDenied
                | Rejected::WillPayload => ConnectResult::BadWill,
            },
            Self::Shutdown => ConnectResult::ShuttingDown,
        }
    }

    /// The user name that somebody has tried in vain.
    pub(super) fn user(&self) -> Option<&str> {
        match self {
            Self::NotProven(_, _, user) => Some(user),
            _other => None,
        }
    }

    /// Which mistake of the peer this is, if it is one of the protocol.
    pub(super) fn protocol_error(&self) -> Option<ProtocolError> {
        match self {
            Self::WrongPort(_)
            | Self::Proxy(ProxyError::Missing)
            | Self::Handshake(HandshakeError::WrongPort(_) | HandshakeError::Mqtt) => {
                Some(ProtocolError::NotMqtt)
            }
            Self::Malformed(_) | Self::BadConnect(..) => Some(ProtocolError::Malformed),
            Self::TooLarge => Some(ProtocolError::TooLarge),
            Self::Violation(..) | Self::WebSocket(_) => Some(ProtocolError::Violation),
            Self::Timeout
            | Self::Closed
            | Self::Io(_)
            | Self::Proxy(_)
            | Self::Handshake(_)
            | Self::NoEntry(..)
            | Self::Version(_)
            | Self::Identity(..)
            | Self::Anonymous(_)
            | Self::NotProven(..)
            | Self::ClientIdPrefix(_)
            | Self::Rejected(..)
            | Self::Shutdown => None,
        }
    }

    /// The CONNACK, for those who understand one.
    fn answer(&self) -> Option<(Version, Packet)> {
        let (version, reason) = match self {
            Self::Malformed(error @ DecodeError::ProtocolLevel(level)) => {
                // A later version is answered in the form of version 5 [MQTT-3.1.2-2].
                let version = if *level > 4 { Version::V5 } else { Version::V311 };
                (version, error.reason())
            }
            // Older versions have no code for it, and are closed without a word [MQTT-3.1.4-1].
            Self::BadConnect(Version::V5, error) => (Version::V5, error.reason()),
            Self::Violation(version, violation) => (*version, violation.reason()),
            Self::Identity(version, _) | Self::Anonymous(version) => {
                (*version, ReasonCode::NotAuthorized)
            }
            Self::NotProven(version, why, _) => (*version, why.reason(*version)),
            Self::ClientIdPrefix(version) => (*version, ReasonCode::ClientIdentifierNotValid),
            Self::Rejected(version, rejected) => (*version, rejected.reason()),
            Self::NoEntry(version, no_entry) => (*version, no_entry.reason()),
            Self::Version(version) => (*version, ReasonCode::UnsupportedProtocolVersion),
            Self::Timeout
            | Self::Closed
            | Self::Io(_)
            | Self::WrongPort(_)
            | Self::Proxy(_)
            | Self::Handshake(_)
            | Self::WebSocket(_)
            | Self::Malformed(_)
            | Self::BadConnect(..)
            | Self::TooLarge
            | Self::Shutdown => return None,
        };
        Some((version, refused(version, reason, &self.to_string())?))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    pub(super) fn new(stream: S, peer: Peer) -> Self {
        Self {
            stream,
            input: Input::default(),
            output: Output::default(),
            peer,
            packet_bytes_max: usize::MAX,
        }
    }

    /// Waits for the CONNECT. The future may be dropped; the link stays whole.
    pub(super) async fn read_connect(
        &mut self,
        tolerance: Tolerance,
    ) -> Result<Connect, Unwelcome> {
        let frame = loop {
            let Self { stream, input, .. } = self;
            if poll_fn(|context| input.poll_read(stream, context)).await? == 0 {
                return Err(Unwelcome::Closed);
            }
            if let Some(wrong) = wrong_port(input.peek()) {
                return Err(Unwelcome::WrongPort(wrong));
            }
            if let Some(frame) = input.next_frame(CONNECT_BYTES_MAX)? {
                break frame;
            }
        };
        if frame[0] >> 4 == CONNECT {
            let connect = decode_connect(frame.clone(), tolerance).map_err(|error| {
                let version = version_of_connect(frame);
                version.map_or(Unwelcome::Malformed(error), |v| Unwelcome::BadConnect(v, error))
            })?;
            let bytes_max = connect.properties.maximum_packet_size.map(usize::try_from);
            self.packet_bytes_max = bytes_max.and_then(Result::ok).unwrap_or(usize::MAX);
            return Ok(connect);
        }
        // Nothing else may come first [MQTT-3.1.0-1]; is it a packet at all?
        decode(frame, Version::V311, Sender::Client)?;
        Err(Unwelcome::Violation(Version::V311, Violation::NotConnected))
    }

    /// Tells the peer why it does not come in, and closes.
    pub(super) async fn turn_away(mut self, why: &Unwelcome) {
        let understood = !matches!(why, Unwelcome::Violation(_, Violation::NotConnected));
        if let Some((version, packet)) = why.answer().filter(|_| understood) {
            let packet = fitted(packet, version, self.packet_bytes_max);
            packet.iter().for_each(|packet| self.output.packet(packet, version));
        }
        if !matches!(why, Unwelcome::Closed | Unwelcome::Io(_)) {
            self.close().await;
        }
    }

    /// Gives the client its session and answers the CONNECT.
    pub(super) async fn admit(
        &mut self,
        broker: &Arc<Broker>,
        entry: &Entry,
        rules: &Rules,
        login: Login,
        connect: Connect,
    ) -> Result<Admitted, Unwelcome> {
        let version = connect.version;
        let Login { identity, proven, data } = login;
        let limits = &broker.options().session;
        let broken = |violation| Unwelcome::Violation(version, violation);
        let without_id = connect.client_id.is_empty();
        let connect = entry.with_client_id(&identity, connect)?;
        let mut opening =
            Opening::new(&connect, limits, || broker.fresh_client_id()).map_err(broken)?;
        opening.assigned = without_id;
        if !entry.takes_client_id(&opening.client_id) {
            return Err(Unwelcome::ClientIdPrefix(version));
        }
        rules.open(&mut opening).map_err(broken)?;
        let largest = opening.accepted(true, limits, data.clone());
        if fitted(largest, version, opening.packet_bytes_max).is_none() {
            return Err(Unwelcome::Violation(version, Violation::PacketSizeTooSmall));
        }
        let client_id = &*opening.client_id;
        let who = Who { identity: &identity, client_id, peer: Some(self.peer) };
        let attached = broker
            .attach(&who, &opening, entry.access.acl.as_ref())
            .await
            .map_err(|rejected| Unwelcome::Rejected(version, rejected))?;
        attached.handle.note_transport(entry.transport);
        let answer = opening.accepted(attached.present, limits, data);
        broker.metrics().packet_out((&answer).into());
        self.output.packet(&answer, version);
        note_connected(broker, &attached, self.peer, &connect, opening.keep_alive_secs);
        Ok(Admitted { attached, version, proven })
    }

    /// Runs the connection until it ends.
    pub(super) async fn run(
        self,
        broker: Arc<Broker>,
        admitted: Admitted,
        counted: OpenConnection,
        limits: ConnLimits,
        rules: Arc<Rules>,
        shutting_down: bool,
    ) {
        let Admitted { attached, proven, .. } = admitted;
        if shutting_down {
            attached.handle.signal.raise(Calls::SHUTDOWN);
        }
        // Users may have changed since it was asked for its password, and it was not called then.
        attached.handle.signal.raise(Calls::USERS);
        let resumed = attached.present;
        Conn::new(self, broker, attached, counted, limits, rules, proven).run(resumed).await;
    }
}

/// One line and one event for each connection, except that two devices with one id take each
/// other's place as fast as they can (case Q8).
fn note_connected(
    broker: &Broker,
    attached: &Attached,
    peer: Peer,
    connect: &Connect,
    keep_alive_secs: u16,
) {
    let repeats = match attached.took_over {
        true => broker.complain("connected_by_take_over"),
        false => Some(Repeats::NONE),
    };
    let Some(repeats) = repeats else { return };
    let Handle { client_id, identity, .. } = &*attached.handle;
    broker.tell(|| BrokerEvent::Connected {
        client: attached.handle.who().into(),
        version: connect.version.name(),
        resumed: attached.present,
        took_over: attached.took_over,
    });
    tracing::info!(
        client = %Shown(client_id.as_str()),
        identity = %Shown(&identity.name),
        role = ?identity.role,
        %peer,
        version = ?connect.version,
        clean = connect.clean_start,
        keep_alive_secs,
        took_over = attached.took_over.then_some(true),
        repeats = repeats.field(),
        "connected"
    );
}

/// People who have the wrong port, by the first bytes they say.
pub(super) fn wrong_port(bytes: &[u8]) -> Option<WrongPort> {
    const TLS_HANDSHAKE: &[u8] = &[0x16, 0x03];
    const VERBS: [&[u8]; 5] = [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS "];
    if bytes.starts_with(TLS_HANDSHAKE) {
        return Some(WrongPort::Tls);
    }
    if proxy::looks_like_header(bytes) {
        return Some(WrongPort::Proxy);
    }
    VERBS.iter().any(|verb| bytes.starts_with(verb)).then_some(WrongPort::Http)
}
