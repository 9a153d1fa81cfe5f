//! Equal B1s that are delivered as one.

use super::*;

fn rig() -> Rig {
    let auto = Settings { auto: Auto::On, auto_members: 2, ..Settings::default() };
    Rig::with_settings(auto)
}

impl Rig {
    fn window_ends(&mut self) -> Vec<SessionKey> {
        self.wait(1);
        self.unit.send_due(self.now, &mut Heard::default())
    }
}

#[test]
fn who_leaves_the_group_meanwhile_gets_it_alone() {
    let mut rig = rig();
    for number in 1..=3 {
        rig.server(number, 0, "msg").unwrap();
    }
    rig.unit.put_device(eid(2), &[gid(77)], "").unwrap();
    rig.unit.remove_device(eid(3)).unwrap();
    assert_eq!(rig.mail(1).len(), 0, "it waits");
    rig.window_ends();
    assert_eq!([rig.mail(1).len(), rig.mail(2).len()], [1, 1]);
    assert_eq!(rig.mail(2), [letter(2, 0, "msg")]);
}

#[test]
fn a_message_to_another_group_hurries_nobody() {
    let mut rig = rig();
    rig.server(1, 0, "msg").unwrap();
    rig.server(0, 77, "trigger").unwrap();
    rig.server(2, 0, "msg").unwrap();
    rig.window_ends();
    let (events, _) = rig.unit.take_events();
    assert!(events.contains(&Event::Decided(gid(42), Reason::Merged(2))), "{events:?}");
    // One to a group of one of them goes behind it.
    rig.server(1, 0, "msg").unwrap();
    rig.server(0, 42, "trigger").unwrap();
    assert_eq!(rig.mail(1).len(), 3);
    assert!(rig.mail(1)[2].contains("trigger"));
}

#[test]
fn who_gives_its_profile_away_meanwhile_gets_none_of_it() {
    let auto = Settings { auto: Auto::On, auto_members: 2, ..Settings::default() };
    let settings = SettingsTable::new(auto, Default::default());
    let mut rig = Rig::with(ControlOptions { retire: true, settings, ..Default::default() });
    rig.peer(3, 1, 42, "req(3)").unwrap();
    rig.peer(1, 3, 42, "profile(1)").unwrap();
    for number in [1, 2] {
        rig.server(number, 0, "msg").unwrap();
    }
    let device = rig.attach(3, 3);
    let letters = rig.pull(device, 3);
    rig.arrived(device, letters[0].id);
    rig.window_ends();
    assert_eq!([rig.mail(1).len(), rig.mail(2).len()], [1, 1], "device 1 has its request alone");
    let states = rig.unit.campaigns(None, rig.now).map(|campaign| {
        let Target::Device(nid) = campaign.target else { panic!("{campaign:?}") };
        (nid.unwrap(), campaign.tally.of(DeviceState::Cancelled))
    });
    let states: std::collections::BTreeMap<Nid, u32> = states.collect();
    assert_eq!(states, [(eid(1), 1), (eid(2), 0)].into(), "and it does not vanish");
}
