//! Roll: who was addressed by a group message, and who is done with it.
//!
//! The members are shared with the group itself until it changes (one pointer); who is done costs
//! one bit per member. So a message to a million devices is one small thing.

use std::sync::Arc;

/// The receivers of a group message as they were when it was published.
#[derive(Debug)]
pub(super) struct Roll {
    /// Device indexes, ascending.
    members: Arc<Vec<u32>>,
    done: Box<[u64]>,
    remaining: usize,
}

impl Roll {
    pub(super) fn new(members: Arc<Vec<u32>>) -> Self {
        let done = vec![0; members.len().div_ceil(64)].into_boxed_slice();
        let remaining = members.len();
        Self { members, done, remaining }
    }

    /// Whether the device was addressed.
    pub(super) fn contains(&self, index: u32) -> bool {
        self.members.binary_search(&index).is_ok()
    }

    /// Whether the device was addressed and is not done.
    pub(super) fn is_pending(&self, index: u32) -> bool {
        self.members.binary_search(&index).is_ok_and(|at| self.done[at / 64] & bit(at) == 0)
    }

    /// Marks the device as done; `false` when it was not pending.
    pub(super) fn finish(&mut self, index: u32) -> bool {
        let Ok(at) = self.members.binary_search(&index) else { return false };
        let word = &mut self.done[at / 64];
        if *word & bit(at) != 0 {
            return false;
        }
        *word |= bit(at);
        self.remaining -= 1;
        true
    }

    /// How many are not done.
    pub(super) fn remaining(&self) -> usize {
        self.remaining
    }
}

fn bit(at: usize) -> u64 {
    1 << (at % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_is_done_once() {
        let members: Vec<u32> = (0..130).map(|n| n * 2).collect();
        let mut roll = Roll::new(Arc::new(members));
        assert!(roll.is_pending(258) && roll.contains(258));
        assert!(!roll.is_pending(257) && !roll.finish(257), "was never addressed");
        assert!(roll.finish(258));
        assert!(!roll.finish(258), "only once");
        assert!(!roll.is_pending(258) && roll.contains(258));
        assert!(roll.is_pending(256), "its neighbour is not touched");
        assert_eq!(roll.remaining(), 129);
    }
}
