//! (to come)

pub mod certs;
pub mod device;
mod endpoint;
pub mod server;
