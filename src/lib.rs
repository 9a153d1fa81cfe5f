//! simcast: an MQTT broker that is the provisioning control unit for remote SIM provisioning.
//!
//! ```text
//!   devices · SM-SR servers · MQTT clients            operators · Prometheus
//!          │  TCP · TLS                                       │ HTTP
//!   ┌──────▼──────┐                                    ┌──────▼──────┐
//!   │ net         │  sockets, TLS, one task each       │ admin       │
//!   └──────┬──────┘                                    └──────┬──────┘
//!          │ packets in, actions out                          │
//!   ┌──────▼──────┐  actions   ┌──────────────────────────────▼──────┐
//!   │ session     ├───────────►│ broker   the one meeting place      │
//!   └──────┬──────┘            └──┬──────────────┬───────────────────┘
//!          │                   ┌──▼───┐       ┌──▼───┐
//!          │                   │ route│       │ rsp  │
//!          │                   └──┬───┘       └──┬───┘
//!   ┌──────▼──────────────────────▼──────────────▼───┐
//!   │ mqtt     packets, topics, codec        · ids   │
//!   └────────────────────────────────────────────────┘
//! ```
//!
//! `ids`, `mqtt`, `session`, `route`, `rsp` and `auth` are pure: no socket, no lock, no clock;
//! time is an argument. Imports point downwards only, and `session`, `route`, `rsp` and `auth` do
//! not know each other (`tests/tidy.rs` checks it). `client` is the reference device and the
//! reference SM-SR: it meets the broker over the wire alone. `store` is the log on disk from which
//! the broker comes back after a crash.

pub mod admin;
pub mod audit;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod ids;
pub mod log;
pub mod metrics;
pub mod mqtt;
pub mod net;
pub mod pki;
pub mod route;
pub mod rsp;
pub mod service;
pub mod session;
pub mod store;
pub mod units;
