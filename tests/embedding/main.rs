//! The broker within another program, whose SM-SR speaks to it without a socket: what it may do
//! and what it may not, what is given again, what is bounded, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../examples/embedded_sm_sr.rs"]
#[allow(dead_code, reason = "its main is for itself")]
mod example;
mod house;
mod publishing;
mod receiving;
mod serving;
mod wire;

#[tokio::test]
async fn the_example_finds_no_fault() {
    example::run().await.unwrap();
}
