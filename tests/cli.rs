//! The binary from the outside: help, output and exit codes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Output};

fn simcast(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simcast")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn version_prints_the_version() {
    let version = env!("CARGO_PKG_VERSION");
    let output = simcast(&["version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), format!("simcast {version}\n"));
    assert_eq!(stdout(&simcast(&["--version"])), format!("simcast {version}\n"));
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&simcast(&["version", "--json"]))).unwrap();
    assert_eq!(json["version"], version);
}

#[test]
fn help_teaches() {
    let output = simcast(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = stdout(&output);
    for part in ["To_eUICC", "First steps:", "SIMCAST_LOG", "Exit codes: 0 done", "--version"] {
        assert!(help.contains(part), "{part} is missing:\n{help}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    // case O8
    for arguments in [&[][..], &["sevre"], &["version", "--yaml"]] {
        let output = simcast(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stdout(&output).is_empty(), "complaints go to standard error");
        assert!(!output.stderr.is_empty());
    }
}
