//! `simcast audit verify`, on files that the log itself wrote.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use simcast::audit::{AuditLog, Entry};
use simcast::clock::Clock;
use simcast::config::Audit;
use tempfile::TempDir;

/// A folder with three files of one log in it.
struct Place {
    dir: TempDir,
}

const FILES: [&str; 3] = ["audit.log.2", "audit.log.1", "audit.log"];

impl Place {
    /// Nine lines, at most four in a file.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Self { dir };
        let path = Some(place.path("audit.log"));
        let options = Audit { path, max_bytes: 1_300, ..Audit::default() };
        let log = AuditLog::open(&options, Clock::start()).unwrap();
        for i in 0..9 {
            log.record(Entry::new("refusal", "device 89049032").with("reason", "unknown_nid"));
            assert!(log.flush(Duration::from_secs(30)), "{i}");
        }
        assert!(log.close(Duration::from_secs(30)));
        assert!(FILES.iter().all(|name| place.path(name).exists()));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap().lines().map(str::to_owned).collect()
    }

    fn write(&self, name: &str, lines: &[String]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(self.path(name), text).unwrap();
    }

    fn verify(&self, arguments: &[&str]) -> Output {
        verify(self.dir.path(), arguments)
    }

    /// Exit code 1, and these words about this place.
    fn refuses(&self, arguments: &[&str], place: &str, words: &str) {
        let output = self.verify(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with(&format!("simcast: {place}: ")), "{place}: {said}");
        assert!(said.contains(words), "{words}: {said}");
        assert!(said.lines().count() >= 2, "it says what to do: {said}");
        assert_eq!(output.stdout, b"");
    }
}

fn verify(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simcast"));
    command.args(["audit", "verify"]).args(arguments).current_dir(dir).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_whole_log_is_verified() {
    let place = Place::new();
    let text = stdout(&place.verify(&FILES));
    let words = ["audit.log.2: ", ", 1 to ", "verified 9 lines in 3 files: none is changed"];
    for part in words.into_iter().chain(["first  1  2", "last   9  2", "hash   "]) {
        assert!(text.contains(part), "{part}: {text}");
    }
    let last: Value = serde_json::from_str(place.lines("audit.log").last().unwrap()).unwrap();
    let found = json(&place.verify(&[&FILES[..], &["--json"]].concat()));
    assert_eq!((&found["verified"], &found["lines"]), (&true.into(), &9.into()));
    assert_eq!((&found["last"]["hash"], &found["last"]["time"]), (&last["hash"], &last["time"]));
    assert_eq!(found["first"]["seq"], 1);
    assert_eq!(found["files"].as_array().unwrap().len(), 3);
    let lines: u64 = found["files"].as_array().unwrap().iter().map(lines_of).sum();
    assert_eq!(lines, 9);
}

fn lines_of(file: &Value) -> u64 {
    file["lines"].as_u64().unwrap()
}

#[test]
fn the_newest_file_alone_is_said_to_continue_others() {
    let place = Place::new();
    let first = place.lines("audit.log")[0].clone();
    let first: Value = serde_json::from_str(&first).unwrap();
    let before = first["seq"].as_u64().unwrap() - 1;
    let text = stdout(&place.verify(&["audit.log"]));
    assert!(text.contains(&format!("Lines 1 to {before} are in older files")), "{text}");
    assert!(!stdout(&place.verify(&FILES)).contains("older files"));
}

#[test]
fn whatever_was_done_to_a_file_its_line_is_named() {
    let place = Place::new();
    let whole = place.lines("audit.log.1");
    assert!(whole.len() >= 3);
    let with = |change: &dyn Fn(&mut Vec<String>), line: &str, words: &str| {
        let mut lines = whole.clone();
        change(&mut lines);
        place.write("audit.log.1", &lines);
        place.refuses(&FILES, line, words);
    };
    let changed = |lines: &mut Vec<String>| lines[1] = lines[1].replace("89049032", "89049033");
    with(&changed, "audit.log.1:2", "the line was changed");
    with(&|lines| drop(lines.remove(1)), "audit.log.1:2", "1 missing");
    with(&|lines| lines.insert(1, lines[1].clone()), "audit.log.1:3", "stands here twice");
    with(&|lines| lines.swap(1, 2), "audit.log.1:2", "out of order");
    with(&|lines| lines.insert(1, "hello".to_owned()), "audit.log.1:2", "no line of an audit log");
    with(&|lines| drop(lines.remove(0)), "audit.log.1:1", "files are missing, or not in order");
    with(&|lines| drop(lines.pop()), "audit.log:1", "files are missing, or not in order");
    with(&|lines| lines.clear(), "audit.log:1", "files are missing, or not in order");
    place.write("audit.log.1", &whole);
    assert!(place.verify(&FILES).status.success(), "and as it was it passes");
}

#[test]
fn files_in_the_wrong_order_are_found() {
    let place = Place::new();
    let order = "simcast audit verify $(ls -rv audit.log*)";
    place.refuses(&["audit.log", "audit.log.1", "audit.log.2"], "audit.log.1:1", order);
    place.refuses(&["audit.log.1", "audit.log.1"], "audit.log.1:1", order);
    place.refuses(&["audit.log.2", "audit.log"], "audit.log:1", order);
    // The order that the help recommends.
    let command = "\"$0\" audit verify $(ls -rv audit.log*)";
    let mut shell = Command::new("sh");
    shell.args(["-c", command, env!("CARGO_BIN_EXE_simcast")]).current_dir(place.dir.path());
    assert!(shell.output().unwrap().status.success());
}

#[test]
fn a_line_that_is_broken_off_is_found() {
    let place = Place::new();
    let text = fs::read(place.path("audit.log")).unwrap();
    fs::write(place.path("audit.log"), &text[..text.len() - 1]).unwrap();
    let last = place.lines("audit.log").len();
    place.refuses(&FILES, &format!("audit.log:{last}"), "verify once more");
}

#[test]
fn a_noted_hash_finds_what_was_cut_off() {
    let place = Place::new();
    let noted = json(&place.verify(&[&FILES[..], &["--json"]].concat()));
    let noted = noted["last"]["hash"].as_str().unwrap();
    let arguments = [&["--known", noted], &FILES[..]].concat();
    assert!(place.verify(&arguments).status.success());
    let mut lines = place.lines("audit.log");
    lines.pop();
    place.write("audit.log", &lines);
    assert!(place.verify(&FILES).status.success() || lines.is_empty());
    let output = place.verify(&arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("the end was cut off"));
    fs::write(place.path("audit.log"), "").unwrap();
    place.refuses(&["audit.log"], "audit.log:1", "there is no line");
    let wrong = place.verify(&["--known", "abc", "audit.log"]);
    assert_eq!(wrong.status.code(), Some(2), "that is no hash");
}

#[test]
fn faults_are_json_too() {
    let place = Place::new();
    let mut lines = place.lines("audit.log.1");
    lines.remove(1);
    place.write("audit.log.1", &lines);
    let output = place.verify(&[&FILES[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let found = json(&output);
    assert_eq!(found["verified"], false);
    let fault = &found["fault"];
    assert_eq!((&fault["file"], &fault["line"]), (&"audit.log.1".into(), &2.into()));
    assert!(fault["message"].as_str().unwrap().contains("1 missing"), "{fault}");
    assert_eq!(found["files"].as_array().unwrap().len(), 1, "those that are in order");

    let output = place.verify(&["--json", "absent"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output)["fault"]["file"], "absent");
    assert!(String::from_utf8(output.stderr).unwrap().contains("absent: No such file"));
    let folder = place.verify(&["."]);
    assert_eq!(folder.status.code(), Some(1));
    assert!(String::from_utf8(folder.stderr).unwrap().contains(".:1: cannot be read"));
}

#[test]
fn entries_that_the_broker_lost_are_told() {
    let place = Place::new();
    let text = fs::read(place.path("audit.log")).unwrap();
    fs::write(place.path("audit.log"), &text[..text.len() - 9]).unwrap();
    let path = Some(place.path("audit.log"));
    let log = AuditLog::open(&Audit { path, ..Audit::default() }, Clock::start()).unwrap();
    assert!(log.close(Duration::from_secs(30)));
    let text = stdout(&place.verify(&FILES));
    assert!(text.contains("1 line of event dropped, gap or torn_line"), "{text}");
    assert!(text.contains("verified 9 lines"), "the last of 9 was torn, and one says so: {text}");
}

/// Where [`writes_until_it_is_killed`] writes, in its environment.
const WRITE_TO: &str = "SIMCAST_TEST_AUDIT_LOG";

/// Not a test of its own: a process for the next one.
#[test]
#[ignore = "another test runs it, in a process that it kills"]
#[allow(clippy::print_stdout, reason = "what that test reads")]
fn writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(WRITE_TO).map(PathBuf::from) else { return };
    let options = Audit { path: Some(path), max_bytes: 20_000, keep: 100, ..Audit::default() };
    let log = AuditLog::open(&options, Clock::start()).unwrap();
    loop {
        (0..20).for_each(|_| log.record(Entry::new("refusal", "device 89049032")));
        assert!(log.flush(Duration::from_secs(30)));
        let newest = log.since(0, 0).newest;
        // And some that nobody has waited for.
        (0..20).for_each(|_| log.record(Entry::new("refusal", "device 89049032")));
        println!("newest {newest}");
    }
}

#[test]
fn a_killed_process_leaves_a_log_that_the_next_one_continues() {
    // case C1
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let mut known = 0;
    for round in 0..5 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"]);
        command.env(WRITE_TO, &path).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Open until it is killed: it must not fail by itself.
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let said = output.by_ref().lines().map(Result::unwrap);
        let numbers = said.filter_map(|line| line.strip_prefix("newest ")?.parse::<u64>().ok());
        known = numbers.take(5 + round).last().expect("a number");
        child.kill().unwrap();
        child.wait().unwrap();
        drop(output);
        let options = Audit { path: Some(path.clone()), keep: 100, ..Audit::default() };
        assert!(AuditLog::open(&options, Clock::start()).unwrap().close(Duration::from_secs(30)));
    }
    let text = Command::new("sh")
        .args(["-c", "\"$0\" audit verify --json $(ls -rv audit.log*)"])
        .arg(env!("CARGO_BIN_EXE_simcast"))
        .current_dir(&dir)
        .output()
        .unwrap();
    let found = json(&text);
    assert_eq!((&found["verified"], &found["first"]["seq"]), (&true.into(), &1.into()), "{found}");
    assert!(found["last"]["seq"].as_u64().unwrap() >= known, "what was flushed is there");
    assert!(found["files"].as_array().unwrap().len() > 1, "it was rotated meanwhile");
}

#[test]
fn help_teaches() {
    let place = tempfile::tempdir().unwrap();
    let help = stdout(&verify(place.path(), &["--help"]));
    for part in ["oldest first", "--known <HASH>", "--json", "Exit codes: 0", "ls -rv", "no key"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert_eq!(verify(place.path(), &[]).status.code(), Some(2));
}
