//! Servers whose clients do not take packets of any size.

use super::*;

const LARGE: &str = "a message that is larger than the packets which the small ones take, by far";

fn reader(slot: u32, packet_bytes_max: u32) -> Reader {
    Reader { key: key(slot), packet_bytes_max }
}

fn sit(inbox: &mut Inbox, reader: Reader, group: Option<&str>) {
    inbox.subscribe(reader, group, &"sm-sr".into(), None);
}

fn is_too_large(inbox: &Inbox, payload: &'static str) -> bool {
    inbox.is_too_large(&message(payload), &Addressee::default(), NOW)
}

fn roomy() -> Inbox {
    empty(InboxLimits { bytes_max: 10_000, ..LIMITS })
}

#[test]
fn what_is_too_large_for_one_of_a_group_goes_to_another_one() {
    let mut inbox = roomy();
    sit(&mut inbox, reader(1, 60), Some("g"));
    sit(&mut inbox, reader(2, 200), Some("g"));
    assert!(!is_too_large(&inbox, LARGE));
    assert_eq!(post(&mut inbox, LARGE, None).too_large, 0);
    post(&mut inbox, "small", None);
    assert_eq!(texts(&take(&mut inbox, key(1), 9)), ["small"], "what is behind is not held up");
    assert_eq!(texts(&take(&mut inbox, key(2), 9)), [LARGE]);
}

#[test]
fn who_takes_no_such_packet_has_no_copy_of_it() {
    let mut inbox = roomy();
    sit(&mut inbox, reader(1, 60), None);
    sit(&mut inbox, reader(2, 200), None);
    let posted = post(&mut inbox, LARGE, None);
    assert_eq!((posted.too_large, posted.full, &posted.wake[..]), (1, 0, &[key(2)][..]));
    assert_eq!(inbox.len(), 1);
    assert!(take(&mut inbox, key(1), 9).is_empty());
    let letters = take(&mut inbox, key(2), 9);
    inbox.acknowledge(key(2), letters[0].0);
    assert!(inbox.is_empty());
}

#[test]
fn what_nobody_takes_who_is_there_is_too_large_and_waits_where_it_was_accepted() {
    let mut inbox = roomy();
    assert!(!is_too_large(&inbox, LARGE), "who comes may take it");
    post(&mut inbox, LARGE, None);
    sit(&mut inbox, reader(1, 60), None);
    assert!(is_too_large(&inbox, LARGE) && !is_too_large(&inbox, "small"));
    assert!(take(&mut inbox, key(1), 9).is_empty());
    // The same session, with a client that takes more; then with the former one again.
    inbox.resize(reader(1, 200));
    assert!(!is_too_large(&inbox, LARGE));
    let letters = take(&mut inbox, key(1), 9);
    assert_eq!(texts(&letters), [LARGE]);
    inbox.resize(reader(1, 60));
    inbox.put_back(key(1), &[letters[0].0]);
    assert!(take(&mut inbox, key(1), 9).is_empty());
    // Another session.
    inbox.leave(key(1), NOW);
    sit(&mut inbox, reader(2, u32::MAX), None);
    assert_eq!(texts(&take(&mut inbox, key(2), 9)), [LARGE]);
}

#[test]
fn the_smallest_counts_for_what_all_may_get() {
    let mut inbox = roomy();
    assert_eq!(inbox.packet_bytes_max(&Addressee::default()), u32::MAX);
    sit(&mut inbox, reader(1, 500), Some("g"));
    sit(&mut inbox, reader(2, 300), Some("g"));
    sit(&mut inbox, reader(3, 400), None);
    assert_eq!(inbox.packet_bytes_max(&Addressee::default()), 300);
    inbox.leave(key(2), NOW);
    assert_eq!(inbox.packet_bytes_max(&Addressee::default()), 400);
}
