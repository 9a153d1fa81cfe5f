//! `[audit]`: who did what, for later.

use std::path::PathBuf;

use serde::Deserialize;

use crate::units;

/// Where the audit log is written. None of its numbers is zero in a configuration that passed
/// [`Config::validate`](super::Config::validate).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// The file; its folder is made if need be, not those above it. Without it the log is in memory
    /// alone.
    pub path: Option<PathBuf>,
    /// Size at which a file is put behind a new one, in bytes.
    #[serde(deserialize_with = "units::size")]
    pub max_bytes: u64,
    /// Files that are kept besides the newest: `<path>.1` is the youngest of them.
    pub keep: u16,
    /// Entries that are kept in memory for the admin side, at 1 KiB each; longer ones leave room
    /// for fewer.
    pub recent: usize,
}

impl Default for Audit {
    fn default() -> Self {
        Self { path: None, max_bytes: 64 << 20, keep: 10, recent: 10_000 }
    }
}

impl Audit {
    /// What must not be zero, by key.
    pub(super) fn positive(&self) -> [(&'static str, bool); 3] {
        [("max_bytes", self.max_bytes > 0), ("keep", self.keep > 0), ("recent", self.recent > 0)]
    }
}
