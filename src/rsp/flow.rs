//! Flow: the ledger of open requests, so that an answer is one only when it was asked for.
//!
//! A request to a device, or by it, is one entry of that device. A request to a group is one entry
//! of the group with a [`Roll`] of its receivers, however many they are. All lists are bounded:
//! the newest request counts, and the oldest is forgotten for it.
//!
//! An answer is matched by its `tid` when an open request of the kind has the same, else it
//! answers the oldest.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::RandomState;

use super::envelope::Tid;
use super::exchange::due;
use super::roll::Roll;
use super::settings::RspLimits;
use crate::ids::{Gid, Timestamp};

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A1: waits for A2; answered, it still permits an E1 until its time is over.
    Trigger,
    /// B1 or C1: waits for B2 or C2.
    Msg,
    /// D1: waits for D2; permits an A1 until its time is over, answered or not.
    Wish,
    /// An acknowledged E2: the device owes its report, a B2 `[0069]`.
    Report,
}

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Device(u32),
    Group(Gid),
}

/// An open request, as found for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    owner: Owner,
    id: u64,
    /// Who answers a group's request; without meaning otherwise.
    by: u32,
}

/// Which answers a group request has had from one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answerable {
    Open(Found),
    /// Every request to the device has its answer.
    Answered,
    Never,
}

#[derive(Debug)]
struct Request {
    id: u64,
    asked: Asked,
    tid: Option<Tid>,
    expires: Timestamp,
    /// A device's own request, or a D1 in group form, has its one answer.
    answered: bool,
    whose: Whose,
}

#[derive(Debug)]
enum Whose {
    /// A single device's, whose entry this is.
    One,
    /// All members': who has answered.
    All(Roll),
    /// A D1 in group form by this member.
    Member(u32),
}

#[derive(Debug, Default)]
struct GroupRequests {
    /// A1 and C1.
    asked: VecDeque<Request>,
    /// D1.
    wishes: VecDeque<Request>,
}

#[derive(Debug)]
pub(super) struct Ledger {
    devices: HashMap<u32, VecDeque<Request>, RandomState>,
    groups: HashMap<Gid, GroupRequests, RandomState>,
    expiries: BTreeSet<(Timestamp, (u64, Owner))>,
    last_id: u64,
    limits: RspLimits,
}

impl Ledger {
    pub(super) fn new(limits: RspLimits) -> Self {
        Self {
            devices: HashMap::default(),
            groups: HashMap::default(),
            expiries: BTreeSet::new(),
            last_id: 0,
            limits,
        }
    }

    /// Requests that are remembered, open or answered.
    pub(super) fn len(&self) -> usize {
        self.expiries.len()
    }

    /// Opens a request to or by one device.
    pub(super) fn open(
        &mut self,
        index: u32,
        asked: Asked,
        tid: Option<Tid>,
        ttl: Duration,
        now: Timestamp,
    ) {
        let request = self.request(asked, tid, now.after(ttl), Whose::One);
        self.expiries.insert((request.expires, (request.id, Owner::Device(index))));
        let requests = self.devices.entry(index).or_default();
        requests.push_back(request);
        if requests.len() > self.limits.open_requests_max {
            // Those that have their answer are the smallest loss.
            let at = requests.iter().position(|request| request.answered).unwrap_or(0);
            let oldest = requests.remove(at);
            self.forget(oldest, Owner::Device(index));
        }
    }

    /// Opens a request to all members of a group.
    pub(super) fn open_group(
        &mut self,
        gid: Gid,
        asked: Asked,
        members: Arc<Vec<u32>>,
        tid: Option<Tid>,
        expires: Timestamp,
    ) {
        let request = self.request(asked, tid, expires, Whose::All(Roll::new(members)));
        self.expiries.insert((request.expires, (request.id, Owner::Group(gid))));
        let requests = &mut self.groups.entry(gid).or_default().asked;
        requests.push_back(request);
        if requests.len() > self.limits.open_group_requests_max {
            let oldest = requests.pop_front();
            self.forget(oldest, Owner::Group(gid));
        }
    }

    /// Opens a D1 in group form. A member that floods its group loses its own D1s first.
    pub(super) fn open_wish(&mut self, gid: Gid, by: u32, tid: Option<Tid>, expires: Timestamp) {
        let request = self.request(Asked::Wish, tid, expires, Whose::Member(by));
        self.expiries.insert((request.expires, (request.id, Owner::Group(gid))));
        let wishes = &mut self.groups.entry(gid).or_default().wishes;
        let mut oldest = None;
        if wishes.len() >= self.limits.open_group_triggers_max {
            let at = wishes.iter().position(|wish| wish.is_by(by)).unwrap_or(0);
            oldest = wishes.remove(at);
        }
        wishes.push_back(request);
        self.forget(oldest, Owner::Group(gid));
    }

    /// The request of a device that an answer with this tid answers.
    pub(super) fn find(
        &self,
        index: u32,
        asked: Asked,
        tid: Option<&Tid>,
        now: Timestamp,
    ) -> Option<Found> {
        let requests = self.devices.get(&index)?.iter();
        let open = requests.filter(|r| r.asked == asked && r.is_open(now));
        best(open, tid).map(|id| Found { owner: Owner::Device(index), id, by: index })
    }

    /// The request to a group that an answer of this member answers.
    pub(super) fn find_group(
        &self,
        gid: Gid,
        by: u32,
        asked: Asked,
        tid: Option<&Tid>,
        now: Timestamp,
    ) -> Answerable {
        let Some(requests) = self.groups.get(&gid) else { return Answerable::Never };
        let addressed = requests.asked.iter().filter(|request| {
            request.asked == asked
                && request.expires > now
                && request.roll().is_some_and(|roll| roll.contains(by))
        });
        let pending = |request: &&Request| request.roll().is_some_and(|roll| roll.is_pending(by));
        match best(addressed.clone().filter(pending), tid) {
            Some(id) => Answerable::Open(Found { owner: Owner::Group(gid), id, by }),
            None if addressed.count() > 0 => Answerable::Answered,
            None => Answerable::Never,
        }
    }

    /// The D1 in group form that a D2 with this tid answers.
    pub(super) fn find_wish(&self, gid: Gid, tid: Option<&Tid>, now: Timestamp) -> Option<Found> {
        let wishes = self.groups.get(&gid)?.wishes.iter();
        let id = best(wishes.filter(|wish| wish.is_open(now)), tid)?;
        Some(Found { owner: Owner::Group(gid), id, by: 0 })
    }

    /// Whether a request of this kind to or by the device is in its time, answered or not.
    pub(super) fn is_standing(&self, index: u32, asked: Asked, now: Timestamp) -> bool {
        let requests = self.devices.get(&index).into_iter().flatten();
        requests.into_iter().any(|request| request.asked == asked && request.expires > now)
    }

    /// Whether an A1 to the group, with this member among its receivers, is in its time.
    pub(super) fn is_group_triggered(&self, gid: Gid, index: u32, now: Timestamp) -> bool {
        let requests = self.groups.get(&gid).map(|requests| &requests.asked);
        requests.into_iter().flatten().any(|request| {
            request.asked == Asked::Trigger
                && request.expires > now
                && request.roll().is_some_and(|roll| roll.contains(index))
        })
    }

    /// Whether a D1 in group form is in its time: anybody's, or this member's.
    pub(super) fn is_wished(&self, gid: Gid, by: Option<u32>, now: Timestamp) -> bool {
        let wishes = self.groups.get(&gid).map(|requests| &requests.wishes);
        let mut wishes = wishes.into_iter().flatten();
        wishes.any(|wish| wish.expires > now && by.is_none_or(|by| wish.is_by(by)))
    }

    /// The answer came.
    pub(super) fn answer(&mut self, found: Found) {
        match found.owner {
            Owner::Device(index) => self.answer_device(index, found.id),
            Owner::Group(gid) => {
                let Some(requests) = self.groups.get_mut(&gid) else { return };
                if let Some(request) =
                    position(&requests.asked, found.id).and_then(|at| requests.asked.get_mut(at))
                    && let Whose::All(roll) = &mut request.whose
                {
                    roll.finish(found.by);
                }
                if let Some(at) = position(&requests.wishes, found.id) {
                    requests.wishes[at].answered = true;
                }
            }
        }
    }

    /// The device is no member any more: the group's requests expect nothing of it, and its own
    /// D1s in the group's name are void.
    pub(super) fn leave(&mut self, index: u32, gid: Gid) {
        let Some(requests) = self.groups.get_mut(&gid) else { return };
        for request in &mut requests.asked {
            if let Whose::All(roll) = &mut request.whose {
                roll.finish(index);
            }
        }
        for wish in requests.wishes.iter().filter(|wish| wish.is_by(index)) {
            self.expiries.remove(&(wish.expires, (wish.id, Owner::Group(gid))));
        }
        requests.wishes.retain(|wish| !wish.is_by(index));
        if requests.is_empty() {
            self.groups.remove(&gid);
        }
    }

    /// The device is gone, and its requests with it.
    pub(super) fn remove(&mut self, index: u32, gids: &[Gid]) {
        for request in self.devices.remove(&index).into_iter().flatten() {
            self.forget(Some(request), Owner::Device(index));
        }
        gids.iter().for_each(|gid| self.leave(index, *gid));
    }

    /// Forgets requests whose time is over, at most `budget` of them; returns how many had no
    /// answer (a group's request counts when some member gave none).
    pub(super) fn sweep(&mut self, now: Timestamp, budget: &mut usize) -> u64 {
        let mut unanswered = 0;
        while let Some((at, (id, owner))) = due(&self.expiries, now, budget) {
            self.expiries.remove(&(at, (id, owner)));
            let request = self.take(id, owner);
            unanswered += u64::from(request.is_some_and(|request| !request.is_answered()));
        }
        unanswered
    }

    fn request(
        &mut self,
        asked: Asked,
        tid: Option<Tid>,
        expires: Timestamp,
        whose: Whose,
    ) -> Request {
        self.last_id += 1;
        Request { id: self.last_id, asked, tid, expires, answered: false, whose }
    }

    fn answer_device(&mut self, index: u32, id: u64) {
        let Some(requests) = self.devices.get_mut(&index) else { return };
        let Some(at) = position(requests, id) else { return };
        match requests[at].asked {
            // These still permit something until their time is over.
            Asked::Trigger | Asked::Wish => requests[at].answered = true,
            Asked::Msg | Asked::Report => {
                let request = self.take(id, Owner::Device(index));
                self.forget(request, Owner::Device(index));
            }
        }
    }

    fn take(&mut self, id: u64, owner: Owner) -> Option<Request> {
        match owner {
            Owner::Device(index) => {
                let requests = self.devices.get_mut(&index)?;
                let request = requests.remove(position(requests, id)?);
                if requests.is_empty() {
                    self.devices.remove(&index);
                }
                request
            }
            Owner::Group(gid) => {
                let requests = self.groups.get_mut(&gid)?;
                let list = match position(&requests.asked, id) {
                    Some(_) => &mut requests.asked,
                    None => &mut requests.wishes,
                };
                let request = list.remove(position(list, id)?);
                if requests.is_empty() {
                    self.groups.remove(&gid);
                }
                request
            }
        }
    }

    /// Takes a request that is in no list any more out of the calendar.
    fn forget(&mut self, request: Option<Request>, owner: Owner) {
        if let Some(request) = request {
            self.expiries.remove(&(request.expires, (request.id, owner)));
        }
    }
}

impl GroupRequests {
    fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.wishes.is_empty()
    }
}

impl Request {
    fn is_open(&self, now: Timestamp) -> bool {
        !self.answered && self.expires > now
    }

    fn is_answered(&self) -> bool {
        self.answered || self.roll().is_some_and(|roll| roll.remaining() == 0)
    }

    fn is_by(&self, index: u32) -> bool {
        matches!(self.whose, Whose::Member(by) if by == index)
    }

    fn roll(&self) -> Option<&Roll> {
        match &self.whose {
            Whose::All(roll) => Some(roll),
            Whose::One | Whose::Member(_) => None,
        }
    }
}

/// Lists are ascending by id.
fn position(requests: &VecDeque<Request>, id: u64) -> Option<usize> {
    requests.binary_search_by_key(&id, |request| request.id).ok()
}

/// The request with the answer's tid, else the oldest.
fn best<'a>(
    mut requests: impl Iterator<Item = &'a Request> + Clone,
    tid: Option<&Tid>,
) -> Option<u64> {
    let oldest = requests.clone().next();
    let same = tid.and_then(|tid| requests.find(|request| request.tid.as_ref() == Some(tid)));
    same.or(oldest).map(|request| request.id)
}
