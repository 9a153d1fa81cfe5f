//! The admin API over real sockets, and `simcast ctl` as a program.

#![allow(clippy::unwrap_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod audit;
mod campaigns;
mod ctl;
mod ctl_control;
mod devices;
mod events;
mod exchanges;
mod garbage;
mod groups;
mod http;
mod process;
mod schema;
mod secure;
mod sessions;
mod settings;
