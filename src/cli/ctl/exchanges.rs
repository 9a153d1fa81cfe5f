//! `simcast ctl exchanges`.

use clap::{Args, Subcommand};

use super::api::{Api, CtlError};
use super::output::{Column, Output, Table, text};

/// Profile changes between two devices
#[derive(Debug, Args)]
pub(super) struct Exchanges {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List exchanges that are open or remembered
    List {
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
}

const COLUMNS: &[Column] = &[
    ("FROM", |exchange| text(&exchange["from"])),
    ("TO", |exchange| text(&exchange["to"])),
    ("GID", |exchange| text(&exchange["gid"])),
    ("STATE", |exchange| text(&exchange["state"])),
    ("OPENED", |exchange| text(&exchange["opened"])),
    ("UNTIL", |exchange| text(&exchange["until"])),
];

impl Exchanges {
    pub(super) async fn run(self, api: &Api, output: &mut Output) -> Result<(), CtlError> {
        let Action::List { limit } = self.action;
        let mut table = Table::new(COLUMNS);
        api.pages("/api/v1/exchanges", limit, |items| output.rows(&mut table, items)).await
    }
}
