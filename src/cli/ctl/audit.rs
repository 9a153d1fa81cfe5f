//! `simcast ctl audit`: who has changed what, and what was refused.

use clap::Args;
use serde_json::Value;

use super::api::{Api, CtlError};
use super::output::{Column, Output, Table, text};
use crate::log::Shown;

/// Entries to ask for at once.
const ENTRIES_MAX: usize = 1_000;

/// Show the latest entries of the audit log
///
/// Those that the broker has in memory. `simcast audit verify` reads the file.
#[derive(Debug, Args)]
pub(super) struct Audit {
    /// Only those behind this number
    #[arg(long, value_name = "NUMBER")]
    since: Option<u64>,
    /// At most so many: the newest, or the first ones behind --since
    #[arg(long)]
    limit: Option<usize>,
}

const COLUMNS: &[Column] = &[
    ("SEQ", |entry| text(&entry["seq"])),
    ("TIME", |entry| text(&entry["time"])),
    ("EVENT", |entry| text(&entry["event"])),
    ("ACTOR", |entry| text(&entry["actor"])),
    ("DETAILS", details),
];

impl Audit {
    pub(super) async fn run(self, api: &Api, output: &mut Output) -> Result<(), CtlError> {
        let mut table = Table::new(COLUMNS);
        let (mut since, mut left) = (self.start(api).await?, self.limit.unwrap_or(usize::MAX));
        while left > 0 {
            let limit = left.min(ENTRIES_MAX);
            let page = api.get(&format!("/api/v1/audit?since={since}&limit={limit}")).await?;
            let entries = page["items"].as_array();
            let entries = entries.ok_or_else(|| CtlError::Foreign("no entries".into()))?;
            output.rows(&mut table, entries)?;
            left = left.saturating_sub(entries.len());
            let Some(next) = page["next"].as_u64() else { break };
            since = next;
        }
        Ok(())
    }

    /// Behind which number to begin.
    async fn start(&self, api: &Api) -> Result<u64, CtlError> {
        match (self.since, self.limit) {
            (Some(since), _) => Ok(since),
            (None, None) => Ok(0),
            (None, Some(limit)) => {
                let page = api.get("/api/v1/audit?limit=1").await?;
                let newest = page["newest"].as_u64();
                let newest = newest.ok_or_else(|| CtlError::Foreign("no newest entry".into()))?;
                Ok(newest.saturating_sub(limit as u64))
            }
        }
    }
}

fn details(entry: &Value) -> String {
    let details = entry["details"].as_object().into_iter().flatten();
    let details = details.filter(|(_, value)| !value.is_null());
    let details: Vec<String> =
        details.map(|(name, value)| format!("{}={}", Shown(name), text(value))).collect();
    details.join(" ")
}
