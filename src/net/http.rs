//! TLS of the admin address: the same as that of listeners, around HTTP.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::certificate::{CertificateError, PeerCertificate};
use super::tls::{ServerTls, TlsError, rejection};
use crate::config::{AdminTls, Protocol, Tls};
use crate::metrics::Label;
use crate::rsp::ServerRule;

/// Makes connections secure.
pub struct HttpTls {
    acceptor: TlsAcceptor,
    asks_for_certificates: bool,
    operators: Vec<ServerRule>,
}

/// A secure connection.
#[derive(Debug)]
pub struct Secured<S> {
    /// The connection.
    pub stream: S,
    /// The subject of the certificate at the other end, where it is that of an operator.
    pub operator: Option<String>,
}

/// Why a connection is not secure.
#[derive(Debug, thiserror::Error)]
pub enum NotSecured {
    /// There is no TLS.
    #[error("TLS handshake failed ({}): {error}", rejection(error).name())]
    Handshake {
        /// What the other end or the library says.
        error: io::Error,
    },
    /// Its certificate cannot be read.
    #[error("client certificate cannot be read: {0}")]
    Certificate(CertificateError),
}

impl HttpTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the first file that is wrong.
    pub fn load(tls: &AdminTls) -> Result<Self, TlsError> {
        let files = Tls {
            cert: tls.cert.clone(),
            key: tls.key.clone(),
            chain: None,
            client_ca: tls.client_ca.clone(),
            require_client_cert: None,
            crl: tls.crl.clone(),
            min_version: tls.min_version,
            servers: Vec::new(),
        };
        // By ALPN a WebSocket is HTTP.
        let ServerTls { config, .. } = ServerTls::load(&files, Protocol::Websocket)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(config),
            asks_for_certificates: tls.client_ca.is_some(),
            operators: tls.operators.clone(),
        })
    }

    /// The handshake over a connected socket.
    ///
    /// # Errors
    /// [`NotSecured`].
    pub async fn secure<S>(
        self: Arc<Self>,
        socket: S,
    ) -> Result<Secured<impl AsyncRead + AsyncWrite + Unpin>, NotSecured>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream =
            self.acceptor.accept(socket).await.map_err(|error| NotSecured::Handshake { error })?;
        let chain = stream.get_ref().1.peer_certificates();
        let leaf = chain.and_then(|chain| chain.first()).filter(|_| self.asks_for_certificates);
        let certificate = leaf.map(|leaf| PeerCertificate::read(leaf)).transpose();
        let certificate = certificate.map_err(NotSecured::Certificate)?;
        let operator = certificate.filter(|certificate| {
            let fits = |rule: &ServerRule| rule.fits(&certificate.facts);
            self.operators.is_empty() || self.operators.iter().any(fits)
        });
        Ok(Secured { stream, operator: operator.map(|certificate| certificate.facts.subject) })
    }
}
