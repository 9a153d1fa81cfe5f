//! A map for things that are numbered as they come: a new one has the highest number of all.
//!
//! They lie in pages, which are found by number, and filled before the next one is begun. A tree
//! of them, filled at its end, leaves half of its room empty; here a page loses room only when
//! things are removed from it, and gives half of it back when three quarters are empty.

use std::collections::BTreeMap;

/// Numbers of a page: as many things at most are moved when one is removed.
const PAGE: u64 = 32;

#[derive(Debug)]
pub(super) struct Ascending<T> {
    /// By their numbers divided by [`PAGE`]; none is empty.
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
        self.pages.entry(number / PAGE).or_default().push((number, thing));
        self.len += 1;
    }

    pub(super) fn get(&self, number: u64) -> Option<&T> {
        let page = self.pages.get(&(number / PAGE))?;
        Some(&page[position(page, number)?].1)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let page = self.pages.get_mut(&(number / PAGE))?;
        let at = position(page, number)?;
        Some(&mut page[at].1)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let page = self.pages.get_mut(&(number / PAGE))?;
        let (_, thing) = page.remove(position(page, number)?);
        self.len -= 1;
        if page.is_empty() {
            self.pages.remove(&(number / PAGE));
        } else if page.len() <= page.capacity() / 4 {
            // Not all of it: the last page is filled again.
            page.shrink_to(page.capacity() / 2);
        }
        Some(thing)
    }

    /// Those with lower numbers, in descending order.
    pub(super) fn below(&self, number: u64) -> impl Iterator<Item = (u64, &T)> {
        let pages = self.pages.range(..=number / PAGE).rev();
        let all = pages.flat_map(|(_, page)| page.iter().rev());
        all.skip_while(move |(other, _)| *other >= number).map(|(number, thing)| (*number, thing))
    }

    /// Those with this or higher numbers, in ascending order.
    pub(super) fn from(&self, number: u64) -> impl Iterator<Item = (u64, &T)> {
        let all = self.pages.range(number / PAGE..).flat_map(|(_, page)| page.iter());
        all.skip_while(move |(other, _)| *other < number).map(|(number, thing)| (*number, thing))
    }
}

/// Where in its page something lies: in its own place, or before, where others were removed.
fn position<T>(page: &[(u64, T)], number: u64) -> Option<usize> {
    let own = usize::try_from(number % PAGE).ok()?;
    match page.get(own) {
        Some((other, _)) if *other == number => Some(own),
        _ => page[..own.min(page.len())].binary_search_by_key(&number, |(other, _)| *other).ok(),
    }
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
        assert_eq!(map.pages.len(), 640 / PAGE as usize);
        assert!(map.pages.values().all(|page| page.capacity() == PAGE as usize));
        for number in (0..640).filter(|number| number % 10 > 0) {
            assert_eq!(map.remove(number), Some(()));
        }
        let room: usize = map.pages.values().map(Vec::capacity).sum();
        assert!((64..=256).contains(&room), "{room}");
        for number in 0..640 {
            assert_eq!(map.remove(number).is_some(), number % 10 == 0);
        }
        assert!(map.pages.is_empty());
    }
}
