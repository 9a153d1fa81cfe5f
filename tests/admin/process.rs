//! The API of a broker in a process of its own: over TLS, and with signals.

use std::path::Path;
use std::process::Command;

use simcast::pki::{Authority, LeafTemplate};

use crate::common::program::Program;
use crate::http::{TOKEN, write_secret};

const CONFIGURATION: &str = r#"
    [[listener]]
    bind = "127.0.0.1:0"
    allow_anonymous = true

    [admin]
    bind = "0.0.0.0:0"
    token_file = "token"
    [admin.tls]
    cert = "broker.pem"
    key = "broker.key"
    client_ca = "ca.pem"
    crl = "crl.pem"
    operators = ["cn=ops.example"]
"#;

fn simcast(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simcast"));
    command.args(arguments).current_dir(dir);
    command.env("SIMCAST_LOG", "info").env_remove("SIMCAST_TOKEN_FILE").env_remove("SIMCAST_URL");
    command
}

/// Lists groups as the operator with this token file; whether that worked.
async fn lists(dir: &Path, url: &str, name: &str, token_file: &str) -> bool {
    let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
    let certificates = ["--ca", "ca.pem", "--cert", &cert, "--key", &key];
    let rest = ["--url", url, "--token-file", token_file, "groups", "list"];
    let arguments = [&["ctl"][..], &certificates, &rest].concat();
    Program::start(&mut simcast(dir, &arguments)).end().await.0.success()
}

#[tokio::test]
async fn a_broker_on_the_network_is_seen_by_operators_over_tls_and_takes_new_tokens() {
    // case S16
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut authority = Authority::create(dir).unwrap();
    authority.write_crl().unwrap();
    authority.issue_broker(&["localhost"]).unwrap().save(dir, "broker", true).unwrap();
    for name in ["ops.example", "other.example"] {
        let issued = authority.issue(&LeafTemplate::server(name).unwrap()).unwrap();
        issued.save(dir, name, true).unwrap();
    }
    write_secret(&dir.join("token"), TOKEN);
    write_secret(&dir.join("next"), "next-0123456789abcdef");
    std::fs::write(dir.join("simcast.toml"), CONFIGURATION).unwrap();

    let mut broker = Program::start(&mut simcast(dir, &["serve", "-c", "simcast.toml"]));
    let line = broker.until("health, metrics and API on https://").await;
    let port = line.rsplit(':').next().unwrap();
    let url = format!("https://localhost:{port}");
    assert!(lists(dir, &url, "ops.example", "token").await);
    assert!(!lists(dir, &url, "other.example", "token").await);
    assert!(!lists(dir, &url, "ops.example", "next").await);

    std::fs::rename(dir.join("token"), dir.join("old")).unwrap();
    std::fs::rename(dir.join("next"), dir.join("token")).unwrap();
    broker.signal("HUP");
    broker.until("token files read again").await;
    assert!(lists(dir, &url, "ops.example", "token").await);
    assert!(!lists(dir, &url, "ops.example", "old").await);
    write_secret(&dir.join("token"), "short");
    broker.signal("HUP");
    let line = broker.until("all tokens stay as they were").await;
    assert!(line.contains("token: must hold"), "{line}");

    broker.signal("TERM");
    let (status, lines) = broker.end().await;
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("0123456789abcdef")), "case S18: {lines:#?}");
}

#[test]
fn a_token_that_cannot_be_used_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("simcast.toml"), "[admin]\ntoken_file = \"token\"\n").unwrap();
    std::fs::write(dir.join("token"), TOKEN).unwrap();
    for arguments in
        [&["serve", "-c", "simcast.toml"][..], &["serve", "-c", "simcast.toml", "--test-config"]]
    {
        let output = simcast(dir, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.starts_with("simcast.toml:2: admin.token_file: "), "{told}");
        assert!(told.contains("chmod 600") && !told.contains(TOKEN), "{told}");
    }
}
