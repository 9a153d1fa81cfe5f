//! The mail of the SM-SR servers: what was published on `To_SM-SR`.
//!
//! Every subscription has a *desk*: a server of its own, or a share group whose members take from
//! one pile. A message waits on each desk that may have it until a server there has acknowledged
//! it. Which desks that are:
//!
//! * An answer (A2, B2, C2) is for the server that asked: for the desks where it sits. In a share
//!   group others may take it whose scope covers the device, while no session of that server is
//!   connected and has room.
//! * Without a desk, the server's answers wait for it in order. A server that stays away for too
//!   long (`[rsp] server_absence_max`) may have been replaced: then they go the way of all else.
//! * All else is for every desk with a server whose scope covers the device. While there is none,
//!   it waits in order, *unclaimed*, for the first that comes.
//!
//! So that a trigger or an answer that was acknowledged to a device is not lost because a server
//! is away. What loses its place, because its desk closes and no other one was given it, is placed
//! anew by the same rules, and finds room in any case.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

mod absence;
mod desk;
mod items;
#[cfg(test)]
mod tests;

use super::scope::Scope;
use crate::ids::{Gid, Nid, SessionKey, Timestamp};
use crate::mqtt::Message;
use absence::{Absences, Pile};
use desk::Desk;
use items::{Items, Room};

/// Bounds of the inbox (`[rsp] server_inbox_messages_max`, `server_inbox_bytes_max`): for each
/// desk, for what is unclaimed, and for the answers to each server that is away.
#[derive(Clone, Copy, Debug)]
pub struct InboxLimits {
    /// Messages that may wait in one place.
    pub messages_max: usize,
    /// Payload bytes that may wait in one place.
    pub bytes_max: usize,
    /// How long answers are kept for a server without a subscription
    /// (`[rsp] server_absence_max`).
    pub absence_max: Duration,
}

/// Which servers a message is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addressee {
    /// Who asked, by its identity's name; nobody for what is no answer.
    pub asker: Option<Arc<str>>,
    /// The groups by which the device belongs to a server's scope.
    pub gids: SmallVec<[Gid; 1]>,
}

/// What became of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Posted {
    /// Sessions to wake.
    pub wake: Vec<SessionKey>,
    /// Places without room, which do not have it.
    pub full: usize,
}

/// What a session was given.
#[derive(Clone, Debug, Default)]
pub struct Handout {
    /// Messages with their numbers, oldest first.
    pub messages: Vec<(u64, Arc<Message>)>,
    /// Sessions to wake: they may have what this one has no room for.
    pub wake: Vec<SessionKey>,
}

/// What time has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboxSwept {
    /// Messages, counted where each waited, whose time was over since the last sweep.
    pub expired: u64,
    /// Sessions to wake: they have answers to servers that stay away.
    pub wake: Vec<SessionKey>,
}

/// All that waits for the servers.
#[derive(Debug)]
pub struct Inbox {
    limits: InboxLimits,
    items: Items,
    desks: Vec<Desk>,
    absences: Absences,
    /// What came while nobody whose scope covers it was subscribed.
    unclaimed: Pile,
    last_desk: DeskId,
    /// Expired since the last sweep.
    expired: u64,
}

/// Names a desk; no two have the same name ever.
type DeskId = u64;

/// Where a message waits.
#[derive(Debug)]
enum Place {
    /// On these desks, by position.
    Desks(SmallVec<[usize; 4]>),
    /// With the answers for a server that is away.
    Absent(Arc<str>),
    Unclaimed,
}

impl Inbox {
    /// An empty inbox.
    #[must_use]
    pub fn new(limits: InboxLimits) -> Self {
        Self {
            limits,
            items: Items::default(),
            desks: Vec::new(),
            absences: Absences::default(),
            unclaimed: Pile::default(),
            last_desk: 0,
            expired: 0,
        }
    }

    /// Some place for this message can take this many more bytes of this sender. A message is
    /// refused only when nobody can keep it.
    #[must_use]
    pub fn has_room(
        &self,
        bytes: usize,
        sender: Option<Nid>,
        to: &Addressee,
        now: Timestamp,
    ) -> bool {
        let limits = &self.limits;
        match self.place_for(to, now) {
            Place::Desks(desks) => {
                desks.iter().any(|at| self.desks[*at].room.has(bytes, sender, limits))
            }
            Place::Absent(server) => self.absences.has_room(&server, bytes, sender, limits),
            Place::Unclaimed => self.unclaimed.room.has(bytes, sender, limits),
        }
    }

    /// Puts a message wherever it belongs and there is room.
    pub fn post(
        &mut self,
        message: &Arc<Message>,
        sender: Option<Nid>,
        to: &Addressee,
        now: Timestamp,
    ) -> Posted {
        let place = self.place_for(to, now);
        let number = self.items.add(message, sender, to);
        let mut wake = BTreeSet::new();
        let full = self.put(number, place, self.limits, now, &mut wake);
        self.items.tidy(number);
        Posted { wake: wake.into_iter().collect(), full }
    }

    /// A session of a server subscribes, alone or as a member of a share group. What waited for
    /// this server, or for anybody with such a scope, is given to its desk.
    pub fn subscribe(
        &mut self,
        key: SessionKey,
        group: Option<&str>,
        server: &Arc<str>,
        scope: &Scope,
    ) {
        if self.desks.iter().any(|desk| desk.seats(key, group)) {
            return;
        }
        let shared = |desk: &Desk| group.is_some() && desk.group.as_deref() == group;
        let at = self.desks.iter().position(shared).unwrap_or_else(|| {
            self.last_desk += 1;
            self.desks.push(Desk::new(self.last_desk, group));
            self.desks.len() - 1
        });
        let (desk, items) = (&mut self.desks[at], &mut self.items);
        desk.join(key, server, scope, items);
        let mut claimed = self.absences.end(server, items);
        claimed.extend(self.unclaimed.withdraw(usize::MAX, items, |number, items| {
            items.get(number).is_some_and(|item| desk.may_have(&item.to))
        }));
        for number in claimed {
            desk.give(number, items, &NO_LIMITS);
        }
    }

    /// The subscription ends. What the session held goes back to the other members of its group.
    /// What nobody may take there any more, and was not given to another desk, is placed anew.
    /// Gives the sessions to wake.
    pub fn unsubscribe(
        &mut self,
        key: SessionKey,
        group: Option<&str>,
        now: Timestamp,
    ) -> Vec<SessionKey> {
        let at = self.desks.iter().position(|desk| desk.seats(key, group));
        let Some(at) = at else { return Vec::new() };
        let desk = &mut self.desks[at];
        let Some((server, orphans)) = desk.leave(key, &mut self.items) else { return Vec::new() };
        let (id, mut wake) = (desk.id, desk.keys().collect());
        if desk.is_empty() {
            self.desks.remove(at);
        }
        if !self.desks.iter().any(|desk| desk.serves(&server)) {
            self.absences.begin(&server, now);
        }
        for number in orphans {
            self.place_orphan(number, id, now, &mut wake);
        }
        wake.into_iter().collect()
    }

    /// The session ends: all its subscriptions end.
    pub fn leave(&mut self, key: SessionKey, now: Timestamp) -> Vec<SessionKey> {
        let desks = self.desks.iter().filter(|desk| desk.has(key));
        let groups: Vec<Option<String>> = desks.map(|desk| desk.group.clone()).collect();
        groups.iter().flat_map(|group| self.unsubscribe(key, group.as_deref(), now)).collect()
    }

    /// The session's client is away, and its desks stay. Gives the sessions to wake: they may have
    /// what was kept for its server.
    pub fn away(&mut self, key: SessionKey) -> Vec<SessionKey> {
        self.note_room(key, false)
    }

    /// Hands a session up to `room` messages, oldest first.
    pub fn pull(&mut self, key: SessionKey, room: usize, now: Timestamp) -> Handout {
        let mut handout = Handout::default();
        for desk in &mut self.desks {
            self.expired += desk.hand_out(key, room, now, &mut self.items, &mut handout.messages);
        }
        handout.wake = self.note_room(key, handout.messages.len() < room);
        handout
    }

    /// A server has the message.
    pub fn acknowledge(&mut self, key: SessionKey, number: u64) {
        for desk in &mut self.desks {
            desk.acknowledge(key, number, &mut self.items);
        }
    }

    /// The server's connection ended before these messages had left for it: they wait as before,
    /// for it or for others of its group, who are given to be woken.
    pub fn put_back(&mut self, key: SessionKey, numbers: &[u64]) -> Vec<SessionKey> {
        let mut wake = Vec::new();
        for desk in self.desks.iter_mut().filter(|desk| desk.has(key)) {
            for number in numbers {
                desk.put_back(key, *number, &mut self.items);
            }
            wake.extend(desk.keys());
        }
        wake
    }

    /// Whether this session still holds the message (it may have been taken back).
    #[must_use]
    pub fn holds(&self, key: SessionKey, number: u64) -> bool {
        self.desks.iter().any(|desk| desk.holds(key, number))
    }

    /// Puts away what has expired, and gives to others what servers that stay away have asked for;
    /// bounded work, of which the next sweep does the rest.
    pub fn sweep(&mut self, now: Timestamp) -> InboxSwept {
        let mut budget = SWEEP_MAX;
        while budget > 0 {
            let Some(number) = self.items.next_due(now) else { break };
            self.expire(number);
            budget -= 1;
        }
        let (longest, mut wake) = (self.limits.absence_max, BTreeSet::new());
        for number in self.absences.give_up(longest, now, budget, &mut self.items) {
            let Some(item) = self.items.get(number) else { continue };
            let place = self.place_for_all(&item.to);
            self.put(number, place, NO_LIMITS, now, &mut wake);
        }
        let wake = wake.into_iter().collect();
        InboxSwept { expired: std::mem::take(&mut self.expired), wake }
    }

    /// Messages waiting, over all places.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms().map(Room::messages).sum()
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Payload bytes waiting, over all places.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rooms().map(Room::bytes).sum()
    }

    fn rooms(&self) -> impl Iterator<Item = &Room> {
        let piles = self.absences.piles().chain([&self.unclaimed]).map(|pile| &pile.room);
        self.desks.iter().map(|desk| &desk.room).chain(piles)
    }

    fn place_for(&self, to: &Addressee, now: Timestamp) -> Place {
        let Some(asker) = &to.asker else { return self.place_for_all(to) };
        let desks = self.positions(|desk| desk.serves(asker));
        if !desks.is_empty() {
            return Place::Desks(desks);
        }
        if self.absences.keep_for(asker, self.limits.absence_max, now) {
            return Place::Absent(Arc::clone(asker));
        }
        self.place_for_all(to)
    }

    /// Where it belongs, whoever asked.
    fn place_for_all(&self, to: &Addressee) -> Place {
        let desks = self.positions(|desk| desk.may_have(to));
        if desks.is_empty() { Place::Unclaimed } else { Place::Desks(desks) }
    }

    fn positions(&self, wanted: impl Fn(&Desk) -> bool) -> SmallVec<[usize; 4]> {
        let desks = self.desks.iter().enumerate();
        desks.filter(|(_, desk)| wanted(desk)).map(|(at, _)| at).collect()
    }

    /// Puts an item where there is room. Gives how many places had none.
    fn put(
        &mut self,
        number: u64,
        place: Place,
        limits: InboxLimits,
        now: Timestamp,
        wake: &mut BTreeSet<SessionKey>,
    ) -> usize {
        let items = &mut self.items;
        match place {
            Place::Desks(desks) => {
                let mut full = 0;
                for at in desks {
                    let desk = &mut self.desks[at];
                    if !desk.give(number, items, &limits) {
                        full += 1;
                    } else if let Some(item) = items.get(number) {
                        wake.extend(desk.takers_of(&item.to));
                    }
                }
                full
            }
            Place::Absent(server) => {
                self.absences.begin(&server, now);
                let pile = self.absences.pile(&server);
                usize::from(!pile.is_some_and(|pile| pile.put(number, items, &limits)))
            }
            Place::Unclaimed => usize::from(!self.unclaimed.put(number, items, &limits)),
        }
    }

    /// Finds another place for an item that a desk had and lost.
    fn place_orphan(
        &mut self,
        number: u64,
        from: DeskId,
        now: Timestamp,
        wake: &mut BTreeSet<SessionKey>,
    ) {
        self.items.forget_desk(number, from);
        let Some(item) = self.items.get(number) else { return };
        if !self.desks.iter().any(|desk| item.desks.contains(&desk.id)) {
            let place = self.place_for(&item.to, now);
            self.put(number, place, NO_LIMITS, now, wake);
        }
        self.items.tidy(number);
    }

    fn expire(&mut self, number: u64) {
        let items = &mut self.items;
        let asker = items.get(number).and_then(|item| item.to.asker.clone());
        let kept = asker.and_then(|asker| self.absences.pile(&asker));
        let piles = kept.into_iter().chain([&mut self.unclaimed]);
        let in_piles: u64 = piles.map(|pile| u64::from(pile.expire(number, items))).sum();
        let desks = self.desks.iter_mut();
        let on_desks: u64 = desks.map(|desk| u64::from(desk.expire(number, items))).sum();
        self.expired += in_piles + on_desks;
    }

    fn note_room(&mut self, key: SessionKey, has_room: bool) -> Vec<SessionKey> {
        self.desks.iter_mut().flat_map(|desk| desk.note_room(key, has_room)).collect()
    }
}

/// For what has been taken already and must not be lost. Beyond its bounds a place has at most
/// what others were allowed.
const NO_LIMITS: InboxLimits =
    InboxLimits { messages_max: usize::MAX, bytes_max: usize::MAX, absence_max: Duration::ZERO };

/// Items that one sweep puts away or places anew.
const SWEEP_MAX: usize = 10_000;
