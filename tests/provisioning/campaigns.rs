//! Campaigns (section 6): how far each device is with an A1, B1 or C1, from what it sends and
//! acknowledges alone; a retry to the missing, a withdrawal of what is still queued.

use std::time::Duration;

use simcast::mqtt::{QoS, Version};
use simcast::rsp::DeviceState::{
    Cancelled, Delivered, Expired, Failed, Gone, Ok as Done, Queued, Refused,
};
use simcast::rsp::{CampaignId, CampaignState, MessageId, RetryError, Settings, Target, Tid};

use crate::common::{Dial, TO_EUICC, TO_SM_SR, envelope, envelope_with, gid, nid};
use crate::stage::{A, B, C, D, E, GROUP_7, SERVER, Stage, VERSIONS};

const ONE: QoS = QoS::AtLeastOnce;

/// A C1 to group 7 that can be told from others.
fn c1(number: usize) -> String {
    envelope_with(0, 7, "msg", &format!(r#""body":{number}"#))
}

/// An answer in the name of group 7, with its result.
fn ret(kind: &str, rc: i64) -> String {
    envelope_with(0, 7, &format!("ret({kind})"), &format!(r#""rc":{rc},"body":1"#))
}

impl Stage {
    /// Sends a campaign's message again.
    fn retry(&self, id: CampaignId, failed_too: bool) -> Result<u32, RetryError> {
        let broker = self.rig.service.broker();
        let retried = broker.with_control(|c| c.retry(id, failed_too, broker.now()));
        retried.map(|(count, _wake)| count)
    }

    fn cancel(&self, id: CampaignId) -> Option<u32> {
        self.rig.service.broker().with_control(|control| control.cancel(id))
    }

    /// A trigger to the group wakes all its members; those listed have something before it.
    async fn nudge(&mut self, before: &[(usize, &str)]) {
        let trigger = envelope(0, 7, "trigger");
        self.tell(SERVER, TO_EUICC, &trigger).await;
        let mut expected: Vec<_> =
            before.iter().map(|(who, text)| (*who, text.as_bytes())).collect();
        let present = GROUP_7.into_iter().filter(|who| self.is_here(*who));
        expected.extend(present.map(|who| (who, trigger.as_bytes())));
        self.receives(&expected).await;
    }
}

#[tokio::test]
async fn each_device_is_as_far_as_it_has_shown() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.take(C).disconnect().await;
        stage.client(E).auto_ack = false;
        stage.tell(SERVER, TO_EUICC, c1(0)).await;
        let id = stage.newest();
        for member in [A, B] {
            assert_eq!(stage.client(member).expect_payload().await, c1(0));
        }
        // What is on its way to E, and waits for C, is queued.
        let under_way = stage.client(E).expect_publish().await;
        stage.nobody_else().await;
        assert_eq!(stage.states(id), [Delivered, Delivered, Queued, Queued]);
        stage.step(A, &ret("msg", 0), &[SERVER]).await;
        stage.step(B, &ret("msg", -1), &[SERVER]).await;
        assert_eq!(stage.states(id), [Done, Failed, Queued, Queued]);
        stage.client(E).acknowledge(&under_way).await;
        stage.nobody_else().await;
        assert_eq!(stage.states(id), [Done, Failed, Queued, Delivered]);
        let campaign = stage.campaign(id);
        let tally = campaign.tally;
        assert_eq!((tally.total(), tally.answered(), tally.open()), (4, 2, 2));
        assert_eq!(campaign.state, CampaignState::Running);
        // Who comes later catches up; who leaves is not waited for.
        let mut back = stage.rig.reader(3, Dial::new(version, "back")).await;
        assert_eq!(back.expect_payload().await, c1(0));
        back.barrier().await;
        let broker = stage.rig.service.broker();
        broker.with_control(|control| control.put_device(nid(5), &[gid(8)], "")).unwrap();
        assert_eq!(stage.states(id), [Done, Failed, Delivered]);
        assert_eq!(stage.campaign(id).tally.of(Gone), 1);
        assert!(back.publish(TO_SM_SR, ret("msg", 0), ONE).await.is_ok());
        stage.reaches(&[SERVER], ret("msg", 0)).await;
        assert_eq!(stage.campaign(id).state, CampaignState::Ended);
        assert_eq!(stage.campaign(id).tally.total(), 3);
    }
}

#[tokio::test]
async fn a_campaign_is_shown_as_it_was_published() {
    let mut stage = Stage::start(Version::V5).await;
    let named = r#""campaign":"autumn","tid":"t","body":1"#;
    stage.step(SERVER, &envelope_with(0, 7, "msg", named), &GROUP_7).await;
    let campaign = stage.campaign(stage.newest());
    assert_eq!((campaign.message, campaign.target), (MessageId::C1, Target::Group(gid(7))));
    assert_eq!((&*campaign.server, campaign.name.as_deref()), ("sm-sr.test", Some("autumn")));
    assert_eq!(campaign.tid, Some(Tid::from("t")));
    assert!(campaign.retriable && campaign.eta.is_none(), "nobody has answered");
    for member in GROUP_7 {
        stage.tell(member, TO_SM_SR, ret("msg", 0)).await;
    }
    stage.drain().await;
    let campaign = stage.campaign(stage.newest());
    assert!(campaign.rate > 0.0 && campaign.eta == Some(Duration::ZERO));
    assert!(!campaign.retriable, "there is nobody to send it to");
    for (payload, message, device) in
        [(envelope(6, 0, "trigger"), MessageId::A1, 6), (envelope(4, 0, "msg"), MessageId::B1, 4)]
    {
        stage.step(SERVER, &payload, &[device as usize]).await;
        let campaign = stage.campaign(stage.newest());
        assert_eq!((campaign.message, campaign.merged), (message, false));
        assert_eq!(campaign.target, Target::Device(Some(nid(device))));
        assert_eq!(campaign.tally.total(), 1);
    }
    // What asks for no answer is no campaign.
    let last = stage.newest();
    stage.step(D, &envelope(4, 0, "trigger"), &[SERVER]).await;
    stage.step(SERVER, &envelope(4, 0, "ret(trigger)"), &[D]).await;
    assert_eq!(stage.newest(), last);
}

#[tokio::test]
async fn who_does_not_agree_has_refused_and_who_is_silent_expires() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
        let id = stage.newest();
        stage.step(A, &ret("trigger", 0), &[SERVER]).await;
        stage.step(B, &ret("trigger", 4), &[SERVER]).await;
        assert_eq!(stage.states(id), [Done, Refused, Delivered, Delivered]);
        stage.set(|settings| settings.ttl.trigger = Duration::from_millis(50));
        stage.take(E).disconnect().await;
        stage.tell(SERVER, TO_EUICC, envelope(0, 7, "trigger")).await;
        stage.drain().await;
        let id = stage.newest();
        tokio::time::sleep(Duration::from_millis(60)).await;
        stage.sweep().await;
        assert_eq!(stage.states(id), [Expired; 4]);
        assert_eq!(stage.campaign(id).state, CampaignState::Ended);
        stage.refused(A, TO_SM_SR, ret("trigger", 0), "duplicate_answer").await;
        stage.refused(C, TO_SM_SR, envelope(3, 0, "ret(msg)"), "unsolicited_answer").await;
    }
}

#[tokio::test]
async fn what_no_client_of_a_device_takes_has_failed() {
    let mut stage = Stage::start(Version::V5).await;
    stage.take(A).disconnect().await;
    let large = envelope_with(0, 7, "msg", &format!(r#""body":"{}""#, "x".repeat(300)));
    stage.tell(SERVER, TO_EUICC, &large).await;
    let id = stage.newest();
    stage.drain().await;
    let mut narrow = stage.rig.reader(1, Dial::v5("narrow").packet_bytes_max(200)).await;
    narrow.expect_nothing().await;
    assert_eq!(stage.states(id), [Failed, Delivered, Delivered, Delivered]);
}

#[tokio::test]
async fn a_retry_comes_to_the_missing_and_to_nobody_else() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.take(E).disconnect().await;
        stage.step(SERVER, &c1(0), &[A, B, C]).await;
        let id = stage.newest();
        stage.step(A, &ret("msg", 0), &[SERVER]).await;
        stage.step(C, &ret("msg", 1), &[SERVER]).await;
        // B has it and has said nothing; E has it in its mail.
        assert_eq!(stage.retry(id, false), Ok(1));
        assert_eq!(stage.states(id), [Done, Queued, Failed, Queued]);
        stage.nudge(&[(B, &c1(0))]).await;
        assert_eq!(stage.states(id), [Done, Delivered, Failed, Queued]);
        assert_eq!(stage.retry(id, true), Ok(2));
        stage.nudge(&[(B, &c1(0)), (C, &c1(0))]).await;
        for member in [B, C] {
            stage.step(member, &ret("msg", 0), &[SERVER]).await;
        }
        assert_eq!(stage.retry(id, true), Err(RetryError::NobodyMissing));
        stage.refused(B, TO_SM_SR, ret("msg", 0), "duplicate_answer").await;
        let mut back = stage.rig.reader(5, Dial::new(version, "back")).await;
        let expected = [c1(0), envelope(0, 7, "trigger"), envelope(0, 7, "trigger")];
        assert_eq!(back.expect_payloads(3).await, expected);
        back.expect_nothing().await;
        assert!(back.publish(TO_SM_SR, ret("msg", 0), ONE).await.is_ok());
        stage.reaches(&[SERVER], ret("msg", 0)).await;
        assert_eq!(stage.states(id), [Done; 4]);
        assert_eq!(stage.campaign(id).state, CampaignState::Ended);
        assert_eq!(stage.retry(CampaignId(id.0 + 1000), true), Err(RetryError::Unknown));
    }
}

#[tokio::test]
async fn who_did_not_come_in_time_is_tried_again_once() {
    let mut stage = Stage::start(Version::V5).await;
    for member in [B, E] {
        stage.take(member).disconnect().await;
    }
    stage.set(|settings| settings.ttl.msg = Duration::from_millis(500));
    stage.tell(SERVER, TO_EUICC, c1(0)).await;
    let id = stage.newest();
    stage.publish(A, TO_SM_SR, ret("msg", 0)).await;
    stage.drain().await;
    tokio::time::sleep(Duration::from_millis(510)).await;
    stage.sweep().await;
    stage.set(|settings| settings.ttl = Settings::default().ttl);
    assert_eq!(stage.states(id), [Done, Expired, Expired, Expired]);
    assert_eq!(stage.retry(id, false), Ok(3));
    stage.nudge(&[(C, &c1(0))]).await;
    let mut back = stage.rig.reader(2, Dial::v5("back")).await;
    // Once: what had expired is not there beside it.
    assert_eq!(back.expect_payloads(2).await, [c1(0), envelope(0, 7, "trigger")]);
    back.expect_nothing().await;
    assert_eq!(stage.states(id), [Done, Delivered, Delivered, Queued]);
    stage.step(C, &ret("msg", 0), &[SERVER]).await;
}

#[tokio::test]
async fn a_withdrawal_takes_back_what_is_queued_and_nothing_else() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.take(A).disconnect().await;
        stage.client(B).auto_ack = false;
        stage.tell(SERVER, TO_EUICC, c1(0)).await;
        let id = stage.newest();
        stage.tell(SERVER, TO_EUICC, c1(1)).await;
        for member in [C, E] {
            assert_eq!(stage.client(member).expect_payloads(2).await, [c1(0), c1(1)]);
        }
        let under_way = stage.client(B).expect_publish().await;
        stage.drain().await;
        stage.step(C, &ret("msg", 0), &[SERVER]).await;
        // A alone has not been given it.
        assert_eq!(stage.cancel(id), Some(1));
        assert_eq!(stage.states(id), [Cancelled, Queued, Done, Delivered]);
        assert_eq!(stage.cancel(id), Some(0));
        // What is on its way arrives, and is answered.
        stage.client(B).acknowledge(&under_way).await;
        stage.step(B, &ret("msg", 0), &[SERVER]).await;
        stage.step(E, &ret("msg", 0), &[SERVER]).await;
        assert_eq!(stage.states(id), [Cancelled, Done, Done, Done]);
        assert_eq!(stage.campaign(id).state, CampaignState::Ended);
        let mut back = stage.rig.reader(1, Dial::new(version, "back")).await;
        assert_eq!(back.expect_payload().await, c1(1));
        back.expect_nothing().await;
        assert_eq!(stage.retry(id, true), Err(RetryError::NobodyMissing));
    }
}

#[tokio::test]
async fn a_withdrawn_message_cannot_be_answered() {
    let mut stage = Stage::start(Version::V5).await;
    stage.take(A).disconnect().await;
    for payload in [envelope(1, 0, "msg"), envelope(1, 0, "trigger")] {
        stage.step(SERVER, &payload, &[]).await;
        let id = stage.newest();
        assert_eq!(stage.cancel(id), Some(1));
        assert_eq!(stage.states(id), [Cancelled]);
    }
    let mut back = stage.rig.reader(1, Dial::v5("back")).await;
    back.expect_nothing().await;
    for kind in ["ret(msg)", "ret(trigger)"] {
        let answer = back.publish(TO_SM_SR, envelope(1, 0, kind), ONE).await;
        assert_eq!(answer.text.as_deref(), Some("unsolicited_answer"));
    }
    assert_eq!(stage.rig.counter("simcast_rsp_mail_messages ").await, 0);
    assert_eq!(stage.cancel(CampaignId(1000)), None);
    stage.nobody_else().await;
}
