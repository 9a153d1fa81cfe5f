//! The house style, enforced: sizes, headers, who may import whom, and what does not belong into
//! finished code. Each complaint names file, line and rule.
//!
//! Source text is read line by line in the form rustfmt gives it; this is no parser of Rust.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

const LINE_COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;

/// Who may import whom, strictly downwards. `session`, `route` and `rsp` do not know each other;
/// `client` and `pki` know nothing of the broker.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("units", &[]),
    ("clock", &["ids"]),
    ("mqtt", &["ids"]),
    ("session", &["ids", "mqtt"]),
    ("route", &["ids", "mqtt"]),
    ("rsp", &["ids", "mqtt", "units"]),
    ("auth", &["ids", "mqtt"]),
    ("config", &["ids", "mqtt", "rsp", "units"]),
    ("metrics", &["ids", "mqtt"]),
    ("log", &["ids", "clock", "config"]),
    ("audit", &["ids", "clock", "config", "log"]),
    ("store", &["ids", "clock"]),
    ("pki", &["ids"]),
    ("client", &["ids", "clock", "pki"]),
    (
        "broker",
        &[
            "ids", "units", "clock", "mqtt", "session", "route", "rsp", "auth", "config",
            "metrics", "log", "audit", "store",
        ],
    ),
    (
        "net",
        &[
            "ids", "units", "clock", "mqtt", "session", "route", "rsp", "auth", "config",
            "metrics", "log", "store", "broker",
        ],
    ),
    (
        "admin",
        &[
            "ids", "units", "clock", "mqtt", "session", "route", "rsp", "auth", "config",
            "metrics", "log", "audit", "broker",
        ],
    ),
    (
        "service",
        &[
            "ids", "units", "clock", "mqtt", "session", "route", "rsp", "auth", "config",
            "metrics", "log", "audit", "store", "broker", "net", "admin",
        ],
    ),
    (
        "cli",
        &[
            "ids", "units", "clock", "mqtt", "session", "route", "rsp", "auth", "config",
            "metrics", "log", "audit", "store", "broker", "net", "admin", "service", "client",
            "pki",
        ],
    ),
];

/// Modules without sockets, locks and clock: time is an argument.
const PURE: &[&str] = &["ids", "units", "mqtt", "session", "route", "rsp", "auth"];
const IMPURE_WORDS: &[&str] =
    &["tokio::", "std::net", "std::fs", "Mutex", "RwLock", "Instant", "SystemTime", "clock::"];

/// Modules that may name the types of the TLS library.
const KNOW_TLS: &[&str] = &["net", "client", "pki"];

/// One file of ours.
struct Source {
    /// Relative to the package, with `/`.
    path: String,
    text: String,
}

/// A line and where it stands.
struct Line<'a> {
    /// From 1.
    number: usize,
    text: &'a str,
    /// Within `#[cfg(test)]`, or in a file of tests.
    in_test: bool,
}

impl Source {
    /// The top module a file of `src/` belongs to; `None` for other files.
    fn module(&self) -> Option<&str> {
        let inner = self.path.strip_prefix("src/")?;
        inner.split(['/', '.']).next()
    }

    fn is_test(&self) -> bool {
        let inside = self.path.ends_with("/tests.rs") || self.path.contains("/tests/");
        inside || !self.path.starts_with("src/")
    }

    fn lines(&self) -> Vec<Line<'_>> {
        let mut lines = Vec::new();
        let mut ends_test: Option<String> = None;
        let mut previous = "";
        for (i, text) in self.text.lines().enumerate() {
            if previous.trim() == "#[cfg(test)]" && !text.ends_with(';') {
                ends_test = Some(format!("{}}}", indent(text)));
            }
            let in_test = self.is_test() || ends_test.is_some();
            lines.push(Line { number: i + 1, text, in_test });
            if ends_test.as_deref() == Some(text) {
                ends_test = None;
            }
            previous = text;
        }
        lines
    }

    /// The code with its comments blanked, so that offsets and lines stay.
    fn code(&self) -> String {
        let blank = |line: &str| if is_comment(line) { String::new() } else { line.to_owned() };
        self.text.lines().map(blank).collect::<Vec<_>>().join("\n")
    }

    fn complaint(&self, line: usize, rule: &str) -> String {
        format!("{}:{line}: {rule}", self.path)
    }
}

fn indent(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn sizes(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines = source.lines();
    if lines.len() > FILE_LINES_MAX {
        let rule = format!("a file has at most {FILE_LINES_MAX} lines, not {}", lines.len());
        complaints.push(source.complaint(lines.len(), &rule));
    }
    for line in &lines {
        let columns = line.text.chars().count();
        if columns > LINE_COLUMNS_MAX {
            let rule = format!("a line has at most {LINE_COLUMNS_MAX} columns, not {columns}");
            complaints.push(source.complaint(line.number, &rule));
        }
    }
    complaints
}

fn function_lengths(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut complaints = Vec::new();
    for (start, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
        let close = format!("{}}}", indent(line));
        let without_body = format!("{});", indent(line));
        let ends = |text: &&&str| ***text == close || ***text == without_body;
        let rest = &lines[start..];
        if line.ends_with(['}', ';']) {
            continue;
        }
        let Some(length) = rest.iter().position(|text| ends(&text)).map(|last| last + 1) else {
            continue;
        };
        if length > FUNCTION_LINES_MAX {
            let rule = format!("a function has at most {FUNCTION_LINES_MAX} lines, not {length}");
            complaints.push(source.complaint(start + 1, &rule));
        }
    }
    complaints
}

fn is_function(line: &str) -> bool {
    let mut words = line.trim_start().split(' ');
    let qualifier = |word: &str| {
        matches!(word, "async" | "const" | "unsafe" | "extern") || word.starts_with("pub")
    };
    words.find(|word| !qualifier(word)) == Some("fn")
}

fn header(source: &Source) -> Vec<String> {
    if source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![source.complaint(1, "a file starts with `//!` and says what it is for")]
}

fn leftovers(source: &Source) -> Vec<String> {
    let prints = source.path.starts_with("src/cli/") || source.path == "src/main.rs";
    let mut complaints = Vec::new();
    for line in source.lines().iter().filter(|line| !line.in_test) {
        if is_comment(line.text) {
            if is_commented_out_code(line.text) {
                complaints.push(source.complaint(line.number, "no commented-out code"));
            }
            continue;
        }
        for word in ["todo!", "dbg!", "unimplemented!", ".unwrap()"] {
            if line.text.contains(word) {
                let rule = format!("no `{word}` outside tests");
                complaints.push(source.complaint(line.number, &rule));
            }
        }
        if !prints && line.text.contains("println!") {
            complaints.push(source.complaint(line.number, "only src/cli prints"));
        }
    }
    complaints
}

fn is_commented_out_code(line: &str) -> bool {
    let Some(comment) = line.trim_start().strip_prefix("// ") else {
        return false;
    };
    let statement = comment.ends_with(';')
        && (comment.contains(['(', '=']) || comment.starts_with("use ") || comment == "return;");
    statement || comment.ends_with(") {") || comment.starts_with("#[") || comment == "}"
}

fn imports(source: &Source) -> Vec<String> {
    let Some(module) = source.module().filter(|module| !matches!(*module, "lib" | "main")) else {
        return Vec::new();
    };
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
        return vec![source.complaint(1, "a module that MAY_IMPORT of tests/tidy.rs lacks")];
    };
    let mut complaints = Vec::new();
    for (line, import) in imported_modules(&source.code()) {
        if import != module && !allowed.contains(&import.as_str()) {
            let rule = format!("`{module}` may not import `{import}`");
            complaints.push(source.complaint(line, &rule));
        }
    }
    complaints
}

/// The modules after each `crate::`, in groups too, with their lines.
fn imported_modules(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + path.len()..];
        let names = rest.strip_prefix('{').map_or_else(|| vec![first_name(rest)], group_names);
        found.extend(names.into_iter().filter(|name| !name.is_empty()).map(|name| (line, name)));
    }
    found
}

/// The first names of `a, b::{c, d}, e}`.
fn group_names(group: &str) -> Vec<String> {
    let mut names = vec![first_name(group)];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(first_name(&group[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn first_name(text: &str) -> String {
    let word = |c: &char| c.is_alphanumeric() || *c == '_';
    let name: String = text.trim_start().chars().take_while(word).collect();
    // A type or macro at the top of the crate is no module.
    if name.starts_with(char::is_uppercase) { String::new() } else { name }
}

fn purity(source: &Source) -> Vec<String> {
    let module = source.module().unwrap_or_default();
    let mut complaints = Vec::new();
    for line in source.lines().iter().filter(|line| !line.in_test && !is_comment(line.text)) {
        for word in IMPURE_WORDS.iter().filter(|word| line.text.contains(**word)) {
            if PURE.contains(&module) {
                let rule = format!("`{module}` is pure, and `{word}` is not");
                complaints.push(source.complaint(line.number, &rule));
            }
        }
        let outside = source.module().is_some() && !KNOW_TLS.contains(&module);
        if outside && line.text.contains("rustls::") {
            complaints.push(source.complaint(line.number, "rustls stays in net, client and pki"));
        }
    }
    complaints
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "fuzz/fuzz_targets"] {
        collect(&root.join(folder), &mut paths);
    }
    paths.sort();
    let read = |path: PathBuf| {
        let inside = path.strip_prefix(root).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        Source { path: inside.to_str().unwrap().replace('\\', "/"), text }
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn check(rule: impl Fn(&Source) -> Vec<String>) {
    let sources = sources();
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "the sources were found");
    let complaints: Vec<String> = sources.iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn files_and_lines_are_short() {
    check(sizes);
}

#[test]
fn functions_are_short() {
    check(function_lengths);
}

#[test]
fn files_say_what_they_are_for() {
    check(header);
}

#[test]
fn nothing_is_left_over() {
    check(leftovers);
}

#[test]
fn imports_point_downwards() {
    check(imports);
}

#[test]
fn pure_modules_are_pure() {
    check(purity);
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn the_rules_on_sizes_can_fail() {
    let long = source("src/a.rs", &"x\n".repeat(801));
    assert_eq!(sizes(&long), ["src/a.rs:801: a file has at most 800 lines, not 801"]);
    let wide = source("src/a.rs", &format!("\n{}\n", "é".repeat(101)));
    assert_eq!(sizes(&wide), ["src/a.rs:2: a line has at most 100 columns, not 101"]);
    let body = "        x();\n".repeat(69);
    let function = format!("impl A {{\n    pub(crate) async fn f() {{\n{body}    }}\n}}\n");
    assert_eq!(
        function_lengths(&source("src/a.rs", &function)),
        ["src/a.rs:2: a function has at most 70 lines, not 71"]
    );
    assert_eq!(header(&source("src/a.rs", "use b;\n")).len(), 1);
}

#[test]
fn the_rule_on_leftovers_can_fail_and_spares_tests() {
    let code = "fn f() {\n    a.unwrap();\n    // a.call(1);\n    // Calls a, and\n    \
                println!();\n}\n\
                #[cfg(test)]\nmod tests {\n    fn g() {\n        a.unwrap();\n    }\n}\n\
                fn h() {\n    dbg!(1);\n}\n";
    assert_eq!(
        leftovers(&source("src/a.rs", code)),
        [
            "src/a.rs:2: no `.unwrap()` outside tests",
            "src/a.rs:3: no commented-out code",
            "src/a.rs:5: only src/cli prints",
            "src/a.rs:14: no `dbg!` outside tests",
        ]
    );
    for path in ["tests/a.rs", "src/a/tests.rs", "src/a/tests/b.rs"] {
        assert_eq!(leftovers(&source(path, code)), [""; 0]);
    }
}

#[test]
fn the_rule_on_imports_can_fail() {
    let code = "use crate::ids::Nid;\n/// [`crate::net`]\nuse crate::{\n    mqtt::{A, B},\n    \
                rsp,\n};\nfn f() {\n    crate::broker::g();\n}\n";
    assert_eq!(
        imports(&source("src/session/a.rs", code)),
        [
            "src/session/a.rs:3: `session` may not import `rsp`",
            "src/session/a.rs:8: `session` may not import `broker`",
        ]
    );
    assert_eq!(imports(&source("src/cli/a.rs", code)), [""; 0]);
    let unknown = imports(&source("src/unheard_of.rs", ""));
    assert!(unknown[0].contains("MAY_IMPORT"), "{unknown:?}");
}

#[test]
fn the_rule_on_purity_can_fail() {
    let code = "use tokio::net;\nuse rustls::Error;\n";
    assert_eq!(
        purity(&source("src/rsp/a.rs", code)),
        [
            "src/rsp/a.rs:1: `rsp` is pure, and `tokio::` is not",
            "src/rsp/a.rs:2: rustls stays in net, client and pki",
        ]
    );
    assert_eq!(purity(&source("src/net/a.rs", code)), [""; 0]);
}
