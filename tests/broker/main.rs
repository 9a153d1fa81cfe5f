//! Ordinary MQTT over real sockets, in both versions and from one to the other.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod aliases;
mod connections;
mod delivery;
mod leniencies;
mod limits;
mod retained;
mod sessions;
mod shared;
mod sys;
mod wills;

use common::{Client, Dial, Rig};
use simcast::mqtt::{QoS, SubscribeOptions, Version};

/// The two versions that clients of our day speak.
const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// All three.
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

const ONE: QoS = QoS::AtLeastOnce;

/// Options with nothing but a QoS.
fn options(qos: QoS) -> SubscribeOptions {
    SubscribeOptions { qos, ..SubscribeOptions::default() }
}

/// A client that listens to one filter with QoS 1.
async fn listener(rig: &Rig, dial: Dial, filter: &str) -> Client {
    let mut client = rig.client(dial).await;
    assert!(!client.subscribe(filter, ONE).await.is_error());
    client
}
