//! `simcast ctl` as a program.

use std::process::{Command, Stdio};

use serde_json::Value;
use simcast::mqtt::{QoS, ReasonCode};

use crate::common::program::Program;
use crate::common::rig::registry_line;
use crate::common::{Dial, Rig, TO_EUICC, envelope, nid};
use crate::http::{READ_TOKEN, TOKEN, rig_with_tokens, write_secret};

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout
    }

    /// What it complained about.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.stderr
    }
}

pub(crate) fn command(rig: &Rig, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simcast"));
    command.arg("ctl").args(arguments).current_dir(rig.dir.path());
    command.env("SIMCAST_URL", format!("http://{}", rig.admin));
    command.env_remove("SIMCAST_TOKEN_FILE");
    command
}

async fn run(mut command: Command, input: String) -> Done {
    let running = move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    };
    let running = tokio::task::spawn_blocking(running);
    let output = crate::common::in_time("simcast ctl", running).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

pub(crate) async fn ctl(rig: &Rig, arguments: &[&str]) -> Done {
    run(command(rig, arguments), String::new()).await
}

#[tokio::test]
async fn devices_are_listed_put_shown_and_deleted() {
    let rig = Rig::start().await;
    let (known, new) = (nid(2).to_string(), nid(50).to_string());
    let _reader = rig.reader(2, Dial::v5("two")).await;
    let table = ctl(&rig, &["devices", "list", "--gid", "7"]).await.ok();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["NID", "GIDS", "ONLINE", "CLIENT", "REPLACED", "LABELS"]
    );
    assert_eq!(lines.len(), 5, "{table}");
    let row = lines.iter().find(|line| line.starts_with(&known)).unwrap();
    assert_eq!(
        row.split_whitespace().skip(1).collect::<Vec<_>>(),
        ["7", "yes", "two", "no", "model=test"]
    );
    for online in [&["--online"][..], &["--online=true"]] {
        let list = [&["devices", "list"][..], online].concat();
        assert_eq!(ctl(&rig, &list).await.ok().lines().count(), 2);
    }
    let away =
        ctl(&rig, &["devices", "list", "--online=false", "--limit", "3", "--json"]).await.ok();
    assert_eq!(away.lines().count(), 3, "no head where programs read: {away}");

    let put = ["devices", "put", &new, "--gid", "77", "--gid", "42", "--label", "model=a=b"];
    let shown = ctl(&rig, &put).await.ok();
    assert!(shown.contains("42;77") && shown.contains("model=a=b"), "{shown}");
    let json = ctl(&rig, &["devices", "get", &new, "--json"]).await.ok();
    let device: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(device["labels"]["model"], "a=b");
    assert_eq!(ctl(&rig, &["devices", "delete", &new]).await.ok(), "removed\n");
    let complaint = ctl(&rig, &["devices", "delete", &new]).await.failed(1);
    assert_eq!(
        complaint,
        format!("simcast: Not found: There is no device {new} in the registry.\n")
    );
}

#[tokio::test]
async fn a_registry_file_is_imported_and_its_broken_lines_are_named() {
    let rig = Rig::start().await;
    let csv = format!("{}x\n", registry_line(nid(50), "7"));
    std::fs::write(rig.dir.path().join("fleet.csv"), &csv).unwrap();
    let done = ctl(&rig, &["devices", "import", "fleet.csv"]).await;
    assert_eq!(done.stderr, "simcast: broken lines: 1\n");
    let report = "line 2: bad nid: an EID has 32 decimal digits, the first not 0\n\
                  1 accepted, 1 rejected, 0 removed\n";
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), report));
    let done = ctl(&rig, &["devices", "import", "--replace", "fleet.csv"]).await;
    assert!(done.stdout.ends_with("0 accepted, 1 rejected, 0 removed\n"), "{done:?}");
    assert_eq!(done.code, Some(1));

    let good = registry_line(nid(50), "7");
    let import = command(&rig, &["devices", "import", "--replace", "--json", "-"]);
    let report: Value = serde_json::from_str(&run(import, good).await.ok()).unwrap();
    assert_eq!((&report["accepted"], &report["removed"]), (&1.into(), &7.into()));
    let complaint = ctl(&rig, &["devices", "import", "nowhere.csv"]).await.failed(1);
    assert!(complaint.starts_with("simcast: nowhere.csv: "), "{complaint}");
}

#[tokio::test]
async fn groups_and_sessions_are_shown_and_clients_kicked() {
    let rig = Rig::start().await;
    let table = ctl(&rig, &["groups", "list"]).await.ok();
    assert_eq!(table, "GID  DEVICES\n7    4\n8    2\n9    1\n");
    assert_eq!(ctl(&rig, &["groups", "get", "8"]).await.ok().lines().count(), 3);
    ctl(&rig, &["groups", "get", "10"]).await.failed(1);

    // Names that could be taken for something else.
    let mut clients = Vec::new();
    for name in ["..", "a/../b?c#d", "é\u{1b}[2J"] {
        clients.push(rig.client(Dial::v5(name)).await);
    }
    let table = ctl(&rig, &["sessions", "list"]).await.ok();
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.contains("é\\u{1b}[2J") && !table.contains('\u{1b}'), "{table}");
    let shown = ctl(&rig, &["sessions", "get", ".."]).await.ok();
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["CLIENT", ".."])), "{shown}");
    assert_eq!(ctl(&rig, &["sessions", "kick", "a/../b?c#d"]).await.ok(), "kicked\n");
    assert_eq!(clients[1].expect_goodbye().await, ReasonCode::AdministrativeAction);
    assert_eq!(ctl(&rig, &["sessions", "kick", "--forget", ".."]).await.ok(), "forgotten\n");
    ctl(&rig, &["sessions", "get", ".."]).await.failed(1);
    clients[2].ping().await;

    let away = rig.client(Dial::v5("away").persistent()).await;
    away.disconnect().await;
    let complaint = ctl(&rig, &["sessions", "kick", "away"]).await.failed(1);
    assert!(complaint.contains("not connected: there is no connection to end"), "{complaint}");
    assert_eq!(ctl(&rig, &["sessions", "kick", "--forget", "away"]).await.ok(), "forgotten\n");
}

#[tokio::test]
async fn lists_are_longer_than_a_page() {
    let rig = Rig::start().await;
    let csv: String = (100..2600).map(|number| registry_line(nid(number), "42")).collect();
    ctl(&rig, &["groups", "list"]).await.ok();
    run(command(&rig, &["devices", "import", "-"]), csv).await.ok();
    let lines = ctl(&rig, &["devices", "list", "--gid", "42", "--json"]).await.ok();
    assert_eq!(lines.lines().count(), 2500);
    let lines = ctl(&rig, &["devices", "list", "--limit", "1500"]).await.ok();
    assert_eq!(lines.lines().count(), 1501, "with one head");
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let rig = Rig::start().await;
    let csv: String = (100..5000).map(|number| registry_line(nid(number), "42")).collect();
    run(command(&rig, &["devices", "import", "-"]), csv).await.ok();
    let simcast = env!("CARGO_BIN_EXE_simcast");
    let mut shell = Command::new("sh");
    let line = format!("({simcast} ctl devices list; echo ended with $? >&2) | head -n 1");
    shell.args(["-c", &line]).env("SIMCAST_URL", format!("http://{}", rig.admin));
    let done = run(shell, String::new()).await;
    assert_eq!(done.stderr, "ended with 0\n");
    assert_eq!(done.stdout.lines().count(), 1);
}

#[tokio::test]
async fn events_are_printed_as_they_happen() {
    let rig = Rig::start().await;
    for json in [false, true] {
        let more: &[&str] = if json { &["--json"] } else { &[] };
        let arguments = [&["events", "--types", "refused,connected"][..], more].concat();
        let mut program = Program::start(&mut command(&rig, &arguments));
        // Until it listens, nobody hears.
        let heard = async {
            loop {
                let mut device = rig.device(1, Dial::v5("device")).await;
                let trigger = envelope(2, 0, "trigger");
                device.publish(TO_EUICC, trigger, QoS::AtLeastOnce).await;
                device.disconnect().await;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let line = tokio::select! {
            line = program.until("refus") => line,
            never = heard => never,
        };
        if json {
            let event: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(
                (&event["event"], &event["refusal"]),
                (&"refused".into(), &"server_type_from_device".into())
            );
        } else {
            assert!(line.contains("Z refused client_id=device "), "{line}");
            assert!(line.contains(" refusal=server_type_from_device "), "{line}");
        }
    }
    let complaint = ctl(&rig, &["events", "--types", "nothing"]).await.failed(1);
    assert!(complaint.starts_with("simcast: Bad request: `nothing` is no type"), "{complaint}");
}

#[tokio::test]
async fn refusals_are_explained() {
    let rig = Rig::start().await;
    let shown = ctl(&rig, &["explain", "bad_eid"]).await.ok();
    assert!(shown.contains("0x99") && shown.contains("check the digits"), "{shown}");
    let all = ctl(&rig, &["explain"]).await.ok();
    assert_eq!(all.lines().count(), simcast::rsp::Refusal::ALL.len() + 1);
    let complaint = ctl(&rig, &["explain", "because"]).await.failed(1);
    assert!(complaint.contains("no refusal \"because\""), "{complaint}");
}

#[tokio::test]
async fn a_token_opens_the_api_as_far_as_it_goes() {
    let rig = rig_with_tokens().await;
    let device = nid(1).to_string();
    let complaint = ctl(&rig, &["devices", "list"]).await.failed(1);
    assert!(complaint.starts_with("simcast: Token needed: Say --token-file "), "{complaint}");
    write_secret(&rig.dir.path().join("other"), &TOKEN.to_uppercase());
    let complaint = ctl(&rig, &["--token-file", "other", "groups", "list"]).await.failed(1);
    assert!(complaint.contains("not the token of this broker"), "{complaint}");
    ctl(&rig, &["--token-file", "read-token", "devices", "list"]).await.ok();
    let delete = ["devices", "delete", &device, "--token-file", "read-token"];
    let complaint = ctl(&rig, &delete).await.failed(1);
    assert!(complaint.starts_with("simcast: Forbidden: "), "{complaint}");
    let mut by_environment = command(&rig, &["devices", "delete", &device]);
    by_environment.env("SIMCAST_TOKEN_FILE", "token");
    run(by_environment, String::new()).await.ok();

    write_secret(&rig.dir.path().join("short"), "short");
    let complaint = ctl(&rig, &["--token-file", "short", "groups", "list"]).await.failed(1);
    assert!(complaint.starts_with("simcast: short must hold"), "{complaint}");
    assert!(!complaint.contains(TOKEN) && !complaint.contains(READ_TOKEN));
}

#[tokio::test]
async fn what_makes_no_sense_is_wrong_usage_and_what_cannot_be_reached_a_failure() {
    let rig = Rig::start().await;
    for arguments in [
        &[][..],
        &["devices"],
        &["devices", "put"],
        &["devices", "put", "1", "--label", "novalue"],
        &["groups", "get", "0"],
        &["devices", "list", "--online=maybe"],
        &["--cert", "a.pem", "devices", "list"],
    ] {
        ctl(&rig, arguments).await.failed(2);
    }
    let no_broker = ["--url", "http://127.0.0.1:1", "groups", "list"];
    let complaint = ctl(&rig, &no_broker).await.failed(1);
    assert!(complaint.starts_with("simcast: cannot connect to 127.0.0.1:1: "), "{complaint}");
    for url in ["127.0.0.1:9883", "ftp://localhost", "https://localhost:1"] {
        ctl(&rig, &["--url", url, "groups", "list"]).await.failed(1);
    }
    // Something that is no broker.
    let mqtt = format!("http://{}", rig.plain);
    ctl(&rig, &["--url", &mqtt, "groups", "list"]).await.failed(1);
    let elsewhere = format!("http://{}/metrics?", rig.admin);
    let complaint = ctl(&rig, &["--url", &elsewhere, "groups", "list"]).await.failed(1);
    assert!(complaint.starts_with("simcast: Not found: "), "{complaint}");
}
