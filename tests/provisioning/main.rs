//! The provisioning rules over real sockets: every message of the table, every refusal, Wills,
//! subscriptions, envelopes, several servers (`rsp-over-mqtt.md`, sections 2 to 5); and what the
//! control unit decides: settings, consent, campaigns, exchanges, parts and pieces (section 6).
//!
//! Whatever is published, a whole cast listens: devices of the same group, of another and of none,
//! an unregistered device, and a client that subscribes to everything a client can.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod abuse;
mod auto;
mod campaigns;
mod chunks;
mod coalescing;
mod consent;
mod envelopes;
mod exchanges;
mod messages;
mod parts;
mod proofs;
mod rates;
mod refusals;
mod servers;
mod settings;
mod stage;
mod stamps;
mod subscriptions;
mod waves;
mod wills;
