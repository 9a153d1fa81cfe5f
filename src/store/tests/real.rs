//! On the file system: who may read it, who may open it, and copies of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Model, OPTIONS, key};
use crate::store::{
    Changes, Check, Commit, DiskStore, Hooks, Options, RealDisk, Store, StoreError, Urgency,
    backup, check, compact, restore,
};

const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A store with some rows, closed.
    fn filled(&self, name: &str, rows: u64) -> PathBuf {
        let path = self.path(name);
        let (store, _) = opened(&path);
        let changes = (0..rows).map(put).chain((0..rows / 2).map(deleted));
        changes.for_each(|changes| follow(&store, store.commit(changes, Urgency::Now)));
        assert!(store.close(PATIENCE));
        path
    }
}

/// Waits until not much more than these changes is to be written: a batch fits into a segment.
fn follow(store: &DiskStore, commit: Commit) {
    while store.durable().0 + 10 < commit.0 {
        std::thread::yield_now();
    }
}

fn put(id: u64) -> Changes {
    let mut changes = Changes::new();
    changes.put(key(0, id, 0), &[id as u8; 700]).unwrap();
    // Two rows that are there together or not at all.
    changes.put(key(1, id, 0), &[]).unwrap();
    changes
}

fn deleted(id: u64) -> Changes {
    let mut changes = Changes::new();
    changes.delete(key(0, id, 0)).unwrap();
    changes.delete_all(1, id).unwrap();
    changes
}

fn open(path: &Path) -> Result<(DiskStore, Model), StoreError> {
    let mut rows = Model::new();
    let hooks = Hooks {
        rows: &mut |key, value| drop(rows.insert(key, value.to_vec())),
        progress: &mut |_| {},
        listener: Box::new(|_| {}),
    };
    let store = DiskStore::open(Arc::new(RealDisk::lock(path)?), &OPTIONS, hooks)?;
    Ok((store, rows))
}

fn opened(path: &Path) -> (DiskStore, Model) {
    open(path).unwrap()
}

fn rows(path: &Path) -> Model {
    let (store, rows) = opened(path);
    assert!(store.close(PATIENCE));
    rows
}

fn checked(path: &Path) -> Check {
    check(path, &mut |_| {}).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(path: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

#[test]
fn nobody_else_can_read_it() {
    // case C16
    let place = Place::new();
    let path = place.filled("store", 100);
    let close = |path: &Path| {
        assert_eq!(mode(path), 0o700);
        assert!(names(path).len() >= 3);
        names(path).iter().for_each(|name| assert_eq!(mode(&path.join(name)), 0o600, "{name}"));
    };
    close(&path);
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    for name in names(&path).iter().filter(|name| !name.starts_with("00000001")) {
        fs::set_permissions(path.join(name), Permissions::from_mode(0o644)).unwrap();
    }
    let before = names(&path);
    rows(&path);
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("lock")), 0o600);
    assert_eq!(mode(&path.join(before[before.len() - 2].as_str())), 0o600, "the newest");
}

#[test]
fn a_second_one_on_the_same_directory_is_refused() {
    // case C14
    let place = Place::new();
    let path = place.path("store");
    let (store, _) = opened(&path);
    let error = open(&path).err().unwrap();
    assert!(matches!(error, StoreError::Locked(_)));
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    let error = compact(&path, &mut |_| {}).unwrap_err();
    assert!(matches!(error, StoreError::Locked(_)), "{error}");
    assert!(store.close(PATIENCE));
    assert!(open(&path).is_ok());
}

#[test]
fn a_directory_with_other_things_in_it_is_left_alone() {
    let place = Place::new();
    let path = place.path("home");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    fs::write(path.join("letter"), "dear").unwrap();
    assert!(matches!(open(&path).err().unwrap(), StoreError::NotAStore(_)));
    assert!(matches!(check(&path, &mut |_| {}), Err(StoreError::NotAStore(_))));
    assert_eq!((mode(&path), names(&path)), (0o755, vec!["letter".to_owned()]));
    assert!(matches!(open(&place.path("no/such")).err().unwrap(), StoreError::File { .. }));
    fs::create_dir_all(place.path("mounted/lost+found")).unwrap();
    assert!(open(&place.path("mounted")).is_ok());
}

#[test]
fn a_check_tells_what_there_is_and_changes_nothing() {
    let place = Place::new();
    let path = place.filled("store", 100);
    let before = names(&path);
    let found = checked(&path);
    assert_eq!((found.rows, found.commit), (100, Commit(150)));
    assert!(found.live_bytes > 50 * 700 && found.bytes >= found.live_bytes + 50 * 700);
    assert_eq!((found.torn_bytes, found.damages.count), (0, 0));
    assert_eq!(found.segments as usize, before.len() - 1);
    let newest = path.join(&before[before.len() - 2]);
    let mut contents = fs::read(&newest).unwrap();
    contents.extend([7; 100]);
    fs::write(&newest, &contents).unwrap();
    assert_eq!(checked(&path).torn_bytes, 100);
    contents[1100] ^= 1;
    fs::write(&newest, &contents).unwrap();
    assert_eq!(checked(&path).damages.count, 1);
    assert_eq!((names(&path), fs::read(&newest).unwrap()), (before, contents));
}

/// Ends the writer when the test does, also where it fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_backup_of_a_store_at_work_is_how_it_was_at_one_moment() {
    // case C15
    let place = Place::new();
    let path = place.path("store");
    let (store, _) = opened(&path);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // So that segments are begun and cleaned all the time.
            for id in 0.. {
                follow(&store, store.commit(put(id), Urgency::Now));
                if id >= 40 {
                    follow(&store, store.commit(deleted(id - 40), Urgency::Now));
                }
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let _stops = Stops(&stop);
        for i in 0..10 {
            let durable = store.durable();
            let copy = place.path(&format!("backup{i}"));
            let found = backup(&path, &copy, &mut |_| {}).unwrap();
            assert!(found.commit >= durable);
            let restored = place.path(&format!("restored{i}"));
            assert_eq!(restore(&copy, &restored, &mut |_| {}).unwrap().commit, found.commit);
            let rows = rows(&restored);
            let ids = |table| rows.keys().filter(move |key| key.table == table).map(|key| key.id);
            assert!(ids(0).eq(ids(1)), "transactions are whole");
            let (first, count) = (ids(0).next().unwrap_or(0), ids(0).count() as u64);
            assert!(ids(0).eq(first..first + count) && count <= 41, "{first} {count}");
        }
    });
    assert!(store.close(PATIENCE));
}

#[test]
fn copies_are_made_into_empty_directories_alone() {
    let place = Place::new();
    let path = place.filled("store", 50);
    let other = place.filled("other", 10);
    let before = rows(&other);
    for result in [
        backup(&path, &other, &mut |_| {}),
        restore(&path, &other, &mut |_| {}),
        backup(&path, &path, &mut |_| {}),
    ] {
        assert!(matches!(result, Err(StoreError::NotEmpty(_))), "{result:?}");
    }
    assert_eq!(rows(&other), before);
    fs::create_dir(place.path("empty")).unwrap();
    restore(&path, &place.path("empty"), &mut |_| {}).unwrap();
    assert_eq!(rows(&place.path("empty")), rows(&path));
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let place = Place::new();
    let path = place.filled("store", 100);
    let name = path.join("00000001.log");
    let mut contents = fs::read(&name).unwrap();
    contents[5000] ^= 1;
    fs::write(&name, contents).unwrap();
    let restored = restore(&path, &place.path("restored"), &mut |_| {});
    assert!(matches!(restored, Err(StoreError::Damaged { .. })));
    assert!(!place.path("restored").exists());
    let copied = backup(&path, &place.path("backup"), &mut |_| {});
    assert!(matches!(copied, Err(StoreError::Damaged { .. })), "it says so");
}

#[test]
fn what_is_left_of_a_restore_is_no_store() {
    let place = Place::new();
    let path = place.filled("store", 100);
    let segments = names(&path).len() - 1;
    assert!(segments >= 3);
    // The newest have their names already.
    let part = place.path("part");
    fs::create_dir(&part).unwrap();
    for name in names(&path).iter().skip(1).take(segments - 1) {
        fs::copy(path.join(name), part.join(name)).unwrap();
    }
    assert!(matches!(open(&part).err().unwrap(), StoreError::Damaged { .. }));
}

#[test]
fn compacting_leaves_what_lives() {
    let place = Place::new();
    let path = place.filled("store", 200);
    let before = rows(&path);
    let (large, small) = (checked(&path), compact(&path, &mut |_| {}).unwrap());
    assert_eq!((small.rows, small.live_bytes), (large.rows, large.live_bytes));
    assert!(small.bytes < large.bytes && small.bytes < small.live_bytes + 4096, "{small:?}");
    assert_eq!(small.commit, large.commit);
    assert_eq!(rows(&path), before);
    assert!(matches!(compact(&place.path("nowhere"), &mut |_| {}), Err(StoreError::File { .. })));
    assert!(!place.path("nowhere").exists());
}

#[test]
fn an_empty_store_can_be_checked_backed_up_and_compacted() {
    let place = Place::new();
    let path = place.filled("store", 0);
    assert_eq!(checked(&path), Check::default());
    backup(&path, &place.path("backup"), &mut |_| {}).unwrap();
    compact(&path, &mut |_| {}).unwrap();
    assert_eq!(rows(&path), Model::new());
    assert_eq!(Options::default().segment_bytes, Options::SEGMENT_BYTES_MAX);
}
