//! The stamp for servers of 3.1.1 (section 6): the member `src` names the proven sender, because
//! `{0, gid, ret(…)}` hides it and such servers see no user property.

use serde_json::Value;
use simcast::client::envelope::{Envelope, Kind, Wire};
use simcast::config::{Config, Stamp};
use simcast::mqtt::Version;
use simcast::rsp::GroupSettings;

use crate::common::{TO_EUICC, TO_SM_SR, envelope, envelope_with, kind_of, nid};
use crate::messages::stamps;
use crate::stage::{A, B, GROUP_7, SERVER, Stage, VERSIONS};

const STAMPS: [Stamp; 2] = [Stamp::Property, Stamp::Member];

async fn stage(version: Version) -> Stage {
    Stage::with(version, |config: &mut Config| config.rsp.stamp = Stamp::Member).await
}

/// What a server gets of an envelope in JSON.
fn stamped(device: u128, payload: &str) -> String {
    format!(r#"{{"src":"{}",{}"#, nid(device), &payload[1..])
}

impl Stage {
    /// A device says something that is taken, and the server gets it with its stamp.
    async fn says(&mut self, device: usize, payload: &str) {
        self.tell(device, TO_SM_SR, payload).await;
        self.reaches(&[SERVER], stamped(device as u128, payload)).await;
    }
}

#[tokio::test]
async fn every_message_of_a_device_names_its_sender() {
    for version in VERSIONS {
        let mut stage = stage(version).await;
        stage.says(A, &envelope(1, 0, "trigger")).await;
        stage.says(B, &envelope(0, 7, "trigger")).await;
        stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
        stage.step(SERVER, &envelope(0, 7, "msg"), &GROUP_7).await;
        for member in GROUP_7 {
            stage.says(member, &envelope(0, 7, "ret(trigger)")).await;
            let c2 = envelope_with(0, 7, "ret(msg)", r#""rc":3,"body":{"src":"mine"}"#);
            stage.says(member, &c2).await;
        }
    }
}

#[tokio::test]
async fn a_server_of_version_5_finds_the_sender_in_both_places() {
    let mut stage = stage(Version::V5).await;
    stage.tell(A, TO_SM_SR, envelope(0, 7, "trigger")).await;
    let publish = stage.client(SERVER).expect_publish().await;
    assert_eq!(stamps(&publish), [nid(1).to_string()]);
    assert_eq!(publish.payload, stamped(1, &envelope(0, 7, "trigger")));
}

#[tokio::test]
async fn cbor_is_stamped_in_cbor() {
    for version in VERSIONS {
        let mut stage = stage(version).await;
        stage.step(SERVER, &envelope(0, 7, "msg"), &GROUP_7).await;
        let answer = Envelope::new(0, 7, Kind::RetMsg).with_rc(2).with_body(b"\x00\xff".to_vec());
        stage.tell(B, TO_SM_SR, answer.encode(Wire::Cbor)).await;
        let publish = stage.client(SERVER).expect_publish().await;
        assert_eq!(publish.payload[0] >> 5, 5, "a map of CBOR");
        let received = Envelope::decode(&publish.payload).unwrap();
        assert_eq!(received, Envelope { src: Some(nid(2).get()), ..answer });
        stage.nobody_else().await;
    }
}

#[tokio::test]
async fn nobody_writes_the_stamp_but_the_broker() {
    for (version, stamp) in VERSIONS.into_iter().flat_map(|v| STAMPS.map(|stamp| (v, stamp))) {
        let mut stage = Stage::with(version, |config: &mut Config| config.rsp.stamp = stamp).await;
        let own = format!(r#""src":"{}","body":1"#, nid(1));
        let other = format!(r#""src":"{}","body":1"#, nid(2));
        for rest in [&own, &other, r#""src":null,"body":1"#] {
            let payload = envelope_with(1, 0, "trigger", rest);
            stage.refused(A, TO_SM_SR, payload, "src_reserved").await;
        }
        let mut cbor = Envelope::new(nid(1).get(), 0, Kind::Trigger);
        cbor.src = Some(nid(1).get());
        stage.refused(A, TO_SM_SR, cbor.encode(Wire::Cbor), "src_reserved").await;
        // Between servers and devices it means nothing.
        stage.step(SERVER, &envelope_with(1, 0, "msg", &own), &[A]).await;
    }
}

#[tokio::test]
async fn without_it_the_envelope_stays_as_it_was() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.step(A, &envelope(0, 7, "trigger"), &[SERVER]).await;
    }
}

#[tokio::test]
async fn what_the_control_unit_says_itself_names_no_device() {
    let mut stage = stage(Version::V311).await;
    let request = envelope(2, 7, &kind_of("req", 1));
    stage.step(A, &request, &[B]).await;
    stage.tell(B, TO_EUICC, envelope(1, 7, &kind_of("profile", 2))).await;
    stage.client(A).expect_publish().await;
    stage.client(A).barrier().await;
    let notice: Value = serde_json::from_str(&stage.client(SERVER).expect_payload().await).unwrap();
    assert_eq!((notice.get("src"), &notice["body"]["event"]), (None, &"profile-change".into()));
    // Each of those that are told together says who it is.
    let coalesce = Some(std::time::Duration::from_millis(700));
    stage.set_group(7, GroupSettings { coalesce, ..GroupSettings::default() });
    stage.tell(A, TO_SM_SR, envelope(0, 7, "trigger")).await;
    stage.tell(B, TO_SM_SR, envelope(0, 7, "trigger")).await;
    let all: Value = serde_json::from_str(&stage.client(SERVER).expect_payload().await).unwrap();
    assert_eq!((all.get("src"), &all["nid"]), (None, &0.into()));
    let who = [0, 1].map(|at| all["body"]["requesters"][at]["nid"].as_str().unwrap().to_owned());
    assert_eq!(who, [1, 2].map(|number| nid(number).to_string()));
    // One that stays alone is stamped like any other.
    stage.says(A, &envelope(0, 7, "trigger")).await;
}
