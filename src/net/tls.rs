//! TLS of a listener: certificate, key, client issuers and revocation lists to one configuration
//! of rustls; handshake errors to the few reasons an operator can act upon.
//!
//! A configuration never changes. Whoever loads new files makes a new one, and with it a new
//! cache of sessions: nobody resumes past a revocation (case T13).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, Error, InvalidMessage, RootCertStore, ServerConfig};

use super::certificate::{issuer_and_subject, not_after_unix_secs};
use crate::config::{Protocol, Tls, TlsVersion};
use crate::metrics::TlsRejection;

/// Sessions that may be resumed, per listener; each holds the client's certificate chain.
const RESUMABLE_SESSIONS_MAX: usize = 10_000;
/// Names of MQTT in ALPN, the second one by devices made for AWS. A client that names no protocol
/// at all is fine, one that names others alone is refused (case T15).
const ALPN: [&[u8]; 2] = [b"mqtt", b"x-amzn-mqtt-ca"];
/// A WebSocket begins as HTTP, and browsers say so.
const ALPN_HTTP: [&[u8]; 1] = [b"http/1.1"];

/// What a listener needs to speak TLS.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// For `tokio_rustls::TlsAcceptor`.
    pub config: Arc<ServerConfig>,
    /// End of the broker's own certificate, in seconds of Unix time.
    pub cert_not_after_unix_secs: i64,
    /// End of the first of the client issuers, in seconds of Unix time.
    pub client_ca_not_after_unix_secs: Option<i64>,
}

/// Why TLS cannot be offered. Each error names the file to mend.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or is not PEM.
    #[error("{}: {source}", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file is PEM without what it is for.
    #[error("{}: there is no {what} in it", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
        /// What it lacks.
        what: &'static str,
    },
    /// The certificate is not well-formed.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: super::certificate::CertificateError,
    },
    /// The key is of another certificate.
    #[error("{} is not the key of {}", key.display(), cert.display())]
    KeyMismatch {
        /// The key.
        key: PathBuf,
        /// The certificate.
        cert: PathBuf,
    },
    /// rustls does not take the file's contents.
    #[error("{}: {source}", path.display())]
    Rejected {
        /// Which file.
        path: PathBuf,
        /// What rustls says.
        source: Error,
    },
    /// rustls does not take the revocation lists.
    #[error("{}: {source}", path.display())]
    Revocation {
        /// Which file.
        path: PathBuf,
        /// What rustls says.
        source: VerifierBuilderError,
    },
}

impl ServerTls {
    /// Reads the files of a listener. Which protocol is spoken within TLS is said by ALPN.
    ///
    /// # Errors
    /// [`TlsError`] names the first file that is wrong.
    pub fn load(tls: &Tls, protocol: Protocol) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates(&tls.cert)?;
        let cert_not_after_unix_secs = earliest_end(&tls.cert, &chain[..1])?;
        let key = private_key(&tls.key)?;
        let issuers = match &tls.client_ca {
            Some(path) => Some((path, certificates(path)?)),
            None => None,
        };
        let client_ca_not_after_unix_secs = match &issuers {
            Some((path, issuers)) => Some(earliest_end(path, issuers)?),
            None => None,
        };
        let mut supply = tls.chain.as_deref().map(certificates).transpose()?.unwrap_or_default();
        supply.extend(issuers.iter().flat_map(|(_, issuers)| issuers.clone()));
        let verifier = match issuers {
            Some((path, issuers)) => client_verifier(tls, path, issuers, &provider)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let versions = match tls.min_version {
            TlsVersion::V1_2 => rustls::ALL_VERSIONS,
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(completed(chain, &supply), key)
            .map_err(|e| key_error(tls, e))?;
        config.session_storage = ServerSessionMemoryCache::new(RESUMABLE_SESSIONS_MAX);
        config.send_tls13_tickets = 1; // a device resumes once per connection
        config.max_early_data_size = 0; // replayable (case D23)
        let alpn: &[&[u8]] = match protocol {
            Protocol::Mqtt => &ALPN,
            Protocol::Websocket => &ALPN_HTTP,
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Self {
            config: Arc::new(config),
            cert_not_after_unix_secs,
            client_ca_not_after_unix_secs,
        })
    }
}

/// Why a handshake failed, from the error of `tokio_rustls`.
#[must_use]
pub fn rejection(error: &io::Error) -> TlsRejection {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    match tls {
        Some(Error::NoCertificatesPresented) => TlsRejection::NoCertificate,
        Some(Error::InvalidCertificate(e)) => certificate_rejection(e),
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => TlsRejection::NotTls,
        Some(_) => TlsRejection::Protocol,
        None if error.kind() == io::ErrorKind::TimedOut => TlsRejection::Timeout,
        None => TlsRejection::Io,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls adds errors in minor releases")]
fn certificate_rejection(error: &CertificateError) -> TlsRejection {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => TlsRejection::Expired,
        CertificateError::Revoked => TlsRejection::Revoked,
        CertificateError::UnknownIssuer => TlsRejection::UnknownCa,
        _ => TlsRejection::BadCertificate,
    }
}

/// With a revocation list, the whole chain is checked, and a certificate whose issuer has no list
/// is refused: a list that is forgotten must not let the revoked in.
fn client_verifier(
    tls: &Tls,
    path: &Path,
    issuers: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for issuer in issuers {
        let rejected = |source| TlsError::Rejected { path: path.to_owned(), source };
        roots.add(issuer).map_err(rejected)?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let Some(crl) = &tls.crl {
        builder = builder.with_crls(revocation_lists(crl)?);
    }
    if !tls.requires_client_cert() {
        builder = builder.allow_unauthenticated();
    }
    let path = tls.crl.as_deref().unwrap_or(path);
    builder.build().map_err(|source| TlsError::Revocation { path: path.to_owned(), source })
}

/// The chain with the intermediate certificates that it lacks, as far as they are at hand: clients
/// that know the root alone could not verify the leaf. The root itself is left out.
fn completed(
    mut chain: Vec<CertificateDer<'static>>,
    supply: &[CertificateDer<'static>],
) -> Vec<CertificateDer<'static>> {
    while chain.len() < CHAIN_MAX {
        let last = chain.last().and_then(|last| issuer_and_subject(last));
        let Some((wanted, _)) = last else { return chain };
        let found = supply.iter().find(|candidate| {
            issuer_and_subject(candidate)
                .is_some_and(|(issuer, subject)| subject == wanted && issuer != subject)
        });
        let Some(found) = found.filter(|found| !chain.contains(found)) else { return chain };
        chain.push(found.clone());
    }
    chain
}

/// Certificates of a chain that is completed; more are the operator's own affair.
const CHAIN_MAX: usize = 8;

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    items(path, "certificate")
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| {
        if matches!(source, pem::Error::NoItemsFound) {
            return empty(path, "private key");
        }
        TlsError::Pem { path: path.to_owned(), source }
    })
}

fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    items(path, "revocation list")
}

/// All PEM items of one kind, at least one.
fn items<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let unreadable = |source| TlsError::Pem { path: path.to_owned(), source };
    let items: Result<Vec<T>, pem::Error> = T::pem_file_iter(path).map_err(unreadable)?.collect();
    let items = items.map_err(unreadable)?;
    if items.is_empty() { Err(empty(path, what)) } else { Ok(items) }
}

fn empty(path: &Path, what: &'static str) -> TlsError {
    TlsError::Empty { path: path.to_owned(), what }
}

fn earliest_end(path: &Path, certificates: &[CertificateDer<'_>]) -> Result<i64, TlsError> {
    let mut earliest = i64::MAX;
    for der in certificates {
        let end = not_after_unix_secs(der)
            .map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })?;
        earliest = earliest.min(end);
    }
    Ok(earliest)
}

fn key_error(tls: &Tls, error: Error) -> TlsError {
    if matches!(error, Error::InconsistentKeys(_)) {
        return TlsError::KeyMismatch { key: tls.key.clone(), cert: tls.cert.clone() };
    }
    TlsError::Rejected { path: tls.key.clone(), source: error }
}

#[cfg(test)]
mod tests;
