//! Sessions, subscriptions, queues, packet ids, retained messages and Wills.

use std::time::Duration;

use simcast::mqtt::{Ack, Packet, Publish, QoS, ReasonCode, Version};

use super::common::client::success;
use super::common::{Client, Dial, in_time};
use super::{after_a_crash, after_a_restart, broker};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];
const KEPT: [QoS; 2] = [QoS::AtLeastOnce, QoS::ExactlyOnce];

fn reader(version: Version) -> Dial {
    Dial::new(version, "reader").persistent()
}

async fn publish_all(client: &mut Client, range: std::ops::Range<usize>, qos: QoS) {
    for number in range {
        assert!(client.publish("t/x", number.to_string(), qos).await.is_ok());
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// What nobody waits for is on the disk a little later.
async fn lazily_written() {
    tokio::time::sleep(4 * simcast::store::LAZY_DELAY).await;
}

#[tokio::test]
async fn what_waits_for_a_client_waits_after_a_crash_and_after_a_restart() {
    for (version, qos) in VERSIONS.into_iter().flat_map(|v| KEPT.map(|qos| (v, qos))) {
        let mut broker = broker().await;
        let mut client = broker.client(reader(version)).await;
        assert!(!client.subscribe("t/+", qos).await.is_error());
        client.disconnect().await;
        let mut publisher = broker.client(Dial::v5("publisher")).await;
        publish_all(&mut publisher, 0..20, qos).await;
        broker = after_a_crash(broker).await;
        let mut publisher = broker.client(Dial::v5("publisher")).await;
        publish_all(&mut publisher, 20..30, qos).await;
        broker = after_a_restart(broker).await;
        let mut client = broker.client(reader(version)).await;
        assert!(client.session_present());
        assert_eq!(client.expect_payloads(30).await, numbers(0..30), "{version:?} {qos:?}");
        client.expect_nothing().await;
        client.disconnect().await;
        if qos == QoS::AtLeastOnce {
            lazily_written().await;
        }
        // What it has, it has: nothing of it comes again.
        broker = after_a_crash(broker).await;
        let mut client = broker.client(reader(version)).await;
        client.expect_nothing().await;
        let mut publisher = broker.client(Dial::v5("publisher")).await;
        publish_all(&mut publisher, 30..31, qos).await;
        assert_eq!(client.expect_payload().await, "30", "its subscription is there");
    }
}

#[tokio::test]
async fn what_was_on_its_way_is_sent_again() {
    for (version, qos) in VERSIONS.into_iter().flat_map(|v| KEPT.map(|qos| (v, qos))) {
        let mut broker = broker().await;
        let mut client = broker.client(reader(version)).await;
        assert!(!client.subscribe("t/+", qos).await.is_error());
        client.auto_ack = false;
        let mut publisher = broker.client(Dial::v5("publisher")).await;
        publish_all(&mut publisher, 0..3, qos).await;
        let mut first = Vec::new();
        for _ in 0..3 {
            first.push(client.expect_publish().await);
        }
        assert!(first.iter().all(|publish| !publish.dup));
        broker = after_a_crash(broker).await;
        let mut client = broker.client(reader(version)).await;
        let mut again = Vec::new();
        for _ in 0..3 {
            again.push(client.expect_publish().await);
        }
        // [MQTT-3.3.1-1]
        assert!(again.iter().all(|publish| publish.dup), "{again:?}");
        let payloads = |publishes: &[Publish]| -> Vec<_> {
            publishes.iter().map(|publish| publish.payload.clone()).collect()
        };
        assert_eq!(payloads(&first), payloads(&again));
        if qos == QoS::ExactlyOnce {
            // Under another id, the client would take it for another message.
            let ids = |publishes: &[Publish]| -> Vec<_> {
                publishes.iter().map(|publish| publish.packet_id).collect()
            };
            assert_eq!(ids(&first), ids(&again));
        }
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_message_that_the_client_has_taken_is_released_and_not_sent_again() {
    for version in VERSIONS {
        let mut broker = broker().await;
        let mut client = broker.client(reader(version)).await;
        assert!(!client.subscribe("t/+", QoS::ExactlyOnce).await.is_error());
        client.auto_complete = false;
        let mut publisher = broker.client(Dial::v5("publisher")).await;
        publish_all(&mut publisher, 0..1, QoS::ExactlyOnce).await;
        let id = client.expect_publish().await.packet_id.unwrap();
        let released =
            |packet: &Packet| matches!(packet, Packet::PubRel(ack) if ack.packet_id == id);
        assert!(released(&client.read().await.unwrap()));
        broker = after_a_crash(broker).await;
        let mut client = broker.client(reader(version)).await;
        assert!(released(&client.read().await.unwrap()), "PUBREL once more");
        client.ping().await;
        client.expect_nothing().await;
        client.disconnect().await;
        broker = after_a_crash(broker).await;
        let mut client = broker.client(reader(version)).await;
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_message_that_was_taken_is_not_taken_twice() {
    for version in VERSIONS {
        let mut broker = broker().await;
        let mut client = broker.client(reader(version)).await;
        assert!(!client.subscribe("t/+", QoS::ExactlyOnce).await.is_error());
        client.disconnect().await;
        let mut writer = broker.client(Dial::new(version, "writer").persistent()).await;
        let id = simcast::ids::PacketId::new(77).unwrap();
        let publish = |dup: bool, payload: &'static str| {
            Packet::Publish(Publish {
                dup,
                qos: QoS::ExactlyOnce,
                retain: false,
                topic: "t/x".into(),
                packet_id: Some(id),
                properties: None,
                payload: payload.into(),
            })
        };
        writer.send(&publish(false, "once")).await;
        let taken = writer.read().await;
        assert!(matches!(taken, Some(Packet::PubRec(Ack { packet_id, .. })) if packet_id == id));
        broker = after_a_crash(broker).await;
        let mut writer = broker.client(Dial::new(version, "writer").persistent()).await;
        assert!(writer.session_present());
        writer.send(&publish(true, "once")).await;
        assert!(matches!(writer.read().await, Some(Packet::PubRec(_))));
        writer.send(&Packet::PubRel(success(id))).await;
        assert!(matches!(writer.read().await, Some(Packet::PubComp(_))));
        broker = after_a_crash(broker).await;
        // The id is free: what comes under it now is another message.
        let mut writer = broker.client(Dial::new(version, "writer").persistent()).await;
        writer.send(&publish(false, "another")).await;
        assert!(matches!(writer.read().await, Some(Packet::PubRec(_))));
        let mut client = broker.client(reader(version)).await;
        assert_eq!(client.expect_payloads(2).await, ["once", "another"]);
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn retained_messages_are_those_of_before() {
    let mut broker = broker().await;
    let mut writer = broker.client(Dial::v5("writer")).await;
    for (topic, payload) in [("r/a", "1"), ("r/b", "1"), ("r/c", "1"), ("r/a", "2"), ("r/b", "")] {
        assert!(writer.retain(topic, payload).await.is_ok());
    }
    for _ in 0..2 {
        broker = after_a_crash(broker).await;
        let mut client = broker.client(Dial::v5("reader")).await;
        client.subscribe("r/#", QoS::AtLeastOnce).await;
        let mut found = client.expect_payloads(2).await;
        found.sort();
        assert_eq!(found, ["1", "2"]);
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn who_has_unsubscribed_or_has_begun_anew_stays_so() {
    let mut broker = broker().await;
    let mut client = broker.client(reader(Version::V5)).await;
    client.subscribe("t/#", QoS::AtLeastOnce).await;
    client.subscribe("u/#", QoS::AtLeastOnce).await;
    assert_eq!(client.unsubscribe("t/#").await, Some(ReasonCode::Success));
    let mut other = broker.client(Dial::v5("other").persistent()).await;
    other.subscribe("t/#", QoS::AtLeastOnce).await;
    other.disconnect().await;
    // A clean start ends what was there before [MQTT-3.1.2-4].
    let mut other = broker.client(Dial::v5("other").persistent().clean()).await;
    other.subscribe("v", QoS::AtLeastOnce).await;
    broker = after_a_crash(broker).await;
    let mut writer = broker.client(Dial::v5("writer")).await;
    for topic in ["t/x", "u/x", "v"] {
        writer.publish(topic, topic, QoS::AtLeastOnce).await;
    }
    let mut client = broker.client(reader(Version::V5)).await;
    assert_eq!(client.expect_payload().await, "u/x");
    client.expect_nothing().await;
    let mut other = broker.client(Dial::v5("other").persistent()).await;
    assert_eq!(other.expect_payload().await, "v");
    other.expect_nothing().await;
}

#[tokio::test]
async fn sessions_end_by_the_clock_on_the_wall() {
    // case Q5
    let mut broker = broker().await;
    let mut brief = broker.client(Dial::v5("brief").persistent().expiry_secs(1)).await;
    brief.subscribe("t/#", QoS::AtLeastOnce).await;
    brief.disconnect().await;
    let long = broker.client(Dial::v5("long").persistent().expiry_secs(u32::MAX)).await;
    long.disconnect().await;
    let none = broker.client(Dial::v5("none")).await;
    none.disconnect().await;
    lazily_written().await;
    let dir = broker.crash().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    broker = super::common::process::Broker::start_again(dir, super::LOG).await;
    let until_swept = async {
        while broker.client(Dial::v5("brief").persistent().expiry_secs(1)).await.session_present() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    in_time("the end of the brief session", until_swept).await;
    assert!(broker.client(Dial::v5("long").persistent()).await.session_present());
    assert!(!broker.client(Dial::v5("none").persistent()).await.session_present());
}

#[tokio::test]
async fn a_will_waits_for_its_delay_across_a_restart_and_its_client_withdraws_it() {
    // case Q12
    let mut broker = broker().await;
    let mut reader = broker.client(reader(Version::V5)).await;
    reader.subscribe("will/#", QoS::AtLeastOnce).await;
    reader.disconnect().await;
    for name in ["gone", "back"] {
        let dial = Dial::v5(name).persistent().will(&format!("will/{name}"), "x");
        broker.client(dial.will_delay_secs(3)).await.vanish().await;
    }
    let mut other = broker.client(Dial::v5("other")).await;
    // Both are noticed to have gone before this is answered.
    tokio::time::sleep(Duration::from_millis(300)).await;
    other.ping().await;
    broker = after_a_crash(broker).await;
    let _back = broker.client(Dial::v5("back").persistent()).await;
    let mut reader = broker.client(super::ordinary::reader(Version::V5)).await;
    assert_eq!(&*reader.expect_publish().await.topic, "will/gone");
    reader.expect_nothing().await;
}

#[tokio::test]
async fn two_brokers_do_not_share_a_store() {
    // case C14
    let broker = broker().await;
    let mut command = super::common::process::serve(broker.dir.path(), &["-c", "simcast.toml"]);
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("another simcast has it open"), "{told}");
    let mut client = broker.client(Dial::v5("c")).await;
    client.ping().await;
}

#[tokio::test]
async fn its_files_are_for_the_owner_alone() {
    // case C16
    use std::os::unix::fs::PermissionsExt;
    let broker = broker().await;
    let folder = broker.dir.path().join("simcast-data");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}
