//! The development CA: what it issues is what TLS peers accept, and what it revokes they
//! refuse.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use simcast::ids::{Nid, NidScheme};
use simcast::pki::{Authority, Issued, LeafTemplate, PkiError};
use time::{Duration, OffsetDateTime};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_X509_SERIALNUMBER;
use x509_parser::pem::Pem;

const EID: &str = "89049032123451234512345678901235";

fn eid() -> Nid {
    Nid::parse(EID, NidScheme::Eid).unwrap()
}

fn pem(text: &str) -> Pem {
    Pem::iter_from_buffer(text.as_bytes()).next().unwrap().unwrap()
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap()).unwrap();
    Arc::new(roots)
}

fn chain(issued: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let cert = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    (vec![cert], key)
}

/// A handshake of both sides, each verifying the other. `Err` says what the broker's side
/// disliked, or else the client's.
async fn handshake(
    authority: &Authority,
    broker: &Issued,
    client: &Issued,
    host: &str,
    crl: Option<&str>,
) -> Result<(), String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut verifier =
        WebPkiClientVerifier::builder_with_provider(roots(authority), provider.clone());
    if let Some(crl) = crl {
        let crl = CertificateRevocationListDer::from_pem_slice(crl.as_bytes()).unwrap();
        verifier = verifier.with_crls([crl]).enforce_revocation_expiration();
    }
    let (cert, key) = chain(broker);
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(cert, key)
        .unwrap();
    let (cert, key) = chain(client);
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(authority))
        .with_client_auth_cert(cert, key)
        .unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let accept = TlsAcceptor::from(Arc::new(server)).accept(far);
    let connect = TlsConnector::from(Arc::new(client)).connect(name, near);
    let (accepted, connected) = tokio::join!(accept, connect);
    accepted.map_err(|error| error.to_string())?;
    connected.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_broker_and_its_clients_accept_each_other() {
    let ca = Authority::in_memory().unwrap();
    let broker = ca.issue_broker(&["broker.example", "127.0.0.1", "::1"]).unwrap();
    for client in [ca.issue_device(eid()).unwrap(), ca.issue_server("sm-sr.example").unwrap()] {
        for host in ["broker.example", "127.0.0.1", "::1"] {
            handshake(&ca, &broker, &client, host, None).await.unwrap();
        }
        assert!(handshake(&ca, &broker, &client, "other.example", None).await.is_err());
    }
}

#[tokio::test]
async fn a_certificate_serves_its_own_side_only() {
    let ca = Authority::in_memory().unwrap();
    let broker = ca.issue_broker(&["localhost"]).unwrap();
    let device = ca.issue_device(eid()).unwrap();
    let error = handshake(&ca, &broker, &broker, "localhost", None).await.unwrap_err();
    assert!(error.contains("extended key usage"), "{error}");
    assert!(handshake(&ca, &device, &device, "localhost", None).await.is_err());
}

#[tokio::test]
async fn a_stranger_and_an_expired_device_are_refused() {
    let ca = Authority::in_memory().unwrap();
    let broker = ca.issue_broker(&["localhost"]).unwrap();
    let stranger = Authority::in_memory().unwrap().issue_device(eid()).unwrap();
    assert!(handshake(&ca, &broker, &stranger, "localhost", None).await.is_err());
    let expired = LeafTemplate {
        not_after: OffsetDateTime::now_utc() - Duration::MINUTE,
        ..LeafTemplate::device(eid())
    };
    let expired = ca.issue(&expired).unwrap();
    let error = handshake(&ca, &broker, &expired, "localhost", None).await.unwrap_err();
    assert!(error.contains("expired"), "{error}");
}

#[tokio::test]
async fn a_revoked_device_is_refused_and_its_neighbour_is_not() {
    let mut ca = Authority::in_memory().unwrap();
    let broker = ca.issue_broker(&["localhost"]).unwrap();
    let (stolen, kept) = (ca.issue_device(eid()).unwrap(), ca.issue_device(eid()).unwrap());
    let before = ca.write_crl().unwrap();
    handshake(&ca, &broker, &stolen, "localhost", Some(&before)).await.unwrap();
    let after = ca.revoke(&stolen.cert_pem).unwrap();
    let error = handshake(&ca, &broker, &stolen, "localhost", Some(&after)).await.unwrap_err();
    assert!(error.contains("Revoked"), "{error}");
    handshake(&ca, &broker, &kept, "localhost", Some(&after)).await.unwrap();
}

#[test]
fn a_device_carries_its_eid_in_three_places() {
    let ca = Authority::in_memory().unwrap();
    let block = pem(&ca.issue_device(eid()).unwrap().cert_pem);
    let cert = block.parse_x509().unwrap();
    assert_eq!(cert.subject().iter_common_name().next().unwrap().as_str().unwrap(), EID);
    let serial_number = cert.subject().iter_by_oid(&OID_X509_SERIALNUMBER).next().unwrap();
    assert_eq!(serial_number.as_str().unwrap(), EID);
    let san = cert.subject_alternative_name().unwrap().unwrap();
    let uri = format!("urn:eid:{EID}");
    assert_eq!(san.value.general_names, [GeneralName::URI(&uri)]);
    assert!(!cert.is_ca());
    let usage = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert!(cert.key_usage().unwrap().unwrap().value.digital_signature());
    assert_eq!(cert.tbs_certificate.serial.to_bytes_be().len(), 16);
    assert!(cert.validity().is_valid());
}

#[test]
fn the_root_signs_leaves_and_lists_and_nothing_else() {
    let ca = Authority::in_memory().unwrap();
    let block = pem(ca.ca_pem());
    let cert = block.parse_x509().unwrap();
    let constraints = cert.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = cert.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    let days = cert.validity().time_to_expiration().unwrap().whole_days();
    assert!((3640..=3650).contains(&days), "{days}");
}

#[test]
fn keys_are_private_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::create(dir.path()).unwrap();
    let issued = ca.issue_device(eid()).unwrap();
    issued.save(dir.path(), EID, false).unwrap();
    for key in ["ca.key".to_owned(), format!("{EID}.key")] {
        let mode = fs::metadata(dir.path().join(&key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let key = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let (ca_key, device_key) = (key("ca.key"), key(&format!("{EID}.key")));
    assert!(matches!(Authority::create(dir.path()), Err(PkiError::Exists(_))));
    let again = ca.issue_device(eid()).unwrap();
    assert!(matches!(again.save(dir.path(), EID, false), Err(PkiError::Exists(_))));
    assert_eq!((ca_key.clone(), device_key.clone()), (key("ca.key"), key(&format!("{EID}.key"))));
    again.save(dir.path(), EID, true).unwrap();
    Authority::replace(dir.path()).unwrap();
    assert_ne!(ca_key, key("ca.key"));
    assert_ne!(device_key, key(&format!("{EID}.key")));
}

fn crl_state(dir: &Path) -> (u64, usize) {
    let text = fs::read_to_string(dir.join("crl.pem")).unwrap();
    let block = pem(&text);
    let (_, crl) = x509_parser::parse_x509_crl(&block.contents).unwrap();
    let number = u64::try_from(crl.crl_number().unwrap()).unwrap();
    (number, crl.iter_revoked_certificates().count())
}

#[test]
fn the_list_of_revoked_certificates_grows_and_its_number_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Authority::create(dir.path()).unwrap();
    let (one, two) = (first.issue_device(eid()).unwrap(), first.issue_server("s").unwrap());
    let (number, revoked) = crl_state(dir.path());
    assert_eq!(revoked, 0);
    // Two processes: neither may lose what the other has revoked.
    let mut second = Authority::open(dir.path()).unwrap();
    first.revoke(&one.cert_pem).unwrap();
    second.revoke(&two.cert_pem).unwrap();
    second.revoke(&two.cert_pem).unwrap();
    let (later, revoked) = crl_state(dir.path());
    assert_eq!(revoked, 2);
    assert!(later >= number + 3, "{later} after {number}");
    let stranger = Authority::in_memory().unwrap().issue_device(eid()).unwrap();
    assert!(matches!(first.revoke(&stranger.cert_pem), Err(PkiError::NotOurs)));
    assert!(matches!(first.revoke("no certificate"), Err(PkiError::NotACertificate)));
}

#[test]
fn a_key_of_another_authority_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Authority::open(dir.path()), Err(PkiError::NoAuthority(_))));
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    Authority::create(&a).unwrap();
    Authority::create(&b).unwrap();
    fs::copy(b.join("ca.key"), a.join("ca.key")).unwrap();
    assert!(matches!(Authority::open(&a), Err(PkiError::KeyMismatch)));
}
