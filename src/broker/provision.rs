//! The control unit at work: messages on the two RSP topics, and the mail of devices and servers.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use smallvec::smallvec;

use super::outbox::Left;
use super::publish::Publisher;
use super::record::News;
use super::sessions::{Handle, lock};
use super::{Broker, Calls};
use crate::ids::{Gid, Timestamp};
use crate::metrics::{DropReason, RspDelivery, RspDirection, RspMode, RspType};
use crate::mqtt::{Message, Publish, PublishProperties, QoS};
use crate::route::Grant;
use crate::rsp::parts::Parts;
use crate::rsp::proof::{self, Deletion, ProofError};
use crate::rsp::{
    Acknowledged, Addressee, ControlUnit, Decision, DeviceKey, Discarded, ForServers, Form,
    Handout, Head, Identity, Inbox, Kind, MessageId, Outcome, Posted, ProfileChange, Refusal,
    RspTopic, Servers, Submission, Wave, envelope, stamp,
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
        match self.submit(from, rsp_topic, publish) {
            Ok(()) => Routed::Accepted,
            Err(refusal) => Routed::Refused(Refused {
                reason: refusal.reason_code(),
                name: refusal.name(),
                retry_after: self.retry_after(from.who.identity, refusal),
                untold: self.untold(refusal),
            }),
        }
    }

    /// The same for who can be told more than a reason code and a name.
    ///
    /// # Errors
    /// The [`Refusal`], counted and logged; then nobody receives the message.
    pub fn submit(
        &self,
        from: &Publisher<'_>,
        rsp_topic: RspTopic,
        publish: Publish,
    ) -> Result<(), Refusal> {
        let admitted = self.admit(from, rsp_topic, publish);
        admitted.inspect_err(|refusal| self.note_refusal(&from.who, *refusal))
    }

    fn retry_after(&self, identity: &Identity, refusal: Refusal) -> Option<Duration> {
        let limited = refusal == Refusal::TriggerRate;
        limited.then(|| lock(&self.control).retry_after(identity, self.now()))
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
        let read = self.read(rsp_topic, publish)?;
        lock(&self.control).decide(&read.submission(identity, rsp_topic, publish), self.now())
    }

    /// What an envelope says: all that takes time, before any lock is taken.
    fn read(&self, rsp_topic: RspTopic, publish: &Publish) -> Result<Envelope, Refusal> {
        let mut head = envelope::read(&publish.payload, self.options.scheme)?;
        if head.options.has_src && self.options.stamps_member && rsp_topic == RspTopic::ToSmSr {
            return Err(Refusal::SrcReserved);
        }
        if head.options.wave.is_none() {
            head.options.wave = wave_property(publish)?;
        }
        let parts = if head.options.parts {
            let parts = Parts::read(&publish.payload, self.options.scheme);
            Some(Arc::new(parts.map_err(|_unreadable| Refusal::UnreadableParts)?))
        } else {
            None
        };
        Ok(Envelope { head, parts, proof: None })
    }

    /// Verifies the proof in an E2, where one is asked for and all else is as it should be. Takes
    /// longer than anything else, so no lock is held meanwhile.
    fn look_for_proof(
        &self,
        read: &mut Envelope,
        identity: &Identity,
        rsp_topic: RspTopic,
        publish: &Publish,
        now: Timestamp,
    ) {
        let (Kind::Profile(_), Some(nid)) = (read.head.kind, identity.nid) else { return };
        let submission = read.submission(identity, rsp_topic, publish);
        let is_missing = lock(&self.control).decide(&submission, now).err();
        if is_missing == Some(Refusal::ProofMissing) {
            let proof = proof::check(&publish.payload, nid, &self.options.issuers, now);
            if let Err(error) = &proof {
                tracing::debug!(nid = %nid, proof = error.name(), "no proof of deletion: {error}");
            }
            read.proof = Some(proof);
        }
    }

    fn admit(
        &self,
        from: &Publisher<'_>,
        rsp_topic: RspTopic,
        publish: Publish,
    ) -> Result<(), Refusal> {
        let (identity, payload_len) = (from.who.identity, publish.kept_bytes());
        let now = self.now();
        let mut read = self.read(rsp_topic, &publish)?;
        self.look_for_proof(&mut read, identity, rsp_topic, &publish, now);
        let submission = read.submission(identity, rsp_topic, &publish);
        let mut inbox = match rsp_topic {
            RspTopic::ToSmSr => Some(lock(&self.inbox)),
            RspTopic::ToEuicc => None,
        };
        let mut control = lock(&self.control);
        let decision = control.decide(&submission, now)?;
        let to = addressee(&control, &submission, &decision);
        let message = Arc::new(self.stamped(rsp_topic, identity, publish));
        // Before anything changes: an answer that cannot be kept, or given to anyone, must not
        // close its request.
        if let Some(inbox) = inbox.as_deref() {
            if inbox.is_too_large(&message, &to, now) {
                return Err(Refusal::TooLarge);
            }
            if !inbox.has_room(payload_len, identity.nid, &to, now) {
                return Err(Refusal::OverQuota);
            }
        }
        let (due, outcome) = (control.next_due(), control.commit(decision, &message, now));
        let news = News::of(&mut control);
        if control.next_due() != due {
            self.due_changed.notify_one();
        }
        drop(control);
        let servers = inbox.as_mut().filter(|_| outcome.to_servers);
        let posted = servers.map(|inbox| inbox.post(&message, identity.nid, &to, now));
        drop(inbox);
        self.record(news);
        self.count(&outcome);
        self.sessions.call(&outcome.wake, Calls::MAIL);
        posted.iter().for_each(|posted| self.note_posted(posted));
        Ok(())
    }

    fn note_posted(&self, posted: &Posted) {
        (0..posted.full).for_each(|_| self.metrics.dropped(DropReason::InboxFull));
        (0..posted.too_large).for_each(|_| self.metrics.dropped(DropReason::TooLarge));
        self.sessions.call(&posted.wake, Calls::MAIL);
    }

    /// Sends what has waited for others of its kind, whenever it is due. Ends never.
    pub async fn send_when_due(&self) {
        loop {
            let changed = self.due_changed.notified();
            let due = lock(&self.control).next_due();
            match due {
                None => changed.await,
                Some(due) => {
                    let wait = due.since(self.now());
                    let _changed_or_due = tokio::time::timeout(wait, changed).await;
                    self.send_due(self.now());
                }
            }
        }
    }

    fn send_due(&self, now: Timestamp) {
        let mut inbox = lock(&self.inbox);
        let mut control = lock(&self.control);
        let mut servers = AtInbox { inbox: &mut inbox, posted: Vec::new(), now };
        let wake = control.send_due(now, &mut servers);
        let posted = servers.posted;
        let news = News::of(&mut control);
        drop(control);
        drop(inbox);
        self.record(news);
        self.sessions.call(&wake, Calls::MAIL);
        posted.iter().for_each(|posted| self.note_posted(posted));
    }

    /// What a server receives carries the proven nid of its sender, and only ours: `[0069]` needs
    /// the server to know, and `{0, gid, ret(…)}` hides it.
    fn stamped(&self, rsp_topic: RspTopic, identity: &Identity, publish: Publish) -> Message {
        let (RspTopic::ToSmSr, Some(nid)) = (rsp_topic, identity.nid) else {
            return self.message(publish);
        };
        let payload = if self.options.stamps_member {
            stamp::with_src(&publish.payload, nid)
        } else {
            publish.payload.clone()
        };
        let mut message = self.message(Publish { payload, ..publish });
        stamp_property(&mut message, &nid.to_string());
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
            let Handout { messages, wake } = lock(&self.inbox).pull(handle.key, room, now);
            self.sessions.call(&wake, Calls::MAIL);
            left = mail_left(grant, room, messages.len());
            batch.extend(messages.into_iter().map(|(n, m)| mail(m, grant, Origin::Inbox(n))));
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
                let acknowledged = self.settle(handle, device, number, |control| {
                    control.acknowledge(device, number, now)
                });
                match acknowledged {
                    None => {}
                    // The next piece waits.
                    Some(Acknowledged::Piece) => handle.signal.raise(Calls::MAIL),
                    Some(Acknowledged::Arrived(arrival)) => {
                        let took = now.since(arrival.published);
                        self.metrics.rsp_delivered(mode(arrival.form), took);
                        if arrival.in_pieces {
                            handle.signal.raise(Calls::MAIL);
                        }
                        arrival.change.iter().for_each(|change| self.announce(change));
                    }
                }
            }
        }
    }

    /// This client will never have the message. Whoever kept it forgets it, and an E2 is no profile
    /// change. What is only too large for one session of a server waits for another one.
    pub fn discard(&self, handle: &Handle, origin: Origin, reason: DropReason) {
        if let (Origin::Inbox(_), DropReason::TooLarge) = (origin, reason) {
            self.put_back(handle, &[origin]);
            return;
        }
        self.metrics.dropped(reason);
        match origin {
            Origin::Queue => {}
            Origin::Inbox(number) => lock(&self.inbox).acknowledge(handle.key, number),
            Origin::Mailbox(number) => {
                let Some((device, _)) = lock(&handle.interests).mailbox else { return };
                let now = self.now();
                let discarded = self
                    .settle(handle, device, number, |control| control.discard(device, number, now));
                match discarded {
                    Some(Discarded { form, wake }) => {
                        self.metrics.rsp_settled(mode(form), RspDelivery::Discarded, 1);
                        self.sessions.call(&wake, Calls::MAIL);
                    }
                    // A piece is cut anew, for a client that takes less than before.
                    None => handle.signal.raise(Calls::MAIL),
                }
            }
        }
    }

    /// Has the control unit take a letter out of the mail that this session was given. `None`:
    /// another session of the device has taken over from it, and may have been given other pieces.
    fn settle<T>(
        &self,
        handle: &Handle,
        device: DeviceKey,
        letter: u64,
        settle: impl FnOnce(&mut ControlUnit) -> Option<T>,
    ) -> Option<T> {
        let mut control = lock(&self.control);
        if !control.holds(device, handle.key, letter) {
            return None;
        }
        let settled = settle(&mut control);
        let news = News::of(&mut control);
        drop(control);
        self.record(news);
        settled
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

    /// Tells the servers of a profile change; where none has room, the sweep tries again.
    pub(super) fn announce(&self, change: &ProfileChange) {
        let topic = ByteString::from(&*self.options.topics.to_sm_sr);
        let payload = ControlUnit::profile_change_notice(change);
        let qos = QoS::AtLeastOnce;
        let mut message = Message::new(topic, payload, qos, false, None, Timestamp::NEVER);
        stamp_property(&mut message, CONTROL_UNIT);
        let to = to_servers_of(change.gid);
        let (message, now) = (Arc::new(message), self.now());
        let mut inbox = lock(&self.inbox);
        let has_room = inbox.has_room(message.kept_bytes(), None, &to, now);
        let posted = has_room.then(|| inbox.post(&message, None, &to, now));
        drop(inbox);
        match posted {
            Some(posted) => self.note_posted(&posted),
            None if lock(&self.control).not_told(*change) => {}
            None => self.metrics.dropped(DropReason::InboxFull),
        }
    }

    fn count(&self, outcome: &Outcome) {
        let (kind, direction) = metric_labels(outcome.id);
        self.metrics.rsp_message(kind, mode(outcome.form), direction);
    }
}

/// The servers, as the control unit reaches them when something is due.
struct AtInbox<'a> {
    inbox: &'a mut Inbox,
    posted: Vec<Posted>,
    now: Timestamp,
}

impl Servers for AtInbox<'_> {
    fn packet_bytes_max(&self, gid: Gid) -> u32 {
        self.inbox.packet_bytes_max(&to_servers_of(gid))
    }

    /// Each D1 was promised to be heard: what its device has there already does not count.
    fn post(&mut self, ready: &ForServers) -> bool {
        let to = to_servers_of(ready.gid);
        let has_room = self.inbox.has_room(ready.message.kept_bytes(), None, &to, self.now);
        if has_room {
            let message = as_sent_by_control_unit(ready);
            let posted = self.inbox.post_promised(&message, ready.sender, &to, self.now);
            self.posted.push(posted);
        }
        has_room
    }
}

/// A message of a device as it came is stamped already; many in one are from the control unit.
fn as_sent_by_control_unit(ready: &ForServers) -> Arc<Message> {
    if ready.sender.is_some() {
        return Arc::clone(&ready.message);
    }
    let mut message = ready.message.with_payload(ready.message.payload.clone());
    stamp_property(&mut message, CONTROL_UNIT);
    Arc::new(message)
}

fn to_servers_of(gid: Gid) -> Addressee {
    Addressee { asker: None, gids: smallvec![gid] }
}

/// What was read of a message on an RSP topic.
struct Envelope {
    head: Head,
    parts: Option<Arc<Parts>>,
    proof: Option<Result<Deletion, ProofError>>,
}

impl Envelope {
    fn submission<'a>(
        &'a self,
        from: &'a Identity,
        topic: RspTopic,
        publish: &Publish,
    ) -> Submission<'a> {
        let (retain, parts, proof) = (publish.retain, self.parts.as_ref(), self.proof);
        Submission {
            retain,
            parts,
            proof,
            ..Submission::new(from, topic, &self.head, publish.kept_bytes())
        }
    }
}

/// A first wave may stand in a user property: `wave` = `100` or `100;5%`.
fn wave_property(publish: &Publish) -> Result<Option<Wave>, Refusal> {
    let properties = publish.properties.as_ref();
    let wave = properties.and_then(|p| p.user.iter().find(|(name, _)| &**name == "wave"));
    let Some((_, text)) = wave else { return Ok(None) };
    Wave::parse(text).map(Some).ok_or(Refusal::UnreadableEnvelope)
}

/// Which servers a message on `To_SM-SR` is for: the one that asked; else those of the group it
/// speaks for, or of any group of its sender.
fn addressee(control: &ControlUnit, submission: &Submission<'_>, decision: &Decision) -> Addressee {
    let own = submission.from.nid.and_then(|nid| control.registry().device(nid));
    let gids = match submission.head.gid {
        Some(gid) => smallvec![gid],
        None => own.map(|device| device.gids.into()).unwrap_or_default(),
    };
    Addressee { asker: control.asker(decision), gids }
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
pub(super) const CONTROL_UNIT: &str = "control-unit";

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

/// Who sent a message to the servers, as the broker has stamped it: the digits of a proven nid, or
/// another word where the control unit itself did.
#[must_use]
pub fn stamped_sender(message: &Message) -> Option<&str> {
    let user = &message.properties.as_ref()?.user;
    user.iter().find(|(name, _)| &**name == STAMP).map(|(_, sender)| &**sender)
}

fn stamp_property(message: &mut Message, sender: &str) {
    let properties = message.properties.get_or_insert_with(Box::<PublishProperties>::default);
    properties.user.retain(|(name, _)| &**name != STAMP);
    properties.user.push((STAMP.into(), sender.into()));
}
