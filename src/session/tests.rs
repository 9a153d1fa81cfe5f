//! Sessions as transcripts: `>` is what the client sends, `<` what the session wants done.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::*;
use crate::mqtt::{
    Connect, ConnectProperties, DisconnectProperties, Message, PublishProperties, SubscribeFilter,
    SubscribeOptions,
};

static LIMITS: LazyLock<SessionLimits> = LazyLock::new(|| SessionLimits {
    receive_maximum: 3,
    in_flight_max: 2,
    packet_bytes_max: 1000,
    keep_alive_secs_max: 100,
    client_id_bytes_max: 30,
    topic_alias_max: 2,
    topic_alias_outbound_max: 2,
    expiry_max: Duration::from_secs(1000),
    rules: SessionRules::default(),
});

fn connect(version: Version) -> Connect {
    Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive_secs: 10,
        client_id: "c".into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

fn will() -> Will {
    Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_secs: 0,
        topic: "will".into(),
        payload: "gone".into(),
        properties: None,
    }
}

fn opening(connect: &Connect) -> Result<Opening, Violation> {
    Opening::new(connect, &LIMITS, || "fresh".into())
}

fn session(version: Version) -> Session {
    Session::new(&opening(&connect(version)).unwrap(), &LIMITS, Timestamp(0))
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn publish(qos: QoS, number: u16) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: "t".into(),
        packet_id: (qos != QoS::AtMostOnce).then(|| id(number)),
        properties: None,
        payload: "x".into(),
    }
}

fn aliased(topic: &'static str, alias: u16) -> Packet {
    let properties = PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
    let publish = publish(QoS::AtMostOnce, 0);
    Packet::Publish(Publish {
        topic: topic.into(),
        properties: Some(Box::new(properties)),
        ..publish
    })
}

fn delivery(qos: QoS, origin: Origin) -> Delivery {
    let message = Message::new("t".into(), "x".into(), qos, false, None, Timestamp::NEVER);
    let subscription_ids = SmallVec::new();
    let message = Arc::new(message);
    let (kept, dup, share) = (None, false, None);
    Delivery { kept, message, qos, retain: false, subscription_ids, origin, dup, share }
}

fn ok(number: u16) -> Ack {
    ack(id(number), ReasonCode::Success)
}

/// One line for each action.
fn lines(actions: &mut Actions) -> Vec<String> {
    let with_reason = |name: &str, ack: &Ack| match ack.reason {
        ReasonCode::Success => format!("< {name} {}", ack.packet_id.get()),
        reason => format!("< {name} {} {reason:?}", ack.packet_id.get()),
    };
    let line = |action: Action| match action {
        Action::Send(Packet::PubAck(ack)) => with_reason("PUBACK", &ack),
        Action::Send(Packet::PubRec(ack)) => with_reason("PUBREC", &ack),
        Action::Send(Packet::PubRel(ack)) => with_reason("PUBREL", &ack),
        Action::Send(Packet::PubComp(ack)) => with_reason("PUBCOMP", &ack),
        Action::Send(Packet::PingResp) => "< PINGRESP".into(),
        Action::Send(Packet::Auth(auth)) => {
            let properties = auth.properties.unwrap();
            let data = properties.authentication_data.unwrap();
            let method = properties.authentication_method.unwrap();
            format!("< AUTH {:?} {method} {}", auth.reason, String::from_utf8_lossy(&data))
        }
        Action::Send(other) => format!("< {other:?}"),
        Action::Deliver(outgoing) => format!(
            "< PUBLISH {} q{}{}",
            outgoing.packet_id.map_or(0, PacketId::get),
            outgoing.delivery.qos as u8,
            if outgoing.dup { " dup" } else { "" }
        ),
        Action::Publish(publish, _) => format!("route {}", publish.topic),
        Action::Subscribe(subscribe) => format!("subscribe {}", subscribe.filters[0].filter),
        Action::Unsubscribe(unsubscribe) => format!("unsubscribe {}", unsubscribe.filters[0]),
        Action::Authenticate(turn, data) => {
            format!("authenticate {turn:?} {}", String::from_utf8_lossy(&data))
        }
        Action::Delivered(origin, _) => format!("delivered {origin:?}"),
        Action::Close => "close".into(),
    };
    std::mem::take(actions).into_iter().map(line).collect()
}

/// The client sends a packet; whatever it publishes is answered with `routed`.
fn sends(session: &mut Session, packet: Packet, routed: Routed) -> Vec<String> {
    let mut actions = Actions::new();
    session.on_packet(packet, &mut actions).unwrap();
    let mut receipts = Vec::new();
    for action in &actions {
        if let Action::Publish(_, receipt) = action {
            receipts.push(*receipt);
        }
    }
    let mut transcript = lines(&mut actions);
    receipts.into_iter().for_each(|receipt| session.on_routed(receipt, routed, &mut actions));
    transcript.extend(lines(&mut actions));
    transcript
}

fn violates(session: &mut Session, packet: Packet) -> Violation {
    session.on_packet(packet, &mut Actions::new()).unwrap_err()
}

const REFUSED: Routed = Routed::Refused(Refused {
    reason: ReasonCode::NotAuthorized,
    name: "no",
    retry_after: None,
    untold: Untold::Dropped,
});

#[test]
fn a_message_is_acknowledged_after_it_was_routed() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut s = session(version);
        let q0 = Packet::Publish(publish(QoS::AtMostOnce, 0));
        assert_eq!(sends(&mut s, q0, Routed::Accepted), ["route t"]);
        let q1 = Packet::Publish(publish(QoS::AtLeastOnce, 7));
        assert_eq!(sends(&mut s, q1, Routed::Accepted), ["route t", "< PUBACK 7"]);
    }
}

#[test]
fn a_qos_2_message_is_routed_once_however_often_it_comes() {
    // cases Q3, [MQTT-4.3.3-10]
    let mut s = session(Version::V311);
    let packet = Packet::Publish(publish(QoS::ExactlyOnce, 7));
    assert_eq!(sends(&mut s, packet.clone(), Routed::Accepted), ["route t", "< PUBREC 7"]);
    assert_eq!(sends(&mut s, packet.clone(), Routed::Accepted), ["< PUBREC 7"]);
    assert_eq!(sends(&mut s, Packet::PubRel(ok(7)), Routed::Accepted), ["< PUBCOMP 7"]);
    assert_eq!(sends(&mut s, packet, Routed::Accepted), ["route t", "< PUBREC 7"], "a new one");
}

#[test]
fn a_refusal_is_told_to_version_5_alone() {
    let q1 = || Packet::Publish(publish(QoS::AtLeastOnce, 7));
    let q2 = || Packet::Publish(publish(QoS::ExactlyOnce, 8));
    let mut s = session(Version::V5);
    assert_eq!(sends(&mut s, q1(), REFUSED), ["route t", "< PUBACK 7 NotAuthorized"]);
    // The id is free at once: the next one is another message.
    for _ in 0..2 {
        assert_eq!(sends(&mut s, q2(), REFUSED), ["route t", "< PUBREC 8 NotAuthorized"]);
    }
    let mut s = session(Version::V311);
    assert_eq!(sends(&mut s, q1(), REFUSED), ["route t", "< PUBACK 7"]);
    assert_eq!(sends(&mut s, q2(), REFUSED), ["route t", "< PUBREC 8"]);
}

#[test]
fn unreleased_messages_are_bounded_by_the_receive_maximum() {
    // case D7, [MQTT-3.3.4-9]
    let mut s = session(Version::V5);
    for number in 1..=3 {
        sends(&mut s, Packet::Publish(publish(QoS::ExactlyOnce, number)), Routed::Accepted);
    }
    let fourth = Packet::Publish(publish(QoS::ExactlyOnce, 4));
    assert_eq!(violates(&mut s, fourth), Violation::ReceiveMaximumExceeded);
}

#[test]
fn a_window_takes_what_it_has_room_for_and_ids_are_not_reused() {
    let mut s = session(Version::V5);
    assert_eq!(s.room(), 2);
    let mut sent = || {
        let outgoing = s.on_delivery(delivery(QoS::AtLeastOnce, Origin::Queue));
        outgoing.packet_id.unwrap().get()
    };
    assert_eq!((sent(), sent()), (1, 2));
    assert_eq!(s.room(), 0);
    let q0 = s.on_delivery(delivery(QoS::AtMostOnce, Origin::Queue));
    assert_eq!(q0.packet_id, None, "QoS 0 needs no room");
    assert_eq!(
        sends(&mut s, Packet::PubAck(ok(1)), Routed::Accepted),
        [format!("delivered {:?}", Origin::Queue)]
    );
    // Wherever the counter stands, an id in flight is passed over.
    for _ in 0..usize::from(u16::MAX) {
        let outgoing = s.on_delivery(delivery(QoS::AtLeastOnce, Origin::Queue));
        let number = outgoing.packet_id.unwrap();
        assert_ne!(number.get(), 2);
        sends(&mut s, Packet::PubAck(ack(number, ReasonCode::Success)), Routed::Accepted);
    }
    assert_eq!(s.in_flight(), 1);
}

#[test]
fn a_qos_2_delivery_is_the_clients_at_pubrec_and_over_at_pubcomp() {
    let mut s = session(Version::V5);
    s.on_delivery(delivery(QoS::ExactlyOnce, Origin::Mailbox(9)));
    let delivered = format!("delivered {:?}", Origin::Mailbox(9));
    let pubrec = || Packet::PubRec(ok(1));
    assert_eq!(sends(&mut s, pubrec(), Routed::Accepted), [&*delivered, "< PUBREL 1"]);
    assert_eq!(sends(&mut s, pubrec(), Routed::Accepted), ["< PUBREL 1"], "told once");
    assert_eq!(s.room(), 1, "the id is in use until PUBCOMP");
    assert!(sends(&mut s, Packet::PubComp(ok(1)), Routed::Accepted).is_empty());
    assert_eq!(s.room(), 2);
}

#[test]
fn stray_acknowledgements_change_nothing() {
    // case P26
    let mut s = session(Version::V5);
    s.on_delivery(delivery(QoS::AtLeastOnce, Origin::Queue));
    s.on_delivery(delivery(QoS::ExactlyOnce, Origin::Queue));
    let unknown = "PacketIdentifierNotFound";
    let mut says = |packet| sends(&mut s, packet, Routed::Accepted);
    assert!(says(Packet::PubAck(ok(9))).is_empty());
    assert!(says(Packet::PubComp(ok(9))).is_empty());
    assert_eq!(says(Packet::PubRec(ok(9))), [format!("< PUBREL 9 {unknown}")]);
    assert_eq!(says(Packet::PubRel(ok(9))), [format!("< PUBCOMP 9 {unknown}")]);
    assert_eq!(s.room(), 0);
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_is_a_violation() {
    // case P26
    let mut s = session(Version::V311);
    s.on_delivery(delivery(QoS::AtLeastOnce, Origin::Queue));
    s.on_delivery(delivery(QoS::ExactlyOnce, Origin::Queue));
    let failed = ack(id(1), ReasonCode::UnspecifiedError);
    for wrong in [
        Packet::PubRec(ok(1)),
        Packet::PubRec(failed),
        Packet::PubComp(ok(1)),
        Packet::PubAck(ok(2)),
        Packet::PubComp(ok(2)),
    ] {
        assert_eq!(violates(&mut s, wrong), Violation::WrongAcknowledgement);
    }
    sends(&mut s, Packet::PubRec(ok(2)), Routed::Accepted);
    assert_eq!(violates(&mut s, Packet::PubAck(ok(2))), Violation::WrongAcknowledgement);
}

#[test]
fn a_pubrec_with_an_error_ends_the_exchange() {
    let mut s = session(Version::V5);
    s.on_delivery(delivery(QoS::ExactlyOnce, Origin::Queue));
    let refusal = ack(id(1), ReasonCode::UnspecifiedError);
    let delivered = format!("delivered {:?}", Origin::Queue);
    assert_eq!(sends(&mut s, Packet::PubRec(refusal), Routed::Accepted), [delivered]);
    assert_eq!(s.room(), 2);
}

#[test]
fn a_resumed_session_sends_again_in_order_with_the_same_ids() {
    // case Q1, [MQTT-4.4.0-1]
    let mut s = session(Version::V5);
    s.on_delivery(delivery(QoS::ExactlyOnce, Origin::Queue));
    s.on_delivery(delivery(QoS::AtLeastOnce, Origin::Mailbox(5)));
    sends(&mut s, Packet::PubRec(ok(1)), Routed::Accepted);
    s.open(&opening(&connect(Version::V5)).unwrap(), Timestamp(0));
    let mut actions = Actions::new();
    s.resend(&mut actions);
    assert_eq!(lines(&mut actions), ["< PUBREL 1", "< PUBLISH 2 q1 dup"]);
    s.open(&opening(&connect(Version::V5)).unwrap(), Timestamp(0));
    s.retain_in_flight(|delivery| delivery.origin == Origin::Queue);
    s.resend(&mut actions);
    assert_eq!(lines(&mut actions), ["< PUBREL 1"], "mail that was taken back is not ours");
}

#[test]
fn a_resumed_session_may_have_every_packet_id_in_flight() {
    // case Q2, [MQTT-4.4.0-1], [MQTT-2.2.1-4]
    let limits = SessionLimits { in_flight_max: u16::MAX, ..LIMITS.clone() };
    let connect = connect(Version::V5);
    let opening = Opening::new(&connect, &limits, || "fresh".into()).unwrap();
    let mut s = Session::new(&opening, &limits, Timestamp(0));
    let next = |s: &mut Session| {
        let outgoing = s.on_delivery(delivery(QoS::AtLeastOnce, Origin::Queue));
        outgoing.packet_id.unwrap().get()
    };
    assert!((1..=u16::MAX).all(|number| next(&mut s) == number), "each once");
    assert_eq!((s.room(), s.in_flight()), (0, 65_535));
    s.open(&opening, Timestamp(0));
    let mut actions = Actions::new();
    s.resend(&mut actions);
    let again = actions.iter().map(|action| match action {
        Action::Deliver(outgoing) if outgoing.dup => outgoing.packet_id.unwrap().get(),
        other => panic!("{other:?}"),
    });
    assert!(again.eq(1..=u16::MAX), "all of them, in order");
    let acknowledge = |s: &mut Session, number: u16| {
        s.on_packet(Packet::PubAck(ok(number)), &mut Actions::new()).unwrap();
    };
    // From the youngest on; each id is free at once, and no other.
    for number in (60_000..=u16::MAX).rev() {
        acknowledge(&mut s, number);
        assert_eq!((s.room(), next(&mut s)), (1, number));
    }
    (1..=u16::MAX).for_each(|number| acknowledge(&mut s, number));
    assert_eq!((s.room(), s.in_flight()), (65_535, 0));
}

#[test]
fn what_is_sent_again_keeps_to_the_new_window() {
    // case Q17, [MQTT-3.3.4-9]
    let mut s = session(Version::V5);
    s.on_delivery(delivery(QoS::AtLeastOnce, Origin::Queue));
    s.on_delivery(delivery(QoS::ExactlyOnce, Origin::Queue));
    let mut narrow = connect(Version::V5);
    narrow.properties.receive_maximum = 1;
    s.open(&opening(&narrow).unwrap(), Timestamp(0));
    let mut actions = Actions::new();
    s.resend(&mut actions);
    assert_eq!(lines(&mut actions), ["< PUBLISH 1 q1 dup"]);
    assert_eq!(s.room(), 0);
    let delivered = format!("delivered {:?}", Origin::Queue);
    let next = sends(&mut s, Packet::PubAck(ok(1)), Routed::Accepted);
    assert_eq!(next, [&*delivered, "< PUBLISH 2 q2 dup"]);
    assert_eq!(s.room(), 0, "no new one before the old one is over");
    sends(&mut s, Packet::PubRec(ok(2)), Routed::Accepted);
    sends(&mut s, Packet::PubComp(ok(2)), Routed::Accepted);
    assert_eq!(s.room(), 1);
}

#[test]
fn silence_ends_a_session_after_one_and_a_half_times_the_keep_alive() {
    // case Q10, [MQTT-3.1.2-22]
    for version in [Version::V31, Version::V311, Version::V5] {
        for (asked, longest, agreed) in
            [(1, 100, 1), (2, 100, 2), (60, 60, 60), (60, 59, 59), (65_535, 65_535, 65_535)]
        {
            let limits = SessionLimits { keep_alive_secs_max: longest, ..LIMITS.clone() };
            let connect = Connect { keep_alive_secs: asked, ..connect(version) };
            let opening = Opening::new(&connect, &limits, || "fresh".into()).unwrap();
            // Older clients cannot be told another one.
            let secs = if version == Version::V5 { agreed } else { asked };
            let heard = Timestamp(1000);
            let mut s = Session::new(&opening, &limits, Timestamp(0));
            s.heard(heard);
            let due = heard.after(Duration::from_millis(u64::from(secs) * 1500));
            assert_eq!(s.deadline(), due, "{version:?} {asked}");
            assert_eq!(s.on_deadline(Timestamp(due.0 - 1)), Ok(()));
            assert_eq!(s.on_deadline(due), Err(Violation::KeepAliveTimeout));
            // Whatever comes at the last moment is a sign of life.
            s.heard(Timestamp(due.0 - 1));
            assert_eq!(s.on_deadline(due), Ok(()));
            assert_eq!(s.deadline(), Timestamp(due.0 - 1 + u64::from(secs) * 1500));
        }
    }
    let endless = Connect { keep_alive_secs: 0, ..connect(Version::V311) };
    let s = Session::new(&opening(&endless).unwrap(), &LIMITS, Timestamp(0));
    assert_eq!(s.deadline(), Timestamp::NEVER);
}

#[test]
fn a_goodbye_withdraws_the_will_unless_it_asks_for_it() {
    // case Q9, [MQTT-3.1.2-8], [MQTT-3.14.4-3]
    let connect = Connect { will: Some(will()), ..connect(Version::V5) };
    let wills_after = |reason: Option<ReasonCode>| {
        let mut s = Session::new(&opening(&connect).unwrap(), &LIMITS, Timestamp(0));
        if let Some(reason) = reason {
            let disconnect = Packet::Disconnect(Disconnect { reason, properties: None });
            assert_eq!(sends(&mut s, disconnect, Routed::Accepted), ["close"]);
        }
        s.close().is_some()
    };
    assert!(wills_after(None), "the connection just ended");
    assert!(!wills_after(Some(ReasonCode::Success)));
    assert!(wills_after(Some(ReasonCode::DisconnectWithWill)));
    assert!(wills_after(Some(ReasonCode::UnspecifiedError)), "only 0x00 withdraws it");
}

#[test]
fn session_expiry_may_change_at_disconnect_but_not_from_zero() {
    // case Q5, [MQTT-3.14.2-2]
    let goodbye = |secs| {
        let properties =
            DisconnectProperties { session_expiry_secs: Some(secs), ..Default::default() };
        let reason = ReasonCode::Success;
        Packet::Disconnect(Disconnect { reason, properties: Some(Box::new(properties)) })
    };
    let mut s = session(Version::V5);
    assert_eq!(s.expiry(), Duration::ZERO);
    assert_eq!(violates(&mut s, goodbye(5)), Violation::SessionExpiryRaised);
    let mut connect = connect(Version::V5);
    connect.properties.session_expiry_secs = 10;
    let mut s = Session::new(&opening(&connect).unwrap(), &LIMITS, Timestamp(0));
    sends(&mut s, goodbye(50), Routed::Accepted);
    assert_eq!(s.expiry(), Duration::from_secs(50));
    sends(&mut s, goodbye(u32::MAX), Routed::Accepted);
    assert_eq!(s.expiry(), LIMITS.expiry_max, "not beyond the broker's bound");
}

#[test]
fn topic_aliases_stand_for_names_of_this_connection() {
    // case Q19, [MQTT-3.3.2-7]
    let mut s = session(Version::V5);
    assert_eq!(violates(&mut s, aliased("", 1)), Violation::TopicAliasUnknown, "never set");
    assert_eq!(sends(&mut s, aliased("long/name", 1), Routed::Accepted), ["route long/name"]);
    assert_eq!(sends(&mut s, aliased("", 1), Routed::Accepted), ["route long/name"]);
    assert_eq!(sends(&mut s, aliased("other", 1), Routed::Accepted), ["route other"]);
    assert_eq!(sends(&mut s, aliased("", 1), Routed::Accepted), ["route other"]);
    assert_eq!(violates(&mut s, aliased("x", 3)), Violation::TopicAliasInvalid, "above 2");
    s.open(&opening(&connect(Version::V5)).unwrap(), Timestamp(0));
    assert_eq!(violates(&mut s, aliased("", 1)), Violation::TopicAliasUnknown);
}

#[test]
fn packets_that_do_not_belong_end_the_connection() {
    // cases P8, P21, P25
    let mut s = session(Version::V5);
    let again = Packet::Connect(Box::new(connect(Version::V5)));
    assert_eq!(violates(&mut s, again), Violation::SecondConnect);
    assert_eq!(violates(&mut s, Packet::PingResp), Violation::ServerPacket);
    let auth = crate::mqtt::Auth { reason: ReasonCode::ReAuthenticate, properties: None };
    assert_eq!(violates(&mut s, Packet::Auth(auth)), Violation::UnexpectedAuth);
    let reason = ReasonCode::ServerShuttingDown;
    let disconnect = Packet::Disconnect(Disconnect { reason, properties: None });
    assert!(matches!(violates(&mut s, disconnect), Violation::Content(_)));
}

fn auth(reason: ReasonCode, method: &'static str, data: &'static str) -> Packet {
    let properties = crate::mqtt::AuthProperties {
        authentication_method: Some(method.into()),
        authentication_data: Some(data.into()),
        ..Default::default()
    };
    Packet::Auth(crate::mqtt::Auth { reason, properties: Some(Box::new(properties)) })
}

/// A client that has shown who it is by the method `M`.
fn authenticated() -> Session {
    let mut connect = connect(Version::V5);
    connect.properties.authentication_method = Some("M".into());
    Session::new(&opening(&connect).unwrap(), &LIMITS, Timestamp(0))
}

#[test]
fn a_client_shows_again_who_it_is() {
    // [MQTT-4.12.0-2], [MQTT-4.12.0-5], [MQTT-4.12.1-1]
    let mut s = authenticated();
    let judged = |s: &mut Session, verdict| {
        let mut actions = Actions::new();
        s.on_authenticated(verdict, &mut actions);
        lines(&mut actions)
    };
    for _twice in 0..2 {
        let first = auth(ReasonCode::ReAuthenticate, "M", "a");
        assert_eq!(sends(&mut s, first, Routed::Accepted), ["authenticate First a"]);
        let challenge = judged(&mut s, Judged::Continue("b".into()));
        assert_eq!(challenge, ["< AUTH ContinueAuthentication M b"]);
        // Messages keep flowing meanwhile.
        let message = Packet::Publish(publish(QoS::AtLeastOnce, 1));
        assert_eq!(sends(&mut s, message, Routed::Accepted), ["route t", "< PUBACK 1"]);
        let next = auth(ReasonCode::ContinueAuthentication, "M", "c");
        assert_eq!(sends(&mut s, next, Routed::Accepted), ["authenticate Next c"]);
        assert_eq!(judged(&mut s, Judged::Done("d".into())), ["< AUTH Success M d"]);
    }
}

#[test]
fn auth_out_of_turn_ends_the_connection() {
    // case P25
    let (again, next) = (ReasonCode::ReAuthenticate, ReasonCode::ContinueAuthentication);
    let mut s = authenticated();
    let other = auth(again, "N", "");
    assert_eq!(violates(&mut s, other), Violation::AuthenticationMethodChanged);
    let bare = crate::mqtt::Auth { reason: again, properties: None };
    assert_eq!(violates(&mut s, Packet::Auth(bare)), Violation::AuthenticationMethodChanged);
    assert_eq!(violates(&mut s, auth(next, "M", "")), Violation::AuthOutOfTurn);
    let success = auth(ReasonCode::Success, "M", "");
    assert!(matches!(violates(&mut s, success), Violation::Content(_)), "a server's to say");
    sends(&mut s, auth(again, "M", ""), Routed::Accepted);
    assert_eq!(violates(&mut s, auth(again, "M", "")), Violation::AuthOutOfTurn);
    assert_eq!(violates(&mut s, auth(next, "m", "")), Violation::AuthenticationMethodChanged);
    // A connection without a method knows none of an earlier one of the session.
    s.open(&opening(&connect(Version::V5)).unwrap(), Timestamp(0));
    assert_eq!(violates(&mut s, auth(next, "M", "")), Violation::UnexpectedAuth);
}

#[test]
fn requests_are_passed_on_and_pings_answered() {
    let mut s = session(Version::V311);
    assert_eq!(sends(&mut s, Packet::PingReq, Routed::Accepted), ["< PINGRESP"]);
    let options = SubscribeOptions::default();
    let filters = SmallVec::from_iter([SubscribeFilter { filter: "a/#".into(), options }]);
    let subscribe =
        Subscribe { packet_id: id(3), subscription_id: None, user: Vec::new(), filters };
    let transcript = sends(&mut s, Packet::Subscribe(subscribe), Routed::Accepted);
    assert_eq!(transcript, ["subscribe a/#"]);
}

#[test]
fn a_connect_is_judged_before_it_opens_anything() {
    // case P24, [MQTT-3.1.3-7], [MQTT-3.1.3-8]
    let empty = |version, clean_start| {
        opening(&Connect { client_id: "".into(), clean_start, ..connect(version) })
    };
    assert!(empty(Version::V31, true).is_err());
    assert!(empty(Version::V311, false).is_err());
    assert_eq!(empty(Version::V311, true).unwrap().client_id, "fresh");
    let assigned = empty(Version::V5, false).unwrap();
    assert!(assigned.assigned && assigned.client_id == "fresh");
    let long = Connect { client_id: "x".repeat(31).into(), ..connect(Version::V5) };
    assert_eq!(opening(&long).unwrap_err(), Violation::ClientIdTooLong);
    let will = Will { topic: "a/#".into(), ..will() };
    let wild = Connect { will: Some(will), ..connect(Version::V311) };
    assert!(matches!(opening(&wild).unwrap_err(), Violation::Content(_)));
}

#[test]
fn what_the_broker_changes_is_told_in_the_connack() {
    let mut asked = connect(Version::V5);
    asked.keep_alive_secs = 0;
    asked.properties.session_expiry_secs = 5000;
    asked.properties.receive_maximum = 1;
    let opening = opening(&asked).unwrap();
    assert_eq!((opening.window, opening.keep_alive_secs), (1, 100));
    let Packet::ConnAck(connack) = opening.accepted(false, &LIMITS, None) else {
        panic!("no CONNACK")
    };
    let properties = connack.properties.unwrap();
    assert_eq!(properties.session_expiry_secs, Some(1000));
    assert_eq!(properties.server_keep_alive_secs, Some(100), "[MQTT-3.1.2-21]");
    assert_eq!(properties.receive_maximum, Some(3));
    assert_eq!(properties.assigned_client_id, None);
}
