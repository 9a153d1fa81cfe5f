//! Pages: what is known of each member of a group, so many of them to a row.

use std::collections::BTreeSet;

/// Members of a page: a row of 128 bytes where each has one bit, of 1 KiB where each has a byte.
pub(in crate::rsp) const MEMBERS_PER_PAGE: usize = 1024;

/// The page of the member at this place.
fn page_of(place: usize) -> u32 {
    u32::try_from(place / MEMBERS_PER_PAGE).unwrap_or(u32::MAX)
}

/// Pages as they were read, by their numbers.
pub(in crate::rsp) type PageRows = Vec<(u32, Box<[u8]>)>;

/// Pages that have changed since they were written; none are noted unless they are to be.
#[derive(Debug, Default)]
pub(in crate::rsp) struct Pages {
    on: bool,
    changed: BTreeSet<u32>,
}

impl Pages {
    pub(in crate::rsp) fn new(on: bool) -> Self {
        Self { on, changed: BTreeSet::new() }
    }

    /// Those of other members, of which as much is noted.
    pub(in crate::rsp) fn anew(&self) -> Self {
        Self::new(self.on)
    }

    /// The member at this place has changed.
    pub(in crate::rsp) fn note(&mut self, place: usize) {
        if self.on {
            self.changed.insert(page_of(place));
        }
    }

    /// Those of so many members have changed.
    pub(in crate::rsp) fn note_all(&mut self, members: usize) {
        (0..members).step_by(MEMBERS_PER_PAGE).for_each(|place| self.note(place));
    }

    pub(in crate::rsp) fn take(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.changed)
    }
}
