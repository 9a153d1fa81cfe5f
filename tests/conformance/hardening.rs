//! Clumsy and hostile peers at the socket: cases that are about packets in general, not about one
//! statement.

use simcast::mqtt::{Packet, PublishProperties, QoS, ReasonCode, Version};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::client::success;
use crate::common::{Dial, Rig, in_time};
use crate::{
    ONE, QOS, TWO, VERSIONS, answer, connect, field, frame, id, listener, message, options,
};

/// What a broker says to these bytes when their sender says no more.
async fn answer_to(address: std::net::SocketAddr, bytes: Vec<u8>) -> Vec<u8> {
    use tokio::io::AsyncReadExt;
    let mut socket = TcpStream::connect(address).await.unwrap();
    let _taken_or_not = socket.write_all(&bytes).await;
    let _ended_or_not = socket.shutdown().await;
    let mut said = Vec::new();
    let _ended_or_reset = in_time("the end", socket.read_to_end(&mut said)).await;
    said
}

#[tokio::test]
async fn no_first_packet_of_six_bytes_gets_an_answer() {
    // case P1: every type with every length that six bytes can hold or announce
    let rig = Rig::start().await;
    let mut asking = tokio::task::JoinSet::new();
    for first in 0..=255u8 {
        for (length, fill) in [(0, 0), (1, 0xFF), (2, 0), (4, 1), (4, 0xFF), (127, 0)] {
            let mut bytes = vec![first, length];
            bytes.resize(2 + usize::from(length.min(4)), fill);
            let asked = answer_to(rig.plain, bytes.clone());
            asking.spawn(async move { (asked.await, bytes) });
        }
        while asking.len() > 64 {
            let (said, bytes) = asking.join_next().await.unwrap().unwrap();
            assert!(said.is_empty(), "{bytes:02x?}: {said:02x?}");
        }
    }
    for (said, bytes) in in_time("the rest", asking.join_all()).await {
        assert!(said.is_empty(), "{bytes:02x?}: {said:02x?}");
    }
    rig.client(Dial::v5("c")).await.ping().await;
}

#[tokio::test]
async fn a_large_announcement_buys_no_room() {
    // case P3
    let rig = Rig::start().await;
    for bytes in [&b"\x10\xff\xff\xff\x7f\0"[..], b"\x30\xff\xff\xff\x7f\0", b"\x10\x80\x80\x10\0"]
    {
        let mut socket = rig.tcp(rig.plain).await;
        socket.write_all(bytes).await.unwrap();
        let mut said = Vec::new();
        use tokio::io::AsyncReadExt;
        // Refused by its length; the rest is not waited for.
        let _ended_or_reset = in_time("the end", socket.read_to_end(&mut said)).await;
        assert!(said.is_empty(), "{said:02x?}");
    }
}

#[tokio::test]
async fn a_packet_cut_anywhere_waits_and_a_body_cut_anywhere_ends_the_connection() {
    // case P4, case P5
    let rig = Rig::start().await;
    for version in VERSIONS {
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let body = [&[0, 1], properties, &field(b"a/b"), &[1]].concat();
        let whole = frame(0x82, &body);
        for cut in 1..whole.len() {
            let mut client = rig.client(Dial::new(version, "c")).await;
            client.send_raw(&whole[..cut]).await;
            client.send_raw(&whole[cut..]).await;
            assert!(matches!(answer(&mut client).await, Packet::SubAck(_)), "{cut}");
            client.disconnect().await;
        }
        for cut in 0..body.len() {
            let mut client = rig.client(Dial::new(version, "c")).await;
            client.send_raw(&frame(0x82, &body[..cut])).await;
            client.expect_closed().await;
        }
        for extra in [1, 2, 64] {
            let long = [&body[..], &vec![0; extra]].concat();
            let mut client = rig.client(Dial::new(version, "c")).await;
            client.send_raw(&frame(0x82, &long)).await;
            client.expect_closed().await;
        }
    }
}

#[tokio::test]
async fn values_of_zero_that_are_errors() {
    // case P12
    let rig = Rig::start().await;
    let properties: [&[u8]; 4] = [
        b"\x21\0\0",             // Receive Maximum
        b"\x27\0\0\0\0",         // Maximum Packet Size
        b"\x21\0\x01\x21\0\x01", // twice
        b"\x19\x02",             // neither 0 nor 1
    ];
    for property in properties {
        let head = [&field(b"MQTT")[..], &[5, 2, 0, 0, property.len() as u8], property].concat();
        let said = crate::last_words(&rig, &frame(0x10, &[head, field(b"c")].concat())).await;
        assert!(crate::is_refusal(Version::V5, &said), "{property:02x?}: {said:02x?}");
    }
    let zero = b"\x82\x09\0\x01\x02\x0b\0\0\x01t\x01";
    crate::ends(&rig, Version::V5, zero, ReasonCode::ProtocolError).await;
}

#[tokio::test]
async fn ten_thousand_filters_in_one_packet_have_ten_thousand_answers() {
    // case P20
    let rig = Rig::with(|config| config.limits.max_subscriptions = 100).await;
    let mut client = rig.client(Dial::v5("c")).await;
    let names: Vec<String> = (0..10_000).map(|number| format!("t/{number}")).collect();
    let filters: Vec<_> = names.iter().map(|name| (&**name, options(ONE))).collect();
    let reasons = client.subscribe_with(&filters, None).await.reasons;
    assert_eq!(reasons.len(), 10_000);
    assert!(reasons[..100].iter().all(|reason| *reason == ReasonCode::GrantedQoS1));
    assert!(reasons[100..].iter().all(|reason| *reason == ReasonCode::QuotaExceeded));
    // The last filter has no options.
    let body = [&[0, 9, 0][..], &field(b"a"), &[0], &field(b"b")].concat();
    client.send_raw(&frame(0x82, &body)).await;
    assert_eq!(client.expect_goodbye().await, ReasonCode::MalformedPacket);
}

#[tokio::test]
async fn a_client_need_not_wait_for_its_connack() {
    // case P21
    let rig = Rig::start().await;
    let mut watcher = listener(&rig, Dial::v5("watcher"), "t", ONE).await;
    for version in VERSIONS {
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let publish = frame(0x30, &[&field(b"t"), properties, b"at once"].concat());
        let bytes = [connect(version, 2, &field(b"c")), publish, vec![0xE0, 0]].concat();
        let said = crate::last_words(&rig, &bytes).await;
        assert_eq!((said[0], said[3]), (0x20, 0), "{said:02x?}");
        assert_eq!(watcher.expect_payload().await, "at once");
    }
}

#[tokio::test]
async fn a_will_as_large_as_a_field_can_be() {
    // case P23
    let rig = Rig::start().await;
    let mut heir = listener(&rig, Dial::v5("heir"), "will", ONE).await;
    for version in VERSIONS {
        let dial = Dial::new(version, "w").will("will", "x".repeat(65_535));
        rig.client(dial).await.vanish().await;
        assert_eq!(heir.expect_publish().await.payload.len(), 65_535);
    }
    // Will Properties that end in the midst of a value, or beyond the packet.
    for properties in [&b"\x05\x18\0\0\0"[..], b"\x7f\x18\0\0\0\0", b"\x02\x18\0"] {
        let payload = [&field(b"c")[..], properties].concat();
        let said = crate::last_words(&rig, &connect(Version::V5, 0x06, &payload)).await;
        assert!(crate::is_refusal(Version::V5, &said), "{properties:02x?}: {said:02x?}");
    }
}

#[tokio::test]
async fn a_shared_subscription_and_an_ordinary_one_never_meet() {
    // case P27
    let rig = Rig::start().await;
    let mut client = rig.client(Dial::v5("c")).await;
    let request = |first: u8, filter: &[u8], options: &[u8]| {
        frame(first, &[&[0, 1, 0], &field(filter)[..], options].concat())
    };
    let mut bytes = Vec::new();
    for (taken, given_up) in [(&b"t"[..], &b"$share/g/t"[..]), (b"$share/g/t", b"t")] {
        bytes.extend(request(0x82, taken, &[1]));
        bytes.extend(request(0xA2, given_up, &[]));
        bytes.extend(request(0xA2, taken, &[]));
    }
    const AT_ONCE: usize = 250;
    let bytes = bytes.repeat(AT_ONCE);
    // 10⁵ times one and the other.
    for _ in 0..100_000 / AT_ONCE / 2 {
        client.send_raw(&bytes).await;
        for _ in 0..AT_ONCE * 2 {
            assert!(matches!(answer(&mut client).await, Packet::SubAck(_)));
            let Packet::UnsubAck(other) = answer(&mut client).await else { panic!() };
            assert_eq!(other.reasons[0], ReasonCode::NoSubscriptionExisted);
            let Packet::UnsubAck(own) = answer(&mut client).await else { panic!() };
            assert_eq!(own.reasons[0], ReasonCode::Success);
        }
    }
    assert_eq!(rig.counter("simcast_subscriptions ").await, 0);
}

#[tokio::test]
async fn a_window_of_one_brings_ten_thousand_messages_in_order() {
    // case Q17
    let rig = Rig::start().await;
    let mut slow = listener(&rig, Dial::v5("s").receive_maximum(1), "t", TWO).await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    let mut number = 0;
    while number < 10_000 {
        // As many as its queue has room for.
        let batch: Vec<usize> = (number..number + 500).collect();
        for number in &batch {
            let qos = QOS[number % 3];
            let mut publish = message("t", "", qos, 1 + (number % 60_000) as u16);
            publish.payload = number.to_string().into();
            publisher.send(&Packet::Publish(publish)).await;
            if qos == TWO {
                let release = id(1 + (number % 60_000) as u16);
                publisher.send(&Packet::PubRel(success(release))).await;
            }
        }
        publisher.ping().await;
        for number in batch {
            assert_eq!(slow.expect_payload().await, number.to_string());
        }
        number += 500;
    }
}

#[tokio::test]
async fn thousands_under_way_are_resumed_with_their_ids() {
    // case Q2
    const COUNT: u16 = u16::MAX;
    let rig = Rig::with(|config| {
        config.limits.max_inflight = COUNT;
        config.limits.max_queued_messages = 100_000;
        config.limits.max_queued_bytes = 64 << 20;
    })
    .await;
    let dial = Dial::v5("s").persistent();
    let mut subscriber = listener(&rig, dial.clone(), "t", ONE).await;
    subscriber.auto_ack = false;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for number in 0..u32::from(COUNT) + 100 {
        let mut publish = message("t", "", ONE, 1);
        publish.payload = number.to_string().into();
        publisher.send(&Packet::Publish(publish)).await;
    }
    publisher.ping().await;
    let mut ids = Vec::new();
    for _ in 0..COUNT {
        ids.push(subscriber.expect_publish().await.packet_id.unwrap());
    }
    subscriber.vanish().await;
    let mut back = rig.client(dial).await;
    for (number, was) in ids.iter().enumerate() {
        let again = back.expect_publish().await;
        assert_eq!((again.dup, again.packet_id), (true, Some(*was)));
        assert_eq!(again.payload, number.to_string());
    }
    for number in u32::from(COUNT)..u32::from(COUNT) + 100 {
        let new = back.expect_publish().await;
        assert_eq!((new.dup, &*new.payload), (false, number.to_string().as_bytes()));
    }
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
}

#[tokio::test]
async fn a_full_queue_is_the_same_for_who_is_there_and_who_is_not() {
    // case Q20
    let rig = Rig::with(|config| {
        config.limits.max_queued_messages = 8;
        config.limits.max_inflight = 1;
    })
    .await;
    let mut publisher = rig.client(Dial::v5("p")).await;
    for number in 0..20 {
        publisher.retain(&format!("kept/{number}"), "x").await;
    }
    for away in [true, false] {
        let before = rig.counter("simcast_messages_dropped_total{").await;
        let dial = Dial::v5("s").persistent();
        let mut subscriber = listener(&rig, dial.clone(), "t", ONE).await;
        subscriber.auto_ack = false;
        // One is under way in both cases; eight wait, and the last three are dropped.
        for number in 0..12 {
            publisher.publish("t", number.to_string(), ONE).await;
            if number == 0 {
                subscriber.barrier().await;
                if away {
                    subscriber.half_close().await;
                    rig.until_counter("simcast_sessions{state=\"away\"}", 1).await;
                }
            }
        }
        let mut back = rig.client(dial.clone()).await;
        let expected: Vec<String> = (0..9).map(|number| number.to_string()).collect();
        assert_eq!(back.expect_payloads(9).await, expected, "away: {away}");
        let dropped = rig.counter("simcast_messages_dropped_total{").await - before;
        assert_eq!(dropped, 3, "away: {away}");
        // More retained messages than the queue has room for are no drops.
        back.subscribe("kept/#", QoS::AtMostOnce).await;
        for _ in 0..20 {
            assert!(back.expect_publish().await.retain);
        }
        assert_eq!(rig.counter("simcast_messages_dropped_total{").await - before, 3);
        rig.client(dial.clean()).await.disconnect().await;
    }
}

#[tokio::test]
async fn a_message_crosses_the_versions_with_its_payload_whatever_it_holds() {
    // case Q24
    let rig = Rig::start().await;
    let payloads = [vec![], vec![0], vec![0xFF; 3], (0..=255).collect(), vec![b'x'; 70_000]];
    for from in [Version::V31, Version::V311, Version::V5] {
        for to in [Version::V31, Version::V311, Version::V5] {
            let mut subscriber = listener(&rig, Dial::new(to, "s"), "t", TWO).await;
            let mut publisher = rig.client(Dial::new(from, "p")).await;
            for payload in &payloads {
                for qos in QOS {
                    let properties = (from == Version::V5).then(PublishProperties::default);
                    publisher.publish_with("t", payload, qos, false, properties).await;
                    let publish = subscriber.expect_publish().await;
                    assert_eq!((&publish.payload[..], publish.qos), (&payload[..], qos));
                }
            }
        }
    }
}
