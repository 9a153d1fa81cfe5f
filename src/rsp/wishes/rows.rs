//! The rows of D1s.

use minicbor::{Decode, Encode};

use super::super::rows::{Book, NidRow, Past, Table, TidRow};
use super::{Batch, Wish, Wished, Wishes};
use crate::ids::{Gid, Timestamp};

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub(in crate::rsp) struct WishRow {
    #[n(0)]
    device: NidRow,
    #[n(1)]
    gid: Option<u64>,
    /// Group and number of its batch.
    #[n(2)]
    batch: Option<(u64, u64)>,
    #[n(3)]
    tid: Option<TidRow>,
    #[n(4)]
    expires: u64,
    #[n(5)]
    answered: bool,
}

impl Wishes {
    pub(in crate::rsp) fn last_id(&self) -> u64 {
        self.last_id
    }

    pub(in crate::rsp) fn keep_rows(&mut self) {
        self.changed.on = true;
    }

    pub(in crate::rsp) fn write(&mut self, book: &mut Book<'_, '_>) {
        for (id, index) in self.changed.take() {
            let Some(wish) = self.all.get(&(index, id)) else {
                book.sheet.delete(Table::Wish, id, 0);
                continue;
            };
            let row = WishRow {
                device: book.registry.nid_at(index).into(),
                gid: wish.gid.map(Gid::get),
                batch: wish.batch.map(|batch| (batch.gid.get(), batch.id)),
                tid: wish.tid.as_deref().map(TidRow::from),
                expires: wish.expires.0,
                answered: wish.answered,
            };
            book.sheet.put(Table::Wish, id, 0, &row);
        }
    }

    /// As they were; those of devices that are gone, or in the name of a group that they have left,
    /// are left out.
    pub(in crate::rsp) fn restore(
        &mut self,
        rows: Vec<(u64, WishRow)>,
        last_id: u64,
        past: &mut Past<'_>,
    ) {
        self.last_id = last_id;
        for (id, row) in rows {
            self.last_id = self.last_id.max(id);
            let wish = Wish {
                gid: row.gid.and_then(Gid::new),
                batch: row.batch.and_then(|(gid, id)| Some(Batch { gid: Gid::new(gid)?, id })),
                tid: row.tid.and_then(TidRow::tid).map(Box::new),
                expires: Timestamp(row.expires),
                answered: false,
            };
            let device = past
                .device(row.device)
                .filter(|(_, key)| wish.group().is_none_or(|gid| past.registry.belongs(*key, gid)));
            let Some((_, key)) = device else {
                past.drop_all(Table::Wish, id);
                continue;
            };
            self.put(key.index, id, wish);
            if row.answered {
                self.answer(Wished::One { index: key.index, id });
                self.changed.forget(&(id, key.index));
            }
        }
    }
}
