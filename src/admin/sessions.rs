//! `/api/v1/sessions`: the clients that are there, and those that will come back.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{Method, StatusCode};

use super::AdminState;
use super::auth::Actor;
use super::json::Json;
use super::page::{Answer, Window};
use super::problem::Problem;
use super::query::{Fields, FromFields, NoFields, Path, Query};
use super::resource::Resource;
use crate::broker::{NotEnded, SessionInfo};

pub(super) fn resource() -> Resource {
    Resource::new(include_str!("openapi/sessions.json"))
        .on(Method::GET, "/api/v1/sessions", list)
        .on(Method::GET, "/api/v1/sessions/{client_id}", get)
        .on(Method::DELETE, "/api/v1/sessions/{client_id}", delete)
}

struct ListQuery {
    window: Window,
    online: Option<bool>,
}

impl FromFields for ListQuery {
    fn from_fields(fields: &mut Fields) -> Result<Self, Problem> {
        Ok(Self { online: fields.flag("online")?, window: fields.window()? })
    }
}

async fn list(
    State(state): State<Arc<AdminState>>,
    Query(ListQuery { window, online }): Query<ListQuery>,
) -> Json<Answer<SessionInfo>> {
    Answer::page(state.broker.sessions_page(online, window.place(), window.limit))
}

async fn get(
    State(state): State<Arc<AdminState>>,
    Path(client_id): Path<String>,
    Query(NoFields): Query<NoFields>,
) -> Result<Json<SessionInfo>, Problem> {
    state.broker.session_info(&client_id).map(Json).ok_or_else(unknown)
}

struct DeleteQuery {
    forget: bool,
}

impl FromFields for DeleteQuery {
    fn from_fields(fields: &mut Fields) -> Result<Self, Problem> {
        Ok(Self { forget: fields.flag("forget")?.unwrap_or(false) })
    }
}

async fn delete(
    State(state): State<Arc<AdminState>>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(client_id): Path<String>,
    Query(DeleteQuery { forget }): Query<DeleteQuery>,
) -> Result<StatusCode, Problem> {
    let ended = match forget {
        true => state.broker.end_session(&actor, &client_id).await,
        false => state.broker.kick_client(&actor, &client_id),
    };
    ended.map(|()| StatusCode::NO_CONTENT).map_err(|why| match why {
        NotEnded::Unknown => unknown(),
        NotEnded::StillBusy => Problem::busy("The client's connection is busy; try again."),
        NotEnded::Away => Problem::unprocessable(AWAY),
    })
}

const AWAY: &str =
    "The client is not connected: there is no connection to end. With `forget`, its session ends.";

fn unknown() -> Problem {
    Problem::not_found("There is no session of this client id.")
}
