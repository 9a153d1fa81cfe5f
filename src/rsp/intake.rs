//! A registry file on its way into a control unit, some devices at a time: whoever shares the
//! control unit with others lets them have their turn in between.

use std::vec::IntoIter;

use super::control::ControlUnit;
use super::import::{self, ImportReport, Parsed, Record};
use super::options::ControlOptions;
use super::registry::Device;
use crate::ids::Nid;

/// Devices that one [`Intake::step`] looks at.
const STEP: usize = 1_000;

/// A registry file that was read, and how much of it a control unit has taken in.
pub struct Intake<'a> {
    parsed: Parsed<'a>,
    records: IntoIter<Record<'a>>,
    /// The slot up to which devices were looked for that the file no longer has; `None` when all
    /// have been, or when they stay.
    removed_to: Option<u32>,
}

impl<'a> Intake<'a> {
    /// Reads a file whose devices come to those that are known; a known device gets the groups and
    /// labels of its line.
    #[must_use]
    pub fn add(csv: &'a str, options: &ControlOptions) -> Self {
        let mut parsed = import::parse(csv, options.scheme, &options.limits);
        let records = std::mem::take(&mut parsed.records).into_iter();
        Self { parsed, records, removed_to: None }
    }

    /// Reads a file that takes the place of what is known. A device whose line is broken stays as
    /// it was.
    #[must_use]
    pub fn replace(csv: &'a str, options: &ControlOptions) -> Self {
        Self { removed_to: Some(0), ..Self::add(csv, options) }
    }

    /// What has become of the file so far. Its broken lines are known from the beginning.
    #[must_use]
    pub fn report(&self) -> &ImportReport {
        &self.parsed.report
    }

    /// Has the control unit take in some more. `false`: that was all.
    pub fn step(&mut self, control: &mut ControlUnit) -> bool {
        if let Some(slot) = self.removed_to {
            self.removed_to = self.remove_some(control, slot);
            return true;
        }
        let records = self.records.by_ref().take(STEP);
        let taken = records.map(|r| control.register(r.nid, r.gids, r.labels)).count();
        control.registry.settle();
        self.parsed.report.accepted += taken;
        self.records.len() > 0
    }

    /// Has the control unit take in all that is left.
    #[must_use]
    pub fn finish(mut self, control: &mut ControlUnit) -> ImportReport {
        while self.step(control) {}
        self.parsed.report
    }

    /// Removes devices that the file does not speak of; returns where to go on.
    fn remove_some(&mut self, control: &mut ControlUnit, from: u32) -> Option<u32> {
        let (mut looked_at, mut gone) = (0, Vec::<Nid>::new());
        for (_, device) in control.registry.slots_from(from).take(STEP) {
            looked_at += 1;
            let Some(Device { nid, .. }) = device else { continue };
            if !self.parsed.mentioned.contains_key(&nid) {
                gone.push(nid);
            }
        }
        if !gone.is_empty() {
            self.parsed.report.removed += gone.len();
            self.parsed.report.orphans.extend(control.remove_devices(&gone));
        }
        (looked_at > 0).then_some(from.saturating_add(looked_at))
    }
}
