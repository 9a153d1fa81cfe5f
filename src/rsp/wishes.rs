//! Wishes: D1s, by which devices ask to be provisioned, and that wait for a D2.
//!
//! A D1 permits an A1 until its time is over, whether a D2 has answered it or not.

mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use smallvec::SmallVec;

use super::envelope::Tid;
use super::exchange::due;
use super::refusal::Refusal;
use super::rows::Changed;
use crate::ids::{Gid, Timestamp};
pub(super) use rows::WishRow;

/// D1s that reached the servers as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) gid: Gid,
    pub(super) id: u64,
}

#[derive(Debug)]
struct Wish {
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
    /// By device index and number.
    all: BTreeMap<(u32, u64), Wish>,
    /// Of those in a group's name, or gathered with others of the group.
    by_group: HashMap<Gid, OfGroup, RandomState>,
    expiries: BTreeSet<(Timestamp, (u64, u32))>,
    last_id: u64,
    per_device_max: usize,
    hasher: RandomState,
    /// By number and device.
    changed: Changed<(u64, u32)>,
}

/// The D1s that concern a group. There may be one of each member: none of them is looked at that
/// is not asked for.
#[derive(Debug, Default)]
struct OfGroup {
    /// By when they expire.
    open: BTreeSet<Place>,
    answered: BTreeSet<Place>,
    /// Open ones that went to the servers alone and have a tid, by its hash.
    named: BTreeSet<(u64, Place)>,
    /// Open ones that were gathered, by their batch.
    batched: BTreeSet<(u64, Place)>,
}

/// When a D1 expires, its number, and its device.
type Place = (Timestamp, u64, u32);

/// Behind everything that expires now or has expired.
fn after(now: Timestamp) -> Place {
    (Timestamp(now.0.saturating_add(1)), 0, 0)
}

/// Behind everything.
const END: Place = (Timestamp::NEVER, u64::MAX, u32::MAX);

impl Wishes {
    pub(super) fn new(per_device_max: usize) -> Self {
        Self {
            all: BTreeMap::new(),
            by_group: HashMap::default(),
            expiries: BTreeSet::new(),
            last_id: 0,
            per_device_max,
            hasher: RandomState::default(),
            changed: Changed::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The number that the next D1 gets.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id + 1
    }

    /// A D1 that was gathered reached the servers with some others of its batch, and not with all.
    pub(super) fn part(&mut self, (index, id): (u32, u64), from: Batch, to: Batch) {
        let wish = self.all.get_mut(&(index, id));
        let Some(wish) = wish.filter(|wish| wish.batch == Some(from)) else { return };
        wish.batch = Some(to);
        self.changed.note((id, index));
        let group = self.by_group.get_mut(&to.gid).filter(|_| !wish.answered);
        if let Some(group) = group {
            let place = (wish.expires, id, index);
            group.close(Key::Batch(from.id), place);
            group.open(Key::Batch(to.id), place);
        }
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
        let wish = Wish { gid, batch, tid: tid.map(Box::new), expires, answered: false };
        self.put(index, id, wish);
        self.changed.note((id, index));
        if self.of_device(index).count() > self.per_device_max {
            let answered = self.of_device(index).find(|(_, wish)| wish.answered);
            let oldest = answered.or_else(|| self.of_device(index).next());
            oldest.map(|(id, _)| id).into_iter().for_each(|id| self.forget(index, id));
        }
    }

    fn put(&mut self, index: u32, id: u64, wish: Wish) {
        let expires = wish.expires;
        if let Some(gid) = wish.group() {
            let key = wish.key(&self.hasher);
            self.by_group.entry(gid).or_default().open(key, (expires, id, index));
        }
        self.expiries.insert((expires, (id, index)));
        self.all.insert((index, id), wish);
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
        let wishes = self.of_device(index);
        let mut mine = wishes.filter(|(_, wish)| wish.gid.is_none() || wish.batch.is_some());
        let mut open = mine.clone().filter(|(_, wish)| wish.is_open(now));
        if let Some((oldest, _)) = open.clone().next() {
            let same = open.find(|(_, wish)| tid.is_some() && wish.tid.as_deref() == tid);
            return Ok(Wished::One { index, id: same.map_or(oldest, |(id, _)| id) });
        }
        Err(if mine.clone().any(|(_, wish)| wish.expires > now) {
            Refusal::DuplicateAnswer
        } else if mine.any(|(_, wish)| !wish.answered) {
            Refusal::LateAnswer
        } else {
            Refusal::UnsolicitedAnswer
        })
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
        let group = self.by_group.get(&gid).ok_or(Refusal::UnsolicitedAnswer)?;
        let oldest = group.open.range(after(now)..).next().ok_or_else(|| group.why_not(now))?;
        let batch = tid.and_then(|tid| Batch::named(gid, tid)).filter(|b| group.has(*b, now));
        if let Some(batch) = batch {
            return Ok(Wished::Batch(batch));
        }
        let (_, id, index) = *tid.and_then(|tid| self.named(group, tid, now)).unwrap_or(oldest);
        let batch = self.all.get(&(index, id)).and_then(|wish| wish.batch);
        Ok(batch.map_or(Wished::One { index, id }, Wished::Batch))
    }

    /// The first of those that expire which has this tid.
    fn named<'a>(&self, group: &'a OfGroup, tid: &Tid, now: Timestamp) -> Option<&'a Place> {
        let hash = self.hasher.hash_one(tid);
        let places = group.named.range((hash, after(now))..=(hash, END)).map(|(_, place)| place);
        let has_tid = |(_, id, index): &&Place| {
            let wish = self.all.get(&(*index, *id));
            wish.is_some_and(|wish| wish.tid.as_deref() == Some(tid))
        };
        places.into_iter().find(has_tid)
    }

    /// Whether a D1 of the device is in its time, in whosever name, answered or not.
    pub(super) fn has_wished(&self, index: u32, now: Timestamp) -> bool {
        self.of_device(index).any(|(_, wish)| wish.expires > now)
    }

    /// Whether a D1 in the group's name, or gathered with it, is in its time.
    pub(super) fn is_wished(&self, gid: Gid, now: Timestamp) -> bool {
        self.by_group.get(&gid).is_some_and(|group| group.is_wished(now))
    }

    /// The D2 came.
    pub(super) fn answer(&mut self, wished: Wished) {
        match wished {
            Wished::One { index, id } => self.answer_one(index, id),
            Wished::Batch(Batch { gid, id: batch }) => {
                let Some(group) = self.by_group.get(&gid) else { return };
                let places = group.batched.range((batch, (Timestamp(0), 0, 0))..=(batch, END));
                let places: Vec<Place> = places.map(|(_, place)| *place).collect();
                places.into_iter().for_each(|(_, id, index)| self.answer_one(index, id));
            }
        }
    }

    fn answer_one(&mut self, index: u32, id: u64) {
        let Some(wish) = self.all.get_mut(&(index, id)).filter(|wish| !wish.answered) else {
            return;
        };
        wish.answered = true;
        self.changed.note((id, index));
        let group = wish.group().and_then(|gid| self.by_group.get_mut(&gid));
        if let Some(group) = group {
            let place = (wish.expires, id, index);
            group.close(wish.key(&self.hasher), place);
            group.answered.insert(place);
        }
    }

    /// The device is no member any more: its D1s in the group's name are void. One in its own name
    /// stands, but is not answered with others of the group.
    pub(super) fn leave(&mut self, index: u32, gid: Gid) {
        let of_group = self.of_device(index).filter(|(_, wish)| wish.group() == Some(gid));
        let of_group: SmallVec<[(u64, bool); 4]> =
            of_group.map(|(id, wish)| (id, wish.gid.is_some())).collect();
        for (id, is_void) in of_group {
            if is_void {
                self.forget(index, id);
            } else if let Some(wish) = self.all.get_mut(&(index, id)) {
                forget_in_group(&mut self.by_group, &self.hasher, wish, (wish.expires, id, index));
                wish.batch = None;
                self.changed.note((id, index));
            }
        }
    }

    /// The device is gone, and its D1s with it.
    pub(super) fn remove(&mut self, index: u32) {
        let all: Vec<u64> = self.of_device(index).map(|(id, _)| id).collect();
        all.into_iter().for_each(|id| self.forget(index, id));
    }

    /// Forgets D1s whose time is over, at most `budget` of them; returns how many had no D2.
    pub(super) fn sweep(&mut self, now: Timestamp, budget: &mut usize) -> u64 {
        let mut unanswered = 0;
        while let Some((_, (id, index))) = due(&self.expiries, now, budget) {
            let wish = self.all.get(&(index, id));
            unanswered += u64::from(wish.is_some_and(|wish| !wish.answered));
            self.forget(index, id);
        }
        unanswered
    }

    /// The D1s of a device, oldest first, with their numbers.
    fn of_device(&self, index: u32) -> impl Iterator<Item = (u64, &Wish)> + Clone {
        self.all.range((index, 0)..=(index, u64::MAX)).map(|((_, id), wish)| (*id, wish))
    }

    fn forget(&mut self, index: u32, id: u64) {
        let Some(wish) = self.all.remove(&(index, id)) else { return };
        self.changed.note((id, index));
        self.expiries.remove(&(wish.expires, (id, index)));
        forget_in_group(&mut self.by_group, &self.hasher, &wish, (wish.expires, id, index));
    }
}

fn forget_in_group(
    by_group: &mut HashMap<Gid, OfGroup, RandomState>,
    hasher: &RandomState,
    wish: &Wish,
    place: Place,
) {
    let Some(gid) = wish.group() else { return };
    let Some(group) = by_group.get_mut(&gid) else { return };
    group.close(wish.key(hasher), place);
    group.answered.remove(&place);
    if group.open.is_empty() && group.answered.is_empty() {
        by_group.remove(&gid);
    }
}

/// By what a D2 to a group may name an open D1.
#[derive(Clone, Copy)]
enum Key {
    Nothing,
    /// The hash of its tid.
    Tid(u64),
    Batch(u64),
}

impl OfGroup {
    fn open(&mut self, key: Key, place: Place) {
        self.open.insert(place);
        match key {
            Key::Nothing => {}
            Key::Tid(hash) => {
                self.named.insert((hash, place));
            }
            Key::Batch(batch) => {
                self.batched.insert((batch, place));
            }
        }
    }

    /// It is not open any more, if it was.
    fn close(&mut self, key: Key, place: Place) {
        self.open.remove(&place);
        match key {
            Key::Nothing => {}
            Key::Tid(hash) => {
                self.named.remove(&(hash, place));
            }
            Key::Batch(batch) => {
                self.batched.remove(&(batch, place));
            }
        }
    }

    /// Whether a batch has a D1 that is open.
    fn has(&self, batch: Batch, now: Timestamp) -> bool {
        self.batched.range((batch.id, after(now))..=(batch.id, END)).next().is_some()
    }

    fn is_wished(&self, now: Timestamp) -> bool {
        let is_in_time = |places: &BTreeSet<Place>| places.range(after(now)..).next().is_some();
        is_in_time(&self.open) || is_in_time(&self.answered)
    }

    /// Why a D2 answers none of these, of which none is open.
    fn why_not(&self, now: Timestamp) -> Refusal {
        if self.is_wished(now) {
            Refusal::DuplicateAnswer
        } else if self.open.is_empty() {
            Refusal::UnsolicitedAnswer
        } else {
            Refusal::LateAnswer
        }
    }
}

impl Batch {
    /// The transaction id under which the servers see the gathered D1s.
    pub(super) fn tid(&self) -> Tid {
        Tid::Text(self.name().into())
    }

    pub(super) fn name(&self) -> String {
        format!("{BATCH_NAME}{}", self.id)
    }

    /// The batch that the servers see under this transaction id, if it is one's.
    fn named(gid: Gid, tid: &Tid) -> Option<Self> {
        let Tid::Text(text) = tid else { return None };
        let batch = Self { gid, id: text.strip_prefix(BATCH_NAME)?.parse().ok()? };
        (batch.tid() == *tid).then_some(batch)
    }
}

const BATCH_NAME: &str = "coalesced-";

impl Wish {
    fn is_open(&self, now: Timestamp) -> bool {
        !self.answered && self.expires > now
    }

    /// The group it concerns; both are the same where both are there.
    fn group(&self) -> Option<Gid> {
        self.gid.or(self.batch.map(|batch| batch.gid))
    }

    fn key(&self, hasher: &RandomState) -> Key {
        match (self.batch, &self.tid) {
            (Some(batch), _) => Key::Batch(batch.id),
            (None, Some(tid)) => Key::Tid(hasher.hash_one(tid)),
            (None, None) => Key::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A D1 in a list: too simple to be wrong.
    #[derive(Clone, Debug)]
    struct Listed {
        index: u32,
        id: u64,
        gid: Option<Gid>,
        batch: Option<Batch>,
        tid: Option<Tid>,
        expires: Timestamp,
        answered: bool,
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        /// Device, group, batch, tid, seconds.
        Open(u32, Option<u64>, Option<u64>, Option<i128>, u64),
        AnswerAlone(u32, Option<i128>),
        AnswerGroup(u64, Option<i128>, Option<u64>),
        Leave(u32, u64),
        Remove(u32),
        Wait(u64),
        Sweep,
    }

    const PER_DEVICE_MAX: usize = 4;

    fn gid(number: u64) -> Gid {
        Gid::new(number).unwrap()
    }

    fn op() -> impl Strategy<Value = Op> {
        use proptest::option::of;
        let (device, group) = (0..3_u32, 1..3_u64);
        let tid = || of(0..3_i128);
        prop_oneof![
            6 => (device.clone(), of(group.clone()), of(1..3_u64), tid(), 1..20_u64)
                .prop_map(|(d, g, b, t, s)| Op::Open(d, g, b, t, s)),
            3 => (device.clone(), tid()).prop_map(|(d, t)| Op::AnswerAlone(d, t)),
            4 => (group.clone(), tid(), of(1..3_u64))
                .prop_map(|(g, t, b)| Op::AnswerGroup(g, t, b)),
            1 => (device.clone(), group).prop_map(|(d, g)| Op::Leave(d, g)),
            1 => device.prop_map(Op::Remove),
            2 => (0..8_u64).prop_map(Op::Wait),
            1 => Just(Op::Sweep),
        ]
    }

    #[derive(Default)]
    struct List {
        all: Vec<Listed>,
        now: Timestamp,
        last_id: u64,
    }

    impl Listed {
        fn group(&self) -> Option<Gid> {
            self.gid.or(self.batch.map(|batch| batch.gid))
        }

        fn wished(&self) -> Wished {
            Wished::One { index: self.index, id: self.id }
        }
    }

    impl List {
        fn open(&mut self, listed: Listed) {
            self.last_id += 1;
            let index = listed.index;
            self.all.push(Listed { id: self.last_id, ..listed });
            let mine = self.all.iter().filter(|l| l.index == index);
            if mine.clone().count() > PER_DEVICE_MAX {
                let id = mine.clone().find(|l| l.answered).or(mine.clone().next()).unwrap().id;
                self.all.retain(|l| l.id != id);
            }
        }

        /// Those that may be meant, in the order in which they are; and their answer.
        fn find(
            &self,
            of: impl Fn(&Listed) -> bool,
            is_named: impl Fn(&Listed) -> bool,
        ) -> Result<Listed, Refusal> {
            let all: Vec<&Listed> = self.all.iter().filter(|l| of(l)).collect();
            let open = all.iter().filter(|l| !l.answered && l.expires > self.now);
            if let Some(first) = open.clone().next() {
                return Ok((**open.clone().find(|l| is_named(l)).unwrap_or(first)).clone());
            }
            Err(if all.iter().any(|l| l.expires > self.now) {
                Refusal::DuplicateAnswer
            } else if all.iter().any(|l| !l.answered) {
                Refusal::LateAnswer
            } else {
                Refusal::UnsolicitedAnswer
            })
        }

        fn answer(&mut self, wished: Wished) {
            for listed in &mut self.all {
                let is_meant = match wished {
                    Wished::One { id, .. } => listed.id == id,
                    Wished::Batch(batch) => listed.batch == Some(batch),
                };
                listed.answered |= is_meant;
            }
        }
    }

    fn apply(op: Op, wishes: &mut Wishes, list: &mut List) {
        let now = list.now;
        match op {
            Op::Open(index, group, batch, tid, secs) => {
                let gid = group.map(gid);
                let batch_gid = gid.unwrap_or(super::tests::gid(1));
                let batch = batch.map(|id| Batch { gid: batch_gid, id });
                let (tid, expires) = (tid.map(Tid::Number), Timestamp(now.0 + secs));
                wishes.open(index, gid, batch, tid.clone(), expires);
                let (id, answered) = (0, false);
                list.open(Listed { index, id, gid, batch, tid, expires, answered });
            }
            Op::AnswerAlone(index, tid) => {
                let tid = tid.map(Tid::Number);
                let found = wishes.find_alone(index, tid.as_ref(), now);
                let expected = list.find(
                    |l| l.index == index && (l.gid.is_none() || l.batch.is_some()),
                    |l| tid.is_some() && l.tid == tid,
                );
                assert_eq!(found, expected.map(|l| l.wished()));
                found.into_iter().for_each(|found| {
                    wishes.answer(found);
                    list.answer(found);
                });
            }
            Op::AnswerGroup(group, tid, batch) => {
                answer_group(gid(group), tid, batch, wishes, list);
            }
            Op::Leave(index, group) => {
                wishes.leave(index, gid(group));
                list.all.retain(|l| l.index != index || l.gid != Some(gid(group)));
                let mine = list.all.iter_mut().filter(|l| l.index == index);
                let gathered = mine.filter(|l| l.group() == Some(gid(group)));
                gathered.for_each(|l| l.batch = None);
            }
            Op::Remove(index) => {
                wishes.remove(index);
                list.all.retain(|l| l.index != index);
            }
            Op::Wait(secs) => list.now = Timestamp(now.0 + secs),
            Op::Sweep => {
                let unanswered = wishes.sweep(now, &mut usize::MAX.clone());
                let is_due = |l: &&Listed| l.expires <= now && !l.answered;
                assert_eq!(unanswered, list.all.iter().filter(is_due).count() as u64);
                list.all.retain(|l| l.expires > now);
            }
        }
    }

    fn answer_group(
        group: Gid,
        tid: Option<i128>,
        batch: Option<u64>,
        wishes: &mut Wishes,
        list: &mut List,
    ) {
        let batch = batch.map(|id| Batch { gid: group, id });
        let tid = batch.map(|batch| batch.tid()).or(tid.map(Tid::Number));
        let found = wishes.find_in_group(group, tid.as_ref(), list.now);
        // In a group, what expires first is the oldest.
        list.all.sort_by_key(|l| (l.expires, l.id));
        let expected = list.find(
            |l| l.group() == Some(group),
            |l| match l.batch {
                Some(batch) => tid == Some(batch.tid()),
                None => tid.is_some() && l.tid == tid,
            },
        );
        list.all.sort_by_key(|l| l.id);
        let expected = expected.map(|l| l.batch.map_or(l.wished(), Wished::Batch));
        assert_eq!(found, expected);
        let is_wished = list.all.iter().any(|l| l.group() == Some(group) && l.expires > list.now);
        assert_eq!(wishes.is_wished(group, list.now), is_wished);
        found.into_iter().for_each(|found| {
            wishes.answer(found);
            list.answer(found);
        });
    }

    proptest! {
        #[test]
        fn a_d2_answers_what_a_list_says(ops in proptest::collection::vec(op(), 0..60)) {
            let (mut wishes, mut list) = (Wishes::new(PER_DEVICE_MAX), List::default());
            for op in ops {
                apply(op, &mut wishes, &mut list);
                prop_assert_eq!(wishes.len(), list.all.len());
                for index in 0..3 {
                    let has = list.all.iter().any(|l| l.index == index && l.expires > list.now);
                    prop_assert_eq!(wishes.has_wished(index, list.now), has);
                }
            }
            wishes.sweep(Timestamp::NEVER, &mut usize::MAX.clone());
            let is_empty = wishes.all.is_empty() && wishes.expiries.is_empty();
            prop_assert!(is_empty && wishes.by_group.is_empty());
        }
    }
}
