//! `[[listener]]`: where clients connect and how they prove who they are.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::Auth;
use crate::mqtt::{QoS, Version};
use crate::rsp::ServerRule;

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port, or a path.
    pub bind: Bind,
    /// What is spoken over the connection.
    #[serde(default)]
    pub protocol: Protocol,
    /// Whether clients without any proof of identity are let in, in the role `client`.
    #[serde(default)]
    pub allow_anonymous: bool,
    /// Open connections of this listener.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
    /// The header that a proxy puts before each connection, and which is then required. Whoever
    /// can connect here can say where it comes from: let nobody but the proxy.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    /// Refuses clients that came to the proxy without TLS.
    #[serde(default)]
    pub proxy_require_tls: bool,
    /// Put before every topic and filter of these clients, and taken off what they are sent.
    #[serde(default)]
    pub mount_point: String,
    /// Where the user name comes from.
    #[serde(default)]
    pub user_name_from: UserNameFrom,
    /// The user name is the client id, whatever the client says.
    #[serde(default)]
    pub client_id_is_user_name: bool,
    /// Where there are any, a client id has to begin with one of them.
    #[serde(default)]
    pub client_id_prefixes: Vec<String>,
    /// Versions of the protocol that are spoken here.
    #[serde(default = "all_versions", deserialize_with = "versions")]
    pub versions: Vec<Version>,
    /// Highest QoS of messages, both ways.
    #[serde(default = "highest_qos", deserialize_with = "qos")]
    pub max_qos: QoS,
    /// Pages that may connect by WebSocket, such as `https://example.com`; any, where none is
    /// named.
    #[serde(default)]
    pub websocket_origins: Vec<String>,
    /// A switch for test rigs, on a listener without client certificates: a client id that is a
    /// valid nid makes the client that device. Anyone can be any device.
    #[serde(default)]
    pub insecure_identity_from_client_id: bool,
    /// Together with that switch: the client ids that are SM-SR servers.
    #[serde(default)]
    pub servers_by_client_id: Vec<String>,
    /// TLS; none without it.
    pub tls: Option<Tls>,
    /// Users and rights of this listener, in place of `[auth]`.
    pub auth: Option<Auth>,
}

impl Listener {
    /// Plain TCP for anonymous clients.
    #[must_use]
    pub fn anonymous(bind: SocketAddr) -> Self {
        Self {
            bind: Bind::Tcp(bind),
            protocol: Protocol::default(),
            allow_anonymous: true,
            max_connections: default_max_connections(),
            proxy_protocol: ProxyProtocol::default(),
            proxy_require_tls: false,
            mount_point: String::new(),
            user_name_from: UserNameFrom::default(),
            client_id_is_user_name: false,
            client_id_prefixes: Vec::new(),
            versions: all_versions(),
            max_qos: highest_qos(),
            websocket_origins: Vec::new(),
            insecure_identity_from_client_id: false,
            servers_by_client_id: Vec::new(),
            tls: None,
            auth: None,
        }
    }

    /// What carries the packets here, as addresses of brokers begin.
    #[must_use]
    pub fn transport(&self) -> &'static str {
        match (self.protocol, self.tls.is_some()) {
            (Protocol::Mqtt, false) => "mqtt",
            (Protocol::Mqtt, true) => "mqtts",
            (Protocol::Websocket, false) => "ws",
            (Protocol::Websocket, true) => "wss",
        }
    }

    /// Whether clients may show a certificate here.
    #[must_use]
    pub fn takes_client_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Bind {
    /// Address and port.
    Tcp(SocketAddr),
    /// A socket in the file system: `unix:/run/simcast.sock`.
    Unix(PathBuf),
}

impl Bind {
    /// The address, if it is one.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl TryFrom<String> for Bind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let address = text.parse().map(Self::Tcp);
        address.map_err(|_| format!("`{text}` is no \"ip:port\" and no \"unix:/path\""))
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What is spoken over a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// MQTT packets, one behind the other.
    #[default]
    Mqtt,
    /// MQTT packets in the frames of a WebSocket (section 6 of both standards).
    Websocket,
}

/// The header of a proxy (`PROXY protocol` of haproxy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// There is no proxy.
    #[default]
    Off,
    /// One line of text.
    V1,
    /// Binary, with what the proxy knows of TLS.
    V2,
}

/// Where the name of a client comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserNameFrom {
    /// The EID in the client's certificate, else its common name; without a certificate, the
    /// user name after its password was checked.
    #[default]
    Certificate,
    /// The certificate's common name.
    Cn,
    /// The certificate's whole subject, as RFC 4514 writes it.
    Subject,
    /// The certificate's first alternative name.
    San,
    /// The certificate's serial number, in hexadecimal.
    Serial,
    /// The user name after its password was checked: the certificate only opens the door.
    Password,
}

fn all_versions() -> Vec<Version> {
    vec![Version::V31, Version::V311, Version::V5]
}

fn versions<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<Version>, D::Error> {
    let names = Vec::<String>::deserialize(source)?;
    let version = |name: &String| match name.as_str() {
        "3.1" => Ok(Version::V31),
        "3.1.1" => Ok(Version::V311),
        "5" => Ok(Version::V5),
        other => Err(D::Error::custom(format!("`{other}` is none of \"3.1\", \"3.1.1\", \"5\""))),
    };
    names.iter().map(version).collect()
}

fn highest_qos() -> QoS {
    QoS::ExactlyOnce
}

fn qos<'de, D: Deserializer<'de>>(source: D) -> Result<QoS, D::Error> {
    let bits = u8::deserialize(source)?;
    QoS::from_bits(bits).ok_or_else(|| D::Error::custom("QoS is 0, 1 or 2"))
}

fn default_max_connections() -> usize {
    100_000
}

/// `[listener.tls]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The broker's certificate chain, PEM, leaf first.
    pub cert: PathBuf,
    /// Certificates to complete the chain from where `cert` stops short of it, PEM. Those of
    /// `client_ca` serve, too.
    pub chain: Option<PathBuf>,
    /// The key of the leaf, PEM.
    pub key: PathBuf,
    /// The certificates that issue the clients' certificates, PEM. Without it, clients are not
    /// asked for a certificate.
    pub client_ca: Option<PathBuf>,
    /// Whether a client needs a certificate; with `client_ca` it does, unless this says `false`.
    pub require_client_cert: Option<bool>,
    /// Revocation lists of those issuers, PEM.
    pub crl: Option<PathBuf>,
    /// Oldest version of TLS to accept.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Which client certificates are those of SM-SR servers.
    #[serde(default)]
    pub servers: Vec<ServerRule>,
}

impl Tls {
    /// Whether a client without a certificate is refused.
    #[must_use]
    pub fn requires_client_cert(&self) -> bool {
        self.require_client_cert.unwrap_or(self.client_ca.is_some())
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2, and newer.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 alone.
    #[serde(rename = "1.3")]
    V1_3,
}
