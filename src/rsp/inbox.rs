//! The mail of the SM-SR servers: what was published on `To_SM-SR`.
//!
//! Every subscription has a *desk*: a server of its own, or a share group whose members take from
//! one pile. A message waits on each desk until a server has acknowledged it. While there is no
//! desk at all, messages wait in order for the first that comes, so that a trigger or an answer
//! that was acknowledged to a device is not lost because the SM-SR is away.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::ids::{Nid, SessionKey, Timestamp};
use crate::mqtt::Message;

/// Bounds of the inbox (`[rsp] server_inbox_messages`, `server_inbox_bytes`), for each desk.
#[derive(Clone, Copy, Debug)]
pub struct InboxLimits {
    /// Messages that may wait on one desk.
    pub messages_max: usize,
    /// Payload bytes that may wait on one desk.
    pub bytes_max: usize,
}

/// All that waits for the servers.
#[derive(Debug)]
pub struct Inbox {
    limits: InboxLimits,
    /// What came while no server was subscribed.
    unclaimed: Pile,
    desks: Vec<Desk>,
    last_number: u64,
}

#[derive(Debug)]
struct Desk {
    group: Option<String>,
    members: Vec<SessionKey>,
    pile: Pile,
    /// It was given every message behind this one …
    since: u64,
    /// … and before this one, when it had no more room.
    until: u64,
}

/// Waiting messages in the order of publishing, with those already handed to a server.
#[derive(Debug, Default)]
struct Pile {
    items: VecDeque<Item>,
    bytes: usize,
    handed_out: usize,
    /// What waits of each device: none may take the room of all the others.
    by_sender: HashMap<Nid, Load>,
}

/// Messages and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    messages: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Item {
    number: u64,
    message: Arc<Message>,
    /// The device, or nobody for what the control unit itself writes.
    sender: Option<Nid>,
    holder: Option<SessionKey>,
}

impl Inbox {
    /// An empty inbox.
    #[must_use]
    pub fn new(limits: InboxLimits) -> Self {
        Self { limits, unclaimed: Pile::default(), desks: Vec::new(), last_number: 0 }
    }

    /// Some desk, or the pile of unclaimed messages, can take this many more bytes of this sender.
    /// A message is refused only when nobody can keep it.
    #[must_use]
    pub fn has_room(&self, bytes: usize, sender: Option<Nid>) -> bool {
        if self.desks.is_empty() {
            return self.unclaimed.has_room(bytes, sender, &self.limits);
        }
        self.desks.iter().any(|desk| desk.pile.has_room(bytes, sender, &self.limits))
    }

    /// Puts a message on every desk that has room. Gives the sessions to wake and how many desks
    /// were full.
    pub fn post(
        &mut self,
        message: &Arc<Message>,
        sender: Option<Nid>,
    ) -> (Vec<SessionKey>, usize) {
        self.last_number += 1;
        let number = self.last_number;
        if self.desks.is_empty() {
            self.unclaimed.push(number, message, sender);
            return (Vec::new(), 0);
        }
        let (mut wake, mut full) = (Vec::new(), 0);
        for desk in &mut self.desks {
            if desk.pile.has_room(message.kept_bytes(), sender, &self.limits) {
                desk.pile.push(number, message, sender);
                wake.extend_from_slice(&desk.members);
            } else {
                desk.until = desk.until.min(number);
                full += 1;
            }
        }
        (wake, full)
    }

    /// A server subscribes, alone or as a member of a share group.
    pub fn subscribe(&mut self, key: SessionKey, group: Option<&str>) {
        let found = self.desks.iter_mut().find(|desk| match group {
            Some(_) => desk.group.as_deref() == group,
            None => desk.group.is_none() && desk.members.contains(&key),
        });
        if let Some(desk) = found {
            if !desk.members.contains(&key) {
                desk.members.push(key);
            }
            return;
        }
        self.desks.push(Desk {
            group: group.map(str::to_owned),
            members: vec![key],
            pile: std::mem::take(&mut self.unclaimed),
            since: self.last_number,
            until: u64::MAX,
        });
    }

    /// The subscription ends. What the session held goes back to the other members of its group.
    /// What waits on a desk that closes, and was not given to another one, goes to another one, or
    /// waits for the next server. Gives the sessions to wake.
    pub fn unsubscribe(&mut self, key: SessionKey, group: Option<&str>) -> Vec<SessionKey> {
        let at = self
            .desks
            .iter()
            .position(|desk| desk.group.as_deref() == group && desk.members.contains(&key));
        let Some(at) = at else { return Vec::new() };
        let desk = &mut self.desks[at];
        desk.members.retain(|member| *member != key);
        desk.pile.release(key);
        if !desk.members.is_empty() {
            return desk.members.clone();
        }
        let closed = self.desks.swap_remove(at);
        if self.desks.is_empty() {
            self.unclaimed = closed.pile;
            return Vec::new();
        }
        let given = |number: u64| self.desks.iter().any(|desk| desk.was_given(number));
        let orphans: Vec<Item> =
            closed.pile.items.into_iter().filter(|item| !given(item.number)).collect();
        if orphans.is_empty() {
            return Vec::new();
        }
        self.desks[0].pile.take_over(orphans);
        self.desks[0].members.clone()
    }

    /// The session ends: all its subscriptions end.
    pub fn leave(&mut self, key: SessionKey) -> Vec<SessionKey> {
        let groups: Vec<Option<String>> = self
            .desks
            .iter()
            .filter(|desk| desk.members.contains(&key))
            .map(|desk| desk.group.clone())
            .collect();
        groups.iter().flat_map(|group| self.unsubscribe(key, group.as_deref())).collect()
    }

    /// Hands a server up to `room` messages, oldest first.
    pub fn pull(
        &mut self,
        key: SessionKey,
        room: usize,
        now: Timestamp,
    ) -> Vec<(u64, Arc<Message>)> {
        let mut letters = Vec::new();
        for desk in self.desks.iter_mut().filter(|desk| desk.members.contains(&key)) {
            desk.pile.hand_out(key, room - letters.len(), now, &mut letters);
            if letters.len() == room {
                break;
            }
        }
        letters
    }

    /// A server has the message.
    pub fn acknowledge(&mut self, key: SessionKey, number: u64) {
        for desk in self.desks.iter_mut().filter(|desk| desk.members.contains(&key)) {
            desk.pile.remove(key, number);
        }
    }

    /// The server's connection ended before these messages had left for it: they wait as before,
    /// for it or for others of its group, who are given to be woken.
    pub fn put_back(&mut self, key: SessionKey, numbers: &[u64]) -> Vec<SessionKey> {
        let mut wake = Vec::new();
        for desk in self.desks.iter_mut().filter(|desk| desk.members.contains(&key)) {
            for number in numbers {
                desk.pile.put_back(key, *number);
            }
            wake.extend_from_slice(&desk.members);
        }
        wake
    }

    /// Whether this session still holds the message (it may have been taken back).
    #[must_use]
    pub fn holds(&self, key: SessionKey, number: u64) -> bool {
        self.desks.iter().any(|desk| desk.pile.find(key, number).is_some())
    }

    /// Messages waiting, over all desks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.unclaimed.items.len() + self.desks.iter().map(|d| d.pile.items.len()).sum::<usize>()
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Payload bytes waiting, over all desks.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.unclaimed.bytes + self.desks.iter().map(|desk| desk.pile.bytes).sum::<usize>()
    }
}

impl Desk {
    /// Whether this desk is known to have had its own copy of the message. When in doubt it had
    /// not: a server may see a message twice, but not never.
    fn was_given(&self, number: u64) -> bool {
        self.since < number && number < self.until
    }
}

impl Pile {
    /// Adds messages of a desk that closed, each in its place. They may exceed the bounds of one
    /// desk by those of another.
    fn take_over(&mut self, mut orphans: Vec<Item>) {
        orphans.retain(|item| self.position(item.number).is_err());
        orphans.iter().for_each(|item| self.count(item));
        self.items.extend(orphans);
        self.items.make_contiguous().sort_unstable_by_key(|item| item.number);
    }

    fn has_room(&self, bytes: usize, sender: Option<Nid>, limits: &InboxLimits) -> bool {
        let load = sender.and_then(|nid| self.by_sender.get(&nid)).copied().unwrap_or_default();
        self.items.len() < limits.messages_max
            && self.bytes + bytes <= limits.bytes_max
            && load.messages < (limits.messages_max / SENDERS).max(SENDER_MESSAGES_MIN)
            && load.bytes + bytes <= (limits.bytes_max / SENDERS).max(SENDER_BYTES_MIN)
    }

    fn push(&mut self, number: u64, message: &Arc<Message>, sender: Option<Nid>) {
        let item = Item { number, message: Arc::clone(message), sender, holder: None };
        self.count(&item);
        self.items.push_back(item);
    }

    fn count(&mut self, item: &Item) {
        let bytes = item.message.kept_bytes();
        self.bytes += bytes;
        if let Some(nid) = item.sender {
            let load = self.by_sender.entry(nid).or_default();
            load.messages += 1;
            load.bytes += bytes;
        }
    }

    fn uncount(&mut self, item: &Item) {
        let bytes = item.message.kept_bytes();
        self.bytes -= bytes;
        let Some(nid) = item.sender else { return };
        let Some(load) = self.by_sender.get_mut(&nid) else { return };
        load.messages -= 1;
        load.bytes -= bytes;
        if load.messages == 0 {
            self.by_sender.remove(&nid);
        }
    }

    fn hand_out(
        &mut self,
        key: SessionKey,
        room: usize,
        now: Timestamp,
        letters: &mut Vec<(u64, Arc<Message>)>,
    ) {
        self.drop_expired(now);
        let mut left = room.min(self.items.len() - self.handed_out);
        for item in &mut self.items {
            if left == 0 {
                return;
            }
            if item.holder.is_none() {
                item.holder = Some(key);
                self.handed_out += 1;
                left -= 1;
                letters.push((item.number, Arc::clone(&item.message)));
            }
        }
    }

    fn drop_expired(&mut self, now: Timestamp) {
        // Expiry is judged at the front alone: order is kept, and a short-lived message behind a
        // long-lived one is judged when its turn comes.
        while let Some(front) = self.items.front() {
            if front.holder.is_some() || front.message.expires > now {
                return;
            }
            if let Some(expired) = self.items.pop_front() {
                self.uncount(&expired);
            }
        }
    }

    fn release(&mut self, key: SessionKey) {
        for item in self.items.iter_mut().filter(|item| item.holder == Some(key)) {
            item.holder = None;
            self.handed_out -= 1;
        }
    }

    fn position(&self, number: u64) -> Result<usize, usize> {
        self.items.binary_search_by_key(&number, |item| item.number)
    }

    fn put_back(&mut self, key: SessionKey, number: u64) {
        if let Some(at) = self.find(key, number) {
            self.items[at].holder = None;
            self.handed_out -= 1;
        }
    }

    fn find(&self, key: SessionKey, number: u64) -> Option<usize> {
        let at = self.position(number).ok()?;
        (self.items[at].holder == Some(key)).then_some(at)
    }

    fn remove(&mut self, key: SessionKey, number: u64) {
        let Some(at) = self.find(key, number) else { return };
        if let Some(item) = self.items.remove(at) {
            self.uncount(&item);
            self.handed_out -= 1;
        }
    }
}

/// One device may fill this part of the inbox …
const SENDERS: usize = 16;

/// … and this many messages …
const SENDER_MESSAGES_MIN: usize = 16;

/// … and bytes in any case.
const SENDER_BYTES_MIN: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::QoS;

    const LIMITS: InboxLimits = InboxLimits { messages_max: 3, bytes_max: 100 };
    const NOW: Timestamp = Timestamp(1);

    fn key(slot: u32) -> SessionKey {
        SessionKey { slot, generation: 0 }
    }

    fn message(payload: &'static str) -> Arc<Message> {
        let (topic, payload) = ("To_SM-SR".into(), payload.into());
        Arc::new(Message::new(topic, payload, QoS::AtLeastOnce, false, None, Timestamp::NEVER))
    }

    fn take(inbox: &mut Inbox, key: SessionKey, room: usize) -> Vec<(u64, String)> {
        let letters = inbox.pull(key, room, NOW).into_iter();
        letters.map(|(n, m)| (n, String::from_utf8_lossy(&m.payload).into_owned())).collect()
    }

    fn texts(letters: &[(u64, String)]) -> Vec<&str> {
        letters.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn what_comes_while_no_server_is_there_waits_in_order() {
        let mut inbox = Inbox::new(LIMITS);
        inbox.post(&message("one"), None);
        inbox.post(&message("two"), None);
        inbox.subscribe(key(1), None);
        assert_eq!(texts(&take(&mut inbox, key(1), 10)), ["one", "two"]);
    }

    #[test]
    fn unacknowledged_letters_survive_the_end_of_the_only_server() {
        let mut inbox = Inbox::new(LIMITS);
        inbox.subscribe(key(1), None);
        inbox.post(&message("one"), None);
        inbox.post(&message("two"), None);
        let letters = take(&mut inbox, key(1), 10);
        inbox.acknowledge(key(1), letters[0].0);
        inbox.leave(key(1));
        inbox.subscribe(key(2), None);
        assert_eq!(texts(&take(&mut inbox, key(2), 10)), ["two"]);
    }

    #[test]
    fn members_of_a_group_share_and_others_get_a_copy() {
        let mut inbox = Inbox::new(LIMITS);
        inbox.subscribe(key(1), Some("g"));
        inbox.subscribe(key(2), Some("g"));
        inbox.subscribe(key(3), None);
        inbox.post(&message("one"), None);
        inbox.post(&message("two"), None);
        assert_eq!(texts(&take(&mut inbox, key(1), 1)), ["one"]);
        assert_eq!(texts(&take(&mut inbox, key(2), 9)), ["two"]);
        assert_eq!(texts(&take(&mut inbox, key(3), 9)), ["one", "two"]);
        // The first member dies with "one" unacknowledged: the second takes over.
        assert_eq!(inbox.leave(key(1)), [key(2)]);
        assert_eq!(texts(&take(&mut inbox, key(2), 9)), ["one"]);
    }

    #[test]
    fn a_desk_that_closes_leaves_to_others_what_they_did_not_get() {
        let mut inbox = Inbox::new(LIMITS);
        inbox.subscribe(key(1), None);
        inbox.post(&message("one"), None);
        inbox.post(&message("two"), None);
        take(&mut inbox, key(1), 1);
        inbox.subscribe(key(2), None);
        inbox.post(&message("three"), None);
        assert_eq!(texts(&take(&mut inbox, key(2), 9)), ["three"]);
        assert_eq!(inbox.leave(key(1)), [key(2)]);
        assert_eq!(texts(&take(&mut inbox, key(2), 9)), ["one", "two"]);
        assert_eq!(inbox.bytes(), "onetwothree".len());
    }

    #[test]
    fn what_a_full_desk_missed_comes_from_the_one_that_had_it() {
        let mut inbox = Inbox::new(LIMITS);
        inbox.subscribe(key(1), None);
        inbox.subscribe(key(2), None);
        for text in ["one", "two", "three"] {
            inbox.post(&message(text), None);
        }
        for (number, _) in take(&mut inbox, key(1), 9) {
            inbox.acknowledge(key(1), number);
        }
        assert_eq!(inbox.post(&message("four"), None).1, 1, "the other desk is full");
        assert_eq!(inbox.leave(key(1)), [key(2)]);
        let letters = take(&mut inbox, key(2), 9);
        assert_eq!(texts(&letters), ["one", "two", "three", "four"]);
    }

    #[test]
    fn what_never_left_for_a_server_waits_again() {
        let mut inbox = Inbox::new(LIMITS);
        inbox.subscribe(key(1), Some("g"));
        inbox.subscribe(key(2), Some("g"));
        inbox.post(&message("one"), None);
        inbox.post(&message("two"), None);
        let letters = take(&mut inbox, key(1), 9);
        inbox.put_back(key(2), &[letters[0].0]);
        assert!(take(&mut inbox, key(2), 9).is_empty(), "only who holds it puts it back");
        assert_eq!(inbox.put_back(key(1), &[letters[0].0]), [key(1), key(2)]);
        assert_eq!(texts(&take(&mut inbox, key(2), 9)), ["one"]);
        inbox.acknowledge(key(1), letters[1].0);
        inbox.acknowledge(key(2), letters[0].0);
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_stranger_cannot_acknowledge_what_another_holds() {
        let mut inbox = Inbox::new(LIMITS);
        inbox.subscribe(key(1), None);
        inbox.post(&message("one"), None);
        let letters = take(&mut inbox, key(1), 1);
        inbox.subscribe(key(2), None);
        inbox.acknowledge(key(2), letters[0].0);
        assert!(inbox.holds(key(1), letters[0].0));
    }

    #[test]
    fn one_device_cannot_take_the_room_of_the_others() {
        // case D8
        let nid = |number| Nid::new(number, crate::ids::NidScheme::Decimal).ok();
        let mut inbox = Inbox::new(InboxLimits { messages_max: 1000, bytes_max: 1 << 30 });
        let mut flood = 0;
        while inbox.has_room(1, nid(1)) {
            inbox.post(&message("x"), nid(1));
            flood += 1;
        }
        assert_eq!(flood, 1000 / SENDERS);
        assert!(inbox.has_room(1, nid(2)) && inbox.has_room(1, None));
        inbox.subscribe(key(1), None);
        let letters = take(&mut inbox, key(1), 1);
        inbox.acknowledge(key(1), letters[0].0);
        assert!(inbox.has_room(1, nid(1)), "what is fetched makes room again");
    }

    #[test]
    fn a_full_inbox_says_so_before_anything_is_posted() {
        let mut inbox = Inbox::new(LIMITS);
        for _ in 0..3 {
            assert!(inbox.has_room(1, None));
            inbox.post(&message("x"), None);
        }
        assert!(!inbox.has_room(1, None));
        assert!(!Inbox::new(LIMITS).has_room(101, None));
    }
}
