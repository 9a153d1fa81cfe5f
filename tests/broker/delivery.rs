//! From a publisher to its subscribers.

use std::time::Duration;

use simcast::mqtt::{PublishProperties, QoS, ReasonCode, SubscribeOptions, Version};

use crate::common::{Dial, Rig};
use crate::{ONE, QOS, VERSIONS, listener, options};

#[tokio::test]
async fn every_qos_in_every_direction_between_the_versions() {
    let rig = Rig::start().await;
    let mut publishers = Vec::new();
    for version in VERSIONS {
        publishers.push(rig.client(Dial::new(version, &format!("p{version:?}"))).await);
    }
    for version in VERSIONS {
        for granted in QOS {
            let mut subscriber = rig.client(Dial::new(version, "s")).await;
            let reason = subscriber.subscribe("a/b", granted).await;
            assert_eq!(reason as u8, granted as u8, "section 3.9.3");
            for publisher in &mut publishers {
                for qos in QOS {
                    let text = format!("{version:?} {granted:?} {qos:?}");
                    let answer = publisher.publish("a/b", &text, qos).await;
                    assert_eq!(answer.reason, ReasonCode::Success);
                    let publish = subscriber.expect_publish().await;
                    assert_eq!(publish.payload, text);
                    assert_eq!(publish.qos, qos.min(granted), "[MQTT-3.8.4-8]");
                    assert!(!publish.dup && !publish.retain);
                }
            }
            subscriber.expect_nothing().await;
            subscriber.disconnect().await;
        }
    }
}

#[tokio::test]
async fn version_5_is_told_that_nobody_listens() {
    let rig = Rig::start().await;
    let mut client = rig.client(Dial::v5("c")).await;
    let answer = client.publish("nobody", "x", QoS::AtLeastOnce).await;
    assert_eq!(answer.reason, ReasonCode::NoMatchingSubscribers);
    let answer = client.publish("nobody", "x", QoS::ExactlyOnce).await;
    assert_eq!(answer.reason, ReasonCode::Success, "a PUBREC says no more than that");
    // Who asked not to get its own is a subscriber all the same.
    let no_local = SubscribeOptions { no_local: true, ..options(ONE) };
    client.subscribe_with(&[("mine", no_local)], None).await;
    let answer = client.publish("mine", "x", QoS::AtLeastOnce).await;
    assert_eq!(answer.reason, ReasonCode::Success);
}

#[tokio::test]
async fn properties_travel_and_the_alias_does_not() {
    // case Q24
    let rig = Rig::start().await;
    let mut new = listener(&rig, Dial::v5("new"), "a").await;
    let mut old = listener(&rig, Dial::v311("old"), "a").await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    let sent = PublishProperties {
        payload_is_utf8: Some(true),
        message_expiry_secs: Some(100),
        topic_alias: Some(1),
        response_topic: Some("r".into()),
        correlation_data: Some("c".into()),
        content_type: Some("text".into()),
        user: vec![("k".into(), "1".into()), ("k".into(), "2".into())],
        ..PublishProperties::default()
    };
    publisher.publish_with("a", "x", ONE, false, Some(sent.clone())).await;
    let received = *new.expect_publish().await.properties.unwrap();
    let left = received.message_expiry_secs;
    assert!(left.is_some_and(|secs| (90..=100).contains(&secs)), "[MQTT-3.3.2-6]: {left:?}");
    let expected = PublishProperties { topic_alias: None, message_expiry_secs: left, ..sent };
    assert_eq!(received, expected);
    let received = old.expect_publish().await;
    assert_eq!((received.payload, received.properties), ("x".into(), None));
}

#[tokio::test]
async fn overlapping_subscriptions_are_one_message_with_all_identifiers() {
    // case Q15
    let rig = Rig::start().await;
    let mut client = rig.client(Dial::v5("c")).await;
    let filters = [("a/b", QoS::AtMostOnce, 1), ("a/+", QoS::ExactlyOnce, 2), ("#", ONE, 3)];
    for (filter, qos, id) in filters {
        client.subscribe_with(&[(filter, options(qos))], Some(id)).await;
    }
    client.publish("a/b", "x", QoS::ExactlyOnce).await;
    let publish = client.expect_publish().await;
    assert_eq!(publish.qos, QoS::ExactlyOnce, "[MQTT-3.3.4-2]");
    let mut ids = publish.properties.unwrap().subscription_ids.to_vec();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3], "[MQTT-3.3.4-3]");
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_second_subscription_to_the_same_filter_replaces_the_first() {
    let rig = Rig::start().await;
    let mut client = rig.client(Dial::v5("c")).await;
    client.subscribe_with(&[("a", options(QoS::ExactlyOnce))], Some(1)).await;
    client.subscribe_with(&[("a", options(QoS::AtMostOnce))], None).await;
    client.publish("a", "x", ONE).await;
    let publish = client.expect_publish().await;
    assert_eq!((publish.qos, publish.properties), (QoS::AtMostOnce, None), "[MQTT-3.8.4-3]");
    client.expect_nothing().await;
}

#[tokio::test]
async fn no_local_spares_the_publisher_alone() {
    let rig = Rig::start().await;
    let no_local = SubscribeOptions { no_local: true, ..options(ONE) };
    let mut client = rig.client(Dial::v5("c")).await;
    client.subscribe_with(&[("a", no_local)], None).await;
    let mut other = listener(&rig, Dial::v5("o"), "a").await;
    client.publish("a", "mine", ONE).await;
    client.expect_nothing().await;
    assert_eq!(other.expect_payload().await, "mine");
    other.publish("a", "theirs", ONE).await;
    assert_eq!(client.expect_payload().await, "theirs");
}

#[tokio::test]
async fn a_share_group_takes_turns() {
    let rig = Rig::start().await;
    let mut members = Vec::new();
    for (id, version) in [("m1", Version::V5), ("m2", Version::V311), ("m3", Version::V5)] {
        members.push(listener(&rig, Dial::new(version, id), "$share/g/a/#").await);
    }
    let mut alone = listener(&rig, Dial::v5("alone"), "a/#").await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for number in 0..9 {
        publisher.publish("a/b", number.to_string(), ONE).await;
    }
    alone.expect_payloads(9).await;
    for member in &mut members {
        assert_eq!(member.arrived().await.len(), 3, "[MQTT-4.8.2-4]");
    }
    // Who leaves the group takes no turn any more.
    members.remove(0).disconnect().await;
    for number in 0..4 {
        publisher.publish("a/b", number.to_string(), ONE).await;
    }
    for member in &mut members {
        assert_eq!(member.arrived().await.len(), 2);
    }
}

#[tokio::test]
async fn wildcards_do_not_match_dollar_topics_and_nobody_publishes_there() {
    let rig = Rig::with(|config| config.sys.interval = Duration::ZERO).await;
    let mut all = listener(&rig, Dial::v5("all"), "#").await;
    all.subscribe("+/x", ONE).await;
    all.subscribe("$SYS/#", ONE).await;
    let answer = all.publish("$SYS/x", "x", ONE).await;
    assert_eq!(answer.reason, ReasonCode::NotAuthorized);
    all.expect_nothing().await;
    let mut old = rig.client(Dial::v311("old")).await;
    assert!(old.publish("$x/x", "x", ONE).await.is_ok());
    all.expect_nothing().await;
}

#[tokio::test]
async fn unsubscribing_ends_it() {
    let rig = Rig::start().await;
    for version in VERSIONS {
        let mut client = listener(&rig, Dial::new(version, "c"), "a/#").await;
        client.subscribe("a/+", ONE).await;
        let told = (version == Version::V5).then_some(ReasonCode::Success);
        assert_eq!(client.unsubscribe("a/#").await, told);
        client.publish("a/b", "once", ONE).await;
        assert_eq!(client.arrived().await.len(), 1);
        assert_eq!(client.unsubscribe("a/+").await, told);
        let told = (version == Version::V5).then_some(ReasonCode::NoSubscriptionExisted);
        assert_eq!(client.unsubscribe("a/+").await, told);
        client.publish("a/b", "x", ONE).await;
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn order_is_kept_from_one_publisher_to_one_subscriber() {
    let rig = Rig::start().await;
    let mut subscriber = rig.client(Dial::v5("s").receive_maximum(3)).await;
    subscriber.subscribe("a", QoS::ExactlyOnce).await;
    let mut publisher = rig.client(Dial::v311("p")).await;
    for number in 0..100 {
        publisher.publish("a", number.to_string(), QOS[1 + number % 2]).await;
    }
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(subscriber.expect_payloads(100).await, expected, "[MQTT-4.6.0-5]");
}

#[tokio::test]
async fn a_topic_alias_stands_for_its_topic() {
    let rig = Rig::start().await;
    let mut subscriber = listener(&rig, Dial::v5("s"), "#").await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    let highest = publisher.connack.properties.as_ref().unwrap().topic_alias_maximum.unwrap();
    let alias = |alias| {
        Some(PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() })
    };
    for (topic, number) in [("a", 1), ("b", highest), ("", 1), ("", highest), ("c", 1), ("", 1)] {
        publisher.publish_with(topic, "x", ONE, false, alias(number)).await;
    }
    let mut topics = Vec::new();
    for _ in 0..6 {
        topics.push(subscriber.expect_publish().await.topic.to_string());
    }
    assert_eq!(topics, ["a", "b", "a", "b", "c", "c"]);
    // [MQTT-3.3.2-9]
    for number in [2, highest + 1] {
        let mut stranger = rig.client(Dial::v5("x")).await;
        let topic = if number == 2 { "" } else { "a" };
        let properties = alias(number).map(Box::new);
        stranger
            .send(&simcast::mqtt::Packet::Publish(simcast::mqtt::Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: false,
                topic: topic.into(),
                packet_id: None,
                properties,
                payload: "x".into(),
            }))
            .await;
        let reason = stranger.expect_goodbye().await;
        let too_high = number > highest;
        let expected =
            if too_high { ReasonCode::TopicAliasInvalid } else { ReasonCode::ProtocolError };
        assert_eq!(reason, expected);
    }
}
