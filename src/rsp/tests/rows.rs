//! What is written down is all there is to know: a control unit that was put together from it does
//! what the other does, after every step.

use proptest::prelude::*;

use super::super::rows::Table;
use super::disk::Disk;
use super::*;

/// Devices 1 and 2 in group 42, device 3 in 42 and 77, device 4 in 77, device 5 in none.
fn file() -> String {
    let lines = [(1, "42"), (2, "42"), (3, "42;77"), (4, "77"), (5, "")];
    lines.iter().map(|(number, gids)| format!("{},{gids},mno=acme\n", eid(*number))).collect()
}

#[derive(Clone, Debug)]
enum Op {
    /// By a server: to a device or a group, of this kind, with these members.
    Server(u128, u64, usize, usize),
    /// By a device, in its own name or a group's.
    Device(u128, u64, usize, usize),
    /// By one device to another.
    Peer(u128, u128, bool),
    /// A device takes so many letters, and acknowledges them.
    Fetch(u128, usize),
    Put(u128, u8),
    Remove(u128),
    Import(u128, bool),
    Reinstate(u128),
    Settings(usize, bool),
    Retry(u64, bool),
    Cancel(u64),
    Release(u64),
    /// What waits for others is due; the servers have room or not.
    SendDue(bool),
    Wait(u64),
    Sweep,
}

const SERVER_KINDS: [&str; 3] = ["msg", "trigger", "ret(trigger)"];
const DEVICE_KINDS: [&str; 3] = ["ret(msg)", "ret(trigger)", "trigger"];
const MEMBERS: [&str; 7] = [
    "",
    r#","tid":7"#,
    r#","tid":"x","campaign":"autumn""#,
    r#","wave":{"first":1}"#,
    r#","chunks":true"#,
    r#","rc":1"#,
    r#","parts":true"#,
];

fn op() -> impl Strategy<Value = Op> {
    let device = || 1..6_u128;
    let group = || prop_oneof![Just(42_u64), Just(77)];
    let (kind, members) = (|| 0..3_usize, || 0..MEMBERS.len());
    prop_oneof![
        8 => (device(), kind(), members()).prop_map(|(n, k, m)| Op::Server(n, 0, k, m)),
        8 => (group(), kind(), members()).prop_map(|(g, k, m)| Op::Server(0, g, k, m)),
        9 => (device(), prop_oneof![Just(0), group()], kind(), members())
            .prop_map(|(n, g, k, m)| Op::Device(n, g, k, m)),
        5 => (device(), device(), any::<bool>()).prop_map(|(a, b, p)| Op::Peer(a, b, p)),
        8 => (device(), 1..4_usize).prop_map(|(n, count)| Op::Fetch(n, count)),
        2 => (device(), 0..4_u8).prop_map(|(n, groups)| Op::Put(n, groups)),
        1 => device().prop_map(Op::Remove),
        1 => (device(), any::<bool>()).prop_map(|(n, replaces)| Op::Import(n, replaces)),
        1 => device().prop_map(Op::Reinstate),
        2 => (0..6_usize, any::<bool>()).prop_map(|(s, group)| Op::Settings(s, group)),
        2 => (1..8_u64, any::<bool>()).prop_map(|(id, failed)| Op::Retry(id, failed)),
        1 => (1..8_u64).prop_map(Op::Cancel),
        1 => (1..8_u64).prop_map(Op::Release),
        3 => any::<bool>().prop_map(Op::SendDue),
        3 => (0..500_000_u64).prop_map(Op::Wait),
        2 => Just(Op::Sweep),
    ]
}

fn options() -> ControlOptions {
    let rate = TriggerRate { device: Rate::OFF, group: Rate::OFF };
    let common = Settings { trigger_rate: rate, chunk: 300, ..Settings::default() };
    let settings = SettingsTable::new(common, Default::default());
    ControlOptions { settings, retire: true, ..ControlOptions::default() }
}

/// Without which no member could be left out.
fn body(members: &str) -> String {
    if members.contains("parts") {
        format!(r#"{{"parts":{{"{}":1,"{}":2}},"common":"c"}}"#, eid(1), eid(3))
    } else if members.contains("chunks") {
        format!("{:?}", "a long text that does not fit into one piece. ".repeat(12))
    } else {
        "null".to_owned()
    }
}

/// An envelope with these members.
fn envelope(nid: u128, gid: u64, kind: &str, members: &str) -> String {
    let body = format!("\"body\":{}", body(members));
    letter(nid, gid, &format!("{kind} {members}")).replace("\"body\":null", &body)
}

impl Rig {
    /// Does it, and tells all that it has led to.
    fn apply(&mut self, op: &Op) -> String {
        match op {
            Op::Server(nid, gid, kind, members) => {
                let text = envelope(*nid, *gid, SERVER_KINDS[*kind], MEMBERS[*members]);
                told(self.publish(&Identity::server("sm-sr"), TO_EUICC, &text))
            }
            Op::Device(by, gid, kind, members) => {
                let nid = if *gid == 0 { *by } else { 0 };
                let text = envelope(nid, *gid, DEVICE_KINDS[*kind], MEMBERS[*members]);
                told(self.publish(&Identity::device(eid(*by)), TO_SM_SR, &text))
            }
            Op::Peer(by, to, is_profile) => {
                let kind = if *is_profile { "profile" } else { "req" };
                told(self.peer(*by, *to, 42, &format!("{kind}({by})")))
            }
            Op::Fetch(number, count) => format!("{:?}", self.fetch_some(*number, *count)),
            Op::Put(number, groups) => {
                let gids = [42, 77].into_iter().enumerate();
                let gids = gids.filter(|(at, _)| groups & (1 << at) != 0);
                let gids: Vec<Gid> = gids.map(|(_, number)| gid(number)).collect();
                format!("{:?}", self.unit.put_device(eid(*number), &gids, "a=b").unwrap().is_new)
            }
            Op::Remove(number) => format!("{:?}", self.unit.remove_device(eid(*number)).is_some()),
            Op::Import(number, replaces) => {
                let csv = format!("{},42,\n{},77,\n", eid(*number), eid(*number + 1));
                let read =
                    if *replaces { ControlUnit::replace_registry } else { ControlUnit::import };
                let report = read(&mut self.unit, &csv);
                format!("{} {}", report.accepted, report.removed)
            }
            Op::Reinstate(number) => format!("{:?}", self.unit.reinstate(eid(*number))),
            Op::Settings(which, group) => self.change_settings(*which, *group),
            Op::Retry(id, failed_too) => {
                let retried = self.unit.retry(CampaignId(*id), *failed_too, self.now);
                format!("{:?}", retried.map(|(count, _)| count))
            }
            Op::Cancel(id) => format!("{:?}", self.unit.cancel(CampaignId(*id))),
            Op::Release(id) => format!("{:?}", self.unit.release(CampaignId(*id)).is_some()),
            Op::SendDue(has_room) => {
                let room = if *has_room { 3 } else { 0 };
                let mut heard = Heard { packet_bytes_max: 700, room, ..Heard::default() };
                self.unit.send_due(self.now, &mut heard);
                let sent = heard.messages.into_iter();
                let mut sent: Vec<_> =
                    sent.map(|one| (one.message.payload.clone(), one.sender, one.gid)).collect();
                // Groups are due in whatever order.
                sent.sort();
                format!("{sent:?}")
            }
            Op::Wait(ms) => {
                self.now = self.now.after(Duration::from_millis(*ms));
                String::new()
            }
            Op::Sweep => {
                let swept = self.unit.sweep(self.now);
                format!("{:?}", Swept { wake: Vec::new(), ..swept })
            }
        }
    }

    fn change_settings(&mut self, which: usize, group: bool) -> String {
        let base = GroupSettings::default();
        let changed = match which {
            0 => GroupSettings { flow: Some(Flow::Strict), ..base },
            1 => GroupSettings { coalesce: Some(Duration::from_secs(100)), ..base },
            2 => GroupSettings { auto: Some(Auto::On), auto_members: Some(2), ..base },
            3 => GroupSettings { initiator: Some(Initiator::Client), ..base },
            4 => GroupSettings { peer: Some(Peer::ServerTriggered), ..base },
            _ => base,
        };
        if group {
            return format!("{:?}", self.unit.set_group_settings(gid(42), changed));
        }
        let settings = options().settings.common().with(&changed);
        format!("{:?}", self.unit.set_settings(settings))
    }

    /// So many letters, each acknowledged before the next.
    fn fetch_some(&mut self, number: u128, count: usize) -> Vec<String> {
        let Ok(device) = self.unit.attach(eid(number), session(7)) else { return Vec::new() };
        let mut texts = Vec::new();
        for _ in 0..count {
            for letter in self.unit.pull(device, session(7), 1, self.now) {
                let arrived = self.unit.acknowledge(device, letter.id, self.now);
                texts.push(format!("{} {arrived:?}", text(&letter)));
            }
        }
        self.unit.detach(device, session(7));
        texts
    }

    /// What waits for each device.
    fn all_mail(&mut self) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        for number in 1..7 {
            let Ok(device) = self.unit.attach(eid(number), session(8)) else { continue };
            let letters = self.unit.pull(device, session(8), 100, self.now);
            self.unit.detach(device, session(8));
            all.push(letters.iter().map(text).collect());
        }
        all
    }
}

fn is_same_order(a: &ControlUnit, b: &ControlUnit) -> bool {
    let members = |unit: &ControlUnit| {
        [42, 77].map(|number| unit.registry().members_of(gid(number)).collect::<Vec<_>>())
    };
    members(a) == members(b)
}

/// Readers are another matter.
fn told(outcome: Result<Outcome, Refusal>) -> String {
    format!("{:?}", outcome.map(|outcome| Outcome { wake: Vec::new(), ..outcome }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn what_was_read_does_what_was_written(ops in proptest::collection::vec(op(), 0..80)) {
        let mut live = Rig { unit: ControlUnit::new(options()), now: Timestamp(1_000_000) };
        live.unit.load(&file());
        live.unit.keep_rows();
        let mut disk = Disk::default();
        for op in &ops {
            // What was decided and not done yet is done by who starts.
            live.unit.heed_verdicts(&mut Vec::new());
            // Each step is a transaction: any of them may be the last.
            disk.write(&mut live.unit);
            let mut copy = disk.clone();
            let mut twin = Rig { unit: copy.restored(&options(), &file()), now: live.now };
            let (seen, expected) =
                (disk.seen(&twin.unit, live.now), disk.seen(&live.unit, live.now));
            seen.lines().zip(expected.lines()).for_each(|(a, b)| assert_eq!(a, b));
            assert_eq!(twin.all_mail(), live.all_mail());
            let (done, expected) = (twin.apply(op), live.apply(op));
            // Who is first is served first, and who was put first is that.
            if is_same_order(&twin.unit, &live.unit) {
                assert_eq!(done, expected, "{op:?}");
                assert_eq!(twin.all_mail(), live.all_mail(), "{op:?}");
            }
        }
        for number in 1..7 {
            live.unit.remove_device(eid(number));
        }
        live.now = live.now.after(Duration::from_secs(10_000_000));
        live.unit.send_due(live.now, &mut Heard::default());
        while live.unit.sweep(live.now).more {}
        live.unit.sweep(live.now);
        for gid in [42, 77] {
            live.unit.set_group_settings(super::gid(gid), GroupSettings::default()).unwrap();
        }
        live.unit.set_settings(options().settings.common().clone()).unwrap();
        disk.write(&mut live.unit);
        // All that is left is that the devices of the file are removed, and the requests that are
        // remembered though they are over.
        let mut left = disk.tables();
        for table in [Table::Numbers, Table::Device, Table::Request, Table::States, Table::Roster] {
            left.remove(&table);
        }
        assert_eq!(left, Default::default());
    }
}

/// A group of so many devices, of which so many are connected.
fn crowd(devices: u128, online: u128) -> (Rig, Disk) {
    let mut rig = Rig { unit: ControlUnit::new(options()), now: Timestamp(1_000_000) };
    let csv: String = (1..=devices).map(|number| format!("{},42,\n", eid(number))).collect();
    rig.unit.load(&csv);
    rig.unit.keep_rows();
    for number in 1..=online {
        rig.attach(number, u32::try_from(number).unwrap());
    }
    let mut disk = Disk::default();
    // The members are written with the first message to them.
    rig.server(0, 42, "msg").unwrap();
    disk.write_unchecked(&mut rig.unit);
    (disk.puts, disk.bytes) = (0, 0);
    (rig, disk)
}

#[test]
fn a_message_to_a_group_is_as_many_rows_and_bytes_whatever_its_size() {
    let published = |devices| {
        let (mut rig, mut disk) = crowd(devices, 10);
        for kind in ["msg", "trigger", "msg"] {
            rig.server(0, 42, kind).unwrap();
            disk.write_unchecked(&mut rig.unit);
        }
        let published = (disk.puts, disk.bytes);
        (disk.puts, disk.bytes) = (0, 0);
        for number in 1..=10 {
            let slot = u32::try_from(number).unwrap();
            let key = rig.unit.registry().key(eid(number)).unwrap();
            for letter in rig.pull(key, slot) {
                rig.arrived(key, letter.id);
                disk.write_unchecked(&mut rig.unit);
            }
        }
        (published, disk.puts)
    };
    let (small, large) = (published(1_000), published(100_000));
    assert_eq!(small, large);
    let ((rows, bytes), _) = large;
    assert!(rows <= 3 * 3 && bytes < 3 * 400, "{rows} rows, {bytes} bytes");
}

#[test]
fn the_members_of_a_group_are_written_once_and_go_with_the_last_letter() {
    let mut options = options();
    options.limits.ended_campaigns_max = 0;
    let mut rig = Rig { unit: ControlUnit::new(options.clone()), now: Timestamp(1_000_000) };
    rig.unit.load(&file());
    rig.unit.keep_rows();
    let mut disk = Disk::default();
    for _ in 0..3 {
        rig.server(0, 42, "msg").unwrap();
        disk.write(&mut rig.unit);
        assert_eq!(disk.tables()[&Table::Roster], 1);
    }
    rig.unit.put_device(eid(9), &[gid(42)], "").unwrap();
    rig.server(0, 42, "msg").unwrap();
    disk.write(&mut rig.unit);
    assert_eq!(disk.tables()[&Table::Roster], 2, "a membership of its own");
    let mut again = Rig { unit: disk.restored(&options, &file()), now: rig.now };
    assert_eq!(disk.tables()[&Table::Roster], 2);
    again.wait(22 * 24 * 3600);
    while again.unit.sweep(again.now).more {}
    disk.write(&mut again.unit);
    assert_eq!(disk.tables().keys().collect::<Vec<_>>(), [&Table::Numbers, &Table::Device]);
    assert_eq!(disk.len(), 2, "and no message");
    drop(rig);
}

#[test]
fn what_an_operator_has_said_counts_more_than_the_file() {
    let mut rig = Rig { unit: ControlUnit::new(options()), now: Timestamp(1_000_000) };
    rig.unit.load(&file());
    rig.unit.keep_rows();
    let mut disk = Disk::default();
    rig.unit.put_device(eid(1), &[gid(77)], "x=y").unwrap();
    rig.unit.put_device(eid(9), &[gid(42)], "").unwrap();
    rig.unit.remove_device(eid(2)).unwrap();
    let of = |unit: &ControlUnit, number| {
        unit.registry()
            .device(eid(number))
            .map(|device| (device.gids.to_vec(), device.labels.to_owned()))
    };
    for _ in 0..3 {
        disk.write(&mut rig.unit);
        rig.unit = disk.restored(&options(), &file());
        let file = file();
        let mut intake = Intake::reload(&file, rig.unit.options());
        while intake.step(&mut rig.unit) {}
        assert_eq!(of(&rig.unit, 1), Some((vec![gid(77)], "x=y".to_owned())));
        assert_eq!(of(&rig.unit, 9), Some((vec![gid(42)], String::new())));
        assert_eq!(of(&rig.unit, 2), None, "it does not come back");
        assert_eq!(of(&rig.unit, 4), Some((vec![gid(77)], "mno=acme".to_owned())));
    }
    // The file forgets all of them; who was put stays.
    let empty = "nid,gids,labels\n";
    let mut intake = Intake::reload(empty, rig.unit.options());
    while intake.step(&mut rig.unit) {}
    assert_eq!(rig.unit.registry().device_count(), 2);
    disk.write(&mut rig.unit);
    assert_eq!(disk.tables()[&Table::Device], 2, "nothing has to be kept away any more");
    let back = disk.restored(&options(), &file());
    assert!(of(&back, 2).is_some(), "the file has it anew");
}

#[test]
fn who_is_no_longer_in_the_file_takes_its_things_along() {
    let mut rig = Rig { unit: ControlUnit::new(options()), now: Timestamp(1_000_000) };
    rig.unit.load(&file());
    rig.unit.keep_rows();
    let mut disk = Disk::default();
    rig.server(1, 0, "msg").unwrap();
    rig.server(0, 42, "msg").unwrap();
    rig.peer(1, 2, 42, "req(1)").unwrap();
    rig.device(1, 1, 0, "trigger").unwrap();
    rig.unit.spent.insert(eid(1), 5);
    rig.unit.spent.insert(eid(2), 5);
    disk.write(&mut rig.unit);
    // Device 1 is gone, device 2 has left the group.
    let file = format!("{},77,\n{},42;77,\n{},77,\n", eid(2), eid(3), eid(4));
    let mut rig = Rig { unit: disk.restored(&options(), &file), now: rig.now };
    let campaign = rig.unit.campaigns(None, rig.now).next().unwrap();
    assert_eq!((campaign.tally.total(), campaign.tally.of(DeviceState::Gone)), (1, 2));
    assert_eq!(rig.unit.campaigns(None, rig.now).count(), 1, "that of device 1 is gone");
    assert_eq!((rig.mail(2).len(), rig.mail(3).len()), (2, 1), "what it had not got is its own");
    assert!(rig.unit.exchanges_behind(None).next().is_none());
    assert_eq!(rig.unit.stats().wishes, 0);
    assert!(rig.unit.spent.contains(eid(2), 5) && rig.unit.spent.contains(eid(1), 5));
    disk.write(&mut rig.unit);
    let again = Rig { unit: disk.restored(&options(), &file), now: rig.now };
    assert_eq!(disk.seen(&again.unit, rig.now), disk.seen(&rig.unit, rig.now));
    assert_eq!(disk.tables().get(&Table::Wish), None);
}

#[test]
fn what_was_on_its_way_is_given_again_the_very_same() {
    let mut options = options();
    options.limits.ended_campaigns_max = 0;
    let mut rig = Rig { unit: ControlUnit::new(options.clone()), now: Timestamp(1_000_000) };
    rig.unit.load(&file());
    rig.unit.keep_rows();
    let mut disk = Disk::default();
    let server = Identity::server("sm-sr");
    for (nid, gid, members) in
        [(1, 0, ""), (0, 42, ""), (0, 42, r#","parts":true"#), (1, 0, r#","chunks":true"#)]
    {
        rig.publish(&server, TO_EUICC, &envelope(nid, gid, "msg", members)).unwrap();
    }
    let key = rig.attach(1, 1);
    let mut given = rig.pull(key, 1);
    assert_eq!(given.len(), 4);
    for at in 0..5 {
        disk.write(&mut rig.unit);
        // It was about to acknowledge all of them.
        rig.unit = disk.restored(&options, &file());
        let key = rig.attach(1, 1);
        for letter in &given {
            let again = rig.unit.take_again(key, session(1), letter.id).unwrap();
            assert_eq!(again.payload, letter.message.payload, "{at}");
            assert!(rig.unit.take_again(key, session(1), letter.id).is_none(), "once");
            assert!(rig.unit.holds(key, session(1), letter.id));
        }
        assert!(rig.pull(key, 1).is_empty(), "nothing comes twice");
        let last = given.pop().unwrap();
        rig.unit.acknowledge(key, last.id, rig.now).unwrap();
        disk.write(&mut rig.unit);
        rig.unit = disk.restored(&options, &file());
        let key = rig.attach(1, 1);
        assert!(rig.unit.take_again(key, session(1), last.id).is_none(), "it has that");
        for letter in &given {
            rig.unit.take_again(key, session(1), letter.id).unwrap();
        }
        given.extend(rig.pull(key, 1));
        if given.is_empty() {
            break;
        }
    }
}

#[test]
fn who_takes_no_part_any_more_does_not_have_the_others_written_each_time() {
    let mut rig = Rig { unit: ControlUnit::new(options()), now: Timestamp(1_000_000) };
    rig.unit.load(&file());
    rig.unit.keep_rows();
    let mut disk = Disk::default();
    rig.unit.registry.replace(eid(2)).unwrap();
    for expected in [1, 1, 2] {
        rig.server(0, 42, "msg").unwrap();
        disk.write(&mut rig.unit);
        assert_eq!(disk.tables()[&Table::Roster], expected);
        if expected == 1 && disk.tables()[&Table::GroupLetter] == 2 {
            rig.unit.registry.replace(eid(3)).unwrap();
        }
    }
    let campaign = rig.unit.campaigns(None, rig.now).next().unwrap();
    assert_eq!(campaign.tally.total(), 1);
}

#[test]
fn a_profile_change_that_nobody_was_told_of_is_told_after_a_restart() {
    let mut rig = Rig { unit: ControlUnit::new(options()), now: Timestamp(1_000_000) };
    rig.unit.load(&file());
    rig.unit.keep_rows();
    let mut disk = Disk::default();
    let changes = [(1, 2), (2, 1), (3, 4)];
    let changes =
        changes.map(|(from, to)| ProfileChange { from: eid(from), to: eid(to), gid: gid(42) });
    changes.iter().for_each(|change| assert!(rig.unit.not_told(*change)));
    for _ in 0..2 {
        disk.write(&mut rig.unit);
        rig.unit = disk.restored(&options(), &file());
        assert!(rig.unit.has_untold());
    }
    assert_eq!(rig.unit.sweep(rig.now).untold, changes);
    disk.write(&mut rig.unit);
    rig.unit = disk.restored(&options(), &file());
    assert!(!rig.unit.has_untold());
    assert_eq!(disk.tables().get(&Table::Untold), None);
}

#[test]
fn the_last_word_counts_after_a_restart_too() {
    let mut rig = Rig { unit: ControlUnit::new(options()), now: Timestamp(1_000_000) };
    rig.unit.load(&file());
    rig.unit.keep_rows();
    let mut disk = Disk::default();
    for tid in 1..=2 {
        rig.server(1, 0, &format!("trigger ,\"tid\":{tid}")).unwrap();
    }
    for (tid, rc) in [(2, 0), (1, 1)] {
        rig.device(1, 1, 0, &format!("ret(trigger) ,\"tid\":{tid},\"rc\":{rc}")).unwrap();
    }
    let index = rig.unit.registry().key(eid(1)).unwrap().index;
    for _ in 0..3 {
        assert!(!rig.unit.ledger.has_agreed(index, &[gid(42)], rig.now), "it said no at last");
        disk.write(&mut rig.unit);
        rig.unit = disk.restored(&options(), &file());
        assert_eq!(rig.unit.ledger.said_late(), 1);
    }
    rig.unit.remove_device(eid(1)).unwrap();
    disk.write(&mut rig.unit);
    assert_eq!(disk.tables().get(&Table::Said), None);
}
