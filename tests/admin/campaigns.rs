//! `/api/v1/campaigns`: seen, sent again, taken back, released.

use serde_json::{Value, json};
use simcast::mqtt::QoS;

use crate::audit::audited;
use crate::common::{Client, Dial, Rig, TO_EUICC, TO_SM_SR, envelope, envelope_with, nid};
use crate::http::{Answer, Request, get, pages};

const ONE: QoS = QoS::AtLeastOnce;

/// A C1 to group 7 with some members more.
fn c1(rest: &str) -> String {
    envelope_with(0, 7, "msg", &format!(r#"{rest}"body":1"#))
}

async fn tell(server: &mut Client, message: &str) {
    let answer = server.publish(TO_EUICC, message, ONE).await;
    assert!(answer.is_ok(), "{answer:?}");
}

/// A device has got it, and answers with a result code.
async fn answers(device: &mut Client, message: &str, rc: i64) {
    assert_eq!(device.expect_payload().await, message);
    device.barrier().await;
    let c2 = envelope_with(0, 7, "ret(msg)", &format!(r#""rc":{rc},"body":1"#));
    assert!(device.publish(TO_SM_SR, c2, ONE).await.is_ok());
}

/// A device has got it, and says nothing.
async fn is_silent(device: &mut Client, message: &str) {
    assert_eq!(device.expect_payload().await, message);
    device.barrier().await;
}

async fn post(rig: &Rig, id: u64, what: &str, body: &str) -> Answer {
    let path = format!("/api/v1/campaigns/{id}/{what}");
    Request::new("POST", &path).json(body).send(rig).await
}

/// The devices of a campaign and how far they are.
async fn states(rig: &Rig, id: u64) -> Vec<(u128, String)> {
    let list = get(rig, &format!("/api/v1/campaigns/{id}/devices")).await;
    let number = |nid_text: &Value| {
        (1..20).find(|number| *nid_text == nid(*number).to_string()).expect("one of the fleet")
    };
    let items = list["items"].as_array().unwrap().iter();
    items.map(|d| (number(&d["nid"]), d["state"].as_str().unwrap().to_owned())).collect()
}

fn expected(states: &[(u128, &str)]) -> Vec<(u128, String)> {
    states.iter().map(|(number, state)| (*number, (*state).to_owned())).collect()
}

#[tokio::test]
async fn campaigns_come_newest_first_and_by_what_is_asked() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("server")).await;
    let none = get(&rig, "/api/v1/campaigns").await;
    assert_eq!(none, json!({"items": [], "next": null}));
    for message in [
        c1(r#""campaign":"autumn","tid":"t","#),
        envelope(4, 0, "trigger"),
        envelope(0, 8, "msg"),
        c1(r#""campaign":"winter","#),
    ] {
        tell(&mut server, &message).await;
    }
    let list = async |query: &str| {
        pages(&rig, &format!("/api/v1/campaigns{query}"), 1, "id").await.concat()
    };
    let ids = list("").await;
    let [winter, eight, four, autumn] = &ids[..] else { panic!("{ids:?}") };
    assert!(winter.parse::<u64>().unwrap() > autumn.parse::<u64>().unwrap());
    assert_eq!(list("?gid=7").await, [winter.as_str(), autumn]);
    assert_eq!(list("?gid=8").await, [eight.as_str()]);
    assert_eq!(list(&format!("?nid={}", nid(4))).await, [four.as_str()]);
    assert_eq!(list("?name=autumn").await, [autumn.as_str()]);
    assert_eq!(list("?state=running").await, ids);
    assert_eq!(list("?state=ended").await, [""; 0]);
    assert_eq!(list("?gid=7&name=spring").await, [""; 0]);

    let campaign = get(&rig, &format!("/api/v1/campaigns/{autumn}")).await;
    let shown = |name: &str| campaign[name].clone();
    assert_eq!(shown("message"), "C1");
    assert_eq!((shown("gid"), shown("nid")), (json!(7), json!(null)));
    assert_eq!((shown("name"), shown("tid")), (json!("autumn"), json!("t")));
    assert_eq!((shown("total"), shown("answered")), (json!(4), json!(0)));
    assert_eq!(shown("devices")["queued"], 4);
    for query in ["?gid=0", "?nid=x", "?state=over", "?online=true", "?after=x"] {
        Request::get(&format!("/api/v1/campaigns{query}")).send(&rig).await.problem(400);
    }
    for (id, status) in [("99999", 404), ("x", 400), ("-1", 400), ("18446744073709551616", 400)] {
        for rest in ["", "/devices"] {
            let path = format!("/api/v1/campaigns/{id}{rest}");
            Request::get(&path).send(&rig).await.problem(status);
        }
    }
}

#[tokio::test]
async fn devices_of_a_campaign_come_page_by_page_and_by_how_far_they_are() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("server")).await;
    let (mut one, mut two) =
        (rig.reader(1, Dial::v5("one")).await, rig.reader(2, Dial::v5("two")).await);
    let message = c1("");
    tell(&mut server, &message).await;
    is_silent(&mut one, &message).await;
    answers(&mut two, &message, 0).await;
    let all = [(1, "delivered"), (2, "ok"), (3, "queued"), (5, "queued")];
    assert_eq!(states(&rig, 1).await, expected(&all));
    let path = "/api/v1/campaigns/1/devices";
    let by_page = pages(&rig, path, 3, "state").await;
    assert_eq!(by_page, [vec!["delivered", "ok", "queued"], vec!["queued"]]);
    let stuck = pages(&rig, &format!("{path}?state=delivered"), 3, "nid").await.concat();
    assert_eq!(stuck, [nid(1).to_string()]);
    Request::get(&format!("{path}?state=stuck")).send(&rig).await.problem(400);
    // One to a single device has that.
    tell(&mut server, &envelope(4, 0, "msg")).await;
    assert_eq!(states(&rig, 2).await, expected(&[(4, "queued")]));
}

#[tokio::test]
async fn a_retry_reaches_the_missing_alone_and_those_that_are_there_at_once() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("server")).await;
    let mut devices = Vec::new();
    for (number, name) in [(1, "one"), (2, "two"), (3, "three"), (4, "four")] {
        devices.push(rig.reader(number, Dial::v5(name)).await);
    }
    let message = c1("");
    tell(&mut server, &message).await;
    is_silent(&mut devices[0], &message).await;
    answers(&mut devices[1], &message, 0).await;
    answers(&mut devices[2], &message, 6).await;
    let before = [(1, "delivered"), (2, "ok"), (3, "failed"), (5, "queued")];
    assert_eq!(states(&rig, 1).await, expected(&before));

    assert_eq!(post(&rig, 1, "retry", "{}").await.ok(), json!({"devices": 1}));
    is_silent(&mut devices[0], &message).await;
    for other in &mut devices[1..] {
        other.expect_nothing().await;
    }
    assert_eq!(states(&rig, 1).await, expected(&before));
    let failed = post(&rig, 1, "retry", r#"{"failed":true}"#).await;
    assert_eq!(failed.ok(), json!({"devices": 2}));
    answers(&mut devices[0], &message, 0).await;
    answers(&mut devices[2], &message, 0).await;
    for other in [1, 3] {
        devices[other].expect_nothing().await;
    }
    let after = [(1, "ok"), (2, "ok"), (3, "ok"), (5, "queued")];
    assert_eq!(states(&rig, 1).await, expected(&after));

    assert!(post(&rig, 1, "retry", "{}").await.problem(422).contains("nobody is missing"));
    assert!(post(&rig, 9, "retry", "{}").await.problem(404).contains("no such campaign"));
    for body in ["", "[]", r#"{"failed":1}"#, r#"{"all":true}"#] {
        post(&rig, 1, "retry", body).await.problem(400);
    }
    let steps = audited(&rig, "campaign").await;
    let step =
        |devices| ("local".into(), json!({"campaign": 1, "step": "retried", "devices": devices}));
    assert_eq!(steps, [step(1), step(2)]);
}

#[tokio::test]
async fn a_cancelled_campaign_is_taken_back_from_those_that_do_not_have_it() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("server")).await;
    let mut one = rig.reader(1, Dial::v5("one")).await;
    let (message, other) = (c1(""), c1(r#""campaign":"other","#));
    tell(&mut server, &message).await;
    is_silent(&mut one, &message).await;
    tell(&mut server, &other).await;
    is_silent(&mut one, &other).await;
    assert_eq!(post(&rig, 1, "cancel", "{}").await.ok(), json!({"devices": 3}));
    let states_now = [(1, "delivered"), (2, "cancelled"), (3, "cancelled"), (5, "cancelled")];
    assert_eq!(states(&rig, 1).await, expected(&states_now));
    // Who has it may answer; whoever comes gets what was not taken back.
    let mut two = rig.reader(2, Dial::v5("two")).await;
    is_silent(&mut two, &other).await;
    two.expect_nothing().await;
    let c2 = envelope_with(0, 7, "ret(msg)", r#""rc":0,"body":1"#);
    assert!(one.publish(TO_SM_SR, c2, ONE).await.is_ok());
    assert_eq!(post(&rig, 1, "cancel", "{}").await.ok(), json!({"devices": 0}));
    post(&rig, 9, "cancel", "{}").await.problem(404);
    post(&rig, 1, "cancel", r#"{"force":true}"#).await.problem(400);
    let steps = audited(&rig, "campaign").await;
    assert_eq!(steps[0].1, json!({"campaign": 1, "step": "cancelled", "devices": 3}));
}

#[tokio::test]
async fn a_halted_campaign_goes_on_when_it_is_released() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("server")).await;
    let mut devices = Vec::new();
    for (number, name) in [(1, "one"), (2, "two"), (3, "three"), (4, "four")] {
        devices.push(rig.reader(number, Dial::v5(name)).await);
    }
    let message = c1(r#""wave":1,"#);
    tell(&mut server, &message).await;
    answers(&mut devices[0], &message, 6).await;
    let campaign = get(&rig, "/api/v1/campaigns/1").await;
    assert_eq!((&campaign["state"], &campaign["wave"]["failed"]), (&json!("halted"), &json!(1)));
    assert!(campaign["rate"].is_f64() && campaign["eta_secs"].is_null(), "nobody is served");
    assert_eq!(pages(&rig, "/api/v1/campaigns?state=halted", 1, "id").await.concat(), ["1"]);
    for waiting in &mut devices[1..] {
        waiting.expect_nothing().await;
    }
    let answer = post(&rig, 1, "release", "{}").await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    for served in [1, 2] {
        is_silent(&mut devices[served], &message).await;
    }
    for other in [0, 3] {
        devices[other].expect_nothing().await;
    }
    assert_eq!(get(&rig, "/api/v1/campaigns/1").await["state"], "running");

    tell(&mut server, &envelope(4, 0, "msg")).await;
    assert!(post(&rig, 2, "release", "{}").await.problem(422).contains("waves"));
    post(&rig, 9, "release", "{}").await.problem(404);
    let steps = audited(&rig, "campaign").await;
    let step = |name| json!({"campaign": 1, "step": name, "devices": null});
    assert_eq!(
        steps,
        [("control-unit".to_owned(), step("halted")), ("local".to_owned(), step("released")),]
    );
}

#[tokio::test]
async fn what_has_ended_has_neither_rate_nor_end_to_come() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("server")).await;
    let mut four = rig.reader(4, Dial::v5("four")).await;
    let mut two = rig.reader(2, Dial::v5("two")).await;
    let (to_one, to_group) = (envelope(4, 0, "msg"), c1(""));
    tell(&mut server, &to_one).await;
    tell(&mut server, &to_group).await;
    is_silent(&mut four, &to_one).await;
    answers(&mut two, &to_group, 0).await;
    let shown = async |id: u64| get(&rig, &format!("/api/v1/campaigns/{id}")).await;
    let (one, group) = (shown(1).await, shown(2).await);
    assert_eq!((&one["state"], &one["rate"]), (&json!("running"), &json!(0.0)));
    assert!(group["rate"].as_f64().unwrap() > 0.0 && group["eta_secs"].as_u64() > Some(0));

    let b2 = envelope_with(4, 0, "ret(msg)", r#""rc":0,"body":1"#);
    assert!(four.publish(TO_SM_SR, b2, ONE).await.is_ok());
    post(&rig, 2, "cancel", "{}").await.ok();
    for id in [1, 2] {
        let over = shown(id).await;
        assert_eq!(
            (&over["state"], &over["rate"], &over["eta_secs"]),
            (&json!("ended"), &json!(null), &json!(null))
        );
    }
}
