//! Who may use the API (case S16).

use std::net::{Ipv4Addr, SocketAddr};

use crate::common::{Rig, nid};
use crate::http::{Answer, READ_TOKEN, Request, TOKEN, get, rig_with_tokens, write_secret};

/// Every kind of request, and the status that it has where it is permitted.
fn requests() -> [(Request, u16, bool); 21] {
    let [device, known] = [50, 1].map(|number| format!("/api/v1/devices/{}", nid(number)));
    [
        (Request::get("/api/v1/devices"), 200, false),
        (Request::get("/api/v1/groups/7"), 200, false),
        (Request::get("/api/v1/sessions"), 200, false),
        (Request::get("/api/v1/refusals"), 200, false),
        (Request::get("/api/v1/openapi.json"), 200, false),
        (Request::new("PUT", &device).json("{}"), 201, true),
        (Request::new("DELETE", &device), 204, true),
        (Request::new("POST", "/api/v1/devices/import").body("text/csv", ""), 200, true),
        (Request::new("DELETE", "/api/v1/sessions/nobody"), 404, true),
        (Request::new("DELETE", "/api/v1/groups"), 405, true),
        (Request::get("/api/v1/settings"), 200, false),
        (Request::get("/api/v1/campaigns"), 200, false),
        (Request::get("/api/v1/exchanges"), 200, false),
        (Request::get("/api/v1/audit"), 200, false),
        (Request::new("PATCH", "/api/v1/settings").json("{}"), 200, true),
        (Request::new("PATCH", "/api/v1/groups/7/settings").json("{}"), 200, true),
        (Request::new("POST", "/api/v1/campaigns/1/retry").json("{}"), 404, true),
        (Request::new("POST", "/api/v1/campaigns/1/cancel").json("{}"), 404, true),
        (Request::new("POST", "/api/v1/campaigns/1/release").json("{}"), 404, true),
        (Request::new("POST", &format!("{known}/reinstate")).json("{}"), 200, true),
        (Request::get("/api/v1/groups/7/settings"), 200, false),
    ]
}

#[track_caller]
fn expect(answer: &Answer, status: u16, request: &Request) {
    assert_eq!(answer.status, status, "{request:?}: {answer:?}");
    if status >= 400 {
        answer.problem(status);
    }
}

#[tokio::test]
async fn with_tokens_nobody_gets_in_without_one() {
    let rig = rig_with_tokens().await;
    for (request, permitted, changes) in requests() {
        let answer = request.send(&rig).await;
        expect(&answer, 401, &request);
        assert!(answer.head.contains("www-authenticate: bearer"), "{answer:?}");
        for wrong in ["", "x", &TOKEN[1..], &format!("{TOKEN}x"), &TOKEN.to_uppercase()] {
            expect(&request.clone().token(wrong).send(&rig).await, 401, &request);
        }
        let basic = request.clone().header("Authorization", &format!("Basic {TOKEN}"));
        expect(&basic.send(&rig).await, 401, &request);
        let twice = request.clone().token("x").token(TOKEN);
        expect(&twice.send(&rig).await, 401, &request);

        let reading = request.clone().token(READ_TOKEN).send(&rig).await;
        expect(&reading, if changes { 403 } else { permitted }, &request);
        expect(&request.clone().token(TOKEN).send(&rig).await, permitted, &request);
    }
    // With a token, the name does not matter; where a page comes from does.
    let elsewhere = Request::get("/api/v1/groups").instead("Host", "broker.example").token(TOKEN);
    assert_eq!(elsewhere.send(&rig).await.status, 200);
    let page = elsewhere.header("Origin", "https://evil.example");
    page.send(&rig).await.problem(403);
}

#[tokio::test]
async fn health_and_metrics_need_no_token() {
    let rig = rig_with_tokens().await;
    for path in ["/livez", "/readyz", "/healthz", "/metrics"] {
        let anybody = Request::get(path).instead("Host", "anywhere.example");
        assert_eq!(anybody.send(&rig).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn without_a_token_this_machine_may_do_everything_and_pages_from_elsewhere_nothing() {
    let rig = Rig::start().await;
    let address = rig.admin.to_string();
    for (request, permitted, _) in requests() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:9883", "[::1]:9883", &address] {
            let here = request.clone().instead("Host", host);
            let status = here.send(&rig).await.status;
            // A device that is put twice is not new.
            assert!(
                status == permitted
                    || (permitted == 201 && status == 200)
                    || (permitted == 204 && status == 404),
                "{here:?}: {status}"
            );
        }
        // A name that an attacker has made to mean this machine.
        for host in ["evil.example", "localhost.evil.example", "192.0.2.1", "", "a b"] {
            let rebound = request.clone().instead("Host", host);
            expect(&rebound.send(&rig).await, 403, &rebound);
        }
        let two = request.clone().header("Host", "evil.example");
        assert!(matches!(two.send(&rig).await.status, 400 | 403));
        for origin in ["http://evil.example", "null", "http://localhost:1", "file://"] {
            let page = request.clone().header("Origin", origin);
            expect(&page.send(&rig).await, 403, &page);
        }
        let own = request.clone().instead("Host", &address);
        let own = own.header("Origin", &format!("http://{address}"));
        assert_ne!(own.send(&rig).await.status, 403, "{own:?}");
    }
}

#[tokio::test]
async fn a_form_of_a_page_cannot_change_anything() {
    let rig = Rig::start().await;
    let csv = format!("{},7,\n", nid(50));
    for form in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let post = Request::new("POST", "/api/v1/devices/import").body(form, csv.clone());
        post.send(&rig).await.problem(415);
    }
    let device = format!("/api/v1/devices/{}", nid(50));
    Request::new("PUT", &device).body("text/plain", "{}").send(&rig).await.problem(415);
    Request::get(&device).send(&rig).await.problem(404);
}

#[tokio::test]
async fn other_tokens_hold_from_the_moment_they_are_read() {
    let rig = rig_with_tokens().await;
    let path = rig.dir.path().join("token");
    let ask =
        async |token: &str| Request::get("/api/v1/groups").token(token).send(&rig).await.status;
    write_secret(&path, "too short");
    let error = rig.service.reload_tokens().unwrap_err().to_string();
    assert!(error.contains("token: must hold"), "{error}");
    assert_eq!((ask(TOKEN).await, ask(READ_TOKEN).await), (200, 200), "as before");

    write_secret(&path, "another-0123456789abcdef\n");
    assert_eq!(rig.service.reload_tokens().unwrap(), 2);
    assert_eq!(ask(TOKEN).await, 401);
    assert_eq!((ask("another-0123456789abcdef").await, ask(READ_TOKEN).await), (200, 200));
}

#[tokio::test]
async fn a_broker_without_token_files_has_none_to_read() {
    let rig = Rig::start().await;
    assert_eq!(rig.service.reload_tokens().unwrap(), 0);
    get(&rig, "/api/v1/groups").await;
}

#[tokio::test]
async fn every_loopback_address_is_this_machine() {
    let rig = Rig::with(|config| {
        config.admin.bind = Some(SocketAddr::from((Ipv4Addr::new(127, 9, 8, 7), 0)));
    })
    .await;
    get(&rig, "/api/v1/groups").await;
}
