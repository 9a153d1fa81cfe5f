//! A message is published: who receives it, and what the publisher is told.

use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::outbox::Pushed;
use super::sessions::{Handle, lock};
use super::{Broker, Calls, read, write};
use crate::ids::{SessionKey, Timestamp};
use crate::metrics::DropReason;
use crate::mqtt::{Message, Publish, QoS, ReasonCode, topic};
use crate::route::{Grant, Member};
use crate::rsp::Identity;
use crate::session::{Delivery, Origin, Refused, Routed};

/// Who publishes.
#[derive(Clone, Copy, Debug)]
pub struct Publisher<'a> {
    /// The session, where a client publishes through one.
    pub key: Option<SessionKey>,
    /// The client.
    pub who: Who<'a>,
}

/// A client, as refusals name it in the log.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Proven by the certificate, the password or the listener's rule.
    pub identity: &'a Identity,
    /// What it calls itself.
    pub client_id: &'a str,
    /// Where it is connected from; nowhere when its Will is published.
    pub peer: Option<SocketAddr>,
}

/// The sessions that receive one message; most messages have few.
type Receivers = SmallVec<[Member; 8]>;

impl Broker {
    /// Publishes a message. When this returns, the broker owns it or has refused it.
    pub async fn publish(&self, from: &Publisher<'_>, publish: Publish) -> Routed {
        if let Some(rsp_topic) = self.options.topics.topic(&publish.topic) {
            return self.provision(from, rsp_topic, publish);
        }
        if let Err(refused) = self.check_topic(&publish.topic) {
            self.metrics.dropped(DropReason::NotAuthorized);
            return Routed::Refused(refused);
        }
        if self.options.checks_payload_format && publish.check_payload_format().is_err() {
            self.metrics.dropped(DropReason::PayloadFormat);
            return Routed::Refused(refused(ReasonCode::PayloadFormatInvalid, NOT_UTF8));
        }
        self.route(from, publish).await
    }

    /// Whether clients may publish to an ordinary topic of this name.
    pub(super) fn check_topic(&self, name: &str) -> Result<(), Refused> {
        if name.starts_with('$') {
            return Err(refused(ReasonCode::NotAuthorized, "clients may not publish to $-topics"));
        }
        if topic::levels(name).count() > self.options.topic_levels_max {
            return Err(refused(ReasonCode::TopicNameInvalid, "too many topic levels"));
        }
        Ok(())
    }

    async fn route(&self, from: &Publisher<'_>, publish: Publish) -> Routed {
        let message = Arc::new(self.message(publish));
        if message.retain {
            let kept = write(&self.retained).keep(&message, &self.options.retained);
            if !kept {
                self.metrics.dropped(DropReason::RetainedFull);
                let name = "no room for retained messages";
                return Routed::Refused(refused(ReasonCode::QuotaExceeded, name));
            }
        }
        let receivers = self.receivers(from.key, &message.topic);
        if receivers.is_empty() {
            return Routed::NoSubscribers;
        }
        if let Some(congested) = self.fan_out(&message, &receivers) {
            congested.wait_for_room(self).await;
        }
        Routed::Accepted
    }

    fn receivers(&self, from: Option<SessionKey>, topic: &str) -> Receivers {
        let mut receivers = Receivers::new();
        let able = |key| self.sessions.slots().find(key).is_some_and(|handle| handle.is_online());
        let overlap = read(&self.subscriptions).matches(topic, able, |member| {
            // [MQTT-3.8.3-3]
            if !(member.grant.no_local && Some(member.key) == from) {
                receivers.push(member);
            }
        });
        if overlap {
            receivers.sort_by_key(|member| (member.key, member.share.is_some()));
        }
        receivers
    }

    /// Appends the message to the outbox of every receiver. Gives one of those whose outbox is
    /// nearly full, for the publisher to wait for.
    fn fan_out(&self, message: &Arc<Message>, receivers: &Receivers) -> Option<Arc<Handle>> {
        let mut congested = None;
        let slots = self.sessions.slots();
        let merged = self.options.delivers_overlap_once;
        // A share group's message is one of its own, whatever else the session subscribes to.
        let together = |a: &Member, b: &Member| {
            merged && a.key == b.key && a.share.is_none() && b.share.is_none()
        };
        for same in receivers.chunk_by(together) {
            let Some(handle) = slots.find(same[0].key) else { continue };
            match self.enqueue(handle, delivery(message, same)) {
                Some(Pushed::Congested) if handle.is_online() => congested = Some(handle),
                Some(Pushed::Full) => self.metrics.dropped(DropReason::QueueFull),
                Some(Pushed::First | Pushed::Queued | Pushed::Congested) | None => {}
            }
        }
        congested.cloned()
    }

    /// Appends a delivery to a session's queue, unless the client is away and nothing waits for it
    /// with QoS 0.
    fn enqueue(&self, handle: &Handle, delivery: Delivery) -> Option<Pushed> {
        if !handle.is_online() && delivery.qos == QoS::AtMostOnce {
            return None;
        }
        let pushed = lock(&handle.outbox).push(delivery, &self.options.outbox);
        if pushed == Pushed::First {
            handle.signal.raise(Calls::QUEUE);
        }
        Some(pushed)
    }

    /// Gives messages of share groups, which their receiver will not have, to other members, those
    /// who are connected first. Gives back those for which there is no other member.
    pub(super) fn hand_on(&self, from: SessionKey, orphans: Vec<Delivery>) -> Vec<Delivery> {
        let mut left = Vec::new();
        for orphan in orphans {
            let Some((handle, grant)) = self.other_member(from, &orphan) else {
                left.push(orphan);
                continue;
            };
            let delivery = Delivery {
                qos: orphan.message.qos.min(grant.qos),
                subscription_ids: grant.id.into_iter().collect(),
                ..orphan
            };
            if self.enqueue(&handle, delivery) == Some(Pushed::Full) {
                self.metrics.dropped(DropReason::QueueFull);
            }
        }
        left
    }

    /// Whether anybody else of a share group is connected.
    pub(super) fn has_other_member(&self, from: SessionKey, share: &str) -> bool {
        read(&self.subscriptions).next_of(share, |key| self.is_other(from, key)).is_some()
    }

    fn other_member(&self, from: SessionKey, orphan: &Delivery) -> Option<(Arc<Handle>, Grant)> {
        let share = orphan.share.as_deref()?;
        let member = read(&self.subscriptions).next_of(share, |key| self.is_other(from, key))?;
        let handle = self.sessions.slots().find(member.key).cloned()?;
        Some((handle, member.grant))
    }

    fn is_other(&self, from: SessionKey, key: SessionKey) -> bool {
        key != from && self.sessions.slots().find(key).is_some_and(|handle| handle.is_online())
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
    async fn wait_for_room(&self, broker: &Broker) {
        let drained = self.drained.notified();
        tokio::pin!(drained);
        drained.as_mut().enable();
        if lock(&self.outbox).is_congested(&broker.options.outbox) {
            let _drained_or_not = tokio::time::timeout(STALL_MAX, drained).await;
        }
    }
}

fn refused(reason: ReasonCode, name: &'static str) -> Refused {
    Refused { reason, name, closes: false }
}

const NOT_UTF8: &str = "the payload is not the UTF-8 it is said to be";

/// How long one message may wait for a slow receiver.
const STALL_MAX: std::time::Duration = std::time::Duration::from_millis(5);

/// One delivery for all matching subscriptions of a session: the highest QoS `[MQTT-3.3.4-2]`, all
/// subscription identifiers `[MQTT-3.3.4-3]`.
fn delivery(message: &Arc<Message>, members: &[Member]) -> Delivery {
    let granted = members.iter().map(|m| m.grant.qos).max().unwrap_or_default();
    Delivery {
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
        qos: message.qos.min(grant.qos),
        retain: true,
        subscription_ids: grant.id.into_iter().collect(),
        origin: Origin::Queue,
        share: None,
        message,
    }
}
