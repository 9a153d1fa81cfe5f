//! Foreign clients against a real broker over real sockets: mosquitto's (C), paho-mqtt and gmqtt
//! (Python), MQTT.js (JavaScript), rumqttc (Rust); none of them knows anything of provisioning.
//!
//! Where a foreign program is missing, its tests say so and pass; see `common::program`.

#![allow(clippy::unwrap_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod leash;
mod libraries;
mod login;
mod metrics;
mod ordinary;
mod programs;
mod provisioning;
mod rumqttc_client;

use programs::VersionName;

/// Every version with every quality of service.
const WAYS: [(VersionName, u64); 6] =
    [("311", 0), ("311", 1), ("311", 2), ("5", 0), ("5", 1), ("5", 2)];
