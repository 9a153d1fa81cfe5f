//! `/api/v1/settings` and `/api/v1/groups/{gid}/settings`: what the control unit permits and what
//! it does by itself, changed by merge patches (RFC 7396) while it runs. The configuration file is
//! not written: after a restart it holds again.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::Method;

use super::AdminState;
use super::auth::Actor;
use super::groups;
use super::json::{Json, MergePatch};
use super::problem::Problem;
use super::query::{NoFields, Path, Query};
use super::resource::Resource;
use crate::broker::{GroupSettingsInfo, NotSet};
use crate::rsp::Settings;

pub(super) fn resource() -> Resource {
    Resource::new(include_str!("openapi/settings.json"))
        .on(Method::GET, "/api/v1/settings", get)
        .on(Method::PATCH, "/api/v1/settings", patch)
        .on(Method::GET, "/api/v1/groups/{gid}/settings", get_of_group)
        .on(Method::PATCH, "/api/v1/groups/{gid}/settings", patch_of_group)
}

async fn get(
    State(state): State<Arc<AdminState>>,
    Query(NoFields): Query<NoFields>,
) -> Json<Settings> {
    Json(state.broker.settings())
}

async fn patch(
    State(state): State<Arc<AdminState>>,
    Extension(Actor(actor)): Extension<Actor>,
    Query(NoFields): Query<NoFields>,
    MergePatch(patch): MergePatch,
) -> Result<Json<Settings>, Problem> {
    state.broker.patch_settings(&actor, &patch).map(Json).map_err(|why| problem(&why))
}

async fn get_of_group(
    State(state): State<Arc<AdminState>>,
    Path(gid): Path<String>,
    Query(NoFields): Query<NoFields>,
) -> Result<Json<GroupSettingsInfo>, Problem> {
    Ok(Json(state.broker.group_settings(groups::parse(&gid)?)))
}

async fn patch_of_group(
    State(state): State<Arc<AdminState>>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(gid): Path<String>,
    Query(NoFields): Query<NoFields>,
    MergePatch(patch): MergePatch,
) -> Result<Json<GroupSettingsInfo>, Problem> {
    let gid = groups::parse(&gid)?;
    state.broker.patch_group_settings(&actor, gid, &patch).map(Json).map_err(|why| problem(&why))
}

fn problem(why: &NotSet) -> Problem {
    let detail = format!("Nothing has changed: {why}.");
    match why {
        NotSet::Malformed(_) => Problem::bad_request(detail),
        NotSet::Unworkable { .. } | NotSet::TooManyGroups => Problem::unprocessable(detail),
    }
}
