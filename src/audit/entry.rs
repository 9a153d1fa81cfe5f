//! What happened, before it is a line: bounded, whoever chose the names in it.

use serde_json::{Map, Value};

/// Longest name of an event, in bytes.
pub const EVENT_BYTES_MAX: usize = 64;
/// Longest actor, in bytes; a longer one is cut.
pub const ACTOR_BYTES_MAX: usize = 256;
/// Longest text among the details, in bytes; a longer one is cut.
pub const TEXT_BYTES_MAX: usize = 512;
/// Bytes of all details together; what comes beyond is left out.
pub const DETAILS_BYTES_MAX: usize = 4096;

/// What a value costs besides its text: no number, and no punctuation around a value, is longer.
const VALUE_BYTES: usize = 32;
/// Values within values within values.
const DEPTH_MAX: usize = 8;
/// Stands where something was cut off or left out.
const CUT: &str = "…";

/// Something that happened. The log adds number, time and hashes.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    event: &'static str,
    actor: String,
    details: Map<String, Value>,
    /// Bytes that are left for details.
    room: usize,
}

impl Entry {
    /// An event by its name (such as `refusal`), and who did it: a client, an operator, the broker.
    #[must_use]
    pub fn new(event: &'static str, actor: &str) -> Self {
        Self {
            event: upto(event, EVENT_BYTES_MAX),
            actor: cut(actor, ACTOR_BYTES_MAX),
            details: Map::new(),
            room: DETAILS_BYTES_MAX,
        }
    }

    /// Adds a detail. Long texts are cut, and what is too much is left out; either leaves a `…`.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        add(&mut self.details, name.to_owned(), value.into(), DEPTH_MAX, &mut self.room);
        self
    }

    /// The event's name.
    #[must_use]
    pub fn event(&self) -> &'static str {
        self.event
    }

    /// Who did it.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// What there is to say about it.
    #[must_use]
    pub fn details(&self) -> &Map<String, Value> {
        &self.details
    }
}

/// Adds a member, or says that it was left out.
fn add(
    object: &mut Map<String, Value>,
    name: String,
    value: Value,
    depth: usize,
    room: &mut usize,
) {
    if !take(VALUE_BYTES + name.len(), room) {
        object.insert(CUT.to_owned(), Value::from(CUT));
        return;
    }
    object.insert(name, bounded(value, depth, room));
}

/// The value, or as much of it as there is room for.
fn bounded(value: Value, depth: usize, room: &mut usize) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
        Value::String(text) => {
            let text = cut(&text, TEXT_BYTES_MAX.min(*room));
            *room = room.saturating_sub(text.len());
            Value::String(text)
        }
        Value::Array(_) | Value::Object(_) if depth == 0 => Value::from(CUT),
        Value::Array(values) => {
            let mut kept = Vec::new();
            for value in values {
                if !take(VALUE_BYTES, room) {
                    kept.push(Value::from(CUT));
                    break;
                }
                kept.push(bounded(value, depth - 1, room));
            }
            Value::Array(kept)
        }
        Value::Object(members) => {
            let mut kept = Map::new();
            for (name, value) in members {
                add(&mut kept, name, value, depth - 1, room);
                if *room == 0 {
                    break;
                }
            }
            Value::Object(kept)
        }
    }
}

/// Takes so many bytes, or, where there are fewer, all that is left.
fn take(bytes: usize, room: &mut usize) -> bool {
    let enough = bytes <= *room;
    *room = if enough { *room - bytes } else { 0 };
    enough
}

fn cut(text: &str, bytes_max: usize) -> String {
    let kept = upto(text, bytes_max);
    if kept.len() == text.len() { kept.to_owned() } else { format!("{kept}{CUT}") }
}

/// At most so many bytes of it, in whole characters.
fn upto(text: &str, bytes_max: usize) -> &str {
    let mut ends = (0..=bytes_max.min(text.len())).rev();
    &text[..ends.find(|end| text.is_char_boundary(*end)).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_fits_stays_as_it_is() {
        let entry = Entry::new("setting_changed", "operator ann")
            .with("gid", 42)
            .with("before", json!({ "mode": "any", "ttl": [1, null, true] }))
            .with("text", "é".repeat(TEXT_BYTES_MAX / 2));
        assert_eq!((entry.event(), entry.actor()), ("setting_changed", "operator ann"));
        let details = Value::Object(entry.details().clone());
        assert_eq!(details["gid"], 42);
        assert_eq!(details["before"], json!({ "mode": "any", "ttl": [1, null, true] }));
        assert_eq!(details["text"].as_str().unwrap().len(), TEXT_BYTES_MAX);
        assert!(!details.to_string().contains(CUT));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let entry = Entry::new("refusal", &"é".repeat(129)).with("x", "€".repeat(171));
        assert_eq!(entry.actor(), format!("{}…", "é".repeat(128)));
        assert_eq!(entry.details()["x"], format!("{}…", "€".repeat(170)), "510 of 513 bytes");
    }

    #[test]
    fn what_is_too_much_is_left_out_and_says_so() {
        let mut entry = Entry::new("refusal", "a");
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
            entry = entry.with(name, "x".repeat(TEXT_BYTES_MAX));
        }
        assert_eq!(entry.details()["g"], "x".repeat(TEXT_BYTES_MAX));
        assert!(entry.details()["h"].as_str().unwrap().ends_with("x…"), "half of it");
        assert_eq!(entry.details().get("i"), None);
        assert_eq!(entry.details()[CUT], CUT);

        let list = Entry::new("refusal", "a").with("list", vec![1; 10_000]);
        let list = list.details()["list"].as_array().unwrap();
        assert!((100..=DETAILS_BYTES_MAX / VALUE_BYTES + 1).contains(&list.len()));
        assert_eq!(list.last().unwrap(), CUT);

        let deep = (0..20).fold(json!(1), |inner, _| json!([inner]));
        let deep = Entry::new("refusal", "a").with("deep", deep);
        assert_eq!(
            Value::from(deep.details().clone()).to_string(),
            r#"{"deep":[[[[[[[["…"]]]]]]]]}"#
        );
    }

    /// Values of any shape and size.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<f64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "[\u{0}-\u{20}é€😀]{0,700}".prop_map(Value::from),
        ];
        leaf.prop_recursive(10, 60, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::btree_map("[\u{0}-\u{20}a-z]{0,40}", inner, 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_details_are_beyond_their_bound(values in proptest::collection::vec(values(), 0..4)) {
            let names = ["a", "b", "c", "d"];
            let entry = names.into_iter().zip(values).fold(
                Entry::new("refusal", "a"),
                |entry, (name, value)| entry.with(name, value),
            );
            // A control character of one byte is six in JSON: `\u001f`.
            let escaped = serde_json::to_string(entry.details()).unwrap().len();
            prop_assert!(escaped <= 6 * DETAILS_BYTES_MAX + 1024, "{escaped}");
        }
    }
}
