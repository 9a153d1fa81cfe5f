//! Ten attacks by members of the fleet. Each must be refused under its own name, and nobody may
//! notice any of them.

use std::time::Duration;

use mqttbytes::QoS;
use tokio::time::{sleep, timeout};

use super::DemoError;
use super::stage::Stage;
use crate::client::device::Device;
use crate::client::envelope::{Envelope, Kind, Tid, Wire};
use crate::client::{ClientError, TO_EUICC, TO_SM_SR};

/// Time for a message that should not come.
const QUIET_TIME: Duration = Duration::from_millis(200);
/// How long the answers to the C1 before the second answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// What became of an attack.
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// The reason under which it must be refused.
    pub(super) reason: &'static str,
    /// What is wrong, if it got through.
    pub(super) fault: Option<String>,
}

/// An attack to come.
struct Attempt {
    name: &'static str,
    reason: &'static str,
    topic: &'static str,
    retain: bool,
    envelope: Envelope,
}

pub(super) async fn play(stage: &Stage) -> Result<Vec<Attack>, DemoError> {
    let mut attacks = Vec::new();
    // Each by another device, as an attacker may lose its connection.
    for (attacker, make) in ATTEMPTS.iter().enumerate() {
        let attempt = make(stage, attacker);
        attacks.push(commit(stage, attacker, attempt).await?);
    }
    Ok(attacks)
}

/// The two for which a broker closes the connection come last: the others need whole groups.
const ATTEMPTS: [fn(&Stage, usize) -> Attempt; 10] = [
    both_zero,
    both_nonzero,
    bad_eid,
    server_type,
    retained,
    unsolicited_profile,
    second_answer,
    cross_group,
    spoofed_nid,
    foreign_gid,
];

fn spoofed_nid(stage: &Stage, attacker: usize) -> Attempt {
    let victim = stage.devices[attacker + 1].nid().get();
    let envelope = Envelope::new(victim, 0, Kind::Trigger);
    attempt("asks for a profile in another's name", "spoofed_nid", TO_SM_SR, envelope)
}

fn foreign_gid(stage: &Stage, attacker: usize) -> Attempt {
    let gid = stage.group_of(attacker + 1).gid.get();
    let envelope = Envelope::new(0, gid, Kind::Trigger);
    attempt("asks for a group that is not its own", "foreign_gid", TO_SM_SR, envelope)
}

fn both_zero(_: &Stage, _: usize) -> Attempt {
    let envelope = Envelope::new(0, 0, Kind::Trigger);
    attempt("asks for nobody", "both_zero", TO_SM_SR, envelope)
}

fn both_nonzero(stage: &Stage, attacker: usize) -> Attempt {
    let (nid, gid) = (me(stage, attacker).nid().get(), stage.group_of(attacker).gid.get());
    let envelope = Envelope::new(nid, gid, Kind::Trigger);
    attempt("asks for itself and its group at once", "both_nonzero", TO_SM_SR, envelope)
}

fn bad_eid(stage: &Stage, attacker: usize) -> Attempt {
    let envelope = Envelope::new(me(stage, attacker).nid().get() + 1, 0, Kind::Trigger);
    attempt("uses an EID with wrong check digits", "bad_eid", TO_SM_SR, envelope)
}

fn server_type(stage: &Stage, attacker: usize) -> Attempt {
    let victim = stage.devices[attacker + 1].nid().get();
    let envelope = Envelope::new(victim, 0, Kind::Trigger);
    attempt("plays the server", "server_type_from_device", TO_EUICC, envelope)
}

fn retained(stage: &Stage, attacker: usize) -> Attempt {
    let envelope = Envelope::new(me(stage, attacker).nid().get(), 0, Kind::Trigger);
    let plain = attempt("leaves a retained message", "retain_not_permitted", TO_SM_SR, envelope);
    Attempt { retain: true, ..plain }
}

fn unsolicited_profile(stage: &Stage, attacker: usize) -> Attempt {
    let group = stage.group_of(attacker);
    let victim = group.members.iter().find(|at| **at != attacker).copied().unwrap_or_default();
    let kind = Kind::Profile(me(stage, attacker).nid().get());
    let envelope = Envelope::new(stage.devices[victim].nid().get(), group.gid.get(), kind);
    attempt("sends a profile nobody asked for", "exchange_unsolicited", TO_EUICC, envelope)
}

fn second_answer(stage: &Stage, attacker: usize) -> Attempt {
    let envelope = Envelope::new(0, stage.group_of(attacker).gid.get(), Kind::RetMsg);
    attempt("answers a group message twice", "duplicate_answer", TO_SM_SR, envelope)
}

fn cross_group(stage: &Stage, attacker: usize) -> Attempt {
    let victim = stage.devices[attacker + 1].nid().get();
    let gid = stage.group_of(attacker).gid.get();
    let envelope = Envelope::new(victim, gid, Kind::Req(me(stage, attacker).nid().get()));
    attempt("wants the profile of another group", "cross_group_exchange", TO_EUICC, envelope)
}

fn attempt(
    name: &'static str,
    reason: &'static str,
    topic: &'static str,
    envelope: Envelope,
) -> Attempt {
    Attempt { name, reason, topic, retain: false, envelope }
}

fn me(stage: &Stage, attacker: usize) -> &Device {
    &stage.devices[attacker]
}

async fn commit(stage: &Stage, attacker: usize, attempt: Attempt) -> Result<Attack, DemoError> {
    let tid = if attempt.reason == "duplicate_answer" {
        prepare_second_answer(stage, attacker)
            .await
            .map_err(|e| DemoError::Flow { flow: "C1 before an attack", source: e.into() })?
    } else {
        Some(Tid::Text(format!("attack-{attacker}")))
    };
    let heard_before = heard_by_all(stage);
    let before = (stage.refusals(Some(attempt.reason)).await?, stage.refusals(None).await?);
    let payload = attempt.envelope.with_tid(tid).encode(Wire::Json);
    let link = me(stage, attacker).link();
    // MQTT 3.1.1 knows no refusal: the broker acknowledges, or closes the connection.
    let _ = link.publish(attempt.topic, QoS::AtLeastOnce, attempt.retain, payload).await;
    sleep(QUIET_TIME).await;
    let after = (stage.refusals(Some(attempt.reason)).await?, stage.refusals(None).await?);
    let (named, total) = (after.0 - before.0, after.1 - before.1);
    let heard = heard_by_all(stage) - heard_before;
    let fault = match (named, total, heard) {
        (1, 1, 0) => None,
        (_, _, 1..) => Some(format!("{}: {heard} messages were delivered", attempt.name)),
        (_, _, 0) => Some(format!(
            "{}: {named} refusals as {}, {total} in all, not 1",
            attempt.name, attempt.reason
        )),
    };
    Ok(Attack { name: attempt.name, reason: attempt.reason, fault })
}

/// A C1 that the attacker's group answers as it should; the id that its answers carried.
async fn prepare_second_answer(stage: &Stage, attacker: usize) -> Result<Option<Tid>, ClientError> {
    let group = stage.group_of(attacker);
    let body = serde_json::Value::Null;
    let asking = stage.server.provision_group(group.gid, body, group.members.len());
    let answers = timeout(ANSWER_TIME, asking).await.map_err(|_| ClientError::NoAnswer)??;
    let tid = answers.into_iter().next().ok_or(ClientError::NoAnswer)?.tid;
    sleep(QUIET_TIME).await;
    Ok(tid)
}

/// Everything that any device or the server has received.
fn heard_by_all(stage: &Stage) -> u64 {
    let report = stage.server.report();
    report.received + report.unreadable + stage.counts().map(|c| c.received).sum::<u64>()
}
