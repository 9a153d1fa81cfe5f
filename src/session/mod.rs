//! What one client may do, as a state machine without sockets, locks or clocks.
//!
//! The contract with the shell that drives it: *one input, then carry out all actions, in order,
//! then the next input; read the deadline again after each.* Inputs are [`Session::on_packet`],
//! [`Session::on_routed`], [`Session::on_subscribed`], [`Session::on_unsubscribed`],
//! [`Session::on_authenticated`],
//! [`Session::on_delivery`] and [`Session::on_deadline`]. An [`Action::Publish`] must have been
//! accepted by the broker (and, with a store, be durable) before the shell calls `on_routed`,
//! which alone makes the PUBACK or PUBREC: nothing is acknowledged that is not owned.
//!
//! MQTT 3.1, 3.1.1 and 5 are one machine with the version as a field. The session outlives its
//! connections; what belongs to one connection is set anew by [`Session::open`].

mod alias;
mod connect;
mod delivery;
mod outbound;
mod reauth;
#[cfg(test)]
mod tests;
mod violation;
mod window;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

pub use alias::Alias;
pub use connect::{Opening, refused};
pub use delivery::{Delivery, Origin, Outgoing};
pub use outbound::Resend;
pub use reauth::{Judged, Turn};
pub use violation::Violation;

use crate::ids::{PacketId, Timestamp};
use crate::mqtt::{
    Ack, Disconnect, DisconnectProperties, Packet, Publish, QoS, ReasonCode, ReasonProperties,
    Sender, SubAck, Subscribe, Unsubscribe, Version, Will, fitted,
};
use alias::{InboundAliases, OutboundAliases};
use outbound::{Mismatch, Outbound};
use reauth::Reauth;

/// Bounds of one session (`[limits]`), and how the standards are taken (`[mqtt]`).
#[derive(Clone, Debug)]
pub struct SessionLimits {
    /// QoS 2 messages a client may leave unreleased (Receive Maximum of the CONNACK).
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages in flight towards the client, whatever the client allows.
    pub in_flight_max: u16,
    /// Largest packet taken, in bytes.
    pub packet_bytes_max: u32,
    /// Longest keep alive granted to version 5, in seconds.
    pub keep_alive_secs_max: u16,
    /// Longest client id.
    pub client_id_bytes_max: usize,
    /// Topic aliases of one client (Topic Alias Maximum of the CONNACK).
    pub topic_alias_max: u16,
    /// Topic aliases towards one client, whatever the client allows.
    pub topic_alias_outbound_max: u16,
    /// How long a session may outlive its connection.
    pub expiry_max: Duration,
    /// How the standards are taken.
    pub rules: SessionRules,
}

/// Choices that the standards leave to a server, and leniencies.
#[derive(Clone, Debug)]
pub struct SessionRules {
    /// Clients that may be given an id may come without one.
    pub empty_client_id: bool,
    /// A client of version 5 that exceeds the server's Receive Maximum is disconnected; if not, it
    /// is served. Older versions know no such bound.
    pub receive_maximum_binds: bool,
    /// A client of 3.x that asks for more than the longest keep alive, or for none, is refused; if
    /// not, its own holds. Clients of version 5 are told another.
    pub keep_alive_binds: bool,
    /// Messages may be retained.
    pub retain_available: bool,
    /// Response Information for those who ask, `%c` being the client id; empty: none.
    pub response_information: Arc<str>,
}

impl Default for SessionRules {
    fn default() -> Self {
        Self {
            empty_client_id: true,
            receive_maximum_binds: true,
            keep_alive_binds: false,
            retain_available: true,
            response_information: Arc::from(""),
        }
    }
}

/// What the shell has to do.
#[derive(Debug)]
pub enum Action {
    /// Encode and send.
    Send(Packet),
    /// Encode and send a message.
    Deliver(Outgoing),
    /// Have it routed, then call [`Session::on_routed`] with the receipt.
    Publish(Publish, Receipt),
    /// Have it carried out, then call [`Session::on_subscribed`].
    Subscribe(Subscribe),
    /// Have it carried out, then call [`Session::on_unsubscribed`].
    Unsubscribe(Unsubscribe),
    /// Have the data judged by the method of the CONNECT, then call [`Session::on_authenticated`];
    /// a client that fails must be closed `[MQTT-4.12.1-2]`.
    Authenticate(Turn, Bytes),
    /// The client owns the message: whoever keeps it may forget it.
    Delivered(Origin, QoS),
    /// The client said goodbye: close the connection.
    Close,
}

/// Actions of one input; nearly always one.
pub type Actions = SmallVec<[Action; 2]>;

/// Ties an [`Action::Publish`] to its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    qos: QoS,
    packet_id: Option<PacketId>,
}

impl Receipt {
    /// Whether the publisher waits for an acknowledgement.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.qos != QoS::AtMostOnce
    }
}

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// The broker owns it.
    Accepted,
    /// The broker owns it and nobody wanted it.
    NoSubscribers,
    /// Nobody will ever receive it.
    Refused(Refused),
}

/// Why a message was refused, and what a client of version 5 is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Reason code of the PUBACK or PUBREC.
    pub reason: ReasonCode,
    /// Its Reason String.
    pub name: &'static str,
    /// How long to wait before trying again, where that helps; stands in the Reason String, too.
    pub retry_after: Option<Duration>,
    /// What becomes of a client that cannot be told so.
    pub untold: Untold,
}

/// What becomes of a 3.x client whose message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    /// The message is acknowledged and dropped.
    Dropped,
    /// The connection is closed: the client spoke for another.
    IdentityViolation,
    /// The connection is closed: the client did what it may not do.
    NotAuthorized,
    /// The connection is closed: there is no room for the message now, and what is not kept must
    /// not be acknowledged (`[MQTT-4.8.0-2]` of 3.1.1).
    NoRoom,
}

/// What a session brings from before a restart.
#[derive(Debug)]
pub struct Past {
    /// Protocol of its last connection.
    pub version: Version,
    /// How long it outlives a connection.
    pub expiry: Duration,
    /// QoS 2 messages taken and not yet released.
    pub received: BTreeSet<PacketId>,
    /// QoS 2 messages on their way to the client, in the order of sending; without a message, the
    /// client has it and PUBREL is due.
    pub in_flight: Vec<(PacketId, Option<Delivery>)>,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    version: Version,
    bridge: bool,
    outbound: Outbound,
    received: BTreeSet<PacketId>, // QoS 2 messages taken and not yet released
    receive_maximum: u16,
    receive_maximum_binds: bool,
    retain_available: bool,
    window: u16,
    packet_bytes_max: usize,
    problem_information: bool,
    keep_alive: Option<Duration>,
    heard: Timestamp,
    expiry: Duration,
    expiry_max: Duration,
    will: Option<Box<Will>>,
    inbound_aliases: InboundAliases,
    outbound_aliases: OutboundAliases,
    reauth: Reauth,
}

impl Session {
    /// A session without a past.
    #[must_use]
    pub fn new(opening: &Opening, limits: &SessionLimits, now: Timestamp) -> Self {
        let past = Past {
            version: opening.version,
            expiry: opening.expiry,
            received: BTreeSet::new(),
            in_flight: Vec::new(),
        };
        let mut session = Self::restored(past, limits);
        session.open(opening, now);
        session
    }

    /// The session of a client that is away, as it was written down.
    #[must_use]
    pub fn restored(past: Past, limits: &SessionLimits) -> Self {
        let Past { version, expiry, received, in_flight } = past;
        Self {
            version,
            bridge: false,
            outbound: Outbound::restored(in_flight),
            received,
            receive_maximum: limits.receive_maximum,
            receive_maximum_binds: limits.rules.receive_maximum_binds,
            retain_available: limits.rules.retain_available,
            window: 0,
            packet_bytes_max: 0,
            problem_information: true,
            keep_alive: None,
            heard: Timestamp::default(),
            expiry: expiry.min(limits.expiry_max),
            expiry_max: limits.expiry_max,
            will: None,
            inbound_aliases: InboundAliases::new(limits.topic_alias_max),
            outbound_aliases: OutboundAliases::default(),
            reauth: Reauth::default(),
        }
    }

    /// Begins a connection: what belongs to the connection is set anew.
    pub fn open(&mut self, opening: &Opening, now: Timestamp) {
        self.version = opening.version;
        self.bridge = opening.bridge;
        self.window = opening.window;
        self.packet_bytes_max = opening.packet_bytes_max;
        self.problem_information = opening.problem_information;
        // [MQTT-3.1.2-22]: one and a half times the keep alive.
        self.keep_alive = (opening.keep_alive_secs > 0)
            .then(|| Duration::from_millis(u64::from(opening.keep_alive_secs) * 1500));
        self.heard = now;
        self.expiry = opening.expiry;
        self.will.clone_from(&opening.will);
        self.inbound_aliases.clear();
        self.reauth = Reauth::open(opening.authentication_method.clone());
        self.outbound_aliases.open(opening.topic_alias_max);
        self.outbound.open();
    }

    /// After a resume: everything unacknowledged again, in its order `[MQTT-4.4.0-1]`.
    pub fn resend(&mut self, actions: &mut Actions) {
        while let Some(resend) = self.outbound.resend(self.window.into()) {
            actions.push(match resend {
                Resend::Publish(outgoing) => Action::Deliver(outgoing),
                Resend::PubRel(id) => Action::Send(Packet::PubRel(ack(id, ReasonCode::Success))),
            });
        }
    }

    /// Forgets in-flight messages that are not to be sent again: their keeper has taken them back
    /// while the client was away, or the client may no longer read them.
    pub fn retain_in_flight(&mut self, keep: impl FnMut(&Delivery) -> bool) {
        self.outbound.retain(keep);
    }

    /// Takes back QoS 1 messages in flight for share groups, those of them that are `wanted`: their
    /// receiver is gone, and another member is to have them (4.8.2).
    pub fn take_shared(&mut self, wanted: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
        self.outbound.take_shared(wanted)
    }

    /// Bytes have come: the client lives.
    pub fn heard(&mut self, now: Timestamp) {
        self.heard = now;
    }

    /// A packet of the client.
    ///
    /// # Errors
    /// The rule it breaks; the connection must be closed.
    pub fn on_packet(&mut self, packet: Packet, actions: &mut Actions) -> Result<(), Violation> {
        match packet {
            Packet::Publish(publish) => return self.on_publish(publish, actions),
            Packet::PubAck(ack) => self.on_puback(&ack, actions)?,
            Packet::PubRec(ack) => self.on_pubrec(&ack, actions)?,
            Packet::PubRel(ack) => self.on_pubrel(&ack, actions),
            Packet::PubComp(ack) => {
                known(self.outbound.on_pubcomp(ack.packet_id))?;
                self.resend(actions);
            }
            Packet::Subscribe(subscribe) => {
                actions.push(Action::Subscribe(self.as_bridge(subscribe)));
            }
            Packet::Unsubscribe(unsubscribe) => actions.push(Action::Unsubscribe(unsubscribe)),
            Packet::PingReq => actions.push(Action::Send(Packet::PingResp)),
            Packet::Disconnect(disconnect) => return self.on_disconnect(&disconnect, actions),
            Packet::Connect(_) => return Err(Violation::SecondConnect),
            Packet::Auth(auth) => return self.reauth.on_auth(auth, actions),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                return Err(Violation::ServerPacket);
            }
        }
        Ok(())
    }

    /// The broker has decided on an [`Action::Publish`]: the acknowledgement, if one is due.
    pub fn on_routed(&mut self, receipt: Receipt, routed: Routed, actions: &mut Actions) {
        let Some(packet_id) = receipt.packet_id else { return };
        // A PUBREC that says more than "taken" is not what clients in the field know; the standard
        // leaves it to the server (3.5.2.1).
        let unsaid = receipt.qos == QoS::ExactlyOnce && routed == Routed::NoSubscribers;
        let routed = if unsaid { Routed::Accepted } else { routed };
        let answer = self.acknowledgement(packet_id, routed);
        if receipt.qos == QoS::AtLeastOnce {
            actions.push(Action::Send(Packet::PubAck(answer)));
            return;
        }
        // An error in PUBREC ends the exchange and frees the id (4.3.3); without one the id is
        // kept so that a repeated PUBLISH is not routed twice [MQTT-4.3.3-10].
        if !answer.reason.is_error() {
            self.received.insert(packet_id);
        }
        actions.push(Action::Send(Packet::PubRec(answer)));
    }

    /// A SUBSCRIBE has been carried out; one reason for each filter `[MQTT-3.9.3-1]`.
    pub fn on_subscribed(
        &self,
        packet_id: PacketId,
        reasons: SmallVec<[ReasonCode; 1]>,
        text: Option<&'static str>,
        actions: &mut Actions,
    ) {
        let properties = text.and_then(|text| self.reason_string(text.into()));
        actions.push(Action::Send(Packet::SubAck(SubAck { packet_id, properties, reasons })));
    }

    /// An UNSUBSCRIBE has been carried out; one reason for each filter.
    pub fn on_unsubscribed(
        &self,
        packet_id: PacketId,
        reasons: SmallVec<[ReasonCode; 1]>,
        actions: &mut Actions,
    ) {
        let answer = SubAck { packet_id, properties: None, reasons };
        actions.push(Action::Send(Packet::UnsubAck(answer)));
    }

    /// The method by which the client has shown who it is.
    #[must_use]
    pub fn authentication_method(&self) -> Option<&str> {
        self.reauth.method()
    }

    /// The data of an [`Action::Authenticate`] has been judged, and does not end the connection.
    pub fn on_authenticated(&mut self, verdict: Judged, actions: &mut Actions) {
        self.reauth.on_verdict(verdict, actions);
    }

    /// How many QoS 1 and 2 messages the client may be sent now `[MQTT-3.3.4-9]`.
    #[must_use]
    pub fn room(&self) -> usize {
        self.outbound.room(self.window.into())
    }

    /// A message for the client. The caller has checked [`Session::room`] for QoS above 0, and
    /// that the packet fits [`Session::packet_bytes_max`].
    pub fn on_delivery(&mut self, delivery: Delivery) -> Outgoing {
        self.outbound.send(delivery)
    }

    /// How the topic of the next PUBLISH is written; to be asked once for each PUBLISH that is
    /// sent, in the order of sending. `None`: by its name.
    pub fn alias(&mut self, topic: &ByteString) -> Option<Alias> {
        self.outbound_aliases.of(topic)
    }

    /// The packet as the client takes it, if it can be made to fit (see [`fitted`]).
    #[must_use]
    pub fn fitted(&self, packet: Packet) -> Option<Packet> {
        fitted(packet, self.version, self.packet_bytes_max)
    }

    /// A message in flight cannot be sent again: it does not fit the new connection.
    pub fn give_up(&mut self, packet_id: PacketId) {
        self.outbound.give_up(packet_id);
    }

    /// When [`Session::on_deadline`] is due.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.keep_alive.map_or(Timestamp::NEVER, |wait| self.heard.after(wait))
    }

    /// Time has passed.
    ///
    /// # Errors
    /// [`Violation::KeepAliveTimeout`] when nothing was heard for too long `[MQTT-3.1.2-22]`.
    pub fn on_deadline(&self, now: Timestamp) -> Result<(), Violation> {
        if now >= self.deadline() { Err(Violation::KeepAliveTimeout) } else { Ok(()) }
    }

    /// The connection is over. Gives the Will if it is to be published `[MQTT-3.1.2-8]`: always,
    /// unless the client said goodbye properly.
    pub fn close(&mut self) -> Option<Box<Will>> {
        self.keep_alive = None;
        self.will.take()
    }

    /// Protocol of the connection.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Largest packet the client takes, in bytes.
    #[must_use]
    pub fn packet_bytes_max(&self) -> usize {
        self.packet_bytes_max
    }

    /// How long the session outlives its connection; zero ends it at once.
    #[must_use]
    pub fn expiry(&self) -> Duration {
        self.expiry
    }

    /// QoS 1 and 2 messages on their way to the client.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.outbound.len()
    }

    /// The DISCONNECT that tells a client of version 5 why the broker closes; older versions have
    /// none from the server.
    #[must_use]
    pub fn goodbye(&self, reason: ReasonCode, text: &str) -> Option<Packet> {
        if self.version != Version::V5 {
            return None;
        }
        let properties = (!text.is_empty()).then(|| {
            Box::new(DisconnectProperties {
                reason_string: Some(text.into()),
                ..DisconnectProperties::default()
            })
        });
        Some(Packet::Disconnect(Disconnect { reason, properties }))
    }

    fn on_publish(&mut self, mut publish: Publish, actions: &mut Actions) -> Result<(), Violation> {
        self.inbound_aliases.resolve(&mut publish)?;
        if publish.retain && !self.retain_available {
            return Err(Violation::RetainNotSupported);
        }
        let receipt = Receipt { qos: publish.qos, packet_id: publish.packet_id };
        if let (QoS::ExactlyOnce, Some(id)) = (publish.qos, publish.packet_id) {
            if self.received.contains(&id) {
                // Taken before, not yet released: answer again, route nothing.
                actions.push(Action::Send(Packet::PubRec(ack(id, ReasonCode::Success))));
                return Ok(());
            }
            // No more than there are packet ids, in any case (case D7).
            let binds = self.version == Version::V5 && self.receive_maximum_binds;
            if binds && self.received.len() >= usize::from(self.receive_maximum) {
                return Err(Violation::ReceiveMaximumExceeded);
            }
        }
        actions.push(Action::Publish(publish, receipt));
        Ok(())
    }

    /// What a bridge sends is not sent back to it, and what it gets keeps its retain flag; 3.x has
    /// no options to say so.
    fn as_bridge(&self, mut subscribe: Subscribe) -> Subscribe {
        if self.bridge {
            for filter in &mut subscribe.filters {
                filter.options.no_local = true;
                filter.options.retain_as_published = true;
            }
        }
        subscribe
    }

    fn on_puback(&mut self, ack: &Ack, actions: &mut Actions) -> Result<(), Violation> {
        let origin = known(self.outbound.on_puback(ack.packet_id))?;
        actions.extend(origin.map(|origin| Action::Delivered(origin, QoS::AtLeastOnce)));
        self.resend(actions);
        Ok(())
    }

    fn on_pubrec(&mut self, pubrec: &Ack, actions: &mut Actions) -> Result<(), Violation> {
        let id = pubrec.packet_id;
        if pubrec.reason.is_error() {
            let origin = known(self.outbound.on_pubrec_error(id))?;
            actions.extend(origin.map(|origin| Action::Delivered(origin, QoS::ExactlyOnce)));
            self.resend(actions);
            return Ok(());
        }
        let reason = match known(self.outbound.on_pubrec(id))? {
            Some(origin) => {
                actions.extend(origin.map(|origin| Action::Delivered(origin, QoS::ExactlyOnce)));
                ReasonCode::Success
            }
            None => ReasonCode::PacketIdentifierNotFound,
        };
        actions.push(Action::Send(Packet::PubRel(ack(id, reason))));
        Ok(())
    }

    fn on_pubrel(&mut self, pubrel: &Ack, actions: &mut Actions) {
        let id = pubrel.packet_id;
        let known = self.received.remove(&id);
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        actions.push(Action::Send(Packet::PubComp(ack(id, reason))));
    }

    fn on_disconnect(
        &mut self,
        disconnect: &Disconnect,
        actions: &mut Actions,
    ) -> Result<(), Violation> {
        disconnect.check(Sender::Client)?;
        let properties = disconnect.properties.as_deref();
        if let Some(secs) = properties.and_then(|p| p.session_expiry_secs) {
            if self.expiry.is_zero() && secs > 0 {
                return Err(Violation::SessionExpiryRaised);
            }
            self.expiry = connect::expiry(secs).min(self.expiry_max);
        }
        // [MQTT-3.14.4-3]: a proper goodbye discards the Will.
        if disconnect.reason == ReasonCode::Success {
            self.will = None;
        }
        actions.push(Action::Close);
        Ok(())
    }

    fn acknowledgement(&self, packet_id: PacketId, routed: Routed) -> Ack {
        match routed {
            Routed::Accepted => ack(packet_id, ReasonCode::Success),
            Routed::NoSubscribers => ack(packet_id, ReasonCode::NoMatchingSubscribers),
            // Before version 5 there is no negative acknowledgement: acknowledge and drop.
            Routed::Refused(_) if self.version != Version::V5 => {
                ack(packet_id, ReasonCode::Success)
            }
            Routed::Refused(Refused { reason, name, retry_after, .. }) => {
                let text = match retry_after {
                    Some(wait) => {
                        // Who comes a moment too early is refused again.
                        let secs = wait.as_millis().div_ceil(1000).max(1);
                        format!("{name}; retry-after={secs}").into()
                    }
                    None => ByteString::from_static(name),
                };
                Ack { packet_id, reason, properties: self.reason_string(text) }
            }
        }
    }

    fn reason_string(&self, text: ByteString) -> Option<Box<ReasonProperties>> {
        let wanted = self.version == Version::V5 && self.problem_information;
        wanted.then(|| Box::new(ReasonProperties { reason_string: Some(text), user: Vec::new() }))
    }
}

/// An acknowledgement of a message that is not there is nothing (case P26); one of the wrong kind
/// is a violation.
fn known<T>(found: Result<T, Mismatch>) -> Result<Option<T>, Violation> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Mismatch::Unknown) => Ok(None),
        Err(Mismatch::OtherKind) => Err(Violation::WrongAcknowledgement),
    }
}

fn ack(packet_id: PacketId, reason: ReasonCode) -> Ack {
    Ack { packet_id, reason, properties: None }
}

/// The answer to a SUBSCRIBE filter that was granted with this QoS.
#[must_use]
pub fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}
