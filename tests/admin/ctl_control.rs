//! `simcast ctl` on settings, campaigns, exchanges and the audit log.

use std::time::Duration;

use serde_json::Value;
use simcast::mqtt::QoS;

use crate::common::program::Program;
use crate::common::{Client, Dial, Rig, TO_EUICC, TO_SM_SR, envelope, envelope_with, kind_of, nid};
use crate::ctl::{command, ctl};

const ONE: QoS = QoS::AtLeastOnce;

/// The words of each line.
fn words(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}

async fn tell(server: &mut Client, message: &str) {
    let answer = server.publish(TO_EUICC, message, ONE).await;
    assert!(answer.is_ok(), "{answer:?}");
}

async fn answers(device: &mut Client, rc: i64) {
    let c2 = envelope_with(0, 7, "ret(msg)", &format!(r#""rc":{rc},"body":1"#));
    assert!(device.publish(TO_SM_SR, c2, ONE).await.is_ok());
}

fn settle(rig: &Rig) {
    assert!(rig.service.broker().audit().flush(Duration::from_secs(20)));
}

#[tokio::test]
async fn settings_are_shown_set_and_unset() {
    let rig = Rig::start().await;
    let all = ctl(&rig, &["settings", "get"]).await.ok();
    assert_eq!(words(&all)[0], ["KEY", "VALUE"]);
    assert!(words(&all).contains(&vec!["ttl.msg", "21d"]), "{all}");
    let set = ["settings", "set", "ttl.msg=3d", "mode=\"multi\"", "conditions=['model']"];
    let now = ctl(&rig, &set).await.ok();
    for row in [["ttl.msg", "3d"], ["mode", "multi"], ["ttl.trigger", "21d"]] {
        assert!(words(&now).contains(&row.to_vec()), "{now}");
    }
    assert!(now.contains("[\"model\"]"), "{now}");
    let set = ["settings", "set", "ttl.msg=1h", "chunk=4KiB", "auto_members=20", "--group", "7"];
    let seven = ctl(&rig, &set).await.ok();
    for row in [["ttl.msg", "1h", "yes"], ["auto_members", "20", "yes"], ["chunk", "4096", "yes"]] {
        assert!(words(&seven).contains(&row.to_vec()), "{seven}");
    }
    assert!(words(&seven).contains(&vec!["mode", "multi", "no"]), "{seven}");
    ctl(&rig, &["settings", "unset", "ttl.msg", "chunk", "--gid", "7"]).await.ok();
    let json = ctl(&rig, &["settings", "get", "--group", "7", "--json"]).await.ok();
    let seven: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(seven["own"], serde_json::json!({"auto_members": 20}));
    assert_eq!(seven["effective"]["ttl"]["msg"], "3d");

    for (wrong, words) in [
        ("mode=both", "Bad request: Nothing has changed: mode: "),
        ("ttl.msg=5", "Bad request: Nothing has changed: ttl.msg: "),
        ("auto_members=1", "Not possible: Nothing has changed: auto_members: must be at least 2"),
    ] {
        let complaint = ctl(&rig, &["settings", "set", wrong]).await.failed(1);
        assert!(complaint.starts_with(&format!("simcast: {words}")), "{complaint}");
    }
    for group in [&[][..], &["--group", "7"]] {
        let unset = [&["settings", "unset", "mode", "colour"][..], group].concat();
        let complaint = ctl(&rig, &unset).await.failed(1);
        assert!(complaint.contains("colour: unknown key `colour`; known here: "), "{complaint}");
    }
    let still = ctl(&rig, &["settings", "get"]).await.ok();
    assert!(words(&still).contains(&vec!["mode", "multi"]), "nothing is unset: {still}");
    for wrong in [&["set"][..], &["set", "mode"], &["unset"], &["get", "--group", "0"]] {
        ctl(&rig, &[&["settings"], wrong].concat()).await.failed(2);
    }
}

#[tokio::test]
async fn campaigns_are_shown_sent_again_taken_back_and_released() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("server")).await;
    let mut one = rig.reader(1, Dial::v5("one")).await;
    let message = envelope_with(0, 7, "msg", r#""campaign":"autumn","body":1"#);
    tell(&mut server, &message).await;
    assert_eq!(one.expect_payload().await, message);
    one.barrier().await;
    tell(&mut server, &envelope(4, 0, "msg")).await;
    let table = ctl(&rig, &["campaigns", "list"]).await.ok();
    let rows = words(&table);
    assert_eq!(rows.len(), 3, "{table}");
    assert_eq!(rows[2][..7], ["1", "C1", "group", "7", "autumn", "running", "0/4"]);
    let ids = |lines: &str| -> Vec<u64> {
        let id = |line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap();
        lines.lines().map(id).collect()
    };
    for (filter, found) in [
        (["--gid", "7"], vec![1]),
        (["--nid", &nid(4).to_string()], vec![2]),
        (["--name", "autumn"], vec![1]),
        (["--state", "ended"], vec![]),
        (["--limit", "1"], vec![2]),
    ] {
        let list = [&["campaigns", "list", "--json"][..], &filter].concat();
        assert_eq!(ids(&ctl(&rig, &list).await.ok()), found, "{filter:?}");
    }
    let shown = ctl(&rig, &["campaigns", "get", "1"]).await.ok();
    assert!(words(&shown).contains(&vec!["QUEUED", "3"]), "{shown}");
    let stuck = ctl(&rig, &["campaigns", "devices", "1", "--state", "delivered"]).await.ok();
    assert_eq!(words(&stuck), [vec!["NID", "STATE"], vec![&nid(1).to_string(), "delivered"]]);

    let done = ctl(&rig, &["campaigns", "retry", "1"]).await.ok();
    assert_eq!(done, "sent again to 1 device\n");
    assert_eq!(one.expect_payload().await, message);
    answers(&mut one, 6).await;
    let complaint = ctl(&rig, &["campaigns", "retry", "1"]).await.failed(1);
    assert!(complaint.contains("nobody is missing"), "{complaint}");
    let done = ctl(&rig, &["campaigns", "retry", "1", "--failed", "--json"]).await.ok();
    assert_eq!(done, "{\"devices\":1}\n");
    assert_eq!(one.expect_payload().await, message);
    one.barrier().await;
    let done = ctl(&rig, &["campaigns", "cancel", "1"]).await.ok();
    assert_eq!(done, "taken back from 3 devices\n");

    let in_waves = envelope_with(0, 7, "msg", r#""wave":1,"body":2"#);
    tell(&mut server, &in_waves).await;
    let mut two = rig.reader(2, Dial::v5("two")).await;
    two.expect_nothing().await;
    assert_eq!(ctl(&rig, &["campaigns", "release", "3"]).await.ok(), "released\n");
    assert_eq!(two.expect_payload().await, in_waves);
    for what in ["get", "devices", "retry", "cancel", "release"] {
        ctl(&rig, &["campaigns", what, "9"]).await.failed(1);
        ctl(&rig, &["campaigns", what]).await.failed(2);
    }
    let complaint = ctl(&rig, &["campaigns", "release", "1"]).await.failed(1);
    assert!(complaint.contains("waves"), "{complaint}");
}

#[tokio::test]
async fn running_campaigns_are_watched_to_their_end() {
    let rig = Rig::start().await;
    let mut server = rig.server(Dial::v5("server")).await;
    let mut four = rig.reader(4, Dial::v5("four")).await;
    // Nothing runs: there is nothing to watch.
    assert_eq!(ctl(&rig, &["campaigns", "list", "--watch"]).await.ok(), "");
    tell(&mut server, &envelope(4, 0, "msg")).await;
    for filter in [&[][..], &["--state", "running"]] {
        let arguments = [&["campaigns", "list", "--watch"][..], filter].concat();
        let mut program = Program::start(&mut command(&rig, &arguments));
        let line = program.until("running: 0/1 answered").await;
        assert!(line.contains(&format!(" B1 {} ", nid(4))), "{line}");
        four.expect_publish().await;
        program.until("1 stuck").await;
        let b2 = envelope_with(4, 0, "ret(msg)", r#""rc":0,"body":1"#);
        assert!(four.publish(TO_SM_SR, b2, ONE).await.is_ok());
        program.until("ended: 1/1 answered").await;
        let (status, lines) = program.end().await;
        assert_eq!(status.code(), Some(0), "{lines:?}");
        tell(&mut server, &envelope(4, 0, "msg")).await;
    }
}

#[tokio::test]
async fn exchanges_are_listed_and_devices_reinstated() {
    let rig = Rig::with(|config| config.rsp.retire = true).await;
    let mut one = rig.reader(1, Dial::v5("one")).await;
    let mut two = rig.reader(2, Dial::v5("two")).await;
    assert!(one.publish(TO_EUICC, envelope(2, 7, &kind_of("req", 1)), ONE).await.is_ok());
    two.expect_publish().await;
    let e2 = envelope(1, 7, &kind_of("profile", 2));
    assert!(two.publish(TO_EUICC, e2, ONE).await.is_ok());
    one.expect_publish().await;
    one.barrier().await;
    let table = ctl(&rig, &["exchanges", "list"]).await.ok();
    let (from, to) = (nid(2).to_string(), nid(1).to_string());
    assert_eq!(words(&table)[1][..4], [from.as_str(), &to, "7", "unreported"]);
    for (action, replaced) in [("get", "yes"), ("reinstate", "no"), ("get", "no")] {
        let shown = ctl(&rig, &["devices", action, &from]).await.ok();
        assert!(words(&shown).contains(&vec!["REPLACED", replaced]), "{shown}");
    }
    ctl(&rig, &["devices", "reinstate", &nid(50).to_string()]).await.failed(1);
}

#[tokio::test]
async fn the_audit_log_is_shown_from_a_number_on() {
    let rig = Rig::start().await;
    assert_eq!(ctl(&rig, &["audit"]).await.ok().lines().count(), 1, "its head");
    for number in [50, 51, 52] {
        ctl(&rig, &["devices", "put", &nid(number).to_string()]).await.ok();
    }
    settle(&rig);
    let seqs = |lines: &str| -> Vec<u64> {
        let seq = |line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap();
        lines.lines().map(seq).collect()
    };
    let table = ctl(&rig, &["audit", "--since", "1"]).await.ok();
    let rows = words(&table);
    assert_eq!(rows.len(), 3, "{table}");
    assert_eq!((rows[1][0], rows[1][2], rows[1][3]), ("2", "device-put", "local"));
    assert!(table.contains(&format!("nid={}", nid(51))), "{table}");
    let lines = ctl(&rig, &["audit", "--limit", "2", "--json"]).await.ok();
    assert_eq!(seqs(&lines), [2, 3], "the newest");
    let lines = ctl(&rig, &["audit", "--limit", "2", "--since", "0", "--json"]).await.ok();
    assert_eq!(seqs(&lines), [1, 2], "those behind a number");
    let lines = ctl(&rig, &["audit", "--limit", "9", "--json"]).await.ok();
    assert_eq!(seqs(&lines), [1, 2, 3]);
    ctl(&rig, &["audit", "--since", "x"]).await.failed(2);
}
