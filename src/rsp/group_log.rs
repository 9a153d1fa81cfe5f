//! The letters to one group, each of which lies there once for all members, and who of them is
//! connected. See [`super::mail`].

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;

use foldhash::quality::RandomState;
use indexmap::IndexMap;

use super::mail::Publication;
use super::mailbox::{OwnLetter, Reader};
use super::policy::Form;
use super::roll::Roll;
use super::shape::part;
use crate::ids::{Nid, SessionKey, Timestamp};

/// A group's letters and its connected members.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Ascending by id.
    pub(super) letters: VecDeque<GroupLetter>,
    pub(super) bytes: usize,
    /// Contiguous, because all of them are woken at once.
    online: IndexMap<u32, Reader, RandomState>,
    /// How many of those take packets of at most so many bytes.
    limits: BTreeMap<u32, u32>,
    /// Who has not read up to here may find letters open behind that it has passed over.
    reopened: u64,
}

#[derive(Debug)]
pub(super) struct GroupLetter {
    pub(super) id: u64,
    pub(super) publication: Publication,
    pub(super) roll: Roll,
    pub(super) expires: Timestamp,
    pub(super) campaign: Option<NonZeroU64>,
    /// Those who may have it before all others, ascending, as long as the others have to wait.
    pub(super) first: Option<Box<[u32]>>,
    /// The row with the members, where the letter is written down.
    pub(super) roster: u64,
}

impl Log {
    pub(super) fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.online.is_empty()
    }

    pub(super) fn position(&self, id: u64) -> Option<usize> {
        self.letters.binary_search_by_key(&id, |letter| letter.id).ok()
    }

    pub(super) fn letter_mut(&mut self, id: u64) -> Option<&mut GroupLetter> {
        let at = self.position(id)?;
        self.letters.get_mut(at)
    }

    /// Those of these members that are connected.
    pub(super) fn online_of<'a>(&'a self, members: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        members.iter().copied().filter(|index| self.online.contains_key(index))
    }

    /// The readers of all connected members.
    pub(super) fn readers(&self) -> impl Iterator<Item = SessionKey> + '_ {
        self.online.values().map(|reader| reader.key)
    }

    /// The readers of those of these members that are connected.
    pub(super) fn readers_of(&self, members: &[u32]) -> impl Iterator<Item = SessionKey> {
        members.iter().filter_map(|index| self.online.get(index)).map(|reader| reader.key)
    }

    /// The largest PUBLISH that all connected members take, in bytes.
    pub(super) fn packet_bytes_max(&self) -> u32 {
        self.limits.keys().next().copied().unwrap_or(u32::MAX)
    }

    pub(super) fn go_online(&mut self, index: u32, reader: Reader) {
        let former = self.online.insert(index, reader);
        former.into_iter().for_each(|former| self.forget_limit(former));
        *self.limits.entry(reader.packet_bytes_max).or_default() += 1;
    }

    pub(super) fn go_offline(&mut self, index: u32) {
        let former = self.online.swap_remove(&index);
        former.into_iter().for_each(|former| self.forget_limit(former));
    }

    fn forget_limit(&mut self, reader: Reader) {
        let Some(count) = self.limits.get_mut(&reader.packet_bytes_max) else { return };
        *count -= 1;
        if *count == 0 {
            self.limits.remove(&reader.packet_bytes_max);
        }
    }

    /// A campaign's letters are for all its members now, those included that have read up to
    /// `last_id`.
    pub(super) fn release(&mut self, campaign: u64, last_id: u64) {
        for letter in self.letters.iter_mut().filter(|letter| letter.is_of(campaign)) {
            letter.first = None;
        }
        self.reopened = last_id;
    }

    /// From where on a member looks that has seen everything up to `cursor`.
    pub(super) fn look_from(&self, cursor: u64) -> u64 {
        if cursor < self.reopened { 0 } else { cursor }
    }

    /// The first letter behind `cursor` that is for this device now.
    pub(super) fn next(
        &self,
        index: u32,
        cursor: u64,
        now: Timestamp,
        agrees: impl Fn() -> bool,
    ) -> Option<&GroupLetter> {
        let from = self.letters.partition_point(|letter| letter.id <= cursor);
        let mut behind = self.letters.range(from..);
        behind.find(|letter| {
            letter.expires > now
                && letter.roll.is_waiting(index)
                && letter.is_open_to(index)
                && (!letter.publication.needs_consent || agrees())
        })
    }

    /// Takes a device off the rolls of those letters that it was not given and that `which` picks.
    /// Gives their ids, and which of them are for nobody else.
    pub(super) fn drop_waiting(
        &mut self,
        index: u32,
        which: impl Fn(&GroupLetter) -> bool,
    ) -> Dropped {
        let mut dropped = Dropped::default();
        for letter in self.letters.iter_mut().filter(|letter| which(letter)) {
            if letter.roll.is_waiting(index) && letter.roll.finish(index) {
                dropped.from.push(letter.id);
                dropped.campaigns.extend(letter.campaign.map(NonZeroU64::get));
                dropped.done.extend(letter.is_done().then_some(letter.id));
            }
        }
        dropped
    }
}

/// Letters that a device does not get.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    /// Their ids.
    pub(super) from: Vec<u64>,
    /// The campaigns they belong to.
    pub(super) campaigns: Vec<u64>,
    /// Those that nobody else gets.
    pub(super) done: Vec<u64>,
}

impl GroupLetter {
    /// A letter that is not in the mail yet, which numbers it.
    pub(super) fn new(roll: Roll, publication: Publication, expires: Timestamp) -> Self {
        Self { id: 0, publication, roll, expires, campaign: None, first: None, roster: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.roll.remaining() == 0
    }

    pub(super) fn is_of(&self, campaign: u64) -> bool {
        self.campaign.is_some_and(|own| own.get() == campaign)
    }

    fn is_open_to(&self, index: u32) -> bool {
        self.first.as_ref().is_none_or(|first| first.binary_search(&index).is_ok())
    }

    /// The device may have it without having to wait for anything.
    pub(super) fn is_free_for(&self, index: u32) -> bool {
        !self.publication.needs_consent && self.is_open_to(index)
    }

    /// The same for one device that leaves the group.
    pub(super) fn to_own(&self, nid: Nid, copy: u32) -> OwnLetter {
        let Publication { message, parts, chunks, .. } = &self.publication;
        let message = parts.as_ref().map_or_else(|| Arc::clone(message), |p| part(message, p, nid));
        let (id, expires, campaign, chunks) = (self.id, self.expires, self.campaign, *chunks);
        let (form, change) = (Form::Multi, None);
        OwnLetter { id, copy, message, expires, form, campaign, chunks, change }
    }
}
