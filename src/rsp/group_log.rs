//! The letters to one group, each of which lies there once for all members, and who of them is
//! connected. See [`super::mail`].

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;

use super::mail::Publication;
use super::mailbox::{OwnLetter, Reader};
use super::policy::Form;
use super::roll::Roll;
use super::shape::part;
use crate::ids::{Nid, Timestamp};

/// A group's letters and its connected members.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Ascending by id.
    pub(super) letters: VecDeque<GroupLetter>,
    pub(super) online: BTreeMap<u32, Reader>,
    /// How many of those take packets of at most so many bytes.
    pub(super) limits: BTreeMap<u32, u32>,
    pub(super) bytes: usize,
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
}

impl Log {
    pub(super) fn position(&self, id: u64) -> Result<usize, usize> {
        self.letters.binary_search_by_key(&id, |letter| letter.id)
    }

    pub(super) fn forget_limit(&mut self, reader: Reader) {
        let Some(count) = self.limits.get_mut(&reader.packet_bytes_max) else { return };
        *count -= 1;
        if *count == 0 {
            self.limits.remove(&reader.packet_bytes_max);
        }
    }

    /// The first letter behind `cursor` that is for this device now.
    pub(super) fn next(
        &self,
        index: u32,
        cursor: u64,
        now: Timestamp,
        is_taken: impl Fn(u64) -> bool,
        agrees: impl Fn() -> bool,
    ) -> Option<&GroupLetter> {
        let from = self.letters.partition_point(|letter| letter.id <= cursor);
        let mut behind = self.letters.range(from..);
        behind.find(|letter| {
            letter.expires > now
                && letter.roll.is_pending(index)
                && !is_taken(letter.id)
                && letter.is_open_to(index)
                && (!letter.publication.needs_consent || agrees())
        })
    }
}

impl GroupLetter {
    pub(super) fn is_done(&self) -> bool {
        self.roll.remaining() == 0
    }

    pub(super) fn is_of(&self, campaign: u64) -> bool {
        self.campaign.is_some_and(|own| own.get() == campaign)
    }

    pub(super) fn is_open_to(&self, index: u32) -> bool {
        self.first.as_ref().is_none_or(|first| first.binary_search(&index).is_ok())
    }

    /// The device may have it without having to wait for anything.
    pub(super) fn is_free_for(&self, index: u32) -> bool {
        !self.publication.needs_consent && self.is_open_to(index)
    }

    /// The same for one device that leaves the group.
    pub(super) fn to_own(&self, nid: Nid) -> OwnLetter {
        let Publication { message, parts, chunks, .. } = &self.publication;
        let message = parts.as_ref().map_or_else(|| Arc::clone(message), |p| part(message, p, nid));
        let (id, expires, campaign, chunks) = (self.id, self.expires, self.campaign, *chunks);
        let (form, change) = (Form::Multi, None);
        OwnLetter { id, message, expires, form, campaign, chunks, change }
    }
}
