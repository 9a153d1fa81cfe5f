//! Who a client certificate says it is for: the names in it, as plain text.
//!
//! The chain has been verified by rustls before anything is read here. Still nothing is assumed
//! about the names: a value that cannot be shown as text refuses the certificate, because a name
//! that is read differently by two programs is a way in (case T14).

use std::net::IpAddr;

use x509_parser::asn1_rs::{Any, Oid, Tag};
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_X509_COMMON_NAME, OID_X509_ORGANIZATIONAL_UNIT, OID_X509_SERIALNUMBER,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::subject;
use crate::rsp::CertificateFacts;

/// What the broker reads from a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Names that may identify the client.
    pub facts: CertificateFacts,
    /// End of its validity, in seconds of Unix time.
    pub not_after_unix_secs: i64,
}

/// Why a certificate cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not one DER certificate, from the first byte to the last.
    #[error("not a DER certificate")]
    NotDer,
    /// A subject alternative name that is there twice or is not well-formed.
    #[error("unreadable subject alternative name")]
    AlternativeName,
    /// A name in an encoding that cannot be shown as text, or with a control character in it.
    #[error("a name that is no plain text")]
    NotText,
}

impl PeerCertificate {
    /// Reads the leaf of the chain a client has shown.
    ///
    /// # Errors
    /// [`CertificateError`] for anything whose meaning is not beyond doubt.
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        let mut facts = CertificateFacts::default();
        facts.read_subject(&certificate)?;
        facts.read_alternative_names(&certificate)?;
        facts.subject = subject::line(certificate.subject());
        facts.serial_hex = certificate.tbs_certificate.serial.to_str_radix(16);
        Ok(Self { facts, not_after_unix_secs: certificate.validity().not_after.timestamp() })
    }
}

/// End of any certificate's validity, in seconds of Unix time; its names do not matter.
///
/// # Errors
/// [`CertificateError::NotDer`].
pub fn not_after_unix_secs(der: &[u8]) -> Result<i64, CertificateError> {
    Ok(parse(der)?.validity().not_after.timestamp())
}

/// Names of a certificate's issuer and of whom it is for, as they stand in it.
#[must_use]
pub fn issuer_and_subject(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let certificate = parse(der).ok()?;
    let raw = |name: &X509Name<'_>| name.as_raw().to_vec();
    Some((raw(certificate.issuer()), raw(certificate.subject())))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(CertificateError::NotDer),
    }
}

impl CertificateFacts {
    fn read_subject(&mut self, certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
        for attribute in certificate.subject().iter_attributes() {
            if let Some(names) = self.list_of(attribute.attr_type()) {
                keep(names, text_of(attribute.attr_value())?)?;
            }
        }
        Ok(())
    }

    fn list_of(&mut self, attribute: &Oid<'_>) -> Option<&mut Vec<String>> {
        if *attribute == OID_X509_SERIALNUMBER {
            Some(&mut self.serial_numbers)
        } else if *attribute == OID_X509_COMMON_NAME {
            Some(&mut self.common_names)
        } else if *attribute == OID_X509_ORGANIZATIONAL_UNIT {
            Some(&mut self.organizational_units)
        } else {
            None
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "other kinds of names identify nobody")]
    fn read_alternative_names(
        &mut self,
        certificate: &X509Certificate<'_>,
    ) -> Result<(), CertificateError> {
        let extension = certificate.subject_alternative_name();
        let Some(extension) = extension.map_err(|_| CertificateError::AlternativeName)? else {
            return Ok(());
        };
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(uri) => keep(&mut self.san_uris, (*uri).to_owned())?,
                GeneralName::DNSName(dns) => keep(&mut self.san_dns, (*dns).to_owned())?,
                GeneralName::Invalid(..) => return Err(CertificateError::AlternativeName),
                _ => {}
            }
            if self.alternative_name.is_empty() {
                self.alternative_name = text_of_name(name);
            }
        }
        Ok(())
    }
}

/// A name as the user name of a client; nothing for those that have no text of their own.
#[expect(clippy::wildcard_enum_match_arm, reason = "other kinds of names identify nobody")]
fn text_of_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::URI(text) | GeneralName::DNSName(text) | GeneralName::RFC822Name(text) => {
            (*text).to_owned()
        }
        GeneralName::IPAddress(bytes) => address(bytes).map_or_else(String::new, |a| a.to_string()),
        _ => String::new(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn keep(names: &mut Vec<String>, name: String) -> Result<(), CertificateError> {
    if name.chars().any(char::is_control) {
        return Err(CertificateError::NotText);
    }
    if !name.is_empty() {
        names.push(name);
    }
    Ok(())
}

/// The text of a `DirectoryString`, in any of its encodings. T61 is taken only where it cannot be
/// misread, as ASCII.
pub(super) fn text_of(value: &Any<'_>) -> Result<String, CertificateError> {
    let text = match value.tag() {
        Tag::Utf8String => String::from_utf8(value.data.to_vec()).ok(),
        Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::TeletexString => {
            value.data.is_ascii().then(|| value.data.iter().map(|b| char::from(*b)).collect())
        }
        Tag::BmpString => utf16(value.data),
        Tag::UniversalString => utf32(value.data),
        _ => None,
    };
    text.ok_or(CertificateError::NotText)
}

fn utf16(data: &[u8]) -> Option<String> {
    let (units, rest) = data.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
    if rest.is_empty() { String::from_utf16(&units).ok() } else { None }
}

fn utf32(data: &[u8]) -> Option<String> {
    let (units, rest) = data.as_chunks::<4>();
    let text = units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit))).collect();
    if rest.is_empty() { text } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::string::{BmpString, TeletexString, UniversalString};
    use rcgen::{
        CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, KeyPair, SanType,
    };

    const EID: &str = "89049032123451234512345678901235";

    fn serial_number() -> DnType {
        DnType::CustomDnType(vec![2, 5, 4, 5])
    }

    fn der(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn with_common_name(name: impl Into<DnValue>) -> Result<Vec<String>, CertificateError> {
        let der = der(|params| params.distinguished_name.push(DnType::CommonName, name));
        PeerCertificate::read(&der).map(|peer| peer.facts.common_names)
    }

    #[test]
    fn all_names_are_found() {
        let der = der(|params| {
            params.distinguished_name.push(serial_number(), EID);
            params.distinguished_name.push(DnType::CommonName, "device 1");
            params.distinguished_name.push(DnType::OrganizationalUnitName, "meters");
            params.distinguished_name.push(DnType::OrganizationName, "not asked for");
            let uri = format!("urn:eid:{EID}");
            params.subject_alt_names = vec![
                SanType::URI(uri.try_into().unwrap()),
                SanType::DnsName("device.example".try_into().unwrap()),
                SanType::Rfc822Name("a@b.example".try_into().unwrap()),
            ];
            params.serial_number = Some(0x0102_abcd.into());
            params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        });
        let peer = PeerCertificate::read(&der).unwrap();
        let expected = CertificateFacts {
            san_uris: vec![format!("urn:eid:{EID}")],
            san_dns: vec!["device.example".to_owned()],
            serial_numbers: vec![EID.to_owned()],
            common_names: vec!["device 1".to_owned()],
            organizational_units: vec!["meters".to_owned()],
            subject: format!("O=not asked for,OU=meters,CN=device 1,serialNumber={EID}"),
            alternative_name: format!("urn:eid:{EID}"),
            serial_hex: "102abcd".to_owned(),
        };
        assert_eq!(peer.facts, expected);
        assert_eq!(peer.not_after_unix_secs, 1_893_456_000);
    }

    #[test]
    fn the_first_alternative_name_with_a_text_is_a_user_name() {
        let first = |names: Vec<SanType>| {
            let der = der(|params| params.subject_alt_names = names);
            PeerCertificate::read(&der).unwrap().facts.alternative_name
        };
        let mail = || SanType::Rfc822Name("a@b.example".try_into().unwrap());
        assert_eq!(first(vec![mail(), SanType::DnsName("b".try_into().unwrap())]), "a@b.example");
        let other = SanType::OtherName((vec![1, 2, 3], "x".into()));
        assert_eq!(first(vec![other, mail()]), "a@b.example");
        assert_eq!(first(vec![SanType::IpAddress([192, 0, 2, 1].into())]), "192.0.2.1");
        assert_eq!(first(vec![]), "");
    }

    #[test]
    fn every_encoding_of_text_is_read() {
        // case T14
        let bmp = DnValue::BmpString(BmpString::try_from("Gerät").unwrap());
        assert_eq!(with_common_name(bmp).unwrap(), ["Gerät"]);
        let universal = DnValue::UniversalString(UniversalString::try_from("Gerät 😀").unwrap());
        assert_eq!(with_common_name(universal).unwrap(), ["Gerät 😀"]);
        let t61 = DnValue::TeletexString(TeletexString::try_from("device").unwrap());
        assert_eq!(with_common_name(t61).unwrap(), ["device"]);
        let printable = DnValue::PrintableString("device".try_into().unwrap());
        assert_eq!(with_common_name(printable).unwrap(), ["device"]);
        let long = "x".repeat(200);
        assert_eq!(with_common_name(long.clone()).unwrap(), [long]);
    }

    #[test]
    fn a_name_with_nul_refuses_the_certificate() {
        // case T14
        assert_eq!(with_common_name("admin\0.evil"), Err(CertificateError::NotText));
        assert_eq!(with_common_name("line\nbreak"), Err(CertificateError::NotText));
        let bmp = DnValue::BmpString(BmpString::try_from("a\0b").unwrap());
        assert_eq!(with_common_name(bmp), Err(CertificateError::NotText));
        let der = der(|params| {
            let uri = "urn:eid:1\0".try_into().unwrap();
            params.subject_alt_names = vec![SanType::URI(uri)];
        });
        assert_eq!(PeerCertificate::read(&der), Err(CertificateError::NotText));
    }

    #[test]
    fn an_empty_name_is_no_name() {
        // case T14
        assert_eq!(with_common_name("").unwrap(), [""; 0]);
    }

    /// A DER sequence or set of short elements.
    fn constructed(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        [&[tag, length], content].concat()
    }

    #[test]
    fn several_common_names_are_all_kept_even_in_one_rdn() {
        // case T14: a multi-value RDN; rcgen writes none, so its one CN "aabb" is rewritten.
        let attribute = |value: &[u8]| {
            let oid = [0x06, 0x03, 0x55, 0x04, 0x03];
            constructed(0x30, &[&oid[..], &constructed(0x0c, value)].concat())
        };
        let two = [attribute(b"a"), attribute(b"b")].concat();
        let subject = constructed(0x30, &constructed(0x31, &two));
        let (_, name) = x509_parser::x509::X509Name::from_der(&subject).unwrap();
        let values: Vec<_> =
            name.iter_attributes().map(|a| text_of(a.attr_value()).unwrap()).collect();
        assert_eq!(values, ["a", "b"]);
    }

    #[test]
    fn an_alternative_name_that_is_there_twice_refuses_the_certificate() {
        // case T14: two extensions 2.5.29.17 with one DNS name each.
        let der = der(|params| {
            params.subject_alt_names = vec![SanType::DnsName("a.example".try_into().unwrap())];
            let second = constructed(0x30, &constructed(0x82, b"b.example"));
            let second = CustomExtension::from_oid_content(&[2, 5, 29, 17], second);
            params.custom_extensions.push(second);
        });
        assert!(PeerCertificate::read(&der).is_err());
    }

    #[test]
    fn damaged_certificates_are_errors_and_never_a_panic() {
        let der = der(|params| {
            params.distinguished_name.push(serial_number(), EID);
            params.subject_alt_names = vec![SanType::DnsName("a.example".try_into().unwrap())];
        });
        for end in 0..der.len() {
            assert!(PeerCertificate::read(&der[..end]).is_err(), "cut at {end}");
        }
        for at in 0..der.len() {
            let mut damaged = der.clone();
            damaged[at] ^= 0xff;
            let _ = PeerCertificate::read(&damaged);
        }
        let twice = [der.as_slice(), &[0]].concat();
        assert_eq!(PeerCertificate::read(&twice), Err(CertificateError::NotDer));
    }
}
