//! A fleet and the control unit that provisions it, on simulated time and without sockets.
//!
//! Whatever a device is given is checked: it must be for this device, and come once. So a
//! simulation that ends has lost nothing and delivered nothing to anybody else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use simcast::ids::{Gid, Nid, NidScheme, SessionKey, Timestamp};
use simcast::mqtt::{Message, QoS};
use simcast::rsp::{
    CampaignId, ControlOptions, ControlUnit, DeviceKey, Head, Identity, Kind, Letter, Outcome,
    Refusal, RspTopic, Settings, SettingsTable, Submission, Swept, envelope,
};

use super::times::{self, Samples};

/// How large a fleet is, and what its chances are drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub devices: u32,
    pub groups: u32,
    pub seed: u64,
}

/// Devices beside the fleet, in a group that is never addressed: they must be given nothing.
pub const BYSTANDERS: u32 = 100;

/// One device of so many is connected all the time.
const ONLINE_ONE_OF: u32 = 100;

/// Simulated time between two sweeps while devices arrive.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Letters that a device takes at once.
const WINDOW: usize = 20;

/// What was measured.
#[derive(Debug)]
pub struct Times {
    /// A1, B1, C1, D1: decided and committed.
    pub publish: Samples,
    /// All that the control unit does for one device: from its coming to its going.
    pub arrival: Samples,
    pub sweep: Samples,
}

pub struct World {
    pub unit: ControlUnit,
    pub now: Timestamp,
    pub shape: Shape,
    pub times: Times,
    /// How long it took to register them all.
    pub registering: Duration,
    server: Identity,
    /// What devices say; the servers' inbox is no part of this.
    said: Arc<Message>,
    /// How often each device has acknowledged a trigger, a message and any other letter.
    had: Vec<[u8; 3]>,
    /// All devices, in the order in which they arrive next time.
    order: Vec<u32>,
    connections: u32,
    heap: fn() -> usize,
    /// Bytes in use before there was a control unit.
    before: usize,
}

/// A device that is connected.
#[derive(Clone, Copy, Debug)]
pub struct Connected {
    pub device: u32,
    pub key: DeviceKey,
    pub session: SessionKey,
}

/// A device's word, ready to be published: what precedes the control unit is not measured.
pub struct Word {
    identity: Identity,
    head: Head,
}

impl World {
    /// A fleet that is registered and away. `heap` says how many bytes are in use.
    pub fn new(shape: Shape, settings: Settings, heap: fn() -> usize) -> Self {
        let settings = SettingsTable::new(settings, Default::default());
        Self::with(shape, ControlOptions { settings, ..ControlOptions::default() }, heap)
    }

    pub fn with(shape: Shape, options: ControlOptions, heap: fn() -> usize) -> Self {
        let all = shape.devices as usize;
        let times = Times {
            publish: Samples::with_capacity(2 * all),
            arrival: Samples::with_capacity(2 * all),
            sweep: Samples::with_capacity(100_000),
        };
        let said = Bytes::from_static(br#"{"nid":0,"gid":1,"type":"trigger","body":null}"#);
        let (had, order) = (vec![[0; 3]; all + BYSTANDERS as usize], (0..shape.devices).collect());
        let server = Identity::server("sm-sr");
        let (said, before) = (message("To_SM-SR", said), heap());
        let mut world = Self {
            unit: ControlUnit::new(options),
            now: Timestamp(1_700_000_000_000),
            shape,
            times,
            registering: Duration::ZERO,
            server,
            said,
            had,
            order,
            connections: 0,
            heap,
            before,
        };
        let began = times::start();
        for device in 0..shape.devices + BYSTANDERS {
            let gid = world.gid_of(device);
            world.unit.put_device(nid(device), &[gid], "").expect("one group is not too many");
        }
        world.registering = began.elapsed();
        world
    }

    /// Bytes in use for each device, by all that the control unit knows.
    pub fn bytes_per_device(&self) -> f64 {
        let bytes = (self.heap)().saturating_sub(self.before);
        bytes as f64 / f64::from(self.shape.devices)
    }

    pub fn gid_of(&self, device: u32) -> Gid {
        let group = if device < self.shape.devices {
            device % self.shape.groups
        } else {
            self.shape.groups
        };
        gid(group)
    }

    /// The devices of a group.
    pub fn members(&self, group: u32) -> impl Iterator<Item = u32> + use<> {
        (group..self.shape.devices).step_by(self.shape.groups as usize)
    }

    /// A number below 1000 that this device has drawn for good.
    pub fn lot(&self, device: u32) -> u64 {
        mixed(self.shape.seed ^ (u64::from(device) << 32)) % 1000
    }

    /// How often a device has acknowledged a letter of this kind.
    pub fn had(&self, device: u32, kind: Kind) -> u8 {
        self.had[device as usize][place(kind)]
    }

    /// Every device has had this many letters of this kind, and the bystanders none of any.
    pub fn expect_had(&self, kind: Kind, count: impl Fn(&Self, u32) -> u8) {
        for device in 0..self.shape.devices {
            let (had, expected) = (self.had(device, kind), count(self, device));
            assert_eq!(had, expected, "letters of {kind:?} that device {device} has had");
        }
    }

    /// A server publishes this envelope.
    pub fn publish(&mut self, text: &str) -> Result<Outcome, Refusal> {
        let head = envelope::read(text.as_bytes(), NidScheme::Eid)?;
        self.publish_with(&head, &message("To_eUICC", Bytes::copy_from_slice(text.as_bytes())))
    }

    /// A server publishes a message of which this is the head.
    pub fn publish_with(
        &mut self,
        head: &Head,
        message: &Arc<Message>,
    ) -> Result<Outcome, Refusal> {
        let began = times::start();
        let bytes = message.kept_bytes();
        let submission = Submission::new(&self.server, RspTopic::ToEuicc, head, bytes);
        let outcome = self.unit.publish(&submission, message, self.now);
        self.times.publish.note(began);
        outcome
    }

    /// A server would be allowed to publish this envelope now, or would not.
    pub fn would_be_refused(&self, text: &str) -> Option<Refusal> {
        let head = envelope::read(text.as_bytes(), NidScheme::Eid).expect("is an envelope");
        let submission = Submission::new(&self.server, RspTopic::ToEuicc, &head, text.len());
        self.unit.decide(&submission, self.now).err()
    }

    /// One message of this kind to each group. All its members are reached, and those of `online`
    /// who belong to it are woken, and nobody else.
    pub fn publish_to_groups(&mut self, kind: &str, online: &[Connected]) -> Vec<CampaignId> {
        let mut sessions = vec![Vec::new(); self.shape.groups as usize];
        for connected in online {
            sessions[(connected.device % self.shape.groups) as usize].push(connected.session);
        }
        let mut campaigns = Vec::new();
        for (group, mut expected) in (0..self.shape.groups).zip(sessions) {
            let outcome = self.publish(&to_group(gid(group), kind)).expect("is permitted");
            let members = self.members(group).count();
            assert_eq!(outcome.reached as usize, members, "members of group {group}");
            let mut woken = outcome.wake;
            woken.sort_unstable();
            expected.sort_unstable();
            assert_eq!(woken, expected, "who is woken in group {group}");
            campaigns.push(outcome.campaign.expect("is a campaign"));
        }
        campaigns
    }

    /// One device of a hundred connects, in every group, to stay.
    pub fn connect_some(&mut self) -> Vec<Connected> {
        let is_online = |device: &u32| self.stays_online(*device);
        let online: Vec<u32> = (0..self.shape.devices).filter(is_online).collect();
        online.into_iter().map(|device| self.connect(device)).collect()
    }

    pub fn stays_online(&self, device: u32) -> bool {
        (device / self.shape.groups).is_multiple_of(ONLINE_ONE_OF)
    }

    pub fn connect(&mut self, device: u32) -> Connected {
        let session = self.session(device);
        let key = self.unit.attach(nid(device), session).expect("is registered");
        Connected { device, key, session }
    }

    pub fn disconnect(&mut self, who: Connected) {
        self.unit.detach(who.key, who.session);
    }

    /// The device takes its mail, and acknowledges it; on demand it says something then.
    pub fn read_mail(&mut self, who: Connected, word: Option<&Word>) -> Option<Outcome> {
        let letters = self.unit.pull(who.key, who.session, WINDOW, self.now);
        for letter in &letters {
            self.unit.acknowledge(who.key, letter.id, self.now).expect("was given to it");
        }
        let outcome = word.map(|word| self.say(word).expect("is permitted"));
        self.enter(who.device, &letters);
        outcome
    }

    /// A device connects, reads its mail, says something, and goes. Some lose their connection
    /// before they could acknowledge anything, and come again.
    pub fn visit(&mut self, device: u32, word: Option<&Word>) {
        let (first, session) = (self.session(device), self.session(device));
        let is_cut = self.lot(device).is_multiple_of(16);
        let (began, mut lost) = (times::start(), Vec::new());
        if is_cut {
            let key = self.unit.attach(nid(device), first).expect("is registered");
            lost = self.unit.pull(key, first, WINDOW, self.now);
            self.unit.detach(key, first);
        }
        let key = self.unit.attach(nid(device), session).expect("is registered");
        let letters = self.unit.pull(key, session, WINDOW, self.now);
        for letter in &letters {
            self.unit.acknowledge(key, letter.id, self.now).expect("was given to it");
        }
        let outcome = word.map(|word| self.say(word).expect("is permitted"));
        self.unit.detach(key, session);
        self.times.arrival.note(began);
        assert!(outcome.is_none_or(|outcome| outcome.to_servers));
        for letter in &lost {
            self.check(device, letter);
        }
        self.enter(device, &letters);
    }

    /// What a device says in its group's name.
    pub fn word(&self, device: u32, kind: Kind, rc: i64) -> Word {
        self.word_in(self.gid_of(device), device, kind, rc)
    }

    /// What a device says in the name of this group.
    pub fn word_in(&self, gid: Gid, device: u32, kind: Kind, rc: i64) -> Word {
        let head = Head { gid: Some(gid), rc: Some(rc), ..Head::new(kind) };
        Word { identity: Identity::device(nid(device)), head }
    }

    pub fn say(&mut self, word: &Word) -> Result<Outcome, Refusal> {
        let bytes = self.said.kept_bytes();
        let submission = Submission::new(&word.identity, RspTopic::ToSmSr, &word.head, bytes);
        self.unit.publish(&submission, &self.said, self.now)
    }

    /// All devices that are not connected anyway, in another order each time and evenly over this
    /// time, with their numbers among those that arrive. Sweeps go on meanwhile.
    pub fn arrivals(&mut self, over: Duration, mut arrives: impl FnMut(&mut Self, u32)) {
        let mut order = std::mem::take(&mut self.order);
        self.shuffle(&mut order);
        let (began, mut swept) = (self.now, self.now);
        for (at, device) in order.iter().enumerate() {
            self.now = began.after(over.mul_f64((at + 1) as f64 / order.len() as f64));
            if self.now.since(swept) >= SWEEP_EVERY {
                swept = self.now;
                self.sweep();
            }
            if !self.stays_online(*device) {
                arrives(self, *device);
            }
        }
        self.order = order;
    }

    pub fn sweep(&mut self) -> Swept {
        let began = times::start();
        let swept = self.unit.sweep(self.now);
        self.times.sweep.note(began);
        swept
    }

    /// Sweeps until there is nothing left to put away.
    pub fn sweep_all(&mut self) {
        while self.sweep().more {}
    }

    /// Nobody has anything for those who are beside the fleet.
    pub fn expect_nothing_for_bystanders(&mut self) {
        for device in self.shape.devices..self.shape.devices + BYSTANDERS {
            let who = self.connect(device);
            let letters = self.unit.pull(who.key, who.session, WINDOW, self.now);
            assert!(letters.is_empty(), "bystander {device} was given {letters:?}");
            self.disconnect(who);
        }
    }

    fn session(&mut self, device: u32) -> SessionKey {
        self.connections += 1;
        SessionKey { slot: device, generation: self.connections }
    }

    /// The device has these letters for good.
    fn enter(&mut self, device: u32, letters: &[Letter]) {
        for letter in letters {
            let kind = self.check(device, letter);
            self.had[device as usize][place(kind)] += 1;
        }
    }

    /// The letter is for this device.
    fn check(&self, device: u32, letter: &Letter) -> Kind {
        let head = envelope::read(&letter.message.payload, NidScheme::Eid).expect("is an envelope");
        let to = (head.nid, head.gid);
        let is_own = to == (Some(nid(device)), None) || to == (None, Some(self.gid_of(device)));
        assert!(is_own, "device {device} was given what is for {to:?}");
        head.kind
    }

    fn shuffle(&self, order: &mut [u32]) {
        let mut state = self.shape.seed;
        for at in (1..order.len()).rev() {
            state = mixed(state);
            order.swap(at, usize::try_from(state % (at as u64 + 1)).expect("is below a usize"));
        }
    }
}

/// An EID for a running number.
pub fn nid(device: u32) -> Nid {
    let body = 890_490_320_000_000_000_000_000_000_000 + u128::from(device);
    Nid::with_check_digits(body).expect("has 30 digits")
}

pub fn gid(group: u32) -> Gid {
    Gid::new(u64::from(group) + 1).expect("is not 0")
}

/// A server's envelope to a group.
pub fn to_group(gid: Gid, kind: &str) -> String {
    format!(r#"{{"nid":0,"gid":{gid},"type":"{kind}","body":"{BODY}"}}"#)
}

/// A server's envelope to a device.
pub fn to_device(device: u32, kind: &str) -> String {
    format!(r#"{{"nid":"{}","gid":0,"type":"{kind}","body":"{BODY}"}}"#, nid(device))
}

const BODY: &str = "vyQB…";

pub fn message(topic: &'static str, payload: Bytes) -> Arc<Message> {
    let (qos, expires) = (QoS::AtLeastOnce, Timestamp::NEVER);
    Arc::new(Message::new(topic.into(), payload, qos, false, None, expires))
}

/// Bytes of a message apart from its payload.
pub fn message_bytes() -> usize {
    // Whoever shares it is counted beside it.
    size_of::<Message>() + 2 * size_of::<usize>()
}

/// Where letters of a kind are counted.
fn place(kind: Kind) -> usize {
    match kind {
        Kind::Trigger => 0,
        Kind::Msg => 1,
        _ => 2,
    }
}

/// The next of a sequence of numbers without a pattern (SplitMix64).
fn mixed(state: u64) -> u64 {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}
