//! `simcast store`, on stores that the library has written.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use simcast::store::{Changes, DiskStore, Hooks, Key, Options, RealDisk, Store, Urgency};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with the store `data` in it: rows 0 to 99, of which 0 to 49 are gone again.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        let (store, _) = open(&place.path("data"));
        for id in 0..100 {
            store
                .commit(row(id, |changes, key| changes.put(key, &[7; 300]).unwrap()), Urgency::Now);
        }
        for id in 0..50 {
            store.commit(row(id, |changes, key| changes.delete(key).unwrap()), Urgency::Now);
        }
        assert!(store.close(PATIENCE));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Turns a bit over in a row.
    fn damage(&self) {
        let path = self.path("data/00000001.log");
        let mut contents = fs::read(&path).unwrap();
        contents[2000] ^= 1;
        fs::write(path, contents).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_simcast"));
        told(&command.arg("store").args(arguments).current_dir(self.dir.path()).output().unwrap())
    }

    /// The command succeeds and says these words.
    fn succeeds(&self, arguments: &[&str], words: &[&str]) {
        let (code, out, err) = self.run(arguments);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        words.iter().for_each(|words| assert!(out.contains(words), "{words}: {out}"));
    }

    fn fails(&self, arguments: &[&str], words: &[&str]) {
        let (code, _, err) = self.run(arguments);
        assert_eq!(code, 1, "{err}");
        words.iter().for_each(|words| assert!(err.contains(words), "{words}: {err}"));
    }
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn row(id: u64, change: impl Fn(&mut Changes, Key)) -> Changes {
    let mut changes = Changes::new();
    change(&mut changes, Key { table: 1, id, part: 0 });
    changes
}

/// The store, and the ids in it.
fn open(path: &Path) -> (DiskStore, Vec<u64>) {
    let mut ids = Vec::new();
    let hooks = Hooks {
        rows: &mut |key, _| ids.push(key.id),
        progress: &mut |_| {},
        listener: Box::new(|_| {}),
    };
    let disk = Arc::new(RealDisk::lock(path).unwrap());
    (DiskStore::open(disk, &Options::default(), hooks).unwrap(), ids)
}

fn ids(path: &Path) -> Vec<u64> {
    let (store, ids) = open(path);
    assert!(store.close(PATIENCE));
    ids
}

#[test]
fn a_check_says_what_there_is() {
    let place = Place::new();
    let words = ["data: every byte is as it was written", "rows      50", "commit    150"];
    place.succeeds(&["check", "data"], &words);
    let (code, out, _) = place.run(&["check", "--json", "data"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &found["sound"], &found["rows"]), (0, &true.into(), &50.into()));
}

#[test]
fn a_check_names_what_is_damaged_and_exits_with_1() {
    // case C7
    let place = Place::new();
    place.damage();
    let (code, out, err) = place.run(&["check", "data"]);
    assert_eq!(code, 1);
    assert!(out.contains("data: 1 place is damaged"), "{out}");
    assert!(out.contains("00000001.log: at offset 1"), "{out}");
    assert!(err.contains("on_damage = \"salvage\""), "{err}");
    let (code, out, _) = place.run(&["check", "--json", "data"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &found["sound"], &found["damages"]), (1, &false.into(), &1.into()));
    assert_eq!(found["damaged"][0]["file"], "00000001.log");
    place.fails(&["backup", "data", "copy"], &["damaged in 1 place"]);
    place.fails(&["compact", "data"], &["damaged in 1 place", "Nothing was changed"]);
}

#[test]
fn a_backup_of_an_open_store_comes_back() {
    // case C15
    let place = Place::new();
    let (store, before) = open(&place.path("data"));
    place.succeeds(&["backup", "data", "copy"], &["copied data to copy", "rows      50"]);
    place.fails(&["compact", "data"], &["another simcast has it open"]);
    assert!(store.close(PATIENCE));
    place.succeeds(&["restore", "copy", "new"], &["brought copy back to new"]);
    assert_eq!(ids(&place.path("new")), before);
    assert_eq!(before, (50..100).collect::<Vec<_>>());
    place.fails(&["restore", "copy", "data"], &["data: is not empty"]);
    place.fails(&["restore", "data", "copy"], &["copy: is not empty"]);
    place.fails(&["restore", "nowhere", "else"], &["nowhere"]);
    assert!(!place.path("else").exists());
}

#[test]
fn compacting_gives_space_back() {
    let place = Place::new();
    let bytes = || -> u64 {
        let entries = fs::read_dir(place.path("data")).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    };
    let before = bytes();
    place.succeeds(&["compact", "data"], &["only what is needed is left", "rows      50"]);
    assert!(bytes() < before * 2 / 3);
    assert_eq!(ids(&place.path("data")), (50..100).collect::<Vec<_>>());
}

#[test]
fn whatever_the_umask_copies_are_their_owners_alone() {
    // case C16
    for umask in ["000", "777"] {
        let place = Place::new();
        let simcast = env!("CARGO_BIN_EXE_simcast");
        let script = format!(
            "umask {umask} && {simcast} store backup data copy && {simcast} store restore copy new"
        );
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", &script]).current_dir(place.dir.path()).output().unwrap();
        let (code, _, err) = told(&output);
        assert_eq!(code, 0, "{err}");
        for folder in ["copy", "new"].map(|name| place.path(name)) {
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode(&folder), 0o700);
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                assert_eq!(mode(&path), 0o600, "{umask} {}", path.display());
            }
        }
    }
}
