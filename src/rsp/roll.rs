//! Roll: who was addressed by a group message, who has it on its way, and who is done with it.
//!
//! The members are shared with the group itself until it changes (one pointer); what is known of
//! each costs one or two bits. So a message to a million devices is one small thing.

use std::iter::Peekable;
use std::sync::Arc;

use super::rows::{MEMBERS_PER_PAGE, Pages};

/// The receivers of a group message as they were when it was published.
#[derive(Debug)]
pub(super) struct Roll {
    /// Device indexes, ascending.
    members: Arc<Vec<u32>>,
    done: Box<[u64]>,
    /// Those who were given the message and are not done; empty until there is one.
    out: Box<[u64]>,
    remaining: usize,
    /// Of those who are done.
    pages: Pages,
}

impl Roll {
    pub(super) fn new(members: Arc<Vec<u32>>) -> Self {
        let (done, remaining) = (no_bits(members.len()), members.len());
        Self { members, done, out: Box::default(), remaining, pages: Pages::default() }
    }

    /// The same, of which what changes has to be written down.
    pub(super) fn kept(self) -> Self {
        Self { pages: Pages::new(true), ..self }
    }

    /// Who was addressed.
    pub(super) fn members(&self) -> &Arc<Vec<u32>> {
        &self.members
    }

    /// Where in the roll a device stands.
    pub(super) fn place_of(&self, index: u32) -> Option<u32> {
        self.position(index).and_then(|at| u32::try_from(at).ok())
    }

    /// The pages of who is done that have changed, a bit for each member.
    pub(super) fn take_changed(&mut self) -> Vec<(u32, Vec<u8>)> {
        let page = |number: u32| {
            let words = self.done.chunks(WORDS_PER_PAGE).nth(number as usize).unwrap_or_default();
            (number, words.iter().flat_map(|word| word.to_le_bytes()).collect())
        };
        self.pages.take().into_iter().map(page).collect()
    }

    /// The members that are done on a page.
    pub(super) fn done_on(page: u32, bits: &[u8]) -> impl Iterator<Item = usize> {
        let from = page as usize * MEMBERS_PER_PAGE;
        let bits = bits.iter().enumerate();
        let places = bits.flat_map(|(at, byte)| {
            (0..8).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| at * 8 + bit)
        });
        places.map(move |place| from + place)
    }

    /// All that is known is to be written anew.
    pub(super) fn note_all(&mut self) {
        let done = self.members.len() - self.remaining;
        self.pages.note_all(if done > 0 { self.members.len() } else { 0 });
    }

    /// Those who stand at these places are done now; `false` where they were.
    pub(super) fn finish_all(&mut self, places: std::ops::Range<usize>) -> bool {
        let before = self.remaining;
        for place in places {
            let remaining = self.remaining;
            self.restore_done(place);
            if self.remaining < remaining {
                self.pages.note(place);
            }
        }
        self.remaining < before
    }

    /// The member at this place is done, as it was before a restart.
    pub(super) fn restore_done(&mut self, place: usize) {
        let Some(word) = self.done.get_mut(place / 64).filter(|_| place < self.members.len())
        else {
            return;
        };
        self.remaining -= usize::from(*word & bit(place) == 0);
        *word |= bit(place);
    }

    /// Whether the device was addressed, is not done, and does not have the message on its way.
    pub(super) fn is_waiting(&self, index: u32) -> bool {
        let Some(at) = self.position(index) else { return false };
        self.done[at / 64] & bit(at) == 0 && !self.is_out(at)
    }

    /// The device is given the message.
    pub(super) fn take(&mut self, index: u32) {
        let Some(at) = self.position(index) else { return };
        if self.out.is_empty() {
            self.out = no_bits(self.members.len());
        }
        self.out[at / 64] |= bit(at);
    }

    /// The device does not have the message on its way any more.
    pub(super) fn put_back(&mut self, index: u32) {
        if let Some(at) = self.position(index) {
            self.bring_in(at);
        }
    }

    /// Marks the device as done; `false` when it was.
    pub(super) fn finish(&mut self, index: u32) -> bool {
        let Some(at) = self.position(index) else { return false };
        self.bring_in(at);
        let word = &mut self.done[at / 64];
        if *word & bit(at) != 0 {
            return false;
        }
        *word |= bit(at);
        self.remaining -= 1;
        self.pages.note(at);
        true
    }

    /// Marks everybody as done but those who have the message on its way: they are given,
    /// ascending.
    pub(super) fn finish_waiting(&mut self) -> Vec<u32> {
        let mut holders = Vec::new();
        for (place, done) in self.done.iter_mut().enumerate() {
            let mut out = self.out.get(place).copied().unwrap_or(0);
            *done = !out;
            while out != 0 {
                holders.push(self.members[place * 64 + out.trailing_zeros() as usize]);
                out &= out - 1;
            }
        }
        self.remaining = holders.len();
        self.pages.note_all(self.members.len());
        holders
    }

    /// Leaves over those alone who have the message on its way, and gives all others. `None` when
    /// nobody has it; then nothing has changed.
    pub(super) fn leave_to_holders(&mut self) -> Option<Self> {
        if self.out.iter().all(|word| *word == 0) {
            return None;
        }
        let mut others = Self {
            members: Arc::clone(&self.members),
            done: self.done.clone(),
            out: Box::default(),
            remaining: self.remaining,
            pages: Pages::default(),
        };
        // They are few, and those who share the members with them do not wait for them.
        let holders = Arc::new(self.finish_waiting());
        let pages = self.pages.anew();
        *self = Self { pages, ..Self::new(Arc::clone(&holders)) };
        for index in holders.iter().copied() {
            self.take(index);
            others.finish(index);
        }
        Some(others)
    }

    /// Those who are not done, ascending.
    pub(super) fn pending(&self) -> impl Iterator<Item = u32> + '_ {
        let members = self.members.iter().enumerate();
        members.filter(|(at, _)| self.done[at / 64] & bit(*at) == 0).map(|(_, index)| *index)
    }

    /// How many were addressed.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// How many are not done.
    pub(super) fn remaining(&self) -> usize {
        self.remaining
    }

    #[cfg(test)]
    pub(super) fn is_pending(&self, index: u32) -> bool {
        self.position(index).is_some_and(|at| self.done[at / 64] & bit(at) == 0)
    }

    #[cfg(test)]
    pub(super) fn is_out_to(&self, index: u32) -> bool {
        self.position(index).is_some_and(|at| self.is_out(at))
    }

    fn position(&self, index: u32) -> Option<usize> {
        self.members.binary_search(&index).ok()
    }

    fn is_out(&self, at: usize) -> bool {
        self.out.get(at / 64).is_some_and(|word| word & bit(at) != 0)
    }

    fn bring_in(&mut self, at: usize) {
        let word = self.out.get_mut(at / 64);
        word.into_iter().for_each(|word| *word &= !bit(at));
    }
}

const WORDS_PER_PAGE: usize = MEMBERS_PER_PAGE / 64;

fn no_bits(len: usize) -> Box<[u64]> {
    vec![0; len.div_ceil(64)].into_boxed_slice()
}

fn bit(at: usize) -> u64 {
    1 << (at % 64)
}

/// Devices in ascending order, of which one is asked after the other, ascending, too.
pub(super) struct Ticked<I: Iterator<Item = u32>>(Peekable<I>);

impl<I: Iterator<Item = u32>> Ticked<I> {
    pub(super) fn new(devices: I) -> Self {
        Self(devices.peekable())
    }

    pub(super) fn has(&mut self, index: u32) -> bool {
        while self.0.next_if(|first| *first < index).is_some() {}
        self.0.peek() == Some(&index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_is_done_once() {
        let members: Vec<u32> = (0..130).map(|n| n * 2).collect();
        let mut roll = Roll::new(Arc::new(members));
        assert!(roll.is_waiting(258));
        assert!(!roll.is_waiting(257) && !roll.finish(257), "was never addressed");
        assert!(roll.finish(258));
        assert!(!roll.finish(258), "only once");
        assert!(!roll.is_waiting(258));
        assert!(roll.is_waiting(256), "its neighbour is not touched");
        assert_eq!(roll.remaining(), 129);
    }

    #[test]
    fn who_was_given_the_message_does_not_wait_until_it_is_put_back() {
        let mut roll = Roll::new(Arc::new((0..130).collect()));
        roll.take(129);
        roll.take(500);
        assert!(!roll.is_waiting(129) && roll.is_waiting(128));
        assert_eq!(roll.remaining(), 130, "it is not done");
        roll.put_back(129);
        roll.put_back(128);
        assert!(roll.is_waiting(129) && roll.is_waiting(128));
        roll.take(129);
        assert!(roll.finish(129));
        roll.put_back(129);
        assert!(!roll.is_waiting(129), "is done");
    }

    #[test]
    fn all_are_done_at_once_but_those_who_have_it_on_its_way() {
        let mut roll = Roll::new(Arc::new((0..130).map(|n| n + 7).collect()));
        [7, 64, 100, 136].into_iter().for_each(|index| roll.take(index));
        roll.finish(7);
        roll.put_back(100);
        assert_eq!(roll.finish_waiting(), [64, 136], "7 is done, 100 waits");
        assert_eq!(roll.remaining(), 2);
        assert!(roll.pending().eq([64, 136]));
        assert!(!roll.finish(100) && !roll.is_waiting(100));
        roll.put_back(64);
        assert!(roll.is_waiting(64) && roll.finish(64) && roll.finish(136));
        assert_eq!((roll.remaining(), roll.finish_waiting().len()), (0, 0));
        assert!(roll.pending().next().is_none());
    }

    #[test]
    fn those_who_have_it_on_its_way_are_left_alone_with_it() {
        let mut roll = Roll::new(Arc::new((0..130).map(|n| n + 7).collect()));
        assert!(roll.leave_to_holders().is_none() && roll.is_waiting(7));
        [7, 64, 136].into_iter().for_each(|index| roll.take(index));
        assert!(roll.finish(7) && roll.finish(8));
        let others = roll.leave_to_holders().unwrap();
        assert!(roll.pending().eq([64, 136]) && roll.is_out_to(64) && roll.is_out_to(136));
        assert_eq!((others.remaining(), others.pending().count()), (126, 126));
        assert!(others.pending().all(|index| ![7, 8, 64, 136].contains(&index)));
        roll.put_back(64);
        assert!(roll.leave_to_holders().unwrap().pending().eq([64]));
        assert!(roll.pending().eq([136]) && roll.finish(136));
        assert_eq!(roll.remaining(), 0);
    }

    #[test]
    fn devices_are_asked_for_in_ascending_order() {
        let mut ticked = Ticked::new([2, 3, 7].into_iter());
        let found: Vec<u32> = (0..10).filter(|index| ticked.has(*index)).collect();
        assert_eq!(found, [2, 3, 7]);
        let mut ticked = Ticked::new([2, 3, 7].into_iter());
        assert!(!ticked.has(4) && ticked.has(7) && ticked.has(7) && !ticked.has(8));
        assert!(!Ticked::new(std::iter::empty()).has(0));
    }
}
