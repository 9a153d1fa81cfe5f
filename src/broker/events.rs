//! What happens, told to whoever listens: operators' event streams.
//!
//! Telling costs nothing while nobody listens, and never waits: a listener that is slow is told
//! how much it has missed. To tell of something new: a variant of [`BrokerEvent`] and its name.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Serialize, Serializer};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::operate::CampaignInfo;
use super::publish::Who;
use super::record::ControlEvent;
use super::sessions::lock;
use crate::ids::Timestamp;
use crate::log::Rfc3339;
use crate::rsp::Role;

/// Events that a listener may be behind.
const EVENTS_KEPT_MAX: usize = 1_024;

/// Something that operators may want to see at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum BrokerEvent {
    /// A client has come in.
    Connected {
        /// Who.
        #[serde(flatten)]
        client: ClientInfo,
        /// Of MQTT.
        version: &'static str,
        /// Its session was there.
        resumed: bool,
        /// Another connection of it was sent away.
        took_over: bool,
    },
    /// A client is gone.
    Disconnected {
        /// Who.
        #[serde(flatten)]
        client: ClientInfo,
        /// As `simcast_disconnects_total` counts it.
        reason: &'static str,
        /// As the log says it.
        detail: String,
    },
    /// The control unit has refused something; as often as the log says it.
    Refused {
        /// Whom.
        #[serde(flatten)]
        client: ClientInfo,
        /// Name of the refusal.
        refusal: &'static str,
        /// What to do about it.
        explanation: &'static str,
        /// Others like it that were not told since the last one.
        repeats: u64,
    },
    /// The registry has changed.
    Registry(RegistryChange),
    /// A campaign is further than before.
    Campaign(Box<CampaignInfo>),
    /// The control unit did something else.
    Control(ControlEvent),
    /// Settings have changed.
    Settings {
        /// Of this group, or of all.
        gid: Option<u64>,
    },
}

/// How the registry has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum RegistryChange {
    /// A device was added, or has other groups and labels.
    Put {
        /// Which.
        nid: String,
        /// Its groups now.
        gids: Vec<u64>,
        /// It was not known before.
        is_new: bool,
    },
    /// A device is no longer registered.
    Removed {
        /// Which.
        nid: String,
    },
    /// A whole file was taken in.
    Imported {
        /// Devices added or changed.
        accepted: usize,
        /// Broken lines.
        rejected: usize,
        /// Devices that are no longer registered.
        removed: usize,
    },
}

/// A client, as events and lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientInfo {
    /// What it calls itself.
    pub client_id: String,
    /// Who it was shown to be; empty for a stranger.
    pub identity: String,
    /// What it may do on the two topics.
    pub role: &'static str,
    /// Its number, if it is a device.
    pub nid: Option<String>,
    /// Where it is connected from.
    pub peer: Option<String>,
}

/// An event with its place in the order of all that were told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Occurrence {
    /// From 1, one more for each.
    #[serde(skip)]
    pub number: u64,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: BrokerEvent,
}

/// What a listener hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Something has happened.
    Event(Arc<Occurrence>),
    /// So many events were told that it has missed this number of them.
    Missed(u64),
}

/// The place where events are told.
#[derive(Debug)]
pub(super) struct Events {
    sender: broadcast::Sender<Arc<Occurrence>>,
    /// Number of the last one. Held while it is sent, so that numbers are in order.
    last: Mutex<u64>,
    listeners: Arc<AtomicUsize>,
}

/// Hears events, from its making on.
#[derive(Debug)]
pub struct EventListener {
    receiver: broadcast::Receiver<Arc<Occurrence>>,
    listeners: Arc<AtomicUsize>,
}

impl BrokerEvent {
    /// Every name there is.
    pub const NAMES: &'static [&'static str] =
        &["connected", "disconnected", "refused", "registry", "campaign", "control", "settings"];

    /// Its kind, as streams name it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Disconnected { .. } => "disconnected",
            Self::Refused { .. } => "refused",
            Self::Registry(_) => "registry",
            Self::Campaign(_) => "campaign",
            Self::Control(_) => "control",
            Self::Settings { .. } => "settings",
        }
    }
}

impl From<Who<'_>> for ClientInfo {
    fn from(who: Who<'_>) -> Self {
        Self {
            client_id: who.client_id.to_owned(),
            identity: who.identity.name.to_string(),
            role: match who.identity.role {
                Role::Server => "server",
                Role::Device => "device",
                Role::Client => "client",
            },
            nid: who.identity.nid.map(|nid| nid.to_string()),
            peer: who.peer.map(|peer| peer.to_string()),
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        let (sender, _nobody_yet) = broadcast::channel(EVENTS_KEPT_MAX);
        Self { sender, last: Mutex::default(), listeners: Arc::default() }
    }
}

impl Events {
    /// Somebody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    /// Tells of an event, which is made only where somebody listens.
    pub(super) fn tell(&self, at: Timestamp, event: impl FnOnce() -> BrokerEvent) {
        if !self.is_heard() {
            return;
        }
        let event = event();
        let mut last = lock(&self.last);
        *last += 1;
        let occurrence = Occurrence { number: *last, at, event };
        // The last listener may just have gone.
        let _heard_or_not = self.sender.send(Arc::new(occurrence));
    }

    pub(super) fn listen(&self) -> EventListener {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        EventListener { receiver: self.sender.subscribe(), listeners: Arc::clone(&self.listeners) }
    }
}

impl EventListener {
    /// What comes next; nothing when the broker is gone. The future may be dropped.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.receiver.recv().await {
            Ok(occurrence) => Some(Heard::Event(occurrence)),
            Err(RecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Drop for EventListener {
    fn drop(&mut self) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

/// For serde's `serialize_with`.
pub(super) fn rfc3339<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&Rfc3339(*at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(nid: &str) -> BrokerEvent {
        BrokerEvent::Registry(RegistryChange::Removed { nid: nid.to_owned() })
    }

    #[tokio::test]
    async fn an_event_is_made_only_where_somebody_listens() {
        let events = Events::default();
        events.tell(Timestamp(0), || unreachable!("nobody listens"));
        let mut listener = events.listen();
        events.tell(Timestamp(5), || removed("7"));
        let heard = listener.next().await.unwrap();
        let Heard::Event(occurrence) = &heard else { panic!("{heard:?}") };
        assert_eq!((occurrence.number, occurrence.at), (1, Timestamp(5)));
        assert_eq!(occurrence.event, removed("7"));
        drop(listener);
        events.tell(Timestamp(0), || unreachable!("nobody listens any more"));
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_what_it_has_missed() {
        let events = Events::default();
        let (mut slow, mut other) = (events.listen(), events.listen());
        for _ in 0..EVENTS_KEPT_MAX + 3 {
            events.tell(Timestamp(0), || removed("7"));
            assert!(matches!(other.next().await, Some(Heard::Event(_))));
        }
        assert_eq!(slow.next().await, Some(Heard::Missed(3)));
        let next = slow.next().await;
        assert!(matches!(next, Some(Heard::Event(o)) if o.number == 4));
        drop(events);
        while slow.next().await.is_some() {}
    }

    #[test]
    fn events_are_flat_json() {
        let occurrence = Occurrence { number: 9, at: Timestamp(0), event: removed("7") };
        let json = serde_json::to_value(&occurrence).unwrap();
        let expected = serde_json::json!({
            "at": "1970-01-01T00:00:00.000Z", "change": "removed", "nid": "7",
        });
        assert_eq!(json, expected);
        assert!(BrokerEvent::NAMES.contains(&occurrence.event.name()));
    }
}
