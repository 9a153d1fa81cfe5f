//! Gathering: D1s of one group that wait for a moment, to reach the servers as one message.

mod rows;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::gathered::{RawBody, Request};
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
    pub(super) requests: Vec<Request>,
    /// What came first, to be sent as it is if nothing else comes.
    pub(super) first: Arc<Message>,
    /// All as they came, where that is written down.
    kept: Vec<Arc<Message>>,
    due: Timestamp,
    bytes: usize,
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
        (nid, tid): (Nid, Option<super::envelope::Tid>),
        message: &Arc<Message>,
        due: Timestamp,
        now: Timestamp,
    ) -> Batch {
        let body = RawBody::of(&message.payload).unwrap_or(RawBody::Json("null".into()));
        let request = Request { nid, tid, body };
        if !self.pending.contains_key(&gid) {
            self.last_batch += 1;
            let batch = Batch { gid, id: self.last_batch };
            self.begin(batch, message, due);
        }
        let keeps = self.changed.on;
        let Some(pending) = self.pending.get_mut(&gid) else { return Batch { gid, id: 0 } };
        let (batch, place) = (pending.batch, pending.add(request, message, keeps));
        self.changed.note((gid, batch.id, place));
        if self.pending.get(&gid).is_some_and(|pending| self.is_full(pending)) {
            self.hurry(gid, now);
        }
        batch
    }

    fn begin(&mut self, batch: Batch, first: &Arc<Message>, due: Timestamp) {
        let (gid, first) = (batch.gid, Arc::clone(first));
        let (requests, kept) = (Vec::new(), Vec::new());
        self.pending.insert(gid, Pending { batch, requests, first, kept, due, bytes: 0 });
        self.calendar.insert((due, gid));
    }

    /// Takes a batch that is due.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<Pending> {
        let (due, gid) = self.calendar.first().copied().filter(|(due, _)| *due <= now)?;
        self.calendar.remove(&(due, gid));
        let pending = self.pending.remove(&gid)?;
        if self.changed.on {
            self.gone.push(pending.batch.id);
            pending.kept.iter().for_each(|message| self.changed.bury(message));
        }
        Some(pending)
    }

    /// The servers have no room for a batch: it waits until `due`.
    pub(super) fn put_back(&mut self, pending: Pending, due: Timestamp) {
        let gid = pending.batch.gid;
        self.gone.retain(|gone| *gone != pending.batch.id);
        // Its first row says when it is due.
        self.changed.note((gid, pending.batch.id, 0));
        self.calendar.insert((due, gid));
        self.pending.insert(gid, Pending { due, ..pending });
    }

    fn is_full(&self, pending: &Pending) -> bool {
        pending.requests.len() >= self.messages_max || pending.bytes >= self.bytes_max
    }

    fn hurry(&mut self, gid: Gid, now: Timestamp) {
        let Some(pending) = self.pending.get_mut(&gid) else { return };
        self.calendar.remove(&(pending.due, gid));
        pending.due = pending.due.min(now);
        self.changed.note((gid, pending.batch.id, 0));
        self.calendar.insert((pending.due, gid));
    }
}

impl Pending {
    /// Gives its place.
    fn add(&mut self, request: Request, message: &Arc<Message>, keeps: bool) -> u32 {
        self.requests.push(request);
        self.kept.extend(keeps.then(|| Arc::clone(message)));
        self.bytes += message.kept_bytes();
        u32::try_from(self.requests.len() - 1).unwrap_or(u32::MAX)
    }
}
