//! Reads what was written down, before anybody is served.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::rows::{self, InFlightRow, QueuedRow, RetainedRow, SessionRow, SubscriptionRow, Table};
use crate::broker::provision::mail;
use crate::broker::rights::{AclSlot, Author, Permit};
use crate::broker::sessions::{Handle, lock};
use crate::broker::{Broker, write};
use crate::ids::{ClientId, PacketId, SessionKey, Timestamp};
use crate::mqtt::{Message, QoS, Version, Will};
use crate::route::Grant;
use crate::rsp::{self, ControlRows, InboxRows};
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
    // Lists, which are given back as a whole: there may be millions.
    sessions: Vec<(u64, SessionRow)>,
    subscriptions: Vec<(u64, SubscriptionRow)>,
    queued: Vec<(u64, QueuedRow)>,
    in_flight: HashMap<u64, Vec<(PacketId, InFlightRow)>>,
    received: HashMap<u64, BTreeSet<PacketId>>,
    retained: BTreeMap<u64, RetainedRow>,
    wills: BTreeMap<u64, (u64, Timestamp, Will)>,
    control: ControlRows,
    inbox: InboxRows,
    unread: u64,
}

/// A session of which all is there but what was on its way to its client.
struct Opened {
    handle: Arc<Handle>,
    written: SessionRow,
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
    /// Letters to devices and groups.
    pub letters: usize,
    /// Messages for the servers.
    pub for_servers: usize,
    /// Rows that nobody can make sense of, or that belong to nothing.
    pub unread: u64,
}

impl Loaded {
    /// Takes a row.
    pub fn take(&mut self, key: Key, value: &[u8]) {
        let is_read = match rsp::rows::Table::of(key.table) {
            None => {
                self.last = self.last.max(key.id);
                self.read(key, value).is_some()
            }
            // These have numbers of their own.
            Some(table) if InboxRows::has(table, key.id) => {
                self.inbox.take(table, key.id, key.part, value).is_some()
            }
            Some(table) => self.control.take(table, key.id, key.part, value).is_some(),
        };
        self.unread += u64::from(!is_read);
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
            Table::Session => self.sessions.push((key.id, minicbor::decode(value).ok()?)),
            Table::Subscription => {
                self.subscriptions.push((key.id, minicbor::decode(value).ok()?));
            }
            Table::Queued => self.queued.push((key.id, minicbor::decode(value).ok()?)),
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
        self.restore_provisioning(&mut loaded);
        let (mut keys, mut opened) = (HashMap::new(), Vec::new());
        for (row, written) in std::mem::take(&mut loaded.sessions) {
            match self.restore_handle(row, &written) {
                Some(handle) => {
                    keys.insert(row, handle.key);
                    opened.push((row, Opened { handle, written }));
                }
                None => restored.unread += 1,
            }
        }
        restored.queued = self.restore_queues(&mut loaded, &keys);
        restored.sessions = keys.len();
        self.restore_subscriptions(&mut loaded, &keys);
        // Mail is given again to those who have subscribed to it.
        for (row, session) in opened {
            self.restore_session(row, session, &mut loaded);
        }
        let now = self.now();
        self.change_inbox(|inbox| inbox.place_restored(now));
        restored.letters = self.control.look().stats().mail_messages;
        restored.for_servers = self.inbox.look().len();
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

    /// The messages that wait for sessions, each session's oldest first; gives how many.
    fn restore_queues(&self, loaded: &mut Loaded, keys: &HashMap<u64, SessionKey>) -> usize {
        let mut count = 0;
        for (id, row) in std::mem::take(&mut loaded.queued) {
            let kept = self.keeper.guard_of(Table::Queued, id);
            let handle = keys.get(&row.session).and_then(|key| self.sessions.find(*key));
            let message = loaded.messages.get(&row.message);
            let (Some(handle), Some(message), Some(qos)) =
                (handle, message, QoS::from_bits(row.qos))
            else {
                continue;
            };
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
            lock(&handle.outbox).put_back([delivery]);
            count += 1;
        }
        count
    }

    /// The control unit and the inbox, where nobody has subscribed yet.
    fn restore_provisioning(&self, loaded: &mut Loaded) {
        let (control_rows, inbox_rows) =
            (std::mem::take(&mut loaded.control), std::mem::take(&mut loaded.inbox));
        let messages = &loaded.messages;
        let message = |id: u64| messages.get(&id).cloned();
        self.change_control(|control| control.restore(control_rows, message));
        self.change_inbox(|inbox| inbox.restore(inbox_rows, message));
    }

    fn restore_handle(&self, row: u64, written: &SessionRow) -> Option<Arc<Handle>> {
        let identity = written.identity.identity(self.options.scheme)?;
        Version::of_level(written.level)?;
        let client_id = ClientId::from(&*written.client_id);
        let mount_point = written.mount_point.as_deref().map(Arc::from);
        let handle = self.sessions.create(&client_id, &identity, mount_point.as_ref()).ok()??;
        handle.set_row(row);
        Some(handle)
    }

    fn restore_session(&self, row: u64, session: Opened, loaded: &mut Loaded) {
        let Opened { handle, written } = session;
        let in_flight = loaded.in_flight.remove(&row).unwrap_or_default();
        let past = Past {
            version: Version::of_level(written.level).unwrap_or(Version::V5),
            expiry: match written.expiry_ms {
                u64::MAX => Duration::MAX,
                ms => Duration::from_millis(ms),
            },
            received: loaded.received.remove(&row).unwrap_or_default(),
            in_flight: self.in_flight_again(&handle, in_flight),
        };
        let session = Box::new(Session::restored(past, &self.options.session));
        // Who was connected until the end has all its time from now on.
        let full = self.now().after(session.expiry());
        let until = written.until.map_or(full, Timestamp);
        lock(&self.expirations).insert(until, handle.key, &handle.identity);
        handle.park(session, until);
    }

    /// QoS 2 messages that were on their way, taken out of where they wait, in the order of
    /// sending. One that does not wait any more was taken by the client, or given up; then it has
    /// nothing to release, and says so.
    fn in_flight_again(
        &self,
        handle: &Handle,
        mut rows: Vec<(PacketId, InFlightRow)>,
    ) -> Vec<(PacketId, Option<Delivery>)> {
        rows.sort_unstable_by_key(|(_, row)| row.turn);
        let restored = rows.into_iter().filter_map(|(id, row)| {
            if row.is_released {
                return Some((id, None));
            }
            let (origin, queued) = row.origin()?;
            let delivery = match origin {
                Origin::Queue => lock(&handle.outbox).take_row(queued),
                Origin::Mailbox(letter) => self.letter_again(handle, letter),
                Origin::Inbox(number) => self.item_again(handle, number),
            };
            Some((id, delivery))
        });
        restored.collect()
    }

    fn letter_again(&self, handle: &Handle, letter: u64) -> Option<Delivery> {
        let (device, grant) = lock(&handle.interests).mailbox?;
        let message =
            self.change_control(|control| control.take_again(device, handle.key, letter))?;
        Some(mail_again(message, grant, Origin::Mailbox(letter)))
    }

    fn item_again(&self, handle: &Handle, number: u64) -> Option<Delivery> {
        let (grant, now) = (lock(&handle.interests).inbox?, self.now());
        let message = self.change_inbox(|inbox| inbox.take_again(handle.key, number, now))?;
        Some(mail_again(message, grant, Origin::Inbox(number)))
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

/// What was on its way had QoS 2.
fn mail_again(message: Arc<Message>, grant: Grant, origin: Origin) -> Delivery {
    Delivery { qos: QoS::ExactlyOnce, dup: true, ..mail(message, grant, origin) }
}
