//! `trigger_rate` (section 6): how often devices may start something, each by itself and a group
//! together; what is refused is told when to come again, and nobody else notices.

use std::collections::BTreeSet;
use std::time::Duration;

use simcast::mqtt::{QoS, Version};
use simcast::rsp::{GroupSettings, GroupTriggerRate, Rate, Settings};

use crate::common::{TO_EUICC, TO_SM_SR, envelope, kind_of};
use crate::stage::{A, B, C, D, E, F, GROUP_7, SERVER, Stage, VERSIONS, WAYS};

const RATE: &str = "trigger_rate";
const HOUR: Duration = Duration::from_secs(3600);

fn device(rate: Rate) -> GroupSettings {
    let trigger_rate = GroupTriggerRate { device: Some(rate), group: None };
    GroupSettings { trigger_rate, ..GroupSettings::default() }
}

fn group(rate: Rate) -> GroupSettings {
    let trigger_rate = GroupTriggerRate { device: None, group: Some(rate) };
    GroupSettings { trigger_rate, ..GroupSettings::default() }
}

#[tokio::test]
async fn each_device_has_a_bucket_of_its_own() {
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, device(Rate::new(2, HOUR))).await;
        // D1 in either form, and E1, take from the same bucket.
        stage.step(A, &envelope(1, 0, "trigger"), &[SERVER]).await;
        stage.step(A, &envelope(2, 7, &kind_of("req", 1)), &[B]).await;
        stage.refused(A, TO_SM_SR, envelope(1, 0, "trigger"), RATE).await;
        stage.refused(A, TO_SM_SR, envelope(0, 7, "trigger"), RATE).await;
        stage.refused(A, TO_EUICC, envelope(3, 7, &kind_of("req", 1)), RATE).await;
        for other in [(B, 2), (D, 4), (F, 6)] {
            stage.step(other.0, &envelope(other.1, 0, "trigger"), &[SERVER]).await;
        }
        // Where it does not hold there is no bound that is near.
        let others = Some(RATE).filter(|_| way.is_global());
        stage.step(D, &envelope(0, 8, "trigger"), &[SERVER]).await;
        stage.step_or(others, D, &envelope(4, 0, "trigger"), &[SERVER]).await;
        // Who is in both groups keeps to the stricter one.
        stage.step(E, &envelope(0, 8, "trigger"), &[SERVER]).await;
        stage.step(E, &envelope(5, 0, "trigger"), &[SERVER]).await;
        stage.refused(E, TO_SM_SR, envelope(5, 0, "trigger"), RATE).await;
        // Whatever it answers, and whatever others send it, is not counted.
        stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
        stage.step(A, &envelope(1, 0, "ret(trigger)"), &[SERVER]).await;
        stage.step(SERVER, &envelope(0, 7, "msg"), &GROUP_7).await;
        stage.step(A, &envelope(0, 7, "ret(msg)"), &[SERVER]).await;
    }
}

#[tokio::test]
async fn the_members_of_a_group_share_its_bucket() {
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, group(Rate::new(3, HOUR))).await;
        stage.step(A, &envelope(0, 7, "trigger"), &[SERVER]).await;
        stage.step(B, &envelope(2, 0, "trigger"), &[SERVER]).await;
        stage.step(A, &envelope(3, 7, &kind_of("req", 1)), &[C]).await;
        for (member, payload) in [(C, envelope(3, 0, "trigger")), (A, envelope(0, 7, "trigger"))] {
            stage.refused(member, TO_SM_SR, payload, RATE).await;
        }
        stage.refused(B, TO_EUICC, envelope(3, 7, &kind_of("req", 2)), RATE).await;
        stage.refused(E, TO_SM_SR, envelope(5, 0, "trigger"), RATE).await;
        // Another group has its own, and who is in none takes from none.
        stage.step(E, &envelope(0, 8, "trigger"), &[SERVER]).await;
        stage.step(D, &envelope(4, 0, "trigger"), &[SERVER]).await;
        for _ in 0..4 {
            stage.step(F, &envelope(6, 0, "trigger"), &[SERVER]).await;
        }
    }
}

#[tokio::test]
async fn what_is_refused_for_another_reason_costs_nothing() {
    let mut stage = Stage::start(Version::V5).await;
    stage.set(|settings| settings.trigger_rate.device = Rate::new(1, HOUR));
    stage.refused(A, TO_SM_SR, envelope(2, 0, "trigger"), "spoofed_nid").await;
    stage.refused(A, TO_SM_SR, envelope(0, 8, "trigger"), "foreign_gid").await;
    let request = envelope(4, 7, &kind_of("req", 1));
    stage.refused(A, TO_EUICC, request, "cross_group_exchange").await;
    stage.step(A, &envelope(1, 0, "trigger"), &[SERVER]).await;
    for _ in 0..3 {
        stage.refused(A, TO_SM_SR, envelope(1, 0, "trigger"), RATE).await;
    }
    stage.set(|settings| settings.trigger_rate.device = Rate::OFF);
    for _ in 0..100 {
        stage.tell(A, TO_SM_SR, envelope(1, 0, "trigger")).await;
    }
    stage.client(SERVER).expect_payloads(100).await;
    stage.nobody_else().await;
}

#[tokio::test]
async fn those_who_are_refused_together_are_not_told_to_come_back_together() {
    let mut stage = Stage::start(Version::V5).await;
    stage.set(|settings| settings.trigger_rate.group = Rate::new(1, HOUR));
    stage.step(A, &envelope(0, 7, "trigger"), &[SERVER]).await;
    let mut told = BTreeSet::new();
    for _ in 0..10 {
        for (member, number) in [(A, 1), (B, 2), (C, 3), (E, 5)] {
            told.insert(retry_after(&mut stage, member, &envelope(number, 0, "trigger")).await);
        }
    }
    let (first, last) = (*told.first().unwrap(), *told.last().unwrap());
    assert!(told.len() > 10, "{told:?}");
    // At least as long as it takes, from which a minute may be over by now; and half as long again.
    assert!((3540..=5400).contains(&first) && (3540..=5400).contains(&last), "{told:?}");
}

#[tokio::test]
async fn whoever_comes_back_as_told_is_served() {
    let mut stage = Stage::start(Version::V5).await;
    stage.set(|settings| settings.trigger_rate.device = Rate::new(2, Duration::from_secs(4)));
    let wish = envelope(1, 0, "trigger");
    for _ in 0..2 {
        stage.tell(A, TO_SM_SR, &wish).await;
    }
    let secs = retry_after(&mut stage, A, &wish).await;
    stage.drain().await;
    // Nothing but time itself fills a bucket.
    tokio::time::sleep(Duration::from_secs(secs)).await;
    stage.step(A, &wish, &[SERVER]).await;
}

#[tokio::test]
async fn by_default_a_device_starts_sixty_things_at_once_and_no_more() {
    let mut stage = Stage::start(Version::V5).await;
    let default = Settings::default().trigger_rate;
    assert_eq!(default.device, Rate::new(60, Duration::from_secs(60)));
    let mut taken = 0;
    // One more comes back every second, however slow this machine is.
    while stage.publish(A, TO_SM_SR, envelope(1, 0, "trigger")).await.is_ok() {
        taken += 1;
        assert!(taken < 1000, "there is a bound");
    }
    assert!(taken >= 60);
    stage.client(SERVER).expect_payloads(taken).await;
    stage.nobody_else().await;
    stage.step(B, &envelope(2, 0, "trigger"), &[SERVER]).await;
}

/// How many seconds a refused device is told to wait.
async fn retry_after(stage: &mut Stage, who: usize, payload: &str) -> u64 {
    let answer = stage.client(who).publish(TO_SM_SR, payload, QoS::AtLeastOnce).await;
    let text = answer.text.expect("a refusal");
    let secs = text.strip_prefix("trigger_rate; retry-after=").expect("when to come back");
    secs.parse().unwrap()
}
