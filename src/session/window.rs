//! Things in the order of their coming, each under a packet id: found by either.
//!
//! A short window is searched from its oldest entry on, where nearly every acknowledgement finds
//! its message at the first look. A long one has an index beside it, so that neither a client that
//! acknowledges in another order nor one whose ids are nearly used up costs a look at each entry.

use std::collections::{HashMap, VecDeque};

use crate::ids::PacketId;

/// A window with more entries than this has an index; what it costs then, they cost, too.
const INDEXED_FROM: usize = 128;

/// A window with fewer entries than this has none any more: not at every step over the border.
const INDEXED_TO: usize = 32;

/// Entries by packet id and in order.
#[derive(Debug)]
pub(super) struct Window<T> {
    entries: VecDeque<Entry<T>>,
    next_turn: u64,
    index: Option<Box<Index>>,
}

#[derive(Debug)]
struct Entry<T> {
    id: PacketId,
    /// Rises from entry to entry.
    turn: u64,
    value: T,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), next_turn: 0, index: None }
    }
}

impl<T> Window<T> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry at this position from the oldest on.
    pub(super) fn get(&self, at: usize) -> Option<(PacketId, &T)> {
        self.entries.get(at).map(|entry| (entry.id, &entry.value))
    }

    /// The value at a position that [`Window::position`] has given.
    pub(super) fn at(&self, at: usize) -> &T {
        &self.entries[at].value
    }

    /// The same, to be changed.
    pub(super) fn at_mut(&mut self, at: usize) -> &mut T {
        &mut self.entries[at].value
    }

    /// Where the entry of this id stands, counted from the oldest.
    pub(super) fn position(&self, id: PacketId) -> Option<usize> {
        let Some(index) = &self.index else {
            return self.entries.iter().position(|entry| entry.id == id);
        };
        let turn = index.turns.get(&id)?;
        self.entries.binary_search_by_key(turn, |entry| entry.turn).ok()
    }

    /// The first id behind `last` that no entry has. There is one: a client's window is a number
    /// of 16 bits, as ids are, and the caller has seen that it has room.
    pub(super) fn free_id(&self, last: u16) -> PacketId {
        if let Some(index) = &self.index {
            return index.free_id(last).expect("no window has more entries than there are ids");
        }
        let mut id = last;
        loop {
            id = id.wrapping_add(1);
            if let Some(id) = PacketId::new(id).filter(|id| self.position(*id).is_none()) {
                return id;
            }
        }
    }

    /// Adds an entry under an id that none has.
    pub(super) fn push(&mut self, id: PacketId, value: T) {
        let turn = self.next_turn;
        self.next_turn += 1;
        self.entries.push_back(Entry { id, turn, value });
        match &mut self.index {
            Some(index) => index.insert(id, turn),
            None if self.entries.len() > INDEXED_FROM => self.index = Some(self.make_index()),
            None => {}
        }
    }

    /// Removes the entry at this position.
    pub(super) fn remove(&mut self, at: usize) {
        if let (Some(entry), Some(index)) = (self.entries.remove(at), &mut self.index) {
            index.remove(entry.id);
        }
        if self.entries.len() < INDEXED_TO {
            self.index = None;
        }
    }

    /// Keeps the entries that are to be kept; each is asked for with its position before.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(usize, &T) -> bool) {
        let mut at = 0;
        self.entries.retain(|entry| {
            at += 1;
            keep(at - 1, &entry.value)
        });
        let is_long = self.entries.len() > INDEXED_FROM;
        self.index = is_long.then(|| self.make_index());
    }

    fn make_index(&self) -> Box<Index> {
        let mut index = Box::new(Index { turns: HashMap::new(), used: vec![0; WORDS] });
        index.used[0] = 1; // zero is no id
        self.entries.iter().for_each(|entry| index.insert(entry.id, entry.turn));
        index
    }
}

/// Words of 64 ids each.
const WORDS: usize = (1 << 16) / 64;

#[derive(Debug)]
struct Index {
    turns: HashMap<PacketId, u64>,
    /// A bit for each id.
    used: Vec<u64>,
}

impl Index {
    fn insert(&mut self, id: PacketId, turn: u64) {
        self.turns.insert(id, turn);
        let (word, bit) = place(id.get());
        self.used[word] |= 1 << bit;
    }

    fn remove(&mut self, id: PacketId) {
        self.turns.remove(&id);
        let (word, bit) = place(id.get());
        self.used[word] &= !(1 << bit);
    }

    fn free_id(&self, last: u16) -> Option<PacketId> {
        let (word, bit) = place(last.wrapping_add(1));
        // The word of the first id twice: at last for the ids before it.
        (0..=WORDS).find_map(|step| {
            let at = (word + step) % WORDS;
            let ahead = if step == 0 { u64::MAX << bit } else { u64::MAX };
            let free = !self.used[at] & ahead;
            let id = at * 64 + free.trailing_zeros() as usize;
            if free == 0 { None } else { u16::try_from(id).ok().and_then(PacketId::new) }
        })
    }
}

/// Word and bit of an id.
fn place(id: u16) -> (usize, u32) {
    (usize::from(id) / 64, u32::from(id) % 64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u16) -> PacketId {
        PacketId::new(number).unwrap()
    }

    #[test]
    fn every_id_can_be_in_use_and_the_one_that_is_free_is_found() {
        // case Q2
        let mut window = Window::default();
        let mut last = 17;
        for turn in 0..u16::MAX {
            last = window.free_id(last).get();
            window.push(id(last), turn);
        }
        assert_eq!((window.len(), last), (65_535, 17), "once around");
        for freed in [1, 63, 64, 17, 65_535, 30_000] {
            let at = window.position(id(freed)).unwrap();
            assert_eq!(window.get(at).unwrap().0.get(), freed);
            window.remove(at);
            assert_eq!(window.position(id(freed)), None);
            assert_eq!(window.free_id(last).get(), freed);
            window.push(id(freed), 0);
            assert_eq!(window.position(id(freed)), Some(65_534), "the youngest");
        }
        // The other way around: each is found at once.
        for left in (0..65_535).rev() {
            let (youngest, _) = window.get(left).unwrap();
            assert_eq!(window.position(youngest), Some(left));
            window.remove(left);
        }
        assert!(window.index.is_none());
    }

    proptest! {
        #[test]
        fn a_window_is_a_list(
            steps in proptest::collection::vec((0_u8..8, any::<u16>()), 0..600),
            last: u16,
        ) {
            let (mut window, mut list, mut last) = (Window::default(), Vec::new(), last);
            for (step, number) in steps {
                let at = usize::from(number) % list.len().max(1);
                match step {
                    0..6 => {
                        // Few ids, so that they meet.
                        last = if number % 7 == 0 { last.wrapping_sub(300) } else { last };
                        let free = window.free_id(last);
                        prop_assert!(!list.contains(&free));
                        window.push(free, free);
                        list.push(free);
                        last = free.get();
                    }
                    6 if !list.is_empty() => {
                        window.remove(at);
                        list.remove(at);
                    }
                    7 if number % 50 == 0 => {
                        window.retain(|_at, id| id.get() % 3 == 0);
                        list.retain(|id| id.get() % 3 == 0);
                    }
                    _ => {}
                }
                prop_assert_eq!(window.len(), list.len());
                let expected = list.get(at).map(|_| at);
                prop_assert_eq!(list.get(at).and_then(|id| window.position(*id)), expected);
                prop_assert_eq!(window.get(at).map(|(_, id)| id), list.get(at));
            }
        }
    }
}
