//! Messages sent to the client and not yet acknowledged.

use super::delivery::{Delivery, Origin, Outgoing};
use super::window::Window;
use crate::ids::PacketId;
use crate::mqtt::QoS;

/// The in-flight window towards the client, in the order of sending. It outlives the connection
/// `[MQTT-4.1.0-1]`; after a resume it is sent again in that order `[MQTT-4.4.0-1]`.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    in_flight: Window<WaitsFor>,
    /// How many of them, from the oldest on, have been sent on the present connection.
    sent: usize,
    last_id: u16,
}

#[derive(Debug)]
#[allow(clippy::enum_variant_names, reason = "the names of the packets")]
enum WaitsFor {
    PubAck(Delivery),
    PubRec(Delivery),
    PubComp,
}

/// An acknowledgement that fits no message in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// No message has this id: it may have been given up meanwhile.
    Unknown,
    /// The message with this id waits for another packet.
    OtherKind,
}

/// What is to be sent again after a resume.
#[derive(Debug)]
pub enum Resend {
    /// The PUBLISH with DUP set.
    Publish(Outgoing),
    /// The PUBREL: the message itself is already the client's.
    PubRel(PacketId),
}

impl Outbound {
    /// With what was on its way before a restart; the message is `None` where the client has it.
    pub(super) fn restored(in_flight: Vec<(PacketId, Option<Delivery>)>) -> Self {
        let mut outbound = Self::default();
        for (id, delivery) in in_flight {
            let waits_for = delivery.map_or(WaitsFor::PubComp, WaitsFor::PubRec);
            outbound.in_flight.push(id, waits_for);
            outbound.last_id = id.get();
        }
        outbound
    }

    /// A new connection: nothing has been sent on it.
    pub(super) fn open(&mut self) {
        self.sent = 0;
    }

    /// How many new QoS 1 and 2 messages a window has room for. None before everything older has
    /// been sent again: order is kept.
    #[must_use]
    pub(super) fn room(&self, window: usize) -> usize {
        if self.sent < self.in_flight.len() { 0 } else { window.saturating_sub(self.sent) }
    }

    /// How many QoS 1 and 2 messages are on their way.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Gives a delivery its packet id and keeps it until it is acknowledged. QoS 0 is not kept.
    /// The caller has made sure that the window has room, so an id is free.
    pub(super) fn send(&mut self, delivery: Delivery) -> Outgoing {
        let waits_for = match delivery.qos {
            QoS::AtMostOnce => return Outgoing { delivery, packet_id: None, dup: false },
            QoS::AtLeastOnce => WaitsFor::PubAck(delivery.clone()),
            QoS::ExactlyOnce => WaitsFor::PubRec(delivery.clone()),
        };
        let packet_id = self.in_flight.free_id(self.last_id);
        self.last_id = packet_id.get();
        self.in_flight.push(packet_id, waits_for);
        self.sent += 1;
        // [MQTT-3.3.1-1]
        let dup = delivery.dup && delivery.qos == QoS::AtLeastOnce;
        Outgoing { delivery, packet_id: Some(packet_id), dup }
    }

    /// PUBACK: the message is the client's.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub(super) fn on_puback(&mut self, id: PacketId) -> Result<Origin, Mismatch> {
        let at = self.in_flight.position(id).ok_or(Mismatch::Unknown)?;
        let WaitsFor::PubAck(delivery) = self.in_flight.at(at) else {
            return Err(Mismatch::OtherKind);
        };
        let origin = delivery.origin;
        self.remove(at);
        Ok(origin)
    }

    /// PUBREC with success: the message is the client's, PUBREL is due `[MQTT-4.3.3-4]`. The
    /// origin is given once; a repeated PUBREC only repeats the PUBREL.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub(super) fn on_pubrec(&mut self, id: PacketId) -> Result<Option<Origin>, Mismatch> {
        let at = self.in_flight.position(id).ok_or(Mismatch::Unknown)?;
        match self.in_flight.at(at) {
            WaitsFor::PubRec(delivery) => {
                let origin = delivery.origin;
                *self.in_flight.at_mut(at) = WaitsFor::PubComp;
                Ok(Some(origin))
            }
            WaitsFor::PubComp => Ok(None),
            WaitsFor::PubAck(_) => Err(Mismatch::OtherKind),
        }
    }

    /// PUBREC with an error: the client will not take the message; that ends it too.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub(super) fn on_pubrec_error(&mut self, id: PacketId) -> Result<Origin, Mismatch> {
        let at = self.in_flight.position(id).ok_or(Mismatch::Unknown)?;
        let WaitsFor::PubRec(delivery) = self.in_flight.at(at) else {
            return Err(Mismatch::OtherKind);
        };
        let origin = delivery.origin;
        self.remove(at);
        Ok(origin)
    }

    /// Forgets a message that will not be sent again.
    pub(super) fn give_up(&mut self, id: PacketId) {
        if let Some(at) = self.in_flight.position(id) {
            self.remove(at);
        }
    }

    /// PUBCOMP: the id is free again.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub(super) fn on_pubcomp(&mut self, id: PacketId) -> Result<(), Mismatch> {
        let at = self.in_flight.position(id).ok_or(Mismatch::Unknown)?;
        if !matches!(self.in_flight.at(at), WaitsFor::PubComp) {
            return Err(Mismatch::OtherKind);
        }
        self.remove(at);
        Ok(())
    }

    /// The next unacknowledged message to be sent again on a new connection `[MQTT-4.4.0-1]`, if
    /// the window has room for it: a client may take fewer at once than it did before.
    pub(super) fn resend(&mut self, window: usize) -> Option<Resend> {
        let (id, waits_for) = self.in_flight.get(self.sent).filter(|_| self.sent < window)?;
        self.sent += 1;
        Some(match waits_for {
            WaitsFor::PubComp => Resend::PubRel(id),
            WaitsFor::PubAck(delivery) | WaitsFor::PubRec(delivery) => Resend::Publish(Outgoing {
                delivery: delivery.clone(),
                packet_id: Some(id),
                dup: true,
            }),
        })
    }

    /// Forgets messages that are not to be sent again; before any is.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Delivery) -> bool) {
        self.in_flight.retain(|_at, waits_for| match waits_for {
            WaitsFor::PubAck(delivery) | WaitsFor::PubRec(delivery) => keep(delivery),
            WaitsFor::PubComp => true,
        });
    }

    /// Takes back QoS 1 messages of share groups that are `wanted`. QoS 2 messages stay: another
    /// client must never get what this one may have `[MQTT-4.8.2-5]`.
    pub(super) fn take_shared(&mut self, wanted: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
        let (mut taken, mut of_sent) = (Vec::new(), 0);
        self.in_flight.retain(|at, waits_for| match waits_for {
            WaitsFor::PubAck(delivery) if delivery.share.is_some() && wanted(delivery) => {
                taken.push(delivery.clone());
                of_sent += usize::from(at < self.sent);
                false
            }
            WaitsFor::PubAck(_) | WaitsFor::PubRec(_) | WaitsFor::PubComp => true,
        });
        self.sent -= of_sent;
        taken
    }

    fn remove(&mut self, at: usize) {
        self.in_flight.remove(at);
        self.sent -= usize::from(at < self.sent);
    }
}
