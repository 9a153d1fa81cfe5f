//! A message on its way to one client.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ids::{Kept, PacketId};
use crate::mqtt::{Message, QoS};

/// Where a delivery waits until the client has it, and so who must be told when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The session's own queue: nobody else keeps the message.
    Queue,
    /// The mailbox of the device, under this number.
    Mailbox(u64),
    /// The inbox of the SM-SR servers, under this number.
    Inbox(u64),
}

/// A message addressed to one session; the message itself is shared.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its own row in the store, where it outlives the process. Stands before the message, which
    /// may go only afterwards.
    pub kept: Option<Kept>,
    /// What was published.
    pub message: Arc<Message>,
    /// The lower of the published QoS and the granted one `[MQTT-3.8.4-8]`.
    pub qos: QoS,
    /// Retain flag to send: set on retained messages, else as the subscription asks.
    pub retain: bool,
    /// Subscription identifiers of all matching subscriptions `[MQTT-3.3.4-3]`.
    pub subscription_ids: SmallVec<[u32; 2]>,
    /// Who keeps it meanwhile.
    pub origin: Origin,
    /// It may have been sent before, by a broker that was not told whether it had arrived.
    pub dup: bool,
    /// The share group for which this session was chosen; another member may have it instead, as
    /// long as this one has not taken it.
    pub share: Option<Arc<str>>,
}

impl Delivery {
    /// A rough measure of the memory that this delivery keeps alive, for the queue bounds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.message.kept_bytes() + self.message.topic.len()
    }
}

/// A PUBLISH to be encoded for the client.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// What to send.
    pub delivery: Delivery,
    /// Present iff its QoS is above 0 `[MQTT-2.2.1-2]`.
    pub packet_id: Option<PacketId>,
    /// It has been sent before `[MQTT-3.3.1-1]`.
    pub dup: bool,
}
