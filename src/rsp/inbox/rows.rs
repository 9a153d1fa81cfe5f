//! The inbox writes down what waits, and reads it again.
//!
//! Where a message waits is not written down, unless it was given to several desks: a pile changes
//! its place as a whole, however high it is. After a restart, what was in one place goes to the
//! oldest of the desks that may have it, for that is where it was; or to those who had it in hands.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use minicbor::{Decode, Encode};
use smallvec::{SmallVec, smallvec};

use super::items::{DeskIds, Item};
use super::shelf::Label;
use super::{Addressee, DeskId, Inbox, Place};
use crate::ids::{Gid, Nid, SessionKey, Timestamp};
use crate::mqtt::Message;
use crate::rsp::rows::{Changed, NidRow, Pen, Sheet, Table};

/// What is known of the rows that are written.
#[derive(Debug)]
pub(super) struct Written {
    /// What came since they were written: whom it is for.
    new: BTreeMap<u64, Addressee>,
    desks: Changed<DeskId>,
    numbers: Numbers,
    /// What was read and has no place yet.
    unplaced: BTreeMap<u64, Unplaced>,
    /// Desks that were there, and may be opened again.
    closed: Vec<(DeskId, DeskRow)>,
}

/// The youngest of each kind: message, desk, absence.
type Numbers = [u64; 3];

/// The row of [`Numbers`]; that of the control unit has another.
const NUMBERS: u64 = 1;

#[derive(Debug)]
struct Unplaced {
    message: Arc<Message>,
    sender: Option<Nid>,
    to: Addressee,
    copies: Option<CopiesRow>,
}

/// The parts of a message's row.
mod part {
    pub(super) const ITEM: u32 = 0;
    pub(super) const COPIES: u32 = 1;
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct ItemRow {
    #[n(0)]
    message: u64,
    #[n(1)]
    sender: NidRow,
    #[n(2)]
    asker: Option<String>,
    #[n(3)]
    gids: Vec<u64>,
}

/// Which desks were given it, if they were several, and which have it still.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct CopiesRow {
    #[n(0)]
    given: Vec<DeskId>,
    #[n(1)]
    waiting: Vec<DeskId>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct DeskRow {
    #[n(0)]
    group: Option<String>,
    #[n(1)]
    session: Option<u64>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct AbsenceRow {
    #[n(0)]
    server: String,
    #[n(1)]
    since: u64,
}

/// The rows of an inbox, as they are read.
#[derive(Debug, Default)]
pub struct InboxRows {
    numbers: Numbers,
    items: BTreeMap<u64, ItemRow>,
    copies: HashMap<u64, CopiesRow>,
    desks: Vec<(DeskId, DeskRow)>,
    absences: Vec<(u64, AbsenceRow)>,
}

impl InboxRows {
    /// Whether it is a row of an inbox.
    #[must_use]
    pub fn has(table: Table, id: u64) -> bool {
        match table {
            Table::Numbers => id == NUMBERS,
            Table::Item | Table::Desk | Table::Absence => true,
            _ => false,
        }
    }

    /// Takes a row. `None`: nobody can make sense of it.
    pub fn take(&mut self, table: Table, id: u64, part: u32, value: &[u8]) -> Option<()> {
        match (table, part) {
            (Table::Numbers, _) => {
                let numbers: Vec<u64> = minicbor::decode(value).ok()?;
                self.numbers.iter_mut().zip(numbers).for_each(|(own, number)| *own = number);
            }
            (Table::Item, part::ITEM) => {
                self.items.insert(id, minicbor::decode(value).ok()?);
            }
            (Table::Item, part::COPIES) => {
                self.copies.insert(id, minicbor::decode(value).ok()?);
            }
            (Table::Desk, _) => self.desks.push((id, minicbor::decode(value).ok()?)),
            (Table::Absence, _) => self.absences.push((id, minicbor::decode(value).ok()?)),
            _ => return None,
        }
        Some(())
    }
}

impl Inbox {
    /// From now on it notes what has changed, to be written with [`Self::write`].
    pub fn keep_rows(&mut self) {
        (self.items.changed.on, self.absences.changed.on) = (true, true);
        self.written = Some(Box::new(Written {
            new: BTreeMap::new(),
            desks: Changed::noting(),
            numbers: Numbers::default(),
            unplaced: BTreeMap::new(),
            closed: Vec::new(),
        }));
    }

    pub(super) fn note_new(&mut self, number: u64, to: &Addressee) {
        let written = self.written.iter_mut();
        written.for_each(|written| drop(written.new.insert(number, to.clone())));
    }

    pub(super) fn note_desk(&mut self, id: DeskId) {
        self.written.iter_mut().for_each(|written| written.desks.note(id));
    }

    /// The name of a desk that is opened: its old one, if it was there before a restart.
    pub(super) fn desk_of(&mut self, group: Option<&str>, session: Option<u64>) -> DeskId {
        let is_same = |(_, row): &(DeskId, DeskRow)| match group {
            Some(_) => row.group.as_deref() == group,
            None => row.group.is_none() && session.is_some() && row.session == session,
        };
        let closed = self.written.as_mut().map(|written| &mut written.closed);
        let known = closed.and_then(|closed| {
            let at = closed.iter().position(is_same)?;
            Some(closed.swap_remove(at).0)
        });
        known.unwrap_or_else(|| {
            self.last_desk += 1;
            self.note_desk(self.last_desk);
            self.last_desk
        })
    }

    /// Writes what has changed since this was called last. To be called after each change, before
    /// anybody else sees it.
    pub fn write(&mut self, pen: &mut dyn Pen) {
        let Some(mut written) = self.written.take() else { return };
        let sheet = &mut Sheet::new(pen);
        for number in self.items.changed.hand_over(sheet) {
            let to = written.new.remove(&number);
            self.write_item(number, to, sheet);
        }
        written.new.clear();
        for id in written.desks.take() {
            match self.desks.iter().find(|desk| desk.id == id) {
                None => sheet.delete(Table::Desk, id, 0),
                Some(desk) if desk.group.is_some() || desk.session.is_some() => {
                    let row = DeskRow { group: desk.group.clone(), session: desk.session };
                    sheet.put(Table::Desk, id, 0, &row);
                }
                // It ends with the process.
                Some(_) => {}
            }
        }
        for row in self.absences.changed.take() {
            match self.absences.of_row(row) {
                None => sheet.delete(Table::Absence, row, 0),
                Some((server, since)) => {
                    let written = AbsenceRow { server: server.to_string(), since: since.0 };
                    sheet.put(Table::Absence, row, 0, &written);
                }
            }
        }
        let numbers = [self.items.last_number(), self.last_desk, self.absences.last_row()];
        if sheet.has_deleted && numbers != written.numbers {
            written.numbers = numbers;
            sheet.put(Table::Numbers, NUMBERS, 0, &numbers);
        }
        self.written = Some(written);
    }

    fn write_item(&self, number: u64, to: Option<Addressee>, sheet: &mut Sheet<'_>) {
        let Some(item) = self.items.get(number) else {
            sheet.delete_all(Table::Item, number);
            return;
        };
        let is_new = to.is_some();
        if let Some(to) = to {
            let row = ItemRow {
                message: sheet.message(&item.message),
                sender: item.sender.into(),
                asker: to.asker.as_deref().map(str::to_owned),
                gids: to.gids.iter().map(|gid| gid.get()).collect(),
            };
            sheet.put(Table::Item, number, part::ITEM, &row);
        }
        let given = item.desks().to_vec();
        if given.is_empty() {
            if !is_new {
                sheet.delete(Table::Item, number, part::COPIES);
            }
            return;
        }
        let has = |desk: &&super::Desk| given.contains(&desk.id) && desk.has_item(number, item);
        let waiting = self.desks.iter().filter(has).map(|desk| desk.id).collect();
        sheet.put(Table::Item, number, part::COPIES, &CopiesRow { given, waiting });
    }

    /// Reads what was written, before anybody has subscribed. What waits gets its place by
    /// [`Self::place_restored`].
    pub fn restore(&mut self, rows: InboxRows, message: impl Fn(u64) -> Option<Arc<Message>>) {
        if self.written.is_none() {
            self.keep_rows();
        }
        let Some(written) = &mut self.written else { return };
        let InboxRows { numbers, items, mut copies, desks, absences } = rows;
        let [last_number, last_desk, last_absence] = numbers;
        self.items.go_on_from(last_number);
        self.absences.go_on_from(last_absence);
        self.last_desk = desks.iter().map(|(id, _)| *id).fold(last_desk, DeskId::max);
        written.closed = desks;
        for (row, AbsenceRow { server, since }) in absences {
            self.absences.restore(row, server.into(), Timestamp(since));
        }
        for (number, row) in items {
            self.items.go_on_from(number);
            let copies = copies.remove(&number);
            let Some(message) = message(row.message) else {
                self.items.changed.note(number);
                continue;
            };
            let gids = row.gids.into_iter().filter_map(Gid::new).collect();
            let to = Addressee { asker: row.asker.map(Arc::from), gids };
            let unplaced = Unplaced { message, sender: row.sender.nid(), to, copies };
            written.unplaced.insert(number, unplaced);
        }
        copies.into_keys().for_each(|number| self.items.changed.note(number));
    }

    /// The session was given this message before a restart and may have it: it is given it again.
    /// `None`: it has acknowledged it, or the message is gone. To be called when all have
    /// subscribed again, and before [`Self::place_restored`].
    ///
    /// Where a session sits in several share groups, it may be given the copy of another one of
    /// them than before.
    pub fn take_again(
        &mut self,
        key: SessionKey,
        number: u64,
        now: Timestamp,
    ) -> Option<Arc<Message>> {
        self.place_one(number, Some(key), now);
        let item = self.items.get(number)?;
        let mut desks: Vec<_> = self.desks.iter_mut().filter(|desk| desk.has(key)).collect();
        // Nobody else could take it from a desk of the session's own.
        desks.sort_unstable_by_key(|desk| (desk.group.is_some(), desk.id));
        let is_given = desks.into_iter().any(|desk| desk.take_again(key, number, item));
        is_given.then(|| Arc::clone(&item.message))
    }

    /// All have subscribed again that had before: what was read finds its place.
    pub fn place_restored(&mut self, now: Timestamp) {
        // Whoever sits at several desks takes from the oldest first.
        self.desks.sort_unstable_by_key(|desk| desk.id);
        let unplaced = self.written.as_ref().map(|written| &written.unplaced);
        let numbers: Vec<u64> = unplaced.into_iter().flat_map(BTreeMap::keys).copied().collect();
        numbers.into_iter().for_each(|number| self.place_one(number, None, now));
        if let Some(written) = &mut self.written {
            let closed = std::mem::take(&mut written.closed);
            closed.into_iter().for_each(|(id, _)| written.desks.note(id));
        }
    }

    fn place_one(&mut self, number: u64, holder: Option<SessionKey>, now: Timestamp) {
        let unplaced = self.written.as_mut().and_then(|w| w.unplaced.remove(&number));
        let Some(Unplaced { message, sender, to, copies }) = unplaced else { return };
        let label = Label::new(&to, &self.scopes);
        let mut item = Item::new(&message, sender, label);
        let had_copies = copies.is_some();
        let place = match copies.and_then(|copies| self.given(&copies)) {
            Some((given, waiting)) => {
                if waiting.is_empty() {
                    self.items.changed.note(number);
                    self.items.changed.bury(&message);
                    return;
                }
                item.restore_copies(&given, waiting.len());
                Place::Desks(waiting)
            }
            None => self.only_place(&item.label, holder, now),
        };
        self.shelves(&place, now).into_iter().for_each(|shelf| shelf.put(number, &item));
        let is_copied = item.label.copied;
        self.items.add(number, item);
        if is_copied || !had_copies {
            // As it is written already.
            self.items.changed.forget(&number);
        }
    }

    /// Of several desks, those that are there, and the positions of those that have it still;
    /// `None` where none of them is.
    fn given(&self, copies: &CopiesRow) -> Option<(DeskIds, SmallVec<[usize; 4]>)> {
        let position = |id: &DeskId| self.desks.iter().position(|desk| desk.id == *id);
        let given = copies.given.iter().copied().filter(|id| position(id).is_some());
        let given: DeskIds = given.collect();
        let waiting = copies.waiting.iter().filter_map(position).collect();
        (!given.is_empty()).then_some((given, waiting))
    }

    /// The one place where it was: with who had it in hands, or on the oldest desk that may have
    /// it.
    fn only_place(&self, label: &Label, holder: Option<SessionKey>, now: Timestamp) -> Place {
        let oldest = |desks: SmallVec<[usize; 4]>| {
            desks
                .into_iter()
                .min_by_key(|at| (!self.desks[*at].may_have(label), self.desks[*at].id))
        };
        let held_at = holder.and_then(|key| oldest(self.positions(|desk| desk.has(key))));
        match (held_at, self.place_for(label, now)) {
            (Some(at), _) => Place::Desks(smallvec![at]),
            (None, Place::Desks(desks)) => {
                oldest(desks).map_or(Place::Unclaimed, |at| Place::Desks(smallvec![at]))
            }
            (None, place) => place,
        }
    }
}
