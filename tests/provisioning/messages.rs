//! Every row of the message table (section 3): who receives it, and that nobody else does. In
//! version 5 and in 3.1.1.

use simcast::mqtt::{QoS, Version};
use simcast::rsp::{Initiator, MessageId, Peer};

use crate::common::{TO_EUICC, TO_SM_SR, envelope, envelope_with, kind_of, nid};
use crate::stage::{A, B, C, D, E, F, GROUP_7, GROUP_8, SERVER, Stage, VERSIONS};

/// What this file has a test for; a new row of the table must come with one.
const ROWS: [&str; 10] = ["A1", "A2", "B1", "B2", "C1", "C2", "D1", "D2", "E1", "E2"];

#[test]
fn no_row_is_forgotten() {
    assert!(MessageId::ALL.iter().map(|id| id.name()).eq(ROWS));
}

#[tokio::test]
async fn a1_and_a2_between_server_and_one_device() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
        stage.step(A, &envelope(1, 0, "ret(trigger)"), &[SERVER]).await;
        stage.step(SERVER, &envelope(6, 0, "trigger"), &[F]).await;
        stage.step(F, &envelope(6, 0, "ret(trigger)"), &[SERVER]).await;
    }
}

#[tokio::test]
async fn a1_to_a_group_and_the_a2_of_each_member() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
        // Each member once, in its own name or in the group's.
        stage.step(A, &envelope(0, 7, "ret(trigger)"), &[SERVER]).await;
        stage.step(B, &envelope(2, 0, "ret(trigger)"), &[SERVER]).await;
        stage.step(E, &envelope(0, 7, "ret(trigger)"), &[SERVER]).await;
        stage.step(SERVER, &envelope(0, 8, "trigger"), &GROUP_8).await;
    }
}

#[tokio::test]
async fn b1_and_b2() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.step(SERVER, &envelope(1, 0, "msg"), &[A]).await;
        stage.step(A, &envelope(1, 0, "ret(msg)"), &[SERVER]).await;
    }
}

#[tokio::test]
async fn c1_and_the_c2_of_each_member() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.step(SERVER, &envelope(0, 7, "msg"), &GROUP_7).await;
        for member in GROUP_7 {
            stage.step(member, &envelope(0, 7, "ret(msg)"), &[SERVER]).await;
        }
        stage.step(SERVER, &envelope(0, 8, "msg"), &GROUP_8).await;
        stage.step(D, &envelope(0, 8, "ret(msg)"), &[SERVER]).await;
    }
}

#[tokio::test]
async fn d1_and_d2_of_one_device() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.step(A, &envelope(1, 0, "trigger"), &[SERVER]).await;
        stage.step(SERVER, &envelope(1, 0, "ret(trigger)"), &[A]).await;
    }
}

#[tokio::test]
async fn d1_and_d2_in_a_groups_name() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.step(A, &envelope(0, 7, "trigger"), &[SERVER]).await;
        stage.step(SERVER, &envelope(0, 7, "ret(trigger)"), &GROUP_7).await;
    }
}

#[tokio::test]
async fn e1_e2_the_notice_and_the_devices_own_report() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        // Device 1 is new and asks device 2 for its profile.
        stage.step(A, &envelope(2, 7, &kind_of("req", 1)), &[B]).await;
        let profile = envelope(1, 7, &kind_of("profile", 2));
        stage.tell(B, TO_EUICC, &profile).await;
        let (old, new) = (nid(2), nid(1));
        let event = format!(r#"{{"event":"profile-change","from":"{old}","to":"{new}"}}"#);
        let kind = kind_of("profile", 2);
        let notice = envelope_with(1, 7, &kind, &format!(r#""body":{event}"#));
        let received = [(A, profile.as_bytes()), (SERVER, notice.as_bytes())];
        let received = stage.receives(&received).await;
        if version == Version::V5 {
            assert_eq!(stamps(&received[1]), ["control-unit"]);
        }
        // [0069]: the device's own report is a B2 that nobody asked for by a B1, once.
        stage.step(A, &envelope(1, 0, "ret(msg)"), &[SERVER]).await;
        if version == Version::V5 {
            let again = stage.publish(A, TO_SM_SR, envelope(1, 0, "ret(msg)")).await;
            assert_eq!(again.text.as_deref(), Some("unsolicited_answer"));
        }
        stage.nobody_else().await;
    }
}

#[tokio::test]
async fn an_exchange_after_a_servers_trigger() {
    // [0067]: A1 → E1, where the settings ask for it.
    let change = |config: &mut simcast::config::Config| {
        config.rsp.settings.peer = Peer::ServerTriggered;
    };
    let mut stage = Stage::with(Version::V5, change).await;
    let request = envelope(2, 7, &kind_of("req", 1));
    let refused = stage.publish(A, TO_EUICC, &request).await;
    assert_eq!(refused.text.as_deref(), Some("peer_not_permitted"));
    stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
    stage.step(A, &request, &[B]).await;
}

#[tokio::test]
async fn a_device_that_must_begin_opens_the_way_for_the_server() {
    let change = |config: &mut simcast::config::Config| {
        config.rsp.settings.initiator = Initiator::Client;
    };
    let mut stage = Stage::with(Version::V5, change).await;
    let refused = stage.publish(SERVER, TO_EUICC, envelope(1, 0, "trigger")).await;
    assert_eq!(refused.text.as_deref(), Some("initiator_not_permitted"));
    stage.step(A, &envelope(1, 0, "trigger"), &[SERVER]).await;
    stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
}

#[tokio::test]
async fn the_flows_of_the_patent() {
    let mut stage = Stage::start(Version::V5).await;
    // [0068] D → A → B, with transaction ids.
    let of = |device, gid, kind, tid| {
        envelope_with(device, gid, kind, &format!(r#""tid":"{tid}","body":"…""#))
    };
    stage.step(A, &of(1, 0, "trigger", "d"), &[SERVER]).await;
    stage.step(SERVER, &of(1, 0, "ret(trigger)", "d"), &[A]).await;
    stage.step(SERVER, &of(1, 0, "trigger", "a"), &[A]).await;
    stage.step(A, &of(1, 0, "ret(trigger)", "a"), &[SERVER]).await;
    stage.step(SERVER, &of(1, 0, "msg", "b"), &[A]).await;
    stage.step(A, &of(1, 0, "ret(msg)", "b"), &[SERVER]).await;
    // [0067] A → C for a whole group.
    stage.step(SERVER, &of(0, 7, "trigger", "g"), &GROUP_7).await;
    for member in GROUP_7 {
        stage.step(member, &of(0, 7, "ret(trigger)", "g"), &[SERVER]).await;
    }
    stage.step(SERVER, &of(0, 7, "msg", "c"), &GROUP_7).await;
    for member in GROUP_7 {
        stage.step(member, &of(0, 7, "ret(msg)", "c"), &[SERVER]).await;
    }
}

#[tokio::test]
async fn every_message_arrives_at_every_qos() {
    let mut stage = Stage::start(Version::V5).await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let trigger = envelope(3, 0, "trigger");
        assert!(stage.client(SERVER).publish(TO_EUICC, &trigger, qos).await.is_ok());
        stage.reaches(&[C], &trigger).await;
        let answer = envelope(3, 0, "ret(trigger)");
        assert!(stage.client(C).publish(TO_SM_SR, &answer, qos).await.is_ok());
        stage.reaches(&[SERVER], &answer).await;
    }
}

/// The values of the user property `nid`.
pub(crate) fn stamps(publish: &simcast::mqtt::Publish) -> Vec<String> {
    let properties = publish.properties.iter().flat_map(|properties| &properties.user);
    properties.filter(|(name, _)| &**name == "nid").map(|(_, value)| value.to_string()).collect()
}
