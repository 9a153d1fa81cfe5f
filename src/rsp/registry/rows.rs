//! What operators have changed in the registry, which counts more than the registry file; and the
//! rows of that.

use minicbor::{Decode, Encode};

use super::super::rows::{Book, Changed, NidRow, part};
use super::{Gids, Registry};
use crate::ids::{Gid, Nid};

/// What has changed since it was written down.
#[derive(Debug, Default)]
pub(super) struct Notes {
    put: Changed<Nid>,
    replaced: Changed<Nid>,
}

impl Notes {
    pub(super) fn put(&mut self, nid: Nid) {
        self.put.note(nid);
    }

    pub(super) fn replaced(&mut self, nid: Nid) {
        self.replaced.note(nid);
    }
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub(in crate::rsp) struct PutRow {
    #[n(0)]
    device: NidRow,
    /// `None`: it was removed.
    #[n(1)]
    gids: Option<Vec<u64>>,
    #[n(2)]
    labels: String,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub(in crate::rsp) struct ReplacedRow {
    #[n(0)]
    device: NidRow,
}

impl ReplacedRow {
    pub(in crate::rsp) fn nid(&self) -> Option<Nid> {
        self.device.nid()
    }
}

impl Registry {
    /// An operator has put this device.
    pub(in crate::rsp) fn put(&mut self, nid: Nid) {
        if let Some(index) = self.index(nid) {
            let slot = &mut self.slots[index as usize];
            slot.is_put = true;
            slot.is_filed |= self.banished.remove(&nid);
            self.notes.put(nid);
        }
    }

    /// An operator is about to remove this device: the file does not bring it back.
    pub(in crate::rsp) fn banish(&mut self, nid: Nid) {
        let Some(index) = self.index(nid) else { return };
        if self.slots[index as usize].is_filed {
            self.banished.insert(nid);
        }
        self.notes.put(nid);
    }

    /// The registry file has this device, whatever became of it.
    pub(in crate::rsp) fn file(&mut self, nid: Nid) {
        if let Some(index) = self.index(nid) {
            self.slots[index as usize].is_filed = true;
        }
    }

    /// The file has no devices but these any more.
    pub(in crate::rsp) fn keep_banished(&mut self, is_filed: impl Fn(Nid) -> bool) {
        let notes = &mut self.notes;
        self.banished.retain(|nid| {
            let keep = is_filed(*nid);
            if !keep {
                notes.put(*nid);
            }
            keep
        });
    }

    /// Whether an operator has put this device. If so, and it is not in the file any more, that is
    /// noted.
    pub(in crate::rsp) fn is_put(&mut self, nid: Nid) -> bool {
        let slot = self.index(nid).map(|index| &mut self.slots[index as usize]);
        slot.is_some_and(|slot| {
            slot.is_filed = false;
            slot.is_put
        })
    }

    /// Whether an operator has put or removed this device.
    pub(in crate::rsp) fn is_changed(&self, nid: Nid) -> bool {
        let is_put = |index: u32| self.slots[index as usize].is_put;
        self.banished.contains(&nid) || self.index(nid).is_some_and(is_put)
    }

    pub(in crate::rsp) fn keep_rows(&mut self) {
        (self.notes.put.on, self.notes.replaced.on) = (true, true);
    }

    /// Takes what has changed, to be written with [`Self::write`].
    pub(in crate::rsp) fn take_changed(&mut self) -> (Vec<Nid>, Vec<Nid>) {
        let (put, replaced) = (self.notes.put.take(), self.notes.replaced.take());
        (put.into_iter().collect(), replaced.into_iter().collect())
    }

    pub(in crate::rsp) fn write((put, replaced): (Vec<Nid>, Vec<Nid>), book: &mut Book<'_, '_>) {
        for nid in put {
            let row = book.registry.put_row(nid);
            book.devices.write(nid, part::PUT, row.as_ref(), book.sheet);
        }
        for nid in replaced {
            let key = book.registry.key(nid).filter(|key| book.registry.is_replaced(*key));
            let row = key.map(|_| ReplacedRow { device: nid.into() });
            book.devices.write(nid, part::REPLACED, row.as_ref(), book.sheet);
        }
    }

    fn put_row(&self, nid: Nid) -> Option<PutRow> {
        let device = nid.into();
        if self.banished.contains(&nid) {
            return Some(PutRow { device, gids: None, labels: String::new() });
        }
        let slot = &self.slots[self.index(nid)? as usize];
        let gids = slot.gids.as_slice().iter().map(|gid| gid.get()).collect();
        let labels = slot.labels().to_owned();
        slot.is_put.then_some(PutRow { device, gids: Some(gids), labels })
    }

    /// As operators had made it; to be called when the file has been read, and before anything
    /// refers to a device. The groups do not know until [`Self::settle`].
    pub(in crate::rsp) fn restore_put(&mut self, row: PutRow) {
        let Some(nid) = row.device.nid() else { return };
        match row.gids {
            Some(gids) => {
                let is_filed = self.index(nid).is_some();
                let gids: Gids = gids.into_iter().filter_map(Gid::new).collect();
                let key = self.register(nid, gids, &row.labels).key;
                let slot = &mut self.slots[key.index as usize];
                (slot.is_filed, slot.is_put) = (is_filed, true);
            }
            None if self.index(nid).is_some() => {
                self.banished.insert(nid);
                self.remove(nid);
            }
            // It is not in the file any more.
            None => self.notes.put(nid),
        }
    }

    pub(in crate::rsp) fn restore_replaced(&mut self, row: &ReplacedRow) {
        let Some(nid) = row.device.nid() else { return };
        match self.index(nid) {
            Some(index) => drop(self.replaced.insert(index)),
            None => self.notes.replaced(nid),
        }
    }
}
