//! (to come)

pub mod certs;
