//! Mail: order, snapshots, readers, acknowledgements, expiry.

use super::*;

/// Numbers the messages, so that they can be told apart: the body's `tid`.
fn numbered(kind: &str, number: u32) -> String {
    format!("{kind} ,\"tid\":{number}")
}

fn number(letter: &Letter) -> i128 {
    match super::super::envelope::read(&letter.message.payload, NidScheme::Eid).unwrap().tid {
        Some(Tid::Number(number)) => number,
        other => panic!("no number: {other:?}"),
    }
}

impl Rig {
    fn single(&mut self, nid: u128, tag: u32) -> Outcome {
        self.server(nid, 0, &numbered("msg", tag)).unwrap()
    }

    /// One that expires in so many seconds.
    fn single_for(&mut self, nid: u128, tag: u32, secs: u64) {
        let text = letter(nid, 0, &numbered("msg", tag));
        let head = super::super::envelope::read(text.as_bytes(), NidScheme::Eid).unwrap();
        let (from, expires) = (Identity::server("s"), self.now.after(Duration::from_secs(secs)));
        let submission = Submission::new(&from, TO_EUICC, &head, text.len());
        self.unit.publish(&submission, &message(&text, expires), self.now).unwrap();
    }

    fn group(&mut self, gid: u64, tag: u32) -> Outcome {
        self.server(0, gid, &numbered("msg", tag)).unwrap()
    }

    fn numbers(&mut self, device: DeviceKey, slot: u32, room: usize) -> Vec<i128> {
        let letters = self.unit.pull(device, session(slot), room, self.now);
        letters.iter().map(number).collect()
    }

    fn acknowledge(&mut self, device: DeviceKey, letters: &[Letter]) {
        for letter in letters {
            self.unit.acknowledge(device, letter.id, self.now);
        }
    }

    fn waiting(&mut self, device: u128) -> Vec<i128> {
        let key = self.attach(device, 999);
        let numbers = self.numbers(key, 999, usize::MAX);
        self.unit.detach(key, session(999));
        numbers
    }
}

fn expired(to_devices: u64, to_groups: u64) -> ExpiredLetters {
    ExpiredLetters { to_devices, to_groups }
}

#[test]
fn own_mail_and_that_of_all_groups_come_in_publish_order() {
    let mut rig = Rig::new();
    rig.group(77, 1);
    rig.single(3, 2);
    rig.group(42, 3);
    rig.group(77, 4);
    rig.single(3, 5);
    rig.single(2, 6);
    let device = rig.attach(3, 0);
    assert_eq!(rig.numbers(device, 0, 2), [1, 2]);
    assert_eq!(rig.numbers(device, 0, 0), []);
    assert_eq!(rig.numbers(device, 0, 9), [3, 4, 5]);
    assert_eq!(rig.numbers(device, 0, 9), []);
    rig.group(42, 7);
    assert_eq!(rig.numbers(device, 0, 9), [7]);
}

#[test]
fn a_publish_wakes_the_readers_of_its_audience_and_nobody_else() {
    let mut rig = Rig::new();
    for (device, slot) in [(1, 11), (3, 13), (4, 14)] {
        rig.attach(device, slot);
    }
    assert_eq!(rig.group(42, 1).wake, [session(11), session(13)]);
    assert_eq!(rig.group(77, 2).wake, [session(13), session(14)]);
    assert_eq!(rig.single(4, 3).wake, [session(14)]);
    assert_eq!(rig.single(2, 4).wake, [], "is away");
}

#[test]
fn a_letter_leaves_when_all_its_receivers_acknowledged_it() {
    let mut rig = Rig::new();
    rig.group(42, 1);
    for member in 1..=3 {
        assert_eq!(rig.unit.stats().mail_messages, 1);
        let device = rig.attach(member, 0);
        let letters = rig.pull(device, 0);
        rig.acknowledge(device, &letters);
        rig.acknowledge(device, &letters);
    }
    let stats = rig.unit.stats();
    assert_eq!((stats.mail_messages, stats.mail_bytes), (0, 0));
}

#[test]
fn only_what_was_taken_can_be_acknowledged() {
    let mut rig = Rig::new();
    rig.single(1, 1);
    rig.single(2, 2);
    let (one, two) = (rig.attach(1, 1), rig.attach(2, 2));
    let of_two = rig.pull(two, 2);
    rig.acknowledge(one, &of_two);
    for id in 0..9 {
        rig.unit.acknowledge(one, id, rig.now);
    }
    assert_eq!((rig.waiting(1), rig.waiting(2)), (vec![1], vec![2]));
}

#[test]
fn acknowledgements_in_any_order_leave_the_rest_in_order() {
    let mut rig = Rig::new();
    for tag in 1..=3 {
        rig.single(3, 2 * tag);
        rig.group(42, 2 * tag + 1);
    }
    let device = rig.attach(3, 0);
    let letters = rig.pull(device, 0);
    assert_eq!(letters.len(), 6);
    rig.acknowledge(device, &[letters[4].clone(), letters[1].clone()]);
    assert_eq!(rig.numbers(device, 0, 9), [], "none twice to the same reader");
    rig.unit.detach(device, session(0));
    assert_eq!(rig.waiting(3), [2, 4, 5, 7]);
}

#[test]
fn the_newest_reader_is_the_only_one() {
    let mut rig = Rig::new();
    rig.group(42, 1);
    let device = rig.attach(1, 10);
    assert_eq!(rig.numbers(device, 10, 9), [1]);
    rig.attach(1, 10);
    assert_eq!(rig.numbers(device, 10, 9), [], "attached again, the same reader goes on");
    rig.attach(1, 20);
    assert_eq!(rig.unit.stats().devices_online, 1);
    assert_eq!(rig.numbers(device, 10, 9), []);
    rig.unit.detach(device, session(10));
    assert_eq!(rig.group(42, 2).wake, [session(20)]);
    assert_eq!(rig.numbers(device, 20, 9), [1, 2]);
    rig.unit.detach(device, session(20));
    assert_eq!(rig.group(42, 3).wake, []);
    assert_eq!(rig.unit.stats().devices_online, 0);
}

#[test]
fn membership_is_the_snapshot_at_publish_time() {
    let mut rig = Rig::new();
    rig.group(42, 1);
    rig.unit.put_device(eid(5), &[gid(42)], "").unwrap();
    rig.unit.put_device(eid(1), &[], "").unwrap();
    rig.group(42, 2);
    assert_eq!(rig.waiting(5), [2], "joined later");
    assert_eq!(rig.waiting(1), [1], "keeps what was addressed to it");
    rig.unit.put_device(eid(1), &[gid(42)], "").unwrap();
    rig.group(42, 3);
    assert_eq!(rig.waiting(1), [1, 3], "not what was published in between");
    assert_eq!(rig.waiting(2), [1, 2, 3]);
}

#[test]
fn a_reader_follows_its_device_into_and_out_of_groups() {
    let mut rig = Rig::new();
    let device = rig.attach(1, 0);
    rig.group(42, 1);
    rig.group(42, 2);
    let first = rig.unit.pull(device, session(0), 1, rig.now);
    rig.unit.put_device(eid(1), &[gid(77)], "").unwrap();
    assert_eq!(rig.group(42, 3).wake, []);
    assert_eq!(rig.group(77, 4).wake, [session(0)]);
    assert_eq!(rig.numbers(device, 0, 9), [2, 4]);
    rig.acknowledge(device, &first);
    rig.unit.detach(device, session(0));
    assert_eq!(rig.waiting(1), [2, 4]);
}

#[test]
fn a_sweep_pays_for_a_group_by_its_size() {
    let mut options = ControlOptions::default();
    options.limits.sweep_max = 3;
    let mut rig = Rig::with(options);
    for number in 100..1_700 {
        rig.unit.put_device(eid(number), &[gid(9)], "").unwrap();
    }
    (1..=3).for_each(|tag| drop(rig.group(9, tag)));
    rig.group(77, 4);
    rig.wait(40 * 24 * 3600);
    for left in [3, 2, 1] {
        assert_eq!(rig.unit.stats().mail_messages, left + 1);
        let swept = rig.unit.sweep(rig.now);
        assert_eq!((swept.letters, swept.more), (expired(0, 1), true));
    }
    assert_eq!(rig.unit.sweep(rig.now).letters, expired(0, 1), "of the small group");
    while rig.unit.sweep(rig.now).more {}
    assert_eq!(rig.unit.stats().campaigns_open, 0);
}

#[test]
fn a_removed_device_loses_its_mail_and_its_slot_inherits_nothing() {
    let settings = Settings { peer: Peer::ServerTriggered, ..Settings::default() };
    let mut rig = Rig::with_settings(settings);
    rig.single(1, 1);
    rig.group(42, 2);
    rig.server(0, 42, "trigger").unwrap();
    rig.peer(1, 2, 42, "req(1)").unwrap();
    let old = rig.attach(1, 0);
    assert_eq!(rig.unit.remove_device(eid(1)), Some(Some(session(0))));
    assert_eq!(rig.unit.remove_device(eid(1)), None);
    assert_eq!(rig.unit.stats().exchanges, 0);
    assert!(rig.unit.pull(old, session(0), 9, rig.now).is_empty());
    let new = rig.unit.put_device(eid(6), &[gid(42)], "").unwrap();
    assert!(new.is_new);
    assert_eq!(rig.waiting(6), []);
    let answer = rig.device(6, 0, 42, "ret(trigger)");
    assert_eq!(answer.unwrap_err(), Refusal::UnsolicitedAnswer);
    let answer = rig.device(6, 0, 42, "ret(msg)");
    assert_eq!(answer.unwrap_err(), Refusal::UnsolicitedAnswer);
    assert_eq!(rig.peer(6, 2, 42, "req(6)").unwrap_err(), Refusal::PeerNotPermitted);
    rig.unit.detach(old, session(0));
    assert_eq!(rig.group(42, 3).reached, 3);
    assert_eq!(rig.waiting(6), [3]);
}

#[test]
fn the_last_receivers_removal_frees_a_group_letter() {
    let mut rig = Rig::new();
    rig.group(77, 1);
    rig.unit.remove_device(eid(3));
    assert_eq!(rig.unit.stats().mail_messages, 1);
    rig.unit.remove_device(eid(4));
    let stats = rig.unit.stats();
    assert_eq!((stats.mail_messages, stats.mail_bytes), (0, 0));
}

#[test]
fn mail_expires_on_its_own_time_or_the_general_one() {
    let options =
        ControlOptions { mail_ttl: Duration::from_secs(100), ..ControlOptions::default() };
    let mut rig = Rig::with(options);
    rig.single_for(1, 1, 10);
    rig.group(42, 2);
    rig.single(1, 3);
    assert_eq!(rig.waiting(1), [1, 2, 3]);
    rig.wait(10);
    assert_eq!(rig.waiting(1), [2, 3]);
    assert_eq!(
        rig.unit.sweep(rig.now),
        Swept { letters: expired(1, 0), requests: 1, ..Swept::default() }
    );
    rig.wait(90);
    assert_eq!(rig.waiting(1), []);
    assert_eq!(rig.unit.sweep(rig.now).letters, expired(1, 1));
    let stats = rig.unit.stats();
    assert_eq!((stats.mail_messages, stats.mail_bytes), (0, 0));
}

#[test]
fn each_letter_expires_in_its_own_time_whatever_lies_beside_it() {
    let mut rig = Rig::new();
    for (tag, secs) in [(1, 30), (2, 10), (3, 20), (4, 25)] {
        rig.single_for(1, tag, secs);
    }
    let device = rig.attach(1, 0);
    let letters = rig.pull(device, 0);
    rig.acknowledge(device, &letters[1..2]);
    rig.wait(22);
    assert_eq!(rig.unit.sweep(rig.now).letters, expired(0, 0), "all are taken");
    rig.unit.put_back(device, session(0), &[letters[2].id]);
    assert_eq!(rig.unit.sweep(rig.now).letters, expired(1, 0), "was put back");
    rig.unit.detach(device, session(0));
    assert_eq!(rig.unit.sweep(rig.now).letters, expired(0, 0));
    rig.wait(3);
    assert_eq!(rig.unit.sweep(rig.now).letters, expired(1, 0), "has gone back before");
    assert_eq!(rig.waiting(1), [1]);
    rig.wait(5);
    assert_eq!(rig.unit.sweep(rig.now).letters, expired(1, 0));
    assert_eq!(rig.unit.stats().mail_messages, 0);
}

#[test]
fn a_profile_that_is_being_delivered_does_not_expire() {
    // The change happens on the device whatever our calendar says, so the server must hear of it.
    let options =
        ControlOptions { mail_ttl: Duration::from_secs(100), ..ControlOptions::default() };
    let mut rig = Rig::with(options);
    rig.peer(2, 1, 42, "req(2)").unwrap();
    rig.peer(1, 2, 42, "profile(1)").unwrap();
    let device = rig.attach(2, 0);
    let letters = rig.pull(device, 0);
    rig.wait(100);
    rig.unit.sweep(rig.now);
    assert!(rig.arrived(device, letters[0].id).change.is_some());
    // But when it goes back instead, it is over.
    rig.peer(2, 1, 42, "req(2)").unwrap();
    rig.peer(1, 2, 42, "profile(1)").unwrap();
    rig.pull(device, 0);
    rig.wait(100);
    rig.unit.sweep(rig.now);
    rig.unit.detach(device, session(0));
    assert!(rig.mail(2).is_empty());
    rig.unit.sweep(rig.now);
    assert_eq!(rig.unit.stats().mail_messages, 0);
}

#[test]
fn a_sweep_does_bounded_work() {
    let mut options = ControlOptions::default();
    options.limits.sweep_max = 3;
    let mut rig = Rig::with(options);
    for tag in 0..4 {
        rig.single(5, tag);
    }
    rig.wait(40 * 24 * 3600);
    let swept = Swept { letters: expired(3, 0), requests: 3, more: true, ..Swept::default() };
    assert_eq!(rig.unit.sweep(rig.now), swept, "with a letter ends its request");
    let rest = Swept { letters: expired(1, 0), requests: 1, ..Swept::default() };
    assert_eq!(rig.unit.sweep(rig.now), rest);
    assert_eq!(rig.unit.sweep(rig.now), Swept::default());
}

#[test]
fn a_device_that_leaves_with_an_over_full_mailbox_is_bounded() {
    let mut options = ControlOptions::default();
    options.limits.mail_messages_max = 1;
    options.limits.group_messages_max = 2;
    let mut rig = Rig::with(options);
    for round in 0..3 {
        rig.unit.put_device(eid(5), &[gid(99)], "").unwrap();
        rig.group(99, round);
        rig.group(99, round);
        rig.unit.put_device(eid(5), &[], "").unwrap();
    }
    let stats = rig.unit.stats();
    assert_eq!((stats.mail_messages, stats.mail_dropped), (3, 3));
}

#[test]
fn unregistered_devices_have_no_mailbox() {
    let mut rig = Rig::new();
    assert_eq!(rig.unit.attach(eid(9), session(0)), Err(Refusal::NotRegistered));
}

#[test]
fn what_was_put_back_is_pulled_again_and_nothing_else() {
    let mut rig = Rig::new();
    (1..=3).for_each(|tag| drop(rig.single(3, tag)));
    rig.group(77, 4);
    let device = rig.attach(3, 0);
    let letters = rig.pull(device, 0);
    let ids = [letters[1].id, letters[3].id];
    rig.unit.put_back(device, session(1), &ids);
    assert_eq!(rig.numbers(device, 0, 9), [], "only its reader puts back");
    rig.unit.put_back(device, session(0), &ids);
    assert_eq!(rig.numbers(device, 0, 1), [2]);
    assert_eq!(rig.numbers(device, 0, 9), [4]);
    rig.acknowledge(device, &letters);
    assert_eq!(rig.unit.stats().mail_messages, 1, "the group has other members");
    assert_eq!(rig.waiting(3), []);
}
