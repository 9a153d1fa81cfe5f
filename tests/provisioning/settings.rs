//! Settings (section 6): what each permits and what it refuses, for all or for one group, from the
//! file or changed while it runs. Group 8 shows that another group's settings are its own.

use std::time::Duration;

use simcast::client::envelope::{Envelope, Kind, Wire};
use simcast::mqtt::Version;
use simcast::rsp::{
    GroupSettings, GroupTtl, Initiator, Mode, Peer, PeerProof, Rate, Settings, TriggerRate, Ttl,
};

use crate::common::{TO_EUICC, TO_SM_SR, envelope, gid, kind_of, nid};
use crate::stage::{A, B, C, D, E, F, GROUP_7, GROUP_8, SERVER, Stage, VERSIONS, WAYS};

const INITIATOR: Option<&str> = Some("initiator_not_permitted");
const MODE: Option<&str> = Some("mode_not_permitted");
const PEER: &str = "peer_not_permitted";

fn initiator(initiator: Initiator) -> GroupSettings {
    GroupSettings { initiator: Some(initiator), ..GroupSettings::default() }
}

fn mode(mode: Mode) -> GroupSettings {
    GroupSettings { mode: Some(mode), ..GroupSettings::default() }
}

fn peer(peer: Peer) -> GroupSettings {
    GroupSettings { peer: Some(peer), ..GroupSettings::default() }
}

#[tokio::test]
async fn where_the_server_begins_devices_do_not() {
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, initiator(Initiator::Server)).await;
        let others = INITIATOR.filter(|_| way.is_global());
        stage.step_or(INITIATOR, A, &envelope(1, 0, "trigger"), &[SERVER]).await;
        stage.step_or(INITIATOR, A, &envelope(0, 7, "trigger"), &[SERVER]).await;
        stage.step_or(others, D, &envelope(4, 0, "trigger"), &[SERVER]).await;
        stage.step_or(others, E, &envelope(0, 8, "trigger"), &[SERVER]).await;
        // Who is in both groups keeps to the stricter one in its own name.
        stage.step_or(INITIATOR, E, &envelope(5, 0, "trigger"), &[SERVER]).await;
        stage.step_or(others, F, &envelope(6, 0, "trigger"), &[SERVER]).await;
        stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
        stage.step(A, &envelope(1, 0, "ret(trigger)"), &[SERVER]).await;
        stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
    }
}

#[tokio::test]
async fn where_devices_begin_the_server_waits_for_them() {
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, initiator(Initiator::Client)).await;
        let others = INITIATOR.filter(|_| way.is_global());
        stage.step_or(INITIATOR, SERVER, &envelope(1, 0, "trigger"), &[A]).await;
        stage.step_or(INITIATOR, SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
        stage.step_or(others, SERVER, &envelope(0, 8, "trigger"), &GROUP_8).await;
        stage.step_or(others, SERVER, &envelope(6, 0, "trigger"), &[F]).await;
        // What it begins opens the way to it, and to nobody else.
        stage.step(A, &envelope(1, 0, "trigger"), &[SERVER]).await;
        stage.step_or(INITIATOR, SERVER, &envelope(2, 0, "trigger"), &[B]).await;
        stage.step_or(INITIATOR, SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
        stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
        // In the group's name it opens the way to all of them.
        stage.step(B, &envelope(0, 7, "trigger"), &[SERVER]).await;
        stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
        stage.step_or(INITIATOR, SERVER, &envelope(3, 0, "trigger"), &[C]).await;
        // What follows a trigger needs no permission to begin.
        stage.step(SERVER, &envelope(3, 0, "msg"), &[C]).await;
    }
}

#[tokio::test]
async fn a_wish_opens_the_way_for_as_long_as_it_waits() {
    let mut stage = Stage::with(Version::V5, |config| {
        config.rsp.settings.initiator = Initiator::Client;
        config.rsp.settings.ttl.trigger = Duration::from_millis(100);
    })
    .await;
    stage.step(A, &envelope(1, 0, "trigger"), &[SERVER]).await;
    // Nothing but time itself ends it.
    tokio::time::sleep(Duration::from_millis(110)).await;
    stage.step_or(INITIATOR, SERVER, &envelope(1, 0, "trigger"), &[A]).await;
}

#[tokio::test]
async fn in_single_mode_no_group_is_addressed() {
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, mode(Mode::Single)).await;
        let others = MODE.filter(|_| way.is_global());
        for kind in ["trigger", "msg"] {
            stage.step_or(MODE, SERVER, &envelope(0, 7, kind), &GROUP_7).await;
            stage.step_or(others, SERVER, &envelope(0, 8, kind), &GROUP_8).await;
            stage.step(SERVER, &envelope(1, 0, kind), &[A]).await;
            stage.step(SERVER, &envelope(5, 0, kind), &[E]).await;
        }
        // It is about `To_eUICC`: devices speak in whosever name they may.
        stage.step(A, &envelope(0, 7, "trigger"), &[SERVER]).await;
        stage.step_or(MODE, SERVER, &envelope(0, 7, "ret(trigger)"), &GROUP_7).await;
    }
}

#[tokio::test]
async fn in_multi_mode_no_member_is_addressed_alone() {
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, mode(Mode::Multi)).await;
        let others = MODE.filter(|_| way.is_global());
        for kind in ["trigger", "msg"] {
            stage.step_or(MODE, SERVER, &envelope(1, 0, kind), &[A]).await;
            stage.step_or(MODE, SERVER, &envelope(5, 0, kind), &[E]).await;
            stage.step_or(others, SERVER, &envelope(4, 0, kind), &[D]).await;
            stage.step_or(others, SERVER, &envelope(6, 0, kind), &[F]).await;
            stage.step(SERVER, &envelope(0, 7, kind), &GROUP_7).await;
        }
        stage.step(A, &envelope(0, 7, "ret(msg)"), &[SERVER]).await;
    }
}

#[tokio::test]
async fn where_peers_do_not_exchange_no_request_reaches_anybody() {
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, peer(Peer::Off)).await;
        stage.refused(A, TO_EUICC, envelope(2, 7, &kind_of("req", 1)), PEER).await;
        stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
        stage.refused(A, TO_EUICC, envelope(2, 7, &kind_of("req", 1)), PEER).await;
        // The common group decides, not the others that a device is in.
        let others = Some(PEER).filter(|_| way.is_global());
        stage.step_or(others, E, &envelope(4, 8, &kind_of("req", 5)), &[D]).await;
    }
}

#[tokio::test]
async fn an_exchange_needs_a_trigger_of_the_new_device_where_servers_begin_it() {
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, peer(Peer::ServerTriggered)).await;
        let request = envelope(2, 7, &kind_of("req", 1));
        stage.refused(A, TO_EUICC, &request, PEER).await;
        // One to the old device is none to the new one.
        stage.step(SERVER, &envelope(2, 0, "trigger"), &[B]).await;
        stage.refused(A, TO_EUICC, &request, PEER).await;
        // [0067] A → E; answered or not.
        stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
        stage.step(A, &envelope(1, 0, "ret(trigger)"), &[SERVER]).await;
        stage.step(A, &request, &[B]).await;
        // One to the group is one to each member.
        stage.refused(C, TO_EUICC, envelope(2, 7, &kind_of("req", 3)), PEER).await;
        stage.step(SERVER, &envelope(0, 7, "trigger"), &GROUP_7).await;
        stage.step(C, &envelope(2, 7, &kind_of("req", 3)), &[B]).await;
    }
}

#[tokio::test]
async fn a_trigger_permits_an_exchange_until_its_time_is_over() {
    let mut stage = Stage::with(Version::V5, |config| {
        config.rsp.settings.peer = Peer::ServerTriggered;
        config.rsp.settings.ttl.trigger = Duration::from_millis(100);
    })
    .await;
    stage.tell(SERVER, TO_EUICC, envelope(1, 0, "trigger")).await;
    stage.drain().await;
    tokio::time::sleep(Duration::from_millis(110)).await;
    stage.refused(A, TO_EUICC, envelope(2, 7, &kind_of("req", 1)), PEER).await;
    stage.set(|settings| settings.ttl = Ttl::default());
    stage.step(SERVER, &envelope(1, 0, "trigger"), &[A]).await;
    stage.step(A, &envelope(2, 7, &kind_of("req", 1)), &[B]).await;
}

#[tokio::test]
async fn answers_are_in_time_or_late_by_the_time_of_their_group() {
    let brief = Some(Duration::from_millis(300));
    let ttl = GroupTtl { trigger: brief, msg: brief, exchange: brief };
    let settings = GroupSettings { ttl, ..GroupSettings::default() };
    for (version, way) in VERSIONS.into_iter().flat_map(|v| WAYS.map(|way| (v, way))) {
        let mut stage = Stage::in_force(version, way, settings.clone()).await;
        for payload in [envelope(0, 7, "msg"), envelope(0, 8, "msg"), envelope(5, 0, "trigger")] {
            stage.tell(SERVER, TO_EUICC, payload).await;
        }
        stage.tell(A, TO_EUICC, envelope(2, 7, &kind_of("req", 1))).await;
        stage.tell(E, TO_EUICC, envelope(4, 8, &kind_of("req", 5))).await;
        stage.drain().await;
        tokio::time::sleep(Duration::from_millis(310)).await;
        let others = Some("late_answer").filter(|_| way.is_global());
        stage.refused(A, TO_SM_SR, envelope(0, 7, "ret(msg)"), "late_answer").await;
        stage.refused(E, TO_SM_SR, envelope(0, 7, "ret(msg)"), "late_answer").await;
        stage.step_or(others, D, &envelope(0, 8, "ret(msg)"), &[SERVER]).await;
        // Who is in both may take as long as the more patient one allows.
        stage.step_or(others, E, &envelope(5, 0, "ret(trigger)"), &[SERVER]).await;
        let profile = envelope(1, 7, &kind_of("profile", 2));
        stage.refused(B, TO_EUICC, profile, "exchange_late").await;
        if !way.is_global() {
            stage.tell(D, TO_EUICC, envelope(5, 8, &kind_of("profile", 4))).await;
            assert_eq!(stage.client(E).arrived().await.len(), 1);
        }
    }
}

#[tokio::test]
async fn cbor_keeps_to_the_settings_like_json() {
    let mut stage = Stage::start(Version::V5).await;
    stage.set(|settings| {
        settings.initiator = Initiator::Server;
        settings.mode = Mode::Multi;
        settings.peer = Peer::ServerTriggered;
    });
    let cbor = |nid: u128, gid, kind| Envelope::new(nid, gid, kind).encode(Wire::Cbor);
    let (one, two) = (nid(1).get(), nid(2).get());
    let wish = cbor(one, 0, Kind::Trigger);
    stage.refused(A, TO_SM_SR, wish, "initiator_not_permitted").await;
    stage.refused(SERVER, TO_EUICC, cbor(one, 0, Kind::Msg), "mode_not_permitted").await;
    stage.refused(A, TO_EUICC, cbor(two, 7, Kind::Req(one)), PEER).await;
    stage.tell(SERVER, TO_EUICC, cbor(0, 7, Kind::Trigger)).await;
    stage.reaches(&GROUP_7, cbor(0, 7, Kind::Trigger)).await;
    stage.tell(A, TO_EUICC, cbor(two, 7, Kind::Req(one))).await;
    stage.reaches(&[B], cbor(two, 7, Kind::Req(one))).await;
}

#[tokio::test]
async fn a_change_holds_from_now_on_and_can_be_taken_back() {
    let mut stage = Stage::start(Version::V5).await;
    let wish = envelope(1, 0, "trigger");
    stage.step(A, &wish, &[SERVER]).await;
    stage.set(|settings| settings.initiator = Initiator::Server);
    stage.refused(A, TO_SM_SR, &wish, "initiator_not_permitted").await;
    // What was open is open still.
    stage.step(SERVER, &envelope(1, 0, "ret(trigger)"), &[A]).await;
    stage.set_group(7, initiator(Initiator::Any));
    stage.step(A, &wish, &[SERVER]).await;
    stage.refused(D, TO_SM_SR, envelope(4, 0, "trigger"), "initiator_not_permitted").await;
    stage.set_group(7, GroupSettings::default());
    stage.refused(A, TO_SM_SR, &wish, "initiator_not_permitted").await;
    stage.set(|settings| settings.initiator = Initiator::Any);
    stage.step(A, &wish, &[SERVER]).await;
}

#[tokio::test]
async fn what_cannot_work_is_refused_by_its_key_and_changes_nothing() {
    let mut stage = Stage::start(Version::V5).await;
    let off = Settings { initiator: Initiator::Server, ..Settings::default() };
    let unworkable = [
        ("auto_members", Settings { auto_members: 1, ..off.clone() }),
        ("chunk", Settings { chunk: 1, ..off.clone() }),
        ("coalesce", Settings { coalesce: Duration::from_secs(3600), ..off.clone() }),
        ("conditions", Settings { conditions: vec![String::new()], ..off.clone() }),
        ("peer_proof", Settings { peer_proof: PeerProof::Required, ..off.clone() }),
        ("ttl.msg", Settings { ttl: Ttl { msg: Duration::ZERO, ..off.ttl }, ..off.clone() }),
    ];
    let broker = stage.rig.service.broker();
    for (key, settings) in unworkable {
        let refused = broker.with_control(|control| control.set_settings(settings)).unwrap_err();
        assert_eq!(refused.0, key);
    }
    let group = GroupSettings { auto_members: Some(0), ..initiator(Initiator::Server) };
    let refused = broker.with_control(|control| control.set_group_settings(gid(7), group));
    assert_eq!(refused.unwrap_err().0, "auto_members");
    stage.step(A, &envelope(1, 0, "trigger"), &[SERVER]).await;
    // A rate without tokens is none: there is no value that shuts everybody out by mistake.
    let rate = Rate::new(0, Duration::from_secs(1));
    stage.set(|settings| settings.trigger_rate = TriggerRate { device: rate, group: rate });
    stage.step(A, &envelope(1, 0, "trigger"), &[SERVER]).await;
}
