//! The rows of mail: letters, who is done with those to groups, and how far a device is with one
//! in pieces. That a letter is on its way is not written down: it waits again after a restart.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::super::chunk;
use super::super::group_log::{GroupLetter, Log};
use super::super::mailbox::{Mailbox, OwnLetter, ProfileChange, Progress};
use super::super::parts::Parts;
use super::super::policy::Form;
use super::super::roll::Roll;
use super::super::rows::{Book, Changed, NidRow, PageRows, Past, Rosters, Sheet, Table, part};
use super::super::shape;
use super::{Mail, Publication};
use crate::ids::{Gid, Nid, NidScheme, SessionKey, Timestamp};
use crate::mqtt::Message;

/// What has changed since it was written down.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Letters to devices: id, copy, and whose.
    own: Changed<(u64, u32, u32)>,
    /// Letters to groups, without their rolls.
    heads: Changed<(Gid, u64)>,
    rolls: Changed<(Gid, u64)>,
    /// Letters that are gone, with their rosters.
    gone: Vec<(u64, u64)>,
    /// Letters that are for others than before, with their former rosters.
    moved: Vec<(u64, u64)>,
    /// Devices that get a letter in pieces.
    progress: Changed<u32>,
    /// Removed devices.
    removed: Vec<Nid>,
}

impl Notes {
    pub(super) fn on(&self) -> bool {
        self.own.on
    }

    fn turn_on(&mut self) {
        (self.own.on, self.heads.on, self.rolls.on, self.progress.on) = (true, true, true, true);
    }

    pub(super) fn own(&mut self, index: u32, letter: &OwnLetter) {
        self.own.note((letter.id, letter.copy, index));
    }

    pub(super) fn own_gone(&mut self, index: u32, letter: &OwnLetter) {
        self.own(index, letter);
        self.own.bury(&letter.message);
    }

    pub(super) fn head(&mut self, gid: Gid, id: u64) {
        self.heads.note((gid, id));
    }

    pub(super) fn roll(&mut self, gid: Gid, id: u64) {
        self.rolls.note((gid, id));
    }

    pub(super) fn group_gone(&mut self, gid: Gid, letter: &GroupLetter) {
        if self.on() {
            self.gone.push((letter.id, letter.roster));
            self.heads.forget(&(gid, letter.id));
            self.rolls.forget(&(gid, letter.id));
            self.heads.bury(&letter.publication.message);
        }
    }

    /// A letter is for some of its addressees alone, from now on.
    pub(super) fn moved(&mut self, gid: Gid, letter: &mut GroupLetter) {
        if self.on() {
            self.moved.push((letter.id, std::mem::take(&mut letter.roster)));
            self.heads.note((gid, letter.id));
            self.rolls.forget(&(gid, letter.id));
        }
    }

    pub(super) fn progress(&mut self, index: u32) {
        self.progress.note(index);
    }

    /// The device is gone, and its mailbox.
    pub(super) fn remove(&mut self, index: u32, nid: Nid, mailbox: &Mailbox) {
        if self.on() {
            mailbox.letters().for_each(|letter| self.own_gone(index, letter));
            self.progress.forget(&index);
            self.removed.push(nid);
        }
    }
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct LetterRow {
    #[n(0)]
    to: NidRow,
    #[n(1)]
    message: u64,
    #[n(2)]
    expires: u64,
    #[n(3)]
    form: u8,
    #[n(4)]
    campaign: Option<u64>,
    #[n(5)]
    chunks: bool,
    #[n(6)]
    change: Option<ChangeRow>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub(in crate::rsp) struct ChangeRow {
    #[n(0)]
    from: NidRow,
    #[n(1)]
    to: NidRow,
    #[n(2)]
    gid: u64,
}

impl From<&ProfileChange> for ChangeRow {
    fn from(change: &ProfileChange) -> Self {
        let ProfileChange { from, to, gid } = *change;
        Self { from: from.into(), to: to.into(), gid: gid.get() }
    }
}

impl ChangeRow {
    pub(in crate::rsp) fn change(&self) -> Option<ProfileChange> {
        let (from, to, gid) = (self.from.nid()?, self.to.nid()?, Gid::new(self.gid)?);
        Some(ProfileChange { from, to, gid })
    }
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct GroupLetterRow {
    #[n(0)]
    gid: u64,
    #[n(1)]
    roster: u64,
    #[n(2)]
    message: u64,
    #[n(3)]
    has_parts: bool,
    #[n(4)]
    chunks: bool,
    #[n(5)]
    needs_consent: bool,
    #[n(6)]
    expires: u64,
    #[n(7)]
    campaign: Option<u64>,
    /// The places of those who may have it before all others.
    #[n(8)]
    first: Option<Vec<u32>>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct ProgressRow {
    #[n(0)]
    device: NidRow,
    #[n(1)]
    letter: u64,
    #[n(2)]
    offset: u64,
    #[n(3)]
    pieces: u32,
    #[n(4)]
    next: Option<u64>,
    /// Zero: it has no piece that it has not acknowledged.
    #[n(5)]
    limit: u64,
}

/// The rows of mail that were read.
#[derive(Debug, Default)]
pub(in crate::rsp) struct MailRows {
    letters: Vec<(u64, u32, LetterRow)>,
    groups: BTreeMap<u64, GroupLetterRow>,
    done: HashMap<u64, PageRows>,
    progress: Vec<ProgressRow>,
}

impl MailRows {
    /// Takes a row. `None`: nobody can make sense of it.
    pub(in crate::rsp) fn take(
        &mut self,
        table: Table,
        id: u64,
        part: u32,
        value: &[u8],
    ) -> Option<()> {
        match table {
            Table::Letter => self.letters.push((id, part, minicbor::decode(value).ok()?)),
            Table::GroupLetter => drop(self.groups.insert(id, minicbor::decode(value).ok()?)),
            Table::Done => self.done.entry(id).or_default().push((part, value.into())),
            Table::Device => self.progress.push(minicbor::decode(value).ok()?),
            _ => return None,
        }
        Some(())
    }
}

impl Mail {
    pub(in crate::rsp) fn last_id(&self) -> u64 {
        self.last_id
    }

    pub(in crate::rsp) fn keep_rows(&mut self) {
        self.notes.turn_on();
    }

    pub(in crate::rsp) fn write(&mut self, book: &mut Book<'_, '_>) {
        for (id, copy, index) in self.notes.own.hand_over(book.sheet) {
            let letter = self.mailbox(index).and_then(|mailbox| mailbox.letter(id));
            match (letter.filter(|letter| letter.copy == copy), book.registry.nid_at(index)) {
                (Some(letter), Some(nid)) => {
                    let row = letter_row(letter, nid, book.sheet);
                    book.sheet.put(Table::Letter, id, copy, &row);
                }
                _ => book.sheet.delete(Table::Letter, id, copy),
            }
        }
        for (id, roster) in std::mem::take(&mut self.notes.moved) {
            book.sheet.delete_all(Table::Done, id);
            book.rosters.release(roster, book.sheet);
        }
        for (gid, id) in self.notes.heads.hand_over(book.sheet) {
            let log = self.logs.get_mut(&gid);
            if let Some(letter) = log.and_then(|log| log.letter_mut(id)) {
                write_head(gid, letter, book);
            }
        }
        for (gid, id) in self.notes.rolls.take() {
            let letter = self.logs.get_mut(&gid).and_then(|log| log.letter_mut(id));
            let pages = letter.map(|letter| letter.roll.take_changed()).unwrap_or_default();
            for (page, bits) in pages {
                book.sheet.put_bytes(Table::Done, id, page, &bits);
            }
        }
        for (id, roster) in std::mem::take(&mut self.notes.gone) {
            book.sheet.delete_all(Table::GroupLetter, id);
            book.sheet.delete_all(Table::Done, id);
            book.rosters.release(roster, book.sheet);
        }
        for nid in std::mem::take(&mut self.notes.removed) {
            book.devices.write(nid, part::PROGRESS, None::<&ProgressRow>, book.sheet);
        }
        for index in self.notes.progress.take() {
            let Some(nid) = book.registry.nid_at(index) else { continue };
            let progress = self.mailbox(index).and_then(Mailbox::progress);
            let row = progress.map(|progress| progress_row(nid, progress));
            book.devices.write(nid, part::PROGRESS, row.as_ref(), book.sheet);
        }
    }

    /// As it was. What cannot be is left out.
    pub(in crate::rsp) fn restore(
        &mut self,
        rows: MailRows,
        last_id: u64,
        rosters: &mut Rosters,
        past: &mut Past<'_>,
        scheme: NidScheme,
    ) {
        self.last_id = last_id;
        for (id, copy, row) in rows.letters {
            self.last_id = self.last_id.max(id);
            self.last_copy = self.last_copy.max(copy);
            match (past.device(row.to), past.message(row.message)) {
                (Some((_, key)), Some(message)) => {
                    self.put_in(key.index, own_letter(id, copy, &row, message));
                }
                _ => past.useless.push((Table::Letter, id, Some(copy))),
            }
        }
        let mut done = rows.done;
        for (id, row) in rows.groups {
            self.last_id = self.last_id.max(id);
            let pages = done.remove(&id).unwrap_or_default();
            if self.restore_group_letter(id, &row, pages, rosters, past, scheme).is_none() {
                past.drop_all(Table::GroupLetter, id);
                past.drop_all(Table::Done, id);
            }
        }
        done.into_keys().for_each(|id| past.drop_all(Table::Done, id));
        for row in rows.progress {
            self.restore_progress(&row, past);
        }
    }

    fn restore_group_letter(
        &mut self,
        id: u64,
        row: &GroupLetterRow,
        pages: PageRows,
        rosters: &mut Rosters,
        past: &mut Past<'_>,
        scheme: NidScheme,
    ) -> Option<()> {
        let (gid, message) = (Gid::new(row.gid)?, past.message(row.message)?);
        let roster = past.rosters.get(&row.roster)?;
        let mut roll = Roll::new(Arc::clone(&roster.members)).kept();
        for (page, bits) in pages {
            let places = Roll::done_on(page, &bits).filter_map(|place| roster.place(place));
            places.for_each(|place| roll.restore_done(place));
        }
        if roll.finish_all(roster.gone()) {
            self.notes.roll(gid, id);
        }
        let parts = if row.has_parts {
            Some(Arc::new(Parts::read(&message.payload, scheme).ok()?))
        } else {
            None
        };
        let index = |place: &u32| roster.members.get(roster.place(*place as usize)?).copied();
        let first = row.first.as_ref().map(|first| {
            let mut first: Vec<u32> = first.iter().filter_map(index).collect();
            first.sort_unstable();
            first.into()
        });
        let is_moved = roster.is_moved();
        if is_moved {
            past.drop_all(Table::Done, id);
            roll.note_all();
            self.notes.head(gid, id);
            self.notes.roll(gid, id);
        } else {
            rosters.use_again(row.roster);
        }
        let (chunks, needs_consent) = (row.chunks, row.needs_consent);
        let publication = Publication { message, parts, chunks, needs_consent };
        let letter = GroupLetter::new(roll, publication, Timestamp(row.expires));
        let campaign = row.campaign.and_then(NonZeroU64::new);
        let roster = if is_moved { 0 } else { row.roster };
        if letter.is_done() {
            // Its last addressees are gone.
            self.notes.group_gone(gid, &GroupLetter { id, roster, ..letter });
            return Some(());
        }
        self.group_expiries.insert((letter.expires, (id, gid)));
        self.totals.messages += 1;
        let bytes = letter.publication.message.kept_bytes();
        self.totals.bytes += bytes;
        let log = self.logs.entry(gid).or_default();
        log.bytes += bytes;
        log.letters.push_back(GroupLetter { id, campaign, first, roster, ..letter });
        Some(())
    }

    fn restore_progress(&mut self, row: &ProgressRow, past: &mut Past<'_>) {
        let Some((_, key)) = past.device(row.device) else { return };
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let progress = Progress {
            letter: row.letter,
            offset: size(row.offset),
            pieces: row.pieces,
            next: row.next.map(size),
            limit: size(row.limit),
        };
        self.mailbox_mut(key.index).set_progress(Some(progress));
        self.forget_progress_of_none(key.index, past.registry.gids(key));
        self.tidy(key.index);
    }

    /// The groups in whose logs letters lie.
    pub(in crate::rsp) fn groups(&self) -> Vec<Gid> {
        let logs = self.logs.iter().filter(|(_, log)| !log.letters.is_empty());
        logs.map(|(gid, _)| *gid).collect()
    }

    /// All who stand on the rolls of a group's letters, each list once.
    pub(in crate::rsp) fn rolls_of(&self, gid: Gid) -> Vec<Arc<Vec<u32>>> {
        let letters = self.logs.get(&gid).into_iter().flat_map(|log| &log.letters);
        let mut rolls: Vec<_> = letters.map(|letter| Arc::clone(letter.roll.members())).collect();
        rolls.sort_unstable_by_key(|members| Arc::as_ptr(members) as usize);
        rolls.dedup_by(|a, b| Arc::ptr_eq(a, b));
        rolls
    }

    /// The campaigns of a group whose letters wait for their first waves.
    pub(in crate::rsp) fn waiting_campaigns(&self, gid: Gid) -> Vec<u64> {
        let letters = self.logs.get(&gid).into_iter().flat_map(|log: &Log| &log.letters);
        let waiting = letters.filter(|letter| letter.first.is_some());
        waiting.filter_map(|letter| letter.campaign.map(NonZeroU64::get)).collect()
    }

    pub(in crate::rsp) fn is_profile_change(&self, index: u32, id: u64) -> bool {
        let letter = self.mailbox(index).and_then(|mailbox| mailbox.letter(id));
        letter.is_some_and(|letter| letter.change.is_some())
    }

    /// The reader was given this letter before a restart and may have it: it is given the very same
    /// again. `None`: it has acknowledged it, or the letter is gone.
    pub(in crate::rsp) fn take_again(
        &mut self,
        index: u32,
        (nid, gids): (Nid, &[Gid]),
        reader: SessionKey,
        id: u64,
    ) -> Option<Arc<Message>> {
        let mailbox = self.mailbox(index).filter(|mailbox| mailbox.reader() == Some(reader))?;
        if mailbox.has_taken(id) {
            return None;
        }
        let progress = mailbox.progress().filter(|progress| progress.letter == id).copied();
        if progress.is_some_and(|progress| progress.limit == 0) {
            return None;
        }
        let whole = match mailbox.letter(id) {
            Some(letter) => Arc::clone(&letter.message),
            None => {
                let has = |gid: &&Gid| self.logs.get(gid).is_some_and(|l| l.position(id).is_some());
                let gid = gids.iter().find(has)?;
                let letter = self.logs.get_mut(gid)?.letter_mut(id)?;
                if !letter.roll.is_waiting(index) {
                    return None;
                }
                letter.roll.take(index);
                let Publication { message, parts, .. } = &letter.publication;
                parts
                    .as_ref()
                    .map_or_else(|| Arc::clone(message), |parts| shape::part(message, parts, nid))
            }
        };
        let mailbox = self.mailbox_mut(index);
        mailbox.take(id);
        mailbox.set_cursor(0);
        let Some(Progress { offset, pieces, limit, .. }) = progress else { return Some(whole) };
        let piece = chunk::piece(&whole.payload, offset, pieces + 1, limit).ok()?;
        Some(Arc::new(whole.with_payload(piece.payload)))
    }
}

fn write_head(gid: Gid, letter: &mut GroupLetter, book: &mut Book<'_, '_>) {
    let Publication { message, parts, chunks, needs_consent } = &letter.publication;
    if letter.roster == 0 {
        letter.roster = book.rosters.use_of(letter.roll.members(), book.registry, book.sheet);
    }
    let place = |index: &u32| letter.roll.place_of(*index);
    let row = GroupLetterRow {
        gid: gid.get(),
        roster: letter.roster,
        message: book.sheet.message(message),
        has_parts: parts.is_some(),
        chunks: *chunks,
        needs_consent: *needs_consent,
        expires: letter.expires.0,
        campaign: letter.campaign.map(NonZeroU64::get),
        first: letter.first.as_ref().map(|first| first.iter().filter_map(place).collect()),
    };
    book.sheet.put(Table::GroupLetter, letter.id, 0, &row);
}

fn letter_row(letter: &OwnLetter, to: Nid, sheet: &mut Sheet<'_>) -> LetterRow {
    LetterRow {
        to: to.into(),
        message: sheet.message(&letter.message),
        expires: letter.expires.0,
        form: letter.form as u8,
        campaign: letter.campaign.map(NonZeroU64::get),
        chunks: letter.chunks,
        change: letter.change.as_deref().map(ChangeRow::from),
    }
}

fn own_letter(id: u64, copy: u32, row: &LetterRow, message: Arc<Message>) -> OwnLetter {
    let change = row.change.as_ref().and_then(ChangeRow::change).map(Box::new);
    let forms = [Form::Single, Form::Multi, Form::Peer];
    OwnLetter {
        id,
        copy,
        message,
        expires: Timestamp(row.expires),
        form: forms.into_iter().find(|form| *form as u8 == row.form).unwrap_or(Form::Single),
        campaign: row.campaign.and_then(NonZeroU64::new),
        chunks: row.chunks,
        change,
    }
}

fn progress_row(nid: Nid, progress: &Progress) -> ProgressRow {
    let Progress { letter, offset, pieces, next, limit } = *progress;
    ProgressRow {
        device: nid.into(),
        letter,
        offset: offset as u64,
        pieces,
        next: next.map(|next| next as u64),
        limit: limit as u64,
    }
}
