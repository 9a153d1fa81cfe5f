//! Everything that waits for a server, each message once.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry, OccupiedEntry};
use std::sync::Arc;

use smallvec::SmallVec;

use super::DeskId;
use super::shelf::{Label, Load, Pile, Shelf};
use crate::ids::{Nid, Timestamp};
use crate::mqtt::Message;
use crate::rsp::rows::Changed;

/// Several desks.
pub(super) type DeskIds = SmallVec<[DeskId; 4]>;

/// One message and whom it is for.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) message: Arc<Message>,
    /// The device, or nobody for what the control unit itself writes.
    pub(super) sender: Option<Nid>,
    pub(super) label: Label,
    /// The desks that were given it, those included where it has been acknowledged, if they were
    /// several; boxed because few items have them.
    desks: Option<Box<DeskIds>>,
    /// Places where it waits.
    copies: usize,
}

/// All items, by their numbers: the order of publishing.
#[derive(Debug, Default)]
pub(super) struct Items {
    by_number: BTreeMap<u64, Item>,
    /// What has a time, soonest first.
    deadlines: BTreeSet<(Timestamp, u64)>,
    last_number: u64,
    /// What has come, gone, or waits on fewer or other desks than before.
    pub(super) changed: Changed<u64>,
}

impl Item {
    /// An item for one place.
    pub(super) fn new(message: &Arc<Message>, sender: Option<Nid>, label: Label) -> Self {
        let message = Arc::clone(message);
        Self { message, sender, label, desks: None, copies: 1 }
    }

    /// It is put on several desks.
    pub(super) fn copy_to(&mut self, desks: &DeskIds) {
        self.label.copied = true;
        self.copies = desks.len();
        self.desks = Some(Box::new(desks.clone()));
    }

    /// The desks that were given it, if they were several.
    pub(super) fn desks(&self) -> &[DeskId] {
        self.desks.as_deref().map_or(&[], |desks| desks)
    }

    /// As it was before a restart: these desks were given it, and so many have it still.
    pub(super) fn restore_copies(&mut self, desks: &DeskIds, copies: usize) {
        self.copy_to(desks);
        self.copies = copies;
    }

    /// Whether any desk was given it that is to be kept in mind; the others are forgotten.
    fn keep_desks(&mut self, keep: impl Fn(DeskId) -> bool) -> bool {
        if let Some(desks) = &mut self.desks {
            desks.retain(|desk| keep(*desk));
        }
        let is_copied = self.desks.as_ref().is_some_and(|desks| !desks.is_empty());
        if !is_copied {
            (self.desks, self.label.copied) = (None, false);
        }
        is_copied
    }

    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.message.expires <= now
    }

    pub(super) fn load(&self) -> Load {
        Load { messages: 1, bytes: self.message.kept_bytes() }
    }
}

impl Items {
    /// Gives a number to an item before it is put anywhere.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Items were numbered up to this.
    pub(super) fn go_on_from(&mut self, number: u64) {
        self.last_number = self.last_number.max(number);
    }

    /// An item that has been put where it belongs.
    pub(super) fn add(&mut self, number: u64, item: Item) {
        self.by_number.insert(number, item);
        self.changed.note(number);
        self.watch(number);
    }

    pub(super) fn get(&self, number: u64) -> Option<&Item> {
        self.by_number.get(&number)
    }

    /// All that waits in a pile is put on several desks.
    pub(super) fn copy_to(&mut self, desks: &DeskIds, pile: &Pile) {
        for number in &pile.waiting {
            if let Some(item) = self.by_number.get_mut(number) {
                item.copy_to(desks);
                self.changed.note(*number);
            }
        }
    }

    /// A desk has lost a pile of which others may have copies, and is as if it never had it. Leaves
    /// in the pile what no open desk was given; it is in no other place.
    pub(super) fn lose_copies(
        &mut self,
        lost_by: DeskId,
        pile: &mut Pile,
        is_open: impl Fn(DeskId) -> bool,
    ) {
        let mut left = Vec::new();
        for number in &pile.waiting {
            let Entry::Occupied(mut entry) = self.by_number.entry(*number) else { continue };
            self.changed.note(*number);
            if entry.get_mut().keep_desks(|desk| desk != lost_by && is_open(desk)) {
                take_copy(entry, &mut self.deadlines, &mut self.changed);
            } else {
                left.push(*number);
            }
        }
        if left.len() < pile.waiting.len() {
            let items = left.iter().filter_map(|number| Some((*number, self.get(*number)?)));
            *pile = Pile::of(items);
        }
    }

    /// An item does not wait here any more: it was acknowledged, or its time is over.
    pub(super) fn settle(&mut self, number: u64, shelf: &mut Shelf) {
        let Entry::Occupied(entry) = self.by_number.entry(number) else { return };
        shelf.free(entry.get());
        take_copy(entry, &mut self.deadlines, &mut self.changed);
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

/// It waits in one place less. What waits nowhere is forgotten.
fn take_copy(
    mut entry: OccupiedEntry<'_, u64, Item>,
    deadlines: &mut BTreeSet<(Timestamp, u64)>,
    changed: &mut Changed<u64>,
) {
    changed.note(*entry.key());
    entry.get_mut().copies -= 1;
    if entry.get().copies == 0 {
        let (number, item) = entry.remove_entry();
        deadlines.remove(&(item.message.expires, number));
        changed.bury(&item.message);
    }
}
