//! Mail against a model that is too simple to be wrong: one list of letters per device.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::mailbox::READERS_MAX;
use super::*;

const DEVICES: usize = 6;
const GROUPS: usize = 3;
const MAIL_SECS: u64 = 100;

#[derive(Clone, Debug)]
enum Op {
    Single(usize),
    Group(usize),
    Attach(usize),
    Detach(usize, usize),
    Pull(usize, usize),
    /// Acknowledges one of the letters that were taken.
    Acknowledge(usize, usize),
    /// Puts back one of the letters that were taken.
    PutBack(usize, usize),
    /// Takes a message back from those who were not given it.
    Cancel(usize),
    Move(usize, u8),
    Remove(usize),
    Wait(u64),
    Sweep,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let device = 0..DEVICES;
    let op = prop_oneof![
        3 => device.clone().prop_map(Op::Single),
        4 => (0..GROUPS).prop_map(Op::Group),
        2 => device.clone().prop_map(Op::Attach),
        2 => (device.clone(), 0..3_usize).prop_map(|(d, at)| Op::Detach(d, at)),
        5 => (device.clone(), 0..4_usize).prop_map(|(d, room)| Op::Pull(d, room)),
        5 => (device.clone(), 0..4_usize).prop_map(|(d, at)| Op::Acknowledge(d, at)),
        2 => (device.clone(), 0..4_usize).prop_map(|(d, at)| Op::PutBack(d, at)),
        1 => (0..60_usize).prop_map(Op::Cancel),
        2 => (device.clone(), 0..8_u8).prop_map(|(d, groups)| Op::Move(d, groups)),
        1 => device.prop_map(Op::Remove),
        1 => (0..60_u64).prop_map(Op::Wait),
        1 => Just(Op::Sweep),
    ];
    proptest::collection::vec(op, 0..120)
}

/// One device of the model. Letters are known by their payload.
#[derive(Default)]
struct Model {
    /// `None` while it is not registered.
    groups: Option<u8>,
    /// Payload and expiry of all that was addressed to it and not acknowledged, in order.
    letters: BTreeMap<u32, Timestamp>,
    taken: BTreeSet<u32>,
    /// Oldest first; the newest alone is served.
    readers: Vec<SessionKey>,
}

impl Model {
    fn reader(&self) -> Option<SessionKey> {
        self.readers.last().copied()
    }
}

struct World {
    unit: ControlUnit,
    now: Timestamp,
    published: u32,
    /// What was published: payload and campaign.
    campaigns: Vec<(u32, CampaignId)>,
    readers: u32,
    devices: Vec<Model>,
    /// Payload to id of letters in the hands of readers.
    ids: Vec<BTreeMap<u32, u64>>,
}

fn group_list(groups: u8) -> Vec<Gid> {
    (0..GROUPS).filter(|at| groups & (1 << at) != 0).map(|at| gid(at as u64 + 1)).collect()
}

impl World {
    fn new() -> Self {
        let options = ControlOptions {
            mail_ttl: Duration::from_secs(MAIL_SECS),
            ..ControlOptions::default()
        };
        let mut world = Self {
            unit: ControlUnit::new(options),
            now: Timestamp(1),
            published: 0,
            campaigns: Vec::new(),
            readers: 0,
            devices: (0..DEVICES).map(|_| Model::default()).collect(),
            ids: vec![BTreeMap::new(); DEVICES],
        };
        (0..DEVICES).for_each(|device| world.put(device, device as u8));
        world
    }

    fn nid(device: usize) -> Nid {
        eid(device as u128 + 1)
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Single(device) => self.publish(Some(device), None),
            Op::Group(group) => self.publish(None, Some(group)),
            Op::Attach(device) => self.attach(device),
            Op::Detach(device, at) => self.detach(device, at),
            Op::Pull(device, room) => self.pull(device, room),
            Op::Acknowledge(device, at) => self.acknowledge(device, at),
            Op::PutBack(device, at) => self.put_back(device, at),
            Op::Cancel(at) => self.cancel(at),
            Op::Move(device, groups) => self.put(device, groups),
            Op::Remove(device) => self.remove(device),
            Op::Wait(secs) => self.now = self.now.after(Duration::from_secs(secs)),
            Op::Sweep => {
                self.unit.sweep(self.now);
            }
        }
    }

    fn publish(&mut self, device: Option<usize>, group: Option<usize>) {
        let head = Head {
            nid: device.map(Self::nid),
            gid: group.map(|at| gid(at as u64 + 1)),
            ..Head::new(Kind::Msg)
        };
        let from = Identity::server("s");
        let s = Submission::new(&from, TO_EUICC, &head, 9);
        let receivers: Vec<usize> = (0..DEVICES)
            .filter(|at| match (self.devices[*at].groups, group) {
                (None, _) => false,
                (Some(groups), Some(group)) => groups & (1 << group) != 0,
                (Some(_), None) => device == Some(*at),
            })
            .collect();
        self.published += 1;
        let message = message(&self.published.to_string(), Timestamp::NEVER);
        match self.unit.publish(&s, &message, self.now) {
            Ok(outcome) => {
                assert_eq!(outcome.reached as usize, receivers.len());
                let campaign = outcome.campaign.unwrap();
                self.campaigns.push((self.published, campaign));
                let mut wake: Vec<_> =
                    receivers.iter().filter_map(|at| self.devices[*at].reader()).collect();
                let mut woken = outcome.wake;
                wake.sort_unstable();
                woken.sort_unstable();
                assert_eq!(woken, wake);
            }
            Err(_) => assert!(receivers.is_empty()),
        }
        let expires = self.now.after(Duration::from_secs(MAIL_SECS));
        for at in receivers {
            self.devices[at].letters.insert(self.published, expires);
        }
    }

    fn attach(&mut self, device: usize) {
        self.readers += 1;
        let reader = session(self.readers);
        let attached = self.unit.attach(Self::nid(device), reader);
        let model = &mut self.devices[device];
        assert_eq!(attached.is_ok(), model.groups.is_some());
        if attached.is_ok() {
            if model.readers.len() == READERS_MAX {
                model.readers.remove(0);
            }
            model.readers.push(reader);
            model.taken.clear();
            self.ids[device].clear();
        }
    }

    /// Ends one of the readers: the one that is served, or a former one.
    fn detach(&mut self, device: usize, at: usize) {
        let Some(key) = self.unit.registry().key(Self::nid(device)) else { return };
        let model = &mut self.devices[device];
        if at >= model.readers.len() {
            return;
        }
        let served = at + 1 == model.readers.len();
        let reader = model.readers.remove(at);
        let next = self.unit.detach(key, reader);
        assert_eq!(next, model.reader().filter(|_| served));
        if served {
            model.taken.clear();
            self.ids[device].clear();
        }
    }

    fn pull(&mut self, device: usize, room: usize) {
        let Some(key) = self.unit.registry().key(Self::nid(device)) else { return };
        let reader = self.devices[device].reader().unwrap_or(session(0));
        let letters = self.unit.pull(key, reader, room, self.now);
        let model = &mut self.devices[device];
        let waiting = model.letters.iter().filter(|(payload, expires)| {
            model.reader().is_some() && **expires > self.now && !model.taken.contains(payload)
        });
        let expected: Vec<u32> = waiting.map(|(payload, _)| *payload).take(room).collect();
        let pulled: Vec<u32> = letters.iter().map(|l| text(l).parse().unwrap()).collect();
        assert_eq!(pulled, expected, "device {device}");
        model.taken.extend(&pulled);
        let ids = letters.iter().map(|letter| letter.id);
        self.ids[device].extend(pulled.iter().copied().zip(ids));
    }

    fn acknowledge(&mut self, device: usize, at: usize) {
        let Some(key) = self.unit.registry().key(Self::nid(device)) else { return };
        let model = &mut self.devices[device];
        let Some(payload) = model.taken.iter().copied().nth(at) else { return };
        let id = self.ids[device][&payload];
        let arrival = self.unit.acknowledge(key, id, self.now);
        // A group letter that has expired meanwhile may have been put away.
        let expired = model.letters[&payload] <= self.now;
        assert!(arrival.is_some() || expired);
        let changes = |a| matches!(a, Acknowledged::Arrived(arrival) if arrival.change.is_some());
        assert!(!arrival.is_some_and(changes));
        // Stays in `ids`: a second acknowledgement would be a stray one.
        model.taken.remove(&payload);
        model.letters.remove(&payload);
        let other = self.unit.registry().key(Self::nid((device + 1) % DEVICES));
        if let Some(other) =
            other.filter(|_| !self.ids[(device + 1) % DEVICES].values().any(|i| *i == id))
        {
            self.unit.acknowledge(other, id, self.now);
        }
    }

    fn put_back(&mut self, device: usize, at: usize) {
        let Some(key) = self.unit.registry().key(Self::nid(device)) else { return };
        let model = &mut self.devices[device];
        let Some(payload) = model.taken.iter().copied().nth(at) else { return };
        let reader = model.reader().unwrap();
        self.unit.put_back(key, reader, &[self.ids[device][&payload]]);
        model.taken.remove(&payload);
    }

    fn cancel(&mut self, at: usize) {
        let Some((payload, campaign)) = self.campaigns.get(at).copied() else { return };
        if self.unit.cancel(campaign).is_none() {
            return; // forgotten
        }
        for model in &mut self.devices {
            if !model.taken.contains(&payload) {
                model.letters.remove(&payload);
            }
        }
    }

    fn put(&mut self, device: usize, groups: u8) {
        let put = self.unit.put_device(Self::nid(device), &group_list(groups), "").unwrap();
        let model = &mut self.devices[device];
        assert_eq!(put.is_new, model.groups.is_none());
        model.groups = Some(groups);
    }

    fn remove(&mut self, device: usize) {
        let removed = self.unit.remove_device(Self::nid(device));
        let model = std::mem::take(&mut self.devices[device]);
        assert_eq!(removed, model.groups.map(|_| model.reader()));
        self.ids[device].clear();
    }

    /// In the end everybody connects and gets exactly what is left, in order; then nothing is.
    fn finish(mut self) {
        for device in 0..DEVICES {
            self.attach(device);
            self.pull(device, usize::MAX);
            while !self.devices[device].taken.is_empty() {
                self.acknowledge(device, 0);
            }
            assert!(self.devices[device].letters.values().all(|expires| *expires <= self.now));
        }
        self.now = Timestamp::NEVER;
        self.unit.sweep(self.now);
        let stats = self.unit.stats();
        assert_eq!((stats.mail_messages, stats.mail_bytes, stats.campaigns_open), (0, 0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_device_gets_exactly_its_letters_in_order(ops in ops()) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
            world.unit.mail.expect_agreement();
        }
        world.finish();
    }
}
