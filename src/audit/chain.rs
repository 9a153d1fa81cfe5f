//! Entries become lines, each tied to the one before it; and lines are read back.
//!
//! Pure: time is an argument, and there is no file here.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::str::FromStr;

use aws_lc_rs::digest;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::ser::Formatter;
use serde_json::{Map, Value};

use super::entry::{ACTOR_BYTES_MAX, DETAILS_BYTES_MAX, EVENT_BYTES_MAX, Entry};
use super::verify::Flaw;
use crate::ids::Timestamp;
use crate::log::Rfc3339;

/// Longest line, in bytes without its end.
pub const LINE_BYTES_MAX: usize = 32 << 10;

/// What a line has besides its event: number, time, hashes, names of members, marks of what was
/// cut.
const FRAME_BYTES_MAX: usize = 1024;
/// One byte of text may be six in JSON: `\u001f`.
const ESCAPED: usize = 6;
const _: () = assert!(
    ESCAPED * (EVENT_BYTES_MAX + ACTOR_BYTES_MAX + DETAILS_BYTES_MAX) + FRAME_BYTES_MAX
        <= LINE_BYTES_MAX
);

const HASH_BYTES: usize = digest::SHA256_OUTPUT_LEN;
const BEFORE_HASH: &str = ",\"hash\":\"";
const AFTER_HASH: &str = "\"}";

/// The hash of a line: SHA-256. Prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; HASH_BYTES]);

/// Why a text is no [`Hash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash has 64 hexadecimal digits, in lower case")]
pub struct HashError;

impl Hash {
    /// Stands where there is no line before.
    pub const NONE: Self = Self([0; HASH_BYTES]);

    /// Of a line's text up to its hash.
    fn of(prev: &Self, text: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&prev.0);
        context.update(text.as_bytes());
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = HashError;

    /// One hash, one spelling: upper case is refused.
    fn from_str(text: &str) -> Result<Self, HashError> {
        let digits = text.as_bytes();
        if digits.len() != 2 * HASH_BYTES {
            return Err(HashError);
        }
        let mut hash = [0; HASH_BYTES];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(hash))
    }
}

fn digit(char: u8) -> Result<u8, HashError> {
    match char {
        b'0'..=b'9' => Ok(char - b'0'),
        b'a'..=b'f' => Ok(char - b'a' + 10),
        _ => Err(HashError),
    }
}

/// Where a chain stands: the line that the next one is tied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number of the last line; 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Link {
    /// Before the first line.
    #[must_use]
    pub const fn start() -> Self {
        Self { seq: 0, hash: Hash::NONE }
    }

    /// The next line of the chain, without its end.
    pub fn append(&mut self, time: Timestamp, entry: &Entry) -> String {
        let seq = self.seq.saturating_add(1);
        let text = head(seq, time, entry, &self.hash);
        let hash = Hash::of(&self.hash, &text);
        *self = Self { seq, hash };
        format!("{text}{BEFORE_HASH}{hash}{AFTER_HASH}")
    }
}

/// A line up to its hash.
fn head(seq: u64, time: Timestamp, entry: &Entry, prev: &Hash) -> String {
    #[derive(Serialize)]
    struct Head<'a> {
        seq: u64,
        time: String,
        event: &'a str,
        actor: &'a str,
        details: &'a Map<String, Value>,
        prev: String,
    }
    let head = Head {
        seq,
        time: Rfc3339(time).to_string(),
        event: entry.event(),
        actor: entry.actor(),
        details: entry.details(),
        prev: prev.to_string(),
    };
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut json, Ascii);
    head.serialize(&mut serializer).expect("a Vec takes everything, and all keys are strings");
    json.pop(); // the brace that comes behind the hash
    String::from_utf8(json).expect("JSON is UTF-8")
}

/// JSON in ASCII: what a peer chose as its name can neither colour nor turn around the line of
/// somebody who looks at the file.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        for char in fragment.chars() {
            if matches!(char, ' '..='~') {
                writer.write_all(&[char as u8])?;
                continue;
            }
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

/// A line that was read, and whose hash is that of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was recorded, RFC 3339.
    pub time: &'a str,
    /// The event's name.
    pub event: &'a str,
    /// The hash of the line before.
    pub prev: Hash,
    /// Its own hash.
    pub hash: Hash,
}

/// The members of a line as they stand in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members<'a> {
    seq: u64,
    time: &'a str,
    event: &'a str,
    #[serde(borrow, rename = "actor")]
    _actor: Cow<'a, str>,
    #[serde(rename = "details")]
    _details: IgnoredAny,
    prev: &'a str,
    hash: &'a str,
}

impl<'a> Line<'a> {
    /// Reads a line, without its end.
    ///
    /// # Errors
    /// [`Flaw::NoLine`] and [`Flaw::Changed`].
    pub fn read(line: &'a [u8]) -> Result<Self, Flaw> {
        let members: Members<'_> = serde_json::from_slice(line).map_err(|e| no_line(&e))?;
        let prev = members.prev.parse().map_err(|e: HashError| Flaw::NoLine(e.to_string()))?;
        let hash: Hash =
            members.hash.parse().map_err(|e: HashError| Flaw::NoLine(e.to_string()))?;
        let seal = format!("{BEFORE_HASH}{hash}{AFTER_HASH}");
        let text = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix(&*seal));
        let text = text.ok_or_else(|| Flaw::NoLine("it does not end with its hash".to_owned()))?;
        if members.seq == 0 {
            return Err(Flaw::NoLine("numbers begin at 1".to_owned()));
        }
        if Hash::of(&prev, text) != hash {
            return Err(Flaw::Changed);
        }
        Ok(Self { seq: members.seq, time: members.time, event: members.event, prev, hash })
    }

    /// Where the chain stands after this line.
    #[must_use]
    pub fn link(&self) -> Link {
        Link { seq: self.seq, hash: self.hash }
    }
}

/// What is wrong with the JSON, in words that take nothing from the file.
fn no_line(error: &serde_json::Error) -> Flaw {
    let what = if error.is_data() { "other members than those of one" } else { "broken JSON" };
    Flaw::NoLine(format!("{what}, at column {}", error.column()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry() -> Entry {
        Entry::new("refusal", "device 8904\u{202e}\u{1b}é😀").with("reason", "foreign_gid")
    }

    #[test]
    fn a_line_has_its_members_in_this_order_and_is_ascii() {
        let mut link = Link::start();
        let line = link.append(Timestamp(1_709_210_096_007), &entry());
        let zeros = "0".repeat(64);
        let text = format!(
            "{{\"seq\":1,\"time\":\"2024-02-29T12:34:56.007Z\",\"event\":\"refusal\",\
             \"actor\":\"device 8904\\u202e\\u001b\\u00e9\\ud83d\\ude00\",\
             \"details\":{{\"reason\":\"foreign_gid\"}},\"prev\":\"{zeros}\""
        );
        // As anybody else would compute it.
        let hash = digest::digest(&digest::SHA256, &[&[0; 32], text.as_bytes()].concat());
        let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(line, format!("{text},\"hash\":\"{hash}\"}}"));
        assert_eq!(link, Link { seq: 1, hash: hash.parse().unwrap() });
        let json: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["actor"], "device 8904\u{202e}\u{1b}é😀", "nothing is lost");
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let mut link = Link { seq: 41, hash: Hash([7; 32]) };
        let line = link.append(Timestamp(0), &entry());
        let read = Line::read(line.as_bytes()).unwrap();
        assert_eq!((read.seq, read.time, read.event), (42, "1970-01-01T00:00:00.000Z", "refusal"));
        assert_eq!((read.prev, read.link()), (Hash([7; 32]), link));
    }

    #[test]
    fn one_line_has_one_spelling() {
        let line = Link::start().append(Timestamp(0), &entry());
        let (text, hash) = line.split_once(BEFORE_HASH).unwrap();
        for other in [
            format!(" {line}"),
            format!("{line} "),
            format!("{line}\r"),
            format!("{text}, \"hash\":\"{hash}"),
            format!("{text}{BEFORE_HASH}{}", hash.to_uppercase()),
            line.replacen("\"seq\":1", "\"seq\":1,\"seq\":1", 1),
            line.replacen("\"seq\":1", "\"seq\":1,\"sum\":1", 1),
            line.replacen("\"event\":\"refusal\",", "", 1),
            line.replacen("\"refusal\"", "1", 1),
            String::new(),
            "[]".to_owned(),
        ] {
            let flaw = Line::read(other.as_bytes()).unwrap_err();
            assert!(matches!(flaw, Flaw::NoLine(_) | Flaw::Changed), "{flaw}: {other}");
        }
    }

    #[test]
    fn the_longest_entry_is_within_the_bound_of_a_line() {
        let worst = "\u{1}".repeat(TEXT);
        let nested: Map<String, Value> =
            (0..9).map(|i| (format!("\u{1}{i}"), json!([worst, worst]))).collect();
        let entry = Entry::new("refusal", &worst).with("a", worst.clone()).with("b", nested);
        let line = Link { seq: u64::MAX, hash: Hash::NONE }.append(Timestamp::NEVER, &entry);
        assert!((20_000..=LINE_BYTES_MAX).contains(&line.len()), "{}", line.len());
        assert!(Line::read(line.as_bytes()).is_ok());
    }

    const TEXT: usize = crate::audit::TEXT_BYTES_MAX;

    #[test]
    fn a_hash_has_one_spelling() {
        let text = "00ff10".repeat(11)[..64].to_owned();
        assert_eq!(text.parse::<Hash>().unwrap().to_string(), text);
        for wrong in [&text[1..], &text.to_uppercase(), &text.replace("ff", "fg"), "", "é"] {
            assert_eq!(wrong.parse::<Hash>(), Err(HashError), "{wrong}");
        }
    }
}
