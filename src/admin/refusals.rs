//! `/api/v1/refusals`: the names that the control unit gives its refusals, explained.

use axum::http::Method;
use serde::Serialize;

use super::json::Json;
use super::page::Answer;
use super::query::{NoFields, Query};
use super::resource::Resource;
use crate::rsp::Refusal;

pub(super) fn resource() -> Resource {
    Resource::new(include_str!("openapi/refusals.json")).on(Method::GET, "/api/v1/refusals", list)
}

/// A refusal.
#[derive(Debug, Serialize)]
struct RefusalAnswer {
    name: &'static str,
    reason_code: u8,
    explanation: &'static str,
}

async fn list(Query(NoFields): Query<NoFields>) -> Json<Answer<RefusalAnswer>> {
    let refusals = Refusal::ALL.iter().map(|refusal| RefusalAnswer {
        name: refusal.name(),
        reason_code: refusal.reason_code() as u8,
        explanation: refusal.explain(),
    });
    Answer::whole(refusals.collect())
}
