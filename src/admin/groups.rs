//! `/api/v1/groups`: which groups there are, and who is in them. Devices are put into groups at
//! `/api/v1/devices/{nid}`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Method;
use serde::Serialize;

use super::AdminState;
use super::json::Json;
use super::page::{Answer, Window};
use super::problem::Problem;
use super::query::{Fields, FromFields, NoFields, Path, Query};
use super::resource::Resource;
use crate::broker::{DeviceFilter, DeviceInfo};
use crate::ids::Gid;

pub(super) fn resource() -> Resource {
    Resource::new(include_str!("openapi/groups.json"))
        .on(Method::GET, "/api/v1/groups", list)
        .on(Method::GET, "/api/v1/groups/{gid}", get)
        .on(Method::GET, "/api/v1/groups/{gid}/devices", devices)
}

/// A group.
#[derive(Debug, Serialize)]
struct GroupAnswer {
    gid: u64,
    devices: usize,
}

async fn list(
    State(state): State<Arc<AdminState>>,
    Query(window): Query<Window>,
) -> Json<Answer<GroupAnswer>> {
    let after = window.after.and_then(Gid::new);
    let groups = state.broker.with_control(|control| -> Vec<_> {
        let groups = control.registry().groups_after(after).take(window.limit + 1);
        groups.map(|(gid, devices)| GroupAnswer { gid: gid.get(), devices }).collect()
    });
    Answer::numbered(groups, window, |group| group.gid)
}

async fn get(
    State(state): State<Arc<AdminState>>,
    Path(gid): Path<String>,
    Query(NoFields): Query<NoFields>,
) -> Result<Json<GroupAnswer>, Problem> {
    let gid = parse(&gid)?;
    Ok(Json(GroupAnswer { gid: gid.get(), devices: size(&state, gid)? }))
}

struct DevicesQuery {
    window: Window,
    online: Option<bool>,
}

impl FromFields for DevicesQuery {
    fn from_fields(fields: &mut Fields) -> Result<Self, Problem> {
        Ok(Self { online: fields.flag("online")?, window: fields.window()? })
    }
}

async fn devices(
    State(state): State<Arc<AdminState>>,
    Path(gid): Path<String>,
    Query(DevicesQuery { window, online }): Query<DevicesQuery>,
) -> Result<Json<Answer<DeviceInfo>>, Problem> {
    let gid = parse(&gid)?;
    size(&state, gid)?;
    let filter = DeviceFilter { gid: Some(gid), online };
    Ok(Answer::page(state.broker.devices_page(filter, window.place(), window.limit)))
}

pub(super) fn parse(digits: &str) -> Result<Gid, Problem> {
    digits.parse().map_err(|error: crate::ids::GidError| Problem::bad_request(format!("{error}.")))
}

fn size(state: &AdminState, gid: Gid) -> Result<usize, Problem> {
    let size = state.broker.with_control(|control| control.registry().group_size(gid));
    size.ok_or_else(|| Problem::not_found(format!("No device is in group {gid}.")))
}
