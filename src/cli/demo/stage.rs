//! Where the demonstration happens: certificates, a broker, an SM-SR and devices.

use std::fs::DirBuilder;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{io, process};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::cast::{Counts, Seat};
use crate::client::ClientError;
use crate::client::device::{Device, DeviceOptions};
use crate::client::link::LinkOptions;
use crate::client::payload::{EuiccCa, sample_eid};
use crate::client::server::{Server, ServerOptions};
use crate::client::tls::{TlsError, TlsIdentity};
use crate::config::{Admin, Bind, Config, Listener, Rsp, Tls, TlsVersion};
use crate::ids::{Gid, Nid, Timestamp};
use crate::pki::{Authority, Issued, PkiError};
use crate::rsp::{GroupSettings, ServerRule};
use crate::service::{Service, StartError};

const SERVER: &str = "sm-sr.demo";
const HOST: &str = "localhost";
const GROUPS: u32 = 4;
const FIRST_GROUP: u64 = 42;
/// A group that the first devices of the fleet are in besides their own.
pub(super) const GATHERED_GROUP: u64 = 50;
const GATHERED_MAX: u32 = 100;
/// Groups of one flow, and how many devices play in it.
pub(super) const CONSENT_GROUP: u64 = 51;
pub(super) const DOWNLOAD_GROUP: u64 = 52;
pub(super) const PROOF_GROUP: u64 = 53;
pub(super) const RETRY_GROUP: u64 = 54;
const CAST: [(u64, u32); 4] =
    [(CONSENT_GROUP, 8), (DOWNLOAD_GROUP, 2), (PROOF_GROUP, 4), (RETRY_GROUP, 6)];
/// TLS handshakes at one time.
const CONNECTING_MAX: usize = 32;
const PATIENCE: Duration = Duration::from_secs(60);
const METRICS_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why the stage could not be set.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Certificates.
    #[error("certificates: {0}")]
    Pki(#[from] PkiError),
    /// TLS of the clients.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// Temporary files.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// The broker.
    #[error("broker: {0}")]
    Broker(#[from] StartError),
    /// A device or the SM-SR cannot connect.
    #[error("{0}: {1}")]
    Connect(String, ClientError),
    /// A task of ours ended early.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
    /// A setting that no broker works with.
    #[error("{0}: {1}")]
    Setting(&'static str, &'static str),
    /// The broker's metrics cannot be read.
    #[error("metrics: {0}")]
    Metrics(io::Error),
}

/// A group and its members, as indices of [`Stage::devices`].
pub(super) struct Group {
    pub(super) gid: Gid,
    pub(super) members: Vec<usize>,
}

/// Everybody is connected and subscribed.
pub(super) struct Stage {
    pub(super) server: Arc<Server>,
    pub(super) devices: Vec<Arc<Device>>,
    pub(super) groups: Vec<Group>,
    /// Those that come for one flow.
    pub(super) seats: Vec<Seat>,
    pub(super) euicc_ca: EuiccCa,
    pub(super) service: Service,
    pub(super) port: u16,
    admin: SocketAddr,
    talks: bool,
    _files: Files,
}

impl Stage {
    pub(super) async fn set(count: u32, talks: bool, now: Timestamp) -> Result<Self, StageError> {
        let files = Files::new()?;
        let authority = Authority::create(&files.0)?;
        let euicc_ca = EuiccCa::new(now)?;
        let fleet: Vec<Member> = (0..count).map(Member::of_fleet).collect();
        let cast = cast(count);
        let config = files.configure(&authority, &euicc_ca, fleet.iter().chain(&cast))?;
        let service = Service::start(config).await?;
        let port =
            service.addresses().first().and_then(Bind::tcp).map_or(0, |address| address.port());
        let admin = service.admin_address().unwrap_or_else(|| loopback(0));
        let server = start_server(&authority, port, &fleet).await?;
        let devices = start_devices(&authority, port, &fleet, talks).await?;
        let seats = cast.iter().map(|member| {
            let link = link_of(&authority, member.nid, port)?;
            Ok::<_, StageError>(Seat::new(member.nid, member.gids[0], link))
        });
        let seats = seats.collect::<Result<_, _>>()?;
        let members = |index| (index as usize..devices.len()).step_by(GROUPS as usize).collect();
        let group = |index| Group { gid: gid_of(index), members: members(index) };
        let groups = (0..GROUPS).map(group).collect();
        Ok(Self {
            server: Arc::new(server),
            devices,
            groups,
            seats,
            euicc_ca,
            service,
            port,
            admin,
            talks,
            _files: files,
        })
    }

    /// What everybody has seen: first the fleet, then those that come for one flow.
    pub(super) fn counts(&self) -> impl Iterator<Item = Counts> + '_ {
        let fleet = self.devices.iter().map(|device| Counts::of(device));
        fleet.chain(self.seats.iter().map(Seat::counts))
    }

    /// The numbers of all, in the order of their counts.
    pub(super) fn nids(&self) -> impl Iterator<Item = Nid> + '_ {
        let fleet = self.devices.iter().map(|device| device.nid());
        fleet.chain(self.seats.iter().map(|seat| seat.nid))
    }

    /// Those that come for the flow of this group.
    pub(super) fn seats_of(&self, gid: Gid) -> &[Seat] {
        let first = self.seats.iter().position(|seat| seat.gid == gid).unwrap_or_default();
        let count = self.seats.iter().filter(|seat| seat.gid == gid).count();
        &self.seats[first..first + count]
    }

    /// The first devices of the fleet, which are in one more group.
    pub(super) fn gathered(&self) -> &[Arc<Device>] {
        &self.devices[..self.devices.len().min(GATHERED_MAX as usize)]
    }

    /// Changes a group's settings while the broker runs.
    pub(super) fn set_group(&self, gid: Gid, settings: GroupSettings) -> Result<(), StageError> {
        let set = self.service.broker().with_control(|c| c.set_group_settings(gid, settings));
        set.map_err(|(key, why)| StageError::Setting(key, why))
    }

    /// How often the broker has refused something, for one reason or for all (`None`).
    pub(super) async fn refusals(&self, reason: Option<&str>) -> Result<u64, StageError> {
        let label = reason.map(|reason| format!("reason=\"{reason}\"")).unwrap_or_default();
        self.metric("simcast_rsp_refusals_total", &label).await
    }

    /// The sum of a counter's series that have this label; of all, where it is empty.
    pub(super) async fn metric(&self, name: &str, label: &str) -> Result<u64, StageError> {
        let text = self.metrics().await.map_err(StageError::Metrics)?;
        let is_meant = |line: &&str| {
            let series = line.strip_prefix(name);
            series.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        };
        let values = text.lines().filter(is_meant);
        Ok(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
            as u64)
    }

    /// A bar on a terminal; plain lines otherwise.
    pub(super) fn progress(&self, name: &'static str, length: u64) -> ProgressBar {
        progress(self.talks, name, length)
    }

    /// What a bar shows, where there is no terminal to show it on.
    pub(super) fn tell(&self, bar: &ProgressBar, text: &str) {
        if self.talks && bar.is_hidden() {
            println!("{text}");
        }
    }

    pub(super) fn group_of(&self, device: usize) -> &Group {
        &self.groups[device % self.groups.len()]
    }

    pub(super) async fn tear_down(self) {
        for device in &self.devices {
            device.stop().await;
        }
        self.server.stop().await;
        self.service.stop().await;
    }

    async fn metrics(&self) -> io::Result<String> {
        let mut socket = TcpStream::connect(self.admin).await?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin);
        socket.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        socket.take(METRICS_BYTES_MAX).read_to_string(&mut text).await?;
        Ok(text)
    }
}

pub(super) fn progress(talks: bool, name: &'static str, length: u64) -> ProgressBar {
    if !talks {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix:<8} {wide_bar} {pos}/{len} {elapsed}");
    ProgressBar::new(length)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_prefix(name)
}

/// The files that the broker reads, in a directory of our own that goes with this value.
struct Files(PathBuf);

impl Files {
    fn new() -> Result<Self, StageError> {
        let dir = std::env::temp_dir().join(format!("simcast-demo-{}", process::id()));
        // Fails where the directory exists: somebody else may have put it there.
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|error| StageError::File(dir.clone(), error))?;
        Ok(Self(dir))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, StageError> {
        let path = self.0.join(name);
        std::fs::write(&path, text).map_err(|error| StageError::File(path.clone(), error))?;
        Ok(path)
    }

    fn configure<'a>(
        &self,
        authority: &Authority,
        euicc_ca: &EuiccCa,
        devices: impl Iterator<Item = &'a Member>,
    ) -> Result<Config, StageError> {
        authority.issue_broker(&[HOST, "127.0.0.1"])?.save(&self.0, "broker", false)?;
        let header = std::iter::once("nid,gids,labels\n".to_owned());
        let csv: String = header.chain(devices.map(Member::line)).collect();
        let registry = self.write("registry.csv", &csv)?;
        let proof_issuers = vec![self.write("ci.pem", euicc_ca.ci_pem())?];
        let tls = Tls {
            cert: self.0.join("broker.pem"),
            key: self.0.join("broker.key"),
            chain: None,
            client_ca: Some(self.0.join("ca.pem")),
            require_client_cert: None,
            crl: Some(self.0.join("crl.pem")),
            min_version: TlsVersion::default(),
            servers: vec![ServerRule::CommonName(SERVER.to_owned())],
        };
        let listener =
            Listener { allow_anonymous: false, tls: Some(tls), ..Listener::anonymous(loopback(0)) };
        Ok(Config {
            listeners: vec![listener],
            rsp: Rsp { registry: Some(registry), proof_issuers, ..Rsp::default() },
            admin: Admin { bind: Some(loopback(0)), ..Admin::default() },
            ..Config::default()
        })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What cannot be removed stays in the system's directory of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn start_server(
    authority: &Authority,
    port: u16,
    fleet: &[Member],
) -> Result<Server, StageError> {
    let link = link(authority, &authority.issue_server(SERVER)?, port, SERVER)?;
    let mut options = ServerOptions { patience: PATIENCE, ..ServerOptions::default() };
    for gid in fleet.iter().flat_map(|member| &member.gids) {
        *options.group_sizes.entry(*gid).or_default() += 1;
    }
    Server::start(link, options).await.map_err(|e| StageError::Connect(SERVER.into(), e))
}

async fn start_devices(
    authority: &Authority,
    port: u16,
    fleet: &[Member],
    talks: bool,
) -> Result<Vec<Arc<Device>>, StageError> {
    let bar = progress(talks, "connect", fleet.len() as u64);
    let slots = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut starting = JoinSet::new();
    for (index, Member { nid, gids }) in fleet.iter().enumerate() {
        let link = link_of(authority, *nid, port)?;
        let options = DeviceOptions::new(*nid, gids);
        let (nid, slots) = (*nid, slots.clone());
        starting.spawn(async move {
            let _slot = slots.acquire().await;
            let device = Device::start(link, options).await;
            device
                .map(|device| (index, device))
                .map_err(|e| StageError::Connect(nid.to_string(), e))
        });
    }
    let mut devices = Vec::with_capacity(fleet.len());
    while let Some(joined) = starting.join_next().await {
        devices.push(joined??);
        bar.inc(1);
    }
    bar.finish();
    devices.sort_unstable_by_key(|(index, _)| *index);
    Ok(devices.into_iter().map(|(_, device)| Arc::new(device)).collect())
}

/// A device of the registry.
struct Member {
    nid: Nid,
    gids: Vec<Gid>,
}

impl Member {
    fn of_fleet(index: u32) -> Self {
        let more = (index < GATHERED_MAX).then_some(gid(GATHERED_GROUP));
        let gids = std::iter::once(gid_of(index)).chain(more).collect();
        Self { nid: sample_eid(index), gids }
    }

    fn line(&self) -> String {
        let gids: Vec<String> = self.gids.iter().map(Gid::to_string).collect();
        format!("{},{},model=demo\n", self.nid, gids.join(";"))
    }
}

/// Devices with the numbers behind those of the fleet.
fn cast(fleet: u32) -> Vec<Member> {
    let groups = CAST.into_iter().flat_map(|(group, count)| (0..count).map(move |_| gid(group)));
    let member = |(nid, gid)| Member { nid, gids: vec![gid] };
    (fleet..).map(sample_eid).zip(groups).map(member).collect()
}

fn link_of(authority: &Authority, nid: Nid, port: u16) -> Result<LinkOptions, StageError> {
    link(authority, &authority.issue_device(nid)?, port, &nid.to_string())
}

fn link(
    authority: &Authority,
    issued: &Issued,
    port: u16,
    client_id: &str,
) -> Result<LinkOptions, StageError> {
    let identity = TlsIdentity {
        ca_pem: authority.ca_pem().to_owned(),
        cert_and_key_pem: Some((issued.cert_pem.clone(), issued.key_pem.clone())),
    };
    let mut link = LinkOptions::new(HOST, port, client_id);
    link.tls = Some(identity.config()?);
    link.patience = PATIENCE;
    Ok(link)
}

fn gid_of(index: u32) -> Gid {
    gid(FIRST_GROUP + u64::from(index % GROUPS))
}

/// A group of the stage.
pub(super) fn gid(number: u64) -> Gid {
    Gid::new(number).expect("42 and more")
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
