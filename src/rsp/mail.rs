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
//!
//! A group letter may wait for some of its receivers: until they agree to be provisioned (strict
//! flow), or until the first wave has fared well. Whether it does is looked at when they pull.

mod expiry;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;

use foldhash::quality::RandomState;
use smallvec::{SmallVec, smallvec};

use super::group_log::{Dropped, GroupLetter, Log};
use super::mailbox::{
    Acknowledged, Arrival, Finished, Letter, Mailbox, OwnLetter, ProfileChange, Progress, Reader,
};
use super::options::RspLimits;
use super::parts::Parts;
use super::policy::Form;
use super::registry::reserve;
use super::roll::Roll;
use super::shape::Next;
use crate::ids::{Gid, Nid, SessionKey, Timestamp};
use crate::mqtt::Message;
pub use expiry::ExpiredLetters;
pub(super) use expiry::{Bereft, Receivers};
use rows::Notes;
pub(super) use rows::{ChangeRow, MailRows};

/// A message with what is to be done to it on its way to a device.
#[derive(Clone, Debug)]
pub(super) struct Publication {
    pub(super) message: Arc<Message>,
    /// Each device gets its own part of it.
    pub(super) parts: Option<Arc<Parts>>,
    /// It may be cut for a device that does not take it whole.
    pub(super) chunks: bool,
    /// It waits for the agreement of each device.
    pub(super) needs_consent: bool,
}

/// What a device pulls with.
#[derive(Clone, Copy)]
pub(super) struct Pulling<'a> {
    pub(super) index: u32,
    pub(super) nid: Nid,
    pub(super) gids: &'a [Gid],
    pub(super) reader: SessionKey,
    /// Whether it agrees to be provisioned in this group's name.
    pub(super) agrees: &'a dyn Fn(Gid) -> bool,
    /// Largest envelope it is given in one piece, by the settings of its groups.
    pub(super) chunk: usize,
}

/// The next letter of each place where some for a device may lie, its own mailbox first.
type Heads<'a> = SmallVec<[Option<Next<'a>>; 3]>;

/// What a reader is to be given.
#[derive(Debug, Default)]
struct Seen {
    letters: Vec<Letter>,
    /// Where each of them lies: 0 is the mailbox, the others are the device's groups.
    sources: SmallVec<[usize; 4]>,
    /// How far it is with one that it gets in pieces.
    progress: Option<Progress>,
    /// There is nothing behind them.
    all: bool,
}

#[derive(Debug)]
pub(super) struct Mail {
    /// By device index; 8 bytes for a device without mail and reader.
    boxes: Vec<Option<Box<Mailbox>>>,
    logs: HashMap<Gid, Log, RandomState>,
    /// When which mailbox is to be looked at for what has expired; see [`Mailbox::due`].
    calendar: BTreeSet<(Timestamp, u32)>,
    /// When which letters to groups expire.
    group_expiries: BTreeSet<(Timestamp, (u64, Gid))>,
    last_id: u64,
    /// Tells letters apart that were one letter to a group.
    last_copy: u32,
    limits: RspLimits,
    totals: MailTotals,
    notes: Notes,
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
            calendar: BTreeSet::new(),
            group_expiries: BTreeSet::new(),
            last_id: 0,
            last_copy: 0,
            limits,
            totals: MailTotals::default(),
            notes: Notes::default(),
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

    /// Whether a group's log takes another message of this size. Answers to what members have asked
    /// for may fill half of it: however many of them ask, the server gets through with its own.
    pub(super) fn has_group_room(&self, gid: Gid, bytes: usize, is_answer: bool) -> bool {
        let (len, held) = self.logs.get(&gid).map_or((0, 0), |log| (log.letters.len(), log.bytes));
        let share = if is_answer { 2 } else { 1 };
        len < self.limits.group_messages_max.div_ceil(share)
            && held + bytes <= self.limits.group_bytes_max.div_ceil(share)
    }

    /// The largest PUBLISH that a device's reader takes, in bytes.
    pub(super) fn packet_bytes_max(&self, index: u32) -> u32 {
        self.mailbox(index).map_or(u32::MAX, Mailbox::packet_bytes_max)
    }

    /// The largest PUBLISH that all connected members of a group take, in bytes.
    pub(super) fn group_packet_bytes_max(&self, gid: Gid) -> u32 {
        self.logs.get(&gid).map_or(u32::MAX, Log::packet_bytes_max)
    }

    /// Puts a letter into a device's mailbox; returns the reader to wake.
    pub(super) fn post(
        &mut self,
        index: u32,
        publication: &Publication,
        expires: Timestamp,
        form: Form,
        campaign: Option<u64>,
        change: Option<ProfileChange>,
    ) -> Option<SessionKey> {
        self.last_id += 1;
        let (id, message) = (self.last_id, Arc::clone(&publication.message));
        let (chunks, change) = (publication.chunks, change.map(Box::new));
        let campaign = campaign.and_then(NonZeroU64::new);
        let letter = OwnLetter { id, copy: 0, message, expires, form, campaign, chunks, change };
        self.insert(index, letter);
        self.mailbox(index)?.reader()
    }

    /// Puts a letter into a group's log; adds the readers to wake: those of the first who may have
    /// it, where there are some, else of all members.
    pub(super) fn post_group(&mut self, gid: Gid, letter: GroupLetter, wake: &mut Vec<SessionKey>) {
        if letter.is_done() {
            return;
        }
        self.last_id += 1;
        let (id, bytes) = (self.last_id, letter.publication.message.kept_bytes());
        self.group_expiries.insert((letter.expires, (id, gid)));
        self.totals.messages += 1;
        self.totals.bytes += bytes;
        let log = self.logs.entry(gid).or_default();
        log.bytes += bytes;
        match &letter.first {
            Some(first) => wake.extend(log.readers_of(first)),
            None => wake.extend(log.readers()),
        }
        let roll = if self.notes.on() { letter.roll.kept() } else { letter.roll };
        log.letters.push_back(GroupLetter { id, roll, ..letter });
        self.notes.head(gid, id);
    }

    /// Those of these members of a group that are connected.
    pub(super) fn online_of<'a>(
        &'a self,
        gid: Gid,
        members: &'a [u32],
    ) -> impl Iterator<Item = u32> + 'a {
        self.logs.get(&gid).into_iter().flat_map(|log| log.online_of(members))
    }

    /// The first wave is through: all others may have the campaign's letters. Adds the readers to
    /// wake.
    pub(super) fn release(&mut self, gid: Gid, campaign: u64, wake: &mut Vec<SessionKey>) {
        let Some(log) = self.logs.get_mut(&gid) else { return };
        // From now on, who has read up to the last letter has looked at these, too.
        self.last_id += 1;
        let ids = log.letters.iter().filter(|letter| letter.is_of(campaign)).map(|l| l.id);
        ids.for_each(|id| self.notes.head(gid, id));
        log.release(campaign, self.last_id);
        wake.extend(log.readers());
    }

    /// The device agrees in these groups: its reader has passed over what waits for that, if
    /// anything does. Returns it, to be woken.
    pub(super) fn agreed(&mut self, index: u32, gids: &[Gid]) -> Option<SessionKey> {
        let logs = gids.iter().filter_map(|gid| self.logs.get(gid));
        let mut letters = logs.flat_map(|log| &log.letters);
        if !letters.any(|l| l.publication.needs_consent && l.roll.is_waiting(index)) {
            return None;
        }
        self.look_again(index);
        self.mailbox(index)?.reader()
    }

    /// The device does not agree: it does not get what waits for its agreement in these groups.
    /// Returns the campaigns.
    pub(super) fn drop_unagreed(&mut self, index: u32, gids: &[Gid]) -> Vec<u64> {
        let needs_consent = |letter: &GroupLetter| letter.publication.needs_consent;
        gids.iter().flat_map(|gid| self.drop_waiting(index, *gid, needs_consent)).collect()
    }

    /// Takes a campaign's letter back from a device that was not given it yet; `false` when there
    /// was none to take back.
    pub(super) fn withdraw_from(&mut self, index: u32, campaign: u64) -> bool {
        let Some(mailbox) = self.mailbox(index) else { return false };
        let mine = mailbox.letters().filter(|l| l.campaign.is_some_and(|c| c.get() == campaign));
        let waiting: Vec<u64> =
            mine.map(|letter| letter.id).filter(|id| !mailbox.has_taken(*id)).collect();
        waiting.iter().for_each(|id| {
            self.remove_own(index, *id);
        });
        !waiting.is_empty()
    }

    /// Takes a campaign's letters back from all members that were not given them yet. Returns
    /// those who have them on their way, ascending.
    pub(super) fn withdraw_from_group(&mut self, gid: Gid, campaign: u64) -> Vec<u32> {
        let Some(log) = self.logs.get_mut(&gid) else { return Vec::new() };
        let (mut holders, mut done) = (Vec::new(), Vec::new());
        for letter in log.letters.iter_mut().filter(|letter| letter.is_of(campaign)) {
            holders.extend(letter.roll.finish_waiting());
            self.notes.roll(gid, letter.id);
            done.extend(letter.is_done().then_some(letter.id));
        }
        done.into_iter().for_each(|id| {
            self.remove_group_letter(gid, id);
        });
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    /// Takes back from a device all B1s and C1s that it was not given yet. Returns their
    /// campaigns.
    pub(super) fn withdraw_all(
        &mut self,
        index: u32,
        gids: &[Gid],
        is_msg: impl Fn(u64) -> bool,
    ) -> Vec<u64> {
        let mut campaigns = Vec::new();
        let own: Vec<(u64, u64)> = self.mailbox(index).map_or_else(Vec::new, |mailbox| {
            let mine = mailbox.letters().filter(|letter| !mailbox.has_taken(letter.id));
            let campaigns = mine.filter_map(|letter| Some((letter.id, letter.campaign?.get())));
            campaigns.filter(|(_, campaign)| is_msg(*campaign)).collect()
        });
        for (id, campaign) in own {
            self.remove_own(index, id);
            campaigns.push(campaign);
        }
        let asks = |letter: &GroupLetter| letter.campaign.is_some_and(|id| is_msg(id.get()));
        for gid in gids {
            campaigns.extend(self.drop_waiting(index, *gid, asks));
        }
        campaigns
    }

    fn drop_waiting(
        &mut self,
        index: u32,
        gid: Gid,
        which: impl Fn(&GroupLetter) -> bool,
    ) -> Vec<u64> {
        let Some(log) = self.logs.get_mut(&gid) else { return Vec::new() };
        let Dropped { from, campaigns, done } = log.drop_waiting(index, which);
        from.into_iter().for_each(|id| self.notes.roll(gid, id));
        done.into_iter().for_each(|id| {
            self.remove_group_letter(gid, id);
        });
        campaigns
    }

    /// Makes a session the reader of a device's mail instead of any other.
    pub(super) fn attach(&mut self, index: u32, gids: &[Gid], reader: Reader) {
        self.forget_progress_of_none(index, gids);
        let mailbox = self.mailbox_mut(index);
        let former = mailbox.reader();
        mailbox.put_reader(reader);
        match former {
            Some(same) if same == reader.key => {}
            Some(_other) => self.hand_back(index, gids),
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
        let (next, packet_bytes_max) = (mailbox.reader(), mailbox.packet_bytes_max());
        if served == Some(reader) {
            self.hand_back(index, gids);
            self.totals.readers -= usize::from(next.is_none());
            for gid in gids {
                match next {
                    Some(key) => self.go_online(index, *gid, Reader { key, packet_bytes_max }),
                    None => self.go_offline(index, *gid),
                }
            }
        }
        self.tidy(index);
        next.filter(|_| served == Some(reader))
    }

    /// The session is there again, with a client that may take larger or smaller packets.
    pub(super) fn resize(&mut self, index: u32, gids: &[Gid], reader: Reader) {
        let Some(mailbox) = self.boxes.get_mut(index as usize).and_then(Option::as_deref_mut)
        else {
            return;
        };
        mailbox.resize_reader(reader);
        if mailbox.reader() == Some(reader.key) {
            gids.iter().for_each(|gid| self.go_online(index, *gid, reader));
        }
    }

    /// Up to `room` letters behind those the reader has already, in publish order. Behind a piece
    /// of a letter comes nothing until the device has all of it.
    pub(super) fn pull(
        &mut self,
        pulling: &Pulling<'_>,
        room: usize,
        now: Timestamp,
    ) -> Vec<Letter> {
        let Some(seen) = self.look(pulling, room, now) else { return Vec::new() };
        self.remember(pulling, &seen);
        seen.letters
    }

    /// What the reader is to be given. `None` where it is not its turn.
    fn look(&self, pulling: &Pulling<'_>, room: usize, now: Timestamp) -> Option<Seen> {
        let index = pulling.index;
        let mailbox = self.mailbox(index).filter(|mailbox| {
            mailbox.reader() == Some(pulling.reader) && !mailbox.is_in_pieces()
        })?;
        // The first source is the mailbox itself, then its groups; each shows its next letter.
        let logs: SmallVec<[Option<&Log>; 2]> =
            pulling.gids.iter().map(|gid| self.logs.get(gid)).collect();
        let next = |source: usize, cursor: u64| match source.checked_sub(1) {
            None => mailbox.next(cursor, now).map(Next::of_own),
            Some(at) => {
                let agrees = || (pulling.agrees)(pulling.gids[at]);
                logs[at]?.next(index, cursor, now, agrees).map(Next::of_group)
            }
        };
        // What has begun goes on, whatever has become free before it. What the device has no piece
        // of has not: it may come whole this time, and then nobody would look for those before it.
        let begun = mailbox.progress().filter(|progress| progress.pieces > 0);
        let begun = begun.map(|progress| progress.letter).filter(|_| room > 0);
        let going_on = begun.and_then(|id| {
            let heads = (0..=logs.len()).map(|source| (source, next(source, id - 1)));
            let mut begun = heads.filter_map(|(source, head)| Some((source, head?)));
            let (source, head) = begun.find(|(_, head)| head.id == id)?;
            let (letter, piece) = head.shape(pulling, mailbox);
            let (letters, sources, progress) = (vec![letter], smallvec![source], Some(piece?));
            Some(Seen { letters, sources, progress, all: false })
        });
        if going_on.is_some() {
            return going_on;
        }
        // The same for what cannot be cut any more.
        let cursor = if begun.is_some() { 0 } else { mailbox.cursor() };
        let from = logs.iter().map(|log| log.map_or(cursor, |log| log.look_from(cursor)));
        let cursors = std::iter::once(cursor).chain(from).enumerate();
        let mut heads: Heads<'_> = cursors.map(|(source, cursor)| next(source, cursor)).collect();
        let mut seen = Seen::default();
        while seen.progress.is_none() && seen.letters.len() < room.min(self.limits.pull_max) {
            let ids = heads.iter().enumerate();
            let first = ids.filter_map(|(source, head)| Some((head.as_ref()?.id, source))).min();
            let Some((id, source)) = first else { break };
            let Some(head) = heads[source].take() else { break };
            heads[source] = next(source, id);
            let (letter, piece) = head.shape(pulling, mailbox);
            seen.letters.push(letter);
            seen.sources.push(source);
            seen.progress = piece;
        }
        seen.all = heads.iter().all(Option::is_none);
        Some(seen)
    }

    /// Letters that the reader was given and that never left for it are the next to be pulled.
    pub(super) fn put_back(&mut self, index: u32, gids: &[Gid], reader: SessionKey, ids: &[u64]) {
        let Some(mailbox) = self.boxes.get_mut(index as usize).and_then(Option::as_deref_mut)
        else {
            return;
        };
        if mailbox.reader() != Some(reader) {
            return;
        }
        let taken = ids.iter().copied().filter(|id| mailbox.put_back(*id));
        let taken: SmallVec<[u64; 4]> = taken.collect();
        self.not_taken(index, gids, taken);
    }

    /// Whether this reader has the letter and did not acknowledge it yet.
    pub(super) fn holds(&self, index: u32, reader: SessionKey, id: u64) -> bool {
        let mailbox = self.mailbox(index);
        mailbox.is_some_and(|mailbox| mailbox.reader() == Some(reader) && mailbox.has_taken(id))
    }

    /// A letter, or a piece of one, has arrived. Only what the reader was given counts, and only
    /// once.
    pub(super) fn acknowledge(
        &mut self,
        index: u32,
        gids: &[Gid],
        id: u64,
    ) -> Option<Acknowledged> {
        let mailbox = self.boxes.get_mut(index as usize)?.as_deref_mut()?;
        if !mailbox.finish(id) {
            return None;
        }
        let finished = mailbox.finish_piece(id);
        if finished != Finished::Whole {
            self.notes.progress(index);
        }
        if finished == Finished::Piece {
            self.not_taken(index, gids, [id]);
            return Some(Acknowledged::Piece);
        }
        let in_pieces = finished == Finished::LastPiece;
        match self.take_out(index, gids, id) {
            Some(arrival) => Some(Acknowledged::Arrived(Arrival { in_pieces, ..arrival })),
            // It has expired on its way, and what is behind it has waited for it.
            None => in_pieces.then_some(Acknowledged::Piece),
        }
    }

    /// A letter that the reader was given cannot be given to it: it leaves the mail. A piece of one
    /// is cut anew, for a client may come back that takes less than before.
    pub(super) fn discard(&mut self, index: u32, gids: &[Gid], id: u64) -> Option<Arrival> {
        let mailbox = self.boxes.get_mut(index as usize)?.as_deref_mut()?;
        if mailbox.progress().is_some_and(|progress| progress.letter == id) {
            let reader = mailbox.reader()?;
            self.put_back(index, gids, reader, &[id]);
            return None;
        }
        if !mailbox.finish(id) {
            return None;
        }
        self.take_out(index, gids, id)
    }

    fn take_out(&mut self, index: u32, gids: &[Gid], id: u64) -> Option<Arrival> {
        if let Some(letter) = self.remove_own(index, id) {
            let OwnLetter { message, form, change, campaign, .. } = letter;
            let (change, campaign) = (change.map(|change| *change), campaign.map(NonZeroU64::get));
            let (published, in_pieces) = (message.published, false);
            return Some(Arrival { form, published, change, in_pieces, campaign });
        }
        // An id names one letter, so it lies in one group at most.
        gids.iter().find_map(|gid| self.finish_in_group(index, *gid, id))
    }

    /// The device is a member now; it does not see what was published before.
    pub(super) fn join(&mut self, index: u32, gid: Gid) {
        let reader = self.mailbox(index).and_then(Mailbox::served);
        reader.into_iter().for_each(|reader| self.go_online(index, gid, reader));
    }

    /// The device is no member any more; what was addressed to it, and did not have to wait,
    /// stays its own.
    pub(super) fn leave(&mut self, index: u32, nid: Nid, gid: Gid) {
        for letter in self.withdraw(index, nid, gid) {
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
    pub(super) fn remove(&mut self, index: u32, nid: Nid, gids: &[Gid]) -> Option<SessionKey> {
        for gid in gids {
            self.withdraw(index, nid, *gid);
            self.go_offline(index, *gid);
        }
        let mailbox = self.boxes.get_mut(index as usize)?.take()?;
        self.notes.remove(index, nid, &mailbox);
        self.calendar.remove(&(mailbox.due, index));
        self.totals.messages -= mailbox.len();
        self.totals.bytes -= mailbox.bytes;
        self.totals.readers -= usize::from(mailbox.reader().is_some());
        mailbox.reader()
    }

    pub(super) fn mailbox(&self, index: u32) -> Option<&Mailbox> {
        self.boxes.get(index as usize)?.as_deref()
    }

    fn mailbox_mut(&mut self, index: u32) -> &mut Mailbox {
        let at = index as usize;
        if self.boxes.len() <= at {
            let more = at + 1 - self.boxes.len();
            reserve(&mut self.boxes, more);
            self.boxes.resize_with(at + 1, || None);
        }
        self.boxes[at].get_or_insert_default()
    }

    fn insert(&mut self, index: u32, letter: OwnLetter) {
        self.notes.own(index, &letter);
        self.put_in(index, letter);
    }

    fn put_in(&mut self, index: u32, letter: OwnLetter) {
        self.totals.messages += 1;
        self.totals.bytes += letter.message.kept_bytes();
        let (mailbox, expires) = (self.mailbox_mut(index), letter.expires);
        mailbox.insert(letter);
        if expires < mailbox.due {
            self.reschedule(index);
        }
    }

    fn remove_own(&mut self, index: u32, id: u64) -> Option<OwnLetter> {
        let mailbox = self.boxes.get_mut(index as usize)?.as_deref_mut()?;
        let letter = mailbox.remove(id)?;
        self.notes.own_gone(index, &letter);
        if mailbox.len() == 0 {
            self.reschedule(index);
        }
        self.totals.messages -= 1;
        self.totals.bytes -= letter.message.kept_bytes();
        self.tidy(index);
        Some(letter)
    }

    fn hand_back(&mut self, index: u32, gids: &[Gid]) {
        let taken = self.mailbox_mut(index).hand_back();
        self.not_taken(index, gids, taken);
    }

    /// These letters were taken, and wait again. Those that were passed over meanwhile may be the
    /// first to expire.
    fn not_taken(&mut self, index: u32, gids: &[Gid], ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            let mut logs =
                gids.iter().filter_map(|gid| self.logs.get(gid)?.position(id).map(|_| *gid));
            let Some(gid) = logs.next() else { continue };
            let letter = self.logs.get_mut(&gid).and_then(|log| log.letter_mut(id));
            letter.into_iter().for_each(|letter| letter.roll.put_back(index));
        }
        let mailbox = self.mailbox(index);
        if mailbox.is_some_and(|mailbox| mailbox.first_expiry() < mailbox.due) {
            self.reschedule(index);
        }
    }

    /// Notes what the reader was given, and that it need not look at older letters again.
    fn remember(&mut self, pulling: &Pulling<'_>, seen: &Seen) {
        let (index, last_id) = (pulling.index, self.last_id);
        for (letter, source) in seen.letters.iter().zip(&seen.sources) {
            let gid = source.checked_sub(1).map(|at| pulling.gids[at]);
            let log = gid.and_then(|gid| self.logs.get_mut(&gid));
            let letter = log.and_then(|log| log.letter_mut(letter.id));
            letter.into_iter().for_each(|letter| letter.roll.take(index));
        }
        let mailbox = self.mailbox_mut(index);
        seen.letters.iter().for_each(|letter| mailbox.take(letter.id));
        let had_progress = mailbox.progress().is_some();
        if seen.all {
            mailbox.set_cursor(last_id);
        }
        let is_over = |known: &Progress| seen.letters.iter().any(|l| l.id == known.letter);
        if seen.progress.is_some() {
            mailbox.set_progress(seen.progress);
        } else if mailbox.progress().is_some_and(is_over) {
            // What was being given in pieces has to be given whole now.
            mailbox.set_progress(None);
            mailbox.set_cursor(0);
        }
        if had_progress || seen.progress.is_some() {
            self.notes.progress(index);
        }
    }

    fn look_again(&mut self, index: u32) {
        let mailbox = self.boxes.get_mut(index as usize).and_then(Option::as_deref_mut);
        mailbox.into_iter().for_each(|mailbox| mailbox.set_cursor(0));
    }

    /// What was being given in pieces may have expired meanwhile, or been withdrawn.
    fn forget_progress_of_none(&mut self, index: u32, gids: &[Gid]) {
        let Some(mailbox) = self.mailbox(index) else { return };
        let Some(id) = mailbox.progress().map(|progress| progress.letter) else { return };
        let in_log = |gid: &Gid| self.logs.get(gid).is_some_and(|log| log.position(id).is_some());
        if !mailbox.contains(id) && !gids.iter().any(in_log) {
            self.mailbox_mut(index).set_progress(None);
            self.notes.progress(index);
        }
    }

    fn go_online(&mut self, index: u32, gid: Gid, reader: Reader) {
        self.logs.entry(gid).or_default().go_online(index, reader);
    }

    fn go_offline(&mut self, index: u32, gid: Gid) {
        let Some(log) = self.logs.get_mut(&gid) else { return };
        log.go_offline(index);
        self.tidy_log(gid);
    }

    /// Takes a device off the rolls of a group's letters; returns what it had not yet and might
    /// have had at once, as letters of its own.
    fn withdraw(&mut self, index: u32, nid: Nid, gid: Gid) -> Vec<OwnLetter> {
        let mailbox = self.boxes.get(index as usize).and_then(Option::as_deref);
        let has_begun = |id| mailbox.is_some_and(|mailbox| mailbox.has_begun(id));
        let Some(log) = self.logs.get_mut(&gid) else { return Vec::new() };
        let (mut withdrawn, mut done) = (Vec::new(), Vec::new());
        for letter in &mut log.letters {
            if letter.roll.finish(index) {
                let may_have = has_begun(letter.id) || letter.is_free_for(index);
                withdrawn.extend(may_have.then(|| {
                    self.last_copy = self.last_copy.wrapping_add(1);
                    letter.to_own(nid, self.last_copy)
                }));
                self.notes.roll(gid, letter.id);
                done.extend(letter.is_done().then_some(letter.id));
            }
        }
        done.into_iter().for_each(|id| {
            self.remove_group_letter(gid, id);
        });
        withdrawn
    }

    /// Gives what has arrived, if it was still waiting for this device.
    fn finish_in_group(&mut self, index: u32, gid: Gid, id: u64) -> Option<Arrival> {
        let log = self.logs.get_mut(&gid)?;
        let letter = log.letter_mut(id)?;
        let finished = letter.roll.finish(index);
        self.notes.roll(gid, id);
        let published = letter.publication.message.published;
        let campaign = letter.campaign.map(NonZeroU64::get);
        if letter.is_done() {
            self.remove_group_letter(gid, id);
        }
        let (form, change, in_pieces) = (Form::Multi, None, false);
        finished.then_some(Arrival { form, published, change, in_pieces, campaign })
    }

    fn remove_group_letter(&mut self, gid: Gid, id: u64) -> Option<GroupLetter> {
        let log = self.logs.get_mut(&gid)?;
        let letter = log.position(id).and_then(|at| log.letters.remove(at))?;
        let bytes = letter.publication.message.kept_bytes();
        self.notes.group_gone(gid, &letter);
        log.bytes -= bytes;
        self.totals.messages -= 1;
        self.totals.bytes -= bytes;
        self.group_expiries.remove(&(letter.expires, (id, gid)));
        self.tidy_log(gid);
        Some(letter)
    }

    fn tidy(&mut self, index: u32) {
        let Some(slot) = self.boxes.get_mut(index as usize) else { return };
        if slot.as_deref_mut().is_some_and(|mailbox| !mailbox.tidy()) {
            *slot = None;
        }
    }

    fn tidy_log(&mut self, gid: Gid) {
        if self.logs.get(&gid).is_some_and(Log::is_empty) {
            self.logs.remove(&gid);
        }
    }
}
