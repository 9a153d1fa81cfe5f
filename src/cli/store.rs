//! `simcast store`: the directory in which the broker keeps what it must not forget.
#![allow(clippy::print_stdout, reason = "the output of a command")]

use std::path::PathBuf;

use clap::{Args, Subcommand};
use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::store::{self, Check, Damage, Progress, Stage, StoreError};

/// Check, copy, bring back or shrink the broker's store
///
/// The store is the directory that [store] path names: registry, settings, sessions, queues and
/// everything else that has to survive a crash, as a log in segments (00000001.log and so on). All
/// of it is under checksums. What was damaged is put aside as NAME.corrupt-TIME, and never removed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simcast store check simcast-data              is every byte as it was written?
  simcast store backup simcast-data /mnt/b/mon  a copy, while the broker runs
  simcast store restore /mnt/b/mon simcast-data bring it back, into an empty directory
  simcast store compact simcast-data            give space back, while no broker runs")]
pub struct Store {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Check(CheckStore),
    Backup(Backup),
    Restore(Restore),
    Compact(Compact),
}

/// Read all of a store and compare the checksums
///
/// Nothing is changed, and a broker may have it open: then a batch that is being written right now
/// is told as bytes at the end.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 all is in order, 1 something is damaged, or it cannot be read

Bytes at the end are what was being written when the power went: never acknowledged, and no damage.

Examples:
  simcast store check simcast-data
  simcast store check --json simcast-data | jq .damaged")]
struct CheckStore {
    /// The store
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// As one JSON object, also when something is damaged
    #[arg(long)]
    json: bool,
}

/// Copy a store, also while a broker runs
///
/// The copy is the whole store as it was at one moment; everything acknowledged before the command
/// began is in it. It is checked before the command ends. On the same file system it takes nearly
/// no time and space, because finished segments are linked: copy it elsewhere against the loss of
/// the disk.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 copied and in order, 1 failed, or the store is damaged

Example, nightly from cron:
  simcast store backup /var/lib/simcast /mnt/backup/simcast-$(date +%F)")]
struct Backup {
    /// The store
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Where the copy goes; empty, or not there yet
    #[arg(value_name = "TO")]
    to: PathBuf,
}

/// Bring a backup back
///
/// The backup is checked first and stays as it is. Everything that happened after it was made is
/// forgotten: devices that were acknowledged since then may have to send again.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 brought back, 1 failed, or the backup is damaged

Example, with the broker stopped:
  mv simcast-data simcast-data.old
  simcast store restore /mnt/backup/simcast-2026-11-23 simcast-data")]
struct Restore {
    /// The backup
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// Where the broker looks for its store; empty, or not there yet
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Rewrite a store so that only what is needed is left
///
/// The broker does this by itself, a little with each write, when less than half is needed. Now is
/// a matter of space alone. It takes as much space as what is needed while it runs, and a crash
/// meanwhile loses nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 done, 1 failed, damaged, or a broker has it open

Example, with the broker stopped:
  simcast store compact simcast-data")]
struct Compact {
    /// The store
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Why a store is not in order, or not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum StoreFailure {
    /// It cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A check found damage; it was printed.
    #[error(
        "store {}: damaged. Bring back a backup with `simcast store restore`, or let the broker \
         start without what is damaged: [store] on_damage = \"salvage\" keeps the files",
        .0.display()
    )]
    Damaged(PathBuf),
}

impl Store {
    /// Does what the command line says.
    ///
    /// # Errors
    /// [`StoreFailure`], worded for the terminal.
    pub fn run(&self) -> Result<(), StoreFailure> {
        match &self.action {
            Action::Check(check) => check.run(),
            Action::Backup(Backup { folder, to }) => {
                let found = with_bar(|progress| store::backup(folder, to, progress))?;
                println!("copied {} to {}", folder.display(), to.display());
                print_contents(&found);
                Ok(())
            }
            Action::Restore(Restore { backup, folder }) => {
                let found = with_bar(|progress| store::restore(backup, folder, progress))?;
                println!("brought {} back to {}", backup.display(), folder.display());
                print_contents(&found);
                Ok(())
            }
            Action::Compact(Compact { folder }) => {
                let found = with_bar(|progress| store::compact(folder, progress))?;
                println!("{}: only what is needed is left", folder.display());
                print_contents(&found);
                Ok(())
            }
        }
    }
}

impl CheckStore {
    fn run(&self) -> Result<(), StoreFailure> {
        let found = with_bar(|progress| store::check(&self.folder, progress))?;
        let damages = &found.damages;
        if self.json {
            println!("{}", as_json(&found));
        } else {
            println!("{}: {}", self.folder.display(), verdict(damages.count));
            print_contents(&found);
            damages.told.iter().for_each(|damage| println!("  {damage}"));
            let untold = damages.count - damages.told.len() as u64;
            if untold > 0 {
                println!("  and {untold} more");
            }
        }
        if damages.count > 0 {
            return Err(StoreFailure::Damaged(self.folder.clone()));
        }
        Ok(())
    }
}

fn verdict(damages: u64) -> String {
    match damages {
        0 => "every byte is as it was written".to_owned(),
        1 => "1 place is damaged".to_owned(),
        count => format!("{count} places are damaged"),
    }
}

fn print_contents(found: &Check) {
    let Check { rows, segments, bytes, live_bytes, commit, torn_bytes, .. } = found;
    println!("  rows      {rows}");
    println!("  segments  {segments}");
    println!(
        "  size      {}, of which {} are needed",
        BinaryBytes(*bytes),
        BinaryBytes(*live_bytes)
    );
    println!("  commit    {}", commit.0);
    if *torn_bytes > 0 {
        println!("  at the end {torn_bytes} bytes of a batch that was not acknowledged");
    }
}

fn as_json(found: &Check) -> Value {
    let damaged: Vec<Value> = found.damages.told.iter().map(damage_as_json).collect();
    json!({
        "sound": found.damages.count == 0,
        "rows": found.rows,
        "segments": found.segments,
        "bytes": found.bytes,
        "live_bytes": found.live_bytes,
        "commit": found.commit.0,
        "torn_bytes": found.torn_bytes,
        "damages": found.damages.count,
        "damaged": damaged,
    })
}

fn damage_as_json(damage: &Damage) -> Value {
    let Damage { file, at, bytes, .. } = damage;
    json!({ "file": file, "offset": at, "bytes": bytes, "message": damage.to_string() })
}

/// Shows on a terminal how far the work has got.
fn with_bar<T>(
    work: impl FnOnce(&mut dyn FnMut(Progress)) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let style = ProgressStyle::with_template("{prefix:<8} {wide_bar} {percent} % {elapsed}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    let result = work(&mut |Progress { stage, done, total }| {
        bar.set_prefix(match stage {
            Stage::Reading => "reading",
            Stage::Rows => "writing",
        });
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    result
}
