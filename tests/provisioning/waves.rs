//! Campaigns in waves (section 6): the first members are served, and how they fare decides about
//! the others. Asked for by a member of the envelope or by a user property.

use std::time::Duration;

use simcast::mqtt::{PublishProperties, QoS, Version};
use simcast::rsp::CampaignState::{Canary, Ended, Halted, Running};
use simcast::rsp::DeviceState::{Cancelled, Delivered, Expired, Failed, Ok as Done, Queued};

use crate::common::{Dial, TO_EUICC, TO_SM_SR, envelope, envelope_with};
use crate::stage::{A, B, C, E, GROUP_7, SERVER, Stage, VERSIONS};

const ONE: QoS = QoS::AtLeastOnce;

/// A C1 to group 7 in waves.
fn wave(wave: &str) -> String {
    envelope_with(0, 7, "msg", &format!(r#""wave":{wave},"body":1"#))
}

fn c2(rc: i64) -> String {
    envelope_with(0, 7, "ret(msg)", &format!(r#""rc":{rc},"body":1"#))
}

/// Has a device answer the last message of a first wave; all others get the message at once.
async fn last_of_the_first(stage: &mut Stage, who: usize, answer: &str, message: &str) {
    stage.tell(who, TO_SM_SR, answer).await;
    let expected = [(C, message), (E, message), (SERVER, answer)];
    stage.receives(&expected.map(|(who, text)| (who, text.as_bytes()))).await;
}

#[tokio::test]
async fn the_others_follow_when_the_first_have_fared_well() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        for first in [r#"2"#, r#"{"first":2,"failures_max":0.0}"#] {
            let message = wave(first);
            stage.step(SERVER, &message, &[A, B]).await;
            let id = stage.newest();
            assert_eq!(stage.campaign(id).state, Canary);
            assert_eq!(stage.states(id), [Delivered, Delivered, Queued, Queued]);
            stage.step(A, &c2(0), &[SERVER]).await;
            assert_eq!(stage.campaign(id).wave.unwrap().done, 1);
            last_of_the_first(&mut stage, B, &c2(0), &message).await;
            assert_eq!(stage.campaign(id).state, Running);
            for member in [C, E] {
                stage.step(member, &c2(0), &[SERVER]).await;
            }
            assert_eq!((stage.campaign(id).state, stage.states(id)), (Ended, vec![Done; 4]));
        }
    }
}

#[tokio::test]
async fn too_many_failures_halt_it_until_an_operator_lets_it_go_on() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        let message = wave("2");
        stage.step(SERVER, &message, &[A, B]).await;
        let id = stage.newest();
        // One of two is more than a tenth.
        stage.step(A, &c2(6), &[SERVER]).await;
        assert_eq!(stage.campaign(id).state, Halted);
        stage.step(B, &c2(0), &[SERVER]).await;
        assert_eq!(stage.states(id), [Failed, Done, Queued, Queued]);
        // All else goes its way meanwhile.
        stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
        let broker = stage.rig.service.broker();
        let readers = broker.with_control(|control| control.release(id)).unwrap();
        assert!(!readers.is_empty());
        stage.tell(SERVER, TO_EUICC, envelope(0, 7, "trigger")).await;
        for member in [C, E] {
            let both = [message.clone(), envelope(0, 7, "trigger")];
            assert_eq!(stage.client(member).expect_payloads(2).await, both);
        }
        for member in [A, B] {
            assert_eq!(stage.client(member).expect_payload().await, envelope(0, 7, "trigger"));
        }
        stage.nobody_else().await;
        assert_eq!(stage.campaign(id).state, Running);
    }
}

#[tokio::test]
async fn some_failures_are_tolerated_where_the_server_says_so() {
    let mut stage = Stage::start(Version::V5).await;
    let message = wave(r#"{"first":2,"failures_max":0.5}"#);
    stage.step(SERVER, &message, &[A, B]).await;
    let id = stage.newest();
    stage.step(A, &c2(6), &[SERVER]).await;
    assert_eq!(stage.campaign(id).state, Canary);
    last_of_the_first(&mut stage, B, &c2(0), &message).await;
    assert_eq!(stage.campaign(id).state, Running);
}

#[tokio::test]
async fn a_user_property_asks_for_waves_as_well() {
    let mut stage = Stage::start(Version::V5).await;
    let c1 = envelope(0, 7, "msg");
    for (text, tolerant) in [("2", false), ("2;50%", true)] {
        let user = vec![("wave".into(), text.into())];
        let properties = Some(PublishProperties { user, ..PublishProperties::default() });
        let server = stage.client(SERVER);
        let answer = server.publish_with(TO_EUICC, &c1, ONE, false, properties).await;
        assert!(answer.is_ok());
        stage.reaches(&[A, B], &c1).await;
        let id = stage.newest();
        stage.step(A, &c2(1), &[SERVER]).await;
        assert_eq!(stage.campaign(id).state, if tolerant { Canary } else { Halted });
        if tolerant {
            last_of_the_first(&mut stage, B, &c2(0), &c1).await;
        } else {
            let broker = stage.rig.service.broker();
            assert_eq!(broker.with_control(|control| control.cancel(id)), Some(2));
            assert_eq!(stage.states(id), [Failed, Delivered, Cancelled, Cancelled]);
            stage.step(B, &c2(0), &[SERVER]).await;
        }
    }
    let bad = vec![("wave".into(), "some".into())];
    let properties = Some(PublishProperties { user: bad, ..PublishProperties::default() });
    let answer = stage.client(SERVER).publish_with(TO_EUICC, &c1, ONE, false, properties).await;
    assert_eq!(answer.text.as_deref(), Some("unreadable_envelope"));
    stage.nobody_else().await;
}

#[tokio::test]
async fn those_that_are_there_are_served_first() {
    let mut stage = Stage::start(Version::V5).await;
    stage.take(A).disconnect().await;
    stage.step(SERVER, &wave("2"), &[B, C]).await;
    let id = stage.newest();
    let mut back = stage.rig.reader(1, Dial::v5("back")).await;
    back.expect_nothing().await;
    stage.step(B, &c2(0), &[SERVER]).await;
    stage.tell(C, TO_SM_SR, c2(0)).await;
    stage.receives(&[(E, wave("2").as_bytes()), (SERVER, c2(0).as_bytes())]).await;
    assert_eq!(back.expect_payload().await, wave("2"));
    back.barrier().await;
    assert_eq!(stage.states(id), [Delivered, Done, Done, Delivered]);
}

#[tokio::test]
async fn a_first_wave_that_is_everybody_is_none() {
    let mut stage = Stage::start(Version::V5).await;
    for first in ["4", "1000"] {
        stage.step(SERVER, &wave(first), &GROUP_7).await;
        assert_eq!(stage.campaign(stage.newest()).wave, None);
    }
    stage.refused(SERVER, TO_EUICC, wave("1000000"), "over_quota").await;
}

#[tokio::test]
async fn who_says_nothing_in_time_has_failed() {
    let mut stage = Stage::start(Version::V5).await;
    stage.set(|settings| settings.ttl.msg = Duration::from_millis(50));
    stage.tell(SERVER, TO_EUICC, wave("1")).await;
    let id = stage.newest();
    tokio::time::sleep(Duration::from_millis(60)).await;
    stage.sweep().await;
    assert_eq!(stage.states(id), [Expired; 4]);
    assert_eq!(stage.campaign(id).state, Ended);
    stage.drain().await;
    stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
}

#[tokio::test]
async fn triggers_go_out_in_waves_too() {
    let mut stage = Stage::start(Version::V5).await;
    let trigger = envelope_with(0, 7, "trigger", r#""wave":1,"body":1"#);
    let ret = |rc| envelope_with(0, 7, "ret(trigger)", &format!(r#""rc":{rc},"body":1"#));
    stage.step(SERVER, &trigger, &[A]).await;
    let id = stage.newest();
    stage.tell(A, TO_SM_SR, ret(0)).await;
    let answer = ret(0);
    let expected = [(B, &trigger), (C, &trigger), (E, &trigger), (SERVER, &answer)];
    stage.receives(&expected.map(|(who, text)| (who, text.as_bytes()))).await;
    assert_eq!(stage.campaign(id).state, Running);
    // Who does not agree speaks against it.
    stage.step(SERVER, &trigger, &[A]).await;
    let id = stage.newest();
    stage.step(A, &ret(1), &[SERVER]).await;
    assert_eq!(stage.campaign(id).state, Halted);
}
