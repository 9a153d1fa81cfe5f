//! Any bytes as an audit log, and any change to a real one: no panic; what passes is what a log of
//! so many lines can be; and a real log passes as it was written, and no other way.
//!
//! The first byte says which it is. A real log is made of the next lines, one entry each, up to one
//! that is empty; behind it come changes of four bytes: what is done, where (two), and with what.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use simcast::audit::{Entry, Fault, LINE_BYTES_MAX, Link, Verified, Verifier};
use simcast::ids::Timestamp;

const ENTRIES_MAX: usize = 16;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((b'L', log)) => any_bytes(log),
        Some((_, plan)) => changed(plan),
        None => {}
    }
});

fn any_bytes(log: &[u8]) {
    let lines = log.iter().filter(|byte| **byte == b'\n').count() as u64;
    match verify(&[log]) {
        Ok(verified) => {
            assert_eq!(verified.lines, lines);
            assert_eq!(verified.last.seq - verified.first.seq + 1, lines);
            assert!(log.ends_with(b"\n"));
            for line in log.strip_suffix(b"\n").unwrap_or(log).split(|byte| *byte == b'\n') {
                let json: Value = serde_json::from_slice(line).expect("a line is JSON");
                assert!(json["seq"].is_u64() && json["hash"].is_string());
            }
        }
        Err(fault) => assert!((1..=lines + 1).contains(&fault.line)),
    }
    // Two files are as one.
    if let Some(cut) = log.iter().position(|byte| *byte == b'\n') {
        let (first, second) = log.split_at(cut + 1);
        assert_eq!(verify(&[first, second]).ok(), verify(&[log]).ok());
    }
}

fn changed(plan: &[u8]) {
    let end = plan.windows(2).position(|two| two == b"\n\n").unwrap_or(plan.len());
    let (entries, changes) = plan.split_at(end);
    let written = log(entries);
    let whole = written.concat();
    let verified = verify(&[&whole]).expect("a log as it was written");
    assert_eq!(verified.lines, written.len() as u64);

    let mut lines = written.clone();
    for change in changes.get(2..).unwrap_or_default().chunks_exact(4) {
        apply(&mut lines, change);
    }
    let bytes = lines.concat();
    let Ok(found) = verify(&[&bytes]) else { return };
    // Only whole lines at both ends can go unseen, and they are told by their numbers.
    let first = usize::try_from(found.first.seq - 1).expect("a number of ours");
    let last = usize::try_from(found.last.seq).expect("a number of ours");
    assert_eq!(bytes, written[first..last].concat());
    if found.last == verified.last {
        assert_eq!(found.hash, verified.hash);
    } else {
        let mut verifier = Verifier::expecting(verified.hash);
        verifier.file(&bytes[..]).expect("it was in order");
        assert!(verifier.finish().is_err(), "a noted hash finds that the end is gone");
    }
}

/// One line for each of these.
fn log(entries: &[u8]) -> Vec<Vec<u8>> {
    let mut link = Link::start();
    let mut line = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        let entry = Entry::new("refusal", &text).with("text", &*text).with("length", text.len());
        let line = link.append(Timestamp(text.len() as u64), &entry);
        assert!(line.is_ascii() && line.len() <= LINE_BYTES_MAX && !line.contains('\n'));
        let json: Value = serde_json::from_str(&line).expect("JSON");
        assert!(text.len() > 256 || json["actor"] == *text, "nothing is lost");
        format!("{line}\n").into_bytes()
    };
    entries.split(|byte| *byte == b'\n').take(ENTRIES_MAX).map(&mut line).collect()
}

fn apply(lines: &mut Vec<Vec<u8>>, change: &[u8]) {
    if lines.is_empty() {
        return;
    }
    let position = usize::from(u16::from_be_bytes([change[1], change[2]]));
    let at = position % lines.len();
    let other = usize::from(change[3]) % lines.len();
    match change[0] % 6 {
        0 => drop(lines.remove(at)),
        1 => lines.insert(other, lines[at].clone()),
        2 => lines.swap(at, other),
        3 => lines[at].push(change[3]),
        4 => {
            let byte = position / lines.len() % lines[at].len().max(1);
            if let Some(byte) = lines[at].get_mut(byte) {
                *byte = change[3];
            }
        }
        _ => {
            let left = position / lines.len() % (lines[at].len() + 1);
            lines[at].truncate(left);
        }
    }
}

fn verify(files: &[&[u8]]) -> Result<Verified, Fault> {
    let mut verifier = Verifier::new();
    for file in files {
        verifier.file(*file)?;
    }
    verifier.finish()
}
