//! The provisioning rules over real sockets: every message of the table, every refusal, Wills,
//! subscriptions, envelopes, several servers (`rsp-over-mqtt.md`, sections 2 to 5).
//!
//! Whatever is published, a whole cast listens: devices of the same group, of another and of none,
//! an unregistered device, and a client that subscribes to everything a client can.

#[path = "../common/mod.rs"]
mod common;

mod envelopes;
mod messages;
mod refusals;
mod servers;
mod stage;
mod subscriptions;
mod wills;
