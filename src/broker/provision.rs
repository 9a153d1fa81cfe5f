//! The control unit at work: messages on the two RSP topics, and the mail of devices and servers.

use std::sync::Arc;

use bytestring::ByteString;

use super::outbox::Left;
use super::publish::{Publisher, Who};
use super::sessions::{Handle, lock};
use super::{Broker, BrokerEvent, Calls};
use crate::ids::Timestamp;
use crate::log::Shown;
use crate::metrics::{DropReason, RspDelivery, RspDirection, RspExchange, RspMode, RspType};
use crate::mqtt::{Message, Publish, PublishProperties, QoS};
use crate::route::Grant;
use crate::rsp::{
    ControlUnit, Decision, Form, Head, Identity, MessageId, Outcome, ProfileChange, Refusal,
    RspTopic, Submission, envelope,
};
use crate::session::{Delivery, Origin, Refused, Routed, Untold};

impl Broker {
    /// A message on an RSP topic: decided once, by the control unit, for all its receivers.
    pub(super) fn provision(
        &self,
        from: &Publisher<'_>,
        rsp_topic: RspTopic,
        publish: Publish,
    ) -> Routed {
        match self.admit(from, rsp_topic, publish) {
            Ok(()) => Routed::Accepted,
            Err(refusal) => {
                self.note_refusal(&from.who, refusal);
                Routed::Refused(Refused {
                    reason: refusal.reason_code(),
                    name: refusal.name(),
                    untold: self.untold(refusal),
                })
            }
        }
    }

    fn untold(&self, refusal: Refusal) -> Untold {
        if self.options.close_on_identity_violation && refusal.is_identity_violation() {
            Untold::IdentityViolation
        } else {
            Untold::Dropped
        }
    }

    /// Whether a message would be accepted now.
    pub(super) fn judge(
        &self,
        identity: &Identity,
        rsp_topic: RspTopic,
        publish: &Publish,
    ) -> Result<Decision, Refusal> {
        let head = envelope::read(&publish.payload, self.options.scheme)?;
        let submission = submission(identity, rsp_topic, &head, publish);
        lock(&self.control).decide(&submission, self.now())
    }

    fn admit(
        &self,
        from: &Publisher<'_>,
        rsp_topic: RspTopic,
        publish: Publish,
    ) -> Result<(), Refusal> {
        let (identity, payload_len) = (from.who.identity, publish.kept_bytes());
        let head = envelope::read(&publish.payload, self.options.scheme)?;
        let submission = submission(identity, rsp_topic, &head, &publish);
        let now = self.now();
        let mut inbox = match rsp_topic {
            RspTopic::ToSmSr => Some(lock(&self.inbox)),
            RspTopic::ToEuicc => None,
        };
        let mut control = lock(&self.control);
        let decision = control.decide(&submission, now)?;
        // Before anything changes: an answer that cannot be kept must not close its request.
        if inbox.as_ref().is_some_and(|inbox| !inbox.has_room(payload_len, identity.nid)) {
            return Err(Refusal::OverQuota);
        }
        let message = Arc::new(self.stamped(rsp_topic, identity, publish));
        let outcome = control.commit(decision, &message, now);
        drop(control);
        let servers = inbox.as_mut().map(|inbox| inbox.post(&message, identity.nid));
        drop(inbox);
        self.count(&outcome);
        self.sessions.call(&outcome.wake, Calls::MAIL);
        if let Some((wake, full_desks)) = servers {
            (0..full_desks).for_each(|_| self.metrics.dropped(DropReason::InboxFull));
            self.sessions.call(&wake, Calls::MAIL);
        }
        Ok(())
    }

    /// What a server receives carries the proven nid of its sender, and only ours: `[0069]` needs
    /// the server to know, and `{0, gid, ret(…)}` hides it.
    fn stamped(&self, rsp_topic: RspTopic, identity: &Identity, publish: Publish) -> Message {
        let mut message = self.message(publish);
        if let (RspTopic::ToSmSr, Some(nid)) = (rsp_topic, identity.nid) {
            stamp(&mut message, &nid.to_string());
        }
        message
    }

    /// Takes what waits for this session where `calls` says to look: at most `room` messages with
    /// QoS above 0, and about `bytes_max` bytes of the session's own queue.
    pub fn pull(
        &self,
        handle: &Handle,
        calls: Calls,
        room: usize,
        bytes_max: usize,
        batch: &mut Vec<Delivery>,
    ) -> Waiting {
        let mut waiting = Waiting::default();
        if calls.contains(Calls::MAIL) {
            waiting.note(Calls::MAIL, self.pull_mail(handle, room, batch));
        }
        if calls.contains(Calls::QUEUE) {
            let taken = batch.iter().filter(|d| d.qos != QoS::AtMostOnce).count();
            let room = room.saturating_sub(taken);
            waiting.note(Calls::QUEUE, self.pull_queue(handle, room, bytes_max, batch));
        }
        waiting
    }

    fn pull_queue(
        &self,
        handle: &Handle,
        room: usize,
        bytes_max: usize,
        batch: &mut Vec<Delivery>,
    ) -> Left {
        let mut outbox = lock(&handle.outbox);
        let was_congested = outbox.is_congested(&self.options.outbox);
        let left = outbox.take(room, bytes_max, batch);
        if was_congested && !outbox.is_congested(&self.options.outbox) {
            handle.drained.notify_waiters();
        }
        left
    }

    fn pull_mail(&self, handle: &Handle, room: usize, batch: &mut Vec<Delivery>) -> Left {
        let interests = lock(&handle.interests);
        let (mailbox, inbox) = (interests.mailbox, interests.inbox);
        drop(interests);
        let now = self.now();
        let mut left = Left::Nothing;
        if let Some((device, grant)) = mailbox {
            let room = mail_room(grant, room);
            let letters = lock(&self.control).pull(device, handle.key, room, now);
            left = mail_left(grant, room, letters.len());
            batch
                .extend(letters.into_iter().map(|l| mail(l.message, grant, Origin::Mailbox(l.id))));
        }
        // A session is a device's or a server's, never both.
        if let Some(grant) = inbox {
            let room = mail_room(grant, room);
            let letters = lock(&self.inbox).pull(handle.key, room, now);
            left = mail_left(grant, room, letters.len());
            batch.extend(letters.into_iter().map(|(n, m)| mail(m, grant, Origin::Inbox(n))));
        }
        left
    }

    /// The client has the message: whoever kept it forgets it. An E2 that has arrived is a profile
    /// change, and the control unit itself tells the servers `[0098]`.
    pub fn delivered(&self, handle: &Handle, origin: Origin) {
        match origin {
            Origin::Queue => {}
            Origin::Inbox(number) => lock(&self.inbox).acknowledge(handle.key, number),
            Origin::Mailbox(number) => {
                let Some((device, _)) = lock(&handle.interests).mailbox else { return };
                let now = self.now();
                let arrival = lock(&self.control).acknowledge(device, number, now);
                let Some(arrival) = arrival else { return };
                self.metrics.rsp_delivered(mode(arrival.form), now.since(arrival.published));
                if let Some(change) = arrival.change {
                    self.announce(&change);
                }
            }
        }
    }

    /// The client will never have the message: its time is over, or the client takes no packet of
    /// its size. Whoever kept it forgets it, and an E2 is no profile change.
    pub fn discard(&self, handle: &Handle, origin: Origin) {
        match origin {
            Origin::Queue => {}
            Origin::Inbox(number) => lock(&self.inbox).acknowledge(handle.key, number),
            Origin::Mailbox(number) => {
                let Some((device, _)) = lock(&handle.interests).mailbox else { return };
                let discarded = lock(&self.control).discard(device, number);
                if let Some(form) = discarded {
                    self.metrics.rsp_settled(mode(form), RspDelivery::Discarded, 1);
                }
            }
        }
    }

    /// The connection ended before this mail had left for the client. Its session may go on, and
    /// must find it again.
    pub fn put_back(&self, handle: &Handle, unsent: &[Origin]) {
        let (mut letters, mut numbers) = (Vec::new(), Vec::new());
        for origin in unsent {
            match origin {
                Origin::Queue => {}
                Origin::Inbox(number) => numbers.push(*number),
                Origin::Mailbox(id) => letters.push(*id),
            }
        }
        if !numbers.is_empty() {
            let wake = lock(&self.inbox).put_back(handle.key, &numbers);
            self.sessions.call(&wake, Calls::MAIL);
        }
        let mailbox = lock(&handle.interests).mailbox;
        if let (Some((device, _)), false) = (mailbox, letters.is_empty()) {
            lock(&self.control).put_back(device, handle.key, &letters);
        }
    }

    fn announce(&self, change: &ProfileChange) {
        self.metrics.rsp_exchange(RspExchange::Completed, 1);
        let topic = ByteString::from(&*self.options.topics.to_sm_sr);
        let payload = ControlUnit::profile_change_notice(change);
        let qos = QoS::AtLeastOnce;
        let mut message = Message::new(topic, payload, qos, false, None, Timestamp::NEVER);
        stamp(&mut message, CONTROL_UNIT);
        let (wake, _full_desks) = lock(&self.inbox).post(&Arc::new(message), None);
        self.sessions.call(&wake, Calls::MAIL);
    }

    fn count(&self, outcome: &Outcome) {
        let (kind, direction) = metric_labels(outcome.id);
        self.metrics.rsp_message(kind, mode(outcome.form), direction);
        if outcome.id == MessageId::E1 {
            self.metrics.rsp_exchange(RspExchange::Requested, 1);
        }
    }

    /// Counts and logs a refusal. Never the body.
    pub(super) fn note_refusal(&self, who: &Who<'_>, refusal: Refusal) {
        self.metrics.refused(refusal.name());
        let Some(repeats) = self.complain(refusal.name()) else { return };
        let peer = who.peer.map(tracing::field::display);
        tracing::warn!(
            refusal = refusal.name(),
            identity = %Shown(&who.identity.name),
            role = ?who.identity.role,
            client = %Shown(who.client_id),
            peer,
            repeats = repeats.field(),
            "refused: {}",
            refusal.explain()
        );
        self.tell(|| BrokerEvent::Refused {
            client: (*who).into(),
            refusal: refusal.name(),
            explanation: refusal.explain(),
            repeats: repeats.count,
        });
    }
}

fn submission<'a>(
    from: &'a Identity,
    topic: RspTopic,
    head: &'a Head,
    publish: &Publish,
) -> Submission<'a> {
    Submission { from, topic, head, payload_len: publish.kept_bytes(), retain: publish.retain }
}

fn mode(form: Form) -> RspMode {
    match form {
        Form::Single => RspMode::Single,
        Form::Multi => RspMode::Multi,
        Form::Peer => RspMode::Peer,
    }
}

fn metric_labels(id: MessageId) -> (RspType, RspDirection) {
    use RspDirection::{ToEuicc, ToSmSr};
    match id {
        MessageId::A1 => (RspType::Trigger, ToEuicc),
        MessageId::A2 => (RspType::RetTrigger, ToSmSr),
        MessageId::B1 | MessageId::C1 => (RspType::Msg, ToEuicc),
        MessageId::B2 | MessageId::C2 => (RspType::RetMsg, ToSmSr),
        MessageId::D1 => (RspType::Trigger, ToSmSr),
        MessageId::D2 => (RspType::RetTrigger, ToEuicc),
        MessageId::E1 => (RspType::Req, ToEuicc),
        MessageId::E2 => (RspType::Profile, ToEuicc),
    }
}

/// What stands in the stamp of messages that the control unit itself writes.
const CONTROL_UNIT: &str = "control-unit";

/// Name of the user property with the proven sender.
const STAMP: &str = "nid";

/// Letters to fetch at once for a subscriber whose QoS 0 needs no window.
const UNWINDOWED_BATCH: usize = 64;

/// What still waits for a session after a pull.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Where more can be had as soon as there is room for bytes.
    pub more: Calls,
    /// Where more can be had after an acknowledgement of the client.
    pub blocked: Calls,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { more: Calls::NONE, blocked: Calls::NONE }
    }
}

impl Waiting {
    fn note(&mut self, place: Calls, left: Left) {
        match left {
            Left::Nothing => {}
            Left::More => self.more = self.more.with(place),
            Left::Blocked => self.blocked = self.blocked.with(place),
        }
    }
}

/// A full batch may have more behind it: at once where no window counts it, else after the next
/// acknowledgement.
fn mail_left(grant: Grant, room: usize, taken: usize) -> Left {
    match (taken < room, grant.qos) {
        (true, _) => Left::Nothing,
        (false, QoS::AtMostOnce) => Left::More,
        (false, QoS::AtLeastOnce | QoS::ExactlyOnce) => Left::Blocked,
    }
}

fn mail_room(grant: Grant, room: usize) -> usize {
    if grant.qos == QoS::AtMostOnce { UNWINDOWED_BATCH } else { room }
}

fn mail(message: Arc<Message>, grant: Grant, origin: Origin) -> Delivery {
    Delivery {
        qos: message.qos.min(grant.qos),
        retain: false,
        subscription_ids: grant.id.into_iter().collect(),
        origin,
        share: None,
        message,
    }
}

fn stamp(message: &mut Message, sender: &str) {
    let properties = message.properties.get_or_insert_with(Box::<PublishProperties>::default);
    properties.user.retain(|(name, _)| &**name != STAMP);
    properties.user.push((STAMP.into(), sender.into()));
}
