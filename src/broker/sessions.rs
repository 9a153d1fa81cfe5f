//! The table of sessions: by key for deliveries, by client id for connects.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arc_swap::ArcSwapOption;
use bytestring::ByteString;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::quality::RandomState;
use tokio::sync::Notify;

use super::BrokerOptions;
use super::admin::Page;
use super::outbox::Outbox;
use super::peer::Peer;
use super::publish::{Publisher, Who};
use super::rights::Permit;
use super::signal::{Calls, Signal};
use crate::ids::{ClientId, Kept, SessionKey, Timestamp};
use crate::mqtt::{Version, detached, topic};
use crate::route::Grant;
use crate::rsp::{DeviceKey, Identity, Reader};
use crate::session::{Opening, Session};

/// What the broker holds of a session beside its state machine.
#[derive(Debug)]
pub struct Handle {
    /// Its name in every index.
    pub key: SessionKey,
    /// The client's identifier.
    pub client_id: ClientId,
    /// Who the client is. A session belongs to this identity alone.
    pub identity: Identity,
    /// What stands before every topic of this session.
    pub mount_point: Option<Arc<str>>,
    /// Calls the connection's task.
    pub signal: Signal,
    /// Where the client is connected from.
    pub(super) peer: Mutex<Option<Peer>>,
    /// The protocol that the client spoke last, and since when.
    pub(super) opened: Mutex<Option<(Version, Timestamp)>>,
    /// The largest packet that the client takes, in bytes `[MQTT-3.1.2-24]`.
    packet_bytes_max: AtomicU32,
    /// What carried it.
    pub(super) transport: Mutex<Option<&'static str>>,
    /// A connection owns the session now.
    pub(super) online: AtomicBool,
    pub(super) outbox: Mutex<Outbox>,
    pub(super) interests: Mutex<Interests>,
    /// Under the ACL of the listener that the client came through last; none without an ACL.
    pub(super) permit: ArcSwapOption<Permit>,
    /// Some subscription matches more than the client may read, or did: deliveries have to be
    /// looked at. Once raised it stays so.
    pub(super) wide: AtomicBool,
    /// Raised when a congested outbox has been drained.
    pub(super) drained: Notify,
    /// Its row in the store; zero, where it ends with its connection.
    row: AtomicU64,
    seat: Mutex<Seat>,
    vacated: Notify,
}

/// What a session is subscribed to.
#[derive(Debug, Default)]
pub(super) struct Interests {
    /// Every filter as the client wrote it.
    pub(super) filters: BTreeMap<ByteString, Subscribed>,
    /// What they count together.
    filter_bytes: usize,
    /// The device whose mail this session reads.
    pub(super) mailbox: Option<(DeviceKey, Grant)>,
    /// The grant under which this session serves as SM-SR.
    pub(super) inbox: Option<Grant>,
}

impl Interests {
    /// Whether a client may subscribe to this filter, too.
    pub(super) fn has_room(&self, filter: &ByteString, options: &BrokerOptions) -> bool {
        self.filters.contains_key(filter)
            || self.filters.len() < options.subscriptions_max
                && self.filter_bytes + cost(filter) <= options.subscription_bytes_max
    }

    /// Notes a filter; the packet that it came in is not kept.
    pub(super) fn insert(&mut self, filter: &ByteString, target: Target, kept: Option<Kept>) {
        let subscribed = Subscribed { target, _kept: kept };
        if self.filters.insert(detached(filter), subscribed).is_none() {
            self.filter_bytes += cost(filter);
        }
    }

    /// Forgets a filter.
    pub(super) fn remove(&mut self, filter: &ByteString) -> Option<Target> {
        let subscribed = self.filters.remove(filter)?;
        self.filter_bytes -= cost(filter);
        Some(subscribed.target)
    }
}

/// What a filter counts: many levels of little text take more room than their text.
fn cost(filter: &str) -> usize {
    filter.len() + (topic::depth(filter) + 1) * LEVEL_BYTES
}

/// A level of the trie that no other filter shares, roughly.
const LEVEL_BYTES: usize = 256;

/// A subscription of a session.
#[derive(Debug)]
pub(super) struct Subscribed {
    pub(super) target: Target,
    /// Its row in the store.
    _kept: Option<Kept>,
}

/// Where a subscription lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Ordinary,
    Mailbox,
    Inbox,
}

/// Who has the state machine of a session.
#[derive(Debug)]
enum Seat {
    /// A connection's task.
    Taken,
    /// Nobody: the client is away until it returns, or until this moment.
    Free(Box<Session>, Timestamp),
    /// The session is over.
    Ended,
}

/// What a connection that wants a session finds.
#[derive(Debug)]
pub(super) enum Claim {
    Taken,
    Got(Box<Session>, Timestamp),
    Ended,
}

impl Handle {
    fn new(
        key: SessionKey,
        client_id: ClientId,
        identity: Identity,
        mount_point: Option<Arc<str>>,
    ) -> Self {
        Self {
            key,
            client_id,
            identity,
            mount_point,
            signal: Signal::default(),
            peer: Mutex::default(),
            opened: Mutex::default(),
            packet_bytes_max: AtomicU32::new(u32::MAX),
            transport: Mutex::default(),
            online: AtomicBool::new(true),
            outbox: Mutex::default(),
            interests: Mutex::default(),
            permit: ArcSwapOption::empty(),
            wide: AtomicBool::new(false),
            drained: Notify::new(),
            row: AtomicU64::new(0),
            seat: Mutex::new(Seat::Taken),
            vacated: Notify::new(),
        }
    }

    /// Its row in the store, where it outlives its connection.
    pub(super) fn row(&self) -> Option<u64> {
        match self.row.load(Ordering::Relaxed) {
            0 => None,
            row => Some(row),
        }
    }

    pub(super) fn set_row(&self, row: u64) {
        self.row.store(row, Ordering::Relaxed);
    }

    /// This session as the reader of a device's mail.
    pub(super) fn reader(&self) -> Reader {
        Reader { key: self.key, packet_bytes_max: self.packet_bytes_max.load(Ordering::Relaxed) }
    }

    /// What the connection says that has just taken the session.
    pub(super) fn note_opened(&self, opening: &Opening, now: Timestamp) {
        *lock(&self.opened) = Some((opening.version, now));
        let bytes = u32::try_from(opening.packet_bytes_max).unwrap_or(u32::MAX);
        self.packet_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Takes the state machine; asks the present owner to leave, by this call, and waits for it.
    /// Beside it, until when it would have waited.
    pub(super) async fn claim(&self, call: Calls) -> Option<(Box<Session>, Timestamp)> {
        loop {
            let vacated = self.vacated.notified();
            tokio::pin!(vacated);
            // Listen before looking: the owner may leave in between.
            vacated.as_mut().enable();
            match self.try_claim() {
                Claim::Got(session, until) => return Some((session, until)),
                Claim::Ended => return None,
                Claim::Taken => {}
            }
            self.signal.raise(call);
            vacated.await;
        }
    }

    /// Takes the state machine if nobody has it.
    pub(super) fn try_claim(&self) -> Claim {
        let mut seat = lock(&self.seat);
        match std::mem::replace(&mut *seat, Seat::Taken) {
            Seat::Taken => Claim::Taken,
            Seat::Free(session, until) => {
                // Calls for the former owner's connection mean it, not its successor.
                self.signal.withdraw(Calls::TAKEOVER.with(Calls::KICK));
                self.online.store(true, Ordering::Relaxed);
                Claim::Got(session, until)
            }
            Seat::Ended => {
                *seat = Seat::Ended;
                Claim::Ended
            }
        }
    }

    /// Takes the state machine if the client has been away until its expiry.
    pub(super) fn claim_expired(&self, now: Timestamp) -> Option<Box<Session>> {
        let mut seat = lock(&self.seat);
        match std::mem::replace(&mut *seat, Seat::Ended) {
            Seat::Free(session, until) if until <= now => Some(session),
            other @ (Seat::Taken | Seat::Free(..) | Seat::Ended) => {
                *seat = other;
                None
            }
        }
    }

    /// The client is away; the state machine is still to be given back.
    pub(super) fn leave(&self) {
        self.online.store(false, Ordering::Relaxed);
    }

    /// Gives the state machine back: the client is away.
    pub(super) fn park(&self, session: Box<Session>, until: Timestamp) {
        self.leave();
        *lock(&self.seat) = Seat::Free(session, until);
        self.vacated.notify_waiters();
    }

    /// The session is over.
    pub(super) fn end(&self) {
        self.leave();
        *lock(&self.seat) = Seat::Ended;
        self.vacated.notify_waiters();
    }

    /// Notes what carries the connection, for operators.
    pub fn note_transport(&self, name: &'static str) {
        *lock(&self.transport) = Some(name);
    }

    /// The client of this session.
    #[must_use]
    pub fn who(&self) -> Who<'_> {
        let peer = *lock(&self.peer);
        Who { identity: &self.identity, client_id: self.client_id.as_str(), peer }
    }

    /// The client of this session as a publisher.
    #[must_use]
    pub fn publisher(&self) -> Publisher<'_> {
        let permit = self.permit.load_full();
        Publisher { key: Some(self.key), who: self.who(), row: self.row(), permit }
    }

    /// A connection owns the session now.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Relaxed)
    }
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    by_client: DashMap<ClientId, Arc<Handle>, RandomState>,
    slots: RwLock<Slots>,
    count: AtomicUsize,
    sessions_max: usize,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    handle: Option<Arc<Handle>>,
}

impl Slots {
    /// The session of this key; nothing when it has ended, whoever has its slot now.
    pub(super) fn find(&self, key: SessionKey) -> Option<&Arc<Handle>> {
        let slot = self.slots.get(key.slot as usize)?;
        slot.handle.as_ref().filter(|_| slot.generation == key.generation)
    }

    fn reserve(&mut self) -> SessionKey {
        if let Some(slot) = self.free.pop() {
            return SessionKey { slot, generation: self.slots[slot as usize].generation };
        }
        let slot = u32::try_from(self.slots.len()).expect("`limits.max_sessions` is far lower");
        self.slots.push(Slot { generation: 0, handle: None });
        SessionKey { slot, generation: 0 }
    }

    fn release(&mut self, key: SessionKey) {
        let slot = &mut self.slots[key.slot as usize];
        slot.handle = None;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.slot);
    }
}

impl Sessions {
    pub(super) fn new(sessions_max: usize) -> Self {
        Self {
            by_client: DashMap::with_hasher(RandomState::default()),
            slots: RwLock::default(),
            count: AtomicUsize::new(0),
            sessions_max,
        }
    }

    /// The session of this client.
    pub(super) fn of_client(&self, client_id: &ClientId) -> Option<Arc<Handle>> {
        self.by_client.get(client_id).map(|handle| Arc::clone(&handle))
    }

    /// A new session, owned by the caller's connection. `Ok(None)`: another connection of this
    /// client was faster. `Err`: there is no room for more sessions.
    pub(super) fn create(
        &self,
        client_id: &ClientId,
        identity: &Identity,
        mount_point: Option<&Arc<str>>,
    ) -> Result<Option<Arc<Handle>>, TooManySessions> {
        if self.count.load(Ordering::Relaxed) >= self.sessions_max {
            return Err(TooManySessions);
        }
        // The lock on the client's entry is held while the slot is filled: a session that can be
        // found by its client can be found by its key.
        let Entry::Vacant(entry) = self.by_client.entry(client_id.clone()) else {
            return Ok(None);
        };
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let key = slots.reserve();
        let handle = Handle::new(key, client_id.clone(), identity.clone(), mount_point.cloned());
        let handle = Arc::new(handle);
        slots.slots[key.slot as usize].handle = Some(Arc::clone(&handle));
        entry.insert(Arc::clone(&handle));
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(Some(handle))
    }

    /// Removes a session from all indexes.
    pub(super) fn remove(&self, handle: &Handle) {
        let removed = self.by_client.remove_if(&handle.client_id, |_, h| h.key == handle.key);
        if removed.is_some() {
            self.slots.write().unwrap_or_else(PoisonError::into_inner).release(handle.key);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A page of the sessions that are `wanted`, from this slot on.
    pub(super) fn page(
        &self,
        from: u32,
        limit: usize,
        wanted: impl Fn(&Handle) -> bool,
    ) -> Page<Arc<Handle>> {
        let slots = self.slots();
        let rest = slots.slots.get(from as usize..).unwrap_or_default();
        let handles = rest.iter().map(|slot| slot.handle.clone().filter(|h| wanted(h)));
        // In this order: behind the last slot there may be no number any more.
        Page::collect(handles.zip(from..).map(|(handle, slot)| (slot, handle)), limit)
    }

    /// The session of this key.
    pub(super) fn find(&self, key: SessionKey) -> Option<Arc<Handle>> {
        self.slots().find(key).cloned()
    }

    /// Looks at sessions by key; hold it briefly, and across no `.await`.
    pub(super) fn slots(&self) -> std::sync::RwLockReadGuard<'_, Slots> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the connections of these sessions.
    pub(super) fn call(&self, keys: &[SessionKey], call: Calls) {
        if keys.is_empty() {
            return;
        }
        let slots = self.slots();
        keys.iter().filter_map(|key| slots.find(*key)).for_each(|h| h.signal.raise(call));
    }

    /// Every session there is now.
    pub(super) fn all(&self) -> Vec<Arc<Handle>> {
        self.slots().slots.iter().filter_map(|slot| slot.handle.clone()).collect()
    }
}

/// `limits.max_sessions` is reached.
#[derive(Debug)]
pub(super) struct TooManySessions;

/// Locks; a panic of another task while it held the lock does not take this one along.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;
    use crate::broker::tests::{connect, session_limits};
    use crate::session::{Opening, SessionLimits};

    fn session() -> Box<Session> {
        let limits = SessionLimits { expiry_max: Duration::MAX, ..session_limits() };
        let connect = connect("c");
        let opening = Opening::new(&connect, &limits, || "fresh".into()).unwrap();
        Box::new(Session::new(&opening, &limits, Timestamp(0)))
    }

    #[tokio::test]
    async fn who_takes_over_is_not_sent_away_by_its_own_call() {
        let sessions = Sessions::new(1);
        let identity = Identity::anonymous("");
        let handle = sessions.create(&ClientId::from("c"), &identity, None).unwrap().unwrap();
        let mut claim = std::pin::pin!(handle.claim(Calls::TAKEOVER));
        let context = &mut Context::from_waker(Waker::noop());
        assert!(claim.as_mut().poll(context).is_pending());
        // The former owner is leaving already and looks at no call any more.
        handle.park(session(), Timestamp::NEVER);
        assert!(claim.await.is_some());
        assert_eq!(handle.signal.poll_take(context), Poll::Pending);
        // From here on a call means the new owner.
        handle.signal.raise(Calls::TAKEOVER);
        assert_eq!(handle.signal.poll_take(context), Poll::Ready(Calls::TAKEOVER));
    }
}
