//! `[[listener]]`: where clients connect and how they prove who they are.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::rsp::ServerRule;

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port.
    pub bind: SocketAddr,
    /// Whether clients without any proof of identity are let in, in the role `client`.
    #[serde(default)]
    pub allow_anonymous: bool,
    /// Open connections of this listener.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
    /// A switch for test rigs, on a listener without client certificates: a client id that is a
    /// valid nid makes the client that device. Anyone can be any device.
    #[serde(default)]
    pub insecure_identity_from_client_id: bool,
    /// Together with that switch: the client ids that are SM-SR servers.
    #[serde(default)]
    pub servers_by_client_id: Vec<String>,
    /// TLS; plain TCP without it.
    pub tls: Option<Tls>,
}

impl Listener {
    /// Plain TCP for anonymous clients.
    #[must_use]
    pub fn anonymous(bind: SocketAddr) -> Self {
        Self {
            bind,
            allow_anonymous: true,
            max_connections: default_max_connections(),
            insecure_identity_from_client_id: false,
            servers_by_client_id: Vec::new(),
            tls: None,
        }
    }

    /// Whether clients may show a certificate here.
    #[must_use]
    pub fn takes_client_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }
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
