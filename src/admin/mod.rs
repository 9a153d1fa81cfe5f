//! The HTTP side for operators: health and metrics, on an address of its own.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 as long as the process serves; no load and no disk changes that |
//! | `/readyz`, `/healthz` | 200 while clients are served, 503 while starting and draining |
//! | `/metrics` | everything in the text format of Prometheus |
//!
//! `?verbose` says more. Errors are problem+json (RFC 9457).

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::{self, Metrics, Snapshot};

mod bounded;
mod problem;

use bounded::Bounded;
use problem::Problem;

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

/// What the HTTP side knows of the broker.
pub struct AdminState {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Answers `/readyz`.
    pub readiness: Arc<Readiness>,
    /// Takes the sums of state; called once per scrape, so it must be quick.
    pub snapshot: Box<dyn Fn() -> Snapshot + Send + Sync>,
}

/// Serves until `shutdown` resolves, then lets open requests finish.
///
/// # Errors
/// If the socket fails.
pub async fn serve(
    listener: TcpListener,
    state: AdminState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(Bounded::new(listener), router(Arc::new(state)))
        .with_graceful_shutdown(shutdown)
        .await
}

fn router(state: Arc<AdminState>) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .route("/metrics", get(metrics_text))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

async fn live(RawQuery(query): RawQuery) -> Response {
    health(StatusCode::OK, "alive", query.as_deref())
}

async fn ready(State(state): State<Arc<AdminState>>, RawQuery(query): RawQuery) -> Response {
    let phase = state.readiness.phase();
    match phase {
        Phase::Ready => health(StatusCode::OK, phase.name(), query.as_deref()),
        Phase::Starting | Phase::Draining => Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            title: "Not ready",
            detail: format!("The broker is {}.", phase.name()),
        }
        .into_response(),
    }
}

async fn metrics_text(State(state): State<Arc<AdminState>>) -> Response {
    state.metrics.observe(&(state.snapshot)());
    match state.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(e) => Problem {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            title: "Metrics cannot be written",
            detail: e.to_string(),
        }
        .into_response(),
    }
}

async fn not_found(uri: Uri) -> Problem {
    Problem {
        status: StatusCode::NOT_FOUND,
        title: "Not found",
        detail: format!("There is nothing at {}.", uri.path()),
    }
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem {
        status: StatusCode::METHOD_NOT_ALLOWED,
        title: "Method not allowed",
        detail: format!("{method} does nothing at {}; use GET.", uri.path()),
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    /// A server on a free port.
    struct Server {
        address: SocketAddr,
        readiness: Arc<Readiness>,
        stop: oneshot::Sender<()>,
        task: JoinHandle<io::Result<()>>,
    }

    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Arc::new(Readiness::default());
        let state = AdminState {
            metrics: Arc::new(Metrics::new(&[], &[])),
            readiness: Arc::clone(&readiness),
            snapshot: Box::new(|| Snapshot { subscriptions: 42, ..Snapshot::default() }),
        };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { stopped.await.unwrap_or_default() };
        let task = tokio::spawn(serve(listener, state, shutdown));
        Server { address, readiness, stop, task }
    }

    /// Status line, headers and body of one request.
    async fn request(server: &Server, line: &str) -> String {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn liveness_does_not_depend_on_readiness() {
        // case O10
        let server = start().await;
        for phase in [Phase::Starting, Phase::Ready, Phase::Draining] {
            server.readiness.set(phase);
            let answer = request(&server, "GET /livez").await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
        }
        let answer = request(&server, "GET /livez?verbose").await;
        assert!(answer.contains("\nphase: alive\nversion: "), "{answer}");
    }

    #[tokio::test]
    async fn readiness_follows_the_phase() {
        // case O10
        let server = start().await;
        for path in ["/readyz", "/healthz"] {
            server.readiness.set(Phase::Starting);
            let answer = request(&server, &format!("GET {path}")).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(answer.contains("The broker is starting."), "{answer}");
            server.readiness.set(Phase::Ready);
            let answer = request(&server, &format!("GET {path}?verbose")).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(answer.contains("phase: ready"), "{answer}");
            server.readiness.set(Phase::Draining);
            let answer = request(&server, &format!("GET {path}")).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_scrape_takes_the_sums_of_state() {
        let server = start().await;
        let answer = request(&server, "GET /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("\nsimcast_subscriptions 42\n"), "{answer}");
    }

    #[tokio::test]
    async fn errors_are_problems() {
        let server = start().await;
        let answer = request(&server, "GET /nothing\"here").await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        let answer = request(&server, "GET /nothing").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        assert!(answer.contains("content-type: application/problem+json"), "{answer}");
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["status"], 404);
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["detail"], "There is nothing at /nothing.");

        let answer = request(&server, "POST /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("allow: GET"), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }

    #[tokio::test]
    async fn shutdown_ends_the_server() {
        let server = start().await;
        request(&server, "GET /livez").await;
        server.stop.send(()).unwrap();
        server.task.await.unwrap().unwrap();
        assert!(TcpStream::connect(server.address).await.is_err());
    }
}
