//! `/api/v1/sessions`: who is there, and who has to go.

use serde_json::json;
use simcast::mqtt::{QoS, ReasonCode};

use crate::audit::audited;
use crate::common::{Dial, Rig, TO_EUICC, envelope, nid};
use crate::http::{Request, get, pages};

async fn kick(rig: &Rig, client_id: &str, query: &str) -> u16 {
    let path = format!("/api/v1/sessions/{client_id}{query}");
    Request::new("DELETE", &path).send(rig).await.status
}

#[tokio::test]
async fn a_session_says_whose_it_is_and_what_waits_for_it() {
    let rig = Rig::start().await;
    let device = rig.reader(1, Dial::v311("device").persistent()).await;
    let mut client = rig.client(Dial::v5("a/b c").persistent()).await;
    client.subscribe("news/#", QoS::AtLeastOnce).await;

    let session = get(&rig, "/api/v1/sessions/device").await;
    assert_eq!(session["identity"], json!(nid(1).to_string()));
    assert_eq!((&session["role"], &session["version"]), (&json!("device"), &json!("3.1.1")));
    assert_eq!(session["nid"], json!(nid(1).to_string()));
    assert_eq!((&session["online"], &session["subscriptions"]), (&json!(true), &json!(1)));
    assert_eq!(session["transport"], json!("mqtts"));
    assert!(session["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{session}");
    assert!(session["connected_at"].as_str().unwrap().ends_with('Z'), "{session}");

    client.disconnect().await;
    let mut publisher = rig.client(Dial::v5("publisher")).await;
    assert!(publisher.publish("news/1", "12345", QoS::AtLeastOnce).await.is_ok());
    let session = get(&rig, "/api/v1/sessions/a%2Fb%20c").await;
    assert_eq!((&session["role"], &session["identity"]), (&json!("client"), &json!("")));
    assert_eq!((&session["online"], &session["peer"]), (&json!(false), &json!(null)));
    assert_eq!(session["queue"]["messages"], json!(1));
    assert!(session["queue"]["bytes"].as_u64().unwrap() >= 5, "{session}");
    drop(device);
}

#[tokio::test]
async fn sessions_come_page_by_page() {
    let rig = Rig::start().await;
    let mut clients = Vec::new();
    for number in 0..5 {
        let dial = Dial::v5(&format!("client-{number}")).persistent();
        clients.push(rig.client(dial).await);
    }
    for limit in 1..=6 {
        let pages = pages(&rig, "/api/v1/sessions", limit, "client_id").await;
        assert!(pages.iter().all(|page| page.len() <= limit), "{pages:?}");
        let mut all = pages.concat();
        all.sort();
        assert_eq!(all, (0..5).map(|number| format!("client-{number}")).collect::<Vec<_>>());
    }
    clients.remove(3).disconnect().await;
    let list = async |query| pages(&rig, query, 2, "client_id").await.concat();
    assert_eq!(list("/api/v1/sessions?online=false").await, ["client-3"]);
    assert_eq!(list("/api/v1/sessions?online=true").await.len(), 4);
    Request::get("/api/v1/sessions?online=maybe").send(&rig).await.problem(400);
    let behind = get(&rig, "/api/v1/sessions?after=ffffffff").await;
    assert_eq!(behind, json!({"items": [], "next": null}));
}

#[tokio::test]
async fn whoever_is_kicked_goes_and_its_session_stays() {
    let rig = Rig::start().await;
    let mut other = rig.client(Dial::v5("other")).await;
    let mut client = rig.client(Dial::v5("client").persistent()).await;
    client.subscribe("news/#", QoS::AtLeastOnce).await;
    assert_eq!(kick(&rig, "client", "").await, 204);
    assert_eq!(client.expect_goodbye().await, ReasonCode::AdministrativeAction);
    assert_eq!(get(&rig, "/api/v1/sessions/client").await["online"], json!(false));
    other.ping().await;

    // Nobody is there to go, and whoever comes back is not sent away by an old call.
    let again = Request::new("DELETE", "/api/v1/sessions/client").send(&rig).await.problem(422);
    assert!(again.contains("not connected"), "{again}");
    assert_eq!(audited(&rig, "session-kicked").await.len(), 1, "and nobody was kicked");
    let mut client = rig.client(Dial::v5("client").persistent()).await;
    assert!(client.connack.session_present);
    client.ping().await;

    assert_eq!(kick(&rig, "nobody", "").await, 404);
    assert_eq!(kick(&rig, "client", "?forget=yes").await, 400);
    assert_eq!(kick(&rig, "client", "?force=true").await, 400);
    client.ping().await;
}

#[tokio::test]
async fn whoever_is_forgotten_has_nothing_left() {
    let rig = Rig::start().await;
    let mut client = rig.client(Dial::v5("client").persistent()).await;
    client.subscribe("news/#", QoS::AtLeastOnce).await;
    assert_eq!(kick(&rig, "client", "?forget=true").await, 204);
    assert_eq!(client.expect_goodbye().await, ReasonCode::AdministrativeAction);
    Request::get("/api/v1/sessions/client").send(&rig).await.problem(404);
    assert_eq!(kick(&rig, "client", "?forget=true").await, 404);
    let client = rig.client(Dial::v5("client").persistent()).await;
    assert!(!client.connack.session_present);

    // The same for one that is away; a device's mail is the device's, and stays.
    client.disconnect().await;
    assert_eq!(kick(&rig, "client", "?forget=true").await, 204);
    Request::get("/api/v1/sessions/client").send(&rig).await.problem(404);
    let reader = rig.reader(1, Dial::v5("device").persistent()).await;
    reader.disconnect().await;
    let mut server = rig.server(Dial::v5("server")).await;
    assert!(server.publish(TO_EUICC, envelope(1, 0, "msg"), QoS::AtLeastOnce).await.is_ok());
    assert_eq!(kick(&rig, "device", "?forget=true").await, 204);
    let mut reader = rig.reader(1, Dial::v5("device").persistent()).await;
    assert!(!reader.connack.session_present);
    reader.expect_publish().await;
}

#[tokio::test]
async fn a_client_that_comes_back_at_once_is_forgotten_all_the_same() {
    let rig = Rig::start().await;
    for _ in 0..20 {
        let dial = Dial::v5("client").persistent();
        let client = rig.client(dial.clone()).await;
        let forgetting = kick(&rig, "client", "?forget=true");
        let coming = rig.client(dial);
        let (status, mut next) = tokio::join!(forgetting, coming);
        assert_eq!(status, 204);
        drop(client);
        // It has come before or after; in either case there is one session at most, and no hang.
        next.half_close().await;
        next.expect_closed().await;
        kick(&rig, "client", "?forget=true").await;
        Request::get("/api/v1/sessions/client").send(&rig).await.problem(404);
    }
}
