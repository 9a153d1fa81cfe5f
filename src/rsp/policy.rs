//! Policy: who may send what to whom, decided once per publish and never per receiver.
//!
//! The rules are the table of ten messages (`[0063]` Tables 1 and 2):
//!
//! | id | from | topic | nid, gid, type | to | needs |
//! |---|---|---|---|---|---|
//! | A1 | server | `To_eUICC` | n,0 or 0,g `trigger` | n or group | |
//! | A2 | device | `To_SM-SR` | self,0 or 0,own g `ret(trigger)` | servers | open A1 |
//! | B1 | server | `To_eUICC` | n,0 `msg` | n | |
//! | B2 | device | `To_SM-SR` | self,0 `ret(msg)` | servers | open B1 or owed report |
//! | C1 | server | `To_eUICC` | 0,g `msg` | group | |
//! | C2 | device | `To_SM-SR` | 0,own g `ret(msg)` | servers | open C1, once per device |
//! | D1 | device | `To_SM-SR` | self,0 or 0,own g `trigger` | servers | |
//! | D2 | server | `To_eUICC` | n,0 or 0,g `ret(trigger)` | n or group | open D1 of this form |
//! | E1 | device nid2 | `To_eUICC` | nid1,g `req(nid2)` | nid1 | both in g |
//! | E2 | device nid1 | `To_eUICC` | nid2,g `profile(nid1)` | nid2 | open E1 |
//!
//! The first broken rule names the refusal, in this order: role, retain, size, direction (who
//! sends this type on this topic), addressing (which of nid and gid are set), registry (who
//! exists), scope (which devices a server speaks with), identity (who the publisher says it is),
//! permission (settings), ledger (what is open), room.
//! So whoever claims to be somebody else learns nothing about anybody.

use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use super::control::ControlUnit;
use super::envelope::{Head, Kind, Tid};
use super::exchange::Pair;
use super::flow::{Answerable, Asked, Found};
use super::identity::{Identity, Role};
use super::refusal::Refusal;
use super::registry::DeviceKey;
use super::settings::{Initiator, Mode, Peer, RspTopic, Settings, TopicNames, Ttl};
use crate::ids::{Gid, Nid, Timestamp};

/// The ten messages of the patent's Table 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the table's, see the module")]
pub enum MessageId {
    A1,
    A2,
    B1,
    B2,
    C1,
    C2,
    D1,
    D2,
    E1,
    E2,
}

impl MessageId {
    /// All ten.
    pub const ALL: &'static [Self] = &[
        Self::A1,
        Self::A2,
        Self::B1,
        Self::B2,
        Self::C1,
        Self::C2,
        Self::D1,
        Self::D2,
        Self::E1,
        Self::E2,
    ];

    /// The name in metrics and audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::A1 => "A1",
            Self::A2 => "A2",
            Self::B1 => "B1",
            Self::B2 => "B2",
            Self::C1 => "C1",
            Self::C2 => "C2",
            Self::D1 => "D1",
            Self::D2 => "D2",
            Self::E1 => "E1",
            Self::E2 => "E2",
        }
    }
}

/// Which numbers a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// {nid, 0}: single mode.
    Single,
    /// {0, gid}: multi mode.
    Multi,
    /// {nid, gid}: an exchange between two devices.
    Peer,
}

impl Form {
    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Multi => "multi",
            Self::Peer => "peer",
        }
    }
}

/// Who a message is for, and nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// One device.
    Device(Nid),
    /// The members of a group at the time of publication.
    Group(Gid),
    /// All servers that subscribe to `To_SM-SR`.
    Servers,
}

/// A message someone wants to publish on one of the two topics.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// The authenticated publisher.
    pub from: &'a Identity,
    /// Where.
    pub topic: RspTopic,
    /// The head of its envelope.
    pub head: &'a Head,
    /// Bytes of its payload, and of its properties where it has some: both are kept.
    pub payload_len: usize,
    /// Its retain flag.
    pub retain: bool,
}

/// A permitted message: what it is, who gets it, and what it does to the ledger.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Which of the ten messages it is.
    pub id: MessageId,
    /// Who gets it.
    pub audience: Audience,
    /// Single, multi or peer.
    pub form: Form,
    pub(super) effect: Effect,
}

/// What a permitted message does to the ledger.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// Opens a request to the audience.
    Ask {
        asked: Asked,
        tid: Option<Tid>,
        ttl: Ttl,
    },
    /// Opens a D1 by this device, in its own name or in its group's.
    Wish {
        by: Nid,
        group: Option<Gid>,
        tid: Option<Tid>,
        ttl: Ttl,
    },
    Answer(Found),
    OpenExchange {
        pair: Pair,
        gid: Gid,
        ttl: Ttl,
    },
    AnswerExchange {
        pair: Pair,
        gid: Gid,
    },
}

/// What a subscription is to the control unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription<'a> {
    /// Nothing of its concern: the topic tree's.
    Ordinary,
    /// A device opens its mailbox.
    Mailbox,
    /// A server listens, alone or as part of a `$share` group.
    Servers {
        /// Name of the `$share` group.
        group: Option<&'a str>,
    },
    /// Not permitted.
    Refused(Refusal),
}

impl ControlUnit {
    /// Whether a message may be published, and who gets it. Pure: only [`ControlUnit::commit`]
    /// changes anything. A Will is decided upon in the same way when its client connects.
    ///
    /// # Errors
    /// The [`Refusal`] names the first rule that is broken; see the module for their order.
    pub fn decide(&self, s: &Submission<'_>, now: Timestamp) -> Result<Decision, Refusal> {
        if s.from.role == Role::Client {
            return Err(Refusal::RoleNotPermitted);
        }
        if s.retain {
            return Err(Refusal::RetainNotPermitted);
        }
        if s.payload_len > self.options.limits.body_bytes_max {
            return Err(Refusal::TooLarge);
        }
        let head = s.head;
        let decision = match step(s.from.role, s.topic, head.kind)? {
            Step::Server(step) => match one_or_all(head)? {
                Address::One(nid) => self.server_to_device(step, s.from, nid, head, now),
                Address::All(gid) => self.server_to_group(step, s.from, gid, head, now),
            },
            Step::Device(step) => match (one_or_all(head)?, self.publisher(s.from)?) {
                (Address::One(nid), own) => self.device_alone(step, own, nid, head, now),
                (Address::All(gid), own) => self.device_in_group(step, own, gid, head, now),
            },
            Step::Peer(step, x) => {
                let (nid, gid) = both(head)?;
                let own = self.publisher(s.from)?;
                self.check_exchange(own, nid, gid, x)?;
                self.device_to_device(step, own.nid, nid, gid, now)
            }
        }?;
        self.check_room(&decision, s.payload_len)?;
        Ok(decision)
    }

    /// What a subscription means, by its filter as sent (`$share/…` included). Wildcards never
    /// match the two topics, so that a filter with wildcards is ordinary.
    #[must_use]
    pub fn may_subscribe<'a>(
        identity: &Identity,
        filter: &'a str,
        topics: &TopicNames,
    ) -> Subscription<'a> {
        let shared = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
        let (group, topic) = match shared {
            Some((group, topic)) => (Some(group), topic),
            None => (None, filter),
        };
        let Some(topic) = topics.topic(topic) else { return Subscription::Ordinary };
        match (identity.role, topic) {
            (Role::Client, _) => Subscription::Refused(Refusal::RoleNotPermitted),
            (Role::Device, RspTopic::ToEuicc) if group.is_none() => Subscription::Mailbox,
            (Role::Server, RspTopic::ToSmSr) => Subscription::Servers { group },
            (Role::Device | Role::Server, _) => {
                Subscription::Refused(Refusal::SubscriptionNotPermitted)
            }
        }
    }

    /// A1, B1 and D2 to one device.
    fn server_to_device(
        &self,
        step: ServerStep,
        from: &Identity,
        nid: Nid,
        head: &Head,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        let key = self.registry.key(nid).ok_or(Refusal::UnknownNid)?;
        self.check_scope(from, self.registry.gids(key))?;
        let settings = self.settings_of_device(key);
        if settings.iter().any(|settings| settings.mode == Mode::Multi) {
            return Err(Refusal::ModeNotPermitted);
        }
        let (tid, ttl) = (head.tid.clone(), longest(&settings));
        let (id, effect) = match step {
            ServerStep::Trigger => {
                let devices_begin = settings.iter().any(|s| s.initiator == Initiator::Client);
                if devices_begin && !self.has_wished(key, now) {
                    return Err(Refusal::InitiatorNotPermitted);
                }
                (MessageId::A1, Effect::Ask { asked: Asked::Trigger, tid, ttl })
            }
            ServerStep::Msg => (MessageId::B1, Effect::Ask { asked: Asked::Msg, tid, ttl }),
            ServerStep::WishAnswer => {
                let found = self.ledger.find(key.index, Asked::Wish, head.tid.as_ref(), now);
                (MessageId::D2, Effect::Answer(found.ok_or(Refusal::UnsolicitedAnswer)?))
            }
        };
        Ok(Decision { id, audience: Audience::Device(nid), form: Form::Single, effect })
    }

    /// A1, C1 and D2 to a group.
    fn server_to_group(
        &self,
        step: ServerStep,
        from: &Identity,
        gid: Gid,
        head: &Head,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        self.registry.members(gid).ok_or(Refusal::UnknownGid)?;
        self.check_scope(from, &[gid])?;
        let settings = self.settings_of_group(gid);
        if settings.mode == Mode::Single {
            return Err(Refusal::ModeNotPermitted);
        }
        let (tid, ttl) = (head.tid.clone(), settings.ttl);
        let (id, effect) = match step {
            ServerStep::Trigger => {
                let devices_begin = settings.initiator == Initiator::Client;
                if devices_begin && !self.ledger.is_wished(gid, None, now) {
                    return Err(Refusal::InitiatorNotPermitted);
                }
                (MessageId::A1, Effect::Ask { asked: Asked::Trigger, tid, ttl })
            }
            ServerStep::Msg => (MessageId::C1, Effect::Ask { asked: Asked::Msg, tid, ttl }),
            ServerStep::WishAnswer => {
                let found = self.ledger.find_wish(gid, head.tid.as_ref(), now);
                (MessageId::D2, Effect::Answer(found.ok_or(Refusal::UnsolicitedAnswer)?))
            }
        };
        Ok(Decision { id, audience: Audience::Group(gid), form: Form::Multi, effect })
    }

    /// Whether a server speaks with the devices of these groups.
    fn check_scope(&self, from: &Identity, gids: &[Gid]) -> Result<(), Refusal> {
        let covered = self.options.scopes.of(&from.name).covers(gids);
        if covered { Ok(()) } else { Err(Refusal::OutOfScope) }
    }

    /// A2, B2 and D1 in a device's own name.
    fn device_alone(
        &self,
        step: DeviceStep,
        own: Publisher,
        nid: Nid,
        head: &Head,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        let Publisher { nid: own, key } = own;
        if nid != own {
            return Err(Refusal::SpoofedNid);
        }
        let (id, effect) = match step {
            DeviceStep::TriggerAnswer => {
                let found = self.find_trigger(key, None, head, now);
                (MessageId::A2, Effect::Answer(found.ok_or(Refusal::UnsolicitedAnswer)?))
            }
            DeviceStep::MsgAnswer => {
                let find = |asked| self.ledger.find(key.index, asked, head.tid.as_ref(), now);
                let found = find(Asked::Msg).or_else(|| find(Asked::Report));
                (MessageId::B2, Effect::Answer(found.ok_or(Refusal::UnsolicitedAnswer)?))
            }
            DeviceStep::Wish => {
                let settings = self.settings_of_device(key);
                if settings.iter().any(|settings| settings.initiator == Initiator::Server) {
                    return Err(Refusal::InitiatorNotPermitted);
                }
                let (tid, ttl) = (head.tid.clone(), longest(&settings));
                (MessageId::D1, Effect::Wish { by: own, group: None, tid, ttl })
            }
        };
        Ok(Decision { id, audience: Audience::Servers, form: Form::Single, effect })
    }

    /// A2, C2 and D1 in the name of one of the device's groups.
    fn device_in_group(
        &self,
        step: DeviceStep,
        own: Publisher,
        gid: Gid,
        head: &Head,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        let Publisher { nid: own, key } = own;
        if !self.registry.belongs(key, gid) {
            return Err(Refusal::ForeignGid);
        }
        let (id, effect) = match step {
            DeviceStep::TriggerAnswer => {
                let found = self.find_trigger(key, Some(gid), head, now);
                (MessageId::A2, Effect::Answer(found.ok_or(Refusal::UnsolicitedAnswer)?))
            }
            DeviceStep::MsgAnswer => {
                let tid = head.tid.as_ref();
                let found = match self.ledger.find_group(gid, key.index, Asked::Msg, tid, now) {
                    Answerable::Open(found) => found,
                    Answerable::Answered => return Err(Refusal::DuplicateAnswer),
                    Answerable::Never => return Err(Refusal::UnsolicitedAnswer),
                };
                (MessageId::C2, Effect::Answer(found))
            }
            DeviceStep::Wish => {
                let settings = self.settings_of_group(gid);
                if settings.initiator == Initiator::Server {
                    return Err(Refusal::InitiatorNotPermitted);
                }
                let (tid, ttl) = (head.tid.clone(), settings.ttl);
                (MessageId::D1, Effect::Wish { by: own, group: Some(gid), tid, ttl })
            }
        };
        Ok(Decision { id, audience: Audience::Servers, form: Form::Multi, effect })
    }

    /// The device that publishes.
    fn publisher(&self, from: &Identity) -> Result<Publisher, Refusal> {
        let nid = from.nid.ok_or(Refusal::NotRegistered)?;
        let key = self.registry.key(nid).ok_or(Refusal::NotRegistered)?;
        Ok(Publisher { nid, key })
    }

    /// Registry and identity of E1 and E2.
    fn check_exchange(&self, own: Publisher, other: Nid, gid: Gid, x: Nid) -> Result<(), Refusal> {
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
        Ok(())
    }

    /// E1 and E2, after [`Self::check_exchange`].
    fn device_to_device(
        &self,
        step: PeerStep,
        own: Nid,
        other: Nid,
        gid: Gid,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        let (id, effect) = match step {
            PeerStep::Request => {
                let settings = self.settings_of_group(gid);
                let may = match settings.peer {
                    Peer::Client => true,
                    Peer::ServerTriggered => self.is_triggered(own, now),
                    Peer::Off => false,
                };
                if !may {
                    return Err(Refusal::PeerNotPermitted);
                }
                let pair = Pair { from: other, to: own };
                self.exchanges.may_open(pair, now)?;
                (MessageId::E1, Effect::OpenExchange { pair, gid, ttl: settings.ttl })
            }
            PeerStep::Profile => {
                let pair = Pair { from: own, to: other };
                self.exchanges.may_answer(pair, gid, now)?;
                (MessageId::E2, Effect::AnswerExchange { pair, gid })
            }
        };
        Ok(Decision { id, audience: Audience::Device(other), form: Form::Peer, effect })
    }

    fn check_room(&self, decision: &Decision, bytes: usize) -> Result<(), Refusal> {
        let has_room = match decision.audience {
            Audience::Device(nid) => {
                let key = self.registry.key(nid).ok_or(Refusal::UnknownNid)?;
                self.mail.has_room(key.index, bytes, decision.form)
            }
            Audience::Group(gid) => self.mail.has_group_room(gid, bytes),
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
    ) -> Option<Found> {
        let tid = head.tid.as_ref();
        let own = self.ledger.find(key.index, Asked::Trigger, tid, now);
        let of_group =
            |gid: &Gid| match self.ledger.find_group(*gid, key.index, Asked::Trigger, tid, now) {
                Answerable::Open(found) => Some(found),
                Answerable::Answered | Answerable::Never => None,
            };
        let found: SmallVec<[Found; 2]> = match group {
            Some(gid) => of_group(&gid).into_iter().chain(own).collect(),
            None => {
                let gids = self.registry.gids(key);
                own.into_iter().chain(gids.iter().filter_map(of_group)).collect()
            }
        };
        found.iter().find(|found| found.by_tid).or(found.first()).copied()
    }

    /// Whether the device has asked to be provisioned, in its own name or in a group's.
    fn has_wished(&self, key: DeviceKey, now: Timestamp) -> bool {
        let by = Some(key.index);
        self.ledger.is_standing(key.index, Asked::Wish, now)
            || self.registry.gids(key).iter().any(|gid| self.ledger.is_wished(*gid, by, now))
    }

    /// Whether a server has triggered the device, alone or with one of its groups.
    fn is_triggered(&self, nid: Nid, now: Timestamp) -> bool {
        let Some(key) = self.registry.key(nid) else { return false };
        let with_group = |gid: &Gid| self.ledger.is_group_triggered(*gid, key.index, now);
        self.ledger.is_standing(key.index, Asked::Trigger, now)
            || self.registry.gids(key).iter().any(with_group)
    }

    pub(super) fn settings_of_group(&self, gid: Gid) -> Settings {
        let global = self.options.settings;
        self.options.groups.get(&gid).map_or(global, |group| global.with(group))
    }

    /// The settings of each of its groups; the global ones for a device without groups.
    fn settings_of_device(&self, key: DeviceKey) -> SmallVec<[Settings; 1]> {
        match self.registry.gids(key) {
            [] => smallvec![self.options.settings],
            gids => gids.iter().map(|gid| self.settings_of_group(*gid)).collect(),
        }
    }
}

#[derive(Clone, Copy)]
struct Publisher {
    nid: Nid,
    key: DeviceKey,
}

/// What a type means on its topic, before its form is known.
#[derive(Clone, Copy)]
enum Step {
    /// A server's, on `To_eUICC`.
    Server(ServerStep),
    /// A device's, on `To_SM-SR`.
    Device(DeviceStep),
    /// A device's, on `To_eUICC`, with the nid it gives as its own.
    Peer(PeerStep, Nid),
}

#[derive(Clone, Copy)]
enum ServerStep {
    /// A1.
    Trigger,
    /// B1 or C1.
    Msg,
    /// D2.
    WishAnswer,
}

#[derive(Clone, Copy)]
enum DeviceStep {
    /// A2.
    TriggerAnswer,
    /// B2 or C2.
    MsgAnswer,
    /// D1.
    Wish,
}

#[derive(Clone, Copy)]
enum PeerStep {
    /// E1.
    Request,
    /// E2.
    Profile,
}

enum Address {
    One(Nid),
    All(Gid),
}

/// Direction: a type that the other side sends on this topic is an intrusion into its role; one
/// that belongs on the other topic is merely misplaced.
fn step(role: Role, topic: RspTopic, kind: Kind) -> Result<Step, Refusal> {
    use Kind::{Msg, Profile, Req, RetMsg, RetTrigger, Trigger};
    match (role, topic) {
        (Role::Server, RspTopic::ToEuicc) => match kind {
            Trigger => Ok(Step::Server(ServerStep::Trigger)),
            Msg => Ok(Step::Server(ServerStep::Msg)),
            RetTrigger => Ok(Step::Server(ServerStep::WishAnswer)),
            RetMsg | Req(_) | Profile(_) => Err(Refusal::DeviceTypeFromServer),
        },
        (Role::Server, RspTopic::ToSmSr) => match kind {
            Msg => Err(Refusal::WrongTopic),
            Trigger | RetTrigger | RetMsg | Req(_) | Profile(_) => {
                Err(Refusal::DeviceTypeFromServer)
            }
        },
        (Role::Device, RspTopic::ToEuicc) => match kind {
            Req(x) => Ok(Step::Peer(PeerStep::Request, x)),
            Profile(x) => Ok(Step::Peer(PeerStep::Profile, x)),
            RetMsg => Err(Refusal::WrongTopic),
            Trigger | Msg | RetTrigger => Err(Refusal::ServerTypeFromDevice),
        },
        (Role::Device, RspTopic::ToSmSr) => match kind {
            Trigger => Ok(Step::Device(DeviceStep::Wish)),
            RetTrigger => Ok(Step::Device(DeviceStep::TriggerAnswer)),
            RetMsg => Ok(Step::Device(DeviceStep::MsgAnswer)),
            Msg => Err(Refusal::ServerTypeFromDevice),
            Req(_) | Profile(_) => Err(Refusal::WrongTopic),
        },
        (Role::Client, _) => Err(Refusal::RoleNotPermitted),
    }
}

/// Addressing of everything but an exchange: one device or one group.
fn one_or_all(head: &Head) -> Result<Address, Refusal> {
    match (head.nid, head.gid) {
        (Some(nid), None) => Ok(Address::One(nid)),
        (None, Some(gid)) => Ok(Address::All(gid)),
        (None, None) => Err(Refusal::BothZero),
        (Some(_), Some(_)) => Err(Refusal::BothNonzero),
    }
}

/// Addressing of an exchange: the other device and the common group.
fn both(head: &Head) -> Result<(Nid, Gid), Refusal> {
    match (head.nid, head.gid) {
        (Some(nid), Some(gid)) => Ok((nid, gid)),
        (None, None) => Err(Refusal::BothZero),
        (None, Some(_)) | (Some(_), None) => Err(Refusal::ExchangeNeedsBoth),
    }
}

/// A device in several groups may take as long as the most patient of them allows.
fn longest(settings: &[Settings]) -> Ttl {
    let longest = |pick: fn(&Ttl) -> Duration| {
        settings.iter().map(|settings| pick(&settings.ttl)).max().unwrap_or_default()
    };
    Ttl {
        trigger: longest(|ttl| ttl.trigger),
        msg: longest(|ttl| ttl.msg),
        exchange: longest(|ttl| ttl.exchange),
    }
}
