//! Sockets: listeners, TLS, and one task for each connection.

mod conn;
mod input;
mod output;
