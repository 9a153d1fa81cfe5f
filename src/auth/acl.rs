//! Rights of clients on ordinary topics, from an ACL file in mosquitto's format.
//!
//! ```text
//! topic read news/#              # before the first `user`: for anonymous clients alone
//! user roger
//! topic readwrite home/roger/#   # readwrite is the default
//! topic deny home/roger/safe
//! pattern write dev/%c/up        # for everybody; %c is the client id, %u the user name
//! ```
//!
//! Decided as mosquitto 2 does: what is not granted is denied. The `topic` lines of the user come
//! first, then the patterns; in each of the two a `deny` that matches beats every grant, and the
//! first of the two in which a line matches decides. So a `topic` grant beats a `pattern deny`. A
//! wildcard at the first level does not grant names that begin with `$`.
//!
//! Stricter than mosquitto on names that peers choose (cases S1 to S3) and on the file itself: one
//! broken line refuses it whole (case S10).

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use super::filter::{contains, intersection};
use crate::mqtt::topic::{self, TopicError};

/// Largest file, in bytes.
pub const ACL_BYTES_MAX: usize = 64 << 20;

/// Most lines of a file.
const LINES_MAX: usize = 1_000_000;

/// More mistakes than this are not looked for.
const MISTAKES_MAX: usize = 100;

/// The rights of all clients.
#[derive(Debug, Default)]
pub struct Acl {
    anonymous: Arc<[Rule]>,
    users: HashMap<Box<str>, Arc<[Rule]>>,
    patterns: Vec<Rule>,
}

/// One line of a file; denials stand before grants in every list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    access: Access,
    filter: Box<str>,
}

/// What a line says about its topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Deny,
    Read,
    Write,
    ReadWrite,
}

impl Access {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "deny" => Some(Self::Deny),
            "read" => Some(Self::Read),
            "write" => Some(Self::Write),
            "readwrite" => Some(Self::ReadWrite),
            _ => None,
        }
    }

    fn grants(self, wanted: Wanted) -> bool {
        match self {
            Self::Deny => false,
            Self::Read => wanted == Wanted::Read,
            Self::Write => wanted == Wanted::Write,
            Self::ReadWrite => true,
        }
    }
}

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Read,
    Write,
}

/// A line that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct AclMistake {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: AclFault,
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclFault {
    /// The file is too large.
    #[error("the file has more than {ACL_BYTES_MAX} bytes")]
    TooLarge,
    /// The file has too many lines.
    #[error("the file has more than {LINES_MAX} lines")]
    TooManyLines,
    /// A mark that some editors write in front of a text.
    #[error("a byte order mark; save the file as UTF-8 without it")]
    ByteOrderMark,
    /// The line is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// A tab or another control character within the line.
    #[error("a control character; words are separated by spaces")]
    ControlCharacter,
    /// The first word is unknown.
    #[error("begins with {0:?}; only `user`, `topic`, `pattern` and, in the first column, `#` may")]
    UnknownKeyword(String),
    /// `user` alone.
    #[error("`user` without a name")]
    NoUser,
    /// `topic` or `pattern` alone, or with nothing but an access behind it.
    #[error("no topic filter")]
    NoFilter,
    /// More than one word, and the first is no access.
    #[error(
        "access {0:?}; known are `read`, `write`, `readwrite` and `deny`, and one must be there \
         when the filter has a space"
    )]
    UnknownAccess(String),
    /// The filter is none.
    #[error("the topic filter {0}")]
    Filter(#[from] TopicError),
}

impl Acl {
    /// Reads a file.
    ///
    /// # Errors
    /// Every mistake, at most a hundred, in the order of the lines: a file with one is not used.
    pub fn parse(file: &[u8]) -> Result<Self, Vec<AclMistake>> {
        let whole = |fault| vec![AclMistake { line: 1, fault }];
        if file.len() > ACL_BYTES_MAX {
            return Err(whole(AclFault::TooLarge));
        }
        if file.starts_with(BYTE_ORDER_MARK) {
            return Err(whole(AclFault::ByteOrderMark));
        }
        let mut reader = Reader::default();
        let mut mistakes = Vec::new();
        for (at, line) in file.split(|byte| *byte == b'\n').enumerate() {
            if at >= LINES_MAX {
                return Err(whole(AclFault::TooManyLines));
            }
            if let Err(fault) = reader.line(line) {
                mistakes.push(AclMistake { line: at + 1, fault });
            }
            if mistakes.len() >= MISTAKES_MAX {
                break;
            }
        }
        if mistakes.is_empty() { Ok(reader.finish()) } else { Err(mistakes) }
    }

    /// The rights of one client; without a user name it is anonymous. Patterns are filled in once,
    /// here.
    #[must_use]
    pub fn rights(&self, user: Option<&str>, client_id: &str) -> Rights {
        let topics = match user {
            Some(user) => self.users.get(user).map(Arc::clone).unwrap_or_default(),
            None => Arc::clone(&self.anonymous),
        };
        let names = Names { user, client_id };
        let patterns = if names.are_wild() {
            Box::default()
        } else {
            self.patterns.iter().filter_map(|pattern| names.fill(pattern)).collect()
        };
        Rights { topics, patterns }
    }
}

/// What one client may do. Nothing here takes longer than the client's lines times the levels of
/// the topic.
#[derive(Debug)]
pub struct Rights {
    topics: Arc<[Rule]>,
    patterns: Box<[Rule]>,
}

impl Rights {
    /// Whether the client may publish to this topic.
    #[must_use]
    pub fn may_write(&self, topic: &str) -> bool {
        self.may(Wanted::Write, topic)
    }

    /// Whether the client may be sent what is published to this topic.
    #[must_use]
    pub fn may_read(&self, topic: &str) -> bool {
        self.may(Wanted::Read, topic)
    }

    /// Whether the client may read every topic that the filter matches, so that its messages need
    /// no look at each. One line must grant all of it: what only several lines grant together is
    /// not seen, and such messages are looked at.
    #[must_use]
    pub fn covers(&self, filter: &str) -> bool {
        for rules in [&*self.topics, &*self.patterns] {
            if denials(rules).any(|deny| intersection(deny, filter).is_some()) {
                return false;
            }
            if grants(rules).any(|grant| contains(grant, filter)) {
                return true;
            }
        }
        false
    }

    /// Whether the filter matches any topic that the client may read. Where only several denials
    /// together take away all that is granted, this says yes, and nothing is ever delivered.
    #[must_use]
    pub fn overlaps(&self, filter: &str) -> bool {
        let mut denied: Vec<&str> = Vec::new();
        for rules in [&*self.topics, &*self.patterns] {
            denied.extend(denials(rules));
            let mut granted = grants(rules).filter_map(|grant| intersection(grant, filter));
            if granted.any(|part| !denied.iter().any(|deny| contains(deny, &part))) {
                return true;
            }
        }
        false
    }

    fn may(&self, wanted: Wanted, topic: &str) -> bool {
        let decides = |rule: &&Rule| {
            (rule.access == Access::Deny || rule.access.grants(wanted))
                && topic::matches(&rule.filter, topic)
        };
        let rule = self.topics.iter().chain(&*self.patterns).find(decides);
        rule.is_some_and(|rule| rule.access != Access::Deny)
    }
}

fn denials(rules: &[Rule]) -> impl Iterator<Item = &str> {
    rules.iter().filter(|rule| rule.access == Access::Deny).map(|rule| &*rule.filter)
}

/// Filters of topics that may be read.
fn grants(rules: &[Rule]) -> impl Iterator<Item = &str> {
    rules.iter().filter(|rule| rule.access.grants(Wanted::Read)).map(|rule| &*rule.filter)
}

/// What a client puts into patterns.
#[derive(Clone, Copy)]
struct Names<'a> {
    user: Option<&'a str>,
    client_id: &'a str,
}

impl<'a> Names<'a> {
    /// A wildcard in a name could turn a pattern into another: no pattern holds for such a client,
    /// neither in mosquitto (cases S1 to S3).
    fn are_wild(self) -> bool {
        let wild = |name: &str| name.contains(['+', '#', '\0']);
        wild(self.client_id) || self.user.is_some_and(wild)
    }

    /// The pattern for this client. None where it is not for it: `%u` without a user name; and
    /// a grant that its name would turn into one for another place (`/`, nothing, or `$` in
    /// front). A denial is filled in whatever the name is: nobody gets around it by its name.
    fn fill(self, pattern: &Rule) -> Option<Rule> {
        let mut filter = String::with_capacity(pattern.filter.len());
        let mut rest = &*pattern.filter;
        while let Some((before, placeholder, after)) = next_placeholder(rest) {
            filter.push_str(before);
            let name = self.value(placeholder)?;
            let moves = name.is_empty() || name.contains('/');
            let moves = moves || (filter.is_empty() && name.starts_with('$'));
            if moves && pattern.access != Access::Deny {
                return None;
            }
            filter.push_str(name);
            rest = after;
        }
        filter.push_str(rest);
        Some(Rule { access: pattern.access, filter: filter.into() })
    }

    fn value(self, placeholder: Placeholder) -> Option<&'a str> {
        match placeholder {
            Placeholder::ClientId => Some(self.client_id),
            Placeholder::User => self.user,
        }
    }
}

#[derive(Clone, Copy)]
enum Placeholder {
    ClientId,
    User,
}

/// The text before the first placeholder, which one it is, and the text behind it.
fn next_placeholder(text: &str) -> Option<(&str, Placeholder, &str)> {
    text.match_indices('%').find_map(|(at, _)| {
        let behind = &text[at + 1..];
        let (placeholder, rest) = if let Some(rest) = behind.strip_prefix('c') {
            (Placeholder::ClientId, rest)
        } else {
            (Placeholder::User, behind.strip_prefix('u')?)
        };
        Some((&text[..at], placeholder, rest))
    })
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file half read.
#[derive(Default)]
struct Reader {
    /// Whose `topic` lines these are; before the first `user`, those of anonymous clients.
    user: Option<Box<str>>,
    anonymous: Vec<Rule>,
    users: HashMap<Box<str>, Vec<Rule>>,
    patterns: Vec<Rule>,
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), AclFault> {
        if line.starts_with(b"#") {
            return Ok(());
        }
        let line = std::str::from_utf8(line).map_err(|_error| AclFault::NotUtf8)?;
        let line = line.trim_end_matches(|c: char| c.is_ascii_whitespace()).trim_start_matches(' ');
        if line.is_empty() {
            return Ok(());
        }
        if line.chars().any(char::is_control) {
            return Err(AclFault::ControlCharacter);
        }
        let (keyword, rest) = split_word(line);
        match keyword {
            "user" if rest.is_empty() => return Err(AclFault::NoUser),
            "user" => {
                self.users.entry(rest.into()).or_default();
                self.user = Some(rest.into());
            }
            "topic" => {
                let rule = Rule::parse(rest)?;
                match &self.user {
                    None => self.anonymous.push(rule),
                    Some(user) => self.users.entry(user.clone()).or_default().push(rule),
                }
            }
            "pattern" => self.patterns.push(Rule::parse(rest)?),
            other => return Err(AclFault::UnknownKeyword(shortened(other))),
        }
        Ok(())
    }

    fn finish(self) -> Acl {
        let users = self.users.into_iter().map(|(user, rules)| (user, denials_first(rules).into()));
        Acl {
            anonymous: denials_first(self.anonymous).into(),
            users: users.collect(),
            patterns: denials_first(self.patterns),
        }
    }
}

impl Rule {
    /// What follows `topic` or `pattern`.
    fn parse(text: &str) -> Result<Self, AclFault> {
        let (word, rest) = split_word(text);
        let (access, filter) = match (Access::parse(word), rest) {
            // mosquitto takes a lonely `deny` for a topic of this name, and grants it.
            (Some(_), "") => return Err(AclFault::NoFilter),
            (None, "") if word.is_empty() => return Err(AclFault::NoFilter),
            (None, "") => (Access::ReadWrite, word),
            (Some(access), filter) => (access, filter),
            (None, _more) => return Err(AclFault::UnknownAccess(shortened(word))),
        };
        topic::validate_filter(filter)?;
        Ok(Self { access, filter: filter.into() })
    }
}

/// The first word and what follows its spaces.
fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    (word, rest.trim_start_matches(' '))
}

fn denials_first(mut rules: Vec<Rule>) -> Vec<Rule> {
    rules.sort_by_key(|rule| rule.access != Access::Deny);
    rules
}

/// A word of the file, fit for a line of the log.
fn shortened(word: &str) -> String {
    word.chars().take(SHOWN_CHARS).collect()
}

/// Characters of a wrong word that are shown.
const SHOWN_CHARS: usize = 32;
