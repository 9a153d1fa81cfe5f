//! The `$SYS` tree.

use std::collections::BTreeMap;
use std::time::Duration;

use simcast::mqtt::{QoS, ReasonCode};

use crate::common::{Client, Dial, Rig, in_time};

/// A broker that publishes its tree ten times a second.
async fn rig() -> Rig {
    Rig::with(|config| config.sys.interval = Duration::from_millis(100)).await
}

/// The retained tree as a new subscriber gets it.
async fn tree(client: &mut Client) -> BTreeMap<String, String> {
    assert_eq!(client.subscribe("$SYS/#", QoS::AtMostOnce).await, ReasonCode::Success);
    let arrived = client.arrived().await;
    assert!(arrived.iter().any(|publish| publish.retain));
    let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).unwrap();
    arrived.iter().map(|p| (p.topic.to_string(), text(&p.payload))).collect()
}

/// A client that knows what the tree says now.
struct Watcher {
    client: Client,
    said: BTreeMap<String, String>,
}

impl Watcher {
    async fn start(rig: &Rig) -> Self {
        let mut client = rig.client(Dial::v5("watcher")).await;
        let said = tree(&mut client).await;
        Self { client, said }
    }

    /// Waits until a topic of the tree says what is wanted.
    async fn until(&mut self, name: &str, wanted: impl Fn(&str) -> bool) {
        let topic = format!("$SYS/broker/{name}");
        let waiting = async {
            while !wanted(&self.said[&topic]) {
                let publish = self.client.expect_publish().await;
                let text = String::from_utf8(publish.payload.to_vec()).unwrap();
                self.said.insert(publish.topic.to_string(), text);
            }
        };
        in_time(name, waiting).await;
    }
}

#[tokio::test]
async fn the_tree_is_there_for_a_late_subscriber_under_mosquittos_names() {
    let rig = rig().await;
    let mut client = rig.client(Dial::v311("late")).await;
    let tree = tree(&mut client).await;
    let said = |name: &str| tree.get(&format!("$SYS/broker/{name}")).expect(name).as_str();
    assert!(said("version").starts_with("simcast version "));
    assert!(said("uptime").ends_with(" seconds"));
    let names = "bytes/received bytes/sent clients/connected clients/active clients/disconnected \
                 clients/inactive clients/expired clients/maximum clients/total \
                 connections/socket/count messages/received messages/sent messages/stored \
                 packet/out/count packet/out/bytes publish/bytes/received publish/bytes/sent \
                 publish/messages/received publish/messages/sent publish/messages/dropped \
                 store/messages/count store/messages/bytes subscriptions/count \
                 shared_subscriptions/count heap/current heap/maximum";
    for name in names.split_ascii_whitespace().chain(["retained messages/count"]) {
        assert!(said(name).parse::<u64>().is_ok(), "{name}: {}", said(name));
    }
    let loads = "messages/received messages/sent publish/dropped publish/received publish/sent \
                 bytes/received bytes/sent sockets connections";
    for name in loads.split_ascii_whitespace() {
        for window in ["1min", "5min", "15min"] {
            let value = said(&format!("load/{name}/{window}"));
            assert!(value.parse::<f64>().is_ok() && value.contains('.'), "{name}: {value}");
        }
    }
}

#[tokio::test]
async fn the_tree_follows_what_happens() {
    let rig = rig().await;
    let mut watcher = Watcher::start(&rig).await;
    let mut away = rig.client(Dial::v5("away").persistent()).await;
    watcher.until("clients/connected", |n| n == "2").await;
    away.subscribe("x", QoS::AtLeastOnce).await;
    away.subscribe("$share/g/x", QoS::AtLeastOnce).await;
    watcher.until("subscriptions/count", |n| n == "2").await;
    watcher.until("shared_subscriptions/count", |n| n == "1").await;
    away.retain("kept", "four").await;
    watcher.until("publish/bytes/received", |n| n == "4").await;
    watcher.until("publish/messages/received", |n| n == "1").await;
    watcher.until("retained messages/count", |n| n == "1").await;
    watcher.until("store/messages/bytes", |n| n == "8").await;
    watcher.until("load/publish/received/1min", |n| n != "0.00").await;
    away.disconnect().await;
    watcher.until("clients/disconnected", |n| n == "1").await;
    let expiring = rig.client(Dial::v5("away").persistent().expiry_secs(1)).await;
    expiring.disconnect().await;
    watcher.until("clients/expired", |n| n == "1").await;
    watcher.until("clients/total", |n| n == "1").await;
    watcher.until("clients/maximum", |n| n == "2").await;
    watcher.until("connections/socket/count", |n| n == "3").await;
}

#[tokio::test]
async fn an_update_is_a_message_like_any_other_and_changes_the_retained_one() {
    let rig = rig().await;
    let mut watcher = rig.client(Dial::v5("watcher")).await;
    watcher.subscribe("$SYS/broker/uptime", QoS::ExactlyOnce).await;
    let first = watcher.expect_publish().await;
    assert!(first.retain);
    let second = watcher.expect_publish().await;
    assert_eq!((second.qos, second.retain), (QoS::ExactlyOnce, false));
    assert_ne!(first.payload, second.payload);
    let mut late = rig.client(Dial::v5("late")).await;
    late.subscribe("$SYS/broker/uptime", QoS::AtMostOnce).await;
    let seen = late.expect_publish().await;
    assert!(seen.retain && seen.payload != first.payload);
}

#[tokio::test]
async fn wildcards_do_not_reach_the_tree_and_clients_do_not_write_it() {
    // case P15, case S20
    let rig = rig().await;
    let mut client = rig.client(Dial::v5("client")).await;
    client.subscribe("#", QoS::AtLeastOnce).await;
    client.subscribe("+/broker/uptime", QoS::AtLeastOnce).await;
    let state = "$SYS/broker/connection/bridge/state";
    for topic in ["$SYS/broker/uptime", "$SYS/broker/mine", "$SYS", state] {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let answer = client.publish(topic, "99 seconds", qos).await;
            assert_eq!(answer.reason, ReasonCode::NotAuthorized, "{topic}");
        }
    }
    let mut watcher = Watcher::start(&rig).await;
    let uptime = watcher.said["$SYS/broker/uptime"].clone();
    assert_ne!(uptime, "99 seconds");
    assert!(!watcher.said.contains_key("$SYS/broker/mine") && !watcher.said.contains_key(state));
    // When the tree has been published anew, it has not come here.
    watcher.until("uptime", |text| text != uptime).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn bridges_say_whether_they_are_connected_where_that_is_switched_on() {
    // case S20
    let rig = Rig::with(|config| config.mqtt.bridge_notifications = true).await;
    let mut bridge = rig.client(Dial::v311("bridge")).await;
    let mut watcher = rig.client(Dial::v5("watcher")).await;
    watcher.subscribe("$SYS/broker/connection/#", QoS::AtLeastOnce).await;
    bridge.retain("$SYS/broker/connection/home/state", "1").await;
    let publish = watcher.expect_publish().await;
    assert_eq!(publish.topic, "$SYS/broker/connection/home/state");
    let mut client = rig.client(Dial::v5("client")).await;
    for topic in ["$SYS/broker/connection/state", "$SYS/broker/connection/a/b/state"] {
        let answer = client.publish(topic, "1", QoS::AtLeastOnce).await;
        assert_eq!(answer.reason, ReasonCode::NotAuthorized, "{topic}");
    }
    let will = Dial::v311("will").will("$SYS/broker/connection/will/state", "0");
    rig.client(will).await.vanish().await;
    assert_eq!(watcher.expect_payload().await, "0");
}

#[tokio::test]
async fn the_tree_takes_no_room_from_clients() {
    let rig = Rig::with(|config| {
        config.sys.interval = Duration::from_millis(100);
        config.limits.max_retained_messages = 1;
    })
    .await;
    let mut client = rig.client(Dial::v5("client")).await;
    assert!(client.retain("one", "x").await.is_ok());
    assert_eq!(client.retain("two", "x").await.reason, ReasonCode::QuotaExceeded);
}

#[tokio::test]
async fn an_interval_of_nothing_switches_the_tree_off() {
    let rig = Rig::with(|config| config.sys.interval = Duration::ZERO).await;
    let mut client = rig.client(Dial::v5("client")).await;
    client.subscribe("$SYS/#", QoS::AtMostOnce).await;
    client.expect_nothing().await;
}
