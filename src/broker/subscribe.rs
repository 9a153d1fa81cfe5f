//! SUBSCRIBE and UNSUBSCRIBE.

use std::sync::Arc;

use bytestring::ByteString;
use smallvec::SmallVec;

use super::publish::retained_delivery;
use super::rights::{DENIED, Permit};
use super::sessions::{Handle, Target, lock};
use super::{Broker, Calls, read, write};
use crate::metrics::{AclAction, DropReason};
use crate::mqtt::wire::FIELD_BYTES_MAX;
use crate::mqtt::{
    Message, ReasonCode, RetainHandling, Subscribe, SubscribeFilter, Unsubscribe, topic,
};
use crate::route::Grant;
use crate::rsp::{ControlUnit, Refusal, Subscription};
use crate::session::granted;

/// One answer for each filter.
pub(super) type Reasons = SmallVec<[ReasonCode; 1]>;

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
    /// Carries out a SUBSCRIBE. Retained messages follow through the session's queue. Beside the
    /// answers, gives the name of the first refusal.
    pub async fn subscribe(
        &self,
        handle: &Handle,
        subscribe: &Subscribe,
    ) -> (Reasons, Option<&'static str>) {
        let (mut reasons, mut refused) = (Reasons::new(), None);
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
            reasons.push(answer.unwrap_or_else(|denied| {
                let (reason, name) = self.note_denied_filter(handle, denied, &filter.filter);
                refused.get_or_insert(name);
                reason
            }));
        }
        (reasons, refused)
    }

    /// Carries out an UNSUBSCRIBE.
    pub fn unsubscribe(&self, handle: &Handle, unsubscribe: &Unsubscribe) -> Reasons {
        unsubscribe.filters.iter().map(|filter| self.unsubscribe_one(handle, filter)).collect()
    }

    fn subscribe_one(
        &self,
        handle: &Handle,
        asked: &SubscribeFilter,
        grant: Grant,
    ) -> Result<ReasonCode, Denied> {
        let mut interests = lock(&handle.interests);
        if !interests.has_room(&asked.filter, &self.options) {
            return Ok(ReasonCode::QuotaExceeded);
        }
        let too_long = asked.filter.len() > FIELD_BYTES_MAX;
        if too_long || topic::depth(&asked.filter) > self.options.topic_levels_max {
            return Ok(ReasonCode::TopicFilterInvalid);
        }
        let topics = &self.options.topics;
        let target = match ControlUnit::may_subscribe(&handle.identity, &asked.filter, topics) {
            Subscription::Refused(refusal) => return Err(refusal.into()),
            Subscription::Mailbox => {
                let nid = handle.identity.nid.ok_or(Refusal::RoleNotPermitted)?;
                let device = lock(&self.control).attach(nid, handle.reader())?;
                interests.mailbox = Some((device, grant));
                handle.signal.raise(Calls::MAIL);
                Target::Mailbox
            }
            Subscription::Servers { group } => {
                lock(&self.inbox).subscribe(handle.reader(), group, &handle.identity.name);
                interests.inbox = Some(grant);
                handle.signal.raise(Calls::MAIL);
                Target::Inbox
            }
            Subscription::Ordinary => {
                // case S4
                if !handle.may_subscribe(topic::split_shared(&asked.filter).1) {
                    return Err(Denied::Acl);
                }
                self.subscribe_ordinary(handle, asked, grant);
                Target::Ordinary
            }
        };
        interests.insert(&asked.filter, target);
        Ok(granted(grant.qos))
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
        let serve = |message: &Message, author: &Option<Arc<Permit>>| {
            self.may_serve(handle, message, author.as_deref())
        };
        let mut retained = read(&self.retained).matching(filter, room + 1, self.now(), serve);
        if retained.len() > room {
            retained.truncate(room);
            self.metrics.dropped(DropReason::QueueFull);
        }
        if retained.is_empty() {
            return;
        }
        let deliveries = retained.into_iter().map(|message| retained_delivery(message, grant));
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
                    let next = lock(&self.control).detach(device, handle.key);
                    self.sessions.call(next.as_slice(), Calls::MAIL);
                }
            }
            Target::Inbox => {
                let wake = lock(&self.inbox).unsubscribe(handle.key, group, self.now());
                if !interests.filters.values().any(|other| *other == Target::Inbox) {
                    interests.inbox = None;
                }
                self.sessions.call(&wake, Calls::MAIL);
            }
        }
        ReasonCode::Success
    }
}
