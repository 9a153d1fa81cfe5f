//! `simcast ctl sessions`.

use clap::{Args, Subcommand};
use hyper::Method;

use super::Listing;
use super::api::{Api, CtlError, escaped, query};
use super::output::{Column, Output, text};

/// Clients that are connected, or will come back
#[derive(Debug, Args)]
pub(super) struct Sessions {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List sessions
    List(Listing),
    /// Show one session
    Get {
        /// Its client id
        client_id: String,
    },
    /// End the connection of a client; it may come back at once
    Kick {
        /// Its client id
        client_id: String,
        /// End the session, too, with all that waits for it
        #[arg(long)]
        forget: bool,
    },
}

const COLUMNS: &[Column] = &[
    ("CLIENT", |session| text(&session["client_id"])),
    ("IDENTITY", |session| text(&session["identity"])),
    ("ROLE", |session| text(&session["role"])),
    ("ONLINE", |session| text(&session["online"])),
    ("PEER", |session| text(&session["peer"])),
    ("MQTT", |session| text(&session["version"])),
    ("SINCE", |session| text(&session["connected_at"])),
    ("QUEUE", |session| text(&session["queue"]["messages"])),
];

/// What there is room for when it is one session alone.
const MORE_COLUMNS: &[Column] = &[
    ("NID", |session| text(&session["nid"])),
    ("TRANSPORT", |session| text(&session["transport"])),
    ("MOUNT POINT", |session| text(&session["mount_point"])),
    ("SUBSCRIPTIONS", |session| text(&session["subscriptions"])),
    ("QUEUED BYTES", |session| text(&session["queue"]["bytes"])),
];

impl Sessions {
    pub(super) async fn run(self, api: &Api, output: &mut Output) -> Result<(), CtlError> {
        match self.action {
            Action::List(listing) => {
                let path = format!("/api/v1/sessions{}", query(&[listing.online()]));
                listing.print(api, output, &path, COLUMNS).await
            }
            Action::Get { client_id } => {
                let session = api.get(&path(&client_id)).await?;
                Ok(output.item(&[COLUMNS, MORE_COLUMNS].concat(), &session)?)
            }
            Action::Kick { client_id, forget } => {
                let done = if forget { "forgotten" } else { "kicked" };
                let forget = query(&[("forget", forget.then(|| "true".to_owned()))]);
                let path = format!("{}{forget}", path(&client_id));
                api.call(Method::DELETE, &path, None).await?;
                Ok(output.done(done)?)
            }
        }
    }
}

fn path(client_id: &str) -> String {
    format!("/api/v1/sessions/{}", escaped(client_id))
}
