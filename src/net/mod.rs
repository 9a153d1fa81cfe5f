//! Sockets and TLS: the shell around the sessions.

pub mod certificate;
pub mod tls;
