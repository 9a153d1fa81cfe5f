//! Filed: which requests were made to whom, by what may still come of them. So whoever looks for
//! one that may be answered does not look at what has been, and the smallest loss is found at once
//! when one of them has to go.

use std::collections::BTreeSet;

/// What may still come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// An answer.
    Open,
    /// No answer, but it still permits something: an A1.
    Answered,
    /// Nothing.
    Over,
}

/// Requests by device, or by group.
#[derive(Debug)]
pub(super) struct Filed<K>(BTreeSet<(K, Standing, u64)>);

impl<K> Default for Filed<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<K: Copy + Ord> Filed<K> {
    pub(super) fn insert(&mut self, key: K, standing: Standing, id: u64) {
        self.0.insert((key, standing, id));
    }

    pub(super) fn remove(&mut self, key: K, standing: Standing, id: u64) {
        self.0.remove(&(key, standing, id));
    }

    /// The requests to this one: those that are open, oldest first, then the others.
    pub(super) fn of(&self, key: K) -> impl Iterator<Item = u64> + Clone + '_ {
        let all = (key, Standing::Open, 0)..=(key, Standing::Over, u64::MAX);
        self.0.range(all).map(|(_, _, id)| *id)
    }

    /// The smallest loss, if there are more than so many: one of which least may come, the oldest
    /// of those.
    pub(super) fn least_wanted(&self, key: K, max: usize) -> Option<u64> {
        self.of(key).nth(max)?;
        [Standing::Over, Standing::Answered, Standing::Open].into_iter().find_map(|standing| {
            let those = self.0.range((key, standing, 0)..=(key, standing, u64::MAX));
            those.map(|(_, _, id)| *id).next()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Answered, Open, Over};

    #[test]
    fn what_is_over_comes_last_and_goes_first() {
        let mut filed = Filed::default();
        for (id, standing) in [(1, Over), (2, Open), (3, Over), (4, Answered), (5, Open)] {
            filed.insert('b', standing, id);
            filed.insert('a', Open, id + 10);
        }
        assert!(filed.of('b').eq([2, 5, 4, 1, 3]) && filed.of('a').eq([11, 12, 13, 14, 15]));
        assert!(filed.of('c').next().is_none());
        assert_eq!((filed.least_wanted('b', 5), filed.least_wanted('c', 0)), (None, None));
        for (id, standing) in [(1, Over), (3, Over), (4, Answered), (2, Open), (5, Open)] {
            assert_eq!(filed.least_wanted('b', 0), Some(id));
            filed.remove('b', standing, id);
        }
        assert_eq!((filed.least_wanted('b', 0), filed.least_wanted('a', 4)), (None, Some(11)));
    }
}
