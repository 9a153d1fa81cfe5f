//! A desk: a subscription of `To_SM-SR`, of one session alone or of a share group.
//!
//! What waits at a desk stands in *lanes*, one for all items that the same servers may take, so
//! that nobody looks through what is for others. An item in the hands of a session stands in none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use super::items::{Items, Room};
use super::{Addressee, DeskId, InboxLimits};
use crate::ids::{SessionKey, Timestamp};
use crate::mqtt::Message;
use crate::rsp::Scope;

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) id: DeskId,
    /// Name of the share group.
    pub(super) group: Option<String>,
    parties: Vec<Party>,
    lanes: BTreeMap<Lane, BTreeSet<u64>>,
    pub(super) room: Room,
}

/// The sessions of one server at this desk.
#[derive(Debug)]
struct Party {
    server: Arc<str>,
    scope: Scope,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    key: SessionKey,
    /// It is connected, and its window was not full when it fetched last.
    has_room: bool,
    /// What it was given and has not acknowledged.
    held: BTreeSet<u64>,
}

/// Who may take an item, by positions among the desk's parties.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Lane {
    /// Who asked for it, and has it for itself while it has room.
    asker: Option<usize>,
    /// Everyone, ascending.
    takers: SmallVec<[usize; 2]>,
}

impl Desk {
    pub(super) fn new(id: DeskId, group: Option<&str>) -> Self {
        let (parties, lanes) = (Vec::new(), BTreeMap::new());
        Self { id, group: group.map(str::to_owned), parties, lanes, room: Room::default() }
    }

    /// Whether this is the session's desk for this subscription.
    pub(super) fn seats(&self, key: SessionKey, group: Option<&str>) -> bool {
        self.group.as_deref() == group && self.has(key)
    }

    pub(super) fn has(&self, key: SessionKey) -> bool {
        self.find(key).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parties.is_empty()
    }

    /// Whether the server has a session here.
    pub(super) fn serves(&self, server: &str) -> bool {
        self.party(server).is_some()
    }

    /// Whether somebody here may take it.
    pub(super) fn may_have(&self, to: &Addressee) -> bool {
        self.lane_for(to).is_some()
    }

    /// The sessions here.
    pub(super) fn keys(&self) -> impl Iterator<Item = SessionKey> {
        self.parties.iter().flat_map(Party::keys)
    }

    /// A session sits down.
    pub(super) fn join(
        &mut self,
        key: SessionKey,
        server: &Arc<str>,
        scope: &Scope,
        items: &mut Items,
    ) {
        let member = Member { key, has_room: true, held: BTreeSet::new() };
        if let Some(at) = self.party(server) {
            self.parties[at].members.push(member);
            return;
        }
        let (server, scope) = (Arc::clone(server), scope.clone());
        self.parties.push(Party { server, scope, members: vec![member] });
        // Nobody leaves, so that nothing is without a taker now.
        self.line_up_again(items);
    }

    /// A session leaves, and what it held waits again. Gives its server, and what nobody may take
    /// here any more, which is withdrawn.
    pub(super) fn leave(
        &mut self,
        key: SessionKey,
        items: &mut Items,
    ) -> Option<(Arc<str>, Vec<u64>)> {
        let (at, seat) = self.find(key)?;
        let member = self.parties[at].members.remove(seat);
        for number in member.held {
            self.line_up(number, items);
        }
        if !self.parties[at].members.is_empty() {
            return Some((Arc::clone(&self.parties[at].server), Vec::new()));
        }
        let party = self.parties.remove(at);
        Some((party.server, self.line_up_again(items)))
    }

    /// Puts an item here if there is room for it.
    pub(super) fn give(&mut self, number: u64, items: &mut Items, limits: &InboxLimits) -> bool {
        let has_room = items.enter(number, &mut self.room, limits);
        if has_room {
            self.line_up(number, items);
            items.note_desk(number, self.id);
        }
        has_room
    }

    /// Puts an item that is counted here into its lane. `false`: nobody may take it.
    fn line_up(&mut self, number: u64, items: &mut Items) -> bool {
        let Some(item) = items.get(number) else { return false };
        let Some(lane) = self.lane_for(&item.to) else { return false };
        self.lanes.entry(lane).or_default().insert(number);
        // Its time may have come while it was in somebody's hands.
        items.watch(number);
        true
    }

    /// Who is to be told of a new item: whoever asked for it, while that server has room; else all
    /// who may take it.
    pub(super) fn takers_of(&self, to: &Addressee) -> impl Iterator<Item = SessionKey> {
        let lane = self.lane_for(to).unwrap_or_default();
        let asker = lane.asker.filter(|at| self.parties[*at].has_room());
        let parties = asker.map_or(lane.takers, |asker| [asker].into_iter().collect());
        parties.into_iter().flat_map(|at| self.parties[at].keys())
    }

    /// Gives a session what it may take, oldest first, until it has `room` messages. Returns how
    /// many had expired.
    pub(super) fn hand_out(
        &mut self,
        key: SessionKey,
        room: usize,
        now: Timestamp,
        items: &mut Items,
        messages: &mut Vec<(u64, Arc<Message>)>,
    ) -> u64 {
        let mut expired = 0;
        let Some((at, seat)) = self.find(key) else { return expired };
        while messages.len() < room {
            let Some(number) = self.next_for(at) else { break };
            let Some(item) = items.get(number) else { continue };
            if item.is_expired(now) {
                items.settle(number, &mut self.room);
                expired += 1;
                continue;
            }
            messages.push((number, Arc::clone(&item.message)));
            self.parties[at].members[seat].held.insert(number);
        }
        expired
    }

    /// Notes whether a session could take more. Gives who may now take what was kept for its
    /// server.
    pub(super) fn note_room(&mut self, key: SessionKey, has_room: bool) -> Vec<SessionKey> {
        let Some((at, seat)) = self.find(key) else { return Vec::new() };
        let had_room = self.parties[at].has_room();
        self.parties[at].members[seat].has_room = has_room;
        if !had_room || self.parties[at].has_room() {
            return Vec::new();
        }
        let kept = self.lanes.keys().filter(|lane| lane.asker == Some(at));
        let others = kept.flat_map(|lane| &lane.takers).filter(|other| **other != at);
        others.flat_map(|other| self.parties[*other].keys()).collect()
    }

    /// A session has the message.
    pub(super) fn acknowledge(&mut self, key: SessionKey, number: u64, items: &mut Items) {
        if self.let_go(key, number) {
            items.settle(number, &mut self.room);
        }
    }

    /// A session does not have the message after all: it waits again.
    pub(super) fn put_back(&mut self, key: SessionKey, number: u64, items: &mut Items) {
        if self.let_go(key, number) {
            self.line_up(number, items);
        }
    }

    pub(super) fn holds(&self, key: SessionKey, number: u64) -> bool {
        let seat = self.find(key);
        seat.is_some_and(|(at, seat)| self.parties[at].members[seat].held.contains(&number))
    }

    /// The time of an item is over: it leaves unless it is in somebody's hands.
    pub(super) fn expire(&mut self, number: u64, items: &mut Items) -> bool {
        let lane = items.get(number).and_then(|item| self.lane_for(&item.to));
        let expired = lane.is_some_and(|lane| self.take_out(&lane, number));
        if expired {
            items.settle(number, &mut self.room);
        }
        expired
    }

    fn find(&self, key: SessionKey) -> Option<(usize, usize)> {
        self.parties.iter().enumerate().find_map(|(at, party)| {
            let seat = party.members.iter().position(|member| member.key == key)?;
            Some((at, seat))
        })
    }

    fn party(&self, server: &str) -> Option<usize> {
        self.parties.iter().position(|party| *party.server == *server)
    }

    /// `None`: nobody here may take it.
    fn lane_for(&self, to: &Addressee) -> Option<Lane> {
        let asker = to.asker.as_ref().and_then(|asker| self.party(asker));
        // Whoever asked may have the answer wherever the device has been moved to since.
        let may_take =
            |(at, party): &(usize, &Party)| asker == Some(*at) || party.scope.covers(&to.gids);
        let takers: SmallVec<_> =
            self.parties.iter().enumerate().filter(may_take).map(|(at, _)| at).collect();
        (!takers.is_empty()).then_some(Lane { asker, takers })
    }

    /// Sorts all that waits into lanes for the parties there are now. Gives what nobody may take,
    /// in order; it is withdrawn.
    fn line_up_again(&mut self, items: &mut Items) -> Vec<u64> {
        let mut orphans = Vec::new();
        for number in std::mem::take(&mut self.lanes).into_values().flatten() {
            if !self.line_up(number, items) {
                items.withdraw(number, &mut self.room);
                orphans.push(number);
            }
        }
        orphans.sort_unstable();
        orphans
    }

    /// Takes the oldest item that this party may have now out of its lane.
    fn next_for(&mut self, at: usize) -> Option<u64> {
        let is_free = |lane: &Lane| {
            let kept = |asker: usize| asker != at && self.parties[asker].has_room();
            lane.takers.contains(&at) && !lane.asker.is_some_and(kept)
        };
        let open = self.lanes.iter().filter(|(lane, _)| is_free(lane));
        let fronts = open.filter_map(|(lane, waiting)| Some((*waiting.first()?, lane)));
        let (number, lane) = fronts.min()?;
        let lane = lane.clone();
        self.take_out(&lane, number);
        Some(number)
    }

    fn take_out(&mut self, lane: &Lane, number: u64) -> bool {
        let Some(waiting) = self.lanes.get_mut(lane) else { return false };
        let was_there = waiting.remove(&number);
        if waiting.is_empty() {
            self.lanes.remove(lane);
        }
        was_there
    }

    fn let_go(&mut self, key: SessionKey, number: u64) -> bool {
        let Some((at, seat)) = self.find(key) else { return false };
        self.parties[at].members[seat].held.remove(&number)
    }
}

impl Party {
    fn keys(&self) -> impl Iterator<Item = SessionKey> {
        self.members.iter().map(|member| member.key)
    }

    fn has_room(&self) -> bool {
        self.members.iter().any(|member| member.has_room)
    }
}
