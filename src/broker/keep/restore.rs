//! Reads what was written down, before anybody is served.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::rows::{self, InFlightRow, QueuedRow, RetainedRow, SessionRow, SubscriptionRow, Table};
use crate::broker::rights::{AclSlot, Author, Permit};
use crate::broker::sessions::lock;
use crate::broker::{Broker, write};
use crate::ids::{ClientId, PacketId, SessionKey, Timestamp};
use crate::mqtt::{Message, QoS, Version, Will};
use crate::session::{Delivery, Origin, Past, Session};
use crate::store::Key;

/// The rows of a store, as they are handed out by it, until they are put together.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The youngest number.
    last: u64,
    messages: HashMap<u64, Arc<Message>>,
    /// Parts of a message, of which more is to come.
    parts: (u64, Vec<u8>),
    sessions: BTreeMap<u64, SessionRow>,
    subscriptions: BTreeMap<u64, SubscriptionRow>,
    queued: BTreeMap<u64, QueuedRow>,
    in_flight: HashMap<u64, Vec<(PacketId, InFlightRow)>>,
    received: HashMap<u64, BTreeSet<PacketId>>,
    retained: BTreeMap<u64, RetainedRow>,
    wills: BTreeMap<u64, (u64, Timestamp, Will)>,
    unread: u64,
}

/// What came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Sessions.
    pub sessions: usize,
    /// Messages that wait for them.
    pub queued: usize,
    /// Retained messages.
    pub retained: usize,
    /// Rows that nobody can make sense of, or that belong to nothing.
    pub unread: u64,
}

impl Loaded {
    /// Takes a row.
    pub fn take(&mut self, key: Key, value: &[u8]) {
        self.last = self.last.max(key.id);
        if self.read(key, value).is_none() {
            self.unread += 1;
        }
    }

    /// The parts of a message come one after the other.
    fn end_message_before(&mut self, next: u64) {
        if self.parts.0 == next {
            return;
        }
        let (id, row) = std::mem::replace(&mut self.parts, (next, Vec::new()));
        if row.is_empty() {
            return;
        }
        match rows::read_message(row.into()) {
            Some(message) => drop(self.messages.insert(id, Arc::new(message))),
            None => self.unread += 1,
        }
    }

    fn read(&mut self, key: Key, value: &[u8]) -> Option<()> {
        let packet_id = || u16::try_from(key.part).ok().and_then(PacketId::new);
        match Table::of(key)? {
            Table::Message => {
                self.end_message_before(key.id);
                self.parts.1.extend_from_slice(value);
            }
            Table::Session => drop(self.sessions.insert(key.id, minicbor::decode(value).ok()?)),
            Table::Subscription => {
                self.subscriptions.insert(key.id, minicbor::decode(value).ok()?);
            }
            Table::Queued => drop(self.queued.insert(key.id, minicbor::decode(value).ok()?)),
            Table::InFlight => {
                let row: InFlightRow = minicbor::decode(value).ok()?;
                self.last = self.last.max(row.turn);
                self.in_flight.entry(key.id).or_default().push((packet_id()?, row));
            }
            Table::Received => {
                self.received.entry(key.id).or_default().insert(packet_id()?);
            }
            Table::Retained => drop(self.retained.insert(key.id, minicbor::decode(value).ok()?)),
            Table::Will => {
                let will = rows::read_will(Bytes::copy_from_slice(value))?;
                self.wills.insert(key.id, will);
            }
        }
        Some(())
    }
}

/// What waits for one session: by row, oldest first.
type Queue = BTreeMap<u64, Delivery>;

impl Broker {
    /// Puts together what a store has handed out. `acls` are the slots of all listeners: retained
    /// messages are served under the rights of their publishers.
    ///
    /// To be called once, before anybody connects.
    pub fn restore(&self, mut loaded: Loaded, acls: &[Arc<AclSlot>]) -> Restored {
        loaded.end_message_before(u64::MAX);
        self.keeper.go_on_from(loaded.last);
        // Whatever nobody asks for goes with its guard.
        for (id, message) in &loaded.messages {
            message.kept(|| self.keeper.guard_of(Table::Message, *id));
        }
        let mut restored = Restored { unread: loaded.unread, ..Restored::default() };
        restored.retained = self.restore_retained(&mut loaded, acls);
        let mut queues = self.restore_queues(&mut loaded);
        let mut keys = HashMap::new();
        for (row, session) in std::mem::take(&mut loaded.sessions) {
            let queue = queues.remove(&row).unwrap_or_default();
            let waiting = queue.len();
            match self.restore_session(row, &session, queue, &mut loaded) {
                Some(key) => {
                    keys.insert(row, key);
                    restored.queued += waiting;
                }
                None => restored.unread += 1,
            }
        }
        restored.sessions = keys.len();
        self.restore_subscriptions(&mut loaded, &keys);
        self.restore_wills(&mut loaded, &keys);
        loaded.in_flight.keys().chain(loaded.received.keys()).for_each(|session| {
            self.keeper.forget(*session);
        });
        restored
    }

    fn restore_retained(&self, loaded: &mut Loaded, acls: &[Arc<AclSlot>]) -> usize {
        let mut retained = write(&self.retained);
        // The youngest comes last, and takes the place of one that was about to go.
        for (id, row) in std::mem::take(&mut loaded.retained) {
            let kept = self.keeper.guard_of(Table::Retained, id);
            let Some(message) = loaded.messages.get(&row.message) else { continue };
            let permit = row.author.and_then(|author| Permit::restored(&author, acls));
            let author = Author { permit: permit.map(Arc::new), _kept: Some(kept) };
            // Bounds may have become narrower; then it stays away.
            let _fits = retained.keep(message, author, &row.owner, &self.options.retained);
        }
        retained.len()
    }

    /// The messages that wait, by session.
    fn restore_queues(&self, loaded: &mut Loaded) -> HashMap<u64, Queue> {
        let mut queues: HashMap<u64, Queue> = HashMap::new();
        for (id, row) in std::mem::take(&mut loaded.queued) {
            let kept = self.keeper.guard_of(Table::Queued, id);
            let message = loaded.messages.get(&row.message);
            let (Some(message), Some(qos)) = (message, QoS::from_bits(row.qos)) else { continue };
            let delivery = Delivery {
                kept: Some(kept),
                message: Arc::clone(message),
                qos,
                retain: row.retain,
                subscription_ids: row.subscription_ids.into(),
                origin: Origin::Queue,
                dup: true,
                share: row.share.as_deref().map(Into::into),
            };
            queues.entry(row.session).or_default().insert(id, delivery);
        }
        queues
    }

    fn restore_session(
        &self,
        row: u64,
        written: &SessionRow,
        mut queue: Queue,
        loaded: &mut Loaded,
    ) -> Option<SessionKey> {
        let identity = written.identity.identity(self.options.scheme)?;
        let client_id = ClientId::from(&*written.client_id);
        let mount_point = written.mount_point.as_deref().map(Arc::from);
        let handle = self.sessions.create(&client_id, &identity, mount_point.as_ref()).ok()??;
        handle.set_row(row);
        let past = Past {
            version: Version::of_level(written.level)?,
            expiry: match written.expiry_ms {
                u64::MAX => Duration::MAX,
                ms => Duration::from_millis(ms),
            },
            received: loaded.received.remove(&row).unwrap_or_default(),
            in_flight: in_flight(loaded.in_flight.remove(&row).unwrap_or_default(), &mut queue),
        };
        let session = Box::new(Session::restored(past, &self.options.session));
        lock(&handle.outbox).put_back(queue.into_values());
        // Who was connected until the end has all its time from now on.
        let full = self.now().after(session.expiry());
        let until = written.until.map_or(full, Timestamp);
        lock(&self.expirations).insert(until, handle.key, &handle.identity);
        handle.park(session, until);
        Some(handle.key)
    }

    fn restore_subscriptions(&self, loaded: &mut Loaded, keys: &HashMap<u64, SessionKey>) {
        // The youngest comes last, and takes the place of the one before.
        for (id, row) in std::mem::take(&mut loaded.subscriptions) {
            let kept = self.keeper.guard_of(Table::Subscription, id);
            let handle = keys.get(&row.session).and_then(|key| self.sessions.find(*key));
            if let (Some(handle), Some(grant)) = (handle, row.grant()) {
                self.subscribe_again(&handle, &row.filter.into(), grant, kept);
            }
        }
    }

    fn restore_wills(&self, loaded: &mut Loaded, keys: &HashMap<u64, SessionKey>) {
        for (id, (session, due, will)) in std::mem::take(&mut loaded.wills) {
            let kept = self.keeper.guard_of(Table::Will, id);
            if let Some(key) = keys.get(&session) {
                lock(&self.wills).put(*key, due, Box::new(will), Some(kept));
            }
        }
    }
}

/// QoS 2 messages that were on their way, taken out of the queue, in the order of sending.
fn in_flight(
    mut rows: Vec<(PacketId, InFlightRow)>,
    queue: &mut Queue,
) -> Vec<(PacketId, Option<Delivery>)> {
    rows.sort_unstable_by_key(|(_, row)| row.turn);
    let restored = rows.into_iter().filter_map(|(id, row)| {
        if row.is_released {
            return Some((id, None));
        }
        match row.origin()? {
            // One that does not wait any more was taken by the client, or given up; then it has
            // nothing to release, and says so.
            (Origin::Queue, queued) => Some((id, queue.remove(&queued))),
            (Origin::Mailbox(_) | Origin::Inbox(_), _) => None,
        }
    });
    restored.collect()
}
