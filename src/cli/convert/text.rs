//! A plan as the text of a simcast.toml.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::doors::{self, Machine};
use super::keys::{ENDLESS_BYTES, LARGEST_PACKET_BYTES, LONGEST_EXPIRY_SECS, quoted};
use super::plan::{Note, Plan};

/// The converted file, and what people have to be told.
#[derive(Debug)]
pub(super) struct Converted {
    pub(super) text: String,
    /// What was not taken over.
    pub(super) notes: Vec<Note>,
    pub(super) listeners: usize,
}

/// Values of mosquitto where simcast has other defaults, each with its reason.
fn mosquittos(section: &str) -> Vec<(&'static str, String, &'static str)> {
    let expiry = format!("\"{LONGEST_EXPIRY_SECS}s\"");
    match section {
        "limits" => vec![
            ("max_packet_size", LARGEST_PACKET_BYTES.to_string(), "no bound (2.1: 2000000)"),
            ("receive_maximum", "20".to_owned(), "as max_inflight_messages"),
            ("max_queued_bytes", ENDLESS_BYTES.to_string(), "no bound"),
            ("max_session_expiry", expiry, "for ever"),
            ("max_subscriptions", "100000".to_owned(), "no bound, of one client"),
            ("max_retained_messages", "1000000".to_owned(), "no bound"),
            ("max_retained_per_client", "1000000".to_owned(), "no bound"),
            ("max_retained_bytes", "\"4GiB\"".to_owned(), "no bound"),
            ("connect_rate", "0".to_owned(), "no bound"),
        ],
        "mqtt" => vec![
            ("overlapping", "\"each\"".to_owned(), "as allow_duplicate_messages"),
            ("missing_user_name", "true".to_owned(), "it overlooks that"),
        ],
        _ => Vec::new(),
    }
}

/// Writes the plan of this file.
pub(super) fn write(plan: &Plan, source: &Path, machine: &Machine) -> Converted {
    let mut text = format!(
        "# Made by `simcast convert` from {}.\n\
         # Two topics, To_eUICC and To_SM-SR, are the control unit's: `[rsp]` renames them.\n",
        source.display(),
    );
    let mut notes = plan.left.clone();
    let mut listeners = 0;
    for door in doors::write(plan, machine) {
        match door {
            Ok(door) => {
                listeners += 1;
                text.push_str(&door);
            }
            Err(note) => notes.push(note),
        }
    }
    if !plan.per_listener {
        text.push_str(&doors::auth("auth", &plan.users, machine));
    }
    for section in ["limits", "mqtt", "sys"] {
        text.push_str(&section_text(plan, section));
    }
    text.push_str(&rsp(plan));
    text.push_str(&store(plan, machine));
    text.push_str(&log(plan));
    notes.sort_by_key(|note| (note.place.file.to_path_buf(), note.place.line));
    if !notes.is_empty() {
        text.push_str("\n# Not taken over:\n");
    }
    for Note { place, key, text: why } in &notes {
        let _ok = writeln!(text, "# {}: {key}: {why}", place.short());
    }
    Converted { text, notes, listeners }
}

fn section_text(plan: &Plan, section: &'static str) -> String {
    let mut lines: BTreeMap<&str, (String, String)> = mosquittos(section)
        .into_iter()
        .map(|(name, value, why)| (name, (value, format!("mosquitto: {why}"))))
        .collect();
    for ((_, name), set) in plan.keys.iter().filter(|((of, _), _)| *of == section) {
        lines.insert(name, (set.value.clone(), set.place.short()));
    }
    if lines.is_empty() {
        return String::new();
    }
    let mut text = format!("\n[{section}]\n");
    for (name, (value, why)) in lines {
        let _ok = writeln!(text, "{name} = {value} # {why}");
        if name == "max_keepalive" {
            text.push_str(
                "# For 3.x too, as mosquitto 2.1 does: [mqtt] keepalive_exceeded = \"refuse\"\n",
            );
        }
    }
    text
}

/// Bodies of provisioning messages have to fit into packets.
fn rsp(plan: &Plan) -> String {
    let packet = plan.keys.get(&("limits", "max_packet_size")).map(|set| set.value.as_str());
    match packet.and_then(|bytes| bytes.parse::<u64>().ok()) {
        Some(bytes) if bytes < RSP_BODY_BYTES => {
            format!("\n[rsp]\nbody_bytes_max = {bytes} # no more than max_packet_size\n")
        }
        _ => String::new(),
    }
}

/// The default of `[rsp] body_bytes_max`.
const RSP_BODY_BYTES: u64 = 256 << 10;

/// `[store]`: beside mosquitto's own file, which is not read.
fn store(plan: &Plan, machine: &Machine) -> String {
    let Some(place) = &plan.persistence else {
        let why = "mosquitto: nothing is kept where `persistence` is not true";
        return format!("\n[store]\ndurability = \"memory\" # {why}\n");
    };
    let folder = plan.persistence_location.as_deref().unwrap_or_default();
    let path = machine.cwd.join(folder).join("simcast-data");
    format!("\n[store]\npath = {} # {}\n", quoted(&path.to_string_lossy()), place.short())
}

/// `[log]`, where mosquitto's is other than ours.
fn log(plan: &Plan) -> String {
    let has = |names: &[&str]| plan.log_types.iter().any(|kind| names.contains(&kind.as_str()));
    let level = if plan.log_types.is_empty() {
        return String::new();
    } else if has(&["debug", "all", "internal"]) {
        "debug"
    } else if has(&["information", "notice", "subscribe", "unsubscribe", "websockets"]) {
        "info"
    } else if has(&["warning"]) {
        "warn"
    } else {
        "error"
    };
    format!("\n[log]\nlevel = \"{level}\" # log_type\n")
}
