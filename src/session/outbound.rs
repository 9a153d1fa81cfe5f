//! Messages sent to the client and not yet acknowledged.

use std::collections::VecDeque;

use super::delivery::{Delivery, Origin, Outgoing};
use crate::ids::PacketId;
use crate::mqtt::QoS;

/// The in-flight window towards the client, in the order of sending. It outlives the connection
/// `[MQTT-4.1.0-1]`; after a resume it is sent again in that order `[MQTT-4.4.0-1]`.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    in_flight: VecDeque<InFlight>,
    last_id: u16,
}

#[derive(Debug)]
struct InFlight {
    packet_id: PacketId,
    waits_for: WaitsFor,
}

#[derive(Debug)]
#[allow(clippy::enum_variant_names, reason = "the names of the packets")]
enum WaitsFor {
    PubAck(Delivery),
    PubRec(Delivery),
    PubComp,
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
        let packet_id = self.free_id();
        self.in_flight.push_back(InFlight { packet_id, waits_for });
        Outgoing { delivery, packet_id: Some(packet_id), dup: false }
    }

    /// PUBACK: the message is the client's. `None` when no QoS 1 message has this id.
    pub(super) fn on_puback(&mut self, id: PacketId) -> Option<Origin> {
        let at = self.position(id)?;
        let WaitsFor::PubAck(delivery) = &self.in_flight[at].waits_for else { return None };
        let origin = delivery.origin;
        self.in_flight.remove(at);
        Some(origin)
    }

    /// PUBREC with success: the message is the client's, PUBREL is due `[MQTT-4.3.3-4]`. The
    /// origin is given once; a repeated PUBREC only repeats the PUBREL. `Err` for an id unknown.
    pub(super) fn on_pubrec(&mut self, id: PacketId) -> Result<Option<Origin>, ()> {
        let at = self.position(id).ok_or(())?;
        match &self.in_flight[at].waits_for {
            WaitsFor::PubRec(delivery) => {
                let origin = delivery.origin;
                self.in_flight[at].waits_for = WaitsFor::PubComp;
                Ok(Some(origin))
            }
            WaitsFor::PubComp => Ok(None),
            WaitsFor::PubAck(_) => Err(()),
        }
    }

    /// PUBREC with an error: the client will not take the message; that ends it too.
    pub(super) fn on_pubrec_error(&mut self, id: PacketId) -> Option<Origin> {
        let at = self.position(id)?;
        let WaitsFor::PubRec(delivery) = &self.in_flight[at].waits_for else { return None };
        let origin = delivery.origin;
        self.in_flight.remove(at);
        Some(origin)
    }

    /// Forgets a message that will not be sent again.
    pub(super) fn give_up(&mut self, id: PacketId) {
        self.in_flight.retain(|entry| entry.packet_id != id);
    }

    /// PUBCOMP: the id is free again. `false` when it was not waited for.
    pub(super) fn on_pubcomp(&mut self, id: PacketId) -> bool {
        let Some(at) = self.position(id) else { return false };
        if !matches!(self.in_flight[at].waits_for, WaitsFor::PubComp) {
            return false;
        }
        self.in_flight.remove(at);
        true
    }

    /// Everything unacknowledged, in order, to be sent again `[MQTT-4.4.0-1]`.
    pub(super) fn resend(&self) -> impl Iterator<Item = Resend> + '_ {
        self.in_flight.iter().map(|entry| match &entry.waits_for {
            WaitsFor::PubComp => Resend::PubRel(entry.packet_id),
            WaitsFor::PubAck(delivery) | WaitsFor::PubRec(delivery) => Resend::Publish(Outgoing {
                delivery: delivery.clone(),
                packet_id: Some(entry.packet_id),
                dup: true,
            }),
        })
    }

    /// Forgets messages that somebody else has taken back meanwhile.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(Origin) -> bool) {
        self.in_flight.retain(|entry| match &entry.waits_for {
            WaitsFor::PubAck(delivery) | WaitsFor::PubRec(delivery) => keep(delivery.origin),
            WaitsFor::PubComp => true,
        });
    }

    fn position(&self, id: PacketId) -> Option<usize> {
        // Acknowledgements come in order from nearly every client: the first look finds it.
        self.in_flight.iter().position(|entry| entry.packet_id == id)
    }

    fn free_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            let Some(id) = PacketId::new(self.last_id) else { continue };
            if self.position(id).is_none() {
                return id;
            }
        }
    }
}
