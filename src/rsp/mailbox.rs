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
    /// Tells letters apart that were one letter to a group, to devices that have left it since; 0
    /// for all others.
    pub(super) copy: u32,
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
    /// Largest envelope that piece could have, in bytes: so it can be cut again. Zero where it has
    /// arrived.
    pub(super) limit: usize,
}

/// How much of a letter was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    Whole,
    Piece,
    LastPiece,
}

#[derive(Debug)]
pub(super) struct Mailbox {
    /// Ascending.
    letters: Vec<OwnLetter>,
    pub(super) bytes: usize,
    /// No letter that can expire does so before; where that is not known to be never, the mailbox
    /// stands in the calendar then.
    pub(super) due: Timestamp,
    /// Apart, because most mailboxes of a fleet have no reader.
    reading: Option<Box<Reading>>,
}

/// How far a device has read.
#[derive(Debug, Default)]
struct Reading {
    /// Sessions of the device that subscribed, oldest first; the newest alone is served.
    readers: SmallVec<[Reader; 1]>,
    /// The reader has seen everything up to this letter.
    cursor: u64,
    /// Letters the reader has and did not acknowledge, ascending. Bounded by the reader's window.
    taken: VecDeque<u64>,
    /// The letter that is being given in pieces; nothing overtakes it.
    progress: Option<Box<Progress>>,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self { letters: Vec::new(), bytes: 0, due: Timestamp::NEVER, reading: None }
    }
}

impl Mailbox {
    /// Gives up what is there for nothing; `false` when there is nothing left to remember.
    pub(super) fn tidy(&mut self) -> bool {
        let is_idle =
            |reading: &mut Box<Reading>| reading.readers.is_empty() && reading.progress.is_none();
        self.reading.take_if(is_idle);
        self.reading.is_some() || !self.letters.is_empty()
    }

    /// The session that is served, and what its client takes.
    pub(super) fn served(&self) -> Option<Reader> {
        self.reading.as_ref()?.readers.last().copied()
    }

    /// The session that is served.
    pub(super) fn reader(&self) -> Option<SessionKey> {
        self.served().map(|reader| reader.key)
    }

    /// The largest PUBLISH that the session takes which is served, in bytes.
    pub(super) fn packet_bytes_max(&self) -> u32 {
        self.served().map_or(u32::MAX, |reader| reader.packet_bytes_max)
    }

    /// Makes a session the one that is served. The oldest of too many is forgotten.
    pub(super) fn put_reader(&mut self, reader: Reader) {
        let readers = &mut self.reading_mut().readers;
        readers.retain(|other| other.key != reader.key);
        if readers.len() >= READERS_MAX {
            readers.remove(0);
        }
        readers.push(reader);
    }

    /// Ends a reader, whether it is the one that is served or a former one.
    pub(super) fn end_reader(&mut self, reader: SessionKey) {
        if let Some(reading) = &mut self.reading {
            reading.readers.retain(|other| other.key != reader);
        }
    }

    /// The session is there again, with a client that may take larger or smaller packets.
    pub(super) fn resize_reader(&mut self, reader: Reader) {
        let readers = self.reading.iter_mut().flat_map(|reading| &mut reading.readers);
        let known = readers.filter(|other| other.key == reader.key);
        known.for_each(|known| *known = reader);
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
        // One that comes from a group may have become free behind the reader's back.
        self.go_back(letter.id);
        self.letters.insert(at, letter);
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<OwnLetter> {
        let letter = self.letters.remove(self.position(id)?);
        self.bytes -= letter.message.kept_bytes();
        if self.letters.is_empty() && self.letters.capacity() > LETTERS_SPARE {
            // It was long, and may be empty for long.
            self.letters = Vec::new();
        }
        Some(letter)
    }

    /// The first letter behind `cursor` that has not expired and is not taken.
    pub(super) fn next(&self, cursor: u64, now: Timestamp) -> Option<&OwnLetter> {
        let from = self.letters.partition_point(|letter| letter.id <= cursor);
        let mut behind = self.letters[from..].iter();
        behind.find(|letter| letter.expires > now && !self.has_taken(letter.id))
    }

    /// A letter of its own.
    pub(super) fn letter(&self, id: u64) -> Option<&OwnLetter> {
        self.position(id).map(|at| &self.letters[at])
    }

    /// A letter of its own lies here.
    pub(super) fn contains(&self, id: u64) -> bool {
        self.position(id).is_some()
    }

    /// When the first of its letters expires, but for those that are taken: never without any.
    pub(super) fn first_expiry(&self) -> Timestamp {
        let waiting = self.letters.iter().filter(|letter| !self.has_taken(letter.id));
        waiting.map(|letter| letter.expires).min().unwrap_or(Timestamp::NEVER)
    }

    /// So many of its letters that have expired and are not taken.
    pub(super) fn expired(&self, now: Timestamp, count: usize) -> SmallVec<[u64; 4]> {
        let waiting = self.letters.iter().filter(|letter| !self.has_taken(letter.id));
        waiting.filter(|letter| letter.expires <= now).map(|letter| letter.id).take(count).collect()
    }

    /// Up to which letter the reader has seen everything.
    pub(super) fn cursor(&self) -> u64 {
        self.reading.as_ref().map_or(0, |reading| reading.cursor)
    }

    /// The reader has seen everything up to this letter, or is to look again from there on.
    pub(super) fn set_cursor(&mut self, cursor: u64) {
        self.reading.iter_mut().for_each(|reading| reading.cursor = cursor);
    }

    pub(super) fn take(&mut self, id: u64) {
        let Reading { taken, cursor, .. } = self.reading_mut();
        // Nearly always the end; a letter that was put back has younger ones behind it.
        let at = taken.partition_point(|other| *other < id);
        taken.insert(at, id);
        *cursor = id;
    }

    /// A letter that was taken was never sent: it is the next to be taken. `false` when it was not.
    pub(super) fn put_back(&mut self, id: u64) -> bool {
        let was_taken = self.finish(id);
        if was_taken {
            self.go_back(id);
        }
        was_taken
    }

    pub(super) fn has_taken(&self, id: u64) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.taken.binary_search(&id).is_ok())
    }

    /// The device was given the letter, or a piece of it.
    pub(super) fn has_begun(&self, id: u64) -> bool {
        self.has_taken(id) || self.progress().is_some_and(|progress| progress.letter == id)
    }

    /// Forgets that a letter was taken; `false` when it was not.
    pub(super) fn finish(&mut self, id: u64) -> bool {
        let Some(Reading { taken, .. }) = self.reading.as_deref_mut() else { return false };
        let Ok(at) = taken.binary_search(&id) else { return false };
        taken.remove(at).is_some()
    }

    /// How far it is with the letter that is being given in pieces.
    pub(super) fn progress(&self) -> Option<&Progress> {
        self.reading.as_ref()?.progress.as_deref()
    }

    pub(super) fn set_progress(&mut self, progress: Option<Progress>) {
        self.reading_mut().progress = progress.map(Box::new);
    }

    /// A piece of the letter is on its way: what comes behind waits.
    pub(super) fn is_in_pieces(&self) -> bool {
        self.progress().is_some_and(|progress| self.has_taken(progress.letter))
    }

    /// The device has what it was given of a letter.
    pub(super) fn finish_piece(&mut self, id: u64) -> Finished {
        let Some(progress) = self.progress().copied().filter(|p| p.letter == id) else {
            return Finished::Whole;
        };
        // Older letters may have become free meanwhile, and have waited.
        self.set_cursor(0);
        let Progress { next, pieces, .. } = progress;
        let on = next.map(|offset| Progress { offset, pieces: pieces + 1, limit: 0, ..progress });
        self.set_progress(on);
        if on.is_some() { Finished::Piece } else { Finished::LastPiece }
    }

    /// What was taken goes back, and is returned: the next reader begins at the oldest letter.
    pub(super) fn hand_back(&mut self) -> VecDeque<u64> {
        self.set_cursor(0);
        let reading = self.reading.as_deref_mut();
        reading.map(|reading| std::mem::take(&mut reading.taken)).unwrap_or_default()
    }

    /// Whether the profile of another device waits here, or is on its way.
    pub(super) fn has_profile_of(&self, from: Nid) -> bool {
        let mut changes = self.letters.iter().filter_map(|letter| letter.change.as_ref());
        changes.any(|change| change.from == from)
    }

    pub(super) fn letters(&self) -> impl Iterator<Item = &OwnLetter> {
        self.letters.iter()
    }

    /// The reader has not seen this letter yet.
    fn go_back(&mut self, id: u64) {
        self.set_cursor(self.cursor().min(id - 1));
    }

    fn position(&self, id: u64) -> Option<usize> {
        self.letters.binary_search_by_key(&id, |letter| letter.id).ok()
    }

    fn reading_mut(&mut self) -> &mut Reading {
        self.reading.get_or_insert_default()
    }
}

/// Letters for which an empty mailbox keeps room; without a reader, it goes as a whole.
const LETTERS_SPARE: usize = 4;

/// Sessions of one device that wait to be its reader again.
pub(super) const READERS_MAX: usize = 8;
