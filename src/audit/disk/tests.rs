//! Files in a folder of the test; failures are real ones.

use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;

use super::*;
use crate::audit::{Entry, Verified, Verifier};
use crate::ids::Timestamp;

/// A folder, and the chain as the writer would have it.
struct Place {
    dir: tempfile::TempDir,
    options: Audit,
    link: Link,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, options: Audit::default(), link: Link::start() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("log/audit.log")
    }

    fn file(&self, number: u32) -> PathBuf {
        if number == 0 { self.path() } else { numbered(&self.path(), number) }
    }

    fn open(&self) -> Result<(Disk, Option<Torn>), AuditError> {
        Disk::open(&self.options, &self.path())
    }

    /// Opens it where the chain has ended.
    fn disk(&self) -> Disk {
        let (disk, torn) = self.open().unwrap();
        assert_eq!((disk.link(), torn), (self.link, None));
        disk
    }

    fn push(&mut self, disk: &mut Disk, count: usize) {
        for _ in 0..count {
            let line = self.link.append(Timestamp(0), &Entry::new("refusal", "device 1"));
            disk.push(line.into(), self.link);
        }
    }

    fn settle(&mut self, disk: &mut Disk, count: usize) {
        self.push(disk, count);
        disk.write().unwrap();
        disk.sync().unwrap();
        assert!(disk.is_settled());
    }

    /// What the files have, oldest first.
    fn verified(&self) -> Verified {
        let mut verifier = Verifier::new();
        for number in (0..20).rev().filter(|number| self.file(*number).exists()) {
            let bytes = fs::read(self.file(number)).unwrap();
            let name = self.file(number);
            verifier.file(&*bytes).unwrap_or_else(|fault| panic!("{}: {fault:?}", name.display()));
        }
        let verified = verifier.finish().unwrap();
        assert_eq!(verified.hash, self.link.hash, "nothing is missing at the end");
        verified
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path().parent().unwrap()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(".lock")).collect();
        names.sort();
        names
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn only_the_owner_may_read() {
    let mut place = Place::new();
    place.options.max_bytes = 1;
    let mut disk = place.disk();
    place.settle(&mut disk, 3);
    assert_eq!(mode(place.path().parent().unwrap()), 0o700);
    assert_eq!(place.files(), ["audit.log", "audit.log.1", "audit.log.2"]);
    for number in 0..3 {
        assert_eq!(mode(&place.file(number)), 0o600);
    }
    assert_eq!(mode(&place.path().with_file_name(".audit.log.lock")), 0o600);
    drop(disk);
    // Somebody has opened it for others.
    fs::set_permissions(place.path(), Permissions::from_mode(0o664)).unwrap();
    drop(place.disk());
    assert_eq!(mode(&place.path()), 0o600);
}

#[test]
fn files_are_rotated_by_size_and_the_chain_goes_on() {
    let mut place = Place::new();
    place.options.keep = 3;
    place.options.max_bytes = 1_000;
    let mut disk = place.disk();
    for _ in 0..10 {
        place.settle(&mut disk, 2);
    }
    assert_eq!(place.files(), ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3"]);
    for number in 0..4 {
        assert!(fs::metadata(place.file(number)).unwrap().len() <= 1_000);
    }
    let verified = place.verified();
    assert_eq!((verified.last.seq, disk.settled()), (20, 20));
    assert!(verified.first.seq > 1, "the oldest are gone");
    // The same in one write, and after a start.
    drop(disk);
    let mut disk = place.disk();
    place.settle(&mut disk, 7);
    assert_eq!(place.verified().last.seq, 27);
    // Fewer are kept than before.
    drop(disk);
    place.options.keep = 1;
    let mut disk = place.disk();
    place.settle(&mut disk, 4);
    assert_eq!(place.files(), ["audit.log", "audit.log.1"]);
    assert_eq!(place.verified().last.seq, 31);
}

#[test]
fn a_line_longer_than_a_file_has_one_of_its_own() {
    let mut place = Place::new();
    place.options.max_bytes = 10;
    let mut disk = place.disk();
    place.settle(&mut disk, 4);
    assert_eq!(place.files().len(), 4);
    assert_eq!(place.verified().lines, 4);
}

#[test]
fn a_chain_goes_on_behind_a_file_that_was_just_rotated_away() {
    let mut place = Place::new();
    let mut disk = place.disk();
    place.settle(&mut disk, 3);
    drop(disk);
    // Crashes between the steps of a rotation.
    for (from, to) in [(0, 1), (1, 2)] {
        fs::rename(place.file(from), place.file(to)).unwrap();
        drop(place.disk());
        assert_eq!(place.files(), ["audit.log".to_owned(), format!("audit.log.{to}")]);
    }
    let mut disk = place.disk();
    place.settle(&mut disk, 1);
    assert_eq!(place.verified().lines, 4);
}

#[test]
fn a_torn_last_line_is_cut_off_and_told() {
    let mut place = Place::new();
    let mut disk = place.disk();
    place.settle(&mut disk, 2);
    drop(disk);
    let whole = fs::read(place.path()).unwrap();
    let next = place.link.append(Timestamp(0), &Entry::new("refusal", "device 1"));
    place.link = Line::read(whole[..whole.len() - 1].rsplit(|b| *b == b'\n').next().unwrap())
        .unwrap()
        .link();
    for torn in [next.as_bytes(), &next.as_bytes()[..1], &[0; 5_000], b"\xff"] {
        fs::write(place.path(), [&whole, torn].concat()).unwrap();
        let (disk, found) = place.open().unwrap();
        let found = found.unwrap();
        assert_eq!((found.bytes, disk.link()), (torn.len() as u64, place.link));
        assert!(next.starts_with(&found.begins) || found.begins.starts_with(['\0', '\u{fffd}']));
        assert!(found.begins.len() <= 3 * TEXT_BYTES_MAX);
        assert_eq!(fs::read(place.path()).unwrap(), whole, "the rest is as it was");
    }
    // A first line, and the first line after a rotation.
    let mut disk = place.disk();
    place.settle(&mut disk, 1);
    drop(disk);
    fs::rename(place.file(0), place.file(1)).unwrap();
    fs::write(place.path(), &next.as_bytes()[..20]).unwrap();
    let (mut disk, torn) = place.open().unwrap();
    assert_eq!((torn.unwrap().bytes, disk.link()), (20, place.link));
    place.settle(&mut disk, 1);
    assert_eq!(place.verified().lines, 4);
}

#[test]
fn what_is_no_audit_log_stays_as_it_is() {
    let mut place = Place::new();
    let mut disk = place.disk();
    place.settle(&mut disk, 2);
    drop(disk);
    let ours = fs::read_to_string(place.path()).unwrap();
    for other in [
        "letter",
        "a,b\nc,d\n",
        "a,b\nc,d",
        "{\"level\":\"INFO\"}\n",
        &ours.replace("device 1", "device 2"),
        &format!("{ours}\n"),
        &"\n".repeat(10),
        &"x".repeat(LINE_BYTES_MAX + 2),
        &format!("{}\n", "x".repeat(LINE_BYTES_MAX + 2)),
    ] {
        fs::write(place.path(), other).unwrap();
        let error = place.open().unwrap_err();
        assert!(matches!(error, AuditError::Tail { .. }), "{error}: {other}");
        assert_eq!(fs::read_to_string(place.path()).unwrap(), other);
    }
    // Nor is a chain begun anew while older files are there that cannot be continued.
    fs::rename(place.file(0), place.file(1)).unwrap();
    let error = place.open().unwrap_err().to_string();
    assert!(error.contains("audit.log.1: its last line cannot be continued"), "{error}");
    assert!(error.contains("Move the file away"), "{error}");
    assert_eq!(place.files(), ["audit.log.1"]);
}

#[test]
fn a_path_that_cannot_be_written_is_told_at_start() {
    let place = Place::new();
    let error = |path: &str| {
        let path = place.dir.path().join(path);
        Disk::open(&place.options, &path).unwrap_err().to_string()
    };
    fs::write(place.dir.path().join("file"), "").unwrap();
    fs::create_dir(place.dir.path().join("folder")).unwrap();
    symlink("/dev/null", place.dir.path().join("device")).unwrap();
    assert!(error("folder").ends_with("is no regular file"));
    assert!(error("device").ends_with("is no regular file"));
    assert!(error("file/audit.log").contains("file: File exists"), "{}", error("file/audit.log"));
    assert!(error("a/b/audit.log").contains("No such file or directory"));
    // Not even root makes files here.
    let error = Disk::open(&place.options, Path::new("/proc/audit.log")).unwrap_err();
    assert!(matches!(error, AuditError::File { .. }), "{error}");
}

#[test]
fn one_file_has_one_writer() {
    // case C14
    let mut place = Place::new();
    let mut disk = place.disk();
    let error = place.open().unwrap_err();
    assert!(matches!(error, AuditError::Locked(_)), "{error}");
    place.settle(&mut disk, 1);
    fs::rename(place.file(0), place.file(1)).unwrap();
    assert!(matches!(place.open(), Err(AuditError::Locked(_))), "a rotation does not let go");
    drop(disk);
    drop(place.disk());
}

/// Writes that fail from now on, as on a full disk.
fn fill(disk: &mut Disk) {
    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    disk.open.as_mut().unwrap().file = full;
}

#[test]
fn after_a_full_disk_nothing_is_lost_or_doubled() {
    // case D18, case C6
    let mut place = Place::new();
    let mut disk = place.disk();
    place.settle(&mut disk, 2);
    place.push(&mut disk, 2);
    disk.write().unwrap(); // and not synced
    fill(&mut disk);
    place.push(&mut disk, 2);
    let error = disk.write().unwrap_err();
    assert!(error.to_string().contains("No space left on device"), "{error}");
    assert!(!disk.is_settled());
    // Half a line got through.
    let mut file = OpenOptions::new().append(true).open(place.path()).unwrap();
    file.write_all(b"{\"seq\":5,\"ti").unwrap();
    place.settle(&mut disk, 1);
    assert_eq!((place.verified().lines, disk.settled()), (7, 7));
}

#[test]
fn a_failed_sync_makes_all_be_written_again() {
    // case C5: nobody knows what the disk has after it
    let mut place = Place::new();
    let mut disk = place.disk();
    place.push(&mut disk, 3);
    disk.write().unwrap();
    fs::write(place.path(), b"{\"seq\":1\0\0\0").unwrap();
    // A pipe cannot be synced.
    let (_reader, pipe) = io::pipe().unwrap();
    disk.open.as_mut().unwrap().file = File::from(OwnedFd::from(pipe));
    disk.sync().unwrap_err();
    assert_eq!(disk.settled(), 0);
    place.settle(&mut disk, 1);
    assert_eq!((place.verified().lines, disk.settled()), (4, 4));
}

#[test]
fn a_failed_rotation_pushes_no_file_out() {
    let mut place = Place::new();
    place.options.max_bytes = 1;
    place.options.keep = 3;
    let mut disk = place.disk();
    place.settle(&mut disk, 4);
    // Its last step cannot be done.
    fs::remove_file(place.file(3)).unwrap();
    make_way(&place.path(), 3).unwrap();
    assert_eq!(place.files(), ["audit.log", "audit.log.2", "audit.log.3"]);
    let before: Vec<_> = [0, 2, 3].map(|n| fs::read(place.file(n)).unwrap()).into();
    make_way(&place.path(), 3).unwrap();
    make_way(&place.path(), 3).unwrap();
    let after: Vec<_> = [0, 2, 3].map(|n| fs::read(place.file(n)).unwrap()).into();
    assert_eq!(before, after);
    place.settle(&mut disk, 1);
    assert_eq!(place.verified().lines, 4, "all but the one that the test removed");
}

#[test]
fn a_file_that_was_moved_away_is_complete_and_another_one_continues_it() {
    // case O3
    let mut place = Place::new();
    let mut disk = place.disk();
    place.push(&mut disk, 3);
    disk.write().unwrap();
    fs::rename(place.file(0), place.file(1)).unwrap();
    place.push(&mut disk, 1);
    let error = disk.write().unwrap_err();
    assert!(matches!(error, AuditError::Foreign(_)), "{error}");
    place.settle(&mut disk, 1);
    assert_eq!(place.verified().lines, 5);
    assert_eq!(fs::read_to_string(place.file(1)).unwrap().lines().count(), 3);
    // Its folder is gone, too.
    let aside = place.dir.path().join("aside");
    fs::rename(place.path().parent().unwrap(), &aside).unwrap();
    place.push(&mut disk, 1);
    disk.write().unwrap_err();
    place.settle(&mut disk, 1);
    assert_eq!(place.verified().first.seq, 6);
}

#[test]
fn a_file_that_was_copied_and_emptied_is_continued() {
    // case O3: copytruncate
    let mut place = Place::new();
    let mut disk = place.disk();
    place.settle(&mut disk, 3);
    fs::copy(place.file(0), place.file(1)).unwrap();
    fs::write(place.file(0), "").unwrap();
    place.push(&mut disk, 1);
    disk.write().unwrap_err();
    place.settle(&mut disk, 1);
    assert_eq!(place.verified().lines, 5);
}

#[test]
fn a_file_that_was_changed_meanwhile_is_not_continued() {
    let mut place = Place::new();
    let mut disk = place.disk();
    place.settle(&mut disk, 3);
    let ours = fs::read_to_string(place.path()).unwrap();
    let older = ours.lines().take(2).map(|line| format!("{line}\n")).collect::<String>();
    place.push(&mut disk, 1);
    let others = [&older, &ours.replacen("device 1", "device 2", 3), &format!(" {ours}"), "x"];
    for other in others {
        fs::remove_file(place.path()).unwrap();
        fs::write(place.path(), other).unwrap();
        for _ in 0..3 {
            assert!(matches!(disk.write(), Err(AuditError::Foreign(_))), "{other}");
        }
        assert_eq!(fs::read_to_string(place.path()).unwrap(), other, "untouched");
    }
    // What somebody has only put behind our lines goes.
    fs::write(place.path(), format!("{ours}hello\n")).unwrap();
    place.settle(&mut disk, 1);
    assert_eq!(place.verified().lines, 5);
    fs::write(place.path(), fs::read_to_string(place.path()).unwrap() + "hello\n").unwrap();
    place.push(&mut disk, 1);
    disk.write().unwrap_err();
    place.settle(&mut disk, 1);
    assert_eq!(place.verified().lines, 7);
}

#[test]
fn what_waits_is_bounded() {
    let mut place = Place::new();
    let mut disk = place.disk();
    while disk.has_room() {
        place.push(&mut disk, 1);
    }
    assert!(disk.waiting_bytes > WAITING_BYTES_MAX - 2 * LINE_BYTES_MAX);
    assert!(disk.waiting_bytes <= WAITING_BYTES_MAX);
    place.settle(&mut disk, 0);
    assert!(disk.has_room());
    assert_eq!(disk.waiting_bytes, 0);
    let lines = place.verified().lines;
    assert!(lines > 1_000, "{lines}");
}
