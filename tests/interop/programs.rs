//! Where the foreign clients connect, and mosquitto's two programs.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use simcast::config::{Config, Listener, Protocol, Tls};
use simcast::pki::Issued;
use tempfile::TempDir;

use crate::common::program::{Program, is_here};
use crate::common::{Rig, nid};
use crate::leash::Kind;

/// Whether all foreign clients are here.
pub(crate) fn clients_are_here() -> bool {
    is_here(
        "mosquitto_sub and mosquitto_pub",
        "Debian: mosquitto-clients",
        Command::new("which").args(["mosquitto_sub", "mosquitto_pub"]),
    ) && Kind::Paho.is_here()
}

/// A version of MQTT, as the programs name it: `311` or `5`.
pub(crate) type VersionName = &'static str;

/// A message as a foreign client shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) qos: u64,
    pub(crate) retain: bool,
    /// User property `nid`.
    pub(crate) nid: Option<String>,
}

/// A broker, and the certificates of its clients in files. Beside the listeners of the rig it has
/// one with TLS that asks for no certificate, and two for WebSockets.
pub(crate) struct Stage {
    pub(crate) rig: Rig,
    files: TempDir,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        Self::with(|_config| {}).await
    }

    /// With a changed configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let rig = Rig::with(|config| {
            let tls = config.listeners[1].tls.clone().map(|tls| Tls {
                client_ca: None,
                crl: None,
                servers: Vec::new(),
                ..tls
            });
            let plain = config.listeners[0].clone();
            let websocket = Listener { protocol: Protocol::Websocket, ..plain.clone() };
            config.listeners.extend([
                Listener { tls: tls.clone(), ..plain },
                websocket.clone(),
                Listener { tls, ..websocket },
            ]);
            change(config);
        });
        let stage = Self { rig: rig.await, files: tempfile::tempdir().unwrap() };
        std::fs::write(stage.file("ca.pem"), stage.rig.authority.ca_pem()).unwrap();
        stage
    }

    /// The plain port.
    pub(crate) fn plain(&self) -> Door {
        Door::plain(self.rig.plain.port())
    }

    /// The port with TLS that asks for no certificate.
    pub(crate) fn encrypted(&self) -> Door {
        Door { port: self.port(2), files: vec![self.file("ca.pem")], websocket: false }
    }

    /// The port for WebSockets, and the one for WebSockets over TLS.
    pub(crate) fn websockets(&self) -> [Door; 2] {
        let files = [Vec::new(), vec![self.file("ca.pem")]];
        let ports = [self.port(3), self.port(4)];
        std::array::from_fn(|at| Door {
            port: ports[at],
            files: files[at].clone(),
            websocket: true,
        })
    }

    fn port(&self, listener: usize) -> u16 {
        self.rig.service.addresses()[listener].tcp().unwrap().port()
    }

    /// The port with mutual TLS, for the device with this running number.
    pub(crate) fn device(&self, number: u128) -> Door {
        self.secure(
            &nid(number).to_string(),
            &self.rig.authority.issue_device(nid(number)).unwrap(),
        )
    }

    /// The same for the SM-SR.
    pub(crate) fn server(&self) -> Door {
        self.secure("sm-sr", &self.rig.authority.issue_server("sm-sr.test").unwrap())
    }

    fn secure(&self, name: &str, issued: &Issued) -> Door {
        issued.save(self.files.path(), name, true).unwrap();
        let files = vec![
            self.file("ca.pem"),
            self.file(&format!("{name}.pem")),
            self.file(&format!("{name}.key")),
        ];
        Door { port: self.rig.tls.port(), files, websocket: false }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }
}

/// Where a client connects, and with which certificate.
pub(crate) struct Door {
    pub(crate) port: u16,
    /// Authority, certificate, key: the first, all or none.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) websocket: bool,
}

impl Door {
    /// A port without TLS.
    pub(crate) fn plain(port: u16) -> Self {
        Self { port, files: Vec::new(), websocket: false }
    }

    pub(crate) fn arguments(&self, names: [&str; 3]) -> Vec<String> {
        let files = self.files.iter().map(|path| path.to_str().unwrap().to_owned());
        names.into_iter().zip(files).flat_map(|(name, file)| [name.to_owned(), file]).collect()
    }

    pub(crate) fn mosquitto(&self, program: &str, version: VersionName) -> Command {
        // Without stdbuf its lines stay in its buffer.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program, "-h", "localhost", "-p", &self.port.to_string()]);
        command.args(["-V", version]).args(self.arguments(["--cafile", "--cert", "--key"]));
        command
    }
}

/// A `mosquitto_sub` that has subscribed.
pub(crate) struct MosquittoSub {
    program: Program,
    /// What came before the SUBACK.
    received: VecDeque<Message>,
}

impl MosquittoSub {
    /// More arguments say what is special about it, such as a Will.
    pub(crate) async fn start(
        door: &Door,
        (version, qos): (VersionName, u64),
        id: &str,
        topic: &str,
        more: &[&str],
    ) -> Self {
        let mut command = door.mosquitto("mosquitto_sub", version);
        command.args(["-d", "-F", "%j", "-i", id, "-t", topic, "-q", &qos.to_string()]).args(more);
        let mut program = Program::start(&mut command);
        let mut received = VecDeque::new();
        loop {
            let line = program.until("").await;
            if line.starts_with("Subscribed (mid: 1)") {
                return Self { program, received };
            }
            received.extend(shown_by_mosquitto(&line));
        }
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Message {
        loop {
            if let Some(message) = self.received.pop_front() {
                return message;
            }
            let line = self.program.until("").await;
            self.received.extend(shown_by_mosquitto(&line));
        }
    }

    /// Subscribes and goes at once, with a DISCONNECT. There is no other way to make it say one:
    /// a SIGTERM while mosquitto_sub 2.0.11 handles a packet leaves it waiting for its own lock.
    pub(crate) async fn visit(
        door: &Door,
        (version, qos): (VersionName, u64),
        id: &str,
        topic: &str,
        more: &[&str],
    ) {
        let mut command = door.mosquitto("mosquitto_sub", version);
        command.args(["-E", "-i", id, "-t", topic, "-q", &qos.to_string()]).args(more);
        let (status, lines) = Program::start(&mut command).end().await;
        assert!(status.success(), "{status}: {lines:?}");
    }

    /// Goes without a word.
    pub(crate) async fn vanish(self) {
        self.program.signal("KILL");
        self.program.end().await;
    }
}

/// The message in a line of `mosquitto_sub -F %j`; other lines tell of its packets.
fn shown_by_mosquitto(line: &str) -> Option<Message> {
    if !line.starts_with('{') {
        return None;
    }
    let said: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("mosquitto: {line}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let user = &said["properties"]["user-properties"]["nid"];
    Some(Message {
        topic: text(&said["topic"]),
        payload: text(&said["payload"]),
        qos: said["qos"].as_u64().unwrap(),
        retain: said["retain"] == 1,
        nid: user.as_str().map(str::to_owned),
    })
}

/// Publishes lines, one message each, over one connection; what `mosquitto_pub` has to say.
pub(crate) async fn mosquitto_pub(
    door: &Door,
    (version, qos): (VersionName, u64),
    topic: &str,
    lines: &[String],
    more: &[&str],
) -> Vec<String> {
    let mut command = door.mosquitto("mosquitto_pub", version);
    command.args(["-l", "-t", topic, "-q", &qos.to_string()]).args(more);
    let mut program = Program::start(&mut command);
    lines.iter().for_each(|line| program.say(line));
    let (status, said) = program.end().await;
    assert!(status.success(), "{status}: {said:?}");
    said
}
