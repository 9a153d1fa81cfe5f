//! Topic filters as sets of topic names: which holds another, and what two have in common.
//!
//! Both take time in proportion to the shorter filter, whatever the wildcards (case D12): a filter
//! is a chain of levels, so nothing is ever tried twice.

use crate::mqtt::topic::levels;

/// Whether every topic name that `narrow` matches is matched by `wide` too; both well-formed.
#[must_use]
pub(super) fn contains(wide: &str, narrow: &str) -> bool {
    if is_hidden_from(wide, narrow) {
        return false;
    }
    // A name has at least one level, and one character [MQTT-4.7.3-1]: these two have no parent.
    let narrow = match narrow {
        "#" => "+/#",
        "/#" => "/+/#",
        other => other,
    };
    let mut inner = levels(narrow);
    for level in levels(wide) {
        if level == "#" {
            return true;
        }
        match inner.next() {
            None | Some("#") => return false,
            Some(_any) if level == "+" => {}
            Some(same) if same == level => {}
            Some(_other) => return false,
        }
    }
    inner.next().is_none()
}

/// The filter of the topic names that both match; none when there is no such name.
#[must_use]
pub(super) fn intersection(a: &str, b: &str) -> Option<String> {
    if is_hidden_from(a, b) || is_hidden_from(b, a) {
        return None;
    }
    let (mut left, mut right) = (levels(a), levels(b));
    let mut common: Vec<&str> = Vec::new();
    loop {
        let rest = match (left.next(), right.next()) {
            (None, None | Some("#")) | (Some("#"), None) => break,
            (None, Some(_)) | (Some(_), None) => return None,
            (Some("#"), Some(level)) => {
                common.push(level);
                right
            }
            (Some(level), Some("#")) => {
                common.push(level);
                left
            }
            (Some("+"), Some(level)) | (Some(level), Some("+")) => {
                common.push(level);
                continue;
            }
            (Some(x), Some(y)) if x == y => {
                common.push(x);
                continue;
            }
            (Some(_), Some(_)) => return None,
        };
        common.extend(rest);
        break;
    }
    // `/#` and `+` have the name without a character in common, and that is none.
    Some(common.join("/")).filter(|common| !common.is_empty())
}

/// A wildcard at the first level does not match names that begin with `$` `[MQTT-4.7.2-1]`.
fn is_hidden_from(wild: &str, filter: &str) -> bool {
    wild.starts_with(['+', '#']) && filter.starts_with('$')
}
