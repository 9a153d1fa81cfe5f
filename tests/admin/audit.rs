//! `/api/v1/audit`: who has changed what.

use std::time::Duration;

use serde_json::{Value, json};
use simcast::mqtt::QoS;

use crate::common::rig::registry_line;
use crate::common::{Dial, Rig, TO_EUICC, envelope, nid};
use crate::http::{READ_TOKEN, Request, TOKEN, get, rig_with_tokens};

/// Waits until all that has happened is in the log.
fn settle(rig: &Rig) {
    assert!(rig.service.broker().audit().flush(Duration::from_secs(20)));
}

/// Actors and details of the entries about an event.
pub(crate) async fn audited(rig: &Rig, event: &str) -> Vec<(String, Value)> {
    settle(rig);
    let log = get(rig, "/api/v1/audit?limit=1000").await;
    let entries = log["items"].as_array().unwrap().iter().filter(|entry| entry["event"] == event);
    entries.map(|e| (e["actor"].as_str().unwrap().to_owned(), e["details"].clone())).collect()
}

/// What an import did.
fn counts(mode: &str, accepted: usize, rejected: usize, removed: usize) -> Value {
    json!({"mode": mode, "accepted": accepted, "rejected": rejected, "removed": removed})
}

#[tokio::test]
async fn every_change_of_the_registry_says_who_and_what() {
    let rig = Rig::start().await;
    let path = format!("/api/v1/devices/{}", nid(50));
    let put = |body: &str| Request::new("PUT", &path).json(body);
    put(r#"{"gids":[7],"labels":{"model":"x"}}"#).send(&rig).await.ok();
    put(r#"{"gids":[0]}"#).send(&rig).await.problem(400);
    put("{}").send(&rig).await.ok();
    for status in [204, 404] {
        assert_eq!(Request::new("DELETE", &path).send(&rig).await.status, status);
    }
    let local = |details| ("local".to_owned(), details);
    let nid50 = nid(50).to_string();
    assert_eq!(
        audited(&rig, "device-put").await,
        [
            local(json!({"nid": nid50, "gids": [7], "labels": "model=x", "is_new": true})),
            local(json!({"nid": nid50, "gids": [], "labels": "", "is_new": false})),
        ]
    );
    assert_eq!(audited(&rig, "device-removed").await, [local(json!({"nid": nid50}))]);

    let csv = format!("{}{}x\n", registry_line(nid(50), "7"), registry_line(nid(1), "7"));
    let import = |mode: &str, csv: &str| {
        Request::new("POST", &format!("/api/v1/devices/import{mode}")).body("text/csv", csv)
    };
    import("", &csv).send(&rig).await.ok();
    import("?mode=replace", &csv).send(&rig).await.problem(422);
    import("?mode=replace", &registry_line(nid(1), "7")).send(&rig).await.ok();
    let report = rig.service.reload_registry().unwrap().unwrap();
    assert_eq!(
        audited(&rig, "registry-imported").await,
        [
            local(counts("add", 2, 1, 0)),
            local(counts("replace", 1, 0, 7)),
            ("reload".to_owned(), counts("replace", report.accepted, 0, 0)),
        ]
    );
}

#[tokio::test]
async fn whoever_has_the_token_is_the_operator() {
    let rig = rig_with_tokens().await;
    let _client = rig.client(Dial::v5("client").persistent()).await;
    let kick = |query: &str| {
        Request::new("DELETE", &format!("/api/v1/sessions/client{query}")).token(TOKEN)
    };
    let reading = Request::new("DELETE", "/api/v1/sessions/client").token(READ_TOKEN);
    reading.send(&rig).await.problem(403);
    for query in ["", "?forget=true"] {
        assert_eq!(kick(query).send(&rig).await.status, 204);
    }
    kick("").send(&rig).await.problem(404);
    settle(&rig);
    let read = Request::get("/api/v1/audit").token(READ_TOKEN);
    let entries = read.send(&rig).await.ok()["items"].as_array().unwrap().clone();
    let told: Vec<_> = entries.iter().map(|e| (&e["event"], &e["actor"], &e["details"])).collect();
    let (actor, details) = (json!("operator"), json!({"client_id": "client"}));
    let [kicked, ended] = ["session-kicked", "session-ended"].map(Value::from);
    assert_eq!(told, [(&kicked, &actor, &details), (&ended, &actor, &details)]);
}

#[tokio::test]
async fn entries_come_in_their_order_from_a_number_on() {
    let rig = Rig::start().await;
    let empty = get(&rig, "/api/v1/audit").await;
    assert_eq!(empty, json!({"items": [], "next": null, "first": 0, "newest": 0}));
    for number in 50..55 {
        let path = format!("/api/v1/devices/{}", nid(number));
        Request::new("PUT", &path).json("{}").send(&rig).await.ok();
    }
    settle(&rig);
    let seqs = |page: &Value| -> Vec<u64> {
        page["items"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect()
    };
    let page = get(&rig, "/api/v1/audit?limit=2").await;
    assert_eq!((seqs(&page), &page["next"], &page["first"]), (vec![4, 5], &json!(null), &json!(4)));
    assert_eq!(seqs(&get(&rig, "/api/v1/audit").await), [1, 2, 3, 4, 5]);
    let page = get(&rig, "/api/v1/audit?since=0&limit=2").await;
    assert_eq!((seqs(&page), &page["next"], &page["newest"]), (vec![1, 2], &json!(2), &json!(5)));
    let page = get(&rig, "/api/v1/audit?since=2&limit=2").await;
    assert_eq!((seqs(&page), &page["next"], &page["first"]), (vec![3, 4], &json!(4), &json!(3)));
    let page = get(&rig, "/api/v1/audit?since=4").await;
    assert_eq!((seqs(&page), &page["next"]), (vec![5], &json!(null)));
    let page = get(&rig, "/api/v1/audit?since=18446744073709551615").await;
    assert_eq!((seqs(&page), &page["newest"]), (vec![], &json!(5)));
    for query in ["?since=-1", "?since=x", "?limit=0", "?limit=1001", "?after=2"] {
        Request::get(&format!("/api/v1/audit{query}")).send(&rig).await.problem(400);
    }
    Request::new("DELETE", "/api/v1/audit").send(&rig).await.problem(405);
}

#[tokio::test]
async fn a_refusal_is_there_without_what_was_in_the_message() {
    let rig = Rig::start().await;
    let mut device = rig.device(1, Dial::v5("device")).await;
    let foreign = envelope(2, 0, "trigger").replace("[1,2,3]", "\"very secret\"");
    assert!(!device.publish(TO_EUICC, foreign, QoS::AtLeastOnce).await.is_ok());
    let refusals = audited(&rig, "refusal").await;
    let [(actor, details)] = &refusals[..] else { panic!("{refusals:?}") };
    assert!(actor.contains(&nid(1).to_string()) && details["client_id"] == "device");
    assert!(!get(&rig, "/api/v1/audit").await.to_string().contains("secret"));
}

#[tokio::test]
async fn refusals_that_were_held_back_say_whose_they_are() {
    let rig = Rig::start().await;
    // How often each of them is refused: once more than is held back, until all is on record.
    let refused = [(1, 3), (2, 5)];
    for (number, times) in refused {
        let mut device = rig.device(number, Dial::v5("device")).await;
        for _ in 0..times {
            let trigger = envelope(3, 0, "trigger");
            assert!(!device.publish(TO_EUICC, trigger, QoS::AtLeastOnce).await.is_ok());
        }
        device.disconnect().await;
    }
    let settled = async {
        loop {
            let refusals = audited(&rig, "refusal").await;
            let told = |number| -> u64 {
                let theirs = refusals.iter().filter(|(actor, _)| *actor == nid(number).to_string());
                // Who is there is one more.
                let count = |details: &Value| {
                    details["repeats"].as_u64().unwrap() + u64::from(details["role"].is_string())
                };
                theirs.map(|(_, details)| count(details)).sum()
            };
            if refused.iter().all(|(number, times)| told(*number) == *times) {
                break refusals;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let refusals = crate::common::in_time("every refusal on record", settled).await;
    let held_back = refusals.iter().filter(|(_, details)| details["role"].is_null());
    assert!(held_back.count() >= refused.len(), "{refusals:?}");
    assert!(refusals.iter().all(|(_, d)| d["refusal"] == "server_type_from_device"));
}
