//! The foreign clients: mosquitto's two programs, and paho through `paho_client.py`.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use simcast::config::Config;
use simcast::pki::Issued;
use tempfile::TempDir;

use crate::common::program::{Program, is_here};
use crate::common::{Rig, nid};

/// Whether all foreign clients are here.
pub(crate) fn clients_are_here() -> bool {
    is_here(
        "mosquitto_sub and mosquitto_pub",
        "Debian: mosquitto-clients",
        Command::new("which").args(["mosquitto_sub", "mosquitto_pub"]),
    ) && is_here(
        "paho-mqtt",
        "Python 3; pip install -r tests/interop/requirements.txt",
        Command::new("python3").args(["-c", "import paho.mqtt.client"]),
    )
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

/// A broker, and the certificates of its clients in files.
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
        let stage = Self { rig: Rig::with(change).await, files: tempfile::tempdir().unwrap() };
        std::fs::write(stage.file("ca.pem"), stage.rig.authority.ca_pem()).unwrap();
        stage
    }

    /// The plain port.
    pub(crate) fn plain(&self) -> Door {
        Door::plain(self.rig.plain.port())
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
        let files = [
            self.file("ca.pem"),
            self.file(&format!("{name}.pem")),
            self.file(&format!("{name}.key")),
        ];
        Door { port: self.rig.tls.port(), files: Some(files) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }
}

/// Where a client connects, and with which certificate.
pub(crate) struct Door {
    port: u16,
    /// Authority, certificate, key.
    files: Option<[PathBuf; 3]>,
}

impl Door {
    /// A port without TLS.
    pub(crate) fn plain(port: u16) -> Self {
        Self { port, files: None }
    }

    fn arguments(&self, names: [&str; 3]) -> Vec<String> {
        let files = self.files.iter().flatten().map(|path| path.to_str().unwrap().to_owned());
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

/// What paho was told about something it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) reason: u64,
    pub(crate) text: Option<String>,
}

/// A connected paho client.
pub(crate) struct Paho {
    program: Program,
    received: VecDeque<Message>,
    pub(crate) session_present: bool,
}

impl Paho {
    /// More arguments are those of `paho_client.py`.
    pub(crate) async fn start(door: &Door, version: VersionName, id: &str, more: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/paho_client.py"));
        command.args(["--port", &door.port.to_string(), "--version", version, "--id", id]);
        command.args(door.arguments(["--ca", "--cert", "--key"])).args(more);
        let program = Program::start(&mut command);
        let mut paho = Self { program, received: VecDeque::new(), session_present: false };
        let said = paho.event("connected").await;
        assert_eq!(said["reason"], 0, "{said}");
        paho.session_present = said["session_present"].as_bool().unwrap();
        paho
    }

    /// The reason code of the SUBACK.
    pub(crate) async fn subscribe(&mut self, topic: &str, qos: u64) -> u64 {
        self.order(&json!({"do": "subscribe", "topic": topic, "qos": qos}));
        self.event("subscribed").await["reasons"][0].as_u64().unwrap()
    }

    /// Publishes, and waits for what the broker says.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &str, qos: u64) -> Told {
        self.throw(topic, payload, qos, false);
        self.published().await
    }

    /// The same with the retain flag.
    pub(crate) async fn retain(&mut self, topic: &str, payload: &str, qos: u64) -> Told {
        self.throw(topic, payload, qos, true);
        self.published().await
    }

    /// Publishes and does not wait: for a broker that closes.
    pub(crate) fn throw(&mut self, topic: &str, payload: &str, qos: u64, retain: bool) {
        self.order(&json!({
            "do": "publish", "topic": topic, "payload": payload, "qos": qos, "retain": retain,
        }));
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Message {
        loop {
            if let Some(message) = self.received.pop_front() {
                return message;
            }
            let event = self.read().await;
            assert_eq!(event["event"], "message", "{event}");
        }
    }

    /// Waits until the broker ends the connection.
    pub(crate) async fn expect_closed(&mut self) {
        self.event("disconnected").await;
    }

    /// Goes with a DISCONNECT.
    pub(crate) async fn leave(mut self) {
        self.order(&json!({"do": "disconnect"}));
        self.event("disconnected").await;
        self.program.end().await;
    }

    /// Goes without a word.
    pub(crate) async fn vanish(self) {
        self.program.end().await;
    }

    async fn published(&mut self) -> Told {
        let event = self.event("published").await;
        let text = event["text"].as_str().map(str::to_owned);
        Told { reason: event["reason"].as_u64().unwrap(), text }
    }

    fn order(&mut self, what: &Value) {
        self.program.say(&what.to_string());
    }

    /// The next event of this name; messages are kept meanwhile.
    async fn event(&mut self, name: &str) -> Value {
        loop {
            let event = self.read().await;
            if event["event"] == name {
                return event;
            }
            assert_eq!(event["event"], "message", "instead of {name}: {event}");
        }
    }

    async fn read(&mut self) -> Value {
        let line = self.program.until("").await;
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("paho: {line}"));
        if event["event"] == "message" {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            self.received.push_back(Message {
                topic: text(&event["topic"]),
                payload: text(&event["payload"]),
                qos: event["qos"].as_u64().unwrap(),
                retain: event["retain"].as_bool().unwrap(),
                nid: event["user"]["nid"].as_str().map(str::to_owned),
            });
        }
        event
    }
}
