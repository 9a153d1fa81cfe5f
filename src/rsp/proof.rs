//! Proof of deletion: the old eUICC has signed that the profile is gone.
//!
//! The answer to an exchange (E2) hands a profile on. Where the body carries the delete
//! notification of SGP.22, section 2.5.6 and annex H, this module says whether it is one, and of
//! which eUICC:
//!
//! ```text
//! PendingNotification = OtherSignedNotification             30
//!   tbsOtherNotification: NotificationMetadata              BF2F
//!     seqNumber                                             80
//!     profileManagementOperation: notificationDelete alone  81 02 04 10
//!     notificationAddress                                   0C
//!     iccid (optional)                                      5A
//!   euiccNotificationSignature: r and s over all of BF2F    5F37 40
//!   euiccCertificate                                        30
//!   eumCertificate                                          30
//! ```
//!
//! The chain is eUICC, EUM (its manufacturer), CI: the last one is not in the notification but
//! among the [`TrustedIssuers`]. Keys are of P-256 and signatures of ECDSA with SHA-256; the other
//! curve of SGP.22, brainpoolP256r1, is refused by name. Revocation lists are not looked at: an
//! issuer that is no longer trusted is taken out of the configuration.
//!
//! ECDSA lets anybody turn one valid signature into a second one, so bytes do not tell whether a
//! notification was seen before. [`Deletion::digest`] does.

mod body;
mod certificate;
mod der;
mod issuers;

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

pub use body::{Body, body, extract};
pub use issuers::{ISSUERS_MAX, IssuerError, TrustedIssuers};

use crate::ids::{Nid, Timestamp};
use certificate::Certificate;
use der::{Reader, Tlv};

/// Largest notification in bytes; a usual one has about 1,200.
pub const PROOF_BYTES_MAX: usize = 16 << 10;

const METADATA: u16 = 0xbf2f;
const SIGNATURE: u16 = 0x5f37;
const SEQ_NUMBER: u16 = 0x80;
const OPERATION: u16 = 0x81;
const ICCID: u16 = 0x5a;
const PROFILE_INSTALLATION_RESULT: u16 = 0xbf37;
/// `otherCertsInChain`, since version 3 of SGP.22.
const OTHER_CERTIFICATES: u16 = 0xa1;

/// `notificationDelete` (bit 3) and no other bit.
const DELETE_ALONE: [u8; 2] = [0x04, 0x10];
/// r and s of P-256, 32 bytes each (BSI TR-03111).
const SIGNATURE_BYTES: usize = 64;

/// Whose certificate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The certificate issuer: the root.
    Ci,
    /// The manufacturer of the eUICC.
    Eum,
    /// The eUICC.
    Euicc,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ci => "CI",
            Self::Eum => "EUM",
            Self::Euicc => "eUICC",
        })
    }
}

/// Why something is no proof of deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProofError {
    /// Nothing was found where a notification may stand.
    #[error(
        "the body has no delete notification; put it there as base64 text (JSON) or byte string \
         (CBOR), alone or, once, as member pendingNotification"
    )]
    Missing,
    /// The text is no base64 in its one strict form.
    #[error("the delete notification is no base64; use the alphabet with + and /, and padding")]
    NotBase64,
    /// More than [`PROOF_BYTES_MAX`].
    #[error("the notification has more than 16 KiB; send that of one deletion alone")]
    TooLarge,
    /// Cut, damaged, or in a form that only BER has.
    #[error("the notification is not DER; send the bytes as the eUICC gave them")]
    NotDer,
    /// Bytes behind the notification.
    #[error("there are bytes behind the notification; send one notification and nothing else")]
    TrailingBytes,
    /// DER, but of another type.
    #[error(
        "not an OtherSignedNotification of SGP.22; send what ES10b.RetrieveNotificationsList \
             gives"
    )]
    NotANotification,
    /// The notification of another event, or of several.
    #[error("the notification is of another event than deletion alone; delete the profile first")]
    NotADeletion,
    /// Certificates beside those of the eUICC and its EUM.
    #[error("the chain is longer than eUICC, EUM and CI; such eUICCs are not supported")]
    LongChain,
    /// A certificate that cannot be read, or not in one way only.
    #[error("the {0} certificate is no X.509 certificate of version 3; send it unchanged")]
    BadCertificate(Holder),
    /// A key of another curve or kind.
    #[error("the key of the {0} certificate is not of P-256; other curves are not supported")]
    WrongKey(Holder),
    /// Signed by other means than ECDSA with SHA-256.
    #[error("the {0} certificate is not signed with ECDSA and SHA-256; use one that is")]
    WrongAlgorithm(Holder),
    /// Another number than the sender's, no number, or several.
    #[error("the eUICC certificate does not name the sender's EID; send the sender's own proof")]
    WrongEid,
    /// The EUM certificate comes from nobody who is trusted.
    #[error("the EUM certificate is of a CI that is not trusted; add that to rsp.proof_issuers")]
    UnknownCi,
    /// Issuer, key identifier or signature do not lead to the next certificate.
    #[error(
        "the {0} certificate was not issued by the next one of the chain; send both of the \
             same eUICC"
    )]
    BrokenChain(Holder),
    /// Without it, keys of one name cannot be told apart.
    #[error("the {0} certificate lacks a key identifier; use one that conforms to SGP.22")]
    NoKeyIdentifier(Holder),
    /// The holder must not issue certificates, or not over that many steps.
    #[error("the {0} certificate is not that of a CA; use one that conforms to SGP.22")]
    NotACa(Holder),
    /// An eUICC that could issue certificates.
    #[error("the eUICC certificate is that of a CA; use one that conforms to SGP.22")]
    EuiccIsCa,
    /// keyUsage lacks keyCertSign, or digitalSignature for an eUICC.
    #[error("the key of the {0} certificate must not be used for this; its keyUsage forbids it")]
    WrongUsage(Holder),
    /// The policies do not give the holder this role (SGP.22, id-rspRole).
    #[error("the {0} certificate has another role in its policies; use that of the {0}")]
    WrongRole(Holder),
    /// A critical extension that is not known here.
    #[error("the {0} certificate has an unknown critical extension; this chain is not supported")]
    CriticalExtension(Holder),
    /// The EUM was given other numbers.
    #[error("the EUM must not issue certificates for this EID; ask the manufacturer")]
    ForeignEid,
    /// Its time has not come.
    #[error("the {0} certificate is not valid yet; check the clock of this machine")]
    NotYetValid(Holder),
    /// Its time is over.
    #[error("the {0} certificate has expired; ask the {0} for a new one")]
    Expired(Holder),
    /// Not signed by this eUICC, or not this.
    #[error("the signature is not the eUICC's; send the notification unchanged")]
    BadSignature,
}

impl ProofError {
    /// The name for audit log and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::NotBase64 => "not_base64",
            Self::TooLarge => "too_large",
            Self::NotDer => "not_der",
            Self::TrailingBytes => "trailing_bytes",
            Self::NotANotification => "not_a_notification",
            Self::NotADeletion => "not_a_deletion",
            Self::LongChain => "long_chain",
            Self::BadCertificate(_) => "bad_certificate",
            Self::WrongKey(_) => "wrong_key",
            Self::WrongAlgorithm(_) => "wrong_algorithm",
            Self::WrongEid => "wrong_eid",
            Self::UnknownCi => "unknown_ci",
            Self::BrokenChain(_) => "broken_chain",
            Self::NoKeyIdentifier(_) => "no_key_identifier",
            Self::NotACa(_) => "not_a_ca",
            Self::EuiccIsCa => "euicc_is_ca",
            Self::WrongUsage(_) => "wrong_usage",
            Self::WrongRole(_) => "wrong_role",
            Self::CriticalExtension(_) => "critical_extension",
            Self::ForeignEid => "foreign_eid",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::Expired(_) => "expired",
            Self::BadSignature => "bad_signature",
        }
    }
}

/// The number of a profile as it stands in its file: ten bytes, the first digit in the low half of
/// the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Iccid(pub [u8; 10]);

impl fmt::Display for Iccid {
    /// In reading order, without the filling at the end. Some operators have letters in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits: String =
            self.0.iter().map(|byte| format!("{:X}{:X}", byte & 0x0f, byte >> 4)).collect();
        f.write_str(digits.trim_end_matches('F'))
    }
}

/// What an eUICC has signed: it has deleted a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The profile, where the eUICC names it.
    pub iccid: Option<Iccid>,
    /// The eUICC's count of its notifications: no two have the same.
    pub seq_number: u64,
    /// SHA-256 of the eUICC's number (16 bytes) and what it signed: the same for every form of one
    /// notification, however its signature is turned. Who keeps it knows a proof that was spent.
    pub digest: [u8; digest::SHA256_OUTPUT_LEN],
}

/// The deletion that an envelope proves: [`body`], [`extract`] and [`verify`] in a row.
///
/// # Errors
/// [`ProofError`].
pub fn check(
    payload: &[u8],
    from: Nid,
    issuers: &TrustedIssuers,
    now: Timestamp,
) -> Result<Deletion, ProofError> {
    let body = body(payload).ok_or(ProofError::Missing)?;
    verify(&extract(body)?, from, issuers, now)
}

/// The deletion that these bytes prove: signed by the eUICC `from`, which a trusted CI vouches for,
/// with certificates that are valid at `now`.
///
/// # Errors
/// [`ProofError`] names the first thing that is wrong; what costs least is looked at first.
pub fn verify(
    der: &[u8],
    from: Nid,
    issuers: &TrustedIssuers,
    now: Timestamp,
) -> Result<Deletion, ProofError> {
    let notification = Notification::read(der)?;
    let euicc = Certificate::read(Holder::Euicc, notification.euicc)?;
    let eum = Certificate::read(Holder::Eum, notification.eum)?;
    if euicc.eid() != Some(from.get()) {
        return Err(ProofError::WrongEid);
    }
    eum.is_eum()?;
    euicc.is_euicc_of(&eum)?;
    let now_secs = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
    euicc.is_valid_at(now_secs)?;
    eum.is_valid_at(now_secs)?;
    issuers.have_issued(&eum, now_secs)?;
    euicc.is_signed_by(eum.point())?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, euicc.point())
        .verify(notification.signed, notification.signature)
        .map_err(|_unspecified| ProofError::BadSignature)?;
    Ok(notification.deletion(from))
}

/// A notification of deletion, as it stands there.
struct Notification<'a> {
    signed: &'a [u8],
    seq_number: u64,
    iccid: Option<Iccid>,
    signature: &'a [u8],
    euicc: Tlv<'a>,
    eum: Tlv<'a>,
}

impl<'a> Notification<'a> {
    fn read(der: &'a [u8]) -> Result<Self, ProofError> {
        if der.len() > PROOF_BYTES_MAX {
            return Err(ProofError::TooLarge);
        }
        let outer = der::document(der)?;
        match outer.tag {
            der::SEQUENCE => {}
            PROFILE_INSTALLATION_RESULT => return Err(ProofError::NotADeletion),
            _ => return Err(ProofError::NotANotification),
        }
        let mut parts = Reader::new(outer.value);
        let mut part = |tag| parts.take(tag).ok_or(ProofError::NotANotification);
        let metadata = part(METADATA)?;
        let signature = part(SIGNATURE)?.value;
        let (euicc, eum) = (part(der::SEQUENCE)?, part(der::SEQUENCE)?);
        if parts.peek() == Some(OTHER_CERTIFICATES) {
            return Err(ProofError::LongChain);
        }
        if !parts.is_empty() {
            return Err(ProofError::NotANotification);
        }
        if signature.len() != SIGNATURE_BYTES {
            return Err(ProofError::BadSignature);
        }
        let (seq_number, iccid) = read_metadata(metadata.value)?;
        Ok(Self { signed: metadata.raw, seq_number, iccid, signature, euicc, eum })
    }

    fn deletion(&self, from: Nid) -> Deletion {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&from.get().to_be_bytes());
        context.update(self.signed);
        let mut sum = [0; digest::SHA256_OUTPUT_LEN];
        sum.copy_from_slice(context.finish().as_ref());
        Deletion { iccid: self.iccid, seq_number: self.seq_number, digest: sum }
    }
}

fn read_metadata(value: &[u8]) -> Result<(u64, Option<Iccid>), ProofError> {
    let mut members = Reader::new(value);
    let mut member = |tag| members.take(tag).ok_or(ProofError::NotANotification);
    let seq_number = unsigned(member(SEQ_NUMBER)?.value).ok_or(ProofError::NotANotification)?;
    let operation = member(OPERATION)?.value;
    let address = member(der::UTF8_STRING)?.value;
    let iccid = members.take(ICCID).map(|iccid| <[u8; 10]>::try_from(iccid.value).map(Iccid));
    let iccid = iccid.transpose().map_err(|_length| ProofError::NotANotification)?;
    if !members.is_empty() || std::str::from_utf8(address).is_err() {
        return Err(ProofError::NotANotification);
    }
    if operation != DELETE_ALONE {
        return Err(ProofError::NotADeletion);
    }
    Ok((seq_number, iccid))
}

/// A DER `INTEGER` that is not negative, of at most 64 bits.
fn unsigned(value: &[u8]) -> Option<u64> {
    let digits = match value {
        [0, rest @ ..] if rest.first().is_some_and(|byte| *byte >= 0x80) => rest,
        [0] | [0x01..=0x7f, ..] => value,
        _ => return None,
    };
    let number = |number, byte: &u8| number << 8 | u64::from(*byte);
    (digits.len() <= 8).then(|| digits.iter().fold(0, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iccid_reads_as_on_the_card() {
        let iccid = Iccid([0x98, 0x10, 0x32, 0x54, 0x76, 0x98, 0x10, 0x32, 0x54, 0xf6]);
        assert_eq!(iccid.to_string(), "8901234567890123456");
        assert_eq!(Iccid([0x98; 10]).to_string(), "89".repeat(10));
        assert_eq!(
            Iccid([0x98, 0xd6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).to_string(),
            "896D"
        );
    }

    #[test]
    fn a_sequence_number_has_one_form() {
        for (bytes, number) in [
            (&[0][..], 0),
            (&[0x7f], 127),
            (&[0, 0x80], 128),
            (&[1, 0], 256),
            (&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], u64::MAX),
        ] {
            assert_eq!(unsigned(bytes), Some(number), "{bytes:x?}");
        }
        for bytes in [&[][..], &[0x80], &[0, 0], &[0, 0x7f], &[1, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(unsigned(bytes), None, "{bytes:x?}");
        }
    }
}
