//! What is written down, so that it is there after a restart: the rows of the store.
//!
//! Nothing is ever read back while the broker runs; what it works with is in memory. So writing
//! down is all there is, and it follows three rules.
//!
//! * A row is handed to the store **before** anybody can see what it stands for. Whoever takes the
//!   thing away hands in the deletion later, and the store keeps the order.
//! * A row is deleted when the last holder of its [`Kept`] is dropped, whatever the way: the
//!   message was acknowledged, expired, purged, or its session ended.
//! * An acknowledgement leaves when the store is as far as the [`Commit`] that it stands for
//!   ([`Broker::is_durable`]). Until then the connection holds it back and serves on.
//!
//! Messages of QoS 0 and sessions that end with their connection are not written down.

mod restore;
mod rows;

pub use restore::{Loaded, Restored};

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::rights::Permit;
use super::sessions::{Handle, lock};
use super::{Broker, Calls};
use crate::ids::{Kept, PacketId, Row, SessionKey, Timestamp};
use crate::metrics::Snapshot;
use crate::mqtt::{Message, Publish, QoS, Will};
use crate::route::Grant;
use crate::session::{Delivery, Session};
use crate::store::{Changes, Commit, Figures, Health, Key, Store, Trouble, Urgency, memory};
pub(super) use rows::PermitRow;
use rows::{Encoded, InFlightRow, QueuedRow, RetainedRow, SessionRow, SubscriptionRow, Table};

/// The store, and who waits for it.
pub(super) struct Keeper {
    store: Arc<dyn Store>,
    /// Anything is written down at all.
    keeps: bool,
    /// Number of the youngest row.
    last: AtomicU64,
    /// Connections that hold something back until the store is so far.
    waiting: Mutex<BTreeSet<(Commit, SessionKey)>>,
    /// The store is further than before.
    further: Notify,
}

/// Why nothing can be kept now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// The disk is slower than what comes in.
    Behind,
    /// It cannot be written.
    Failing(Trouble),
}

impl NotKept {
    /// The name that publishers are told.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Behind => "store_behind",
            Self::Failing(Trouble::Full) => "store_full",
            Self::Failing(Trouble::ReadOnly) => "store_read_only",
            Self::Failing(Trouble::Io) => "store_failing",
        }
    }

    /// What an operator is told.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Self::Behind => "The store's disk is too slow for what comes in",
            Self::Failing(Trouble::Full) => "The store's disk is full",
            Self::Failing(Trouble::ReadOnly) => "The store's disk is read-only",
            Self::Failing(Trouble::Io) => "The store cannot be written",
        }
    }
}

/// A row without parts; it goes when this is dropped.
struct Guard {
    id: u64,
    table: Table,
    store: Arc<dyn Store>,
}

impl Row for Guard {
    fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut changes = Changes::default();
        // One change is not too large.
        let _taken = changes.delete_all(self.table as u8, self.id);
        let _nobody_waits = self.store.commit(changes, Urgency::Lazy);
    }
}

/// What may wait for the disk altogether. Messages are refused long before.
const QUEUED_BYTES_MAX: u64 = 256 << 20;

/// Larger messages are written down in parts, in bytes.
const PART_BYTES: usize = 1 << 20;

/// Nothing has to be written down before.
pub const NOTHING: Commit = Commit(0);

/// What one step changes: all of it is there after a restart, or nothing.
pub(super) struct Step<'a> {
    keeper: &'a Keeper,
    changes: Changes,
    /// Their rows go after those that refer to them.
    buried: Vec<Arc<Message>>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("keeps", &self.keeps).finish_non_exhaustive()
    }
}

impl Keeper {
    pub(super) fn new(store: Option<Arc<dyn Store>>) -> Self {
        let keeps = store.is_some();
        let store = store.unwrap_or_else(|| Arc::new(memory()));
        Self {
            keeps,
            store,
            last: AtomicU64::new(0),
            waiting: Mutex::default(),
            further: Notify::new(),
        }
    }

    /// Rows get numbers above this from now on.
    fn go_on_from(&self, last: u64) {
        self.last.fetch_max(last, Ordering::Relaxed);
    }

    /// Whether anything is written down at all.
    pub(super) fn is_on(&self) -> bool {
        self.keeps
    }

    /// Why a message that has to be written down cannot be taken now; `None`: it can.
    pub(super) fn trouble(&self) -> Option<NotKept> {
        match self.store.health() {
            Health::Good => None,
            Health::Behind => Some(NotKept::Behind),
            Health::Failing(trouble) => Some(NotKept::Failing(trouble)),
        }
    }

    /// So much waits for a disk that cannot be written that nothing more is taken on, not even a
    /// session.
    pub(super) fn is_swamped(&self) -> bool {
        self.trouble().is_some() && self.store.figures().queued_bytes > QUEUED_BYTES_MAX
    }

    /// Numbers for gauges.
    pub(super) fn measure(&self, snapshot: &mut Snapshot) {
        let Figures { bytes, queued_bytes, errors, .. } = self.store.figures();
        snapshot.store_bytes = bytes;
        snapshot.store_queued_bytes = queued_bytes;
        snapshot.store_errors = errors;
    }

    /// Begins a step.
    pub(super) fn step(&self) -> Step<'_> {
        Step { keeper: self, changes: Changes::default(), buried: Vec::new() }
    }

    /// A session, where it outlives its connection. `until` when it is kept, where its client is
    /// away.
    pub(super) fn session(&self, handle: &Handle, session: &Session, until: Option<Timestamp>) {
        if !self.is_on() || (handle.row().is_none() && session.expiry().is_zero()) {
            return;
        }
        let row = handle.row().unwrap_or_else(|| self.next_id());
        handle.set_row(row);
        let expiry_ms = u64::try_from(session.expiry().as_millis()).unwrap_or(u64::MAX);
        let written = SessionRow {
            client_id: handle.client_id.as_str().to_owned(),
            identity: (&handle.identity).into(),
            mount_point: handle.mount_point.as_deref().map(str::to_owned),
            level: session.version().level(),
            expiry_ms,
            until: until.map(|until| until.0),
        };
        let mut step = self.step();
        step.push(Table::Session.key(row, 0), &written.bytes());
        step.commit_as(Urgency::Lazy);
    }

    /// The session is over. What was in its queue goes with the queue.
    pub(super) fn end(&self, handle: &Handle) {
        handle.row().into_iter().for_each(|row| self.forget(row));
    }

    fn forget(&self, row: u64) {
        let mut step = self.step();
        for table in [Table::Session, Table::InFlight, Table::Received] {
            step.delete_all(table, row);
        }
        step.commit_as(Urgency::Lazy);
    }

    /// A subscription of a session.
    pub(super) fn subscription(
        &self,
        handle: &Handle,
        filter: &str,
        grant: Grant,
    ) -> (Option<Kept>, Commit) {
        let Some(row) = handle.row() else { return (None, NOTHING) };
        let mut step = self.step();
        let kept = step.put(Table::Subscription, &SubscriptionRow::new(row, filter, grant));
        (Some(kept), step.commit())
    }

    /// A Will that waits for its delay.
    pub(super) fn will(&self, handle: &Handle, due: Timestamp, will: &Will) -> Option<Kept> {
        let row = handle.row()?;
        let mut step = self.step();
        let kept = step.put_bytes(Table::Will, &rows::will(row, due, will));
        step.commit();
        Some(kept)
    }

    /// A retained message.
    pub(super) fn retain(
        &self,
        message: &Message,
        owner: &str,
        permit: Option<&Permit>,
    ) -> Option<Kept> {
        if !self.is_on() {
            return None;
        }
        let (message, author) = (self.message(message), permit.map(Permit::author));
        let mut step = self.step();
        let row = RetainedRow { message, owner: owner.to_owned(), author };
        let kept = step.put(Table::Retained, &row);
        step.commit();
        Some(kept)
    }

    /// One delivery in the queue of a session.
    pub(super) fn queue(&self, handle: &Handle, delivery: &mut Delivery) {
        let mut step = self.step();
        step.queue(handle, delivery);
        step.commit();
    }

    /// A QoS 2 message is about to be sent under this id, and may be sent again under no other.
    pub(super) fn in_flight(&self, handle: &Handle, id: PacketId, delivery: &Delivery) -> Commit {
        let Some(session) = handle.row() else { return NOTHING };
        let queued = delivery.kept.as_ref().map_or(0, Kept::id);
        let row = InFlightRow::new(delivery.origin, queued, self.next_id());
        let mut step = self.step();
        step.push(Table::InFlight.key(session, id.get().into()), &row.bytes());
        step.commit()
    }

    /// The client has the QoS 2 message of this id: it must never get it again.
    pub(super) fn taken(&self, handle: &Handle, id: PacketId) -> Commit {
        let Some(session) = handle.row() else { return NOTHING };
        let mut step = self.step();
        let row = InFlightRow::released(self.next_id());
        step.push(Table::InFlight.key(session, id.get().into()), &row.bytes());
        step.commit()
    }

    /// A QoS 2 message to the client is over, and its id free.
    pub(super) fn completed(&self, handle: &Handle, id: PacketId) {
        let Some(session) = handle.row() else { return };
        let mut step = self.step();
        step.remove(Table::InFlight.key(session, id.get().into()));
        step.commit_as(Urgency::Lazy);
    }

    /// The client may use this id for another QoS 2 message, as soon as it is told.
    pub(super) fn released(&self, handle: &Handle, id: PacketId) -> Commit {
        let Some(session) = handle.row() else { return NOTHING };
        let mut step = self.step();
        step.remove(Table::Received.key(session, id.get().into()));
        step.commit()
    }

    /// Has everything written down that was handed in by now, for a session that is kept.
    pub(super) fn hasten(&self, handle: &Handle) -> Commit {
        match handle.row() {
            Some(_) => self.all(),
            None => NOTHING,
        }
    }

    /// Has everything written down that was handed in by now.
    pub(super) fn all(&self) -> Commit {
        if self.is_on() { self.store.commit(Changes::default(), Urgency::Now) } else { NOTHING }
    }

    /// The row of a message, which everybody who keeps the message shares.
    fn message(&self, message: &Message) -> u64 {
        let keep = || {
            let kept = self.guard(Table::Message);
            let mut step = self.step();
            rows::message(message).chunks(PART_BYTES).zip(0..).for_each(|(bytes, part)| {
                step.push(Table::Message.key(kept.id(), part), bytes);
            });
            step.commit();
            kept
        };
        message.kept(keep).id()
    }

    fn guard(&self, table: Table) -> Kept {
        self.guard_of(table, self.next_id())
    }

    fn guard_of(&self, table: Table, id: u64) -> Kept {
        Kept::new(Arc::new(Guard { id, table, store: Arc::clone(&self.store) }))
    }

    fn next_id(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Those who wait for no more than this.
    fn take_waiting(&self, durable: Commit) -> Vec<SessionKey> {
        let mut waiting = lock(&self.waiting);
        let others =
            waiting.split_off(&(Commit(durable.0 + 1), SessionKey { slot: 0, generation: 0 }));
        let ready = std::mem::replace(&mut *waiting, others);
        ready.into_iter().map(|(_, key)| key).collect()
    }
}

impl Step<'_> {
    /// A delivery in the queue of this session, if it is to be kept there. To be called before the
    /// delivery is appended, and committed, too.
    pub(super) fn queue(&mut self, handle: &Handle, delivery: &mut Delivery) {
        let Some(session) = handle.row().filter(|_| delivery.qos != QoS::AtMostOnce) else {
            return;
        };
        let row = QueuedRow {
            session,
            message: self.keeper.message(&delivery.message),
            qos: delivery.qos as u8,
            retain: delivery.retain,
            subscription_ids: delivery.subscription_ids.to_vec(),
            share: delivery.share.as_deref().map(Into::into),
        };
        delivery.kept = Some(self.put(Table::Queued, &row));
    }

    /// A QoS 2 message of this client has been taken, and is not to be taken again.
    pub(super) fn receive(&mut self, session: Option<u64>, received: Option<PacketId>) {
        if let (Some(session), Some(id)) = (session, received) {
            self.push(Table::Received.key(session, id.get().into()), &[]);
        }
    }

    pub(super) fn push(&mut self, key: Key, value: &[u8]) {
        if self.changes.put(key, value).is_err() {
            self.begin_anew();
            let _fits = self.changes.put(key, value);
        }
    }

    fn delete_all(&mut self, table: Table, id: u64) {
        self.remove_all(table as u8, id);
    }

    pub(super) fn remove(&mut self, key: Key) {
        if self.changes.delete(key).is_err() {
            self.begin_anew();
            let _fits = self.changes.delete(key);
        }
    }

    pub(super) fn remove_all(&mut self, table: u8, id: u64) {
        if self.changes.delete_all(table, id).is_err() {
            self.begin_anew();
            let _fits = self.changes.delete_all(table, id);
        }
    }

    /// The row of a message, which everybody who keeps the message shares.
    pub(super) fn message_row(&mut self, message: &Message) -> u64 {
        self.keeper.message(message)
    }

    /// A message that nobody else needs, perhaps.
    pub(super) fn keep_until_committed(&mut self, message: Arc<Message>) {
        self.buried.push(message);
    }

    /// Too much for one: in two it is as good for whoever waits for the second.
    fn begin_anew(&mut self) {
        let full = std::mem::take(&mut self.changes);
        let _later_will_do = self.keeper.store.commit(full, Urgency::Now);
    }

    fn put(&mut self, table: Table, row: &impl rows::Encoded) -> Kept {
        self.put_bytes(table, &row.bytes())
    }

    fn put_bytes(&mut self, table: Table, row: &[u8]) -> Kept {
        let kept = self.keeper.guard(table);
        self.push(table.key(kept.id(), 0), row);
        kept
    }

    /// Hands the step to the store: it comes before all that is handed in later.
    pub(super) fn commit(self) -> Commit {
        self.commit_as(Urgency::Now)
    }

    /// The same, where it may wait for others.
    pub(super) fn commit_as(self, urgency: Urgency) -> Commit {
        if self.changes.is_empty() {
            NOTHING
        } else {
            self.keeper.store.commit(self.changes, urgency)
        }
    }
}

/// Under which id a message came that may come again, and must be taken once.
pub(super) fn received(publish: &Publish) -> Option<PacketId> {
    publish.packet_id.filter(|_| publish.qos == QoS::ExactlyOnce)
}

impl Broker {
    /// Whether the store is so far: what waits for it may be told.
    #[must_use]
    pub fn is_durable(&self, commit: Commit) -> bool {
        commit == NOTHING || commit <= self.keeper.store.durable()
    }

    /// Has the connection of this session called with [`Calls::DURABLE`] when the store is so far.
    pub fn call_when_durable(&self, commit: Commit, handle: &Handle) {
        lock(&self.keeper.waiting).insert((commit, handle.key));
        // It may have come so far between the last look and this.
        if self.is_durable(commit) {
            handle.signal.raise(Calls::DURABLE);
        }
    }

    /// The same for who can wait.
    pub async fn durable(&self, commit: Commit) {
        loop {
            let further = self.keeper.further.notified();
            tokio::pin!(further);
            // Listen before looking: it may get so far in between.
            further.as_mut().enable();
            if self.is_durable(commit) {
                return;
            }
            further.await;
        }
    }

    /// Waits until everything is written down that has changed by now.
    pub async fn all_written(&self) {
        self.durable(self.keeper.all()).await;
    }

    /// The store is further than before.
    pub fn on_durable(&self) {
        let ready = self.keeper.take_waiting(self.keeper.store.durable());
        self.sessions.call(&ready, Calls::DURABLE);
        self.keeper.further.notify_waiters();
    }

    /// A QoS 2 message is about to be sent under this id: not before the store is so far.
    pub fn in_flight(&self, handle: &Handle, id: PacketId, delivery: &Delivery) -> Commit {
        self.keeper.in_flight(handle, id, delivery)
    }

    /// The client has taken the QoS 2 message of this id: to be answered when the store is so far.
    pub fn taken(&self, handle: &Handle, id: PacketId) -> Commit {
        self.keeper.taken(handle, id)
    }

    /// A QoS 2 message to the client is over.
    pub fn completed(&self, handle: &Handle, id: PacketId) {
        self.keeper.completed(handle, id);
    }

    /// Whether the disk can be written; if not, why.
    #[must_use]
    pub fn store_trouble(&self) -> Option<NotKept> {
        self.keeper.trouble()
    }

    /// Has everything written down that a session has handed in by now.
    pub fn hasten(&self, handle: &Handle) -> Commit {
        self.keeper.hasten(handle)
    }

    /// The client has released its QoS 2 message: to be answered when the store is so far.
    pub fn released(&self, handle: &Handle, id: PacketId) -> Commit {
        self.keeper.released(handle, id)
    }
}
