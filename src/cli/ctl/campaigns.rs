//! `simcast ctl campaigns`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::api::{Api, CtlError, query};
use super::output::{Column, Output, Table, text};
use crate::cli::endpoint;
use crate::ids::Gid;

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// Campaigns that `--watch` shows where nothing else is said.
const WATCHED_DEFAULT: usize = 10;

/// A1s, B1s and C1s, and how far their devices are
#[derive(Debug, Args)]
pub(super) struct Campaigns {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List campaigns, newest first
    List(List),
    /// Show one campaign
    Get {
        /// Its number
        id: u64,
    },
    /// List the devices of a campaign; those that are stuck with --state delivered
    Devices {
        /// Its number
        id: u64,
        /// Only those that are this far: queued, delivered, ok, refused, failed, expired, …
        #[arg(long)]
        state: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Send it again to the devices whose answer is missing, and to no others
    Retry {
        /// Its number
        id: u64,
        /// Also to those that have reported a failure
        #[arg(long)]
        failed: bool,
    },
    /// Take it back from every device that was not given it yet
    Cancel {
        /// Its number
        id: u64,
    },
    /// Serve all its devices, whatever the first wave said
    Release {
        /// Its number
        id: u64,
    },
}

#[derive(Debug, Args)]
struct List {
    /// Only those to this group
    #[arg(long, value_parser = endpoint::gid)]
    gid: Option<Gid>,
    /// Only those to this device alone
    #[arg(long)]
    nid: Option<String>,
    /// Only those that are running, first-wave, halted or ended
    #[arg(long)]
    state: Option<String>,
    /// Only those that their servers have given this name
    #[arg(long)]
    name: Option<String>,
    /// At most so many
    #[arg(long)]
    limit: Option<usize>,
    /// Watch them until none is running any more
    #[arg(long)]
    watch: bool,
}

const COLUMNS: &[Column] = &[
    ("ID", |campaign| text(&campaign["id"])),
    ("MESSAGE", message),
    ("TO", target),
    ("NAME", |campaign| text(&campaign["name"])),
    ("STATE", |campaign| text(&campaign["state"])),
    ("ANSWERED", |c| format!("{}/{}", text(&c["answered"]), text(&c["total"]))),
    ("REFUSED", |campaign| text(&campaign["devices"]["refused"])),
    ("FAILED", |campaign| text(&campaign["devices"]["failed"])),
    ("STUCK", |campaign| text(&campaign["devices"]["delivered"])),
    ("RATE/s", |campaign| or_dash(campaign["rate"].as_f64().map(|rate| rate.to_string()))),
    ("ETA", |campaign| or_dash(eta(campaign))),
];

/// What there is room for when it is one campaign alone.
const MORE_COLUMNS: &[Column] = &[
    ("QUEUED", |campaign| text(&campaign["devices"]["queued"])),
    ("OK", |campaign| text(&campaign["devices"]["ok"])),
    ("EXPIRED", |campaign| text(&campaign["devices"]["expired"])),
    ("CANCELLED", |campaign| text(&campaign["devices"]["cancelled"])),
    ("GONE", |campaign| text(&campaign["devices"]["gone"])),
    ("FIRST WAVE", first_wave),
    ("TID", |campaign| text(&campaign["tid"])),
    ("SERVER", |campaign| text(&campaign["server"])),
    ("OPENED", |campaign| text(&campaign["opened"])),
    ("EXPIRES", |campaign| text(&campaign["expires"])),
    ("RETRIABLE", |campaign| text(&campaign["retriable"])),
];

const DEVICE_COLUMNS: &[Column] =
    &[("NID", |device| text(&device["nid"])), ("STATE", |device| text(&device["state"]))];

impl Campaigns {
    pub(super) async fn run(self, api: &Api, output: &mut Output) -> Result<(), CtlError> {
        match self.action {
            Action::List(list) if list.watch => list.watch(api, output).await,
            Action::List(list) => {
                let mut table = Table::new(COLUMNS);
                let rows = |items: &[Value]| output.rows(&mut table, items);
                api.pages(&list.path(), list.limit, rows).await
            }
            Action::Get { id } => {
                let campaign = api.get(&path(id, "")).await?;
                Ok(output.item(&[COLUMNS, MORE_COLUMNS].concat(), &campaign)?)
            }
            Action::Devices { id, state, limit } => {
                let path = path(id, &format!("/devices{}", query(&[("state", state)])));
                let mut table = Table::new(DEVICE_COLUMNS);
                api.pages(&path, limit, |items| output.rows(&mut table, items)).await
            }
            Action::Retry { id, failed } => {
                let body = json!({ "failed": failed });
                let done = api.call(Method::POST, &path(id, "/retry"), Some(&body)).await?;
                tell(output, "sent again to", &done)
            }
            Action::Cancel { id } => {
                let done = api.call(Method::POST, &path(id, "/cancel"), Some(&json!({}))).await?;
                tell(output, "taken back from", &done)
            }
            Action::Release { id } => {
                api.call(Method::POST, &path(id, "/release"), Some(&json!({}))).await?;
                Ok(output.done("released")?)
            }
        }
    }
}

impl List {
    fn path(&self) -> String {
        let fields = [
            ("gid", self.gid.map(|gid| gid.to_string())),
            ("nid", self.nid.clone()),
            ("state", self.state.clone()),
            ("name", self.name.clone()),
        ];
        format!("/api/v1/campaigns{}", query(&fields))
    }

    async fn watch(&self, api: &Api, output: &mut Output) -> Result<(), CtlError> {
        let mut board = Board::default();
        // A campaign that has ended is none any more of those that run.
        let mut seen: BTreeMap<u64, Value> = BTreeMap::new();
        loop {
            let mut now = Vec::new();
            let limit = self.limit.unwrap_or(WATCHED_DEFAULT);
            api.pages(&self.path(), Some(limit), |items| {
                now.extend_from_slice(items);
                Ok(())
            })
            .await?;
            let ids: Vec<u64> = now.iter().filter_map(|c| c["id"].as_u64()).collect();
            for id in seen.keys().filter(|id| !ids.contains(id)) {
                now.push(api.get(&path(*id, "")).await?);
            }
            for campaign in &now {
                let Some(id) = campaign["id"].as_u64() else { continue };
                board.show(id, campaign, seen.get(&id), output)?;
            }
            seen = now.into_iter().filter_map(|c| Some((c["id"].as_u64()?, c))).collect();
            if !seen.values().any(is_under_way) {
                return Ok(());
            }
            seen.retain(|_, campaign| is_under_way(campaign));
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }
}

/// Bars on a terminal, lines elsewhere.
#[derive(Default)]
struct Board {
    bars: MultiProgress,
    by_id: BTreeMap<u64, ProgressBar>,
}

impl Board {
    fn show(
        &mut self,
        id: u64,
        campaign: &Value,
        before: Option<&Value>,
        output: &mut Output,
    ) -> Result<(), CtlError> {
        if !output.is_terminal() || self.bars.is_hidden() {
            let same = |name: &str| before.is_some_and(|before| before[name] == campaign[name]);
            let is_news = !(same("state") && same("devices"));
            // What had ended before is no progress.
            if !is_news || (before.is_none() && !is_under_way(campaign)) {
                return Ok(());
            }
            return match output.is_json() {
                true => Ok(output.value(campaign)?),
                false => Ok(output.say(&line(campaign))?),
            };
        }
        if !self.by_id.contains_key(&id) && !is_under_way(campaign) {
            return Ok(());
        }
        let number = |name: &str| campaign[name].as_u64().unwrap_or_default();
        let bar = self.by_id.entry(id).or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            let name = format!("{id} {} {}", message(campaign), target(campaign));
            self.bars.add(ProgressBar::new(number("total")).with_style(style).with_prefix(name))
        });
        bar.set_length(number("total"));
        bar.set_position(number("answered"));
        if is_under_way(campaign) {
            bar.set_message(standing(campaign));
        } else {
            bar.abandon_with_message(standing(campaign));
        }
        Ok(())
    }
}

fn is_under_way(campaign: &Value) -> bool {
    matches!(campaign["state"].as_str(), Some("running" | "first-wave"))
}

/// A campaign in a line that scripts may read and people understand.
fn line(campaign: &Value) -> String {
    let count = |name: &str| text(&campaign["devices"][name]);
    format!(
        "{} {} {} {}: {}/{} answered, {} refused, {} failed, {} stuck, {} queued",
        text(&campaign["id"]),
        message(campaign),
        target(campaign),
        text(&campaign["state"]),
        text(&campaign["answered"]),
        text(&campaign["total"]),
        count("refused"),
        count("failed"),
        count("delivered"),
        count("queued"),
    )
}

fn target(campaign: &Value) -> String {
    match (&campaign["gid"], &campaign["nid"]) {
        (Value::Null, Value::Null) => "a device that is gone".to_owned(),
        (Value::Null, nid) => text(nid),
        (gid, _) => format!("group {}", text(gid)),
    }
}

/// B1s that were merged reach their devices as a C1.
fn message(campaign: &Value) -> String {
    let merged = if campaign["merged"] == true { " merged" } else { "" };
    format!("{}{merged}", text(&campaign["message"]))
}

/// What stands behind the bar of a campaign.
fn standing(campaign: &Value) -> String {
    let trouble = ["refused", "failed"].into_iter().filter_map(|name| {
        let count = campaign["devices"][name].as_u64().filter(|count| *count > 0)?;
        Some(format!("{count} {name}"))
    });
    let state = std::iter::once(text(&campaign["state"]));
    state.chain(trouble).chain(eta(campaign)).collect::<Vec<_>>().join(" ")
}

fn eta(campaign: &Value) -> Option<String> {
    campaign["eta_secs"].as_u64().map(|seconds| format!("{seconds}s"))
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn first_wave(campaign: &Value) -> String {
    let wave = &campaign["wave"];
    if wave.is_null() {
        return String::new();
    }
    let [first, done, failed] = ["first", "done", "failed"].map(|name| text(&wave[name]));
    format!("{done}/{first}, {failed} failed")
}

fn tell(output: &mut Output, what: &str, done: &Value) -> Result<(), CtlError> {
    if output.is_json() {
        return Ok(output.value(done)?);
    }
    let devices = if done["devices"] == 1 { "device" } else { "devices" };
    Ok(output.say(&format!("{what} {} {devices}", text(&done["devices"])))?)
}

fn path(id: u64, rest: &str) -> String {
    format!("/api/v1/campaigns/{id}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(more: &Value) -> Value {
        let mut campaign = json!({
            "id": 12, "message": "C1", "merged": false, "gid": 42, "nid": null, "state": "running",
            "answered": 998, "total": 1000, "rate": 12.25, "eta_secs": 7, "name": "spring 26",
            "devices": {"refused": 2, "failed": 0, "delivered": 1, "queued": 1},
        });
        crate::rsp::settings::merge(&mut campaign, more);
        campaign
    }

    fn row(campaign: &Value) -> Vec<String> {
        COLUMNS.iter().map(|(_, text)| text(campaign)).collect()
    }

    #[test]
    fn a_row_tells_refused_devices_and_merged_messages_and_no_rate_of_what_is_over() {
        assert_eq!(COLUMNS[9].0, "RATE/s");
        let running = row(&campaign(&json!({})));
        assert_eq!(running[1..3], ["C1", "group 42"]);
        assert_eq!(running[5..], ["998/1000", "2", "0", "1", "12.25", "7s"]);
        // In a patch, null takes away.
        let over = json!({"message": "B1", "merged": true, "rate": null, "eta_secs": null});
        let over = row(&campaign(&over));
        assert_eq!(
            (over[1].as_str(), &over[9..]),
            ("B1 merged", &["-".to_owned(), "-".into()][..])
        );
    }

    #[test]
    fn the_rows_of_groups_fit_into_100_columns() {
        let widest = campaign(&json!({"merged": true, "state": "first-wave", "rate": 123.456}));
        let row = row(&widest);
        let width = |((title, _), cell): (&Column, &String)| title.len().max(cell.len()) + 2;
        assert!(COLUMNS.iter().zip(&row).map(width).sum::<usize>() <= 102, "{row:?}");
    }

    #[test]
    fn what_is_watched_names_the_devices_that_refuse() {
        assert_eq!(standing(&campaign(&json!({}))), "running 2 refused 7s");
        assert_eq!(
            line(&campaign(&json!({}))),
            "12 C1 group 42 running: 998/1000 answered, 2 refused, 0 failed, 1 stuck, 1 queued"
        );
    }
}
