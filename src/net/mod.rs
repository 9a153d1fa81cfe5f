//! Sockets: listeners, TLS, and one task for each connection.
//!
//! ```text
//! listener ─ accept, TLS ─► greeting ─ CONNECT, identity ─► conn ─ the loop of a session
//!                                                             │
//!                                          input ─ frames ────┴─── packets ─ output
//! ```

pub mod certificate;
mod conn;
mod failures;
mod greeting;
mod input;
mod listener;
mod output;
pub mod tls;

pub use listener::{ListenError, Port, Shared, Stop};
