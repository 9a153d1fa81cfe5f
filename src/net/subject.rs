//! The subject of a certificate as one line of text (RFC 4514), spelled as OpenSSL and mosquitto
//! spell it (`-nameopt RFC2253`): rights that name subjects keep their meaning.

use std::fmt::Write;

use x509_parser::asn1_rs::Any;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::certificate::text_of;

/// Short names of attributes, by OID. The value of any other is written in hexadecimal.
const NAMES: [(&str, &str); 17] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// The last attribute first, `,` between them, `+` within a relative name of several.
pub(super) fn line(subject: &X509Name<'_>) -> String {
    let relative: Vec<String> = subject
        .iter_rdn()
        .map(|rdn| {
            let mut parts: Vec<String> = rdn.iter().map(attribute).collect();
            parts.reverse();
            parts.join("+")
        })
        .collect();
    relative.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let name = NAMES.iter().find(|(known, _)| *known == oid).map(|(_, name)| name);
    match (name, text_of(attribute.attr_value())) {
        (Some(name), Ok(text)) => format!("{name}={}", escaped(&text)),
        (Some(name), Err(_)) => format!("{name}={}", hexadecimal(attribute.attr_value())),
        (None, _) => format!("{oid}={}", hexadecimal(attribute.attr_value())),
    }
}

/// What has a meaning in the line is escaped, and so is all that is not plain ASCII.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        let at_edge = (byte == b' ' && (at == 0 || at == last)) || (byte == b'#' && at == 0);
        if byte.is_ascii_control() || !byte.is_ascii() {
            // Writing to a string cannot fail.
            let _written = write!(escaped, "\\{byte:02X}");
            continue;
        }
        if at_edge || b",+\"\\<>;".contains(&byte) {
            escaped.push('\\');
        }
        escaped.push(char::from(byte));
    }
    escaped
}

/// The DER of a value, as RFC 4514 writes what it has no text for.
fn hexadecimal(value: &Any<'_>) -> String {
    let len = value.data.len();
    let bytes = len.to_be_bytes();
    let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    let tag = u8::try_from(value.tag().0).unwrap_or(0x1F);
    let tag = if value.header.is_constructed() { tag | 0x20 } else { tag };
    let mut der = vec![tag];
    match u8::try_from(len) {
        Ok(short) if short < 0x80 => der.push(short),
        // A length that fits a machine has at most eight bytes.
        _ => der.push(0x80 | u8::try_from(significant.len()).unwrap_or(8)),
    }
    if len >= 0x80 {
        der.extend(significant);
    }
    der.extend(value.data);
    der.iter().fold("#".to_owned(), |mut text, byte| {
        let _written = write!(text, "{byte:02X}");
        text
    })
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    /// Made by OpenSSL 3.0; `openssl x509 -noout -subject -nameopt RFC2253` says the same.
    #[test]
    fn a_subject_reads_as_openssl_writes_it() {
        let pem = include_bytes!("subject.pem");
        let der = x509_parser::pem::parse_x509_pem(pem).unwrap().1.contents;
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(
            line(certificate.subject()),
            "CN=\\ dev\\\\\\\"1\\;=\\ ,pseudonym=pseudo,emailAddress=a@b.example,\
             serialNumber=89049032,UID=u 1+OU=x,O=\\#Ger\\C3\\A4t \\<1\\>,ST=a\\, b,C=DE,DC=example"
        );
        assert_eq!(line(&X509Name::from_der(&[0x30, 0]).unwrap().1), "");
    }

    #[test]
    fn an_attribute_without_a_name_is_shown_in_hexadecimal() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CustomDnType(vec![1, 2, 3, 4]), "odd");
        params.distinguished_name.push(rcgen::DnType::CommonName, "device");
        let der = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let (_, certificate) = X509Certificate::from_der(der.der()).unwrap();
        assert_eq!(line(certificate.subject()), "CN=device,1.2.3.4=#0C036F6464");
    }

    #[test]
    fn a_long_value_has_a_long_length() {
        for (len, head) in [(0x7F, "#0C7F"), (0x80, "#0C8180"), (0x1234, "#0C821234")] {
            let data = vec![0; len];
            let value = Any::from_tag_and_data(x509_parser::asn1_rs::Tag::Utf8String, &data);
            assert!(hexadecimal(&value).starts_with(head));
        }
    }
}
