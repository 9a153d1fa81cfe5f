//! Texts of mosquitto and what becomes of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use proptest::prelude::*;

use super::doors::Machine;
use super::plan::Plan;
use super::source::{self, directives};
use super::text::{Converted, write};
use crate::config::{Bind, Config, Overlapping, Protocol, ProxyProtocol, UserNameFrom};
use crate::mqtt::{QoS, Version};

fn machine() -> Machine {
    Machine {
        ipv6: true,
        cwd: "/somewhere".into(),
        resolve: |host| match host {
            "localhost" => vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()],
            "broker.example" => vec![IpAddr::from([192, 0, 2, 7])],
            _ => Vec::new(),
        },
    }
}

fn plan(text: &str) -> Plan {
    Plan::of(&directives(text, Path::new("/etc/mosquitto/mosquitto.conf")))
}

fn convert(text: &str) -> Converted {
    let plan = plan(text);
    assert_eq!(plan.broken, [], "{text}");
    write(&plan, Path::new("/etc/mosquitto/mosquitto.conf"), &machine())
}

/// The configuration; files that are named have to exist.
fn config(text: &str) -> Config {
    let converted = convert(text);
    let config = Config::from_toml(&converted.text, Path::new("/"));
    config.unwrap_or_else(|errors| panic!("{errors}\n{}", converted.text))
}

fn binds(config: &Config) -> Vec<String> {
    config.listeners.iter().map(|listener| listener.bind.to_string()).collect()
}

/// What is not taken over, as `line key`.
fn left(text: &str) -> Vec<String> {
    let notes = convert(text).notes;
    notes.iter().map(|note| format!("{} {}", note.place.line, note.key)).collect()
}

fn broken(text: &str) -> Vec<String> {
    plan(text).broken.iter().map(|note| format!("{}: {}", note.place, note.text)).collect()
}

#[test]
fn without_a_listener_this_machine_is_served_and_everybody_on_it() {
    for text in ["", "max_connections 7\n", "require_certificate true\r\n"] {
        let config = config(text);
        assert_eq!(binds(&config), ["127.0.0.1:1883", "[::1]:1883"]);
        assert!(config.listeners.iter().all(|listener| listener.allow_anonymous));
    }
    let closed = convert("allow_anonymous false\n");
    assert!(closed.text.contains("allow_anonymous = false"));
    let one = write(&plan(""), Path::new("x"), &Machine { ipv6: false, ..machine() });
    assert_eq!(one.text.matches("[[listener]]").count(), 1);
}

#[test]
fn a_listener_is_open_to_nobody_unless_somebody_is_named() {
    let closed = convert("listener 1883\n");
    assert_eq!(closed.listeners, 0);
    assert_eq!(closed.notes[0].place.line, 1);
    assert!(closed.notes[0].text.starts_with("left out: nobody could connect"));
    let open = config("listener 1883\nallow_anonymous true\n");
    assert!(open.listeners[0].allow_anonymous);
    let file = file!();
    let users = config(&format!("password_file {}\nport 1884\n", absolute(file)));
    assert!(!users.listeners[0].allow_anonymous);
    assert_eq!(users.auth.password_file.unwrap(), Path::new(&absolute(file)));
    // Plugins may have been all the security there was.
    let plugin = convert("listener 1883\nplugin /usr/lib/dynamic_security.so\nplugin_opt_x y\n");
    assert_eq!(plugin.listeners, 0);
    assert_eq!(plugin.notes.len(), 3);
}

#[test]
fn a_listener_is_left_out_rather_than_opened_further() {
    for rule in ["mount_point site", "mount_point $SYS/", "protocol http_api", "tls_engine x"] {
        let converted = convert(&format!("listener 1\nallow_anonymous true\n{rule}\n"));
        assert_eq!(converted.listeners, 0, "{rule}");
        assert!(converted.notes.iter().any(|note| note.text.starts_with("left out: ")), "{rule}");
    }
    // What a proxy tells of certificates is no name where mosquitto takes none from it.
    let file = absolute(file!());
    let text = format!("listener 1\nenable_proxy_protocol 2\npassword_file {file}\n");
    assert_eq!(config(&text).listeners[0].user_name_from, UserNameFrom::Password);
    let text = "listener 1\nallow_anonymous true\nproxy_protocol_v2_require_tls true\n\
                websockets_origin https://a.example\n";
    assert_eq!(config(text).listeners[0].proxy_protocol, ProxyProtocol::Off);
}

/// A file that exists.
fn absolute(file: &str) -> String {
    format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn addresses_become_sockets() {
    let open = "allow_anonymous true\n";
    let binds_of = |text: &str| binds(&config(&format!("{open}{text}")));
    assert_eq!(binds_of("listener 1883\n"), ["[::]:1883"]);
    assert_eq!(binds_of("listener 1883 # all\nsocket_domain ipv4\n"), ["0.0.0.0:1883"]);
    assert_eq!(binds_of("listener 1883 192.0.2.1\n"), ["192.0.2.1:1883"]);
    assert_eq!(binds_of("listener 1883 ::1\n"), ["[::1]:1883"]);
    assert_eq!(binds_of("listener 1 localhost\n"), ["127.0.0.1:1", "[::1]:1"]);
    assert_eq!(binds_of("listener 1 localhost\nsocket_domain ipv6\n"), ["[::1]:1"]);
    assert_eq!(binds_of("bind_address broker.example\n"), ["192.0.2.7:1883"]);
    assert_eq!(binds_of("port 1\nbind_address 192.0.2.1\nlistener 2\n"), ["192.0.2.1:1", "[::]:2"]);
    assert_eq!(binds_of("listener 0 /run/m.sock\n"), ["unix:/run/m.sock"]);
    assert_eq!(binds_of("listener 0 m.sock\n"), ["unix:/somewhere/m.sock"]);
    assert_eq!(left(&format!("{open}listener 1 nowhere.example\n")), ["2 listener"]);
}

#[test]
fn keys_belong_to_the_listener_before_them() {
    let config = config(
        "allow_anonymous true\nmax_qos 1\nlistener 1\nmount_point site/\nmax_connections 9\n\
         accept_protocol_versions 4, 5\nlistener 2\nprotocol websockets\n\
         websockets_origin https://a.example\nwebsockets_origin https://b.example\n\
         max_connections -1\nlistener 3\nenable_proxy_protocol 2\n\
         proxy_protocol_v2_require_tls true\nuse_username_as_clientid true\n",
    );
    assert_eq!(binds(&config), ["[::]:1883", "[::]:1", "[::]:2", "[::]:3"]);
    let [default, first, second, third] = &config.listeners[..] else { panic!() };
    assert_eq!(default.max_qos, QoS::AtLeastOnce);
    assert_eq!((first.mount_point.as_str(), first.max_connections), ("site/", 9));
    assert_eq!(first.versions, [Version::V311, Version::V5]);
    assert_eq!(first.max_qos, QoS::ExactlyOnce);
    assert_eq!(second.protocol, Protocol::Websocket);
    assert_eq!(second.websocket_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(third.proxy_protocol, ProxyProtocol::V2);
    assert!(third.proxy_require_tls && third.client_id_is_user_name);
}

#[test]
fn certificates_open_the_door_or_say_who_is_there() {
    let file = absolute(file!());
    let tls = format!("listener 8883\ncafile {file}\ncertfile {file}\nkeyfile {file}\n");
    let of = |more: &str| config(&format!("{tls}{more}")).listeners[0].clone();

    // mosquitto does not ask for certificates that it does not require.
    let listener = of("allow_anonymous true\n");
    assert!(listener.allow_anonymous && listener.tls.unwrap().client_ca.is_none());

    let required = "require_certificate true\n";
    let listener = of(&format!("{required}use_identity_as_username true\ncrlfile {file}\n"));
    assert_eq!((listener.allow_anonymous, listener.user_name_from), (false, UserNameFrom::Cn));
    let own = listener.tls.unwrap();
    assert!(own.requires_client_cert() && own.crl.is_some());
    let listener = of(&format!("{required}use_subject_as_username true\ntls_version tlsv1.3\n"));
    assert_eq!(listener.user_name_from, UserNameFrom::Subject);
    let listener = of(&format!("{required}password_file {file}\n"));
    assert_eq!(listener.user_name_from, UserNameFrom::Password);

    for nobody in [required, "use_identity_as_username true\n", "psk_hint x\n"] {
        let text = format!("{tls}{nobody}");
        assert_eq!(convert(&text).listeners, 0, "{nobody}");
    }
    let text = tls.replace("cafile", "capath");
    let converted = convert(&format!("{text}{required}use_identity_as_username true\n"));
    assert_eq!(converted.listeners, 0);
    assert!(converted.notes[0].text.contains("client_ca"), "{:?}", converted.notes);
}

#[test]
fn users_are_those_of_the_broker_or_of_each_listener() {
    let file = absolute(file!());
    let text = format!(
        "listener 1\nallow_anonymous true\nlistener 2\npassword_file {file}\nacl_file {file}\n"
    );
    let shared = config(&text);
    assert!(shared.listeners.iter().all(|listener| listener.allow_anonymous));
    assert!(shared.auth.password_file.is_some() && shared.auth.acl_file.is_some());
    let own = config(&format!("{text}per_listener_settings true\n"));
    let anonymous: Vec<bool> = own.listeners.iter().map(|l| l.allow_anonymous).collect();
    assert_eq!(anonymous, [true, false]);
    assert_eq!(own.auth.password_file, None);
    assert!(own.listeners[0].auth.is_none());
    assert!(own.listeners[1].auth.as_ref().unwrap().acl_file.is_some());
}

#[test]
fn bounds_are_mosquittos() {
    let defaults = config("").limits;
    assert_eq!(defaults.max_packet_size, 268_435_460, "2.0 has no bound");
    assert_eq!((defaults.max_inflight, defaults.max_queued_messages), (20, 1000));
    assert!(defaults.max_queued_bytes >= defaults.max_packet_size as usize);
    let config = config(
        "max_inflight_messages 0\nmax_queued_messages 5\nmax_queued_bytes 6000\n\
         max_packet_size 3000\nmax_keepalive 120\nglobal_max_connections 8\n\
         global_max_clients 9\npersistent_client_expiration 2m\nwebsockets_headers_size 9000\n\
         sys_interval 30\nretain_available false\nallow_zero_length_clientid false\n\
         auto_id_prefix dev-\nallow_duplicate_messages false\nclientid_prefixes dev\n",
    );
    let limits = &config.limits;
    assert_eq!((limits.max_inflight, limits.receive_maximum), (65_535, 65_535));
    assert_eq!((limits.max_queued_messages, limits.max_queued_bytes), (5, 6000));
    assert_eq!((limits.max_packet_size, config.rsp.body_bytes_max), (3000, 3000));
    assert_eq!((limits.max_connections, limits.max_sessions), (8, 9));
    assert_eq!(limits.max_session_expiry.as_secs(), 60 * 86_400);
    assert_eq!(limits.max_websocket_handshake_bytes, 9000);
    assert_eq!((limits.max_keepalive.as_secs(), config.sys.interval.as_secs()), (120, 30));
    assert!(!config.mqtt.retain && !config.mqtt.empty_client_id);
    assert_eq!(config.mqtt.assigned_client_id_prefix, "dev-");
    assert_eq!(config.mqtt.overlapping, Overlapping::Merge);
    assert_eq!(config.listeners[0].client_id_prefixes, ["dev"]);
}

#[test]
fn what_mosquitto_keeps_is_kept_beside_its_own_file() {
    let kept = convert("persistence true\npersistence_location /var/lib/mosquitto/\n").text;
    let expected = "path = \"/var/lib/mosquitto/simcast-data\" # mosquitto.conf:1";
    assert!(kept.contains(expected), "{kept}");
    assert!(convert("persistence true\n").text.contains("\"/somewhere/simcast-data\""));
    for text in ["", "persistence false\npersistence_location /var/lib/mosquitto/\n"] {
        assert_eq!(config(text).store.folder(), None, "{text}");
    }
}

#[test]
fn what_is_not_taken_is_named_with_its_line() {
    let text = "# a comment\n\npersistence true\npersistence_file mosquitto.db\n\
                log_dest file /var/log/mosquitto.log\nlog_dest stderr\nmax_queued_messages 5\n\
                queue_qos0_messages true\nupgrade_outgoing_qos false\nciphers DEFAULT\n\
                memory_limit 0\nset_tcp_nodelay true\nconnection site\naddress example.org\n\
                remote_password hunter2\ntopic # out\nbridge_insecure true\n";
    let expected = [
        "4 persistence_file",
        "5 log_dest",
        "8 queue_qos0_messages",
        "10 ciphers",
        "13 connection",
        "14 address",
        "15 remote_password",
        "16 topic",
        "17 bridge_insecure",
    ];
    assert_eq!(left(text), expected);
    let converted = convert(text);
    assert!(!converted.text.contains("hunter2"), "a password is nobody's business");
    assert!(converted.text.contains("# mosquitto.conf:4: persistence_file: "));
}

#[test]
fn what_mosquitto_refuses_is_refused() {
    let expected = "/etc/mosquitto/mosquitto.conf:2: unknown; mosquitto would not start with it \
                    either";
    assert_eq!(broken("port 1883\nmax_inflight 20\n"), [expected]);
    for text in [
        "port 70000",
        "listener",
        "listener 0",
        "listener 1\nmax_qos 3",
        "allow_anonymous maybe",
        "persistent_client_expiration 5",
        "accept_protocol_versions 6",
        "max_packet_size 10",
        "password_file",
        "topic # out",
    ] {
        assert_eq!(broken(text).len(), 1, "{text}");
    }
}

#[test]
fn every_key_of_mosquitto_is_known() {
    let missing: Vec<&str> = ALL_KEYS
        .split_ascii_whitespace()
        .filter(|key| broken(&format!("{key} x")).iter().any(|text| text.contains("unknown")))
        .collect();
    assert_eq!(missing, [""; 0]);
}

/// What the parser of version 2.1 accepts, but for include_dir.
const ALL_KEYS: &str = "\
accept_protocol_versions acl_file address addresses allow_anonymous allow_duplicate_messages \
allow_zero_length_clientid auth_opt_x auth_plugin auth_plugin_deny_special_chars auto_id_prefix \
autosave_interval autosave_on_changes bind_address bind_interface bridge_alpn \
bridge_attempt_unsubscribe bridge_bind_address bridge_cafile bridge_capath bridge_certfile \
bridge_ciphers bridge_identity bridge_insecure bridge_keyfile bridge_max_packet_size \
bridge_max_topic_alias bridge_outgoing_retain bridge_protocol_version bridge_psk \
bridge_receive_maximum bridge_reload_type bridge_require_ocsp bridge_session_expiry_interval \
bridge_tcp_keepalive bridge_tcp_user_timeout bridge_tls_use_os_certs bridge_tls_version cafile \
capath certfile check_retain_source ciphers ciphers_tls1.3 cleansession clientid \
clientid_prefixes connection connection_messages crlfile dhparamfile \
disable_client_cert_date_checks enable_control_api enable_proxy_protocol global_max_clients \
global_max_connections global_plugin http_dir idle_timeout keepalive_interval \
keyfile listener listener_allow_anonymous listener_auto_id_prefix local_cleansession \
local_clientid local_password local_username log_dest log_facility log_timestamp \
log_timestamp_format log_type max_connections max_inflight_bytes max_inflight_messages \
max_keepalive max_packet_size max_qos maximum_qos max_queued_bytes max_queued_messages \
max_topic_alias max_topic_alias_broker memory_limit message_size_limit mount_point \
notification_topic notifications notifications_local_only packet_buffer_size password \
password_file per_listener_settings persistence persistence_file persistence_location \
persistent_client_expiration pid_file plugin plugin_load plugin_opt_x plugin_use port protocol \
proxy_protocol_v2_require_tls psk_file psk_hint queue_qos0_messages remote_clientid \
remote_password remote_username require_certificate restart_timeout retain_available \
retain_expiry_interval retained_persistence retry_interval round_robin set_tcp_nodelay \
socket_domain start_type sys_interval threshold tls_engine tls_engine_kpass_sha1 tls_keyform \
tls_version topic try_private upgrade_outgoing_qos use_identity_as_username \
use_subject_as_username use_username_as_clientid user username websockets_headers_size \
websockets_log_level websockets_origin";

#[test]
fn included_files_count_where_they_are_named_sorted_and_each_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    std::fs::create_dir(dir.path().join("conf.d")).unwrap();
    put("main.conf", "allow_anonymous true\r\nlistener 1\r\ninclude_dir conf.d\r\nmax_qos 1\r\n");
    put("conf.d/B.conf", "max_qos 0\nlistener 3\n");
    put("conf.d/a.conf", "listener 2\nsys_interval 7\n");
    put("conf.d/README", "not a directive\n");
    let all = source::read(&dir.path().join("main.conf"), dir.path()).unwrap();
    let plan = Plan::of(&all);
    assert_eq!(plan.broken, []);
    let text = write(&plan, Path::new("main.conf"), &machine()).text;
    let config = Config::from_toml(&text, Path::new("/")).unwrap();
    assert_eq!(binds(&config), ["[::]:1", "[::]:2", "[::]:1883", "[::]:3"]);
    // What follows in the main file goes on with its listener; B.conf began with none.
    let of: Vec<QoS> = config.listeners.iter().map(|listener| listener.max_qos).collect();
    assert_eq!(of, [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtMostOnce, QoS::ExactlyOnce]);
    assert!(config.listeners.iter().all(|listener| matches!(listener.bind, Bind::Tcp(_))));

    put("conf.d/a.conf", "include_dir conf.d\n");
    let error = source::read(&dir.path().join("main.conf"), dir.path()).unwrap_err();
    assert!(error.to_string().contains("a.conf:1: include_dir"), "{error}");
}

/// A line, mostly of one that mosquitto knows.
fn any_line() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        8 => proptest::sample::select(known_words()),
        1 => "[a-z_]{1,12}",
        1 => "\\PC{1,6}",
    ];
    let value = prop_oneof![
        4 => "[0-9]{1,6}( [a-z.]{1,9})?",
        3 => Just("true".to_owned()),
        2 => Just(absolute(file!())),
        2 => "[a-z/$+#%\"'\\\\]{1,12}",
        1 => "-?[0-9]{1,20}",
        1 => ".{0,20}",
    ];
    (key, value).prop_map(|(key, value)| format!("{key} {value}\n"))
}

/// Whatever looks like a key, or like a value of one, in the code that reads them.
fn known_words() -> Vec<String> {
    let text = include_str!("keys.rs");
    let arms = text.split('"').skip(1).step_by(2);
    let is_key = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    arms.filter(is_key).map(str::to_owned).collect()
}

proptest! {
    // case P31
    #[test]
    fn whatever_is_converted_can_be_read(
        lines in proptest::collection::vec(any_line(), 0..40),
    ) {
        let lines = lines.into_iter().filter(|line| plan(line).broken.is_empty());
        let text: String = lines.collect();
        let plan = plan(&text);
        let converted = write(&plan, Path::new("/etc/mosquitto/mosquitto.conf"), &machine());
        let Err(errors) = Config::from_toml(&converted.text, Path::new("/")) else { return Ok(()) };
        for mistake in &errors.mistakes {
            // Files that are not here, values that simcast does not have: people are told. But
            // each value has the form that its key asks for.
            let message = &*mistake.message;
            let of_form = ["unknown", "missing", "invalid", "expected"]
                .iter().any(|word| message.starts_with(word));
            let is_read = !mistake.key.is_empty() && !of_form;
            prop_assert!(is_read, "{mistake}\n{text}{}", converted.text);
        }
    }
}
