//! The mail of the SM-SR servers: what was published on `To_SM-SR`.
//!
//! Every subscription has a *desk*: a server of its own, or a share group whose members share what
//! there is. A message waits on each desk that may have it until a server there has acknowledged
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
//!
//! A session is given nothing that is larger than the packets it takes: it waits for another
//! server, or for a session that takes more. So what is too large for all that are there is to be
//! refused at once ([`Inbox::is_too_large`]), and no server gets a copy that it cannot be given,
//! unless there is none but those.
//!
//! Whoever fetches nothing holds up nobody else: each server has room of its own at each desk, and
//! for what is unclaimed each *fleet* has, which is all devices with the same servers in charge.
//! What is for the same servers lies in one pile, and a pile changes its place as a whole: a server
//! that comes back to 100,000 messages must not keep the others waiting while it is given them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

mod absence;
mod desk;
mod items;
mod rows;
mod shelf;
#[cfg(test)]
mod tests;

use super::mailbox::Reader;
use super::scope::ServerScopes;
use crate::ids::{Gid, Nid, SessionKey, Timestamp};
use crate::mqtt::Message;
use absence::Absences;
use desk::Desk;
use items::{DeskIds, Item, Items};
pub use rows::InboxRows;
use rows::Written;
use shelf::{Label, Pile, Shelf};

/// Bounds of the inbox (`[rsp] server_inbox_messages_max`, `server_inbox_bytes_max`): for what is
/// kept for each server at a desk, for the answers to each server that is away, and for what is
/// unclaimed of each fleet.
#[derive(Clone, Copy, Debug)]
pub struct InboxLimits {
    /// Messages that may wait for one server, or unclaimed in one fleet.
    pub messages_max: usize,
    /// Payload bytes that may wait for one server, or unclaimed in one fleet.
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
    /// Places where nobody takes packets of its size, which do not have it.
    pub too_large: usize,
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
    scopes: ServerScopes,
    items: Items,
    desks: Vec<Desk>,
    absences: Absences,
    /// What came while nobody whose scope covers it was subscribed.
    unclaimed: Shelf,
    last_desk: DeskId,
    /// Expired since the last sweep.
    expired: u64,
    /// What is written down, if anything is.
    written: Option<Box<Written>>,
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
    /// An empty inbox, for servers with these scopes.
    #[must_use]
    pub fn new(limits: InboxLimits, scopes: ServerScopes) -> Self {
        Self {
            limits,
            scopes,
            items: Items::default(),
            desks: Vec::new(),
            absences: Absences::default(),
            unclaimed: Shelf::default(),
            last_desk: 0,
            expired: 0,
            written: None,
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
        let label = Label::new(to, &self.scopes);
        let place = self.place_for(&label, now);
        self.with_room(place, &label, bytes, sender).len() > 0
    }

    /// Whether there are servers for this message, none of which takes a packet of its size.
    #[must_use]
    pub fn is_too_large(&self, message: &Message, to: &Addressee, now: Timestamp) -> bool {
        let label = Label::new(to, &self.scopes);
        match self.place_for(&label, now) {
            Place::Desks(desks) => !desks.iter().any(|at| self.desks[*at].takes(&label, message)),
            Place::Absent(_) | Place::Unclaimed => false,
        }
    }

    /// The largest PUBLISH that all sessions take that may be given what no server has asked for,
    /// in bytes.
    #[must_use]
    pub fn packet_bytes_max(&self, to: &Addressee) -> u32 {
        let label = Label::new(to, &self.scopes);
        let each = self.desks.iter().filter_map(|desk| desk.packet_bytes_max(&label));
        each.min().unwrap_or(u32::MAX)
    }

    /// Puts a message wherever it belongs and there is room.
    pub fn post(
        &mut self,
        message: &Arc<Message>,
        sender: Option<Nid>,
        to: &Addressee,
        now: Timestamp,
    ) -> Posted {
        self.post_within(message, sender, sender, to, now)
    }

    /// The same for what was promised to be heard: it counts in its sender's share of the room, but
    /// may exceed it.
    pub fn post_promised(
        &mut self,
        message: &Arc<Message>,
        sender: Option<Nid>,
        to: &Addressee,
        now: Timestamp,
    ) -> Posted {
        self.post_within(message, sender, None, to, now)
    }

    fn post_within(
        &mut self,
        message: &Arc<Message>,
        sender: Option<Nid>,
        share_of: Option<Nid>,
        to: &Addressee,
        now: Timestamp,
    ) -> Posted {
        let label = Label::new(to, &self.scopes);
        let wanted = self.place_for(&label, now);
        let places = wanted.len();
        let fitting = self.where_it_fits(wanted, &label, message);
        let (too_large, fit) = (places - fitting.len(), fitting.len());
        let place = self.with_room(fitting, &label, message.kept_bytes(), share_of);
        let full = fit - place.len();
        if place.len() == 0 {
            return Posted { wake: Vec::new(), full, too_large };
        }
        let mut wake: Vec<SessionKey> = self.takers_at(&place, &label).collect();
        wake.sort_unstable();
        wake.dedup();
        let (number, mut item) = (self.items.next_number(), Item::new(message, sender, label));
        self.note_new(number, to);
        if let Some(desks) = self.copies_for(&place) {
            item.copy_to(&desks);
        }
        self.shelves(&place, now).into_iter().for_each(|shelf| shelf.put(number, &item));
        self.items.add(number, item);
        Posted { wake, full, too_large }
    }

    /// A session of a server subscribes, alone or as a member of a share group. What waited for
    /// this server, or for anybody with such a scope, is given to its desk.
    /// `row` is that of the session, where it outlives the process.
    pub fn subscribe(
        &mut self,
        reader: impl Into<Reader>,
        group: Option<&str>,
        server: &Arc<str>,
        row: Option<u64>,
    ) {
        let reader: Reader = reader.into();
        let key = reader.key;
        if self.desks.iter().any(|desk| desk.seats(key, group)) {
            return;
        }
        let shared = |desk: &Desk| group.is_some() && desk.group.as_deref() == group;
        let at = self.desks.iter().position(shared).unwrap_or_else(|| {
            let id = self.desk_of(group, row);
            self.desks.push(Desk::new(id, group, row));
            self.desks.len() - 1
        });
        let desk = &mut self.desks[at];
        desk.join(reader, server, self.scopes.id_of(server));
        let claimed = self.unclaimed.take(|label| desk.may_have(label));
        for (label, pile) in self.absences.end(server).into_piles().chain(claimed.into_piles()) {
            desk.shelf.add(label, pile);
        }
    }

    /// The session is there again, with a client that may take larger or smaller packets.
    pub fn resize(&mut self, reader: Reader) {
        self.desks.iter_mut().for_each(|desk| desk.resize(reader));
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
            self.note_desk(id);
        }
        if !self.desks.iter().any(|desk| desk.serves(&server)) {
            self.absences.begin(&server, now);
        }
        for (label, pile) in orphans.into_piles() {
            self.place_orphans(label, pile, id, now, &mut wake);
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
        let given_up = self.absences.give_up(longest, now, budget, &self.items);
        for (label, pile) in given_up.into_piles() {
            let place = self.place_for_all(&label);
            self.move_to(&place, label, pile, now, &mut wake);
        }
        let wake = wake.into_iter().collect();
        InboxSwept { expired: std::mem::take(&mut self.expired), wake }
    }

    /// Messages waiting, over all places.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all_shelves().map(|shelf| shelf.load().messages).sum()
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Payload bytes waiting, over all places.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.all_shelves().map(|shelf| shelf.load().bytes).sum()
    }

    fn all_shelves(&self) -> impl Iterator<Item = &Shelf> {
        let desks = self.desks.iter().map(|desk| &desk.shelf);
        desks.chain(self.absences.shelves()).chain([&self.unclaimed])
    }

    fn place_for(&self, label: &Label, now: Timestamp) -> Place {
        let Some(asker) = &label.asker else { return self.place_for_all(label) };
        let desks = self.positions(|desk| desk.serves(asker));
        if !desks.is_empty() {
            return Place::Desks(desks);
        }
        if self.absences.keep_for(asker, self.limits.absence_max, now) {
            return Place::Absent(Arc::clone(asker));
        }
        self.place_for_all(label)
    }

    /// Where it belongs, whoever asked.
    fn place_for_all(&self, label: &Label) -> Place {
        let desks = self.positions(|desk| desk.may_have(label));
        if desks.is_empty() { Place::Unclaimed } else { Place::Desks(desks) }
    }

    fn positions(&self, wanted: impl Fn(&Desk) -> bool) -> SmallVec<[usize; 4]> {
        let desks = self.desks.iter().enumerate();
        desks.filter(|(_, desk)| wanted(desk)).map(|(at, _)| at).collect()
    }

    /// Of a place, what has room for this many bytes of this sender.
    fn with_room(&self, place: Place, label: &Label, bytes: usize, sender: Option<Nid>) -> Place {
        let limits = &self.limits;
        let has_room = match place {
            Place::Desks(mut desks) => {
                desks.retain(|at| self.desks[*at].has_room(label, bytes, sender, limits));
                return Place::Desks(desks);
            }
            Place::Absent(ref server) => self.absences.has_room(server, bytes, sender, limits),
            Place::Unclaimed => self.has_unclaimed_room(label, bytes, sender),
        };
        if has_room { place } else { Place::NOWHERE }
    }

    /// Of a place, where somebody takes packets of this size; all of it, where nobody does: it must
    /// not be lost.
    fn where_it_fits(&self, place: Place, label: &Label, message: &Message) -> Place {
        let Place::Desks(mut desks) = place else { return place };
        let takes = |at: &usize| self.desks[*at].takes(label, message);
        if desks.iter().any(takes) {
            desks.retain(|at| takes(at));
        }
        Place::Desks(desks)
    }

    /// A fleet whose servers are away takes no room of another one.
    fn has_unclaimed_room(&self, label: &Label, bytes: usize, sender: Option<Nid>) -> bool {
        let fleet = |other: &Label| other.scopes == label.scopes;
        let InboxLimits { messages_max, bytes_max, .. } = self.limits;
        let of_all = InboxLimits {
            messages_max: messages_max.saturating_mul(FLEETS),
            bytes_max: bytes_max.saturating_mul(FLEETS),
            ..self.limits
        };
        self.unclaimed.has_room(bytes, sender, &self.limits, fleet)
            && self.unclaimed.has_room(bytes, None, &of_all, |_| true)
    }

    /// The desks that it is copied to, if there are several.
    fn copies_for(&self, place: &Place) -> Option<DeskIds> {
        let Place::Desks(desks) = place else { return None };
        (desks.len() > 1).then(|| desks.iter().map(|at| self.desks[*at].id).collect())
    }

    /// Who is to be told of something new there.
    fn takers_at(&self, place: &Place, label: &Label) -> impl Iterator<Item = SessionKey> {
        let desks: &[usize] = if let Place::Desks(desks) = place { desks } else { &[] };
        desks.iter().flat_map(|at| self.desks[*at].takers_of(label))
    }

    fn shelves(&mut self, place: &Place, now: Timestamp) -> SmallVec<[&mut Shelf; 4]> {
        match place {
            Place::Desks(positions) => {
                let desks = self.desks.iter_mut().enumerate();
                let desks = desks.filter(|(at, _)| positions.contains(at));
                desks.map(|(_, desk)| &mut desk.shelf).collect()
            }
            Place::Absent(server) => [self.absences.shelf_for(server, now)].into_iter().collect(),
            Place::Unclaimed => [&mut self.unclaimed].into_iter().collect(),
        }
    }

    /// Finds another place for a pile that a desk had and lost. It has been accepted already and
    /// must not be lost: beyond its bounds a place has at most what others were allowed.
    fn place_orphans(
        &mut self,
        mut label: Label,
        mut pile: Pile,
        from: DeskId,
        now: Timestamp,
        wake: &mut BTreeSet<SessionKey>,
    ) {
        if label.copied {
            let is_open = |id| self.desks.iter().any(|desk| desk.id == id);
            self.items.lose_copies(from, &mut pile, is_open);
            label.copied = false;
        }
        if !pile.room.is_empty() {
            let place = self.place_for(&label, now);
            self.move_to(&place, label, pile, now, wake);
        }
    }

    /// Puts a pile that is in no place where it belongs.
    fn move_to(
        &mut self,
        place: &Place,
        mut label: Label,
        pile: Pile,
        now: Timestamp,
        wake: &mut BTreeSet<SessionKey>,
    ) {
        if let Some(desks) = self.copies_for(place) {
            self.items.copy_to(&desks, &pile);
            label.copied = true;
        }
        wake.extend(self.takers_at(place, &label));
        let mut shelves = self.shelves(place, now);
        let last = shelves.pop();
        shelves.into_iter().for_each(|shelf| shelf.add(label.clone(), pile.clone()));
        if let Some(last) = last {
            last.add(label, pile);
        }
    }

    fn expire(&mut self, number: u64) {
        let items = &mut self.items;
        let asker = items.get(number).and_then(|item| item.label.asker.clone());
        let kept = asker.and_then(|asker| self.absences.shelf(&asker));
        let desks = self.desks.iter_mut().map(|desk| &mut desk.shelf);
        for shelf in kept.into_iter().chain([&mut self.unclaimed]).chain(desks) {
            if items.get(number).is_some_and(|item| shelf.take_out(number, item)) {
                items.settle(number, shelf);
                self.expired += 1;
            }
        }
    }

    fn note_room(&mut self, key: SessionKey, has_room: bool) -> Vec<SessionKey> {
        self.desks.iter_mut().flat_map(|desk| desk.note_room(key, has_room)).collect()
    }
}

impl Place {
    const NOWHERE: Self = Self::Desks(SmallVec::new_const());

    /// Places in which a message has a copy each.
    fn len(&self) -> usize {
        match self {
            Self::Desks(desks) => desks.len(),
            Self::Absent(_) | Self::Unclaimed => 1,
        }
    }
}

/// Fleets whose unclaimed messages may reach their bounds at once.
const FLEETS: usize = 64;

/// Items that one sweep puts away or places anew.
const SWEEP_MAX: usize = 10_000;
