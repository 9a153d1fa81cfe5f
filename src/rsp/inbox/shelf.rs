//! One place where items wait, in *piles* of those that are for the same servers, so that a pile
//! moves to another place as a whole, however high it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::items::Item;
use super::{Addressee, InboxLimits};
use crate::ids::Nid;
use crate::rsp::scope::{ScopeId, ScopeIds, ServerScopes};

/// Whom an item is for. What is labelled alike goes the same ways.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label {
    /// The server that asked for it.
    pub(super) asker: Option<Arc<str>>,
    /// The scopes that its device belongs to.
    pub(super) scopes: ScopeIds,
    /// It was given to several desks; which ones, each item knows.
    pub(super) copied: bool,
}

/// What waits in one place, be it in a server's hands or not.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    piles: BTreeMap<Label, Pile>,
}

/// What is labelled alike.
#[derive(Clone, Debug, Default)]
pub(super) struct Pile {
    /// In nobody's hands.
    pub(super) waiting: BTreeSet<u64>,
    pub(super) room: Room,
}

/// The room that items take.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    taken: Load,
    /// What waits of each device: none may take the room of all the others.
    by_sender: HashMap<Nid, Load, RandomState>,
}

/// Messages and payload bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Label {
    pub(super) fn new(to: &Addressee, scopes: &ServerScopes) -> Self {
        Self { asker: to.asker.clone(), scopes: scopes.covering(&to.gids), copied: false }
    }

    /// Whether a server with this scope may have it. Whoever asked may, wherever the device has
    /// been moved to since.
    pub(super) fn is_for(&self, server: &str, scope: ScopeId) -> bool {
        self.scopes.contains(&scope) || self.asker.as_deref() == Some(server)
    }
}

impl Shelf {
    /// Adds an item.
    pub(super) fn put(&mut self, number: u64, item: &Item) {
        self.pile(&item.label).put(number, item);
    }

    /// Adds a whole pile. Where there is one like it, the lower one of both is moved.
    pub(super) fn add(&mut self, label: Label, mut pile: Pile) {
        let other = self.piles.entry(label).or_default();
        if other.room.taken.messages < pile.room.taken.messages {
            std::mem::swap(other, &mut pile);
        }
        other.waiting.extend(pile.waiting);
        other.room.merge(pile.room);
    }

    /// Takes whole piles away.
    pub(super) fn take(&mut self, wanted: impl Fn(&Label) -> bool) -> Self {
        let piles = std::mem::take(&mut self.piles).into_iter();
        let (taken, left) = piles.partition(|(label, _)| wanted(label));
        self.piles = left;
        Self { piles: taken }
    }

    /// An item that somebody had in hands waits again.
    pub(super) fn put_back(&mut self, number: u64, item: &Item) {
        self.pile(&item.label).waiting.insert(number);
    }

    /// Whether an item waits here, in nobody's hands.
    pub(super) fn is_waiting(&self, number: u64, item: &Item) -> bool {
        self.piles.get(&item.label).is_some_and(|pile| pile.waiting.contains(&number))
    }

    /// An item waits no more, but takes its room still. `false`: it did not wait here.
    pub(super) fn take_out(&mut self, number: u64, item: &Item) -> bool {
        let pile = self.piles.get_mut(&item.label);
        pile.is_some_and(|pile| pile.waiting.remove(&number))
    }

    /// An item that waits no more gives its room back.
    pub(super) fn free(&mut self, item: &Item) {
        let Some(pile) = self.piles.get_mut(&item.label) else { return };
        pile.room.free(item);
        if pile.room.is_empty() {
            self.piles.remove(&item.label);
        }
    }

    /// Whether this many more bytes of this sender find room beside what is labelled so that it
    /// `counts`. What comes from no sender is the control unit's own, and may stand for what many
    /// have said and were promised to be heard: it has no share, and where nothing is it has room.
    pub(super) fn has_room(
        &self,
        bytes: usize,
        sender: Option<Nid>,
        limits: &InboxLimits,
        counts: impl Fn(&Label) -> bool,
    ) -> bool {
        let (mut taken, mut own) = (Load::default(), Load::default());
        for (_, pile) in self.piles.iter().filter(|(label, _)| counts(label)) {
            taken.add(pile.room.taken);
            own.add(pile.room.taken_by(sender));
        }
        if sender.is_none() && taken.messages == 0 {
            return true;
        }
        taken.has_room(bytes, limits.messages_max, limits.bytes_max)
            && (sender.is_none()
                || own.has_room(
                    bytes,
                    (limits.messages_max / SENDERS).max(SENDER_MESSAGES_MIN),
                    (limits.bytes_max / SENDERS).max(SENDER_BYTES_MIN),
                ))
    }

    /// The piles with a label that is wanted. [`Shelf::tidy`] when items were taken from them.
    pub(super) fn select(&mut self, wanted: impl Fn(&Label) -> bool) -> Vec<&mut Pile> {
        let piles = self.piles.iter_mut();
        piles.filter(|(label, _)| wanted(label)).map(|(_, pile)| pile).collect()
    }

    /// Removes what is empty.
    pub(super) fn tidy(&mut self) {
        self.piles.retain(|_, pile| !pile.room.is_empty());
    }

    /// The labels of what is in nobody's hands.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Label> {
        let piles = self.piles.iter().filter(|(_, pile)| !pile.waiting.is_empty());
        piles.map(|(label, _)| label)
    }

    pub(super) fn load(&self) -> Load {
        let mut load = Load::default();
        self.piles.values().for_each(|pile| load.add(pile.room.taken));
        load
    }

    pub(super) fn is_empty(&self) -> bool {
        self.piles.is_empty()
    }

    pub(super) fn into_piles(self) -> impl Iterator<Item = (Label, Pile)> {
        self.piles.into_iter()
    }

    fn pile(&mut self, label: &Label) -> &mut Pile {
        if !self.piles.contains_key(label) {
            self.piles.insert(label.clone(), Pile::default());
        }
        self.piles.get_mut(label).expect("has just been inserted if it was not there")
    }
}

/// Takes the oldest of all that waits in these piles. It takes its room there still.
pub(super) fn pop_oldest<'p>(piles: &'p mut [&mut Pile]) -> Option<(u64, &'p mut Pile)> {
    let (number, pile) = oldest_from(piles, 0)?;
    pile.waiting.remove(&number);
    Some((number, pile))
}

/// The oldest of all that waits in these piles from this number on.
pub(super) fn oldest_from<'p>(
    piles: &'p mut [&mut Pile],
    from: u64,
) -> Option<(u64, &'p mut Pile)> {
    let first = |pile: &Pile| pile.waiting.range(from..).next().copied();
    let heads = piles.iter_mut().filter_map(|pile| Some((first(pile)?, &mut **pile)));
    heads.min_by_key(|(number, _)| *number)
}

impl Pile {
    /// These items.
    pub(super) fn of<'a>(items: impl Iterator<Item = (u64, &'a Item)>) -> Self {
        let mut pile = Self::default();
        items.for_each(|(number, item)| pile.put(number, item));
        pile
    }

    fn put(&mut self, number: u64, item: &Item) {
        self.waiting.insert(number);
        self.room.take(item);
    }
}

impl Room {
    pub(super) fn is_empty(&self) -> bool {
        self.taken.messages == 0
    }

    fn take(&mut self, item: &Item) {
        let load = item.load();
        self.taken.add(load);
        if let Some(nid) = item.sender {
            self.by_sender.entry(nid).or_default().add(load);
        }
    }

    pub(super) fn free(&mut self, item: &Item) {
        let load = item.load();
        self.taken.subtract(load);
        let Some(nid) = item.sender else { return };
        let Some(own) = self.by_sender.get_mut(&nid) else { return };
        own.subtract(load);
        if own.messages == 0 {
            self.by_sender.remove(&nid);
        }
    }

    fn taken_by(&self, sender: Option<Nid>) -> Load {
        sender.and_then(|nid| self.by_sender.get(&nid)).copied().unwrap_or_default()
    }

    fn merge(&mut self, other: Self) {
        self.taken.add(other.taken);
        for (nid, load) in other.by_sender {
            self.by_sender.entry(nid).or_default().add(load);
        }
    }
}

impl Load {
    pub(super) fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }

    fn subtract(&mut self, other: Self) {
        self.messages -= other.messages;
        self.bytes -= other.bytes;
    }

    fn has_room(self, bytes: usize, messages_max: usize, bytes_max: usize) -> bool {
        self.messages < messages_max && self.bytes + bytes <= bytes_max
    }
}

/// One device may fill this part of a server's room …
pub(super) const SENDERS: usize = 16;

/// … and this many messages …
const SENDER_MESSAGES_MIN: usize = 16;

/// … and bytes in any case.
const SENDER_BYTES_MIN: usize = 64 * 1024;
