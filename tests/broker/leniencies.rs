//! `[mqtt]`: the choices of a server and what is overlooked in old devices, each both ways.

use simcast::config::{Config, KeepOrRefuse, Overlapping, WarnOrDisconnect};
use simcast::ids::PacketId;
use simcast::mqtt::{
    Packet, Publish, PublishProperties, QoS, ReasonCode, SubscribeOptions, Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{Denied, Dial, Rig, in_time};
use crate::{ONE, listener, options};

/// What a broker answers to the bytes of a CONNECT.
async fn connack(rig: &Rig, connect: &[u8]) -> Option<[u8; 4]> {
    let mut socket = rig.tcp(rig.plain).await;
    socket.write_all(connect).await.unwrap();
    let mut answer = [0; 4];
    in_time("an answer", socket.read_exact(&mut answer)).await.ok().map(|_| answer)
}

/// A 3.x CONNECT with client id `a` and clean session.
fn connect(name: &str, level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![0, u8::try_from(name.len()).unwrap()];
    body.extend(name.bytes());
    body.extend([level, flags | 2, 0, 60, 0, 1, b'a']);
    body.extend(rest);
    [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

const LET_IN: Option<[u8; 4]> = Some([0x20, 2, 0, 0]);

async fn rig(change: impl FnOnce(&mut simcast::config::Mqtt)) -> Rig {
    Rig::with(|config: &mut Config| change(&mut config.mqtt)).await
}

#[tokio::test]
async fn what_old_connects_get_wrong_is_overlooked_where_it_is_said_so() {
    // case P22
    let bridge_311 = connect("MQTT", 0x84, 0, &[]);
    let bridge_31 = connect("MQIsdp", 0x83, 0, &[]);
    let password_alone = connect("MQTT", 4, 0x40, &[0, 1, b'p']);
    let nothing_there = connect("MQIsdp", 3, 0xC0, &[]);
    let strict = rig(|mqtt| mqtt.bridge_protocol_bit = false).await;
    for bridge in [&bridge_311, &bridge_31] {
        let refused = connack(&strict, bridge).await.map(|answer| answer[3]);
        assert_ne!(refused, Some(0), "unacceptable protocol version");
    }
    assert_eq!(connack(&strict, &password_alone).await, None, "[MQTT-3.1.2-22]");
    assert_eq!(connack(&strict, &nothing_there).await, None);
    let lenient = rig(|mqtt| {
        mqtt.password_without_user_name = true;
        mqtt.missing_user_name = true;
    })
    .await;
    for overlooked in [&bridge_311, &bridge_31, &password_alone, &nothing_there] {
        assert_eq!(connack(&lenient, overlooked).await, LET_IN);
    }
    // 3.1.1 may not leave out what it announces, and a bridge of version 5 needs no bit.
    assert_eq!(connack(&lenient, &connect("MQTT", 4, 0x80, &[])).await, None);
    let refused = connack(&lenient, &connect("MQTT", 0x85, 0, &[])).await;
    assert_ne!(refused.map(|answer| answer[3]), Some(0));
}

#[tokio::test]
async fn a_bridge_keeps_retain_flags_and_gets_nothing_back() {
    let rig = Rig::start().await;
    let mut dial = Dial::v311("bridge");
    dial.0.bridge = true;
    let mut bridge = listener(&rig, dial, "#").await;
    let mut other = listener(&rig, Dial::v311("other"), "#").await;
    bridge.publish("t", "from the bridge", ONE).await;
    assert_eq!(other.expect_payload().await, "from the bridge");
    other.retain("t", "to keep").await;
    let kept = bridge.expect_publish().await;
    assert!(kept.retain && kept.payload == "to keep");
    assert!(!other.expect_publish().await.retain, "[MQTT-3.3.1-9]");
}

#[tokio::test]
async fn an_empty_client_id_is_assigned_or_refused() {
    // case P24
    let lenient = rig(|mqtt| mqtt.assigned_client_id_prefix = "meter-".to_owned()).await;
    let client = lenient.client(Dial::v5("")).await;
    let id = client.connack.properties.as_ref().unwrap().assigned_client_id.clone();
    assert!(id.is_some_and(|id| id.starts_with("meter-")));
    lenient.client(Dial::v311("")).await;
    let strict = rig(|mqtt| mqtt.empty_client_id = false).await;
    let refused = Denied::ConnAck(ReasonCode::ClientIdentifierNotValid);
    for version in [Version::V31, Version::V311, Version::V5] {
        let denied = strict.try_client(Dial::new(version, "")).await.err();
        assert_eq!(denied, Some(refused.clone()));
    }
}

#[tokio::test]
async fn a_keep_alive_of_old_clients_is_kept_or_refused() {
    // case Q11
    for (rule, accepted) in [(KeepOrRefuse::Keep, true), (KeepOrRefuse::Refuse, false)] {
        let rig = Rig::with(|config| {
            config.limits.max_keepalive = std::time::Duration::from_secs(60);
            config.mqtt.keepalive_exceeded = rule;
        })
        .await;
        for (secs, within) in [(0, false), (60, true), (61, false), (65_535, false)] {
            let dial = Dial::v311("c").keep_alive_secs(secs);
            let result = rig.try_client(dial).await.map(|_| ());
            let refused = Err(Denied::ConnAck(ReasonCode::ClientIdentifierNotValid));
            assert_eq!(result, if within || accepted { Ok(()) } else { refused }, "{secs} s");
            let dial = Dial::v5("c").keep_alive_secs(secs);
            let client = rig.client(dial).await;
            let told = client.connack.properties.as_ref().unwrap().server_keep_alive_secs;
            assert_eq!(told, (!within).then_some(60), "[MQTT-3.1.2-21]");
        }
    }
}

#[tokio::test]
async fn the_receive_maximum_binds_version_5_unless_told_otherwise() {
    // case D7
    for (rule, version, bound) in [
        (WarnOrDisconnect::Disconnect, Version::V5, true),
        (WarnOrDisconnect::Disconnect, Version::V311, false),
        (WarnOrDisconnect::Warn, Version::V5, false),
    ] {
        let rig = Rig::with(|config| {
            config.limits.receive_maximum = 2;
            config.mqtt.receive_maximum_exceeded = rule;
        })
        .await;
        let mut client = rig.client(Dial::new(version, "c")).await;
        for number in 1..=3 {
            let packet_id = PacketId::new(number);
            client
                .send(&Packet::Publish(Publish {
                    dup: false,
                    qos: QoS::ExactlyOnce,
                    retain: false,
                    topic: "t".into(),
                    packet_id,
                    properties: None,
                    payload: "x".into(),
                }))
                .await;
        }
        if bound {
            assert_eq!(client.expect_goodbye().await, ReasonCode::ReceiveMaximumExceeded);
        } else {
            client.ping().await;
        }
    }
}

#[tokio::test]
async fn without_retained_messages_nobody_leaves_one() {
    let rig = rig(|mqtt| mqtt.retain = false).await;
    let mut client = rig.client(Dial::v5("c")).await;
    assert_eq!(client.connack.properties.as_ref().unwrap().retain_available, Some(false));
    client.send(&retained()).await;
    assert_eq!(client.expect_goodbye().await, ReasonCode::RetainNotSupported, "[MQTT-3.2.2-14]");
    let mut old = rig.client(Dial::v311("c")).await;
    old.send(&retained()).await;
    assert!(old.expect_closed().await.is_none());
    let with_will = Dial::v5("c").will("t", "x").will_retained();
    let denied = rig.try_client(with_will).await.err();
    let expected = Denied::ConnAck(ReasonCode::RetainNotSupported);
    assert_eq!(denied, Some(expected), "[MQTT-3.2.2-13]");
}

fn retained() -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: true,
        topic: "t".into(),
        packet_id: None,
        properties: None,
        payload: "x".into(),
    })
}

#[tokio::test]
async fn payloads_are_looked_at_where_it_is_said_so() {
    for checked in [true, false] {
        let rig = rig(|mqtt| mqtt.check_payload_format = checked).await;
        let mut listener = listener(&rig, Dial::v5("l"), "t").await;
        let mut client = rig.client(Dial::v5("c")).await;
        let text =
            Some(PublishProperties { payload_is_utf8: Some(true), ..PublishProperties::default() });
        for qos in [ONE, QoS::ExactlyOnce] {
            let answer = client.publish_with("t", [0xFF], qos, false, text.clone()).await;
            let refused = answer.reason == ReasonCode::PayloadFormatInvalid;
            assert_eq!(refused, checked);
        }
        client.publish_with("t", "good", ONE, false, text.clone()).await;
        let arrived = listener.arrived().await;
        assert_eq!(arrived.len(), if checked { 1 } else { 3 });
        let mut dial = Dial::v5("w").will("t", vec![0xFF]);
        dial.0.will.iter_mut().for_each(|will| will.properties = text.clone().map(Box::new));
        let denied = rig.try_client(dial).await.err();
        let expected = checked.then_some(Denied::ConnAck(ReasonCode::PayloadFormatInvalid));
        assert_eq!(denied, expected);
    }
}

#[tokio::test]
async fn who_asks_is_told_where_its_answers_go() {
    // [MQTT-3.1.2-28]
    let rig = rig(|mqtt| mqtt.response_information = "answers/%c/".to_owned()).await;
    let mut dial = Dial::v5("c");
    let silent = rig.client(dial.clone()).await;
    assert_eq!(silent.connack.properties.unwrap().response_information, None);
    dial.0.properties.request_response_information = true;
    let asking = rig.client(dial).await;
    let told = asking.connack.properties.unwrap().response_information;
    assert_eq!(told.as_deref(), Some("answers/c/"));
}

#[tokio::test]
async fn overlapping_subscriptions_can_be_a_message_each() {
    // case Q15
    let rig = rig(|mqtt| mqtt.overlapping = Overlapping::Each).await;
    let mut client = rig.client(Dial::v5("c")).await;
    for (filter, id) in [("a/b", 1), ("a/+", 2)] {
        let plain: SubscribeOptions = options(ONE);
        client.subscribe_with(&[(filter, plain)], Some(id)).await;
    }
    client.publish("a/b", "x", ONE).await;
    let arrived = client.arrived().await;
    let mut ids: Vec<u32> = arrived
        .iter()
        .flat_map(|publish| publish.properties.as_ref().unwrap().subscription_ids.to_vec())
        .collect();
    ids.sort_unstable();
    assert_eq!((arrived.len(), ids), (2, vec![1, 2]));
}
