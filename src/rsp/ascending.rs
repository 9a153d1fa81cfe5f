//! A map for things that are numbered as they come: a new one has the highest number of all.
//!
//! They lie in pages, each of which is filled before the next is begun. A tree of them, filled at
//! its end, leaves half of its room empty; here a page loses room only when things are removed
//! from it, and gives half of it back then.

use std::collections::BTreeMap;

/// Things in a page: as many as are moved when one is removed.
const PAGE: usize = 64;

#[derive(Debug)]
pub(super) struct Ascending<T> {
    /// By the first number that each page had; none is empty.
    pages: BTreeMap<u64, Vec<(u64, T)>>,
    len: usize,
}

impl<T> Default for Ascending<T> {
    fn default() -> Self {
        Self { pages: BTreeMap::new(), len: 0 }
    }
}

impl<T> Ascending<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a thing whose number is higher than all others.
    pub(super) fn push(&mut self, number: u64, thing: T) {
        self.len += 1;
        if let Some(mut last) = self.pages.last_entry()
            && last.get().len() < PAGE
        {
            last.get_mut().push((number, thing));
            return;
        }
        self.pages.insert(number, vec![(number, thing)]);
    }

    pub(super) fn get(&self, number: u64) -> Option<&T> {
        let (_, page) = self.pages.range(..=number).next_back()?;
        Some(&page[position(page, number)?].1)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let (_, page) = self.pages.range_mut(..=number).next_back()?;
        let at = position(page, number)?;
        Some(&mut page[at].1)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let (first, page) = self.pages.range_mut(..=number).next_back()?;
        let (first, at) = (*first, position(page, number)?);
        let (_, thing) = page.remove(at);
        self.len -= 1;
        if page.is_empty() {
            self.pages.remove(&first);
        } else if page.len() <= page.capacity() / 2 {
            page.shrink_to_fit();
        }
        Some(thing)
    }

    /// Those with lower numbers, in descending order.
    pub(super) fn below(&self, number: u64) -> impl Iterator<Item = (u64, &T)> {
        let all = self.pages.range(..number).rev().flat_map(|(_, page)| page.iter().rev());
        all.skip_while(move |(other, _)| *other >= number).map(|(number, thing)| (*number, thing))
    }

    /// Those with this or higher numbers, in ascending order.
    pub(super) fn from(&self, number: u64) -> impl Iterator<Item = (u64, &T)> {
        let first = self.pages.range(..=number).next_back().map_or(number, |(first, _)| *first);
        let all = self.pages.range(first..).flat_map(|(_, page)| page.iter());
        all.skip_while(move |(other, _)| *other < number).map(|(number, thing)| (*number, thing))
    }
}

fn position<T>(page: &[(u64, T)], number: u64) -> Option<usize> {
    page.binary_search_by_key(&number, |(number, _)| *number).ok()
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        /// So much higher than the last.
        Push(u64),
        /// One of those that were pushed.
        Remove(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (1..4_u64).prop_map(Op::Push),
            2 => (0..1200_u64).prop_map(Op::Remove),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_a_tree_holds(ops in proptest::collection::vec(op(), 0..900)) {
            let (mut map, mut tree, mut last) = (Ascending::default(), BTreeMap::new(), 0);
            for op in ops {
                match op {
                    Op::Push(more) => {
                        last += more;
                        map.push(last, last * 10);
                        tree.insert(last, last * 10);
                    }
                    Op::Remove(number) => prop_assert_eq!(map.remove(number), tree.remove(&number)),
                }
            }
            prop_assert_eq!(map.len(), tree.len());
            for number in (0..=last + 1).step_by(7) {
                prop_assert_eq!(map.get(number), tree.get(&number));
                prop_assert_eq!(map.get_mut(number), tree.get_mut(&number));
                let below = (Bound::Unbounded, Bound::Excluded(number));
                let expected = tree.range(below).rev().map(|(n, t)| (*n, t));
                prop_assert!(map.below(number).eq(expected));
                prop_assert!(map.from(number).eq(tree.range(number..).map(|(n, t)| (*n, t))));
            }
        }
    }

    #[test]
    fn a_page_gives_room_back() {
        let mut map = Ascending::default();
        (0..640).for_each(|number| map.push(number, ()));
        assert_eq!(map.pages.len(), 10);
        assert!(map.pages.values().all(|page| page.capacity() == PAGE));
        for number in (0..640).filter(|number| number % 10 > 0) {
            assert_eq!(map.remove(number), Some(()));
        }
        let room: usize = map.pages.values().map(Vec::capacity).sum();
        assert!((64..=128).contains(&room), "{room}");
        for number in 0..640 {
            assert_eq!(map.remove(number).is_some(), number % 10 == 0);
        }
        assert!(map.pages.is_empty());
    }
}
