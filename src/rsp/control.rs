//! The control unit: registry, ledger, exchanges and mail behind one door.

mod addressees;
mod rows;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;

use super::campaign::{CampaignId, FirstWave, Verdict};
use super::event::{CampaignStep, Event, Events};
use super::exchange::{ExchangeState, Exchanges, Pair};
use super::gathering::Gathering;
use super::group_log::GroupLetter;
use super::import::{self, ImportReport, LineReason};
use super::intake::Intake;
use super::ledger::Ledger;
use super::mail::{Bereft, ExpiredLetters, Mail, Publication, Pulling, Receivers};
use super::mailbox::{Acknowledged, Letter, ProfileChange, Reader};
use super::merging::Merging;
use super::options::ControlOptions;
use super::policy::{Ask, Audience, Decision, Effect, Form, MessageId, Submission};
use super::rate::Buckets;
use super::refusal::Refusal;
use super::registry::{DeviceKey, Gids, Registered, Registry, Removed};
use super::request::{Asked, Draft, Found, Whom};
use super::roll::{Roll, Ticked};
use super::spent::Spent;
use super::track::{DeviceState, Tally};
use super::untold::Untold;
use super::wishes::Wishes;
use crate::ids::{Gid, Nid, SessionKey, Timestamp};
use crate::mqtt::Message;
use addressees::Participants;
pub use rows::ControlRows;
use rows::Written;

/// The provisioning control unit `[0054]`: a state machine without IO, locks or clock.
#[derive(Debug)]
pub struct ControlUnit {
    pub(super) options: ControlOptions,
    pub(super) registry: Registry,
    pub(super) ledger: Ledger,
    pub(super) wishes: Wishes,
    pub(super) exchanges: Exchanges,
    pub(super) spent: Spent,
    pub(super) untold: Untold,
    pub(super) mail: Mail,
    pub(super) gathering: Gathering,
    pub(super) merging: Merging,
    pub(super) device_rates: Buckets<u32>,
    pub(super) group_rates: Buckets<Gid>,
    pub(super) events: Events,
    /// Of groups with devices that gave their profiles away, the others, as they were last.
    participants: HashMap<Gid, Participants>,
    /// What is written down, if anything is.
    written: Option<Box<Written>>,
}

/// What a published message did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which of the ten messages it was.
    pub id: MessageId,
    /// Single, multi or peer.
    pub form: Form,
    /// Readers that have new mail.
    pub wake: Vec<SessionKey>,
    /// The message is for the servers: they get it by their subscriptions, not by mail.
    pub to_servers: bool,
    /// Devices it is addressed to, connected or not.
    pub reached: u32,
    /// The campaign it has opened.
    pub campaign: Option<CampaignId>,
}

impl Outcome {
    fn new(id: MessageId, form: Form) -> Self {
        let (wake, to_servers, reached) = (Vec::new(), false, 0);
        Self { id, form, wake, to_servers, reached, campaign: None }
    }
}

/// A letter that could not be given to its reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discarded {
    /// How it was addressed.
    pub form: Form,
    /// Readers that may have mail now, since a first wave is through.
    pub wake: Vec<SessionKey>,
}

/// What a sweep put away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Letters that expired.
    pub letters: ExpiredLetters,
    /// Requests whose time was over without an answer.
    pub requests: u64,
    /// Exchanges whose time was over without a profile.
    pub exchanges: u64,
    /// Profile changes whose time was over without a report.
    pub unconfirmed: u64,
    /// Readers that may have mail now.
    pub wake: Vec<SessionKey>,
    /// Profile changes that no server was told of yet; see [`ControlUnit::not_told`].
    pub untold: Vec<ProfileChange>,
    /// There was more to do than one sweep may.
    pub more: bool,
}

/// Numbers for gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlStats {
    /// Registered devices.
    pub devices: usize,
    /// Devices with a reader.
    pub devices_online: usize,
    /// Devices that have given their profile away.
    pub devices_replaced: usize,
    /// Groups with members.
    pub groups: usize,
    /// Letters kept; a group letter counts once.
    pub mail_messages: usize,
    /// Payload bytes of those.
    pub mail_bytes: usize,
    /// Letters lost when a device left a group with an over-full mailbox, since the start.
    pub mail_dropped: u64,
    /// Campaigns that are not over, or permit something still.
    pub campaigns_open: usize,
    /// Those of them whose first wave is under way.
    pub campaigns_canary: usize,
    /// Those that their first wave has halted.
    pub campaigns_halted: usize,
    /// Campaigns that are over and remembered.
    pub campaigns_ended: usize,
    /// Bytes of messages that are kept to be sent again.
    pub retry_bytes: usize,
    /// How far their devices are, over all campaigns that are remembered.
    pub campaign_devices: Tally,
    /// D1s remembered.
    pub wishes: usize,
    /// Open exchanges.
    pub exchanges: usize,
}

/// What became of a device that was put into the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// Its key.
    pub key: DeviceKey,
    /// It was not registered before.
    pub is_new: bool,
}

impl ControlUnit {
    /// A control unit that knows no device yet.
    #[must_use]
    pub fn new(options: ControlOptions) -> Self {
        let limits = options.limits;
        Self {
            registry: Registry::default(),
            ledger: Ledger::new(limits),
            wishes: Wishes::new(limits.open_triggers_max),
            exchanges: Exchanges::new(&limits),
            spent: Spent::default(),
            untold: Untold::default(),
            mail: Mail::new(limits),
            gathering: Gathering::new(&limits),
            merging: Merging::new(limits.merged_max),
            device_rates: Buckets::default(),
            group_rates: Buckets::default(),
            events: Events::new(limits.events_max),
            participants: HashMap::new(),
            written: None,
            options,
        }
    }

    /// The registered devices and groups.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What it was started with, and the settings in force.
    #[must_use]
    pub fn options(&self) -> &ControlOptions {
        &self.options
    }

    /// Reads the registry file for the first time. What an operator changes counts more than it.
    pub fn load(&mut self, csv: &str) -> ImportReport {
        Intake::load(csv, &self.options).finish(self)
    }

    /// Adds the devices of a file to those that are known; a known device gets the groups and
    /// labels of its line.
    pub fn import(&mut self, csv: &str) -> ImportReport {
        Intake::add(csv, &self.options).finish(self)
    }

    /// Puts a registry file in the place of what is known. Devices that vanished lose their mail
    /// and open requests; a device whose line is broken stays as it was.
    pub fn replace_registry(&mut self, csv: &str) -> ImportReport {
        Intake::replace(csv, &self.options).finish(self)
    }

    /// Registers a device, or gives a known one these groups and labels (`name=value`, separated
    /// by `;`).
    ///
    /// # Errors
    /// [`LineReason`] when there are more groups or labels than one device may have.
    pub fn put_device(&mut self, nid: Nid, gids: &[Gid], labels: &str) -> Result<Put, LineReason> {
        let gids = Gids::from_slice(gids);
        import::check(&gids, labels, &self.options.limits)?;
        let registered = self.register(nid, gids, labels);
        self.registry.put(nid);
        self.registry.settle();
        Ok(Put { key: registered.key, is_new: registered.is_new })
    }

    /// Removes a device with its mail and open requests. `None` when it is not registered; else
    /// its reader, if it had one, whose mailbox is gone.
    pub fn remove_device(&mut self, nid: Nid) -> Option<Option<SessionKey>> {
        self.registry.key(nid)?;
        self.registry.banish(nid);
        Some(self.remove_devices(&[nid]).pop())
    }

    /// [`ControlUnit::decide`] and [`ControlUnit::commit`] in one, so that nothing comes between.
    ///
    /// # Errors
    /// The [`Refusal`] of [`ControlUnit::decide`]; then nothing has changed.
    pub fn publish(
        &mut self,
        submission: &Submission<'_>,
        message: &Arc<Message>,
        now: Timestamp,
    ) -> Result<Outcome, Refusal> {
        let decision = self.decide(submission, now)?;
        Ok(self.commit(decision, message, now))
    }

    /// Does what was decided: opens or answers a request, and puts the message into the mail.
    ///
    /// Nothing may come between a decision and its commit, or two messages could both be the one
    /// answer to a request. Receivers that were removed meanwhile get nothing.
    pub fn commit(
        &mut self,
        decision: Decision,
        message: &Arc<Message>,
        now: Timestamp,
    ) -> Outcome {
        let Decision { id, audience, form, effect } = decision;
        let mut outcome = Outcome::new(id, form);
        self.keep_order(audience, &mut outcome.wake, now);
        match effect {
            Effect::Ask(ask) => self.ask(audience, ask, message, &mut outcome, now),
            Effect::Wish { key, gid, tid, until, gather } => {
                let nid = self.registry.nid(key);
                let batch = match (gather, nid) {
                    (Some((gid, window)), Some(nid)) => {
                        let wish = (key.index, self.wishes.next_id());
                        let (who, due) = ((wish, nid, tid.clone()), now.after(window));
                        Some(self.gathering.push(gid, who, message, due, now))
                    }
                    (None, _) | (_, None) => None,
                };
                self.take_tokens(key, gid, now);
                self.wishes.open(key.index, gid, batch, tid, until);
                outcome.to_servers = batch.is_none();
            }
            Effect::Answer { found, rc } => self.enter_answer(found, rc, &mut outcome, now),
            Effect::Report { pair, rc } => {
                if let Some((gid, state)) = self.exchanges.report(pair, rc, now) {
                    self.events.push(Event::Exchange(pair, gid, state));
                }
                outcome.to_servers = true;
            }
            Effect::AnswerWish(wished) => {
                self.wishes.answer(wished);
                self.forward(audience, message, form, None, &mut outcome, now);
            }
            Effect::OpenExchange { pair, gid, ttl, by } => {
                self.take_tokens(by, Some(gid), now);
                let until = self.exchanges.open(pair, gid, ttl, now);
                self.events.push(Event::Exchange(pair, gid, ExchangeState::Requested));
                // It must not arrive after its exchange is over, when the old device would give
                // its profile away for nothing.
                let message = if message.expires > until {
                    Arc::new(message.with_expiry(until))
                } else {
                    Arc::clone(message)
                };
                self.forward(audience, &message, form, None, &mut outcome, now);
            }
            Effect::AnswerExchange { pair, gid, proof } => {
                proof.iter().for_each(|proof| self.spent.insert(pair.from, proof.seq_number));
                self.exchanges.answer(pair, self.expiry(message, now));
                self.events.push(Event::Exchange(pair, gid, ExchangeState::Transferred));
                let change = Some(ProfileChange { from: pair.from, to: pair.to, gid });
                self.forward(audience, message, form, change, &mut outcome, now);
            }
        }
        self.heed_verdicts(&mut outcome.wake);
        outcome
    }

    /// The session that is given this device's mail, if any; its client may be away.
    #[must_use]
    pub fn reader(&self, nid: Nid) -> Option<SessionKey> {
        self.mail.reader(self.registry.key(nid)?.index)
    }

    /// Makes a session the reader of a device's mail: a subscription of `To_eUICC`. The newest
    /// reader is the only one served. Attaching the same session again changes nothing.
    ///
    /// # Errors
    /// [`Refusal::NotRegistered`].
    pub fn attach(&mut self, nid: Nid, reader: impl Into<Reader>) -> Result<DeviceKey, Refusal> {
        let key = self.registry.key(nid).ok_or(Refusal::NotRegistered)?;
        self.mail.attach(key.index, self.registry.gids(key), reader.into());
        Ok(key)
    }

    /// The session of a reader is there again, with a client that may take larger or smaller
    /// packets.
    pub fn resize(&mut self, device: DeviceKey, reader: Reader) {
        if self.registry.nid(device).is_some() {
            self.mail.resize(device.index, self.registry.gids(device), reader);
        }
    }

    /// Ends a reader. What it took and did not acknowledge goes back and is pulled again, in order.
    /// Returns the reader that takes its place, to be woken.
    pub fn detach(&mut self, device: DeviceKey, reader: SessionKey) -> Option<SessionKey> {
        self.registry.nid(device)?;
        self.mail.detach(device.index, self.registry.gids(device), reader)
    }

    /// Takes up to `room` letters for the device's reader, in publish order; nothing for anyone
    /// but the reader.
    pub fn pull(
        &mut self,
        device: DeviceKey,
        reader: SessionKey,
        room: usize,
        now: Timestamp,
    ) -> Vec<Letter> {
        let Some(nid) = self.registry.nid(device) else { return Vec::new() };
        let (index, gids) = (device.index, self.registry.gids(device));
        let (ledger, chunk) = (&self.ledger, self.chunk_of(gids));
        let agrees = |gid: Gid| ledger.has_agreed(index, &[gid], now);
        let agrees = &agrees as &dyn Fn(Gid) -> bool;
        let pulling = Pulling { index, nid, gids, reader, agrees, chunk };
        self.mail.pull(&pulling, room, now)
    }

    /// The reader's connection ended before these letters had left for it; its session may go on.
    pub fn put_back(&mut self, device: DeviceKey, reader: SessionKey, letters: &[u64]) {
        if self.registry.nid(device).is_some() {
            let gids = self.registry.gids(device);
            self.mail.put_back(device.index, gids, reader, letters);
        }
    }

    /// Whether this reader was given the letter and has not acknowledged it, and nobody has taken
    /// over from it.
    #[must_use]
    pub fn holds(&self, device: DeviceKey, reader: SessionKey, letter: u64) -> bool {
        self.registry.nid(device).is_some() && self.mail.holds(device.index, reader, letter)
    }

    /// A letter has arrived (PUBACK, PUBREC, or written for QoS 0): it leaves the mail. For an E2
    /// the answer is the profile change, once; from then on the device owes its report `[0069]`.
    pub fn acknowledge(
        &mut self,
        device: DeviceKey,
        letter: u64,
        now: Timestamp,
    ) -> Option<Acknowledged> {
        self.registry.nid(device)?;
        let gids = self.registry.gids(device);
        let acknowledged = self.mail.acknowledge(device.index, gids, letter)?;
        if let Acknowledged::Arrived(arrival) = acknowledged {
            if let Some(campaign) = arrival.campaign {
                self.ledger.delivered(campaign, device.index, now);
            }
            if let Some(change) = arrival.change {
                self.enter_change(&change, now);
            }
        }
        Some(acknowledged)
    }

    /// A letter cannot be given to its reader: it leaves the mail without having arrived, and an
    /// E2 changes nothing: it may be asked for again. `None` when the reader was not given it.
    pub fn discard(&mut self, device: DeviceKey, letter: u64, now: Timestamp) -> Option<Discarded> {
        self.registry.nid(device)?;
        let gids = self.registry.gids(device);
        let arrival = self.mail.discard(device.index, gids, letter)?;
        if let Some(campaign) = arrival.campaign {
            self.ledger.settle(campaign, device.index, DeviceState::Failed, now);
        }
        if let Some(ProfileChange { from, to, gid }) = arrival.change {
            let pair = Pair { from, to };
            if self.exchanges.fail(pair, now) {
                self.events.push(Event::Exchange(pair, gid, ExchangeState::Expired));
            }
        }
        let mut wake = Vec::new();
        self.heed_verdicts(&mut wake);
        Some(Discarded { form: arrival.form, wake })
    }

    /// What the control unit tells the servers on `To_SM-SR` about a profile change `[0098]`:
    /// that it happened, never what was exchanged.
    #[must_use]
    pub fn profile_change_notice(change: &ProfileChange) -> Bytes {
        let ProfileChange { from, to, gid } = change;
        // Digits only, so that nothing needs escaping.
        let body = format!(r#"{{"event":"profile-change","from":"{from}","to":"{to}"}}"#);
        let kind = format!("profile({from})");
        Bytes::from(format!(r#"{{"nid":"{to}","gid":{gid},"type":"{kind}","body":{body}}}"#))
    }

    /// No server has room to be told of a profile change: the next sweep names it again. `false`
    /// when an older one is lost for it, of which no server will be told.
    pub fn not_told(&mut self, change: ProfileChange) -> bool {
        self.untold.push(change)
    }

    /// Whether the next sweep names profile changes that are to be told.
    #[must_use]
    pub fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Puts away what has expired; bounded work, so call it again when there is more.
    pub fn sweep(&mut self, now: Timestamp) -> Swept {
        let mut budget = self.options.limits.sweep_max;
        let (letters, campaigns) = self.mail.sweep(now, &mut budget);
        let bereft = campaigns.len() as u64;
        for Bereft { campaign, whom } in campaigns {
            match whom {
                Receivers::One(i) => self.ledger.settle(campaign, i, DeviceState::Expired, now),
                // Others may have been sent it again.
                Receivers::All(roll) => {
                    let mut pending = Ticked::new(roll.pending());
                    let waited = |index| pending.has(index);
                    self.ledger.settle_queued(campaign, waited, DeviceState::Expired);
                }
            }
        }
        let requests =
            bereft + self.ledger.sweep(now, &mut budget) + self.wishes.sweep(now, &mut budget);
        let ended = self.exchanges.sweep(now, &mut budget, |pair| {
            let mailbox = self.registry.key(pair.to).and_then(|key| self.mail.mailbox(key.index));
            mailbox.is_some_and(|mailbox| mailbox.has_profile_of(pair.from))
        });
        self.device_rates.sweep(now, &mut budget);
        self.group_rates.sweep(now, &mut budget);
        for (pair, gid) in &ended.expired {
            self.events.push(Event::Exchange(*pair, *gid, ExchangeState::Expired));
        }
        for (pair, gid) in &ended.unconfirmed {
            self.events.push(Event::Exchange(*pair, *gid, ExchangeState::Unconfirmed));
        }
        let mut wake = Vec::new();
        self.heed_verdicts(&mut wake);
        Swept {
            letters,
            requests,
            exchanges: ended.expired.len() as u64,
            unconfirmed: ended.unconfirmed.len() as u64,
            wake,
            untold: self.untold.take_some(),
            more: budget == 0,
        }
    }

    /// Numbers for gauges.
    #[must_use]
    pub fn stats(&self) -> ControlStats {
        let mail = self.mail.totals();
        let (campaigns_canary, campaigns_halted) = self.ledger.waves();
        ControlStats {
            devices: self.registry.device_count(),
            devices_online: mail.readers,
            devices_replaced: self.registry.replaced_count(),
            groups: self.registry.group_count(),
            mail_messages: mail.messages,
            mail_bytes: mail.bytes,
            mail_dropped: mail.dropped,
            campaigns_open: self.ledger.open_count(),
            campaigns_canary,
            campaigns_halted,
            campaigns_ended: self.ledger.ended_count(),
            retry_bytes: self.ledger.kept_bytes(),
            campaign_devices: *self.ledger.tally(),
            wishes: self.wishes.len(),
            exchanges: self.exchanges.open_count(),
        }
    }

    /// Registers one device of several; their groups do not know until [`Registry::settle`].
    pub(super) fn register(&mut self, nid: Nid, gids: Gids, labels: &str) -> Registered {
        let registered = self.registry.register(nid, gids, labels);
        if registered.is_new {
            self.spent.come_back(nid);
        }
        let index = registered.key.index;
        for gid in &registered.left {
            self.mail.leave(index, nid, *gid);
            self.ledger.leave(index, *gid);
            self.wishes.leave(index, *gid);
        }
        registered.joined.iter().for_each(|gid| self.mail.join(index, *gid));
        registered
    }

    /// Returns the readers that the removed devices had.
    pub(super) fn remove_devices(&mut self, nids: &[Nid]) -> Vec<SessionKey> {
        let mut readers = Vec::new();
        for nid in nids {
            let Some(Removed { index, gids }) = self.registry.remove(*nid) else { continue };
            self.merging.forget(index);
            readers.extend(self.mail.remove(index, *nid, &gids));
            self.ledger.remove(index, &gids);
            self.wishes.remove(index);
            self.device_rates.forget(index);
        }
        self.registry.settle();
        self.participants.retain(|gid, _| self.registry.members(*gid).is_some());
        nids.iter().for_each(|nid| self.spent.leave(*nid));
        let gone: HashSet<Nid> = nids.iter().copied().collect();
        self.exchanges.forget_devices(|nid| gone.contains(&nid));
        readers
    }

    /// Opens an A1, B1 or C1 and sends it on its way.
    fn ask(
        &mut self,
        audience: Audience,
        ask: Ask,
        message: &Arc<Message>,
        outcome: &mut Outcome,
        now: Timestamp,
    ) {
        match audience {
            Audience::Device(nid) => {
                let Some(key) = self.registry.key(nid) else { return };
                outcome.reached = 1;
                if ask.reinstate {
                    self.reinstate(nid);
                }
                if let Some((gid, window)) = ask.merge {
                    self.merging.push(gid, key.index, message, ask, now.after(window));
                    return;
                }
                let (id, wake) = self.send_to_device(key.index, ask, message, now);
                outcome.wake.extend(wake);
                outcome.campaign = Some(id);
            }
            Audience::Group(gid) => {
                let Some(members) = self.addressees(gid, &ask) else { return };
                outcome.reached = u32::try_from(members.len()).unwrap_or(u32::MAX);
                if members.is_empty() {
                    return;
                }
                let id = self.send_to_members(gid, members, ask, message, &mut outcome.wake, now);
                outcome.campaign = Some(id);
            }
            Audience::Servers => {}
        }
    }

    pub(super) fn send_to_device(
        &mut self,
        index: u32,
        ask: Ask,
        message: &Arc<Message>,
        now: Timestamp,
    ) -> (CampaignId, Option<SessionKey>) {
        let publication = publication(&ask, message);
        let (expires, form) = (self.expiry(message, now).min(ask.until), Form::Single);
        let id = self.ledger.open_one(index, draft(ask, publication.clone()), now);
        let wake = self.mail.post(index, &publication, expires, form, Some(id), None);
        (CampaignId(id), wake)
    }

    /// Opens a request to these members of a group, who are some, and sends it on its way.
    pub(super) fn send_to_members(
        &mut self,
        gid: Gid,
        members: Arc<Vec<u32>>,
        ask: Ask,
        message: &Arc<Message>,
        wake: &mut Vec<SessionKey>,
        now: Timestamp,
    ) -> CampaignId {
        let publication = publication(&ask, message);
        let expires = self.expiry(message, now).min(ask.until);
        let first = self.first_wave(gid, &members, &ask);
        let mut draft = draft(ask, publication.clone());
        draft.wave =
            first.as_ref().map(|(devices, bound)| FirstWave::new(devices.to_vec(), *bound));
        let id = self.ledger.open_all(gid, Arc::clone(&members), draft, now);
        let (first, campaign) = (first.map(|(devices, _)| devices), NonZeroU64::new(id));
        let letter = GroupLetter::new(Roll::new(members), publication, expires);
        self.mail.post_group(gid, GroupLetter { campaign, first, ..letter }, wake);
        CampaignId(id)
    }

    /// Who is served first: those that are connected, as far as there are enough of them.
    fn first_wave(&self, gid: Gid, members: &[u32], ask: &Ask) -> Option<(Box<[u32]>, u16)> {
        let wave = ask.wave?;
        let count = usize::try_from(wave.first).unwrap_or(usize::MAX);
        if count >= members.len() {
            return None;
        }
        let mut first: Vec<u32> = self.mail.online_of(gid, members).take(count).collect();
        let missing = count - first.len();
        let mut online = Ticked::new(first.clone().into_iter());
        let others = members.iter().copied().filter(|index| !online.has(*index));
        first.extend(others.take(missing));
        first.sort_unstable();
        Some((first.into(), wave.failures_max.unwrap_or(WAVE_FAILURES_MAX_PERMILLE)))
    }

    /// Sends D2, E1 or E2 on its way: no campaign.
    fn forward(
        &mut self,
        audience: Audience,
        message: &Arc<Message>,
        form: Form,
        change: Option<ProfileChange>,
        outcome: &mut Outcome,
        now: Timestamp,
    ) {
        let publication = Publication {
            message: Arc::clone(message),
            parts: None,
            chunks: false,
            needs_consent: false,
        };
        let expires = self.expiry(message, now);
        match audience {
            Audience::Device(nid) => {
                let Some(key) = self.registry.key(nid) else { return };
                let wake = self.mail.post(key.index, &publication, expires, form, None, change);
                outcome.wake.extend(wake);
                outcome.reached = 1;
            }
            Audience::Group(gid) => {
                let Some(members) = self.registry.members(gid).cloned() else { return };
                outcome.reached = u32::try_from(members.len()).unwrap_or(u32::MAX);
                let letter = GroupLetter::new(Roll::new(members), publication, expires);
                self.mail.post_group(gid, letter, &mut outcome.wake);
            }
            Audience::Servers => {}
        }
    }

    /// How long a message waits in the mail. One that asks for an answer waits no longer than that
    /// may come: a device does not begin what it could not report.
    pub(super) fn expiry(&self, message: &Message, now: Timestamp) -> Timestamp {
        message.expires.min(now.after(self.options.mail_ttl))
    }

    /// A2, B2 or C2. What a device agrees to, it may pull from now on; what it does not agree to,
    /// it does not get.
    fn enter_answer(&mut self, found: Found, rc: i64, outcome: &mut Outcome, now: Timestamp) {
        let Some(request) = self.ledger.request(found.id) else { return };
        outcome.to_servers = true;
        let (asked, index) = (request.asked, found.index);
        let gids: Gids = match &request.whom {
            Whom::One { .. } => self.registry.gids_at(index).into(),
            Whom::All(roster) => Gids::from_slice(&[roster.gid]),
        };
        let state = match (asked, rc) {
            (_, 0) => DeviceState::Ok,
            (Asked::Trigger, _) => DeviceState::Refused,
            (Asked::Msg, _) => DeviceState::Failed,
        };
        if asked == Asked::Trigger {
            self.ledger.note_said(found.id, index, self.registry.gids_at(index));
        }
        self.ledger.settle(found.id, index, state, now);
        match (asked, state) {
            (Asked::Trigger, DeviceState::Ok) => {
                outcome.wake.extend(self.mail.agreed(index, &gids));
            }
            (Asked::Trigger, DeviceState::Refused) => {
                for campaign in self.mail.drop_unagreed(index, &gids) {
                    self.ledger.settle(campaign, index, DeviceState::Refused, now);
                }
            }
            _ => {}
        }
    }

    /// The new device has the old one's profile.
    fn enter_change(&mut self, change: &ProfileChange, now: Timestamp) {
        let ttl = self.options.settings.of_group(change.gid).ttl.msg;
        self.exchanges.deliver(change, ttl, now);
        let pair = Pair { from: change.from, to: change.to };
        self.events.push(Event::Exchange(pair, change.gid, ExchangeState::Unreported));
        if !self.options.retire {
            return;
        }
        let Some(key) = self.registry.replace(change.from) else { return };
        self.events.push(Event::Replaced(change.from));
        let gids: Gids = self.registry.gids(key).into();
        let ledger = &self.ledger;
        // It is spoken with still, were it only to reinstate it.
        let is_msg = |id| ledger.request(id).is_none_or(|r| r.asked == Asked::Msg);
        for campaign in self.mail.withdraw_all(key.index, &gids, is_msg) {
            self.ledger.settle(campaign, key.index, DeviceState::Cancelled, now);
        }
    }

    fn take_tokens(&mut self, key: DeviceKey, gid: Option<Gid>, now: Timestamp) {
        let gids: Gids =
            gid.map_or_else(|| self.registry.gids(key).into(), |gid| Gids::from_slice(&[gid]));
        let settings = self.options.settings.of_groups(&gids);
        let rates: Vec<_> = settings.map(|settings| settings.trigger_rate).collect();
        // The most patient group's settings decide how long a device waits: they count.
        let slowest = rates.iter().map(|rate| rate.device).max_by_key(|rate| rate.interval());
        self.device_rates.take(key.index, slowest.unwrap_or_default(), now);
        for gid in &gids {
            let rate = self.options.settings.of_group(*gid).trigger_rate.group;
            self.group_rates.take(*gid, rate, now);
        }
    }

    /// Does what first waves have decided about the others.
    pub(super) fn heed_verdicts(&mut self, wake: &mut Vec<SessionKey>) {
        for (id, verdict) in self.ledger.take_verdicts() {
            let step = match verdict {
                Verdict::Release => CampaignStep::Released,
                Verdict::Halt => CampaignStep::Halted,
            };
            self.events.push(Event::Campaign(CampaignId(id), step));
            if verdict == Verdict::Halt {
                continue;
            }
            if let Some(Whom::All(roster)) = self.ledger.request(id).map(|request| &request.whom) {
                self.mail.release(roster.gid, id, wake);
            }
        }
    }
}

/// Share of failures in a first wave at which the others are served, where none is named.
const WAVE_FAILURES_MAX_PERMILLE: u16 = 100;

fn publication(ask: &Ask, message: &Arc<Message>) -> Publication {
    Publication {
        message: Arc::clone(message),
        parts: ask.parts.clone(),
        chunks: ask.chunks,
        needs_consent: ask.needs_consent,
    }
}

fn draft(ask: Ask, publication: Publication) -> Draft {
    Draft {
        asked: ask.asked,
        asker: ask.asker,
        tid: ask.tid,
        name: ask.name,
        expires: ask.until,
        publication,
        merged: ask.merge.is_some(),
        wave: None,
    }
}
