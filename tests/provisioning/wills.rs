//! Wills on the two topics: judged at CONNECT and again when they are published.

use simcast::mqtt::{QoS, ReasonCode, Version};
use simcast::rsp::{Initiator, Refusal, Settings};

use crate::common::{Denied, Dial, Rig, TO_EUICC, TO_SM_SR, envelope, kind_of};
use crate::stage::{B, SERVER, Stage};

#[tokio::test]
async fn a_legal_will_of_a_device_is_delivered() {
    for version in [Version::V311, Version::V5] {
        let mut stage = Stage::start(version).await;
        let will = envelope(1, 0, "trigger");
        let dial = Dial::new(version, "dying").will(TO_SM_SR, will.clone());
        stage.rig.device(1, dial.clone()).await.vanish().await;
        stage.reaches(&[SERVER], &will).await;
        // A proper goodbye takes it back.
        stage.rig.device(1, dial).await.disconnect().await;
        stage.nobody_else().await;
    }
}

#[tokio::test]
async fn an_exchange_may_be_asked_for_by_a_will() {
    let mut stage = Stage::start(Version::V5).await;
    let will = envelope(2, 7, &kind_of("req", 1));
    let dial = Dial::v5("dying").will(TO_EUICC, will.clone());
    stage.rig.device(1, dial).await.vanish().await;
    stage.reaches(&[B], &will).await;
}

#[tokio::test]
async fn a_will_that_breaks_a_rule_is_refused_at_connect() {
    let rig = Rig::start().await;
    let wills = [
        (TO_SM_SR, envelope(2, 0, "trigger"), Refusal::SpoofedNid),
        (TO_SM_SR, envelope(0, 8, "trigger"), Refusal::ForeignGid),
        (TO_SM_SR, envelope(1, 0, "ret(trigger)"), Refusal::UnsolicitedAnswer),
        (TO_SM_SR, "gone".to_owned(), Refusal::UnreadableEnvelope),
        (TO_EUICC, envelope(2, 0, "msg"), Refusal::ServerTypeFromDevice),
        (TO_EUICC, envelope(4, 7, &kind_of("req", 1)), Refusal::CrossGroupExchange),
    ];
    for (topic, payload, refusal) in wills {
        for version in [Version::V311, Version::V5] {
            let before = rig.refusals(refusal.name()).await;
            let dial = Dial::new(version, "d").will(topic, payload.clone());
            let denied = rig.try_device(1, dial).await.err();
            let code = refusal.reason_code();
            match denied.expect("a refusal") {
                Denied::ConnAck(reason) if version == Version::V5 => assert_eq!(reason, code),
                Denied::ConnAck(reason) => assert!(reason.is_error()),
                // What 3.1.1 has no word for.
                Denied::Closed => {
                    assert_eq!((version, code.return_code()), (Version::V311, None), "{refusal}");
                }
            }
            assert_eq!(rig.refusals(refusal.name()).await, before + 1, "{refusal}");
        }
    }
    assert_eq!(rig.counter("simcast_connects_total{result=\"bad_will\"}").await, 12);
    assert_eq!(rig.counter("simcast_sessions{").await, 0, "no session is left behind");
}

#[tokio::test]
async fn a_retained_will_and_a_strangers_will_are_refused() {
    let rig = Rig::start().await;
    let legal = envelope(1, 0, "trigger");
    let retained = Dial::v5("d").will(TO_SM_SR, legal.clone()).will_retained();
    let denied = rig.try_device(1, retained).await.err();
    assert_eq!(denied, Some(Denied::ConnAck(ReasonCode::ImplementationSpecificError)));
    for topic in [TO_EUICC, TO_SM_SR] {
        let dial = Dial::v5("c").will(topic, legal.clone());
        let denied = rig.try_client(dial).await.err();
        assert_eq!(denied, Some(Denied::ConnAck(ReasonCode::NotAuthorized)), "{topic}");
    }
    let stranger = Dial::v5("x").will(TO_SM_SR, envelope(99, 0, "trigger"));
    let denied = rig.try_device(99, stranger).await.err();
    assert_eq!(denied, Some(Denied::ConnAck(ReasonCode::NotAuthorized)));
}

#[tokio::test]
async fn a_will_that_has_become_illegal_is_refused_when_it_is_published() {
    let mut stage = Stage::start(Version::V5).await;
    let dial = Dial::v5("dying").will(TO_SM_SR, envelope(1, 0, "trigger"));
    let dying = stage.rig.device(1, dial).await;
    stage.rig.service.broker().with_control(|control| {
        let settings = Settings { initiator: Initiator::Server, ..Settings::default() };
        control.set_settings(settings).unwrap();
    });
    dying.vanish().await;
    stage.nobody_else().await;
    assert_eq!(stage.rig.refusals("initiator_not_permitted").await, 1);
}

#[tokio::test]
async fn a_group_that_is_left_takes_the_will_in_its_name_along() {
    let mut stage = Stage::start(Version::V5).await;
    let will = envelope(0, 7, "trigger");
    let dying = stage.rig.device(1, Dial::v5("dying").will(TO_SM_SR, will.clone())).await;
    let broker = stage.rig.service.broker();
    broker.with_control(|control| control.put_device(crate::common::nid(1), &[], "")).unwrap();
    dying.vanish().await;
    stage.nobody_else().await;
    assert_eq!(stage.rig.refusals("foreign_gid").await, 1);
}

#[tokio::test]
async fn a_servers_will_reaches_the_devices_it_names() {
    let mut stage = Stage::start(Version::V5).await;
    let will = envelope(2, 0, "trigger");
    let server = stage.rig.server(Dial::v5("second").will(TO_EUICC, will.clone())).await;
    server.vanish().await;
    stage.reaches(&[B], &will).await;
    stage.client(B).publish(TO_SM_SR, envelope(2, 0, "ret(trigger)"), QoS::AtLeastOnce).await;
    stage.reaches(&[SERVER], envelope(2, 0, "ret(trigger)")).await;
}
