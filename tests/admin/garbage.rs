//! What is no HTTP, or hardly any: whoever sends it is closed, and nobody else notices.

use crate::common::{Dial, Rig};
use crate::http::{Request, exchange, get};

#[tokio::test]
async fn garbage_is_answered_with_400_or_nothing() {
    let rig = Rig::start().await;
    let mut client = rig.client(Dial::v5("client")).await;
    let long = "x".repeat(70_000);
    let many: String = (0..200).map(|number| format!("X-{number}: 1\r\n")).collect();
    let cases: Vec<Vec<u8>> = vec![
        b"\r\n\r\n\r\n".to_vec(),
        b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET /livez\r\n\r\n".to_vec(),
        b"GET /livez HTTP/9.9\r\n\r\n".to_vec(),
        b"GET  /livez HTTP/1.1\r\n\r\n".to_vec(),
        b"GET /api/v1/groups HTTP/1.1\r\nHost: localhost\r\nA\0: b\r\n\r\n".to_vec(),
        b"GET /api/v1/groups HTTP/1.1\r\nHost : localhost\r\n\r\n".to_vec(),
        b"POST /api/v1/devices/import HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /api/v1/devices/import HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"
            .to_vec(),
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes(),
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n").into_bytes(),
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").into_bytes(),
        vec![0; 100_000],
    ];
    for bytes in cases {
        // It has said all it has to say.
        let mut stream = rig.tcp(rig.admin).await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await.ok();
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.ok();
        let answer = exchange(stream, b"").await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{shown:?}: {text}");
    }
    get(&rig, "/api/v1/groups").await;
    client.ping().await;
}

#[tokio::test]
async fn paths_that_lead_nowhere_are_told_so() {
    let rig = Rig::start().await;
    for path in [
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v2/devices",
        "/api/v1/devices/",
        "/api/v1/groups/7/",
        "/api/v1/devices/1/2",
        "//api/v1/groups",
        "/api/v1/../metrics",
        "/API/V1/groups",
        "/api/v1/journeys",
    ] {
        Request::get(path).send(&rig).await.problem(404);
    }
    for method in ["PATCH", "OPTIONS", "TRACE", "PROPFIND"] {
        let answer = Request::new(method, "/api/v1/groups").send(&rig).await;
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
    }
    let head = Request::new("HEAD", "/api/v1/groups").send(&rig).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}
