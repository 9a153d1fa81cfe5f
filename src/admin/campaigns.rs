//! `/api/v1/campaigns`: every A1, B1 and C1, how far its devices are, and what operators do to it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::AdminState;
use super::auth::Actor;
use super::devices;
use super::json::{Json, NoMembers};
use super::page::{Answer, Window};
use super::problem::Problem;
use super::query::{Fields, FromFields, NoFields, Path, Query};
use super::resource::Resource;
use crate::broker::{CampaignDeviceInfo, CampaignFilter, CampaignInfo, NotReleased};
use crate::rsp::{CampaignId, CampaignState, DeviceState, RetryError};

pub(super) fn resource() -> Resource {
    Resource::new(include_str!("openapi/campaigns.json"))
        .on(Method::GET, "/api/v1/campaigns", list)
        .on(Method::GET, "/api/v1/campaigns/{id}", get)
        .on(Method::GET, "/api/v1/campaigns/{id}/devices", devices)
        .on(Method::POST, "/api/v1/campaigns/{id}/retry", retry)
        .on(Method::POST, "/api/v1/campaigns/{id}/cancel", cancel)
        .on(Method::POST, "/api/v1/campaigns/{id}/release", release)
}

struct ListQuery {
    window: Window,
    filter: CampaignFilter,
    /// Of a device; its form is that of the broker.
    nid: Option<String>,
}

impl FromFields for ListQuery {
    fn from_fields(fields: &mut Fields) -> Result<Self, Problem> {
        let filter = CampaignFilter {
            gid: fields.take("gid", "a number from 1 to 18446744073709551615")?,
            nid: None,
            state: fields.one_of("state", &CampaignState::ALL, CampaignState::name)?,
            name: fields.take("name", "a text")?,
        };
        Ok(Self { filter, nid: fields.take("nid", "a text")?, window: fields.window()? })
    }
}

async fn list(
    State(state): State<Arc<AdminState>>,
    Query(ListQuery { window, filter, nid }): Query<ListQuery>,
) -> Result<Json<Answer<CampaignInfo>>, Problem> {
    let nid = nid.map(|digits| devices::parse(&state, &digits)).transpose()?;
    let filter = CampaignFilter { nid, ..filter };
    Ok(Answer::page(state.broker.campaigns_page(&filter, window.after, window.limit)))
}

async fn get(
    State(state): State<Arc<AdminState>>,
    Path(id): Path<String>,
    Query(NoFields): Query<NoFields>,
) -> Result<Json<CampaignInfo>, Problem> {
    state.broker.campaign_info(parse(&id)?).map(Json).ok_or_else(unknown)
}

struct DevicesQuery {
    window: Window,
    wanted: Option<DeviceState>,
}

impl FromFields for DevicesQuery {
    fn from_fields(fields: &mut Fields) -> Result<Self, Problem> {
        let wanted = fields.one_of("state", &DeviceState::ALL, DeviceState::name)?;
        Ok(Self { wanted, window: fields.window()? })
    }
}

async fn devices(
    State(state): State<Arc<AdminState>>,
    Path(id): Path<String>,
    Query(DevicesQuery { window, wanted }): Query<DevicesQuery>,
) -> Result<Json<Answer<CampaignDeviceInfo>>, Problem> {
    let (id, from) = (parse(&id)?, window.place());
    let page = state.broker.campaign_devices_page(id, wanted, from, window.limit);
    page.map(Answer::page).ok_or_else(unknown)
}

/// Whom to send it again.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RetryBody {
    failed: bool,
}

/// To how many devices something was done.
#[derive(Debug, Serialize)]
struct DoneAnswer {
    devices: u32,
}

async fn retry(
    State(state): State<Arc<AdminState>>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(id): Path<String>,
    Query(NoFields): Query<NoFields>,
    Json(RetryBody { failed }): Json<RetryBody>,
) -> Result<Json<DoneAnswer>, Problem> {
    let retried = state.broker.retry_campaign(&actor, parse(&id)?, failed);
    let devices = retried.map_err(|why| match why {
        RetryError::Unknown => unknown(),
        RetryError::NoRoom => Problem::busy(sentence(&why)),
        RetryError::MessageGone | RetryError::NobodyMissing => {
            Problem::unprocessable(sentence(&why))
        }
    })?;
    Ok(Json(DoneAnswer { devices }))
}

async fn cancel(
    State(state): State<Arc<AdminState>>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(id): Path<String>,
    Query(NoFields): Query<NoFields>,
    Json(NoMembers {}): Json<NoMembers>,
) -> Result<Json<DoneAnswer>, Problem> {
    let cancelled = state.broker.cancel_campaign(&actor, parse(&id)?);
    cancelled.map(|devices| Json(DoneAnswer { devices })).ok_or_else(unknown)
}

async fn release(
    State(state): State<Arc<AdminState>>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(id): Path<String>,
    Query(NoFields): Query<NoFields>,
    Json(NoMembers {}): Json<NoMembers>,
) -> Result<StatusCode, Problem> {
    let released = state.broker.release_campaign(&actor, parse(&id)?);
    released.map(|()| StatusCode::NO_CONTENT).map_err(|why| match why {
        NotReleased::Unknown => unknown(),
        NotReleased::NoWaves => Problem::unprocessable(sentence(&why)),
    })
}

fn unknown() -> Problem {
    Problem::not_found("There is no such campaign; it may have been forgotten.")
}

fn parse(digits: &str) -> Result<CampaignId, Problem> {
    let id = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok());
    let detail = "A campaign has a number of up to 64 bits.";
    id.flatten().map(CampaignId).ok_or_else(|| Problem::bad_request(detail))
}

fn sentence(why: &impl std::fmt::Display) -> String {
    format!("It stays as it was: {why}.")
}
