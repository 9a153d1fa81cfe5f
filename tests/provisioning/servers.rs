//! Several SM-SR servers: each hears from the devices of its own groups alone and may address no
//! others (section 1); a share group divides the work; what nobody is there for waits in order.

use std::time::Duration;

use simcast::config::UnscopedServers;
use simcast::mqtt::{Publish, PublishProperties, QoS, ReasonCode, Version};
use simcast::rsp::GroupSettings;

use crate::common::rig::servers;
use crate::common::{Client, Denied, Dial, Rig, TO_EUICC, TO_SM_SR, envelope, gid, kind_of, nid};
use crate::stage::VERSIONS;

const SHARED: &str = "$share/g/To_SM-SR";
const ONE: QoS = QoS::AtLeastOnce;

/// Server `a` is there for group 7, `b` for group 8, `all` for every device. Devices 1 to 3 are in
/// group 7, 4 in 8, 5 in both, 6 in none, 10 in 9.
const SERVERS: [(&str, &[u64]); 3] = [("a.test", &[7]), ("b.test", &[8]), ("all.test", &[])];

async fn rig() -> Rig {
    Rig::with(|config| servers(config, &SERVERS)).await
}

async fn listener(rig: &Rig, name: &str, filter: &str, dial: Dial) -> Client {
    let mut server = rig.server_named(name, dial).await;
    assert!(!server.subscribe(filter, ONE).await.is_error(), "{name}");
    server
}

/// Has a device publish what must be taken.
async fn speak(device: &mut Client, payload: &str) {
    let answer = device.publish(TO_SM_SR, payload, ONE).await;
    assert!(answer.is_ok(), "{answer:?} to {payload}");
}

async fn payloads(client: &mut Client) -> Vec<String> {
    texts(&client.arrived().await)
}

fn texts(messages: &[Publish]) -> Vec<String> {
    messages.iter().map(|p| String::from_utf8_lossy(&p.payload).into_owned()).collect()
}

#[tokio::test]
async fn a_server_hears_from_the_devices_of_its_groups_and_from_no_others() {
    for version in VERSIONS {
        let rig = rig().await;
        let [mut a, mut b, mut all] = [
            listener(&rig, "a.test", TO_SM_SR, Dial::new(version, "a")).await,
            listener(&rig, "b.test", TO_SM_SR, Dial::new(version, "b")).await,
            listener(&rig, "all.test", TO_SM_SR, Dial::new(version, "all")).await,
        ];
        let said = [
            (1, envelope(1, 0, "trigger"), "a"),
            (1, envelope(0, 7, "trigger"), "a"),
            (4, envelope(4, 0, "trigger"), "b"),
            (5, envelope(5, 0, "trigger"), "ab"),
            // In the name of one group it speaks to the server of that group alone.
            (5, envelope(0, 8, "trigger"), "b"),
            (6, envelope(6, 0, "trigger"), ""),
            (10, envelope(0, 9, "trigger"), ""),
        ];
        for (number, payload, _) in &said {
            let id = format!("device-{number}");
            speak(&mut rig.device(*number, Dial::new(version, &id)).await, payload).await;
        }
        let heard_by = |server: &str| {
            let heard = said.iter().filter(|(_, _, servers)| servers.contains(server));
            heard.map(|(_, payload, _)| payload.clone()).collect::<Vec<_>>()
        };
        assert_eq!(payloads(&mut a).await, heard_by("a"));
        assert_eq!(payloads(&mut b).await, heard_by("b"));
        assert_eq!(payloads(&mut all).await, heard_by(""));
    }
}

#[tokio::test]
async fn a_server_addresses_the_devices_of_its_groups_and_no_others() {
    for version in VERSIONS {
        let rig = rig().await;
        let mut a = rig.server_named("a.test", Dial::new(version, "a")).await;
        let mut devices = Vec::new();
        for number in [1, 2, 3, 4, 5, 6, 10] {
            let dial = Dial::new(version, &format!("device-{number}"));
            devices.push((number, rig.reader(number, dial).await));
        }
        let said = [
            (envelope(1, 0, "trigger"), &[1][..]),
            (envelope(5, 0, "msg"), &[5]),
            (envelope(0, 7, "msg"), &[1, 2, 3, 5]),
            (envelope(4, 0, "trigger"), &[]),
            (envelope(6, 0, "msg"), &[]),
            (envelope(0, 8, "msg"), &[]),
            (envelope(0, 9, "trigger"), &[]),
        ];
        for (payload, receivers) in &said {
            let before = rig.refusals("out_of_scope").await;
            let answer = a.publish(TO_EUICC, payload, ONE).await;
            let refused = receivers.is_empty();
            if version == Version::V5 {
                let name = refused.then_some("out_of_scope");
                assert_eq!(answer.text.as_deref(), name, "{payload}");
                assert_eq!(answer.reason == ReasonCode::NotAuthorized, refused, "{payload}");
            } else {
                assert!(answer.is_ok(), "3.1.1 knows no refusal, and the connection stays");
            }
            assert_eq!(rig.refusals("out_of_scope").await, before + u64::from(refused));
            for (number, device) in &mut devices {
                let expected = receivers.contains(number).then(|| payload.clone());
                assert_eq!(payloads(device).await, Vec::from_iter(expected), "{number}");
            }
        }
    }
}

#[tokio::test]
async fn a_will_of_a_server_keeps_to_its_scope() {
    let rig = rig().await;
    let issued = rig.authority.issue_server("a.test").unwrap();
    let dial = |device| Dial::v5("a").will(TO_EUICC, envelope(device, 0, "trigger"));
    let denied = rig.with_certificate(&issued, dial(4)).await.err();
    assert!(matches!(denied, Some(Denied::ConnAck(ReasonCode::NotAuthorized))), "{denied:?}");
    let mut device = rig.reader(1, Dial::v5("d")).await;
    rig.with_certificate(&issued, dial(1)).await.unwrap().vanish().await;
    assert_eq!(device.expect_payload().await, envelope(1, 0, "trigger"));
}

#[tokio::test]
async fn a_profile_change_is_told_to_the_servers_of_its_group() {
    let rig = rig().await;
    let mut a = listener(&rig, "a.test", TO_SM_SR, Dial::v5("a")).await;
    let mut b = listener(&rig, "b.test", TO_SM_SR, Dial::v5("b")).await;
    let mut old = rig.reader(4, Dial::v5("old")).await;
    let mut new = rig.reader(5, Dial::v5("new")).await;
    assert!(new.publish(TO_EUICC, envelope(4, 8, &kind_of("req", 5)), ONE).await.is_ok());
    old.expect_publish().await;
    assert!(old.publish(TO_EUICC, envelope(5, 8, &kind_of("profile", 4)), ONE).await.is_ok());
    new.expect_publish().await;
    new.barrier().await;
    assert!(b.expect_payload().await.contains(r#""event":"profile-change""#));
    a.expect_nothing().await;
}

#[tokio::test]
async fn servers_without_a_scope_have_no_device_where_the_configuration_says_so() {
    let change = |config: &mut simcast::config::Config| {
        servers(config, &SERVERS);
        config.rsp.unscoped_servers = UnscopedServers::None;
    };
    let rig = Rig::with(change).await;
    let mut all = listener(&rig, "all.test", TO_SM_SR, Dial::v5("all")).await;
    let mut device = rig.device(1, Dial::v5("d")).await;
    let payload = envelope(1, 0, "trigger");
    speak(&mut device, &payload).await;
    let answer = all.publish(TO_EUICC, envelope(1, 0, "trigger"), ONE).await;
    assert_eq!(answer.text.as_deref(), Some("out_of_scope"));
    all.expect_nothing().await;
    // It waits for the server in charge.
    let mut a = listener(&rig, "a.test", TO_SM_SR, Dial::v5("a")).await;
    assert_eq!(a.expect_payload().await, payload);
}

#[tokio::test]
async fn triggers_wait_in_order_for_the_server_in_charge() {
    let rig = rig().await;
    let mut devices = Vec::new();
    for number in [1, 4, 5] {
        devices.push(rig.device(number, Dial::v5(&format!("device-{number}"))).await);
    }
    let (mut of_7, mut of_8) = (Vec::new(), Vec::new());
    for _round in 0..3 {
        for (device, payload, gid) in [
            (0, envelope(1, 0, "trigger"), 7),
            (1, envelope(4, 0, "trigger"), 8),
            (2, envelope(0, 7, "trigger"), 7),
            (2, envelope(0, 8, "trigger"), 8),
        ] {
            speak(&mut devices[device], &payload).await;
            let expected = if gid == 7 { &mut of_7 } else { &mut of_8 };
            expected.push(payload);
        }
    }
    let mut b = listener(&rig, "b.test", SHARED, Dial::v5("b").receive_maximum(1)).await;
    assert_eq!(b.expect_payloads(of_8.len()).await, of_8);
    b.expect_nothing().await;
    // What the other waits for has stayed.
    let mut a = listener(&rig, "a.test", TO_SM_SR, Dial::v311("a")).await;
    assert_eq!(a.expect_payloads(of_7.len()).await, of_7);
    a.expect_nothing().await;
}

#[tokio::test]
async fn a_trigger_that_concerns_another_server_too_does_not_wait_for_others_of_one_group() {
    let coalesce = Some(Duration::from_millis(300));
    let rig = Rig::with(|config| {
        servers(config, &SERVERS);
        config.rsp.groups.insert(gid(7), GroupSettings { coalesce, ..GroupSettings::default() });
    })
    .await;
    let mut a = listener(&rig, "a.test", TO_SM_SR, Dial::v5("a")).await;
    let mut b = listener(&rig, "b.test", TO_SM_SR, Dial::v5("b")).await;
    let mut devices =
        [rig.device(1, Dial::v5("device-1")).await, rig.device(5, Dial::v5("device-5")).await];
    speak(&mut devices[0], &envelope(1, 0, "trigger")).await;
    speak(&mut devices[1], &envelope(5, 0, "trigger")).await;
    assert_eq!(a.expect_payload().await, envelope(5, 0, "trigger"));
    assert_eq!(b.expect_payload().await, envelope(5, 0, "trigger"));
    // In the name of that group it is like the others.
    speak(&mut devices[1], &envelope(0, 7, "trigger")).await;
    let both = a.expect_payload().await;
    assert!(both.contains("coalesced-trigger"), "{both}");
    assert!([1, 5].iter().all(|number| both.contains(&nid(*number).to_string())), "{both}");
    b.expect_nothing().await;
}

#[tokio::test]
async fn a_share_group_divides_the_work_and_keeps_to_the_scopes() {
    let rig = rig().await;
    // Neither acknowledges, so that each has what its window takes.
    let mut a = listener(&rig, "a.test", SHARED, Dial::v5("a").receive_maximum(3)).await;
    let mut all = listener(&rig, "all.test", SHARED, Dial::v5("all").receive_maximum(4)).await;
    let mut b = listener(&rig, "b.test", SHARED, Dial::v5("b")).await;
    for server in [&mut a, &mut all] {
        server.auto_ack = false;
    }
    let mut device = rig.device(1, Dial::v5("d")).await;
    let said: Vec<String> = (0..7)
        .map(|number| envelope(1, 0, "trigger").replace("[1,2,3]", &number.to_string()))
        .collect();
    for payload in &said {
        speak(&mut device, payload).await;
    }
    let (by_a, by_all) = (a.arrived().await, all.arrived().await);
    assert_eq!((by_a.len(), by_all.len()), (3, 4));
    let mut together = [texts(&by_a), texts(&by_all)].concat();
    for heard in [texts(&by_a), texts(&by_all)] {
        assert!(heard.is_sorted(), "each hears in order: {heard:?}");
    }
    together.sort();
    assert_eq!(together, said, "each message goes to one of them");
    // The first dies: the other takes over as soon as it has room, and the third never.
    a.vanish().await;
    for message in &by_all {
        all.acknowledge(message).await;
    }
    assert_eq!(payloads(&mut all).await, texts(&by_a));
    b.expect_nothing().await;
}

#[tokio::test]
async fn what_expires_while_no_server_comes_is_counted() {
    let rig = rig().await;
    let mut device = rig.device(1, Dial::v5("d")).await;
    let lifetime =
        PublishProperties { message_expiry_secs: Some(1), ..PublishProperties::default() };
    let trigger = envelope(1, 0, "trigger");
    let answer = device.publish_with(TO_SM_SR, &trigger, ONE, false, Some(lifetime)).await;
    assert!(answer.is_ok());
    speak(&mut device, &envelope(0, 7, "trigger")).await;
    rig.until_counter("simcast_messages_dropped_total{reason=\"expired\"}", 1).await;
    let mut a = listener(&rig, "a.test", TO_SM_SR, Dial::v5("a")).await;
    assert_eq!(a.expect_payload().await, envelope(0, 7, "trigger"));
    a.expect_nothing().await;
}

#[tokio::test]
async fn what_is_too_large_for_a_server_waits_for_another_one_and_is_refused_without_any() {
    let rig = rig().await;
    let mut small = listener(&rig, "a.test", SHARED, Dial::v5("small").packet_bytes_max(300)).await;
    let mut device = rig.device(1, Dial::v5("device-1")).await;
    let body = |n: u32| envelope(1, 0, "trigger").replace("[1,2,3]", &format!("\"{n:0400}\""));
    let answer = device.publish(TO_SM_SR, body(1), QoS::AtLeastOnce).await;
    assert_eq!(answer.text.as_deref().and_then(|text| text.split("; ").next()), Some("too_large"));
    small.expect_nothing().await;
    let mut large = listener(&rig, "a.test", SHARED, Dial::v5("large").persistent()).await;
    large.auto_ack = false;
    speak(&mut device, &body(2)).await;
    assert_eq!(large.expect_payload().await, body(2));
    // It goes without having acknowledged; its session has a smaller client then, and is not the
    // one that takes it.
    large.vanish().await;
    let dial = Dial::v5("large").persistent().packet_bytes_max(300);
    let mut large = rig.server_named("a.test", dial).await;
    large.expect_nothing().await;
    small.expect_nothing().await;
    let mut third = listener(&rig, "a.test", SHARED, Dial::v5("third")).await;
    assert_eq!(third.expect_payload().await, body(2));
}
