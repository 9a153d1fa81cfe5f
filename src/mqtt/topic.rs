//! Topic names and topic filters (sections 4.7 and 4.8.2). Nothing here recurses or allocates,
//! whatever the number of levels (case P16).

use super::wire::FIELD_BYTES_MAX;

/// Why text is no topic name or no topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// At least one character `[MQTT-4.7.3-1]`.
    #[error("is empty")]
    Empty,
    /// More than 65,535 bytes `[MQTT-4.7.3-3]`.
    #[error("has more than 65,535 bytes")]
    TooLong,
    /// U+0000 `[MQTT-4.7.3-2]`.
    #[error("contains U+0000")]
    Nul,
    /// A wildcard in a topic name `[MQTT-4.7.0-1]`.
    #[error("contains a wildcard")]
    Wildcard,
    /// `#` that is not the whole last level `[MQTT-4.7.1-1]`.
    #[error("has # elsewhere than alone at the end")]
    Hash,
    /// `+` that is not a whole level `[MQTT-4.7.1-2]`.
    #[error("has + beside other characters")]
    Plus,
    /// `$share/` with an empty group or one with wildcards `[MQTT-4.8.2-1]`.
    #[error("is shared without a proper group name")]
    ShareName,
    /// `$share/group` without a filter behind it `[MQTT-4.8.2-2]`.
    #[error("is shared without a filter")]
    ShareFilter,
}

/// Start of a shared subscription's filter.
const SHARE: &str = "$share/";

/// Checks a topic name: what a message is published to.
///
/// # Errors
/// [`TopicError`] says which rule it breaks.
pub fn validate_name(name: &str) -> Result<(), TopicError> {
    validate_length(name)?;
    // Without an early exit the compiler looks at many bytes at once; nearly all names are good.
    let bad = name.bytes().fold(false, |bad, byte| bad | matches!(byte, 0 | b'+' | b'#'));
    if !bad {
        return Ok(());
    }
    Err(if name.contains(['+', '#']) { TopicError::Wildcard } else { TopicError::Nul })
}

/// Checks a topic filter without looking at `$share` (see [`validate_shared`]).
///
/// # Errors
/// [`TopicError`] says which rule it breaks.
pub fn validate_filter(filter: &str) -> Result<(), TopicError> {
    validate_length(filter)?;
    let bytes = filter.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let starts_level = at == 0 || bytes[at - 1] == b'/';
        match (byte, bytes.get(at + 1)) {
            (0, _) => return Err(TopicError::Nul),
            (b'#', next) if !starts_level || next.is_some() => return Err(TopicError::Hash),
            (b'+', None) if starts_level => {}
            (b'+', Some(b'/')) if starts_level => {}
            (b'+', _) => return Err(TopicError::Plus),
            _ => {}
        }
    }
    Ok(())
}

/// Checks a topic filter of version 5, where `$share/` begins a shared subscription: a group name
/// without wildcards, then a filter. Before version 5 the prefix means nothing to the standard.
///
/// # Errors
/// [`TopicError`] says which rule it breaks.
pub fn validate_shared(filter: &str) -> Result<(), TopicError> {
    validate_filter(filter)?;
    let Some(rest) = filter.strip_prefix(SHARE) else { return Ok(()) };
    let (group, shared) = rest.split_once('/').unwrap_or((rest, ""));
    if group.is_empty() || group.contains(['+', '#']) {
        return Err(TopicError::ShareName);
    }
    if shared.is_empty() { Err(TopicError::ShareFilter) } else { Ok(()) }
}

/// Group and filter of a shared subscription, or no group and the filter as it is. What
/// [`validate_shared`] would refuse has no group: it is a filter like any other.
#[must_use]
pub fn split_shared(filter: &str) -> (Option<&str>, &str) {
    let shared = filter.strip_prefix(SHARE).and_then(|rest| rest.split_once('/'));
    match shared {
        Some((group, shared)) if !shared.is_empty() && is_group(group) => (Some(group), shared),
        Some(_) | None => (None, filter),
    }
}

/// The filter of a shared subscription; [`split_shared`] takes it apart again.
#[must_use]
pub fn shared(group: &str, filter: &str) -> String {
    format!("{SHARE}{group}/{filter}")
}

/// Whether a message to `name` is for a subscription to `filter`, both well-formed, the filter
/// without its `$share/group/`. A wildcard at the first level never matches a name that begins
/// with `$` `[MQTT-4.7.2-1]`.
#[must_use]
pub fn matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut named = levels(name);
    for wanted in levels(filter) {
        if wanted == "#" {
            return true; // also the parent level: sport/# matches sport
        }
        let Some(level) = named.next() else { return false };
        if wanted != "+" && wanted != level {
            return false;
        }
    }
    named.next().is_none()
}

/// The levels of a name or filter, from the left; empty ones count.
pub fn levels(topic: &str) -> std::str::Split<'_, char> {
    topic.split('/')
}

/// How many slashes a name or filter has: its levels but one.
#[must_use]
pub fn depth(topic: &str) -> usize {
    topic.bytes().filter(|byte| *byte == b'/').count()
}

fn is_group(group: &str) -> bool {
    !group.is_empty() && !group.contains(['+', '#'])
}

fn validate_length(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > FIELD_BYTES_MAX { Err(TopicError::TooLong) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_no_wildcard() {
        for name in ["a", "/", "$SYS/x", "a b/é", "\u{FFFF}", &"/".repeat(65_535)] {
            assert_eq!(validate_name(name), Ok(()));
        }
        assert_eq!(validate_name(""), Err(TopicError::Empty));
        assert_eq!(validate_name("a/+"), Err(TopicError::Wildcard));
        assert_eq!(validate_name("#"), Err(TopicError::Wildcard));
        assert_eq!(validate_name("a\0"), Err(TopicError::Nul));
        assert_eq!(validate_name(&"x".repeat(65_536)), Err(TopicError::TooLong));
    }

    // case P17
    #[test]
    fn a_wildcard_is_a_whole_level_and_hash_the_last() {
        for filter in ["#", "+", "/", "a/#", "+/+", "/+", "+/", "a/+/#", "//", &"/".repeat(65_535)]
        {
            assert_eq!(validate_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["a#", "a/#/b", "#/", "##", "/#/", "+#", "é#"] {
            let error = validate_filter(filter).unwrap_err();
            assert!(matches!(error, TopicError::Hash | TopicError::Plus), "{filter}");
        }
        for filter in ["+a", "a/+b", "a+", "++", "a/b+/c", "+é"] {
            assert_eq!(validate_filter(filter), Err(TopicError::Plus), "{filter}");
        }
        assert_eq!(validate_filter(""), Err(TopicError::Empty));
        assert_eq!(validate_filter("\0"), Err(TopicError::Nul));
        assert_eq!(validate_filter(&"/".repeat(65_536)), Err(TopicError::TooLong));
    }

    // case P18
    #[test]
    fn a_shared_filter_names_a_group_and_a_filter() {
        let good =
            [("$share/g/#", "g", "#"), ("$share/g//", "g", "/"), ("$share/é/a/b", "é", "a/b")];
        for (filter, group, rest) in good {
            assert_eq!(validate_shared(filter), Ok(()), "{filter}");
            assert_eq!(split_shared(filter), (Some(group), rest));
        }
        let bad = [
            ("$share/", TopicError::ShareName),
            ("$share//t", TopicError::ShareName),
            ("$share/+/t", TopicError::ShareName),
            ("$share/#", TopicError::ShareName),
            ("$share/a+b/t", TopicError::Plus),
            ("$share/g", TopicError::ShareFilter),
            ("$share/g/", TopicError::ShareFilter),
            ("$share/g/a#", TopicError::Hash),
        ];
        for (filter, error) in bad {
            assert_eq!(validate_shared(filter), Err(error), "{filter}");
        }
        for plain in ["$share", "$shared/g/t", "share/g/t", "a", "$share/g", "$share//t"] {
            assert_eq!(split_shared(plain), (None, plain));
        }
    }

    #[test]
    fn filters_match_by_level() {
        let yes = [
            ("#", "a/b"),
            ("a/#", "a"),
            ("a/#", "a/"),
            ("a/+", "a/"),
            ("+/+", "/a"),
            ("/+", "/a"),
            ("+/b/#", "a/b/c/d"),
            ("a/b", "a/b"),
            ("é/+", "é/x"),
            ("$SYS/#", "$SYS/x"),
            ("$SYS/+", "$SYS/x"),
            ("a/+", "a/$b"),
            ("#", "é/x"),
        ];
        let no = [
            ("a", "A"),
            ("a", "a/"),
            ("a/", "a"),
            ("a/+", "a"),
            ("a/+", "a/b/c"),
            ("+", "/a"),
            ("+", "a/"),
            ("a/#", "ab"),
            ("a/b/c", "a/b"),
            ("#", "$SYS/x"),
            ("+/x", "$SYS/x"),
            ("+/#", "$foo"),
            ("$SYS", "$SYS/x"),
        ];
        for (filter, name) in yes {
            assert!(matches(filter, name), "{filter} {name}");
        }
        for (filter, name) in no {
            assert!(!matches(filter, name), "{filter} {name}");
        }
    }

    // case P16
    #[test]
    fn the_most_levels_there_can_be() {
        let deep = "/".repeat(65_535);
        assert_eq!(levels(&deep).count(), 65_536);
        assert!(matches(&deep, &deep));
        assert!(matches("/#", &deep));
        assert!(!matches(&deep, &deep[1..]));
        let plus = format!("+{}", "/+".repeat(32_767));
        assert!(matches(&plus, &"/".repeat(32_767)));
    }
}
