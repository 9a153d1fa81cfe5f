//! The reference device and the reference SM-SR: MQTT 3.1.1 clients of any broker. And a client of
//! the admin side of ours.
//!
//! They share nothing with the broker: another codec (`mqttbytes`), their own reading of the
//! envelope. What both sides get wrong in the same way, a test between them cannot find.
//!
//! ```text
//!   device, server      what a party says and answers
//!   chunk               messages in pieces
//!   payload             GSMA-shaped bodies, made and checked
//!   envelope            {"nid","gid","type","body"} in JSON or CBOR
//!   link, tls           one MQTT connection
//!   http                requests to the admin side
//! ```

pub mod chunk;
pub mod device;
pub mod envelope;
pub mod http;
pub mod link;
pub mod payload;
pub mod server;
pub mod tls;

/// Server to devices; the nid in it is the receiver.
pub const TO_EUICC: &str = "To_eUICC";
/// Devices to servers; the nid in it is the sender.
pub const TO_SM_SR: &str = "To_SM-SR";

/// Why a device or a server did not do its part.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection failed or broke.
    #[error(transparent)]
    Link(#[from] link::LinkError),
    /// The broker refused the subscription that the role lives by.
    #[error("the broker refused the subscription to {0}")]
    SubscriptionRefused(&'static str),
    /// Nobody answered in time.
    #[error("no answer within the time")]
    NoAnswer,
    /// The other side answered with a result code other than 0.
    #[error("refused by the device (rc {0})")]
    Refused(i64),
    /// More requests wait for their answer than this program keeps track of.
    #[error("too many open requests")]
    TooManyRequests,
}
