//! A desk: a subscription of `To_SM-SR`, of one session alone or of a share group.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::items::{Item, Items};
use super::shelf::{Label, Shelf, oldest_from};
use super::{DeskId, InboxLimits};
use crate::ids::{Nid, SessionKey, Timestamp};
use crate::mqtt::Message;
use crate::rsp::mailbox::Reader;
use crate::rsp::scope::ScopeId;

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) id: DeskId,
    /// Name of the share group.
    pub(super) group: Option<String>,
    /// The row of its session, where it is of one alone that outlives the process.
    pub(super) session: Option<u64>,
    parties: Parties,
    /// All that the parties may take, and what they hold.
    pub(super) shelf: Shelf,
}

/// The servers at a desk.
#[derive(Debug, Default)]
struct Parties(Vec<Party>);

/// The sessions of one server at this desk.
#[derive(Debug)]
struct Party {
    server: Arc<str>,
    scope: ScopeId,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    key: SessionKey,
    /// The largest PUBLISH its client takes, in bytes.
    packet_bytes_max: u32,
    /// It is connected, and its window was not full when it fetched last.
    has_room: bool,
    /// What it was given and has not acknowledged.
    held: BTreeSet<u64>,
}

impl Desk {
    pub(super) fn new(id: DeskId, group: Option<&str>, session: Option<u64>) -> Self {
        let session = session.filter(|_| group.is_none());
        let group = group.map(str::to_owned);
        Self { id, group, session, parties: Parties::default(), shelf: Shelf::default() }
    }

    /// Whether this is the session's desk for this subscription.
    pub(super) fn seats(&self, key: SessionKey, group: Option<&str>) -> bool {
        self.group.as_deref() == group && self.has(key)
    }

    pub(super) fn has(&self, key: SessionKey) -> bool {
        self.parties.find(key).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parties.0.is_empty()
    }

    /// Whether the server has a session here.
    pub(super) fn serves(&self, server: &str) -> bool {
        self.parties.iter().any(|party| *party.server == *server)
    }

    /// Whether somebody here may take it.
    pub(super) fn may_have(&self, label: &Label) -> bool {
        self.parties.may_have(label)
    }

    /// Whether somebody for whom it would be kept has room for it: a server that does not fetch
    /// what is kept for it takes no room of others.
    pub(super) fn has_room(
        &self,
        label: &Label,
        bytes: usize,
        sender: Option<Nid>,
        limits: &InboxLimits,
    ) -> bool {
        let parties = &self.parties;
        parties.iter().filter(|party| parties.keep_for(label, party)).any(|party| {
            self.shelf.has_room(bytes, sender, limits, |other| parties.keep_for(other, party))
        })
    }

    /// Whether somebody for whom it would be kept takes a packet of its size.
    pub(super) fn takes(&self, label: &Label, message: &Message) -> bool {
        let parties = self.parties.iter().filter(|party| self.parties.keep_for(label, party));
        let mut members = parties.flat_map(|party| &party.members);
        members.any(|member| message.fits(member.packet_bytes_max))
    }

    /// The largest PUBLISH that all take who may be given what is labelled so; `None`: nobody may.
    pub(super) fn packet_bytes_max(&self, label: &Label) -> Option<u32> {
        let parties = self.parties.iter().filter(|party| party.may_have(label));
        parties.flat_map(|party| &party.members).map(|member| member.packet_bytes_max).min()
    }

    /// A session's client may take larger or smaller packets now.
    pub(super) fn resize(&mut self, reader: Reader) {
        if let Some((at, seat)) = self.parties.find(reader.key) {
            self.parties.0[at].members[seat].packet_bytes_max = reader.packet_bytes_max;
        }
    }

    /// The sessions here.
    pub(super) fn keys(&self) -> impl Iterator<Item = SessionKey> {
        self.parties.iter().flat_map(Party::keys)
    }

    /// A session sits down.
    pub(super) fn join(&mut self, reader: Reader, server: &Arc<str>, scope: ScopeId) {
        let Reader { key, packet_bytes_max } = reader;
        let member = Member { key, packet_bytes_max, has_room: true, held: BTreeSet::new() };
        match self.parties.0.iter_mut().find(|party| party.server == *server) {
            Some(party) => party.members.push(member),
            None => {
                let server = Arc::clone(server);
                self.parties.0.push(Party { server, scope, members: vec![member] });
            }
        }
    }

    /// A session leaves, and what it held waits again. Gives its server, and what nobody may take
    /// here any more.
    pub(super) fn leave(
        &mut self,
        key: SessionKey,
        items: &mut Items,
    ) -> Option<(Arc<str>, Shelf)> {
        let (at, seat) = self.parties.find(key)?;
        let party = &mut self.parties.0[at];
        let (server, member) = (Arc::clone(&party.server), party.members.remove(seat));
        if party.members.is_empty() {
            self.parties.0.remove(at);
        }
        for number in member.held {
            self.wait_again(number, items);
        }
        Some((server, self.shelf.take(|label| !self.parties.may_have(label))))
    }

    /// Who is to be told of a new item: whoever asked for it, while that server has room; else all
    /// who may take it.
    pub(super) fn takers_of(&self, label: &Label) -> impl Iterator<Item = SessionKey> {
        let parties = self.parties.iter();
        parties.filter(|party| self.parties.let_take(label, party)).flat_map(Party::keys)
    }

    /// Gives a session what it may take, oldest first, until it has `room` messages; but nothing
    /// larger than its client takes, which goes on waiting. Returns how many had expired.
    pub(super) fn hand_out(
        &mut self,
        key: SessionKey,
        room: usize,
        now: Timestamp,
        items: &mut Items,
        messages: &mut Vec<(u64, Arc<Message>)>,
    ) -> u64 {
        let Some((at, seat)) = self.parties.find(key) else { return 0 };
        let (parties, mut expired) = (&mut self.parties, Vec::new());
        let mut piles = self.shelf.select(|label| parties.let_take(label, &parties.0[at]));
        let Member { held, packet_bytes_max, .. } = &mut parties.0[at].members[seat];
        let mut from = 0;
        while messages.len() < room
            && let Some((number, pile)) = oldest_from(&mut piles, from)
        {
            from = number + 1;
            match items.get(number) {
                Some(item) if item.is_expired(now) => expired.push(number),
                Some(item) if !item.message.fits(*packet_bytes_max) => continue,
                Some(item) => {
                    messages.push((number, Arc::clone(&item.message)));
                    held.insert(number);
                }
                None => expired.push(number),
            }
            pile.waiting.remove(&number);
        }
        expired.iter().for_each(|number| items.settle(*number, &mut self.shelf));
        expired.len() as u64
    }

    /// Notes whether a session could take more. Gives who may now take what was kept for its
    /// server.
    pub(super) fn note_room(&mut self, key: SessionKey, has_room: bool) -> BTreeSet<SessionKey> {
        let Some((at, seat)) = self.parties.find(key) else { return BTreeSet::new() };
        let had_room = self.parties.0[at].has_room();
        self.parties.0[at].members[seat].has_room = has_room;
        let party = &self.parties.0[at];
        if !had_room || party.has_room() {
            return BTreeSet::new();
        }
        let labels = self.shelf.waiting();
        let kept = labels.filter(|label| label.asker.as_ref() == Some(&party.server));
        let takers = kept.flat_map(|label| self.takers_of(label));
        takers.filter(|key| !party.keys().any(|own| own == *key)).collect()
    }

    /// A session has the message.
    pub(super) fn acknowledge(&mut self, key: SessionKey, number: u64, items: &mut Items) {
        if self.let_go(key, number) {
            items.settle(number, &mut self.shelf);
        }
    }

    /// A session does not have the message after all: it waits again.
    pub(super) fn put_back(&mut self, key: SessionKey, number: u64, items: &mut Items) {
        if self.let_go(key, number) {
            self.wait_again(number, items);
        }
    }

    pub(super) fn holds(&self, key: SessionKey, number: u64) -> bool {
        let seat = self.parties.find(key);
        seat.is_some_and(|(at, seat)| self.parties.0[at].members[seat].held.contains(&number))
    }

    /// Whether it waits here, in whosever hands.
    pub(super) fn has_item(&self, number: u64, item: &Item) -> bool {
        let members = self.parties.iter().flat_map(|party| &party.members);
        let mut held = members.map(|member| member.held.contains(&number));
        self.shelf.is_waiting(number, item) || held.any(|held| held)
    }

    /// Gives a session what it had in hands before a restart. `false`: it does not wait here.
    pub(super) fn take_again(&mut self, key: SessionKey, number: u64, item: &Item) -> bool {
        let Some((at, seat)) = self.parties.find(key) else { return false };
        let is_here = self.shelf.take_out(number, item);
        if is_here {
            self.parties.0[at].members[seat].held.insert(number);
        }
        is_here
    }

    fn wait_again(&mut self, number: u64, items: &mut Items) {
        let Some(item) = items.get(number) else { return };
        self.shelf.put_back(number, item);
        // Its time may have come while it was in somebody's hands.
        items.watch(number);
    }

    fn let_go(&mut self, key: SessionKey, number: u64) -> bool {
        let Some((at, seat)) = self.parties.find(key) else { return false };
        self.parties.0[at].members[seat].held.remove(&number)
    }
}

impl Parties {
    fn iter(&self) -> impl Iterator<Item = &Party> {
        self.0.iter()
    }

    /// Where a session sits: its party, and its place there.
    fn find(&self, key: SessionKey) -> Option<(usize, usize)> {
        self.iter().enumerate().find_map(|(at, party)| {
            let seat = party.members.iter().position(|member| member.key == key)?;
            Some((at, seat))
        })
    }

    /// The server that asked for it, if it sits here.
    fn asker(&self, label: &Label) -> Option<&Party> {
        let asker = label.asker.as_ref()?;
        self.iter().find(|party| party.server == *asker)
    }

    fn may_have(&self, label: &Label) -> bool {
        self.iter().any(|party| party.may_have(label))
    }

    /// Whether it is kept for this party: for whoever asked alone, if that server sits here.
    fn keep_for(&self, label: &Label, party: &Party) -> bool {
        match self.asker(label) {
            Some(asker) => asker.server == party.server,
            None => party.may_have(label),
        }
    }

    /// Whether this party may take it now: others may in place of who asked while that server has
    /// no room.
    fn let_take(&self, label: &Label, party: &Party) -> bool {
        match self.asker(label) {
            Some(asker) if asker.has_room() => asker.server == party.server,
            _ => party.may_have(label),
        }
    }
}

impl Party {
    fn keys(&self) -> impl Iterator<Item = SessionKey> {
        self.members.iter().map(|member| member.key)
    }

    fn has_room(&self) -> bool {
        self.members.iter().any(|member| member.has_room)
    }

    fn may_have(&self, label: &Label) -> bool {
        label.is_for(&self.server, self.scope)
    }
}
