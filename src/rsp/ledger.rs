//! Ledger: every A1, B1 and C1 that is remembered, and how far each addressed device is with it,
//! so that an answer is one only when it was asked for, and an operator sees what is missing.
//!
//! A request to a device is one entry; a request to a group is one entry with a byte for each
//! member, however many they are ([`Track`]). What is open and what is over are bounded, each in
//! its own way: the newest request counts, and the oldest is forgotten for it.
//!
//! An answer is matched by its `tid` when an open request of the kind has the same. Otherwise it
//! answers the oldest request without one; an answer without a tid, the oldest of all.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::quality::RandomState;
use smallvec::SmallVec;

use super::campaign::{CampaignId, CampaignState, FirstWave, Pace, Verdict};
use super::envelope::Tid;
use super::exchange::due;
use super::mail::Publication;
use super::options::RspLimits;
use super::track::{DeviceState, Tally, Track};
use crate::ids::{Gid, Timestamp};

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A1: waits for A2; answered, it still permits an E1 until its time is over.
    Trigger,
    /// B1 or C1: waits for B2 or C2.
    Msg,
}

/// An open request, as found for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: u64,
    /// Who answers.
    pub(super) index: u32,
    /// It has the answer's tid, and is not just the oldest.
    by_tid: bool,
}

/// What an answer of a device is to the requests it may belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answerable {
    /// The answer to this one.
    Open(Found),
    /// A second answer.
    Answered,
    /// An answer after its time.
    Late,
    /// An answer to what was withdrawn: to nothing else, but of no name of its own.
    Withdrawn,
    /// Nobody asked.
    Never,
}

impl Answerable {
    /// Of two places where the request may be: what fits best; the first, where both do.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Open(a), Self::Open(b)) if b.by_tid && !a.by_tid => other,
            (Self::Open(_), _) => self,
            (_, Self::Open(_)) => other,
            (Self::Answered, _) | (_, Self::Answered) => Self::Answered,
            (Self::Late, _) | (_, Self::Late) => Self::Late,
            (Self::Withdrawn, _) | (_, Self::Withdrawn) => Self::Withdrawn,
            (Self::Never, Self::Never) => Self::Never,
        }
    }
}

/// What is known of a request when it is opened.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) asked: Asked,
    pub(super) asker: Arc<str>,
    pub(super) tid: Option<Tid>,
    pub(super) name: Option<Box<str>>,
    pub(super) expires: Timestamp,
    pub(super) publication: Publication,
    /// Equal B1s, delivered as one: their devices may answer by B2 or C2.
    pub(super) merged: bool,
    pub(super) wave: Option<FirstWave>,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) asked: Asked,
    pub(super) whom: Whom,
    pub(super) expires: Timestamp,
    pub(super) opened: Timestamp,
    pub(super) asker: Arc<str>,
    /// Boxed: a million devices may have a request open, most without these.
    tid: Option<Box<Tid>>,
    pub(super) name: Option<Box<str>>,
    /// What was sent, to send it again; goes when it is not needed any more, or for want of room.
    pub(super) publication: Option<Publication>,
    pub(super) merged: bool,
}

#[derive(Debug)]
pub(super) enum Whom {
    One { index: u32, state: DeviceState },
    All(Box<Roster>),
}

/// The members of a group that were addressed.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) gid: Gid,
    pub(super) track: Track,
    pub(super) pace: Pace,
    pub(super) wave: Option<FirstWave>,
}

/// Why a campaign cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetryError {
    /// There is none of that number, or it was long ago.
    #[error("no such campaign; it may have been forgotten")]
    Unknown,
    /// Its message was given up for newer ones (`retry_bytes_max`).
    #[error("its message is no longer kept; let the server send it anew")]
    MessageGone,
    /// No device is without an answer.
    #[error("nobody is missing: every device has answered, or still has the message in its mail")]
    NobodyMissing,
    /// The mail of the devices is full.
    #[error("the devices' mail is full; try again when it has drained")]
    NoRoom,
}

#[derive(Debug)]
pub(super) struct Ledger {
    requests: BTreeMap<u64, Request>,
    by_device: HashMap<u32, SmallVec<[u64; 2]>, RandomState>,
    by_group: HashMap<Gid, VecDeque<u64>, RandomState>,
    expiries: BTreeSet<(Timestamp, u64)>,
    ended: BTreeSet<u64>,
    ended_devices: usize,
    /// Requests that go out in waves.
    in_waves: BTreeSet<u64>,
    /// Requests whose message is kept for a retry.
    kept: BTreeSet<u64>,
    kept_bytes: usize,
    tally: Tally,
    changed: BTreeSet<u64>,
    verdicts: Vec<(u64, Verdict)>,
    last_id: u64,
    limits: RspLimits,
}

impl Ledger {
    pub(super) fn new(limits: RspLimits) -> Self {
        Self {
            requests: BTreeMap::new(),
            by_device: HashMap::default(),
            by_group: HashMap::default(),
            expiries: BTreeSet::new(),
            ended: BTreeSet::new(),
            ended_devices: 0,
            in_waves: BTreeSet::new(),
            kept: BTreeSet::new(),
            kept_bytes: 0,
            tally: Tally::default(),
            changed: BTreeSet::new(),
            verdicts: Vec::new(),
            last_id: 0,
            limits,
        }
    }

    /// Requests whose time is not over, or that wait for an answer.
    pub(super) fn open_count(&self) -> usize {
        self.requests.len() - self.ended.len()
    }

    /// Requests that are over and still remembered.
    pub(super) fn ended_count(&self) -> usize {
        self.ended.len()
    }

    /// Bytes of messages that are kept to be sent again.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// How many campaigns wait for their first wave, and how many were halted by it.
    pub(super) fn waves(&self) -> (usize, usize) {
        let states =
            self.in_waves.iter().filter_map(|id| Some(self.state(*id, self.requests.get(id)?)));
        states.fold((0, 0), |(canary, halted), state| match state {
            CampaignState::Canary => (canary + 1, halted),
            CampaignState::Halted => (canary, halted + 1),
            CampaignState::Running | CampaignState::Ended => (canary, halted),
        })
    }

    /// How far all devices are with all requests that are remembered.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn request(&self, id: u64) -> Option<&Request> {
        self.requests.get(&id)
    }

    /// Requests that are remembered, newest first, from those older than `before` on.
    pub(super) fn newest(&self, before: u64) -> impl Iterator<Item = (u64, &Request)> {
        self.requests.range(..before).rev().map(|(id, request)| (*id, request))
    }

    pub(super) fn state(&self, id: u64, request: &Request) -> CampaignState {
        if self.ended.contains(&id) || request.tally().open() == 0 {
            return CampaignState::Ended;
        }
        let Whom::All(roster) = &request.whom else { return CampaignState::Running };
        match roster.wave.as_ref().map(FirstWave::verdict) {
            None | Some(Some(Verdict::Release)) => CampaignState::Running,
            Some(None) => CampaignState::Canary,
            Some(Some(Verdict::Halt)) => CampaignState::Halted,
        }
    }

    /// Opens a request to one device.
    pub(super) fn open_one(&mut self, index: u32, draft: Draft, now: Timestamp) -> u64 {
        let whom = Whom::One { index, state: DeviceState::Queued };
        let id = self.open(whom, draft, now);
        self.by_device.entry(index).or_default().push(id);
        self.limit_device(index);
        id
    }

    /// Opens a request to all these members of a group.
    pub(super) fn open_all(
        &mut self,
        gid: Gid,
        members: Arc<Vec<u32>>,
        mut draft: Draft,
        now: Timestamp,
    ) -> u64 {
        let (pace, wave) = (Pace::starting(now), draft.wave.take());
        let roster = Roster { gid, track: Track::new(members), pace, wave };
        let has_wave = roster.wave.is_some();
        let id = self.open(Whom::All(Box::new(roster)), draft, now);
        if has_wave {
            self.in_waves.insert(id);
        }
        self.by_group.entry(gid).or_default().push_back(id);
        self.limit_group(gid);
        id
    }

    /// The request to a device alone that its answer belongs to.
    pub(super) fn find_alone(
        &self,
        index: u32,
        asked: Asked,
        tid: Option<&Tid>,
        now: Timestamp,
    ) -> Answerable {
        let ids = self.by_device.get(&index).into_iter().flatten();
        self.classify(ids, index, tid, now, |request| request.asked == asked)
    }

    /// The request to a group that an answer of this member belongs to.
    pub(super) fn find_in_group(
        &self,
        gid: Gid,
        index: u32,
        asked: Asked,
        tid: Option<&Tid>,
        now: Timestamp,
    ) -> Answerable {
        let ids = self.by_group.get(&gid).into_iter().flatten();
        self.classify(ids, index, tid, now, |request| request.asked == asked)
    }

    /// The merged B1s to members of a group that a B2 of this member belongs to.
    pub(super) fn find_merged(
        &self,
        gid: Gid,
        index: u32,
        tid: Option<&Tid>,
        now: Timestamp,
    ) -> Answerable {
        let ids = self.by_group.get(&gid).into_iter().flatten();
        self.classify(ids, index, tid, now, |request| request.merged)
    }

    /// Whether an A1 to the device, alone or with one of these groups, is in its time and was not
    /// withdrawn.
    pub(super) fn is_triggered(&self, index: u32, gids: &[Gid], now: Timestamp) -> bool {
        let mut standing = self.triggers(index, gids);
        standing.any(|(_, request, state)| state != DeviceState::Cancelled && request.expires > now)
    }

    /// Whether the device agrees to be provisioned, as it has said last: to an A1 to itself or to
    /// one of these groups, as long as that A1 is in its time.
    pub(super) fn has_agreed(&self, index: u32, gids: &[Gid], now: Timestamp) -> bool {
        let has_said = |state: DeviceState| matches!(state, DeviceState::Ok | DeviceState::Refused);
        let answered = self.triggers(index, gids).filter(|(_, _, state)| has_said(*state));
        let last = answered.max_by_key(|(id, _, _)| *id);
        last.is_some_and(|(_, request, state)| state == DeviceState::Ok && request.expires > now)
    }

    /// The device has acknowledged the message.
    pub(super) fn delivered(&mut self, id: u64, index: u32, now: Timestamp) {
        self.settle(id, index, DeviceState::Delivered, now);
    }

    /// Moves a device on with a request, if an answer of it was still to come.
    pub(super) fn settle(&mut self, id: u64, index: u32, to: DeviceState, now: Timestamp) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Some(from) = request.state(index).filter(|from| from.is_open() && *from != to) else {
            return;
        };
        request.set(index, to);
        self.tally.take(from, 1);
        self.tally.add(to, 1);
        if let Whom::All(roster) = &mut request.whom {
            if to.is_answered() {
                roster.pace.note(now);
            }
            let verdict = roster.wave.as_mut().and_then(|wave| wave.note(index, from, to));
            self.verdicts.extend(verdict.map(|verdict| (id, verdict)));
        }
        self.note_change(id);
        self.end_if_over(id);
    }

    /// Moves those devices on whose message waits and that `which` picks.
    pub(super) fn settle_queued(&mut self, id: u64, which: impl Fn(u32) -> bool, to: DeviceState) {
        self.move_where(id, to, |index, state| state == DeviceState::Queued && which(index));
    }

    /// What the first waves of campaigns said about the others since this was asked last.
    pub(super) fn take_verdicts(&mut self) -> Vec<(u64, Verdict)> {
        std::mem::take(&mut self.verdicts)
    }

    /// What the first wave of this campaign has just said is of no use any more.
    pub(super) fn forget_verdict(&mut self, id: u64) {
        self.verdicts.retain(|(other, _)| *other != id);
    }

    /// Campaigns in which something has changed since this was asked last.
    pub(super) fn take_changed(&mut self) -> Vec<CampaignId> {
        std::mem::take(&mut self.changed).into_iter().map(CampaignId).collect()
    }

    /// An operator lets all others be served; gives the group.
    pub(super) fn release(&mut self, id: u64) -> Option<Gid> {
        let Whom::All(roster) = &mut self.requests.get_mut(&id)?.whom else { return None };
        roster.wave.as_mut()?.release();
        let gid = roster.gid;
        self.note_change(id);
        Some(gid)
    }

    /// The devices whose answer is missing though they had the message, or their time is over; on
    /// demand those that answered with a failure, too. And what they are to be sent.
    pub(super) fn missing(
        &self,
        id: u64,
        failed_too: bool,
    ) -> Result<(Vec<u32>, Publication), RetryError> {
        let request = self.requests.get(&id).ok_or(RetryError::Unknown)?;
        let missing = request.devices(|state| match state {
            DeviceState::Delivered | DeviceState::Expired => true,
            DeviceState::Failed => failed_too,
            _ => false,
        });
        if missing.is_empty() {
            return Err(RetryError::NobodyMissing);
        }
        let publication = request.publication.clone().ok_or(RetryError::MessageGone)?;
        Ok((missing, publication))
    }

    /// The first wave, where the others have to wait for what it says, or for an operator.
    pub(super) fn first_alone(&self, id: u64) -> Option<Box<[u32]>> {
        let Whom::All(roster) = &self.requests.get(&id)?.whom else { return None };
        let wave = roster.wave.as_ref()?;
        (wave.verdict() != Some(Verdict::Release)).then(|| wave.devices().into())
    }

    /// These devices are sent the message again, and may answer until then.
    pub(super) fn reopen(&mut self, id: u64, devices: &[u32], expires: Timestamp) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        for index in devices {
            if let Some(from) = request.state(*index) {
                request.set(*index, DeviceState::Queued);
                if let Whom::All(roster) = &mut request.whom {
                    roster.wave.iter_mut().for_each(|wave| wave.reopen(*index, from));
                }
                self.tally.take(from, 1);
                self.tally.add(DeviceState::Queued, 1);
            }
        }
        let devices = request.len();
        self.expiries.remove(&(request.expires, id));
        request.expires = request.expires.max(expires);
        self.expiries.insert((request.expires, id));
        if matches!(&request.whom, Whom::All(roster) if roster.wave.is_some()) {
            self.in_waves.insert(id);
        }
        if self.ended.remove(&id) {
            self.ended_devices -= devices;
        }
        self.note_change(id);
    }

    /// The device is no member any more: the group's requests expect nothing of it. Its index may
    /// name another device soon.
    pub(super) fn leave(&mut self, index: u32, gid: Gid) {
        let ids: Vec<u64> = self.by_group.get(&gid).into_iter().flatten().copied().collect();
        for id in ids {
            self.strike(id, index);
        }
    }

    /// The device is gone, and its requests with it.
    pub(super) fn remove(&mut self, index: u32, gids: &[Gid]) {
        for id in self.by_device.remove(&index).into_iter().flatten() {
            self.strike(id, index);
            self.forget(id);
        }
        gids.iter().for_each(|gid| self.leave(index, *gid));
    }

    /// Ends requests whose time is over, at most `budget` of them; returns how many had no answer
    /// (a group's request counts when some member gave none).
    pub(super) fn sweep(&mut self, now: Timestamp, budget: &mut usize) -> u64 {
        let mut unanswered = 0;
        while let Some((at, id)) = due(&self.expiries, now, budget) {
            self.expiries.remove(&(at, id));
            let open = self.requests.get(&id).map_or(0, |request| request.tally().open());
            unanswered += u64::from(open > 0);
            self.move_where(id, DeviceState::Expired, |_, state| state.is_open());
            self.end(id);
        }
        unanswered
    }

    /// Moves many devices on in one pass.
    fn move_where(&mut self, id: u64, to: DeviceState, which: impl Fn(u32, DeviceState) -> bool) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        self.tally.take_all(&request.tally());
        let verdict = match &mut request.whom {
            Whom::One { index, state } => {
                if which(*index, *state) {
                    *state = to;
                }
                None
            }
            Whom::All(roster) => roster.move_where(to, which),
        };
        self.tally.add_all(&request.tally());
        self.verdicts.extend(verdict.map(|verdict| (id, verdict)));
        self.note_change(id);
        self.end_if_over(id);
    }

    fn open(&mut self, whom: Whom, draft: Draft, now: Timestamp) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let Draft { asked, asker, tid, name, expires, publication, merged, wave: _ } = draft;
        let (bytes, tid) = (publication.message.kept_bytes(), tid.map(Box::new));
        let publication = Some(publication);
        let opened = now;
        let request =
            Request { asked, whom, expires, opened, asker, tid, name, publication, merged };
        self.tally.add_all(&request.tally());
        self.requests.insert(id, request);
        self.expiries.insert((expires, id));
        self.kept.insert(id);
        self.kept_bytes += bytes;
        while self.kept_bytes > self.limits.retry_bytes_max {
            let Some(oldest) = self.kept.first().copied() else { break };
            self.drop_publication(oldest);
        }
        self.note_change(id);
        id
    }

    fn drop_publication(&mut self, id: u64) {
        if !self.kept.remove(&id) {
            return;
        }
        let publication = self.requests.get_mut(&id).and_then(|r| r.publication.take());
        self.kept_bytes -= publication.map_or(0, |p| p.message.kept_bytes());
    }

    fn note_change(&mut self, id: u64) {
        if self.changed.len() < self.limits.events_max {
            self.changed.insert(id);
        }
    }

    /// Nobody will answer any more. An A1 stands until its time is over: it permits an E1, and
    /// what was answered to it is the device's consent.
    fn end_if_over(&mut self, id: u64) {
        let Some(request) = self.requests.get(&id) else { return };
        let tally = request.tally();
        if tally.open() > 0 {
            return;
        }
        if tally.of(DeviceState::Ok) == tally.total() {
            self.drop_publication(id);
        }
        let Some(request) = self.requests.get(&id) else { return };
        if request.asked == Asked::Msg {
            self.expiries.remove(&(request.expires, id));
            self.end(id);
        }
    }

    fn end(&mut self, id: u64) {
        let Some(request) = self.requests.get(&id) else { return };
        if !self.ended.insert(id) {
            return;
        }
        self.in_waves.remove(&id);
        self.ended_devices += request.len();
        while self.ended.len() > self.limits.ended_campaigns_max
            || self.ended_devices > self.limits.ended_campaign_devices_max
        {
            let Some(oldest) = self.ended.first().copied() else { return };
            self.forget(oldest);
        }
    }

    fn strike(&mut self, id: u64, index: u32) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Some(from) = request.state(index).filter(|from| *from != DeviceState::Gone) else {
            return;
        };
        request.set(index, DeviceState::Gone);
        self.tally.take(from, 1);
        self.tally.add(DeviceState::Gone, 1);
        if let Whom::All(roster) = &mut request.whom {
            let verdict =
                roster.wave.as_mut().and_then(|wave| wave.note(index, from, DeviceState::Gone));
            self.verdicts.extend(verdict.map(|verdict| (id, verdict)));
        }
        self.note_change(id);
        if from.is_open() {
            self.end_if_over(id);
        }
    }

    fn forget(&mut self, id: u64) {
        self.drop_publication(id);
        let Some(request) = self.requests.remove(&id) else { return };
        self.tally.take_all(&request.tally());
        self.expiries.remove(&(request.expires, id));
        self.changed.remove(&id);
        self.in_waves.remove(&id);
        if self.ended.remove(&id) {
            self.ended_devices -= request.len();
        }
        match &request.whom {
            Whom::One { index, .. } => {
                if let Some(ids) = self.by_device.get_mut(index) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        self.by_device.remove(index);
                    }
                }
            }
            Whom::All(roster) => {
                if let Some(ids) = self.by_group.get_mut(&roster.gid) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        self.by_group.remove(&roster.gid);
                    }
                }
            }
        }
    }

    fn limit_device(&mut self, index: u32) {
        let Some(ids) = self.by_device.get(&index) else { return };
        if ids.len() > self.limits.open_requests_max {
            self.forget(self.least_wanted(ids.iter()));
        }
    }

    fn limit_group(&mut self, gid: Gid) {
        let Some(ids) = self.by_group.get(&gid) else { return };
        if ids.len() > self.limits.open_group_requests_max {
            self.forget(self.least_wanted(ids.iter()));
        }
    }

    /// Those that are over are the smallest loss, then those that have all answers.
    fn least_wanted<'a>(&self, ids: impl Iterator<Item = &'a u64>) -> u64 {
        let rank = |id: &u64| {
            let is_open = self.requests.get(id).is_some_and(|r| r.tally().open() > 0);
            (!self.ended.contains(id), is_open, *id)
        };
        ids.copied().min_by_key(rank).unwrap_or_default()
    }

    /// A1s to the device that are remembered, and how far it is with each.
    fn triggers<'a>(
        &'a self,
        index: u32,
        gids: &'a [Gid],
    ) -> impl Iterator<Item = (u64, &'a Request, DeviceState)> + 'a {
        let own = self.by_device.get(&index).into_iter().flatten();
        let with_groups = gids.iter().filter_map(|gid| self.by_group.get(gid)).flatten();
        own.chain(with_groups).filter_map(move |id| {
            let request = self.requests.get(id)?;
            let state = request.state(index).filter(|state| *state != DeviceState::Gone)?;
            (request.asked == Asked::Trigger).then_some((*id, request, state))
        })
    }

    /// A request with the answer's tid, whatever became of it, comes before all without one.
    fn classify<'a>(
        &self,
        ids: impl Iterator<Item = &'a u64> + Clone,
        index: u32,
        tid: Option<&Tid>,
        now: Timestamp,
        is_asked: impl Fn(&Request) -> bool,
    ) -> Answerable {
        let requests = ids.filter_map(|id| Some((*id, self.requests.get(id)?)));
        let requests = requests.filter(|(_, request)| is_asked(request));
        let best = |with_tid: bool| {
            let matching = requests.clone().filter(|(_, request)| match (with_tid, tid) {
                (true, tid) => request.tid() == tid,
                (false, Some(_)) => request.tid().is_none(),
                (false, None) => true,
            });
            let answerable =
                matching.map(|(id, request)| request.answerable(id, index, with_tid, now));
            answerable.fold(Answerable::Never, Answerable::or)
        };
        match tid.map(|_| best(true)) {
            None | Some(Answerable::Never) => best(false),
            Some(exact) => exact,
        }
    }
}

impl Roster {
    fn move_where(
        &mut self,
        to: DeviceState,
        which: impl Fn(u32, DeviceState) -> bool,
    ) -> Option<Verdict> {
        let track = &mut self.track;
        let Some(wave) = &mut self.wave else {
            track.move_where(to, which);
            return None;
        };
        let state = |index: &u32| Some((*index, track.state(*index)?));
        let moved: Vec<(u32, DeviceState)> =
            wave.devices().iter().filter_map(state).filter(|(i, s)| which(*i, *s)).collect();
        track.move_where(to, which);
        // All of them count, whichever decides.
        moved
            .into_iter()
            .fold(None, |verdict, (index, from)| wave.note(index, from, to).or(verdict))
    }
}

impl Request {
    pub(super) fn tid(&self) -> Option<&Tid> {
        self.tid.as_deref()
    }

    pub(super) fn len(&self) -> usize {
        match &self.whom {
            Whom::One { .. } => 1,
            Whom::All(roster) => roster.track.len(),
        }
    }

    pub(super) fn tally(&self) -> Tally {
        match &self.whom {
            Whom::One { state, .. } => {
                let mut tally = Tally::default();
                tally.add(*state, 1);
                tally
            }
            Whom::All(roster) => *roster.track.tally(),
        }
    }

    /// What an answer of the device, now, is to this request.
    fn answerable(&self, id: u64, index: u32, by_tid: bool, now: Timestamp) -> Answerable {
        match self.state(index) {
            None | Some(DeviceState::Gone) => Answerable::Never,
            Some(DeviceState::Cancelled) => Answerable::Withdrawn,
            Some(DeviceState::Queued | DeviceState::Delivered) if self.expires > now => {
                Answerable::Open(Found { id, index, by_tid })
            }
            Some(DeviceState::Queued | DeviceState::Delivered | DeviceState::Expired) => {
                Answerable::Late
            }
            Some(DeviceState::Ok | DeviceState::Refused | DeviceState::Failed) => {
                Answerable::Answered
            }
        }
    }

    /// How far a device is; `None` where it was not addressed.
    pub(super) fn state(&self, index: u32) -> Option<DeviceState> {
        match &self.whom {
            Whom::One { index: own, state } => (*own == index).then_some(*state),
            Whom::All(roster) => roster.track.state(index),
        }
    }

    fn set(&mut self, index: u32, to: DeviceState) {
        match &mut self.whom {
            Whom::One { state, .. } => *state = to,
            Whom::All(roster) => {
                roster.track.set(index, to);
            }
        }
    }

    /// The devices in states that `wanted` accepts.
    fn devices(&self, wanted: impl Fn(DeviceState) -> bool) -> Vec<u32> {
        match &self.whom {
            Whom::One { index, state } => {
                if wanted(*state) {
                    vec![*index]
                } else {
                    Vec::new()
                }
            }
            Whom::All(roster) => roster.track.in_states(wanted),
        }
    }
}
