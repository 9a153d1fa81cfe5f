//! Wishes: D1s, by which devices ask to be provisioned, and that wait for a D2.
//!
//! A D1 permits an A1 until its time is over, whether a D2 has answered it or not.

use std::collections::{BTreeSet, HashMap, VecDeque};

use foldhash::quality::RandomState;

use super::envelope::Tid;
use super::exchange::due;
use super::refusal::Refusal;
use crate::ids::{Gid, Timestamp};

/// D1s that reached the servers as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) gid: Gid,
    pub(super) id: u64,
}

#[derive(Debug)]
struct Wish {
    id: u64,
    /// In the name of this group, if it was in group form.
    gid: Option<Gid>,
    batch: Option<Batch>,
    /// Boxed: most D1s have none.
    tid: Option<Box<Tid>>,
    expires: Timestamp,
    answered: bool,
}

/// The D1s that a D2 answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wished {
    One { index: u32, id: u64 },
    Batch(Batch),
}

#[derive(Debug)]
pub(super) struct Wishes {
    by_device: HashMap<u32, VecDeque<Wish>, RandomState>,
    /// Of those in a group's name, or gathered with others of the group.
    by_group: HashMap<Gid, BTreeSet<(u64, u32)>, RandomState>,
    expiries: BTreeSet<(Timestamp, (u64, u32))>,
    last_id: u64,
    per_device_max: usize,
}

impl Wishes {
    pub(super) fn new(per_device_max: usize) -> Self {
        Self {
            by_device: HashMap::default(),
            by_group: HashMap::default(),
            expiries: BTreeSet::new(),
            last_id: 0,
            per_device_max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.expiries.len()
    }

    /// A device asks. One that asks too often loses its own oldest D1.
    pub(super) fn open(
        &mut self,
        index: u32,
        gid: Option<Gid>,
        batch: Option<Batch>,
        tid: Option<Tid>,
        expires: Timestamp,
    ) {
        self.last_id += 1;
        let id = self.last_id;
        let tid = tid.map(Box::new);
        let wish = Wish { id, gid, batch, tid, expires, answered: false };
        for gid in wish.groups() {
            self.by_group.entry(gid).or_default().insert((id, index));
        }
        self.expiries.insert((expires, (id, index)));
        let wishes = self.by_device.entry(index).or_default();
        wishes.push_back(wish);
        if wishes.len() > self.per_device_max {
            let at = wishes.iter().position(|wish| wish.answered).unwrap_or(0);
            let oldest = wishes[at].id;
            self.forget(index, oldest);
        }
    }

    /// The D1 that a D2 to this device answers: one in its own name, or one that was gathered.
    ///
    /// # Errors
    /// What the D2 is instead: a second one, a late one, or one that nobody asked for.
    pub(super) fn find_alone(
        &self,
        index: u32,
        tid: Option<&Tid>,
        now: Timestamp,
    ) -> Result<Wished, Refusal> {
        let wishes = self.by_device.get(&index).into_iter().flatten();
        let mine = wishes.filter(|wish| wish.gid.is_none() || wish.batch.is_some());
        let open = mine.clone().filter(|wish| wish.is_open(now));
        let best = best(open, tid).ok_or_else(|| why_not(mine, now))?;
        Ok(Wished::One { index, id: best.id })
    }

    /// The D1s that a D2 to this group answers: those that were gathered, all at once, or one.
    ///
    /// # Errors
    /// As [`Self::find_alone`].
    pub(super) fn find_in_group(
        &self,
        gid: Gid,
        tid: Option<&Tid>,
        now: Timestamp,
    ) -> Result<Wished, Refusal> {
        let of_group = self.by_group.get(&gid).into_iter().flatten();
        let all = of_group.filter_map(|(id, index)| Some((*index, self.wish(*index, *id)?)));
        let mut open = all.clone().filter(|(_, wish)| wish.is_open(now));
        let is_named = |wish: &Wish| match (tid, wish.batch) {
            (Some(tid), Some(batch)) => *tid == batch.tid(),
            (Some(_), None) => wish.tid.as_deref() == tid,
            (None, _) => false,
        };
        let oldest = open.clone().next().ok_or_else(|| why_not(all.map(|(_, wish)| wish), now))?;
        let (index, wish) = open.find(|(_, wish)| is_named(wish)).unwrap_or(oldest);
        Ok(wish.batch.map_or(Wished::One { index, id: wish.id }, Wished::Batch))
    }

    /// Whether a D1 of the device is in its time, in whosever name, answered or not.
    pub(super) fn has_wished(&self, index: u32, now: Timestamp) -> bool {
        self.by_device.get(&index).into_iter().flatten().any(|wish| wish.expires > now)
    }

    /// Whether a D1 in the group's name, or gathered with it, is in its time.
    pub(super) fn is_wished(&self, gid: Gid, now: Timestamp) -> bool {
        let of_group = self.by_group.get(&gid).into_iter().flatten();
        of_group.filter_map(|(id, index)| self.wish(*index, *id)).any(|wish| wish.expires > now)
    }

    /// The D2 came.
    pub(super) fn answer(&mut self, wished: Wished) {
        match wished {
            Wished::One { index, id } => {
                if let Some(wish) = self.wish_mut(index, id) {
                    wish.answered = true;
                }
            }
            Wished::Batch(batch) => {
                let of_group: Vec<_> =
                    self.by_group.get(&batch.gid).into_iter().flatten().copied().collect();
                for (id, index) in of_group {
                    let wish = self.wish_mut(index, id).filter(|w| w.batch == Some(batch));
                    wish.into_iter().for_each(|wish| wish.answered = true);
                }
            }
        }
    }

    /// The device is no member any more: its D1s in the group's name are void. One in its own name
    /// stands, but is not answered with others of the group.
    pub(super) fn leave(&mut self, index: u32, gid: Gid) {
        let wishes = self.by_device.get(&index).into_iter().flatten();
        let of_group = wishes.filter(|wish| wish.groups().any(|other| other == gid));
        let of_group: Vec<(u64, bool)> = of_group.map(|w| (w.id, w.gid.is_some())).collect();
        for (id, is_void) in of_group {
            if is_void {
                self.forget(index, id);
            } else {
                self.forget_in_group(gid, id, index);
                self.wish_mut(index, id).into_iter().for_each(|wish| wish.batch = None);
            }
        }
    }

    /// The device is gone, and its D1s with it.
    pub(super) fn remove(&mut self, index: u32) {
        let wishes = self.by_device.get(&index).into_iter().flatten();
        let all: Vec<u64> = wishes.map(|wish| wish.id).collect();
        all.into_iter().for_each(|id| self.forget(index, id));
    }

    /// Forgets D1s whose time is over, at most `budget` of them; returns how many had no D2.
    pub(super) fn sweep(&mut self, now: Timestamp, budget: &mut usize) -> u64 {
        let mut unanswered = 0;
        while let Some((_, (id, index))) = due(&self.expiries, now, budget) {
            unanswered += u64::from(self.wish(index, id).is_some_and(|wish| !wish.answered));
            self.forget(index, id);
        }
        unanswered
    }

    fn wish(&self, index: u32, id: u64) -> Option<&Wish> {
        let wishes = self.by_device.get(&index)?;
        wishes.get(wishes.binary_search_by_key(&id, |wish| wish.id).ok()?)
    }

    fn wish_mut(&mut self, index: u32, id: u64) -> Option<&mut Wish> {
        let wishes = self.by_device.get_mut(&index)?;
        let at = wishes.binary_search_by_key(&id, |wish| wish.id).ok()?;
        wishes.get_mut(at)
    }

    fn forget(&mut self, index: u32, id: u64) {
        let Some(wishes) = self.by_device.get_mut(&index) else { return };
        let Ok(at) = wishes.binary_search_by_key(&id, |wish| wish.id) else { return };
        let Some(wish) = wishes.remove(at) else { return };
        if wishes.is_empty() {
            self.by_device.remove(&index);
        }
        self.expiries.remove(&(wish.expires, (id, index)));
        wish.groups().for_each(|gid| self.forget_in_group(gid, id, index));
    }

    fn forget_in_group(&mut self, gid: Gid, id: u64, index: u32) {
        let Some(of_group) = self.by_group.get_mut(&gid) else { return };
        of_group.remove(&(id, index));
        if of_group.is_empty() {
            self.by_group.remove(&gid);
        }
    }
}

impl Batch {
    /// The transaction id under which the servers see the gathered D1s.
    pub(super) fn tid(&self) -> Tid {
        Tid::Text(format!("coalesced-{}", self.id).into())
    }
}

impl Wish {
    fn is_open(&self, now: Timestamp) -> bool {
        !self.answered && self.expires > now
    }

    /// The groups it concerns; both are the same where both are there.
    fn groups(&self) -> impl Iterator<Item = Gid> + use<> {
        self.gid.or(self.batch.map(|batch| batch.gid)).into_iter()
    }
}

/// Why a D2 answers none of these, of which none is open.
fn why_not<'a>(mut wishes: impl Iterator<Item = &'a Wish> + Clone, now: Timestamp) -> Refusal {
    if wishes.clone().any(|wish| wish.expires > now) {
        Refusal::DuplicateAnswer
    } else if wishes.any(|wish| !wish.answered) {
        Refusal::LateAnswer
    } else {
        Refusal::UnsolicitedAnswer
    }
}

/// The one with the answer's tid, else the oldest.
fn best<'a>(
    mut wishes: impl Iterator<Item = &'a Wish> + Clone,
    tid: Option<&Tid>,
) -> Option<&'a Wish> {
    let oldest = wishes.clone().next()?;
    let same = tid.and_then(|tid| wishes.find(|wish| wish.tid.as_deref() == Some(tid)));
    Some(same.unwrap_or(oldest))
}
