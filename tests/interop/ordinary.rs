//! Ordinary topics: what mosquitto publishes reaches paho, and the other way round.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::WAYS;
use crate::leash::{Kind, Leash};
use crate::programs::{
    Door, Message, MosquittoSub, Stage, VersionName, clients_are_here, mosquitto_pub,
};

fn message(topic: &str, payload: &str, qos: u64) -> Message {
    Message { topic: topic.into(), payload: payload.into(), qos, retain: false, nid: None }
}

fn lines<const N: usize>(lines: [&str; N]) -> [String; N] {
    lines.map(str::to_owned)
}

#[tokio::test]
async fn every_version_and_quality_of_service_with_wildcards() {
    if !clients_are_here() {
        return;
    }
    let stage = Stage::start().await;
    let door = stage.plain();
    for way in WAYS {
        let (version, qos) = way;
        let mut mosquitto = MosquittoSub::start(&door, way, "mosquitto", "site/+/temp", &[]).await;
        let mut paho = Leash::start(Kind::Paho, &door, version, "paho", &[]).await;
        assert_eq!(paho.subscribe("plant/#", qos).await, qos);
        // The third does not match; the fourth shows that it did not come.
        for topic in ["site/1/temp", "site/größe/temp", "site/1/2/temp", "site//temp"] {
            let told = paho.publish(topic, topic, qos).await;
            assert!(told.reason < 0x80, "{told:?}");
        }
        for topic in ["site/1/temp", "site/größe/temp", "site//temp"] {
            assert_eq!(mosquitto.message().await, message(topic, topic, qos), "{way:?}");
        }
        let payloads = lines(["a", "b", "c"]);
        mosquitto_pub(&door, way, "plant/one/two", &payloads, &[]).await;
        for payload in &payloads {
            assert_eq!(paho.message().await, message("plant/one/two", payload, qos), "{way:?}");
        }
        mosquitto.vanish().await;
        paho.leave().await;
    }
}

#[tokio::test]
async fn a_retained_message_waits_for_a_subscriber() {
    if !clients_are_here() {
        return;
    }
    let stage = Stage::start().await;
    let door = stage.plain();
    for way in WAYS.into_iter().filter(|(_, qos)| *qos > 0) {
        let (version, qos) = way;
        let mut paho = Leash::start(Kind::Paho, &door, version, "paho", &[]).await;
        paho.retain("kept/by/paho", "p", qos).await;
        mosquitto_pub(&door, way, "kept/by/mosquitto", &lines(["m"]), &["-r"]).await;
        let retained =
            |topic: &str, payload: &str| Message { retain: true, ..message(topic, payload, qos) };
        let mut mosquitto = MosquittoSub::start(&door, way, "m", "kept/by/paho", &[]).await;
        assert_eq!(mosquitto.message().await, retained("kept/by/paho", "p"), "{way:?}");
        paho.subscribe("kept/+/mosquitto", qos).await;
        assert_eq!(paho.message().await, retained("kept/by/mosquitto", "m"), "{way:?}");
        // An empty payload takes it away: a later subscriber gets what is published then alone.
        paho.retain("kept/by/paho", "", qos).await;
        mosquitto.vanish().await;
        let mut mosquitto = MosquittoSub::start(&door, way, "m", "kept/by/paho", &[]).await;
        paho.publish("kept/by/paho", "later", qos).await;
        assert_eq!(mosquitto.message().await, message("kept/by/paho", "later", qos), "{way:?}");
        mosquitto.vanish().await;
        paho.leave().await;
    }
}

#[tokio::test]
async fn a_will_is_published_for_those_who_vanish() {
    if !clients_are_here() {
        return;
    }
    let stage = Stage::start().await;
    let door = stage.plain();
    for version in ["311", "5"] {
        let way = (version, 1);
        let mut watcher = MosquittoSub::start(&door, way, "watcher", "gone/+", &[]).await;
        let will = ["--will", "gone/paho", "paho is gone"];
        Leash::start(Kind::Paho, &door, version, "p1", &will).await.leave().await;
        Leash::start(Kind::Paho, &door, version, "p2", &will).await.vanish().await;
        let expected = message("gone/paho", "paho is gone", 1);
        assert_eq!(watcher.message().await, expected, "version {version}");

        let mut paho = Leash::start(Kind::Paho, &door, version, "p3", &[]).await;
        paho.subscribe("gone/mosquitto", 1).await;
        let payload = "mosquitto is gone";
        let will = ["--will-topic", "gone/mosquitto", "--will-payload", payload, "--will-qos", "1"];
        MosquittoSub::visit(&door, way, "m1", "quiet", &will).await;
        MosquittoSub::start(&door, way, "m2", "quiet", &will).await.vanish().await;
        let expected = message("gone/mosquitto", payload, 1);
        assert_eq!(paho.message().await, expected, "version {version}");
        assert_eq!(watcher.message().await, expected, "version {version}");
        // Had the goodbyes published a Will, the watcher would have received it before this.
        paho.publish("gone/end", "end", 1).await;
        assert_eq!(watcher.message().await, message("gone/end", "end", 1));
        watcher.vanish().await;
        paho.leave().await;
    }
}

#[tokio::test]
async fn a_session_waits_for_its_client() {
    if !clients_are_here() {
        return;
    }
    let stage = Stage::start().await;
    let door = stage.plain();
    for way in WAYS.into_iter().filter(|(_, qos)| *qos > 0) {
        mosquitto_comes_back(&door, way).await;
        paho_comes_back(&door, way).await;
    }
}

async fn mosquitto_comes_back(door: &Door, way: (VersionName, u64)) {
    let (version, qos) = way;
    let id = format!("mosquitto-{version}-{qos}");
    let keep: &[&str] = if version == "5" { &["-c", "-x", "3600"] } else { &["-c"] };
    MosquittoSub::visit(door, way, &id, "news/m", keep).await;
    let mut paho = Leash::start(Kind::Paho, door, version, "publisher", &[]).await;
    for payload in ["1", "2", "3"] {
        assert_eq!(paho.publish("news/m", payload, qos).await.reason, 0, "somebody waits");
    }
    let mut mosquitto = MosquittoSub::start(door, way, &id, "news/m", keep).await;
    for payload in ["1", "2", "3"] {
        assert_eq!(mosquitto.message().await, message("news/m", payload, qos), "{way:?}");
    }
    mosquitto.vanish().await;
    paho.leave().await;
}

async fn paho_comes_back(door: &Door, way: (VersionName, u64)) {
    let (version, qos) = way;
    let id = format!("paho-{version}-{qos}");
    let mut paho = Leash::start(Kind::Paho, door, version, &id, &["--persistent"]).await;
    assert!(!paho.session_present);
    paho.subscribe("news/p", qos).await;
    paho.leave().await;
    mosquitto_pub(door, way, "news/p", &lines(["1", "2", "3"]), &[]).await;
    let mut paho = Leash::start(Kind::Paho, door, version, &id, &["--persistent"]).await;
    assert!(paho.session_present);
    for payload in ["1", "2", "3"] {
        assert_eq!(paho.message().await, message("news/p", payload, qos), "{way:?}");
    }
    paho.leave().await;
}

#[tokio::test]
async fn the_sys_tree_is_what_monitoring_looks_for() {
    if !clients_are_here() {
        return;
    }
    let stage = Stage::with(|config| config.sys.interval = Duration::from_millis(200)).await;
    let door = stage.plain();
    let names = [
        "broker_clients_connected",
        "broker_messages_received",
        "broker_publish_messages_dropped",
        "broker_load_messages_received_1min",
        "broker_retained_messages_count",
        "broker_subscriptions_count",
        "broker_uptime",
    ];
    for way in WAYS {
        let mut watcher = MosquittoSub::start(&door, way, "exporter", "$SYS/#", &[]).await;
        // As an exporter does: a name for each topic, and numbers.
        let mut said = BTreeMap::new();
        let connected = "broker_clients_connected";
        while said.get(connected) != Some(&1.0) || !names.iter().all(|n| said.contains_key(*n)) {
            let message = watcher.message().await;
            assert!(message.qos <= way.1);
            let name = message.topic.trim_start_matches("$SYS/").replace(['/', ' '], "_");
            let number = message.payload.trim_end_matches(" seconds").parse::<f64>();
            said.extend(number.map(|number| (name, number)));
        }
        watcher.vanish().await;
    }
}
