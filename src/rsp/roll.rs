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

    /// Who was addressed, ascending.
    pub(super) fn members(&self) -> &[u32] {
        &self.members
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

    /// Marks everybody as done but these, in ascending order, who are not done yet.
    pub(super) fn finish_all_but(&mut self, these: &[u32]) {
        let pending: Vec<u32> = these.iter().copied().filter(|i| self.is_pending(*i)).collect();
        self.done.fill(u64::MAX);
        for index in &pending {
            if let Ok(at) = self.members.binary_search(index) {
                self.done[at / 64] &= !bit(at);
            }
        }
        self.remaining = pending.len();
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
        assert!(roll.is_pending(258));
        assert!(!roll.is_pending(257) && !roll.finish(257), "was never addressed");
        assert!(roll.finish(258));
        assert!(!roll.finish(258), "only once");
        assert!(!roll.is_pending(258));
        assert!(roll.is_pending(256), "its neighbour is not touched");
        assert_eq!(roll.remaining(), 129);
    }

    #[test]
    fn all_but_some_are_done_at_once() {
        let mut roll = Roll::new(Arc::new((0..130).collect()));
        roll.finish(7);
        roll.finish_all_but(&[7, 64, 129, 500]);
        let pending: Vec<u32> = (0..130).filter(|index| roll.is_pending(*index)).collect();
        assert_eq!(pending, [64, 129], "7 had it before");
        assert_eq!(roll.remaining(), 2);
        assert!(roll.finish(64) && !roll.finish(65));
    }
}
