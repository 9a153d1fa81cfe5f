//! Delete notifications of SGP.22, signed as an eUICC signs them, under certificates of our own:
//! CI, EUM and eUICC, shaped as in SGP.22, section 4.5.2.1. They prove something to whoever trusts
//! that CI, and to nobody else.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName,
    DnType, DnValue, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
};
use time::{Duration, OffsetDateTime};

use super::bpp::put;
use crate::ids::{Nid, Timestamp};
use crate::pki::PkiError;

/// Beginning of the numbers that the EUM may give; those of [`sample_eid`](super::sample_eid) have
/// it.
const EIN: &str = "89049032";
const EUM_ORGANIZATION: &str = "simcast EUM";
/// The subject attribute serialNumber.
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];
const CERTIFICATE_POLICIES: [u64; 4] = [2, 5, 29, 32];

/// Clocks differ: certificates begin to be valid this long ago.
const BACKDATE: Duration = Duration::HOUR;
const CA_DAYS: i64 = 10 * 365;
/// An eUICC lives as long as its certificate: GSMA's own test certificates have 5,475 years.
const EUICC_DAYS: i64 = 2_000_000;

const SEQUENCE: u16 = 0x30;
const OBJECT_IDENTIFIER: u16 = 0x06;
const METADATA: u16 = 0xbf2f;
const SIGNATURE: u16 = 0x5f37;
/// A `BIT STRING` with bit 3, notificationDelete.
const DELETE: [u8; 2] = [0x04, 0x10];
const ADDRESS: &str = "smdp.example";

/// `id-rspRole` of SGP.22, the last number of 2.23.146.1.2.1.
#[derive(Clone, Copy)]
enum Role {
    Ci = 0,
    Euicc = 1,
    Eum = 2,
}

/// A certificate issuer and a manufacturer that makes eUICCs.
pub struct EuiccCa {
    ci_pem: String,
    eum: CertifiedIssuer<'static, KeyPair>,
    from: OffsetDateTime,
}

/// An eUICC: a key and a certificate with its number.
pub struct Euicc {
    key: EcdsaKeyPair,
    /// Its own and that of the EUM, DER, one behind the other.
    certificates: Vec<u8>,
}

impl EuiccCa {
    /// Both of them, with certificates that are valid from an hour before `now`, for ten years.
    ///
    /// # Errors
    /// [`PkiError::Encoding`].
    pub fn new(now: Timestamp) -> Result<Self, PkiError> {
        let secs = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
        let now = OffsetDateTime::from_unix_timestamp(secs).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let from = now.saturating_sub(BACKDATE);
        let ci = CertifiedIssuer::self_signed(ci_params(from)?, KeyPair::generate()?)?;
        let eum = CertifiedIssuer::signed_by(eum_params(from)?, KeyPair::generate()?, &ci)?;
        Ok(Self { ci_pem: ci.pem(), eum, from })
    }

    /// The certificate to trust.
    #[must_use]
    pub fn ci_pem(&self) -> &str {
        &self.ci_pem
    }

    /// Makes the eUICC with this number, with a new key. The EUM must only give numbers that begin
    /// with 89049032, but it can give others.
    ///
    /// # Errors
    /// [`PkiError::Encoding`].
    pub fn euicc(&self, eid: Nid) -> Result<Euicc, PkiError> {
        let key = KeyPair::generate()?;
        let certificate = euicc_params(eid, self.from)?.signed_by(&key, &self.eum)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der())
            .map_err(|_rejected| rcgen::Error::CouldNotParseKeyPair)?;
        let certificates = [&certificate.der()[..], self.eum.der()].concat();
        Ok(Euicc { key, certificates })
    }
}

impl Euicc {
    /// What the eUICC signs after a profile was deleted: a `PendingNotification`, DER. It counts
    /// its notifications; an ICCID has its digits in swapped nibbles.
    ///
    /// # Errors
    /// [`PkiError::NoRandomness`].
    pub fn delete_notification(
        &self,
        seq_number: u64,
        iccid: Option<[u8; 10]>,
    ) -> Result<Vec<u8>, PkiError> {
        let mut metadata = Vec::new();
        put(&mut metadata, 0x80, &integer(seq_number));
        put(&mut metadata, 0x81, &DELETE);
        put(&mut metadata, 0x0c, ADDRESS.as_bytes());
        if let Some(iccid) = iccid {
            put(&mut metadata, 0x5a, &iccid);
        }
        let mut contents = Vec::new();
        put(&mut contents, METADATA, &metadata);
        let signature = self.key.sign(&SystemRandom::new(), &contents);
        let signature = signature.map_err(|_unspecified| PkiError::NoRandomness)?;
        put(&mut contents, SIGNATURE, signature.as_ref());
        contents.extend_from_slice(&self.certificates);
        let mut notification = Vec::new();
        put(&mut notification, SEQUENCE, &contents);
        Ok(notification)
    }
}

impl fmt::Debug for EuiccCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EuiccCa").field("from", &self.from).finish_non_exhaustive()
    }
}

impl fmt::Debug for Euicc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Euicc").finish_non_exhaustive()
    }
}

fn ci_params(from: OffsetDateTime) -> Result<CertificateParams, PkiError> {
    let subject = name("simcast", Some("simcast test CI"), None)?;
    let mut params = params(subject, Role::Ci, from, CA_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn eum_params(from: OffsetDateTime) -> Result<CertificateParams, PkiError> {
    let subject = name(EUM_ORGANIZATION, Some("simcast test EUM"), None)?;
    let mut params = params(subject, Role::Eum, from, CA_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    let numbers = GeneralSubtree::DirectoryName(name(EUM_ORGANIZATION, None, Some(EIN))?);
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: vec![numbers], excluded_subtrees: Vec::new() });
    Ok(params)
}

fn euicc_params(eid: Nid, from: OffsetDateTime) -> Result<CertificateParams, PkiError> {
    let subject = name(EUM_ORGANIZATION, Some("simcast test eUICC"), Some(&eid.to_string()))?;
    let mut params = params(subject, Role::Euicc, from, EUICC_DAYS)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn params(
    subject: DistinguishedName,
    role: Role,
    from: OffsetDateTime,
    days: i64,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = subject;
    params.not_before = from;
    params.not_after = from.saturating_add(Duration::days(days));
    params.custom_extensions = vec![policies(role)];
    Ok(params)
}

fn name(
    organization: &str,
    common_name: Option<&str>,
    serial_number: Option<&str>,
) -> Result<DistinguishedName, PkiError> {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, organization);
    if let Some(number) = serial_number {
        let printable = DnValue::PrintableString(number.try_into()?);
        name.push(DnType::CustomDnType(SERIAL_NUMBER.to_vec()), printable);
    }
    if let Some(common_name) = common_name {
        name.push(DnType::CommonName, common_name);
    }
    Ok(name)
}

/// certificatePolicies with one role; critical, as in SGP.22.
fn policies(role: Role) -> CustomExtension {
    let (mut policy, mut information, mut policies) = (Vec::new(), Vec::new(), Vec::new());
    put(&mut policy, OBJECT_IDENTIFIER, &[0x67, 0x81, 0x12, 0x01, 0x02, 0x01, role as u8]);
    put(&mut information, SEQUENCE, &policy);
    put(&mut policies, SEQUENCE, &information);
    let mut extension = CustomExtension::from_oid_content(&CERTIFICATE_POLICIES, policies);
    extension.set_criticality(true);
    extension
}

/// A DER `INTEGER`: no zero byte at its beginning but for the sign.
fn integer(number: u64) -> Vec<u8> {
    let bytes = [&[0][..], &number.to_be_bytes()].concat();
    let needed = |pair: &[u8]| pair[0] != 0 || pair[1] >= 0x80;
    let from = bytes.windows(2).position(needed).unwrap_or(bytes.len() - 1);
    bytes[from..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::sample_eid;
    use super::*;

    #[test]
    fn an_integer_is_as_short_as_can_be() {
        for (number, bytes) in [
            (0, &[0][..]),
            (0x7f, &[0x7f]),
            (0x80, &[0, 0x80]),
            (0x1234, &[0x12, 0x34]),
            (u64::MAX, &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ] {
            assert_eq!(integer(number), bytes, "{number}");
        }
    }

    #[test]
    fn debug_output_shows_no_key() {
        let ca = EuiccCa::new(Timestamp(1_800_000_000_000)).unwrap();
        let euicc = ca.euicc(sample_eid(1)).unwrap();
        assert_eq!(format!("{euicc:?}"), "Euicc { .. }");
        assert!(format!("{ca:?}").ends_with(", .. }"));
    }
}
