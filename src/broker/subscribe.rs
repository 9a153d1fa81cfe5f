//! SUBSCRIBE and UNSUBSCRIBE.

use bytestring::ByteString;
use smallvec::SmallVec;

use super::keep::NOTHING;
use super::publish::retained_delivery;
use super::rights::{Author, DENIED, Permit};
use super::sessions::{Handle, Interests, Target, lock};
use super::{Broker, Calls, read, write};
use crate::ids::Kept;
use crate::metrics::{AclAction, DropReason};
use crate::mqtt::wire::FIELD_BYTES_MAX;
use crate::mqtt::{
    Message, ReasonCode, RetainHandling, Subscribe, SubscribeFilter, Unsubscribe, topic,
};
use crate::route::Grant;
use crate::rsp::{ControlUnit, Refusal, Subscription};
use crate::session::{Delivery, granted};
use crate::store::Commit;

/// One answer for each filter.
pub type Reasons = SmallVec<[ReasonCode; 1]>;

/// What became of a SUBSCRIBE.
#[derive(Debug)]
pub struct Subscribed {
    /// The answers …
    pub reasons: Reasons,
    /// The name of the first refusal.
    pub refused: Option<&'static str>,
    /// … which are to be told when the store is so far.
    pub commit: Commit,
}

/// Who does not let a client subscribe.
#[derive(Clone, Copy, Debug)]
enum Denied {
    /// The control unit.
    Refusal(Refusal),
    /// The ACL.
    Acl,
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl Broker {
    /// Carries out a SUBSCRIBE. Retained messages follow through the session's queue.
    pub async fn subscribe(&self, handle: &Handle, subscribe: &Subscribe) -> Subscribed {
        let (mut reasons, mut refused, mut commit) = (Reasons::new(), None, NOTHING);
        for (at, filter) in subscribe.filters.iter().enumerate() {
            // One packet has room for half a million filters, and each may have every retained
            // message looked at.
            if at >= self.options.subscriptions_max {
                reasons.push(ReasonCode::QuotaExceeded);
                continue;
            }
            if at > 0 {
                tokio::task::yield_now().await;
            }
            let grant = Grant::new(&filter.options, subscribe.subscription_id);
            let answer = self.subscribe_one(handle, filter, grant);
            let answer = answer.map(|(reason, kept)| {
                commit = commit.max(kept);
                reason
            });
            reasons.push(answer.unwrap_or_else(|denied| {
                let (reason, name) = self.note_denied_filter(handle, denied, &filter.filter);
                refused.get_or_insert(name);
                reason
            }));
        }
        Subscribed { reasons, refused, commit }
    }

    /// Carries out an UNSUBSCRIBE; the answers are to be told when the store is so far.
    pub fn unsubscribe(&self, handle: &Handle, unsubscribe: &Unsubscribe) -> (Reasons, Commit) {
        let filters = unsubscribe.filters.iter();
        let reasons = filters.map(|filter| self.unsubscribe_one(handle, filter)).collect();
        (reasons, self.keeper.hasten(handle))
    }

    fn subscribe_one(
        &self,
        handle: &Handle,
        asked: &SubscribeFilter,
        grant: Grant,
    ) -> Result<(ReasonCode, Commit), Denied> {
        let mut interests = lock(&handle.interests);
        let is_swamped = handle.row().is_some() && self.keeper.is_swamped();
        if is_swamped || !interests.has_room(&asked.filter, &self.options) {
            return Ok((ReasonCode::QuotaExceeded, NOTHING));
        }
        let too_long = asked.filter.len() > FIELD_BYTES_MAX;
        if too_long || topic::depth(&asked.filter) > self.options.topic_levels_max {
            return Ok((ReasonCode::TopicFilterInvalid, NOTHING));
        }
        let topics = &self.options.topics;
        let target = match ControlUnit::may_subscribe(&handle.identity, &asked.filter, topics) {
            Subscription::Ordinary => {
                // case S4
                if !handle.may_subscribe(topic::split_shared(&asked.filter).1) {
                    return Err(Denied::Acl);
                }
                self.subscribe_ordinary(handle, asked, grant);
                Target::Ordinary
            }
            provisioning => self.take_part(handle, &mut interests, provisioning, grant)?,
        };
        let (kept, commit) = self.keeper.subscription(handle, &asked.filter, grant);
        interests.insert(&asked.filter, target, kept);
        Ok((granted(grant.qos), commit))
    }

    /// Makes a session the reader of its device's mail, or one of the servers, if it may be.
    fn take_part(
        &self,
        handle: &Handle,
        interests: &mut Interests,
        subscription: Subscription<'_>,
        grant: Grant,
    ) -> Result<Target, Refusal> {
        let target = match subscription {
            Subscription::Ordinary => return Ok(Target::Ordinary),
            Subscription::Refused(refusal) => return Err(refusal),
            Subscription::Mailbox => {
                let nid = handle.identity.nid.ok_or(Refusal::RoleNotPermitted)?;
                let device = self.change_control(|control| control.attach(nid, handle.reader()))?;
                interests.mailbox = Some((device, grant));
                Target::Mailbox
            }
            Subscription::Servers { group } => {
                let (server, row) = (&handle.identity.name, handle.row());
                self.change_inbox(|inbox| inbox.subscribe(handle.reader(), group, server, row));
                interests.inbox = Some(grant);
                Target::Inbox
            }
        };
        handle.signal.raise(Calls::MAIL);
        Ok(target)
    }

    /// Subscribes once more after a restart, without retained messages. What is no longer
    /// permitted is looked at when the client is back.
    pub(super) fn subscribe_again(
        &self,
        handle: &Handle,
        filter: &ByteString,
        grant: Grant,
        kept: Kept,
    ) {
        let mut interests = lock(&handle.interests);
        let topics = &self.options.topics;
        let target = match ControlUnit::may_subscribe(&handle.identity, filter, topics) {
            Subscription::Ordinary => {
                let (group, name) = topic::split_shared(filter);
                write(&self.subscriptions).subscribe(handle.key, name, group, grant);
                Target::Ordinary
            }
            provisioning => {
                let taken = self.take_part(handle, &mut interests, provisioning, grant);
                let Ok(target) = taken else { return };
                if target == Target::Inbox {
                    let _nobody_is_there = self.change_inbox(|inbox| inbox.away(handle.key));
                }
                target
            }
        };
        interests.insert(filter, target, Some(kept));
    }

    fn note_denied_filter(
        &self,
        handle: &Handle,
        denied: Denied,
        filter: &str,
    ) -> (ReasonCode, &'static str) {
        match denied {
            Denied::Refusal(refusal) => {
                self.note_refusal(&handle.who(), refusal);
                (refusal.reason_code(), refusal.name())
            }
            Denied::Acl => {
                self.note_denied(AclAction::Subscribe, &handle.who(), filter);
                (ReasonCode::NotAuthorized, DENIED)
            }
        }
    }

    fn subscribe_ordinary(&self, handle: &Handle, asked: &SubscribeFilter, grant: Grant) {
        let (group, filter) = topic::split_shared(&asked.filter);
        let new = write(&self.subscriptions).subscribe(handle.key, filter, group, grant);
        let wanted = match asked.options.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => new,
            RetainHandling::Never => false,
        };
        // A shared subscription gets no retained messages (4.8.2).
        if !wanted || group.is_some() {
            return;
        }
        // Who subscribes faster than it reads gets no more than waits already.
        let bound = self.options.retained.messages_max + self.options.outbox.messages_max;
        let room = bound.saturating_sub(lock(&handle.outbox).size().0);
        let serve =
            |message: &Message, by: &Author| self.may_serve(handle, message, by.permit.as_deref());
        let mut retained = read(&self.retained).matching(filter, room + 1, self.now(), serve);
        if retained.len() > room {
            retained.truncate(room);
            self.metrics.dropped(DropReason::QueueFull);
        }
        if retained.is_empty() {
            return;
        }
        let mut step = self.keeper.step();
        let deliveries = retained.into_iter().map(|message| {
            let mut delivery = retained_delivery(message, grant);
            step.queue(handle, &mut delivery);
            delivery
        });
        let deliveries: Vec<Delivery> = deliveries.collect();
        // The answer waits for what is written down after this.
        step.commit();
        lock(&handle.outbox).push_retained(deliveries);
        handle.signal.raise(Calls::QUEUE);
    }

    /// Whether a retained message is for this subscriber: it may read it, and who published it
    /// might still do so (case S8). What the broker itself published has no author.
    fn may_serve(&self, handle: &Handle, message: &Message, author: Option<&Permit>) -> bool {
        let topic = &*message.topic;
        let permitted =
            author.is_none_or(|author| author.may_write(topic)) && handle.may_read(topic);
        if !permitted {
            self.metrics.acl_denied(AclAction::Retained);
        }
        permitted
    }

    fn unsubscribe_one(&self, handle: &Handle, filter: &ByteString) -> ReasonCode {
        let mut interests = lock(&handle.interests);
        let Some(target) = interests.remove(filter) else {
            return ReasonCode::NoSubscriptionExisted;
        };
        let (group, name) = topic::split_shared(filter);
        match target {
            Target::Ordinary => {
                handle.note_unsubscribed();
                write(&self.subscriptions).unsubscribe(handle.key, name, group);
            }
            Target::Mailbox => {
                if let Some((device, _)) = interests.mailbox.take() {
                    let next = self.change_control(|control| control.detach(device, handle.key));
                    self.sessions.call(next.as_slice(), Calls::MAIL);
                }
            }
            Target::Inbox => {
                let now = self.now();
                let wake = self.change_inbox(|inbox| inbox.unsubscribe(handle.key, group, now));
                if !interests.filters.values().any(|other| other.target == Target::Inbox) {
                    interests.inbox = None;
                }
                self.sessions.call(&wake, Calls::MAIL);
            }
        }
        ReasonCode::Success
    }
}
