//! Retained messages.

use simcast::mqtt::{PublishProperties, QoS, RetainHandling, SubscribeOptions};

use crate::common::{Client, Dial, Rig};
use crate::{ONE, VERSIONS, listener, options};

/// Topic and payload of everything that has come.
async fn arrived(client: &mut Client) -> Vec<(String, String, bool)> {
    let publishes = client.arrived().await.into_iter();
    let texts = publishes.map(|publish| {
        let text = String::from_utf8_lossy(&publish.payload).into_owned();
        (publish.topic.to_string(), text, publish.retain)
    });
    let mut texts: Vec<_> = texts.collect();
    texts.sort();
    texts
}

fn entry(topic: &str, payload: &str, retain: bool) -> (String, String, bool) {
    (topic.to_owned(), payload.to_owned(), retain)
}

#[tokio::test]
async fn the_last_one_is_kept_replaced_and_deleted() {
    // case Q16
    let rig = Rig::start().await;
    for version in VERSIONS {
        let mut publisher = rig.client(Dial::new(version, "p")).await;
        publisher.retain("a/b", "old").await;
        publisher.retain("a/b", "new").await;
        publisher.publish("a/b", "not retained", ONE).await;
        let mut late = listener(&rig, Dial::new(version, "late"), "a/b").await;
        assert_eq!(arrived(&mut late).await, [entry("a/b", "new", true)], "[MQTT-3.3.1-8]");
        // To who listens already it is a message like any other.
        publisher.retain("a/b", "newer").await;
        assert_eq!(arrived(&mut late).await, [entry("a/b", "newer", false)], "[MQTT-3.3.1-9]");
        publisher.retain("a/b", "").await;
        assert_eq!(arrived(&mut late).await, [entry("a/b", "", false)]);
        let mut later = listener(&rig, Dial::new(version, "later"), "a/b").await;
        later.expect_nothing().await;
    }
    assert_eq!(rig.counter("simcast_retained_messages ").await, 0);
}

#[tokio::test]
async fn wildcards_find_them() {
    let rig = Rig::start().await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for topic in ["a", "a/b", "a/b/c", "/a"] {
        publisher.retain(topic, topic).await;
    }
    for (filter, expected) in [
        ("#", vec!["/a", "a", "a/b", "a/b/c"]),
        ("a/#", vec!["a", "a/b", "a/b/c"]),
        ("a/+", vec!["a/b"]),
        ("+/+", vec!["/a", "a/b"]),
        ("+", vec!["a"]),
    ] {
        let mut client = listener(&rig, Dial::v5("c"), filter).await;
        let topics: Vec<_> = arrived(&mut client).await.into_iter().map(|(t, _, _)| t).collect();
        assert_eq!(topics, expected, "{filter}");
    }
}

#[tokio::test]
async fn retain_handling_and_retain_as_published() {
    // case Q16
    let rig = Rig::start().await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    publisher.retain("a", "x").await;
    let mut client = rig.client(Dial::v5("c")).await;
    let asking = |retain_handling| SubscribeOptions { retain_handling, ..options(ONE) };
    for (handling, times) in [
        (RetainHandling::Never, 0),
        (RetainHandling::IfNew, 0),
        (RetainHandling::Always, 1),
        (RetainHandling::Always, 1),
    ] {
        client.subscribe_with(&[("a", asking(handling))], None).await;
        assert_eq!(client.arrived().await.len(), times, "{handling:?}");
    }
    client.unsubscribe("a").await;
    client.subscribe_with(&[("a", asking(RetainHandling::IfNew))], None).await;
    assert_eq!(client.arrived().await.len(), 1, "[MQTT-3.3.1-10]");

    for retain_as_published in [true, false] {
        let options = SubscribeOptions { retain_as_published, ..asking(RetainHandling::Never) };
        client.subscribe_with(&[("a", options)], None).await;
        publisher.retain("a", "y").await;
        assert_eq!(arrived(&mut client).await, [entry("a", "y", retain_as_published)]);
    }
}

#[tokio::test]
async fn a_share_group_gets_none() {
    let rig = Rig::start().await;
    rig.client(Dial::v5("p")).await.retain("a", "x").await;
    listener(&rig, Dial::v5("c"), "$share/g/a").await.expect_nothing().await;
}

#[tokio::test]
async fn the_qos_is_the_lower_one_and_the_subscription_is_named() {
    // case Q16
    let rig = Rig::start().await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    let qos = QoS::ExactlyOnce;
    publisher.publish_with("a", "x", qos, true, None).await;
    let mut client = rig.client(Dial::v5("c")).await;
    client.subscribe_with(&[("a", options(ONE))], Some(9)).await;
    let publish = client.expect_publish().await;
    assert_eq!((publish.qos, publish.retain), (ONE, true));
    assert_eq!(publish.properties.unwrap().subscription_ids[..], [9]);
}

#[tokio::test]
async fn one_that_has_expired_is_gone() {
    let rig = Rig::start().await;
    let properties =
        PublishProperties { message_expiry_secs: Some(1), ..PublishProperties::default() };
    let mut publisher = rig.client(Dial::v5("p")).await;
    publisher.publish_with("a", "x", ONE, true, Some(properties)).await;
    // Nothing but time itself makes a message expire.
    tokio::time::sleep(std::time::Duration::from_millis(1050)).await;
    listener(&rig, Dial::v5("c"), "a").await.expect_nothing().await;
}

#[tokio::test]
async fn a_retained_will_is_kept() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let dial = Dial::new(version, "w").will("w", "gone").will_retained();
        rig.client(dial).await.vanish().await;
        let mut client = listener(&rig, Dial::new(version, "c"), "w").await;
        assert_eq!(arrived(&mut client).await, [entry("w", "gone", true)]);
    }
}

#[tokio::test]
async fn there_is_room_for_so_many_and_the_publisher_is_told() {
    let rig = Rig::with(|config| config.limits.max_retained_messages = 2).await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    assert!(publisher.retain("a", "x").await.is_ok());
    assert!(publisher.retain("b", "x").await.is_ok());
    let answer = publisher.retain("c", "x").await;
    assert_eq!(answer.reason, simcast::mqtt::ReasonCode::QuotaExceeded);
    assert!(publisher.retain("a", "y").await.is_ok(), "one that is there may be replaced");
}
