//! Strict flow (section 6): no device is provisioned that has not agreed. B1 is refused, C1 waits
//! for each member by itself; a refusal, an end of its time or a departure drops it.

use std::time::Duration;

use simcast::client::envelope::{Envelope, Kind, Wire};
use simcast::mqtt::Version;
use simcast::rsp::DeviceState::{Delivered, Expired, Gone, Ok as Done, Queued, Refused};
use simcast::rsp::{Flow, GroupSettings, Settings};

use crate::common::{Dial, TO_EUICC, TO_SM_SR, envelope, envelope_with, gid, nid};
use crate::stage::{A, B, C, D, E, F, GROUP_7, GROUP_8, SERVER, Stage, VERSIONS, WAYS};

const MISSING: Option<&str> = Some("consent_missing");

fn strict() -> GroupSettings {
    GroupSettings { flow: Some(Flow::Strict), ..GroupSettings::default() }
}

async fn stage(version: Version) -> Stage {
    Stage::with(version, |config| config.rsp.settings.flow = Flow::Strict).await
}

/// An A2 with this result code.
fn a2(device: u128, gid: u64, rc: i64) -> String {
    envelope_with(device, gid, "ret(trigger)", &format!(r#""rc":{rc},"body":1"#))
}

fn c1(number: usize) -> String {
    envelope_with(0, 7, "msg", &format!(r#""body":{number}"#))
}

#[tokio::test]
async fn a_message_needs_an_agreement_of_its_device() {
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, strict()).await;
        let others = MISSING.filter(|_| way.is_global());
        let b1 = envelope(1, 0, "msg");
        stage.step_or(MISSING, SERVER, &b1, &[A]).await;
        stage.step_or(others, SERVER, &envelope(4, 0, "msg"), &[D]).await;
        stage.step_or(others, SERVER, &envelope(6, 0, "msg"), &[F]).await;
        // Who is in both groups keeps to the stricter one.
        stage.step_or(MISSING, SERVER, &envelope(5, 0, "msg"), &[E]).await;
        stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
        stage.step_or(MISSING, SERVER, &b1, &[A]).await;
        stage.step(A, &a2(1, 0, 0), &[SERVER]).await;
        // It may be provisioned, as often as need be, and nobody else.
        for _ in 0..2 {
            stage.step(SERVER, &b1, &[A]).await;
            stage.step(A, &envelope(1, 0, "ret(msg)"), &[SERVER]).await;
        }
        stage.step_or(MISSING, SERVER, &envelope(2, 0, "msg"), &[B]).await;
    }
}

#[tokio::test]
async fn who_has_refused_is_not_provisioned_before_it_agrees() {
    for version in VERSIONS {
        let mut stage = stage(version).await;
        for (rc, refusal) in [(1, MISSING), (0, None), (-7, MISSING)] {
            stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
            stage.step(A, &a2(1, 0, rc), &[SERVER]).await;
            stage.step_or(refusal, SERVER, &envelope(1, 0, "msg"), &[A]).await;
        }
        // What it says last counts, to whichever of its triggers.
        stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
        stage.step(A, &a2(0, 7, 0), &[SERVER]).await;
        stage.step(SERVER, &envelope(1, 0, "msg"), &[A]).await;
        stage.step_or(MISSING, SERVER, &envelope(2, 0, "msg"), &[B]).await;
    }
}

#[tokio::test]
async fn an_agreement_in_cbor_is_one() {
    let mut stage = stage(Version::V5).await;
    let cbor = |gid, kind| Envelope::new(nid(1).get(), gid, kind);
    stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
    let refusal = cbor(0, Kind::RetTrigger).with_rc(3).encode(Wire::Cbor);
    stage.tell(A, TO_SM_SR, &refusal).await;
    stage.reaches(&[SERVER], &refusal).await;
    let b1 = cbor(0, Kind::Msg).encode(Wire::Cbor);
    stage.refused(SERVER, TO_EUICC, &b1, "consent_missing").await;
    stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
    let agreement = cbor(0, Kind::RetTrigger).with_rc(0).encode(Wire::Cbor);
    stage.tell(A, TO_SM_SR, &agreement).await;
    stage.reaches(&[SERVER], &agreement).await;
    stage.tell(SERVER, TO_EUICC, &b1).await;
    stage.reaches(&[A], &b1).await;
}

#[tokio::test]
async fn a_group_message_reaches_who_has_agreed_and_waits_for_the_others() {
    for version in VERSIONS {
        let mut stage = stage(version).await;
        stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
        stage.step(A, &a2(0, 7, 0), &[SERVER]).await;
        // In its own name it agrees for its groups.
        stage.step(B, &a2(2, 0, 0), &[SERVER]).await;
        stage.step(SERVER, &c1(0), &[A, B]).await;
        let id = stage.newest();
        assert_eq!(stage.states(id), [Delivered, Delivered, Queued, Queued]);
        // It is released for one when that one agrees, and dropped for one that refuses.
        stage.tell(C, TO_SM_SR, &a2(0, 7, 0)).await;
        let answer = a2(0, 7, 0);
        stage.receives(&[(C, c1(0).as_bytes()), (SERVER, answer.as_bytes())]).await;
        stage.step(E, &a2(0, 7, 5), &[SERVER]).await;
        assert_eq!(stage.states(id), [Delivered, Delivered, Delivered, Refused]);
        // Who has refused and agrees later gets what comes later.
        stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
        stage.step(E, &a2(0, 7, 0), &[SERVER]).await;
        stage.step(SERVER, &c1(1), &GROUP_7).await;
        for member in [A, B, C] {
            stage.step(member, &envelope(0, 7, "ret(msg)"), &[SERVER]).await;
        }
        assert_eq!(stage.states(id), [Done, Done, Done, Refused]);
    }
}

#[tokio::test]
async fn what_is_held_keeps_its_place_and_holds_up_nothing_else() {
    let mut stage = stage(Version::V5).await;
    stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
    for number in 0..3 {
        stage.step(SERVER, &c1(number), &[]).await;
    }
    // Triggers and answers to wishes need no agreement.
    stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
    stage.step(A, &envelope(1, 0, "trigger"), &[SERVER]).await;
    stage.step(SERVER, &envelope(1, 0, "ret(trigger)"), &[A]).await;
    stage.tell(A, TO_SM_SR, &a2(1, 0, 0)).await;
    let held = [0, 1, 2].map(c1);
    let mut expected: Vec<_> = held.iter().map(|text| (A, text.as_bytes())).collect();
    let answer = a2(1, 0, 0);
    expected.push((SERVER, answer.as_bytes()));
    stage.receives(&expected).await;
}

#[tokio::test]
async fn the_agreement_in_another_groups_name_does_not_count() {
    let mut stage = stage(Version::V5).await;
    stage.step(SERVER, &envelope(0, 8, "trigger"), &GROUP_8).await;
    stage.step(E, &a2(0, 8, 0), &[SERVER]).await;
    stage.step(SERVER, &c1(0), &[]).await;
    let of_8 = envelope(0, 8, "msg");
    stage.step(SERVER, &of_8, &[E]).await;
    // And a refusal there refuses nothing here.
    stage.step(SERVER, &envelope(0, 8, "trigger"), &GROUP_8).await;
    stage.step(E, &a2(0, 8, 1), &[SERVER]).await;
    stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
    stage.tell(E, TO_SM_SR, &a2(0, 7, 0)).await;
    let answer = a2(0, 7, 0);
    stage.receives(&[(E, c1(0).as_bytes()), (SERVER, answer.as_bytes())]).await;
}

#[tokio::test]
async fn one_group_may_be_strict_and_another_not() {
    let mut stage = Stage::start(Version::V5).await;
    stage.set_group(7, strict());
    stage.step(SERVER, &c1(0), &[]).await;
    stage.step(SERVER, &envelope(0, 8, "msg"), &GROUP_8).await;
    stage.set_group(8, strict());
    stage.set_group(7, GroupSettings::default());
    // What is held is held until its device agrees; what comes now is not.
    stage.step(SERVER, &c1(1), &GROUP_7).await;
    stage.step(SERVER, &envelope(0, 8, "msg"), &[]).await;
    stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
    stage.tell(A, TO_SM_SR, &a2(1, 0, 0)).await;
    let answer = a2(1, 0, 0);
    stage.receives(&[(A, c1(0).as_bytes()), (SERVER, answer.as_bytes())]).await;
}

#[tokio::test]
async fn what_was_held_is_over_when_its_time_is_over() {
    let mut stage = stage(Version::V5).await;
    stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
    stage.set(|settings| settings.ttl.msg = Duration::from_millis(100));
    stage.step(SERVER, &c1(0), &[]).await;
    let id = stage.newest();
    tokio::time::sleep(Duration::from_millis(110)).await;
    stage.step(A, &a2(0, 7, 0), &[SERVER]).await;
    stage.sweep().await;
    assert_eq!(stage.states(id), [Expired; 4]);
    stage.refused(A, TO_SM_SR, envelope(0, 7, "ret(msg)"), "late_answer").await;
    // The agreement stands for what comes in time.
    stage.set(|settings| settings.ttl = Settings::default().ttl);
    stage.step(SERVER, &c1(1), &[A]).await;
}

#[tokio::test]
async fn an_agreement_is_over_with_the_time_of_its_trigger() {
    let mut stage = stage(Version::V5).await;
    stage.set(|settings| settings.ttl.trigger = Duration::from_millis(500));
    stage.tell(SERVER, TO_EUICC, envelope(0, 7, "trigger")).await;
    stage.publish(A, TO_SM_SR, a2(0, 7, 0)).await;
    stage.drain().await;
    tokio::time::sleep(Duration::from_millis(510)).await;
    stage.step_or(MISSING, SERVER, &envelope(1, 0, "msg"), &[A]).await;
    stage.step(SERVER, &c1(0), &[]).await;
}

#[tokio::test]
async fn who_is_away_gets_what_it_has_agreed_to_when_it_comes() {
    for version in VERSIONS {
        let mut stage = stage(version).await;
        stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
        stage.step(A, &a2(0, 7, 0), &[SERVER]).await;
        for member in [A, B] {
            stage.take(member).disconnect().await;
        }
        stage.step(SERVER, &c1(0), &[]).await;
        let mut back = stage.rig.reader(1, Dial::new(version, "back")).await;
        assert_eq!(back.expect_payload().await, c1(0));
        let mut other = stage.rig.reader(2, Dial::new(version, "other")).await;
        other.expect_nothing().await;
        // It need not wait for another connection to agree.
        let agreement = a2(0, 7, 0);
        assert!(other.publish(TO_SM_SR, &agreement, simcast::mqtt::QoS::AtLeastOnce).await.is_ok());
        assert_eq!(other.expect_payload().await, c1(0));
        stage.reaches(&[SERVER], agreement).await;
    }
}

#[tokio::test]
async fn a_member_that_leaves_takes_nothing_along_that_was_held() {
    let mut stage = stage(Version::V5).await;
    stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
    stage.step(SERVER, &c1(0), &[]).await;
    let id = stage.newest();
    let broker = stage.rig.service.broker();
    broker.with_control(|control| control.put_device(nid(2), &[], "")).unwrap();
    assert_eq!(stage.states(id), [Queued; 3]);
    assert_eq!(stage.campaign(id).tally.of(Gone), 1);
    stage.step(SERVER, &envelope(2, 0, "trigger"), &[B]).await;
    stage.step(B, &a2(2, 0, 0), &[SERVER]).await;
    // Nor does one that joins get what was held before.
    let broker = stage.rig.service.broker();
    broker.with_control(|control| control.put_device(nid(6), &[gid(7)], "")).unwrap();
    stage.step(SERVER, &envelope(6, 0, "trigger"), &[F]).await;
    stage.step(F, &a2(6, 0, 0), &[SERVER]).await;
}
