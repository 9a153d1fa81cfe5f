//! Events: what the control unit did, for the audit log, for metrics and for who watches.

use std::collections::VecDeque;

use super::campaign::CampaignId;
use super::exchange::{ExchangeState, Pair};
use crate::ids::{Gid, Nid};

/// What happened to a campaign beside the progress of its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CampaignStep {
    /// The first wave fared well, or an operator said so: all others are served.
    Released,
    /// Too many of the first wave failed: the others wait.
    Halted,
    /// Sent again to so many devices.
    Retried(u32),
    /// Withdrawn from so many devices.
    Cancelled(u32),
}

/// Why the control unit did something by itself `[0119]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// So many D1s of a group came within its window, and reached the servers as one.
    Coalesced(u32),
    /// So many equal B1s to members of a group were delivered as one C1.
    Merged(u32),
    /// So many equal B1s were too few to be merged, and went as they came.
    NotMerged(u32),
}

impl Reason {
    /// The names of all reasons, for metrics that must exist before they are needed.
    pub const NAMES: [&'static str; 3] = ["coalesced", "merged", "not_merged"];

    /// The name in metrics and audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Coalesced(_) => Self::NAMES[0],
            Self::Merged(_) => Self::NAMES[1],
            Self::NotMerged(_) => Self::NAMES[2],
        }
    }

    /// How many messages it concerned.
    #[must_use]
    pub fn messages(self) -> u32 {
        let (Self::Coalesced(count) | Self::Merged(count) | Self::NotMerged(count)) = self;
        count
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A campaign took a step.
    Campaign(CampaignId, CampaignStep),
    /// An exchange is that far now.
    Exchange(Pair, Gid, ExchangeState),
    /// The device has given its profile away: no B1 and C1 for it.
    Replaced(Nid),
    /// The device takes part again.
    Reinstated(Nid),
    /// The control unit decided by itself.
    Decided(Gid, Reason),
}

/// Events that wait to be fetched.
#[derive(Debug)]
pub(super) struct Events {
    waiting: VecDeque<Event>,
    lost: u64,
    max: usize,
}

impl Events {
    pub(super) fn new(max: usize) -> Self {
        Self { waiting: VecDeque::new(), lost: 0, max }
    }

    pub(super) fn push(&mut self, event: Event) {
        if self.waiting.len() >= self.max {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back(event);
    }

    /// All that wait, oldest first, and how many were lost before them for want of room.
    pub(super) fn take(&mut self) -> (Vec<Event>, u64) {
        let events = std::mem::take(&mut self.waiting).into();
        (events, std::mem::take(&mut self.lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_events_are_lost_and_counted() {
        let gid = Gid::new(7).unwrap();
        let decided = |count| Event::Decided(gid, Reason::Merged(count));
        let mut events = Events::new(2);
        (1..=3).for_each(|count| events.push(decided(count)));
        assert_eq!(events.take(), (vec![decided(2), decided(3)], 1));
        assert_eq!(events.take(), (vec![], 0));
    }
}
