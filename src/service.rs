//! A whole broker, made from a configuration: wires `broker`, `net` and `admin` together.
//!
//! `simcast serve` runs one; so do the demo and the tests, in their own process, and so may any
//! other program: see [`embedded`] for one that is the SM-SR itself.

mod acl;
mod admin;
pub mod embedded;
mod files;
mod issuers;
mod passwords;
mod store;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

pub use admin::TokenFileError;
pub use files::FileError;
pub use issuers::trusted_issuers;

use crate::admin::{Access, Phase, Readiness};
use crate::audit::{AuditError, AuditLog};
use crate::broker::{
    Broker, BrokerOptions, NotReplaced, OutboxLimits, Restored, SWEEP_INTERVAL, SysTree,
};
use crate::clock::Clock;
use crate::config::{
    Bind, Config, DropOrDisconnect, KeepOrRefuse, Limits, Listener, Mqtt, Overlapping, Rsp, Stamp,
    WarnOrDisconnect,
};
use crate::metrics::{Certificate, Metrics};
use crate::net::{self, ListenError, Port, Shared, Stop, tls::TlsError};
use crate::route::RetainedLimits;
use crate::rsp::proof::TrustedIssuers;
use crate::rsp::{
    ControlOptions, ControlUnit, ImportReport, InboxLimits, Refusal, RspLimits, TopicNames,
};
use crate::session::{SessionLimits, SessionRules, Untold};
use crate::store::{DiskStore, Store, StoreError};
use acl::AclFiles;
use passwords::PasswordFiles;

/// A broker at work.
pub struct Service {
    broker: Arc<Broker>,
    config: Config,
    passwords: PasswordFiles,
    acls: AclFiles,
    readiness: Arc<Readiness>,
    access: Arc<Access>,
    addresses: Vec<Bind>,
    admin_address: Option<SocketAddr>,
    /// Until it is stopped.
    stop: Option<Stop>,
    tasks: Vec<JoinHandle<()>>,
    store: Option<Arc<DiskStore>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The admin address.
    #[error("cannot listen on {0} for admin: {1}")]
    Admin(SocketAddr, io::Error),
    /// Its TLS files are not in order.
    #[error("admin: {0}")]
    AdminTls(TlsError),
    /// A file with a token for it.
    #[error(transparent)]
    Token(#[from] TokenFileError),
    /// The registry file.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file of users, of rights or of CI certificates.
    #[error(transparent)]
    File(#[from] FileError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no random numbers.
    #[error("no random numbers from the system")]
    NoRandom,
}

/// Why a registry file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It cannot be read.
    #[error("registry {}: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// It has broken lines; a broker does not start with half a registry.
    #[error(
        "registry {}: {} broken lines; the first: {}",
        path.display(),
        report.rejected,
        first(report)
    )]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Its broken lines.
        report: ImportReport,
    },
    /// Nothing is in it, where devices were before: somebody may be writing it, and mail goes with
    /// its device.
    #[error("registry {}: is empty; leave the header line to have no devices", .0.display())]
    Emptied(PathBuf),
}

fn first(report: &ImportReport) -> String {
    report.errors.first().map(ToString::to_string).unwrap_or_default()
}

impl Service {
    /// Starts a broker: when this returns, all its sockets are listening.
    ///
    /// # Errors
    /// [`StartError`]; then nothing is left running.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let refusals: Vec<&'static str> = Refusal::ALL.iter().map(|r| r.name()).collect();
        let names: Vec<String> = config.listeners.iter().map(|l| l.bind.to_string()).collect();
        let metrics = Arc::new(Metrics::new(&names, &refusals));
        let control = control_unit(&config.rsp)?;
        let passwords = PasswordFiles::load(&config)?;
        let acls = AclFiles::load(&config)?;
        let trusted_issuers = trusted_issuers(&config.rsp.proof_issuers)?;
        let access = admin::access(&config.admin)?;
        let options = BrokerOptions { issuers: trusted_issuers, ..broker_options(&config) };
        let clock = Clock::start();
        let audit = AuditLog::open(&config.audit, clock)?;
        let opened = open_store(&config, &metrics).await?;
        let writes = opened.as_ref().map(|opened| Arc::clone(&opened.store) as Arc<dyn Store>);
        let broker = Broker::new(options, control, clock, Arc::clone(&metrics), audit, writes);
        let broker = Arc::new(broker);
        let store = opened.map(|opened| restore(opened, &broker, &acls));
        // What ended meanwhile is over before anybody can come back to it.
        broker.sweep().await;
        let (shared, stop) = Shared::new(Arc::clone(&broker), &config);
        let mut ports = Vec::new();
        for (index, listener) in config.listeners.iter().enumerate() {
            let (users, acl) = (passwords.of_listener(index), acls.of_listener(index));
            let access = net::Access { users, acl };
            ports.push(Port::open(shared.clone(), index, listener, access)?);
        }
        drop(shared);
        note_certificates(&metrics, &ports);
        let addresses = ports.iter().zip(&config.listeners);
        let addresses = addresses.map(|(port, l)| bound(port, l)).collect();
        let readiness = Arc::new(Readiness::default());
        let mut tasks = Vec::new();
        let admin_address = match config.admin.bind {
            Some(bind) => {
                let (address, task) =
                    admin::start(bind, &config.admin, &broker, &readiness, &access).await?;
                tasks.push(task);
                Some(address)
            }
            None => None,
        };
        if let Some(task) = sys_tree(&broker, config.sys.interval) {
            tasks.push(task);
        }
        tasks.extend(ports.into_iter().map(|port| tokio::spawn(port.run())));
        tasks.push(tokio::spawn(sweep(Arc::clone(&broker))));
        tasks.push(tokio::spawn(send_when_due(Arc::clone(&broker))));
        readiness.set(Phase::Ready);
        Ok(Self {
            broker,
            config,
            passwords,
            acls,
            readiness,
            access,
            addresses,
            admin_address,
            stop: Some(stop),
            tasks,
            store,
        })
    }

    /// Where it listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[Bind] {
        &self.addresses
    }

    /// Where health, metrics and the API are served.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The broker itself.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The certificate issuers whose eUICCs can prove that they have deleted a profile.
    #[must_use]
    pub fn trusted_issuers(&self) -> &TrustedIssuers {
        &self.broker.options().issuers
    }

    /// Reads the registry file again and puts it in place of what is known. A file with broken
    /// lines changes nothing.
    ///
    /// # Errors
    /// [`RegistryError`] says what is wrong with the file.
    pub fn reload_registry(&self) -> Result<Option<ImportReport>, RegistryError> {
        let Some(path) = &self.config.rsp.registry else { return Ok(None) };
        let csv = read_registry(path)?;
        match self.broker.reload_registry(RELOAD, &csv) {
            Ok(report) => Ok(Some(report)),
            Err(NotReplaced::Empty) => Err(RegistryError::Emptied(path.clone())),
            Err(NotReplaced::Broken(report)) => {
                Err(RegistryError::Broken { path: path.clone(), report })
            }
        }
    }

    /// Reads the password files again and puts them in place of what is known; clients whose
    /// password has changed, or whose user is gone, have to go. Files with broken lines change
    /// nothing. Gives the number of files.
    ///
    /// # Errors
    /// [`FileError`] says what is wrong, and in which line.
    pub fn reload_passwords(&self) -> Result<usize, FileError> {
        self.passwords.reload(&self.broker)
    }

    /// Reads the ACL files again, all or none: a broken, missing or emptied one leaves all rights
    /// as they were. When this returns, nothing is sent any more that is no longer permitted. Gives
    /// the number of files.
    ///
    /// # Errors
    /// [`FileError`] says which lines of which file are wrong.
    pub fn reload_acls(&self) -> Result<usize, FileError> {
        self.acls.reload(&self.broker)
    }

    /// Reads the files with the tokens of the API again; whoever reads events with an old one has
    /// to come again. A file without a token changes nothing. Gives the number of files.
    ///
    /// # Errors
    /// [`TokenFileError`].
    pub fn reload_tokens(&self) -> Result<usize, TokenFileError> {
        let admin = &self.config.admin;
        let files = admin.token_file.iter().chain(&admin.read_token_file).count();
        if files > 0 {
            self.access.replace(admin::tokens(admin)?);
        }
        Ok(files)
    }

    /// Says goodbye to every client and ends. `false`: some did not go within the drain timeout, or
    /// not everything is on the disk.
    pub async fn stop(mut self) -> bool {
        self.readiness.set(Phase::Draining);
        let all_gone = match self.stop.take() {
            Some(stop) => stop.stop(self.config.limits.drain_timeout).await,
            None => true,
        };
        // Before anything is dropped: what is not written down any more is not deleted either.
        let is_written = match self.store.clone() {
            Some(store) => tokio::task::spawn_blocking(move || store.close(STORE_PATIENCE)).await,
            None => Ok(true),
        };
        let is_written = is_written.unwrap_or_default();
        if !is_written {
            tracing::error!("the last changes are not on the disk: nobody was told that they were");
        }
        self.tasks.iter().for_each(JoinHandle::abort);
        // Whoever starts again in this process opens the same file.
        let audit = self.broker.audit().clone();
        let closed = tokio::task::spawn_blocking(move || audit.close(AUDIT_PATIENCE)).await;
        if !closed.unwrap_or_default() {
            tracing::warn!("the last entries of the audit log may not be on the disk");
        }
        all_gone && is_written
    }
}

impl Drop for Service {
    /// Whoever drops it without [`Service::stop`] has a broker that has crashed, and what is in its
    /// store stays there.
    fn drop(&mut self) {
        self.store.iter().for_each(|store| {
            let _written_or_not = store.close(Duration::ZERO);
        });
    }
}

/// Reads the store on a thread that may wait for the disk.
async fn open_store(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<Option<store::Opened>, StoreError> {
    let (config, metrics) = (config.store.clone(), Arc::clone(metrics));
    let opened = tokio::task::spawn_blocking(move || store::open(&config, &metrics)).await;
    opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn restore(opened: store::Opened, broker: &Arc<Broker>, acls: &AclFiles) -> Arc<DiskStore> {
    opened.tell(broker);
    let restored = broker.restore(opened.loaded, &acls.slots());
    let Restored { sessions, queued, retained, letters, for_servers, unread } = restored;
    if unread > 0 {
        tracing::warn!(unread, "rows of the store that nobody can read, or that belong to nothing");
    }
    tracing::info!(sessions, queued, retained, letters, for_servers, "the store is loaded");
    opened.store
}

/// How long the store may take to write what waits at the end.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// How long the audit log may take to settle at the end.
const AUDIT_PATIENCE: Duration = Duration::from_secs(5);

/// Where a port really listens: the system chooses where the configuration says port 0.
fn bound(port: &Port, listener: &Listener) -> Bind {
    port.address().unwrap_or_else(|_| listener.bind.clone())
}

async fn sweep(broker: Arc<Broker>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        broker.sweep().await;
    }
}

async fn send_when_due(broker: Arc<Broker>) {
    broker.send_when_due().await;
}

/// Publishes the `$SYS` tree once, and from then on whenever its interval is over.
fn sys_tree(broker: &Arc<Broker>, every: Duration) -> Option<JoinHandle<()>> {
    if every.is_zero() {
        return None;
    }
    let mut tree = SysTree::new(broker.now());
    broker.publish_sys(&mut tree);
    let broker = Arc::clone(broker);
    Some(tokio::spawn(async move {
        let mut interval = tokio::time::interval(every);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval.tick().await;
        loop {
            interval.tick().await;
            broker.publish_sys(&mut tree);
        }
    }))
}

fn note_certificates(metrics: &Metrics, ports: &[Port]) {
    let own = ports.iter().filter_map(Port::certificate_not_after).min();
    let ca = ports.iter().filter_map(Port::client_ca_not_after).min();
    own.into_iter().for_each(|at| metrics.certificate_not_after(Certificate::Broker, at));
    ca.into_iter().for_each(|at| metrics.certificate_not_after(Certificate::ClientCa, at));
}

/// Who the audit log says has changed the registry when its file is read again: whoever told this
/// process to, by a signal or from within.
const RELOAD: &str = "reload";

fn read_registry(path: &PathBuf) -> Result<String, RegistryError> {
    std::fs::read_to_string(path)
        .map_err(|error| RegistryError::Unreadable { path: path.clone(), error })
}

fn control_unit(rsp: &Rsp) -> Result<ControlUnit, RegistryError> {
    let mut control = ControlUnit::new(control_options(rsp));
    if let Some(path) = &rsp.registry {
        let report = control.load(&read_registry(path)?);
        if report.rejected > 0 {
            return Err(RegistryError::Broken { path: path.clone(), report });
        }
    }
    Ok(control)
}

fn control_options(rsp: &Rsp) -> ControlOptions {
    ControlOptions {
        scheme: rsp.nid,
        topics: topic_names(rsp),
        settings: rsp.settings_table(),
        can_prove: !rsp.proof_issuers.is_empty(),
        scopes: rsp.server_scopes(),
        retire: rsp.retire,
        mail_ttl: rsp.mail_ttl,
        limits: RspLimits {
            mail_messages_max: rsp.mail_messages_max,
            mail_bytes_max: rsp.mail_bytes_max,
            group_messages_max: rsp.group_messages_max,
            group_bytes_max: rsp.group_bytes_max,
            open_requests_max: rsp.open_requests_max,
            body_bytes_max: rsp.body_bytes_max,
            ..RspLimits::default()
        },
    }
}

fn topic_names(rsp: &Rsp) -> TopicNames {
    TopicNames { to_euicc: rsp.to_euicc.clone(), to_sm_sr: rsp.to_sm_sr.clone() }
}

fn broker_options(config: &Config) -> BrokerOptions {
    let Config { limits, rsp, .. } = config;
    BrokerOptions {
        session: session_limits(limits, &config.mqtt),
        outbox: OutboxLimits {
            messages_max: limits.max_queued_messages,
            bytes_max: limits.max_queued_bytes,
        },
        retained: RetainedLimits {
            messages_max: limits.max_retained_messages,
            messages_per_client_max: limits.max_retained_per_client,
            bytes_max: limits.max_retained_bytes,
        },
        inbox: InboxLimits {
            messages_max: rsp.server_inbox_messages_max,
            bytes_max: rsp.server_inbox_bytes_max,
            absence_max: rsp.server_absence_max,
        },
        sessions_max: limits.max_sessions,
        subscriptions_max: limits.max_subscriptions,
        subscription_bytes_max: limits.max_subscription_bytes,
        topic_levels_max: limits.max_topic_levels,
        scheme: rsp.nid,
        topics: topic_names(rsp),
        close_on_identity_violation: rsp.close_on_identity_violation,
        stamps_member: rsp.stamp == Stamp::Member,
        issuers: TrustedIssuers::default(),
        untold_denial: match config.mqtt.denied_publish {
            DropOrDisconnect::Drop => Untold::Dropped,
            DropOrDisconnect::Disconnect => Untold::NotAuthorized,
        },
        delivers_overlap_once: config.mqtt.overlapping == Overlapping::Merge,
        takes_bridge_notifications: config.mqtt.bridge_notifications,
        checks_payload_format: config.mqtt.check_payload_format,
        assigned_client_id_prefix: config.mqtt.assigned_client_id_prefix.as_str().into(),
    }
}

fn session_limits(limits: &Limits, mqtt: &Mqtt) -> SessionLimits {
    SessionLimits {
        receive_maximum: limits.receive_maximum,
        in_flight_max: limits.max_inflight,
        packet_bytes_max: limits.max_packet_size,
        keep_alive_secs_max: limits.max_keepalive_secs(),
        client_id_bytes_max: limits.max_client_id_bytes,
        topic_alias_max: limits.topic_alias_maximum,
        topic_alias_outbound_max: limits.topic_alias_maximum_outbound,
        expiry_max: limits.max_session_expiry,
        rules: SessionRules {
            empty_client_id: mqtt.empty_client_id,
            receive_maximum_binds: mqtt.receive_maximum_exceeded == WarnOrDisconnect::Disconnect,
            keep_alive_binds: mqtt.keepalive_exceeded == KeepOrRefuse::Refuse,
            retain_available: mqtt.retain,
            response_information: mqtt.response_information.as_str().into(),
        },
    }
}
