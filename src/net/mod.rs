//! Sockets: listeners, TLS, and one task for each connection.
//!
//! ```text
//! listener ─ gate ─ proxy, TLS, websocket ─► greeting ─ CONNECT, login ───► conn ─ the loop
//!    │                       │                                                │   of a session
//! socket                  stream                         input ─ frames ──────┴── packets ─ output
//! ```

pub mod certificate;
mod conn;
mod end;
mod failures;
mod gate;
mod greeting;
mod held;
mod http;
mod input;
mod listener;
mod login;
mod output;
mod proxy;
mod rules;
mod socket;
mod stream;
mod subject;
pub mod tls;
mod users;
mod websocket;

pub use greeting::Access;
pub use http::{HttpTls, NotSecured, Secured};
pub use listener::{ListenError, Port, Shared, Stop};
pub use users::Users;
