//! MQTT 3.1, 3.1.1 and 5 on the wire: bytes to packets and back, topics, reason codes.
//!
//! Pure and strict: whatever the standards call malformed is a decode error, and nothing else
//! is. No session, no routing, no IO.

pub mod message;
pub mod packet;
pub mod reason;

pub use message::Message;
pub use packet::*;
pub use reason::ReasonCode;
