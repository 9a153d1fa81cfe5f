//! What the rows of a step are about: devices by their numbers, rosters, and the rows of a store
//! that are put together again.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::{RosterRow, Rosters, Sheet, Table};
use crate::ids::Nid;
use crate::mqtt::Message;
use crate::rsp::registry::{DeviceKey, Registry};

/// Under which number the rows of a device stand, for those that have any.
#[derive(Debug, Default)]
pub(in crate::rsp) struct Devices {
    by_nid: HashMap<Nid, u64, RandomState>,
    pub(in crate::rsp) last: u64,
}

/// The parts of a device's row.
pub(in crate::rsp) mod part {
    /// What an operator has made of it.
    pub(in crate::rsp) const PUT: u32 = 0;
    /// It has given its profile away.
    pub(in crate::rsp) const REPLACED: u32 = 1;
    /// The proofs that it has used.
    pub(in crate::rsp) const SPENT: u32 = 2;
    /// A letter that it gets in pieces.
    pub(in crate::rsp) const PROGRESS: u32 = 3;
}

impl Devices {
    /// The number of a device that has rows from now on.
    pub(in crate::rsp) fn of(&mut self, nid: Nid) -> u64 {
        *self.by_nid.entry(nid).or_insert_with(|| {
            self.last += 1;
            self.last
        })
    }

    /// As it was before a restart.
    pub(in crate::rsp) fn know(&mut self, nid: Nid, number: u64) {
        self.last = self.last.max(number);
        self.by_nid.insert(nid, number);
    }

    /// Writes a part of a device's row, or deletes it.
    pub(in crate::rsp) fn write(
        &mut self,
        nid: Nid,
        part: u32,
        row: Option<&impl minicbor::Encode<()>>,
        sheet: &mut Sheet<'_>,
    ) {
        match (row, self.by_nid.get(&nid)) {
            (Some(row), _) => sheet.put(Table::Device, self.of(nid), part, row),
            (None, Some(number)) => sheet.delete(Table::Device, *number, part),
            (None, None) => {}
        }
    }
}

/// What is needed to write a step down.
pub(in crate::rsp) struct Book<'a, 'p> {
    pub(in crate::rsp) registry: &'a Registry,
    pub(in crate::rsp) rosters: &'a mut Rosters,
    pub(in crate::rsp) devices: &'a mut Devices,
    pub(in crate::rsp) sheet: &'a mut Sheet<'p>,
}

/// What is needed to read all of it again.
pub(in crate::rsp) struct Past<'a> {
    pub(in crate::rsp) registry: &'a Registry,
    pub(in crate::rsp) rosters: HashMap<u64, PastRoster>,
    pub(in crate::rsp) messages: &'a dyn Fn(u64) -> Option<Arc<Message>>,
    /// Rows that have become useless: all parts, or one.
    pub(in crate::rsp) useless: Vec<(Table, u64, Option<u32>)>,
}

/// The members of a roster. Who is gone comes behind all others.
pub(in crate::rsp) struct PastRoster {
    pub(in crate::rsp) members: Arc<Vec<u32>>,
    /// Where each place of the rows is now, if that is not where it was.
    places: Option<Vec<u32>>,
}

/// The index of a device that is gone: none has it.
pub(in crate::rsp) const GONE: u32 = u32::MAX;

impl Past<'_> {
    pub(in crate::rsp) fn device(&self, nid: super::NidRow) -> Option<(Nid, DeviceKey)> {
        let nid = nid.nid()?;
        Some((nid, self.registry.key(nid)?))
    }

    pub(in crate::rsp) fn message(&self, id: u64) -> Option<Arc<Message>> {
        (self.messages)(id)
    }

    pub(in crate::rsp) fn drop_all(&mut self, table: Table, id: u64) {
        self.useless.push((table, id, None));
    }

    /// Finds the devices of rosters.
    pub(in crate::rsp) fn find(&mut self, rows: impl IntoIterator<Item = (u64, RosterRow)>) {
        for (id, row) in rows {
            let roster = PastRoster::new(&row, self.registry);
            if roster.is_moved() {
                self.drop_all(Table::Roster, id);
            }
            self.rosters.insert(id, roster);
        }
    }
}

impl PastRoster {
    fn new(row: &RosterRow, registry: &Registry) -> Self {
        let key = |nid: &Option<Nid>| registry.key((*nid)?);
        let index = |nid: &Option<Nid>| key(nid).map_or(GONE, |key| key.index);
        let written: Vec<u32> = row.0.iter().map(index).collect();
        if written.is_sorted() {
            return Self { members: Arc::new(written), places: None };
        }
        let mut order: Vec<u32> = (0..).take(written.len()).collect();
        order.sort_by_key(|place| written[*place as usize]);
        let mut places = vec![0; order.len()];
        for (now, before) in (0..).zip(&order) {
            places[*before as usize] = now;
        }
        let members = order.iter().map(|place| written[*place as usize]).collect();
        Self { members: Arc::new(members), places: Some(places) }
    }

    /// Members stand in other places than in the rows.
    pub(in crate::rsp) fn is_moved(&self) -> bool {
        self.places.is_some()
    }

    /// Where a member is now.
    pub(in crate::rsp) fn place(&self, written: usize) -> Option<usize> {
        match &self.places {
            None => (written < self.members.len()).then_some(written),
            Some(places) => places.get(written).map(|place| *place as usize),
        }
    }

    /// The places of those who are gone.
    pub(in crate::rsp) fn gone(&self) -> std::ops::Range<usize> {
        self.members.partition_point(|index| *index < GONE)..self.members.len()
    }
}
