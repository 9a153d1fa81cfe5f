//! What differs between two settings, as a JSON merge patch (RFC 7396).

use serde_json::{Map, Value};

/// Changes `target` as `patch` says.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in members {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// The patch that makes `after` of `before`; `None` where they are the same.
#[must_use]
pub fn difference(before: &Value, after: &Value) -> Option<Value> {
    if before == after {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return Some(after.clone());
    };
    let mut patch = Map::new();
    for (key, value) in after {
        let old = before.get(key).unwrap_or(&Value::Null);
        patch.extend(difference(old, value).map(|value| (key.clone(), value)));
    }
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    patch.extend(gone.map(|key| (key.clone(), Value::Null)));
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_is_merged_as_the_examples_of_its_standard_say() {
        // RFC 7396, appendix A.
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!(["a"]), json!({"a": "b"}), json!({"a": "b"})),
        ] {
            let mut merged = target;
            merge(&mut merged, &patch);
            assert_eq!(merged, result, "{patch}");
        }
    }

    #[test]
    fn what_differs_is_a_patch_that_leads_from_one_to_the_other() {
        let all = [
            json!({}),
            json!({"a": 1}),
            json!({"a": 2, "b": {"c": "x"}}),
            json!({"b": {"c": "x", "d": ["y"]}}),
            json!({"b": {"d": ["z"]}}),
            json!({"b": "c"}),
        ];
        for before in &all {
            for after in &all {
                let patch = difference(before, after);
                assert_eq!(patch.is_none(), before == after);
                let mut merged = before.clone();
                patch.iter().for_each(|patch| merge(&mut merged, patch));
                assert_eq!(&merged, after);
            }
        }
    }
}
