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
//! sends this type on this topic), options (which members of the envelope belong here), addressing
//! (which of nid and gid are set), registry (who exists), scope (which devices a server speaks
//! with), identity (who the publisher says it is), permission (settings), ledger (what is open),
//! rate, room.
//! So whoever claims to be somebody else learns nothing about anybody. The rules of each of the
//! ten messages are in [`super::rules`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::control::ControlUnit;
use super::envelope::{Head, Kind, Tid, Wave};
use super::exchange::Pair;
use super::identity::{Identity, Role};
use super::options::{RspTopic, TopicNames};
use super::parts::Parts;
use super::proof::{Deletion, ProofError};
use super::refusal::Refusal;
use super::registry::DeviceKey;
use super::request::{Asked, Found};
use super::wishes::Wished;
use crate::ids::{Gid, Nid, NidScheme, Timestamp};

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
    pub kept_bytes: usize,
    /// Its retain flag.
    pub retain: bool,
    /// Where the parts of its body are, if it says that it has some.
    pub parts: Option<&'a Arc<Parts>>,
    /// What its body proves, if that has been looked at: it takes longer than all else, so it is
    /// looked at only when nothing else is wrong.
    pub proof: Option<Result<Deletion, ProofError>>,
}

impl<'a> Submission<'a> {
    /// A message without properties and parts.
    #[must_use]
    pub fn new(from: &'a Identity, topic: RspTopic, head: &'a Head, kept_bytes: usize) -> Self {
        Self { from, topic, head, kept_bytes, retain: false, parts: None, proof: None }
    }

    /// The parts of its body, if its envelope says that it has some. They are looked for only where
    /// they belong.
    ///
    /// # Errors
    /// What is wrong with direction or options, else [`Refusal::UnreadableParts`].
    pub fn read_parts(
        &self,
        payload: &Bytes,
        scheme: NidScheme,
    ) -> Result<Option<Arc<Parts>>, Refusal> {
        if !self.head.options.parts {
            return Ok(None);
        }
        self.step()?;
        let parts = Parts::read(payload, scheme).map_err(|_error| Refusal::UnreadableParts)?;
        Ok(Some(Arc::new(parts)))
    }

    /// Direction and options: what its head says, taken by itself.
    fn step(&self) -> Result<Step, Refusal> {
        let step = step(self.from.role, self.topic, self.head.kind)?;
        check_options(step, self.head)?;
        Ok(step)
    }
}

/// Role and retain: judged first, before anything of the envelope is read.
///
/// # Errors
/// [`Refusal::RoleNotPermitted`] or [`Refusal::RetainNotPermitted`].
pub fn may_publish(from: &Identity, retain: bool) -> Result<(), Refusal> {
    if from.role == Role::Client {
        return Err(Refusal::RoleNotPermitted);
    }
    if retain { Err(Refusal::RetainNotPermitted) } else { Ok(()) }
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

/// What a permitted message does.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// Opens a request to the audience: A1, B1, C1.
    Ask(Ask),
    /// A device asks to be provisioned: D1.
    Wish {
        key: DeviceKey,
        /// In this group's name.
        gid: Option<Gid>,
        tid: Option<Tid>,
        until: Timestamp,
        /// It waits for others of this group, for so long.
        gather: Option<(Gid, Duration)>,
    },
    /// A2, B2, C2.
    Answer {
        found: Found,
        rc: i64,
    },
    /// A B2 that is the report on a profile change.
    Report {
        pair: Pair,
        rc: i64,
    },
    /// D2.
    AnswerWish(Wished),
    OpenExchange {
        pair: Pair,
        gid: Gid,
        ttl: Duration,
        by: DeviceKey,
    },
    AnswerExchange {
        pair: Pair,
        gid: Gid,
        proof: Option<Deletion>,
    },
}

/// What an A1, B1 or C1 is besides its message.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) asked: Asked,
    pub(super) asker: Arc<str>,
    pub(super) tid: Option<Tid>,
    pub(super) name: Option<Box<str>>,
    pub(super) until: Timestamp,
    pub(super) wave: Option<Wave>,
    pub(super) parts: Option<Arc<Parts>>,
    pub(super) chunks: bool,
    pub(super) needs_consent: bool,
    pub(super) reinstate: bool,
    /// It waits for equal messages to other members of this group, for so long.
    pub(super) merge: Option<(Gid, Duration)>,
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
        may_publish(s.from, s.retain)?;
        let head = s.head;
        // A message in parts is as large as its largest letter: the packet itself bounds the sum.
        if s.kept_bytes > self.options.limits.body_bytes_max && !head.options.parts {
            return Err(Refusal::TooLarge);
        }
        let step = s.step()?;
        let decision = match step {
            Step::Server(step) => match one_or_all(head)? {
                Address::One(nid) => self.server_to_device(step, nid, s, now),
                Address::All(gid) => self.server_to_group(step, gid, s, now),
            },
            Step::Device(step) => match (one_or_all(head)?, self.publisher(s.from)?) {
                (Address::One(nid), own) => self.device_alone(step, own, nid, head, now),
                (Address::All(gid), own) => self.device_in_group(step, own, gid, head, now),
            },
            Step::Peer(step, x) => {
                let (nid, gid) = both(head)?;
                let own = self.publisher(s.from)?;
                self.check_exchange(own, nid, gid, x)?;
                self.device_to_device(step, own, (nid, gid), s.proof, now)
            }
        }?;
        self.check_room(&decision, s.kept_bytes)?;
        Ok(decision)
    }

    /// The server that asked for what this message answers.
    #[must_use]
    pub fn asker(&self, decision: &Decision) -> Option<Arc<str>> {
        let Effect::Answer { found, .. } = &decision.effect else { return None };
        self.ledger.request(found.id).map(|request| Arc::clone(&request.asker))
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
}

/// The device that publishes.
#[derive(Clone, Copy)]
pub(super) struct Publisher {
    pub(super) nid: Nid,
    pub(super) key: DeviceKey,
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

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerStep {
    /// A1.
    Trigger,
    /// B1 or C1.
    Msg,
    /// D2.
    WishAnswer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DeviceStep {
    /// A2.
    TriggerAnswer,
    /// B2 or C2.
    MsgAnswer,
    /// D1.
    Wish,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerStep {
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

/// Members of the envelope that mean nothing here would be taken for granted by who wrote them, and
/// `src` would be by servers: on their topic it is the broker's, whether it writes it or not.
fn check_options(step: Step, head: &Head) -> Result<(), Refusal> {
    let options = &head.options;
    if options.has_src && matches!(step, Step::Device(_)) {
        return Err(Refusal::SrcReserved);
    }
    let is_msg = matches!(step, Step::Server(ServerStep::Msg));
    let is_trigger = matches!(step, Step::Server(ServerStep::Trigger));
    let to_group = head.gid.is_some();
    let misplaced = options.parts && !(is_msg && to_group)
        || options.wave.is_some() && !((is_msg || is_trigger) && to_group)
        || options.chunks && !is_msg
        || options.reinstate && (!is_trigger || to_group);
    if misplaced { Err(Refusal::OptionMisplaced) } else { Ok(()) }
}
