//! The rules of each of the ten messages; [`super::policy`] says which they are and in which order
//! rules are looked at.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::control::ControlUnit;
use super::envelope::Head;
use super::exchange::Pair;
use super::identity::Identity;
use super::parts::Parts;
use super::policy::{
    Ask, Audience, Decision, DeviceStep, Effect, Form, MessageId, PeerStep, Publisher, ServerStep,
    Submission,
};
use super::proof::{Deletion, ProofError};
use super::refusal::Refusal;
use super::registry::DeviceKey;
use super::request::{Answerable, Asked};
use super::settings::{Auto, Flow, Initiator, Mode, Peer, PeerProof, Settings};
use crate::ids::{Gid, Nid, Timestamp};

impl ControlUnit {
    /// A1, B1 and D2 to one device.
    pub(super) fn server_to_device(
        &self,
        step: ServerStep,
        nid: Nid,
        s: &Submission<'_>,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        let key = self.registry.key(nid).ok_or(Refusal::UnknownNid)?;
        self.check_scope(s.from, self.registry.gids(key))?;
        let settings = self.settings_of_device(key);
        if settings.iter().any(|settings| settings.mode == Mode::Multi) {
            return Err(Refusal::ModeNotPermitted);
        }
        let (id, effect) = match step {
            ServerStep::Trigger => {
                let devices_begin = settings.iter().any(|s| s.initiator == Initiator::Client);
                if devices_begin && !self.wishes.has_wished(key.index, now) {
                    return Err(Refusal::InitiatorNotPermitted);
                }
                let until = now.after(longest(&settings, |s| s.ttl.trigger));
                (MessageId::A1, Effect::Ask(ask(Asked::Trigger, s, until)))
            }
            ServerStep::Msg => {
                self.check_provisioning(key, &settings, s, now)?;
                let until = now.after(longest(&settings, |s| s.ttl.msg));
                let merge = self.merge_window(key, s.head);
                (MessageId::B1, Effect::Ask(Ask { merge, ..ask(Asked::Msg, s, until) }))
            }
            ServerStep::WishAnswer => {
                let found = self.wishes.find_alone(key.index, s.head.tid.as_ref(), now);
                (MessageId::D2, Effect::AnswerWish(found?))
            }
        };
        Ok(Decision { id, audience: Audience::Device(nid), form: Form::Single, effect })
    }

    /// Whether a server speaks with the devices of these groups.
    fn check_scope(&self, from: &Identity, gids: &[Gid]) -> Result<(), Refusal> {
        let covered = self.options.scopes.of(&from.name).covers(gids);
        if covered { Ok(()) } else { Err(Refusal::OutOfScope) }
    }

    /// Whether a device may be given a B1.
    fn check_provisioning(
        &self,
        key: DeviceKey,
        settings: &[&Settings],
        s: &Submission<'_>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if self.registry.is_replaced(key) {
            return Err(Refusal::DeviceReplaced);
        }
        let is_strict = settings.iter().any(|settings| settings.flow == Flow::Strict);
        let gids = self.registry.gids(key);
        if is_strict && !self.ledger.has_agreed(key.index, gids, now) {
            return Err(Refusal::ConsentMissing);
        }
        let packet_bytes_max = self.mail.packet_bytes_max(key.index);
        self.check_size(packet_bytes_max, self.chunk_of(gids), s)
    }

    /// Whether receivers that take packets of this size, and whose groups have this `chunk`
    /// setting, take the message whole, or in pieces.
    fn check_size(
        &self,
        packet_bytes_max: u32,
        chunk: usize,
        s: &Submission<'_>,
    ) -> Result<(), Refusal> {
        let packet = usize::try_from(packet_bytes_max).unwrap_or(usize::MAX);
        let head = self.options.topics.to_euicc.len() + PUBLISH_HEAD_BYTES;
        let chunk = if chunk == 0 { usize::MAX } else { chunk };
        // Of a message in parts, each gets but a part; what is too large then comes in pieces.
        let is_small = s.kept_bytes.saturating_add(head) <= packet && s.kept_bytes <= chunk;
        if is_small || s.head.options.chunks || s.head.options.parts {
            Ok(())
        } else {
            Err(Refusal::TooLargeForDevice)
        }
    }

    /// Whether a B1 is held back to see if it comes to many members of a group, and how long.
    fn merge_window(&self, key: DeviceKey, head: &Head) -> Option<(Gid, Duration)> {
        if head.options.chunks {
            return None;
        }
        let may_merge = |gid: &&Gid| {
            let settings = self.options.settings.of_group(**gid);
            settings.auto == Auto::On && settings.mode == Mode::Any
        };
        let gid = *self.registry.gids(key).iter().find(may_merge)?;
        Some((gid, self.options.settings.of_group(gid).auto_window))
    }

    /// A1, C1 and D2 to a group.
    pub(super) fn server_to_group(
        &self,
        step: ServerStep,
        gid: Gid,
        s: &Submission<'_>,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        self.registry.members(gid).ok_or(Refusal::UnknownGid)?;
        self.check_scope(s.from, &[gid])?;
        let settings = self.options.settings.of_group(gid);
        if settings.mode == Mode::Single {
            return Err(Refusal::ModeNotPermitted);
        }
        let (id, effect) = match step {
            ServerStep::Trigger => {
                let devices_begin = settings.initiator == Initiator::Client;
                if devices_begin && !self.wishes.is_wished(gid, now) {
                    return Err(Refusal::InitiatorNotPermitted);
                }
                let until = now.after(settings.ttl.trigger);
                (MessageId::A1, Effect::Ask(ask(Asked::Trigger, s, until)))
            }
            ServerStep::Msg => {
                s.parts.map_or(Ok(()), |parts| self.check_parts(gid, parts))?;
                self.check_size(self.mail.group_packet_bytes_max(gid), settings.chunk, s)?;
                let (parts, needs_consent) = (s.parts.cloned(), settings.flow == Flow::Strict);
                let until = now.after(settings.ttl.msg);
                let ask = Ask { parts, needs_consent, ..ask(Asked::Msg, s, until) };
                (MessageId::C1, Effect::Ask(ask))
            }
            ServerStep::WishAnswer => {
                let found = self.wishes.find_in_group(gid, s.head.tid.as_ref(), now);
                (MessageId::D2, Effect::AnswerWish(found?))
            }
        };
        if s.head.options.wave.is_some_and(|wave| self.is_too_wide(wave.first)) {
            return Err(Refusal::OverQuota);
        }
        Ok(Decision { id, audience: Audience::Group(gid), form: Form::Multi, effect })
    }

    fn is_too_wide(&self, first: u32) -> bool {
        usize::try_from(first).is_ok_and(|first| first > self.options.limits.wave_devices_max)
    }

    /// Every part is for a member: what is for nobody was meant for somebody.
    fn check_parts(&self, gid: Gid, parts: &Parts) -> Result<(), Refusal> {
        let is_member =
            |nid: &Nid| self.registry.key(*nid).is_some_and(|key| self.registry.belongs(key, gid));
        if parts.nids().iter().all(is_member) { Ok(()) } else { Err(Refusal::ForeignPart) }
    }

    /// A2, B2 and D1 in a device's own name.
    pub(super) fn device_alone(
        &self,
        step: DeviceStep,
        own: Publisher,
        nid: Nid,
        head: &Head,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        if nid != own.nid {
            return Err(Refusal::SpoofedNid);
        }
        let key = own.key;
        let (id, effect) = match step {
            DeviceStep::TriggerAnswer => {
                (MessageId::A2, answer(self.find_trigger(key, None, head, now), head)?)
            }
            DeviceStep::MsgAnswer => (MessageId::B2, self.message_answer(own, head, now)?),
            DeviceStep::Wish => {
                let settings = self.settings_of_device(key);
                if settings.iter().any(|settings| settings.initiator == Initiator::Server) {
                    return Err(Refusal::InitiatorNotPermitted);
                }
                let until = now.after(longest(&settings, |s| s.ttl.trigger));
                (MessageId::D1, self.wish(key, None, head, until, now)?)
            }
        };
        Ok(Decision { id, audience: Audience::Servers, form: Form::Single, effect })
    }

    /// What a B2 answers: a B1, several that were merged, or the duty to report a profile change.
    fn message_answer(
        &self,
        own: Publisher,
        head: &Head,
        now: Timestamp,
    ) -> Result<Effect, Refusal> {
        let (index, tid) = (own.key.index, head.tid.as_ref());
        let merged = |gid: &Gid| self.ledger.find_merged(*gid, index, tid, now);
        let alone = self.ledger.find_alone(index, Asked::Msg, tid, now);
        let gids = self.registry.gids(own.key);
        let found = alone.or_else(tid, gids.iter().map(merged));
        match (found, self.exchanges.report_due(own.nid, now)) {
            (Answerable::Open(_), _) | (_, None) => answer(found, head),
            (_, Some(pair)) => Ok(Effect::Report { pair, rc: head.rc.unwrap_or(0) }),
        }
    }

    /// A2, C2 and D1 in the name of one of the device's groups.
    pub(super) fn device_in_group(
        &self,
        step: DeviceStep,
        own: Publisher,
        gid: Gid,
        head: &Head,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        let key = own.key;
        if !self.registry.belongs(key, gid) {
            return Err(Refusal::ForeignGid);
        }
        let (id, effect) = match step {
            DeviceStep::TriggerAnswer => {
                (MessageId::A2, answer(self.find_trigger(key, Some(gid), head, now), head)?)
            }
            DeviceStep::MsgAnswer => {
                let tid = head.tid.as_ref();
                let found = self.ledger.find_in_group(gid, key.index, Asked::Msg, tid, now);
                (MessageId::C2, answer(found, head)?)
            }
            DeviceStep::Wish => {
                let settings = self.options.settings.of_group(gid);
                if settings.initiator == Initiator::Server {
                    return Err(Refusal::InitiatorNotPermitted);
                }
                let until = now.after(settings.ttl.trigger);
                (MessageId::D1, self.wish(key, Some(gid), head, until, now)?)
            }
        };
        Ok(Decision { id, audience: Audience::Servers, form: Form::Multi, effect })
    }

    /// A D1, if there is a token for it and room where it would wait for others.
    fn wish(
        &self,
        key: DeviceKey,
        gid: Option<Gid>,
        head: &Head,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Effect, Refusal> {
        let gids = gid.as_ref().map_or(self.registry.gids(key), std::slice::from_ref);
        if !self.rate_wait(key, gids, now).is_zero() {
            return Err(Refusal::TriggerRate);
        }
        let window = |gid: &Gid| (*gid, self.options.settings.of_group(*gid).coalesce);
        // With others of a group it reaches the servers of that group, and may concern more.
        let scopes = &self.options.scopes;
        let is_for_all = |gid| scopes.covering(&[gid]) == scopes.covering(gids);
        let mut windows = gids.iter().map(window);
        let gather = windows.find(|(gid, window)| !window.is_zero() && is_for_all(*gid));
        if gather.is_some_and(|(gid, _)| !self.gathering.has_room(gid)) {
            return Err(Refusal::OverQuota);
        }
        Ok(Effect::Wish { key, gid, tid: head.tid.clone(), until, gather })
    }

    /// How long a device has to wait until it may start something in the name of these groups.
    pub(super) fn rate_wait(&self, key: DeviceKey, gids: &[Gid], now: Timestamp) -> Duration {
        let settings = self.options.settings.of_groups(gids);
        let rates = settings.map(|settings| settings.trigger_rate.device);
        let own = rates.map(|rate| self.device_rates.wait(key.index, rate, now));
        let own = own.max().unwrap_or_default();
        let of_group = |gid: &Gid| {
            let rate = self.options.settings.of_group(*gid).trigger_rate.group;
            self.group_rates.wait(*gid, rate, now)
        };
        gids.iter().map(of_group).fold(own, Duration::max)
    }

    /// The device that publishes.
    pub(super) fn publisher(&self, from: &Identity) -> Result<Publisher, Refusal> {
        let nid = from.nid.ok_or(Refusal::NotRegistered)?;
        let key = self.registry.key(nid).ok_or(Refusal::NotRegistered)?;
        Ok(Publisher { nid, key })
    }

    /// Registry and identity of E1 and E2.
    pub(super) fn check_exchange(
        &self,
        own: Publisher,
        other: Nid,
        gid: Gid,
        x: Nid,
    ) -> Result<(), Refusal> {
        let Publisher { nid: own, key } = own;
        if x != own {
            return Err(Refusal::WrongPeer);
        }
        if other == own {
            return Err(Refusal::SamePeer);
        }
        let other = self.registry.key(other).ok_or(Refusal::UnknownNid)?;
        self.registry.members(gid).ok_or(Refusal::UnknownGid)?;
        if !self.registry.belongs(key, gid) || !self.registry.belongs(other, gid) {
            return Err(Refusal::CrossGroupExchange);
        }
        let conditions = &self.options.settings.of_group(gid).conditions;
        if !self.registry.agree_on(key, other, conditions) {
            return Err(Refusal::ConditionsDiffer);
        }
        Ok(())
    }

    /// E1 and E2, after [`Self::check_exchange`].
    pub(super) fn device_to_device(
        &self,
        step: PeerStep,
        own: Publisher,
        (other, gid): (Nid, Gid),
        proof: Option<Result<Deletion, ProofError>>,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        let (id, effect) = match step {
            PeerStep::Request => (MessageId::E1, self.open_exchange(own, other, gid, now)?),
            PeerStep::Profile => {
                let pair = Pair { from: own.nid, to: other };
                self.exchanges.may_answer(pair, gid, now)?;
                if self.has_given_away(own) {
                    return Err(Refusal::DeviceReplaced);
                }
                let proof = self.proven(own.nid, gid, proof)?;
                (MessageId::E2, Effect::AnswerExchange { pair, gid, proof })
            }
        };
        Ok(Decision { id, audience: Audience::Device(other), form: Form::Peer, effect })
    }

    /// Whether a device has its profile no more, where a profile is given away once: no second
    /// device must get it, not even while it is on its way to the first.
    fn has_given_away(&self, own: Publisher) -> bool {
        self.registry.is_replaced(own.key)
            || self.options.retire && self.exchanges.is_giving(own.nid)
    }

    /// What proves that the old eUICC has deleted the profile, where the group asks for it.
    fn proven(
        &self,
        from: Nid,
        gid: Gid,
        proof: Option<Result<Deletion, ProofError>>,
    ) -> Result<Option<Deletion>, Refusal> {
        match (self.options.settings.of_group(gid).peer_proof, proof) {
            (PeerProof::Off, _) => Ok(None),
            (PeerProof::Required, None | Some(Err(ProofError::Missing))) => {
                Err(Refusal::ProofMissing)
            }
            (PeerProof::Required, Some(Ok(deletion)))
                if !self.spent.contains(from, deletion.seq_number) =>
            {
                Ok(Some(deletion))
            }
            (PeerProof::Required, Some(_)) => Err(Refusal::ProofInvalid),
        }
    }

    fn open_exchange(
        &self,
        own: Publisher,
        other: Nid,
        gid: Gid,
        now: Timestamp,
    ) -> Result<Effect, Refusal> {
        let settings = self.options.settings.of_group(gid);
        let gids = self.registry.gids(own.key);
        let may = match settings.peer {
            Peer::Client => true,
            Peer::ServerTriggered => self.ledger.is_triggered(own.key.index, gids, now),
            Peer::Off => false,
        };
        if !may {
            return Err(Refusal::PeerNotPermitted);
        }
        let pair = Pair { from: other, to: own.nid };
        // Who has given its profile away has none to give.
        if self.registry.key(other).is_some_and(|key| self.registry.is_replaced(key)) {
            return Err(Refusal::DeviceReplaced);
        }
        // To ask anew would hide that the profile is on its way, see `has_given_away`.
        if self.options.retire && self.exchanges.is_on_its_way(pair) {
            return Err(Refusal::ExchangeAlreadyOpen);
        }
        self.exchanges.may_open(pair, now)?;
        if !self.rate_wait(own.key, &[gid], now).is_zero() {
            return Err(Refusal::TriggerRate);
        }
        Ok(Effect::OpenExchange { pair, gid, ttl: settings.ttl.exchange, by: own.key })
    }

    pub(super) fn check_room(&self, decision: &Decision, bytes: usize) -> Result<(), Refusal> {
        let has_room = match decision.audience {
            Audience::Device(nid) => {
                let key = self.registry.key(nid).ok_or(Refusal::UnknownNid)?;
                self.mail.has_room(key.index, bytes, decision.form)
            }
            Audience::Group(gid) => {
                self.mail.has_group_room(gid, bytes, decision.id == MessageId::D2)
            }
            Audience::Servers => true,
        };
        if has_room { Ok(()) } else { Err(Refusal::OverQuota) }
    }

    /// The A1 that an A2 answers: the one with its tid, else one of the same form, else one of the
    /// other: who was triggered with its group may agree in its own name, and the reverse.
    fn find_trigger(
        &self,
        key: DeviceKey,
        group: Option<Gid>,
        head: &Head,
        now: Timestamp,
    ) -> Answerable {
        let (index, tid) = (key.index, head.tid.as_ref());
        let own = self.ledger.find_alone(index, Asked::Trigger, tid, now);
        let of_group = |gid: &Gid| self.ledger.find_in_group(*gid, index, Asked::Trigger, tid, now);
        match group {
            Some(gid) => of_group(&gid).or(own),
            None => own.or_else(tid, self.registry.gids(key).iter().map(of_group)),
        }
    }

    /// The settings of each of its groups; those of all for a device without groups.
    fn settings_of_device(&self, key: DeviceKey) -> SmallVec<[&Settings; 2]> {
        self.options.settings.of_groups(self.registry.gids(key)).collect()
    }

    /// The smallest `chunk` setting of these groups; 0 where none is set.
    pub(super) fn chunk_of(&self, gids: &[Gid]) -> usize {
        let settings = self.options.settings.of_groups(gids);
        settings.map(|s| s.chunk).filter(|chunk| *chunk > 0).min().unwrap_or(0)
    }
}

/// Bytes that stand before the payload of a PUBLISH besides topic and properties, at most.
const PUBLISH_HEAD_BYTES: usize = 23;

/// What a request is, as far as its envelope says.
fn ask(asked: Asked, s: &Submission<'_>, until: Timestamp) -> Ask {
    let options = &s.head.options;
    Ask {
        asked,
        asker: Arc::clone(&s.from.name),
        tid: s.head.tid.clone(),
        name: options.campaign.clone(),
        until,
        wave: options.wave,
        parts: None,
        chunks: options.chunks,
        needs_consent: false,
        reinstate: options.reinstate,
        merge: None,
    }
}

/// An answer, if it answers something.
fn answer(found: Answerable, head: &Head) -> Result<Effect, Refusal> {
    let rc = head.rc.unwrap_or(0);
    match found {
        Answerable::Open(found) => Ok(Effect::Answer { found, rc }),
        Answerable::Answered => Err(Refusal::DuplicateAnswer),
        Answerable::Late => Err(Refusal::LateAnswer),
        Answerable::Withdrawn | Answerable::Never => Err(Refusal::UnsolicitedAnswer),
    }
}

/// A device in several groups may take as long as the most patient of them allows.
fn longest(settings: &[&Settings], pick: impl Fn(&Settings) -> Duration) -> Duration {
    settings.iter().map(|settings| pick(settings)).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_found_request_is_answered_and_all_else_has_a_name() {
        let head = Head::new(super::super::envelope::Kind::RetMsg);
        let names = [Answerable::Answered, Answerable::Late, Answerable::Never]
            .map(|found| answer(found, &head).map(|_| ()).unwrap_err().name());
        assert_eq!(names, ["duplicate_answer", "late_answer", "unsolicited_answer"]);
    }
}
