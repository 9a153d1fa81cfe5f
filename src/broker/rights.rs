//! Rights of clients on ordinary topics, and what a change of them does.
//!
//! The ACL of a listener stands in an [`AclSlot`]; each session that came through the listener
//! holds a [`Permit`] under it. Whoever asks a permit gets the answer of the ACL that stands in
//! the slot at this moment, without a lock: the rights of the client, compiled once per ACL.
//!
//! **Nothing that is no longer permitted is sent** once [`Broker::replace_acls`] has returned,
//! whatever is published meanwhile. It first puts the new ACL into the slot, then visits each
//! session and purges its queue. Who appends to a queue asks for the right to read while it holds
//! the lock of that queue. So an append either comes before the purge, which sees it, or after it,
//! and then the mutex has made the new ACL visible to it. That a message is not looked at because
//! all filters of its receiver are covered ([`Handle::wide`]) is no exception: the flag is raised
//! before the purge, or when a filter is taken back whose messages may still be on their way to
//! the queue, and is never lowered. What waits for an acknowledgement is looked at when it is
//! about to be sent again. What has been handed to the connection before the purge counts as sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::{ArcSwap, Guard};

use super::Broker;
use super::keep::PermitRow;
use super::publish::{Heirs, Who};
use super::sessions::{Handle, Target, lock};
use crate::auth::{Acl, Rights};
use crate::config::WiderSubscription;
use crate::ids::{ClientId, Kept, SessionKey};
use crate::log::Shown;
use crate::metrics::{AclAction, Label};
use crate::mqtt::topic;
use crate::session::{Delivery, Origin};

/// What a client of version 5 is told.
pub(super) const DENIED: &str = "not permitted by the ACL";

/// Where the ACL of one or more listeners stands; a reload puts another in its place.
#[derive(Debug)]
pub struct AclSlot {
    /// Of the file.
    name: Arc<str>,
    current: ArcSwap<Numbered>,
    wider: WiderSubscription,
}

/// An ACL, and how many stood in its slot before it.
#[derive(Debug)]
struct Numbered {
    number: u64,
    acl: Acl,
}

impl AclSlot {
    /// With the ACL that holds from the start.
    #[must_use]
    pub fn new(name: &str, acl: Acl, wider: WiderSubscription) -> Self {
        Self {
            name: name.into(),
            current: ArcSwap::from_pointee(Numbered { number: 0, acl }),
            wider,
        }
    }

    fn replace(&self, acl: Acl) {
        let number = self.current.load().number + 1;
        self.current.store(Arc::new(Numbered { number, acl }));
    }
}

/// A client under an ACL. Retained messages keep the permit of their publisher: it outlives the
/// session, and nothing in it grows.
#[derive(Debug)]
pub(super) struct Permit {
    slot: Arc<AclSlot>,
    user: Arc<str>,
    client_id: ClientId,
    compiled: ArcSwap<Compiled>,
}

/// Who has published a retained message, where there was an ACL.
#[derive(Debug, Default)]
pub(super) struct Author {
    pub(super) permit: Option<Arc<Permit>>,
    /// The row of the retained message in the store.
    pub(super) _kept: Option<Kept>,
}

#[derive(Debug)]
struct Compiled {
    /// Of the ACL.
    number: u64,
    rights: Rights,
}

impl Permit {
    /// The permit of this client under the listener's ACL.
    pub(super) fn new(slot: &Arc<AclSlot>, who: &Who<'_>) -> Self {
        let (user, client_id) = (Arc::clone(&who.identity.name), ClientId::from(who.client_id));
        let compiled = compile(&slot.current.load(), &user, client_id.as_str());
        let compiled = ArcSwap::from_pointee(compiled);
        Self { slot: Arc::clone(slot), user, client_id, compiled }
    }

    /// As it was written down. `None` where there is no such ACL any more.
    pub(super) fn restored(author: &PermitRow, acls: &[Arc<AclSlot>]) -> Option<Self> {
        let slot = acls.iter().find(|slot| *slot.name == *author.acl)?;
        let (user, client_id) = (Arc::from(&*author.user), ClientId::from(&*author.client_id));
        let compiled = compile(&slot.current.load(), &user, client_id.as_str());
        let compiled = ArcSwap::from_pointee(compiled);
        Some(Self { slot: Arc::clone(slot), user, client_id, compiled })
    }

    /// As it is written down.
    pub(super) fn author(&self) -> PermitRow {
        PermitRow {
            acl: self.slot.name.to_string(),
            user: self.user.to_string(),
            client_id: self.client_id.as_str().to_owned(),
        }
    }

    pub(super) fn may_write(&self, topic: &str) -> bool {
        self.compiled().rights.may_write(topic)
    }

    pub(super) fn may_read(&self, topic: &str) -> bool {
        self.compiled().rights.may_read(topic)
    }

    /// The rights under the ACL of this moment.
    fn compiled(&self) -> Guard<Arc<Compiled>> {
        let compiled = self.compiled.load();
        let current = self.slot.current.load();
        if compiled.number == current.number {
            return compiled;
        }
        // Others may do the same at the same time. Should an older one be stored last, the next to
        // ask compiles again.
        let fresh = Arc::new(compile(&current, &self.user, self.client_id.as_str()));
        self.compiled.store(Arc::clone(&fresh));
        Guard::from_inner(fresh)
    }
}

fn compile(current: &Numbered, user: &str, client_id: &str) -> Compiled {
    let user = (!user.is_empty()).then_some(user);
    Compiled { number: current.number, rights: current.acl.rights(user, client_id) }
}

impl Handle {
    /// Whether the client may be sent what is published to this topic, which one of its
    /// subscriptions matches.
    pub(super) fn may_read(&self, topic: &str) -> bool {
        !self.wide.load(Ordering::Relaxed) || self.is_permitted(topic)
    }

    pub(super) fn is_permitted(&self, topic: &str) -> bool {
        self.permit.load().as_ref().is_none_or(|permit| permit.may_read(topic))
    }

    /// A subscription goes, and rights may go before its last messages have arrived.
    pub(super) fn note_unsubscribed(&self) {
        if self.permit.load().is_some() {
            self.wide.store(true, Ordering::Relaxed);
        }
    }

    /// What the ACL says to a new subscription. One that is granted is noted where its messages
    /// have to be looked at; the caller holds the lock of the interests, and adds the subscription
    /// afterwards.
    pub(super) fn may_subscribe(&self, filter: &str) -> bool {
        let Some(permit) = &*self.permit.load() else { return true };
        let rights = &permit.compiled().rights;
        if rights.covers(filter) {
            return true;
        }
        let granted = match permit.slot.wider {
            WiderSubscription::Filter => rights.overlaps(filter),
            WiderSubscription::Grant => true,
            WiderSubscription::Deny => false,
        };
        if granted {
            self.wide.store(true, Ordering::Relaxed);
        }
        granted
    }
}

impl Broker {
    /// Puts new ACLs in place of old ones, and takes out of all queues what may no longer be read.
    /// Looks at every session.
    pub fn replace_acls(&self, acls: Vec<(Arc<AclSlot>, Acl)>) {
        for (slot, acl) in acls {
            slot.replace(acl);
        }
        self.sessions.all().iter().for_each(|handle| self.apply_rights(handle));
    }

    /// Goes through a session whose rights may have changed: which of its subscriptions are wider
    /// than they are, and what must leave its queue.
    pub(super) fn apply_rights(&self, handle: &Handle) {
        let interests = lock(&handle.interests);
        let Some(permit) = handle.permit.load_full() else { return };
        let compiled = permit.compiled();
        let wide = interests.filters.iter().any(|(filter, subscribed)| {
            subscribed.target == Target::Ordinary
                && !compiled.rights.covers(topic::split_shared(filter).1)
        });
        if wide {
            handle.wide.store(true, Ordering::Relaxed);
        }
        let purged = lock(&handle.outbox).purge(|topic| compiled.rights.may_read(topic));
        drop(interests);
        self.pass_on_denied(handle.key, purged);
    }

    /// Messages that their receiver may not read: those of a share group go to another member.
    pub(super) fn pass_on_denied(&self, from: SessionKey, denied: Vec<Delivery>) {
        for _ in self.hand_on(from, denied, Heirs::Any) {
            self.note_denied_delivery();
        }
    }

    /// Whether a message that was sent before may be sent again; counts it if not. The mail of
    /// devices and servers is the control unit's.
    #[must_use]
    pub fn may_send_again(&self, handle: &Handle, delivery: &Delivery) -> bool {
        let permitted =
            delivery.origin != Origin::Queue || handle.is_permitted(&delivery.message.topic);
        if !permitted {
            self.note_denied_delivery();
        }
        permitted
    }

    /// A message does not reach a subscriber that may not read it. That is every day's business of
    /// a subscription wider than the rights, and no line in the log.
    pub(super) fn note_denied_delivery(&self) {
        self.metrics.acl_denied(AclAction::Deliver);
    }

    /// Counts and logs what a client was denied.
    pub(super) fn note_denied(&self, action: AclAction, who: &Who<'_>, topic: &str) {
        self.metrics.acl_denied(action);
        let Some(repeats) = self.complain(complaint(action)) else { return };
        let peer = who.peer.map(tracing::field::display);
        tracing::warn!(
            action = action.name(),
            user = %Shown(&who.identity.name),
            client = %Shown(who.client_id),
            topic = %Shown(topic),
            peer,
            repeats = repeats.field(),
            "denied: {DENIED}"
        );
    }
}

fn complaint(action: AclAction) -> &'static str {
    match action {
        AclAction::Publish => "denied by the ACL: publish",
        AclAction::Subscribe => "denied by the ACL: subscribe",
        AclAction::Will => "denied by the ACL: Will",
        AclAction::Deliver | AclAction::Retained => "denied by the ACL: delivery",
    }
}
