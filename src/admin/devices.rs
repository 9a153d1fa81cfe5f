//! `/api/v1/devices`: the registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Number, json};

use super::AdminState;
use super::auth::Actor;
use super::json::{Csv, Json, NoMembers, whole};
use super::page::{Answer, Window};
use super::problem::Problem;
use super::query::{Fields, FromFields, NoFields, Path, Query};
use super::resource::Resource;
use crate::broker::{DeviceFilter, DeviceInfo, NotReplaced};
use crate::ids::{Gid, GidError, Nid, NidError};
use crate::rsp::ImportReport;

/// Bytes of a label's name.
const LABEL_NAME_MAX: usize = 64;
/// Characters of a label's value.
const LABEL_VALUE_MAX: usize = 256;

pub(super) fn resource() -> Resource {
    Resource::new(include_str!("openapi/devices.json"))
        .on(Method::GET, "/api/v1/devices", list)
        .on(Method::POST, "/api/v1/devices/import", import)
        .on(Method::GET, "/api/v1/devices/{nid}", get)
        .on(Method::PUT, "/api/v1/devices/{nid}", put)
        .on(Method::DELETE, "/api/v1/devices/{nid}", delete)
        .on(Method::POST, "/api/v1/devices/{nid}/reinstate", reinstate)
}

struct ListQuery {
    window: Window,
    filter: DeviceFilter,
}

impl FromFields for ListQuery {
    fn from_fields(fields: &mut Fields) -> Result<Self, Problem> {
        let gid = fields.take("gid", "a number from 1 to 18446744073709551615")?;
        let filter = DeviceFilter { gid, online: fields.flag("online")? };
        Ok(Self { window: fields.window()?, filter })
    }
}

async fn list(
    State(state): State<Arc<AdminState>>,
    Query(ListQuery { window, filter }): Query<ListQuery>,
) -> Json<Answer<DeviceInfo>> {
    Answer::page(state.broker.devices_page(filter, window.place(), window.limit))
}

async fn get(
    State(state): State<Arc<AdminState>>,
    Path(nid): Path<String>,
    Query(NoFields): Query<NoFields>,
) -> Result<Json<DeviceInfo>, Problem> {
    let nid = parse(&state, &nid)?;
    state.broker.device_info(nid).map(Json).ok_or_else(|| unknown(nid))
}

/// What a device is given.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DeviceBody {
    gids: Vec<Number>,
    labels: BTreeMap<String, String>,
}

async fn put(
    State(state): State<Arc<AdminState>>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(nid): Path<String>,
    Query(NoFields): Query<NoFields>,
    Json(body): Json<DeviceBody>,
) -> Result<Response, Problem> {
    let nid = parse(&state, &nid)?;
    let gids = body.gids.iter().map(gid).collect::<Result<Vec<_>, _>>()?;
    let labels = body.labels.iter().map(|(name, value)| label(name, value));
    let labels = labels.collect::<Result<Vec<_>, _>>()?.join(";");
    let put = state.broker.put_device(&actor, nid, &gids, &labels);
    let is_new = put.map_err(|why| Problem::unprocessable(format!("The device has {why}.")))?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let device = state.broker.device_info(nid).ok_or_else(|| unknown(nid))?;
    Ok((status, Json(device)).into_response())
}

async fn delete(
    State(state): State<Arc<AdminState>>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(nid): Path<String>,
    Query(NoFields): Query<NoFields>,
) -> Result<StatusCode, Problem> {
    let nid = parse(&state, &nid)?;
    let removed = state.broker.remove_device(&actor, nid);
    if removed { Ok(StatusCode::NO_CONTENT) } else { Err(unknown(nid)) }
}

async fn reinstate(
    State(state): State<Arc<AdminState>>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(nid): Path<String>,
    Query(NoFields): Query<NoFields>,
    Json(NoMembers {}): Json<NoMembers>,
) -> Result<Json<DeviceInfo>, Problem> {
    let nid = parse(&state, &nid)?;
    state.broker.reinstate_device(&actor, nid);
    state.broker.device_info(nid).map(Json).ok_or_else(|| unknown(nid))
}

struct ImportQuery {
    replace: bool,
}

impl FromFields for ImportQuery {
    fn from_fields(fields: &mut Fields) -> Result<Self, Problem> {
        match fields.take::<String>("mode", "a text")?.as_deref() {
            None | Some("add") => Ok(Self { replace: false }),
            Some("replace") => Ok(Self { replace: true }),
            Some(_other) => Err(Problem::bad_request("`mode` must be add or replace.")),
        }
    }
}

/// What became of a registry file.
#[derive(Debug, Serialize)]
struct ImportAnswer {
    accepted: usize,
    rejected: usize,
    removed: usize,
    errors: Vec<LineAnswer>,
}

/// A broken line.
#[derive(Debug, Serialize)]
struct LineAnswer {
    line: usize,
    reason: String,
}

impl From<&ImportReport> for ImportAnswer {
    fn from(report: &ImportReport) -> Self {
        let line = |error: &crate::rsp::LineError| LineAnswer {
            line: error.line,
            reason: error.reason.to_string(),
        };
        Self {
            accepted: report.accepted,
            rejected: report.rejected,
            removed: report.removed,
            errors: report.errors.iter().map(line).collect(),
        }
    }
}

async fn import(
    State(state): State<Arc<AdminState>>,
    Extension(Actor(actor)): Extension<Actor>,
    Query(ImportQuery { replace }): Query<ImportQuery>,
    Csv { text, turn }: Csv,
) -> Result<Json<ImportAnswer>, Problem> {
    let broker = Arc::clone(&state.broker);
    let work = move || {
        // Also when nobody waits for the answer any more.
        let _turn = turn;
        if replace {
            broker.replace_registry(&actor, &text)
        } else {
            Ok(broker.add_to_registry(&actor, &text))
        }
    };
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Import failed", error.to_string())
    })?;
    match done {
        Ok(report) => Ok(Json(ImportAnswer::from(&report))),
        Err(why @ NotReplaced::Empty) => Err(Problem::unprocessable(format!("The file: {why}."))),
        Err(NotReplaced::Broken(report)) => {
            let rejected = report.rejected;
            let detail = format!("Broken lines: {rejected}; nothing has changed.");
            let report = json!(ImportAnswer::from(&report));
            Err(Problem::unprocessable(detail).with("report", report))
        }
    }
}

fn unknown(nid: Nid) -> Problem {
    Problem::not_found(format!("There is no device {nid} in the registry."))
}

pub(super) fn parse(state: &AdminState, digits: &str) -> Result<Nid, Problem> {
    let detail = |error| format!("The nid names no device: {error}.");
    Nid::parse(digits, state.broker.options().scheme).map_err(|error| match error {
        NidError::NotANumber | NidError::Zero => Problem::bad_request(detail(error)),
        NidError::NotAnEid | NidError::CheckDigits => Problem::unprocessable(detail(error)),
    })
}

/// A group in JSON, where 42.0 is 42.
fn gid(number: &Number) -> Result<Gid, Problem> {
    let detail = || Problem::bad_request(format!("{number}: {GidError}."));
    whole(number).and_then(Gid::new).ok_or_else(detail)
}

/// A label as the registry keeps it.
fn label(name: &str, value: &str) -> Result<String, Problem> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !(1..=LABEL_NAME_MAX).contains(&name.len()) || !name.chars().all(is_name) {
        let detail = "The name of a label has 1 to 64 letters, digits, `_`, `.` or `-`.";
        return Err(Problem::bad_request(detail));
    }
    let breaks = |c: char| c.is_control() || matches!(c, ';' | ',');
    if value.chars().count() > LABEL_VALUE_MAX || value.chars().any(breaks) {
        let detail = "The value of a label has up to 256 characters without `;` and `,`.";
        return Err(Problem::bad_request(detail));
    }
    Ok(format!("{name}={value}"))
}
