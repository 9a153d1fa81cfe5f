//! What operators do, and what time alone does: settings, campaigns, exchanges, reinstatement,
//! and messages that waited for others of their kind.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::campaign::{self, Campaign, CampaignId, FirstWave, Target};
use super::control::ControlUnit;
use super::event::{CampaignStep, Event, Reason};
use super::exchange::{Exchange, Pair};
use super::gathering::Pending;
use super::group_log::GroupLetter;
use super::identity::Identity;
use super::ledger::RetryError;
use super::mail::Publication;
use super::merging::EqualMessages;
use super::policy::{Ask, Audience, Form, MessageId};
use super::request::{Asked, Request, Whom};
use super::roll::{Roll, Ticked};
use super::settings::{GroupSettings, PeerProof, Settings, SettingsTable};
use super::track::DeviceState;
use crate::ids::{Gid, Nid, SessionKey, Timestamp};
use crate::mqtt::{Message, PublishProperties, QoS};

/// D1s on their way to the servers, of one group.
#[derive(Clone, Debug)]
pub struct ForServers {
    /// One of them as it came, or all in one message.
    pub message: Arc<Message>,
    /// The device, where it is one of them as it came.
    pub sender: Option<Nid>,
    /// The group.
    pub gid: Gid,
}

/// Where the SM-SR servers get what the control unit sends when it is due.
pub trait Servers {
    /// The largest PUBLISH, in bytes, that all those take that may get what is of this group.
    fn packet_bytes_max(&self, gid: Gid) -> u32;

    /// Gives them a message; `false` where there is no room for it.
    fn post(&mut self, message: &ForServers) -> bool;
}

/// A device of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CampaignDevice {
    /// Which.
    pub nid: Nid,
    /// How far it is.
    pub state: DeviceState,
    /// Where a list goes on behind it.
    pub place: usize,
}

impl ControlUnit {
    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &SettingsTable {
        &self.options.settings
    }

    /// Changes the settings of all; what is open stays open.
    ///
    /// # Errors
    /// The key that has no workable value, and what it has to be; then nothing has changed.
    pub fn set_settings(&mut self, settings: Settings) -> Result<(), (String, &'static str)> {
        self.check_settings(&settings).map_err(|(key, why)| (key.to_owned(), why))?;
        for (gid, group) in self.options.settings.groups() {
            let both = self.check_settings(&settings.with(group));
            both.map_err(|(key, why)| (format!("{key} of group {gid}"), why))?;
        }
        self.options.settings.set_common(settings);
        self.note_settings(None);
        Ok(())
    }

    /// Changes one group's deviations from the settings of all.
    ///
    /// # Errors
    /// The key that has no workable value, and what it has to be; then nothing has changed.
    pub fn set_group_settings(
        &mut self,
        gid: Gid,
        group: GroupSettings,
    ) -> Result<(), (&'static str, &'static str)> {
        self.check_settings(&self.options.settings.common().with(&group))?;
        self.options.settings.set_group(gid, group);
        self.note_settings(Some(gid));
        Ok(())
    }

    fn check_settings(&self, settings: &Settings) -> Result<(), (&'static str, &'static str)> {
        settings.check()?;
        if settings.peer_proof == PeerProof::Required && !self.options.can_prove {
            return Err(("peer_proof", "needs rsp.proof_issuers in the configuration file"));
        }
        Ok(())
    }

    /// What happened since this was asked last, oldest first, and how many events before that were
    /// lost for want of room.
    pub fn take_events(&mut self) -> (Vec<Event>, u64) {
        self.events.take()
    }

    /// Campaigns in which something has changed since this was asked last.
    pub fn take_changed(&mut self) -> Vec<CampaignId> {
        self.ledger.take_changed()
    }

    /// A campaign as it stands.
    #[must_use]
    pub fn campaign(&self, id: CampaignId, now: Timestamp) -> Option<Campaign> {
        Some(self.view(id.0, self.ledger.request(id.0)?, now))
    }

    /// Campaigns older than `before`, newest first.
    pub fn campaigns(
        &self,
        before: Option<CampaignId>,
        now: Timestamp,
    ) -> impl Iterator<Item = Campaign> + '_ {
        let before = before.map_or(u64::MAX, |id| id.0);
        self.ledger.newest(before).map(move |(id, request)| self.view(id, request, now))
    }

    /// The devices of a campaign from a place in its roll on, 0 being the first.
    pub fn campaign_devices(
        &self,
        id: CampaignId,
        place: usize,
    ) -> impl Iterator<Item = CampaignDevice> + '_ {
        let whom = self.ledger.request(id.0).map(|request| &request.whom);
        let (one, all) = match whom {
            Some(Whom::One { index, state }) => (Some((1, *index, *state)), None),
            Some(Whom::All(roster)) => (None, Some(roster.track.from(place))),
            None => (None, None),
        };
        let one = one.filter(|_| place == 0).into_iter();
        let all = all.into_iter().flatten();
        // The index of a device that is gone may name another one by now.
        let rest = one.chain(all).filter(|(_, _, state)| *state != DeviceState::Gone);
        rest.filter_map(|(place, index, state)| {
            Some(CampaignDevice { nid: self.registry.nid_at(index)?, state, place })
        })
    }

    /// Sends a campaign's message again to the devices that had it and did not answer, or did not
    /// come for it in time, and only to those; on demand to those that reported a failure, too.
    /// Who waits for the first wave goes on waiting. Gives how many, and the readers to wake.
    ///
    /// # Errors
    /// [`RetryError`]; then nothing has changed.
    pub fn retry(
        &mut self,
        id: CampaignId,
        failed_too: bool,
        now: Timestamp,
    ) -> Result<(u32, Vec<SessionKey>), RetryError> {
        let (mut missing, publication) = self.ledger.missing(id.0, failed_too)?;
        let request = self.ledger.request(id.0).ok_or(RetryError::Unknown)?;
        let gid = match &request.whom {
            Whom::One { .. } => None,
            Whom::All(roster) => Some(roster.gid),
        };
        if request.asked == Asked::Msg {
            let replaced = self.registry.replaced_in(&missing);
            missing.retain(|index| replaced.binary_search(index).is_err());
        }
        let (Some(first), ttl) = (missing.first().copied(), self.retry_ttl(request, gid)) else {
            return Err(RetryError::NobodyMissing);
        };
        // Its own expiry was for the first time.
        let message = Arc::new(publication.message.with_expiry(Timestamp::NEVER));
        let publication = Publication { message, ..publication };
        let bytes = publication.message.kept_bytes();
        let has_room = match gid {
            Some(gid) => self.mail.has_group_room(gid, bytes, false),
            None => self.mail.has_room(first, bytes, Form::Single),
        };
        if !has_room {
            return Err(RetryError::NoRoom);
        }
        let until = now.after(ttl);
        let served_first = self.ledger.first_alone(id.0);
        self.ledger.reopen(id.0, &missing, until);
        let (count, expires) = (missing.len(), self.expiry(&publication.message, now).min(until));
        let mut wake = Vec::new();
        match gid {
            Some(gid) => {
                let roll = Roll::new(Arc::new(missing));
                let letter = GroupLetter::new(roll, publication, expires);
                let campaign = NonZeroU64::new(id.0);
                self.mail.post_group(
                    gid,
                    GroupLetter { campaign, first: served_first, ..letter },
                    &mut wake,
                );
            }
            None => {
                let form = Form::Single;
                wake.extend(self.mail.post(first, &publication, expires, form, Some(id.0), None));
            }
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.events.push(Event::Campaign(id, CampaignStep::Retried(count)));
        Ok((count, wake))
    }

    fn retry_ttl(&self, request: &Request, gid: Option<Gid>) -> Duration {
        let table = &self.options.settings;
        let ttl = gid.map_or(table.common(), |gid| table.of_group(gid)).ttl;
        if request.asked == Asked::Trigger { ttl.trigger } else { ttl.msg }
    }

    /// Takes a campaign's message back from every device that was not given it yet; gives from how
    /// many. `None` when there is no such campaign.
    pub fn cancel(&mut self, id: CampaignId) -> Option<u32> {
        let request = self.ledger.request(id.0)?;
        let before = request.tally().of(DeviceState::Cancelled);
        match &request.whom {
            Whom::One { index, .. } => {
                let index = *index;
                if self.mail.withdraw_from(index, id.0) {
                    self.ledger.settle_queued(id.0, |_| true, DeviceState::Cancelled);
                }
            }
            Whom::All(roster) => {
                // Who has left the group meanwhile took along what waited for it.
                let has_left = |state| state == DeviceState::Gone;
                let some_have = roster.track.tally().of(DeviceState::Gone) > 0;
                let left = some_have.then(|| roster.track.in_states(has_left));
                for index in left.into_iter().flatten() {
                    self.mail.withdraw_from(index, id.0);
                }
                let on_their_way = self.mail.withdraw_from_group(roster.gid, id.0);
                let mut on_their_way = Ticked::new(on_their_way.into_iter());
                let waits = |index| !on_their_way.has(index);
                self.ledger.settle_queued(id.0, waits, DeviceState::Cancelled);
            }
        }
        // Nothing is left that its first wave could decide about.
        self.ledger.forget_verdict(id.0);
        let after = self.ledger.request(id.0)?.tally().of(DeviceState::Cancelled);
        self.events.push(Event::Campaign(id, CampaignStep::Cancelled(after - before)));
        Some(after - before)
    }

    /// Serves all others, whatever the first wave said. Gives the readers to wake; `None` when the
    /// campaign does not go out in waves.
    pub fn release(&mut self, id: CampaignId) -> Option<Vec<SessionKey>> {
        let gid = self.ledger.release(id.0)?;
        self.events.push(Event::Campaign(id, CampaignStep::Released));
        let mut wake = Vec::new();
        self.mail.release(gid, id.0, &mut wake);
        Some(wake)
    }

    /// A device that has given its profile away takes part again; `false` where it did.
    pub fn reinstate(&mut self, nid: Nid) -> bool {
        let is_news = self.registry.reinstate(nid);
        if is_news {
            self.events.push(Event::Reinstated(nid));
        }
        is_news
    }

    /// Exchanges behind a pair, in the order of pairs.
    pub fn exchanges_behind(
        &self,
        pair: Option<Pair>,
    ) -> impl Iterator<Item = (Pair, &Exchange)> + '_ {
        self.exchanges.behind(pair)
    }

    /// How long to tell a device to wait that was refused for its rate. Not the same for all.
    #[must_use]
    pub fn retry_after(&self, from: &Identity, now: Timestamp) -> Duration {
        let Some(key) = from.nid.and_then(|nid| self.registry.key(nid)) else {
            return Duration::ZERO;
        };
        let wait = self.rate_wait(key, self.registry.gids(key), now);
        self.device_rates.jittered(key.index, wait, now)
    }

    /// When messages that wait for others of their kind have to go next.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.gathering.next_due().into_iter().chain(self.merging.next_due()).min()
    }

    /// Sends what has waited long enough: gathered D1s to the servers, which say whether they have
    /// room for them, and B1s to their devices. Gives the readers to wake.
    pub fn send_due(&mut self, now: Timestamp, servers: &mut impl Servers) -> Vec<SessionKey> {
        let mut full = Vec::new();
        while let Some(pending) = self.gathering.take_due(now) {
            full.extend(self.send_gathered(pending, servers, now));
        }
        let later = now.after(FULL_PATIENCE);
        full.into_iter().for_each(|pending| self.gathering.put_back(pending, later));
        let mut wake = Vec::new();
        while let Some(batch) = self.merging.take_due(now) {
            self.send_merged(batch, &mut wake, now);
        }
        wake
    }

    /// Sends gathered D1s as one message, or as several where one would be too large. Gives those
    /// for which there is no room.
    fn send_gathered(
        &mut self,
        mut pending: Pending,
        servers: &mut impl Servers,
        now: Timestamp,
    ) -> Option<Pending> {
        let gid = pending.batch.gid;
        let bytes_max = self.gathered_bytes_max(servers.packet_bytes_max(gid));
        while !pending.waiting.is_empty() {
            let (mut batch, all) = (pending.batch, pending.waiting.len());
            let (mut payload, mut count) = pending.first_as_one(batch, all, bytes_max);
            if count < all {
                // They are answered apart from those that follow.
                batch = self.gathering.next_batch(gid);
                (payload, count) = pending.first_as_one(batch, count, bytes_max);
            }
            if !servers.post(&self.for_servers(&pending, payload, count, now)) {
                return Some(pending);
            }
            for gone in pending.take_first(count.max(1)) {
                self.gathering.went(pending.batch, &gone);
                self.wishes.part(gone.wish, pending.batch, batch);
            }
            if count > 1 {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                self.events.push(Event::Decided(gid, Reason::Coalesced(count)));
            }
        }
        None
    }

    /// The largest envelope of many D1s for servers that take packets of so many bytes.
    fn gathered_bytes_max(&self, packet_bytes_max: u32) -> usize {
        let bound = self.options.limits.gathered_bytes_max;
        let head = PublishProperties::head_bytes_max(&self.options.topics.to_sm_sr, None);
        let packet = usize::try_from(packet_bytes_max).unwrap_or(usize::MAX);
        bound.min(packet.saturating_sub(head + STAMP_BYTES_MAX))
    }

    /// What waits for others of its kind goes before anything else to the same devices.
    pub(super) fn keep_order(
        &mut self,
        audience: Audience,
        wake: &mut Vec<SessionKey>,
        now: Timestamp,
    ) {
        match audience {
            Audience::Servers => {}
            _ if self.merging.is_empty() => {}
            Audience::Device(nid) => {
                let key = self.registry.key(nid);
                if let Some(batch) = key.and_then(|key| self.merging.take_of(key.index)) {
                    self.send_merged(batch, wake, now);
                }
            }
            Audience::Group(gid) => {
                let Some(members) = self.registry.members(gid).cloned() else { return };
                for batch in self.merging.take_of_any(&members) {
                    self.send_merged(batch, wake, now);
                }
            }
        }
    }

    fn send_merged(&mut self, batch: EqualMessages, wake: &mut Vec<SessionKey>, now: Timestamp) {
        let EqualMessages { gid, envelope, ask, each, .. } = batch;
        // Who has left the group meanwhile would not find it there.
        let takes_part = |(index, _): &(u32, _)| {
            let is_member = self.registry.gids_at(*index).contains(&gid);
            is_member && !self.registry.is_replaced_at(*index)
        };
        let (mut each, others): (Vec<_>, Vec<_>) = each.into_iter().partition(takes_part);
        self.send_each(others, &ask, wake, now);
        let count = u32::try_from(each.len()).unwrap_or(u32::MAX);
        let Some((_, first)) = each.first() else { return };
        let first = first.with_payload(envelope);
        let enough = count >= self.options.settings.of_group(gid).auto_members;
        if !enough || !self.mail.has_group_room(gid, first.kept_bytes(), false) {
            self.send_each(each, &ask, wake, now);
            if count > 1 {
                self.events.push(Event::Decided(gid, Reason::NotMerged(count)));
            }
            return;
        }
        each.sort_unstable_by_key(|(index, _)| *index);
        let members = Arc::new(each.into_iter().map(|(index, _)| index).collect());
        self.send_to_members(gid, members, ask, &Arc::new(first), wake, now);
        self.events.push(Event::Decided(gid, Reason::Merged(count)));
    }

    /// B1s that waited for nothing.
    fn send_each(
        &mut self,
        each: Vec<(u32, Arc<Message>)>,
        ask: &Ask,
        wake: &mut Vec<SessionKey>,
        now: Timestamp,
    ) {
        for (index, message) in each {
            let ask = Ask { merge: None, ..ask.clone() };
            let (id, reader) = self.send_to_device(index, ask, &message, now);
            wake.extend(reader);
            if self.registry.is_replaced_at(index) {
                // It has given its profile away meanwhile.
                self.cancel(id);
            }
        }
    }

    /// What the servers get of so many that wait: this, or the first alone as it came.
    fn for_servers(
        &self,
        pending: &Pending,
        payload: Bytes,
        count: usize,
        now: Timestamp,
    ) -> ForServers {
        let gid = pending.batch.gid;
        if let (0 | 1, Some(only)) = (count, pending.waiting.first()) {
            let (message, sender) = (Arc::clone(&only.message), Some(only.request.nid));
            return ForServers { message, sender, gid };
        }
        let topic = self.options.topics.to_sm_sr.as_str().into();
        let (qos, expires) = (QoS::AtLeastOnce, Timestamp::NEVER);
        let message = Message::new(topic, payload, qos, false, None, expires);
        let message = Arc::new(message.taken_at(now));
        ForServers { message, sender: None, gid }
    }

    fn view(&self, id: u64, request: &Request, now: Timestamp) -> Campaign {
        let tally = request.tally();
        let (target, rate, wave) = match &request.whom {
            Whom::One { index, state } => {
                let is_gone = *state == DeviceState::Gone;
                let nid = self.registry.nid_at(*index).filter(|_| !is_gone);
                (Target::Device(nid), 0.0, None)
            }
            Whom::All(roster) => {
                let wave = roster.wave.as_ref().map(FirstWave::view);
                (Target::Group(roster.gid), roster.pace.rate(now), wave)
            }
        };
        let message = match (request.asked, target) {
            (Asked::Trigger, _) => MessageId::A1,
            (Asked::Msg, Target::Group(_)) if !request.merged => MessageId::C1,
            (Asked::Msg, _) => MessageId::B1,
        };
        Campaign {
            id: CampaignId(id),
            message,
            merged: request.merged,
            target,
            name: request.campaign_name().map(Into::into),
            tid: request.tid().cloned(),
            server: Arc::clone(&request.asker),
            opened: request.opened,
            expires: request.expires,
            state: request.campaign_state(),
            tally,
            wave,
            rate: f64::from(rate),
            eta: campaign::eta(tally.open(), rate),
            retriable: request.keeps_message(),
        }
    }
}

/// How long D1s wait again for which the servers had no room.
const FULL_PATIENCE: Duration = Duration::from_secs(1);

/// Most bytes of the property by which a message says who sent it.
const STAMP_BYTES_MAX: usize = 64;
