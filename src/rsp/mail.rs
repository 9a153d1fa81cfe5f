//! Mail: what is addressed to a device waits until the device has acknowledged it, whether or not
//! it is connected, has a session, or has ever been seen.
//!
//! * A letter to one device lies in that device's own mailbox.
//! * A letter to a group lies **once** in the group's log, with a [`Roll`] of its receivers. To
//!   publish it costs as much as there are members *online*; an absent member costs one bit.
//! * A reader is given its own letters and those of its groups, merged in publish order. It is
//!   never given more than it asks for: mail is pulled, so a slow device holds references only.
//!
//! A letter goes when every receiver has acknowledged it, when it expires, or with its receiver.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::quality::RandomState;
use smallvec::SmallVec;

use super::exchange::due;
use super::mailbox::{Arrival, Letter, Mailbox, OwnLetter, ProfileChange};
use super::policy::Form;
use super::roll::Roll;
use super::settings::RspLimits;
use crate::ids::{Gid, SessionKey, Timestamp};
use crate::mqtt::Message;

/// Where a letter lies, for the calendar of expiries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Device(u32),
    Group(Gid),
}

/// A group's letters and its connected members.
#[derive(Debug, Default)]
struct Log {
    /// Ascending by id.
    letters: VecDeque<GroupLetter>,
    online: BTreeMap<u32, SessionKey>,
    bytes: usize,
}

#[derive(Debug)]
struct GroupLetter {
    id: u64,
    message: Arc<Message>,
    roll: Roll,
    expires: Timestamp,
}

/// Letters that nobody came for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpiredLetters {
    /// Each for one device.
    pub to_devices: u64,
    /// Each for a group, whatever the number of members it still waited for.
    pub to_groups: u64,
}

#[derive(Debug)]
pub(super) struct Mail {
    /// By device index; 8 bytes for a device without mail and reader.
    boxes: Vec<Option<Box<Mailbox>>>,
    logs: HashMap<Gid, Log, RandomState>,
    expiries: BTreeSet<(Timestamp, (u64, Place))>,
    last_id: u64,
    limits: RspLimits,
    totals: MailTotals,
}

/// What lies here; a group letter counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MailTotals {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) readers: usize,
    /// Letters dropped at a change of groups, because the mailbox was over-full.
    pub(super) dropped: u64,
}

impl Mail {
    pub(super) fn new(limits: RspLimits) -> Self {
        Self {
            boxes: Vec::new(),
            logs: HashMap::default(),
            expiries: BTreeSet::new(),
            last_id: 0,
            limits,
            totals: MailTotals::default(),
        }
    }

    pub(super) fn totals(&self) -> MailTotals {
        self.totals
    }

    /// The session that is given a device's mail.
    pub(super) fn reader(&self, index: u32) -> Option<SessionKey> {
        self.mailbox(index)?.reader()
    }

    /// Whether a device's own mailbox takes another message of this size. Other devices may fill
    /// half of it: however many of them ask for a profile, the server gets through.
    pub(super) fn has_room(&self, index: u32, bytes: usize, form: Form) -> bool {
        let (len, held) =
            self.mailbox(index).map_or((0, 0), |mailbox| (mailbox.len(), mailbox.bytes));
        let share = match form {
            Form::Single | Form::Multi => 1,
            Form::Peer => 2,
        };
        len < self.limits.mail_messages_max.div_ceil(share)
            && held + bytes <= self.limits.mail_bytes_max.div_ceil(share)
    }

    /// Whether a group's log takes another message of this size.
    pub(super) fn has_group_room(&self, gid: Gid, bytes: usize) -> bool {
        let (len, held) = self.logs.get(&gid).map_or((0, 0), |log| (log.letters.len(), log.bytes));
        len < self.limits.group_messages_max && held + bytes <= self.limits.group_bytes_max
    }

    /// Puts a letter into a device's mailbox; returns the reader to wake.
    pub(super) fn post(
        &mut self,
        index: u32,
        message: &Arc<Message>,
        expires: Timestamp,
        form: Form,
        change: Option<ProfileChange>,
    ) -> Option<SessionKey> {
        self.last_id += 1;
        let (id, message) = (self.last_id, Arc::clone(message));
        let change = change.map(Box::new);
        self.insert(index, OwnLetter { id, message, expires, form, change });
        self.mailbox(index)?.reader()
    }

    /// Puts a letter into a group's log; returns the readers to wake.
    pub(super) fn post_group(
        &mut self,
        gid: Gid,
        members: Arc<Vec<u32>>,
        message: &Arc<Message>,
        expires: Timestamp,
    ) -> Vec<SessionKey> {
        self.last_id += 1;
        let id = self.last_id;
        let log = self.logs.entry(gid).or_default();
        let (bytes, message) = (message.kept_bytes(), Arc::clone(message));
        log.bytes += bytes;
        log.letters.push_back(GroupLetter { id, message, roll: Roll::new(members), expires });
        self.totals.messages += 1;
        self.totals.bytes += bytes;
        self.expiries.insert((expires, (id, Place::Group(gid))));
        log.online.values().copied().collect()
    }

    /// Makes a session the reader of a device's mail instead of any other.
    pub(super) fn attach(&mut self, index: u32, gids: &[Gid], reader: SessionKey) {
        let mailbox = self.mailbox_mut(index);
        let former = mailbox.reader();
        mailbox.put_reader(reader);
        match former {
            Some(same) if same == reader => return,
            Some(_other) => self.hand_back(index),
            None => self.totals.readers += 1,
        }
        for gid in gids {
            self.go_online(index, *gid, reader);
        }
    }

    /// Ends a reader. If it was the one that is served, what it took and did not acknowledge goes
    /// back, and the reader before it takes its place: returned, to be woken.
    pub(super) fn detach(
        &mut self,
        index: u32,
        gids: &[Gid],
        reader: SessionKey,
    ) -> Option<SessionKey> {
        let served = self.mailbox(index).and_then(Mailbox::reader);
        let mailbox = self.mailbox_mut(index);
        mailbox.end_reader(reader);
        let next = mailbox.reader();
        if served == Some(reader) {
            self.hand_back(index);
            self.totals.readers -= usize::from(next.is_none());
            for gid in gids {
                match next {
                    Some(next) => self.go_online(index, *gid, next),
                    None => self.go_offline(index, *gid),
                }
            }
        }
        self.tidy(index);
        next.filter(|_| served == Some(reader))
    }

    /// Up to `room` letters behind those the reader has already, in publish order.
    pub(super) fn pull(
        &mut self,
        index: u32,
        gids: &[Gid],
        reader: SessionKey,
        room: usize,
        now: Timestamp,
    ) -> Vec<Letter> {
        let Some(mailbox) = self.boxes.get(index as usize).and_then(Option::as_deref) else {
            return Vec::new();
        };
        if mailbox.reader() != Some(reader) {
            return Vec::new();
        }
        // The first source is the mailbox itself, then its groups; each shows its next letter.
        let next = |source: usize, cursor: u64| match source.checked_sub(1) {
            None => mailbox.next(cursor, now),
            Some(at) => {
                let is_taken = |id| mailbox.has_taken(id);
                self.logs.get(&gids[at])?.next(index, cursor, now, is_taken)
            }
        };
        let mut heads: SmallVec<[Option<Letter>; 3]> =
            (0..=gids.len()).map(|source| next(source, mailbox.cursor)).collect();
        let mut letters = Vec::new();
        while letters.len() < room.min(self.limits.pull_max) {
            let ids = heads.iter().enumerate();
            let first = ids.filter_map(|(source, head)| Some((head.as_ref()?.id, source))).min();
            let Some((id, source)) = first else { break };
            letters.extend(std::mem::replace(&mut heads[source], next(source, id)));
        }
        let all_seen = heads.iter().all(Option::is_none);
        self.remember(index, &letters, all_seen);
        letters
    }

    /// Letters that the reader was given and that never left for it are the next to be pulled.
    pub(super) fn put_back(&mut self, index: u32, reader: SessionKey, ids: &[u64]) {
        let Some(mailbox) = self.boxes.get_mut(index as usize).and_then(Option::as_deref_mut)
        else {
            return;
        };
        if mailbox.reader() != Some(reader) {
            return;
        }
        for id in ids {
            // An expiry that was passed over while the letter was taken is due again.
            if let Some(expires) = mailbox.put_back(*id) {
                self.expiries.insert((expires, (*id, Place::Device(index))));
            }
        }
    }

    /// Whether this reader has the letter and did not acknowledge it yet.
    pub(super) fn holds(&self, index: u32, reader: SessionKey, id: u64) -> bool {
        let mailbox = self.mailbox(index);
        mailbox.is_some_and(|mailbox| mailbox.reader() == Some(reader) && mailbox.has_taken(id))
    }

    /// A letter has arrived. Only what the reader was given counts, and only once.
    pub(super) fn acknowledge(&mut self, index: u32, gids: &[Gid], id: u64) -> Option<Arrival> {
        let mailbox = self.boxes.get_mut(index as usize)?.as_deref_mut()?;
        if !mailbox.finish(id) {
            return None;
        }
        if let Some(letter) = self.remove_own(index, id) {
            let OwnLetter { message, form, change, .. } = letter;
            let change = change.map(|change| *change);
            return Some(Arrival { form, published: message.published, change });
        }
        // An id names one letter, so it lies in one group at most.
        let published = gids.iter().find_map(|gid| self.finish_in_group(index, *gid, id))?;
        Some(Arrival { form: Form::Multi, published, change: None })
    }

    /// The device is a member now; it does not see what was published before.
    pub(super) fn join(&mut self, index: u32, gid: Gid) {
        if let Some(reader) = self.mailbox(index).and_then(Mailbox::reader) {
            self.go_online(index, gid, reader);
        }
    }

    /// The device is no member any more; what was addressed to it stays its own.
    pub(super) fn leave(&mut self, index: u32, gid: Gid) {
        for letter in self.withdraw(index, gid) {
            let bound = self.limits.mail_messages_max + self.limits.group_messages_max;
            if self.mailbox(index).is_some_and(|mailbox| mailbox.len() >= bound) {
                self.totals.dropped += 1;
            } else {
                self.insert(index, letter);
            }
        }
        self.go_offline(index, gid);
    }

    /// The device is gone, and its mail with it. Returns its reader.
    pub(super) fn remove(&mut self, index: u32, gids: &[Gid]) -> Option<SessionKey> {
        for gid in gids {
            self.withdraw(index, *gid);
            self.go_offline(index, *gid);
        }
        let mailbox = self.boxes.get_mut(index as usize)?.take()?;
        for letter in mailbox.letters() {
            self.expiries.remove(&(letter.expires, (letter.id, Place::Device(index))));
        }
        self.totals.messages -= mailbox.len();
        self.totals.bytes -= mailbox.bytes;
        self.totals.readers -= usize::from(mailbox.reader().is_some());
        mailbox.reader()
    }

    /// Puts away expired letters, at most `budget` of them; returns how many. A letter its reader
    /// has taken is spared until it is acknowledged or goes back.
    pub(super) fn sweep(&mut self, now: Timestamp, budget: &mut usize) -> ExpiredLetters {
        let mut expired = ExpiredLetters::default();
        while let Some((at, (id, place))) = due(&self.expiries, now, budget) {
            self.expiries.remove(&(at, (id, place)));
            match place {
                Place::Group(gid) => {
                    expired.to_groups += u64::from(self.remove_group_letter(gid, id));
                }
                Place::Device(index) => {
                    if !self.mailbox(index).is_some_and(|mailbox| mailbox.has_taken(id)) {
                        expired.to_devices += u64::from(self.remove_own(index, id).is_some());
                    }
                }
            }
        }
        expired
    }

    fn mailbox(&self, index: u32) -> Option<&Mailbox> {
        self.boxes.get(index as usize)?.as_deref()
    }

    fn mailbox_mut(&mut self, index: u32) -> &mut Mailbox {
        let at = index as usize;
        if self.boxes.len() <= at {
            self.boxes.resize_with(at + 1, || None);
        }
        self.boxes[at].get_or_insert_default()
    }

    fn insert(&mut self, index: u32, letter: OwnLetter) {
        self.totals.messages += 1;
        self.totals.bytes += letter.message.kept_bytes();
        self.expiries.insert((letter.expires, (letter.id, Place::Device(index))));
        self.mailbox_mut(index).insert(letter);
    }

    fn remove_own(&mut self, index: u32, id: u64) -> Option<OwnLetter> {
        let letter = self.boxes.get_mut(index as usize)?.as_deref_mut()?.remove(id)?;
        self.expiries.remove(&(letter.expires, (id, Place::Device(index))));
        self.totals.messages -= 1;
        self.totals.bytes -= letter.message.kept_bytes();
        self.tidy(index);
        Some(letter)
    }

    fn hand_back(&mut self, index: u32) {
        // A letter whose expiry was passed over while it was taken is due again.
        for (expires, id) in self.mailbox_mut(index).hand_back() {
            self.expiries.insert((expires, (id, Place::Device(index))));
        }
    }

    /// Notes what the reader was given, and that it need not look at older letters again.
    fn remember(&mut self, index: u32, letters: &[Letter], all_seen: bool) {
        let last_id = self.last_id;
        let mailbox = self.mailbox_mut(index);
        letters.iter().for_each(|letter| mailbox.take(letter.id));
        if all_seen {
            mailbox.cursor = last_id;
        }
    }

    fn go_online(&mut self, index: u32, gid: Gid, reader: SessionKey) {
        self.logs.entry(gid).or_default().online.insert(index, reader);
    }

    fn go_offline(&mut self, index: u32, gid: Gid) {
        let Some(log) = self.logs.get_mut(&gid) else { return };
        log.online.remove(&index);
        self.tidy_log(gid);
    }

    /// Takes a device off the rolls of a group's letters; returns what it had not yet.
    fn withdraw(&mut self, index: u32, gid: Gid) -> Vec<OwnLetter> {
        let Some(log) = self.logs.get_mut(&gid) else { return Vec::new() };
        let mut withdrawn = Vec::new();
        for letter in &mut log.letters {
            if letter.roll.finish(index) {
                let (message, expires) = (Arc::clone(&letter.message), letter.expires);
                let (id, form) = (letter.id, Form::Multi);
                withdrawn.push(OwnLetter { id, message, expires, form, change: None });
            }
        }
        for letter in &withdrawn {
            let log = self.logs.get(&gid);
            if log.and_then(|log| log.letter(letter.id)).is_some_and(GroupLetter::is_done) {
                self.remove_group_letter(gid, letter.id);
            }
        }
        withdrawn
    }

    /// Gives when the letter was published, if it was still waiting for this device.
    fn finish_in_group(&mut self, index: u32, gid: Gid, id: u64) -> Option<Timestamp> {
        let log = self.logs.get_mut(&gid)?;
        let at = log.position(id).ok()?;
        let published = log.letters[at].message.published;
        let finished = log.letters[at].roll.finish(index);
        if log.letters[at].is_done() {
            self.remove_group_letter(gid, id);
        }
        finished.then_some(published)
    }

    fn remove_group_letter(&mut self, gid: Gid, id: u64) -> bool {
        let Some(log) = self.logs.get_mut(&gid) else { return false };
        let Some(letter) = log.position(id).ok().and_then(|at| log.letters.remove(at)) else {
            return false;
        };
        let bytes = letter.message.kept_bytes();
        log.bytes -= bytes;
        self.totals.messages -= 1;
        self.totals.bytes -= bytes;
        self.expiries.remove(&(letter.expires, (id, Place::Group(gid))));
        self.tidy_log(gid);
        true
    }

    fn tidy(&mut self, index: u32) {
        let Some(slot) = self.boxes.get_mut(index as usize) else { return };
        if slot.as_deref().is_some_and(Mailbox::is_empty) {
            *slot = None;
        }
    }

    fn tidy_log(&mut self, gid: Gid) {
        let is_empty = |log: &Log| log.letters.is_empty() && log.online.is_empty();
        if self.logs.get(&gid).is_some_and(is_empty) {
            self.logs.remove(&gid);
        }
    }
}

impl Log {
    fn position(&self, id: u64) -> Result<usize, usize> {
        self.letters.binary_search_by_key(&id, |letter| letter.id)
    }

    fn letter(&self, id: u64) -> Option<&GroupLetter> {
        self.letters.get(self.position(id).ok()?)
    }

    /// The first letter behind `cursor` that waits for this device and has not expired.
    fn next(
        &self,
        index: u32,
        cursor: u64,
        now: Timestamp,
        is_taken: impl Fn(u64) -> bool,
    ) -> Option<Letter> {
        let from = self.letters.partition_point(|letter| letter.id <= cursor);
        let mut behind = self.letters.range(from..);
        let waits =
            |l: &&GroupLetter| l.expires > now && l.roll.is_pending(index) && !is_taken(l.id);
        let letter = behind.find(waits)?;
        Some(Letter { id: letter.id, message: Arc::clone(&letter.message) })
    }
}

impl GroupLetter {
    fn is_done(&self) -> bool {
        self.roll.remaining() == 0
    }
}
