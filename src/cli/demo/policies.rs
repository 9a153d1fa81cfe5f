//! What groups can be set to, and what campaigns can ask: consent, requests as one, packages in
//! parts and in pieces, proofs of deletion, a retry. Each is a flow like those of the patent.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::DemoError;
use super::cast::Seat;
use super::flows::{
    self, DELIVERY_TIME, Flow, FlowError, Found, POLL_TIME, Plan, QUIET_TIME, all_of, package,
};
use super::relay::Relay;
use super::stage::{
    CONSENT_GROUP, DOWNLOAD_GROUP, GATHERED_GROUP, Group, PROOF_GROUP, RETRY_GROUP, Stage,
    StageError, gid,
};
use crate::client::ClientError;
use crate::client::device::{Device, DeviceOptions, DeviceReport};
use crate::client::envelope::{Body, Envelope, Kind};
use crate::client::payload::{BPP_BYTES, digest};
use crate::client::server::Heard;
use crate::clock::Clock;
use crate::ids::Gid;
use crate::rsp::{self, Campaign, CampaignState, DeviceState, GroupSettings, PeerProof, Target};

/// Of the devices of the first flow: so many agree at once, so many refuse, and of those that are
/// silent, so many agree later.
const AGREE: usize = 3;
const REFUSE: usize = 2;
const AGREE_LATE: usize = 2;
/// Long enough for all devices to ask, on a slow machine too.
const GATHERING_TIME: Duration = Duration::from_secs(1);
/// Members of a group that get a package of their own; all others get what is common.
const PARTS_MAX: usize = 25;
/// The largest piece, and where the link is cut: some pieces have arrived, and some have not.
const PIECE_BYTES: usize = 2048;
const CUT_AFTER_BYTES: usize = 7_000;
/// So many devices hang when they have their message.
const STUCK: usize = 3;

pub(super) async fn play(stage: &Stage, clock: &Clock) -> Result<Vec<Flow>, DemoError> {
    let plan = |name, requests, answers, deliveries| Plan { name, requests, answers, deliveries };
    let default = GroupSettings::default;
    let strict_flow = GroupSettings { flow: Some(rsp::Flow::Strict), ..default() };
    let window = GroupSettings { coalesce: Some(GATHERING_TIME), ..default() };
    let pieces = GroupSettings { chunk: Some(PIECE_BYTES), ..default() };
    let proven = GroupSettings { peer_proof: Some(PeerProof::Required), ..default() };
    let (count, first) = (stage.gathered().len(), &stage.groups[0]);
    let mut of_first = vec![0; stage.devices.len()];
    first.members.iter().for_each(|at| of_first[*at] = 1);
    let (all, members) = (count as u64, first.members.len() as u64);
    let consenting = to_cast(stage, CONSENT_GROUP, &[2, 2, 2, 1, 1, 2, 2, 1]);
    let of_consent = plan("strict", 2, 12, consenting);
    // Each of them asks; then A1 and C1, once for all.
    let of_coalescing = plan("coalesce", all + 2, 2 * all, vec![3; count]);
    let of_parts = plan("parts", 1, members, of_first);
    let of_pieces = plan("chunks", 1, 1, to_cast(stage, DOWNLOAD_GROUP, &[1]));
    // Two old devices hand their profile over, but only one new device has it, and reports it.
    let of_proof = plan("proof", 2, 3, to_cast(stage, PROOF_GROUP, &[1, 1, 1, 0]));
    let of_retry = plan("retry", 1, 6, to_cast(stage, RETRY_GROUP, &[1, 1, 1, 2, 2, 2]));
    let scene = Scene { stage, clock };
    Ok(vec![
        scene.play(gid(CONSENT_GROUP), strict_flow, of_consent, strict(stage)).await?,
        scene.play(gid(GATHERED_GROUP), window, of_coalescing, coalesce(stage)).await?,
        scene.play(first.gid, default(), of_parts, parts(stage, first)).await?,
        scene.play(gid(DOWNLOAD_GROUP), pieces, of_pieces, chunks(stage)).await?,
        scene.play(gid(PROOF_GROUP), proven, of_proof, proof(stage)).await?,
        scene.play(gid(RETRY_GROUP), default(), of_retry, retry(stage)).await?,
    ])
}

struct Scene<'a> {
    stage: &'a Stage,
    clock: &'a Clock,
}

impl Scene<'_> {
    /// A flow while its group is set so; who came for it leaves afterwards.
    async fn play(
        &self,
        gid: Gid,
        settings: GroupSettings,
        plan: Plan,
        action: impl Future<Output = Result<Found, FlowError>>,
    ) -> Result<Flow, DemoError> {
        let flow = plan.name;
        let failed = |e: StageError| DemoError::Flow { flow, source: e.into() };
        self.stage.set_group(gid, settings).map_err(failed)?;
        let played = flows::run(self.stage, self.clock, plan, action).await;
        self.stage.set_group(gid, GroupSettings::default()).map_err(failed)?;
        for seat in self.stage.seats_of(gid) {
            seat.leave().await;
        }
        played
    }
}

/// Deliveries to those that come for the flow of a group.
fn to_cast(stage: &Stage, group: u64, each: &[u64]) -> Vec<u64> {
    let before = stage.seats.iter().take_while(|seat| seat.gid != gid(group)).count();
    let nobody = std::iter::repeat_n(0, stage.devices.len() + before);
    nobody.chain(each.iter().copied()).collect()
}

async fn enter(
    seats: &[Seat],
    change: impl Fn(usize, &mut DeviceOptions),
) -> Result<(), ClientError> {
    for (place, seat) in seats.iter().enumerate() {
        let mut options = seat.options();
        change(place, &mut options);
        seat.enter(options).await?;
    }
    Ok(())
}

/// A group whose devices have to agree. Some do, some refuse, some are silent: the package reaches
/// those that have agreed, and waits for the silent ones until they agree.
async fn strict(stage: &Stage) -> Result<Found, FlowError> {
    let (group, seats) = (gid(CONSENT_GROUP), stage.seats_of(gid(CONSENT_GROUP)));
    let silent_from = AGREE + REFUSE;
    enter(seats, |place, options| {
        options.agrees = !(AGREE..silent_from).contains(&place);
        options.holds_answers = place >= silent_from;
    })
    .await?;
    let mut found = Found::default();
    let asked = stage.server.trigger_group(group, silent_from).await?;
    let refused = asked.iter().filter(|answer| answer.rc != 0).count();
    found.check(asked.len() == silent_from && refused == REFUSE, || {
        format!("{} answers, of which {refused} refuse", asked.len())
    });
    let campaign = stage.server.provision_group(group, package(group.get()), AGREE + AGREE_LATE);
    let consent = async {
        for seat in &seats[..AGREE] {
            seat.until(|report| report.received >= 2).await?;
        }
        sleep(QUIET_TIME).await;
        let early = seats[AGREE..].iter().filter(|seat| seat.counts().received > 1).count();
        for seat in &seats[silent_from..silent_from + AGREE_LATE] {
            seat.device()?.release();
        }
        Ok::<_, ClientError>(early)
    };
    let (answers, early) = tokio::try_join!(campaign, consent)?;
    check_answers(&mut found, &answers, AGREE + AGREE_LATE);
    found.check(early == 0, || format!("{early} devices got it without their agreement"));
    let silent = seats.len() - silent_from - AGREE_LATE;
    found.says = format!(
        "{AGREE} agreed and got the package, {AGREE_LATE} agreed later and got it then; {REFUSE} \
         refused and {silent} was silent: never"
    );
    let (agreed, refused) = (AGREE + AGREE_LATE, refused as u64);
    found.facts = vec![("agreed", agreed as u64), ("refused", refused), ("silent", silent as u64)];
    Ok(found)
}

/// Many devices ask at once, and the SM-SR hears of it once.
async fn coalesce(stage: &Stage) -> Result<Found, FlowError> {
    let (before, saved_before) = (stage.server.report(), saved(stage).await?);
    let mut asking = JoinSet::new();
    for device in stage.gathered() {
        let device = Arc::clone(device);
        asking.spawn(async move { device.request_trigger().await });
    }
    all_of(asking).await?;
    flows::served(stage, before.requests_served + 1).await?;
    let after = stage.server.report();
    let (heard, saved) = (after.requests - before.requests, saved(stage).await? - saved_before);
    let is_request = |heard: &&Heard| heard.kind == Kind::Trigger;
    let last = after.messages.iter().rev().find(is_request);
    let mut named = last.map(|heard| heard.requesters.clone()).unwrap_or_default();
    let mut asked: Vec<u128> = stage.gathered().iter().map(|d| d.nid().get()).collect();
    named.sort_unstable();
    asked.sort_unstable();
    let count = asked.len() as u64;
    let mut found = Found::default();
    found.check(heard == 1, || format!("the SM-SR heard {heard} requests, not 1"));
    found.check(named == asked, || format!("{} requesters are named, not {count}", named.len()));
    found.check(saved + 1 == count, || format!("{saved} messages saved, not {}", count - 1));
    found.says = format!(
        "{count} devices asked at once: the SM-SR got one message that names all; {saved} \
         messages saved"
    );
    found.facts = vec![("requesters", named.len() as u64), ("messages_saved", saved)];
    Ok(found)
}

async fn saved(stage: &Stage) -> Result<u64, StageError> {
    stage.metric("simcast_rsp_messages_saved_total", "").await
}

/// One message with a package for each member, bound to it, and something for all.
async fn parts(stage: &Stage, group: &Group) -> Result<Found, FlowError> {
    let devices: Vec<&Device> = group.members.iter().map(|at| &*stage.devices[*at]).collect();
    let common = json!({"profileClass": "operational", "smdpAddress": "smdp.example"});
    let part = |place: usize| Value::from(STANDARD.encode(package(1_000 + place as u64)));
    let count = devices.len().min(PARTS_MAX);
    let each = devices[..count].iter().enumerate();
    let each: Map<_, _> = each.map(|(at, device)| (device.nid().to_string(), part(at))).collect();
    let body = json!({"parts": each, "common": common});
    let message = Envelope::new(0, group.gid.get(), Kind::Msg).with_body(body);
    let (whole, before) = (message.body.to_bytes().len(), sum(&devices, |r| r.packages));
    let answers = stage.server.request(message.asking("parts", true), devices.len()).await?;
    let mut found = Found::default();
    check_answers(&mut found, &answers, devices.len());
    let packages = sum(&devices, |report| report.packages) - before;
    found.check(packages == count as u64, || format!("{packages} packages, not {count}"));
    for (at, device) in devices.iter().enumerate() {
        let own = if at < count {
            json!({"common": common, "part": part(at)})
        } else {
            json!({ "common": common })
        };
        let is_own = last_digest(&device.report()) == Some(digest(&Body::from(own).to_bytes()));
        found.check(is_own, || format!("{} has not what is its own", device.nid()));
    }
    let delivered = sum(&devices, |r| r.messages.back().map_or(0, |last| last.body_bytes as u64));
    let to_each = (whole * devices.len()) as u64;
    found.says = format!(
        "{count} packages of {BPP_BYTES} B in one message: each got its own, {delivered} B in all \
         instead of {to_each} B"
    );
    found.facts = vec![
        ("packages", packages),
        ("message_bytes", whole as u64),
        ("delivered_bytes", delivered),
        ("whole_to_each_bytes", to_each),
    ];
    Ok(found)
}

/// A download in pieces over a link that is cut in the middle.
async fn chunks(stage: &Stage) -> Result<Found, FlowError> {
    let [seat, bystander] = stage.seats_of(gid(DOWNLOAD_GROUP)) else {
        return Err(ClientError::NoAnswer.into());
    };
    let relay = Relay::start(stage.port).await?;
    bystander.enter(bystander.options()).await?;
    // What the device keeps through the cut.
    let options = seat.options();
    seat.enter_by(relay.port, options.clone()).await?;
    let body = Body::from(Value::from(STANDARD.encode(package(seat.gid.get()))));
    let original = digest(&body.to_bytes());
    relay.cut_after(CUT_AFTER_BYTES);
    let message = Envelope::new(seat.nid.get(), 0, Kind::Msg).with_body(body);
    let request = stage.server.request(message.asking("chunks", true), 1);
    let power = async {
        seat.ended().await?;
        let before = seat.cut();
        seat.enter_by(relay.port, options).await?;
        Ok::<_, ClientError>(before)
    };
    let (answers, before) = tokio::try_join!(request, power)?;
    seat.until(|report| report.answered >= 1).await?;
    let after = seat.device()?.report();
    let pieces = after.messages.back().map_or(0, |last| u64::from(last.pieces));
    let (there, repeated) = (before.pieces, after.pieces_repeated);
    let mut found = Found::default();
    check_answers(&mut found, &answers, 1);
    let is_cut = there > 1 && before.received == 0;
    found.check(is_cut, || format!("{there} pieces came before the cut, of {pieces}"));
    // The first that was not acknowledged may have arrived: it alone may come twice.
    let goes_on = there + after.pieces == pieces && repeated <= 1;
    found.check(goes_on, || format!("{} new pieces, {repeated} again", after.pieces));
    let is_whole = after.packages == 1 && last_digest(&after) == Some(original);
    found.check(is_whole, || "the pieces do not make the original".into());
    found.says = format!(
        "{pieces} pieces; the link was cut after {there}; it went on with the first that was not \
         acknowledged"
    );
    found.facts = vec![("pieces", pieces), ("before_the_cut", there), ("repeated", repeated)];
    Ok(found)
}

/// A profile goes from one device to another with a signed proof of its deletion, and not without.
async fn proof(stage: &Stage) -> Result<Found, FlowError> {
    let seats = stage.seats_of(gid(PROOF_GROUP));
    let [old, new, other_old, other_new] = seats else {
        return Err(ClientError::NoAnswer.into());
    };
    let euicc = Arc::new(stage.euicc_ca.euicc(old.nid)?);
    enter(seats, |place, options| options.euicc = (place == 0).then(|| euicc.clone())).await?;
    let before = stage.server.report();
    let refusals = (stage.refusals(Some("proof_missing")).await?, stage.refusals(None).await?);
    new.device()?.request_profile(old.nid, old.gid).await?;
    flows::changed(stage, before.profile_changes + 2).await?;
    other_new.device()?.request_profile(other_old.nid, other_old.gid).await?;
    // MQTT 3.1.1 knows no refusal: the broker has acknowledged it.
    other_old.until(|report| report.answered >= 1).await?;
    let missing = stage.refusals(Some("proof_missing")).await? - refusals.0;
    let total = stage.refusals(None).await? - refusals.1;
    let mut found = Found::default();
    found.check((missing, total) == (1, 1), || {
        format!("{missing} refusals as proof_missing, {total} in all, not 1")
    });
    found.says = "a profile went over with a signed proof of its deletion; without, it was \
                  refused: proof_missing"
        .into();
    found.facts = vec![("proven", 1), ("refused", missing)];
    Ok(found)
}

/// Some devices hang when they have their message: an operator sends it again, to them alone.
async fn retry(stage: &Stage) -> Result<Found, FlowError> {
    let (group, seats) = (gid(RETRY_GROUP), stage.seats_of(gid(RETRY_GROUP)));
    let well = seats.len() - STUCK;
    enter(seats, |place, options| options.holds_answers = place >= well).await?;
    let campaign = stage.server.provision_group(group, package(group.get()), seats.len());
    let operator = async {
        let is_stuck = |campaign: &Campaign| {
            let of = |state| campaign.tally.of(state) as usize;
            of(DeviceState::Ok) == well && of(DeviceState::Delivered) == STUCK
        };
        let id = until_campaign(stage, group, is_stuck).await?.id;
        for seat in &seats[well..] {
            seat.cut();
        }
        let retried = stage.service.broker().retry_campaign("demo", id, false);
        for seat in &seats[well..] {
            seat.enter(seat.options()).await?;
        }
        Ok::<_, ClientError>(retried)
    };
    let (answers, retried) = tokio::try_join!(campaign, operator)?;
    let retried = retried?;
    let mut found = Found::default();
    check_answers(&mut found, &answers, seats.len());
    found.check(retried as usize == STUCK, || format!("{retried} are tried again, not {STUCK}"));
    until_campaign(stage, group, |c| c.state == CampaignState::Ended).await?;
    found.says = format!(
        "{well} of {} answered; the {STUCK} that hung got the message again after a restart, and \
         nobody else did",
        seats.len()
    );
    found.facts = vec![("answered_at_once", well as u64), ("retried", retried.into())];
    Ok(found)
}

/// The latest campaign to a group, when it is so far.
async fn until_campaign(
    stage: &Stage,
    group: Gid,
    is_so_far: impl Fn(&Campaign) -> bool,
) -> Result<Campaign, ClientError> {
    let broker = stage.service.broker();
    let now = broker.now();
    let latest = || {
        broker.with_control(|control| {
            control.campaigns(None, now).find(|c| c.target == Target::Group(group))
        })
    };
    let waiting = async {
        loop {
            if let Some(campaign) = latest().filter(|campaign| is_so_far(campaign)) {
                return campaign;
            }
            sleep(POLL_TIME).await;
        }
    };
    timeout(DELIVERY_TIME, waiting).await.map_err(|_| ClientError::NoAnswer)
}

/// All have answered, and done what they were to do.
fn check_answers(found: &mut Found, answers: &[Heard], expected: usize) {
    let done = answers.iter().filter(|answer| answer.rc == 0).count();
    found.check(done == expected && answers.len() == expected, || {
        format!("{done} of {expected} devices report success")
    });
}

fn sum(devices: &[&Device], count: impl Fn(&DeviceReport) -> u64) -> u64 {
    let mut sum = 0;
    for device in devices {
        device.with_report(|report| sum += count(report));
    }
    sum
}

fn last_digest(report: &DeviceReport) -> Option<u64> {
    report.messages.back().map(|last| last.body_digest)
}
