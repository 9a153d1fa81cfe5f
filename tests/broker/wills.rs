//! Wills of ordinary clients.

use simcast::mqtt::{Disconnect, Packet, QoS, ReasonCode};

use crate::common::{Denied, Dial, Rig};
use crate::{VERSIONS, listener};

#[tokio::test]
async fn a_lost_connection_publishes_it_and_a_goodbye_does_not() {
    let rig = Rig::start().await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will/#").await;
    for version in VERSIONS {
        let dial = Dial::new(version, "w").will("will/w", "gone");
        rig.client(dial.clone()).await.disconnect().await;
        heir.expect_nothing().await;
        rig.client(dial.clone()).await.vanish().await;
        assert_eq!(heir.expect_payload().await, "gone");
        // A socket that is simply dropped, without a TCP farewell of any care.
        drop(rig.client(dial.clone()).await);
        assert_eq!(heir.expect_payload().await, "gone");
        // A protocol error is no goodbye.
        let mut rude = rig.client(dial).await;
        rude.send_raw(&[0x00, 0x00]).await;
        rude.expect_closed().await;
        assert_eq!(heir.expect_payload().await, "gone");
        heir.expect_nothing().await;
    }
}

#[tokio::test]
async fn silence_beyond_the_keep_alive_publishes_it() {
    let rig = Rig::start().await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will").await;
    let mut old = rig.client(Dial::v311("a").keep_alive_secs(1).will("will", "a")).await;
    let mut new = rig.client(Dial::v5("b").keep_alive_secs(1).will("will", "b")).await;
    let mut wills = heir.expect_payloads(2).await;
    wills.sort();
    assert_eq!(wills, ["a", "b"]);
    assert_eq!(new.expect_goodbye().await, ReasonCode::KeepAliveTimeout, "[MQTT-3.1.2-22]");
    assert_eq!(old.expect_closed().await, None);
    assert_eq!(rig.counter("simcast_keepalive_timeouts_total ").await, 2);
}

#[tokio::test]
async fn a_client_that_pings_stays() {
    let rig = Rig::start().await;
    let mut alive = rig.client(Dial::v5("alive").keep_alive_secs(1)).await;
    let mut silent = rig.client(Dial::v5("silent").keep_alive_secs(1)).await;
    let pinging = async {
        loop {
            alive.ping().await;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = pinging => {}
        reason = silent.expect_goodbye() => assert_eq!(reason, ReasonCode::KeepAliveTimeout),
    }
    let mut other = listener(&rig, Dial::v5("other"), "x").await;
    other.publish("x", "x", crate::ONE).await;
    other.expect_payload().await;
    assert_eq!(rig.counter("simcast_keepalive_timeouts_total ").await, 1);
}

#[tokio::test]
async fn version_5_may_ask_for_it_in_the_goodbye() {
    let rig = Rig::start().await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will").await;
    let mut client = rig.client(Dial::v5("w").will("will", "asked for")).await;
    let reason = ReasonCode::DisconnectWithWill;
    client.send(&Packet::Disconnect(Disconnect { reason, properties: None })).await;
    client.expect_closed().await;
    assert_eq!(heir.expect_payload().await, "asked for");
}

#[tokio::test]
async fn a_take_over_publishes_it() {
    let rig = Rig::start().await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will").await;
    let dial = Dial::v5("w").persistent().will("will", "taken over");
    let mut first = rig.client(dial.clone()).await;
    let second = rig.client(dial).await;
    assert_eq!(first.expect_goodbye().await, ReasonCode::SessionTakenOver);
    assert_eq!(heir.expect_payload().await, "taken over", "[MQTT-3.1.3-9]");
    second.disconnect().await;
    heir.expect_nothing().await;
}

#[tokio::test]
async fn topics_that_clients_may_not_publish_to_are_refused_at_connect() {
    let rig = Rig::with(|config| config.limits.max_topic_levels = 2).await;
    for topic in ["$SYS/x", "a/b/c/d", "a/+", ""] {
        let denied = rig.try_client(Dial::v5("w").will(topic, "x")).await.err();
        let expected = Denied::ConnAck(ReasonCode::TopicNameInvalid);
        assert_eq!(denied, Some(expected), "{topic:?}");
    }
}

#[tokio::test]
async fn a_delayed_will_waits_for_its_time() {
    // case Q12, [MQTT-3.1.3-9]
    let rig = Rig::start().await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will").await;
    let dial = Dial::v5("w").expiry_secs(60).will("will", "late").will_delay_secs(1);
    rig.client(dial).await.vanish().await;
    heir.expect_nothing().await;
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    heir.expect_nothing().await;
    assert_eq!(heir.expect_payload().await, "late");
}

#[tokio::test]
async fn a_client_that_comes_back_withdraws_its_delayed_will() {
    let rig = Rig::start().await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will").await;
    let dial = Dial::v5("w").persistent().expiry_secs(60);
    rig.client(dial.clone().will("will", "x").will_delay_secs(1)).await.vanish().await;
    let back = rig.client(dial.clone()).await;
    tokio::time::sleep(std::time::Duration::from_millis(1800)).await;
    heir.expect_nothing().await;
    back.disconnect().await;
}

#[tokio::test]
async fn the_end_of_the_session_publishes_a_delayed_will_at_once() {
    // case Q13
    let rig = Rig::start().await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will").await;
    let dial = |secs| Dial::v5("w").expiry_secs(secs).will("will", "end").will_delay_secs(3600);
    // A session that ends with its connection …
    rig.client(dial(0)).await.vanish().await;
    assert_eq!(heir.expect_payload().await, "end");
    // … by its expiry …
    rig.client(dial(1)).await.vanish().await;
    assert_eq!(heir.expect_payload().await, "end");
    // … or because its client wants a clean start.
    rig.client(dial(3600)).await.vanish().await;
    let fresh = rig.client(Dial::v5("w").clean()).await;
    assert_eq!(heir.expect_payload().await, "end");
    fresh.disconnect().await;
    heir.expect_nothing().await;
}

#[tokio::test]
async fn who_reads_slowly_holds_up_no_will() {
    // case Q12
    let rig = Rig::start().await;
    let mut slow = rig.client(Dial::v5("slow").receive_maximum(1)).await;
    slow.auto_ack = false;
    slow.subscribe("#", QoS::AtLeastOnce).await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for _ in 0..800 {
        publisher.publish("fill", "x", QoS::AtLeastOnce).await;
    }
    let mut fair = rig.client(Dial::v5("fair")).await;
    fair.subscribe("will/#", QoS::AtMostOnce).await;
    for number in 0..600 {
        let dial = Dial::v5(&format!("c{number}")).expiry_secs(100).will("will/x", "gone");
        rig.client(dial.will_delay_secs(4)).await.vanish().await;
    }
    // Its queue stays nearly full: it takes one for each that comes.
    let reading = tokio::spawn(async move {
        loop {
            let publish = slow.expect_publish().await;
            tokio::time::sleep(std::time::Duration::from_millis(4)).await;
            slow.acknowledge(&publish).await;
        }
    });
    fair.expect_payloads(600).await;
    reading.abort();
}
