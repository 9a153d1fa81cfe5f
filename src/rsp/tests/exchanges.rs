//! Exchanges between devices, and what they mean for those who have given their profile away.

use super::*;

impl Rig {
    /// Device `to` asks device `from` for its profile, and gets it.
    fn exchange(&mut self, from: u128, to: u128) {
        self.peer(to, from, 42, &format!("req({to})")).unwrap();
        self.fetched(from);
        self.peer(from, to, 42, &format!("profile({from})")).unwrap();
        self.fetched(to);
    }

    fn fetched(&mut self, number: u128) {
        let device = self.attach(number, 900);
        for letter in self.pull(device, 900) {
            self.arrived(device, letter.id);
        }
        self.unit.detach(device, session(900));
    }

    fn state(&self, from: u128, to: u128) -> ExchangeState {
        let pair = Pair { from: eid(from), to: eid(to) };
        let mut all = self.unit.exchanges_behind(None);
        all.find(|(other, _)| *other == pair).unwrap().1.state
    }
}

fn retiring() -> Rig {
    Rig::with(ControlOptions { retire: true, ..ControlOptions::default() })
}

#[test]
fn a_report_of_failure_confirms_nothing() {
    let mut rig = Rig::new();
    rig.exchange(2, 1);
    assert_eq!(rig.state(2, 1), ExchangeState::Unreported);
    rig.device(1, 1, 0, r#"ret(msg) ,"rc":3"#).unwrap();
    assert_eq!(rig.state(2, 1), ExchangeState::Unconfirmed);
    rig.exchange(2, 3);
    rig.device(3, 3, 0, "ret(msg)").unwrap();
    assert_eq!(rig.state(2, 3), ExchangeState::Confirmed);
}

#[test]
fn a_profile_is_given_away_once() {
    let mut rig = retiring();
    for to in [1, 3] {
        rig.peer(to, 2, 42, &format!("req({to})")).unwrap();
    }
    rig.peer(2, 1, 42, "profile(2)").unwrap();
    assert_eq!(rig.peer(2, 3, 42, "profile(2)"), Err(Refusal::DeviceReplaced), "on its way");
    rig.fetched(1);
    assert_eq!(rig.peer(2, 3, 42, "profile(2)"), Err(Refusal::DeviceReplaced), "gone");
    assert!(rig.unit.reinstate(eid(2)));
    rig.peer(2, 3, 42, "profile(2)").unwrap();
}

#[test]
fn without_retirement_it_is_none_of_the_brokers_business() {
    let mut rig = Rig::new();
    for to in [1, 3] {
        rig.peer(to, 2, 42, &format!("req({to})")).unwrap();
        rig.peer(2, to, 42, "profile(2)").unwrap();
    }
}

#[test]
fn who_asks_again_for_a_profile_on_its_way_opens_no_way_for_another_one() {
    let mut rig = retiring();
    for to in [1, 3] {
        rig.peer(to, 2, 42, &format!("req({to})")).unwrap();
    }
    rig.peer(2, 1, 42, "profile(2)").unwrap();
    let again = rig.peer(1, 2, 42, "req(1)");
    assert_eq!(again, Err(Refusal::ExchangeAlreadyOpen), "the profile is on its way");
    assert_eq!(rig.peer(2, 3, 42, "profile(2)"), Err(Refusal::DeviceReplaced));
    rig.fetched(1);
    assert_eq!(rig.state(2, 1), ExchangeState::Unreported);
}

#[test]
fn a_profile_that_cannot_be_delivered_may_be_asked_for_again() {
    let mut rig = retiring();
    for to in [1, 3] {
        rig.peer(to, 2, 42, &format!("req({to})")).unwrap();
    }
    rig.peer(2, 1, 42, "profile(2)").unwrap();
    let device = rig.attach(1, 1);
    let letters = rig.pull(device, 1);
    let discarded = rig.unit.discard(device, letters[0].id, rig.now);
    assert_eq!(discarded.map(|discarded| discarded.form), Some(Form::Peer));
    assert_eq!(rig.state(2, 1), ExchangeState::Expired);
    rig.peer(1, 2, 42, "req(1)").unwrap();
    rig.peer(2, 3, 42, "profile(2)").unwrap();
    assert_eq!(rig.peer(2, 1, 42, "profile(2)"), Err(Refusal::DeviceReplaced), "on its way");
}

#[test]
fn a_profile_that_expires_on_its_way_is_given_away_all_the_same() {
    let mut rig = retiring();
    for to in [1, 3] {
        rig.peer(to, 2, 42, &format!("req({to})")).unwrap();
    }
    let text = letter(1, 42, "profile(2)");
    let head = crate::rsp::envelope::read(text.as_bytes(), NidScheme::Eid).unwrap();
    let from = Identity::device(eid(2));
    let submission = Submission::new(&from, TO_EUICC, &head, text.len());
    let brief = message(&text, rig.now.after(Duration::from_secs(1)));
    rig.unit.publish(&submission, &brief, rig.now).unwrap();
    let device = rig.attach(1, 1);
    let letters = rig.pull(device, 1);
    rig.wait(2);
    rig.unit.sweep(rig.now);
    assert_eq!(rig.peer(2, 3, 42, "profile(2)"), Err(Refusal::DeviceReplaced));
    // Where it does not arrive it is over, and another one may have it.
    rig.unit.detach(device, session(1));
    rig.wait(2);
    rig.unit.sweep(rig.now);
    assert!(rig.unit.acknowledge(device, letters[0].id, rig.now).is_none());
    rig.peer(2, 3, 42, "profile(2)").unwrap();
}
