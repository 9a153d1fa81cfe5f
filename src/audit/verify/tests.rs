//! Whatever is done to a log, its first faulty line is named; what nobody has touched passes.

use std::io::BufReader;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::audit::Entry;
use crate::ids::Timestamp;

/// So many lines from where the chain stands.
fn lines(link: &mut Link, count: usize) -> Vec<String> {
    let mut line = |i: usize| {
        let seq = link.seq;
        let time = Timestamp(1_700_000_000_000 + seq * 1_000);
        let entry = Entry::new("refusal", "device 8904").with("reason", "unknown_nid");
        link.append(time, &entry.with("text", "é\n".repeat(i % 3)))
    };
    (0..count).map(&mut line).collect()
}

fn file(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

fn verify(files: &[&[u8]]) -> Result<Verified, Fault> {
    verify_with(Verifier::new(), files)
}

fn verify_with(mut verifier: Verifier, files: &[&[u8]]) -> Result<Verified, Fault> {
    for file in files {
        // Small pieces: lines are longer than what a read gives.
        verifier.file(BufReader::with_capacity(7, *file))?;
    }
    verifier.finish()
}

/// The line and flaw of the one file.
fn fault(lines: &[String]) -> (u64, Flaw) {
    let fault = verify(&[&file(lines)]).unwrap_err();
    assert_eq!(fault.file, 0);
    (fault.line, fault.flaw)
}

#[test]
fn what_nobody_has_touched_passes() {
    let mut link = Link::start();
    let all = lines(&mut link, 9);
    let verified = verify(&[&file(&all)]).unwrap();
    assert_eq!((verified.lines, verified.first.seq, verified.last.seq), (9, 1, 9));
    assert_eq!(verified.first.time, "2023-11-14T22:13:20.000Z");
    assert_eq!(verified.last.time, "2023-11-14T22:13:28.000Z");
    assert_eq!((verified.hash, verified.holes), (link.hash, 0));
    let parts = [&file(&all[..4])[..], b"", &file(&all[4..])];
    assert_eq!(verify(&parts).unwrap(), verified, "an empty file between is none");

    let mut verifier = Verifier::new();
    let part = verifier.file(parts[0]).unwrap();
    let (first, last) = part.marks.unwrap();
    assert_eq!((part.lines, first.seq, last.seq), (4, 1, 4));
    assert_eq!(verifier.file(parts[1]).unwrap(), Part { lines: 0, marks: None });
}

#[test]
fn a_log_may_begin_where_an_older_file_ended() {
    let all = lines(&mut Link::start(), 9);
    let verified = verify(&[&file(&all[5..])]).unwrap();
    assert_eq!((verified.lines, verified.first.seq, verified.last.seq), (4, 6, 9));
    // A first line that says it is the first continues nothing.
    let mut link = Link { seq: 0, ..link_of(&all[3]) };
    assert_eq!(fault(&lines(&mut link, 2)), (1, Flaw::Untied));
}

fn link_of(line: &str) -> Link {
    Line::read(line.as_bytes()).unwrap().link()
}

#[test]
fn each_kind_of_change_has_its_name() {
    let all = lines(&mut Link::start(), 9);
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = all.clone();
        change(&mut lines);
        fault(&lines)
    };
    let changed = with(&|lines| lines[4] = lines[4].replace("unknown_nid", "unknown_gid"));
    assert_eq!(changed, (5, Flaw::Changed));
    let number = with(&|lines| lines[4] = lines[4].replace("\"seq\":5", "\"seq\":6"));
    assert_eq!(number, (5, Flaw::Changed));
    let broken = with(&|lines| lines[4].insert(0, '{'));
    assert_eq!(broken, (5, Flaw::NoLine("broken JSON, at column 2".to_owned())));
    let blank = with(&|lines| lines.insert(4, String::new()));
    assert_eq!(blank, (5, Flaw::NoLine("broken JSON, at column 0".to_owned())));
    let other = with(&|lines| lines[4] = r#"{"level":"INFO"}"#.to_owned());
    let members = "other members than those of one, at column 8";
    assert_eq!(other, (5, Flaw::NoLine(members.to_owned())));

    let missing = with(&|lines| drop(lines.drain(4..6)));
    assert_eq!(missing, (5, Flaw::Missing { seq: 7, last: 4 }));
    assert_eq!(missing.1.to_string(), "line number 7 stands behind 4: 2 missing");
    let doubled = with(&|lines| lines.insert(4, lines[4].clone()));
    assert_eq!(doubled, (6, Flaw::Doubled(5)));
    let again = with(&|lines| lines.insert(8, lines[4].clone()));
    assert_eq!(again, (9, Flaw::Backwards { seq: 5, last: 8 }));
    let swapped = with(&|lines| lines.swap(4, 7));
    assert_eq!(swapped, (5, Flaw::OutOfOrder { seq: 8, expected: 5, at: 8 }));
}

#[test]
fn a_line_that_was_made_anew_is_not_tied_to_its_neighbours() {
    let all = lines(&mut Link::start(), 9);
    let mut lines = all.clone();
    lines[4] = link_of(&all[3]).append(Timestamp(0), &Entry::new("refusal", "nobody"));
    assert_eq!(fault(&lines), (6, Flaw::Untied));
    lines[4] = Link { seq: 4, hash: Hash::NONE }.append(Timestamp(0), &Entry::new("x", ""));
    assert_eq!(fault(&lines), (5, Flaw::Untied));
}

#[test]
fn files_have_to_be_in_order_and_complete() {
    let all = lines(&mut Link::start(), 9);
    let [a, b, c] = [&all[..3], &all[3..6], &all[6..]].map(file);
    assert!(verify(&[&a, &b, &c]).is_ok());
    let apart = |seq, last| Fault { file: 1, line: 1, flaw: Flaw::FilesApart { seq, last } };
    assert_eq!(verify(&[&b, &a]), Err(apart(1, 6)));
    assert_eq!(verify(&[&a, &c]), Err(apart(7, 3)));
    assert_eq!(verify(&[&a, &a]), Err(apart(1, 3)));
    // The right numbers of another log.
    let other = lines(&mut Link { seq: 3, hash: Hash::NONE }, 3);
    let untied = Fault { file: 1, line: 1, flaw: Flaw::Untied };
    assert_eq!(verify(&[&a, &file(&other)]), Err(untied));
    let fault = verify(&[&a, &b[..b.len() - 1], &c]).unwrap_err();
    assert_eq!(fault, Fault { file: 1, line: 3, flaw: Flaw::BrokenOff });
}

#[test]
fn a_noted_hash_finds_what_the_chain_alone_does_not() {
    let mut link = Link::start();
    let all = lines(&mut link, 9);
    let noted = link_of(&all[6]).hash;
    let (whole, short) = (file(&all), file(&all[..6]));
    assert!(verify_with(Verifier::expecting(noted), &[&whole]).is_ok());
    assert!(verify(&[&short]).is_ok(), "nobody can see that there were more");
    let not_found = |file| Err(Fault { file, line: 6, flaw: Flaw::NotFound(noted) });
    assert_eq!(verify_with(Verifier::expecting(noted), &[&short]), not_found(0));
    let anew = file(&lines(&mut Link { seq: 6, ..link_of(&all[5]) }, 3).split_off(1));
    assert!(verify_with(Verifier::expecting(noted), &[&anew]).is_err());
    for nothing in [&[][..], &[&b""[..]], &[b"", b""]] {
        let fault = verify(nothing).unwrap_err();
        assert_eq!((fault.line, fault.flaw), (u64::from(!nothing.is_empty()), Flaw::Empty));
    }
}

#[test]
fn lines_that_tell_of_holes_are_counted() {
    let mut link = Link::start();
    let events = ["refusal", DROPPED, GAP, "gap2", TORN_LINE];
    let lines = events.map(|event| link.append(Timestamp(0), &Entry::new(event, "broker")));
    assert_eq!(verify(&[&file(&lines)]).unwrap().holes, 3);
}

#[test]
fn no_line_takes_more_memory_than_the_longest() {
    for (bytes, flaw) in [
        (LINE_BYTES_MAX - 1, Flaw::BrokenOff),
        (LINE_BYTES_MAX + 1, Flaw::TooLong),
        (100 << 20, Flaw::TooLong),
    ] {
        let endless = BufReader::new(io::repeat(b'{').take(bytes as u64));
        let fault = Verifier::new().file(endless).unwrap_err();
        assert_eq!(fault, Fault { file: 0, line: 1, flaw }, "{bytes}");
    }
    let nested = format!("{{\"details\":{}", "[".repeat(LINE_BYTES_MAX - 100));
    assert!(matches!(fault(&[nested]), (1, Flaw::NoLine(_))), "and no deep stack");
}

#[test]
fn what_cannot_be_read_is_a_fault() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let all = file(&lines(&mut Link::start(), 2));
    let fault = Verifier::new().file(BufReader::new(all.chain(Broken))).unwrap_err();
    assert_eq!((fault.line, fault.flaw), (3, Flaw::Unreadable("the disk is gone".to_owned())));
}

/// A log of some lines, none two alike.
fn logs() -> impl Strategy<Value = Vec<String>> {
    (3_usize..12).prop_map(|count| lines(&mut Link::start(), count))
}

proptest! {
    #[test]
    fn any_changed_byte_is_found_in_its_line(log in logs(), at: Index, flip in 1..=255_u8) {
        let mut bytes = file(&log);
        let at = at.index(bytes.len());
        let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        bytes[at] ^= flip;
        let fault = verify(&[&bytes]).unwrap_err();
        prop_assert_eq!(fault.line, line, "{}", fault.flaw);
    }

    #[test]
    fn any_missing_line_is_found(log in logs(), at: Index) {
        let mut log = log;
        let noted = link_of(log.last().unwrap()).hash;
        let at = at.index(log.len());
        log.remove(at);
        let found = verify(&[&file(&log)]);
        if at == 0 {
            prop_assert_eq!(found.unwrap().first.seq, 2, "said, for it may be an older file's");
        } else if at == log.len() {
            prop_assert_eq!(found.unwrap().last.seq, at as u64, "said");
            let found = verify_with(Verifier::expecting(noted), &[&file(&log)]);
            prop_assert_eq!(found.unwrap_err().flaw, Flaw::NotFound(noted), "and found");
        } else {
            let (seq, last) = (at as u64 + 2, at as u64);
            let flaw = Flaw::Missing { seq, last };
            prop_assert_eq!(found, Err(Fault { file: 0, line: last + 1, flaw }));
        }
    }

    #[test]
    fn any_doubled_line_is_found(log in logs(), from: Index, to: Index) {
        let mut log = log;
        let doubled = log[from.index(log.len())].clone();
        let at = to.index(log.len() + 1);
        log.insert(at, doubled);
        let fault = verify(&[&file(&log)]).unwrap_err();
        // The first of two that are alike is in its place.
        prop_assert!(fault.line == at as u64 + 1 || fault.line == at as u64 + 2);
    }

    #[test]
    fn any_two_swapped_lines_are_found(log in logs(), a: Index, b: Index) {
        let mut log = log;
        let (a, b) = (a.index(log.len()), b.index(log.len()));
        prop_assume!(a != b);
        log.swap(a, b);
        let fault = verify(&[&file(&log)]).unwrap_err();
        // A log may begin with any line: then the second is the first that is out of place.
        let first = a.min(b) as u64 + 1;
        prop_assert_eq!(fault.line, first.max(2), "{}", fault.flaw);
    }

    #[test]
    fn any_cut_within_a_line_is_found(log in logs(), at: Index) {
        let bytes = file(&log);
        let at = at.index(bytes.len());
        prop_assume!(at > 0 && bytes[at - 1] != b'\n');
        prop_assert_eq!(verify(&[&bytes[..at]]).unwrap_err().flaw, Flaw::BrokenOff);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes: Vec<u8>, lines in "[{}\\[\\]\",:a-z0-9\n]{0,200}") {
        let both = [&bytes[..], b"\n", lines.as_bytes()].concat();
        prop_assert!(verify(&[&both]).is_err());
    }
}
