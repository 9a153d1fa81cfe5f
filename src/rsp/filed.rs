//! Filed: which requests were made to whom, those that are over behind the others. So whoever
//! looks for one that may be answered need not look at what has been.

use std::collections::BTreeSet;

/// Requests by device, or by group.
#[derive(Debug)]
pub(super) struct Filed<K>(BTreeSet<(K, bool, u64)>);

impl<K> Default for Filed<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<K: Copy + Ord> Filed<K> {
    /// Files a request, or files it anew because it is over now, or not any more.
    pub(super) fn put(&mut self, key: K, is_over: bool, id: u64) {
        self.0.remove(&(key, !is_over, id));
        self.0.insert((key, is_over, id));
    }

    pub(super) fn remove(&mut self, key: K, id: u64) {
        if !self.0.remove(&(key, false, id)) {
            self.0.remove(&(key, true, id));
        }
    }

    /// The requests to this one: those that are not over, oldest first, then the others.
    pub(super) fn of(&self, key: K) -> impl Iterator<Item = u64> + Clone + '_ {
        self.0.range((key, false, 0)..=(key, true, u64::MAX)).map(|(_, _, id)| *id)
    }

    /// The oldest that is over.
    pub(super) fn oldest_over(&self, key: K) -> Option<u64> {
        let over = self.0.range((key, true, 0)..=(key, true, u64::MAX));
        over.map(|(_, _, id)| *id).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_comes_behind_what_is_not() {
        let mut filed = Filed::default();
        for id in [1, 2, 3, 4] {
            filed.put('a', false, id);
            filed.put('b', false, id + 10);
        }
        filed.put('a', true, 3);
        filed.put('a', true, 1);
        assert!(filed.of('a').eq([2, 4, 1, 3]) && filed.of('b').eq([11, 12, 13, 14]));
        assert_eq!((filed.oldest_over('a'), filed.oldest_over('b')), (Some(1), None));
        filed.put('a', false, 1);
        filed.remove('a', 2);
        filed.remove('a', 3);
        assert!(filed.of('a').eq([1, 4]) && filed.of('c').next().is_none());
    }
}
