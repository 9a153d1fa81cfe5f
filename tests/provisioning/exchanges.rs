//! Exchanges (section 6): who may ask whom, how many at a time, what follows from the profile that
//! was handed over, and what a device gets that has given its own away.

use std::time::Duration;

use simcast::config::Config;
use simcast::mqtt::{QoS, Version};
use simcast::rsp::DeviceState::{Cancelled, Delivered};
use simcast::rsp::{ExchangeState, GroupSettings, Pair};

use crate::common::{Dial, TO_EUICC, TO_SM_SR, envelope, envelope_with, gid, kind_of, nid};
use crate::stage::{A, B, C, D, E, F, GROUP_7, SERVER, Stage, VERSIONS, WAYS};

const ONE: QoS = QoS::AtLeastOnce;

/// E1: a device asks another one.
fn req(by: u128, of: u128, gid: u64) -> String {
    envelope(of, gid, &kind_of("req", by))
}

/// E2: it gets the profile.
fn profile(by: u128, to: u128, gid: u64) -> String {
    envelope(to, gid, &kind_of("profile", by))
}

/// What the control unit tells the servers of a profile change.
fn notice(from: u128, to: u128, gid: u64) -> String {
    let body = format!(r#"{{"event":"profile-change","from":"{}","to":"{}"}}"#, nid(from), nid(to));
    envelope_with(to, gid, &kind_of("profile", from), &format!(r#""body":{body}"#))
}

fn refusal(name: &str, holds: bool) -> Option<&str> {
    Some(name).filter(|_| holds)
}

impl Stage {
    fn label(&self, device: u128, gids: &[u64], labels: &str) {
        let gids: Vec<_> = gids.iter().map(|number| gid(*number)).collect();
        let broker = self.rig.service.broker();
        broker.with_control(|control| control.put_device(nid(device), &gids, labels)).unwrap();
    }

    /// How far an exchange is; nothing where none is remembered.
    fn exchange(&self, from: u128, to: u128) -> Option<ExchangeState> {
        let pair = Pair { from: nid(from), to: nid(to) };
        self.rig.service.broker().with_control(|control| {
            let mut all = control.exchanges_behind(None);
            all.find(|(other, _)| *other == pair).map(|(_, exchange)| exchange.state)
        })
    }

    /// Device 2 gives its profile to device 1, which has it.
    async fn hand_over(&mut self) {
        self.step(A, &req(1, 2, 7), &[B]).await;
        self.tell(B, TO_EUICC, profile(2, 1, 7)).await;
        self.each_receives(&[(A, profile(2, 1, 7)), (SERVER, notice(2, 1, 7))]).await;
    }
}

#[tokio::test]
async fn servers_that_have_no_room_are_told_of_a_profile_change_when_they_have_some() {
    let full = |config: &mut Config| config.rsp.server_inbox_messages_max = 2;
    let mut stage = Stage::with(Version::V5, full).await;
    stage.client(SERVER).auto_ack = false;
    let mut held = Vec::new();
    for (device, number) in [(C, 3), (D, 4)] {
        stage.tell(device, TO_SM_SR, envelope(number, 0, "trigger")).await;
        held.push(stage.client(SERVER).expect_publish().await);
    }
    stage.refused(C, TO_SM_SR, envelope(3, 0, "trigger"), "over_quota").await;
    stage.step(A, &req(1, 2, 7), &[B]).await;
    stage.step(B, &profile(2, 1, 7), &[A]).await;
    assert_eq!(stage.exchange(2, 1), Some(ExchangeState::Unreported));
    stage.sweep().await;
    stage.nobody_else().await;
    stage.client(SERVER).acknowledge(&held[0]).await;
    stage.client(SERVER).barrier().await;
    stage.sweep().await;
    assert_eq!(stage.client(SERVER).expect_payload().await, notice(2, 1, 7));
    stage.sweep().await;
    stage.nobody_else().await;
}

#[tokio::test]
async fn two_devices_exchange_when_they_agree_on_the_conditions() {
    let names = vec!["operator".to_owned(), "plan".to_owned()];
    let settings = GroupSettings { conditions: Some(names), ..GroupSettings::default() };
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, settings.clone()).await;
        stage.label(1, &[7], "operator=x;plan=m;model=1");
        stage.label(2, &[7], "model=2;plan=m;operator=x");
        stage.label(3, &[7], "operator=x;plan=l");
        stage.label(5, &[7, 8], "operator=x");
        stage.step(A, &req(1, 2, 7), &[B]).await;
        for (by, of) in [(1, 3), (3, 2), (5, 1), (1, 5)] {
            stage.refused(by, TO_EUICC, req(by as u128, of, 7), "conditions_differ").await;
        }
        // Who lacks a label agrees with nobody, not even with who lacks it, too.
        let others = refusal("conditions_differ", way.is_global());
        stage.step_or(others, E, &req(5, 4, 8), &[D]).await;
        // They still have to agree when the profile comes.
        stage.label(1, &[7], "operator=x;plan=xl");
        stage.refused(B, TO_EUICC, profile(2, 1, 7), "conditions_differ").await;
        stage.label(1, &[7], "operator=x;plan=m");
        stage.tell(B, TO_EUICC, profile(2, 1, 7)).await;
        stage.each_receives(&[(A, profile(2, 1, 7)), (SERVER, notice(2, 1, 7))]).await;
    }
}

#[tokio::test]
async fn a_device_asks_few_others_at_a_time() {
    const AT_A_TIME: u128 = 8;
    let mut stage = Stage::start(Version::V5).await;
    let crowd = 20..20 + AT_A_TIME;
    crowd.clone().for_each(|number| stage.label(number, &[7], ""));
    for number in crowd.clone() {
        stage.step(A, &req(1, number, 7), &[]).await;
    }
    stage.refused(A, TO_EUICC, req(1, 2, 7), "over_quota").await;
    // It may be asked itself, and others ask whom they like.
    stage.step(B, &req(2, 1, 7), &[A]).await;
    stage.step(C, &req(3, 20, 7), &[]).await;
    // An answer makes room.
    let mut old = stage.rig.reader(20, Dial::v5("old")).await;
    assert_eq!(old.expect_payloads(2).await, [req(1, 20, 7), req(3, 20, 7)]);
    assert!(old.publish(TO_EUICC, profile(20, 1, 7), ONE).await.is_ok());
    stage.each_receives(&[(A, profile(20, 1, 7)), (SERVER, notice(20, 1, 7))]).await;
    stage.step(A, &req(1, 2, 7), &[B]).await;
    stage.refused(A, TO_EUICC, req(1, 3, 7), "over_quota").await;
}

#[tokio::test]
async fn an_exchange_goes_from_the_request_to_the_report() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        assert_eq!(stage.exchange(2, 1), None);
        stage.client(A).auto_ack = false;
        stage.step(A, &req(1, 2, 7), &[B]).await;
        assert_eq!(stage.exchange(2, 1), Some(ExchangeState::Requested));
        stage.tell(B, TO_EUICC, profile(2, 1, 7)).await;
        let under_way = stage.client(A).expect_publish().await;
        assert_eq!(under_way.payload, profile(2, 1, 7));
        stage.nobody_else().await;
        assert_eq!(stage.exchange(2, 1), Some(ExchangeState::Transferred));
        // Nobody owes a report before it has the profile.
        let report = envelope(1, 0, "ret(msg)");
        stage.refused(A, TO_SM_SR, &report, "unsolicited_answer").await;
        stage.client(A).acknowledge(&under_way).await;
        stage.client(A).barrier().await;
        assert_eq!(stage.client(SERVER).expect_payload().await, notice(2, 1, 7));
        stage.nobody_else().await;
        assert_eq!(stage.exchange(2, 1), Some(ExchangeState::Unreported));
        // In a group's name nothing is reported, and the old device owes nothing.
        stage.refused(A, TO_SM_SR, envelope(0, 7, "ret(msg)"), "unsolicited_answer").await;
        stage.refused(B, TO_SM_SR, envelope(2, 0, "ret(msg)"), "unsolicited_answer").await;
        stage.step(A, &report, &[SERVER]).await;
        assert_eq!(stage.exchange(2, 1), Some(ExchangeState::Confirmed));
        stage.refused(A, TO_SM_SR, &report, "unsolicited_answer").await;
        stage.refused(B, TO_EUICC, profile(2, 1, 7), "exchange_repeated").await;
    }
}

#[tokio::test]
async fn without_a_report_or_with_one_of_failure_a_change_is_unconfirmed() {
    let mut stage = Stage::start(Version::V5).await;
    stage.set(|settings| settings.ttl.msg = Duration::from_millis(100));
    stage.hand_over().await;
    tokio::time::sleep(Duration::from_millis(110)).await;
    stage.sweep().await;
    assert_eq!(stage.exchange(2, 1), Some(ExchangeState::Unconfirmed));
    stage.refused(A, TO_SM_SR, envelope(1, 0, "ret(msg)"), "unsolicited_answer").await;
    let unconfirmed = "simcast_rsp_exchanges_total{result=\"unconfirmed\"}";
    stage.rig.until_counter(unconfirmed, 1).await;
    stage.set(|settings| settings.ttl.msg = Duration::from_secs(3600));
    stage.step(C, &req(3, 2, 7), &[B]).await;
    stage.tell(B, TO_EUICC, profile(2, 3, 7)).await;
    stage.each_receives(&[(C, profile(2, 3, 7)), (SERVER, notice(2, 3, 7))]).await;
    let failed = envelope_with(3, 0, "ret(msg)", r#""rc":5,"body":1"#);
    stage.step(C, &failed, &[SERVER]).await;
    assert_eq!(stage.exchange(2, 3), Some(ExchangeState::Unconfirmed));
}

#[tokio::test]
async fn a_request_does_not_outlive_its_time_and_may_be_made_again() {
    let mut stage = Stage::start(Version::V5).await;
    stage.take(B).disconnect().await;
    stage.set(|settings| settings.ttl.exchange = Duration::from_millis(50));
    stage.step(A, &req(1, 2, 7), &[]).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    stage.sweep().await;
    assert_eq!(stage.exchange(2, 1), Some(ExchangeState::Expired));
    let mut old = stage.rig.reader(2, Dial::v5("old")).await;
    old.expect_nothing().await;
    let late = old.publish(TO_EUICC, profile(2, 1, 7), ONE).await;
    assert_eq!(late.text.as_deref(), Some("exchange_late"));
    stage.set(|settings| settings.ttl.exchange = Duration::from_secs(3600));
    stage.step(A, &req(1, 2, 7), &[]).await;
    assert_eq!(old.expect_payload().await, req(1, 2, 7));
    assert!(old.publish(TO_EUICC, profile(2, 1, 7), ONE).await.is_ok());
    stage.each_receives(&[(A, profile(2, 1, 7)), (SERVER, notice(2, 1, 7))]).await;
}

async fn retiring(version: Version) -> Stage {
    Stage::with(version, |config: &mut Config| config.rsp.retire = true).await
}

#[tokio::test]
async fn who_has_given_its_profile_away_is_provisioned_no_more() {
    for version in VERSIONS {
        let mut stage = retiring(version).await;
        stage.step(SERVER, &envelope(2, 0, "msg"), &[B]).await;
        stage.hand_over().await;
        stage.refused(SERVER, TO_EUICC, envelope(2, 0, "msg"), "device_replaced").await;
        stage.step(SERVER, &envelope(0, 7, "msg"), &[A, C, E]).await;
        assert_eq!(stage.states(stage.newest()), [Delivered; 3]);
        // Nobody gets from it what it has no more.
        stage.refused(C, TO_EUICC, req(3, 2, 7), "device_replaced").await;
        // It is spoken with, may ask for another profile, and all others are as before.
        stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
        stage.step(B, &req(2, 3, 7), &[C]).await;
        stage.step(B, &envelope(2, 0, "trigger"), &[SERVER]).await;
        stage.step(SERVER, &envelope(1, 0, "msg"), &[A]).await;
    }
}

#[tokio::test]
async fn what_waits_for_who_has_given_its_profile_away_is_withdrawn() {
    let mut stage = retiring(Version::V5).await;
    stage.take(B).disconnect().await;
    let mut old = stage.rig.reader(2, Dial::v5("old").receive_maximum(1)).await;
    old.auto_ack = false;
    stage.tell(A, TO_EUICC, req(1, 2, 7)).await;
    let request = old.expect_publish().await;
    stage.step(SERVER, &envelope(2, 0, "msg"), &[]).await;
    let alone = stage.newest();
    stage.step(SERVER, &envelope(0, 7, "msg"), &[A, C, E]).await;
    let group = stage.newest();
    stage.step(SERVER, &envelope(2, 0, "trigger"), &[]).await;
    assert!(old.publish(TO_EUICC, profile(2, 1, 7), ONE).await.is_ok());
    stage.each_receives(&[(A, profile(2, 1, 7)), (SERVER, notice(2, 1, 7))]).await;
    assert_eq!(stage.states(alone), [Cancelled]);
    assert_eq!(stage.states(group), [Delivered, Cancelled, Delivered, Delivered]);
    old.auto_ack = true;
    old.acknowledge(&request).await;
    assert_eq!(old.expect_payload().await, envelope(2, 0, "trigger"));
    old.expect_nothing().await;
    stage.nobody_else().await;
}

#[tokio::test]
async fn an_operator_or_a_trigger_that_says_so_reinstates_it() {
    for version in VERSIONS {
        let mut stage = retiring(version).await;
        stage.hand_over().await;
        let b1 = envelope(2, 0, "msg");
        stage.refused(SERVER, TO_EUICC, &b1, "device_replaced").await;
        let broker = stage.rig.service.broker();
        assert!(broker.with_control(|control| control.reinstate(nid(2))));
        assert!(!broker.with_control(|control| control.reinstate(nid(2))), "it takes part");
        stage.step(SERVER, &b1, &[B]).await;
        stage.step(SERVER, &envelope(0, 7, "msg"), &GROUP_7).await;

        // Any other trigger leaves it as it is.
        stage.step(C, &req(3, 1, 7), &[A]).await;
        stage.tell(A, TO_EUICC, profile(1, 3, 7)).await;
        stage.drain().await;
        stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
        stage.refused(SERVER, TO_EUICC, envelope(1, 0, "msg"), "device_replaced").await;
        let again = envelope_with(1, 0, "trigger", r#""reinstate":true,"body":1"#);
        stage.step(SERVER, &again, &[A]).await;
        stage.step(SERVER, &envelope(1, 0, "msg"), &[A]).await;
        stage.step(B, &req(2, 1, 7), &[A]).await;
    }
}

#[tokio::test]
async fn a_profile_is_not_given_to_two_devices() {
    let mut stage = retiring(Version::V5).await;
    stage.take(A).disconnect().await;
    let mut new = stage.rig.reader(1, Dial::v5("new")).await;
    new.auto_ack = false;
    assert!(new.publish(TO_EUICC, req(1, 2, 7), ONE).await.is_ok());
    stage.reaches(&[B], req(1, 2, 7)).await;
    stage.step(C, &req(3, 2, 7), &[B]).await;
    stage.tell(B, TO_EUICC, profile(2, 1, 7)).await;
    let under_way = new.expect_publish().await;
    stage.refused(B, TO_EUICC, profile(2, 3, 7), "device_replaced").await;
    new.acknowledge(&under_way).await;
    new.barrier().await;
    stage.reaches(&[SERVER], notice(2, 1, 7)).await;
    stage.refused(B, TO_EUICC, profile(2, 3, 7), "device_replaced").await;
}

#[tokio::test]
async fn without_retirement_a_device_stays_what_it_was() {
    let mut stage = Stage::start(Version::V5).await;
    stage.hand_over().await;
    stage.step(SERVER, &envelope(2, 0, "msg"), &[B]).await;
    stage.step(SERVER, &envelope(0, 7, "msg"), &GROUP_7).await;
    stage.step(C, &req(3, 2, 7), &[B]).await;
    stage.step(F, &envelope(6, 0, "trigger"), &[SERVER]).await;
}
