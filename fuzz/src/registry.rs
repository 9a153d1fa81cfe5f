//! Any text as registry file: no panic; each line is taken or reported, once; and a file that is
//! read again changes nothing.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use simcast::rsp::import::LINE_ERRORS_MAX;
use simcast::rsp::{ControlOptions, ControlUnit};

fuzz_target!(|csv: &str| {
    let mut unit = ControlUnit::new(ControlOptions::default());
    let report = unit.replace_registry(csv);
    let lines = csv.lines().count();
    assert!(report.accepted + report.rejected <= lines);
    assert_eq!(report.errors.len(), report.rejected.min(LINE_ERRORS_MAX));
    assert!(report.errors.is_sorted_by(|a, b| a.line < b.line));
    assert!(report.errors.iter().all(|error| (1..=lines).contains(&error.line)));
    assert_eq!((report.removed, report.orphans.len()), (0, 0));
    assert_eq!(unit.registry().device_count(), report.accepted);
    let before = devices(&unit);
    // A broken second line of a device must not change what the first one said.
    let again = unit.replace_registry(csv);
    assert_eq!((again.rejected, again.removed), (report.rejected, 0));
    assert_eq!(devices(&unit), before);
    for (gid, members) in unit.registry().groups() {
        assert_eq!(unit.registry().members_of(gid).count(), members);
    }
});

/// Every device as it is known.
fn devices(unit: &ControlUnit) -> BTreeSet<String> {
    unit.registry().devices().map(|device| format!("{device:?}")).collect()
}
