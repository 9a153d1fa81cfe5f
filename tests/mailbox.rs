//! Mail belongs to the device (section 5): it survives absence, clean sessions, lost connections
//! and take-overs, in order and once. The same for the servers' side.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use common::{Client, Dial, Rig, TO_EUICC, TO_SM_SR, envelope, envelope_with, gid, kind_of, nid};
use simcast::mqtt::{Packet, PublishProperties, QoS, ReasonCode, Version};

const ONE: QoS = QoS::AtLeastOnce;
const TWO: QoS = QoS::ExactlyOnce;

/// A B1 to this device that can be told from others.
fn letter(device: u128, number: usize) -> String {
    envelope_with(device, 0, "msg", &format!(r#""body":{number}"#))
}

/// A C1 to this group that can be told from others.
fn circular(gid: u64, number: usize) -> String {
    envelope_with(0, gid, "msg", &format!(r#""body":{number}"#))
}

async fn post(server: &mut Client, payload: &str) {
    let answer = server.publish(TO_EUICC, payload, ONE).await;
    assert!(answer.is_ok(), "{answer:?}");
}

async fn working_server(rig: &Rig) -> Client {
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    server.subscribe(TO_SM_SR, ONE).await;
    server
}

#[tokio::test]
async fn a_device_that_was_never_seen_gets_its_mail_when_it_is_switched_on() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    post(&mut server, &letter(10, 1)).await;
    post(&mut server, &circular(9, 2)).await;
    server.publish(TO_EUICC, letter(10, 3), QoS::AtMostOnce).await;
    let mut device = rig.reader(10, Dial::v311("first light")).await;
    let expected = [letter(10, 1), circular(9, 2), letter(10, 3)];
    assert_eq!(device.expect_payloads(3).await, expected);
    device.expect_nothing().await;
}

#[tokio::test]
async fn mail_survives_clean_sessions() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    for version in [Version::V311, Version::V5] {
        for round in 0..3 {
            let dial = Dial::new(version, "d");
            let device = rig.reader(1, dial.clone()).await;
            assert!(!device.session_present());
            device.disconnect().await;
            post(&mut server, &letter(1, round)).await;
            let mut device = rig.reader(1, dial).await;
            assert_eq!(device.expect_payload().await, letter(1, round));
            device.expect_nothing().await;
            device.disconnect().await;
        }
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_and_what_was_does_not() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let mut device = rig.reader(1, Dial::v5("d")).await;
    device.auto_ack = false;
    for number in 0..3 {
        post(&mut server, &letter(1, number)).await;
    }
    let first = device.expect_publish().await;
    let second = device.expect_publish().await;
    assert_eq!([&first.payload, &second.payload], [&letter(1, 0), &letter(1, 1)]);
    // Out of order, and the third was sent and perhaps never read.
    device.acknowledge(&second).await;
    device.vanish().await;
    let mut device = rig.reader(1, Dial::v5("d")).await;
    assert_eq!(device.expect_payloads(2).await, [letter(1, 0), letter(1, 2)]);
    device.expect_nothing().await;
}

#[tokio::test]
async fn with_qos_2_pubrec_decides() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let mut device = rig.device(1, Dial::v5("d")).await;
    device.subscribe(TO_EUICC, TWO).await;
    device.auto_ack = false;
    server.publish(TO_EUICC, letter(1, 0), TWO).await;
    server.publish(TO_EUICC, letter(1, 1), TWO).await;
    let received = device.expect_publish().await;
    assert_eq!((received.qos, received.payload), (TWO, letter(1, 0).into()));
    let ack = common::client::success(received.packet_id.unwrap());
    device.send(&Packet::PubRec(ack)).await;
    // No PUBCOMP is waited for: the message is the device's already.
    device.vanish().await;
    let mut device = rig.reader(1, Dial::v5("d")).await;
    assert_eq!(device.expect_payload().await, letter(1, 1));
    device.expect_nothing().await;
}

#[tokio::test]
async fn with_qos_0_the_socket_decides() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let mut device = rig.device(1, Dial::v5("d")).await;
    device.subscribe(TO_EUICC, QoS::AtMostOnce).await;
    post(&mut server, &letter(1, 0)).await;
    assert_eq!(device.expect_publish().await.qos, QoS::AtMostOnce);
    device.barrier().await;
    device.vanish().await;
    let mut device = rig.reader(1, Dial::v5("d")).await;
    device.expect_nothing().await;
    assert_eq!(rig.counter("simcast_rsp_mail_messages ").await, 0);
}

#[tokio::test]
async fn a_resumed_session_gets_the_same_packet_again_with_dup() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    for version in [Version::V311, Version::V5] {
        let dial = Dial::new(version, &format!("{version:?}")).persistent();
        let mut device = rig.reader(1, dial.clone()).await;
        device.auto_ack = false;
        post(&mut server, &letter(1, 0)).await;
        let before = device.expect_publish().await;
        assert!(!before.dup);
        device.vanish().await;
        // What comes meanwhile follows what was under way.
        post(&mut server, &letter(1, 1)).await;
        let mut device = rig.device(1, dial.clone()).await;
        assert!(device.session_present());
        let again = device.expect_publish().await;
        assert!(again.dup, "[MQTT-3.3.1-1]");
        assert_eq!((again.packet_id, &again.payload), (before.packet_id, &before.payload));
        assert_eq!(device.expect_payload().await, letter(1, 1));
        device.expect_nothing().await;
        device.disconnect().await;
        let mut device = rig.device(1, dial.clone()).await;
        device.expect_nothing().await;
        // The session must not be the reader of the next round.
        device.unsubscribe(TO_EUICC).await;
    }
}

#[tokio::test]
async fn a_released_message_is_finished_in_the_resumed_session() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let dial = Dial::v5("d").persistent();
    let mut device = rig.device(1, dial.clone()).await;
    device.subscribe(TO_EUICC, TWO).await;
    device.auto_ack = false;
    server.publish(TO_EUICC, letter(1, 0), TWO).await;
    let received = device.expect_publish().await;
    let id = received.packet_id.unwrap();
    device.send(&Packet::PubRec(common::client::success(id))).await;
    device.vanish().await;
    let mut device = rig.device(1, dial).await;
    match device.read().await {
        Some(Packet::PubRel(ack)) => assert_eq!(ack.packet_id, id),
        other => panic!("{other:?} instead of PUBREL"),
    }
    device.expect_nothing().await;
}

#[tokio::test]
async fn a_device_that_connects_again_takes_its_session_over() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let dial = Dial::v5("d").persistent();
    let mut lost = rig.reader(1, dial.clone()).await;
    lost.auto_ack = false;
    post(&mut server, &letter(1, 0)).await;
    let before = lost.expect_publish().await;
    let mut device = rig.device(1, dial.clone()).await;
    assert_eq!(lost.expect_goodbye().await, ReasonCode::SessionTakenOver);
    assert!(device.session_present());
    device.auto_ack = false;
    let again = device.expect_publish().await;
    assert_eq!((again.dup, again.packet_id), (true, before.packet_id));
    // The third one wants no old session: the mail is the device's all the same.
    let mut fresh = rig.reader(1, dial.clean()).await;
    assert_eq!(device.expect_goodbye().await, ReasonCode::SessionTakenOver);
    assert!(!fresh.session_present());
    assert_eq!(fresh.expect_payload().await, letter(1, 0));
    fresh.expect_nothing().await;
}

#[tokio::test]
async fn of_two_sessions_of_one_device_the_newest_reads() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let mut older = rig.reader(1, Dial::v5("older")).await;
    older.auto_ack = false;
    post(&mut server, &letter(1, 0)).await;
    let unacknowledged = older.expect_publish().await;
    let mut newer = rig.reader(1, Dial::v5("newer")).await;
    // What the older one has not acknowledged goes to the newer one, and all that follows.
    assert_eq!(newer.expect_payload().await, letter(1, 0));
    post(&mut server, &letter(1, 1)).await;
    assert_eq!(newer.expect_payload().await, letter(1, 1));
    // A late acknowledgement of the older one is no acknowledgement of anything.
    older.acknowledge(&unacknowledged).await;
    older.expect_nothing().await;
    newer.expect_nothing().await;
}

#[tokio::test]
async fn when_the_newest_session_leaves_the_older_one_reads_again() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let mut older = rig.reader(1, Dial::v5("older")).await;
    let newer = rig.reader(1, Dial::v5("newer")).await;
    newer.disconnect().await;
    post(&mut server, &letter(1, 0)).await;
    assert_eq!(older.expect_payload().await, letter(1, 0));
}

#[tokio::test]
async fn mail_expires() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let expiry = |secs| PublishProperties {
        message_expiry_secs: Some(secs),
        ..PublishProperties::default()
    };
    for (number, secs) in [(0, 1), (1, 100)] {
        let properties = Some(expiry(secs));
        let payload = letter(1, number);
        assert!(server.publish_with(TO_EUICC, payload, ONE, false, properties).await.is_ok());
        let payload = circular(7, number);
        let properties = Some(expiry(secs));
        assert!(server.publish_with(TO_EUICC, payload, ONE, false, properties).await.is_ok());
    }
    // Nothing but time itself makes mail expire.
    tokio::time::sleep(Duration::from_millis(1050)).await;
    let mut device = rig.reader(1, Dial::v5("d")).await;
    for payload in [letter(1, 1), circular(7, 1)] {
        let publish = device.expect_publish().await;
        assert_eq!(publish.payload, payload);
        let left = publish.properties.unwrap().message_expiry_secs.unwrap();
        assert!((1..100).contains(&left), "[MQTT-3.3.2-6]: {left} s");
    }
    device.expect_nothing().await;
}

#[tokio::test]
async fn mail_without_an_expiry_has_the_configured_one() {
    let rig = Rig::with(|config| config.rsp.mail_ttl = Duration::from_millis(300)).await;
    let mut server = working_server(&rig).await;
    post(&mut server, &letter(1, 0)).await;
    tokio::time::sleep(Duration::from_millis(310)).await;
    let mut device = rig.reader(1, Dial::v5("d")).await;
    device.expect_nothing().await;
    rig.until_counter("simcast_rsp_mail_messages ", 0).await;
}

#[tokio::test]
async fn order_is_kept_through_a_small_window() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let mut expected = Vec::new();
    for number in 0..150 {
        let to_group = number % 3 == 0;
        expected.push(if to_group { circular(7, number) } else { letter(1, number) });
    }
    // Some wait before the device comes, some come while it reads.
    for payload in &expected[..100] {
        post(&mut server, payload).await;
    }
    let mut device = rig.device(1, Dial::v5("d").receive_maximum(2)).await;
    device.subscribe(TO_EUICC, TWO).await;
    device.auto_ack = false;
    let mut under_way = vec![device.expect_publish().await, device.expect_publish().await];
    device.expect_nothing().await;
    for payload in &expected[100..] {
        post(&mut server, payload).await;
    }
    let mut received = Vec::new();
    device.auto_ack = true;
    for publish in under_way.drain(..) {
        device.acknowledge(&publish).await;
        received.push(String::from_utf8(publish.payload.to_vec()).unwrap());
    }
    received.extend(device.expect_payloads(expected.len() - 2).await);
    assert_eq!(received, expected);
    device.expect_nothing().await;
}

#[tokio::test]
async fn a_stuck_device_delays_nobody() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let mut stuck = rig.reader(1, Dial::v5("stuck").receive_maximum(1)).await;
    stuck.auto_ack = false;
    let mut brisk = rig.reader(2, Dial::v5("brisk")).await;
    for number in 0..200 {
        post(&mut server, &circular(7, number)).await;
    }
    let received = brisk.expect_payloads(200).await;
    assert_eq!(received[199], circular(7, 199));
    assert_eq!(stuck.arrived().await.len(), 1);
}

#[tokio::test]
async fn a_group_is_who_was_in_it_when_the_message_was_published() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let broker = rig.service.broker();
    post(&mut server, &circular(9, 0)).await;
    // Device 11 joins later, device 10 leaves later.
    broker.with_control(|control| {
        control.put_device(nid(11), &[gid(9)], "").unwrap();
        control.put_device(nid(10), &[], "").unwrap();
    });
    let mut late = rig.reader(11, Dial::v5("late")).await;
    late.expect_nothing().await;
    let mut gone = rig.reader(10, Dial::v5("gone")).await;
    assert_eq!(gone.expect_payload().await, circular(9, 0));
    post(&mut server, &circular(9, 1)).await;
    assert_eq!(late.expect_payload().await, circular(9, 1));
    gone.expect_nothing().await;
    late.expect_nothing().await;
}

#[tokio::test]
async fn a_member_that_joins_while_it_listens_gets_what_follows() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let mut device = rig.reader(6, Dial::v5("d")).await;
    post(&mut server, &circular(7, 0)).await;
    device.expect_nothing().await;
    let broker = rig.service.broker();
    broker.with_control(|control| control.put_device(nid(6), &[gid(7)], "")).unwrap();
    post(&mut server, &circular(7, 1)).await;
    assert_eq!(device.expect_payload().await, circular(7, 1));
    device.expect_nothing().await;
}

#[tokio::test]
async fn a_device_that_is_removed_loses_its_mail() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    post(&mut server, &letter(1, 0)).await;
    post(&mut server, &circular(9, 1)).await;
    let broker = rig.service.broker();
    for number in [1, 10] {
        assert!(broker.with_control(|control| control.remove_device(nid(number))).is_some());
    }
    assert_eq!(rig.counter("simcast_rsp_mail_messages ").await, 0);
    let answer = server.publish(TO_EUICC, letter(1, 2), ONE).await;
    assert_eq!(answer.text.as_deref(), Some("unknown_nid"));
    broker.with_control(|control| control.put_device(nid(1), &[gid(7)], "")).unwrap();
    let mut device = rig.reader(1, Dial::v5("d")).await;
    device.expect_nothing().await;
}

#[tokio::test]
async fn a_reader_that_is_removed_gets_no_more() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let mut device = rig.reader(1, Dial::v5("d")).await;
    let broker = rig.service.broker();
    broker.with_control(|control| control.remove_device(nid(1)));
    post(&mut server, &circular(7, 0)).await;
    device.expect_nothing().await;
    let answer = device.publish(TO_SM_SR, envelope(1, 0, "trigger"), ONE).await;
    assert_eq!(answer.text.as_deref(), Some("not_registered"));
    // A device that gets its place in the registry is not the removed one.
    broker.with_control(|control| control.put_device(nid(12), &[gid(7)], "")).unwrap();
    post(&mut server, &letter(12, 1)).await;
    device.expect_nothing().await;
    let mut successor = rig.reader(12, Dial::v5("successor")).await;
    assert_eq!(successor.expect_payload().await, letter(12, 1));
    device.expect_nothing().await;
}

#[tokio::test]
async fn triggers_and_answers_wait_in_order_for_a_server_that_is_away() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    let mut first = rig.device(1, Dial::v5("d1")).await;
    let mut second = rig.device(2, Dial::v311("d2")).await;
    post(&mut server, &letter(1, 0)).await;
    server.disconnect().await;
    let waiting = [
        envelope(1, 0, "trigger"),
        envelope(2, 0, "trigger"),
        envelope(1, 0, "ret(msg)"),
        envelope(0, 7, "trigger"),
    ];
    for (device, payload) in [(1, 0), (2, 1), (1, 2), (2, 3)] {
        let device = if device == 1 { &mut first } else { &mut second };
        assert!(device.publish(TO_SM_SR, &waiting[payload], ONE).await.is_ok());
    }
    let mut server = rig.server(Dial::v5("sm-sr").receive_maximum(1)).await;
    server.subscribe(TO_SM_SR, ONE).await;
    assert_eq!(server.expect_payloads(4).await, waiting);
    server.expect_nothing().await;
}

#[tokio::test]
async fn what_a_server_did_not_acknowledge_goes_to_the_next() {
    let rig = Rig::start().await;
    let mut device = rig.device(1, Dial::v5("d")).await;
    let mut server = working_server(&rig).await;
    server.auto_ack = false;
    device.publish(TO_SM_SR, envelope(1, 0, "trigger"), ONE).await;
    device.publish(TO_SM_SR, envelope(0, 7, "trigger"), ONE).await;
    let first = server.expect_publish().await;
    server.expect_publish().await;
    server.acknowledge(&first).await;
    server.vanish().await;
    let mut next = rig.server(Dial::v5("another")).await;
    next.subscribe(TO_SM_SR, ONE).await;
    assert_eq!(next.expect_payload().await, envelope(0, 7, "trigger"));
    next.expect_nothing().await;
}

#[tokio::test]
async fn what_a_server_did_not_acknowledge_goes_to_the_others_of_its_group() {
    let rig = Rig::start().await;
    let mut device = rig.device(1, Dial::v5("d")).await;
    let mut dying = rig.server(Dial::v5("dying")).await;
    dying.subscribe("$share/g/To_SM-SR", ONE).await;
    dying.auto_ack = false;
    for _ in 0..3 {
        device.publish(TO_SM_SR, envelope(1, 0, "trigger"), ONE).await;
    }
    for _ in 0..3 {
        dying.expect_publish().await;
    }
    let mut heir = rig.server(Dial::v5("heir")).await;
    heir.subscribe("$share/g/To_SM-SR", ONE).await;
    heir.expect_nothing().await;
    dying.vanish().await;
    heir.expect_payloads(3).await;
    heir.expect_nothing().await;
}

#[tokio::test]
async fn a_server_resumes_its_session() {
    let rig = Rig::start().await;
    let mut device = rig.device(1, Dial::v5("d")).await;
    let dial = Dial::v5("sm-sr").persistent();
    let mut server = rig.server(dial.clone()).await;
    server.subscribe(TO_SM_SR, ONE).await;
    server.auto_ack = false;
    device.publish(TO_SM_SR, envelope(1, 0, "trigger"), ONE).await;
    let before = server.expect_publish().await;
    server.vanish().await;
    device.publish(TO_SM_SR, envelope(0, 7, "trigger"), ONE).await;
    let mut server = rig.server(dial).await;
    let again = server.expect_publish().await;
    assert_eq!((again.dup, again.packet_id), (true, before.packet_id));
    assert_eq!(server.expect_payload().await, envelope(0, 7, "trigger"));
    server.expect_nothing().await;
}

#[tokio::test]
async fn a_full_inbox_refuses_and_loses_nothing() {
    let rig = Rig::with(|config| config.rsp.server_inbox_messages_max = 2).await;
    let mut server = rig.server(Dial::v5("sm-sr")).await;
    for number in 0..3 {
        post(&mut server, &letter(1, number)).await;
    }
    server.disconnect().await;
    let mut device = rig.device(1, Dial::v5("d")).await;
    // Answers wait for who asked, and all else in a place of its own, each as full as the other.
    for kind in ["trigger", "ret(msg)"] {
        for _ in 0..2 {
            assert!(device.publish(TO_SM_SR, envelope(1, 0, kind), ONE).await.is_ok());
        }
        let answer = device.publish(TO_SM_SR, envelope(1, 0, kind), ONE).await;
        assert_eq!(answer.text.as_deref(), Some("over_quota"));
    }
    let mut server = working_server(&rig).await;
    let kinds = ["trigger", "trigger", "ret(msg)", "ret(msg)"];
    assert_eq!(server.expect_payloads(4).await, kinds.map(|kind| envelope(1, 0, kind)));
    server.barrier().await;
    // The third request is open still: a refused answer answers nothing.
    let answer = device.publish(TO_SM_SR, envelope(1, 0, "ret(msg)"), ONE).await;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(server.expect_payload().await, envelope(1, 0, "ret(msg)"));
    let answer = device.publish(TO_SM_SR, envelope(1, 0, "ret(msg)"), ONE).await;
    assert_eq!(answer.text.as_deref(), Some("duplicate_answer"));
}

#[tokio::test]
async fn an_exchange_ends_once() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let mut old = rig.reader(2, Dial::v5("old")).await;
    let mut new = rig.reader(1, Dial::v5("new")).await;
    let request = envelope(2, 7, &kind_of("req", 1));
    assert!(new.publish(TO_EUICC, &request, ONE).await.is_ok());
    assert_eq!(old.expect_payload().await, request);
    // The profile is under way when the new device falls silent.
    new.auto_ack = false;
    let profile = envelope(1, 7, &kind_of("profile", 2));
    assert!(old.publish(TO_EUICC, &profile, ONE).await.is_ok());
    assert_eq!(new.expect_payload().await, profile);
    let again = old.publish(TO_EUICC, &profile, ONE).await;
    assert_eq!(again.text.as_deref(), Some("exchange_repeated"));
    new.vanish().await;
    server.expect_nothing().await;

    let mut new = rig.reader(1, Dial::v5("new")).await;
    assert_eq!(new.expect_payload().await, profile);
    new.barrier().await;
    let notice = server.expect_payload().await;
    assert!(notice.contains(r#""event":"profile-change""#), "{notice}");
    new.disconnect().await;
    let mut new = rig.reader(1, Dial::v5("new")).await;
    new.expect_nothing().await;
    old.expect_nothing().await;
    server.expect_nothing().await;
    let again = old.publish(TO_EUICC, &profile, ONE).await;
    assert_eq!(again.text.as_deref(), Some("exchange_repeated"));
    assert_eq!(rig.counter("simcast_rsp_exchanges_total{result=\"completed\"}").await, 1);
}

#[tokio::test]
async fn a_profile_that_the_new_device_cannot_take_is_no_profile_change() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let mut old = rig.reader(2, Dial::v5("old")).await;
    let mut new = rig.reader(1, Dial::v5("new").packet_bytes_max(200)).await;
    assert!(new.publish(TO_EUICC, envelope(2, 7, &kind_of("req", 1)), ONE).await.is_ok());
    old.expect_publish().await;
    let body = format!(r#""body":"{}""#, "x".repeat(200));
    let profile = envelope_with(1, 7, &kind_of("profile", 2), &body);
    assert!(old.publish(TO_EUICC, profile, ONE).await.is_ok());
    new.expect_nothing().await;
    server.expect_nothing().await;
}

#[tokio::test]
async fn what_is_sent_again_fits_the_new_connection() {
    let rig = Rig::start().await;
    let mut server = working_server(&rig).await;
    let dial = Dial::v5("d").persistent();
    let mut device = rig.reader(1, dial.clone()).await;
    device.auto_ack = false;
    let large = envelope_with(1, 0, "msg", &format!(r#""body":"{}""#, "x".repeat(200)));
    post(&mut server, &large).await;
    device.expect_publish().await;
    device.vanish().await;
    post(&mut server, &letter(1, 1)).await;
    let mut device = rig.device(1, dial.packet_bytes_max(200)).await;
    assert_eq!(device.expect_payload().await, letter(1, 1), "[MQTT-3.1.2-24]");
    device.expect_nothing().await;
}
