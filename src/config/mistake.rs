//! What is wrong with a configuration, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Every mistake found in a configuration, in the order of its lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// The file, if the text came from one.
    pub path: Option<PathBuf>,
    /// What is wrong with it.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ConfigErrors {
    /// One mistake per line, in the `file:line: text` form that editors jump to.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.mistakes.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            match (&self.path, mistake.line) {
                (Some(path), Some(line)) => write!(f, "{}:{line}: ", path.display())?,
                (Some(path), None) => write!(f, "{}: ", path.display())?,
                (None, Some(line)) => write!(f, "line {line}: ")?,
                (None, None) => {}
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Full name such as `limits.max_inflight` or `listener[0].bind`; empty where the text could
    /// not be read far enough to know.
    pub key: String,
    /// Line of the key, from 1; of its section, where the key is absent.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Which line each key stands on.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// The lines of a parsed document.
    pub(super) fn of(text: &str, table: &DeTable<'_>) -> Self {
        let mut lines = Self::default();
        lines.note(text, "", table);
        lines
    }

    /// The line of a key, or of the nearest section around it that stands in the text.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(line) = self.0.get(key) {
                return Some(*line);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }

    fn note(&mut self, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = joined(prefix, name.get_ref());
            self.0.insert(key.clone(), line_at(text, name.span().start));
            self.note_value(text, &key, value.get_ref());
        }
    }

    fn note_value(&mut self, text: &str, key: &str, value: &DeValue<'_>) {
        if let Some(table) = value.as_table() {
            self.note(text, key, table);
        }
        for (i, element) in value.as_array().into_iter().flatten().enumerate() {
            let key = format!("{key}[{i}]");
            self.0.insert(key.clone(), line_at(text, element.span().start));
            self.note_value(text, &key, element.get_ref());
        }
    }
}

/// The document without the syntax errors that the parser could step over, and those errors.
pub(super) fn parse(text: &str) -> (Spanned<DeTable<'_>>, Vec<Mistake>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mistake = |e: &toml::de::Error| Mistake {
        key: String::new(),
        line: line_of(text, e),
        message: explain(e.message()),
    };
    let mut mistakes: Vec<Mistake> = errors.iter().map(mistake).collect();
    mistakes.sort_by_key(|mistake| mistake.line);
    (table, mistakes)
}

/// The line an error points at.
pub(super) fn line_of(text: &str, error: &toml::de::Error) -> Option<usize> {
    error.span().map(|span| line_at(text, span.start))
}

/// Takes the entry that an error points at out of the document, so that the search for mistakes
/// can go on, and returns its key. `None` if there is no such entry: then the search is over.
pub(super) fn take_out(table: &mut DeTable<'_>, error: &toml::de::Error) -> Option<String> {
    take_out_below("", table, error.span()?.start)
}

fn take_out_below(prefix: &str, table: &mut DeTable<'_>, at: usize) -> Option<String> {
    let mut guilty = None;
    for (name, value) in table.iter_mut() {
        let key = joined(prefix, name.get_ref());
        if let Some(deeper) = take_out_value(&key, value.get_mut(), at) {
            return Some(deeper);
        }
        if name.span().contains(&at) || value.span().contains(&at) {
            guilty = Some((name.clone(), key));
            break;
        }
    }
    let (name, key) = guilty?;
    table.remove(&name);
    Some(key)
}

fn take_out_value(key: &str, value: &mut DeValue<'_>, at: usize) -> Option<String> {
    match value {
        DeValue::Table(table) => take_out_below(key, table, at),
        DeValue::Array(array) => array
            .iter_mut()
            .enumerate()
            .find_map(|(i, element)| take_out_value(&format!("{key}[{i}]"), element.get_mut(), at)),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => None,
    }
}

/// serde's message in our words: an unknown name comes with the nearest known one, and types have
/// the names that they have in the file.
pub(crate) fn explain(message: &str) -> String {
    if let Some(name) = message.strip_prefix("missing field ") {
        return format!("missing key {name}");
    }
    // Of this one alone the parser does not say where.
    if message == "recursion limit" {
        return TOO_DEEP.to_owned();
    }
    let kind = ["unknown field", "unknown variant"].iter().find(|kind| message.starts_with(**kind));
    let Some(kind) = kind else {
        return wrong_type(message).unwrap_or_else(|| message.to_owned());
    };
    let what = if *kind == "unknown field" { "unknown key" } else { "unknown value" };
    let mut names = message.split('`').skip(1).step_by(2);
    let Some(wrong) = names.next() else {
        return message.to_owned();
    };
    let known: Vec<&str> = names.collect();
    if let Some(near) = nearest(wrong, &known) {
        return format!("{what} `{wrong}`; did you mean `{near}`?");
    }
    if known.is_empty() {
        return format!("{what} `{wrong}`");
    }
    format!("{what} `{wrong}`; known here: {}", known.join(", "))
}

/// A message about a type; `None` where it is about something else.
fn wrong_type(message: &str) -> Option<String> {
    let (found, wanted) = message.split_once(", expected ")?;
    let (kind, found) = found.split_once(": ").filter(|(kind, _)| kind.starts_with("invalid "))?;
    let found = match found {
        "map" => "a table",
        "sequence" => "a list",
        other => other,
    };
    let wanted = match wanted {
        "a sequence" => "a list",
        "a map" => "a table",
        "string or map" => "a string",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number within its bounds",
        rust if rust.starts_with("struct ") => "a table",
        other => other,
    };
    Some(format!("{kind}: {found}, expected {wanted}"))
}

const TOO_DEEP: &str = "a key with too many dots";

/// The known name with the fewest changed letters, if that is few enough to be meant.
fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, name) = known.iter().map(|name| (edits(wrong, name), *name)).min()?;
    (distance <= wrong.len().max(name.len()) / 2).then_some(name)
}

/// Levenshtein's distance: letters to insert, delete or replace.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.chars().count()]
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_count_letters() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("same", "same"), 0);
    }

    #[test]
    fn an_unknown_name_comes_with_the_nearest_or_with_all() {
        let serde = "unknown field `max_inflght`, expected one of `max_inflight`, `max_sessions`";
        assert_eq!(explain(serde), "unknown key `max_inflght`; did you mean `max_inflight`?");
        let serde = "unknown variant `zzz`, expected `text` or `json`";
        assert_eq!(explain(serde), "unknown value `zzz`; known here: text, json");
        assert_eq!(parse(&"a.".repeat(500)).1[0].message, TOO_DEEP);
        assert_eq!(explain("missing field `bind`"), "missing key `bind`");
        let serde = "invalid type: integer `1`, expected a string";
        assert_eq!(explain(serde), serde);
    }

    #[test]
    fn types_have_the_names_that_they_have_in_a_file() {
        for (serde, words) in [
            ("string \"x\", expected struct Ttl", "string \"x\", expected a table"),
            ("map, expected a sequence", "a table, expected a list"),
            ("sequence, expected string or map", "a list, expected a string"),
            ("floating point `1.5`, expected u32", "floating point `1.5`, expected a whole number"),
        ] {
            let explained = explain(&format!("invalid type: {serde}"));
            assert!(explained.starts_with(&format!("invalid type: {words}")), "{explained}");
        }
        for other in ["a rate, expected nothing", "`x` is no rate"] {
            assert_eq!(explain(other), other);
        }
    }

    #[test]
    fn a_missing_key_is_found_at_its_section() {
        let text = "[a]\nx = 1\n\n[[b]]\ny = 1\n\n[[b]]\nz = 1\n";
        let (table, mistakes) = parse(text);
        assert_eq!(mistakes, []);
        let lines = Lines::of(text, table.get_ref());
        assert_eq!(lines.line("a.x"), Some(2));
        assert_eq!(lines.line("a.absent"), Some(1));
        assert_eq!(lines.line("b[1].absent"), Some(7));
        assert_eq!(lines.line("b[1].z"), Some(8));
        assert_eq!(lines.line("absent"), None);
    }
}
