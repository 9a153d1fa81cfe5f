//! Sockets: listeners, TLS, and one task for each connection.
//!
//! ```text
//! listener ─ accept, TLS ─► greeting ─ CONNECT, login ───► conn ─ the loop of a session
//!                                                             │
//!                                          input ─ frames ────┴─── packets ─ output
//! ```

pub mod certificate;
mod conn;
mod failures;
mod greeting;
mod input;
mod listener;
mod login;
mod output;
mod subject;
pub mod tls;
mod users;

pub use greeting::Access;
pub use listener::{ListenError, Port, Shared, Stop};
pub use users::Users;
