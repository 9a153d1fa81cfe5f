//! The rows of exchanges.

use std::time::Duration;

use minicbor::{Decode, Encode};

use super::super::rows::{Book, Changed, NidRow, Past, Table};
use super::{Exchange, ExchangeState, Exchanges, Pair};
use crate::ids::{Gid, Timestamp};

/// What has changed since it was written down.
#[derive(Debug, Default)]
pub(super) struct Notes {
    changed: Changed<Pair>,
    gone: Vec<u64>,
    last_row: u64,
}

impl Notes {
    pub(super) fn next_row(&mut self) -> u64 {
        self.last_row += 1;
        self.last_row
    }

    pub(super) fn change(&mut self, pair: Pair) {
        self.changed.note(pair);
    }

    pub(super) fn gone(&mut self, pair: Pair, row: u64) {
        if self.changed.on {
            self.changed.forget(&pair);
            self.gone.push(row);
        }
    }
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub(in crate::rsp) struct ExchangeRow {
    #[n(0)]
    from: NidRow,
    #[n(1)]
    to: NidRow,
    #[n(2)]
    gid: u64,
    #[n(3)]
    state: u8,
    #[n(4)]
    opened: u64,
    #[n(5)]
    until: u64,
    #[n(6)]
    ttl_ms: u64,
}

/// By their numbers.
const STATES: [ExchangeState; 6] = [
    ExchangeState::Requested,
    ExchangeState::Transferred,
    ExchangeState::Unreported,
    ExchangeState::Confirmed,
    ExchangeState::Unconfirmed,
    ExchangeState::Expired,
];

impl Exchanges {
    pub(in crate::rsp) fn last_row(&self) -> u64 {
        self.notes.last_row
    }

    pub(in crate::rsp) fn keep_rows(&mut self) {
        self.notes.changed.on = true;
    }

    pub(in crate::rsp) fn write(&mut self, book: &mut Book<'_, '_>) {
        for row in std::mem::take(&mut self.notes.gone) {
            book.sheet.delete(Table::Exchange, row, 0);
        }
        for pair in self.notes.changed.take() {
            let Some(exchange) = self.by_pair.get(&pair) else { continue };
            let state = STATES.iter().position(|state| *state == exchange.state).unwrap_or(0);
            let row = ExchangeRow {
                from: pair.from.into(),
                to: pair.to.into(),
                gid: exchange.gid.get(),
                state: state as u8,
                opened: exchange.opened.0,
                until: exchange.until.0,
                ttl_ms: u64::try_from(exchange.ttl.as_millis()).unwrap_or(u64::MAX),
            };
            book.sheet.put(Table::Exchange, exchange.row, 0, &row);
        }
    }

    /// As they were; those of devices that are gone are left out.
    pub(in crate::rsp) fn restore(
        &mut self,
        rows: Vec<(u64, ExchangeRow)>,
        last_row: u64,
        past: &mut Past<'_>,
    ) {
        self.notes.last_row = last_row;
        for (row, written) in rows {
            self.notes.last_row = self.notes.last_row.max(row);
            let devices = (past.device(written.from), past.device(written.to));
            let state = STATES.get(usize::from(written.state)).copied();
            let (Some(gid), Some(state), (Some((from, _)), Some((to, _)))) =
                (Gid::new(written.gid), state, devices)
            else {
                past.drop_all(Table::Exchange, row);
                continue;
            };
            let (opened, until) = (Timestamp(written.opened), Timestamp(written.until));
            let ttl = Duration::from_millis(written.ttl_ms);
            self.put_in(Pair { from, to }, Exchange { gid, state, opened, until, ttl, row });
        }
    }
}
