//! Tests of the inbox. Here: servers for every device, and nobody asked.

mod model;
mod packets;
mod servers;

use super::shelf::SENDERS;
use super::*;
use crate::mqtt::QoS;
use crate::rsp::Scope;

const ABSENCE_MAX: Duration = Duration::from_secs(300);
const LIMITS: InboxLimits =
    InboxLimits { messages_max: 3, bytes_max: 100, absence_max: ABSENCE_MAX };
const NOW: Timestamp = Timestamp(1);

fn key(slot: u32) -> SessionKey {
    SessionKey { slot, generation: 0 }
}

fn message(payload: &'static str) -> Arc<Message> {
    let (topic, payload) = ("To_SM-SR".into(), payload.into());
    Arc::new(Message::new(topic, payload, QoS::AtLeastOnce, false, None, Timestamp::NEVER))
}

/// An inbox for servers for every device.
fn empty(limits: InboxLimits) -> Inbox {
    Inbox::new(limits, ServerScopes::default())
}

fn subscribe(inbox: &mut Inbox, key: SessionKey, group: Option<&str>) {
    inbox.subscribe(key, group, &"sm-sr".into(), None);
}

fn post(inbox: &mut Inbox, payload: &'static str, sender: Option<Nid>) -> Posted {
    inbox.post(&message(payload), sender, &Addressee::default(), NOW)
}

fn has_room(inbox: &Inbox, bytes: usize, sender: Option<Nid>) -> bool {
    inbox.has_room(bytes, sender, &Addressee::default(), NOW)
}

fn take(inbox: &mut Inbox, key: SessionKey, room: usize) -> Vec<(u64, String)> {
    let letters = inbox.pull(key, room, NOW).messages.into_iter();
    letters.map(|(n, m)| (n, String::from_utf8_lossy(&m.payload).into_owned())).collect()
}

fn texts(letters: &[(u64, String)]) -> Vec<&str> {
    letters.iter().map(|(_, text)| text.as_str()).collect()
}

#[test]
fn what_comes_while_no_server_is_there_waits_in_order() {
    let mut inbox = empty(LIMITS);
    post(&mut inbox, "one", None);
    post(&mut inbox, "two", None);
    subscribe(&mut inbox, key(1), None);
    assert_eq!(texts(&take(&mut inbox, key(1), 10)), ["one", "two"]);
}

#[test]
fn unacknowledged_letters_survive_the_end_of_the_only_server() {
    let mut inbox = empty(LIMITS);
    subscribe(&mut inbox, key(1), None);
    post(&mut inbox, "one", None);
    post(&mut inbox, "two", None);
    let letters = take(&mut inbox, key(1), 10);
    inbox.acknowledge(key(1), letters[0].0);
    inbox.leave(key(1), NOW);
    subscribe(&mut inbox, key(2), None);
    assert_eq!(texts(&take(&mut inbox, key(2), 10)), ["two"]);
}

#[test]
fn members_of_a_group_share_and_others_get_a_copy() {
    let mut inbox = empty(LIMITS);
    subscribe(&mut inbox, key(1), Some("g"));
    subscribe(&mut inbox, key(2), Some("g"));
    subscribe(&mut inbox, key(3), None);
    post(&mut inbox, "one", None);
    post(&mut inbox, "two", None);
    assert_eq!(texts(&take(&mut inbox, key(1), 1)), ["one"]);
    assert_eq!(texts(&take(&mut inbox, key(2), 9)), ["two"]);
    assert_eq!(texts(&take(&mut inbox, key(3), 9)), ["one", "two"]);
    // The first member dies with "one" unacknowledged: the second takes over.
    assert_eq!(inbox.leave(key(1), NOW), [key(2)]);
    assert_eq!(texts(&take(&mut inbox, key(2), 9)), ["one"]);
}

#[test]
fn a_desk_that_closes_leaves_to_others_what_they_did_not_get() {
    let mut inbox = empty(LIMITS);
    subscribe(&mut inbox, key(1), None);
    post(&mut inbox, "one", None);
    post(&mut inbox, "two", None);
    take(&mut inbox, key(1), 1);
    subscribe(&mut inbox, key(2), None);
    post(&mut inbox, "three", None);
    assert_eq!(texts(&take(&mut inbox, key(2), 9)), ["three"]);
    assert_eq!(inbox.leave(key(1), NOW), [key(2)]);
    assert_eq!(texts(&take(&mut inbox, key(2), 9)), ["one", "two"]);
    assert_eq!(inbox.bytes(), "onetwothree".len());
}

#[test]
fn what_a_full_desk_missed_comes_from_the_one_that_had_it() {
    let mut inbox = empty(LIMITS);
    subscribe(&mut inbox, key(1), None);
    subscribe(&mut inbox, key(2), None);
    for text in ["one", "two", "three"] {
        post(&mut inbox, text, None);
    }
    for (number, _) in take(&mut inbox, key(1), 9) {
        inbox.acknowledge(key(1), number);
    }
    assert_eq!(post(&mut inbox, "four", None).full, 1, "the other desk is full");
    assert_eq!(inbox.leave(key(1), NOW), [key(2)]);
    let letters = take(&mut inbox, key(2), 9);
    assert_eq!(texts(&letters), ["one", "two", "three", "four"]);
}

#[test]
fn what_never_left_for_a_server_waits_again() {
    let mut inbox = empty(LIMITS);
    subscribe(&mut inbox, key(1), Some("g"));
    subscribe(&mut inbox, key(2), Some("g"));
    post(&mut inbox, "one", None);
    post(&mut inbox, "two", None);
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
    let mut inbox = empty(LIMITS);
    subscribe(&mut inbox, key(1), None);
    post(&mut inbox, "one", None);
    let letters = take(&mut inbox, key(1), 1);
    subscribe(&mut inbox, key(2), None);
    inbox.acknowledge(key(2), letters[0].0);
    assert!(inbox.holds(key(1), letters[0].0));
}

#[test]
fn one_device_cannot_take_the_room_of_the_others() {
    // case D8
    let nid = |number| Nid::new(number, crate::ids::NidScheme::Decimal).ok();
    let mut inbox = empty(InboxLimits { messages_max: 1000, bytes_max: 1 << 30, ..LIMITS });
    let mut flood = 0;
    while has_room(&inbox, 1, nid(1)) {
        post(&mut inbox, "x", nid(1));
        flood += 1;
    }
    assert_eq!(flood, 1000 / SENDERS);
    assert!(has_room(&inbox, 1, nid(2)) && has_room(&inbox, 1, None));
    subscribe(&mut inbox, key(1), None);
    let letters = take(&mut inbox, key(1), 1);
    inbox.acknowledge(key(1), letters[0].0);
    assert!(has_room(&inbox, 1, nid(1)), "what is fetched makes room again");
}

#[test]
fn a_full_inbox_says_so_before_anything_is_posted() {
    let mut inbox = empty(LIMITS);
    for _ in 0..3 {
        assert!(has_room(&inbox, 1, None));
        post(&mut inbox, "x", None);
    }
    assert!(!has_room(&inbox, 1, None));
    assert!(!has_room(&empty(LIMITS), 101, Some(Nid::FIRST)));
    assert!(has_room(&empty(LIMITS), 101, None), "what the control unit writes is not lost");
}
