//! Connections come and go: new sessions, resumed ones, take-over, the end.

use std::sync::Arc;
use std::time::Duration;

use super::publish::{Heirs, Who};
use super::rights::{AclSlot, Permit};
use super::sessions::{Claim, Handle, TooManySessions, lock};
use super::{Broker, Calls, write};
use crate::ids::{ClientId, SessionKey, Timestamp};
use crate::log::Shown;
use crate::metrics::AclAction;
use crate::mqtt::{Publish, ReasonCode, Will, topic};
use crate::rsp::{Identity, Refusal};
use crate::session::{Delivery, Opening, Origin, Session};

/// A connection with its session.
#[derive(Debug)]
pub struct Attached {
    /// What the broker holds of the session.
    pub handle: Arc<Handle>,
    /// The state machine, owned by the connection from here on.
    pub session: Box<Session>,
    /// The session existed before `[MQTT-3.2.2-2]`.
    pub present: bool,
    /// Another connection of this client was there, and was sent away.
    pub took_over: bool,
}

/// Why a client gets no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The client id belongs to somebody else: no other identity inherits a session.
    #[error("the client id is in use by another identity")]
    OtherIdentity,
    /// `limits.max_sessions`
    #[error("too many sessions")]
    TooManySessions,
    /// The former connection of this client did not let go in time.
    #[error("the former connection of this client is still busy")]
    StillBusy,
    /// The Will would break a rule of the control unit.
    #[error("the Will is not permitted: {}", .0.name())]
    Will(Refusal),
    /// The Will names a topic that clients may not publish to, or one too deep.
    #[error("the Will topic is not permitted")]
    WillTopic,
    /// The ACL does not let the client publish its Will.
    #[error("the Will is not permitted by the ACL")]
    WillDenied,
    /// The disk cannot be written, and too much waits for it.
    #[error("the store cannot be written")]
    NotKept,
    /// `[mqtt] check_payload_format`
    #[error("the Will is not the UTF-8 it is said to be")]
    WillPayload,
}

impl Rejected {
    /// What the CONNACK says.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::OtherIdentity => ReasonCode::ClientIdentifierNotValid,
            Self::TooManySessions => ReasonCode::QuotaExceeded,
            Self::StillBusy => ReasonCode::ServerBusy,
            Self::NotKept => ReasonCode::ServerUnavailable,
            Self::Will(refusal) => refusal.reason_code(),
            Self::WillTopic => ReasonCode::TopicNameInvalid,
            Self::WillDenied => ReasonCode::NotAuthorized,
            Self::WillPayload => ReasonCode::PayloadFormatInvalid,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// In the course of things: what remains of the session decides, and its Will is published
    /// unless the client has withdrawn it.
    Ended,
    /// The broker itself shuts down: nobody is left to read a Will.
    Shutdown,
}

impl Broker {
    /// Gives a connection its session: a new one, or the one this client left behind. Its rights
    /// are those of the ACL of its listener.
    ///
    /// # Errors
    /// [`Rejected`] says why there is none.
    pub async fn attach(
        &self,
        who: &Who<'_>,
        opening: &Opening,
        acl: Option<&Arc<AclSlot>>,
    ) -> Result<Attached, Rejected> {
        let permit = acl.map(|acl| Arc::new(Permit::new(acl, who)));
        if let Some(will) = &opening.will {
            self.check_will(who, permit.as_deref(), will)?;
        }
        if !opening.expiry.is_zero() && self.keeper.is_swamped() {
            return Err(Rejected::NotKept);
        }
        let identity = who.identity;
        let client_id = ClientId::from(&*opening.client_id);
        let mut took_over = false;
        loop {
            let Some(handle) = self.sessions.of_client(&client_id) else {
                match self.sessions.create(&client_id, identity, opening.mount_point.as_ref()) {
                    Ok(Some(handle)) => {
                        let attached = self.fresh(handle, who, opening, permit);
                        return Ok(Attached { took_over, ..attached });
                    }
                    Ok(None) => continue,
                    Err(TooManySessions) if self.evict_for(identity) => continue,
                    Err(TooManySessions) => return Err(Rejected::TooManySessions),
                }
            };
            if handle.identity != *identity {
                return Err(Rejected::OtherIdentity);
            }
            took_over |= handle.is_online();
            let claim =
                tokio::time::timeout(TAKEOVER_PATIENCE, handle.claim(Calls::TAKEOVER)).await;
            let claim = claim.map_err(|_| Rejected::StillBusy)?;
            let Some((session, until)) = claim else {
                // Who ends it may need this thread for that.
                tokio::task::yield_now().await;
                continue;
            };
            lock(&self.expirations).remove(until, handle.key);
            // Under another mount point it would be given topics that it cannot name there.
            let moved = handle.mount_point != opening.mount_point;
            if opening.clean_start || moved || self.is_bereft(&handle) {
                // [MQTT-3.1.4-4]: clean start ends the old session.
                self.end(&handle, session);
                continue;
            }
            *lock(&handle.peer) = who.peer;
            handle.note_opened(opening, self.now());
            // [MQTT-3.1.3-9]: the client is back before its Will was due.
            let _withdrawn = lock(&self.wills).take(handle.key);
            let attached = self.resume(handle, session, opening, permit);
            return Ok(Attached { took_over, ..attached });
        }
    }

    /// A connection is over. Publishes the Will where one is due, and parks or ends the session.
    pub fn detach(&self, handle: &Arc<Handle>, mut session: Box<Session>, parting: Parting) {
        let will = session.close();
        if let (Some(will), Parting::Ended) = (will, parting) {
            *lock(&handle.peer) = None;
            // [MQTT-3.1.3-9]: at the end of the session at the latest.
            let delay = Duration::from_secs(will.delay_secs.into()).min(session.expiry());
            if delay.is_zero() {
                let _nobody_waits = self.publish_will(handle, *will);
            } else {
                let due = self.now().after(delay + CLOCK_GRAIN);
                let kept = self.keeper.will(handle, due, &will);
                lock(&self.wills).put(handle.key, due, will, kept);
            }
        }
        if session.expiry().is_zero() {
            self.end(handle, session);
            return;
        }
        lock(&handle.outbox).drop_at_most_once();
        if lock(&handle.interests).inbox.is_some() {
            let wake = self.change_inbox(|inbox| inbox.away(handle.key));
            self.sessions.call(&wake, super::Calls::MAIL);
        }
        self.hand_on_from_absent(handle, &mut session);
        let until = self.now().after(session.expiry().saturating_add(CLOCK_GRAIN));
        self.keeper.session(handle, &session, Some(until));
        lock(&self.expirations).insert(until, handle.key, &handle.identity);
        handle.park(session, until);
    }

    /// Whether the Will would be accepted if it were published now.
    fn check_will(
        &self,
        who: &Who<'_>,
        permit: Option<&Permit>,
        will: &Will,
    ) -> Result<(), Rejected> {
        if self.options.checks_payload_format && will.check_payload_format().is_err() {
            return Err(Rejected::WillPayload);
        }
        let Some(rsp_topic) = self.options.topics.topic(&will.topic) else {
            self.check_topic(&will.topic).map_err(|_refused| Rejected::WillTopic)?;
            // case S5
            if permit.is_some_and(|permit| !permit.may_write(&will.topic)) {
                self.note_denied(AclAction::Will, who, &will.topic);
                return Err(Rejected::WillDenied);
            }
            return Ok(());
        };
        match self.judge(who.identity, rsp_topic, &will_message(will.clone())) {
            Ok(_decision) => Ok(()),
            Err(refusal) => {
                self.note_refusal(who, refusal);
                Err(Rejected::Will(refusal))
            }
        }
    }

    fn fresh(
        &self,
        handle: Arc<Handle>,
        who: &Who<'_>,
        opening: &Opening,
        permit: Option<Arc<Permit>>,
    ) -> Attached {
        *lock(&handle.peer) = who.peer;
        handle.note_opened(opening, self.now());
        handle.permit.store(permit);
        let session = Box::new(Session::new(opening, &self.options.session, self.now()));
        self.keeper.session(&handle, &session, None);
        Attached { handle, session, present: false, took_over: false }
    }

    fn resume(
        &self,
        handle: Arc<Handle>,
        mut session: Box<Session>,
        opening: &Opening,
        permit: Option<Arc<Permit>>,
    ) -> Attached {
        // The client may have come through another listener than last time.
        handle.permit.store(permit);
        self.apply_rights(&handle);
        let denied = session.take_shared(|delivery| !handle.is_permitted(&delivery.message.topic));
        self.pass_on_denied(handle.key, denied);
        session.open(opening, self.now());
        self.keeper.session(&handle, &session, None);
        let interests = lock(&handle.interests);
        let (mailbox, inbox) = (interests.mailbox, interests.inbox);
        drop(interests);
        if let Some((device, _)) = mailbox {
            self.change_control(|control| control.resize(device, handle.reader()));
        }
        if inbox.is_some() {
            self.change_inbox(|inbox| inbox.resize(handle.reader()));
        }
        // Mail belongs to the device: what another session of the device took over meanwhile is
        // not sent twice. And what the client may no longer read is not sent again (case S7).
        session.retain_in_flight(|delivery| {
            self.still_holds(&handle, delivery.origin) && self.may_send_again(&handle, delivery)
        });
        handle.signal.raise(Calls::QUEUE);
        handle.signal.raise(Calls::MAIL);
        Attached { handle, session, present: true, took_over: false }
    }

    /// Its mailbox went with its device, and did not come back with it. Told that there was no
    /// session, the client subscribes again and gets an answer.
    fn is_bereft(&self, handle: &Handle) -> bool {
        let mailbox = lock(&handle.interests).mailbox;
        mailbox.is_some_and(|(device, _)| self.control.look().registry().nid(device).is_none())
    }

    fn still_holds(&self, handle: &Handle, origin: Origin) -> bool {
        match origin {
            Origin::Queue => true,
            Origin::Inbox(number) => self.inbox.look().holds(handle.key, number),
            Origin::Mailbox(number) => {
                let mailbox = lock(&handle.interests).mailbox;
                mailbox.is_some_and(|(device, _)| {
                    self.control.look().holds(device, handle.key, number)
                })
            }
        }
    }

    /// Gives a receiver whose queue is nearly full.
    fn publish_will(&self, handle: &Handle, will: Will) -> Option<Arc<Handle>> {
        // A Will that is refused now was permitted at CONNECT; rules changed, and the refusal has
        // been counted and logged like any other.
        let from = handle.publisher();
        self.publish_as(AclAction::Will, &from, will_message(will)).congested
    }

    /// Publishes the Wills that are due. Their readers get time to read, but whoever reads slowly
    /// holds up no Will for long (case Q12).
    pub(super) async fn publish_due_wills(&self, now: Timestamp) {
        let patience = self.now().after(WILL_PATIENCE);
        loop {
            let Some((key, will)) = lock(&self.wills).take_due(now) else { return };
            let handle = self.sessions.slots().find(key).cloned();
            let congested = handle.and_then(|handle| self.publish_will(&handle, *will));
            if let Some(congested) = congested.filter(|_| self.now() < patience) {
                congested.wait_for_room(self).await;
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Ends a session: everything that refers to it goes; mail that it had not acknowledged goes
    /// back to where it belongs; a Will that still waited is published.
    pub(super) fn end(&self, handle: &Handle, mut session: Box<Session>) {
        let will = lock(&self.wills).take(handle.key);
        if let Some(will) = will {
            let _nobody_waits = self.publish_will(handle, *will);
        }
        let interests = std::mem::take(&mut *lock(&handle.interests));
        if interests.inbox.is_some() {
            let wake = self.change_inbox(|inbox| inbox.leave(handle.key, self.now()));
            self.sessions.call(&wake, Calls::MAIL);
        }
        if let Some((device, _)) = interests.mailbox {
            let next = self.change_control(|control| control.detach(device, handle.key));
            self.sessions.call(next.as_slice(), Calls::MAIL);
        }
        if !interests.filters.is_empty() {
            let mut subscriptions = write(&self.subscriptions);
            for filter in interests.filters.keys() {
                let (group, filter) = topic::split_shared(filter);
                subscriptions.unsubscribe(handle.key, filter, group);
            }
        }
        let mut orphans = session.take_shared(|_delivery| true);
        orphans.extend(lock(&handle.outbox).close());
        self.pass_on_ended(handle.key, orphans);
        self.keeper.end(handle);
        self.sessions.remove(handle);
        handle.end();
    }

    /// What share groups had given to a client that is away now: others have it at once, if any
    /// is connected; else it waits for its receiver (4.8.2 leaves that to the server).
    fn hand_on_from_absent(&self, handle: &Handle, session: &mut Session) {
        handle.leave();
        let mut orphans = session.take_shared(|d| self.has_other_member(handle.key, d));
        orphans.extend(lock(&handle.outbox).take_shared());
        if !orphans.is_empty() {
            let left = self.hand_on(handle.key, orphans, Heirs::Connected);
            let mut outbox = lock(&handle.outbox);
            // Rights may have changed while they were out (see `rights`).
            let may_read = |delivery: &Delivery| handle.may_read(&delivery.message.topic);
            let (kept, denied): (Vec<_>, _) = left.into_iter().partition(may_read);
            outbox.put_back(kept);
            drop(outbox);
            self.pass_on_denied(handle.key, denied);
        }
    }

    /// Makes room for somebody who has proven who it is: of the sessions that strangers have left
    /// behind, the one that would expire first ends (case D8). Strangers themselves get no room
    /// at the cost of others.
    fn evict_for(&self, identity: &Identity) -> bool {
        if identity.is_anonymous() {
            return false;
        }
        let candidates: Vec<SessionKey> =
            lock(&self.expirations).strangers().take(EVICTION_TRIES_MAX).collect();
        for key in candidates {
            let handle = self.sessions.slots().find(key).cloned();
            let Some(handle) = handle else { continue };
            if let Claim::Got(session, until) = handle.try_claim() {
                lock(&self.expirations).remove(until, key);
                if let Some(repeats) = self.complain("session_evicted") {
                    let (client, repeats) = (Shown(handle.client_id.as_str()), repeats.field());
                    tracing::warn!(%client, repeats, "session ended: `max_sessions` is reached");
                }
                self.end(&handle, session);
                return true;
            }
        }
        false
    }

    /// Ends the sessions whose clients have been away until their expiry.
    pub(super) async fn end_expired(&self, now: Timestamp) {
        loop {
            let Some(key) = lock(&self.expirations).take_due(now) else { return };
            let handle = self.sessions.slots().find(key).cloned();
            let Some(handle) = handle else { continue };
            if let Some(session) = handle.claim_expired(now) {
                self.metrics.session_expired();
                self.end(&handle, session);
            }
            tokio::task::coop::consume_budget().await;
        }
    }
}

/// Sessions that are tried to find one that may go; a client may just be coming back to its own.
const EVICTION_TRIES_MAX: usize = 10;

/// How long the Wills of one sweep may wait for their readers, all together.
const WILL_PATIENCE: Duration = Duration::from_millis(500);

/// The clock counts whole milliseconds. What begins in the midst of one would end too early by the
/// part that is over.
const CLOCK_GRAIN: Duration = Duration::from_millis(1);

/// How long a new connection waits for the former one of its client to let go.
pub(super) const TAKEOVER_PATIENCE: Duration = Duration::from_secs(10);

fn will_message(will: Will) -> Publish {
    Publish {
        dup: false,
        qos: will.qos,
        retain: will.retain,
        topic: will.topic,
        packet_id: None,
        properties: will.properties,
        payload: will.payload,
    }
}
