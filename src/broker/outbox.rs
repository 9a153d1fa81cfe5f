//! What waits to be sent to one session, beside its mail.

use std::collections::VecDeque;

use crate::mqtt::QoS;
use crate::session::Delivery;

/// Bounds of one queue (`limits.max_queued_messages`, `limits.max_queued_bytes`).
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Messages.
    pub messages_max: usize,
    /// Payload and topic bytes.
    pub bytes_max: usize,
}

/// The queue of one session. The messages in it are shared, so a full queue costs references.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Delivery>,
    bytes: usize,
    /// The session has ended: nobody will take anything out.
    closed: bool,
}

/// What became of a message put into an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits; the queue was empty before.
    First,
    /// It waits behind others.
    Queued,
    /// It waits, and more than three quarters of the room are used: publishers should slow down.
    Congested,
    /// No room: dropped for this receiver.
    Full,
}

/// What remains after something was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing waits.
    Nothing,
    /// More waits and may be taken as soon as there is room for bytes.
    More,
    /// More waits, and needs an acknowledgement of the client first.
    Blocked,
}

impl Outbox {
    /// Appends a delivery if there is room.
    pub(super) fn push(&mut self, delivery: Delivery, limits: &OutboxLimits) -> Pushed {
        let bytes = self.bytes + delivery.bytes();
        if self.queue.len() >= limits.messages_max || bytes > limits.bytes_max {
            return Pushed::Full;
        }
        self.append(delivery);
        if self.queue.len() == 1 {
            Pushed::First
        } else if self.is_congested(limits) {
            Pushed::Congested
        } else {
            Pushed::Queued
        }
    }

    /// Appends retained messages, which have their own bound and are no backlog of this receiver.
    pub(super) fn push_retained(&mut self, deliveries: impl IntoIterator<Item = Delivery>) {
        deliveries.into_iter().for_each(|delivery| self.append(delivery));
    }

    /// Moves deliveries to `batch`, oldest first: at most `room` with QoS above 0, and no more
    /// once `bytes_max` payload bytes are taken. A message without room holds up those behind it:
    /// order is kept.
    pub(super) fn take(
        &mut self,
        room: usize,
        bytes_max: usize,
        batch: &mut Vec<Delivery>,
    ) -> Left {
        let (mut room, mut bytes) = (room, 0);
        while let Some(front) = self.queue.front() {
            let counts = usize::from(front.qos != QoS::AtMostOnce);
            if counts > room {
                return Left::Blocked;
            }
            if bytes > bytes_max {
                return Left::More;
            }
            room -= counts;
            bytes += front.bytes();
            self.bytes -= front.bytes();
            batch.extend(self.queue.pop_front());
        }
        // An idle session holds no buffer of a busy hour.
        if self.queue.capacity() > IDLE_CAPACITY {
            self.queue = VecDeque::new();
        }
        Left::Nothing
    }

    /// Whether something can be appended, unless it is large.
    #[must_use]
    pub(super) fn has_room(&self, limits: &OutboxLimits) -> bool {
        self.queue.len() < limits.messages_max && self.bytes < limits.bytes_max
    }

    /// Closed with its session; nothing may be appended.
    #[must_use]
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Three quarters of the room are used.
    #[must_use]
    pub(super) fn is_congested(&self, limits: &OutboxLimits) -> bool {
        self.queue.len() >= limits.messages_max / 4 * 3 || self.bytes >= limits.bytes_max / 4 * 3
    }

    /// Takes out what the session's client may not read.
    pub(super) fn purge(&mut self, may_read: impl Fn(&str) -> bool) -> Vec<Delivery> {
        self.take_where(|delivery| !may_read(&delivery.message.topic))
    }

    /// Drops what is not kept for a client that is away: QoS 0 (4.1.0 allows it).
    pub(super) fn drop_at_most_once(&mut self) {
        self.queue.retain(|delivery| delivery.qos != QoS::AtMostOnce);
        self.bytes = self.queue.iter().map(Delivery::bytes).sum();
        self.queue.shrink_to_fit();
    }

    /// Takes out what was meant for a share group.
    pub(super) fn take_shared(&mut self) -> Vec<Delivery> {
        self.take_where(|delivery| delivery.share.is_some())
    }

    /// The session ends. Gives what was meant for share groups.
    pub(super) fn close(&mut self) -> Vec<Delivery> {
        self.closed = true;
        let shared = self.take_shared();
        (self.queue, self.bytes) = (VecDeque::new(), 0);
        shared
    }

    /// Takes out what has this row in the store.
    pub(super) fn take_row(&mut self, row: u64) -> Option<Delivery> {
        let is_it = |delivery: &Delivery| delivery.kept.as_ref().is_some_and(|k| k.id() == row);
        let at = self.queue.iter().position(is_it)?;
        let delivery = self.queue.remove(at)?;
        self.bytes -= delivery.bytes();
        Some(delivery)
    }

    fn take_where(&mut self, wanted: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
        let mut taken = Vec::new();
        for delivery in std::mem::take(&mut self.queue) {
            if wanted(&delivery) {
                self.bytes -= delivery.bytes();
                taken.push(delivery);
            } else {
                self.queue.push_back(delivery);
            }
        }
        taken
    }

    /// Puts back what was taken out.
    pub(super) fn put_back(&mut self, deliveries: impl IntoIterator<Item = Delivery>) {
        deliveries.into_iter().for_each(|delivery| self.append(delivery));
    }

    /// Messages and bytes waiting.
    #[must_use]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.queue.len(), self.bytes)
    }

    fn append(&mut self, delivery: Delivery) {
        self.bytes += delivery.bytes();
        self.queue.push_back(delivery);
    }
}

/// Queue slots that an empty outbox may keep for the next messages.
const IDLE_CAPACITY: usize = 32;
