//! How flows are run and judged, each measured from the outside; and those of the patent.

use std::convert::Infallible;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::DemoError;
use super::stage::{Group, Stage, StageError};
use crate::client::ClientError;
use crate::client::payload::{BPP_BYTES, bound_profile_package};
use crate::clock::Clock;
use crate::pki::PkiError;
use crate::rsp::RetryError;

/// How long a flow may take from its last request to the last delivery.
pub(super) const DELIVERY_TIME: Duration = Duration::from_secs(30);
/// After the last expected message, time for one that should not come.
pub(super) const QUIET_TIME: Duration = Duration::from_millis(300);
pub(super) const POLL_TIME: Duration = Duration::from_millis(50);

/// What a flow has done.
pub(super) struct Flow {
    pub(super) name: &'static str,
    /// Messages that began something: A1, B1, C1, D1, E1.
    pub(super) requests: u64,
    pub(super) expected: u64,
    pub(super) delivered: u64,
    /// Answers that the broker took from devices.
    pub(super) answered: u64,
    pub(super) foreign: u64,
    pub(super) doubled: u64,
    pub(super) took_ms: u64,
    /// MQTT bytes that the SM-SR sent.
    pub(super) server_bytes: u64,
    pub(super) found: Found,
    pub(super) faults: Vec<String>,
}

/// What a flow should do.
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) requests: u64,
    pub(super) answers: u64,
    /// Deliveries to each device of the fleet, then to each of those that come for one flow; those
    /// behind the last get nothing.
    pub(super) deliveries: Vec<u64>,
}

/// What a flow has shown beside its deliveries.
#[derive(Default)]
pub(super) struct Found {
    /// In one sentence.
    pub(super) says: String,
    /// In numbers.
    pub(super) facts: Vec<(&'static str, u64)>,
    faults: Vec<String>,
}

impl Found {
    /// A fault, unless it is so.
    pub(super) fn check(&mut self, is_so: bool, otherwise: impl FnOnce() -> String) {
        if !is_so {
            self.faults.push(otherwise());
        }
    }
}

impl From<()> for Found {
    fn from((): ()) -> Self {
        Self::default()
    }
}

/// Why a flow came to no end.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// A party could not do its part.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The broker could not be asked, or set.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// An eUICC could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The link that is to be cut.
    #[error("relay: {0}")]
    Relay(#[from] std::io::Error),
    /// The campaign cannot be sent again.
    #[error(transparent)]
    Retry(#[from] RetryError),
}

pub(super) async fn play(stage: &Stage, clock: &Clock) -> Result<Vec<Flow>, DemoError> {
    let count = stage.devices.len() as u64;
    let groups = stage.groups.len() as u64;
    let all = |each: u64| vec![each; stage.devices.len()];
    let plan = |name, requests, answers, deliveries| Plan { name, requests, answers, deliveries };
    Ok(vec![
        run(stage, clock, plan("A→B", 2 * count, 2 * count, all(2)), a_b(stage)).await?,
        run(stage, clock, plan("A→C", 2 * groups, 2 * count, all(2)), a_c(stage)).await?,
        run(stage, clock, plan("D→A→B", 3 * count, 2 * count, all(3)), d_a_b(stage)).await?,
        run(stage, clock, plan("D→A→C", 3 * groups, 2 * count, all(3)), d_a_c(stage)).await?,
        // The old device gets E1, the new one E2; E2 and the report of the change are answers.
        run(stage, clock, plan("E1→E2", groups, 2 * groups, pairs(stage, 0, 1)), e(stage)).await?,
        // One more for the A1, and its A2.
        run(stage, clock, plan("A→E", 2 * groups, 3 * groups, pairs(stage, 2, 2)), a_e(stage))
            .await?,
    ])
}

pub(super) async fn run<T: Into<Found>, E: Into<FlowError>>(
    stage: &Stage,
    clock: &Clock,
    mut plan: Plan,
    action: impl Future<Output = Result<T, E>>,
) -> Result<Flow, DemoError> {
    plan.deliveries.resize(stage.nids().count(), 0);
    let before = Tally::take(stage);
    let expected: u64 = plan.deliveries.iter().sum();
    let bar = stage.progress(plan.name, expected);
    let start = clock.now();
    let watching = watch(stage, &before, &bar);
    let acting = async {
        let acted = action.await;
        // What has been answered may still have to be counted; what is lost ends the wait.
        let _ = timeout(DELIVERY_TIME, settled(stage, &plan, &before)).await;
        acted
    };
    let acted = tokio::select! {
        acted = acting => acted,
        never = watching => match never {},
    };
    let took_ms = u64::try_from(clock.now().since(start).as_millis()).unwrap_or(u64::MAX);
    let found = acted.map_err(|e| DemoError::Flow { flow: plan.name, source: e.into() })?.into();
    sleep(QUIET_TIME).await;
    let flow = judge(stage, &plan, &before, found, took_ms);
    bar.set_position(flow.delivered);
    bar.finish();
    stage.tell(&bar, &format!("{}: {} of {} delivered", flow.name, flow.delivered, flow.expected));
    Ok(flow)
}

/// A1 and B1 to each device.
async fn a_b(stage: &Stage) -> Result<(), ClientError> {
    let mut work = JoinSet::new();
    for (index, device) in stage.devices.iter().enumerate() {
        let (server, nid) = (stage.server.clone(), device.nid());
        work.spawn(async move {
            server.trigger_device(nid).await?;
            server.provision_device(nid, package(index as u64)).await.map(drop)
        });
    }
    all_of(work).await
}

/// A1 and C1, once for each group.
async fn a_c(stage: &Stage) -> Result<(), ClientError> {
    let mut work = JoinSet::new();
    for Group { gid, members } in &stage.groups {
        let (server, gid, count) = (stage.server.clone(), *gid, members.len());
        work.spawn(async move {
            let agreed = server.trigger_group(gid, count).await?;
            let done = server.provision_group(gid, package(gid.get()), count).await?;
            let complete = agreed.len() == count && done.len() == count;
            if complete { Ok(()) } else { Err(ClientError::NoAnswer) }
        });
    }
    all_of(work).await
}

/// Each device asks for itself.
async fn d_a_b(stage: &Stage) -> Result<(), ClientError> {
    let before = stage.server.report();
    for device in &stage.devices {
        device.request_trigger().await?;
    }
    served(stage, before.requests_served + stage.devices.len() as u64).await
}

/// One device of each group asks for its group.
async fn d_a_c(stage: &Stage) -> Result<(), ClientError> {
    let before = stage.server.report();
    for group in &stage.groups {
        if let Some(first) = group.members.first() {
            stage.devices[*first].request_group_trigger(group.gid).await?;
        }
    }
    served(stage, before.requests_served + stage.groups.len() as u64).await
}

/// In each group, the second device takes over the profile of the first.
async fn e(stage: &Stage) -> Result<(), ClientError> {
    let before = stage.server.report();
    for Group { gid, members } in &stage.groups {
        let (old, new) = (&stage.devices[members[0]], &stage.devices[members[1]]);
        new.request_profile(old.nid(), *gid).await?;
    }
    changed(stage, before.profile_changes + 2 * stage.groups.len() as u64).await
}

/// In each group, the fourth device is triggered and takes over the profile of the third.
async fn a_e(stage: &Stage) -> Result<(), ClientError> {
    let before = stage.server.report();
    for Group { gid, members } in &stage.groups {
        let (old, new) = (&stage.devices[members[2]], &stage.devices[members[3]]);
        stage.server.trigger_device(new.nid()).await?;
        new.request_profile(old.nid(), *gid).await?;
    }
    changed(stage, before.profile_changes + 2 * stage.groups.len() as u64).await
}

/// One delivery to the old device of each pair, `new` to the new one.
fn pairs(stage: &Stage, first: usize, new: u64) -> Vec<u64> {
    let mut deliveries = vec![0; stage.devices.len()];
    for group in &stage.groups {
        deliveries[group.members[first]] = 1;
        deliveries[group.members[first + 1]] = new;
    }
    deliveries
}

pub(super) fn package(seed: u64) -> Vec<u8> {
    bound_profile_package(seed, BPP_BYTES).unwrap_or_default()
}

pub(super) async fn all_of(mut work: JoinSet<Result<(), ClientError>>) -> Result<(), ClientError> {
    while let Some(joined) = work.join_next().await {
        joined.unwrap_or(Err(ClientError::NoAnswer))?;
    }
    Ok(())
}

pub(super) async fn served(stage: &Stage, count: u64) -> Result<(), ClientError> {
    let done = stage.server.until(|r| r.requests_served + r.requests_failed >= count);
    timeout(DELIVERY_TIME, done).await.map_err(|_| ClientError::NoAnswer)
}

/// The control unit and the new device both tell of a change.
pub(super) async fn changed(stage: &Stage, count: u64) -> Result<(), ClientError> {
    let done = stage.server.until(|report| report.profile_changes >= count);
    timeout(DELIVERY_TIME, done).await.map_err(|_| ClientError::NoAnswer)
}

/// Counts before a flow.
struct Tally {
    received: Vec<u64>,
    answered: u64,
    foreign: u64,
    doubled: u64,
    server_bytes: u64,
}

impl Tally {
    fn take(stage: &Stage) -> Self {
        let mut tally = Self {
            received: Vec::new(),
            answered: 0,
            foreign: 0,
            doubled: 0,
            server_bytes: stage.server.traffic().sent_bytes(),
        };
        for counts in stage.counts() {
            tally.received.push(counts.received);
            tally.answered += counts.answered;
            tally.foreign += counts.foreign;
            tally.doubled += counts.doubled;
        }
        tally
    }

    fn delivered_since(&self, before: &Self) -> u64 {
        self.received.iter().sum::<u64>() - before.received.iter().sum::<u64>()
    }
}

/// Waits until every device has at least what it should have, and the answers are out.
async fn settled(stage: &Stage, plan: &Plan, before: &Tally) {
    loop {
        let now = Tally::take(stage);
        let short = |at: usize| now.received[at] < before.received[at] + plan.deliveries[at];
        let complete = !(0..plan.deliveries.len()).any(short);
        if complete && now.answered >= before.answered + plan.answers {
            return;
        }
        sleep(POLL_TIME).await;
    }
}

async fn watch(stage: &Stage, before: &Tally, bar: &ProgressBar) -> Infallible {
    loop {
        bar.set_position(Tally::take(stage).delivered_since(before));
        sleep(POLL_TIME).await;
    }
}

fn judge(stage: &Stage, plan: &Plan, before: &Tally, mut found: Found, took_ms: u64) -> Flow {
    let now = Tally::take(stage);
    let own = std::mem::take(&mut found.faults);
    let mut faults: Vec<String> = own.iter().map(|own| format!("{}: {own}", plan.name)).collect();
    for ((at, expected), nid) in plan.deliveries.iter().enumerate().zip(stage.nids()) {
        let got = now.received[at] - before.received[at];
        if got != *expected {
            faults.push(format!("{}: {nid} got {got} messages, not {expected}", plan.name));
        }
    }
    let answered = now.answered - before.answered;
    if answered != plan.answers {
        faults.push(format!("{}: {answered} answers, not {}", plan.name, plan.answers));
    }
    let (foreign, doubled) = (now.foreign - before.foreign, now.doubled - before.doubled);
    if foreign > 0 {
        faults.push(format!("{}: {foreign} foreign messages seen", plan.name));
    }
    if doubled > 0 {
        faults.push(format!("{}: {doubled} messages came twice", plan.name));
    }
    Flow {
        name: plan.name,
        requests: plan.requests,
        expected: plan.deliveries.iter().sum(),
        delivered: now.delivered_since(before),
        answered,
        foreign,
        doubled,
        took_ms,
        server_bytes: now.server_bytes - before.server_bytes,
        found,
        faults,
    }
}
