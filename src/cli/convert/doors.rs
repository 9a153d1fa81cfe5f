//! Each listener of mosquitto as `[[listener]]`, or why there is none.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::keys::quoted;
use super::plan::{Door, Names, Note, Plan, Protocol, Set, Users};

/// What has to be known of the machine that the broker is to run on: this one.
pub(super) struct Machine {
    /// It has IPv6.
    pub(super) ipv6: bool,
    /// Where relative paths of mosquitto.conf start.
    pub(super) cwd: PathBuf,
    pub(super) resolve: fn(&str) -> Vec<IpAddr>,
}

impl Machine {
    /// As a string of TOML, with the directory it starts at.
    pub(super) fn path(&self, path: &str) -> String {
        quoted(&self.cwd.join(path).to_string_lossy())
    }
}

/// The listeners of a plan. Mosquitto without any serves this machine alone, and everybody on it.
pub(super) fn write(plan: &Plan, machine: &Machine) -> Vec<Result<String, Note>> {
    if plan.has_listener {
        let door = |door: &Door| {
            let users = users_of(plan, door);
            let note = |text| Note { place: door.place.clone(), key: door.key.clone(), text };
            one(plan, door, &users, machine).map_err(note)
        };
        return plan.doors.iter().map(door).collect();
    }
    let mut text = String::new();
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let open = plan.users.is_open(true);
    for ip in loopback.into_iter().filter(|ip| machine.ipv6 || ip.is_ipv4()) {
        let bind = SocketAddr::new(ip, 1883);
        // Writing to a String does not fail, here and below.
        let _ok = write!(text, "\n[[listener]] # there is none: this machine alone\n");
        let _ok = writeln!(text, "bind = \"{bind}\"\nallow_anonymous = {open}");
        text.push_str(&client_id_prefixes(plan));
    }
    vec![Ok(text)]
}

fn users_of(plan: &Plan, door: &Door) -> Users {
    if plan.per_listener {
        return door.users.clone();
    }
    let allow_anonymous = door.users.allow_anonymous.or(plan.users.allow_anonymous);
    Users { allow_anonymous, ..plan.users.clone() }
}

fn one(plan: &Plan, door: &Door, users: &Users, machine: &Machine) -> Result<String, String> {
    let names = user_names(door, users)?;
    mount_point(door)?;
    let tls = tls(door, machine)?;
    let mut rules = names;
    if door.protocol == Protocol::WebSocket {
        rules.push_str("protocol = \"websocket\"\n");
    }
    if door.protocol == Protocol::WebSocket && !door.origins.is_empty() {
        let origins: Vec<String> = door.origins.iter().map(|origin| quoted(origin)).collect();
        let _ok = writeln!(rules, "websocket_origins = [{}]", origins.join(", "));
    }
    if door.proxy_version > 0 {
        let _ok = writeln!(rules, "proxy_protocol = \"v{}\"", door.proxy_version);
    }
    let meant = |name: &str| name != "proxy_require_tls" || door.proxy_version == 2;
    for (name, set) in door.keys.iter().filter(|(name, _)| meant(name)) {
        let _ok = writeln!(rules, "{name} = {} # {}", set.value, set.place.short());
    }
    rules.push_str(&client_id_prefixes(plan));
    let mut text = String::new();
    for bind in binds(door, machine)? {
        let _ok = write!(text, "\n[[listener]] # {}\n", door.place.short());
        let _ok = write!(text, "bind = {bind}\n{rules}{tls}");
        if plan.per_listener {
            text.push_str(&auth("listener.auth", users, machine));
        }
    }
    Ok(text)
}

/// Mosquitto puts any text before a topic, simcast whole levels.
fn mount_point(door: &Door) -> Result<(), String> {
    let whole = |text: &str| text.ends_with("/\"") && !text.contains(['+', '#', '$']);
    match door.keys.get("mount_point") {
        Some(set) if !whole(&set.value) => {
            Err("left out: its mount_point does not end with `/`, or holds one of `+#$`".to_owned())
        }
        Some(_) | None => Ok(()),
    }
}

fn client_id_prefixes(plan: &Plan) -> String {
    plan.client_id_prefix.as_ref().map_or_else(String::new, |prefix| {
        let place = prefix.place.short();
        format!("client_id_prefixes = [{}] # {place}\n", quoted(&prefix.value))
    })
}

/// `[auth]` or `[listener.auth]`; nothing without files.
pub(super) fn auth(section: &str, users: &Users, machine: &Machine) -> String {
    let files = [("password_file", &users.password_file), ("acl_file", &users.acl_file)];
    let mut text = String::new();
    for (name, set) in files.into_iter().filter_map(|(name, set)| Some((name, set.as_ref()?))) {
        if text.is_empty() {
            let _ok = write!(text, "\n[{section}]\n");
        }
        text.push_str(&file(name, set, machine));
    }
    if users.acl_file.is_some() {
        text.push_str(
            "subscribe = \"grant\" # as mosquitto: granted, and filtered when delivered\n",
        );
    }
    text
}

fn file(name: &str, set: &Set<String>, machine: &Machine) -> String {
    format!("{name} = {} # {}\n", machine.path(&set.value), set.place.short())
}

/// Where names come from, and whether clients may come without one. An error where nobody could
/// come in: mosquitto listens there all the same.
fn user_names(door: &Door, users: &Users) -> Result<String, String> {
    let tls = &door.tls;
    let encrypted = tls.certfile.is_some();
    let certificates = encrypted && tls.requires_certificate;
    let nobody = |why: &str| Err(format!("left out: nobody could connect, for {why}"));
    let from = match door.names {
        Names::CommonName => Some("cn"),
        Names::Subject => Some("subject"),
        Names::Client => None,
    };
    if let Some(from) = from.filter(|_| encrypted || door.proxy_version == 2) {
        if !certificates && door.proxy_version != 2 {
            return nobody("names come from certificates, and require_certificate is false");
        }
        return Ok(format!("allow_anonymous = false\nuser_name_from = \"{from}\"\n"));
    }
    let (open, passwords) = (users.is_open(false), users.password_file.is_some());
    if !open && !passwords {
        let plugin = users.plugin.is_some();
        return nobody(if plugin {
            "there is no password_file, and plugins are not loaded"
        } else {
            "allow_anonymous is false and there is no password_file"
        });
    }
    let open_line = format!("allow_anonymous = {open}\n");
    // A proxy may tell of a certificate.
    Ok(match (certificates || door.proxy_version == 2, passwords) {
        (false, _) => open_line,
        (true, true) => open_line + "user_name_from = \"password\"\n",
        (true, false) => open_line + "# Clients are who their certificates say.\n",
    })
}

fn tls(door: &Door, machine: &Machine) -> Result<String, String> {
    let tls = &door.tls;
    let refused = |why: &str| Err(format!("left out: {why}"));
    if door.protocol == Protocol::Other {
        return refused("simcast does not speak its protocol");
    }
    if tls.psk.is_some() {
        return refused("its clients have pre-shared keys, which simcast does not take");
    }
    if tls.engine.is_some() {
        return refused("its key is in an engine: simcast reads keys from files");
    }
    let (cert, key) = match (&tls.certfile, &tls.keyfile) {
        (None, None) => return Ok(String::new()),
        (Some(cert), Some(key)) => (cert, key),
        _ => return refused("certfile and keyfile belong together"),
    };
    let mut text = "[listener.tls]\n".to_owned();
    text.push_str(&file("cert", cert, machine));
    text.push_str(&file("key", key, machine));
    // OpenSSL completes the chain of certfile from there.
    tls.cafile.iter().for_each(|ca| text.push_str(&file("chain", ca, machine)));
    if tls.version_1_3 {
        text.push_str("min_version = \"1.3\"\n");
    }
    if tls.requires_certificate {
        let Some(ca) = &tls.cafile else {
            return refused(
                "it asks for client certificates and has no cafile: put what is in \
                            capath into one file, and name it as client_ca",
            );
        };
        text.push_str(&file("client_ca", ca, machine));
        tls.crlfile.iter().for_each(|crl| text.push_str(&file("crl", crl, machine)));
    }
    Ok(text)
}

/// The values of `bind`, as TOML.
fn binds(door: &Door, machine: &Machine) -> Result<Vec<String>, String> {
    let ips = match &door.address {
        Some(path) if door.port == 0 => {
            let path = machine.cwd.join(path);
            return Ok(vec![quoted(&format!("unix:{}", path.display()))]);
        }
        Some(host) => host.parse().map_or_else(|_| (machine.resolve)(host), |ip| vec![ip]),
        // Of Linux, it takes IPv4 as well.
        None if machine.ipv6 && door.domain.as_deref() != Some("ipv4") => {
            vec![Ipv6Addr::UNSPECIFIED.into()]
        }
        None => vec![Ipv4Addr::UNSPECIFIED.into()],
    };
    let fits = |ip: &IpAddr| match door.domain.as_deref() {
        Some("ipv4") => ip.is_ipv4(),
        Some("ipv6") => ip.is_ipv6(),
        _ => true,
    };
    let mut ips: Vec<IpAddr> = ips.into_iter().filter(fits).collect();
    ips.sort_unstable();
    ips.dedup();
    if ips.is_empty() {
        return Err("left out: its host has no address here; name one".to_owned());
    }
    let bind = |ip| quoted(&SocketAddr::new(ip, door.port).to_string());
    Ok(ips.into_iter().map(bind).collect())
}
