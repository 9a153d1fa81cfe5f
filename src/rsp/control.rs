//! The control unit: registry, ledger, exchanges and mail behind one door.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::envelope::Tid;
use super::exchange::Exchanges;
use super::flow::{Asked, Ledger};
use super::import::{self, ImportReport, LineReason};
use super::intake::Intake;
use super::mail::{ExpiredLetters, Mail};
use super::mailbox::{Arrival, Letter, ProfileChange};
use super::policy::{Audience, Decision, Effect, Form, MessageId, Submission};
use super::refusal::Refusal;
use super::registry::{DeviceKey, Gids, Registered, Registry, Removed};
use super::settings::{ControlOptions, GroupSettings, Settings};
use crate::ids::{Gid, Nid, SessionKey, Timestamp};
use crate::mqtt::Message;

/// The provisioning control unit `[0054]`: a state machine without IO, locks or clock.
#[derive(Debug)]
pub struct ControlUnit {
    pub(super) options: ControlOptions,
    pub(super) registry: Registry,
    pub(super) ledger: Ledger,
    pub(super) exchanges: Exchanges,
    pub(super) mail: Mail,
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
}

/// What a sweep put away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Letters that expired.
    pub letters: ExpiredLetters,
    /// Requests whose time was over without an answer.
    pub requests: u64,
    /// Exchanges whose time was over without a profile.
    pub exchanges: u64,
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
    /// Groups with members.
    pub groups: usize,
    /// Letters kept; a group letter counts once.
    pub mail_messages: usize,
    /// Payload bytes of those.
    pub mail_bytes: usize,
    /// Letters lost when a device left a group with an over-full mailbox, since the start.
    pub mail_dropped: u64,
    /// Requests remembered.
    pub requests: usize,
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
        Self {
            registry: Registry::default(),
            ledger: Ledger::new(options.limits),
            exchanges: Exchanges::new(options.limits.exchanges_max),
            mail: Mail::new(options.limits),
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

    /// Changes the global settings; what is open stays open.
    pub fn set_settings(&mut self, settings: Settings) {
        self.options.settings = settings;
    }

    /// Changes one group's deviations from the global settings; `None` takes them away.
    pub fn set_group_settings(&mut self, gid: Gid, settings: Option<GroupSettings>) {
        match settings {
            Some(settings) => self.options.groups.insert(gid, settings),
            None => self.options.groups.remove(&gid),
        };
    }

    /// Adds the devices of a registry file to those that are known; a known device gets the
    /// groups and labels of its line.
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
        Ok(Put { key: registered.key, is_new: registered.is_new })
    }

    /// Removes a device with its mail and open requests. `None` when it is not registered; else
    /// its reader, if it had one, whose mailbox is gone.
    pub fn remove_device(&mut self, nid: Nid) -> Option<Option<SessionKey>> {
        self.registry.key(nid)?;
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
        let mut expires = message.expires.min(now.after(self.options.mail_ttl));
        let change = self.enter(effect, audience, &mut expires, now);
        let mut outcome = Outcome { id, form, wake: Vec::new(), to_servers: false, reached: 0 };
        match audience {
            Audience::Servers => outcome.to_servers = true,
            Audience::Device(nid) => {
                if let Some(key) = self.registry.key(nid) {
                    outcome.wake.extend(self.mail.post(key.index, message, expires, form, change));
                    outcome.reached = 1;
                }
            }
            Audience::Group(gid) => {
                if let Some(members) = self.registry.members(gid) {
                    outcome.reached = u32::try_from(members.len()).unwrap_or(u32::MAX);
                    let members = Arc::clone(members);
                    outcome.wake = self.mail.post_group(gid, members, message, expires);
                }
            }
        }
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
    pub fn attach(&mut self, nid: Nid, reader: SessionKey) -> Result<DeviceKey, Refusal> {
        let key = self.registry.key(nid).ok_or(Refusal::NotRegistered)?;
        self.mail.attach(key.index, self.registry.gids(key), reader);
        Ok(key)
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
        if self.registry.nid(device).is_none() {
            return Vec::new();
        }
        self.mail.pull(device.index, self.registry.gids(device), reader, room, now)
    }

    /// The reader's connection ended before these letters had left for it; its session may go on.
    pub fn put_back(&mut self, device: DeviceKey, reader: SessionKey, letters: &[u64]) {
        if self.registry.nid(device).is_some() {
            self.mail.put_back(device.index, reader, letters);
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
    ) -> Option<Arrival> {
        self.registry.nid(device)?;
        let arrival = self.mail.acknowledge(device.index, self.registry.gids(device), letter)?;
        let Some(change) = arrival.change else { return Some(arrival) };
        let ttl = self.settings_of_group(change.gid).ttl.msg;
        self.ledger.open(device.index, Asked::Report, None, ttl, now);
        Some(arrival)
    }

    /// A letter cannot be given to its reader: it leaves the mail without having arrived, and an
    /// E2 changes nothing. `None` when the reader was not given it.
    pub fn discard(&mut self, device: DeviceKey, letter: u64) -> Option<Form> {
        self.registry.nid(device)?;
        let gids = self.registry.gids(device);
        Some(self.mail.acknowledge(device.index, gids, letter)?.form)
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

    /// Puts away what has expired; bounded work, so call it again when there is more.
    pub fn sweep(&mut self, now: Timestamp) -> Swept {
        let mut budget = self.options.limits.sweep_max;
        let letters = self.mail.sweep(now, &mut budget);
        let requests = self.ledger.sweep(now, &mut budget);
        let exchanges = self.exchanges.sweep(now, &mut budget);
        Swept { letters, requests, exchanges, more: budget == 0 }
    }

    /// Numbers for gauges.
    #[must_use]
    pub fn stats(&self) -> ControlStats {
        let mail = self.mail.totals();
        ControlStats {
            devices: self.registry.device_count(),
            devices_online: mail.readers,
            groups: self.registry.group_count(),
            mail_messages: mail.messages,
            mail_bytes: mail.bytes,
            mail_dropped: mail.dropped,
            requests: self.ledger.len(),
            exchanges: self.exchanges.open_count(),
        }
    }

    pub(super) fn register(&mut self, nid: Nid, gids: Gids, labels: &str) -> Registered {
        let registered = self.registry.register(nid, gids, labels);
        let index = registered.key.index;
        for gid in &registered.left {
            self.mail.leave(index, *gid);
            self.ledger.leave(index, *gid);
        }
        registered.joined.iter().for_each(|gid| self.mail.join(index, *gid));
        registered
    }

    /// Returns the readers that the removed devices had.
    pub(super) fn remove_devices(&mut self, nids: &[Nid]) -> Vec<SessionKey> {
        let mut readers = Vec::new();
        for nid in nids {
            let Some(Removed { index, gids }) = self.registry.remove(*nid) else { continue };
            readers.extend(self.mail.remove(index, &gids));
            self.ledger.remove(index, &gids);
        }
        let gone: HashSet<Nid> = nids.iter().copied().collect();
        self.exchanges.forget_devices(|nid| gone.contains(&nid));
        readers
    }

    /// Enters a message into the ledger. An E1 must not arrive after its exchange is over, when
    /// the old device would give its profile away for nothing: its expiry is brought forward.
    fn enter(
        &mut self,
        effect: Effect,
        audience: Audience,
        expires: &mut Timestamp,
        now: Timestamp,
    ) -> Option<ProfileChange> {
        match effect {
            Effect::Ask { asked, tid, ttl } => {
                let ttl = if asked == Asked::Trigger { ttl.trigger } else { ttl.msg };
                self.ask(asked, audience, tid, ttl, now);
            }
            Effect::Wish { by, group, tid, ttl } => {
                let key = self.registry.key(by)?;
                match group {
                    Some(gid) => {
                        let until = now.after(ttl.trigger);
                        self.ledger.open_wish(gid, key.index, tid, until);
                    }
                    None => {
                        self.ledger.open(key.index, Asked::Wish, tid, ttl.trigger, now);
                    }
                }
            }
            Effect::Answer(found) => self.ledger.answer(found),
            Effect::OpenExchange { pair, gid, ttl } => {
                *expires = (*expires).min(self.exchanges.open(pair, gid, ttl.exchange, now));
            }
            Effect::AnswerExchange { pair, gid } => {
                self.exchanges.answer(pair, now);
                return Some(ProfileChange { from: pair.from, to: pair.to, gid });
            }
        }
        None
    }

    fn ask(
        &mut self,
        asked: Asked,
        audience: Audience,
        tid: Option<Tid>,
        ttl: Duration,
        now: Timestamp,
    ) {
        match audience {
            Audience::Device(nid) => {
                if let Some(key) = self.registry.key(nid) {
                    self.ledger.open(key.index, asked, tid, ttl, now);
                }
            }
            Audience::Group(gid) => {
                if let Some(members) = self.registry.members(gid) {
                    let (members, until) = (Arc::clone(members), now.after(ttl));
                    self.ledger.open_group(gid, asked, members, tid, until);
                }
            }
            Audience::Servers => {}
        }
    }
}
