//! The file format, the decisions, and filters as sets against brute force.

use proptest::prelude::*;

use super::super::filter;
use super::*;

fn acl(text: &str) -> Acl {
    Acl::parse(text.as_bytes()).unwrap()
}

fn faults(text: &[u8]) -> Vec<(usize, AclFault)> {
    Acl::parse(text).unwrap_err().into_iter().map(|m| (m.line, m.fault)).collect()
}

/// In the manner of the example that comes with mosquitto.
const EXAMPLE: &str = "\
# Clients without a user name.
topic read $SYS/#

# One user.
user roger
topic foo/bar

# Everybody.
pattern write $SYS/broker/connection/%c/state
";

#[test]
fn an_example_file_gives_everybody_what_it_says() {
    let acl = acl(EXAMPLE);
    let anonymous = acl.rights(None, "c1");
    assert!(anonymous.may_read("$SYS/broker/uptime"));
    assert!(!anonymous.may_write("$SYS/broker/uptime"));
    assert!(!anonymous.may_read("foo/bar"), "roger's alone");
    assert!(anonymous.may_write("$SYS/broker/connection/c1/state"));
    let roger = acl.rights(Some("roger"), "c2");
    assert!(roger.may_read("foo/bar") && roger.may_write("foo/bar"));
    assert!(!roger.may_read("$SYS/broker/uptime"), "for anonymous clients alone");
    assert!(!roger.may_write("$SYS/broker/connection/c1/state"), "of another client");
    assert!(roger.may_write("$SYS/broker/connection/c2/state"));
    let stranger = acl.rights(Some("Roger"), "c3");
    assert!(!stranger.may_read("foo/bar"), "names have a case");
}

#[test]
fn an_empty_file_permits_nothing() {
    for text in ["", "\n\n", "# nothing\r\n", "user roger\n"] {
        let acl = acl(text);
        for user in [None, Some("roger")] {
            let rights = acl.rights(user, "c");
            assert!(!rights.may_read("a") && !rights.may_write("a"));
            assert!(!rights.covers("a") && !rights.overlaps("#"));
        }
    }
}

#[test]
fn words_stand_apart_by_spaces_and_lines_end_in_any_way() {
    let acl = acl("user  roger the  dodger \r\n  topic   read   a b/ c  \t\r\ntopic write x\r\n\
                   user other\ntopic y\nuser roger the  dodger\ntopic z");
    let rights = acl.rights(Some("roger the  dodger"), "c");
    assert!(rights.may_read("a b/ c") && !rights.may_write("a b/ c"));
    assert!(rights.may_write("x") && !rights.may_read("x"));
    assert!(rights.may_read("z"), "a user may have several sections");
    assert!(!rights.may_read("y"));
}

// case S10
#[test]
fn every_mistake_is_told_with_its_line_and_refuses_the_file() {
    let text = "topic read a\nuser\ntopic\ntopic deny\npattern read\nusers x\ntopic rad a\n\
                topic read a#\npattern read +x\ntopic\ta\ntopic write a\tb\n # indented\nUSER x\n";
    let unknown = |word: &str| AclFault::UnknownKeyword(word.to_owned());
    let expected = [
        (2, AclFault::NoUser),
        (3, AclFault::NoFilter),
        (4, AclFault::NoFilter),
        (5, AclFault::NoFilter),
        (6, unknown("users")),
        (7, AclFault::UnknownAccess("rad".to_owned())),
        (8, AclFault::Filter(TopicError::Hash)),
        (9, AclFault::Filter(TopicError::Plus)),
        (10, AclFault::ControlCharacter),
        (11, AclFault::ControlCharacter),
        (12, unknown("#")),
        (13, unknown("USER")),
    ];
    assert_eq!(faults(text.as_bytes()), expected);
    assert_eq!(faults(b"\xef\xbb\xbftopic a\n"), [(1, AclFault::ByteOrderMark)]);
    assert_eq!(faults(b"topic a\ntopic \xff\n"), [(2, AclFault::NotUtf8)]);
    assert_eq!(faults(b"topic a\0b\n"), [(1, AclFault::ControlCharacter)]);
    let long = format!("topic {}", "x".repeat(65_536));
    assert_eq!(faults(long.as_bytes()), [(1, AclFault::Filter(TopicError::TooLong))]);
}

#[test]
fn a_file_has_bounds_and_so_has_the_list_of_its_mistakes() {
    assert_eq!(faults(&vec![b'\n'; ACL_BYTES_MAX + 1]), [(1, AclFault::TooLarge)]);
    assert_eq!(faults(&vec![b'\n'; LINES_MAX]), [(1, AclFault::TooManyLines)]);
    assert!(Acl::parse(&vec![b'\n'; LINES_MAX - 1]).is_ok());
    assert_eq!(faults("x\n".repeat(1000).as_bytes()).len(), MISTAKES_MAX);
}

#[test]
fn a_denial_beats_grants_before_and_behind_it() {
    let acl = acl("user u\ntopic a/#\ntopic deny a/b\ntopic read a/b\npattern a/b\n\
                   pattern deny p/x\npattern p/#\n");
    let rights = acl.rights(Some("u"), "c");
    assert!(rights.may_read("a/c") && rights.may_read("a"));
    assert!(!rights.may_read("a/b") && !rights.may_write("a/b"), "no pattern brings it back");
    assert!(rights.may_read("p/y") && !rights.may_read("p/x"));
}

#[test]
fn the_lines_of_a_user_decide_before_the_patterns() {
    // As mosquitto has it: its patterns are not looked at when a `topic` line matches.
    let acl = acl("user u\ntopic read p/x\npattern deny p/#\n");
    let rights = acl.rights(Some("u"), "c");
    assert!(rights.may_read("p/x") && !rights.may_write("p/x"));
    assert!(!acl.rights(Some("v"), "c").may_read("p/x"));
    assert!(rights.covers("p/x") && !rights.covers("p/#") && rights.overlaps("p/#"));
}

// case P15
#[test]
fn a_dollar_needs_a_grant_of_its_own() {
    let acl =
        acl("topic #\ntopic +/x\npattern read $SYS/broker/clients/#\npattern deny +/uptime\n");
    let rights = acl.rights(None, "c");
    assert!(rights.may_read("a/x") && rights.covers("#"));
    for topic in ["$SYS/broker/uptime", "$SYS/x", "$SYS", "$foo"] {
        assert!(!rights.may_read(topic) && !rights.may_write(topic), "{topic}");
    }
    assert!(rights.may_read("$SYS/broker/clients/total"));
    assert!(rights.overlaps("$SYS/#") && !rights.covers("$SYS/#"));
    assert!(!rights.overlaps("$SYS/broker/load/#") && !rights.overlaps("$foo/#"));
}

// cases S1, S2, S3
#[test]
fn no_name_turns_a_pattern_into_another() {
    let acl = acl("pattern write dev/%c/#\npattern write user/%u\npattern write %c/own\n\
                   pattern read news\npattern write a-%u-%c/x\n");
    let names = ["+", "#", "a/b", "/", "a+", "#a", "a\0b", "$SYS", ""];
    for name in names {
        let topics =
            ["dev/x/y", "dev/+/y", "user/x", "$SYS/own", "a/b/own", "dev/a/b", "user/a/b", "/own"];
        let by_id = acl.rights(None, name);
        let by_user = acl.rights(Some(name), "c");
        for topic in topics {
            assert!(!by_id.may_write(topic), "client id {name:?}: {topic}");
            assert!(!by_user.may_write(topic), "user {name:?}: {topic}");
        }
    }
    for wild in ["+", "#", "a+b", "a\0"] {
        assert!(!acl.rights(None, wild).may_read("news"), "as in mosquitto: no pattern at all");
    }
    assert!(acl.rights(None, "a/b").may_read("news"), "this one does not use the name");
    let plain = acl.rights(Some("%c"), "%u");
    assert!(plain.may_write("user/%c") && plain.may_write("dev/%u/x"), "filled in once");
    assert!(plain.may_write("a-%c-%u/x") && plain.may_write("%u/own"));
    // Regular expressions mean nothing here.
    assert!(!acl.rights(None, ".*").may_write("dev/x/y"));
    assert!(acl.rights(None, ".*").may_write("dev/.*/y"));
    let prefix = acl.rights(None, "abc");
    assert!(prefix.may_write("dev/abc") && !prefix.may_write("dev/ab"));
}

#[test]
fn nobody_gets_around_a_denial_by_its_name() {
    let acl = acl("pattern write #\npattern deny safe/%c\npattern deny %u/safe\n");
    assert!(!acl.rights(Some("u"), "c").may_write("safe/c"));
    assert!(!acl.rights(Some("u"), "a/b").may_write("safe/a/b"));
    assert!(!acl.rights(Some("a/b"), "c").may_write("a/b/safe"));
    assert!(acl.rights(None, "c").may_write("x/safe"), "without a user name there is no %u");
    for wild in ["+", "#"] {
        assert!(!acl.rights(None, wild).may_write("x"));
    }
}

// case D12
#[test]
fn wildcard_bombs_take_no_longer_than_plain_filters() {
    let bomb = format!("{}#", "+/".repeat(30_000));
    let acl = acl(&format!("topic read {bomb}\n").repeat(100));
    let rights = acl.rights(None, "c");
    let topic = "a/".repeat(30_000);
    // A hundred lines of 30,000 levels; what backtracks would never end.
    assert!(rights.may_read(&topic) && !rights.may_read("a/b"));
    assert!(rights.covers(&bomb) && rights.overlaps("#") && !rights.covers("#"));
}

const LEVELS: [&str; 5] = ["a", "b", "", "$s", "other"];

/// Every topic of up to four of these levels. `other` stands in no filter: what is matched there
/// is matched by a wildcard.
fn topics() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut longest: Vec<Vec<&str>> = vec![Vec::new()];
    for _ in 0..4 {
        let longer = longest.iter().flat_map(|topic| {
            LEVELS.iter().map(|level| topic.iter().copied().chain([*level]).collect::<Vec<_>>())
        });
        longest = longer.collect();
        all.extend(longest.iter().map(|levels| levels.join("/")).filter(|topic| !topic.is_empty()));
    }
    all
}

fn filters() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "", "$s", "+", "+"]);
    (prop::collection::vec(level, 0..4), any::<bool>()).prop_filter_map(
        "no level",
        |(levels, hash)| {
            let levels = levels.into_iter().chain(hash.then_some("#"));
            let filter = levels.collect::<Vec<_>>().join("/");
            (!filter.is_empty()).then_some(filter)
        },
    )
}

fn rules(denials: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Rule>> {
    let rule = |access: &'static [Access]| {
        (prop::sample::select(access), filters())
            .prop_map(|(access, filter)| Rule { access, filter: filter.into() })
    };
    let grant = rule(&[Access::Read, Access::Write, Access::ReadWrite]);
    let denials = prop::collection::vec(rule(&[Access::Deny]), denials);
    (denials, prop::collection::vec(grant, 0..4)).prop_map(|(mut denials, grants)| {
        denials.extend(grants);
        denials
    })
}

/// What the definition says: in each part a denial that matches, else a grant that does.
fn may_read(rights: &Rights, topic: &str) -> bool {
    for part in [&*rights.topics, &*rights.patterns] {
        let matching = || part.iter().filter(|rule| topic::matches(&rule.filter, topic));
        if matching().any(|rule| rule.access == Access::Deny) {
            return false;
        }
        if matching().any(|rule| matches!(rule.access, Access::Read | Access::ReadWrite)) {
            return true;
        }
    }
    false
}

/// What files are made of, and what they should not be made of.
const WORDS: [&str; 18] = [
    "user", "topic", "pattern", "read", "deny", " ", "\n", "\r\n", "#", "+", "/", "%c", "%u", "%",
    "$SYS", "é", "\t", "\u{feff}",
];

proptest! {
    #[test]
    fn sets_of_topics_are_what_matching_says(a in filters(), b in filters()) {
        let common = filter::intersection(&a, &b);
        let mut subset = true;
        for topic in topics() {
            let (in_a, in_b) = (topic::matches(&a, &topic), topic::matches(&b, &topic));
            let in_both = common.as_ref().is_some_and(|common| topic::matches(common, &topic));
            prop_assert_eq!(in_both, in_a && in_b, "{} in {} and {}: {:?}", topic, a, b, common);
            subset &= in_a || !in_b;
        }
        prop_assert_eq!(filter::contains(&a, &b), subset, "{} holds {}", a, b);
        prop_assert_eq!(filter::intersection(&b, &a), common);
    }

    #[test]
    fn what_covers_and_overlaps_say_is_true(
        topic_rules in rules(0..3),
        pattern_rules in rules(0..3),
        filter in filters(),
    ) {
        let rights = Rights { topics: topic_rules.into(), patterns: pattern_rules.into() };
        let (mut all, mut any) = (true, false);
        for topic in topics() {
            prop_assert_eq!(rights.may_read(&topic), may_read(&rights, &topic));
            if topic::matches(&filter, &topic) {
                all &= rights.may_read(&topic);
                any |= rights.may_read(&topic);
            }
        }
        prop_assert!(all || !rights.covers(&filter), "{filter} is not covered");
        prop_assert!(!any || rights.overlaps(&filter), "{filter} overlaps");
    }

    #[test]
    fn with_one_denial_and_one_grant_they_are_exact(
        denials in prop::collection::vec(filters(), 0..2),
        grant in filters(),
        filter in filters(),
    ) {
        let denials = denials.into_iter().map(|filter| (Access::Deny, filter));
        let lines = denials.chain([(Access::Read, grant)]);
        let rules = lines.map(|(access, filter)| Rule { access, filter: filter.into() });
        let rights = Rights { topics: rules.collect(), patterns: Box::default() };
        let matching = || topics().into_iter().filter(|topic| topic::matches(&filter, topic));
        prop_assert_eq!(rights.covers(&filter), matching().all(|t| rights.may_read(&t)));
        prop_assert_eq!(rights.overlaps(&filter), matching().any(|t| rights.may_read(&t)));
    }

    // case P31
    #[test]
    fn no_file_makes_the_parser_fall_over(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _refused_or_not = Acl::parse(&bytes);
    }

    // case P31
    #[test]
    fn no_file_of_known_words_does_either(
        words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..60),
    ) {
        if let Ok(acl) = Acl::parse(words.concat().as_bytes()) {
            let rights = acl.rights(Some("é"), "c%");
            prop_assert!(!rights.covers("#") || rights.may_read("any"));
        }
    }
}
