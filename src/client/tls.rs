//! TLS of the client side: trust one CA, show one certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A text holds no certificate or no key where one is expected.
    #[error("no usable {what} in PEM form")]
    BadPem {
        /// What was looked for.
        what: &'static str,
    },
    /// A host that is neither a DNS name nor an address.
    #[error("{0:?} is no host name that a certificate could be for")]
    BadHost(String),
    /// rustls refused, for instance a key of another certificate.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// What a client trusts and shows, as PEM texts.
#[derive(Clone, Default)]
pub struct TlsIdentity {
    /// The CA that the broker's certificate must come from.
    pub ca_pem: String,
    /// Certificate (chain) and key; none = anonymous TLS.
    pub cert_and_key_pem: Option<(String, String)>,
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Reads the three files; certificate and key come together or not at all.
    ///
    /// # Errors
    /// [`TlsError::Unreadable`].
    pub fn from_files(ca: &Path, cert_and_key: Option<(&Path, &Path)>) -> Result<Self, TlsError> {
        let cert_and_key_pem = match cert_and_key {
            Some((cert, key)) => Some((read(cert)?, read(key)?)),
            None => None,
        };
        Ok(Self { ca_pem: read(ca)?, cert_and_key_pem })
    }

    /// The configuration of rustls: TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// [`TlsError::BadPem`], [`TlsError::Rustls`].
    pub fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let mut roots = RootCertStore::empty();
        for cert in certificates(&self.ca_pem, "CA certificate")? {
            roots.add(cert)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let Some((cert, key)) = &self.cert_and_key_pem else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| TlsError::BadPem { what: "private key" })?;
        let chain = certificates(cert, "client certificate")?;
        Ok(Arc::new(builder.with_client_auth_cert(chain, key)?))
    }
}

/// The name that the broker's certificate must carry.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadHost(host.into()))
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certs {
        Ok(certs) if !certs.is_empty() => Ok(certs),
        Ok(_) | Err(_) => Err(TlsError::BadPem { what }),
    }
}

fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| TlsError::Unreadable { path: path.into(), source })
}
