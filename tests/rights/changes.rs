//! What a change of the ACL does to sessions that are there already.

use simcast::mqtt::{Packet, Publish, QoS, ReasonCode};

use crate::common::client::success;
use crate::common::{Client, Dial};
use crate::{ONE, QOS, Stage, VERSIONS, denial, filter_denial};

const BOTH: &str = "\
user author
topic write #
user reader
topic read a
topic read b
topic read c/#
";

/// `b` is no longer for the reader.
const ONLY_A: &str = "\
user author
topic write #
user reader
topic read a
topic read c/#
";

async fn author(stage: &Stage) -> Client {
    stage.user("author", Dial::v5("author")).await
}

async fn publish(author: &mut Client, topics: &[&str], qos: QoS) {
    for topic in topics {
        assert!(author.publish(topic, topic, qos).await.is_ok());
    }
}

// case S6
#[tokio::test]
async fn the_next_message_after_a_revocation_is_not_delivered() {
    let stage = Stage::start(BOTH).await;
    let mut author = author(&stage).await;
    for version in VERSIONS {
        for qos in QOS {
            stage.change(BOTH);
            let mut reader = stage.user("reader", Dial::new(version, "r")).await;
            for filter in ["a", "b"] {
                assert!(!reader.subscribe(filter, qos).await.is_error());
            }
            publish(&mut author, &["a", "b"], qos).await;
            assert_eq!(reader.expect_payloads(2).await, ["a", "b"]);
            stage.change(ONLY_A);
            publish(&mut author, &["a", "b"], qos).await;
            assert_eq!(reader.expect_payload().await, "a");
            reader.expect_nothing().await;
            assert_eq!(reader.subscribe("b", qos).await, filter_denial(version));
            // And back again: the subscription is still there.
            stage.change(BOTH);
            publish(&mut author, &["b"], qos).await;
            assert_eq!(reader.expect_payload().await, "b");
            reader.disconnect().await;
        }
    }
}

#[tokio::test]
async fn the_next_publish_after_a_revocation_is_denied() {
    let stage = Stage::start(BOTH).await;
    for version in VERSIONS {
        stage.change("user author\ntopic a\n");
        let mut author = stage.user("author", Dial::new(version, "author")).await;
        assert!(!author.subscribe("a", ONE).await.is_error());
        publish(&mut author, &["a"], ONE).await;
        assert_eq!(author.expect_payload().await, "a");
        stage.change("user author\ntopic read a\n");
        assert_eq!(author.publish("a", "no", ONE).await.reason, denial(version));
        author.expect_nothing().await;
        author.disconnect().await;
    }
}

// case S7
#[tokio::test]
async fn queued_messages_of_a_session_that_is_away_are_filtered() {
    let stage = Stage::start(BOTH).await;
    let mut author = author(&stage).await;
    for version in VERSIONS {
        for qos in [ONE, QoS::ExactlyOnce] {
            stage.change(BOTH);
            let before = stage.denied("deliver").await;
            let dial = Dial::new(version, "away").persistent();
            let mut reader = stage.user("reader", dial.clone()).await;
            for filter in ["a", "b", "c/#"] {
                assert!(!reader.subscribe(filter, qos).await.is_error());
            }
            reader.disconnect().await;
            publish(&mut author, &["a", "b", "c/d"], qos).await;
            stage.change(ONLY_A);
            publish(&mut author, &["b", "a"], qos).await;
            let mut reader = stage.user("reader", dial.clone()).await;
            assert!(reader.session_present());
            assert_eq!(reader.expect_payloads(3).await, ["a", "c/d", "a"]);
            reader.expect_nothing().await;
            assert_eq!(stage.denied("deliver").await - before, 2);
            reader.disconnect().await;
            stage.user("reader", Dial::new(version, "away")).await.disconnect().await;
        }
    }
}

// case S7
#[tokio::test]
async fn what_was_in_flight_is_not_sent_again() {
    let stage = Stage::start(BOTH).await;
    let mut author = author(&stage).await;
    for version in VERSIONS {
        for qos in [ONE, QoS::ExactlyOnce] {
            stage.change(BOTH);
            let dial = Dial::new(version, "flight").persistent();
            let mut reader = stage.user("reader", dial.clone()).await;
            reader.auto_ack = false;
            for filter in ["a", "b"] {
                assert!(!reader.subscribe(filter, qos).await.is_error());
            }
            publish(&mut author, &["a", "b"], qos).await;
            assert_eq!(reader.expect_payloads(2).await, ["a", "b"]);
            reader.vanish().await;
            stage.change(ONLY_A);
            let mut reader = stage.user("reader", dial.clone()).await;
            let again = reader.expect_publish().await;
            assert!(again.dup && again.topic == "a", "{again:?}");
            reader.expect_nothing().await;
            // Nothing of what was forgotten takes room in the window.
            for _ in 0..30 {
                publish(&mut author, &["a"], qos).await;
                assert_eq!(reader.expect_payload().await, "a");
            }
            reader.disconnect().await;
            stage.user("reader", Dial::new(version, "flight")).await.disconnect().await;
        }
    }
}

// case S7
#[tokio::test]
async fn what_was_in_flight_under_a_subscription_that_is_gone_is_not_sent_again() {
    let stage = Stage::start(BOTH).await;
    let mut author = author(&stage).await;
    for version in VERSIONS {
        stage.change(BOTH);
        let dial = Dial::new(version, "flight").persistent();
        let mut reader = stage.user("reader", dial.clone()).await;
        reader.auto_ack = false;
        assert!(!reader.subscribe("b", ONE).await.is_error());
        publish(&mut author, &["b"], ONE).await;
        assert_eq!(reader.expect_payload().await, "b");
        reader.unsubscribe("b").await;
        reader.vanish().await;
        // Permitted, it comes again, subscription or not.
        let mut reader = stage.user("reader", dial.clone()).await;
        reader.auto_ack = false;
        assert!(reader.expect_publish().await.dup);
        reader.vanish().await;
        stage.change(ONLY_A);
        let mut reader = stage.user("reader", dial).await;
        reader.expect_nothing().await;
        reader.disconnect().await;
        stage.user("reader", Dial::new(version, "flight")).await.disconnect().await;
    }
}

// case S7
#[tokio::test]
async fn what_waits_for_the_window_to_be_sent_again_is_looked_at_when_its_turn_comes() {
    let stage = Stage::start(BOTH).await;
    let mut author = author(&stage).await;
    let dial = Dial::v5("window").persistent();
    let mut reader = stage.user("reader", dial.clone()).await;
    reader.auto_ack = false;
    for filter in ["a", "b"] {
        assert!(!reader.subscribe(filter, ONE).await.is_error());
    }
    publish(&mut author, &["a", "b", "a"], ONE).await;
    assert_eq!(reader.expect_payloads(3).await, ["a", "b", "a"]);
    reader.vanish().await;
    // The new connection takes one message at a time.
    let mut reader = stage.user("reader", dial.receive_maximum(1)).await;
    reader.auto_ack = false;
    let first = reader.expect_publish().await;
    assert_eq!((&*first.topic, first.dup), ("a", true));
    reader.expect_nothing().await;
    stage.change(ONLY_A);
    reader.acknowledge(&first).await;
    let second = reader.expect_publish().await;
    assert_eq!((&*second.topic, second.dup), ("a", true), "not b");
    reader.acknowledge(&second).await;
    reader.expect_nothing().await;
}

// case S6
#[tokio::test]
async fn what_waits_behind_a_full_window_is_purged() {
    let stage = Stage::start(BOTH).await;
    let mut author = author(&stage).await;
    for version in VERSIONS {
        stage.change(BOTH);
        let mut reader = stage.user("reader", Dial::new(version, "slow")).await;
        reader.auto_ack = false;
        assert!(!reader.subscribe("a", ONE).await.is_error());
        assert!(!reader.subscribe("b", ONE).await.is_error());
        let window = 20; // `limits.max_inflight`
        for _ in 0..window {
            publish(&mut author, &["a"], ONE).await;
        }
        publish(&mut author, &["b", "a", "b"], ONE).await;
        let mut sent = Vec::new();
        for _ in 0..window {
            sent.push(reader.expect_publish().await);
        }
        reader.expect_nothing().await;
        stage.change(ONLY_A);
        for publish in &sent {
            reader.acknowledge(publish).await;
        }
        assert_eq!(reader.expect_payload().await, "a");
        reader.expect_nothing().await;
        reader.disconnect().await;
    }
}

// cases S4, S6
#[tokio::test]
async fn what_waits_for_a_member_of_a_share_group_goes_to_another() {
    let stage = Stage::start(BOTH).await;
    let mut author = author(&stage).await;
    let mut slow = stage.user("reader", Dial::v5("slow").receive_maximum(1)).await;
    slow.auto_ack = false;
    assert!(!slow.subscribe("$share/g/b", ONE).await.is_error());
    publish(&mut author, &["b", "b", "b"], ONE).await;
    let first = slow.expect_publish().await;
    slow.expect_nothing().await;
    let others = format!("{ONLY_A}user other\ntopic read b\n");
    stage.change(&format!("{BOTH}user other\ntopic read b\n"));
    let mut other = stage.user("other", Dial::v5("other")).await;
    assert!(!other.subscribe("$share/g/b", ONE).await.is_error());
    other.expect_nothing().await;
    stage.change(&others);
    assert_eq!(other.expect_payloads(2).await, ["b", "b"]);
    slow.acknowledge(&first).await;
    slow.expect_nothing().await;
    assert_eq!(stage.denied("deliver").await, 0, "nobody missed anything");
}

// case S7
#[tokio::test]
async fn what_a_member_of_a_share_group_had_in_flight_goes_to_another_with_its_right() {
    let other = "user other\ntopic read b\n";
    let stage = Stage::start(&format!("{BOTH}{other}")).await;
    let mut author = author(&stage).await;
    let dial = Dial::v5("away").persistent();
    let mut reader = stage.user("reader", dial.clone()).await;
    reader.auto_ack = false;
    assert!(!reader.subscribe("$share/g/b", ONE).await.is_error());
    publish(&mut author, &["b"], ONE).await;
    assert_eq!(reader.expect_payload().await, "b");
    // Nobody else is there yet, so it waits for the reader.
    reader.vanish().await;
    let mut other = stage.user("other", Dial::v5("other")).await;
    assert!(!other.subscribe("$share/g/b", ONE).await.is_error());
    stage.change(&format!("{ONLY_A}user other\ntopic read b\n"));
    let mut reader = stage.user("reader", dial).await;
    assert!(reader.session_present());
    reader.expect_nothing().await;
    assert_eq!(other.expect_payload().await, "b");
    assert_eq!(stage.denied("deliver").await, 0, "nobody missed anything");
}

// case S9
#[tokio::test]
async fn a_qos_2_message_counts_when_it_comes_and_its_release_publishes_nothing() {
    let stage = Stage::start(BOTH).await;
    for version in VERSIONS {
        stage.change(BOTH);
        let mut reader = stage.user("reader", Dial::new(version, "r")).await;
        assert!(!reader.subscribe("a", ONE).await.is_error());
        let mut author = stage.user("author", Dial::new(version, "author")).await;
        let id = simcast::ids::PacketId::new(77).unwrap();
        let mut publish = Publish {
            dup: false,
            qos: QoS::ExactlyOnce,
            retain: false,
            topic: "a".into(),
            packet_id: Some(id),
            properties: None,
            payload: "parked".into(),
        };
        author.send(&Packet::Publish(publish.clone())).await;
        assert!(matches!(author.read().await, Some(Packet::PubRec(_))));
        assert_eq!(reader.expect_payload().await, "parked", "permitted, and owned since PUBREC");
        stage.change("user reader\ntopic read #\n");
        publish.dup = true;
        author.send(&Packet::Publish(publish)).await;
        assert!(matches!(author.read().await, Some(Packet::PubRec(_))), "answered, not routed");
        author.send(&Packet::PubRel(success(id))).await;
        let Some(Packet::PubComp(done)) = author.read().await else { panic!("no PUBCOMP") };
        assert_eq!(done.reason, ReasonCode::Success);
        assert_eq!(author.publish("a", "late", QoS::ExactlyOnce).await.reason, denial(version));
        reader.expect_nothing().await;
        reader.disconnect().await;
        author.disconnect().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_change_under_load_and_nothing_denied_arrives_afterwards() {
    let stage = Stage::start(BOTH).await;
    let mut author = author(&stage).await;
    let mut reader = stage.user("reader", Dial::v5("r")).await;
    assert!(!reader.subscribe("b", ONE).await.is_error());
    for round in 0..20 {
        stage.change(BOTH);
        let marker = format!("permitted {round}");
        let publishing = async {
            for _ in 0..20 {
                author.publish("b", "before or while", ONE).await;
            }
        };
        let changing = async {
            tokio::task::yield_now().await;
            stage.change(ONLY_A);
        };
        tokio::join!(publishing, changing);
        reader.arrived().await;
        author.publish("b", "denied", ONE).await;
        reader.expect_nothing().await;
        stage.change(BOTH);
        author.publish("b", &marker, ONE).await;
        assert_eq!(reader.expect_payload().await, marker);
    }
}
