//! Connections that end at a bad moment.

use simcast::mqtt::{Disconnect, Packet, QoS, ReasonCode};

use crate::ONE;
use crate::common::{Dial, Rig};

#[tokio::test]
async fn a_goodbye_is_heard_from_a_client_that_no_longer_reads() {
    let rig = Rig::start().await;
    let mut watcher = rig.client(Dial::v5("watcher")).await;
    watcher.subscribe("will/#", ONE).await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for round in 0..20 {
        let dial = Dial::v5("leaver").will(&format!("will/{round}"), "not said");
        let mut leaver = rig.client(dial).await;
        leaver.subscribe("flood", QoS::AtMostOnce).await;
        for _ in 0..40 {
            publisher.publish("flood", "x".repeat(100_000), QoS::AtMostOnce).await;
        }
        // What it leaves unread makes its system reset the connection right behind the goodbye.
        let goodbye = Disconnect { reason: ReasonCode::Success, properties: None };
        leaver.send(&Packet::Disconnect(goodbye)).await;
        drop(leaver);
    }
    rig.until_counter("simcast_disconnects_total{reason=\"client\"}", 20).await;
    watcher.expect_nothing().await;
}
