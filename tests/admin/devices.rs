//! `/api/v1/devices`: the registry by hand, and by the file.

use serde_json::json;
use simcast::mqtt::{QoS, ReasonCode};

use crate::common::rig::{FLEET, registry_line};
use crate::common::{Dial, Rig, TO_EUICC, envelope, nid};
use crate::http::{Request, exchange, get, pages};

fn path(number: u128) -> String {
    format!("/api/v1/devices/{}", nid(number))
}

fn nids(numbers: &[u128]) -> Vec<String> {
    numbers.iter().map(|number| nid(*number).to_string()).collect()
}

fn import(mode: &str, csv: impl Into<Vec<u8>>) -> Request {
    Request::new("POST", &format!("/api/v1/devices/import{mode}")).body("text/csv", csv)
}

#[tokio::test]
async fn a_device_is_put_changed_and_removed() {
    let rig = Rig::start().await;
    let body = r#"{"gids":[77,42],"labels":{"model":"tracker","mno":"acme é"}}"#;
    let answer = Request::new("PUT", &path(50)).json(body).send(&rig).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let device = json!({
        "nid": nid(50).to_string(), "gids": [42, 77], "online": false, "client_id": null,
        "labels": {"model": "tracker", "mno": "acme é"}, "replaced": false,
    });
    assert_eq!(answer.ok(), device);
    assert_eq!(get(&rig, &path(50)).await, device);

    // It is one at once, and its group one.
    let mut reader = rig.reader(50, Dial::v5("fifty")).await;
    let mut server = rig.server(Dial::v5("server")).await;
    let answer = server.publish(TO_EUICC, envelope(0, 42, "msg"), QoS::AtLeastOnce).await;
    assert!(answer.is_ok());
    reader.expect_publish().await;
    let device = get(&rig, &path(50)).await;
    assert_eq!((&device["online"], &device["client_id"]), (&json!(true), &json!("fifty")));

    // What is left out it does not have any more.
    let answer = Request::new("PUT", &path(50)).json("{}").send(&rig).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let device = answer.ok();
    assert_eq!((&device["gids"], &device["labels"]), (&json!([]), &json!({})));
    let answer = server.publish(TO_EUICC, envelope(0, 42, "msg"), QoS::AtLeastOnce).await;
    assert_eq!(answer.text.as_deref(), Some("unknown_gid"));

    let answer = Request::new("DELETE", &path(50)).send(&rig).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    // Its mailbox is gone, and it is told so by coming again.
    assert_eq!(reader.expect_goodbye().await, ReasonCode::AdministrativeAction);
    assert!(Request::get(&path(50)).send(&rig).await.problem(404).contains("no device"));
    Request::new("DELETE", &path(50)).send(&rig).await.problem(404);
}

#[tokio::test]
async fn what_is_no_device_is_refused_and_changes_nothing() {
    let rig = Rig::start().await;
    let before = get(&rig, "/api/v1/devices").await;
    for (digits, status) in [("x", 400), ("0", 400), ("%ff", 400), ("1", 422)] {
        let path = format!("/api/v1/devices/{digits}");
        for method in ["GET", "DELETE"] {
            Request::new(method, &path).send(&rig).await.problem(status);
        }
        Request::new("PUT", &path).json("{}").send(&rig).await.problem(status);
    }
    let wrong_digits = format!("/api/v1/devices/{}", nid(50).get() + 1);
    let detail = Request::new("PUT", &wrong_digits).json("{}").send(&rig).await.problem(422);
    assert!(detail.contains("check digits"), "{detail}");

    let put = |body: &str| Request::new("PUT", &path(50)).json(body);
    let too_many: Vec<u64> = (1..=65).collect();
    let long = json!({"labels": {"a": "x".repeat(257)}}).to_string();
    let longs: serde_json::Map<_, _> =
        (0..5).map(|at| (format!("l{at}"), json!("x".repeat(250)))).collect();
    let cases = [
        ("", 400),
        ("[]", 400),
        ("[[7]]", 400),
        ("null", 400),
        ("{\"gids\":", 400),
        (r#"{"gids":[0]}"#, 400),
        (r#"{"gids":[1.5]}"#, 400),
        (r#"{"gids":[18446744073709551616]}"#, 400),
        (r#"{"gids":["7"]}"#, 400),
        (r#"{"gids":7}"#, 400),
        (r#"{"gids":[7],"gids":[8]}"#, 400),
        (r#"{"groups":[7]}"#, 400),
        (r#"{"labels":{"":"x"}}"#, 400),
        (r#"{"labels":{"a=b":"x"}}"#, 400),
        (r#"{"labels":{"a":"x;b=y"}}"#, 400),
        (r#"{"labels":{"a":"x\ny"}}"#, 400),
        (r#"{"labels":{"a":7}}"#, 400),
        (&long, 400),
        (&json!({ "gids": too_many }).to_string(), 422),
        (&json!({ "labels": longs }).to_string(), 422),
    ];
    for (body, status) in cases {
        put(body).send(&rig).await.problem(status);
    }
    put("{}").instead("Content-Type", "text/csv").send(&rig).await.problem(415);
    Request::new("PUT", &path(50)).send(&rig).await.problem(415);
    assert_eq!(get(&rig, "/api/v1/devices").await, before);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() {
    let rig = Rig::start().await;
    let large = format!("{{\"labels\":{{\"a\":\"{}\"}}}}", "x".repeat(1 << 20));
    let put = Request::new("PUT", &path(50)).json(&large);
    assert!(put.send(&rig).await.problem(413).contains("1048576"));
    // Said, but not sent; and sent, but not said.
    let said = Request::new("POST", "/api/v1/devices/import")
        .header("Content-Type", "text/csv")
        .header("Content-Length", "67108865");
    said.send(&rig).await.problem(413);
    let chunked = Request::new("PUT", &path(50))
        .header("Content-Type", "application/json")
        .header("Transfer-Encoding", "chunked");
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 19, " ".repeat(1 << 19));
    let bytes = [chunked.bytes(), chunk.repeat(3).into_bytes()].concat();
    let answer = exchange(rig.tcp(rig.admin).await, &bytes).await;
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 413 "));
    assert_eq!(get(&rig, "/api/v1/devices").await["items"].as_array().unwrap().len(), FLEET.len());
}

#[tokio::test]
async fn devices_come_page_by_page_whatever_happens_in_between() {
    let rig = Rig::start().await;
    let all = nids(&FLEET.map(|(number, _)| number));
    for limit in 1..=8 {
        let pages = pages(&rig, "/api/v1/devices", limit, "nid").await;
        assert!(pages.iter().all(|page| page.len() <= limit), "{pages:?}");
        assert_eq!(pages.concat(), all);
    }
    // Whoever stays is seen once, also when others go and come.
    let first = get(&rig, "/api/v1/devices?limit=3").await;
    let next = first["next"].as_str().unwrap();
    for gone in [2, 4] {
        assert_eq!(Request::new("DELETE", &path(gone)).send(&rig).await.status, 204);
    }
    let rest = get(&rig, &format!("/api/v1/devices?limit=1000&after={next}")).await;
    let seen = |page: &serde_json::Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        items.iter().map(|device| device["nid"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((seen(&first), seen(&rest)), (nids(&[1, 2, 3]), nids(&[5, 6, 10])));
    assert_eq!(rest["next"], json!(null));
}

#[tokio::test]
async fn devices_are_found_by_group_and_by_who_is_there() {
    let rig = Rig::start().await;
    let _two = rig.reader(2, Dial::v5("two")).await;
    let five = rig.reader(5, Dial::v5("five").persistent()).await;
    let list = async |query: &str| {
        pages(&rig, &format!("/api/v1/devices{query}"), 2, "nid").await.concat()
    };
    assert_eq!(list("?gid=7").await, nids(&[1, 2, 3, 5]));
    assert_eq!(list("?online=true").await, nids(&[2, 5]));
    assert_eq!(list("?online=false&gid=7").await, nids(&[1, 3]));
    assert_eq!(list("?gid=8&online=true").await, nids(&[5]));
    assert_eq!(list("?gid=4711").await, nids(&[]));
    // Its session waits for it; it is away.
    five.disconnect().await;
    assert_eq!(list("?online=true").await, nids(&[2]));
    assert_eq!(get(&rig, &path(5)).await["client_id"], json!("five"));

    for query in [
        "?gid=0",
        "?gid=x",
        "?gid=",
        "?online=1",
        "?online",
        "?limit=0",
        "?limit=1001",
        "?limit=-1",
        "?limit=ten",
        "?after=",
        "?after=x",
        "?after=00000000000000000",
        "?colour=red",
        "?limit=1&limit=2",
        "?%ff=1",
    ] {
        Request::get(&format!("/api/v1/devices{query}")).send(&rig).await.problem(400);
    }
    // A place that is nowhere is behind everything.
    for after in ["ffffffff", "ffffffffffffffff"] {
        let page = get(&rig, &format!("/api/v1/devices?after={after}")).await;
        assert_eq!(page, json!({"items": [], "next": null}));
    }
}

#[tokio::test]
async fn a_file_adds_its_good_lines_and_names_the_others() {
    let rig = Rig::start().await;
    let csv = format!(
        "nid,gids,labels\n{}x,7\n{}{},7,\n",
        registry_line(nid(50), "42"),
        registry_line(nid(1), "9"),
        nid(50),
    );
    let report = import("", csv.clone()).send(&rig).await.ok();
    let expected = json!({
        "accepted": 2, "rejected": 2, "removed": 0,
        "errors": [
            {"line": 3, "reason": "bad nid: an EID has 32 decimal digits, the first not 0"},
            {"line": 5, "reason": "the device stands in line 2 already"},
        ],
    });
    assert_eq!(report, expected);
    assert_eq!(get(&rig, &path(50)).await["gids"], json!([42]));
    assert_eq!(get(&rig, &path(1)).await["gids"], json!([9]));
    assert_eq!(get(&rig, &path(2)).await["gids"], json!([7]), "as it was");
    assert_eq!(import("?mode=add", csv).send(&rig).await.ok()["accepted"], 2);
}

#[tokio::test]
async fn a_file_replaces_everything_or_nothing() {
    let rig = Rig::start().await;
    let mut three = rig.reader(3, Dial::v5("three")).await;
    let mut one = rig.reader(1, Dial::v5("one")).await;
    let before = get(&rig, "/api/v1/devices").await;
    let broken = format!("{}x\n", registry_line(nid(1), "7"));
    let answer = import("?mode=replace", broken).send(&rig).await;
    assert!(answer.problem(422).contains("nothing has changed"), "{answer:?}");
    let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["report"]["errors"][0]["line"], 2);
    assert_eq!(problem["report"]["accepted"], 0);
    import("?mode=replace", " \n").send(&rig).await.problem(422);
    assert_eq!(get(&rig, "/api/v1/devices").await["items"][0], {
        let mut first = before["items"][0].clone();
        first["client_id"] = json!("one");
        first["online"] = json!(true);
        first
    });

    let csv = format!("{}{}", registry_line(nid(1), "7"), registry_line(nid(60), ""));
    let report = import("?mode=replace", csv).send(&rig).await.ok();
    let expected = json!({"accepted": 2, "rejected": 0, "removed": 6, "errors": []});
    assert_eq!(report, expected);
    let left = pages(&rig, "/api/v1/devices", 100, "nid").await.concat();
    assert_eq!(left.len(), 2);
    assert!(nids(&[1, 60]).iter().all(|nid| left.contains(nid)), "{left:?}");
    assert_eq!(three.expect_goodbye().await, ReasonCode::AdministrativeAction);
    one.ping().await;
}

#[tokio::test]
async fn what_is_no_file_is_refused() {
    let rig = Rig::start().await;
    import("?mode=both", "").send(&rig).await.problem(400);
    import("?mod=add", "").send(&rig).await.problem(400);
    import("", [0xff, b'\n']).send(&rig).await.problem(400);
    import("", "").instead("Content-Type", "application/json").send(&rig).await.problem(415);
    Request::new("POST", "/api/v1/devices/import").send(&rig).await.problem(415);
    let wrong = Request::get("/api/v1/devices/import").send(&rig).await;
    assert_eq!(wrong.status, 405, "{wrong:?}");
    assert!(wrong.head.contains("allow: post"), "{wrong:?}");
}

#[tokio::test]
async fn a_second_file_waits_for_the_first() {
    let rig = Rig::start().await;
    let mut slow = rig.tcp(rig.admin).await;
    let request = import("", "x".repeat(100)).bytes();
    tokio::io::AsyncWriteExt::write_all(&mut slow, &request[..request.len() - 1]).await.unwrap();
    let line = registry_line(nid(50), "7");
    let busy = async {
        // Until the first one has been heard.
        while import("", line.clone()).send(&rig).await.status != 503 {}
    };
    crate::common::in_time("the first file", busy).await;
    let answer = import("", line.clone()).send(&rig).await;
    assert!(answer.problem(503).contains("try again"), "{answer:?}");
    assert!(answer.head.contains("retry-after: "), "{answer:?}");
    drop(slow);
    let free = async { while import("", line.clone()).send(&rig).await.status != 200 {} };
    crate::common::in_time("its end", free).await;
}
