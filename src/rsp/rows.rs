//! Rows: what the control unit and the servers' inbox have written down of themselves, so that it
//! is there after a restart.
//!
//! Each part of them notes which of its things have changed; [`ControlUnit::write`] and
//! [`Inbox::write`] put the rows of those into a [`Pen`], or delete them. Whoever drives them calls
//! it after each step, and makes all rows of a step one transaction. Nothing is noted before
//! [`ControlUnit::keep_rows`] asks for it: who keeps nothing pays nothing.
//!
//! * A value is a CBOR array, to which members may be added at the end.
//! * What concerns each member of a group is in pages, of which only those are written that have
//!   changed. Who the members are stands in a *roster*, once for all letters and requests of the
//!   same membership: a message to a million devices that are away costs one small row.
//! * Rows name devices by nid. An index means nothing after a restart.
//! * A message has one row, whoever keeps it; it must not go before what refers to it.
//!
//! [`ControlUnit::write`]: super::ControlUnit::write
//! [`ControlUnit::keep_rows`]: super::ControlUnit::keep_rows
//! [`Inbox::write`]: super::Inbox::write

mod devices;
mod pages;
mod roster;
mod sheet;

pub(super) use devices::{Book, Devices, GONE, Past, part};
pub(super) use pages::{MEMBERS_PER_PAGE, PageRows, Pages};
pub(super) use roster::{RosterRow, Rosters};
pub(super) use sheet::{NidRow, Sheet, TidRow};

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::mqtt::Message;

/// Where rows go.
pub trait Pen {
    /// The row has this value, whatever it had before. At most 1 MiB.
    fn put(&mut self, table: Table, id: u64, part: u32, value: &[u8]);

    /// The row is gone, if it was there.
    fn delete(&mut self, table: Table, id: u64, part: u32);

    /// All parts of the row are gone.
    fn delete_all(&mut self, table: Table, id: u64);

    /// The row of a message, which is written before anything that refers to it, and once.
    fn message(&mut self, message: &Arc<Message>) -> u64;

    /// A message that is not needed any more when all these rows are written, and not before.
    fn bury(&mut self, message: Arc<Message>);
}

/// The kinds of rows. The numbers stand in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Up to where things have been numbered: of the control unit, and of the inbox.
    Numbers = 16,
    /// The members of a group at one time; parts are pages.
    Roster = 17,
    /// What is known of a device beside the registry file; each part is another thing.
    Device = 18,
    /// Where the settings of all (0), or of a group, differ from the configuration file.
    Settings = 19,
    /// A letter to a device.
    Letter = 20,
    /// A letter to a group.
    GroupLetter = 21,
    /// Who is done with it; parts are pages.
    Done = 22,
    /// An A1, B1 or C1; see the ledger for its parts.
    Request = 23,
    /// How far each device is with it; parts are pages.
    States = 24,
    /// A D1.
    Wish = 25,
    /// D1s that wait for others; id is the batch.
    Gathered = 26,
    /// B1s that wait for their equals; id is the batch.
    Merging = 27,
    /// An exchange.
    Exchange = 28,
    /// A message for the servers: what it is, and on which desks it waits, if there are several.
    Item = 29,
    /// A desk of the servers.
    Desk = 30,
    /// A server that is away.
    Absence = 31,
    /// An answer to an A1 that came after those to newer ones.
    Said = 32,
    /// A profile change that no server could be told of yet.
    Untold = 33,
}

impl Table {
    const ALL: [Self; 18] = [
        Self::Numbers,
        Self::Roster,
        Self::Device,
        Self::Settings,
        Self::Letter,
        Self::GroupLetter,
        Self::Done,
        Self::Request,
        Self::States,
        Self::Wish,
        Self::Gathered,
        Self::Merging,
        Self::Exchange,
        Self::Item,
        Self::Desk,
        Self::Absence,
        Self::Said,
        Self::Untold,
    ];

    /// The table of this number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u8 == number)
    }
}

/// Things that have changed since they were written down. Nothing is noted while that is off.
#[derive(Debug)]
pub(super) struct Changed<K> {
    pub(super) on: bool,
    keys: BTreeSet<K>,
    buried: Vec<Arc<Message>>,
}

impl<K> Default for Changed<K> {
    fn default() -> Self {
        Self { on: false, keys: BTreeSet::new(), buried: Vec::new() }
    }
}

impl<K: Ord> Changed<K> {
    /// Nothing has changed yet, and what does is noted.
    pub(super) fn noting() -> Self {
        Self { on: true, ..Self::default() }
    }

    pub(super) fn note(&mut self, key: K) {
        if self.on {
            self.keys.insert(key);
        }
    }

    /// It need not be written any more.
    pub(super) fn forget(&mut self, key: &K) {
        self.keys.remove(key);
    }

    /// A message that something has kept until now.
    pub(super) fn bury(&mut self, message: &Arc<Message>) {
        if self.on {
            self.buried.push(Arc::clone(message));
        }
    }

    /// What has changed.
    pub(super) fn take(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.keys)
    }

    /// What has changed; the messages are buried.
    pub(super) fn hand_over(&mut self, sheet: &mut Sheet<'_>) -> BTreeSet<K> {
        self.buried.drain(..).for_each(|message| sheet.bury(message));
        self.take()
    }
}
