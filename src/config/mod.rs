//! `simcast.toml`: the sections as plain data, their defaults, and every mistake in one list.
//!
//! An unknown key is a mistake, and an accepted key does something. Relative paths are relative
//! to the file. See [`Config::load`].

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IntoDeserializer};
use toml::Spanned;
use toml::de::DeTable;

mod admin;
mod audit;
mod auth;
mod limits;
mod listener;
mod mistake;
mod mqtt;
mod rsp;
mod servers;
mod store;
mod validate;

#[cfg(test)]
mod tests;

pub use admin::{Admin, AdminTls, Token, TokenError};
pub use audit::Audit;
pub use auth::{Auth, WiderSubscription};
pub use limits::Limits;
pub use listener::{Bind, Listener, Protocol, ProxyProtocol, Tls, TlsVersion, UserNameFrom};
pub(crate) use mistake::explain;
pub use mistake::{ConfigErrors, Mistake};
pub use mqtt::{DropOrDisconnect, KeepOrRefuse, Mqtt, Overlapping, WarnOrDisconnect};
pub use rsp::{Rsp, Stamp};
pub use servers::{Server, UnscopedServers};
pub use store::{Durability, OnDamage, Store};

use crate::rsp::ServerRule;
use crate::units;
use mistake::Lines;

/// More mistakes than this are not looked for.
const MISTAKES_MAX: usize = 100;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients connect. A file that names none gets an anonymous one on loopback, port 1883;
    /// a program may do without any and speak to the broker in its own process.
    #[serde(rename = "listener")]
    pub listeners: Vec<Listener>,
    /// Every bound by name.
    pub limits: Limits,
    /// How the standards are taken.
    pub mqtt: Mqtt,
    /// Users and rights, for listeners without their own.
    pub auth: Auth,
    /// The provisioning control unit.
    pub rsp: Rsp,
    /// Health, metrics and the API of operators.
    pub admin: Admin,
    /// Who did what, for later.
    pub audit: Audit,
    /// What outlives a restart, and where.
    pub store: Store,
    /// What is written to standard error.
    pub log: Log,
    /// The `$SYS` tree.
    pub sys: Sys,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: vec![Listener::anonymous(loopback(1883))],
            limits: Limits::default(),
            mqtt: Mqtt::default(),
            auth: Auth::default(),
            rsp: Rsp::default(),
            admin: Admin::default(),
            audit: Audit::default(),
            store: Store::default(),
            log: Log::default(),
            sys: Sys::default(),
        }
    }
}

/// `[log]`: what is written to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// The least important level that is written; `SIMCAST_LOG` in the environment beats it.
    pub level: LogLevel,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Importance of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// The broker cannot do its work.
    Error,
    /// Somebody should look.
    Warn,
    /// Coming and going.
    #[default]
    Info,
    /// Decisions.
    Debug,
    /// Packets.
    Trace,
}

/// `[sys]`: the `$SYS` tree, under mosquitto's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sys {
    /// How often it is published; 0 switches it off.
    #[serde(deserialize_with = "units::duration")]
    pub interval: Duration,
}

impl Default for Sys {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10) }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every mistake that was found, each with its key and line.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let in_file = |mistakes| ConfigErrors { path: Some(path.to_owned()), mistakes };
        let text = std::fs::read_to_string(path).map_err(|e| {
            in_file(vec![Mistake { key: String::new(), line: None, message: e.to_string() }])
        })?;
        let base_dir = path.parent().unwrap_or(Path::new(""));
        let config = Self::from_toml(&text, base_dir);
        let mut config = config.map_err(|errors| in_file(errors.mistakes))?;
        // What is acknowledged is kept unless the file says otherwise.
        config.store.path.get_or_insert_with(|| base_dir.join(store::FOLDER));
        Ok(config)
    }

    /// Reads and checks a text whose relative paths start at `base_dir`.
    ///
    /// # Errors
    /// Every mistake that was found, each with its key and line. Values are checked against each
    /// other, and files are opened, only when the text itself has no mistake.
    pub fn from_toml(text: &str, base_dir: &Path) -> Result<Self, ConfigErrors> {
        let (config, lines) =
            read(text).map_err(|mistakes| ConfigErrors { path: None, mistakes })?;
        let config = config.with_paths_from(base_dir);
        let mut mistakes = config.mistakes(&lines);
        // Nobody but a program can be without listeners and still be served.
        if config.listeners.is_empty() {
            let (key, message) = ("listener".to_owned(), "there is none".to_owned());
            mistakes.insert(0, Mistake { line: lines.line(&key), key, message });
        }
        if mistakes.is_empty() { Ok(config) } else { Err(ConfigErrors { path: None, mistakes }) }
    }

    /// What runs without a file: a plain listener and one with mutual TLS, both on loopback. The
    /// certificates of `certs/dev/` may not exist yet.
    #[must_use]
    pub fn development() -> Self {
        let dir = Path::new("certs/dev");
        let tls = Tls {
            cert: dir.join("broker.pem"),
            key: dir.join("broker.key"),
            chain: None,
            client_ca: Some(dir.join("ca.pem")),
            require_client_cert: None,
            crl: Some(dir.join("crl.pem")),
            min_version: TlsVersion::default(),
            servers: vec![ServerRule::CommonName("sm-sr.dev".to_owned())],
        };
        let secure = Listener {
            allow_anonymous: false,
            tls: Some(tls),
            ..Listener::anonymous(loopback(8883))
        };
        Self {
            listeners: vec![Listener::anonymous(loopback(1883)), secure],
            rsp: Rsp { registry: Some(dir.join("registry.csv")), ..Rsp::default() },
            store: Store { path: Some(store::FOLDER.into()), ..Store::default() },
            ..Self::default()
        }
    }

    /// What a program may start from that runs the broker within itself: the defaults, and no
    /// socket at all, neither a listener nor health and metrics.
    #[must_use]
    pub fn without_sockets() -> Self {
        let mut config = Self { listeners: Vec::new(), ..Self::default() };
        config.admin.bind = None;
        config
    }

    /// Checks what is not a matter of one value alone: bounds, files, contradictions.
    ///
    /// # Errors
    /// Every mistake, each with its key.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mistakes = self.mistakes(&Lines::default());
        if mistakes.is_empty() { Ok(()) } else { Err(ConfigErrors { path: None, mistakes }) }
    }

    /// Users and rights of a listener: its own, or those of `[auth]`.
    #[must_use]
    pub fn auth_of<'a>(&'a self, listener: &'a Listener) -> &'a Auth {
        listener.auth.as_ref().unwrap_or(&self.auth)
    }

    fn with_paths_from(mut self, base_dir: &Path) -> Self {
        let resolve = |path: &mut PathBuf| *path = base_dir.join(&*path);
        for listener in &mut self.listeners {
            if let Bind::Unix(path) = &mut listener.bind {
                resolve(path);
            }
        }
        for tls in self.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut()) {
            resolve(&mut tls.cert);
            resolve(&mut tls.key);
            tls.client_ca.iter_mut().for_each(resolve);
            tls.crl.iter_mut().for_each(resolve);
            tls.chain.iter_mut().for_each(resolve);
        }
        let own = self.listeners.iter_mut().filter_map(|listener| listener.auth.as_mut());
        for auth in own.chain([&mut self.auth]) {
            auth.password_file.iter_mut().chain(&mut auth.acl_file).for_each(resolve);
        }
        let files = self.rsp.registry.iter_mut().chain(&mut self.rsp.proof_issuers);
        files.chain(&mut self.audit.path).chain(&mut self.store.path).for_each(resolve);
        let Admin { token_file, read_token_file, tls, .. } = &mut self.admin;
        token_file.iter_mut().chain(read_token_file).for_each(resolve);
        if let Some(AdminTls { cert, key, client_ca, crl, .. }) = tls {
            [cert, key].into_iter().chain(client_ca).chain(crl).for_each(resolve);
        }
        self
    }
}

/// The values and lines of a text, or everything that is wrong with it.
fn read(text: &str) -> Result<(Config, Lines), Vec<Mistake>> {
    let (mut table, mut mistakes) = mistake::parse(text);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let lines = Lines::of(text, table.get_ref());
    let config = deserialize(text, table.get_mut(), &mut mistakes);
    mistakes.sort_by_key(|mistake| mistake.line);
    match config {
        Some(config) if mistakes.is_empty() => Ok((config, lines)),
        Some(_) | None => Err(mistakes),
    }
}

/// Deserializes again and again, each time without the entry that was wrong, until nothing more
/// is: so that one run names every mistake.
fn deserialize(text: &str, table: &mut DeTable<'_>, mistakes: &mut Vec<Mistake>) -> Option<Config> {
    while mistakes.len() < MISTAKES_MAX {
        let document = Spanned::new(0..text.len(), table.clone());
        let error = match Config::deserialize(document.into_deserializer()) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let line = mistake::line_of(text, &error);
        let Some(key) = mistake::take_out(table, &error) else {
            let message = mistake::explain(error.message());
            mistakes.push(Mistake { key: String::new(), line, message });
            return None;
        };
        // What is missing now may be what was taken out before.
        let missing = error.message().starts_with("missing field");
        if !(missing && mistakes.iter().any(|mistake| mistake.key.starts_with(&key))) {
            mistakes.push(Mistake { key, line, message: mistake::explain(error.message()) });
        }
    }
    None
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn address_or_off<'de, D>(source: D) -> Result<Option<SocketAddr>, D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(source)?;
    if text == "off" {
        return Ok(None);
    }
    let address = SocketAddr::from_str(&text);
    address
        .map(Some)
        .map_err(|_| D::Error::custom(format!("`{text}` is no \"ip:port\" or \"off\"")))
}
