//! What was acknowledged outlives the broker: the process is killed, and another one goes on.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "a history names its seed")]

#[path = "../common/mod.rs"]
mod common;

mod crashes;
mod disk;
mod ordinary;
mod provisioning;

use common::process::Broker;

/// A log that tells what a test waits for.
const LOG: &str = "info";

/// A broker that writes down what it must not lose.
async fn broker() -> Broker {
    Broker::start("").await
}

/// Kills it, and starts another one in its directory.
async fn after_a_crash(broker: Broker) -> Broker {
    Broker::start_again(broker.crash().await, LOG).await
}

/// Ends it as operators do, and starts another one in its directory.
async fn after_a_restart(broker: Broker) -> Broker {
    let (code, log, dir) = broker.end().await;
    assert_eq!(code, Some(0), "{log:#?}");
    Broker::start_again(dir, LOG).await
}
