//! The audit log: who did what, was refused what, and changed what, as JSON lines that hold on to
//! each other.
//!
//! ```text
//! {"seq":7,"time":"2026-11-23T14:05:09.042Z","event":"refusal","actor":"device 8904…",
//!  "details":{"type":"trigger","reason":"foreign_gid"},"prev":"<hex>","hash":"<hex>"}
//! ```
//!
//! (one line each; broken here). `hash` is SHA-256 over the hash of the line before, in its 32
//! bytes, and all bytes of the line up to `,"hash":`. `prev` is the hash of the line before, and
//! zeros in the first. What an event says stands in `details`, apart from the chain's own members,
//! so that none of its names can be taken for one of theirs.
//!
//! [`AuditLog`] writes, [`Verifier`] checks. The chain shows that a line was changed, taken out,
//! put in or moved. It has no key: whoever may write the file can cut lines off its end or write
//! all of it anew; against that a hash noted elsewhere helps ([`Verifier::expecting`]).
//!
//! No body, password or key gets into it: callers see to that.

mod chain;
mod disk;
mod entry;
mod recent;
mod verify;
mod writer;

pub use chain::{Hash, HashError, LINE_BYTES_MAX, Line, Link};
pub use disk::AuditError;
pub use entry::{ACTOR_BYTES_MAX, DETAILS_BYTES_MAX, EVENT_BYTES_MAX, Entry, TEXT_BYTES_MAX};
pub use recent::Page;
pub use verify::{Fault, Flaw, Mark, Part, Verified, Verifier};
pub use writer::AuditLog;

/// Event of an entry that stands for entries for which there was no room in the queue; its detail
/// `count` says how many.
pub const DROPPED: &str = "dropped";
/// Event of the first entry after a time in which the file could not be written; its details say
/// since when (`since`), why (`error`), and how many entries are in no file (`lost`).
pub const GAP: &str = "gap";
/// Event of the first entry after a last line that was found without its end; its details say how
/// many bytes were cut off (`bytes`), and how they began (`begins`).
pub const TORN_LINE: &str = "torn_line";

/// Who is named as the actor of the log's own entries.
const SELF: &str = "broker";
