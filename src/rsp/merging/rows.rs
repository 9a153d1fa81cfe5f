//! The rows of B1s that wait for their equals.

use std::sync::Arc;
use std::time::Duration;

use minicbor::{Decode, Encode};

use super::super::policy::Ask;
use super::super::request::Asked;
use super::super::rows::{Book, NidRow, Past, Table, TidRow};
use super::Merging;
use crate::ids::{Gid, Timestamp};

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub(in crate::rsp) struct MergingRow {
    #[n(0)]
    gid: u64,
    #[n(1)]
    device: NidRow,
    #[n(2)]
    message: u64,
    #[n(3)]
    due: u64,
    #[n(4)]
    asker: String,
    #[n(5)]
    tid: Option<TidRow>,
    #[n(6)]
    name: Option<String>,
    #[n(7)]
    until: u64,
    #[n(8)]
    window_ms: u64,
}

impl Merging {
    pub(in crate::rsp) fn last_id(&self) -> u64 {
        self.last_id
    }

    pub(in crate::rsp) fn keep_rows(&mut self) {
        self.changed.on = true;
    }

    pub(in crate::rsp) fn write(&mut self, book: &mut Book<'_, '_>) {
        for (id, index) in self.changed.hand_over(book.sheet) {
            let batch = self.batches.get(&id);
            let each = batch.and_then(|batch| batch.each.iter().find(|(own, _)| *own == index));
            let (Some(batch), Some((_, message))) = (batch, each) else {
                book.sheet.delete(Table::Merging, id, index);
                continue;
            };
            let ask = &batch.ask;
            let window = ask.merge.map_or(Duration::ZERO, |(_, window)| window);
            let row = MergingRow {
                gid: batch.gid.get(),
                device: book.registry.nid_at(index).into(),
                message: book.sheet.message(message),
                due: batch.due.0,
                asker: ask.asker.to_string(),
                tid: ask.tid.as_ref().map(TidRow::from),
                name: ask.name.as_deref().map(str::to_owned),
                until: ask.until.0,
                window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
            };
            book.sheet.put(Table::Merging, id, index, &row);
        }
        for id in std::mem::take(&mut self.gone) {
            book.sheet.delete_all(Table::Merging, id);
        }
    }

    /// As they were, under new numbers: to be called when changes are noted.
    pub(in crate::rsp) fn restore(
        &mut self,
        rows: Vec<(u64, MergingRow)>,
        last_id: u64,
        past: &mut Past<'_>,
    ) {
        let youngest = rows.iter().map(|(id, _)| *id).max();
        self.last_id = youngest.unwrap_or(0).max(last_id);
        for (id, row) in rows {
            past.drop_all(Table::Merging, id);
            let (Some(gid), Some((_, key)), Some(message)) =
                (Gid::new(row.gid), past.device(row.device), past.message(row.message))
            else {
                continue;
            };
            let ask = Ask {
                asked: Asked::Msg,
                asker: Arc::from(row.asker),
                tid: row.tid.and_then(TidRow::tid),
                name: row.name.map(Into::into),
                until: Timestamp(row.until),
                wave: None,
                parts: None,
                chunks: false,
                needs_consent: false,
                reinstate: false,
                merge: Some((gid, Duration::from_millis(row.window_ms))),
            };
            self.push(gid, key.index, &message, ask, Timestamp(row.due));
        }
    }
}
