//! The control unit as a whole against a model that is too simple to be wrong: for each device a
//! list of letters, for each campaign a state per device.
//!
//! Servers publish A1, B1 and C1, in waves and not, under strict and lenient flow; devices come,
//! go, read, acknowledge, put back, answer and refuse; they change groups and vanish; operators
//! send again, withdraw and release; time passes; and now and then all that is left is what was
//! written down.

mod ops;

mod request;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::mailbox::READERS_MAX;
use super::disk::Disk;
use super::*;
use ops::{Op, Settled, ops};
use request::{Canaries, Request, is_failure};

const DEVICES: usize = 5;
const GROUPS: usize = 2;
const MAIL: Duration = Duration::from_secs(170);
const TTL_TRIGGER: Duration = Duration::from_secs(200);
const TTL_MSG: Duration = Duration::from_secs(90);
const TOLERATED_PERMILLE: u16 = 500;

/// What was posted once, as one device has it.
#[derive(Clone, Debug)]
struct Posted {
    campaign: usize,
    expires: Timestamp,
    /// When it is put away, unless it is on its way.
    looked_at: Timestamp,
    /// It lies in this group's log; else in the device's own mailbox.
    group: Option<usize>,
    needs_consent: bool,
    /// It waits for the first wave.
    gated: bool,
}

#[derive(Default)]
struct Device {
    /// `None` while it is not registered.
    groups: Option<u8>,
    /// By the order of posting.
    letters: BTreeMap<u32, Posted>,
    /// Those it was given, with their ids; also what is gone since.
    taken: BTreeMap<u32, u64>,
    /// Oldest first; the newest alone is served.
    readers: Vec<SessionKey>,
}

impl Device {
    fn is_in(&self, group: usize) -> bool {
        self.groups.is_some_and(|groups| groups & (1 << group) != 0)
    }

    fn groups(&self) -> Vec<usize> {
        (0..GROUPS).filter(|group| self.is_in(*group)).collect()
    }
}

struct World {
    unit: ControlUnit,
    now: Timestamp,
    strict: bool,
    devices: Vec<Device>,
    requests: Vec<Request>,
    /// First waves that have fared well, and nobody has acted upon it yet.
    verdicts: Vec<usize>,
    posted: u32,
    answers: u32,
    sessions: u32,
    options: ControlOptions,
    disk: Disk,
}

fn group_gid(group: usize) -> Gid {
    gid(group as u64 + 1)
}

fn nid(device: usize) -> Nid {
    eid(device as u128 + 1)
}

impl World {
    fn new(strict: bool) -> Self {
        let ttl = Ttl { trigger: TTL_TRIGGER, msg: TTL_MSG, exchange: TTL_MSG };
        let flow = if strict { Flow::Strict } else { Flow::Lenient };
        let settings =
            SettingsTable::new(Settings { ttl, flow, ..Settings::default() }, BTreeMap::default());
        let limits = RspLimits {
            open_requests_max: 1000,
            open_group_requests_max: 1000,
            ..RspLimits::default()
        };
        let options =
            ControlOptions { settings, limits, mail_ttl: MAIL, ..ControlOptions::default() };
        let mut world = Self {
            unit: ControlUnit::new(options.clone()),
            now: Timestamp(1),
            strict,
            devices: (0..DEVICES).map(|_| Device::default()).collect(),
            requests: Vec::new(),
            verdicts: Vec::new(),
            posted: 0,
            answers: 0,
            sessions: 0,
            options,
            disk: Disk::default(),
        };
        world.unit.keep_rows();
        (0..DEVICES).for_each(|device| world.put(device, device as u8 & 3));
        world.disk.write(&mut world.unit);
        world
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Single(is_msg, device) => self.single(is_msg, device),
            Op::Group(is_msg, group, wave) => self.group(is_msg, group, wave),
            Op::Attach(device) => self.attach(device),
            Op::Detach(device, at) => self.detach(device, at),
            Op::Pull(device, room) => self.pull(device, room),
            Op::Settle(device, at, how) => self.settle(device, at, how),
            Op::Answer(device, at, in_group, rc) => self.answer(device, at, in_group, rc),
            Op::Retry(at, failed_too) => self.retry(at, failed_too),
            Op::Cancel(at) => self.cancel(at),
            Op::Release(at) => self.release(at),
            Op::Move(device, groups) => self.put(device, groups),
            Op::Remove(device) => self.remove(device),
            Op::Wait(secs) => self.now = self.now.after(Duration::from_secs(secs)),
            Op::Sweep => self.sweep(),
            Op::Restart => self.restart(),
        }
        self.disk.write(&mut self.unit);
        self.check();
    }

    /// Nobody is connected any more, and what first waves have decided is done.
    fn restart(&mut self) {
        let unit = self.disk.restored(&self.options, "");
        let (seen, before) =
            (self.disk.seen(&unit, self.now), self.disk.seen(&self.unit, self.now));
        seen.lines().zip(before.lines()).for_each(|(now, before)| assert_eq!(now, before));
        assert_eq!(seen, before);
        self.unit = unit;
        for device in &mut self.devices {
            device.readers.clear();
            device.taken.clear();
            // Nothing is on its way any more that would have to be spared.
            device.letters.values_mut().for_each(|letter| letter.looked_at = letter.expires);
        }
        self.heed();
    }

    /// The request that is the `at`th from the newest.
    fn latest(&self, at: usize) -> Option<usize> {
        self.requests.len().checked_sub(at + 1)
    }

    /// Whether a device agrees, as far as these groups are concerned.
    fn agrees(&self, device: usize, groups: &[usize]) -> bool {
        let concerned = self.requests.iter().filter(|request| {
            !request.is_msg && request.group.is_none_or(|group| groups.contains(&group))
        });
        let said = |request: &&Request| {
            let state = request.state(device);
            matches!(state, Some(DeviceState::Ok | DeviceState::Refused))
        };
        let last = concerned.filter(said).max_by_key(|request| request.said.get(&device));
        last.is_some_and(|request| {
            request.state(device) == Some(DeviceState::Ok) && request.expires > self.now
        })
    }

    fn single(&mut self, is_msg: bool, device: usize) {
        let model = &self.devices[device];
        let expected = match model.groups {
            None => Err(Refusal::UnknownNid),
            Some(_) if is_msg && self.strict && !self.agrees(device, &model.groups()) => {
                Err(Refusal::ConsentMissing)
            }
            Some(_) => Ok(vec![device]),
        };
        self.publish(is_msg, None, Some(device), expected, None);
    }

    fn group(&mut self, is_msg: bool, group: usize, wave: Option<u32>) {
        // In the order of the registry, which decides who is first.
        let known = self.unit.registry().members_of(group_gid(group));
        let device = |known: Nid| (0..DEVICES).find(|device| nid(*device) == known).unwrap();
        let members: Vec<usize> = known.map(device).collect();
        let mut sorted = members.clone();
        sorted.sort_unstable();
        let all = 0..DEVICES;
        assert_eq!(sorted, all.filter(|d| self.devices[*d].is_in(group)).collect::<Vec<_>>());
        let expected = if members.is_empty() { Err(Refusal::UnknownGid) } else { Ok(members) };
        self.publish(is_msg, Some(group), None, expected, wave);
    }

    fn publish(
        &mut self,
        is_msg: bool,
        group: Option<usize>,
        device: Option<usize>,
        expected: Result<Vec<usize>, Refusal>,
        first: Option<u32>,
    ) {
        let number = self.requests.len();
        let mut head = Head {
            nid: device.map(nid),
            gid: group.map(group_gid),
            tid: Some(Tid::Number(number as i128)),
            ..Head::new(if is_msg { Kind::Msg } else { Kind::Trigger })
        };
        let failures_max = Some(TOLERATED_PERMILLE);
        head.options.wave = first.map(|first| Wave { first, failures_max });
        let server = Identity::server("s");
        let submission = Submission::new(&server, TO_EUICC, &head, 9);
        let message = message(&number.to_string(), Timestamp::NEVER);
        let outcome = self.unit.publish(&submission, &message, self.now);
        let members = match (outcome, expected) {
            (Ok(outcome), Ok(members)) => {
                assert_eq!(outcome.reached as usize, members.len());
                let id = outcome.campaign.unwrap();
                let ttl = if is_msg { TTL_MSG } else { TTL_TRIGGER };
                self.requests.push(Request {
                    id,
                    is_msg,
                    group,
                    expires: self.now.after(ttl),
                    states: members.iter().map(|d| (*d, DeviceState::Queued)).collect(),
                    wave: self.first_wave(&members, first),
                    said: BTreeMap::new(),
                    forgotten: false,
                });
                members
            }
            (outcome, expected) => {
                assert_eq!(outcome.err(), expected.err());
                return;
            }
        };
        let needs_consent = self.strict && is_msg && group.is_some();
        let gated = self.requests[number].wave.is_some();
        self.post(number, &members, needs_consent, gated);
        self.heed();
    }

    /// Who is served first: those with a reader, then the others.
    fn first_wave(&self, members: &[usize], first: Option<u32>) -> Option<Canaries> {
        let count = first? as usize;
        if count >= members.len() {
            return None;
        }
        let online = |device: &&usize| !self.devices[**device].readers.is_empty();
        let (present, absent): (Vec<_>, Vec<_>) = members.iter().partition(online);
        let first = present.into_iter().chain(absent).take(count).copied().collect();
        Some(Canaries { first, done: 0, failed: 0, verdict: None })
    }

    fn post(&mut self, campaign: usize, members: &[usize], needs_consent: bool, gated: bool) {
        let request = &self.requests[campaign];
        let expires = self.now.after(MAIL.min(request.ttl()));
        let group = request.group;
        self.posted += 1;
        for device in members {
            let looked_at = expires;
            let letter = Posted { campaign, expires, looked_at, group, needs_consent, gated };
            self.devices[*device].letters.insert(self.posted, letter);
        }
    }

    /// Moves a device on with a campaign, if an answer was still to come.
    fn move_on(&mut self, campaign: usize, device: usize, to: DeviceState) {
        let request = &mut self.requests[campaign];
        if request.state(device).is_some_and(DeviceState::is_open) && request.set(device, to) {
            self.verdicts.push(campaign);
        }
    }

    /// What first waves have decided is done.
    fn heed(&mut self) {
        for campaign in std::mem::take(&mut self.verdicts) {
            self.open_gate(campaign);
        }
    }

    fn open_gate(&mut self, campaign: usize) {
        let letters = self.devices.iter_mut().flat_map(|device| device.letters.values_mut());
        let mine = letters.filter(|l| l.campaign == campaign && l.group.is_some());
        mine.for_each(|letter| letter.gated = false);
    }

    fn attach(&mut self, device: usize) {
        self.sessions += 1;
        let reader = session(self.sessions);
        let attached = self.unit.attach(nid(device), reader);
        let model = &mut self.devices[device];
        assert_eq!(attached.is_ok(), model.groups.is_some());
        if attached.is_ok() {
            if model.readers.len() == READERS_MAX {
                model.readers.remove(0);
            }
            model.readers.push(reader);
            model.taken.clear();
        }
    }

    fn detach(&mut self, device: usize, at: usize) {
        let Some(key) = self.unit.registry().key(nid(device)) else { return };
        let model = &mut self.devices[device];
        if at >= model.readers.len() {
            return;
        }
        let served = at + 1 == model.readers.len();
        let reader = model.readers.remove(at);
        let next = self.unit.detach(key, reader);
        assert_eq!(next, model.readers.last().copied().filter(|_| served));
        if served {
            model.taken.clear();
        }
    }

    /// Whether a device may have a letter now.
    fn may_have(&self, device: usize, letter: &Posted) -> bool {
        let wave = self.requests[letter.campaign].wave.as_ref();
        let is_first = wave.is_some_and(|wave| wave.first.contains(&device));
        let agrees = |group| self.agrees(device, &[group]);
        letter.expires > self.now
            && (!letter.gated || is_first)
            && (!letter.needs_consent || letter.group.is_none_or(agrees))
    }

    fn pull(&mut self, device: usize, room: usize) {
        let Some(key) = self.unit.registry().key(nid(device)) else { return };
        let model = &self.devices[device];
        let reader = model.readers.last().copied();
        let letters = self.unit.pull(key, reader.unwrap_or(session(0)), room, self.now);
        let waiting = model.letters.iter().filter(|(number, letter)| {
            !model.taken.contains_key(number) && self.may_have(device, letter)
        });
        let waiting = waiting.map(|(number, letter)| (*number, letter.campaign));
        let room = if reader.is_some() { room } else { 0 };
        let expected: Vec<(u32, usize)> = waiting.take(room).collect();
        let campaigns: Vec<usize> = expected.iter().map(|(_, campaign)| *campaign).collect();
        let pulled: Vec<usize> = letters.iter().map(|l| text(l).parse().unwrap()).collect();
        assert_eq!(pulled, campaigns, "device {device}");
        let ids = letters.iter().map(|letter| letter.id);
        let numbers = expected.into_iter().map(|(number, _)| number);
        self.devices[device].taken.extend(numbers.zip(ids));
    }

    fn settle(&mut self, device: usize, at: usize, how: Settled) {
        let Some(key) = self.unit.registry().key(nid(device)) else { return };
        let model = &mut self.devices[device];
        let Some((number, id)) = model.taken.iter().nth(at).map(|(n, id)| (*n, *id)) else {
            return;
        };
        model.taken.remove(&number);
        // What has expired on its way is no longer there.
        let letter = model.letters.get(&number).cloned();
        let reader = *model.readers.last().unwrap();
        let to = match how {
            Settled::Acknowledged => {
                let arrived = self.unit.acknowledge(key, id, self.now);
                assert_eq!(arrived.is_some(), letter.is_some());
                assert_eq!(self.unit.acknowledge(key, id, self.now), None, "once");
                DeviceState::Delivered
            }
            Settled::PutBack => return self.unit.put_back(key, reader, &[id]),
            Settled::Discarded => {
                let discarded = self.unit.discard(key, id, self.now);
                assert_eq!(discarded.is_some(), letter.is_some());
                DeviceState::Failed
            }
        };
        if let Some(letter) = letter {
            self.devices[device].letters.remove(&number);
            self.move_on(letter.campaign, device, to);
            if to == DeviceState::Failed {
                self.heed();
            }
        }
    }

    /// A device answers a campaign, by its transaction id.
    fn answer(&mut self, device: usize, at: usize, in_group: bool, rc: i64) {
        let Some(campaign) = self.latest(at) else { return };
        let request = &self.requests[campaign];
        let model = &self.devices[device];
        let own_groups = model.groups();
        let group = if in_group { request.group.or(own_groups.first().copied()) } else { None };
        if in_group && group.is_none() {
            return;
        }
        let kind = if request.is_msg { Kind::RetMsg } else { Kind::RetTrigger };
        let head = Head {
            nid: group.is_none().then(|| nid(device)),
            gid: group.map(group_gid),
            tid: Some(Tid::Number(campaign as i128)),
            rc: Some(rc),
            ..Head::new(kind)
        };
        let expected = self.answerable(campaign, device, group);
        let from = Identity::device(nid(device));
        let submission = Submission::new(&from, TO_SM_SR, &head, 9);
        let outcome = self.unit.publish(&submission, &message("", Timestamp::NEVER), self.now);
        assert_eq!(outcome.as_ref().err(), expected.as_ref().err(), "{campaign} by {device}");
        if outcome.is_err() {
            return;
        }
        let is_msg = self.requests[campaign].is_msg;
        let to = match (rc, is_msg) {
            (0, _) => DeviceState::Ok,
            (_, false) => DeviceState::Refused,
            (_, true) => DeviceState::Failed,
        };
        self.answers += 1;
        self.requests[campaign].said.insert(device, self.answers);
        self.move_on(campaign, device, to);
        if to == DeviceState::Refused {
            let groups = self.requests[campaign].group.map_or(own_groups, |group| vec![group]);
            self.drop_unagreed(device, &groups);
        }
        self.heed();
    }

    fn answerable(
        &self,
        campaign: usize,
        device: usize,
        in_group: Option<usize>,
    ) -> Result<(), Refusal> {
        let (request, model) = (&self.requests[campaign], &self.devices[device]);
        if model.groups.is_none() {
            return Err(Refusal::NotRegistered);
        }
        if in_group.is_some_and(|group| !model.is_in(group)) {
            return Err(Refusal::ForeignGid);
        }
        let fits = match (request.group, in_group) {
            (None, None) => true,
            (Some(group), Some(own)) => group == own,
            // A trigger is answered in either form.
            (None, Some(_)) => !request.is_msg,
            (Some(group), None) => !request.is_msg && model.is_in(group),
        };
        use DeviceState::{Cancelled, Delivered, Expired, Failed, Gone, Ok as Done, Queued};
        match request.state(device).filter(|_| fits) {
            None | Some(Cancelled | Gone) => Err(Refusal::UnsolicitedAnswer),
            Some(Done | DeviceState::Refused | Failed) => Err(Refusal::DuplicateAnswer),
            Some(Queued | Delivered) if request.expires > self.now => Ok(()),
            Some(Queued | Delivered | Expired) => Err(Refusal::LateAnswer),
        }
    }

    /// What waits for the agreement of a device that does not agree is not for it any more.
    fn drop_unagreed(&mut self, device: usize, groups: &[usize]) {
        let model = &mut self.devices[device];
        let dropped: Vec<(u32, usize)> = model
            .letters
            .iter()
            .filter(|(number, letter)| {
                letter.needs_consent
                    && letter.group.is_some_and(|group| groups.contains(&group))
                    && !model.taken.contains_key(number)
            })
            .map(|(number, letter)| (*number, letter.campaign))
            .collect();
        for (number, campaign) in dropped {
            self.devices[device].letters.remove(&number);
            self.move_on(campaign, device, DeviceState::Refused);
        }
    }

    fn retry(&mut self, at: usize, failed_too: bool) {
        let Some(campaign) = self.latest(at) else { return };
        let request = &mut self.requests[campaign];
        let retried = self.unit.retry(request.id, failed_too, self.now);
        if request.forgotten {
            assert_eq!(retried, Err(RetryError::Unknown));
            return;
        }
        let is_missing = |state: &DeviceState| match state {
            DeviceState::Delivered | DeviceState::Expired => true,
            DeviceState::Failed => failed_too,
            _ => false,
        };
        let missing = request.states.iter().filter(|(_, state)| is_missing(state));
        let missing: Vec<usize> = missing.map(|(device, _)| *device).collect();
        if missing.is_empty() {
            assert_eq!(retried, Err(RetryError::NobodyMissing));
            return;
        }
        assert_eq!(retried.unwrap().0 as usize, missing.len());
        for device in &missing {
            let from = request.states.insert(*device, DeviceState::Queued).unwrap();
            let wave = request.wave.as_mut().filter(|wave| wave.first.contains(device));
            if let Some(wave) = wave.filter(|_| !from.is_open()) {
                wave.done -= 1;
                wave.failed -= usize::from(is_failure(from));
            }
        }
        request.expires = request.expires.max(self.now.after(request.ttl()));
        let needs_consent = self.strict && request.is_msg && request.group.is_some();
        let gated = request.wave.as_ref().is_some_and(|wave| wave.verdict != Some(true));
        self.post(campaign, &missing, needs_consent, gated);
    }

    fn cancel(&mut self, at: usize) {
        let Some(campaign) = self.latest(at) else { return };
        let request = &self.requests[campaign];
        let (id, group, forgotten) = (request.id, request.group, request.forgotten);
        let (mut withdrawn, mut under_way) = (BTreeSet::new(), BTreeSet::new());
        for (at, device) in self.devices.iter_mut().enumerate() {
            let taken = &device.taken;
            device.letters.retain(|number, letter| {
                let is_mine = letter.campaign == campaign;
                if is_mine && taken.contains_key(number) {
                    under_way.insert(at);
                } else if is_mine {
                    withdrawn.insert(at);
                    return false;
                }
                true
            });
        }
        let queued = request.states.iter().filter(|(_, state)| **state == DeviceState::Queued);
        let cancelled: Vec<usize> = match group {
            None => queued.map(|(d, _)| *d).filter(|d| withdrawn.contains(d)).collect(),
            Some(_) => queued.map(|(d, _)| *d).filter(|d| !under_way.contains(d)).collect(),
        };
        let expected = u32::try_from(cancelled.len()).unwrap();
        for device in cancelled {
            self.requests[campaign].set(device, DeviceState::Cancelled);
        }
        self.verdicts.retain(|other| *other != campaign);
        assert_eq!(self.unit.cancel(id), (!forgotten).then_some(expected));
    }

    fn release(&mut self, at: usize) {
        let Some(campaign) = self.latest(at) else { return };
        let released = self.unit.release(self.requests[campaign].id);
        let wave = self.requests[campaign].wave.as_mut();
        assert_eq!(released.is_some(), wave.is_some());
        if let Some(wave) = wave {
            wave.verdict = Some(true);
            self.open_gate(campaign);
        }
    }

    fn put(&mut self, device: usize, groups: u8) {
        let gids: Vec<Gid> =
            (0..GROUPS).filter(|g| groups & (1 << g) != 0).map(group_gid).collect();
        let put = self.unit.put_device(nid(device), &gids, "").unwrap();
        let model = &mut self.devices[device];
        assert_eq!(put.is_new, model.groups.is_none());
        let left = model.groups().into_iter().filter(|group| groups & (1 << group) == 0);
        let left: Vec<usize> = left.collect();
        self.devices[device].groups = Some(groups);
        left.into_iter().for_each(|group| self.leave(device, group));
    }

    /// A member that leaves keeps what it might have had at once, and what is on its way to it.
    fn leave(&mut self, device: usize, group: usize) {
        let (model, requests) = (&mut self.devices[device], &self.requests);
        let taken = &model.taken;
        model.letters.retain(|number, letter| {
            if letter.group != Some(group) {
                return true;
            }
            let wave = requests[letter.campaign].wave.as_ref();
            let is_first = wave.is_some_and(|wave| wave.first.contains(&device));
            let is_free = !letter.needs_consent && (!letter.gated || is_first);
            letter.group = None;
            letter.looked_at = letter.expires;
            is_free || taken.contains_key(number)
        });
        self.strike(device, |request| request.group == Some(group));
    }

    fn strike(&mut self, device: usize, which: impl Fn(&Request) -> bool) {
        for campaign in 0..self.requests.len() {
            let request = &mut self.requests[campaign];
            let from = request.state(device).filter(|from| *from != DeviceState::Gone);
            if from.is_some() && which(request) && request.set(device, DeviceState::Gone) {
                self.verdicts.push(campaign);
            }
        }
    }

    fn remove(&mut self, device: usize) {
        let removed = self.unit.remove_device(nid(device));
        let model = std::mem::take(&mut self.devices[device]);
        assert_eq!(removed, model.groups.map(|_| model.readers.last().copied()));
        self.strike(device, |_| true);
        for request in &mut self.requests {
            request.forgotten |= request.group.is_none() && request.states.contains_key(&device);
        }
    }

    fn sweep(&mut self) {
        self.unit.sweep(self.now);
        let now = self.now;
        let mut lost = Vec::new();
        let mut spared = BTreeSet::new();
        for (at, device) in self.devices.iter_mut().enumerate() {
            let taken = &device.taken;
            device.letters.retain(|number, letter| {
                let is_due = letter.looked_at <= now;
                // What is on its way is spared.
                if is_due && taken.contains_key(number) && letter.group.is_some() {
                    spared.insert(*number);
                }
                let is_over = is_due && !taken.contains_key(number);
                if is_over {
                    lost.push((at, letter.clone()));
                }
                !is_over
            });
        }
        // A letter to a group is looked at again a second later.
        for letter in self.devices.iter_mut().flat_map(|device| &mut device.letters) {
            if spared.contains(letter.0) && letter.1.group.is_some() {
                letter.1.looked_at = now.after(Duration::from_secs(1));
            }
        }
        for (device, Posted { campaign, group, .. }) in lost {
            let state = self.requests[campaign].state(device);
            let own = self.devices[device].letters.values();
            let is_alone = !own.into_iter().any(|l| l.campaign == campaign && l.group.is_none());
            let is_lost = match group {
                Some(_) => state == Some(DeviceState::Queued),
                None => is_alone,
            };
            if is_lost {
                self.move_on(campaign, device, DeviceState::Expired);
            }
        }
        for campaign in 0..self.requests.len() {
            if self.requests[campaign].expires > now {
                continue;
            }
            let devices: Vec<usize> = self.requests[campaign].states.keys().copied().collect();
            for device in devices {
                self.move_on(campaign, device, DeviceState::Expired);
            }
        }
        self.heed();
    }

    /// What operators see is what has happened.
    fn check(&self) {
        let (mut all, mut open) = (BTreeMap::new(), 0);
        for request in self.requests.iter().filter(|request| !request.forgotten) {
            let campaign = self.unit.campaign(request.id, self.now).unwrap();
            for state in DeviceState::ALL {
                let count = request.states.values().filter(|other| **other == state).count();
                assert_eq!(campaign.tally.of(state) as usize, count, "{state:?}");
                *all.entry(state).or_insert(0) += count;
            }
            let states = request.states.iter().filter(|(_, state)| **state != DeviceState::Gone);
            let states: BTreeMap<Nid, DeviceState> =
                states.map(|(device, state)| (nid(*device), *state)).collect();
            let shown = self.unit.campaign_devices(request.id, 0);
            assert_eq!(shown.map(|d| (d.nid, d.state)).collect::<BTreeMap<_, _>>(), states);
            let wave = request.wave.as_ref().map(|w| (w.first.len(), w.done, w.failed));
            let shown =
                campaign.wave.map(|w| (w.first as usize, w.done as usize, w.failed as usize));
            assert_eq!(shown, wave);
            open += usize::from(campaign.tally.open() > 0);
        }
        let stats = self.unit.stats();
        for state in DeviceState::ALL {
            let count = all.get(&state).copied().unwrap_or(0);
            assert_eq!(stats.campaign_devices.of(state) as usize, count, "{state:?}");
        }
        assert!(stats.campaigns_open >= open);
        let letters = self.devices.iter().flat_map(|device| &device.letters);
        let (own, shared): (Vec<_>, Vec<_>) = letters.partition(|(_, l)| l.group.is_none());
        let shared: BTreeSet<u32> = shared.into_iter().map(|(number, _)| *number).collect();
        assert_eq!(stats.mail_messages, own.len() + shared.len());
    }

    /// In the end everybody comes and gets all it may have; what is left has expired or is held
    /// back. When all are gone and all time is over, nothing is left of them.
    fn finish(mut self) {
        for device in 0..DEVICES {
            self.attach(device);
            self.pull(device, usize::MAX);
            while !self.devices[device].taken.is_empty() {
                self.settle(device, 0, Settled::Acknowledged);
            }
            let left = self.devices[device].letters.values();
            left.for_each(|letter| assert!(!self.may_have(device, letter)));
            self.check();
        }
        (0..DEVICES).for_each(|device| self.remove(device));
        self.check();
        self.now = Timestamp::NEVER;
        self.sweep();
        let stats = self.unit.stats();
        assert_eq!((stats.devices, stats.devices_online, stats.groups), (0, 0, 0));
        assert_eq!((stats.mail_messages, stats.mail_bytes, stats.mail_dropped), (0, 0, 0));
        assert_eq!((stats.campaigns_open, stats.campaign_devices.total()), (0, 0));
        assert_eq!((stats.campaigns_canary, stats.campaigns_halted), (0, 0));
        assert_eq!((stats.wishes, stats.exchanges, self.unit.ledger.said_late()), (0, 0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn everybody_gets_what_is_for_it_and_operators_see_how_far_it_is(
        strict in any::<bool>(),
        ops in ops(),
    ) {
        let mut world = World::new(strict);
        ops.iter().for_each(|op| world.apply(op));
        world.finish();
    }
}
