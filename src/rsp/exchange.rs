//! Exchanges: profile changes between two devices, E1 → E2 `[0071]`.
//!
//! One exchange is open per pair of devices. A closed one is remembered for as long as it might
//! have been open, so that a repeated profile, a late one and one nobody asked for are told apart.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use foldhash::quality::RandomState;

use super::refusal::Refusal;
use crate::ids::{Gid, Nid, Timestamp};

/// The two devices of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Pair {
    /// nid1, the old device: has the profile.
    pub(super) from: Nid,
    /// nid2, the new device: asked for it.
    pub(super) to: Nid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Answered,
    Late,
}

#[derive(Clone, Copy, Debug)]
struct Exchange {
    gid: Gid,
    state: State,
    /// End of its time when open, else when it is forgotten.
    until: Timestamp,
    ttl: Duration,
}

#[derive(Debug)]
pub(super) struct Exchanges {
    by_pair: HashMap<Pair, Exchange, RandomState>,
    /// The two ends that come next: of open ones, and of the memory of closed ones.
    open: BTreeSet<(Timestamp, Pair)>,
    closed: BTreeSet<(Timestamp, Pair)>,
    max: usize,
}

impl Exchanges {
    pub(super) fn new(max: usize) -> Self {
        Self { by_pair: HashMap::default(), open: BTreeSet::new(), closed: BTreeSet::new(), max }
    }

    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Whether an E1 may open an exchange.
    pub(super) fn may_open(&self, pair: Pair, now: Timestamp) -> Result<(), Refusal> {
        match self.by_pair.get(&pair) {
            Some(Exchange { state: State::Open, until, .. }) if *until > now => {
                Err(Refusal::ExchangeAlreadyOpen)
            }
            Some(Exchange { state: State::Open, .. }) => Ok(()),
            _ if self.open.len() >= self.max => Err(Refusal::OverQuota),
            _ => Ok(()),
        }
    }

    /// Whether an E2 answers an open exchange.
    pub(super) fn may_answer(&self, pair: Pair, gid: Gid, now: Timestamp) -> Result<(), Refusal> {
        let exchange = self.by_pair.get(&pair).filter(|exchange| exchange.gid == gid);
        let exchange = exchange.ok_or(Refusal::ExchangeUnsolicited)?;
        match exchange.state {
            State::Open if exchange.until > now => Ok(()),
            State::Open | State::Late => Err(Refusal::ExchangeLate),
            State::Answered => Err(Refusal::ExchangeRepeated),
        }
    }

    /// Opens an exchange; returns the end of its time.
    pub(super) fn open(
        &mut self,
        pair: Pair,
        gid: Gid,
        ttl: Duration,
        now: Timestamp,
    ) -> Timestamp {
        self.forget(pair);
        let until = now.after(ttl);
        self.by_pair.insert(pair, Exchange { gid, state: State::Open, until, ttl });
        self.open.insert((until, pair));
        until
    }

    /// The profile came.
    pub(super) fn answer(&mut self, pair: Pair, now: Timestamp) {
        self.close(pair, State::Answered, now);
    }

    /// Forgets every exchange of removed devices: one scan, however many they are.
    pub(super) fn forget_devices(&mut self, is_gone: impl Fn(Nid) -> bool) {
        let pairs: Vec<Pair> =
            self.by_pair.keys().copied().filter(|p| is_gone(p.from) || is_gone(p.to)).collect();
        pairs.into_iter().for_each(|pair| self.forget(pair));
    }

    /// Closes exchanges whose time is over and forgets old ones, at most `budget` of them.
    /// Returns how many ended without an answer.
    pub(super) fn sweep(&mut self, now: Timestamp, budget: &mut usize) -> u64 {
        let mut late = 0;
        while let Some((_, pair)) = due(&self.open, now, budget) {
            self.close(pair, State::Late, now);
            late += 1;
        }
        while let Some((_, pair)) = due(&self.closed, now, budget) {
            self.forget(pair);
        }
        late
    }

    fn close(&mut self, pair: Pair, state: State, now: Timestamp) {
        let Some(exchange) = self.by_pair.get_mut(&pair) else { return };
        self.open.remove(&(exchange.until, pair));
        self.closed.remove(&(exchange.until, pair));
        exchange.state = state;
        exchange.until = now.after(exchange.ttl);
        self.closed.insert((exchange.until, pair));
        if self.closed.len() > self.max
            && let Some((_, oldest)) = self.closed.first().copied()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, pair: Pair) {
        let Some(exchange) = self.by_pair.remove(&pair) else { return };
        self.open.remove(&(exchange.until, pair));
        self.closed.remove(&(exchange.until, pair));
    }
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
