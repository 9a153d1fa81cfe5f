//! Tests of the whole file format.

use std::time::Duration;

use super::*;
use crate::ids::{Gid, NidScheme};
use crate::mqtt::{QoS, Version};
use crate::rsp::{Initiator, Mode, Peer, Scope};

/// Every documented key, none with its default.
const EVERY_KEY: &str = r#"
[[listener]]
bind = "0.0.0.0:8883"
allow_anonymous = true
max_connections = 5
protocol = "websocket"
proxy_protocol = "v2"
proxy_require_tls = true
mount_point = "site/"
user_name_from = "subject"
client_id_is_user_name = true
client_id_prefixes = ["dev-"]
versions = ["3.1.1", "5"]
max_qos = 1
websocket_origins = ["https://example.com"]
[listener.auth]
acl_file = "acl"
subscribe = "deny"
[listener.tls]
cert = "broker.pem"
key = "broker.key"
chain = "ca.pem"
client_ca = "ca.pem"
require_client_cert = false
crl = "crl.pem"
min_version = "1.3"
servers = ["cn=sm-sr.example", "ou=SM-SR", "san=urn:x:y"]

[[listener]]
bind = "unix:rig.sock"
insecure_identity_from_client_id = true
servers_by_client_id = ["sm-sr"]
auth = {}

[limits]
max_packet_size = "1MiB"
max_inflight = 21
receive_maximum = 22
topic_alias_maximum = 0
max_queued_messages = 23
max_queued_bytes = "24KiB"
max_keepalive = "20m"
max_topic_levels = 25
max_subscriptions = 26
max_subscription_bytes = "39KiB"
max_client_id_bytes = 27
connect_timeout = "28s"
max_connections = 29
connect_rate = 35
max_websocket_handshake_bytes = "36KiB"
max_retained_per_client = 37
topic_alias_maximum_outbound = 38
max_sessions = 30
max_session_expiry = "31d"
max_retained_messages = 32
max_retained_bytes = 33
write_buffer = "34KiB"
drain_timeout = "250ms"

[mqtt]
check_payload_format = true
response_information = "answers/%c"
retain = false
empty_client_id = false
assigned_client_id_prefix = "x-"
password_without_user_name = true
empty_user_name_is_anonymous = true
missing_user_name = true
bridge_protocol_bit = false
bridge_notifications = true
qos_exceeded = "disconnect"
receive_maximum_exceeded = "warn"
denied_publish = "disconnect"
keepalive_exceeded = "refuse"
overlapping = "each"

[auth]
password_file = "passwords"
acl_file = "acl"
max_failures = 3

[sys]
interval = "11s"

[rsp]
to_euicc = "down"
to_sm_sr = "up"
registry = "devices.csv"
proof_issuers = ["ca.pem", "ci.pem"]
nid = "decimal"
mail_ttl = "7d"
close_on_identity_violation = false
server_inbox_messages_max = 41
server_inbox_bytes_max = "42MiB"
server_absence_max = "48s"
unscoped_servers = "none"
mail_messages_max = 43
mail_bytes_max = "44KiB"
group_messages_max = 45
group_bytes_max = "46KiB"
open_requests_max = 47
body_bytes_max = "4KiB"
stamp = "member"
retire = true
[rsp.settings]
initiator = "server"
mode = "single"
peer = "off"
ttl = { trigger = "1h", msg = "2h", exchange = "5m" }
[rsp.group.42]
initiator = "client"
mode = "multi"
peer = "server-triggered"
ttl = { exchange = "1m" }
[rsp.server."sm-sr-a.example"]
groups = [77, 42, "18446744073709551615"]

[admin]
bind = "127.0.0.1:9000"
token_file = "token"
read_token_file = "read-token"
[admin.tls]
cert = "broker.pem"
key = "broker.key"
client_ca = "ca.pem"
crl = "crl.pem"
operators = ["ou=operators"]
min_version = "1.3"

[audit]
path = "log/audit.log"
max_bytes = "1MiB"
keep = 48
recent = 49

[log]
format = "json"
level = "debug"
"#;

fn mistakes(text: &str) -> Vec<(String, Option<usize>, String)> {
    let errors = Config::from_toml(text, Path::new("/nowhere")).unwrap_err();
    errors.mistakes.into_iter().map(|m| (m.key, m.line, m.message)).collect()
}

fn the_mistake(text: &str) -> (String, Option<usize>, String) {
    let mut found = mistakes(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

#[test]
fn every_documented_key_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["broker.pem", "broker.key", "ca.pem", "crl.pem", "devices.csv", "passwords"];
    for name in files.into_iter().chain(["acl", "ci.pem", "simcast.toml"]) {
        std::fs::write(dir.path().join(name), EVERY_KEY).unwrap();
    }
    for name in ["token", "read-token"] {
        write_secret(dir.path(), name, &format!("{name}-of-this-test"));
    }
    let config = Config::load(&dir.path().join("simcast.toml")).unwrap();

    let [secure, rig] = &config.listeners[..] else { panic!("two listeners") };
    let tls = secure.tls.as_ref().unwrap();
    assert_eq!((secure.max_connections, secure.allow_anonymous), (5, true));
    assert_eq!(tls.cert, dir.path().join("broker.pem"), "relative to the file");
    assert_eq!(tls.chain, Some(dir.path().join("ca.pem")));
    assert_eq!(tls.crl, Some(dir.path().join("crl.pem")));
    assert!(!tls.requires_client_cert());
    assert_eq!(tls.min_version, TlsVersion::V1_3);
    assert_eq!(
        tls.servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["cn=sm-sr.example", "ou=SM-SR", "san=urn:x:y"]
    );
    assert_eq!(rig.servers_by_client_id, ["sm-sr"]);
    assert_eq!(rig.bind, Bind::Unix(dir.path().join("rig.sock")));
    check_listener(secure, &config, dir.path());
    check_mqtt(&config.mqtt);
    assert_eq!(config.sys.interval, Duration::from_secs(11));
    check_admin(&config.admin, dir.path());
    assert_eq!(config.log, Log { format: LogFormat::Json, level: LogLevel::Debug });
    let path = Some(dir.path().join("log/audit.log"));
    assert_eq!(config.audit, Audit { path, max_bytes: 1 << 20, keep: 48, recent: 49 });
    check_limits(&config.limits);
    check_rsp(&config.rsp, dir.path());
}

/// A file that its owner alone may read.
fn write_secret(dir: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(dir.join(name), text).unwrap();
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(dir.join(name), mode).unwrap();
}

fn check_admin(admin: &Admin, dir: &Path) {
    let tls = AdminTls {
        cert: dir.join("broker.pem"),
        key: dir.join("broker.key"),
        client_ca: Some(dir.join("ca.pem")),
        crl: Some(dir.join("crl.pem")),
        operators: vec![ServerRule::OrganizationalUnit("operators".to_owned())],
        min_version: TlsVersion::V1_3,
    };
    let expected = Admin {
        bind: Some("127.0.0.1:9000".parse().unwrap()),
        token_file: Some(dir.join("token")),
        read_token_file: Some(dir.join("read-token")),
        tls: Some(tls),
    };
    assert_eq!(*admin, expected);
}

fn check_listener(listener: &Listener, config: &Config, dir: &Path) {
    assert_eq!(listener.bind.to_string(), "0.0.0.0:8883");
    assert_eq!(listener.protocol, Protocol::Websocket);
    assert_eq!((listener.proxy_protocol, listener.proxy_require_tls), (ProxyProtocol::V2, true));
    assert_eq!(listener.mount_point, "site/");
    assert_eq!(listener.user_name_from, UserNameFrom::Subject);
    assert!(listener.client_id_is_user_name);
    assert_eq!(listener.client_id_prefixes, ["dev-"]);
    assert_eq!(listener.versions, [Version::V311, Version::V5]);
    assert_eq!(listener.max_qos, QoS::AtLeastOnce);
    assert_eq!(listener.websocket_origins, ["https://example.com"]);
    let own = Auth {
        password_file: None,
        acl_file: Some(dir.join("acl")),
        subscribe: WiderSubscription::Deny,
        max_failures: 10,
    };
    assert_eq!(config.auth_of(listener), &own);
    assert_eq!(config.auth_of(&config.listeners[1]), &Auth::default(), "its own, and empty");
    let without_own = Listener { auth: None, ..listener.clone() };
    let common = config.auth_of(&without_own);
    assert_eq!(common.password_file, Some(dir.join("passwords")));
    assert_eq!((common.subscribe, common.max_failures), (WiderSubscription::Filter, 3));
}

fn check_mqtt(mqtt: &Mqtt) {
    let expected = Mqtt {
        check_payload_format: true,
        response_information: "answers/%c".to_owned(),
        retain: false,
        empty_client_id: false,
        assigned_client_id_prefix: "x-".to_owned(),
        password_without_user_name: true,
        empty_user_name_is_anonymous: true,
        missing_user_name: true,
        bridge_protocol_bit: false,
        bridge_notifications: true,
        qos_exceeded: DropOrDisconnect::Disconnect,
        receive_maximum_exceeded: WarnOrDisconnect::Warn,
        denied_publish: DropOrDisconnect::Disconnect,
        keepalive_exceeded: KeepOrRefuse::Refuse,
        overlapping: Overlapping::Each,
    };
    assert_eq!(*mqtt, expected);
}

fn check_limits(limits: &Limits) {
    let expected = Limits {
        max_packet_size: 1 << 20,
        max_inflight: 21,
        receive_maximum: 22,
        topic_alias_maximum: 0,
        max_queued_messages: 23,
        max_queued_bytes: 24 << 10,
        max_keepalive: Duration::from_secs(1_200),
        max_topic_levels: 25,
        max_subscriptions: 26,
        max_subscription_bytes: 39 << 10,
        max_client_id_bytes: 27,
        connect_timeout: Duration::from_secs(28),
        max_connections: 29,
        max_sessions: 30,
        max_session_expiry: Duration::from_secs(31 * 86_400),
        max_retained_messages: 32,
        max_retained_bytes: 33,
        write_buffer: 34 << 10,
        drain_timeout: Duration::from_millis(250),
        connect_rate: 35,
        max_websocket_handshake_bytes: 36 << 10,
        max_retained_per_client: 37,
        topic_alias_maximum_outbound: 38,
    };
    assert_eq!(*limits, expected);
}

fn check_rsp(rsp: &Rsp, dir: &Path) {
    assert_eq!((rsp.to_euicc.as_str(), rsp.to_sm_sr.as_str()), ("down", "up"));
    assert_eq!(rsp.registry, Some(dir.join("devices.csv")));
    assert_eq!(rsp.proof_issuers, [dir.join("ca.pem"), dir.join("ci.pem")]);
    assert_eq!((rsp.nid, rsp.close_on_identity_violation), (NidScheme::Decimal, false));
    assert_eq!(rsp.mail_ttl, Duration::from_secs(604_800));
    assert_eq!((rsp.server_inbox_messages_max, rsp.server_inbox_bytes_max), (41, 42 << 20));
    assert_eq!(rsp.server_absence_max, Duration::from_secs(48));
    assert_eq!((rsp.mail_messages_max, rsp.mail_bytes_max), (43, 44 << 10));
    assert_eq!((rsp.group_messages_max, rsp.group_bytes_max), (45, 46 << 10));
    assert_eq!((rsp.open_requests_max, rsp.body_bytes_max), (47, 4 << 10));

    assert_eq!((rsp.stamp, rsp.retire), (Stamp::Member, true));
    let table = rsp.settings_table();
    let common = table.of_group(Gid::new(7).unwrap());
    assert_eq!((common.initiator, common.mode), (Initiator::Server, Mode::Single));
    assert_eq!((common.peer, common.ttl.trigger), (Peer::Off, Duration::from_secs(3_600)));
    let own = table.of_group(Gid::new(42).unwrap());
    assert_eq!(
        (own.initiator, own.mode, own.peer),
        (Initiator::Client, Mode::Multi, Peer::ServerTriggered)
    );
    assert_eq!(own.ttl.exchange, Duration::from_secs(60));
    assert_eq!(own.ttl.msg, Duration::from_secs(7_200), "what a group leaves out is common");

    let scopes = rsp.server_scopes();
    let groups = [42, 77, u64::MAX].map(|number| Gid::new(number).unwrap());
    assert_eq!(scopes.of("sm-sr-a.example"), &Scope::groups(groups));
    assert_eq!(scopes.of("sm-sr-b.example"), &Scope::none());
}

#[test]
fn servers_speak_with_every_device_where_nothing_else_is_said() {
    let scopes = Config::default().rsp.server_scopes();
    assert_eq!(scopes.of("sm-sr.example"), &Scope::All);
    let text = "[rsp.server.a]\ngroups = [42]\n";
    let scopes = Config::from_toml(text, Path::new("")).unwrap().rsp.server_scopes();
    assert_eq!(scopes.of("a"), &Scope::groups(Gid::new(42)));
    assert_eq!(scopes.of("b"), &Scope::All);
}

#[test]
fn a_scope_that_is_none_is_named_with_its_line() {
    let text = "[rsp]\nunscoped_servers = \"nobody\"\nserver_absence_max = 5\n\
                [rsp.server.\"a.example\"]\ngroup = [1]\n\
                [rsp.server.b]\ngroups = [1,\n 0]\n[rsp.server.c]\ngroups = [-1]\n\
                [rsp.server.d]\ngroups = [\"x\"]\n[rsp.server.e]\ngroups = 7\n\
                [rsp.server.f]\n";
    let found = mistakes(text);
    let keys: Vec<_> = found.iter().map(|(key, line, _)| (key.as_str(), line.unwrap())).collect();
    assert_eq!(
        keys,
        [
            ("rsp.unscoped_servers", 2),
            ("rsp.server_absence_max", 3),
            ("rsp.server.a.example.group", 5),
            ("rsp.server.b.groups", 8),
            ("rsp.server.c.groups", 10),
            ("rsp.server.d.groups", 12),
            ("rsp.server.e.groups", 14),
            ("rsp.server.f", 15),
        ]
    );
    assert_eq!(found[2].2, "unknown key `group`; did you mean `groups`?");
    for (_, _, message) in &found[3..6] {
        assert!(
            message.ends_with(
                "expected the number of a group, from 1 to \
                                   18446744073709551615"
            ),
            "{message}"
        );
    }

    let found =
        mistakes("[rsp.server.\"a.example\"]\ngroups = []\n[rsp.server.\"\"]\ngroups = [1]\n");
    let keys: Vec<_> = found.iter().map(|(key, line, _)| (key.as_str(), line.unwrap())).collect();
    assert_eq!(keys, [("rsp.server.a.example.groups", 2), ("rsp.server.", 3)]);
}

#[test]
fn an_empty_file_is_a_loopback_broker() {
    // case O6
    let config = Config::from_toml("", Path::new("")).unwrap();
    assert_eq!(config, Config::default());
    assert!(
        config.listeners.iter().all(|listener| listener.bind.tcp().unwrap().ip().is_loopback())
    );
}

#[test]
fn development_mode_lacks_nothing_but_its_certificates() {
    let mut config = Config::development();
    let tls = config.listeners[1].tls.as_mut().unwrap();
    assert!(tls.requires_client_cert());
    for path in [Some(&mut tls.cert), Some(&mut tls.key), tls.client_ca.as_mut(), tls.crl.as_mut()]
    {
        let path = path.unwrap();
        assert!(path.starts_with("certs/dev"), "{}", path.display());
        *path = PathBuf::from("/dev/null");
    }
    config.rsp.registry = None;
    config.validate().unwrap();
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    // case O5
    let text = "[limits]\nmax_inflght = 5\n";
    let message = "unknown key `max_inflght`; did you mean `max_inflight`?".to_owned();
    assert_eq!(the_mistake(text), ("limits.max_inflght".to_owned(), Some(2), message));

    let text = "\n[[listener]]\nbind = \"127.0.0.1:1\"\nallow_anonymous = true\nbindd = 1\n";
    let message = "unknown key `bindd`; did you mean `bind`?".to_owned();
    assert_eq!(the_mistake(text), ("listener[0].bindd".to_owned(), Some(5), message));

    let (key, line, message) = the_mistake("[limit]\nmax_inflight = 5\n");
    assert_eq!((key.as_str(), line), ("limit", Some(1)));
    assert_eq!(message, "unknown key `limit`; did you mean `limits`?");

    let (key, line, message) = the_mistake("[rsp.settings]\nmode = \"mutli\"\n");
    assert_eq!((key.as_str(), line), ("rsp.settings.mode", Some(2)));
    assert_eq!(message, "unknown value `mutli`; did you mean `multi`?");
}

#[test]
fn all_mistakes_of_a_text_are_found_at_once() {
    let text = "[limits]\nmax_inflight = \"many\"\nconnect_timeout = 30\n\
                [log]\nlevle = \"info\"\n[admin]\nbind = \"localhost\"\n\
                [rsp.settings]\nttl = { trigger = \"1y\" }\n[rsp.group.0]\nmode = \"any\"\n\
                [[listener]]\nbind = \"1883\"\n[listener.tls]\nservers = [\"cn=a\", \"dn=b\"]\n";
    let found = mistakes(text);
    let keys: Vec<_> = found.iter().map(|(key, line, _)| (key.as_str(), line.unwrap())).collect();
    assert_eq!(
        keys,
        [
            ("limits.max_inflight", 2),
            ("limits.connect_timeout", 3),
            ("log.levle", 5),
            ("admin.bind", 7),
            ("rsp.settings.ttl.trigger", 9),
            ("rsp.group.0", 10),
            ("listener[0].bind", 13),
            ("listener[0].tls.servers", 15),
        ]
    );
}

#[test]
fn no_text_is_a_panic() {
    // case P31
    for end in (0..EVERY_KEY.len() - 3).step_by(3) {
        let cut = Config::from_toml(&EVERY_KEY[..end], Path::new("/nowhere"));
        let swapped = EVERY_KEY.replace(&EVERY_KEY[end..][..3], "]=\"");
        let swapped = Config::from_toml(&swapped, Path::new("/nowhere"));
        for errors in [cut.err(), swapped.err()].into_iter().flatten() {
            assert!(!errors.mistakes.is_empty());
        }
    }
}

#[test]
fn syntax_errors_have_lines() {
    let found = mistakes("[limits]\nmax_inflight = 1 2\n[log]\nlevel = \"info\n[rsp\n");
    assert_eq!(found.iter().map(|(_, line, _)| line.unwrap()).collect::<Vec<_>>(), [2, 4, 5]);
    assert_eq!(mistakes("[log]\n[log]\n")[0].1, Some(2), "a section twice");
}

#[test]
fn what_is_missing_is_named_once() {
    let (key, line, message) = the_mistake("[[listener]]\nallow_anonymous = true\n");
    assert_eq!((key.as_str(), line, message.as_str()), ("listener", Some(1), "missing key `bind`"));
    let text = "[[listener]]\nbind = \"127.0.0.1:1\"\n[listener.tls]\ncert = 1\nkey = \"k\"\n";
    assert_eq!(the_mistake(text).0, "listener[0].tls.cert", "wrong is not missing");
}

#[test]
fn a_contradiction_with_a_default_is_on_the_line_that_says_something() {
    // case P31
    for (text, key) in [
        ("\n[limits]\nmax_packet_size = 2\n", "rsp.body_bytes_max"),
        ("[[listener]]\nallow_anonymous = true\nbind = \"127.0.0.1:9883\"\n", "admin.bind"),
    ] {
        let errors = Config::from_toml(text, Path::new("")).unwrap_err();
        let [mistake] = &errors.mistakes[..] else { panic!("{errors}") };
        assert_eq!((&*mistake.key, mistake.line), (key, Some(3)), "{errors}");
    }
}

const CONTRADICTIONS: &str = r#"
[[listener]]
bind = "0.0.0.0:8883"
max_connections = 0
servers_by_client_id = ["a"]
[listener.tls]
cert = "a.pem"
key = "a.key"
crl = "a.crl"
servers = ["cn=a"]
require_client_cert = true
[[listener]]
bind = "127.0.0.1:8883"
allow_anonymous = true
[limits]
max_packet_size = "1GiB"
max_keepalive = "1d"
max_session_expiry = "99999d"
connect_timeout = "0s"
max_client_id_bytes = 70000
[rsp]
to_euicc = "a/#"
to_sm_sr = "a/#"
registry = "absent.csv"
proof_issuers = [
    "/dev/null",
    "absent.pem",
    "/dev",
]
body_bytes_max = "5MiB"
[rsp.group.7]
ttl = { msg = "0s" }
[admin]
bind = "0.0.0.0:9883"
[audit]
path = "absent/audit.log"
max_bytes = 65535
keep = 0
recent = 0
"#;

#[test]
fn all_contradictions_are_found_at_once() {
    let found = mistakes(CONTRADICTIONS);
    let keys: Vec<_> = found.iter().map(|(key, line, _)| (key.as_str(), line.unwrap())).collect();
    assert_eq!(
        keys,
        [
            ("listener[0].allow_anonymous", 2),
            ("listener[0].max_connections", 4),
            ("listener[0].servers_by_client_id", 5),
            ("listener[0].tls.cert", 7),
            ("listener[0].tls.key", 8),
            ("listener[0].tls.crl", 9),
            ("listener[0].tls.crl", 9),
            ("listener[0].tls.servers", 10),
            ("listener[0].tls.require_client_cert", 11),
            ("listener[1].bind", 13),
            ("limits.max_packet_size", 16),
            ("limits.max_keepalive", 17),
            ("limits.max_session_expiry", 18),
            ("limits.connect_timeout", 19),
            ("limits.max_client_id_bytes", 20),
            ("rsp.to_euicc", 22),
            ("rsp.to_sm_sr", 23),
            ("rsp.to_sm_sr", 23),
            ("rsp.registry", 24),
            ("rsp.proof_issuers[1]", 27),
            ("rsp.proof_issuers[2]", 28),
            ("rsp.body_bytes_max", 30),
            ("rsp.group.7.ttl.msg", 32),
            ("admin.bind", 34),
            ("audit.path", 36),
            ("audit.max_bytes", 37),
            ("audit.keep", 38),
            ("audit.recent", 39),
        ]
    );
}

#[test]
fn an_identity_is_taken_from_one_place() {
    let text = "[[listener]]\nbind = \"127.0.0.1:1883\"\n\
                insecure_identity_from_client_id = true\n\
                tls = { cert = \"/dev/null\", key = \"/dev/null\", client_ca = \"/dev/null\" }\n";
    let (key, line, _) = the_mistake(text);
    assert_eq!((key.as_str(), line), ("listener[0].insecure_identity_from_client_id", Some(3)));
}

#[test]
fn the_audit_log_may_make_its_folder_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let read = |path: &str| {
        Config::from_toml(&format!("[audit]\npath = \"{path}\"\n"), dir.path())
            .map(|config| config.audit.path)
            .map_err(|errors| errors.to_string())
    };
    for path in ["audit.log", "new/audit.log", "file", "/new/audit.log"] {
        assert_eq!(read(path), Ok(Some(dir.path().join(path))), "{path}");
    }
    for (path, message) in [
        ("new/er/audit.log", "there is no directory"),
        ("file/audit.log", "is no directory"),
        ("file/new/audit.log", "there is no directory"),
        (".", "is a directory"),
        ("new/..", "is a directory"),
    ] {
        let error = read(path).unwrap_err();
        assert!(error.starts_with("line 2: audit.path: ") && error.contains(message), "{error}");
    }
    let (key, line, message) = the_mistake("[audit]\nkeep = 1001\nmax_bytes = \"64KiB\"\n");
    assert_eq!((&*key, line, &*message), ("audit.keep", Some(2), "at most 1000"));
}

#[test]
fn errors_print_as_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("simcast.toml");
    std::fs::write(&path, "[log]\nlevle = 1\n").unwrap();
    let expected =
        format!("{}:2: log.levle: unknown key `levle`; did you mean `level`?", path.display());
    assert_eq!(Config::load(&path).unwrap_err().to_string(), expected);
    let absent = dir.path().join("absent.toml");
    assert!(Config::load(&absent).unwrap_err().to_string().contains("No such file"));
}

#[test]
fn the_api_is_elsewhere_only_with_tls_and_a_proof() {
    // case S16
    let dir = tempfile::tempdir().unwrap();
    for name in ["c", "k", "ca"] {
        std::fs::write(dir.path().join(name), name).unwrap();
    }
    write_secret(dir.path(), "token", "0123456789abcdef");
    let wrong = |text: &str| -> Vec<String> {
        let errors = Config::from_toml(&format!("[admin]\n{text}"), dir.path());
        let mistakes = errors.err().map(|errors| errors.mistakes).unwrap_or_default();
        mistakes.into_iter().map(|mistake| mistake.key).collect()
    };
    let tls = "tls = { cert = \"c\", key = \"k\" }\n";
    let client_ca = "tls = { cert = \"c\", key = \"k\", client_ca = \"ca\" }\n";
    let token = "token_file = \"token\"\n";
    let read_token = "read_token_file = \"token\"\n";
    for here in ["127.0.0.1:0", "127.8.0.1:0", "[::1]:0"] {
        for more in ["", tls, client_ca, token, &format!("{tls}{read_token}")] {
            assert_eq!(wrong(&format!("bind = \"{here}\"\n{more}")), [""; 0], "{here} {more}");
        }
    }
    for elsewhere in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        for more in ["", tls, token, read_token] {
            let keys = wrong(&format!("bind = \"{elsewhere}\"\n{more}"));
            assert_eq!(keys, ["admin.bind"], "{elsewhere} {more}");
        }
        for more in [client_ca, &format!("{tls}{token}"), &format!("{tls}{read_token}")] {
            assert_eq!(wrong(&format!("bind = \"{elsewhere}\"\n{more}")), [""; 0], "{more}");
        }
    }
}

#[test]
fn an_api_that_everybody_could_use_by_mistake_is_refused() {
    // case S16
    let dir = tempfile::tempdir().unwrap();
    let files =
        [("c", "c"), ("k", "k"), ("ca", "ca"), ("copy", "ca"), ("open", "0123456789abcdef")];
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    write_secret(dir.path(), "token", "0123456789abcdef");
    write_secret(dir.path(), "again", "0123456789abcdef\n");
    write_secret(dir.path(), "short", "0123456789abcde");
    let listener = "[[listener]]\nbind = \"127.0.0.1:1\"\n[listener.tls]\ncert = \"c\"\n\
                    key = \"k\"\nclient_ca = \"ca\"\n";
    let with = |ca: &str, more: &str| {
        format!("{listener}[admin.tls]\ncert = \"c\"\nkey = \"k\"\nclient_ca = \"{ca}\"\n{more}")
    };
    let cases = [
        ("[admin]\ntoken_file = \"open\"\n".to_owned(), "admin.token_file"),
        ("[admin]\ntoken_file = \"short\"\n".to_owned(), "admin.token_file"),
        ("[admin]\nread_token_file = \"none\"\n".to_owned(), "admin.read_token_file"),
        (
            "[admin]\ntoken_file = \"token\"\nread_token_file = \"again\"\n".to_owned(),
            "admin.read_token_file",
        ),
        (with("ca", ""), "admin.tls.client_ca"),
        (with("copy", ""), "admin.tls.client_ca"),
        ("[admin]\ntls = { cert = \"c\", key = \"k\", crl = \"c\" }\n".into(), "admin.tls.crl"),
        (
            "[admin]\ntls = { cert = \"c\", key = \"k\", operators = [\"cn=a\"] }\n".into(),
            "admin.tls.operators",
        ),
    ];
    for (text, key) in cases {
        let errors = Config::from_toml(&text, dir.path()).unwrap_err();
        let keys: Vec<&str> = errors.mistakes.iter().map(|mistake| &*mistake.key).collect();
        assert_eq!(keys, [key], "{text}");
        assert!(!errors.to_string().contains("0123456789abcde"), "case S18: {errors}");
    }
    assert!(Config::from_toml(&with("ca", "operators = [\"ou=ops\"]\n"), dir.path()).is_ok());
    assert!(Config::from_toml(&with("c", ""), dir.path()).is_ok(), "another CA");
}

#[test]
fn the_admin_side_can_be_off() {
    let config = Config::from_toml("[admin]\nbind = \"off\"\n", Path::new("")).unwrap();
    assert_eq!(config.admin.bind, None);
}

#[test]
fn only_a_program_may_do_without_listeners() {
    assert_eq!(Config::from_toml("", Path::new("")).unwrap().listeners.len(), 1);
    let mistake = the_mistake("\nlistener = []\n");
    assert_eq!(mistake, ("listener".to_owned(), Some(2), "there is none".to_owned()));
    let config = Config::without_sockets();
    config.validate().unwrap();
    assert!(config.listeners.is_empty() && config.admin.bind.is_none());
}

#[test]
fn the_configuration_of_the_readme_is_one() {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("```toml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let errors = Config::from_toml(text, Path::new("/nowhere")).unwrap_err();
    // All that is wrong with it here is that its files do not exist.
    for mistake in &errors.mistakes {
        assert!(mistake.message.contains("/nowhere"), "{mistake}");
    }
    assert!(!errors.mistakes.is_empty());
}
