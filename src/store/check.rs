//! Looks at a store without changing it, also at one that a broker has open.

use std::io;
use std::path::Path;

use super::disk::{Disk, RealDisk};
use super::survey::Damages;
use super::{Commit, Progress, StoreError, repair};

/// A running broker removes what it has cleaned; then it is looked again, so often.
pub(super) const ATTEMPTS: usize = 10;

/// What there is in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Segments of the log.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of them that rows refer to.
    pub live_bytes: u64,
    /// Rows.
    pub rows: u64,
    /// The last commit.
    pub commit: Commit,
    /// Bytes behind the end of the log: a batch that is being written, or was when the power went.
    /// It was never acknowledged.
    pub torn_bytes: u64,
    /// What is damaged.
    pub damages: Damages,
}

/// Reads all of a store.
///
/// # Errors
/// [`StoreError`]: it cannot be read. Damage is no error: it is in the answer.
pub fn check(folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Check, StoreError> {
    let disk = RealDisk::look(folder)?;
    let mut attempt = 1;
    loop {
        match check_once(&disk, progress) {
            Err(error) if attempt < ATTEMPTS && is_gone(&error) => attempt += 1,
            checked => return checked,
        }
    }
}

/// Whether a file was removed while it was looked for.
pub(super) fn is_gone(error: &StoreError) -> bool {
    matches!(error, StoreError::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn check_once(disk: &dyn Disk, progress: &mut dyn FnMut(Progress)) -> Result<Check, StoreError> {
    let (survey, catalog, commit) = repair::read_once(disk, progress)?;
    Ok(Check {
        segments: survey.segments.len() as u64,
        bytes: survey.bytes(),
        live_bytes: catalog.live(),
        rows: catalog.rows() as u64,
        commit: Commit(commit),
        torn_bytes: survey.torn,
        damages: survey.damages,
    })
}
