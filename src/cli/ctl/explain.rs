//! `simcast ctl explain`: what the name of a refusal means.

use clap::Args;

use super::api::{Api, CtlError};
use super::output::{Column, Output, Table, text};

/// Say what a refusal means, and what to do about it
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Its name, as in Reason Strings, log and metrics; all of them without
    refusal: Option<String>,
}

const COLUMNS: &[Column] = &[
    ("REFUSAL", |refusal| text(&refusal["name"])),
    ("CODE", |refusal| format!("0x{:02X}", refusal["reason_code"].as_u64().unwrap_or_default())),
    ("WHAT TO DO", |refusal| text(&refusal["explanation"])),
];

impl Explain {
    pub(super) async fn run(self, api: &Api, output: &mut Output) -> Result<(), CtlError> {
        let refusals = api.get("/api/v1/refusals").await?;
        let refusals = refusals["items"].as_array().cloned().unwrap_or_default();
        let Some(name) = self.refusal else {
            return Ok(output.rows(&mut Table::new(COLUMNS), &refusals)?);
        };
        match refusals.iter().find(|refusal| refusal["name"] == name.as_str()) {
            Some(refusal) => Ok(output.item(COLUMNS, refusal)?),
            None => Err(CtlError::NoSuchRefusal(name)),
        }
    }
}
