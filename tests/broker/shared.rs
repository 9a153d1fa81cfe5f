//! Shared subscriptions whose members come and go (section 4.8.2).

use simcast::mqtt::QoS;

use crate::common::{Dial, Rig};

const SHARED: &str = "$share/g/work/#";

#[tokio::test]
async fn what_a_dead_member_had_in_flight_goes_to_another() {
    // case Q14
    let rig = Rig::start().await;
    let mut dying = rig.client(Dial::v5("dying")).await;
    dying.subscribe(SHARED, QoS::AtLeastOnce).await;
    dying.auto_ack = false;
    let mut publisher = rig.client(Dial::v5("publisher")).await;
    for number in 0..30 {
        publisher.publish("work/1", number.to_string(), QoS::AtLeastOnce).await;
    }
    // Twenty in flight, ten in the queue, none acknowledged.
    let seen = dying.expect_payloads(20).await;
    let mut heir = rig.client(Dial::v5("heir")).await;
    heir.subscribe(SHARED, QoS::AtLeastOnce).await;
    dying.vanish().await;
    let all: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    assert_eq!(heir.expect_payloads(30).await, all, "all of them, in order");
    assert_eq!(seen, all[..20]);
    heir.expect_nothing().await;
}

#[tokio::test]
async fn who_is_away_keeps_its_messages_only_while_no_other_member_is_there() {
    // case Q14
    let rig = Rig::start().await;
    let mut first = rig.client(Dial::v5("first").persistent()).await;
    first.subscribe(SHARED, QoS::AtLeastOnce).await;
    first.auto_ack = false;
    let mut publisher = rig.client(Dial::v5("publisher")).await;
    publisher.publish("work/1", "alone", QoS::AtLeastOnce).await;
    first.expect_payload().await;
    first.vanish().await;
    let mut first = rig.client(Dial::v5("first").persistent()).await;
    first.auto_ack = false;
    let again = first.expect_publish().await;
    assert!(again.dup && again.payload == "alone", "nobody else was there");
    let mut second = rig.client(Dial::v5("second")).await;
    second.subscribe(SHARED, QoS::AtLeastOnce).await;
    first.vanish().await;
    assert_eq!(second.expect_payload().await, "alone");
    let mut first = rig.client(Dial::v5("first").persistent()).await;
    first.expect_nothing().await;
}

#[tokio::test]
async fn what_the_other_member_has_no_room_for_waits_where_it_is() {
    // case Q14
    let rig = Rig::with(|config| config.limits.max_queued_messages = 4).await;
    let dial = Dial::v5("first").persistent();
    let mut first = rig.client(dial.clone()).await;
    first.subscribe(SHARED, QoS::AtLeastOnce).await;
    first.auto_ack = false;
    let mut publisher = rig.client(Dial::v5("publisher")).await;
    assert!(publisher.publish("work/1", "kept", QoS::AtLeastOnce).await.is_ok());
    first.expect_payload().await;
    let mut full = rig.client(Dial::v5("full").receive_maximum(1)).await;
    full.auto_ack = false;
    full.subscribe("other", QoS::AtLeastOnce).await;
    for _ in 0..10 {
        publisher.publish("other", "x", QoS::AtLeastOnce).await;
    }
    full.expect_payload().await;
    full.subscribe(SHARED, QoS::AtLeastOnce).await;
    first.vanish().await;
    let mut first = rig.client(dial).await;
    assert_eq!(first.expect_payload().await, "kept");
}

#[tokio::test]
async fn a_qos_2_message_in_flight_is_never_given_to_another() {
    // [MQTT-4.8.2-5]
    let rig = Rig::start().await;
    let mut dying = rig.client(Dial::v5("dying")).await;
    dying.subscribe(SHARED, QoS::ExactlyOnce).await;
    dying.auto_ack = false;
    let mut publisher = rig.client(Dial::v5("publisher")).await;
    publisher.publish("work/1", "once", QoS::ExactlyOnce).await;
    dying.expect_payload().await;
    let mut heir = rig.client(Dial::v5("heir")).await;
    heir.subscribe(SHARED, QoS::ExactlyOnce).await;
    dying.vanish().await;
    heir.expect_nothing().await;
}

#[tokio::test]
async fn a_share_and_a_subscription_of_ones_own_are_two_messages() {
    let rig = Rig::start().await;
    let mut both = rig.client(Dial::v5("both")).await;
    both.subscribe(SHARED, QoS::AtLeastOnce).await;
    both.subscribe("work/+", QoS::AtLeastOnce).await;
    both.publish("work/1", "x", QoS::AtLeastOnce).await;
    assert_eq!(both.expect_payloads(2).await, ["x", "x"]);
    both.expect_nothing().await;
}

#[tokio::test]
async fn who_has_no_room_left_loses_nothing_that_another_member_has_room_for() {
    // case Q14
    let rig = Rig::with(|config| config.limits.max_queued_messages = 5).await;
    let mut stuck = rig.client(Dial::v5("stuck").receive_maximum(1)).await;
    stuck.auto_ack = false;
    let mut working = rig.client(Dial::v5("working")).await;
    let mut publisher = rig.client(Dial::v5("publisher")).await;
    for member in [&mut stuck, &mut working] {
        member.subscribe(SHARED, QoS::AtLeastOnce).await;
    }
    let mut worked = 0;
    for number in 0..40 {
        publisher.publish("work/1", number.to_string(), QoS::AtLeastOnce).await;
        worked += working.arrived().await.len();
    }
    // One in flight and five in its queue are all that the other can hold.
    assert_eq!(worked, 34);
    assert_eq!(rig.counter("simcast_messages_dropped_total{reason=\"queue_full\"}").await, 0);
}
