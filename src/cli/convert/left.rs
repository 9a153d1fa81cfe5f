//! Directives without a counterpart, and what to do about each.

/// Keys of bridges that do not begin with `bridge_`.
pub(super) const BRIDGE_KEYS: &[&str] = &[
    "address",
    "addresses",
    "cleansession",
    "clientid",
    "idle_timeout",
    "keepalive_interval",
    "local_cleansession",
    "local_clientid",
    "local_password",
    "local_username",
    "notification_topic",
    "notifications",
    "notifications_local_only",
    "password",
    "remote_clientid",
    "remote_password",
    "remote_username",
    "restart_timeout",
    "round_robin",
    "start_type",
    "threshold",
    "topic",
    "try_private",
    "username",
];

const STORE: &str = "simcast writes down each message before it acknowledges it";
const LOG: &str = "simcast writes its log to standard error: leave the rest to journald, or to \
                   whatever starts it";
const SERVICE: &str = "leave it to systemd, or to whatever starts simcast";
const CIPHERS: &str = "simcast chooses: TLS 1.3, and what is safe of TLS 1.2";
const PLUGIN: &str = "simcast loads no plugins: see to it who may connect, and do what";
const ENGINE: &str = "keys are read from files alone";
const NOTHING: &str = "nothing to be done: it had no effect any more";

/// Why a directive is not taken over; `None` for one that mosquitto does not know either.
pub(super) fn why(key: &str) -> Option<String> {
    let plugin = ["auth_opt_", "plugin_opt_"].iter().any(|prefix| key.starts_with(prefix));
    let known = LEFT.iter().find(|(name, _)| *name == key).map(|(_, why)| *why);
    known.or(plugin.then_some(PLUGIN)).map(str::to_owned)
}

const LEFT: &[(&str, &str)] = &[
    ("auth_plugin_deny_special_chars", PLUGIN),
    ("autosave_interval", STORE),
    ("autosave_on_changes", STORE),
    ("check_retain_source", "the publisher's rights are always looked at"),
    ("ciphers", CIPHERS),
    ("ciphers_tls1.3", CIPHERS),
    ("connection_messages", "who comes and goes is logged; `[log] level = \"warn\"` is quiet"),
    ("dhparamfile", NOTHING),
    ("disable_client_cert_date_checks", "certificates that have expired are refused"),
    ("enable_control_api", "there is no $CONTROL"),
    ("log_dest", LOG),
    ("log_facility", LOG),
    ("log_timestamp", LOG),
    ("log_timestamp_format", LOG),
    ("max_inflight_bytes", "messages under way are bounded by number: `[limits] max_inflight`"),
    ("memory_limit", "use MemoryMax= of systemd; each queue has its own bound in `[limits]`"),
    ("persistence_file", "the store is a directory: `[store] path`"),
    ("pid_file", SERVICE),
    ("plugin_use", PLUGIN),
    ("psk_file", "simcast has no pre-shared keys: give the devices certificates"),
    ("queue_qos0_messages", "QoS 0 does not wait for clients that are away: publish with QoS 1"),
    ("retain_expiry_interval", "publish with a Message Expiry Interval (MQTT 5)"),
    ("retained_persistence", "what is retained is kept wherever anything is: see `[store]`"),
    ("retry_interval", NOTHING),
    ("set_tcp_nodelay", "always on"),
    ("tls_engine_kpass_sha1", ENGINE),
    (
        "upgrade_outgoing_qos",
        "subscriptions get at most the QoS of the publish, as the standard says",
    ),
    ("user", SERVICE),
    ("websockets_log_level", LOG),
];
