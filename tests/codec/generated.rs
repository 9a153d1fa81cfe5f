//! Packets made up at random: every type in every version survives encoding and decoding, and the
//! cached head of a PUBLISH is what the encoder writes.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use simcast::ids::{PacketId, Timestamp};
use simcast::mqtt::{
    Ack, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect,
    DisconnectProperties, Message, Packet, Publish, PublishHead, PublishProperties, QoS,
    ReasonCode, ReasonProperties, RetainHandling, Sender, SubAck, Subscribe, SubscribeFilter,
    SubscribeOptions, Unsubscribe, UserProperty, Version, Will, decode, encode, encoded_len,
    frame_len,
};

fn text() -> impl Strategy<Value = ByteString> {
    "[^\u{0}]{0,12}".prop_map(ByteString::from)
}

fn topic() -> impl Strategy<Value = ByteString> {
    "[a-z$é /]{1,20}".prop_map(ByteString::from)
}

fn filter() -> impl Strategy<Value = ByteString> {
    let levels = vec("[a-z$é]{0,4}|\\+", 1..6).prop_map(|levels| levels.join("/"));
    let open = (levels, any::<bool>())
        .prop_map(|(levels, open)| if open { format!("{levels}/#") } else { levels })
        .prop_filter("not empty", |filter| !filter.is_empty());
    let shared = ("[a-zé]{1,5}", "[a-z/]{1,9}").prop_map(|(g, f)| format!("$share/{g}/{f}"));
    prop_oneof![4 => open, 1 => shared, 1 => Just("#".to_owned())].prop_map(ByteString::from)
}

fn binary() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn user() -> impl Strategy<Value = Vec<UserProperty>> {
    vec((text(), text()), 0..3)
}

fn qos() -> impl Strategy<Value = QoS> {
    prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("not zero"))
}

/// A box where there is something in it: nothing is what the decoder makes of nothing.
fn boxed<T: Default + PartialEq>(properties: T) -> Option<Box<T>> {
    (properties != T::default()).then(|| Box::new(properties))
}

/// Nothing before version 5.
fn if_v5<T>(version: Version, value: Option<T>) -> Option<T> {
    value.filter(|_| version == Version::V5)
}

fn publish_properties() -> impl Strategy<Value = PublishProperties> {
    (of(any::<bool>()), of(any::<u32>()), of(topic()), of(binary()), of(text()), user()).prop_map(
        |(
            payload_is_utf8,
            message_expiry_secs,
            response_topic,
            correlation_data,
            content,
            user,
        )| {
            PublishProperties {
                payload_is_utf8,
                message_expiry_secs,
                response_topic,
                correlation_data,
                content_type: content,
                user,
                ..PublishProperties::default()
            }
        },
    )
}

fn publish(version: Version, from: Sender) -> impl Strategy<Value = Publish> {
    let ids = vec(1..=268_435_455u32, if from == Sender::Server { 0..4 } else { 0..1 });
    let properties =
        (publish_properties(), of(1..=u16::MAX), ids).prop_map(|(mut p, alias, ids)| {
            p.topic_alias = alias;
            p.subscription_ids = ids.into();
            p
        });
    (any::<[bool; 2]>(), qos(), topic(), packet_id(), properties, binary(), any::<bool>()).prop_map(
        move |([dup, retain], qos, topic, id, properties, payload, by_alias)| {
            let alone = by_alias && version == Version::V5 && properties.topic_alias.is_some();
            Publish {
                dup: dup && qos != QoS::AtMostOnce,
                qos,
                retain,
                topic: if alone { ByteString::new() } else { topic },
                packet_id: (qos != QoS::AtMostOnce).then_some(id),
                properties: if_v5(version, boxed(properties)),
                payload,
            }
        },
    )
}

fn will(version: Version) -> impl Strategy<Value = Will> {
    (qos(), any::<bool>(), any::<u32>(), text(), binary(), publish_properties()).prop_map(
        move |(qos, retain, delay, topic, payload, properties)| Will {
            qos,
            retain,
            delay_secs: if version == Version::V5 { delay } else { 0 },
            topic,
            payload,
            properties: if_v5(version, boxed(properties)),
        },
    )
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties> {
    let numbers = (any::<u32>(), 1..=u16::MAX, of(1..=u32::MAX), any::<u16>());
    (numbers, any::<[bool; 2]>(), of((text(), of(binary()))), user()).prop_map(
        |((expiry, receive, size, aliases), [response, problem], auth, user)| ConnectProperties {
            session_expiry_secs: expiry,
            receive_maximum: receive,
            maximum_packet_size: size,
            topic_alias_maximum: aliases,
            request_response_information: response,
            request_problem_information: problem,
            authentication_method: auth.as_ref().map(|(method, _)| method.clone()),
            authentication_data: auth.and_then(|(_, data)| data),
            user,
        },
    )
}

fn connect(version: Version) -> impl Strategy<Value = Connect> {
    let texts = (text(), of(text()), of(binary()));
    (any::<bool>(), any::<u16>(), texts, of(will(version)), of(connect_properties())).prop_map(
        move |(clean_start, keep_alive_secs, (client_id, username, password), will, properties)| {
            let lonely = username.is_none() && version != Version::V5;
            Connect {
                version,
                bridge: false,
                clean_start,
                keep_alive_secs,
                client_id,
                will,
                password: password.filter(|_| !lonely),
                username,
                properties: if_v5(version, properties).unwrap_or_default(),
            }
        },
    )
}

fn connack_properties() -> impl Strategy<Value = ConnAckProperties> {
    let low = prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce]);
    let numbers = (of(any::<u32>()), of(1..=u16::MAX), of(1..=u32::MAX), of(any::<u16>()));
    let texts = (of(text()), of(text()), of(text()), of(text()), of((text(), of(binary()))));
    (numbers, texts, of(low), any::<[Option<bool>; 4]>(), of(any::<u16>()), user()).prop_map(
        |(
            (expiry, receive, size, aliases),
            (id, why, info, server, auth),
            qos,
            can,
            alive,
            user,
        )| {
            let [retain, wildcard, ids, shared] = can;
            ConnAckProperties {
                session_expiry_secs: expiry,
                receive_maximum: receive,
                maximum_qos: qos,
                retain_available: retain,
                maximum_packet_size: size,
                assigned_client_id: id,
                topic_alias_maximum: aliases,
                reason_string: why,
                user,
                wildcard_subscription_available: wildcard,
                subscription_ids_available: ids,
                shared_subscription_available: shared,
                server_keep_alive_secs: alive,
                response_information: info,
                server_reference: server,
                authentication_method: auth.as_ref().map(|(method, _)| method.clone()),
                authentication_data: auth.and_then(|(_, data)| data),
            }
        },
    )
}

const REFUSALS: [ReasonCode; 5] = [
    ReasonCode::UnsupportedProtocolVersion,
    ReasonCode::ClientIdentifierNotValid,
    ReasonCode::ServerUnavailable,
    ReasonCode::BadUserNameOrPassword,
    ReasonCode::NotAuthorized,
];

fn connack(version: Version) -> impl Strategy<Value = ConnAck> {
    let reason = prop_oneof![Just(ReasonCode::Success), prop::sample::select(REFUSALS.to_vec())];
    (any::<bool>(), reason, connack_properties()).prop_map(move |(present, reason, properties)| {
        ConnAck {
            session_present: present && reason == ReasonCode::Success && version != Version::V31,
            reason,
            properties: if_v5(version, boxed(properties)),
        }
    })
}

fn reason_properties() -> impl Strategy<Value = ReasonProperties> {
    (of(text()), user()).prop_map(|(reason_string, user)| ReasonProperties { reason_string, user })
}

fn ack(version: Version, error: ReasonCode) -> impl Strategy<Value = Ack> {
    (packet_id(), any::<bool>(), reason_properties()).prop_map(
        move |(packet_id, ok, properties)| {
            let ok = ok || version != Version::V5;
            Ack {
                packet_id,
                reason: if ok { ReasonCode::Success } else { error },
                properties: if_v5(version, boxed(properties)),
            }
        },
    )
}

fn options(version: Version) -> impl Strategy<Value = SubscribeOptions> {
    let handling = vec![RetainHandling::Always, RetainHandling::IfNew, RetainHandling::Never];
    (qos(), any::<[bool; 2]>(), prop::sample::select(handling)).prop_map(
        move |(qos, [no_local, retain_as_published], retain_handling)| match version {
            Version::V5 => SubscribeOptions { qos, no_local, retain_as_published, retain_handling },
            Version::V31 | Version::V311 => SubscribeOptions { qos, ..SubscribeOptions::default() },
        },
    )
}

fn subscribe(version: Version) -> impl Strategy<Value = Subscribe> {
    let entry = (filter(), options(version)).prop_map(|(filter, mut options)| {
        options.no_local &= !filter.starts_with("$share/");
        SubscribeFilter { filter, options }
    });
    (packet_id(), of(1..=268_435_455u32), user(), vec(entry, 1..4)).prop_map(
        move |(packet_id, id, user, filters)| Subscribe {
            packet_id,
            subscription_id: if_v5(version, id),
            user: if_v5(version, Some(user)).unwrap_or_default(),
            filters: filters.into(),
        },
    )
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Unsubscribe> {
    (packet_id(), user(), vec(filter(), 1..4)).prop_map(move |(packet_id, user, filters)| {
        Unsubscribe {
            packet_id,
            user: if_v5(version, Some(user)).unwrap_or_default(),
            filters: filters.into(),
        }
    })
}

fn suback(version: Version, codes: &[ReasonCode]) -> impl Strategy<Value = SubAck> + use<> {
    let reasons = vec(prop::sample::select(codes.to_vec()), usize::from(codes.len() > 1)..5);
    (packet_id(), reason_properties(), reasons).prop_map(move |(packet_id, properties, reasons)| {
        SubAck { packet_id, properties: if_v5(version, boxed(properties)), reasons: reasons.into() }
    })
}

fn disconnect(version: Version) -> impl Strategy<Value = Disconnect> {
    let reason = prop::sample::select(vec![ReasonCode::Success, ReasonCode::ServerShuttingDown]);
    (reason, of(any::<u32>()), reason_properties(), of(text())).prop_map(
        move |(reason, session_expiry_secs, properties, server_reference)| Disconnect {
            reason: if_v5(version, Some(reason)).unwrap_or(ReasonCode::Success),
            properties: if_v5(
                version,
                boxed(DisconnectProperties {
                    session_expiry_secs,
                    reason_string: properties.reason_string,
                    user: properties.user,
                    server_reference,
                }),
            ),
        },
    )
}

fn auth() -> impl Strategy<Value = Auth> {
    let codes =
        [ReasonCode::Success, ReasonCode::ContinueAuthentication, ReasonCode::ReAuthenticate];
    let properties =
        (text(), of(binary()), reason_properties()).prop_map(|(method, data, rest)| {
            AuthProperties {
                authentication_method: Some(method),
                authentication_data: data,
                reason_string: rest.reason_string,
                user: rest.user,
            }
        });
    let full = (prop::sample::select(codes.to_vec()), properties)
        .prop_map(|(reason, p)| Auth { reason, properties: Some(Box::new(p)) });
    prop_oneof![4 => full, 1 => Just(Auth { reason: ReasonCode::Success, properties: None })]
}

fn acks(version: Version) -> BoxedStrategy<Packet> {
    prop_oneof![
        ack(version, ReasonCode::QuotaExceeded).prop_map(Packet::PubAck),
        ack(version, ReasonCode::NoMatchingSubscribers).prop_map(Packet::PubRec),
        ack(version, ReasonCode::PacketIdentifierNotFound).prop_map(Packet::PubRel),
        ack(version, ReasonCode::PacketIdentifierNotFound).prop_map(Packet::PubComp),
    ]
    .boxed()
}

fn of_client(version: Version) -> BoxedStrategy<Packet> {
    prop_oneof![
        connect(version).prop_map(|packet| Packet::Connect(Box::new(packet))),
        publish(version, Sender::Client).prop_map(Packet::Publish),
        acks(version),
        subscribe(version).prop_map(Packet::Subscribe),
        unsubscribe(version).prop_map(Packet::Unsubscribe),
        disconnect(version).prop_map(Packet::Disconnect),
        Just(Packet::PingReq),
    ]
    .boxed()
}

fn of_server(version: Version) -> BoxedStrategy<Packet> {
    use ReasonCode as R;
    let (subscribed, unsubscribed) = match version {
        Version::V31 | Version::V311 => {
            (vec![R::Success, R::GrantedQoS2, R::UnspecifiedError], None)
        }
        Version::V5 => {
            let unsubscribed = vec![R::Success, R::NoSubscriptionExisted, R::NotAuthorized];
            (vec![R::GrantedQoS1, R::NotAuthorized, R::QuotaExceeded], Some(unsubscribed))
        }
    };
    let unsuback = match unsubscribed {
        Some(codes) => suback(version, &codes).boxed(),
        None => packet_id()
            .prop_map(|packet_id| SubAck {
                packet_id,
                properties: None,
                reasons: Vec::new().into(),
            })
            .boxed(),
    };
    prop_oneof![
        connack(version).prop_map(|packet| Packet::ConnAck(Box::new(packet))),
        publish(version, Sender::Server).prop_map(Packet::Publish),
        acks(version),
        suback(version, &subscribed).prop_map(Packet::SubAck),
        unsuback.prop_map(Packet::UnsubAck),
        Just(Packet::PingResp),
    ]
    .boxed()
}

fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(vec![Version::V31, Version::V311, Version::V5])
}

/// A packet of any type with its version and sender.
pub(crate) fn any_packet() -> impl Strategy<Value = (Version, Sender, Packet)> {
    let from = prop::sample::select(vec![Sender::Client, Sender::Server]);
    (version(), from).prop_flat_map(|(version, from)| {
        let packets = match from {
            Sender::Client => of_client(version),
            Sender::Server => of_server(version),
        };
        let packets = match version {
            Version::V31 | Version::V311 => packets,
            Version::V5 => prop_oneof![8 => packets, 1 => auth().prop_map(Packet::Auth)].boxed(),
        };
        packets.prop_map(move |packet| (version, from, packet))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_survives_the_wire((version, from, packet) in any_packet()) {
        let mut out = BytesMut::new();
        encode(&packet, version, &mut out);
        prop_assert_eq!(out.len(), encoded_len(&packet, version));
        prop_assert_eq!(frame_len(&out), Ok(Some(out.len())));
        prop_assert_eq!(decode(out.freeze(), version, from), Ok(packet));
    }

    #[test]
    fn a_patched_head_is_what_the_encoder_writes(
        (version, packet) in version().prop_flat_map(|version| {
            publish(version, Sender::Server).prop_map(move |packet| (version, packet))
        })
    ) {
        let properties = packet.properties.as_deref();
        let with_id = packet.packet_id.is_some();
        let len = packet.payload.len();
        let head = PublishHead::new(version, with_id, &packet.topic, properties, len);
        let mut out = BytesMut::from(&b"what was there before"[..]);
        let before = out.len();
        head.write(packet.dup, packet.qos, packet.retain, packet.packet_id, &mut out);
        prop_assert_eq!(out.len(), before + head.len());
        out.extend_from_slice(&packet.payload);
        prop_assert_eq!(out.len(), before + head.frame_len());
        let mut encoded = BytesMut::from(&b"what was there before"[..]);
        encode(&Packet::Publish(packet), version, &mut encoded);
        prop_assert_eq!(out, encoded);
    }

    #[test]
    fn a_message_keeps_a_head_for_each_layout(packet in publish(Version::V5, Sender::Client)) {
        let (topic, payload) = (packet.topic.clone(), packet.payload.clone());
        let properties = packet.properties.clone();
        let never = Timestamp::NEVER;
        let message = Message::new(topic, payload, packet.qos, packet.retain, properties, never);
        for version in [Version::V31, Version::V311, Version::V5] {
            for (id, qos) in [(None, QoS::AtMostOnce), (PacketId::new(7), QoS::ExactlyOnce)] {
                let head = message.head(version, id.is_some());
                let mut out = BytesMut::new();
                head.write(false, qos, packet.retain, id, &mut out);
                out.extend_from_slice(&message.payload);
                let copy = Publish { dup: false, qos, packet_id: id, ..packet.clone() };
                let mut encoded = BytesMut::new();
                encode(&Packet::Publish(copy), version, &mut encoded);
                prop_assert_eq!(out, encoded);
                prop_assert!(std::ptr::eq(head, message.head(version, id.is_some())));
            }
        }
    }
}
