//! Rosters: the members of a group as they were at one time, written once for all letters and
//! requests to them.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::{Sheet, Table};
use crate::ids::{Nid, NidScheme};
use crate::rsp::registry::Registry;

/// The rosters that are written down.
#[derive(Debug, Default)]
pub(in crate::rsp) struct Rosters {
    /// By where the members lie in memory: they stay there while they are known here.
    by_address: HashMap<usize, u64, RandomState>,
    known: HashMap<u64, Known, RandomState>,
    pub(in crate::rsp) last: u64,
}

#[derive(Debug)]
struct Known {
    members: Arc<Vec<u32>>,
    users: usize,
}

/// The nids of a roster, in the order in which they stand in its pages; nobody where a device was
/// gone.
#[derive(Debug, Default)]
pub(in crate::rsp) struct RosterRow(pub(in crate::rsp) Vec<Option<Nid>>);

/// Members of one row: half of what a row may have.
const MEMBERS_PER_ROW: usize = 1 << 15;

/// Bytes of each.
const NID_BYTES: usize = 16;

impl Rosters {
    /// The roster of these members for one more user, written if it was not.
    pub(in crate::rsp) fn use_of(
        &mut self,
        members: &Arc<Vec<u32>>,
        registry: &Registry,
        sheet: &mut Sheet<'_>,
    ) -> u64 {
        let address = Arc::as_ptr(members) as usize;
        if let Some(id) = self.by_address.get(&address)
            && let Some(known) = self.known.get_mut(id)
        {
            known.users += 1;
            return *id;
        }
        self.last += 1;
        let id = self.last;
        for (part, some) in (0..).zip(members.chunks(MEMBERS_PER_ROW)) {
            let nid = |index: &u32| registry.nid_at(*index).map_or(0, Nid::get).to_be_bytes();
            let bytes: Vec<u8> = some.iter().flat_map(nid).collect();
            sheet.put_bytes(Table::Roster, id, part, &bytes);
        }
        self.know(id, members, 1);
        id
    }

    /// A user less; the last one takes the rows away.
    pub(in crate::rsp) fn release(&mut self, id: u64, sheet: &mut Sheet<'_>) {
        let Some(known) = self.known.get_mut(&id) else { return };
        known.users -= 1;
        if known.users == 0 {
            self.by_address.remove(&(Arc::as_ptr(&known.members) as usize));
            self.known.remove(&id);
            sheet.delete_all(Table::Roster, id);
        }
    }

    /// One that was read has one more user.
    pub(in crate::rsp) fn use_again(&mut self, id: u64) {
        self.known.get_mut(&id).into_iter().for_each(|known| known.users += 1);
    }

    /// Forgets those that were read and have no users: their rows are of no use.
    pub(in crate::rsp) fn tidy(&mut self, useless: &mut Vec<(Table, u64, Option<u32>)>) {
        self.known.retain(|id, known| {
            if known.users == 0 {
                self.by_address.remove(&(Arc::as_ptr(&known.members) as usize));
                useless.push((Table::Roster, *id, None));
            }
            known.users > 0
        });
    }

    /// One that has been read, and has no users yet.
    pub(in crate::rsp) fn know(&mut self, id: u64, members: &Arc<Vec<u32>>, users: usize) {
        self.last = self.last.max(id);
        self.by_address.insert(Arc::as_ptr(members) as usize, id);
        self.known.insert(id, Known { members: Arc::clone(members), users });
    }
}

impl RosterRow {
    /// Takes one of its rows, which come in their order. `None`: that is no such row.
    pub(in crate::rsp) fn take(&mut self, bytes: &[u8]) -> Option<()> {
        let (nids, []) = bytes.as_chunks::<NID_BYTES>() else { return None };
        let nid = |bytes: &[u8; NID_BYTES]| {
            Nid::new(u128::from_be_bytes(*bytes), NidScheme::Decimal).ok()
        };
        self.0.extend(nids.iter().map(nid));
        Some(())
    }
}
