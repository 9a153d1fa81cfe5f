//! Real handshakes between rustls and rustls over a pipe in memory.

use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, date_time_ymd,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::net::certificate::PeerCertificate;

/// A CA, the broker's files and the means to issue client certificates.
struct Rig {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    ca: CertificateDer<'static>,
}

/// A certificate and its key.
struct Client {
    cert: CertificateDer<'static>,
    key: KeyPair,
}

fn ca(name: &str) -> (Issuer<'static, KeyPair>, rcgen::Certificate) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    (Issuer::new(params, key), cert)
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (issuer, ca) = ca("rig");
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let broker = params.signed_by(&key, &issuer).unwrap();
        fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        fs::write(dir.path().join("broker.pem"), broker.pem()).unwrap();
        fs::write(dir.path().join("broker.key"), key.serialize_pem()).unwrap();
        Self { dir, issuer, ca: ca.der().clone() }
    }

    fn tls(&self) -> Tls {
        Tls {
            cert: self.dir.path().join("broker.pem"),
            key: self.dir.path().join("broker.key"),
            chain: None,
            client_ca: Some(self.dir.path().join("ca.pem")),
            require_client_cert: None,
            crl: None,
            min_version: TlsVersion::V1_2,
            servers: Vec::new(),
        }
    }

    fn client(&self, change: impl FnOnce(&mut CertificateParams)) -> Client {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "device");
        params.serial_number = Some(7.into());
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Client { cert: cert.der().clone(), key }
    }

    fn revoke(&self, serial: u64) -> PathBuf {
        let revoked = RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.dir.path().join("crl.pem");
        fs::write(&path, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        path
    }

    fn client_config(&self, client: Option<&Client>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match client {
            None => builder.with_no_client_auth(),
            Some(Client { cert, key }) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![cert.clone()], key).unwrap()
            }
        }
    }
}

/// What the server saw: the names of the client, the kind of handshake, the ALPN protocol.
type Seen = Result<(Option<PeerCertificate>, HandshakeKind, Option<Vec<u8>>), TlsRejection>;

/// One connection: handshake, then a byte each way so that the client gets its ticket.
async fn handshake(server: &ServerTls, client: &Arc<ClientConfig>) -> Seen {
    let (far, near) = duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(Arc::clone(&server.config));
    let connector = TlsConnector::from(Arc::clone(client));
    let (seen, _) = tokio::join!(serve(acceptor, near), connect(connector, far));
    seen
}

async fn serve(acceptor: TlsAcceptor, near: DuplexStream) -> Seen {
    let mut stream = acceptor.accept(near).await.map_err(|e| rejection(&e))?;
    let tls = stream.get_ref().1;
    let peer = tls.peer_certificates().map(|chain| PeerCertificate::read(&chain[0]).unwrap());
    let seen = (peer, tls.handshake_kind().unwrap(), tls.alpn_protocol().map(<[u8]>::to_vec));
    stream.write_all(b"x").await.unwrap();
    let _ = stream.read_u8().await;
    Ok(seen)
}

async fn connect(connector: TlsConnector, far: DuplexStream) -> io::Result<()> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, far).await?;
    let _ = stream.read_u8().await?;
    stream.write_all(b"y").await?;
    stream.shutdown().await
}

async fn seen(rig: &Rig, tls: &Tls, client: Option<&Client>) -> Seen {
    let server = ServerTls::load(tls, Protocol::Mqtt).unwrap();
    handshake(&server, &Arc::new(rig.client_config(client))).await
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_the_session_resumes() {
    let rig = Rig::new();
    let server = ServerTls::load(&rig.tls(), Protocol::Mqtt).unwrap();
    let device = rig.client(|_| {});
    let client = Arc::new(rig.client_config(Some(&device)));
    let (peer, kind, alpn) = handshake(&server, &client).await.unwrap();
    let peer = peer.unwrap();
    assert_eq!(peer.facts.common_names, ["device"]);
    assert_eq!((peer.facts.serial_hex.as_str(), alpn), ("7", None));
    assert!(matches!(kind, HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest));

    let (again, kind, _) = handshake(&server, &client).await.unwrap();
    assert_eq!(kind, HandshakeKind::Resumed);
    assert_eq!(again, Some(peer), "a resumed session has the identity of its first handshake");

    // case T13: new files, new cache
    let (_, kind, _) =
        handshake(&ServerTls::load(&rig.tls(), Protocol::Mqtt).unwrap(), &client).await.unwrap();
    assert_ne!(kind, HandshakeKind::Resumed);
}

#[tokio::test]
async fn each_bad_client_has_its_reason() {
    // case T9, T10
    let rig = Rig::new();
    let tls = rig.tls();
    assert_eq!(seen(&rig, &tls, None).await.unwrap_err(), TlsRejection::NoCertificate);

    let expired = rig.client(|params| params.not_after = date_time_ymd(2020, 1, 1));
    assert_eq!(seen(&rig, &tls, Some(&expired)).await.unwrap_err(), TlsRejection::Expired);
    let future = rig.client(|params| params.not_before = date_time_ymd(2095, 1, 1));
    assert_eq!(seen(&rig, &tls, Some(&future)).await.unwrap_err(), TlsRejection::Expired);

    let foreign = Rig { issuer: ca("another").0, ..Rig::new() }.client(|_| {});
    assert_eq!(seen(&rig, &tls, Some(&foreign)).await.unwrap_err(), TlsRejection::UnknownCa);

    let for_servers = rig.client(|params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let reason = seen(&rig, &tls, Some(&for_servers)).await.unwrap_err();
    assert_eq!(reason, TlsRejection::BadCertificate);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_its_neighbour_is_not() {
    let rig = Rig::new();
    let tls = Tls { crl: Some(rig.revoke(7)), ..rig.tls() };
    let revoked = rig.client(|_| {});
    assert_eq!(seen(&rig, &tls, Some(&revoked)).await.unwrap_err(), TlsRejection::Revoked);
    let valid = rig.client(|params| params.serial_number = Some(8.into()));
    assert!(seen(&rig, &tls, Some(&valid)).await.is_ok());
}

#[tokio::test]
async fn a_certificate_can_be_optional_and_is_still_checked() {
    let rig = Rig::new();
    let tls = Tls { require_client_cert: Some(false), ..rig.tls() };
    assert_eq!(seen(&rig, &tls, None).await.unwrap().0, None);
    let expired = rig.client(|params| params.not_after = date_time_ymd(2020, 1, 1));
    assert_eq!(seen(&rig, &tls, Some(&expired)).await.unwrap_err(), TlsRejection::Expired);
}

#[tokio::test]
async fn alpn_is_mqtt_or_nothing() {
    // case T15
    let rig = Rig::new();
    let server = ServerTls::load(&Tls { client_ca: None, ..rig.tls() }, Protocol::Mqtt).unwrap();
    for (offered, expected) in [
        (vec![], Ok(None)),
        (vec!["h2", "mqtt"], Ok(Some("mqtt"))),
        (vec!["x-amzn-mqtt-ca"], Ok(Some("x-amzn-mqtt-ca"))),
        (vec!["h2"], Err(TlsRejection::Protocol)),
    ] {
        let mut client = rig.client_config(None);
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let alpn = handshake(&server, &Arc::new(client)).await.map(|(_, _, alpn)| alpn);
        assert_eq!(alpn, expected.map(|name| name.map(|name| name.as_bytes().to_vec())));
    }
}

#[tokio::test]
async fn the_oldest_version_is_a_setting() {
    // case T15
    let rig = Rig::new();
    for (min_version, accepted) in [(TlsVersion::V1_2, true), (TlsVersion::V1_3, false)] {
        let server =
            ServerTls::load(&Tls { min_version, client_ca: None, ..rig.tls() }, Protocol::Mqtt)
                .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(rig.ca.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        assert_eq!(handshake(&server, &Arc::new(client)).await.is_ok(), accepted);
    }
}

#[tokio::test]
async fn plain_mqtt_and_http_are_not_tls() {
    // case P30
    let rig = Rig::new();
    let server = ServerTls::load(&rig.tls(), Protocol::Mqtt).unwrap();
    for hello in [&b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let (mut far, near) = duplex(1024);
        far.write_all(hello).await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::clone(&server.config));
        let error = acceptor.accept(near).await.unwrap_err();
        assert_eq!(rejection(&error), TlsRejection::NotTls, "{error}");
    }
}

#[tokio::test]
async fn a_hello_in_single_bytes_is_fine() {
    // case T16: each byte arrives on its own
    let rig = Rig::new();
    let server = ServerTls::load(&Tls { client_ca: None, ..rig.tls() }, Protocol::Mqtt).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(rig.client_config(None)), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let (mut far, near) = duplex(1);
    let acceptor = TlsAcceptor::from(Arc::clone(&server.config));
    let server = tokio::spawn(async move { acceptor.accept(near).await });
    far.write_all(&hello).await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), 0x16, "a handshake record answers");
    drop(far);
    assert_eq!(rejection(&server.await.unwrap().unwrap_err()), TlsRejection::Io);
}

#[test]
fn errors_name_the_file() {
    // case T6
    let rig = Rig::new();
    let path = |name: &str| rig.dir.path().join(name);
    let message = |tls: &Tls| ServerTls::load(tls, Protocol::Mqtt).unwrap_err().to_string();

    fs::write(path("other.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let expected = format!(
        "{} is not the key of {}",
        path("other.key").display(),
        path("broker.pem").display()
    );
    assert_eq!(message(&Tls { key: path("other.key"), ..rig.tls() }), expected);

    let swapped = Tls { cert: path("broker.key"), ..rig.tls() };
    assert!(message(&swapped).ends_with("broker.key: there is no certificate in it"));
    let swapped = Tls { key: path("broker.pem"), ..rig.tls() };
    assert!(message(&swapped).ends_with("broker.pem: there is no private key in it"));
    let crl = Tls { crl: Some(path("ca.pem")), ..rig.tls() };
    assert!(message(&crl).ends_with("ca.pem: there is no revocation list in it"));
    let absent = Tls { client_ca: Some(path("absent.pem")), ..rig.tls() };
    assert!(message(&absent).contains("absent.pem: "), "{}", message(&absent));

    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(path("garbage.pem"), garbage).unwrap();
    let garbage = Tls { client_ca: Some(path("garbage.pem")), ..rig.tls() };
    assert!(message(&garbage).ends_with("garbage.pem: not a DER certificate"));
}

#[test]
fn ends_of_validity_are_known() {
    let rig = Rig::new();
    let tls = ServerTls::load(&rig.tls(), Protocol::Mqtt).unwrap();
    let far_future = date_time_ymd(4096, 1, 1).unix_timestamp();
    assert_eq!(tls.cert_not_after_unix_secs, far_future);
    assert_eq!(tls.client_ca_not_after_unix_secs, Some(far_future));
}

#[tokio::test]
async fn a_chain_is_completed_from_the_certificates_at_hand() {
    let rig = Rig::new();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "between");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let between_key = KeyPair::generate().unwrap();
    let between = params.signed_by(&between_key, &rig.issuer).unwrap();
    let issuer = Issuer::new(params, between_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let path = |name: &str| rig.dir.path().join(name);
    fs::write(path("leaf.pem"), leaf.pem()).unwrap();
    fs::write(path("leaf.key"), key.serialize_pem()).unwrap();
    let root = fs::read_to_string(path("ca.pem")).unwrap();
    fs::write(path("chain.pem"), root + &between.pem()).unwrap();
    let alone = Tls { cert: path("leaf.pem"), key: path("leaf.key"), client_ca: None, ..rig.tls() };
    let client = Arc::new(rig.client_config(None));
    let server = ServerTls::load(&alone, Protocol::Mqtt).unwrap();
    assert!(handshake(&server, &client).await.is_err(), "the client knows the root alone");
    let with_chain = Tls { chain: Some(path("chain.pem")), ..alone };
    let server = ServerTls::load(&with_chain, Protocol::Mqtt).unwrap();
    assert!(handshake(&server, &client).await.is_ok());
}
