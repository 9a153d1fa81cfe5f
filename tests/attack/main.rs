//! Clients that want more than their share, and connections that end at a bad moment: nobody else
//! suffers, and nothing that was acknowledged is lost.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod greed;
mod held_up;
mod partings;

use simcast::mqtt::QoS;

const ONE: QoS = QoS::AtLeastOnce;
