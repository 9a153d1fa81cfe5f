//! Gathering: D1s of one group that wait for a moment, to reach the servers as one message.

mod rows;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::quality::RandomState;

use super::envelope::Tid;
use super::gathered::{RawBody, Request, coalesced};
use super::options::RspLimits;
use super::rows::Changed;
use super::wishes::Batch;
use crate::ids::{Gid, Nid, Timestamp};
use crate::mqtt::Message;
pub(super) use rows::GatheredRow;

#[derive(Debug)]
pub(super) struct Gathering {
    pending: HashMap<Gid, Pending, RandomState>,
    calendar: BTreeSet<(Timestamp, Gid)>,
    last_batch: u64,
    messages_max: usize,
    bytes_max: usize,
    /// D1s, by group, batch and place in it.
    changed: Changed<(Gid, u64, u32)>,
    /// Batches that have gone.
    gone: Vec<u64>,
}

/// D1s that wait.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) batch: Batch,
    pub(super) waiting: Vec<Waiting>,
    /// That of the next one.
    next_place: u32,
    due: Timestamp,
    bytes: usize,
}

/// A D1 that waits for others.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its device's index and its number there.
    pub(super) wish: (u32, u64),
    pub(super) request: Request,
    /// As it came, to be sent so if nothing else comes or fits beside it.
    pub(super) message: Arc<Message>,
    /// Where it stands in its batch, whatever goes before.
    place: u32,
}

impl Gathering {
    pub(super) fn new(limits: &RspLimits) -> Self {
        Self {
            pending: HashMap::default(),
            calendar: BTreeSet::new(),
            last_batch: 0,
            messages_max: limits.gathered_max,
            bytes_max: limits.gathered_bytes_max,
            changed: Changed::default(),
            gone: Vec::new(),
        }
    }

    /// Whether another D1 may wait. It may not when so many wait already that they should have
    /// gone, and could not.
    pub(super) fn has_room(&self, gid: Gid) -> bool {
        self.pending.get(&gid).is_none_or(|pending| !self.is_full(pending))
    }

    /// The next moment at which something goes.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.calendar.first().map(|(due, _)| *due)
    }

    /// A D1 waits until `due`, or as long as the first of its batch does. Gives the batch.
    pub(super) fn push(
        &mut self,
        gid: Gid,
        (wish, nid, tid): ((u32, u64), Nid, Option<Tid>),
        message: &Arc<Message>,
        due: Timestamp,
        now: Timestamp,
    ) -> Batch {
        let body = RawBody::of(&message.payload).unwrap_or(RawBody::Json("null".into()));
        let request = Request { nid, tid, body };
        if !self.pending.contains_key(&gid) {
            let batch = self.next_batch(gid);
            self.begin(batch, due);
        }
        let Some(pending) = self.pending.get_mut(&gid) else { return Batch { gid, id: 0 } };
        let place = pending.add(wish, request, message);
        let batch = pending.batch;
        self.changed.note((gid, batch.id, place));
        if self.pending.get(&gid).is_some_and(|pending| self.is_full(pending)) {
            self.hurry(gid, now);
        }
        batch
    }

    fn begin(&mut self, batch: Batch, due: Timestamp) {
        let pending = Pending { batch, waiting: Vec::new(), next_place: 0, due, bytes: 0 };
        self.pending.insert(batch.gid, pending);
        self.calendar.insert((due, batch.gid));
    }

    /// A batch of its own for some of those that wait, who go before the others.
    pub(super) fn next_batch(&mut self, gid: Gid) -> Batch {
        self.last_batch += 1;
        Batch { gid, id: self.last_batch }
    }

    /// Takes a batch that is due.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<Pending> {
        let (due, gid) = self.calendar.first().copied().filter(|(due, _)| *due <= now)?;
        self.calendar.remove(&(due, gid));
        let pending = self.pending.remove(&gid)?;
        if self.changed.on {
            self.gone.push(pending.batch.id);
            pending.waiting.iter().for_each(|one| self.changed.bury(&one.message));
        }
        Some(pending)
    }

    /// The servers have no room for a batch: it waits until `due`.
    pub(super) fn put_back(&mut self, pending: Pending, due: Timestamp) {
        let gid = pending.batch.gid;
        self.gone.retain(|gone| *gone != pending.batch.id);
        self.note_due(&pending);
        self.calendar.insert((due, gid));
        self.pending.insert(gid, Pending { due, ..pending });
    }

    /// Some of a batch have gone before the others.
    pub(super) fn went(&mut self, batch: Batch, gone: &Waiting) {
        self.changed.note((batch.gid, batch.id, gone.place));
    }

    /// The first row of a batch says when it is due.
    fn note_due(&mut self, pending: &Pending) {
        let Batch { gid, id } = pending.batch;
        let first = pending.waiting.first().map(|one| (gid, id, one.place));
        first.into_iter().for_each(|first| self.changed.note(first));
    }

    fn is_full(&self, pending: &Pending) -> bool {
        pending.waiting.len() >= self.messages_max || pending.bytes >= self.bytes_max
    }

    fn hurry(&mut self, gid: Gid, now: Timestamp) {
        let Some(pending) = self.pending.get_mut(&gid) else { return };
        self.calendar.remove(&(pending.due, gid));
        pending.due = pending.due.min(now);
        self.calendar.insert((pending.due, gid));
        let first = pending.waiting.first().map(|one| (gid, pending.batch.id, one.place));
        first.into_iter().for_each(|first| self.changed.note(first));
    }
}

impl Pending {
    /// Gives its place.
    fn add(&mut self, wish: (u32, u64), request: Request, message: &Arc<Message>) -> u32 {
        let (place, message) = (self.next_place, Arc::clone(message));
        self.next_place += 1;
        self.bytes += message.kept_bytes();
        self.waiting.push(Waiting { wish, request, message, place });
        place
    }

    /// An envelope with as many of the first `count` as fit into it, and how many those are.
    pub(super) fn first_as_one(
        &self,
        batch: Batch,
        count: usize,
        bytes_max: usize,
    ) -> (Bytes, usize) {
        let requests = self.waiting.iter().take(count).map(|one| &one.request);
        coalesced(batch.gid, &batch.name(), requests, bytes_max)
    }

    /// Takes out the first so many, which have gone.
    pub(super) fn take_first(&mut self, count: usize) -> Vec<Waiting> {
        let gone: Vec<Waiting> = self.waiting.drain(..count).collect();
        self.bytes -= gone.iter().map(|one| one.message.kept_bytes()).sum::<usize>();
        gone
    }
}
