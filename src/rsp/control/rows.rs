//! The control unit writes down what must survive a restart, and reads it again.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::exchange::ExchangeRow;
use super::super::gathering::GatheredRow;
use super::super::ledger::LedgerRows;
use super::super::mail::{ChangeRow, MailRows};
use super::super::merging::MergingRow;
use super::super::registry::{PutRow, Registry, ReplacedRow};
use super::super::rows::{
    Book, Changed, Devices, GONE, Past, Pen, RosterRow, Rosters, Sheet, Table, part,
};
use super::super::settings::{self, GroupSettings, Settings, SettingsTable};
use super::super::spent::SpentRow;
use super::super::wishes::WishRow;
use super::{ControlUnit, DeviceKey};
use crate::ids::{Gid, Nid, SessionKey};
use crate::mqtt::Message;

/// What is known of the rows that are written.
#[derive(Debug)]
pub(super) struct Written {
    rosters: Rosters,
    devices: Devices,
    /// The settings of the configuration file.
    filed: SettingsTable,
    /// Groups whose settings have changed; 0 is all.
    settings: Changed<u64>,
    numbers: Numbers,
    /// Rows that were read and are of no use: all parts, or one.
    useless: Vec<(Table, u64, Option<u32>)>,
}

/// The youngest of each kind: letter, request, D1, batch of D1s, batch of B1s, exchange, roster,
/// device, late answer, change that is not told. A number is never given twice.
type Numbers = [u64; 10];

/// The row of [`Numbers`].
pub(in crate::rsp) const NUMBERS: u64 = 0;

/// The rows of a control unit, as they are read.
#[derive(Debug, Default)]
pub struct ControlRows {
    numbers: Numbers,
    rosters: Vec<(u64, RosterRow)>,
    devices: Vec<(Nid, u64)>,
    put: Vec<PutRow>,
    replaced: Vec<ReplacedRow>,
    spent: Vec<SpentRow>,
    settings: Vec<(u64, Value)>,
    mail: MailRows,
    ledger: LedgerRows,
    wishes: Vec<(u64, WishRow)>,
    gathered: Vec<(u64, u32, GatheredRow)>,
    merging: Vec<(u64, MergingRow)>,
    exchanges: Vec<(u64, ExchangeRow)>,
    untold: Vec<(u64, ChangeRow)>,
}

impl ControlRows {
    /// Takes a row; they come by table, id and part. `None`: nobody can make sense of it.
    pub fn take(&mut self, table: Table, id: u64, part: u32, value: &[u8]) -> Option<()> {
        match table {
            Table::Numbers => {
                let numbers: Vec<u64> = minicbor::decode(value).ok()?;
                self.numbers.iter_mut().zip(numbers).for_each(|(own, number)| *own = number);
            }
            Table::Roster => {
                if self.rosters.last().is_none_or(|(last, _)| *last != id) {
                    self.rosters.push((id, RosterRow::default()));
                }
                self.rosters.last_mut()?.1.take(value)?;
            }
            Table::Device => self.take_device(id, part, value)?,
            Table::Settings => self.settings.push((id, serde_json::from_slice(value).ok()?)),
            Table::Letter | Table::GroupLetter | Table::Done => {
                self.mail.take(table, id, part, value)?;
            }
            Table::Request | Table::States | Table::Said => {
                self.ledger.take(table, id, part, value)?;
            }
            Table::Wish => self.wishes.push((id, minicbor::decode(value).ok()?)),
            Table::Gathered => self.gathered.push((id, part, minicbor::decode(value).ok()?)),
            Table::Merging => self.merging.push((id, minicbor::decode(value).ok()?)),
            Table::Exchange => self.exchanges.push((id, minicbor::decode(value).ok()?)),
            Table::Untold => self.untold.push((id, minicbor::decode(value).ok()?)),
            Table::Item | Table::Desk | Table::Absence => return None,
        }
        Some(())
    }

    fn take_device(&mut self, id: u64, part: u32, value: &[u8]) -> Option<()> {
        // Each of them begins with its device.
        let device: ReplacedRow = minicbor::decode(value).ok()?;
        self.devices.push((device.nid()?, id));
        match part {
            part::PUT => self.put.push(minicbor::decode(value).ok()?),
            part::REPLACED => self.replaced.push(device),
            part::SPENT => self.spent.push(minicbor::decode(value).ok()?),
            part::PROGRESS => self.mail.take(Table::Device, id, part, value)?,
            _ => return None,
        }
        Some(())
    }
}

impl ControlUnit {
    /// From now on it notes what has changed, to be written with [`Self::write`].
    pub fn keep_rows(&mut self) {
        self.turn_on();
        self.written = Some(Box::new(Written {
            rosters: Rosters::default(),
            devices: Devices::default(),
            filed: self.options.settings.clone(),
            settings: Changed::noting(),
            numbers: Numbers::default(),
            useless: Vec::new(),
        }));
    }

    fn turn_on(&mut self) {
        self.registry.keep_rows();
        self.mail.keep_rows();
        self.ledger.keep_rows();
        self.spent.keep_rows();
        self.wishes.keep_rows();
        self.exchanges.keep_rows();
        self.gathering.keep_rows();
        self.merging.keep_rows();
        self.untold.keep_rows();
    }

    pub(in crate::rsp) fn note_settings(&mut self, gid: Option<Gid>) {
        let gid = gid.map_or(0, Gid::get);
        self.written.iter_mut().for_each(|written| written.settings.note(gid));
    }

    /// Writes what has changed since this was called last. To be called after each change, before
    /// anybody else sees it.
    pub fn write(&mut self, pen: &mut dyn Pen) {
        let Some(mut written) = self.written.take() else { return };
        let sheet = &mut Sheet::new(pen);
        for (table, id, part) in std::mem::take(&mut written.useless) {
            match part {
                None => sheet.delete_all(table, id),
                Some(part) => sheet.delete(table, id, part),
            }
        }
        self.write_settings(&mut written, sheet);
        let changed = self.registry.take_changed();
        let Written { rosters, devices, .. } = &mut *written;
        let book = &mut Book { registry: &self.registry, rosters, devices, sheet };
        Registry::write(changed, book);
        self.spent.write(book);
        self.mail.write(book);
        self.ledger.write(book);
        self.wishes.write(book);
        self.gathering.write(book);
        self.merging.write(book);
        self.exchanges.write(book);
        self.untold.write(book.sheet);
        let numbers = self.numbers(&written);
        if sheet.has_deleted && numbers != written.numbers {
            written.numbers = numbers;
            sheet.put(Table::Numbers, NUMBERS, 0, &numbers);
        }
        self.written = Some(written);
    }

    fn numbers(&self, written: &Written) -> Numbers {
        [
            self.mail.last_id(),
            self.ledger.last_id(),
            self.wishes.last_id(),
            self.gathering.last_batch(),
            self.merging.last_id(),
            self.exchanges.last_row(),
            written.rosters.last,
            written.devices.last,
            self.ledger.last_said(),
            self.untold.last_row(),
        ]
    }

    fn write_settings(&self, written: &mut Written, sheet: &mut Sheet<'_>) {
        let (now, filed) = (&self.options.settings, &written.filed);
        for id in written.settings.take() {
            let patch = match Gid::new(id) {
                None => patch(filed.common(), now.common()),
                Some(gid) => {
                    let of = |table: &SettingsTable| {
                        table.groups().get(&gid).cloned().unwrap_or_default()
                    };
                    patch(&of(filed), &of(now))
                }
            };
            match patch {
                Some(patch) => {
                    sheet.put_bytes(Table::Settings, id, 0, patch.to_string().as_bytes());
                }
                None => sheet.delete_all(Table::Settings, id),
            }
        }
    }

    /// Puts together what was written. The registry file has been read, and nothing has happened
    /// since; `message` gives the message of a row. What belongs to devices that are gone is left
    /// out. [`Self::write`] is due.
    pub fn restore(&mut self, rows: ControlRows, message: impl Fn(u64) -> Option<Arc<Message>>) {
        self.registry.keep_rows();
        rows.put.into_iter().for_each(|row| self.registry.restore_put(row));
        self.registry.settle();
        rows.replaced.iter().for_each(|row| self.registry.restore_replaced(row));
        if self.written.is_none() {
            self.keep_rows();
        }
        let Some(mut written) = self.written.take() else { return };
        let numbers = rows.numbers;
        let [
            letters,
            requests,
            wishes,
            gathered,
            merged,
            exchanges,
            rosters,
            devices,
            said,
            untold,
        ] = numbers;
        self.ledger.go_on_from_said(said);
        self.untold.restore(&rows.untold, untold);
        (written.rosters.last, written.devices.last) = (rosters, devices);
        for (nid, number) in rows.devices {
            written.devices.know(nid, number);
        }
        self.restore_settings(rows.settings);
        let registry = &self.registry;
        let messages = &message as &dyn Fn(u64) -> Option<Arc<Message>>;
        let mut past =
            Past { registry, rosters: Default::default(), messages, useless: Vec::new() };
        past.find(rows.rosters);
        for (id, roster) in past.rosters.iter().filter(|(_, roster)| !roster.is_moved()) {
            written.rosters.know(*id, &roster.members, 0);
        }
        let scheme = self.options.scheme;
        self.mail.restore(rows.mail, letters, &mut written.rosters, &mut past, scheme);
        self.ledger.restore(rows.ledger, requests, &mut written.rosters, &mut past, scheme);
        self.wishes.restore(rows.wishes, wishes, &mut past);
        self.gathering.restore(rows.gathered, gathered, &mut past);
        self.merging.restore(rows.merging, merged, &mut past);
        self.exchanges.restore(rows.exchanges, exchanges, &mut past);
        self.spent.restore(rows.spent, |nid| registry.key(nid).is_some());
        written.useless = past.useless;
        written.rosters.tidy(&mut written.useless);
        self.written = Some(written);
        self.catch_up();
    }

    /// What the registry file has changed while nobody was there, and what was decided but not
    /// done.
    fn catch_up(&mut self) {
        for gid in self.mail.groups() {
            for members in self.mail.rolls_of(gid) {
                for index in self.strangers(gid, &members) {
                    if let Some(nid) = self.registry.nid_at(index) {
                        self.mail.leave(index, nid, gid);
                    }
                }
            }
            let waiting = self.mail.waiting_campaigns(gid);
            waiting.into_iter().for_each(|campaign| self.ledger.release_again(campaign));
        }
        for (gid, members) in self.ledger.rosters() {
            for index in self.strangers(gid, &members) {
                self.ledger.leave(index, gid);
            }
        }
        self.ledger.end_what_is_over();
        let mut nobody_reads = Vec::new();
        self.heed_verdicts(&mut nobody_reads);
    }

    /// Those who are not in the group any more.
    fn strangers(&self, gid: Gid, all: &[u32]) -> Vec<u32> {
        let members = self.registry.members(gid).map_or(&[][..], |members| members);
        let is_stranger = |index: &u32| *index != GONE && members.binary_search(index).is_err();
        all.iter().copied().filter(is_stranger).collect()
    }

    /// What the configuration says now, with what operators have changed. What does not work any
    /// more is left out.
    fn restore_settings(&mut self, rows: Vec<(u64, Value)>) {
        for (id, patch) in rows {
            match Gid::new(id) {
                None => {
                    let settings: Option<Settings> = patched(self.settings().common(), &patch);
                    settings.and_then(|settings| self.set_settings(settings).ok());
                }
                Some(gid) => {
                    let groups = self.settings().groups();
                    let own = groups.get(&gid).cloned().unwrap_or_default();
                    let group: Option<GroupSettings> = patched(&own, &patch);
                    group.and_then(|group| self.set_group_settings(gid, group).ok());
                }
            }
        }
    }

    /// Whether what its reader is about to acknowledge is an E2: that is a profile change.
    #[must_use]
    pub fn is_profile_change(&self, device: DeviceKey, letter: u64) -> bool {
        self.registry.nid(device).is_some() && self.mail.is_profile_change(device.index, letter)
    }

    /// The reader was given this letter before a restart, and may have it: it is given the very
    /// same again. `None`: it has acknowledged it, or the letter is gone.
    pub fn take_again(
        &mut self,
        device: DeviceKey,
        reader: SessionKey,
        letter: u64,
    ) -> Option<Arc<Message>> {
        let nid = self.registry.nid(device)?;
        let gids = self.registry.gids(device);
        self.mail.take_again(device.index, (nid, gids), reader, letter)
    }
}

fn patch<T: Serialize>(before: &T, after: &T) -> Option<Value> {
    let value = |settings: &T| serde_json::to_value(settings).unwrap_or_default();
    settings::difference(&value(before), &value(after))
}

fn patched<T: Serialize + DeserializeOwned>(settings: &T, patch: &Value) -> Option<T> {
    let mut value = serde_json::to_value(settings).ok()?;
    settings::merge(&mut value, patch);
    serde_json::from_value(value).ok()
}
