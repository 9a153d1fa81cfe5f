//! Merging: equal B1s to members of one group that wait for a moment, to be delivered as one C1
//! `[0119]`.
//!
//! Two B1s are equal when their envelopes are, but for the nid, and so are their properties. What
//! else is published for one of their devices meanwhile makes them go at once: order is kept.

mod rows;

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::quality::RandomState;

use super::gathered;
use super::policy::Ask;
use super::rows::Changed;
use crate::ids::{Gid, Timestamp};
use crate::mqtt::Message;
pub(super) use rows::MergingRow;

#[derive(Debug)]
pub(super) struct Merging {
    batches: HashMap<u64, EqualMessages, RandomState>,
    by_content: HashMap<(Gid, u64), u64, RandomState>,
    by_device: HashMap<u32, u64, RandomState>,
    calendar: BTreeSet<(Timestamp, u64)>,
    last_id: u64,
    hasher: RandomState,
    messages_max: usize,
    /// B1s, by batch and device.
    changed: Changed<(u64, u32)>,
    /// Batches that have gone.
    gone: Vec<u64>,
}

/// Equal B1s that wait.
#[derive(Debug)]
pub(super) struct EqualMessages {
    pub(super) gid: Gid,
    /// What they are as one message to the group.
    pub(super) envelope: Bytes,
    pub(super) ask: Ask,
    /// Device and message of each.
    pub(super) each: Vec<(u32, Arc<Message>)>,
    content: u64,
    due: Timestamp,
}

impl Merging {
    pub(super) fn new(messages_max: usize) -> Self {
        Self {
            batches: HashMap::default(),
            by_content: HashMap::default(),
            by_device: HashMap::default(),
            calendar: BTreeSet::new(),
            last_id: 0,
            hasher: RandomState::default(),
            messages_max,
            changed: Changed::default(),
            gone: Vec::new(),
        }
    }

    /// The next moment at which something goes.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.calendar.first().map(|(due, _)| *due)
    }

    /// Whether anything waits at all.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// A B1 waits until `due`, or as long as the first of its equals does. Its device has none that
    /// waits already, see [`Self::take_of`].
    pub(super) fn push(
        &mut self,
        gid: Gid,
        index: u32,
        message: &Arc<Message>,
        ask: Ask,
        due: Timestamp,
    ) {
        let envelope = gathered::merged(gid, &message.payload);
        let content = self.hasher.hash_one((&envelope, &ask.asker));
        let known = self.by_content.get(&(gid, content)).copied();
        let equal = known.and_then(|id| Some((id, self.batches.get_mut(&id)?)));
        let id = match equal {
            Some((id, batch)) if batch.takes(&envelope, message, &ask, self.messages_max) => {
                batch.each.push((index, Arc::clone(message)));
                id
            }
            _ => {
                self.last_id += 1;
                let each = vec![(index, Arc::clone(message))];
                let batch = EqualMessages { gid, envelope, ask, each, content, due };
                self.by_content.insert((gid, content), self.last_id);
                self.calendar.insert((due, self.last_id));
                self.batches.insert(self.last_id, batch);
                self.last_id
            }
        };
        self.by_device.insert(index, id);
        self.changed.note((id, index));
    }

    /// Takes the batch in which a B1 to this device waits.
    pub(super) fn take_of(&mut self, index: u32) -> Option<EqualMessages> {
        let id = *self.by_device.get(&index)?;
        self.take(id)
    }

    /// Takes a batch that is due.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<EqualMessages> {
        let (_, id) = self.calendar.first().copied().filter(|(due, _)| *due <= now)?;
        self.take(id)
    }

    /// Takes the batches in which a B1 to any of these devices waits, the oldest first.
    pub(super) fn take_of_any(&mut self, members: &[u32]) -> Vec<EqualMessages> {
        let is_member = |(index, _): &(u32, _)| members.binary_search(index).is_ok();
        let concerned = |(_, id): &&(Timestamp, u64)| {
            self.batches.get(id).is_some_and(|batch| batch.each.iter().any(is_member))
        };
        let ids: Vec<u64> = self.calendar.iter().filter(concerned).map(|(_, id)| *id).collect();
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// The device is gone: nothing waits for it.
    pub(super) fn forget(&mut self, index: u32) {
        let Some(id) = self.by_device.remove(&index) else { return };
        self.changed.note((id, index));
        if let Some(batch) = self.batches.get_mut(&id) {
            let its = batch.each.iter().filter(|(other, _)| *other == index);
            its.for_each(|(_, message)| self.changed.bury(message));
            batch.each.retain(|(other, _)| *other != index);
            if batch.each.is_empty() {
                self.take(id);
            }
        }
    }

    fn take(&mut self, id: u64) -> Option<EqualMessages> {
        let batch = self.batches.remove(&id)?;
        self.calendar.remove(&(batch.due, id));
        let content = (batch.gid, batch.content);
        if self.by_content.get(&content) == Some(&id) {
            self.by_content.remove(&content);
        }
        for (index, message) in &batch.each {
            self.by_device.remove(index);
            self.changed.forget(&(id, *index));
            self.changed.bury(message);
        }
        if self.changed.on {
            self.gone.push(id);
        }
        Some(batch)
    }
}

impl EqualMessages {
    fn takes(&self, envelope: &Bytes, message: &Message, ask: &Ask, max: usize) -> bool {
        let first = &self.each.first().map(|(_, first)| first);
        let equal = |first: &&Arc<Message>| {
            first.properties == message.properties && first.qos == message.qos
        };
        self.each.len() < max
            && self.envelope == *envelope
            && self.ask.asker == ask.asker
            && first.as_ref().is_none_or(equal)
    }
}
