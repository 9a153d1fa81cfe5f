//! Client libraries on a leash: programs that are told what to do and tell what happens, in lines
//! of JSON as `paho_client.py` describes them; and rumqttc, which runs in this process.

use std::collections::VecDeque;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::in_time;
use crate::common::program::{Program, is_here};
use crate::programs::{Door, Message, VersionName};
use crate::rumqttc_client::Task;

/// A client library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// paho-mqtt, Python.
    Paho,
    /// gmqtt, Python.
    Gmqtt,
    /// MQTT.js, JavaScript.
    MqttJs,
    /// rumqttc, Rust.
    Rumqttc,
}

impl Kind {
    /// Whether it is installed.
    pub(crate) fn is_here(self) -> bool {
        let python = "Python 3; pip install -r tests/interop/requirements.txt";
        let javascript = "Node.js; npm install in a directory with tests/interop/package.json, \
                          and NODE_PATH set to its node_modules";
        let (what, package, program, probe) = match self {
            Self::Paho => ("paho-mqtt", python, "python3", ["-c", "import paho.mqtt.client"]),
            Self::Gmqtt => ("gmqtt", python, "python3", ["-c", "import gmqtt"]),
            Self::MqttJs => ("MQTT.js", javascript, "node", ["-e", "require('mqtt')"]),
            Self::Rumqttc => return true,
        };
        is_here(what, package, Command::new(program).args(probe))
    }

    /// Whether it is used over WebSockets, too.
    pub(crate) fn speaks_websocket(self) -> bool {
        matches!(self, Self::Paho | Self::MqttJs)
    }

    fn command(self) -> Option<Command> {
        let (program, script) = match self {
            Self::Paho => ("python3", "paho_client.py"),
            Self::Gmqtt => ("python3", "gmqtt_client.py"),
            Self::MqttJs => ("node", "mqttjs_client.js"),
            Self::Rumqttc => return None,
        };
        let mut command = Command::new(program);
        command.arg(format!("{}/tests/interop/{script}", env!("CARGO_MANIFEST_DIR")));
        Some(command)
    }
}

/// What a client was told about something it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) reason: u64,
    pub(crate) text: Option<String>,
}

/// What a message has beside the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extras {
    /// User property `colour`.
    pub(crate) colour: Option<String>,
    /// Message Expiry Interval.
    pub(crate) expiry_secs: Option<u64>,
    /// Topic alias to send it with.
    pub(crate) alias: Option<u64>,
}

/// A connected client.
pub(crate) struct Leash {
    end: End,
    received: VecDeque<(Message, Extras)>,
    pub(crate) session_present: bool,
}

/// The other end of the leash.
enum End {
    Program(Program),
    Task(Task),
}

impl Leash {
    /// More arguments are those of `paho_client.py`.
    pub(crate) async fn start(
        kind: Kind,
        door: &Door,
        version: VersionName,
        id: &str,
        more: &[&str],
    ) -> Self {
        let end = match kind.command() {
            Some(mut command) => {
                command.args(["--port", &door.port.to_string(), "--version", version, "--id", id]);
                command.args(door.arguments(["--ca", "--cert", "--key"])).args(more);
                command.args(door.websocket.then_some("--websocket"));
                End::Program(Program::start(&mut command))
            }
            None => End::Task(Task::start(door, version, id, more)),
        };
        let mut leash = Self { end, received: VecDeque::new(), session_present: false };
        let said = leash.event("connected").await;
        assert_eq!(said["reason"], 0, "{said}");
        // Some say 1.
        leash.session_present = said["session_present"] == true || said["session_present"] == 1;
        leash
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

    /// The same with properties of version 5, QoS 1.
    pub(crate) async fn publish_with(
        &mut self,
        topic: &str,
        payload: &str,
        extras: &Extras,
    ) -> Told {
        let user = extras.colour.as_ref().map(|colour| json!({ "colour": colour }));
        self.order(&json!({
            "do": "publish", "topic": topic, "payload": payload, "qos": 1, "retain": false,
            "user": user, "expiry": extras.expiry_secs, "alias": extras.alias,
        }));
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
        self.message_with_extras().await.0
    }

    /// The next message with its properties.
    pub(crate) async fn message_with_extras(&mut self) -> (Message, Extras) {
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
        self.end().await;
    }

    /// Goes without a word.
    pub(crate) async fn vanish(self) {
        self.end().await;
    }

    async fn end(self) {
        match self.end {
            End::Program(program) => drop(program.end().await),
            End::Task(task) => task.end().await,
        }
    }

    async fn published(&mut self) -> Told {
        let event = self.event("published").await;
        let text = event["text"].as_str().map(str::to_owned);
        Told { reason: event["reason"].as_u64().unwrap(), text }
    }

    fn order(&mut self, what: &Value) {
        match &mut self.end {
            End::Program(program) => program.say(&what.to_string()),
            End::Task(task) => task.order(what.clone()),
        }
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
        let event: Value = match &mut self.end {
            End::Program(program) => {
                let line = program.until("").await;
                serde_json::from_str(&line).unwrap_or_else(|_| panic!("no event: {line}"))
            }
            End::Task(task) => in_time("rumqttc", task.event()).await,
        };
        if event["event"] == "message" {
            self.received.push_back(message(&event));
        }
        event
    }
}

fn message(event: &Value) -> (Message, Extras) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let user = |name: &str| event["user"][name].as_str().map(str::to_owned);
    let message = Message {
        topic: text(&event["topic"]),
        payload: text(&event["payload"]),
        qos: event["qos"].as_u64().unwrap(),
        retain: event["retain"].as_bool().unwrap(),
        nid: user("nid"),
    };
    let expiry_secs = event["expiry"].as_u64();
    (message, Extras { colour: user("colour"), expiry_secs, alias: None })
}
