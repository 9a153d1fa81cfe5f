//! Importing, replacing and changing the registry while it is in use.

use super::*;

fn line(number: u128, rest: &str) -> String {
    format!("{},{rest}\n", eid(number))
}

#[test]
fn an_import_adds_and_changes() {
    let mut rig = Rig::new();
    let csv = format!("nid,gids,labels\n{}{}x,1\n", line(1, "77,mno=acme"), line(9, "42"));
    let report = rig.unit.import(&csv);
    assert_eq!((report.accepted, report.rejected, report.removed), (2, 1, 0));
    assert_eq!(
        report.errors[0].to_string(),
        "line 4: bad nid: an EID has 32 decimal digits, the first not 0"
    );
    let device = rig.unit.registry().device(eid(1)).unwrap();
    assert_eq!((device.gids, device.labels), (&[gid(77)][..], "mno=acme"));
    let groups: Vec<_> = rig.unit.registry().groups().collect();
    assert_eq!(groups, [(gid(42), 3), (gid(77), 3)]);
    let members: Vec<_> = rig.unit.registry().members_of(gid(42)).collect();
    assert_eq!(members, [eid(2), eid(3), eid(9)]);
    assert_eq!(rig.unit.stats().devices, 6);
}

#[test]
fn replacing_removes_what_vanished_and_spares_broken_lines() {
    let mut rig = Rig::new();
    for device in 1..=5 {
        rig.server(device, 0, "msg").unwrap();
        rig.attach(device, u32::try_from(device).unwrap());
    }
    let csv = format!("{}{}{}", line(1, "42"), line(2, "none"), line(7, ""));
    let report = rig.unit.replace_registry(&csv);
    assert_eq!((report.accepted, report.rejected, report.removed), (2, 1, 3));
    assert_eq!(report.orphans, [session(3), session(4), session(5)]);
    assert_eq!((rig.mail(1).len(), rig.mail(2).len(), rig.mail(7).len()), (1, 1, 0));
    assert_eq!(rig.unit.registry().device(eid(2)).unwrap().gids, [gid(42)], "as it was");
    assert!(rig.unit.registry().device(eid(3)).is_none());
    assert_eq!(rig.unit.stats().mail_messages, 2);
    assert_eq!(rig.device(3, 3, 0, "ret(msg)"), Err(Refusal::NotRegistered));
}

#[test]
fn a_device_has_bounded_groups_and_labels() {
    let mut rig = Rig::new();
    let gids: Vec<Gid> = (1..=65).map(gid).collect();
    assert!(rig.unit.put_device(eid(8), &gids[..64], "").is_ok());
    assert_eq!(rig.unit.put_device(eid(8), &gids, ""), Err(LineReason::TooManyGroups));
    let labels = format!("a={}", "x".repeat(1023));
    assert_eq!(rig.unit.put_device(eid(8), &[], &labels), Err(LineReason::LabelsTooLong));
    assert_eq!(rig.unit.put_device(eid(8), &[], "a"), Err(LineReason::BadLabels));
    assert_eq!(rig.unit.registry().device(eid(8)).unwrap().gids.len(), 64, "unchanged");
}

#[test]
fn a_large_file_is_taken_in_some_devices_at_a_time() {
    let mut rig = Rig::new();
    let csv: String = (1..=2500).map(|number| line(number + 100, "42")).collect();
    let mut intake = Intake::add(&csv, rig.unit.options());
    let before = rig.unit.stats().devices;
    assert!(intake.step(&mut rig.unit), "there is more");
    let some = rig.unit.stats().devices - before;
    assert!((1..2500).contains(&some), "{some}");
    // Others have their turn in between.
    rig.unit.put_device(eid(7), &[gid(9)], "").unwrap();
    assert_eq!(intake.finish(&mut rig.unit).accepted, 2500);
    assert_eq!(rig.unit.stats().devices, before + 2501);

    let mut intake = Intake::replace(&csv, rig.unit.options());
    while intake.step(&mut rig.unit) {}
    assert_eq!((intake.report().accepted, intake.report().removed), (2500, before + 1));
    assert_eq!(rig.unit.stats().devices, 2500);
}
