//! `simcast convert`: a broker is served from what it writes.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::program::is_here;
use common::{Client, Dial};
use simcast::config::{Bind, Config};
use simcast::mqtt::{QoS, Version};
use simcast::pki::Authority;
use simcast::service::Service;
use tempfile::TempDir;
use tokio::net::TcpStream;

/// Files of mosquitto, and what comes of them.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    fn convert(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_simcast"));
        command.arg("convert").args(arguments).current_dir(self.0.path()).output().unwrap()
    }

    /// The configuration that mosquitto.conf becomes, on free ports.
    fn config(&self) -> Config {
        let output = self.convert(&["mosquitto.conf", "-o", "simcast.toml", "--force"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let mut config = Config::load(&self.path("simcast.toml")).unwrap();
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        for listener in &mut config.listeners {
            if let Bind::Tcp(_) = listener.bind {
                listener.bind = Bind::Tcp(free);
            }
        }
        config.admin.bind = None;
        config
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

async fn client(service: &Service, listener: usize, dial: Dial) -> Client {
    let address = service.addresses()[listener].tcp().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    Client::open(stream, &dial).await.unwrap()
}

/// The directives of Debian's /etc/mosquitto/mosquitto.conf.
const DEBIAN: &str = "\
pid_file /run/mosquitto/mosquitto.pid
persistence true
persistence_location /var/lib/mosquitto/
log_dest file /var/log/mosquitto/mosquitto.log
include_dir conf.d
";

#[tokio::test]
async fn debians_file_with_a_local_one_beside_it_is_served() {
    // case O14
    let desk = Desk::new();
    let data = desk.path("data").display().to_string();
    desk.put("data/mosquitto.db", "not ours");
    desk.put("mosquitto.conf", &DEBIAN.replace("/var/lib/mosquitto", &data));
    desk.put("conf.d/README", "Files ending with .conf are included.\n");
    let alone = desk.config();
    assert_eq!(alone.listeners[0].bind, Bind::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
    assert!(alone.listeners.iter().all(|listener| listener.allow_anonymous));

    desk.put("conf.d/local.conf", "listener 1883\r\nallow_anonymous true\r\nmax_qos 1\r\n");
    let config = desk.config();
    assert_eq!(config.listeners.len(), 1);
    let service = Service::start(config).await.unwrap();
    let mut client = client(&service, 0, Dial::v311("client")).await;
    let granted = client.subscribe("x", QoS::AtLeastOnce).await;
    assert!(!granted.is_error());
    assert!(client.publish("x", "hello", QoS::AtLeastOnce).await.is_ok());
    assert_eq!(client.expect_payload().await, "hello");
    assert!(desk.path("data/simcast-data").is_dir());
    let output = desk.convert(&["mosquitto.conf"]);
    let named = ["mosquitto.conf:1: not taken over: pid_file: ", "mosquitto.conf:4: not taken"];
    assert!(named.iter().all(|text| stderr(&output).contains(text)), "{}", stderr(&output));
}

#[tokio::test]
async fn payloads_as_large_as_mosquitto_takes_them_go_through() {
    let desk = Desk::new();
    desk.put("mosquitto.conf", "listener 1883 127.0.0.1\nallow_anonymous true\n");
    let service = Service::start(desk.config()).await.unwrap();
    let mut client = client(&service, 0, Dial::new(Version::V311, "large")).await;
    client.subscribe("x", QoS::AtLeastOnce).await;
    let payload = vec![b'x'; 5_000_000];
    assert!(client.publish("x", &payload, QoS::AtLeastOnce).await.is_ok());
    assert_eq!(client.expect_publish().await.payload.len(), payload.len());
}

#[test]
fn the_result_goes_to_standard_output_or_to_a_file_that_is_new() {
    let desk = Desk::new();
    desk.put("mosquitto.conf", "listener 1883\nallow_anonymous true\n");
    let output = desk.convert(&["mosquitto.conf"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(Config::from_toml(&text, Path::new("/")).is_ok(), "{text}");

    desk.put("there.toml", "# mine");
    let output = desk.convert(&["mosquitto.conf", "-o", "there.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--force"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(desk.path("there.toml")).unwrap(), "# mine");
    let output = desk.convert(&["mosquitto.conf", "-o", "there.toml", "--force"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(desk.path("there.toml")).unwrap(), text);
}

#[test]
fn what_cannot_work_is_said_with_exit_code_1() {
    let desk = Desk::new();
    for (text, said) in [
        ("listner 1883\n", "mosquitto.conf:1: listner: unknown"),
        ("listener 1883\n", "mosquitto.conf:1: not taken over: listener: left out: nobody"),
        ("include_dir nowhere\n", "nowhere"),
    ] {
        desk.put("mosquitto.conf", text);
        let output = desk.convert(&["mosquitto.conf", "-o", "none.toml"]);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
        assert!(!desk.path("none.toml").exists());
    }
    // A file of another machine: the result is written, and what is missing is named.
    desk.put("mosquitto.conf", "listener 1883\npassword_file /nowhere/users\n");
    let output = desk.convert(&["mosquitto.conf", "-o", "some.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot read /nowhere/users"), "{}", stderr(&output));
    assert!(desk.path("some.toml").exists());
}

/// A broker as people have it: the house by password, devices by certificate.
const FULL: &str = "\
log_type error
log_type warning
max_inflight_messages 30
persistent_client_expiration 14d
allow_anonymous false
password_file users
acl_file acl
# the house, over TLS
listener 8883
cafile ca.pem
certfile broker.pem
keyfile broker.key
tls_version tlsv1.2
# devices
listener 8884
cafile ca.pem
certfile broker.pem
keyfile broker.key
require_certificate true
use_identity_as_username true
# browsers
listener 9001
protocol websockets
# programs on this machine
listener 0 broker.sock
";

const ACL: &str = "\
user ann
topic readwrite home/#
topic read devices/#
pattern write devices/%u/up
";

impl Desk {
    /// Certificates, and users as mosquitto_passwd writes them.
    fn furnish(&self) {
        let authority = Authority::in_memory().unwrap();
        self.put("ca.pem", authority.ca_pem());
        authority
            .issue_broker(&["localhost"])
            .unwrap()
            .save(self.0.path(), "broker", true)
            .unwrap();
        authority.issue_server("sensor").unwrap().save(self.0.path(), "sensor", true).unwrap();
        self.put("acl", ACL);
        self.run("mosquitto_passwd", &["-c", "-b", "users", "ann", "secret"]);
    }

    /// What a program said that ended well; nothing for one that did not.
    fn run(&self, program: &str, arguments: &[&str]) -> Option<String> {
        let output = Command::new(program).args(arguments).current_dir(self.0.path()).output();
        let output = output.unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquittos_users_rights_and_certificates_work_unchanged() {
    // case O14
    let mut probe = Command::new("which");
    probe.args(["mosquitto_sub", "mosquitto_pub", "mosquitto_passwd"]);
    if !is_here("mosquitto's programs", "Debian: mosquitto, mosquitto-clients", &mut probe) {
        return;
    }
    let desk = Desk::new();
    desk.furnish();
    desk.put("mosquitto.conf", FULL);
    let config = desk.config();
    assert_eq!(config.listeners.len(), 4);
    let service = Service::start(config).await.unwrap();
    let port = |listener: usize| service.addresses()[listener].tcp().unwrap().port().to_string();
    let (house, devices) = (port(0), port(1));
    let house = ["-h", "localhost", "-p", &house, "--cafile", "ca.pem", "-q", "1"];
    let devices = ["-h", "localhost", "-p", &devices, "--cafile", "ca.pem", "-q", "1"];
    let ann = ["-u", "ann", "-P", "secret"];
    let sensor = ["--cert", "sensor.pem", "--key", "sensor.key"];
    let local = ["--unix", "broker.sock", "-q", "1"];
    let keep = |door: &[&str], who: &[&str], topic: &str, payload: &str| {
        let what = ["-r", "-t", topic, "-m", payload];
        desk.run("mosquitto_pub", &[door, who, &what].concat()).is_some()
    };
    assert!(keep(&house, &ann, "home/lamp", "on"));
    assert!(!keep(&house, &["-u", "ann", "-P", "wrong"], "home/lamp", "off"), "a wrong password");
    assert!(!keep(&house, &[], "home/lamp", "off"), "anonymous");
    // Version 3.1.1: acknowledged, dropped.
    assert!(keep(&house, &ann, "elsewhere", "x"));
    assert!(keep(&devices, &sensor, "devices/sensor/up", "21"));
    assert!(keep(&devices, &sensor, "devices/other/up", "99"));
    assert!(!keep(&devices, &[], "devices/sensor/up", "99"), "without a certificate");

    let watch = ["-t", "#", "-C", "2", "-W", "20", "-v"];
    for door in [&house[..], &local] {
        let seen = desk.run("mosquitto_sub", &[door, &ann, &watch].concat()).unwrap();
        let mut seen: Vec<&str> = seen.lines().collect();
        seen.sort_unstable();
        assert_eq!(seen, ["devices/sensor/up 21", "home/lamp on"]);
    }
    assert!(service.stop().await);
}
