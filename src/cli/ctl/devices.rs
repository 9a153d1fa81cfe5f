//! `simcast ctl devices`.

use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::Listing;
use super::api::{Api, CtlError, escaped, query};
use super::output::{Column, Output, text};
use crate::cli::endpoint;
use crate::ids::Gid;
use crate::log::Shown;

/// Registered devices
#[derive(Debug, Args)]
pub(super) struct Devices {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List devices
    List {
        /// Only those in this group
        #[arg(long, value_parser = endpoint::gid)]
        gid: Option<Gid>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show one device
    Get {
        /// Its EID
        nid: String,
    },
    /// Register a device, or give it other groups and labels than it had
    Put {
        /// Its EID
        nid: String,
        /// A group it is in; may be repeated
        #[arg(long = "gid", value_name = "GID", value_parser = endpoint::gid)]
        gids: Vec<Gid>,
        /// A label it has; may be repeated
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// Remove a device with its mail and open requests
    Delete {
        /// Its EID
        nid: String,
    },
    /// Let a device that has given its profile away take part again
    Reinstate {
        /// Its EID
        nid: String,
    },
    /// Take in a registry file
    Import {
        /// The file; - is standard input
        file: PathBuf,
        /// In place of all devices that are known; the mail of those that are not in it is lost
        #[arg(long)]
        replace: bool,
    },
}

pub(super) const COLUMNS: &[Column] = &[
    ("NID", |device| text(&device["nid"])),
    ("GIDS", |device| gids(&device["gids"])),
    ("ONLINE", |device| text(&device["online"])),
    ("CLIENT", |device| text(&device["client_id"])),
    ("REPLACED", |device| text(&device["replaced"])),
    ("LABELS", |device| labels(&device["labels"])),
];

impl Devices {
    pub(super) async fn run(self, api: &Api, output: &mut Output) -> Result<(), CtlError> {
        match self.action {
            Action::List { gid, listing } => {
                let fields = [("gid", gid.map(|gid| gid.to_string())), listing.online()];
                let path = format!("/api/v1/devices{}", query(&fields));
                listing.print(api, output, &path, COLUMNS).await
            }
            Action::Get { nid } => Ok(output.item(COLUMNS, &api.get(&path(&nid)).await?)?),
            Action::Put { nid, gids, labels } => {
                let labels: Map<String, Value> =
                    labels.into_iter().map(|(name, value)| (name, value.into())).collect();
                let gids: Vec<u64> = gids.into_iter().map(Gid::get).collect();
                let body = json!({ "gids": gids, "labels": labels });
                let device = api.call(Method::PUT, &path(&nid), Some(&body)).await?;
                Ok(output.item(COLUMNS, &device)?)
            }
            Action::Delete { nid } => {
                api.call(Method::DELETE, &path(&nid), None).await?;
                Ok(output.done("removed")?)
            }
            Action::Reinstate { nid } => {
                let path = format!("{}/reinstate", path(&nid));
                let device = api.call(Method::POST, &path, Some(&json!({}))).await?;
                Ok(output.item(COLUMNS, &device)?)
            }
            Action::Import { file, replace } => import(api, output, &file, replace).await,
        }
    }
}

async fn import(
    api: &Api,
    output: &mut Output,
    file: &PathBuf,
    replace: bool,
) -> Result<(), CtlError> {
    let unreadable = |source| CtlError::Unreadable { path: file.display().to_string(), source };
    let bytes = if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    let bytes = Bytes::from(bytes.map_err(unreadable)?);
    let mode = if replace { "replace" } else { "add" };
    let path = format!("/api/v1/devices/import?mode={mode}");
    let report = match api.send(Method::POST, &path, Some(("text/csv", bytes))).await {
        Err(CtlError::Problem { whole, .. }) if whole["report"].is_object() => {
            whole["report"].clone()
        }
        done => done?,
    };
    show(output, &report)?;
    let rejected = report["rejected"].as_u64().unwrap_or_default();
    if rejected > 0 { Err(CtlError::BrokenLines(rejected)) } else { Ok(()) }
}

fn show(output: &mut Output, report: &Value) -> std::io::Result<()> {
    if output.is_json() {
        return output.value(report);
    }
    let number = |name: &str| text(&report[name]);
    for error in report["errors"].as_array().into_iter().flatten() {
        output.say(&format!("line {}: {}", text(&error["line"]), text(&error["reason"])))?;
    }
    let [accepted, rejected, removed] = ["accepted", "rejected", "removed"].map(number);
    output.say(&format!("{accepted} accepted, {rejected} rejected, {removed} removed"))
}

fn path(nid: &str) -> String {
    format!("/api/v1/devices/{}", escaped(nid))
}

fn gids(value: &Value) -> String {
    let gids = value.as_array().into_iter().flatten().map(Value::to_string);
    gids.collect::<Vec<_>>().join(";")
}

fn labels(value: &Value) -> String {
    let labels = value.as_object().into_iter().flatten();
    let labels = labels.map(|(name, value)| format!("{}={}", Shown(name), text(value)));
    labels.collect::<Vec<_>>().join(";")
}

fn label(argument: &str) -> Result<(String, String), &'static str> {
    let (name, value) = argument.split_once('=').ok_or("a label is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
