//! The HTTP side for operators, on an address of its own: health, metrics, and the API by which
//! the broker is seen and changed.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 as long as the process serves; no load and no disk changes that |
//! | `/readyz`, `/healthz` | 200 while clients are served, 503 while starting and draining |
//! | `/metrics` | everything in the text format of Prometheus |
//! | `/api/v1/…` | see `/api/v1/openapi.json`, or the files of the resources |
//!
//! `?verbose` says more of health. Errors are problem+json (RFC 9457). [`auth`](Access) says who
//! may use the API.
//!
//! To add a resource: a file like `groups.rs` with a function `resource`, its part of the
//! description in `openapi/`, and its line in [`resources`].

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::broker::Broker;

mod audit;
mod auth;
mod bounded;
mod campaigns;
mod devices;
mod events;
mod exchanges;
mod groups;
mod health;
mod json;
mod openapi;
mod page;
mod problem;
mod query;
mod refusals;
mod resource;
mod sessions;
mod settings;
#[cfg(test)]
mod tests;

pub use auth::{Access, Tokens};
pub use bounded::{Channel, Opened, Secure, Securing};
pub use health::{Phase, Readiness};

use bounded::Times;
use problem::Problem;
use resource::Resource;

/// What the HTTP side knows of the broker.
#[derive(Debug)]
pub struct AdminState {
    broker: Arc<Broker>,
    readiness: Arc<Readiness>,
    access: Arc<Access>,
    streams: Arc<Semaphore>,
    imports: Arc<Semaphore>,
}

impl AdminState {
    /// `readiness` answers `/readyz`, `access` says who may use the API.
    #[must_use]
    pub fn new(broker: Arc<Broker>, readiness: Arc<Readiness>, access: Arc<Access>) -> Self {
        let (streams, imports) = (events::places(), Arc::new(Semaphore::new(1)));
        Self { broker, readiness, access, streams, imports }
    }
}

/// Every resource of the API.
fn resources() -> Vec<Resource> {
    vec![
        devices::resource(),
        groups::resource(),
        settings::resource(),
        campaigns::resource(),
        exchanges::resource(),
        audit::resource(),
        sessions::resource(),
        refusals::resource(),
        events::resource(),
        openapi::resource(),
    ]
}

/// Serves as long as it is polled; all connections end with it.
pub async fn serve(
    listener: TcpListener,
    state: Arc<AdminState>,
    secure: Option<Secure>,
) -> Infallible {
    let broker = Arc::clone(&state.broker);
    let refused = move |peer, why: String| {
        if let Some(repeats) = broker.complain("admin_not_secured") {
            tracing::warn!(%peer, repeats = repeats.field(), "admin: {why}");
        }
    };
    bounded::serve(listener, router(state), secure, Times::default(), refused).await
}

fn router(state: Arc<AdminState>) -> Router {
    let api = resources().into_iter().fold(Router::new(), |api, r| api.merge(r.router));
    let guard = from_fn_with_state(Arc::clone(&state), auth::guard);
    Router::new()
        .merge(api.method_not_allowed_fallback(method_not_allowed).layer(guard))
        .merge(health::routes().method_not_allowed_fallback(method_not_allowed))
        .fallback(not_found)
        .with_state(state)
}

async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(format!("There is nothing at {}.", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} does nothing at {}; `Allow` says what does.", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail)
}
