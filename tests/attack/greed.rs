//! Clients that want more than their share.

use simcast::mqtt::{PublishProperties, SubscribeOptions};

use crate::ONE;
use crate::common::{Dial, Rig, TO_SM_SR, envelope};

#[tokio::test]
async fn retained_messages_wait_for_a_client_within_a_bound() {
    let rig = Rig::with(|config| {
        config.limits.max_retained_messages = 500;
        config.limits.max_queued_messages = 100;
    })
    .await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for number in 0..500 {
        publisher.retain(&format!("a/{number}"), "x".repeat(1000)).await;
    }
    let mut greedy = rig.client(Dial::v5("greedy")).await;
    greedy.auto_ack = false;
    let options = SubscribeOptions { qos: ONE, ..SubscribeOptions::default() };
    let filters = vec![("#", options); 200];
    greedy.subscribe_with(&filters, None).await;
    let waiting = rig.counter("simcast_queue_messages ").await;
    assert!((480..=600).contains(&waiting), "{waiting} messages wait");
}

#[tokio::test]
async fn properties_take_room_like_payloads() {
    let rig = Rig::start().await;
    // 5 bytes each on the wire, 64 and more in memory.
    let user = vec![("".into(), "".into()); 50_000];
    let properties = Some(PublishProperties { user, ..PublishProperties::default() });
    let mut device = rig.device(1, Dial::v5("device")).await;
    let wish = envelope(1, 0, "trigger");
    let refused = device.publish_with(TO_SM_SR, &wish, ONE, false, properties.clone()).await;
    assert_eq!(refused.text.as_deref(), Some("too_large"));
    let mut away = rig.client(Dial::v5("away").persistent()).await;
    away.subscribe("a", ONE).await;
    away.disconnect().await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for _ in 0..10 {
        publisher.publish_with("a", "x", ONE, false, properties.clone()).await;
    }
    let waiting = rig.counter("simcast_queue_bytes ").await;
    assert!((3 << 20..=4 << 20).contains(&waiting), "{waiting} bytes wait");
}
