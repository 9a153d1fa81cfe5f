//! `auto` (section 6, [0119]): equal B1s to enough members of one group within the window are
//! delivered as one message to them; their devices may answer by B2 or C2. What is not equal, or
//! not enough, goes as it came, and nothing is overtaken.

use std::time::Duration;

use simcast::client::envelope::{Envelope, Kind, Wire};
use simcast::mqtt::{PublishProperties, QoS, Version};
use simcast::rsp::DeviceState::{Delivered, Failed, Ok as Done, Queued};
use simcast::rsp::{Auto, CampaignState, GroupSettings, MessageId, Mode, Target};

use crate::common::{Dial, TO_EUICC, TO_SM_SR, envelope, envelope_with, gid, nid};
use crate::stage::{A, B, C, D, E, F, SERVER, Stage, VERSIONS, WAYS};

/// From three on, within a time that is long enough for all that a test has to say.
fn auto() -> GroupSettings {
    GroupSettings {
        auto: Some(Auto::On),
        auto_members: Some(3),
        auto_window: Some(Duration::from_millis(700)),
        ..GroupSettings::default()
    }
}

async fn stage(version: Version) -> Stage {
    Stage::with(version, |config| drop(config.rsp.groups.insert(gid(7), auto()))).await
}

/// A B1.
fn msg(device: u128, body: &str) -> String {
    envelope_with(device, 0, "msg", &format!(r#""body":"{body}""#))
}

/// What those with the body `x` are as one.
const MERGED: &str = r#"{"nid":0,"gid":7,"type":"msg","body":"x"}"#;

async fn tell(stage: &mut Stage, messages: &[String]) {
    for message in messages {
        stage.tell(SERVER, TO_EUICC, message).await;
    }
}

/// The next message of a device.
async fn next(stage: &mut Stage, who: usize) -> String {
    stage.client(who).expect_payload().await
}

#[tokio::test]
async fn equal_messages_to_enough_members_are_delivered_as_one() {
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, auto()).await;
        // Only the nid differs, and who is in another group or in none is no member.
        tell(&mut stage, &[1, 2, 4, 6, 3].map(|device| msg(device, "x"))).await;
        for member in [A, B, C] {
            assert_eq!(next(&mut stage, member).await, MERGED);
        }
        for (other, device) in [(D, 4), (F, 6)] {
            assert_eq!(next(&mut stage, other).await, msg(device, "x"));
        }
        stage.nobody_else().await;
        stage.decided("merged", 1).await;
        assert_eq!(stage.rig.counter("simcast_rsp_messages_saved_total").await, 2);
    }
}

#[tokio::test]
async fn what_was_merged_is_answered_in_either_form() {
    for version in VERSIONS {
        let mut stage = stage(version).await;
        tell(&mut stage, &[1, 2, 3].map(|device| msg(device, "x"))).await;
        for member in [A, B, C] {
            assert_eq!(next(&mut stage, member).await, MERGED);
        }
        stage.nobody_else().await;
        let id = stage.newest();
        let campaign = stage.campaign(id);
        assert_eq!((campaign.message, campaign.merged), (MessageId::B1, true));
        assert_eq!(campaign.target, Target::Group(gid(7)));
        stage.step(A, &envelope(1, 0, "ret(msg)"), &[SERVER]).await;
        stage.step(B, &envelope(0, 7, "ret(msg)"), &[SERVER]).await;
        assert_eq!(stage.states(id), [Done, Done, Delivered]);
        let failed = envelope_with(3, 0, "ret(msg)", r#""rc":9,"body":1"#);
        stage.step(C, &failed, &[SERVER]).await;
        assert_eq!(stage.states(id), [Done, Done, Failed]);
        assert_eq!(stage.campaign(id).state, CampaignState::Ended);
        for (member, payload) in [(A, envelope(0, 7, "ret(msg)")), (B, envelope(2, 0, "ret(msg)"))]
        {
            stage.refused(member, TO_SM_SR, payload, "duplicate_answer").await;
        }
        // A member that was not addressed has nothing to answer.
        let foreign = envelope(0, 7, "ret(msg)");
        stage.refused(E, TO_SM_SR, foreign, "unsolicited_answer").await;
    }
}

#[tokio::test]
async fn too_few_go_as_they_came() {
    for version in VERSIONS {
        let mut stage = stage(version).await;
        tell(&mut stage, &[1, 2].map(|device| msg(device, "x"))).await;
        assert_eq!(next(&mut stage, A).await, msg(1, "x"));
        assert_eq!(next(&mut stage, B).await, msg(2, "x"));
        stage.nobody_else().await;
        stage.decided("not_merged", 1).await;
        stage.decided("merged", 0).await;
        stage.refused(A, TO_SM_SR, envelope(0, 7, "ret(msg)"), "unsolicited_answer").await;
        stage.step(A, &envelope(1, 0, "ret(msg)"), &[SERVER]).await;
    }
}

#[tokio::test]
async fn what_differs_in_anything_but_its_device_is_not_equal() {
    let mut stage = stage(Version::V5).await;
    let (one, two) = (nid(1).get(), nid(2).get());
    let cbor = Envelope::new(two, 0, Kind::Msg).encode(Wire::Cbor);
    // Another body, another transaction, another encoding, other properties.
    let tid = |device, tid| envelope_with(device, 0, "msg", &format!(r#""tid":{tid},"body":"x""#));
    let messages = [msg(1, "x"), msg(2, "y"), msg(3, "x")];
    tell(&mut stage, &messages).await;
    assert_eq!(next(&mut stage, A).await, messages[0]);
    assert_eq!(next(&mut stage, B).await, messages[1]);
    assert_eq!(next(&mut stage, C).await, messages[2]);
    let messages = [tid(1, 1), tid(2, 2), tid(3, 1)];
    tell(&mut stage, &messages).await;
    assert_eq!(next(&mut stage, A).await, messages[0]);
    assert_eq!(next(&mut stage, B).await, messages[1]);
    assert_eq!(next(&mut stage, C).await, messages[2]);
    let json = Envelope::new(one, 0, Kind::Msg).encode(Wire::Json);
    stage.tell(SERVER, TO_EUICC, &json).await;
    stage.tell(SERVER, TO_EUICC, &cbor).await;
    let user = vec![("campaign".into(), "7".into())];
    let properties = Some(PublishProperties { user, ..PublishProperties::default() });
    let json = String::from_utf8(json).unwrap().replace(&nid(1).to_string(), &nid(3).to_string());
    let server = stage.client(SERVER);
    let answer = server.publish_with(TO_EUICC, &json, QoS::AtLeastOnce, false, properties).await;
    assert!(answer.is_ok());
    for member in [A, B, C] {
        stage.client(member).expect_publish().await;
    }
    stage.nobody_else().await;
    stage.decided("merged", 0).await;
}

#[tokio::test]
async fn cbor_is_merged_with_cbor() {
    let mut stage = stage(Version::V5).await;
    let cbor = |nid: u128, gid| {
        let envelope = Envelope::new(nid, gid, Kind::Msg);
        envelope.with_body(vec![0; 300]).encode(Wire::Cbor)
    };
    for number in [1, 2, 3] {
        stage.tell(SERVER, TO_EUICC, cbor(nid(number).get(), 0)).await;
    }
    for member in [A, B, C] {
        let publish = stage.client(member).expect_publish().await;
        let envelope = Envelope::decode(&publish.payload).unwrap();
        assert_eq!((envelope.nid, envelope.gid, envelope.kind), (0, 7, Kind::Msg));
        assert_eq!(envelope.body.to_bytes(), vec![0; 300]);
    }
    stage.nobody_else().await;
    stage.decided("merged", 1).await;
}

#[tokio::test]
async fn nothing_overtakes_what_waits_for_its_equals() {
    for version in VERSIONS {
        let mut stage = stage(version).await;
        // Enough of them: at once as one. Too few: at once as they came.
        for members in [&[1, 2, 3][..], &[1, 2]] {
            let merged = members.len() == 3;
            let messages: Vec<String> = members.iter().map(|device| msg(*device, "x")).collect();
            tell(&mut stage, &messages).await;
            stage.tell(SERVER, TO_EUICC, envelope(1, 0, "trigger")).await;
            let first = |device| if merged { MERGED.to_owned() } else { msg(device, "x") };
            assert_eq!(next(&mut stage, A).await, first(1));
            assert_eq!(next(&mut stage, A).await, envelope(1, 0, "trigger"));
            assert_eq!(next(&mut stage, B).await, first(2));
            stage.drain().await;
        }
        // So it is before a message to the group, and before an equal one to the same device.
        tell(&mut stage, &[msg(1, "x"), msg(1, "x"), envelope(0, 7, "trigger")]).await;
        let expected = [msg(1, "x"), msg(1, "x"), envelope(0, 7, "trigger")];
        assert_eq!(stage.client(A).expect_payloads(3).await, expected);
        assert_eq!(next(&mut stage, E).await, envelope(0, 7, "trigger"));
        stage.drain().await;
    }
}

#[tokio::test]
async fn it_takes_a_group_in_which_both_forms_are_permitted() {
    let mut stage = Stage::start(Version::V5).await;
    stage.set_group(7, GroupSettings { mode: Some(Mode::Single), ..auto() });
    for device in [1, 2, 3] {
        stage.step(SERVER, &msg(device, "x"), &[device as usize]).await;
    }
    stage.set_group(7, GroupSettings::default());
    for device in [1, 2, 3] {
        stage.step(SERVER, &msg(device, "x"), &[device as usize]).await;
    }
    // What waits when it is switched off waits to the end of its window.
    stage.set_group(7, auto());
    tell(&mut stage, &[1, 2, 3].map(|device| msg(device, "y"))).await;
    stage.set_group(7, GroupSettings::default());
    for member in [A, B, C] {
        stage.client(member).expect_publish().await;
    }
    stage.nobody_else().await;
}

#[tokio::test]
async fn members_that_are_away_get_it_later_and_a_retry_comes_to_the_missing_alone() {
    let mut stage = stage(Version::V5).await;
    stage.take(C).disconnect().await;
    tell(&mut stage, &[1, 2, 3].map(|device| msg(device, "x"))).await;
    for member in [A, B] {
        assert_eq!(next(&mut stage, member).await, MERGED);
    }
    stage.nobody_else().await;
    let id = stage.newest();
    assert_eq!(stage.states(id), [Delivered, Delivered, Queued]);
    stage.step(A, &envelope(1, 0, "ret(msg)"), &[SERVER]).await;
    let broker = stage.rig.service.broker();
    let (count, _woken) = broker.with_control(|c| c.retry(id, false, broker.now())).unwrap();
    assert_eq!(count, 1, "B has it and has not answered; C has it in its mail");
    let mut away = stage.rig.reader(3, Dial::v5("back")).await;
    assert_eq!(away.expect_payload().await, MERGED);
    away.expect_nothing().await;
    // Readers are woken by whoever retries; the next message wakes this one.
    stage.tell(SERVER, TO_EUICC, envelope(2, 0, "trigger")).await;
    assert_eq!(
        stage.client(B).expect_payloads(2).await,
        [MERGED.to_owned(), envelope(2, 0, "trigger")]
    );
    stage.nobody_else().await;
}
