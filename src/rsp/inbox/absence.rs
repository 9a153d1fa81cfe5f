//! Servers that are away, and the answers that are kept for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::InboxLimits;
use super::items::{Items, Room};
use crate::ids::{Nid, Timestamp};

/// Items in order, of which no server has been given any.
#[derive(Debug, Default)]
pub(super) struct Pile {
    numbers: BTreeSet<u64>,
    pub(super) room: Room,
}

impl Pile {
    /// Adds an item if there is room for it.
    pub(super) fn put(&mut self, number: u64, items: &mut Items, limits: &InboxLimits) -> bool {
        let has_room = items.enter(number, &mut self.room, limits);
        if has_room {
            self.numbers.insert(number);
        }
        has_room
    }

    /// Withdraws up to `most` items that are `wanted`, oldest first.
    pub(super) fn withdraw(
        &mut self,
        most: usize,
        items: &mut Items,
        wanted: impl Fn(u64, &Items) -> bool,
    ) -> Vec<u64> {
        let found = self.numbers.iter().copied().filter(|number| wanted(*number, items));
        let found: Vec<u64> = found.take(most).collect();
        for number in &found {
            self.numbers.remove(number);
            items.withdraw(*number, &mut self.room);
        }
        found
    }

    /// The time of an item is over.
    pub(super) fn expire(&mut self, number: u64, items: &mut Items) -> bool {
        let expired = self.numbers.remove(&number);
        if expired {
            items.settle(number, &mut self.room);
        }
        expired
    }
}

/// Servers without a desk, for as long as they are remembered.
#[derive(Debug, Default)]
pub(super) struct Absences {
    by_server: BTreeMap<Arc<str>, Absence>,
}

#[derive(Debug)]
struct Absence {
    since: Timestamp,
    /// The answers to what it asked.
    pile: Pile,
}

impl Absences {
    /// A server has no desk any more.
    pub(super) fn begin(&mut self, server: &Arc<str>, now: Timestamp) {
        if self.by_server.contains_key(server) || !self.has_place() {
            return;
        }
        if self.by_server.len() >= ABSENCES_MAX {
            let idle = self.by_server.iter().filter(|(_, absence)| absence.is_idle());
            let oldest = idle.min_by_key(|(_, absence)| absence.since);
            let Some(oldest) = oldest.map(|(server, _)| Arc::clone(server)) else { return };
            self.by_server.remove(&oldest);
        }
        let absence = Absence { since: now, pile: Pile::default() };
        self.by_server.insert(Arc::clone(server), absence);
    }

    /// The server is back. Withdraws what was kept for it, in order.
    pub(super) fn end(&mut self, server: &str, items: &mut Items) -> Vec<u64> {
        let absence = self.by_server.remove(server);
        absence.map_or_else(Vec::new, |mut absence| {
            absence.pile.withdraw(usize::MAX, items, |_, _| true)
        })
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
        match self.by_server.get(server) {
            Some(absence) => absence.pile.room.has(bytes, sender, limits),
            None => Room::default().has(bytes, sender, limits),
        }
    }

    /// What is kept for a server that is away.
    pub(super) fn pile(&mut self, server: &str) -> Option<&mut Pile> {
        Some(&mut self.by_server.get_mut(server)?.pile)
    }

    /// Withdraws up to `most` answers that were kept long enough.
    pub(super) fn give_up(
        &mut self,
        longest: Duration,
        now: Timestamp,
        most: usize,
        items: &mut Items,
    ) -> Vec<u64> {
        let mut numbers = Vec::new();
        for absence in self.by_server.values_mut().filter(|a| a.is_over(longest, now)) {
            let most = most - numbers.len();
            numbers.extend(absence.pile.withdraw(most, items, |_, _| true));
        }
        numbers
    }

    /// The piles of all.
    pub(super) fn piles(&self) -> impl Iterator<Item = &Pile> {
        self.by_server.values().map(|absence| &absence.pile)
    }

    /// One more server can be remembered, if need be in place of one for which nothing is kept.
    fn has_place(&self) -> bool {
        self.by_server.len() < ABSENCES_MAX || self.by_server.values().any(Absence::is_idle)
    }
}

impl Absence {
    fn is_idle(&self) -> bool {
        self.pile.room.messages() == 0
    }

    fn is_over(&self, longest: Duration, now: Timestamp) -> bool {
        self.since.after(longest) <= now
    }
}

/// Servers that are remembered while they are away.
pub(super) const ABSENCES_MAX: usize = 256;
