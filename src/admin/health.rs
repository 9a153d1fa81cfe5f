//! `/livez`, `/readyz`, `/metrics`: for everybody who gets that far.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::AdminState;
use super::problem::Problem;
use crate::metrics;

/// Where the broker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not yet listening.
    Starting = 0,
    /// Serving clients.
    Ready = 1,
    /// Letting clients go.
    Draining = 2,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// The present [`Phase`], shared with whoever changes it.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Changes the phase.
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    /// The present phase; [`Phase::Starting`] at first.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }
}

pub(super) fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .route("/metrics", get(metrics_text))
}

async fn live(RawQuery(query): RawQuery) -> Response {
    health(StatusCode::OK, "alive", query.as_deref())
}

async fn ready(State(state): State<Arc<AdminState>>, RawQuery(query): RawQuery) -> Response {
    let phase = state.readiness.phase();
    if let Some(trouble) = state.broker.store_trouble() {
        let detail = format!("{}: messages that have to be kept are refused.", trouble.explain());
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Not ready", detail).into_response();
    }
    match phase {
        Phase::Ready => health(StatusCode::OK, phase.name(), query.as_deref()),
        Phase::Starting | Phase::Draining => {
            let detail = format!("The broker is {}.", phase.name());
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Not ready", detail).into_response()
        }
    }
}

async fn metrics_text(State(state): State<Arc<AdminState>>) -> Response {
    let metrics = state.broker.metrics();
    metrics.observe(&state.broker.snapshot());
    match metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(status, "Metrics cannot be written", error.to_string()).into_response()
        }
    }
}

fn health(status: StatusCode, phase: &str, query: Option<&str>) -> Response {
    let verbose = query.is_some_and(|query| query.split('&').any(|q| q.starts_with("verbose")));
    let text = if verbose {
        format!("ok\nphase: {phase}\nversion: {}\n", env!("CARGO_PKG_VERSION"))
    } else {
        "ok\n".to_owned()
    };
    let plain = "text/plain; charset=utf-8";
    (status, [(CONTENT_TYPE, plain), (CACHE_CONTROL, "no-store")], text).into_response()
}
