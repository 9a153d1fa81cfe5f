//! The tables of statements held against the tests and the README.
//!
//! A row is `id`, what the statement asks for in our own words, and what shows that it is kept:
//! tests as `path::function`, or `reason:` and one of [`REASONS`]. Columns are separated by tabs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const MQTT5: &str = include_str!("mqtt5.tsv");
const MQTT311: &str = include_str!("mqtt311.tsv");

/// Why a statement may have no test.
const REASONS: [&str; 4] = [
    // Work in progress.
    "open",
    // The server does not take part, and does not see whether it is kept.
    "binds the client",
    // It is about servers that lack something, and this one does not.
    "offered in full",
    // It is about something that this server does not do.
    "not offered",
];

struct Row {
    id: &'static str,
    proofs: Vec<&'static str>,
    reason: Option<&'static str>,
}

fn rows(table: &'static str) -> Vec<Row> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    let rows = lines.map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [id, text, shown] = columns[..] else { panic!("three columns: {line}") };
        assert!(!text.is_empty(), "{id}: what does it ask for?");
        let reason = shown.strip_prefix("reason: ");
        let proofs = if reason.is_some() { Vec::new() } else { shown.split(", ").collect() };
        Row { id, proofs, reason }
    });
    rows.collect()
}

/// Statements by section, as Appendix B of the standard lists them.
type Sections = &'static [(&'static str, std::ops::RangeInclusive<u32>)];

/// Numbers that do not exist: 2.2.1-1.
const SECTIONS_5: Sections = &[
    ("1.5.4", 1..=3),
    ("1.5.5", 1..=1),
    ("1.5.7", 1..=1),
    ("2.1.3", 1..=1),
    ("2.2.1", 2..=6),
    ("2.2.2", 1..=1),
    ("3.1.0", 1..=2),
    ("3.1.2", 1..=30),
    ("3.1.3", 1..=12),
    ("3.1.4", 1..=6),
    ("3.2.0", 1..=2),
    ("3.2.2", 1..=22),
    ("3.3.1", 1..=13),
    ("3.3.2", 1..=20),
    ("3.3.4", 1..=10),
    ("3.4.2", 1..=3),
    ("3.5.2", 1..=3),
    ("3.6.1", 1..=1),
    ("3.6.2", 1..=3),
    ("3.7.2", 1..=3),
    ("3.8.1", 1..=1),
    ("3.8.3", 1..=5),
    ("3.8.4", 1..=8),
    ("3.9.2", 1..=2),
    ("3.9.3", 1..=2),
    ("3.10.1", 1..=1),
    ("3.10.3", 1..=2),
    ("3.10.4", 1..=6),
    ("3.11.2", 1..=2),
    ("3.11.3", 1..=2),
    ("3.12.4", 1..=1),
    ("3.14.0", 1..=1),
    ("3.14.1", 1..=1),
    ("3.14.2", 1..=4),
    ("3.14.4", 1..=3),
    ("3.15.1", 1..=1),
    ("3.15.2", 1..=3),
    ("4.1.0", 1..=2),
    ("4.2.0", 1..=1), // printed [MQTT-4.2-1] in the body
    ("4.3.1", 1..=1),
    ("4.3.2", 1..=5),
    ("4.3.3", 1..=13),
    ("4.4.0", 1..=2),
    ("4.5.0", 1..=2),
    ("4.6.0", 1..=6),
    ("4.7.0", 1..=1),
    ("4.7.1", 1..=2),
    ("4.7.2", 1..=1),
    ("4.7.3", 1..=4),
    ("4.8.2", 1..=6),
    ("4.9.0", 1..=3),
    ("4.12.0", 1..=7),
    ("4.12.1", 1..=2),
    ("4.13.1", 1..=1),
    ("4.13.2", 1..=1),
    ("6.0.0", 1..=4),
];

/// Two are misprinted, and kept so: [MQTT-3.1.2.7] and [MQTT-3-8.3-4].
const SECTIONS_311: Sections = &[
    ("1.5.3", 1..=3),
    ("2.2.2", 1..=2),
    ("2.3.1", 1..=7),
    ("3.1.0", 1..=2),
    ("3.1.2", 1..=24),
    ("3.1.3", 1..=11),
    ("3.1.4", 1..=5),
    ("3.2.0", 1..=1),
    ("3.2.2", 1..=6),
    ("3.3.1", 1..=12),
    ("3.3.2", 1..=3),
    ("3.3.4", 1..=1),
    ("3.3.5", 1..=2),
    ("3.6.1", 1..=1),
    ("3.8.1", 1..=1),
    ("3.8.3", 1..=4),
    ("3.8.4", 1..=6),
    ("3.9.3", 1..=2),
    ("3.10.1", 1..=1),
    ("3.10.3", 1..=2),
    ("3.10.4", 1..=6),
    ("3.12.4", 1..=1),
    ("3.14.1", 1..=1),
    ("3.14.4", 1..=3),
    ("4.1.0", 1..=2),
    ("4.3.1", 1..=1),
    ("4.3.2", 1..=2),
    ("4.3.3", 1..=2),
    ("4.4.0", 1..=1),
    ("4.5.0", 1..=2),
    ("4.6.0", 1..=6),
    ("4.7.1", 1..=3),
    ("4.7.2", 1..=1),
    ("4.7.3", 1..=4),
    ("4.8.0", 1..=2),
    ("6.0.0", 1..=4),
    ("7.0.0", 1..=2),
    ("7.1.1", 1..=1),
    ("7.1.2", 1..=1),
];

fn expected(sections: Sections) -> Vec<String> {
    let ids = sections.iter().flat_map(|(section, numbers)| {
        numbers.clone().map(move |number| match (*section, number) {
            ("3.1.2", 7) if sections.len() == SECTIONS_311.len() => "MQTT-3.1.2.7".to_owned(),
            ("3.8.3", 4) if sections.len() == SECTIONS_311.len() => "MQTT-3-8.3-4".to_owned(),
            _ => format!("MQTT-{section}-{number}"),
        })
    });
    ids.collect()
}

#[test]
fn every_statement_stands_in_its_table_once_and_in_order() {
    for (table, sections, count) in [(MQTT5, SECTIONS_5, 251), (MQTT311, SECTIONS_311, 141)] {
        let ids: Vec<&str> = rows(table).iter().map(|row| row.id).collect();
        assert_eq!(ids, expected(sections));
        assert_eq!(ids.len(), count);
    }
}

#[test]
fn a_reason_is_one_of_few() {
    let mut used = BTreeSet::new();
    for row in all_rows() {
        if let Some(reason) = row.reason {
            assert!(REASONS.contains(&reason), "{}: {reason} is no reason", row.id);
            used.insert(reason);
        }
    }
    assert_eq!(used.len(), REASONS.len(), "a reason that nobody gives: {used:?}");
}

fn all_rows() -> Vec<Row> {
    [rows(MQTT5), rows(MQTT311)].into_iter().flatten().collect()
}

/// The lines before `fn name` down to the last attribute or comment that belongs to it, and the
/// line itself; nothing if there is no such function.
fn head_of<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ").is_some_and(|rest| rest.starts_with(&format!("{name}(")))
    })?;
    let belongs = |line: &&&str| {
        let line = line.trim_start();
        line.starts_with("#[") || line.starts_with("//")
    };
    let above = lines[..at].iter().rev().take_while(belongs).count();
    Some(lines[at - above..=at].to_vec())
}

/// What is wrong with a proof, if anything is.
fn complaint(proof: &str) -> Option<String> {
    let Some((path, name)) = proof.split_once("::") else {
        return Some(format!("{proof}: write path::function"));
    };
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let Ok(text) = fs::read_to_string(full) else {
        return Some(format!("{proof}: there is no file {path}"));
    };
    let Some(head) = head_of(&text, name) else {
        return Some(format!("{proof}: there is no function {name} in {path}; was it renamed?"));
    };
    let has = |attribute: &str| head.iter().any(|line| line.trim_start().starts_with(attribute));
    if !has("#[test]") && !has("#[tokio::test") {
        return Some(format!("{proof}: {name} is no test"));
    }
    (has("#[ignore") || has("#[cfg")).then(|| format!("{proof}: {name} is not run"))
}

#[test]
fn every_proof_is_a_test_that_runs() {
    let proofs: BTreeSet<&str> = all_rows().into_iter().flat_map(|row| row.proofs).collect();
    let complaints: Vec<String> = proofs.iter().filter_map(|proof| complaint(proof)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(proofs.len() > 100, "the tables have lost their proofs");
}

#[test]
fn the_rule_on_proofs_can_fail() {
    let here = "tests/conformance/table.rs";
    for (proof, word) in [
        (here.to_owned(), "path::function"),
        ("tests/nowhere.rs::x".to_owned(), "no file"),
        (format!("{here}::never_written"), "no function"),
        (format!("{here}::complaint"), "no test"),
    ] {
        assert!(complaint(&proof).is_some_and(|text| text.contains(word)), "{proof}");
    }
    let ignored = head_of("#[test]\n#[ignore]\nfn asleep() {}\n", "asleep").unwrap();
    assert_eq!(ignored.len(), 3);
    assert_eq!(complaint(&format!("{here}::the_rule_on_proofs_can_fail")), None);
}

/// What the comments of the tests in this folder say: `path::function` and statement.
fn cited(version: &str) -> BTreeSet<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let mut cited = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut ids: Vec<String> = Vec::new();
        for line in fs::read_to_string(&path).unwrap().lines() {
            if let Some(words) = line.strip_prefix(&format!("/// {version}:")) {
                ids.extend(words.split_whitespace().map(|id| id.trim_matches(['[', ']']).into()));
            } else if let Some(rest) = line.strip_prefix("async fn ").or(line.strip_prefix("fn ")) {
                let function = rest.split('(').next().unwrap_or_default();
                let proof = format!("tests/conformance/{name}::{function}");
                cited.extend(ids.drain(..).map(|id| (id, proof.clone())));
            }
        }
    }
    cited
}

#[test]
fn the_tests_here_and_the_tables_name_each_other() {
    for (version, table) in [("5", MQTT5), ("3.1.1", MQTT311)] {
        let mut listed = BTreeSet::new();
        for row in rows(table) {
            let here = row.proofs.iter().filter(|proof| proof.starts_with("tests/conformance/"));
            listed.extend(here.map(|proof| (row.id.to_owned(), (*proof).to_owned())));
        }
        let cited = cited(version);
        let missing: Vec<_> = cited.difference(&listed).collect();
        assert!(missing.is_empty(), "named by a test, not by the table of {version}: {missing:#?}");
        let surplus: Vec<_> = listed.difference(&cited).collect();
        assert!(surplus.is_empty(), "named by the table of {version}, not by a test: {surplus:#?}");
    }
}

/// The line of the README on one standard.
fn summary(standard: &str, table: &'static str) -> String {
    let rows = rows(table);
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    rows.iter().filter_map(|row| row.reason).for_each(|reason| {
        *reasons.entry(reason).or_default() += 1;
    });
    let proven = rows.len() - reasons.values().sum::<usize>();
    let rest: Vec<String> = REASONS
        .iter()
        .filter_map(|reason| reasons.get(reason).map(|count| format!("{reason}: {count}")))
        .collect();
    let (count, rest) = (rows.len(), rest.join("; "));
    format!("| {standard} | {count} | {proven} | {rest} |")
}

#[test]
fn the_readme_has_the_numbers_of_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(path).unwrap();
    for line in [summary("MQTT 5.0", MQTT5), summary("MQTT 3.1.1", MQTT311)] {
        assert!(readme.contains(&line), "the README should say:\n{line}");
    }
}
