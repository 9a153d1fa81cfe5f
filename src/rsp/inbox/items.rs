//! Everything that waits for a server, each message once, and the room it takes where it waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Addressee, DeskId, InboxLimits};
use crate::ids::{Nid, Timestamp};
use crate::mqtt::Message;

/// One message and whom it is for.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) message: Arc<Message>,
    /// The device, or nobody for what the control unit itself writes.
    sender: Option<Nid>,
    pub(super) to: Addressee,
    /// The desks that were given it, those included where it has been acknowledged.
    pub(super) desks: SmallVec<[DeskId; 1]>,
    /// Places where it waits.
    copies: u32,
}

/// All items, by their numbers: the order of publishing.
#[derive(Debug, Default)]
pub(super) struct Items {
    by_number: BTreeMap<u64, Item>,
    /// What has a time, soonest first.
    deadlines: BTreeSet<(Timestamp, u64)>,
    last_number: u64,
}

/// What waits in one place, be it in a server's hands or not.
#[derive(Debug, Default)]
pub(super) struct Room {
    taken: Load,
    /// What waits of each device: none may take the room of all the others.
    by_sender: HashMap<Nid, Load>,
}

/// Messages and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    messages: usize,
    bytes: usize,
}

impl Items {
    /// A new item that waits nowhere yet.
    pub(super) fn add(
        &mut self,
        message: &Arc<Message>,
        sender: Option<Nid>,
        to: &Addressee,
    ) -> u64 {
        self.last_number += 1;
        let (message, to) = (Arc::clone(message), to.clone());
        let item = Item { message, sender, to, desks: SmallVec::new(), copies: 0 };
        self.by_number.insert(self.last_number, item);
        self.watch(self.last_number);
        self.last_number
    }

    pub(super) fn get(&self, number: u64) -> Option<&Item> {
        self.by_number.get(&number)
    }

    /// It waits in one more place, if there is room for it.
    pub(super) fn enter(&mut self, number: u64, room: &mut Room, limits: &InboxLimits) -> bool {
        let Some(item) = self.by_number.get_mut(&number) else { return false };
        if !room.has(item.message.kept_bytes(), item.sender, limits) {
            return false;
        }
        room.take(item);
        item.copies += 1;
        true
    }

    /// The desk was given it.
    pub(super) fn note_desk(&mut self, number: u64, desk: DeskId) {
        if let Some(item) = self.by_number.get_mut(&number) {
            item.desks.push(desk);
        }
    }

    /// The desk has lost it, and is as if it never had it.
    pub(super) fn forget_desk(&mut self, number: u64, desk: DeskId) {
        if let Some(item) = self.by_number.get_mut(&number) {
            item.desks.retain(|id| *id != desk);
        }
    }

    /// It waits in one place less, and may be put into another one; else [`Items::tidy`].
    pub(super) fn withdraw(&mut self, number: u64, room: &mut Room) {
        let Some(item) = self.by_number.get_mut(&number) else { return };
        room.free(item);
        item.copies -= 1;
    }

    /// Forgets an item that waits nowhere.
    pub(super) fn tidy(&mut self, number: u64) {
        if self.get(number).is_none_or(|item| item.copies > 0) {
            return;
        }
        if let Some(item) = self.by_number.remove(&number) {
            self.deadlines.remove(&(item.message.expires, number));
        }
    }

    /// It waits in one place less: it was acknowledged there, or its time is over.
    pub(super) fn settle(&mut self, number: u64, room: &mut Room) {
        self.withdraw(number, room);
        self.tidy(number);
    }

    /// Has [`Items::next_due`] name it when its time is over.
    pub(super) fn watch(&mut self, number: u64) {
        let Some(item) = self.by_number.get(&number) else { return };
        if item.message.expires != Timestamp::NEVER {
            self.deadlines.insert((item.message.expires, number));
        }
    }

    /// An item whose time is over; each is named once.
    pub(super) fn next_due(&mut self, now: Timestamp) -> Option<u64> {
        let due = *self.deadlines.first().filter(|(expires, _)| *expires <= now)?;
        self.deadlines.remove(&due);
        Some(due.1)
    }
}

impl Item {
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.message.expires <= now
    }
}

impl Room {
    pub(super) fn messages(&self) -> usize {
        self.taken.messages
    }

    pub(super) fn bytes(&self) -> usize {
        self.taken.bytes
    }

    /// Whether this many more bytes of this sender find room.
    pub(super) fn has(&self, bytes: usize, sender: Option<Nid>, limits: &InboxLimits) -> bool {
        let load = sender.and_then(|nid| self.by_sender.get(&nid)).copied().unwrap_or_default();
        self.taken.messages < limits.messages_max
            && self.taken.bytes + bytes <= limits.bytes_max
            && load.messages < (limits.messages_max / SENDERS).max(SENDER_MESSAGES_MIN)
            && load.bytes + bytes <= (limits.bytes_max / SENDERS).max(SENDER_BYTES_MIN)
    }

    fn take(&mut self, item: &Item) {
        let bytes = item.message.kept_bytes();
        self.taken.add(bytes);
        if let Some(nid) = item.sender {
            self.by_sender.entry(nid).or_default().add(bytes);
        }
    }

    fn free(&mut self, item: &Item) {
        let bytes = item.message.kept_bytes();
        self.taken.subtract(bytes);
        let Some(nid) = item.sender else { return };
        let Some(load) = self.by_sender.get_mut(&nid) else { return };
        load.subtract(bytes);
        if load.messages == 0 {
            self.by_sender.remove(&nid);
        }
    }
}

impl Load {
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn subtract(&mut self, bytes: usize) {
        self.messages -= 1;
        self.bytes -= bytes;
    }
}

/// One device may fill this part of the inbox …
pub(super) const SENDERS: usize = 16;

/// … and this many messages …
const SENDER_MESSAGES_MIN: usize = 16;

/// … and bytes in any case.
const SENDER_BYTES_MIN: usize = 64 * 1024;
