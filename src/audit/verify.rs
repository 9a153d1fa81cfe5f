//! Checks a chain, line by line, over as many files as it has been written to.
//!
//! Pure: it reads what it is given, in bounded memory, and never writes.

use std::io::{self, BufRead, Read};

use super::chain::{Hash, LINE_BYTES_MAX, Line, Link};
use super::{DROPPED, GAP, TORN_LINE};

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The system does not give it.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Longer than any line of an audit log.
    #[error("longer than {LINE_BYTES_MAX} bytes: no line of an audit log")]
    TooLong,
    /// The last line has no end.
    #[error("the line is broken off")]
    BrokenOff,
    /// It is not of the form of a line.
    #[error("no line of an audit log: {0}")]
    NoLine(String),
    /// Its hash is not that of its text.
    #[error("the line was changed: its hash is not that of its text")]
    Changed,
    /// The line before stands here once more.
    #[error("line number {0} stands here twice")]
    Doubled(u64),
    /// A lower number than that of the line before.
    #[error("line number {seq} stands behind {last}: doubled, or out of order")]
    Backwards {
        /// This line.
        seq: u64,
        /// The line before.
        last: u64,
    },
    /// The line that belongs here stands further below.
    #[error("line number {seq} stands here, and {expected} in line {at}: out of order")]
    OutOfOrder {
        /// This line.
        seq: u64,
        /// What belongs here.
        expected: u64,
        /// Where that is, in the same file.
        at: u64,
    },
    /// Lines before this one are not there.
    #[error("line number {seq} stands behind {last}: {} missing", .seq - .last - 1)]
    Missing {
        /// This line.
        seq: u64,
        /// The line before.
        last: u64,
    },
    /// The number fits, and the hash of the line before does not: one of both was made anew.
    #[error("the line is not tied to the one before it: one of the two was replaced")]
    Untied,
    /// The first line of a file does not follow the last of the file before it.
    #[error(
        "begins with line number {seq}, and the file before it ends with {last}: files are \
         missing, or not in order"
    )]
    FilesApart {
        /// The first number of this file.
        seq: u64,
        /// The last number of the file before.
        last: u64,
    },
    /// All files are empty.
    #[error("there is no line: nothing was recorded yet, or all of it was taken away")]
    Empty,
    /// No line has the hash that was noted.
    #[error("no line up to here has the hash {0}: the end was cut off, or all was written anew")]
    NotFound(Hash),
}

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which file, from 0 in the order they were given.
    pub file: usize,
    /// Which line of it, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub flaw: Flaw,
}

/// A line by its number and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its number.
    pub seq: u64,
    /// Its time as it stands there, RFC 3339.
    pub time: String,
}

impl Mark {
    fn of(line: &Line<'_>) -> Self {
        Self { seq: line.seq, time: line.time.to_owned() }
    }
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// How many lines it has.
    pub lines: u64,
    /// The first and the last of them.
    pub marks: Option<(Mark, Mark)>,
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many lines, over all files.
    pub lines: u64,
    /// The first of them. With a number above 1 it continues files that were not given.
    pub first: Mark,
    /// The last of them.
    pub last: Mark,
    /// The hash of the last.
    pub hash: Hash,
    /// Lines that say of themselves that something is not here: [`DROPPED`], [`GAP`],
    /// [`TORN_LINE`].
    pub holes: u64,
}

/// Checks files, oldest first. After a [`Fault`] it is done with.
#[derive(Debug, Default)]
pub struct Verifier {
    files: usize,
    lines: u64,
    holes: u64,
    first: Option<Mark>,
    last: Option<(Mark, Link)>,
    sought: Option<Hash>,
    found: bool,
    /// The last line that was read.
    at: (usize, u64),
}

impl Verifier {
    /// Nothing was read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One of the lines must have this hash: it was noted when it was the last one's. So a log is
    /// found that was cut off, or written anew.
    #[must_use]
    pub fn expecting(hash: Hash) -> Self {
        Self { sought: Some(hash), ..Self::default() }
    }

    /// Checks the next file.
    ///
    /// # Errors
    /// Its first [`Fault`].
    pub fn file(&mut self, mut reader: impl BufRead) -> Result<Part, Fault> {
        let file = self.files;
        self.files += 1;
        self.at = (file, 1);
        let mut part = Part { lines: 0, marks: None };
        let mut bytes = Vec::new();
        loop {
            let number = part.lines + 1;
            let wrong = |flaw| Fault { file, line: number, flaw };
            if !next_line(&mut reader, &mut bytes).map_err(wrong)? {
                return Ok(part);
            }
            self.at = (file, number);
            let line = Line::read(&bytes).map_err(wrong)?;
            if let Err(flaw) = self.take(&line, number == 1) {
                return Err(wrong(looked_for(flaw, &mut reader, number)));
            }
            let first = part.marks.map_or_else(|| Mark::of(&line), |(first, _)| first);
            part.marks = Some((first, Mark::of(&line)));
            part.lines = number;
        }
    }

    /// What was verified, after the last file.
    ///
    /// # Errors
    /// [`Flaw::Empty`] and [`Flaw::NotFound`], with where reading ended.
    pub fn finish(self) -> Result<Verified, Fault> {
        let (file, line) = self.at;
        let wrong = |flaw| Fault { file, line, flaw };
        let (Some(first), Some((last, link))) = (self.first, self.last) else {
            return Err(wrong(Flaw::Empty));
        };
        if let Some(hash) = self.sought.filter(|_| !self.found) {
            return Err(wrong(Flaw::NotFound(hash)));
        }
        Ok(Verified { lines: self.lines, first, last, hash: link.hash, holes: self.holes })
    }

    /// Ties a line to the one before it.
    fn take(&mut self, line: &Line<'_>, begins_file: bool) -> Result<(), Flaw> {
        match &self.last {
            Some((_, last)) => follows(line, *last, begins_file)?,
            // Whatever was before another first line is in older files.
            None if line.seq == 1 => follows(line, Link::start(), false)?,
            None => {}
        }
        self.first.get_or_insert_with(|| Mark::of(line));
        self.last = Some((Mark::of(line), line.link()));
        self.lines += 1;
        self.holes += u64::from([DROPPED, GAP, TORN_LINE].contains(&line.event));
        self.found |= self.sought == Some(line.hash);
        Ok(())
    }
}

/// Whether a line is the next one.
fn follows(line: &Line<'_>, last: Link, begins_file: bool) -> Result<(), Flaw> {
    let (seq, expected) = (line.seq, last.seq.saturating_add(1));
    if seq == expected && line.prev == last.hash {
        return Ok(());
    }
    let last_seq = last.seq;
    Err(match seq {
        _ if begins_file && seq != expected => Flaw::FilesApart { seq, last: last_seq },
        _ if line.link() == last => Flaw::Doubled(seq),
        _ if seq < expected => Flaw::Backwards { seq, last: last_seq },
        _ if seq > expected => Flaw::Missing { seq, last: last_seq },
        _ => Flaw::Untied,
    })
}

/// Looks into the rest of the file for a line that is missing: is it gone, or elsewhere?
fn looked_for(flaw: Flaw, reader: &mut impl BufRead, number: u64) -> Flaw {
    let Flaw::Missing { seq, last } = flaw else { return flaw };
    let expected = last + 1;
    let mut bytes = Vec::new();
    let mut at = number + 1;
    while let Ok(true) = next_line(reader, &mut bytes) {
        if Line::read(&bytes).is_ok_and(|line| line.seq == expected) {
            return Flaw::OutOfOrder { seq, expected, at };
        }
        at += 1;
    }
    flaw
}

/// Puts the next line into `line`, without its end. `false`: there is no more.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, Flaw> {
    line.clear();
    let bound = LINE_BYTES_MAX as u64 + 1;
    let unreadable = |error: io::Error| Flaw::Unreadable(error.to_string());
    reader.by_ref().take(bound).read_until(b'\n', line).map_err(unreadable)?;
    match line.pop() {
        None => Ok(false),
        Some(b'\n') => Ok(true),
        Some(_) if line.len() == LINE_BYTES_MAX => Err(Flaw::TooLong),
        Some(_) => Err(Flaw::BrokenOff),
    }
}

#[cfg(test)]
mod tests;
