//! Sockets: listeners, TLS, and one task for each connection.
//!
//! ```text
//! listener ─ gate ─ proxy, TLS, websocket ─► greeting ─ CONNECT, identity ─► conn ─ the loop
//!    │                       │                                                │   of a session
//! socket                  stream                         input ─ frames ──────┴── packets ─ output
//! ```

pub mod certificate;
mod conn;
mod gate;
mod greeting;
mod input;
mod listener;
mod output;
mod proxy;
mod rules;
mod socket;
mod stream;
pub mod tls;
mod websocket;

pub use listener::{ListenError, Port, Shared, Stop};
