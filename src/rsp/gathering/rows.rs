//! The rows of D1s that wait for others of their group.

use minicbor::{Decode, Encode};

use super::super::gathered::{RawBody, Request};
use super::super::rows::{Book, GONE, NidRow, Past, Table, TidRow};
use super::{Batch, Gathering};
use crate::ids::{Gid, Timestamp};

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub(in crate::rsp) struct GatheredRow {
    #[n(0)]
    gid: u64,
    #[n(1)]
    device: NidRow,
    #[n(2)]
    tid: Option<TidRow>,
    #[n(3)]
    message: u64,
    #[n(4)]
    due: u64,
    /// The number of the D1.
    #[n(5)]
    wish: u64,
}

impl Gathering {
    pub(in crate::rsp) fn last_batch(&self) -> u64 {
        self.last_batch
    }

    pub(in crate::rsp) fn keep_rows(&mut self) {
        self.changed.on = true;
    }

    pub(in crate::rsp) fn write(&mut self, book: &mut Book<'_, '_>) {
        for (gid, batch, place) in self.changed.hand_over(book.sheet) {
            let pending = self.pending.get(&gid).filter(|pending| pending.batch.id == batch);
            let Some(pending) = pending else { continue };
            let Some(one) = pending.waiting.iter().find(|one| one.place == place) else {
                book.sheet.delete(Table::Gathered, batch, place);
                continue;
            };
            let row = GatheredRow {
                gid: gid.get(),
                device: one.request.nid.into(),
                tid: one.request.tid.as_ref().map(TidRow::from),
                message: book.sheet.message(&one.message),
                due: pending.due.0,
                wish: one.wish.1,
            };
            book.sheet.put(Table::Gathered, batch, place, &row);
        }
        for batch in std::mem::take(&mut self.gone) {
            book.sheet.delete_all(Table::Gathered, batch);
        }
    }

    /// As they were.
    pub(in crate::rsp) fn restore(
        &mut self,
        rows: Vec<(u64, u32, GatheredRow)>,
        last_batch: u64,
        past: &mut Past<'_>,
    ) {
        self.last_batch = last_batch;
        for (batch, place, row) in rows {
            self.last_batch = self.last_batch.max(batch);
            let (Some(gid), Some(nid), Some(message)) =
                (Gid::new(row.gid), row.device.nid(), past.message(row.message))
            else {
                past.useless.push((Table::Gathered, batch, Some(place)));
                continue;
            };
            if !self.pending.contains_key(&gid) {
                self.begin(Batch { gid, id: batch }, Timestamp(row.due));
            }
            let body = RawBody::of(&message.payload).unwrap_or(RawBody::Json("null".into()));
            let request = Request { nid, tid: row.tid.and_then(TidRow::tid), body };
            let index = past.registry.key(nid).map_or(GONE, |key| key.index);
            if let Some(pending) = self.pending.get_mut(&gid) {
                pending.next_place = place;
                pending.add((index, row.wish), request, &message);
            }
        }
    }
}
