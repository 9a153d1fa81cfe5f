//! The rows of the ledger: what was asked, of whom, and how far each device is. How fast answers
//! came is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::super::campaign::{FirstWave, Pace, Verdict};
use super::super::filed::Standing;
use super::super::mail::Publication;
use super::super::parts::Parts;
use super::super::request::{Asked, Draft, Request, Roster, Whom};
use super::super::rows::{
    Book, Changed, GONE, MEMBERS_PER_PAGE, NidRow, PageRows, Past, Rosters, Sheet, Table, TidRow,
};
use super::super::track::{DeviceState, Track};
use super::{Ledger, Said};
use crate::ids::{Gid, NidScheme, Timestamp};
use crate::mqtt::{Message, QoS};

/// What has changed since it was written down.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// All but how far members of groups are.
    heads: Changed<u64>,
    changed: Changed<u64>,
    /// Requests that are forgotten, with their rosters.
    gone: Vec<(u64, u64)>,
    /// Answers that came late, by their rows: to which A1, of which device.
    said: Changed<(u64, u64, u32)>,
    last_said: u64,
}

impl Notes {
    pub(super) fn next_said(&mut self) -> u64 {
        self.last_said += 1;
        self.last_said
    }

    pub(super) fn said(&mut self, (id, index): (u64, u32), row: u64) {
        self.said.note((row, id, index));
    }

    pub(super) fn on(&self) -> bool {
        self.heads.on
    }

    pub(super) fn head(&mut self, id: u64) {
        self.heads.note(id);
    }

    /// How far some device is.
    pub(super) fn change(&mut self, id: u64) {
        self.changed.note(id);
    }

    pub(super) fn message_gone(&mut self, id: u64, message: &Arc<Message>) {
        self.heads.note(id);
        self.heads.bury(message);
    }

    pub(super) fn gone(&mut self, id: u64, request: &Request) {
        if self.on() {
            self.heads.forget(&id);
            self.changed.forget(&id);
            let roster = match &request.whom {
                Whom::One { .. } => 0,
                Whom::All(roster) => roster.row,
            };
            self.gone.push((id, roster));
        }
    }
}

/// The parts of a request's row.
mod part {
    pub(super) const HEAD: u32 = 0;
    /// Who is served first.
    pub(super) const WAVE: u32 = 1;
    /// How they fare.
    pub(super) const VERDICT: u32 = 2;
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct RequestRow<'a> {
    #[n(0)]
    is_trigger: bool,
    /// The device, where it is to one alone.
    #[n(1)]
    to: Option<NidRow>,
    /// How far that is.
    #[n(2)]
    state: u8,
    /// The group, and its members.
    #[n(3)]
    gid: Option<u64>,
    #[n(4)]
    roster: u64,
    #[n(5)]
    expires: u64,
    #[n(6)]
    opened: u64,
    #[b(7)]
    asker: &'a str,
    #[n(8)]
    tid: Option<TidRow>,
    #[b(9)]
    name: Option<&'a str>,
    /// What was sent, if it is kept.
    #[n(10)]
    message: Option<u64>,
    #[n(11)]
    has_parts: bool,
    #[n(12)]
    chunks: bool,
    #[n(13)]
    needs_consent: bool,
    #[n(14)]
    merged: bool,
    #[n(15)]
    standing: u8,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct WaveRow {
    /// Places in the roster.
    #[n(0)]
    first: Vec<u32>,
    #[n(1)]
    failures_max_permille: u16,
}

#[derive(Clone, Copy, Debug, Default, Encode, Decode)]
#[cbor(array)]
struct VerdictRow {
    #[n(0)]
    done: u32,
    #[n(1)]
    failed: u32,
    /// Whether the others may follow, once that is decided.
    #[n(2)]
    releases: Option<bool>,
}

impl VerdictRow {
    fn verdict(self) -> Option<Verdict> {
        self.releases.map(|releases| match releases {
            true => Verdict::Release,
            false => Verdict::Halt,
        })
    }
}

/// A device has answered an A1 after newer ones.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct SaidRow {
    #[n(0)]
    request: u64,
    #[n(1)]
    device: NidRow,
    #[n(2)]
    newest: u64,
    #[n(3)]
    rank: u32,
}

/// The rows of the ledger that were read.
#[derive(Debug, Default)]
pub(in crate::rsp) struct LedgerRows {
    said: Vec<(u64, SaidRow)>,
    requests: BTreeMap<u64, Box<[u8]>>,
    waves: HashMap<u64, WaveRow>,
    verdicts: HashMap<u64, VerdictRow>,
    states: HashMap<u64, PageRows>,
}

/// A name that many requests have.
type Askers = HashMap<Box<str>, Arc<str>>;

impl LedgerRows {
    /// Takes a row. `None`: nobody can make sense of it.
    pub(in crate::rsp) fn take(
        &mut self,
        table: Table,
        id: u64,
        part: u32,
        value: &[u8],
    ) -> Option<()> {
        match (table, part) {
            (Table::Request, part::HEAD) => {
                minicbor::decode::<RequestRow<'_>>(value).ok()?;
                self.requests.insert(id, value.into());
            }
            (Table::Request, part::WAVE) => {
                self.waves.insert(id, minicbor::decode(value).ok()?);
            }
            (Table::Request, part::VERDICT) => {
                self.verdicts.insert(id, minicbor::decode(value).ok()?);
            }
            (Table::Said, _) => self.said.push((id, minicbor::decode(value).ok()?)),
            (Table::States, page) => self.states.entry(id).or_default().push((page, value.into())),
            _ => return None,
        }
        Some(())
    }
}

impl Ledger {
    pub(in crate::rsp) fn last_id(&self) -> u64 {
        self.last_id
    }

    pub(in crate::rsp) fn keep_rows(&mut self) {
        (self.notes.heads.on, self.notes.changed.on, self.notes.said.on) = (true, true, true);
    }

    pub(in crate::rsp) fn write(&mut self, book: &mut Book<'_, '_>) {
        let mut heads = self.notes.heads.hand_over(book.sheet);
        for id in self.notes.changed.take() {
            match self.requests.get_mut(id).map(|request| &mut request.whom) {
                None => {}
                Some(Whom::One { .. }) => drop(heads.insert(id)),
                Some(Whom::All(roster)) => write_states(id, roster, book.sheet),
            }
        }
        for id in heads {
            if let Some(request) = self.requests.get_mut(id) {
                write_head(id, request, book);
            }
        }
        self.write_said(book);
        for (id, roster) in std::mem::take(&mut self.notes.gone) {
            book.sheet.delete_all(Table::Request, id);
            if roster > 0 {
                book.sheet.delete_all(Table::States, id);
                book.rosters.release(roster, book.sheet);
            }
        }
    }

    fn write_said(&mut self, book: &mut Book<'_, '_>) {
        for (row, id, index) in self.notes.said.take() {
            let said = self.said_late.get(&(id, index)).filter(|(_, own)| *own == row);
            let Some((Said { newest, rank }, _)) = said.copied() else {
                book.sheet.delete(Table::Said, row, 0);
                continue;
            };
            let device = book.registry.nid_at(index).into();
            book.sheet.put(Table::Said, row, 0, &SaidRow { request: id, device, newest, rank });
        }
    }

    fn restore_said(&mut self, rows: Vec<(u64, SaidRow)>, past: &mut Past<'_>) {
        for (row, SaidRow { request, device, newest, rank }) in rows {
            self.notes.last_said = self.notes.last_said.max(row);
            match (past.device(device), self.requests.get(request)) {
                (Some((_, key)), Some(_)) => {
                    let said = (Said { newest, rank }, row);
                    self.said_late.insert((request, key.index), said);
                }
                _ => past.drop_all(Table::Said, row),
            }
        }
    }

    pub(in crate::rsp) fn last_said(&self) -> u64 {
        self.notes.last_said
    }

    /// Answers are numbered from there on.
    pub(in crate::rsp) fn go_on_from_said(&mut self, last: u64) {
        self.notes.last_said = last;
    }

    /// As it was. What cannot be is left out.
    pub(in crate::rsp) fn restore(
        &mut self,
        mut rows: LedgerRows,
        last_id: u64,
        rosters: &mut Rosters,
        past: &mut Past<'_>,
        scheme: NidScheme,
    ) {
        self.last_id = last_id;
        let nothing = Message::new(
            Default::default(),
            Default::default(),
            QoS::AtMostOnce,
            false,
            None,
            Timestamp::NEVER,
        );
        let (nothing, mut askers) = (Arc::new(nothing), Askers::new());
        for (id, bytes) in std::mem::take(&mut rows.requests) {
            self.last_id = self.last_id.max(id);
            let row = minicbor::decode::<RequestRow<'_>>(&bytes).ok();
            let whom = row.as_ref().and_then(|row| match row.gid {
                None => whom_one(row, past),
                Some(gid) => self.whom_all(id, Gid::new(gid)?, row, &mut rows, rosters, past),
            });
            let (Some(row), Some(whom)) = (row, whom) else {
                past.drop_all(Table::Request, id);
                past.drop_all(Table::States, id);
                continue;
            };
            let asker = match askers.get(row.asker) {
                Some(asker) => Arc::clone(asker),
                None => Arc::clone(askers.entry(row.asker.into()).or_insert(row.asker.into())),
            };
            let message = row.message.and_then(|message| past.message(message));
            let request = request(&row, whom, asker, message, &nothing, scheme);
            self.file(id, request);
        }
        self.restore_said(std::mem::take(&mut rows.said), past);
        rows.states.into_keys().for_each(|id| past.drop_all(Table::States, id));
    }

    /// Does what has become due by what was left out: to be called when changes are noted.
    pub(in crate::rsp) fn end_what_is_over(&mut self) {
        let over = self
            .requests
            .from(0)
            .filter(|(_, request)| request.standing == Standing::Open && !request.is_open());
        let over: Vec<u64> = over.map(|(id, _)| id).collect();
        over.into_iter().for_each(|id| self.end_if_over(id));
    }

    /// A campaign's first wave has let the others follow, and they wait still.
    pub(in crate::rsp) fn release_again(&mut self, id: u64) {
        let Some(Whom::All(roster)) = self.requests.get(id).map(|request| &request.whom) else {
            return;
        };
        if roster.wave.as_ref().and_then(FirstWave::verdict) == Some(Verdict::Release) {
            self.verdicts.push((id, Verdict::Release));
        }
    }

    /// The groups to which requests were made, and all who stand on their rosters.
    pub(in crate::rsp) fn rosters(&self) -> Vec<(Gid, Arc<Vec<u32>>)> {
        let all = self.requests.from(0).filter_map(|(_, request)| match &request.whom {
            Whom::One { .. } => None,
            Whom::All(roster) => Some((roster.gid, Arc::clone(roster.track.members()))),
        });
        let mut all: Vec<_> = all.collect();
        all.sort_unstable_by_key(|(gid, members)| (*gid, Arc::as_ptr(members) as usize));
        all.dedup_by(|a, b| a.0 == b.0 && Arc::ptr_eq(&a.1, &b.1));
        all
    }

    fn whom_all(
        &mut self,
        id: u64,
        gid: Gid,
        row: &RequestRow<'_>,
        rows: &mut LedgerRows,
        rosters: &mut Rosters,
        past: &mut Past<'_>,
    ) -> Option<Whom> {
        let roster = past.rosters.get(&row.roster)?;
        let pages = rows.states.remove(&id).unwrap_or_default();
        let mut track = Track::new(Arc::clone(&roster.members)).kept();
        for (page, states) in &pages {
            let from = *page as usize * MEMBERS_PER_PAGE;
            for (place, number) in (from..).zip(states.iter()) {
                if let (Some(place), Some(state)) =
                    (roster.place(place), DeviceState::of_number(*number))
                {
                    track.restore(place, state);
                }
            }
        }
        let mut first: Vec<usize> = Vec::new();
        let counts = rows.verdicts.remove(&id).unwrap_or_default();
        let wave = rows.waves.remove(&id).map(|wave| {
            let places = wave.first.iter().filter_map(|place| roster.place(*place as usize));
            first.extend(places);
            let devices = first.iter().map(|place| roster.members[*place]).collect();
            FirstWave::restored(
                devices,
                wave.failures_max_permille,
                (counts.done, counts.failed),
                counts.verdict(),
            )
        });
        let mut new = Roster { gid, track, pace: Pace::default(), wave, parts: None, row: 0 };
        let is_moved = roster.is_moved();
        for place in roster.gone() {
            let Some(from) = new.track.lose(place) else { continue };
            self.notes.change(id);
            let wave = new.wave.as_mut().filter(|_| first.contains(&place));
            let verdict = wave.and_then(|wave| wave.note(GONE, from, DeviceState::Gone));
            self.verdicts.extend(verdict.map(|verdict| (id, verdict)));
        }
        if is_moved {
            past.drop_all(Table::States, id);
            new.track.note_all();
            self.notes.head(id);
            self.notes.change(id);
        } else {
            rosters.use_again(row.roster);
            new.row = row.roster;
        }
        Some(Whom::All(Box::new(new)))
    }

    /// Puts a request where it was.
    fn file(&mut self, id: u64, request: Request) {
        self.kept_bytes += request.message_bytes();
        self.tally.add_all(&request.tally());
        match &request.whom {
            Whom::One { index, .. } => self.by_device.insert(*index, request.standing, id),
            Whom::All(roster) => {
                self.by_group.insert(roster.gid, request.standing, id);
                if roster.wave.is_some() && request.standing != Standing::Over {
                    self.in_waves.insert(id);
                }
            }
        }
        if request.standing == Standing::Over {
            self.ended.insert(id);
            self.ended_devices += request.len();
        } else {
            self.expiries.insert((request.expires, id));
        }
        self.requests.push(id, request);
    }
}

fn whom_one(row: &RequestRow<'_>, past: &Past<'_>) -> Option<Whom> {
    let (_, key) = past.device(row.to?)?;
    Some(Whom::One { index: key.index, state: DeviceState::of_number(row.state)? })
}

fn request(
    row: &RequestRow<'_>,
    whom: Whom,
    asker: Arc<str>,
    message: Option<Arc<Message>>,
    nothing: &Arc<Message>,
    scheme: NidScheme,
) -> Request {
    let is_kept = message.is_some();
    let message = message.unwrap_or_else(|| Arc::clone(nothing));
    let parts = row.has_parts.then(|| Parts::read(&message.payload, scheme).ok()).flatten();
    let mut whom = whom;
    if let Whom::All(roster) = &mut whom {
        roster.parts = parts.map(Arc::new);
    }
    let draft = Draft {
        asked: if row.is_trigger { Asked::Trigger } else { Asked::Msg },
        asker,
        tid: row.tid.clone().and_then(TidRow::tid),
        name: row.name.map(Into::into),
        expires: Timestamp(row.expires),
        publication: Publication {
            message,
            parts: None,
            chunks: row.chunks,
            needs_consent: row.needs_consent,
        },
        merged: row.merged,
        wave: None,
    };
    let mut request = Request::new(whom, draft, Timestamp(row.opened));
    let standings = [Standing::Open, Standing::Answered, Standing::Over];
    request.standing =
        standings.into_iter().find(|s| *s as u8 == row.standing).unwrap_or(Standing::Over);
    if !is_kept {
        request.drop_message();
    }
    request
}

fn write_states(id: u64, roster: &mut Roster, sheet: &mut Sheet<'_>) {
    for (page, states) in roster.track.take_changed() {
        sheet.put_bytes(Table::States, id, page, states);
    }
    if let Some(wave) = &roster.wave {
        let view = wave.view();
        let releases = wave.verdict().map(|verdict| verdict == Verdict::Release);
        let row = VerdictRow { done: view.done, failed: view.failed, releases };
        sheet.put(Table::Request, id, part::VERDICT, &row);
    }
}

fn write_head(id: u64, request: &mut Request, book: &mut Book<'_, '_>) {
    if let Whom::All(roster) = &mut request.whom
        && roster.row == 0
    {
        roster.row = book.rosters.use_of(roster.track.members(), book.registry, book.sheet);
        if let Some(wave) = &roster.wave {
            let members = roster.track.members();
            let place = |index: &u32| u32::try_from(members.binary_search(index).ok()?).ok();
            let first = wave.devices().iter().filter_map(place).collect();
            let failures_max_permille = wave.view().failures_max_permille;
            let row = WaveRow { first, failures_max_permille };
            book.sheet.put(Table::Request, id, part::WAVE, &row);
        }
    }
    let (to, state, gid, roster) = match &request.whom {
        Whom::One { index, state } => (Some(book.registry.nid_at(*index).into()), *state, None, 0),
        Whom::All(roster) => (None, DeviceState::Queued, Some(roster.gid.get()), roster.row),
    };
    let publication = request.publication();
    let kept = publication.as_ref();
    let (chunks, needs_consent) = request.shape();
    let row = RequestRow {
        is_trigger: request.asked == Asked::Trigger,
        to,
        state: state as u8,
        gid,
        roster,
        expires: request.expires.0,
        opened: request.opened.0,
        asker: &request.asker,
        tid: request.tid().map(TidRow::from),
        name: request.campaign_name(),
        message: kept.map(|publication| book.sheet.message(&publication.message)),
        has_parts: kept.is_some_and(|publication| publication.parts.is_some()),
        chunks,
        needs_consent,
        merged: request.merged,
        standing: request.standing as u8,
    };
    book.sheet.put(Table::Request, id, part::HEAD, &row);
}
