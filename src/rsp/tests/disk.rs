//! A store that is a map, in which a message is as long as somebody holds it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use super::super::rows::{Pen, Table};
use super::*;
use crate::ids::{Kept, Row};

#[derive(Clone, Default)]
pub(in crate::rsp) struct Disk {
    rows: BTreeMap<(Table, u64, u32), Vec<u8>>,
    messages: Messages,
    last_message: u64,
    buried: Vec<Arc<Message>>,
    /// Rows and bytes written.
    pub(in crate::rsp) puts: usize,
    pub(in crate::rsp) bytes: usize,
}

type Messages = Arc<Mutex<HashMap<u64, Arc<Message>>>>;

struct Guard(u64, Messages);

impl Row for Guard {
    fn id(&self) -> u64 {
        self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

impl Pen for Disk {
    fn put(&mut self, table: Table, id: u64, part: u32, value: &[u8]) {
        assert!(value.len() <= 1 << 20);
        self.puts += 1;
        self.bytes += value.len();
        self.rows.insert((table, id, part), value.to_vec());
    }

    fn delete(&mut self, table: Table, id: u64, part: u32) {
        self.rows.remove(&(table, id, part));
    }

    fn delete_all(&mut self, table: Table, id: u64) {
        let parts = (table, id, 0)..=(table, id, u32::MAX);
        let parts: Vec<_> = self.rows.range(parts).map(|(key, _)| *key).collect();
        parts.iter().for_each(|key| drop(self.rows.remove(key)));
    }

    fn message(&mut self, message: &Arc<Message>) -> u64 {
        let keep = || {
            self.last_message += 1;
            let id = self.last_message;
            self.puts += 1;
            self.bytes += message.payload.len();
            let copy = Arc::new(message.with_expiry(message.expires));
            self.messages.lock().unwrap().insert(id, copy);
            Kept::new(Arc::new(Guard(id, Arc::clone(&self.messages))))
        };
        message.kept(keep).id()
    }

    fn bury(&mut self, message: Arc<Message>) {
        self.buried.push(message);
    }
}

impl Disk {
    /// Writes what has changed: one transaction.
    pub(in crate::rsp) fn write(&mut self, unit: &mut ControlUnit) {
        self.write_unchecked(unit);
        assert_eq!(self.messages_missing(), 0, "no row refers to a message that is gone");
    }

    /// The same for many rows.
    pub(in crate::rsp) fn write_unchecked(&mut self, unit: &mut ControlUnit) {
        unit.write(self);
        self.buried.clear();
    }

    /// How many rows there are.
    pub(in crate::rsp) fn len(&self) -> usize {
        self.rows.len() + self.messages.lock().unwrap().len()
    }

    pub(in crate::rsp) fn tables(&self) -> BTreeMap<Table, usize> {
        let mut tables = BTreeMap::new();
        self.rows.keys().for_each(|(table, _, _)| *tables.entry(*table).or_default() += 1);
        tables
    }

    /// What comes back of it, with this registry file. The same rows are written from then on.
    pub(in crate::rsp) fn restored(&mut self, options: &ControlOptions, file: &str) -> ControlUnit {
        let loaded = self.reload();
        let mut unit = ControlUnit::new(options.clone());
        unit.load(file);
        unit.restore(self.read(), |id| loaded.get(&id).cloned());
        drop(loaded);
        self.write_unchecked(&mut unit);
        unit
    }

    /// What comes back of the inbox of these servers, where nobody has subscribed yet.
    pub(in crate::rsp) fn restored_inbox(&mut self, mut inbox: Inbox) -> Inbox {
        let loaded = self.reload();
        let mut rows = InboxRows::default();
        for ((table, id, part), value) in &self.rows {
            assert!(InboxRows::has(*table, *id));
            rows.take(*table, *id, *part, value).expect("what was written can be read");
        }
        inbox.restore(rows, |id| loaded.get(&id).cloned());
        inbox
    }

    /// Writes what has changed in an inbox.
    pub(in crate::rsp) fn write_inbox(&mut self, inbox: &mut Inbox) {
        inbox.write(self);
        self.buried.clear();
    }

    /// All messages, each with its row.
    fn reload(&mut self) -> HashMap<u64, Arc<Message>> {
        // The messages of before are gone with the process.
        let saved = self.messages.lock().unwrap().clone();
        let saved: HashMap<u64, Arc<Message>> = saved
            .iter()
            .map(|(id, message)| (*id, Arc::new(message.with_expiry(message.expires))))
            .collect();
        self.messages = Arc::new(Mutex::new(saved.clone()));
        saved
            .iter()
            .map(|(id, message)| {
                let message = message.with_expiry(message.expires);
                message.kept(|| Kept::new(Arc::new(Guard(*id, Arc::clone(&self.messages)))));
                (*id, Arc::new(message))
            })
            .collect()
    }

    fn read(&self) -> ControlRows {
        let mut rows = ControlRows::default();
        for ((table, id, part), value) in &self.rows {
            rows.take(*table, *id, *part, value).expect("what was written can be read");
        }
        rows
    }

    /// What can be seen of a control unit without changing it.
    pub(in crate::rsp) fn seen(&self, unit: &ControlUnit, now: Timestamp) -> String {
        let mut seen = Vec::new();
        for device in unit.registry().devices() {
            seen.push(format!("{device:?}"));
        }
        // In whatever order they were registered.
        seen.sort();
        for campaign in unit.campaigns(None, now) {
            let mut devices: Vec<_> =
                unit.campaign_devices(campaign.id, 0).map(|d| (d.nid, d.state)).collect();
            devices.sort();
            let campaign = Campaign { rate: 0.0, eta: None, ..campaign };
            seen.push(format!("{campaign:?} {devices:?}"));
        }
        for (pair, exchange) in unit.exchanges_behind(None) {
            seen.push(format!("{pair:?} {exchange:?}"));
        }
        seen.push(format!("{:?} {:?}", unit.settings().common(), unit.settings().groups()));
        seen.push(format!("{:?}", unit.next_due()));
        let stats = ControlStats { devices_online: 0, mail_dropped: 0, ..unit.stats() };
        seen.push(format!("{stats:?}"));
        seen.join("\n")
    }

    fn messages_missing(&self) -> usize {
        // Whatever is restored from it would be without its message.
        let messages = self.messages.lock().unwrap();
        let mut unit = ControlUnit::new(ControlOptions::default());
        let missing = std::cell::Cell::new(0);
        unit.restore(self.read(), |id| {
            let message = messages.get(&id).cloned();
            missing.set(missing.get() + usize::from(message.is_none()));
            message
        });
        missing.get()
    }
}
