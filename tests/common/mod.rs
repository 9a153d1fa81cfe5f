//! What the tests over real sockets share: a client, a broker with its certificates, envelopes.
//!
//! Each test starts a [`Rig`] of its own, so that tests run side by side. Nothing sleeps where an
//! event can be awaited, and whatever is awaited has a deadline: a test fails, it does not hang.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test takes what it needs")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

pub mod client;
pub mod process;
pub mod program;
pub mod rig;

use std::time::Duration;

pub use client::{Answer, Client, Denied, Dial};
pub use rig::Rig;
use simcast::ids::{Gid, Nid};

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Topic towards the devices.
pub const TO_EUICC: &str = "To_eUICC";
/// Topic towards the servers.
pub const TO_SM_SR: &str = "To_SM-SR";

/// The device with this running number.
pub fn nid(number: u128) -> Nid {
    Nid::with_check_digits(890_490_320_000_000_000_000_000_000_000 + number).unwrap()
}

/// A group.
pub fn gid(number: u64) -> Gid {
    Gid::new(number).unwrap()
}

/// An envelope to or from the device with this running number, or none for 0.
pub fn envelope(device: u128, gid: u64, kind: &str) -> String {
    envelope_with(device, gid, kind, r#""body":{"k":[1,2,3]}"#)
}

/// An envelope whose members beside the first three are given.
pub fn envelope_with(device: u128, gid: u64, kind: &str, rest: &str) -> String {
    let digits = if device == 0 { "0".to_owned() } else { nid(device).to_string() };
    format!(r#"{{"nid":"{digits}","gid":{gid},"type":"{kind}",{rest}}}"#)
}

/// `req(…)` and `profile(…)` by the device with this running number.
pub fn kind_of(name: &str, device: u128) -> String {
    format!("{name}({})", nid(device))
}

/// The future's result, or a failed test when it does not come.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(result) => result,
        Err(_elapsed) => panic!("waited too long for {what}"),
    }
}
