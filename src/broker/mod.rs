//! The meeting place: use cases over the state that connections share, and the only locks.
//!
//! Lock order; whoever holds one may take those to the right, never to the left:
//! `seat` → `expirations` → `wills` → `interests` → `inbox` → `control` → `subscriptions` →
//! `retained` → `slots` → `outbox`.
//! No lock is held across an `.await`. Rights are asked under any of them and take none.
//!
//! A message is decided upon once, when it is published; per receiver nothing is left but to
//! append a reference. [`publish`](Broker::publish) returns when the broker owns the message.

mod admin;
mod attach;
mod events;
mod expirations;
mod keep;
mod operate;
mod outbox;
mod peer;
mod provision;
mod publish;
mod record;
mod rights;
mod sessions;
mod settings;
mod signal;
mod subscribe;
mod sys;
#[cfg(test)]
pub(crate) mod tests;
mod wills;
mod written;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

pub use admin::{DeviceFilter, DeviceInfo, NotEnded, NotReplaced, Page, QueueInfo, SessionInfo};
pub use attach::{Attached, Parting, Rejected};
pub use events::{BrokerEvent, ClientInfo, EventListener, Heard, Occurrence, RegistryChange};
pub use keep::{Loaded, NOTHING, NotKept, Restored};
pub use operate::{CampaignDeviceInfo, CampaignFilter, CampaignInfo, ExchangeInfo, NotReleased};
pub use outbox::OutboxLimits;
pub use peer::Peer;
pub use provision::{Waiting, stamped_sender};
pub use publish::{Published, Publisher, Who};
pub use rights::AclSlot;
pub use sessions::Handle;
pub use settings::{GroupSettingsInfo, NotSet};
pub use signal::{Calls, Signal};
pub use subscribe::{Reasons, Subscribed};
pub use sys::{Figures, SysTree};

use bytestring::ByteString;
use tokio::sync::Notify;

use crate::audit::AuditLog;
use crate::clock::Clock;
use crate::ids::{NidScheme, SessionKey, Timestamp};
use crate::log::{Repeats, Throttle};
use crate::metrics::{DropReason, Metrics, RspDelivery, RspMode, Snapshot};
use crate::route::{Retained, RetainedLimits, Subscriptions};
use crate::rsp::proof::TrustedIssuers;
use crate::rsp::{
    CampaignState, ControlUnit, DeviceState, ExpiredLetters, Inbox, InboxLimits, InboxSwept,
    TopicNames,
};
use crate::session::{SessionLimits, Untold};
use crate::store::{Store, Urgency};
use events::Events;
use expirations::Expirations;
use keep::Keeper;
use record::{News, Offence};
use rights::Author;
use sessions::{Sessions, lock};
use wills::Wills;
use written::Written;

/// What the broker needs to know to be made.
#[derive(Debug)]
pub struct BrokerOptions {
    /// Bounds of each session.
    pub session: SessionLimits,
    /// Bounds of each session's queue.
    pub outbox: OutboxLimits,
    /// Bounds of retained messages.
    pub retained: RetainedLimits,
    /// Bounds of the servers' inbox.
    pub inbox: InboxLimits,
    /// Sessions, connected or not.
    pub sessions_max: usize,
    /// Subscriptions of one session.
    pub subscriptions_max: usize,
    /// Bytes of their filters, and 256 for each of their levels.
    pub subscription_bytes_max: usize,
    /// Slashes in a topic name or filter.
    pub topic_levels_max: usize,
    /// How devices are numbered.
    pub scheme: NidScheme,
    /// The names of the two RSP topics.
    pub topics: TopicNames,
    /// Close a 3.x connection that spoofs a nid or a group (5 is told by reason code).
    pub close_on_identity_violation: bool,
    /// Write the proven sender into the envelopes that servers get, as the member `src`.
    pub stamps_member: bool,
    /// Whose eUICCs can prove that they have deleted a profile.
    pub issuers: TrustedIssuers,
    /// What becomes of a 3.x client that publishes what its ACL denies.
    pub untold_denial: Untold,
    /// One PUBLISH for all subscriptions of a session that match; else one for each.
    pub delivers_overlap_once: bool,
    /// Let clients publish what bridges say of themselves, below `$SYS/broker/connection`.
    pub takes_bridge_notifications: bool,
    /// Refuse what says it is UTF-8 and is not.
    pub checks_payload_format: bool,
    /// What the ids begin with that the broker gives.
    pub assigned_client_id_prefix: Arc<str>,
}

/// The broker.
#[derive(Debug)]
pub struct Broker {
    options: BrokerOptions,
    clock: Clock,
    metrics: Arc<Metrics>,
    audit: AuditLog,
    /// Refusals of one reason and identity that were recorded lately.
    audited: Mutex<Throttle<Offence>>,
    sessions: Sessions,
    expirations: Mutex<Expirations>,
    wills: Mutex<Wills>,
    subscriptions: RwLock<Subscriptions>,
    retained: RwLock<Retained<Author>>,
    control: Written<ControlUnit>,
    inbox: Written<Inbox>,
    /// What waits for others of its kind is due at another moment than before.
    due_changed: Notify,
    fresh_ids: AtomicU64,
    hasher: std::hash::RandomState,
    complaints: Mutex<Throttle<&'static str>>,
    events: Events,
    keeper: Keeper,
}

impl Broker {
    /// A broker without sessions. What it must not lose is written into the store; what was there
    /// before is for [`Broker::restore`]. Without a store, everything ends with the process.
    #[must_use]
    pub fn new(
        options: BrokerOptions,
        mut control: ControlUnit,
        clock: Clock,
        metrics: Arc<Metrics>,
        audit: AuditLog,
        store: Option<Arc<dyn Store>>,
    ) -> Self {
        let keeper = Keeper::new(store);
        let mut inbox = Inbox::new(options.inbox, control.options().scopes.clone());
        if keeper.is_on() {
            control.keep_rows();
            inbox.keep_rows();
        }
        Self {
            clock,
            metrics,
            audit,
            audited: Mutex::new(Throttle::new(COMPLAINT_INTERVAL, AUDITED_REASONS_MAX)),
            sessions: Sessions::new(options.sessions_max),
            expirations: Mutex::default(),
            wills: Mutex::default(),
            subscriptions: RwLock::default(),
            retained: RwLock::default(),
            inbox: Written::new(inbox),
            control: Written::new(control),
            due_changed: Notify::new(),
            fresh_ids: AtomicU64::new(0),
            hasher: std::hash::RandomState::new(),
            complaints: Mutex::new(Throttle::new(COMPLAINT_INTERVAL, COMPLAINT_REASONS_MAX)),
            events: Events::default(),
            keeper,
            options,
        }
    }

    /// The bounds this broker was made with.
    #[must_use]
    pub fn options(&self) -> &BrokerOptions {
        &self.options
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether a complaint about a peer is to be logged now, and how many like it were not since
    /// the last one. Peers decide how often they are refused, not how fast the log grows.
    #[must_use]
    pub fn complain(&self, reason: &'static str) -> Option<Repeats> {
        lock(&self.complaints).admit(reason, self.now())
    }

    /// Runs a function on the control unit: registry changes and queries of operators.
    pub fn with_control<T>(&self, change: impl FnOnce(&mut ControlUnit) -> T) -> T {
        self.control.change(&self.keeper, Urgency::Now, change).0
    }

    /// An id for a client that brings none `[MQTT-3.1.3-6]`: hard to guess, because whoever knows
    /// a client id may try to take its session.
    #[must_use]
    pub fn fresh_client_id(&self) -> ByteString {
        let random: [u64; 2] = [0, 1].map(|half| {
            let number = self.fresh_ids.fetch_add(1, Ordering::Relaxed);
            self.hasher.hash_one((number, half, self.now().0))
        });
        let prefix = &self.options.assigned_client_id_prefix;
        format!("{prefix}{:016x}{:016x}", random[0], random[1]).into()
    }

    /// Ends the connections of these sessions.
    pub fn kick(&self, keys: &[SessionKey]) {
        self.sessions.call(keys, Calls::KICK);
    }

    /// Has every connection look whether its user is still one.
    pub fn users_changed(&self) {
        self.sessions.all().iter().for_each(|handle| handle.signal.raise(Calls::USERS));
    }

    /// Tells every connection to say goodbye.
    pub fn shut_down(&self) {
        self.sessions.all().iter().for_each(|handle| handle.signal.raise(Calls::SHUTDOWN));
    }

    /// What time alone does: Wills fall due; sessions, mail, requests and exchanges expire. To be
    /// called about once a [`SWEEP_INTERVAL`].
    pub async fn sweep(&self) {
        let now = self.now();
        self.publish_due_wills(now).await;
        self.end_expired(now).await;
        write(&self.retained).sweep(now);
        let with_inbox = self.control.look().has_untold();
        let ((swept, told, news, changed), _nobody_waits) =
            self.change_together(with_inbox, |mut inbox, control, _step| {
                let mut swept = control.sweep(now);
                let mut told = Vec::new();
                for change in std::mem::take(&mut swept.untold) {
                    match inbox.as_deref_mut() {
                        Some(inbox) => told.push(self.announce(inbox, control, change, now)),
                        // It came just now: the next sweep has the inbox.
                        None => drop(control.not_told(change)),
                    }
                }
                (swept, told, News::of(control), control.take_changed())
            });
        told.iter().for_each(|told| self.note_told(told));
        self.record(news);
        self.tell_progress(changed);
        let ExpiredLetters { to_devices, to_groups } = swept.letters;
        self.metrics.rsp_settled(RspMode::Single, RspDelivery::Expired, to_devices);
        self.metrics.rsp_settled(RspMode::Multi, RspDelivery::Expired, to_groups);
        self.sessions.call(&swept.wake, Calls::MAIL);
        let InboxSwept { expired, wake } = self.change_inbox(|inbox| inbox.sweep(now));
        (0..expired).for_each(|_| self.metrics.dropped(DropReason::Expired));
        self.sessions.call(&wake, Calls::MAIL);
        self.record_held_back();
        for (reason, repeats) in lock(&self.complaints).quiet(now) {
            tracing::warn!("{reason}: {repeats}");
        }
    }

    /// Sizes for the gauges. Looks at every session: for scrapes, not for the path of a message.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for handle in self.sessions.all() {
            let (messages, bytes) = lock(&handle.outbox).size();
            snapshot.queue_messages += messages;
            snapshot.queue_bytes += bytes;
            if handle.is_online() {
                snapshot.sessions_connected += 1;
            } else {
                snapshot.sessions_away += 1;
            }
        }
        let subscriptions = read(&self.subscriptions);
        snapshot.subscriptions = subscriptions.len();
        snapshot.shared_subscriptions = subscriptions.shared();
        drop(subscriptions);
        let retained = read(&self.retained);
        snapshot.retained_messages = retained.len();
        snapshot.retained_bytes = retained.message_bytes();
        drop(retained);
        self.keeper.measure(&mut snapshot);
        let stats = self.control.look().stats();
        snapshot.rsp_mail_messages = stats.mail_messages;
        snapshot.rsp_mail_bytes = stats.mail_bytes;
        snapshot.rsp_devices_connected = stats.devices_online;
        snapshot.rsp_devices_away = stats.devices - stats.devices_online;
        snapshot.rsp_devices_replaced = stats.devices_replaced;
        snapshot.rsp_groups = stats.groups;
        let running = stats.campaigns_open - stats.campaigns_canary - stats.campaigns_halted;
        snapshot.rsp_campaigns = vec![
            (CampaignState::Running.name(), running),
            (CampaignState::Canary.name(), stats.campaigns_canary),
            (CampaignState::Halted.name(), stats.campaigns_halted),
            (CampaignState::Ended.name(), stats.campaigns_ended),
        ];
        let devices = |state: &DeviceState| {
            (state.name(), usize::try_from(stats.campaign_devices.of(*state)).unwrap_or(usize::MAX))
        };
        snapshot.rsp_campaign_devices = DeviceState::ALL.iter().map(devices).collect();
        snapshot.rsp_retry_bytes = stats.retry_bytes;
        snapshot
    }
}

/// One complaint of each kind is logged in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// Kinds of complaints that are told apart.
const COMPLAINT_REASONS_MAX: usize = 256;

/// Refusals that are told apart in the audit log, by reason and identity.
const AUDITED_REASONS_MAX: usize = 4096;

/// How often [`Broker::sweep`] is due.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
