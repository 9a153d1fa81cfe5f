//! What is not a matter of one value alone: bounds, files, contradictions.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::UserNameFrom;
use super::mistake::{Lines, Mistake};
use super::{
    Admin, AdminTls, Audit, Auth, Bind, Config, Limits, Listener, Mqtt, Protocol, ProxyProtocol,
    Rsp, Store, Tls, Token,
};
use crate::rsp::PeerProof;

/// Largest packet MQTT can express: five bytes of fixed header, 28 bits of remaining length.
const LARGEST_PACKET_BYTES: u32 = 5 + (1 << 28) - 1;
/// Longest beginning of a topic or client id that the broker makes.
const PREFIX_BYTES_MAX: usize = 1_000;
/// The smallest file of the audit log: room for two of its longest lines.
const AUDIT_BYTES_MIN: u64 = 64 << 10;
/// Most files of the audit log. They are renamed one by one.
const AUDIT_KEEP_MAX: u16 = 1_000;
/// Larger files of certificates are not compared to their end.
const CERTIFICATES_BYTES_MAX: u64 = 1 << 20;
/// Longest string of MQTT.
const LONGEST_STRING_BYTES: usize = 65_535;

impl Config {
    /// Every mistake, in the order of the lines.
    pub(super) fn mistakes(&self, lines: &Lines) -> Vec<Mistake> {
        let mut check = Check { lines, mistakes: Vec::new() };
        for (i, listener) in self.listeners.iter().enumerate() {
            check.listener(&format!("listener[{i}]"), listener, self);
        }
        check.auth("auth", &self.auth);
        check.mqtt(&self.mqtt);
        check.binds(self);
        check.admin(self);
        check.audit(&self.audit);
        check.store(&self.store);
        check.limits(&self.limits);
        check.rsp(&self.rsp, &self.limits);
        let mut mistakes = check.mistakes;
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes
    }
}

struct Check<'a> {
    lines: &'a Lines,
    mistakes: Vec<Mistake>,
}

impl Check<'_> {
    fn wrong(&mut self, key: &str, message: impl Into<String>) {
        let line = self.lines.line(key);
        self.mistakes.push(Mistake { key: key.to_owned(), line, message: message.into() });
    }

    /// A contradiction: it is on the line of the other key where this one has its default.
    fn at_odds(&mut self, key: &str, other: &str, message: String) {
        let line = self.lines.line(key).or_else(|| self.lines.line(other));
        self.mistakes.push(Mistake { key: key.to_owned(), line, message });
    }

    fn listener(&mut self, key: &str, listener: &Listener, config: &Config) {
        if listener.max_connections == 0 {
            self.wrong(&format!("{key}.max_connections"), "must not be zero");
        }
        if listener.versions.is_empty() {
            self.wrong(&format!("{key}.versions"), "nobody could connect: name at least one");
        }
        self.mount_point(&format!("{key}.mount_point"), &listener.mount_point, config);
        if listener.proxy_require_tls && listener.proxy_protocol != ProxyProtocol::V2 {
            self.wrong(&format!("{key}.proxy_require_tls"), "needs proxy_protocol = \"v2\"");
        }
        if !listener.websocket_origins.is_empty() && listener.protocol != Protocol::Websocket {
            self.wrong(&format!("{key}.websocket_origins"), "needs protocol = \"websocket\"");
        }
        if let Some(tls) = &listener.tls {
            self.tls(&format!("{key}.tls"), tls);
        }
        if let Some(auth) = &listener.auth {
            self.auth(&format!("{key}.auth"), auth);
        }
        self.identity(key, listener, config);
    }

    fn mount_point(&mut self, key: &str, text: &str, config: &Config) {
        if text.is_empty() {
            return;
        }
        // `+/a` and `#` behind half a level would be no filters.
        if text.contains(['+', '#', '\0']) || text.starts_with('$') || !text.ends_with('/') {
            let message = "whole levels of a topic name with a `/` at the end, and without `+`, \
                           `#` and a leading `$`";
            self.wrong(key, message);
        }
        // Mail would seem to be mounted.
        let topics = [&config.rsp.to_euicc, &config.rsp.to_sm_sr];
        if topics.into_iter().any(|topic| topic.starts_with(text)) {
            self.wrong(key, "must not be the beginning of an RSP topic");
        }
        if text.len() > LONGEST_STRING_BYTES {
            self.wrong(key, "at most 65535 bytes");
        }
    }

    fn identity(&mut self, key: &str, listener: &Listener, config: &Config) {
        let passwords = config.auth_of(listener).password_file.is_some();
        // A proxy may have seen a certificate, too.
        let certificates = listener.takes_client_certificates();
        let names = certificates || listener.proxy_protocol == ProxyProtocol::V2;
        let from_client_id = listener.insecure_identity_from_client_id;
        if from_client_id && (certificates || passwords) {
            let key = format!("{key}.insecure_identity_from_client_id");
            self.wrong(&key, "cannot stand beside client certificates or passwords");
        }
        if !from_client_id && !listener.servers_by_client_id.is_empty() {
            let key = format!("{key}.servers_by_client_id");
            self.wrong(&key, "needs insecure_identity_from_client_id = true");
        }
        match listener.user_name_from {
            UserNameFrom::Certificate => {}
            UserNameFrom::Password if !passwords => {
                self.wrong(&format!("{key}.user_name_from"), "needs a password_file");
            }
            UserNameFrom::Password => {}
            UserNameFrom::Cn | UserNameFrom::Subject | UserNameFrom::San | UserNameFrom::Serial => {
                if !names {
                    self.wrong(&format!("{key}.user_name_from"), "needs tls.client_ca");
                }
            }
        }
        if !names && !passwords && !from_client_id && !listener.allow_anonymous {
            let message = "nobody can connect here: set allow_anonymous = true, tls.client_ca \
                           or auth.password_file";
            self.wrong(&format!("{key}.allow_anonymous"), message);
        }
    }

    fn auth(&mut self, key: &str, auth: &Auth) {
        if let Some(path) = &auth.password_file {
            self.file(&format!("{key}.password_file"), path);
        }
        if let Some(path) = &auth.acl_file {
            self.file(&format!("{key}.acl_file"), path);
        }
        if auth.max_failures == 0 {
            self.wrong(&format!("{key}.max_failures"), "must not be zero");
        }
    }

    fn mqtt(&mut self, mqtt: &Mqtt) {
        let texts = [
            ("response_information", &mqtt.response_information),
            ("assigned_client_id_prefix", &mqtt.assigned_client_id_prefix),
        ];
        for (name, text) in texts {
            if text.len() > PREFIX_BYTES_MAX || text.contains(['+', '#', '\0']) {
                let message = format!("at most {PREFIX_BYTES_MAX} bytes without `+` and `#`");
                self.wrong(&format!("mqtt.{name}"), message);
            }
        }
    }

    fn tls(&mut self, key: &str, tls: &Tls) {
        self.file(&format!("{key}.cert"), &tls.cert);
        self.file(&format!("{key}.key"), &tls.key);
        if let Some(path) = &tls.client_ca {
            self.file(&format!("{key}.client_ca"), path);
        }
        if let Some(path) = &tls.chain {
            self.file(&format!("{key}.chain"), path);
        }
        if let Some(path) = &tls.crl {
            self.file(&format!("{key}.crl"), path);
        }
        if tls.client_ca.is_some() {
            return;
        }
        let without_meaning = [
            ("require_client_cert", tls.require_client_cert == Some(true)),
            ("crl", tls.crl.is_some()),
            ("servers", !tls.servers.is_empty()),
        ];
        for (name, set) in without_meaning {
            if set {
                self.wrong(&format!("{key}.{name}"), "needs client_ca");
            }
        }
    }

    fn file(&mut self, key: &str, path: &Path) {
        if path.is_dir() {
            self.wrong(key, format!("{} is a directory", path.display()));
        } else if let Err(e) = File::open(path) {
            self.wrong(key, format!("cannot read {}: {e}", path.display()));
        }
    }

    fn binds(&mut self, config: &Config) {
        let mut taken: Vec<(String, Bind)> = Vec::new();
        let listeners = config.listeners.iter().enumerate();
        let binds = listeners.map(|(i, l)| (format!("listener[{i}].bind"), l.bind.clone()));
        let admin = config.admin.bind.map(|bind| ("admin.bind".to_owned(), Bind::Tcp(bind)));
        for (key, bind) in binds.chain(admin) {
            if let Some((other, _)) = taken.iter().find(|(_, earlier)| overlap(earlier, &bind)) {
                self.at_odds(&key, other, format!("{bind} is taken by {other}"));
            }
            taken.push((key, bind));
        }
    }

    fn admin(&mut self, config: &Config) {
        let Admin { bind, token_file, read_token_file, tls } = &config.admin;
        let token = token_file.as_ref().and_then(|path| self.token("admin.token_file", path));
        let read_token =
            read_token_file.as_ref().and_then(|path| self.token("admin.read_token_file", path));
        if token.is_some() && token == read_token {
            self.wrong("admin.read_token_file", "holds the token of admin.token_file");
        }
        if let Some(tls) = tls {
            self.admin_tls(tls, config);
        }
        // case S16
        let elsewhere = bind.is_some_and(|bind| !bind.ip().is_loopback());
        let proof = token_file.is_some()
            || read_token_file.is_some()
            || tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if elsewhere && !(tls.is_some() && proof) {
            let message = "is no loopback address: that needs [admin.tls], and token_file or \
                           tls.client_ca, or everybody there could change devices or read the \
                           token on its way";
            self.wrong("admin.bind", message);
        }
    }

    fn audit(&mut self, audit: &Audit) {
        self.positive("audit", &audit.positive());
        if (1..AUDIT_BYTES_MIN).contains(&audit.max_bytes) {
            self.wrong("audit.max_bytes", format!("at least {AUDIT_BYTES_MIN} bytes"));
        }
        if audit.keep > AUDIT_KEEP_MAX {
            self.wrong("audit.keep", format!("at most {AUDIT_KEEP_MAX}"));
        }
        if let Some(path) = &audit.path {
            self.audit_path(path);
        }
    }

    /// The directory may be missing: the store makes it.
    fn store(&mut self, store: &Store) {
        self.positive("store", &[("max_queued_bytes", store.max_queued_bytes > 0)]);
        let Some(path) = store.folder() else { return };
        let above = folder_of(path);
        let message = if path.exists() && !path.is_dir() {
            format!("{} is no directory", path.display())
        } else if !path.exists() && !above.is_dir() {
            format!("there is no directory {}", above.display())
        } else {
            return;
        };
        self.wrong("store.path", message);
    }

    /// The file and its folder may be missing: the log makes them.
    fn audit_path(&mut self, path: &Path) {
        let (folder, above) = (folder_of(path), folder_of(folder_of(path)));
        let message = if path.is_dir() || path.file_name().is_none() {
            format!("{} is a directory", path.display())
        } else if folder.exists() && !folder.is_dir() {
            format!("{} is no directory", folder.display())
        } else if !folder.exists() && !above.is_dir() {
            format!("there is no directory {}", above.display())
        } else {
            return;
        };
        self.wrong("audit.path", message);
    }

    fn token(&mut self, key: &str, path: &Path) -> Option<Token> {
        let token = Token::read(path);
        token.map_err(|error| self.wrong(key, format!("{} {error}", path.display()))).ok()
    }

    fn admin_tls(&mut self, tls: &AdminTls, config: &Config) {
        let AdminTls { cert, key, client_ca, crl, operators, min_version: _ } = tls;
        self.file("admin.tls.cert", cert);
        self.file("admin.tls.key", key);
        crl.iter().for_each(|path| self.file("admin.tls.crl", path));
        let Some(client_ca) = client_ca else {
            let without_meaning = [("crl", crl.is_some()), ("operators", !operators.is_empty())];
            for (name, _) in without_meaning.into_iter().filter(|(_, set)| *set) {
                self.wrong(&format!("admin.tls.{name}"), "needs client_ca");
            }
            return;
        };
        self.file("admin.tls.client_ca", client_ca);
        let of_clients = config.listeners.iter().filter_map(|l| l.tls.as_ref()?.client_ca.as_ref());
        if operators.is_empty() && of_clients.into_iter().any(|path| same(path, client_ca)) {
            let message = "issues the certificates of clients, too, and every device would be an \
                           operator: use another CA, or say in admin.tls.operators which are";
            self.wrong("admin.tls.client_ca", message);
        }
    }

    fn limits(&mut self, limits: &Limits) {
        self.positive("limits", &limits.positive());
        if limits.max_packet_size > LARGEST_PACKET_BYTES {
            let message = format!("MQTT's largest packet has {LARGEST_PACKET_BYTES} bytes");
            self.wrong("limits.max_packet_size", message);
        }
        if limits.max_keepalive.as_secs() > u64::from(u16::MAX) {
            self.wrong("limits.max_keepalive", "at most 65535s");
        }
        if limits.max_keepalive.subsec_millis() > 0 {
            self.wrong("limits.max_keepalive", "must be whole seconds");
        }
        if limits.max_session_expiry.as_secs() >= u64::from(u32::MAX) {
            self.wrong("limits.max_session_expiry", "at most 4294967294s");
        }
        if limits.max_client_id_bytes > LONGEST_STRING_BYTES {
            self.wrong("limits.max_client_id_bytes", "at most 65535");
        }
    }

    fn rsp(&mut self, rsp: &Rsp, limits: &Limits) {
        self.topic("rsp.to_euicc", &rsp.to_euicc);
        self.topic("rsp.to_sm_sr", &rsp.to_sm_sr);
        if rsp.to_euicc == rsp.to_sm_sr {
            self.wrong("rsp.to_sm_sr", "must differ from rsp.to_euicc");
        }
        if let Some(path) = &rsp.registry {
            self.file("rsp.registry", path);
        }
        for (i, path) in rsp.proof_issuers.iter().enumerate() {
            self.file(&format!("rsp.proof_issuers[{i}]"), path);
        }
        self.positive("rsp", &rsp.positive());
        for (key, why) in rsp.unworkable() {
            self.wrong(&key, why);
        }
        let table = rsp.settings_table();
        let groups = rsp.groups.keys().map(|gid| table.of_group(*gid));
        let mut all = groups.chain([table.common()]);
        if rsp.proof_issuers.is_empty() && all.any(|s| s.peer_proof == PeerProof::Required) {
            self.wrong("rsp.proof_issuers", "name a file: peer_proof = \"required\" needs issuers");
        }
        self.servers(rsp);
        let packet_bytes = usize::try_from(limits.max_packet_size).unwrap_or(usize::MAX);
        let bounds = [
            ("limits.max_packet_size", packet_bytes),
            ("rsp.mail_bytes_max", rsp.mail_bytes_max),
            ("rsp.group_bytes_max", rsp.group_bytes_max),
            ("rsp.server_inbox_bytes_max", rsp.server_inbox_bytes_max),
        ];
        for (name, bytes) in bounds.into_iter().filter(|(_, bytes)| *bytes < rsp.body_bytes_max) {
            let message = format!("more than {name}, which is {bytes} bytes");
            self.at_odds("rsp.body_bytes_max", name, message);
        }
    }

    fn servers(&mut self, rsp: &Rsp) {
        for (name, server) in &rsp.servers {
            if name.is_empty() {
                self.wrong("rsp.server.", "no server has this name");
            }
            // Whoever leaves it empty may mean all of them.
            if server.groups.is_empty() {
                let message = "name at least one; unscoped_servers = \"none\" shuts out servers \
                               without a section";
                self.wrong(&format!("rsp.server.{name}.groups"), message);
            }
        }
    }

    fn topic(&mut self, key: &str, topic: &str) {
        if topic.is_empty() || topic.len() > LONGEST_STRING_BYTES {
            self.wrong(key, "must have 1 to 65535 bytes");
        }
        if topic.starts_with('$') || topic.contains(['+', '#', '\0']) {
            self.wrong(key, "a topic name without `+`, `#` and a leading `$`");
        }
    }

    fn positive(&mut self, section: &str, checks: &[(&str, bool)]) {
        for (name, _) in checks.iter().filter(|(_, positive)| !positive) {
            self.wrong(&format!("{section}.{name}"), "must not be zero");
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    let here = Path::new(".");
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(here)
}

/// Whether both files hold the same, as far as files of certificates go.
fn same(a: &Path, b: &Path) -> bool {
    let read = |path: &Path| -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(CERTIFICATES_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    a == b || read(a).is_some_and(|bytes| read(b) == Some(bytes))
}

/// Whether both cannot be bound at once. Port 0 is whatever is free.
fn overlap(a: &Bind, b: &Bind) -> bool {
    let (a, b) = match (a, b) {
        (Bind::Tcp(a), Bind::Tcp(b)) => (a, b),
        (Bind::Unix(a), Bind::Unix(b)) => return a == b,
        (Bind::Tcp(_), Bind::Unix(_)) | (Bind::Unix(_), Bind::Tcp(_)) => return false,
    };
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    let same_ip = a.ip() == b.ip() || (everywhere && a.is_ipv4() == b.is_ipv4());
    a.port() == b.port() && a.port() != 0 && same_ip
}
