//! Untold: profile changes that have happened, and that no server could be told of for want of
//! room.
//!
//! Apart from their exchanges: what has happened is to be told even when its exchange is forgotten,
//! or a device of it is gone.

use std::collections::VecDeque;

use super::mail::ChangeRow;
use super::mailbox::ProfileChange;
use super::rows::{Changed, Sheet, Table};

#[derive(Debug, Default)]
pub(super) struct Untold {
    /// With their rows.
    changes: VecDeque<(u64, ProfileChange)>,
    last_row: u64,
    changed: Changed<u64>,
}

/// Profile changes that are remembered until they are told; beyond them the oldest is lost.
const CHANGES_MAX: usize = 10_000;

/// Of those, so many are told at a time, or tried to.
const AT_ONCE_MAX: usize = 1_000;

impl Untold {
    /// Remembers a change; `false` when an older one is lost for it.
    pub(super) fn push(&mut self, change: ProfileChange) -> bool {
        self.last_row += 1;
        self.changes.push_back((self.last_row, change));
        self.changed.note(self.last_row);
        self.changes.len() <= CHANGES_MAX || self.take_first().is_none()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Takes the oldest, to be told or remembered again.
    pub(super) fn take_some(&mut self) -> Vec<ProfileChange> {
        let count = self.changes.len().min(AT_ONCE_MAX);
        (0..count).filter_map(|_| self.take_first()).collect()
    }

    fn take_first(&mut self) -> Option<ProfileChange> {
        let (row, change) = self.changes.pop_front()?;
        self.changed.note(row);
        Some(change)
    }

    pub(super) fn last_row(&self) -> u64 {
        self.last_row
    }

    pub(super) fn keep_rows(&mut self) {
        self.changed.on = true;
    }

    pub(super) fn write(&mut self, sheet: &mut Sheet<'_>) {
        for row in self.changed.take() {
            match self.changes.binary_search_by_key(&row, |(own, _)| *own) {
                Ok(at) => sheet.put(Table::Untold, row, 0, &ChangeRow::from(&self.changes[at].1)),
                Err(_) => sheet.delete(Table::Untold, row, 0),
            }
        }
    }

    /// As they were.
    pub(super) fn restore(&mut self, rows: &[(u64, ChangeRow)], last_row: u64) {
        let changes = rows.iter().filter_map(|(row, change)| Some((*row, change.change()?)));
        self.changes = changes.collect();
        self.last_row = self.changes.back().map_or(0, |(row, _)| *row).max(last_row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Gid, Nid, NidScheme};

    fn change(number: usize) -> ProfileChange {
        let from = Nid::new(number as u128 + 1, NidScheme::Decimal).unwrap();
        ProfileChange { from, to: Nid::FIRST, gid: Gid::new(1).unwrap() }
    }

    #[test]
    fn the_oldest_go_first_and_are_lost_first() {
        let mut untold = Untold::default();
        assert!(untold.take_some().is_empty());
        assert!((0..CHANGES_MAX).all(|number| untold.push(change(number))));
        assert!(!untold.push(change(CHANGES_MAX)), "the first is lost for it");
        let mut all = Vec::new();
        loop {
            let some = untold.take_some();
            assert!(some.len() <= AT_ONCE_MAX);
            if some.is_empty() {
                break;
            }
            all.extend(some);
        }
        assert!(all.into_iter().eq((1..=CHANGES_MAX).map(change)));
    }
}
