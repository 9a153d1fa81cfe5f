//! `/api/v1/audit`: the latest entries of the audit log. All of them, and the hashes that show
//! whether one is missing, are in its file.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Method;
use serde::Serialize;
use serde_json::value::RawValue;

use super::AdminState;
use super::json::Json;
use super::page::limit;
use super::problem::Problem;
use super::query::{Fields, FromFields, Query};
use super::resource::Resource;

pub(super) fn resource() -> Resource {
    Resource::new(include_str!("openapi/audit.json")).on(Method::GET, "/api/v1/audit", list)
}

struct ListQuery {
    /// Those behind this number; without, the newest.
    since: Option<u64>,
    limit: usize,
}

impl FromFields for ListQuery {
    fn from_fields(fields: &mut Fields) -> Result<Self, Problem> {
        let since = fields.take("since", "the number of an entry")?;
        Ok(Self { since, limit: limit(fields)? })
    }
}

/// Entries, each as its line in the file has it.
#[derive(Debug, Serialize)]
struct AuditAnswer {
    items: Vec<Box<RawValue>>,
    /// For `since`; null when that was all.
    next: Option<u64>,
    first: u64,
    newest: u64,
}

async fn list(
    State(state): State<Arc<AdminState>>,
    Query(ListQuery { since, limit }): Query<ListQuery>,
) -> Json<AuditAnswer> {
    let log = state.broker.audit();
    let page = since.map_or_else(|| log.latest(limit), |since| log.since(since, limit));
    let last = (page.first + page.lines.len() as u64).saturating_sub(1);
    let next = (!page.lines.is_empty() && last < page.newest).then_some(last);
    let items = page.lines.iter().filter_map(|line| RawValue::from_string(line.to_string()).ok());
    Json(AuditAnswer { items: items.collect(), next, first: page.first, newest: page.newest })
}
