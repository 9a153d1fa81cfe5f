//! Any sequence of packets, deliveries, reconnects and pauses, played to a session beside a naive
//! model of what it owes its client: no panic, no packet id used twice at once, nothing handed
//! over twice, nothing forgotten, and never more under way than the client's window.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use simcast::ids::{PacketId, Timestamp};
use simcast::mqtt::{
    Ack, Connect, ConnectProperties, Disconnect, Message, Packet, Publish, QoS, ReasonCode, Sender,
    Version, decode,
};
use simcast::session::{
    Action, Actions, Delivery, Opening, Origin, Routed, Session, SessionLimits, SessionRules,
};

const WINDOW_MAX: u16 = 7;

fuzz_target!(|input: &[u8]| {
    let mut input = input.iter().copied();
    let version = match input.next() {
        Some(0) => Version::V31,
        Some(1) => Version::V311,
        _ => Version::V5,
    };
    let mut play = Play::new(version);
    while let Some(step) = input.next() {
        if !play.step(step, &mut input) {
            return;
        }
        play.check();
    }
});

/// How far a message to the client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    PubAck,
    PubRec,
    PubComp,
}

struct Play {
    version: Version,
    session: Session,
    now: Timestamp,
    window: usize,
    next_message: u64,
    /// In flight, by packet id.
    owed: BTreeMap<u16, Owed>,
    /// Of the owed, those sent on this connection.
    sent: BTreeSet<u16>,
    delivered: BTreeSet<u64>,
    /// The PUBREC that is being answered: the PUBREL to it is no sending again.
    answering: Option<u16>,
    /// QoS 2 messages of the client, taken and not released.
    received: BTreeSet<u16>,
}

fn limits() -> SessionLimits {
    SessionLimits {
        receive_maximum: 5,
        in_flight_max: WINDOW_MAX,
        packet_bytes_max: 1000,
        keep_alive_secs_max: 100,
        client_id_bytes_max: 100,
        topic_alias_max: 3,
        topic_alias_outbound_max: 3,
        expiry_max: Duration::from_secs(1000),
        rules: SessionRules::default(),
    }
}

fn opening(version: Version, window: u16) -> Opening {
    let properties = ConnectProperties {
        receive_maximum: window,
        session_expiry_secs: 100,
        ..ConnectProperties::default()
    };
    let connect = Connect {
        version,
        bridge: false,
        clean_start: false,
        keep_alive_secs: 10,
        client_id: "c".into(),
        will: None,
        username: None,
        password: None,
        properties,
    };
    Opening::new(&connect, &limits(), || "fresh".into()).expect("an ordinary CONNECT")
}

impl Play {
    fn new(version: Version) -> Self {
        let now = Timestamp(0);
        let session = Session::new(&opening(version, WINDOW_MAX), &limits(), now);
        Self {
            version,
            session,
            now,
            window: WINDOW_MAX.into(),
            next_message: 0,
            owed: BTreeMap::new(),
            sent: BTreeSet::new(),
            delivered: BTreeSet::new(),
            answering: None,
            received: BTreeSet::new(),
        }
    }

    /// `false`: the connection is over, and with it the play.
    fn step(&mut self, step: u8, input: &mut impl Iterator<Item = u8>) -> bool {
        let mut byte = || input.next().unwrap_or(1);
        let ack = |id: u8| Ack {
            packet_id: PacketId::new(u16::from(id % 12) + 1).expect("not zero"),
            reason: ReasonCode::Success,
            properties: None,
        };
        match step % 12 {
            0 => self.deliver(QoS::AtMostOnce),
            1 => self.deliver(QoS::AtLeastOnce),
            2 => self.deliver(QoS::ExactlyOnce),
            3 => return self.packet(Packet::PubAck(ack(byte()))),
            4 => return self.packet(Packet::PubRec(ack(byte()))),
            5 => return self.packet(Packet::PubComp(ack(byte()))),
            6 => return self.packet(Packet::PubRel(ack(byte()))),
            7 => {
                let (qos, id) = (byte() % 3, byte());
                return self.packet(Packet::Publish(publish(qos, ack(id).packet_id)));
            }
            8 => {
                let frame: Vec<u8> = (0..byte()).map(|_| byte()).collect();
                return match decode(frame.into(), self.version, Sender::Client) {
                    Ok(packet) => self.packet(packet),
                    Err(_) => true,
                };
            }
            9 => self.reconnect(u16::from(byte() % 10) + 1),
            10 => {
                self.now = self.now.after(Duration::from_secs(u64::from(byte() % 20)));
                return self.session.on_deadline(self.now).is_ok();
            }
            _ => {
                let reason = ReasonCode::Success;
                return self.packet(Packet::Disconnect(Disconnect { reason, properties: None }));
            }
        }
        true
    }

    fn deliver(&mut self, qos: QoS) {
        if qos != QoS::AtMostOnce && self.session.room() == 0 {
            return;
        }
        self.next_message += 1;
        let message = Message::new("t".into(), "x".into(), qos, false, None, Timestamp::NEVER);
        let outgoing = self.session.on_delivery(Delivery {
            kept: None,
            dup: false,
            message: Arc::new(message),
            qos,
            retain: false,
            subscription_ids: Default::default(),
            origin: Origin::Mailbox(self.next_message),
            share: None,
        });
        assert_eq!(outgoing.packet_id.is_some(), qos != QoS::AtMostOnce);
        if let Some(id) = outgoing.packet_id {
            let owed = if qos == QoS::AtLeastOnce { Owed::PubAck } else { Owed::PubRec };
            assert_eq!(self.owed.insert(id.get(), owed), None, "an id is used twice at once");
            self.sent.insert(id.get());
        }
    }

    fn reconnect(&mut self, window: u16) {
        self.session.close();
        self.window = usize::from(opening(self.version, window).window);
        self.session.open(&opening(self.version, window), self.now);
        self.sent.clear();
        let mut actions = Actions::new();
        self.session.resend(&mut actions);
        assert!(self.carry_out(actions));
    }

    fn packet(&mut self, packet: Packet) -> bool {
        self.session.heard(self.now);
        let mut actions = Actions::new();
        let expected = self.expect(&packet);
        self.answering = match &packet {
            Packet::PubRec(ack) => Some(ack.packet_id.get()),
            _ => None,
        };
        let result = self.session.on_packet(packet, &mut actions);
        if let Some(fits) = expected {
            assert_eq!(result.is_ok(), fits, "an acknowledgement is judged by what is owed");
        }
        result.is_ok() && self.carry_out(actions)
    }

    /// What an acknowledgement changes, and whether it fits; `None` for other packets.
    fn expect(&mut self, packet: &Packet) -> Option<bool> {
        let (ack, kind) = match packet {
            Packet::PubAck(ack) => (ack, Owed::PubAck),
            Packet::PubRec(ack) => (ack, Owed::PubRec),
            Packet::PubComp(ack) => (ack, Owed::PubComp),
            Packet::PubRel(ack) => {
                self.received.remove(&ack.packet_id.get());
                return Some(true);
            }
            _ => return None,
        };
        let id = ack.packet_id.get();
        let owed = self.owed.get(&id).copied();
        let failed = ack.reason.is_error();
        match (owed, kind) {
            (None, _) => return Some(true),
            (Some(Owed::PubAck), Owed::PubAck) | (Some(Owed::PubComp), Owed::PubComp) => {
                self.owed.remove(&id);
                self.sent.remove(&id);
            }
            (Some(Owed::PubRec), Owed::PubRec) if failed => {
                self.owed.remove(&id);
                self.sent.remove(&id);
            }
            (Some(Owed::PubRec), Owed::PubRec) => {
                self.owed.insert(id, Owed::PubComp);
            }
            (Some(Owed::PubComp), Owed::PubRec) if !failed => {}
            _ => return Some(false),
        }
        Some(true)
    }

    fn carry_out(&mut self, actions: Actions) -> bool {
        let mut going_on = true;
        for action in actions {
            match action {
                Action::Deliver(outgoing) => {
                    let id = outgoing.packet_id.expect("only QoS 1 and 2 come again").get();
                    assert!(outgoing.dup, "[MQTT-3.3.1-1]");
                    assert_ne!(self.owed.get(&id), Some(&Owed::PubComp), "the client has it");
                    assert!(self.owed.contains_key(&id), "acknowledged, and comes again");
                    assert!(self.sent.insert(id), "twice on one connection [MQTT-4.4.0-1]");
                }
                Action::Send(Packet::PubRel(ack)) => {
                    let id = ack.packet_id.get();
                    if ack.reason == ReasonCode::Success {
                        assert_eq!(self.owed.get(&id), Some(&Owed::PubComp));
                        if self.answering.take() != Some(id) {
                            self.sent.insert(id);
                        }
                    }
                }
                Action::Delivered(Origin::Mailbox(number), _) => {
                    assert!(self.delivered.insert(number), "handed over twice");
                }
                Action::Publish(publish, receipt) => {
                    let mut answers = Actions::new();
                    if let (QoS::ExactlyOnce, Some(id)) = (publish.qos, publish.packet_id) {
                        assert!(self.received.insert(id.get()), "routed twice [MQTT-4.3.3-10]");
                    }
                    self.session.on_routed(receipt, Routed::Accepted, &mut answers);
                    assert_eq!(answers.len(), usize::from(receipt.is_acknowledged()));
                }
                Action::Close => going_on = false,
                _ => {}
            }
        }
        going_on
    }

    fn check(&self) {
        assert_eq!(self.session.in_flight(), self.owed.len());
        assert!(self.sent.len() <= self.window, "[MQTT-3.3.4-9]");
        let all_sent = self.sent.len() == self.owed.len();
        let room = if all_sent { self.window - self.sent.len() } else { 0 };
        assert_eq!(self.session.room(), room);
    }
}

fn publish(qos: u8, id: PacketId) -> Publish {
    let qos = QoS::from_bits(qos).expect("0, 1 or 2");
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: "t".into(),
        packet_id: (qos != QoS::AtMostOnce).then_some(id),
        properties: None,
        payload: "x".into(),
    }
}
