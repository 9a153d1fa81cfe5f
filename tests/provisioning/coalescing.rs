//! `coalesce` (section 6): D1s of one group within the window reach the servers as one message that
//! lists who asks; one D2 answers them all, or each is answered by itself.

use std::time::Duration;

use serde_json::Value;
use simcast::client::envelope::{Envelope, Kind, Tid, Wire};
use simcast::config::Config;
use simcast::mqtt::{Publish, QoS, Version};
use simcast::rsp::GroupSettings;

use crate::common::{Dial, TO_EUICC, TO_SM_SR, envelope, envelope_with, gid, nid};
use crate::messages::stamps;
use crate::stage::{A, B, C, D, E, F, GROUP_7, SERVER, Stage, VERSIONS, WAYS};

/// Long enough for all that a test has to say.
const WINDOW: Duration = Duration::from_millis(700);

fn window(coalesce: Duration) -> GroupSettings {
    GroupSettings { coalesce: Some(coalesce), ..GroupSettings::default() }
}

async fn stage(version: Version) -> Stage {
    let change = |config: &mut Config| drop(config.rsp.groups.insert(gid(7), window(WINDOW)));
    Stage::with(version, change).await
}

/// A D1 of a device that can be told from others.
fn wish(device: u128, gid: u64, tid: &str) -> String {
    envelope_with(device, gid, "trigger", &format!(r#""tid":"{tid}","body":{{"of":"{tid}"}}"#))
}

/// What servers receive of several: the group, the transaction, and who asks.
#[derive(Debug)]
struct Gathered {
    tid: String,
    requesters: Vec<Value>,
}

fn gathered(publish: &Publish) -> Gathered {
    let text = String::from_utf8_lossy(&publish.payload);
    let mut json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&json["nid"], &json["gid"], &json["type"]),
        (&0.into(), &7.into(), &"trigger".into())
    );
    assert_eq!(json["body"]["event"], "coalesced-trigger");
    if publish.properties.is_some() {
        assert_eq!(stamps(publish), ["control-unit"]);
    }
    let requesters = json["body"]["requesters"].take().as_array().unwrap().clone();
    Gathered { tid: json["tid"].as_str().unwrap().to_owned(), requesters }
}

fn who(gathered: &Gathered) -> Vec<&str> {
    gathered.requesters.iter().map(|requester| requester["nid"].as_str().unwrap()).collect()
}

/// A D2 with the transaction id of what it answers.
fn d2(device: u128, gid: u64, tid: &str) -> String {
    envelope_with(device, gid, "ret(trigger)", &format!(r#""tid":"{tid}","body":1"#))
}

/// Devices 1, 2 (in their own names) and 3 (in the group's) have asked.
async fn asked(stage: &mut Stage) -> Gathered {
    for (device, payload) in [(A, wish(1, 0, "a")), (B, wish(2, 0, "b")), (C, wish(0, 7, "c"))] {
        stage.tell(device, TO_SM_SR, payload).await;
    }
    let all = gathered(&stage.client(SERVER).expect_publish().await);
    stage.nobody_else().await;
    all
}

#[tokio::test]
async fn triggers_within_the_window_reach_the_server_as_one() {
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, window(WINDOW)).await;
        stage.tell(A, TO_SM_SR, wish(1, 0, "a")).await;
        stage.tell(B, TO_SM_SR, wish(2, 0, "b")).await;
        stage.tell(C, TO_SM_SR, wish(0, 7, "c")).await;
        // Another group has its own window, or none; who is in none waits for nobody.
        stage.tell(F, TO_SM_SR, wish(6, 0, "f")).await;
        let alone = stage.client(SERVER).expect_payload().await;
        assert_eq!(alone, wish(6, 0, "f"));
        if !way.is_global() {
            stage.step(D, &wish(4, 0, "d"), &[SERVER]).await;
        }
        let all = gathered(&stage.client(SERVER).expect_publish().await);
        assert_eq!(who(&all), [1, 2, 3].map(|number| nid(number).to_string()));
        for (requester, tid) in all.requesters.iter().zip(["a", "b", "c"]) {
            assert_eq!((&requester["tid"], &requester["body"]["of"]), (&tid.into(), &tid.into()));
        }
        stage.nobody_else().await;
        stage.decided("coalesced", 1).await;
        assert_eq!(stage.rig.counter("simcast_rsp_triggers_coalesced_total").await, 3);
        assert_eq!(stage.rig.counter("simcast_rsp_messages_saved_total").await, 2);
    }
}

#[tokio::test]
async fn one_answer_to_the_group_answers_all() {
    for version in VERSIONS {
        let mut stage = stage(version).await;
        let all = asked(&mut stage).await;
        stage.step(SERVER, &d2(0, 7, &all.tid), &GROUP_7).await;
        let again = [d2(0, 7, &all.tid), d2(1, 0, "a"), d2(2, 0, "b"), d2(3, 0, "c")];
        for payload in again {
            stage.refused(SERVER, TO_EUICC, payload, "duplicate_answer").await;
        }
        let nobodys = d2(5, 0, "e");
        stage.refused(SERVER, TO_EUICC, nobodys, "unsolicited_answer").await;
    }
}

#[tokio::test]
async fn each_requester_may_be_answered_by_itself() {
    for version in VERSIONS {
        let mut stage = stage(version).await;
        let all = asked(&mut stage).await;
        stage.step(SERVER, &d2(1, 0, "a"), &[A]).await;
        stage.refused(SERVER, TO_EUICC, d2(1, 0, "a"), "duplicate_answer").await;
        // [0068]: a trigger of the server's instead, and an answer after all.
        stage.step(SERVER, &envelope(2, 0, "trigger"), &[B]).await;
        stage.step(B, &envelope(2, 0, "ret(trigger)"), &[SERVER]).await;
        stage.step(SERVER, &d2(2, 0, "b"), &[B]).await;
        // Who asked in the group's name asked for itself, too.
        stage.step(SERVER, &d2(3, 0, "c"), &[C]).await;
        let late = d2(0, 7, &all.tid);
        stage.refused(SERVER, TO_EUICC, late, "duplicate_answer").await;
    }
}

#[tokio::test]
async fn a_trigger_that_stays_alone_goes_as_it_came() {
    for version in VERSIONS {
        let mut stage = stage(version).await;
        for (device, payload) in [(A, wish(1, 0, "a")), (B, wish(0, 7, "b"))] {
            stage.tell(device, TO_SM_SR, &payload).await;
            let publish = stage.client(SERVER).expect_publish().await;
            assert_eq!(publish.payload, payload);
            if version == Version::V5 {
                assert_eq!(stamps(&publish), [nid(device as u128).to_string()]);
            }
            stage.nobody_else().await;
        }
        stage.step(SERVER, &d2(1, 0, "a"), &[A]).await;
        stage.step(SERVER, &d2(0, 7, "b"), &GROUP_7).await;
        stage.decided("coalesced", 0).await;
    }
}

#[tokio::test]
async fn json_and_cbor_are_gathered_together() {
    let mut stage = stage(Version::V5).await;
    let cbor = |body: Vec<u8>, tid| {
        let envelope = Envelope::new(nid(2).get(), 0, Kind::Trigger);
        envelope.with_body(body).with_tid(Some(tid)).encode(Wire::Cbor)
    };
    stage.tell(A, TO_SM_SR, envelope(1, 0, "trigger")).await;
    stage.tell(B, TO_SM_SR, cbor(b"\x00\xff".to_vec(), Tid::Number(7))).await;
    let all = gathered(&stage.client(SERVER).expect_publish().await);
    assert_eq!(who(&all), [1, 2].map(|number| nid(number).to_string()));
    let [json, cbor] = [0, 1].map(|at| &all.requesters[at]);
    assert_eq!((&json["body"]["k"][2], json.get("tid")), (&3.into(), None));
    // A byte string of two bytes, as it stood there.
    assert_eq!((&cbor["body_cbor"], &cbor["tid"]), (&"QgD/".into(), &7.into()));
    stage.step(SERVER, &d2(0, 7, &all.tid), &GROUP_7).await;
}

#[tokio::test]
async fn windows_follow_each_other_and_everybody_keeps_its_place() {
    let mut stage = stage(Version::V5).await;
    let first = asked(&mut stage).await;
    // The same devices again, the other way round; one asks twice.
    for (device, payload) in
        [(C, wish(3, 0, "c2")), (E, wish(0, 7, "e")), (A, wish(1, 0, "a2")), (C, wish(0, 7, "c3"))]
    {
        stage.tell(device, TO_SM_SR, payload).await;
    }
    let second = gathered(&stage.client(SERVER).expect_publish().await);
    let tids: Vec<_> = second.requesters.iter().map(|r| r["tid"].as_str().unwrap()).collect();
    assert_eq!(tids, ["c2", "e", "a2", "c3"]);
    assert_ne!(first.tid, second.tid);
    // Each answer answers its own.
    stage.step(SERVER, &d2(0, 7, &second.tid), &GROUP_7).await;
    stage.step(SERVER, &d2(1, 0, "a"), &[A]).await;
    stage.refused(SERVER, TO_EUICC, d2(1, 0, "a2"), "duplicate_answer").await;
    stage.step(SERVER, &d2(0, 7, &first.tid), &GROUP_7).await;
    stage.decided("coalesced", 2).await;
}

#[tokio::test]
async fn a_window_can_be_opened_and_closed_while_devices_ask() {
    let mut stage = stage(Version::V5).await;
    stage.tell(A, TO_SM_SR, wish(1, 0, "a")).await;
    stage.tell(B, TO_SM_SR, wish(2, 0, "b")).await;
    stage.set_group(7, GroupSettings::default());
    stage.tell(C, TO_SM_SR, wish(3, 0, "c")).await;
    assert_eq!(stage.client(SERVER).expect_payload().await, wish(3, 0, "c"));
    // What waited waits to the end of its own window.
    let all = gathered(&stage.client(SERVER).expect_publish().await);
    assert_eq!(who(&all).len(), 2);
    stage.step(SERVER, &d2(0, 7, &all.tid), &GROUP_7).await;
    stage.set(|settings| settings.coalesce = WINDOW);
    let all = asked(&mut stage).await;
    assert_eq!(who(&all).len(), 3);
}

#[tokio::test]
async fn what_was_gathered_waits_for_a_server_that_is_away() {
    for version in VERSIONS {
        let mut stage = stage(version).await;
        stage.take(SERVER).disconnect().await;
        for (device, payload) in [(A, wish(1, 0, "a")), (B, wish(0, 7, "b"))] {
            stage.tell(device, TO_SM_SR, payload).await;
        }
        stage.decided("coalesced", 1).await;
        let mut server = stage.rig.server(Dial::new(version, "back")).await;
        assert!(!server.subscribe(TO_SM_SR, QoS::AtLeastOnce).await.is_error());
        let all = gathered(&server.expect_publish().await);
        assert_eq!(who(&all), [1, 2].map(|number| nid(number).to_string()));
        server.expect_nothing().await;
    }
}

#[tokio::test]
async fn what_was_gathered_finds_room_where_each_of_it_would() {
    // One device may fill a sixteenth, and one large message more than all.
    for room in [1 << 20, 100 << 10] {
        let mut stage = Stage::with(Version::V5, |config| {
            config.rsp.body_bytes_max = 64 << 10;
            config.rsp.server_inbox_bytes_max = room;
            config.rsp.groups.insert(gid(7), window(WINDOW));
        })
        .await;
        let body = format!(r#""body":"{}""#, "x".repeat(40 << 10));
        for (device, number) in [(A, 1), (B, 2), (C, 3)] {
            stage.tell(device, TO_SM_SR, envelope_with(number, 0, "trigger", &body)).await;
        }
        let all = gathered(&stage.client(SERVER).expect_publish().await);
        assert_eq!(who(&all).len(), 3);
        stage.nobody_else().await;
    }
}

#[tokio::test]
async fn what_was_gathered_comes_in_packets_that_the_server_takes() {
    let mut stage = stage(Version::V5).await;
    stage.take(SERVER).disconnect().await;
    let mut server = stage.rig.server(Dial::v5("small").packet_bytes_max(400)).await;
    assert!(!server.subscribe(TO_SM_SR, QoS::AtLeastOnce).await.is_error());
    for (device, payload) in [(A, wish(1, 0, "a")), (B, wish(2, 0, "b")), (C, wish(0, 7, "c"))] {
        stage.tell(device, TO_SM_SR, payload).await;
    }
    let two = gathered(&server.expect_publish().await);
    assert_eq!(who(&two), [1, 2].map(|number| nid(number).to_string()));
    assert_eq!(server.expect_payload().await, wish(0, 7, "c"));
    server.expect_nothing().await;
    assert!(server.publish(TO_EUICC, d2(0, 7, &two.tid), QoS::AtLeastOnce).await.is_ok());
    stage.reaches(&GROUP_7, d2(0, 7, &two.tid)).await;
    assert!(server.publish(TO_EUICC, d2(0, 7, "c"), QoS::AtLeastOnce).await.is_ok());
    stage.reaches(&GROUP_7, d2(0, 7, "c")).await;
}
