//! rumqttc, told and telling as the programs are; see `paho_client.py`.

use std::fs::read;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{Transport, v5};
use rustls::ClientConfig;
use serde_json::{Value, json};
use simcast::mqtt::ReasonCode;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::common::rig::client_tls;
use crate::programs::{Door, VersionName};

/// A running client.
pub(crate) struct Task {
    orders: UnboundedSender<Value>,
    events: UnboundedReceiver<Value>,
    task: JoinHandle<()>,
}

const KEEP_ALIVE: Duration = Duration::from_secs(60);

impl Task {
    pub(crate) fn start(door: &Door, version: VersionName, id: &str, more: &[&str]) -> Self {
        let (orders, todo) = unbounded_channel();
        let (tell, events) = unbounded_channel();
        let persistent = more.contains(&"--persistent");
        let will = more.iter().position(|name| *name == "--will");
        let will = will.map(|at| [more[at + 1].to_owned(), more[at + 2].to_owned()]);
        let task = if version == "5" {
            let mut options = v5::MqttOptions::new(id, "localhost", door.port);
            options.set_keep_alive(KEEP_ALIVE).set_transport(transport(door));
            options.set_clean_start(!persistent).set_topic_alias_max(Some(10));
            options.set_session_expiry_interval(persistent.then_some(3600));
            if let Some([topic, payload]) = will {
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                let will = v5::mqttbytes::v5::LastWill::new(topic, payload, qos, false, None);
                options.set_last_will(will);
            }
            tokio::spawn(run_v5(options, todo, tell))
        } else {
            let mut options = rumqttc::MqttOptions::new(id, "localhost", door.port);
            options.set_keep_alive(KEEP_ALIVE).set_transport(transport(door));
            options.set_clean_session(!persistent);
            if let Some([topic, payload]) = will {
                let qos = rumqttc::QoS::AtLeastOnce;
                options.set_last_will(rumqttc::LastWill::new(topic, payload, qos, false));
            }
            tokio::spawn(run_v311(options, todo, tell))
        };
        Self { orders, events, task }
    }

    pub(crate) fn order(&self, what: Value) {
        self.orders.send(what).unwrap();
    }

    pub(crate) async fn event(&mut self) -> Value {
        self.events.recv().await.expect("an event")
    }

    /// The socket closes without a DISCONNECT, if there was none.
    pub(crate) async fn end(self) {
        self.task.abort();
        let _aborted_or_done = self.task.await;
    }
}

fn transport(door: &Door) -> Transport {
    let [ca, rest @ ..] = &door.files[..] else { return Transport::tcp() };
    let text = |path| String::from_utf8(read(path).unwrap()).unwrap();
    let config: ClientConfig = match rest {
        [cert, key] => client_tls(&text(ca), Some((&text(cert), &text(key)))),
        _ => client_tls(&text(ca), None),
    };
    Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(Arc::new(config)))
}

async fn run_v311(
    options: rumqttc::MqttOptions,
    mut todo: UnboundedReceiver<Value>,
    tell: UnboundedSender<Value>,
) {
    let (client, mut events) = rumqttc::AsyncClient::new(options, 100);
    loop {
        tokio::select! {
            Some(order) = todo.recv() => order_v311(&client, &order, &tell).await,
            event = events.poll() => match event {
                Ok(rumqttc::Event::Incoming(packet)) => {
                    heard_v311(&packet).into_iter().for_each(|said| tell.send(said).unwrap());
                }
                Ok(rumqttc::Event::Outgoing(_)) => {}
                // To poll again would be to connect again.
                Err(_closed) => return tell.send(gone()).unwrap(),
            },
        }
    }
}

async fn order_v311(client: &rumqttc::AsyncClient, order: &Value, tell: &UnboundedSender<Value>) {
    let topic = || order["topic"].as_str().unwrap();
    let qos = || rumqttc::qos(order["qos"].as_u64().unwrap() as u8).unwrap();
    match order["do"].as_str().unwrap() {
        "subscribe" => client.subscribe(topic(), qos()).await.unwrap(),
        "publish" => {
            let payload = order["payload"].as_str().unwrap();
            let retain = order["retain"].as_bool().unwrap();
            client.publish(topic(), qos(), retain, payload).await.unwrap();
            if qos() == rumqttc::QoS::AtMostOnce {
                tell.send(published(0)).unwrap();
            }
        }
        "disconnect" => client.disconnect().await.unwrap(),
        other => panic!("cannot {other}"),
    }
}

fn heard_v311(packet: &rumqttc::Packet) -> Option<Value> {
    use rumqttc::Packet;
    Some(match packet {
        Packet::ConnAck(connack) => connected(connack.code as u64, connack.session_present),
        Packet::SubAck(suback) => {
            let reason = |code: &rumqttc::SubscribeReasonCode| match code {
                rumqttc::SubscribeReasonCode::Success(qos) => *qos as u64,
                rumqttc::SubscribeReasonCode::Failure => 0x80,
            };
            let reasons: Vec<u64> = suback.return_codes.iter().map(reason).collect();
            json!({"event": "subscribed", "reasons": reasons})
        }
        Packet::PubAck(_) | Packet::PubComp(_) => published(0),
        Packet::Publish(publish) => json!({
            "event": "message", "topic": publish.topic,
            "payload": String::from_utf8_lossy(&publish.payload),
            "qos": publish.qos as u64, "retain": publish.retain, "user": {}, "expiry": null,
        }),
        _ => return None,
    })
}

async fn run_v5(
    options: v5::MqttOptions,
    mut todo: UnboundedReceiver<Value>,
    tell: UnboundedSender<Value>,
) {
    let (client, mut events) = v5::AsyncClient::new(options, 100);
    loop {
        tokio::select! {
            Some(order) = todo.recv() => order_v5(&client, &order, &tell).await,
            event = events.poll() => match event {
                Ok(v5::Event::Incoming(packet)) => {
                    heard_v5(&packet).into_iter().for_each(|said| tell.send(said).unwrap());
                }
                Ok(v5::Event::Outgoing(_)) => {}
                Err(_closed) => return tell.send(gone()).unwrap(),
            },
        }
    }
}

async fn order_v5(client: &v5::AsyncClient, order: &Value, tell: &UnboundedSender<Value>) {
    let topic = || order["topic"].as_str().unwrap();
    let qos = || v5::mqttbytes::qos(order["qos"].as_u64().unwrap() as u8).unwrap();
    match order["do"].as_str().unwrap() {
        "subscribe" => client.subscribe(topic(), qos()).await.unwrap(),
        "publish" => {
            let payload = order["payload"].as_str().unwrap().to_owned();
            let retain = order["retain"].as_bool().unwrap();
            let colour = order["user"]["colour"].as_str();
            let properties = v5::mqttbytes::v5::PublishProperties {
                message_expiry_interval: order["expiry"].as_u64().map(|secs| secs as u32),
                topic_alias: order["alias"].as_u64().map(|alias| alias as u16),
                user_properties: colour.map(|c| ("colour".into(), c.into())).into_iter().collect(),
                ..Default::default()
            };
            let publish =
                client.publish_with_properties(topic(), qos(), retain, payload, properties);
            publish.await.unwrap();
            if qos() == v5::mqttbytes::QoS::AtMostOnce {
                tell.send(published(0)).unwrap();
            }
        }
        "disconnect" => client.disconnect().await.unwrap(),
        other => panic!("cannot {other}"),
    }
}

fn heard_v5(packet: &v5::mqttbytes::v5::Packet) -> Option<Value> {
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    Some(match packet {
        Packet::ConnAck(connack) => connected(connack.code as u64, connack.session_present),
        Packet::SubAck(suback) => {
            let reason = |code: &SubscribeReasonCode| match code {
                SubscribeReasonCode::Success(qos) => *qos as u64,
                SubscribeReasonCode::NotAuthorized => code_of(ReasonCode::NotAuthorized),
                _ => 0x80,
            };
            let reasons: Vec<u64> = suback.return_codes.iter().map(reason).collect();
            json!({"event": "subscribed", "reasons": reasons})
        }
        Packet::PubAck(ack) => published(reason(&format!("{:?}", ack.reason))),
        // Refused: no PUBREL, and no PUBCOMP.
        Packet::PubRec(ack) if reason(&format!("{:?}", ack.reason)) < 0x80 => return None,
        Packet::PubRec(ack) => published(reason(&format!("{:?}", ack.reason))),
        Packet::PubComp(_) => published(0),
        Packet::Publish(publish) => {
            let properties = publish.properties.clone().unwrap_or_default();
            let user: serde_json::Map<String, Value> =
                properties.user_properties.into_iter().map(|(k, v)| (k, v.into())).collect();
            json!({
                "event": "message", "topic": String::from_utf8_lossy(&publish.topic),
                "payload": String::from_utf8_lossy(&publish.payload),
                "qos": publish.qos as u64, "retain": publish.retain, "user": user,
                "expiry": properties.message_expiry_interval,
            })
        }
        _ => return None,
    })
}

/// The code of a reason by the name that rumqttc gives it, in PUBACK and PUBREC alike.
fn reason(name: &str) -> u64 {
    match name {
        "Success" => 0,
        "NoMatchingSubscribers" => code_of(ReasonCode::NoMatchingSubscribers),
        "NotAuthorized" => code_of(ReasonCode::NotAuthorized),
        "QuotaExceeded" => code_of(ReasonCode::QuotaExceeded),
        _ => 0x80,
    }
}

fn code_of(reason: ReasonCode) -> u64 {
    u64::from(reason as u8)
}

fn connected(reason: u64, session_present: bool) -> Value {
    json!({"event": "connected", "reason": reason, "session_present": session_present})
}

fn published(reason: u64) -> Value {
    json!({"event": "published", "reason": reason, "text": null})
}

fn gone() -> Value {
    json!({"event": "disconnected", "reason": 0})
}
