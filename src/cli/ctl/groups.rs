//! `simcast ctl groups`.

use clap::{Args, Subcommand};

use super::Listing;
use super::api::{Api, CtlError, query};
use super::devices;
use super::output::{Column, Output, Table, text};
use crate::cli::endpoint;
use crate::ids::Gid;

/// Groups of devices
#[derive(Debug, Args)]
pub(super) struct Groups {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List groups
    List {
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Show the devices of a group
    Get {
        /// Its number
        #[arg(value_parser = endpoint::gid)]
        gid: Gid,
        #[command(flatten)]
        listing: Listing,
    },
}

const COLUMNS: &[Column] =
    &[("GID", |group| text(&group["gid"])), ("DEVICES", |group| text(&group["devices"]))];

impl Groups {
    pub(super) async fn run(self, api: &Api, output: &mut Output) -> Result<(), CtlError> {
        match self.action {
            Action::List { limit } => {
                let mut table = Table::new(COLUMNS);
                api.pages("/api/v1/groups", limit, |items| output.rows(&mut table, items)).await
            }
            Action::Get { gid, listing } => {
                let query = query(&[listing.online()]);
                let path = format!("/api/v1/groups/{gid}/devices{query}");
                listing.print(api, output, &path, devices::COLUMNS).await
            }
        }
    }
}
