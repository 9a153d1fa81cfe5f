//! Certificates and who they belong to.

use super::*;

const EID: &str = "89049032123451234512345678901235";
const OTHER: &str = "89049032000000000000000000000163";

#[derive(Default)]
struct Certificate(CertificateFacts);

impl Certificate {
    fn uri(mut self, uri: &str) -> Self {
        self.0.san_uris.push(uri.into());
        self
    }

    fn dns(mut self, name: &str) -> Self {
        self.0.san_dns.push(name.into());
        self
    }

    fn serial(mut self, serial: &str) -> Self {
        self.0.serial_numbers.push(serial.into());
        self
    }

    fn cn(mut self, name: &str) -> Self {
        self.0.common_names.push(name.into());
        self
    }

    fn ou(mut self, unit: &str) -> Self {
        self.0.organizational_units.push(unit.into());
        self
    }

    fn identity(&self) -> Result<Identity, IdentityError> {
        let rules: Vec<ServerRule> = ["cn=sm-sr.example", "ou=SM-SR", "san=sr.example"]
            .iter()
            .map(|rule| rule.parse().unwrap())
            .collect();
        Identity::from_certificate(&self.0, &rules, NidScheme::Eid)
    }
}

fn certificate() -> Certificate {
    Certificate::default()
}

fn device(digits: &str) -> Result<Identity, IdentityError> {
    Ok(Identity::device(Nid::parse(digits, NidScheme::Eid).unwrap()))
}

#[test]
fn a_rule_makes_a_server_whatever_else_it_says() {
    let uri = format!("urn:eid:{EID}");
    for server in [
        certificate().cn("sm-sr.example").uri(&uri),
        certificate().cn("other").cn("sm-sr.example"),
        certificate().cn("x").ou("SM-SR"),
        certificate().dns("SR.example"),
    ] {
        assert_eq!(server.identity().unwrap().role, Role::Server);
    }
    for no_server in [
        certificate().cn("SM-SR.EXAMPLE"),
        certificate().cn("sm-sr.example.evil"),
        certificate().ou("sm-sr.example").cn("x"),
        certificate().cn("x").dns("a.sr.example"),
    ] {
        assert_eq!(no_server.identity().unwrap().role, Role::Client);
    }
}

#[test]
fn the_eid_comes_from_san_then_serial_then_cn() {
    let uri = format!("URN:eid:{EID}");
    assert_eq!(certificate().uri(&uri).serial(OTHER).cn(OTHER).identity(), device(EID));
    assert_eq!(certificate().uri("urn:x:1").serial(EID).cn(OTHER).identity(), device(EID));
    assert_eq!(certificate().serial("SN-7").cn(EID).identity(), device(EID));
    assert_eq!(certificate().cn("x").cn(EID).cn(EID).identity(), device(EID));
    let client = certificate().serial("123").cn("gateway 7").identity().unwrap();
    assert_eq!(client, Identity::anonymous("gateway 7"));
    assert_eq!(&*device(EID).unwrap().name, EID);
}

#[test]
fn a_wrong_eid_is_refused_and_never_taken_for_a_name() {
    let wrong = "89049032123451234512345678901236";
    for bad in [
        certificate().uri(&format!("urn:eid:{wrong}")).cn(EID),
        certificate().uri("urn:eid:7").cn(EID),
        certificate().uri("urn:eid:").cn("x"),
        certificate().serial(wrong),
        certificate().cn(wrong),
    ] {
        assert!(matches!(bad.identity(), Err(IdentityError::BadEid(_))), "{:?}", bad.0);
    }
    let two = certificate().serial(EID).serial(OTHER);
    assert_eq!(two.identity(), Err(IdentityError::Ambiguous));
}

#[test]
fn names_must_be_printable_and_there() {
    for text in ["sm-sr.example\0.evil", "a\nb", "\u{7f}"] {
        for bad in [certificate().cn(text), certificate().cn("x").ou(text), certificate().dns(text)]
        {
            assert_eq!(bad.identity(), Err(IdentityError::ControlCharacter), "{text:?}");
        }
    }
    assert_eq!(certificate().identity(), Err(IdentityError::Nameless));
    assert_eq!(certificate().cn("").identity(), Err(IdentityError::Nameless));
}

#[test]
fn in_a_decimal_fleet_every_number_is_a_device() {
    let number = |certificate: Certificate| {
        Identity::from_certificate(&certificate.0, &[], NidScheme::Decimal)
    };
    assert_eq!(number(certificate().serial("7")).unwrap().nid.unwrap().get(), 7);
    assert_eq!(number(certificate().cn("42")).unwrap().nid.unwrap().get(), 42);
    assert!(matches!(number(certificate().cn("0")), Err(IdentityError::BadEid(_))));
    assert_eq!(number(certificate().cn("7a")).unwrap().role, Role::Client);
}

#[test]
fn rules_are_spelled_strictly() {
    assert_eq!("san=a=b".parse(), Ok(ServerRule::SubjectAltName("a=b".into())));
    for text in ["", "cn", "cn=", "cn= ", "CN=x", "o=x", "=x"] {
        assert!(text.parse::<ServerRule>().is_err(), "{text:?}");
    }
}

#[test]
fn equality_decides_about_sessions() {
    assert_ne!(Identity::server("a"), Identity::anonymous("a"));
    assert_ne!(device(EID), device(OTHER));
    assert_eq!(device(EID), device(EID));
}

#[test]
fn a_listener_chooses_the_name_and_not_the_role() {
    let named = |from, certificate: &Certificate| {
        Identity::named(from, &certificate.0, &["ou=SM-SR".parse().unwrap()], NidScheme::Eid)
    };
    let mut device = Certificate::default().serial(EID).cn("meter 1");
    device.0.subject = "CN=meter 1".into();
    device.0.serial_hex = "1f".into();
    for (from, name) in [
        (NameFrom::EidOrCommonName, EID),
        (NameFrom::CommonName, "meter 1"),
        (NameFrom::Subject, "CN=meter 1"),
        (NameFrom::Serial, "1f"),
    ] {
        let identity = named(from, &device).unwrap();
        assert_eq!((&*identity.name, identity.role), (name, Role::Device));
        assert_eq!(identity.nid.map(|nid| nid.to_string()).as_deref(), Some(EID));
    }
    assert_eq!(named(NameFrom::AlternativeName, &device), Err(IdentityError::Nameless));
    let mut nameless = Certificate::default();
    nameless.0.alternative_name = "a@b.example".into();
    assert_eq!(named(NameFrom::AlternativeName, &nameless), Ok(Identity::anonymous("a@b.example")));
    let server = Certificate::default().ou("SM-SR").cn("x");
    assert_eq!(named(NameFrom::CommonName, &server), Ok(Identity::server("x")));
    let mut evil = Certificate::default().cn("x");
    evil.0.alternative_name = "a\nb".into();
    assert_eq!(named(NameFrom::CommonName, &evil), Err(IdentityError::ControlCharacter));
}
