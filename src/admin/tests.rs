//! Health and metrics over a real socket. The API is tested from outside, in `tests/admin/`.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// A server on a free port.
struct Server {
    address: SocketAddr,
    readiness: Arc<Readiness>,
}

async fn start() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let readiness = Arc::new(Readiness::default());
    let broker = Arc::new(crate::broker::tests::broker());
    let access = Arc::new(Access::new(Tokens::default(), false));
    let state = AdminState::new(broker, Arc::clone(&readiness), access);
    tokio::spawn(serve(listener, Arc::new(state), None));
    Server { address, readiness }
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
    assert!(answer.contains("\nsimcast_subscriptions 0\n"), "{answer}");
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
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["status"], 404);
    assert_eq!(problem["type"], "about:blank");
    assert_eq!(problem["detail"], "There is nothing at /nothing.");

    for path in ["/metrics", "/api/v1/groups"] {
        let answer = request(&server, &format!("DELETE {path}")).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("allow: GET"), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
}
