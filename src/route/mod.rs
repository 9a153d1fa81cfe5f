//! Who is interested in a topic: subscriptions and retained messages, as pure data.
//!
//! The two RSP topics never come here: they are addressed, not matched.

mod retained;
mod subscriptions;

pub use retained::{Retained, RetainedLimits};
pub use subscriptions::{Grant, Member, Readiness, Share, Subscriptions};
