//! Untold: profile changes that have happened, and that no server could be told of for want of
//! room.
//!
//! Apart from their exchanges: what has happened is to be told even when its exchange is forgotten,
//! or a device of it is gone.

use std::collections::VecDeque;

use super::mailbox::ProfileChange;

#[derive(Debug, Default)]
pub(super) struct Untold(VecDeque<ProfileChange>);

/// Profile changes that are remembered until they are told; beyond them the oldest is lost.
const CHANGES_MAX: usize = 10_000;

/// Of those, so many are told at a time, or tried to.
const AT_ONCE_MAX: usize = 1_000;

impl Untold {
    /// Remembers a change; `false` when an older one is lost for it.
    pub(super) fn push(&mut self, change: ProfileChange) -> bool {
        self.0.push_back(change);
        self.0.len() <= CHANGES_MAX || self.0.pop_front().is_none()
    }

    /// Takes the oldest, to be told or remembered again.
    pub(super) fn take_some(&mut self) -> Vec<ProfileChange> {
        self.0.drain(..self.0.len().min(AT_ONCE_MAX)).collect()
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
