//! Import: the registry file, one device per line.
//!
//! ```text
//! nid,gids,labels
//! 89049032123451234512345678901235,42;77,model=tracker;mno=acme
//! # a comment
//! ```
//!
//! Groups and labels may be missing. A broken line is reported with its number and never hurts
//! the others. The second line of a device is broken: nobody can know which one was meant.

use std::collections::HashMap;

use foldhash::quality::RandomState;

use super::options::RspLimits;
use super::registry::Gids;
use crate::ids::{Gid, Nid, NidError, NidScheme, SessionKey};

/// Broken lines that are reported one by one; further ones are only counted.
pub const LINE_ERRORS_MAX: usize = 100;

/// What became of a registry file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Devices added or changed.
    pub accepted: usize,
    /// Broken lines.
    pub rejected: usize,
    /// Devices removed, because the new file no longer has them.
    pub removed: usize,
    /// Removed devices that were connected: these sessions have no mailbox any more.
    pub orphans: Vec<SessionKey>,
    /// The first [`LINE_ERRORS_MAX`] broken lines.
    pub errors: Vec<LineError>,
}

/// A broken line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct LineError {
    /// Its number; the first line is 1.
    pub line: usize,
    /// What is wrong.
    pub reason: LineReason,
}

/// Why a line of the registry file is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineReason {
    /// The first field is no device.
    #[error("bad nid: {0}")]
    BadNid(NidError),
    /// The second field is no list of groups.
    #[error("bad gids: numbers from 1 on, separated by ;")]
    BadGids,
    /// The third field is no list of labels.
    #[error("bad labels: name=value, separated by ;")]
    BadLabels,
    /// More than three fields.
    #[error("more than nid,gids,labels")]
    TooManyFields,
    /// More groups than a device may be in.
    #[error("too many groups")]
    TooManyGroups,
    /// More bytes of labels than are kept.
    #[error("labels too long")]
    LabelsTooLong,
    /// The device has a line already.
    #[error("the device stands in line {0} already")]
    Duplicate(usize),
}

/// A good line.
pub(super) struct Record<'a> {
    pub(super) nid: Nid,
    pub(super) gids: Gids,
    pub(super) labels: &'a str,
}

/// A registry file, read.
pub(super) struct Parsed<'a> {
    pub(super) records: Vec<Record<'a>>,
    /// Every device the file speaks of, also in broken lines, with its first line.
    pub(super) mentioned: HashMap<Nid, usize, RandomState>,
    pub(super) report: ImportReport,
}

pub(super) fn parse<'a>(csv: &'a str, scheme: NidScheme, limits: &RspLimits) -> Parsed<'a> {
    let mut parsed = Parsed {
        records: Vec::new(),
        mentioned: HashMap::default(),
        report: ImportReport::default(),
    };
    let mut header_may_come = true;
    for (at, line) in csv.trim_start_matches('\u{FEFF}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let is_header = header_may_come && line == "nid,gids,labels";
        header_may_come = false;
        if is_header {
            continue;
        }
        match parsed.record(line, at + 1, scheme, limits) {
            Ok(record) => parsed.records.push(record),
            Err(reason) => parsed.reject(at + 1, reason),
        }
    }
    parsed
}

/// Whether a device may have these groups and labels.
pub(super) fn check(gids: &[Gid], labels: &str, limits: &RspLimits) -> Result<(), LineReason> {
    if gids.len() > limits.groups_per_device_max {
        return Err(LineReason::TooManyGroups);
    }
    if labels.len() > limits.labels_bytes_max {
        return Err(LineReason::LabelsTooLong);
    }
    if !labels.is_empty() && !labels.split(';').all(is_label) {
        return Err(LineReason::BadLabels);
    }
    Ok(())
}

impl<'a> Parsed<'a> {
    fn record(
        &mut self,
        line: &'a str,
        number: usize,
        scheme: NidScheme,
        limits: &RspLimits,
    ) -> Result<Record<'a>, LineReason> {
        let mut fields = line.split(',').map(str::trim);
        let nid = Nid::parse(fields.next().unwrap_or_default(), scheme);
        let nid = nid.map_err(|error| LineReason::BadNid(of_scheme(error, scheme)))?;
        if let Some(first) = self.mentioned.get(&nid) {
            return Err(LineReason::Duplicate(*first));
        }
        self.mentioned.insert(nid, number);
        let gids = parse_gids(fields.next().unwrap_or_default())?;
        let labels = fields.next().unwrap_or_default();
        if fields.next().is_some() {
            return Err(LineReason::TooManyFields);
        }
        check(&gids, labels, limits)?;
        Ok(Record { nid, gids, labels })
    }

    fn reject(&mut self, line: usize, reason: LineReason) {
        self.report.rejected += 1;
        if self.report.errors.len() < LINE_ERRORS_MAX {
            self.report.errors.push(LineError { line, reason });
        }
    }
}

/// What is no number at all is no EID either, and who writes EIDs is to be told what one is.
fn of_scheme(error: NidError, scheme: NidScheme) -> NidError {
    match (error, scheme) {
        (NidError::NotANumber, NidScheme::Eid) => NidError::NotAnEid,
        _ => error,
    }
}

fn parse_gids(field: &str) -> Result<Gids, LineReason> {
    if field.is_empty() {
        return Ok(Gids::new());
    }
    let gid = |text: &str| text.trim().parse::<Gid>().map_err(|_error| LineReason::BadGids);
    field.split(';').map(gid).collect()
}

fn is_label(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _value)| !name.trim().is_empty())
        && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_decimal(csv: &str) -> Parsed<'_> {
        parse(csv, NidScheme::Decimal, &RspLimits::default())
    }

    #[test]
    fn a_file_as_people_write_it() {
        let csv = "\u{FEFF}nid,gids,labels\r\n# fleet\r\n\r\n7,42;77,model=tracker;mno=acme\r\n\
                   8\r\n9,,\n 10 , 42 \n";
        let parsed = parse_decimal(csv);
        assert_eq!(parsed.report, ImportReport::default());
        let seen: Vec<_> =
            parsed.records.iter().map(|r| (r.nid.get(), r.gids.len(), r.labels)).collect();
        assert_eq!(seen, [(7, 2, "model=tracker;mno=acme"), (8, 0, ""), (9, 0, ""), (10, 1, "")]);
    }

    #[test]
    fn broken_lines_are_named_and_hurt_nobody() {
        let csv = "1,5\nx,5\n2,0\n3,5,label\n4,5,a=b,c\n1,6\n0\n,\n6,5;\nnid,gids,labels\n5,5\n";
        let parsed = parse_decimal(csv);
        let good: Vec<_> = parsed.records.iter().map(|r| r.nid.get()).collect();
        assert_eq!(good, [1, 5]);
        let broken: Vec<_> = parsed.report.errors.iter().map(|e| (e.line, e.reason)).collect();
        assert_eq!(
            broken,
            [
                (2, LineReason::BadNid(NidError::NotANumber)),
                (3, LineReason::BadGids),
                (4, LineReason::BadLabels),
                (5, LineReason::TooManyFields),
                (6, LineReason::Duplicate(1)),
                (7, LineReason::BadNid(NidError::Zero)),
                (8, LineReason::BadNid(NidError::NotANumber)),
                (9, LineReason::BadGids),
                (10, LineReason::BadNid(NidError::NotANumber)),
            ]
        );
        assert!(parsed.mentioned.keys().any(|nid| nid.get() == 4), "broken, but spoken of");
    }

    #[test]
    fn what_is_no_number_is_told_as_the_scheme_has_it() {
        let reason = |scheme| {
            let parsed = parse("x,1\n", scheme, &RspLimits::default());
            parsed.report.errors[0].reason.to_string()
        };
        let eid = "bad nid: an EID has 32 decimal digits, the first not 0";
        assert_eq!(reason(NidScheme::Eid), eid);
        let decimal = "bad nid: not a decimal number of at most 128 bits";
        assert_eq!(reason(NidScheme::Decimal), decimal);
    }

    #[test]
    fn the_list_of_broken_lines_is_bounded() {
        let csv = "x\n".repeat(1000);
        let parsed = parse_decimal(&csv);
        assert_eq!(parsed.report.rejected, 1000);
        assert_eq!(parsed.report.errors.len(), LINE_ERRORS_MAX);
    }
}
