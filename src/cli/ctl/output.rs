//! What commands print: tables for people, lines of JSON for programs.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::log::Shown;

/// Between two columns.
const GAP: &str = "  ";
/// A column is not made narrower than this.
const COLUMN_MIN: usize = 8;

/// A column of a table: its title, and what stands in it.
pub(super) type Column = (&'static str, fn(&Value) -> String);

/// Standard output.
pub(super) struct Output {
    json: bool,
    /// Characters of a line; no terminal, no end.
    width: usize,
}

/// A table that is printed part by part.
pub(super) struct Table {
    columns: &'static [Column],
    /// Of each column; known from the first part on.
    widths: Vec<usize>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
        let width = terminal.map_or(usize::MAX, |(width, _)| width.0.into());
        Self { json, width }
    }

    /// Whether programs read it.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// That something without an answer is done.
    pub(super) fn done(&mut self, what: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { self.say(what) }
    }

    /// Whether people look at it as it comes.
    pub(super) fn is_terminal(&self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    /// A line for people.
    pub(super) fn say(&mut self, line: &str) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{line}")
    }

    /// A line for programs.
    pub(super) fn value(&mut self, value: &Value) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{value}")
    }

    /// Items as lines of JSON, or as rows of a table.
    pub(super) fn rows(&mut self, table: &mut Table, items: &[Value]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if self.json {
            return items.iter().try_for_each(|item| writeln!(stdout, "{item}"));
        }
        table.print(items, self.width, &mut stdout)
    }

    /// One item: JSON, or a line for each column.
    pub(super) fn item(&mut self, columns: &[Column], item: &Value) -> io::Result<()> {
        if self.json {
            return self.value(item);
        }
        let width = columns.iter().map(|(title, _)| title.len()).max().unwrap_or_default();
        columns.iter().try_for_each(|(title, text)| {
            self.say(format!("{title:width$}{GAP}{}", text(item)).trim_end())
        })
    }
}

impl Table {
    pub(super) fn new(columns: &'static [Column]) -> Self {
        Self { columns, widths: Vec::new() }
    }

    fn print(&mut self, items: &[Value], width: usize, to: &mut impl Write) -> io::Result<()> {
        let text = |item| self.columns.iter().map(|(_, text)| text(item)).collect();
        let rows: Vec<Vec<String>> = items.iter().map(text).collect();
        if self.widths.is_empty() {
            let titles: Vec<String> = self.columns.iter().map(|(t, _)| (*t).to_owned()).collect();
            self.widths = fitted(widths(&titles, &rows), width);
            self.line(&titles, to)?;
        }
        rows.iter().try_for_each(|row| self.line(row, to))
    }

    /// The last column may be as wide as it wants where nothing was cut.
    fn line(&self, cells: &[String], to: &mut impl Write) -> io::Result<()> {
        let cells = cells.iter().zip(&self.widths);
        let line: Vec<String> = cells.map(|(cell, width)| cell_of(cell, *width)).collect();
        writeln!(to, "{}", line.join(GAP).trim_end())
    }
}

fn widths(titles: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.chain([titles[at].len()]).max().unwrap_or_default()
    };
    (0..titles.len()).map(width).collect()
}

/// Takes from the widest columns what does not fit into a line.
fn fitted(mut widths: Vec<usize>, width: usize) -> Vec<usize> {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    loop {
        let sum = widths.iter().sum::<usize>() + gaps;
        let widest = widths.iter_mut().max();
        match widest {
            Some(widest) if sum > width && *widest > COLUMN_MIN => *widest -= 1,
            Some(_) | None => return widths,
        }
    }
}

fn cell_of(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return format!("{text:width$}");
    }
    let cut: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{cut}…")
}

/// A member of an item: texts as they are, but fit for a terminal; nothing for null.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => Shown(text).to_string(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => {
            // One by one, for all of it is wanted.
            let shown = |char: char| Shown(char.encode_utf8(&mut [0; 4])).to_string();
            value.to_string().chars().map(shown).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: &[Column] = &[("NAME", |item| text(&item["name"])), ("N", |i| text(&i["n"]))];

    fn printed(table: &mut Table, items: &[Value], width: usize) -> String {
        let mut bytes = Vec::new();
        table.print(items, width, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_title_stands_above_the_first_part_alone() {
        let mut table = Table::new(COLUMNS);
        let items = [json!({"name": "long name", "n": 1}), json!({"name": "é", "n": true})];
        assert_eq!(
            printed(&mut table, &items, 100),
            "NAME       N\nlong name  1\né          yes\n"
        );
        assert_eq!(printed(&mut table, &items[1..], 100), "é          yes\n");
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let items = [json!({"name": "x".repeat(100), "n": 1})];
        let text = printed(&mut Table::new(COLUMNS), &items, 20);
        assert_eq!(text, format!("NAME{}N\n{}…  1\n", " ".repeat(15), "x".repeat(16)));
        // As far as that makes sense.
        let text = printed(&mut Table::new(COLUMNS), &items, 1);
        assert_eq!(text.lines().nth(1).unwrap(), "xxxxxxx…  1");
    }

    #[test]
    fn a_name_does_not_speak_to_the_terminal() {
        assert_eq!(text(&json!("a\u{1b}[2Jb\n")), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(text(&json!(["a\u{9b}2J"])), "[\"a\\u{9b}2J\"]");
    }
}
