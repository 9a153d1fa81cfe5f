//! Mailbox: what one device is addressed by alone, and how far its reader has read.
//!
//! A mailbox exists only while there is something to remember: a reader, or a letter.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::policy::Form;
use crate::ids::{Gid, Nid, SessionKey, Timestamp};
use crate::mqtt::Message;

/// A message on its way to one device.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Place in the order of all publishes; names the letter towards its device.
    pub id: u64,
    /// What was published, shared by all its receivers.
    pub message: Arc<Message>,
}

/// A device took over another device's profile: its E2 is acknowledged `[0069]` `[0098]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileChange {
    /// nid1, which gave the profile away.
    pub from: Nid,
    /// nid2, which has it now.
    pub to: Nid,
    /// Their common group.
    pub gid: Gid,
}

/// A device has acknowledged a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// How it was addressed.
    pub form: Form,
    /// When it was published.
    pub published: Timestamp,
    /// What it means, if it was an E2.
    pub change: Option<ProfileChange>,
}

/// A letter to one device alone.
#[derive(Debug)]
pub(super) struct OwnLetter {
    pub(super) id: u64,
    pub(super) message: Arc<Message>,
    pub(super) expires: Timestamp,
    pub(super) form: Form,
    /// Present on an E2: what its acknowledgement means.
    pub(super) change: Option<Box<ProfileChange>>,
}

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// Sessions of the device that subscribed, oldest first; the newest alone is served.
    readers: SmallVec<[SessionKey; 1]>,
    /// The reader has seen everything up to this letter.
    pub(super) cursor: u64,
    /// Letters the reader has and did not acknowledge, ascending. Bounded by the reader's window.
    taken: VecDeque<u64>,
    /// Ascending.
    letters: VecDeque<OwnLetter>,
    pub(super) bytes: usize,
}

impl Mailbox {
    pub(super) fn is_empty(&self) -> bool {
        self.readers.is_empty() && self.letters.is_empty()
    }

    /// The session that is served.
    pub(super) fn reader(&self) -> Option<SessionKey> {
        self.readers.last().copied()
    }

    /// Makes a session the one that is served. The oldest of too many is forgotten.
    pub(super) fn put_reader(&mut self, reader: SessionKey) {
        self.readers.retain(|other| *other != reader);
        if self.readers.len() >= READERS_MAX {
            self.readers.remove(0);
        }
        self.readers.push(reader);
    }

    /// Ends a reader, whether it is the one that is served or a former one.
    pub(super) fn end_reader(&mut self, reader: SessionKey) {
        self.readers.retain(|other| *other != reader);
    }

    pub(super) fn len(&self) -> usize {
        self.letters.len()
    }

    /// Puts a letter into its place; nearly always that is the end.
    pub(super) fn insert(&mut self, letter: OwnLetter) {
        self.bytes += letter.message.kept_bytes();
        let at = self.letters.partition_point(|other| other.id < letter.id);
        if self.letters.is_empty() {
            // Most mailboxes of a fleet hold one letter; do not reserve for four.
            self.letters.reserve_exact(1);
        }
        self.letters.insert(at, letter);
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<OwnLetter> {
        let at = self.letters.binary_search_by_key(&id, |letter| letter.id).ok()?;
        let letter = self.letters.remove(at)?;
        self.bytes -= letter.message.kept_bytes();
        Some(letter)
    }

    /// The first letter behind `cursor` that has not expired and is not taken.
    pub(super) fn next(&self, cursor: u64, now: Timestamp) -> Option<Letter> {
        let from = self.letters.partition_point(|letter| letter.id <= cursor);
        let mut behind = self.letters.range(from..);
        let letter = behind.find(|l| l.expires > now && !self.has_taken(l.id))?;
        Some(Letter { id: letter.id, message: Arc::clone(&letter.message) })
    }

    pub(super) fn take(&mut self, id: u64) {
        // Nearly always the end; a letter that was put back has younger ones behind it.
        let at = self.taken.partition_point(|other| *other < id);
        self.taken.insert(at, id);
        self.cursor = id;
    }

    /// A letter that was taken was never sent: it is the next to be taken. Gives its expiry if it
    /// lies here.
    pub(super) fn put_back(&mut self, id: u64) -> Option<Timestamp> {
        if !self.finish(id) {
            return None;
        }
        self.cursor = self.cursor.min(id - 1);
        let at = self.letters.binary_search_by_key(&id, |letter| letter.id).ok()?;
        Some(self.letters[at].expires)
    }

    pub(super) fn has_taken(&self, id: u64) -> bool {
        self.taken.binary_search(&id).is_ok()
    }

    /// Forgets that a letter was taken; `false` when it was not.
    pub(super) fn finish(&mut self, id: u64) -> bool {
        let Ok(at) = self.taken.binary_search(&id) else { return false };
        self.taken.remove(at).is_some()
    }

    /// What was taken goes back: the next reader begins at the oldest letter. Returns the
    /// expiries and ids of own letters that went back.
    pub(super) fn hand_back(&mut self) -> Vec<(Timestamp, u64)> {
        self.cursor = 0;
        let taken = std::mem::take(&mut self.taken);
        let own = |id: &u64| {
            let at = self.letters.binary_search_by_key(id, |letter| letter.id).ok()?;
            Some((self.letters[at].expires, *id))
        };
        taken.iter().filter_map(own).collect()
    }

    pub(super) fn letters(&self) -> impl Iterator<Item = &OwnLetter> {
        self.letters.iter()
    }
}

/// Sessions of one device that wait to be its reader again.
pub(super) const READERS_MAX: usize = 8;
