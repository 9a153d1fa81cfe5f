//! What each directive of mosquitto becomes.

use super::left;
use super::plan::{Names, Plan, Protocol, Set, Users};
use super::source::Directive;

/// What became of a directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It stands in the converted file, or simcast does the same without being told.
    Taken,
    /// It has no counterpart; why, or what to do instead.
    Left(String),
    /// Its value makes no sense.
    Broken(String),
    /// No such directive.
    Unknown,
}

/// `None` where the key is none of the group's.
type Answer = Option<Result<Outcome, String>>;

const GROUPS: &[fn(&mut Plan, &Directive) -> Answer] =
    &[listeners, listener_rules, certificates, users, client_ids, bounds, habits, bridges];

/// Reads one directive into the plan.
pub(super) fn read(plan: &mut Plan, directive: &Directive) -> Outcome {
    let answer = GROUPS.iter().find_map(|group| group(plan, directive));
    match answer {
        Some(Ok(outcome)) => outcome,
        Some(Err(why)) => Outcome::Broken(why),
        None => left::why(&directive.key).map_or(Outcome::Unknown, Outcome::Left),
    }
}

/// Directives that make listeners.
fn listeners(plan: &mut Plan, d: &Directive) -> Answer {
    let result = match d.key.as_str() {
        "listener" => listener(plan, d),
        "port" => number(d, 1, 65_535).map(|port| {
            plan.has_listener = true;
            plan.default_door(d).port = port;
        }),
        "bind_address" => text(d).map(|address| {
            plan.has_listener = true;
            plan.default_door(d).address = Some(address);
        }),
        "socket_domain" => one_of(d, &["ipv4", "ipv6"]).map(|domain| {
            plan.door(d).domain = Some(domain);
        }),
        "protocol" => protocol(d).map(|protocol| plan.door(d).protocol = protocol),
        "bind_interface" => {
            return left("name the interface's address in `bind` of this listener");
        }
        "http_dir" => return left("simcast serves no files: use a web server"),
        _ => return None,
    };
    taken(result)
}

fn listener(plan: &mut Plan, d: &Directive) -> Result<(), String> {
    let port: u16 = number(d, 0, 65_535)?;
    let address = d.value.split_ascii_whitespace().nth(1);
    let address = address.filter(|word| !word.starts_with('#')).map(str::to_owned);
    if port == 0 && address.is_none() {
        return Err("port 0 needs the path of a socket".to_owned());
    }
    plan.open(d, port, address);
    Ok(())
}

fn protocol(d: &Directive) -> Result<Protocol, String> {
    match d.word() {
        "mqtt" | "mqttv31" => Ok(Protocol::Mqtt),
        "websockets" => Ok(Protocol::WebSocket),
        "http_api" | "mqttsn" => Ok(Protocol::Other),
        other => Err(format!("`{other}` is no protocol")),
    }
}

/// Directives that a listener may have.
fn listener_rules(plan: &mut Plan, d: &Directive) -> Answer {
    let result = match d.key.as_str() {
        // -1 is no bound: ours is large.
        "max_connections" => number(d, -1, i32::MAX).and_then(|n: i32| match n {
            0 => Err("nobody could connect".to_owned()),
            n if n > 0 => carry(plan, d, "max_connections", &n),
            _ => Ok(()),
        }),
        "max_qos" | "maximum_qos" => {
            number(d, 0, 2).and_then(|qos: u8| carry(plan, d, "max_qos", &qos))
        }
        "mount_point" => text(d).and_then(|topic| carry(plan, d, "mount_point", &quoted(&topic))),
        "use_username_as_clientid" => {
            yes_no(d).and_then(|yes| carry(plan, d, "client_id_is_user_name", &yes))
        }
        "accept_protocol_versions" => {
            versions(d).and_then(|versions| carry(plan, d, "versions", &versions))
        }
        "websockets_origin" => text(d).map(|origin| plan.door(d).origins.push(origin)),
        "enable_proxy_protocol" => number(d, 1, 2).map(|n| plan.door(d).proxy_version = n),
        "proxy_protocol_v2_require_tls" => {
            yes_no(d).and_then(|yes| carry(plan, d, "proxy_require_tls", &yes))
        }
        "max_topic_alias" => largest(plan, d, "topic_alias_maximum"),
        "max_topic_alias_broker" => largest(plan, d, "topic_alias_maximum_outbound"),
        "listener_allow_anonymous" => {
            yes_no(d).map(|yes| plan.door(d).users.allow_anonymous = Some(yes))
        }
        _ => return None,
    };
    taken(result)
}

fn carry(
    plan: &mut Plan,
    d: &Directive,
    name: &'static str,
    value: &impl ToString,
) -> Result<(), String> {
    let set = Set { value: value.to_string(), place: d.place.clone() };
    plan.door(d).keys.insert(name, set);
    Ok(())
}

/// A bound of each listener that has one value for the whole of simcast: the largest.
fn largest(plan: &mut Plan, d: &Directive, name: &'static str) -> Result<(), String> {
    let count: u16 = number(d, 0, 65_535)?;
    let before = plan.keys.get(&("limits", name)).and_then(|set| set.value.parse().ok());
    if before.is_none_or(|before: u16| before <= count) {
        plan.set("limits", name, &count, d);
    }
    Ok(())
}

fn versions(d: &Directive) -> Result<String, String> {
    let names = d.value.split([',', ' ']).filter(|name| !name.is_empty());
    let name = |number| match number {
        "3" => Ok("\"3.1\""),
        "4" => Ok("\"3.1.1\""),
        "5" => Ok("\"5\""),
        other => Err(format!("`{other}` is none of 3, 4 and 5")),
    };
    let names: Vec<&str> = names.map(name).collect::<Result<_, _>>()?;
    Ok(format!("[{}]", names.join(", ")))
}

/// TLS and what is taken from certificates.
fn certificates(plan: &mut Plan, d: &Directive) -> Answer {
    let set = |value| Some(Set { value, place: d.place.clone() });
    let result = match d.key.as_str() {
        "cafile" => text(d).map(|path| plan.door(d).tls.cafile = set(path)),
        "capath" => text(d).map(|path| plan.door(d).tls.capath = set(path)),
        "certfile" => text(d).map(|path| plan.door(d).tls.certfile = set(path)),
        "keyfile" => text(d).map(|path| plan.door(d).tls.keyfile = set(path)),
        "crlfile" => text(d).map(|path| plan.door(d).tls.crlfile = set(path)),
        "require_certificate" => yes_no(d).map(|yes| plan.door(d).tls.requires_certificate = yes),
        "use_identity_as_username" => names(plan, d, Names::CommonName),
        "use_subject_as_username" => names(plan, d, Names::Subject),
        "tls_version" => one_of(d, &["tlsv1.3", "tlsv1.2", "tlsv1.1", "tlsv1"])
            .map(|version| plan.door(d).tls.version_1_3 = version == "tlsv1.3"),
        "psk_hint" => {
            plan.door(d).tls.psk = Some(d.place.clone());
            return left("simcast has no pre-shared keys: give the devices certificates");
        }
        "tls_engine" | "tls_keyform" => {
            plan.door(d).tls.engine = Some(d.place.clone());
            return left("keys are read from files alone");
        }
        _ => return None,
    };
    if d.key == "tls_version" && matches!(d.word(), "tlsv1" | "tlsv1.1") {
        return left("TLS 1.2 is the oldest that simcast speaks");
    }
    taken(result)
}

fn names(plan: &mut Plan, d: &Directive, names: Names) -> Result<(), String> {
    let yes = yes_no(d)?;
    let door = plan.door(d);
    if yes {
        door.names = names;
    } else if door.names == names {
        door.names = Names::Client;
    }
    Ok(())
}

/// Who may come in.
fn users(plan: &mut Plan, d: &Directive) -> Answer {
    let set = |value| Some(Set { value, place: d.place.clone() });
    let result = match d.key.as_str() {
        "per_listener_settings" => yes_no(d).map(drop),
        "allow_anonymous" => yes_no(d).map(|yes| plan.users(d).allow_anonymous = Some(yes)),
        "password_file" => text(d).map(|path| plan.users(d).password_file = set(path)),
        "acl_file" => text(d).map(|path| plan.users(d).acl_file = set(path)),
        "plugin" | "global_plugin" | "plugin_load" | "auth_plugin" => {
            // What it is for, mosquitto does not say: it may have been all the security there was.
            plan.users.plugin.get_or_insert_with(|| d.place.clone());
            return left("simcast loads no plugins: see to it who may connect, and do what");
        }
        _ => return None,
    };
    taken(result)
}

/// What client ids look like.
fn client_ids(plan: &mut Plan, d: &Directive) -> Answer {
    let result = match d.key.as_str() {
        "auto_id_prefix" | "listener_auto_id_prefix" => text(d).map(|prefix| {
            plan.set("mqtt", "assigned_client_id_prefix", &quoted(&prefix), d);
        }),
        "allow_zero_length_clientid" => {
            yes_no(d).map(|yes| plan.set("mqtt", "empty_client_id", &yes, d))
        }
        "clientid_prefixes" => text(d).map(|prefix| {
            plan.client_id_prefix = Some(Set { value: prefix, place: d.place.clone() });
        }),
        _ => return None,
    };
    taken(result)
}

/// Bounds; 0 is none in most of them.
fn bounds(plan: &mut Plan, d: &Directive) -> Answer {
    let mut limit = |name, value: u64| plan.set("limits", name, &value, d);
    let result = match d.key.as_str() {
        "max_inflight_messages" => number(d, 0, 65_535).map(|n| {
            let n = if n == 0 { 65_535 } else { n };
            limit("max_inflight", n);
            limit("receive_maximum", n);
        }),
        "max_queued_messages" => number(d, 0, i32::MAX).map(|n: u32| {
            limit("max_queued_messages", if n == 0 { ENDLESS_MESSAGES } else { n.into() });
        }),
        "max_queued_bytes" => number(d, 0, i64::MAX).map(|n| {
            limit("max_queued_bytes", if n == 0 { ENDLESS_BYTES } else { n });
        }),
        "max_packet_size" => number(d, 20, LARGEST_PACKET_BYTES).map(|n| {
            limit("max_packet_size", n);
        }),
        "message_size_limit" => number(d, 0, LARGEST_PAYLOAD_BYTES).map(|n: u64| {
            // A bound of the payload; the topic is at most as long as this, and so are the
            // properties of most messages.
            let packet: u64 = n + 65_535 + 65_535;
            if n > 0 {
                limit("max_packet_size", packet.min(LARGEST_PACKET_BYTES));
            }
        }),
        "max_keepalive" => number(d, 0, 65_535).map(|n: u64| {
            if n > 0 {
                plan.set("limits", "max_keepalive", &format!("\"{n}s\""), d);
                plan.set("mqtt", "keepalive_exceeded", &"\"refuse\"", d);
            }
        }),
        "global_max_connections" => {
            unless_endless(d).map(|n| n.into_iter().for_each(|n| limit("max_connections", n)))
        }
        "global_max_clients" => {
            unless_endless(d).map(|n| n.into_iter().for_each(|n| limit("max_sessions", n)))
        }
        "persistent_client_expiration" => {
            period(d).map(|secs| plan.set("limits", "max_session_expiry", &quoted_secs(secs), d))
        }
        "websockets_headers_size" | "packet_buffer_size" => number(d, 0, 65_535).map(|n: u64| {
            // Smaller than ours it was a matter of memory.
            if n > 8192 {
                limit("max_websocket_handshake_bytes", n);
            }
        }),
        _ => return None,
    };
    taken(result)
}

/// -1: none.
fn unless_endless(d: &Directive) -> Result<Option<u64>, String> {
    let count: i64 = number(d, -1, i32::MAX)?;
    match u64::try_from(count) {
        Ok(0) => Err("nobody could connect".to_owned()),
        other => Ok(other.ok()),
    }
}

/// How the standard is taken, `$SYS`, the log.
fn habits(plan: &mut Plan, d: &Directive) -> Answer {
    let result = match d.key.as_str() {
        "retain_available" => yes_no(d).map(|yes| plan.set("mqtt", "retain", &yes, d)),
        "allow_duplicate_messages" => yes_no(d).map(|yes| {
            let overlapping = if yes { "\"each\"" } else { "\"merge\"" };
            plan.set("mqtt", "overlapping", &overlapping, d);
        }),
        "sys_interval" => number(d, 0, 65_535).map(|secs: u64| {
            plan.set("sys", "interval", &quoted_secs(secs), d);
        }),
        "log_type" => text(d).map(|kind| plan.log_types.push(kind)),
        "log_dest" if d.word() == "stderr" => Ok(()),
        "queue_qos0_messages"
        | "upgrade_outgoing_qos"
        | "autosave_on_changes"
        | "disable_client_cert_date_checks"
        | "enable_control_api" => match yes_no(d) {
            Ok(true) => return None,
            other => other.map(drop),
        },
        "connection_messages" | "set_tcp_nodelay" | "check_retain_source" | "log_timestamp" => {
            match yes_no(d) {
                Ok(false) => return None,
                other => other.map(drop),
            }
        }
        "max_inflight_bytes" | "memory_limit" | "retain_expiry_interval" => {
            match number::<u64>(d, 0, i64::MAX) {
                Ok(1..) => return None,
                other => other.map(drop),
            }
        }
        "persistence" => yes_no(d).map(|yes| plan.persistence = yes.then(|| d.place.clone())),
        "persistence_location" => text(d).map(|folder| plan.persistence_location = Some(folder)),
        _ => return None,
    };
    taken(result)
}

/// Bridges, one complaint for each of their lines.
fn bridges(plan: &mut Plan, d: &Directive) -> Answer {
    if d.key == "connection" {
        plan.bridge = Some(d.word().to_owned());
        return left(
            "simcast makes no bridges: let the other broker connect to this one, or run a bridge \
             beside it",
        );
    }
    if !d.key.starts_with("bridge_") && !left::BRIDGE_KEYS.contains(&d.key.as_str()) {
        return None;
    }
    Some(match &plan.bridge {
        Some(name) => Ok(Outcome::Left(format!("part of bridge `{name}`"))),
        None => Err("stands before any `connection`".to_owned()),
    })
}

/// What mosquitto leaves open and simcast bounds, as large as it makes sense.
pub(super) const ENDLESS_MESSAGES: u64 = 1_000_000;
pub(super) const ENDLESS_BYTES: u64 = 1 << 30;
/// MQTT has no larger packet.
pub(super) const LARGEST_PACKET_BYTES: u64 = 268_435_460;
const LARGEST_PAYLOAD_BYTES: u64 = 268_435_455;

fn left(why: &str) -> Answer {
    Some(Ok(Outcome::Left(why.to_owned())))
}

fn taken(result: Result<(), String>) -> Answer {
    Some(result.map(|()| Outcome::Taken))
}

/// As a string of TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_secs(secs: u64) -> String {
    format!("\"{secs}s\"")
}

fn text(d: &Directive) -> Result<String, String> {
    if d.value.is_empty() { Err("has no value".to_owned()) } else { Ok(d.value.clone()) }
}

fn one_of(d: &Directive, values: &[&str]) -> Result<String, String> {
    if values.contains(&d.word()) {
        return Ok(d.word().to_owned());
    }
    Err(format!("must be one of {}", values.join(", ")))
}

fn yes_no(d: &Directive) -> Result<bool, String> {
    match d.word() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

fn number<T: TryFrom<i64>>(d: &Directive, min: i64, max: impl TryInto<i64>) -> Result<T, String> {
    let max = max.try_into().unwrap_or(i64::MAX);
    let number = d.word().parse().ok().filter(|number| (min..=max).contains(number));
    let number = number.and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| format!("must be a number from {min} to {max}"))
}

/// `14d`: hours, days, weeks, months, years; in seconds, and no longer than simcast counts.
fn period(d: &Directive) -> Result<u64, String> {
    let wrong = || "must be a number and one of h, d, w, m, y".to_owned();
    let word = d.word();
    let unit = word.chars().last().ok_or_else(wrong)?;
    let count: u64 = word[..word.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    let days = match unit {
        'h' => return Ok((count.saturating_mul(3600)).clamp(1, LONGEST_EXPIRY_SECS)),
        'd' => 1,
        'w' => 7,
        'm' => 30,
        'y' => 365,
        _ => return Err(wrong()),
    };
    Ok(count.saturating_mul(days * 86_400).clamp(1, LONGEST_EXPIRY_SECS))
}

/// The longest that is not for ever, in MQTT.
pub(super) const LONGEST_EXPIRY_SECS: u64 = 4_294_967_294;

impl Users {
    /// Nobody needs to say who it is.
    pub(super) fn is_open(&self, without_listeners: bool) -> bool {
        self.allow_anonymous.unwrap_or(without_listeners)
    }
}
