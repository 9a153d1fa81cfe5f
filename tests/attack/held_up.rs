//! A message that needs no room in the client's window, or is not sent at all, does not hold up
//! those behind it.

use std::time::Duration;

use simcast::mqtt::{PublishProperties, QoS};

use crate::ONE;
use crate::common::{Dial, Rig, TO_EUICC, TO_SM_SR, envelope};

#[tokio::test]
async fn what_has_expired_in_a_queue() {
    let rig = Rig::start().await;
    let mut away = rig.client(Dial::v5("away").persistent()).await;
    away.subscribe("a", ONE).await;
    away.disconnect().await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    let short = PublishProperties { message_expiry_secs: Some(1), ..PublishProperties::default() };
    for _ in 0..50 {
        publisher.publish_with("a", "late", ONE, false, Some(short.clone())).await;
    }
    publisher.publish("a", "in time", ONE).await;
    // The clock of the broker is the system's.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut back = rig.client(Dial::v5("away").persistent()).await;
    assert_eq!(back.expect_payload().await, "in time");
    publisher.publish("a", "and more", ONE).await;
    assert_eq!(back.expect_payload().await, "and more");
}

#[tokio::test]
async fn what_is_larger_than_the_client_takes() {
    let rig = Rig::start().await;
    let mut small = rig.client(Dial::v5("small").packet_bytes_max(50).persistent()).await;
    small.subscribe("a", ONE).await;
    small.disconnect().await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for _ in 0..50 {
        publisher.publish("a", "x".repeat(100), ONE).await;
    }
    publisher.publish("a", "small", ONE).await;
    let mut small = rig.client(Dial::v5("small").packet_bytes_max(50).persistent()).await;
    assert_eq!(small.expect_payload().await, "small");
}

#[tokio::test]
async fn mail_published_with_qos_0_for_a_device_that_reads_with_qos_1() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    for _ in 0..50 {
        server.publish(TO_EUICC, envelope(1, 0, "trigger"), QoS::AtMostOnce).await;
    }
    let mut device = rig.reader(1, Dial::v5("device")).await;
    device.expect_payloads(50).await;
}

#[tokio::test]
async fn triggers_published_with_qos_0_for_a_server_that_reads_with_qos_1() {
    let rig = Rig::start().await;
    let mut device = rig.device(1, Dial::v5("device")).await;
    for _ in 0..50 {
        device.publish(TO_SM_SR, envelope(1, 0, "trigger"), QoS::AtMostOnce).await;
    }
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    server.subscribe(TO_SM_SR, ONE).await;
    server.expect_payloads(50).await;
}
