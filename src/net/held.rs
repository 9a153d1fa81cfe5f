//! What a connection holds back until the store is so far: acknowledgements of what it has to
//! own first, messages that it may have to send again under the same id, and what comes behind
//! them. All else goes at once, so that a slow disk keeps no PINGREQ waiting (case C11).

use std::collections::VecDeque;

use crate::mqtt::Packet;
use crate::session::Outgoing;
use crate::store::Commit;

/// What is held back, in the order in which it will be sent.
#[derive(Debug, Default)]
pub(super) struct Held {
    queue: VecDeque<(Commit, Item)>,
}

/// Something to be sent.
#[derive(Debug)]
pub(super) enum Item {
    /// An acknowledgement.
    Packet(Packet),
    /// A message.
    Message(Outgoing),
}

/// Above this no more is read from the client: before version 5 nothing else bounds what it may
/// publish without waiting for an acknowledgement.
const HELD_MAX: usize = 1024;

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= HELD_MAX
    }

    pub(super) fn push(&mut self, commit: Commit, item: Item) {
        self.queue.push_back((commit, item));
    }

    /// For what the store has to be ready next.
    pub(super) fn next(&self) -> Option<Commit> {
        self.queue.front().map(|(commit, _)| *commit)
    }

    /// Takes the first, if the store is so far.
    pub(super) fn take(&mut self, is_durable: impl Fn(Commit) -> bool) -> Option<Item> {
        let (commit, _) = self.queue.front()?;
        if !is_durable(*commit) {
            return None;
        }
        // An idle connection holds no buffer of a busy hour.
        let (_, item) = self.queue.pop_front()?;
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(item)
    }
}

/// Whether a packet says that something is the broker's, or may be forgotten by the client.
pub(super) fn is_acknowledgement(packet: &Packet) -> bool {
    match packet {
        Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::SubAck(_)
        | Packet::UnsubAck(_) => true,
        Packet::Connect(_)
        | Packet::ConnAck(_)
        | Packet::Publish(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Disconnect(_)
        | Packet::Auth(_) => false,
    }
}
