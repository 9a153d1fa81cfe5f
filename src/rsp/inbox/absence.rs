//! Servers that are away, and the answers that are kept for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::InboxLimits;
use super::items::Items;
use super::shelf::{Shelf, pop_oldest};
use crate::ids::{Nid, Timestamp};
use crate::rsp::rows::Changed;

/// Servers without a desk, for as long as they are remembered.
#[derive(Debug, Default)]
pub(super) struct Absences {
    by_server: BTreeMap<Arc<str>, Absence>,
    last_row: u64,
    /// By their rows.
    pub(super) changed: Changed<u64>,
}

#[derive(Debug)]
struct Absence {
    since: Timestamp,
    row: u64,
    /// The answers to what it asked.
    shelf: Shelf,
}

impl Absences {
    /// A server has no desk any more.
    pub(super) fn begin(&mut self, server: &Arc<str>, now: Timestamp) {
        if self.has_place() {
            self.shelf_for(server, now);
        }
    }

    /// The server is back. Gives what was kept for it.
    pub(super) fn end(&mut self, server: &str) -> Shelf {
        self.forget(server).map(|absence| absence.shelf).unwrap_or_default()
    }

    /// Whether answers are kept for a server without a desk. Behind those that are kept still, an
    /// answer that comes too late keeps its place.
    pub(super) fn keep_for(&self, server: &str, longest: Duration, now: Timestamp) -> bool {
        match self.by_server.get(server) {
            Some(absence) => !absence.is_idle() || !absence.is_over(longest, now),
            None => !longest.is_zero() && self.has_place(),
        }
    }

    pub(super) fn has_room(
        &self,
        server: &str,
        bytes: usize,
        sender: Option<Nid>,
        limits: &InboxLimits,
    ) -> bool {
        let absence = self.by_server.get(server);
        let has_room = |shelf: &Shelf| shelf.has_room(bytes, sender, limits, |_| true);
        absence.map_or_else(|| has_room(&Shelf::default()), |absence| has_room(&absence.shelf))
    }

    /// What is kept for a server, if need be in place of one for which nothing is.
    pub(super) fn shelf_for(&mut self, server: &Arc<str>, now: Timestamp) -> &mut Shelf {
        if self.by_server.len() >= ABSENCES_MAX && !self.by_server.contains_key(server) {
            let idle = self.by_server.iter().filter(|(_, absence)| absence.is_idle());
            let oldest = idle.min_by_key(|(_, absence)| absence.since);
            if let Some(oldest) = oldest.map(|(server, _)| Arc::clone(server)) {
                self.forget(&oldest);
            }
        }
        let absence = self.by_server.entry(Arc::clone(server));
        let absence = absence.or_insert_with(|| {
            self.last_row += 1;
            self.changed.note(self.last_row);
            Absence { since: now, row: self.last_row, shelf: Shelf::default() }
        });
        &mut absence.shelf
    }

    fn forget(&mut self, server: &str) -> Option<Absence> {
        let absence = self.by_server.remove(server)?;
        self.changed.note(absence.row);
        Some(absence)
    }

    pub(super) fn last_row(&self) -> u64 {
        self.last_row
    }

    /// The server of a row, and since when it is away.
    pub(super) fn of_row(&self, row: u64) -> Option<(&Arc<str>, Timestamp)> {
        let mut all = self.by_server.iter();
        all.find(|(_, absence)| absence.row == row).map(|(server, a)| (server, a.since))
    }

    /// As it was before a restart.
    pub(super) fn restore(&mut self, row: u64, server: Arc<str>, since: Timestamp) {
        self.go_on_from(row);
        self.by_server.insert(server, Absence { since, row, shelf: Shelf::default() });
    }

    /// Rows were numbered up to this.
    pub(super) fn go_on_from(&mut self, row: u64) {
        self.last_row = self.last_row.max(row);
    }

    /// What is kept for a server that is away.
    pub(super) fn shelf(&mut self, server: &str) -> Option<&mut Shelf> {
        Some(&mut self.by_server.get_mut(server)?.shelf)
    }

    /// Takes up to `most` answers that were kept long enough, the oldest of each server first.
    pub(super) fn give_up(
        &mut self,
        longest: Duration,
        now: Timestamp,
        most: usize,
        items: &Items,
    ) -> Shelf {
        let (mut given_up, mut left) = (Shelf::default(), most);
        for absence in self.by_server.values_mut().filter(|a| a.is_over(longest, now)) {
            let mut piles = absence.shelf.select(|_| true);
            while left > 0
                && let Some((number, pile)) = pop_oldest(&mut piles)
            {
                let Some(item) = items.get(number) else { continue };
                pile.room.free(item);
                given_up.put(number, item);
                left -= 1;
            }
            absence.shelf.tidy();
        }
        given_up
    }

    /// All shelves.
    pub(super) fn shelves(&self) -> impl Iterator<Item = &Shelf> {
        self.by_server.values().map(|absence| &absence.shelf)
    }

    /// One more server can be remembered, if need be in place of one for which nothing is kept.
    fn has_place(&self) -> bool {
        self.by_server.len() < ABSENCES_MAX || self.by_server.values().any(Absence::is_idle)
    }
}

impl Absence {
    fn is_idle(&self) -> bool {
        self.shelf.is_empty()
    }

    fn is_over(&self, longest: Duration, now: Timestamp) -> bool {
        self.since.after(longest) <= now
    }
}

/// Servers that are remembered while they are away.
pub(super) const ABSENCES_MAX: usize = 256;
