//! One certificate of the chain, under the profile of SGP.22, section 4.5.2.1.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use x509_parser::asn1_rs::{Oid, oid};
use x509_parser::extensions::{GeneralName, GeneralSubtree, NameConstraints, ParsedExtension};
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_CERTIFICATE_POLICIES, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_NAME_CONSTRAINTS,
    OID_X509_EXT_SUBJECT_KEY_IDENTIFIER, OID_X509_SERIALNUMBER,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::der::{self, BIT_STRING, PRINTABLE_STRING, Reader, SEQUENCE, Tlv, UTF8_STRING};
use super::{Holder, ProofError};
use crate::ids::decimal;

/// `AlgorithmIdentifier` of ecdsa-with-SHA256 (RFC 5758).
const ECDSA_WITH_SHA256: [u8; 12] =
    [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// `SubjectPublicKeyInfo` of P-256 up to the point (RFC 5480).
const P256_KEY: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// A point of P-256 with both coordinates, and the byte before them that says so.
pub(super) const POINT_BYTES: usize = 65;
const BOTH_COORDINATES: u8 = 0x04;
const EID_DIGITS: usize = 32;

/// `id-rspRole-eum` of version 2 of SGP.22 ("variant O"), and of version 3.
const ROLE_EUM: [Oid<'static>; 2] = [oid!(2.23.146.1.2.1.2), oid!(2.23.146.1.2.1.0.0.0)];
/// `id-rspRole-euicc`, likewise.
const ROLE_EUICC: [Oid<'static>; 2] = [oid!(2.23.146.1.2.1.1), oid!(2.23.146.1.2.1.0.0.0.0.0)];
/// `permittedEins`: beginnings of the EIDs that an EUM may give; instead of name constraints since
/// version 3.
const PERMITTED_EINS: Oid<'static> = oid!(2.23.146.1.2.2.0);

/// Extensions that are heeded here, so that they may be critical.
const HEEDED: [Oid<'static>; 7] = [
    OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_CERTIFICATE_POLICIES,
    OID_X509_EXT_NAME_CONSTRAINTS,
    OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER,
    PERMITTED_EINS,
];

/// A certificate whose form, key and algorithm are what they must be.
#[derive(Debug)]
pub(super) struct Certificate<'a> {
    holder: Holder,
    x509: X509Certificate<'a>,
    signed: &'a [u8],
    signature: &'a [u8],
    point: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads a certificate that is well-formed DER. What is not under its signature has one form
    /// only: nobody can send the same certificate in other bytes.
    pub(super) fn read(holder: Holder, der: Tlv<'a>) -> Result<Self, ProofError> {
        let bad = ProofError::BadCertificate(holder);
        let mut parts = Reader::new(der.value);
        let mut part = |tag| parts.take(tag).ok_or(bad);
        let signed = part(SEQUENCE)?.raw;
        let algorithm = part(SEQUENCE)?.raw;
        let signature = whole_bytes(part(BIT_STRING)?).ok_or(bad)?;
        let ([], x509) = X509Certificate::from_der(der.raw).map_err(|_error| bad)? else {
            return Err(bad);
        };
        if !parts.is_empty() || x509.version() != X509Version::V3 {
            return Err(bad);
        }
        let point = point(x509.tbs_certificate.subject_pki.raw);
        let point = point.ok_or(ProofError::WrongKey(holder))?;
        let inner = &x509.tbs_certificate.signature;
        if algorithm != ECDSA_WITH_SHA256 || *inner != x509.signature_algorithm {
            return Err(ProofError::WrongAlgorithm(holder));
        }
        let certificate = Self { holder, x509, signed, signature, point };
        certificate.check_extensions()?;
        Ok(certificate)
    }

    /// Both coordinates of the public key.
    pub(super) fn point(&self) -> &'a [u8] {
        self.point
    }

    /// Subject, as it stands there.
    pub(super) fn subject(&self) -> &[u8] {
        self.x509.subject().as_raw()
    }

    /// Whether issuer and subject are the same.
    pub(super) fn is_self_issued(&self) -> bool {
        self.x509.issuer().as_raw() == self.subject()
    }

    /// First and last second of Unix time at which it is valid.
    pub(super) fn validity(&self) -> (i64, i64) {
        let validity = self.x509.validity();
        (validity.not_before.timestamp(), validity.not_after.timestamp())
    }

    /// The number of the eUICC: subject serialNumber, once, 32 digits.
    pub(super) fn eid(&self) -> Option<u128> {
        decimal(self.eid_text()?)
    }

    fn eid_text(&self) -> Option<&str> {
        let mut numbers = attributes(self.x509.subject()).filter(is_serial_number);
        let number = numbers.next().filter(|_| numbers.next().is_none())?.attr_value();
        let is_text = matches!(u16::try_from(number.tag().0), Ok(PRINTABLE_STRING | UTF8_STRING));
        let text = std::str::from_utf8(number.data).ok().filter(|_| is_text)?;
        (text.len() == EID_DIGITS).then_some(text)
    }
}

/// What a holder must be.
impl Certificate<'_> {
    /// May issue certificates over `steps` more issuers.
    pub(super) fn is_ca(&self, steps: u32) -> Result<(), ProofError> {
        let constraints = self.x509.basic_constraints().map_err(|_error| self.bad())?;
        let constraints = constraints.map(|extension| extension.value);
        let is_ca = constraints
            .is_some_and(|c| c.ca && c.path_len_constraint.is_none_or(|most| most >= steps));
        if !is_ca {
            return Err(ProofError::NotACa(self.holder));
        }
        let usage = self.x509.key_usage().map_err(|_error| self.bad())?;
        if usage.is_some_and(|usage| usage.value.key_cert_sign()) {
            return Ok(());
        }
        Err(ProofError::WrongUsage(self.holder))
    }

    pub(super) fn is_eum(&self) -> Result<(), ProofError> {
        self.is_ca(0)?;
        self.has_role(&ROLE_EUM)
    }

    /// Signs, issues nothing, and is named by an EUM that may give it its number.
    pub(super) fn is_euicc_of(&self, eum: &Self) -> Result<(), ProofError> {
        let constraints = self.x509.basic_constraints().map_err(|_error| self.bad())?;
        if constraints.is_some_and(|extension| extension.value.ca) {
            return Err(ProofError::EuiccIsCa);
        }
        let usage = self.x509.key_usage().map_err(|_error| self.bad())?;
        if !usage.is_some_and(|usage| usage.value.digital_signature()) {
            return Err(ProofError::WrongUsage(self.holder));
        }
        self.has_role(&ROLE_EUICC)?;
        if !eum.permits(self)? {
            return Err(ProofError::ForeignEid);
        }
        if !self.names_issuer(eum.subject(), eum.key_id()?)? {
            return Err(ProofError::BrokenChain(self.holder));
        }
        Ok(())
    }

    pub(super) fn is_valid_at(&self, now_secs: i64) -> Result<(), ProofError> {
        check_validity(self.holder, self.validity(), now_secs)
    }

    /// Whether this is the certificate's issuer, by its name and its key.
    pub(super) fn names_issuer(&self, subject: &[u8], key_id: &[u8]) -> Result<bool, ProofError> {
        let missing = ProofError::NoKeyIdentifier(self.holder);
        let extension = self.extension(&OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER)?.ok_or(missing)?;
        let ParsedExtension::AuthorityKeyIdentifier(authority) = extension else {
            return Err(self.bad());
        };
        let named = authority.key_identifier.as_ref().ok_or(missing)?.0;
        Ok(self.x509.issuer().as_raw() == subject && named == key_id)
    }

    /// The name of the certificate's own key.
    pub(super) fn key_id(&self) -> Result<&[u8], ProofError> {
        let missing = ProofError::NoKeyIdentifier(self.holder);
        let extension = self.extension(&OID_X509_EXT_SUBJECT_KEY_IDENTIFIER)?.ok_or(missing)?;
        match extension {
            ParsedExtension::SubjectKeyIdentifier(id) if !id.0.is_empty() => Ok(id.0),
            _ => Err(missing),
        }
    }

    pub(super) fn is_signed_by(&self, point: &[u8]) -> Result<(), ProofError> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(self.signed, self.signature)
            .map_err(|_unspecified| ProofError::BrokenChain(self.holder))
    }

    /// Whether an EUM may give this number: every extension that speaks of it has to agree.
    fn permits(&self, euicc: &Self) -> Result<bool, ProofError> {
        let eid = euicc.eid_text().ok_or(ProofError::WrongEid)?;
        let by_number = self.raw_extension(&PERMITTED_EINS)?;
        let by_number = by_number.is_none_or(|eins| permits_number(eins, eid));
        let by_name = match self.extension(&OID_X509_EXT_NAME_CONSTRAINTS)? {
            Some(ParsedExtension::NameConstraints(c)) => permits_name(c, euicc.x509.subject()),
            Some(_) => return Err(self.bad()),
            None => true,
        };
        Ok(by_number && by_name)
    }

    fn has_role(&self, roles: &[Oid<'_>]) -> Result<(), ProofError> {
        let extension = self.extension(&OID_X509_EXT_CERTIFICATE_POLICIES)?;
        if let Some(ParsedExtension::CertificatePolicies(policies)) = extension
            && policies.iter().any(|policy| roles.contains(&policy.policy_id))
        {
            return Ok(());
        }
        Err(ProofError::WrongRole(self.holder))
    }

    fn check_extensions(&self) -> Result<(), ProofError> {
        for extension in self.x509.extensions() {
            if extension.parsed_extension().error().is_some() {
                return Err(self.bad());
            }
            if extension.critical && !HEEDED.contains(&extension.oid) {
                return Err(ProofError::CriticalExtension(self.holder));
            }
        }
        Ok(())
    }

    fn extension(&self, oid: &Oid<'_>) -> Result<Option<&ParsedExtension<'_>>, ProofError> {
        let extension = self.x509.get_extension_unique(oid).map_err(|_twice| self.bad())?;
        Ok(extension.map(|extension| extension.parsed_extension()))
    }

    fn raw_extension(&self, oid: &Oid<'_>) -> Result<Option<&[u8]>, ProofError> {
        let extension = self.x509.get_extension_unique(oid).map_err(|_twice| self.bad())?;
        Ok(extension.map(|extension| extension.value))
    }

    fn bad(&self) -> ProofError {
        ProofError::BadCertificate(self.holder)
    }
}

/// Whether a certificate with this validity can be used.
pub(super) fn check_validity(
    holder: Holder,
    (not_before, not_after): (i64, i64),
    now_secs: i64,
) -> Result<(), ProofError> {
    if now_secs < not_before {
        return Err(ProofError::NotYetValid(holder));
    }
    if now_secs > not_after {
        return Err(ProofError::Expired(holder));
    }
    Ok(())
}

/// The point of a key of P-256.
fn point(key: &[u8]) -> Option<&[u8]> {
    let point = key.strip_prefix(&P256_KEY)?;
    (point.len() == POINT_BYTES && point[0] == BOTH_COORDINATES).then_some(point)
}

/// The bytes of a `BIT STRING` that has no loose bits.
fn whole_bytes(bits: Tlv<'_>) -> Option<&[u8]> {
    bits.value.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bytes)| bytes)
}

/// `SEQUENCE OF PrintableString`: one is the beginning of the number.
fn permits_number(eins: &[u8], eid: &str) -> bool {
    let Ok(list) = der::document(eins) else { return false };
    let mut numbers = Reader::new(if list.tag == SEQUENCE { list.value } else { &[] });
    std::iter::from_fn(|| numbers.take(PRINTABLE_STRING))
        .any(|ein| !ein.value.is_empty() && eid.as_bytes().starts_with(ein.value))
}

/// A permitted directory name fits when the subject has each of its attributes, and a serialNumber
/// that begins with its serialNumber (SGP.22 v2, section 4.5.2.1.0.3; RFC 5280 knows no such
/// beginnings). Other kinds of constraints are in no such certificate, and permit nothing here.
fn permits_name(constraints: &NameConstraints<'_>, subject: &X509Name<'_>) -> bool {
    let fits = |subtree: &GeneralSubtree<'_>| match &subtree.base {
        GeneralName::DirectoryName(name) => contains(subject, name),
        _ => false,
    };
    let permitted = constraints.permitted_subtrees.as_ref();
    constraints.excluded_subtrees.is_none() && permitted.is_some_and(|some| some.iter().any(fits))
}

fn contains(subject: &X509Name<'_>, constraint: &X509Name<'_>) -> bool {
    attributes(constraint).all(|wanted| {
        let value = wanted.attr_value().data;
        attributes(subject).filter(|has| has.attr_type() == wanted.attr_type()).any(|has| {
            let has = has.attr_value().data;
            has == value || (is_serial_number(&wanted) && has.starts_with(value))
        })
    })
}

fn attributes<'n, 'a>(
    name: &'n X509Name<'a>,
) -> impl Iterator<Item = &'n AttributeTypeAndValue<'a>> {
    name.iter_attributes()
}

fn is_serial_number(attribute: &&AttributeTypeAndValue<'_>) -> bool {
    *attribute.attr_type() == OID_X509_SERIALNUMBER
}
