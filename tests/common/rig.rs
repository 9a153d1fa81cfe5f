//! A broker of one's own: certificates, registry, a plain port, a port with mutual TLS, metrics.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use simcast::config::{Admin, Config, Listener, Rsp, Server, Tls, TlsVersion};
use simcast::ids::Nid;
use simcast::pki::{Authority, Issued, LeafTemplate};
use simcast::rsp::ServerRule;
use simcast::service::Service;
use simcast::store::RealDisk;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Client, Denied, Dial, in_time, nid};

/// What the registry of every rig knows: the running number of each device and its groups.
pub const FLEET: [(u128, &str); 7] =
    [(1, "7"), (2, "7"), (3, "7"), (4, "8"), (5, "7;8"), (6, ""), (10, "9")];

/// A certificate of a registered kind that stands in no registry.
pub const STRANGER: u128 = 99;

/// A running broker.
pub struct Rig {
    /// The broker.
    pub service: Service,
    /// Who issued its certificates.
    pub authority: Authority,
    /// The port without TLS, for anonymous clients.
    pub plain: SocketAddr,
    /// The port with mutual TLS.
    pub tls: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
    /// Where its files are; its registry is `registry.csv`.
    pub dir: TempDir,
}

impl Rig {
    /// With the default configuration.
    pub async fn start() -> Self {
        Self::with(|_config| {}).await
    }

    /// With a changed configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut authority = Authority::create(dir.path()).unwrap();
        authority.write_crl().unwrap();
        Self::with_authority(dir, authority, change).await
    }

    /// With one more listener, a copy of the plain one with changes; its address is
    /// [`Rig::extra`].
    pub async fn with_listener(change: impl FnOnce(&mut Listener)) -> Self {
        Self::with(|config| add_copy(config, 0, change)).await
    }

    /// The same with a copy of the listener with mutual TLS.
    pub async fn with_secure_listener(change: impl FnOnce(&mut Listener)) -> Self {
        Self::with(|config| add_copy(config, 1, change)).await
    }

    /// The address of the listener that was added first.
    pub fn extra(&self) -> SocketAddr {
        self.service.addresses()[2].tcp().unwrap()
    }

    /// With an authority that has revoked somebody already.
    pub async fn with_authority(
        dir: TempDir,
        authority: Authority,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let broker = authority.issue_broker(&["localhost"]).unwrap();
        broker.save(dir.path(), "broker", true).unwrap();
        let mut config = config(&dir);
        change(&mut config);
        config.validate().expect("a valid configuration");
        let service = Service::start(config).await.expect("a broker");
        let [plain, tls] = [0, 1].map(|at| service.addresses()[at].tcp().unwrap());
        let admin = service.admin_address().unwrap();
        Self { service, authority, plain, tls, admin, dir }
    }

    /// A broker that writes down what it must not lose, beside its other files.
    pub async fn durable() -> Self {
        Self::with(durable).await
    }

    /// The broker is gone as if it had crashed; another one goes on with what it has written down.
    pub async fn crash(self) -> Self {
        self.crash_and(|_config| {}).await
    }

    /// The same, with a changed configuration.
    pub async fn crash_and(self, change: impl FnOnce(&mut Config)) -> Self {
        let Self { service, authority, dir, .. } = self;
        drop(service);
        // It may be in the midst of writing.
        let folder = dir.path().join("store");
        let is_free = async {
            while RealDisk::lock(&folder).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        in_time("the disk", is_free).await;
        let change = |config: &mut Config| {
            durable(config);
            change(config);
        };
        Self::with_authority(dir, authority, change).await
    }

    /// An anonymous client.
    pub async fn client(&self, dial: Dial) -> Client {
        self.try_client(dial).await.expect("a connection")
    }

    /// An anonymous client that may be refused.
    pub async fn try_client(&self, dial: Dial) -> Result<Client, Denied> {
        Client::open(self.tcp(self.plain).await, &dial).await
    }

    /// The device with this running number.
    pub async fn device(&self, number: u128, dial: Dial) -> Client {
        self.try_device(number, dial).await.expect("a connection")
    }

    /// The device with this running number, which may be refused.
    pub async fn try_device(&self, number: u128, dial: Dial) -> Result<Client, Denied> {
        let issued = self.authority.issue_device(nid(number)).unwrap();
        self.with_certificate(&issued, dial).await
    }

    /// A device that reads its mail with QoS 1.
    pub async fn reader(&self, number: u128, dial: Dial) -> Client {
        let mut device = self.device(number, dial).await;
        let qos = simcast::mqtt::QoS::AtLeastOnce;
        assert!(!device.subscribe(super::TO_EUICC, qos).await.is_error());
        device
    }

    /// The SM-SR.
    pub async fn server(&self, dial: Dial) -> Client {
        self.server_named("sm-sr.test", dial).await
    }

    /// The SM-SR of this name, which [`servers`] has told the broker.
    pub async fn server_named(&self, name: &str, dial: Dial) -> Client {
        let issued = self.authority.issue_server(name).unwrap();
        self.with_certificate(&issued, dial).await.expect("a connection")
    }

    /// Whoever this certificate makes one.
    pub async fn with_certificate(&self, issued: &Issued, dial: Dial) -> Result<Client, Denied> {
        let stream = self.handshake(Some(issued)).await.map_err(|_error| Denied::Closed)?;
        Client::open(stream, &dial).await
    }

    /// Whoever a certificate with these contents makes one.
    pub async fn with_leaf(&self, leaf: &LeafTemplate, dial: Dial) -> Result<Client, Denied> {
        self.with_certificate(&self.authority.issue(leaf).unwrap(), dial).await
    }

    /// A TLS handshake on the port with mutual TLS.
    pub async fn handshake(
        &self,
        issued: Option<&Issued>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.handshake_at(self.tls, issued).await
    }

    /// A TLS handshake on any port.
    pub async fn handshake_at(
        &self,
        address: SocketAddr,
        issued: Option<&Issued>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.handshake_over(self.tcp(address).await, issued).await
    }

    /// A TLS handshake over a connected socket.
    pub async fn handshake_over(
        &self,
        stream: TcpStream,
        issued: Option<&Issued>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let own = issued.map(|issued| (&*issued.cert_pem, &*issued.key_pem));
        let config = client_tls(self.authority.ca_pem(), own);
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = TlsConnector::from(Arc::new(config));
        in_time("a TLS handshake", connecting.connect(name, stream)).await
    }

    /// A socket without a word.
    pub async fn tcp(&self, address: SocketAddr) -> TcpStream {
        let stream = in_time("a TCP connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// All metrics, over HTTP.
    pub async fn metrics(&self) -> String {
        let mut stream = self.tcp(self.admin).await;
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        in_time("metrics", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer
    }

    /// The sum of all series that begin like this, such as `simcast_connects_total{`.
    pub async fn counter(&self, series: &str) -> u64 {
        sum(&self.metrics().await, series)
    }

    /// Waits until a series has this value.
    pub async fn until_counter(&self, series: &str, value: u64) {
        let reached = async {
            while self.counter(series).await != value {
                // Counters are to be asked; they call nobody.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        in_time(series, reached).await;
    }

    /// How often the control unit has refused for this reason.
    pub async fn refusals(&self, name: &str) -> u64 {
        self.counter(&format!("simcast_rsp_refusals_total{{reason=\"{name}\"}}")).await
    }
}

/// The sum of all series of a scrape that begin like this.
pub fn sum(metrics: &str, series: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(series));
    lines.map(|line| line.rsplit(' ').next().unwrap().trim().parse::<u64>().unwrap()).sum()
}

/// One line of a registry file.
pub fn registry_line(device: Nid, gids: &str) -> String {
    format!("{device},{gids},model=test\n")
}

/// SM-SR servers with the groups that are their scopes; without any, every device is.
pub fn servers(config: &mut Config, scopes: &[(&str, &[u64])]) {
    for (name, groups) in scopes {
        let tls = config.listeners[1].tls.as_mut().unwrap();
        tls.servers.push(ServerRule::CommonName((*name).to_owned()));
        if !groups.is_empty() {
            let groups = groups.iter().copied().map(super::gid).collect();
            config.rsp.servers.insert((*name).to_owned(), Server { groups });
        }
    }
}

fn durable(config: &mut Config) {
    let registry = config.rsp.registry.as_ref();
    config.store.path = registry.map(|registry| registry.with_file_name("store"));
}

fn add_copy(config: &mut Config, of: usize, change: impl FnOnce(&mut Listener)) {
    let mut listener = config.listeners[of].clone();
    change(&mut listener);
    config.listeners.push(listener);
}

fn config(dir: &TempDir) -> Config {
    let path = |name: &str| dir.path().join(name);
    let lines = FLEET.iter().map(|(number, gids)| registry_line(nid(*number), gids));
    let registry: String = lines.collect();
    std::fs::write(path("registry.csv"), format!("nid,gids,labels\n{registry}")).unwrap();
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let tls = Tls {
        cert: path("broker.pem"),
        key: path("broker.key"),
        chain: None,
        client_ca: Some(path("ca.pem")),
        require_client_cert: None,
        crl: Some(path("crl.pem")),
        min_version: TlsVersion::default(),
        servers: vec![ServerRule::CommonName("sm-sr.test".to_owned())],
    };
    let secure =
        Listener { allow_anonymous: false, tls: Some(tls), ..Listener::anonymous(any_port) };
    Config {
        listeners: vec![Listener::anonymous(any_port), secure],
        admin: Admin { bind: Some(any_port), ..Admin::default() },
        rsp: Rsp { registry: Some(path("registry.csv")), ..Rsp::default() },
        ..Config::default()
    }
}

/// What a TLS client needs that trusts this authority, with its own certificate and key if any.
pub fn client_tls(ca_pem: &str, own: Option<(&str, &str)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(ca_pem)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match own {
        Some((cert_pem, key_pem)) => {
            let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate(cert_pem)], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    }
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}
