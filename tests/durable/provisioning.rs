//! Provisioning across crashes: mail waits, campaigns go on, answers match, and nothing of QoS 2
//! comes twice.

use serde_json::json;
use simcast::clock::Stopwatch;
use simcast::ids::PacketId;
use simcast::mqtt::{Packet, Publish, QoS};
use simcast::rsp::{CampaignId, CampaignState, DeviceState, ExchangeState, Mode};

use super::common::client::success;
use super::common::rig::{Rig, registry_line};
use super::common::{Client, Dial, TO_EUICC, TO_SM_SR, envelope, envelope_with, gid, kind_of, nid};

/// The SM-SR with a session that outlives its connection.
async fn server(rig: &Rig, qos: QoS) -> Client {
    let mut server = rig.server(Dial::v5("sm-sr").persistent()).await;
    if !server.session_present() {
        assert!(!server.subscribe(TO_SM_SR, qos).await.is_error());
    }
    server
}

/// A device with a session that outlives its connection.
async fn device(rig: &Rig, number: u128, qos: QoS) -> Client {
    let dial = Dial::v5(&format!("device-{number}")).persistent();
    let mut device = rig.device(number, dial).await;
    if !device.session_present() {
        assert!(!device.subscribe(TO_EUICC, qos).await.is_error());
    }
    device
}

async fn tell(client: &mut Client, topic: &str, payload: &str) {
    let answer = client.publish(topic, payload, QoS::AtLeastOnce).await;
    assert!(answer.is_ok(), "{answer:?} for {payload}");
}

async fn refused(client: &mut Client, topic: &str, payload: &str, name: &str) {
    let answer = client.publish(topic, payload, QoS::AtLeastOnce).await;
    assert_eq!(answer.text.as_deref(), Some(name), "{payload}");
}

/// What was acknowledged with QoS 1 is written down with whatever is written next.
async fn all_is_written(rig: &Rig) {
    let mut client = rig.client(Dial::v5("clock").persistent()).await;
    assert!(!client.subscribe("clock", QoS::AtLeastOnce).await.is_error());
    client.disconnect().await;
}

fn states(rig: &Rig, campaign: u64) -> Vec<(String, DeviceState)> {
    rig.service.broker().with_control(|control| {
        let devices = control.campaign_devices(CampaignId(campaign), 0);
        let mut states: Vec<_> = devices.map(|d| (d.nid.to_string(), d.state)).collect();
        states.sort();
        states
    })
}

fn state(rig: &Rig, campaign: u64) -> CampaignState {
    let broker = rig.service.broker();
    let now = broker.now();
    broker.with_control(|control| control.campaign(CampaignId(campaign), now)).unwrap().state
}

/// Answers nothing by itself.
fn slow(client: Client) -> Client {
    let mut client = client;
    (client.auto_ack, client.auto_complete) = (false, false);
    client
}

/// The next PUBLISH, which is not acknowledged.
async fn next_publish(client: &mut Client) -> Publish {
    match client.read().await {
        Some(Packet::Publish(publish)) => publish,
        other => panic!("{other:?}"),
    }
}

async fn next_release(client: &mut Client) -> PacketId {
    match client.read().await {
        Some(Packet::PubRel(ack)) => ack.packet_id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn mail_waits_campaigns_go_on_and_answers_match() {
    let rig = Rig::durable().await;
    let mut sm_sr = server(&rig, QoS::AtLeastOnce).await;
    tell(&mut sm_sr, TO_EUICC, &envelope(1, 0, "msg")).await;
    tell(&mut sm_sr, TO_EUICC, &envelope(0, 7, "trigger")).await;
    tell(&mut sm_sr, TO_EUICC, &envelope_with(0, 7, "msg", r#""tid":"autumn","body":null"#)).await;
    let mut two = device(&rig, 2, QoS::AtLeastOnce).await;
    assert_eq!(two.expect_payloads(2).await.len(), 2);
    tell(&mut two, TO_SM_SR, &envelope_with(0, 7, "ret(msg)", r#""tid":"autumn","body":null"#))
        .await;
    assert!(sm_sr.expect_payload().await.contains("autumn"));
    // It goes without having acknowledged: the answer of device 3 waits.
    sm_sr.disconnect().await;
    let mut three = device(&rig, 3, QoS::AtLeastOnce).await;
    three.expect_payloads(2).await;
    tell(&mut three, TO_SM_SR, &envelope(3, 0, "ret(trigger)")).await;
    all_is_written(&rig).await;
    let before: Vec<_> = (1..=3).map(|campaign| states(&rig, campaign)).collect();
    drop((two, three));

    let mut rig = rig.crash().await;
    for _ in 0..2 {
        let after: Vec<_> = (1..=3).map(|campaign| states(&rig, campaign)).collect();
        assert_eq!(after, before);
        rig = rig.crash().await;
    }
    let mut sm_sr = server(&rig, QoS::AtLeastOnce).await;
    assert!(sm_sr.session_present());
    assert_eq!(sm_sr.expect_payload().await, envelope(3, 0, "ret(trigger)"));
    let mut one = device(&rig, 1, QoS::AtLeastOnce).await;
    let expected = [envelope(1, 0, "msg"), envelope(0, 7, "trigger")];
    assert_eq!(one.expect_payloads(3).await[..2], expected, "in the order of publishing");
    tell(&mut one, TO_SM_SR, &envelope(1, 0, "ret(msg)")).await;
    assert_eq!(sm_sr.expect_payload().await, envelope(1, 0, "ret(msg)"));
    let mut two = device(&rig, 2, QoS::AtLeastOnce).await;
    two.expect_nothing().await;
    let again = envelope_with(0, 7, "ret(msg)", r#""tid":"autumn","body":null"#);
    refused(&mut two, TO_SM_SR, &again, "duplicate_answer").await;
    assert_eq!(state(&rig, 1), CampaignState::Ended);
    assert_eq!(state(&rig, 3), CampaignState::Running);
    tell(&mut sm_sr, TO_EUICC, &envelope(6, 0, "msg")).await;
    assert_eq!(states(&rig, 4), [(nid(6).to_string(), DeviceState::Queued)], "numbers go on");
}

#[tokio::test]
async fn what_a_device_was_given_with_qos_2_is_given_under_the_same_id_and_never_twice() {
    let mut rig = Rig::durable().await;
    let mut sm_sr = server(&rig, QoS::ExactlyOnce).await;
    for (device, group) in [(1, 0), (0, 7)] {
        let answer =
            sm_sr.publish(TO_EUICC, envelope(device, group, "msg"), QoS::ExactlyOnce).await;
        assert!(answer.is_ok());
    }
    let mut one = slow(device(&rig, 1, QoS::ExactlyOnce).await);
    let given = [next_publish(&mut one).await, next_publish(&mut one).await];
    assert!(given.iter().all(|publish| publish.qos == QoS::ExactlyOnce));
    one.vanish().await;
    sm_sr.vanish().await;
    for at in 0..2 {
        rig = rig.crash().await;
        let mut one = slow(device(&rig, 1, QoS::ExactlyOnce).await);
        for before in &given {
            let again = next_publish(&mut one).await;
            assert!(again.dup, "{at}");
            assert_eq!(
                (again.packet_id, again.payload),
                (before.packet_id, before.payload.clone())
            );
        }
        one.expect_nothing().await;
        one.vanish().await;
    }
    // It has the first one now.
    let mut one = slow(device(&rig, 1, QoS::ExactlyOnce).await);
    for _ in &given {
        next_publish(&mut one).await;
    }
    let first = given[0].packet_id.unwrap();
    one.send(&Packet::PubRec(success(first))).await;
    assert_eq!(next_release(&mut one).await, first);
    one.vanish().await;
    rig = rig.crash().await;
    assert_eq!(states(&rig, 1), [(nid(1).to_string(), DeviceState::Delivered)]);
    let mut one = slow(device(&rig, 1, QoS::ExactlyOnce).await);
    let (mut releases, mut publishes) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        match one.read().await {
            Some(Packet::PubRel(ack)) => releases.push(ack.packet_id),
            Some(Packet::Publish(publish)) => publishes.push(publish.payload),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((releases, publishes), (vec![first], vec![given[1].payload.clone()]));
    one.vanish().await;
    drop(rig);
}

#[tokio::test]
async fn a_message_of_qos_2_is_taken_once_whoever_sends_it() {
    let rig = Rig::durable().await;
    let mut sm_sr = slow(server(&rig, QoS::ExactlyOnce).await);
    let id = PacketId::new(77).unwrap();
    let publish = |dup| {
        Packet::Publish(Publish {
            dup,
            qos: QoS::ExactlyOnce,
            retain: false,
            topic: TO_EUICC.into(),
            packet_id: Some(id),
            properties: None,
            payload: envelope(1, 0, "msg").into(),
        })
    };
    sm_sr.send(&publish(false)).await;
    assert!(matches!(sm_sr.read().await, Some(Packet::PubRec(ack)) if ack.packet_id == id));
    sm_sr.vanish().await;
    let rig = rig.crash().await;
    let mut sm_sr = slow(server(&rig, QoS::ExactlyOnce).await);
    sm_sr.send(&publish(true)).await;
    assert!(matches!(sm_sr.read().await, Some(Packet::PubRec(ack)) if ack.packet_id == id));
    sm_sr.send(&Packet::PubRel(success(id))).await;
    assert!(matches!(sm_sr.read().await, Some(Packet::PubComp(ack)) if ack.packet_id == id));
    let mut one = device(&rig, 1, QoS::AtLeastOnce).await;
    assert_eq!(one.expect_payload().await, envelope(1, 0, "msg"));
    one.expect_nothing().await;
    assert_eq!(states(&rig, 1).len(), 1);
    assert!(states(&rig, 2).is_empty(), "it has opened one campaign");
    // The same towards the server.
    tell(&mut one, TO_SM_SR, &envelope(1, 0, "trigger")).await;
    let mut given = next_publish(&mut sm_sr).await;
    // The publisher's own QoS.
    assert_eq!(given.qos, QoS::AtLeastOnce);
    sm_sr.acknowledge(&given).await;
    let twice = one.publish(TO_SM_SR, envelope(1, 0, "trigger"), QoS::ExactlyOnce).await;
    assert!(twice.is_ok());
    given = next_publish(&mut sm_sr).await;
    sm_sr.vanish().await;
    one.vanish().await;
    let rig = rig.crash().await;
    let mut sm_sr = slow(server(&rig, QoS::ExactlyOnce).await);
    let again = next_publish(&mut sm_sr).await;
    assert_eq!((again.packet_id, again.dup), (given.packet_id, true));
    sm_sr.send(&Packet::PubRec(success(again.packet_id.unwrap()))).await;
    next_release(&mut sm_sr).await;
    sm_sr.vanish().await;
    let rig = rig.crash().await;
    let mut sm_sr = slow(server(&rig, QoS::ExactlyOnce).await);
    assert_eq!(Some(next_release(&mut sm_sr).await), again.packet_id);
    sm_sr.send(&Packet::PubComp(success(again.packet_id.unwrap()))).await;
    sm_sr.expect_nothing().await;
}

#[tokio::test]
async fn what_operators_have_changed_stays_and_the_file_says_the_rest() {
    let rig = Rig::durable().await;
    let broker = rig.service.broker();
    let object = |value: serde_json::Value| value.as_object().unwrap().clone();
    broker.patch_settings("test", &object(json!({"ttl": {"msg": "3d"}}))).unwrap();
    broker.patch_group_settings("test", gid(7), &object(json!({"mode": "single"}))).unwrap();
    broker.put_device("test", nid(1), &[gid(8)], "x=y").unwrap();
    broker.put_device("test", nid(50), &[gid(7)], "").unwrap();
    assert!(broker.remove_device("test", nid(2)));
    all_is_written(&rig).await;
    // The configuration has changed, too: what was not changed at run time follows it.
    let rig = rig
        .crash_and(|config| {
            config.rsp.settings.mode = Mode::Multi;
            config.rsp.settings.ttl.trigger = std::time::Duration::from_secs(60);
        })
        .await;
    let broker = rig.service.broker();
    let settings = broker.settings();
    assert_eq!(settings.mode, Mode::Multi);
    assert_eq!(settings.ttl.msg.as_secs(), 3 * 24 * 3600);
    assert_eq!(settings.ttl.trigger.as_secs(), 60);
    assert_eq!(broker.group_settings(gid(7)).effective.mode, Mode::Single);
    assert_eq!(broker.device_info(nid(1)).unwrap().gids, [8]);
    assert_eq!(broker.device_info(nid(50)).unwrap().gids, [7]);
    assert_eq!(broker.device_info(nid(2)), None);
    assert_eq!(broker.device_info(nid(3)).unwrap().gids, [7]);
    // The file is read again, and still does not count more.
    rig.service.reload_registry().unwrap();
    assert_eq!(broker.device_info(nid(1)).unwrap().gids, [8]);
    assert_eq!(broker.device_info(nid(2)), None);
    assert!(broker.device_info(nid(50)).is_some());
}

#[tokio::test]
async fn an_exchange_goes_on_and_its_notice_waits_for_the_server() {
    let rig = Rig::durable().await;
    let mut one = device(&rig, 1, QoS::AtLeastOnce).await;
    tell(&mut one, TO_EUICC, &envelope(2, 7, &kind_of("req", 1))).await;
    one.vanish().await;
    let rig = rig.crash().await;
    let mut two = device(&rig, 2, QoS::AtLeastOnce).await;
    assert_eq!(two.expect_payload().await, envelope(2, 7, &kind_of("req", 1)));
    let mut one = device(&rig, 1, QoS::AtLeastOnce).await;
    refused(&mut one, TO_EUICC, &envelope(2, 7, &kind_of("req", 1)), "exchange_already_open").await;
    tell(&mut two, TO_EUICC, &envelope(1, 7, &kind_of("profile", 2))).await;
    assert_eq!(one.expect_payload().await, envelope(1, 7, &kind_of("profile", 2)));
    one.barrier().await;
    all_is_written(&rig).await;
    drop((one, two));
    let rig = rig.crash().await;
    let exchanges = rig.service.broker().exchanges_page(None, 10).items;
    assert_eq!(exchanges.len(), 1);
    assert_eq!(exchanges[0].state, ExchangeState::Unreported);
    let mut sm_sr = server(&rig, QoS::AtLeastOnce).await;
    assert!(sm_sr.expect_payload().await.contains("profile-change"));
    let mut one = device(&rig, 1, QoS::AtLeastOnce).await;
    one.expect_nothing().await;
    tell(&mut one, TO_SM_SR, &envelope(1, 0, "ret(msg)")).await;
    assert_eq!(sm_sr.expect_payload().await, envelope(1, 0, "ret(msg)"));
    let exchanges = rig.service.broker().exchanges_page(None, 10).items;
    assert_eq!(exchanges[0].state, ExchangeState::Confirmed);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: run it in release, alone, with --nocapture"]
#[allow(clippy::print_stdout, reason = "a measurement")]
async fn a_million_letters_are_loaded() {
    const DEVICES: u128 = 100_000;
    let rig = Rig::durable().await;
    let csv: String = (1..=DEVICES).map(|number| registry_line(nid(number), "7")).collect();
    rig.service.broker().add_to_registry("test", &csv);
    let (clock, before) = (Stopwatch::start(), resident_mib());
    for part in 0..20 {
        // A client has 65,535 ids, and begins anew before that.
        let mut sm_sr = server(&rig, QoS::AtLeastOnce).await;
        for number in 1..=DEVICES / 2 {
            let number = number + part % 2 * (DEVICES / 2);
            sm_sr.throw(TO_EUICC, envelope(number, 0, "msg")).await;
            if number.is_multiple_of(2_000) {
                tell(&mut sm_sr, TO_EUICC, &envelope(6, 0, "trigger")).await;
            }
        }
        sm_sr.disconnect().await;
    }
    let written = resident_mib();
    println!("published in {:?}: {} MiB", clock.elapsed(), written - before);
    let clock = Stopwatch::start();
    let rig = rig.crash().await;
    println!("back in {:?}: {} MiB more", clock.elapsed(), resident_mib() - written);
    let stats = rig.service.broker().with_control(|control| control.stats());
    assert_eq!(stats.mail_messages, 1_000_500);
}

fn resident_mib() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096 / (1 << 20)
}
