//! Exchanges: profile changes between two devices, E1 → E2 `[0071]`, and what follows: the new
//! device's acknowledgement, and its report to the servers `[0069]`.
//!
//! One exchange is open per pair of devices. A closed one is remembered for as long as it might
//! have been open, or its profile waits for the new device, so that a repeated profile, a late one
//! and one nobody asked for are told apart.

mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use foldhash::quality::RandomState;
use serde::Serialize;

use super::mailbox::ProfileChange;
use super::options::RspLimits;
use super::refusal::Refusal;
use crate::ids::{Gid, Nid, Timestamp};
pub(super) use rows::ExchangeRow;
use rows::Notes;

/// The two devices of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    /// nid1, the old device: has the profile.
    pub from: Nid,
    /// nid2, the new device: asked for it.
    pub to: Nid,
}

/// How far an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExchangeState {
    /// The new device has asked (E1).
    Requested,
    /// The old device has given its profile (E2), which is on its way.
    Transferred,
    /// The new device has the profile and owes its report.
    Unreported,
    /// The report came.
    Confirmed,
    /// The report did not come in time, or was one of failure.
    Unconfirmed,
    /// The profile did not come in time.
    Expired,
}

impl ExchangeState {
    /// The name in metrics and in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Transferred => "transferred",
            Self::Unreported => "unreported",
            Self::Confirmed => "confirmed",
            Self::Unconfirmed => "unconfirmed",
            Self::Expired => "expired",
        }
    }
}

/// An exchange as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The common group, in whose name it is.
    pub gid: Gid,
    /// How far it is.
    pub state: ExchangeState,
    /// When the E1 came.
    pub opened: Timestamp,
    /// End of its time while something is awaited, else when it is forgotten.
    pub until: Timestamp,
    ttl: Duration,
    /// Its row, where it is written down.
    row: u64,
}

impl Exchange {
    /// Which calendar its end stands in.
    fn is_awaited(&self) -> bool {
        matches!(self.state, ExchangeState::Requested | ExchangeState::Unreported)
    }
}

/// What a sweep ended.
#[derive(Debug, Default)]
pub(super) struct EndedExchanges {
    /// Without a profile.
    pub(super) expired: Vec<(Pair, Gid)>,
    /// Without a report.
    pub(super) unconfirmed: Vec<(Pair, Gid)>,
}

#[derive(Debug)]
pub(super) struct Exchanges {
    by_pair: BTreeMap<Pair, Exchange>,
    /// Ends of those that await something, and of the memory of all others.
    awaited: BTreeSet<(Timestamp, Pair)>,
    closed: BTreeSet<(Timestamp, Pair)>,
    /// How many each new device has asked for and not got.
    requested_by: HashMap<Nid, usize, RandomState>,
    requested: usize,
    /// Reports that are due, by who owes them.
    reports: BTreeSet<(Nid, Pair)>,
    max: usize,
    per_device_max: usize,
    notes: Notes,
}

impl Exchanges {
    pub(super) fn new(limits: &RspLimits) -> Self {
        Self {
            by_pair: BTreeMap::new(),
            awaited: BTreeSet::new(),
            closed: BTreeSet::new(),
            requested_by: HashMap::default(),
            requested: 0,
            reports: BTreeSet::new(),
            max: limits.exchanges_max,
            per_device_max: limits.exchanges_per_device_max,
            notes: Notes::default(),
        }
    }

    /// Exchanges that wait for a profile.
    pub(super) fn open_count(&self) -> usize {
        self.requested
    }

    /// Remembered exchanges behind a pair, in the order of pairs.
    pub(super) fn behind(
        &self,
        pair: Option<Pair>,
    ) -> impl Iterator<Item = (Pair, &Exchange)> + '_ {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = pair.map_or(Unbounded, Excluded);
        self.by_pair.range((from, Unbounded)).map(|(pair, exchange)| (*pair, exchange))
    }

    /// Whether an E1 may open an exchange.
    pub(super) fn may_open(&self, pair: Pair, now: Timestamp) -> Result<(), Refusal> {
        let known = self.by_pair.get(&pair).filter(|e| e.state == ExchangeState::Requested);
        if let Some(exchange) = known {
            let is_open = exchange.until > now;
            return if is_open { Err(Refusal::ExchangeAlreadyOpen) } else { Ok(()) };
        }
        let asked = self.requested_by.get(&pair.to).copied().unwrap_or(0);
        if asked >= self.per_device_max || self.requested >= self.max {
            return Err(Refusal::OverQuota);
        }
        Ok(())
    }

    /// Whether an E2 answers an open exchange.
    pub(super) fn may_answer(&self, pair: Pair, gid: Gid, now: Timestamp) -> Result<(), Refusal> {
        let exchange = self.by_pair.get(&pair).filter(|exchange| exchange.gid == gid);
        let exchange = exchange.ok_or(Refusal::ExchangeUnsolicited)?;
        match exchange.state {
            ExchangeState::Requested if exchange.until > now => Ok(()),
            ExchangeState::Requested | ExchangeState::Expired => Err(Refusal::ExchangeLate),
            _ => Err(Refusal::ExchangeRepeated),
        }
    }

    /// Whether a profile of this device is on its way to another one.
    pub(super) fn is_giving(&self, from: Nid) -> bool {
        let behind = self.by_pair.range(Pair { from, ..FIRST_PAIR }..);
        let mut own = behind.take_while(|(pair, _)| pair.from == from);
        own.any(|(_, exchange)| exchange.state == ExchangeState::Transferred)
    }

    /// Opens an exchange; returns the end of its time.
    pub(super) fn open(
        &mut self,
        pair: Pair,
        gid: Gid,
        ttl: Duration,
        now: Timestamp,
    ) -> Timestamp {
        let until = now.after(ttl);
        let state = ExchangeState::Requested;
        self.put(pair, Exchange { gid, state, opened: now, until, ttl, row: 0 });
        until
    }

    /// The profile came, and is on its way until then.
    pub(super) fn answer(&mut self, pair: Pair, until: Timestamp) {
        self.move_to(pair, ExchangeState::Transferred, until);
    }

    /// Whether the profile is on its way from the one to the other.
    pub(super) fn is_on_its_way(&self, pair: Pair) -> bool {
        let exchange = self.by_pair.get(&pair);
        exchange.is_some_and(|exchange| exchange.state == ExchangeState::Transferred)
    }

    /// The profile cannot be given to the new device, which may ask again. `false`: it is not on
    /// its way.
    pub(super) fn fail(&mut self, pair: Pair, now: Timestamp) -> bool {
        let fails = self.is_on_its_way(pair);
        if fails {
            self.move_on(pair, ExchangeState::Expired, now);
        }
        fails
    }

    /// The new device has the profile, and owes its report for so long.
    pub(super) fn deliver(&mut self, change: &ProfileChange, ttl: Duration, now: Timestamp) {
        let pair = Pair { from: change.from, to: change.to };
        // It may have been forgotten while the profile waited for its device.
        let opened = self.by_pair.get(&pair).map_or(now, |exchange| exchange.opened);
        let (gid, until, state) = (change.gid, now.after(ttl), ExchangeState::Unreported);
        self.put(pair, Exchange { gid, state, opened, until, ttl, row: 0 });
        if self.reports.len() > self.max
            && let Some((_, first)) = self.reports.first().copied()
        {
            self.move_on(first, ExchangeState::Unconfirmed, now);
        }
    }

    /// The exchange whose report a B2 of this device is: the first in the order of pairs.
    pub(super) fn report_due(&self, by: Nid, now: Timestamp) -> Option<Pair> {
        let mut owed = self.reports.range((by, FIRST_PAIR)..).take_while(|(nid, _)| *nid == by);
        let is_in_time = |pair: &Pair| self.by_pair.get(pair).is_some_and(|e| e.until > now);
        owed.find(|(_, pair)| is_in_time(pair)).map(|(_, pair)| *pair)
    }

    /// The report came. One that reports a failure confirms nothing.
    pub(super) fn report(
        &mut self,
        pair: Pair,
        rc: i64,
        now: Timestamp,
    ) -> Option<(Gid, ExchangeState)> {
        let gid = self.by_pair.get(&pair)?.gid;
        let state = if rc == 0 { ExchangeState::Confirmed } else { ExchangeState::Unconfirmed };
        self.move_on(pair, state, now);
        Some((gid, state))
    }

    /// Forgets every exchange of removed devices: one scan, however many they are.
    pub(super) fn forget_devices(&mut self, is_gone: impl Fn(Nid) -> bool) {
        let pairs: Vec<Pair> =
            self.by_pair.keys().copied().filter(|p| is_gone(p.from) || is_gone(p.to)).collect();
        pairs.into_iter().for_each(|pair| {
            self.forget(pair);
        });
    }

    /// Closes exchanges whose time is over and forgets old ones, at most `budget` of them. None is
    /// forgotten whose profile `is_under_way` still, however short its own time was.
    pub(super) fn sweep(
        &mut self,
        now: Timestamp,
        budget: &mut usize,
        is_under_way: impl Fn(Pair) -> bool,
    ) -> EndedExchanges {
        let mut ended = EndedExchanges::default();
        while let Some((_, pair)) = due(&self.awaited, now, budget) {
            let Some(exchange) = self.by_pair.get(&pair).copied() else { continue };
            if exchange.state == ExchangeState::Requested {
                ended.expired.push((pair, exchange.gid));
                self.move_on(pair, ExchangeState::Expired, now);
            } else {
                ended.unconfirmed.push((pair, exchange.gid));
                self.move_on(pair, ExchangeState::Unconfirmed, now);
            }
        }
        while let Some((_, pair)) = due(&self.closed, now, budget) {
            if self.is_on_its_way(pair) && is_under_way(pair) {
                self.move_to(pair, ExchangeState::Transferred, now.after(SPARED_FOR));
            } else {
                self.forget(pair);
            }
        }
        ended
    }

    fn move_on(&mut self, pair: Pair, state: ExchangeState, now: Timestamp) {
        let ttl = self.by_pair.get(&pair).map(|exchange| exchange.ttl);
        ttl.into_iter().for_each(|ttl| self.move_to(pair, state, now.after(ttl)));
    }

    fn move_to(&mut self, pair: Pair, state: ExchangeState, until: Timestamp) {
        let Some(exchange) = self.by_pair.get(&pair).copied() else { return };
        self.put(pair, Exchange { state, until, ..exchange });
        if self.closed.len() > self.max
            && let Some((_, oldest)) = self.closed.first().copied()
        {
            self.forget(oldest);
        }
    }

    fn put(&mut self, pair: Pair, exchange: Exchange) {
        let known = self.take_out(pair);
        let row = known.map_or_else(|| self.notes.next_row(), |known| known.row);
        self.notes.change(pair);
        self.put_in(pair, Exchange { row, ..exchange });
    }

    fn put_in(&mut self, pair: Pair, exchange: Exchange) {
        let calendar = if exchange.is_awaited() { &mut self.awaited } else { &mut self.closed };
        calendar.insert((exchange.until, pair));
        match exchange.state {
            ExchangeState::Requested => {
                self.requested += 1;
                *self.requested_by.entry(pair.to).or_default() += 1;
            }
            ExchangeState::Unreported => {
                self.reports.insert((pair.to, pair));
            }
            _ => {}
        }
        self.by_pair.insert(pair, exchange);
    }

    fn forget(&mut self, pair: Pair) {
        let exchange = self.take_out(pair);
        exchange.into_iter().for_each(|exchange| self.notes.gone(pair, exchange.row));
    }

    fn take_out(&mut self, pair: Pair) -> Option<Exchange> {
        let exchange = self.by_pair.remove(&pair)?;
        let calendar = if exchange.is_awaited() { &mut self.awaited } else { &mut self.closed };
        calendar.remove(&(exchange.until, pair));
        self.reports.remove(&(pair.to, pair));
        if exchange.state == ExchangeState::Requested {
            self.requested -= 1;
            let left = self.requested_by.get_mut(&pair.to);
            if left.is_some_and(|left| {
                *left -= 1;
                *left == 0
            }) {
                self.requested_by.remove(&pair.to);
            }
        }
        Some(exchange)
    }
}

/// After this time it is looked whether an expired profile is still on its way.
const SPARED_FOR: Duration = Duration::from_secs(1);

/// Before all pairs.
const FIRST_PAIR: Pair = Pair { from: Nid::FIRST, to: Nid::FIRST };

/// Members of a group that are looked at in the time of one entry of a calendar: a sweep pays for
/// what concerns a whole group by its size.
const MEMBERS_PER_ENTRY: usize = 500;

/// Pays for what concerns so many members of a group.
pub(super) fn pay_for(members: usize, budget: &mut usize) {
    *budget = budget.saturating_sub(members / MEMBERS_PER_ENTRY);
}

/// The first entry if it is due and there is budget left for it.
pub(super) fn due<K: Copy>(
    deadlines: &BTreeSet<(Timestamp, K)>,
    now: Timestamp,
    budget: &mut usize,
) -> Option<(Timestamp, K)>
where
    (Timestamp, K): Ord,
{
    let first = deadlines.first().copied().filter(|(at, _)| *at <= now && *budget > 0)?;
    *budget -= 1;
    Some(first)
}
