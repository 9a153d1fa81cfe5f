//! Mailbox: what one device is addressed by alone, and how far its reader has read.
//!
//! A mailbox exists only while there is something to remember: a reader, or a letter.

use std::collections::VecDeque;
use std::num::NonZeroU64;
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
    /// What was published, shared by all its receivers; or this device's part or piece of it.
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
    /// It came in pieces: what is behind it has waited for the last one and can be pulled now.
    pub in_pieces: bool,
    /// The campaign it belongs to.
    pub(super) campaign: Option<u64>,
}

/// What an acknowledgement of a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The device has the letter.
    Arrived(Arrival),
    /// It has a piece of the letter, and may pull the next one.
    Piece,
}

/// A letter to one device alone.
#[derive(Debug)]
pub(super) struct OwnLetter {
    pub(super) id: u64,
    pub(super) message: Arc<Message>,
    pub(super) expires: Timestamp,
    pub(super) form: Form,
    /// The campaign it belongs to; none for D2, E1 and E2.
    pub(super) campaign: Option<NonZeroU64>,
    /// It may be cut for a device that does not take it whole.
    pub(super) chunks: bool,
    /// Present on an E2: what its acknowledgement means.
    pub(super) change: Option<Box<ProfileChange>>,
}

/// A session that reads the mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Which session.
    pub key: SessionKey,
    /// The largest PUBLISH its client takes, in bytes.
    pub packet_bytes_max: u32,
}

impl From<SessionKey> for Reader {
    /// A client that takes packets of any size.
    fn from(key: SessionKey) -> Self {
        Self { key, packet_bytes_max: u32::MAX }
    }
}

/// How much of a letter the device has, where it gets it in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) letter: u64,
    /// Bytes of the content that the device has acknowledged.
    pub(super) offset: usize,
    /// Pieces that it has acknowledged.
    pub(super) pieces: u32,
    /// Where the piece that it was given last ends; `None` at the end of the content.
    pub(super) next: Option<usize>,
}

/// How much of a letter was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    Whole,
    Piece,
    LastPiece,
}

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// Sessions of the device that subscribed, oldest first; the newest alone is served.
    readers: SmallVec<[Reader; 1]>,
    /// The reader has seen everything up to this letter.
    pub(super) cursor: u64,
    /// Letters the reader has and did not acknowledge, ascending. Bounded by the reader's window.
    taken: VecDeque<u64>,
    /// Ascending.
    letters: VecDeque<OwnLetter>,
    pub(super) bytes: usize,
    /// The letter that is being given in pieces; nothing overtakes it.
    pub(super) progress: Option<Box<Progress>>,
}

impl Mailbox {
    pub(super) fn is_empty(&self) -> bool {
        self.readers.is_empty() && self.letters.is_empty() && self.progress.is_none()
    }

    /// The session that is served, and what its client takes.
    pub(super) fn served(&self) -> Option<Reader> {
        self.readers.last().copied()
    }

    /// The session that is served.
    pub(super) fn reader(&self) -> Option<SessionKey> {
        self.readers.last().map(|reader| reader.key)
    }

    /// The largest PUBLISH that the session takes which is served, in bytes.
    pub(super) fn packet_bytes_max(&self) -> u32 {
        self.readers.last().map_or(u32::MAX, |reader| reader.packet_bytes_max)
    }

    /// Makes a session the one that is served. The oldest of too many is forgotten.
    pub(super) fn put_reader(&mut self, reader: Reader) {
        self.readers.retain(|other| other.key != reader.key);
        if self.readers.len() >= READERS_MAX {
            self.readers.remove(0);
        }
        self.readers.push(reader);
    }

    /// Ends a reader, whether it is the one that is served or a former one.
    pub(super) fn end_reader(&mut self, reader: SessionKey) {
        self.readers.retain(|other| other.key != reader);
    }

    /// The session is there again, with a client that may take larger or smaller packets.
    pub(super) fn resize_reader(&mut self, reader: Reader) {
        let known = self.readers.iter_mut().find(|other| other.key == reader.key);
        known.into_iter().for_each(|known| *known = reader);
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
    pub(super) fn next(&self, cursor: u64, now: Timestamp) -> Option<&OwnLetter> {
        let from = self.letters.partition_point(|letter| letter.id <= cursor);
        let mut behind = self.letters.range(from..);
        behind.find(|letter| letter.expires > now && !self.has_taken(letter.id))
    }

    /// When an own letter expires.
    pub(super) fn expiry(&self, id: u64) -> Option<Timestamp> {
        let at = self.letters.binary_search_by_key(&id, |letter| letter.id).ok()?;
        Some(self.letters[at].expires)
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
        self.expiry(id)
    }

    pub(super) fn has_taken(&self, id: u64) -> bool {
        self.taken.binary_search(&id).is_ok()
    }

    /// The device was given the letter, or a piece of it.
    pub(super) fn has_begun(&self, id: u64) -> bool {
        self.has_taken(id) || self.progress.as_ref().is_some_and(|progress| progress.letter == id)
    }

    /// Forgets that a letter was taken; `false` when it was not.
    pub(super) fn finish(&mut self, id: u64) -> bool {
        let Ok(at) = self.taken.binary_search(&id) else { return false };
        self.taken.remove(at).is_some()
    }

    /// A piece of the letter is on its way: what comes behind waits.
    pub(super) fn is_in_pieces(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| self.has_taken(progress.letter))
    }

    /// The device has what it was given of a letter.
    pub(super) fn finish_piece(&mut self, id: u64) -> Finished {
        let Some(progress) = self.progress.as_mut().filter(|p| p.letter == id) else {
            return Finished::Whole;
        };
        // Older letters may have become free meanwhile, and have waited.
        self.cursor = 0;
        let Some(next) = progress.next else {
            self.progress = None;
            return Finished::LastPiece;
        };
        progress.offset = next;
        progress.pieces += 1;
        Finished::Piece
    }

    /// What was taken goes back: the next reader begins at the oldest letter. Returns the
    /// expiries and ids of own letters that went back.
    pub(super) fn hand_back(&mut self) -> Vec<(Timestamp, u64)> {
        self.cursor = 0;
        let taken = std::mem::take(&mut self.taken);
        taken.iter().filter_map(|id| Some((self.expiry(*id)?, *id))).collect()
    }

    /// Whether the profile of another device waits here, or is on its way.
    pub(super) fn has_profile_of(&self, from: Nid) -> bool {
        let mut changes = self.letters.iter().filter_map(|letter| letter.change.as_ref());
        changes.any(|change| change.from == from)
    }

    pub(super) fn letters(&self) -> impl Iterator<Item = &OwnLetter> {
        self.letters.iter()
    }
}

/// Sessions of one device that wait to be its reader again.
pub(super) const READERS_MAX: usize = 8;
