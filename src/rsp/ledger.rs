//! Ledger: every A1, B1 and C1 that is remembered, and how far each addressed device is with it,
//! so that an answer is one only when it was asked for, and an operator sees what is missing.
//!
//! A request to a device is one entry; a request to a group is one entry with a byte for each
//! member, however many they are ([`Track`]). What is open and what is over are bounded, each in
//! its own way: the newest request counts, and the oldest is forgotten for it.
//!
//! An answer is matched by its `tid` when an open request of the kind has the same. Otherwise it
//! answers the oldest request without one; an answer without a tid, the oldest of all.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use super::ascending::Ascending;
use super::campaign::{CampaignId, CampaignState, Pace, Verdict};
use super::envelope::Tid;
use super::exchange::{due, pay_for};
use super::filed::{Filed, Standing};
use super::mail::Publication;
use super::options::RspLimits;
use super::request::{Answerable, Asked, Draft, Request, Roster, Whom};
use super::roll::Ticked;
use super::track::{DeviceState, Tally, Track};
use crate::ids::{Gid, Timestamp};
pub(super) use rows::LedgerRows;
use rows::Notes;

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

/// When a device has answered an A1, among its answers to others: in the order of the A1s, but for
/// those that it has answered after newer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    /// The newest A1 that it had answered by then.
    newest: u64,
    /// How many it had answered since that one.
    rank: u32,
}

impl Said {
    fn in_turn(id: u64) -> Self {
        Self { newest: id, rank: 0 }
    }
}

#[derive(Debug)]
pub(super) struct Ledger {
    requests: Ascending<Request>,
    /// Those to a device alone.
    by_device: Filed<u32>,
    by_group: Filed<Gid>,
    expiries: BTreeSet<(Timestamp, u64)>,
    ended: BTreeSet<u64>,
    ended_devices: usize,
    /// A1s that devices have answered after newer ones, and behind which of those that answer
    /// ranks, see [`Said`]; and the row of that. One for each such answer, as long as its A1 is
    /// remembered.
    said_late: BTreeMap<(u64, u32), (Said, u64)>,
    /// Requests that go out in waves.
    in_waves: BTreeSet<u64>,
    /// No older request has its message any more, to be sent again.
    kept_from: u64,
    kept_bytes: usize,
    tally: Tally,
    changed: BTreeSet<u64>,
    verdicts: Vec<(u64, Verdict)>,
    last_id: u64,
    limits: RspLimits,
    notes: Notes,
}

impl Ledger {
    pub(super) fn new(limits: RspLimits) -> Self {
        Self {
            requests: Ascending::default(),
            by_device: Filed::default(),
            by_group: Filed::default(),
            expiries: BTreeSet::new(),
            ended: BTreeSet::new(),
            ended_devices: 0,
            said_late: BTreeMap::new(),
            in_waves: BTreeSet::new(),
            kept_from: 0,
            kept_bytes: 0,
            tally: Tally::default(),
            changed: BTreeSet::new(),
            verdicts: Vec::new(),
            last_id: 0,
            limits,
            notes: Notes::default(),
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
            self.in_waves.iter().filter_map(|id| Some(self.requests.get(*id)?.campaign_state()));
        states.fold((0, 0), |(canary, halted), state| match state {
            CampaignState::Canary => (canary + 1, halted),
            CampaignState::Halted => (canary, halted + 1),
            CampaignState::Running | CampaignState::Ended => (canary, halted),
        })
    }

    /// Answers that came after those to newer A1s.
    #[cfg(test)]
    pub(super) fn said_late(&self) -> usize {
        self.said_late.len()
    }

    /// How far all devices are with all requests that are remembered.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn request(&self, id: u64) -> Option<&Request> {
        self.requests.get(id)
    }

    /// Requests that are remembered, newest first, from those older than `before` on.
    pub(super) fn newest(&self, before: u64) -> impl Iterator<Item = (u64, &Request)> {
        self.requests.below(before)
    }

    /// Opens a request to one device.
    pub(super) fn open_one(&mut self, index: u32, draft: Draft, now: Timestamp) -> u64 {
        let whom = Whom::One { index, state: DeviceState::Queued };
        let id = self.open(whom, draft, now);
        self.by_device.insert(index, Standing::Open, id);
        let max = self.limits.open_requests_max;
        let least_wanted = self.by_device.least_wanted(index, max);
        least_wanted.into_iter().for_each(|id| self.forget(id));
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
        let parts = draft.publication.parts.take();
        let track = Track::new(members);
        let track = if self.notes.on() { track.kept() } else { track };
        let roster = Roster { gid, track, pace, wave, parts, row: 0 };
        let has_wave = roster.wave.is_some();
        let id = self.open(Whom::All(Box::new(roster)), draft, now);
        if has_wave {
            self.in_waves.insert(id);
        }
        self.by_group.insert(gid, Standing::Open, id);
        let max = self.limits.open_group_requests_max;
        let least_wanted = self.by_group.least_wanted(gid, max);
        least_wanted.into_iter().for_each(|id| self.forget(id));
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
        self.classify(self.by_device.of(index), index, tid, now, |request| request.asked == asked)
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
        self.classify(self.by_group.of(gid), index, tid, now, |request| request.asked == asked)
    }

    /// The merged B1s to members of a group that a B2 of this member belongs to.
    pub(super) fn find_merged(
        &self,
        gid: Gid,
        index: u32,
        tid: Option<&Tid>,
        now: Timestamp,
    ) -> Answerable {
        self.classify(self.by_group.of(gid), index, tid, now, |request| request.merged)
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
        let last = answered.max_by_key(|(id, _, _)| self.when_said(*id, index));
        last.is_some_and(|(_, request, state)| state == DeviceState::Ok && request.expires > now)
    }

    /// The device, which is in these groups, answers an A1: it says now whether it agrees, whatever
    /// it has said to a newer one.
    pub(super) fn note_said(&mut self, id: u64, index: u32, gids: &[Gid]) {
        self.forget_said((id, index));
        let others = self.triggers(index, gids).filter(|(other, _, _)| *other != id);
        let answered = others.filter(|(_, _, state)| state.is_answered());
        let last = answered.map(|(other, _, _)| self.when_said(other, index)).max();
        if let Some(Said { newest, rank }) = last.filter(|last| *last > Said::in_turn(id)) {
            let row = self.notes.next_said();
            self.said_late.insert((id, index), (Said { newest, rank: rank + 1 }, row));
            self.notes.said((id, index), row);
        }
    }

    fn when_said(&self, id: u64, index: u32) -> Said {
        let late = self.said_late.get(&(id, index)).map(|(said, _row)| *said);
        late.unwrap_or(Said::in_turn(id))
    }

    fn forget_said(&mut self, key: (u64, u32)) {
        let said = self.said_late.remove(&key);
        said.into_iter().for_each(|(_, row)| self.notes.said(key, row));
    }

    /// The device has acknowledged the message.
    pub(super) fn delivered(&mut self, id: u64, index: u32, now: Timestamp) {
        self.settle(id, index, DeviceState::Delivered, now);
    }

    /// Moves a device on with a request, if an answer of it was still to come.
    pub(super) fn settle(&mut self, id: u64, index: u32, to: DeviceState, now: Timestamp) {
        let Some(request) = self.requests.get_mut(id) else { return };
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

    /// Moves those devices on whose message waits and that `which` picks, which is asked in
    /// ascending order.
    pub(super) fn settle_queued(
        &mut self,
        id: u64,
        mut which: impl FnMut(u32) -> bool,
        to: DeviceState,
    ) {
        self.move_where(id, to, |index, state| state == DeviceState::Queued && which(index));
        self.end_if_over(id);
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
        let Whom::All(roster) = &mut self.requests.get_mut(id)?.whom else { return None };
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
        let request = self.requests.get(id).ok_or(RetryError::Unknown)?;
        let missing = request.devices(|state| match state {
            DeviceState::Delivered | DeviceState::Expired => true,
            DeviceState::Failed => failed_too,
            _ => false,
        });
        if missing.is_empty() {
            return Err(RetryError::NobodyMissing);
        }
        let publication = request.publication().ok_or(RetryError::MessageGone)?;
        Ok((missing, publication))
    }

    /// The first wave, where the others have to wait for what it says, or for an operator.
    pub(super) fn first_alone(&self, id: u64) -> Option<Box<[u32]>> {
        let Whom::All(roster) = &self.requests.get(id)?.whom else { return None };
        let wave = roster.wave.as_ref()?;
        (wave.verdict() != Some(Verdict::Release)).then(|| wave.devices().into())
    }

    /// These devices, which are in ascending order, are sent the message again, and may answer
    /// until then.
    pub(super) fn reopen(&mut self, id: u64, devices: &[u32], expires: Timestamp) {
        let mut these = Ticked::new(devices.iter().copied());
        self.move_where(id, DeviceState::Queued, |index, _| these.has(index));
        let Some(request) = self.requests.get_mut(id) else { return };
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
        self.turn(id, Standing::Open);
    }

    /// The device is no member any more: the group's requests expect nothing of it. Its index may
    /// name another device soon.
    pub(super) fn leave(&mut self, index: u32, gid: Gid) {
        let ids: SmallVec<[u64; 4]> = self.by_group.of(gid).collect();
        for id in ids {
            self.strike(id, index);
        }
    }

    /// The device is gone, and its requests with it.
    pub(super) fn remove(&mut self, index: u32, gids: &[Gid]) {
        let ids: SmallVec<[u64; 4]> = self.by_device.of(index).collect();
        for id in ids {
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
            let Some(request) = self.requests.get(id) else { continue };
            pay_for(request.len(), budget);
            unanswered += u64::from(request.is_open());
            self.move_where(id, DeviceState::Expired, |_, state| state.is_open());
            self.end_if_over(id);
            self.end(id);
        }
        // Now and then, so that it is no long way when room is needed.
        self.pass_over_unkept(self.limits.sweep_max);
        unanswered
    }

    /// Moves many devices on in one pass, in which they are asked for in ascending order.
    fn move_where(
        &mut self,
        id: u64,
        to: DeviceState,
        which: impl FnMut(u32, DeviceState) -> bool,
    ) {
        let Some(request) = self.requests.get_mut(id) else { return };
        self.tally.take_all(&request.tally());
        let verdict = request.move_where(to, which);
        self.tally.add_all(&request.tally());
        self.verdicts.extend(verdict.map(|verdict| (id, verdict)));
        self.note_change(id);
    }

    fn open(&mut self, whom: Whom, draft: Draft, now: Timestamp) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        self.kept_bytes += draft.publication.message.kept_bytes();
        let (expires, request) = (draft.expires, Request::new(whom, draft, now));
        self.tally.add_all(&request.tally());
        self.requests.push(id, request);
        self.expiries.insert((expires, id));
        while self.kept_bytes > self.limits.retry_bytes_max && self.pass_over_unkept(usize::MAX) {
            self.drop_message(self.kept_from);
        }
        self.note_change(id);
        self.notes.head(id);
        id
    }

    fn drop_message(&mut self, id: u64) {
        let message = self.requests.get_mut(id).and_then(Request::drop_message);
        message.iter().for_each(|message| self.notes.message_gone(id, message));
        self.kept_bytes -= message.map_or(0, |message| message.kept_bytes());
    }

    /// Finds the oldest request whose message is kept, among so many; `false` when it did not.
    fn pass_over_unkept(&mut self, among: usize) -> bool {
        for (id, request) in self.requests.from(self.kept_from).take(among) {
            self.kept_from = id;
            if request.keeps_message() {
                return true;
            }
        }
        false
    }

    fn note_change(&mut self, id: u64) {
        self.notes.change(id);
        if self.changed.len() < self.limits.events_max {
            self.changed.insert(id);
        }
    }

    /// Nobody will answer any more. An A1 stands until its time is over: it permits an E1, and
    /// what was answered to it is the device's consent.
    fn end_if_over(&mut self, id: u64) {
        let Some(request) = self.requests.get(id) else { return };
        if request.is_open() {
            return;
        }
        let tally = request.tally();
        if tally.of(DeviceState::Ok) == tally.total() {
            self.drop_message(id);
        }
        let Some(request) = self.requests.get(id) else { return };
        if request.asked == Asked::Msg {
            self.expiries.remove(&(request.expires, id));
            self.end(id);
        } else if request.standing == Standing::Open {
            self.turn(id, Standing::Answered);
        }
    }

    fn turn(&mut self, id: u64, to: Standing) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let from = std::mem::replace(&mut request.standing, to);
        self.notes.head(id);
        match &request.whom {
            Whom::One { index, .. } => {
                self.by_device.remove(*index, from, id);
                self.by_device.insert(*index, to, id);
            }
            Whom::All(roster) => {
                self.by_group.remove(roster.gid, from, id);
                self.by_group.insert(roster.gid, to, id);
            }
        }
    }

    fn end(&mut self, id: u64) {
        let Some(request) = self.requests.get(id) else { return };
        if !self.ended.insert(id) {
            return;
        }
        self.ended_devices += request.len();
        self.in_waves.remove(&id);
        self.turn(id, Standing::Over);
        while self.ended.len() > self.limits.ended_campaigns_max
            || self.ended_devices > self.limits.ended_campaign_devices_max
        {
            let Some(oldest) = self.ended.first().copied() else { return };
            self.forget(oldest);
        }
    }

    fn strike(&mut self, id: u64, index: u32) {
        let Some(request) = self.requests.get_mut(id) else { return };
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
        self.forget_said((id, index));
        if from.is_open() {
            self.end_if_over(id);
        }
    }

    fn forget(&mut self, id: u64) {
        self.drop_message(id);
        let Some(request) = self.requests.remove(id) else { return };
        self.notes.gone(id, &request);
        let late = self.said_late.range((id, 0)..=(id, u32::MAX)).map(|(key, _)| *key);
        let late: Vec<(u64, u32)> = late.collect();
        late.into_iter().for_each(|key| self.forget_said(key));
        self.tally.take_all(&request.tally());
        self.expiries.remove(&(request.expires, id));
        self.changed.remove(&id);
        self.in_waves.remove(&id);
        if self.ended.remove(&id) {
            self.ended_devices -= request.len();
        }
        match &request.whom {
            Whom::One { index, .. } => self.by_device.remove(*index, request.standing, id),
            Whom::All(roster) => self.by_group.remove(roster.gid, request.standing, id),
        }
    }

    /// A1s to the device that are remembered, and how far it is with each.
    fn triggers<'a>(
        &'a self,
        index: u32,
        gids: &'a [Gid],
    ) -> impl Iterator<Item = (u64, &'a Request, DeviceState)> + 'a {
        let with_groups = gids.iter().flat_map(|gid| self.by_group.of(*gid));
        self.by_device.of(index).chain(with_groups).filter_map(move |id| {
            let request = self.requests.get(id).filter(|r| r.asked == Asked::Trigger)?;
            let state = request.state(index).filter(|state| *state != DeviceState::Gone)?;
            Some((id, request, state))
        })
    }

    /// A request with the answer's tid, whatever became of it, comes before all without one.
    fn classify(
        &self,
        ids: impl Iterator<Item = u64> + Clone,
        index: u32,
        tid: Option<&Tid>,
        now: Timestamp,
        is_asked: impl Fn(&Request) -> bool,
    ) -> Answerable {
        let requests = ids.filter_map(|id| Some((id, self.requests.get(id)?)));
        let requests = requests.filter(|(_, request)| is_asked(request));
        let best = |with_tid: bool| {
            let matching = requests.clone().filter(|(_, request)| match (with_tid, tid) {
                (true, tid) => request.tid() == tid,
                (false, Some(_)) => request.tid().is_none(),
                (false, None) => true,
            });
            let answerable =
                matching.map(|(id, request)| request.answerable(id, index, with_tid, now));
            Answerable::first_open(answerable)
        };
        match tid.map(|_| best(true)) {
            None | Some(Answerable::Never) => best(false),
            Some(exact) => exact,
        }
    }
}
