//! The control unit at work: messages on the two RSP topics, and the mail of devices and servers.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use smallvec::smallvec;

use super::keep::{NOTHING, received};
use super::outbox::Left;
use super::publish::{Published, Publisher};
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
    RspTopic, Servers, Submission, Wave, envelope, policy, stamp,
};
use crate::session::{Delivery, Origin, Refused, Routed, Untold};
use crate::store::{Commit, Urgency};

impl Broker {
    /// A message on an RSP topic: decided once, by the control unit, for all its receivers.
    pub(super) fn provision(
        &self,
        from: &Publisher<'_>,
        rsp_topic: RspTopic,
        publish: Publish,
    ) -> Published {
        match self.submit(from, rsp_topic, publish) {
            Ok(commit) => Published { routed: Routed::Accepted, commit, congested: None },
            Err(refusal) => Published::refused(Refused {
                reason: refusal.reason_code(),
                name: refusal.name(),
                retry_after: self.retry_after(from.who.identity, refusal),
                untold: self.untold(refusal),
            }),
        }
    }

    /// The same for who can be told more than a reason code and a name. The message is the
    /// broker's when the store is as far as is said.
    ///
    /// # Errors
    /// The [`Refusal`], counted and logged; then nobody receives the message.
    pub fn submit(
        &self,
        from: &Publisher<'_>,
        rsp_topic: RspTopic,
        publish: Publish,
    ) -> Result<Commit, Refusal> {
        let admitted = self.admit(from, rsp_topic, publish);
        admitted.inspect_err(|refusal| self.note_refusal(&from.who, *refusal))
    }

    fn retry_after(&self, identity: &Identity, refusal: Refusal) -> Option<Duration> {
        let limited = refusal == Refusal::TriggerRate;
        limited.then(|| self.control.look().retry_after(identity, self.now()))
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
        let read = self.read(identity, rsp_topic, publish)?;
        self.control.look().decide(&read.submission(identity, rsp_topic, publish), self.now())
    }

    /// What an envelope says: all that takes time, before any lock is taken. Of one whose sender
    /// may not publish it at all, nothing is read.
    fn read(
        &self,
        identity: &Identity,
        rsp_topic: RspTopic,
        publish: &Publish,
    ) -> Result<Envelope, Refusal> {
        policy::may_publish(identity, publish.retain)?;
        let mut head = envelope::read(&publish.payload, self.options.scheme)?;
        if head.options.wave.is_none() {
            head.options.wave = wave_property(publish)?;
        }
        let mut read = Envelope { head, parts: None, proof: None };
        let submission = read.submission(identity, rsp_topic, publish);
        read.parts = submission.read_parts(&publish.payload, self.options.scheme)?;
        Ok(read)
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
        let is_missing = self.control.look().decide(&submission, now).err();
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
    ) -> Result<Commit, Refusal> {
        let (identity, payload_len) = (from.who.identity, publish.kept_bytes());
        let now = self.now();
        let mut read = self.read(identity, rsp_topic, &publish)?;
        self.look_for_proof(&mut read, identity, rsp_topic, &publish, now);
        let submission = read.submission(identity, rsp_topic, &publish);
        let received = received(&publish);
        let (admitted, commit) =
            self.change_together(rsp_topic == RspTopic::ToSmSr, |inbox, control, step| {
                let decision = control.decide(&submission, now)?;
                let to = addressee(control, &submission, &decision);
                let message = Arc::new(self.stamped(rsp_topic, identity, publish));
                // Before anything changes: an answer that cannot be kept, or given to anyone, must
                // not close its request.
                if let Some(inbox) = inbox.as_deref() {
                    if inbox.is_too_large(&message, &to, now) {
                        return Err(Refusal::TooLarge);
                    }
                    if !inbox.has_room(payload_len, identity.nid, &to, now) {
                        return Err(Refusal::OverQuota);
                    }
                }
                step.receive(from.row, received);
                let (due, outcome) = (control.next_due(), control.commit(decision, &message, now));
                if control.next_due() != due {
                    self.due_changed.notify_one();
                }
                let servers = inbox.filter(|_| outcome.to_servers);
                let posted = servers.map(|inbox| inbox.post(&message, identity.nid, &to, now));
                Ok((outcome, posted, News::of(control)))
            });
        let (outcome, posted, news) = admitted?;
        self.record(news);
        self.count(&outcome);
        self.sessions.call(&outcome.wake, Calls::MAIL);
        posted.iter().for_each(|posted| self.note_posted(posted));
        Ok(commit)
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
            let due = self.control.look().next_due();
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
        let ((wake, posted, news), _nobody_waits) =
            self.change_together(true, |inbox, control, _step| {
                let mut servers = inbox.map(|inbox| AtInbox { inbox, posted: Vec::new(), now });
                let wake = servers.as_mut().map(|servers| control.send_due(now, servers));
                let posted = servers.map(|servers| servers.posted).unwrap_or_default();
                (wake.unwrap_or_default(), posted, News::of(control))
            });
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
            let letters =
                self.change_control(|control| control.pull(device, handle.key, room, now));
            left = mail_left(grant, room, letters.len());
            batch
                .extend(letters.into_iter().map(|l| mail(l.message, grant, Origin::Mailbox(l.id))));
        }
        // A session is a device's or a server's, never both.
        if let Some(grant) = inbox {
            let room = mail_room(grant, room);
            let Handout { messages, wake } =
                self.change_inbox(|inbox| inbox.pull(handle.key, room, now));
            self.sessions.call(&wake, Calls::MAIL);
            left = mail_left(grant, room, messages.len());
            batch.extend(messages.into_iter().map(|(n, m)| mail(m, grant, Origin::Inbox(n))));
        }
        left
    }

    /// The client has the message: whoever kept it forgets it. An E2 that has arrived is a profile
    /// change, and the control unit itself tells the servers `[0098]`.
    ///
    /// With `exactly_once` it must never get it again: it is to be answered when the store is so
    /// far.
    pub fn delivered(&self, handle: &Handle, origin: Origin, exactly_once: bool) -> Commit {
        let urgency = if exactly_once { Urgency::Now } else { Urgency::Lazy };
        match origin {
            Origin::Queue => NOTHING,
            Origin::Inbox(number) => {
                let acknowledge = |inbox: &mut Inbox| inbox.acknowledge(handle.key, number);
                self.inbox.change(&self.keeper, urgency, acknowledge).1
            }
            Origin::Mailbox(number) => {
                let Some((device, _)) = lock(&handle.interests).mailbox else { return NOTHING };
                self.arrived(handle, device, number, urgency)
            }
        }
    }

    fn arrived(&self, handle: &Handle, device: DeviceKey, letter: u64, urgency: Urgency) -> Commit {
        let now = self.now();
        let acknowledge = |control: &mut ControlUnit| {
            let holds = control.holds(device, handle.key, letter);
            let acknowledged = holds.then(|| control.acknowledge(device, letter, now)).flatten();
            (acknowledged, News::of(control))
        };
        let (alone, commit) = self.control.change(&self.keeper, urgency, |control| {
            (!control.is_profile_change(device, letter)).then(|| acknowledge(control))
        });
        let ((acknowledged, news), commit) = match alone {
            Some(acknowledged) => (acknowledged, commit),
            // What the servers are told of it belongs to the same step.
            None => {
                let ((acknowledged, told), commit) =
                    self.change_together(true, |inbox, control, _step| {
                        let acknowledged = acknowledge(control);
                        let change = match &acknowledged.0 {
                            Some(Acknowledged::Arrived(arrival)) => arrival.change,
                            Some(Acknowledged::Piece) | None => None,
                        };
                        let told = inbox.zip(change);
                        let told =
                            told.map(|(inbox, change)| self.announce(inbox, control, change, now));
                        (acknowledged, told)
                    });
                told.iter().for_each(|told| self.note_told(told));
                (acknowledged, commit)
            }
        };
        self.record(news);
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
            }
        }
        commit
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
            Origin::Inbox(number) => {
                self.change_inbox(|inbox| inbox.acknowledge(handle.key, number));
            }
            Origin::Mailbox(number) => {
                let Some((device, _)) = lock(&handle.interests).mailbox else { return };
                let now = self.now();
                let (discarded, news) = self.change_control(|control| {
                    // Another session of the device may have taken over from this one.
                    let holds = control.holds(device, handle.key, number);
                    let discarded = holds.then(|| control.discard(device, number, now)).flatten();
                    (discarded, News::of(control))
                });
                self.record(news);
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
            let wake = self.change_inbox(|inbox| inbox.put_back(handle.key, &numbers));
            self.sessions.call(&wake, Calls::MAIL);
        }
        let mailbox = lock(&handle.interests).mailbox;
        if let (Some((device, _)), false) = (mailbox, letters.is_empty()) {
            self.change_control(|control| control.put_back(device, handle.key, &letters));
        }
    }

    /// Tells the servers of a profile change; where none has room, the sweep tries again.
    pub(super) fn announce(
        &self,
        inbox: &mut Inbox,
        control: &mut ControlUnit,
        change: ProfileChange,
        now: Timestamp,
    ) -> Told {
        let topic = ByteString::from(&*self.options.topics.to_sm_sr);
        let payload = ControlUnit::profile_change_notice(&change);
        let qos = QoS::AtLeastOnce;
        let mut message = Message::new(topic, payload, qos, false, None, Timestamp::NEVER);
        stamp_property(&mut message, CONTROL_UNIT);
        let (message, to) = (Arc::new(message), to_servers_of(change.gid));
        if inbox.has_room(message.kept_bytes(), None, &to, now) {
            return Told::Posted(inbox.post(&message, None, &to, now));
        }
        if control.not_told(change) { Told::Later } else { Told::OlderLost }
    }

    pub(super) fn note_told(&self, told: &Told) {
        match told {
            Told::Posted(posted) => self.note_posted(posted),
            Told::Later => {}
            Told::OlderLost => self.metrics.dropped(DropReason::InboxFull),
        }
    }

    fn count(&self, outcome: &Outcome) {
        let (kind, direction) = metric_labels(outcome.id);
        self.metrics.rsp_message(kind, mode(outcome.form), direction);
    }
}

/// What became of the notice of a profile change.
pub(super) enum Told {
    /// The servers have it.
    Posted(Posted),
    /// They have no room, and it is remembered.
    Later,
    /// An older one is forgotten for it.
    OlderLost,
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

pub(super) fn mail(message: Arc<Message>, grant: Grant, origin: Origin) -> Delivery {
    Delivery {
        kept: None,
        dup: false,
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
