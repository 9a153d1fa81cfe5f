//! MQTT 3.1, 3.1.1 and 5 on the wire: bytes to packets and back, topics, reason codes.
//!
//! Pure and strict: whatever the standards call malformed is a decode error, and nothing else
//! is. No session, no routing, no IO.
//!
//! ```text
//! bytes ─ decode ─► packet ─ encode ─► bytes      wire      numbers, text, lengths
//!           │          │                          property  blocks of version 5
//!         error      check                        topic     names, filters, matching
//! ```

pub mod check;
pub mod decode;
pub mod encode;
mod error;
pub mod message;
pub mod packet;
pub mod property;
pub mod reason;
pub mod topic;
pub mod wire;

pub use check::CheckError;
pub use decode::{
    DecodeError, Sender, Tolerance, decode, decode_connect, frame_len, version_of_connect,
};
pub use encode::{PublishHead, encode, encoded_len, fitted};
pub use message::{Message, detached};
pub use packet::*;
pub use reason::ReasonCode;
