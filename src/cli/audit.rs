//! `simcast audit`: is the audit log as the broker wrote it?
#![allow(clippy::print_stdout, reason = "the output of a command")]

use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::audit::{self, Flaw, Hash, Mark, Part, Verified, Verifier};
use crate::log::Shown;

/// Check the audit log
///
/// The broker writes it where [audit] path says: who was refused what, who changed what, one JSON
/// object a line. Newest file audit.log, then audit.log.1, and so on; any JSON tool reads them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simcast audit verify audit.log                was anything in it changed?
  jq -c 'select(.event == \"refusal\")' audit.log  what was refused")]
pub struct Audit {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Verify(Verify),
}

/// Find a changed, missing, doubled or reordered line of an audit log
///
/// Each line has a hash over its text and over the hash of the line before. The files are read,
/// line by line, and not changed; the first line that is not as it was written is named. A log may
/// begin with any line, because the oldest files are removed by rotation: the numbers of the first
/// and the last line are printed.
///
/// The chain has no key. Lines that were cut off at the end, and a log that was written anew from
/// some line on, are found by a hash that was noted earlier, somewhere else: --known.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 all lines are as they were written, 1 some are not, or a file cannot be read

A broker that is running may be in the middle of the last line: then verify once more.

Examples:
  simcast audit verify audit.log                the newest file alone
  simcast audit verify audit.log.2 audit.log.1 audit.log
                                                oldest first
  simcast audit verify $(ls -rv audit.log*)     all there are, oldest first
  simcast audit verify --json audit.log | jq -r .last.hash >>/mnt/elsewhere/hashes
  simcast audit verify --known \"$(tail -n 1 /mnt/elsewhere/hashes)\" audit.log")]
struct Verify {
    /// The files of the log, oldest first
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A hash of this log, noted earlier: one of the lines must have it
    #[arg(long, value_name = "HASH")]
    known: Option<Hash>,
    /// As one JSON object, also when something is wrong
    #[arg(long)]
    json: bool,
}

/// Why a log is not verified.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It is not as it was written.
    #[error("{path}:{line}: {flaw}\n{advice}", path = path.display(), advice = advice(flaw))]
    Fault {
        /// Which file.
        path: PathBuf,
        /// Which line of it, from 1.
        line: u64,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// It cannot be read.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// What to do about it.
fn advice(flaw: &Flaw) -> &'static str {
    match flaw {
        Flaw::BrokenOff => {
            "a running broker may be writing it: verify once more. If it stays, the broker was \
             stopped while it wrote; it cuts the line off at its next start, and records that"
        }
        Flaw::FilesApart { .. } => {
            "give all files of one log, oldest first: simcast audit verify $(ls -rv audit.log*)"
        }
        Flaw::NoLine(_) | Flaw::TooLong => {
            "if this is a file of an audit log, it was damaged or changed here. Keep it as it is; \
             lines before this one are as they were written"
        }
        Flaw::Unreadable(_) => "lines before this one are as they were written",
        Flaw::Empty => "if the broker has been at work, look for who could write this file",
        Flaw::NotFound(_) => {
            "if the hash is of this log, and its line is not in older files that were not given, \
             look for who could write these"
        }
        Flaw::Changed
        | Flaw::Doubled(_)
        | Flaw::Backwards { .. }
        | Flaw::OutOfOrder { .. }
        | Flaw::Missing { .. }
        | Flaw::Untied => {
            "somebody has changed the file, or the disk has. Keep it as it is and look for who \
             could write it; lines before this one are as they were written"
        }
    }
}

impl Audit {
    /// Does what the command line says.
    ///
    /// # Errors
    /// [`AuditError`], worded for the terminal.
    pub fn run(&self) -> Result<(), AuditError> {
        match &self.action {
            Action::Verify(verify) => verify.run(),
        }
    }
}

impl Verify {
    fn run(&self) -> Result<(), AuditError> {
        let mut parts = Vec::new();
        let result = self.verify(&mut parts);
        if self.json {
            println!("{}", self.as_json(&parts, &result));
        }
        let verified = result?;
        if !self.json {
            self.print(&parts, &verified);
        }
        Ok(())
    }

    fn verify(&self, parts: &mut Vec<Part>) -> Result<Verified, AuditError> {
        let mut verifier = self.known.map_or_else(Verifier::new, Verifier::expecting);
        let fault = |audit::Fault { file, line, flaw }| {
            let path = self.files.get(file).cloned().unwrap_or_default();
            AuditError::Fault { path, line, flaw }
        };
        for path in &self.files {
            let failed = |source| AuditError::File { path: path.clone(), source };
            let file = File::open(path).map_err(failed)?;
            parts.push(verifier.file(BufReader::new(file)).map_err(fault)?);
        }
        verifier.finish().map_err(fault)
    }

    fn print(&self, parts: &[Part], verified: &Verified) {
        for (path, part) in self.files.iter().zip(parts) {
            let lines = counted(part.lines, "line");
            match &part.marks {
                Some((first, last)) => {
                    println!("{}: {lines}, {} to {}", path.display(), first.seq, last.seq);
                }
                None => println!("{}: {lines}", path.display()),
            }
        }
        let (lines, files) = (counted(verified.lines, "line"), counted(parts.len() as u64, "file"));
        println!("verified {lines} in {files}: none is changed, missing, doubled or out of order");
        let Verified { first, last, hash, .. } = verified;
        println!("  first  {}  {}", first.seq, Shown(&first.time));
        println!("  last   {}  {}", last.seq, Shown(&last.time));
        println!("  hash   {hash}");
        if first.seq > 1 {
            println!("Lines 1 to {} are in older files, or were removed.", first.seq - 1);
        }
        if verified.holes > 0 {
            let holes = counted(verified.holes, "line");
            println!("{holes} of event dropped, gap or torn_line: the broker itself lost entries.");
        }
    }

    fn as_json(&self, parts: &[Part], result: &Result<Verified, AuditError>) -> Value {
        let files: Vec<Value> = self.files.iter().zip(parts).map(part_as_json).collect();
        match result {
            Ok(verified) => json!({
                "verified": true,
                "files": files,
                "lines": verified.lines,
                "holes": verified.holes,
                "first": mark_as_json(&verified.first),
                "last": {
                    "seq": verified.last.seq,
                    "time": verified.last.time,
                    "hash": verified.hash.to_string(),
                },
            }),
            Err(AuditError::Fault { path, line, flaw }) => json!({
                "verified": false,
                "files": files,
                "fault": { "file": path.display().to_string(), "line": line,
                           "message": flaw.to_string() },
            }),
            Err(AuditError::File { path, source }) => json!({
                "verified": false,
                "files": files,
                "fault": { "file": path.display().to_string(), "message": source.to_string() },
            }),
        }
    }
}

fn part_as_json((path, part): (&PathBuf, &Part)) -> Value {
    let marks = part.marks.as_ref();
    json!({
        "file": path.display().to_string(),
        "lines": part.lines,
        "first": marks.map(|(first, _)| mark_as_json(first)),
        "last": marks.map(|(_, last)| mark_as_json(last)),
    })
}

fn mark_as_json(mark: &Mark) -> Value {
    json!({ "seq": mark.seq, "time": mark.time })
}

fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
