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
