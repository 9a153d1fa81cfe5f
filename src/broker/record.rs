//! What happened goes on record: counted, told to who listens, and written into the audit log.

use std::hash::BuildHasher;

use serde_json::Value;

use super::Broker;
use super::events::{BrokerEvent, ClientInfo};
use super::provision::CONTROL_UNIT;
use super::publish::Who;
use super::sessions::lock;
use crate::audit::{AuditLog, Entry};
use crate::log::Shown;
use crate::metrics::{RspDecision, RspExchange};
use crate::rsp::{CampaignId, CampaignStep, ControlUnit, Event, ExchangeState, Reason, Refusal};

/// What the control unit has done, taken from it under its lock, to be recorded without.
#[derive(Debug)]
pub(super) struct News {
    events: Vec<Event>,
    lost: u64,
    /// Whose doing it is, where it is not that of the control unit alone.
    actor: Option<Box<str>>,
}

impl News {
    pub(super) fn of(control: &mut ControlUnit) -> Self {
        let (events, lost) = control.take_events();
        Self { events, lost, actor: None }
    }

    /// The same, as the doing of an operator.
    pub(super) fn by(self, actor: &str) -> Self {
        Self { actor: Some(actor.into()), ..self }
    }
}

/// Refusals of one reason and identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Offence {
    refusal: &'static str,
    /// Hash of the whole name: tells apart those that begin alike.
    identity: u64,
    /// The name, as long as an actor's may be.
    actor: Box<str>,
}

impl Broker {
    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// Counts, logs and records a refusal. Never the body.
    pub(super) fn note_refusal(&self, who: &Who<'_>, refusal: Refusal) {
        self.metrics.refused(refusal.name());
        self.record_refusal(who, refusal);
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

    /// Whoever is refused again and again for the same reason fills no disk: one entry a second,
    /// with the number of the others.
    fn record_refusal(&self, who: &Who<'_>, refusal: Refusal) {
        let entry = Entry::new("refusal", &who.identity.name);
        let offence = Offence {
            refusal: refusal.name(),
            identity: self.hasher.hash_one(&*who.identity.name),
            actor: entry.actor().into(),
        };
        let admitted = lock(&self.audited).admit(offence, self.now());
        let Some(repeats) = admitted else { return };
        let client = ClientInfo::from(*who);
        self.audit.record(
            entry
                .with("refusal", refusal.name())
                .with("role", client.role)
                .with("client_id", client.client_id)
                .with("peer", client.peer)
                .with("repeats", repeats.count),
        );
    }

    /// Refusals that were held back, and were not followed by another one to name them.
    pub(super) fn record_held_back(&self) {
        for (Offence { refusal, actor, .. }, repeats) in lock(&self.audited).quiet(self.now()) {
            self.audit.record(
                Entry::new("refusal", &actor)
                    .with("refusal", refusal)
                    .with("repeats", repeats.count),
            );
        }
    }

    /// Counts, tells and records what the control unit has done.
    pub(super) fn record(&self, news: News) {
        if news.lost > 0 {
            let entry = Entry::new("events-lost", CONTROL_UNIT).with("count", news.lost);
            self.audit.record(entry);
        }
        let actor = news.actor.as_deref().unwrap_or(CONTROL_UNIT);
        news.events.into_iter().for_each(|event| self.record_event(event, actor));
    }

    fn record_event(&self, event: Event, actor: &str) {
        self.count_event(event);
        self.audit.record(entry(event, actor));
        if let Event::Campaign(id, _) = event {
            self.tell_progress(vec![id]);
        } else {
            self.tell(|| BrokerEvent::Control(ControlEvent::from(event)));
        }
    }

    fn count_event(&self, event: Event) {
        match event {
            Event::Exchange(_, _, state) => {
                let result = match state {
                    ExchangeState::Requested => RspExchange::Requested,
                    ExchangeState::Unreported => RspExchange::Completed,
                    ExchangeState::Confirmed => RspExchange::Confirmed,
                    ExchangeState::Unconfirmed => RspExchange::Unconfirmed,
                    ExchangeState::Expired => RspExchange::Expired,
                    ExchangeState::Transferred => return,
                };
                self.metrics.rsp_exchange(result, 1);
            }
            Event::Decided(gid, reason) => {
                let decision = match reason {
                    Reason::Coalesced(_) => RspDecision::Coalesced,
                    Reason::Merged(_) => RspDecision::Merged,
                    Reason::NotMerged(_) => RspDecision::NotMerged,
                };
                let messages = reason.messages();
                self.metrics.rsp_decided(decision, messages);
                tracing::info!(%gid, messages, "decided: {}", reason.name());
            }
            Event::Campaign(..) | Event::Replaced(_) | Event::Reinstated(_) => {}
        }
    }

    /// Tells who listens how far these campaigns are.
    pub(super) fn tell_progress(&self, changed: Vec<CampaignId>) {
        if !self.events.is_heard() {
            return;
        }
        let now = self.now();
        for id in changed {
            let campaign = self.control.look().campaign(id, now);
            let Some(campaign) = campaign else { continue };
            self.tell(|| BrokerEvent::Campaign(Box::new(campaign.into())));
        }
    }
}

/// What the control unit did, beside the progress of campaigns.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "see the event of the control unit that each is made from")]
pub enum ControlEvent {
    Exchange { from: String, to: String, gid: u64, state: &'static str },
    Replaced { nid: String },
    Reinstated { nid: String },
    Decided { gid: u64, reason: &'static str, messages: u32 },
    Campaign { id: u64 },
}

impl From<Event> for ControlEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::Exchange(pair, gid, state) => Self::Exchange {
                from: pair.from.to_string(),
                to: pair.to.to_string(),
                gid: gid.get(),
                state: state.name(),
            },
            Event::Replaced(nid) => Self::Replaced { nid: nid.to_string() },
            Event::Reinstated(nid) => Self::Reinstated { nid: nid.to_string() },
            Event::Decided(gid, reason) => {
                Self::Decided { gid: gid.get(), reason: reason.name(), messages: reason.messages() }
            }
            Event::Campaign(id, _) => Self::Campaign { id: id.0 },
        }
    }
}

/// The entry of the audit log that an event makes.
fn entry(event: Event, actor: &str) -> Entry {
    let of = |name| Entry::new(name, actor);
    match event {
        Event::Exchange(pair, gid, state) => of("exchange")
            .with("from", pair.from.to_string())
            .with("to", pair.to.to_string())
            .with("gid", gid.get())
            .with("state", state.name()),
        Event::Replaced(nid) => of("replaced").with("nid", nid.to_string()),
        Event::Reinstated(nid) => of("reinstated").with("nid", nid.to_string()),
        Event::Decided(gid, reason) => of("decision")
            .with("gid", gid.get())
            .with("reason", reason.name())
            .with("messages", reason.messages()),
        Event::Campaign(id, step) => {
            let (name, devices) = match step {
                CampaignStep::Released => ("released", Value::Null),
                CampaignStep::Halted => ("halted", Value::Null),
                CampaignStep::Retried(devices) => ("retried", devices.into()),
                CampaignStep::Cancelled(devices) => ("cancelled", devices.into()),
            };
            of("campaign").with("campaign", id.0).with("step", name).with("devices", devices)
        }
    }
}
