//! The CI certificates that proofs may lead to.

use super::certificate::{Certificate, POINT_BYTES, check_validity};
use super::{Holder, PROOF_BYTES_MAX, ProofError, der};

/// More certificate issuers than there are.
pub const ISSUERS_MAX: usize = 64;

/// The certificate issuers whose eUICCs are believed; nobody by default.
#[derive(Clone, Debug, Default)]
pub struct TrustedIssuers(Vec<Issuer>);

/// Why a certificate cannot be trusted as that of a CI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// The certificate is not what it must be.
    #[error(transparent)]
    Unfit(#[from] ProofError),
    /// More than [`ISSUERS_MAX`].
    #[error("more than {ISSUERS_MAX} certificates; leave out those that no device needs")]
    TooMany,
}

/// What is needed of a CI certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Issuer {
    subject: Box<[u8]>,
    key_id: Box<[u8]>,
    point: [u8; POINT_BYTES],
    /// First and last second of Unix time.
    validity: (i64, i64),
}

impl TrustedIssuers {
    /// Trusts a CI: a DER certificate with a key of P-256 that may sign certificates of issuers.
    /// Its validity matters only when it is used. The same one twice is once.
    ///
    /// # Errors
    /// [`IssuerError`]; then nothing has changed.
    pub fn add(&mut self, der: &[u8]) -> Result<(), IssuerError> {
        let issuer = Issuer::read(der)?;
        if self.0.contains(&issuer) {
            return Ok(());
        }
        if self.0.len() == ISSUERS_MAX {
            return Err(IssuerError::TooMany);
        }
        self.0.push(issuer);
        Ok(())
    }

    /// How many are trusted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Nobody is trusted: no proof can be one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of them has issued this certificate, and is valid. There may be several with one name
    /// and one key: an old certificate and its renewal.
    pub(super) fn have_issued(&self, eum: &Certificate<'_>, now: i64) -> Result<(), ProofError> {
        let mut result = Err(ProofError::UnknownCi);
        for issuer in &self.0 {
            if eum.names_issuer(&issuer.subject, &issuer.key_id)? {
                result = check_validity(Holder::Ci, issuer.validity, now)
                    .and_then(|()| eum.is_signed_by(&issuer.point));
            }
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

impl Issuer {
    fn read(der: &[u8]) -> Result<Self, ProofError> {
        let bad = ProofError::BadCertificate(Holder::Ci);
        if der.len() > PROOF_BYTES_MAX {
            return Err(bad);
        }
        let document = der::document(der).map_err(|_error| bad)?;
        let ci = Certificate::read(Holder::Ci, document)?;
        // Between it and the eUICC stands the EUM.
        ci.is_ca(1)?;
        if ci.is_self_issued() {
            ci.is_signed_by(ci.point())?;
        }
        Ok(Self {
            subject: ci.subject().into(),
            key_id: ci.key_id()?.into(),
            point: ci.point().try_into().map_err(|_length| bad)?,
            validity: ci.validity(),
        })
    }
}
