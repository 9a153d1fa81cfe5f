//! Strict flow: what waits for a device's agreement, and what becomes of it.

use super::*;

const AGREED: &str = r#"ret(trigger) ,"rc":0"#;

fn strict() -> Rig {
    Rig::with_settings(Settings { flow: Flow::Strict, ..Settings::default() })
}

impl Rig {
    fn agree(&mut self, number: u128) -> Outcome {
        self.device(number, 0, 42, AGREED).unwrap()
    }
}

#[test]
fn what_is_held_is_over_when_its_time_is_over() {
    let mut rig = strict();
    let mut settings = rig.unit.settings().common().clone();
    settings.ttl.msg = Duration::from_secs(10);
    rig.unit.set_settings(settings).unwrap();
    rig.server(0, 42, "trigger").unwrap();
    rig.agree(1);
    rig.server(0, 42, "msg").unwrap();
    assert_eq!([rig.mail(1).len(), rig.mail(2).len()], [2, 1]);
    rig.wait(10);
    rig.agree(2);
    assert_eq!(rig.mail(2).len(), 1, "the trigger alone, swept or not");
    rig.unit.sweep(rig.now);
    assert_eq!(rig.mail(2).len(), 1);
}

#[test]
fn who_agrees_gets_what_was_held_for_it_whatever_holds_by_then() {
    let mut rig = strict();
    let device = rig.attach(1, 1);
    rig.server(0, 42, "trigger").unwrap();
    rig.server(0, 42, "msg").unwrap();
    assert_eq!(rig.pull(device, 1).len(), 1);
    rig.unit.set_settings(Settings::default()).unwrap();
    // What is open stays open, and what is held is held.
    rig.server(0, 42, "trigger").unwrap();
    assert_eq!(rig.pull(device, 1).len(), 1);
    assert_eq!(rig.agree(1).wake, [session(1)]);
    assert_eq!(rig.pull(device, 1).len(), 1, "the message");
}

#[test]
fn nobody_is_woken_for_nothing() {
    let mut rig = strict();
    rig.attach(1, 1);
    rig.server(0, 42, "trigger").unwrap();
    assert_eq!(rig.agree(1).wake, []);
}

#[test]
fn what_is_on_its_way_to_a_member_stays_its_own_when_it_leaves() {
    let mut rig = strict();
    rig.server(0, 42, "trigger").unwrap();
    rig.agree(1);
    rig.server(0, 42, "msg").unwrap();
    let device = rig.attach(1, 1);
    assert_eq!(rig.pull(device, 1).len(), 2);
    rig.unit.put_device(eid(1), &[], "").unwrap();
    // The link is cut before it has acknowledged either.
    rig.unit.detach(device, session(1));
    assert_eq!(rig.mail(1).len(), 2);
    // What was held back from another is not its own.
    rig.unit.put_device(eid(2), &[], "").unwrap();
    assert_eq!(rig.mail(2).len(), 1);
}

#[test]
fn an_agreement_does_not_come_back_when_a_refusal_is_old() {
    let mut rig = strict();
    let id = rig.server(0, 42, r#"trigger ,"tid":1"#).unwrap().campaign.unwrap();
    rig.device(1, 0, 42, r#"ret(trigger) ,"tid":1"#).unwrap();
    rig.mail(2);
    rig.wait(3600);
    rig.server(0, 42, r#"trigger ,"tid":2"#).unwrap();
    rig.device(1, 0, 42, r#"ret(trigger) ,"tid":2,"rc":1"#).unwrap();
    // Whoever has it and has said nothing is asked again, which makes the first one the later.
    let device = rig.attach(2, 1);
    for letter in rig.pull(device, 1) {
        rig.arrived(device, letter.id);
    }
    rig.wait(3600);
    rig.unit.retry(id, false, rig.now).unwrap();
    let ttl = rig.unit.settings().common().ttl.trigger;
    rig.now = rig.now.after(ttl - Duration::from_secs(1800));
    assert_eq!(rig.server(1, 0, "msg"), Err(Refusal::ConsentMissing));
    rig.unit.sweep(rig.now);
    assert_eq!(rig.server(1, 0, "msg"), Err(Refusal::ConsentMissing));
}

#[test]
fn a_trigger_that_no_client_takes_says_nothing() {
    let mut rig = strict();
    rig.server(5, 0, "trigger").unwrap();
    rig.device(5, 5, 0, AGREED).unwrap();
    rig.mail(5);
    rig.server(5, 0, "trigger").unwrap();
    let device = rig.attach(5, 1);
    for letter in rig.pull(device, 1) {
        rig.unit.discard(device, letter.id, rig.now).unwrap();
    }
    rig.server(5, 0, "msg").unwrap();
}

#[test]
fn the_last_word_of_a_device_counts_whichever_trigger_it_answers() {
    let mut rig = strict();
    let rc = |tid: char, rc: i64| format!(r#"ret(trigger) ,"tid":"{tid}","rc":{rc}"#);
    for tid in ['a', 'b', 'c'] {
        rig.server(1, 0, &format!(r#"trigger ,"tid":"{tid}""#)).unwrap();
    }
    rig.device(1, 1, 0, &rc('b', 0)).unwrap();
    rig.server(1, 0, "msg").unwrap();
    rig.device(1, 1, 0, &rc('a', 1)).unwrap();
    assert_eq!(rig.server(1, 0, "msg"), Err(Refusal::ConsentMissing), "it has changed its mind");
    rig.device(1, 1, 0, &rc('c', 0)).unwrap();
    rig.server(1, 0, "msg").unwrap();
}

#[test]
fn what_a_device_says_late_counts_in_the_group_as_well_and_the_other_way_round() {
    let mut rig = strict();
    let answer = |group: u64, tid: char, rc: i64| {
        (if group == 0 { 1 } else { 0 }, group, format!(r#"ret(trigger) ,"tid":"{tid}","rc":{rc}"#))
    };
    rig.server(1, 0, r#"trigger ,"tid":"a""#).unwrap();
    rig.server(0, 42, r#"trigger ,"tid":"b""#).unwrap();
    rig.server(1, 0, r#"trigger ,"tid":"c""#).unwrap();
    let say = |rig: &mut Rig, (nid, gid, kind): (u128, u64, String)| {
        rig.device(1, nid, gid, &kind).unwrap();
        rig.server(1, 0, "msg").is_ok()
    };
    assert!(say(&mut rig, answer(0, 'c', 0)));
    assert!(!say(&mut rig, answer(0, 'a', 1)));
    assert!(say(&mut rig, answer(42, 'b', 0)));
    assert_eq!(rig.unit.ledger.said_late(), 2);
    rig.unit.remove_device(eid(1)).unwrap();
    assert_eq!(rig.unit.ledger.said_late(), 0, "it leaves nothing behind");
}
