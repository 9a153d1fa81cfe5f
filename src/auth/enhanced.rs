//! Enhanced authentication (section 4.12 of MQTT 5): methods that take several packets.
//!
//! A [`Method`] has a name, the Authentication Method of a CONNECT. It begins an [`Exchange`] for
//! each client, which takes the Authentication Data of one packet of the client after the other
//! and says what to answer. Nothing here knows of packets: whoever drives an exchange does.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// A method by which clients can show who they are.
pub trait Method: Send + Sync {
    /// What the client says as Authentication Method.
    fn name(&self) -> &'static str;

    /// Begins with one client.
    fn begin(&self, nonce: Nonce) -> Box<dyn Exchange>;
}

/// What goes on between the broker and one client.
pub trait Exchange: Send {
    /// Takes what the client has sent, nothing if it has sent nothing, and says how it goes on. To
    /// be asked no more once it has said [`Step::Done`] or [`Step::Failed`].
    fn step(&mut self, data: &[u8]) -> Step;

    /// The user that the client claims to be, as soon as it has said so.
    fn claimed(&self) -> Option<&str>;
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this; the client has to answer.
    Continue(Vec<u8>),
    /// Send this, too: the client is who it claims to be.
    Done {
        /// The proven name.
        user: Arc<str>,
        /// What convinces the client that the broker is the right one.
        data: Vec<u8>,
    },
    /// It is over.
    Failed(Fault),
}

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A wrong password, or no such user: nobody is told which.
    #[error("wrong user name or password")]
    Credentials,
    /// Not what the method lets a client say.
    #[error("authentication data: {0}")]
    Unreadable(&'static str),
}

/// A text that is used once: random, and without a comma.
#[derive(Clone, Debug)]
pub struct Nonce(pub(super) String);

impl Nonce {
    /// From 18 random bytes.
    #[must_use]
    pub fn new(random: [u8; 18]) -> Self {
        Self(STANDARD_NO_PAD.encode(random))
    }
}
