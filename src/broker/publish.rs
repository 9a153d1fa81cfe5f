//! A message is published: who receives it, and what the publisher is told.

use std::sync::Arc;

use smallvec::SmallVec;

use super::keep::{NOTHING, Step, received};
use super::outbox::Pushed;
use super::peer::Peer;
use super::rights::{Author, DENIED, Permit};
use super::sessions::{Handle, lock};
use super::{Broker, Calls, read, write};
use crate::ids::{SessionKey, Timestamp};
use crate::metrics::{AclAction, DropReason};
use crate::mqtt::wire::FIELD_BYTES_MAX;
use crate::mqtt::{Message, Publish, QoS, ReasonCode, topic};
use crate::route::{Grant, Member, Readiness};
use crate::rsp::Identity;
use crate::session::{Delivery, Origin, Refused, Routed, Untold};
use crate::store::Commit;

/// Who publishes.
#[derive(Clone, Debug)]
pub struct Publisher<'a> {
    /// The session, where a client publishes through one.
    pub key: Option<SessionKey>,
    /// The client.
    pub who: Who<'a>,
    /// The session's row in the store, where it outlives its connection.
    pub(super) row: Option<u64>,
    /// What it may do, where there is an ACL.
    pub(super) permit: Option<Arc<Permit>>,
}

/// What became of a message.
#[derive(Debug)]
pub struct Published {
    /// What the publisher is told, not before …
    pub routed: Routed,
    /// … the store is so far.
    pub commit: Commit,
    /// A receiver whose queue is nearly full.
    pub(super) congested: Option<Arc<Handle>>,
}

impl Published {
    pub(super) fn refused(refused: Refused) -> Self {
        Self { routed: Routed::Refused(refused), commit: NOTHING, congested: None }
    }
}

/// A client, as refusals name it in the log.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Proven by the certificate, the password or the listener's rule.
    pub identity: &'a Identity,
    /// What it calls itself.
    pub client_id: &'a str,
    /// Where it is connected from; nowhere when its Will is published.
    pub peer: Option<Peer>,
}

/// The sessions that receive one message; most messages have few.
type Receivers = SmallVec<[Member; 8]>;

/// Which members of a share group come in for what another one had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heirs {
    /// Those who are connected: else it waits where it is.
    Connected,
    /// All: it cannot stay.
    Any,
}

/// A delivery that its receiver will not have.
enum Lost {
    /// It may not read it.
    Denied(Delivery),
    /// Its session ended while the message was on its way.
    Ended(Delivery),
}

impl Broker {
    /// Publishes a message. When this returns, the broker has refused it, or owns it as soon as
    /// the store is as far as it says.
    pub async fn publish(&self, from: &Publisher<'_>, publish: Publish) -> Published {
        let mut published = self.publish_as(AclAction::Publish, from, publish);
        if let Some(congested) = published.congested.take() {
            congested.wait_for_room(self).await;
        }
        published
    }

    /// The same for a message that is counted as `action` where the ACL denies it, without waiting
    /// for slow receivers.
    pub(super) fn publish_as(
        &self,
        action: AclAction,
        from: &Publisher<'_>,
        publish: Publish,
    ) -> Published {
        let rsp_topic = self.options.topics.topic(&publish.topic);
        let is_kept = publish.qos != QoS::AtMostOnce || publish.retain || rsp_topic.is_some();
        if let Some(trouble) = self.keeper.trouble().filter(|_| is_kept) {
            return self.refuse_unkept(trouble.name());
        }
        if let Some(rsp_topic) = rsp_topic {
            return self.provision(from, rsp_topic, publish);
        }
        match self.check_ordinary(action, from, &publish) {
            Ok(()) => self.route(from, publish),
            Err(refused) => Published::refused(refused),
        }
    }

    /// What cannot be written down now is not taken (case D18).
    fn refuse_unkept(&self, name: &'static str) -> Published {
        self.metrics.dropped(DropReason::NotKept);
        let (reason, untold) = (ReasonCode::QuotaExceeded, Untold::NoRoom);
        Published::refused(Refused { reason, name, retry_after: None, untold })
    }

    /// Whether a message to an ordinary topic may be published; counts and logs it if not.
    fn check_ordinary(
        &self,
        action: AclAction,
        from: &Publisher<'_>,
        publish: &Publish,
    ) -> Result<(), Refused> {
        if let Err(refused) = self.check_topic(&publish.topic) {
            self.metrics.dropped(DropReason::NotAuthorized);
            return Err(refused);
        }
        if from.permit.as_ref().is_some_and(|permit| !permit.may_write(&publish.topic)) {
            self.metrics.dropped(DropReason::NotAuthorized);
            self.note_denied(action, &from.who, &publish.topic);
            let untold = self.options.untold_denial;
            let reason = ReasonCode::NotAuthorized;
            return Err(Refused { reason, name: DENIED, retry_after: None, untold });
        }
        if self.options.checks_payload_format && publish.check_payload_format().is_err() {
            self.metrics.dropped(DropReason::PayloadFormat);
            return Err(refused(ReasonCode::PayloadFormatInvalid, NOT_UTF8));
        }
        Ok(())
    }

    /// Whether clients may publish to an ordinary topic of this name.
    pub(super) fn check_topic(&self, name: &str) -> Result<(), Refused> {
        let bridge = self.options.takes_bridge_notifications && is_bridge_state(name);
        if name.starts_with('$') && !bridge {
            return Err(refused(ReasonCode::NotAuthorized, "clients may not publish to $-topics"));
        }
        if topic::depth(name) > self.options.topic_levels_max {
            return Err(refused(ReasonCode::TopicNameInvalid, "too many topic levels"));
        }
        // A mount point stands before what the client wrote.
        if name.len() > FIELD_BYTES_MAX {
            return Err(refused(ReasonCode::TopicNameInvalid, "the topic is too long"));
        }
        Ok(())
    }

    fn route(&self, from: &Publisher<'_>, publish: Publish) -> Published {
        let mut step = self.keeper.step();
        step.receive(from.row, received(&publish));
        let message = Arc::new(self.message(publish));
        if message.retain && !self.retain(from, &message) {
            self.metrics.dropped(DropReason::RetainedFull);
            let (reason, untold) = (ReasonCode::QuotaExceeded, Untold::NoRoom);
            let name = "no room for retained messages";
            return Published::refused(Refused { reason, name, retry_after: None, untold });
        }
        let (receivers, wanted) = self.receivers(from.key, &message.topic);
        let (mut commit, congested) = self.fan_out(&message, &receivers, step);
        if message.retain {
            // The retained message, or that there is none any more, has no receiver.
            commit = commit.max(self.keeper.all());
        }
        let routed = if wanted { Routed::Accepted } else { Routed::NoSubscribers };
        Published { routed, commit, congested }
    }

    /// Keeps a message as the last one of its topic; `false`: there is no room.
    fn retain(&self, from: &Publisher<'_>, message: &Arc<Message>) -> bool {
        let author = from.permit.clone();
        let owner = from.who.client_id;
        let row = if message.payload.is_empty() {
            None
        } else {
            self.keeper.retain(message, owner, author.as_deref())
        };
        let by = Author { permit: author, _kept: row };
        write(&self.retained).keep(message, by, owner, &self.options.retained)
    }

    /// Who gets a message, and whether any subscription matches it at all: that of the publisher
    /// itself, where it has asked not to get its own, does.
    pub(super) fn receivers(&self, from: Option<SessionKey>, topic: &str) -> (Receivers, bool) {
        let (mut receivers, mut wanted) = (Receivers::new(), false);
        let readiness = |key| self.readiness(key, topic);
        let overlap = read(&self.subscriptions).matches(topic, readiness, |member| {
            wanted = true;
            // [MQTT-3.8.3-3]
            if !(member.grant.no_local && Some(member.key) == from) {
                receivers.push(member);
            }
        });
        if overlap {
            receivers.sort_by_key(|member| (member.key, member.share.is_some()));
        }
        (receivers, wanted)
    }

    /// Appends the message to the outbox of every receiver, when all that belongs to its `step` has
    /// been written down. Gives one of those whose outbox is nearly full, for the publisher to wait
    /// for.
    pub(super) fn fan_out(
        &self,
        message: &Arc<Message>,
        receivers: &Receivers,
        mut step: Step<'_>,
    ) -> (Commit, Option<Arc<Handle>>) {
        let merged = self.options.delivers_overlap_once;
        // A share group's message is one of its own, whatever else the session subscribes to.
        let together = |a: &Member, b: &Member| {
            merged && a.key == b.key && a.share.is_none() && b.share.is_none()
        };
        let deliveries = receivers.chunk_by(together);
        let deliveries = deliveries.map(|same| (same[0].key, delivery(message, same)));
        if !self.keeper.is_on() {
            return (NOTHING, self.enqueue_all(deliveries));
        }
        let mut deliveries: Vec<(SessionKey, Delivery)> = deliveries.collect();
        let slots = self.sessions.slots();
        for (key, delivery) in &mut deliveries {
            slots.find(*key).into_iter().for_each(|handle| step.queue(handle, delivery));
        }
        drop(slots);
        let commit = step.commit();
        (commit, self.enqueue_all(deliveries.into_iter()))
    }

    fn enqueue_all(
        &self,
        deliveries: impl Iterator<Item = (SessionKey, Delivery)>,
    ) -> Option<Arc<Handle>> {
        let mut congested = None;
        let mut orphans: Vec<(SessionKey, Lost)> = Vec::new();
        let slots = self.sessions.slots();
        for (key, delivery) in deliveries {
            let Some(handle) = slots.find(key) else {
                orphans.push((key, Lost::Ended(delivery)));
                continue;
            };
            match self.enqueue(handle, delivery) {
                Ok(Some(Pushed::Congested)) if handle.is_online() => congested = Some(handle),
                Ok(Some(Pushed::Full)) => self.metrics.dropped(DropReason::QueueFull),
                Ok(Some(Pushed::First | Pushed::Queued | Pushed::Congested) | None) => {}
                Err(lost) => orphans.push((handle.key, lost)),
            }
        }
        let congested = congested.cloned();
        drop(slots);
        orphans.into_iter().for_each(|(key, lost)| self.pass_on(key, lost));
        congested
    }

    /// What its receiver will not have is for another member of the share group, where there is
    /// one; a publisher may have chosen a member that was just leaving (case Q14).
    fn pass_on(&self, from: SessionKey, lost: Lost) {
        match lost {
            Lost::Denied(delivery) => self.pass_on_denied(from, vec![delivery]),
            // Who is gone has no subscription any more.
            Lost::Ended(delivery) if delivery.share.is_none() => {}
            Lost::Ended(delivery) => self.pass_on_ended(from, vec![delivery]),
        }
    }

    /// What a session that has ended had for its share groups goes to other members.
    pub(super) fn pass_on_ended(&self, from: SessionKey, orphans: Vec<Delivery>) {
        for _ in self.hand_on(from, orphans, Heirs::Any) {
            self.metrics.dropped(DropReason::SessionEnded);
        }
    }

    /// Appends a delivery to a session's queue, unless the client is away and nothing waits for it
    /// with QoS 0.
    fn enqueue(&self, handle: &Handle, delivery: Delivery) -> Result<Option<Pushed>, Lost> {
        if !handle.is_online() && delivery.qos == QoS::AtMostOnce {
            return Ok(None);
        }
        let mut outbox = lock(&handle.outbox);
        if outbox.is_closed() {
            return Err(Lost::Ended(delivery));
        }
        // Under this lock: see `rights`.
        if !handle.may_read(&delivery.message.topic) {
            return Err(Lost::Denied(delivery));
        }
        let pushed = outbox.push(delivery, &self.options.outbox);
        drop(outbox);
        if pushed == Pushed::First {
            handle.signal.raise(Calls::QUEUE);
        }
        Ok(Some(pushed))
    }

    /// Gives messages of share groups, which their receiver will not have, to other members, those
    /// who are connected first. Gives back those for which there is no other member.
    pub(super) fn hand_on(
        &self,
        from: SessionKey,
        orphans: Vec<Delivery>,
        heirs: Heirs,
    ) -> Vec<Delivery> {
        let mut left = Vec::new();
        for orphan in orphans {
            let Some((handle, grant)) = self.other_member(from, &orphan, heirs) else {
                left.push(orphan);
                continue;
            };
            let mut delivery = Delivery {
                kept: None,
                dup: false,
                qos: orphan.message.qos.min(grant.qos),
                subscription_ids: grant.id.into_iter().collect(),
                ..orphan.clone()
            };
            self.keeper.queue(&handle, &mut delivery);
            match self.enqueue(&handle, delivery) {
                // Where it comes from there is room for it.
                Ok(Some(Pushed::Full)) if heirs == Heirs::Connected => left.push(orphan),
                Ok(Some(Pushed::Full)) => self.metrics.dropped(DropReason::QueueFull),
                Ok(_queued_or_not) => {}
                Err(Lost::Denied(_) | Lost::Ended(_)) => left.push(orphan),
            }
        }
        left
    }

    /// Whether anybody else of its share group is connected and may read the message.
    pub(super) fn has_other_member(&self, from: SessionKey, delivery: &Delivery) -> bool {
        self.other_member(from, delivery, Heirs::Connected).is_some()
    }

    fn other_member(
        &self,
        from: SessionKey,
        orphan: &Delivery,
        heirs: Heirs,
    ) -> Option<(Arc<Handle>, Grant)> {
        let share = orphan.share.as_deref()?;
        let readiness = |key| match (self.readiness(key, &orphan.message.topic), heirs) {
            _any if key == from => Readiness::Barred,
            (Readiness::Away, Heirs::Connected) => Readiness::Barred,
            (readiness, _heirs) => readiness,
        };
        loop {
            let member = read(&self.subscriptions).next_of(share, readiness)?;
            let handle = self.sessions.slots().find(member.key).cloned();
            // Who is gone is not named twice: its subscriptions went before it.
            if let Some(handle) = handle {
                return Some((handle, member.grant));
            }
        }
    }

    fn readiness(&self, key: SessionKey, topic: &str) -> Readiness {
        match self.sessions.slots().find(key) {
            Some(handle) if !handle.may_read(topic) => Readiness::Barred,
            // Whose queue is full does not lose what others have room for.
            Some(handle) if handle.is_online() && self.has_room(handle) => Readiness::Ready,
            Some(_away_or_full) => Readiness::Away,
            None => Readiness::Barred,
        }
    }

    fn has_room(&self, handle: &Handle) -> bool {
        lock(&handle.outbox).has_room(&self.options.outbox)
    }

    /// The shared message of a PUBLISH.
    pub(super) fn message(&self, publish: Publish) -> Message {
        let expiry = publish.properties.as_ref().and_then(|p| p.message_expiry_secs);
        let now = self.now();
        let expires = expiry.map_or(Timestamp::NEVER, |secs| {
            now.after(std::time::Duration::from_secs(u64::from(secs)))
        });
        Message::from_publish(publish, expires, now)
    }
}

impl Handle {
    /// Slows a publisher down while this receiver's queue is nearly full. A receiver that does not
    /// read at all fills its queue soon, loses messages by itself and holds nobody up.
    pub(super) async fn wait_for_room(&self, broker: &Broker) {
        let drained = self.drained.notified();
        tokio::pin!(drained);
        drained.as_mut().enable();
        if lock(&self.outbox).is_congested(&broker.options.outbox) {
            let _drained_or_not = tokio::time::timeout(STALL_MAX, drained).await;
        }
    }
}

fn refused(reason: ReasonCode, name: &'static str) -> Refused {
    Refused { reason, name, retry_after: None, untold: Untold::Dropped }
}

/// Where a bridge of mosquitto says whether it is connected.
fn is_bridge_state(name: &str) -> bool {
    topic::matches("$SYS/broker/connection/+/state", name)
}

const NOT_UTF8: &str = "the payload is not the UTF-8 it is said to be";

/// How long one message may wait for a slow receiver.
const STALL_MAX: std::time::Duration = std::time::Duration::from_millis(5);

/// One delivery for all matching subscriptions of a session: the highest QoS `[MQTT-3.3.4-2]`, all
/// subscription identifiers `[MQTT-3.3.4-3]`.
fn delivery(message: &Arc<Message>, members: &[Member]) -> Delivery {
    let granted = members.iter().map(|m| m.grant.qos).max().unwrap_or_default();
    Delivery {
        kept: None,
        dup: false,
        message: Arc::clone(message),
        qos: message.qos.min(granted),
        // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
        retain: message.retain && members.iter().any(|m| m.grant.retain_as_published),
        subscription_ids: members.iter().filter_map(|m| m.grant.id).collect(),
        origin: Origin::Queue,
        share: members[0].share.clone(),
    }
}

/// A retained message for a new subscription `[MQTT-3.3.1-8]`.
pub(super) fn retained_delivery(message: Arc<Message>, grant: Grant) -> Delivery {
    Delivery {
        kept: None,
        dup: false,
        qos: message.qos.min(grant.qos),
        retain: true,
        subscription_ids: grant.id.into_iter().collect(),
        origin: Origin::Queue,
        share: None,
        message,
    }
}
