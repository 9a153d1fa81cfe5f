//! Abuse: devices that flood, speak for others, ask everybody, never answer; servers that address
//! nobody; registry files that are no good. Each is bounded and refused by name, and all others
//! get what is theirs meanwhile.

use simcast::broker::NotReplaced;
use simcast::mqtt::{QoS, Version};
use simcast::rsp::{LineReason, Rate};

use crate::common::rig::registry_line;
use crate::common::{
    Dial, TO_EUICC, TO_SM_SR, envelope, envelope_with, gid, kind_of, nid, rig::FLEET,
};
use crate::stage::{A, B, C, D, E, F, GROUP_7, GROUP_8, SERVER, Stage, VERSIONS};

const ONE: QoS = QoS::AtLeastOnce;

impl Stage {
    /// Everybody but these gets what is theirs, and the server hears them.
    async fn all_is_well_but_for(&mut self, culprits: &[usize]) {
        let reached = |members: &[usize]| -> Vec<usize> {
            members.iter().copied().filter(|who| !culprits.contains(who)).collect()
        };
        for (payload, members) in [
            (envelope(0, 7, "trigger"), &GROUP_7[..]),
            (envelope(0, 8, "msg"), &GROUP_8),
            (envelope(6, 0, "msg"), &[F]),
        ] {
            self.tell(SERVER, TO_EUICC, &payload).await;
            for who in reached(members) {
                assert_eq!(self.client(who).expect_payload().await, payload);
            }
        }
        for (who, device) in [(B, 2), (C, 3), (D, 4), (E, 5), (F, 6)] {
            if !culprits.contains(&who) {
                let wish = envelope(device, 0, "trigger");
                self.tell(who, TO_SM_SR, &wish).await;
                assert_eq!(self.client(SERVER).expect_payload().await, wish);
            }
        }
        for who in culprits {
            self.client(*who).arrived().await;
        }
        self.nobody_else().await;
    }
}

#[tokio::test]
async fn a_device_that_floods_triggers() {
    const FLOOD: u64 = 500;
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        stage.set(|settings| {
            settings.trigger_rate.device = Rate::new(20, std::time::Duration::from_secs(3600));
        });
        for _ in 0..FLOOD {
            stage.publish(A, TO_SM_SR, envelope(1, 0, "trigger")).await;
        }
        assert_eq!(stage.rig.refusals("trigger_rate").await, FLOOD - 20);
        assert_eq!(stage.client(SERVER).expect_payloads(20).await.len(), 20);
        stage.all_is_well_but_for(&[A]).await;
        // Of those that were taken few are remembered, and the latest are the ones.
        let wishes = stage.rig.service.broker().with_control(|control| control.stats().wishes);
        assert_eq!(wishes, 8 + 5);
        let answer = envelope(1, 0, "ret(trigger)");
        for _ in 0..8 {
            stage.step(SERVER, &answer, &[A]).await;
        }
        stage.refused(SERVER, TO_EUICC, &answer, "duplicate_answer").await;
    }
}

#[tokio::test]
async fn a_device_that_floods_nonsense() {
    for version in VERSIONS {
        let mut stage = Stage::start(version).await;
        let mail = stage.rig.counter("simcast_rsp_mail_messages ").await;
        let own = envelope(1, 0, "msg");
        for round in 0..100 {
            for payload in ["", "{", "[]", "\u{0}", own.as_str()] {
                stage.publish(A, TO_SM_SR, payload).await;
            }
            if round % 50 == 0 {
                stage.all_is_well_but_for(&[A]).await;
            }
        }
        assert_eq!(stage.rig.refusals("unreadable_envelope").await, 400);
        assert_eq!(stage.rig.refusals("server_type_from_device").await, 100);
        assert_eq!(stage.rig.counter("simcast_rsp_mail_messages ").await, mail);
    }
}

#[tokio::test]
async fn a_device_that_answers_for_others() {
    let mut stage = Stage::start(Version::V5).await;
    let with_tid = |device, gid, kind, rest: &str| {
        envelope_with(device, gid, kind, &format!(r#""tid":"t",{rest}"body":1"#))
    };
    stage.step(SERVER, &with_tid(2, 0, "trigger", ""), &[B]).await;
    stage.step(SERVER, &with_tid(2, 0, "msg", ""), &[B]).await;
    stage.step(SERVER, &with_tid(0, 8, "msg", ""), &GROUP_8).await;
    let group_8 = stage.newest();
    for (kind, rest) in [("ret(trigger)", r#""rc":1,"#), ("ret(msg)", r#""rc":1,"#)] {
        stage.refused(A, TO_SM_SR, with_tid(2, 0, kind, rest), "spoofed_nid").await;
        stage.refused(A, TO_SM_SR, with_tid(0, 8, kind, rest), "foreign_gid").await;
        // In its own name it has nothing to answer, whatever transaction it names.
        stage.refused(A, TO_SM_SR, with_tid(1, 0, kind, rest), "unsolicited_answer").await;
        stage.refused(A, TO_SM_SR, with_tid(0, 7, kind, rest), "unsolicited_answer").await;
    }
    stage.step(B, &with_tid(2, 0, "ret(trigger)", ""), &[SERVER]).await;
    stage.step(B, &with_tid(2, 0, "ret(msg)", ""), &[SERVER]).await;
    for member in GROUP_8 {
        stage.step(member, &with_tid(0, 8, "ret(msg)", ""), &[SERVER]).await;
    }
    let tally = stage.campaign(group_8).tally;
    assert_eq!(tally.of(simcast::rsp::DeviceState::Ok), 2, "each has answered for itself");
    stage.all_is_well_but_for(&[]).await;
}

#[tokio::test]
async fn before_version_5_an_impostor_is_gone_and_its_victim_has_answered_nothing() {
    let mut stage = Stage::start(Version::V311).await;
    stage.step(SERVER, &envelope(2, 0, "msg"), &[B]).await;
    let mut impostor = stage.take(A);
    impostor.throw(TO_SM_SR, envelope(2, 0, "ret(msg)")).await;
    impostor.expect_closed().await;
    stage.nobody_else().await;
    stage.step(B, &envelope(2, 0, "ret(msg)"), &[SERVER]).await;
}

#[tokio::test]
async fn a_device_that_asks_everybody_for_a_profile() {
    const CROWD: std::ops::Range<u128> = 100..300;
    let mut stage = Stage::start(Version::V5).await;
    stage.set(|settings| settings.trigger_rate.device = Rate::OFF);
    let broker = std::sync::Arc::clone(stage.rig.service.broker());
    for number in CROWD {
        broker.with_control(|control| control.put_device(nid(number), &[gid(7)], "")).unwrap();
    }
    for number in CROWD {
        stage.publish(A, TO_EUICC, envelope(number, 7, &kind_of("req", 1))).await;
    }
    let few = 8;
    let all = (CROWD.end - CROWD.start) as u64;
    assert_eq!(stage.rig.refusals("over_quota").await, all - few);
    let stats = broker.with_control(|control| control.stats());
    assert_eq!((stats.exchanges, stats.mail_messages), (few as usize, few as usize));
    // Whom it has asked can be asked by others, and served.
    stage.step(B, &envelope(100, 7, &kind_of("req", 2)), &[]).await;
    stage.step(SERVER, &envelope(100, 0, "msg"), &[]).await;
    let mut asked = stage.rig.reader(100, Dial::v5("asked")).await;
    let expected = [
        envelope(100, 7, &kind_of("req", 1)),
        envelope(100, 7, &kind_of("req", 2)),
        envelope(100, 0, "msg"),
    ];
    assert_eq!(asked.expect_payloads(3).await, expected);
    asked.disconnect().await;
    stage.all_is_well_but_for(&[A]).await;
}

#[tokio::test]
async fn a_crowd_that_asks_one_device_leaves_room_for_the_server() {
    let mut stage = Stage::with(Version::V5, |config| config.rsp.mail_messages_max = 6).await;
    stage.take(B).disconnect().await;
    let request = |by: u128| envelope(2, 7, &kind_of("req", by));
    for (member, number) in [(A, 1), (C, 3), (E, 5)] {
        stage.step(member, &request(number), &[]).await;
    }
    let broker = std::sync::Arc::clone(stage.rig.service.broker());
    broker.with_control(|control| control.put_device(nid(6), &[gid(7)], "")).unwrap();
    stage.refused(F, TO_EUICC, request(6), "over_quota").await;
    for _ in 0..3 {
        stage.step(SERVER, &envelope(2, 0, "msg"), &[]).await;
    }
    stage.refused(SERVER, TO_EUICC, envelope(2, 0, "msg"), "over_quota").await;
    let mut asked = stage.rig.reader(2, Dial::v5("asked")).await;
    assert_eq!(asked.expect_payloads(6).await.len(), 6);
    asked.expect_nothing().await;
}

#[tokio::test]
async fn a_device_that_neither_acknowledges_nor_answers() {
    let change = |config: &mut simcast::config::Config| {
        config.rsp.mail_messages_max = 10;
        config.rsp.open_requests_max = 4;
    };
    for version in VERSIONS {
        let mut stage = Stage::with(version, change).await;
        stage.client(A).auto_ack = false;
        for _ in 0..10 {
            stage.tell(SERVER, TO_EUICC, envelope(1, 0, "msg")).await;
        }
        for _ in 0..5 {
            stage.refused_to_others(A, envelope(1, 0, "msg"), "over_quota").await;
        }
        let stats = stage.rig.service.broker().with_control(|control| control.stats());
        assert_eq!((stats.mail_messages, stats.campaigns_open), (10, 4));
        stage.all_is_well_but_for(&[A]).await;
        // Its mail is where it was when it comes back in its senses.
        stage.take(A).vanish().await;
        let mut back = stage.rig.reader(1, Dial::new(version, "back")).await;
        let mut expected = vec![envelope(1, 0, "msg"); 10];
        expected.push(envelope(0, 7, "trigger"));
        assert_eq!(back.expect_payloads(11).await, expected);
        back.expect_nothing().await;
        // Of the ten it may answer the four that are remembered.
        for _ in 0..4 {
            assert!(back.publish(TO_SM_SR, envelope(1, 0, "ret(msg)"), ONE).await.is_ok());
            stage.reaches(&[SERVER], envelope(1, 0, "ret(msg)")).await;
        }
        let answer = back.publish(TO_SM_SR, envelope(1, 0, "ret(msg)"), ONE).await;
        if version == Version::V5 {
            assert_eq!(answer.text.as_deref(), Some("duplicate_answer"));
        }
        stage.nobody_else().await;
    }
}

impl Stage {
    /// A server's message to a device that reads nothing is refused; nobody else gets anything.
    async fn refused_to_others(&mut self, culprit: usize, payload: String, name: &str) {
        let before = self.rig.refusals(name).await;
        let answer = self.publish(SERVER, TO_EUICC, payload).await;
        if self.version == Version::V5 {
            assert_eq!(answer.text.as_deref(), Some(name));
        }
        assert_eq!(self.rig.refusals(name).await, before + 1);
        self.client(culprit).arrived().await;
        self.nobody_else().await;
    }
}

/// The issue speaks of 1,000,000; so many go over the wire here, and none of them leaves anything
/// behind that more could add to.
#[tokio::test]
async fn a_server_that_addresses_devices_and_groups_that_are_not_there() {
    const UNKNOWN: u128 = 20_000;
    const AT_ONCE: u128 = 100;
    let mut stage = Stage::start(Version::V5).await;
    let stats = |stage: &Stage| stage.rig.service.broker().with_control(|c| c.stats());
    let before = stats(&stage);
    for batch in 0..UNKNOWN / AT_ONCE {
        for number in 0..AT_ONCE {
            let number = 1_000_000 + batch * AT_ONCE + number;
            let kind = if number.is_multiple_of(2) { "msg" } else { "trigger" };
            let to_group = number.is_multiple_of(4);
            let payload = match to_group {
                true => envelope(0, u64::try_from(number).unwrap(), kind),
                false => envelope(number, 0, kind),
            };
            stage.client(SERVER).throw(TO_EUICC, payload).await;
        }
        stage.client(SERVER).ping().await;
        if batch % 100 == 50 {
            stage.all_is_well_but_for(&[]).await;
        }
    }
    assert_eq!(stage.rig.refusals("unknown_nid").await, 15_000);
    assert_eq!(stage.rig.refusals("unknown_gid").await, 5_000);
    stage.refused(SERVER, TO_EUICC, envelope(7_000_000, 0, "msg"), "unknown_nid").await;
    stage.refused(SERVER, TO_EUICC, envelope(0, 7_000_000, "msg"), "unknown_gid").await;
    stage.all_is_well_but_for(&[]).await;
    let after = stats(&stage);
    assert_eq!((after.devices, after.groups), (before.devices, before.groups));
    assert_eq!((after.mail_messages, after.mail_bytes), (0, 0));
    // What is remembered is what the others have got.
    assert_eq!(after.campaigns_open + after.campaigns_ended, 3 * 3);
}

#[tokio::test]
async fn a_registry_file_with_duplicates_and_broken_lines() {
    let mut stage = Stage::start(Version::V5).await;
    let broker = std::sync::Arc::clone(stage.rig.service.broker());
    let lines = [
        "nid,gids,labels".to_owned(),
        registry_line(nid(20), "7"),
        registry_line(nid(20), "8"),
        registry_line(nid(1), "no group"),
        format!("{},7\n", nid(21).get() + 1),
        format!("{},7,label\n", nid(22)),
        "\u{0}\u{fffd}\n".to_owned(),
        registry_line(nid(23), "7"),
    ];
    let csv = lines.map(|line| line.trim_end().to_owned()).join("\n");
    // In the place of the registry it would be half of one: nothing changes.
    let Err(NotReplaced::Broken(report)) = broker.replace_registry("test", &csv) else {
        panic!("taken")
    };
    assert_eq!((report.rejected, report.accepted, report.removed), (5, 0, 0));
    let broken: Vec<usize> = report.errors.iter().map(|error| error.line).collect();
    assert_eq!(broken, [3, 4, 5, 6, 7]);
    assert_eq!(report.errors[0].reason, LineReason::Duplicate(2));
    std::fs::write(stage.rig.dir.path().join("registry.csv"), &csv).unwrap();
    assert!(stage.rig.service.reload_registry().is_err());
    assert_eq!(broker.with_control(|control| control.stats().devices), FLEET.len());
    stage.all_is_well_but_for(&[]).await;
    // What is added to it is what is good; who stands in a broken line stays as it was.
    let report = broker.add_to_registry("test", &csv);
    assert_eq!((report.rejected, report.accepted), (5, 2));
    let mut added = stage.rig.reader(20, Dial::v5("added")).await;
    stage.all_is_well_but_for(&[]).await;
    assert_eq!(added.expect_payload().await, envelope(0, 7, "trigger"));
    added.expect_nothing().await;
    stage.refused(SERVER, TO_EUICC, envelope(22, 0, "msg"), "unknown_nid").await;
    let answer = added.publish(TO_SM_SR, envelope(0, 8, "trigger"), ONE).await;
    assert_eq!(answer.text.as_deref(), Some("foreign_gid"));
    assert!(added.publish(TO_SM_SR, envelope(0, 7, "trigger"), ONE).await.is_ok());
    stage.reaches(&[SERVER], envelope(0, 7, "trigger")).await;
    stage.step(A, &envelope(1, 0, "trigger"), &[SERVER]).await;
}
